package asyncsync_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
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

type none = struct{}

// goTo is Go for functions without a result.
func goTo(ctx context.Context, fn func(context.Context) error, opts ...asyncsync.Option) *task.Task[none] {
	return asyncsync.Go(ctx, func(ctx context.Context) (none, error) { return none{}, fn(ctx) }, opts...)
}

// waitFor is Wait for tasks without a result, by somebody whose ctx knows
// nothing of the library.
func waitFor(tk *task.Task[none]) error {
	_, err := tk.Wait(context.Background())
	return err
}

// kinds are the two kinds of threads that a context may have.
var kinds = map[string][]asyncsync.ContextOption{
	"pinned":   nil,
	"unpinned": {asyncsync.Unpinned()},
}

// eachKind runs test for both, and for each way of looking before sleeping.
func eachKind(t *testing.T, test func(t *testing.T, opts ...asyncsync.ContextOption)) {
	for kind, opts := range kinds {
		for name, mode := range map[string]int{"cold": -1, "learning": 0, "hot": 1} {
			t.Run(kind+"/"+name, func(t *testing.T) {
				guard(t)
				forceSpin(t, mode)
				test(t, opts...)
			})
		}
	}
}

// The thread is the one that ToThread would choose.
func TestGoChoosesTheThread(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t)
	other, tsc := newContext(t)
	inner, _ := asyncsync.NewThreadSensitiveContext(ctx)
	type key struct{}
	for name, c := range map[string]struct {
		ctx  context.Context
		opts []asyncsync.Option
		want context.Context
	}{
		"ctx":        {ctx, nil, ctx},
		"nested":     {inner, nil, ctx},
		"below ctx":  {context.WithValue(ctx, key{}, 1), nil, ctx},
		"On":         {ctx, []asyncsync.Option{asyncsync.On(tsc)}, other},
		"default":    {context.Background(), nil, context.Background()},
		"default On": {context.Background(), []asyncsync.Option{asyncsync.On(tsc)}, other},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := asyncsync.Go(c.ctx, whereabouts, c.opts...).Wait(ctx)
			require.NoError(t, err)
			require.Equal(t, threadOf(t, c.want), got)
			// fn's ctx names the thread, so that its own calls are inline.
			got, err = asyncsync.Go(c.ctx, func(ctx context.Context) (place, error) {
				return asyncsync.ToThread(ctx, whereabouts)
			}, c.opts...).Wait(ctx)
			require.NoError(t, err)
			require.Equal(t, threadOf(t, c.want), got)
		})
	}
}

func TestGoWithoutContext(t *testing.T) {
	guard(t)
	asyncsync.RequireContext(true)
	defer asyncsync.RequireContext(false)
	log := listen(t)
	err := waitFor(goTo(context.Background(), neverRuns(t), asyncsync.Named("refused")))
	require.ErrorIs(t, err, asyncsync.ErrNoContext)
	require.Len(t, log.Named("ended", "refused"), 1)
	ctx, _ := newContext(t)
	require.NoError(t, waitFor(goTo(ctx, on(nil0))))
}

// Go does not wait: not for a busy thread, and not for fn.
func TestGoReturnsAtOnce(t *testing.T) {
	eachKind(t, func(t *testing.T, opts ...asyncsync.ContextOption) {
		ctx, tsc := newContext(t, opts...)
		leave := make(chan struct{})
		began := make(chan struct{})
		running := goTo(ctx, func(context.Context) error { close(began); <-leave; return errOwn })
		<-began
		queued := goTo(ctx, on(nil0))
		require.Equal(t, 1, tsc.Stats().Queued)
		for _, tk := range []*task.Task[none]{running, queued} {
			select {
			case <-tk.Done():
				t.Fatal("it has ended")
			default:
			}
		}
		close(leave)
		require.Same(t, errOwn, waitFor(running))
		require.NoError(t, waitFor(queued))
	})
}

// Each waiter ends as the function did, and the thread survives.
func TestGoEndings(t *testing.T) {
	for _, e := range ends {
		t.Run(e.How, func(t *testing.T) {
			eachKind(t, func(t *testing.T, opts ...asyncsync.ContextOption) {
				log := listen(t)
				ctx, _ := newContext(t, opts...)
				home, err := asyncsync.Go(ctx, whereabouts).Wait(ctx)
				require.NoError(t, err)
				tk := goTo(ctx, on(e.Do), asyncsync.Named("subject"))
				var waiters []*runningFunc
				for range 3 {
					waiters = append(waiters, start(func() error { return waitFor(tk) }))
				}
				for _, w := range waiters {
					e.CheckIs(t, w.Wait())
				}
				e.CheckIs(t, outcomeOf(func() error { return waitFor(tk) })) // later
				again, err := asyncsync.Go(ctx, whereabouts).Wait(ctx)
				require.NoError(t, err)
				require.Equal(t, home.gid, again.gid)
				if len(opts) == 0 {
					require.Equal(t, home, again)
				}
				ended := log.Named("ended", "subject")
				require.Len(t, ended, 1)
				require.Equal(t, e.How == "goexit", ended[0].Goexit)
				told := log.Named("panicked", "subject")
				if e.How == "panic" {
					require.Len(t, told, 1)
					require.Same(t, http.ErrAbortHandler, told[0].Panic)
					require.Contains(t, string(told[0].Stack), "testkit.Culprit")
				} else {
					require.Empty(t, told)
				}
			})
		})
	}
}

// A panic that nobody waits for ends nothing but the task.
func TestGoPanicThatNobodyWaitsFor(t *testing.T) {
	guard(t)
	log := listen(t)
	ctx, tsc := newContext(t)
	home := threadOf(t, ctx)
	goTo(ctx, func(context.Context) error { culprit(); return nil })
	require.Equal(t, home, threadOf(t, ctx))
	require.NoError(t, tsc.Close())
	require.Equal(t, 1, log.Count("panicked"))
}

// What happens before Go is seen by fn, and what fn does after Wait. The
// variables are plain, for the race detector.
func TestGoHappensBefore(t *testing.T) {
	eachKind(t, func(t *testing.T, opts ...asyncsync.ContextOption) {
		ctx, _ := newContext(t, opts...)
		var alone exclusion
		for i := range 200 {
			before, after := 0, 0
			before = i + 1
			tk := goTo(ctx, func(context.Context) error {
				alone.run(nil)
				after = before + 1
				return nil
			})
			if i%2 == 0 {
				require.NoError(t, waitFor(tk))
			} else {
				<-tk.Done()
			}
			require.Equal(t, i+2, after)
		}
		require.Equal(t, 200, alone.times)
	})
}

