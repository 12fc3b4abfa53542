package task_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// The rows of docs/conformance-easynetwork.md whose names begin with A: those of
// anyio that are about tasks, scopes, limiters and locks. Where anyio has a worker
// thread these use Await, and ToThread with Insensitive where that has options.

// Cancelled before, the function never starts.
func TestA1_RunInThreadCancelled(t *testing.T) {
	onEach(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
		ctx, cancel := context.WithCancelCause(ctx)
		cancel(errCause)
		never := func(context.Context) (int, error) { t.Error("it has run"); return 0, nil }
		_, err := task.Await(ctx, never)
		require.Equal(t, errCause, err)
		_, err = asyncsync.ToThread(ctx, never, asyncsync.Insensitive())
		require.Equal(t, errCause, err)
		return nil
	})
}

// The error is the original one.
func TestA2_RunInThreadException(t *testing.T) {
	onEach(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
		_, err := task.Await(ctx, func(context.Context) (int, error) { return 3, errReal })
		require.Equal(t, errReal, err, "the very error")
		return nil
	})
}

// Four tasks under a limiter of three: never more than three, and three at last.
func TestA3_RunInCustomLimiter(t *testing.T) {
	onEachInBubble(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
		l := task.NewLimiter(3)
		var now, most atomic.Int32
		gctx, g := task.NewGroup(ctx)
		for range 4 {
			g.Go(func(ctx context.Context) error {
				_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
					if n := now.Add(1); n > most.Load() {
						most.Store(n)
					}
					time.Sleep(time.Second)
					require.LessOrEqual(t, l.Stats().Used, 3)
					now.Add(-1)
					return 0, nil
				}, asyncsync.Insensitive(), asyncsync.WithLimiter(l))
				return err
			})
		}
		require.NoError(t, g.Wait(gctx))
		require.Equal(t, int32(3), most.Load())
		require.Zero(t, l.Stats().Used)
		return nil
	})
}

// Without abandon the task ends after the function, with it before.
func TestA4_CancelWorkerThread(t *testing.T) {
	for _, abandon := range []bool{false, true} {
		onEachInBubble(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
			var j journal
			var ended task.Event
			opts := []asyncsync.Option{asyncsync.Insensitive()}
			if abandon {
				opts = append(opts, asyncsync.Abandon())
			}
			_, err := task.MoveOn(ctx, time.Second, func(ctx context.Context) error {
				_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) {
					time.Sleep(time.Minute)
					j.add("thread")
					ended.Set()
					return 0, nil
				}, opts...)
				return err
			})
			require.NoError(t, err)
			j.add("task")
			require.NoError(t, ended.Wait(ctx))
			if abandon {
				require.Equal(t, []string{"task", "thread"}, j.read())
			} else {
				require.Equal(t, []string{"thread", "task"}, j.read())
			}
			return nil
		})
	}
}

// A function that was abandoned finishes its work.
func TestA5_CancelWaitOnThread(t *testing.T) {
	onEachInBubble(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
		in, result := make(chan struct{}), make(chan bool, 1)
		moved, err := task.MoveOn(ctx, time.Second, func(ctx context.Context) error {
			_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) {
				select {
				case <-in:
					result <- true
				case <-time.After(time.Hour):
					result <- false
				}
				return 0, nil
			}, asyncsync.Insensitive(), asyncsync.Abandon())
			return err
		})
		require.True(t, moved)
		require.NoError(t, err)
		close(in)
		done, _, err := task.Recv(ctx, result)
		require.True(t, done)
		return err
	})
}

// What the ctx carries is seen inside.
func TestA7_ContextvarPropagation(t *testing.T) {
	onEach(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
		type key struct{}
		v, err := task.Await(context.WithValue(ctx, key{}, 6), func(ctx context.Context) (any, error) { return ctx.Value(key{}), nil })
		require.Equal(t, 6, v)
		return err
	})
}

