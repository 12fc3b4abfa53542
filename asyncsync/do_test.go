package asyncsync_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
)

// Do and DoAsync run where ToThread and FromThread do, and end so.
func TestDo(t *testing.T) {
	guard(t)
	ctx, tsc := newContext(t, asyncsync.WithName("the context"))
	home := threadOf(t, ctx)
	for _, opts := range [][]asyncsync.Option{nil, {asyncsync.Named("named")}, {asyncsync.On(tsc)}} {
		require.Same(t, errOwn, asyncsync.Do(ctx, func(ctx context.Context) error {
			require.Equal(t, home, here())
			return asyncsync.DoAsync(ctx, func(ctx context.Context) error {
				require.NotEqual(t, home.gid, here().gid)
				return asyncsync.Do(ctx, func(ctx context.Context) error {
					require.Equal(t, home, here())
					return asyncsync.Do(ctx, func(context.Context) error { return errOwn }, opts...)
				}, opts...)
			})
		}, opts...))
	}
	for _, e := range ends {
		e.CheckIs(t, outcomeOf(func() error {
			return asyncsync.Do(ctx, func(ctx context.Context) error {
				return asyncsync.DoAsync(ctx, func(context.Context) error { return e.Do() })
			})
		}))
	}
	requireMisusePanic(t, func() { asyncsync.Do(ctx, nil) })
	requireMisusePanic(t, func() { asyncsync.DoAsync(ctx, nil) })
	log := listen(t)
	require.NoError(t, asyncsync.Do(ctx, namedByItself))
	require.Len(t, log.Named("ended", "asyncsync.dev/asyncsync_test.namedByItself"), 1)
}

func namedByItself(context.Context) error { return nil }

// The function of an InterruptValue gets the value that the call has.
func TestInterruptValue(t *testing.T) {
	type stoppable struct{ stop chan struct{} }
	stop := asyncsync.InterruptValue(func(v *stoppable) { close(v.stop) })
	open := func(context.Context) (*stoppable, error) { return &stoppable{make(chan struct{})}, nil }
	wait := func(_ context.Context, v *stoppable) error { <-v.stop; return errOwn }
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		h, err := asyncsync.Open(context.Background(), open, nil)
		require.NoError(t, err)
		p := asyncsync.NewHandlePool(asyncsync.HandlePoolConfig[*stoppable]{Open: open, IdleTimeout: -1})
		for name, do := range map[string]func(context.Context) error{
			"Do": func(ctx context.Context) error { return h.Do(ctx, wait, stop) },
			"Get": func(ctx context.Context) error {
				_, err := asyncsync.Get(ctx, h, func(ctx context.Context, v *stoppable) (int, error) {
					v.stop = make(chan struct{})
					return 0, wait(ctx, v)
				}, stop)
				return err
			},
			"pool": func(ctx context.Context) error { return p.Do(ctx, wait, stop) },
		} {
			if name == "Do" { // whichever comes first closes the channel
				require.NoError(t, h.Do(context.Background(), func(_ context.Context, v *stoppable) error {
					v.stop = make(chan struct{})
					return nil
				}))
			}
			ctx, cancel := context.WithCancel(context.Background())
			r := start(func() error { return do(ctx) })
			synctest.Wait()
			require.False(t, r.Over(), name)
			cancel()
			require.Same(t, errOwn, r.Wait().Err, name)
		}
		// The last option counts.
		ctx, cancel := context.WithCancel(context.Background())
		gate := make(chan struct{})
		r := start(func() error {
			return h.Do(ctx, func(context.Context, *stoppable) error { <-gate; return nil }, stop, asyncsync.InterruptOnce(func() { close(gate) }))
		})
		synctest.Wait()
		cancel()
		require.NoError(t, r.Wait().Err)

		none := func(context.Context) error { return nil }
		requireMisusePanic(t, func() { asyncsync.InterruptValue[int](nil) })
		requireMisusePanic(t, func() { asyncsync.Do(context.Background(), none, stop) })
		requireMisusePanic(t, func() { asyncsync.DoAsync(context.Background(), none, stop) })
		requireMisusePanic(t, func() { h.Do(context.Background(), wait, asyncsync.InterruptValue(func(int) {})) })
		requireMisusePanic(t, func() { p.Do(context.Background(), wait, asyncsync.InterruptValue(func(int) {})) })
		require.NoError(t, p.Close())
		require.NoError(t, h.Close())
	})
}

// What is closed, and whose thread it is, is in the error.
func TestErrorsSayWhat(t *testing.T) {
	guard(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("db"))
	require.NoError(t, tsc.Close())
	err := asyncsync.Do(ctx, namedByItself)
	require.ErrorIs(t, err, asyncsync.ErrClosed)
	require.EqualError(t, err, `asyncsync: context "db" is closed: call of asyncsync.dev/asyncsync_test.namedByItself`)
	_, err = asyncsync.Go(ctx, func(context.Context) (int, error) { return 0, nil }, asyncsync.Named("late")).Wait(context.Background())
	require.ErrorIs(t, err, asyncsync.ErrClosed)
	require.EqualError(t, err, `asyncsync: context "db" is closed: call of late`)

	ctx, tsc = asyncsync.NewThreadSensitiveContext(context.Background())
	require.NoError(t, tsc.Close())
	err = asyncsync.Do(ctx, namedByItself)
	require.ErrorIs(t, err, asyncsync.ErrClosed)
	require.ErrorContains(t, err, "do_test.go:", "where it was made, as it has no name")

	h, err := asyncsync.Open(context.Background(), openTouchy, nil, asyncsync.WithName("bank"))
	require.NoError(t, err)
	_, err = h.Value()
	require.ErrorIs(t, err, asyncsync.ErrWrongThread)
	require.ErrorContains(t, err, `Handle of *asyncsync_test.touchy, context "bank"`)
	require.NoError(t, h.Close())
	require.ErrorContains(t, h.Do(context.Background(), func(context.Context, *touchy) error { return nil }), `context "bank" is closed`)

	e := asyncsync.NewCurrentThreadExecutor()
	err = start(func() error { return e.RunUntil(make(chan struct{})) }).Wait().Err
	require.ErrorIs(t, err, asyncsync.ErrWrongThread)
	require.ErrorContains(t, err, "RunUntil was called on goroutine")

	pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{})
	require.NoError(t, pool.Close())
	ctx, tsc = asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
	err = asyncsync.Do(ctx, namedByItself)
	require.ErrorIs(t, err, asyncsync.ErrClosed)
	require.ErrorContains(t, err, "pool")
	require.NoError(t, errors.Join(tsc.Close()))
}
