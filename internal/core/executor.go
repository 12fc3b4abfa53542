package core

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"asyncsync.dev/internal/goroutine"
)

// An Executor runs what is posted to it on the goroutine that made it, while
// that is in RunUntil.
type Executor struct {
	gid   int64
	maker *maker        // nil if the goroutine was a thread already
	done  chan struct{} // closed by Close

	Stopped error // what the calls get that it does not run

	shut atomic.Bool // it is closed; set under mu, before its calls are looked for

	mu      sync.Mutex // guards the rest; nests outside Thread.mu
	closed  bool
	pending []*posted // posted while nobody ran it
	thread  *Thread   // in RunUntil
	scope   *Scope    // in RunUntil
	frame   *Frame    // in RunUntil
	onWake  func()
	woken   bool // onWake has been called since the last run

	failed *Panic // of a posted function; its own goroutine only
}

// NewExecutor returns an executor of the calling goroutine. Calls that it does not run
// get stopped.
func NewExecutor(stopped error) *Executor {
	e := &Executor{gid: goroutine.ID(), Stopped: stopped, done: make(chan struct{})}
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

// Close drops what has been posted and has not begun, and ends each RunUntil
// when the function that it runs has ended. Who waits for what is dropped learns
// of it from Done.
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
		e.keep(f.thread, f) // under mu: nobody posts any more
	} else if t := e.thread0(); t != nil {
		e.keep(t, nil)
	}
	e.pending = nil
	e.mu.Unlock()
	e.refuseAll()
	if f != nil {
		f.complete() // of those below each is told by the one on top of it
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
	// What a function on the executor's thread waits for is run on top of it,
	// even if that function was posted itself.
	p := &posted{e, fn, ownNode()}
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return false
	}
	idle := e.frame == nil
	if e.send(p) != nil {
		e.pending = append(e.pending, p)
	}
	e.mu.Unlock()
	if idle {
		e.notify()
	}
	return true
}

// Disown has the goroutine of e be one like others, if it has no other executor.
func (e *Executor) Disown() {
	if e.maker != nil {
		e.maker.disown(e)
	}
}

// send queues fn for the RunUntil under way, or else on the thread that the goroutine
// is: there a wait runs it that depends on who has posted it. e.mu is held.
func (e *Executor) send(p *posted) error {
	t, s := e.thread, e.scope
	if e.frame == nil {
		if t = e.thread0(); t == nil {
			return errOver
		}
		s = t.home
	}
	nc := newNodeCtx(context.Background(), s, nil, nil)
	c := &Call{
		body: p, scope: s, ctx: &nc.Ctx, node: nc.node,
		source: source{by: p.by, pin: e.frame, name: "posted function"},
		manner: manner{bound: true},
	}
	c.note(&Options{})
	c.edge.slept()
	return t.submit(c)
}

// posted is the body of a posted function.
type posted struct {
	e  *Executor
	fn func()
	by *Node // the poster
}

func (p *posted) Run(context.Context) {
	select {
	case <-p.e.done: // Close has not found it: a wait on top had taken it
		return
	default:
	}
	returned := false
	defer func() {
		if returned {
			return
		}
		// A panic is RunUntil's to raise: it has no other caller. The rest
		// stays for the next RunUntil. After a Goexit there is no RunUntil any
		// more to tell.
		if e := recovered(recover(), nil); e.Panic != nil {
			e.Panic.tell(CallInfo{Name: "posted function"}, nil)
			p.e.failed = e.Panic
			f := p.e.frame // only this goroutine changes it
			if f == nil {
				return // the next RunUntil
			}
			f.thread.mu.Lock()
			f.done = true
			f.thread.mu.Unlock()
		}
	}()
	p.fn()
	returned = true
}

// RunUntil serves until done is closed or delivers, and what had been posted
// then has run, and returns how many of these there were. It reports false if it
// ends, or does not begin, because the executor is closed.
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
		Ending{Panic: p}.Raise()
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
	} else if o := e.thread0(); o != nil {
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
			e.pending = nil // else it would be kept as long as e
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
	z := sleeper{own: t, frame: f, edge: &f.edge, done: done}
	z.wait()
	// What had been posted when done came is run, but not what that posts: it
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

// postedOnly reports whether all that runs on t, the calling thread, was posted: no
// function of a context would be disturbed by a stranger.
func (t *Thread) postedOnly() bool {
	for c := t.run; c != nil; c = c.outer {
		if _, ok := c.body.(*posted); !ok {
			return false
		}
	}
	return true
}

// resend queues what is pending, where somebody may run it. e.mu is held.
func (e *Executor) resend() {
	pending := e.pending
	e.pending = nil
	for _, p := range pending {
		if e.send(p) != nil {
			e.pending = append(e.pending, p)
		}
	}
}

// keep takes back what lies in f's box, or, if f is nil, what was posted to t while there
// was no RunUntil. e.mu is held.
func (e *Executor) keep(t *Thread, f *Frame) {
	var left []*Call
	take := func(l *list) {
		for c := l.head; c != nil; {
			next := c.next
			if p, ok := c.body.(*posted); ok && p.e == e && c.pin == f {
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
	for _, c := range left {
		e.pending = append(e.pending, c.body.(*posted))
		c.scope.leave()
	}
}
