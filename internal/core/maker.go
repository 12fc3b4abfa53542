package core

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"

	"asyncsync.dev/internal/goroutine"
)

// A maker is a goroutine of the program's own that has made an [Executor]. It is a
// thread while it is adopted, and for good from the first context on that is to have it
// as its thread: see [Executor.Last].
type maker struct {
	gid    int64
	bubble bool // it is in a synctest bubble

	// thread is what the goroutine is, nil while it is none. It is set and cleared under
	// mu.
	thread atomic.Pointer[Thread]
	lasts  atomic.Bool // it is a thread for good; set once, under mu

	mu    sync.Mutex  // guards execs; nests outside Executor.mu
	execs []*Executor // that are not closed
}

// makers are the goroutines that have executors.
var makers struct {
	n     atomic.Int32 // how many, so that programs without any do not look
	lasts atomic.Int32 // of these, how many are threads for good

	sync.RWMutex // a leaf lock
	all          map[int64]*maker
}

// makerOf returns the owner that the calling goroutine, whose id is gid, is, or nil.
func makerOf(gid int64) *maker {
	if makers.n.Load() == 0 {
		return nil
	}
	makers.RLock()
	defer makers.RUnlock()
	return makers.all[gid]
}

// made makes the calling goroutine the maker of e, unless it is a thread already.
func made(e *Executor) *maker {
	if t, _ := current(); t != nil && (t.own == nil || !t.own.lasts.Load()) {
		return nil
	}
	o := makerOf(e.gid)
	if o == nil {
		// Nobody else adds one for this goroutine.
		o = &maker{gid: e.gid, bubble: bubble() != 0}
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

// disown takes e off. With its last executor a maker becomes a goroutine like others:
// at once if it runs nothing and calls this itself, else when it comes to rest.
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
		if o.lasts.Load() {
			makers.lasts.Add(-1)
		}
	}
	makers.Unlock()
	if t := o.thread.Load(); t != nil && t.mine() {
		t.rests()
	}
}

// newAdopted returns a thread that the goroutine gid is. It is not listed.
func newAdopted(name string, gid int64, o *maker) *Thread {
	s := &Scope{kind: adoptedScope, cfg: &Config{Name: name}}
	s.root = s
	t := &Thread{identity: identity{id: threadIDs.Add(1), adopted: true, name: name, own: o, home: s}}
	t.spin.Never = o != nil && o.bubble
	t.gid.Store(gid)
	s.thread.Store(t)
	return t
}

