package asyncsync_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
)

// Capacity is lent in the order in which it was asked for, and never more.
func TestPoolMaxThreadsInOrder(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		const threads, contexts = 2, 8
		pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: threads})
		var mu sync.Mutex
		var began []int
		gates := make([]chan struct{}, contexts)
		rs := make([]*runningFunc, contexts)
		for i := range contexts {
			gates[i] = make(chan struct{})
			rs[i] = start(func() error {
				return asyncsync.WithThreadSensitiveContext(context.Background(), func(ctx context.Context) error {
					return to(ctx, func(context.Context) error {
						mu.Lock()
						began = append(began, i)
						mu.Unlock()
						<-gates[i]
						return nil
					})
				}, asyncsync.WithPool(pool))
			})
			synctest.Wait()
		}
		s := pool.Stats()
		require.Equal(t, asyncsync.ThreadPoolStats{Threads: 2, Waiting: 6, Peak: 2, Started: 2}, s)
		for i := range contexts {
			synctest.Wait()
			mu.Lock()
			require.Len(t, began, min(i+threads, contexts))
			mu.Unlock()
			close(gates[i])
			require.NoError(t, rs[i].Wait().Err)
		}
		require.Equal(t, []int{0, 1, 2, 3, 4, 5, 6, 7}, began)
		s = pool.Stats()
		require.Equal(t, asyncsync.ThreadPoolStats{Threads: 2, Idle: 2, Peak: 2, Started: 2}, s)
		require.NoError(t, pool.Close())
		require.Equal(t, asyncsync.ThreadPoolStats{Peak: 2, Started: 2}, pool.Stats())
	})
}

// One who gives up in the line does not disturb the order of the others.
func TestPoolOrderWithCancellation(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 1})
		var order []int // plain: one thread, one after the other
		gate := make(chan struct{})
		var rs []*runningFunc
		var cancels []context.CancelCauseFunc
		for i := range 5 {
			base, cancel := context.WithCancelCause(context.Background())
			cancels = append(cancels, cancel)
			rs = append(rs, start(func() error {
				return asyncsync.WithThreadSensitiveContext(base, func(ctx context.Context) error {
					return to(ctx, func(context.Context) error {
						order = append(order, i)
						if i == 0 {
							<-gate
						}
						return nil
					})
				}, asyncsync.WithPool(pool))
			}))
			synctest.Wait()
		}
		cancels[1](errCause)
		cancels[3](errCause)
		require.ErrorIs(t, rs[1].Wait().Err, errCause)
		require.ErrorIs(t, rs[3].Wait().Err, errCause)
		require.Equal(t, 2, pool.Stats().Waiting)
		close(gate)
		for _, i := range []int{0, 2, 4} {
			require.NoError(t, rs[i].Wait().Err)
		}
		require.Equal(t, []int{0, 2, 4}, order)
		require.NoError(t, pool.Close())
	})
}

// hold gives n contexts a thread each, at the same time.
func hold(t *testing.T, n int, opts ...asyncsync.ContextOption) (tscs []*asyncsync.ThreadSensitiveContext, places []place) {
	t.Helper()
	for range n {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), opts...)
		places = append(places, threadOf(t, ctx))
		tscs = append(tscs, tsc)
	}
	return tscs, places
}

// More than MaxIdle end soon, the rest after IdleTimeout, oldest first: by
// timer, exactly.
func TestPoolIdle(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 6, MaxIdle: 2, IdleTimeout: time.Minute})
		tscs, _ := hold(t, 6, asyncsync.WithPool(pool))
		require.Equal(t, 6, pool.Stats().Threads)
		for _, tsc := range tscs {
			require.NoError(t, tsc.Close())
		}
		time.Sleep(time.Second)
		synctest.Wait()
		s := pool.Stats()
		require.Equal(t, 2, s.Threads)
		require.Equal(t, 2, s.Idle)

		time.Sleep(58 * time.Second)
		synctest.Wait()
		require.Equal(t, 2, pool.Stats().Threads, "not yet")

		// One is used in between: only the other grows old.
		tscs, _ = hold(t, 1, asyncsync.WithPool(pool))
		require.NoError(t, tscs[0].Close())
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Equal(t, 1, pool.Stats().Threads)
		time.Sleep(57 * time.Second)
		synctest.Wait()
		require.Equal(t, 1, pool.Stats().Threads)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		s = pool.Stats()
		require.Equal(t, asyncsync.ThreadPoolStats{Peak: 6, Started: 6}, s)

		tscs, _ = hold(t, 1, asyncsync.WithPool(pool))
		require.EqualValues(t, 7, pool.Stats().Started, "and again")
		require.NoError(t, tscs[0].Close())
		require.NoError(t, pool.Close())
	})
}

