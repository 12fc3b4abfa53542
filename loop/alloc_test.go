package loop_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/loop"
)

// What a call to a thread loop may allocate: the call, the context of the function with
// the wait for it, and what the caller sleeps on. A ctx that can end has a layer over
// it, which the loop can end as well.
func TestAllocsOfCalls(t *testing.T) {
	l := libkit.Running(t, libkit.NewBackend(t, "thread"))
	can, cancel := context.WithCancel(context.Background())
	defer cancel()
	allocs := func(ctx context.Context) float64 {
		return testing.AllocsPerRun(200, func() {
			_, _ = loop.Call(ctx, l, func(context.Context) (int, error) { return 0, nil })
		})
	}
	require.LessOrEqual(t, allocs(context.Background()), 3.0)
	require.LessOrEqual(t, allocs(can), 7.0)
}

// A task that was spawned where nobody but the loop ends what runs has no layer of its
// own: by the hundred thousand it would be felt. The function of a Call is such a place
// too.
func TestAllocsOfSpawnInACall(t *testing.T) {
	l := libkit.Running(t, libkit.NewBackend(t, "thread"))
	spawned := func(ctx context.Context) float64 {
		return testing.AllocsPerRun(200, func() {
			_ = l.Park(ctx, func(wake func()) {
				_ = l.Spawn(ctx, func(context.Context) { wake() })
			})
		})
	}
	require.NoError(t, libkit.Call(context.Background(), l, func(ctx context.Context) error {
		var inTask float64
		if err := l.Park(ctx, func(wake func()) {
			_ = l.Spawn(ctx, func(ctx context.Context) {
				inTask = spawned(ctx)
				wake()
			})
		}); err != nil {
			return err
		}
		require.Equal(t, inTask, spawned(ctx))
		require.LessOrEqual(t, inTask, 7.0)
		return nil
	}))
}
