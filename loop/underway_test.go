package loop_test

import (
	"context"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// A task panics in a deferred function that a Goexit has called. The loop goes on: the
// Goexit ends the task's coroutine and no more.
func TestPanicUnderGoexitEndsNoLoop(t *testing.T) {
	for name, backend := range map[string]func(...loop.Option) loop.Backend{"thread": loop.NewThread, "goroutines": loop.Goroutines} {
		t.Run(name, func(t *testing.T) {
			testkit.Guard(t)
			n, err := loop.Run(context.Background(), backend(), func(ctx context.Context) (int, error) {
				for range 3 {
					tk := task.Go(ctx, func(context.Context) (int, error) {
						defer testkit.Culprit()
						runtime.Goexit()
						return 0, nil
					})
					func() {
						defer func() { require.Equal(t, testkit.Ends[1].Want.Value, recover()) }()
						_, _ = tk.Wait(ctx)
					}()
				}
				return task.Go(ctx, func(context.Context) (int, error) { return 7, nil }).Wait(ctx)
			})
			require.NoError(t, err)
			require.Equal(t, 7, n)
		})
	}
}
