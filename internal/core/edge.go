package core

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"asyncsync.dev/internal/goroutine"
)

// # Who waits for whom
//
// The one who waits is a goroutine, never a ctx, because a ctx travels. It is a
// [Thread]. Off the threads it is the [Node] that the goroutine runs as: the node of
// a task or of a function in [Away] belongs to that function alone. (Calls on
// threads share nodes. Such a call is known by its place on the thread's stack.)
// Nobody waits for a goroutine that is neither, so it is in no cycle.
//
// A wait is an [edge]. What it is for is a [target].
//
// # Publish, then look
//
// A wait that would close a cycle is refused: see [closes]. Every waiter first makes
// its own wait visible (it pushes a [Frame] or stores Node.waits, and does both
// before it queues a call). Then it looks for a cycle. Of two waits that close one
// together, at least one sees the other. A wait need not look where something is
// still missing, if the one who adds that looks itself:
//
//   - A call queued into a list that its thread serves now waits for nothing but
//     the function that runs there. To keep the call, that function would have to
//     wait. It would push a frame under the same mutex, and so after the queueing.
//   - A function in [Away] is new. It would have to begin to wait.
//   - If Node.waits is nil after we publish, that node begins to wait later and
//     will see our edge.
//
// Only rare cases are left. A hop to a free thread and a level of an ordinary
// nesting look for nothing and share no lock.
//
// # What a verdict means
//
// Package cycle says when a search is certain. The facts that it compares are the
// frames, edges, holders and nodes that were found. Joins, and the lists that calls
// are in, do not change meanwhile: the search holds relations. If two waiters have
// found the same cycle, one of them locks cycles first, and takes its wait back
// before it unlocks.
//
// A certain verdict says that nothing which waits here can end. It does not know who
// might interfere from outside: end a ctx, give a limiter another token, or begin to
// wait for the submitter of a stranger's call, which is no stranger then. A program
// that relies on such help is refused all the same.
//
// # What is not seen
//
// A function on an [Elsewhere] of others is not seen before it has begun.
//
// Otherwise a cycle closes with a new wait, but for two cases. Calls may be handed
// down from a frame that ends, or leave it with a join, to where they are not
// served: then [Mark.recheck] looks for the cycle. And a token or a lock may come
// free while the thread that wants it runs something else on top of that wait: it
// is never given to such a thread. See claim.stepAside and Turn.stepAside.

// An edge is one wait. It is published in a Frame that stands, or in Node.waits,
// and does not change meanwhile.
type edge struct {
	// to is what is waited for; nil if that is not known.
	to target
	// since is when the waiter first slept for it, in nanoseconds; 0 if it has
	// not.
	since atomic.Int64
	// gid is the goroutine that waits. In the Call of an async function or a
	// task it is the one that runs it.
	gid atomic.Int64
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

// cycles is held by a search for a cycle, and by a report while it looks at a few
// waits. It is the outermost lock.
//
// The record of a call is used again when its caller has been told. A reader of
// edges counts itself in readers, locks cycles, and only then reads the first edge.
// A waiter that takes its edge back looks at readers after that. If there are any it
// waits until cycles is free: see awaitReaders. So a record that a reader has found
// is not used for something else while the reader holds the lock.
var (
	cycles  sync.Mutex
	readers atomic.Int32
)

// readEdges runs f with the right to read edges.
func readEdges(f func()) {
	readers.Add(1)
	cycles.Lock()
	defer func() {
		cycles.Unlock()
		readers.Add(-1)
	}()
	f()
}

// awaitReaders returns when nobody can be reading an edge that was taken back
// before.
func awaitReaders() {
	if readers.Load() != 0 {
		cycles.Lock()
		defer cycles.Unlock() // having waited is enough
	}
}

// waiter returns the node that stands for the goroutine of rec, which is no thread;
// nil if the goroutine is nobody's.
func waiter(rec *goroutine.Record) *Node {
	if rec == nil {
		return nil
	}
	n, _ := rec.Node.(*Node)
	return n
}

// goal returns the goal of e, nil if it waits for a call, or for nothing known.
func (e *edge) goal() *goal {
	g, _ := e.to.(*goal)
	return g
}

// hide makes the wait for a goal invisible, or visible.
func (e *edge) hide(hidden bool) {
	if g := e.goal(); g != nil {
		g.hidden.Store(hidden)
	}
}

// claim returns what e wants of a resource, nil if it waits for something else.
func (e *edge) claim() *claim {
	if g := e.goal(); g != nil {
		if t, ok := g.target.(forTokens); ok {
			return t.c
		}
	}
	return nil
}

// call returns the call on a thread, or on its way there, that e waits for, or nil.
func (e *edge) call() *Call {
	if e.to == nil {
		return nil
	}
	c, n := e.to.next()
	if n != nil && c.thread.Load() == nil {
		return nil // it runs off the threads
	}
	return c
}

// kind returns the kind of wait that e is, "" if that is not known: see [WaitState].
func (e *edge) kind() string {
	if e.to == nil {
		return ""
	}
	return e.to.kind()
}

// name returns the name of what e waits for. Its record is not used again as long as
// e is published, or cycles held.
func (e *edge) name() string {
	if e.to == nil {
		return ""
	}
	return e.to.name()
}

// mayWait reports whether what e waits for may be waiting itself. The waiter has
// published e. mayWait locks no thread, because blocks asks while it holds one: for a
// task on a thread it says yes, though the thread may know better.
func (e *edge) mayWait() bool { return e.to != nil && e.to.mayWait() }

// blocks reports whether a call in box, which t does not serve, might wait for
// something that waits for its caller. It does not if all that would have to end
// first is known to run. t.mu is held, and the caller has published its wait.
func (t *Thread) blocks(box *list) bool {
	for f := t.top; f != nil && &f.box != box; f = f.below {
		if f.edge.mayWait() {
			return true
		}
	}
	return false
}

// started is what nanos counts from.
var started = time.Now()

// nanos returns the time. It reads one clock where time.Now reads two. In a synctest
// bubble, which has another clock, it may be negative.
func nanos() int64 { return int64(time.Since(started)) }

// slept notes that the waiter sleeps from now on.
func (e *edge) slept() {
	if e.since.Load() == 0 {
		e.since.Store(nanos())
	}
}

// age returns how long the waiter has slept, -1 if it has not.
func (e *edge) age() time.Duration {
	since := e.since.Load()
	if since == 0 {
		return -1
	}
	return max(0, time.Duration(nanos()-since))
}

// A closing is a wait off the threads for the end of a context or of a pool.
type closing struct {
	edge *edge
	by   *Node // of the ctx that it was made with, or that the goroutine runs as
	born uint32
}

// closings are all of them. A leaf lock.
var closings struct {
	sync.Mutex
	waits map[*closing]struct{}
}

// stands reports whether the wait of c has not ended.
func (c *closing) stands() bool {
	closings.Lock()
	defer closings.Unlock()
	_, ok := closings.waits[c]
	return ok
}

// closingBegins makes known that e waits for the end of something, until end is
// called.
func closingBegins(e *edge, by *Node) (end func()) {
	c := &closing{edge: e, by: by}
	if by != nil {
		c.born = by.epoch()
	}
	closings.Lock()
	if closings.waits == nil {
		closings.waits = make(map[*closing]struct{})
	}
	closings.waits[c] = struct{}{}
	closings.Unlock()
	return func() {
		closings.Lock()
		delete(closings.waits, c)
		closings.Unlock()
		awaitReaders()
	}
}
