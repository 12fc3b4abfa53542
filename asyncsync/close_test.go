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

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/core"
	"asyncsync.dev/task"
)

// requireClosed requires that ctx's context takes no more calls, and that
// trying makes no new thread.
func requireClosed(t *testing.T, ctx context.Context, tsc *asyncsync.ThreadSensitiveContext) {
	t.Helper()
	fn := func(context.Context) error { t.Error("runs in a closed context"); return nil }
	require.ErrorIs(t, to(ctx, fn), asyncsync.ErrClosed)
	require.ErrorIs(t, to(context.Background(), fn, asyncsync.On(tsc)), asyncsync.ErrClosed)
	require.ErrorIs(t, to(ctx, fn, asyncsync.Abandon(), asyncsync.Interrupt(func() {})), asyncsync.ErrClosed)
	s := tsc.Stats()
	require.True(t, s.Closed)
	require.Zero(t, s.Thread)
}

// Every stage that a context can be in, and who closes it is another
// goroutine. In a bubble, so that "Close waits" is exact.
func TestClose(t *testing.T) {
	stages := map[string]func(t *testing.T, ctx context.Context, pool *asyncsync.ThreadPool) (release func()){
		"unused": func(*testing.T, context.Context, *asyncsync.ThreadPool) func() { return nil },
		"idle": func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadPool) func() {
			threadOf(t, ctx)
			return nil
		},
		"running": func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadPool) func() {
			release, r := occupy(ctx)
			return func() { release(); require.NoError(t, r.Wait().Err) }
		},
		"queued": func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadPool) func() {
			release, first := occupy(ctx)
			var rs []*runningFunc
			var order []int
			for i := range 3 {
				rs = append(rs, start(func() error {
					return to(ctx, func(context.Context) error { order = append(order, i); return nil })
				}))
				synctest.Wait()
			}
			return func() {
				release()
				for _, r := range append(rs, first) {
					require.NoError(t, r.Wait().Err, "accepted is run")
				}
				require.Equal(t, []int{0, 1, 2}, order)
			}
		},
		"blocked": func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadPool) func() {
			leave := make(chan struct{})
			var where place
			r := start(func() error {
				return to(ctx, func(ctx context.Context) error {
					return from(ctx, func(ctx context.Context) error {
						<-leave
						// Closed by now, but nested in what still runs.
						p, err := asyncsync.ToThread(ctx, whereabouts)
						where = p
						return err
					})
				})
			})
			synctest.Wait()
			return func() {
				close(leave)
				require.NoError(t, r.Wait().Err)
				require.NotZero(t, where)
			}
		},
		"abandoned": func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadPool) func() {
			ctx, cancel := context.WithCancel(ctx)
			leave := make(chan struct{})
			err := to(ctx, func(context.Context) error { cancel(); <-leave; return nil }, asyncsync.Abandon())
			require.ErrorIs(t, err, asyncsync.ErrAbandoned)
			return func() { close(leave) }
		},
		"in line for a thread": func(t *testing.T, ctx context.Context, pool *asyncsync.ThreadPool) func() {
			holder, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
			release, first := occupy(holder)
			r := start(func() error { return to(ctx, func(context.Context) error { return nil }) })
			synctest.Wait()
			require.Equal(t, 1, pool.Stats().Waiting)
			return func() {
				release()
				require.NoError(t, first.Wait().Err)
				require.NoError(t, tsc.Close())
				require.NoError(t, r.Wait().Err)
			}
		},
	}
	kinds := map[string][]asyncsync.ContextOption{
		"":           nil,
		"/unpinned":  {asyncsync.Unpinned()},
		"/serve all": {asyncsync.Serve(asyncsync.All)},
	}
	for stage, enter := range stages {
		for kind, opts := range kinds {
			for _, closers := range []int{1, 3} {
				t.Run(fmt.Sprintf("%s%s/closers=%d", stage, kind, closers), func(t *testing.T) {
					if stage == "in line for a thread" && kind == "/unpinned" {
						t.Skip("an unpinned context needs no pool")
					}
					guard(t)
					synctest.Test(t, func(t *testing.T) {
						pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 1})
						exits := 0
						all := append([]asyncsync.ContextOption{asyncsync.OnThreadExit(func() { exits++ })}, opts...)
						if kind != "/unpinned" {
							all = append(all, asyncsync.WithPool(pool))
						}
						ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), all...)
						release := enter(t, ctx, pool)
						var cs []*runningFunc
						for range closers {
							cs = append(cs, start(tsc.Close))
						}
						synctest.Wait()
						require.ErrorIs(t, to(ctx, neverRuns(t)), asyncsync.ErrClosed, "refused from now on")
						if release != nil {
							for _, c := range cs {
								require.False(t, c.Over(), "Close waits")
							}
							release()
						}
						for _, c := range cs {
							require.NoError(t, c.Wait().Err)
						}
						require.NoError(t, tsc.Close())
						requireClosed(t, ctx, tsc)
						if stage == "unused" {
							require.Zero(t, exits)
						} else {
							require.Equal(t, 1, exits)
						}
						s := pool.Stats()
						require.Equal(t, s.Idle, s.Threads, "the thread is given back")
						require.NoError(t, pool.Close())
					})
				})
			}
		}
	}
}

