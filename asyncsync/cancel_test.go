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

	"github.com/petermattis/goid"
	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/local"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

var (
	errCause = errors.New("the cause")
	errOwn   = errors.New("the function's own error")
)

func neverRuns(t *testing.T) func(context.Context) error {
	return func(context.Context) error {
		t.Error("a function runs that must not")
		return errOwn
	}
}

// A ctx that has ended before the call: the cause, by every way, and the
// function does not run.
func TestCancelBeforeTheCall(t *testing.T) {
	guard(t)
	base, tsc := newContext(t)
	other, _ := newContext(t)
	threadOf(t, base)
	h, err := asyncsync.Open(context.Background(), func(context.Context) (int, error) { return 7, nil }, nil)
	require.NoError(t, err)
	defer h.Close()
	end := func(ctx context.Context) context.Context {
		ctx, cancel := context.WithCancelCause(ctx)
		cancel(errCause)
		return ctx
	}
	fn := neverRuns(t)
	ways := map[string]func() error{
		"ToThread":             func() error { return to(end(base), fn) },
		"ToThread Abandon":     func() error { return to(end(base), fn, asyncsync.Abandon()) },
		"ToThread On":          func() error { return to(end(context.Background()), fn, asyncsync.On(tsc)) },
		"default thread":       func() error { return to(end(context.Background()), fn) },
		"insensitive":          func() error { return to(end(base), fn, asyncsync.Insensitive()) },
		"insensitive Abandon":  func() error { return to(end(base), fn, asyncsync.Insensitive(), asyncsync.Abandon()) },
		"insensitive executor": func() error { return to(end(base), fn, asyncsync.Insensitive(), asyncsync.WithExecutor(goEach)) },
		"insensitive limiter":  func() error { return to(end(base), fn, asyncsync.Insensitive(), asyncsync.WithLimiter(limiter)) },
		"inline": func() error {
			return to(base, func(ctx context.Context) error { return to(end(ctx), fn) })
		},
		"inline Interrupt": func() error {
			return to(base, func(ctx context.Context) error {
				return to(end(ctx), fn, asyncsync.Interrupt(func() { t.Error("nothing to interrupt") }))
			})
		},
		"from a thread": func() error {
			return to(other, func(context.Context) error { return to(end(base), fn) })
		},
		"nested": func() error {
			return to(base, func(ctx context.Context) error {
				return from(ctx, func(ctx context.Context) error { return to(end(ctx), fn) })
			})
		},
		"A2S on a thread": func() error {
			return to(base, func(ctx context.Context) error { return from(end(ctx), fn) })
		},
		"A2S adopting": func() error { return from(end(context.Background()), fn) },
		"A2S directly": func() error { return from(end(base), fn) },
		"handle":       func() error { return h.Do(end(base), func(ctx context.Context, _ int) error { return fn(ctx) }) },
		"opening": func() error {
			_, err := asyncsync.Open(end(context.Background()), func(ctx context.Context) (int, error) { return 0, fn(ctx) }, nil)
			return err
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			guard(t)
			require.Same(t, errCause, way(), "the cause itself")
			require.False(t, tsc.Stats().Running)
		})
	}
}

// Queued behind a running function.
func TestCancelQueued(t *testing.T) {
	for _, fromThread := range []bool{false, true} {
		for _, opts := range [][]asyncsync.Option{nil, {asyncsync.Abandon()}} {
			t.Run(fmt.Sprintf("from a thread %t, %d options", fromThread, len(opts)), func(t *testing.T) {
				guard(t)
				base, tsc := newContext(t)
				other, _ := newContext(t)
				release, first := occupy(base)
				ctx, cancel := context.WithCancelCause(base)
				var ranSecond bool
				call := func(context.Context) error {
					return to(ctx, func(context.Context) error { ranSecond = true; return nil }, opts...)
				}
				r := start(func() error {
					if fromThread {
						return to(other, call)
					}
					return call(ctx)
				})
				awaitQueued(t, tsc, 1)
				cancel(errCause)
				require.Same(t, errCause, r.Wait().Err, "at once, and not as abandoned: it never ran")
				require.Zero(t, tsc.Stats().Queued, "taken out")
				require.True(t, tsc.Stats().Running)
				release()
				require.NoError(t, first.Wait().Err)
				threadOf(t, base)
				require.False(t, ranSecond)
			})
		}
	}
}

