package loop

import (
	"context"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/goroutine"
)

// Run runs a backend on the calling goroutine, with main as its first task. For
// a thread loop, the goroutine is locked to its OS thread meanwhile. When main
// has ended, the backend stops as described at [Backend]. When all tasks have
// ended, Run ends as main did: it returns what main returned, panics with the
// same value, or calls [runtime.Goexit]. Main and the caller see the same
// goroutine-local variables, in both directions. An exit function of a
// thread-critical variable runs on the caller's goroutine: one that calls
// Goexit ends that too.
//
// A backend can be run once. Any further Run returns [ErrStopped], also while
// the first one is under way. Inside a task of a thread loop, and inside a
// function posted to a thread loop or to a loop of [FromPost], Run returns
// [ErrOnLoop], whatever backend it is given.
//
// If ctx has ended, main does not run and Run returns the cause; the backend
// stops all the same. If ctx ends while main runs, only main's ctx ends.
//
// Run panics if ctx or main is nil, or if b is not a backend of this package.
func Run[R any](ctx context.Context, b Backend, main func(context.Context) (R, error)) (R, error) {
	var (
		r   R
		err error
	)
	if main == nil {
		panic("loop: Run with a nil function")
	}
	end, refusal := run(ctx, b, core.FuncPC(main), func(ctx context.Context) { r, err = main(ctx) })
	if refusal != nil {
		var none R
		return none, refusal
	}
	core.Raise(end)
	return r, err
}

// run runs main, which is called in reports after the function with the entry pc.
func run(ctx context.Context, b Backend, pc uintptr, main func(context.Context)) (core.Ending, error) {
	checkCtx(ctx, "Run")
	own, ok := b.(builtin)
	if !ok {
		panic("loop: Run needs a backend that NewThread, Goroutines or Builtin has returned")
	}
	if onLoop() {
		return core.Ending{}, ErrOnLoop
	}
	return own.run(ctx, core.NewSolo(ctx, own.at(), pc, main))
}

// Current returns the backend of the calling task. In any other code it returns
// false: in a posted function, in sync code that a task has called, and on a
// goroutine that a task has started, whatever its ctx. A ctx can be passed on;
// being on a loop cannot.
func Current(ctx context.Context) (Backend, bool) {
	checkCtx(ctx, "Current")
	r := goroutine.Current()
	if r == nil || r.Task == nil || core.Here() != nil {
		return nil, false
	}
	if j, ok := r.Task.(*core.Job); ok {
		return j.Home.Loop.(Backend), true
	}
	if t, _ := here(); t != nil {
		b, ok := t.Loop().Home().(Backend)
		return b, ok
	}
	return nil, false
}

// Host returns, in sync code, the loop of the task that has called the sync
// code. Sync code runs on a thread, or as an insensitive call on another
// goroutine (see package asyncsync). Host needs both the goroutine of the sync
// code and the ctx that its function was given: with another ctx, such as
// [context.Background], or on another goroutine it may return false. In any other
// code, including tasks, Host returns false.
func Host(ctx context.Context) (Loop, bool) {
	checkCtx(ctx, "Host")
	if h := core.Host(ctx).Tasks(); h != nil {
		return h.Loop.(Loop), true
	}
	return nil, false
}
