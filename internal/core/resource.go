package core

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"asyncsync.dev/internal/goroutine"
)

// A Resource is a number of tokens that are held by some and waited for by
// others, first come first served. Its holders' calls are related to the threads
// that wait for it.
//
// # Lending
//
// A function that gives its token back itself, before it ends, is known to keep
// it. While such a function is blocked in a wait of this module nobody uses its
// token, and what it waits for may have it: the token is lent. So as many run
// under the resource as there are tokens, never more, and nested work does not
// wait for what is held for its sake. A token that was taken with Acquire is not
// lent: whoever took it may have handed it on to somebody who runs.
//
// The lender must not go on without a token. It takes its wait back, settles,
// and then looks whether its token is lent (see reclaim); who lends does so
// while it holds the right to read edges, and has seen the wait. So of the two
// one knows of the other. A wait that ends early, because its ctx has, goes on
// when the token is back, or another is free.
//
// To whom it may be lent is found upwards, from the one who wants a token, along
// the way that relation takes: see claim.reach. A stranger that the holder only
// happens to depend on is not meant by it, and gets none: see closes.
type Resource struct {
	node Node

	mu    sync.Mutex // guards the rest; a leaf lock, but for that of lent and contended
	total int
	used  int           // may exceed total after SetTotal
	owed  []*claim      // whose own tokens are lent, and who cannot go on without: served first
	line  claimList     // the others
	kept  map[any]*Hold // by Hold.key, the newest of each
	loose []*Hold       // others may give these back; the oldest first
	spare []*Hold       // to be used for loose again
	busy  bool          // it is in contended

	ready map[*Hold]struct{} // of kept, those who have their token
	lent  map[any][]*Hold    // of kept, those who have lent it, by what they wait for
	back  uint64             // how often a token has come back
}

// A Hold is one or more tokens that somebody has.
type Hold struct {
	r *Resource

	// Who has them: fixed before it is shared.
	node   *Node // what is joined by who waits for the resource; nil for nobody
	join   *Join
	self   *Node   // of one who keeps it: the node that it runs as, off the threads
	thread *Thread // else the thread that it runs on
	call   *Call   // in this call
	keeps  bool
	plain  *Node // made for one on a goroutine that was nobody's
	gid    int64

	// Guarded by the resource's mu.
	n      int      // how many
	quick  bool     // nobody but loose has seen it, ever: it can be used again
	joined bool     // node has join, or is about to
	has    bool     // it has them; false while it does not, or they are lent
	lent   bool     // they are, and wanted back
	known  bool     // it is in kept
	from   []*Hold  // who has lent them
	to     any      // what the holder waits for, while they are lent
	outer  *Hold    // the one of the same key that it hides in kept
	gone   bool     // the function has ended
	heirs  []*claim // that wait in line and may be lent the token
	inside bool     // lent to a function called by the holder's: it cannot go on before that ends
}

// key is what kept and lent know the holder by: what its waits are published by.
func (h *Hold) key() any {
	switch {
	case h.thread == nil:
		return h.self
	case h.call == nil:
		return h.thread
	}
	return h.call
}

// A claim is somebody who wants tokens.
type claim struct {
	r    *Resource
	hold *Hold // what it gets
	n    int
	turn chan struct{} // closed when it has them; nil while it does not wait
	back bool          // hold's own token is wanted back

	// Where it is made.
	node *Node
	run  *Call // on this call's thread
	self any   // the key of its goroutine

	since time.Time // Guarded by the resource's mu, like the rest.

	inLine     bool
	done       bool    // it has them, or has given up
	heirTo     []*Hold // whose heirs it is among
	prev, next *claim
}

type claimList struct {
	head, tail *claim
	len        int
}

func (l *claimList) push(c *claim) {
	c.inLine, c.prev = true, l.tail
	if l.tail != nil {
		l.tail.next = c
	} else {
		l.head = c
	}
	l.tail = c
	l.len++
}

func (l *claimList) remove(c *claim) {
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		l.head = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		l.tail = c.prev
	}
	c.prev, c.next, c.inLine = nil, nil, false
	l.len--
}

