package asyncsync_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
)

// with0 is fn with a result.
func with0(fn func(context.Context) error) func(context.Context) (int, error) {
	return func(ctx context.Context) (int, error) { return 0, fn(ctx) }
}

// inPool makes a call in a context of its own.
func inPool(pool *asyncsync.ThreadPool, fn func(context.Context) error, opts ...asyncsync.ContextOption) error {
	return asyncsync.WithThreadSensitiveContext(context.Background(), func(ctx context.Context) error {
		return to(ctx, fn)
	}, append(opts, asyncsync.WithPool(pool))...)
}

// Who finds the line full is refused at once, and those in it get their turn.
func TestMaxWaiting(t *testing.T) {
	guard(t)
	for _, c := range []struct{ config, line int }{{2, 2}, {1, 1}, {-1, 0}, {-7, 0}} {
		synctest.Test(t, func(t *testing.T) {
			pool := newPool(t, asyncsync.ThreadPoolConfig{MaxThreads: 1, MaxWaiting: c.config})
			leave := make(chan struct{})
			first := start(func() error {
				return inPool(pool, func(context.Context) error { <-leave; return nil })
			})
			synctest.Wait()
			var order []int
			var rs []*runningFunc
			for i := range c.line {
				rs = append(rs, start(func() error {
					return inPool(pool, func(context.Context) error { order = append(order, i); return nil })
				}))
				synctest.Wait()
			}
			for range 3 {
				err := inPool(pool, neverRuns(t))
				require.ErrorIs(t, err, asyncsync.ErrPoolFull)
				require.NotErrorIs(t, err, asyncsync.ErrQueueFull)
				requireOverload(t, "asyncsync: the pool is full, and so is the line for its threads", err)

				ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
				_, err = asyncsync.Go(ctx, with0(neverRuns(t))).Wait(context.Background())
				require.ErrorIs(t, err, asyncsync.ErrPoolFull)
				require.NoError(t, tsc.Close())
			}
			require.Equal(t, c.line, pool.Stats().Waiting)
			close(leave)
			require.NoError(t, first.Wait().Err)
			for _, r := range rs {
				require.NoError(t, r.Wait().Err)
			}
			require.Equal(t, []int{0, 1}[:c.line], append([]int{}, order...))
			require.NoError(t, inPool(pool, on(nil0)))
		})
	}
}

// A function on the last thread may call into another context. Neither the call nor what
// the function comes to wait for is refused because strangers may not wait.
func TestMaxWaitingIsNotForWhoIsBlockedFor(t *testing.T) {
	guard(t)
	pool := newPool(t, asyncsync.ThreadPoolConfig{MaxThreads: 1, MaxWaiting: -1})
	ran := 0
	_, other := newContext(t, asyncsync.WithPool(pool))
	require.NoError(t, inPool(pool, func(ctx context.Context) error {
		return to(ctx, func(context.Context) error { ran++; return nil }, asyncsync.On(other))
	}))
	require.Equal(t, 1, ran)
}

// A call that has waited for long enough behind others is taken out and never
// runs; who runs is left alone.
func TestQueueWait(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		const wait = 2 * time.Second
		var ended []error
		ctx, _ := newContext(t, asyncsync.QueueWait(wait), asyncsync.WithHooks(asyncsync.Hooks{
			Ended: func(i asyncsync.CallInfo) { ended = append(ended, i.Err) },
		}))
		leave := make(chan struct{})
		first := start(func() error {
			return to(ctx, func(context.Context) error { <-leave; return nil })
		})
		synctest.Wait()
		begin := time.Now()
		err := to(ctx, neverRuns(t))
		require.Equal(t, wait, time.Since(begin))
		require.ErrorIs(t, err, asyncsync.ErrQueueFull)
		require.NotErrorIs(t, err, asyncsync.ErrPoolFull)
		require.NotErrorIs(t, err, context.DeadlineExceeded)
		requireOverload(t, "asyncsync: the thread has not come free for 2s", err)
		require.Equal(t, []error{err}, ended)

		_, err = asyncsync.Go(ctx, with0(neverRuns(t))).Wait(context.Background())
		require.ErrorIs(t, err, asyncsync.ErrQueueFull)

		// The caller's own deadline is told apart, whichever comes first.
		dctx, cancel := context.WithTimeout(ctx, wait/2)
		defer cancel()
		err = to(dctx, neverRuns(t))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, asyncsync.ErrQueueFull)

		// A caller that is a thread itself is told as well.
		other, _ := newContext(t)
		require.ErrorIs(t, to(other, func(octx context.Context) error {
			return to(ctx, neverRuns(t))
		}), asyncsync.ErrQueueFull)

		// One that begins in time may take its time.
		second := start(func() error {
			return to(ctx, func(context.Context) error { time.Sleep(10 * wait); return nil })
		})
		synctest.Wait()
		close(leave)
		require.NoError(t, first.Wait().Err)
		require.NoError(t, second.Wait().Err)
	})
}

