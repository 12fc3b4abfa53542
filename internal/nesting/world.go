package nesting

import (
	"context"
	"sync"
	"sync/atomic"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/loop"
	"asyncsync.dev/portal"
	"asyncsync.dev/task"
)

// What exists while a program runs, and what is known of it.

// Mode says how closely Run watches.
type Mode int

const (
	// Watched keeps a record of who waits for whom, and checks for every function
	// that runs on top of another that the latter depends on it. The record has a
	// lock, which orders what the library may have left unordered.
	Watched Mode = 0
	// Unwatched takes no lock that the library does not take, for the race
	// detector.
	Unwatched Mode = 1
	// Bubble is added to either in a synctest bubble, where the default thread ends
	// when nothing runs on it.
	Bubble Mode = 2
)

// run is one run of a program.
//
// The goroutine that runs an operation writes its result without a lock, to a place
// of its own. Results are read when everything has ended. Tasks are written in the
// same way, and read by later code of the program.
type run struct {
	*Result
	p     *Program
	mode  Mode
	exits bool // there are contexts with the mark
	things

	runs    []atomic.Int32
	outs    []Outcome      // of bodies that have ended
	strays  sync.WaitGroup // functions that were abandoned
	told    atomic.Int32
	threads atomic.Int32 // of the small pools, by what these are told
	hung    chan struct{}

	complaints sync.Mutex      // guards Complaints, spawned, atEnd and loose
	loose      []chan struct{} // closed at the ends of what a Goexit may leave running
	spawned    []int           // operations that have started a task
	atEnd      []*contextState
	acts       []*activity

	mu     sync.Mutex // guards the rest, when watched
	clock  int
	record []*wait
	tids   map[int]*contextState // of contexts that are in use
	dead   map[int]*contextState // of tainted ones that are not
}

// Things are what the operations of a program name.
type things struct {
	pool     *asyncsync.ThreadPool // large enough
	pools    []*asyncsync.ThreadPool
	limiters []*limiterState // by context
	loop     looper          // that never stops
	loops    []*loopState
	portals  []*portalState
	provider *providerState

	atTheStart []*contextState // shared contexts
	contexts   []*contextState
	tasks      []*task.Task[int]
	mutexes    map[int]*task.Mutex // by operation
}

// contextState is a context that exists. Its fields need no lock, because only
// functions on the context's thread touch them: they are probes for the race
// detector.
type contextState struct {
	*Context
	ctx    context.Context
	tsc    *asyncsync.ThreadSensitiveContext
	handle *asyncsync.Handle[*contextState]
	exec   *asyncsync.CurrentThreadExecutor // whose goroutine is the thread, nil for none
	left   chan struct{}                    // closed when that is to end
	gone   chan struct{}                    // closed when it has
	tid    int
	stack  []*activity
	steps  int
	starts int // of OnThreadStart
	exits  int // of OnThreadExit

	critical *critical // value of the thread-critical variable

	callers activity // that of roots with this context's ctx

	tainted atomic.Bool
	early   atomic.Bool // it may have been closed while it is in use
}

// A critical is a value of the thread-critical variable.
type critical struct {
	x      *run
	c      *contextState
	exited int
}

// A limiterState is a limiter that exists.
type limiterState struct {
	*task.Limiter
	who  activity // that waits for those who hold a token
	held atomic.Int32
}

// A loopState is a loop. What its tasks touch is plain, for one of them runs at a
// time: a probe.
type loopState struct {
	loop.Backend
	side  bool // a loop of goroutines
	tid   int  // of a loop on a thread, when it is known
	steps int
}

// A portalState is a portal that exists. What StartSoon starts is below region.
type portalState struct {
	*Portal
	it     *portal.Portal
	region activity
}

// A providerState is a Provider and those who use it.
type providerState struct {
	*portal.Provider
	mu     sync.Mutex // guards the rest
	leases int
	now    *portal.Portal
}

// An activity is one function under way, or a group.
type activity struct {
	parent  *activity // whose ctx it was started with; nil if nobody's relative
	body    *Body
	on      *contextState // nil in async code
	began   int           // clock, when it was submitted
	waiting *wait         // touched by its own goroutine only
	tid     int
	op      int       // that it is at
	queued  bool      // it is a task on a thread
	onTop   counter   // counted when a function begins on top of it
	borrows bool      // its ctx is its parent's
	posted  bool      // it was posted to an executor
	within  *activity // that it is a part of for the library: it has called it inline
}

// A wait is an activity that waits for another.
type wait struct {
	by, target *activity
	closed     *contextState // instead of target: all that runs there, or will
	from, to   int           // clock; to is 0 while it lasts
}

type function = func(context.Context) (int, error)

// looper is a loop that has a goroutine for each function.
type looper struct{ done chan struct{} }

func (l looper) Done() <-chan struct{} { return l.done }

func (l looper) Post(fn func()) error {
	go fn()
	return nil
}
