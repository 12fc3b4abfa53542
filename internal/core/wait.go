package core

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"runtime/trace"
	"strings"
	"time"

	"asyncsync.dev/internal/goroutine"
)

// ErrAbandoned is matched by the error of a call that its caller left running.
var ErrAbandoned = errors.New("asyncsync: call abandoned")

type abandonedError struct{ cause error }

func (e *abandonedError) Error() string {
	return "asyncsync: call abandoned: " + e.cause.Error()
}
func (e *abandonedError) Is(target error) bool { return target == ErrAbandoned }
func (e *abandonedError) Unwrap() error        { return e.cause }

// Options of one call.
type Options struct {
	Abandon   bool
	Long      bool // it is meant to take long
	Interrupt func()
	Once      bool // Interrupt is called once
	Try       bool // it is not to wait for others
	Name      string
	PC        uintptr // of the wrapped function, for its name

	// Of a task: where it runs, nil for a goroutine of its own, and why it
	// cannot.
	Scope   *Scope
	Refusal error
}

// Do runs body on the thread of s, waits for it, and returns nil; or it
// returns the error of a call that was not run, or was abandoned. It is not
// for callers that are on that thread already.
//
// After nil the results are in body, and the caller must look at c.Ending. A
// call that returned an error other than ErrAbandoned is its caller's again.
func (s *Scope) Do(ctx context.Context, c *Call, body Body, o *Options) error {
	err := s.do(ctx, c, body, o)
	if err != nil && c.watched != nil {
		c.refused(ctx, err)
	}
	return err
}

func (s *Scope) do(ctx context.Context, c *Call, body Body, o *Options) (err error) {
	ctx = Afterlife(ctx)
	if err := Ended(ctx); err != nil {
		count.cancelled.Add(1)
		return err
	}
	own, rec := current()
	c.body, c.scope, c.name = body, s, o.Name
	if c.pc == 0 {
		c.pc = o.PC
	}
	c.by = submitter(ctx, rec)
	c.note(o)
	if rec != nil {
		c.values = rec.Values
	}
	if o.Interrupt != nil {
		c.stop = newInterrupt(o)
	}
	c.begin(ctx)
	if repeats.busy.Load() != 0 {
		if err := s.refuseInterrupt(rec, c); err != nil {
			return err
		}
	}
	if own == nil {
		cx := callCtx(ctx, s)
		c.ctx, c.node = cx, cx.node
		if !o.Abandon && s.hold(c, rec) {
			return nil
		}
		c.bound = o.Abandon
		self := c.publish(rec)
		if err := s.submit(c); err != nil {
			self.unpublish()
			return err
		}
		if err = s.mayRefuse(ctx, c, nil, self); err == nil {
			err = c.await(ctx, o)
		}
		self.unpublish()
	} else {
		// The caller blocks a thread: it waits in a frame there, and the
		// function's node is one that the frame can be found by.
		fc := newFrameCtx(ctx, s, c.by)
		f := &fc.wait
		c.ctx, c.node, c.frame = &fc.Ctx, fc.node, f
		f.edge.to = c
		own.push(f, "call")
		defer own.pop(f)
		if err := s.submit(c); err != nil {
			return err
		}
		if err = s.mayRefuse(ctx, c, f, nil); err == nil {
			err = own.awaitCall(ctx, c, f, o)
		}
	}
	if err == nil {
		restore(rec, c.values)
	}
	return err
}

// submitter returns the node that a wait made with ctx belongs to. A ctx that
// knows nothing of us says nothing, but the goroutine does: it is the one that
// will be blocked. A detached ctx says no.
func submitter(ctx context.Context, rec *goroutine.Record) *Node {
	if c := From(ctx); c != nil {
		return c.node
	}
	if rec == nil {
		return nil
	}
	n, _ := rec.Node.(*Node)
	return n
}

// restore gives the calling goroutine the values that a call has left.
func restore(rec *goroutine.Record, v goroutine.Values) {
	if rec == nil {
		if v == (goroutine.Values{}) {
			return
		}
		rec = goroutine.Ensure()
	}
	rec.Values = v
	rec.ReleaseIfEmpty()
}

