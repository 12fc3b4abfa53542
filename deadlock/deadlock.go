// Package deadlock says who runs where and who waits for whom, finds waits that
// probably never end, and names the errors of those that certainly never do.
//
// A thread that is stuck is silent in Go: the runtime's own "all goroutines are
// asleep" never fires in a program with a ticker, a signal handler or cgo.
//
//   - [Take] returns a [Report] of all threads of this module, for people, as
//     JSON, or for graphviz.
//   - [Watch] looks at the threads now and then, and tells a function of what
//     seems stuck, or has waited long, and of what has moved again.
//   - [Strict] has a test fail, with a report, where it would hang.
//   - A wait that is certain never to end is refused with an [*Error]: one that
//     closes a cycle in which every wait is one of this module, for a call to a
//     thread, an async function, a task, a group, a token of a limiter, a thread
//     of a full pool, or the end of a context or of a pool. So a task that waits for itself,
//     threads that call each other in a ring, or a call below a function that
//     waits for it, made with a ctx from outside that function.
//
// In docs/deadlock there is a page for each of them, which says why it is so and
// what to do. Errors, verdicts and the failures of strict tests end with its name.
package deadlock

import "asyncsync.dev/internal/core"

// ErrDeadlock is matched, with [errors.Is], by every [*Error].
var ErrDeadlock = core.ErrDeadlock

// An Error is returned by a wait that would never have ended. Nothing else is
// disturbed: the program goes on as after any failed call.
type Error = core.DeadlockError

// A Link is one wait in the cycle of an [Error].
type Link = core.Link

// see returns how a text refers to a page of the documentation.
func see(page string) string { return "see docs/deadlock/" + page + ".md" }

// The pages that this package refers to.
const (
	pageRawWait     = "raw-wait"
	pageBlockedLoop = "blocked-loop"
	pageSlow        = "slow"
	pageStrict      = "strict"
	pageBlocked     = "call-to-blocked-thread"
	pageFullPool    = "full-pool"
	pageLimiter     = "limiter"
)
