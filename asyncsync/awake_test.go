package asyncsync_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
)

// The tests here are of calls that find the thread awake, looking for the next
// one before it sleeps.

// hot runs test with threads and callers that always look before they sleep.
func hot(t *testing.T, test func(t *testing.T, rounds int)) {
	t.Helper()
	guard(t)
	forceSpin(t, 1)
	rounds := 300
	if testing.Short() {
		rounds = 50
	}
	test(t, rounds)
}

// inStep makes calls until thread and caller are in step, most likely.
func inStep(t *testing.T, ctx context.Context) {
	t.Helper()
	for range 20 {
		require.NoError(t, to(ctx, on(nil0)))
	}
}

// Close, Shutdown and those who only look, at any moment of calls: each call has
// run or is refused, and nothing runs when Close has returned.
func TestAwakeAndClose(t *testing.T) {
	hot(t, func(t *testing.T, rounds int) {
		home := asyncsync.ReadStats().Threads
		for round := range rounds {
			ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
			inStep(t, ctx)
			var alone exclusion // of the thread
			var over atomic.Bool
			var said atomic.Int64
			var all sync.WaitGroup
			for me := range 1 + round%3 {
				all.Go(func() {
					for range 200 {
						fn := func(ctx context.Context) error {
							if over.Load() {
								t.Error("it runs after Close")
							}
							alone.run(nil)
							return nil
						}
						err := to(ctx, func(ctx context.Context) error {
							if me == 1 { // from below a frame
								return from(ctx, func(ctx context.Context) error { return to(ctx, fn) })
							}
							return fn(ctx)
						})
						switch {
						case err == nil:
							said.Add(1)
						case errors.Is(err, asyncsync.ErrClosed):
							return
						default:
							t.Error(err)
						}
					}
				})
			}
			all.Go(func() {
				for range round % 11 {
					tsc.Stats()
					asyncsync.ReadStats()
					deadlock.Take()
				}
				if round%2 == 0 {
					ended, cancel := context.WithCancel(context.Background())
					cancel()
					if err := tsc.Shutdown(ended); err != nil && !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
				}
				if err := tsc.Close(); err != nil {
					t.Error(err)
				}
				over.Store(true)
			})
			all.Wait()
			require.EqualValues(t, said.Load(), alone.times)
			require.LessOrEqual(t, alone.most, 1)
			s := tsc.Stats()
			require.Zero(t, s.Queued)
			require.False(t, s.Running)
		}
		poll(t, func() string {
			if n := asyncsync.ReadStats().Threads; n > home {
				return fmt.Sprintf("%d threads, there were %d", n, home)
			}
			return ""
		})
	})
}

// A call ends as its function does, and its caller alone, whatever the one
// before has come to; the thread is the same.
func TestAwakeEndings(t *testing.T) {
	hot(t, func(t *testing.T, rounds int) {
		ctx, tsc := newContext(t)
		home := threadOf(t, ctx)
		for round := range rounds {
			for i := range ends {
				e := ends[(i+round)%len(ends)]
				deep := round % 4
				inStep(t, ctx)
				o := outcomeOf(func() error {
					inStep(t, ctx) // with this goroutine
					_, err := through(ctx, 2*deep+1, func(context.Context) (none, error) { return none{}, nil })
					if err != nil {
						return err
					}
					return to(ctx, func(ctx context.Context) error {
						for range deep {
							if err := from(ctx, func(ctx context.Context) error { return to(ctx, on(nil0)) }); err != nil {
								return err
							}
						}
						return from(ctx, func(ctx context.Context) error { return to(ctx, on(e.Do)) })
					})
				})
				e.CheckIs(t, o)
				require.Equal(t, home, threadOf(t, ctx))
			}
		}
		s := tsc.Stats()
		require.Zero(t, s.Queued)
		require.False(t, s.Running)
	})
}

