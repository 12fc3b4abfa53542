package loop_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/local"
	"asyncsync.dev/loop"
	"asyncsync.dev/loop/looptest"
	"asyncsync.dev/task"
)

func TestBackendsKeepTheContract(t *testing.T) {
	for _, kind := range libkit.Backends {
		t.Run(kind, func(t *testing.T) {
			looptest.TestBackend(t, func(t *testing.T) loop.Backend { return libkit.Running(t, libkit.NewBackend(t, kind)) })
		})
	}
}

func TestRunEndsAsMainDoes(t *testing.T) {
	for _, e := range testkit.Ends {
		t.Run(e.How, func(t *testing.T) {
			onBoth(t, func(t *testing.T, b loop.Backend) {
				o := testkit.OutcomeOf(func() error {
					return libkit.Run(context.Background(), b, func(ctx context.Context) error {
						assert.NoError(t, libkit.Yield(ctx, b))
						return e.Do()
					})
				})
				e.Check(t, o)
				select {
				case <-b.Done():
				default:
					t.Error("Done is not closed")
				}
			})
		})
	}
}

func TestRunReturnsTheResult(t *testing.T) {
	onBoth(t, func(t *testing.T, b loop.Backend) {
		got, err := loop.Run(context.Background(), b, func(context.Context) (int, error) { return 7, nil })
		require.NoError(t, err)
		require.Equal(t, 7, got)
	})
}

func TestASecondRunIsStopped(t *testing.T) {
	onBoth(t, func(t *testing.T, b loop.Backend) {
		never := func(context.Context) error { t.Error("main has run again"); return nil }
		require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
			var err error
			var wg sync.WaitGroup
			wg.Go(func() { err = libkit.Run(context.Background(), b, never) })
			wg.Wait()
			assert.ErrorIs(t, err, loop.ErrStopped, "while it runs")
			return nil
		}))
		require.ErrorIs(t, libkit.Run(context.Background(), b, never), loop.ErrStopped)
		require.ErrorIs(t, b.Post(func() {}), loop.ErrStopped)
		require.ErrorIs(t, b.Spawn(context.Background(), func(context.Context) {}), loop.ErrStopped)
		require.ErrorIs(t, libkit.Call(context.Background(), b, never), loop.ErrStopped)
	})
}

func TestRunOnALoopIsRefused(t *testing.T) {
	testkit.Guard(t)
	testkit.NoLeaks(t)
	never := func(context.Context) error { t.Error("has run"); return nil }
	b := loop.NewThread()
	other := libkit.Running(t, loop.NewThread())
	refused := func(ctx context.Context, where string) {
		for _, kind := range libkit.Backends {
			assert.ErrorIs(t, libkit.Run(ctx, libkit.NewBackend(t, kind), never), loop.ErrOnLoop, where)
		}
		assert.ErrorIs(t, libkit.Run(ctx, b, never), loop.ErrOnLoop, where)
	}
	require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
		refused(ctx, "in a task")
		refused(context.Background(), "in a task, with a ctx from outside")
		posted := make(chan struct{})
		assert.NoError(t, b.Post(func() {
			defer close(posted)
			refused(ctx, "in a posted function, with a task's ctx")
		}))
		assert.NoError(t, libkit.Call(ctx, other, func(ctx context.Context) error {
			refused(ctx, "in a task of another loop")
			return nil
		}))
		return libkit.Receive(ctx, b, posted)
	}))
}

func TestRunOnGoroutinesIsNotRefused(t *testing.T) {
	testkit.Guard(t)
	testkit.NoLeaks(t)
	outer := loop.Goroutines()
	ran := 0
	require.NoError(t, libkit.Run(context.Background(), outer, func(ctx context.Context) error {
		for _, kind := range libkit.Backends {
			inner := libkit.NewBackend(t, kind)
			assert.NoError(t, libkit.Run(ctx, inner, func(ctx context.Context) error {
				ran++
				b, ok := loop.Current(ctx)
				assert.True(t, ok)
				assert.Same(t, inner, b)
				return nil
			}))
			b, ok := loop.Current(ctx)
			assert.True(t, ok)
			assert.Same(t, outer, b)
		}
		posted := make(chan error, 1)
		assert.NoError(t, outer.Post(func() {
			posted <- libkit.Run(ctx, loop.NewThread(), func(context.Context) error { ran++; return nil })
		}))
		return <-posted
	}))
	require.Equal(t, 3, ran)
}

func TestRunWithACtxThatHasEnded(t *testing.T) {
	onBoth(t, func(t *testing.T, b loop.Backend) {
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(testkit.ErrEnd)
		posted := false
		require.NoError(t, b.Post(func() { posted = true }))
		err := libkit.Run(ctx, b, func(context.Context) error { t.Error("main has run"); return nil })
		require.Same(t, testkit.ErrEnd, err)
		<-b.Done()
		require.True(t, posted)
	})
}

