package core

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"asyncsync.dev/internal/goroutine"
)

// # Certain deadlocks
//
// A wait that would close a cycle of waits is refused: see [closes]. What
// follows is why it is found whenever there is one, and never without.
//
// Who waits is a goroutine, never a ctx, for a ctx travels. It is a [Thread],
// or, off the threads, the [Node] that the goroutine runs as: that of a task or
// of a function in [Away] is its alone. (The nodes of calls on threads are
// shared; such a call is known by its place on the thread's stack.) A goroutine
// that is neither is waited for by nobody, and so is in no cycle.
//
// # Publish, then look
//
// Everybody makes its own wait visible first (a [Frame] pushed, Node.waits
// stored, and both before a call is queued), and looks for a cycle then. Of two
// who close one together, at least one sees the other. A wait need not look
// where something must still come, by somebody who then looks himself:
//
//   - A call queued into a list that its thread serves now waits for nobody but
//     the function that runs there. That function would have to come to wait,
//     which pushes a frame, under the same mutex and so after the queueing.
//   - A function in [Away] is new. It would have to come to wait.
//   - If Node.waits is nil after we publish, that node starts waiting later and
//     will see our edge.
//
// What is left are the rare cases, so that a hop to a thread that is free, and
// a level of an ordinary nesting, look for nothing and share no lock.
//
// # Seeing is not enough
//
// Waits come and go while the search runs from one to the next. So it runs
// twice, and what both runs have found is the same waits: then there was a
// moment between them when all stood, and waits that wait for each other go on
// standing. Joins and the lists that calls are in do not change meanwhile, for
// relations is held. Of two who have seen the same cycle, one is first to lock
// cycles, and takes its wait back before it unlocks it.
//
// A certain verdict says that nothing which waits here can come to its end.
// What it cannot know is who might yet interfere from outside: end a ctx, give a
// limiter another token, or begin to wait for the submitter of a stranger's
// call, so that it is a stranger no more. A program that relies on being saved
// so is refused all the same.
//
// # What is not seen
//
// What runs on an [Elsewhere] of others before it has begun.
//
// A cycle closes with a new wait, in two cases but for that. When calls are handed
// down from a frame that ends, or leave it with a join, to where they are not
// served, the cycle is looked for then: see [Mark.recheck]. And a token is never
// given to a thread that runs something else on top of its Acquire: see
// claim.stepAside. Nor is a lock: see Turn.stepAside.

// An edge is one wait. It is published in a Frame that stands, or in
// Node.waits, and does not change meanwhile.
type edge struct {
	// to is what is waited for: *Call, *awayCall, *want, *Thread, *Node, *riding;
	// nil for what is not known.
	to any
	// since is when the waiter first slept for it, in nanoseconds; 0 if it has
	// not.
	since atomic.Int64
	// gid is the goroutine that waits. In the Call of an async function or a
	// task it is the one that runs it.
	gid atomic.Int64
}

// An awayCall is a Call whose function runs elsewhere: see [Away].
type awayCall Call

// A riding is what a function waits for that runs inside of a call on a thread:
// see [Node.ride].
type riding struct{ call *Call }

// A want is a wait for something else than a call: a *Task, a *Group, a *place
// in one, a *Resource, a *Lock or a *Scope.
type want struct {
	for_ any
	ctx  context.Context // whose end ends the wait
	edge edge            // of a waiter off the threads
	off  atomic.Bool     // it is not visible yet, or taken back; or the waiter was let go

	claim *claim // of a wait for a *Resource
	turn  *Turn  // of a wait for a *Lock
	gate  *Gate  // that opens when it has come, for a task that parks; nil for others
	place listener
}

// cycles is held by who looks for a cycle; it is the outermost lock there is.
//
// The record of a call is used again when its caller has been told. Who reads
// edges holds cycles and has counted itself in chasing before it reads the
// first; who takes one back looks at chasing after that, and if there is
// anybody waits for cycles to be free: see settle. So what a reader has found is
// not used for something else while it holds the lock.
var (
	cycles  sync.Mutex
	chasing atomic.Int32
)

// chase runs f with the right to read edges.
func chase(f func()) {
	chasing.Add(1)
	cycles.Lock()
	defer func() {
		cycles.Unlock()
		chasing.Add(-1)
	}()
	f()
}

// settle waits for those who may be reading a wait that was just taken back.
func settle() {
	if chasing.Load() != 0 {
		cycles.Lock()
		defer cycles.Unlock() // the point is to have waited
	}
}

// waiter returns the node that stands for the goroutine of rec, which is no
// thread; nil if it is nobody's.
func waiter(rec *goroutine.Record) *Node {
	if rec == nil {
		return nil
	}
	n, _ := rec.Node.(*Node)
	return n
}

