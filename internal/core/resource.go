package core

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"time"

	"asyncsync.dev/internal/cycle"
	"asyncsync.dev/internal/goroutine"
)

// This file has the tokens of limiters: who takes them, waits for them and gives them
// back.

// key returns the key under which the holder publishes its waits. It is also
// the key of h in kept and loans.
func (h *Hold) key() any {
	switch {
	case h.thread == nil:
		return h.self
	case h.call == nil:
		return h.thread
	}
	return h.call
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

// Counts returns the number of tokens, of tokens taken, of functions that keep
// a token and do not have it now, and of callers in line.
func (r *Resource) Counts() (total, used, lent, waiting int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for h := range r.keeping() {
		if !h.has {
			lent++
		}
	}
	return r.total, r.used, lent, r.line.len
}

// keeping ranges over the holds of functions that keep their tokens. r.mu is held.
func (r *Resource) keeping() iter.Seq[*Hold] {
	return func(yield func(*Hold) bool) {
		for _, h := range r.kept {
			for ; h != nil; h = h.outer {
				if !yield(h) {
					return
				}
			}
		}
	}
}

// SetTotal changes the number of tokens.
func (r *Resource) SetTotal(n int) {
	r.mu.Lock()
	r.total = n
	r.returned()
	r.mu.Unlock()
}

// TryAcquire takes n tokens if they are free and no claim is to have them first. Claims
// that stand aside do not count.
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
	r.between += n
	r.mu.Unlock()
	own, rec := current()
	h := r.hold(context.Background(), own, rec, n, false)
	h.has, h.taken = true, n
	r.remember(h)
	return true
}

// quick takes n tokens for a holder at or below node, if they are free and nobody waits.
// It uses a spare record if there is one, and makes no join: see joinHolders.
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

// Quick takes a token for the caller, who would wait with ctx, if one is free.
func (r *Resource) Quick(ctx context.Context) bool {
	_, rec := current()
	return r.quick(submitter(ctx, rec), 1)
}

// QuickForNobody is Quick for a caller for which [Nobody] reports true.
func (r *Resource) QuickForNobody() bool { return r.quick(nil, 1) }

// Nobody reports whether the module knows nothing of the caller: it is no thread,
// runs no task, and neither ctx nor its goroutine is below a function. Then no
// known wait is for the caller.
func Nobody(ctx context.Context) bool {
	own, rec := current()
	return own == nil && (rec == nil || rec.Node == nil && rec.Task == nil) && NodeOf(ctx) == nil
}

// maxSpare is how many unused records of holders a resource keeps for later.
const maxSpare = 256

// quickRelease gives back n tokens that quick has taken for the caller. It reports
// false if somebody waits for them, or if Release would give back others.
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
			if len(r.spare) < maxSpare && h.taken == 0 { // else ReleaseOf still looks at it
				h.node, h.has = nil, false
				r.spare = append(r.spare, h)
			}
		}
		return true
	}
	return false
}

// joinHolders joins the holders in loose, who may hand their tokens on. It is called
// when a wait has begun; before that the joins would have no effect.
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

// Acquire takes n tokens, and waits for them if need be. keeps says that the function
// which runs on this goroutine gives its token back itself, with Leave, before it
// ends. Then n is 1, and Acquire returns the hold.
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
	r.grant() // all claims before c may stand aside, so that c is next
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
	if c.refusal != nil {
		return nil, c.refusal
	}
	taken = true
	return r.remember(h), nil
}

