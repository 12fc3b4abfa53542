package core

import (
	"cmp"
	"maps"
	"slices"

	"asyncsync.dev/internal/cycle"
)

// A target is what a wait is for. Searches for a cycle, the lending of tokens and
// reports all ask it: a new kind of wait is a new type here, and nothing else in this
// package.
//
// Each of the types is one pointer, so that an edge holds it without an allocation.
type target interface {
	// kind returns the kind of the wait: see [WaitState]. It is "" for a goroutine
	// that does not wait itself, but runs inside of something else.
	kind() string
	// name returns the name of the target, "" if it has none.
	name() string
	// mayWait reports whether the target may be waiting itself. It is called with
	// the mutex of a thread held, and takes leaf locks only.
	mayWait() bool
	// next returns the one call that has to end, and the node that it runs as if it
	// may run off the threads. Both are nil if the target is something else.
	next() (*Call, *Node)
	// needs returns what has to end before the wait does. cycles and relations are
	// held, and no other lock.
	needs(q *query) cycle.Needs
	// reached returns what claim.reach meets on its way up if it comes through this
	// wait; nil if it does not.
	reached() any
	// report adds to w what is known of the target, and to v the functions that it
	// leads to. cycles is held, and no other lock.
	report(v *view, w *WaitState)
}

// forCall is a call on a thread, or on its way there.
type forCall struct{ c *Call }

func (f forCall) kind() string               { return "call" }
func (f forCall) name() string               { return f.c.Name() }
func (f forCall) mayWait() bool              { return true }
func (f forCall) next() (*Call, *Node)       { return f.c, nil }
func (f forCall) needs(q *query) cycle.Needs { return q.one(&callVertex{q, f.c}) }
func (f forCall) reached() any               { return f.c }
func (f forCall) report(_ *view, w *WaitState) {
	if f.c.thread.Load() == nil {
		return
	}
	t := f.c.lock()
	defer t.mu.Unlock()
	w.Thread, w.Seq = t.id, f.c.seq
	if f.c.isRunning() {
		w.Goroutine = t.gid.Load()
	}
}

// forAsync is a call whose function runs elsewhere: see [Away].
type forAsync struct{ c *Call }

func (f forAsync) kind() string         { return "async" }
func (f forAsync) name() string         { return f.c.Name() }
func (f forAsync) mayWait() bool        { return f.c.node.waits.Load() != nil }
func (f forAsync) next() (*Call, *Node) { return f.c, f.c.node }
func (f forAsync) reached() any         { return f.c.node }
func (f forAsync) needs(q *query) cycle.Needs {
	n := q.one(&nodeVertex{q: q, node: f.c.node, name: f.c.name, pc: f.c.pc})
	if f.c.abandon {
		n.Until = f.c.ctx
	}
	return n
}
func (f forAsync) report(v *view, w *WaitState) {
	w.Function = v.found(f.c.node, f.c.name, f.c.pc)
	w.Goroutine = f.c.edge.gid.Load()
}

// forNode is the function that runs as a node.
type forNode struct{ n *Node }

func (f forNode) kind() string               { return "run" }
func (f forNode) name() string               { return f.n.name() }
func (f forNode) mayWait() bool              { return true }
func (f forNode) next() (*Call, *Node)       { return nil, nil }
func (f forNode) needs(q *query) cycle.Needs { return q.one(&nodeVertex{q: q, node: f.n}) }
func (f forNode) reached() any               { return nil }
func (f forNode) report(v *view, _ *WaitState) {
	v.found(f.n, f.n.name(), 0)
}

// forTop is the call on top of a thread, for a function that runs inside of it: see
// Node.runsInside.
type forTop struct{ c *Call }

func (f forTop) kind() string               { return "" }
func (f forTop) name() string               { return "" }
func (f forTop) mayWait() bool              { return true }
func (f forTop) next() (*Call, *Node)       { return nil, nil }
func (f forTop) needs(q *query) cycle.Needs { return q.one(&callVertex{q, f.c}) }
func (f forTop) reached() any               { return f.c }
func (f forTop) report(*view, *WaitState)   {}

// forThread is the thread that the goroutine of the waiter has become.
type forThread struct{ t *Thread }

