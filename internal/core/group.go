package core

import (
	"context"

	"asyncsync.dev/internal/cycle"
	"asyncsync.dev/internal/goroutine"
)

// Init makes g a group below ctx and returns its context, which cancel ends.
func (g *Group) Init(ctx context.Context) (_ context.Context, cancel context.CancelCauseFunc) {
	by := NodeOf(ctx)
	base, cancel := context.WithCancelCause(foreign(ctx))
	g.nc.wrap(base)
	g.nc.scope, g.nc.node, g.nc.home = ScopeOf(ctx), &g.nc.own, homeOf(ctx)
	g.nc.own.setParent(by)
	return &g.nc.Ctx, cancel
}

// Place returns ctx with the place of g in the call tree instead of its own, and without
// scope and loop. What is started with it is below g. g need not have a context.
func (g *Group) Place(ctx context.Context) context.Context {
	return newCtx(foreign(ctx), nil, &g.nc.own, nil)
}

// Context returns the context of the group's tasks.
func (g *Group) Context() context.Context { return &g.nc.Ctx }

// Add gives m, whose task is about to start, a place in the group.
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

// WaitForPlace waits for turn, which says that a new member may start; limit is how
// many there may be. The wait fails with the cause of ctx if that ends first, and if the
// turn could never come: see [Refused].
func (g *Group) WaitForPlace(ctx context.Context, turn <-chan struct{}, limit int) error {
	own, rec := current()
	ctx = Afterlife(ctx)
	return wait(ctx, own, rec, &goal{target: &forPlace{g, limit}, ctx: ctx}, &g.nc.own, turn, "group place")
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
		if m.call.mayWait() {
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

// A Region is a part of the call tree that is neither a task nor a call: what runs
// with its context is below it, and whoever waits for the region waits for all of
// that. It is in use from Begin to End.
type Region struct {
	group Group
	join  Join    // of the region that has taken this one in
	alone lifeCtx // of BeginIn, and so is the next
	life  *life
}

// Begin makes r a region below ctx and returns its context, which cancel ends.
func (r *Region) Begin(ctx context.Context) (_ context.Context, cancel context.CancelCauseFunc) {
	ctx, cancel = r.group.Init(Afterlife(ctx))
	r.group.nc.own.Start()
	return ctx, cancel
}

// BeginIn is Begin for a region that is there for one call, which runs as j on a Backend.
// If ctx never ends, the context of the region ends with end, a context without values,
// which is cheaper than a layer. Otherwise it ends with ctx or by Cancel. What the call
// leaves behind then goes on after End, and hangs from ctx.
func (r *Region) BeginIn(ctx, end context.Context, j *Job) context.Context {
	nc := &r.group.nc
	if ctx.Done() == nil {
		r.alone = lifeCtx{foreign(ctx), end}
		nc.wrap(&r.alone)
	} else {
		r.life = new(fullLife).whole(homeOf(ctx))
		r.life.begin(ctx)
		r.life.makeLayer()
		nc.wrap(r.life.layer)
		j.life = r.life
	}
	nc.scope, nc.node, nc.home = ScopeOf(ctx), &nc.own, homeOf(ctx)
	nc.own.setParent(NodeOf(ctx))
	nc.own.Start()
	return &nc.Ctx
}

// Cancel ends the context of a region that BeginIn has made, unless it ends with
// something else.
func (r *Region) Cancel(cause error) {
	if r.life != nil {
		r.life.stop(cause)
	}
}

// End says that nothing runs in r any more.
func (r *Region) End() {
	r.group.nc.own.End()
	if r.life != nil {
		r.life.end()
	}
}

// Wait waits for end, which the end of what runs in r opens: see await.
func (r *Region) Wait(ctx context.Context, end *Gate) error {
	if end.IsOpen() {
		return nil
	}
	return await(ctx, &goal{target: forRegion{forGroup{&r.group}}}, &r.group.nc.own, end)
}

func (f forRegion) kind() string { return "portal close" }

// Add gives m, whose task or call is about to start, a place in r. Waits for r are then
// known to be waits for that task or call.
func (r *Region) Add(m *Member) { m.group = &r.group }

// TakeIn makes waits for r waits for other as well, a region elsewhere in the tree,
// and for what other leaves behind. It is called once for each other, which may have
// ended.
func (r *Region) TakeIn(other *Region) {
	other.join.by = &r.group.nc.own
	relate(nil, other.join.by, func() { other.group.nc.own.addJoin(&other.join) })
}

// Enter notes that the calling goroutine runs code of r, until leave is called. If the
// goroutine already runs a function of this module, Enter notes nothing.
func (r *Region) Enter() (leave func()) {
	rec := goroutine.Ensure()
	if rec.Node != nil {
		return rec.ReleaseIfEmpty
	}
	rec.Node = &r.group.nc.own
	return func() {
		rec.Node, rec.Raised = nil, nil
		rec.ReleaseIfEmpty()
	}
}

// Inside reports whether the calling goroutine runs something in r.
func (r *Region) Inside() bool {
	_, rec := current()
	if rec == nil {
		return false
	}
	n, _ := rec.Node.(*Node)
	for ; n != nil; n = n.parent.Load() {
		if n == &r.group.nc.own {
			return true
		}
	}
	return false
}
