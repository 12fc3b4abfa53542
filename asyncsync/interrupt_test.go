package asyncsync_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/local"
	"asyncsync.dev/task"
)

var errInterrupted = errors.New("the statement was interrupted")

// A driver is a C library's handle, as Interrupt meets it: interrupt hits the
// statement that runs, and does nothing if there is none.
type driver struct {
	mu    sync.Mutex
	stop  chan struct{} // of the statement that runs
	calls int
}

func (d *driver) interrupt() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls++
	if d.stop != nil {
		close(d.stop)
		d.stop = nil
	}
}

// endless is a statement that ends only if it is interrupted.
func (d *driver) endless() error {
	stop := make(chan struct{})
	d.mu.Lock()
	d.stop = stop
	d.mu.Unlock()
	<-stop
	return errInterrupted
}

func (d *driver) called() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.calls
}

// interruptWays are the ways of a call with an option of its own. ctx is the one
// that ends, base is above it.
var interruptWays = map[string]func(base, ctx context.Context, fn func(context.Context) error, opt asyncsync.Option) error{
	"queued": func(_, ctx context.Context, fn func(context.Context) error, opt asyncsync.Option) error {
		return to(ctx, fn, opt)
	},
	"behind another": func(base, ctx context.Context, fn func(context.Context) error, opt asyncsync.Option) error {
		release, first := occupy(base)
		r := start(func() error { return to(ctx, fn, opt) })
		synctest.Wait()
		release()
		return errors.Join(first.Wait().Err, r.Wait().Err)
	},
	"inline": func(base, ctx context.Context, fn func(context.Context) error, opt asyncsync.Option) error {
		return to(base, func(context.Context) error { return to(ctx, fn, opt) })
	},
	"nested": func(base, ctx context.Context, fn func(context.Context) error, opt asyncsync.Option) error {
		return to(base, func(context.Context) error {
			return from(ctx, func(ctx context.Context) error { return to(ctx, fn, opt) })
		})
	},
	"above a nested call": func(base, ctx context.Context, fn func(context.Context) error, opt asyncsync.Option) error {
		return to(ctx, func(context.Context) error {
			return from(base, func(ctx context.Context) error { return to(ctx, fn) })
		}, opt)
	},
	"from another thread": func(base, ctx context.Context, fn func(context.Context) error, opt asyncsync.Option) error {
		return asyncsync.WithThreadSensitiveContext(context.Background(), func(other context.Context) error {
			return to(other, func(context.Context) error { return to(ctx, fn, opt) })
		})
	},
	"unpinned": func(_, ctx context.Context, fn func(context.Context) error, opt asyncsync.Option) error {
		return asyncsync.WithThreadSensitiveContext(asyncsync.Detach(ctx), func(ctx context.Context) error {
			return to(ctx, fn, opt)
		}, asyncsync.Unpinned())
	},
	"handle": func(_, ctx context.Context, fn func(context.Context) error, opt asyncsync.Option) error {
		return withHandle(context.Background(), func(h *asyncsync.Handle[int]) error {
			return h.Do(ctx, func(ctx context.Context, _ int) error { return fn(ctx) }, opt)
		})
	},
	"Go": func(base, ctx context.Context, fn func(context.Context) error, opt asyncsync.Option) error {
		_, err := asyncsync.Go(ctx, func(ctx context.Context) (int, error) { return 0, fn(ctx) }, opt).Wait(base)
		return err
	},
	"insensitive": func(_, ctx context.Context, fn func(context.Context) error, opt asyncsync.Option) error {
		return to(ctx, fn, opt, asyncsync.Insensitive())
	},
	"executor": func(_, ctx context.Context, fn func(context.Context) error, opt asyncsync.Option) error {
		return to(ctx, fn, opt, asyncsync.Insensitive(), asyncsync.WithExecutor(goEach))
	},
	"async": func(base, ctx context.Context, fn func(context.Context) error, opt asyncsync.Option) error {
		return to(base, func(context.Context) error { return from(ctx, fn, opt) })
	},
	"async from async": func(_, ctx context.Context, fn func(context.Context) error, opt asyncsync.Option) error {
		return from(ctx, fn, opt)
	},
	"same thread": func(base, ctx context.Context, fn func(context.Context) error, opt asyncsync.Option) error {
		return to(base, func(context.Context) error { return from(ctx, fn, opt, asyncsync.SameThread()) })
	},
}