// hold returns a hold for the caller, which waits with ctx. No other goroutine knows it
// yet.
func (r *Resource) hold(ctx context.Context, own *Thread, rec *goroutine.Record, n int, keeps bool) *Hold {
	h := &Hold{r: r, n: n, keeps: keeps, gid: goroutine.ID()}
	if keeps {
		if own != nil {
			h.thread, h.call = own, own.run
		} else if h.self = waiter(rec); h.self == nil {
			// A holder needs a node, because others wait for it.
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

// remember makes h known to others. It must not be called before h has its tokens: a
// search assumes that a holder runs, or waits for something other than these tokens.
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
	r.between -= h.n
	r.mu.Unlock()
	switch {
	case joined:
		relate(nil, &r.node, func() { h.node.addJoin(h.join) })
	case !h.keeps && waited:
		r.joinHolders()
	}
	return h
}

// forget undoes what Resource.hold has done to the goroutine of a function that keeps
// its token.
func (h *Hold) forget() {
	if h.plain == nil {
		return
	}
	h.plain.End()
	if rec := goroutine.Current(); waiter(rec) == h.plain {
		rec.Node, rec.Raised = nil, nil
		rec.ReleaseIfEmpty()
	}
}

// begin gives c its tokens: as many as the argument some from the chain that c is
// kin to, the others from the free tokens. r.mu is held.
func (c *claim) begin(some int) {
	r, h := c.r, c.hold
	free := c.n - some
	r.used += free
	r.between += c.n
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
	c.granted()
}

// granted notes that c has its tokens, for the first time or again. r.mu is held.
func (c *claim) granted() {
	r, h := c.r, c.hold
	if c.inLine {
		r.line.remove(c)
		r.kin = without(r.kin, c)
	}
	if c.back {
		r.owed = without(r.owed, c)
	}
	c.done = true
	r.moves++
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

// gain notes that h has its tokens, for the first time or again. The resource's mu is
// held.
func (h *Hold) gain() {
	h.has = true
	if h.known {
		h.r.ready[h] = struct{}{}
	}
	h.endLoan()
}

// lose notes that h does not have its tokens any more. The resource's mu is held.
func (h *Hold) lose() {
	h.has = false
	delete(h.r.ready, h)
}

// leaveChain takes h out of its chain. The tokens that the chain does not need any
// more are free. r.mu is held, and grant must follow.
func (h *Hold) leaveChain() {
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
	return wait(ctx, own, rec, &goal{target: forTokens{c}, ctx: ctx}, &c.r.node, c.turn, "limiter")
}

// giveUp takes c out of the line. Tokens that came at the same moment go to the next.
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
		r.between -= c.n
		h.leaveChain()
	}
	c.done = true
	r.returned()
	r.mu.Unlock()
}

// free returns the number of free tokens. A chain that ends gives up its tokens even
// while functions of other chains use them. Until those functions stop, busy exceeds
// used, and the tokens are not free. r.mu is held.
func (r *Resource) free() int { return r.total - max(r.used, r.busy) }

// grant gives tokens that nobody uses to those who are owed one, then to kin. Tokens
// that are free go to the first in line. r.mu is held. grant wakes waiters under it,
// which is allowed because closing a channel runs no code of the user's.
func (r *Resource) grant() {
	for c := r.nextOwed(); c != nil; c = r.nextOwed() {
		if r.busy >= r.used {
			if r.free() <= 0 {
				break
			}
			r.used++
			c.hold.chain.tokens++
		}
		c.granted()
	}
	for i := 0; i < len(r.kin); {
		if !r.kin[i].takeAsKin() {
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

// returned gives out tokens that have come back. r.mu is held.
//
// The one who gave them back may have been the last who could bring tokens to those in
// line: all other holders sleep. The claims in line were looked at when their waits began,
// and one holder ran then. No wait begins now, so nobody else would look again. If a claim
// is given its tokens, its holder runs, and comes here later.
func (r *Resource) returned() {
	before := r.moves
	r.grant()
	if r.moves != before || r.line.head == nil || len(r.kept) == 0 {
		return // only functions that keep tokens can be seen to sleep
	}
	r.still = r.moves
	if !r.looks {
		r.looks = true
		go r.reconsider()
	}
}

// reconsider looks at the claims in line again, unless a claim has been given its tokens
// meanwhile: most often it is a function that takes back the token which it has lent.
func (r *Resource) reconsider() {
	runtime.Gosched()
	r.mu.Lock()
	r.looks = false
	var all []*claim
	if r.moves == r.still {
		for c := r.line.head; c != nil; c = c.next {
			all = append(all, c)
		}
	}
	r.mu.Unlock()
	for _, c := range all {
		c.reconsider()
	}
}

// reconsider has c borrow tokens, or refuses it if its wait closes a cycle. The caller is
// not the waiter, and holds no lock.
func (c *claim) reconsider() {
	for {
		if c.borrow() {
			return
		}
		var q *query
		found := false
		readEdges(func() {
			if p := c.visible(); p.f != nil || p.self != nil {
				q = newQuery(p.edge, p.self, p.f, nil)
				q.late = true
				found = q.certain()
			}
		})
		if q == nil {
			return
		}
		if q.lend() {
			continue
		}
		if !found {
			return
		}
		if _, again := q.refuse(nil); !again {
			return
		}
	}
}

// opens notes that the wait of c is visible as p. The zero openWait says that it is not.
func (c *claim) opens(p openWait) {
	c.r.mu.Lock()
	c.at = p
	c.r.mu.Unlock()
}

// visible returns how the wait of c is visible; the zero openWait if it is not, or c is
// not in line.
func (c *claim) visible() openWait {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	if !c.inLine {
		return openWait{}
	}
	return c.at
}

// refuse ends the wait of c with err. It reports false if c has its tokens, or has given
// up.
func (c *claim) refuse(err error) bool {
	r := c.r
	r.mu.Lock()
	defer r.mu.Unlock()
	if !c.inLine {
		return false
	}
	r.line.remove(c)
	r.kin = without(r.kin, c)
	c.done, c.refusal = true, err
	close(c.turn)
	r.grant()
	return true
}

// takeAsKin gives c its tokens if c is kin and there are enough, and reports whether
// it did. Tokens that are not in use count, and free tokens if it is c's turn. r.mu is
// held.
func (c *claim) takeAsKin() bool {
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
		// c may hand its tokens on to functions that keep them for long, so
		// it uses free tokens first.
		some = max(0, c.n-free)
	}
	if some > idle || c.n-some > free {
		return false
	}
	c.begin(some)
	return true
}

// isKin reports whether c is still kin. r.mu is held.
func (c *claim) isKin() bool { return c.under != nil && c.under.chain != nil }

// next returns the claim that is to have the next free token, nil if there is none.
// Claims that stand aside are passed over, and keep their place. r.mu is held.
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

// nextOwed returns the first claim for a token that is owed, nil if there is none.
// r.mu is held.
func (r *Resource) nextOwed() *claim {
	for _, c := range r.owed {
		if !c.standsAside() {
			return c
		}
	}
	return nil
}

// standsAside reports whether c must not be given tokens now, and notes that c has missed
// some if so. r.mu is held.
func (c *claim) standsAside() bool {
	if c.aside {
		c.missed = true
	}
	return c.aside
}

// stepAside notes that the thread of c is about to run something on top of the wait.
// What runs there may need the tokens that c waits for, and c could not use them
// before that has ended. stepAside reports false if c has its tokens already.
func (c *claim) stepAside() bool {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	c.aside = !c.done
	return c.aside
}

// stepBack notes that the thread is back in the wait of c. If missed is true, the
// caller must look for tokens with borrow once it holds no lock.
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

// Leave gives back the token of a function that keeps it. It is called on the
// goroutine of that function.
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
	r.between++
	r.mu.Unlock()
	// The join must end before another holder gets the token and is
	// remembered.
	h.drop()
	r.mu.Lock()
	r.between--
	if h.has {
		h.lose()
		if h.below != nil && h.below.chain != nil {
			h.below.gain() // the function of h.below goes on now without looking for its token
		} else {
			r.busy--
		}
	}
	h.endLoan() // a Goexit may have cut short the wait for the token
	h.known = false
	h.leaveChain()
	r.returned()
	r.mu.Unlock()
	h.forget()
}

// drop ends the join of h, which is not in kept or loose any more.
func (h *Hold) drop() {
	if h.joined {
		relate(nil, &h.r.node, func() { h.node.dropJoin(h.join) })
	}
}

// Release gives back n tokens, and reports whether so many are known to be held.
//
// It gives back the caller's tokens first, then those that were taken earliest. The
// latter is a guess, which matters only to threads that wait for a token, because
// these serve the calls of the holders. Tokens that functions keep come last: a caller
// that comes to these gives back tokens that are not its own.
func (r *Resource) Release(n int) bool { return r.ReleaseOf(goroutine.ID(), n) }

// ReleaseOf is Release for tokens that the goroutine gid has taken.
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
	var drops []*Hold // that have no tokens left
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
	r.between += n
	r.mu.Unlock()
	for _, h := range drops {
		h.drop() // before somebody else gets the token and is remembered
	}
	r.mu.Lock()
	r.between -= n
	for _, p := range parts {
		r.busy -= p.n
		// Those of its chain are given back first.
		free := max(0, p.h.taken-p.h.n)
		p.h.taken -= free
		r.used -= free
		if p.h.keeps || p.h.taken == p.h.n {
			p.h.leaveChain()
		}
	}
	r.returned()
	r.mu.Unlock()
	return true
}

// Disown makes the holder of the token that goroutine gid has taken unknown from now
// on.
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

// EnterLimiter takes a token of limiter, a *task.Limiter, for the calling
// function, which must call leave itself to give the token back. Package task
// sets the variable. Only this module can promise to call leave in that way.
var EnterLimiter func(limiter any, ctx context.Context) (leave func(), err error)

func (f forTokens) kind() string { return "limiter" }

func (f forTokens) name() string { return "" }

func (f forTokens) mayWait() bool { return true }

func (f forTokens) next() (*Call, *Node) { return nil, nil }

func (f forTokens) reached() any { return &f.c.r.node }

func (f forTokens) report(v *view, w *WaitState) { w.Limiter = v.numbers[f.c.r] }

func (f forTokens) needs(q *query) cycle.Needs {
	if f.c.has() {
		return cycle.Needs{}
	}
	if f.c != q.claim {
		q.claims = append(q.claims, f.c)
	}
	return q.one(&resourceVertex{q, f.c})
}

// claim returns what e wants of a resource, nil if it waits for something else.
func (e *edge) claim() *claim {
	if g, ok := e.to.(*goal); ok {
		if t, ok := g.target.(forTokens); ok {
			return t.c
		}
	}
	return nil
}
