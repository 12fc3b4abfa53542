package task_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/local"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

var (
	errMine = errors.New("the error that was returned")
	errWhy  = errors.New("the cause of a cancellation")
)

// onBackends runs a test as the main function of each kind of backend.
func onBackends(t *testing.T, test func(t *testing.T, ctx context.Context, b loop.Backend)) {
	for _, kind := range libkit.Backends {
		t.Run(kind, func(t *testing.T) {
			guard(t)
			leavesNothing(t)
			b := libkit.NewBackend(t, kind)
			assert.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
				test(t, ctx, b)
				return nil
			}))
		})
	}
}

// comes waits for ch: a task parks.
func comes(ctx context.Context, ch <-chan struct{}) error {
	b, ok := loop.Current(ctx)
	if !ok {
		b = loop.Goroutines() // blocks
	}
	return libkit.Receive(ctx, b, ch)
}

// yield lets the other tasks of the loop run.
func yield(ctx context.Context) {
	b, _ := loop.Current(ctx)
	_ = libkit.Yield(ctx, b)
}

// on is a function that checks that it runs as a task of b.
func on(t *testing.T, b loop.Backend, fn func(ctx context.Context) (int, error)) func(ctx context.Context) (int, error) {
	return func(ctx context.Context) (int, error) {
		got, ok := loop.Current(ctx)
		if assert.True(t, ok, "it is no task") {
			assert.Same(t, b, got)
		}
		return fn(ctx)
	}
}

// never is a function that must not begin.
func never(t *testing.T) func(context.Context) (int, error) {
	return func(context.Context) (int, error) { t.Error("has begun"); return 0, nil }
}

// Each ending of a task, on each backend, reaches each kind of waiter.
func TestGoOnALoop_Endings(t *testing.T) {
	for _, kind := range libkit.Backends {
		for _, e := range testkit.Ends {
			t.Run(kind+"/"+e.How, func(t *testing.T) {
				guard(t)
				leavesNothing(t)
				b, other := running(t, libkit.NewBackend(t, kind)), running(t, loop.NewThread())
				bg := context.Background()
				start := func() *task.Task[int] {
					return task.Go(bg, on(t, b, func(ctx context.Context) (int, error) {
						yield(ctx)
						return 7, e.Do()
					}), task.On(b))
				}
				wait := func(ctx context.Context, tk *task.Task[int]) {
					e.Check(t, endingOfHere(func() error { _, err := tk.Wait(ctx); return err }))
				}
				wait(bg, start())
				for _, l := range []loop.Backend{b, other} {
					_, err := loop.Call(bg, l, func(ctx context.Context) (int, error) {
						wait(ctx, start())
						tk := start()
						wait(ctx, task.Go(ctx, func(ctx context.Context) (int, error) { return tk.Wait(ctx) }))
						return 0, nil
					})
					assert.NoError(t, err)
				}
				assert.NoError(t, toThread(bg, func(ctx context.Context) { wait(ctx, start()) }))
			})
		}
	}
}

// endingOfHere says how fn ends, for a caller that may be a task: then fn runs as a task
// of the same loop.
func endingOfHere(fn func() error) (o testkit.Outcome) {
	b, ok := loop.Current(context.Background())
	if !ok {
		return testkit.OutcomeOf(fn)
	}
	ended := make(chan struct{})
	err := b.Spawn(context.Background(), func(context.Context) {
		defer close(ended)
		o.Record(fn)
	})
	if err != nil {
		panic(err)
	}
	_ = comes(context.Background(), ended)
	return o
}

// Tasks of a thread loop need no lock, and are pooled: their number is not that of
// the goroutines that are left.
func TestGoOnALoop_TakesTurns(t *testing.T) {
	guard(t)
	leavesNothing(t)
	b := loop.NewThread()
	n := 0
	require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
		for range 50 {
			var all []*task.Task[int]
			for range 20 {
				all = append(all, task.Go(ctx, on(t, b, func(ctx context.Context) (int, error) {
					was := n
					n++
					assert.Equal(t, was+1, n)
					yield(ctx)
					return n, nil
				})))
			}
			for _, tk := range all {
				_, err := tk.Wait(ctx)
				assert.NoError(t, err)
			}
		}
		return nil
	}))
	require.Equal(t, 1000, n)
}

