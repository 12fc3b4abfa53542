package portal_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/loop"
	"asyncsync.dev/portal"
	"asyncsync.dev/task"
)

// callers have a ctx without an end, and one that can end: what a portal lays over it
// differs.
func callers(t *testing.T) map[string]context.Context {
	can, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return map[string]context.Context{"a ctx without an end": context.Background(), "a ctx that can end": can}
}

// The function of a Call ends with the loop, also if the ctx of Open does not: it has no
// layer of its own that the loop would end.
func TestCallEndsWithTheLoop(t *testing.T) {
	for name, outside := range callers(t) {
		t.Run(name, func(t *testing.T) {
			onBothBare(t, func(t *testing.T, kind string) {
				var p *portal.Portal
				var caller *running
				var cause error
				require.NoError(t, libkit.Run(context.Background(), libkit.NewBackend(t, kind), func(ctx context.Context) (err error) {
					p, err = portal.Open(context.WithoutCancel(ctx))
					if err != nil {
						return err
					}
					began := make(chan struct{})
					caller = background(func() error {
						return call(outside, p, func(ctx context.Context) error {
							close(began)
							err := forever(ctx)
							cause = context.Cause(ctx)
							return err
						})
					})
					return receive(ctx, began)
				}))
				require.ErrorIs(t, caller.wait(), loop.ErrStopped)
				require.Equal(t, loop.ErrStopped, cause)
				require.NoError(t, p.Close(nil))
			})
		})
	}
}

// A portal adds next to nothing to a loop.Call. The one more is for what the race
// detector has.
func TestCallAllocatesWhatCallsOfTheLoopDo(t *testing.T) {
	for name, ctx := range callers(t) {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, p *portal.Portal) {
				nothing := func(context.Context) error { return nil }
				bare := testing.AllocsPerRun(200, func() { _ = libkit.Call(ctx, p.Loop(), nothing) })
				through := testing.AllocsPerRun(200, func() { _ = call(ctx, p, nothing) })
				require.LessOrEqual(t, through, bare+1)
				require.NoError(t, p.Close(nil))
			})
		})
	}
}

// A member of a portal is four objects more than a task.
func TestStartSoonAllocatesLittleMoreThanATask(t *testing.T) {
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		nothing := func(context.Context) (int, error) { return 0, nil }
		bare := testing.AllocsPerRun(200, func() {
			_, _ = task.Go(context.Background(), nothing, task.On(p.Loop())).Wait(context.Background())
		})
		through := testing.AllocsPerRun(200, func() {
			if tk, err := portal.StartSoon(p, nothing); err == nil {
				_, _ = tk.Wait(context.Background())
			}
		})
		require.LessOrEqual(t, through, bare+4+1)
		require.NoError(t, p.Close(nil))
	})
}

// What the function of a Call leaves behind is not cancelled by the end of the call, as
// with loop.Call. The end of the caller's ctx still cancels it.
func TestCallLeavesItsTasksAlone(t *testing.T) {
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		why := errors.New("the end of the caller's ctx")
		for name, call := range map[string]func(context.Context, func(context.Context) error) error{
			"portal.Call": func(ctx context.Context, fn func(context.Context) error) error { return call(ctx, p, fn) },
			"loop.Call":   func(ctx context.Context, fn func(context.Context) error) error { return libkit.Call(ctx, p.Loop(), fn) },
		} {
			for _, begins := range []string{"before", "after"} {
				outside, cancel := context.WithCancelCause(context.Background())
				goOn, looked := make(chan struct{}), make(chan error, 1)
				var left *task.Task[int]
				var inner context.Context
				begin := func() {
					left = task.Go(inner, func(ctx context.Context) (int, error) {
						looked <- receive(ctx, goOn)
						return 0, forever(ctx)
					})
				}
				require.NoError(t, call(outside, func(ctx context.Context) error {
					inner = ctx
					if begins == "before" {
						begin()
					}
					return nil
				}))
				if begins == "after" {
					begin()
				}
				close(goOn)
				select {
				case err := <-looked:
					require.NoError(t, err, "%s: a task that has begun %s the end", name, begins)
				case <-left.Done():
					require.Fail(t, "it has not run", "%s: a task that has begun %s the end", name, begins)
				}
				cancel(why)
				_, err := left.Wait(context.Background())
				require.ErrorIs(t, err, why, "%s: a task that has begun %s the end", name, begins)
			}
		}
	})
}
