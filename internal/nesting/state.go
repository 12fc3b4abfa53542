package nesting

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"asyncsync.dev/asyncsync"
)

// What the generator knows where it makes an operation, and how that changes with who
// runs the code, and for whom. The rules that it is for are at [Generate].

// epsilon turns "not below" into "above" where ranks are compared.
const epsilon = 1e-6

type generator struct {
	*rand.Rand
	cfg      Config
	p        *Program
	left     int
	ranks    int // of the shared contexts: from 1 to ranks
	poolRank []float64
	loosen   bool         // what is made is loose
	provider *Portal      // nil for none
	sides    map[int]bool // loops that are goroutines
	far      bool         // the planted cycle is to go through two loops

	root func(state) *Body // makes what a root does
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

	region bool // the next operation is to be a sequential region: see inner
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

// A hold is something that waits for a part of the program: a task that is joined where
// it was made, or a function that has a mutex.
type hold struct {
	op *Op
	at int // the length of the trail there
}

func (s *state) holds(o *Op) hold { return hold{o, len(s.trail)} }

// lead returns s with one more step in its trail.
func (s state) lead(format string, args ...any) state {
	s.trail = append(slices.Clip(s.trail), fmt.Sprintf(format, args...))
	return s
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

// inner is the state of what the next operation calls.
func (s *state) inner() state {
	if s.region {
		return s.sequential()
	}
	return *s
}

func (s state) silent() state {
	s.quiet, s.goexit = true, false
	return s
}

// holding is the state of code that holds a token of l.
func (s state) holding(l *Context) state {
	s.chain = append(slices.Clip(s.chain), l)
	s.kept = slices.DeleteFunc(slices.Clone(s.kept), func(k *Context) bool { return k == l })
	s.spawnFloor = max(s.spawnFloor, l.rank+epsilon)
	// A call below may run on top of a function that only waits for the token.
	s.root = false
	s.goexit = s.goexit && s.sync == nil
	return s
}

// soon is the state of a function of StartSoon.
func (s state) soon(p *Portal) state {
	s.loop, s.scope, s.bare = p.Loop, p.scope, false
	return s
}
