package asyncsync_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/local"
	"asyncsync.dev/task"
)

// try makes a call that is not to wait.
func try(ctx context.Context, fn func(context.Context) error, opts ...asyncsync.Option) error {
	return to(ctx, fn, append(opts, asyncsync.IfFree())...)
}

// ifFreeKinds are the threads that a call with IfFree may go to.
func ifFreeKinds(t *testing.T, test func(t *testing.T, ctx context.Context, stats func() asyncsync.ContextStats)) {
	t.Run("pinned", func(t *testing.T) {
		guard(t)
		ctx, tsc := newContext(t)
		test(t, ctx, tsc.Stats)
	})
	t.Run("unpinned", func(t *testing.T) {
		guard(t)
		ctx, tsc := newContext(t, asyncsync.Unpinned())
		test(t, ctx, tsc.Stats)
	})
	t.Run("All", func(t *testing.T) {
		guard(t)
		ctx, tsc := newContext(t, asyncsync.Serve(asyncsync.All))
		test(t, ctx, tsc.Stats)
	})
	t.Run("nested", func(t *testing.T) {
		guard(t)
		ctx, _ := newContext(t)
		ctx, tsc := asyncsync.NewThreadSensitiveContext(ctx)
		test(t, ctx, tsc.Stats)
	})
}

// It runs where nothing runs, and again after that has ended: at once.
func TestIfFree(t *testing.T) {
	ifFreeKinds(t, func(t *testing.T, ctx context.Context, stats func() asyncsync.ContextStats) {
		for range 1000 { // the first finds no thread yet
			require.NoError(t, try(ctx, on(nil0)))
			require.NoError(t, to(ctx, on(nil0)))
		}
		require.Zero(t, stats().Queued)
	})
}

// Where a function runs, or is blocked, or a call is queued, it does not run, and
// does not wait.
func TestIfFreeIsRefused(t *testing.T) {
	ifFreeKinds(t, func(t *testing.T, ctx context.Context, stats func() asyncsync.ContextStats) {
		refused := func() {
			t.Helper()
			err := try(ctx, neverRuns(t))
			require.ErrorIs(t, err, asyncsync.ErrQueueFull)
			requireOverload(t, "asyncsync: the thread is not free", err)
			require.ErrorIs(t, try(ctx, neverRuns(t), asyncsync.Abandon()), asyncsync.ErrQueueFull)
		}
		release, r := occupy(ctx)
		refused()
		queued := start(func() error { return to(ctx, on(nil0)) })
		poll(t, func() string {
			if stats().Queued != 1 {
				return "not queued"
			}
			return ""
		})
		refused()
		require.Equal(t, 1, stats().Queued)
		release()
		require.NoError(t, r.Wait().Err)
		require.NoError(t, queued.Wait().Err)
		require.NoError(t, try(ctx, on(nil0)))

		blocked, leave := make(chan struct{}), make(chan struct{})
		r = start(func() error {
			return to(ctx, func(ctx context.Context) error {
				return from(ctx, func(context.Context) error { close(blocked); <-leave; return nil })
			})
		})
		<-blocked
		refused()
		close(leave)
		require.NoError(t, r.Wait().Err)
		require.NoError(t, try(ctx, on(nil0)))
	})
}

// On the thread the call is inline, and what the thread is blocked for runs on
// top: these wait for nobody.
func TestIfFreeFromBelow(t *testing.T) {
	ifFreeKinds(t, func(t *testing.T, ctx context.Context, _ func() asyncsync.ContextStats) {
		ran := 0
		fn := func(context.Context) error { ran++; return nil }
		require.NoError(t, to(ctx, func(ctx context.Context) error {
			if err := try(ctx, fn); err != nil {
				return err
			}
			if err := from(ctx, func(ctx context.Context) error { return try(ctx, fn) }); err != nil {
				return err
			}
			tk := task.Go(ctx, func(ctx context.Context) (int, error) { return 0, to(ctx, fn) })
			_, err := tk.Wait(ctx)
			return err
		}))
		require.NoError(t, try(ctx, func(ctx context.Context) error {
			return from(ctx, func(ctx context.Context) error { return try(ctx, fn) })
		}))
		require.Equal(t, 4, ran)
	})
}

// Of several at once one runs: the others are told at once, while it does.
func TestIfFreeOneWins(t *testing.T) {
	ifFreeKinds(t, func(t *testing.T, ctx context.Context, _ func() asyncsync.ContextStats) {
		const n = 8
		for range 200 {
			var won, lost atomic.Int32
			gate, all := newMeeting(n), newMeeting(n)
			var callers sync.WaitGroup
			for range n {
				callers.Go(func() {
					gate.attend()
					err := try(ctx, func(context.Context) error { won.Add(1); all.attend(); return nil })
					if errors.Is(err, asyncsync.ErrQueueFull) {
						lost.Add(1)
						all.attend() // the winner does not end before
					} else if err != nil {
						t.Error(err)
					}
				})
			}
			callers.Wait()
			require.Equal(t, int32(1), won.Load())
			require.Equal(t, int32(n-1), lost.Load())
		}
	})
}

