// Package outerctx has uses of a ctx from outside.
package outerctx

import (
	"context"
	"log/slog"
	"time"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

var save = asyncsync.SyncToAsync(func(ctx context.Context, s string) (int, error) { return len(s), nil })

func toThread(ctx context.Context) {
	_, _ = asyncsync.ToThread(ctx, func(inner context.Context) (int, error) {
		_, _ = save(ctx, "x")      // want `ctx is from outside: use inner, which this function was given`
		return save(inner, "fine") // fine
	})
}

func shadowed(ctx context.Context) {
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		return save(ctx, "x")
	})
}

func unnamed(ctx context.Context) {
	_, _ = asyncsync.ToThread(ctx, func(context.Context) (int, error) {
		_, _ = save(ctx, "x") // want `ctx is from outside: use the ctx that this function is given`
		return save(ctx, "y") // want `ctx is from outside: use the ctx that this function is given`
	})
}

func blank(ctx context.Context) {
	_, _ = asyncsync.FromThread(ctx, func(_ context.Context) (int, error) {
		return save(ctx, "x") // want `ctx is from outside: use the ctx that this function is given`
	})
}

func twoUnnamed(ctx context.Context, h *asyncsync.Handle[*int]) error {
	return h.Do(ctx, func(context.Context, *int) error {
		_, err := save(ctx, "x") // want `ctx is from outside`
		return err
	})
}

// Two levels out, and through a function in between.
func deep(ctx context.Context) {
	_, _ = asyncsync.ToThread(ctx, func(a context.Context) (int, error) {
		return asyncsync.FromThread(a, func(b context.Context) (int, error) {
			later := func() (int, error) {
				return save(a, "x") // want `a is from outside: use b`
			}
			_, _ = save(ctx, "x") // want `ctx is from outside: use b`
			_, _ = later()
			return save(b, "x")
		})
	})
}

// The argument of the very call in which the mistake is.
func argument(ctx context.Context) {
	_, _ = asyncsync.ToThread(ctx, func(a context.Context) (int, error) {
		return asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) { // want `ctx is from outside: use a`
			return save(ctx, "x")
		})
	})
}

func tasks(ctx context.Context) {
	task.Go(ctx, func(inner context.Context) (int, error) {
		work(ctx) // want `ctx is from outside: use inner`
		return 0, nil
	})
	gctx, g := task.NewGroup(ctx)
	g.Go(func(inner context.Context) error {
		work(gctx) // want `gctx is from outside: use inner`
		work(ctx)  // want `ctx is from outside: use inner`
		return nil
	})
	_ = g.Wait(gctx)
}

func work(context.Context) {}

func loops(ctx context.Context, b loop.Backend) {
	_ = b.Spawn(ctx, func(inner context.Context) {
		work(ctx) // want `ctx is from outside: use inner`
	})
	_, _ = loop.Call(ctx, b, func(inner context.Context) (int, error) {
		work(ctx) // want `ctx is from outside: use inner`
		return 0, nil
	})
	_, _ = loop.Run(ctx, b, func(inner context.Context) (int, error) {
		go work(ctx) // want `ctx is from outside: use inner`
		return 0, nil
	})
}

func go_(ctx context.Context) {
	asyncsync.Go(ctx, func(inner context.Context) (int, error) {
		return 0, ctx.Err() // reading is fine
	})
	asyncsync.Go(ctx, func(inner context.Context) (int, error) {
		slog.InfoContext(ctx, "fine: it reads values")
		return save(ctx, "x") // want `ctx is from outside: use inner`
	})
}

// A wrapper is given a ctx with each call.
func wrapper(ctx context.Context) asyncsync.Func[int, int] {
	return asyncsync.SyncToAsync(func(inner context.Context, n int) (int, error) {
		return save(ctx, "x") // want `ctx is from outside: use inner`
	})
}

// A ctx that was derived from an outer one may have a deadline of its own: it is
// reported, and left to people.
func derived(ctx context.Context) {
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, _ = asyncsync.ToThread(ctx, func(inner context.Context) (int, error) {
		return save(short, "x") // want `short is from outside: use inner`
	})
}

