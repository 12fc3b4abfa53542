package deadlock

// Errors, verdicts and the failures of strict tests name a page of the documentation,
// in [Error.Page] and [Verdict.Page]. The comment of each constant is a short form of
// its page. The folder docs/deadlock of the module has the pages with code.

// PageSelfWait is about a task that waits for itself.
//
// Task.Wait is refused: a task waits for itself, or a function on a thread waits for
// the task that has called it. A task ends when its function returns, and the function
// does not return before that wait has ended.
//
// Wait in other code: in the code that started the tasks. A function that waits for all
// tasks must not be one of them. An Interrupt function that calls the thread of the
// function that it interrupts waits for itself in the same way: it may only do what is
// allowed from any thread. To end a task early, cancel it or return.
//
// The page with code is docs/deadlock/self-wait.md.
const PageSelfWait = "self-wait"

// PageCycleOfTasks is about tasks that wait for each other.
//
// Each of the tasks ends only after the next one has. The last one to wait would close
// the cycle, so its Task.Wait is refused. The others go on when that task has ended.
//
// Let tasks wait in one direction only. Start them in a third task that waits for all
// of them and passes results on, or pass a value through a channel before a task ends.
//
// The page with code is docs/deadlock/cycle-of-tasks.md.
const PageCycleOfTasks = "cycle-of-tasks"

// PageGroupMember is about a task that waits for its own group.
//
// Group.Wait is refused to a task of the group, and to code that such a task waits for.
// Group.Go is refused if the group is full and all its tasks wait for that Go. A group
// ends when all its tasks have ended, and a task that waits has not.
//
// Wait for the group outside of it, and call Go outside of it if the group may be full.
// To wait for some of the tasks, put these into a group of their own.
//
// The page with code is docs/deadlock/group-member.md.
const PageGroupMember = "group-member"

// PageShutdownInside is about a Shutdown or Close that waits for its own caller.
//
// A Shutdown of a context, a handle or a pool is refused to a function on its thread,
// and to code that such a function waits for, because it would wait for that function
// to end. The context still closes when the function has ended.
//
// The Close of a portal is refused in the same way if a function of the portal waits for
// the caller.
//
// Call Close there, which does not wait, or close from outside. The library does not
// know that a goroutine of a plain go statement is below a function, so Close waits
// there: start a task instead.
//
// The page with code is docs/deadlock/shutdown-inside.md.
const PageShutdownInside = "shutdown-inside"

// PageServeAll is about a function that is served on top of another, and waits for that one.
//
// With the policy All a blocked thread runs every call on top of the blocked function.
// Both are on one stack: the lower function cannot go on before the upper one has
// ended, and the upper one waits for the lower one, directly or through other waits.
//
// Use the policy Related, which runs only calls that the wait depends on. Or let the
// upper function start a task that waits in its place, and return.
//
// The page with code is docs/deadlock/serve-all.md.
const PageServeAll = "serve-all"

// PageRawWait is about a wait that the library cannot see.
//
// A function on a thread, or code that it waits for, was found parked twice in one
// place: on a channel, a mutex, a WaitGroup, in a read. The code that would end this
// wait probably needs the thread: it has queued a call there, or waits in Close. A
// thread serves such calls only in waits of this module.
//
// Wait through the module: task.Recv, task.Send, task.Mutex, task.Go and Task.Wait, or
// task.Await for what is none of these. Or wait before or after the call to the thread.
//
// The page with code is docs/deadlock/raw-wait.md.
const PageRawWait = "raw-wait"

// PageBlockedLoop is about a task that blocks its loop.
//
// A task of a thread loop, or a function that was posted to it, was found parked twice
// in one place, while other tasks or functions are ready to run there. All tasks of
// such a loop are on one thread, and only waits of this module let the others run; a
// posted function blocks the loop with any wait.
//
// Wait through the module, or in a function that task.Await runs on a goroutine.
// Instead of posting a function that waits, start a task.
//
// The page with code is docs/deadlock/blocked-loop.md.
const PageBlockedLoop = "blocked-loop"

