package glib_test

import (
	"context"
	"errors"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/integration/glib"
	"asyncsync.dev/loop"
	"asyncsync.dev/loop/looptest"
	"asyncsync.dev/task"
)

var hows = map[string]glib.How{"idle": glib.Idle, "invoke": glib.Invoke}

// start starts a loop that ends with the test.
func start(t *testing.T, how glib.How) *glib.Loop {
	t.Helper()
	dog := time.AfterFunc(time.Minute, func() { panic(t.Name() + " hangs") })
	l := glib.Start(how)
	t.Cleanup(func() {
		l.Quit()
		dog.Stop()
	})
	return l
}

func TestGLibKeepsTheContract(t *testing.T) {
	for name, how := range hows {
		t.Run(name, func(t *testing.T) {
			looptest.TestLoop(t, func(t *testing.T) loop.Loop { return start(t, how) })
		})
	}
}

func TestCallsRunOnGLibsThread(t *testing.T) {
	for name, how := range hows {
		t.Run(name, func(t *testing.T) {
			l := start(t, how)
			tid := func(context.Context) (int, error) { return syscall.Gettid(), nil }
			first, err := loop.Call(context.Background(), l, tid)
			require.NoError(t, err)
			require.NotEqual(t, syscall.Gettid(), first)
			for range 100 {
				again, err := loop.Call(context.Background(), l, tid)
				require.NoError(t, err)
				require.Equal(t, first, again)
			}
			// The same through the older door.
			again, err := asyncsync.FromThread(context.Background(), tid, asyncsync.WithLoop(l))
			require.NoError(t, err)
			require.Equal(t, first, again)
		})
	}
}

// All three endings, below a callback of C.
func TestEndingsOnGLibsThread(t *testing.T) {
	for name, how := range hows {
		t.Run(name, func(t *testing.T) {
			l := start(t, how)
			boom := errors.New("boom")
			for range 10 {
				_, err := loop.Call(context.Background(), l, func(context.Context) (int, error) { return 0, boom })
				require.Same(t, boom, err)

				done := make(chan any)
				go func() {
					defer func() { done <- recover() }()
					_, _ = loop.Call(context.Background(), l, func(context.Context) (int, error) { panic(boom) })
				}()
				require.Same(t, boom, <-done)

				go func() {
					defer func() { done <- recover() }()
					_, _ = loop.Call(context.Background(), l, func(context.Context) (int, error) {
						runtime.Goexit()
						return 0, nil
					})
					t.Error("Call has returned")
				}()
				require.Nil(t, <-done)

				require.NoError(t, l.Post(func() { panic(boom) }))
				require.NoError(t, l.Post(runtime.Goexit))
			}
			_, err := loop.Call(context.Background(), l, func(context.Context) (int, error) { return 0, nil })
			require.NoError(t, err)
		})
	}
}

// A thread loop whose tasks call C, which calls back.
func TestAWaitInsideACallbackIsRefused(t *testing.T) {
	dog := time.AfterFunc(time.Minute, func() { panic(t.Name() + " hangs") })
	defer dog.Stop()
	b := loop.NewThread()
	yield := func(ctx context.Context) error {
		return b.Park(ctx, func(wake func()) { wake() })
	}
	nothing := func(context.Context) (int, error) { return 0, nil }
	none, more := task.NewLimiter(0), make(chan struct{})
	_, err := loop.Run(context.Background(), b, func(ctx context.Context) (int, error) {
		ends := task.Go(context.Background(), func(context.Context) (int, error) { <-more; return 0, nil })
		defer close(more)
		for range 3 {
			// Calls to C, and callbacks that do not wait, are like any function.
			ran := false
			glib.CallBack(func() { ran = true })
			assert.True(t, ran)
			require.NoError(t, yield(ctx))

			for name, wait := range map[string]func(ctx context.Context){
				"Park": func(ctx context.Context) { _ = yield(ctx) },
				"Call": func(ctx context.Context) {
					_, _ = loop.Call(ctx, b, func(context.Context) (int, error) { return 0, nil })
				},
				"a call to a thread": func(ctx context.Context) { _, _ = asyncsync.ToThread(ctx, nothing) },
				"an insensitive call": func(ctx context.Context) {
					_, _ = asyncsync.ToThread(ctx, nothing, asyncsync.Insensitive())
				},
				"a call to another loop": func(ctx context.Context) {
					_, _ = asyncsync.FromThread(ctx, nothing, asyncsync.WithLoop(loop.Goroutines()))
				},
				"a task": func(ctx context.Context) { _, _ = ends.Wait(ctx) },
				"a group": func(ctx context.Context) {
					_, g := task.NewGroup(ctx)
					g.Go(func(ctx context.Context) error { _, err := ends.Wait(ctx); return err })
					_ = g.Wait(ctx)
				},
				"a limiter": func(ctx context.Context) { _ = none.Acquire(ctx) },
				"deeper":    func(ctx context.Context) { deeper(200, func() { _ = yield(ctx) }) },
				"twice":     func(ctx context.Context) { glib.CallBack(func() { _ = yield(ctx) }) },
			} {
				value := func() (v any) {
					defer func() { v = recover() }()
					glib.CallBack(func() { wait(ctx) })
					return nil
				}()
				assert.Equal(t, "loop: a task waits inside a C callback, where it cannot be suspended", value, name)
				assert.NoError(t, yield(ctx), name)
			}

			// One that nobody recovers ends the task, not the loop.
			ended := make(chan struct{})
			assert.NoError(t, b.Spawn(ctx, func(ctx context.Context) {
				defer close(ended)
				glib.CallBack(func() { _ = yield(ctx) })
				t.Error("the task goes on")
			}))
			for {
				select {
				case <-ended:
				default:
					require.NoError(t, yield(ctx))
					continue
				}
				break
			}
		}
		return 0, nil
	})
	require.NoError(t, err)
}

func deeper(n int, fn func()) {
	if n == 0 {
		fn()
		return
	}
	deeper(n-1, fn)
}

// A loop may run inside a callback: its tasks wait there, but inside no further one.
func TestALoopInsideACallback(t *testing.T) {
	dog := time.AfterFunc(time.Minute, func() { panic(t.Name() + " hangs") })
	defer dog.Stop()
	b := loop.NewThread()
	n := 0
	var err error
	glib.CallBack(func() {
		_, err = loop.Run(context.Background(), b, func(ctx context.Context) (int, error) {
			for range 10 {
				_, err := loop.Call(ctx, b, func(ctx context.Context) (int, error) {
					n++
					return 0, b.Park(ctx, func(wake func()) { go wake() })
				})
				if err != nil {
					return 0, err
				}
			}
			return 0, nil
		})
	})
	require.NoError(t, err)
	require.Equal(t, 10, n)
}
