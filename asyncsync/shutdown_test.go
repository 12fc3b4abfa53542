package asyncsync_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/task"
)

// Shutdown of a handle waits like Close, and ends as the close function has; only
// one of them is told.
func TestHandleShutdown(t *testing.T) {
	for _, e := range ends {
		t.Run(e.How, func(t *testing.T) {
			guard(t)
			synctest.Test(t, func(t *testing.T) {
				h, err := asyncsync.Open(context.Background(), openTouchy, func(v *touchy) error {
					if err := v.use(); err != nil {
						t.Error(err)
					}
					return e.Do()
				})
				require.NoError(t, err)
				leave := make(chan struct{})
				first := start(func() error {
					return h.Do(context.Background(), func(context.Context, *touchy) error { <-leave; return nil })
				})
				synctest.Wait()
				second := start(func() error {
					return h.Do(context.Background(), func(_ context.Context, v *touchy) error { return v.use() })
				})
				synctest.Wait()
				shutdown := start(func() error { return h.Shutdown(context.Background()) })
				synctest.Wait()
				require.False(t, shutdown.Over())
				require.ErrorIs(t, h.Do(context.Background(), func(context.Context, *touchy) error { return nil }), asyncsync.ErrClosed)
				close(leave)
				e.CheckIs(t, shutdown.Wait())
				require.NoError(t, first.Wait().Err)
				require.NoError(t, second.Wait().Err)
				require.Equal(t, outcome{How: "return"}, outcomeOf(h.Close))
				require.Equal(t, outcome{How: "return"}, outcomeOf(func() error { return h.Shutdown(context.Background()) }))
			})
		})
	}
}

// It gives up when its ctx ends: what is queued is refused, what runs is named and
// goes on, and the next one outside is told what closing has come to.
func TestHandleShutdownGivesUp(t *testing.T) {
	for _, e := range ends {
		t.Run(e.How, func(t *testing.T) {
			guard(t)
			synctest.Test(t, func(t *testing.T) {
				closed := false
				h, err := asyncsync.Open(context.Background(), openTouchy, func(*touchy) error { closed = true; return e.Do() }, asyncsync.WithName("printer"))
				require.NoError(t, err)
				leave := make(chan struct{})
				first := start(func() error {
					return h.Do(context.Background(), func(context.Context, *touchy) error { <-leave; return nil }, asyncsync.Named("print"))
				})
				synctest.Wait()
				second := start(func() error {
					return h.Do(context.Background(), func(context.Context, *touchy) error { t.Error("it runs"); return nil })
				})
				synctest.Wait()
				ctx, cancel := context.WithTimeoutCause(context.Background(), time.Minute, errCause)
				defer cancel()
				begun := time.Now()
				err = h.Shutdown(ctx)
				require.ErrorIs(t, err, errCause)
				require.Contains(t, err.Error(), `"printer"`)
				require.Contains(t, err.Error(), "print still runs")
				require.Equal(t, time.Minute, time.Since(begun))
				require.ErrorIs(t, second.Wait().Err, asyncsync.ErrClosed)
				require.ErrorIs(t, h.Shutdown(ctx), errCause, "it has no patience at all")
				require.False(t, closed)
				again := start(func() error { return h.Shutdown(context.Background()) })
				synctest.Wait()
				close(leave)
				e.CheckIs(t, again.Wait())
				require.NoError(t, first.Wait().Err)
				require.True(t, closed)
				require.NoError(t, h.Close())
			})
		})
	}
}

// From the handle's own thread, and from below a function there, it is refused;
// the value is closed when the function has ended.
func TestHandleShutdownFromInside(t *testing.T) {
	ways := map[string]func(ctx context.Context, shutdown func() error) error{
		"the thread": func(_ context.Context, shutdown func() error) error { return shutdown() },
		"async code": func(ctx context.Context, shutdown func() error) error {
			return from(ctx, func(context.Context) error { return shutdown() })
		},
		"a task": func(ctx context.Context, shutdown func() error) error {
			_, err := task.Go(ctx, func(context.Context) (int, error) { return 0, shutdown() }).Wait(ctx)
			return err
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			guard(t)
			closed := false
			h, err := asyncsync.Open(context.Background(), openTouchy, func(*touchy) error { closed = true; return errOwn })
			require.NoError(t, err)
			require.NoError(t, h.Do(context.Background(), func(ctx context.Context, v *touchy) error {
				require.ErrorIs(t, way(ctx, func() error { return h.Shutdown(context.Background()) }), deadlock.ErrDeadlock)
				require.False(t, closed)
				return v.use()
			}))
			require.ErrorIs(t, h.Shutdown(context.Background()), errOwn)
			require.True(t, closed)
		})
	}
}

