package core

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"

	"asyncsync.dev/internal/goroutine"
	"asyncsync.dev/internal/sched"
	"asyncsync.dev/internal/spin"
)

// newWait makes visible that the calling goroutine, with the record rec, waits for
// g, in f or off the threads.
func newWait(f *Frame, rec *goroutine.Record, g *goal) openWait {
	switch {
	case f != nil:
		f.edge.hide(false)
		return openWait{f: f, edge: &f.edge}
	case g == nil:
		g = &goal{}
	default:
		g.edge.to = g
	}
	return newEdge(rec, &g.edge)
}

// newEdge makes the wait e of the calling goroutine, which is no thread,
// visible.
func newEdge(rec *goroutine.Record, e *edge) openWait {
	checkPark(rec)
	w := openWait{self: waiter(rec), edge: e}
	e.gid.Store(goroutine.ID())
	w.self.publish(e)
	return w
}

// pushWait pushes the frame of a wait for g, nil if that is not known. newWait makes
// the wait visible.
func (t *Thread) pushWait(g *goal, what string) *Frame {
	f := &Frame{}
	if g != nil {
		g.hidden.Store(true)
		f.edge.to = g
	}
	t.push(f, what)
	return f
}

// check returns an error if the wait closes a cycle. First it lends and borrows
// tokens, if a claim wants any.
func (w *openWait) check() error {
	if c := w.edge.claim(); c != nil && (c.borrow() || c.back) {
		return nil // the wait has been lent its tokens, or cannot be refused
	}
	if contended.n.Load() != 0 {
		switch {
		case w.f == nil:
			offer(w.self)
		case w.f.call != nil:
			offer(w.f.call)
		default:
			offer(w.f.thread)
		}
	}
	if !w.edge.mayWait() || w.edge.unblocked() {
		return nil
	}
	return closes(w.f, w.self, w.edge, nil)
}

// close takes the wait back.
func (w *openWait) close() {
	if w.f != nil {
		w.f.edge.hide(true) // pop waits for the readers of the edge
	}
	w.self.unpublish()
}

// Park waits until done is closed or delivers, or until ctx ends, and returns
// nil or the cause of ctx. The module does not know what the wait is for. So on
// a thread it serves the calls of code that the waiting function has started.
func Park(ctx context.Context, done <-chan struct{}, what string) error {
	own, rec := current()
	return wait(ctx, own, rec, nil, nil, done, what)
}

// wait is waitUntil with a channel, which is nil if w has a gate.
func wait(ctx context.Context, own *Thread, rec *goroutine.Record, w *goal, n *Node, done <-chan struct{}, what string) error {
	return waitUntil(ctx, own, rec, w, n, sign{done: done}, what)
}

// waitUntil waits until s has come or ctx ends. w is what the wait is for, and n the node
// to join; both are nil if that is not known. Then a thread serves what the waiting
// function has started. ctx must not be one whose task has ended: see Afterlife.
func waitUntil(ctx context.Context, own *Thread, rec *goroutine.Record, w *goal, n *Node, s sign, what string) error {
	by := submitter(ctx, rec)
	var f *Frame
	if own != nil {
		f = own.pushWait(w, what)
		defer own.pop(f) // runs after the join is dropped: then the calls in the frame are strangers' again
		if n == nil && !strict.Load() {
			n = by
		}
	}
	if n != nil && (by != nil || f != nil) {
		j := &Join{by: by, frame: f}
		up := by // the node whose waiters now wait for n too
		if by == n {
			j.by, up = nil, nil
		} else if n.within(by, 8) {
			up = nil // they already wait for n
		}
		if j.by != nil || f != nil {
			relate(own, up, func() { n.addJoin(j) })
			defer relate(own, up, func() { n.dropJoin(j) })
		}
	}
	if s.kin && f != nil && by != nil && !strict.Load() {
		defer own.servesKin(f, by)()
	}
	p := newWait(f, rec, w) // after the join: what that has made related is served
	defer p.close()
	if c := p.edge.claim(); c != nil {
		c.opens(p)
		defer c.opens(openWait{})
	}
	if err := p.check(); err != nil {
		return err
	}
	if w != nil && f == nil {
		if _, ok := w.target.(forPool); ok {
			defer closingBegins(p.edge, by)()
		}
	}
	if w != nil && w.gate != nil {
		s.gate, s.place = w.gate, &w.place
	}
	z := sleeper{own: own, frame: f, rec: rec, edge: p.edge, ctx: ctx, cancel: ctx.Done()}
	return z.wait(&s)
}