// inBubble runs test for every way, in a bubble with a context of its own.
func inBubble(t *testing.T, test func(t *testing.T, base context.Context, way func(base, ctx context.Context, fn func(context.Context) error, opt asyncsync.Option) error)) {
	for name, way := range interruptWays {
		t.Run(name, func(t *testing.T) {
			guard(t)
			synctest.Test(t, func(t *testing.T) {
				base, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
				test(t, base, way)
				require.NoError(t, tsc.Close())
			})
		})
	}
}

// The ctx ends when the function has begun, and what Interrupt can hit has not:
// not before the first Interrupt is long over.
func TestInterruptReachesWhatBeginsLater(t *testing.T) {
	for _, late := range []time.Duration{0, time.Millisecond, time.Minute, 24 * time.Hour} {
		t.Run(late.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T, base context.Context, way func(base, ctx context.Context, fn func(context.Context) error, opt asyncsync.Option) error) {
				ctx, cancel := context.WithCancel(base)
				var d driver
				err := way(base, ctx, func(context.Context) error {
					cancel()
					synctest.Wait() // Interrupt has been called, in vain
					time.Sleep(late)
					return d.endless()
				}, asyncsync.Interrupt(d.interrupt))
				require.ErrorIs(t, err, errInterrupted)
				calls := d.called()
				require.GreaterOrEqual(t, calls, 2)
				time.Sleep(24 * time.Hour)
				require.Equal(t, calls, d.called(), "not after the end")
			})
		})
	}
}

// Each of several statements of one function.
func TestInterruptReachesEveryStatement(t *testing.T) {
	inBubble(t, func(t *testing.T, base context.Context, way func(base, ctx context.Context, fn func(context.Context) error, opt asyncsync.Option) error) {
		ctx, cancel := context.WithCancel(base)
		var d driver
		interrupted := 0
		require.NoError(t, way(base, ctx, func(context.Context) error {
			cancel()
			for range 5 {
				if errors.Is(d.endless(), errInterrupted) {
					interrupted++
				}
			}
			return nil
		}, asyncsync.Interrupt(d.interrupt)))
		require.Equal(t, 5, interrupted)
	})
}

// The ctx ends between the moment at which the thread has taken the call and
// that at which the function begins: a hook sees to it.
func TestInterruptOfCtxThatEndsAtTheBeginning(t *testing.T) {
	inBubble(t, func(t *testing.T, base context.Context, way func(base, ctx context.Context, fn func(context.Context) error, opt asyncsync.Option) error) {
		ctx, cancel := context.WithCancel(base)
		t.Cleanup(asyncsync.SetHooks(asyncsync.Hooks{Started: func(i asyncsync.CallInfo) {
			if i.Ctx.Done() != nil { // made with ctx, or below
				cancel()
				synctest.Wait()
			}
		}}))
		var d driver
		err := way(base, ctx, func(context.Context) error {
			synctest.Wait()
			return d.endless()
		}, asyncsync.Interrupt(d.interrupt))
		if !errors.Is(err, context.Canceled) { // a call below another, which the hook has stopped
			require.ErrorIs(t, err, errInterrupted)
		}
	})
}

// InterruptOnce is once.
func TestInterruptOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, base context.Context, way func(base, ctx context.Context, fn func(context.Context) error, opt asyncsync.Option) error) {
		ctx, cancel := context.WithCancel(base)
		calls := 0
		require.NoError(t, way(base, ctx, func(context.Context) error {
			cancel()
			time.Sleep(time.Hour)
			return nil
		}, asyncsync.InterruptOnce(func() { calls++ })))
		require.Equal(t, 1, calls)
	})
}

// The pauses double, and a bubble in which everybody waits comes to rest all the
// same.
func TestInterruptPauses(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		base, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
		ctx, cancel := context.WithCancel(base)
		var ended time.Time
		var at []time.Duration
		require.NoError(t, to(ctx, func(context.Context) error {
			ended = time.Now()
			cancel()
			time.Sleep(100 * 365 * 24 * time.Hour)
			return nil
		}, asyncsync.Interrupt(func() { at = append(at, time.Since(ended)) })))
		require.Greater(t, len(at), 10)
		require.Less(t, len(at), 60)
		require.Zero(t, at[0])
		pause := time.Millisecond
		for i := range at[1:] {
			require.Equal(t, pause, at[i+1]-at[i])
			pause *= 2
		}
		require.NoError(t, tsc.Close())
	})
}

