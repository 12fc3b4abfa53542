package task

import (
	"context"
	"sync"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/loop"
)

// An Option changes how a task is started.
type Option func(*core.Options)

// Named names the task in hooks, traces and reports. The default is the name of
// its function. Calls are named with asyncsync.Named, contexts and handles with
// asyncsync.WithName.
func Named(name string) Option {
	return func(o *core.Options) { o.Name = name }
}

// On makes the task run on l: as a task if l is a backend, otherwise as a
// posted function, which must not wait for anything that takes long. Without
// On, the task runs on the backend of its ctx: see [Go].
//
// If the loop stops before the task has begun, the task does not begin, and
// Wait returns [loop.ErrStopped]. If the loop is a backend and stops while the
// task runs, the task is cancelled with that cause. A nil l panics.
func On(l loop.Loop) Option {
	if l == nil {
		panic("task: On: nil Loop")
	}
	return func(o *core.Options) { o.Home = core.HomeOf(l) }
}

// A Task is a function that runs concurrently, on a goroutine of its own or on
// a loop, and the promise of its outcome. Make one with [Go]. Its methods may
// be called from any goroutine or thread.
type Task[R any] struct {
	task   core.Task
	fn     func(context.Context) (R, error) // nil when it has ended: see core.TaskBody
	result R
	err    error
}

// body keeps Run and Err out of the exported methods of Task.
type body[R any] struct{ t *Task[R] }

func (b body[R]) Run(ctx context.Context) { b.t.result, b.t.err = b.t.fn(ctx) }
func (b body[R]) Err() error              { return b.t.err }
func (b body[R]) Task() *core.Task        { return &b.t.task }
func (b body[R]) PC() uintptr             { return core.FuncPC(b.t.fn) }
func (b body[R]) Drop()                   { b.t.fn = nil }

// A fullTask is a task that does not wait in the queue of a thread, with all that it
// needs to run.
type fullTask[R any] struct {
	Task[R]
	rest core.TaskRest
}

// Go starts fn as a task and returns at once. A nil ctx or fn panics. If ctx
// has already ended, fn runs all the same on a goroutine, with a ctx that has
// ended. On a loop it does not begin, and Wait returns the cause.
//
// ctx selects where the task runs; the calling goroutine does not matter:
//
//   - If ctx is on a backend (see package loop), the task runs on that backend.
//     A ctx is on a thread loop in a task of that loop, and in sync code that
//     such a task has called. There the task needs no goroutine scheduled by
//     Go; it is a coroutine of the loop.
//   - Otherwise, and in a function posted to a loop that is no backend, the
//     task runs on a new goroutine.
//
// To run fn on the thread of ctx use asyncsync.Go.
//
// [On] selects another loop. If the backend has stopped, the task does not run,
// and Wait returns [loop.ErrStopped].
//
// The ctx of fn is derived from ctx. [Task.Cancel] ends it, and thereby the ctx
// of tasks started from it. It also ends when fn ends, but that neither cancels
// tasks that fn leaves behind nor keeps new ones from being started with it. A
// task may outlive the function that started it: it keeps the
// ThreadSensitiveContext of ctx, and its calls are related to those that wait
// for the task. It starts with a fork of the caller's local variables: it sees
// their values, and its own changes are not visible to the caller.
//
// What was done before Go synchronizes before fn begins. What fn did
// synchronizes before the return of [Task.Wait] and the close of [Task.Done].
//
// The idea is asyncio's create_task, which forks the context as well.
func Go[R any](ctx context.Context, fn func(context.Context) (R, error), opts ...Option) *Task[R] {
	if ctx == nil {
		panic("task: Go: nil ctx")
	}
	if fn == nil {
		panic("task: Go: nil function")
	}
	if len(opts) == 0 {
		return start(ctx, fn, &core.Options{PC: core.FuncPC(fn)})
	}
	o := options("Go", core.FuncPC(fn), opts)
	if o.Scope == nil {
		return start(ctx, fn, o)
	}
	t := &Task[R]{fn: fn}
	core.StartTask(ctx, &t.task, body[R]{t}, o)
	*o = core.Options{}
	spareOptions.Put(o)
	return t
}