// With failing OnThreadExit functions both are told, once.
func TestHandleShutdownAndExitFunctions(t *testing.T) {
	guard(t)
	h, err := asyncsync.Open(context.Background(), openTouchy, func(*touchy) error { return errOwn },
		asyncsync.OnThreadExit(func() { panic("exit") }))
	require.NoError(t, err)
	err = h.Shutdown(context.Background())
	require.ErrorIs(t, err, errOwn)
	require.ErrorContains(t, err, "exit")
	require.NoError(t, h.Close())
}

// Many shut a handle down at once. One of them gets the error.
func TestHandleShutdownRace(t *testing.T) {
	guard(t)
	for range 100 {
		h, err := asyncsync.Open(context.Background(), openTouchy, func(*touchy) error { return errOwn })
		require.NoError(t, err)
		var mu sync.Mutex
		told := 0
		var all sync.WaitGroup
		for i := range 6 {
			all.Go(func() {
				var err error
				switch i % 3 {
				case 0:
					err = h.Close()
				case 1:
					err = h.Shutdown(context.Background())
				default:
					ctx, cancel := context.WithCancelCause(context.Background())
					go cancel(errCause)
					if err = h.Shutdown(ctx); errors.Is(err, errCause) {
						err = nil
					}
				}
				if err != nil {
					mu.Lock()
					defer mu.Unlock()
					told++
					if !errors.Is(err, errOwn) {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		require.Equal(t, 1, told)
	}
}

// A pool's Shutdown waits for its threads, or gives up and says how many there
// are; who stands in line is refused then.
func TestPoolShutdown(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 1})
		first, held := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
		second, lined := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
		threadOf(t, first)
		waiter := start(func() error { return to(second, neverRuns(t)) })
		synctest.Wait()
		require.Equal(t, 1, pool.Stats().Waiting)
		ctx, cancel := context.WithTimeoutCause(context.Background(), time.Minute, errCause)
		defer cancel()
		err := pool.Shutdown(ctx)
		require.ErrorIs(t, err, errCause)
		require.Contains(t, err.Error(), "1 of its threads")
		require.ErrorIs(t, waiter.Wait().Err, asyncsync.ErrClosed)
		require.Zero(t, pool.Stats().Waiting)
		require.ErrorIs(t, to(second, neverRuns(t)), asyncsync.ErrClosed)
		require.NoError(t, to(first, on(nil0)), "its thread is still its own")
		again := start(func() error { return pool.Shutdown(context.Background()) })
		synctest.Wait()
		require.False(t, again.Over())
		require.NoError(t, held.Close())
		require.NoError(t, lined.Close())
		require.NoError(t, again.Wait().Err)
		require.Zero(t, pool.Stats().Threads)
		require.NoError(t, pool.Shutdown(context.Background()))
	})
}

// On a thread of the pool, and below a function there, Close does not wait and
// Shutdown is refused. Both would wait for themselves.
func TestPoolClosedFromItsOwnThread(t *testing.T) {
	ways := map[string]func(ctx context.Context, fn func() error) error{
		"the thread": func(_ context.Context, fn func() error) error { return fn() },
		"async code": func(ctx context.Context, fn func() error) error {
			return from(ctx, func(context.Context) error { return fn() })
		},
		"a task": func(ctx context.Context, fn func() error) error {
			_, err := task.Go(ctx, func(context.Context) (int, error) {
				synctest.Wait() // until the thread is blocked for it
				return 0, fn()
			}).Wait(ctx)
			return err
		},
		"another thread": func(ctx context.Context, fn func() error) error {
			_, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
			defer tsc.Close()
			return to(ctx, func(context.Context) error { return fn() }, asyncsync.On(tsc))
		},
	}
	for name, way := range ways {
		for _, shutdown := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/Shutdown %t", name, shutdown), func(t *testing.T) {
				guard(t)
				synctest.Test(t, func(t *testing.T) {
					pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{})
					ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
					err := to(ctx, func(ctx context.Context) error {
						return way(ctx, func() error {
							if shutdown {
								return pool.Shutdown(context.Background())
							}
							return pool.Close()
						})
					})
					if shutdown {
						require.ErrorIs(t, err, deadlock.ErrDeadlock)
					} else {
						require.NoError(t, err)
					}
					require.NoError(t, tsc.Close())
					require.NoError(t, pool.Close())
					require.Zero(t, pool.Stats().Threads)
				})
			})
		}
	}
}

func TestShutdownMisuse(t *testing.T) {
	h, err := asyncsync.Open(context.Background(), openTouchy, nil)
	require.NoError(t, err)
	defer h.Close()
	pool := newPool(t, asyncsync.ThreadPoolConfig{})
	var nilCtx context.Context
	requireMisusePanic(t, func() { h.Shutdown(nilCtx) })
	requireMisusePanic(t, func() { (&asyncsync.Handle[int]{}).Shutdown(context.Background()) })
	requireMisusePanic(t, func() { pool.Shutdown(nilCtx) })
	requireMisusePanic(t, func() { (&asyncsync.ThreadPool{}).Shutdown(context.Background()) })
}
