// Package plaingo has goroutines that call the thread of who has started them.
package plaingo

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/task"
)

var save = asyncsync.SyncToAsync(func(ctx context.Context, s string) (int, error) { return len(s), nil })

func helper(ctx context.Context) error { _, err := save(ctx, "x"); return err }
func deeper(ctx context.Context) error { return helper(context.WithValue(ctx, 1, 2)) }
func plain(ctx context.Context) error  { return ctx.Err() }

func started(ctx context.Context) {
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		go func() {
			_, _ = save(ctx, "x") // want `a plain goroutine calls the thread with ctx: the call is not served while the function that started it waits for something else; use task.Go, or asyncsync.Go if nobody waits for it`
		}()
		go save(ctx, "x") // want `a plain goroutine calls the thread with ctx`
		go helper(ctx)    // want `a plain goroutine calls the thread with ctx`
		go func() {
			sub, cancel := context.WithCancel(ctx)
			defer cancel()
			_ = deeper(sub) // want `a plain goroutine calls the thread with ctx`
		}()
		go plain(ctx)
		go func() {
			if ctx.Err() == nil {
				println("fine")
			}
		}()
		return 0, nil
	})
}

func groups(ctx context.Context) {
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		var wg sync.WaitGroup
		wg.Go(func() {
			_ = helper(ctx) // want `a plain goroutine calls the thread with ctx`
		})
		wg.Wait()
		g, gctx := errgroup.WithContext(ctx)
		g.Go(func() error {
			return helper(gctx) // want `a plain goroutine calls the thread with ctx`
		})
		return 0, g.Wait()
	})
}

// In async code a goroutine belongs to what the thread waits for.
func async(ctx context.Context) {
	go helper(ctx)
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		return asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) {
			go helper(ctx)
			return 0, nil
		})
	})
}

// A task is what the cure is.
func tasks(ctx context.Context) {
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		t := task.Go(ctx, func(ctx context.Context) (int, error) { return save(ctx, "x") })
		go func() {
			task.Go(ctx, func(ctx context.Context) (int, error) { return save(ctx, "x") })
		}()
		return t.Wait(ctx)
	})
}

// Detached, or to another thread, the call waits for nobody here.
func elsewhere(ctx context.Context, tsc *asyncsync.ThreadSensitiveContext, other *asyncsync.Handle[int]) {
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		background := asyncsync.Detach(ctx)
		go helper(background)
		go func() {
			_ = helper(asyncsync.Detach(ctx))
			_, _ = asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 1, nil }, asyncsync.On(tsc))
			_, _ = asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 1, nil }, asyncsync.Insensitive())
			_ = other.Do(ctx, func(context.Context, int) error { return nil })
		}()
		return 0, nil
	})
}

func handle(ctx context.Context, h *asyncsync.Handle[int]) error {
	return h.Do(ctx, func(ctx context.Context, n int) error {
		go func() {
			_ = h.Do(ctx, func(context.Context, int) error { return nil }) // want `a plain goroutine calls the thread with ctx`
		}()
		return nil
	})
}

func silenced(ctx context.Context) {
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		go helper(ctx) //asyncsync:ignore plaingo it may wait
		return 0, nil
	})
}

// A wait that is for nobody in particular serves what the function has started.
func served(ctx context.Context, ev *task.Event, in <-chan int) {
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		done := make(chan int)
		go func() {
			_ = helper(ctx)
			close(done)
		}()
		n, _, err := task.Recv(ctx, done)
		return n, err
	})
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		go helper(ctx)
		<-ctx.Done()
		_ = task.Yield(ctx)
		_, _ = save(ctx, "x") // inline
		_ = task.Sleep(ctx, 1)
		return 0, ev.Wait(ctx)
	})
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		var wg sync.WaitGroup
		wg.Go(func() { _ = helper(ctx) })
		return task.Await(ctx, func(context.Context) (int, error) {
			wg.Wait()
			return 0, nil
		})
	})
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		for {
			if _, ok, err := task.Recv(ctx, in); !ok {
				return 0, err
			}
			go helper(ctx)
		}
	})
}

// Other waits do not.
func unserved(ctx context.Context, t *task.Task[int], in <-chan int) {
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		_, _, _ = task.Recv(ctx, in)
		go helper(ctx) // want `a plain goroutine calls the thread with ctx`
		return t.Wait(ctx)
	})
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		done := make(chan int)
		go func() {
			_ = helper(ctx) // want `a plain goroutine calls the thread with ctx`
			close(done)
		}()
		<-done
		_, _, err := task.Recv(ctx, in)
		return 0, err
	})
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		go helper(ctx) // want `a plain goroutine calls the thread with ctx`
		_, _, _ = task.Recv(ctx, in)
		return asyncsync.FromThread(ctx, func(context.Context) (int, error) { return <-in, nil })
	})
}
