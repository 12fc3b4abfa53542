package task_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// inTask runs fn as a task and waits for it.
func inTask(ctx context.Context, fn func(ctx context.Context) error) error {
	_, err := goTask(ctx, fn).Wait(ctx)
	return err
}

// goTask starts fn as a task.
func goTask(ctx context.Context, fn func(ctx context.Context) error) *task.Task[struct{}] {
	return task.Go(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, fn(ctx) })
}

// A holder's call to the thread that waits for its mutex runs there, also if it was queued
// before the wait, for holders of every kind.
func TestMutexHolderIsServed(t *testing.T) {
	for _, early := range []bool{false, true} {
		t.Run(fmt.Sprintf("queued before=%v", early), func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
				var m task.Mutex
				var held, there, waits task.Event
				// A stranger to the function on the thread.
				holder := goTask(ctx, func(ctx context.Context) error {
					require.NoError(t, m.Lock(ctx))
					defer m.Unlock()
					held.Set()
					<-there.Done()
					if !early {
						synctest.Wait() // the thread waits for the mutex
					}
					return toThread(ctx, func(context.Context) { require.True(t, waits.IsSet()) })
				})
				require.NoError(t, toThread(ctx, func(ctx context.Context) {
					<-held.Done()
					there.Set()
					if early {
						synctest.Wait() // the holder's call is queued
					}
					waits.Set()
					require.NoError(t, m.Lock(ctx))
					m.Unlock()
				}))
				_, err := holder.Wait(ctx)
				require.NoError(t, err)
			})
		})
	}
}

// Each holder in turn is served while somebody behind it waits on the thread, and
// no former one.
func TestMutexServesWhoHoldsItNow(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		var m task.Mutex
		var locked task.Event
		var j journal
		call := func(ctx context.Context, what string) { // a call from a stranger
			require.NoError(t, toThread(ctx, func(context.Context) { j.add(what) }))
		}
		former := task.Event{}
		var tasks []*task.Task[struct{}]
		for i := range 3 {
			tasks = append(tasks, goTask(ctx, func(ctx context.Context) error {
				require.NoError(t, m.Lock(ctx))
				locked.Set()
				if i > 0 {
					call(ctx, fmt.Sprintf("holder %d", i))
				} else {
					require.NoError(t, former.Wait(ctx))
				}
				m.Unlock()
				if i == 0 {
					call(ctx, "former holder") // not before the function on the thread ends
				}
				return nil
			}))
			synctest.Wait()
		}
		require.NoError(t, toThread(ctx, func(ctx context.Context) {
			former.Set()
			require.NoError(t, m.Lock(ctx))
			m.Unlock()
			j.add("thread")
		}))
		for _, one := range tasks {
			_, err := one.Wait(ctx)
			require.NoError(t, err)
		}
		require.Equal(t, []string{"holder 1", "holder 2", "thread", "former holder"}, j.read())
	})
}

