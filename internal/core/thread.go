package core

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"asyncsync.dev/internal/goroutine"
	"asyncsync.dev/internal/spin"
)

// Policy says which calls a thread runs while the function on it is blocked in
// a wait of this library.
type Policy uint8

const (
	Related Policy = iota // those that the wait may depend on
	All                   // every one, in the order of arrival
	None                  // not any
)

// String returns the name of the policy.
func (p Policy) String() string {
	switch p {
	case Related:
		return "Related"
	case All:
		return "All"
	case None:
		return "None"
	}
	return "invalid"
}

// A Thread is what runs calls one at a time: a queue, a stack of frames, and
// the goroutine that they belong to. It lives as long as one lease of that
// goroutine: a context from its first call to its close, an adopted caller for
// the length of one AsyncToSync.
//
// A Thread never refers to a Scope but through calls that are queued or run,
// so that a context nobody holds can be collected.
type Thread struct {
	identity

	// taint asks the pool to destroy the OS thread when it is given back.
	taint atomic.Bool

	runner

	_ [64]byte // from here on both sides write

	// mu guards what follows, and the calls and frames of the thread. The
	// thread's own goroutine, which alone changes run, may read run without it.
	// Node.mu is locked under it, and live for a thread that is not listed
	// yet; no callback runs and, but for Scope.enter, nobody is woken.
	mu sync.Mutex
	queue
	nesting
	tenure
	crowd   crowd
	calls   uint64    // that have ended, inline ones not counted
	closers []*closer // who wait for the end of its contexts

	_ [64]byte

	// signal changes after everything that the thread could be looking for.
	signal atomic.Uint32

	_ [60]byte

	spin spin.Spin // says itself who may touch what
	pace

	raised *Panic        // see Ending.Raise; of the thread's goroutine only
	inline atomic.Uint64 // calls that ran inline; written by the thread's goroutine only

	_ [64]byte

	parking

	remains
	marks   []*Mark // of queued calls; guarded by mu
	lease   lease
	cleanup runtime.Cleanup // guarded by the mu of the scope that the thread was made for
}

// An identity is what a thread is from the start. It is fixed before the thread is
// shared.
type identity struct {
	name     string
	id       uint64  // orders the locks of threads: see relate
	made     uintptr // where its context was made, for reports; 0 if that is not known
	policy   Policy
	pool     *Pool  // nil for a thread with a worker of its own
	unpinned bool   // exclusive, but not bound to an OS thread
	adopted  bool   // the goroutine is its user's, not ours
	home     *Scope // of an adopted thread: that of what runs there in no call
	own      *maker // of an adopted thread: whose goroutine has executors; or nil
}

// A runner is the goroutine that runs the calls of a thread.
type runner struct {
	// gid is that goroutine, 0 while there is none; tid its OS thread.
	gid, tid atomic.Int64

	first atomic.Bool // adopted, on the first OS thread of the process

	// Set when the goroutine is found, before anybody can see Thread.parked.
	wake   chan struct{} // 1-buffered
	record *goroutine.Record
}

// A queue is the calls that a thread has accepted and not begun. Those of a wait are
// in the box of its frame. Guarded by the mu of the thread.
type queue struct {
	main    list // calls of strangers, and of everybody while no frame stands
	posts   list // posted to executors of the goroutine, for a RunUntil to come
	seq     uint64
	waiting int // calls in main and in all boxes
}

// A nesting is the calls that a thread runs, and their waits, one on top of the other.
// Guarded by the mu of the thread.
type nesting struct {
	top *Frame // the frame that serves
	run *Call  // the call on top
}

// A tenure is how a thread comes by its goroutine, and loses it, and whether that sleeps. Guarded by the mu of
// the thread.
type tenure struct {
	worker *worker // nil before the pool has given one, and after the lease
	asked  bool    // a worker has been asked for
	held   bool    // a caller's goroutine is the thread: see hold
	ending bool    // no scope uses it any more: leave when there is nothing to do
	over   bool    // the lease is over; nothing is accepted
	parked bool    // the goroutine sleeps; whoever clears it sends one token to wake
}