// A task starts with a fork of the values of the code that starts it.
func TestGoOnALoop_Locals(t *testing.T) {
	v := local.New[int]()
	onBackends(t, func(t *testing.T, ctx context.Context, b loop.Backend) {
		v.Set(1)
		defer v.Delete()
		_, err := task.Go(ctx, on(t, b, func(ctx context.Context) (int, error) {
			n, _ := v.Get()
			assert.Equal(t, 1, n)
			v.Set(2)
			yield(ctx)
			n, _ = v.Get()
			assert.Equal(t, 2, n)
			return 0, nil
		})).Wait(ctx)
		assert.NoError(t, err)
		n, _ := v.Get()
		assert.Equal(t, 1, n)
	})
}

// The hooks are told of tasks of a loop as of others.
func TestGoOnALoop_Hooks(t *testing.T) {
	onBackends(t, func(t *testing.T, ctx context.Context, b loop.Backend) {
		var j journal
		told := func(what string) func(core.CallInfo) {
			return func(i core.CallInfo) { j.add(fmt.Sprint(what, " ", i.Name, " ", i.Err, " ", i.Panic, " ", i.Goexit)) }
		}
		defer core.SetHooks(core.Hooks{Queued: told("queued"), Started: told("started"), Ended: told("ended"), Panicked: told("panicked")})()
		for _, e := range testkit.Ends {
			_ = endingOfHere(func() error {
				_, err := task.Go(ctx, on(t, b, func(context.Context) (int, error) { return 0, e.Do() }), task.Named(e.How)).Wait(context.Background())
				return err
			})
		}
		tk := task.Go(ctx, never(t), task.On(loop.NewThread()), task.Named("never"))
		tk.Cancel(errWhy)
		_, err := tk.Wait(ctx)
		assert.Same(t, errWhy, err)
		why, mine, boom := errWhy.Error(), testkit.ErrEnd.Error(), http.ErrAbortHandler.Error()
		assert.Equal(t, []string{
			"queued return <nil> <nil> false", "started return <nil> <nil> false", "ended return " + mine + " <nil> false",
			"queued panic <nil> <nil> false", "started panic <nil> <nil> false", "panicked panic <nil> " + boom + " false", "ended panic <nil> " + boom + " false",
			"queued goexit <nil> <nil> false", "started goexit <nil> <nil> false", "ended goexit <nil> <nil> true",
			"queued never <nil> <nil> false", "ended never " + why + " <nil> false",
		}, ours(j.read()))
	})
}

// ours leaves out what the calls of a test's own have told.
func ours(lines []string) (left []string) {
	for _, l := range lines {
		var what, name string
		_, _ = fmt.Sscan(l, &what, &name)
		switch name {
		case "return", "panic", "goexit", "never":
			left = append(left, l)
		}
	}
	return left
}

// A hook that fails is how the task has ended; the loop goes on.
func TestGoOnALoop_HooksThatFail(t *testing.T) {
	for _, e := range testkit.Ends[1:] {
		for _, what := range []string{"started", "ended"} {
			t.Run(e.How+"/"+what, func(t *testing.T) {
				guard(t)
				leavesNothing(t)
				b := running(t, loop.NewThread())
				fail := func(i core.CallInfo) {
					if i.Name == "mine" {
						_ = e.Do()
					}
				}
				h := core.Hooks{Started: fail}
				if what == "ended" {
					h = core.Hooks{Ended: fail}
				}
				defer core.SetHooks(h)()
				for range 3 {
					tk := task.Go(context.Background(), func(context.Context) (int, error) { return 0, nil }, task.On(b), task.Named("mine"))
					e.Check(t, endingOf(func() { _, _ = tk.Wait(context.Background()) }))
				}
				_, err := loop.Call(context.Background(), b, func(context.Context) (int, error) { return 0, nil })
				assert.NoError(t, err)
			})
		}
	}
}