// publish makes e what n waits for. n may be nil.
func (n *Node) publish(e *edge) {
	if n != nil && e != nil {
		n.waits.Store(e)
	}
}

// unpublish takes it back.
func (n *Node) unpublish() {
	if n != nil {
		n.waits.Store(nil)
		settle()
		if lent.n.Load() != 0 {
			reclaim(n)
		}
	}
}

// An aWait is a wait for something else than a call, while it lasts: in the
// frame f, or by the goroutine that runs as self, which may be nil. It is made
// visible after the join that belongs to it, and over before that is dropped: a
// wait without its join looks like one for a stranger.
type aWait struct {
	f    *Frame
	self *Node
	edge *edge
}

// pushWait pushes the frame of a wait for w, nil if that is not known, which
// newWait makes visible.
func (t *Thread) pushWait(w *want, what string) *Frame {
	f := &Frame{}
	if w != nil {
		w.off.Store(true)
		f.edge.to = w
	}
	t.push(f, what)
	return f
}

// newWait makes visible that the calling goroutine, with the record rec, waits
// for w, in f or off the threads.
func newWait(f *Frame, rec *goroutine.Record, w *want) aWait {
	switch {
	case f != nil:
		f.edge.off(false)
		return aWait{f: f, edge: &f.edge}
	case w == nil:
		w = &want{}
	default:
		w.edge.to = w
	}
	return newEdge(rec, &w.edge)
}

// newEdge makes visible that the calling goroutine, no thread, waits for e.
func newEdge(rec *goroutine.Record, e *edge) aWait {
	checkPark(rec)
	p := aWait{self: waiter(rec), edge: e}
	e.gid.Store(goroutine.ID())
	p.self.publish(e)
	return p
}

// look returns the error of a wait that closes a cycle.
func (p *aWait) look() error {
	if c := p.edge.claim(); c != nil && (c.borrow() || c.back) {
		return nil // it is lent what it waits for, or cannot be refused it
	}
	if contended.n.Load() != 0 {
		switch {
		case p.f == nil:
			lendFrom(p.self)
		case p.f.call != nil:
			lendFrom(p.f.call)
		default:
			lendFrom(p.f.thread)
		}
	}
	if !p.edge.mayWait() || p.edge.runs() {
		return nil
	}
	return closes(p.f, p.self, p.edge, nil)
}

// claim returns what e wants of a resource, nil if it waits for something else.
func (e *edge) claim() *claim {
	if w, ok := e.to.(*want); ok {
		return w.claim
	}
	return nil
}

// over takes the wait back.
func (p *aWait) over() {
	if p.f != nil {
		p.f.edge.off(true) // settled by pop
	}
	p.self.unpublish()
}

// off takes the wait for something else than a call back, or makes it visible.
func (e *edge) off(off bool) {
	if w, ok := e.to.(*want); ok {
		w.off.Store(off)
	}
}

// note takes from the options what c is asked about by others.
func (c *Call) note(o *Options) {
	c.abandon, c.long, c.try = o.Abandon, o.Long, o.Try
	if c.by != nil {
		c.born = c.by.epoch()
	}
}

// publish makes known that the calling goroutine, which is no thread, waits for
// c, before c is queued. It returns the node that unpublish must be called on.
func (c *Call) publish(rec *goroutine.Record) *Node {
	c.edge.gid.Store(goroutine.ID())
	self := waiter(rec)
	if self != nil {
		c.edge.to = c
		self.waits.Store(&c.edge)
	}
	return self
}

// mayRefuse looks whether c, which was queued, closes a cycle, where that is
// possible; it is called by the waiter, in f or as self. After an error c is
// the caller's again.
func (s *Scope) mayRefuse(ctx context.Context, c *Call, f *Frame, self *Node) error {
	if c.lined && c.overflow(ctx) || !c.lined && !c.late {
		return nil
	}
	e := &c.edge
	if f != nil {
		e = &f.edge
	}
	err := c.turnedAway()
	switch {
	case err == nil:
		err = closes(f, self, e, c)
	case !c.revoke(err):
		return nil // it has come to run
	}
	if err != nil && f == nil {
		c.unpark()
	}
	return err
}

// started is what nanos counts from.
var started = time.Now()

// nanos returns the time. It reads one clock where time.Now reads two; in a
// synctest bubble, whose clock is another, it may be negative.
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

