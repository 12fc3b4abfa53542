// Package portal lets any code call into a loop from outside, and ends in an orderly
// way: a [Portal] accepts functions from goroutines, threads and other loops, runs
// them as tasks, knows which of them run, and stops without leaving a caller behind.
//
//   - [Start] starts a new loop with a portal, for sync code that wants one.
//   - [Open] opens a portal on the loop of the calling task, for what others are to
//     run there.
//   - A [Provider] has many users share one portal that lives while they use it.
//
// [Call] runs a function and waits for it, [StartSoon] does not wait, [StartTask]
// waits until the function says that it is ready, and [Wrap] makes an asynchronous
// resource, opened and closed in one task, usable from sync code.
//
// # Stopping
//
// [Portal.Stop] refuses what comes later: that gets [loop.ErrStopped]. What was
// accepted before runs, also what has not begun; Stop(true) cancels it instead. When
// the last of it has ended the portal is over, and so is the loop, if Start has made
// it. [Portal.Close] stops and waits for that. No caller waits for ever: it gets what
// its function came to, or ErrStopped.
//
// # Waiting
//
// Call, StartTask, Wrap, the close functions of Wrap, Wait, Close, Acquire and release
// may be called from anywhere. A goroutine blocks, a thread serves, a task of a thread
// loop parks, also one of the portal's own loop. A function posted to a loop with one
// thread would block that loop, and gets [loop.ErrOnLoop]. StartSoon and Stop do not
// wait, and may be called there too.
//
// # Where it comes from
//
// Portal is anyio's BlockingPortal, Start its start_blocking_portal, Provider its
// BlockingPortalProvider, Wrap its wrap_async_context_manager. The way to stop is
// that of EasyNetwork's ThreadsPortal. To anyio's from_thread.run with a token, and
// without, correspond [loop.Call] with a loop, and with nil.
package portal
