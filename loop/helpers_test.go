package loop_test

import (
	"testing"

	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/loop"
)

// onBoth runs a test with a new backend of each kind, which the test runs.
func onBoth(t *testing.T, test func(t *testing.T, b loop.Backend)) {
	for _, kind := range libkit.Backends {
		t.Run(kind, func(t *testing.T) {
			testkit.Guard(t)
			testkit.NoLeaks(t)
			test(t, libkit.NewBackend(t, kind))
		})
	}
}
