package core

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"asyncsync.dev/internal/cycle"
	"asyncsync.dev/internal/goroutine"
	"asyncsync.dev/internal/sched"
)

// This file takes the graph of threads, waits and loops that reports are made from.

// site is siteOf, asked once for each place: contexts are made in few.
func (v *view) site(pc uintptr) Site {
	s, ok := v.sites[pc]
	if !ok {
		s = siteOf(pc)
		v.sites[pc] = s
	}
	return s
}

// TakeGraph returns the graph of all live threads, and of those in line for a goroutine.
func TakeGraph() Graph {
	v := view{seen: map[*Node]int{}, pools: map[*Pool]int{}, sites: map[uintptr]Site{}, numbers: map[*Resource]int{}, there: map[int64]bool{}}
	v.limiters()
	for _, t := range threads() {
		v.part(func() { v.thread(t) })
	}
	v.executors()
	v.loops()
	v.goroutines()
	v.closings()
	v.claims()
	for p, n := range v.pools {
		v.g.Pools = append(v.g.Pools, PoolState{n, p == DefaultPool, p.max, p.maxOverflow, p.Stats()})
	}
	slices.SortFunc(v.g.Pools, func(a, b PoolState) int { return cmp.Compare(a.Number, b.Number) })
	slices.SortFunc(v.g.Threads, func(a, b ThreadState) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(v.g.Goroutines, func(a, b GoroutineState) int { return cmp.Compare(a.Goroutine, b.Goroutine) })
	return v.g
}

// part looks at a few waits: f is called with the right to read edges.
//
// A wait that ends meanwhile cannot return before f has, so that f can read what the
// wait refers to. Parts are small so that no wait is delayed for the time of a whole
// graph. From one part to the next v keeps only what stays valid after the end of a
// wait: nodes, threads and resources, numbers and names.
func (v *view) part(f func()) {
	readEdges(f)
	afterPart()
}

// afterPart is called after each part of a graph. Tests set it.
var afterPart = func() {}

// partSize bounds how many goroutines off the threads are looked at in one part.
const partSize = 32

// found notes a function that a wait has led to, unless there are too many, and
// returns its number, 0 if it has none.
func (v *view) found(n *Node, l label) int {
	if n == nil || v.seen[n] != 0 || len(v.todo) >= graphNodes {
		return v.seen[n]
	}
	v.todo = append(v.todo, function{n, l})
	v.seen[n] = len(v.todo)
	return len(v.todo)
}

// state describes the wait e. If the target of e has no kind, the kind is what. cycles is
// held, and no other lock, because the target of e may be on a thread.
func (v *view) state(e *edge, what string) *WaitState {
	w := &WaitState{Kind: what, Age: e.age()}
	if e.to == nil {
		return w
	}
	if kind := e.to.kind(); kind != "" {
		w.Kind = kind
	}
	w.For = e.to.name()
	e.to.report(v, w)
	return w
}

// members notes the members of g, and names the first of them in w.
func (v *view) members(w *WaitState, g *Group) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for m := g.members; m != nil && (len(v.todo) < graphNodes || len(w.Goroutines) < graphMembers); m = m.after {
		number := v.found(m.call.node, m.call.title())
		if gid := m.call.edge.gid.Load(); gid != 0 && len(w.Goroutines) < graphMembers {
			w.Goroutines = append(w.Goroutines, gid)
			w.Functions = append(w.Functions, number)
		}
	}
}

// claims adds goroutines that wait for a token and run no function of this module.
func (v *view) claims() {
	for i, r := range v.g.Limiters {
		for _, p := range r.Waiting {
			if !v.there[p.Goroutine] && !slices.ContainsFunc(v.g.Threads, func(t ThreadState) bool { return t.Goroutine == p.Goroutine }) {
				v.add(GoroutineState{Goroutine: p.Goroutine, Name: p.Name, Wait: WaitState{Kind: "limiter", Age: p.Age, Limiter: i + 1}})
			}
		}
	}
}

