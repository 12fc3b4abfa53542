package core

import (
	"sync"
	"time"
)

// This file has what an edge tells of its wait, and how a wait off the threads is
// published.

// goal returns the goal of e, nil if it waits for a call, or for nothing known.
func (e *edge) goal() *goal {
	g, _ := e.to.(*goal)
	return g
}

// hide makes the wait for a goal invisible, or visible.
func (e *edge) hide(hidden bool) {
	if g := e.goal(); g != nil {
		g.hidden.Store(hidden)
	}
}

// call returns the call on a thread, or on its way there, that e waits for, or nil.
func (e *edge) call() *Call {
	if e.to == nil {
		return nil
	}
	c, n := e.to.next()
	if n != nil && c.thread.Load() == nil {
		return nil // it runs off the threads
	}
	return c
}

// kind returns the kind of wait that e is, "" if that is not known: see [WaitState].
func (e *edge) kind() string {
	if e.to == nil {
		return ""
	}
	return e.to.kind()
}

// name returns the name of what e waits for. Its record is not used again as long as
// e is published, or cycles held.
func (e *edge) name() string {
	if e.to == nil {
		return ""
	}
	return e.to.name()
}

// mayWait reports whether what e waits for may be waiting itself. The waiter has
// published e. mayWait locks no thread, because blocks calls it with one locked. So for
// a task on a thread it returns true without a look at that thread.
func (e *edge) mayWait() bool { return e.to != nil && e.to.mayWait() }

// blocks reports whether a call in box, which t does not serve, might wait for
// something that waits for its caller. It returns false if everything that must
// end before the call runs is known to be running. t.mu is held, and the caller
// has published its wait.
func (t *Thread) blocks(box *list) bool {
	for f := t.top; f != nil && &f.box != box; f = f.below {
		if f.edge.mayWait() {
			return true
		}
	}
	return false
}

// started is what nanos counts from.
var started = time.Now()

// nanos returns the time. It reads one clock where time.Now reads two. In a synctest
// bubble, which has another clock, it may be negative.
func nanos() int64 { return int64(time.Since(started)) }

// slept notes that the waiter sleeps from now on.
func (e *edge) slept() {
	if e.since.Load() == 0 {
		e.since.Store(nanos())
	}
}

// age returns how long the waiter has slept, -1 if it has not.
func (e *edge) age() time.Duration {
	since := e.since.Load()
	if since == 0 {
		return -1
	}
	return max(0, time.Duration(nanos()-since))
}

// A closing is a wait off the threads for the end of a context or of a pool.
type closing struct {
	edge *edge
	by   *Node // of the ctx that it was made with, or that the goroutine runs as
	born uint32
}

// closings has all closings that have not ended. It is a leaf lock.
var closings struct {
	sync.Mutex
	waits map[*closing]struct{}
}

// stands reports whether the wait of c has not ended.
func (c *closing) stands() bool {
	closings.Lock()
	defer closings.Unlock()
	_, ok := closings.waits[c]
	return ok
}

// closingBegins makes known that e waits for the end of something, until end is
// called.
func closingBegins(e *edge, by *Node) (end func()) {
	c := &closing{edge: e, by: by}
	if by != nil {
		c.born = by.epoch()
	}
	closings.Lock()
	if closings.waits == nil {
		closings.waits = make(map[*closing]struct{})
	}
	closings.waits[c] = struct{}{}
	closings.Unlock()
	return func() {
		closings.Lock()
		delete(closings.waits, c)
		closings.Unlock()
		awaitReaders()
	}
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
