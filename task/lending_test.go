package task_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync"
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

// A turnstile is a limiter with a count of those who are inside and do not
// wait: never more than there are tokens.
type turnstile struct {
	*task.Limiter
	total     int64
	now, most atomic.Int64
}

func newTurnstile(n int) *turnstile { return &turnstile{Limiter: task.NewLimiter(n), total: int64(n)} }

func (s *turnstile) on() {
	n := s.now.Add(1)
	for most := s.most.Load(); n > most && !s.most.CompareAndSwap(most, n); most = s.most.Load() {
	}
}

func (s *turnstile) off() { s.now.Add(-1) }

// limited runs fn under the limiter.
func (s *turnstile) limited(ctx context.Context, fn func(context.Context) error, opts ...asyncsync.Option) error {
	_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		s.on()
		defer s.off()
		return 0, fn(ctx)
	}, append(opts, asyncsync.Insensitive(), asyncsync.WithLimiter(s.Limiter))...)
	return err
}

// wait makes a wait of a function that is inside.
func (s *turnstile) wait(wait func() error) error {
	s.off()
	defer s.on()
	return wait()
}

func (s *turnstile) requireDone(t *testing.T) {
	t.Helper()
	require.LessOrEqual(t, s.most.Load(), s.total, "more than there are tokens")
	require.Zero(t, s.now.Load())
	require.Equal(t, task.LimiterStats{Total: int(s.total)}, s.Stats())
}

// waits are the ways in which a function that is inside waits for another. Each
// calls that from below the wait.
var waits = []struct {
	name string
	wait func(ctx context.Context, fn func(context.Context) error) error
}{
	{"a call", func(ctx context.Context, fn func(context.Context) error) error { return fn(ctx) }},
	{"a task", func(ctx context.Context, fn func(context.Context) error) error {
		_, err := task.Go(ctx, func(ctx context.Context) (int, error) { return 0, fn(ctx) }).Wait(ctx)
		return err
	}},
	{"a group", func(ctx context.Context, fn func(context.Context) error) error {
		ctx, g := task.NewGroup(ctx)
		g.Go(func(context.Context) error { return nil })
		g.Go(fn)
		return g.Wait(ctx)
	}},
	{"a group that is full", func(ctx context.Context, fn func(context.Context) error) error {
		ctx, g := task.NewGroup(ctx)
		g.SetLimit(1)
		g.Go(fn)
		g.Go(func(context.Context) error { return nil })
		return g.Wait(ctx)
	}},
	{"a call to the thread", func(ctx context.Context, fn func(context.Context) error) error {
		_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) { return 0, fn(ctx) })
		return err
	}},
	{"there and back", func(ctx context.Context, fn func(context.Context) error) error {
		return toThreadErr(ctx, func(ctx context.Context) error {
			_, err := asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) { return 0, fn(ctx) })
			return err
		})
	}},
	{"a task that the thread waits for", func(ctx context.Context, fn func(context.Context) error) error {
		return toThreadErr(ctx, func(ctx context.Context) error {
			_, err := task.Go(ctx, func(ctx context.Context) (int, error) { return 0, fn(ctx) }).Wait(ctx)
			return err
		})
	}},
	{"a task on the thread", func(ctx context.Context, fn func(context.Context) error) error {
		_, err := asyncsync.Go(ctx, func(ctx context.Context) (int, error) { return 0, fn(ctx) }).Wait(ctx)
		return err
	}},
	{"a call to another thread", func(ctx context.Context, fn func(context.Context) error) error {
		_, tsc := asyncsync.NewThreadSensitiveContext(asyncsync.Detach(ctx))
		defer tsc.Close()
		_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) { return 0, fn(ctx) }, asyncsync.On(tsc))
		return err
	}},
	{"an unpinned context", func(ctx context.Context, fn func(context.Context) error) error {
		_, tsc := asyncsync.NewThreadSensitiveContext(asyncsync.Detach(ctx), asyncsync.Unpinned())
		defer tsc.Close()
		_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) { return 0, fn(ctx) }, asyncsync.On(tsc))
		return err
	}},
	{"a call that may be abandoned", func(ctx context.Context, fn func(context.Context) error) error {
		_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) { return 0, fn(ctx) }, asyncsync.Abandon())
		return err
	}},
}

