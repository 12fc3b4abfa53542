package sched

import (
	"runtime"
	"strings"
)

// A guard keeps tasks from waiting below a C callback. There the goroutine has
// one thread lock more than its coroutine was made with, and a switch would end
// the process.
//
// Only the stack shows whether there is a callback, and reading it takes long.
// So the guard reads it only if C has been called, by any goroutine, since the
// stack was last known to have no callback.
//
// In a program without C there are no such calls, not even by the runtime at
// the start, and the guard never reads the stack.
//
// Go does not tell how often a goroutine has called LockOSThread, so the guard
// cannot detect locks that a task holds.
type guard struct {
	off    bool
	calls  int64            // calls to C up to the last look
	judged map[uintptr]bool // whether a place is the runtime's entry for calls from C
}

// errCallback is the panic value of such a wait.
const errCallback = "loop: a task waits inside a C callback, where it cannot be suspended"

// start is called on the loop's goroutine before any task runs.
func (g *guard) start() {
	g.calls = runtime.NumCgoCall()
	g.off = g.calls == 0
}

// check panics if the caller is below a C callback.
func (g *guard) check() {
	if g.off {
		return
	}
	calls := runtime.NumCgoCall()
	if calls == g.calls {
		return
	}
	if g.below() {
		panic(errCallback)
	}
	g.calls = calls
}

func (g *guard) below() bool {
	if g.judged == nil {
		g.judged = make(map[uintptr]bool)
	}
	var pcs [64]uintptr
	for skip := 3; ; skip += len(pcs) {
		n := runtime.Callers(skip, pcs[:])
		for _, pc := range pcs[:n] {
			entry, known := g.judged[pc]
			if !known {
				f := runtime.FuncForPC(pc - 1)
				entry = f != nil && strings.HasPrefix(f.Name(), "runtime.cgocallback")
				g.judged[pc] = entry
			}
			if entry {
				return true
			}
		}
		if n < len(pcs) {
			return false
		}
	}
}