// ErrTooMany is matched by the error of a claim that could never be met.
var ErrTooMany = errors.New("task: more tokens than the limiter has")

// Init gives the resource its tokens.
func (r *Resource) Init(total int) {
	r.total, r.kept, r.ready = total, map[any]*Hold{}, map[*Hold]struct{}{}
}

// Made reports whether Init has been called.
func (r *Resource) Made() bool { return r.kept != nil }

// Counts returns how many tokens there are, how many are taken, how many of
// these are lent, and how many callers wait in line.
func (r *Resource) Counts() (total, used, lent, waiting int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range r.kept {
		for ; h != nil; h = h.outer {
			if h.lent || h.inside {
				lent++
			}
		}
	}
	return r.total, r.used, lent, r.line.len
}

// SetTotal changes the number of tokens.
func (r *Resource) SetTotal(n int) {
	r.mu.Lock()
	r.total = n
	r.grant()
	r.mu.Unlock()
	r.lendOn(nil)
}

// TryAcquire takes n tokens if they are free and nobody waits.
func (r *Resource) TryAcquire(n int) bool {
	r.mu.Lock()
	if r.total-r.used < n || r.line.len+len(r.owed) > 0 {
		r.mu.Unlock()
		return false
	}
	r.mu.Unlock()
	_, rec := current()
	return r.quick(submitter(context.Background(), rec), n)
}

// quick takes n tokens for a holder who runs as node, if they are free and nobody
// waits. Nothing is allocated for it, and no join is made: see joinHolders.
func (r *Resource) quick(node *Node, n int) bool {
	gid := goroutine.ID()
	r.mu.Lock()
	if r.total-r.used < n || r.line.len+len(r.owed) > 0 {
		r.mu.Unlock()
		return false
	}
	r.used += n
	var h *Hold
	if last := len(r.spare) - 1; last >= 0 {
		h = r.spare[last]
		r.spare = r.spare[:last]
	} else {
		h = &Hold{r: r, quick: true}
	}
	h.node, h.gid, h.n, h.has = node, gid, n, true
	r.loose = append(r.loose, h)
	r.mu.Unlock()
	return true
}

// maxSpare bounds how many records of holders a resource keeps.
const maxSpare = 256

// quickRelease gives back n tokens that quick has taken for the caller, where they
// are what Release would give back, and nobody waits for them.
func (r *Resource) quickRelease(gid int64, n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy || r.line.len+len(r.owed) > 0 {
		return false
	}
	var me *Node
	for i, h := range r.loose {
		if h.gid != gid {
			if h.node == nil {
				continue
			}
			if me == nil {
				me = ownNode()
			}
			if h.node != me {
				continue
			}
		}
		if !h.quick || h.joined || h.n < n {
			return false
		}
		r.used -= n
		if h.n -= n; h.n == 0 {
			r.loose = slices.Delete(r.loose, i, i+1)
			if len(r.spare) < maxSpare {
				h.node, h.has = nil, false
				r.spare = append(r.spare, h)
			}
		}
		return true
	}
	return false
}

// joinHolders joins those who hold tokens that they need not keep. It is called
// when somebody has begun to wait; before that nobody would notice.
func (r *Resource) joinHolders() {
	relate(nil, &r.node, func() {
		r.mu.Lock()
		var now []*Hold
		for _, h := range r.loose {
			if h.node == nil || h.joined {
				continue
			}
			if h.join == nil {
				h.join = &Join{by: &r.node}
			}
			h.joined = true
			now = append(now, h)
		}
		r.mu.Unlock()
		for _, h := range now {
			h.node.addJoin(h.join)
		}
	})
}

