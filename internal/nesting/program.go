package nesting

import (
	"fmt"

	"asyncsync.dev/asyncsync"
)

// What a program consists of. Nothing here knows what an operation does.

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

// A Program is a tree of operations: some roots that run side by side, each on
// a plain goroutine of its own.
type Program struct {
	Config   Config     // that it was made with
	Contexts []*Context // all, in order of id; the first is the default thread
	Limiters []*Context // those of Contexts that are limiters
	Pools    []Pool     // the small ones
	Roots    []*Root
	Trail    trail // of the cycle
	Planted  *Op   // the wait that closes a cycle: see [Config.Plant]
	Portals  []*Portal
	Loops    int // Config.Loops, and those of portals

	stops bool // a portal stops with a ctx that is cancelled at any moment

	looseOps, looseBodies map[int]bool // those with the mark

	// Counts, for tables with a place for each.
	Ops, Bodies int
}

// A Root is one goroutine that the program starts with.
type Root struct {
	Context *Context // whose ctx it starts with; nil for a bare one
	Body    *Body
}

// A Pool is a small pool.
type Pool struct {
	Max  int  // MaxThreads
	Wide bool // there are threads beyond Max for contexts that may have one
}

type contextKind int

const (
	defaultThread contextKind = iota
	shared                    // made before the roots start, closed after they have ended
	private                   // made by one operation, for those below it
	nested                    // made inside another: shares the thread of root
	handle                    // that of a Handle
	adopted                   // a goroutine that became a thread in FromThread or RunUntil
	limiter                   // a task.Limiter: no context, but waited for as one is
)

func (k contextKind) String() string {
	return [...]string{"default", "shared", "private", "nested", "handle", "adopted", "limiter"}[k]
}

// A Context is a thread-sensitive context, or something like it, that calls
// can go to.
type Context struct {
	ID       int
	Kind     contextKind
	Root     *Context // whose thread it has: itself unless nested
	Policy   asyncsync.Policy
	Unpinned bool
	Pool     int  // index of the small pool, -1 for one that is large enough
	Spin     int  // which budget, 0 for the default
	Ends     bool // it has functions at the ends of its thread
	Tokens   int  // of a limiter, at first
	Loose    bool // made in a loose part
	Exits    bool // functions on it may end by Goexit at any time
	Queue    int  // QueueLimit, 0 for none
	Owned    bool // its thread is that of an executor
	rank     float64
}

// String returns the context's name in a printed program.
func (c *Context) String() string {
	if c == nil {
		return "none"
	}
	s := fmt.Sprintf("c%d(%v", c.ID, c.Kind)
	if c.Root != c {
		s += fmt.Sprintf(" in c%d", c.Root.ID)
	}
	if c.Policy != asyncsync.Related {
		s += fmt.Sprintf(" %v", c.Policy)
	}
	if c.Unpinned {
		s += " unpinned"
	}
	if c.Exits {
		s += " exits"
	}
	if c.Spin > 0 {
		s += fmt.Sprintf(" spin %d", c.Spin)
	}
	if c.Ends {
		s += " ends"
	}
	if c.Owned {
		s += " owned"
	}
	if c.Queue > 0 {
		s += fmt.Sprintf(" queue %d", c.Queue)
	}
	if c.Kind == limiter {
		s += fmt.Sprintf(" of %d", c.Tokens)
	}
	if c.Pool >= 0 {
		s += fmt.Sprintf(" pool%d", c.Pool)
	}
	return s + ")"
}

type portalKind int

const (
	openedAtStart portalKind = iota // by the main task of one of the loops
	startedBelow                    // by portal.Start, has a loop of its own
	openedBelow                     // by portal.Open, in a task of a loop
	provided                        // by a Provider, has a loop of its own
)

func (k portalKind) String() string {
	return [...]string{"opened at the start", "started", "opened", "provided"}[k]
}

// A Portal is a portal of a program, or a Provider.
type Portal struct {
	ID   int
	Kind portalKind
	Loop int  // it is on, from 1
	Side bool // that is one of goroutines

	scope *Context // that the ctx of StartSoon carries
}

// String returns the portal's name in a printed program.
func (p *Portal) String() string {
	s := fmt.Sprintf("p%d(%v on loop %d", p.ID, p.Kind, p.Loop)
	if p.Side {
		s += ", goroutines"
	}
	return s + ")"
}

