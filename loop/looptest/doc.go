// Package looptest tests loops: [TestLoop] tests a [loop.Loop], [TestBackend] a
// [loop.Backend]. It is for authors of either, also of a foreign loop behind
// [loop.FromPost].
//
// The subtests have the names of the clauses that they test:
//
//	C1  Post never blocks, may be called from anywhere, the loop's own functions
//	    included, and keeps the order of each caller.
//	C2  An accepted function runs once, or Done is closed. A function that was
//	    not accepted does not run.
//	C3  After Done, Post and Spawn return loop.ErrStopped.
//	C4  The wake function of Park may be called at any time, before the task is
//	    suspended and after it has gone on, any number of times, from anywhere.
//	    No wake is lost, and none counts twice.
//	C5  Park returns nil when it was woken, and the cause of its ctx when that
//	    has ended. A task whose ctx has ended before it began does not begin.
//	C6  A panic or a Goexit of a task or a posted function reaches its waiter,
//	    or else the hooks. The loop goes on.
//	C7  If one task or function runs at a time, they all run on the same OS
//	    thread, in the order in which they became ready. Neither tasks nor posted
//	    functions can starve the others.
//
// TestLoop tests the first three.
//
// Everything that can hang has a limit. When it expires, the test fails with
// the stacks of all goroutines.
package looptest