// A result may be read by many, at the same time, often.
func TestGoResultIsReadByMany(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t)
	tk := asyncsync.Go(ctx, func(context.Context) (*int, error) { n := 7; return &n, errOwn })
	first, _ := tk.Wait(ctx)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 10 {
				got, err := tk.Wait(ctx)
				if got != first || err != errOwn {
					t.Error(got, err)
				}
			}
		})
	}
	all.Wait()
}

// Calls of one submitter run in order, whether it waits for them or not.
func TestGoOrder(t *testing.T) {
	eachKind(t, func(t *testing.T, opts ...asyncsync.ContextOption) {
		ctx, _ := newContext(t, opts...)
		rounds := 100
		if testing.Short() {
			rounds = 10
		}
		const callers, calls = 4, 50
		for range rounds {
			ran := [callers][]int{} // on the thread
			var all sync.WaitGroup
			for me := range callers {
				all.Go(func() {
					r := rand.New(rand.NewPCG(uint64(me), uint64(rounds)))
					var last *task.Task[none]
					for i := range calls {
						fn := func(context.Context) error { ran[me] = append(ran[me], i); return nil }
						switch r.IntN(6) {
						case 0:
							if err := to(ctx, fn); err != nil {
								t.Error(err)
							}
						case 1:
							runtime.Gosched()
							fallthrough
						default:
							last = goTo(ctx, fn)
						}
					}
					if last != nil {
						waitFor(last)
					}
					to(ctx, on(nil0))
				})
			}
			all.Wait()
			for me := range callers {
				require.Len(t, ran[me], calls)
				for i, got := range ran[me] {
					require.Equal(t, i, got, "caller %d: %v", me, ran[me])
				}
			}
		}
	})
}

// Order goes by what happens before what, on different goroutines too.
func TestGoOrderAcrossGoroutines(t *testing.T) {
	eachKind(t, func(t *testing.T, opts ...asyncsync.ContextOption) {
		ctx, _ := newContext(t, opts...)
		n := 0 // of the thread
		const calls = 2000
		turn := make(chan int, 1)
		turn <- 0
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				for i := range turn {
					if i == calls {
						close(turn)
						return
					}
					goTo(ctx, func(context.Context) error {
						if n != i {
							t.Errorf("call %d runs as number %d", i, n)
						}
						n++
						return nil
					})
					turn <- i + 1
				}
			})
		}
		all.Wait()
		require.NoError(t, to(ctx, on(nil0)))
		require.Equal(t, calls, n)
	})
}

// From the thread itself Go queues: the function that calls it ends first.
func TestGoFromTheThread(t *testing.T) {
	eachKind(t, func(t *testing.T, opts ...asyncsync.ContextOption) {
		ctx, tsc := newContext(t, opts...)
		var steps []string // of the thread
		step := func(name string) func(context.Context) error {
			return func(context.Context) error { steps = append(steps, name); return nil }
		}
		var left *task.Task[none]
		require.NoError(t, to(ctx, func(ctx context.Context) error {
			left = goTo(ctx, step("left"))
			require.Equal(t, 1, tsc.Stats().Queued)
			to(ctx, step("inline"))
			return step("function")(ctx)
		}))
		require.NoError(t, waitFor(left))
		require.Equal(t, []string{"inline", "function", "left"}, steps)

		// It waits for the second: that one runs on top of it, the first not.
		steps = nil
		home := int64(0)
		require.NoError(t, to(ctx, func(ctx context.Context) error {
			home = here().gid
			left = goTo(ctx, step("left"))
			tk := asyncsync.Go(ctx, whereabouts)
			p, err := tk.Wait(ctx)
			require.Equal(t, home, p.gid)
			step("function")(ctx)
			return err
		}))
		require.NoError(t, waitFor(left))
		require.Equal(t, []string{"function", "left"}, steps)

		// One on top of another, as deep as one likes.
		var down func(int) func(context.Context) (int, error)
		down = func(n int) func(context.Context) (int, error) {
			return func(ctx context.Context) (int, error) {
				if n == 0 {
					return 0, nil
				}
				got, err := asyncsync.Go(ctx, down(n-1)).Wait(ctx)
				return got + 1, err
			}
		}
		got, err := asyncsync.Go(ctx, down(50)).Wait(ctx)
		require.NoError(t, err)
		require.Equal(t, 50, got)
	})
}

// Strangers' tasks wait until the blocked function has ended; those of what it
// waits for run on top of it, from wherever they were started.
func TestGoRelation(t *testing.T) {
	for kind, opts := range kinds {
		t.Run(kind, func(t *testing.T) {
			guard(t)
			synctest.Test(t, func(t *testing.T) {
				ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), opts...)
				leave := make(chan struct{})
				var related *task.Task[none]
				first := start(func() error {
					return to(ctx, func(ctx context.Context) error {
						return from(ctx, func(ctx context.Context) error {
							related = goTo(ctx, on(nil0))
							<-leave
							return nil
						})
					})
				})
				synctest.Wait()
				<-related.Done()
				stranger := goTo(ctx, on(nil0))
				synctest.Wait()
				select {
				case <-stranger.Done():
					t.Error("a stranger's task runs on top of a blocked function")
				default:
				}
				close(leave)
				require.NoError(t, first.Wait().Err)
				require.NoError(t, waitFor(stranger))
				require.NoError(t, tsc.Close())
			})
		})
	}
}

