package loop_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/loop"
)

// Where there is one processor, a goroutine that calls a loop without a pause lets
// others run: it and what it calls would hand the processor to each other for ever.
func TestCallLetsOthersRunOnOneProcessor(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, kind := range libkit.Backends {
		t.Run(kind, func(t *testing.T) {
			testkit.Guard(t)
			b := libkit.Running(t, libkit.NewBackend(t, kind))
			const budget = 5000 // calls, to a goroutine that is ready all the time
			for range 20 {
				var ran atomic.Bool
				go func() { ran.Store(true) }()
				calls := 0
				for ; !ran.Load() && calls < budget; calls++ {
					got, err := loop.Call(context.Background(), b, func(context.Context) (int, error) { return calls, nil })
					require.NoError(t, err)
					require.Equal(t, calls, got)
				}
				require.Less(t, calls, budget, "the other goroutine does not get to run")
			}
		})
	}
}