// Waits for a mutex that can never come are refused.
func TestMutexDeadlocks(t *testing.T) {
	t.Run("twice by one task", func(t *testing.T) {
		guard(t)
		require.NoError(t, inTask(context.Background(), func(ctx context.Context) error {
			var m task.Mutex
			require.NoError(t, m.Lock(ctx))
			err := m.Lock(ctx)
			require.ErrorIs(t, err, deadlock.ErrDeadlock)
			require.ErrorContains(t, err, "go doc asyncsync.dev/deadlock PageMutex")
			require.ErrorContains(t, err, "holds itself")
			m.Unlock()
			require.False(t, m.Locked(), "the refused one has left no trace")
			return nil
		}))
	})
	t.Run("twice by one function on a thread", func(t *testing.T) {
		inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
			var m task.Mutex
			require.NoError(t, toThread(ctx, func(ctx context.Context) {
				require.NoError(t, m.Lock(ctx))
				require.ErrorIs(t, m.Lock(ctx), deadlock.ErrDeadlock)
				m.Unlock()
				require.True(t, m.TryLock())
				require.ErrorIs(t, m.Lock(ctx), deadlock.ErrDeadlock)
				m.Unlock()
			}))
		})
	})
	t.Run("by what the holder waits for", func(t *testing.T) {
		guard(t)
		require.NoError(t, inTask(context.Background(), func(ctx context.Context) error {
			var m task.Mutex
			var waits task.Event
			require.NoError(t, m.Lock(ctx))
			defer m.Unlock()
			child := goTask(ctx, func(ctx context.Context) error {
				if err := waits.Wait(ctx); err != nil {
					return err
				}
				return m.Lock(ctx)
			})
			waits.Set()
			_, err := child.Wait(ctx)
			var d *deadlock.Error
			require.ErrorAs(t, err, &d)
			return nil
		}))
	})
	t.Run("by what a goroutine waits for that has become a thread", func(t *testing.T) {
		guard(t)
		_, err := asyncsync.FromThread(context.Background(), func(ctx context.Context) (int, error) {
			var m task.Mutex
			require.NoError(t, m.Lock(ctx))
			// Inline: there is no call on the thread.
			return asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
				err := inTask(ctx, m.Lock)
				m.Unlock()
				return 0, err
			})
		}, asyncsync.SameThread())
		require.ErrorIs(t, err, deadlock.ErrDeadlock)
		require.ErrorContains(t, err, "mutex")
	})
	t.Run("two, in two orders", func(t *testing.T) {
		guard(t)
		ctx := context.Background()
		var a, b task.Mutex
		var first, second task.Event
		one := func(mine, theirs *task.Mutex, me, other *task.Event) func(context.Context) error {
			return func(ctx context.Context) error {
				if err := mine.Lock(ctx); err != nil {
					return err
				}
				defer mine.Unlock()
				me.Set()
				if err := other.Wait(ctx); err != nil {
					return err
				}
				if err := theirs.Lock(ctx); err != nil {
					return err
				}
				theirs.Unlock()
				return nil
			}
		}
		x := goTask(ctx, one(&a, &b, &first, &second))
		y := goTask(ctx, one(&b, &a, &second, &first))
		_, errX := x.Wait(ctx)
		_, errY := y.Wait(ctx)
		require.True(t, errors.Is(errX, deadlock.ErrDeadlock) != errors.Is(errY, deadlock.ErrDeadlock),
			"exactly one is refused: %v, %v", errX, errY)
	})
	t.Run("threads that hold what the other wants", func(t *testing.T) {
		guard(t)
		var m task.Mutex
		ctx := context.Background()
		_, one := asyncsync.NewThreadSensitiveContext(ctx)
		defer one.Close()
		_, err := asyncsync.ToThread(ctx, func(inner context.Context) (int, error) {
			require.NoError(t, m.Lock(inner))
			defer m.Unlock()
			// A task that is no relative of the wait below, but what it waits for.
			return asyncsync.FromThread(inner, func(context.Context) (int, error) {
				return 0, inTask(ctx, m.Lock)
			})
		}, asyncsync.On(one))
		require.ErrorIs(t, err, deadlock.ErrDeadlock)
	})
}

// Goroutines that share a ctx are no cycle, and a holder that nobody knows is none.
func TestMutexNoFalseDeadlock(t *testing.T) {
	guard(t)
	leavesNothing(t)
	require.NoError(t, inTask(context.Background(), func(ctx context.Context) error {
		var m task.Mutex
		locked, free := make(chan struct{}), make(chan struct{})
		go func() { // not the task, but with its ctx
			if m.Lock(ctx) == nil {
				close(locked)
				<-free
				m.Unlock()
			}
		}()
		<-locked
		time.AfterFunc(0, func() { close(free) })
		require.NoError(t, m.Lock(ctx))
		m.Unlock()
		return nil
	}))
}

// The record of a call on a thread is used again: what has it next is another
// function, and not the one that holds the mutex.
func TestMutexIsNotOfTheNextCall(t *testing.T) {
	for range 10 { // the race detector has pools forget
		inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
			var m task.Mutex
			lock := asyncsync.SyncToAsync(func(ctx context.Context, _ int) (int, error) { return 0, m.Lock(ctx) })
			_, err := lock(ctx, 0)
			require.NoError(t, err)
			short, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			_, err = lock(short, 0)
			require.Equal(t, context.DeadlineExceeded, err, "somebody else may be about to unlock it")
			m.Unlock()
		})
	}
}

func newPool(t *testing.T) *asyncsync.ThreadPool {
	pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{})
	t.Cleanup(func() { require.NoError(t, pool.Close()) })
	return pool
}

