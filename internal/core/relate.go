package core

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// This file has the changes to who waits for whom, and the move of queued calls that
// follows.

// relate makes a change to who waits for whom, and puts the calls that are queued
// on the threads concerned where they belong after it. To submitters both are one
// step, so that a call made after the change does not overtake a call made before
// it.
//
// The threads are own, which may be nil, and those of all frames that wait for
// by. They are looked up under the same lock as the change. So if two joins form
// a chain, the second one finds the threads that the first has added.
func relate(own *Thread, by *Node, change func()) {
	threads, wake, free, left := rearrange(own, by, change)
	for _, c := range free {
		close(c.free)
	}
	for _, w := range wake {
		w.thread.tell(w.sleeps)
	}
	for _, t := range threads {
		t.pool.reconsider()
	}
	for _, m := range left {
		m.recheck()
	}
}

// A waking is a thread that has something to do, to be told when no lock is
// held.
type waking struct {
	thread *Thread
	sleeps bool
}

// rearrange is the part of relate that holds locks. It returns the threads that it has
// locked, those of them to wake, the closers to let go, and the marks of resort.
func rearrange(own *Thread, by *Node, change func()) (threads []*Thread, wake []waking, free []*closer, left []*Mark) {
	relations.Lock()
	defer relations.Unlock()
	threads = by.threads()
	if own != nil {
		threads = append(threads, own)
	}
	// This is the only place where several threads are locked, in the order of
	// their ids.
	slices.SortFunc(threads, func(a, b *Thread) int { return cmp.Compare(a.id, b.id) })
	threads = slices.Compact(threads)
	for _, t := range threads {
		t.mu.Lock()
	}
	change()
	for _, t := range threads {
		t.closers = slices.DeleteFunc(t.closers, func(c *closer) bool {
			inside := t.frameFor(c.node) != nil
			if inside {
				c.wait.hidden.Store(true)
				c.drop()
				free = append(free, c)
			}
			return inside
		})
	}
	for _, t := range threads {
		if t.related() && t.top != nil && t.waiting > 0 {
			left = append(left, t.resortAll()...)
			if t.due() {
				wake = append(wake, waking{t, t.rouse()})
			}
		}
		t.mu.Unlock()
	}
	return threads, wake, free, left
}

// relations is held by relate, by SetStrict, and by a search, so that joins do not change
// meanwhile. It nests outside Thread.mu.
var relations sync.Mutex

// threads returns the threads of all frames that wait for n.
func (n *Node) threads() []*Thread {
	var ts []*Thread
	if n != nil {
		n.waiters(func(f *Frame) bool {
			if !slices.Contains(ts, f.thread) {
				ts = append(ts, f.thread)
			}
			return true
		})
	}
	return ts
}

// frameFor returns the highest frame of t that waits for n, directly or not;
// nil makes a stranger of n. t.mu is held.
//
// The first frame found going up from n is the top one in every nesting that
// has no joins, so that the walk is one or two steps however deep the nesting.
// It goes on to the root only for those who have to wait anyway.
func (t *Thread) frameFor(n *Node) *Frame {
	if t.top == nil || n == nil {
		return nil
	}
	var best *Frame
	n.waiters(func(f *Frame) bool {
		if f.thread == t && f.live && (best == nil || f.level > best.level) {
			best = f
		}
		return best != t.top
	})
	return best
}

// resortAll puts all queued calls where they belong. It returns the marks that resort has
// made for calls from boxes. t.mu is held.
func (t *Thread) resortAll() (left []*Mark) {
	t.resort(&t.main)
	t.resort(&t.posts)
	for f := t.top; f != nil; f = f.below {
		left = append(left, t.resort(&f.box)...)
	}
	return left
}

// resort moves calls of l that belong in another list. It returns marks of the
// moved calls that may now wait for something that waits for them: such a move can
// close a cycle without a new wait. t.mu is held.
func (t *Thread) resort(l *list) (left []*Mark) {
	for c := l.head; c != nil; {
		next := c.next
		if to, _ := t.boxFor(c); to != l {
			l.remove(c)
			to.push(c)
			if l != &t.main && l != &t.posts && !t.serves(to) && t.blocks(to) {
				left = append(left, t.mark(c, 0))
			}
		}
		c = next
	}
	return left
}

// related reports whether t, blocked, serves those that the wait may depend on.
func (t *Thread) related() bool {
	return t.policy == Related || t.policy == All && strict.Load()
}

// all reports whether t serves everybody.
func (t *Thread) all() bool { return t.policy == All && !strict.Load() }

// everybody reports whether t, in the frame where it is now, serves everybody: by its
// policy, or because that frame is open and t is the lasting thread of an executor's
// goroutine. There is a frame, and t.mu is held.
func (t *Thread) everybody() bool { return t.all() || t.top.open && t.own.forGood.Load() }

// mark marks c, which is queued, and has been so for at least as long as seen.
// t.mu is held.
func (t *Thread) mark(c *Call, seen time.Duration) *Mark {
	m := &Mark{thread: t, from: nanos() - int64(seen), call: c}
	t.marks = append(t.marks, m)
	return m
}

// unmark tells the marks of c that it has left. t.mu is held.
func (t *Thread) unmark(c *Call) {
	t.dropMarks(func(m *Mark) bool {
		if m.call != c {
			return false
		}
		since := int64(0)
		if e := c.callerEdge(); e != nil {
			since = e.since.Load()
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

// Left reports whether the call has left the queue. after is the time from
// when its caller began to sleep or, if it did not sleep, from when the call
// was first known to be queued.
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

// join joins nodes, unless c has been let go. relations is held.
func (c *closer) join(nodes []*Node) {
	if c.gone {
		return
	}
	c.nodes, c.joins = nodes, make([]Join, len(nodes))
	for i, n := range nodes {
		c.joins[i] = Join{by: c.node}
		n.addJoin(&c.joins[i])
	}
}

// drop undoes join, for good. relations is held.
func (c *closer) drop() {
	c.gone = true
	for i, n := range c.nodes {
		n.dropJoin(&c.joins[i])
	}
	c.nodes, c.joins = nil, nil
}

// strict is what SetStrict has set.
var strict atomic.Bool

// SetStrict has all threads serve nothing in a blocked function but what is
// related to it through waits that this module knows: [All] counts as
// [Related], and waits for something unknown that begin from now on serve
// nobody.
func SetStrict(on bool) {
	relations.Lock()
	if strict.Swap(on) == on {
		relations.Unlock()
		return
	}
	var wake []waking
	var left []*Mark
	for _, t := range liveThreads() {
		t.mu.Lock()
		if t.policy == All && t.top != nil {
			left = append(left, t.resortAll()...)
			if t.due() {
				wake = append(wake, waking{t, t.rouse()})
			}
		}
		t.mu.Unlock()
	}
	relations.Unlock()
	for _, w := range wake {
		w.thread.tell(w.sleeps)
	}
	for _, m := range left {
		m.recheck()
	}
}
