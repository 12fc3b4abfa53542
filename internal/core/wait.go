package core

import (
	"context"
	"errors"
	"reflect"
	"runtime/trace"

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
	Home    *Home // the loop, if another than that of its ctx

	// Of a task: where it is put before it starts, and what OnEnd is to be given;
	// nil for nothing.
	Into  **Task
	OnEnd func()
}

// Do runs body on the thread of s, waits for it, and returns nil; or it
// returns the error of a call that was not run, or was abandoned. It is not
// for callers that are on that thread already.
//
// After nil the results are in body, and the caller must look at c.Ending. A
// call that returned an error other than ErrAbandoned is its caller's again.
func (s *Scope) Do(ctx context.Context, c *Call, body Body, o *Options) error {
	err := s.do(ctx, c, body, o)
	if err == ErrClosed {
		err = s.named(err, c)
	}
	if err != nil && c.watched != nil {
		c.tellRefused(ctx, err)
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
	c.by, c.loose = submitterOf(ctx, rec)
	c.note(o)
	if rec != nil {
		c.values = rec.Values
	}
	if o.Interrupt != nil {
		c.stop = newInterrupt(o)
	}
	c.tellQueued(ctx)
	if repeats.busy.Load() != 0 {
		if err := s.refuseInterrupt(rec, c); err != nil {
			return err
		}
	}
	if own == nil {
		checkPark(rec)
		cx := callCtx(ctx, s)
		c.ctx, c.node = c.watched.carry(cx), cx.node
		// A loop does not run sync code: it would stand still.
		if !o.Abandon && parkable(rec) == nil && s.hold(c, rec) {
			return nil
		}
		c.bound = o.Abandon
		self := c.publish(rec)
		defer self.unpublish() // also when an errand ends this in a Goexit
		if err := s.submit(c); err != nil {
			return err
		}
		if c.timed {
			defer c.outwait()()
		}
		if err = s.mayRefuse(ctx, c, nil, self); err == nil {
			w := sleeper{rec: rec, edge: &c.edge, call: c, ctx: ctx, cancel: ctx.Done(), abandon: o.Abandon}
			err = w.wait()
		}
	} else {
		// The caller blocks a thread: it waits in a frame there, and the
		// function's node is one that the frame can be found by.
		fc := newFrameCtx(foreign(ctx), s, c.by, homeOf(ctx))
		f := &fc.wait
		c.ctx, c.node, c.frame = c.watched.carry(&fc.Ctx), fc.node, f
		f.edge.to = forCall{c}
		own.push(f, "call")
		defer own.pop(f)
		if err := s.submit(c); err != nil {
			return err
		}
		if c.timed {
			defer c.outwait()()
		}
		if err = s.mayRefuse(ctx, c, f, nil); err == nil {
			w := sleeper{own: own, frame: f, edge: &f.edge, call: c, ctx: ctx, cancel: ctx.Done(), abandon: o.Abandon}
			err = w.wait()
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
	n, _ := submitterOf(ctx, rec)
	return n
}

// submitterOf is submitter, and reports whether ctx is a detached one.
func submitterOf(ctx context.Context, rec *goroutine.Record) (n *Node, detached bool) {
	if c := From(ctx); c != nil {
		return c.node, c.node == nil && c.scope == nil
	}
	if rec != nil {
		n, _ = rec.Node.(*Node)
	}
	return n, false
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

// await waits until gate is open, which the end of n brings about, or ctx ends. n's
// calls, and those of what n itself waits for or has started, become related
// to every frame that waits for the caller, and on a thread to the frame of
// this wait: what a blocked thread waits for, it can always run. n is the node of to,
// a task or a group.
//
// An n that has ended when the wait ends is reported as such.
func await(ctx context.Context, to target, n *Node, gate *Gate) error {
	if gate.IsOpen() {
		return nil
	}
	ctx = Afterlife(ctx)
	if err := Ended(ctx); err != nil {
		if gate.IsOpen() { // before ctx, perhaps
			return nil
		}
		return err
	}
	own, rec := current()
	w := &goal{target: to, ctx: ctx}
	var done <-chan struct{}
	if own == nil && parkable(rec) != nil {
		w.gate = gate
	} else {
		done = gate.Done()
	}
	err := wait(ctx, own, rec, w, n, done, "wait")
	if err != nil && gate.IsOpen() {
		return nil
	}
	return err
}

// wait is Park and await: n, of w, is what is waited for, nil if that is not
// known. Done is nil if w has a gate.
func wait(ctx context.Context, own *Thread, rec *goroutine.Record, w *goal, n *Node, done <-chan struct{}, what string) error {
	return waitUntil(ctx, own, rec, w, n, sleeper{done: done}, what)
}

// waitUntil is wait until what s says has come; the rest of s is set here.
func waitUntil(ctx context.Context, own *Thread, rec *goroutine.Record, w *goal, n *Node, s sleeper, what string) error {
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
	if s.kin && f != nil && by != nil && !strict.Load() {
		defer own.servesKin(f, by)()
	}
	p := newWait(f, rec, w) // after the join: what that has made related is served
	defer p.close()
	if err := p.check(); err != nil {
		return err
	}
	if w != nil && f == nil {
		if _, ok := w.target.(forPool); ok {
			defer closingBegins(p.edge, by)()
		}
	}
	if w != nil && w.gate != nil {
		s.gate, s.place = w.gate, &w.place
	}
	s.own, s.frame, s.rec, s.edge, s.ctx, s.cancel = own, f, rec, p.edge, ctx, ctx.Done()
	return s.wait()
}

// servesKin has f, a wait on t of a function that runs as by, serve the calls of
// what the function has started. It returns what takes that back.
func (t *Thread) servesKin(f *Frame, by *Node) (over func()) {
	j := &Join{frame: f}
	relate(t, nil, func() { by.addJoin(j) })
	return func() { relate(t, nil, func() { by.dropJoin(j) }) }
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
	c.tellQueued(ctx)
	c.ctx = c.watched.carry(ctx)
	if own == nil && (rec == nil || rec.Node == nil) {
		// Somewhere to remember a panic that passes through.
		rec = goroutine.Ensure()
		rec.Node = &Node{}
		defer func() {
			rec.Node = nil
			rec.ReleaseIfEmpty()
		}()
	}
	c.run(own, raisedSlot(), nil, nil)
	c.ending.Raise()
}

// SetPC names the call after the function with that entry, unless it has a name.
func (c *Call) SetPC(pc uintptr) { c.pc = pc }

// Plain reports whether a call in s, which may be nil, that runs where it is
// made needs nothing beside its function.
func Plain(o *Options, s *Scope) bool {
	return o.Interrupt == nil && !hooked(s) && !trace.IsEnabled()
}

// note takes from the options what others ask c about.
func (c *Call) note(o *Options) {
	c.abandon, c.long, c.try = o.Abandon, o.Long, o.Try
	if c.by != nil {
		c.born = c.by.epoch()
	}
}

// mayRefuse looks whether c, which was queued, closes a cycle, where that is
// possible. The waiter calls it, in f or as self. After an error c is the caller's
// again.
func (s *Scope) mayRefuse(ctx context.Context, c *Call, f *Frame, self *Node) error {
	if c.lined && c.overflow(ctx) || !c.lined && !c.late {
		return nil
	}
	e := &c.edge
	if f != nil {
		e = &f.edge
	}
	err := c.turnedAway()
	switch {
	case err == nil:
		err = closes(f, self, e, c)
	case !c.revoke(err):
		return nil // it has come to run
	}
	if err != nil && f == nil {
		c.unpark()
	}
	return err
}
