package core

import (
	"cmp"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Graph is who runs where, and who waits for whom. Each thread in it is
// consistent in itself; between them time has passed.
type Graph struct {
	Threads    []ThreadState    // by ID
	Goroutines []GoroutineState // that the waits of threads lead to, or that wait for the end of one, or hold a token or wait for one, by Goroutine
	Limiters   []ResourceState  // that somebody waits for
	Pools      []PoolState      // of Threads, by Number
	Loops      []LoopState      // thread loops that run, by ID
}

// A PoolState is the pool of some threads of a graph.
type PoolState struct {
	Number      int // as in ThreadState.Pool
	Default     bool
	MaxThreads  int
	MaxOverflow int
	PoolStats
}

// A ThreadState is what one thread did at one moment.
type ThreadState struct {
	ID        uint64 // of this lease: never used again in the process
	Name      string // of its context
	Made      Site   // where the context was made
	Pool      int    // equal for the threads of one pool, in one graph; 0 for those of none
	Policy    Policy
	OSThread  int64
	Goroutine int64
	Adopted   bool
	Unpinned  bool
	Lined     bool        // it has no goroutine yet: it waits in line for one of its pool
	Exiting   bool        // it runs exit functions
	Stack     []CallState // what runs, from the top; the bottom of an adopted one has no name
	Cut       int         // how many of Stack are left out, below the first 48; the last 16 are there
	Queue     []CallState // what waits, in the order it came, the first of it; and the one that Below is about
	Queued    int         // how many wait
	Calls     uint64      // that have ended

	// Below says that one of the queue, which is not served now, was submitted
	// from below a function of the stack, which therefore may be waiting for it,
	// and BelowAt which is the first such one. Of those from below the function
	// on top there is none if it is from below another.
	Below   bool
	BelowAt int
	// Long says that what runs is meant to take long, or waits for what is.
	Long bool
}

// A CallState is one call, queued or running.
type CallState struct {
	Seq      uint64 // its number on its thread, 0 for what is no call
	Name     string
	Caller   int64         // the goroutine that waits for it, 0 if there is none
	Waited   time.Duration // how long that has slept for it, -1 if it does not
	Long     bool
	Stranger bool       // queued: nothing that blocks the thread waits for it
	Served   bool       // queued: the thread is about to run it
	Detached bool       // it was made with a detached ctx, and is nobody's
	Wait     *WaitState // running: the wait of this module that its function is in
}

// A WaitState is one wait of this module.
type WaitState struct {
	Kind      string        // call, async, run, task, group, group place, limiter, mutex, close, executor, pool close; or what its function is called
	For       string        // the name of what is waited for, "" if it has none
	Thread    uint64        // of a call: the ID of the thread that it was sent to
	Seq       uint64        // and its number there
	Goroutine int64         // that runs what is waited for, 0 if that is not known
	Age       time.Duration // how long the wait has slept, -1 if it does not

	Function   int      // the Function of the GoroutineState of what is waited for, if that is in a wait; 0 if it is not known
	Goroutines []int64  // of a group: those that run the members, the first of them
	Functions  []int    // and the Function of each
	Limiter    int      // the place in Limiters, from 1; 0 if it is not there
	Threads    []uint64 // of a pool close: the IDs of the threads that are lent, the first of them
}

// A Site is a place in a program.
type Site struct {
	Func, File string
	Line       int
}

// siteOf returns the place of a return address as [runtime.Callers] gives it.
func siteOf(pc uintptr) Site {
	if pc == 0 {
		return Site{}
	}
	f, _ := runtime.CallersFrames([]uintptr{pc}).Next()
	return Site{f.Function, f.File, f.Line}
}

// site is siteOf, asked once for each place: contexts are made in few.
func (v *view) site(pc uintptr) Site {
	if s, ok := v.sites[pc]; ok || pc == 0 {
		return s
	}
	if v.sites == nil {
		v.sites = map[uintptr]Site{}
	}
	v.sites[pc] = siteOf(pc)
	return v.sites[pc]
}

// String names the place in a few words.
func (s Site) String() string {
	return fmt.Sprintf("%s, %s:%d", s.Func, s.File[strings.LastIndexAny(s.File, `/\\`)+1:], s.Line)
}

// A GoroutineState is a function of this module, not on a thread, that is in a
// wait of this module.
type GoroutineState struct {
	Goroutine int64
	Function  int // its number in the graph: one goroutine may run several, each on top of the other's wait
	Name      string
	Wait      WaitState
	Below     bool // it waits for the end of a context from below a function that runs there
}

// How much of one thread a graph names.
const (
	graphQueue   = 16 // queued calls
	graphTop     = 48 // entries of the stack, from the top
	graphBottom  = 16 // and from the bottom, of a stack that is higher than both
	graphNodes   = 1024
	graphMembers = 64  // of a group, or threads of a pool
	graphSteps   = 256 // up a tree, along a chain of waits, or through a queue
)

// TakeGraph returns the graph of all threads that have a goroutine, or wait in
// line for one.
func TakeGraph() Graph {
	var v view
	// Who ends a wait meanwhile waits for us, so that what waits refer to is
	// there as long as we look.
	chase(func() {
		v.limiters()
		for _, t := range threads() {
			v.thread(t)
		}
		v.loops()
		v.goroutines()
		v.closings()
		v.claims()
	})
	for p, n := range v.pools {
		v.g.Pools = append(v.g.Pools, PoolState{n, p == DefaultPool, p.max, p.maxOverflow, p.Stats()})
	}
	slices.SortFunc(v.g.Pools, func(a, b PoolState) int { return cmp.Compare(a.Number, b.Number) })
	slices.SortFunc(v.g.Threads, func(a, b ThreadState) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(v.g.Goroutines, func(a, b GoroutineState) int { return cmp.Compare(a.Goroutine, b.Goroutine) })
	return v.g
}

// A view is a graph in the making. cycles is held.
type view struct {
	g    Graph
	todo []function // that waits have led to, in order
	seen map[*Node]int

	pools   map[*Pool]int
	sites   map[uintptr]Site
	numbers map[*Resource]int // of Limiters, from 1
	there   map[int64]bool    // goroutines that g has
}

// A function is one that runs off the threads.
type function struct {
	node *Node
	name string
	pc   uintptr
}

// reach notes the functions that e waits for.
func (v *view) reach(e *edge) {
	switch to := e.to.(type) {
	case *awayCall:
		v.found(to.node, to.name, to.pc)
	case *Node:
		v.found(to, to.name(), 0)
	case *want:
		switch w := to.for_.(type) {
		case *Task:
			v.found(w.Node(), w.call.name, w.call.pc)
		case *Group:
			v.group(w)
		case *place:
			v.group(w.Group)
		case *Lock:
			if o, _ := w.holder(to.turn); o.self != nil {
				v.found(o.self, o.self.name(), 0)
			}
		}
	}
}

// group notes the members of g.
func (v *view) group(g *Group) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for m := g.members; m != nil && len(v.todo) < graphNodes; m = m.link.after {
		v.found(m.Node(), m.call.name, m.call.pc)
	}
}

func (v *view) found(n *Node, name string, pc uintptr) {
	if n == nil || v.seen[n] != 0 || len(v.todo) >= graphNodes {
		return
	}
	if v.seen == nil {
		v.seen = map[*Node]int{}
	}
	v.todo = append(v.todo, function{n, name, pc})
	v.seen[n] = len(v.todo)
}

// state is edge.state, with the numbers of the functions that e waits for.
func (v *view) state(e *edge, what string) *WaitState {
	v.reach(e)
	w := e.state(what)
	switch to := e.to.(type) {
	case *awayCall:
		w.Function = v.seen[to.node]
	case *want:
		switch x := to.for_.(type) {
		case *Task:
			w.Function = v.seen[x.Node()]
		case *Group:
			v.members(w, x)
		case *place:
			v.members(w, x.Group)
		case *Resource:
			w.Limiter = v.numbers[x]
		case *Lock:
			o, _ := x.holder(to.turn)
			w.Function = v.seen[o.self]
		}
	}
	return w
}

// members names the members of g in w.
func (v *view) members(w *WaitState, g *Group) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for m := g.members; m != nil && len(w.Goroutines) < graphMembers; m = m.link.after {
		if gid := m.call.edge.gid.Load(); gid != 0 {
			w.Goroutines = append(w.Goroutines, gid)
			w.Functions = append(w.Functions, v.seen[m.Node()])
		}
	}
}

