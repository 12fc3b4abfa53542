package core

import (
	"context"
	"fmt"

	"asyncsync.dev/internal/cycle"
)

// A Holder is a place in the call tree whose owner has something of a pool, from
// Begin to End: what runs below it finds it with Above.
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

// Holding makes the function that runs with ctx a holder, and returns its node, nil
// if it has none. The node may be used again for a function that is none: who is
// found by Above must be known to hold something.
func Holding(ctx context.Context) *Node {
	n := NodeOf(ctx)
	if n != nil && !n.holder.Load() {
		n.holder.Store(true)
	}
	return n
}

// Above calls match for each holder at or above what runs with ctx, or, where that
// says nothing, on this goroutine, from the nearest on, until match returns true. It
// reports whether it has.
func Above(ctx context.Context, match func(*Node) bool) bool {
	_, rec := current()
	for n := submitter(ctx, rec); n != nil; n = n.parent.Load() {
		if n.holder.Load() && match(n) {
			return true
		}
	}
	return false
}

// ShutdownInside is the error of a Shutdown of what, by somebody it would wait for.
func ShutdownInside(what string) error {
	return &DeadlockError{Message: fmt.Sprintf("Shutdown of %s waits for a function that waits for it", what), Page: cycle.PageShutdown}
}