// A thread in use is never reaped.
func TestPoolKeepsWhatIsUsed(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 3, MaxIdle: 1, IdleTimeout: time.Second})
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
		home := threadOf(t, ctx)
		tscs, _ := hold(t, 2, asyncsync.WithPool(pool))
		for _, other := range tscs {
			require.NoError(t, other.Close())
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Equal(t, 1, pool.Stats().Threads)
		require.Equal(t, home, threadOf(t, ctx))
		require.NoError(t, tsc.Close())
		require.NoError(t, pool.Close())
	})
}

// Last in, first out.
func TestPoolReusesTheYoungest(t *testing.T) {
	guard(t)
	pool := newPool(t, asyncsync.ThreadPoolConfig{MaxThreads: 4})
	tscs, places := hold(t, 4, asyncsync.WithPool(pool))
	for _, i := range []int{2, 0, 3, 1} {
		require.NoError(t, tscs[i].Close())
	}
	again, reused := hold(t, 4, asyncsync.WithPool(pool))
	require.Equal(t, []place{places[1], places[3], places[0], places[2]}, reused)
	for _, tsc := range again {
		require.NoError(t, tsc.Close())
	}
	require.EqualValues(t, 4, pool.Stats().Started)
}

// Ten thousand contexts, one after the other, touch no more threads than the
// pool holds: one.
func TestPoolSequentialContexts(t *testing.T) {
	guard(t)
	pool := newPool(t, asyncsync.ThreadPoolConfig{MaxThreads: 8})
	seen := map[place]bool{}
	for range 10_000 {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
		p, err := asyncsync.ToThread(ctx, whereabouts)
		if err != nil || tsc.Close() != nil {
			t.Fatal(err)
		}
		seen[p] = true
	}
	require.Len(t, seen, 1)
	require.EqualValues(t, 1, pool.Stats().Started)
}

// The threads of the process, counted by the kernel, stay within the bound
// with many contexts at once.
func TestPoolBoundsOSThreads(t *testing.T) {
	needThreads(t)
	guard(t)
	leakCheck(t)
	const bound = 4
	pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: bound})
	before := osThreads()
	var mu sync.Mutex
	seen := map[int]bool{}
	most := 0
	var inside, insideMost atomic.Int32
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			err := asyncsync.WithThreadSensitiveContext(context.Background(), func(ctx context.Context) error {
				return to(ctx, func(context.Context) error {
					now := inside.Add(1)
					defer inside.Add(-1)
					n := osThreads()
					mu.Lock()
					defer mu.Unlock()
					seen[tid()] = true
					most = max(most, n)
					insideMost.Store(max(insideMost.Load(), now))
					return nil
				})
			}, asyncsync.WithPool(pool))
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	require.LessOrEqual(t, len(seen), bound)
	require.LessOrEqual(t, insideMost.Load(), int32(bound))
	require.LessOrEqual(t, most, before+bound+testkit.OSThreads.Kept)
	s := pool.Stats()
	require.LessOrEqual(t, s.Peak, bound)
	require.LessOrEqual(t, int(s.Started), bound)
	require.NoError(t, pool.Close())
}