// A blocked thread serves the task that it waits for. It does not matter who has queued
// the task there, or whether the thread waits itself or for somebody who waits.
func TestGoJoined(t *testing.T) {
	waits := map[string]func(context.Context, *task.Task[none]) error{
		"Wait": func(ctx context.Context, tk *task.Task[none]) error { _, err := tk.Wait(ctx); return err },
		"WaitOrCancel": func(ctx context.Context, tk *task.Task[none]) error {
			_, err := tk.WaitOrCancel(ctx)
			return err
		},
		"async": func(ctx context.Context, tk *task.Task[none]) error {
			return from(ctx, func(ctx context.Context) error { _, err := tk.Wait(ctx); return err })
		},
		"task": func(ctx context.Context, tk *task.Task[none]) error {
			_, err := task.Go(ctx, func(ctx context.Context) (none, error) { return tk.Wait(ctx) }).Wait(ctx)
			return err
		},
		"group": func(ctx context.Context, tk *task.Task[none]) error {
			_, g := task.NewGroup(ctx)
			g.Go(func(ctx context.Context) error { _, err := tk.Wait(ctx); return err })
			return g.Wait(ctx)
		},
		"another thread": func(ctx context.Context, tk *task.Task[none]) error {
			other, tsc := asyncsync.NewThreadSensitiveContext(asyncsync.Detach(ctx))
			defer tsc.Close()
			_ = other
			return to(ctx, func(ctx context.Context) error { _, err := tk.Wait(ctx); return err }, asyncsync.On(tsc))
		},
	}
	for name, wait := range waits {
		t.Run(name, func(t *testing.T) {
			eachKind(t, func(t *testing.T, opts ...asyncsync.ContextOption) {
				ctx, tsc := newContext(t, opts...)
				home := int64(0)
				begun, queued := make(chan struct{}), make(chan *task.Task[none])
				r := start(func() error {
					return to(ctx, func(ctx context.Context) error {
						home = here().gid
						close(begun)
						return wait(ctx, <-queued)
					})
				})
				<-begun
				tk := goTo(context.Background(), func(context.Context) error {
					if got := here().gid; got != home {
						return fmt.Errorf("on goroutine %d, should be %d", got, home)
					}
					return errOwn
				}, asyncsync.On(tsc))
				queued <- tk
				require.ErrorIs(t, r.Wait().Err, errOwn)
			})
		})
	}
}

// A task on one thread that calls the thread which waits for it.
func TestGoCallsBack(t *testing.T) {
	eachKind(t, func(t *testing.T, opts ...asyncsync.ContextOption) {
		ctx, tsc := newContext(t, opts...)
		_, other := newContext(t, opts...)
		for range 20 {
			require.NoError(t, to(ctx, func(ctx context.Context) error {
				home := here().gid
				tk := asyncsync.Go(ctx, func(ctx context.Context) (place, error) {
					return asyncsync.ToThread(ctx, whereabouts, asyncsync.On(tsc))
				}, asyncsync.On(other))
				p, err := tk.Wait(ctx)
				require.Equal(t, home, p.gid)
				return err
			}))
		}
	})
}

// A task that stands in line for the last thread of a pool gets another when the
// function there waits for it.
// A function waits for a task that it has queued on its own thread, and a
// stranger calls the thread meanwhile: the stranger asks, under the lock of the
// thread, whether the wait may be for him.
func TestGoWaitedForOnItsThreadWhileStrangersCall(t *testing.T) {
	eachKind(t, func(t *testing.T, opts ...asyncsync.ContextOption) {
		ctx, tsc := newContext(t, opts...)
		other, _ := newContext(t)
		for name, where := range map[string]context.Context{"own": ctx, "other": other} {
			t.Run(name, func(t *testing.T) {
				running, queued := make(chan none), whenQueued(t, "stranger")
				release := make(chan none)
				caller := start(func() error {
					return to(ctx, func(ctx context.Context) error {
						tk := goTo(where, func(context.Context) error {
							close(running)
							<-release
							return nil
						})
						_, err := tk.Wait(ctx)
						return err
					})
				})
				<-running
				stranger := start(func() error {
					return to(context.Background(), func(context.Context) error { return nil }, asyncsync.On(tsc), asyncsync.Named("stranger"))
				})
				<-queued
				for tsc.Stats().Queued == 0 {
					runtime.Gosched()
				}
				close(release)
				require.Equal(t, outcome{How: "return"}, caller.Wait())
				require.Equal(t, outcome{How: "return"}, stranger.Wait())
			})
		}
	})
}

func TestGoInFullPool(t *testing.T) {
	guard(t)
	pool := newPool(t, asyncsync.ThreadPoolConfig{MaxThreads: 1})
	ctx, _ := newContext(t, asyncsync.WithPool(pool))
	_, other := newContext(t, asyncsync.WithPool(pool))
	require.NoError(t, to(ctx, func(ctx context.Context) error {
		p, err := asyncsync.Go(ctx, whereabouts, asyncsync.On(other)).Wait(ctx)
		require.NotEqual(t, here(), p)
		return err
	}))
}

// A task that waits for itself, on a thread as elsewhere.
func TestGoWaitsForItself(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t)
	self := make(chan *task.Task[none], 1)
	tk := goTo(ctx, func(ctx context.Context) error { _, err := (<-self).Wait(ctx); return err })
	self <- tk
	require.ErrorIs(t, waitFor(tk), deadlock.ErrDeadlock)
}

// A ctx that has ended before: as with ToThread nothing is made of it.
func TestGoEndedCtx(t *testing.T) {
	for name, base := range map[string]func(context.Context) context.Context{
		"context": func(ctx context.Context) context.Context { return ctx },
		"default": func(context.Context) context.Context { return context.Background() },
	} {
		t.Run(name, func(t *testing.T) {
			guard(t)
			log := listen(t)
			ctx, tsc := newContext(t)
			ended, cancel := context.WithCancelCause(base(ctx))
			cancel(errCause)
			before := asyncsync.ReadStats().Cancelled
			tk := goTo(ended, neverRuns(t))
			<-tk.Done()
			require.Same(t, errCause, waitFor(tk))
			require.False(t, tk.Cancel(nil))
			require.Zero(t, log.Count("queued")+log.Count("ended"))
			require.Zero(t, tsc.Stats().Thread, "nor a thread taken")
			require.Equal(t, before+1, asyncsync.ReadStats().Cancelled)
		})
	}
}

// Cancel takes a task out of the queue at once, while the thread is busy.
func TestGoCancelQueued(t *testing.T) {
	eachKind(t, func(t *testing.T, opts ...asyncsync.ContextOption) {
		log := listen(t)
		ctx, tsc := newContext(t, opts...)
		release, r := occupy(ctx)
		var tasks []*task.Task[none]
		for range 10 {
			tasks = append(tasks, goTo(ctx, neverRuns(t), asyncsync.Named("queued")))
		}
		last := goTo(ctx, on(nil0))
		for i, tk := range tasks {
			require.Equal(t, 11-i, tsc.Stats().Queued)
			require.True(t, tk.Cancel(errCause))
			require.Equal(t, 10-i, tsc.Stats().Queued)
			<-tk.Done()
			require.Same(t, errCause, waitFor(tk))
			require.True(t, tk.Cancelled())
			require.False(t, tk.Cancel(nil), "twice")
		}
		require.Len(t, log.Named("ended", "queued"), 10)
		require.Empty(t, log.Named("started", "queued"))
		for _, i := range log.Named("ended", "queued") {
			require.Same(t, errCause, i.Err)
		}
		release()
		require.NoError(t, r.Wait().Err)
		require.NoError(t, waitFor(last))
		require.False(t, last.Cancel(nil), "it has ended")
	})
}

