package rawwait

import (
	"testing"

	"asyncsync.dev/asyncsync"
	"context"
)

// Tests hold threads on purpose.
func TestGate(t *testing.T) {
	gate := make(chan int)
	go func() {
		_, _ = asyncsync.ToThread(t.Context(), func(context.Context) (int, error) { return <-gate, nil })
	}()
	gate <- 1
}