// A call for which a thread of a full pool is blocked starts a thread of its own:
// it never waits for capacity that its ancestors hold, and contexts never share.
func TestFullPoolOverflows(t *testing.T) {
	ways := map[string]func(ctx context.Context, second *asyncsync.ThreadSensitiveContext, fn func(context.Context) error) error{
		"from the thread": func(ctx context.Context, second *asyncsync.ThreadSensitiveContext, fn func(context.Context) error) error {
			return to(ctx, fn, asyncsync.On(second))
		},
		"from async code below": func(ctx context.Context, second *asyncsync.ThreadSensitiveContext, fn func(context.Context) error) error {
			return from(ctx, func(ctx context.Context) error { return to(ctx, fn, asyncsync.On(second)) })
		},
		"from deep below": func(ctx context.Context, second *asyncsync.ThreadSensitiveContext, fn func(context.Context) error) error {
			_, err := through(ctx, 7, func(ctx context.Context) (int, error) {
				return 0, to(ctx, fn, asyncsync.On(second))
			})
			return err
		},
		"from a nested call": func(ctx context.Context, second *asyncsync.ThreadSensitiveContext, fn func(context.Context) error) error {
			return from(ctx, func(ctx context.Context) error {
				return to(ctx, func(ctx context.Context) error { return to(ctx, fn, asyncsync.On(second)) })
			})
		},
		"for a task that is waited for": func(ctx context.Context, second *asyncsync.ThreadSensitiveContext, fn func(context.Context) error) error {
			_, err := goTo(ctx, fn, asyncsync.On(second)).Wait(ctx)
			return err
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			guard(t)
			pool := newPool(t, asyncsync.ThreadPoolConfig{MaxThreads: 1})
			first, f := newContext(t, asyncsync.WithPool(pool))
			second, s := newContext(t, asyncsync.WithPool(pool))
			home := threadOf(t, first)
			var got place
			for range 2 {
				require.NoError(t, to(first, func(ctx context.Context) error {
					return way(ctx, s, func(context.Context) error { got = here(); return nil })
				}))
				require.NotEqual(t, home, got, "a thread of its own")
			}
			require.Equal(t, got, threadOf(t, second), "which it keeps")
			st := pool.Stats()
			require.Equal(t, 2, st.Threads)
			require.Equal(t, 1, st.Overflow)
			require.NoError(t, s.Close())
			require.Equal(t, home, threadOf(t, first), "the first is not touched")
			poll(t, func() string {
				if st := pool.Stats(); st.Threads != 1 || st.Overflow != 0 {
					return fmt.Sprintf("the overflow goes with its lease: %+v", st)
				}
				return ""
			})
			require.NoError(t, f.Close())
			require.Equal(t, 1, pool.Stats().Idle)
		})
	}
}

// A context stands in line, and then is called into from below the holder of the
// thread: those who waited before are served too.
func TestFullPoolOverflowsForOneThatWaits(t *testing.T) {
	guard(t)
	pool := newPool(t, asyncsync.ThreadPoolConfig{MaxThreads: 1})
	first, _ := newContext(t, asyncsync.WithPool(pool))
	second, s := newContext(t, asyncsync.WithPool(pool))
	home := threadOf(t, first)
	release, holder := occupy(first)
	waits := start(func() error { return to(second, func(context.Context) error { return errOwn }) })
	awaitQueued(t, s, 1)
	require.Equal(t, 1, pool.Stats().Threads, "a stranger waits in line")
	var got place
	nested := start(func() error {
		return to(first, func(context.Context) error {
			return to(second, func(context.Context) error { got = here(); return nil })
		})
	})
	release()
	require.NoError(t, holder.Wait().Err)
	require.NoError(t, nested.Wait().Err)
	require.Same(t, errOwn, waits.Wait().Err)
	require.NotEqual(t, home, got)
	require.Zero(t, pool.Stats().Waiting)
}