// Closed from inside: from the thread itself, from async code and from a task
// below a function that waits for it. It returns at once, refuses what is new,
// serves what is nested, and the rest happens when the function ends.
func TestCloseFromInside(t *testing.T) {
	ways := map[string]func(ctx context.Context, close func(context.Context) error) error{
		"thread": func(ctx context.Context, close func(context.Context) error) error { return close(ctx) },
		"inline": func(ctx context.Context, close func(context.Context) error) error { return to(ctx, close) },
		"async":  func(ctx context.Context, close func(context.Context) error) error { return from(ctx, close) },
		"nested": func(ctx context.Context, close func(context.Context) error) error {
			return from(ctx, func(ctx context.Context) error { return to(ctx, close) })
		},
		"task below async": func(ctx context.Context, close func(context.Context) error) error {
			return from(ctx, func(ctx context.Context) error {
				_, err := task.Go(ctx, func(ctx context.Context) (int, error) { return 0, close(ctx) }).Wait(ctx)
				return err
			})
		},
		"insensitive below": func(ctx context.Context, close func(context.Context) error) error {
			return to(ctx, close, asyncsync.Insensitive())
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			guard(t)
			var exited atomic.Bool
			ctx, tsc := newContext(t, asyncsync.OnThreadExit(func() { exited.Store(true) }))
			home := threadOf(t, ctx)
			err := to(ctx, func(ctx context.Context) error {
				err := way(ctx, func(inside context.Context) error {
					if err := tsc.Close(); err != nil {
						return err
					}
					require.True(t, tsc.Stats().Closed)
					p, err := asyncsync.ToThread(inside, whereabouts)
					require.Equal(t, home, p, "nested calls are served")
					return err
				})
				refused := start(func() error { return to(asyncsync.Detach(ctx), neverRuns(t), asyncsync.On(tsc)) })
				require.ErrorIs(t, refused.Wait().Err, asyncsync.ErrClosed)
				require.False(t, exited.Load(), "the function still runs")
				return err
			})
			require.NoError(t, err)
			require.NoError(t, tsc.Close())
			require.True(t, exited.Load())
			requireClosed(t, ctx, tsc)
		})
	}
}

