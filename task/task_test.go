package task_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/local"
	"asyncsync.dev/task"
)

// What happens before Go synchronizes before the function, and the function
// before the return of Wait and the close of Done. Plain variables let the
// race detector judge.
func TestGo_HappensBefore(t *testing.T) {
	guard(t)
	ctx := t.Context()

	before, inside := 1, 0
	tk := task.Go(ctx, func(context.Context) (int, error) {
		inside = before + 1
		return inside, nil
	})
	got, err := tk.Wait(ctx)
	require.NoError(t, err)
	require.Equal(t, 2, got)
	require.Equal(t, 2, inside)

	before = 10
	tk = task.Go(ctx, func(context.Context) (int, error) {
		inside = before + 1
		return inside, nil
	})
	<-tk.Done()
	require.Equal(t, 11, inside)
}

// Go does not wait: the starter goes on while the function runs, on another
// goroutine, even where the starter is a thread.
func TestGo_ReturnsAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		require.NoError(t, toThread(ctx, func(ctx context.Context) {
			gate := make(chan struct{})
			tk := task.Go(ctx, func(context.Context) (string, error) {
				<-gate
				return "late", nil
			})
			synctest.Wait()
			select {
			case <-tk.Done():
				require.Fail(t, "Done is closed before the end")
			default:
			}
			close(gate)
			got, err := tk.Wait(ctx)
			require.NoError(t, err)
			require.Equal(t, "late", got)
		}))
	})
}

// A result and an error come back side by side, the error as it is.
func TestWait_ResultAndError(t *testing.T) {
	guard(t)
	failure := errors.New("partial")
	tk := task.Go(t.Context(), func(context.Context) (int, error) { return 7, failure })
	for range 2 { // and again
		got, err := tk.Wait(t.Context())
		require.Equal(t, 7, got)
		require.True(t, err == failure, "the error itself, not a wrapper: %v", err)
	}
}

// The function's ctx carries the values, the deadline and the thread of the
// starter's.
func TestGo_ContextOfFunction(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		type key struct{}
		var home, visited int64
		require.NoError(t, toThread(ctx, func(context.Context) { home = goid() }))

		ctx, cancel := context.WithTimeout(context.WithValue(ctx, key{}, "v"), time.Hour)
		defer cancel()
		deadline, _ := ctx.Deadline()
		_, err := task.Go(ctx, func(ctx context.Context) (int, error) {
			require.Equal(t, "v", ctx.Value(key{}))
			got, ok := ctx.Deadline()
			require.True(t, ok)
			require.Equal(t, deadline, got)
			require.NotEqual(t, home, goid(), "a task runs on no thread")
			return 0, toThread(ctx, func(context.Context) { visited = goid() })
		}).Wait(ctx)
		require.NoError(t, err)
		require.Equal(t, home, visited, "the thread of the starter's context")
	})
}

func TestTask_Misuse(t *testing.T) {
	fn := func(context.Context) (int, error) { return 0, nil }
	tk := task.Go(t.Context(), fn)
	for name, misuse := range map[string]func(){
		"Go without ctx":           func() { task.Go(noCtx, fn) },
		"Go without function":      func() { task.Go[int](t.Context(), nil) },
		"Go with nil option":       func() { task.Go(t.Context(), fn, nil) },
		"Wait without ctx":         func() { tk.Wait(noCtx) },
		"WaitOrCancel without ctx": func() { tk.WaitOrCancel(noCtx) },
	} {
		t.Run(name, func(t *testing.T) { requireMisusePanic(t, misuse) })
	}
}

