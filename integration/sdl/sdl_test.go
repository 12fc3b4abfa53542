package sdl_test

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdl2 "github.com/veandco/go-sdl2/sdl"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/integration/sdl"
	"asyncsync.dev/loop"
	"asyncsync.dev/loop/looptest"
)

func TestMain(m *testing.M) {
	if os.Getenv("SDL_VIDEODRIVER") == "" {
		os.Setenv("SDL_VIDEODRIVER", "dummy") // no display is needed
	}
	os.Exit(m.Run())
}

// start starts a loop that ends with the test.
func start(t *testing.T) *sdl.Loop {
	t.Helper()
	dog := time.AfterFunc(time.Minute, func() { panic(t.Name() + " hangs") })
	l, err := sdl.Start()
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := l.Quit(); err != nil {
			t.Errorf("Quit: %v", err)
		}
		dog.Stop()
	})
	return l
}

func TestSDLKeepsTheContract(t *testing.T) {
	looptest.TestLoop(t, func(t *testing.T) loop.Loop { return start(t) })
}

func TestCallsRunOnSDLsThread(t *testing.T) {
	l := start(t)
	tid := func(context.Context) (int, error) { return syscall.Gettid(), nil }
	first, err := loop.Call(context.Background(), l, tid)
	require.NoError(t, err)
	for range 20 {
		again, err := loop.Call(context.Background(), l, tid)
		require.NoError(t, err)
		require.Equal(t, first, again)
	}
}

func TestEndingsOnSDLsThread(t *testing.T) {
	l := start(t)
	boom := errors.New("boom")
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
	got, err := loop.Call(context.Background(), l, func(context.Context) (int, error) { return 7, nil })
	require.NoError(t, err)
	require.Equal(t, 7, got)
}

// A thread loop of tasks, one of which draws on SDL's thread.
func TestATaskCallsSDL(t *testing.T) {
	l := start(t)
	b := loop.NewThread()
	got, err := loop.Run(context.Background(), b, func(ctx context.Context) (int, error) {
		others := 0
		if err := b.Spawn(ctx, func(context.Context) { others++ }); err != nil {
			return 0, err
		}
		got, err := loop.Call(ctx, l, func(context.Context) (int, error) { return 7, nil })
		if others != 1 {
			t.Error("the loop has not run others while its task waited for SDL")
		}
		return got, err
	})
	require.NoError(t, err)
	require.Equal(t, 7, got)
}

// A program's main thread sleeps in SDL_WaitEvent, and is the thread of a handle. OnWake
// pushes an event of its own kind when there is something to run.
func TestAHandleHasTheThreadOfAnEventLoop(t *testing.T) {
	dog := time.AfterFunc(time.Minute, func() { panic(t.Name() + " hangs") })
	defer dog.Stop()
	type mainThread struct {
		exec *asyncsync.CurrentThreadExecutor
		tid  int
	}
	ready, over := make(chan mainThread), make(chan int)
	go func() {
		ran := 0
		defer func() { over <- ran }()
		runtime.LockOSThread()
		if err := sdl2.Init(sdl2.INIT_VIDEO); err != nil {
			t.Error(err)
			close(ready)
			return
		}
		defer sdl2.Quit()
		exec := asyncsync.NewCurrentThreadExecutor()
		defer exec.Close()
		wake := sdl2.RegisterEvents(1)
		exec.OnWake(func() {
			// A whole SDL_Event, of which the user event is the beginning.
			event := &struct {
				sdl2.UserEvent
				rest [64]byte
			}{UserEvent: sdl2.UserEvent{Type: wake}}
			if _, err := sdl2.PushEvent(&event.UserEvent); err != nil {
				t.Error(err)
			}
		})
		ready <- mainThread{exec, syscall.Gettid()}
		for {
			switch sdl2.WaitEvent().(type) {
			case *sdl2.QuitEvent:
				return
			case *sdl2.UserEvent:
				n, err := exec.RunPending()
				if err != nil {
					t.Error(err)
					return
				}
				ran += n
			}
		}
	}()
	m, ok := <-ready
	require.True(t, ok)

	ctx := context.Background()
	window, err := asyncsync.Open(ctx,
		func(context.Context) (*sdl2.Window, error) {
			return sdl2.CreateWindow("window", 0, 0, 32, 32, sdl2.WINDOW_HIDDEN)
		},
		func(w *sdl2.Window) error {
			if syscall.Gettid() != m.tid {
				return errors.New("closed on another thread")
			}
			return w.Destroy()
		},
		asyncsync.WithThread(m.exec))
	require.NoError(t, err)
	const frames = 50
	for i := range frames {
		title := strconv.Itoa(i)
		got, err := asyncsync.Get(ctx, window, func(ctx context.Context, w *sdl2.Window) (string, error) {
			w.SetTitle(title)
			// Async code that comes back, while the thread is blocked here.
			return asyncsync.FromThread(ctx, func(ctx context.Context) (string, error) {
				return asyncsync.Get(ctx, window, func(_ context.Context, w *sdl2.Window) (string, error) {
					if syscall.Gettid() != m.tid {
						return "", errors.New("on another thread")
					}
					return w.GetTitle(), nil
				})
			})
		})
		require.NoError(t, err)
		require.Equal(t, title, got)
	}
	require.NoError(t, window.Close())
	quit := &struct {
		sdl2.QuitEvent
		rest [64]byte
	}{QuitEvent: sdl2.QuitEvent{Type: sdl2.QUIT}}
	_, err = sdl2.PushEvent(&quit.QuitEvent)
	require.NoError(t, err)
	require.Equal(t, frames+2, <-over)
}