// await waits until gate is open or ctx ends. The end of n, the node of the task, group
// or region that w waits for, opens the gate. Meanwhile the calls of n, and of what n
// waits for or has started, are related to every frame that waits for the caller and,
// on a thread, to the frame of this wait. So a blocked thread can always run what it
// waits for.
//
// If gate is open when the wait ends, await returns nil, even if ctx has
// ended.
func await(ctx context.Context, w *goal, n *Node, gate *Gate) error {
	ctx = Afterlife(ctx)
	if err := Ended(ctx); err != nil {
		if gate.IsOpen() { // it may have opened before ctx ended
			return nil
		}
		return err
	}
	own, rec := current()
	w.ctx = ctx
	var done <-chan struct{}
	if own == nil && parkable(rec) != nil {
		w.gate = gate
	} else {
		done = gate.Done()
	}
	err := wait(ctx, own, rec, w, n, done, "wait")
	if err != nil && gate.IsOpen() {
		return nil
	}
	return err
}

// servesKin makes the frame f of t serve the calls of code that the waiting
// function has started. by is the node of that function. over takes that back.
func (t *Thread) servesKin(f *Frame, by *Node) (over func()) {
	j := &Join{frame: f}
	relate(t, nil, func() { by.addJoin(j) })
	return func() { relate(t, nil, func() { by.dropJoin(j) }) }
}

// self returns what waits off the threads, if that is known.
func (w *sleeper) self() *Node {
	if w.own != nil {
		return nil
	}
	return waiter(w.rec)
}

// stopped returns the channel that ends the wait when it is closed, or nil.
func (w *sleeper) stopped() <-chan struct{} {
	if w.place == nil || w.unstopped {
		return nil
	}
	return w.place.Stopped
}

// A sign ends a wait that is not for a call. It is apart from the sleeper, which is in the
// record of every call but those of tasks.
type sign struct {
	// done is closed or delivers. In a task that parks gate, if it is not nil, opens
	// instead. A sign with neither never comes.
	done  <-chan struct{}
	gate  *Gate
	place *listener                            // at gate, which keeps it for as long as the sleep lasts
	take  func(quit <-chan struct{}) (ok bool) // instead of done, on an ordinary goroutine: see Receive
	once  bool                                 // on a thread: serve what is queued, and no longer
	kin   bool                                 // on a thread: serve what its function has started, besides
	turn  *Turn                                // of a lock that done is, or leads to
}

// A wakeup says why a sleep has ended.
type wakeup int

const (
	came      wakeup = iota // what was waited for
	cancelled               // ctx has ended
	halted                  // the channel that stopped returns was closed
)

// wait returns nil when the thing waited for has come. It returns an error if
// it will not come: the call was refused, was taken back because ctx has ended
// or the loop has stopped, or was abandoned.
//
// A Goexit of a served call or of an errand may pass through wait. Even then the
// function that waits must not end before the call that it waits for has.
func (w *sleeper) wait(s *sign) (err error) {
	defer w.unwind()
	for {
		var how wakeup
		if w.own != nil {
			how = w.serve(s)
		} else {
			how = w.sleep(s)
		}
		if how == came {
			break
		}
		if err = w.interrupted(how); err != nil {
			break
		}
	}
	w.finished = true
	if w.call != nil {
		if err == nil {
			err = w.call.refusal
		}
		if w.call.parker != nil && w.own == nil {
			w.call.giveBackParker()
		}
	}
	if w.blocked && rand.Uint32()%yieldEvery == 0 {
		letOthersRun()
	}
	return err
}

