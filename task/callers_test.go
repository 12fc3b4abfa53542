package task_test

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/task"
)

var (
	errCause = errors.New("the cause of a cancellation")
	errReal  = errors.New("what went wrong")
	errOther = errors.New("what went wrong besides")
)

type waiting = func(ctx context.Context, meanwhile func(ctx context.Context)) error

// A waitCase is one way to wait. make returns the wait, and what lets it end; that
// is called at most once, with the ctx of its caller. A wait that knows what
// for calls meanwhile there, since a thread serves nobody else; the others leave
// that to the test.
type waitCase struct {
	name  string
	make  func(t *testing.T) (wait waiting, release func(ctx context.Context))
	knows bool
	// outlasts says that a Goexit waits for what is waited for.
	outlasts bool
	// clock says that it is the time that ends the wait, and forever that nothing
	// but the ctx does.
	clock, forever bool
}

var waitCases = []waitCase{
	{name: "Sleep", clock: true, make: func(*testing.T) (waiting, func(context.Context)) {
		return func(ctx context.Context, meanwhile func(context.Context)) error { return task.Sleep(ctx, time.Hour) }, nil
	}},
	{name: "SleepUntil", clock: true, make: func(*testing.T) (waiting, func(context.Context)) {
		return func(ctx context.Context, meanwhile func(context.Context)) error {
			return task.SleepUntil(ctx, time.Now().Add(time.Hour))
		}, nil
	}},
	{name: "SleepForever", forever: true, make: func(*testing.T) (waiting, func(context.Context)) {
		return func(ctx context.Context, _ func(context.Context)) error { return task.SleepForever(ctx) }, nil
	}},
	{name: "Recv of a value", make: func(t *testing.T) (waiting, func(context.Context)) {
		ch := make(chan int)
		return func(ctx context.Context, meanwhile func(context.Context)) error {
			v, ok, err := task.Recv(ctx, ch)
			if err == nil {
				require.True(t, ok)
				require.Equal(t, 7, v)
			}
			return err
		}, func(context.Context) { go func() { ch <- 7 }() }
	}},
	{name: "Recv of the end", make: func(t *testing.T) (waiting, func(context.Context)) {
		ch := make(chan int)
		return func(ctx context.Context, meanwhile func(context.Context)) error {
			_, ok, err := task.Recv(ctx, ch)
			require.False(t, ok)
			return err
		}, func(context.Context) { close(ch) }
	}},
	{name: "Event.Wait", make: func(t *testing.T) (waiting, func(context.Context)) {
		var e task.Event
		return func(ctx context.Context, _ func(context.Context)) error { return e.Wait(ctx) }, func(context.Context) { e.Set() }
	}},
	{name: "Mutex.Lock", make: func(t *testing.T) (waiting, func(context.Context)) {
		var m task.Mutex
		locked := make(chan struct{})
		go func() { // or the caller would wait for itself
			defer close(locked)
			assert.True(t, m.TryLock())
		}()
		<-locked
		return func(ctx context.Context, meanwhile func(context.Context)) error {
			err := m.Lock(ctx)
			if err == nil {
				require.True(t, m.Locked())
				m.Unlock()
			}
			return err
		}, func(context.Context) { m.Unlock() }
	}},
	{name: "Cond.Wait", make: func(t *testing.T) (waiting, func(context.Context)) {
		var m task.Mutex
		c, ready := task.NewCond(&m), false
		return func(ctx context.Context, meanwhile func(context.Context)) error {
				require.NoError(t, m.Lock(context.WithoutCancel(ctx)))
				defer m.Unlock() // held however Wait ends
				for !ready {
					if err := c.Wait(ctx); err != nil {
						return err
					}
				}
				return nil
			}, func(ctx context.Context) {
				require.NoError(t, m.Lock(ctx))
				ready = true
				c.Signal(1)
				m.Unlock()
			}
	}},
	{name: "Await", outlasts: true, make: func(t *testing.T) (waiting, func(context.Context)) {
		ch := make(chan struct{})
		return func(ctx context.Context, meanwhile func(context.Context)) error {
			_, err := task.Await(ctx, func(ctx context.Context) (int, error) {
				select {
				case <-ch:
					return 0, nil
				case <-ctx.Done():
					return 0, context.Cause(ctx)
				}
			})
			return err
		}, func(context.Context) { close(ch) }
	}},
	{name: "Start", knows: true, make: func(t *testing.T) (waiting, func(context.Context)) {
		var e task.Event
		return func(ctx context.Context, meanwhile func(context.Context)) error {
			started, v, err := task.Start(ctx, func(ctx context.Context, started func(int) error) (int, error) {
				meanwhile(ctx)
				if err := e.Wait(ctx); err != nil {
					return 0, err
				}
				return 2, started(1)
			})
			if err != nil {
				return err
			}
			require.Equal(t, 1, v)
			v, err = started.Wait(ctx)
			require.Equal(t, 2, v)
			return err
		}, func(context.Context) { e.Set() }
	}},
	{name: "Gather", knows: true, make: func(t *testing.T) (waiting, func(context.Context)) {
		var e task.Event
		return func(ctx context.Context, meanwhile func(context.Context)) error {
			_, err := task.Gather(ctx,
				func(ctx context.Context) (int, error) { return 1, e.Wait(ctx) },
				func(ctx context.Context) (int, error) {
					meanwhile(ctx)
					return 1, e.Wait(ctx)
				})
			return err
		}, func(context.Context) { e.Set() }
	}},
	{name: "Shield of a wait", make: func(t *testing.T) (waiting, func(context.Context)) {
		var e task.Event
		return func(ctx context.Context, meanwhile func(context.Context)) error {
			_, err := task.Shield(ctx, func(inner context.Context) (int, error) {
				// It would not end with ctx, which is what another test is about.
				return 0, e.Wait(ctx)
			})
			return err
		}, func(context.Context) { e.Set() }
	}},
	{name: "MoveOn", make: func(t *testing.T) (waiting, func(context.Context)) {
		var e task.Event
		return func(ctx context.Context, meanwhile func(context.Context)) error {
			moved, err := task.MoveOn(ctx, 24*time.Hour, e.Wait)
			require.False(t, moved)
			return err
		}, func(context.Context) { e.Set() }
	}},
	{name: "Timeout", make: func(t *testing.T) (waiting, func(context.Context)) {
		var e task.Event
		return func(ctx context.Context, meanwhile func(context.Context)) error {
				return task.Timeout(ctx, 24*time.Hour, e.Wait)
			},
			func(context.Context) { e.Set() }
	}},
	{name: "Limiter.Acquire", make: func(t *testing.T) (waiting, func(context.Context)) {
		l := task.NewLimiter(1)
		require.True(t, l.TryAcquire())
		return func(ctx context.Context, _ func(context.Context)) error { return l.Acquire(ctx) }, func(context.Context) { l.Release() }
	}},
	{name: "Task.Wait", knows: true, make: func(t *testing.T) (waiting, func(context.Context)) {
		var e task.Event
		return func(ctx context.Context, meanwhile func(context.Context)) error {
			_, err := task.Go(ctx, func(ctx context.Context) (int, error) {
				meanwhile(ctx)
				return 0, e.Wait(ctx)
			}).Wait(ctx)
			return err
		}, func(context.Context) { e.Set() }
	}},
}