// Queued behind a function that is blocked in a frame, by a stranger and by a
// relative of a frame that is not on top.
func TestCancelQueuedBehindBlockedFrame(t *testing.T) {
	guard(t)
	base, tsc := newContext(t)
	blocked, leave := make(chan struct{}), make(chan struct{})
	inner := make(chan context.Context, 1)
	first := start(func() error {
		return to(base, func(ctx context.Context) error {
			return from(ctx, func(lower context.Context) error {
				inner <- lower
				// A call on top of the frame that blocks in one of its own: what
				// lower submits has to wait for it.
				return to(lower, func(ctx context.Context) error {
					return from(ctx, func(context.Context) error {
						close(blocked)
						<-leave
						return nil
					})
				})
			})
		})
	})
	<-blocked
	relative := <-inner
	for name, ctx := range map[string]context.Context{"stranger": base, "relative of a lower frame": relative} {
		ctx, cancel := context.WithCancelCause(ctx)
		r := start(func() error { return to(ctx, neverRuns(t)) })
		awaitQueued(t, tsc, 1)
		cancel(errCause)
		require.Same(t, errCause, r.Wait().Err, name)
		require.Zero(t, tsc.Stats().Queued, name)
	}
	close(leave)
	require.NoError(t, first.Wait().Err)
}

// With the policy None a nested call cannot run. Made where the library does
// not know who waits for it, its ctx gets the caller out.
func TestCancelNestedCallThatNobodyServes(t *testing.T) {
	guard(t)
	base, tsc := newContext(t, asyncsync.Serve(asyncsync.None))
	r := start(func() error {
		return to(base, func(ctx context.Context) error {
			return from(ctx, func(ctx context.Context) error {
				ctx, cancel := context.WithCancelCause(ctx)
				go func() {
					awaitQueued(t, tsc, 1)
					cancel(errCause)
				}()
				return start(func() error { return to(ctx, neverRuns(t)) }).Wait().Err
			})
		})
	})
	require.Same(t, errCause, r.Wait().Err)
}

// A running function sees the end of its ctx; what it returns is what the
// caller gets.
func TestCancelRunning(t *testing.T) {
	ways := map[string]func(base, ctx context.Context, fn func(context.Context) error) error{
		"queued": func(_, ctx context.Context, fn func(context.Context) error) error { return to(ctx, fn) },
		"inline": func(base, ctx context.Context, fn func(context.Context) error) error {
			return to(base, func(context.Context) error { return to(ctx, fn) })
		},
		"from another thread": func(_, ctx context.Context, fn func(context.Context) error) error {
			other, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
			defer tsc.Close()
			return to(other, func(context.Context) error { return to(ctx, fn) })
		},
		"insensitive": func(_, ctx context.Context, fn func(context.Context) error) error {
			return to(ctx, fn, asyncsync.Insensitive(), asyncsync.WithExecutor(goEach))
		},
		"async below a thread": func(base, ctx context.Context, fn func(context.Context) error) error {
			return to(base, func(context.Context) error { return from(ctx, fn) })
		},
		"async, adopted": func(_, ctx context.Context, fn func(context.Context) error) error {
			return from(asyncsync.Detach(ctx), fn)
		},
	}
	for name, way := range ways {
		for _, own := range []error{nil, errOwn} {
			t.Run(fmt.Sprintf("%s/%v", name, own), func(t *testing.T) {
				guard(t)
				base, _ := newContext(t)
				ctx, cancel := context.WithCancelCause(base)
				var seen error
				err := way(base, ctx, func(ctx context.Context) error {
					cancel(errCause)
					<-ctx.Done()
					seen = context.Cause(ctx)
					return own
				})
				require.Equal(t, own, err, "its own result wins")
				require.Same(t, errCause, seen)
			})
		}
	}
}

// AsyncToSync waits for what its function makes of the end of ctx, and serves
// meanwhile: the function cleans up on the thread.
func TestCancelAsyncToSyncServesOn(t *testing.T) {
	guard(t)
	base, _ := newContext(t)
	home := threadOf(t, base)
	ctx, cancel := context.WithCancelCause(base)
	var cleaned place
	err := to(base, func(context.Context) error {
		return from(ctx, func(ctx context.Context) error {
			cancel(errCause)
			<-ctx.Done()
			err := to(context.WithoutCancel(ctx), func(context.Context) error { cleaned = here(); return nil })
			return errors.Join(context.Cause(ctx), err)
		})
	})
	require.ErrorIs(t, err, errCause)
	require.Equal(t, home, cleaned)
}