// Acquire takes n tokens, and waits for them if need be. It returns who has them,
// if keeps; that says that the
// function which runs on this goroutine gives them back itself, with Leave, before
// it ends; then n is 1.
func (r *Resource) Acquire(ctx context.Context, n int, keeps bool) (*Hold, error) {
	ctx = Afterlife(ctx)
	if err := Ended(ctx); err != nil {
		return nil, err
	}
	own, rec := current()
	if !keeps && r.quick(submitter(ctx, rec), n) {
		return nil, nil
	}
	h := r.hold(ctx, own, rec, n, keeps)
	c := &claim{r: r, hold: h, n: n, node: submitter(ctx, rec)}
	c.self = h.self
	if own != nil {
		c.run = own.run
		c.self = (&Hold{thread: own, call: own.run}).key()
	} else if !keeps {
		c.self = waiter(rec)
	}
	if keeps && r.nest(c) {
		return r.remember(h), nil
	}
	if keeps && c.borrow() {
		return r.remember(h), nil
	}
	r.mu.Lock()
	if n > r.total && n > 1 && r.total > 0 {
		total := r.total
		r.mu.Unlock()
		return nil, fmt.Errorf("%w: %d of %d: take fewer, or raise the total with SetTotal first", ErrTooMany, n, total)
	}
	if r.total-r.used >= n && r.line.len+len(r.owed) == 0 {
		r.used += n
		c.settle()
		r.mu.Unlock()
		return r.remember(h), nil
	}
	c.turn = make(chan struct{})
	c.since = time.Now()
	r.line.push(c)
	r.contend()
	r.mu.Unlock()
	r.joinHolders()

	taken := false
	defer func() {
		// Also when a call served meanwhile takes this wait with it in a Goexit.
		if !taken {
			c.giveUp()
			h.forget()
		}
	}()
	if err := c.wait(ctx, own, rec); err != nil {
		return nil, err
	}
	taken = true
	return r.remember(h), nil
}

// hold returns the hold of whoever waits with ctx, or now runs on this
// goroutine. It is not known to others yet.
func (r *Resource) hold(ctx context.Context, own *Thread, rec *goroutine.Record, n int, keeps bool) *Hold {
	h := &Hold{r: r, n: n, keeps: keeps, gid: goroutine.ID()}
	if keeps {
		if own != nil {
			h.thread, h.call = own, own.run
		} else if h.self = waiter(rec); h.self == nil {
			// Whoever holds something is waited for, and must be somebody.
			h.plain = &Node{}
			h.plain.Start()
			rec = goroutine.Ensure()
			rec.Node = h.plain
			h.self = h.plain
		}
	}
	if h.node = submitter(ctx, rec); h.node != nil {
		h.join = &Join{by: &r.node}
	}
	return h
}

// remember makes h, whose tokens are taken, known to others. Not before: who
// looks at a holder takes it for somebody who runs, or waits for something else.
func (r *Resource) remember(h *Hold) *Hold {
	r.mu.Lock()
	if h.keeps {
		k := h.key()
		h.outer = r.kept[k]
		r.kept[k] = h
		h.known = true
		if h.has {
			r.ready[h] = struct{}{}
		}
		h.joined = h.node != nil
	} else {
		r.loose = append(r.loose, h)
		if r.line.len+len(r.owed) > 0 {
			r.mu.Unlock()
			r.joinHolders()
			return h
		}
	}
	joined := h.joined
	r.mu.Unlock()
	if joined && h.keeps {
		relate(nil, &r.node, func() { h.node.addJoin(h.join) })
	}
	return h
}

// forget undoes what hold has done on the goroutine of a function that keeps its
// token.
func (h *Hold) forget() {
	if h.plain == nil {
		return
	}
	h.plain.End()
	if rec := goroutine.Current(); waiter(rec) == h.plain {
		rec.Node = nil
		rec.ReleaseIfEmpty()
	}
}

// settle says that c has its tokens. The mu of the resource is held.
func (c *claim) settle() {
	c.done = true
	c.hold.gain()
	if c.turn != nil {
		close(c.turn)
	}
}

// gain says that h has its tokens, for the first time or again. The mu of the
// resource is held.
func (h *Hold) gain() {
	r := h.r
	h.has = true
	if h.known {
		r.ready[h] = struct{}{}
		r.back++
	}
	h.inside = false
	h.unlend()
}

