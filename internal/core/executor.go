package core

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"

	"asyncsync.dev/internal/ending"
	"asyncsync.dev/internal/goroutine"
)

// NewExecutor returns an executor of the calling goroutine. Calls that it does not run
// fail with the error stopped. Reports say that it was made where the caller was called.
func NewExecutor(stopped error) *Executor {
	e := &Executor{gid: goroutine.ID(), id: threadIDs.Add(1), Stopped: stopped, done: make(chan struct{})}
	var pcs [1]uintptr
	runtime.Callers(3, pcs[:])
	e.made = pcs[0]
	e.maker = made(e)
	return e
}

// Done is closed by Close.
func (e *Executor) Done() <-chan struct{} { return e.done }

// Closed reports whether Close has been called.
func (e *Executor) Closed() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.closed
}

// Close drops posted functions that have not begun, and ends each RunUntil when
// the function that it runs has ended. Callers that wait for a dropped function
// learn of the end from Done. Close also refuses the queued calls of contexts that have
// their thread from e, and removes e from its goroutine.
func (e *Executor) Close() {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return
	}
	e.closed = true
	e.shut.Store(true)
	f := e.frame
	if f != nil {
		e.keep(f.thread, f) // under mu: closed is set, so no function is posted any more
	} else if t := e.threadNow(); t != nil {
		e.keep(t, nil)
	}
	e.pending = nil
	e.mu.Unlock()
	e.refuseAll()
	if f != nil {
		f.complete() // each RunUntil below is completed by the one on top of it
	} else {
		e.notify()
	}
	close(e.done)
	e.Disown()
}

// Goroutine returns the id of the goroutine that the executor is of.
func (e *Executor) Goroutine() int64 { return e.gid }

// Mine reports whether the caller is the executor's goroutine.
func (e *Executor) Mine() bool { return goroutine.ID() == e.gid }

// Post has fn run by the RunUntil that is under way, or by the next. It reports
// false if the executor is closed.
func (e *Executor) Post(fn func()) bool {
	// The poster is noted so that the function can run on top of a function on
	// the executor's thread that waits for the poster. The waiting function may
	// have been posted too.
	p := &posted{e: e, fn: fn, by: ownNode()}
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return false
	}
	idle := e.frame == nil
	switch {
	case len(e.pending) > 0: // pending functions go first: the goroutine may be about to become a thread
		e.hold(p)
		if !idle || e.threadNow() != nil {
			e.resend()
		}
	case e.send(p) != nil:
		e.hold(p)
	}
	e.mu.Unlock()
	if idle {
		e.notify()
	}
	return true
}

// hold keeps p until somebody runs what was posted. e.mu is held.
func (e *Executor) hold(p *posted) {
	e.count(p)
	e.pending = append(e.pending, p)
}

// count gives p, which is about to be pending, a number for reports. e.mu is held.
func (e *Executor) count(p *posted) {
	e.last++
	p.number = e.last
}

// Disown removes e from its goroutine. A goroutine without executors is an
// ordinary one again.
func (e *Executor) Disown() {
	if e.maker != nil {
		e.maker.disown(e)
	}
}

// send queues p for the RunUntil under way. If there is none, it queues p on the thread
// that the goroutine is, where a wait runs p if it depends on the poster. e.mu is held.
func (e *Executor) send(p *posted) error {
	t, s := e.thread, e.scope
	if e.frame == nil {
		if t = e.threadNow(); t == nil {
			return errOver
		}
		s = t.home
	}
	nc := newNodeCtx(context.Background(), s, nil, nil)
	c := unawaited(p, s, nc, "posted function")
	c.by, c.pin = p.by, e.frame
	c.note(&Options{})
	return t.submit(c)
}

// unawaited returns a call that nobody waits for.
func unawaited(body Body, s *Scope, nc *nodeCtx, name string) *Call {
	c := new(FullCall).whole()
	c.body, c.scope, c.node, c.ctx, c.name = body, s, nc.node, &nc.Ctx, name
	c.bound = true
	c.edge.slept()
	return c
}

