package core

import (
	"context"
	"sync/atomic"

	"asyncsync.dev/internal/cycle"
)

// StartTask runs body as a child of ctx's node and with a fork of the caller's
// values: on the thread of o.Scope, on the loop o.Home or else that of ctx, or on a
// new goroutine.
func StartTask(ctx context.Context, t *Task, body TaskBody, o *Options) {
	_, rec := current()
	home, on := o.Home, o.Home
	if home == nil {
		home = homeOf(ctx)
		if h := home.Tasks(); o.Scope == nil && h.tasks() {
			home, on = h, h
		}
	}
	home = home.callsBackTo(homeOf(ctx))
	var l *life
	var now *Ctx // of a task that does not wait in the queue of a thread
	var j *Job
	switch {
	case on != nil:
		lc := &loopCtx{}
		l, now, j = lc.whole(home), &lc.Ctx, &lc.job
		j.life = l
	case o.Scope == nil:
		tc := &taskCtx{}
		l, now = tc.whole(home), &tc.Ctx
	default:
		l = &life{}
	}
	l.own.setParent(NodeOf(ctx))
	l.own.life = l
	c := &t.call
	c.body, c.task, c.node, c.long = body, true, &l.own, o.Long
	t.home = home
	t.prepare(o, now != nil)
	if now != nil {
		l.label = *t.label.Load()
	}
	if o.Into != nil {
		*o.Into = t
	}
	c.scope = ScopeOf(ctx)
	if o.Scope != nil {
		c.scope = o.Scope
	}
	if rec != nil {
		c.values = rec.Values
	}
	if o.Scope != nil {
		if err := Ended(Afterlife(ctx)); err != nil {
			count.cancelled.Add(1)
			c.more().refusal = err
			l.begin(ctx)
			c.finish()
			return
		}
	}
	var watched *watch
	if hooked(c.scope) && !o.Quiet {
		c.more()
		c.tellQueued(ctx) // a hook may panic: nothing is held yet
		watched = c.watched
	}
	scope := ScopeOf(ctx)
	l.begin(ctx)
	if o.Member != nil {
		o.Member.list(c)
	}
	switch {
	case now != nil:
		c.ctx = watched.carryOwn(l.open(now, c.scope))
	case o.Refusal != nil || watched != nil:
		c.ctx = watched.carryOwn(l.openLate(t))
	}
	var left func()
	if scope != nil && scope.tasks != nil {
		left = scope.tasks.counted(c) // after the code of ctx that may keep c from running
	}
	switch {
	case o.Refusal != nil:
		c.more().refusal = o.Refusal
		c.turnAway()
	case o.Scope != nil:
		c.startOnThread(ctx, o.Scope)
	case on != nil:
		c.startOnLoop(on, j, left)
	default:
		c.node.Start()
		go func() {
			// finish is not called within runAsync. It ends a ctx, which needs
			// stack, and growing the small stack of a new goroutine takes a
			// microsecond.
			defer c.finish()
			c.runAsync()
		}()
	}
}

// startOnThread queues c, a task that was started with ctx, on the thread of s.
func (c *Call) startOnThread(ctx context.Context, s *Scope) {
	c.bound = true // nobody waits on its goroutine
	if err := s.submit(c); err != nil {
		c.more().refusal = s.named(err, c.title())
		c.turnAway()
		return
	}
	if c.lined && !c.overflow(ctx) {
		if err := c.turnedAway(); err != nil && c.revoke(err) {
			c.turnAway()
			return
		}
	}
	if c.timed {
		c.outwait(s)
	}
	c.life().queue(c)
}

// startOnLoop gives c, a task, to h, where it runs as j. If that panics or calls Goexit,
// startOnLoop calls left, unless it is nil: then c may never end.
func (c *Call) startOnLoop(h *Home, j *Job, left func()) {
	c.node.Start()
	j.Values = c.values // before c can be withdrawn
	l := c.life()
	l.mu.Lock()
	l.queued = c
	cause := l.causeNow()
	l.mu.Unlock()
	if cause != nil {
		l.withdraw(cause) // who ended it found nothing queued
		return
	}
	sent := false
	defer func() {
		if !sent && left != nil {
			left()
		}
	}()
	err := c.send(h, j) // may panic, or call Goexit, if h is not of package loop
	sent = true
	switch {
	case err != nil:
		if c.turnDown(err) {
			c.turnAway()
		}
	case h.Backend == nil:
		go c.refuseAt(h.Loop.Done(), c.promise().Done(), c.ctx.Done(), h.Stopped)
	}
}

// prepare gives t what it needs from the start. A task that is to wait in the queue of a
// thread needs no rest for that: whole says that t is not such a task.
func (t *Task) prepare(o *Options, whole bool) {
	c := &t.call
	rest := o.Rest
	if rest == nil && (whole || o.OnEnd != nil || o.Interrupt != nil) {
		rest = &TaskRest{}
	}
	switch {
	case rest != nil:
		rest.label = label{o.Name, o.PC}
		t.label.Store(&rest.label)
		rest.onEnd = o.OnEnd
		c.give(rest)
	case o.Name != "" || !c.knowsPC(o.PC):
		t.label.Store(&label{o.Name, o.PC})
	}
	if o.Interrupt != nil {
		c.stop = newInterrupt(o)
	}
}

