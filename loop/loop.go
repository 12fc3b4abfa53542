package loop

import (
	"context"
	"errors"
)

// ErrStopped says that the loop has stopped, or is about to. Post and Spawn
// return it when what they were given will not run. Calls that wait for a
// function that will not run for that reason return it too, and so does [Run]
// of a backend that was run before. It is also the cause with which a stopping
// backend cancels its tasks.
var ErrStopped = errors.New("loop: stopped")

// ErrNoLoop is returned by [Call] without a loop when [Host] finds none, and by
// portal.Open in code that is no task.
var ErrNoLoop = errors.New("loop: no loop: Call finds one in sync code that a task has called, with the ctx that it was given, and Open in a task; elsewhere name the loop (in a task: loop.Current)")

// ErrOnLoop is returned where a wait would block a loop: by [Run] inside a task
// of a thread loop, and by Run, [Call] and Park inside a function posted to a
// thread loop or to a loop of [FromPost]. A task of a thread loop may call Call
// and Park. A function posted to an executor of package asyncsync is sync code,
// and may call all three.
var ErrOnLoop = errors.New("loop: the wait would block the loop that it is called on: start a task there instead of a posted function, and close a loop or a portal from outside")

// A Poster accepts functions and runs each of them once, soon, on a goroutine
// of its choice.
//
// Post does not wait for fn and may be called from any goroutine. It may call
// fn before it returns only if that cannot block the poster's own work. If it
// returns an error, fn is never called. Functions of one caller run in the
// order in which they were posted, unless the Poster documents that it runs
// functions concurrently. What happened before Post synchronizes before the
// call of fn.
//
// A fn posted by this module never panics: panics and [runtime.Goexit] are
// carried to the caller. After a Goexit the goroutine that called fn is lost to
// the Poster, as after any Goexit, unless the Poster is one of this package.
type Poster interface {
	Post(fn func()) error
}

// A Loop is a Poster that can stop. Functions that it has accepted and not
// begun when Done is closed do not run; waiters learn of that from Done.
//
// Package looptest tests these rules:
//
//   - Post never blocks, may be called from anywhere, including the loop's own
//     functions, and keeps the order of each caller.
//   - An accepted function runs once, or Done is closed.
//   - After Done is closed, Post returns [ErrStopped].
type Loop interface {
	Poster

	// Done returns a channel that is closed when the loop has stopped.
	Done() <-chan struct{}
}

// A Backend is a Loop that runs tasks: functions that may wait. One kind of
// asynchronous code differs from another only in its Backend.
//
// A Backend of this package accepts functions, tasks and calls before [Run] is
// called for it. They wait for Run.
//
// When the main function of Run has ended, the backend accepts nothing more.
// Functions posted before still run. Tasks that have not begun do not begin.
// Running tasks are cancelled with [ErrStopped] and waited for. Then Done is
// closed.
//
// A panic or a [runtime.Goexit] of a task or a posted function reaches its
// waiter: [Run] or [Call]. If there is no waiter, the hooks are told (AddHooks
// of package asyncsync): Panicked of a panic, Ended of a Goexit. The loop goes
// on.
type Backend interface {
	Loop

	// Spawn starts a task: fn runs on the backend, soon, with a fork of the
	// caller's goroutine-local variables. Spawn does not wait for fn, and may be
	// called from anywhere.
	//
	// The ctx of fn ends with ctx, with the same cause, and with ErrStopped when
	// the backend stops. It may end when fn has ended. If ctx ends before the task
	// has begun, the task does not begin. If Spawn returns an error, fn does not
	// run.
	Spawn(ctx context.Context, fn func(context.Context)) error

	// Park suspends the calling task. It calls arm, on the task, with the function
	// that ends the wait. It returns nil when that function was called, or the
	// cause of ctx when ctx has ended; if both happened it may return either. If
	// ctx had ended before, arm may not be called. arm must not wait: on a thread
	// loop a wait through this module panics there.
	//
	// wake may be called from anywhere, at any time, any number of times: also
	// before arm has returned, and after Park has. Only the first call during the
	// wait has an effect.
	//
	// On a goroutine that runs no task, Park blocks that goroutine. Inside a posted
	// function of a loop of NewThread or FromPost it returns ErrOnLoop.
	Park(ctx context.Context, arm func(wake func())) error
}

// A PosterFunc is a function used as a Poster.
type PosterFunc func(fn func()) error

// Post calls f(fn).
func (f PosterFunc) Post(fn func()) error { return f(fn) }
