package task_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/local"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// Both sides of Await see the same local variables, both ways.
func TestAwaitCarriesLocals(t *testing.T) {
	v := local.New[int]()
	onEach(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
		defer v.Set(1)()
		_, err := task.Await(ctx, func(context.Context) (int, error) {
			n, _ := v.Get()
			require.Equal(t, 1, n)
			v.Set(2)
			return 0, nil
		})
		n, _ := v.Get()
		require.Equal(t, 2, n)
		return err
	})
}

// What a function on a thread awaits may depend on what that has started, and on
// calls of its own; one that waits for the thread as a stranger is refused.
func TestAwaitServes(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, tsc *asyncsync.ThreadSensitiveContext) {
		foreign := context.Background()
		require.NoError(t, toThread(ctx, func(ctx context.Context) {
			done := make(chan struct{})
			task.Go(ctx, func(ctx context.Context) (int, error) {
				defer close(done)
				return 0, toThread(ctx, func(context.Context) {})
			})
			_, err := task.Await(ctx, func(ctx context.Context) (int, error) {
				<-done // not known to depend on that task
				return 0, toThread(ctx, func(context.Context) {})
			})
			require.NoError(t, err)
			_, err = task.Await(ctx, func(context.Context) (int, error) {
				return asyncsync.ToThread(asyncsync.Detach(foreign), func(context.Context) (int, error) { return 0, nil }, asyncsync.On(tsc))
			})
			require.ErrorIs(t, err, deadlock.ErrDeadlock)
		}))
	})
}

// Under the policy All a wait that knows nobody serves strangers.
func TestWaitsServeStrangersUnderAll(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, tsc *asyncsync.ThreadSensitiveContext) {
		var e task.Event
		go func() { // with no ctx of the function's
			synctest.Wait()
			_, err := asyncsync.ToThread(context.Background(), func(context.Context) (int, error) {
				e.Set()
				return 0, nil
			}, asyncsync.On(tsc))
			if err != nil {
				t.Error(err)
			}
		}()
		require.NoError(t, toThread(ctx, func(ctx context.Context) {
			require.NoError(t, e.Wait(ctx))
		}))
		synctest.Wait()
		// The same with Yield: once, and no longer than that.
		ran := 0
		require.NoError(t, toThread(ctx, func(ctx context.Context) {
			for range 3 {
				go func() {
					_, err := asyncsync.ToThread(context.Background(), func(context.Context) (int, error) { ran++; return 0, nil }, asyncsync.On(tsc))
					if err != nil {
						t.Error(err)
					}
				}()
			}
			synctest.Wait()
			require.Zero(t, ran)
			require.NoError(t, task.Yield(ctx))
			require.Equal(t, 3, ran)
		}))
		synctest.Wait()
	}, asyncsync.Serve(asyncsync.All))
}

// A function that a task of a thread loop awaits through a thread is on neither: it
// blocks nobody but itself.
func TestAwaitBelowALoopBlocksNobody(t *testing.T) {
	guard(t)
	leavesNothing(t)
	b := loop.NewThread()
	pool := newPool(t)
	_, err := loop.Run(context.Background(), b, func(ctx context.Context) (int, error) {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(ctx, asyncsync.WithPool(pool))
		turn := make(chan struct{})
		err := toThreadErr(ctx, func(ctx context.Context) error {
			_, err := task.Await(ctx, func(context.Context) (int, error) {
				// The loop is not blocked by this, nor is it what runs it.
				if err := b.Spawn(context.Background(), func(context.Context) { close(turn) }); err != nil {
					return 0, err
				}
				<-turn
				return 0, nil
			})
			return err
		})
		require.NoError(t, tsc.Close())
		return 0, err
	})
	require.NoError(t, err)
}
