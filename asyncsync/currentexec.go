package asyncsync

import "asyncsync.dev/internal/core"

// A CurrentThreadExecutor runs functions on the goroutine that made it: a
// [loop.Poster] for a thread that somebody else owns, such as a GUI's main
// thread or a test's. The owner runs what is posted by calling
// [CurrentThreadExecutor.RunUntil]; others post, or send insensitive calls
// with [WithExecutor].
//
// It is asgiref's class of the same name, made available by itself.
type CurrentThreadExecutor struct{ exec *core.Executor }

// NewCurrentThreadExecutor returns an executor of the calling goroutine.
func NewCurrentThreadExecutor() *CurrentThreadExecutor {
	return &CurrentThreadExecutor{core.NewExecutor()}
}

// Post has fn run by the RunUntil that is under way or, if there is none, by
// the next. It may be called from anywhere, the executor's own goroutine
// included, and returns at once; its error is always nil. Functions run in the
// order in which they were posted.
func (e *CurrentThreadExecutor) Post(fn func()) error {
	e.check("Post")
	if fn == nil {
		panic("asyncsync: CurrentThreadExecutor.Post: nil function")
	}
	e.exec.Post(fn)
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
// for the next RunUntil.
func (e *CurrentThreadExecutor) RunUntil(done <-chan struct{}) error {
	e.check("RunUntil")
	if done == nil {
		panic("asyncsync: RunUntil: nil channel, which never ends")
	}
	if !e.exec.Mine() {
		return ErrWrongThread
	}
	e.exec.RunUntil(done)
	return nil
}

func (e *CurrentThreadExecutor) check(what string) {
	if e == nil || e.exec == nil {
		panic("asyncsync: " + what + ": nil CurrentThreadExecutor, or one not made by NewCurrentThreadExecutor")
	}
}
