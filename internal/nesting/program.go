package nesting

import (
	"fmt"
	"strings"

	"asyncsync.dev/asyncsync"
)

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

	sides     map[int]bool // loops that are goroutines
	portalOps map[int]bool // operations that call a portal
	stops     bool         // a portal stops with a ctx that is cancelled at any moment

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

type kind int

const (
	opSet           kind = iota // Var.Set
	opDelete                    // Var.Delete
	opUndo                      // Var.Set, Body, undo
	opCall                      // ToThread
	opFrom                      // FromThread
	opSpawn                     // task.Go, or asyncsync.Go if Queued
	opWait                      // Task.Wait for Task
	opJoined                    // the same of Body, then Between, then Wait whatever happens
	opGroup                     // NewGroup, a member for each of Bodies, Between, Wait
	opShared                    // goroutines for Bodies that share the ctx, awaited
	opScope                     // NewThreadSensitiveContext, Body, Close in some way
	opHandle                    // Open, Body, Handle.Close
	opDetach                    // ToThread with a detached ctx
	opCancelBefore              // a call with an ended ctx
	opCancelQueued              // a call that is cancelled behind a busy function
	opCancelRunning             // a ToThread call cancelled at the end of Body
	opCancelFrom                // a FromThread call cancelled at the end of Body
	opCancelRace                // a call that is cancelled at any time
	opAbandon                   // a ToThread call that is abandoned while it runs
	opAbandonFrom               // a FromThread call that is
	opTaskCancel                // a task that is cancelled while it runs
	opQueuedCancel              // a task queued on a thread that is cancelled at any time
	opExecutor                  // a task posts Body to a CurrentThreadExecutor of its starter's
	opPosts                     // functions that are posted to an executor of one's own
	opOpen                      // a Handle whose open or close function fails
	opStopped                   // a function for a loop that stops
	opTokens                    // Limiter.SetTotal, or TryAcquire
	opTokensCancel              // an Acquire that is cancelled at any time
	opTaint                     // Taint
	opCritical                  // a thread-critical variable is read and set
	opLook                      // statistics and a report, of everybody
	opAfter                     // calls with the ctx of a task that has ended
	opValue                     // Handle.Value
	opLoose                     // a task of Body that is cancelled at any moment: see loose.go
	opCancelTask                // Task.Cancel of Task
	opLeave                     // a call that is abandoned if it is cancelled
	opStartFails                // calls to a context whose OnThreadStart fails at first
	opCloseEarly                // Close or Shutdown of On while it is in use
	opBurst                     // calls queued behind a busy function: see burst
	opPlant                     // a wait for Task or On, which waits for it
	opPortal                    // a portal that is opened, Body, Close in some way while Bodies run
	opProvider                  // Acquire, Body, release
	opStartTask                 // StartTask with Body and then Bodies[0], Between, Wait
	opWrap                      // Wrap, opened by Body, Between, closed by Bodies[0]
	opPosted                    // a portal is called from a function that is posted to its loop
	opStopRace                  // a portal that is stopped while it is used
	opPortalCancel              // a function of a portal that is cancelled at any time
	opTimeout                   // a deadline, around Body or a wait: see ends.go
	opLocked                    // Body with a mutex of its own
	opPlantLimited              // a cycle through a limiter
)

func (k kind) String() string {
	return [...]string{"set", "delete", "undo", "call", "from", "spawn", "wait", "joined", "group", "shared",
		"scope", "handle", "detach", "cancel-before", "cancel-queued", "cancel-running", "cancel-from",
		"cancel-race", "abandon", "abandon-from", "task-cancel", "queued-cancel",
		"executor", "posts", "open", "stopped", "tokens", "tokens-cancel", "taint", "critical", "look", "after", "value", "loose", "cancel-task", "leave", "start-fails", "close-early", "burst", "plant",
		"portal", "provider", "start-task", "wrap", "posted", "stop-race", "portal-cancel", "timeout",
		"locked", "plant-limited"}[k]
}

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
	Options int  // of the call: see options.go
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

// String returns the program as an indented tree.
func (p *Program) String() string {
	var b strings.Builder
	for i, n := range p.Pools {
		fmt.Fprintf(&b, "pool%d: %+v\n", i, n)
	}
	for _, c := range p.Contexts {
		fmt.Fprintf(&b, "%v rank %.4g\n", c, c.rank)
	}
	for _, q := range p.Portals {
		fmt.Fprintf(&b, "%v\n", q)
	}
	for i, r := range p.Roots {
		fmt.Fprintf(&b, "root %d, ctx of %v:\n", i, r.Context)
		r.Body.write(&b, "  ")
	}
	return b.String()
}

