package asyncsync_test

import (
	"context"
	"runtime"
	"testing"

	"asyncsync.dev/asyncsync"

	"github.com/stretchr/testify/require"
)

// Nesting is limited by memory alone, and takes two stacks: the async parts run
// on goroutines that are blocked below, so that their number does not grow.
func TestDepth(t *testing.T) {
	guard(t)
	const depth = 5000
	for _, name := range []string{"pinned", "unpinned"} {
		t.Run(name, func(t *testing.T) {
			var opts []asyncsync.ContextOption
			if name == "unpinned" {
				opts = append(opts, asyncsync.Unpinned())
			}
			ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), opts...)
			defer tsc.Close()
			before := runtime.NumGoroutine()
			bottom := 0
			var up, down asyncsync.Func[int, int]
			up = asyncsync.AsyncToSync(func(ctx context.Context, level int) (int, error) {
				if level == 0 {
					bottom = runtime.NumGoroutine()
					return 0, nil
				}
				return down(ctx, level)
			})
			down = asyncsync.SyncToAsync(func(ctx context.Context, level int) (int, error) {
				n, err := up(ctx, level-1)
				return n + 1, err
			})
			n, err := down(ctx, depth)
			require.NoError(t, err)
			require.Equal(t, depth, n)
			require.LessOrEqual(t, bottom, before+5, "goroutines at the bottom")
		})
	}
}