// Beside calls that wait, nothing is lost, and nobody waits who is not to.
func TestIfFreeAmongOthers(t *testing.T) {
	ifFreeKinds(t, func(t *testing.T, ctx context.Context, stats func() asyncsync.ContextStats) {
		var alone exclusion
		var ran atomic.Int32
		var all sync.WaitGroup
		for i := range 6 {
			all.Go(func() {
				for range 300 {
					fn := func(context.Context) error { alone.run(nil); ran.Add(1); return nil }
					var err error
					if i%2 == 0 {
						err = to(ctx, fn)
					} else if err = try(ctx, fn); errors.Is(err, asyncsync.ErrQueueFull) {
						continue
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		require.Equal(t, 1, alone.most)
		require.Equal(t, int(ran.Load()), alone.times)
		require.GreaterOrEqual(t, alone.times, 900)
		require.Zero(t, stats().Queued)
		require.NoError(t, try(ctx, on(nil0)))
	})
}

// A context without a thread is free if its pool has one to give.
func TestIfFreeAndThePool(t *testing.T) {
	guard(t)
	pool := newPool(t, asyncsync.ThreadPoolConfig{MaxThreads: 1})
	first, held := newContext(t, asyncsync.WithPool(pool))
	second, tsc := newContext(t, asyncsync.WithPool(pool))
	require.NoError(t, try(first, on(nil0)))
	require.ErrorIs(t, try(second, neverRuns(t)), asyncsync.ErrQueueFull)
	require.Zero(t, pool.Stats().Waiting)
	require.Zero(t, tsc.Stats().Queued)

	// Others who stand in line go on doing so.
	waiter := start(func() error { return to(second, on(nil0)) })
	awaitQueued(t, tsc, 1)
	require.ErrorIs(t, try(second, neverRuns(t)), asyncsync.ErrQueueFull)
	require.Equal(t, 1, pool.Stats().Waiting)

	// A call below a function that holds a thread of the pool does not wait.
	require.NoError(t, to(first, func(ctx context.Context) error {
		_, other := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
		defer other.Close()
		return try(ctx, on(nil0), asyncsync.On(other))
	}))
	require.NoError(t, held.Close())
	require.NoError(t, waiter.Wait().Err)
	require.NoError(t, try(second, on(nil0)))
}

// Two calls race for the last thread of a pool. The one that does not get it is told.
func TestIfFreeRaceForTheLastThread(t *testing.T) {
	guard(t)
	for range 200 {
		pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 1})
		var won atomic.Int32
		gate := newMeeting(3)
		var all sync.WaitGroup
		var tscs []*asyncsync.ThreadSensitiveContext
		for range 3 {
			ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
			tscs = append(tscs, tsc)
			all.Go(func() {
				gate.attend()
				switch err := try(ctx, on(nil0)); {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, asyncsync.ErrQueueFull):
					t.Error(err)
				}
			})
		}
		all.Wait()
		require.Equal(t, int32(1), won.Load())
		require.Zero(t, pool.Stats().Waiting)
		for _, tsc := range tscs {
			require.NoError(t, tsc.Close())
		}
		require.NoError(t, pool.Close())
	}
}

// Handles, wrappers, and the default thread.
func TestIfFreeOnHandle(t *testing.T) {
	guard(t)
	h, err := asyncsync.Open(context.Background(), openTouchy, nil)
	require.NoError(t, err)
	use := func(_ context.Context, v *touchy) error { return v.use() }
	require.NoError(t, h.Do(context.Background(), use, asyncsync.IfFree()))
	require.NoError(t, h.Do(context.Background(), func(ctx context.Context, v *touchy) error {
		_, err := asyncsync.Get(context.Background(), h, func(context.Context, *touchy) (int, error) { return 0, v.use() }, asyncsync.IfFree())
		require.NoError(t, err, "inline")
		err = outcomeOf(func() error { return h.Do(context.Background(), use, asyncsync.IfFree()) }).Err
		require.ErrorIs(t, err, asyncsync.ErrQueueFull, "a stranger's")
		return nil
	}))
	require.NoError(t, h.Close())
}

// A HandlePool that has to open a value for such a call needs a free thread for it.
func TestIfFreeOnHandlePool(t *testing.T) {
	guard(t)
	pool := newPool(t, asyncsync.ThreadPoolConfig{MaxThreads: 1})
	ctx, held := newContext(t, asyncsync.WithPool(pool))
	require.NoError(t, to(ctx, on(nil0)))
	p := asyncsync.NewHandlePool(asyncsync.HandlePoolConfig[*touchy]{Open: openTouchy}, asyncsync.WithPool(pool))
	use := func(_ context.Context, v *touchy) error { return v.use() }
	require.ErrorIs(t, p.Do(context.Background(), use, asyncsync.IfFree()), asyncsync.ErrQueueFull)
	require.Zero(t, pool.Stats().Waiting)
	require.Zero(t, p.Stats().Opened)
	require.NoError(t, held.Close())
	require.NoError(t, p.Do(context.Background(), use, asyncsync.IfFree()))
	require.NoError(t, p.Close())
}

// What came first is said first: the end of ctx, the closing of the context.
func TestIfFreeEndedAndClosed(t *testing.T) {
	guard(t)
	ctx, tsc := newContext(t)
	release, r := occupy(ctx)
	ended, cancel := context.WithCancelCause(ctx)
	cancel(errCause)
	require.Same(t, errCause, try(ended, neverRuns(t)))
	release()
	require.NoError(t, r.Wait().Err)
	require.NoError(t, tsc.Close())
	require.ErrorIs(t, try(ctx, neverRuns(t)), asyncsync.ErrClosed)
}

// The three endings, and what is told of a refusal.
func TestIfFreeEndings(t *testing.T) {
	ifFreeKinds(t, func(t *testing.T, ctx context.Context, _ func() asyncsync.ContextStats) {
		for _, e := range ends {
			e.CheckIs(t, outcomeOf(func() error { return try(ctx, on(e.Do)) }))
			require.NoError(t, try(ctx, on(nil0)))
		}
		log := listen(t)
		release, r := occupy(ctx)
		require.ErrorIs(t, try(ctx, neverRuns(t), asyncsync.Named("refused")), asyncsync.ErrQueueFull)
		release()
		require.NoError(t, r.Wait().Err)
		require.Len(t, log.Named("ended", "refused"), 1)
		require.ErrorIs(t, log.Named("ended", "refused")[0].Err, asyncsync.ErrQueueFull)
		require.Empty(t, log.Named("started", "refused"))
	})
}

// An unpinned context that its caller cannot hold, for it has thread-critical
// values, is free all the same.
func TestIfFreeUnpinnedByWorker(t *testing.T) {
	guard(t)
	critical := local.New[int](local.ThreadCritical())
	defer critical.Set(1)()
	ctx, _ := newContext(t, asyncsync.Unpinned())
	for range 100 {
		require.NoError(t, try(ctx, on(nil0)))
	}
}

func TestIfFreeInBubble(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
		require.NoError(t, try(ctx, on(nil0)))
		release, r := occupy(ctx)
		require.ErrorIs(t, try(ctx, neverRuns(t)), asyncsync.ErrQueueFull)
		release()
		require.NoError(t, r.Wait().Err)
		require.NoError(t, try(context.Background(), on(nil0)), "the bubble's default thread")
		require.NoError(t, tsc.Close())
	})
}