// Functions of many lengths: the interrupt is never called after the end, by the
// repeater neither. running is plain: the end of the call synchronizes.
func TestInterruptNeverAfterTheEnd(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		base, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
		var all sync.WaitGroup
		for i := range 200 {
			all.Go(func() {
				ctx, cancel := context.WithCancel(base)
				defer cancel()
				running, calls := false, 0
				require.NoError(t, to(ctx, func(context.Context) error {
					running = true
					cancel()
					time.Sleep(time.Duration(i) * 100 * time.Microsecond)
					return nil
				}, asyncsync.Insensitive(), asyncsync.Interrupt(func() {
					if !running {
						t.Error("interrupted after the end")
					}
					calls++
				})))
				running = false
			})
		}
		all.Wait()
		time.Sleep(24 * time.Hour)
		require.NoError(t, tsc.Close())
	})
}

// The same in real time, where the end and the repeater race.
func TestInterruptRepeatRace(t *testing.T) {
	guard(t)
	leakCheck(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 50 {
				ctx, cancel := context.WithCancel(context.Background())
				running, calls := false, 0 // plain: the race detector looks on
				again := make(chan struct{}, 1)
				err := to(ctx, func(context.Context) error {
					running = true
					cancel()
					for range i % 3 {
						<-again
					}
					return nil
				}, asyncsync.Insensitive(), asyncsync.Interrupt(func() {
					if !running {
						t.Error("interrupted after the end")
					}
					calls++
					select {
					case again <- struct{}{}:
					default:
					}
				}))
				running = false
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// Calls that do not heed their interrupts cost no goroutine each.
func TestInterruptsShareOneGoroutine(t *testing.T) {
	guard(t)
	leakCheck(t)
	const n = 200
	ctx, cancel := context.WithCancel(context.Background())
	begun, thrice, leave := newMeeting(n+1), newMeeting(n+1), make(chan struct{})
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			calls := 0
			if err := to(ctx, func(context.Context) error { begun.attend(); <-leave; return nil },
				asyncsync.Insensitive(), asyncsync.Interrupt(func() {
					if calls++; calls == 3 {
						go thrice.attend()
					}
				})); err != nil {
				t.Error(err)
			}
		})
	}
	begun.attend()
	before := runtime.NumGoroutine()
	cancel()
	thrice.attend()
	poll(t, func() string {
		if now := runtime.NumGoroutine(); now > before+n/10 {
			return fmt.Sprintf("%d goroutines, before the interrupts %d", now, before)
		}
		return ""
	})
	close(leave)
	all.Wait()
}

// An Interrupt function that blocks keeps no other from being called; one that
// ends by a panic or a Goexit is not called again, and takes nothing along.
func TestInterruptsOfOthersGoOn(t *testing.T) {
	for _, how := range []string{"blocks", "panics", "goexit"} {
		t.Run(how, func(t *testing.T) {
			guard(t)
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(context.Background())
				leave := make(chan struct{})
				var calls atomic.Int32
				bad := start(func() error {
					return to(ctx, func(context.Context) error { <-leave; return nil }, asyncsync.Insensitive(),
						asyncsync.Interrupt(func() {
							if calls.Add(1) < 3 {
								return
							}
							switch how {
							case "blocks":
								<-leave
							case "panics":
								panic("the interrupt's own")
							case "goexit":
								runtime.Goexit()
							}
						}))
				})
				synctest.Wait()
				cancel()
				time.Sleep(time.Second)
				require.Equal(t, int32(3), calls.Load())
				good, stop := context.WithCancel(context.Background())
				var d driver
				require.ErrorIs(t, to(good, func(context.Context) error {
					stop()
					synctest.Wait()
					time.Sleep(time.Minute)
					return d.endless()
				}, asyncsync.Insensitive(), asyncsync.Interrupt(d.interrupt)), errInterrupted)
				close(leave)
				if o := bad.Wait(); how == "panics" {
					require.Equal(t, outcome{How: "panic", Value: "the interrupt's own"}, o)
				} else {
					require.Equal(t, outcome{How: "return"}, o)
				}
				require.Equal(t, int32(3), calls.Load())
			})
		})
	}
}