// What a blocked function depends on is run there, however long it takes.
func TestQueueWaitFromBelow(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, _ := newContext(t, asyncsync.QueueWait(time.Second))
		ran := 0
		require.NoError(t, to(ctx, func(ctx context.Context) error {
			return from(ctx, func(ctx context.Context) error {
				return to(ctx, func(context.Context) error { time.Sleep(time.Minute); ran++; return nil })
			})
		}))
		require.Equal(t, 1, ran)
	})
}

// The same for who stands in line for a thread: another error, and the line is
// left.
func TestQueueWaitInLine(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		pool := newPool(t, asyncsync.ThreadPoolConfig{MaxThreads: 1})
		leave := make(chan struct{})
		first := start(func() error {
			return inPool(pool, func(context.Context) error { <-leave; return nil })
		})
		synctest.Wait()
		ctx, _ := newContext(t, asyncsync.WithPool(pool), asyncsync.QueueWait(time.Second))
		err := to(ctx, neverRuns(t))
		require.ErrorIs(t, err, asyncsync.ErrPoolFull)
		require.NotErrorIs(t, err, context.DeadlineExceeded)
		requireOverload(t, "asyncsync: no thread of the pool has come free for 1s", err)
		require.Zero(t, pool.Stats().Waiting)
		_, err = asyncsync.Go(ctx, with0(neverRuns(t))).Wait(context.Background())
		require.ErrorIs(t, err, asyncsync.ErrPoolFull)
		close(leave)
		require.NoError(t, first.Wait().Err)
		require.NoError(t, to(ctx, on(nil0)), "the context is as good as before")
	})
}

// One that a blocked thread of the pool waits for stands in line like others, where the
// limit is the context's own, and gets the same error.
func TestQueueWaitInLineOfTheUrgent(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		pool := newPool(t, asyncsync.ThreadPoolConfig{MaxThreads: 2, MaxOverflow: -1, MaxWait: time.Millisecond})
		holder, held := newContext(t, asyncsync.WithPool(pool))
		require.NoError(t, to(holder, on(nil0)))
		blocked, _ := newContext(t, asyncsync.WithPool(pool))
		_, third := newContext(t, asyncsync.WithPool(pool), asyncsync.QueueWait(time.Second))
		require.NoError(t, to(blocked, func(ctx context.Context) error {
			began := time.Now()
			err := to(ctx, neverRuns(t), asyncsync.On(third))
			require.ErrorIs(t, err, asyncsync.ErrPoolFull)
			require.NotErrorIs(t, err, asyncsync.ErrQueueFull)
			require.Equal(t, time.Second, time.Since(began), "MaxWait is not for it")
			return nil
		}))
		require.NoError(t, held.Close())
	})
}

// The bound of the pool is for the line alone: once there is a thread, calls of
// the context wait for each other as long as they like, or as QueueWait says.
func TestMaxWait(t *testing.T) {
	guard(t)
	for _, queueWait := range []time.Duration{0, 3 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			pool := newPool(t, asyncsync.ThreadPoolConfig{MaxThreads: 1, MaxWait: time.Second})
			opts := []asyncsync.ContextOption{asyncsync.WithPool(pool)}
			if queueWait > 0 {
				opts = append(opts, asyncsync.QueueWait(queueWait))
			}
			ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), opts...)
			leave := make(chan struct{})
			first := start(func() error {
				return to(ctx, func(context.Context) error { <-leave; return nil })
			})
			synctest.Wait()
			second := start(func() error { return to(ctx, on(nil0)) })
			synctest.Wait()
			begin := time.Now()
			err := inPool(pool, neverRuns(t))
			require.ErrorIs(t, err, asyncsync.ErrPoolFull)
			requireOverload(t, "asyncsync: no thread of the pool has come free for 1s", err)
			require.Equal(t, time.Second, time.Since(begin))
			require.Zero(t, pool.Stats().Waiting)
			time.Sleep(10 * time.Second)
			if queueWait > 0 {
				require.ErrorIs(t, second.Wait().Err, asyncsync.ErrQueueFull)
			} else {
				require.False(t, second.Over())
			}
			close(leave)
			require.NoError(t, first.Wait().Err)
			if queueWait == 0 {
				require.NoError(t, second.Wait().Err)
			}
			require.NoError(t, tsc.Close())
		})
	}
}

