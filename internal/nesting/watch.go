package nesting

import (
	"context"
	"fmt"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/loop"
)

// What is checked wherever a function begins, ends, or goes on: where it runs, and on
// top of what.

func (x *run) complain(format string, args ...any) {
	x.complaints.Lock()
	defer x.complaints.Unlock()
	x.Complaints = append(x.Complaints, fmt.Sprintf(format, args...))
}

// count counts c.
func (x *run) count(c counter) { x.Counts[c].Add(1) }

func (x *run) child(parent *activity, b *Body) *activity {
	a := &activity{parent: parent, body: b}
	if x.mode&Unwatched == 0 {
		x.mu.Lock()
		x.clock++
		a.began = x.clock
		x.mu.Unlock()
	}
	return a
}

// during calls f, in which a waits for target.
func (x *run) during(a, target *activity, f func()) {
	w := &wait{by: a, target: target}
	defer x.note(w)()
	outer := a.waiting
	a.waiting = w
	defer func() { a.waiting = outer }()
	f()
}

// waits records that a waits for target until over is called. Nothing runs on
// top of a in this wait.
func (x *run) waits(a, target *activity) (over func()) {
	return x.note(&wait{by: a, target: target})
}

// closes records that by waits for everything that c has accepted until over is
// called.
func (x *run) closes(by *activity, c *contextState) (over func()) {
	return x.note(&wait{by: by, closed: c})
}

func (x *run) note(w *wait) (over func()) {
	if x.mode&Unwatched != 0 {
		return func() {}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.clock++
	w.from = x.clock
	x.record = append(x.record, w)
	return func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.clock++
		w.to = x.clock
	}
}

// depends reports whether the target of w is, or may wait for, the caller of a.
// It considers all waits since a was submitted, because the library may have
// acted on any of them.
func (x *run) depends(w *wait, a *activity) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	todo, seen := []*activity{a}, map[*activity]bool{}
	for len(todo) > 0 {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if n == nil || seen[n] {
			continue
		}
		seen[n] = true
		if n == w.target {
			return true
		}
		todo = append(todo, n.parent)
		for _, o := range x.record {
			if (o.target == n || o.closed != nil && o.closed == n.on) && (o.to == 0 || o.to >= a.began) {
				todo = append(todo, o.by)
			}
		}
	}
	return false
}

// outermost returns the function that a is a part of for the library.
func (a *activity) outermost() *activity {
	for a.within != nil {
		a = a.within
	}
	if omit.siblings && a.parent != nil {
		for a = a.parent; a.borrows; a = a.parent {
		}
	}
	return a
}

// enter records that a begins to run on its thread; leave records its end.
func (x *run) enter(a *activity) {
	c := a.on
	tid := osThread()
	if x.mode&Bubble != 0 && c.Kind == defaultThread && len(c.stack) == 0 {
		x.disclaim(c)
		c.tid = 0
	}
	switch {
	case c.tid == 0:
		c.tid = tid
		x.claim(c, tid)
	case c.tid != tid && !c.Unpinned:
		x.complain("b%d: runs on OS thread %d, but %v has %d", a.body.ID, tid, c.Context, c.tid)
	}
	if n := len(c.stack); n > 0 {
		below := c.stack[n-1]
		switch w := below.waiting; {
		case w == nil:
			x.complain("b%d: runs on %v between the steps of b%d, which waits for nothing", a.body.ID, c.Context, below.body.ID)
		case a.posted:
			// Whatever the policy says, that is what it waits for.
		case w.target == a:
			// A call of its own, inline.
			if !a.queued {
				a.within = below
			}
		case c.Policy == asyncsync.None:
			x.complain("b%d: runs on top of b%d, but %v serves nobody", a.body.ID, below.body.ID, c.Context)
		case c.Policy == asyncsync.Related && x.mode&Unwatched == 0 && !x.depends(w, a):
			x.complain("b%d: a stranger, runs on top of b%d, in #%d, on %v", a.body.ID, below.body.ID, below.op, c.Context)
		}
	}
	if n := len(c.stack); n > 0 && c.stack[n-1].onTop != uncounted {
		x.count(c.stack[n-1].onTop)
	}
	c.stack = append(c.stack, a)
	c.steps++
}

func (x *run) leave(a *activity) {
	c := a.on
	x.step(a)
	if n := len(c.stack); n > 0 {
		c.stack = c.stack[:n-1]
	}
}

// step is called wherever a is about to do something: it must be the one that
// runs on its context, on the thread it began on.
func (x *run) step(a *activity) {
	c := a.on
	if c == nil {
		return
	}
	c.steps++
	if n := len(c.stack); n == 0 || c.stack[n-1] != a {
		x.complain("b%d: another function has begun on %v in between and not ended", a.body.ID, c.Context)
	}
	if tid := osThread(); tid != a.tid && !c.Unpinned {
		x.complain("b%d: has moved from OS thread %d to %d", a.body.ID, a.tid, tid)
	}
}

// claim notes that c has the OS thread tid, which no other context in use may
// have.
func (x *run) claim(c *contextState, tid int) {
	if c.Unpinned || tid == 0 || x.mode&Unwatched != 0 {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if o := x.tids[tid]; o != nil && o != c && !o.early.Load() && !(x.mode&Bubble != 0 && o.Kind == defaultThread) {
		x.complain("%v has OS thread %d, which is that of %v", c.Context, tid, o.Context)
	}
	if o := x.dead[tid]; o != nil && o != c {
		x.complain("%v has OS thread %d, which %v has tainted", c.Context, tid, o.Context)
	}
	x.tids[tid] = c
}

// disclaim is called before c is closed.
func (x *run) disclaim(c *contextState) {
	if x.mode&Unwatched != 0 {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for tid, o := range x.tids {
		if o.Context == c.Context {
			delete(x.tids, tid)
			if o.tainted.Load() {
				x.dead[tid] = o
			}
		}
	}
}

// begins checks that the function of b, which begins with ctx, is a task of its
// loop.
func (x *run) begins(ctx context.Context, b *Body) {
	l := x.loops[b.Loop-1]
	got, ok := loop.Current(ctx)
	switch {
	case !ok:
		x.complain("b%d: is no task, should be one of loop %d", b.ID, b.Loop)
		return
	case got != l.Backend:
		x.complain("b%d: is a task of %v, should be one of loop %d", b.ID, got, b.Loop)
		return
	case l.side:
		return
	case l.tid == 0:
		l.tid = osThread()
	case osThread() != l.tid:
		x.complain("b%d: runs on OS thread %d, loop %d has %d", b.ID, osThread(), b.Loop, l.tid)
	}
	l.steps++
	if x.p.looseBodies[b.ID] {
		x.count(looseOnLoop)
	}
}
