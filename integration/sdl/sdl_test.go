package sdl_test

import (
	"context"
	"errors"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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