// Inside there is no current loop; sync code that a task of a loop has called knows
// where that is.
func TestA8_AsynclibDetection(t *testing.T) {
	onEach(t, func(t *testing.T, ctx context.Context, c kindOfCaller) error {
		b, on := loop.Current(ctx)
		require.Equal(t, c.Name == "task of a thread loop", on)
		_, err := task.Await(ctx, func(ctx context.Context) (int, error) {
			_, on := loop.Current(ctx)
			require.False(t, on)
			host, has := loop.Host(ctx)
			if c.Name == "task of a thread loop" {
				require.True(t, has)
				require.Equal(t, loop.Loop(b), host)
			} else {
				require.False(t, has)
			}
			return 0, nil
		})
		return err
	})
}

// A cancellation that is no scope's, while an abandoned function sleeps.
func TestA9_AsyncioCancelNativeTask(t *testing.T) {
	onEachInBubble(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
		ctx, cancel := context.WithCancelCause(ctx)
		timer := time.AfterFunc(time.Second, func() { cancel(errCause) })
		defer timer.Stop()
		began := time.Now()
		var ended task.Event
		_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) {
			defer ended.Set()
			time.Sleep(time.Minute)
			return 0, nil
		}, asyncsync.Insensitive(), asyncsync.Abandon())
		require.ErrorIs(t, err, errCause)
		require.ErrorIs(t, err, asyncsync.ErrAbandoned)
		require.Equal(t, time.Second, time.Since(began))
		return ended.Wait(context.WithoutCancel(ctx))
	})
}

// It works where no loop was started by this module.
func TestA10_AsyncioNoRootTask(t *testing.T) {
	guard(t)
	leavesNothing(t)
	v, err := task.Await(context.Background(), func(context.Context) (int, error) { return 1, nil })
	require.NoError(t, err)
	require.Equal(t, 1, v)
}

// Three loops in a row, each with a blocking function.
func TestA13_AsyncioRunSyncMultiple(t *testing.T) {
	guard(t)
	leavesNothing(t)
	for i := range 3 {
		v, err := loop.Run(context.Background(), loop.NewThread(), func(ctx context.Context) (int, error) {
			return task.Await(ctx, func(context.Context) (int, error) { return i, nil })
		})
		require.NoError(t, err)
		require.Equal(t, i, v)
	}
}

// An ending that the runtime of the other side could not carry does not hang.
func TestA15_Stopiteration(t *testing.T) {
	for _, c := range libkit.Callers {
		for name, end := range map[string]func(){"Goexit": runtime.Goexit, "panic(nil)": func() { panic(nil) }} {
			t.Run(c.Name+"/"+name, func(t *testing.T) {
				guard(t)
				leavesNothing(t)
				e := endingOf(func() {
					_ = c.Run(context.Background(), func(ctx context.Context) error {
						_, err := task.Await(ctx, func(context.Context) (int, error) { end(); return 0, nil })
						return err
					})
				})
				if name == "Goexit" {
					require.Equal(t, "goexit", e.How)
				} else {
					require.IsType(t, &runtime.PanicNilError{}, e.Value)
				}
			})
		}
	}
}

// Nothing of a call is retained when it has returned.
func TestA19_RunSyncWorkerCyclicReferences(t *testing.T) {
	guard(t)
	type big struct{ _ [1 << 16]byte }
	var left weak.Pointer[big]
	require.NoError(t, inTask(context.Background(), func(ctx context.Context) error {
		_, err := loop.Run(ctx, loop.NewThread(), func(ctx context.Context) (int, error) {
			func() {
				x := &big{}
				left = weak.Make(x)
				_, err := task.Await(ctx, func(context.Context) (*big, error) { return x, nil })
				require.NoError(t, err)
			}()
			for range 100 {
				if runtime.GC(); left.Value() == nil {
					break
				}
				runtime.Gosched()
			}
			return 0, nil
		})
		return err
	}))
	require.Nil(t, left.Value())
}

// A loop that has ended is collected, though tasks on it have waited.
func TestA20_AsyncioRunDoesNotLeakEventLoop(t *testing.T) {
	guard(t)
	collected := make(chan struct{})
	func() {
		type marked struct{ loop.Backend }
		b := &marked{loop.NewThread()}
		runtime.AddCleanup(b, func(int) { close(collected) }, 0)
		_, err := loop.Run(context.Background(), b.Backend, func(ctx context.Context) (int, error) {
			if err := task.Sleep(ctx, time.Microsecond); err != nil {
				return 0, err
			}
			return task.Await(context.WithValue(ctx, b, b), func(context.Context) (int, error) { return 0, nil })
		})
		require.NoError(t, err)
	}()
	for {
		runtime.GC()
		select {
		case <-collected:
			return
		default:
			runtime.Gosched()
		}
	}
}