// goroutines adds those of the functions that were found, and of what these lead to.
func (v *view) goroutines() {
	for next := 0; next < len(v.todo); {
		v.part(func() {
			for range partSize {
				if next == len(v.todo) {
					return
				}
				f := v.todo[next]
				next++
				e := f.node.waits.Load()
				if e == nil || e.kind() == "" {
					continue
				}
				v.add(GoroutineState{Goroutine: e.gid.Load(), Function: next, Name: f.label.String(), Wait: *v.state(e, "")})
			}
		})
	}
}

func (v *view) add(g GoroutineState) {
	v.there[g.Goroutine] = true
	v.g.Goroutines = append(v.g.Goroutines, g)
}

// closings adds the goroutines off the threads that wait for the end of a context or
// of a pool.
func (v *view) closings() {
	closings.Lock()
	all := slices.Collect(maps.Keys(closings.waits))
	closings.Unlock()
	for part := range slices.Chunk(all[:min(len(all), graphNodes)], partSize) {
		v.part(func() {
			for _, c := range part {
				if c.stands() {
					v.closing(c)
				}
			}
		})
	}
}

func (v *view) closing(c *closing) {
	g := GoroutineState{Goroutine: c.edge.gid.Load(), Wait: *v.state(c.edge, "")}
	if f, ok := c.edge.to.(*goal).target.(forScope); ok {
		if t := f.s.root.thread.Load(); t != nil {
			t.mu.Lock()
			g.Below = t.functions().place(c.by, c.born) != 0
			t.mu.Unlock()
		}
	}
	if !v.there[g.Goroutine] {
		v.add(g)
		return
	}
	for i := range v.g.Goroutines {
		if v.g.Goroutines[i].Goroutine == g.Goroutine {
			v.g.Goroutines[i].Below = g.Below
		}
	}
}

// thread adds what t does.
func (v *view) thread(t *Thread) {
	t.mu.Lock()
	lined := t.inLine()
	left := t.pool != nil && t.worker == nil && !lined // the line
	if t.over || left {
		t.mu.Unlock()
		return
	}
	s := ThreadState{
		ID: t.id, Name: t.name, Policy: t.policy, OSThread: t.tid.Load(), Goroutine: t.gid.Load(),
		Adopted: t.adopted, Executor: t.own != nil, Unpinned: t.unpinned, Lined: lined, Queued: t.waiting, Calls: t.calls,
		Exiting: t.exiting(),
	}
	entries, stack := t.stack()
	s.Cut = entries - len(stack)
	waits := make([]*Frame, len(stack))
	for i, e := range stack {
		c := CallState{Waited: -1}
		if e.call != nil {
			c = e.call.entry()
			s.Long = s.Long || e.call.long
		}
		if e.frame != nil {
			waits[i] = e.frame
			c.Wait = &WaitState{Kind: e.frame.what} // filled in below
		}
		s.Stack = append(s.Stack, c)
	}
	for c := t.run; c != nil && !s.Long; c = c.outer {
		s.Long = c.long // one that is left out above
	}
	top := t.top
	s.Queue, s.BelowAt = v.queue(t)
	s.Below = s.BelowAt >= 0
	s.BelowAt = max(0, s.BelowAt)
	t.mu.Unlock()
	s.Made = v.site(t.made)
	s.Pool = v.pool(t.pool)
	// What frames wait for may be on another thread, so that no lock of one is
	// held.
	for i, f := range waits {
		if f != nil {
			s.Stack[i].Wait = v.state(&f.edge, f.what)
		}
	}
	if top != nil && !s.Long {
		s.Long = top.edge.long(graphSteps)
	}
	v.g.Threads = append(v.g.Threads, s)
}

