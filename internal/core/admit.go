package core

import (
	"fmt"
	"slices"
	"time"
)

// errLineFull is ErrPoolFull for a call that finds the line of its pool full.
var errLineFull error = admitError{"asyncsync: the pool is full, and so is the line for its threads", ErrPoolFull}

// An admitError says why a call was not let in, where another error says that it
// was not.
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

// crowded reports whether t is in line, but behind as many as may be there. Those
// whom the pool's threads are blocked for are not counted off: they are not to
// wait for strangers, and not to be refused for their sake.
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

// turnedAway returns why c, which was queued, is not to stay in line for a thread
// of its pool, nil if it is, or is not in line. It is asked when overflow has said
// that c is to wait: before that it is not known whether it is one of those who
// need not.
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

// timed reports whether c is to wait for so long only, in the queue of t behind
// others or in the line of its pool. t.mu is held; c is not queued yet.
func (t *Thread) timed(c *Call) bool {
	if t.worker == nil && t.pool != nil && t.pool.MaxWait > 0 {
		return true
	}
	return c.scope.root.cfg.Wait > 0 && !(t.atRest() && t.worker != nil)
}

// A patience is how long one call waits. It knows the call by its number: the
// record may have been used again.
type patience struct {
	thread      *Thread
	seq         uint64
	line, queue time.Duration // how long it may stand in line, and be queued; 0 for ever
	waited      time.Duration // how long that is when over is called
}

// outwait has c, which is timed, and was submitted to s, taken out of its queue if it has
// not begun when its time is over, unless stop is called before. The call may have ended
// meanwhile, and its record may not know its scope any more.
func (c *Call) outwait(s *Scope) (stop func() bool) {
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
		return func() bool { return true } // it has come to another thread
	case p.line == 0 || p.queue != 0 && p.queue < p.line:
		p.waited = p.queue
	default:
		p.waited = p.line
	}
	return time.AfterFunc(p.waited, p.over).Stop
}

// over ends the call if it waits behind strangers still. One that something
// blocked on the thread has come to wait for is in the box of that, and next.
func (p *patience) over() {
	t := p.thread
	urgent := t.pool != nil && t.pool.isUrgent(t)
	t.mu.Lock()
	c := t.main.head
	for c != nil && c.seq != p.seq {
		c = c.next
	}
	var why error
	switch {
	case c == nil:
	case t.inLine() && !urgent:
		why = admitError{fmt.Sprintf("asyncsync: no thread of the pool has come free for %v", p.waited), ErrPoolFull}
	case p.queue != 0 && p.queue <= p.waited:
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