// A mutex is handed over at once, in order, also past those who have gone, and
// while it is nobody else gets it.
func TestMutexHandOver(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		var m task.Mutex
		require.False(t, m.Locked())
		require.True(t, m.TryLock())
		require.False(t, m.TryLock())
		var j journal
		ctxs, cancels := make([]context.Context, 6), make([]context.CancelCauseFunc, 6)
		for i := range ctxs {
			ctxs[i], cancels[i] = context.WithCancelCause(t.Context())
			go func() {
				err := m.Lock(ctxs[i])
				j.add(fmt.Sprint(i, err == nil))
				if err != nil {
					require.ErrorIs(t, err, errCause)
					return
				}
				require.False(t, m.TryLock())
				m.Unlock()
			}()
			synctest.Wait()
		}
		cancels[2](errCause) // it leaves the line
		synctest.Wait()
		cancels[0](errCause) // and this one at the very moment at which it gets it
		m.Unlock()
		require.False(t, m.TryLock(), "a hand-over is under way")
		synctest.Wait()
		require.ElementsMatch(t, []string{"2 false", "0 false", "1 true", "3 true", "4 true", "5 true"}, j.read())
		var order []string
		for _, l := range j.read() {
			if l[2:] == "true" {
				order = append(order, l)
			}
		}
		require.Equal(t, []string{"1 true", "3 true", "4 true", "5 true"}, order)
		require.False(t, m.Locked())
		for _, cancel := range cancels {
			cancel(nil)
		}
	})
}

// What happened under the lock happened before what happens under it next: the
// counter is plain, which the race detector would tell of.
func TestMutexExcludes(t *testing.T) {
	guard(t)
	leavesNothing(t)
	var m task.Mutex
	n := 0
	b := loop.NewThread()
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(newPool(t)))
	const each = 300
	step := func(ctx context.Context) error {
		for range each {
			if err := m.Lock(ctx); err != nil {
				return err
			}
			n++
			m.Unlock()
		}
		return nil
	}
	gctx, g := task.NewGroup(ctx)
	g.Go(step)
	g.Go(step)
	g.Go(func(ctx context.Context) error { return toThreadErr(ctx, step) })
	g.Go(func(context.Context) error {
		_, err := loop.Run(context.Background(), b, func(ctx context.Context) (int, error) { return 0, step(ctx) })
		return err
	})
	g.Go(func(ctx context.Context) error {
		for range each {
			for !m.TryLock() {
				runtime.Gosched()
			}
			n++
			m.Unlock()
		}
		return nil
	})
	require.NoError(t, g.Wait(gctx))
	require.Equal(t, 5*each, n)
	require.False(t, m.Locked())
	require.NoError(t, tsc.Close())
}

// Nothing is allocated where nobody else is there.
func TestLocksAllocateNothing(t *testing.T) {
	guard(t)
	test := func(ctx context.Context) error {
		var m task.Mutex
		var e task.Event
		e.Set()
		l := task.NewLimiter(3)
		if !l.TryAcquire() { // somebody else has one
			panic("no token")
		}
		for name, op := range map[string]func(){
			"Mutex": func() {
				if m.Lock(ctx) != nil {
					panic("locked")
				}
				m.Unlock()
			},
			"TryLock":    func() { m.TryLock(); m.Unlock() },
			"Event.Wait": func() { _ = e.Wait(ctx) },
			"Event.Set":  e.Set,
			"Limiter": func() {
				if l.Acquire(ctx) != nil {
					panic("no token")
				}
				l.Release()
			},
			"Limiter.TryAcquire": func() { l.TryAcquire(); l.Release() },
			"IsSet":              func() { e.IsSet() },
		} {
			if n := testing.AllocsPerRun(100, op); n != 0 {
				return fmt.Errorf("%s: %v allocations", name, n)
			}
		}
		events := make([]task.Event, 102)
		next := 0
		if n := testing.AllocsPerRun(100, func() { events[next].Set(); next++ }); n != 0 {
			return fmt.Errorf("the first Set: %v allocations", n)
		}
		return nil
	}
	require.NoError(t, test(context.Background()))
	require.NoError(t, inTask(context.Background(), test))
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(newPool(t)))
	require.NoError(t, toThreadErr(ctx, test))
	require.NoError(t, tsc.Close())
	require.NoError(t, inTask(context.Background(), func(ctx context.Context) error {
		done := make(chan error)
		go func() { done <- test(ctx) }() // not the task itself
		return <-done
	}))
}

// A report shows a wait for a mutex, and who has it.
func TestMutexInReports(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		var m task.Mutex
		var e task.Event
		holder := task.Go(ctx, func(ctx context.Context) (int, error) {
			if err := m.Lock(ctx); err != nil {
				return 0, err
			}
			defer m.Unlock()
			return 0, e.Wait(ctx)
		}, task.Named("the holder"))
		synctest.Wait()
		require.NoError(t, toThread(ctx, func(ctx context.Context) {
			goTask(ctx, func(context.Context) error {
				synctest.Wait()
				require.Contains(t, deadlock.Take().String(), "mutex")
				e.Set()
				return nil
			})
			require.NoError(t, m.Lock(ctx))
			m.Unlock()
		}))
		_, err := holder.Wait(ctx)
		require.NoError(t, err)
	})
}