func TestRunOnTheMainThreadOfSomebody(t *testing.T) {
	testkit.Guard(t)
	testkit.NoLeaks(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for range 3 {
			b := loop.NewThread()
			assert.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
				for range 10 {
					assert.NoError(t, libkit.Call(ctx, b, func(ctx context.Context) error { return libkit.Yield(ctx, b) }))
				}
				return nil
			}))
		}
	}()
	<-done
}

// foreignBackend is a Backend of somebody else.
type foreignBackend struct{ loop.Backend }

func TestMisuse(t *testing.T) {
	testkit.Guard(t)
	b := libkit.Running(t, loop.NewThread())
	ctx := context.Background()
	nothing := func(context.Context) (int, error) { return 0, nil }
	for name, fn := range map[string]func(){
		"Run of a foreign backend": func() { _, _ = loop.Run(ctx, loop.Backend(foreignBackend{b}), nothing) },
		"Run with no function":     func() { _, _ = loop.Run[int](ctx, loop.NewThread(), nil) },
		"Run with no ctx":          func() { _, _ = loop.Run(nil, loop.NewThread(), nothing) }, //lint:ignore SA1012 misuse
		"Call with no function":    func() { _, _ = loop.Call[int](ctx, b, nil) },
		"Spawn with no function":   func() { _ = b.Spawn(ctx, nil) },
		"Post with no function":    func() { _ = b.Post(nil) },
		"Park with no function":    func() { _ = b.Park(ctx, nil) },
		"FromPost of nothing":      func() { loop.FromPost(nil, nil) },
	} {
		t.Run(name, func(t *testing.T) { testkit.RequireMisuse(t, "loop", fn) })
	}
	_, err := loop.Builtin("trio")
	require.ErrorContains(t, err, `"trio"`)
}

func TestBackendsAcceptBeforeRun(t *testing.T) {
	onBoth(t, func(t *testing.T, b loop.Backend) {
		var posted, spawned, called atomic.Bool
		require.NoError(t, b.Post(func() { posted.Store(true) }))
		require.NoError(t, b.Spawn(context.Background(), func(ctx context.Context) {
			assert.NoError(t, libkit.Yield(ctx, b))
			spawned.Store(true)
		}))
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			assert.NoError(t, libkit.Call(context.Background(), b, func(ctx context.Context) error {
				called.Store(true)
				return libkit.Yield(ctx, b)
			}))
		}()
		for called.Load() {
			t.Fatal("a call has run before Run")
		}
		require.False(t, posted.Load() || spawned.Load())
		require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
			if err := libkit.Receive(ctx, b, ended); err != nil {
				return err
			}
			for !posted.Load() || !spawned.Load() {
				if err := libkit.Yield(ctx, b); err != nil {
					return err
				}
			}
			return nil
		}))
	})
}

// What was posted runs before Done is closed, however long the queue is. Tasks do
// not begin any more, and their waiters are told.
func TestTheEndOfABackend(t *testing.T) {
	testkit.Guard(t)
	testkit.NoLeaks(t)
	b := loop.NewThread()
	const n = 100
	posted, caller := 0, make(chan error, 1)
	require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
		parked := make(chan struct{})
		assert.NoError(t, b.Spawn(ctx, func(ctx context.Context) {
			// A task of the loop waits for one that will not begin.
			caller <- libkit.Call(context.WithoutCancel(ctx), b, func(ctx context.Context) error {
				close(parked)
				return b.Park(ctx, func(func()) {})
			})
			assert.ErrorIs(t, ctx.Err(), context.Canceled)
			assert.Same(t, loop.ErrStopped, context.Cause(ctx))
		}))
		assert.NoError(t, libkit.Receive(ctx, b, parked))
		for range n {
			assert.NoError(t, b.Post(func() { posted++ }))
			assert.NoError(t, b.Spawn(ctx, func(context.Context) { t.Error("a task has begun at the end") }))
		}
		return nil
	}))
	require.Equal(t, n, posted)
	require.Same(t, loop.ErrStopped, <-caller)
}

func TestATaskThatHasNotBegunAtTheEnd(t *testing.T) {
	onBoth(t, func(t *testing.T, b loop.Backend) {
		// A call that comes while the loop is busy with its last task.
		busy, release := make(chan struct{}), make(chan struct{})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			<-busy
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			for {
				err := libkit.Call(ctx, b, func(context.Context) error { return nil })
				if err != nil {
					assert.ErrorIs(t, err, loop.ErrStopped)
					return
				}
			}
		}()
		require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
			close(busy)
			go func() { close(release) }()
			<-release
			return nil
		}))
		<-ended
	})
}

// A posted function of Goroutines that was accepted runs before Done.
func TestPostedFunctionsRunBeforeDone(t *testing.T) {
	onBoth(t, func(t *testing.T, b loop.Backend) {
		var accepted, ran atomic.Int64
		var posters sync.WaitGroup
		require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
			var some sync.WaitGroup
			some.Add(4)
			for range 4 {
				posters.Go(func() {
					for i := 0; b.Post(func() { ran.Add(1) }) == nil; i++ {
						accepted.Add(1)
						if i == 10 {
							some.Done()
						}
						runtime.Gosched()
					}
				})
			}
			some.Wait()
			return nil
		}))
		sum := ran.Load()
		posters.Wait()
		require.Equal(t, accepted.Load(), sum)
		require.Equal(t, accepted.Load(), ran.Load())
	})
}