func (f forThread) kind() string               { return "" }
func (f forThread) name() string               { return "" }
func (f forThread) mayWait() bool              { return true }
func (f forThread) next() (*Call, *Node)       { return nil, nil }
func (f forThread) needs(q *query) cycle.Needs { return cycle.Needs{Of: q.stack(f.t, 0)} }
func (f forThread) reached() any               { return f.t }
func (f forThread) report(*view, *WaitState)   {}

// forTask is the end of a task.
type forTask struct{ t *Task }

func (f forTask) kind() string         { return "task" }
func (f forTask) name() string         { return f.t.call.Name() }
func (f forTask) next() (*Call, *Node) { return &f.t.call, f.t.Node() }
func (f forTask) reached() any         { return f.t.Node() }
func (f forTask) mayWait() bool {
	return f.t.call.thread.Load() != nil || f.t.Node().waits.Load() != nil
}
func (f forTask) needs(q *query) cycle.Needs {
	if f.t.call.thread.Load() != nil {
		return q.one(&callVertex{q, &f.t.call})
	}
	return q.one(q.task(f.t))
}
func (f forTask) report(v *view, w *WaitState) {
	w.Function = v.found(f.t.Node(), f.t.call.name, f.t.call.pc)
	if f.t.call.thread.Load() != nil {
		forCall{&f.t.call}.report(v, w)
	} else {
		w.Goroutine = f.t.call.edge.gid.Load()
	}
}

// forGroup is the end of all tasks of a group.
type forGroup struct{ g *Group }

func (f forGroup) kind() string                 { return "group" }
func (f forGroup) name() string                 { return "" }
func (f forGroup) next() (*Call, *Node)         { return nil, nil }
func (f forGroup) reached() any                 { return &f.g.nc.own }
func (f forGroup) report(v *view, w *WaitState) { v.members(w, f.g) }
func (f forGroup) mayWait() bool {
	f.g.mu.Lock()
	defer f.g.mu.Unlock()
	for m := f.g.members; m != nil; m = m.link.after {
		if m.Node().waits.Load() != nil {
			return true
		}
	}
	return false
}
func (f forGroup) needs(q *query) cycle.Needs { return cycle.Needs{Of: q.members(f.g)} }

// forPlace is a place in a group that has as many members as it may have: the end of
// any one of them.
type forPlace struct {
	g     *Group
	limit int
}

func (f *forPlace) kind() string                 { return "group place" }
func (f *forPlace) name() string                 { return "" }
func (f *forPlace) mayWait() bool                { return true }
func (f *forPlace) next() (*Call, *Node)         { return nil, nil }
func (f *forPlace) reached() any                 { return &f.g.nc.own }
func (f *forPlace) report(v *view, w *WaitState) { v.members(w, f.g) }
func (f *forPlace) needs(q *query) cycle.Needs   { return q.one(&placeVertex{q, f}) }

// forTokens is tokens of a resource.
type forTokens struct{ c *claim }

func (f forTokens) kind() string                 { return "limiter" }
func (f forTokens) name() string                 { return "" }
func (f forTokens) mayWait() bool                { return true }
func (f forTokens) next() (*Call, *Node)         { return nil, nil }
func (f forTokens) reached() any                 { return &f.c.r.node }
func (f forTokens) report(v *view, w *WaitState) { w.Limiter = v.numbers[f.c.r] }
func (f forTokens) needs(q *query) cycle.Needs {
	if f.c.has() {
		return cycle.Needs{}
	}
	if f.c != q.claim {
		q.claims = append(q.claims, f.c)
	}
	return q.one(&resourceVertex{q, f.c})
}

// forLock is a lock that somebody else has.
type forLock struct{ t *Turn }

func (f forLock) kind() string         { return "mutex" }
func (f forLock) name() string         { return "" }
func (f forLock) next() (*Call, *Node) { return nil, nil }
func (f forLock) reached() any         { return &f.t.lock.node }
func (f forLock) mayWait() bool {
	o, held := f.t.lock.holder(f.t)
	if held && o.self != nil {
		return o.self.waits.Load() != nil
	}
	return held && o.thread != nil
}
func (f forLock) needs(q *query) (n cycle.Needs) {
	if o, held := f.t.lock.holder(f.t); held {
		n.Of, n.Facts = q.function(o.self, o.thread, o.call, o.seq), []any{f.t, o}
	}
	return n
}
func (f forLock) report(v *view, w *WaitState) {
	o, _ := f.t.lock.holder(f.t)
	switch {
	case o.thread != nil:
		w.Thread = o.thread.id
	case o.self != nil:
		w.Function = v.found(o.self, o.self.name(), 0)
		if e := o.self.waits.Load(); e != nil {
			w.Goroutine = e.gid.Load()
		}
	}
}

