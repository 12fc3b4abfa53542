package core

import (
	"asyncsync.dev/internal/goroutine"
)

// An openWait is a wait with a goal, while it lasts. It is made in the frame f, or
// by the goroutine that runs as self, which may be nil.
//
// It opens after the join that belongs to it, and closes before that is dropped: a
// wait without its join looks like one for a stranger.
type openWait struct {
	f    *Frame
	self *Node
	edge *edge
}

// pushWait pushes the frame of a wait for g, nil if that is not known. newWait makes
// the wait visible.
func (t *Thread) pushWait(g *goal, what string) *Frame {
	f := &Frame{}
	if g != nil {
		g.hidden.Store(true)
		f.edge.to = g
	}
	t.push(f, what)
	return f
}

// newWait makes visible that the calling goroutine, with the record rec, waits for
// g, in f or off the threads.
func newWait(f *Frame, rec *goroutine.Record, g *goal) openWait {
	switch {
	case f != nil:
		f.edge.hide(false)
		return openWait{f: f, edge: &f.edge}
	case g == nil:
		g = &goal{}
	default:
		g.edge.to = g
	}
	return newEdge(rec, &g.edge)
}

// newEdge makes visible that the calling goroutine, no thread, waits for e.
func newEdge(rec *goroutine.Record, e *edge) openWait {
	checkPark(rec)
	w := openWait{self: waiter(rec), edge: e}
	e.gid.Store(goroutine.ID())
	w.self.publish(e)
	return w
}

// check returns the error of a wait that closes a cycle. Before that it lends and
// borrows tokens, where somebody wants them.
func (w *openWait) check() error {
	if c := w.edge.claim(); c != nil && (c.borrow() || c.back) {
		return nil // it has been lent what it waits for, or cannot be refused
	}
	if contended.n.Load() != 0 {
		switch {
		case w.f == nil:
			offer(w.self)
		case w.f.call != nil:
			offer(w.f.call)
		default:
			offer(w.f.thread)
		}
	}
	if !w.edge.mayWait() || w.edge.unblocked() {
		return nil
	}
	return closes(w.f, w.self, w.edge, nil)
}

// close takes the wait back.
func (w *openWait) close() {
	if w.f != nil {
		w.f.edge.hide(true) // pop waits for the readers
	}
	w.self.unpublish()
}

// unblocked reports whether e waits for a call on a thread that nothing keeps from
// ending. The caller holds no lock.
func (e *edge) unblocked() bool {
	c := e.call()
	if c == nil || c.thread.Load() == nil {
		return false
	}
	t := c.lock()
	defer t.mu.Unlock()
	_, _, blocked := t.needs(c)
	return !blocked
}

// publish makes e what n waits for. n may be nil.
func (n *Node) publish(e *edge) {
	if n != nil && e != nil {
		n.waits.Store(e)
	}
}

// unpublish takes the wait of n back. n may be nil.
func (n *Node) unpublish() {
	if n != nil {
		n.waits.Store(nil)
		awaitReaders()
		if loans.n.Load() != 0 {
			reclaim(n)
		}
	}
}

// publish makes known that the calling goroutine, which is no thread, waits for c,
// before c is queued. It returns the node that unpublish must be called on.
func (c *Call) publish(rec *goroutine.Record) *Node {
	c.edge.gid.Store(goroutine.ID())
	self := waiter(rec)
	if self != nil {
		c.edge.to = forCall{c}
		self.waits.Store(&c.edge)
	}
	return self
}

// runsInside publishes that the function which runs as n does so inside of the call
// on top of the thread t: it waits for what that call waits for. end takes that
// back.
func (n *Node) runsInside(t *Thread) (end func()) {
	if t.run != nil { // only t's own goroutine changes run
		n.publish(&edge{to: forTop{t.run}})
	}
	return n.unpublish
}