// Cancel while it runs: the function sees it, and its own result wins.
func TestGoCancelRunning(t *testing.T) {
	eachKind(t, func(t *testing.T, opts ...asyncsync.ContextOption) {
		ctx, _ := newContext(t, opts...)
		began := make(chan struct{})
		tk := goTo(ctx, func(ctx context.Context) error {
			close(began)
			<-ctx.Done()
			if context.Cause(ctx) != errCause {
				t.Error(context.Cause(ctx))
			}
			return errOwn
		})
		<-began
		require.True(t, tk.Cancel(errCause))
		require.False(t, tk.Cancel(errCause))
		require.Same(t, errOwn, waitFor(tk))
	})
}

// Whatever ends its ctx takes a task out at once.
func TestGoCtxEndsWhileQueued(t *testing.T) {
	type key struct{}
	// Each starts the task, and returns it with what is to end its ctx.
	ways := map[string]func(t *testing.T, ctx context.Context) (*task.Task[none], func()){
		"cancel": func(t *testing.T, ctx context.Context) (*task.Task[none], func()) {
			ctx, cancel := context.WithCancelCause(ctx)
			return goTo(ctx, neverRuns(t)), func() { cancel(errCause) }
		},
		"below cancel": func(t *testing.T, ctx context.Context) (*task.Task[none], func()) {
			ctx, cancel := context.WithCancelCause(ctx)
			return goTo(context.WithValue(ctx, key{}, 1), neverRuns(t)), func() { cancel(errCause) }
		},
		"deadline": func(t *testing.T, ctx context.Context) (*task.Task[none], func()) {
			ctx, cancel := context.WithTimeoutCause(ctx, time.Second, errCause)
			t.Cleanup(cancel)
			return goTo(ctx, neverRuns(t)), func() { time.Sleep(2 * time.Second) }
		},
		"above a task": func(t *testing.T, ctx context.Context) (*task.Task[none], func()) {
			ctx, cancel := context.WithCancelCause(ctx)
			outer := task.Go(ctx, func(ctx context.Context) (*task.Task[none], error) {
				return goTo(ctx, neverRuns(t)), nil
			})
			tk, _ := outer.Wait(context.Background())
			return tk, func() { cancel(errCause) }
		},
		"parent": func(t *testing.T, ctx context.Context) (*task.Task[none], func()) {
			started := make(chan *task.Task[none], 1)
			outer := task.Go(ctx, func(ctx context.Context) (none, error) {
				started <- goTo(ctx, neverRuns(t))
				<-ctx.Done()
				return none{}, nil
			})
			return <-started, func() { outer.Cancel(errCause) }
		},
		"derived from parent": func(t *testing.T, ctx context.Context) (*task.Task[none], func()) {
			started := make(chan *task.Task[none], 1)
			outer := task.Go(ctx, func(ctx context.Context) (none, error) {
				started <- goTo(context.WithValue(ctx, key{}, 1), neverRuns(t))
				<-ctx.Done()
				return none{}, nil
			})
			return <-started, func() { outer.Cancel(errCause) }
		},
		"group": func(t *testing.T, ctx context.Context) (*task.Task[none], func()) {
			_, g := task.NewGroup(ctx)
			started := make(chan *task.Task[none], 1)
			fail := make(chan struct{})
			g.Go(func(ctx context.Context) error {
				started <- goTo(ctx, neverRuns(t))
				<-fail
				return errCause
			})
			return <-started, func() { close(fail) }
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			guard(t)
			synctest.Test(t, func(t *testing.T) {
				ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
				release, r := occupy(ctx)
				tk, end := way(t, ctx)
				synctest.Wait()
				require.Equal(t, 1, tsc.Stats().Queued)
				end()
				synctest.Wait()
				require.Zero(t, tsc.Stats().Queued, "the thread is still busy")
				<-tk.Done()
				err := waitFor(tk)
				if name != "group" {
					require.Same(t, errCause, err)
				}
				require.Error(t, err)
				require.False(t, tk.Cancelled(), "nobody has called Cancel")
				release()
				require.NoError(t, r.Wait().Err)
				require.NoError(t, tsc.Close())
			})
		})
	}
}

// A function's end cancels none of what it has left behind, queued or not, and
// what has been left behind is cancelled like anything else.
func TestGoOutlivesItsStarter(t *testing.T) {
	starters := map[string]func(ctx context.Context, fn func(context.Context) error){
		"task": func(ctx context.Context, fn func(context.Context) error) {
			task.Go(ctx, func(ctx context.Context) (none, error) { return none{}, fn(ctx) }).Wait(ctx)
		},
		"task of a task": func(ctx context.Context, fn func(context.Context) error) {
			task.Go(ctx, func(ctx context.Context) (none, error) {
				return task.Go(ctx, func(ctx context.Context) (none, error) { return none{}, fn(ctx) }).Wait(ctx)
			}).Wait(ctx)
		},
		"another thread": func(ctx context.Context, fn func(context.Context) error) {
			_, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
			defer tsc.Close()
			waitFor(goTo(ctx, fn, asyncsync.On(tsc)))
		},
		"async": func(ctx context.Context, fn func(context.Context) error) {
			_, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
			defer tsc.Close()
			to(ctx, func(ctx context.Context) error { return from(ctx, fn) }, asyncsync.On(tsc))
		},
	}
	for name, begin := range starters {
		t.Run(name, func(t *testing.T) {
			guard(t)
			synctest.Test(t, func(t *testing.T) {
				base, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
				ctx, cancel := context.WithCancelCause(base)
				release, r := occupy(base)
				var tk, late, never *task.Task[none]
				var own context.Context
				begin(ctx, func(ctx context.Context) error {
					own = ctx
					tk = goTo(ctx, func(ctx context.Context) error { return ctx.Err() }, asyncsync.On(tsc))
					never = goTo(ctx, neverRuns(t), asyncsync.On(tsc))
					return nil
				})
				late = goTo(own, func(ctx context.Context) error { return ctx.Err() }, asyncsync.On(tsc))
				synctest.Wait()
				require.Equal(t, 3, tsc.Stats().Queued)
				require.True(t, never.Cancel(errCause))
				require.Equal(t, 2, tsc.Stats().Queued)
				release()
				require.NoError(t, waitFor(tk))
				require.NoError(t, waitFor(late), "started after the end of it")
				require.NoError(t, r.Wait().Err)

				// What it hangs from is what is above.
				release, r = occupy(base)
				gone := goTo(own, neverRuns(t), asyncsync.On(tsc))
				cancel(errCause)
				synctest.Wait()
				require.Zero(t, tsc.Stats().Queued)
				require.Same(t, errCause, waitFor(gone))
				release()
				require.NoError(t, r.Wait().Err)
				require.NoError(t, tsc.Close())
			})
		})
	}
}

