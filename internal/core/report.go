package core

import "time"

// A Graph is who runs where, and who waits for whom. Each thread in it is
// consistent in itself; between them time has passed.
type Graph struct {
	Threads    []ThreadState    // by ID
	Goroutines []GoroutineState // that the waits of threads lead to, or that wait for the end of one, or hold a token or wait for one, by Goroutine
	Limiters   []ResourceState  // that somebody waits for
	Pools      []PoolState      // of Threads, by Number
	Loops      []LoopState      // thread loops that run, by ID
}

// A PoolState is the pool of some threads of a graph.
type PoolState struct {
	Number      int // as in ThreadState.Pool
	Default     bool
	MaxThreads  int
	MaxOverflow int
	PoolStats
}

// A ThreadState is what one thread did at one moment.
type ThreadState struct {
	ID        uint64 // of this lease: never used again in the process
	Name      string // of its context
	Made      Site   // where the context, or the executor, was made
	Pool      int    // equal for the threads of one pool, in one graph; 0 for those of none
	Policy    Policy
	OSThread  int64
	Goroutine int64
	Adopted   bool
	Executor  bool // it is of a goroutine that has made an executor, adopted now or not
	Unpinned  bool
	Lined     bool        // it has no goroutine yet: it waits in line for one of its pool
	Exiting   bool        // it runs exit functions
	Stack     []CallState // what runs, from the top; the bottom of an adopted one has no name
	Cut       int         // how many of Stack are left out, below the first 48; the last 16 are there
	Queue     []CallState // what waits, in the order it came, the first of it; and the one that Below is about
	Queued    int         // how many wait
	Calls     uint64      // that have ended

	// Below says that one of the queue, which is not served now, was submitted
	// from below a function of the stack, which therefore may be waiting for it,
	// and BelowAt which is the first such one. Of those from below the function
	// on top there is none if it is from below another.
	Below   bool
	BelowAt int
	// Long says that what runs is meant to take long, or waits for what is.
	Long bool
}

// A CallState is one call, queued or running.
type CallState struct {
	Seq      uint64 // its number on its thread, 0 for what is no call
	Name     string
	Caller   int64         // the goroutine that waits for it, 0 if there is none
	Waited   time.Duration // how long that has slept for it, -1 if it does not
	Long     bool
	Stranger bool       // queued: nothing that blocks the thread waits for it
	Served   bool       // queued: the thread is about to run it
	Detached bool       // it was made with a detached ctx, and is nobody's
	Context  string     // the name of its context, if that is not the thread's
	Wait     *WaitState // running: the wait of this module that its function is in
}

// A ResourceState is who holds a resource, and who waits for it.
type ResourceState struct {
	Total, Used int
	Waiting     []ResourceParty // in the order of their turns, the first of them
	Waiters     int             // how many there are
	Holding     []ResourceParty // by Goroutine, the first of them
	Holders     int
}

// A ResourceParty holds tokens of a resource, or waits for them.
type ResourceParty struct {
	Goroutine int64  // of a holder: the one that took them
	Name      string // of the task or call, "" if it has none that is known
	Thread    uint64 // the ID of the thread that it runs on, 0 off the threads
	Tokens    int
	Age       time.Duration // of a wait
	Keeps     bool          // of a holder: it gives them back itself, before it ends
	Lent      bool          // it has lent them; or waits to have them back
}

// A GoroutineState is a function of this module, not on a thread, that is in a
// wait of this module.
type GoroutineState struct {
	Goroutine int64
	Function  int // its number in the graph: one goroutine may run several, each on top of the other's wait
	Name      string
	Wait      WaitState
	Below     bool // it waits for the end of a context from below a function that runs there
}

// A LoopState is what one thread loop did at one moment.
type LoopState struct {
	ID        uint64 // never used again in the process
	Name      string
	OSThread  int64
	Goroutine int64 // that has called Run

	// Running is what runs, nil if nothing does. Turn is another one for each time
	// that something gets to run.
	Running *LoopTask
	Turn    [2]uint64
	Ready   int        // tasks and functions that have to wait until Running lets them run
	Waiting []LoopTask // tasks that wait for something, the first of them
	Tasks   int        // that have begun and not ended
}

// A LoopTask is one task of a loop.
type LoopTask struct {
	Goroutine int64
	Name      string
	Wait      *WaitState // nil for a wait that this module does not know; of what runs, one that blocks the loop
}

// A WaitState is one wait of this module.
type WaitState struct {
	Kind      string        // call, async, run, task, group, group place, limiter, mutex, close, executor, pool close, portal close; or what its function is called
	For       string        // the name of what is waited for, "" if it has none
	Thread    uint64        // of a call: the ID of the thread that it was sent to
	Seq       uint64        // and its number there
	Goroutine int64         // that runs what is waited for, 0 if that is not known
	Age       time.Duration // how long the wait has slept, -1 if it does not

	Function   int      // the Function of the GoroutineState of what is waited for, if that is in a wait; 0 if it is not known
	Goroutines []int64  // of a group: those that run the members, the first of them
	Functions  []int    // and the Function of each
	Limiter    int      // the place in Limiters, from 1; 0 if it is not there
	Threads    []uint64 // of a pool close: the IDs of the threads that are lent, the first of them
}

// PoolStats is the state of a pool at one moment.
type PoolStats struct {
	Threads  int    // alive now
	Overflow int    // of these, beyond MaxThreads
	Idle     int    // lent to nobody
	Waiting  int    // contexts in line
	Peak     int    // most alive at one time
	Started  uint64 // ever
}
