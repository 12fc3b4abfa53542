package nesting

import (
	"math/rand/v2"

	"asyncsync.dev/asyncsync"
)

// Generate makes a program.
//
// # Why its programs cannot deadlock
//
// A strand is code that runs one step after the other, across whatever threads:
// a root, a task, a member of a group. Every context has a rank. The chain of a
// strand, at one point, is the contexts whose functions are under way in it or
// in anything that (through calls, joins and group waits) waits for it there.
//
//  1. Up only: a call goes to a context whose rank is not below that of any in
//     the chain. In a cycle of calls, each queued on a thread whose top
//     function waits for the next, ranks could then never fall; and where they
//     stay equal the call is one to the very thread that waits for it, which
//     therefore serves it.
//
//  2. A task begins with an empty chain, because nothing waits for it yet. A
//     waiter for it must itself hold nothing of higher rank than the lowest that
//     the task (or what that waits for in turn) ever calls. Tasks wait only for
//     tasks whose generation was complete before, so that waits form no cycle.
//
//  3. Down again, as in "A calls B calls back A": only in a sequential region,
//     one operation of a function on A below which nothing is started that runs
//     by itself and nothing outside is waited for. Then nobody but the strand
//     itself is related to A's frame, and its call is served at once. A's
//     policy must be Related: under All a stranger could sit on top of A and
//     want B.
//
//  4. A context with policy None is never called from below itself: rule 1 with
//     "above" in place of "not below". And a function on one with policy All may
//     be on top of any other there. So a holder of a context with one of these
//     does not wait for a task that calls it: rule 2 with "above".
//
//  5. A detached call is related to nothing, so the default thread, which has
//     the highest rank of the shared ones, must not be in the chain; and what
//     it calls is never related to what came before.
//
//  6. A small pool is a resource of its own, held from the making of a context
//     that uses it to its Close. Its contexts are private, have the pool's rank,
//     and are closed however their scope ends. Never in the chain of a context
//     with policy All: a stranger on top of the holder of the capacity could
//     want it too. From within, other contexts of the pool are made only where
//     they get threads beyond the bound if need be: below a function on a
//     thread of the pool. Each of those makes one at a time, so that there are
//     threads enough, unless the pool has as many as anybody may want.
//
//  7. No wait of our own (a channel) is for anything that needs a thread which
//     the waiter holds: sync code waits so only for cancellations and for
//     functions known to need nothing. Async code also waits so for goroutines
//     that share its ctx, which are the same submitter as itself.
//
//  8. A task that is queued on a thread is a task whose chain begins with that
//     context. A limiter has a rank as well: see limiter.go. RunUntil may serve
//     all that its function has started, and so counts as a wait for all of it.
//
// # Why their outcome is known
//
// What is closed in the middle has, by then, no task left that uses it. A group
// has at most one member that fails, after the others have ended. A Goexit that
// passes through a function on a thread ends whatever is blocked below it
// there; so it does that only in a root's own strand, and never where policy
// All may have put the function on top of a stranger. In tasks Goexit happens
// outside calls. A task that might outlive an adopted thread is joined.
func Generate(r *rand.Rand, cfg Config) *Program {
	for _, f := range []struct {
		field *int
		or    int
	}{{&cfg.Ops, 40}, {&cfg.Depth, 8}, {&cfg.Contexts, 4}, {&cfg.Roots, 3}} {
		if *f.field == 0 {
			*f.field = f.or
		}
	}
	p := &Program{Config: cfg, Loops: cfg.Loops, looseOps: map[int]bool{}, looseBodies: map[int]bool{}}
	g := &generator{Rand: r, cfg: cfg, p: p, sides: map[int]bool{}}
	g.root = g.body
	g.ranks = r.IntN(cfg.Contexts + 1)
	g.context(defaultThread, float64(g.ranks+1), nil)
	start := state{cb: -1}
	start.bare, start.root, start.goexit = true, true, true
	for _, prepare := range features.prepare {
		prepare(g, &start)
	}
	roots := 1 + r.IntN(cfg.Roots)
	g.left = 1 + r.IntN(cfg.Ops)
	share := g.left/roots + 1
	for range roots {
		root := &Root{}
		s := start
		s.tasks, s.min = new([]*Op), new(float64)
		if len(s.reach) > 0 && g.coin(2) {
			root.Context = s.reach[g.IntN(len(s.reach))]
			s.bare, s.scope = false, root.Context
		}
		g.left = share
		root.Body = g.root(s)
		p.Roots = append(p.Roots, root)
	}
	return p
}