// In a variable the function is the same.
func variable(ctx context.Context) {
	fn := func(inner context.Context) (int, error) {
		return save(ctx, "x") // want `ctx is from outside: use inner`
	}
	_, _ = asyncsync.ToThread(ctx, fn)
}

// A shadowed name cannot be used.
func hidden(ctx context.Context) {
	_, _ = asyncsync.ToThread(ctx, func(inner context.Context) (int, error) {
		for inner := range 3 {
			_ = inner
			_, _ = save(ctx, "x") // want `ctx is from outside: use inner`
		}
		return 0, nil
	})
}

// detached work is nobody's relative, on purpose.
func detached(ctx context.Context) {
	background := asyncsync.Detach(context.WithoutCancel(ctx))
	_, _ = asyncsync.ToThread(ctx, func(inner context.Context) (int, error) {
		_, _ = save(background, "x")
		_, _ = save(asyncsync.Detach(ctx), "x")
		_ = context.Cause(ctx)
		return 0, nil
	})
}

// Another thread is asked for with the ctx of its context.
func other(ctx context.Context) {
	one, a := asyncsync.NewThreadSensitiveContext(asyncsync.Detach(ctx))
	defer a.Close()
	two, b := asyncsync.NewThreadSensitiveContext(asyncsync.Detach(ctx))
	defer b.Close()
	_, _ = asyncsync.ToThread(one, func(ctx context.Context) (int, error) {
		return save(two, "x")
	})
}

// What is called with a ctx by somebody else has one of its own.
func callback(ctx context.Context, handle func(func(context.Context))) {
	_, _ = asyncsync.ToThread(ctx, func(inner context.Context) (int, error) {
		handle(func(theirs context.Context) { work(ctx) })
		return 0, nil
	})
}

// Nothing is given to the library here.
func plain(ctx context.Context, run func(context.Context, func(context.Context))) {
	run(ctx, func(inner context.Context) { work(ctx) })
}

// A function of our own that hands on what it is given is like the library's.
func transaction(ctx context.Context, fn func(context.Context) error) error {
	_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		return 0, fn(ctx)
	})
	return err
}

func handedOn(ctx context.Context) {
	_ = transaction(ctx, func(inner context.Context) error {
		work(ctx) // want `ctx is from outside: use inner`
		return nil
	})
}

func silenced(ctx context.Context) {
	_, _ = asyncsync.ToThread(ctx, func(inner context.Context) (int, error) {
		work(ctx) //asyncsync:ignore outerctx it only logs
		//asyncsync:ignore outerctx it only logs
		work(ctx)
		//asyncsync:ignore outerctx it only logs
		//asyncsync:ignore rawwait and something else
		work(ctx)
		//asyncsync:ignore rawwait another one
		work(ctx) // want `ctx is from outside`
		//asyncsync:ignore outerctx
		work(ctx) // want `ctx is from outside: .* \(an asyncsync:ignore without a reason is none\)`
		return 0, nil
	})
}

// Of a ctx that knows nothing of the library the library takes no notice.
func nothing() {
	ctx := context.Background()
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, _ = asyncsync.ToThread(ctx, func(inner context.Context) (int, error) {
		_, _ = save(short, "x")
		return save(ctx, "x")
	})
	_ = asyncsync.WithThreadSensitiveContext(ctx, func(one context.Context) error {
		return asyncsync.WithThreadSensitiveContext(ctx, func(two context.Context) error {
			_, err := save(one, "x")
			return err
		})
	})
}

// Of those who wait the ctx says how long they do.
func patience(ctx context.Context, t *task.Task[int]) {
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	task.Go(ctx, func(inner context.Context) (int, error) {
		if n, err := t.Wait(short); err == nil {
			return n, nil
		}
		return t.Wait(ctx) // want `ctx is from outside: use inner`
	})
}

func gather(ctx context.Context) {
	_, _ = task.Gather(ctx,
		func(a context.Context) (int, error) { return save(a, "x") },
		func(b context.Context) (int, error) {
			return save(ctx, "x") // want `ctx is from outside: use b`
		})
	_ = task.Timeout(ctx, time.Second, func(inner context.Context) error {
		work(ctx) // want `ctx is from outside: use inner`
		return nil
	})
}