// park says that the caller of c is about to sleep, unless there is something
// for it to do.
func (c *Call) park() bool {
	if c.wait.Load() != nobodyParked {
		return false
	}
	if c.parker == nil {
		c.parker = c.thread.Load().parker()
	}
	return c.wait.CompareAndSwap(nobodyParked, waiterParked)
}

// parker returns a channel for a caller to sleep on.
//
// Channels are pooled within one lease and never beyond: one made inside a
// synctest bubble must not be used outside, and a lease is on one side.
func (t *Thread) parker() chan struct{} {
	t.parkMu.Lock()
	defer t.parkMu.Unlock()
	n := len(t.parkers)
	if n == 0 {
		return make(chan struct{}, 1)
	}
	ch := t.parkers[n-1]
	t.parkers = t.parkers[:n-1]
	return ch
}

// maxParkers bounds what a lease keeps of a burst of callers.
const maxParkers = 256

func (c *Call) unpark() {
	if c.parker == nil {
		return
	}
	t := c.thread.Load()
	t.parkMu.Lock()
	if t.parkers == nil {
		t.parkers = t.few[:0]
	}
	if len(t.parkers) < maxParkers {
		t.parkers = append(t.parkers, c.parker)
	}
	t.parkMu.Unlock()
}

// await waits for c on an ordinary goroutine, and runs the errands of c's
// function meanwhile.
func (c *Call) await(ctx context.Context, o *Options) error {
	done, woke := ctx.Done(), c.woke
	for {
		c.look(woke)
		switch {
		case !c.park():
		case done == nil:
			c.edge.slept()
			<-c.parker // much cheaper than a select
		default:
			c.edge.slept()
			select {
			case <-c.parker:
			case <-done:
				cause := Cause(ctx)
				if c.revoke(cause) {
					c.unpark()
					return cause
				}
				if o.Abandon && c.begunAlready() && c.walkAway(waiterParked) {
					count.abandoned.Add(1)
					return &abandonedError{cause}
				}
				done = nil
				<-c.parker
			}
		}
		var ran bool
		if ran, woke = c.runErrand(); !ran {
			c.unpark()
			if c.yield {
				yield()
			}
			return c.refusal
		}
	}
}

// look spins for the word of the thread, if the thread spins for its callers
// too. woke says that the caller has just woken it.
func (c *Call) look(woke bool) {
	t := c.thread.Load()
	if woke || !t.spin.on.Load() {
		return
	}
	if !lookout(&c.wait, nobodyParked, t.spin.patience()) {
		t.spin.missed.Add(1)
	}
}

// yieldEvery is the number of calls after which a caller lets other goroutines
// run, where there is one processor. A locked goroutine and its caller hand
// that processor to each other directly, past the queue: without this others
// would starve.
const yieldEvery = 128

func yield() {
	n := processors()
	procs.Store(int32(n))
	if n == 1 {
		runtime.Gosched()
	}
}

// awaitEnd waits for c on a goroutine that is unwinding after a Goexit in an
// errand: the functions above must not be left before the one that they wait
// for.
func (c *Call) awaitEnd() {
	ended := false
	defer func() {
		if !ended {
			c.awaitEnd() // another Goexit, in another errand
		}
	}()
	for {
		if c.park() {
			<-c.parker
		}
		if ran, _ := c.runErrand(); !ran {
			ended = true
			return
		}
	}
}

// awaitCall waits in f, on the thread t, for c that runs on another thread.
func (t *Thread) awaitCall(ctx context.Context, c *Call, f *Frame, o *Options) error {
	finished := false
	defer func() {
		// A call served in f has ended in Goexit and takes this wait with it,
		// but not before what it waits for has ended.
		if finished {
			return
		}
		revoked := c.revoke(context.Canceled)
		if !revoked {
			t.outlast(c, f)
		}
		c.unwound(ctx, revoked)
	}()
	if t.serve(f, nil, ctx.Done()) {
		cause := Cause(ctx)
		if c.revoke(cause) {
			finished = true
			return cause
		}
		if o.Abandon && c.begunAlready() && c.walkAway(nobodyParked) {
			finished = true
			count.abandoned.Add(1)
			return &abandonedError{cause}
		}
		t.serve(f, nil, nil)
	}
	finished = true
	return c.refusal
}

