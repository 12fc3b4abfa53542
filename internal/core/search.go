package core

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"asyncsync.dev/internal/cycle"
	"asyncsync.dev/internal/goroutine"
)

// This file has the search for a cycle of waits, and the refusal of the wait that closes
// one.

func newQuery(e *edge, node *Node, f *Frame, c *Call) *query {
	q := &query{edge: e, node: node, frame: f, call: c, claim: e.claim()}
	if node != nil {
		q.Targets = append(q.Targets, node)
	}
	if f != nil {
		q.Targets = append(q.Targets, f)
	}
	if c != nil {
		q.Targets = append(q.Targets, c)
	}
	q.Begin = func() { q.claims, q.stacks = nil, map[*Thread][]*stackVertex{} }
	return q
}

// certain reports whether the wait waits for itself. cycles is held.
func (q *query) certain() bool {
	relations.Lock()
	defer relations.Unlock()
	if f, ok := q.edge.to.(forCall); ok {
		// The call is itself a target, and the edge leads to it. So the search begins with
		// what the call needs.
		return q.Certain(&callVertex{q, f.c})
	}
	return q.Certain(&edgeVertex{q, q.edge})
}

// lend lends tokens to the claims that the search has met, and reports whether one
// of them now has its tokens. The new wait may have made such a claim kin to a
// holder of the tokens. No lock is held.
func (q *query) lend() (lent bool) {
	for _, c := range q.claims {
		lent = c.borrow() || lent
	}
	return lent
}

// closes looks for a cycle that the wait e closes. If there is one, closes takes the
// wait back and returns the error with which the wait must end. The waiter is the
// calling goroutine: it waits in f on its thread, or runs as self. c is the call that
// it has queued, or nil for a wait of another kind.
func closes(f *Frame, self *Node, e *edge, c *Call) error {
	if f == nil && self == nil {
		return nil
	}
	q := newQuery(e, self, f, c)
	for {
		found := false
		readEdges(func() { found = q.certain() })
		if q.lend() {
			continue
		}
		if !found {
			return nil
		}
		if d, again := q.refuse(nil); d != nil {
			return d
		} else if !again {
			return nil
		}
	}
}

// refuse takes back the wait, which was found to close a cycle, if it still closes it.
// If again is true, the caller must search again, because a wait in the cycle has
// changed, or is about to end with its ctx, or a claim has been lent a token meanwhile. If
// m is not nil, it marks the queued call that is to be refused, and the caller of refuse is
// not the waiter. Nor is it if q is late.
func (q *query) refuse(m *Mark) (d *DeadlockError, again bool) {
	if q.DropEnded() {
		return nil, true
	}
	before := q.Facts
	readEdges(func() {
		if m != nil && m.queued() == nil || q.late && q.claim.visible().edge == nil {
			return
		}
		if !q.certain() || !slices.Equal(before, q.Facts) {
			again = true
			return
		}
		// A claim in the cycle may be waiting for a token that has come back
		// meanwhile.
		for _, c := range q.claims {
			again = c.borrowNow() || again
		}
		if q.claim != nil && q.claim.borrowNow() || again {
			return // if the waiter got its own tokens, it finds them without being told
		}
		d = q.describe(q.first(m))
		switch {
		case q.late:
			if !q.claim.refuse(d) {
				d = nil // it has its tokens after all
			}
		case q.call != nil:
			if !q.call.take(d) {
				d = nil // it runs after all
			}
		case q.frame != nil:
			q.edge.hide(true)
		default:
			q.node.waits.Store(nil)
		}
	})
	if d != nil && q.call != nil {
		q.call.thread.Load().removed(q.call)
	}
	return d, again
}

// first returns the link of the waiter in the error: see refuse.
func (q *query) first(m *Mark) Link {
	f := q.frame
	l := Link{Goroutine: goroutine.ID()}
	if q.late {
		l.Goroutine = q.edge.gid.Load()
	}
	if m != nil {
		f = q.call.waiter()
		l = Link{Who: q.call.submitter().name()}
		if e := q.call.callerEdge(); e != nil && f == nil {
			l.Goroutine = e.gid.Load()
		}
	}
	if f != nil {
		l = f.link()
	}
	if m == nil && !q.late {
		l.Site = site()
	}
	return l
}