// Beside what it contradicts it panics.
func TestIfFreeMisuse(t *testing.T) {
	ctx := context.Background()
	for i, f := range []func(){
		func() { to(ctx, on(nil0), asyncsync.IfFree(), asyncsync.Insensitive()) },
		func() { from(ctx, on(nil0), asyncsync.IfFree()) },
		func() { goTo(ctx, on(nil0), asyncsync.IfFree()) },
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) { requireMisusePanic(t, f) })
	}
}

// With a pool of handles it waits for no value either.
func TestIfFreeOfAHandlePool(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		never := func(context.Context, int) error { t.Error("has run"); return nil }
		ran := func(context.Context, int) error { return nil }
		p := asyncsync.NewHandlePool(asyncsync.HandlePoolConfig[int]{Max: 1, Open: func(context.Context) (int, error) { return 0, nil }}, asyncsync.WithName("db"))
		require.NoError(t, p.Do(context.Background(), ran, asyncsync.IfFree()))
		lease, err := p.Acquire(context.Background())
		require.NoError(t, err)
		require.NoError(t, p.Do(lease.Context(), ran, asyncsync.IfFree()), "it has a value")
		refused := start(func() error { return p.Do(context.Background(), never, asyncsync.IfFree()) })
		_, below := task.Go(context.Background(), func(ctx context.Context) (int, error) {
			return 0, p.Do(ctx, never, asyncsync.IfFree(), asyncsync.Abandon())
		}).Wait(context.Background())
		for _, err := range []error{refused.Wait().Err, below} {
			require.ErrorIs(t, err, asyncsync.ErrQueueFull)
			require.ErrorIs(t, err, asyncsync.ErrPoolFull)
			require.EqualError(t, err, `asyncsync: handle pool "db": all 1 values are in use`)
		}
		require.EqualValues(t, 2, p.Stats().Refused)
		lease.Release()
		require.NoError(t, p.Do(context.Background(), ran, asyncsync.IfFree()))
		require.NoError(t, p.Close())
	})
}