// places are where the outermost limited function is called.
var places = map[string]func(ctx context.Context, fn func(context.Context) error) error{
	"on a plain goroutine": func(ctx context.Context, fn func(context.Context) error) error { return fn(ctx) },
	"with a ctx that knows nothing": func(_ context.Context, fn func(context.Context) error) error {
		return fn(context.Background())
	},
	"in a task": func(ctx context.Context, fn func(context.Context) error) error {
		_, err := task.Go(ctx, func(ctx context.Context) (int, error) { return 0, fn(ctx) }).Wait(ctx)
		return err
	},
	"on a thread": toThreadErr,
	"on a caller that is a thread": func(_ context.Context, fn func(context.Context) error) error {
		_, err := asyncsync.FromThread(context.Background(), func(ctx context.Context) (int, error) { return 0, toThreadErr(ctx, fn) })
		return err
	},
}

// What a limited function waits for has its token, in whichever way it waits,
// however deep, and from wherever: no second one is taken.
func TestLimiter_LendsToWhatItsHolderWaitsFor(t *testing.T) {
	for name, place := range places {
		t.Run(name, func(t *testing.T) {
			for _, w := range append(waits, struct {
				name string
				wait func(ctx context.Context, fn func(context.Context) error) error
			}{"all of them", nil}) {
				for _, total := range []int{1, 3} {
					t.Run(fmt.Sprintf("%s, %d", w.name, total), func(t *testing.T) {
						guard(t)
						ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
						defer tsc.Close()
						s := newTurnstile(total)
						for range total - 1 { // or a task may take another before it is waited for
							require.True(t, s.TryAcquire())
						}
						const depth = 12
						deepest := 0
						var descend func(ctx context.Context, left int) error
						descend = func(ctx context.Context, left int) error {
							return s.limited(ctx, func(ctx context.Context) error {
								if left == 0 {
									deepest++
									return nil
								}
								wait := w.wait
								if wait == nil {
									wait = waits[left%len(waits)].wait
								}
								return s.wait(func() error {
									return wait(ctx, func(ctx context.Context) error { return descend(ctx, left-1) })
								})
							})
						}
						require.NoError(t, place(ctx, func(ctx context.Context) error { return descend(ctx, depth) }))
						require.Equal(t, 1, deepest)
						if total > 1 {
							s.ReleaseN(total - 1)
						}
						s.requireDone(t)
					})
				}
			}
		})
	}
}

// A nesting may be as deep as any.
func TestLimiter_LendsAtAnyDepth(t *testing.T) {
	guard(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
	defer tsc.Close()
	s := newTurnstile(1)
	var descend func(ctx context.Context, left int) error
	descend = func(ctx context.Context, left int) error {
		if left == 0 {
			return nil
		}
		return s.limited(ctx, func(ctx context.Context) error {
			return s.wait(func() error {
				return toThreadErr(ctx, func(ctx context.Context) error { return descend(ctx, left-1) })
			})
		})
	}
	require.NoError(t, descend(ctx, 2000))
	s.requireDone(t)
}

// One token is lent to one at a time, also if many want it that are waited for,
// whether they came before the wait or after. A stranger in the line is not
// overtaken for ever: he gets what is given back.
func TestLimiter_LendsToOneAtATime(t *testing.T) {
	for _, total := range []int{1, 3} {
		for _, before := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d, before the wait: %v", total, before), func(t *testing.T) {
				guard(t)
				synctest.Test(t, func(t *testing.T) {
					ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
					s := newTurnstile(total)
					stranger := make(chan error, 1)
					const n = 20
					ran := atomic.Int64{}
					// All but one of the tokens are with others, for good.
					for range total - 1 {
						require.True(t, s.TryAcquire())
					}
					require.NoError(t, s.limited(ctx, func(ctx context.Context) error {
						_, g := task.NewGroup(ctx)
						go func() {
							stranger <- s.limited(t.Context(), func(context.Context) error { return nil })
						}()
						synctest.Wait()
						for range n {
							g.Go(func(ctx context.Context) error {
								if !before {
									time.Sleep(time.Second)
								}
								return s.limited(ctx, func(context.Context) error {
									ran.Add(1)
									require.EqualValues(t, 1, s.now.Load())
									time.Sleep(time.Second)
									return nil
								})
							})
						}
						if before {
							synctest.Wait()
							require.Equal(t, n+1, s.Stats().Waiting)
						}
						return s.wait(func() error { return g.Wait(ctx) })
					}))
					require.EqualValues(t, n, ran.Load())
					require.NoError(t, <-stranger)
					for range total - 1 {
						s.Release()
					}
					s.requireDone(t)
					require.NoError(t, tsc.Close())
				})
			})
		}
	}
}

