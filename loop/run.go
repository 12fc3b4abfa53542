package loop

import (
	"context"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/goroutine"
)

// Run runs a backend on the calling goroutine, which for a thread loop is locked
// to its OS thread meanwhile, with main as its first task. When main has ended the
// backend stops, as [Backend] says. Run returns when all tasks have ended: what
// main has returned, or ends as main has, with a panic of the same value or a
// [runtime.Goexit]. Main and the caller see the same goroutine-local variables,
// both ways.
//
// A backend is run once. Any further Run, also while the first one is not over,
// returns [ErrStopped]. Inside a task or a posted function of a loop that has one
// thread Run returns [ErrOnLoop], whatever backend it is given.
//
// If ctx has ended main does not run, and Run returns the cause; the backend stops
// all the same. If ctx ends while main runs, main's ctx ends, and nothing else.
//
// It panics if b is not a backend of this package.
func Run[R any](ctx context.Context, b Backend, main func(context.Context) (R, error)) (R, error) {
	var (
		r   R
		err error
	)
	if main == nil {
		panic("loop: Run with a nil function")
	}
	end, refusal := run(ctx, b, func(ctx context.Context) { r, err = main(ctx) })
	if refusal != nil {
		var none R
		return none, refusal
	}
	end.Raise()
	return r, err
}

func run(ctx context.Context, b Backend, main func(context.Context)) (core.Ending, error) {
	checkCtx(ctx, "Run")
	own, ok := b.(builtin)
	if !ok {
		panic("loop: Run needs a backend that NewThread, Goroutines or Builtin has returned")
	}
	if onLoop() {
		return core.Ending{}, ErrOnLoop
	}
	return own.run(ctx, core.NewSolo(ctx, own.at(), main))
}

// Current returns the backend whose task the caller is. It is false in any other
// code: in a posted function, in sync code that a task has called, on a goroutine
// that a task has started, whatever ctx it has. A ctx travels; being on a loop does
// not.
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

// Host returns, in sync code, the loop of the task that has called it. Sync code
// is what runs on a thread, or as an insensitive call on another goroutine (see
// package asyncsync). In any other code, tasks included, it is false.
func Host(ctx context.Context) (Loop, bool) {
	checkCtx(ctx, "Host")
	if h := core.Host(ctx).Tasks(); h != nil {
		return h.Loop.(Loop), true
	}
	return nil, false
}