// forScope is the end of a context.
type forScope struct{ s *Scope }

func (f forScope) kind() string         { return "close" }
func (f forScope) name() string         { return f.s.Name() }
func (f forScope) mayWait() bool        { return true }
func (f forScope) next() (*Call, *Node) { return nil, nil }
func (f forScope) reached() any         { return f.s }
func (f forScope) report(_ *view, w *WaitState) {
	if t := f.s.root.thread.Load(); t != nil {
		w.Thread = t.id
	}
}

// needs returns what keeps the calls that the scope still has to end, and its exit
// functions, which come last and are in no call.
func (f forScope) needs(q *query) (n cycle.Needs) {
	t := f.s.root.thread.Load()
	if t == nil {
		return n
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	low, blocked := 0, t.exiting() && t.top != nil
	t.eachCall(func(c *Call) {
		if !c.scope.within(f.s) {
			return
		}
		if c == q.call {
			n.Of = []cycle.Vertex{&callVertex{q, c}}
		} else if l, line, b := t.needs(c); b && !line && (!blocked || l < low) {
			low, blocked = l, true
		}
	})
	if n.Of == nil && blocked {
		n.Of = q.stackLocked(t, low)
	}
	return n
}

// forPool is the end of the threads of a pool.
type forPool struct{ p *Pool }

func (f forPool) kind() string         { return "pool close" }
func (f forPool) name() string         { return "" }
func (f forPool) mayWait() bool        { return true }
func (f forPool) next() (*Call, *Node) { return nil, nil }
func (f forPool) reached() any         { return nil }
func (f forPool) needs(q *query) (n cycle.Needs) {
	for _, t := range f.p.lent() {
		n.Of = append(n.Of, q.stack(t, 0)...)
	}
	return n
}
func (f forPool) report(_ *view, w *WaitState) {
	for _, t := range f.p.lent() {
		w.Threads = append(w.Threads, t.id)
	}
	w.Threads = w.Threads[:min(len(w.Threads), graphMembers)]
}

// # Vertices
//
// What has to end, as a search sees it.

// one returns the needs of a wait for one thing.
func (q *query) one(v cycle.Vertex) cycle.Needs { return cycle.Needs{Of: []cycle.Vertex{v}} }

// task returns the vertex of a task off the threads.
func (q *query) task(t *Task) cycle.Vertex {
	return &nodeVertex{q: q, node: t.Node(), name: t.call.name, pc: t.call.pc}
}

// members returns the vertices of the members of g.
func (q *query) members(g *Group) (of []cycle.Vertex) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for m := g.members; m != nil; m = m.link.after {
		of = append(of, q.task(m))
	}
	return of
}

// A nodeVertex is the function that runs as a node, off the threads. It may be known
// by name to the one who waits for it.
type nodeVertex struct {
	q    *query
	node *Node
	name string
	pc   uintptr
	edge *edge // its wait
}

func (v *nodeVertex) Key() any { return v.node }

func (v *nodeVertex) Expand() (n cycle.Needs) {
	if !v.node.running() {
		return n
	}
	if v.edge = v.node.waits.Load(); v.edge == nil || v.edge.to == nil {
		return n
	}
	n = v.edge.to.needs(v.q)
	n.Facts = append(n.Facts, v.edge)
	return n
}

func (v *nodeVertex) Links(cycle.Vertex) []cycle.Step {
	if v.edge.kind() == "" {
		return nil
	}
	who := v.node.name()
	if v.name != "" || v.pc != 0 {
		who = callName(v.name, v.pc)
	}
	return []cycle.Step{v.edge.step(Link{Who: who, Goroutine: v.edge.gid.Load()})}
}

// A callVertex is a call on its thread, or on its way there.
type callVertex struct {
	q *query
	c *Call
}

func (v *callVertex) Key() any                        { return v.c }
func (v *callVertex) Links(cycle.Vertex) []cycle.Step { return nil }

