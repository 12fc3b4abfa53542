package core

import (
	"context"
	"sync/atomic"
	"time"

	"asyncsync.dev/internal/cycle"
)

// A target is what a wait is for. Searches for a cycle, the lending of tokens and
// reports all ask it, and nothing else in this package knows the kinds of waits. The
// types are below; the methods of each are in the file of what it is a wait for.
//
// Each of the types is one pointer, so that an edge holds it without an allocation.
type target interface {
	// kind returns the kind of the wait: see [WaitState]. It is "" for a goroutine
	// that does not wait itself, but runs inside of something else.
	kind() string
	// name returns the name of the target, "" if it has none.
	name() string
	// mayWait reports whether the target may be waiting itself. It is called with
	// the mutex of a thread held, and takes leaf locks only.
	mayWait() bool
	// next returns the one call that has to end, and the node that it runs as if it
	// may run off the threads. Both are nil if the target is something else.
	next() (*Call, *Node)
	// needs returns what has to end before the wait does. cycles and relations are
	// held, and no other lock.
	needs(q *query) cycle.Needs
	// reached returns what claim.reach meets on its way up if it comes through this
	// wait; nil if it does not.
	reached() any
	// report adds to w what is known of the target, and to v the functions that it
	// leads to. cycles is held, and no other lock.
	report(v *view, w *WaitState)
}

// forCall is a call on a thread, or on its way there.
type forCall struct{ c *Call }

// forAsync is a call whose function runs elsewhere: see [Away].
type forAsync struct{ c *Call }

// forNode is the function that runs as a node.
type forNode struct{ n *Node }

// forTop is the call on top of a thread, for a function that runs inside of it: see
// Node.runsInside.
type forTop struct{ c *Call }

// forThread is the thread that the goroutine of the waiter has become.
type forThread struct{ t *Thread }

// forTask is the end of a task.
type forTask struct{ t *Task }

// forGroup is the end of all tasks of a group.
type forGroup struct{ g *Group }

// forRegion is the end of all that a portal runs.
type forRegion struct{ forGroup }

// forPlace is a place in a group that has as many members as it may have: the end of
// any one of them.
type forPlace struct {
	g     *Group
	limit int
}

// forTokens is tokens of a resource.
type forTokens struct{ c *claim }

// forLock is a lock that somebody else has.
type forLock struct{ t *Turn }

// forScope is the end of a context.
type forScope struct{ s *Scope }

// forPool is the end of the threads of a pool.
type forPool struct{ p *Pool }

func (g *goal) mayWait() bool { return !g.hidden.Load() && g.target.mayWait() }

func (g *goal) needs(q *query) cycle.Needs {
	if g.hidden.Load() {
		return cycle.Needs{}
	}
	n := g.target.needs(q)
	n.Until = g.ctx
	return n
}

// A goal is what a wait is for that has no call to keep its edge in.
type goal struct {
	target
	ctx    context.Context // its end ends the wait
	edge   edge            // of a waiter off the threads
	hidden atomic.Bool     // not visible yet, or taken back; or the waiter was let go

	gate  *Gate // opens when the wait is over, for a task that parks; nil for others
	place listener
}

// A WaitState is one wait of this module.
type WaitState struct {
	Kind      string        // call, async, run, task, group, group place, limiter, mutex, close, executor, pool close, portal close; or what its function is called
	For       string        // the name of what is waited for, "" if it has none
	Thread    uint64        // of a call: the ID of the thread that it was sent to
	Seq       uint64        // and its number there
	Goroutine int64         // that runs what is waited for, 0 if that is not known
	Age       time.Duration // how long the wait has slept, -1 if it does not

	Function   int      // the Function of the GoroutineState of what is waited for, if that is in a wait; 0 if it is not known
	Goroutines []int64  // of a group: those that run the members, the first of them
	Functions  []int    // and the Function of each
	Limiter    int      // the place in Limiters, from 1; 0 if it is not there
	Threads    []uint64 // of a pool close: the IDs of the threads that are lent, the first of them
}

// How much a graph names.
const (
	graphQueue   = 16   // queued calls of a thread
	graphNodes   = 1024 // functions off the threads
	graphMembers = 64   // of a group, or threads of a pool
)

// A view is a graph in the making.
type view struct {
	g    Graph
	todo []function    // that waits have led to, in order
	seen map[*Node]int // their places, from 1

	pools   map[*Pool]int
	sites   map[uintptr]Site
	numbers map[*Resource]int // of Limiters, from 1
	there   map[int64]bool    // goroutines that g has
}

// A function runs off the threads.
type function struct {
	node *Node
	label
}

// How much is looked at.
const (
	graphTop    = 48  // entries of a stack, from the top
	graphBottom = 16  // and from the bottom, of a stack that is higher than both
	graphSteps  = 256 // up a tree, along a chain of waits, or through a queue
)
