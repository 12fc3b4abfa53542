package core

import (
	"context"
	"sync"

	"asyncsync.dev/internal/goroutine"
)

// An Executor runs what is posted to it on the goroutine that made it, while
// that is in RunUntil.
type Executor struct {
	gid  int64
	done chan struct{} // closed by Close

	mu      sync.Mutex // guards the rest; nests outside Thread.mu
	closed  bool
	pending []*posted // posted while nobody ran it
	thread  *Thread   // in RunUntil
	scope   *Scope    // in RunUntil
	frame   *Frame    // in RunUntil

	failed *Panic // of a posted function; its own goroutine only
}

// NewExecutor returns an executor of the calling goroutine.
func NewExecutor() *Executor {
	return &Executor{gid: goroutine.ID(), done: make(chan struct{})}
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
	f := e.frame
	if f != nil {
		e.keep(f) // under mu: nobody posts any more
	}
	e.pending = nil
	e.mu.Unlock()
	if f != nil {
		f.complete() // of those below each is told by the one on top of it
	}
	close(e.done)
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
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	if e.frame == nil || e.send(p) != nil {
		e.pending = append(e.pending, p)
	}
	return true
}

// send queues fn for the RunUntil under way. e.mu is held.
func (e *Executor) send(p *posted) error {
	nc := newNodeCtx(context.Background(), e.scope, nil, nil)
	c := &Call{
		body: p, scope: e.scope, ctx: &nc.Ctx, node: nc.node,
		source: source{by: p.by, pin: e.frame, name: "posted function"},
		manner: manner{bound: true},
	}
	c.note(&Options{})
	c.edge.slept()
	return e.thread.submit(c)
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
			f := p.e.frame // only this goroutine changes it
			e.Panic.tell(CallInfo{Name: "posted function"}, nil)
			p.e.failed = e.Panic
			f.thread.mu.Lock()
			f.done = true
			f.thread.mu.Unlock()
		}
	}()
	p.fn()
	returned = true
}

// RunUntil serves until done is closed or delivers, and what had been posted
// then has run. It reports false if it ends, or does not begin, because the
// executor is closed.
func (e *Executor) RunUntil(done <-chan struct{}) bool {
	if e.Closed() {
		return false
	}
	t, _ := current()
	var s *Scope
	if t == nil {
		t, s = adopt("")
		defer t.release()
	} else {
		s = t.scopeNow(context.Background())
	}
	if s == nil { // in an exit function
		s = &Scope{kind: adoptedScope, cfg: DefaultConfig}
		s.root = s
	}
	e.serve(t, s, done)
	if p := e.failed; p != nil {
		e.failed = nil
		Ending{Panic: p}.Raise()
	}
	return !e.Closed()
}

func (e *Executor) serve(t *Thread, s *Scope, done <-chan struct{}) {
	f := &Frame{}
	t.push(f, "executor")
	e.mu.Lock()
	thread, scope, frame := e.thread, e.scope, e.frame // of a RunUntil below
	if frame != nil {
		e.keep(frame)
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
		e.keep(f)
		e.thread, e.scope, e.frame = thread, scope, frame
		closed := e.closed
		if closed {
			e.pending = nil // else it would be kept as long as e
		} else if frame != nil {
			e.resend()
		}
		e.mu.Unlock()
		if closed && frame != nil {
			frame.complete()
		}
		t.pop(f)
	}()
	z := sleeper{own: t, frame: f, edge: &f.edge, done: done}
	z.wait()
	// What had been posted when done came is run, but not what that posts: it
	// could go on for ever.
	t.mu.Lock()
	last := t.seq
	for !f.done && f.box.head != nil && f.box.head.seq <= last {
		c := t.next()
		t.mu.Unlock()
		t.exec(c)
		t.mu.Lock()
	}
	t.mu.Unlock()
}

// resend queues what is pending for the RunUntil under way. e.mu is held.
func (e *Executor) resend() {
	pending := e.pending
	e.pending = nil
	for _, p := range pending {
		if e.send(p) != nil {
			e.pending = append(e.pending, p)
		}
	}
}

// keep takes what is left in f's box for the next RunUntil. e.mu is held.
func (e *Executor) keep(f *Frame) {
	t := f.thread
	t.mu.Lock()
	var left []*Call
	for c := f.box.head; c != nil; {
		next := c.next
		if c.pin == f {
			t.remove(c, nil)
			left = append(left, c)
		}
		c = next
	}
	t.mu.Unlock()
	for _, c := range left {
		e.pending = append(e.pending, c.body.(*posted))
		c.scope.leave()
	}
}