func TestCurrentIsTheTaskItself(t *testing.T) {
	onBoth(t, func(t *testing.T, b loop.Backend) {
		current := func(ctx context.Context) bool {
			got, ok := loop.Current(ctx)
			if ok {
				assert.Same(t, b, got)
			}
			_, isHost := loop.Host(ctx)
			assert.False(t, isHost, "there is no host outside of sync code")
			return ok
		}
		other := libkit.Running(t, libkit.NewBackend(t, "thread"))
		assert.False(t, current(context.Background()))
		require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
			assert.True(t, current(ctx), "main")
			assert.True(t, current(context.Background()), "main, without its ctx")

			ended := make(chan struct{})
			assert.NoError(t, b.Spawn(ctx, func(ctx context.Context) {
				defer close(ended)
				assert.True(t, current(ctx), "a task")
				assert.NoError(t, libkit.Yield(ctx, b))
				assert.True(t, current(ctx), "a task that has waited")
			}))
			assert.NoError(t, libkit.Receive(ctx, b, ended))

			assert.NoError(t, libkit.Call(ctx, b, func(ctx context.Context) error {
				assert.True(t, current(ctx), "a call")
				return nil
			}))
			assert.NoError(t, libkit.Call(ctx, other, func(inner context.Context) error {
				got, ok := loop.Current(ctx) // the ctx of another loop's task
				assert.True(t, ok)
				assert.Same(t, other, got, "a call to another loop, with the ctx of this one")
				return nil
			}))

			leaked := make(chan struct{})
			go func() {
				defer close(leaked)
				assert.False(t, current(ctx), "a goroutine that has the ctx of a task")
			}()
			assert.NoError(t, libkit.Receive(ctx, b, leaked))

			posted := make(chan struct{})
			assert.NoError(t, b.Post(func() {
				defer close(posted)
				assert.False(t, current(ctx), "a posted function")
			}))
			return libkit.Receive(ctx, b, posted)
		}))
	})
}

func TestHostIsTheLoopOfSyncCode(t *testing.T) {
	onBoth(t, func(t *testing.T, b loop.Backend) {
		_, tsc := libkit.NewContext(t)
		require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
			_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
				host, ok := loop.Host(ctx)
				assert.True(t, ok)
				assert.Same(t, b, host)
				_, ok = loop.Current(ctx)
				assert.False(t, ok)
				_, ok = loop.Host(context.Background())
				assert.False(t, ok, "a ctx from outside")
				leaked := make(chan struct{})
				go func() {
					defer close(leaked)
					_, ok := loop.Host(ctx)
					assert.False(t, ok, "a goroutine that has the ctx of sync code")
				}()
				<-leaked
				return 0, nil
			}, asyncsync.On(tsc))
			return err
		}))
	})
}

func TestCallOfTheHost(t *testing.T) { onBoth(t, callOfTheHost) }

func callOfTheHost(t *testing.T, b loop.Backend) {
	_, tsc := libkit.NewContext(t)
	var order []string
	require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
		_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
			order = append(order, "sync")
			return loop.Call(ctx, nil, func(ctx context.Context) (int, error) {
				got, ok := loop.Current(ctx)
				assert.True(t, ok)
				assert.Same(t, b, got)
				order = append(order, "task")
				// The thread serves while its function waits for the call.
				return asyncsync.ToThread(ctx, func(context.Context) (int, error) {
					order = append(order, "sync again")
					return 0, nil
				})
			})
		}, asyncsync.On(tsc))
		return err
	}))
	require.Equal(t, []string{"sync", "task", "sync again"}, order)
}

func TestCallWithoutALoop(t *testing.T) {
	onBoth(t, func(t *testing.T, b loop.Backend) {
		never := func(context.Context) error { t.Error("has run"); return nil }
		require.ErrorIs(t, libkit.Call(context.Background(), nil, never), loop.ErrNoLoop)
		require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
			assert.ErrorIs(t, libkit.Call(ctx, nil, never), loop.ErrNoLoop, "a task has no host")
			return nil
		}))
	})
}