// A task of a function on the thread closes the context, and the function waits
// for the task, which it began to do only when Close was under way.
func TestCloseFromTaskThatIsWaitedForLater(t *testing.T) {
	guard(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
	r := start(func() error {
		return to(ctx, func(ctx context.Context) error {
			closing := make(chan struct{})
			tk := task.Go(ctx, func(context.Context) (int, error) { close(closing); return 0, tsc.Close() })
			<-closing
			poll(t, func() string {
				if !tsc.Stats().Closed {
					return "Close has not got anywhere"
				}
				return ""
			})
			_, err := tk.Wait(ctx)
			return err
		})
	})
	require.NoError(t, r.Settle(t).Err)
	require.NoError(t, tsc.Close())
}

// The context is closed by a function on another context's thread which the
// running function needs: the waiting Close serves.
func TestCloseFromThreadThatIsNeeded(t *testing.T) {
	for _, nested := range []bool{false, true} {
		t.Run(fmt.Sprintf("through async code %t", nested), func(t *testing.T) {
			guard(t)
			ctx, tsc := newContext(t)
			other, o := newContext(t)
			away := threadOf(t, other)
			begun, closing := make(chan struct{}), make(chan struct{})
			var got place
			r := start(func() error {
				return to(ctx, func(ctx context.Context) error {
					close(begun)
					<-closing
					call := func(ctx context.Context) error {
						return to(ctx, func(context.Context) error { got = here(); return nil }, asyncsync.On(o))
					}
					if !nested {
						return call(ctx)
					}
					return from(ctx, func(ctx context.Context) error {
						return to(ctx, func(ctx context.Context) error { return from(ctx, call) })
					})
				})
			})
			<-begun
			closer := start(func() error {
				return to(other, func(context.Context) error {
					close(closing)
					return tsc.Close()
				})
			})
			require.NoError(t, closer.Settle(t).Err)
			require.NoError(t, r.Wait().Err)
			require.Equal(t, away, got)
			requireClosed(t, ctx, tsc)
		})
	}
}

// Concurrent calls and closings: each call runs or is refused, none is lost,
// and nothing runs after Close has returned.
func TestCloseRace(t *testing.T) {
	guard(t)
	for i := range 300 {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
		if i%2 == 0 {
			threadOf(t, ctx)
		}
		closed := false // plain: written when Close has returned
		ran := 0
		var all sync.WaitGroup
		var ok, refused atomic.Int32
		for j := range 4 {
			all.Go(func() {
				for range i % 5 {
					runtime.Gosched()
				}
				err := to(ctx, func(ctx context.Context) error {
					if closed {
						t.Error("runs after Close")
					}
					ran++
					if j%2 == 0 {
						return from(ctx, func(ctx context.Context) error {
							return to(ctx, func(context.Context) error { return nil })
						})
					}
					return nil
				})
				switch {
				case err == nil:
					ok.Add(1)
				case errors.Is(err, asyncsync.ErrClosed):
					refused.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		all.Go(func() {
			if err := tsc.Close(); err != nil {
				t.Error(err)
			}
			closed = true
		})
		all.Wait()
		require.EqualValues(t, ran, ok.Load())
		require.EqualValues(t, 4, ok.Load()+refused.Load())
		requireClosed(t, ctx, tsc)
	}
}

// Shutdown that gives up: queued calls get ErrClosed, the error says what still
// runs and wraps what ctx says, and the thread is given back later.
func TestShutdownGivesUp(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 1})
		exited := false
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("stubborn"),
			asyncsync.WithPool(pool), asyncsync.OnThreadExit(func() { exited = true }))
		release, first := occupy(ctx, asyncsync.Named("the long one"))
		var queued []*runningFunc
		for range 3 {
			queued = append(queued, start(func() error { return to(ctx, neverRuns(t)) }))
		}
		synctest.Wait()
		patience, cancel := context.WithCancelCause(context.Background())
		closer := start(func() error { return tsc.Shutdown(patience) })
		waiter := start(tsc.Close)
		synctest.Wait()
		require.False(t, closer.Over())
		require.Equal(t, 3, tsc.Stats().Queued)
		cancel(errCause)
		err := closer.Wait().Err
		require.ErrorIs(t, err, errCause)
		require.ErrorContains(t, err, "stubborn")
		require.ErrorContains(t, err, "the long one")
		for _, q := range queued {
			require.ErrorIs(t, q.Wait().Err, asyncsync.ErrClosed)
		}
		synctest.Wait()
		require.False(t, waiter.Over(), "Close is more patient")
		require.False(t, first.Over())
		require.ErrorIs(t, to(ctx, neverRuns(t)), asyncsync.ErrClosed)
		release()
		require.NoError(t, first.Wait().Err, "what ran is not disturbed")
		require.NoError(t, waiter.Wait().Err)
		require.True(t, exited)
		require.Equal(t, 1, pool.Stats().Idle)
		require.NoError(t, pool.Close())
	})
}

// A Shutdown whose ctx has ended already gives up at once, on what runs; with
// nothing to wait for it succeeds.
func TestShutdownImpatient(t *testing.T) {
	guard(t)
	over, cancel := context.WithCancelCause(context.Background())
	cancel(errCause)
	ctx, tsc := newContext(t)
	release, first := occupy(ctx)
	require.ErrorIs(t, tsc.Shutdown(over), errCause)
	release()
	require.NoError(t, first.Wait().Err)
	require.NoError(t, tsc.Close())

	_, unused := newContext(t)
	require.NoError(t, unused.Shutdown(over))
}

// Nested calls of a function that goes on are served even after a Shutdown has
// given up.
func TestShutdownServesNested(t *testing.T) {
	guard(t)
	ctx, tsc := newContext(t)
	home := threadOf(t, ctx)
	begun, leave := make(chan struct{}), make(chan struct{})
	var got place
	r := start(func() error {
		return to(ctx, func(ctx context.Context) error {
			return from(ctx, func(ctx context.Context) (err error) {
				close(begun)
				<-leave
				got, err = asyncsync.ToThread(ctx, whereabouts)
				return err
			})
		})
	})
	<-begun
	over, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, tsc.Shutdown(over), context.Canceled)
	close(leave)
	require.NoError(t, r.Wait().Err)
	require.Equal(t, home, got)
}

// Shutdown from inside cannot keep its promise, and says so.
func TestShutdownFromInside(t *testing.T) {
	guard(t)
	ctx, tsc := newContext(t)
	require.NoError(t, to(ctx, func(ctx context.Context) error {
		require.ErrorIs(t, tsc.Shutdown(ctx), core.ErrDeadlock)
		return nil
	}))
	require.NoError(t, tsc.Close())
	requireClosed(t, ctx, tsc)
}

