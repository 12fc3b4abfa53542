package portal

import (
	"context"
	"sync"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/loop"
)

// Wrap makes an asynchronous resource usable from outside the loop. It runs
// open as a task on the loop. It returns the resource that open returned, and a
// function that closes it.
//
// open and its closing function run in one task, and so on one OS thread if the
// loop has one. So the closing function may wait for a group or close a scope
// that open has made. The closing function is called once. Its error argument
// says how the use of the resource ended: it is the error given to the close
// function of Wrap or, if the portal stops first, [loop.ErrStopped] or the
// cause of the portal's Close. A Stop that cancels, or a Close with a cause,
// ends the ctx of open, but not the ctx of the closing function.
//
// The close function of Wrap waits for the closing function and ends in the
// same way, also if the portal has closed the resource. Further calls report
// the same. Inside a function posted to a loop of [loop.NewThread] or
// [loop.FromPost] it starts the closing, does not wait, and returns
// [loop.ErrOnLoop]. If the close function is never called, [Portal.Close]
// returns the error of the closing function among others.
//
// If open fails, Wrap ends in the same way: with its error, panic or
// [runtime.Goexit]. If ctx ends while open runs, the ctx of open ends and Wrap
// waits for open; if open still succeeds, the resource is closed with the
// cause. Once the resource is open, ctx does not matter. Like [Call], Wrap
// returns ErrStopped after a stop, and ErrOnLoop. It panics if ctx or open is
// nil, or if open returns neither an error nor a closing function.
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
			u.end(err) // Wrap has given up: nothing will use the resource
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

// A use is the time during which a resource is used.
type use struct {
	once sync.Once
	err  error         // how it ended
	over chan struct{} // closed then
}

func (u *use) end(err error) {
	u.once.Do(func() {
		u.err = err
		close(u.over)
	})
}
