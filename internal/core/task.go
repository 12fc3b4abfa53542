package core

import (
	"context"

	"asyncsync.dev/internal/cycle"
)

// StartTask runs body as a child of ctx's node and with a fork of the caller's
// values: on the thread of o.Scope, on the loop o.Home or else that of ctx, or on a
// new goroutine.
func StartTask(ctx context.Context, t *Task, body TaskBody, o *Options) {
	_, rec := current()
	var l *life
	var now *Ctx // of a task that does not wait in a queue
	home, on := o.Home, o.Home
	if home == nil {
		home = homeOf(ctx)
		if h := home.Tasks(); o.Scope == nil && h.tasks() {
			home, on = h, h
		}
	}
	home = home.callsBackTo(homeOf(ctx))
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
	t.settle(o, now != nil)
	if now != nil {
		l.label = *t.label
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
	if hooked(c.scope) {
		c.more()
		c.tellQueued(ctx) // a hook may panic: nothing is held yet
		watched = c.watched
	}
	if s := ScopeOf(ctx); s != nil && s.tasks != nil {
		s.tasks.counted(c)
	}
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
	switch {
	case o.Refusal != nil:
		c.more().refusal = o.Refusal
		c.turnAway()
	case o.Scope != nil:
		c.bound = true // nobody waits on its goroutine
		if err := o.Scope.submit(c); err != nil {
			c.more().refusal = o.Scope.named(err, c.title())
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
			c.outwait()
		}
		l.queue(c)
	case on != nil:
		c.node.Start()
		l.mu.Lock()
		l.queued = c
		ended, cause := l.ended, l.cause
		l.mu.Unlock()
		if ended {
			l.withdraw(cause) // who ended it found nothing queued
			return
		}
		if on.Backend == nil {
			go c.watch(on.Loop.Done(), t.Done(), on.Stopped)
		}
		if err := c.send(on, j); err != nil && c.turnDown(err) {
			c.turnAway()
		}
	default:
		c.node.Start()
		go func() {
			// Not from within runAsync: the end of a ctx takes stack, which a
			// new goroutine has little of, and growing it takes a microsecond.
			defer c.finish()
			c.runAsync()
		}()
	}
}

// settle gives t what it needs from the start. A task that is to wait in the queue of a
// thread needs no rest for that: whole says that t is none.
func (t *Task) settle(o *Options, whole bool) {
	c := &t.call
	rest := o.Rest
	if rest == nil && (whole || o.OnEnd != nil || o.Interrupt != nil) {
		rest = &TaskRest{}
	}
	switch {
	case rest != nil:
		rest.label = label{o.Name, o.PC}
		t.label = &rest.label
		rest.onEnd = o.OnEnd
		c.give(rest)
	case o.Name != "" || !c.knowsPC(o.PC):
		t.label = &label{o.Name, o.PC}
	}
	if o.Interrupt != nil {
		c.stop = newInterrupt(o)
	}
}

// watch has c, a task on a loop that others have made, not begin when stopped is
// closed, for the reason why; until ended is.
func (c *Call) watch(stopped, ended <-chan struct{}, why error) {
	select {
	case <-stopped:
		if c.turnDown(why) {
			c.turnAway()
		}
	case <-ended:
	}
}

// Refusal is why the task's function has not been run, nil if it has. Only
// after Done.
func (t *Task) Refusal() error { return t.call.refusal }

// Hear says that somebody is told how the task has ended; Heard, whether that was
// said.
func (t *Task) Hear() {
	t.call.heard.Store(true)
	if p := t.call.ending.Panic; p != nil {
		p.heard()
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

// gateOr returns the gate, which is fresh if there is none yet.
func (t *Task) gateOr(fresh *Gate) *Gate {
	t.gate.CompareAndSwap(nil, fresh)
	return t.gate.Load()
}

// open opens the gate.
func (t *Task) open() {
	if !t.gate.CompareAndSwap(nil, openGate) {
		t.gate.Load().Open()
	}
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
	return await(ctx, &w.goal, t.Node(), t.gateOr(&w.gate))
}

// Raise ends the caller as the task did, unless it returned.
func (t *Task) Raise() {
	if !t.call.ending.Returned() {
		t.call.ending.Raise()
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

// ask notes that Cancel has had an effect, and reports whether it is the first time.
func (t *Task) ask() bool {
	l := t.call.life()
	l.mu.Lock()
	defer l.mu.Unlock()
	first := !t.call.asked
	t.call.asked = true
	return first
}

// Init makes g a group below ctx and returns its context, which cancel ends.
func (g *Group) Init(ctx context.Context) (_ context.Context, cancel context.CancelCauseFunc) {
	by := NodeOf(ctx)
	base, cancel := context.WithCancelCause(foreign(ctx))
	g.nc.over(base)
	g.nc.scope, g.nc.node, g.nc.home = ScopeOf(ctx), &g.nc.own, homeOf(ctx)
	g.nc.own.setParent(by)
	return &g.nc.Ctx, cancel
}

// Context returns the context of the group's tasks.
func (g *Group) Context() context.Context { return &g.nc.Ctx }

// Add makes m, whose task is about to start, a place in the group.
func (g *Group) Add(m *Member) {
	m.group = g
	g.nc.own.Start()
}

// Done says that the task of m has ended, or has not come to run.
func (g *Group) Done(m *Member) {
	m.Leave()
	g.nc.own.End()
}

// list says that c, which is complete and about to run, is the member m.
func (m *Member) list(c *Call) {
	g := m.group
	g.mu.Lock()
	m.listed, m.call = true, c
	m.after = g.members
	if g.members != nil {
		g.members.before = m
	}
	g.members = m
	g.mu.Unlock()
}

// Leave says that m has ended, or has not come to run.
func (m *Member) Leave() {
	g := m.group
	g.mu.Lock()
	defer g.mu.Unlock()
	if !m.listed {
		return
	}
	if m.before != nil {
		m.before.after = m.after
	} else {
		g.members = m.after
	}
	if m.after != nil {
		m.after.before = m.before
	}
	m.listed, m.call, m.before, m.after = false, nil, nil, nil
}

// Wait waits for idle, which the end of the last task opens: see await.
func (g *Group) Wait(ctx context.Context, idle *Gate) error {
	if idle.IsOpen() {
		return nil
	}
	return await(ctx, &goal{target: forGroup{g}}, &g.nc.own, idle)
}

// WaitForPlace waits for turn, which says that a new member may start; limit is
// how many there may be. The wait ends when the turn comes: nothing else ends it,
// but that it could never come.
func (g *Group) WaitForPlace(turn <-chan struct{}, limit int) error {
	own, rec := current()
	ctx := context.Background()
	return wait(ctx, own, rec, &goal{target: &forPlace{g, limit}, ctx: ctx}, &g.nc.own, turn, "group place")
}

func (f forTask) kind() string { return "task" }

func (f forTask) name() string { return f.t.call.Name() }

func (f forTask) next() (*Call, *Node) { return &f.t.call, f.t.Node() }

func (f forTask) reached() any { return f.t.Node() }

func (f forTask) mayWait() bool {
	return f.t.call.thread.Load() != nil || f.t.Node().waits.Load() != nil
}

func (f forTask) needs(q *query) cycle.Needs {
	if f.t.call.thread.Load() != nil {
		return q.one(&callVertex{q, &f.t.call})
	}
	return q.one(q.elsewhere(&f.t.call))
}

func (f forTask) report(v *view, w *WaitState) {
	w.Function = v.found(f.t.Node(), f.t.call.title())
	if f.t.call.thread.Load() != nil {
		forCall{&f.t.call}.report(v, w)
	} else {
		w.Goroutine = f.t.call.edge.gid.Load()
	}
}

func (f forGroup) kind() string { return "group" }

func (f forGroup) name() string { return "" }

func (f forGroup) next() (*Call, *Node) { return nil, nil }

func (f forGroup) reached() any { return &f.g.nc.own }

func (f forGroup) report(v *view, w *WaitState) { v.members(w, f.g) }

func (f forGroup) mayWait() bool {
	f.g.mu.Lock()
	defer f.g.mu.Unlock()
	for m := f.g.members; m != nil; m = m.after {
		if m.call.node.waits.Load() != nil {
			return true
		}
	}
	return false
}

func (f forGroup) needs(q *query) cycle.Needs { return cycle.Needs{Of: q.members(f.g)} }

func (f *forPlace) kind() string { return "group place" }

func (f *forPlace) name() string { return "" }

func (f *forPlace) mayWait() bool { return true }

func (f *forPlace) next() (*Call, *Node) { return nil, nil }

func (f *forPlace) reached() any { return &f.g.nc.own }

func (f *forPlace) report(v *view, w *WaitState) { v.members(w, f.g) }

func (f *forPlace) needs(q *query) cycle.Needs { return q.one(&placeVertex{q, f}) }