// A parent that is cancelled at any moment of Go.
func TestGoRacesWithCancelOfParent(t *testing.T) {
	eachKind(t, func(t *testing.T, opts ...asyncsync.ContextOption) {
		ctx, tsc := newContext(t, opts...)
		rounds := 500
		if testing.Short() {
			rounds = 50
		}
		for range rounds {
			var ran atomic.Int64
			began := make(chan struct{})
			parent := task.Go(ctx, func(ctx context.Context) (tasks []*task.Task[none], err error) {
				close(began)
				for range 20 {
					tasks = append(tasks, goTo(ctx, func(context.Context) error { ran.Add(1); return errOwn }))
				}
				return tasks, nil
			})
			<-began
			cancelled := parent.Cancel(errCause)
			tasks, err := parent.Wait(context.Background())
			require.NoError(t, err)
			own := int64(0)
			for _, tk := range tasks {
				switch err := waitFor(tk); err {
				case errOwn:
					own++
				case errCause:
					require.True(t, cancelled)
				default:
					require.NoError(t, err)
				}
			}
			require.Equal(t, own, ran.Load())
		}
		require.Zero(t, tsc.Stats().Queued)
	})
}

// A parent that is cancelled when the task is no child of it yet, and then when
// it is not queued yet: it does not stay in the queue for that.
func TestGoParentIsCancelledMeanwhile(t *testing.T) {
	guard(t)
	ctx, tsc := newContext(t)
	release, r := occupy(ctx)
	var told atomic.Int64
	queue := make(chan *task.Task[none], 1)
	parent := make(chan *task.Task[none], 1)
	defer asyncsync.SetHooks(asyncsync.Hooks{
		Queued: func(i asyncsync.CallInfo) {
			if i.Name == "late" {
				(<-parent).Cancel(errCause)
			}
		},
		Ended: func(i asyncsync.CallInfo) {
			if i.Name == "late" {
				told.Add(1)
			}
		},
	})()
	parent <- task.Go(ctx, func(ctx context.Context) (none, error) {
		tk := goTo(ctx, neverRuns(t), asyncsync.Named("late"))
		if n := tsc.Stats().Queued; n != 0 {
			t.Errorf("%d are queued", n)
		}
		queue <- tk
		return none{}, nil
	})
	require.Same(t, errCause, waitFor(<-queue))
	require.EqualValues(t, 1, told.Load())
	release()
	require.NoError(t, r.Wait().Err)
}

// A thread that comes to a task before those do who were to take it out of the
// queue: on one processor, most of the time.
func TestGoThreadComesFirst(t *testing.T) {
	guard(t)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	log := listen(t)
	ctx, _ := newContext(t)
	const times = 20
	for range times {
		require.NoError(t, to(ctx, func(ctx context.Context) error {
			inner, cancel := context.WithCancelCause(ctx)
			tk := goTo(inner, neverRuns(t), asyncsync.Named("late"))
			cancel(errCause)
			if err := waitFor(tk); err != errCause {
				t.Error(err)
			}
			return nil
		}))
	}
	require.Len(t, log.Named("ended", "late"), times)
	require.Empty(t, log.Named("started", "late"))
}

// Whatever happens at the same time, a task runs or is refused, once, its waiters
// learn which, and the hooks too.
func TestGoEitherOr(t *testing.T) {
	eachKind(t, func(t *testing.T, opts ...asyncsync.ContextOption) {
		log := listen(t)
		rounds := 20
		if testing.Short() {
			rounds = 4
		}
		total := 0
		for round := range rounds {
			ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), append(opts[:len(opts):len(opts)], asyncsync.QueueLimit(64))...)
			cancellable, cancel := context.WithCancelCause(ctx)
			const callers, calls = 4, 50
			var ran [callers][calls]atomic.Int64
			var all sync.WaitGroup
			for me := range callers {
				all.Go(func() {
					r := rand.New(rand.NewPCG(uint64(me), uint64(round)))
					var tasks []*task.Task[none]
					for i := range calls {
						in := ctx
						if r.IntN(2) == 0 {
							in = cancellable
						}
						tk := goTo(in, func(context.Context) error { ran[me][i].Add(1); return errOwn }, asyncsync.Named("either"))
						if r.IntN(4) == 0 {
							tk.Cancel(errCause)
						}
						tasks = append(tasks, tk)
					}
					for i, tk := range tasks {
						err := waitFor(tk)
						n := ran[me][i].Load()
						switch {
						case err == errOwn && n == 1:
						case n == 0 && (err == errCause || errors.Is(err, asyncsync.ErrQueueFull) || errors.Is(err, asyncsync.ErrClosed)):
						default:
							t.Errorf("%v, and it has run %d times", err, n)
						}
					}
				})
			}
			all.Go(func() {
				for range round % 7 {
					tsc.Stats()
					deadlock.Take()
					asyncsync.ReadStats()
				}
				switch round % 3 {
				case 0:
					cancel(errCause)
				case 1:
					if err := tsc.Close(); err != nil {
						t.Error(err)
					}
				case 2:
					ended, cancel := context.WithCancel(context.Background())
					cancel()
					tsc.Shutdown(ended)
				}
			})
			all.Wait()
			cancel(nil)
			require.NoError(t, tsc.Close())
			require.Zero(t, tsc.Stats().Queued)
			total += callers * calls
		}
		queued, ended := len(log.Named("queued", "either")), len(log.Named("ended", "either"))
		require.Equal(t, queued, ended, "the hooks hear of the end of what they have heard of")
		require.LessOrEqual(t, queued, total)
	})
}

