package loop_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/core"
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

// The same of a goroutine that starts a task, and waits for it, again and again.
func TestWaitLetsOthersRunOnOneProcessor(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	testkit.Guard(t)
	const budget = 5000
	for range 20 {
		var ran atomic.Bool
		go func() { ran.Store(true) }()
		waits := 0
		for ; !ran.Load() && waits < budget; waits++ {
			ended := make(chan struct{})
			go close(ended)
			require.NoError(t, core.Park(context.Background(), ended, "test"))
		}
		require.Less(t, waits, budget, "the other goroutine does not get to run")
	}
}