// An abandoned call is interrupted until its function ends.
func TestInterruptOfAbandonedCall(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		base, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
		ctx, cancel := context.WithCancel(base)
		var d driver
		ended := make(chan error, 1)
		err := to(ctx, func(context.Context) error {
			cancel()
			synctest.Wait()
			err := d.endless()
			ended <- err
			return err
		}, asyncsync.Interrupt(d.interrupt), asyncsync.Abandon())
		require.ErrorIs(t, err, asyncsync.ErrAbandoned)
		require.ErrorIs(t, <-ended, errInterrupted)
		require.NoError(t, tsc.Close())
	})
}

// Closing a Handle waits for a call that is interrupted, and nothing interrupts
// what the close function does.
func TestInterruptAndTheHandlesClose(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		d := &driver{}
		before := 0
		h, err := asyncsync.Open(context.Background(), func(context.Context) (*driver, error) { return d, nil }, func(d *driver) error {
			before = d.called()
			time.Sleep(time.Hour)
			return nil
		})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		leave := make(chan struct{})
		call := start(func() error {
			return h.Do(ctx, func(_ context.Context, d *driver) error { <-leave; return d.endless() }, asyncsync.Interrupt(d.interrupt))
		})
		synctest.Wait()
		closer := start(h.Close)
		synctest.Wait()
		require.False(t, closer.Over())
		cancel()
		synctest.Wait()
		close(leave)
		require.ErrorIs(t, call.Wait().Err, errInterrupted)
		require.NoError(t, closer.Wait().Err)
		require.Equal(t, before, d.called())
	})
}

// What Interrupt's function sets is nobody else's, though they share a goroutine.
func TestInterruptsShareNoLocals(t *testing.T) {
	guard(t)
	v := local.New[int]()
	critical := local.New[int](local.ThreadCritical())
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		r := start(func() error {
			return to(ctx, func(context.Context) error { cancel(); time.Sleep(time.Second); return nil }, asyncsync.Insensitive(),
				asyncsync.Interrupt(func() {
					_, ok := v.Get()
					_, alsoOK := critical.Get()
					if ok || alsoOK {
						t.Error("somebody else's values are here")
					}
					v.Set(1)
					critical.Set(2)
				}))
		})
		require.NoError(t, r.Wait().Err)
	})
}

// An Interrupt function that calls the thread whose function it interrupts is
// refused at once: the two would wait for each other, and the thread be lost.
func TestInterruptCallsItsOwnThread(t *testing.T) {
	type calls struct {
		ctx  context.Context // of the function
		tsc  *asyncsync.ThreadSensitiveContext
		base context.Context
	}
	ways := map[string]func(c calls) error{
		"with the function's ctx":   func(c calls) error { return to(c.ctx, on(nil0)) },
		"with a ctx from outside":   func(c calls) error { return to(c.base, on(nil0)) },
		"with a ctx of nobody":      func(c calls) error { return to(context.Background(), on(nil0), asyncsync.On(c.tsc)) },
		"that is to be abandoned":   func(c calls) error { return to(c.base, on(nil0), asyncsync.Abandon()) },
		"with Interrupt of its own": func(c calls) error { return to(c.base, on(nil0), asyncsync.Interrupt(func() {})) },
		"from a context inside": func(c calls) error {
			return asyncsync.WithThreadSensitiveContext(c.base, func(ctx context.Context) error { return to(ctx, on(nil0)) })
		},
		"through the function's own": func(c calls) error { return to(context.WithoutCancel(c.ctx), on(nil0)) },
	}
	for name, way := range ways {
		for _, inline := range []bool{false, true} {
			for _, unpinned := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/inline %t/unpinned %t", name, inline, unpinned), func(t *testing.T) {
					guard(t)
					var opts []asyncsync.ContextOption
					if unpinned {
						opts = append(opts, asyncsync.Unpinned())
					}
					base, tsc := newContext(t, opts...)
					refused := make(chan error, 1)
					fn := func(ctx context.Context) error {
						cctx, cancel := context.WithCancel(ctx)
						return to(cctx, func(context.Context) error {
							cancel()
							return <-refused
						}, asyncsync.InterruptOnce(func() { refused <- way(calls{context.WithoutCancel(ctx), tsc, base}) }))
					}
					var err error
					if inline {
						err = to(base, fn)
					} else {
						err = fn(base)
					}
					require.ErrorIs(t, err, deadlock.ErrDeadlock)
					require.Contains(t, err.Error(), "Interrupt")
					require.NoError(t, to(base, on(nil0)), "the thread is there")
				})
			}
		}
	}
}

