// Package loop defines where asynchronous code runs.
//
// A [Backend] runs tasks. This package has two kinds:
//
//   - [Goroutines]: each task is a goroutine.
//   - [NewThread]: all tasks are coroutines on one OS thread. One of them runs
//     at a time, and another one goes on only when that one waits through this
//     module. So data that only the tasks use needs no lock, and a library that
//     must be called from one thread can be called from any task.
//
// [Run] runs a backend on the calling goroutine until its main function and all
// tasks have ended. A program whose main function has called
// [runtime.LockOSThread] can run a loop on the main thread of the process this
// way.
//
// A loop that somebody else wrote (GLib's, SDL's, a game engine's) is a [Loop]:
// it accepts functions. [FromPost] makes a Loop from the foreign loop's post
// function, and package looptest tests whether it keeps the rules.
//
// [Call] runs a function on any loop and waits for it. [Host] returns, in sync
// code that a task has called, the loop of that task. [Current] returns the
// backend of the calling task. A nil ctx or function panics, everywhere in this
// package.
//
// # Waiting on a thread loop
//
// A task waits through [Backend].Park, or through functions built on it, such
// as Call; the loop runs others meanwhile. Any other wait (a channel, a mutex,
// a system call) blocks the thread, and with it the loop. The page
// docs/loops.md says what else a task on a coroutine cannot do. Above all, it
// cannot hold a LockOSThread of its own while it waits.
//
// # Where it comes from
//
// The idea of programming against a narrow interface over many event loops is
// EasyNetwork's. Backend is its AsyncBackend, Run its bootstrap, and Builtin
// its new_builtin_backend. Call, Host and ErrNoLoop are anyio's
// from_thread.run, tokens and NoEventLoopError. The contract of Post is what
// asyncio's call_soon_threadsafe and concurrent.futures' Executor.submit have
// in common.
package loop
