package sched

import (
	"context"
	"runtime"
	"sync/atomic"

	"asyncsync.dev/internal/goroutine"
)

// A Body is the owner of a task. Exactly one of Begin and Refused is called,
// once.
type Body interface {
	// Begin reports whether Run should be called now.
	Begin() bool
	// Run is the task's function.
	Run()
	// Over is called when Begin and Run have returned, panicked with v, or called
	// Goexit. Over must not panic. If it calls Goexit itself, it is called once
	// more.
	Over(v any, goexit bool)
	// Refused says that the loop stops before the task has begun. It runs like a
	// posted function.
	Refused()
	// Stop says that the loop stops while the task runs: the ctx of the task should
	// end. It is called on the loop's own goroutine, and runs no user code.
	Stop()
}

// A Task is a coroutine on a loop, or will be one. It is part of something
// larger, its Body.
type Task struct {
	// Set before the task starts.
	Body   Body
	Values goroutine.Values // that it starts with
	Short  bool             // it is not likely to wait

	loop *Loop

	// state is the number of the task's last wait, times 4, plus how that wait has
	// ended. Only the task increases the number; any goroutine may mark the end.
	state atomic.Uint64

	// gid is the goroutine of its coroutine, or 0 before the task has begun.
	gid atomic.Int64

	before, after *Task // in a List

	// Used only by the loop's goroutine and its coroutines.
	begun       bool
	arming      bool            // it is in Arm
	onLife      bool            // it waits until the loop's life ends, at the latest
	co          *co             // that it runs on, from then until it ends
	spare       func()          // a waker, made by the loop's goroutine
	spareNumber uint64          // of the wait that it is for
	watch       context.Context // watched while it waits; its end ends the wait
	unwatch     func() bool
	failed      any // what watching has panicked with
}

// A List holds tasks that have begun and not ended. Its user guards it.
type List struct {
	first *Task
	len   int
}

// Add puts t into the list.
func (l *List) Add(t *Task) {
	if t.after = l.first; t.after != nil {
		t.after.before = t
	}
	l.first = t
	l.len++
}

// Remove takes it out.
func (l *List) Remove(t *Task) {
	if t.before != nil {
		t.before.after = t.after
	} else {
		l.first = t.after
	}
	if t.after != nil {
		t.after.before = t.before
	}
	t.before, t.after = nil, nil
	l.len--
}

// All calls yield for each task until yield returns false.
func (l *List) All(yield func(*Task) bool) {
	for t := l.first; t != nil && yield(t); t = t.after {
	}
}

const (
	waiting    = 0
	woken      = 1
	endedByCtx = 2
	ways       = 4
)

// Here returns the task that the calling goroutine runs, or nil if it runs
// none. In a posted function it returns a task that may not wait.
func Here() *Task {
	if r := goroutine.Current(); r != nil {
		return Of(r)
	}
	return nil
}

// Of is Here for a caller that has the goroutine's record.
func Of(r *goroutine.Record) *Task {
	t, _ := r.Task.(*Task)
	return t
}

// Record returns the record of the goroutine that the task runs on. The task
// must have begun.
func (t *Task) Record() *goroutine.Record { return t.co.record }

// Goroutine returns the id of the goroutine that the task runs on, or 0 before
// it has begun. It may be called from anywhere.
func (t *Task) Goroutine() int64 { return t.gid.Load() }

// Loop returns the loop that the task runs on.
func (t *Task) Loop() *Loop { return t.loop }

// MayWait reports whether there is a coroutine that can be suspended. That is
// not so in posted functions.
func (t *Task) MayWait() bool { return t != &t.loop.posted }

func (t *Task) number() uint64 { return t.state.Load() / ways }

// due reports whether the task is suspended in a wait that has been ended. A
// task that comes out of the queue because of an abandoned wait is not due.
func (t *Task) due() bool { return t.co != nil && t.state.Load()%ways != waiting }

// Check panics where Prepare would: inside the function given to Arm, and below a C
// callback.
func (t *Task) Check() {
	if t.arming {
		panic(errArming)
	}
	t.loop.guard.check()
}

