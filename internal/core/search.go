package core

import (
	"context"
	"slices"

	"asyncsync.dev/internal/cycle"
	"asyncsync.dev/internal/goroutine"
)

// A DeadlockError says that a wait would never have ended.
type DeadlockError = cycle.Error

// A Link is one wait in a cycle.
type Link = cycle.Link

// SeePage returns how a text refers to a page.
func SeePage(page string) string { return cycle.SeePage(page) }

// ErrDeadlock is matched by every DeadlockError.
var ErrDeadlock = cycle.ErrDeadlock

// A query asks whether a wait depends on the one who makes it: the goroutine that
// runs as node or waits in frame, or that has queued call.
type query struct {
	cycle.Search
	edge *edge // the wait

	node  *Node
	frame *Frame
	call  *Call
	claim *claim // of the wait, if that is for tokens

	// Of one run.
	claims []*claim                   // that were met on the way, but for claim
	stacks map[*Thread][]*stackVertex // from the top
}

func newQuery(e *edge, node *Node, f *Frame, c *Call) *query {
	q := &query{edge: e, node: node, frame: f, call: c, claim: e.claim()}
	if node != nil {
		q.Targets = append(q.Targets, node)
	}
	if f != nil {
		q.Targets = append(q.Targets, f)
	}
	if c != nil {
		q.Targets = append(q.Targets, c)
	}
	q.Begin = func() { q.claims, q.stacks = nil, map[*Thread][]*stackVertex{} }
	return q
}

// certain reports whether the wait waits for itself. cycles is held.
func (q *query) certain() bool {
	relations.Lock()
	defer relations.Unlock()
	if f, ok := q.edge.to.(forCall); ok {
		return q.Certain(&callVertex{q, f.c}) // its own call is not what it waits for
	}
	return q.Certain(&edgeVertex{q, q.edge})
}

// lend lends tokens to those on the way that want some, and reports whether one of
// them goes on so. The wait may be what keeps one of them from being a stranger to
// those who hold the tokens. No lock is held.
func (q *query) lend() (lent bool) {
	for _, c := range q.claims {
		lent = c.borrow() || lent
	}
	return lent
}

// anyEnded reports whether one of the waits that were found is about to end, because
// its ctx has. No lock is held: Err may be the user's own.
func (q *query) anyEnded() bool {
	return slices.ContainsFunc(q.Ctxs, func(ctx context.Context) bool { return ctx.Err() != nil })
}

// closes looks for a cycle that the wait e closes, and returns the error to refuse it
// with; then the wait was taken back, and has to end. The waiter is the calling
// goroutine: in f, on its thread, or self. c is the call that it has queued, nil for
// a wait of another kind.
func closes(f *Frame, self *Node, e *edge, c *Call) error {
	if f == nil && self == nil {
		return nil
	}
	q := newQuery(e, self, f, c)
	for {
		found := false
		readEdges(func() { found = q.certain() })
		if q.lend() {
			continue
		}
		if !found {
			return nil
		}
		if d, again := q.refuse(nil); d != nil {
			return d
		} else if !again {
			return nil
		}
	}
}

// refuse takes back the wait, which was found to close a cycle, if it still does.
// again says that one must look anew: somebody in the cycle has moved, or was lent a
// token meanwhile. m, if it is not nil, marks the call that waits in its queue: then
// the caller is not the one who waits.
func (q *query) refuse(m *Mark) (d *DeadlockError, again bool) {
	if q.anyEnded() {
		return nil, false
	}
	before := q.Facts
	readEdges(func() {
		if m != nil && m.queued() == nil {
			return
		}
		if !q.certain() || !slices.Equal(before, q.Facts) {
			again = true
			return
		}
		// A token that has come back meanwhile may be what somebody here waits for.
		for _, c := range q.claims {
			again = c.borrowNow() || again
		}
		if q.claim != nil && q.claim.borrowNow() || again {
			return // of its own tokens it need not be told
		}
		d = q.describe(q.first(m))
		switch {
		case q.call != nil:
			if !q.call.take(d) {
				d = nil // it runs after all
			}
		case q.frame != nil:
			q.edge.hide(true)
		default:
			q.node.waits.Store(nil)
		}
	})
	if d != nil && q.call != nil {
		q.call.thread.Load().removed(q.call)
	}
	return d, again
}

// first returns what is known of the one who waits: see refuse.
func (q *query) first(m *Mark) Link {
	f := q.frame
	l := Link{Goroutine: goroutine.ID()}
	if m != nil {
		f = q.call.frame
		l = Link{Goroutine: q.call.edge.gid.Load(), Who: q.call.by.name()}
	}
	if f != nil {
		l = f.link()
	}
	if m == nil {
		l.Site = site()
	}
	return l
}

// take takes c out of its queue, as revoke does; removed must follow when no lock is
// held any more. It reports false if c is not queued.
func (c *Call) take(why error) bool {
	t := c.lock()
	defer t.mu.Unlock()
	if !c.isQueued() {
		return false
	}
	t.remove(c, why)
	return true
}

// describe makes the error of the wait, which closes the cycle that was found; first
// is the one who waits so.
func (q *query) describe(first Link) *DeadlockError {
	if first.Who == "" {
		first.Who = q.edge.name()
		if len(q.Chain) > 0 {
			first.Who = q.Chain[0].For
		}
	}
	if first.Who == "" {
		first.Who = q.node.name()
	}
	chain := append(slices.Clone(q.Chain), q.edge.step(first))
	slices.Reverse(chain)
	chain[0].Age = -1
	return cycle.New(chain)
}

// step returns the link of the wait e, which l has the waiter of.
func (e *edge) step(l Link) cycle.Step {
	l.Kind, l.For, l.Age = e.kind(), e.name(), e.age()
	return cycle.Step{Link: l, Block: e.block()}
}

// block returns what keeps the call that e waits for from beginning.
func (e *edge) block() cycle.Block {
	c := e.call()
	if c == nil || c.thread.Load() == nil {
		return cycle.Unblocked
	}
	t := c.lock()
	defer t.mu.Unlock()
	switch {
	case !c.isQueued():
		return cycle.Unblocked
	case t.inLine():
		return cycle.InLine
	case t.policy == None:
		return cycle.Unserved
	}
	return cycle.Stranger
}

// standsOn reports whether the function that waits in f runs on top of one that does
// not wait for it: it is served because the policy is [All]. The link says so. t.mu
// is held.
func (t *Thread) standsOn(f *Frame) (on Link, ok bool) {
	if t.policy != All || f.call == nil || f.below == nil || f.below.call == nil {
		return on, false
	}
	waited := false
	if f.call.by != nil {
		f.call.by.waiters(func(o *Frame) bool {
			waited = waited || o.thread == t && o.live && o.level < f.level
			return !waited
		})
	}
	return Link{Who: f.below.call.Name(), Goroutine: t.gid.Load(), Thread: t.called(), Kind: "stack", For: f.call.Name(), Age: -1}, !waited
}

// link returns what is known of the one who waits in f.
func (f *Frame) link() Link {
	t := f.thread
	l := Link{Who: "the caller", Goroutine: t.gid.Load(), Thread: t.called()}
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.call != nil {
		l.Who = f.call.Name()
	}
	return l
}