// Totals of limiters.
func TestA21_LimiterTotals(t *testing.T) {
	requireMisusePanic(t, func() { task.NewLimiter(-1) })
	requireMisusePanic(t, func() { new(task.Limiter).TryAcquire() })
	l := task.NewLimiter(0)
	require.False(t, l.TryAcquire())
	require.Equal(t, task.LimiterStats{}, l.Stats())
}

// Accounts; a total that grows grants what is free, and no more: two borrowed, one
// allowed, is none free (which anyio's gets wrong).
func TestA22_LimiterBorrowAndResize(t *testing.T) {
	onEachInBubble(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
		l := task.NewLimiter(2)
		require.NoError(t, l.Acquire(ctx))
		require.NoError(t, l.Acquire(ctx))
		require.Equal(t, task.LimiterStats{Total: 2, Used: 2}, l.Stats())
		l.SetTotal(0)
		waiter := goTask(ctx, l.Acquire)
		require.NoError(t, task.Sleep(ctx, time.Second)) // it may be a task of the same loop
		l.SetTotal(1)
		require.NoError(t, task.Sleep(ctx, time.Second))
		require.Equal(t, task.LimiterStats{Total: 1, Used: 2, Waiting: 1}, l.Stats())
		l.SetTotal(3)
		_, err := waiter.Wait(ctx)
		require.NoError(t, err)
		require.Equal(t, task.LimiterStats{Total: 3, Used: 3}, l.Stats())
		l.ReleaseN(3)
		return nil
	})
}

// Exclusion, and turns in order.
func TestA23_LimiterOrder(t *testing.T) {
	onEachInBubble(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
		l := task.NewLimiter(1)
		var j journal
		gctx, g := task.NewGroup(ctx)
		for i := range 3 {
			g.Go(func(ctx context.Context) error {
				if err := task.Sleep(ctx, time.Duration(i+1)*time.Millisecond); err != nil {
					return err
				}
				for range 5 {
					if err := l.Acquire(ctx); err != nil {
						return err
					}
					j.add(fmt.Sprint(i))
					require.Equal(t, 1, l.Stats().Used)
					if err := task.Sleep(ctx, time.Second); err != nil {
						return err
					}
					l.Release()
				}
				return nil
			})
		}
		require.NoError(t, g.Wait(gctx))
		for k := range 5 {
			require.Equal(t, []string{"0", "1", "2"}, j.read()[3*k:3*k+3])
		}
		return nil
	})
}

// Releasing what was not taken.
func TestA24_LimiterBadRelease(t *testing.T) {
	l := task.NewLimiter(1)
	requireMisusePanic(t, l.Release)
	require.True(t, l.TryAcquire())
	l.Release()
	requireMisusePanic(t, l.Release)
}