func TestGoQueueLimit(t *testing.T) {
	guard(t)
	log := listen(t)
	ctx, _ := newContext(t, asyncsync.QueueLimit(2))
	release, r := occupy(ctx)
	a, b := goTo(ctx, on(nil0)), goTo(ctx, neverRuns(t))
	full := goTo(ctx, neverRuns(t), asyncsync.Named("full"))
	<-full.Done()
	require.ErrorIs(t, waitFor(full), asyncsync.ErrQueueFull)
	require.Len(t, log.Named("queued", "full"), 1)
	require.Len(t, log.Named("ended", "full"), 1)
	require.ErrorIs(t, log.Named("ended", "full")[0].Err, asyncsync.ErrQueueFull)
	require.True(t, b.Cancel(nil)) // makes room
	c := goTo(ctx, on(nil0))
	release()
	for _, err := range []error{r.Wait().Err, waitFor(a), waitFor(c)} {
		require.NoError(t, err)
	}
	require.ErrorIs(t, waitFor(b), context.Canceled)

	// What a function on the thread waits for is exempt.
	require.NoError(t, to(ctx, func(ctx context.Context) error {
		return from(ctx, func(ctx context.Context) error {
			var all []*task.Task[none]
			for range 10 {
				all = append(all, goTo(ctx, on(nil0)))
			}
			for _, tk := range all {
				if err := waitFor(tk); err != nil {
					return err
				}
			}
			return nil
		})
	}))
}

// Close waits for what is queued, and runs it; later ones are refused.
func TestGoClose(t *testing.T) {
	eachKind(t, func(t *testing.T, opts ...asyncsync.ContextOption) {
		log := listen(t)
		ctx, tsc := newContext(t, opts...)
		release, r := occupy(ctx)
		n := 0 // of the thread
		var tasks []*task.Task[none]
		for range 10 {
			tasks = append(tasks, goTo(ctx, func(context.Context) error { n++; return nil }))
		}
		closed := start(tsc.Close)
		poll(t, func() string {
			if !tsc.Stats().Closed {
				return "is not closed"
			}
			return ""
		})
		late := goTo(ctx, neverRuns(t), asyncsync.Named("late"))
		require.ErrorIs(t, waitFor(late), asyncsync.ErrClosed)
		require.Len(t, log.Named("ended", "late"), 1)
		require.False(t, closed.Over())
		release()
		require.NoError(t, r.Wait().Err)
		require.NoError(t, closed.Wait().Err)
		require.Equal(t, 10, n)
		for _, tk := range tasks {
			require.NoError(t, waitFor(tk))
		}
		require.ErrorIs(t, waitFor(goTo(ctx, neverRuns(t))), asyncsync.ErrClosed)
	})
}

// After a Shutdown that gave up tasks that have not begun are refused, and the
// hooks are told.
func TestGoShutdown(t *testing.T) {
	eachKind(t, func(t *testing.T, opts ...asyncsync.ContextOption) {
		log := listen(t)
		ctx, tsc := newContext(t, opts...)
		release, r := occupy(ctx)
		var tasks []*task.Task[none]
		for range 5 {
			tasks = append(tasks, goTo(ctx, neverRuns(t), asyncsync.Named("queued")))
		}
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		require.ErrorIs(t, tsc.Shutdown(ended), context.Canceled)
		for _, tk := range tasks {
			<-tk.Done()
			require.ErrorIs(t, waitFor(tk), asyncsync.ErrClosed)
		}
		require.Len(t, log.Named("ended", "queued"), 5)
		require.Empty(t, log.Named("started", "queued"))
		release()
		require.NoError(t, r.Wait().Err)
		require.NoError(t, tsc.Close())
	})
}

// A hook that is told of a refused task, and does not return, ends the task, and
// keeps no other from its end.
func TestGoHookOfRefusedTask(t *testing.T) {
	for _, e := range ends[1:] {
		t.Run(e.How, func(t *testing.T) {
			guard(t)
			defer asyncsync.SetHooks(asyncsync.Hooks{Ended: func(i asyncsync.CallInfo) {
				if i.Name == "victim" {
					e.Do()
				}
			}})()
			ctx, tsc := newContext(t)
			home := threadOf(t, ctx)
			release, r := occupy(ctx)
			cancelled := goTo(ctx, neverRuns(t), asyncsync.Named("victim"))
			outcomeOf(func() error { cancelled.Cancel(nil); return nil }) // may be the hook's
			<-cancelled.Done()
			e.CheckIs(t, outcomeOf(func() error { return waitFor(cancelled) }))
			require.Equal(t, home, func() place { release(); r.Wait(); return threadOf(t, ctx) }())

			release, r = occupy(ctx)
			victim := goTo(ctx, neverRuns(t), asyncsync.Named("victim"))
			other := goTo(ctx, neverRuns(t))
			ended, cancel := context.WithCancel(context.Background())
			cancel()
			outcomeOf(func() error { return tsc.Shutdown(ended) })
			e.CheckIs(t, outcomeOf(func() error { return waitFor(victim) }))
			require.ErrorIs(t, waitFor(other), asyncsync.ErrClosed)
			release()
			require.NoError(t, r.Wait().Err)
			require.NoError(t, tsc.Close())
			e.CheckIs(t, outcomeOf(func() error {
				return waitFor(goTo(ctx, neverRuns(t), asyncsync.Named("victim")))
			}))
		})
	}
}

// The function has a fork of the local variables of the caller of Go, and the
// thread-critical ones of the thread.
func TestGoLocals(t *testing.T) {
	eachKind(t, func(t *testing.T, opts ...asyncsync.ContextOption) {
		v := local.New[int]()
		critical := local.New[int](local.ThreadCritical())
		ctx, _ := newContext(t, opts...)
		defer v.Set(1)()
		release, r := occupy(ctx)
		tk := asyncsync.Go(ctx, func(context.Context) (int, error) {
			got, _ := v.Get()
			v.Set(100)
			critical.Set(7)
			return got, nil
		})
		v.Set(2) // the fork has been made
		release()
		require.NoError(t, r.Wait().Err)
		got, err := tk.Wait(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, got)
		got, _ = v.Get()
		require.Equal(t, 2, got, "nothing comes back")
		_, ok := critical.Get()
		require.False(t, ok)
		got, err = asyncsync.Go(ctx, func(context.Context) (int, error) {
			got, _ := critical.Get()
			other, _ := v.Get()
			return 10*got + other, nil
		}).Wait(ctx)
		require.NoError(t, err)
		require.Equal(t, 72, got, "the thread's own, and the starter's")
	})
}