// unlend says that h wants no token back any more.
func (h *Hold) unlend() {
	r := h.r
	if !h.lent {
		return
	}
	h.lent = false
	lent.remove(h)
	if r.lent[h.to] = slices.DeleteFunc(r.lent[h.to], func(o *Hold) bool { return o == h }); len(r.lent[h.to]) == 0 {
		delete(r.lent, h.to)
	}
	h.to = nil
}

// lose says that h has its tokens no more.
func (h *Hold) lose() {
	h.has = false
	delete(h.r.ready, h)
}

// lend gives the token of h, who waits for to, to another. r.mu is held.
func (h *Hold) lend(another *Hold, to any) {
	r := h.r
	h.lose()
	h.lent, h.to = true, to
	if r.lent == nil {
		r.lent = map[any][]*Hold{}
	}
	r.lent[to] = append(r.lent[to], h)
	another.from = append(another.from, h)
	lent.add(h)
}

// wait waits for c's turn.
func (c *claim) wait(ctx context.Context, own *Thread, rec *goroutine.Record) error {
	return wait(ctx, own, rec, &want{for_: c.r, ctx: ctx, claim: c}, &c.r.node, c.turn, "limiter")
}

// giveUp leaves the line. Tokens that came at the same moment go to the next.
func (c *claim) giveUp() {
	r := c.r
	r.mu.Lock()
	var back []*Hold
	if c.inLine {
		r.line.remove(c)
	} else if c.done && c.hold.has {
		c.hold.lose()
		back = c.hold.giveBack(c.n)
	}
	c.done = true
	r.grant()
	r.mu.Unlock()
	r.lendOn(back)
}

// grant gives free tokens to those who have lent theirs and need one, and then
// to the first in line. r.mu is held; closing a channel runs nobody's code.
func (r *Resource) grant() {
	for len(r.owed) > 0 && r.used < r.total {
		c := r.owed[0]
		r.owed = r.owed[1:]
		if c.done {
			continue
		}
		r.used++
		c.settle()
	}
	for c := r.line.head; c != nil && len(r.owed) == 0 && c.n <= r.total-r.used; c = r.line.head {
		r.line.remove(c)
		r.used += c.n
		c.settle()
	}
	if r.busy && r.line.len+len(r.owed) == 0 {
		r.busy = false
		contended.Lock()
		delete(contended.resources, r)
		contended.n.Add(-1)
		contended.Unlock()
	}
}

// giveBack gives back n of the tokens of h: to those who have lent them and have
// not got another since, the others to everybody. It returns the former who still
// sleep, and may lend them on. r.mu is held, and grant must follow.
func (h *Hold) giveBack(n int) (back []*Hold) {
	r := h.r
	for ; n > 0; n-- {
		to := h.lender()
		if to == nil {
			r.used--
			continue
		}
		asleep := to.lent
		for i, c := range r.owed {
			if c.hold == to {
				r.owed = slices.Delete(r.owed, i, i+1)
				c.settle()
				asleep = false
				break
			}
		}
		to.gain()
		if asleep {
			back = append(back, to)
		}
	}
	return back
}

// lender returns one who has lent h a token and waits for it. r.mu is held.
func (h *Hold) lender() *Hold {
	for len(h.from) > 0 {
		l := h.from[len(h.from)-1]
		h.from = h.from[:len(h.from)-1]
		if l.gone {
			// It left without its token, and so did not give it back either.
			if l = l.lender(); l == nil {
				continue
			}
		}
		if l.lent || l.inside {
			return l
		}
	}
	return nil
}

// Leave gives back the token of a function that keeps it, and is called on its
// goroutine.
func (h *Hold) Leave() {
	r := h.r
	r.mu.Lock()
	for at := r.kept[h.key()]; at != nil; at = at.outer {
		if at == h {
			r.kept[h.key()] = h.outer
			break
		}
		if at.outer == h {
			at.outer = h.outer
			break
		}
	}
	if r.kept[h.key()] == nil {
		delete(r.kept, h.key())
	}
	r.mu.Unlock()
	// Before somebody else gets the token and is remembered.
	h.drop()
	r.mu.Lock()
	var back []*Hold
	if h.has {
		h.lose()
		back = h.giveBack(h.n)
	}
	h.unlend() // a Goexit has cut short its wait for the token
	h.gone, h.inside, h.known, h.heirs = true, false, false, nil
	r.grant()
	r.mu.Unlock()
	r.lendOn(back)
	h.forget()
}