// Waiting in line for a thread of a full pool.
func TestCancelWaitingForCapacity(t *testing.T) {
	guard(t)
	pool := newPool(t, asyncsync.ThreadPoolConfig{MaxThreads: 1})
	holder, _ := newContext(t, asyncsync.WithPool(pool))
	release, first := occupy(holder)
	base, tsc := newContext(t, asyncsync.WithPool(pool))
	for range 3 {
		ctx, cancel := context.WithCancelCause(base)
		r := start(func() error { return to(ctx, neverRuns(t)) })
		poll(t, func() string {
			if w := pool.Stats().Waiting; w != 1 {
				return fmt.Sprintf("%d wait", w)
			}
			return ""
		})
		cancel(errCause)
		require.Same(t, errCause, r.Wait().Err)
		poll(t, func() string {
			if w := pool.Stats().Waiting; w != 0 {
				return fmt.Sprintf("%d still in line, for nobody", w)
			}
			return ""
		})
	}
	require.Zero(t, tsc.Stats().Queued)
	release()
	require.NoError(t, first.Wait().Err)
	require.NoError(t, tsc.Close())
}

// One caller gives up waiting for capacity, another of the same context does
// not.
func TestCancelOneOfTwoWaitingForCapacity(t *testing.T) {
	guard(t)
	pool := newPool(t, asyncsync.ThreadPoolConfig{MaxThreads: 1})
	holder, held := newContext(t, asyncsync.WithPool(pool))
	release, first := occupy(holder)
	base, tsc := newContext(t, asyncsync.WithPool(pool))
	ctx, cancel := context.WithCancelCause(base)
	gone := start(func() error { return to(ctx, neverRuns(t)) })
	awaitQueued(t, tsc, 1)
	stays := start(func() error { return to(base, func(context.Context) error { return errOwn }) })
	awaitQueued(t, tsc, 2)
	cancel(errCause)
	require.Same(t, errCause, gone.Wait().Err)
	release()
	require.NoError(t, first.Wait().Err)
	require.NoError(t, held.Close())
	require.Same(t, errOwn, stays.Settle(t).Err)
}

// Waiting for a limiter's token.
func TestCancelWaitingForToken(t *testing.T) {
	guard(t)
	l := task.NewLimiter(1)
	require.True(t, l.TryAcquire())
	for _, fromThread := range []bool{false, true} {
		base, _ := newContext(t)
		ctx, cancel := context.WithCancelCause(base)
		call := func(context.Context) error {
			return to(ctx, neverRuns(t), asyncsync.Insensitive(), asyncsync.WithLimiter(l))
		}
		r := start(func() error {
			if fromThread {
				return to(base, call)
			}
			return call(ctx)
		})
		poll(t, func() string {
			if l.Stats().Waiting != 1 {
				return "nobody in line"
			}
			return ""
		})
		cancel(errCause)
		require.Same(t, errCause, r.Wait().Err)
		require.Equal(t, task.LimiterStats{Total: 1, Used: 1}, l.Stats())
	}
}

// An executor that has not begun yet.
func TestCancelPostedElsewhere(t *testing.T) {
	guard(t)
	base, _ := newContext(t)
	posted := make(chan func(), 1)
	later := loop.PosterFunc(func(fn func()) error { posted <- fn; return nil })
	for _, opts := range [][]asyncsync.Option{nil, {asyncsync.Abandon()}} {
		ctx, cancel := context.WithCancelCause(base)
		r := start(func() error {
			return to(ctx, neverRuns(t), append(opts, asyncsync.Insensitive(), asyncsync.WithExecutor(later))...)
		})
		fn := <-posted
		cancel(errCause)
		require.Same(t, errCause, r.Wait().Err)
		fn() // too late
	}
}