// waitBeside waits, while fn is called beside.
func (w waitCase) waitBeside(ctx context.Context, c kindOfCaller, wait waiting, fn func(context.Context)) error {
	beside := c.Beside(ctx)
	if w.knows {
		return wait(ctx, func(ctx context.Context) { beside(ctx, fn) })
	}
	beside(ctx, fn)
	return wait(ctx, nil)
}

// During each kind of wait, by each kind of caller, others run on the same thread or the
// same loop, and the wait may be for one of them.
func TestEveryWaitLetsOthersRun(t *testing.T) {
	for _, w := range waitCases {
		if w.forever {
			continue // it ends with its ctx only: the test below has it
		}
		t.Run(w.name, func(t *testing.T) {
			onEachInBubble(t, func(t *testing.T, ctx context.Context, c kindOfCaller) error {
				wait, release := w.make(t)
				var ran atomic.Bool
				err := w.waitBeside(ctx, c, wait, func(ctx context.Context) {
					ran.Store(true)
					if release != nil {
						release(ctx)
					}
				})
				require.True(t, ran.Load())
				return err
			})
			if w.clock {
				return
			}
			// The same with real time.
			onEach(t, func(t *testing.T, ctx context.Context, c kindOfCaller) error {
				wait, release := w.make(t)
				return w.waitBeside(ctx, c, wait, release)
			})
		})
	}
}

