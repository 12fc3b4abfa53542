package nesting

import (
	"math/rand/v2"
	"slices"

	"asyncsync.dev/asyncsync"
)

// Config bounds the programs that Generate makes. The zero Config is a good one.
type Config struct {
	Ops      int // about how many operations, 40 if 0
	Depth    int // how deep they nest, 8 if 0
	Contexts int // at most how many shared contexts, 4 if 0
	Roots    int // at most how many roots, 3 if 0
	Pools    int // how many small pools, up to 2 if 0
	Loops    int // how many thread loops
	Portals  int // how many portals are opened on these at the start; 0 for none at all

	// Ends has what runs on loops cancelled, timed out and abandoned.
	Ends bool

	// Loose makes everything subject to cancellation at any moment: see loose.go.
	Loose bool

	// Plant puts one wait that closes a cycle into the program, if there is a place
	// for it: [Program.Planted]. The model does not know the outcome of such a
	// program; the test is that it ends, and that some wait is refused.
	Plant bool
}

// epsilon turns "not below" into "above" where ranks are compared.
const epsilon = 1e-6

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
	g := &generator{Rand: r, cfg: cfg, p: &Program{Config: cfg, Loops: cfg.Loops, looseOps: map[int]bool{}, looseBodies: map[int]bool{}, sides: map[int]bool{}, portalOps: map[int]bool{}}}
	n := r.IntN(cfg.Contexts + 1)
	g.context(defaultThread, float64(n+1), nil)
	var reach []*Context
	g.loosen = cfg.Loose
	for i := range n {
		c := g.context(shared, float64(i+1), nil)
		g.flavour(c)
		// Its functions run on a goroutine of the program's own, which a Goexit ends.
		if c.Owned = c.Policy == asyncsync.Related && !c.Exits && g.coin(3); c.Owned {
			c.Unpinned, c.Spin = false, 0
		}
		reach = append(reach, c)
	}
	g.loosen = false
	g.limiters(n)
	portals := g.portals()
	g.far = cfg.Plant && cfg.Loops > 1 && g.coin(2)
	pools := cfg.Pools
	if pools == 0 {
		pools = r.IntN(3)
	}
	for range pools {
		g.p.Pools = append(g.p.Pools, Pool{Max: 1 + r.IntN(3), Wide: g.coin(2)})
		g.poolRank = append(g.poolRank, r.Float64()*float64(n+1))
	}
	roots := 1 + r.IntN(cfg.Roots)
	g.left = 1 + r.IntN(cfg.Ops)
	share := g.left/roots + 1
	for range roots {
		root := &Root{}
		s := state{cb: -1, reach: reach, portals: portals, tasks: new([]*Op), min: new(float64)}
		s.bare, s.root, s.goexit = true, true, true
		if len(reach) > 0 && g.coin(2) {
			root.Context = reach[g.IntN(len(reach))]
			s.bare, s.scope = false, root.Context
		}
		g.left = share
		if cfg.Loose {
			root.Body = g.looseBody(s)
		} else {
			root.Body = g.body(s)
		}
		g.p.Roots = append(g.p.Roots, root)
	}
	return g.p
}

type generator struct {
	*rand.Rand
	cfg      Config
	p        *Program
	left     int
	poolRank []float64
	loosen   bool    // what is made is loose
	provider *Portal // nil for none
	far      bool    // the planted cycle is to go through two loops
}

// A state is what is known, at one point of the program, without running it.
type state struct {
	where
	bounds
	ties

	chain []*Context // what this strand and those that wait for it hold
	kept  []*Context // limiters whose tokens are held by functions of WithLimiter, if they are in chain
	floor float64    // a rank that must be kept above all the same

	spawnFloor float64 // the same for what is started and goes on by itself
	cb         int     // the contexts of chain from here on may be called back; -1 outside a sequential region

	portals []*Portal  // that it can name
	reach   []*Context // what calls can name
	tasks   *[]*Op     // what can be waited for
	min     *float64   // the lowest rank that the strand has called
	depth   int
}

// A where says where code runs, and what its ctx carries.
type where struct {
	root      bool     // the strand is a root's
	sync      *Context // whose thread this is, nil in async code
	syncScope *Context // the context of the call that runs there
	scope     *Context // that ctx carries
	bare      bool     // ctx carries nothing at all

	loop int  // the loop, from 1, that this is below a task of; 0 for none
	off  bool // but it is on no thread, and not on the loop: an insensitive function
}