// A nested context that is idle is nothing to wait for, wherever it is shut
// down.
func TestShutdownOfIdleNestedContextOnTheThread(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t)
	require.NoError(t, to(ctx, func(ctx context.Context) error {
		_, nested := asyncsync.NewThreadSensitiveContext(ctx)
		return nested.Shutdown(ctx)
	}))
}

// While its thread waits in line for a place in the pool.
func TestShutdownWaitingForCapacity(t *testing.T) {
	guard(t)
	pool := newPool(t, asyncsync.ThreadPoolConfig{MaxThreads: 1})
	holder, _ := newContext(t, asyncsync.WithPool(pool))
	release, first := occupy(holder)
	ctx, tsc := newContext(t, asyncsync.WithPool(pool))
	r := start(func() error { return to(ctx, neverRuns(t)) })
	awaitQueued(t, tsc, 1)
	over, cancel := context.WithCancelCause(context.Background())
	cancel(errCause)
	require.ErrorIs(t, tsc.Shutdown(over), errCause)
	require.ErrorIs(t, r.Wait().Err, asyncsync.ErrClosed)
	require.Zero(t, pool.Stats().Waiting)
	require.NoError(t, tsc.Close())
	release()
	require.NoError(t, first.Wait().Err)
}

// Giving up on a context that overflows is no matter of the one that it is
// nested in.
func TestShutdownOfNestedLeavesOuterAlone(t *testing.T) {
	guard(t)
	pool := newPool(t, asyncsync.ThreadPoolConfig{MaxThreads: 1})
	outer, l := newContext(t, asyncsync.WithPool(pool))
	inner, b := newContext(t, asyncsync.WithPool(pool))
	begun, leave := make(chan struct{}), make(chan struct{})
	first := start(func() error {
		return to(outer, func(ctx context.Context) error {
			return from(ctx, func(ctx context.Context) error {
				return to(ctx, func(context.Context) error { close(begun); <-leave; return nil }, asyncsync.On(b))
			})
		})
	})
	<-begun
	queued := start(func() error { return to(outer, func(context.Context) error { return errOwn }) })
	awaitQueued(t, l, 1)
	over, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, b.Shutdown(over), context.Canceled)
	close(leave)
	require.NoError(t, first.Wait().Err)
	require.Same(t, errOwn, queued.Wait().Err, "it was not shut down")
	require.ErrorIs(t, to(inner, neverRuns(t)), asyncsync.ErrClosed)
}

// Contexts inside another share its thread and are closed by themselves, or
// with the one they are in.
func TestNestedContexts(t *testing.T) {
	guard(t)
	exits := 0
	outer, o := newContext(t, asyncsync.WithName("outer"), asyncsync.OnThreadExit(func() { exits++ }))
	inner, i := asyncsync.NewThreadSensitiveContext(outer, asyncsync.WithName("inner"),
		asyncsync.OnThreadExit(func() { t.Error("options are those of the outermost") }))
	home := threadOf(t, inner)
	require.Equal(t, home, threadOf(t, outer))
	require.Equal(t, "inner", i.Stats().Name)
	require.NoError(t, i.Close())
	require.ErrorIs(t, to(inner, neverRuns(t)), asyncsync.ErrClosed)
	require.Equal(t, home, threadOf(t, outer), "the outer one is still open")
	require.Zero(t, exits)

	second, s := asyncsync.NewThreadSensitiveContext(outer)
	require.Equal(t, home, threadOf(t, second))
	require.NoError(t, o.Close())
	require.Equal(t, 1, exits)
	requireClosed(t, outer, o)
	require.ErrorIs(t, to(second, neverRuns(t)), asyncsync.ErrClosed)
	require.True(t, s.Stats().Closed)
	require.NoError(t, s.Close())

	late, l := asyncsync.NewThreadSensitiveContext(outer)
	require.ErrorIs(t, to(late, neverRuns(t)), asyncsync.ErrClosed, "made inside a closed one")
	require.NoError(t, l.Close())
}

// A context inside a closed one is closed, also where that is neither the
// outermost nor the innermost.
func TestContextInsideClosedMiddle(t *testing.T) {
	guard(t)
	outer, _ := newContext(t)
	middle, m := asyncsync.NewThreadSensitiveContext(outer)
	inner, i := asyncsync.NewThreadSensitiveContext(middle)
	threadOf(t, inner)
	require.NoError(t, m.Close())
	require.ErrorIs(t, to(inner, neverRuns(t)), asyncsync.ErrClosed)
	require.True(t, i.Stats().Closed)
	threadOf(t, outer)
}