// The wait that makes one who stands in line no stranger to the holder may be
// made by somebody between them, and last.
func TestLimiter_LendsWhenTheyComeTogether(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		s := newTurnstile(1)
		late := make(chan struct{})
		require.NoError(t, s.limited(t.Context(), func(ctx context.Context) error {
			wants := task.Go(t.Context(), func(ctx context.Context) (int, error) {
				return 0, s.limited(ctx, func(context.Context) error { return nil })
			})
			between := task.Go(ctx, func(ctx context.Context) (int, error) {
				<-late
				return wants.Wait(ctx)
			})
			go func() {
				synctest.Wait() // the one stands in line, the other is waited for
				require.Equal(t, 1, s.Stats().Waiting)
				close(late)
			}()
			return s.wait(func() error { _, err := between.Wait(ctx); return err })
		}))
		s.requireDone(t)
	})
}

// The same holds if the function that the holder waits for waits in turn for the claim in
// line, in a way that nobody sees. Either of the two waits may come first.
func TestLimiter_LendsBelowARawWait(t *testing.T) {
	for _, first := range []string{"the claim", "the wait"} {
		t.Run(first+" comes first", func(t *testing.T) {
			guard(t)
			synctest.Test(t, func(t *testing.T) {
				s := newTurnstile(1)
				require.NoError(t, s.limited(t.Context(), func(ctx context.Context) error {
					tk := task.Go(ctx, func(ctx context.Context) (int, error) {
						if first == "the wait" {
							synctest.Wait()
						}
						done := make(chan error)
						go func() { done <- s.limited(ctx, func(context.Context) error { return nil }) }()
						return 0, <-done
					})
					if first == "the claim" {
						synctest.Wait()
						require.Equal(t, 1, s.Stats().Waiting)
					}
					return s.wait(func() error { _, err := tk.Wait(ctx); return err })
				}))
				s.requireDone(t)
			})
		})
	}
}

// A wait whose ctx ends returns when the token that was lent is back, or when
// another is free; and a Release by somebody else is as good as any.
func TestLimiter_LenderComesBack(t *testing.T) {
	for _, on := range []string{"in a task", "on a thread"} {
		for _, how := range []string{"it is given back", "another is free", "another is released"} {
			t.Run(how+" "+on, func(t *testing.T) {
				inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
					s := newTurnstile(2)
					if how != "another is free" {
						require.True(t, s.TryAcquire())
					}
					gate, inside := make(chan struct{}), make(chan struct{})
					cause := errors.New("enough")
					leave, cancel := context.WithCancelCause(context.Background())
					var back, released atomic.Bool
					var tk *task.Task[int]
					holder := task.Go(ctx, func(ctx context.Context) (int, error) {
						return 0, places[on](ctx, func(ctx context.Context) error {
							return s.limited(ctx, func(ctx context.Context) error {
								if how == "another is free" {
									require.True(t, s.TryAcquire()) // so that the task borrows
								}
								tk = task.Go(ctx, func(ctx context.Context) (int, error) {
									return 0, s.limited(ctx, func(context.Context) error {
										close(inside)
										<-gate
										return nil
									})
								})
								err := s.wait(func() error {
									c, stop := context.WithCancelCause(ctx)
									defer stop(nil)
									defer context.AfterFunc(leave, func() { stop(cause) })()
									_, err := tk.Wait(c)
									return err
								})
								back.Store(true)
								if how != "it is given back" || err != nil { // then the task may have ended
									require.True(t, err == cause, "%v", err)
								}
								return nil
							})
						})
					})
					<-inside
					synctest.Wait()
					require.Equal(t, 1, s.Stats().Lent)
					if how == "another is free" {
						s.Release()
					}
					cancel(cause)
					synctest.Wait()
					switch how {
					case "another is free":
						require.True(t, back.Load())
					case "another is released":
						require.False(t, back.Load(), "it runs without a token")
						s.Release()
						released.Store(true)
						synctest.Wait()
						require.True(t, back.Load())
					default:
						require.False(t, back.Load(), "it runs without a token")
					}
					close(gate)
					_, err := holder.Wait(context.Background())
					require.NoError(t, err)
					_, err = tk.Wait(context.Background())
					require.NoError(t, err)
					if how == "it is given back" {
						s.Release()
					}
					s.requireDone(t)
				})
			})
		}
	}
}