// blocks reports whether somebody who is queued in box, which t does not serve,
// might wait for one that waits for him: unless all that would have to end first
// is known to run. t.mu is held, and the caller has published its wait.
func (t *Thread) blocks(box *list) bool {
	for f := t.top; f != nil && &f.box != box; f = f.below {
		if f.edge.mayWait() {
			return true
		}
	}
	return false
}

// mayWait reports whether what e waits for may be waiting itself. Who waits
// with e has published it. It locks no thread, because blocks asks while it
// holds one: of a task on a thread it says yes, though the thread may know
// better.
func (e *edge) mayWait() bool {
	switch to := e.to.(type) {
	case nil:
		return false
	case *awayCall:
		return to.node.waits.Load() != nil
	case *want:
		if to.off.Load() {
			return false
		}
		switch w := to.for_.(type) {
		case *Task:
			return w.call.thread.Load() != nil || w.Node().waits.Load() != nil
		case *Group:
			w.mu.Lock()
			defer w.mu.Unlock()
			for m := w.members; m != nil; m = m.link.after {
				if m.Node().waits.Load() != nil {
					return true
				}
			}
			return false
		case *Lock:
			return w.mayWait(to.turn)
		}
	}
	return true
}

// runs reports whether e waits for a task on a thread that nothing keeps from
// coming to its end. The caller holds no lock.
func (e *edge) runs() bool {
	c := e.call()
	if c == nil || c.thread.Load() == nil {
		return false
	}
	t := c.lock()
	defer t.mu.Unlock()
	_, _, blocked := t.needs(c)
	return !blocked
}

// ride publishes that the function which runs as n does so inside of the call
// that is on top of the thread t, and waits for what that waits for. It returns
// what takes that back.
func (n *Node) ride(t *Thread) (end func()) {
	if t.run != nil { // only t's own goroutine changes run
		n.publish(&edge{to: &riding{t.run}})
	}
	return n.unpublish
}

// closes looks for a cycle that the wait e closes, and returns the error to
// refuse it with; then the wait was taken back, and has to end. The waiter is
// the calling goroutine: in f, on its thread, or self. c is the call that it has
// queued, nil for a wait of another kind.
func closes(f *Frame, self *Node, e *edge, c *Call) error {
	if f == nil && self == nil {
		return nil
	}
	s := &search{node: self, frame: f, call: c}
	for {
		found := false
		chase(func() { found = s.certain(e) })
		// The wait may be what keeps one further down from being a stranger to
		// those who hold the tokens that it wants.
		lent := false
		for _, c := range s.claims {
			lent = c.borrow() || lent
		}
		switch {
		case lent:
			continue
		case !found:
			return nil
		}
		d, again := s.refuse(f, self, e, c)
		if again {
			continue
		}
		if d == nil {
			return nil
		}
		return d
	}
}

// refuse takes back the wait e, of which a search has found that it closes a
// cycle, if it still does. again says that somebody in the cycle has moved, or was
// lent a token meanwhile, and one must look anew.
func (s *search) refuse(f *Frame, self *Node, e *edge, c *Call) (d *DeadlockError, again bool) {
	if s.anyEnded() {
		return nil, false
	}
	before := s.facts
	chase(func() {
		if !s.certain(e) || !slices.Equal(before, s.facts) {
			again = true
			return
		}
		// A token that has come back is on its way to somebody here, perhaps.
		for _, c := range s.claims {
			again = c.borrowNow() || again
		}
		if c := e.claim(); c != nil && c.borrowNow() || again {
			return // of its own it need not be told
		}
		first := Link{Goroutine: goroutine.ID()}
		if f != nil {
			first = f.link()
		}
		first.Site = site()
		d = s.describe(first, e)
		switch {
		case c != nil:
			if !c.take(d) {
				d = nil // it runs after all
			}
		case f != nil:
			e.off(true)
		default:
			self.waits.Store(nil)
		}
	})
	if d != nil && c != nil {
		c.thread.Load().removed(c)
	}
	return d, again
}

// recheck looks for a cycle that a marked call is in, since it came to where its
// thread does not serve it, and refuses the call if there is one. The mark is
// dropped. No lock is held, and the caller need not be the one who waits.
func (m *Mark) recheck() {
	defer m.Drop()
	s := &search{}
	e := &edge{}
	// queued reports whether the call is still in the queue. Its record stays
	// what it is until the chase is over.
	queued := func() bool {
		m.thread.mu.Lock()
		defer m.thread.mu.Unlock()
		s.call = m.call
		if m.call != nil {
			e.to = m.call
		}
		return m.call != nil
	}
	found := false
	chase(func() { found = queued() && s.certain(e) })
	if !found || s.anyEnded() {
		return
	}
	for _, c := range s.claims {
		if c.borrow() {
			return // somebody in the cycle goes on, with a token that was lent to him
		}
	}
	var d *DeadlockError
	before := s.facts
	chase(func() {
		if !queued() || !s.certain(e) || !slices.Equal(before, s.facts) {
			return
		}
		for _, c := range s.claims {
			if c.borrowNow() {
				return // a token has come back, and was on its way to it
			}
		}
		first := Link{Goroutine: s.call.edge.gid.Load(), Who: s.call.by.name()}
		if f := s.call.frame; f != nil {
			first = f.link()
		}
		d = s.describe(first, e)
		if !s.call.take(d) {
			d = nil
		}
	})
	if d != nil {
		m.thread.removed(s.call)
		s.call.turnAway()
	}
}