// Interrupt is called when the ctx ends while fn runs, not while it is queued.
func TestGoInterrupt(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t)
	stop := make(chan struct{})
	var times atomic.Int64
	interrupt := asyncsync.InterruptOnce(func() { times.Add(1); close(stop) })
	began := make(chan struct{})
	tk := goTo(ctx, func(context.Context) error { close(began); <-stop; return errOwn }, interrupt)
	<-began
	queued := goTo(ctx, neverRuns(t), asyncsync.Interrupt(func() { t.Error("interrupted in the queue") }))
	require.True(t, queued.Cancel(nil))
	require.ErrorIs(t, waitFor(queued), context.Canceled)
	require.True(t, tk.Cancel(nil))
	require.Same(t, errOwn, waitFor(tk))
	require.EqualValues(t, 1, times.Load())
}

// One who stops waiting leaves the task alone; one who cancels waits on.
func TestGoAbandonedWait(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t)
	release, r := occupy(ctx)
	tk := asyncsync.Go(ctx, func(context.Context) (int, error) { return 7, nil })
	ended, cancel := context.WithCancelCause(context.Background())
	cancel(errCause)
	_, err := tk.Wait(ended)
	require.Same(t, errCause, err)
	gone := goTo(ctx, neverRuns(t))
	_, err = gone.WaitOrCancel(ended)
	require.Same(t, errCause, err)
	release()
	require.NoError(t, r.Wait().Err)
	got, err := tk.Wait(ended) // it has not, perhaps, but will
	if err != nil {
		require.Same(t, errCause, err)
		got, err = tk.Wait(ctx)
	}
	require.NoError(t, err)
	require.Equal(t, 7, got)
}

// Queued, started, ended, in that order, with the names and times of calls.
func TestGoHooks(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		log := listen(t)
		type key struct{}
		base, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("the context"))
		ctx := context.WithValue(base, key{}, "value")
		first := goTo(ctx, func(context.Context) error { time.Sleep(3 * time.Second); return nil }, asyncsync.Named("first"))
		second := asyncsync.Go(ctx, namedForHooks)
		time.Sleep(2 * time.Second)
		taken := goTo(ctx, neverRuns(t), asyncsync.Named("taken"))
		time.Sleep(500 * time.Millisecond)
		require.True(t, taken.Cancel(errCause))
		require.NoError(t, waitFor(first))
		second.Wait(ctx)
		require.NoError(t, tsc.Close())

		require.Equal(t, 3, log.Count("queued"))
		require.Equal(t, 2, log.Count("started"))
		require.Equal(t, 3, log.Count("ended"))
		for _, what := range []string{"queued", "started", "ended"} {
			for _, i := range log.Told(what) {
				require.Equal(t, "the context", i.Context)
				require.Equal(t, "value", i.Ctx.Value(key{}))
				require.False(t, i.Inline)
			}
		}
		require.Equal(t, 3*time.Second, log.Named("ended", "first")[0].RunTime)
		require.Equal(t, 500*time.Millisecond, log.Named("ended", "taken")[0].QueueTime)
		last := log.Told("ended")[2]
		require.True(t, strings.HasSuffix(last.Name, ".namedForHooks"), last.Name)
		require.Equal(t, 3*time.Second, last.QueueTime)
	})
}

// In a bubble, on a context's thread and on the default one.
func TestGoBubble(t *testing.T) {
	inAndOut(t, func(t *testing.T) {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
		for _, ctx := range []context.Context{ctx, context.Background()} {
			var tasks []*task.Task[int]
			for i := range 10 {
				tasks = append(tasks, asyncsync.Go(ctx, func(ctx context.Context) (int, error) {
					time.Sleep(time.Millisecond)
					return asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) {
						return asyncsync.ToThread(ctx, func(context.Context) (int, error) { return i, nil })
					})
				}))
			}
			for i, tk := range tasks {
				got, err := tk.Wait(context.Background())
				require.NoError(t, err)
				require.Equal(t, i, got)
			}
		}
		require.NoError(t, tsc.Close())
	})
}

