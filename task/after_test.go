package task_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/task"
)

// The end of a task cancels nothing that is done with its ctx once the end has
// been told: by Done, by Wait, by the Wait of its group. So it is for all kinds
// of tasks, however they end, and for whatever is done.
func TestAfterTask_NothingIsCancelledByItsEnd(t *testing.T) {
	type start func(ctx context.Context, fn func(context.Context) (int, error)) (wait func())
	spin := func(tk *task.Task[int]) func() {
		ended := func() bool {
			select {
			case <-tk.Done():
				return true
			default:
				return false
			}
		}
		return func() {
			for !ended() { // no sleep, which would come late
				if runtime.GOMAXPROCS(0) == 1 {
					runtime.Gosched() // nobody would end it while this runs
				}
			}
		}
	}
	member := func(_ context.Context, fn func(context.Context) (int, error)) func() {
		var g task.Group
		g.Go(func(ctx context.Context) error { _, err := fn(ctx); return err })
		return func() { endingOf(func() { g.Wait(context.Background()) }) }
	}
	starts := map[string]start{
		"a task": func(ctx context.Context, fn func(context.Context) (int, error)) func() {
			return spin(task.Go(ctx, fn))
		},
		"a task on a thread": func(ctx context.Context, fn func(context.Context) (int, error)) func() {
			return spin(asyncsync.Go(ctx, fn))
		},
		"a task that is waited for": func(ctx context.Context, fn func(context.Context) (int, error)) func() {
			tk := task.Go(ctx, fn)
			return func() { endingOf(func() { tk.Wait(context.Background()) }) }
		},
		"a member of a group without ctx": member,
		"a task below a group": func(ctx context.Context, fn func(context.Context) (int, error)) func() {
			ctx, _ = task.NewGroup(ctx)
			return spin(task.Go(ctx, fn))
		},
	}
	endings := map[string]func(){
		"returned": func() {}, "panicked": func() { panic("boom") }, "called Goexit": runtime.Goexit,
	}
	one := func(context.Context) (int, error) { return 1, nil }
	uses := map[string]func(context.Context) error{
		"a call": func(ctx context.Context) error { _, err := asyncsync.ToThread(ctx, one); return err },
		"a call from the thread": func(ctx context.Context) error {
			_, err := asyncsync.ToThread(context.WithoutCancel(ctx), func(context.Context) (int, error) { return asyncsync.ToThread(ctx, one) })
			return err
		},
		"an insensitive call": func(ctx context.Context) error {
			_, err := asyncsync.ToThread(ctx, one, asyncsync.Insensitive(), asyncsync.WithLimiter(task.NewLimiter(1)))
			return err
		},
		"an async call": func(ctx context.Context) error { _, err := asyncsync.FromThread(ctx, one); return err },
		"an async call on the same thread": func(ctx context.Context) error {
			_, err := asyncsync.FromThread(ctx, one, asyncsync.SameThread())
			return err
		},
		"a task": func(ctx context.Context) error {
			_, err := asyncsync.Go(ctx, func(ctx context.Context) (int, error) { return 1, ctx.Err() }).Wait(ctx)
			return err
		},
		"a token": func(ctx context.Context) error { return task.NewLimiter(1).Acquire(ctx) },
	}
	for name, start := range starts {
		t.Run(name, func(t *testing.T) {
			for how, end := range endings {
				t.Run("that "+how, func(t *testing.T) {
					guard(t)
					ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
					defer tsc.Close()
					for what, use := range uses {
						for i := range 50 {
							var saved context.Context
							wait := start(ctx, func(ctx context.Context) (int, error) {
								saved = ctx
								end()
								return 0, nil
							})
							wait()
							require.NoError(t, use(saved), fmt.Sprintf("%s, the %dth time", what, i))
						}
					}
				})
			}
		})
	}
}