func TestCallEndsAsItsFunctionDoes(t *testing.T) {
	for _, from := range []string{"a goroutine", "its own task", "a task of another thread", "a task of goroutines"} {
		t.Run(from, func(t *testing.T) {
			onBoth(t, func(t *testing.T, b loop.Backend) {
				hooks := libkit.Listen(t)
				b = libkit.Running(t, b)
				caller := b
				switch from {
				case "a goroutine":
					caller = nil
				case "a task of another thread":
					caller = libkit.Running(t, loop.NewThread())
				case "a task of goroutines":
					caller = libkit.Running(t, loop.Goroutines())
				}
				for _, e := range testkit.Ends {
					made := func(ctx context.Context) error {
						return libkit.Call(ctx, b, func(ctx context.Context) error {
							if err := libkit.Yield(ctx, b); err != nil {
								return err
							}
							return e.Do()
						})
					}
					o := testkit.OutcomeOf(func() error {
						if caller == nil {
							return made(context.Background())
						}
						return libkit.Call(context.Background(), caller, made)
					})
					e.Check(t, o)
				}
				panics, _ := hooks.Unheard()
				require.LessOrEqual(t, len(panics), 1, "the hooks hear once of a panic")
			})
		})
	}
}

func TestCallInAPostedFunctionIsRefused(t *testing.T) {
	testkit.Guard(t)
	testkit.NoLeaks(t)
	b := libkit.Running(t, loop.NewThread())
	other := libkit.Running(t, loop.NewThread())
	never := func(context.Context) error { t.Error("has run"); return nil }
	done := make(chan struct{})
	require.NoError(t, b.Post(func() {
		defer close(done)
		assert.ErrorIs(t, libkit.Call(context.Background(), b, never), loop.ErrOnLoop)
		assert.ErrorIs(t, libkit.Call(context.Background(), other, never), loop.ErrOnLoop)
		assert.ErrorIs(t, b.Park(context.Background(), func(func()) { t.Error("armed") }), loop.ErrOnLoop)
	}))
	<-done
}

// From L1 to L2 and back to L1: the tasks park, so nobody is blocked.
func TestCallsInARing(t *testing.T) {
	for _, first := range libkit.Backends {
		for _, second := range libkit.Backends {
			t.Run(first+" "+second, func(t *testing.T) {
				testkit.Guard(t)
				testkit.NoLeaks(t)
				l1, l2 := libkit.Running(t, libkit.NewBackend(t, first)), libkit.Running(t, libkit.NewBackend(t, second))
				depth := 0
				var next func(ctx context.Context) error
				next = func(ctx context.Context) error {
					depth++
					switch {
					case depth == 10:
						return nil
					case depth%2 == 0:
						return libkit.Call(ctx, l1, next)
					default:
						return libkit.Call(ctx, l2, next)
					}
				}
				require.NoError(t, libkit.Call(context.Background(), l1, next))
				require.Equal(t, 10, depth)
			})
		}
	}
}

func TestTheEndOfCtxWhileACallWaits(t *testing.T) {
	for _, from := range []string{"a goroutine", "its own task", "a task of another thread"} {
		t.Run(from, func(t *testing.T) {
			onBoth(t, func(t *testing.T, b loop.Backend) {
				b = libkit.Running(t, b)
				caller := b
				if from == "a task of another thread" {
					caller = libkit.Running(t, loop.NewThread())
				}
				within := func(ctx context.Context, fn func(context.Context) error) error {
					if from == "a goroutine" {
						return fn(ctx)
					}
					return libkit.Call(ctx, caller, fn)
				}
				// The function is told, and what it returns counts.
				ctx, cancel := context.WithCancelCause(context.Background())
				err := within(ctx, func(ctx context.Context) error {
					return libkit.Call(ctx, b, func(ctx context.Context) error {
						err := b.Park(ctx, func(func()) { go cancel(testkit.ErrEnd) })
						assert.Same(t, testkit.ErrEnd, err)
						assert.NoError(t, libkit.Yield(context.WithoutCancel(ctx), b))
						return errors.Join(err)
					})
				})
				require.ErrorIs(t, err, testkit.ErrEnd)
				require.NotSame(t, testkit.ErrEnd, err)

				// One that has not begun does not.
				kept, release := make(chan struct{}), make(chan struct{})
				if b.(interface{ String() string }).String()[0] == 'g' {
					return // there each begins at once
				}
				require.NoError(t, b.Post(func() {
					close(kept)
					<-release
				}))
				<-kept
				if from == "its own task" {
					close(release)
					return // it would have to run while the loop is kept
				}
				ctx, cancel = context.WithCancelCause(context.Background())
				ended := make(chan error, 1)
				go func() {
					ended <- within(ctx, func(ctx context.Context) error {
						return libkit.Call(ctx, b, func(context.Context) error { t.Error("has begun"); return nil })
					})
				}()
				cancel(testkit.ErrEnd)
				require.ErrorIs(t, <-ended, testkit.ErrEnd)
				close(release)
				require.NoError(t, libkit.Call(context.Background(), b, func(context.Context) error { return nil }))
			})
		})
	}
}

var name = local.New[string]()