// A call that begins as its time is over begins or fails, once.
func TestQueueWaitRace(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t, asyncsync.QueueWait(time.Microsecond))
	ran, refused := 0, 0
	for range 2000 {
		r := start(func() error { return to(ctx, func(context.Context) error { ran++; return nil }) })
		err := to(ctx, func(context.Context) error { ran++; return nil })
		for _, err := range []error{err, r.Wait().Err} {
			if err != nil {
				full := errors.Is(err, asyncsync.ErrQueueFull) || errors.Is(err, asyncsync.ErrPoolFull)
				require.True(t, full, err)
				refused++
			}
		}
	}
	require.Equal(t, 4000, ran+refused)
}

func TestAdmissionMisuse(t *testing.T) {
	requireMisusePanic(t, func() { asyncsync.QueueWait(0) })
	requireMisusePanic(t, func() { asyncsync.QueueWait(-1) })
	requireMisusePanic(t, func() { asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxWait: -1}) })
}

// Where there is no room beyond MaxThreads either, who is blocked for waits in
// line all the same.
func TestMaxWaitingWithoutOverflow(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		pool := newPool(t, asyncsync.ThreadPoolConfig{MaxThreads: 2, MaxOverflow: -1, MaxWaiting: -1, MaxWait: time.Second})
		leave := make(chan struct{})
		first := start(func() error {
			return inPool(pool, func(context.Context) error { <-leave; return nil })
		})
		synctest.Wait()
		_, other := newContext(t, asyncsync.WithPool(pool))
		second := start(func() error {
			return inPool(pool, func(ctx context.Context) error { return to(ctx, on(nil0), asyncsync.On(other)) })
		})
		time.Sleep(time.Minute)
		require.False(t, second.Over())
		require.ErrorIs(t, inPool(pool, neverRuns(t)), asyncsync.ErrPoolFull)
		close(leave)
		require.NoError(t, first.Wait().Err)
		require.NoError(t, second.Wait().Err)
	})
}

// requireOverload fails the test unless err says what, and which call was refused.
func requireOverload(t *testing.T, what string, err error) {
	t.Helper()
	require.True(t, strings.HasPrefix(err.Error(), what+": call of "), err)
	require.Contains(t, err.Error(), " to context ")
}

// The errors of overload say which call to which context was refused, whichever way the
// call was made.
func TestOverloadErrorsSayWhich(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("db"),
			asyncsync.QueueLimit(1), asyncsync.QueueWait(time.Second))
		defer tsc.Close()
		release, busy := occupy(ctx)
		save := asyncsync.Named("save")
		queued := start(func() error { return to(ctx, neverRuns(t), save) })
		synctest.Wait()
		const which = `: call of save to context "db"`
		require.EqualError(t, to(ctx, neverRuns(t), save, asyncsync.IfFree()), "asyncsync: the thread is not free"+which)
		err := to(ctx, neverRuns(t), save)
		require.EqualError(t, err, "asyncsync: the queue is full"+which)
		require.ErrorIs(t, err, asyncsync.ErrQueueFull)
		_, err = asyncsync.Go(ctx, with0(neverRuns(t)), save).Wait(context.Background())
		require.EqualError(t, err, "asyncsync: the queue is full"+which)
		err = queued.Wait().Err
		require.EqualError(t, err, "asyncsync: the thread has not come free for 1s"+which)
		require.ErrorIs(t, err, asyncsync.ErrQueueFull)
		release()
		require.NoError(t, busy.Wait().Err)
	})
}