// The same from several callers, each with endings of its own.
func TestAwakeEndingsAreNotMixedUp(t *testing.T) {
	hot(t, func(t *testing.T, rounds int) {
		ctx, _ := newContext(t)
		var all sync.WaitGroup
		for me := range 3 {
			all.Go(func() {
				for i := range rounds {
					mine := &struct{ me, i int }{me, i}
					o := outcomeOf(func() error {
						return to(ctx, func(context.Context) error {
							switch (me + i) % 3 {
							case 0:
								panic(mine)
							case 1:
								runtime.Goexit()
							}
							return nil
						})
					})
					switch (me + i) % 3 {
					case 0:
						if o.How != "panic" || o.Value != any(mine) {
							t.Errorf("%+v", o)
						}
					case 1:
						if o.How != "goexit" {
							t.Errorf("%+v", o)
						}
					default:
						if o.How != "return" || o.Err != nil {
							t.Errorf("%+v", o)
						}
					}
				}
			})
		}
		all.Wait()
	})
}

// A ctx that ends while its call is on its way to a thread awake: it has run, or has
// not and never will.
func TestAwakeAndCancel(t *testing.T) {
	hot(t, func(t *testing.T, rounds int) {
		base, tsc := newContext(t)
		check := func(ctx context.Context) error {
			inStep(t, ctx)
			for range rounds {
				inner, cancel := context.WithCancelCause(ctx)
				ran := false
				ending := start(func() error { cancel(errCause); return nil })
				err := to(inner, func(context.Context) error { ran = true; return errOwn })
				if ran && err != errOwn || !ran && err != errCause {
					t.Errorf("%v, and it has run: %t", err, ran)
				}
				before := ran
				ending.Wait()
				if err := to(ctx, on(nil0)); err != nil { // what was before has run
					t.Error(err)
				}
				if ran != before {
					t.Error("it runs after its caller was told that it will not")
				}
			}
			return nil
		}
		require.NoError(t, check(base))
		require.NoError(t, to(base, func(ctx context.Context) error { return from(ctx, check) }))
		require.Zero(t, tsc.Stats().Queued)
	})
}

// A call that is taken at once needs no place in the queue; others are counted
// as ever, and of those that are refused nothing is left.
func TestAwakeAndQueueLimit(t *testing.T) {
	hot(t, func(t *testing.T, rounds int) {
		ctx, tsc := newContext(t, asyncsync.QueueLimit(1))
		inStep(t, ctx) // one caller is never refused
		var alone exclusion
		var ran, full atomic.Int64
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for range rounds {
					switch err := to(ctx, func(context.Context) error { alone.run(nil); return nil }); {
					case err == nil:
						ran.Add(1)
					case errors.Is(err, asyncsync.ErrQueueFull):
						full.Add(1)
					default:
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		require.EqualValues(t, 4*rounds, ran.Load()+full.Load())
		require.EqualValues(t, ran.Load(), alone.times)
		release, r := occupy(ctx)
		queued := start(func() error { return to(ctx, on(nil0)) })
		awaitQueued(t, tsc, 1)
		require.ErrorIs(t, to(ctx, neverRuns(t)), asyncsync.ErrQueueFull)
		release()
		require.NoError(t, r.Wait().Err)
		require.NoError(t, queued.Wait().Err)
		inStep(t, ctx)
	})
}

// Hooks hear of each call three times, and counts count it once.
func TestAwakeAndHooks(t *testing.T) {
	hot(t, func(t *testing.T, rounds int) {
		ctx, tsc := newContext(t)
		log := listen(t)
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() {
				for range rounds {
					if err := to(ctx, on(nil0)); err != nil {
						t.Error(err)
					}
					value := panicOf(func() { to(ctx, func(context.Context) error { culprit(); return nil }) })
					if value != any(http.ErrAbortHandler) {
						t.Error(value)
					}
				}
			})
		}
		all.Wait()
		for _, what := range []string{"queued", "started", "ended"} {
			require.Equal(t, 4*rounds, log.Count(what), what)
		}
		require.Equal(t, 2*rounds, log.Count("panicked"))
		require.EqualValues(t, 4*rounds, tsc.Stats().Calls)
	})
}