// Bounds are what code may do, and what it must not.
type bounds struct {
	alone    bool // nothing may be left running: no spawn
	mustJoin bool // tasks must be joined where they are made
	quiet    bool // nothing may fail
	goexit   bool // Goexit is allowed
	loose    bool // the outcome of what it does depends on timing
	detached bool // somebody waits for this, but is not related to it
	derived  bool // ctx is derived from what the library gave, and ends with that
	fragile  bool // a task that it has started may end what it is run on top of
	pools    uint // pools that may not be used
	inPool   uint // pools on a thread of which somebody waits for this
}

// Ties are what is known of who waits for the code: a cycle is planted along them.
type ties struct {
	trail trail  // of what waits for this
	joins []hold // the tasks that this is below and that are waited for
	locks []hold // functions that wait for this and have a mutex
	known bool   // the library knows whose code this is
	sure  int    // what the functions of chain before it wait for may come from elsewhere, too
	raw   bool   // below a goroutine that the library does not know
}

func (s *state) top() float64 {
	top := s.floor
	for _, c := range s.chain {
		top = max(top, c.rank)
	}
	return top
}

// may reports whether the rules allow a call to c.
func (s *state) may(c *Context) bool {
	c = c.Root
	switch {
	case s.sync == c:
		return true
	case c.Exits && !s.goexit:
		return false // a Goexit would come further up than it may
	case c.Policy == asyncsync.None:
		return c.rank > s.top()
	case c.rank >= s.top():
		return true
	}
	return s.cb >= 0 && c.Policy == asyncsync.Related && slices.Contains(s.chain[s.cb:], c)
}

// topped reports whether strangers may run on top of something in the chain.
func (s *state) topped() bool {
	return slices.ContainsFunc(s.chain, func(c *Context) bool { return c.Root.Policy == asyncsync.All })
}

func (s *state) touch(rank float64) { *s.min = min(*s.min, rank) }

// on is the state of a function that s calls on c.
func (s state) on(c *Context) state {
	if c.Root.Policy == asyncsync.Related {
		s.touch(c.Root.rank)
	} else {
		s.touch(c.Root.rank - epsilon)
	}
	s.chain = append(slices.Clip(s.chain), c.Root)
	if c.Root.Pool >= 0 {
		s.inPool |= 1 << c.Root.Pool
	}
	s.sync, s.syncScope, s.scope, s.bare, s.off = c.Root, c, c, false, false
	s.known = true
	s.trail = append(slices.Clip(s.trail), "thread")
	s.goexit = s.goexit && !c.Root.Owned && (s.root && c.Root.Policy != asyncsync.All || c.Root.Exits)
	s.quiet = false
	return s
}

// nearest is the nearest context of code that is called on s.sync.
func (s *state) nearest() *Context {
	if s.scope == nil || s.scope.Root != s.sync {
		return s.syncScope
	}
	return s.scope
}

// away is the state of async code that s calls from a thread.
func (s state) away() state {
	s.scope = s.nearest()
	s.sync, s.syncScope, s.bare, s.quiet, s.off = nil, nil, false, false, false
	return s
}

// onLoop reports whether s is a task of a loop: what it waits for it must wait for
// through the library.
func (s *state) onLoop() bool { return s.loop > 0 && s.sync == nil && !s.off }

// serves reports whether s may wait in a way that serves, on a thread, what the calling
// function has started: that counts as a wait for all of it, as RunUntil does.
func (s *state) serves() bool { return s.sync == nil || s.cb < 0 && !s.fragile }

// async is the state of async code that s calls.
func (s state) async() state {
	if s.sync != nil {
		return s.away()
	}
	s.off = false
	return s
}

// fork is the state of a task that s starts.
func (s state) fork() state {
	s.root, s.sync, s.syncScope, s.bare, s.off = false, nil, nil, false, false
	s.known = true
	s.cb = -1
	tasks := slices.Clone(*s.tasks)
	s.tasks = &tasks
	return s
}

// sequential begins a sequential region, if there is none.
func (s state) sequential() state {
	if s.cb >= 0 {
		return s
	}
	s.alone = true
	s.cb = len(s.chain)
	if s.sync != nil {
		for i := len(s.chain) - 1; i >= 0; i-- {
			if s.chain[i] == s.sync {
				s.cb = i
				break
			}
		}
	}
	return s
}

