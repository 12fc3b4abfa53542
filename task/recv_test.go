package task_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/task"
)

// A value is received or stays in the channel, whatever is cancelled when.
func TestRecvLosesNothing(t *testing.T) {
	onEach(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
		const n = 2000
		ch := make(chan int)

		go func() {
			defer close(ch)
			for i := range n {

				ch <- i
			}
		}()
		r := rand.New(rand.NewPCG(1, 2))
		for want := 0; ; {
			own, cancel := context.WithCancelCause(ctx)
			if r.IntN(2) == 0 {
				go cancel(errCause)
			}
			v, ok, err := task.Recv(own, ch)
			cancel(nil)
			if err != nil {
				if !errors.Is(err, errCause) {
					return err
				}
				continue
			}
			if !ok {
				require.Equal(t, n, want)
				return nil
			}
			require.Equal(t, want, v)
			want++
		}
	})
}

// What is there is received at once; a ctx that has ended receives nothing, and a
// nil channel delivers nothing.
func TestRecvAtOnce(t *testing.T) {
	onEachInBubble(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
		ch := make(chan int, 1)
		ch <- 5
		over, cancel := context.WithCancelCause(ctx)
		cancel(errCause)
		_, _, err := task.Recv(over, ch)
		require.Equal(t, errCause, err)
		v, ok, err := task.Recv(ctx, ch)
		require.Equal(t, 5, v)
		require.True(t, ok)
		require.NoError(t, err)
		moved, err := task.MoveOn(ctx, 1, func(ctx context.Context) error {
			_, _, err := task.Recv[int](ctx, nil)
			return err
		})
		require.True(t, moved)
		return err
	})
}
