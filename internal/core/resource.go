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
// it. While such a function sleeps in a wait of this module nobody uses its token.
// So the token may go to another, as long as that one is
//
//   - a function that has slept itself, and cannot go on because its own token
//     is lent: it is owed one;
//   - or a function that one of those who keep a token waits for, directly or
//     not: it is kin. It must not wait for what is held for its sake.
//
// Everybody else takes a token that nobody has. So as many functions run as there
// are tokens, never more, and no more are under way than tokens, but for those
// that are waited for.
//
// Who has lent its token to whom does not matter, and is not kept. A function that
// begins with a token that was free begins a [chain], and one that begins as kin
// joins the chain of the one that waits for it. A chain has one token or more.
// They are free again when those who are left in it are fewer.
//
// A function that falls asleep does nothing, while nobody wants its token. Who
// does looks for those that sleep. So a lender must not go on without a look: it
// takes its wait back, settles, and then looks whether its token is lent (see
// reclaim). Who takes a token so has the right to read edges, and has seen the
// wait. So of the two one knows of the other.
//
// Who is kin is found upwards, from the one who wants a token, along the way that
// relation takes: see claim.reach. A stranger that the holder only happens to
// depend on is not: see closes.
//
// A token that was taken with Acquire is not lent: whoever took it may have handed
// it on to somebody who runs.
type Resource struct {
	node Node

	mu    sync.Mutex // guards the rest; a leaf lock, but for that of lent and contended
	total int
	used  int           // tokens of chains and of loose holders; exceeds total after a SetTotal that lowers it
	busy  int           // tokens of holders that may be running; see free for how it relates to used
	given int           // tokens given to claims whose holds remember has not seen yet
	owed  []*claim      // whose own tokens are lent, and who cannot go on without: served first
	line  claimList     // the others
	kin   []*claim      // of the line, those who are kin
	kept  map[any]*Hold // by Hold.key, the newest of each
	loose []*Hold       // others may give these back; the oldest first
	spare []*Hold       // to be used for loose again
	queue bool          // it is in contended

	ready map[*Hold]struct{} // of kept, those who have their token
	lent  map[any][]*Hold    // of kept, those who have lent it, by what they wait for
}