// A token that was lent to an Acquire and handed on comes back with its Release, whichever
// goroutine calls that.
func TestLimiter_LentTokenHandedOn(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		s := newTurnstile(1)
		var back atomic.Bool
		done := make(chan error, 1)
		go func() {
			done <- s.limited(t.Context(), func(ctx context.Context) error {
				_, err := task.Go(ctx, func(ctx context.Context) (int, error) { return 0, s.Acquire(ctx) }).Wait(ctx)
				back.Store(true)
				return err
			})
		}()
		synctest.Wait()
		require.False(t, back.Load(), "two have the token")
		s.Release()
		require.NoError(t, <-done)
		s.requireDone(t)
	})
}

// Nobody is lent a token by who does not wait for him, though he was started
// below: it is taken, or waited for in line.
func TestLimiter_LendsToNobodyElse(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		s := newTurnstile(1)
		var ran atomic.Bool
		gate := make(chan struct{})
		var tk *task.Task[int]
		done := make(chan error, 1)
		go func() {
			done <- s.limited(t.Context(), func(ctx context.Context) error {
				other := task.Go(ctx, func(context.Context) (int, error) { <-gate; return 0, nil })
				tk = task.Go(ctx, func(ctx context.Context) (int, error) {
					return 0, s.limited(ctx, func(context.Context) error { ran.Store(true); return nil })
				})
				_, err := other.Wait(ctx)
				return err
			})
		}()
		synctest.Wait()
		require.False(t, ran.Load())
		require.Equal(t, 1, s.Stats().Waiting)
		close(gate)
		require.NoError(t, <-done)
		_, err := tk.Wait(t.Context())
		require.NoError(t, err)
		s.requireDone(t)
	})
}

// A holder who comes back while the one who has its token waits for him in turn
// gets it from there; nobody hangs.
func TestLimiter_LenderIsWaitedFor(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		s := newTurnstile(1)
		ctx, cancel := context.WithCancel(t.Context())
		me := make(chan *task.Task[int], 1)
		inside := make(chan struct{})
		turn := make(chan struct{})
		holder := task.Go(t.Context(), func(own context.Context) (int, error) {
			self := <-me
			return 0, s.limited(own, func(own context.Context) error {
				first := task.Go(own, func(own context.Context) (int, error) {
					// It leaves one behind, who is related, but not waited for.
					task.Go(own, func(own context.Context) (int, error) {
						return 0, s.limited(own, func(own context.Context) error {
							close(inside)
							<-turn
							return s.wait(func() error { _, err := self.Wait(own); return err })
						})
					})
					<-inside
					<-ctx.Done()
					return 0, nil
				})
				return s.wait(func() error { _, err := first.Wait(own); return err })
			})
		})
		me <- holder
		<-inside
		synctest.Wait()
		close(turn)
		synctest.Wait()
		cancel()
		_, err := holder.Wait(t.Context())
		require.NoError(t, err)
		synctest.Wait()
		s.requireDone(t)
	})
}

// A token goes past a thread that cannot use it: one that waits for it, and runs
// on top of that wait something that needs it first.
func TestLimiter_PassesOverABusyThread(t *testing.T) {
	for _, how := range []string{"plain", "limited"} {
		t.Run(how, func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
				l := task.NewLimiter(1)
				begun, quit := make(chan struct{}), make(chan struct{})
				above := func(ctx context.Context) error { // on the thread, on top of its Acquire
					close(begun)
					_, err := asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) {
						if err := l.Acquire(ctx); err != nil {
							return 0, err
						}
						l.Release()
						return 0, nil
					})
					return err
				}
				hold := func(ctx context.Context) error {
					return toThreadErr(ctx, func(ctx context.Context) error {
						tk := task.Go(ctx, func(ctx context.Context) (int, error) {
							if err := l.Acquire(ctx); err != nil {
								return 0, err
							}
							<-quit
							return 0, toThreadErr(ctx, above)
						})
						synctest.Wait()
						done := make(chan error, 1)
						go func() {
							synctest.Wait() // the thread waits for the token
							close(quit)
							<-begun
							synctest.Wait() // and what is on top of that, too
							l.Release()
							_, err := tk.Wait(context.Background())
							done <- err
						}()
						if err := l.Acquire(ctx); err != nil {
							return err
						}
						l.Release()
						return <-done
					})
				}
				if how == "plain" {
					require.NoError(t, hold(ctx))
				} else {
					s := task.NewLimiter(1)
					_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) { return 0, hold(ctx) },
						asyncsync.Insensitive(), asyncsync.WithLimiter(s))
					require.NoError(t, err)
				}
				require.Equal(t, task.LimiterStats{Total: 1}, l.Stats())
			})
		})
	}
}