// The call whose ctx has ended does not run even when the thread gets to it
// before its caller has taken it out. Both get going at the same moment; the
// function must not run, and the caller gets the cause.
func TestCancelQueuedRace(t *testing.T) {
	guard(t)
	base, tsc := newContext(t)
	threadOf(t, base)
	for range 1000 {
		ctx, cancel := context.WithCancelCause(base)
		begun, leave := make(chan struct{}), make(chan struct{})
		first := start(func() error {
			return to(base, func(context.Context) error { close(begun); <-leave; return nil })
		})
		<-begun
		ran := false
		r := start(func() error { return to(ctx, func(context.Context) error { ran = true; return nil }) })
		for tsc.Stats().Queued != 1 {
			runtime.Gosched()
		}
		cancel(errCause)
		close(leave)
		require.Same(t, errCause, r.Wait().Err)
		require.False(t, ran)
		require.NoError(t, first.Wait().Err)
	}
}

// Whatever the moment at which ctx ends, the caller gets the cause and the
// function has not run, or its own result and it has.
func TestCancelEitherOr(t *testing.T) {
	for _, interrupt := range []bool{false, true} {
		for _, fromThread := range []bool{false, true} {
			t.Run(fmt.Sprintf("Interrupt %t, from a thread %t", interrupt, fromThread), func(t *testing.T) {
				guard(t)
				base, tsc := newContext(t)
				other, _ := newContext(t)
				threadOf(t, base)
				var ran, refused atomic.Int32
				var all sync.WaitGroup
				for range 3 {
					all.Go(func() {
						for i := range 700 {
							ctx, cancel := context.WithCancelCause(base)
							began := false
							running, interrupts := 0, 0 // plain: the race detector looks on
							var opts []asyncsync.Option
							if interrupt {
								opts = append(opts, asyncsync.InterruptOnce(func() { interrupts++ }))
							}
							go func() {
								for range i % 40 {
									tsc.Stats()
								}
								cancel(errCause)
							}()
							call := func(context.Context) error {
								return to(ctx, func(context.Context) error {
									began = true
									running++
									return errOwn
								}, opts...)
							}
							var err error
							if fromThread {
								err = to(other, call)
							} else {
								err = call(ctx)
							}
							switch {
							case err == errOwn && began:
								ran.Add(1)
							case err == errCause && !began:
								refused.Add(1)
							default:
								t.Errorf("the call returned %v, and ran: %t", err, began)
							}
							if interrupts > running {
								t.Errorf("interrupted %d times", interrupts)
							}
						}
					})
				}
				all.Wait()
				t.Logf("%d ran, %d did not", ran.Load(), refused.Load())
				require.Zero(t, tsc.Stats().Queued)
			})
		}
	}
}

// The same with Abandon: there are three outcomes, and a call that never ran
// is not one that was abandoned.
func TestCancelEitherOrAbandoned(t *testing.T) {
	guard(t)
	base, tsc := newContext(t)
	threadOf(t, base)
	var heard atomic.Int32
	t.Cleanup(asyncsync.SetHooks(asyncsync.Hooks{Abandoned: func(asyncsync.CallInfo) { heard.Add(1) }}))
	var abandoned atomic.Int32
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			for i := range 1500 {
				ctx, cancel := context.WithCancelCause(base)
				var began atomic.Bool
				go func() {
					for range i % 40 {
						tsc.Stats()
					}
					cancel(errCause)
				}()
				err := to(ctx, func(context.Context) error { began.Store(true); return errOwn }, asyncsync.Abandon())
				switch {
				case err == errOwn && began.Load(), err == errCause && !began.Load():
				case errors.Is(err, asyncsync.ErrAbandoned) && errors.Is(err, errCause):
					abandoned.Add(1)
					// It runs, or is about to: behind it in the queue we know.
					if !assertRan(base, &began) {
						t.Errorf("abandoned, but the function has not run")
					}
				default:
					t.Errorf("the call returned %v, and ran: %t", err, began.Load())
				}
			}
		})
	}
	all.Wait()
	threadOf(t, base)
	poll(t, func() string {
		if h, a := heard.Load(), abandoned.Load(); h != a {
			return fmt.Sprintf("%d were abandoned, of %d the hook has heard", a, h)
		}
		return ""
	})
	t.Logf("%d abandoned", abandoned.Load())
}

func assertRan(ctx context.Context, began *atomic.Bool) bool {
	err := to(ctx, func(context.Context) error { return nil })
	return err == nil && began.Load()
}