// A task that is cancelled before it has begun does not begin. Cancel tells its waiters
// the cause at once, also where the loop has not been run.
func TestGoOnALoop_CancelBeforeItBegins(t *testing.T) {
	guard(t)
	leavesNothing(t)
	bg := context.Background()
	tk := task.Go(bg, never(t), task.On(loop.NewThread()))
	require.True(t, tk.Cancel(errWhy))
	_, err := tk.Wait(bg)
	require.Same(t, errWhy, err)
	require.True(t, tk.Cancelled())
	require.False(t, tk.Cancel(errWhy))

	b := loop.NewThread()
	require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
		// The loop is busy with this function.
		tk := task.Go(ctx, never(t))
		assert.True(t, tk.Cancel(errWhy))
		_, err := tk.Wait(ctx)
		assert.Same(t, errWhy, err)

		over, cancel := context.WithCancelCause(ctx)
		tk = task.Go(over, never(t))
		cancel(errWhy)
		_, err = tk.Wait(ctx)
		assert.Same(t, errWhy, err, "its ctx has ended")
		_, err = task.Go(over, never(t)).Wait(ctx)
		assert.Same(t, errWhy, err, "its ctx had ended")

		// What a task has started with its own ctx is cancelled with it.
		var child *task.Task[int]
		tk = task.Go(ctx, func(ctx context.Context) (int, error) {
			child = task.Go(ctx, func(ctx context.Context) (int, error) { return 0, comes(ctx, nil) })
			return 0, comes(ctx, nil)
		})
		yield(ctx)
		yield(ctx)
		assert.True(t, tk.Cancel(errWhy))
		_, err = tk.Wait(ctx)
		assert.Same(t, errWhy, err)
		_, err = child.Wait(ctx)
		assert.Same(t, errWhy, err)
		return nil
	}))
}

// The end of a task cancels none that it has started.
func TestGoOnALoop_OutlivesItsStarter(t *testing.T) {
	onBackends(t, func(t *testing.T, ctx context.Context, b loop.Backend) {
		release := make(chan struct{})
		var child *task.Task[int]
		_, err := task.Go(ctx, func(ctx context.Context) (int, error) {
			child = task.Go(ctx, on(t, b, func(ctx context.Context) (int, error) { return 3, comes(ctx, release) }))
			return 0, nil
		}).Wait(ctx)
		assert.NoError(t, err)
		yield(ctx)
		close(release)
		n, err := child.Wait(ctx)
		assert.NoError(t, err)
		assert.Equal(t, 3, n)
	})
}

// What counts is the ctx: a goroutine that has come by a task's, and sync code that
// a task has called, start tasks of the loop.
func TestGoOnALoop_ByItsCtx(t *testing.T) {
	onBackends(t, func(t *testing.T, ctx context.Context, b loop.Backend) {
		leaked := make(chan *task.Task[int])
		go func() {
			_, ok := loop.Current(ctx)
			assert.False(t, ok)
			leaked <- task.Go(ctx, on(t, b, func(context.Context) (int, error) { return 1, nil }))
		}()
		n, err := (<-leaked).Wait(ctx)
		assert.NoError(t, err)
		assert.Equal(t, 1, n)

		// The thread serves while it waits for the task, and so for what that calls.
		assert.NoError(t, toThread(ctx, func(ctx context.Context) {
			served := false
			_, err := task.Go(ctx, on(t, b, func(ctx context.Context) (int, error) {
				return 0, toThread(ctx, func(context.Context) { served = true })
			})).Wait(ctx)
			assert.NoError(t, err)
			assert.True(t, served)
		}))
		_, err = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
			return task.Go(ctx, on(t, b, func(context.Context) (int, error) { return 0, nil })).Wait(ctx)
		}, asyncsync.Insensitive())
		assert.NoError(t, err)
	})
}

