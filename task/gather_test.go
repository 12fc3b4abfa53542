package task_test

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/task"
)

// A Gather that is refused as a deadlock returns while its functions run. It cancels
// them, and returns nothing that they go on writing to.
func TestGather_Refused(t *testing.T) {
	queued := 0
	hook := asyncsync.Hooks{Queued: func(asyncsync.CallInfo) {
		if queued++; queued == 3 { // the second function: the first waits for the caller
			synctest.Wait()
		}
	}}
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		self := make(chan *task.Task[[]int], 1)
		causes := make(chan error, 2)
		waiter := task.Go(ctx, func(ctx context.Context) ([]int, error) {
			return task.Gather(ctx, func(ctx context.Context) (int, error) {
				_, _ = (<-self).Wait(context.WithoutCancel(ctx))
				causes <- context.Cause(ctx)
				return 1, nil
			}, func(ctx context.Context) (int, error) {
				<-ctx.Done()
				causes <- context.Cause(ctx)
				return 2, nil
			})
		})
		self <- waiter
		results, err := waiter.Wait(ctx)
		require.ErrorIs(t, err, deadlock.ErrDeadlock)
		require.Nil(t, results)
		require.Equal(t, err, <-causes)
		require.Equal(t, err, <-causes)
	}, asyncsync.WithHooks(hook))
}

// cleanUp waits for the end of ctx, then for a second, and notes that it has.
func cleanUp(ctx context.Context, over *atomic.Bool) error {
	_ = task.SleepForever(ctx)
	err := task.Sleep(context.WithoutCancel(ctx), time.Second)
	over.Store(true)
	return err
}

// A Gather that a hook ends before it has started all its functions leaves none
// running.
func TestGather_QueuedHookEnds(t *testing.T) {
	for _, e := range testkit.Ends[1:] {
		t.Run(e.How, func(t *testing.T) {
			queued := 0
			hook := asyncsync.Hooks{Queued: func(asyncsync.CallInfo) {
				if queued++; queued == 2 {
					_ = e.Do()
				}
			}}
			inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
				var over atomic.Bool
				e.Check(t, testkit.OutcomeOf(func() error {
					_, err := task.Gather(ctx, func(ctx context.Context) (int, error) {
						return 0, cleanUp(ctx, &over)
					}, func(context.Context) (int, error) {
						t.Error("has begun")
						return 0, nil
					})
					return err
				}))
				require.True(t, over.Load())
			}, asyncsync.WithHooks(hook))
		})
	}
}

// Nor does one that a Goexit on top of its wait ends.
func TestGather_GoexitOnTopOfWait(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		var over atomic.Bool
		e := endingOf(func() {
			toThread(ctx, func(ctx context.Context) {
				task.Gather(ctx, func(ctx context.Context) (int, error) {
					task.Go(ctx, func(ctx context.Context) (int, error) {
						return 0, toThread(ctx, func(context.Context) { runtime.Goexit() })
					})
					return 0, cleanUp(ctx, &over)
				})
			})
		})
		require.Equal(t, "goexit", e.How)
		require.True(t, over.Load())
	})
}

// With the ctx of a task that is over, a function that returned because another one
// failed did not itself fail.
func TestGather_WithContextOfEndedTask(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		over, cancel := overCtx(t)
		_, err := task.Gather(over,
			func(context.Context) (int, error) { return 0, errReal },
			func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() })
		require.Equal(t, errReal, err)
		cancel(errCause)
		_, err = task.Gather(over,
			func(context.Context) (int, error) { return 0, errReal },
			func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() })
		require.Equal(t, errors.Join(errReal, context.Canceled), err)
	})
}