// sleep sleeps until wait has to act, and says why. A thread serves instead.
//
// An ordinary goroutine that waits for a call runs the errands of the call's function
// meanwhile. The frames from here to the function of an errand stand on the stack of a
// nesting once for each level, so there are few of them, and they are small.
func (w *sleeper) sleep(s *sign) wakeup {
	c := w.call
	switch task := parkable(w.rec); {
	case task != nil && c != nil:
		return w.park(task)
	case task != nil && s.gate != nil:
		return w.parkAt(task, s)
	case task != nil:
		return w.parkFor(task, s)
	case c == nil:
		return w.receive(s)
	}
	w.blocked = true
	woke := c.woke
	for {
		if !woke {
			c.spin()
		}
		if w.parked || c.park() {
			w.parked = true
			w.edge.slept()
			if how := w.takeToken(c.parker); how != came {
				return how
			}
			w.parked = false
		}
		a := c.takeErrand()
		if a == nil {
			return came
		}
		var begun bool
		if begun, woke = a.beginElsewhere(); begun {
			woke = a.runAsync()
		}
	}
}

// takeToken receives from parker, or says why it has not. It is apart from sleep, whose
// frame stands on the stack of a nesting once for each level.
//
//go:noinline
func (w *sleeper) takeToken(parker <-chan struct{}) wakeup {
	stopped := w.stopped()
	if w.cancel == nil && stopped == nil {
		<-parker // much cheaper than a select
		return came
	}
	select {
	case <-parker:
		return came
	case <-w.cancel:
		return cancelled
	case <-stopped:
		return halted
	}
}

// park is sleep in a task that waits for a call. It runs errands, like sleep.
func (w *sleeper) park(task *sched.Task) wakeup {
	c := w.call
	for {
		// The goroutine that ends the call reads turn after it has changed
		// wait.
		c.turn.Store(task.Prepare())
		if c.wait.Load() == callerAwake {
			c.parked = task
			c.wait.CompareAndSwap(callerAwake, callerParked)
		}
		if c.wait.Load() == callerParked {
			how := w.suspend(task, nil)
			if c.wait.Load() == callerParked {
				if how == came {
					continue // woken for an earlier turn
				}
				return how
			}
		}
		a := c.takeErrand()
		if a == nil {
			return came
		}
		a.runElsewhere()
	}
}

// parkAt is sleep in a task that waits for a gate.
func (w *sleeper) parkAt(task *sched.Task, s *sign) (how wakeup) {
	for {
		if how, ended := w.parkOnce(task, s); ended {
			return how
		}
	}
}

// parkOnce parks the task once, and reports whether the sleep is over.
func (w *sleeper) parkOnce(task *sched.Task, s *sign) (how wakeup, ended bool) {
	s.place.task, s.place.number = task, task.Prepare()
	if !s.gate.listen(s.place) {
		return came, true
	}
	defer func() { // deferred, because Suspend may run code of a foreign ctx, which may panic
		if s.gate.leave(s.place) {
			how, ended = came, true
		}
	}()
	how = w.suspend(task, s)
	return how, how != came
}

// parkFor is sleep in a task that waits for something else.
func (w *sleeper) parkFor(task *sched.Task, s *sign) wakeup {
	task.Prepare()
	return w.suspend(task, s)
}

// suspend parks the task, which has prepared for it, and says which of the
// channels has ended that; came if none of them has.
func (w *sleeper) suspend(task *sched.Task, s *sign) wakeup {
	w.edge.slept()
	ctx := w.ctx
	if w.cancel == nil {
		ctx = context.Background()
	}
	done, stopped := (<-chan struct{})(nil), w.stopped() // else every sleeper would be allocated
	if s != nil {
		done = s.done
	}
	if done == nil && stopped == nil {
		if task.Suspend(ctx) {
			return cancelled
		}
		return came
	}
	// Another goroutine listens to the channels, and wakes the task.
	heard, quit := make(chan wakeup, 1), make(chan struct{})
	wake := task.Waker()
	go func() {
		select {
		case <-done:
			heard <- came
		case <-stopped:
			heard <- halted
		case <-quit:
			return
		}
		wake()
	}()
	defer close(quit)
	ended := task.Suspend(ctx)
	select {
	case how := <-heard:
		return how
	default:
	}
	if ended {
		return cancelled
	}
	return came
}