// Made reports whether t was started, and is no zero value.
func (t *Task) Made() bool { return t.call.task }

// refuseAt refuses c, a task on a foreign loop, if stopped or cancelled is closed before c
// begins: with why, or with the cause of c's ctx. The loop may drop c then, and tells
// nobody. refuseAt returns when ended is closed.
func (c *Call) refuseAt(stopped, ended, cancelled <-chan struct{}, why error) {
	select {
	case <-stopped:
	case <-cancelled:
		why = Cause(c.ctx)
	case <-ended:
		return
	}
	if c.turnDown(why) {
		c.turnAway()
	}
}

// Refusal is why the task's function has not been run, nil if it has. Only
// after Done.
func (t *Task) Refusal() error { return t.call.refusal }

// Hear notes that a waiter is told how the task has ended.
func (t *Task) Hear() {
	t.call.heard.Store(true)
	if p := t.call.ending.Panic; p != nil {
		p.Heard()
	}
}

// Heard reports whether Hear was called.
func (t *Task) Heard() bool { return t.call.heard.Load() }

// Err is what the task's function has returned. Only in OnEnd, and later.
func (t *Task) Err() error {
	if f, ok := t.call.body.(Failing); ok && t.call.ending.Returned() {
		return f.Err()
	}
	return nil
}

// Done is closed when the task has ended.
func (t *Task) Done() <-chan struct{} {
	g := t.gate.Load()
	if g == nil {
		g = t.gateOr(&Gate{})
	}
	return g.Done()
}

// Ending is how it ended. Only after Done.
func (t *Task) Ending() Ending { return t.call.ending }

// Wait waits for the end of the task: see await.
func (t *Task) Wait(ctx context.Context) error {
	if t.call.hasEnded() {
		return nil
	}
	w := &taskWait{}
	w.target = forTask{t}
	defer func() { w.ctx = nil }() // the task may keep the gate, and so all of w
	err := await(ctx, &w.goal, t.Node(), t.gateOr(&w.gate))
	if err != nil && t.call.hasEnded() {
		return nil // others may know already, before the gate is open
	}
	return err
}

// Raise ends the caller as the task did, unless it returned.
func (t *Task) Raise() {
	if !t.call.ending.Returned() {
		Raise(t.call.ending)
	}
}

// Cancel ends the task's ctx. It reports false if the task has ended or was
// cancelled before.
func (t *Task) Cancel(cause error) bool {
	l := t.call.life()
	if t.call.hasEnded() || l.isEnded() || !t.ask() {
		return false
	}
	if cause == nil {
		cause = context.Canceled
	}
	l.stop(cause)
	return true
}

// Cancelled reports whether Cancel had an effect.
func (t *Task) Cancelled() bool {
	l := t.call.life()
	l.mu.Lock()
	defer l.mu.Unlock()
	return t.call.asked
}

// ask notes that Cancel has an effect, and reports whether this is the first time.
func (t *Task) ask() bool {
	l := t.call.life()
	l.mu.Lock()
	defer l.mu.Unlock()
	first := !t.call.asked
	t.call.asked = true
	return first
}

func (f forTask) kind() string { return "task" }

func (f forTask) name() string { return f.t.call.Name() }

func (f forTask) next() (*Call, *Node) { return &f.t.call, f.t.Node() }

func (f forTask) reached() any { return f.t.Node() }

func (f forTask) mayWait() bool { return f.t.call.mayWait() }

// mayWait reports whether c, a task, may be waiting for something. Of one on a thread
// only the thread knows.
func (c *Call) mayWait() bool { return c.thread.Load() != nil || c.node.waits.Load() != nil }

func (f forTask) needs(q *query) cycle.Needs { return q.one(q.task(&f.t.call)) }

func (f forTask) report(v *view, w *WaitState) {
	w.Function = v.found(f.t.Node(), f.t.call.title())
	if f.t.call.thread.Load() != nil {
		forCall{&f.t.call}.report(v, w)
	} else {
		w.Goroutine = f.t.call.edge.gid.Load()
	}
}

// WaitOr waits until done is closed or ctx ends, and then returns nil or the cause of
// ctx. done must be closed by the end of the task. Meanwhile the task is joined, as in
// Wait. The wait is never refused, because code other than the task may close done.
func (t *Task) WaitOr(ctx context.Context, done <-chan struct{}) error {
	ctx = Afterlife(ctx)
	own, rec := current()
	return wait(ctx, own, rec, nil, t.Node(), done, "start")
}

var lastTask atomic.Uint64

// TaskOf returns the number and the name of the task that ctx belongs to, or, if
// ctx says nothing, the calling goroutine; 0 if there is none.
func TaskOf(ctx context.Context) (id uint64, name string) {
	n := submitter(ctx, record())
	if n == nil || n.life == nil {
		return 0, ""
	}
	l := n.life
	if id = l.id.Load(); id == 0 {
		l.id.CompareAndSwap(0, lastTask.Add(1))
		id = l.id.Load()
	}
	return id, l.called()
}
