package loop

import (
	"context"
	"errors"
)

// ErrStopped is returned by Post and Spawn when the loop has stopped, or is about
// to, and what they were given will not run; by calls that wait for a function that
// will not run for this reason; and by [Run] of a backend that was run before. It is
// also the cause with which a backend that stops cancels its tasks.
var ErrStopped = errors.New("loop: stopped")

// ErrNoLoop is returned by [Call] without a loop where [Host] finds none.
var ErrNoLoop = errors.New("loop: no loop")

// ErrOnLoop is returned where a wait would block a loop: by [Run] inside a task or
// a posted function of a loop that has one thread, its own or another's, and by
// [Call] and Park inside a posted function. A task of such a loop may call Call and
// Park.
var ErrOnLoop = errors.New("loop: would block the loop that it is called on")

// A Poster takes functions and runs each of them once, soon, on a goroutine
// of its choice.
//
// Post does not wait for fn, may be called from any goroutine, and may call
// fn before it returns only if that cannot block the poster's own work. Where
// it returns an error fn is not called, now or later. Functions of one caller
// run in the order in which they were posted, unless the Poster says that it
// runs functions side by side. What happened before Post synchronizes before
// the call of fn.
//
// fn never panics when a call of this module posted it: panics and
// [runtime.Goexit] are carried to the caller. After a Goexit the goroutine
// that called fn is lost to the Poster, as it is after any Goexit, unless the
// Poster is one of this package.
type Poster interface {
	Post(fn func()) error
}

// A Loop is a Poster that can stop. What it had accepted and not begun when
// Done was closed is not run; whoever waits for it learns from Done.
//
// Package looptest has these rules as a test:
//
//   - Post never blocks, may be called from anywhere, the loop's own functions
//     included, and keeps the order of each caller.
//   - A function that was accepted runs once, or Done is closed.
//   - After Done was closed Post returns [ErrStopped].
type Loop interface {
	Poster

	// Done returns a channel that is closed when the loop has stopped.
	Done() <-chan struct{}
}

// A Backend is a Loop that runs tasks: functions that may wait. It is all that
// differs from one kind of asynchronous code to another.
//
// A Backend of this package accepts functions, tasks and calls before [Run] is
// called for it. They wait for that.
//
// When the main function of Run has ended the backend accepts nothing more. What
// was posted before still runs; tasks that have not begun do not begin; tasks that
// run are cancelled with [ErrStopped] and waited for. Then Done is closed.
//
// A panic or a [runtime.Goexit] of a task or a posted function goes to whoever
// waits for it: [Run], [Call]. If nobody does the hooks are told (AddHooks of
// package asyncsync): of a panic Panicked, of a Goexit Ended. The loop goes on.
type Backend interface {
	Loop

	// Spawn starts a task: fn runs on the backend, soon, with a fork of the
	// caller's goroutine-local variables. It does not wait for fn, and may be
	// called from anywhere.
	//
	// The ctx that fn is given ends with ctx, with the same cause, and with
	// ErrStopped when the backend stops. It may end when fn has. A task whose
	// ctx has ended before it could begin does not begin. If Spawn returns an
	// error fn does not run.
	Spawn(ctx context.Context, fn func(context.Context)) error

	// Park suspends the calling task. It calls arm, on the task, with the
	// function that ends the wait, and returns nil when that was called, or
	// the cause of ctx when ctx has ended; if both happened it may return
	// either. If ctx has ended before, arm may not be called.
	//
	// wake may be called from anywhere, at any time, any number of times:
	// before arm has returned, and after Park has. Only the first call during
	// the wait has an effect.
	//
	// On a goroutine that runs no task Park blocks that goroutine. Inside a
	// posted function of a loop with one thread it returns ErrOnLoop.
	Park(ctx context.Context, arm func(wake func())) error
}

// A PosterFunc is a function used as a Poster.
type PosterFunc func(fn func()) error

// Post calls f(fn).
func (f PosterFunc) Post(fn func()) error { return f(fn) }