// claims adds those who wait for a token and are nobody's function.
func (v *view) claims() {
	for i, r := range v.g.Limiters {
		for _, p := range r.Waiting {
			if !v.there[p.Goroutine] && !slices.ContainsFunc(v.g.Threads, func(t ThreadState) bool { return t.Goroutine == p.Goroutine }) {
				v.add(GoroutineState{Goroutine: p.Goroutine, Name: p.Name, Wait: WaitState{Kind: "limiter", Age: p.Age, Limiter: i + 1}})
			}
		}
	}
}

// goroutines adds those of the functions found, and what they lead to.
func (v *view) goroutines() {
	for i := 0; i < len(v.todo); i++ {
		f := v.todo[i]
		e := f.node.waits.Load()
		if e == nil || e.kind() == "" {
			continue
		}
		v.add(GoroutineState{Goroutine: e.gid.Load(), Function: i + 1, Name: callName(f.name, f.pc), Wait: *v.state(e, "")})
	}
}

func (v *view) add(g GoroutineState) {
	if v.there == nil {
		v.there = map[int64]bool{}
	}
	v.there[g.Goroutine] = true
	v.g.Goroutines = append(v.g.Goroutines, g)
}

// closings adds those who wait, off the threads, for the end of a context or of
// a pool.
func (v *view) closings() {
	closings.Lock()
	all := slices.Collect(maps.Keys(closings.waits))
	closings.Unlock()
	for _, c := range all[:min(len(all), graphNodes)] {
		g := GoroutineState{Goroutine: c.edge.gid.Load(), Wait: *c.edge.state("")}
		if s, ok := c.edge.to.(*want).for_.(*Scope); ok {
			if t := s.root.thread.Load(); t != nil {
				t.mu.Lock()
				g.Below = t.runs().over(c.by, c.born)
				t.mu.Unlock()
			}
		}
		if !v.there[g.Goroutine] {
			v.add(g)
			continue
		}
		for i := range v.g.Goroutines {
			if v.g.Goroutines[i].Goroutine == g.Goroutine {
				v.g.Goroutines[i].Below = g.Below
			}
		}
	}
}