func TestLocalValues(t *testing.T) {
	onBoth(t, func(t *testing.T, b loop.Backend) {
		get := func() string { v, _ := name.Get(); return v }
		defer name.Set("caller")()
		require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
			assert.Equal(t, "caller", get(), "main has the values of Run's caller")
			name.Set("main")

			ended := make(chan struct{})
			assert.NoError(t, b.Spawn(ctx, func(ctx context.Context) {
				defer close(ended)
				assert.Equal(t, "main", get(), "a task has a fork")
				name.Set("task")
				assert.NoError(t, libkit.Yield(ctx, b))
				assert.Equal(t, "task", get())
			}))
			assert.Equal(t, "main", get())
			assert.NoError(t, libkit.Receive(ctx, b, ended))
			assert.Equal(t, "main", get())

			posted := make(chan struct{})
			assert.NoError(t, b.Post(func() {
				defer close(posted)
				assert.Equal(t, "", get(), "a posted function has none")
				name.Set("posted")
			}))
			assert.NoError(t, libkit.Receive(ctx, b, posted))
			assert.NoError(t, b.Post(func() { assert.Equal(t, "", get(), "none is left by another") }))

			assert.NoError(t, libkit.Call(ctx, b, func(context.Context) error {
				assert.Equal(t, "main", get(), "a call has those of its caller")
				name.Set("call")
				return nil
			}))
			assert.Equal(t, "call", get(), "and its caller those of the call")
			return nil
		}))
		require.Equal(t, "call", get())
		name.Set("goroutine")
		other := libkit.Running(t, libkit.NewBackend(t, "thread"))
		require.NoError(t, libkit.Call(context.Background(), other, func(context.Context) error {
			assert.Equal(t, "goroutine", get())
			name.Set("other")
			return nil
		}))
		require.Equal(t, "other", get())
	})
}

func TestThreadCriticalValues(t *testing.T) {
	testkit.Guard(t)
	testkit.NoLeaks(t)
	var order []string
	b := loop.NewThread()
	handle := local.New[string](local.ThreadCritical(), local.OnThreadExit(func(v string) {
		select {
		case <-b.Done():
			t.Error("Done is closed before the exit functions have run")
		default:
		}
		order = append(order, "exit "+v)
	}))
	outside := local.New[string](local.ThreadCritical())
	outside.Set("outside")
	defer outside.Delete()
	require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
		_, ok := outside.Get()
		assert.False(t, ok, "the thread of a loop has values of its own")
		handle.Set("one")
		require.NoError(t, libkit.Call(ctx, b, func(ctx context.Context) error {
			v, _ := handle.Get()
			assert.Equal(t, "one", v, "all tasks have the thread's")
			handle.Set("two")
			return nil
		}))
		v, _ := handle.Get()
		assert.Equal(t, "two", v)
		done := make(chan struct{})
		require.NoError(t, b.Post(func() {
			defer close(done)
			v, _ := handle.Get()
			assert.Equal(t, "two", v)
		}))
		require.NoError(t, libkit.Receive(ctx, b, done))
		var err error
		finished := make(chan struct{})
		go func() { // a call from a goroutine
			defer close(finished)
			err = libkit.Call(context.Background(), b, func(context.Context) error {
				v, _ := handle.Get()
				order = append(order, "call "+v)
				return nil
			})
		}()
		assert.NoError(t, libkit.Receive(ctx, b, finished))
		return err
	}))
	require.Equal(t, []string{"call two", "exit two"}, order)
	v, _ := outside.Get()
	require.Equal(t, "outside", v)
}

func TestExitFunctionsThatFail(t *testing.T) {
	testkit.Guard(t)
	testkit.NoLeaks(t)
	hooks := libkit.Listen(t)
	bad := local.New[int](local.ThreadCritical(), local.OnThreadExit(func(int) { panic(testkit.ErrEnd) }))
	b := loop.NewThread()
	require.NoError(t, libkit.Run(context.Background(), b, func(context.Context) error {
		bad.Set(1)
		return nil
	}))
	panics, _ := hooks.Unheard()
	require.Equal(t, []any{testkit.ErrEnd}, panics)

	gone := local.New[int](local.ThreadCritical(), local.OnThreadExit(func(int) { runtime.Goexit() }))
	b = loop.NewThread()
	o := testkit.OutcomeOf(func() error {
		return libkit.Run(context.Background(), b, func(context.Context) error {
			gone.Set(1)
			return nil
		})
	})
	require.Equal(t, "goexit", o.How)
	<-b.Done()
}

func TestExitFunctionsThatFailAfterAPostedFunction(t *testing.T) {
	testkit.Guard(t)
	testkit.NoLeaks(t)
	bad := local.New[int](local.ThreadCritical(), local.OnThreadExit(func(int) { panic(testkit.ErrEnd) }))
	foreign := loop.FromPost(func(fn func()) error { go fn(); return nil }, nil)
	for name, l := range map[string]loop.Loop{"goroutines": libkit.Running(t, loop.Goroutines()), "foreign": foreign} {
		t.Run(name, func(t *testing.T) {
			told := make(chan any)
			t.Cleanup(asyncsync.SetHooks(asyncsync.Hooks{Panicked: func(i asyncsync.CallInfo) { told <- i.Panic }}))
			require.NoError(t, l.Post(func() { bad.Set(1) }))
			require.Equal(t, testkit.ErrEnd, <-told)
			require.NoError(t, libkit.Call(context.Background(), l, func(context.Context) error { return nil }))
		})
	}
}

