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
