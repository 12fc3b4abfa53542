package core

import (
	"context"
	"slices"
	"sync"

	"asyncsync.dev/internal/goroutine"
)

// A Resource is something that is held by some and waited for by others: its
// holders' calls are related to the threads that wait for it.
type Resource struct {
	node Node

	// tokens returns how many there are, and how many are taken. It is set
	// before the resource is used, takes leaf locks alone, and may be nil.
	tokens func() (used, total int)

	mu      sync.Mutex // guards holders; a leaf lock
	holders []*holder
}

// SetTokens says what tells how many tokens there are, and how many are taken.
func (r *Resource) SetTokens(tokens func() (used, total int)) { r.tokens = tokens }

// A holder is a function that holds the resource and gives it back itself,
// before it ends. Others may have theirs given back by anybody, and so are
// never known to keep it.
type holder struct {
	node   *Node   // that it runs as, off the threads
	name   string  // of node, if it is known
	thread *Thread // else the thread that it runs on
	call   *Call   // in this call
}

// A Hold is one holder's.
type Hold struct {
	node   *Node
	join   *Join
	holder *holder // nil for one that others may give back
	plain  *Node   // made for a holder on a goroutine that was nobody's
}

// Hold records that whoever waits with ctx, or now runs on this goroutine,
// holds the resource. kept says that the function which runs on this goroutine
// gives it back itself, before it ends.
func (r *Resource) Hold(ctx context.Context, kept bool) Hold {
	var h Hold
	own, rec := current()
	if kept {
		h.holder = &holder{}
		if own != nil {
			h.holder.thread, h.holder.call = own, own.run
		} else {
			if h.holder.node = waiter(rec); h.holder.node == nil {
				// Whoever holds something is waited for, and must be somebody.
				h.plain = &Node{}
				h.plain.Start()
				goroutine.Ensure().Node = h.plain
				h.holder.node = h.plain
			}
		}
		r.mu.Lock()
		r.holders = append(r.holders, h.holder)
		r.mu.Unlock()
	}
	if n := submitter(ctx, rec); n != nil {
		h.node, h.join = n, &Join{by: &r.node}
		relate(nil, &r.node, func() { n.addJoin(h.join) })
	}
	return h
}

// Kept reports whether h is that of a function which gives it back itself.
func (h Hold) Kept() bool { return h.holder != nil }

// By reports whether h is the hold of what runs on this goroutine.
func (h Hold) By() bool {
	return h.node != nil && h.node == submitter(context.Background(), goroutine.Current())
}

// Drop ends the hold.
func (r *Resource) Drop(h Hold) {
	if h.holder != nil {
		r.mu.Lock()
		r.holders = slices.DeleteFunc(r.holders, func(o *holder) bool { return o == h.holder })
		r.mu.Unlock()
	}
	if h.node != nil {
		relate(nil, &r.node, func() { h.node.dropJoin(h.join) })
	}
}

// Leave is called at the end of a function that was to give its token back,
// whoever has done it, on its goroutine.
func (h Hold) Leave() {
	if h.plain == nil {
		return
	}
	h.plain.End()
	if rec := goroutine.Current(); waiter(rec) == h.plain {
		rec.Node = nil
		rec.ReleaseIfEmpty()
	}
}

// Wait waits for done, as [Park] does, and joins the holders.
func (r *Resource) Wait(ctx context.Context, done <-chan struct{}, what string) error {
	own, rec := current()
	return wait(ctx, own, rec, &want{for_: r, ctx: ctx}, &r.node, done, what)
}

// EnterLimiter has the function that calls take a token of a limiter, a
// *task.Limiter, and returns what it must give it back with itself. Package
// task sets it: nobody but this module can promise that.
var EnterLimiter func(limiter any, ctx context.Context) (leave func(), err error)
