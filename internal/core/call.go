package core

import (
	"context"
	"runtime"
	"sync/atomic"

	"asyncsync.dev/internal/goroutine"
	"asyncsync.dev/internal/sched"
)

// A Body is the typed part of a call: the function, its argument and results.
type Body interface {
	Run(ctx context.Context)
}

// # The states of a call
//
// Where the function of a call is, and where its caller is, are two things that
// change independently, so there are two machines.
//
// The function. Its place is guarded by the mu of the thread: a call is in a list
// (Call.list), or on the stack (Thread.run and Call.outer), or in neither. What can
// be decided by either side at any moment is one atomic word, Call.stage. It leaves
// undecided once.
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
//	  awake ⇄ parked        the caller sleeps, or is woken
//	  awake, parked → errand   the thread asks it to run an async function: see lend
//	  errand → awake           it runs that
//	  awake, parked → gone     it has abandoned the call, which has begun
//	  any but gone → callEnded the ending is recorded
//
// Who changes the word to callEnded wakes the caller if it was parked. After that the
// record is the caller's, who may use it again.

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

// begin claims c for the one who is about to run its function, and reports whether
// that may be done.
func (c *Call) begin() bool { return c.stage.CompareAndSwap(undecided, begun) }

// forbid keeps the function from beginning, and reports whether it is the one who has
// done so: false says that it has begun, or was refused already. It is not for calls
// that are queued: these are removed.
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

// A Call is one function on its way to a thread and back.
//
// The fields are in the order of who touches them: on two processors a hop
// costs what it costs to send these cache lines to and fro. First what the
// thread reads or writes of every call, then what most calls leave alone, then
// wait, on which the caller may be spinning: what the thread writes before the
// end is kept a cache line away from it.
type Call struct {
	// Set by the submitter before the call is shared.
	body  Body
	ctx   context.Context // what the function receives
	scope *Scope          // whose accounts it is in
	node  *Node           // what it runs as

	// Guarded by the mu of thread.
	outer *Call // the call below on the thread's stack, while running

	stage atomic.Uint32 // whether the function begins: see the states of a call

	position

	// thread is the thread whose lock guards the call, nil until it is queued.
	thread atomic.Pointer[Thread]

	// Written by the thread that runs the call before wait becomes callEnded,
	// read by the caller after; values, too.
	ending Ending

	source
	asTask

	refusal error // why it was refused by somebody else than its caller; guarded by the mu of thread
	lender  *Call // of an errand: the call whose caller runs it

	wait atomic.Uint32 // where the caller is: see the states of a call
	manner
	values goroutine.Values // the caller's at first, what the call left at last
	frame  *Frame           // the frame that waits for it, nil if a goroutine does

	watched *watch
	stop    *interrupt
	errand  *Call // an async function for the caller's goroutine: see lend
	callerSleep
	edge edge // of a caller off the threads: its wait

	submission
}

// A position is where a call is queued. Guarded by the mu of the thread.
type position struct {
	prev, next *Call
	list       *list // nil while it is not queued
	seq        uint64
}

// A source is where a call comes from. Set by the submitter before it is shared.
type source struct {
	by   *Node  // who submitted it
	born uint32 // the epoch of by
	pin  *Frame // the frame that must run it, nil for any
	name string
	pc   uintptr // the wrapped function, for its name
}

// An asTask is what a call that is a task does at its end. Set by the submitter
// before it is shared.
type asTask struct {
	gate  *Gate  // opened then
	onEnd func() // called before that
	life  *life  // ended before that
}

// A manner is how a call is made.
type manner struct {
	abandon bool // its caller may leave it when ctx ends; set by the submitter
	long    bool // it is meant to take long; set by the submitter
	try     bool // it is not to wait for others; set by the submitter
	bound   bool // the caller runs no errands; set by the submitter, or by the thread after a Goexit
	inline  bool // runs where it was made
	loose   bool // made with a detached ctx; set by the submitter
}

// A callerSleep is where a caller sleeps that is no thread. It is written before Call.wait
// becomes callerParked.
type callerSleep struct {
	parker chan struct{}
	task   *sched.Task   // the caller, if it parks
	turn   atomic.Uint64 // its wait
}

// A submission is what submitting a call has found. It is of the submitter's goroutine
// only.
type submission struct {
	woke  bool // submitting has woken the thread
	lined bool // the thread had no worker yet
	late  bool // something blocks the thread that may wait for the caller
	timed bool // it is behind others, in a scope that has calls wait for so long only
	yield bool // let others run when the call has ended: see yieldEvery
}

