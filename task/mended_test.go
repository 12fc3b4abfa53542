package task_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/task"
)

// The holder of a token, below the function that waits for it, calls the thread.
func TestMended_LimiterServesDescendants(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		l := task.NewLimiter(1)
		require.NoError(t, toThread(ctx, func(ctx context.Context) {
			require.True(t, l.TryAcquire())
			task.Go(ctx, func(ctx context.Context) (int, error) {
				defer l.Release()
				return 0, toThread(ctx, func(context.Context) {})
			})
			short, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			require.NoError(t, l.Acquire(short))
		}))
	})
}

// The holder's call lies in the box of a frame further down.
func TestMended_LimiterServesFrameBelow(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, tsc *asyncsync.ThreadSensitiveContext) {
		l := task.NewLimiter(1)
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		require.NoError(t, toThread(ctx, func(ctx context.Context) {
			_, g := task.NewGroup(ctx)
			require.True(t, l.TryAcquire())
			g.Go(func(ctx context.Context) error { // holds the token, then calls
				defer l.Release()
				time.Sleep(time.Second)
				return toThread(ctx, func(context.Context) {})
			})
			g.Go(func(ctx context.Context) error { // calls, then wants a token
				_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
					if err := l.Acquire(ctx); err != nil {
						return 0, err
					}
					l.Release()
					return 0, nil
				})
				return err
			})
			require.NoError(t, g.Wait(ctx))
		}))
	})
}

// A task that ended before the ctx is reported so, also by a thread that was
// busy when both happened.
func TestMended_WaitEndedBeforeCtx(t *testing.T) {
	lost := 0
	for range 40 {
		inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
			gate := make(chan struct{})
			require.NoError(t, toThread(ctx, func(ctx context.Context) {
				short, cancel := context.WithCancel(ctx)
				busy := make(chan struct{})
				tk := task.Go(ctx, func(ctx context.Context) (int, error) {
					task.Go(ctx, func(ctx context.Context) (int, error) {
						return 0, toThread(ctx, func(context.Context) { <-busy })
					})
					<-gate
					return 1, nil
				})
				go func() {
					synctest.Wait()
					close(gate)
					<-tk.Done()
					cancel()
					close(busy)
				}()
				_, err := tk.Wait(short)
				if err != nil {
					lost++
				}
			}))
		})
	}
	require.Zero(t, lost)
}

// Cancel has no effect on a ctx that has ended from above.
func TestMended_CancelAfterCtxEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := errors.New("a")
		ctx, cancel := context.WithCancelCause(t.Context())
		tk := task.Go(ctx, func(ctx context.Context) (int, error) {
			<-ctx.Done()
			time.Sleep(time.Second)
			return 0, context.Cause(ctx)
		})
		cancel(a)
		synctest.Wait()
		require.False(t, tk.Cancel(errors.New("b")))
		require.False(t, tk.Cancelled())
		_, err := tk.Wait(t.Context())
		require.Equal(t, a, err)
	})
}

// A chain of tasks, each starting the next, keeps none of its ancestors.
func TestMended_Chain(t *testing.T) {
	up, cancel := context.WithCancel(context.Background())
	defer cancel()
	measure := func(n int) int64 {
		before := heap()
		end := make(chan struct{})
		hold := make(chan struct{})
		var next func(ctx context.Context, n int)
		next = func(ctx context.Context, n int) {
			task.Go(ctx, func(ctx context.Context) (int, error) {
				if n == 0 {
					close(end)
					<-hold
					return 0, nil
				}
				next(ctx, n-1)
				return 0, nil
			})
		}
		next(up, n)
		<-end
		runtime.Gosched()
		d := heap() - before
		close(hold)
		return d
	}
	measure(1000)
	require.Less(t, measure(50_000), int64(50_000*100), "bytes in use at the end of a chain of 50,000")
}

// A member that waits for its own group is told so.
func TestMended_GroupSelfWait(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		_, g := task.NewGroup(t.Context())
		g.Go(func(ctx context.Context) error {
			return g.Wait(ctx)
		})
		require.ErrorIs(t, g.Wait(t.Context()), deadlock.ErrDeadlock)
	})
}

// A Queued hook that panics leaves no member behind.
func TestMended_GroupHookPanics(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		restore := asyncsync.SetHooks(asyncsync.Hooks{Queued: func(asyncsync.CallInfo) { panic("hook") }})
		_, g := task.NewGroup(t.Context())
		require.Equal(t, testkit.Outcome{How: "panic", Value: "hook"}, endingOf(func() { g.Go(func(ctx context.Context) error { return nil }) }))
		restore()
		require.NoError(t, g.Wait(t.Context()))
	})
}

// A Goexit on top of Group.Wait takes the wait with it, but cancels the group.
func TestMended_GroupWaitUnwound(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		var gctx context.Context
		e := endingOf(func() {
			toThread(ctx, func(ctx context.Context) {
				var g *task.Group
				gctx, g = task.NewGroup(ctx)
				g.Go(func(ctx context.Context) error {
					task.Go(ctx, func(ctx context.Context) (int, error) {
						return 0, toThread(ctx, func(context.Context) { runtime.Goexit() })
					})
					<-ctx.Done()
					return nil
				})
				g.Wait(ctx)
			})
		})
		synctest.Wait()
		require.Equal(t, "goexit", e.How)
		require.Error(t, gctx.Err())
	})
}

// The ctx of a task that is over still gets a token.
func TestMended_AcquireWithEndedTaskCtx(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		over, _ := task.Go(ctx, func(ctx context.Context) (context.Context, error) { return ctx, nil }).Wait(ctx)
		synctest.Wait()
		l := task.NewLimiter(1)
		require.NoError(t, l.Acquire(over))
	})
}