// start starts fn, which does not wait in the queue of a thread.
func start[R any](ctx context.Context, fn func(context.Context) (R, error), o *core.Options) *Task[R] {
	f := &fullTask[R]{}
	f.fn, o.Rest = fn, &f.rest
	core.StartTask(ctx, &f.task, body[R]{&f.Task}, o)
	return &f.Task
}

// spareOptions has options to use again: a queued task is to cost little.
var spareOptions = sync.Pool{New: func() any { return new(core.Options) }}

func options(what string, pc uintptr, opts []Option) *core.Options {
	o := spareOptions.Get().(*core.Options)
	o.PC = pc
	for _, opt := range opts {
		if opt == nil {
			panic("task: " + what + ": nil Option")
		}
		opt(o)
	}
	return o
}

// Wait waits for the task to end and returns what its function returned. If the
// function panicked, Wait panics with the same value; if it called
// [runtime.Goexit], so does Wait. Every waiter gets the same outcome. If nobody
// waits for a task that panicked, the panic goes to the Panicked hook of
// package asyncsync. Without such a hook it goes to standard error when the
// task has been garbage collected.
//
// If ctx ends first, Wait returns its cause and the task goes on. If the task
// has ended, Wait returns its outcome even if ctx has ended too.
//
// Wait may be called from sync code: the thread serves meanwhile. While Wait
// waits, the task is joined: its calls, including those already queued, become
// related to every thread that is blocked in a wait for the waiter. So what a
// blocked thread waits for can always run there. (This is the join of Visual
// Studio's JoinableTaskFactory.) If the task waits for the caller, directly or
// through other waits of this module, Wait returns an error that matches
// deadlock.ErrDeadlock at once.
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

// WaitOrCancel is Wait, except that when ctx ends it cancels the task with the
// cause and waits on, so that the task does not keep running unnoticed. It
// returns the task's own outcome, whatever the task made of the cancellation.
func (t *Task[R]) WaitOrCancel(ctx context.Context) (R, error) {
	t.check("WaitOrCancel")
	if ctx == nil {
		panic("task: WaitOrCancel: nil ctx")
	}
	if err := t.task.Wait(ctx); err != nil {
		if core.Refused(ctx, err) {
			var zero R
			return zero, err
		}
		t.Cancel(err) // not the cause of ctx itself, which may be of a task that is over
		if err := t.task.Wait(context.WithoutCancel(ctx)); err != nil {
			var zero R
			return zero, err
		}
	}
	return t.outcome()
}

// Cancel ends the ctx of the task's function with the given cause; nil means
// [context.Canceled]. A task that has not begun yet on its loop does not begin,
// and its Wait returns the cause. Cancel does not wait. It reports whether it
// cancelled the task: false if the task has ended or was cancelled before.
func (t *Task[R]) Cancel(cause error) bool {
	t.check("Cancel")
	return t.task.Cancel(cause)
}

// check panics if t was not made by Go.
func (t *Task[R]) check(what string) {
	if t == nil || !t.task.Made() {
		panic("task: Task." + what + ": nil Task, or one not made by Go")
	}
}

// Cancelled reports whether Cancel ended the task's ctx while the task ran.
// Wait returns what the function made of that.
func (t *Task[R]) Cancelled() bool {
	t.check("Cancelled")
	return t.task.Cancelled()
}

// Done returns a channel that is closed when the task has ended. The module
// does not see a wait on it: a thread does not serve, and nothing is joined. It
// is meant for select in async code.
func (t *Task[R]) Done() <-chan struct{} {
	t.check("Done")
	return t.task.Done()
}