// take takes c out of its queue, as revoke does; removed must follow when no lock is
// held any more. It reports false if c is not queued.
func (c *Call) take(why error) bool {
	t := c.lock()
	defer t.mu.Unlock()
	if !c.isQueued() {
		return false
	}
	t.remove(c, why)
	return true
}

// describe makes the error of the wait, which closes the cycle that was found. first
// has what is known of the waiter.
func (q *query) describe(first Link) *DeadlockError {
	if first.Who == "" {
		first.Who = q.edge.name()
		if len(q.Chain) > 0 {
			first.Who = q.Chain[0].For
		}
	}
	if first.Who == "" {
		first.Who = q.node.name()
	}
	chain := append(slices.Clone(q.Chain), q.edge.step(first))
	slices.Reverse(chain)
	chain[0].Age = -1
	return cycle.New(chain)
}

// step completes l, which names the waiter, to the link of the wait e.
func (e *edge) step(l Link) cycle.Step {
	l.Kind, l.For, l.Age = e.kind(), e.name(), e.age()
	return cycle.Step{Link: l, Block: e.block()}
}

// block returns what keeps the call that e waits for from beginning.
func (e *edge) block() cycle.Block {
	c := e.call()
	if c == nil || c.thread.Load() == nil {
		return cycle.Unblocked
	}
	t := c.lock()
	defer t.mu.Unlock()
	switch {
	case !c.isQueued():
		return cycle.Unblocked
	case t.inLine():
		return cycle.InLine
	case t.policy == None:
		return cycle.Unserved
	}
	return cycle.Stranger
}

// standsOn reports whether the function that waits in f runs on top of a function that
// does not wait for it. on is the link that says so. It looks only at threads with the
// policy [All]: below an open frame there are only posted functions. t.mu is held.
func (t *Thread) standsOn(f *Frame) (on Link, ok bool) {
	if t.policy != All || f.call == nil || f.below == nil || f.below.call == nil {
		return on, false
	}
	waited := false
	if by := f.call.submitter(); by != nil {
		by.waiters(func(o *Frame) bool {
			waited = waited || o.thread == t && o.live && o.level < f.level
			return !waited
		})
	}
	return Link{Who: f.below.call.Name(), Goroutine: t.gid.Load(), Thread: t.called(), Kind: "stack", For: f.call.Name(), Age: -1}, !waited
}

// link returns a link that names the function that waits in f.
func (f *Frame) link() Link {
	t := f.thread
	l := Link{Who: "the caller", Goroutine: t.gid.Load(), Thread: t.called()}
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.call != nil {
		l.Who = f.call.Name()
	}
	return l
}

// MarkQueued marks the call with the number seq in the queue of a thread. The
// call has been queued for at least as long as seen. ok is false if it is no
// longer queued.
func MarkQueued(thread, seq uint64, seen time.Duration) (m *Mark, ok bool) {
	t, c := queuedCall(thread, seq)
	if c == nil {
		return nil, false
	}
	m = t.mark(c, seen)
	t.mu.Unlock()
	return m, true
}

// queued returns the call, nil if it has left the queue. While the caller has the right
// to read edges, the record is not used for another call, because whoever has submitted
// it waits for the readers first.
func (m *Mark) queued() *Call {
	m.thread.mu.Lock()
	defer m.thread.mu.Unlock()
	return m.call
}

// Refuse takes the call with the number seq out of the queue of a thread, and
// has it fail with err. It reports false if it is not there any more, for a
// function that was posted to an executor, which has no caller to be told, and
// on a thread that waits for a worker of its pool.
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