// Abandon: at once, with both errors; the thread stays busy until the function
// ends.
func TestAbandon(t *testing.T) {
	for _, fromThread := range []bool{false, true} {
		t.Run(fmt.Sprintf("from a thread %t", fromThread), func(t *testing.T) {
			guard(t)
			base, tsc := newContext(t)
			other, _ := newContext(t)
			ctx, cancel := context.WithCancelCause(base)
			leave := make(chan struct{})
			before := asyncsync.ReadStats().Abandoned
			call := func(context.Context) error {
				return to(ctx, func(context.Context) error {
					cancel(errCause)
					<-leave
					return nil
				}, asyncsync.Abandon())
			}
			var err error
			if fromThread {
				err = to(other, call)
			} else {
				err = call(ctx)
			}
			requireWrapsAll(t, err, asyncsync.ErrAbandoned, errCause)
			require.Equal(t, before+1, asyncsync.ReadStats().Abandoned)
			require.True(t, tsc.Stats().Running, "the thread is busy")
			next := start(func() error { return to(base, func(context.Context) error { return errOwn }) })
			awaitQueued(t, tsc, 1)
			require.False(t, next.Over())
			close(leave)
			require.Same(t, errOwn, next.Wait().Err)
		})
	}
}

// Functions that were abandoned are counted until they have ended, however they
// were called and whichever way they end.
func TestAbandonedRunning(t *testing.T) {
	ways := map[string]func(base, ctx context.Context, fn func(context.Context) error) error{
		"on a thread": func(_, ctx context.Context, fn func(context.Context) error) error {
			return to(ctx, fn, asyncsync.Abandon())
		},
		"from another thread": func(_, ctx context.Context, fn func(context.Context) error) error {
			return asyncsync.WithThreadSensitiveContext(context.Background(), func(other context.Context) error {
				return to(other, func(context.Context) error { return to(ctx, fn, asyncsync.Abandon()) })
			})
		},
		"unpinned": func(_, ctx context.Context, fn func(context.Context) error) error {
			ctx, tsc := asyncsync.NewThreadSensitiveContext(asyncsync.Detach(ctx), asyncsync.Unpinned())
			defer func() { go tsc.Close() }()
			return to(ctx, fn, asyncsync.Abandon())
		},
		"insensitive": func(_, ctx context.Context, fn func(context.Context) error) error {
			return to(ctx, fn, asyncsync.Insensitive(), asyncsync.Abandon())
		},
		"async from a thread": func(base, ctx context.Context, fn func(context.Context) error) error {
			return to(base, func(context.Context) error { return from(ctx, fn, asyncsync.Abandon()) })
		},
		"async from async": func(_, ctx context.Context, fn func(context.Context) error) error {
			return from(ctx, fn, asyncsync.Abandon())
		},
	}
	for name, way := range ways {
		for _, e := range ends {
			t.Run(name+"/"+e.How, func(t *testing.T) {
				guard(t)
				base, _ := newContext(t)
				before := asyncsync.ReadStats().AbandonedRunning
				var leave []chan struct{}
				for i := range 3 {
					own, _ := newContext(t)
					ctx, cancel := context.WithCancel(own)
					end := make(chan struct{})
					leave = append(leave, end)
					err := way(base, ctx, func(context.Context) error { cancel(); <-end; return e.Do() })
					require.ErrorIs(t, err, asyncsync.ErrAbandoned)
					require.Equal(t, before+i+1, asyncsync.ReadStats().AbandonedRunning)
				}
				for i, end := range leave {
					close(end)
					poll(t, func() string {
						if n := asyncsync.ReadStats().AbandonedRunning; n != before+len(leave)-i-1 {
							return fmt.Sprintf("%d run, not %d", n, before+len(leave)-i-1)
						}
						return ""
					})
				}
			})
		}
	}
}

// An inline call cannot be abandoned.
func TestAbandonInline(t *testing.T) {
	guard(t)
	base, _ := newContext(t)
	ctx, cancel := context.WithCancelCause(base)
	err := to(base, func(context.Context) error {
		return to(ctx, func(context.Context) error { cancel(errCause); return errOwn }, asyncsync.Abandon())
	})
	require.Same(t, errOwn, err)
}