// A closing is somebody off the threads who waits for the end of a context or of
// a pool.
type closing struct {
	edge *edge
	by   *Node // of the ctx that it was made with, or that the goroutine runs as
	born uint32
}

// closings are those that there are. A leaf lock.
var closings struct {
	sync.Mutex
	waits map[*closing]struct{}
}

// closingBegins makes known that e is the wait of one who closes something,
// until the function that it returns is called.
func closingBegins(e *edge, by *Node) (over func()) {
	c := &closing{edge: e, by: by}
	if by != nil {
		c.born = by.epoch()
	}
	closings.Lock()
	if closings.waits == nil {
		closings.waits = make(map[*closing]struct{})
	}
	closings.waits[c] = struct{}{}
	closings.Unlock()
	return func() {
		closings.Lock()
		delete(closings.waits, c)
		closings.Unlock()
		settle()
	}
}

// state returns the wait e, which is called what if e does not say it. cycles
// is held.
func (e *edge) state(what string) *WaitState {
	w := &WaitState{Kind: what, Age: e.age(), For: e.name()}
	if kind := e.kind(); kind != "" {
		w.Kind = kind
	}
	if c := e.call(); c != nil {
		if c.thread.Load() != nil {
			t := c.lock()
			w.Thread, w.Seq = t.id, c.seq
			if c.isRunning() {
				w.Goroutine = t.gid.Load()
			}
			t.mu.Unlock()
		}
		return w
	}
	switch to := e.to.(type) {
	case *awayCall:
		w.Goroutine = to.edge.gid.Load()
	case *want:
		switch x := to.for_.(type) {
		case *Task:
			w.Goroutine = x.call.edge.gid.Load()
		case *Scope:
			if t := x.root.thread.Load(); t != nil {
				w.Thread = t.id
			}
		case *Lock:
			o, _ := x.holder(to.turn)
			if o.thread != nil {
				w.Thread = o.thread.id
			} else if o.self != nil {
				if waits := o.self.waits.Load(); waits != nil {
					w.Goroutine = waits.gid.Load()
				}
			}
		case *Pool:
			for _, t := range x.lent() {
				w.Threads = append(w.Threads, t.id)
			}
			w.Threads = w.Threads[:min(len(w.Threads), graphMembers)]
		}
	}
	return w
}

// call returns the call on a thread, or on its way there, that e waits for, or
// nil.
func (e *edge) call() *Call {
	switch to := e.to.(type) {
	case *Call:
		return to
	case *want:
		if task, ok := to.for_.(*Task); ok && task.call.thread.Load() != nil {
			return &task.call
		}
	}
	return nil
}

func liveThreads() []*Thread {
	live.Lock()
	defer live.Unlock()
	threads := make([]*Thread, 0, len(live.threads))
	for t := range live.threads {
		threads = append(threads, t)
	}
	return threads
}

// threads returns those that have a goroutine, and those in line for one. What
// goes from the line to a goroutine meanwhile is among them, once.
func threads() []*Thread {
	lined, all := linedThreads(), liveThreads() // in this order
	if len(lined) == 0 {
		return all
	}
	seen := make(map[*Thread]bool, len(all))
	for _, t := range all {
		seen[t] = true
	}
	for _, t := range lined {
		if !seen[t] {
			all = append(all, t)
		}
	}
	return all
}

// inLine reports whether t waits for a worker of its pool, if only for one that
// is on its way. t.mu is held.
func (t *Thread) inLine() bool { return t.worker == nil && t.asked && t.pool != nil }

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
		Adopted: t.adopted, Unpinned: t.unpinned, Lined: lined, Queued: t.waiting, Calls: t.calls,
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