// A chain is functions under a limiter of which each was waited for by another,
// when it began, but for the first. Guarded by the resource's mu.
type chain struct {
	members int
	tokens  int
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
	n      int    // how many
	quick  bool   // nobody but loose has seen it, ever: it can be used again
	joined bool   // node has join, or is about to
	chain  *chain // that it is a member of; nil for one that keeps none and was lent none
	part   int    // as how many
	taken  int    // of one that keeps none: how many of its tokens are not its chain's
	has    bool   // it has them; false while it does not, or they are lent
	lent   bool   // they are
	known  bool   // it is in kept
	to     any    // what the holder waits for, while they are lent
	outer  *Hold  // the one of the same key that it hides in kept
	below  *Hold  // the one whose token it uses, and whose function has called its own
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

	under      *Hold // it is kin to this one
	inLine     bool
	done       bool // it has them, or has given up
	aside      bool // its thread runs something on top of the wait: see Thread.serve
	missed     bool // it could have been served meanwhile
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

// Counts returns how many tokens there are, how many are taken, how many who
// keep one have none now, and how many callers wait in line.
func (r *Resource) Counts() (total, used, lent, waiting int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range r.kept {
		for ; h != nil; h = h.outer {
			if !h.has {
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
}

// TryAcquire takes n tokens if they are free and nobody waits.
func (r *Resource) TryAcquire(n int) bool {
	if r.quick(ownNode(), n) {
		return true
	}
	r.mu.Lock()
	if r.free() < n || r.next() != nil {
		r.mu.Unlock()
		return false
	}
	r.used += n
	r.busy += n
	r.given += n
	r.mu.Unlock()
	own, rec := current()
	h := r.hold(context.Background(), own, rec, n, false)
	h.has, h.taken = true, n
	r.remember(h)
	return true
}

// quick takes n tokens for a holder who runs as node, if they are free and nobody
// waits. Nothing is allocated for it, and no join is made: see joinHolders.
func (r *Resource) quick(node *Node, n int) bool {
	gid := goroutine.ID()
	r.mu.Lock()
	if r.free() < n || r.line.len+len(r.owed) > 0 {
		r.mu.Unlock()
		return false
	}
	r.used += n
	r.busy += n
	var h *Hold
	if last := len(r.spare) - 1; last >= 0 {
		h = r.spare[last]
		r.spare = r.spare[:last]
	} else {
		h = &Hold{r: r, quick: true}
	}
	h.node, h.gid, h.n, h.taken, h.has = node, gid, n, n, true
	r.loose = append(r.loose, h)
	r.mu.Unlock()
	return true
}

// Quick takes a token for who waits with ctx, if that takes no waiting.
func (r *Resource) Quick(ctx context.Context) bool {
	_, rec := current()
	return r.quick(submitter(ctx, rec), 1)
}

// QuickForNobody is Quick for somebody whom nothing is known of: see Nobody.
func (r *Resource) QuickForNobody() bool { return r.quick(nil, 1) }

// Nobody reports whether who waits with ctx, on this goroutine, is no thread, in no
// task and below nothing: nobody that is known waits for it.
func Nobody(ctx context.Context) bool {
	own, rec := current()
	return own == nil && (rec == nil || rec.Node == nil && rec.Task == nil) && NodeOf(ctx) == nil
}

// maxSpare bounds how many records of holders a resource keeps.
const maxSpare = 256

// quickRelease gives back n tokens that quick has taken for the caller, where they
// are what Release would give back, and nobody waits for them.
func (r *Resource) quickRelease(gid int64, n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.queue || r.line.len+len(r.owed) > 0 {
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
		r.busy -= n
		h.taken -= n
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
	if r.free() >= n && r.next() == nil {
		c.begin(0)
		r.mu.Unlock()
		return r.remember(h), nil
	}
	c.turn = make(chan struct{})
	c.since = time.Now()
	r.line.push(c)
	if c.under != nil {
		r.kin = append(r.kin, c)
	}
	r.contend()
	r.grant() // those before it may stand aside
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
	}
	joined, waited := h.joined, r.line.len+len(r.owed) > 0
	r.given -= h.n
	r.mu.Unlock()
	switch {
	case joined:
		relate(nil, &r.node, func() { h.node.addJoin(h.join) })
	case !h.keeps && waited:
		r.joinHolders()
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

// begin gives c its tokens: some of the chain that it is kin to, if any, and the
// others of those that are free. r.mu is held.
func (c *claim) begin(some int) {
	r, h := c.r, c.hold
	free := c.n - some
	r.used += free
	r.given += c.n
	switch {
	case some > 0:
		h.chain, h.part = c.under.chain, some
		h.chain.members += some
		h.taken = free
	case h.keeps:
		h.chain, h.part = &chain{members: 1, tokens: 1}, 1
	default:
		h.taken = free
	}
	c.settle()
}

// settle says that c has its tokens, for the first time or again. r.mu is held.
func (c *claim) settle() {
	r, h := c.r, c.hold
	if c.inLine {
		r.line.remove(c)
		r.kin = without(r.kin, c)
	}
	if c.back {
		r.owed = without(r.owed, c)
	}
	c.done = true
	r.busy += c.n
	h.gain()
	if c.turn != nil {
		close(c.turn)
	}
}

func without(all []*claim, c *claim) []*claim {
	if i := slices.Index(all, c); i >= 0 {
		return slices.Delete(all, i, i+1)
	}
	return all
}

// gain says that h has its tokens, for the first time or again. The mu of the
// resource is held.
func (h *Hold) gain() {
	h.has = true
	if h.known {
		h.r.ready[h] = struct{}{}
	}
	h.unlend()
}

// lose says that h has its tokens no more.
func (h *Hold) lose() {
	h.has = false
	delete(h.r.ready, h)
}

// lend takes the token of h, who waits for to. r.mu is held.
func (h *Hold) lend(to any) {
	r := h.r
	h.lose()
	r.busy--
	h.lent, h.to = true, to
	if r.lent == nil {
		r.lent = map[any][]*Hold{}
	}
	r.lent[to] = append(r.lent[to], h)
	lent.add(h)
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

// leave takes h out of its chain, whose tokens are free that are not needed any
// more. r.mu is held, and grant must follow.
func (h *Hold) leave() {
	c := h.chain
	if c == nil {
		return
	}
	h.chain = nil
	c.members -= h.part
	if many := c.tokens - c.members; many > 0 {
		c.tokens -= many
		h.r.used -= many
	}
}

// wait waits for c's turn.
func (c *claim) wait(ctx context.Context, own *Thread, rec *goroutine.Record) error {
	return wait(ctx, own, rec, &want{for_: c.r, ctx: ctx, claim: c}, &c.r.node, c.turn, "limiter")
}

// giveUp leaves the line. Tokens that came at the same moment go to the next.
func (c *claim) giveUp() {
	r := c.r
	r.mu.Lock()
	if c.inLine {
		r.line.remove(c)
		r.kin = without(r.kin, c)
	} else if h := c.hold; c.done && h.has {
		h.lose()
		r.busy -= c.n
		r.used -= h.taken
		r.given -= c.n
		h.leave()
	}
	c.done = true
	r.grant()
	r.mu.Unlock()
}

// free returns how many tokens are nobody's. A chain that ends gives up its tokens,
// though functions of other chains may be using them. Until they stop, busy exceeds
// used, and those tokens are not free. r.mu is held.
func (r *Resource) free() int { return r.total - max(r.used, r.busy) }

// grant gives the tokens that nobody uses to those who are owed one, then to kin,
// and those that are free to the first in line. r.mu is held; closing a channel
// runs nobody's code.
func (r *Resource) grant() {
	for c := r.nextOwed(); c != nil; c = r.nextOwed() {
		if r.busy >= r.used {
			if r.free() <= 0 {
				break
			}
			r.used++
			c.hold.chain.tokens++
		}
		c.settle()
	}
	for i := 0; i < len(r.kin); {
		if !r.kin[i].take() {
			i++
		}
	}
	for c := r.next(); c != nil && !c.back && c.n <= r.free(); c = r.next() {
		c.begin(0)
	}
	if r.queue && r.line.len+len(r.owed) == 0 {
		r.queue = false
		contended.Lock()
		delete(contended.resources, r)
		contended.n.Add(-1)
		contended.Unlock()
	}
}

// take gives c, who is kin, its tokens, and reports whether there are enough: such
// as nobody uses, and such as are free, if it is c's turn. r.mu is held.
func (c *claim) take() bool {
	r := c.r
	if !c.isKin() || c.standsAside() {
		return false
	}
	idle, free := max(0, r.used-r.busy), 0
	if first := r.next(); first == c || first == nil {
		free = max(0, r.free())
	}
	some := min(idle, c.n)
	if !c.hold.keeps {
		// These may be handed on, and kept for long.
		some = max(0, c.n-free)
	}
	if some > idle || c.n-some > free {
		return false
	}
	c.begin(some)
	return true
}

// isKin reports whether c still is. r.mu is held.
func (c *claim) isKin() bool { return c.under != nil && c.under.chain != nil }

// next returns who is to have the next free token. Those who stand aside are
// passed over, and keep their place. r.mu is held.
func (r *Resource) next() *claim {
	if c := r.nextOwed(); c != nil {
		return c
	}
	for c := r.line.head; c != nil; c = c.next {
		if !c.standsAside() {
			return c
		}
	}
	return nil
}

// nextOwed returns the first who cannot go on because its token is lent, nil if
// there is none. r.mu is held.
func (r *Resource) nextOwed() *claim {
	for _, c := range r.owed {
		if !c.standsAside() {
			return c
		}
	}
	return nil
}

// standsAside reports whether c must not be given tokens now. r.mu is held.
func (c *claim) standsAside() bool {
	if c.aside {
		c.missed = true
	}
	return c.aside
}

// stepAside says that the thread of c is about to run something on top of its
// wait. What that needs may be the very tokens that c waits for, and c could not
// use them before it ends. It reports false if c has them already.
func (c *claim) stepAside() bool {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	c.aside = !c.done
	return c.aside
}

// stepBack says that the thread is back in the wait of c. missed says that c is to
// look for tokens itself, with borrow and no lock held.
func (c *claim) stepBack() (missed bool) {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	missed = c.missed
	c.aside, c.missed = false, false
	if missed {
		c.r.grant()
	}
	return missed
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
	if h.has {
		h.lose()
		if h.below != nil && h.below.chain != nil {
			h.below.gain() // its function goes on now, without another look
		} else {
			r.busy--
		}
	}
	h.unlend() // a Goexit has cut short its wait for the token
	h.known = false
	h.leave()
	r.grant()
	r.mu.Unlock()
	h.forget()
}

// drop ends the join of h, which is not in kept or loose any more.
func (h *Hold) drop() {
	if h.joined {
		relate(nil, &h.r.node, func() { h.node.dropJoin(h.join) })
	}
}

// Release gives back n tokens, of whoever has them, and reports whether so many
// are known to be had.
//
// They are the caller's if it has some, else those of whoever has had them
// longest. The latter is a guess, and matters only to whose calls a thread runs
// that waits for a token. Those that functions keep are the last resort:
// somebody gives back what is not his.
func (r *Resource) Release(n int) bool { return r.ReleaseOf(goroutine.ID(), n) }

// ReleaseOf is Release for the goroutine gid, which has taken them.
func (r *Resource) ReleaseOf(gid int64, n int) bool {
	if r.quickRelease(gid, n) {
		return true
	}
	me := ownNode()
	r.mu.Lock()
	known := len(r.ready)
	for _, h := range r.loose {
		known += h.n
	}
	if n > known {
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
	for h := range r.ready {
		if left == 0 {
			break
		}
		h.lose()
		left--
		parts = append(parts, part{h, 1})
	}
	r.mu.Unlock()
	for _, h := range drops {
		h.drop() // before somebody else gets the token and is remembered
	}
	r.mu.Lock()
	for _, p := range parts {
		r.busy -= p.n
		// What its chain has lent comes first.
		free := max(0, p.h.taken-p.h.n)
		p.h.taken -= free
		r.used -= free
		if p.h.keeps || p.h.taken == p.h.n {
			p.h.leave()
		}
	}
	r.grant()
	r.mu.Unlock()
	return true
}

// Disown says that the token which goroutine gid has taken is somebody's of whom
// nothing is known, from now on.
func (r *Resource) Disown(gid int64) {
	of := func() *Hold {
		for _, h := range r.loose {
			if h.gid == gid {
				return h
			}
		}
		return nil
	}
	r.mu.Lock()
	h := of()
	if h == nil || !h.joined {
		if h != nil {
			h.node = nil
		}
		r.mu.Unlock()
		return
	}
	r.mu.Unlock()
	relate(nil, &r.node, func() {
		r.mu.Lock()
		h := of()
		if h == nil || !h.joined {
			r.mu.Unlock()
			return
		}
		node := h.node
		h.node, h.joined = nil, false
		r.mu.Unlock()
		node.dropJoin(h.join)
	})
}

// nest has a function that is called, on its own goroutine, by one that has a
// token use that, where there is such a one: it keeps it, so that the caller
// cannot go on before it is back.
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

// borrow has c take the tokens of those who sleep, if it may, and reports whether
// it has now what it wants. No lock is held.
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
	chase(func() { c.borrowNow() })
	return c.has()
}

// has reports whether c has what it wants.
func (c *claim) has() bool {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	return c.done
}

// borrowNow is borrow for one who holds cycles, so that who is seen to sleep stays
// asleep.
func (c *claim) borrowNow() bool {
	r := c.r
	if !c.back && !c.related() {
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
			h.lend(to)
			wants--
		}
		r.mu.Unlock()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.turn == nil && !c.done && r.nextOwed() == nil {
		c.take()
	}
	r.grant()
	return c.done
}

// related looks for one who keeps a token and waits for c, and reports whether
// there is one. cycles is held.
func (c *claim) related() bool {
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
		if h.key() == c.self { // it is not for itself that it waits
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
// when the functions on it have their tokens again that were lent meanwhile. key
// is what the wait was published by.
func reclaim(key any) {
	for h := lent.of(key); h != nil; h = lent.of(key) {
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
	lent.remove(h) // the end of the wait below is not to look for it again
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
		// Also when a call served meanwhile takes this wait with it in a Goexit:
		// then the function ends without the token.
		r.mu.Lock()
		if !c.done {
			c.done = true
			r.owed = without(r.owed, c)
			h.unlend()
		}
		r.grant()
		r.mu.Unlock()
	}()
	c.wait(ctx, own, rec) // it is never refused: there is nobody to tell
}

// sleeps reports whether the holder waits, for whatever it may be. cycles is held.
func (h *Hold) sleeps() bool {
	if h.thread != nil {
		return h.sleepsOn(h.thread, h.call)
	}
	e := h.self.waits.Load()
	if e == nil {
		return false
	}
	switch to := e.to.(type) {
	case *want:
		return !to.off.Load() && h.idle(to.claim)
	case *Thread:
		return h.sleepsOn(to, nil) // its goroutine has become one
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

// idle reports whether a holder that waits for c, nil if for something else than
// tokens, is to lend its own: not if it goes on now, and not for more of them.
func (h *Hold) idle(c *claim) bool { return c == nil || c.r != h.r && !c.has() }

// waitsFor returns what the holder waits for, as reach names it: nil if it does
// not wait, or for something that reach does not meet. cycles is held.
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
// wait: if he has a token, it is lent to one who is owed one, or to the first in
// line that he waits for. Those that wait in waits of this module below his are found by
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
	p := ResourceParty{Goroutine: h.gid, Tokens: h.n, Keeps: h.keeps, Lent: h.keeps && !h.has}
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
