package core

import (
	"slices"
	"sync/atomic"
	"time"
)

// A Mark tells when a queued call has left the queue of its thread.
type Mark struct {
	thread *Thread
	from   int64        // since when the call is known to have been queued
	call   *Call        // guarded by thread.mu; nil when it has left
	after  atomic.Int64 // nanoseconds that it has taken, plus one; 0 while it has not left
}

// MarkQueued marks the call with the number seq in the queue of a thread, which
// was there for as long as seen, at least. ok is false if it is not there any
// more.
func MarkQueued(thread, seq uint64, seen time.Duration) (m *Mark, ok bool) {
	t, c := queuedCall(thread, seq)
	if c == nil {
		return nil, false
	}
	m = t.mark(c, seen)
	t.mu.Unlock()
	return m, true
}

// mark marks c, which is queued, and has been so for at least as long as seen.
// t.mu is held.
func (t *Thread) mark(c *Call, seen time.Duration) *Mark {
	m := &Mark{thread: t, from: nanos() - int64(seen), call: c}
	t.marks = append(t.marks, m)
	return m
}

// queued returns the call, nil if it has left the queue. Its record stays what it is
// while the caller has the right to read edges.
func (m *Mark) queued() *Call {
	m.thread.mu.Lock()
	defer m.thread.mu.Unlock()
	return m.call
}

// unmark tells the marks of c that it has left. t.mu is held.
func (t *Thread) unmark(c *Call) {
	t.dropMarks(func(m *Mark) bool {
		if m.call != c {
			return false
		}
		since := c.edge.since.Load()
		if c.frame != nil {
			since = c.frame.edge.since.Load()
		}
		if since == 0 {
			since = m.from
		}
		m.call = nil
		m.after.Store(max(0, nanos()-since) + 1)
		return true
	})
}

// dropMarks forgets marks. t.mu is held.
func (t *Thread) dropMarks(which func(*Mark) bool) {
	if t.marks = slices.DeleteFunc(t.marks, which); len(t.marks) == 0 {
		t.marks = nil
	}
}

// Left reports whether the call has left the queue, and after how long since
// its caller began to wait, or was seen to if it does not sleep.
func (m *Mark) Left() (after time.Duration, left bool) {
	n := m.after.Load()
	return time.Duration(max(0, n-1)), n != 0
}

// Drop forgets the mark.
func (m *Mark) Drop() {
	m.thread.mu.Lock()
	defer m.thread.mu.Unlock()
	m.thread.dropMarks(func(o *Mark) bool { return o == m })
}

// Refuse takes the call with the number seq out of the queue of a thread, and
// has it fail with err. It reports false if it is not there any more, for a
// function that was posted to an executor, which has no caller to be told, and
// on a thread that has no goroutine.
func Refuse(thread, seq uint64, err error) bool {
	t, c := queuedCall(thread, seq)
	if c == nil {
		return false
	}
	if _, ok := c.body.(*posted); ok || t.inLine() {
		t.mu.Unlock()
		return false
	}
	t.remove(c, err)
	t.mu.Unlock()
	t.removed(c)
	c.turnAway()
	return true
}

// recheck looks for a cycle that a marked call is in, since it came to where its
// thread does not serve it, and refuses the call if there is one. It drops the mark.
// No lock is held, and the caller need not be the one who waits.
func (m *Mark) recheck() {
	defer m.Drop()
	var q *query
	found := false
	readEdges(func() {
		if c := m.queued(); c != nil {
			q = newQuery(&edge{to: forCall{c}}, nil, nil, c)
			found = q.certain()
		}
	})
	if !found || q.lend() {
		return
	}
	if d, _ := q.refuse(m); d != nil {
		q.call.turnAway()
	}
}

// queuedCall returns the thread with that id, locked, and its queued call with
// the number seq; or nil, and nothing is locked.
func queuedCall(thread, seq uint64) (*Thread, *Call) {
	for _, t := range threads() {
		if t.id != thread {
			continue
		}
		t.mu.Lock()
		find := func(l *list) *Call {
			for c := l.head; c != nil; c = c.next {
				if c.seq == seq {
					return c
				}
			}
			return nil
		}
		c := find(&t.main)
		for f := t.top; f != nil && c == nil; f = f.below {
			c = find(&f.box)
		}
		if c != nil {
			return t, c
		}
		t.mu.Unlock()
	}
	return nil, nil
}