// anyEnded reports whether one of the waits that were found is about to end, for
// its ctx has. No lock is held: Err may be the user's own.
func (s *search) anyEnded() bool {
	return slices.ContainsFunc(s.ctxs, func(ctx context.Context) bool { return ctx.Err() != nil })
}

// take takes c out of its queue, as revoke does; removed must follow when no
// lock is held any more. It reports false if c is not queued.
func (c *Call) take(why error) bool {
	t := c.lock()
	defer t.mu.Unlock()
	if !c.isQueued() {
		return false
	}
	t.remove(c, why)
	return true
}

// lock locks the thread of c, which has one, and returns it.
func (c *Call) lock() *Thread {
	t := c.thread.Load()
	t.mu.Lock()
	return t
}

// A finding is what a search has found of one wait.
type finding int

const (
	free   finding = iota // it may come to its end
	looped                // it may not unless one does that is being looked at
	stuck                 // it waits for the one who asks
)

// A search looks whether a wait depends on the one who makes it.
//
// What waits for several things at once is stuck with any of them. What waits
// for one of several (a limiter's token, a thread of a full pool) is stuck if
// all are, and none is free; there a thing that is being looked at already
// counts as stuck, for it would be if the whole is.
type search struct {
	node  *Node
	frame *Frame
	call  *Call

	nodes map[*Node]finding // looked at: looped while that goes on; else free
	ors   map[any]bool      // resources and pools that are being looked at
	walks map[*Thread]*walk
	steps int

	claims []*claim // on resources, that the wait depends on

	facts []any             // all that what was found rests on
	ctxs  []context.Context // that would end one of the waits
	chain []Link            // the waits from the last to the first
}

// maxSteps bounds a search; what would take longer is taken for free.
const maxSteps = 1 << 20

// A walk is how far the frames of one thread were looked at, from the top.
type walk struct {
	low    int   // the lowest level that was
	active []int // levels that are being looked at
}

// certain reports whether the wait e, of the one who asks, waits for itself.
// cycles is held.
func (s *search) certain(e *edge) bool {
	relations.Lock()
	defer relations.Unlock()
	var before []any
	for range 16 {
		s.nodes, s.ors, s.walks, s.steps = map[*Node]finding{}, map[any]bool{}, map[*Thread]*walk{}, 0
		s.facts, s.ctxs, s.chain, s.claims = nil, nil, nil, nil
		if s.follow(e, true) != stuck {
			return false
		}
		if before != nil && slices.Equal(before, s.facts) {
			return true
		}
		before = s.facts
	}
	return false
}

// fact notes what a finding other than free rests on.
func (s *search) fact(facts ...any) { s.facts = append(s.facts, facts...) }

// until notes a ctx that ends a wait. Its methods may be the user's own, and so
// are not called before the locks are free.
func (s *search) until(ctx context.Context) {
	if ctx != nil {
		s.ctxs = append(s.ctxs, ctx)
	}
}

// a state of a search that it goes back to after a finding of free.
type state struct{ facts, ctxs, chain int }

func (s *search) state() state { return state{len(s.facts), len(s.ctxs), len(s.chain)} }

func (s *search) back(to state) {
	s.facts, s.ctxs, s.chain = s.facts[:to.facts], s.ctxs[:to.ctxs], s.chain[:to.chain]
}

// follow looks at what e waits for. first is true for the wait of the one who
// asks.
func (s *search) follow(e *edge, first bool) finding {
	if s.steps++; s.steps > maxSteps {
		return free
	}
	was := s.state()
	var found finding
	switch to := e.to.(type) {
	case *Call:
		found = s.ofCall(to, first)
	case *awayCall:
		found = s.ofNode(to.node, to.name, to.pc)
		if to.abandon {
			s.until(to.ctx)
		}
	case *riding:
		found = s.ofCall(to.call, false)
	case *Node:
		found = s.ofNode(to, "", 0)
	case *Thread:
		found = s.walk(to, 0)
	case *want:
		found = s.want(to, first)
		s.until(to.ctx)
	}
	if found == free {
		s.back(was)
		return free
	}
	s.fact(e)
	return found
}

