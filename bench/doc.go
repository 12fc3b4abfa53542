// Package bench has the benchmarks of this module, and the baselines that
// their figures are compared with in the same run.
//
// Machines differ and are noisy, so a figure says little by itself: compare it
// with that of the baseline beside it, and repeat it. Figures of calls whose
// caller sleeps are best taken on one core (taskset -c 0), where the kernel
// cannot choose between waking a thread here or there:
//
//	go test -run '^$' -bench . -benchmem -count 5 ./bench
//	GOMAXPROCS=1 taskset -c 0 go test -run '^$' -bench 'Hop|Nested' -count 5 ./bench
//
// # Names
//
// Every part of a name after the first is key=value, so that benchstat can
// compare by them:
//
//	Inline      a call from the thread to itself: call
//	Hop         a call to a thread: mode, engine, load, detector
//	Paced       calls with a gap between them: gap, spin; percentiles
//	Callers     many goroutines that call one thread: n
//	Pipelined   calls made as tasks before the first is waited for: ahead
//	HandlePool  values on threads that many goroutines use: engine, n
//	Nested      levels of nesting: engine, depth, detector
//	Deep        levels that have something with them: with, depth
//	Ending      how all levels end: ending, depth
//	Stranger    a call that nobody below waits for: depth
//	Cancel      calls that are taken out of the queue: queued
//	Context     contexts made, used and closed: calls
//	HopLocals   a call, with local variables set: vars
//	Local       one variable of which many goroutines hold a value: op, goroutines
//	Task        a task, started and waited for
//	Mutex       locking one that nobody else wants: engine, caller
//	MutexWaited locking one that all want: engine, n
//	Event       one that has happened, or that nobody waits for: op, caller
//	Limiter     a token that nobody else wants: caller
//	LoopSwitch  from one task of a thread loop to another: engine
//	LoopTask    a task that one on the same loop starts and waits for: engine
//	LoopHop     a call to a loop that sleeps: engine
//	LoopCallers goroutines that call one loop: engine, n
//	LoopThread  a call to a thread that sleeps: caller
//	LoopParked  tasks that wait: tasks, of; the memory of one
//
// Of Mutex and MutexWaited engine=sync is a sync.Mutex. Of the callers of locks loop is
// a task of a thread loop, and task one with a goroutine.
//
// Of the benchmarks of loops, engine=pull is a bare coroutine of iter.Pull,
// engine=asyncsync a call to a thread, engine=portal one of portal.Call, and engine=soon
// one of StartSoon and Wait; goroutines-left counts those that a loop has left. What a stack takes in LoopParked is chosen by
// the Go runtime, by the average of all goroutines; with
// GODEBUG=adaptivestackstart=0 it is what a task needs.
//
// Of HandlePool, engine=channel is a channel of handles.
//
// Of Hop, mode=cold is a call whose two sides sleep, mode=hot one whose sides
// look out for each other whether that pays or not, and mode=learned one as
// every program has it. engine=channel is what one would write by hand, a
// locked goroutine behind a channel. load=goroutines has a goroutine of this
// process, and load=processes another process, busy on each processor.
//
// # GOMAXPROCS
//
//	go test -run '^$' -bench 'Hop|Nested' -cpu 4,1,2,4 ./bench
//
// runs them with one processor, with two and with four; more of them than the
// machine has are worth a look, for that is what containers with a quota do.
//
// The last entry stands at the front for a reason: package testing makes the
// first run of a benchmark before it sets GOMAXPROCS to the first entry, while
// it is still what the benchmark before has left, which is the last. That run
// is a probe of one iteration, and harmless, unless it is all there is: where a
// single iteration takes longer than -benchtime (a descent of 4096 levels may)
// and where b.Loop is used, which does not probe. With -cpu 1,2 the rows for
// one processor would be measured with two. As it is, the first row of each is
// measured with the number that its name has, and the others are right anyway.
package bench
