// Package asyncsync runs functions that must stay on one OS thread, one at a
// time, and lets them nest.
//
// Sync code, here, is a function that may only run on a particular thread: it
// touches a SQLite handle, a cgo library with thread-local state, a GL context,
// an embedded interpreter. Async code is any other: it runs on ordinary
// goroutines and may block as it likes. [SyncToAsync] makes a sync function
// callable from async code, and from anywhere else, by sending it to its
// thread. [AsyncToSync] makes an async function callable from sync code: it
// runs on another goroutine, and the thread that waits for it serves the sync
// calls made below, to any depth. That is what a goroutine behind
// [runtime.LockOSThread] and a channel cannot do: there the second level is a
// deadlock.
//
// Which thread is said by ctx. A [ThreadSensitiveContext] gives everything
// below it a thread of its own: a request, a session. Without one it is the
// thread of the sync caller above, or else the default thread of the process.
// A [Handle] is a value together with the thread that may touch it, and a
// [HandlePool] a number of them, which requests share.
//
// # What a call costs
//
// A call on its own thread is a plain call. A call to another thread is two
// switches of the operating system's, some microseconds to some tens; Go
// cannot go below that for locked goroutines that sleep. A thread that is
// called in quick succession stays awake for the next call, as do its callers,
// where that has been seen to pay: then a call takes about a microsecond, and
// [Spin] turns it off. Calls that are started with [Go] share their switches.
// docs/performance.md has figures.
//
// # When something hangs
//
// A wait through this module that could never end is refused with an error that
// matches deadlock.ErrDeadlock, says who waits for whom, and names a page of
// docs/deadlock. Waits of other kinds are seen by deadlock.Watch.
//
// # Synchronization
//
// What happens before a call synchronizes before its function begins, and the
// end of the function synchronizes before the return of the call. Calls on one
// thread are ordered, each synchronizing before the next.
//
// # Errors and panics
//
// What can happen at run time is an error for [errors.Is]: [ErrClosed],
// [ErrAbandoned], [ErrQueueFull], [ErrPoolFull], [ErrNoContext], [ErrWrongThread], the cause
// of a ctx. What only a mistake in the program can bring about (nil functions,
// a nil ctx, options that contradict each other) panics at once with a message
// that begins with the package's name.
//
// The ideas are those of Django's asgiref, whose names are kept where Go lets
// them be.
package asyncsync
