package core

import (
	"context"
	"slices"
)

// wrap makes base the embedded context.
func (c *Ctx) wrap(base context.Context) {
	c.Context, c.done = base, base.Done()
}

// Done implements [context.Context]. It does not ask the embedded context. That
// may be a foreign layer over one of ours over a foreign layer, and so on down. If
// the user adds a layer at each level of a nesting, each question would go through
// all levels.
func (c *Ctx) Done() <-chan struct{} { return c.done }

// Err implements [context.Context]. It asks the embedded context only after its end.
func (c *Ctx) Err() error {
	select {
	case <-c.done:
		return c.Context.Err()
	default:
		return nil
	}
}

type ctxKey struct{}

// Value implements [context.Context].
func (c *Ctx) Value(key any) any {
	if key == (ctxKey{}) {
		return c
	}
	return c.Context.Value(key)
}

// From returns the nearest Ctx in ctx, or nil.
func From(ctx context.Context) *Ctx {
	if c, ok := ctx.(*Ctx); ok {
		return c
	}
	c, _ := ctx.Value(ctxKey{}).(*Ctx)
	return c
}

// foreign returns ctx without our own layer on top.
func foreign(ctx context.Context) context.Context {
	c, ok := ctx.(*Ctx)
	if !ok {
		return ctx
	}
	base := c.Context
	if c.node != nil {
		// If the task of ctx is over, its end does not cancel what starts
		// from ctx. The new layer hangs from the context above the task.
		if l := c.node.life; l != nil && l.layer == below(base) && l.gone.Load() {
			base = carry(l.base, valuesOf(base))
		}
	}
	return base
}

// Ended returns the cause of ctx's end, or nil.
func Ended(ctx context.Context) error {
	if ctx.Done() == nil || ctx.Err() == nil {
		return nil
	}
	return Cause(ctx)
}

// Cause returns the cause of the end of ctx, which has ended. It never returns
// nil, even for a foreign ctx that has closed Done and reports no error.
func Cause(ctx context.Context) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return context.Canceled
}

// A carrier is a foreign context with values of hooks above it: see Hooks.Values.
// It ends as the one below does.
//
// A context has at most one carrier on top. Code that compares contexts compares
// those below the carriers, so that hooks do not change what cancels a task. The
// contexts of hooks are not derived from the carried context and serve only for their
// values. If they were derived from one another, they would grow with the depth of a
// nesting. For a task that is over they would also report the wrong end and cause.
type carrier struct {
	context.Context
	values []carried // never empty; the innermost first
}

// Value implements [context.Context].
func (c *carrier) Value(key any) any {
	for i := range c.values {
		if v := c.values[i].ctx.Value(key); v != nil {
			return v
		}
	}
	return c.Context.Value(key)
}

// carry returns base, a foreign context, with values, which may be empty. New
// values replace those that base has from the same hooks.
func carry(base context.Context, values []carried) context.Context {
	if len(values) == 0 {
		return base
	}
	old, ok := base.(*carrier)
	if !ok {
		return &carrier{base, values}
	}
	all := values[:len(values):len(values)]
	for _, v := range old.values {
		if !slices.ContainsFunc(values, func(n carried) bool { return n.by == v.by }) {
			all = append(all, v)
		}
	}
	return &carrier{old.Context, all}
}

// below returns base without the values of hooks.
func below(base context.Context) context.Context {
	if c, ok := base.(*carrier); ok {
		return c.Context
	}
	return base
}

// valuesOf returns the values of hooks on top of base.
func valuesOf(base context.Context) []carried {
	if c, ok := base.(*carrier); ok {
		return c.values
	}
	return nil
}

// Afterlife returns ctx. If ctx is that of a task that is over, Afterlife
// returns a copy that the end of the task does not cancel: see foreign.
func Afterlife(ctx context.Context) context.Context {
	c, ok := ctx.(*Ctx)
	if !ok || c.node == nil || c.node.life == nil || !c.node.life.gone.Load() {
		return ctx
	}
	base := foreign(c)
	if base == c.Context {
		return ctx
	}
	return newCtx(base, c.scope, c.node, c.home)
}

// homeOf returns the loop that ctx carries, or nil.
func homeOf(ctx context.Context) *Home {
	if c := From(ctx); c != nil {
		return c.home
	}
	return nil
}

// LoopOf is homeOf for others.
func LoopOf(ctx context.Context) *Home { return homeOf(ctx) }

// NodeOf returns the node that ctx carries, or nil.
func NodeOf(ctx context.Context) *Node {
	if c := From(ctx); c != nil {
		return c.node
	}
	return nil
}

// ScopeOf returns the scope that ctx carries, or nil.
func ScopeOf(ctx context.Context) *Scope {
	if c := From(ctx); c != nil {
		return c.scope
	}
	return nil
}

// Detach returns ctx without scope and node, but with its loop. Code that
// runs with the result is related to no caller and belongs to no thread.
//
// If ctx is that of a task, the result hangs from the context above the task. So
// the end of the task does not cancel it.
func Detach(ctx context.Context) context.Context {
	base := foreign(ctx)
	if n := NodeOf(ctx); n != nil && n.life != nil && n.life.layer == below(base) {
		base = carry(n.life.base, valuesOf(base))
	}
	return newCtx(base, nil, nil, homeOf(ctx))
}

func newCtx(base context.Context, s *Scope, n *Node, h *Home) *Ctx {
	c := &Ctx{scope: s, node: n, home: h}
	c.wrap(base)
	return c
}

// Bare reports whether ctx carries neither scope nor node.
func Bare(ctx context.Context) bool {
	c := From(ctx)
	return c == nil || c.scope == nil && c.node == nil
}

// newFrameCtx is newNodeCtx for a function that a thread waits for.
func newFrameCtx(base context.Context, scope *Scope, parent *Node, h *Home) *frameCtx {
	fc := &frameCtx{}
	fc.init(base, scope, parent, h)
	fc.own.frame = &fc.wait
	return fc
}

// newNodeCtx returns a context over base, a foreign one, whose node is a new child
// of parent.
func newNodeCtx(base context.Context, scope *Scope, parent *Node, h *Home) *nodeCtx {
	nc := &nodeCtx{}
	nc.init(base, scope, parent, h)
	return nc
}

func (nc *nodeCtx) init(base context.Context, scope *Scope, parent *Node, h *Home) {
	nc.wrap(base)
	nc.scope, nc.home = scope, h
	nc.node = &nc.own
	nc.own.setParent(parent)
}

// callCtx returns the context for a function that runs in scope s for ctx.
func callCtx(ctx context.Context, s *Scope) *Ctx {
	c, ok := ctx.(*Ctx)
	if !ok {
		var n *Node
		var h *Home
		if c := From(ctx); c != nil {
			n, h = c.node, c.home
		}
		return &newNodeCtx(ctx, s, n, h).Ctx
	}
	if child := c.child.Load(); child != nil && child.scope == s {
		return child
	}
	child := &newNodeCtx(foreign(ctx), s, c.node, c.home).Ctx
	if c.scope == s {
		// Store only a child of the same scope: ctx must not keep a scope
		// alive that it does not carry.
		c.child.Store(child)
	}
	return child
}
