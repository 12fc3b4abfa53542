package core

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// This file has the lending of tokens: what a function that holds tokens waits for may
// use them meanwhile. How tokens are held, waited for and given back is in resource.go.

// nest makes c use the token of a function further down on the stack of the same
// goroutine, and reports whether there is such a token. c keeps the token until its
// function ends, and the function below does not go on before that.
func (r *Resource) nest(c *claim) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for h := r.kept[c.hold.key()]; h != nil; h = h.outer {
		if h.has {
			h.lose()
			r.busy--
			c.hold.below, c.under = h, h
			c.begin(1)
			return true
		}
	}
	return false
}

// borrow gives c the tokens of sleeping holders if c may have them, and reports whether
// c now has its tokens, or has given up. No lock is held.
func (c *claim) borrow() bool {
	r := c.r
	r.mu.Lock()
	if c.done {
		r.mu.Unlock()
		return true
	}
	some := c.back || len(r.lent) > 0
	for h := range r.ready {
		if some = some || h.thread != nil || h.self.waits.Load() != nil; some {
			break
		}
	}
	r.mu.Unlock()
	if !some || !c.back && c.node == nil && c.run == nil {
		return false
	}
	readEdges(func() { c.borrowNow() })
	return c.has()
}

// has reports whether c has its tokens, or has given up.
func (c *claim) has() bool {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	return c.done
}

// borrowNow is borrow for a caller that holds cycles. That keeps holders asleep that
// borrowNow has seen asleep.
func (c *claim) borrowNow() bool {
	r := c.r
	if !c.back && !c.findKin() {
		return c.has()
	}
	r.mu.Lock()
	ready := slices.Collect(maps.Keys(r.ready))
	wants := c.n - (r.used - r.busy)
	r.mu.Unlock()
	for _, h := range ready {
		if wants <= 0 {
			break
		}
		if h.key() == c.self || !h.sleeps() {
			continue
		}
		to := h.waitsFor()
		r.mu.Lock()
		if _, ok := r.ready[h]; ok && !c.done {
			h.lendOut(to)
			wants--
		}
		r.mu.Unlock()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.turn == nil && !c.done && r.nextOwed() == nil {
		c.takeAsKin()
	}
	r.grant()
	return c.done
}

// findKin looks for a holder that keeps a token and waits for c, and reports whether
// there is one. cycles is held.
func (c *claim) findKin() bool {
	r := c.r
	r.mu.Lock()
	if c.done || c.isKin() {
		defer r.mu.Unlock()
		return !c.done
	}
	ready := slices.Collect(maps.Keys(r.ready))
	r.mu.Unlock()
	may := map[any]*Hold{} // by what they wait for
	for _, h := range ready {
		if h.key() == c.self { // it does not wait for itself
			continue
		}
		if to := h.waitsFor(); to != nil {
			may[to] = h
		}
	}
	found := false
	c.reach(func(x any) bool {
		h := may[x]
		r.mu.Lock()
		defer r.mu.Unlock()
		if all := r.lent[x]; h == nil && len(all) > 0 {
			h = all[0]
		}
		if h == nil || h.chain == nil || c.done {
			return false
		}
		c.under, found = h, true
		if c.inLine {
			r.kin = append(without(r.kin, c), c)
		}
		return true
	})
	return found
}

// loans are the holds whose tokens are lent, by their keys. A hold leaves the table when
// its token comes back, or when its holder begins to reclaim it.
var loans loanTable

type loanTable struct {
	n  atomic.Int32
	mu sync.Mutex // a leaf lock
	by map[any][]*Hold
}

func (l *loanTable) add(h *Hold) {
	l.mu.Lock()
	if l.by == nil {
		l.by = map[any][]*Hold{}
	}
	l.by[h.key()] = append(l.by[h.key()], h)
	l.n.Add(1)
	l.mu.Unlock()
}

func (l *loanTable) remove(h *Hold) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := h.key()
	i := slices.Index(l.by[k], h)
	if i < 0 {
		return
	}
	l.n.Add(-1)
	if l.by[k] = slices.Delete(l.by[k], i, i+1); len(l.by[k]) == 0 {
		delete(l.by, k)
	}
}