func (s *search) want(w *want, first bool) finding {
	if w.off.Load() {
		return free
	}
	switch to := w.for_.(type) {
	case *Task:
		if to.call.thread.Load() != nil {
			return s.ofCall(&to.call, false)
		}
		return s.ofNode(to.Node(), to.call.name, to.call.pc)
	case *Group:
		to.mu.Lock()
		var members []*Task
		for m := to.members; m != nil; m = m.link.after {
			members = append(members, m)
		}
		to.mu.Unlock()
		found := free
		for i, m := range members {
			found = max(found, s.ofNode(m.Node(), m.call.name, m.call.pc))
			if found == stuck {
				was := s.state()
				for _, m := range members[i+1:] { // for the claims among them
					s.ofNode(m.Node(), "", 0)
					s.back(was)
				}
				break
			}
		}
		return found
	case *place:
		return s.ofPlace(to)
	case *Resource:
		return s.ofResource(to, w.claim, first)
	case *Lock:
		return s.ofLock(to, w.turn)
	case *Scope:
		return s.ofScope(to)
	case *Pool:
		return s.ofThreads(to)
	}
	return free
}

// ofPlace looks at the members of a group that is full: each would have to be
// stuck.
func (s *search) ofPlace(p *place) finding {
	if s.ors[p.Group] {
		s.fact(p.Group)
		return looped
	}
	p.mu.Lock()
	var members []*Task
	for m := p.members; m != nil; m = m.link.after {
		members = append(members, m)
	}
	p.mu.Unlock()
	if len(members) < p.limit || len(members) == 0 {
		return free // one is about to begin
	}
	s.ors[p.Group] = true
	defer delete(s.ors, p.Group)
	found := looped
	for i, m := range members {
		chain := len(s.chain)
		one := s.ofNode(m.Node(), m.call.name, m.call.pc)
		if one == free {
			was := s.state()
			for _, m := range members[i+1:] { // for the claims among them
				s.ofNode(m.Node(), "", 0)
				s.back(was)
			}
			return free
		}
		if found == stuck {
			s.chain = s.chain[:chain] // one is enough to tell
		}
		found = max(found, one)
	}
	s.fact(p.Group)
	return found
}

// ofThreads looks at the threads that a pool which closes still has to end.
func (s *search) ofThreads(p *Pool) finding {
	found := free
	for _, t := range p.lent() {
		if found = max(found, s.walk(t, 0)); found == stuck {
			break
		}
	}
	return found
}

// ofNode looks at the function that runs as m, and is called name or pc.
func (s *search) ofNode(m *Node, name string, pc uintptr) finding {
	if m == s.node {
		return stuck
	}
	if found, ok := s.nodes[m]; ok {
		if found == looped {
			s.fact(m)
		}
		return found
	}
	if !m.running() {
		return free
	}
	e := m.waits.Load()
	if e == nil {
		return free
	}
	s.nodes[m] = looped
	found := s.follow(e, false)
	delete(s.nodes, m)
	switch found {
	case free:
		s.nodes[m] = free
	case stuck:
		if e.kind() != "" {
			who := m.name()
			if name != "" || pc != 0 {
				who = callName(name, pc)
			}
			s.link(Link{Who: who, Goroutine: e.gid.Load()}, e)
		}
		fallthrough
	default:
		s.fact(m)
	}
	return found
}

// ofCall looks at a call on its thread, or on its way there.
func (s *search) ofCall(c *Call, first bool) finding {
	if c == s.call && !first {
		return stuck
	}
	if c.thread.Load() == nil {
		return free // not queued yet
	}
	t := c.lock()
	low, line, blocked := t.needs(c)
	leaves := c.isQueued() || c.abandon
	var ctx context.Context
	if blocked {
		ctx = c.ctx // one that has ended may be without
	}
	t.mu.Unlock()
	if !blocked {
		return free
	}
	var found finding
	if line {
		found = s.ofPool(t)
	} else {
		found = s.walk(t, low)
	}
	if found != free && leaves {
		s.until(ctx)
	}
	return found
}

// needs returns the level from which on all frames of t must end before c does,
// or that t must get a worker from its pool; blocked is false if there is no
// such thing. t.mu is held; it is the thread of c.
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

