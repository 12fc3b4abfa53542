package asyncsync

import (
	"fmt"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/goroutine"
	"asyncsync.dev/loop"
)

// A CurrentThreadExecutor runs functions on the goroutine that made it. It is a
// [loop.Loop] for a thread that somebody else owns, such as a GUI's main thread
// or a test's.
//
// The owner runs posted functions by calling [CurrentThreadExecutor.RunUntil].
// Others post functions, or send it insensitive calls with [WithExecutor] and
// async functions with [WithLoop]. The owner closes it after the last RunUntil,
// so that no caller waits for another one.
//
// It is asgiref's class of the same name, available by itself.
type CurrentThreadExecutor struct {
	onThreads
	exec *core.Executor
}

// NewCurrentThreadExecutor returns an executor of the calling goroutine.
func NewCurrentThreadExecutor() *CurrentThreadExecutor {
	return &CurrentThreadExecutor{exec: core.NewExecutor()}
}

// Post hands fn to the RunUntil that is under way or, if there is none, to the
// next one. It may be called from anywhere, including the executor's own
// goroutine, and returns at once. Functions run in the order in which they were
// posted. After Close, Post returns [loop.ErrStopped], and fn does not run.
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

// RunUntil runs posted functions until done is closed or delivers a value. It
// then runs those that had been posted before that; what these post is left for
// the next RunUntil.
//
// It must be called on the goroutine that made the executor. Elsewhere it
// returns [ErrWrongThread]. If that goroutine is not yet a thread of this
// library, RunUntil locks it to its OS thread and makes it one for the
// duration. If it is a thread, RunUntil also serves the calls of code started
// by the function that calls it.
//
// If a posted function panics, so does RunUntil; functions that have not begun
// stay for the next RunUntil. After Close, RunUntil returns [loop.ErrStopped],
// also if Close ended it. A nil done panics.
func (e *CurrentThreadExecutor) RunUntil(done <-chan struct{}) error {
	e.check("RunUntil")
	if done == nil {
		panic("asyncsync: RunUntil: nil channel: RunUntil would never end")
	}
	if !e.exec.Mine() {
		return fmt.Errorf("%w: RunUntil was called on goroutine %d, but must be called on goroutine %d, which made the executor", ErrWrongThread, goroutine.ID(), e.exec.Goroutine())
	}
	if !e.exec.RunUntil(done) {
		return loop.ErrStopped
	}
	return nil
}

// Close ends the executor. Posted functions that have not begun do not run.
// Calls that wait for such a function, and later calls, return an error that
// matches [loop.ErrStopped]. A RunUntil under way ends when its current
// function has ended. If a posted function has called RunUntil in turn, all of
// these end.
//
// Close may be called from anywhere, including posted functions, and more than
// once. It does not wait, and returns nil.
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

// here reports whether the caller is on the executor's goroutine, where calls
// to the executor run inline. If the executor is closed, it also returns the
// error that these calls get. e may be nil.
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