// The overflow is bounded: who would go beyond it waits, before those who are
// strangers, until an overflowing thread is given back.
func TestFullPoolOverflowIsBounded(t *testing.T) {
	guard(t)
	pool := newPool(t, asyncsync.ThreadPoolConfig{MaxThreads: 2, MaxOverflow: 1})
	outer := make([]context.Context, 2)
	inner := make([]*asyncsync.ThreadSensitiveContext, 2)
	holders := make([]*asyncsync.ThreadSensitiveContext, 2)
	for i := range outer {
		outer[i], holders[i] = newContext(t, asyncsync.WithPool(pool))
		_, inner[i] = newContext(t, asyncsync.WithPool(pool))
		threadOf(t, outer[i])
	}
	stranger, tsc := newContext(t, asyncsync.WithPool(pool))
	strange := start(func() error { return to(stranger, on(nil0)) })
	awaitQueued(t, tsc, 1)
	begun, leave := make(chan struct{}), make(chan struct{})
	one := start(func() error {
		return to(outer[0], func(ctx context.Context) error {
			return to(ctx, func(context.Context) error { close(begun); <-leave; return nil }, asyncsync.On(inner[0]))
		})
	})
	<-begun
	require.Equal(t, 1, pool.Stats().Overflow)
	two := start(func() error {
		return to(outer[1], func(ctx context.Context) error { return to(ctx, on(nil0), asyncsync.On(inner[1])) })
	})
	awaitQueued(t, inner[1], 1)
	require.False(t, two.Over())
	require.Equal(t, 3, pool.Stats().Threads)
	close(leave)
	require.NoError(t, one.Wait().Err)
	require.NoError(t, inner[0].Close())
	require.NoError(t, two.Wait().Err)
	require.False(t, strange.Over(), "the stranger came first, but nobody is blocked for it")
	require.Equal(t, 3, pool.Stats().Peak)
	require.NoError(t, inner[1].Close())
	require.NoError(t, holders[0].Close())
	require.NoError(t, holders[1].Close())
	require.NoError(t, strange.Wait().Err)
}

// Start and exit functions run on the thread of their own context, also when the call
// blocks a thread of another context: those of two contexts do not meet.
func TestFullPoolStartAndExitFunctions(t *testing.T) {
	for _, async := range []bool{false, true} {
		t.Run(fmt.Sprintf("async %t", async), func(t *testing.T) {
			guard(t)
			pool := newPool(t, asyncsync.ThreadPoolConfig{MaxThreads: 1})
			var mu sync.Mutex
			attached := map[place]int{}
			attach := asyncsync.OnThreadStart(func() {
				mu.Lock()
				defer mu.Unlock()
				if attached[here()]++; attached[here()] > 1 {
					t.Error("attached twice")
				}
			})
			detach := asyncsync.OnThreadExit(func() {
				mu.Lock()
				defer mu.Unlock()
				if attached[here()]--; attached[here()] != 0 {
					t.Error("detached while it is not attached")
				}
			})
			isAttached := func(context.Context) error {
				mu.Lock()
				defer mu.Unlock()
				require.Equal(t, 1, attached[here()])
				return nil
			}
			a, tsc := newContext(t, asyncsync.WithPool(pool), attach, detach)
			var events []string
			var h *asyncsync.Handle[int]
			require.NoError(t, to(a, func(ctx context.Context) error {
				open := func(ctx context.Context) (err error) {
					h, err = asyncsync.Open(ctx, func(ctx context.Context) (int, error) {
						events = append(events, "open")
						return 7, isAttached(ctx)
					}, func(int) error { events = append(events, "close"); return isAttached(nil) },
						asyncsync.WithPool(pool), attach, detach)
					if err != nil {
						return err
					}
					return h.Close()
				}
				var err error
				if async {
					err = from(ctx, open)
				} else {
					err = open(ctx)
				}
				return errors.Join(err, isAttached(ctx))
			}))
			require.NoError(t, to(a, isAttached))
			require.NoError(t, tsc.Close())
			require.Equal(t, []string{"open", "close"}, events)
			for _, n := range attached {
				require.Zero(t, n)
			}
		})
	}
}

// Callers on a thread of one pool wait for another pool as everybody does.
func TestFullPoolDoesNotOverflowAcross(t *testing.T) {
	guard(t)
	mine := newPool(t, asyncsync.ThreadPoolConfig{MaxThreads: 1})
	theirs := newPool(t, asyncsync.ThreadPoolConfig{MaxThreads: 1})
	first, _ := newContext(t, asyncsync.WithPool(mine))
	holder, h := newContext(t, asyncsync.WithPool(theirs))
	second, s := newContext(t, asyncsync.WithPool(theirs))
	home := threadOf(t, first)
	release, held := occupy(holder)
	var got place
	r := start(func() error {
		return to(first, func(context.Context) error {
			return to(second, func(context.Context) error { got = here(); return nil })
		})
	})
	awaitQueued(t, s, 1)
	require.False(t, r.Over())
	release()
	require.NoError(t, held.Wait().Err)
	require.NoError(t, h.Close())
	require.NoError(t, r.Wait().Err)
	require.NotEqual(t, home, got)
}