// A closed nested context refuses calls on the thread as it does elsewhere.
func TestClosedNestedContextRefusesInline(t *testing.T) {
	guard(t)
	outer, _ := newContext(t)
	require.NoError(t, to(outer, func(ctx context.Context) error {
		inner, i := asyncsync.NewThreadSensitiveContext(ctx)
		require.NoError(t, to(inner, func(context.Context) error { return nil }))
		require.NoError(t, i.Close())
		require.ErrorIs(t, to(inner, neverRuns(t)), asyncsync.ErrClosed)
		return nil
	}))
}

// Close of a nested context waits for its calls, not for those of the one it
// is in.
func TestCloseNestedWaitsForItsOwn(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		outer, o := asyncsync.NewThreadSensitiveContext(context.Background())
		inner, i := asyncsync.NewThreadSensitiveContext(outer)
		release, first := occupy(inner)
		closer := start(i.Close)
		synctest.Wait()
		require.False(t, closer.Over())
		release()
		require.NoError(t, closer.Wait().Err)
		require.NoError(t, first.Wait().Err)

		second, s := asyncsync.NewThreadSensitiveContext(outer)
		_ = second
		release, first = occupy(outer)
		require.NoError(t, s.Close(), "it has nothing to wait for")
		release()
		require.NoError(t, first.Wait().Err)
		require.NoError(t, o.Close())
	})
}

// WithThreadSensitiveContext closes in every case, and joins the errors.
func TestWithThreadSensitiveContext(t *testing.T) {
	guard(t)
	var inside context.Context
	err := asyncsync.WithThreadSensitiveContext(context.Background(), func(ctx context.Context) error {
		inside = ctx
		threadOf(t, ctx)
		return errOwn
	}, asyncsync.OnThreadExit(func() { panic("exit") }))
	require.ErrorIs(t, err, errOwn)
	require.ErrorContains(t, err, "exit")
	require.ErrorIs(t, to(inside, neverRuns(t)), asyncsync.ErrClosed)
}

// Detach: another thread, no rights to be served, values and cancellation kept.
func TestDetach(t *testing.T) {
	guard(t)
	type key struct{}
	base, cancel := context.WithCancelCause(context.WithValue(context.Background(), key{}, "value"))
	ctx, tsc := asyncsync.NewThreadSensitiveContext(base)
	defer tsc.Close()
	home := threadOf(t, ctx)
	ordinary := threadOf(t, context.Background())
	blocked, leave := make(chan struct{}), make(chan struct{})
	r := start(func() error {
		return to(ctx, func(ctx context.Context) error {
			return from(ctx, func(ctx context.Context) error {
				detached := asyncsync.Detach(ctx)
				require.Equal(t, "value", detached.Value(key{}))
				require.Equal(t, ordinary, threadOf(t, detached), "the default thread")
				// A stranger, on the thread that is blocked for us: refused service.
				back := start(func() error {
					return to(detached, func(context.Context) error { return errOwn }, asyncsync.On(tsc))
				})
				awaitQueued(t, tsc, 1)
				require.Equal(t, home, threadOf(t, ctx), "relatives are served")
				require.False(t, back.Over())
				close(blocked)
				<-leave
				go func() { back.Wait() }()
				return nil
			})
		})
	})
	<-blocked
	close(leave)
	require.NoError(t, r.Wait().Err)
	poll(t, func() string {
		if tsc.Stats().Queued > 0 || tsc.Stats().Running {
			return "the stranger has not had its turn"
		}
		return ""
	})
	detached := asyncsync.Detach(ctx)
	fresh, f := asyncsync.NewThreadSensitiveContext(detached)
	defer f.Close()
	require.NotEqual(t, home.gid, threadOf(t, fresh).gid, "an independent context")
	cancel(errCause)
	require.Same(t, errCause, context.Cause(detached))
	require.Same(t, errCause, to(detached, neverRuns(t)))
}

// collect runs the garbage collector until check is content.
func collect(t *testing.T, check func() string) {
	t.Helper()
	poll(t, func() string {
		runtime.GC()
		return check()
	})
}

