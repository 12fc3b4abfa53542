package core

import (
	"cmp"
	"slices"
)

// ThreadState is what a thread did at one moment.
type ThreadState struct {
	Name      string
	OSThread  int64
	Goroutine int64
	Adopted   bool
	Unpinned  bool
	Stack     []StackEntry // from the top
	Queue     []string     // names of calls that wait, the first of them
	Queued    int
}

// StackEntry is a call on a thread's stack, and the wait that it is blocked
// in, "" for none.
type StackEntry struct {
	Call string
	Wait string
}

// snapshotQueue is how many queued calls a snapshot names.
const snapshotQueue = 16

// Snapshot returns the state of all threads that have a goroutine, each
// consistent in itself.
func Snapshot() []ThreadState {
	live.Lock()
	threads := make([]*Thread, 0, len(live.threads))
	for t := range live.threads {
		threads = append(threads, t)
	}
	live.Unlock()
	states := make([]ThreadState, 0, len(threads))
	for _, t := range threads {
		if s, ok := t.state(); ok {
			states = append(states, s)
		}
	}
	slices.SortFunc(states, func(a, b ThreadState) int { return cmp.Compare(a.Goroutine, b.Goroutine) })
	return states
}

func (t *Thread) state() (ThreadState, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return ThreadState{}, false
	}
	s := ThreadState{
		Name: t.name, OSThread: t.tid.Load(), Goroutine: t.gid.Load(),
		Adopted: t.adopted, Unpinned: t.unpinned, Queued: t.waiting,
	}
	f := t.top
	for c := t.run; c != nil; c = c.outer {
		e := StackEntry{Call: c.Name()}
		for ; f != nil && f.call == c; f = f.below {
			e.Wait = f.what
		}
		s.Stack = append(s.Stack, e)
	}
	for ; f != nil; f = f.below {
		s.Stack = append(s.Stack, StackEntry{Wait: f.what})
	}
	name := func(l *list) {
		for c := l.head; c != nil && len(s.Queue) < snapshotQueue; c = c.next {
			s.Queue = append(s.Queue, c.Name())
		}
	}
	for f := t.top; f != nil && len(s.Queue) < snapshotQueue; f = f.below {
		name(&f.box)
	}
	name(&t.main)
	return s, true
}