// A task starts with a fork of the starter's local variables: it sees them,
// and neither side sees what the other sets later.
func TestGo_ForksLocals(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		v := local.New[string]()
		defer v.Set("starter")()
		seen, changed := make(chan struct{}), make(chan struct{})
		tk := task.Go(ctx, func(ctx context.Context) (string, error) {
			got, _ := v.Get()
			require.Equal(t, "starter", got)
			close(seen)
			<-changed
			got, _ = v.Get()
			require.Equal(t, "starter", got, "the starter's later change")
			v.Set("task")
			// A call on the thread belongs to the task, both ways.
			require.NoError(t, toThread(ctx, func(context.Context) {
				got, _ := v.Get()
				require.Equal(t, "task", got)
				v.Set("task's call")
			}))
			got, _ = v.Get()
			return got, nil
		})
		<-seen
		v.Set("changed")
		close(changed)
		got, err := tk.Wait(ctx)
		require.NoError(t, err)
		require.Equal(t, "task's call", got)
		got, _ = v.Get()
		require.Equal(t, "changed", got, "the task's changes stay with it")
	})
}

// Hooks hear of tasks, by the name given or that of the function.
func TestNamed(t *testing.T) {
	guard(t)
	var names journal
	t.Cleanup(asyncsync.SetHooks(asyncsync.Hooks{
		Queued:  func(i asyncsync.CallInfo) { names.add("queued " + i.Name) },
		Started: func(i asyncsync.CallInfo) { names.add("started " + i.Name) },
		Ended:   func(i asyncsync.CallInfo) { names.add(fmt.Sprint("ended ", i.Name, " ", i.Err)) },
	}))
	_, err := task.Go(t.Context(), func(context.Context) (int, error) {
		return 0, errors.New("oh")
	}, task.Named("fetch")).Wait(t.Context())
	require.EqualError(t, err, "oh")
	require.Equal(t, []string{"queued fetch", "started fetch", "ended fetch oh"}, names.read())

	names.lines = nil
	_, err = task.Go(t.Context(), namedFunction).Wait(t.Context())
	require.NoError(t, err)
	require.Contains(t, names.read()[0], "task_test.namedFunction")
}

func namedFunction(context.Context) (int, error) { return 0, nil }

// Each of the three endings reaches every waiter, wherever it waits, those
// that come late included, and panics with the value itself.
func TestWait_Endings(t *testing.T) {
	value := &struct{ what string }{"identity"}
	failure := errors.New("an error as a panic value")
	uncomparable := []int{1}
	for _, tc := range []struct {
		name string
		fn   func()
		want func(testkit.Outcome) bool
	}{
		{"returns", func() {}, func(e testkit.Outcome) bool { return e.How == "return" }},
		{"panics with a pointer", func() { panic(value) }, func(e testkit.Outcome) bool { return e.Value == any(value) }},
		{"panics with an error", func() { panic(failure) }, func(e testkit.Outcome) bool { return e.Value == any(failure) }},
		{"panics with a slice", func() { panic(uncomparable) }, func(e testkit.Outcome) bool {
			s, ok := e.Value.([]int)
			return ok && &s[0] == &uncomparable[0]
		}},
		{"panics in the runtime", func() { _ = uncomparable[len(uncomparable)] }, func(e testkit.Outcome) bool {
			_, ok := e.Value.(runtime.Error)
			return ok
		}},
		{"panics with nil", func() { panic(nil) }, func(e testkit.Outcome) bool {
			_, ok := e.Value.(*runtime.PanicNilError)
			return ok
		}},
		{"calls Goexit", runtime.Goexit, func(e testkit.Outcome) bool { return e.How == "goexit" }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
				gate := make(chan struct{})
				probe := 0
				tk := task.Go(ctx, func(context.Context) (int, error) {
					<-gate
					probe = 1
					tc.fn()
					return 5, nil
				})
				wait := func(ctx context.Context) {
					got, err := tk.Wait(ctx)
					require.NoError(t, err)
					require.Equal(t, 5, got)
				}
				waiters := map[string]func(){
					"a goroutine":             func() { wait(ctx) },
					"another goroutine":       func() { wait(ctx) },
					"a stranger to everybody": func() { wait(context.Background()) },
					"WaitOrCancel":            func() { tk.WaitOrCancel(ctx) },
					"a thread": func() {
						require.NoError(t, toThread(ctx, wait))
					},
					"a task": func() {
						task.Go(ctx, func(ctx context.Context) (int, error) {
							wait(ctx)
							return 0, nil
						}).Wait(ctx)
					},
					"async code below a thread": func() {
						require.NoError(t, fromThread(context.Background(), wait))
					},
				}
				var mu sync.Mutex
				var all sync.WaitGroup
				endings := map[string]testkit.Outcome{}
				for name, waiter := range waiters {
					all.Go(func() {
						e := endingOf(func() {
							defer func() { require.Equal(t, 1, probe) }() // a race probe
							waiter()
						})
						mu.Lock()
						defer mu.Unlock()
						endings[name] = e
					})
				}
				synctest.Wait() // all of them wait
				require.Empty(t, endings)
				close(gate)
				all.Wait()
				endings["latecomer"] = endingOf(func() { wait(ctx) })
				require.Len(t, endings, len(waiters)+1)
				for name, e := range endings {
					require.True(t, tc.want(e), "%s ended with %+v", name, e)
				}

				// The thread has survived.
				require.NoError(t, toThread(ctx, func(context.Context) {}))
			})
		})
	}
}