// PageSlow is about a call that waits long.
//
// The first call in a thread's queue has waited for longer than Config.Slow. Another
// function runs on the thread. The report names it, and its stack shows where it is: it
// computes, is blocked in a wait that does not depend on the call, or waits where the
// library cannot see it. Or the thread is that of a CurrentThreadExecutor whose owner is
// not in RunUntil or RunPending, so that nobody runs its queue. It need not be a
// deadlock.
//
// Make the function shorter, give the caller a thread of its own, or move the wait out of
// the function. The owner of an executor waits for a task with RunUntil(t.Done()). In a
// function of a context that has the thread it calls t.Wait, because RunUntil does not
// join the task. LongRunning says that a function is meant to take long.
//
// The page with code is docs/deadlock/slow.md.
const PageSlow = "slow"

// PageCallToBlockedThread is about a call to a thread that is blocked by a wait for it.
//
// A blocked thread runs the calls that its wait depends on, and no others. The ctx of a
// call says who makes it. The ctx of this call says that it is a stranger's, although
// the thread waits for it.
//
// Almost always the call was made with a ctx from outside the function, with a detached
// ctx, or on a plain goroutine with context.Background. Pass the ctx that the function
// was given, or start a task with it. The analyzer outerctx of asyncsync.dev/vet finds
// most of these.
//
// If every ctx is the nearest one, functions on several threads call each other in a
// ring: one on the thread of a calls b while one on the thread of b calls a. Call
// threads in one order everywhere, or return from the first thread before you call the
// second.
//
// The page with code is docs/deadlock/call-to-blocked-thread.md.
const PageCallToBlockedThread = "call-to-blocked-thread"

// PageServeNone is about a thread that serves nobody.
//
// With the policy None a blocked thread runs no call, not even those of the code that
// it waits for. So that code must not need the thread, and here it does.
//
// Make the call before the wait, or after it, or on the thread itself, where it runs
// inline; or use the policy Related.
//
// The page with code is docs/deadlock/serve-none.md.
const PageServeNone = "serve-none"

// PageFullPool is about a pool that is full of those who wait.
//
// Every thread of the pool is blocked until a call into a context without a thread has
// ended. Or contexts were not closed after their work, so that they keep threads that
// are idle.
//
// Close contexts, or make the pool larger. Or do not turn MaxOverflow off, which gives
// such a call a thread beyond MaxThreads. The analyzer lostclose of asyncsync.dev/vet
// finds contexts that are not closed.
//
// The page with code is docs/deadlock/full-pool.md.
const PageFullPool = "full-pool"

// PageLimiter is about a token that cannot be given back.
//
// All tokens of a limiter are held by functions that wait for one, or that wait for
// code that does.
//
// Do not take a second token below a function that holds one. Take tokens with
// WithLimiter instead of Acquire: then the library knows which functions hold them, and
// lends the token of a function to the code that it waits for. Take tokens of several
// limiters in the same order everywhere.
//
// The page with code is docs/deadlock/limiter.md.
const PageLimiter = "limiter"

// PageMutex is about a mutex that cannot be unlocked.
//
// Lock is refused, because the task, call or function that holds the mutex waits for
// this Lock. It may lock the mutex once more, or wait for a task that locks it. Or two
// tasks lock two mutexes in different orders. On a thread the holder may be a function
// further down on the same stack.
//
// Unlock before you wait, or call a function that expects the mutex to be held. Always
// lock several mutexes in the same order.
//
// The page with code is docs/deadlock/mutex.md.
const PageMutex = "mutex"

// PageStrict is about strict tests.
//
// Strict makes a test fail, instead of hang, where the program could hang, and where it
// leaves a context open. In such a test threads serve as little as possible, so that a
// wait that usually ends only by luck fails: a wait for something unknown serves no
// call, and the policy All counts as Related.
//
// Close the contexts that the failure names, or read the page that it names.
//
// The page with code is docs/deadlock/strict.md.
const PageStrict = "strict"
