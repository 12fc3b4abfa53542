package core

import (
	"context"
	"sync/atomic"

	"asyncsync.dev/internal/goroutine"
)

// An unpinned thread has no need of a goroutine of its own: a caller that finds
// it with nothing to do takes it, as one takes a token, and runs its function
// itself. While it is held the thread is the caller's goroutine, in all that
// this package means by that: it has frames there, serves there, and calls to it
// from there are inline.
//
// Only the uncontended case is done so. Who finds the thread held or busy queues,
// and the holder, when it puts the thread down, hands it to a worker, which runs
// what is queued. So no caller runs another's function, ends with its Goexit, or
// is kept by its length; and a worker that sleeps lets the thread be taken again.

// holders finds the thread that a goroutine holds, by the goroutine's id: to make
// and drop a record for every call costs more than the rest of it. Where two
// holders fall on one place the second has a record.
var holders [256]atomic.Pointer[Thread]

// heldBy returns the thread held by the calling goroutine, whose id is gid, if it
// is in the table.
func heldBy(gid int64) *Thread {
	if t := holders[uint64(gid)%uint64(len(holders))].Load(); t != nil && t.gid.Load() == gid {
		return t
	}
	return nil
}

// hold runs c on the calling goroutine, whose record is rec, if the thread of s is
// unpinned and free. It reports whether that is so; c has been run then.
func (s *Scope) hold(c *Call, rec *goroutine.Record) bool {
	r := s.root
	if !r.cfg.Unpinned || len(r.cfg.OnStart)+len(r.cfg.OnExit) > 0 || r.account.Load()&1 != 0 {
		return false
	}
	if rec != nil && rec.HasCritical() {
		return false // the goroutine's own must not mix with the thread's
	}
	t := r.bound()
	t.lock()
	if !t.free() {
		t.mu.Unlock()
		return false
	}
	if c.scope.enter(false) != nil {
		t.mu.Unlock()
		return false // the long way comes to the same, and says so
	}
	if !t.listed {
		t.listed = true
		enlist(t)
	}
	t.number(c)
	c.bound = true // its caller is the thread
	t.parked = false
	t.held = true
	gid := goroutine.ID()
	t.gid.Store(gid)
	t.wake, t.record = nil, rec
	t.take(c)
	t.mu.Unlock()
	if rec == nil && !holders[uint64(gid)%uint64(len(holders))].CompareAndSwap(nil, t) {
		rec = goroutine.Ensure()
		t.record = rec
	}
	// Who waits for what the goroutine ran so far waits for c now.
	self := waiter(rec)
	if self != nil {
		c.thread.Store(t)
		c.edge.to = forCall{c}
		self.publish(&c.edge)
		defer self.unpublish()
	}
	if rec != nil {
		rec.Owner = t
	}
	t.execHeld(c)
	return true
}

// free reports whether t, which is unpinned, may be held. t.mu is held.
func (t *Thread) free() bool {
	switch {
	case t.run != nil || t.waiting > 0 || t.over || t.ending || t.workerOnly:
		return false
	case t.worker == nil:
		return !t.asked
	default:
		// The record is nobody else's while its worker sleeps. Values there are
		// not for a holder to see.
		return t.parked && !t.worker.record.HasCritical()
	}
}

// execHeld is exec for the call of the holder. Values need not be carried: its
// function and its caller are one goroutine.
func (t *Thread) execHeld(c *Call) {
	var node any
	if t.record != nil {
		node, t.record.Node = t.record.Node, c.node
	}
	t.raised = nil
	c.node.Start()
	told := false
	defer func() {
		if !told {
			c.ending = recovered(recover(), nil)
		}
		t.raised = nil
		c.node.End()
		t.putDown(c, node)
	}()
	c.run(t, &t.raised, nil, nil)
	told = true
}

// putDown ends what hold began. node is what the goroutine's record said before.
func (t *Thread) putDown(c *Call, node any) {
	var critical goroutine.Aside
	has := false
	if rec := goroutine.Current(); rec != nil {
		if has = rec.HasCritical(); has {
			critical = rec.GiveAway()
		}
		if rec.Owner != nil {
			rec.Owner, rec.Node = nil, node
		}
		rec.ReleaseIfEmpty()
	}
	holders[uint64(t.gid.Load())%uint64(len(holders))].CompareAndSwap(t, nil)
	t.lock()
	t.run, c.outer = nil, nil
	t.calls++
	t.crowd.batch = 0 // it has not slept, but nor has it been woken
	t.held = false
	if has {
		// From now on the values need a goroutine that keeps them.
		t.critical, t.workerOnly = critical, true
	}
	w := t.worker
	if w != nil {
		t.gid.Store(w.gid)
		t.record, t.wake = w.record, w.wake
	} else {
		t.gid.Store(0)
		t.record, t.wake = nil, nil
	}
	work := has || t.main.head != nil || t.ending
	ask := work && w == nil && !t.asked
	if ask {
		t.asked = true
	}
	if w != nil && !work {
		t.parked = true
	}
	t.mu.Unlock()
	c.ending.count()
	switch {
	case ask:
		t.ask()
	case work && w != nil:
		w.wake <- struct{}{}
	}
	c.scope.leave()
}

// adoptCritical gives the worker what a holder has left. t.mu is held, by the
// worker.
func (t *Thread) adoptCritical() {
	if t.critical != (goroutine.Aside{}) {
		t.record.Adopt(t.critical)
		t.critical = goroutine.Aside{}
	}
}

// record returns the record of the calling goroutine, nil if it has none and
// nothing is known of it.
func record() *goroutine.Record {
	_, rec := current()
	return rec
}

// ownNode returns the node of what runs on the calling goroutine, or nil.
func ownNode() *Node { return submitter(context.Background(), record()) }
