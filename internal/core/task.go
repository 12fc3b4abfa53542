package core

import (
	"context"
	"sync/atomic"

	"asyncsync.dev/internal/goroutine"
)

// A life is the part of a task that outlasts its function: its ctx can be
// cancelled as long as the task or a task started below it runs, and is
// released with the last of them. Without the release every task would stay
// registered with a long-lived parent ctx; released with the function, it
// would cancel the tasks that the function left behind.
type life struct {
	refs   atomic.Int32
	up     *life
	base   context.Context // foreign, above the task
	layer  context.Context // foreign, what the task's own ctx wraps
	cancel context.CancelCauseFunc
}

func (l *life) release() {
	for ; l != nil && l.refs.Add(-1) == 0; l = l.up {
		l.cancel(nil)
	}
}

// retain reports false if l is over already.
func (l *life) retain() bool {
	for {
		n := l.refs.Load()
		if n == 0 {
			return false
		}
		if l.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// A Task is the untyped part of a task.
type Task struct {
	call  Call
	life  life
	nc    nodeCtx
	asked atomic.Bool
}

// StartTask runs body on a new goroutine, as a child of ctx's node and with a
// fork of the caller's values.
func StartTask(ctx context.Context, t *Task, body Body, o *Options) {
	rec := goroutine.Current()
	by := NodeOf(ctx)
	l := &t.life
	l.refs.Store(1)
	l.base = foreign(ctx)
	if by != nil {
		for l.up = by.life; l.up != nil && !l.up.retain(); {
			l.up = l.up.up
		}
	}
	l.layer, l.cancel = context.WithCancelCause(l.base)
	t.nc.Context, t.nc.scope, t.nc.node = l.layer, ScopeOf(ctx), &t.nc.own
	t.nc.own.setParent(by)
	t.nc.own.life = l
	c := &t.call
	c.body, c.name, c.pc = body, o.Name, o.PC
	c.ctx, c.node, c.by = &t.nc.Ctx, &t.nc.own, by
	c.scope = t.nc.scope
	c.done = make(chan struct{})
	if rec != nil {
		c.values = rec.Values
	}
	c.begin(ctx)
	c.node.Start()
	go func() {
		defer l.release()
		c.runAsync()
	}()
}

// Done is closed when the task has ended.
func (t *Task) Done() <-chan struct{} { return t.call.done }

// Ending is how it ended. Only after Done.
func (t *Task) Ending() Ending { return t.call.ending }

// Wait waits for the end of the task: see [Wait].
func (t *Task) Wait(ctx context.Context) error {
	return Wait(ctx, t.call.node, t.call.done)
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
	if !t.asked.CompareAndSwap(false, true) {
		return false
	}
	t.life.cancel(cause)
	return true
}

// Cancelled reports whether Cancel had an effect.
func (t *Task) Cancelled() bool { return t.asked.Load() }

// A Group is the node above the tasks of a group, and their ctx. It counts as
// running while one of them runs.
type Group struct {
	nc nodeCtx
}

// Init makes g a group below ctx and returns its context, which cancel ends.
func (g *Group) Init(ctx context.Context) (_ context.Context, cancel context.CancelCauseFunc) {
	by := NodeOf(ctx)
	g.nc.Context, cancel = context.WithCancelCause(foreign(ctx))
	g.nc.scope, g.nc.node = ScopeOf(ctx), &g.nc.own
	g.nc.own.setParent(by)
	return &g.nc.Ctx, cancel
}

// Context returns the context of the group's tasks.
func (g *Group) Context() context.Context { return &g.nc.Ctx }

// Add says that a task of the group starts, Done that it has ended.
func (g *Group) Add()  { g.nc.own.Start() }
func (g *Group) Done() { g.nc.own.End() }

// Wait waits for done, which the end of the last task closes: see [Wait].
func (g *Group) Wait(ctx context.Context, done <-chan struct{}) error {
	return Wait(ctx, &g.nc.own, done)
}

// OnEnd has f called when the task has ended, before anybody is woken. It is
// set before the task starts.
func (t *Task) OnEnd(f func()) { t.call.onEnd = f }
