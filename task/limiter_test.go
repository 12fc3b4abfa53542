package task_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/task"
)

func TestLimiter_AcquireAndRelease(t *testing.T) {
	guard(t)
	l := task.NewLimiter(2)
	require.Equal(t, task.LimiterStats{Total: 2}, l.Stats())
	require.NoError(t, l.Acquire(t.Context()))
	require.True(t, l.TryAcquire())
	require.False(t, l.TryAcquire())
	require.Equal(t, task.LimiterStats{Total: 2, Used: 2}, l.Stats())
	done := make(chan struct{})
	go func() { // tokens belong to nobody
		defer close(done)
		l.Release()
		l.Release()
	}()
	<-done
	require.Equal(t, task.LimiterStats{Total: 2}, l.Stats())
	require.True(t, l.TryAcquire())
}

func TestLimiter_Misuse(t *testing.T) {
	guard(t)
	l := task.NewLimiter(1)
	for name, misuse := range map[string]func(){
		"Release without Acquire": l.Release,
		"negative number":         func() { task.NewLimiter(-1) },
		"SetTotal to a negative":  func() { l.SetTotal(-1) },
		"Acquire without ctx":     func() { l.Acquire(noCtx) },
		"Release more than once":  func() { require.True(t, l.TryAcquire()); l.Release(); l.Release() },
	} {
		t.Run(name, func(t *testing.T) {
			requireMisusePanic(t, misuse)
			require.Equal(t, task.LimiterStats{Total: 1}, l.Stats(), "nothing has changed")
		})
	}
}

// What happens before Release synchronizes before the return of the Acquire
// that gets the token, by whichever way it gets it.
func TestLimiter_HappensBefore(t *testing.T) {
	guard(t)
	l := task.NewLimiter(1)
	counter := 0 // a race probe
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 200 {
				if i == 0 {
					if !l.TryAcquire() {
						continue
					}
				} else {
					require.NoError(t, l.Acquire(context.Background()))
				}
				counter++
				l.Release()
			}
		})
	}
	all.Wait()
	require.GreaterOrEqual(t, counter, 7*200)
}

// First come, first served; who tries without waiting does not overtake.
func TestLimiter_FIFO(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		l := task.NewLimiter(1)
		require.True(t, l.TryAcquire())
		var j journal
		for i := range 5 {
			go func() {
				require.NoError(t, l.Acquire(t.Context()))
				j.add(fmt.Sprint(i))
			}()
			synctest.Wait()
			require.Equal(t, i+1, l.Stats().Waiting)
		}
		for i := range 5 {
			l.Release() // the token is the first waiter's at once
			require.False(t, l.TryAcquire(), "overtakes")
			require.Equal(t, task.LimiterStats{Total: 1, Used: 1, Waiting: 4 - i}, l.Stats())
			synctest.Wait()
			require.Len(t, j.read(), i+1)
		}
		l.Release()
		require.Equal(t, []string{"0", "1", "2", "3", "4"}, j.read())
		require.Equal(t, task.LimiterStats{Total: 1}, l.Stats())
	})
}

// A ctx that ends takes its waiter out of the line, with the cause, and the
// others keep their places. A ctx that has ended takes no free token.
func TestLimiter_ContextEnds(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("will not wait")
		l := task.NewLimiter(1)
		require.True(t, l.Acquire(ended(t, cause)) == cause)
		require.Equal(t, task.LimiterStats{Total: 1}, l.Stats())

		require.True(t, l.TryAcquire())
		var j journal
		var cancels []context.CancelCauseFunc
		for i := range 3 {
			ctx, cancel := context.WithCancelCause(t.Context())
			cancels = append(cancels, cancel)
			go func() { j.add(fmt.Sprint(i, " ", l.Acquire(ctx))) }()
			synctest.Wait()
		}
		cancels[1](cause)
		synctest.Wait()
		require.Equal(t, []string{"1 will not wait"}, j.read())
		require.Equal(t, task.LimiterStats{Total: 1, Used: 1, Waiting: 2}, l.Stats())
		l.Release()
		synctest.Wait()
		cancels[0](cause) // too late
		l.Release()
		synctest.Wait()
		require.Equal(t, []string{"1 will not wait", "0 <nil>", "2 <nil>"}, j.read())
		cancels[2](nil)
	})
}

// A timeout while waiting is exact in a bubble.
func TestLimiter_Timeout(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		l := task.NewLimiter(0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		require.ErrorIs(t, l.Acquire(ctx), context.DeadlineExceeded)
		require.Equal(t, time.Minute, time.Since(start))
		require.Equal(t, task.LimiterStats{}, l.Stats())
	})
}