// A ctx derived from a task's, by hand or with a context of the library, leads to
// its loop.
func TestGoOnALoop_DerivedContexts(t *testing.T) {
	type key struct{}
	onBackends(t, func(t *testing.T, ctx context.Context, b loop.Backend) {
		started := func(ctx context.Context) {
			_, err := task.Go(ctx, on(t, b, func(context.Context) (int, error) { return 0, nil })).Wait(ctx)
			assert.NoError(t, err)
		}
		started(context.WithValue(ctx, key{}, 1))
		inner, cancel := context.WithCancel(ctx)
		started(inner)
		cancel()
		started(asyncsync.Detach(ctx))
		scoped, tsc := asyncsync.NewThreadSensitiveContext(ctx)
		started(scoped)
		assert.NoError(t, tsc.Close())
		gctx, g := task.NewGroup(ctx)
		started(gctx)
		assert.NoError(t, g.Wait(ctx))
		assert.NoError(t, toThread(context.WithValue(ctx, key{}, 1), func(ctx context.Context) {
			assert.NoError(t, fromThread(context.WithValue(ctx, key{}, 2), started))
		}))
	})
}

// On names another backend, or a loop that takes functions.
func TestOn(t *testing.T) {
	guard(t)
	leavesNothing(t)
	bg := context.Background()
	thread, goroutines := running(t, loop.NewThread()), running(t, loop.Goroutines())
	for _, from := range []loop.Backend{thread, goroutines} {
		for _, to := range []loop.Backend{thread, goroutines} {
			_, err := loop.Call(bg, from, func(ctx context.Context) (int, error) {
				_, err := task.Go(ctx, on(t, to, func(ctx context.Context) (int, error) {
					// Below it is the other one that is on.
					return task.Go(ctx, on(t, to, func(context.Context) (int, error) { return 0, nil })).Wait(ctx)
				}), task.On(to)).Wait(ctx)
				return 0, err
			})
			require.NoError(t, err)
		}
	}
	requireMisusePanic(t, func() { task.On(nil) })
}

// poster is somebody's loop: a goroutine that takes functions.
func poster(t *testing.T) (l loop.Loop, stop func()) {
	queue, done, stopped := make(chan func(), 64), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case fn := <-queue:
				fn()
			case <-done:
				return
			}
		}
	}()
	var once sync.Once
	stop = func() {
		once.Do(func() { close(done) })
		<-stopped
	}
	t.Cleanup(stop)
	return loop.FromPost(func(fn func()) error { queue <- fn; return nil }, done), stop
}

func TestOn_ALoopOfOthers(t *testing.T) {
	guard(t)
	leavesNothing(t)
	bg := context.Background()
	l, stop := poster(t)
	for _, e := range testkit.Ends {
		tk := task.Go(bg, func(ctx context.Context) (int, error) {
			_, ok := loop.Current(ctx)
			assert.False(t, ok)
			assert.ErrorIs(t, loop.NewThread().Park(ctx, func(func()) {}), loop.ErrOnLoop)
			// No task may wait there: it is none's backend.
			inner := task.Go(ctx, func(ctx context.Context) (int, error) {
				assert.NoError(t, loop.NewThread().Park(ctx, func(wake func()) { wake() }))
				return 0, nil
			})
			<-inner.Done()
			return 0, e.Do()
		}, task.On(l))
		e.Check(t, testkit.OutcomeOf(func() error { _, err := tk.Wait(bg); return err }))
	}
	// What has not begun when it stops does not begin.
	begun, release := make(chan struct{}), make(chan struct{})
	first := task.Go(bg, func(context.Context) (int, error) { close(begun); <-release; return 0, nil }, task.On(l))
	<-begun
	second := task.Go(bg, never(t), task.On(l))
	third := task.Go(bg, never(t), task.On(l))
	third.Cancel(errWhy)
	_, err := third.Wait(bg)
	require.Same(t, errWhy, err)
	go stop()
	_, err = second.Wait(bg)
	require.ErrorIs(t, err, loop.ErrStopped)
	close(release)
	_, err = first.Wait(bg)
	require.NoError(t, err)
	_, err = task.Go(bg, never(t), task.On(l)).Wait(bg)
	require.ErrorIs(t, err, loop.ErrStopped)
}

// somebodys is a Backend of somebody else.
type somebodys struct{ loop.Backend }