// Dropped without Close: the thread comes back, exit functions have run on it.
func TestDroppedContext(t *testing.T) {
	for _, how := range []string{"idle", "after Goexit", "nested", "from a call", "unused"} {
		t.Run(how, func(t *testing.T) {
			guard(t)
			// Not closed where the test fails: that would wait for the thread.
			pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 1})
			var exited atomic.Int64
			drop := func() (home place) {
				ctx, _ := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool),
					asyncsync.OnThreadExit(func() { exited.Store(here().gid) }))
				switch how {
				case "unused":
					return place{}
				case "after Goexit":
					outcomeOf(func() error { return to(ctx, func(context.Context) error { runtime.Goexit(); return nil }) })
				case "nested":
					inner, _ := asyncsync.NewThreadSensitiveContext(ctx)
					_, err := through(inner, 5, whereabouts)
					require.NoError(t, err)
				case "from a call":
					other, _ := newContext(t)
					to(other, func(context.Context) error { threadOf(t, ctx); return nil })
				}
				return threadOf(t, ctx)
			}
			home := drop()
			collect(t, func() string {
				if s := pool.Stats(); s.Idle != s.Threads {
					return fmt.Sprintf("not given back: %+v", s)
				}
				return ""
			})
			require.Equal(t, home.gid, exited.Load())
			defer pool.Close()
			ctx, tsc := newContext(t, asyncsync.WithPool(pool))
			p := threadOf(t, ctx)
			require.NoError(t, tsc.Close())
			if how != "unused" {
				require.Equal(t, home, p, "the same thread, for the next one")
			}
		})
	}
}

// A Handle too, and its value is closed on its thread.
func TestDroppedHandle(t *testing.T) {
	guard(t)
	pool := newPool(t, asyncsync.ThreadPoolConfig{MaxThreads: 1})
	closed := make(chan place, 1)
	drop := func() (home place) {
		h, err := asyncsync.Open(context.Background(),
			func(context.Context) (*int, error) { return new(int), nil },
			func(*int) error { closed <- here(); return nil },
			asyncsync.WithPool(pool))
		require.NoError(t, err)
		home, err = asyncsync.Get(context.Background(), h, func(context.Context, *int) (place, error) { return here(), nil })
		require.NoError(t, err)
		return home
	}
	home := drop()
	collect(t, func() string {
		if len(closed) == 0 {
			return "the value is not closed"
		}
		return ""
	})
	require.Equal(t, home, <-closed)
}

// A context that is in use is not collected, even if nothing holds it but the call that
// runs.
func TestContextInUseIsNotCollected(t *testing.T) {
	guard(t)
	pool := newPool(t, asyncsync.ThreadPoolConfig{MaxThreads: 1})
	begun, leave := make(chan struct{}), make(chan struct{})
	r := start(func() error {
		ctx, _ := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
		return to(ctx, func(ctx context.Context) error {
			close(begun)
			<-leave
			return nil
		})
	})
	<-begun
	for range 5 {
		runtime.GC()
	}
	require.Equal(t, 0, pool.Stats().Idle)
	close(leave)
	require.NoError(t, r.Wait().Err)
	collect(t, func() string {
		if pool.Stats().Idle != 1 {
			return "not given back"
		}
		return ""
	})
}

func TestQueueLimit(t *testing.T) {
	guard(t)
	ctx, tsc := newContext(t, asyncsync.QueueLimit(2))
	leave, blocked := make(chan struct{}), make(chan context.Context, 1)
	first := start(func() error {
		return to(ctx, func(ctx context.Context) error {
			return from(ctx, func(ctx context.Context) error {
				blocked <- ctx
				<-leave
				return nil
			})
		})
	})
	related := <-blocked
	var queued []*runningFunc
	for i := range 2 {
		queued = append(queued, start(func() error { return to(ctx, func(context.Context) error { return nil }) }))
		awaitQueued(t, tsc, i+1)
	}
	for range 3 {
		require.ErrorIs(t, to(ctx, neverRuns(t)), asyncsync.ErrQueueFull)
	}
	require.Equal(t, 2, tsc.Stats().Queued)
	require.NoError(t, to(related, func(ctx context.Context) error {
		return to(ctx, func(context.Context) error { return nil })
	}), "nested calls are exempt")
	nested, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorIs(t, to(nested, neverRuns(t)), context.Canceled)
	close(leave)
	require.NoError(t, first.Wait().Err)
	for _, q := range queued {
		require.NoError(t, q.Wait().Err)
	}
	require.NoError(t, to(ctx, func(context.Context) error { return nil }), "there is room again")
}

// A place in the queue that was cancelled is free again.
func TestQueueLimitAfterCancel(t *testing.T) {
	guard(t)
	base, tsc := newContext(t, asyncsync.QueueLimit(1))
	release, first := occupy(base)
	for range 3 {
		ctx, cancel := context.WithCancelCause(base)
		r := start(func() error { return to(ctx, neverRuns(t)) })
		awaitQueued(t, tsc, 1)
		require.ErrorIs(t, to(base, neverRuns(t)), asyncsync.ErrQueueFull)
		cancel(errCause)
		require.Same(t, errCause, r.Wait().Err)
	}
	release()
	require.NoError(t, first.Wait().Err)
}