// enter makes the calling goroutine, which o is, the thread that adopt returns.
func (o *maker) enter(name string) *Thread {
	o.mu.Lock()
	t := o.thread.Load()
	if t == nil {
		t = newAdopted(name, o.gid, o)
		t.settle()
		o.thread.Store(t)
	} else {
		t.settle()
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

// settle makes the calling goroutine the thread t, which it has been said to be, or is to
// be.
func (t *Thread) settle() {
	runtime.LockOSThread()
	rec := goroutine.Ensure()
	t.mu.Lock()
	t.record = rec
	if t.wake == nil {
		t.wake = make(chan struct{}, 1)
	}
	first := !t.listed
	t.listed = true
	t.mu.Unlock()
	t.first.Store(onFirstThread())
	t.tid.Store(osThread())
	rec.Owner = t
	if first {
		enlist(t)
	}
	waiter(rec).publish(&edge{to: forThread{t}}) // for whom it ran before, it waits for t now
}

// unsettle makes the calling goroutine one like others.
func (t *Thread) unsettle() {
	t.record.Owner = nil
	waiter(t.record).unpublish()
	if t.record.Empty() {
		t.record.Release()
	}
	delist(t)
	if !t.taint.Load() { // else the OS thread ends with the goroutine
		runtime.UnlockOSThread()
	}
}

// leave ends an adoption, and reports whether t is to end. What was posted and has not
// run waits for the next.
func (o *maker) leave() (ends bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.lasts.Load() {
		return false
	}
	o.thread.Store(nil)
	return true
}

// takeBack gives the executors what was posted to t, which is over, and has not run.
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

// Last makes the goroutine of e a thread for good, until its executors are closed. It
// reports false if it cannot be one because it was a thread when it made e.
func (e *Executor) Last() bool {
	o := e.maker
	if o == nil {
		return false
	}
	o.mu.Lock()
	if o.lasts.Load() {
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
	o.lasts.Store(true)
	if !closed {
		makers.lasts.Add(1)
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

// lastsHere returns the thread that the calling goroutine, whose id is gid, is for good.
// The goroutine finds it here the first time.
func lastsHere(gid int64) *Thread {
	if makers.lasts.Load() == 0 {
		return nil
	}
	o := makerOf(gid)
	if o == nil || !o.lasts.Load() {
		return nil
	}
	t := o.thread.Load()
	t.settle()
	return t
}

// rests looks after t, of a maker, on its own goroutine, where that may have come to
// rest.
func (t *Thread) rests() {
	if !t.own.lasts.Load() {
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
			t.settle()
		}
		defer t.unsettle()
		t.drain()
	case left:
		o.notify()
	}
}

// notify calls the wake functions of the executors: something is queued, and nobody runs
// it.
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
		end.count()
		if end.Panic != nil {
			end.Panic.tell(CallInfo{Name: "OnWake function"}, nil)
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

// posts reports whether something that was posted waits on the thread that the goroutine
// is. e.mu is held.
func (e *Executor) posts() bool {
	t := e.thread0()
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

// left reports whether calls wait for the thread that o is for good, and nobody runs them.
func (o *maker) left() bool {
	if o == nil || !o.lasts.Load() {
		return false
	}
	t := o.thread.Load()
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.top == nil && t.main.head != nil
}

// thread0 returns the thread that the goroutine of e is, nil if it is none.
func (e *Executor) thread0() *Thread {
	if e.maker == nil {
		return nil
	}
	return e.maker.thread.Load()
}

// An goneError is what calls get whose context has the thread of an executor that
// is closed. It is ErrClosed, and what the executor's own calls get.
type goneError struct{ stopped error }

func (goneError) Error() string {
	return "asyncsync: the CurrentThreadExecutor that the context has its thread from is closed"
}
func (goneError) Is(target error) bool { return target == ErrClosed }
func (e goneError) Unwrap() error      { return e.stopped }

// gone returns the error of calls to contexts with e's thread after Close.
func (e *Executor) gone() error { return goneError{e.Stopped} }

// A stay is what a context has on a thread that is not its own: a lease, of a thread that
// goes on after it.
type stay struct {
	lease
	thread  *Thread
	exec    *Executor
	cleanup runtime.Cleanup // guarded by the mu of the scope
	ended   bool            // guarded by lease.mu: somebody has seen to the end
}

// leaseOf returns the lease of s on t.
func (t *Thread) leaseOf(s *Scope) *lease {
	if s != nil && s.root.stay != nil {
		return &s.root.stay.lease
	}
	return &t.lease
}

// lease returns the lease of the outermost scope. There is a thread.
func (s *Scope) lease() *lease { return s.thread.Load().leaseOf(s) }

// leave has what is left to do at the end of the context done on its thread. The context
// is closed or collected, and none of its calls is under way.
func (st *stay) leave() {
	st.mu.Lock()
	ended := st.ended
	st.ended = true
	st.mu.Unlock()
	if ended {
		return
	}
	t := st.thread
	// Nobody changes started any more.
	if !st.needsExit() {
		st.lease.close()
		return
	}
	nc := newNodeCtx(context.Background(), t.home, nil, nil)
	c := &Call{
		body: st, scope: t.home, ctx: &nc.Ctx, node: nc.node,
		source: source{name: "end of a context"},
		manner: manner{bound: true},
	}
	c.note(&Options{})
	c.edge.slept()
	if st.exec.Closed() || t.submit(c) != nil {
		st.fail()
	}
}

// fail ends the stay without its exit functions: there is no thread to run them on.
func (st *stay) fail() {
	st.mu.Lock()
	st.err = st.exec.gone()
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

// refuseAll takes out what is queued for contexts with e's thread, and the ends of such.
func (e *Executor) refuseAll() {
	t := e.thread0()
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

// lasting returns the thread that Last has made the goroutine.
func (e *Executor) lasting() *Thread { return e.maker.thread.Load() }

// idleHere reports whether t is the goroutine of an executor, and runs nothing. The
// caller is that goroutine.
func (t *Thread) idleHere() bool {
	return t.own != nil && t.own.lasts.Load() && t.run == nil && t.top == nil
}

// serveAll has f, which is on top of t, serve everybody.
func (t *Thread) serveAll(f *Frame) {
	t.mu.Lock()
	f.open = true
	t.mu.Unlock()
}
