// Package portal lets any code call into a loop from outside, with an orderly
// end. A [Portal] accepts functions from goroutines, threads and other loops,
// runs them as tasks, tracks which of them run, and stops without leaving a
// caller behind.
//
//   - [Start] starts a new loop with a portal, for sync code that needs one.
//   - [Open] opens a portal on the loop of the calling task, so that others can
//     run functions there.
//   - A [Provider] lets many users share one portal that lives while they use
//     it.
//
// [Call] runs a function and waits for it. [StartSoon] does not wait.
// [StartTask] waits until the function says that it is ready. [Wrap] makes an
// asynchronous resource, opened and closed in one task, usable from sync code.
//
// # Stopping
//
// [Portal.Stop] refuses later calls with [loop.ErrStopped]. What was accepted
// before runs, even if it has not begun; Stop(true) cancels it instead. When
// the last of it has ended, the portal ends, and so does the loop if Start has
// made it. [Portal.Close] stops the portal and waits for that end. No caller
// waits for ever: it gets the outcome of its function, or ErrStopped.
//
// # Waiting
//
// Call, StartTask, Wrap, the close functions of Wrap, Wait, Close, Acquire and
// release may be called from anywhere. A goroutine blocks, a thread serves, and
// a task of a thread loop parks, also a task of the portal's own loop. A
// function posted to a loop of [loop.NewThread] or [loop.FromPost] would block
// that loop; there they return [loop.ErrOnLoop]. StartSoon and Stop do not
// wait, and may be called there too.
//
// # Where it comes from
//
// Portal is anyio's BlockingPortal, Start its start_blocking_portal, Provider
// its BlockingPortalProvider, and Wrap its wrap_async_context_manager. The way
// to stop is that of EasyNetwork's ThreadsPortal. anyio's from_thread.run with
// a token corresponds to [loop.Call] with a loop, and without a token to
// loop.Call with nil.
package portal