func TestLimiter_SetTotal(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		l := task.NewLimiter(0)
		require.False(t, l.TryAcquire())
		var got atomic.Int32
		for range 5 {
			go func() {
				require.NoError(t, l.Acquire(t.Context()))
				got.Add(1)
			}()
		}
		synctest.Wait()
		require.Zero(t, got.Load())

		l.SetTotal(3) // up: as many as fit go on
		synctest.Wait()
		require.EqualValues(t, 3, got.Load())
		require.Equal(t, task.LimiterStats{Total: 3, Used: 3, Waiting: 2}, l.Stats())

		l.SetTotal(1) // down: what is taken stays taken
		require.Equal(t, task.LimiterStats{Total: 1, Used: 3, Waiting: 2}, l.Stats())
		l.Release()
		l.Release()
		synctest.Wait()
		require.EqualValues(t, 3, got.Load(), "too early: there is one token and it is taken")
		l.Release()
		synctest.Wait()
		require.EqualValues(t, 4, got.Load())
		l.SetTotal(2)
		synctest.Wait()
		require.EqualValues(t, 5, got.Load())
		l.Release()
		l.Release()
		require.Equal(t, task.LimiterStats{Total: 2}, l.Stats())
	})
}

// Random operations, one after the other, against a slow and obvious model:
// a number and a slice.
func TestLimiter_Model(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			guard(t)
			synctest.Test(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 2))
				total, used, line, granted, refused := r.IntN(4), 0, []int{}, []int{}, []int{}
				grant := func() {
					for used < total && len(line) > 0 {
						granted = append(granted, line[0])
						line = line[1:]
						used++
					}
				}
				l := task.NewLimiter(total)
				var mu sync.Mutex
				var got, gave []int
				var cancels []context.CancelFunc
				for step := range 300 {
					what := ""
					switch r.IntN(9) {
					case 0, 1, 2:
						id := len(cancels)
						what = fmt.Sprint("acquire ", id)
						ctx, cancel := context.WithCancel(t.Context())
						cancels = append(cancels, cancel)
						go func() {
							err := l.Acquire(ctx)
							mu.Lock()
							defer mu.Unlock()
							if err == nil {
								got = append(got, id)
							} else {
								gave = append(gave, id)
							}
						}()
						line = append(line, id)
						grant()
					case 3, 4, 5:
						if used == 0 {
							continue
						}
						what = "release"
						l.Release()
						used--
						grant()
					case 6:
						if len(cancels) == 0 {
							continue
						}
						id := r.IntN(len(cancels))
						what = fmt.Sprint("cancel ", id)
						cancels[id]()
						if i := slices.Index(line, id); i >= 0 {
							line = slices.Delete(line, i, i+1)
							refused = append(refused, id)
						}
					case 7:
						what = "try"
						free := used < total
						require.Equal(t, free, l.TryAcquire(), "step %d", step)
						if free {
							used++
						}
					case 8:
						total = r.IntN(5)
						what = fmt.Sprint("total ", total)
						l.SetTotal(total)
						grant()
					}
					synctest.Wait()
					require.Equal(t, task.LimiterStats{Total: total, Used: used, Waiting: len(line)}, l.Stats(), "step %d: %s", step, what)
					// Several may be granted by one step, and report in any order.
					require.ElementsMatch(t, granted, got, "step %d: %s", step, what)
					require.ElementsMatch(t, refused, gave, "step %d: %s", step, what)
				}
				for _, cancel := range cancels {
					cancel()
				}
			})
		})
	}
}

// Tokens are neither lost nor made when cancellation, release and resizing
// meet.
func TestLimiter_StressCancellation(t *testing.T) {
	for _, resize := range []bool{false, true} {
		t.Run(fmt.Sprint("resize ", resize), func(t *testing.T) {
			guard(t)
			const total, workers, rounds = 3, 8, 400
			l := task.NewLimiter(total)
			var inside, most, got, refused atomic.Int64
			enter := func() {
				now := inside.Add(1)
				for seen := most.Load(); now > seen && !most.CompareAndSwap(seen, now); seen = most.Load() {
				}
				got.Add(1)
			}
			var all sync.WaitGroup
			for w := range workers {
				all.Go(func() {
					r := rand.New(rand.NewPCG(uint64(w), 3))
					for i := range rounds {
						ctx, cancel := context.WithCancel(context.Background())
						switch r.IntN(4) {
						case 0:
							go cancel() // somewhere around Acquire
						case 1:
							// Cancel right at a release: that is when the race is.
							context.AfterFunc(ctx, func() {})
							if l.TryAcquire() {
								enter()
								go cancel()
								inside.Add(-1)
								l.Release()
							}
						}
						if l.Acquire(ctx) == nil {
							enter()
							if resize && i%16 == 0 {
								l.SetTotal(r.IntN(total) + 1)
							}
							inside.Add(-1)
							l.Release()
						} else {
							refused.Add(1)
						}
						cancel()
					}
				})
			}
			all.Wait()
			l.SetTotal(total)
			require.Equal(t, task.LimiterStats{Total: total}, l.Stats())
			require.LessOrEqual(t, most.Load(), int64(total), "inside at a time")
			require.NotZero(t, got.Load())
			for range total {
				require.True(t, l.TryAcquire(), "a token was lost")
			}
			require.False(t, l.TryAcquire(), "a token was made")
		})
	}
}