// A wait ends with its ctx, and returns its cause; one that has ended is not
// waited with at all.
func TestEveryWaitEndsWithItsCtx(t *testing.T) {
	for _, w := range waitCases {
		t.Run(w.name, func(t *testing.T) {
			onEachInBubble(t, func(t *testing.T, ctx context.Context, c kindOfCaller) error {
				wait, _ := w.make(t)
				over, cancel := context.WithCancelCause(ctx)
				began := time.Now()
				require.ErrorIs(t, w.waitBeside(over, c, wait, func(context.Context) { cancel(errCause) }), errCause)
				require.ErrorIs(t, wait(over, func(context.Context) {}), errCause)
				require.Zero(t, time.Since(began))
				return nil
			})
			onEach(t, func(t *testing.T, ctx context.Context, c kindOfCaller) error {
				wait, _ := w.make(t)
				over, cancel := context.WithCancelCause(ctx)
				require.ErrorIs(t, w.waitBeside(over, c, wait, func(context.Context) { cancel(errCause) }), errCause)
				return nil
			})
		})
	}
}

// A call that is served on top of a wait, and calls Goexit, ends the function that
// waits as well. The thread, and whatever was waited for, go on.
func TestGoexitOnTopOfEveryWait(t *testing.T) {
	for _, w := range waitCases {
		t.Run(w.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context, tsc *asyncsync.ThreadSensitiveContext) {
				var wait waiting
				var release func(context.Context)
				ctx, cancel := context.WithCancelCause(ctx)
				defer cancel(nil)
				e := endingOf(func() {
					_ = toThread(ctx, func(ctx context.Context) {
						wait, release = w.make(t)
						exit := func(ctx context.Context) {
							task.Go(ctx, func(ctx context.Context) (struct{}, error) {
								return struct{}{}, toThread(ctx, func(ctx context.Context) {
									if w.outlasts {
										defer release(ctx)
									}
									runtime.Goexit()
								})
							})
						}
						if !w.knows {
							exit(ctx)
						}
						_ = wait(ctx, exit)
						t.Error("the wait has returned")
					})
				})
				require.Equal(t, "goexit", e.How)
				// What was waited for has lost nothing: the next one gets it.
				if release != nil {
					if !w.outlasts {
						release(ctx)
					}
					require.NoError(t, toThread(ctx, func(ctx context.Context) {
						require.NoError(t, wait(ctx, func(context.Context) {}))
					}))
				}
			})
		})
	}
}

// All three endings of a function reach the caller of what runs it.
func TestEndingsOfFunctions(t *testing.T) {
	runners := map[string]func(ctx context.Context, fn func() error) error{
		"Shield": func(ctx context.Context, fn func() error) error {
			_, err := task.Shield(ctx, func(context.Context) (int, error) { return 0, fn() })
			return err
		},
		"Await": func(ctx context.Context, fn func() error) error {
			_, err := task.Await(ctx, func(context.Context) (int, error) { return 0, fn() })
			return err
		},
		"Gather": func(ctx context.Context, fn func() error) error {
			_, err := task.Gather(ctx,
				func(ctx context.Context) (int, error) { return 0, task.SleepForever(ctx) },
				func(context.Context) (int, error) { return 0, fn() })
			return err
		},
		"Start, before started": func(ctx context.Context, fn func() error) error {
			_, _, err := task.Start(ctx, func(context.Context, func(int) error) (int, error) { return 0, fn() })
			return err
		},
		"Start, after started": func(ctx context.Context, fn func() error) error {
			started, _, err := task.Start(ctx, func(_ context.Context, started func(int) error) (int, error) {
				if err := started(1); err != nil {
					return 0, err
				}
				return 0, fn()
			})
			if err != nil {
				return err
			}
			_, err = started.Wait(ctx)
			return err
		},
		"MoveOn": func(ctx context.Context, fn func() error) error {
			_, err := task.MoveOn(ctx, time.Hour, func(context.Context) error { return fn() })
			return err
		},
		"Timeout": func(ctx context.Context, fn func() error) error {
			return task.Timeout(ctx, time.Hour, func(context.Context) error { return fn() })
		},
	}
	for name, run := range runners {
		for _, e := range testkit.Ends {
			for _, c := range libkit.Callers {
				t.Run(name+"/"+e.How+"/"+c.Name, func(t *testing.T) {
					guard(t)
					leavesNothing(t)
					e.Check(t, testkit.OutcomeOf(func() error {
						return c.Run(context.Background(), func(ctx context.Context) error { return run(ctx, e.Do) })
					}))
				})
			}
		}
	}
}

