package core

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/trace"
	"time"

	"asyncsync.dev/internal/cycle"
	"asyncsync.dev/internal/ending"
	"asyncsync.dev/internal/goroutine"
	"asyncsync.dev/internal/sched"
	"asyncsync.dev/internal/spin"
)

// This file follows a call from top to bottom: from Do through the queue to the
// function on its thread, and back to the caller.

// Do runs body on the thread of s, waits for it, and returns nil. If the call
// was not run, or was abandoned, Do returns an error. It must not be called
// on the thread of s.
//
// If Do returns nil, the results are in body, and the caller must look at
// f.Ending. After an error f must not be used again.
func (s *Scope) Do(ctx context.Context, f *FullCall, body Body, o *Options) error {
	ctx = Afterlife(ctx)
	if err := Ended(ctx); err != nil {
		count.cancelled.Add(1)
		return err
	}
	c := f.whole()
	own, rec := current()
	err := s.calling(ctx, rec, c, body, o)
	switch {
	case err != nil:
	case own != nil:
		err = s.doFromThread(f.waiting(ctx, own, rec))
	default:
		// A loop does not run sync code: it would stand still.
		task := parkable(rec)
		if task != nil {
			task.Check()
		}
		cx := callCtx(ctx, s)
		c.ctx, c.node = cx, cx.node
		if c.watched != nil {
			c.ctx = c.watched.carryOwn(cx)
		}
		if s.root.cfg.Unpinned && task == nil && !c.abandon && s.hold(c, rec) {
			return nil
		}
		if task != nil {
			err = s.refuseBelow(task, c)
		}
		if err == nil {
			err = s.doFromGoroutine(f.waiting(ctx, nil, rec))
		}
	}
	if err == nil {
		return nil
	}
	err = s.named(err, c.title())
	if c.watched != nil {
		c.tellRefused(ctx, err)
	}
	return err
}

// refuseBelow refuses c if task, its caller, belongs to a loop that runs in a function
// on the thread of s. Such a call could never run: the thread serves nothing until the
// loop has ended, and the loop waits for its tasks.
func (s *Scope) refuseBelow(task *sched.Task, c *Call) error {
	t, _ := task.Loop().Owner().(*Thread)
	if t == nil || t != s.root.thread.Load() && (s.root.cfg.Own == nil || t != s.root.cfg.Own.threadNow()) {
		return nil
	}
	return &DeadlockError{
		Message: fmt.Sprintf("call of %s to %s: the loop of the task that calls runs in a function on that thread, which serves nobody before the loop has ended, and the loop waits for the task", c.Name(), t.called()),
		Page:    cycle.PageSelfWait,
	}
}

// calling records in c who calls and with which options, and tells the hooks. rec is
// the record of the calling goroutine. If calling returns an error, the call must not
// be made.
func (s *Scope) calling(ctx context.Context, rec *goroutine.Record, c *Call, body Body, o *Options) error {
	c.body, c.scope, c.name = body, s, o.Name
	if c.pc == 0 {
		c.pc = o.PC
	}
	c.by, c.loose = submitterOf(ctx, rec)
	c.note(o)
	if rec != nil {
		c.values = rec.Values
	}
	if o.Interrupt != nil {
		c.stop = newInterrupt(o)
	}
	if hooking.Load() != 0 && hooked(s) {
		c.tellQueued(ctx)
	}
	if repeats.busy.Load() != 0 {
		return s.refuseInterrupt(rec, c)
	}
	return nil
}

// doFromGoroutine is Do for an ordinary goroutine or a task. Like those of doFromThread
// and of all that lies between Do and the function, its frame stands on the stack of a
// nesting once for each level. So it has few variables, and calls what needs more.
func (s *Scope) doFromGoroutine(w *sleeper) (err error) {
	defer w.close() // also when an errand ends this in a Goexit
	c := w.call
	c.bound = c.abandon
	c.edge.gid.Store(goroutine.ID())
	w.edge = &c.edge
	if self := waiter(w.rec); self != nil {
		c.edge.to = forCall{c}
		self.publish(w.edge) // before c is queued
	}
	if err = s.admit(w); err == nil {
		err = w.wait(nil)
	}
	if err == nil && (w.rec != nil || c.values != (goroutine.Values{})) {
		restore(w.rec, c.values)
	}
	return err
}