// The pool fills up between a nested call's look and its asking: it must not
// wait behind its own ancestor all the same.
func TestPoolFillsUpMeanwhile(t *testing.T) {
	guard(t)
	for range 1500 {
		pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 3})
		m := newMeeting(2)
		var tscs []*asyncsync.ThreadSensitiveContext
		var rs []*runningFunc
		for range 2 {
			outer, o := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
			inner, i := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
			tscs = append(tscs, o, i)
			threadOf(t, outer)
			rs = append(rs, start(func() error {
				return to(outer, func(context.Context) error {
					m.attend()
					return to(inner, func(context.Context) error { return nil })
				})
			}))
		}
		for _, r := range rs {
			o := r.Settle(t)
			require.NoError(t, o.Err)
		}
		for _, tsc := range tscs {
			require.NoError(t, tsc.Close())
		}
		require.NoError(t, pool.Close())
	}
}

// Contexts calling into each other, more of them than threads: nothing gets
// stuck, the bound holds.
func TestPoolUnderNestedLoad(t *testing.T) {
	guard(t)
	for _, threads := range []int{1, 2, 3} {
		pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: threads})
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 40 {
					err := asyncsync.WithThreadSensitiveContext(context.Background(), func(a context.Context) error {
						return to(a, func(a context.Context) error {
							return asyncsync.WithThreadSensitiveContext(asyncsync.Detach(a), func(b context.Context) error {
								return to(b, func(b context.Context) error {
									return from(b, func(b context.Context) error {
										return to(b, func(context.Context) error { return nil })
									})
								})
							}, asyncsync.WithPool(pool))
						})
					}, asyncsync.WithPool(pool))
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		require.LessOrEqual(t, pool.Stats().Peak, 2*threads, "as many again, where functions are blocked for others")
		require.NoError(t, pool.Close())
	}
}

// Close of a pool: idle threads now, others as they come back; who is in line
// gets a thread, who comes later does not.
func TestPoolClose(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 2})
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
		second, s := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
		waiting, w := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
		release, first := occupy(ctx)
		threadOf(t, second)
		inLine := start(func() error { return to(waiting, func(context.Context) error { return errOwn }) })
		synctest.Wait()
		require.Equal(t, 1, pool.Stats().Waiting)
		closer, again := start(pool.Close), start(pool.Close)
		synctest.Wait()
		late, l := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
		require.ErrorIs(t, to(late, neverRuns(t)), asyncsync.ErrClosed)
		threadOf(t, second) // what has a thread keeps it
		require.NoError(t, s.Close())
		require.Same(t, errOwn, inLine.Wait().Err)
		require.NoError(t, w.Close())
		synctest.Wait()
		require.False(t, closer.Over())
		require.False(t, again.Over())
		release()
		require.NoError(t, first.Wait().Err)
		require.NoError(t, tsc.Close())
		require.NoError(t, closer.Wait().Err)
		require.NoError(t, again.Wait().Err)
		require.NoError(t, l.Close())
		require.Zero(t, pool.Stats().Threads)
		require.NoError(t, pool.Close())
	})
}

// Tainted threads end at once and do not keep others waiting.
func TestPoolTainted(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 1})
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
		home := threadOf(t, ctx)
		asyncsync.Taint(ctx)
		next, n := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
		var got place
		r := start(func() error { return to(next, func(context.Context) error { got = here(); return nil }) })
		synctest.Wait()
		require.Equal(t, 1, pool.Stats().Waiting)
		require.NoError(t, tsc.Close())
		require.NoError(t, r.Wait().Err)
		require.NotEqual(t, home.gid, got.gid)
		require.NoError(t, n.Close())
		synctest.Wait()
		s := pool.Stats()
		require.Equal(t, 1, s.Threads)
		require.EqualValues(t, 2, s.Started)
		require.NoError(t, pool.Close())
	})
}