func (b *Body) write(w *strings.Builder, indent string) {
	where := "async"
	if b.On != nil {
		where = "on " + b.On.String()
	}
	fmt.Fprintf(w, "%sb%d %s {\n", indent, b.ID, where)
	for _, o := range b.Ops {
		o.write(w, indent+"  ")
	}
	fmt.Fprintf(w, "%s} %v\n", indent, b.End)
}

func (o *Op) write(w *strings.Builder, indent string) {
	fmt.Fprintf(w, "%s#%d %v", indent, o.ID, o.Kind)
	switch o.Kind {
	case opSet, opUndo:
		fmt.Fprintf(w, " v%d=%d", o.Var, o.Val)
		if o.N > 0 {
			fmt.Fprintf(w, " ctx of kind %d", o.N)
		}
	case opDelete:
		fmt.Fprintf(w, " v%d", o.Var)
	case opCall, opCancelBefore, opCancelQueued, opCancelRunning, opCancelRace, opAbandon, opAfter, opLeave:
		fmt.Fprintf(w, " %v %v", o.Target, o.On)
	case opExecutor:
		if o.On != nil {
			fmt.Fprintf(w, " adopts %v", o.On)
		}
	case opStopped, opTokens, opTokensCancel:
		fmt.Fprintf(w, " %v %d", o.Target, o.N)
	case opTaint, opValue, opCritical, opStartFails:
		fmt.Fprintf(w, " %v", o.On)
	case opCloseEarly:
		fmt.Fprintf(w, " %v, %v", o.On, o.Close)
	case opSpawn, opJoined, opQueuedCancel, opLoose, opTaskCancel:
		if o.Queued {
			fmt.Fprintf(w, " queued %v %v", o.Target, o.On)
		}
		if o.Detached {
			w.WriteString(" detached")
		}
	case opFrom:
		if o.On != nil {
			fmt.Fprintf(w, " adopts %v", o.On)
		}
	case opWait, opCancelTask:
		fmt.Fprintf(w, " for #%d", o.Task.ID)
	case opPlant:
		if o.Task != nil {
			fmt.Fprintf(w, " for #%d", o.Task.ID)
		} else {
			fmt.Fprintf(w, " for %v", o.On)
		}
	case opScope:
		fmt.Fprintf(w, " %v, closed: %v", o.On, o.Close)
		if o.Foreign {
			w.WriteString(", foreign")
		}
	case opOpen:
		fmt.Fprintf(w, " %v, closing: %d", o.On, o.N)
	case opPosts:
		fmt.Fprintf(w, " %d of %d panics", o.Cancel, o.N)
	case opHandle:
		fmt.Fprintf(w, " %v", o.On)
	case opGroup:
		fmt.Fprintf(w, " fail %d", o.Fail)
	case opBurst:
		fmt.Fprintf(w, " %v %v of %d, tasks %b, cancel %d", o.On, o.Burst, o.N, o.Mask, o.Cancel)
	}
	if o.Portal != nil {
		fmt.Fprintf(w, " %v", o.Portal)
	}
	switch o.Kind {
	case opPortal:
		fmt.Fprintf(w, ", closed: %v", o.Close)
	case opStopRace:
		fmt.Fprintf(w, ", closed: %v, %d senders, cancels: %d", o.Close, o.N, o.Cancel)
	case opPortalCancel:
		fmt.Fprintf(w, " %v", way(o.Mask))
	case opTimeout:
		fmt.Fprintf(w, " of kind %d", o.N)
	}
	if o.Wrapper {
		w.WriteString(" wrapper")
	}
	if o.Place != placeUsual {
		fmt.Fprintf(w, ", %v", o.Place)
	}
	if o.Loop > 0 {
		fmt.Fprintf(w, " loop %d", o.Loop)
	}
	if o.Limiter != nil {
		fmt.Fprintf(w, ", %v", o.Limiter)
		if o.Again {
			fmt.Fprint(w, " again")
		}
	}
	if o.Options != 0 {
		fmt.Fprintf(w, " options %b", o.Options)
	}
	if o.Catch {
		w.WriteString(" catch")
	}
	w.WriteString("\n")
	if o.Body != nil {
		o.Body.write(w, indent+"  ")
	}
	for _, b := range o.Bodies {
		b.write(w, indent+"  ")
	}
	if o.Between != nil {
		fmt.Fprintf(w, "%s between:\n", indent)
		o.Between.write(w, indent+"  ")
	}
}
