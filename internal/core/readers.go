package core

import (
	"sync"
	"sync/atomic"
)

// This file has the lock that keeps the records of waits valid while others read them.

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