func (p *posted) Run(context.Context) {
	select {
	case <-p.e.done: // Close did not find the function: a wait on top had taken it
		return
	default:
	}
	returned := false
	defer func() {
		if returned {
			return
		}
		// After a Goexit no RunUntil is left to be told.
		if e := ending.Of(recover(), raisedHere()); e.Panic != nil {
			p.e.fail(e.Panic)
		}
	}()
	p.fn()
	returned = true
}

// fail has the RunUntil under way raise p, or else the next one: a posted function has no
// other caller. Functions that have not begun stay for the next RunUntil. If a hook that
// is told of p panics, that panic is raised instead.
func (e *Executor) fail(p *Panic) {
	e.failed = p
	if f := e.frame; f != nil { // only this goroutine changes it
		f.thread.mu.Lock()
		f.done = true
		f.thread.mu.Unlock()
	}
	defer func() {
		if v := recover(); v != nil {
			e.failed = ending.New(v)
		}
	}()
	tellPanic(p, CallInfo{Name: "posted function"}, audienceOf(nil))
}

// RunUntil serves until done is closed or delivers. Then it runs what is queued at
// that moment, and returns how many calls those were. ok is false if the executor
// is closed before RunUntil begins or by the time it ends. It is called on the executor's
// goroutine.
func (e *Executor) RunUntil(done <-chan struct{}) (ran int, ok bool) {
	if e.Closed() {
		return 0, false
	}
	t, _ := current()
	var s *Scope
	if t == nil {
		t, s = adopt("")
		defer t.release()
	} else {
		s = t.scopeNow(context.Background())
	}
	e.raise()
	if s == nil { // in an exit function
		s = &Scope{kind: adoptedScope, cfg: DefaultConfig}
		s.root = s
	}
	ran = e.serve(t, s, done)
	e.raise()
	return ran, !e.Closed()
}

// raise raises the panic of a posted function.
func (e *Executor) raise() {
	if p := e.failed; p != nil {
		e.failed = nil
		Raise(Ending{Panic: p})
	}
}

func (e *Executor) serve(t *Thread, s *Scope, done <-chan struct{}) (ran int) {
	f := &Frame{open: t.own != nil && t.postedOnly()}
	t.push(f, "executor")
	e.mu.Lock()
	e.woken = false
	thread, scope, frame := e.thread, e.scope, e.frame // of a RunUntil below
	if frame != nil {
		e.keep(frame.thread, frame)
	} else if o := e.threadNow(); o != nil {
		e.keep(o, nil)
	}
	e.thread, e.scope, e.frame = t, s, f
	closed := e.closed
	e.resend()
	e.mu.Unlock()
	if closed {
		f.complete()
	}
	if n := submitter(context.Background(), t.record); n != nil && !strict.Load() {
		// What done waits for is not known; see Park.
		j := &Join{frame: f}
		relate(t, nil, func() { n.addJoin(j) })
		defer relate(t, nil, func() { n.dropJoin(j) })
	}
	defer func() {
		e.mu.Lock()
		e.keep(t, f)
		e.thread, e.scope, e.frame = thread, scope, frame
		closed := e.closed
		if closed {
			e.pending = nil // otherwise e would keep them alive
		} else {
			e.resend()
		}
		e.mu.Unlock()
		if closed && frame != nil {
			frame.complete()
		}
		t.pop(f)
		e.mu.Lock()
		left := e.frame == nil && (len(e.pending) > 0 || e.posts())
		e.mu.Unlock()
		if left {
			e.notify()
		}
	}()
	z := sleeper{own: t, frame: f, edge: &f.edge}
	z.wait(&sign{done: done})
	// Run what is queued now, but not what these calls queue in turn: that
	// could go on for ever.
	t.mu.Lock()
	last := t.seq
	for !f.done && f.has(last) {
		c := t.next()
		t.mu.Unlock()
		t.exec(c)
		ran++
		t.mu.Lock()
	}
	t.mu.Unlock()
	return ran
}

