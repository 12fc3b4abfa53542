package task_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/task"
)

// With the ctx of a task that is over, a function that returned because another one
// failed did not itself fail.
func TestGather_WithContextOfEndedTask(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		over, cancel := overCtx(t)
		_, err := task.Gather(over,
			func(context.Context) (int, error) { return 0, errReal },
			func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() })
		require.Equal(t, errReal, err)
		cancel(errCause)
		_, err = task.Gather(over,
			func(context.Context) (int, error) { return 0, errReal },
			func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() })
		require.Equal(t, errors.Join(errReal, context.Canceled), err)
	})
}