// recheck refuses the marked call if it is in a cycle. The call has been moved to a
// list that its thread does not serve now, which can close a cycle. recheck drops the
// mark. No lock is held, and the caller need not be the waiter.
func (m *Mark) recheck() {
	defer m.Drop()
	var q *query
	for {
		found := false
		readEdges(func() {
			c := m.queued()
			if c == nil {
				return
			}
			if q == nil {
				q = newQuery(&edge{to: forCall{c}}, nil, nil, c)
			}
			found = q.certain()
		})
		if !found || q.lend() {
			return
		}
		d, again := q.refuse(m)
		if d != nil {
			q.call.turnAway()
		}
		if !again {
			return
		}
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

// # Vertices
//
// A vertex is something that has to end, as a search sees it.

// one returns the needs of a wait for one thing.
func (q *query) one(v cycle.Vertex) cycle.Needs { return cycle.Needs{Of: []cycle.Vertex{v}} }

// elsewhere returns the vertex of a task or call off the threads.
func (q *query) elsewhere(c *Call) cycle.Vertex {
	return &nodeVertex{q: q, node: c.node, label: c.title()}
}

// task returns the vertex of a task.
func (q *query) task(c *Call) cycle.Vertex {
	if c.thread.Load() != nil {
		return &callVertex{q, c}
	}
	return q.elsewhere(c)
}

// members returns the vertices of the members of g.
func (q *query) members(g *Group) (of []cycle.Vertex) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for m := g.members; m != nil; m = m.after {
		of = append(of, q.task(m.call))
	}
	return of
}

// A nodeVertex is the function that runs as a node, off the threads. Its
// waiter may know its name.
type nodeVertex struct {
	q    *query
	node *Node
	label
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
	if v.label != (label{}) {
		who = v.label.String()
	}
	return []cycle.Step{v.edge.step(Link{Who: who, Goroutine: v.edge.gid.Load()})}
}

// A callVertex is a call on its thread, or on its way there.
type callVertex struct {
	q *query
	c *Call
}

func (v *callVertex) Key() any { return v.c }

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
		n.Until = c.until()
	}
	return n
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
	if v.label != (label{}) {
		who = v.label.String()
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
			v.label = c.title()
		}
		s = append(s, v)
	}
	q.stacks[t] = s
	return []cycle.Vertex{s[t.top.level-low]}
}

// An edgeVertex is one wait, of a frame or of the waiter that asks.
type edgeVertex struct {
	q *query
	e *edge
}

func (v *edgeVertex) Key() any { return v.e }

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

func (v *poolVertex) Key() any { return v.p }

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
		return cycle.Needs{} // a worker is on its way from one thread to the next
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

func (v *placeVertex) Key() any { return v.g }

func (v *placeVertex) Links(cycle.Vertex) []cycle.Step { return nil }

func (v *placeVertex) Expand() cycle.Needs {
	of := v.q.members(v.g)
	if len(of) < v.limit {
		return cycle.Needs{} // one is about to begin
	}
	// Whole has the search meet the claims of all members, so that lend can serve them.
	return cycle.Needs{Of: of, Any: true, Whole: true, Varies: true}
}

// A resourceVertex is any of those who have the tokens that a claim waits for.
type resourceVertex struct {
	q *query
	c *claim
}

func (v *resourceVertex) Key() any { return v.c.r }

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

// maxMembers is at how many holders of one chain a search looks: those with the highest
// goroutine ids.
const maxMembers = 16

// tokens returns the holders of the tokens that c waits for, in groups. c gets a token
// when all holders of any one group have ended. If c may have any token that is not in
// use, each holder that has its token is a group. Otherwise the chains are the groups.
// tokens returns nil if c may get a token without these: one is free, can be lent, or was
// just given to a claim; or a holder runs, or does not keep its token. The order is the
// same at each look.
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
	if r.used == 0 || r.free() >= n || r.between > 0 || len(r.loose) > 0 {
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

// function returns the vertex of a function that has a token or a lock. The function
// runs as self, or on t in the call c, which may have ended. A seq other than 0 is the
// number of that call, because the record may be in use for another one. If c is nil,
// t is the thread that the function's goroutine has become, and everything on the
// stack of t is on top of the function. There is no vertex if the function is known to
// run.
func (q *query) function(self *Node, t *Thread, c *Call, seq uint64) []cycle.Vertex {
	switch {
	case self != nil:
		return []cycle.Vertex{&nodeVertex{q: q, node: self}}
	case t == nil:
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if c == nil {
		return q.stackLocked(t, 0)
	}
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