// doFromThread is Do for the thread w.own. It waits in a frame there, and the function's
// node is one that the frame can be found by.
func (s *Scope) doFromThread(w *sleeper) (err error) {
	defer w.close()
	c := w.call
	fc := newFrameCtx(foreign(w.ctx), s, c.by, homeOf(w.ctx))
	c.ctx, c.node, c.frame = c.watched.carryOwn(&fc.Ctx), fc.node, &fc.wait
	fc.wait.edge.to = forCall{c}
	w.push(&fc.wait, "call")
	if err = s.admit(w); err == nil {
		err = w.wait(nil)
	}
	if err == nil {
		restore(w.rec, c.values)
	}
	return err
}

// admit queues the call of w on the thread of s, unless it must be refused.
func (s *Scope) admit(w *sleeper) error {
	c := w.call
	if err := s.submit(c); err != nil {
		return err
	}
	if c.timed {
		w.undo = c.outwait(s)
	}
	if c.lined || c.late {
		return s.mayRefuse(w)
	}
	return nil
}

// push puts f on top of the thread, which waits in it.
func (w *sleeper) push(f *Frame, what string) {
	w.own.push(f, what)
	w.frame, w.edge = f, &f.edge
}

// close takes back all that others can see of a wait for a call. It is deferred before the
// wait becomes visible: a Goexit of an errand, or of a call that a thread serves, may pass
// through the wait. One may begin here, too: undo and hide may tell a hook of a call that
// they refuse, and hide may serve calls. So what follows them is deferred.
func (w *sleeper) close() {
	v := *w
	*w = sleeper{} // the record may be kept for long
	if v.undo == nil {
		v.hide()
		return
	}
	defer v.hide()
	v.undo()
}

// hide takes the frame or the edge of the wait back.
func (w *sleeper) hide() {
	if self := w.self(); w.frame != nil {
		w.own.pop(w.frame)
	} else if self != nil {
		self.unpublish()
	} else {
		awaitReaders() // a search may have found the call by a Mark
	}
}

// mayRefuse looks whether the call of w, which was queued and may be run late, closes a
// cycle. The waiter calls it. After an error the call is the caller's again.
func (s *Scope) mayRefuse(w *sleeper) error {
	c := w.call
	if c.lined && c.overflow(w.ctx) {
		return nil
	}
	err := c.turnedAway()
	switch {
	case err == nil:
		return closes(w.frame, w.self(), w.edge, c)
	case !c.revoke(err):
		return nil // c runs by now
	}
	return err
}

// submit queues c on the thread of s.
func (s *Scope) submit(c *Call) error {
	r := s.root
	err := ErrClosed
	if r.account.Load() != 1 && s.account.Load() != 1 {
		t := r.thread.Load()
		if t == nil {
			t = r.bound()
		}
		if err = t.submit(c); err == errOver {
			err = ErrClosed
			if e := r.cfg.Own; e != nil {
				err = e.gone()
			}
		}
	}
	if err != ErrClosed || r.kind == contextScope {
		return err
	}
	// The adopted thread, or the default thread of a bubble, has ended.
	if r.kind == adoptedScope && required.Load() {
		return ErrNoContext
	}
	c.scope = Default()
	return c.scope.submit(c)
}

