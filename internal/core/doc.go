// Package core is the runtime under packages asyncsync and task. It has the threads, the
// calls on their way to them, and the graph of waits. The packages above give it types
// and names.
//
// # The way of a call
//
// A call goes to a [Scope], which is a context of the public API ([Scope.Do]). The scope
// knows its [Thread]. A thread is a queue, a stack of frames and, from its first call on,
// the goroutine of a worker. [Thread.submit] finds the list that the call belongs in, and
// wakes the thread if it serves that list now. The thread takes one call after the other
// ([Thread.next]) and runs it ([Thread.exec]). At the end of a function the thread records
// how it ended, closes the account of the call, and wakes the caller ([Thread.retire],
// [Call.finish]).
//
// Meanwhile the caller waits. All waits of this module go through [sleeper.wait]. A thread
// that waits serves ([sleeper.serve]), a task of a thread loop parks, and an ordinary
// goroutine blocks.
//
// A call to an unpinned thread that has nothing to do takes a shorter way: the caller runs
// the function itself ([Scope.hold]).
//
// A [Frame] is a wait made on a thread. While it stands, the thread runs the calls that
// the wait may depend on. Such a call lies in the box of a frame. [Thread.frameFor] finds
// the frame: it starts from the [Node] of the submitter, goes up through the ancestors and
// their joins, and takes the highest frame that waits for any of them. A call for which it
// finds none is a stranger's. It lies in the queue of the thread. The thread runs that
// queue while it has no frames, and, with policy All, in its frames too.
//
// AsyncToSync waits in a frame, too, for a function that runs elsewhere ([Away]). The best
// place for that function is the goroutine that waits for the blocked call, because it has
// nothing else to do ([Call.lend]).
//
// # Locks
//
// docs/architecture.md has the one list of locks, under Locks.
//
// No callback runs under a lock, and no waiter is woken under one, with two exceptions
// that the page has. The account of a scope is one atomic word. So closing a scope needs neither its thread nor a lock shared with
// it.
//
// # Goexit
//
// Nothing can stop a Goexit. Work that has to go on after one, such as the loop of a worker
// or the exit functions of a thread, goes on in a deferred function of the goroutine that
// unwinds. Each wait takes its frame down in a deferred function. Each function of the user
// is run by a function that records how it ended, for all three endings.
package core
