// Package deadlock says who runs where and who waits, and names the errors of
// waits that could never end.
//
// A thread that is stuck is silent in Go: the runtime's own "all goroutines
// are asleep" never fires in a program with a ticker, a signal handler or cgo.
// [Take] lists every thread of this module with what runs on it, what that
// waits for, and what is queued behind it.
//
// A wait that is certain never to end is refused with an [*Error]. So far
// these are a task that waits for itself, tasks that wait for each other, a
// task that waits for the group it belongs to, and a Shutdown that would have
// to wait for the function that called it.
package deadlock

import (
	"fmt"
	"strings"

	"asyncsync.dev/internal/core"
)

// ErrDeadlock is matched, with [errors.Is], by every [*Error].
var ErrDeadlock = core.ErrDeadlock

// An Error is returned by a wait that would never have ended. Nothing else is
// disturbed: the program goes on as after any failed call.
type Error = core.DeadlockError

// A Report is what all threads did when it was taken. Each thread is
// consistent in itself; between them time has passed.
type Report struct {
	Threads []Thread // by goroutine
}

// A Thread is one thread in a Report.
type Thread = core.ThreadState

// A StackEntry is one call on a thread, and the wait that blocks it.
type StackEntry = core.CallState

// Take returns a report. It may be called from anywhere at any time. It takes
// a lock of each thread in turn and no other, and names at most the first 16
// calls of a queue.
func Take() *Report { return &Report{Threads: core.TakeGraph().Threads} }

// String returns the report as text for people, a few lines a thread.
func (r *Report) String() string {
	if len(r.Threads) == 0 {
		return "no threads\n"
	}
	var b strings.Builder
	for i := range r.Threads {
		write(&b, &r.Threads[i])
	}
	return b.String()
}

func write(b *strings.Builder, t *Thread) {
	name := t.Name
	if name == "" {
		name = "(unnamed)"
	}
	fmt.Fprintf(b, "thread %s: goroutine %d", name, t.Goroutine)
	switch {
	case t.Unpinned:
		b.WriteString(", not pinned")
	case t.OSThread != 0:
		fmt.Fprintf(b, ", OS thread %d", t.OSThread)
	}
	if t.Adopted {
		b.WriteString(", adopted")
	}
	b.WriteByte('\n')
	if len(t.Stack) == 0 {
		b.WriteString("  idle\n")
	}
	for i, e := range t.Stack {
		what := "runs"
		if i > 0 {
			what = "below it"
		}
		call := e.Name
		if call == "" {
			call = "its caller"
		}
		fmt.Fprintf(b, "  %s %s", what, call)
		if e.Wait != nil {
			fmt.Fprintf(b, ", blocked in %s", e.Wait.Kind)
		}
		b.WriteByte('\n')
	}
	if t.Queued > 0 {
		fmt.Fprintf(b, "  %d queued: %s", t.Queued, names(t.Queue))
		if more := t.Queued - len(t.Queue); more > 0 {
			fmt.Fprintf(b, " and %d more", more)
		}
		b.WriteByte('\n')
	}
}

func names(calls []StackEntry) string {
	var s []string
	for _, c := range calls {
		s = append(s, c.Name)
	}
	return strings.Join(s, ", ")
}
