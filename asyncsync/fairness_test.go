package asyncsync_test

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/spin"

	"github.com/stretchr/testify/require"
)

// With one processor a caller and a pinned thread hand it to each other past
// the run queue. Another goroutine must get its turn all the same, within a
// number of calls, at the top and below a blocked thread.
func TestFairnessWithOneProcessor(t *testing.T) {
	guard(t)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const calls = 4096
	call := asyncsync.SyncToAsync(func(context.Context, int) (int, error) { return 0, nil })
	starve := func(ctx context.Context) (int, error) {
		var ran atomic.Bool
		go ran.Store(true)
		for n := range calls {
			if ran.Load() {
				return n, nil
			}
			if _, err := call(ctx, 0); err != nil {
				return 0, err
			}
		}
		return calls, nil
	}
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
	defer tsc.Close()
	n, err := starve(ctx)
	require.NoError(t, err)
	require.Less(t, n, calls)
	n, err = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		return asyncsync.FromThread(ctx, starve)
	})
	require.NoError(t, err)
	require.Less(t, n, calls)
}

// Contexts used one after another, with one processor, use one thread again
// and again.
func TestSequentialContextsWithOneProcessor(t *testing.T) {
	guard(t)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{})
	defer pool.Close()
	for range 4000 {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
		_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 0, nil })
		require.NoError(t, err)
		require.NoError(t, tsc.Close())
	}
	require.LessOrEqual(t, pool.Stats().Started, uint64(10))
}

// A context that is told not to spin does not, even where the whole process is
// made to: no thread ever opens its short way in.
func TestSpinOption(t *testing.T) {
	guard(t)
	require.PanicsWithValue(t, "asyncsync: Spin: negative budget; 0 turns spinning off", func() { asyncsync.Spin(-1) })
	spin.Set(1)
	defer spin.Set(0)
	for _, budget := range []time.Duration{0, time.Microsecond, time.Millisecond} {
		before := spin.Count()
		err := asyncsync.WithThreadSensitiveContext(context.Background(), func(ctx context.Context) error {
			for i := range 100 {
				if v, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) { return i, nil }); v != i || err != nil {
					return fmt.Errorf("call %d: %v, %v", i, v, err)
				}
			}
			for budget > 0 && spin.Count() == before {
				runtime.Gosched() // after the last call the thread looks in vain; the guard bounds this
			}
			return nil
		}, asyncsync.Spin(budget))
		require.NoError(t, err)
		if budget == 0 {
			require.Equal(t, before, spin.Count())
		}
	}
}