// receive is sleep on an ordinary goroutine that waits for something else.
func (w *sleeper) receive(s *sign) wakeup {
	w.blocked = true
	w.edge.slept()
	if take := s.take; take != nil {
		if take(w.cancel) {
			return came
		}
		return cancelled
	}
	select {
	case <-s.done:
		return came
	case <-w.stopped():
		return halted
	case <-w.cancel:
		return cancelled
	}
}

// interrupted is called if ctx has ended or the loop has stopped, as how says. It returns
// the error for the caller, or nil if the caller must go on waiting.
func (w *sleeper) interrupted(how wakeup) error {
	if how == halted {
		w.unstopped = true
		return w.giveUp(w.place.Err, false)
	}
	w.cancel = nil
	return w.giveUp(Cause(w.ctx), w.call != nil && w.call.abandon)
}

// giveUp takes the call back, or abandons it if it has begun and abandon is true.
// It returns the error for the caller, or nil if the caller must go on waiting.
func (w *sleeper) giveUp(why error, abandon bool) error {
	c := w.call
	if c == nil || c.withdraw(why) {
		return why
	}
	from := uint32(callerAwake)
	if w.own == nil {
		from = callerParked
	}
	if abandon && c.begunOrForbid() && c.walkAway(from) {
		count.abandoned.Add(1)
		return &abandonedError{why}
	}
	return nil
}

// unwind is called when wait is left. If a Goexit passes through, it takes back a call
// that has not begun, and waits for one that has.
func (w *sleeper) unwind() {
	c := w.call
	if w.finished || c == nil {
		return
	}
	why := context.Canceled
	if w.giveUp(why, false) == nil {
		w.outlast()
		why = c.refusal
	}
	if why != nil && c.watched != nil {
		c.tellRefused(w.ctx, why)
	}
}

// outlast waits for the end of the call, and nothing else ends the wait. On a
// thread one more Goexit can cut it short; then only the Abandoned hook learns
// how the call ends.
func (w *sleeper) outlast() {
	c := w.call
	ended := false
	defer func() {
		switch {
		case ended:
		case w.own == nil:
			w.outlast() // another Goexit, in another errand
		default:
			c.walkAway(callerAwake)
			if c.lender != nil {
				// Its goroutine is not free for the errands of functions
				// deferred below.
				c.lender.bound = true
			}
		}
	}()
	w.cancel, w.unstopped = nil, true
	if w.own != nil {
		w.serve(nil)
	} else {
		w.sleep(nil)
	}
	ended = true
	if w.own != nil {
		w.own.record.Values = c.values
	} else {
		restore(record(), c.values)
	}
}

// NewBell returns a bell that the calling goroutine can wait for.
func NewBell() *Bell {
	b := &Bell{}
	b.init(current())
	return b
}

// init makes b a bell of the calling goroutine.
func (b *Bell) init(own *Thread, rec *goroutine.Record) {
	if own != nil || parkable(rec) == nil {
		b.done = b.gate.Done()
	}
}

// Ring ends the wait, also if that has not begun. It may be called from anywhere,
// any number of times, and runs no code of the user's.
func (b *Bell) Ring() { b.gate.Open() }

// Rung reports whether Ring was called.
func (b *Bell) Rung() bool { return b.gate.IsOpen() }

// Wait waits until the bell is rung, or ctx ends, whose cause it returns; if both
// happened it may return either. Like [Park] it does not know what it waits for.
// It is for the goroutine that has made the bell. what names the wait in reports.
func (b *Bell) Wait(ctx context.Context, what string) error {
	if b.Rung() {
		return nil
	}
	own, rec := current()
	return waitUntil(ctx, own, rec, nil, nil, b.sign(), what)
}