// The policies, seen by a stranger and by a relative of a blocked function.
func TestServe(t *testing.T) {
	for policy, want := range map[asyncsync.Policy]struct{ stranger, relative bool }{
		asyncsync.Related: {false, true},
		asyncsync.All:     {true, true},
		asyncsync.None:    {false, false},
	} {
		for _, unpinned := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v, unpinned %t", policy, unpinned), func(t *testing.T) {
				guard(t)
				synctest.Test(t, func(t *testing.T) {
					opts := []asyncsync.ContextOption{asyncsync.Serve(policy)}
					if unpinned {
						opts = append(opts, asyncsync.Unpinned())
					}
					ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), opts...)
					leave := make(chan struct{})
					var blocked context.Context
					first := start(func() error {
						return to(ctx, func(ctx context.Context) error {
							return from(ctx, func(ctx context.Context) error { blocked = ctx; <-leave; return nil })
						})
					})
					synctest.Wait()
					stranger := start(func() error { return to(ctx, func(context.Context) error { return nil }) })
					synctest.Wait()
					relative := start(func() error { return to(blocked, func(context.Context) error { return nil }) })
					synctest.Wait()
					require.Equal(t, want.stranger, stranger.Over())
					require.Equal(t, want.relative, relative.Over())
					close(leave)
					for _, r := range []*runningFunc{first, stranger, relative} {
						require.NoError(t, r.Wait().Err, "served at the latest when the function has ended")
					}
					require.NoError(t, tsc.Close())
				})
			})
		}
	}
}

// All runs calls in the order of arrival, related ones and strangers alike.
func TestServeAllInOrder(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.Serve(asyncsync.All))
		defer tsc.Close()
		var order []int
		var rs []*runningFunc
		require.NoError(t, to(ctx, func(outer context.Context) error {
			return from(outer, func(related context.Context) error {
				gate := make(chan struct{})
				holder := start(func() error { return to(ctx, func(context.Context) error { <-gate; return nil }) })
				synctest.Wait()
				for i := range 6 {
					c := ctx
					if i%2 == 0 {
						c = related
					}
					rs = append(rs, start(func() error {
						return to(c, func(context.Context) error { order = append(order, i); return nil })
					}))
					synctest.Wait()
				}
				close(gate)
				for _, r := range append(rs, holder) {
					r.Wait()
				}
				return nil
			})
		}))
		require.Equal(t, []int{0, 1, 2, 3, 4, 5}, order)
	})
}