// outlast waits for c on a thread that is unwinding. If that is cut short by
// one more Goexit, only the hook hears of what c comes to.
func (t *Thread) outlast(c *Call, f *Frame) {
	ended := false
	defer func() {
		if !ended {
			c.walkAway(nobodyParked)
			if c.lender != nil {
				// Its goroutine is not free for the errands of functions
				// deferred below.
				c.lender.bound = true
			}
		}
	}()
	t.serve(f, nil, nil)
	ended = true
	t.record.Values = c.values
}

// unwound tells the hooks of a call that has not run, because its caller ended
// by Goexit: revoked says that it was the caller who took it back.
func (c *Call) unwound(ctx context.Context, revoked bool) {
	why := c.refusal
	if revoked {
		why = context.Canceled
	}
	if why != nil && c.watched != nil {
		c.refused(ctx, why)
	}
}

// begunAlready reports whether c's function has begun, and sees to it that
// otherwise it will not.
func (c *Call) begunAlready() bool {
	return !c.claim.CompareAndSwap(unclaimed, claimedByCaller) && c.claim.Load() == claimedByRunner
}

// Raise ends the caller of c the way the function ended, unless it returned.
func (c *Call) Raise() {
	if !c.ending.Returned() {
		c.ending.Raise()
	}
}

// FuncPC returns the entry of the function value fn, which it is named by in
// reports.
func FuncPC(fn any) uintptr { return reflect.ValueOf(fn).Pointer() }

// raisedSlot returns where the calling goroutine keeps the panic that it is
// about to raise again, nil where nobody of ours would catch it.
func raisedSlot() **Panic {
	own, rec := current()
	switch {
	case own != nil:
		return &own.raised
	case rec != nil:
		if n, _ := rec.Node.(*Node); n != nil {
			return &n.raised
		}
	}
	return nil
}

// Park waits until done is closed or delivers, or ctx ends, whose cause it
// returns. What it waits for is not known; on a thread it serves the calls of
// what the function that waits has started.
func Park(ctx context.Context, done <-chan struct{}, what string) error {
	own, rec := current()
	return wait(ctx, own, rec, nil, nil, done, what)
}

// await waits until done is closed, which the end of n does, or ctx ends. n's
// calls, and those of what n itself waits for or has started, become related
// to every frame that waits for the caller, and on a thread to the frame of
// this wait: what a blocked thread waits for, it can always run. for_ is the
// *Task or *Group that n is the node of.
//
// An n that has ended when the wait ends is reported as such.
func await(ctx context.Context, for_ any, n *Node, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	default:
	}
	ctx = Afterlife(ctx)
	if err := Ended(ctx); err != nil {
		select {
		case <-done: // before ctx, perhaps
			return nil
		default:
		}
		return err
	}
	own, rec := current()
	err := wait(ctx, own, rec, &want{for_: for_, ctx: ctx}, n, done, "wait")
	if err != nil {
		select {
		case <-done:
			return nil
		default:
		}
	}
	return err
}

// wait is Park and await: n, of w, is what is waited for, nil if that is not
// known.
func wait(ctx context.Context, own *Thread, rec *goroutine.Record, w *want, n *Node, done <-chan struct{}, what string) error {
	by := submitter(ctx, rec)
	var f *Frame
	if own != nil {
		f = own.pushWait(w, what)
		defer own.pop(f) // after the join has gone: then its calls are strangers again
		if n == nil && !strict.Load() {
			n = by
		}
	}
	if n != nil && (by != nil || f != nil) {
		j := &Join{by: by, frame: f}
		up := by // whose waiters come to wait for n
		if by == n {
			j.by, up = nil, nil
		} else if n.within(by, 8) {
			up = nil // they did before
		}
		if j.by != nil || f != nil {
			relate(own, up, func() { n.addJoin(j) })
			defer relate(own, up, func() { n.dropJoin(j) })
		}
	}
	p := newWait(f, rec, w) // after the join: what that has made related is served
	defer p.over()
	if err := p.look(); err != nil {
		return err
	}
	if f != nil {
		if own.serve(f, done, ctx.Done()) {
			return Cause(ctx)
		}
		return nil
	}
	p.edge.slept()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return Cause(ctx)
	}
}