// drop ends the join of h, which is not in kept or loose any more.
func (h *Hold) drop() {
	if h.joined {
		relate(nil, &h.r.node, func() { h.node.dropJoin(h.join) })
	}
}

// Release gives back n tokens, of whoever has them, and reports whether so many
// were taken.
//
// They are the caller's if it has some, else those of whoever has had them
// longest. The latter is a guess, and matters only to whose calls a thread runs
// that waits for a token. Those that their holders keep are the last resort:
// somebody gives back what is not his.
func (r *Resource) Release(n int) bool {
	gid := goroutine.ID()
	if r.quickRelease(gid, n) {
		return true
	}
	me := submitter(context.Background(), record())
	r.mu.Lock()
	if n > r.used {
		r.mu.Unlock()
		return false
	}
	var drops []*Hold // all of whose tokens are given back
	type part struct {
		h *Hold
		n int
	}
	var parts []part
	left := n
	for _, mine := range []bool{true, false} {
		for i := 0; i < len(r.loose) && left > 0; {
			h := r.loose[i]
			if mine && (me == nil || h.node != me) && h.gid != gid {
				i++
				continue
			}
			some := min(left, h.n)
			left -= some
			h.n -= some
			parts = append(parts, part{h, some})
			if h.n == 0 {
				drops = append(drops, h)
				r.loose = slices.Delete(r.loose, i, i+1)
			} else {
				i++
			}
		}
	}
	if left > 0 {
		for _, h := range r.kept {
			for ; h != nil && left > 0; h = h.outer {
				if h.has {
					h.lose()
					left--
					parts = append(parts, part{h, 1})
				}
			}
		}
	}
	r.mu.Unlock()
	for _, h := range drops {
		h.drop() // before somebody else gets the token and is remembered
	}
	r.mu.Lock()
	var back []*Hold
	for _, p := range parts {
		back = append(back, p.h.giveBack(p.n)...)
	}
	r.used -= left // some are on their way to a holder that is not known yet
	r.grant()
	r.mu.Unlock()
	r.lendOn(back)
	return true
}

// nest lends the token of a function to one that it calls on its own goroutine,
// where there is such a token: that function keeps it, so that the caller cannot
// go on before it is back.
func (r *Resource) nest(c *claim) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for h := r.kept[c.hold.key()]; h != nil; h = h.outer {
		if h.has {
			h.lose()
			h.inside = true
			c.hold.from = append(c.hold.from, h)
			c.settle()
			return true
		}
	}
	return false
}

// borrow has c lent tokens by those who wait for it, and reports whether it has
// now what it wants. Those who wait for it and have lent theirs to somebody else
// remember it.
func (c *claim) borrow() bool {
	r := c.r
	r.mu.Lock()
	if c.done {
		r.mu.Unlock()
		return true
	}
	some := len(r.lent) > 0
	for h := range r.ready {
		if some = some || h.thread != nil || h.self.waits.Load() != nil; some {
			break
		}
	}
	r.mu.Unlock()
	if !some || c.node == nil && c.run == nil {
		return false
	}
	chase(func() { c.borrowNow() })
	r.mu.Lock()
	defer r.mu.Unlock()
	return c.done
}

// maxHeirTo bounds how many remember a claim: the nearest.
const maxHeirTo = 8

// borrowNow does that. cycles is held, so that who is seen to wait stays asleep.
func (c *claim) borrowNow() bool {
	for {
		if lent, again := c.tryBorrow(); !again {
			return lent
		}
	}
}