// submit queues c. If it returns errOver, the lease of t is over, and Scope.submit looks
// for another thread. It returns all other errors for the caller of c.
func (t *Thread) submit(c *Call) error {
	t.lock()
	if t.over || t.ending && c.pinned() == nil {
		t.mu.Unlock()
		return errOver
	}
	c.thread.Store(t)
	cfg := c.scope.root.cfg
	// A thread that does not wait has one list, and serves it.
	box, related, serves := &t.main, false, true
	if t.top != nil || t.own != nil {
		box, related = t.boxFor(c)
		serves = t.serves(box)
	}
	if e := cfg.Own; e != nil && (box == &t.main || t.run == nil) && e.shut.Load() {
		t.mu.Unlock()
		return e.gone()
	}
	if c.try && !related && !t.atRest() {
		t.mu.Unlock()
		return errNotFree
	}
	if n := cfg.Limit; n > 0 && !related && t.main.len >= n {
		t.mu.Unlock()
		return ErrQueueFull
	}
	if err := c.scope.enter(related); err != nil {
		t.mu.Unlock()
		return err
	}
	if !related && (cfg.Wait > 0 || t.pool != nil && t.pool.MaxWait > 0) {
		c.timed = t.timed(c)
	}
	t.put(c, box)
	c.late = !serves && t.blocks(box)
	wake := serves && t.rouse()
	ask := t.worker == nil && !t.asked && !t.adopted && !t.held
	if ask {
		t.asked = true
	}
	gather := wake && !c.task && c.frame == nil && c.pin == nil && t.crowd.likely && t.crowd.expected()
	c.woke = wake || ask
	c.lined = t.pool != nil && t.worker == nil
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

// errOver tells a submitter to look for another thread.
var errOver = errors.New("over")

// boxFor returns the list that c belongs in, and whether c comes from below a function
// of t. t.mu is held.
func (t *Thread) boxFor(c *Call) (box *list, related bool) {
	if f := c.waiter(); f != nil && f.thread == t && f.live {
		// The caller of c is t itself. The thread that it called has ended
		// meanwhile, and t has turned out to be the default thread that
		// replaces it.
		return &f.box, true
	}
	f := c.pinned()
	if f != nil && !f.live {
		f = nil
	}
	if t.related() || f != nil {
		if g := t.frameFor(c.submitter()); g != nil && (f == nil || g.level > f.level) {
			f = g
		}
	}
	if f != nil {
		return &f.box, true
	}
	if t.own != nil && c.pinned() == nil {
		if _, ok := c.body.(*posted); ok {
			return &t.posts, true
		}
	}
	return &t.main, !t.related() && t.frameFor(c.submitter()) != nil
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

// put queues c in l, a list of t. It is the only way into a queue; next and remove
// are the only ways out. t.mu is held.
func (t *Thread) put(c *Call, l *list) {
	t.seq++
	c.seq = t.seq
	l.push(c)
	t.waiting++
}

// push puts c behind the calls that came before it.
func (l *list) push(c *Call) {
	at := l.tail
	for at != nil && at.seq > c.seq {
		at = at.prev
	}
	c.list, c.prev = l, at
	if at != nil {
		c.next, at.next = at.next, c
	} else {
		c.next, l.head = l.head, c
	}
	if c.next != nil {
		c.next.prev = c
	} else {
		l.tail = c
	}
	l.len++
}

func (l *list) remove(c *Call) {
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		l.head = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		l.tail = c.prev
	}
	c.prev, c.next, c.list = nil, nil, nil
	l.len--
}

// atRest reports whether nothing runs on t, blocked or not, and nothing is
// queued. t.mu is held.
func (t *Thread) atRest() bool { return t.run == nil && t.top == nil && t.waiting == 0 }

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

// rouse clears the sign that the thread sleeps, and reports whether it was
// set. mu is held. The caller must pass the result to tell after it has
// released mu.
func (t *Thread) rouse() bool {
	if !t.parked {
		return false // without a write to a line that callers read
	}
	t.parked = false
	return true
}

// tell sends a sleeping thread its token, and changes signal for one that
// spins. mu is not held: a spinning thread that sees the change locks it at
// once.
func (t *Thread) tell(sleeps bool) {
	if sleeps {
		t.wake <- struct{}{}
	} else {
		t.signal.Add(1)
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

// due reports whether there is a call in a list that the thread serves. t.mu is
// held.
func (t *Thread) due() bool {
	if t.top == nil {
		return t.main.head != nil
	}
	return t.top.box.head != nil || t.everybody() && t.main.head != nil
}

// take puts c on top of the stack. t.mu is held.
func (t *Thread) take(c *Call) *Call {
	c.outer, t.run = t.run, c
	t.batch++
	t.seen = t.signal.Load()
	return c
}

// unlist takes c out of its list. t.mu is held.
func (t *Thread) unlist(c *Call) {
	c.list.remove(c)
	t.waiting--
	if t.marks != nil {
		t.unmark(c)
	}
}

// exec runs c, which next has taken.
func (t *Thread) exec(c *Call) {
	if !t.begins(c) {
		return
	}
	r := running{c: c, own: t, rec: t.record, slot: &t.raised}
	r.enter()
	defer func() {
		t, c := r.own, r.c // two variables less in the frame of exec
		unwinds := !r.ran && c.cutShort(recover())
		r.leave() // raised may be under way, and c have been served by a deferred function
		c.node.End()
		t.retire(c, unwinds)
		if unwinds {
			r.rec.Told = false // it was of what c ran
		}
	}()
	r.run(t.leaseToStart(c))
	r.ran = true
}

// begins decides whether the function of c begins. If its ctx has ended, and the caller
// has not come yet to take c out, c must not run all the same.
func (t *Thread) begins(c *Call) bool {
	if c.task {
		t.unfold(c)
	}
	err := Ended(c.ctx)
	if err == nil && !c.begin() {
		err = Cause(c.ctx)
	}
	if err == nil {
		t.spun = false
		c.node.Start()
		return true
	}
	c.forbid()
	t.mu.Lock()
	t.run, c.outer = c.outer, nil
	c.refusal = err
	t.mu.Unlock()
	count.cancelled.Add(1)
	c.scope.leave()
	c.turnAway()
	return false
}

// leaseToStart returns the lease that begins with the function of c, or nil.
func (t *Thread) leaseToStart(c *Call) *lease {
	l := &t.lease
	if t.own != nil {
		l = t.leaseOf(c.scope)
	}
	if l.started {
		return nil
	}
	return l
}

// A running is one run of a call's function, and what the goroutine goes back to when the
// function has ended. exec, runAsync and execHeld have few variables beside it: their frames
// stand on the stack of a nesting once for each level.
type running struct {
	c    *Call
	own  *Thread           // the thread that it runs on, nil off the threads
	rec  *goroutine.Record // of the goroutine; nil if enter and leave are not called
	slot *any              // where the goroutine notes what panic it raises again, nil if nowhere

	// What the goroutine had before: see enter and leave.
	values goroutine.Values
	node   any
	raised any

	critical bool // the thread-critical values of rec end with the function
	returned bool // the function has returned
	ran      bool // run has returned: no Goexit is under way, nor a panic of a hook
}

// enter makes the goroutine one that runs the function.
func (r *running) enter() {
	r.values, r.node, r.raised = r.rec.Values, r.rec.Node, *r.slot
	r.rec.Values, r.rec.Node, *r.slot = r.c.values, r.c.node, nil
}

// leave makes it what it was.
func (r *running) leave() {
	if r.rec.Values != r.c.values {
		r.c.values = r.rec.Values
	}
	r.rec.Values, r.rec.Node, *r.slot = r.values, r.node, r.raised
}

// unfold makes c, a task whose function is about to begin, whole. Code of the ctx that it
// was started with may run. layerOver sees to a panic of that code. If it calls Goexit,
// the task ends so without having begun.
func (t *Thread) unfold(c *Call) {
	returned := false
	defer func() {
		if returned {
			return
		}
		if c.callRest == nil {
			t.mu.Lock() // as below
			c.give(&TaskRest{})
			t.mu.Unlock()
		}
		c.forbid()
		c.ending = Ending{Goexit: true}
		t.retire(c, true)
	}()
	l := c.life()
	if c.ctx == nil {
		ctx := l.openLate(c.promise())
		var rest *TaskRest
		if c.callRest == nil { // nobody else gives it one any more
			rest = &TaskRest{}
		}
		t.mu.Lock() // others look under it
		if rest != nil {
			c.give(rest)
		}
		c.ctx = ctx
		t.mu.Unlock()
	}
	l.taken()
	returned = true
}

// run calls the function on the calling goroutine, with all that belongs to it: its
// hooks, the trace, the interrupt function. It returns when the function has ended,
// however, and has noted that in the call's ending. A hook that panics, or calls Goexit,
// passes through, and the caller must see to that.
//
// starts, if not nil, is a lease that begins with the function.
//
// Tasks of a thread loop are the exception: their coroutine calls the function itself,
// and a deferred function of ours would lie on the stack of each that waits. See
// [Job.Begin] and [Job.Over].
func (r *running) run(starts *lease) {
	defer r.end()
	c := r.c
	c.noted = false
	if starts != nil || c.watched != nil || c.stop != nil {
		r.prepare(starts)
	}
	if trace.IsEnabled() && (r.own != nil || c.inline) {
		c.traced(r.own)
	} else {
		c.body.Run(c.context())
	}
	r.returned = true
}

// prepare does what most calls do not need before their function.
//
//go:noinline
func (r *running) prepare(starts *lease) {
	c := r.c
	if starts != nil {
		starts.start(r.own)
	}
	if c.watched != nil {
		c.tellStarted(r.own)
	}
	if c.stop != nil {
		c.stop.arm(c.context(), r.own)
	}
}

// end notes how the function has ended. It is deferred by run: after a Goexit the
// goroutine goes on unwinding from here.
func (r *running) end() {
	c := r.c
	if !r.returned {
		var p any
		if r.slot != nil {
			p = *r.slot
		}
		c.ending = ending.Of(recover(), p)
	}
	if c.stop != nil {
		c.stop.end(&c.ending)
	}
	if r.critical {
		endCritical(r.rec, &c.ending)
	}
	if c.watched != nil || c.ending.Panic != nil {
		c.tellEnded(r.own)
	}
	c.noted = true
}

// cutShort is called by a deferred function if run has not returned. r is what recover
// has returned there. cutShort reports whether a Goexit is under way. If run has noted
// how the function ended, that stands: a panic may have been raised by a deferred
// function of the user's during the Goexit. If a hook panicked or called Goexit, the
// call ends as the hook did.
func (c *Call) cutShort(r any) (goexit bool) {
	if r != nil || !c.noted {
		c.ending = ending.Of(r, nil)
	}
	return r == nil
}

func (c *Call) traced(t *Thread) {
	ctx, task := trace.NewTask(c.context(), c.Name())
	defer task.End()
	defer trace.StartRegion(ctx, t.label()).End()
	c.body.Run(c.context())
}

// runElsewhere runs c's function on the calling goroutine, unless its ctx has ended
// or its caller has given up. It reports whether the end of c has woken the caller of
// c.
func (c *Call) runElsewhere() (woke bool) {
	begun, woke := c.beginElsewhere()
	if begun {
		woke = c.runAsync()
	}
	return woke
}

// beginElsewhere claims c for the calling goroutine, which must call runAsync then. If c
// must not run, begun is false, and its caller has been told, or has given up itself; woke
// is what runElsewhere returns.
func (c *Call) beginElsewhere() (begun, woke bool) {
	switch why := c.mayBegin(); why {
	case nil:
		return true, false
	case errGivenUp:
		return false, false
	}
	return false, c.finish()
}

// runAsync runs c's function on the calling goroutine, which is no thread, or
// one that runs the function for an executor. It reports whether the end of c
// has woken the caller of c.
func (c *Call) runAsync() (woke bool) {
	rec := goroutine.Ensure()
	r := running{c: c, rec: rec, slot: &rec.Raised} // see raisedSlot
	t, _ := rec.Owner.(*Thread)
	if t != nil {
		r.slot = &t.raised
	}
	// c must not see the thread-critical values of a goroutine that is lent to
	// it. It sees those of a thread, because c was posted to an executor there,
	// and those of a coroutine, which belong to the coroutine's thread. Both
	// outlast c.
	var critical goroutine.Aside
	if r.critical = t == nil && !rec.SharesCritical(); r.critical {
		critical = rec.SetAside()
	}
	r.enter()
	c.edge.gid.Store(rec.ID)
	if t != nil {
		defer c.node.runsInside(t)()
	}
	defer func() {
		unwinds := !r.ran && c.cutShort(recover())
		if unwinds && c.lender != nil {
			// The Goexit also ends the goroutine that waits for the function which
			// waits for c. That goroutine unwinds, so it can be told of no other
			// ending.
			c.ending = Ending{Goexit: true}
		}
		r.leave()
		if r.critical {
			r.rec.PutBack(critical)
		}
		r.rec.ReleaseIfEmpty()
		c.node.End()
		countEnding(c.ending)
		r.rec.Told = unwinds
		if c.task {
			return // its goroutine ends the task, further down its stack
		}
		woke = c.finish()
	}()
	r.run(nil)
	r.ran = true
	return
}

// retire takes the ended call off the stack, and tells its caller. unwinds says that a
// Goexit is under way.
func (t *Thread) retire(c *Call, unwinds bool) {
	t.lock()
	t.run, c.outer = c.outer, nil
	t.calls++
	if unwinds && t.top != nil {
		t.top.edge.hide(true) // the Goexit also ends the wait that c was served in
	}
	t.mu.Unlock()
	if c.ending.Panic != nil || c.ending.Goexit && !t.record.Told { // else it has been counted
		countEnding(c.ending)
	}
	// The account is closed before the caller wakes: a caller that closes the
	// context next finds it idle.
	c.scope.leave()
	if unwinds && c.wait.Load() != callerGone {
		// After a Goexit the stack frames of the ended functions stay on the
		// stack, below what runs next. They refer to the record of c, so the
		// record must not refer to the scope.
		c.scope, c.ctx, c.by, c.stop = nil, nil, nil, nil
		if !c.task {
			c.node = nil
		}
		if b, ok := c.body.(interface{ Forget() }); ok {
			b.Forget()
		}
	}
	t.spin.Ended()
	t.woke = c.finish()
}

// finish tells the caller that the call has ended, and reports whether the
// caller slept. Before that it ends the life of a task: a call that is made with
// the ctx of the task after its end has been told must not be cancelled by that
// end. A Guest is told before, too.
func (c *Call) finish() (woke bool) {
	if c.task || c.guest {
		c.conclude()
	}
	return c.announce()
}

// conclude ends the life of a task, and lets go of what its function needed. Of a
// Guest it calls Over.
//
// The end of a ctx runs code of the ctxs above it, which may be the user's. If
// that code panics or calls Goexit, the call ends so, unless its function has
// panicked or called Goexit before. The goroutine may be the library's own, and
// has nobody else to tell. A Goexit cannot be stopped: then the caller is told
// from here.
func (c *Call) conclude() {
	ended, told := false, false
	defer func() {
		if ended && told {
			return
		}
		e := ending.Of(recover(), nil)
		if c.ending.Returned() {
			c.ending = e
			c.tellLate()
		}
		if e.Goexit {
			c.announce()
		}
	}()
	if c.guest {
		c.body.(Guest).Over()
		ended, told = true, true
		return
	}
	c.values = goroutine.Values{} // nobody takes them over
	c.promise().drop()
	defer func() {
		c.callOnEnd()
		told = true
	}()
	c.life().end()
	ended = true
}

// callOnEnd calls what is to be called at the end of a task.
func (c *Call) callOnEnd() {
	rest := c.more()
	end := rest.onEnd
	if end == nil {
		return
	}
	rest.onEnd = nil // the task may be held for much longer
	end()
}

// announce tells the caller of the call, or who waits for the task. After the
// swap the caller may use the record again, so announce must not read it then,
// unless the caller sleeps or has gone.
func (c *Call) announce() (woke bool) {
	f, t := c.waiter(), (*Task)(nil)
	if c.task {
		t = c.promise()
	}
	switch c.wait.Swap(callEnded) {
	case callerParked:
		c.rouse()
		return true
	case callerGone:
		count.left.Add(-1)
		c.tellAbandoned()
	case callErrand:
		// Its caller is awake, or has a token under way.
	default:
		if f != nil {
			woke = f.complete()
		}
		if t != nil {
			t.open()
		}
	}
	return woke
}

// rouse wakes the caller, who sleeps.
func (c *Call) rouse() {
	if t := c.parked; t != nil {
		t.Wake(c.turn.Load())
	} else {
		c.parker <- struct{}{}
	}
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

// pop takes f off, and hands its calls down: to the nearest frame below that
// waits for them too, else to the thread's own queue.
func (t *Thread) pop(f *Frame) {
	t.lock()
	f.live = false
	t.top = f.below
	left := t.resort(&f.box)
	// A node below f may be kept for long, and keeps f. It must not keep the frames that
	// f stood on as well.
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
		t.cameToRest()
	}
}

// reclaim calls the function reclaim for a wait of the function that runs in
// c. If c is nil, the wait is that of the function whose goroutine has become
// t.
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

// serve is what a thread does instead of sleep. It runs calls until the frame is
// completed, or s has come, or another channel ends the wait. It looks at the channels
// between any two calls: an endless supply of work does not keep the wait from ending.
//
// While it runs a call on top of a wait for tokens, that claim stands aside. So does the
// turn of s, if it has one. If that has the lock, done is about to be closed.
func (w *sleeper) serve(s *sign) wakeup {
	t, f := w.own, w.frame
	done, turn := w.stopped(), (*Turn)(nil)
	if s != nil {
		if s.once {
			t.serveOnce()
			return came
		}
		done, turn = s.done, s.turn
	}
	claim := f.edge.claim()
	for {
		if done != nil || w.cancel != nil {
			if how, ended := w.ended(done); ended {
				return how
			}
		}
		t.lock()
		if f.done {
			t.mu.Unlock()
			return came
		}
		if claim != nil && !claim.stepAside() {
			t.mu.Unlock()
			return came
		}
		if turn != nil && t.due() && !turn.stepAside() {
			t.mu.Unlock()
			<-done
			return came
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
			if t.spin.On() {
				t.spinInStep()
			}
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
		t.slept()
		t.mu.Unlock()
		f.edge.slept()
		if how, ended := w.doze(done); ended {
			return how
		}
	}
}

// ended reports whether a channel of serve has ended the wait, and which. Like doze it is
// apart from serve, whose frame stands on the stack of a nesting once for each level.
//
//go:noinline
func (w *sleeper) ended(done <-chan struct{}) (how wakeup, ended bool) {
	select {
	case <-done:
		return w.reason(), true
	case <-w.cancel:
		return cancelled, true
	default:
		return came, false
	}
}

// doze waits for the token of the thread, which is parked. It reports whether a channel
// of serve has ended the wait instead, and which.
//
//go:noinline
func (w *sleeper) doze(done <-chan struct{}) (how wakeup, ended bool) {
	t := w.own
	if done == nil && w.cancel == nil {
		<-t.wake
		return came, false
	}
	select {
	case <-t.wake:
		return came, false
	case <-done:
		how = w.reason()
	case <-w.cancel:
		how = cancelled
	}
	t.unpark()
	return how, true
}

// reason says why the channel done of serve has ended the wait. In a wait for a call done is
// that of stopped: the loop has stopped, unless the call has ended as well.
func (w *sleeper) reason() wakeup {
	if w.stopped() != nil && w.call.wait.Load() != callEnded {
		return halted
	}
	return came
}

// unpark clears the sign that the thread sleeps. If another goroutine has
// cleared it first, its token is on the way, and unpark receives that token.
func (t *Thread) unpark() {
	t.mu.Lock()
	was := t.parked
	t.parked = false
	t.mu.Unlock()
	if !was {
		<-t.wake
	}
}

// spinInStep spins after a call, for the next of the callers that are in step with the
// thread. mu is not held.
func (t *Thread) spinInStep() {
	t.lock()
	if t.woke || t.signal.Load() != t.seen || t.due() {
		t.mu.Unlock()
		return
	}
	t.spinFor(t.seen, t.spin.Patience())
}

// spinFirst spins for something to do, if something is likely to come soon. t.mu is
// held. If spinFirst reports true, it has spun and released mu, and the caller must
// lock mu and look again, even if the spin found nothing: work becomes visible before
// the signal changes, and only a look under mu right before parking is sure to see it.
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

// expected reports whether a wake is to be put off, where a crowd is likely.
func (c *crowd) expected() bool {
	if c.spare == 0 {
		return true
	}
	c.spare--
	return false
}

// slept says that the thread has nothing to do. t.mu is held.
func (t *Thread) slept() {
	t.crowd.likely = t.batch > 1
	t.batch = 0
}

// If a deferred wake has taken longer than crowdLong, the next crowdSpare wakes are
// not deferred: the run queue then has goroutines that do not call the thread.
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

// lend asks the goroutine of c's caller, which waits for c, to run the async
// function a. It reports whether that goroutine will do so, and whether it slept.
// Only the thread that runs c's function calls lend, and it waits for a next. So
// errands nest like the calls do, and two stacks are enough for a nesting of any
// depth.
func (c *Call) lend(a *Call) (lent, woke bool) {
	if c.bound || c.frame != nil {
		return false, false
	}
	for {
		s := c.wait.Load()
		if s != callerAwake && s != callerParked {
			return false, false
		}
		// The caller reads c.errand while wait is callErrand, even for an
		// errand that was given up and not picked up yet. So c.errand must not
		// be written before the check above.
		c.errand, a.lender = a, c
		if c.wait.CompareAndSwap(s, callErrand) {
			if s == callerParked {
				c.rouse()
			}
			return true, s == callerParked
		}
		a.lender = nil
	}
}

// takeErrand returns the errand that the caller of c was asked to run. It returns nil if
// there is none, which means that c has ended.
func (c *Call) takeErrand() *Call {
	if c.wait.Load() != callErrand {
		return nil
	}
	a := c.errand
	// The thread may have given the errand up, and c may have ended since.
	if !c.wait.CompareAndSwap(callErrand, callerAwake) {
		return nil
	}
	return a
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

// remove takes c, which is queued, out of its list, so that c will not run. t.mu
// is held. The caller must call removed after it has released t.mu.
func (t *Thread) remove(c *Call, why error) {
	t.unlist(c)
	c.stage.Store(refused)
	c.more().refusal = why
}

// removed closes the account of c, which remove has taken out. If c was the
// last call queued on a thread that stands in line for a worker, the thread
// leaves the line. No lock is held.
func (t *Thread) removed(c *Call) {
	t.mu.Lock()
	withdraw := t.worker == nil && t.asked && t.main.len == 0
	t.mu.Unlock()
	if withdraw {
		t.withdraw()
	}
	c.scope.leave()
}

// turnAway ends a call that was refused by code other than its caller. For a task
// it also tells the hooks, since no caller does. If a hook panics or calls Goexit,
// the task ends in the same way.
func (c *Call) turnAway() {
	if !c.task || c.more().watched == nil {
		c.finish()
		return
	}
	told := false
	defer func() {
		if !told {
			c.refusal, c.ending = nil, ending.Of(recover(), nil)
		}
		c.finish()
	}()
	c.tellRefused(c.ctx, c.refusal)
	told = true
}

// turnAway calls removed and Call.turnAway for each of calls, which remove has
// taken out. It goes on with the rest if a hook calls Goexit.
func turnAway(calls []*Call) {
	defer func() {
		if len(calls) > 0 {
			turnAway(calls)
		}
	}()
	for len(calls) > 0 {
		c := calls[0]
		calls = calls[1:]
		c.thread.Load().removed(c)
		c.turnAway()
	}
}

// turnDown keeps c from beginning, with why as the reason. It reports false if
// c has begun, or was refused before. The caller must tell those who wait for
// c.
func (c *Call) turnDown(why error) bool {
	if !c.forbid() {
		return false
	}
	c.refusal = why
	c.node.End()
	count.cancelled.Add(1)
	return true
}

// mayBegin claims c for the calling goroutine, which is about to run it. If c must
// not run, mayBegin returns the reason, and has noted it in c unless it is
// errGivenUp.
func (c *Call) mayBegin() error {
	if err := Ended(c.ctx); err != nil {
		// This is what c's caller would have done. A caller that may abandon a
		// function that has begun must not take this one for begun.
		if !c.turnDown(err) {
			return errGivenUp
		}
		return err
	}
	if !c.begin() {
		return errGivenUp
	}
	if c.task {
		c.life().taken()
	}
	return nil
}

// errGivenUp says that other code has already kept a call from beginning.
var errGivenUp = &abandonedError{context.Canceled}

// walkAway notes that the caller no longer waits for the function, which
// runs. It reports false if the function has ended.
func (c *Call) walkAway(from uint32) bool {
	count.left.Add(1) // before the function can be seen to have ended
	if !c.wait.CompareAndSwap(from, callerGone) {
		count.left.Add(-1)
		return false
	}
	return true
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

// RunInline runs body where it is called, with the hooks, the trace and the
// interrupt function that a call has. It ends as body does.
func (f *FullCall) RunInline(ctx context.Context, s *Scope, body Body, o *Options) {
	if Plain(o, s) {
		body.Run(ctx)
		return
	}
	c := f.whole()
	c.body, c.scope, c.given, c.name, c.inline = body, s, ctx, o.Name, true
	if c.pc == 0 {
		c.pc = o.PC
	}
	if o.Interrupt != nil {
		c.stop = newInterrupt(o)
	}
	own, rec := current()
	if hooked(s) {
		c.tellQueued(ctx)
	}
	c.given = c.watched.carry(ctx)
	if own == nil && (rec == nil || rec.Node == nil) {
		// Somewhere to remember a panic that passes through.
		rec = goroutine.Ensure()
		rec.Node = &Node{}
		defer func() {
			rec.Node, rec.Raised = nil, nil
			rec.ReleaseIfEmpty()
		}()
	}
	r := running{c: c, own: own, slot: raisedSlot()}
	defer func() {
		if !r.ran && c.noted && c.ending.Panic != nil {
			Raise(c.ending) // run has recovered it from under a Goexit
		}
	}()
	r.run(nil)
	r.ran = true
	Raise(c.ending)
}

// Plain reports whether an inline call in s needs nothing but a call of its
// function: no interrupt function, no hooks and no trace. s may be nil.
func Plain(o *Options, s *Scope) bool {
	return o.Interrupt == nil && !hooked(s) && !trace.IsEnabled()
}

// inLine reports whether t waits for a worker of its pool, if only for one that
// is on its way. t.mu is held.
func (t *Thread) inLine() bool { return t.worker == nil && t.asked && t.pool != nil }

// needs returns what must happen before c can end. Either all frames of t from level
// low upwards must end, or, if line is true, t must get a worker from its pool. If
// blocked is false, nothing is known to keep c. t is the thread of c, and t.mu is held.
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
	// Going down from the top, the frames of c and of the calls on top of it come
	// before the first frame of a call below c. If c is not on the stack, it has
	// ended, or is not queued yet.
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

func (f forCall) kind() string { return "call" }

func (f forCall) name() string { return f.c.Name() }

func (f forCall) mayWait() bool { return true }

func (f forCall) next() (*Call, *Node) { return f.c, nil }

func (f forCall) needs(q *query) cycle.Needs { return q.one(&callVertex{q, f.c}) }

func (f forCall) reached() any { return f.c }

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
