package loop

import (
	"context"

	"asyncsync.dev/internal/core"
)

// Call runs fn on l and waits for it. On a [Backend] fn is a task. On another
// Loop it is a posted function, which must not wait for anything that takes
// long. If l is nil, Call uses the loop of [Host], and returns [ErrNoLoop] if
// there is none.
//
// The caller ends as fn did: it returns what fn returned, panics with the same
// value, or calls [runtime.Goexit]. fn and the caller see the same
// goroutine-local variables, in both directions.
//
// The ctx of fn ends with ctx. On a Backend it also ends with [ErrStopped] when
// the backend stops. If either happens before fn has begun, fn does not run and
// Call returns the cause. Once fn runs, Call waits for it and returns what fn
// returns.
//
// Call may be called from any goroutine. A task of a thread loop parks
// meanwhile, also if the loop is its own. Sync code on a thread serves, as in
// asyncsync.FromThread. Inside a function posted to a loop of NewThread or
// FromPost, Call returns [ErrOnLoop], whatever loop it is given.
//
// It panics if ctx or fn is nil.
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
	// Package core serves if the caller is a thread, parks the caller if it is a
	// task, knows who waits for whom, and tells the hooks.
	c := &call[R]{fn: fn}
	c.where.Home, c.where.Job = homeOf(l), &c.job
	if err := core.Away(ctx, &c.FullCall, c, &callOptions, &c.where); err != nil {
		return none, err
	}
	return c.outcome()
}

// callOptions is empty; core does not change it.
var callOptions core.Options

// A call is one call of Call, together with the task that its function runs as.
type call[R any] struct {
	core.FullCall
	where  core.Elsewhere
	job    core.Job
	fn     func(context.Context) (R, error)
	result R
	err    error
}

// Run implements [core.Body].
func (c *call[R]) Run(ctx context.Context) { c.result, c.err = c.fn(ctx) }

// Err tells the hooks what the function returned.
func (c *call[R]) Err() error { return c.err }

// outcome ends the caller as the function has ended. The ctx of the function leads to c,
// and may be kept: so c lets go of all that is the user's.
func (c *call[R]) outcome() (R, error) {
	var none R
	result, err, e := c.result, c.err, c.Take()
	c.fn, c.result, c.err = nil, none, nil
	core.Raise(e)
	return result, err
}
