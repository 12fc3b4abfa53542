package core

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"

	"asyncsync.dev/internal/goroutine"
)

// Here returns the thread that the caller is, or nil.
func Here() *Thread {
	t, _ := current()
	return t
}

// makers are the goroutines that have executors.
var makers struct {
	n       atomic.Int32 // how many, so that programs without any do not look
	forGood atomic.Int32 // of these, how many are threads for good

	sync.RWMutex // a leaf lock
	all          map[int64]*maker
}

// makerOf returns the maker that the calling goroutine, with the id gid, is; nil if it has
// made no executor.
func makerOf(gid int64) *maker {
	if makers.n.Load() == 0 {
		return nil
	}
	makers.RLock()
	defer makers.RUnlock()
	return makers.all[gid]
}

// moveIn makes the calling goroutine the thread t, which it has been said to be, or is to
// be.
func (t *Thread) moveIn() {
	runtime.LockOSThread()
	rec := goroutine.Ensure()
	t.mu.Lock()
	t.record = rec
	if t.wake == nil {
		t.wake = make(chan struct{}, 1)
	}
	first := !t.listed
	t.listed = true
	t.mu.Unlock()
	t.first.Store(onFirstThread())
	t.tid.Store(osThread())
	rec.Owner = t
	if first {
		enlist(t)
	}
	waiter(rec).publish(&edge{to: forThread{t}}) // what waited for this goroutine's function now waits for t
}

// moveOut makes the calling goroutine one like others.
func (t *Thread) moveOut() {
	t.record.Owner = nil
	waiter(t.record).unpublish()
	if t.record.Empty() {
		t.record.Release()
	}
	delist(t)
	if !t.taint.Load() { // else the OS thread ends with the goroutine
		runtime.UnlockOSThread()
	}
}

// threadForGood returns the lasting thread of the calling goroutine, whose id is gid,
// or nil. It makes the goroutine that thread, so that it is called at most once for each such
// thread.
func threadForGood(gid int64) *Thread {
	o := makerOf(gid)
	if o == nil || !o.forGood.Load() {
		return nil
	}
	t := o.thread.Load()
	t.moveIn()
	return t
}

// current returns the thread whose goroutine calls, and its record; both may
// be nil.
func current() (*Thread, *goroutine.Record) {
	gid := goroutine.ID()
	rec := goroutine.Of(gid)
	if rec != nil {
		if t, ok := rec.Owner.(*Thread); ok {
			return t, rec
		}
	}
	if makers.forGood.Load() != 0 {
		if t := threadForGood(gid); t != nil {
			return t, t.record
		}
	}
	if t := heldBy(gid); t != nil {
		rec = goroutine.Ensure()
		rec.Owner, rec.Node = t, t.run.node
		t.record = rec
		return t, rec
	}
	return nil, rec
}

// mine reports whether the caller's goroutine is the thread.
func (t *Thread) mine() bool { return t.gid.Load() == goroutine.ID() }

// An unpinned thread needs no goroutine of its own. A caller that finds it idle takes
// it, as if it were a token, and runs its function itself. While a caller holds the
// thread, the caller's goroutine is the thread in every respect: the thread has its
// frames there, serves there, and calls to it from there are inline.
//
// That is only for the uncontended case. A caller that finds the thread held or
// busy queues. When the holder puts the thread down, it hands the thread to a
// worker, which runs the queue. So no caller runs the function of another, ends by
// its Goexit or is delayed by it. When the worker sleeps, a caller may take the
// thread again.

// holders finds the thread that a goroutine holds by the goroutine's id. To make
// and drop a record for every call would cost more than the rest of the call. If
// two holders share a place, the second one has a record instead.
var holders [256]atomic.Pointer[Thread]

// heldBy returns the thread held by the calling goroutine, whose id is gid, if it
// is in the table.
func heldBy(gid int64) *Thread {
	if t := holders[uint64(gid)%uint64(len(holders))].Load(); t != nil && t.gid.Load() == gid {
		return t
	}
	return nil
}

// record returns the record of the calling goroutine, nil if it has none and
// nothing is known of it.
func record() *goroutine.Record {
	_, rec := current()
	return rec
}

// ownNode returns the node of what runs on the calling goroutine, or nil.
func ownNode() *Node { return submitter(context.Background(), record()) }

// submitter returns the node that a wait made with ctx belongs to. If ctx knows
// nothing of this module, that is the node of the calling goroutine, which will
// be blocked. A detached ctx belongs to no node.
func submitter(ctx context.Context, rec *goroutine.Record) *Node {
	n, _ := submitterOf(ctx, rec)
	return n
}

// submitterOf is submitter, and reports whether ctx is a detached one.
func submitterOf(ctx context.Context, rec *goroutine.Record) (n *Node, detached bool) {
	if c := From(ctx); c != nil {
		return c.node, c.node == nil && c.scope == nil
	}
	if rec != nil {
		n, _ = rec.Node.(*Node)
	}
	return n, false
}

// restore gives the calling goroutine the values that a call has left.
func restore(rec *goroutine.Record, v goroutine.Values) {
	if rec == nil {
		if v == (goroutine.Values{}) {
			return
		}
		rec = goroutine.Ensure()
	}
	rec.Values = v
	rec.ReleaseIfEmpty()
}