func (v *callVertex) Expand() (n cycle.Needs) {
	c := v.c
	if c.thread.Load() == nil {
		return n // not queued yet
	}
	t := c.lock()
	defer t.mu.Unlock()
	low, line, blocked := t.needs(c)
	switch {
	case !blocked:
		return n
	case !line:
		n.Of = v.q.stackLocked(t, low)
	case t.pool.keepsInLine(t):
		n = v.q.one(&poolVertex{v.q, t.pool})
	}
	if c.isQueued() || c.abandon {
		n.Until = c.ctx
	}
	return n
}

// A stackVertex is a frame, and those above it: all must end before the thread is
// back below it.
//
// So each frame of a deep stack is looked at once, however many waits lead to
// something in the stack.
type stackVertex struct {
	q     *query
	f     *Frame
	above *stackVertex // nil for the top
	name  string       // of the call that waits
	pc    uintptr
	cause bool // what keeps it is its own wait
}

func (v *stackVertex) Key() any { return v.f }

func (v *stackVertex) Expand() cycle.Needs {
	n := cycle.Needs{Facts: []any{v.f.thread}}
	if v.above != nil {
		n.Of = append(n.Of, v.above)
	}
	n.Of = append(n.Of, &edgeVertex{v.q, &v.f.edge})
	return n
}

func (v *stackVertex) Links(via cycle.Vertex) []cycle.Step {
	t := v.f.thread
	if above, ok := via.(*stackVertex); ok {
		v.cause = false
		if !above.cause && above.f != v.q.frame {
			return nil
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if on, ok := t.standsOn(above.f); ok {
			return []cycle.Step{{Link: on}}
		}
		return nil
	}
	v.cause = true
	who := "the caller"
	if v.name != "" || v.pc != 0 {
		who = callName(v.name, v.pc)
	}
	return []cycle.Step{v.f.edge.step(Link{Who: who, Goroutine: t.gid.Load(), Thread: t.called()})}
}

// stack returns the vertex of the frames of t from the top down to the level low,
// if there are any.
func (q *query) stack(t *Thread, low int) []cycle.Vertex {
	t.mu.Lock()
	defer t.mu.Unlock()
	return q.stackLocked(t, low)
}

// stackLocked is stack for a t that is locked. While the top of the stack is the
// same, so is the rest.
func (q *query) stackLocked(t *Thread, low int) []cycle.Vertex {
	if t.top == nil || t.top.level < low {
		return nil
	}
	s := q.stacks[t]
	if len(s) == 0 || s[0].f != t.top {
		s = nil
	}
	for i := len(s); i <= t.top.level-low; i++ {
		v := &stackVertex{q: q, f: t.top}
		if i > 0 {
			v.above, v.f = s[i-1], s[i-1].f.below
		}
		if c := v.f.call; c != nil {
			v.name, v.pc = c.name, c.pc
		}
		s = append(s, v)
	}
	q.stacks[t] = s
	return []cycle.Vertex{s[t.top.level-low]}
}

// An edgeVertex is the wait of a frame.
type edgeVertex struct {
	q *query
	e *edge
}

func (v *edgeVertex) Key() any                        { return v.e }
func (v *edgeVertex) Links(cycle.Vertex) []cycle.Step { return nil }
func (v *edgeVertex) Expand() (n cycle.Needs) {
	if v.e.to != nil {
		n = v.e.to.needs(v.q)
	}
	return n
}

// A poolVertex is any thread of a pool that somebody stands in line for.
type poolVertex struct {
	q *query
	p *Pool
}

func (v *poolVertex) Key() any                        { return v.p }
func (v *poolVertex) Links(cycle.Vertex) []cycle.Step { return nil }
func (v *poolVertex) Expand() cycle.Needs {
	v.p.mu.Lock()
	alive := v.p.alive
	v.p.mu.Unlock()
	n := cycle.Needs{Any: true}
	for _, t := range v.p.lent() {
		of := v.q.stack(t, 0)
		if of == nil {
			return cycle.Needs{}
		}
		n.Of = append(n.Of, of...)
	}
	if len(n.Of) != alive {
		return cycle.Needs{} // one is on its way from one to the next
	}
	return n
}

// keepsInLine reports whether no thread of p is to be had for t, which stands in
// line.
func (p *Pool) keepsInLine(t *Thread) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle) == 0 && p.alive >= p.max && !p.closed && slices.Contains(p.waiting, t)
}

