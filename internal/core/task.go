package core

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// A life is the ctx of a task: a layer that Cancel ends, released when the
// function has ended, or every task would stay registered with a long-lived
// parent ctx.
//
// Tasks that the function leaves behind must not be cancelled by the release.
// So a task started with its parent's very ctx does not hang its layer from
// the parent's, but from what is above that, and the parent cancels its
// children by itself while it runs. Where a ctx was derived in between, that is
// out of our hands: then the layer stays until that child has ended too.
type life struct {
	base   context.Context // foreign, above the task
	layer  context.Context // foreign, what the task's own ctx wraps
	cancel context.CancelCauseFunc
	up     *life // held until the end: its layer is above ours
	node   *Node // that the task runs as
	name   string
	pc     uintptr

	gone atomic.Bool // the layer has been released

	mu       sync.Mutex // guards the rest; that of a life above nests under it
	over     bool       // the function has ended
	held     int        // children whose layer hangs from this one, and the function
	parent   *life      // that cancels us; nil once it is over
	children map[*life]struct{}
	ended    bool // cancelled
	cause    error
	queued   *Call       // of a task that goes to a thread; nil once it is over
	unwatch  func() bool // ends the watch over the layer
}

// queue has l take c, which has been submitted, out of its queue when the layer
// ends. It is the layer that counts: the ctx that the task was started with may
// be that of a task whose end is no cancellation.
func (l *life) queue(c *Call) {
	l.mu.Lock()
	if l.over {
		l.mu.Unlock()
		return
	}
	l.queued = c
	l.mu.Unlock()
	if l.layer.Err() != nil {
		l.withdraw(context.Cause(l.layer)) // who ended it found nothing queued
		return
	}
	if l.base.Done() == nil {
		return // stop alone ends the layer
	}
	unwatch := context.AfterFunc(l.layer, func() { l.withdraw(context.Cause(l.layer)) })
	l.mu.Lock()
	over := l.over
	l.unwatch = unwatch
	l.mu.Unlock()
	if over {
		unwatch()
	}
}

// withdraw takes the task out of its queue.
func (l *life) withdraw(cause error) {
	l.mu.Lock()
	c := l.queued
	l.mu.Unlock()
	if c != nil && c.revoke(cause) {
		c.turnAway()
	}
}

// begin makes l the life of a task that is started with ctx.
func (l *life) begin(ctx context.Context) {
	l.held = 1
	l.base = foreign(ctx)
	var parent *life
	if n := NodeOf(ctx); n != nil {
		parent = n.life
	}
	if parent == nil {
		l.layer, l.cancel = context.WithCancelCause(l.base)
		return
	}
	parent.mu.Lock()
	switch {
	case parent.over && parent.held == 0:
		// Its layer is gone; foreign has looked past it.
	case l.base != parent.layer:
		parent.held++
		l.up = parent
	case !parent.over:
		l.base = parent.base
		if parent.children == nil {
			parent.children = make(map[*life]struct{})
		}
		parent.children[l] = struct{}{}
		l.parent = parent
		// What the parent holds above itself must outlast us as well.
		l.up = parent.up.hold()
	default:
		l.base = parent.base
		l.up = parent.up.hold()
	}
	l.layer, l.cancel = context.WithCancelCause(l.base)
	late, cause := l.parent != nil && parent.ended, parent.cause
	parent.mu.Unlock()
	if late {
		l.stop(cause)
	}
}

func (l *life) hold() *life {
	if l != nil {
		l.mu.Lock()
		l.held++
		l.mu.Unlock()
	}
	return l
}

// stop cancels the task and the children that hang from above it.
func (l *life) stop(cause error) {
	l.mu.Lock()
	if l.over || l.ended {
		l.mu.Unlock()
		return
	}
	l.ended, l.cause = true, cause
	children := slices.Collect(maps.Keys(l.children))
	l.mu.Unlock()
	l.cancel(cause)
	l.withdraw(cause)
	for _, c := range children {
		c.stop(cause)
	}
}

// end says that the function has ended.
func (l *life) end() {
	l.mu.Lock()
	l.over = true
	parent, children, unwatch := l.parent, l.children, l.unwatch
	l.parent, l.children, l.queued = nil, nil, nil
	l.mu.Unlock()
	if unwatch != nil {
		unwatch()
	}
	if parent != nil {
		parent.mu.Lock()
		delete(parent.children, l)
		parent.mu.Unlock()
	}
	for c := range children {
		c.mu.Lock()
		c.parent = nil
		c.mu.Unlock()
	}
	l.release()
}

// release gives up one hold on the layer.
func (l *life) release() {
	for l != nil {
		l.mu.Lock()
		l.held--
		last := l.held == 0
		up := l.up
		if last {
			l.up = nil
		}
		l.mu.Unlock()
		if !last {
			return
		}
		l.gone.Store(true) // before the cancel: see Afterlife
		l.cancel(nil)
		l = up
	}
}

// A Task is the untyped part of a task.
type Task struct {
	call  Call
	node  *Node
	life  *life // apart: contexts keep it, and must not keep the task and its result
	asked atomic.Bool

	group         *Group // that it is a member of; set before it starts
	listed        bool   // among its members; this and the rest are guarded by the group's mu
	before, after *Task
}

// taskCtx is the ctx of a task, its node and its life in one allocation.
type taskCtx struct {
	nodeCtx
	life life
}

