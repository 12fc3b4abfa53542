package asyncsync

import (
	"fmt"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/goroutine"
	"asyncsync.dev/loop"
)

// A CurrentThreadExecutor runs functions on the goroutine that made it: a
// [loop.Loop] for a thread that somebody else owns, such as a GUI's main
// thread or a test's. The owner runs what is posted by calling
// [CurrentThreadExecutor.RunUntil]; others post, or send insensitive calls
// with [WithExecutor], and async functions with [WithLoop]. The owner closes it
// when there will be no other RunUntil, so that nobody waits for one.
//
// It is asgiref's class of the same name, made available by itself.
type CurrentThreadExecutor struct {
	onThreads
	exec *core.Executor
}

// NewCurrentThreadExecutor returns an executor of the calling goroutine.
func NewCurrentThreadExecutor() *CurrentThreadExecutor {
	return &CurrentThreadExecutor{exec: core.NewExecutor()}
}

// Post has fn run by the RunUntil that is under way or, if there is none, by
// the next. It may be called from anywhere, the executor's own goroutine
// included, and returns at once. Functions run in the order in which they were
// posted. After Close it returns [loop.ErrStopped], and fn does not run.
func (e *CurrentThreadExecutor) Post(fn func()) error {
	e.check("Post")
	if fn == nil {
		panic("asyncsync: CurrentThreadExecutor.Post: nil function")
	}
	if !e.exec.Post(fn) {
		return loop.ErrStopped
	}
	return nil
}

// RunUntil runs posted functions until done is closed or delivers, and then
// those that had been posted before; what these post in turn is left for the
// next RunUntil. It must be called on the goroutine that made the executor:
// elsewhere it returns [ErrWrongThread]. If that is not a thread of this
// library already it is locked to its OS thread and becomes one for the
// duration; if it is, RunUntil also serves the calls of what the function that
// calls it has started.
//
// If a posted function panics so does RunUntil; functions not yet begun stay
// for the next RunUntil. After Close, and if it was ended by that, RunUntil
// returns [loop.ErrStopped].
func (e *CurrentThreadExecutor) RunUntil(done <-chan struct{}) error {
	e.check("RunUntil")
	if done == nil {
		panic("asyncsync: RunUntil: nil channel, which never ends")
	}
	if !e.exec.Mine() {
		return fmt.Errorf("%w: RunUntil was called on goroutine %d, and is for %d, which has made the executor", ErrWrongThread, goroutine.ID(), e.exec.Goroutine())
	}
	if !e.exec.RunUntil(done) {
		return loop.ErrStopped
	}
	return nil
}

// Close ends the executor. What was posted and has not begun does not run; calls
// that wait for such a function, and those that come later, return an error that
// matches [loop.ErrStopped]. A RunUntil that is under way ends when the function
// that it runs has ended. So do those below it, if a posted function has called
// RunUntil in turn.
//
// Close may be called from anywhere, posted functions included, and more than
// once. It waits for nothing, and returns nil.
func (e *CurrentThreadExecutor) Close() error {
	e.check("Close")
	e.exec.Close()
	return nil
}

// Done returns a channel that is closed by Close.
func (e *CurrentThreadExecutor) Done() <-chan struct{} {
	e.check("Done")
	return e.exec.Done()
}

// here reports whether the caller is the executor's goroutine, where calls that
// are sent to it run inline, and returns the error that they get instead if the
// executor is closed. e may be nil.
func (e *CurrentThreadExecutor) here() (bool, error) {
	if e == nil || !e.exec.Mine() {
		return false, nil
	}
	if e.exec.Closed() {
		return true, loop.ErrStopped
	}
	return true, nil
}

func (e *CurrentThreadExecutor) check(what string) {
	if e == nil || e.exec == nil {
		panic("asyncsync: " + what + ": nil CurrentThreadExecutor, or one not made by NewCurrentThreadExecutor")
	}
}