// The hooks are told if the ctx of a task of Spawn panics when the task gives it back.
func TestCtxOfSpawnThatPanicsAtTheEnd(t *testing.T) {
	onBoth(t, func(t *testing.T, b loop.Backend) {
		told := make(chan any, 1)
		t.Cleanup(asyncsync.SetHooks(asyncsync.Hooks{Panicked: func(i asyncsync.CallInfo) { told <- i.Panic }}))
		b = libkit.Running(t, b)
		up, cancel := context.WithCancel(context.Background())
		defer cancel()
		ctx := &testkit.BadCtx{Context: up}
		ended := make(chan struct{})
		require.NoError(t, b.Spawn(ctx, func(context.Context) { ctx.Set(func() { panic(testkit.ErrEnd) }); close(ended) }))
		<-ended
		require.Equal(t, testkit.ErrEnd, <-told)
	})
}

func TestNames(t *testing.T) {
	for _, b := range []loop.Backend{loop.NewThread(loop.Named("gui"), loop.Option{}), loop.Goroutines(loop.Named("gui"))} {
		require.Equal(t, "gui", b.(interface{ String() string }).String())
	}
	one, two := loop.NewThread().(interface{ String() string }), loop.NewThread().(interface{ String() string })
	require.NotEmpty(t, one.String())
	require.NotEqual(t, one.String(), two.String())
}

// Everything works in a bubble, where it has a clock of its own.
func TestBackendsInABubble(t *testing.T) {
	for _, kind := range libkit.Backends {
		t.Run(kind, func(t *testing.T) {
			testkit.Guard(t)
			synctest.Test(t, func(t *testing.T) {
				b := libkit.NewBackend(t, kind)
				start := time.Now()
				var woke [3]time.Duration
				sleep := func(ctx context.Context, d time.Duration) error {
					return b.Park(ctx, func(wake func()) { time.AfterFunc(d, wake) })
				}
				caller := make(chan struct{})
				go func() {
					defer close(caller)
					assert.NoError(t, libkit.Call(context.Background(), b, func(ctx context.Context) error { return sleep(ctx, time.Hour) }))
				}()
				require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
					left := make(chan struct{}, len(woke))
					for i := range woke {
						assert.NoError(t, b.Spawn(ctx, func(ctx context.Context) {
							assert.NoError(t, sleep(ctx, time.Duration(i+1)*time.Hour))
							woke[i] = time.Since(start)
							left <- struct{}{}
						}))
					}
					for range woke {
						if err := libkit.Receive(ctx, b, left); err != nil {
							return err
						}
					}
					timed, cancel := context.WithTimeout(ctx, time.Minute)
					defer cancel()
					assert.ErrorIs(t, b.Park(timed, func(func()) {}), context.DeadlineExceeded)
					return nil
				}))
				<-caller
				require.Equal(t, [3]time.Duration{time.Hour, 2 * time.Hour, 3 * time.Hour}, woke)
				require.Equal(t, 3*time.Hour+time.Minute, time.Since(start))
			})
		})
	}
}

// A task started with another's ctx outlives it; so does one on another loop.
func TestTheEndOfATaskCancelsNoOther(t *testing.T) {
	onBoth(t, func(t *testing.T, b loop.Backend) {
		outer, cancel := context.WithCancelCause(context.Background())
		defer cancel(nil)
		require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
			first, parked, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
			assert.NoError(t, b.Spawn(outer, func(ctx context.Context) {
				defer close(first)
				assert.NoError(t, b.Spawn(ctx, func(ctx context.Context) {
					defer close(ended)
					assert.NoError(t, libkit.Receive(ctx, b, first))
					assert.NoError(t, libkit.Yield(ctx, b))
					assert.NoError(t, ctx.Err(), "the task that has started it is over")
					assert.Same(t, testkit.ErrEnd, b.Park(ctx, func(func()) { close(parked) }))
				}))
			}))
			assert.NoError(t, libkit.Receive(ctx, b, parked))
			cancel(testkit.ErrEnd)
			return libkit.Receive(ctx, b, ended)
		}))
	})
}

func TestParkOffTheLoopBlocks(t *testing.T) {
	onBoth(t, func(t *testing.T, b loop.Backend) {
		require.NoError(t, b.Park(context.Background(), func(wake func()) { go wake() }))
		require.NoError(t, b.Park(context.Background(), func(wake func()) { wake(); wake() }))
		ctx, cancel := context.WithCancelCause(context.Background())
		require.Same(t, testkit.ErrEnd, b.Park(ctx, func(func()) { go cancel(testkit.ErrEnd) }))
	})
}

