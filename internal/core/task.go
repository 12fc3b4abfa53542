package core

import (
	"context"
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
//
// Many tasks may wait in a queue. What only the function needs is made when that
// begins: until then there is no layer, and nothing of the task hangs from base
// but through the one watcher of all that wait with it.
type life struct {
	own  Node            // that the task runs as
	base context.Context // foreign, above the task
	up   *life           // held until the end: its layer is above ours
	name *string         // nil if it was given none: a queue of many tasks is to be small
	pc   uintptr
	id   atomic.Uint64 // given when it is first asked for

	// layer is a foreign context, what the task's own ctx wraps. It and cancel are
	// nil before the function begins, and written under mu; whoever has the task's
	// ctx may read them without.
	layer  context.Context
	cancel context.CancelCauseFunc

	mu      sync.Mutex  // guards the rest; that of a life above nests under it
	held    int32       // children whose layer hangs from this one, and the function
	over    bool        // the function has ended
	ended   bool        // cancelled
	listed  bool        // it is among the children of its parent, whose mu guards this
	begun   bool        // the function has, or is about to
	watched bool        // it was put among the watches, or will be
	alone   bool        // nobody but home ends it; set before it is shared
	gone    atomic.Bool // the layer has been released
	cause   error
	parent  *life // that cancels us; nil once it is over
	queued  *Call // of a task that goes to a thread or a loop; nil once it has begun
	home    *Home // of its ctx; set before it is shared

	// The children that this one cancels; before and after are guarded by the mu
	// of the parent.
	children      *life
	before, after *life

	watch watchLink // guarded by watches
}

// called returns what the task is called in reports.
func (l *life) called() string {
	if l.name != nil {
		return *l.name
	}
	return callName("", l.pc)
}

// queue has l take c, which has been submitted, out of its queue when base ends:
// the ctx that the task was started with may be that of a task whose end is no
// cancellation.
func (l *life) queue(c *Call) {
	done := l.base.Done()
	l.mu.Lock()
	if l.over || l.begun {
		l.mu.Unlock()
		return
	}
	l.queued = c
	ended, cause := l.ended, l.cause
	l.watched = done != nil && !ended
	l.mu.Unlock()
	switch {
	case ended:
		l.withdraw(cause) // who ended it found nothing queued
		return
	case done == nil:
		return // stop alone ends the task
	}
	watches.add(l, done)
	if err := Ended(l.base); err != nil {
		l.withdraw(err)
	}
	l.mu.Lock()
	begun := l.over || l.begun
	l.mu.Unlock()
	if begun {
		watches.remove(l)
	}
}

// open makes the layer, and returns the ctx of the task, made in ctx if that is
// not nil.
func (l *life) open(ctx *Ctx, scope *Scope) *Ctx {
	l.makeLayer()
	if ctx == nil {
		ctx = &Ctx{}
	}
	ctx.over(l.layer)
	ctx.scope, ctx.node, ctx.home = scope, &l.own, l.home
	return ctx
}

// makeLayer makes the layer.
func (l *life) makeLayer() {
	layer, cancel := layerOver(l.base)
	l.mu.Lock()
	l.layer, l.cancel = layer, cancel
	ended, cause := l.ended, l.cause
	l.mu.Unlock()
	if ended {
		cancel(cause)
	}
}

// layerOver is context.WithCancelCause, which panics where base is of a foreign
// type and says at once that it has ended and that it has not. Such a base counts
// as ended. On a thread nobody is there to be told of a panic.
func layerOver(base context.Context) (layer context.Context, cancel context.CancelCauseFunc) {
	defer func() {
		if recover() != nil {
			layer, cancel = context.WithCancelCause(context.WithoutCancel(base))
			cancel(context.Canceled)
		}
	}()
	return context.WithCancelCause(base)
}

// taken says that the task has left its queue, for its function is about to begin.
func (l *life) taken() {
	l.mu.Lock()
	l.begun, l.queued = true, nil
	watched := l.watched
	l.mu.Unlock()
	if watched {
		watches.remove(l)
	}
}

// taskCtx is the ctx of a task and its life in one allocation.
type taskCtx struct {
	Ctx
	life life
}

// loopCtx is the same of a task on a loop, with what it runs as there.
type loopCtx struct {
	taskCtx
	job Job // which forgets the task at its end
}

// withdraw takes the task out of its queue.
func (l *life) withdraw(cause error) {
	l.mu.Lock()
	c := l.queued
	l.mu.Unlock()
	switch {
	case c == nil:
	case c.thread.Load() == nil: // it is for a loop
		if c.turnDown(cause) {
			c.turnAway()
		}
	case c.revoke(cause):
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
		return
	}
	parent.mu.Lock()
	switch {
	case parent.over && parent.held == 0:
		// Its layer is gone; foreign has looked past it.
	case below(l.base) != parent.layer:
		parent.held++
		l.up = parent
	case !parent.over:
		l.base = carry(parent.base, valuesOf(l.base))
		parent.adopt(l)
		l.parent = parent
		// What the parent holds above itself must outlast us as well.
		l.up = parent.up.hold()
	default:
		l.base = carry(parent.base, valuesOf(l.base))
		l.up = parent.up.hold()
	}
	if l.parent != nil && parent.ended {
		l.ended, l.cause = true, parent.cause
	}
	parent.mu.Unlock()
}

// adopt puts c among the children. l.mu is held.
func (l *life) adopt(c *life) {
	c.listed = true
	if c.after = l.children; c.after != nil {
		c.after.before = c
	}
	l.children = c
}

// disown takes it out, if it is there. l.mu is held.
func (l *life) disown(c *life) {
	if !c.listed {
		return
	}
	if c.before != nil {
		c.before.after = c.after
	} else {
		l.children = c.after
	}
	if c.after != nil {
		c.after.before = c.before
	}
	c.listed, c.before, c.after = false, nil, nil
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
	var children []*life
	for c := l.children; c != nil; c = c.after {
		children = append(children, c)
	}
	cancel := l.cancel
	l.mu.Unlock()
	if cancel != nil {
		cancel(cause)
	}
	l.withdraw(cause)
	for _, c := range children {
		c.stop(cause)
	}
}

// isEnded reports whether the task is cancelled, by stop or from above.
func (l *life) isEnded() bool {
	l.mu.Lock()
	ended, layer := l.ended, l.layer
	l.mu.Unlock()
	if layer == nil {
		layer = l.base
	}
	return ended || Ended(layer) != nil
}

// end says that the function has ended.
func (l *life) end() {
	l.mu.Lock()
	l.over = true
	parent, watched := l.parent, l.watched && !l.begun
	l.parent, l.queued = nil, nil
	l.mu.Unlock()
	if watched {
		watches.remove(l)
	}
	if parent != nil {
		parent.mu.Lock()
		parent.disown(l)
		parent.mu.Unlock()
	}
	for {
		l.mu.Lock()
		c := l.children
		if c == nil {
			l.mu.Unlock()
			break
		}
		l.disown(c)
		l.mu.Unlock()
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
		if l.cancel != nil {
			l.cancel(nil)
		}
		l = up
	}
}

// watches holds the tasks that wait in queues, by the channel whose end cancels
// them. However many wait for one, there is one watcher.
var watches = watchTable{by: map[<-chan struct{}]*watcher{}}

type watchTable struct {
	sync.Mutex // a leaf lock; guards all watchers and links
	by         map[<-chan struct{}]*watcher
}

type watcher struct {
	done       <-chan struct{}
	base       context.Context
	head, tail *life
	stop       func() bool // nil until the watch has begun
	over       bool        // nobody waits any more, or all have been told
}

type watchLink struct {
	of            *watcher
	before, after *life
}

// add has l withdrawn when done, which is that of its base, is closed.
func (t *watchTable) add(l *life, done <-chan struct{}) {
	t.Lock()
	w := t.by[done]
	first := w == nil
	if first {
		w = &watcher{done: done, base: l.base}
		t.by[done] = w
	}
	l.watch = watchLink{of: w, before: w.tail}
	if w.tail != nil {
		w.tail.watch.after = l
	} else {
		w.head = l
	}
	w.tail = l
	t.Unlock()
	if !first {
		return
	}
	stop := w.watch() // base may be the user's: no lock is held
	t.Lock()
	w.stop = stop
	over := w.over
	t.Unlock()
	if over {
		stop()
	}
}

// watch has fire called when base ends. context.AfterFunc panics where base is of a
// foreign type and says at once that it has ended and that it has not: see layerOver.
func (w *watcher) watch() (stop func() bool) {
	defer func() {
		if recover() != nil {
			go w.fire()
			stop = func() bool { return false }
		}
	}()
	return context.AfterFunc(w.base, w.fire)
}

// remove forgets l, if it is there.
func (t *watchTable) remove(l *life) {
	t.Lock()
	w := l.watch.of
	if w == nil {
		t.Unlock()
		return
	}
	w.unlink(l)
	var stop func() bool
	if w.head == nil && !w.over {
		w.over = true
		delete(t.by, w.done)
		stop = w.stop
	}
	t.Unlock()
	if stop != nil {
		stop()
	}
}

// unlink takes l out. watches is held.
func (w *watcher) unlink(l *life) {
	k := &l.watch
	if k.before != nil {
		k.before.watch.after = k.after
	} else {
		w.head = k.after
	}
	if k.after != nil {
		k.after.watch.before = k.before
	} else {
		w.tail = k.before
	}
	*k = watchLink{}
}

// fire withdraws all, in the order in which they came. A hook may end the
// goroutine.
func (w *watcher) fire() {
	done := false
	defer func() {
		if !done {
			w.fire()
		}
	}()
	cause := Cause(w.base)
	for {
		var some [64]*life
		n := 0
		watches.Lock()
		if !w.over {
			w.over = true
			delete(watches.by, w.done)
		}
		for ; n < len(some) && w.head != nil; n++ {
			some[n] = w.head
			w.unlink(w.head)
		}
		watches.Unlock()
		if n == 0 {
			done = true
			return
		}
		for _, l := range some[:n] {
			if hooks.Load() != nil {
				go l.withdraw(cause) // a hook may wait for another of them
			} else {
				l.withdraw(cause)
			}
		}
	}
}

// A Task is the untyped part of a task.
type Task struct {
	call  Call
	life  *life // apart: contexts keep it, and must not keep the task and its result
	gate  Gate  // opened when it has ended
	link  *link // of a member of a group; set before it starts
	asked atomic.Bool
	heard atomic.Bool // somebody was told how it has ended
}

// Node is what the task runs as.
func (t *Task) Node() *Node { return &t.life.own }

// A link is the place of a task among the members of its group.
type link struct {
	group         *Group
	listed        bool // this and the rest are guarded by the group's mu
	before, after *Task
}

// StartTask runs body as a child of ctx's node and with a fork of the caller's
// values: on the thread of o.Scope, on the loop o.Home or else that of ctx, or on a
// new goroutine.
func StartTask(ctx context.Context, t *Task, body Body, o *Options) {
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
	var j *Job
	switch {
	case on != nil:
		lc := &loopCtx{}
		l, now, j = &lc.life, &lc.Ctx, &lc.job
		j.life = l
	case o.Scope == nil:
		tc := &taskCtx{}
		l, now = &tc.life, &tc.Ctx
	default:
		l = &life{}
	}
	l.pc, l.home = o.PC, home.callsBackTo(homeOf(ctx))
	if o.Name != "" {
		name := o.Name // o does not escape
		l.name = &name
	}
	l.own.setParent(NodeOf(ctx))
	l.own.life = l
	t.life = l
	if o.Into != nil {
		*o.Into = t
	}
	if o.OnEnd != nil {
		t.OnEnd(o.OnEnd)
	}
	c := &t.call
	c.body, c.name, c.pc, c.long = body, o.Name, o.PC, o.Long
	// The task is its own submitter: whoever comes to wait for it, wherever it
	// is queued, has it run.
	c.node, c.by, c.gate = &l.own, &l.own, &t.gate
	c.scope = ScopeOf(ctx)
	if o.Scope != nil {
		c.scope = o.Scope
	}
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
	c.tellQueued(ctx) // a hook may panic: nothing is held yet
	if s := ScopeOf(ctx); s != nil && s.tasks != nil {
		s.tasks.counted(c)
	}
	l.begin(ctx)
	c.life = l
	if t.link != nil {
		t.link.group.list(t)
	}
	if o.Scope != nil && o.Refusal == nil && c.watched == nil {
		c.ctx = l.base // until it begins: see Thread.exec
	} else {
		c.ctx = c.watched.carry(l.open(now, c.scope))
	}
	switch {
	case o.Refusal != nil:
		c.refusal = o.Refusal
		c.turnAway()
	case o.Scope != nil:
		c.bound = true // nobody waits on its goroutine
		if err := o.Scope.submit(c); err != nil {
			c.refusal = o.Scope.named(err, c)
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
	t.heard.Store(true)
	if p := t.call.ending.Panic; p != nil {
		p.heard()
	}
}

// Heard reports whether Hear was called.
func (t *Task) Heard() bool { return t.heard.Load() }

// Err is what the task's function has returned. Only in OnEnd, and later.
func (t *Task) Err() error {
	if f, ok := t.call.body.(Failing); ok && t.call.ending.Returned() {
		return f.Err()
	}
	return nil
}

// Done is closed when the task has ended.
func (t *Task) Done() <-chan struct{} { return t.gate.Done() }

// Ending is how it ended. Only after Done.
func (t *Task) Ending() Ending { return t.call.ending }

// Wait waits for the end of the task: see await.
func (t *Task) Wait(ctx context.Context) error {
	if t.call.hasEnded() {
		return nil
	}
	return await(ctx, forTask{t}, t.Node(), &t.gate)
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
	if t.call.hasEnded() || t.life.isEnded() || !t.asked.CompareAndSwap(false, true) {
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
	g.nc.scope, g.nc.node, g.nc.home = ScopeOf(ctx), &g.nc.own, homeOf(ctx)
	g.nc.own.setParent(by)
	return &g.nc.Ctx, cancel
}

// Context returns the context of the group's tasks.
func (g *Group) Context() context.Context { return &g.nc.Ctx }

// Add says that t, a task of the group, starts.
func (g *Group) Add(t *Task) {
	t.link = &link{group: g}
	g.nc.own.Start()
}

// list puts t, which is complete and about to run, among the members.
func (g *Group) list(t *Task) {
	g.mu.Lock()
	t.link.listed = true
	t.link.after = g.members
	if g.members != nil {
		g.members.link.before = t
	}
	g.members = t
	g.count++
	g.mu.Unlock()
}

// Done says that t has ended, or has not come to run.
func (g *Group) Done(t *Task) {
	g.mu.Lock()
	if k := t.link; k.listed {
		if k.before != nil {
			k.before.link.after = k.after
		} else {
			g.members = k.after
		}
		if k.after != nil {
			k.after.link.before = k.before
		}
		k.listed, k.before, k.after = false, nil, nil
		g.count--
	}
	g.mu.Unlock()
	g.nc.own.End()
}

// Wait waits for idle, which the end of the last task opens: see await.
func (g *Group) Wait(ctx context.Context, idle *Gate) error {
	return await(ctx, forGroup{g}, &g.nc.own, idle)
}

// WaitForPlace waits for turn, which says that a new member may start; limit is
// how many there may be. The wait ends when the turn comes: nothing else ends it,
// but that it could never come.
func (g *Group) WaitForPlace(turn <-chan struct{}, limit int) error {
	own, rec := current()
	ctx := context.Background()
	return wait(ctx, own, rec, &goal{target: &forPlace{g, limit}, ctx: ctx}, &g.nc.own, turn, "group place")
}

// OnEnd has f called when the task has ended, before anybody is woken. It is
// set before the task starts.
func (t *Task) OnEnd(f func()) { t.call.onEnd = f }
