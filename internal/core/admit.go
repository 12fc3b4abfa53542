package core

import (
	"fmt"
	"slices"
	"time"
)

// This file has the limits on how many calls may wait, and for how long.

// errLineFull is ErrPoolFull for a call that finds the line of its pool full.
var errLineFull error = admitError{"asyncsync: the pool is full, and so is the line for its threads", ErrPoolFull}

// An admitError is the error of a call that was not let in. It matches kind, an
// error of the public API, and its text says why.
type admitError struct {
	text string
	kind error
}

func (e admitError) Error() string { return e.text }

func (e admitError) Is(target error) bool { return target == e.kind }

// Full reports whether the next one who asks for a thread would have to wait in
// line.
func (p *Pool) Full() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.closed && len(p.idle) == 0 && p.alive >= p.max
}

// crowded reports whether t is in line beyond MaxWaiting places. A thread is exempt
// if a thread of the pool is blocked for it: strangers must not keep it waiting,
// nor cause its refusal.
func (p *Pool) crowded(t *Thread) bool {
	if p.MaxWaiting == 0 {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.urgent[t]; ok {
		return false
	}
	return slices.Index(p.waiting, t) >= max(0, p.MaxWaiting)
}

// turnedAway returns the reason why c, which was queued, must not stay in line for a
// thread of its pool. It returns nil if c may stay or is not in line. Call it only
// after overflow has reported false: until then c may be exempt from waiting.
func (c *Call) turnedAway() error {
	t := c.thread.Load()
	switch {
	case c.try && c.standsInLine():
		return errNotFree
	case c.lined && t.pool.crowded(t):
		return errLineFull
	}
	return nil
}

// timed reports whether there is a limit on how long c may wait, in the queue of
// t behind other calls or in the line of t's pool. t.mu is held; c is not queued
// yet.
func (t *Thread) timed(c *Call) bool {
	if t.worker == nil && t.pool != nil && t.pool.MaxWait > 0 {
		return true
	}
	return c.scope.root.cfg.Wait > 0 && !(t.atRest() && t.worker != nil)
}

// A patience limits how long one call waits. It refers to the call by number,
// because the record may be in use for another call by then.
type patience struct {
	thread      *Thread
	seq         uint64
	line, queue time.Duration // how long the call may stand in line, and be queued; 0 means without limit
	waited      time.Duration // how long the call has waited when over is called
}

// outwait takes c out of its queue if c has not begun when its time is over. stop
// prevents that. c is timed and was submitted to s. The caller passes s because c may
// have ended already, and then its record no longer has the scope.
func (c *Call) outwait(s *Scope) (stop func()) {
	p := &patience{thread: c.lock(), seq: c.seq}
	p.thread.mu.Unlock()
	if s.root.thread.Load() == p.thread {
		p.queue = time.Duration(s.root.cfg.Wait)
	}
	if c.lined {
		p.line = p.thread.pool.MaxWait
	}
	switch {
	case p.line == 0 && p.queue == 0:
		return func() {} // it has come to another thread
	case p.line == 0 || p.queue != 0 && p.queue < p.line:
		p.waited = p.queue
	default:
		p.waited = p.line
	}
	timer := time.AfterFunc(p.waited, p.over)
	return func() { timer.Stop() }
}

// over ends the call if it still waits behind strangers. If a function blocked
// on the thread waits for the call by now, the call is in the box of that wait,
// not in main, and over leaves it alone.
func (p *patience) over() {
	t := p.thread
	urgent := t.pool != nil && t.pool.isUrgent(t)
	t.mu.Lock()
	c := t.main.head
	for c != nil && c.seq != p.seq {
		c = c.next
	}
	var why error
	impatient := p.queue != 0 && p.queue <= p.waited // by the context's own limit
	switch {
	case c == nil:
	case t.inLine() && (impatient || !urgent): // the limit of the pool is not for the urgent
		why = admitError{fmt.Sprintf("asyncsync: no thread of the pool has come free for %v", p.waited), ErrPoolFull}
	case impatient:
		why = admitError{fmt.Sprintf("asyncsync: the thread has not come free for %v", p.waited), ErrQueueFull}
	case p.queue != 0:
		rest := p.queue - p.waited
		p.waited = p.queue
		time.AfterFunc(rest, p.over) // nobody stops it; it may find nothing
	}
	if why == nil {
		t.mu.Unlock()
		return
	}
	t.remove(c, why)
	t.mu.Unlock()
	t.removed(c)
	count.cancelled.Add(1)
	c.turnAway()
}

// isUrgent reports whether t stands in line for a call that a blocked thread of the pool
// waits for.
func (p *Pool) isUrgent(t *Thread) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.urgent[t]
	return ok
}