// walk looks at the frames of t from the top down to the level low.
func (s *search) walk(t *Thread, low int) finding {
	type wait struct {
		f    *Frame
		name string
		pc   uintptr
	}
	w := s.walks[t]
	if w == nil {
		w = &walk{low: int(^uint(0) >> 1)}
		s.walks[t] = w
	}
	found := free
	for _, level := range w.active {
		if level >= low {
			found = looped
		}
	}
	var waits []wait
	t.mu.Lock()
	if s.frame != nil && s.frame.thread == t && s.frame.live && s.frame.level >= low {
		on, stacked := t.stacked(s.frame, low)
		t.mu.Unlock()
		s.fact(t)
		if stacked {
			s.chain = append(s.chain, on)
		}
		return stuck
	}
	for f := t.top; f != nil && f.level >= low; f = f.below {
		s.steps++
		if f.level >= w.low {
			continue
		}
		v := wait{f: f}
		if f.call != nil {
			v.name, v.pc = f.call.name, f.call.pc
		}
		waits = append(waits, v)
	}
	name, gid := t.called(), t.gid.Load()
	t.mu.Unlock()
	for i, v := range waits {
		if v.f.level >= w.low {
			continue // looked at from below
		}
		was := w.low
		w.low = v.f.level
		w.active = append(w.active, v.f.level)
		one := s.follow(&v.f.edge, false)
		w.active = w.active[:len(w.active)-1]
		if one == free {
			continue
		}
		w.low = was
		found = max(found, one)
		s.fact(t, v.f)
		if found == stuck {
			who := "the caller"
			if v.name != "" || v.pc != 0 {
				who = callName(v.name, v.pc)
			}
			s.link(Link{Who: who, Goroutine: gid, Thread: name}, &v.f.edge)
			t.mu.Lock()
			on, stacked := t.stacked(v.f, low)
			t.mu.Unlock()
			if stacked {
				s.chain = append(s.chain, on)
			}
			now := s.state()
			for _, v := range waits[i+1:] { // for the claims below them
				if v.f.level < w.low {
					w.low = v.f.level
					s.follow(&v.f.edge, false)
					s.back(now)
				}
			}
			return stuck
		}
	}
	return found
}

// stacked reports whether the function that waits in f runs on top of others, down
// to the level low, that do not wait for it: it is served because the policy is
// [All]. The link says so. t.mu is held.
func (t *Thread) stacked(f *Frame, low int) (on Link, ok bool) {
	if t.policy != All || f.level <= low || f.call == nil || f.below == nil || f.below.call == nil {
		return on, false
	}
	waited := false
	if f.call.by != nil {
		f.call.by.waiters(func(o *Frame) bool {
			waited = waited || o.thread == t && o.live && o.level < f.level
			return !waited
		})
	}
	return Link{Who: f.below.call.Name(), Goroutine: t.gid.Load(), Thread: t.called(), Kind: "stack", For: f.call.Name(), Age: -1}, !waited
}

// ofPool looks at the threads of the pool that t stands in line for: each would
// have to be stuck.
func (s *search) ofPool(t *Thread) finding {
	p := t.pool
	if s.ors[p] {
		s.fact(p)
		return looped
	}
	p.mu.Lock()
	all := len(p.idle) == 0 && p.alive >= p.max && !p.closed && slices.Contains(p.waiting, t)
	alive := p.alive
	p.mu.Unlock()
	if !all {
		return free
	}
	leased := p.lent()
	if len(leased) != alive {
		return free // one is on its way from one to the next
	}
	s.ors[p] = true
	defer delete(s.ors, p)
	found := looped
	for _, l := range leased {
		chain := len(s.chain)
		one := s.walk(l, 0)
		if one == free {
			return free
		}
		if found == stuck {
			s.chain = s.chain[:chain] // one is enough to tell
		}
		found = max(found, one)
		s.fact(l)
	}
	s.fact(p)
	return found
}

// ofScope looks at the calls that a scope which closes still has to end.
func (s *search) ofScope(sc *Scope) finding {
	t := sc.root.thread.Load()
	if t == nil {
		return free
	}
	t.mu.Lock()
	// The exit functions come last, and are in no call.
	low, blocked, mine := 0, t.exiting() && t.top != nil, false
	add := func(c *Call) {
		if !c.scope.within(sc) {
			return
		}
		if c == s.call {
			mine = true
			return
		}
		if l, line, b := t.needs(c); b && !line && (!blocked || l < low) {
			low, blocked = l, true
		}
	}
	for c := t.main.head; c != nil; c = c.next {
		add(c)
	}
	for f := t.top; f != nil; f = f.below {
		for c := f.box.head; c != nil; c = c.next {
			add(c)
		}
	}
	for c := t.run; c != nil; c = c.outer {
		add(c)
	}
	t.mu.Unlock()
	if mine {
		s.fact(t)
		return stuck
	}
	if !blocked {
		return free
	}
	return s.walk(t, low)
}

