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

// The steps that take a wait back may run code of the user's: hooks that are told of a call
// that is refused, and calls that are served while a token comes back. However one of them
// ends, the others are taken: else the thread would keep the frame, and hang.
func TestCloseTakesAllStepsOfAWaitBack(t *testing.T) {
	for name, end := range map[string]func(){"return": func() {}, "panic": func() { panic("a hook") }, "Goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			g := &Group{}
			_, cancel := g.Init(context.Background())
			defer cancel(nil)
			m := &Member{}
			g.Add(m)
			top := &Frame{}
			var w *sleeper
			over := make(chan struct{})
			go func() {
				defer close(over)
				defer func() { _ = recover() }()
				th, _ := adopt("")
				defer th.release()
				f := &FullCall{}
				w = f.waiting(context.Background(), th, th.record)
				w.place = &Elsewhere{Member: m}
				m.list(w.call)
				w.push(&Frame{}, "call")
				w.undo = end
				defer func() { top = th.top }()
				w.close()
			}()
			<-over
			require.Nil(t, top, "the frame stands")
			require.False(t, m.listed, "the call is in its group")
			require.Equal(t, sleeper{}, *w)
		})
	}
}