func (l *loanTable) of(key any) *Hold {
	l.mu.Lock()
	defer l.mu.Unlock()
	if hs := l.by[key]; len(hs) > 0 {
		return hs[len(hs)-1]
	}
	return nil
}

// reclaim waits until the functions on the calling goroutine have back the tokens that
// were lent during its wait. The wait, which was published under key, has been taken
// back and has no readers.
func reclaim(key any) {
	for h := loans.of(key); h != nil; h = loans.of(key) {
		h.reclaim()
	}
}

func (h *Hold) reclaim() {
	r := h.r
	own, rec := current()
	ctx := context.Background()
	c := &claim{r: r, hold: h, n: 1, turn: make(chan struct{}), back: true, self: h.key(), since: time.Now()}
	c.node = submitter(ctx, rec)
	if own != nil {
		c.run = own.run
	}
	r.mu.Lock()
	if !h.lent {
		r.mu.Unlock()
		return
	}
	loans.remove(h) // the wait in reclaim calls reclaim at its own end, which must not find h again
	r.owed = append(r.owed, c)
	r.contend()
	r.grant()
	done := c.done
	r.mu.Unlock()
	if done {
		return
	}
	r.joinHolders()
	defer func() {
		// A call served meanwhile may take this wait with it in a Goexit: then the
		// function ends without the token.
		r.mu.Lock()
		if !c.done {
			c.done = true
			r.owed = without(r.owed, c)
			h.endLoan()
		}
		r.returned()
		r.mu.Unlock()
	}()
	c.wait(ctx, own, rec) // the wait is never refused, because no caller could be given the error
}

// sleeps reports whether the holder is in a wait in which it may lend its tokens.
// cycles is held.
func (h *Hold) sleeps() bool {
	if h.thread != nil {
		return h.sleepsOn(h.thread, h.call)
	}
	e := h.self.waits.Load()
	if e == nil {
		return false
	}
	switch to := e.to.(type) {
	case *goal:
		return !to.hidden.Load() && h.idle(e.claim())
	case forThread:
		return h.sleepsOn(to.t, nil)
	}
	return true
}

// sleepsOn is sleeps for a holder whose function runs in c on t, or, if c is nil,
// has become t.
func (h *Hold) sleepsOn(t *Thread, c *Call) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for f := t.top; f != nil; f = f.below {
		if f.call == c {
			return h.idle(f.edge.claim())
		}
	}
	return false
}

// idle reports whether a holder that waits for c may lend its tokens. It may not if c
// has its tokens, so that the holder is about to go on, or if c is for more tokens of
// the same resource. c is nil if the holder waits for something other than tokens.
func (h *Hold) idle(c *claim) bool { return c == nil || c.r != h.r && !c.has() }

// waitsFor returns what reach visits if something waits for a claim through the holder's
// wait: for a holder on a thread its own key, for others what their wait is for. It
// returns nil if the holder is not in a wait in which it may lend, or if reach visits
// nothing for that wait. cycles is held.
func (h *Hold) waitsFor() any {
	if !h.sleeps() {
		return nil
	}
	if h.thread != nil {
		return h.key()
	}
	e := h.self.waits.Load()
	if e == nil {
		return nil
	}
	if c := e.claim(); e.to == nil || c != nil && c.r == h.r {
		return nil
	}
	return e.to.reached()
}

// maxReach is how many nodes reach visits at most.
const maxReach = 1 << 20

