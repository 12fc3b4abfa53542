package core

import (
	"context"
	"runtime"
	"sync/atomic"

	"asyncsync.dev/internal/goroutine"
)

// This file has the states of a call, and what others ask it. Its fields are in model.go,
// and its way is in call.go.

// # The states of a call
//
// The function of a call and the caller of the call change state independently,
// so there are two state machines.
//
// The function. Its place is guarded by the mu of the thread: a call is in a list
// (Call.list), or on the stack (Thread.run and Call.outer), or in neither. Either
// side may decide at any moment whether the function begins. That decision is one
// atomic word, Call.stage, which leaves undecided once.
//
//	            put             take            begin
//	  ┌──────┐ ────▶ ┌────────┐ ────▶ ┌───────┐ ────▶ ┌───────┐ retire  ┌───────┐
//	  │ made │       │ queued │       │ taken │       │ begun │ ──────▶ │ ended │
//	  └──────┘       └────────┘       └───────┘       └───────┘         └───────┘
//	      │               │ remove        │ forbid        ▲
//	      │               ▼               ▼               │
//	      │          ┌──────────────────────┐             │
//	      │  forbid  │       refused        │             │
//	      ├─────────▶└──────────────────────┘             │
//	      └───────────────────────────────────────────────┘
//	        begin, of a function that runs elsewhere
//
//	state     Call.list   on the stack   Call.stage
//	made      nil         no             undecided
//	queued    its list    no             undecided
//	taken     nil         yes            undecided
//	begun     nil         yes, if it     begun
//	                      is on a thread
//	refused   nil         no             refused
//	ended     nil         no             begun
//
// A call to a thread that its caller holds (see [Scope.hold]) has one goroutine on
// both sides, and so nothing to decide: it stays undecided while it runs.
//
// The caller. Call.wait is the word that the end of the call and its caller race for.
//
//	awake → parked           the caller is about to sleep
//	awake, parked → errand   the thread asks it to run an async function: see lend
//	errand → awake           it runs that
//	awake, parked → gone     it has abandoned the call, which has begun
//	any → ended              the ending is recorded
//
// The last step is a swap in [Call.announce], which learns from it what the caller did. If
// the caller was parked, announce wakes it. If it was gone, announce tells the Abandoned
// hook, and nobody uses the record again. Otherwise the record is the caller's from then
// on, which may use it again.

// The values of Call.stage.
const (
	undecided = iota
	begun     // the function runs, or has ended
	refused   // it will never begin
)

// The values of Call.wait.
const (
	callerAwake  = iota
	callerParked // the caller sleeps on its parker, or its task is parked
	callEnded    // the ending is recorded
	callerGone   // the caller has abandoned the call
	callErrand   // the caller is asked to run c.errand meanwhile
)

// Options of one call.
type Options struct {
	Abandon   bool
	Long      bool // it is meant to take long
	Interrupt func()
	Once      bool // Interrupt is called once
	Try       bool // it is not to wait for others
	Quiet     bool // of a task: hooks are not told of it, but of its panic
	Name      string
	PC        uintptr // of the wrapped function, for its name

	// Of a task: where it runs, nil for a goroutine of its own, and why it
	// cannot.
	Scope   *Scope
	Refusal error
	Home    *Home // the loop, if another than that of its ctx

	// Of a task, nil for nothing: where it is put before it starts, what is called when
	// it has ended, before anybody is woken, what ends its wait for a place in a group,
	// that place, and its rest, where its maker has one to give.
	Into   **Task
	OnEnd  func()
	Until  context.Context
	Member *Member
	Rest   *TaskRest
}

// note copies the options that other code looks up in c.
func (c *Call) note(o *Options) {
	c.abandon, c.long, c.try = o.Abandon, o.Long, o.Try
	if c.by != nil {
		c.born = c.by.epoch()
	}
}

// whole returns f as a call.
func (f *FullCall) whole() *Call {
	if f.callRest == nil {
		f.callRest = &f.rest
	}
	return &f.Call
}

// waiting returns what waits for f: the thread own, or, if that is nil, the calling
// goroutine with the record rec. The end of ctx takes the call back, or abandons it, where
// that is possible.
func (f *FullCall) waiting(ctx context.Context, own *Thread, rec *goroutine.Record) *sleeper {
	w := &f.sleeper
	w.own, w.rec, w.call, w.ctx, w.cancel = own, rec, f.whole(), ctx, ctx.Done()
	return w
}

// more returns the rest of c, and makes one for a task that has none. For such a task
// the caller must hold the mu of c's thread, or be the only code that knows c.
func (c *Call) more() *callRest {
	if c.callRest == nil {
		c.give(&TaskRest{})
	}
	return c.callRest
}

// give makes r the rest of c, a task.
func (c *Call) give(r *TaskRest) {
	c.callRest = &r.callRest
	c.promise().gate.CompareAndSwap(nil, &r.gate)
}

// promise returns the task that c is.
func (c *Call) promise() *Task { return c.body.(TaskBody).Task() }

// life returns that of a task.
func (c *Call) life() *life { return c.node.life }

// context returns what the function receives, nil while that is not known.
func (c *Call) context() context.Context {
	switch {
	case c.ctx != nil:
		return c.ctx
	case c.callRest != nil:
		return c.given
	}
	return nil
}

// submitter returns the node that c was submitted by. A task is its own submitter, so a
// thread that waits for the task serves it in whichever list it is queued.
func (c *Call) submitter() *Node {
	if c.task {
		return c.node
	}
	return c.by
}

