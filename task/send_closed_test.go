//go:build !race

package task_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/task"
)

// The race detector takes a close beside a send for a race, which in a program it is.

// A send to a channel that is closed meanwhile panics where it was called.
func TestSendToAClosedChannel(t *testing.T) {
	onEachInBubble(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
		ch := make(chan int)
		go func() {
			time.Sleep(time.Second)
			close(ch)
		}()
		defer func() { require.Contains(t, recover().(error).Error(), "closed channel") }()
		err := task.Send(ctx, ch, 1)
		t.Errorf("it has returned %v", err)
		return nil
	})
}
