// Package loop is about where asynchronous code runs.
//
// A [Backend] runs tasks. There are two of them here:
//
//   - [Goroutines]: each task is a goroutine.
//   - [NewThread]: all tasks are coroutines on one OS thread. One of them runs at
//     a time, and another one goes on only where that one waits through this
//     module: data that only they touch need no lock, and a library that must be
//     called from one thread can be called from any task.
//
// [Run] runs a backend on the calling goroutine, until its main function and all
// tasks have ended. A main function that has called [runtime.LockOSThread] can so
// run a loop on the main thread of the process.
//
// A loop that somebody else wrote (GLib's, SDL's, a game engine's) is a [Loop]: it
// takes functions. [FromPost] makes one from its function for that, and package
// looptest tests whether it keeps the rules.
//
// [Call] runs a function on any of them, and waits for it. Sync code that a task
// has called finds the loop of the task with [Host]; a task finds its own with
// [Current].
//
// # Waiting on a thread loop
//
// A task waits through [Backend].Park, or through what is made of it, such as
// Call; meanwhile the loop runs others. Any other wait (a channel, a mutex, a
// system call) blocks the thread, and with it the loop. What else a task on a
// coroutine cannot do is on the page docs/loops.md: above all, hold a
// LockOSThread of its own while it waits.
//
// # Where it comes from
//
// The idea of programming against a narrow interface over many event loops is
// EasyNetwork's, whose AsyncBackend Backend is; Run is its bootstrap, Builtin its
// new_builtin_backend. Call, Host and ErrNoLoop are anyio's from_thread.run, its
// tokens and its NoEventLoopError. The contract of Post follows what asyncio's
// call_soon_threadsafe and concurrent.futures' Executor.submit have in common.
package loop
