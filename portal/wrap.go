package portal

import (
	"context"
	"sync"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/loop"
)

// Wrap makes an asynchronous resource usable from outside the loop. It runs open as a
// task there, and returns what open has opened, and a function that closes it.
//
// open and the function that it returns run in one task, and so on one OS thread where
// the loop has one: a group or a scope that open has made may be waited for there. That
// function is called once: with the error that the close function of Wrap was given,
// which says how the use of the resource has ended; or, if the portal stops before, with
// [loop.ErrStopped] or the cause of its Close. A Stop that cancels, or a Close with a
// cause, ends open's ctx, but not the one that closing gets.
//
// The close function waits for that, and returns or ends as closing has, also if it was
// the portal that has closed the resource. Further calls tell the same. Inside a
// function posted to a loop with one thread it has the resource closed, does not wait,
// and returns [loop.ErrOnLoop]. If it is not called, what closing has returned is one of
// the errors of [Portal.Close].
//
// Wrap ends as open does if that fails: with its error, panic or [runtime.Goexit]. If
// ctx ends while open runs, open's ctx ends, and Wrap waits for it; should open have
// succeeded, the resource is closed with the cause. Once it is open ctx does not
// matter. Wrap returns ErrStopped after a stop, and ErrOnLoop, as [Call] does. It panics
// if open is nil.
//
// It is anyio's wrap_async_context_manager.
func Wrap[R any](ctx context.Context, p *Portal, open func(context.Context) (R, func(context.Context, error) error, error)) (R, func(error) error, error) {
	p.check("Wrap")
	if open == nil {
		panic("portal: Wrap with a nil function")
	}
	u := &use{over: make(chan struct{})}
	v := &visit{stopped: func(cause error) { u.end(cause) }}
	t, r, err := startTask(ctx, p, v, "Wrap", core.FuncPC(open), func(ctx context.Context, started func(R) error) (struct{}, error) {
		r, closing, err := open(ctx)
		if err != nil {
			return struct{}{}, err
		}
		if closing == nil {
			panic("portal: Wrap: open has returned neither an error nor a function that closes")
		}
		if err := started(r); err != nil {
			u.end(err) // nobody is there to use it
		} else if err := core.Park(ctx, u.over, "portal resource"); err != nil {
			u.end(err)
		}
		return struct{}{}, closing(context.WithoutCancel(ctx), u.err)
	}, nil)
	if err != nil {
		var none R
		return none, nil, err
	}
	return r, func(err error) error {
		u.end(err)
		if _, blocks := core.OnLoop(); blocks {
			return loop.ErrOnLoop
		}
		_, err = t.Wait(context.Background())
		return err
	}, nil
}

// A use is how long a resource is used.
type use struct {
	once sync.Once
	err  error         // how it has ended
	over chan struct{} // closed then
}

func (u *use) end(err error) {
	u.once.Do(func() {
		u.err = err
		close(u.over)
	})
}