// A panic is told to the hook once, where it began, whether nobody waits or
// several do; and nothing is printed, nobody is crashed.
func TestPanic_Hook(t *testing.T) {
	for _, waiters := range []int{0, 1, 3} {
		t.Run(fmt.Sprint(waiters, " waiters"), func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
				var mu sync.Mutex
				var heard []asyncsync.CallInfo
				defer asyncsync.SetHooks(asyncsync.Hooks{Panicked: func(i asyncsync.CallInfo) {
					mu.Lock()
					defer mu.Unlock()
					heard = append(heard, i)
				}})()
				value := new(int)
				tk := task.Go(ctx, func(ctx context.Context) (int, error) { return blowUp(ctx, value) }, task.Named("bomb"))
				for range waiters {
					require.True(t, endingOf(func() { tk.Wait(ctx) }).Value == any(value))
				}
				<-tk.Done()
				require.Len(t, heard, 1)
				require.True(t, heard[0].Panic == any(value))
				require.Equal(t, "bomb", heard[0].Name)
				require.Contains(t, string(heard[0].Stack), "task_test.blowUp", "the stack of the origin")
			})
		})
	}
}

func blowUp(_ context.Context, value any) (int, error) { panic(value) }

// A panic that passes from a call through a task to its waiter, and through a
// thread again, is one panic to the hook, with the stack of its origin.
func TestPanic_HookOncePerPanic(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		var mu sync.Mutex
		var heard []string
		defer asyncsync.SetHooks(asyncsync.Hooks{Panicked: func(i asyncsync.CallInfo) {
			mu.Lock()
			defer mu.Unlock()
			heard = append(heard, i.Name)
			require.Contains(t, string(i.Stack), "task_test.blowUp")
		}})()
		value := new(int)
		e := endingOf(func() {
			toThread(ctx, func(ctx context.Context) {
				task.Go(ctx, func(ctx context.Context) (int, error) {
					return task.Go(ctx, func(ctx context.Context) (int, error) {
						return asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
							return blowUp(ctx, value)
						}, asyncsync.Named("origin"))
					}).Wait(ctx)
				}).Wait(ctx)
			})
		})
		require.True(t, e.Value == any(value))
		require.Equal(t, []string{"origin"}, heard)
	})
}

// A task that ended in Goexit without a waiter is told to the Ended hook.
func TestGoexit_Hook(t *testing.T) {
	guard(t)
	heard := make(chan asyncsync.CallInfo, 1)
	t.Cleanup(asyncsync.SetHooks(asyncsync.Hooks{Ended: func(i asyncsync.CallInfo) { heard <- i }}))
	<-task.Go(t.Context(), func(context.Context) (int, error) { runtime.Goexit(); return 0, nil }).Done()
	require.True(t, (<-heard).Goexit)
}