// StartTask runs body as a child of ctx's node and with a fork of the caller's
// values: on a new goroutine, or on the thread of o.Scope.
func StartTask(ctx context.Context, t *Task, body Body, o *Options) {
	_, rec := current()
	tc := &taskCtx{}
	l := &tc.life
	tc.scope, tc.node = ScopeOf(ctx), &tc.own
	tc.own.setParent(NodeOf(ctx))
	l.node, l.name, l.pc = &tc.own, o.Name, o.PC
	tc.own.life = l
	t.node, t.life = &tc.own, l
	c := &t.call
	c.body, c.name, c.pc, c.long = body, o.Name, o.PC, o.Long
	// The task is its own submitter: whoever comes to wait for it, wherever it
	// is queued, has it run.
	c.ctx, c.node, c.by = &tc.Ctx, &tc.own, &tc.own
	if o.Scope != nil {
		tc.scope = o.Scope
	}
	c.scope = tc.scope
	c.done = make(chan struct{})
	if rec != nil {
		c.values = rec.Values
	}
	if o.Interrupt != nil {
		c.stop = newInterrupt(o)
	}
	if o.Scope != nil {
		if err := Ended(Afterlife(ctx)); err != nil {
			count.cancelled.Add(1)
			c.refusal = err
			c.finish()
			return
		}
	}
	c.begin(ctx) // a hook may panic: nothing is held yet
	l.begin(ctx)
	c.life = l
	tc.over(l.layer)
	if t.group != nil {
		t.group.list(t)
	}
	switch {
	case o.Refusal != nil:
		c.refusal = o.Refusal
		c.turnAway()
	case o.Scope != nil:
		c.bound = true // nobody waits on its goroutine
		if err := o.Scope.submit(c); err != nil {
			c.refusal = err
			c.turnAway()
			return
		}
		if c.lined {
			c.overflow(ctx)
		}
		l.queue(c)
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

// Refusal is why the task's function has not been run, nil if it has. Only
// after Done.
func (t *Task) Refusal() error { return t.call.refusal }

// Done is closed when the task has ended.
func (t *Task) Done() <-chan struct{} { return t.call.done }

// Ending is how it ended. Only after Done.
func (t *Task) Ending() Ending { return t.call.ending }

// Wait waits for the end of the task: see await.
func (t *Task) Wait(ctx context.Context) error {
	return await(ctx, t, t.node, t.call.done)
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
	select {
	case <-t.call.done:
		return false
	default:
	}
	if t.life.layer.Err() != nil || !t.asked.CompareAndSwap(false, true) {
		return false
	}
	if cause == nil {
		cause = context.Canceled
	}
	t.life.stop(cause)
	return true
}

// Cancelled reports whether Cancel had an effect.
func (t *Task) Cancelled() bool { return t.asked.Load() }

// A Group is the node above the tasks of a group, and their ctx. It counts as
// running while one of them runs.
type Group struct {
	nc nodeCtx

	mu      sync.Mutex // guards the rest; a leaf lock
	members *Task      // that run
	count   int        // of members
}

// Init makes g a group below ctx and returns its context, which cancel ends.
func (g *Group) Init(ctx context.Context) (_ context.Context, cancel context.CancelCauseFunc) {
	by := NodeOf(ctx)
	base, cancel := context.WithCancelCause(foreign(ctx))
	g.nc.over(base)
	g.nc.scope, g.nc.node = ScopeOf(ctx), &g.nc.own
	g.nc.own.setParent(by)
	return &g.nc.Ctx, cancel
}

// Context returns the context of the group's tasks.
func (g *Group) Context() context.Context { return &g.nc.Ctx }

// Add says that t, a task of the group, starts.
func (g *Group) Add(t *Task) {
	t.group = g
	g.nc.own.Start()
}

// list puts t, which is complete and about to run, among the members.
func (g *Group) list(t *Task) {
	g.mu.Lock()
	t.listed = true
	t.after = g.members
	if t.after != nil {
		t.after.before = t
	}
	g.members = t
	g.count++
	g.mu.Unlock()
}

// Done says that t has ended, or has not come to run.
func (g *Group) Done(t *Task) {
	g.mu.Lock()
	if t.listed {
		if t.before != nil {
			t.before.after = t.after
		} else {
			g.members = t.after
		}
		if t.after != nil {
			t.after.before = t.before
		}
		t.listed, t.before, t.after = false, nil, nil
		g.count--
	}
	g.mu.Unlock()
	g.nc.own.End()
}

// Wait waits for done, which the end of the last task closes: see await.
func (g *Group) Wait(ctx context.Context, done <-chan struct{}) error {
	return await(ctx, g, &g.nc.own, done)
}

// A place is what is waited for in a group that has as many members as it may
// have: the end of any one of them.
type place struct {
	*Group
	limit int
}

// WaitForPlace waits for turn, which says that a new member may start; limit is
// how many there may be. The wait ends when the turn comes: nothing else ends it,
// but that it could never come.
func (g *Group) WaitForPlace(turn <-chan struct{}, limit int) error {
	own, rec := current()
	ctx := context.Background()
	return wait(ctx, own, rec, &want{for_: &place{g, limit}, ctx: ctx}, &g.nc.own, turn, "group place")
}

// OnEnd has f called when the task has ended, before anybody is woken. It is
// set before the task starts.
func (t *Task) OnEnd(f func()) { t.call.onEnd = f }