// executors adds what was posted to goroutines that are no threads now. Their owners have
// to run it, and perhaps do not know.
func (v *view) executors() {
	makers.Lock()
	owners := slices.Collect(maps.Values(makers.all))
	makers.Unlock()
	for _, o := range owners {
		o.mu.Lock()
		execs := slices.Clone(o.execs)
		o.mu.Unlock()
		for _, e := range execs {
			if s := e.held(); s.Queued > 0 {
				s.Made = v.site(e.made)
				v.g.Threads = append(v.g.Threads, s)
			}
		}
	}
}

// held returns what is pending as the queue of a thread that runs nothing.
func (e *Executor) held() ThreadState {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := ThreadState{ID: e.id, Goroutine: e.gid, Adopted: true, Executor: true, Queued: len(e.pending)}
	for _, p := range e.pending[:min(len(e.pending), graphQueue)] {
		s.Queue = append(s.Queue, CallState{Seq: p.number, Name: "posted function", Waited: -1})
	}
	return s
}

// pool returns a number for p.
func (v *view) pool(p *Pool) int {
	if p == nil {
		return 0
	}
	if v.pools[p] == 0 {
		v.pools[p] = len(v.pools) + 1
	}
	return v.pools[p]
}

// queue returns the first calls that wait. below is the place among them of the first
// call that is not served and was submitted from below a function on the stack, -1 for
// none. A call from below the function on top is preferred. The call is always among
// states: if it is not among the first calls, it takes the place of the last of them.
// t.mu is held.
func (v *view) queue(t *Thread) (states []CallState, below int) {
	if t.waiting == 0 {
		return nil, -1
	}
	var calls []*Call
	var from *Call
	place := 0 // of the function that from is below
	running := t.functions()
	add := func(l *list) {
		c, served := l.head, len(running) == 0 || t.servesNow(l)
		found := served
		for n := 0; c != nil && n < graphSteps && (n < graphQueue || !found); n++ {
			if !found {
				at := running.place(c.submitter(), c.bornIn())
				top := at == 1 && place != 1
				if at != 0 && (from == nil || top || at == place && c.seq < from.seq) {
					from, place = c, at
				}
				found = at == 1
			}
			if n < graphQueue {
				calls = append(calls, c)
			}
			c = c.next
		}
	}
	add(&t.main)
	add(&t.posts)
	for f := t.top; f != nil; f = f.below {
		add(&f.box)
	}
	slices.SortFunc(calls, func(a, b *Call) int { return cmp.Compare(a.seq, b.seq) })
	calls = calls[:min(len(calls), graphQueue)]
	below = -1
	if from != nil {
		if below = slices.Index(calls, from); below < 0 {
			below = len(calls) - 1
			calls[below] = from
		}
	}
	for _, c := range calls {
		e := c.entry()
		e.Stranger = !t.inLine() && (c.list == &t.main || c.list == &t.posts) && (t.related() || t.frameFor(c.submitter()) == nil)
		e.Served = t.servesNow(c.list)
		states = append(states, e)
		v.found(c.submitter(), label{name: c.submitter().name()})
	}
	return states, below
}

// entry returns c as it is named in a graph. The mu of its thread is held.
func (c *Call) entry() CallState {
	s := CallState{Seq: c.seq, Name: c.Name(), Waited: -1, Long: c.long, Detached: c.loose}
	if t := c.thread.Load(); t != nil && t.own != nil && c.scope != nil && c.scope != t.home {
		s.Context = c.scope.Name()
	}
	if c.wait.Load() == callerGone {
		return s
	}
	if e := c.callerEdge(); e != nil {
		s.Caller, s.Waited = e.gid.Load(), e.age()
	}
	if f := c.waiter(); f != nil {
		s.Caller = f.thread.gid.Load()
	}
	return s
}

// long reports whether e leads, within so many steps, to a function that is meant to
// take long. cycles is held.
func (e *edge) long(steps int) bool {
	for range steps {
		if c := e.call(); c != nil {
			if c.thread.Load() == nil {
				return c.long
			}
			t := c.lock()
			long := c.long
			for c := t.run; c != nil; c = c.outer {
				long = long || c.long
			}
			top := t.top
			t.mu.Unlock()
			if long || top == nil {
				return long
			}
			e = &top.edge
			continue
		}
		if e.to == nil {
			return false
		}
		c, n := e.to.next()
		switch {
		case n == nil:
			return false // several, or something else
		case c.long:
			return true
		}
		if e = n.waits.Load(); e == nil {
			return false
		}
	}
	return false
}