// WaitBefore is Wait for a caller that takes the lock through t afterwards. t may be
// put in line during the wait.
func (b *Bell) WaitBefore(ctx context.Context, t *Turn, what string) error {
	if b.Rung() {
		return nil
	}
	own, rec := current()
	s := b.sign()
	s.turn = t
	return waitUntil(ctx, own, rec, nil, nil, s, what)
}

// sign returns the sign that b is rung.
func (b *Bell) sign() sign { return sign{done: b.done, gate: &b.gate, place: &b.place} }

// Receive waits until take, which receives from a channel, has received something,
// or until ctx ends. It returns nil, or the cause of ctx if nothing was received.
// take must return soon after quit is closed, and report whether it has received
// something.
//
// On an ordinary goroutine take is called there; else on another one, while the
// thread serves or the task is parked.
func Receive(ctx context.Context, take func(quit <-chan struct{}) bool, what string) error {
	own, rec := current()
	if own == nil && parkable(rec) == nil {
		return waitUntil(ctx, own, rec, nil, nil, sign{take: take}, what)
	}
	b := &Bell{}
	b.init(own, rec)
	quit, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		if take(quit) {
			b.Ring()
		}
	}()
	stop := sync.OnceFunc(func() {
		close(quit)
		<-over // at once
	})
	defer stop() // also when a Goexit passes through
	err := waitUntil(ctx, own, rec, nil, nil, b.sign(), what)
	if stop(); b.Rung() {
		return nil // it may have come together with the end of ctx
	}
	return err
}

// Yield lets others run. In a task of a thread loop these are all tasks and
// functions that are ready there. On a thread they are the queued calls that may
// run on top of the caller. On an ordinary goroutine the Go scheduler chooses them.
func Yield(ctx context.Context) {
	own, rec := current()
	if own != nil {
		// Nothing but the serving can end this wait.
		_ = waitUntil(context.WithoutCancel(ctx), own, rec, nil, nil, sign{once: true}, "yield")
		return
	}
	if task := parkable(rec); task != nil {
		task.Yield()
		return
	}
	runtime.Gosched()
}

// serveOnce runs the calls that are queued already and that the frame on top
// serves.
func (t *Thread) serveOnce() {
	t.lock()
	last := t.seq
	for t.due() && t.dueSeq() <= last {
		c := t.next()
		t.mu.Unlock()
		t.exec(c)
		t.lock()
	}
	t.mu.Unlock()
}

// dueSeq returns the number of the call that next would take, of which there is
// one. t.mu is held.
func (t *Thread) dueSeq() uint64 {
	box, main := t.top.box.head, t.main.head
	switch {
	case box == nil:
		return main.seq
	case t.everybody() && main != nil:
		return min(box.seq, main.seq)
	}
	return box.seq
}

// unblocked reports whether e waits for a call on a thread, and no wait keeps that
// call from ending. The caller holds no lock.
func (e *edge) unblocked() bool {
	c := e.call()
	if c == nil || c.thread.Load() == nil {
		return false
	}
	t := c.lock()
	defer t.mu.Unlock()
	_, _, blocked := t.needs(c)
	return !blocked
}

// runsInside publishes that the function which runs as n does so inside of the call
// on top of the thread t: it waits for what that call waits for. end takes that
// back.
func (n *Node) runsInside(t *Thread) (end func()) {
	if t.run != nil { // only t's own goroutine changes run
		n.publish(&edge{to: forTop{t.run}})
	}
	return n.unpublish
}

// loops is set once a loop has been used. Until then no code needs to look
// for loops.
var loops atomic.Bool

// UseLoops is called before the first function runs on a loop.
func UseLoops() {
	if !loops.Load() {
		loops.Store(true)
	}
}

