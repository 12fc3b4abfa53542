package deadlock

// The pages of the documentation that errors, verdicts and the failures of strict tests
// name, in [Error.Page] and [Verdict.Page]. What go doc says of one is the page in short;
// the folder docs/deadlock of the module has it with code.

// PageSelfWait is about a task that waits for itself.
//
// Task.Wait is refused: the task that waits, or a function on a thread that it has called
// and that waits for it, is the one that is waited for. A task ends when its function
// returns, and the function does not return before its wait has ended.
//
// Let somebody else wait: the one who started the tasks. A function that is to wait for
// all tasks must not be one of them. An Interrupt function that calls the thread of the
// function which it interrupts waits for itself in the same way: it may only do what is
// allowed from any thread. To end a task before its time cancel it, or return.
//
// The page with code is docs/deadlock/self-wait.md.
const PageSelfWait = "self-wait"

// PageCycleOfTasks is about tasks that wait for each other.
//
// Task.Wait is refused to the last of them, whose wait would close the circle. Each of the
// tasks ends only after the next one has; the others go on when the last has ended.
//
// Have the wait go one way only: start the tasks in a third one, which waits for all of
// them and hands results on, or hand on a value through a channel before the end.
//
// The page with code is docs/deadlock/cycle-of-tasks.md.
const PageCycleOfTasks = "cycle-of-tasks"

// PageGroupMember is about a task that waits for its own group.
//
// Group.Wait is refused to a member of the group, or to what a member waits for; or a
// Group.Go waits for a place in a full group while its members wait for it. A group ends
// when all its tasks have, and this one has not while it waits.
//
// Wait for the group, and start what goes beyond its limit, outside of it. To wait for
// some of the tasks put these into a group of their own.
//
// The page with code is docs/deadlock/group-member.md.
const PageGroupMember = "group-member"

// PageShutdownInside is about a Shutdown or Close that waits for its own caller.
//
// A Shutdown, of a context, a handle or a pool, is refused to a function on the thread
// that is to be given back, and to what such a function waits for. It would wait for that
// function to end. The context closes all the same, when the function has ended.
//
// The Close of a portal is refused in the same way if a function of the portal waits for
// the caller.
//
// Call Close there, which does not wait, or have it done from outside. A goroutine of a
// plain go statement is not known to be below anything, and just waits: start tasks.
//
// The page with code is docs/deadlock/shutdown-inside.md.
const PageShutdownInside = "shutdown-inside"

// PageServeAll is about a function that is served on top of another, and waits for that one.
//
// With the policy All a blocked thread runs every call, on top of the function that is
// blocked. Both are on one stack: the lower function cannot go on before the upper one has
// ended, and the upper one waits, through some steps, for the lower.
//
// Use the policy Related, which runs only what the wait depends on, or have the upper
// function start a task for what it waits for, and return.
//
// The page with code is docs/deadlock/serve-all.md.
const PageServeAll = "serve-all"

// PageRawWait is about a wait that the library cannot see.
//
// A function on a thread, or what it waits for, was found parked twice in one place: on a
// channel, a mutex, a WaitGroup, in a read. What would end that needs the thread, by a
// call that is queued there, or a Close. Only waits of this module serve such calls.
//
// Wait through the module: task.Recv, task.Send, task.Mutex, task.Go and Task.Wait, or
// task.Await for what is none of these. Or do the waiting before the call to the thread, or
// after it.
//
// The page with code is docs/deadlock/raw-wait.md.
const PageRawWait = "raw-wait"

// PageBlockedLoop is about a task that blocks its loop.
//
// A task of a thread loop, or a function that was posted to it, was found parked twice in
// one place, while others are ready to run there. All tasks of such a loop are on one
// thread, and only waits of this module let the others run; a posted function blocks the
// loop with any wait.
//
// Wait through the module, or in a function that task.Await runs on a goroutine. Start a
// task for what is to wait, instead of posting it.
//
// The page with code is docs/deadlock/blocked-loop.md.
const PageBlockedLoop = "blocked-loop"

// PageSlow is about a call that waits long.
//
// The first call in a thread's queue has waited for longer than Config.Slow. Something else
// runs on the thread; the report says what, and its stack where it is: it computes, is
// blocked in a wait that does not depend on the call, or waits where the library cannot
// see it. It may be no deadlock at all.
//
// Make the function shorter, give the caller a thread of its own, or move the wait out of
// the function. LongRunning says that a function is meant to take long.
//
// The page with code is docs/deadlock/slow.md.
const PageSlow = "slow"

// PageCallToBlockedThread is about a call to a thread that is blocked by a wait for it.
//
// A blocked thread runs the calls that its wait depends on, and no strangers'. Who makes a
// call is said by its ctx, and this one is a stranger's, though the thread waits for it.
//
// Almost always the call was made with a ctx from outside, or with context.Background or a
// detached one. Pass the ctx that the function was given, or start a task with it. The
// analyzer outerctx of asyncsync.dev/vet finds most of these.
//
// The page with code is docs/deadlock/call-to-blocked-thread.md.
const PageCallToBlockedThread = "call-to-blocked-thread"

// PageServeNone is about a thread that serves nobody.
//
// With the policy None a blocked function is not re-entered by anybody, also not by what it
// waits for. So what it waits for must not need the thread, and here it does.
//
// Make the call before the wait, or after it, or on the thread itself, where it runs
// inline; or use the policy Related.
//
// The page with code is docs/deadlock/serve-none.md.
const PageServeNone = "serve-none"

// PageFullPool is about a pool that is full of those who wait.
//
// Every thread of the pool is blocked until a call into a context that has no thread yet
// has ended; or contexts have done their work and were not closed, so that their threads
// are open and idle.
//
// Close contexts, make the pool larger, or do not turn MaxOverflow off, by which such a
// call gets a thread beyond MaxThreads. The analyzer lostclose of asyncsync.dev/vet finds
// contexts that are not closed.
//
// The page with code is docs/deadlock/full-pool.md.
const PageFullPool = "full-pool"

// PageLimiter is about a token that cannot be given back.
//
// All tokens of a limiter are held by those who wait for one, or by what waits for them.
//
// Do not take a second token below a function that holds one: calls with WithLimiter lend
// theirs to what they wait for. Take tokens with WithLimiter instead of Acquire, so that
// the library knows who has them, and in the same order everywhere.
//
// The page with code is docs/deadlock/limiter.md.
const PageLimiter = "limiter"

// PageMutex is about a mutex that cannot be unlocked.
//
// Lock is refused: the task, call or function that holds the mutex waits for this Lock. It
// locks it once more, waits for a task that locks it, or two lock two mutexes, each in
// another order. On a thread it may be a function further down on the same stack.
//
// Unlock before waiting, hand the work to a function that expects the mutex to be held, and
// lock several always in one order.
//
// The page with code is docs/deadlock/mutex.md.
const PageMutex = "mutex"

// PageStrict is about strict tests.
//
// Strict has a test fail where the program could hang, instead of hanging, and where it
// leaves a context open. In such a test waits are refused that hang on some days only:
// threads serve nobody for waits that are not known, and All is Related.
//
// Close what the failure names, or look at the page of the deadlock that it names.
//
// The page with code is docs/deadlock/strict.md.
const PageStrict = "strict"
