package core

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"runtime/trace"
	"sync/atomic"

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
	Interrupt func()
	Name      string
	PC        uintptr // of the wrapped function, for its name
}

// Do runs body on the thread of s, waits for it, and returns nil; or it
// returns the error of a call that was not run, or was abandoned. It is not
// for callers that are on that thread already, save the one case that here
// reports: then nothing has been done, and the caller runs the function itself.
//
// After nil the results are in body, and the caller must look at c.Ending. A
// call that returned here == false and an error other than ErrAbandoned is its
// caller's again.
func (s *Scope) Do(ctx context.Context, c *Call, body Body, o *Options) (here bool, err error) {
	ctx = afterlife(ctx)
	if err := Ended(ctx); err != nil {
		count.cancelled.Add(1)
		return false, err
	}
	own, rec := current()
	c.body, c.scope, c.name, c.pc = body, s, o.Name, o.PC
	c.by = submitter(ctx, rec)
	if rec != nil {
		c.values = rec.Values
	}
	if o.Interrupt != nil {
		c.stop = &interrupt{fn: o.Interrupt, done: make(chan struct{})}
	}
	if s.lent(own, c.by) {
		return true, nil
	}
	c.begin(ctx)
	if own == nil {
		cx := callCtx(ctx, s)
		c.ctx, c.node = cx, cx.node
		c.bound = o.Abandon
		if here, err := s.submit(c, nil); here || err != nil {
			return here, err
		}
		err = c.await(ctx, o)
	} else {
		// The caller blocks a thread: it waits in a frame there, and the
		// function's node is one that the frame can be found by.
		f := &Frame{}
		nc := newNodeCtx(ctx, s, c.by)
		nc.own.frame = f
		c.ctx, c.node, c.frame = &nc.Ctx, nc.node, f
		own.push(f, "call")
		defer own.pop(f)
		if here, err := s.submit(c, own); here || err != nil {
			return here, err
		}
		err = own.awaitCall(ctx, c, f, o)
	}
	if err == nil {
		restore(rec, c.values)
	}
	return false, err
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

// parker returns a channel for a caller to sleep on. t.mu is held.
//
// Channels are pooled within one lease and never beyond: one made inside a
// synctest bubble must not be used outside, and a lease is on one side.
func (t *Thread) parker() chan struct{} {
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
	t := c.thread.Load()
	t.mu.Lock()
	if len(t.parkers) < maxParkers {
		t.parkers = append(t.parkers, c.parker)
	}
	t.mu.Unlock()
}

// await waits for c on an ordinary goroutine, and runs the errands of c's
// function meanwhile.
func (c *Call) await(ctx context.Context, o *Options) error {
	done, woke := ctx.Done(), c.woke
	for {
		c.look(woke)
		if c.wait.CompareAndSwap(nobodyParked, waiterParked) {
			select {
			case <-c.parker:
			case <-done:
				cause := context.Cause(ctx)
				if c.revoke(cause) {
					c.unpark()
					return cause
				}
				if o.Abandon && c.wait.CompareAndSwap(waiterParked, callerGone) {
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
	if !lookout(&c.wait, nobodyParked, spinBudget) {
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
		if c.wait.CompareAndSwap(nobodyParked, waiterParked) {
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
		if !finished && !c.revoke(context.Canceled) {
			// A call served in f has ended in Goexit and takes this wait with
			// it. What c comes to has nobody left to hear of it but the hook.
			c.wait.CompareAndSwap(nobodyParked, callerGone)
		}
	}()
	if t.serve(f, nil, ctx.Done()) {
		cause := context.Cause(ctx)
		if c.revoke(cause) {
			finished = true
			return cause
		}
		if o.Abandon && c.wait.CompareAndSwap(nobodyParked, callerGone) {
			finished = true
			count.abandoned.Add(1)
			return &abandonedError{cause}
		}
		t.serve(f, nil, nil)
	}
	finished = true
	return c.refusal
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
// returns. On a thread it does so in a frame.
func Park(ctx context.Context, done <-chan struct{}, what string) error {
	own, _ := current()
	if own == nil {
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if own.block(&Frame{}, what, done, ctx.Done()) {
		return context.Cause(ctx)
	}
	return nil
}

// Wait waits until done is closed, which the end of n does, or ctx ends. n's
// calls, and those of what n itself waits for or has started, become related
// to every frame that waits for the caller, and on a thread to the frame of
// this wait: what a blocked thread waits for, it can always run.
func Wait(ctx context.Context, n *Node, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	default:
	}
	ctx = afterlife(ctx)
	if err := Ended(ctx); err != nil {
		return err
	}
	own, rec := current()
	by := submitter(ctx, rec)
	if rec != nil && rec.Node == any(n) {
		return &DeadlockError{Message: "a task waits for itself"}
	}
	if own == nil {
		if by == nil {
			return Park(ctx, done, "")
		}
		j := &Join{by: by}
		n.addJoin(j)
		threads := joined(by, n)
		defer func() {
			n.dropJoin(j)
			rescan(threads)
		}()
		rescan(threads)
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	f := &Frame{}
	j := &Join{by: by, frame: f}
	own.push(f, "wait")
	defer own.pop(f) // after the join has gone: then its calls are strangers again
	n.addJoin(j)
	threads := joined(by, n)
	defer func() {
		n.dropJoin(j)
		rescan(threads)
	}()
	own.rescan()
	rescan(threads)
	if own.serve(f, done, ctx.Done()) {
		return context.Cause(ctx)
	}
	return nil
}

// joined returns the threads with frames that wait for by: calls of n that are
// queued there may be related now. Where by is an ancestor of n they were
// before.
func joined(by, n *Node) []*Thread {
	if by == nil || n.within(by, 8) {
		return nil
	}
	var ts []*Thread
	by.waiters(func(f *Frame) bool {
		for _, t := range ts {
			if t == f.thread {
				return true
			}
		}
		ts = append(ts, f.thread)
		return true
	})
	return ts
}

func rescan(ts []*Thread) {
	for _, t := range ts {
		t.rescan()
	}
}

// arm starts the watch over ctx.
func (i *interrupt) arm(ctx context.Context) {
	i.unwatch = context.AfterFunc(ctx, i.run)
}

// run runs fn, unless the function has ended.
func (i *interrupt) run() {
	if !i.state.CompareAndSwap(interruptWaits, interruptRuns) {
		return
	}
	returned := false
	defer func() {
		if !returned {
			e := recovered(recover(), nil)
			i.panic = e.Panic
		}
		close(i.done)
	}()
	i.fn()
	returned = true
}

// end makes sure that fn does not run any more. A panic of fn becomes the
// call's, if the call has returned.
func (i *interrupt) end(e *Ending) {
	if i.unwatch == nil {
		return
	}
	i.unwatch()
	if i.state.CompareAndSwap(interruptWaits, interruptOver) {
		return
	}
	<-i.done
	if i.panic != nil && e.Returned() {
		e.Panic = i.panic
	}
}

const (
	interruptWaits = iota
	interruptRuns
	interruptOver
)

// interrupt is the race between the end of a function and the end of its ctx.
type interrupt struct {
	fn      func()
	state   atomic.Uint32
	unwatch func() bool
	done    chan struct{} // closed when fn has ended
	panic   *Panic        // fn's own, set before done closes
}

// RunInline runs body where it is called, with the hooks, the trace and the
// interrupt function that a call has. It ends as body does.
func (c *Call) RunInline(ctx context.Context, s *Scope, body Body, o *Options) {
	if Plain(o) {
		body.Run(ctx)
		return
	}
	c.body, c.scope, c.ctx, c.name, c.pc, c.inline = body, s, ctx, o.Name, o.PC, true
	if o.Interrupt != nil {
		c.stop = &interrupt{fn: o.Interrupt, done: make(chan struct{})}
	}
	own, _ := current()
	c.begin(ctx)
	c.observed(own)
	c.ending.Raise()
}

// Plain reports whether a call that runs where it is made needs nothing beside
// its function.
func Plain(o *Options) bool {
	return o.Interrupt == nil && hooks.Load() == nil && !trace.IsEnabled()
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
		c.stop.arm(c.ctx)
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
	Message string
}

func (e *DeadlockError) Error() string        { return fmt.Sprintf("deadlock: %s", e.Message) }
func (e *DeadlockError) Is(target error) bool { return target == ErrDeadlock }

// ErrDeadlock is matched by every DeadlockError.
var ErrDeadlock = errors.New("deadlock")
