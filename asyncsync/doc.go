// Package asyncsync runs functions that must stay on one OS thread, one at a
// time, and lets them nest.
//
// Sync code is a function that may only run on a particular thread: it touches
// a SQLite handle, a cgo library with thread-local state, a GL context or an
// embedded interpreter. Async code is any other function: it runs on ordinary
// goroutines and may block freely.
//
// [SyncToAsync] makes a sync function callable from anywhere by sending it to
// its thread. [AsyncToSync] makes an async function callable from sync code:
// the function runs on another goroutine, and the waiting thread serves the
// sync calls made below it, to any depth. A goroutine locked with
// [runtime.LockOSThread] and fed by a channel cannot do that: its second level
// is a deadlock.
//
// The ctx selects the thread. A [ThreadSensitiveContext] gives everything below
// it (a request, a session) a thread of its own. Without one, a call runs on
// the thread of the sync caller above it, or else on the default thread of the
// process. A [Handle] is a value together with the only thread that may touch
// it. A [HandlePool] is a set of such values that requests share. With [WithThread]
// a context or a Handle uses the thread of a [CurrentThreadExecutor], such as the
// main thread of a GUI program.
//
// # What a call costs
//
// A call on its own thread is a plain call. A call to another thread takes two
// thread switches by the operating system, which is some microseconds to some
// tens of microseconds. Go cannot do better for locked goroutines that sleep.
//
// A thread that is called in quick succession, and its callers, stay awake
// between calls when the library has measured that this pays. Then a call takes
// about a microsecond. [Spin] turns this off. Calls started with [Go] share
// their switches. docs/performance.md has the figures.
//
// # When something hangs
//
// The library refuses a wait that closes a cycle of waits through it: for
// calls, tasks, groups, tokens, locks and closings. The error matches
// deadlock.ErrDeadlock, says who waits for whom, and names a page that go doc
// shows. deadlock.Watch reports hangs that involve waits of other kinds.
//
// # Synchronization
//
// What happens before a call synchronizes before its function begins, and the
// end of the function synchronizes before the return of the call. Calls on one
// thread are ordered, each synchronizing before the next.
//
// # Errors and panics
//
// What can go wrong at run time is an error that [errors.Is] can match:
// [ErrClosed], [ErrAbandoned], [ErrQueueFull], [ErrPoolFull], [ErrNoContext],
// [ErrWrongThread], or the cause of a ctx. Mistakes in the program (a nil
// function, a nil ctx, contradictory options) panic at once with a message that
// begins with the package's name.
//
// The ideas are those of Django's asgiref. The names are asgiref's too, where
// Go allows it.
package asyncsync
