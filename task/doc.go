// Package task has tasks that sync code can wait for without blocking its
// thread for others, and the primitives that go with them.
//
// A [Task] is a function with an outcome: a result, an error, a panic or a
// Goexit. Every waiter gets that outcome. A task runs on a goroutine, or on the
// loop of its ctx (see package loop). Tasks form a tree through their ctx. They
// may outlive the function that started them. A [Group] is for tasks that
// should not, and [Gather] for a few functions at once. [Start] waits until a
// task is ready.
//
// A [Scope] is a section of code that can be cancelled by itself. [MoveOn] and
// [Timeout] are scopes with a deadline. [Mutex], [Cond], [Event] and [Limiter]
// coordinate tasks. [Sleep], [Yield], [Recv] and [Await] are everyday waits.
//
// # One rule for every wait
//
// How a function of this package waits depends on its caller:
//
//   - An ordinary goroutine blocks.
//   - A thread (in a function called with asyncsync.ToThread, for example)
//     serves: it runs the calls that the wait may depend on. In a plain channel
//     receive it would not.
//   - A task of a thread loop (loop.NewThread) is parked, and the loop runs
//     other tasks.
//
// What a thread serves depends on the wait. [Task.Wait], [Group.Wait],
// [Gather], [Start], [Limiter.Acquire] and [Mutex.Lock] wait for somebody in
// particular: the thread runs the calls of that task or holder. If the task or
// holder certainly waits for the caller in turn, the wait is refused as a
// deadlock. (Start is not: other code than its task may call started.) The other
// waits are for nobody in particular: there the thread runs the calls of code
// that the waiting function has started.
//
// When its ctx ends, a wait ends too and returns the cause, and it has then
// done nothing. Where a function differs, its documentation says so. A nil ctx,
// function or option panics, everywhere in this package. So do the methods of a
// zero Task, Cond, Limiter or Scope; the zero Mutex, Event and Group are ready
// to use.
//
// The page docs/tasks.md lists the names that these things have in asyncio,
// anyio and EasyNetwork.
package task