// When ctx ends first Wait returns its cause, and the task goes on.
func TestWait_ContextEnds(t *testing.T) {
	for name, run := range map[string]func(context.Context, func(context.Context)) error{
		"on a goroutine": func(ctx context.Context, fn func(context.Context)) error { fn(ctx); return nil },
		"on a thread":    toThread,
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
				cause := errors.New("out of patience")
				gate := make(chan struct{})
				tk := task.Go(ctx, func(ctx context.Context) (int, error) {
					<-gate
					return 3, ctx.Err()
				})
				require.NoError(t, run(ctx, func(ctx context.Context) {
					short, cancel := context.WithTimeoutCause(ctx, time.Minute, cause)
					defer cancel()
					start := time.Now()
					got, err := tk.Wait(short)
					require.True(t, err == cause, "%v", err)
					require.Zero(t, got)
					require.Equal(t, time.Minute, time.Since(start))

					// A ctx that has ended already does not wait.
					_, err = tk.Wait(short)
					require.True(t, err == cause, "%v", err)
					require.Equal(t, time.Minute, time.Since(start))
					require.False(t, tk.Cancelled())

					close(gate)
					got, err = tk.Wait(ctx)
					require.NoError(t, err, "the task's ctx has not ended")
					require.Equal(t, 3, got)

					// What has ended is told in spite of an ended ctx.
					got, err = tk.Wait(short)
					require.NoError(t, err)
					require.Equal(t, 3, got)
				}))
			})
		})
	}
}

// A task that waits for itself is told so, whatever ctx it uses, and goes on.
func TestWait_ForItself(t *testing.T) {
	for name, wait := range map[string]func(context.Context, *task.Task[string]) (string, error){
		"own ctx":  func(ctx context.Context, tk *task.Task[string]) (string, error) { return tk.Wait(ctx) },
		"bare ctx": func(_ context.Context, tk *task.Task[string]) (string, error) { return tk.Wait(context.Background()) },
		"WaitOrCancel": func(ctx context.Context, tk *task.Task[string]) (string, error) {
			return tk.WaitOrCancel(ctx)
		},
		"in an inline call": func(ctx context.Context, tk *task.Task[string]) (string, error) {
			return asyncsync.FromThread(ctx, tk.Wait)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
				self := make(chan *task.Task[string], 1)
				tk := task.Go(ctx, func(ctx context.Context) (string, error) {
					got, err := wait(ctx, <-self)
					require.ErrorIs(t, err, core.ErrDeadlock)
					require.Empty(t, got)
					require.NoError(t, ctx.Err(), "nobody has been cancelled for it")
					return "well", nil
				})
				self <- tk
				got, err := tk.Wait(ctx)
				require.NoError(t, err)
				require.Equal(t, "well", got)
			})
		})
	}
}

// Who shares a task's ctx is not the task: a plain goroutine started by it may
// wait for it, and so may a child task.
func TestWait_SharedContextIsNoCycle(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		self := make(chan *task.Task[int], 1)
		outcomes := make(chan error, 2)
		tk := task.Go(ctx, func(ctx context.Context) (int, error) {
			tk := <-self
			go func() {
				_, err := tk.Wait(ctx)
				outcomes <- err
			}()
			task.Go(ctx, func(ctx context.Context) (int, error) {
				_, err := tk.Wait(ctx)
				outcomes <- err
				return 0, nil
			})
			synctest.Wait() // both wait
			return 1, nil
		})
		self <- tk
		require.NoError(t, <-outcomes)
		require.NoError(t, <-outcomes)
	})
}

// Two tasks that wait for each other: the one that would close the cycle is
// told, and with that the other goes on.
func TestWait_MutualWaitIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		a, b := make(chan *task.Task[int], 1), make(chan *task.Task[int], 1)
		waitFor := func(other chan *task.Task[int], mine int) func(context.Context) (int, error) {
			return func(ctx context.Context) (int, error) {
				v, err := (<-other).Wait(ctx)
				if errors.Is(err, core.ErrDeadlock) {
					return mine, nil
				}
				return mine + v, err
			}
		}
		ta, tb := task.Go(ctx, waitFor(b, 1)), task.Go(ctx, waitFor(a, 10))
		a <- ta
		synctest.Wait() // tb waits for ta
		b <- tb
		va, err := ta.Wait(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, va)
		vb, err := tb.Wait(ctx)
		require.NoError(t, err)
		require.Equal(t, 11, vb)
	})
}