// limiters adds the resources that somebody waits for, their holders and waiters, and
// notes the functions of these.
func (v *view) limiters() {
	contended.Lock()
	all := slices.Collect(maps.Keys(contended.resources))
	contended.Unlock()
	for _, r := range all {
		if s := v.limiter(r); s.Waiters > 0 {
			v.g.Limiters = append(v.g.Limiters, s)
			v.numbers[r] = len(v.g.Limiters)
		}
	}
}

func (v *view) limiter(r *Resource) ResourceState {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := ResourceState{Total: r.total, Used: r.used}
	wait := func(c *claim) {
		if len(s.Waiting) >= graphMembers {
			return
		}
		p := c.hold.party()
		p.Tokens, p.Age, p.Lent = c.n, max(0, time.Since(c.since)), c.back
		s.Waiting = append(s.Waiting, p)
		v.found(c.hold.runsAs(), label{name: p.Name})
	}
	for _, c := range r.owed {
		if !c.done {
			s.Waiters++
			wait(c)
		}
	}
	s.Waiters += r.line.len
	for c := r.line.head; c != nil && len(s.Waiting) < graphMembers; c = c.next {
		wait(c)
	}
	hold := func(h *Hold) {
		if s.Holders++; s.Holders <= graphMembers {
			s.Holding = append(s.Holding, h.party())
			v.found(h.runsAs(), label{name: h.party().Name})
		}
	}
	for _, h := range r.loose {
		hold(h)
	}
	for h := range r.keeping() {
		hold(h)
	}
	slices.SortStableFunc(s.Holding, func(a, b ResourceParty) int { return cmp.Compare(a.Goroutine, b.Goroutine) })
	return s
}

// runsAs returns the node that the holder runs as, off the threads, nil if that is not
// known.
func (h *Hold) runsAs() *Node {
	if h.self != nil || h.thread != nil {
		return h.self
	}
	if h.node != nil && h.node.life != nil && &h.node.life.own == h.node {
		return h.node // a task's own ctx
	}
	return nil
}

// party names the holder of h. The resource's mu is held.
func (h *Hold) party() ResourceParty {
	p := ResourceParty{Goroutine: h.gid, Tokens: h.n, Keeps: h.keeps, Lent: h.keeps && !h.has}
	if h.node != nil && h.node.life != nil && &h.node.life.own == h.node {
		p.Name = h.node.name()
	}
	if h.thread != nil {
		p.Thread = h.thread.id
	}
	return p
}

// title returns the name of what runs as t, and its node, nil if it has none.
func title(t *sched.Task) (name string, n *Node) {
	var j *Job
	switch b := t.Body.(type) {
	case *Job:
		j = b
	case *Solo:
		j = &b.Job
	default:
		return "a posted function", nil
	}
	if j.life != nil && j.node == &j.life.own {
		return j.node.name(), j.node
	}
	return j.call.Name(), j.node
}

// A runningLoop is a thread loop that somebody runs.
type runningLoop struct {
	id       uint64
	name     string
	loop     *sched.Loop
	gid, tid int64
}

// runningLoops are those that there are. A leaf lock.
var runningLoops struct {
	sync.Mutex
	all map[*runningLoop]struct{}
}

var loopIDs atomic.Uint64

// EnlistLoop makes known that the calling goroutine, which is locked to its OS
// thread, runs l, until over is called.
func EnlistLoop(name string, l *sched.Loop) (over func()) {
	current() // if the goroutine holds a thread, this notes the thread in its record, for Loop.Owner
	r := &runningLoop{loopIDs.Add(1), name, l, goroutine.ID(), osThread()}
	runningLoops.Lock()
	if runningLoops.all == nil {
		runningLoops.all = map[*runningLoop]struct{}{}
	}
	runningLoops.all[r] = struct{}{}
	runningLoops.Unlock()
	return func() {
		runningLoops.Lock()
		delete(runningLoops.all, r)
		runningLoops.Unlock()
	}
}

