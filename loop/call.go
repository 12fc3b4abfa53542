package loop

import (
	"context"

	"asyncsync.dev/internal/core"
)

// Call runs fn on a loop and waits for it. On a [Backend] fn is a task, on another
// Loop a posted function, which must not wait for anything that takes long. If l is
// nil the loop is [Host]'s; where there is none Call returns [ErrNoLoop].
//
// How fn ends reaches the caller: what it returns, a panic with the same value, a
// [runtime.Goexit]. Both see the same goroutine-local variables, both ways.
//
// The ctx that fn is given ends with ctx, and on a Backend with [ErrStopped] when
// that stops. If either happens before fn has begun it does not begin, and Call
// returns the cause. Once fn runs Call waits for it, and fn's own result counts.
//
// Call may be called from any goroutine. A task of a thread loop parks meanwhile,
// also if the loop is its own. Sync code on a thread serves, as it does in
// asyncsync.FromThread. Inside a posted function of a loop that has one thread Call
// returns [ErrOnLoop], whatever loop it is given.
//
// It panics if fn is nil.
func Call[R any](ctx context.Context, l Loop, fn func(context.Context) (R, error)) (R, error) {
	checkCtx(ctx, "Call")
	if fn == nil {
		panic("loop: Call with a nil function")
	}
	var none R
	switch _, blocks := here(); {
	case blocks:
		return none, ErrOnLoop
	case l == nil:
		host, ok := Host(ctx)
		if !ok {
			return none, ErrNoLoop
		}
		l = host
	}
	// core serves where the caller is a thread, parks it if it is a task, knows who
	// waits for whom, and tells the hooks.
	c := &call[R]{fn: fn}
	if err := core.Away(ctx, &c.Call, c, &callOptions, core.Elsewhere{Home: homeOf(l), Job: &c.job}); err != nil {
		return none, err
	}
	c.Raise()
	return c.result, c.err
}

// callOptions are none; core does not change them.
var callOptions core.Options

// A call is one on its way, and the task that its function runs as.
type call[R any] struct {
	core.Call
	job    core.Job
	fn     func(context.Context) (R, error)
	result R
	err    error
}

// Run implements [core.Body].
func (c *call[R]) Run(ctx context.Context) { c.result, c.err = c.fn(ctx) }

// Err tells the hooks what the function returned.
func (c *call[R]) Err() error { return c.err }