// All three endings of a function that was lent a token bring it back.
func TestLimiter_LentTokenAndEndings(t *testing.T) {
	for name, end := range map[string]func(){"return": func() {}, "panic": func() { panic("boom") }, "Goexit": runtime.Goexit} {
		for _, w := range waits {
			t.Run(name+" below "+w.name, func(t *testing.T) {
				guard(t)
				ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
				defer tsc.Close()
				s := newTurnstile(1)
				e := endingOf(func() {
					s.limited(ctx, func(ctx context.Context) error {
						return s.wait(func() error {
							return w.wait(ctx, func(ctx context.Context) error {
								return s.limited(ctx, func(context.Context) error { end(); return nil })
							})
						})
					})
				})
				require.Equal(t, map[string]testkit.Outcome{"return": {How: "return"}, "panic": {How: "panic", Value: "boom"}, "Goexit": {How: "goexit"}}[name], e)
				s.requireDone(t)
			})
		}
	}
}

// Random nestings of limited functions, tasks, groups and calls, by several at a
// time, with ctxs that end at any moment: never do more run than there are
// tokens, nobody is refused or left waiting, and all tokens come back.
//
// LENDING_COUNT=n runs n programs of each kind.
func TestLimiter_LendingModel(t *testing.T) {
	programs := uint64(25)
	if s := os.Getenv("LENDING_COUNT"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
		programs = n
	}
	for _, total := range []int{1, 2, 3} {
		for _, cancels := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d, cancelled: %v", total, cancels), func(t *testing.T) {
				for seed := range programs {
					t.Run(fmt.Sprint(seed), func(t *testing.T) {
						guard(t)
						synctest.Test(t, func(t *testing.T) {
							ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
							s := newTurnstile(total)
							p := &lendingProgram{t: t, s: s, cancels: cancels}
							var all sync.WaitGroup
							for i := range 4 {
								r := rand.New(rand.NewPCG(seed, uint64(i)))
								all.Go(func() {
									for range 4 {
										p.check(p.limited(ctx, r.Uint64(), 4, true))
									}
								})
							}
							all.Wait()
							synctest.Wait() // tasks that nobody waits for any more have ended
							s.requireDone(t)
							require.NoError(t, tsc.Close())
						})
					})
				}
			})
		}
	}
}

type lendingProgram struct {
	t       *testing.T
	s       *turnstile
	cancels bool
}

func (p *lendingProgram) check(err error) {
	if err != nil && !(p.cancels && errors.Is(err, context.Canceled)) || errors.Is(err, deadlock.ErrDeadlock) {
		p.t.Error(err)
	}
}

// limited runs one limited function.
//
// A token that is taken by a function itself beside the one that it holds is
// another one, and two who do so wait for each other; so that is not done.
func (p *lendingProgram) limited(ctx context.Context, seed uint64, depth int, may bool) error {
	r := rand.New(rand.NewPCG(seed, 1))
	if p.cancels && r.IntN(4) == 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		for range r.IntN(20) {
			runtime.Gosched()
		}
		n := r.IntN(200)
		go func() {
			for range n {
				runtime.Gosched()
			}
			cancel()
		}()
	}
	seed = r.Uint64()
	if may && r.IntN(5) == 0 {
		n := 1 + r.IntN(2)
		if n > int(p.s.total) || depth < 4 {
			n = 1
		}
		if err := p.s.AcquireN(ctx, n); err != nil {
			return err
		}
		p.s.on()
		runtime.Gosched()
		p.s.off()
		p.s.ReleaseN(n)
		return nil
	}
	return p.s.limited(ctx, func(ctx context.Context) error { return p.inside(ctx, seed, depth) })
}