// No token is lost, and none granted twice, whatever is cancelled when: the same
// for a limiter, a mutex, and a mutex with a cond.
func TestA25_HandOffUnderCancel(t *testing.T) {
	type lockable struct {
		lock   func(context.Context) error
		unlock func()
		idle   func() bool
	}
	makers := map[string]func() lockable{
		"Limiter": func() lockable {
			l := task.NewLimiter(1)
			return lockable{l.Acquire, l.Release, func() bool { return l.Stats() == task.LimiterStats{Total: 1} }}
		},
		"Mutex": func() lockable {
			m := &task.Mutex{}
			return lockable{m.Lock, m.Unlock, func() bool { return !m.Locked() }}
		},
		"Cond": func() lockable {
			m := &task.Mutex{}
			c, taken := task.NewCond(m), false
			return lockable{
				func(ctx context.Context) error {
					if err := m.Lock(ctx); err != nil {
						return err
					}
					defer m.Unlock()
					for taken {
						if err := c.Wait(ctx); err != nil {
							return err
						}
					}
					taken = true
					return nil
				},
				func() {
					if m.Lock(context.Background()) == nil {
						taken = false
						c.Signal(1)
						m.Unlock()
					}
				},
				func() bool { return !m.Locked() && !taken },
			}
		},
	}
	for name, makeOne := range makers {
		t.Run(name, func(t *testing.T) {
			guard(t)
			leavesNothing(t)
			l := makeOne()
			var inside, got atomic.Int32
			work := func(ctx context.Context, seed uint64) error {
				r := rand.New(rand.NewPCG(seed, 1))
				for range 150 {
					own, cancel := context.WithCancelCause(ctx)
					defer cancel(nil)
					if r.IntN(2) == 0 {
						go cancel(errCause)
					}
					err := l.lock(own)
					if err == nil {
						got.Add(1)
						if inside.Add(1) != 1 {
							return errors.New("two of them")
						}
						if r.IntN(4) == 0 {
							if err := task.Yield(ctx); err != nil {
								return err
							}
						}
						inside.Add(-1)
						l.unlock()
					} else if !errors.Is(err, errCause) {
						return err
					}
					cancel(nil)
				}
				return nil
			}
			gctx, g := task.NewGroup(context.Background())
			for i := range 8 {
				c := libkit.Callers[i%len(libkit.Callers)]
				g.Go(func(ctx context.Context) error {
					return c.Run(ctx, func(ctx context.Context) error { return work(ctx, uint64(i)) })
				})
			}
			require.NoError(t, g.Wait(gctx))
			require.True(t, l.idle())
			require.Positive(t, got.Load())
		})
	}
}

// Events: a waiter that is cancelled; one that is set and cancelled at once was
// told (anyio tells of the cancellation).
func TestA26_Event(t *testing.T) {
	onEachInBubble(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
		var e task.Event
		ctx, cancel := context.WithCancelCause(ctx)
		moved, err := task.MoveOn(ctx, time.Second, e.Wait)
		require.NoError(t, err)
		require.True(t, moved)
		timer := time.AfterFunc(time.Second, func() { e.Set(); cancel(errCause) })
		defer timer.Stop()
		require.NoError(t, e.Wait(ctx))
		require.NoError(t, e.Wait(ctx))
		require.Equal(t, errCause, task.Yield(ctx))
		e.Set()
		<-e.Done()
		return nil
	})
	var e task.Event
	done := e.Done()
	select {
	case <-done:
		t.Fatal("it has not happened")
	default:
	}
	e.Set()
	<-done
	require.True(t, e.IsSet())
}

// Locks: cancelled while waiting, after the release, and after they were given it.
func TestA27_Lock(t *testing.T) {
	onEachInBubble(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
		var m task.Mutex
		require.NoError(t, m.Lock(ctx))
		var others []*task.Task[struct{}]
		for range 3 {
			others = append(others, goTask(ctx, func(ctx context.Context) error {
				if err := m.Lock(ctx); err != nil {
					return err
				}
				m.Unlock()
				return nil
			}))
			require.NoError(t, task.Sleep(ctx, time.Millisecond))
		}
		others[1].Cancel(errCause) // while it waits
		require.NoError(t, task.Sleep(ctx, time.Millisecond))
		m.Unlock()
		others[0].Cancel(errCause) // at the hand-over: either
		_, first := others[0].Wait(ctx)
		_, second := others[1].Wait(ctx)
		_, third := others[2].Wait(ctx)
		require.True(t, first == nil || errors.Is(first, errCause))
		require.Equal(t, errCause, second)
		require.NoError(t, third)
		require.False(t, m.Locked())
		// Cancelled before it was tried, though it is free.
		over, cancel := context.WithCancelCause(ctx)
		cancel(errCause)
		require.Equal(t, errCause, m.Lock(over))
		require.False(t, m.Locked())
		return nil
	})
}