// The record of an abandoned call is not used again while its function runs:
// later calls of the same wrapper, and their results, are their own.
func TestAbandonedRecordIsNotReused(t *testing.T) {
	guard(t)
	base, _ := newContext(t)
	other, _ := newContext(t)
	type gate struct {
		cancel context.CancelCauseFunc
		leave  chan struct{}
		n      int
	}
	ended := make(chan int, 100)
	call := asyncsync.SyncToAsync(func(_ context.Context, g gate) (int, error) {
		if g.cancel != nil {
			g.cancel(errCause)
			<-g.leave
			defer func() { ended <- g.n }()
		}
		return g.n, nil
	}, asyncsync.Abandon())
	for i := range 50 {
		ctx, cancel := context.WithCancelCause(base)
		leave := make(chan struct{})
		_, err := call(ctx, gate{cancel, leave, i})
		require.ErrorIs(t, err, asyncsync.ErrAbandoned)
		for j := range 5 {
			n, err := call(other, gate{n: 1000 + j})
			require.NoError(t, err)
			require.Equal(t, 1000+j, n)
		}
		close(leave)
		n, err := call(other, gate{n: 77})
		require.NoError(t, err)
		require.Equal(t, 77, n)
		require.Equal(t, i, <-ended)
	}
}

// Local variables: what an abandoned function had set before is lost with what
// it sets later; its caller keeps its own values.
func TestAbandonedValuesReachNobody(t *testing.T) {
	v := local.New[string]()
	critical := local.New[string](local.ThreadCritical())
	for _, kind := range [][]asyncsync.Option{{asyncsync.Abandon()}, {asyncsync.Abandon(), asyncsync.Insensitive()}} {
		t.Run(fmt.Sprint(len(kind)), func(t *testing.T) {
			guard(t)
			base, _ := newContext(t)
			ctx, cancel := context.WithCancelCause(base)
			leave, left := make(chan struct{}), make(chan struct{})
			defer v.Set("caller's")()
			err := to(ctx, func(context.Context) error {
				defer close(left)
				v.Set("before")
				cancel(errCause)
				<-leave
				v.Set("after")
				critical.Set("the thread's")
				return nil
			}, kind...)
			require.ErrorIs(t, err, asyncsync.ErrAbandoned)
			require.Equal(t, is("caller's"), read(v))
			close(leave)
			<-left
			threadOf(t, base)
			require.Equal(t, is("caller's"), read(v))
			require.NoError(t, to(asyncsync.Detach(base), func(context.Context) error { return nil }))
			fresh := make(chan reading[string])
			go func() {
				defer close(fresh)
				to(base, func(context.Context) error { fresh <- read(v); return nil })
			}()
			require.Equal(t, unset[string](), <-fresh, "the next call starts with its caller's values")
		})
	}
}

// An abandoned function that calls on: its own calls are served.
func TestAbandonedFunctionGoesOn(t *testing.T) {
	guard(t)
	base, _ := newContext(t)
	home := threadOf(t, base)
	ctx, cancel := context.WithCancelCause(base)
	leave := make(chan struct{})
	got := make(chan place, 1)
	err := to(ctx, func(ctx context.Context) error {
		cancel(errCause)
		<-leave
		ctx = context.WithoutCancel(ctx)
		return from(ctx, func(ctx context.Context) error {
			p, err := asyncsync.ToThread(ctx, whereabouts)
			got <- p
			return err
		})
	}, asyncsync.Abandon())
	require.ErrorIs(t, err, asyncsync.ErrAbandoned)
	close(leave)
	require.Equal(t, home, <-got)
}

// AsyncToSync abandons too: the thread is free at once, and calls of the
// function that goes on are strangers' now, but served.
func TestAbandonAsync(t *testing.T) {
	guard(t)
	base, _ := newContext(t)
	home := threadOf(t, base)
	ctx, cancel := context.WithCancelCause(base)
	leave := make(chan struct{})
	got := make(chan place, 1)
	err := to(base, func(context.Context) error {
		return from(ctx, func(ctx context.Context) error {
			cancel(errCause)
			<-leave
			p, err := asyncsync.ToThread(context.WithoutCancel(ctx), whereabouts)
			got <- p
			return err
		}, asyncsync.Abandon())
	})
	requireWrapsAll(t, err, asyncsync.ErrAbandoned, errCause)
	require.Equal(t, home, threadOf(t, base), "the thread is free")
	close(leave)
	require.Equal(t, home, <-got)
}

