package asyncsync_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/task"
)

// Everything works in bubbles, and pools and processes outside are none the
// worse: each test here goes in and out several times.

func inAndOut(t *testing.T, f func(t *testing.T)) {
	guard(t)
	for range 3 {
		// What is left behind in a bubble is a panic there: ours is not the
		// only test to be run.
		if v := panicOf(func() { synctest.Test(t, f) }); v != nil {
			t.Fatal(v)
		}
		threadOf(t, context.Background())
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
		threadOf(t, ctx)
		require.NoError(t, tsc.Close())
	}
}

func TestBubbleContext(t *testing.T) {
	inAndOut(t, func(t *testing.T) {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
		begin := time.Now()
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				_, err := through(ctx, 5, func(ctx context.Context) (int, error) {
					return 0, to(ctx, func(context.Context) error { time.Sleep(time.Minute); return nil })
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		require.Equal(t, 10*time.Minute, time.Since(begin), "one at a time")
		require.NoError(t, tsc.Close())
	})
}

// The default thread of a bubble is the bubble's own, and ends with it.
func TestBubbleDefaultThread(t *testing.T) {
	outside := threadOf(t, context.Background())
	inAndOut(t, func(t *testing.T) {
		begin := time.Now()
		require.NoError(t, to(context.Background(), func(ctx context.Context) error {
			require.NotEqual(t, outside.gid, here().gid)
			time.Sleep(time.Hour)
			return from(ctx, func(ctx context.Context) error {
				time.Sleep(time.Hour)
				return to(ctx, func(context.Context) error { time.Sleep(time.Hour); return nil })
			})
		}))
		require.Equal(t, 3*time.Hour, time.Since(begin))
		threadOf(t, context.Background())
	})
}

// Calls to the default thread from several goroutines of a bubble are
// exclusive, also where the thread comes and goes meanwhile.
func TestBubbleDefaultThreadIsExclusive(t *testing.T) {
	inAndOut(t, func(t *testing.T) {
		var alone exclusion
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				for range 40 {
					if i%2 == 0 {
						time.Sleep(time.Duration(i) * time.Millisecond)
					}
					if err := to(context.Background(), func(context.Context) error { alone.run(nil); return nil }); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		require.Equal(t, 1, alone.most)
		require.Equal(t, 320, alone.times)
	})
}

func TestBubbleAdopted(t *testing.T) {
	inAndOut(t, func(t *testing.T) {
		home := here().gid
		var got place
		require.NoError(t, from(context.Background(), func(ctx context.Context) (err error) {
			time.Sleep(time.Second)
			got, err = asyncsync.ToThread(ctx, whereabouts)
			return err
		}))
		require.Equal(t, home, got.gid)
	})
}

func TestBubbleHandle(t *testing.T) {
	inAndOut(t, func(t *testing.T) {
		h, err := asyncsync.Open(t.Context(), openTouchy, func(v *touchy) error { time.Sleep(time.Second); return v.use() })
		require.NoError(t, err)
		require.NoError(t, h.Do(t.Context(), func(_ context.Context, v *touchy) error { time.Sleep(time.Second); return v.use() }))
		begin := time.Now()
		require.NoError(t, h.Close())
		require.Equal(t, time.Second, time.Since(begin))
	})
}

func TestBubbleTasks(t *testing.T) {
	inAndOut(t, func(t *testing.T) {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
		defer tsc.Close()
		begin := time.Now()
		require.NoError(t, to(ctx, func(ctx context.Context) error {
			gctx, g := task.NewGroup(ctx)
			for range 5 {
				g.Go(func(context.Context) error {
					time.Sleep(time.Minute) // side by side
					return to(gctx, func(context.Context) error { time.Sleep(time.Second); return nil })
				})
			}
			return g.Wait(ctx)
		}))
		require.Equal(t, time.Minute+5*time.Second, time.Since(begin))
	})
}

// Deadlines are exact: a queued call leaves when its ctx ends, a running one
// when it has made something of it, an abandoned one at once.
func TestBubbleDeadlines(t *testing.T) {
	inAndOut(t, func(t *testing.T) {
		base, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
		defer tsc.Close()
		release, first := occupy(base)
		begin := time.Now()
		ctx, cancel := context.WithTimeout(base, 5*time.Second)
		defer cancel()
		require.ErrorIs(t, to(ctx, neverRuns(t)), context.DeadlineExceeded)
		require.Equal(t, 5*time.Second, time.Since(begin))
		release()
		require.NoError(t, first.Wait().Err)

		begin = time.Now()
		ctx, cancel = context.WithTimeout(base, 5*time.Second)
		defer cancel()
		require.Same(t, errOwn, to(ctx, func(ctx context.Context) error { <-ctx.Done(); time.Sleep(time.Second); return errOwn }))
		require.Equal(t, 6*time.Second, time.Since(begin))

		begin = time.Now()
		ctx, cancel = context.WithTimeout(base, 5*time.Second)
		defer cancel()
		err := to(ctx, func(context.Context) error { time.Sleep(time.Minute); return nil }, asyncsync.Abandon())
		requireWrapsAll(t, err, asyncsync.ErrAbandoned, context.DeadlineExceeded)
		require.Equal(t, 5*time.Second, time.Since(begin))
		threadOf(t, base)
		require.Equal(t, time.Minute, time.Since(begin), "the thread was busy")
	})
}

func TestBubbleExecutor(t *testing.T) {
	inAndOut(t, func(t *testing.T) {
		exec := asyncsync.NewCurrentThreadExecutor()
		done := make(chan struct{})
		r := start(func() error {
			defer close(done)
			time.Sleep(time.Second)
			return to(context.Background(), func(context.Context) error { return errOwn }, asyncsync.Insensitive(), asyncsync.WithExecutor(exec))
		})
		require.NoError(t, exec.RunUntil(done))
		require.Same(t, errOwn, r.Wait().Err)
	})
}

// A context that waits durably lets the bubble's clock go on; one that is
// dropped keeps nothing running that the bubble would wait for for ever.
func TestBubbleUnpinnedAndGoexit(t *testing.T) {
	inAndOut(t, func(t *testing.T) {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context(), asyncsync.Unpinned())
		home := threadOf(t, ctx)
		for _, e := range ends {
			e.CheckIs(t, outcomeOf(func() error { return to(ctx, on(e.Do)) }))
		}
		require.Equal(t, home.gid, threadOf(t, ctx).gid)
		require.NoError(t, tsc.Close())
	})
}

// A wrapper that is made outside is used inside, outside and inside again: the
// records that it keeps must not carry a bubble's channels about.
func TestBubbleSharesWrapper(t *testing.T) {
	call := asyncsync.SyncToAsync(func(_ context.Context, n int) (int, error) {
		if n < 0 {
			return 0, errors.New("negative")
		}
		return n + 1, nil
	})
	use := func(t *testing.T) {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
		for i := range 20 {
			got, err := call(ctx, i)
			require.NoError(t, err)
			require.Equal(t, i+1, got)
			got, err = call(context.Background(), i)
			require.NoError(t, err)
			require.Equal(t, i+1, got)
		}
		require.NoError(t, tsc.Close())
	}
	guard(t)
	for range 4 {
		use(t)
		synctest.Test(t, use)
	}
}