// OnLoop reports whether the calling goroutine runs a task of a thread loop, which
// parks where it waits, or a function posted to a loop, which blocks it.
func OnLoop() (parks, blocks bool) {
	if !loops.Load() {
		return false, false
	}
	rec := goroutine.Current()
	if rec == nil || rec.Task == nil || rec.Owner != nil {
		return false, false
	}
	if t := sched.Of(rec); t != nil {
		return t.MayWait(), !t.MayWait()
	}
	_, blocks = rec.Task.(interface{ BlocksLoop() })
	return false, blocks
}

// parkable returns the task of a thread loop that the goroutine of rec runs, if it
// can be parked; rec may be nil. A task that has become a thread cannot: its OS
// thread is locked once more than its coroutine was made with.
func parkable(rec *goroutine.Record) *sched.Task {
	if rec == nil || rec.Task == nil || rec.Owner != nil {
		return nil
	}
	if t := sched.Of(rec); t != nil && t.MayWait() {
		return t
	}
	return nil
}

// checkPark panics if the goroutine of rec runs a task that cannot be suspended now.
// It comes before anything is begun that would have to be waited for.
func checkPark(rec *goroutine.Record) {
	if t := parkable(rec); t != nil {
		t.Check()
	}
}

// withdraw keeps the function of c from beginning, and reports whether it has
// done so. why is what c's caller is told.
func (c *Call) withdraw(why error) bool {
	if c.thread.Load() != nil {
		return c.revoke(why)
	}
	if !c.forbid() {
		return false
	}
	c.node.End()
	count.cancelled.Add(1)
	return true
}

// begunOrForbid reports whether c's function has begun. If it has not, it never will.
func (c *Call) begunOrForbid() bool { return !c.forbid() && c.hasBegun() }

// LeaveBehind is for the caller of a Guest that leaves. It reports whether the function
// has begun. If it has not, it never will, and Over may never be called.
func (f *FullCall) LeaveBehind() (begun bool) { return f.begunOrForbid() }

// park notes that the caller of c is about to sleep. It reports false if the
// caller has something to do instead.
func (c *Call) park() bool {
	if c.wait.Load() != callerAwake {
		return false
	}
	if c.parker == nil {
		c.parker = c.thread.Load().parker()
	}
	return c.wait.CompareAndSwap(callerAwake, callerParked)
}

// parker returns a channel for a caller to sleep on.
//
// Channels are pooled within one lease and never beyond: one made inside a
// synctest bubble must not be used outside, and a lease is on one side.
func (t *Thread) parker() chan struct{} {
	t.parkMu.Lock()
	defer t.parkMu.Unlock()
	n := len(t.parkers)
	if n == 0 {
		return make(chan struct{}, 1)
	}
	ch := t.parkers[n-1]
	t.parkers = t.parkers[:n-1]
	return ch
}

// maxParkers bounds what a lease keeps of a burst of callers.
const maxParkers = 256

// giveBackParker gives back what parker has returned. Nobody sends to it any more.
func (c *Call) giveBackParker() {
	t := c.thread.Load()
	if t == nil { // its function ran off the threads
		return
	}
	t.parkMu.Lock()
	if t.parkers == nil {
		t.parkers = t.few[:0]
	}
	if len(t.parkers) < maxParkers {
		t.parkers = append(t.parkers, c.parker)
	}
	t.parkMu.Unlock()
}

// spin spins until the thread changes wait, if spinning is on for the thread. It is no
// use for a caller who has just woken the thread.
func (c *Call) spin() {
	t := c.thread.Load()
	if t == nil || !t.spin.On() {
		return
	}
	if !spin.Until(&c.wait, callerAwake, t.spin.Patience()) {
		t.spin.CallerMissed()
	}
}

// yieldEvery is the number of waits after which a goroutine calls letOthersRun, on
// average. It is left to chance, because all waits would have to share a counter.
const yieldEvery = 128

// letOthersRun lets other goroutines run where there is one processor. A caller and the
// thread or goroutine that runs its function hand that processor to each other directly,
// past the run queue. Without this, other goroutines would starve: the runtime's
// preemption does not help, since each of the two runs for only a microsecond at a time.
func letOthersRun() {
	if spin.Processors() == 1 {
		runtime.Gosched()
	}
}