// Woken waiters get the mutex in the order in which they came, before others who
// want it; a broadcast leaves nobody behind.
func TestCondOrder(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		var m task.Mutex
		c := task.NewCond(&m)
		var j journal
		var done sync.WaitGroup
		for i := range 5 {
			done.Go(func() {
				require.NoError(t, m.Lock(t.Context()))
				require.NoError(t, c.Wait(t.Context()))
				j.add(fmt.Sprint(i))
				m.Unlock()
			})
			synctest.Wait()
		}
		require.NoError(t, m.Lock(t.Context()))
		c.Signal(0)
		c.Signal(2)
		done.Go(func() {
			require.NoError(t, m.Lock(t.Context()))
			j.add("late")
			m.Unlock()
		})
		synctest.Wait()
		m.Unlock()
		synctest.Wait()
		require.Equal(t, []string{"0", "1", "late"}, j.read())
		c.Broadcast() // without the mutex
		done.Wait()
		require.Equal(t, []string{"0", "1", "late", "2", "3", "4"}, j.read())
		c.Broadcast()
		c.Signal(3)
	})
}

// Who is cancelled after it was chosen passes that on, and has the mutex all the
// same when it is told.
func TestCondPassesASignalOn(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		var m task.Mutex
		c := task.NewCond(&m)
		ctx, cancel := context.WithCancelCause(t.Context())
		var done sync.WaitGroup
		var first, second error
		done.Go(func() {
			require.NoError(t, m.Lock(t.Context()))
			first = c.Wait(ctx)
			require.True(t, m.Locked())
			m.Unlock()
		})
		synctest.Wait()
		done.Go(func() {
			require.NoError(t, m.Lock(t.Context()))
			second = c.Wait(t.Context())
			m.Unlock()
		})
		synctest.Wait()
		require.NoError(t, m.Lock(t.Context()))
		c.Signal(1)
		cancel(errCause)
		synctest.Wait()
		m.Unlock()
		done.Wait()
		require.ErrorIs(t, first, errCause)
		require.NoError(t, second)
	})
}

// A mutex is not handed to a function that cannot go on, because the thread runs
// something on top of its wait: that may want it first. It keeps its place.
func TestMutexPassesOverABuriedWait(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		var m task.Mutex
		var held task.Event
		var j journal
		holder := goTask(ctx, func(ctx context.Context) error {
			require.NoError(t, m.Lock(ctx))
			held.Set()
			synctest.Wait() // the thread waits for the mutex, and another task behind it
			return toThreadErr(ctx, func(ctx context.Context) error {
				m.Unlock()
				for range 3 {
					if err := m.Lock(ctx); err != nil {
						return err
					}
					m.Unlock()
				}
				j.add("on top")
				return nil
			})
		})
		require.NoError(t, held.Wait(ctx))
		var behind *task.Task[struct{}]
		require.NoError(t, toThread(ctx, func(ctx context.Context) {
			behind = goTask(ctx, func(ctx context.Context) error {
				if err := task.Sleep(ctx, time.Second); err != nil {
					return err
				}
				return m.Lock(ctx)
			})
			require.NoError(t, m.Lock(ctx))
			j.add("below")
			m.Unlock()
		}))
		_, err := holder.Wait(ctx)
		require.NoError(t, err)
		_, err = behind.Wait(ctx)
		require.NoError(t, err)
		require.Equal(t, []string{"on top", "below"}, j.read())
		m.Unlock()
	})
	// The same in Cond.Wait: before it is chosen, and while it waits for the mutex.
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		var m task.Mutex
		c, n := task.NewCond(&m), 0
		require.NoError(t, toThread(ctx, func(ctx context.Context) {
			require.NoError(t, m.Lock(ctx))
			goTask(ctx, func(ctx context.Context) error {
				return toThreadErr(ctx, func(ctx context.Context) error {
					for range 3 {
						if err := m.Lock(ctx); err != nil {
							t.Error(err)
							return err
						}
						n++
						c.Broadcast()
						m.Unlock()
					}
					return nil
				})
			})
			for n < 3 {
				require.NoError(t, c.Wait(ctx))
			}
			require.True(t, m.Locked())
			m.Unlock()
			require.False(t, m.Locked())
		}))
	})
}

