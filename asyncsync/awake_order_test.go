package asyncsync_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/spin"
	"asyncsync.dev/task"
)

// A call that finds the thread looking out for it does not get ahead of what the
// same goroutine has queued before.
func TestSpinningThreadKeepsTheOrder(t *testing.T) {
	guard(t)
	spin.Set(1)
	defer spin.Set(0)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
	last := 0 // on the thread
	step := func(n int) func(context.Context) (int, error) {
		return func(context.Context) (int, error) {
			if n != last+1 {
				return 0, fmt.Errorf("call %d came after %d", n, last)
			}
			last = n
			return n, nil
		}
	}
	for n := 1; n < 30000; n += 3 {
		first := asyncsync.Go(ctx, step(n))
		second := asyncsync.Go(ctx, step(n+1))
		_, err := asyncsync.ToThread(ctx, step(n+2))
		require.NoError(t, err)
		_, err = first.Wait(ctx)
		require.NoError(t, err)
		_, err = second.Wait(ctx)
		require.NoError(t, err)
	}
	require.NoError(t, tsc.Close())
}

// An async function is given up at the very moment when the goroutine that waits
// below is about to run it, and the function on the thread ends at once. The caller of
// that function still learns of its end.
func TestAsyncFunctionGivenUpWhileItIsHandedOver(t *testing.T) {
	guard(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
	for _, mode := range []int{-1, 1} {
		spin.Set(mode)
		defer spin.Set(0)
		for range 5000 {
			_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				go cancel()
				asyncsync.FromThread(ctx, func(context.Context) (int, error) { return 0, nil })
				return 0, nil
			})
			require.NoError(t, err)
		}
	}
	require.NoError(t, tsc.Close())
}

// endsWhenAsked is a ctx that ends right after it was asked for the first time.
type endsWhenAsked struct {
	context.Context
	done chan struct{}

	mu    sync.Mutex
	asked bool
}

func (c *endsWhenAsked) Done() <-chan struct{} { return c.done }
func (c *endsWhenAsked) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.asked {
		c.asked = true
		close(c.done)
		return nil
	}
	return context.Canceled
}

// An async function is given up, and the next is handed over before the goroutine
// below has looked for the first: it may be reading that one.
func TestAsyncFunctionAfterOneThatWasGivenUp(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t)
	for range 3000 {
		n, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
			ended := &endsWhenAsked{Context: ctx, done: make(chan struct{})}
			asyncsync.FromThread(ended, func(context.Context) (int, error) { return 1, nil })
			return asyncsync.FromThread(ctx, func(context.Context) (int, error) { return 2, nil })
		})
		require.NoError(t, err)
		require.Equal(t, 2, n)
	}
}

// A thread that looks for the next call, for as long as this test may take, is
// told of a queued one that a join has made its own.
func TestAwakeThreadIsToldOfAJoin(t *testing.T) {
	guard(t)
	forceSpin(t, 1)
	ctx, tsc := newContext(t, asyncsync.Spin(time.Hour))
	for range 20 { // it does not look each time: there may be too many who do
		err := to(ctx, func(ctx context.Context) error {
			tk := task.Go(ctx, func(ctx context.Context) (none, error) { return none{}, to(ctx, on(nil0)) })
			return from(ctx, func(ctx context.Context) error {
				awaitQueued(t, tsc, 1)
				_, err := tk.Wait(ctx)
				return err
			})
		})
		require.NoError(t, err)
	}
}

// The same when a strict test ends, and the thread serves everybody again.
func TestAwakeThreadIsToldOfTheEndOfStrict(t *testing.T) {
	guard(t)
	forceSpin(t, 1)
	core.SetStrict(true)
	defer core.SetStrict(false)
	ctx, tsc := newContext(t, asyncsync.Spin(time.Hour), asyncsync.Serve(asyncsync.All))
	err := to(ctx, func(ctx context.Context) error {
		return from(ctx, func(context.Context) error {
			stranger := start(func() error { return to(context.Background(), on(nil0), asyncsync.On(tsc)) })
			awaitQueued(t, tsc, 1)
			core.SetStrict(false)
			return stranger.Wait().Err
		})
	})
	require.NoError(t, err)
}
