// Package task has tasks that can be waited for from a thread without blocking
// it for others, and the primitives that go with them.
//
// A [Task] is a function with an outcome: a result, an error, a panic or a
// Goexit, all of which reach whoever waits. It runs on a goroutine, or on the
// loop that its ctx is on (see package loop). Waiting through this package tells
// the runtime who waits for whom. Sync code that blocks in [Task.Wait],
// [Group.Wait] or [Limiter.Acquire] keeps its thread serving the calls that
// the wait may depend on; a plain channel receive would not.
//
// Tasks form a tree through their ctx. They may outlive the function that
// started them; a [Group] is for those that should not.
package task
