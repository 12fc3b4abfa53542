package asyncsync_test

import (
	"context"
	"fmt"
	"testing"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/core"

	"github.com/stretchr/testify/require"
)

// A call that finds the thread looking out for it does not get ahead of what the
// same goroutine has queued before.
func TestSpinningThreadKeepsTheOrder(t *testing.T) {
	guard(t)
	core.SetSpin(1)
	defer core.SetSpin(0)
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
// below is about to run it, and the function on the thread ends at once: that end
// is not lost on whoever waits for it.
func TestAsyncFunctionGivenUpWhileItIsHandedOver(t *testing.T) {
	guard(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
	for _, spin := range []int{-1, 1} {
		core.SetSpin(spin)
		defer core.SetSpin(0)
		for range 20000 {
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