// Park parks the calling task on its own loop, whatever backend it is called of.
func TestParkOfAnotherBackend(t *testing.T) {
	testkit.Guard(t)
	b, other := loop.NewThread(), loop.NewThread()
	require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
		ran := false
		err := other.Park(ctx, func(wake func()) {
			assert.NoError(t, b.Spawn(ctx, func(context.Context) {
				ran = true
				wake()
			}))
		})
		assert.True(t, ran)
		return err
	}))
}

// RunUntil makes a task a thread, whose sync code must not be suspended: the thread
// is locked once more than the coroutine was made with.
func TestATaskThatHasBecomeAThread(t *testing.T) {
	testkit.Guard(t)
	testkit.NoLeaks(t)
	b, other := loop.NewThread(), libkit.Running(t, loop.NewThread())
	ran := 0
	require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
		e := asyncsync.NewCurrentThreadExecutor()
		done := make(chan struct{})
		assert.NoError(t, e.Post(func() {
			defer close(done)
			_, ok := loop.Current(ctx)
			assert.False(t, ok, "sync code is no task")
			assert.NoError(t, b.Park(ctx, func(wake func()) { go wake() }))
			assert.NoError(t, libkit.Call(ctx, other, func(ctx context.Context) error {
				ran++
				return libkit.Yield(ctx, other)
			}))
			never := func(context.Context) error { t.Error("has run"); return nil }
			assert.ErrorIs(t, libkit.Run(ctx, loop.NewThread(), never), loop.ErrOnLoop)
			ran++
		}))
		assert.NoError(t, e.RunUntil(done))
		assert.NoError(t, libkit.Yield(ctx, b))
		return nil
	}))
	require.Equal(t, 2, ran)
}

func TestUnheardEndingsAreToldBeforeRunReturns(t *testing.T) {
	onBoth(t, func(t *testing.T, b loop.Backend) {
		hooks := libkit.Listen(t)
		require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
			for _, e := range testkit.Ends {
				begun := make(chan struct{})
				assert.NoError(t, b.Spawn(ctx, func(ctx context.Context) {
					close(begun)
					_ = e.Do()
				}))
				assert.NoError(t, libkit.Receive(ctx, b, begun))
				assert.NoError(t, b.Post(func() { _ = e.Do() }))
			}
			return nil
		}))
		panics, goexits := hooks.Unheard()
		require.Len(t, panics, 2)
		require.Equal(t, 2, goexits)
	})
}

func TestALoopFromPost(t *testing.T) {
	testkit.Guard(t)
	testkit.NoLeaks(t)
	queue, done := make(chan func(), 64), make(chan struct{})
	posts := 0
	l := loop.FromPost(func(fn func()) error {
		posts++
		if posts == 3 {
			return testkit.ErrEnd
		}
		queue <- fn
		return nil
	}, done)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for fn := range queue {
			fn()
		}
	}()
	got, err := loop.Call(context.Background(), l, func(ctx context.Context) (int, error) {
		_, ok := loop.Current(ctx)
		assert.False(t, ok)
		_, ok = loop.Host(ctx)
		assert.False(t, ok)
		never := func(context.Context) error { t.Error("has run"); return nil }
		assert.ErrorIs(t, libkit.Call(ctx, l, never), loop.ErrOnLoop)
		assert.ErrorIs(t, libkit.Run(ctx, loop.NewThread(), never), loop.ErrOnLoop)
		assert.ErrorIs(t, loop.NewThread().Park(ctx, func(func()) {}), loop.ErrOnLoop)
		return 7, nil
	})
	require.NoError(t, err)
	require.Equal(t, 7, got)
	require.NoError(t, l.Post(func() {}))
	require.Same(t, testkit.ErrEnd, l.Post(func() { t.Error("has run") }), "the loop's own error")

	hooks := libkit.Listen(t)
	for _, e := range testkit.Ends {
		o := testkit.OutcomeOf(func() error {
			return libkit.Call(context.Background(), l, func(context.Context) error { return e.Do() })
		})
		e.Check(t, o)
		require.NoError(t, l.Post(func() { _ = e.Do() }))
	}
	b := libkit.Running(t, loop.NewThread())
	require.NoError(t, libkit.Call(context.Background(), b, func(ctx context.Context) error {
		return libkit.Call(ctx, l, func(context.Context) error { return nil })
	}))
	for _, e := range testkit.Ends {
		o := testkit.OutcomeOf(func() error {
			return libkit.Call(context.Background(), b, func(ctx context.Context) error {
				return libkit.Call(ctx, l, func(context.Context) error { return e.Do() })
			})
		})
		e.Check(t, o, "from a task")
	}
	close(queue)
	<-ended
	panics, goexits := hooks.Unheard()
	require.Len(t, panics, 3, "one was that of a call, one that of a task's call, one nobody's")
	require.Equal(t, 4, goexits, "the same, and each of the two calls of the task's has ended so")

	close(done)
	before := posts
	require.ErrorIs(t, l.Post(func() {}), loop.ErrStopped)
	require.ErrorIs(t, libkit.Call(context.Background(), l, func(context.Context) error { return nil }), loop.ErrStopped)
	require.Equal(t, before, posts, "post is not called after done")
}