// The same around three tasks, and from a member to its group.
func TestWait_LongerCyclesAreRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		next := [3]chan *task.Task[int]{}
		for i := range next {
			next[i] = make(chan *task.Task[int], 1)
		}
		refused := 0 // plain: exactly one of them
		var tasks [3]*task.Task[int]
		for i := range tasks {
			tasks[i] = task.Go(ctx, func(ctx context.Context) (int, error) {
				_, err := (<-next[i]).Wait(ctx)
				if errors.Is(err, core.ErrDeadlock) {
					refused++
					err = nil
				}
				return i, err
			})
		}
		for i := range tasks {
			next[i] <- tasks[(i+1)%3]
			synctest.Wait()
		}
		for i := range tasks {
			v, err := tasks[i].Wait(ctx)
			require.NoError(t, err)
			require.Equal(t, i, v)
		}
		require.Equal(t, 1, refused)

		ctx, g := task.NewGroup(ctx)
		g.Go(func(ctx context.Context) error {
			if err := g.Wait(ctx); !errors.Is(err, core.ErrDeadlock) {
				return fmt.Errorf("a member's wait for its group: %v", err)
			}
			return nil
		})
		require.NoError(t, g.Wait(ctx))
	})
}

func TestCancel(t *testing.T) {
	cause := errors.New("no longer needed")
	for _, tc := range []struct {
		name        string
		cause, want error
	}{
		{"with a cause", cause, cause},
		{"without", nil, context.Canceled},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
				tk := task.Go(ctx, func(ctx context.Context) (int, error) {
					<-ctx.Done()
					require.ErrorIs(t, ctx.Err(), context.Canceled)
					derived, cancel := context.WithCancel(ctx)
					defer cancel()
					require.True(t, context.Cause(derived) == tc.want)
					return 1, context.Cause(ctx)
				})
				synctest.Wait()
				require.False(t, tk.Cancelled())
				require.True(t, tk.Cancel(tc.cause), "the first")
				require.True(t, tk.Cancelled())
				require.False(t, tk.Cancel(errors.New("another")), "the second")
				got, err := tk.Wait(ctx)
				require.True(t, err == tc.want, "%v", err)
				require.Equal(t, 1, got, "the outcome is the function's own")
				require.True(t, tk.Cancelled(), "still")
				require.NoError(t, ctx.Err(), "the starter is not cancelled")
			})
		})
	}
}

// Of many that cancel at once one is told that it did, and its cause is it.
func TestCancel_OnceOnly(t *testing.T) {
	guard(t)
	for range 50 {
		tk := task.Go(t.Context(), func(ctx context.Context) (int, error) {
			<-ctx.Done()
			return 0, context.Cause(ctx)
		})
		var all sync.WaitGroup
		var mu sync.Mutex
		var winners []error
		for i := range 4 {
			all.Go(func() {
				cause := fmt.Errorf("cause %d", i)
				if tk.Cancel(cause) {
					mu.Lock()
					defer mu.Unlock()
					winners = append(winners, cause)
				}
			})
		}
		all.Wait()
		_, err := tk.Wait(t.Context())
		require.Len(t, winners, 1)
		require.True(t, err == winners[0])
	}
}

// To cancel what has ended does nothing: not to the task, and not to those
// that it has left behind.
func TestCancel_AfterTheEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		gate := make(chan struct{})
		parent := task.Go(ctx, func(ctx context.Context) (*task.Task[int], error) {
			return task.Go(ctx, func(ctx context.Context) (int, error) {
				<-gate
				return 0, ctx.Err()
			}), nil
		})
		child, err := parent.Wait(ctx)
		require.NoError(t, err)
		require.False(t, parent.Cancel(nil))
		require.False(t, parent.Cancelled())
		close(gate)
		_, err = child.Wait(ctx)
		require.NoError(t, err)
	})
}