// inside is what a limited function does.
func (p *lendingProgram) inside(ctx context.Context, seed uint64, depth int) error {
	r := rand.New(rand.NewPCG(seed, 2))
	if depth == 0 {
		runtime.Gosched()
		return nil
	}
	for range 1 + r.IntN(2) {
		next := r.Uint64()
		body := func(ctx context.Context) error { return p.limited(ctx, next, depth-1, true) }
		var err error
		switch r.IntN(5) {
		case 0: // several at a time
			gctx, g := task.NewGroup(ctx)
			if r.IntN(2) == 0 {
				g.SetLimit(2)
			}
			err = p.s.wait(func() error {
				for i := range 2 + r.IntN(2) {
					g.Go(func(ctx context.Context) error { return p.limited(ctx, next+uint64(i), depth-1, true) })
				}
				return g.Wait(gctx)
			})
		case 1: // a task that was started before
			tk := task.Go(ctx, func(ctx context.Context) (int, error) { return 0, body(ctx) })
			for range r.IntN(10) {
				runtime.Gosched()
			}
			err = p.s.wait(func() error { _, err := tk.Wait(ctx); return err })
		case 2:
			err = p.s.wait(func() error { return p.limited(ctx, next, depth-1, false) })
		default:
			// Of those that may be abandoned nobody could wait for the end.
			w := waits[1+r.IntN(len(waits)-2)]
			err = p.s.wait(func() error { return w.wait(ctx, body) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// The last function that runs under a limiter ends. All others that have a token wait for
// one who stands in line for a token, and is a stranger to them. Nobody begins a wait then,
// so the end is what closes the cycle: the one in line is told.
func TestLimiter_AnEndClosesACycle(t *testing.T) {
	testkit.Guard(t)
	synctest.Test(t, func(t *testing.T) {
		l := task.NewLimiter(2)
		limited := []asyncsync.Option{asyncsync.Insensitive(), asyncsync.WithLimiter(l)}
		bg := context.Background()
		ctx, tsc := asyncsync.NewThreadSensitiveContext(bg)
		defer tsc.Close()
		ask, end := make(chan struct{}), make(chan struct{})
		inLine := testkit.Start(func() error {
			_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
				<-ask
				return asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 0, nil }, limited...)
			})
			return err
		})
		synctest.Wait()
		queued := testkit.Start(func() error { // has a token, and waits for the thread
			_, err := asyncsync.ToThread(bg, func(context.Context) (int, error) { return 0, toThread(ctx, func(context.Context) {}) }, limited...)
			return err
		})
		synctest.Wait()
		short, comeBack := context.WithCancel(bg)
		defer comeBack()
		lender := testkit.Start(func() error { // lends the other token, comes back with that of queued, and waits for the thread
			_, err := asyncsync.ToThread(bg, func(below context.Context) (int, error) {
				borrower := task.Go(below, func(below context.Context) (int, error) {
					return asyncsync.ToThread(below, func(context.Context) (int, error) { <-end; return 0, nil }, limited...)
				})
				borrower.Wait(short)
				return 0, toThread(ctx, func(context.Context) {})
			}, limited...)
			return err
		})
		synctest.Wait()
		comeBack()
		synctest.Wait()
		close(ask)
		synctest.Wait()
		require.Equal(t, 1, l.Stats().Waiting)
		close(end)
		require.ErrorIs(t, inLine.Wait().Err, deadlock.ErrDeadlock)
		require.NoError(t, queued.Wait().Err)
		require.NoError(t, lender.Wait().Err)
		synctest.Wait()
		require.Zero(t, l.Stats().Used)
	})
}

// The same of a Release that leaves too few tokens for the one in line.
func TestLimiter_AReleaseClosesACycle(t *testing.T) {
	testkit.Guard(t)
	synctest.Test(t, func(t *testing.T) {
		l := task.NewLimiter(2)
		bg := context.Background()
		require.NoError(t, l.Acquire(bg))
		ctx, tsc := asyncsync.NewThreadSensitiveContext(bg)
		defer tsc.Close()
		ask := make(chan struct{})
		inLine := testkit.Start(func() error {
			_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
				<-ask
				return 0, l.AcquireN(ctx, 2)
			})
			return err
		})
		synctest.Wait()
		queued := testkit.Start(func() error {
			_, err := asyncsync.ToThread(bg, func(context.Context) (int, error) {
				return 0, toThread(ctx, func(context.Context) {})
			}, asyncsync.Insensitive(), asyncsync.WithLimiter(l))
			return err
		})
		synctest.Wait()
		close(ask)
		synctest.Wait()
		require.Equal(t, 1, l.Stats().Waiting)
		l.Release()
		require.ErrorIs(t, inLine.Wait().Err, deadlock.ErrDeadlock)
		require.NoError(t, queued.Wait().Err)
		require.Zero(t, l.Stats().Used)
	})
}
