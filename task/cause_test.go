package task_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/deadlock"
	"asyncsync.dev/task"
)

// The end of a ctx may have a cause that matches ErrDeadlock. That is no refusal: who
// waits with it cancels what it waits for, and waits on.
func TestDeadlockAsCause(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(fmt.Errorf("gave up: %w", deadlock.ErrDeadlock))
	forever := func(ctx context.Context) (int, error) {
		<-ctx.Done()
		return 7, nil
	}
	tk := task.Go(context.Background(), forever)
	n, err := tk.WaitOrCancel(ctx)
	require.NoError(t, err)
	require.Equal(t, 7, n)
	require.True(t, tk.Cancelled())

	_, g := task.NewGroup(context.Background())
	ended := false
	g.Go(func(ctx context.Context) error {
		_, err := forever(ctx)
		ended = true
		return err
	})
	require.NoError(t, g.Wait(ctx))
	require.True(t, ended)
}