// reach calls visit for everything that waits for c, directly or not, the nearest
// first, until visit returns true. It visits nodes, calls, the scopes of calls, and,
// for a function that is in no call, the thread that the function's goroutine has
// become. cycles is held, and visit may take leaf locks.
func (c *claim) reach(visit func(x any) (enough bool)) {
	seen := map[*Node]struct{}{}
	todo := []*Node{c.node}
	if c.run != nil && visit(c.run) {
		return
	}
	for len(todo) > 0 {
		n := todo[0]
		todo = todo[1:]
		for ; n != nil && len(seen) < maxReach; n = n.parent.Load() {
			if _, ok := seen[n]; ok {
				break
			}
			seen[n] = struct{}{}
			if visit(n) || n.frame != nil && n.frame.visit(visit) {
				return
			}
			if n.joins.Load() == nil {
				continue
			}
			var frames []*Frame
			n.mu.Lock()
			for j := n.joins.Load(); j != nil; j = j.next {
				if j.frame != nil {
					frames = append(frames, j.frame)
				}
				if j.by != nil {
					todo = append(todo, j.by)
				}
			}
			n.mu.Unlock()
			for _, f := range frames {
				if f.visit(visit) {
					return
				}
			}
		}
	}
}

// visit calls visit for the function that waits in f, and for its scopes.
func (f *Frame) visit(visit func(x any) bool) bool {
	t := f.thread
	t.mu.Lock()
	live, call := f.live, f.call
	var scope *Scope
	if live && call != nil {
		scope = call.scope
	}
	t.mu.Unlock()
	switch {
	case !live:
		return false
	case call == nil:
		return visit(t)
	}
	for ; scope != nil; scope = scope.up {
		if visit(scope) {
			return true
		}
	}
	return visit(call)
}

// contended holds the resources that somebody waits for.
var contended struct {
	n          atomic.Int32 // how many
	sync.Mutex              // a leaf lock
	resources  map[*Resource]struct{}
}

// maxOffers is how many claims in line a function that begins to wait offers its
// token to.
const maxOffers = 64

// offer lends the token of a function that has begun to wait, if it has one. The token
// goes to a claim that is owed one, or to the first claim in line that the function
// waits for. key is the key of the function's holds. A claim beyond maxOffers is found
// by closes instead, if the function waits for it through waits of this module.
func offer(key any) {
	contended.Lock()
	all := make([]*Resource, 0, len(contended.resources))
	for r := range contended.resources {
		all = append(all, r)
	}
	contended.Unlock()
	for _, r := range all {
		r.mu.Lock()
		h := r.kept[key]
		for h != nil && !h.has {
			h = h.outer
		}
		var claims []*claim
		if h != nil {
			if c := r.nextOwed(); c != nil {
				claims = append(claims, c)
			}
			for c := r.line.head; c != nil && len(claims) < maxOffers; c = c.next {
				claims = append(claims, c)
			}
		}
		r.mu.Unlock()
		for _, c := range claims {
			c.borrow()
			r.mu.Lock()
			has := h.has
			r.mu.Unlock()
			if !has {
				break
			}
		}
	}
}

// contend notes that somebody waits for r. r.mu is held.
func (r *Resource) contend() {
	if r.queue {
		return
	}
	r.queue = true
	contended.Lock()
	if contended.resources == nil {
		contended.resources = map[*Resource]struct{}{}
	}
	contended.resources[r] = struct{}{}
	contended.n.Add(1)
	contended.Unlock()
}

// lendOut lends the token of h, whose holder waits for to. r.mu is held.
func (h *Hold) lendOut(to any) {
	r := h.r
	h.lose()
	r.busy--
	h.lent, h.to = true, to
	if r.lent == nil {
		r.lent = map[any][]*Hold{}
	}
	r.lent[to] = append(r.lent[to], h)
	loans.add(h)
}

// endLoan notes that the token of h is no longer lent. r.mu is held.
func (h *Hold) endLoan() {
	r := h.r
	if !h.lent {
		return
	}
	h.lent = false
	loans.remove(h)
	if r.lent[h.to] = slices.DeleteFunc(r.lent[h.to], func(o *Hold) bool { return o == h }); len(r.lent[h.to]) == 0 {
		delete(r.lent, h.to)
	}
	h.to = nil
}
