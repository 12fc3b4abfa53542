// Package deadlock reports which code runs on which thread and who waits for
// whom. It finds waits that probably never end, and defines the error of waits
// that certainly never do.
//
// A stuck thread is silent in Go: the runtime's own "all goroutines are asleep"
// never appears in a program with a ticker, a signal handler or cgo.
//
//   - [Take] returns a [Report] of all threads of this module, as text, as
//     JSON, or for graphviz.
//   - [Watch] looks at the threads periodically, and calls a function for what
//     seems stuck, for what has waited long, and for what has moved again.
//   - [Strict] makes a test fail, with a report, where it would hang.
//   - A wait that certainly never ends is refused with an [*Error]. It closes a
//     cycle in which every wait is one of this module: for a call to a thread,
//     an async function, a task, a group, a token of a limiter, a mutex, a
//     thread of a full pool, or the end of a context or a pool. Examples are a
//     task that waits for itself, functions that call each other's threads in a
//     ring, none of them called by another, and a call below a function that
//     waits for it, made with a ctx from outside that function.
//
// There is a page for each of them, which says why it is so and what to do. Errors,
// verdicts and the failures of strict tests end with its name, which go doc opens:
//
//	go doc asyncsync.dev/deadlock PageSelfWait
//
// The folder docs/deadlock of the module has the pages with code.
package deadlock

import "asyncsync.dev/internal/core"

// ErrDeadlock is matched, with [errors.Is], by every [*Error].
var ErrDeadlock = core.ErrDeadlock

// An Error is returned by a wait that would never have ended. Nothing else is
// affected: the program goes on as after any failed call. Message says which
// wait it was, Cycle has a [Link] for each wait, and Page names the page to
// read. Details returns the text with a line for each wait.
type Error = core.DeadlockError

// A Link is one wait in the cycle of an [Error]: Who waits, on which
// Goroutine and Thread, the Kind of wait, what it is For, its Age, and its
// Site in the code.
type Link = core.Link

// see returns how a text refers to a page of the documentation.
func see(page string) string { return core.SeePage(page) }