// The owner cannot lock again.
func TestA28_LockAcquireTwice(t *testing.T) {
	onEach(t, func(t *testing.T, ctx context.Context, c kindOfCaller) error {
		twice := func(ctx context.Context) error {
			var m task.Mutex
			require.NoError(t, m.Lock(ctx))
			require.ErrorIs(t, m.Lock(ctx), deadlock.ErrDeadlock)
			m.Unlock()
			return nil
		}
		if c.Name == "goroutine" { // nobody knows a plain one
			return inTask(ctx, twice)
		}
		return twice(ctx)
	})
}

// Conditions: a wait that is cancelled locks again; a notice is handed on; not
// without the lock; a wait for something.
func TestA29_Condition(t *testing.T) {
	onEachInBubble(t, func(t *testing.T, ctx context.Context, c kindOfCaller) error {
		var m task.Mutex
		cond := task.NewCond(&m)
		require.NoError(t, m.Lock(ctx))
		moved, err := task.MoveOn(ctx, time.Second, cond.Wait)
		require.NoError(t, err)
		require.True(t, moved)
		require.True(t, m.Locked())
		m.Unlock()
		requireMisusePanic(t, func() { _ = cond.Wait(ctx) })

		n := 0
		for range 3 {
			c.Beside(ctx)(ctx, func(ctx context.Context) {
				// Each is on top of a wait: on a thread it could not lock again
				// what the function below it has been given meanwhile.
				require.NoError(t, m.Lock(ctx))
				n++
				cond.Broadcast()
				m.Unlock()
			})
		}
		require.NoError(t, m.Lock(ctx))
		for n < 3 {
			require.NoError(t, cond.Wait(ctx))
		}
		m.Unlock()
		return nil
	})
}

// Task groups: who failed, who waits, and what is told.
func TestA31_TaskGroup(t *testing.T) {
	onEachInBubble(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
		// A child that fails cancels the host.
		gctx, g := task.NewGroup(ctx)
		g.Go(func(ctx context.Context) error { return errReal })
		require.Equal(t, errReal, task.SleepForever(gctx))
		require.ErrorIs(t, g.Wait(gctx), errReal)
		// A host that is cancelled while it waits: the children are.
		moved, err := task.MoveOn(ctx, time.Second, func(ctx context.Context) error {
			gctx, g := task.NewGroup(ctx)
			g.Go(func(ctx context.Context) error {
				g.Go(task.SleepForever) // started while the group runs
				return task.SleepForever(ctx)
			})
			return g.Wait(gctx)
		})
		require.True(t, moved)
		require.NoError(t, err)
		// A cascade, and a real error in the midst of it.
		moved, err = task.MoveOn(ctx, time.Second, func(ctx context.Context) error {
			gctx, g := task.NewGroup(ctx)
			g.Go(func(ctx context.Context) error {
				gctx, g := task.NewGroup(ctx)
				g.Go(task.SleepForever)
				g.Go(func(ctx context.Context) error {
					_ = task.SleepForever(ctx)
					return errReal
				})
				return g.Wait(gctx)
			})
			return g.Wait(gctx)
		})
		require.True(t, moved)
		require.ErrorIs(t, err, errReal)
		require.NotErrorIs(t, err, context.DeadlineExceeded)
		return nil
	})
}

// Scopes: who owns a cancellation.
func TestA32_CancelScope(t *testing.T) {
	onEachInBubble(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
		// Level-triggered: it is told again and again.
		in, s := task.OpenScope(ctx)
		s.Cancel(nil)
		var err error
		for range 3 {
			err = task.Sleep(in, time.Hour)
			require.ErrorIs(t, err, context.Canceled)
		}
		// Clean-up is shielded.
		_, e := task.Shield(in, func(ctx context.Context) (int, error) { return 0, task.Sleep(ctx, time.Second) })
		require.NoError(t, e)
		require.NoError(t, s.Close(err))
		// The error of an inner one raised beyond its end is nobody's.
		inner, i := task.OpenScope(ctx)
		i.Cancel(errCause)
		err = task.Yield(inner)
		require.NoError(t, i.Close(err))
		out, o := task.OpenScope(ctx)
		require.Equal(t, err, o.Close(err))
		require.Error(t, out.Err())
		// Nested ones that move on: the outer deadline is the earlier one.
		var inside bool
		outside, err := task.MoveOn(ctx, time.Second, func(ctx context.Context) error {
			var err error
			inside, err = task.MoveOn(ctx, 2*time.Second, task.SleepForever)
			return err
		})
		require.NoError(t, err)
		require.False(t, inside)
		require.True(t, outside)
		// A reason is told.
		in, s = task.OpenScope(ctx)
		s.Cancel(errCause)
		require.ErrorIs(t, context.Cause(in), errCause)
		require.ErrorContains(t, context.Cause(in), errCause.Error())
		require.NoError(t, s.Close(task.Yield(in)))
		// Cancelled from other goroutines, all at once.
		in, s = task.OpenScope(ctx)
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() { s.Cancel(errCause); s.Reschedule(time.Now()); s.CancelCalled() })
		}
		require.NoError(t, s.Close(task.SleepForever(in)))
		require.True(t, s.CancelledCaught())
		all.Wait()
		return nil
	})
}