// ofResource looks at those who have the tokens of r, for c to get what it wants.
// Each would have to be stuck. For one that may have any token that is not used
// they are those that have one now, for others they are the chains: all in a chain
// must end.
func (s *search) ofResource(r *Resource, c *claim, first bool) finding {
	r.mu.Lock()
	done := c.done
	r.mu.Unlock()
	if done {
		return free
	}
	if !first {
		s.claims = append(s.claims, c)
	}
	if s.ors[r] {
		s.fact(r)
		return looped
	}
	groups := s.tokens(r, c)
	if groups == nil {
		return free
	}
	s.ors[r] = true
	defer delete(s.ors, r)
	found := looped
	for _, g := range groups {
		one := free
		for _, h := range g {
			chain := len(s.chain)
			if one = s.holder(h); one == free {
				continue
			}
			if found == stuck {
				s.chain = s.chain[:chain]
			}
			s.fact(h)
			break
		}
		if one == free {
			return free
		}
		found = max(found, one)
	}
	s.fact(r)
	return found
}

// maxMembers bounds at how many of a chain a search looks: the newest.
const maxMembers = 16

// tokens returns the holders of the tokens of r that c waits for, by those of whom
// one has to be stuck; nil if there is one who runs, or one that is not known. The
// order is the same at each look.
func (s *search) tokens(r *Resource, c *claim) [][]*Hold {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.back || c.isKin() {
		ready := slices.Collect(maps.Keys(r.ready))
		r.mu.Unlock()
		i := slices.IndexFunc(ready, func(h *Hold) bool { return h.key() != c.self && h.sleeps() })
		r.mu.Lock()
		if i >= 0 {
			return nil // it is there to be lent
		}
	}
	n := c.n
	if first := r.next(); first != nil {
		n = first.n // that one comes first
	}
	if r.used == 0 || r.free() >= n || r.given > 0 || len(r.loose) > 0 {
		return nil
	}
	by := map[any][]*Hold{}
	if c.back || c.isKin() {
		for h := range r.ready {
			by[h] = []*Hold{h}
		}
	} else {
		for _, h := range r.kept {
			for ; h != nil; h = h.outer {
				by[h.chain] = append(by[h.chain], h)
			}
		}
	}
	var groups [][]*Hold
	for _, g := range by {
		for _, h := range g {
			if h.thread == nil && h.self.waits.Load() == nil && h.self != s.node {
				return nil // it runs, so that the others need not be looked at
			}
		}
		slices.SortFunc(g, func(a, b *Hold) int { return cmp.Compare(b.gid, a.gid) })
		groups = append(groups, g[:min(len(g), maxMembers)])
	}
	slices.SortFunc(groups, func(a, b []*Hold) int { return cmp.Compare(a[0].gid, b[0].gid) })
	return groups
}

func (s *search) holder(h *Hold) finding {
	switch {
	case h.self != nil:
		return s.ofNode(h.self, "", 0)
	case h.thread != nil:
		t := h.thread
		t.mu.Lock()
		low, _, blocked := t.under(h.call)
		t.mu.Unlock()
		if blocked {
			return s.walk(t, low)
		}
	}
	return free
}

// under is needs for a call that may have ended: its record may be another's.
func (t *Thread) under(c *Call) (low int, line, blocked bool) {
	for r := t.run; r != nil; r = r.outer {
		if r == c {
			return t.needs(c)
		}
	}
	return 0, false, false
}