// RunInline runs body where it is called, with the hooks, the trace and the
// interrupt function that a call has. It ends as body does.
func (c *Call) RunInline(ctx context.Context, s *Scope, body Body, o *Options) {
	if Plain(o, s) {
		body.Run(ctx)
		return
	}
	c.body, c.scope, c.ctx, c.name, c.inline = body, s, ctx, o.Name, true
	if c.pc == 0 {
		c.pc = o.PC
	}
	if o.Interrupt != nil {
		c.stop = newInterrupt(o)
	}
	own, rec := current()
	c.begin(ctx)
	if own == nil && (rec == nil || rec.Node == nil) {
		// Somewhere to remember a panic that passes through.
		rec = goroutine.Ensure()
		rec.Node = &Node{}
		defer func() {
			rec.Node = nil
			rec.ReleaseIfEmpty()
		}()
	}
	c.observed(own)
	c.ending.Raise()
}

// SetFunc names the call after the function value fn, unless it has a name.
func (c *Call) SetFunc(fn any) { c.pc = FuncPC(fn) }

// Plain reports whether a call in s, which may be nil, that runs where it is
// made needs nothing beside its function.
func Plain(o *Options, s *Scope) bool {
	return o.Interrupt == nil && !hooked(s) && !trace.IsEnabled()
}

func (c *Call) observed(own *Thread) {
	returned := false
	defer func() {
		if !returned {
			// After a Goexit the goroutine goes on unwinding from here.
			var raised *Panic
			if slot := raisedSlot(); slot != nil {
				raised = *slot
			}
			c.ending = recovered(recover(), raised)
		}
		if c.stop != nil {
			c.stop.end(&c.ending)
		}
		c.over(own)
	}()
	c.started(own)
	if c.stop != nil {
		c.stop.arm(c.ctx, own)
	}
	if trace.IsEnabled() {
		c.traced(own)
	} else {
		c.body.Run(c.ctx)
	}
	returned = true
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

// A DeadlockError says that a wait would never have ended.
type DeadlockError struct {
	// Message says which wait it was.
	Message string
	// Cycle is who waits for whom: each link for the next, the last for the
	// first, which is the wait that was refused.
	Cycle []Link
	// Page names the page of docs/deadlock that says why it is so and what to
	// do, without ".md"; "" if there is none.
	Page string
}

// A Link is one wait in a cycle.
type Link struct {
	Who       string        // the function that waits
	Goroutine int64         // that it runs on, 0 if that is not known
	Thread    string        // and the name of the thread, if that is one
	Kind      string        // of wait: see [WaitState]
	For       string        // the name of what is waited for
	Age       time.Duration // of the wait, -1 if it does not sleep yet
	Site      string        // file:line of the wait in the user's code, "" if that is not known

	block block // what keeps the call that is waited for from beginning
}

// Error says in one line which wait it was, and where to read on.
func (e *DeadlockError) Error() string {
	if e.Page == "" {
		return "deadlock: " + e.Message
	}
	return fmt.Sprintf("deadlock: %s (see docs/deadlock/%s.md)", e.Message, e.Page)
}

// Details returns what Error does, and a line for each wait in the cycle.
func (e *DeadlockError) Details() string {
	var b strings.Builder
	b.WriteString(e.Error())
	for _, l := range e.Cycle {
		fmt.Fprintf(&b, "\n  %s", l)
		if l.Goroutine != 0 {
			fmt.Fprintf(&b, ", in goroutine %d", l.Goroutine)
		}
		if l.Age >= 0 {
			fmt.Fprintf(&b, ", for %v", l.Age)
		}
		if l.Site != "" {
			fmt.Fprintf(&b, ", at %s", l.Site)
		}
	}
	return b.String()
}

// String says who waits for whom.
func (l Link) String() string {
	who, what := l.Who, l.For
	if l.Thread != "" {
		who += " on " + l.Thread
	}
	switch l.Kind {
	case "call", "parked":
		what = "the call of " + what
	case "async":
		what = "the async function " + what
	case "task":
		what = "the task " + what
	case "group":
		what = "a group"
	case "group place":
		what = "a place in a group"
	case "limiter":
		what = "a limiter"
	case "close":
		what = "the end of context " + what
	}
	return who + " waits for " + what
}

// Is reports whether target is ErrDeadlock.
func (e *DeadlockError) Is(target error) bool { return target == ErrDeadlock }

// ErrDeadlock is matched by every DeadlockError.
var ErrDeadlock = errors.New("deadlock")