// Strangers do not get into a frame, and related calls do not get past each
// other, while every wait spins.
func TestAwakeInFrames(t *testing.T) {
	hot(t, func(t *testing.T, rounds int) {
		ctx, tsc := newContext(t)
		blocked := false // of the thread: the bottom function waits
		stop := make(chan struct{})
		var strangers sync.WaitGroup
		strangers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				err := to(context.Background(), func(context.Context) error {
					if blocked {
						t.Error("a stranger's call on top of a blocked function")
					}
					return nil
				}, asyncsync.On(tsc))
				if err != nil {
					t.Error(err)
				}
			}
		})
		for range rounds {
			next := 0
			require.NoError(t, to(ctx, func(ctx context.Context) error {
				blocked = true
				defer func() { blocked = false }()
				return from(ctx, func(ctx context.Context) error {
					step := func(i int) func(context.Context) error {
						return func(context.Context) error {
							if next != i {
								t.Errorf("call %d runs as number %d", i, next)
							}
							next++
							return nil
						}
					}
					for i := 0; i < 8; i += 2 {
						goTo(ctx, step(i))
						if err := to(ctx, step(i+1)); err != nil {
							return err
						}
					}
					return nil
				})
			}))
			require.Equal(t, 8, next)
		}
		close(stop)
		strangers.Wait()
	})
}

// A wait that ends while a call of its own comes in hands that call down.
func TestAwakeWhenAWaitEnds(t *testing.T) {
	hot(t, func(t *testing.T, rounds int) {
		ctx, tsc := newContext(t)
		ran := 0 // of the thread
		var left sync.WaitGroup
		for range 4 * rounds {
			require.NoError(t, to(ctx, func(ctx context.Context) error {
				return from(ctx, func(ctx context.Context) error {
					var ready, ends atomic.Bool
					left.Go(func() {
						ready.Store(true)
						for i := 0; !ends.Load(); i++ { // to be as late as the end itself
							if i%1000 == 999 {
								runtime.Gosched()
							}
						}
						if err := to(ctx, func(context.Context) error { ran++; return nil }); err != nil {
							t.Error(err)
						}
					})
					for !ready.Load() {
						runtime.Gosched()
					}
					err := to(ctx, on(nil0))
					ends.Store(true)
					return err
				})
			}))
		}
		left.Wait()
		require.NoError(t, tsc.Close())
		require.Equal(t, 4*rounds, ran)
	})
}

// Many callers on one processor, where a wake is put off for others to call: all
// come to their end, in order, and none runs beside another.
func TestCrowd(t *testing.T) {
	for _, procs := range []int{1, 2} {
		for kind, opts := range kinds {
			t.Run(fmt.Sprintf("%s/%d processors", kind, procs), func(t *testing.T) {
				guard(t)
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
				ctx, tsc := newContext(t, opts...)
				_, other := newContext(t)
				const callers, calls = 100, 50
				var alone exclusion // of the thread, like next
				next := [callers]int{}
				var all sync.WaitGroup
				for me := range callers {
					all.Go(func() {
						for i := range calls {
							fn := func(context.Context) error {
								alone.run(nil)
								if next[me] != i {
									t.Errorf("call %d of caller %d runs as number %d", i, me, next[me])
								}
								next[me]++
								return nil
							}
							var err error
							switch {
							case me%10 == 0: // a caller that is a thread
								err = to(context.Background(), func(ctx context.Context) error {
									return to(ctx, fn, asyncsync.On(tsc))
								}, asyncsync.On(other))
							case me%10 == 1:
								err = waitFor(goTo(ctx, fn))
							default:
								err = to(ctx, fn)
							}
							if err != nil {
								t.Error(err)
							}
						}
					})
				}
				all.Wait()
				require.Equal(t, callers*calls, alone.times)
				require.Equal(t, 1, alone.most)
			})
		}
	}
}

// A caller that lets others go first and is then cancelled, or finds the context
// closed, has still woken the thread for them.
func TestCrowdAndCancel(t *testing.T) {
	guard(t)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	rounds := 100
	if testing.Short() {
		rounds = 20
	}
	for round := range rounds {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
		cancellable, cancel := context.WithCancelCause(ctx)
		var all sync.WaitGroup
		for me := range 50 {
			all.Go(func() {
				in := ctx
				if me%2 == 0 {
					in = cancellable
				}
				for range 10 {
					err := to(in, on(nil0))
					if err != nil && !errors.Is(err, asyncsync.ErrClosed) && (err != errCause || me%2 == 1) {
						t.Error(err)
					}
				}
				if me == 20 {
					cancel(errCause)
				}
				if me == 40 && round%2 == 0 {
					tsc.Close()
				}
			})
		}
		all.Wait()
		cancel(nil)
		require.NoError(t, tsc.Close())
	}
}