// link adds the wait e to the chain.
func (s *search) link(l Link, e *edge) {
	l.Kind, l.For, l.Age, l.block = e.kind(), e.name(), e.age(), e.block()
	s.chain = append(s.chain, l)
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

// kind returns the kind of wait that e is: see [WaitState].
func (e *edge) kind() string {
	switch to := e.to.(type) {
	case *Call:
		return "call"
	case *awayCall:
		return "async"
	case *Node:
		return "run"
	case *want:
		switch to.for_.(type) {
		case *Task:
			return "task"
		case *Group:
			return "group"
		case *place:
			return "group place"
		case *Resource:
			return "limiter"
		case *Lock:
			return "mutex"
		case *Scope:
			return "close"
		case *Pool:
			return "pool close"
		}
	}
	return ""
}

// name returns that of what e waits for. Its record is not used again as long
// as e is published, or cycles held.
func (e *edge) name() string {
	switch to := e.to.(type) {
	case *Call:
		return to.Name()
	case *awayCall:
		return (*Call)(to).Name()
	case *Node:
		return to.name()
	case *want:
		switch w := to.for_.(type) {
		case *Task:
			return w.call.Name()
		case *Scope:
			return w.Name()
		}
	}
	return ""
}

// link returns what is known of the one who waits in f.
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

// describe makes the error of the wait e, which closes the cycle that was
// found; first is who waits so.
func (s *search) describe(first Link, e *edge) *DeadlockError {
	if first.Who == "" {
		first.Who = e.name()
		if len(s.chain) > 0 {
			first.Who = s.chain[0].For
		}
	}
	if first.Who == "" {
		first.Who = s.node.name()
	}
	s.link(first, e)
	slices.Reverse(s.chain)
	s.chain[0].Age = -1
	return &DeadlockError{Message: message(s.chain), Cycle: s.chain, Page: page(s.chain)}
}

// name returns that of the task which runs as n. What else runs as a node is
// known by name to those alone who wait for it.
func (n *Node) name() string {
	if n != nil && n.life != nil && &n.life.own == n {
		return n.life.called()
	}
	return "a function"
}

// message says which wait it was.
func message(cycle []Link) string {
	tasks := true
	for _, l := range cycle {
		tasks = tasks && l.Kind == "task"
	}
	switch {
	case tasks && len(cycle) == 1:
		return "a task waits for itself"
	case tasks:
		return "tasks wait for each other"
	case len(cycle) == 1 && cycle[0].Kind == "group":
		return "a task waits for the end of the group that it belongs to"
	case len(cycle) == 1 && cycle[0].Kind == "group place":
		return "a task waits for a place in the full group that it belongs to"
	case len(cycle) == 1 && cycle[0].Kind == "mutex":
		return "a function waits for a mutex that it holds itself"
	}
	waits := make([]string, len(cycle))
	for i, l := range cycle {
		waits[i] = l.String()
	}
	return strings.Join(waits, ", ")
}

// A block is what keeps a call that is waited for from beginning.
type block int

const (
	unblocked block = iota // nothing does, or it is no call
	stranger               // its thread is blocked, and serves others
	unserved               // its thread is blocked, and serves nobody
	inLine                 // its context waits for a thread of a full pool
)

// block returns what keeps the call that e waits for from beginning.
func (e *edge) block() block {
	c := e.call()
	if c == nil || c.thread.Load() == nil {
		return unblocked
	}
	t := c.lock()
	defer t.mu.Unlock()
	switch {
	case !c.isQueued():
		return unblocked
	case t.inLine():
		return inLine
	case t.policy == None:
		return unserved
	}
	return stranger
}

// The pages of docs/deadlock that errors name.
const (
	pageSelfWait  = "self-wait"
	pageTasks     = "cycle-of-tasks"
	pageGroup     = "group-member"
	pageShutdown  = "shutdown-inside"
	pageBlocked   = "call-to-blocked-thread"
	pageServeNone = "serve-none"
	pageFullPool  = "full-pool"
	pageLimiter   = "limiter"
	pageMutex     = "mutex"
	pageAll       = "serve-all"
)

// page returns the page of docs/deadlock about such a cycle: what it has that
// is easiest to do without comes first.
func page(cycle []Link) string {
	kinds, blocks := map[string]int{}, map[block]bool{}
	for _, l := range cycle {
		kinds[l.Kind]++
		blocks[l.block] = true
	}
	switch {
	case kinds["stack"] > 0:
		return pageAll
	case kinds["close"] > 0 || kinds["pool close"] > 0:
		return pageShutdown
	case blocks[inLine]:
		return pageFullPool
	case blocks[unserved]:
		return pageServeNone
	case kinds["limiter"] > 0:
		return pageLimiter
	case kinds["mutex"] > 0:
		return pageMutex
	case blocks[stranger]:
		return pageBlocked
	case kinds["group"] > 0, kinds["group place"] > 0:
		return pageGroup
	case kinds["task"] == 1:
		return pageSelfWait
	case kinds["task"] > 1:
		return pageTasks
	}
	return pageBlocked
}

// site returns where the caller's user called this module.
func site() string {
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		f, more := frames.Next()
		if !ours(f.Function) && f.Function != "" {
			return fmt.Sprintf("%s:%d", f.File, f.Line)
		}
		if !more {
			return ""
		}
	}
}

// ours reports whether fn is a function of the packages that waits go through.
func ours(fn string) bool {
	for _, p := range []string{"asyncsync.dev/internal/core.", "asyncsync.dev/internal/sched.", "asyncsync.dev/asyncsync.", "asyncsync.dev/task.", "asyncsync.dev/loop.", "runtime.", "sync.", "iter."} {
		if strings.HasPrefix(fn, p) {
			return true
		}
	}
	return false
}