// A mutex goes to the next in line when the ctx of the one who is to have it panics.
func TestMutexOfACtxThatPanics(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		var m task.Mutex
		require.True(t, m.TryLock())
		ctx := newUnsureCtx(t)
		first := testkit.Start(func() error { return m.Lock(ctx) })
		synctest.Wait()
		second := testkit.Start(func() error { return m.Lock(t.Context()) })
		synctest.Wait()
		ctx.panics.Store(true)
		m.Unlock()
		require.Equal(t, testkit.Outcome{How: "panic", Value: "unsure"}, first.Wait())
		require.Equal(t, testkit.Outcome{How: "return"}, second.Wait())
		m.Unlock()
		require.False(t, m.Locked())
	})
}

// A ctx of a type of its user's is asked for values before the mutex is taken, not while
// it is.
func TestMutexAsksItsCtxBefore(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		var m task.Mutex
		require.NoError(t, toThread(ctx, func(ctx context.Context) {
			require.PanicsWithValue(t, "no value", func() { _ = m.Lock(valuelessCtx{ctx}) })
			require.False(t, m.Locked())
			require.NoError(t, m.Lock(ctx))
			m.Unlock()
		}))
	})
}

// A valuelessCtx panics when it is asked for a value.
type valuelessCtx struct{ context.Context }

func (valuelessCtx) Value(any) any { panic("no value") }

// waitsOn has a goroutine lock m and wait on c with ctx.
func waitsOn(m *task.Mutex, c *task.Cond, ctx context.Context) *testkit.Running {
	return testkit.Start(func() error {
		if err := m.Lock(ctx); err != nil {
			return err
		}
		defer m.Unlock()
		return c.Wait(ctx)
	})
}

// A signal goes on when the ctx of the waiter that was chosen panics.
func TestCondOfACtxThatPanics(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		var m task.Mutex
		c := task.NewCond(&m)
		ctx := newUnsureCtx(t)
		first := waitsOn(&m, c, ctx)
		synctest.Wait()
		second := waitsOn(&m, c, t.Context())
		synctest.Wait()
		ctx.panics.Store(true)
		c.Signal(1)
		require.Equal(t, testkit.Outcome{How: "panic", Value: "unsure"}, first.Wait())
		require.Equal(t, testkit.Outcome{How: "return"}, second.Wait())
		require.False(t, m.Locked())
	})
}

// A signal goes on when the waiter that was chosen ends by a Goexit on top of its wait
// for the mutex.
func TestCondGoexitWhileItLocksAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		var m task.Mutex
		c := task.NewCond(&m)
		first := testkit.Start(func() error {
			return toThreadErr(ctx, func(ctx context.Context) error {
				if err := m.Lock(ctx); err != nil {
					return err
				}
				defer m.Unlock()
				return c.Wait(ctx)
			})
		})
		synctest.Wait()
		second := waitsOn(&m, c, t.Context())
		synctest.Wait()
		require.NoError(t, inTask(ctx, func(ctx context.Context) error {
			if err := m.Lock(ctx); err != nil {
				return err
			}
			defer m.Unlock()
			c.Signal(1)
			calls := goTask(ctx, func(ctx context.Context) error { // the thread serves the holder
				return toThread(ctx, func(context.Context) { runtime.Goexit() })
			})
			<-calls.Done()
			return nil
		}))
		require.Equal(t, testkit.Outcome{How: "goexit"}, first.Wait())
		require.Equal(t, testkit.Outcome{How: "return"}, second.Wait())
		require.False(t, m.Locked())
	})
}

// A signal that meets the cancellation of the waiter that it has chosen is not lost: one
// of two waiters hears of it.
func TestCondSignalMeetsCancellation(t *testing.T) {
	guard(t)
	rounds := 3000
	if testing.Short() {
		rounds = 300
	}
	var m task.Mutex
	c := task.NewCond(&m)
	for range rounds {
		ctx, cancel := context.WithCancelCause(context.Background())
		all, stop := context.WithCancelCause(context.Background())
		waits := func(ctx context.Context) *testkit.Running {
			in := make(chan struct{})
			r := testkit.Start(func() error {
				if err := m.Lock(ctx); err != nil {
					return err
				}
				defer m.Unlock()
				close(in)
				return c.Wait(ctx)
			})
			<-in
			require.NoError(t, m.Lock(context.Background())) // it waits
			m.Unlock()
			return r
		}
		first, second := waits(ctx), waits(all)
		signals := testkit.Start(func() error { c.Signal(1); return nil })
		cancel(errCause)
		signals.Wait()
		one := first.Wait()
		if one.Err != nil {
			require.Equal(t, errCause, one.Err)
			require.NoError(t, second.Wait().Err) // or it hangs
		} else {
			stop(errOther)
			require.Equal(t, errOther, second.Wait().Err)
		}
		cancel(nil)
		stop(nil)
	}
}