// Unpinned: exclusive, nested, one goroutine, no OS thread.
func TestUnpinned(t *testing.T) {
	guard(t)
	leakCheck(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.Unpinned())
	var alone exclusion
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 50 {
				_, err := through(ctx, 3, func(ctx context.Context) (int, error) {
					return 0, to(ctx, func(context.Context) error { alone.run(runtime.Gosched); return nil })
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	require.Equal(t, 1, alone.most)
	require.Equal(t, 200, alone.times)
	require.Zero(t, tsc.Stats().Thread)
	require.NoError(t, tsc.Close())
}

// OnThreadStart and OnThreadExit: on the thread, before the first and after
// the last, in order.
func TestOnThreadStartAndExit(t *testing.T) {
	for _, unpinned := range []bool{false, true} {
		t.Run(fmt.Sprintf("unpinned %t", unpinned), func(t *testing.T) {
			guard(t)
			var events []string
			var gids []int64
			step := func(name string) func() {
				return func() { events = append(events, name); gids = append(gids, here().gid) }
			}
			opts := []asyncsync.ContextOption{
				asyncsync.OnThreadStart(step("start 1")), asyncsync.OnThreadStart(step("start 2")),
				asyncsync.OnThreadExit(step("exit 1")), asyncsync.OnThreadExit(step("exit 2")),
			}
			if unpinned {
				opts = append(opts, asyncsync.Unpinned())
			}
			ctx, tsc := newContext(t, opts...)
			call := func(context.Context) error { step("call")(); return nil }
			require.NoError(t, to(ctx, call))
			require.NoError(t, to(ctx, call))
			require.NoError(t, tsc.Close())
			require.Equal(t, []string{"start 1", "start 2", "call", "call", "exit 1", "exit 2"}, events)
			for _, g := range gids {
				require.Equal(t, gids[0], g)
			}
		})
	}
}

// A thread that has run nothing has nothing to exit from.
func TestOnThreadExitOfUnusedContext(t *testing.T) {
	guard(t)
	ctx, tsc := newContext(t, asyncsync.OnThreadExit(func() { t.Error("has not run anything") }),
		asyncsync.OnThreadStart(func() { t.Error("nothing to start for") }))
	over, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorIs(t, to(over, neverRuns(t)), context.Canceled)
	require.NoError(t, tsc.Close())
}

// Exit functions may call the library, other contexts and async code included.
func TestOnThreadExitCallsBack(t *testing.T) {
	guard(t)
	other, _ := newContext(t)
	var got, back place
	ctx, tsc := newContext(t, asyncsync.OnThreadExit(func() {
		got, _ = asyncsync.ToThread(other, whereabouts)
		from(other, func(context.Context) error { back = here(); return nil })
	}))
	home := threadOf(t, ctx)
	require.NoError(t, tsc.Close())
	require.Equal(t, threadOf(t, other), got)
	require.NotZero(t, back)
	require.NotEqual(t, home.gid, back.gid)
}

// Taint: the thread is destroyed instead of used again.
func TestTaint(t *testing.T) {
	needThreads(t)
	guard(t)
	pool := newPool(t, asyncsync.ThreadPoolConfig{MaxThreads: 1})
	ctx, tsc := newContext(t, asyncsync.WithPool(pool))
	home := threadOf(t, ctx)
	require.NoError(t, to(ctx, func(ctx context.Context) error { asyncsync.Taint(ctx); return nil }))
	require.Equal(t, home, threadOf(t, ctx), "for this context it goes on")
	require.NoError(t, tsc.Close())
	poll(t, func() string {
		if s := pool.Stats(); s.Threads != 0 {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
	next, _ := newContext(t, asyncsync.WithPool(pool))
	require.NotEqual(t, home.gid, threadOf(t, next).gid)
	require.EqualValues(t, 2, pool.Stats().Started)
}

// Without a thread Taint has nothing to do. Without a context there will never be one that
// is given back, and it says so.
func TestTaintNothing(t *testing.T) {
	guard(t)
	ctx, tsc := newContext(t)
	require.NoError(t, asyncsync.Taint(ctx))
	require.NoError(t, tsc.Close())
	require.ErrorIs(t, asyncsync.Taint(context.Background()), asyncsync.ErrNoContext)
	require.ErrorIs(t, to(context.Background(), asyncsync.Taint), asyncsync.ErrNoContext, "on the default thread")
}

// A Shutdown that gives up while the context's last functions run on its thread
// says which of them it is.
func TestShutdownNamesTheExitFunctionThatHangs(t *testing.T) {
	guard(t)
	begun, leave := make(chan struct{}), make(chan struct{})
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.OnThreadExit(func() {
		close(begun)
		<-leave
	}))
	require.NoError(t, to(ctx, on(nil0)))
	closing := start(tsc.Close)
	<-begun
	over, cancel := context.WithCancel(context.Background())
	cancel()
	err := tsc.Shutdown(over)
	require.ErrorIs(t, err, context.Canceled)
	require.Regexp(t, `TestShutdownNamesTheExitFunctionThatHangs\.func\d+ still runs`, err.Error())
	close(leave)
	require.NoError(t, closing.Wait().Err)
}

// An unpinned context that was used has no goroutine while nobody uses it, and is
// no thread.
func TestStatsOfAnUnpinnedContext(t *testing.T) {
	before := asyncsync.ReadStats().Threads
	ctx, _ := newContext(t, asyncsync.Unpinned())
	require.NoError(t, to(ctx, func(context.Context) error {
		require.Equal(t, before+1, asyncsync.ReadStats().Threads)
		return nil
	}))
	require.Equal(t, before, asyncsync.ReadStats().Threads)
}

// A task of a group closes the context of the function that comes to wait for the
// group, and is let go. What it has waited for, a stranger's task that was accepted
// before, must not run on top of that function.
func TestCloserThatIsLetGoMakesNobodyRelated(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		for range 50 {
			ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
			running, queued := make(chan none), make(chan none)
			inside := false // of the thread
			function := start(func() error {
				return to(ctx, func(ctx context.Context) error {
					close(running)
					<-queued
					gctx, g := task.NewGroup(ctx)
					g.Go(func(context.Context) error { return tsc.Close() })
					synctest.Wait() // it waits for what the context has accepted
					inside = true
					defer func() { inside = false }()
					return g.Wait(gctx)
				})
			})
			<-running
			stranger := goTo(context.Background(), func(context.Context) error {
				if inside {
					return errors.New("a stranger on top of the function")
				}
				return nil
			}, asyncsync.On(tsc))
			close(queued)
			require.NoError(t, function.Wait().Err)
			require.NoError(t, waitFor(stranger))
			require.NoError(t, tsc.Close())
		}
	})
}