// A pace is what the goroutine of a thread has learned about looking out. It is of
// that goroutine only.
type pace struct {
	woke bool   // its last caller slept
	spun bool   // it has spun in vain since it last found something
	seen uint32 // what signal was when it last took a call
}

// A parking is the channels for callers to sleep on; never used beyond the lease.
type parking struct {
	parkMu  sync.Mutex // a leaf lock, apart from mu so as not to add to its load
	parkers []chan struct{}
	few     [2]chan struct{} // backs parkers
}

// Remains are what a thread without a worker may leave for one. Guarded by the mu of
// the thread.
type remains struct {
	listed     bool            // it is among the live ones, or was
	workerOnly bool            // it is not to be held any more
	critical   goroutine.Aside // what a holder has left for the worker
}

// A Frame is a wait of the library made on a thread.
type Frame struct {
	thread *Thread
	below  *Frame
	level  int
	call   *Call  // what ran when the wait began
	what   string // the kind of wait, for reports, where edge does not say it
	edge   edge   // the wait

	// Guarded by thread.mu.
	box  list
	live bool
	done bool
	open bool // it serves everybody, where nothing is in the way: see Thread.everybody
}

// complete ends the wait, and reports whether the thread slept.
func (f *Frame) complete() (woke bool) {
	t := f.thread
	t.lock()
	f.done = true
	wake := t.top == f && t.rouse()
	t.mu.Unlock()
	t.tell(wake)
	return wake
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

// boxFor returns the list that c belongs in. t.mu is held.
func (t *Thread) boxFor(c *Call) *list {
	if f := c.frame; f != nil && f.thread == t && f.live {
		// Its caller is the thread: what it had called has ended meanwhile,
		// and the default thread has taken its place.
		return &f.box
	}
	f := c.pin
	if f != nil && !f.live {
		f = nil
	}
	if t.related() || f != nil {
		if g := t.frameFor(c.by); g != nil && (f == nil || g.level > f.level) {
			f = g
		}
	}
	if f != nil {
		return &f.box
	}
	if t.own != nil && c.pin == nil {
		if _, ok := c.body.(*posted); ok {
			return &t.posts
		}
	}
	return &t.main
}

// serves reports whether the thread, in the frame or at the bottom where it is
// now, runs what lies in l. t.mu is held.
func (t *Thread) serves(l *list) bool {
	switch {
	case t.top == nil:
		return l == &t.main
	case l == &t.top.box:
		return true
	default:
		return t.everybody() && l == &t.main
	}
}

// next takes the call to run now, or nil. t.mu is held.
func (t *Thread) next() *Call {
	var c *Call
	switch {
	case t.top == nil:
		c = t.main.head
	case t.top.box.head != nil:
		c = t.top.box.head
		if t.everybody() && t.main.head != nil && t.main.head.seq < c.seq {
			c = t.main.head
		}
	case t.everybody():
		c = t.main.head
	}
	if c == nil {
		return nil
	}
	t.unlist(c)
	return t.take(c)
}

// number gives c its place in the order of the calls to t. t.mu is held.
func (t *Thread) number(c *Call) {
	t.seq++
	c.seq = t.seq
}

// put queues c in l, a list of t. It is the only way into a queue; next and remove
// are the only ways out. t.mu is held.
func (t *Thread) put(c *Call, l *list) {
	t.number(c)
	l.push(c)
	t.waiting++
}

// take puts c on top of the stack. t.mu is held.
func (t *Thread) take(c *Call) *Call {
	c.outer, t.run = t.run, c
	t.crowd.batch++
	t.seen = t.signal.Load()
	return c
}

// rouse says that there is something to do, and reports whether the thread
// sleeps. The caller must tell it once mu, which is held, is not.
func (t *Thread) rouse() bool {
	was := t.parked
	t.parked = false
	return was
}

// tell sends a thread that sleeps its token, and one that spins a sign. mu is
// not held: who spins would run into it.
func (t *Thread) tell(sleeps bool) {
	if sleeps {
		t.wake <- struct{}{}
	} else {
		t.signal.Add(1)
	}
}

// lock locks mu. Where two processors hand calls to each other it is often held
// by the other side for some nanoseconds, much less than the mutex's own
// spinning takes.
func (t *Thread) lock() {
	for range 64 {
		if t.mu.TryLock() {
			return
		}
	}
	t.mu.Lock()
}

// errOver tells a submitter to look for another thread.
var errOver = errors.New("over")

// submit queues c. Its error says why not: errOver that another thread is to be
// asked, all others are the caller's.
func (t *Thread) submit(c *Call) error {
	t.lock()
	if t.over || t.ending && c.pin == nil {
		t.mu.Unlock()
		return errOver
	}
	c.thread.Store(t)
	box := t.boxFor(c)
	if e := c.scope.root.cfg.Own; e != nil && (box == &t.main || t.run == nil) && e.shut.Load() {
		t.mu.Unlock()
		return e.gone()
	}
	related := box != &t.main || !t.related() && t.frameFor(c.by) != nil
	if n := c.scope.limit(); n > 0 && !related && t.main.len >= n {
		t.mu.Unlock()
		return ErrQueueFull
	}
	if c.try && !related && !t.atRest() {
		t.mu.Unlock()
		return errNotFree
	}
	if err := c.scope.enter(related); err != nil {
		t.mu.Unlock()
		return err
	}
	c.timed = !related && t.timed(c)
	t.put(c, box)
	serves := t.serves(box)
	c.late = !serves && t.blocks(box)
	wake := serves && t.rouse()
	ask := t.worker == nil && !t.asked && !t.adopted && !t.held
	if ask {
		t.asked = true
	}
	gather := wake && c.frame == nil && c.life == nil && c.pin == nil && t.crowd.expected()
	c.woke = wake || ask
	c.lined = t.pool != nil && t.worker == nil
	c.yield = t.seq%yieldEvery == 0
	idle := t.own != nil && box == &t.main && t.top == nil && t.run == nil
	t.mu.Unlock()
	if gather {
		t.gather()
	}
	if ask {
		t.ask()
	} else {
		t.tell(wake)
	}
	if idle {
		t.own.notify()
	}
	return nil
}

// atRest reports whether nothing runs on t, blocked or not, and nothing is
// queued. t.mu is held.
func (t *Thread) atRest() bool { return t.run == nil && t.top == nil && t.waiting == 0 }

// A crowd is many callers of one thread who are ready to run on this processor.
// The first of them would wake the thread, which goes before them in the run
// queue, finds one call, and sleeps again: two kernel switches for each. Where
// that is likely the first lets the others call before it wakes the thread, and
// all share one wake. Guarded by the mu of the thread.
type crowd struct {
	batch  int  // calls since the thread has slept
	likely bool // the last time it was awake it ran several
	spare  int  // wakes that are not to be put off, because that has taken long
}

// expected reports whether a wake is to be put off.
func (c *crowd) expected() bool {
	if c.spare > 0 {
		c.spare--
		return false
	}
	return c.likely
}

// slept says that the thread has nothing to do.
func (c *crowd) slept() {
	c.likely = c.batch > 1
	c.batch = 0
}

// A wake is not put off for crowdSpare wakes after it has taken crowdLong to come
// back to it: there are others in the run queue who do not call.
const (
	crowdLong  = 500 * time.Microsecond
	crowdSpare = 4096
)

// gather lets the other callers run. mu is not held, and the caller is no thread.
func (t *Thread) gather() {
	start := time.Now()
	runtime.Gosched()
	if time.Since(start) > crowdLong {
		t.lock()
		t.crowd.spare = crowdSpare
		t.mu.Unlock()
	}
}

// revoke takes c out of its queue. It reports false if c runs or has ended.
func (c *Call) revoke(why error) bool {
	t := c.lock()
	if !c.isQueued() {
		t.mu.Unlock()
		return false
	}
	t.remove(c, why)
	t.mu.Unlock()
	t.removed(c)
	count.cancelled.Add(1)
	return true
}

// remove takes c, which is queued, out of its list: it will not run. The caller
// must call removed when t.mu, which is held, is not.
func (t *Thread) remove(c *Call, why error) {
	t.unlist(c)
	c.stage.Store(refused)
	c.refusal = why
}

// unlist takes c out of its list. t.mu is held.
func (t *Thread) unlist(c *Call) {
	c.list.remove(c)
	t.waiting--
	if t.marks != nil {
		t.unmark(c)
	}
}

// removed closes the account of c, which remove has taken out. A thread that
// nobody waits for any more leaves the line of its pool. No lock is held.
func (t *Thread) removed(c *Call) {
	t.mu.Lock()
	withdraw := t.worker == nil && t.asked && t.main.len == 0
	t.mu.Unlock()
	if withdraw {
		t.withdraw()
	}
	c.scope.leave()
}

// exec runs c, which next has taken.
func (t *Thread) exec(c *Call) {
	if l := c.life; l != nil {
		if l.layer == nil {
			ctx := l.open(nil, c.scope)
			t.mu.Lock()
			c.ctx = ctx // others look at it under mu
			t.mu.Unlock()
		}
		l.taken()
	}
	err := Ended(c.ctx)
	if err == nil && !c.begin() {
		err = Cause(c.ctx)
	}
	if err != nil {
		c.forbid()
		// The ctx ended while c was queued and its caller has not come to
		// take it out: it must not run all the same.
		t.mu.Lock()
		t.run, c.outer = c.outer, nil
		c.refusal = err
		t.mu.Unlock()
		count.cancelled.Add(1)
		c.scope.leave()
		c.turnAway()
		return
	}
	rec := t.record
	values, node := rec.Values, rec.Node
	rec.Values, rec.Node = c.values, c.node
	t.raised, t.spun = nil, false
	c.node.Start()
	told := false
	defer func() {
		if !told {
			c.ending = recovered(recover(), nil)
		}
		t.raised = nil
		c.node.End()
		if rec.Values != c.values {
			c.values = rec.Values
		}
		rec.Values, rec.Node = values, node
		t.retire(c)
	}()
	c.run(t, &t.raised, nil, t.leaseOf(c.scope).unstarted())
	told = true
}

// retire takes the ended call off the stack, and tells its caller.
func (t *Thread) retire(c *Call) {
	t.lock()
	t.run, c.outer = c.outer, nil
	t.calls++
	if c.ending.Goexit && t.top != nil {
		t.top.edge.hide(true) // the wait that c was served in ends with it
	}
	t.mu.Unlock()
	c.ending.count()
	// The account is closed before the caller wakes: a caller that closes the
	// context next finds it idle.
	c.scope.leave()
	if c.ending.Goexit && c.wait.Load() != callerGone {
		// The frames of the functions that have ended so stay on the stack,
		// below what runs from here on, and the record with them: it must not
		// keep the scope.
		c.scope, c.ctx, c.node, c.by = nil, nil, nil, nil
		if b, ok := c.body.(interface{ Forget() }); ok {
			b.Forget()
		}
	}
	t.spin.Ended()
	t.woke = c.finish()
}

// push puts f on top of t, for the call that now runs there.
func (t *Thread) push(f *Frame, what string) {
	t.lock()
	t.pushLocked(f, what)
	t.mu.Unlock()
}

// pushLocked is push for one who holds t.mu.
func (t *Thread) pushLocked(f *Frame, what string) {
	f.thread, f.what = t, what
	f.below = t.top
	if f.below != nil {
		f.level = f.below.level + 1
	}
	f.call = t.run
	if t.wake == nil {
		t.wake = make(chan struct{}, 1) // it is held
	}
	f.live = true
	t.top = f
}

// pop takes f off, and hands its calls down: to the nearest frame below that
// waits for them too, else to the thread's own queue.
func (t *Thread) pop(f *Frame) {
	t.lock()
	f.live = false
	t.top = f.below
	left := t.resort(&f.box)
	// Whoever keeps a node of below keeps f, but not the frames that it stood on.
	call := f.call
	f.below, f.call = nil, nil
	t.mu.Unlock()
	awaitReaders()
	for _, m := range left {
		m.recheck()
	}
	if loans.n.Load() != 0 {
		t.reclaim(call)
	}
	if t.own != nil {
		t.rests()
	}
}

// reclaim is the same for a wait of the function that runs in c, or, if c is
// nil, of the one that the goroutine of t has become a thread for.
func (t *Thread) reclaim(c *Call) {
	if c != nil {
		reclaim(c)
		return
	}
	reclaim(t)
	if n := waiter(t.record); n != nil {
		reclaim(n)
	}
}

// serve runs calls on the thread until f is completed, done is closed or
// delivers, or cancel is closed. It reports whether cancel ended it. It looks
// at the channels between any two calls: an endless supply of work does not
// keep the wait from ending.
//
// While it runs a call on top of a wait for tokens, that claim stands aside.
// So does turn, if it is not nil. If that has the lock, done is about to be closed.
func (t *Thread) serve(f *Frame, turn *Turn, done, cancel <-chan struct{}) (cancelled bool) {
	claim := f.edge.claim()
	for {
		if done != nil || cancel != nil {
			select {
			case <-done:
				return false
			case <-cancel:
				return true
			default:
			}
		}
		t.lock()
		if f.done {
			t.mu.Unlock()
			return false
		}
		if claim != nil && !claim.stepAside() {
			t.mu.Unlock()
			return false
		}
		if turn != nil && t.due() && !turn.stepAside() {
			t.mu.Unlock()
			<-done
			return false
		}
		if c := t.next(); c != nil {
			t.mu.Unlock()
			t.exec(c)
			if turn != nil {
				turn.stepBack()
			}
			if claim != nil && claim.stepBack() {
				claim.borrow()
			}
			t.spinInStep()
			continue
		}
		if claim != nil && claim.stepBack() {
			t.mu.Unlock()
			claim.borrow()
			continue
		}
		if t.spinFirst() {
			continue
		}
		t.parked = true
		t.crowd.slept()
		t.mu.Unlock()
		f.edge.slept()
		if done == nil && cancel == nil {
			<-t.wake
			continue
		}
		select {
		case <-t.wake:
			continue
		case <-done:
			t.unpark()
			return false
		case <-cancel:
			t.unpark()
			return true
		}
	}
}

// spinInStep spins after a call, while the thread and its callers are in step. mu is not
// held.
func (t *Thread) spinInStep() {
	t.lock()
	if t.woke || !t.spin.On() || t.signal.Load() != t.seen || t.due() {
		t.mu.Unlock()
		return
	}
	t.spinFor(t.seen, t.spin.Patience())
}

// due reports whether there is a call in a list that the thread serves. t.mu is
// held.
func (t *Thread) due() bool {
	if t.top == nil {
		return t.main.head != nil
	}
	return t.top.box.head != nil || t.everybody() && t.main.head != nil
}

// spinFor spins until the signal is not old. t.mu is held, and released.
func (t *Thread) spinFor(old uint32, budget int64) {
	t.mu.Unlock()
	if spin.Until(&t.signal, old, budget) {
		t.spin.Hit()
	} else {
		t.spin.Miss()
		t.spun = true
	}
}

// spinFirst spins for something to do, if that is likely to come soon. t.mu is held. If
// spinFirst reports true it has released mu, and the caller must look again, whatever
// came of it: the signal changes after the thing itself, and only a look under mu right
// before parking is sure to see that.
func (t *Thread) spinFirst() bool {
	if t.spun {
		t.spun = false
		return false
	}
	budget := t.spin.Budget(t.woke)
	t.woke = false
	if budget == 0 {
		return false
	}
	t.spinFor(t.signal.Load(), budget)
	return true
}

// unpark takes back the sign that the thread sleeps. Where somebody was faster
// their token is under way, and is taken with it.
func (t *Thread) unpark() {
	t.mu.Lock()
	was := t.parked
	t.parked = false
	t.mu.Unlock()
	if !was {
		<-t.wake
	}
}

// relate makes a change to who waits for whom, and puts the calls that are
// queued on the threads concerned where they belong after it. To a submitter it
// all happens at once: a call that came after the change must not overtake one
// that came before.
//
// The threads are own, which may be nil, and those of all frames that wait for
// by. They are looked up under the same lock as the change: of two joins that
// make one chain, the second must find the threads that the first has added.
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

// rearrange is the part of relate that holds locks. It returns whom to tell, and
// the calls that are not served any more.
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

// resortAll puts all queued calls where they belong. It returns those that the
// thread now serves later than before. t.mu is held.
func (t *Thread) resortAll() (left []*Mark) {
	t.resort(&t.main)
	t.resort(&t.posts)
	for f := t.top; f != nil; f = f.below {
		left = append(left, t.resort(&f.box)...)
	}
	return left
}

// relations serializes relate; it nests outside Thread.mu.
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

// resort moves the calls of l that belong elsewhere. It returns those that might
// wait, where they are now, for something that waits for them: a cycle may close
// so without a new wait. t.mu is held.
func (t *Thread) resort(l *list) (left []*Mark) {
	for c := l.head; c != nil; {
		next := c.next
		if to := t.boxFor(c); to != l {
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

// drain runs what is left in the queue of a thread that ends, and closes it.
// It goes on after a Goexit: nothing accepted is lost.
func (t *Thread) drain() {
	finished := false
	defer func() {
		if !finished {
			t.drain()
		}
	}()
	for {
		t.mu.Lock()
		c := t.next()
		if c == nil {
			t.over = true
			t.mu.Unlock()
			finished = true
			return
		}
		t.mu.Unlock()
		t.exec(c)
	}
}

// current returns the thread whose goroutine calls, and its record; both may
// be nil.
func current() (*Thread, *goroutine.Record) {
	gid := goroutine.ID()
	rec := goroutine.Of(gid)
	if rec != nil {
		if t, ok := rec.Owner.(*Thread); ok {
			return t, rec
		}
	}
	if t := lastsHere(gid); t != nil {
		return t, t.record
	}
	if t := heldBy(gid); t != nil {
		rec = goroutine.Ensure()
		rec.Owner, rec.Node = t, t.run.node
		t.record = rec
		return t, rec
	}
	return nil, rec
}

// mine reports whether the caller's goroutine is the thread.
func (t *Thread) mine() bool { return t.gid.Load() == goroutine.ID() }

// label is what reports call t; a nil t is no thread.
func (t *Thread) label() string {
	if t == nil {
		return "goroutine"
	}
	if t.name != "" {
		return t.name
	}
	return "thread"
}

// Ended returns the cause of ctx's end, or nil.
func Ended(ctx context.Context) error {
	if ctx.Done() == nil || ctx.Err() == nil {
		return nil
	}
	return Cause(ctx)
}

// Cause returns the cause of the end of ctx, which has ended: never nil, though
// a foreign ctx may have closed Done and say nothing of it.
func Cause(ctx context.Context) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return context.Canceled
}