// A loop that takes a function and stops without having run it.
func TestALoopThatStopsWithFunctionsInIt(t *testing.T) {
	testkit.Guard(t)
	testkit.NoLeaks(t)
	for _, from := range []string{"a goroutine", "a task"} {
		t.Run(from, func(t *testing.T) {
			var mu sync.Mutex
			var queue []func()
			done := make(chan struct{})
			l := loop.FromPost(func(fn func()) error {
				mu.Lock()
				defer mu.Unlock()
				queue = append(queue, fn)
				if len(queue) == 1 {
					close(done)
				}
				return nil
			}, done)
			made := func(ctx context.Context) error {
				return libkit.Call(ctx, l, func(context.Context) error { t.Error("has run"); return nil })
			}
			var err error
			if from == "a task" {
				err = libkit.Call(context.Background(), libkit.Running(t, loop.NewThread()), made)
			} else {
				err = made(context.Background())
			}
			require.ErrorIs(t, err, loop.ErrStopped)
			queue[0]() // too late: the caller has gone
		})
	}
}

// Tasks of somebody else's backend are cancelled as that says.
func TestCallOfAForeignBackend(t *testing.T) {
	testkit.Guard(t)
	testkit.NoLeaks(t)
	parked := make(chan struct{}, 2)
	ended := make(chan error, 2)
	b := loop.NewThread()
	f := loop.Backend(foreignBackend{b})
	other := libkit.Running(t, loop.NewThread())
	wait := func(ctx context.Context) error {
		return b.Park(ctx, func(func()) { parked <- struct{}{} })
	}
	go func() { ended <- libkit.Call(context.Background(), f, wait) }()
	go func() {
		ended <- libkit.Call(context.Background(), other, func(ctx context.Context) error { return libkit.Call(ctx, f, wait) })
	}()
	require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
		both := make(chan struct{})
		go func() {
			defer close(both)
			<-parked
			<-parked
		}()
		return libkit.Receive(ctx, b, both)
	}))
	require.ErrorIs(t, <-ended, loop.ErrStopped)
	require.ErrorIs(t, <-ended, loop.ErrStopped)
}

// A Backend drops a task whose ctx ends before the task has begun. Who waits for it is told,
// while the backend runs.
func TestATaskThatAForeignBackendDrops(t *testing.T) {
	onBoth(t, func(t *testing.T, b loop.Backend) {
		ctx, cancel := context.WithCancelCause(context.Background())
		ran := false
		dropped := task.Go(ctx, func(context.Context) (int, error) { ran = true; return 0, nil }, task.On(foreignBackend{b}))
		cancel(testkit.ErrEnd)
		require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
			_, err := dropped.Wait(ctx)
			assert.ErrorIs(t, err, testkit.ErrEnd)
			return nil
		}))
		require.False(t, ran)
	})
}

// A task that its loop has not accepted leaves nothing behind, however Post has ended.
func TestATaskThatALoopDoesNotAccept(t *testing.T) {
	for _, e := range testkit.Ends {
		t.Run(e.How, func(t *testing.T) {
			testkit.NoLeaks(t)
			l := loop.FromPost(func(func()) error { return e.Do() }, nil)
			e.CheckIs(t, testkit.OutcomeOf(func() error {
				refused := task.Go(context.Background(), func(context.Context) (int, error) { return 0, nil }, task.On(l))
				_, err := refused.Wait(context.Background())
				return err
			}))
		})
	}
}

func TestManyTasksOfAllKinds(t *testing.T) {
	onBoth(t, func(t *testing.T, b loop.Backend) {
		libkit.Listen(t)
		const n = 200
		var ended atomic.Int64
		require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
			all := make(chan struct{})
			for i := range n {
				assert.NoError(t, b.Spawn(ctx, func(ctx context.Context) {
					defer func() {
						if ended.Add(1) == n {
							close(all)
						}
					}()
					for range i % 5 {
						assert.NoError(t, b.Park(ctx, func(wake func()) { go wake() }))
					}
					_ = testkit.Ends[i%3].Do()
				}))
			}
			return libkit.Receive(ctx, b, all)
		}))
		require.EqualValues(t, n, ended.Load())
	})
}

// A known limit: in the main function of a Run of Goroutines in a function on a thread,
// the goroutine still counts as the thread.
func TestRunOfGoroutinesOnAThread(t *testing.T) {
	testkit.Guard(t)
	for _, kind := range libkit.Backends {
		current, host := false, false
		err := asyncsync.Do(context.Background(), func(ctx context.Context) error {
			_, err := loop.Run(ctx, libkit.NewBackend(t, kind), func(ctx context.Context) (int, error) {
				_, current = loop.Current(ctx)
				_, host = loop.Host(ctx)
				return 0, nil
			})
			return err
		})
		require.NoError(t, err)
		require.Equal(t, kind == "thread", current, kind)
		require.Equal(t, kind != "thread", host, kind)
	}
}