func (s state) silent() state {
	s.quiet, s.goexit = true, false
	return s
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

// goexits reports whether o may end its caller by Goexit.
func (o *Op) goexits() bool {
	switch o.Kind {
	case opShared, opSpawn:
		return false
	case opStartTask, opWrap:
		return o.Body.goexits || o.Bodies[0].goexits
	case opWait:
		return o.Task.Body.goexits
	case opGroup:
		return o.Fail >= 0 && o.Bodies[o.Fail].goexits
	}
	return o.Body != nil && o.Body.goexits
}

// leaf is a body that calls nothing.
func (g *generator) leaf(s state) *Body {
	b := g.newBody(s)
	for range g.IntN(3) {
		b.Ops = append(b.Ops, g.variable())
	}
	if !s.quiet {
		b.End = []ending{endReturn, endReturn, endError, endPanic}[g.IntN(4)]
	}
	return b
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

func (g *generator) variable() *Op {
	o := g.newOp(opSet)
	if g.coin(3) {
		o.Kind = opDelete
	}
	o.Var, o.Val = g.IntN(vars), 1+g.IntN(1000)
	return o
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
	return g.variable()
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

func (g *generator) try(s *state) *Op {
	if g.cfg.Plant && g.p.Planted == nil && g.coin(3) {
		if o := g.plant(s); o != nil {
			return o
		}
		if g.cfg.Loops > 0 && !g.far && s.onLoop() && !s.loose && !s.raw && g.coin(12) {
			return g.plantLimited()
		}
	}
	inner := *s
	if s.cb < 0 && g.coin(4) {
		inner = s.sequential()
	}
	switch {
	case g.cfg.Portals > 0 && g.coin(4):
		return g.portal(s, inner)
	case g.cfg.Plant && g.cfg.Loops > 0 && g.coin(8):
		return g.locked(s)
	case g.cfg.Ends && g.coin(12):
		return g.timeout(s)
	case s.loop > 0 && (!g.cfg.Ends || g.coin(2)):
		return g.tryOnLoop(s, inner)
	case g.cfg.Loops > 0 && (!s.loose || g.cfg.Ends) && g.coin(4):
		return g.toLoop(s, inner)
	}
	switch g.IntN(48) {
	case 0:
		if g.coin(4) {
			return g.newOp(opLook)
		}
		return g.variable()
	case 1:
		o := g.newOp(opUndo)
		o.Var, o.Val = g.IntN(vars), 1+g.IntN(1000)
		o.N = g.IntN(3)
		f := *s
		f.derived = f.derived || o.N > 0
		o.Body = g.body(f)
		return o
	case 2, 3, 4, 5, 6, 7, 8, 9, 10:
		o := &Op{}
		if !g.target(s, o) {
			return nil
		}
		*o = *g.with(opCall, o)
		o.Wrapper = o.Target < throughDo && g.coin(2)
		g.options(o)
		o.Body = g.body(inner.on(o.On))
		return o
	case 11:
		return g.insensitive(s, inner)
	case 12, 13, 14, 15, 16, 17:
		return g.from(s, inner)
	case 18, 19, 20:
		return g.spawn(s)
	case 21, 22, 23:
		return g.wait(s)
	case 24, 25:
		return g.joined(s)
	case 26, 27:
		if s.cb >= 0 {
			return nil
		}
		o := g.newOp(opGroup)
		n := 1 + g.IntN(3)
		if g.coin(2) {
			o.Fail = g.IntN(n)
		}
		for i := range n {
			f := s.fork()
			f.alone = true
			f.quiet = false
			if i != o.Fail {
				f = f.silent()
			}
			o.Bodies = append(o.Bodies, g.body(f))
		}
		o.Between = g.between(s)
		return o
	case 28:
		if s.cb >= 0 || s.sync != nil || s.loop > 0 {
			return nil
		}
		o := g.newOp(opShared)
		for range 1 + g.IntN(3) {
			f := *s
			f.root, f.goexit, f.quiet, f.alone = false, true, false, true
			f.raw = true
			f.kept = nil // a holder lends its token in a wait of the library, and waits in a raw one
			f.tasks = new([]*Op)
			o.Bodies = append(o.Bodies, g.body(f))
		}
		return o
	case 29, 30:
		return g.scope(s)
	case 31:
		o := g.newOp(opHandle)
		o.On = g.context(handle, g.rank(s), nil)
		g.flavour(o.On)
		if o.On.Policy == asyncsync.None {
			o.On.Policy = asyncsync.Related
		}
		s.touch(o.On.rank)
		f := *s
		f.mustJoin = true
		f.reach = append(slices.Clip(f.reach), o.On)
		o.Body = g.body(f)
		return o
	case 32:
		d := g.p.Contexts[0]
		if s.sync != d && d.rank-epsilon < s.top() {
			return nil
		}
		o := g.newOp(opDetach)
		o.On = d
		if s.sync != d {
			s.touch(d.rank - epsilon)
		}
		if inner.cb >= 0 {
			inner.cb = len(inner.chain)
		}
		inner.inPool = 0
		inner.detached = true
		inner.kept = nil                             // a stranger is lent nothing
		inner.mustJoin = inner.mustJoin || s.derived // it would end with a task above
		o.Body = g.body(inner.on(d))
		return o
	case 33:
		o := &Op{}
		if !g.target(s, o) {
			return nil
		}
		return g.with(opCancelBefore, o)
	case 34:
		if s.loose {
			if g.coin(2) {
				return g.leave(s)
			}
			return g.closeEarly(s)
		}
		return g.cancelled(s)
	case 35:
		if s.loose || g.coin(4) {
			return g.startFails(s)
		}
		to := &Op{}
		if s.sync == nil && s.cb < 0 && g.coin(2) {
			f := s.fork()
			if to = g.queue(&f); to == nil {
				return nil
			}
			f.on(to.On) // for the touch
		}
		o := g.with(opTaskCancel, to)
		o.N = g.IntN(2)
		return o
	case 36, 37:
		return g.cancelledTask(s)
	case 38, 39:
		return g.tokens(s)
	case 40:
		return g.executor(s)
	case 41:
		if g.coin(2) {
			return g.open(s)
		}
		return g.posts(s)
	case 42:
		if s.bare {
			return nil
		}
		o := g.newOp(opStopped)
		o.Target = targeting(g.IntN(int(insensitive) + 1))
		o.N = g.IntN(20)
		return o
	case 43:
		if g.coin(3) {
			return g.after(s)
		}
		k := opTaint
		if s.sync != nil && s.sync.leased() && g.coin(2) {
			k = opCritical
		}
		o := g.newOp(k)
		o.On = s.scope
		return o
	case 44:
		c := g.handleIn(s)
		if c == nil {
			return nil
		}
		o := g.newOp(opValue)
		o.On = c
		return o
	case 45, 46:
		return g.loose(s)
	default:
		// A burst counts on its ctx, which may have ended where a wait for the
		// tasks around it was refused.
		if s.sync != nil || s.cb >= 0 || g.cfg.Plant || s.loose || s.loop > 0 {
			return nil
		}
		o := g.newOp(opBurst)
		o.On = g.context(private, g.rank(s), nil)
		o.On.Unpinned = g.coin(4)
		o.Burst = burst(g.IntN(int(bursts)))
		if o.Burst == burstAll {
			o.On.Policy = asyncsync.All
		}
		o.N = 1 + g.IntN(4)
		o.Mask = uint(g.IntN(16))
		if g.coin(2) {
			o.Cancel = g.IntN(o.N)
		}
		s.touch(o.On.rank)
		return o
	}
}

// with makes o, whose target is known, into an operation.
func (g *generator) with(k kind, o *Op) *Op {
	n := g.newOp(k)
	n.Target, n.On, n.Queued, n.Detached, n.Options, n.Loop, n.Portal = o.Target, o.On, o.Queued, o.Detached, o.Options, o.Loop, o.Portal
	return n
}

// between is what a strand does while the task that it will join runs: nothing
// that could keep it from joining.
func (g *generator) between(s *state) *Body {
	f := s.silent()
	f.alone = true
	return g.body(f)
}

// cancelled is a call that is cancelled or abandoned at some stage.
func (g *generator) cancelled(s *state) *Op {
	inner := s.sequential()
	inner.goexit = false
	o := &Op{}
	switch g.IntN(6) {
	case 0:
		if s.sync != nil || s.cb >= 0 || !g.target(s, o) {
			return nil
		}
		s.on(o.On) // for the touch
		o = g.with(opCancelQueued, o)
		o.N = g.IntN(50)
		return o
	case 1:
		if !g.target(s, o) {
			return nil
		}
		o = g.with(opCancelRunning, o)
		g.options(o)
		o.Body = g.body(inner.on(o.On))
		return o
	case 2:
		if s.bare {
			return nil // that would be an adoption; there are enough
		}
		o = g.newOp(opCancelFrom)
		g.options(o)
		inner = inner.async()
		if g.coin(3) {
			o.Place = placeLoop
			inner.loop = 0
		}
		o.Body = g.body(inner)
		return o
	case 3:
		if !g.target(s, o) {
			return nil
		}
		s.on(o.On)
		o = g.with(opCancelRace, o)
		o.N = g.IntN(200)
		return o
	case 4:
		if s.sync != nil || !g.target(s, o) {
			return nil
		}
		o = g.with(opAbandon, o)
		o.Body = g.leaf(inner.on(o.On))
		return o
	default:
		if s.bare {
			return nil
		}
		o = g.newOp(opAbandonFrom)
		inner = inner.async()
		if g.coin(3) {
			o.Place = placeLoop
			inner.loop = 0
		} else {
			inner.off = s.onLoop() // a goroutine of its own
		}
		o.Body = g.leaf(inner)
		return o
	}
}

// scope is a context made in the middle.
func (g *generator) scope(s *state) *Op {
	f := *s
	// A small pool, if the rules allow one: else a context like others.
	pool, within := -1, false
	if n := len(g.p.Pools); n > 0 && !g.coin(4) {
		i := g.IntN(n)
		switch {
		case g.p.Pools[i].Wide && s.inPool&(1<<i) != 0:
			pool = i // it is a context like others then
			within = true
		case !g.p.Pools[i].Wide && s.sync != nil && s.sync.Pool == i && s.pools&(1<<(16+i)) == 0:
			pool = i
			f = f.sequential()
			f.pools |= 1 << (16 + i)
		case s.pools&(1<<i) == 0 && g.poolRank[i]-epsilon >= s.top() && !s.topped():
			pool = i
			s.touch(g.poolRank[i] - epsilon)
		}
	}
	o := g.newOp(opScope)
	natural := s.scope == nil || s.scope.Kind == adopted || s.scope.Kind == defaultThread
	o.Foreign = !natural && (pool >= 0 || g.coin(2)) || natural && pool < 0 && g.coin(4)
	lent := pool >= 0 && !within && s.pools&(1<<pool) != 0
	if lent {
		o.Foreign = true
	}
	switch {
	case !natural && !o.Foreign:
		o.On = g.context(nested, 0, s.scope)
		o.On.Policy, o.On.Unpinned, o.On.Pool = o.On.Root.Policy, o.On.Root.Unpinned, o.On.Root.Pool
	case pool >= 0 && !within:
		rank := g.poolRank[pool]
		if lent {
			rank = max(s.top(), rank)
		}
		o.On = g.context(private, rank, nil)
		o.On.Pool = pool
		f.pools |= 1 << pool
		if !lent {
			f.chain = append(slices.Clip(f.chain), o.On) // the capacity is held throughout
			if f.cb >= 0 && !slices.Contains(s.chain, o.On) {
				// Capacity is no function that could be called back.
				f.cb = len(f.chain)
			}
		}
	default:
		o.On = g.context(private, g.rank(s), nil)
		g.flavour(o.On)
		if within {
			o.On.Pool, o.On.Unpinned = pool, false
		}
	}
	o.Close = closing(g.IntN(int(closeWith) + 1))
	if pool >= 0 && o.Close == closeAtEnd {
		o.Close = closeBelow
	}
	if o.Foreign && o.Close == closeWith {
		o.Close = closeBelow
	}
	if s.loose && (o.Close == closeAtEnd || o.Close == closeInside) {
		o.Close = closeBelow
	}
	if o.Close == closeInside && (s.sync == o.On.Root || !s.may(o.On)) {
		o.Close = closeBelow
	}
	if o.Close == closeInside {
		s.on(o.On)
	}
	if o.Close != closeAtEnd {
		f.mustJoin = true
	}
	if !o.Foreign {
		f.scope, f.bare = o.On, false
	}
	f.reach = append(slices.Clip(f.reach), o.On)
	o.Body = g.body(f)
	return o
}