// Cancel reaches what was started below, with the cause.
func TestCancel_ReachesChildren(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		cause := errors.New("stop it all")
		parent := task.Go(ctx, func(ctx context.Context) (error, error) {
			grandchild := task.Go(ctx, func(ctx context.Context) (error, error) {
				return task.Go(ctx, func(ctx context.Context) (error, error) {
					<-ctx.Done()
					return context.Cause(ctx), nil
				}).Wait(context.WithoutCancel(ctx))
			})
			return grandchild.Wait(context.WithoutCancel(ctx))
		})
		synctest.Wait()
		require.True(t, parent.Cancel(cause))
		got, err := parent.Wait(ctx)
		require.NoError(t, err)
		require.True(t, got == cause, "%v", got)
	})
}

// A call that a cancelled task has queued is taken out and never runs.
func TestCancel_TakesQueuedCallOut(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, tsc *asyncsync.ThreadSensitiveContext) {
		cause := errors.New("changed my mind")
		ran := false
		require.NoError(t, toThread(ctx, func(context.Context) {
			tk := task.Go(ctx, func(ctx context.Context) (int, error) {
				return 0, toThread(ctx, func(context.Context) { ran = true })
			})
			synctest.Wait()
			require.Equal(t, 1, tsc.Stats().Queued)
			tk.Cancel(cause)
			<-tk.Done() // although the thread is busy: here
			_, err := tk.Wait(ctx)
			require.True(t, err == cause, "%v", err)
			require.Zero(t, tsc.Stats().Queued)
		}))
		require.NoError(t, tsc.Close())
		require.False(t, ran)
	})
}

func TestWaitOrCancel(t *testing.T) {
	cause := errors.New("enough")
	for _, tc := range []struct {
		name string
		fn   func(context.Context) (int, error)
		want int
		err  error
	}{
		{"the function gives up", func(ctx context.Context) (int, error) {
			<-ctx.Done()
			return 0, context.Cause(ctx)
		}, 0, cause},
		{"the function does not care, and its result wins", func(context.Context) (int, error) {
			time.Sleep(2 * time.Hour)
			return 7, nil
		}, 7, nil},
		{"the function cleans up on the thread", func(ctx context.Context) (int, error) {
			<-ctx.Done()
			return asyncsync.ToThread(context.WithoutCancel(ctx), func(context.Context) (int, error) { return 8, nil })
		}, 8, nil},
	} {
		for name, run := range map[string]func(context.Context, func(context.Context)) error{
			"goroutine": func(ctx context.Context, fn func(context.Context)) error { fn(ctx); return nil },
			"thread":    toThread,
		} {
			t.Run(tc.name+", "+name, func(t *testing.T) {
				inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
					tk := task.Go(ctx, tc.fn)
					require.NoError(t, run(ctx, func(ctx context.Context) {
						ctx, cancel := context.WithTimeoutCause(ctx, time.Hour, cause)
						defer cancel()
						got, err := tk.WaitOrCancel(ctx)
						require.Equal(t, tc.want, got)
						require.True(t, err == tc.err, "%v", err)
						require.True(t, tk.Cancelled())
						select {
						case <-tk.Done():
						default:
							require.Fail(t, "left behind")
						}
					}))
				})
			})
		}
	}

	t.Run("with the ctx of a task that is over", func(t *testing.T) {
		guard(t)
		synctest.Test(t, func(t *testing.T) {
			over, cancel := overCtx(t)
			time.AfterFunc(time.Second, func() { cancel(cause) })
			_, err := task.Go(t.Context(), func(ctx context.Context) (int, error) {
				<-ctx.Done()
				return 0, context.Cause(ctx)
			}).WaitOrCancel(over)
			require.True(t, err == cause, "%v", err)
		})
	})

	t.Run("without need", func(t *testing.T) {
		guard(t)
		tk := task.Go(t.Context(), func(ctx context.Context) (int, error) { return 1, ctx.Err() })
		got, err := tk.WaitOrCancel(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, got)
		require.False(t, tk.Cancelled())
	})
}

