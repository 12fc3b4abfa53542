// Package loop holds the interfaces through which the rest of this module
// hands functions to somebody else's goroutine: an event loop, a worker pool,
// a GUI's main thread.
//
// The idea of programming against a narrow interface over many event loops is
// EasyNetwork's; the contract of Post follows what asyncio's
// call_soon_threadsafe and concurrent.futures' Executor.submit have in common.
package loop

import "errors"

// ErrStopped is returned by Post, and by calls that wait for a function they
// had posted, when the loop has stopped and the function will not run.
var ErrStopped = errors.New("loop: stopped")

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
// that called fn is lost to the Poster, as it is after any Goexit.
type Poster interface {
	Post(fn func()) error
}

// A Loop is a Poster that can stop. What it had accepted and not begun when
// Done was closed is not run; whoever waits for it learns from Done.
type Loop interface {
	Poster

	// Done returns a channel that is closed when the loop has stopped.
	Done() <-chan struct{}
}

// A PosterFunc is a function used as a Poster.
type PosterFunc func(fn func()) error

// Post calls f(fn).
func (f PosterFunc) Post(fn func()) error { return f(fn) }
