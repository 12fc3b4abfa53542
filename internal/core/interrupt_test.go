package core_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/core"
)

// What calls Interrupt functions again is there while there is something to call,
// one for all calls of a bubble, and is forgotten with the last of them.
func TestRepeatersGoWhenTheyAreIdle(t *testing.T) {
	for range 3 {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			leave, ended := make(chan struct{}), make(chan error)
			const n = 10
			for range n {
				go func() {
					_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) { <-leave; return 0, nil },
						asyncsync.Insensitive(), asyncsync.Interrupt(func() {}))
					ended <- err
				}()
			}
			synctest.Wait()
			cancel()
			for range 5 {
				time.Sleep(time.Second)
				synctest.Wait()
				repeaters, queued := core.Repeaters()
				require.Equal(t, 1, repeaters)
				require.Equal(t, n, queued)
			}
			close(leave)
			for range n {
				require.NoError(t, <-ended)
			}
			synctest.Wait()
			repeaters, _ := core.Repeaters()
			require.Zero(t, repeaters)
		})
	}
}
