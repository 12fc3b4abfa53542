package task_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/task"
)

// A value is sent once or not at all, and Send says which, whatever is cancelled
// when.
func TestSendSaysWhetherItHasSent(t *testing.T) {
	onEach(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
		const n = 1000
		ch, got := make(chan int), make(chan []int, 1)
		go func() {
			var all []int
			for v := range ch {
				all = append(all, v)
			}
			got <- all
		}()
		r := rand.New(rand.NewPCG(1, 2))
		for next := 0; next < n; {
			own, cancel := context.WithCancelCause(ctx)
			if r.IntN(2) == 0 {
				go cancel(errCause)
			}
			err := task.Send(own, ch, next)
			cancel(nil)
			switch {
			case err == nil:
				next++
			case !errors.Is(err, errCause):
				return err
			}
		}
		close(ch)
		all, _, err := task.Recv(ctx, got)
		require.Len(t, all, n)
		for i, v := range all {
			require.Equal(t, i, v)
		}
		return err
	})
}

// A send that waits lets others run: the receiver may be a task of the same loop.
func TestSendWaits(t *testing.T) {
	onEachInBubble(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
		ch := make(chan int)
		tk := task.Go(ctx, func(ctx context.Context) (int, error) {
			if err := task.Sleep(ctx, time.Second); err != nil {
				return 0, err
			}
			v, _, err := task.Recv(ctx, ch)
			return v, err
		})
		require.NoError(t, task.Send(ctx, ch, 7))
		v, err := tk.Wait(ctx)
		require.NoError(t, err)
		require.Equal(t, 7, v)
		over, cancel := context.WithCancelCause(ctx)
		cancel(errCause)
		require.Equal(t, errCause, task.Send(over, make(chan int, 1), 1))
		late, cancel := context.WithCancelCause(ctx)
		timer := time.AfterFunc(time.Second, func() { cancel(errCause) })
		defer timer.Stop()
		require.Equal(t, errCause, task.Send(late, nil, 1))
		return nil
	})
}