// Interrupt is called while the function runs, once, off the thread.
func TestInterrupt(t *testing.T) {
	ways := map[string]func(ctx context.Context, fn func(context.Context) error, opt asyncsync.Option) error{
		"queued": func(ctx context.Context, fn func(context.Context) error, opt asyncsync.Option) error {
			return to(ctx, fn, opt)
		},
		"inline": func(ctx context.Context, fn func(context.Context) error, opt asyncsync.Option) error {
			return to(ctx, func(ctx context.Context) error { return to(ctx, fn, opt) })
		},
		"insensitive": func(ctx context.Context, fn func(context.Context) error, opt asyncsync.Option) error {
			return to(ctx, fn, opt, asyncsync.Insensitive())
		},
		"async": func(ctx context.Context, fn func(context.Context) error, opt asyncsync.Option) error {
			return to(ctx, func(ctx context.Context) error { return from(ctx, fn, opt) })
		},
		"wrapper": func(ctx context.Context, fn func(context.Context) error, opt asyncsync.Option) error {
			_, err := asyncsync.SyncToAsync(func(ctx context.Context, _ int) (int, error) { return 0, fn(ctx) }, opt)(ctx, 0)
			return err
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			guard(t)
			base, _ := newContext(t)
			ctx, cancel := context.WithCancel(base)
			interrupted := make(chan place, 10)
			err := way(ctx, func(context.Context) error {
				mine := here()
				cancel()
				require.NotEqual(t, mine.gid, (<-interrupted).gid)
				return errOwn
			}, asyncsync.InterruptOnce(func() { interrupted <- here() }))
			require.Same(t, errOwn, err)
			require.Empty(t, interrupted, "once")
		})
	}
}

// Never when ctx ends after the function, and never when it did not begin.
func TestInterruptNotCalled(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		base, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
		defer tsc.Close()
		opt := asyncsync.Interrupt(func() { t.Error("interrupts what does not run") })

		ctx, cancel := context.WithCancelCause(base)
		require.NoError(t, to(ctx, func(context.Context) error { return nil }, opt))
		cancel(errCause)
		synctest.Wait()

		ctx, cancel = context.WithCancelCause(base)
		release, first := occupy(base)
		r := start(func() error { return to(ctx, neverRuns(t), opt) })
		synctest.Wait()
		cancel(errCause)
		require.Same(t, errCause, r.Wait().Err)
		release()
		require.NoError(t, first.Wait().Err)
		synctest.Wait()
	})
}

// The call waits for an Interrupt function that still runs when the function
// has ended.
func TestCallWaitsForInterrupt(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		base, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
		defer tsc.Close()
		ctx, cancel := context.WithCancel(base)
		begun, leave := make(chan struct{}), make(chan struct{})
		finished := false // plain: the end of the function synchronizes
		r := start(func() error {
			return to(ctx, func(context.Context) error { cancel(); <-begun; return nil },
				asyncsync.InterruptOnce(func() { close(begun); <-leave; finished = true }))
		})
		synctest.Wait()
		require.False(t, r.Over())
		close(leave)
		require.NoError(t, r.Wait().Err)
		require.True(t, finished)
	})
}

// Raced: the function and its interrupt share a plain variable under the one
// rule that they have, that Interrupt is called neither before nor after. The
// value stands for a handle that is nil outside of the function.
func TestInterruptRace(t *testing.T) {
	for _, way := range []string{"queued", "inline", "insensitive"} {
		t.Run(way, func(t *testing.T) {
			guard(t)
			base, _ := newContext(t)
			threadOf(t, base)
			interrupts := 0
			for i := range 2000 {
				ctx, cancel := context.WithCancel(base)
				handle := new(atomic.Int64)
				open := int64(1)
				handle.Store(open)
				opt := asyncsync.Interrupt(func() {
					if handle.Load() != open {
						t.Error("interrupted after the end")
					}
					interrupts++
				})
				go func() {
					for range i % 30 {
						asyncsync.ReadStats()
					}
					cancel()
				}()
				fn := func(context.Context) error {
					for range i % 7 {
						asyncsync.ReadStats()
					}
					return nil
				}
				var err error
				switch way {
				case "queued":
					err = to(ctx, fn, opt)
				case "inline":
					err = to(base, func(context.Context) error { return to(ctx, fn, opt) })
				case "insensitive":
					err = to(ctx, fn, opt, asyncsync.Insensitive())
				}
				handle.Store(0) // closed: the call is over
				if err != nil {
					require.ErrorIs(t, err, context.Canceled)
				}
				cancel()
			}
			t.Logf("interrupted %d times", interrupts)
		})
	}
}