// A placeVertex is any member of a full group.
type placeVertex struct {
	q *query
	*forPlace
}

func (v *placeVertex) Key() any                        { return v.g }
func (v *placeVertex) Links(cycle.Vertex) []cycle.Step { return nil }
func (v *placeVertex) Expand() cycle.Needs {
	of := v.q.members(v.g)
	if len(of) < v.limit {
		return cycle.Needs{} // one is about to begin
	}
	// All of them, for the claims among them.
	return cycle.Needs{Of: of, Any: true, Whole: true, Varies: true}
}

// A resourceVertex is any of those who have the tokens that a claim waits for.
type resourceVertex struct {
	q *query
	c *claim
}

func (v *resourceVertex) Key() any                        { return v.c.r }
func (v *resourceVertex) Links(cycle.Vertex) []cycle.Step { return nil }
func (v *resourceVertex) Expand() cycle.Needs {
	n := cycle.Needs{Any: true, Varies: true}
	for _, g := range v.q.tokens(v.c) {
		var of []cycle.Vertex
		var facts []any
		for _, h := range g {
			if got := v.q.function(h.self, h.thread, h.call, 0); got != nil {
				of, facts = append(of, got...), append(facts, h)
			}
		}
		n.Of = append(n.Of, cycle.AllOf(of, facts...))
	}
	return n
}

// maxMembers bounds at how many of a chain a search looks: the newest.
const maxMembers = 16

// tokens returns the holders of the tokens that c waits for, in groups of which one
// has to be stuck; nil if one of them runs, or is not known. If c may have any token
// that nobody uses, each holder that has one now is a group. Else they are the
// chains: all in a chain must end. The order is the same at each look.
func (q *query) tokens(c *claim) (groups [][]*Hold) {
	r := c.r
	r.mu.Lock()
	kin := c.back || c.isKin()
	ready := slices.Collect(maps.Keys(r.ready))
	r.mu.Unlock()
	if kin && slices.ContainsFunc(ready, func(h *Hold) bool { return h.key() != c.self && h.sleeps() }) {
		return nil // it is there to be lent
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n := c.n
	if first := r.next(); first != nil {
		n = first.n // that one comes first
	}
	if r.used == 0 || r.free() >= n || r.given > 0 || len(r.loose) > 0 {
		return nil
	}
	by := map[any][]*Hold{}
	if kin {
		for h := range r.ready {
			by[h] = []*Hold{h}
		}
	} else {
		for h := range r.keeping() {
			by[h.chain] = append(by[h.chain], h)
		}
	}
	for _, g := range by {
		for _, h := range g {
			if h.thread == nil && h.self.waits.Load() == nil && h.self != q.node {
				return nil // it runs, so that the others need not be looked at
			}
		}
		slices.SortFunc(g, func(a, b *Hold) int { return cmp.Compare(b.gid, a.gid) })
		groups = append(groups, g[:min(len(g), maxMembers)])
	}
	slices.SortFunc(groups, func(a, b []*Hold) int { return cmp.Compare(a[0].gid, b[0].gid) })
	return groups
}

// function returns the vertex of a function that has a token or a lock: it runs as
// self, or on t in the call c, which may have ended. The number seq tells its record
// from that of another call, if it is not 0. There is no vertex if the function is
// known to run.
func (q *query) function(self *Node, t *Thread, c *Call, seq uint64) []cycle.Vertex {
	switch {
	case self != nil:
		return []cycle.Vertex{&nodeVertex{q: q, node: self}}
	case t == nil:
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for r := t.run; r != nil; r = r.outer {
		if r != c || seq != 0 && seq != c.seq {
			continue
		}
		if low, _, blocked := t.needs(c); blocked {
			return q.stackLocked(t, low)
		}
	}
	return nil
}

func (g *goal) mayWait() bool { return !g.hidden.Load() && g.target.mayWait() }

func (g *goal) needs(q *query) cycle.Needs {
	if g.hidden.Load() {
		return cycle.Needs{}
	}
	n := g.target.needs(q)
	n.Until = g.ctx
	return n
}