// Names of tasks.
func TestA33_TaskNames(t *testing.T) {
	guard(t)
	ctx := context.Background()
	for _, named := range []bool{false, true} {
		var opts []task.Option
		want := "asyncsync.dev/task_test.nameOfTask"
		if named {
			opts, want = append(opts, task.Named("testname")), "testname"
		}
		got, err := task.Go(ctx, nameOfTask, opts...).Wait(ctx)
		require.NoError(t, err)
		require.Equal(t, want, got)
		started, got, err := task.Start(ctx, nameOfStarted, opts...)
		require.NoError(t, err)
		require.Equal(t, want[:len(want)-len("OfTask")*b2i(!named)], got[:len(got)-len("OfStarted")*b2i(!named)])
		_, err = started.Wait(ctx)
		require.NoError(t, err)
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func nameOfTask(ctx context.Context) (string, error) { return task.Current(ctx).Name, nil }

func nameOfStarted(ctx context.Context, started func(string) error) (int, error) {
	return 0, started(task.Current(ctx).Name)
}

// start: with and without a value, with an error before and after, never, twice,
// and cancelled.
func TestA34_Start(t *testing.T) {
	onEachInBubble(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
		// A value; the task goes on.
		one, v, err := task.Start(ctx, func(ctx context.Context, started func(string) error) (int, error) {
			require.NoError(t, started("foo"))
			require.Equal(t, task.ErrStartedTwice, started("bar"))
			return 7, task.Sleep(ctx, time.Second)
		})
		require.NoError(t, err)
		require.Equal(t, "foo", v)
		n, err := one.Wait(ctx)
		require.NoError(t, err)
		require.Equal(t, 7, n)
		// An error before.
		one, _, err = task.Start(ctx, func(context.Context, func(string) error) (int, error) { return 0, errReal })
		require.Equal(t, errReal, err)
		_, err = one.Wait(ctx)
		require.Equal(t, errReal, err)
		// An error after.
		one, _, err = task.Start(ctx, func(_ context.Context, started func(string) error) (int, error) {
			return 0, errors.Join(started(""), errReal)
		})
		require.NoError(t, err)
		_, err = one.Wait(ctx)
		require.ErrorIs(t, err, errReal)
		// Never.
		var late func(string) error
		_, _, err = task.Start(ctx, func(_ context.Context, started func(string) error) (int, error) {
			late = started
			return 0, nil
		})
		require.Equal(t, task.ErrNotStarted, err)
		require.Equal(t, task.ErrNotStarted, late("x"))
		// Cancelled before: the task is waited for, and started is too late.
		over, cancel := context.WithCancelCause(ctx)
		timer := time.AfterFunc(time.Second, func() { cancel(errCause) })
		defer timer.Stop()
		began := time.Now()
		one, _, err = task.Start(over, func(ctx context.Context, started func(string) error) (int, error) {
			require.Equal(t, errCause, task.SleepForever(ctx))
			require.NoError(t, task.Sleep(context.WithoutCancel(ctx), time.Second))
			require.Equal(t, errCause, started("x"))
			return 0, nil
		})
		require.Equal(t, errCause, err)
		require.Equal(t, 2*time.Second, time.Since(began))
		select {
		case <-one.Done():
		default:
			t.Error("the task goes on")
		}
		return nil
	})
}
