package task_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// These tests are about what is kept longer than it is needed.

type big = [1 << 20]byte

// newBig returns a value that takes much memory, and reports when it has been collected.
func newBig() (b *big, gone func() bool) {
	var yes atomic.Bool
	b = new(big)
	runtime.AddCleanup(b, func(int) { yes.Store(true) }, 0)
	return b, yes.Load
}

// collected waits until the collector has found what gone tells of.
func collected(t *testing.T, what string, gone func() bool) {
	t.Helper()
	testkit.Poll(t, func() string {
		runtime.GC()
		if !gone() {
			return what + " is kept"
		}
		return ""
	})
}

// using returns the function of a task that captures b and ends as e says.
func using(b *big, e testkit.End) func(context.Context) (int, error) {
	return func(context.Context) (int, error) { b[0]++; return 1, e.Do() }
}

// A task that has ended, in whichever way, or will not begin, is a promise that is kept
// for its outcome. It must not keep its function.
func TestTaskKeepsNoFunction(t *testing.T) {
	background := context.Background()
	over := loop.NewThread()
	require.NoError(t, libkit.Run(background, over, func(context.Context) error { return nil }))
	for name, start := range map[string]func(t *testing.T, fn func(context.Context) (int, error)) *task.Task[int]{
		"a goroutine": func(_ *testing.T, fn func(context.Context) (int, error)) *task.Task[int] {
			return task.Go(background, fn)
		},
		"a goroutine, named": func(_ *testing.T, fn func(context.Context) (int, error)) *task.Task[int] {
			return task.Go(background, fn, task.Named("named"))
		},
		"a thread loop": func(t *testing.T, fn func(context.Context) (int, error)) *task.Task[int] {
			return task.Go(background, fn, task.On(running(t, loop.NewThread())))
		},
		"a pool": func(t *testing.T, fn func(context.Context) (int, error)) *task.Task[int] {
			pool := asyncsync.NewPoolExecutor(1)
			t.Cleanup(func() { require.NoError(t, pool.Close()) })
			return task.Go(background, fn, task.On(pool))
		},
		"a loop that has stopped": func(_ *testing.T, fn func(context.Context) (int, error)) *task.Task[int] {
			return task.Go(background, fn, task.On(over))
		},
		"the thread": func(t *testing.T, fn func(context.Context) (int, error)) *task.Task[int] {
			ctx, _ := libkit.NewContext(t)
			return asyncsync.Go(ctx, fn)
		},
		"the thread, cancelled": func(t *testing.T, fn func(context.Context) (int, error)) *task.Task[int] {
			ctx, _ := libkit.NewContext(t)
			var tk *task.Task[int]
			require.NoError(t, toThread(ctx, func(ctx context.Context) {
				tk = asyncsync.Go(ctx, fn)
				require.True(t, tk.Cancel(nil))
			}))
			return tk
		},
		"the thread, with a ctx that has ended": func(t *testing.T, fn func(context.Context) (int, error)) *task.Task[int] {
			ctx, _ := libkit.NewContext(t)
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return asyncsync.Go(ctx, fn)
		},
		"Start": func(t *testing.T, fn func(context.Context) (int, error)) *task.Task[int] {
			tk, _, err := task.Start(background, func(ctx context.Context, started func(int) error) (int, error) {
				require.NoError(t, started(1))
				return fn(ctx)
			})
			require.NoError(t, err)
			return tk
		},
	} {
		for _, e := range testkit.Ends {
			t.Run(name+"/"+e.How, func(t *testing.T) {
				guard(t)
				b, gone := newBig()
				tk := start(t, using(b, e))
				o := testkit.OutcomeOf(func() error { _, err := tk.Wait(background); return err })
				b = nil
				collected(t, "what the function has captured", gone)
				require.Equal(t, o, testkit.OutcomeOf(func() error { _, err := tk.Wait(background); return err }))
				require.False(t, tk.Cancel(nil))
			})
		}
	}
}

// What a loop's main function has left behind must not keep that.
func TestTaskKeepsNoMainFunction(t *testing.T) {
	for _, kind := range libkit.Backends {
		t.Run(kind, func(t *testing.T) {
			guard(t)
			var tk *task.Task[int]
			b, gone := newBig()
			uses := using(b, testkit.Ends[0])
			require.Equal(t, testkit.ErrEnd, libkit.Run(context.Background(), libkit.NewBackend(t, kind), func(ctx context.Context) error {
				tk = task.Go(ctx, func(context.Context) (int, error) { return 1, nil })
				if _, err := tk.Wait(ctx); err != nil {
					return err
				}
				_, err := uses(ctx)
				return err
			}))
			b = nil
			collected(t, "what the main function has captured", gone)
			runtime.KeepAlive(tk)
		})
	}
}

// The value that Start has returned is not kept by the function, which goes on.
func TestStartKeepsNoValue(t *testing.T) {
	guard(t)
	var gone func() bool
	end := make(chan struct{})
	tk, v, err := task.Start(context.Background(), func(_ context.Context, started func(*big) error) (int, error) {
		var b *big
		b, gone = newBig()
		err := started(b)
		<-end
		return 1, err
	})
	require.NoError(t, err)
	require.NotNil(t, v)
	v = nil
	collected(t, "the value", gone)
	close(end)
	_, err = tk.Wait(context.Background())
	require.NoError(t, err)
}

// The ctx of Start is not kept by the function that says that something has started.
func TestStartKeepsNoContext(t *testing.T) {
	guard(t)
	type key struct{}
	var says func(int) error
	gone := func() func() bool {
		b, gone := newBig()
		tk, _, err := task.Start(context.WithValue(context.Background(), key{}, b), func(_ context.Context, started func(int) error) (int, error) {
			says = started
			return 1, started(1)
		})
		require.NoError(t, err)
		_, err = tk.Wait(context.Background())
		require.NoError(t, err)
		return gone
	}()
	collected(t, "the ctx", gone)
	require.Equal(t, task.ErrStartedTwice, says(2))
}
