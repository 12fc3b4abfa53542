package core

import (
	"cmp"
	"slices"
	"time"
)

// A Graph is who runs where, and who waits for whom. Each thread in it is
// consistent in itself; between them time has passed.
type Graph struct {
	Threads    []ThreadState    // by ID
	Goroutines []GoroutineState // that the waits of threads lead to, by Goroutine
}

// A ThreadState is what one thread did at one moment.
type ThreadState struct {
	ID        uint64 // of this lease: never used again in the process
	Name      string // of its context
	Policy    Policy
	OSThread  int64
	Goroutine int64
	Adopted   bool
	Unpinned  bool
	Stack     []CallState // what runs, from the top; the bottom of an adopted one has no name
	Queue     []CallState // what waits, in the order it came, the first of it
	Queued    int         // how many wait
	Calls     uint64      // that have ended

	// Below says that the first of the queue was submitted from below the
	// function on top of the stack, which therefore may be waiting for it.
	Below bool
	// Long says that what runs is meant to take long, or waits for what is.
	Long bool
}

// A CallState is one call, queued or running.
type CallState struct {
	Seq      uint64 // its number on its thread, 0 for what is no call
	Name     string
	Caller   int64         // the goroutine that waits for it, 0 if there is none
	Waited   time.Duration // how long that has slept for it, -1 if it does not
	Long     bool
	Stranger bool       // queued: nothing that blocks the thread waits for it
	Wait     *WaitState // running: the wait of this module that its function is in
}

// A WaitState is one wait of this module.
type WaitState struct {
	Kind      string        // call, async, task, group, limiter, close, executor, pool close
	For       string        // the name of what is waited for, "" if it has none
	Thread    uint64        // of a call: the ID of the thread that it was sent to
	Seq       uint64        // and its number there
	Goroutine int64         // that runs what is waited for, 0 if that is not known
	Age       time.Duration // how long the wait has slept, -1 if it does not
}

// A GoroutineState is a function of this module, not on a thread, that is in a
// wait of this module.
type GoroutineState struct {
	Goroutine int64
	Name      string
	Wait      WaitState
}

// graphQueue is how many queued calls of a thread a graph names.
const graphQueue = 16

// TakeGraph returns the graph of all threads that have a goroutine.
func TakeGraph() Graph {
	var g Graph
	for _, t := range liveThreads() {
		if s, ok := t.state(); ok {
			g.Threads = append(g.Threads, s)
		}
	}
	slices.SortFunc(g.Threads, func(a, b ThreadState) int { return cmp.Compare(a.ID, b.ID) })
	return g
}

func liveThreads() []*Thread {
	live.Lock()
	defer live.Unlock()
	threads := make([]*Thread, 0, len(live.threads))
	for t := range live.threads {
		threads = append(threads, t)
	}
	return threads
}

func (t *Thread) state() (ThreadState, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return ThreadState{}, false
	}
	s := ThreadState{
		ID: t.id, Name: t.name, Policy: t.policy, OSThread: t.tid.Load(), Goroutine: t.gid.Load(),
		Adopted: t.adopted, Unpinned: t.unpinned, Queued: t.waiting, Calls: t.calls,
	}
	f := t.top
	for c := t.run; c != nil; c = c.outer {
		e := CallState{Seq: c.seq, Name: c.Name(), Waited: -1}
		for ; f != nil && f.call == c; f = f.below {
			e.Wait = &WaitState{Kind: f.what, Age: -1}
		}
		s.Stack = append(s.Stack, e)
	}
	for ; f != nil; f = f.below {
		s.Stack = append(s.Stack, CallState{Waited: -1, Wait: &WaitState{Kind: f.what, Age: -1}})
	}
	add := func(l *list) {
		for c := l.head; c != nil && len(s.Queue) < graphQueue; c = c.next {
			s.Queue = append(s.Queue, CallState{Seq: c.seq, Name: c.Name(), Waited: -1, Stranger: l == &t.main})
		}
	}
	for f := t.top; f != nil && len(s.Queue) < graphQueue; f = f.below {
		add(&f.box)
	}
	add(&t.main)
	return s, true
}

// Refuse takes the call with the number seq out of the queue of a thread, and
// has it fail with err. It reports false if it is not there any more.
func Refuse(thread, seq uint64, err error) bool {
	return false
}

// SetStrict has all threads serve nothing in a blocked function but what is
// related to it through waits that this module knows: [All] counts as
// [Related], and waits for something unknown serve nobody.
func SetStrict(on bool) {}

// A Mark tells when the call with the number seq has left the queue of a
// thread.
type Mark struct {
	thread, seq uint64
}

// MarkQueued marks a queued call. ok is false if it is not there any more.
func MarkQueued(thread, seq uint64) (m *Mark, ok bool) { return nil, false }

// Left reports whether the call has left the queue, and after how long since
// its caller began to wait.
func (m *Mark) Left() (after time.Duration, left bool) { return 0, false }

// Drop forgets the mark.
func (m *Mark) Drop() {}
