package core

import (
	"context"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/goroutine"
	"asyncsync.dev/internal/testkit"
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
				w.push(&Frame{}, "call")
				w.undo = end
				defer func() { top = th.top }()
				w.close()
			}()
			<-over
			require.Nil(t, top, "the frame stands")
			require.Equal(t, sleeper{}, *w)
		})
	}
}

// A function that waits may have lent a token. When its wait is over it serves calls until
// the token is back, and one of these may end it in a Goexit. The call that it has waited
// for leaves its group all the same.
func TestGoexitWhileATokenComesBack(t *testing.T) {
	testkit.Guard(t)
	r := &Resource{}
	r.Init(1)
	g := &Group{}
	_, cancel := g.Init(context.Background())
	defer cancel(nil)
	m := &Member{}
	g.Add(m)
	below := make(chan context.Context, 1)
	borrower := make(chan int64, 1)
	var top *Frame
	f := &FullCall{}
	over := make(chan struct{})
	go func() {
		defer close(over)
		th, s := adopt("")
		defer th.release()
		defer func() { top = th.top }()
		ctx := newCtx(context.Background(), s, nil, nil)
		h, err := r.Acquire(ctx, 1, true)
		if err != nil {
			panic(err)
		}
		defer h.Leave()
		_ = Away(ctx, f, &guest{m, func(ctx context.Context) {
			if _, err := r.Acquire(ctx, 1, false); err != nil { // it is lent
				panic(err)
			}
			borrower <- goroutine.ID()
			below <- ctx
		}}, &Options{}, &Elsewhere{Member: m})
	}()
	ctx := <-below
	testkit.Poll(t, func() string {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.owed) == 0 {
			return "nobody waits for the token"
		}
		return ""
	})
	c := &FullCall{}
	require.NoError(t, ScopeOf(ctx).Do(ctx, c, bodyFunc(func(context.Context) { runtime.Goexit() }), &Options{}))
	require.True(t, c.Ending().Goexit)
	<-over
	require.Nil(t, top, "the frame stands")
	require.False(t, m.listed, "the call is in its group")
	require.Equal(t, sleeper{}, f.sleeper)
	require.True(t, r.ReleaseOf(<-borrower, 1))
}

// A guest leaves its place when it has ended.
type guest struct {
	place *Member
	fn    func(context.Context)
}

func (g *guest) Run(ctx context.Context) { g.fn(ctx) }
func (g *guest) Over()                   { g.place.Leave() }