// pool returns a number for p.
func (v *view) pool(p *Pool) int {
	if p == nil {
		return 0
	}
	if v.pools == nil {
		v.pools = map[*Pool]int{}
	}
	if v.pools[p] == 0 {
		v.pools[p] = len(v.pools) + 1
	}
	return v.pools[p]
}

// A stacked is the functions on a thread's stack, with the epoch of each: those
// that a graph names. The place of one counts from the top, and from 1.
type stacked map[*Node]struct {
	epoch uint32
	place int
}

// runs returns the functions on the stack of t. t.mu is held.
func (t *Thread) runs() stacked {
	r := stacked{}
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

// place returns which of the functions is above by, in the epoch born, in the
// call tree, 0 for none. The answer may be a false none.
func (r stacked) place(by *Node, born uint32) int {
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

// over reports whether one of the functions is above by.
func (r stacked) over(by *Node, born uint32) bool { return r.place(by, born) != 0 }

// servesNow reports whether t, as it is now, is about to run what lies in l: it
// has nothing to do, or waits and serves it. t.mu is held.
func (t *Thread) servesNow(l *list) bool {
	return (t.run == nil || t.top != nil && t.top.call == t.run) && t.serves(l)
}

// exiting reports whether what runs on t, if anything does, are exit functions.
// t.mu is held.
func (t *Thread) exiting() bool {
	// One that sleeps in a frame is in a wait of an exit function.
	return t.run == nil && t.ending && t.worker != nil && (!t.parked || t.top != nil)
}

// queue returns the first that wait, and which of them is the first that is not
// served and was submitted from below a function on the stack, -1 for none: the
// function on top, if there is one from below that. It is among them even if it
// is not among the first, for those before it are what hides it. t.mu is held.
func (v *view) queue(t *Thread) (states []CallState, below int) {
	if t.waiting == 0 {
		return nil, -1
	}
	var calls []*Call
	var from *Call
	place := 0 // of the function that from is below
	runs := t.runs()
	add := func(l *list) {
		c, served := l.head, len(runs) == 0 || t.servesNow(l)
		found := served
		for n := 0; c != nil && n < graphSteps && (n < graphQueue || !found); n++ {
			if !found {
				at := runs.place(c.by, c.born)
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
		e.Stranger = !t.inLine() && (c.list == &t.main || c.list == &t.posts) && (t.related() || t.frameFor(c.by) == nil)
		e.Served = t.servesNow(c.list)
		states = append(states, e)
		v.found(c.by, c.by.name(), 0)
	}
	return states, below
}

// entry returns c as it is named in a graph. The mu of its thread is held.
func (c *Call) entry() CallState {
	s := CallState{Seq: c.seq, Name: c.Name(), Waited: -1, Long: c.long, Detached: c.loose}
	if c.wait.Load() == callerGone {
		return s
	}
	if c.frame != nil {
		s.Caller, s.Waited = c.frame.thread.gid.Load(), c.frame.edge.age()
	} else {
		s.Caller, s.Waited = c.edge.gid.Load(), c.edge.age()
	}
	return s
}

// long reports whether e leads, within so many steps, to what is meant to take
// long. cycles is held.
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
		var n *Node
		switch to := e.to.(type) {
		case *awayCall:
			if to.long {
				return true
			}
			n = to.node
		case *want:
			task, ok := to.for_.(*Task)
			if !ok {
				return false
			}
			n = task.Node()
		default:
			return false
		}
		if e = n.waits.Load(); e == nil {
			return false
		}
	}
	return false
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

// related reports whether t, blocked, serves those that the wait may depend on.
func (t *Thread) related() bool {
	return t.policy == Related || t.policy == All && strict.Load()
}

// all reports whether t serves everybody.
func (t *Thread) all() bool { return t.policy == All && !strict.Load() }

// everybody reports whether t, in the frame where it is now, serves everybody: by its
// policy, or because the frame is the bottom of an executor's thread. There is a frame,
// and t.mu is held.
func (t *Thread) everybody() bool { return t.all() || t.top.open && t.own.lasts.Load() }

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

// unmark tells the marks of c that it has left. t.mu is held.
func (t *Thread) unmark(c *Call) {
	t.marks = slices.DeleteFunc(t.marks, func(m *Mark) bool {
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
	if len(t.marks) == 0 {
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
	t := m.thread
	t.mu.Lock()
	t.marks = slices.DeleteFunc(t.marks, func(o *Mark) bool { return o == m })
	if len(t.marks) == 0 {
		t.marks = nil
	}
	t.mu.Unlock()
}