// has reports whether f, which is on top, has something to run that was queued when the
// number last was given. The mu of the thread is held.
func (f *Frame) has(last uint64) bool {
	t := f.thread
	return f.box.head != nil && f.box.head.seq <= last ||
		f.open && t.everybody() && t.main.head != nil && t.main.head.seq <= last
}

// postedOnly reports whether only posted functions run on t, the calling thread. Then
// strangers disturb no function of a context.
func (t *Thread) postedOnly() bool {
	for c := t.run; c != nil; c = c.outer {
		if _, ok := c.body.(*posted); !ok {
			return false
		}
	}
	return true
}

// resend queues what is pending, in order, where somebody may run it. e.mu is held.
func (e *Executor) resend() {
	pending := e.pending
	e.pending = nil
	for i, p := range pending {
		if e.send(p) != nil {
			e.pending = pending[i:]
			return
		}
	}
}

// keep moves posted functions of e back to pending: those in the box of f or, if f is
// nil, those that were posted to t while no RunUntil was under way. They go before the
// functions in pending, which were posted later. e.mu is held.
func (e *Executor) keep(t *Thread, f *Frame) {
	var left []*Call
	take := func(l *list) {
		for c := l.head; c != nil; {
			next := c.next
			if p, ok := c.body.(*posted); ok && p.e == e && c.pinned() == f {
				t.remove(c, nil)
				left = append(left, c)
			}
			c = next
		}
	}
	t.mu.Lock()
	if f != nil {
		take(&f.box)
	} else {
		take(&t.posts)
		for g := t.top; g != nil; g = g.below {
			take(&g.box)
		}
		slices.SortFunc(left, func(a, b *Call) int { return cmp.Compare(a.seq, b.seq) })
	}
	t.mu.Unlock()
	back := make([]*posted, 0, len(left)+len(e.pending))
	for _, c := range left {
		p := c.body.(*posted)
		e.count(p)
		back = append(back, p)
		c.scope.leave()
	}
	e.pending = append(back, e.pending...)
}

// made returns the maker that the calling goroutine is, made if need be, with e among its
// executors. It returns nil if the goroutine is a thread, but not one for good.
func made(e *Executor) *maker {
	if t, _ := current(); t != nil && (t.own == nil || !t.own.forGood.Load()) {
		return nil
	}
	o := makerOf(e.gid)
	if o == nil {
		// Only this goroutine adds a maker for itself.
		o = &maker{gid: e.gid, made: e.made, bubble: bubble() != 0}
		makers.Lock()
		if makers.all == nil {
			makers.all = make(map[int64]*maker)
		}
		makers.all[e.gid] = o
		makers.n.Store(int32(len(makers.all)))
		makers.Unlock()
	}
	o.mu.Lock()
	o.execs = append(o.execs, e)
	o.mu.Unlock()
	return o
}

// disown removes e. Without executors the goroutine becomes an ordinary one: at once if
// it runs nothing and has called disown itself, otherwise when it has nothing left to
// run.
func (o *maker) disown(e *Executor) {
	o.mu.Lock()
	for i, other := range o.execs {
		if other == e {
			o.execs = append(o.execs[:i:i], o.execs[i+1:]...)
			break
		}
	}
	last := len(o.execs) == 0
	o.mu.Unlock()
	if !last {
		return
	}
	makers.Lock()
	if makers.all[o.gid] == o {
		delete(makers.all, o.gid)
		makers.n.Store(int32(len(makers.all)))
		if o.forGood.Load() {
			makers.forGood.Add(-1)
		}
	}
	makers.Unlock()
	if t := o.thread.Load(); t != nil && t.mine() {
		t.cameToRest()
	}
}

// newAdopted returns a thread for the goroutine gid. The thread is not
// listed.
func newAdopted(name string, gid int64, o *maker) *Thread {
	s := &Scope{kind: adoptedScope, cfg: &Config{Name: name}}
	s.root = s
	t := &Thread{identity: identity{id: threadIDs.Add(1), adopted: true, name: name, own: o, home: s}}
	if o != nil {
		t.made, t.spin.Never = o.made, o.bubble
	}
	t.gid.Store(gid)
	s.thread.Store(t)
	return t
}

