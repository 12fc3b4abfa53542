// Package core is the runtime under asyncsync and task: threads, the calls on
// their way to them, and who waits for whom. The packages above put types and
// names around it.
//
// # The way of a call
//
// A call is submitted to a [Scope], a context in the sense of the public API
// ([Scope.Do]). The scope knows its [Thread], which is a queue, a stack of
// frames and, from the first call on, the goroutine of a worker. Submitting
// finds the list that the call belongs in, and wakes the thread if it serves
// that list now ([Thread.submit]). The thread takes calls one by one
// ([Thread.next]) and runs them ([Thread.exec]); the end of one is recorded, its
// account closed, and its caller told ([Thread.retire], [Call.finish]).
//
// The caller waits meanwhile. All waits of this module go through one place
// ([sleeper.wait]), which knows three ways to do it: a thread serves
// ([Thread.serve]), a task of a thread loop parks, an ordinary goroutine blocks.
//
// There is a shorter way: an unpinned thread that has nothing to do is taken by
// the caller, who runs the function himself ([Scope.hold]).
//
// A [Frame] is a wait made on a thread. While it stands, the thread runs the
// calls of those whom the wait may depend on: a call is put into the box of the
// highest frame that waits for its submitter, which is looked up from the
// submitter's [Node] through its ancestors and their joins ([Thread.frameFor]).
// What is in nobody's box is a stranger's and waits in the thread's own queue.
//
// AsyncToSync blocks in a frame too, for a function that runs elsewhere
// ([Away]): best on the goroutine that waits for the call which is blocked, and
// has nothing else to do ([Call.lend]).
//
// # Locks
//
// The one list of them is in docs/architecture.md, under Locks.
//
// No callback is called and nobody is woken under a lock. Accounts of accepted
// calls are one atomic word per scope, so that closing needs neither the
// thread's cooperation nor a lock shared with it.
//
// # Goexit
//
// A Goexit cannot be stopped, only accompanied: what has to go on after one
// (a worker's loop, a drain, the exit functions of a thread) goes on inside a
// deferred function of the goroutine that is unwinding. Every wait pops its
// frame in a deferred function, and every function that is run is wrapped so
// that its end is recorded whichever way it comes.
package core