// Many, at random: the accounts balance.
func TestPoolChurn(t *testing.T) {
	guard(t)
	leakCheck(t)
	pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 3, MaxIdle: 1, IdleTimeout: time.Millisecond})
	var all sync.WaitGroup
	for g := range 6 {
		all.Go(func() {
			for i := range 150 {
				base, cancel := context.WithCancel(context.Background())
				ctx, tsc := asyncsync.NewThreadSensitiveContext(base, asyncsync.WithPool(pool))
				r := start(func() error {
					return to(ctx, func(ctx context.Context) error {
						switch (g + i) % 7 {
						case 0:
							asyncsync.Taint(ctx)
						case 1:
							runtime.Goexit()
						}
						return nil
					})
				})
				if i%3 == 0 {
					cancel()
				}
				if i%2 == 0 {
					r.Wait()
				}
				tsc.Close()
				r.Wait()
				cancel()
			}
		})
	}
	all.Wait()
	poll(t, func() string {
		if s := pool.Stats(); s.Waiting != 0 || s.Threads != s.Idle {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
	require.LessOrEqual(t, pool.Stats().Peak, 3)
	require.NoError(t, pool.Close())
}

// Contexts that were dropped without Close hold a pool, and nobody in the program
// makes garbage: who stands in line has it collected.
func TestPoolHeldByDroppedContexts(t *testing.T) {
	guard(t)
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	pool := newPool(t, asyncsync.ThreadPoolConfig{MaxThreads: 16})
	for range 16 {
		ctx, _ := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
		threadOf(t, ctx)
	}
	ctx, tsc := newContext(t, asyncsync.WithPool(pool))
	threadOf(t, ctx)
	require.NoError(t, tsc.Close())
}

// What belongs to an OS thread happens once on each, however many contexts use
// it; what belongs to a context once for each.
func TestThreadStartAndThreadExit(t *testing.T) {
	guard(t)
	var mu sync.Mutex
	var events []string
	threads := map[place]bool{}
	note := func(what string) func() {
		return func() {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, what)
			threads[here()] = true
		}
	}
	pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{
		MaxThreads: 1, ThreadStart: note("thread starts"), ThreadExit: note("thread ends"),
	})
	for range 2 {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool),
			asyncsync.OnThreadStart(note("context starts")), asyncsync.OnThreadExit(note("context ends")))
		require.NoError(t, to(ctx, func(context.Context) error { note("call")(); return nil }))
		require.NoError(t, to(ctx, func(context.Context) error { note("call")(); return nil }))
		require.NoError(t, tsc.Close())
	}
	require.NoError(t, pool.Close())
	once := []string{"context starts", "call", "call", "context ends"}
	require.Equal(t, slices.Concat([]string{"thread starts"}, once, once, []string{"thread ends"}), events)
	require.Len(t, threads, 1)
}

// A ThreadStart that does not return ends the call, and is tried again; a
// ThreadExit that does not return is told by Close of the pool.
func TestThreadStartAndThreadExitEndings(t *testing.T) {
	for _, e := range ends {
		t.Run(e.How, func(t *testing.T) {
			guard(t)
			starts, exits := 0, 0
			pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{
				MaxThreads: 1,
				ThreadStart: func() {
					if starts++; starts == 1 {
						e.Do()
					}
				},
				ThreadExit: func() { exits++; e.Do() },
			})
			ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
			first := outcomeOf(func() error { return to(ctx, on(func() error { return testkit.ErrEnd })) })
			e.CheckIs(t, first)
			require.NoError(t, to(ctx, on(nil0)))
			require.NoError(t, to(ctx, on(nil0)))
			require.NoError(t, tsc.Close())
			err := pool.Close()
			if e.How == "return" {
				require.NoError(t, err)
				require.Equal(t, 1, starts)
			} else {
				require.ErrorContains(t, err, "ThreadExit")
				require.Equal(t, 2, starts)
			}
			require.Equal(t, 1, exits)
			require.Zero(t, pool.Stats().Threads)
			require.NoError(t, pool.Close(), "told once")
		})
	}
}

// Threads of a bubble are a pool's as well.
func TestThreadStartAndThreadExitInABubble(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		starts, exits := 0, 0
		pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{ThreadStart: func() { starts++ }, ThreadExit: func() { exits++ }})
		for range 3 {
			ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
			require.NoError(t, to(ctx, on(nil0)))
			require.NoError(t, tsc.Close())
		}
		require.NoError(t, pool.Close())
		require.Positive(t, starts)
		require.Equal(t, starts, exits)
	})
}