func TestOn_ABackendOfOthers(t *testing.T) {
	guard(t)
	leavesNothing(t)
	bg := context.Background()
	b := loop.NewThread()
	var left *task.Task[int]
	require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
		for _, e := range testkit.Ends {
			tk := task.Go(ctx, on(t, b, func(ctx context.Context) (int, error) { yield(ctx); return 0, e.Do() }), task.On(somebodys{b}))
			e.Check(t, endingOfHere(func() error { _, err := tk.Wait(bg); return err }))
		}
		left = task.Go(bg, func(ctx context.Context) (int, error) { return 0, comes(ctx, nil) }, task.On(somebodys{b}))
		yield(ctx)
		return nil
	}))
	_, err := left.Wait(bg)
	require.ErrorIs(t, err, loop.ErrStopped)
}

// When a backend stops, tasks that run are cancelled with ErrStopped, and waited
// for; those that have not begun do not.
func TestGoOnALoop_TheEnd(t *testing.T) {
	for _, kind := range libkit.Backends {
		t.Run(kind, func(t *testing.T) {
			guard(t)
			leavesNothing(t)
			b := libkit.NewBackend(t, kind)
			bg := context.Background()
			over, cancel := context.WithCancel(bg)
			defer cancel()
			var ctx context.Context
			var began, own, not, leftover *task.Task[int]
			ended := 0
			require.NoError(t, libkit.Run(context.Background(), b, func(c context.Context) error {
				ctx = c
				fn := func(ctx context.Context) (int, error) {
					err := comes(ctx, nil)
					if kind == "thread" {
						ended++
						yield(context.WithoutCancel(ctx))
					}
					return 0, err
				}
				began, own = task.Go(ctx, fn), task.Go(over, fn, task.On(b))
				yield(ctx)
				yield(ctx)
				if kind == "thread" {
					not = task.Go(ctx, never(t))
				}
				leftover = task.Go(ctx, func(ctx context.Context) (int, error) {
					return 0, context.Cause(ctx)
				}, task.On(loop.NewThread()))
				return nil
			}))
			for _, tk := range []*task.Task[int]{began, own, not} {
				if tk != nil {
					_, err := tk.Wait(bg)
					assert.Same(t, loop.ErrStopped, err)
				}
			}
			if kind == "thread" {
				assert.Equal(t, 2, ended)
			}
			leftover.Cancel(nil)
			_, err := task.Go(ctx, never(t)).Wait(bg)
			assert.Same(t, loop.ErrStopped, err, "the backend of that ctx has stopped")
			gctx, g := task.NewGroup(ctx)
			g.Go(func(context.Context) error { t.Error("has begun"); return nil })
			assert.ErrorIs(t, g.Wait(context.WithoutCancel(gctx)), loop.ErrStopped)
		})
	}
}

// A function that was abandoned and goes on when its loop has ended cannot start
// tasks there.
func TestGoOnALoop_AnAbandonedFunctionAtTheEnd(t *testing.T) {
	guard(t)
	leavesNothing(t)
	b := loop.NewThread()
	begun, goOn, told := make(chan struct{}), make(chan struct{}), make(chan error, 2)
	require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
		over, cancel := context.WithCancel(ctx)
		go func() {
			<-begun
			cancel()
		}()
		_, err := asyncsync.ToThread(over, func(ctx context.Context) (int, error) {
			close(begun)
			<-goOn
			ctx = context.WithoutCancel(ctx)
			_, err := task.Go(ctx, never(t)).Wait(ctx)
			told <- err
			_, err = asyncsync.FromThread(ctx, never(t))
			told <- err
			return 0, nil
		}, asyncsync.Abandon(), asyncsync.Insensitive())
		assert.ErrorIs(t, err, asyncsync.ErrAbandoned)
		return nil
	}))
	close(goOn)
	require.ErrorIs(t, <-told, loop.ErrStopped)
	require.ErrorIs(t, <-told, loop.ErrStopped)
}