// enter makes o, the calling goroutine, a thread and returns it to adopt.
func (o *maker) enter(name string) *Thread {
	o.mu.Lock()
	t := o.thread.Load()
	if t == nil {
		t = newAdopted(name, o.gid, o)
		t.moveIn()
		o.thread.Store(t)
	} else {
		t.moveIn()
	}
	execs := o.execs[:len(o.execs):len(o.execs)]
	o.mu.Unlock()
	for _, e := range execs {
		e.mu.Lock()
		e.resend()
		e.mu.Unlock()
	}
	return t
}

// leave ends an adoption. It reports false if the goroutine stays a thread, because a
// context uses it. Posted functions that have not run wait for the next adoption.
func (o *maker) leave() (ends bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.forGood.Load() {
		return false
	}
	o.thread.Store(nil)
	return true
}

// takeBack gives posted functions that have not run on t, which is over, back to their
// executors.
func (o *maker) takeBack(t *Thread) {
	o.mu.Lock()
	execs := o.execs[:len(o.execs):len(o.execs)]
	o.mu.Unlock()
	for _, e := range execs {
		e.mu.Lock()
		e.keep(t, nil)
		e.mu.Unlock()
	}
}

// BecomeThread makes the goroutine of e a thread until all its executors are closed. It
// reports false if the goroutine was already a thread of another kind when it made e.
func (e *Executor) BecomeThread() bool {
	o := e.maker
	if o == nil {
		return false
	}
	o.mu.Lock()
	if o.forGood.Load() {
		o.mu.Unlock()
		return true
	}
	closed := len(o.execs) == 0
	t := o.thread.Load()
	if t == nil {
		t = newAdopted("", o.gid, o)
		t.over = closed
		if !closed {
			t.listed = true
			enlist(t)
		}
		o.thread.Store(t)
	}
	o.forGood.Store(true)
	if !closed {
		makers.forGood.Add(1)
	}
	o.mu.Unlock()
	if closed {
		return true
	}
	if t.mine() {
		current()
	}
	return true
}

// cameToRest is called on the goroutine of t, a maker's thread, where t may have
// nothing left to run. If so, it ends t if all executors are closed, or has queued
// calls noticed.
func (t *Thread) cameToRest() {
	if !t.own.forGood.Load() {
		return
	}
	t.mu.Lock()
	if t.run != nil || t.top != nil {
		t.mu.Unlock()
		return
	}
	left := t.main.head != nil
	t.mu.Unlock()
	o := t.own
	o.mu.Lock()
	over := len(o.execs) == 0
	o.mu.Unlock()
	switch {
	case over && !t.isOver():
		if t.record == nil {
			t.moveIn()
		}
		defer t.moveOut()
		t.drain()
	case left:
		o.notify()
	}
}

// notify calls the wake functions of the executors, because something is queued and the
// goroutine does not run it.
func (o *maker) notify() {
	o.mu.Lock()
	execs := o.execs[:len(o.execs):len(o.execs)]
	o.mu.Unlock()
	for _, e := range execs {
		e.notify()
	}
}

// notify calls e's wake function, once until the next run.
func (e *Executor) notify() {
	e.mu.Lock()
	f := e.onWake
	if f == nil || e.woken || e.frame != nil {
		e.mu.Unlock()
		return
	}
	e.woken = true
	e.mu.Unlock()
	// On a goroutine of its own, so that a Goexit of f is not the caller's.
	go Observe(f, func(end Ending) {
		countEnding(end)
		if end.Panic != nil {
			tellPanic(end.Panic, CallInfo{Name: "OnWake function"}, audienceOf(nil))
		}
	})
}

// OnWake sets the wake function; nil is none.
func (e *Executor) OnWake(f func()) {
	e.mu.Lock()
	e.onWake, e.woken = f, false
	left := len(e.pending) > 0 || e.posts()
	e.mu.Unlock()
	if left || e.maker.left() {
		e.notify()
	}
}