// bornIn returns the epoch that the submitter was in.
func (c *Call) bornIn() uint32 {
	if c.task {
		return 0
	}
	return c.born
}

// pinned returns the frame that must run c, nil for any.
func (c *Call) pinned() *Frame {
	if c.task {
		return nil
	}
	return c.pin
}

// waiter returns the frame that waits for c, nil if none does.
func (c *Call) waiter() *Frame {
	if c.task {
		return nil
	}
	return c.frame
}

// callerEdge returns the wait of c's caller, nil for a task, which has no caller.
func (c *Call) callerEdge() *edge {
	switch f := c.waiter(); {
	case c.task:
		return nil
	case f != nil:
		return &f.edge
	}
	return &c.edge
}

// until returns the context whose end ends c. The mu of its thread is held.
func (c *Call) until() context.Context {
	if c.task && c.ctx == nil {
		return c.life().base
	}
	return c.context()
}

// lock locks the thread of c, which has one, and returns it.
func (c *Call) lock() *Thread {
	t := c.thread.Load()
	t.mu.Lock()
	return t
}

// begin claims c for the calling goroutine, which is about to run the function. It
// reports false if the function must not begin.
func (c *Call) begin() bool { return c.stage.CompareAndSwap(undecided, begun) }

// forbid keeps the function from beginning. It reports false if the function has begun,
// or was refused before. It must not be called for a queued call: use remove.
func (c *Call) forbid() bool { return c.stage.CompareAndSwap(undecided, refused) }

// hasBegun reports whether the function has begun.
func (c *Call) hasBegun() bool { return c.stage.Load() == begun }

// isQueued reports whether c is in a list. The mu of its thread is held.
func (c *Call) isQueued() bool { return c.list != nil }

// isRunning reports whether c is on the stack of its thread, perhaps without having
// begun. The mu of the thread is held. It may be true for a moment after the end.
func (c *Call) isRunning() bool {
	return c.list == nil && c.stage.Load() != refused && !c.hasEnded()
}

// hasEnded reports whether the end of c is recorded.
func (c *Call) hasEnded() bool { return c.wait.Load() == callEnded }

// Reset makes a call whose function has returned or panicked, and whose caller
// has been told, fit to be used again. Reset does not write fields that most
// calls leave zero, and writes none atomically: no other goroutine has the
// record, and the caller need not wait for its cache lines to come back from
// another processor.
//
// Reset reports false, and leaves f as it is, if the caller has parked as a task. Then f
// must not be used again. A refused call must not be reset, because refusal stays.
func (f *FullCall) Reset() (done bool) {
	c := f.whole()
	switch {
	case c.parked != nil:
		return false
	case c.watched != nil || c.stop != nil || c.errand != nil:
		*f = FullCall{}
		return true
	}
	c.body, c.ctx, c.scope, c.node = nil, nil, nil, nil
	c.stage, c.wait = atomic.Uint32{}, atomic.Uint32{}
	c.thread = atomic.Pointer[Thread]{}
	if c.ending.Panic != nil {
		c.ending = Ending{}
	}
	if c.by != nil {
		c.by = nil
	}
	if c.given != nil {
		c.given = nil
	}
	if c.name != "" {
		c.name = ""
	}
	if c.pc != 0 {
		c.pc = 0
	}
	c.manner, c.bound = manner{}, false
	c.submission = submission{}
	c.edge = edge{}
	c.values = goroutine.Values{}
	c.frame, c.parker = nil, nil
	return true
}

// SetPC names the call after the function with that entry, unless it has a name.
func (f *FullCall) SetPC(pc uintptr) { f.rest.pc = pc }

// Ending returns how the function ended. Only for the caller of a call that
// was not refused.
func (c *Call) Ending() Ending { return c.ending }

// Raise ends the caller of c the way the function ended, unless it returned.
func (c *Call) Raise() {
	if !c.ending.Returned() {
		Raise(c.Take())
	}
}

// Take returns how the function ended, and clears the ending, the values, the interrupt
// and the hooks in c. Only the caller may use it, after it was told of the end.
// References to c may remain in the ctx of its function, and on the stack of its thread
// after a Goexit, and must not keep these alive.
func (c *Call) Take() Ending {
	e := c.ending
	c.ending, c.values, c.stop, c.watched = Ending{}, goroutine.Values{}, nil, nil
	return e
}

// Name returns what the call is called in reports: the name it was given, or
// that of its function.
func (c *Call) Name() string { return c.title().String() }

// title returns what c is called.
func (c *Call) title() label {
	if !c.task {
		return c.label
	}
	t := c.promise()
	if l := t.label.Load(); l != nil {
		return *l
	}
	l := c.life()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l := t.label.Load(); l != nil { // it has just ended
		return *l
	}
	return label{pc: c.body.(interface{ PC() uintptr }).PC()}
}

// knowsPC reports whether the body of c knows that it is to be called after the function
// with the entry pc.
func (c *Call) knowsPC(pc uintptr) bool {
	b, ok := c.body.(interface{ PC() uintptr })
	return ok && b.PC() == pc
}

// String returns the name, or else that of the function.
func (l label) String() string {
	if l.name != "" {
		return l.name
	}
	if l.pc != 0 {
		if f := runtime.FuncForPC(l.pc); f != nil {
			return f.Name()
		}
	}
	return "call"
}
