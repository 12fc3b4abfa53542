// Package task has tasks that can be waited for from a thread without blocking
// it for others, and the primitives that go with them.
//
// A [Task] is a function with an outcome: a result, an error, a panic or a Goexit,
// all of which reach whoever waits. It runs on a goroutine, or on the loop that its
// ctx is on (see package loop). Tasks form a tree through their ctx. They may outlive
// the function that started them; a [Group] is for those that should not, and
// [Gather] for a few functions at once. [Start] waits until a task is ready.
//
// A [Scope] is a stretch of code that can be cancelled by itself; [MoveOn] and
// [Timeout] are scopes with a deadline. [Mutex], [Cond], [Event] and [Limiter] keep
// tasks apart and bring them together. [Sleep], [Yield], [Recv] and [Await] are the
// waits of everyday code.
//
// # One rule for every wait
//
// Where a function of this package waits, how it does so depends on who calls it:
//
//   - An ordinary goroutine blocks.
//   - A thread (a function called with asyncsync.ToThread, say) serves: it runs the
//     calls that the wait may depend on. A plain channel receive would not.
//   - A task of a thread loop (loop.NewThread) is parked, and the loop runs others.
//
// What a thread serves depends on what is known. [Task.Wait], [Group.Wait],
// [Gather], [Start], [Limiter.Acquire] and [Mutex.Lock] wait for somebody, whose
// calls are run, and if he waits for the caller in turn the wait is refused as a
// deadlock where that is certain. The others wait for nobody in particular; for them
// the calls of what the waiting function has started are run.
//
// All of them end with their ctx, return its cause, and then have done nothing.
//
// The names that these things have in asyncio, anyio and EasyNetwork are on the
// page docs/tasks.md.
package task
