package core

import (
	"context"
	"sync"

	"asyncsync.dev/internal/goroutine"
)

// An Executor runs what is posted to it on the goroutine that made it, while
// that is in RunUntil.
type Executor struct {
	gid int64

	mu      sync.Mutex // guards the rest; nests outside Thread.mu
	pending []func()   // posted while nobody ran it
	thread  *Thread    // in RunUntil
	scope   *Scope     // in RunUntil
	frame   *Frame     // in RunUntil

	failed *Panic // of a posted function; its own goroutine only
}

// NewExecutor returns an executor of the calling goroutine.
func NewExecutor() *Executor { return &Executor{gid: goroutine.ID()} }

// Mine reports whether the caller is the executor's goroutine.
func (e *Executor) Mine() bool { return goroutine.ID() == e.gid }

// Post has fn run by the RunUntil that is under way, or by the next.
func (e *Executor) Post(fn func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.frame == nil || e.send(fn) != nil {
		e.pending = append(e.pending, fn)
	}
}

// send queues fn for the RunUntil under way. e.mu is held.
func (e *Executor) send(fn func()) error {
	nc := newNodeCtx(context.Background(), e.scope, nil)
	c := &Call{body: &posted{e, fn}, scope: e.scope, ctx: &nc.Ctx, node: nc.node, pin: e.frame, name: "posted function"}
	return e.thread.submit(c)
}

// posted is the body of a posted function.
type posted struct {
	e  *Executor
	fn func()
}

func (p *posted) Run(context.Context) {
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
// then has run.
func (e *Executor) RunUntil(done <-chan struct{}) {
	t, _ := current()
	var s *Scope
	if t == nil {
		t, s = adopt("")
		defer t.release()
	} else {
		s = t.scopeNow(context.Background())
	}
	e.serve(t, s, done)
	if p := e.failed; p != nil {
		e.failed = nil
		Ending{Panic: p}.Raise()
	}
}

func (e *Executor) serve(t *Thread, s *Scope, done <-chan struct{}) {
	f := &Frame{}
	t.push(f, "executor")
	e.mu.Lock()
	thread, scope, frame := e.thread, e.scope, e.frame // of a RunUntil below
	e.thread, e.scope, e.frame = t, s, f
	pending := e.pending
	e.pending = nil
	for _, fn := range pending {
		if e.send(fn) != nil {
			e.pending = append(e.pending, fn)
		}
	}
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		e.keep(f)
		e.thread, e.scope, e.frame = thread, scope, frame
		e.mu.Unlock()
		t.pop(f)
	}()
	t.serve(f, done, nil)
	for {
		t.mu.Lock()
		var c *Call
		if !f.done {
			c = t.next()
		}
		t.mu.Unlock()
		if c == nil {
			return
		}
		t.exec(c)
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
			f.box.remove(c)
			t.waiting--
			c.state = revoked
			left = append(left, c)
		}
		c = next
	}
	t.mu.Unlock()
	for _, c := range left {
		e.pending = append(e.pending, c.body.(*posted).fn)
		c.scope.leave()
	}
}