// posts reports whether a function posted to e is queued on the thread that its
// goroutine is. e.mu is held.
func (e *Executor) posts() bool {
	t := e.threadNow()
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := t.posts.head; c != nil; c = c.next {
		if c.body.(*posted).e == e {
			return true
		}
	}
	return false
}

// left reports whether calls are queued on the lasting thread of o while it is in no
// wait.
func (o *maker) left() bool {
	if o == nil || !o.forGood.Load() {
		return false
	}
	t := o.thread.Load()
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.top == nil && t.main.head != nil
}

// threadNow returns the thread that the goroutine of e is at the moment, or
// nil.
func (e *Executor) threadNow() *Thread {
	if e.maker == nil {
		return nil
	}
	return e.maker.thread.Load()
}

// A goneError is the error of calls to a context that has its thread from an executor,
// after that was closed. It matches ErrClosed, and what the executor's own calls get.
type goneError struct{ stopped error }

func (goneError) Error() string {
	return "asyncsync: the CurrentThreadExecutor that the context has its thread from is closed"
}

func (goneError) Is(target error) bool { return target == ErrClosed }

func (e goneError) Unwrap() error { return e.stopped }

// gone returns the error of calls to contexts with e's thread after Close.
func (e *Executor) gone() error { return goneError{e.Stopped} }

// leaseOf returns the lease of s on t.
func (t *Thread) leaseOf(s *Scope) *lease {
	if s != nil && s.root.stay != nil {
		return &s.root.stay.lease
	}
	return &t.lease
}

// lease returns the lease of the outermost scope. There is a thread.
func (s *Scope) lease() *lease { return s.thread.Load().leaseOf(s) }

// leave runs the exit functions of the context, if there are any, on its thread. The
// context is closed or collected, and none of its calls is under way.
func (st *stay) leave() {
	st.mu.Lock()
	ended := st.ended
	st.ended = true
	st.mu.Unlock()
	if ended {
		return
	}
	t := st.thread
	// started does not change any more.
	if !st.needsExit() {
		st.lease.close()
		return
	}
	nc := newNodeCtx(context.Background(), t.home, nil, nil)
	c := unawaited(st, t.home, nc, "end of a context")
	c.note(&Options{})
	if st.exec.Closed() || t.submit(c) != nil {
		st.fail()
	}
}

// fail ends the stay without its exit functions, because there is no thread to run
// them on.
func (st *stay) fail() {
	st.mu.Lock()
	st.err = fmt.Errorf("%w: exit functions, and the close function of a Handle, have not run; close the context or the Handle before the executor", st.exec.gone())
	st.mu.Unlock()
	st.lease.close()
}

// Run runs the exit functions, on the thread. After a Goexit of one the rest run while
// the goroutine unwinds.
func (st *stay) Run(ctx context.Context) {
	defer func() {
		if st.needsExit() {
			st.Run(ctx)
			return
		}
		st.lease.close()
	}()
	st.lease.exit(st.thread)
}

// refuseAll refuses the queued calls of contexts that use e's thread, and the queued
// ends of such contexts.
func (e *Executor) refuseAll() {
	t := e.threadNow()
	if t == nil {
		return
	}
	var out []*Call
	var stays []*stay
	t.mu.Lock()
	for c := t.main.head; c != nil; {
		next := c.next
		st, ends := c.body.(*stay)
		switch {
		case ends && st.exec == e:
			t.remove(c, e.gone())
			stays = append(stays, st)
			out = append(out, c)
		case !ends && c.scope.root.cfg.Own == e:
			t.remove(c, e.gone())
			out = append(out, c)
		}
		c = next
	}
	t.mu.Unlock()
	turnAway(out)
	for _, st := range stays {
		st.fail()
	}
}

// idleHere reports whether t is the lasting thread of an executor's goroutine, and runs
// nothing. The caller is that goroutine.
func (t *Thread) idleHere() bool {
	return t.own != nil && t.own.forGood.Load() && t.run == nil && t.top == nil
}

// serveAll makes f, the top frame of t, serve all calls.
func (t *Thread) serveAll(f *Frame) {
	t.mu.Lock()
	f.open = true
	t.mu.Unlock()
}