func (g *generator) body(s state) *Body {
	b := g.newBody(s)
	s.depth++
	n := g.IntN(5)
	if s.depth <= 2 {
		n += 2 + g.IntN(4)
	}
	for range n {
		if g.left <= 0 {
			break
		}
		o := g.op(&s)
		o.Catch = s.quiet || g.coin(2)
		b.Ops = append(b.Ops, o)
		b.goexits = b.goexits || o.goexits()
	}
	if !s.quiet {
		switch g.IntN(10) {
		case 0, 1:
			b.End = endError
		case 2:
			b.End = endPanic
		case 3:
			if s.goexit && g.coin(2) {
				b.End = endGoexit
				b.goexits = true
			}
		}
	}
	return b
}

func (g *generator) newBody(s state) *Body {
	b := &Body{ID: g.p.Bodies, On: s.sync}
	if s.sync == nil && !s.off {
		b.Loop = s.loop
	}
	if g.loosen {
		g.p.looseBodies[b.ID] = true
	}
	g.p.Bodies++
	return b
}

// leaf is a body that calls nothing.
func (g *generator) leaf(s state) *Body {
	b := g.newBody(s)
	for range g.IntN(3) {
		b.Ops = append(b.Ops, features.filler(g, &s))
	}
	if !s.quiet {
		b.End = []ending{endReturn, endReturn, endError, endPanic}[g.IntN(4)]
	}
	return b
}

// between is what a strand does while the task that it will join runs: nothing
// that could keep it from joining.
func (g *generator) between(s *state) *Body {
	f := s.silent()
	f.alone = true
	return g.body(f)
}

func (g *generator) op(s *state) *Op {
	g.left--
	if s.depth < g.cfg.Depth {
		for range 6 {
			if o := g.try(s); o != nil {
				return o
			}
		}
	}
	return features.filler(g, s)
}

// try makes an operation, or nil if the one that was picked is not allowed at s.
func (g *generator) try(s *state) *Op {
	for _, f := range features.first {
		if o := f(g, s); o != nil {
			return o
		}
	}
	s.region = s.cb < 0 && g.coin(4)
	for _, o := range features.offers {
		if o.when(g, s) {
			return o.make(g, s)
		}
	}
	return nil
}

func (g *generator) newOp(k kind) *Op {
	o := &Op{ID: g.p.Ops, Kind: k, Fail: -1, Loose: g.loosen}
	o.Cancel = -1
	if g.loosen {
		g.p.looseOps[o.ID] = true
	}
	g.p.Ops++
	return o
}

// with makes o, whose target is known, into an operation.
func (g *generator) with(k kind, o *Op) *Op {
	n := g.newOp(k)
	n.Target, n.On, n.Queued, n.Detached, n.Options, n.Loop, n.Portal = o.Target, o.On, o.Queued, o.Detached, o.Options, o.Loop, o.Portal
	return n
}

// target picks where a call goes.
func (g *generator) target(s *state, o *Op) bool {
	o.Target = nearest
	o.On = s.scope
	if o.On == nil {
		o.On = g.p.Contexts[0]
	}
	if len(s.reach) > 0 && g.coin(2) {
		o.On = s.reach[g.IntN(len(s.reach))]
		o.Target = named
		if o.On.Kind == handle {
			o.Target = throughDo + targeting(g.IntN(2))
		}
	}
	return s.may(o.On)
}

// options picks some for o.
func (g *generator) options(o *Op) {
	if g.coin(4) {
		o.Options = g.IntN(8)
	}
}

func (g *generator) coin(n int) bool { return g.IntN(n) == 0 }

func (g *generator) context(k contextKind, rank float64, in *Context) *Context {
	c := &Context{ID: len(g.p.Contexts), Kind: k, Pool: -1, rank: rank}
	c.Root = c
	c.Loose = g.loosen
	if in != nil {
		c.Root = in.Root
		c.rank = in.Root.rank
	}
	g.p.Contexts = append(g.p.Contexts, c)
	return c
}

func (g *generator) flavour(c *Context) {
	switch g.IntN(8) {
	case 0, 1:
		c.Policy = asyncsync.All
	case 2:
		c.Policy = asyncsync.None
	}
	c.Unpinned = g.coin(4)
	c.Ends = g.coin(4)
	if g.coin(4) {
		c.Spin = 1 + g.IntN(2)
	}
	if g.loosen && g.coin(3) {
		c.Queue = 1 + g.IntN(3)
	}
	c.Exits = g.loosen && g.coin(3)
}

// rank is one for a private context, above all that s holds.
func (g *generator) rank(s *state) float64 {
	top, ceiling := s.top(), g.p.Contexts[0].rank
	if top < ceiling {
		return top + (ceiling-top)*(0.05+0.9*g.Float64())
	}
	// Two contexts of one rank may not call each other from two strands at once, so
	// that ranks differ.
	return top + 0.01 + 1e-4*float64(len(g.p.Contexts))
}