// errArming is the panic value of such a wait. The wait that is being armed would be lost:
// a task is in one wait at a time.
const errArming = "loop: a task waits inside the function that it has given to Park, which must not wait"

// Prepare begins a wait of the calling task, and returns the number of the
// wait. Then the task calls Suspend; if it does not, the wait is forgotten.
//
// It panics inside the function given to Arm, and below a C callback, where the runtime
// could not switch: see guard.
func (t *Task) Prepare() (number uint64) {
	t.Check()
	number = t.number() + 1
	t.state.Store(number * ways)
	return number
}

// Wake ends the wait with that number. It may be called from anywhere, at any
// time after Prepare, any number of times. Only the first call has an effect,
// and none has once the wait is over.
func (t *Task) Wake(number uint64) { t.wake(number, woken) }

func (t *Task) wake(number, how uint64) {
	if t.state.CompareAndSwap(number*ways, number*ways+how) {
		t.loop.resume(t)
	}
}

// Waker returns a function that calls Wake for the wait that Prepare has begun.
//
// The function was made in advance, on the loop's goroutine: allocation takes
// much stack, which would make the stacks of waiting tasks grow.
func (t *Task) Waker() (wake func()) {
	n := t.number()
	wake, t.spare = t.spare, nil
	if wake == nil || t.spareNumber != n {
		wake = func() { t.Wake(n) }
	}
	return wake
}

// Arm calls arm with the waker for the wait that Prepare has begun. Until arm returns the
// task must not wait.
func (t *Task) Arm(arm func(wake func())) {
	t.arming = true
	defer func() { t.arming = false }()
	arm(t.Waker())
}

// makeSpare makes the waker for the next wait.
func (t *Task) makeSpare() {
	n := t.number() + 1
	t.spare, t.spareNumber = func() { t.Wake(n) }, n
}

// Suspend lets the loop run others until Wake was called or ctx has ended. It
// reports whether ctx has ended.
//
// Code of ctx runs on the loop but not on this goroutine, because it takes
// stack and many tasks may wait. If it panics or calls Goexit, so does Suspend.
func (t *Task) Suspend(ctx context.Context) (ended bool) {
	switch done := ctx.Done(); {
	case done == nil:
	case done == t.loop.life.Done():
		t.onLife = true
		if t.loop.stopping() {
			t.wake(t.number(), endedByCtx)
		}
	default:
		t.watch = ctx
	}
	t.co.yield(struct{}{})
	t.onLife, t.watch = false, nil
	if t.unwatch != nil {
		t.unwatch()
		t.unwatch = nil
	}
	if v := t.failed; v != nil {
		t.failed = nil
		if v == errGoexit {
			runtime.Goexit()
		}
		panic(v)
	}
	return t.state.Load()%ways == endedByCtx
}

// watchOver wakes the task when ctx ends.
func (t *Task) watchOver() {
	ctx := t.watch
	number := t.number()
	if t.state.Load()%ways != waiting {
		return
	}
	returned := false
	defer func() {
		if returned {
			return
		}
		v := recover()
		switch {
		case v == nil:
			t.failed = errGoexit
		case isOver(ctx):
			// context.AfterFunc panics if ctx has ended and says that it has not.
			t.wake(number, endedByCtx)
			return
		default:
			t.failed = v
		}
		t.Wake(number)
	}()
	t.unwatch = context.AfterFunc(ctx, func() { t.wake(number, endedByCtx) })
	returned = true
}

// isOver reports whether Done of ctx, whose code has panicked before, is closed.
func isOver(ctx context.Context) (over bool) {
	defer func() { _ = recover() }()
	select {
	case <-ctx.Done():
		return true
	default:
		return false
	}
}

// Yield lets everything run that is already in the queue.
func (t *Task) Yield() {
	t.Check()
	t.state.Store((t.number()+1)*ways + woken)
	t.loop.resume(t)
	t.co.yield(struct{}{})
}
