// Package lockedtask has tasks that wait with their thread locked.
package lockedtask

import (
	"context"
	"runtime"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/loop"
)

func park(ctx context.Context, b loop.Backend) error {
	return b.Park(ctx, func(wake func()) { wake() })
}

func thread(ctx context.Context) {
	b := loop.NewThread()
	_, _ = loop.Run(ctx, b, func(ctx context.Context) (int, error) {
		runtime.LockOSThread()
		err := b.Park(ctx, func(wake func()) { wake() }) // want `the task waits here with its thread locked, in line 19: on a thread loop that ends the process`
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
		_, _ = asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 0, nil }) // want `the task waits here with its thread locked, in line 30`
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
