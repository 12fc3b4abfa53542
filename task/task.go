package task

import (
	"context"
	"errors"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/loop"
)

// An Option changes how a task is started.
type Option func(*core.Options)

// Named gives the task a name, for hooks, traces and reports. The default is
// that of its function.
func Named(name string) Option {
	return func(o *core.Options) { o.Name = name }
}

// On says where the task runs: on the backend l as a task of that, or on another
// loop as a function posted to it, which must not wait for anything that takes
// long. Without it the task runs on the backend that its ctx is on, as [Go] says.
//
// A task that has not begun when the loop stops does not begin: Wait returns
// [loop.ErrStopped]. One that runs on a backend is cancelled then, with that as the
// cause. A nil l panics.
func On(l loop.Loop) Option {
	if l == nil {
		panic("task: On: nil Loop")
	}
	return func(o *core.Options) { o.Home = core.HomeOf(l) }
}

// A Task is a function that runs by itself, on a goroutine of its own or on a loop,
// and the promise of its outcome. Its methods may be called from any goroutine or thread.
type Task[R any] struct {
	task   core.Task
	fn     func(context.Context) (R, error)
	result R
	err    error
}

// body keeps Run and Err out of the exported methods of Task.
type body[R any] struct{ t *Task[R] }

func (b body[R]) Run(ctx context.Context) { b.t.result, b.t.err = b.t.fn(ctx) }
func (b body[R]) Err() error              { return b.t.err }

// Go starts fn as a task and returns at once.
//
// The task runs on the backend that ctx is on (see package loop): in a task of a
// thread loop, and in sync code that one has called, it is a task of that loop, to
// which no goroutine is added but a coroutine of the loop's. Where ctx is on no
// backend, and in a function posted to a loop that is none, it runs on a new
// goroutine. [On] names another. What counts is ctx, not the goroutine that calls.
// On a backend that has stopped the task does not run, and Wait returns
// [loop.ErrStopped].
//
// fn's ctx is derived from ctx; [Task.Cancel] ends it, and with it the tasks
// started from it. It ends with fn, too, but that does not cancel tasks that
// fn leaves behind, nor keep new ones from being started with it. A task may
// outlive whatever started it: it keeps the ThreadSensitiveContext of ctx, and
// what it calls is related to those who wait for it. It starts with a fork of
// the caller's local variables: it sees them, and its own changes stay with it.
//
// A nil ctx or fn panics. That the values of ctx and the writes made before Go
// are visible to fn goes without saying; what fn did synchronizes before the
// return of [Task.Wait] and the close of [Task.Done].
//
// The idea is asyncio's create_task, whose context is a fork as well.
func Go[R any](ctx context.Context, fn func(context.Context) (R, error), opts ...Option) *Task[R] {
	if ctx == nil {
		panic("task: Go: nil ctx")
	}
	if fn == nil {
		panic("task: Go: nil function")
	}
	t := &Task[R]{fn: fn}
	if len(opts) == 0 {
		core.StartTask(ctx, &t.task, body[R]{t}, &core.Options{PC: core.FuncPC(fn)})
	} else {
		core.StartTask(ctx, &t.task, body[R]{t}, options("Go", core.FuncPC(fn), opts))
	}
	return t
}

func options(what string, pc uintptr, opts []Option) *core.Options {
	o := &core.Options{PC: pc}
	for _, opt := range opts {
		if opt == nil {
			panic("task: " + what + ": nil Option")
		}
		opt(o)
	}
	return o
}

// Wait waits for the task to end and returns what its function returned. If
// the function panicked Wait panics with the same value, and if it called
// [runtime.Goexit] so does Wait: every waiter is told the same. A panic of a task that
// nobody has waited for goes to the Panicked hook of package asyncsync, or, if there is
// none, to standard error when the task has been collected.
//
// When ctx ends first, Wait returns its cause and the task goes on. A task
// that has ended is reported as such even if ctx has ended too.
//
// Wait may be called from sync code: then the thread goes on serving. While
// Wait waits the task is joined: its calls, those queued already included, are
// related to whatever thread is blocked for the sake of the waiter, so that
// what a blocked thread waits for can always run there. (The join is that of
// Visual Studio's JoinableTaskFactory.) Where the task waits for the caller,
// itself or through whatever waits of this module, Wait returns an error
// matching deadlock.ErrDeadlock at once.
func (t *Task[R]) Wait(ctx context.Context) (R, error) {
	t.check("Wait")
	if ctx == nil {
		panic("task: Wait: nil ctx")
	}
	if err := t.task.Wait(ctx); err != nil {
		var zero R
		return zero, err
	}
	return t.outcome()
}

// outcome ends the waiter as the task has ended.
func (t *Task[R]) outcome() (R, error) {
	t.task.Hear()
	if err := t.task.Refusal(); err != nil {
		var zero R
		return zero, err
	}
	t.task.Raise()
	return t.result, t.err
}

// WaitOrCancel is Wait, but when ctx ends it cancels the task with ctx's cause
// and goes on waiting: nothing is left running behind the caller's back. The
// task's own outcome is returned, whatever it made of the cancellation.
func (t *Task[R]) WaitOrCancel(ctx context.Context) (R, error) {
	t.check("WaitOrCancel")
	if ctx == nil {
		panic("task: WaitOrCancel: nil ctx")
	}
	if err := t.task.Wait(ctx); err != nil {
		if errors.Is(err, core.ErrDeadlock) {
			var zero R
			return zero, err
		}
		t.Cancel(context.Cause(ctx))
		if err := t.task.Wait(context.WithoutCancel(ctx)); err != nil {
			var zero R
			return zero, err
		}
	}
	return t.outcome()
}

// Cancel ends the ctx of the task's function with the given cause, nil meaning
// [context.Canceled]. A task that waits for its turn on a loop does not begin any
// more, and its Wait returns the cause. It does not wait. It reports whether it was the one to
// do so: false if the task has ended, or was cancelled before.
func (t *Task[R]) Cancel(cause error) bool {
	t.check("Cancel")
	return t.task.Cancel(cause)
}

// check panics if t was not made by Go.
func (t *Task[R]) check(what string) {
	if t == nil || t.fn == nil {
		panic("task: Task." + what + ": nil Task, or one not made by Go")
	}
}

// Cancelled reports whether Cancel has ended the task's ctx while the task
// ran. What the function made of it, Wait tells.
func (t *Task[R]) Cancelled() bool { return t.task.Cancelled() }

// Done returns a channel that is closed when the task has ended. Waiting for
// it is a wait that this module does not see: a thread does not serve, and
// nothing is joined. It is meant for select in async code.
func (t *Task[R]) Done() <-chan struct{} { return t.task.Done() }