// tryBorrow does it once. again says that meanwhile a token has come back, which
// was neither there nor seen to be lent.
func (c *claim) tryBorrow() (lent, again bool) {
	r := c.r
	r.mu.Lock()
	if c.done {
		r.mu.Unlock()
		return true, false
	}
	back := r.back
	ready := make([]*Hold, 0, len(r.ready))
	for h := range r.ready {
		if h.key() != c.self { // it is not for itself that it waits
			ready = append(ready, h)
		}
	}
	r.mu.Unlock()
	may := map[any][]*Hold{} // by what they wait for
	for _, h := range ready {
		if to := h.waitsFor(); to != nil {
			may[to] = append(may[to], h)
		}
	}
	var holds []*Hold // who may lend
	var tos []any
	heirTo := 0
	c.reach(func(x any) (enough bool) {
		for _, h := range may[x] {
			holds, tos = append(holds, h), append(tos, x)
		}
		r.mu.Lock()
		for _, h := range r.lent[x] {
			if c.turn != nil && heirTo < maxHeirTo && h != c.hold && !slices.Contains(c.heirTo, h) {
				c.heirTo = append(c.heirTo, h)
				h.heirs = append(h.heirs, c)
			}
			heirTo++
		}
		r.mu.Unlock()
		return len(holds) >= c.n || len(may) == 0 && heirTo >= maxHeirTo
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.done {
		return true, false
	}
	free := 0
	if !c.inLine && !c.back && r.line.len+len(r.owed) == 0 || r.line.head == c && len(r.owed) == 0 {
		free = max(0, r.total-r.used)
	}
	lenders := 0
	for i, h := range holds {
		if _, ok := r.ready[h]; ok {
			holds[lenders], tos[lenders] = h, tos[i]
			lenders++
		}
	}
	if lenders+free < c.n {
		return false, r.back != back
	}
	some := min(lenders, c.n)
	if !c.hold.keeps {
		// These may be handed on, and kept for long.
		some = max(0, c.n-free)
	}
	for i, h := range holds[:some] {
		h.lend(c.hold, tos[i])
	}
	r.used += c.n - some
	c.leaveLine()
	c.settle()
	r.grant() // it may have stood in front of others
	return true, false
}

// leaveLine takes c out of where it waits. r.mu is held.
func (c *claim) leaveLine() {
	if c.inLine {
		c.r.line.remove(c)
	}
	if c.back {
		c.r.owed = slices.DeleteFunc(c.r.owed, func(o *claim) bool { return o == c })
	}
}

// lendOn has tokens that have come back to those who still sleep lent to the
// next who may have them. No lock is held.
func (r *Resource) lendOn(back []*Hold) {
	r.mu.Lock()
	first := r.line.head
	if first != nil && first.n == 1 {
		first = nil
	}
	r.mu.Unlock()
	if first != nil {
		first.borrow() // some may be free now, and the others lent
	}
	for _, h := range back {
		for {
			h.r.mu.Lock()
			var c *claim
			for h.has && c == nil && len(h.heirs) > 0 && (h.thread != nil || h.self.waits.Load() != nil) {
				c = h.heirs[0]
				c.heirTo = slices.DeleteFunc(c.heirTo, func(o *Hold) bool { return o == h })
				if c.done {
					c = nil
				}
				h.heirs[0] = nil
				h.heirs = h.heirs[1:]
			}
			h.r.mu.Unlock()
			if c == nil {
				break
			}
			c.borrow()
		}
	}
}

// lent holds the tokens that their holders want back, by the key of these.
var lent loans

type loans struct {
	n  atomic.Int32
	mu sync.Mutex // a leaf lock
	by map[any][]*Hold
}

func (l *loans) add(h *Hold) {
	l.mu.Lock()
	if l.by == nil {
		l.by = map[any][]*Hold{}
	}
	l.by[h.key()] = append(l.by[h.key()], h)
	l.n.Add(1)
	l.mu.Unlock()
}

func (l *loans) remove(h *Hold) {
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

func (l *loans) of(key any) *Hold {
	l.mu.Lock()
	defer l.mu.Unlock()
	if hs := l.by[key]; len(hs) > 0 {
		return hs[len(hs)-1]
	}
	return nil
}

// reclaim is called by a goroutine whose wait has ended, and settled: it returns
// when the tokens that were lent meanwhile are back. key is what the wait was
// published by.
func reclaim(key any) {
	for h := lent.of(key); h != nil; h = lent.of(key) {
		h.reclaim()
	}
}

func (h *Hold) reclaim() {
	r := h.r
	r.mu.Lock()
	if !h.lent {
		r.mu.Unlock()
		return
	}
	if r.used < r.total {
		r.used++
		h.gain()
		r.mu.Unlock()
		return
	}
	own, rec := current()
	c := &claim{r: r, hold: h, n: 1, turn: make(chan struct{}), back: true, self: h.key(), since: time.Now()}
	ctx := context.Background()
	c.node = submitter(ctx, rec)
	if own != nil {
		c.run = own.run
	}
	r.owed = append(r.owed, c)
	lent.remove(h) // the end of the wait below is not to look for it again
	r.contend()
	r.mu.Unlock()
	r.joinHolders()
	defer func() {
		// Also when a call served meanwhile takes this wait with it in a Goexit:
		// then the function ends without the token.
		r.mu.Lock()
		if !c.done {
			c.done = true
			c.leaveLine()
			h.unlend()
		}
		r.grant()
		r.mu.Unlock()
	}()
	for c.wait(ctx, own, rec) != nil {
		// All who have a token wait for this function: one of them has no use
		// for it now.
		if c.seize() {
			return
		}
	}
}

// seize takes the token of one who sleeps, and reports false if there is none.
func (c *claim) seize() bool {
	r := c.r
	chase(func() {
		r.mu.Lock()
		ready := make([]*Hold, 0, len(r.ready))
		for h := range r.ready {
			ready = append(ready, h)
		}
		r.mu.Unlock()
		for _, h := range ready {
			to := h.waitsFor()
			if to == nil {
				continue
			}
			r.mu.Lock()
			if _, ok := r.ready[h]; ok && !c.done {
				c.leaveLine()
				h.lend(c.hold, to)
				c.settle()
			}
			r.mu.Unlock()
			return
		}
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	return c.done
}

// waitsFor returns what the holder waits for, as reach names it: nil if it does
// not wait, or for something that reach does not meet. cycles is held.
func (h *Hold) waitsFor() any {
	if h.thread != nil {
		t := h.thread
		t.mu.Lock()
		defer t.mu.Unlock()
		for f := t.top; f != nil; f = f.below {
			if f.call == h.call {
				return h.key()
			}
		}
		return nil
	}
	e := h.self.waits.Load()
	if e == nil {
		return nil
	}
	switch to := e.to.(type) {
	case *Call:
		return to
	case *awayCall:
		return to.node
	case *riding:
		return to.call
	case *Thread:
		return to
	case *want:
		if to.off.Load() {
			return nil
		}
		switch w := to.for_.(type) {
		case *Task:
			return w.Node()
		case *Group:
			return &w.nc.own
		case *place:
			return &w.nc.own
		case *Resource:
			if w != h.r {
				return &w.node
			}
		case *Lock:
			return &w.node
		case *Scope:
			return w
		}
	}
	return nil
}

// maxReach bounds the way up.
const maxReach = 1 << 20

// reach calls visit for all that waits for c, directly or not, the nearest first,
// until it returns true: for nodes, and for the calls, the threads of functions
// that are in no call, and the scopes of these calls. cycles is held, and visit
// may take leaf locks.
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

// visit names the function whose wait f is.
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

// maxOffers bounds to how many in line one who begins to wait offers his token.
const maxOffers = 64

// lendFrom is called by somebody, with the key of his holds, who has begun to
// wait: the first of those in line that he waits for, if he holds what they want,
// are lent it. Those that wait in waits of this module below his are found by
// closes as well, however far they are down the line.
func lendFrom(key any) {
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
			for c := r.line.head; c != nil && len(claims) < maxOffers; c = c.next {
				claims = append(claims, c)
			}
		}
		r.mu.Unlock()
		for _, c := range claims {
			if c.borrow() {
				break
			}
		}
	}
}

// contend notes that somebody waits for r. r.mu is held.
func (r *Resource) contend() {
	if r.busy {
		return
	}
	r.busy = true
	contended.Lock()
	if contended.resources == nil {
		contended.resources = map[*Resource]struct{}{}
	}
	contended.resources[r] = struct{}{}
	contended.n.Add(1)
	contended.Unlock()
}

// A ResourceState is who holds a resource, and who waits for it.
type ResourceState struct {
	Total, Used int
	Waiting     []ResourceParty // in the order of their turns, the first of them
	Waiters     int             // how many there are
	Holding     []ResourceParty // by Goroutine, the first of them
	Holders     int
}

// A ResourceParty holds tokens of a resource, or waits for them.
type ResourceParty struct {
	Goroutine int64  // of a holder: the one that took them
	Name      string // of the task or call, "" if it has none that is known
	Thread    uint64 // the ID of the thread that it runs on, 0 off the threads
	Tokens    int
	Age       time.Duration // of a wait
	Keeps     bool          // of a holder: it gives them back itself, before it ends
	Lent      bool          // it has lent them; or waits to have them back
}

// limiters adds the resources that somebody waits for, and what is known of those
// who hold them: what they wait for.
func (v *view) limiters() {
	contended.Lock()
	all := slices.Collect(maps.Keys(contended.resources))
	contended.Unlock()
	v.numbers = make(map[*Resource]int, len(all))
	for _, r := range all {
		if s := v.limiter(r); s.Waiters > 0 {
			v.g.Limiters = append(v.g.Limiters, s)
			v.numbers[r] = len(v.g.Limiters)
		}
	}
}

func (v *view) limiter(r *Resource) ResourceState {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := ResourceState{Total: r.total, Used: r.used}
	wait := func(c *claim) {
		if len(s.Waiting) >= graphMembers {
			return
		}
		p := c.hold.party()
		p.Tokens, p.Age, p.Lent = c.n, max(0, time.Since(c.since)), c.back
		s.Waiting = append(s.Waiting, p)
		v.found(c.hold.runs(), p.Name, 0)
	}
	for _, c := range r.owed {
		if !c.done {
			s.Waiters++
			wait(c)
		}
	}
	s.Waiters += r.line.len
	for c := r.line.head; c != nil && len(s.Waiting) < graphMembers; c = c.next {
		wait(c)
	}
	hold := func(h *Hold) {
		if s.Holders++; s.Holders <= graphMembers {
			s.Holding = append(s.Holding, h.party())
			v.found(h.runs(), h.party().Name, 0)
		}
	}
	for _, h := range r.loose {
		hold(h)
	}
	for _, h := range r.kept {
		for ; h != nil; h = h.outer {
			hold(h)
		}
	}
	slices.SortStableFunc(s.Holding, func(a, b ResourceParty) int { return cmp.Compare(a.Goroutine, b.Goroutine) })
	return s
}

// runs returns the node that the one who has h runs as, off the threads, nil if
// that is not known.
func (h *Hold) runs() *Node {
	if h.self != nil || h.thread != nil {
		return h.self
	}
	if h.node != nil && h.node.life != nil && &h.node.life.own == h.node {
		return h.node // a task's own ctx
	}
	return nil
}

// party names the one who holds h. The resource's mu is held.
func (h *Hold) party() ResourceParty {
	p := ResourceParty{Goroutine: h.gid, Tokens: h.n, Keeps: h.keeps, Lent: h.lent || h.inside}
	if h.node != nil && h.node.life != nil && &h.node.life.own == h.node {
		p.Name = h.node.name()
	}
	if h.thread != nil {
		p.Thread = h.thread.id
	}
	return p
}

// EnterLimiter has the function that calls take a token of a limiter, a
// *task.Limiter, and returns what it must give it back with itself. Package
// task sets it: nobody but this module can promise that.
var EnterLimiter func(limiter any, ctx context.Context) (leave func(), err error)
