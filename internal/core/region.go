package core

import (
	"context"

	"asyncsync.dev/internal/goroutine"
)

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
// Where ctx never ends the region ends with end, a context without values, which is
// cheaper than a layer. Else Cancel ends it; what the call leaves behind goes on after
// End, and hangs from ctx.
func (r *Region) BeginIn(ctx, end context.Context, j *Job) context.Context {
	nc := &r.group.nc
	if ctx.Done() == nil {
		r.alone = lifeCtx{foreign(ctx), end}
		nc.over(&r.alone)
	} else {
		r.life = new(fullLife).whole(homeOf(ctx))
		r.life.begin(ctx)
		r.life.makeLayer()
		nc.over(r.life.layer)
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

// Add makes m, whose task or call is about to start, a place in r: whoever waits for r
// is known to wait for that.
func (r *Region) Add(m *Member) { m.group = &r.group }

// TakeIn has whoever waits for r wait for other as well, which is elsewhere in the
// tree. It is called once for each other, and holds for what other leaves behind,
// too. other may have ended.
func (r *Region) TakeIn(other *Region) {
	other.join.by = &r.group.nc.own
	relate(nil, other.join.by, func() { other.group.nc.own.addJoin(&other.join) })
}

// Enter has the calling goroutine run what is in r, unless it is known for
// something else, until leave is called.
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