// What a programmer gets wrong panics, and says whose fault it is.
func TestMisuseOfStructuredTasks(t *testing.T) {
	ctx := context.Background()
	for name, wrong := range map[string]func(){
		"Sleep":          func() { _ = task.Sleep(noCtx, 1) },
		"SleepUntil":     func() { _ = task.SleepUntil(noCtx, time.Now()) },
		"SleepForever":   func() { _ = task.SleepForever(noCtx) },
		"Yield":          func() { _ = task.Yield(noCtx) },
		"YieldShielded":  func() { task.YieldShielded(noCtx) },
		"Shield":         func() { _, _ = task.Shield[int](noCtx, nil) },
		"Shield nil":     func() { _, _ = task.Shield[int](ctx, nil) },
		"Await":          func() { _, _ = task.Await[int](noCtx, nil) },
		"Await nil":      func() { _, _ = task.Await[int](ctx, nil) },
		"Recv":           func() { _, _, _ = task.Recv[int](noCtx, nil) },
		"Gather":         func() { _, _ = task.Gather[int](noCtx) },
		"Gather nil":     func() { _, _ = task.Gather[int](ctx, nil) },
		"Start":          func() { _, _, _ = task.Start[int, int](noCtx, nil) },
		"Start nil":      func() { _, _, _ = task.Start[int, int](ctx, nil) },
		"OpenScope":      func() { task.OpenScope(noCtx) },
		"OpenScope nil":  func() { task.OpenScope(ctx, nil) },
		"zero Scope":     func() { _ = new(task.Scope).Close(nil) },
		"nil Scope":      func() { (*task.Scope)(nil).Cancel(nil) },
		"MoveOn":         func() { _, _ = task.MoveOn(noCtx, 1, nil) },
		"MoveOn nil":     func() { _, _ = task.MoveOn(ctx, 1, nil) },
		"MoveOnAt":       func() { _, _ = task.MoveOnAt(noCtx, time.Now(), nil) },
		"Timeout":        func() { _ = task.Timeout(noCtx, 1, nil) },
		"Timeout nil":    func() { _ = task.Timeout(ctx, 1, nil) },
		"TimeoutAt":      func() { _ = task.TimeoutAt(noCtx, time.Now(), nil) },
		"Lock":           func() { _ = new(task.Mutex).Lock(noCtx) },
		"Unlock":         func() { new(task.Mutex).Unlock() },
		"Event.Wait":     func() { _ = new(task.Event).Wait(noCtx) },
		"NewCond":        func() { task.NewCond(nil) },
		"zero Cond":      func() { new(task.Cond).Broadcast() },
		"Cond.Wait":      func() { _ = task.NewCond(&task.Mutex{}).Wait(noCtx) },
		"Cond, unlocked": func() { _ = task.NewCond(&task.Mutex{}).Wait(ctx) },
		"Cond.Signal":    func() { task.NewCond(&task.Mutex{}).Signal(-1) },
		"Current":        func() { task.Current(noCtx) },
	} {
		t.Run(name, func(t *testing.T) { requireMisusePanic(t, wrong) })
	}
	var m task.Mutex
	require.NoError(t, m.Lock(ctx))
	m.Unlock()
	requireMisusePanic(t, m.Unlock)
}
