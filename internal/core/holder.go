package core

import (
	"context"
	"fmt"

	"asyncsync.dev/internal/cycle"
)

// A Holder is a place in the call tree. Its owner has a value of a pool from Begin
// to End, and code that runs below finds the place with Above.
type Holder struct{ nc nodeCtx }

// Begin makes h a child of ctx, and returns the ctx that carries it.
func (h *Holder) Begin(ctx context.Context) context.Context {
	ctx = Afterlife(ctx)
	h.nc.init(foreign(ctx), ScopeOf(ctx), NodeOf(ctx), homeOf(ctx))
	h.nc.own.holder.Store(true)
	h.nc.own.Start()
	return &h.nc.Ctx
}

// Node returns what Above finds h by.
func (h *Holder) Node() *Node { return &h.nc.own }

// End says that the owner has given back what it had.
func (h *Holder) End() { h.nc.own.End() }

// Holding marks the node of the function that runs with ctx as a holder, and returns
// it, or nil if there is none. The node may be used again for a function that holds
// nothing, so match must check each node that Above finds.
func Holding(ctx context.Context) *Node {
	n := NodeOf(ctx)
	if n != nil && !n.holder.Load() {
		n.holder.Store(true)
	}
	return n
}

// Above calls match for the holders at or above the node of ctx, the nearest first,
// until match returns true. If ctx knows nothing of this module, it starts at the
// node of what runs on this goroutine. It reports whether match has returned true.
func Above(ctx context.Context, match func(*Node) bool) bool {
	_, rec := current()
	for n := submitter(ctx, rec); n != nil; n = n.parent.Load() {
		if n.holder.Load() && match(n) {
			return true
		}
	}
	return false
}

// ShutdownInside returns the error of a Shutdown of what, called by code that the
// Shutdown would wait for.
func ShutdownInside(what string) error {
	return &DeadlockError{Message: fmt.Sprintf("Shutdown of %s waits for a function that waits for it", what), Page: cycle.PageShutdown}
}
