package nesting

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/local"
	"asyncsync.dev/task"
)

// ErrHung is matched by the error of a Run that gave up.
var ErrHung = errors.New("the program hangs")

// A HungError has the stacks of all goroutines.
type HungError struct{ Stacks string }

// Error returns all stacks.
func (e *HungError) Error() string { return "the program hangs; all goroutines:\n\n" + e.Stacks }

// Is reports whether target is ErrHung.
func (e *HungError) Is(target error) bool { return target == ErrHung }

// Mode says how closely Run watches.
type Mode int

const (
	// Watched keeps a record of who waits for whom, and checks for every function
	// that runs on top of another that the latter depends on it. The record has a
	// lock, which orders what the library may have left unordered.
	Watched Mode = 0
	// Unwatched takes no lock that the library does not take, for the race
	// detector.
	Unwatched Mode = 1
	// Bubble is added to either in a synctest bubble, where the default thread ends
	// when nothing runs on it.
	Bubble Mode = 2
)

// The variables of all programs. Roots start without values, so that programs
// do not see each other's.
var variables = func() (vs [vars]*local.Var[int]) {
	for i := range vs {
		vs[i] = local.New[int]()
	}
	return
}()

func values() (v Values) {
	for i := range variables {
		v[i], _ = variables[i].Get()
	}
	return v
}

func forget() {
	for _, v := range variables {
		v.Delete()
	}
}

// Run interprets p and returns what it saw. When ctx ends first it gives up,
// leaves everything as it is, and returns a [HungError]; the program itself
// does not see ctx.
func Run(ctx context.Context, p *Program, mode Mode) (*Result, error) {
	ids := identify(p)
	x := &run{
		p:      p,
		mode:   mode,
		Result: newResult(p, ids),
		things: things{
			contexts: make([]*contextState, len(p.Contexts)),
			tasks:    make([]*task.Task[int], p.Ops),
			mutexes:  map[int]*task.Mutex{},
			loop:     looper{make(chan struct{})},
		},
		runs:  make([]atomic.Int32, p.Bodies),
		outs:  make([]Outcome, p.Bodies),
		acts:  make([]*activity, p.Ops),
		hung:  make(chan struct{}),
		exits: p.exits(),
	}
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		x.all()
	}()
	select {
	case <-finished:
		for i := range x.runs {
			x.Bodies[i].Runs = int(x.runs[i].Load())
		}
		x.Told = x.told.Load()
		if p.Planted != nil {
			// The wait that was told may have been that for a group, whose
			// tasks go on and find what they count on closed.
			close(x.hung)
		}
		return x.Result, nil
	case <-ctx.Done():
		stacks := make([]byte, 1<<22)
		stacks = stacks[:runtime.Stack(stacks, true)]
		close(x.hung)
		return nil, &HungError{string(stacks)}
	}
}

// run is one run of a program.
//
// The goroutine that runs an operation writes its result without a lock, to a place
// of its own. Results are read when everything has ended. Tasks are written in the
// same way, and read by later code of the program.
type run struct {
	*Result
	p     *Program
	mode  Mode
	exits bool // there are contexts with the mark
	things

	runs    []atomic.Int32
	outs    []Outcome      // of bodies that have ended
	strays  sync.WaitGroup // functions that were abandoned
	told    atomic.Int32
	threads atomic.Int32 // of the small pools, by what these are told
	hung    chan struct{}

	complaints sync.Mutex      // guards Complaints, spawned, atEnd and loose
	loose      []chan struct{} // closed at the ends of what a Goexit may leave running
	spawned    []int           // operations that have started a task
	atEnd      []*contextState
	acts       []*activity

	mu     sync.Mutex // guards the rest, when watched
	clock  int
	record []*wait
	tids   map[int]*contextState // of contexts that are in use
	dead   map[int]*contextState // of tainted ones that are not
}

// Things are what the operations of a program name.
type things struct {
	pool     *asyncsync.ThreadPool // large enough
	pools    []*asyncsync.ThreadPool
	limiters []*limiterState // by context
	loop     looper          // that never stops
	loops    []*loopState
	portals  []*portalState
	provider *providerState

	atTheStart []*contextState // shared contexts
	contexts   []*contextState
	tasks      []*task.Task[int]
	mutexes    map[int]*task.Mutex // by operation
}

// contextState is a context that exists. Its fields need no lock, because only
// functions on the context's thread touch them: they are probes for the race
// detector.
type contextState struct {
	*Context
	ctx    context.Context
	tsc    *asyncsync.ThreadSensitiveContext
	handle *asyncsync.Handle[*contextState]
	exec   *asyncsync.CurrentThreadExecutor // whose goroutine is the thread, nil for none
	left   chan struct{}                    // closed when that is to end
	gone   chan struct{}                    // closed when it has
	tid    int
	stack  []*activity
	steps  int
	starts int // of OnThreadStart
	exits  int // of OnThreadExit

	critical *critical // value of the thread-critical variable

	callers activity // that of roots with this context's ctx

	tainted atomic.Bool
	early   atomic.Bool // it may have been closed while it is in use
}

// An activity is one function under way, or a group.
type activity struct {
	parent  *activity // whose ctx it was started with; nil if nobody's relative
	body    *Body
	on      *contextState // nil in async code
	began   int           // clock, when it was submitted
	waiting *wait         // touched by its own goroutine only
	tid     int
	op      int       // that it is at
	queued  bool      // it is a task on a thread
	borrows bool      // its ctx is its parent's
	posted  bool      // it was posted to an executor
	within  *activity // that it is a part of for the library: it has called it inline
}