// Where the thread serves everybody the call may come to run, and does.
func TestInterruptCallsItsOwnThreadThatServesAll(t *testing.T) {
	guard(t)
	base, _ := newContext(t, asyncsync.Serve(asyncsync.All))
	ctx, cancel := context.WithCancel(base)
	ran := make(chan struct{})
	require.NoError(t, to(ctx, func(ctx context.Context) error {
		return from(context.WithoutCancel(ctx), func(context.Context) error { cancel(); <-ran; return nil })
	}, asyncsync.InterruptOnce(func() {
		if err := to(base, func(context.Context) error { close(ran); return nil }); err != nil {
			t.Error(err)
		}
	})))
	require.NoError(t, to(base, on(nil0)))
}

// What an Interrupt function waits for may call the thread: that is run when the
// function has returned. Its Close of the context is let go then.
func TestInterruptWaitsForItsOwnThread(t *testing.T) {
	ways := map[string]func(ctx context.Context, tsc *asyncsync.ThreadSensitiveContext) error{
		"a task": func(ctx context.Context, tsc *asyncsync.ThreadSensitiveContext) error {
			_, err := task.Go(ctx, func(ctx context.Context) (int, error) { return 0, to(ctx, on(nil0), asyncsync.On(tsc)) }).Wait(context.Background())
			return err
		},
		"Go": func(ctx context.Context, tsc *asyncsync.ThreadSensitiveContext) error {
			_, err := asyncsync.Go(ctx, func(ctx context.Context) (int, error) { return 0, nil }, asyncsync.On(tsc)).Wait(ctx)
			return err
		},
		"another thread": func(ctx context.Context, tsc *asyncsync.ThreadSensitiveContext) error {
			return asyncsync.WithThreadSensitiveContext(asyncsync.Detach(ctx), func(other context.Context) error {
				return to(other, func(context.Context) error { return to(ctx, on(nil0), asyncsync.On(tsc)) })
			})
		},
		"async code": func(ctx context.Context, tsc *asyncsync.ThreadSensitiveContext) error {
			return from(context.Background(), func(ctx context.Context) error { return to(ctx, on(nil0), asyncsync.On(tsc)) })
		},
		"Close": func(_ context.Context, tsc *asyncsync.ThreadSensitiveContext) error { return tsc.Close() },
	}
	for name, way := range ways {
		for _, own := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/own ctx %t", name, own), func(t *testing.T) {
				guard(t)
				base, tsc := newContext(t)
				ctx, cancel := context.WithCancel(base)
				begun := make(chan struct{})
				got := make(chan error, 1)
				r := start(func() error {
					return to(ctx, func(fctx context.Context) error {
						cancel()
						<-begun
						return nil
					}, asyncsync.InterruptOnce(func() {
						close(begun)
						c := context.Background()
						if own {
							c = base
						}
						got <- way(c, tsc)
					}))
				})
				require.Equal(t, outcome{How: "return"}, r.Settle(t))
				if err := <-got; err != nil {
					// With a ctx from outside it is a stranger's call, and one of the two
					// waits, which close a cycle, was refused.
					require.True(t, own || name == "another thread", "%v", err)
					require.ErrorIs(t, err, deadlock.ErrDeadlock)
				}
				if name == "Close" {
					require.ErrorIs(t, to(base, on(nil0)), asyncsync.ErrClosed)
				} else {
					require.NoError(t, to(base, on(nil0)))
				}
			})
		}
	}
}

// Interrupt in a bubble and outside of it at the same time.
func TestInterruptInBubbleAndOutside(t *testing.T) {
	guard(t)
	ctx, cancel := context.WithCancel(context.Background())
	var outside driver
	var many atomic.Int32
	r := start(func() error {
		return to(ctx, func(context.Context) error {
			cancel()
			for many.Load() < 3 {
				runtime.Gosched()
			}
			return outside.endless()
		}, asyncsync.Insensitive(), asyncsync.Interrupt(func() { many.Add(1); outside.interrupt() }))
	})
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			var d driver
			require.ErrorIs(t, to(ctx, func(context.Context) error {
				cancel()
				synctest.Wait()
				time.Sleep(time.Second)
				return d.endless()
			}, asyncsync.Insensitive(), asyncsync.Interrupt(d.interrupt)), errInterrupted)
		})
	}
	require.ErrorIs(t, r.Wait().Err, errInterrupted)
}
