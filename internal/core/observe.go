package core

import (
	"fmt"
)

// How much is looked at.
const (
	graphTop    = 48  // entries of a stack, from the top
	graphBottom = 16  // and from the bottom, of a stack that is higher than both
	graphSteps  = 256 // up a tree, along a chain of waits, or through a queue
)

// liveThreads returns the threads that have a goroutine.
func liveThreads() []*Thread {
	live.Lock()
	defer live.Unlock()
	threads := make([]*Thread, 0, len(live.threads))
	for t := range live.threads {
		threads = append(threads, t)
	}
	return threads
}

// inLine reports whether t waits for a worker of its pool, if only for one that
// is on its way. t.mu is held.
func (t *Thread) inLine() bool { return t.worker == nil && t.asked && t.pool != nil }

// exiting reports whether t runs exit functions. t.mu is held.
func (t *Thread) exiting() bool {
	// One that sleeps in a frame is in a wait of an exit function.
	return t.run == nil && t.ending && t.worker != nil && (!t.parked || t.top != nil)
}

// servesNow reports whether t is about to run what lies in l: it has nothing to do, or
// waits and serves l. t.mu is held.
func (t *Thread) servesNow(l *list) bool {
	return (t.run == nil || t.top != nil && t.top.call == t.run) && t.serves(l)
}

// An entry is a part of a thread's stack: a call, the wait that blocks it, or
// both.
type entry struct {
	call  *Call
	frame *Frame
}

// stack returns the entries from the top, without the middle of a high stack,
// and how many there are with it. t.mu is held.
func (t *Thread) stack() (n int, stack []entry) {
	var last [graphBottom]entry // a ring
	add := func(e entry) {
		if n < graphTop {
			stack = append(stack, e)
		} else {
			last[(n-graphTop)%graphBottom] = e
		}
		n++
	}
	f := t.top
	for c := t.run; c != nil; c = c.outer {
		e := entry{call: c}
		for ; f != nil && f.call == c; f = f.below {
			if e.frame == nil {
				e.frame = f
			}
		}
		add(e)
	}
	for ; f != nil; f = f.below {
		add(entry{frame: f})
	}
	if rest := n - graphTop; rest > 0 {
		for i := max(0, rest-graphBottom); i < rest; i++ {
			stack = append(stack, last[i%graphBottom])
		}
	}
	return n, stack
}

// Functions are those on a thread's stack that a graph names, with the epoch of each.
// Their places count from the top, and from 1.
type functions map[*Node]struct {
	epoch uint32
	place int
}

// functions returns those on the stack of t. t.mu is held.
func (t *Thread) functions() functions {
	r := functions{}
	_, stack := t.stack()
	for i, e := range stack {
		if e.call != nil && r[e.call.node].place == 0 {
			r[e.call.node] = struct {
				epoch uint32
				place int
			}{e.call.node.epoch(), i + 1}
		}
	}
	return r
}

// place returns the place of the function that is above by, in the epoch born, in the
// call tree; 0 for none. It looks a bounded way up, so that 0 may be wrong.
func (r functions) place(by *Node, born uint32) int {
	for range graphSteps {
		if by == nil {
			break
		}
		if at, ok := r[by]; ok && at.epoch == born {
			return at.place
		}
		born = by.born.Load()
		by = by.parent.Load()
	}
	return 0
}

// called is what errors call t: its name, or where its context was made.
func (t *Thread) called() string {
	switch {
	case t.name != "":
		return t.name
	case t.made != 0:
		return fmt.Sprintf("thread (made in %s)", siteOf(t.made))
	}
	return "thread"
}

// needs returns the level from which on all frames of t must end before c does, or
// that t must get a worker from its pool; blocked is false if there is no such thing.
// t.mu is held; it is the thread of c.
func (t *Thread) needs(c *Call) (low int, line, blocked bool) {
	if c.isQueued() {
		switch {
		case t.worker == nil && !t.adopted && !t.held:
			return 0, t.pool != nil && t.asked, t.pool != nil && t.asked
		case t.serves(c.list):
			return 0, false, false
		}
		for f := t.top; f != nil; f = f.below {
			if &f.box == c.list {
				return f.level + 1, false, true
			}
		}
		return 0, false, true
	}
	// The frames of c, and of what runs on top of it, are those down to the first
	// whose call lies below c. A c that is not on the stack has ended, or was not
	// queued yet.
	f := t.top
	for r := t.run; r != nil; r = r.outer {
		for ; f != nil && f.call == r; f = f.below {
			low, blocked = f.level, true
		}
		if r == c {
			return low, false, blocked
		}
	}
	return 0, false, false
}

// eachCall calls f for the calls that are queued on t and that run there. t.mu is
// held.
func (t *Thread) eachCall(f func(*Call)) {
	for c := t.main.head; c != nil; c = c.next {
		f(c)
	}
	for g := t.top; g != nil; g = g.below {
		for c := g.box.head; c != nil; c = c.next {
			f(c)
		}
	}
	for c := t.run; c != nil; c = c.outer {
		f(c)
	}
}