// A wait is an activity that waits for another.
type wait struct {
	by, target *activity
	closed     *contextState // instead of target: all that runs there, or will
	from, to   int           // clock; to is 0 while it lasts
}

func (x *run) complain(format string, args ...any) {
	x.complaints.Lock()
	defer x.complaints.Unlock()
	x.Complaints = append(x.Complaints, fmt.Sprintf(format, args...))
}

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
	if n := len(c.stack); n > 0 && x.p.portalOps[c.stack[n-1].op] {
		x.count(portalServed)
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

// all runs the whole program.
func (x *run) all() {
	x.tids, x.dead = map[int]*contextState{}, map[int]*contextState{}
	x.limiters = make([]*limiterState, len(x.p.Contexts))
	x.pool = asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 1000})
	for _, n := range x.p.Pools {
		cfg := asyncsync.ThreadPoolConfig{MaxThreads: n.Max}
		if n.Wide {
			cfg.MaxOverflow = 1000
		}
		cfg.ThreadStart = func() { x.threads.Add(1) }
		cfg.ThreadExit = func() { x.threads.Add(-1) }
		x.pools = append(x.pools, asyncsync.NewThreadPool(cfg))
	}
	for _, c := range x.p.Contexts {
		switch c.Kind {
		case defaultThread:
			x.contexts[c.ID] = &contextState{Context: c}
		case shared:
			x.contexts[c.ID] = x.open(context.Background(), c)
			x.later(x.contexts[c.ID])
			x.atTheStart = append(x.atTheStart, x.contexts[c.ID])
		case limiter:
			x.limiters[c.ID] = &limiterState{Limiter: task.NewLimiter(c.Tokens)}
		}
	}
	stopLoops := x.startLoops()
	var roots sync.WaitGroup
	for i, r := range x.p.Roots {
		ctx := context.Background()
		if r.Context != nil {
			ctx = x.contexts[r.Context.ID].ctx
		}
		roots.Add(1)
		go func() {
			defer roots.Done()
			defer forget()
			a := x.child(nil, r.Body)
			if omit.siblings && r.Context != nil {
				a.parent, a.borrows = &x.contexts[r.Context.ID].callers, true
			}
			capture(&x.Roots[i], func() (int, error) { return x.list(ctx, r.Body, a, nil) })
		}()
	}
	roots.Wait()
	for n := -1; n != x.begun(); {
		n = x.begun()
		x.drain()
		x.drainLoose()
	}
	if x.p.Planted == nil {
		// After a planted cycle was told a group's tasks may go on by themselves,
		// and abandon functions while this waits.
		x.strays.Wait()
	}
	stopLoops()
	x.complaints.Lock() // where a group goes on, as above
	atEnd := slices.Clone(x.atEnd)
	x.complaints.Unlock()
	for _, c := range slices.Backward(atEnd) {
		x.disclaim(c)
		if err := c.tsc.Close(); err != nil {
			x.complain("Close of %v: %v", c.Context, err)
		}
		// A thread that outlasts the context may run something else by now.
		lasts := c.Kind == nested || c.Owned
		if st := c.tsc.Stats(); !st.Closed || !lasts && (st.Queued != 0 || st.Running) {
			x.complain("%v after Close: %+v", c.Context, st)
		}
		x.over(c)
		if c.exec != nil {
			close(c.left)
			<-c.gone
		}
	}
	x.free()
	for _, p := range append(x.pools, x.pool) {
		if err := p.Close(); err != nil {
			x.complain("Close of a pool: %v", err)
		}
		if st := p.Stats(); st.Threads != 0 || st.Overflow != 0 || st.Idle != 0 || st.Waiting != 0 {
			x.complain("a closed pool: %+v", st)
		}
	}
	if n := x.threads.Load(); n != 0 {
		x.complain("of %d threads of the small pools ThreadStart or ThreadExit has not run", n)
	}
	for i, p := range x.pools {
		if st, n := p.Stats(), x.p.Pools[i]; !n.Wide && st.Peak > 2*n.Max {
			x.complain("pool%d: %+v, but MaxThreads and MaxOverflow are %d", i, st, n.Max)
		}
	}
}

// drain waits for all tasks. One that runs may start others, but has done so
// when it ends.
func (x *run) drain() {
	for i := 0; ; i++ {
		x.complaints.Lock()
		if i == len(x.spawned) {
			x.complaints.Unlock()
			return
		}
		o := x.spawned[i]
		t := x.tasks[o]
		x.complaints.Unlock()
		done := make(chan Outcome)
		go func() {
			var out Outcome
			defer func() {
				forget()
				done <- out
			}()
			capture(&out, func() (int, error) { return t.Wait(context.Background()) })
		}()
		x.Tasks[o] = <-done
	}
}

// capture runs f and stores how it ended. A panic ends here; a Goexit goes on.
func capture(out *Outcome, f func() (int, error)) {
	returned := false
	defer func() {
		if returned {
			return
		}
		*out = Outcome{Kind: endGoexit}
		if v := recover(); v != nil {
			*out = Outcome{Kind: endPanic, Panic: v}
		}
	}()
	v, err := f()
	returned = true
	*out = Outcome{Val: v}
	if err != nil {
		*out = Outcome{Kind: endError, Err: err}
	}
}
