package core

import (
	"context"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/goroutine"
)

// A Goexit in an errand unwinds the goroutine that waits below. What is deferred
// there runs, and must not look as if it still waited.
func TestGoexitTakesTheWaitBack(t *testing.T) {
	s := &Scope{}
	ctx := s.Init(context.Background(), &Config{Pool: NewPool(1, 0, 1, DefaultIdleTimeout)})
	n := &Node{}
	left := make(chan *edge)
	on := make(chan int64, 1)
	go func() {
		rec := goroutine.Ensure()
		n.Start()
		rec.Node = n
		defer func() {
			waits := n.waits.Load()
			rec.Node = nil
			rec.Release()
			left <- waits
		}()
		c := &FullCall{}
		_ = s.Do(ctx, c, bodyFunc(func(ctx context.Context) {
			a := &FullCall{}
			_ = Away(ctx, a, bodyFunc(func(context.Context) {
				on <- goroutine.ID()
				runtime.Goexit()
			}), &Options{}, &Elsewhere{})
			a.Raise()
		}), &Options{})
		c.Raise()
	}()
	waits := <-left
	require.NotZero(t, <-on)
	require.Nil(t, waits)
	require.NoError(t, s.Close())
}