// WithLoop: a loop that stops before the function has begun.
type stoppable struct {
	posted chan func()
	done   chan struct{}
}

func (s *stoppable) Post(fn func()) error {
	select {
	case <-s.done:
		return loop.ErrStopped
	default:
		s.posted <- fn
		return nil
	}
}
func (s *stoppable) Done() <-chan struct{} { return s.done }

func TestLoopStops(t *testing.T) {
	guard(t)
	base, _ := newContext(t)
	for _, way := range []string{"thread", "async", "adopted"} {
		t.Run(way, func(t *testing.T) {
			guard(t)
			l := &stoppable{make(chan func(), 1), make(chan struct{})}
			call := func() error {
				switch way {
				case "thread":
					return to(base, func(ctx context.Context) error { return from(ctx, neverRuns(t), asyncsync.WithLoop(l)) })
				case "async":
					return from(base, neverRuns(t), asyncsync.WithLoop(l))
				default:
					return from(context.Background(), neverRuns(t), asyncsync.WithLoop(l))
				}
			}
			r := start(call)
			fn := <-l.posted
			close(l.done)
			require.ErrorIs(t, r.Wait().Err, loop.ErrStopped)
			fn()
			require.ErrorIs(t, outcomeOf(call).Err, loop.ErrStopped)
		})
	}
}

// What has begun when the loop stops is waited for.
func TestLoopStopsWhileRunning(t *testing.T) {
	guard(t)
	base, _ := newContext(t)
	for _, onThread := range []bool{true, false} {
		l := &stoppable{make(chan func(), 1), make(chan struct{})}
		fn := func(ctx context.Context) error {
			close(l.done)
			_, err := asyncsync.ToThread(ctx, whereabouts)
			return errors.Join(err, errOwn)
		}
		r := start(func() error {
			if onThread {
				return to(base, func(ctx context.Context) error { return from(ctx, fn, asyncsync.WithLoop(l)) })
			}
			return from(base, fn, asyncsync.WithLoop(l))
		})
		go (<-l.posted)()
		o := r.Wait()
		require.ErrorIs(t, o.Err, errOwn)
		require.NotErrorIs(t, o.Err, loop.ErrStopped)
	}
}

// endsForOthers is a ctx that ends right after it was asked for the first time.
// A goroutine other than gid that asks is kept until release closes.
type endsForOthers struct {
	context.Context
	gid     int64
	done    chan struct{}
	asked   chan struct{} // closed when such a goroutine asks
	release chan struct{}
	once    sync.Once
	kept    sync.Once
}

func (c *endsForOthers) Done() <-chan struct{} { return c.done }
func (c *endsForOthers) Err() error {
	first := false
	c.once.Do(func() {
		first = true
		close(c.done)
	})
	if first {
		return nil
	}
	if goid.Get() != c.gid {
		c.kept.Do(func() { close(c.asked) })
		<-c.release
	}
	return context.Canceled
}

// A function that finds its ctx ended does not run, and is not abandoned: the
// caller is told that it has not begun.
func TestAbandonWhatFindsItsCtxEnded(t *testing.T) {
	guard(t)
	for name, ctx := range map[string]context.Context{"from async code": context.Background(), "from a thread": nil} {
		t.Run(name, func(t *testing.T) {
			call := func(base context.Context) error {
				ctx := &endsForOthers{
					Context: base, gid: goid.Get(),
					done: make(chan struct{}), asked: make(chan struct{}), release: make(chan struct{}),
				}
				// The caller goes on when the function is about to begin.
				executor := loop.PosterFunc(func(fn func()) error { go fn(); <-ctx.asked; return nil })
				err := to(ctx, neverRuns(t), asyncsync.Insensitive(), asyncsync.WithExecutor(executor), asyncsync.Abandon())
				close(ctx.release)
				return err
			}
			var err error
			if ctx != nil {
				err = call(ctx)
			} else {
				ctx, _ := newContext(t)
				require.NoError(t, to(ctx, func(ctx context.Context) error { err = call(ctx); return nil }))
			}
			require.ErrorIs(t, err, context.Canceled)
			require.NotErrorIs(t, err, asyncsync.ErrAbandoned)
		})
	}
}