// A token that is granted at the very moment when the waiter's ctx ends is
// either the waiter's or the next one's. On a busy thread the moment lasts: the
// waiter finds both when it comes back to its wait.
func TestLimiter_GrantMeetsCancellation(t *testing.T) {
	kept, passed := 0, 0
	for range 100 {
		inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
			l := task.NewLimiter(1)
			require.True(t, l.TryAcquire())
			first, cancel := context.WithCancel(ctx)
			busy, next := make(chan struct{}), make(chan struct{})
			go func() {
				synctest.Wait() // the thread waits for a token
				go toThread(ctx, func(context.Context) { <-busy })
				go func() {
					defer close(next)
					require.NoError(t, l.Acquire(ctx))
					l.Release()
				}()
				synctest.Wait() // the thread is busy, and another waits in line
				l.Release()
				cancel()
				close(busy)
			}()
			var err error
			require.NoError(t, toThread(ctx, func(context.Context) { err = l.Acquire(first) }))
			if err == nil {
				kept++
				require.False(t, l.TryAcquire())
				l.Release()
			} else {
				passed++
				require.ErrorIs(t, err, context.Canceled)
			}
			<-next
			require.Equal(t, task.LimiterStats{Total: 1}, l.Stats())
		}, asyncsync.Serve(asyncsync.All))
	}
	t.Logf("the waiter kept the token %d times, the next one got it %d times", kept, passed)
}

// On a thread Acquire waits in a frame: with the policy All the thread runs
// what comes, the call that leads to the Release, too.
func TestLimiter_ThreadServesWhileAcquiring(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		l := task.NewLimiter(1)
		require.True(t, l.TryAcquire())
		var j journal
		holder := task.Go(ctx, func(ctx context.Context) (int, error) {
			defer l.Release()
			for l.Stats().Waiting == 0 {
				synctest.Wait() // until the thread waits
			}
			return 0, noted(ctx, &j, "holder's call")
		})
		require.NoError(t, toThread(ctx, func(ctx context.Context) {
			require.NoError(t, l.Acquire(ctx))
			j.add("acquired")
			l.Release()
		}))
		_, err := holder.Wait(ctx)
		require.NoError(t, err)
		require.Equal(t, []string{"holder's call", "acquired"}, j.read())
		require.Equal(t, task.LimiterStats{Total: 1}, l.Stats())
	}, asyncsync.Serve(asyncsync.All))
}

// A ctx that ends takes a thread out of the line as anybody else.
func TestLimiter_ThreadGivesUp(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		l := task.NewLimiter(0)
		require.NoError(t, toThread(ctx, func(ctx context.Context) {
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			require.ErrorIs(t, l.Acquire(ctx), context.DeadlineExceeded)
		}))
		require.Equal(t, task.LimiterStats{}, l.Stats())
	})
}

// A Goexit in a call that is served on top of Acquire takes the wait with it:
// its place in line is given up and no token is lost.
func TestLimiter_GoexitOnTopOfAcquire(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		l := task.NewLimiter(1)
		require.True(t, l.TryAcquire())
		go func() {
			for l.Stats().Waiting == 0 {
				synctest.Wait()
			}
			endingOf(func() {
				toThread(ctx, func(context.Context) { l.Release(); runtime.Goexit() })
			})
		}()
		e := endingOf(func() {
			toThread(ctx, func(ctx context.Context) { l.Acquire(ctx) })
		})
		require.Equal(t, "goexit", e.How)
		require.Equal(t, task.LimiterStats{Total: 1}, l.Stats())
	}, asyncsync.Serve(asyncsync.All))
}

// A token on its way back has no holder any more, and is not free yet. A function that
// holds another one and asks for this one waits; it is no deadlock.
func TestLimiter_TokenOnItsWayBack(t *testing.T) {
	const rounds = 100_000
	bg := context.Background()
	none := func(context.Context) (int, error) { return 0, nil }
	for name, other := range map[string]func(l *task.Limiter) error{
		"a function ends": func(l *task.Limiter) error {
			_, err := asyncsync.ToThread(bg, none, asyncsync.Insensitive(), asyncsync.WithLimiter(l))
			return err
		},
		"released by another": func(l *task.Limiter) error {
			_, err := task.Go(bg, func(ctx context.Context) (int, error) { return 0, l.Acquire(ctx) }).Wait(bg)
			l.Release()
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			guard(t)
			l := task.NewLimiter(2)
			var over atomic.Bool
			others := testkit.Start(func() error {
				for !over.Load() {
					if err := other(l); err != nil {
						return err
					}
				}
				return nil
			})
			both := func(ctx context.Context) (int, error) {
				if err := l.Acquire(ctx); err != nil {
					return 0, err
				}
				l.Release()
				return 0, nil
			}
			var err error
			for n := 0; n < rounds && err == nil; n++ {
				_, err = asyncsync.ToThread(bg, both, asyncsync.Insensitive(), asyncsync.WithLimiter(l))
			}
			over.Store(true)
			require.NoError(t, others.Wait().Err)
			require.NoError(t, err)
			require.Equal(t, 0, l.Stats().Used)
		})
	}
}
