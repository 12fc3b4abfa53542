// Package lockedtask has tasks that wait with their thread locked.
package lockedtask

import (
	"context"
	"runtime"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

func park(ctx context.Context, b loop.Backend) error {
	return b.Park(ctx, func(wake func()) { wake() })
}

func thread(ctx context.Context) {
	b := loop.NewThread()
	_, _ = loop.Run(ctx, b, func(ctx context.Context) (int, error) {
		runtime.LockOSThread()
		err := b.Park(ctx, func(wake func()) { wake() }) // want `the task waits here with its thread locked, in line 20: on a thread loop that ends the process`
		runtime.UnlockOSThread()
		_ = b.Park(ctx, func(wake func()) { wake() })
		return 0, err
	})
}

// A program whose configuration says which loop it is has to be good for both.
func either(ctx context.Context, b loop.Backend) {
	_ = b.Spawn(ctx, func(ctx context.Context) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		_, _ = asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 0, nil }) // want `the task waits here with its thread locked, in line 31`
	})
}

// No wait, no task of a thread, or no task at all.
func fine(ctx context.Context) {
	b := loop.NewThread()
	_ = b.Spawn(ctx, func(ctx context.Context) {
		runtime.LockOSThread()
		runtime.UnlockOSThread()
		_ = b.Park(ctx, func(wake func()) { wake() })
	})
	g := loop.Goroutines()
	_ = g.Spawn(ctx, func(ctx context.Context) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		_ = g.Park(ctx, func(wake func()) { wake() })
	})
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_, _ = loop.Run(ctx, b, func(ctx context.Context) (int, error) { return 0, nil })
}

func silenced(ctx context.Context, b loop.Backend) {
	_ = b.Spawn(ctx, func(ctx context.Context) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		_ = park(ctx, b)
		_ = b.Park(ctx, func(wake func()) { wake() }) //asyncsync:ignore lockedtask it is never a thread loop
	})
}

func pools(ctx context.Context, b loop.Backend, e *asyncsync.PoolExecutor) {
	_ = b.Spawn(ctx, func(ctx context.Context) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		_ = e.Shutdown(ctx) // want `the task waits here with its thread locked`
		_ = e.Close()       // want `the task waits here with its thread locked`
	})
}

func yields(ctx context.Context, b loop.Backend) {
	_ = b.Spawn(ctx, func(ctx context.Context) {
		runtime.LockOSThread()
		_ = task.Yield(ctx)     // want `the task waits here with its thread locked`
		task.YieldShielded(ctx) // want `the task waits here with its thread locked`
		runtime.UnlockOSThread()
		_ = task.Yield(ctx)
	})
}

// What Shield is given runs here.
func shielded(ctx context.Context, b loop.Backend, t *task.Task[int]) {
	_ = b.Spawn(ctx, func(ctx context.Context) {
		runtime.LockOSThread()
		_, _ = task.Shield(ctx, t.Wait) // want `the task waits here with its thread locked`
		_, _ = task.Shield(ctx, func(ctx context.Context) (int, error) {
			return t.Wait(ctx) // want `the task waits here with its thread locked, in line 87`
		})
		_ = task.Timeout(ctx, 1, func(ctx context.Context) error {
			func() {
				_, _ = t.Wait(ctx) // want `the task waits here with its thread locked, in line 87`
			}()
			return nil
		})
		_, _ = task.Shield(ctx, func(ctx context.Context) (int, error) {
			runtime.UnlockOSThread()
			return t.Wait(ctx)
		})
		_, _ = task.Shield(ctx, func(ctx context.Context) (int, error) { return 1, nil })
		f := func() { _, _ = t.Wait(ctx) }
		keep(f)
		runtime.UnlockOSThread()
		_, _ = task.Shield(ctx, t.Wait)
	})
}

func keep(func()) {}

func double(_ context.Context, n int) (int, error) { return n, nil }

// Map starts tasks, and the loop over its results waits for them.
func maps(ctx context.Context, b loop.Backend) {
	_ = b.Spawn(ctx, func(ctx context.Context) {
		runtime.LockOSThread()
		results := task.Map(ctx, double, nil)
		for range task.Map(ctx, double, nil) { // want `the task waits here with its thread locked`
		}
		for range results { // want `the task waits here with its thread locked`
		}
		runtime.UnlockOSThread()
		for range task.Map(ctx, double, nil) {
		}
	})
}

// Go waits for a place in its group, if the group has a limit.
func limits(ctx context.Context, b loop.Backend, n int, fn func(context.Context) error) {
	_ = b.Spawn(ctx, func(ctx context.Context) {
		_, free := task.NewGroup(ctx)
		_, some := task.NewGroup(ctx)
		some.SetLimit(n)
		_, two := task.NewGroup(ctx)
		two.SetLimit(2)
		_, any := task.NewGroup(ctx)
		any.SetLimit(-1)
		_, twice := task.NewGroup(ctx)
		twice.SetLimit(-1)
		twice.SetLimit(3)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		some.Go(fn)
		two.Go(fn)
		two.Go(fn)
		two.Go(fn) // want `the task waits here with its thread locked`
		for range 5 {
			free.Go(fn)
			some.Go(fn) // want `the task waits here with its thread locked`
			some.TryGo(fn)
			any.Go(fn)
			twice.Go(fn)
			_, each := task.NewGroup(ctx)
			each.SetLimit(2)
			each.Go(fn)
		}
	})
}