// Reset makes a call whose function has returned or panicked, and whose caller
// has been told, fit to be used again. What most calls leave alone is not
// written, and nothing atomically: nobody else has it, and its cache lines come
// back from another processor while the caller goes on.
func (c *Call) Reset() (done bool) {
	switch {
	case c.task != nil:
		return false
	case c.watched != nil || c.stop != nil || c.errand != nil:
		*c = Call{}
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
	if c.name != "" {
		c.name = ""
	}
	if c.pc != 0 {
		c.pc = 0
	}
	c.manner, c.submission = manner{inline: c.inline}, submission{}
	c.edge = edge{}
	c.values = goroutine.Values{}
	c.frame, c.parker = nil, nil
	return true
}

// Ending returns how the function ended. Only for the caller of a call that
// was not refused.
func (c *Call) Ending() Ending { return c.ending }

// list is a doubly linked list of queued calls, in order of seq.
type list struct {
	head, tail *Call
	len        int
}

func (l *list) push(c *Call) {
	at := l.tail
	for at != nil && at.seq > c.seq {
		at = at.prev
	}
	l.insert(c, at)
}

// insert puts c behind at, or first if at is nil.
func (l *list) insert(c, at *Call) {
	c.list, c.prev = l, at
	if at != nil {
		c.next, at.next = at.next, c
	} else {
		c.next, l.head = l.head, c
	}
	if c.next != nil {
		c.next.prev = c
	} else {
		l.tail = c
	}
	l.len++
}

func (l *list) remove(c *Call) {
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		l.head = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		l.tail = c.prev
	}
	c.prev, c.next, c.list = nil, nil, nil
	l.len--
}

// finish tells the caller, and reports whether it slept. The caller may then
// use the record again: nothing of it may be read after the swap, unless the
// caller sleeps or has gone.
//
// The life of a task ends first: a call that is made with its ctx after the end
// of the task has been told must not be cancelled by that end.
func (c *Call) finish() (woke bool) {
	f, l, gate := c.frame, c.life, c.gate // its caller may use c again once it has ended
	if l != nil {
		l.end()
	}
	if c.onEnd != nil {
		c.onEnd()
	}
	switch c.wait.Swap(callEnded) {
	case callerParked:
		c.rouse()
		return true
	case callerGone:
		count.left.Add(-1)
		c.tellAbandoned()
	case callErrand:
		// Its caller is awake, or has a token under way.
	default:
		if f != nil {
			woke = f.complete()
		}
		if gate != nil {
			gate.Open()
		}
	}
	return woke
}

// walkAway says that the caller waits no more, for a function that runs. It
// reports false if that has ended.
func (c *Call) walkAway(from uint32) bool {
	count.left.Add(1) // before the function can be seen to have ended
	if !c.wait.CompareAndSwap(from, callerGone) {
		count.left.Add(-1)
		return false
	}
	return true
}

// rouse wakes the caller, who sleeps.
func (c *Call) rouse() {
	if t := c.task; t != nil {
		t.Wake(c.turn.Load())
	} else {
		c.parker <- struct{}{}
	}
}

// turnAway ends a call that was refused, by somebody else than its caller. Of a
// task nobody else would tell the hooks; one that does not return ends the task.
func (c *Call) turnAway() {
	if c.life == nil || c.watched == nil {
		c.finish()
		return
	}
	told := false
	defer func() {
		if !told {
			c.refusal, c.ending = nil, recovered(recover(), nil)
		}
		c.finish()
	}()
	c.tellRefused(c.ctx, c.refusal)
	told = true
}

// turnAway does that for calls that have been taken out of their queue, whatever
// a hook does.
func turnAway(calls []*Call) {
	defer func() {
		if len(calls) > 0 {
			turnAway(calls)
		}
	}()
	for len(calls) > 0 {
		c := calls[0]
		calls = calls[1:]
		c.thread.Load().removed(c)
		c.turnAway()
	}
}

// lend has the goroutine of c's caller, who waits, run the async function a,
// and reports whether it is to be had, and whether it slept. Only the thread that
// runs c's function calls it, and it waits for a next: so errands nest like the
// calls do, and two stacks carry a nesting of any depth.
func (c *Call) lend(a *Call) (lent, woke bool) {
	if c.bound || c.frame != nil {
		return false, false
	}
	for {
		s := c.wait.Load()
		if s != callerAwake && s != callerParked {
			return false, false
		}
		// The caller reads c.errand while wait says errand, also one that was
		// given up and not picked up yet. So it is not written before now.
		c.errand, a.lender = a, c
		if c.wait.CompareAndSwap(s, callErrand) {
			if s == callerParked {
				c.rouse()
			}
			return true, s == callerParked
		}
		a.lender = nil
	}
}

// runErrand runs what the caller of c was asked to, and reports whether its
// end has woken the thread. ran is false if there is nothing to run, but c has
// ended.
func (c *Call) runErrand() (ran, woke bool) {
	if c.wait.Load() != callErrand {
		return false, false
	}
	a := c.errand
	// The thread may have given the errand up, and c may have ended since.
	if !c.wait.CompareAndSwap(callErrand, callerAwake) {
		return false, false
	}
	return true, a.runElsewhere()
}

// lock locks the thread of c, which has one, and returns it.
func (c *Call) lock() *Thread {
	t := c.thread.Load()
	t.mu.Lock()
	return t
}

// Name returns what the call is called in reports: the name it was given, or
// that of its function.
func (c *Call) Name() string { return callName(c.name, c.pc) }

func callName(name string, pc uintptr) string {
	if name != "" {
		return name
	}
	if pc != 0 {
		if f := runtime.FuncForPC(pc); f != nil {
			return f.Name()
		}
	}
	return "call"
}