// A kind names what an operation does, also in a printed program. The kinds are
// constants of the files that say what they are: see features.go.
type kind string

// How an operation that sends a function names the thread.
type targeting int

const (
	nearest     targeting = iota // no option
	named                        // On
	insensitive                  // Insensitive
	throughDo                    // Handle.Do
	throughGet                   // asyncsync.Get
)

func (t targeting) String() string {
	return [...]string{"nearest", "on", "insensitive", "do", "get"}[t]
}

// A place is where an async function, or an insensitive one, runs.
type place int

const (
	placeUsual   place = iota
	placeLoop          // WithLoop, or WithExecutor
	placeSame          // SameThread
	placeBackend       // WithLoop of a thread loop
	placeCall          // loop.Call to one
	placePortal        // portal.Call
)

func (p place) String() string {
	return [...]string{"", "loop", "same thread", "backend", "call", "portal"}[p]
}

// Options of calls.
const (
	optNamed = 1 << iota
	optLong
	optInterrupt
)

// How a scope ends.
type closing int

const (
	closeAtEnd  closing = iota // of the program, by Run
	closeBelow                 // by Close, where it was made
	shutBelow                  // by Shutdown
	closeInside                // by Close, from its own thread
	closeWith                  // by WithThreadSensitiveContext
)

func (c closing) String() string {
	return [...]string{"at the end", "Close", "Shutdown", "Close inside", "With"}[c]
}

// What happens to the calls of a burst.
type burst int

const (
	burstPlain    burst = iota // the busy function returns
	burstAll                   // it blocks, and the policy is All
	burstJoined                // it waits for the task that made the calls
	burstShutdown              // a Shutdown gives up
	burstClose                 // a Close comes in between
	burstFull                  // there is a QueueLimit
	burstLeft                  // half of them are served by a wait that ends before they are
	bursts
)

func (b burst) String() string {
	return [...]string{"plain", "all", "joined", "shutdown", "close", "full", "left"}[b]
}

// An Op is one operation. It runs at most once.
type Op struct {
	ID      int
	Kind    kind
	Catch   bool // an error or a panic ends here; a Goexit never does
	Wrapper bool // through a wrapper made before, instead of a one-shot
	Options int  // of the call: optNamed and so on
	Loose   bool // its outcome depends on timing: see loose.go

	Var, Val int
	Target   targeting
	On       *Context // opCall and its kind: where it runs. opScope, opHandle, opBurst: what is made
	Place    place    // opFrom, opCall with insensitive
	Loop     int      // opFrom, opSpawn, opJoined: the loop that it runs on, from 1; 0 if that is not said
	Portal   *Portal  // opFrom, opSpawn, opJoined: whose function it is; opPortal and its kind
	Limiter  *Context // opCall, opJoined: whose token it holds; opTokens
	Again    bool     // opCall: somebody that waits for it holds one, and lends it
	Foreign  bool     // opScope: made with a detached ctx, entered by On alone
	Close    closing
	Task     *Op // opWait, opPlant: the opSpawn or opJoined
	Fail     int // opGroup: the member that may fail, -1 for none; it ends last
	Spawning
	Bursting

	Body    *Body
	Bodies  []*Body
	Between *Body
}

// A Spawning is how a task is started: opSpawn and its kind.
type Spawning struct {
	Queued   bool    // by asyncsync.Go, on On
	Detached bool    // the same with a detached ctx
	rank     float64 // the lowest that the task calls
}

// A Bursting is many calls at once: opBurst.
type Bursting struct {
	N      int // how many; opCancelRace: how late
	Cancel int // which is cancelled in the queue, -1 for none
	Burst  burst
	Mask   uint // which are tasks
}

type ending int

const (
	endReturn ending = iota
	endError
	endPanic
	endGoexit
)

func (e ending) String() string { return [...]string{"return", "error", "panic", "goexit"}[e] }

// A Body is what a function does: operations one after the other, then an end.
type Body struct {
	ID  int
	On  *Context // whose thread it runs on, nil for async code
	Ops []*Op
	End ending

	Loop int // of async code: the loop that it is a task of, from 1; 0 for none

	goexits bool // it may end in Goexit
}

// A trail says what the chain of waits goes through, from the outside in.
type trail []string