// A task outlives the call that started it, with its ctx and its thread; the
// end of the call cancels nothing.
func TestGo_OutlivesStarter(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		gate := make(chan struct{})
		var tk *task.Task[int64]
		var home int64
		require.NoError(t, toThread(ctx, func(ctx context.Context) {
			home = goid()
			require.NoError(t, fromThread(ctx, func(ctx context.Context) {
				tk = task.Go(ctx, func(ctx context.Context) (int64, error) {
					<-gate
					if err := ctx.Err(); err != nil {
						return 0, err
					}
					return asyncsync.ToThread(ctx, func(context.Context) (int64, error) { return goid(), nil })
				})
			}))
		}))
		synctest.Wait()
		close(gate)
		got, err := tk.Wait(ctx)
		require.NoError(t, err)
		require.Equal(t, home, got)
	})
}

// The ctx of a task ends with its function, and is released then. That does not
// cancel the tasks that the function leaves behind.
func TestGo_ContextEndsWithFunctionNotChildren(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		up := newCountingCtx(t.Context())
		gates := []chan struct{}{make(chan struct{}), make(chan struct{}), make(chan struct{})}
		ctxs := make([]context.Context, 3)
		var start func(ctx context.Context, level int) *task.Task[error]
		tasks := make([]*task.Task[error], 3)
		start = func(ctx context.Context, level int) *task.Task[error] {
			return task.Go(ctx, func(ctx context.Context) (error, error) {
				ctxs[level] = ctx
				if level+1 < len(tasks) {
					tasks[level+1] = start(ctx, level+1)
				}
				<-gates[level]
				return ctx.Err(), nil
			})
		}
		tasks[0] = start(up, 0)
		synctest.Wait()
		for level, gate := range gates {
			close(gate) // the parent's first
			got, err := tasks[level].Wait(context.Background())
			require.NoError(t, err)
			require.NoError(t, got, "level %d was cancelled by the end of its parents", level)
			synctest.Wait()
			for i, ctx := range ctxs {
				if i > level {
					require.NoError(t, ctx.Err(), "ctx %d after the end of %d", i, level)
				} else {
					require.ErrorIs(t, ctx.Err(), context.Canceled, "ctx %d after the end of %d", i, level)
				}
			}
			now, _ := up.counts()
			require.Equal(t, len(tasks)-level-1, now, "released with the function")
		}
	})
}

// Cancellation from above reaches a child whose parent has ended.
func TestGo_AncestorCancelsAcrossEndedParent(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		cause := errors.New("from far above")
		ctx, cancel := context.WithCancelCause(ctx)
		parent := task.Go(ctx, func(ctx context.Context) (*task.Task[error], error) {
			return task.Go(ctx, func(ctx context.Context) (error, error) {
				<-ctx.Done()
				return context.Cause(ctx), nil
			}), nil
		})
		child, err := parent.Wait(ctx)
		require.NoError(t, err)
		synctest.Wait()
		cancel(cause)
		got, err := child.Wait(context.Background())
		require.NoError(t, err)
		require.True(t, got == cause, "%v", got)
	})
}

// What starts from the ctx of a task that is over still runs, is not cancelled
// for that, and hangs from what is above the task.
func TestGo_FromEndedTask(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		up := newCountingCtx(t.Context())
		var over context.Context
		_, err := task.Go(up, func(ctx context.Context) (int, error) {
			_, err := task.Go(ctx, func(ctx context.Context) (int, error) {
				over = ctx
				return 0, nil
			}).Wait(ctx)
			return 0, err
		}).Wait(context.Background())
		require.NoError(t, err)
		synctest.Wait()
		require.ErrorIs(t, over.Err(), context.Canceled)
		now, _ := up.counts()
		require.Zero(t, now)

		tk := task.Go(over, func(ctx context.Context) (error, error) {
			require.NoError(t, ctx.Err())
			<-ctx.Done()
			return ctx.Err(), nil
		})
		synctest.Wait()
		now, _ = up.counts()
		require.Equal(t, 1, now)
		up.cancel()
		got, err := tk.Wait(context.Background())
		require.NoError(t, err)
		require.ErrorIs(t, got, context.Canceled)
	})
}