// On a caller that has become a thread: served while it waits, run at its end at
// the latest, and afterwards the default thread's.
func TestGoOnAdoptedCaller(t *testing.T) {
	guard(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home := here()
	var left, late *task.Task[place]
	var own context.Context
	require.NoError(t, from(context.Background(), func(ctx context.Context) error {
		own = ctx
		p, err := asyncsync.Go(ctx, whereabouts).Wait(ctx)
		require.Equal(t, home, p)
		waited := make(chan struct{})
		block := goTo(ctx, func(context.Context) error { <-waited; return nil })
		left = asyncsync.Go(ctx, whereabouts)
		close(waited)
		require.NoError(t, waitFor(block))
		return err
	}))
	select {
	case <-left.Done():
	default:
		t.Error("left behind when the thread is none any more")
	}
	p, err := left.Wait(own)
	require.NoError(t, err)
	require.Equal(t, home, p)
	late = asyncsync.Go(own, whereabouts)
	p, err = late.Wait(own)
	require.NoError(t, err)
	require.Equal(t, threadOf(t, context.Background()), p)
}

func TestGoMisuse(t *testing.T) {
	guard(t)
	ctx, tsc := newContext(t)
	var nilCtx context.Context
	l := asyncsync.NewCurrentThreadExecutor()
	for name, misuse := range map[string]func(){
		"nil ctx":         func() { goTo(nilCtx, on(nil0)) },
		"nil function":    func() { asyncsync.Go[int](ctx, nil) },
		"nil option":      func() { goTo(ctx, on(nil0), nil) },
		"Insensitive":     func() { goTo(ctx, on(nil0), asyncsync.Insensitive()) },
		"Abandon":         func() { goTo(ctx, on(nil0), asyncsync.Abandon()) },
		"executor":        func() { goTo(ctx, on(nil0), asyncsync.WithExecutor(l)) },
		"limiter":         func() { goTo(ctx, on(nil0), asyncsync.WithLimiter(limiter)) },
		"both":            func() { goTo(ctx, on(nil0), asyncsync.Insensitive(), asyncsync.WithLimiter(limiter)) },
		"SameThread":      func() { goTo(ctx, on(nil0), asyncsync.SameThread()) },
		"On, Insensitive": func() { goTo(ctx, on(nil0), asyncsync.On(tsc), asyncsync.Insensitive()) },
	} {
		t.Run(name, func(t *testing.T) {
			requireMisusePanic(t, misuse)
			require.Contains(t, fmt.Sprint(panicOf(misuse)), "Go: ")
		})
	}
	require.Zero(t, tsc.Stats().Queued)
}

// A queued task has no goroutine.
func TestGoStartsNoGoroutine(t *testing.T) {
	guard(t)
	above, cancel := context.WithCancel(context.Background())
	defer cancel()
	base, _ := newContext(t)
	release, r := occupy(base)
	_, tsc := newContext(t)
	for name, ctx := range map[string]context.Context{"plain": base, "cancellable": above} {
		opts := []asyncsync.Option{}
		if name == "cancellable" {
			threadOf(t, context.Background())
			opts = append(opts, asyncsync.On(tsc))
			release2, r2 := occupy(context.Background(), opts...)
			defer func() { release2(); r2.Wait() }()
		}
		before := runtime.NumGoroutine()
		var tasks []*task.Task[none]
		for range 1000 {
			tasks = append(tasks, goTo(ctx, on(nil0), opts...))
		}
		require.Less(t, runtime.NumGoroutine(), before+10, name)
		for _, tk := range tasks[:500] {
			tk.Cancel(nil)
		}
		_ = tasks
	}
	release()
	require.NoError(t, r.Wait().Err)
}

// A watchedCtx is a foreign ctx that counts who wants to be told of its end.
type watchedCtx struct {
	context.Context
	now, ever atomic.Int64
}

func (w *watchedCtx) AfterFunc(f func()) (stop func() bool) {
	w.now.Add(1)
	w.ever.Add(1)
	unwatch := context.AfterFunc(w.Context, f)
	var once sync.Once
	return func() bool {
		once.Do(func() { w.now.Add(-1) })
		return unwatch()
	}
}

// Value hides from package context what it is that w wraps.
func (w *watchedCtx) Value(any) any { return nil }

// A ctx that lives long keeps nothing of the tasks that have ended, or were
// refused, and is asked once for each.
func TestGoLeavesNothingInCtx(t *testing.T) {
	guard(t)
	forever, cancel := context.WithCancel(context.Background())
	defer cancel()
	up := &watchedCtx{Context: forever}
	_, tsc := newContext(t, asyncsync.QueueLimit(100))
	on1 := asyncsync.On(tsc)
	for range 100 {
		var tasks []*task.Task[none]
		for i := range 100 {
			tk := goTo(up, on(nil0), on1)
			if i%3 == 0 {
				tk.Cancel(nil)
			}
			tasks = append(tasks, tk)
		}
		for _, tk := range tasks {
			waitFor(tk)
		}
		require.Zero(t, up.now.Load())
	}
	require.LessOrEqual(t, up.ever.Load(), int64(100*100))
	release, r := occupy(context.Background(), on1)
	for range 200 {
		goTo(up, on(nil0), on1)
	}
	require.EqualValues(t, 1, up.now.Load(), "one watch serves all that wait")
	ended, cancelShutdown := context.WithCancel(context.Background())
	cancelShutdown()
	require.Error(t, tsc.Shutdown(ended))
	require.Zero(t, up.now.Load())
	release()
	require.NoError(t, r.Wait().Err)
	goTo(up, on(nil0), on1)
	require.Zero(t, up.now.Load())
}

// What a task of a thread may allocate: itself and its life, and when it runs the rest of
// both, its ctx, the layer that Cancel ends with its cancel function and cause, the channel
// of Done, the wait, and, where the ctx can end, the watch over it.
func TestGoAllocs(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	fn := func(context.Context) (int, error) { return 1, nil }
	above, cancel := context.WithCancel(context.Background())
	defer cancel()
	for name, c := range map[string]struct {
		root   context.Context
		budget float64
	}{
		"plain":       {context.Background(), goAllocs},
		"cancellable": {above, goAllocsCancellable},
	} {
		for kind, opts := range kinds {
			t.Run(name+"/"+kind, func(t *testing.T) {
				guard(t)
				ctx, tsc := asyncsync.NewThreadSensitiveContext(c.root, opts...)
				defer tsc.Close()
				got := allocsPerRun(func() {
					if n, err := asyncsync.Go(ctx, fn).Wait(c.root); n != 1 || err != nil {
						panic(err)
					}
				})
				t.Logf("%v allocations", got)
				require.LessOrEqual(t, got, c.budget)
			})
		}
	}
}

const goAllocs, goAllocsCancellable = 10, 14

// What a task takes while it is queued: itself and its life, and, where the ctx can
// end, its link to the watch over that.
func TestQueuedGoBytes(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	above, cancel := context.WithCancel(context.Background())
	defer cancel()
	for name, c := range map[string]struct {
		root   context.Context
		budget int64
	}{
		"plain":       {context.Background(), 192 + 144},
		"cancellable": {above, 192 + 144 + 32},
	} {
		t.Run(name, func(t *testing.T) {
			guard(t)
			ctx, tsc := asyncsync.NewThreadSensitiveContext(c.root)
			release, holder := occupy(ctx)
			const n = 20_000
			tasks := make([]*task.Task[int], n)
			fn := func(context.Context) (int, error) { return 1, nil }
			before := liveBytes()
			for i := range tasks {
				tasks[i] = asyncsync.Go(ctx, fn)
			}
			got := (liveBytes() - before) / n
			t.Logf("%d bytes", got)
			require.LessOrEqual(t, got, c.budget+1) // what else happens meanwhile is no task's
			release()
			require.NoError(t, holder.Wait().Err)
			for _, tk := range tasks {
				_, err := tk.Wait(c.root)
				require.NoError(t, err)
			}
			require.NoError(t, tsc.Close())
		})
	}
}

// liveBytes returns how many bytes are in use after a collection.
func liveBytes() int64 {
	runtime.GC()
	runtime.GC() // what pools keep goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