// A group's tasks run on the backend of its ctx. Its waits park.
func TestGroupOnALoop(t *testing.T) {
	onBackends(t, func(t *testing.T, ctx context.Context, b loop.Backend) {
		gctx, g := task.NewGroup(ctx)
		g.SetLimit(2)
		release, n := make(chan struct{}), 0
		var mu sync.Mutex
		member := func(ctx context.Context) error {
			_, err := on(t, b, func(context.Context) (int, error) { return 0, nil })(ctx)
			mu.Lock()
			if n++; n == 2 {
				close(release)
			}
			mu.Unlock()
			return cmp.Or(comes(ctx, release), err)
		}
		g.Go(member)
		assert.True(t, g.TryGo(member))
		g.Go(member) // waits for a place, which the two others have to get to
		assert.NoError(t, g.Wait(ctx))
		assert.Equal(t, 3, n)
		assert.Error(t, gctx.Err())

		// A failure cancels those that run, and those that have not begun.
		gctx, g = task.NewGroup(ctx)
		g.Go(func(ctx context.Context) error { return comes(ctx, nil) })
		yield(ctx)
		g.Go(func(context.Context) error { return errMine })
		if b.(fmt.Stringer).String()[0] == 't' {
			g.Go(func(context.Context) error { t.Error("has begun"); return nil })
		}
		err := g.Wait(context.WithoutCancel(gctx))
		assert.ErrorIs(t, err, errMine)

		for _, e := range testkit.Ends[1:] {
			_, g = task.NewGroup(ctx)
			g.Go(func(context.Context) error { return e.Do() })
			e.Check(t, endingOfHere(func() error { return g.Wait(context.Background()) }))
		}
	})
}

// A member that did not begin is told of if nothing else is.
func TestGroupOnALoop_AMemberThatDoesNotBegin(t *testing.T) {
	guard(t)
	leavesNothing(t)
	require.NoError(t, libkit.Run(context.Background(), loop.NewThread(), func(ctx context.Context) error {
		over, cancel := context.WithCancelCause(ctx)
		_, g := task.NewGroup(over)
		g.Go(func(context.Context) error { t.Error("has begun"); return nil })
		g.Go(func(context.Context) error { t.Error("has begun"); return nil })
		cancel(errWhy)
		err := g.Wait(ctx)
		assert.ErrorIs(t, err, errWhy)
		assert.Equal(t, errWhy.Error(), err.Error(), "once")
		return nil
	}))
}

// A wait that could never end is refused, through tasks of a loop as through others.
func TestGoOnALoop_Deadlocks(t *testing.T) {
	onBackends(t, func(t *testing.T, ctx context.Context, b loop.Backend) {
		// A task that waits for itself.
		var self *task.Task[int]
		ready := make(chan struct{})
		self = task.Go(ctx, func(ctx context.Context) (int, error) {
			assert.NoError(t, comes(ctx, ready))
			return self.Wait(ctx)
		})
		close(ready)
		_, err := self.Wait(ctx)
		assert.ErrorIs(t, err, deadlock.ErrDeadlock)

		// Two that wait for each other: one of them is told.
		var one, two *task.Task[int]
		both := make(chan struct{})
		one = task.Go(ctx, func(ctx context.Context) (int, error) {
			assert.NoError(t, comes(ctx, both))
			return two.Wait(ctx)
		})
		two = task.Go(ctx, func(ctx context.Context) (int, error) {
			assert.NoError(t, comes(ctx, both))
			return one.Wait(ctx)
		})
		close(both)
		_, err = one.Wait(ctx)
		assert.ErrorIs(t, err, deadlock.ErrDeadlock)
	})
}

// All of it in a bubble.
func TestGoOnALoop_InABubble(t *testing.T) {
	for _, kind := range libkit.Backends {
		t.Run(kind, func(t *testing.T) {
			guard(t)
			synctest.Test(t, func(t *testing.T) {
				b := libkit.NewBackend(t, kind)
				require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
					start := time.Now()
					tk := task.Go(ctx, on(t, b, func(ctx context.Context) (int, error) {
						return 0, b.Park(ctx, func(wake func()) { time.AfterFunc(time.Hour, wake) })
					}))
					timed, cancel := context.WithTimeout(ctx, time.Minute)
					defer cancel()
					_, err := tk.Wait(timed)
					assert.ErrorIs(t, err, context.DeadlineExceeded)
					_, err = tk.Wait(ctx)
					assert.NoError(t, err)
					assert.Equal(t, time.Hour, time.Since(start))
					return nil
				}))
			})
		})
	}
}