// Nor is a call refused or a wait cancelled that is begun with such a ctx, on a
// goroutine that the task has left behind; what is above the task ends it.
func TestWait_WithContextOfEndedTask(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		cause := errors.New("from above")
		ctx, cancel := context.WithCancelCause(ctx)
		over, err := task.Go(ctx, func(ctx context.Context) (context.Context, error) { return ctx, nil }).Wait(ctx)
		require.NoError(t, err)
		synctest.Wait()
		require.ErrorIs(t, over.Err(), context.Canceled)

		ran := false
		require.NoError(t, toThread(over, func(ctx context.Context) {
			require.NoError(t, ctx.Err())
			ran = true
		}))
		require.True(t, ran)

		gate := make(chan struct{})
		tk := task.Go(ctx, func(context.Context) (int, error) { <-gate; return 1, nil })
		go close(gate)
		got, err := tk.Wait(over)
		require.NoError(t, err)
		require.Equal(t, 1, got)

		hold := make(chan struct{})
		tk = task.Go(context.Background(), func(context.Context) (int, error) { <-hold; return 1, nil })
		go cancel(cause)
		_, err = tk.Wait(over)
		require.True(t, err == cause, "%v", err)
		close(hold)
	})
}

// A known limit: a context derived from a task's ctx with the means of package
// context has ended when the task has, and whatever starts from it starts
// cancelled. It runs all the same.
func TestGo_FromContextDerivedInEndedTask(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		type key struct{}
		var derived context.Context
		_, err := task.Go(ctx, func(ctx context.Context) (int, error) {
			derived = context.WithValue(ctx, key{}, 1)
			return 0, nil
		}).Wait(ctx)
		require.NoError(t, err)
		synctest.Wait()
		got, err := task.Go(derived, func(ctx context.Context) (error, error) { return ctx.Err(), nil }).Wait(ctx)
		require.NoError(t, err)
		require.ErrorIs(t, got, context.Canceled)
	})
}

// A long-lived parent keeps nothing of the tasks that have ended.
func TestGo_NoLeakInLongLivedParent(t *testing.T) {
	const waves, wave = 100, 1000

	t.Run("contexts", func(t *testing.T) {
		guard(t)
		synctest.Test(t, func(t *testing.T) {
			up := newCountingCtx(t.Context())
			var all sync.WaitGroup
			for range waves {
				all.Add(wave)
				for range wave {
					task.Go(up, func(context.Context) (int, error) {
						all.Done()
						return 0, nil
					})
				}
				all.Wait()
				synctest.Wait()
				now, _ := up.counts()
				require.Zero(t, now)
			}
			_, ever := up.counts()
			require.Equal(t, waves*wave, ever)
		})
	})

	t.Run("memory", func(t *testing.T) {
		guard(t)
		up, cancel := context.WithCancel(context.Background())
		defer cancel()
		run := func(n int) {
			for range n {
				_, err := task.Go(up, func(ctx context.Context) (int, error) {
					return task.Go(ctx, func(context.Context) (int, error) { return 1, nil }).Wait(ctx)
				}).Wait(up)
				require.NoError(t, err)
			}
		}
		run(1000)
		before := heap()
		run(waves * wave / 2) // each is two tasks
		grown := heap() - before
		// A context alone takes some hundred bytes: ten million in all.
		require.Less(t, grown, int64(2<<20), "bytes kept")
	})
}

// A task inherits no OS thread, no frame and no lock: many of them run side by
// side while a thread is busy.
func TestGo_SideBySide(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		require.NoError(t, toThread(ctx, func(ctx context.Context) {
			const n = 100
			var met sync.WaitGroup
			met.Add(n)
			tasks := make([]*task.Task[int], n)
			for i := range tasks {
				tasks[i] = task.Go(ctx, func(context.Context) (int, error) {
					met.Done()
					met.Wait() // for all the others
					return i, nil
				})
			}
			for i, tk := range tasks {
				got, err := tk.Wait(ctx)
				require.NoError(t, err)
				require.Equal(t, i, got)
			}
		}))
	})
}

// goid returns the id of the calling goroutine.
func goid() int64 {
	var buf [64]byte
	head := strings.Fields(string(buf[:runtime.Stack(buf[:], false)]))[1]
	var id int64
	fmt.Sscan(head, &id)
	return id
}