// graphTasks is how many tasks of a loop a graph names.
const graphTasks = 16

// loops adds the loops.
func (v *view) loops() {
	runningLoops.Lock()
	all := make([]*runningLoop, 0, len(runningLoops.all))
	for r := range runningLoops.all {
		all = append(all, r)
	}
	runningLoops.Unlock()
	slices.SortFunc(all, func(a, b *runningLoop) int { return cmp.Compare(a.id, b.id) })
	for _, r := range all {
		s := LoopState{ID: r.id, Name: r.name, OSThread: r.tid, Goroutine: r.gid}
		var nodes []*Node
		r.loop.Look(graphTasks, func(k sched.Look) {
			s.Ready, s.Tasks = k.Ready, k.Tasks
			add := func(t *sched.Task) LoopTask {
				name, n := title(t)
				nodes = append(nodes, n)
				return LoopTask{Goroutine: t.Goroutine(), Name: name}
			}
			if k.Now != nil {
				now := add(k.Now)
				s.Running, s.Turn = &now, [2]uint64{uint64(uintptr(unsafe.Pointer(k.Now))), k.Turn}
			}
			for _, t := range k.Waiting {
				s.Waiting = append(s.Waiting, add(t))
			}
		})
		// No lock of the loop is held: what a wait is for may be on a thread.
		v.part(func() {
			wait := func(n *Node, t *LoopTask) {
				if n == nil {
					return
				}
				if e := n.waits.Load(); e != nil && e.kind() != "" {
					t.Wait = v.state(e, "")
				}
			}
			if s.Running != nil {
				wait(nodes[0], s.Running)
				nodes = nodes[1:]
			}
			for i := range s.Waiting {
				wait(nodes[i], &s.Waiting[i])
			}
		})
		v.g.Loops = append(v.g.Loops, s)
	}
}

// exiting reports whether t runs exit functions. t.mu is held.
func (t *Thread) exiting() bool {
	// A thread that runs no call and sleeps in a frame is in a wait of an
	// exit function.
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

// place returns the place of the function that is at or above by in the call tree,
// where by is meant in the epoch born. It returns 0 if there is none. It goes up a
// bounded number of steps, so 0 may be wrong.
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

// eachCall calls f for the calls that are queued in main and in boxes of t, and for those
// that run there. It leaves out posts. t.mu is held.
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

func (f forNode) kind() string { return "run" }

func (f forNode) name() string { return f.n.name() }

func (f forNode) mayWait() bool { return true }

func (f forNode) next() (*Call, *Node) { return nil, nil }

func (f forNode) needs(q *query) cycle.Needs { return q.one(&nodeVertex{q: q, node: f.n}) }

func (f forNode) reached() any { return nil }

func (f forNode) report(v *view, _ *WaitState) {
	v.found(f.n, label{name: f.n.name()})
}

func (f forTop) kind() string { return "" }

func (f forTop) name() string { return "" }

func (f forTop) mayWait() bool { return true }

func (f forTop) next() (*Call, *Node) { return nil, nil }

func (f forTop) needs(q *query) cycle.Needs { return q.one(&callVertex{q, f.c}) }

func (f forTop) reached() any { return f.c }

func (f forTop) report(*view, *WaitState) {}

func (f forThread) kind() string { return "" }

func (f forThread) name() string { return "" }

func (f forThread) mayWait() bool { return true }

func (f forThread) next() (*Call, *Node) { return nil, nil }

func (f forThread) needs(q *query) cycle.Needs { return cycle.Needs{Of: q.stack(f.t, 0)} }

func (f forThread) reached() any { return f.t }

func (f forThread) report(*view, *WaitState) {}
