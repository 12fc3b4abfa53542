package core

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"asyncsync.dev/internal/cycle"
	"asyncsync.dev/internal/ending"
	"asyncsync.dev/internal/expiry"
	"asyncsync.dev/internal/goroutine"
	"asyncsync.dev/internal/sched"
	"asyncsync.dev/internal/spin"
)

// This file has the types that several files work on: what the mutex of a thread guards,
// and what hangs from it. A type that one file works on is declared there. The comment above a struct, or a part of one, says which goroutine may
// touch it. The other files have the code that works on the data, each for one concern.

// A Thread runs calls one at a time. It is a queue, a stack of frames, and the
// goroutine that they belong to. It lives as long as one lease of that
// goroutine: for a context from its first call to its close, for an adopted
// caller during one AsyncToSync.
//
// A Thread refers to a Scope only through calls that are queued or run, so
// that a context that nothing else refers to can be collected.
type Thread struct {
	identity

	// taint asks the pool to destroy the OS thread when it is given back.
	taint atomic.Bool

	runner

	// A hop between two processors costs what it costs to send its cache lines to and
	// fro. So what both sides write at every call is in one line, which begins here. What
	// they write only when the thread sleeps is in the next, and what only the thread's
	// goroutine writes is apart from what callers read. TestCacheLines keeps it so. Go
	// puts 8 bytes of its own before an object of this size.

	// mu guards what follows up to closers, the tally, and the calls and frames of the
	// thread. The thread's own goroutine, which alone changes run, may read run without
	// it. Scope.mu and the leaf locks may be locked under it: see Locks in
	// docs/architecture.md. No callback runs under it. Only Scope.enter and
	// claim.stepBack wake anybody under it: they close a channel.
	mu sync.Mutex
	queue
	nesting

	tenure
	crowd   crowd
	posts   list      // posted to executors of the goroutine, for a RunUntil to come
	closers []*closer // who wait for the end of its contexts

	_ [48]byte

	// signal changes after each event that a spinning thread looks for.
	signal atomic.Uint32

	_ [60]byte

	spin spin.Spin // its comments say which goroutine may touch which field
	pace
	tally

	raised any           // a *Panic: see Ending.Raise; of the thread's goroutine only
	inline atomic.Uint64 // calls that ran inline; written by the thread's goroutine only

	_ [64]byte

	parking

	remains
	marks   []*Mark // of queued calls; guarded by mu
	lease   lease
	cleanup runtime.Cleanup // guarded by the mu of the scope that the thread was made for
}

// An identity is what a thread is from the start. It is fixed before the thread is
// shared.
type identity struct {
	name     string
	id       uint64  // orders the locks of threads: see relate
	made     uintptr // where its context was made, for reports; 0 if that is not known
	policy   Policy
	pool     *Pool  // of the config; nil for none. In another bubble the worker is private: see ask
	unpinned bool   // exclusive, but not bound to an OS thread
	adopted  bool   // the goroutine is its user's, not ours
	home     *Scope // of an adopted thread: the scope of code that runs there outside of any call
	own      *maker // of an adopted thread: its goroutine, if that has executors, or nil
}

// A runner is the goroutine that runs the calls of a thread.
type runner struct {
	// gid is that goroutine, 0 while there is none; tid its OS thread.
	gid, tid atomic.Int64

	first atomic.Bool // adopted, on the first OS thread of the process

	// Set when the goroutine is found, before anybody can see Thread.parked. hold,
	// putDown and pushLocked change them under the mu of the thread, when it does not
	// sleep. A holder also sets record without it: only its goroutine reads record then.
	wake   chan struct{} // 1-buffered
	record *goroutine.Record
}

// A queue has the calls that a thread has accepted and not begun. Calls that a wait
// serves are in the box of its frame instead, and calls posted to executors of the
// goroutine in posts. Guarded by the mu of the thread.
type queue struct {
	main    list // calls of strangers, and of everybody while no frame stands
	seq     uint64
	waiting int // calls in main, in posts and in all boxes
}

// A nesting is the stack of a thread: the calls that it runs and their waits, one on
// top of the other. Guarded by the mu of the thread.
type nesting struct {
	top *Frame // the frame that serves
	run *Call  // the call on top
}

// A tenure is how a thread gets its goroutine and loses it, and whether the goroutine
// sleeps. Guarded by the mu of the thread.
type tenure struct {
	worker *worker // nil before the pool has given one, and after the lease
	asked  bool    // a worker has been asked for
	held   bool    // a caller's goroutine is the thread: see hold
	ending bool    // no scope uses it any more: leave when there is nothing to do
	over   bool    // the lease is over; nothing is accepted

	// parked says that the goroutine sleeps. Whoever clears it sends one token to wake,
	// except unpark, nudge when it detaches the worker, and hold: see putDown.
	parked bool
}

// A pace is what the goroutine of a thread has learned about spinning. Only that
// goroutine touches it.
type pace struct {
	woke bool   // its last caller slept
	spun bool   // it has spun in vain since it last found something
	seen uint32 // what signal was when it last took a call
}

// A tally counts the calls that a thread has run. Guarded by the mu of the thread. Only
// the goroutine that is the thread changes it.
type tally struct {
	calls uint64 // that have ended, inline ones not counted
	batch int    // begun since the thread has slept
}

// A parking is the channels for callers to sleep on; never used beyond the lease.
type parking struct {
	parkMu  sync.Mutex // a leaf lock, apart from mu so as not to add to its load
	parkers []chan struct{}
	few     [2]chan struct{} // backs parkers
}

// Remains are what a thread has besides, and what a holder has left for the worker.
// Guarded by the mu of the thread.
type remains struct {
	listed     bool            // it is among the live ones, or was
	workerOnly bool            // it is not to be held any more
	critical   goroutine.Aside // what a holder has left for the worker
}

// A crowd is many callers of one thread that are ready to run on this processor.
// If the first one wakes the thread at once, the thread runs before the others,
// finds one call, and sleeps again. That costs two kernel switches for each call.
// If a crowd is likely, the first caller lets the others call before it wakes the
// thread, so that all share one wake. Guarded by the mu of the thread.
type crowd struct {
	likely bool // the last time it was awake it ran several
	spare  int  // wakes that are not to be put off, because that has taken long
}

// A Frame is a wait of the library made on a thread.
type Frame struct {
	// Set by push, and not changed later.
	thread *Thread
	level  int
	what   string // the kind of wait, for reports, where edge does not say it

	edge edge // the wait

	// Guarded by thread.mu. pop clears below and call.
	below *Frame
	call  *Call // what ran when the wait began
	box   list
	live  bool
	done  bool
	open  bool // it serves everybody, where nothing is in the way: see Thread.everybody
}

// A Call is one function on its way to a thread and back.
//
// It has only what a call in a queue needs, because a million tasks may be queued. The
// rest is in a callRest. A task on a thread gets it when its function begins, or
// earlier if something must be noted in it. All others have it from the start: see
// [FullCall] and [TaskRest].
//
// On two processors a hop costs what it costs to send its cache lines to and fro. So
// the fields are ordered by the goroutine that touches them. The first line has the
// fields that the thread writes at every call, and the pointers to other lines, which
// can then be fetched at the same time. The second line has wait, on which the caller
// may be spinning, and fields that the thread only reads. It also has the pointer to
// the rest, which the caller needs at once after the end of the call, without fetching
// the first line. In the rest, the fields that the thread touches come first.
type Call struct {
	// Guarded by the mu of thread: where it is queued, and the call below it on the
	// thread's stack while it runs.
	prev, next *Call
	list       *list // nil while it is not queued
	outer      *Call

	stage atomic.Uint32 // whether the function begins: see the states of a call
	task  bool          // it is one: see promise; set before it is shared
	asked bool          // of a task: Cancel has ended its ctx; guarded by the mu of the life
	noted bool          // ending is how the function ended, and hooks have been told; of the goroutine that runs it
	guest bool          // its body is a Guest; set before it is shared

	ctx   *Ctx   // what the function receives: see context; set as the rest is, and of a task on a thread by unfold
	node  *Node  // what it runs as; set before it is shared
	scope *Scope // whose accounts it is in; set before it is shared

	// thread is the thread whose lock guards the call, nil until it is queued.
	thread atomic.Pointer[Thread]
	seq    uint64 // its place in the order of the thread's calls; guarded by the mu of thread

	body      Body // set before it is shared
	*callRest      // of a task on a thread, set under the mu of thread; else before it is shared

	values goroutine.Values // the caller's at first, what the call left at last

	wait atomic.Uint32 // where the caller is: see the states of a call

	manner
	bound   bool // the caller runs no errands; set by the submitter, or by the thread after a Goexit
	inline  bool // runs where it was made
	counted bool // of a task: the Tasks of its scope count it; guarded by their mu

	submission
}

// A manner is how a call is to be made. The submitter sets it before the call is shared.
type manner struct {
	long    bool // it is meant to take long
	abandon bool // its caller may leave it when ctx ends
	loose   bool // made with a detached ctx
	try     bool // it is not to wait for others
}

// A callRest is the part of a call that is not needed while the call is queued. A call
// that is no task always has one.
type callRest struct {
	watched *watch
	stop    *interrupt
	frame   *Frame // the frame that waits for it, nil if a goroutine does

	// Set by the submitter before the call is shared.
	by    *Node       // who submitted it, of one that is no task: see submitter
	born  uint32      // the epoch of by
	heard atomic.Bool // of a task: somebody was told how it has ended; set later than the rest
	pin   *Frame      // the frame that must run it, nil for any

	// Written by the thread that runs the call before wait becomes callEnded,
	// read by the caller after; values, too.
	ending Ending

	label
	onEnd func()          // of a task: called at its end, before anybody is woken
	given context.Context // what the function receives, of an inline call with a ctx of others

	refusal error // why it was refused or taken back; guarded by the mu of thread, if it has one
	lender  *Call // of an errand: the call whose caller runs it
	errand  *Call // an async function for the caller's goroutine: see lend

	// How a caller that is no thread sleeps. These fields are written before wait
	// becomes callerParked.
	parker chan struct{}
	parked *sched.Task   // the caller, if it parks
	turn   atomic.Uint64 // its wait

	edge edge // of a caller off the threads: its wait
}

// A TaskBody is the body of a task. Task returns that task. Drop lets go of the function,
// which has ended or will not begin, because the task may be held for much longer. If a
// body has a method PC, for the entry of its function, PC is called before Drop.
type TaskBody interface {
	Body
	Task() *Task
	Drop()
}

// A FullCall is a call that has its rest from the start. The zero value is ready for one
// call, and after Reset for the next.
type FullCall struct {
	Call
	rest    callRest
	sleeper sleeper // of the caller; zero before and after the wait
}

// A sleeper is the state of one wait through this module. All waits go through
// [sleeper.wait], whatever they are for. So one file decides how to sleep, how to
// give up, and what happens if a Goexit passes through.
//
//	who waits                 how it sleeps
//	a thread                  it serves, in a frame of its own
//	a task of a thread loop   it parks, and the loop runs others
//	an ordinary goroutine     it blocks
//
// The last two run errands if they wait for a call. A new way to sleep off the threads
// is a new case of [sleeper.sleep].
//
// Only the goroutine that waits touches it. What others see of a wait is in edge.
type sleeper struct {
	// These change as the wait goes on. They come first: after the sleeper, records have fields
	// that the function uses, which runs meanwhile. See [Call] on cache lines.
	//
	// parked says that a goroutine has announced that it sleeps, and has not
	// been woken: a token may be under way, and must be taken.
	parked bool

	// blocked says that an ordinary goroutine has slept, neither a thread nor a task.
	blocked bool

	// finished says that the wait has ended, and not in a Goexit or a panic.
	finished bool

	// unstopped says that the wait goes on, though place has stopped.
	unstopped bool

	// Who waits: the thread own, in frame, or, if own is nil, the calling
	// goroutine, with the record rec, which may be nil. edge is the published
	// form of the wait, which searches and reports follow.
	own   *Thread
	frame *Frame
	rec   *goroutine.Record
	edge  *edge

	// What for: the end of call. If call is nil, the sign that wait is given.
	call *Call

	// Until when. cancel is Done of ctx, and may be nil. If place is not nil, and its
	// Stopped is closed before the function has begun, the wait ends with its Err.
	ctx    context.Context
	cancel <-chan struct{}
	place  *Elsewhere

	// undo, if not nil, takes back what a wait for a call has besides its edge: the timer
	// of a limit on the time that it may take, or a join.
	undo func()
}

// An Elsewhere is a place for functions that are not thread-sensitive.
type Elsewhere struct {
	// Post has run called, soon, on a goroutine of its choice; nil is a go
	// statement. An error means that run will not be called.
	Post func(run func()) error
	// Stopped, if not nil, is closed when functions that have not begun will
	// never begin.
	Stopped <-chan struct{}
	// Err is the error of calls whose functions had not begun when Stopped
	// was closed.
	Err error

	// kin makes a waiting thread also serve the calls of code that its
	// function has started.
	kin bool
	// Home, if not nil, is the loop that runs the function. Then the caller sets
	// none of the fields above, and toLoop sets Stopped and Err. Job is the record
	// that the function runs as, if the caller provides one.
	Home *Home
	Job  *Job
	// Ends says that the caller's ctx already ends when Home stops. Then the
	// function's ctx needs no layer for that.
	Ends bool

	// Member, if not nil, is the function's place in a region. The body is a Guest
	// then, and leaves the place at its end.
	Member *Member
}

// A label is how a call is called in reports: by its name, or else after the function
// with the entry pc.
type label struct {
	name string
	pc   uintptr
}

// A Body is the typed part of a call: the function, its argument and results.
type Body interface {
	Run(ctx context.Context)
}

// A Guest is the body of a call that has a place in a region. Over is called when the
// function has ended, before the caller is told, or when others than the caller have
// kept it from beginning. The caller may have left by then: a Goexit can cut its wait
// short. So what has to last as long as the function ends in Over. If the function has
// not begun when the caller leaves, the caller does what Over does: see
// [FullCall.LeaveBehind].
type Guest interface {
	Body
	Over()
}

// A submission is what the submitter has found out by submitting. Only its goroutine
// touches it.
type submission struct {
	woke  bool // submitting has woken the thread
	lined bool // the thread had no worker yet
	late  bool // something blocks the thread that may wait for the caller
	timed bool // it is behind others, in a scope that has calls wait for so long only
}

// list is a doubly linked list of queued calls, in order of seq.
type list struct {
	head, tail *Call
	len        int
}

// A Node is one entry of the call tree: a task, a call, a group or a region. Contexts
// carry it, and everything started with such a context is its child. A Lock and a
// Resource have a Node too, which their waiters join.
//
// A node is related to a frame when the frame waits for the node, for one of
// its ancestors, or for something that waits for one of these. Relation is
// looked up from the node upwards, so that submitting costs nothing for the
// number of frames, strangers or siblings: see [Thread.frameFor].
type Node struct {
	// When a child is added, parent skips nodes that have ended. So in a chain
	// of tasks that each start the next, ancestors do not stay in memory for
	// ever.
	parent atomic.Pointer[Node]

	// frame is the frame that waits for this node from birth. It is set before
	// the node is shared, and never changes.
	frame *Frame

	// life is that of the nearest task that n belongs to, n's own if n is a
	// task. Set before the node is shared.
	life *life

	// waits is what the goroutine that runs as this node waits for, nil while it
	// waits for nothing. Only that goroutine writes it. Code that reads more than
	// whether it is nil must hold cycles: see [edge].
	waits atomic.Pointer[edge]

	mu    sync.Mutex           // guards the list of joins; a leaf lock
	joins atomic.Pointer[Join] // the first; read without mu to see that there is none

	// born is the epoch that parent was in when this node was made. It is not
	// written in one step with parent, so for a moment it may belong to another
	// parent. That is good enough for reports, which alone read it.
	born atomic.Uint32

	// holder says that the function that runs as n has a value of a pool: see
	// Above.
	holder atomic.Bool

	// state counts, in its lower half, the functions that now run as this
	// node; zero means that the node has ended, or is a call's node that waits
	// to be used again. The upper half is the epoch: how many have begun. It
	// comes last because the thread writes it at every call, and callers read
	// the Ctx that lies before the node: see nodeCtx.
	state atomic.Uint64
}

// A Join says that somebody waits for a node: a node, a frame, or both. It is in
// the list of one node.
type Join struct {
	by    *Node
	frame *Frame

	prev, next *Join // guarded by the mu of that node
}

// A Mark tells whether, and after how long, a queued call has left the queue
// of its thread.
type Mark struct {
	thread *Thread
	from   int64        // since when the call is known to have been queued
	call   *Call        // guarded by thread.mu; nil when it has left
	after  atomic.Int64 // nanoseconds that it has taken, plus one; 0 while it has not left
}

// # Who waits for whom
//
// The waiter is a goroutine, never a ctx, because a ctx travels. A goroutine that is a
// thread is known by its [Thread], any other by the [Node] that it runs as. The node of a task,
// or of a function in [Away], belongs to that function alone. (Calls on threads share
// nodes. Such a call is known by its place on the thread's stack.) Nobody waits for a
// goroutine that is neither, so it is in no cycle.
//
// A wait is an [edge]. What it is for is a [target].
//
// # Publish, then look
//
// A wait that would close a cycle is refused: see [closes]. Every waiter first makes
// its own wait visible (it pushes a [Frame] or stores Node.waits, in either case
// before it queues a call). Then it looks for a cycle. If two waits close a cycle together,
// at least one sees the other. A wait need not look if the cycle still lacks a wait,
// and the goroutine that adds that wait will look:
//
//   - A call queued into a list that its thread serves now waits for nothing but
//     the function that runs there. To keep the call, that function would have to
//     wait. It would push a frame under the same mutex, and so after the queueing.
//   - A function in [Away] is new. It would have to begin to wait.
//   - If Node.waits is nil after we publish, that node begins to wait later and
//     will see our edge.
//
// Only rare waits look. A hop to a free thread, and a level of an ordinary
// nesting, do not look and share no lock.
//
// # What a verdict means
//
// Package cycle says when a search is certain. The facts that it compares are the
// frames, edges, holders and nodes that were found. Joins do not change meanwhile: the
// search holds relations. A call may leave its list. But a call that is not served can
// run only after the frames above its list have ended, and these are among the facts. If
// two waiters have found the same cycle, one of them locks cycles first, and takes its
// wait back before it unlocks.
//
// A certain verdict says that no wait in the cycle can end by itself. Code outside the
// cycle might still end one: it might end a ctx, give a limiter another token, or
// begin to wait for the submitter of a stranger's call, which makes the call related.
// A wait that relies on such help is refused all the same.
//
// # What is not seen
//
// A function that was posted to a foreign loop or executor is not seen before
// it has begun.
//
// Otherwise only a new wait closes a cycle, with four exceptions. When a frame ends, a
// join is dropped, or SetStrict is called, calls may move to a list that is not served:
// then [Mark.recheck] looks for a cycle. SetStrict may also leave calls in main that are
// no longer served. Nobody looks at these. When tokens come back and nobody is given any, the
// last holder that ran may have ended: then [Resource.returned] has the claims in line
// looked at again. And a token or a lock may come free while the thread that wants it
// runs something else on top of its wait: it is never given to such a thread. See
// claim.stepAside and Turn.stepAside.

// An edge is one wait. It is published in a Frame that stands, or in Node.waits,
// and does not change meanwhile.
type edge struct {
	// to is what is waited for; nil if that is not known.
	to target
	// since is when the waiter first slept for it, in nanoseconds; 0 if it has
	// not.
	since atomic.Int64
	// gid is the goroutine that waits. In the Call of an async function or a
	// task it is the one that runs it.
	gid atomic.Int64
}

// A closer is a wait of an ordinary goroutine for the end of a scope. The wait
// is ended when the scope's thread begins to wait for that goroutine in turn.
type closer struct {
	node *Node
	wait *goal
	free chan struct{}

	// Guarded by relations: the joins of the calls that the scope had accepted,
	// and gone, which says that the closer was let go. Such a closer no longer
	// waits for those calls. If it kept its joins, strangers would be related to
	// the thread that they are queued on.
	nodes []*Node
	joins []Join
	gone  bool
}

// Ctx is the one context type of this module. It carries what a call needs to
// know of its surroundings: the scope whose thread is nearest, the node of the
// call tree that the code belongs to, and the loop.
//
// The embedded context is always a foreign one: a new layer wraps the foreign
// context below the old layer, never the old layer itself. Embedding our own
// layers would make Done and Value recurse through every level of a nesting
// and turn its cost quadratic.
//
// All fields but child are fixed at birth.
type Ctx struct {
	context.Context
	done  <-chan struct{} // of the embedded context: see Done
	scope *Scope
	node  *Node
	home  *Home // the loop that the code runs on, or that of the task which has called it; nil if there is none

	// child is the context that calls from here into child.scope receive. One
	// object serves all of them, one after another and side by side: only its
	// submitter waits for such a call, so no code must tell its node from its
	// sibling's. If the caller of a call blocks a thread, a frame waits for the
	// call, and the call gets a node of its own.
	child atomic.Pointer[Ctx]
}

// nodeCtx is a Ctx and its node in one allocation.
type nodeCtx struct {
	Ctx
	own Node
}

// frameCtx is the context of a function that a thread waits for, its node, and
// the frame of that wait, in one allocation: the node refers to the frame anyway.
type frameCtx struct {
	nodeCtx
	wait Frame
}

// awayCtx is the context of a function that a goroutine waits for which is no thread,
// its node, and that wait, in one allocation. A ctx that outlives the call leads to the
// call through the wait. So the call lets go of what is the user's: see Call.Take.
type awayCtx struct {
	nodeCtx
	wait  edge
	alone lifeCtx // the layer below, if it ends with a loop alone
}

// A lifeCtx is a context without an end of its own that ends with a backend.
type lifeCtx struct {
	context.Context
	life context.Context
}

// taskCtx is the ctx of a task and its life in one allocation.
type taskCtx struct {
	Ctx
	fullLife
}

// loopCtx is taskCtx for a task on a loop, with its job.
type loopCtx struct {
	taskCtx
	job Job // which forgets the task at its end
}

// A Scope is a context in the sense of the public API: calls are addressed to
// it. The outermost scope gets a thread at the first call. Scopes nested in
// it share that thread and only have accounts of their own.
//
// A Scope is kept alive by its user, by contexts made from it and by calls
// under way, never by its thread. So a scope that is dropped without Close can
// be collected.
type Scope struct {
	ctx Ctx // the context that carries the scope, here to save an allocation

	root   *Scope                 // the outermost, itself if this is it
	up     *Scope                 // the next one out, nil if this is the outermost
	thread atomic.Pointer[Thread] // root only; set under mu
	stay   *stay                  // root only, where the thread is not its own, else nil; set before thread
	cfg    *Config                // never changed
	hooks  *[]*Hooks              // told of its calls, nil if there are none; never changed
	tasks  *Tasks                 // counts its tasks, nil if nobody does; never changed
	kind   scopeKind
	bubble int64 // of a bubbleScope: which

	marks atomic.Uint32

	pc uintptr // where the scope was made, for reports; 0 if that is not known

	// account is twice the number of calls accepted and not ended, plus one when
	// the scope is closed. It never grows from 1, because a closed and idle
	// scope stays so. So the step to 1 happens once.
	account atomic.Int64

	mu   sync.Mutex    // guards the rest; may be locked under Thread.mu, never the other way
	done chan struct{} // closed when the scope is over; made when somebody waits for that
}

// Marks of a scope, which are only ever set.
const (
	isOver  = 1 << iota // closed and idle, and there was no thread to give back
	leaves              // closed and idle: the end of the thread's lease is that of the scope
	awaited             // somebody waits for the end of the scope
)

type scopeKind uint8

const (
	contextScope scopeKind = iota
	defaultScope           // the process-wide thread; never closed
	bubbleScope            // the same inside a synctest bubble: its thread ends when it has nothing to do
	adoptedScope           // a caller's goroutine, for the length of one AsyncToSync
)

// Config is what a scope is made with.
type Config struct {
	Name     string
	Pool     *Pool // nil for DefaultPool
	Policy   Policy
	Unpinned bool
	Limit    int   // of queued calls, 0 for none
	Wait     int64 // how long a call may be queued, in nanoseconds, 0 for ever
	Spin     int64 // how long to look before sleeping, in nanoseconds, 0 for the default
	NoSpin   bool
	OnStart  []func()
	OnExit   []func()
	Fresh    bool      // a thread of its own, even inside another scope
	Hooks    []*Hooks  // of calls to the scope, and to those nested in it
	Tasks    *Tasks    // of one scope; nil if nobody counts them
	Own      *Executor // the thread is that of its goroutine; nil for one of the scope's own
	Keep     any       // is not collected before the scope
}

// Tasks counts the tasks that are started with the ctx of a scope, or of one
// nested in it, from their start until their function has ended. It serves code
// that closes a scope only when all tasks started in it have ended. Closing itself
// waits for calls alone, and refuses later calls of tasks.
type Tasks struct {
	up    *Tasks // of the scope around; set by Init
	group *Group // has the tasks as members, for the wait; set by Begin, or nil

	mu   sync.Mutex // a leaf lock; guards the rest
	n    int
	idle *Gate // opened when n comes to 0; made when somebody waits
}

// A lease is what a context has in its thread: functions to run there first and
// last, and the waiters for the end.
type lease struct {
	onStart []func()
	hooks   *[]*Hooks // of the context

	// Of the thread's goroutine only.
	started bool     // onStart have returned
	onExit  []func() // that have not run yet

	mu      sync.Mutex    // guards the rest; a leaf lock
	exiting string        // the exit function that runs
	over    bool          // the context needs the thread no more
	done    chan struct{} // closed then; nil while nobody waits. Scope.finish sets it without mu, before anybody reads it
	err     error         // of the exit functions
	hook    *Panic        // of a hook that was told of the failure of one, nil if none has panicked
}

// A stay is the lease of a context on a thread that is not its own, and that goes on
// after the context.
type stay struct {
	lease
	thread  *Thread
	exec    *Executor
	cleanup runtime.Cleanup // guarded by the mu of the scope
	ended   bool            // guarded by lease.mu: somebody has seen to the end
}

// A worker is a goroutine that runs one Thread after another. Pinned ones are
// locked to their OS thread from birth to death.
type worker struct {
	pool   *Pool // nil for a private one, which ends with its first lease
	pinned bool

	// wake carries at most one token. A worker that has set its thread's parked
	// sign gets the token from the goroutine that clears the sign. A worker
	// without a thread gets it from the pool, which gives it a thread or sends
	// it home.
	wake   chan struct{}
	thread atomic.Pointer[Thread]
	quit   atomic.Bool

	gid     int64
	tid     int64
	record  *goroutine.Record
	unwound int // Goexits that the stack carries: see run
	leases  int // that it has begun

	// What runs first and last on the OS thread, both may be nil. Fixed at
	// birth; started says that onStart has returned, and is of the worker's
	// goroutine only.
	onStart, onExit func()
	started         bool

	since int64 // pool.mu: when it became idle
}

// A Pool lends pinned workers. At most max exist at a time, but for those below; a thread
// that finds none free waits in line. The worker that became idle last is used first, so
// that the others can grow old and end.
//
// If a thread of the pool is blocked for a call, the call does not wait for a
// worker: one beyond max is started for it, up to maxOverflow. See
// [Call.overflow].
type Pool struct {
	max, maxOverflow, maxIdle int
	timeout                   time.Duration
	bubble                    int64 // where it was made: its workers belong there

	// OnStart and OnExit, if not nil, run on each OS thread before its first
	// call, and before it ends. MaxWaiting is how many threads may be in line, 0
	// for any number and -1 for none, and MaxWait how long, 0 for ever. They are set
	// before the pool is used.
	OnStart, OnExit func()
	MaxWaiting      int
	MaxWait         time.Duration

	lined atomic.Int32 // the length of waiting, for a look without the lock

	mu      sync.Mutex // guards the rest; lines alone is locked under it
	alive   int
	idle    []*worker // oldest first
	waiting []*Thread
	urgent  map[*Thread]struct{} // of waiting, those that may overflow
	closed  bool
	timer   *time.Timer
	due     int64 // when timer fires, 0 for not at all
	stall   stall
	ended   chan struct{} // closed when closed and none is alive
	err     error         // of OnExit, not told yet
	peak    int
	started uint64
}

// A stall watches a line that does not move. The threads of the pool may belong to
// contexts that were dropped without Close. These give their threads back when they
// are collected, which can take minutes in a program that allocates little. So the
// stall runs the garbage collector, less and less often. Guarded by the mu of the
// pool.
type stall struct {
	timer *time.Timer // set while somebody is in line
	delay time.Duration
	moved bool // since timer was set
}

// A Task is the untyped part of a task. Its life is a separate record, because contexts
// refer to the life and must not keep the task and its result alive.
type Task struct {
	call Call                 // whose node is that of the life
	gate atomic.Pointer[Gate] // opened when it has ended; made when somebody waits
	// label is nil while the task is called after its function, which body knows. It is
	// set at the end, under the mu of the life, before body drops the function.
	label atomic.Pointer[label]
	home  *Home               // of its ctx; set before it is shared
	watch *expiry.Link[*life] // while it is queued, nil if nothing but Cancel ends its ctx; guarded by the mu of the life
}

// A taskWait is a wait for a task, with a gate for the task if it has none yet.
type taskWait struct {
	goal
	gate Gate
}

// A TaskRest is the part of a task that is not needed while the task is
// queued.
type TaskRest struct {
	callRest
	gate  Gate
	label label
}

// A Member is the place of a task or call in a group. [Group.Add] and [Region.Add]
// give it one.
type Member struct {
	group         *Group
	listed        bool // this and the rest are guarded by the group's mu
	call          *Call
	before, after *Member
}

// A Group is the node above the tasks of a group, and their ctx. It counts as
// running while one of them runs.
type Group struct {
	nc nodeCtx

	mu      sync.Mutex // guards the rest; a leaf lock
	members *Member    // that run
}

// A life is the ctx of a task: a layer that Cancel ends. The layer is
// released when the function has ended, because otherwise every task would
// stay registered with a parent ctx that lives long.
//
// Tasks that the function leaves behind must not be cancelled by the release. So
// if a task is started with the ctx of its parent itself, its layer does not hang
// from the parent's layer but from the context above that. While the parent runs,
// it cancels such children itself. If the task is started with a ctx derived from
// the parent's, its layer must hang from the parent's layer. Then that layer
// stays until this child has ended too.
//
// Many tasks may wait in a queue. Fields that only the function needs are in a
// lifeRest. A task in a queue mostly has none: see openLate. Then there is no layer, and
// the task is registered with base only through one watcher that all queued tasks with
// the same base share.
type life struct {
	own  Node            // that the task runs as
	base context.Context // foreign, above the task
	up   *life           // held until the end: its layer is above ours

	mu     sync.Mutex // guards the rest; that of a life above nests under it
	held   int32      // children whose layer hangs from this one, and the function
	over   bool       // the function has ended
	ended  bool       // cancelled
	listed bool       // it is among the children of its parent, whose mu guards this
	begun  bool       // the function has, or is about to

	parent *life // that cancels us; nil once it is over
	queued *Call // of a task that goes to a thread or a loop; nil once it has begun

	// It is among the children of its parent, whose mu guards the links.
	before, after *life

	*lifeRest // set under mu; whoever has the task's ctx may read it without
}

// A lifeRest is the part of a life that a queued task need not have: see openLate and
// cancelled.
type lifeRest struct {
	// layer is a foreign context, what the task's own ctx wraps. It and cancel are
	// nil before the function begins, and written under the mu of the life; whoever
	// has the task's ctx may read them without.
	layer  context.Context
	cancel context.CancelCauseFunc

	label label         // set before it is shared, as are home and alone
	home  *Home         // of its ctx
	alone bool          // nobody but home ends it
	gone  atomic.Bool   // the layer has been released
	id    atomic.Uint64 // given when it is first asked for

	// Guarded by the mu of the life.
	cause    error // why it is cancelled
	children *life // that this one cancels
}

// A fullLife is a life that has its rest from the start.
type fullLife struct {
	life life
	rest lifeRest
}

// A Home is a loop, as contexts refer to it. Package loop makes it.
type Home struct {
	Loop    Loop
	Backend Backend // of a backend of package loop; nil for others
	// Spawn starts a task on somebody else's backend; nil if it is no backend.
	Spawn   func(ctx context.Context, fn func(context.Context)) error
	Stopped error // the error of waits for functions that do not begin because the loop stops

	// Threads says that its functions are sync code on threads of this module. They
	// call back to the loop of their caller.
	Threads bool

	// Limiter bounds the insensitive calls of its tasks, if Serial is set. It is a
	// *task.Limiter, which package asyncsync makes at first use.
	Limiter atomic.Value
	Serial  bool // its tasks all run on one thread

	// Owner is set by package asyncsync for a home that it makes for its own
	// purpose. If Loop is nil, the home only says where async functions called by
	// sync code run, and Outer is the home above.
	Owner     any
	Outer     *Home
	Outermost bool
}

// A Loop takes functions: see package loop.
type Loop interface {
	Post(fn func()) error
	Done() <-chan struct{}
}

// A Backend is what this package needs of a backend of package loop.
type Backend interface {
	// Start makes j run. If it returns an error, no method of j is called.
	Start(j *Job) error
	// Life ends when the backend stops.
	Life() context.Context
}

// A Job is a task of a backend of package loop: what a Call runs there, or a
// [Solo].
type Job struct {
	sched.Task // the coroutine on a thread loop; others use only Body, Values and the links of a List
	Home       *Home

	Waited bool  // an ordinary goroutine is going to wait for it
	Own    bool  // it has a goroutine of its own
	phase  phase // only its goroutine knows

	// Set before the start.
	node *Node // that it runs as
	life *life // ends its ctx, nil if that ends by itself

	// call is what the job runs. If that is a task, only its goroutine uses call from
	// the start on, and clears it when the function has ended or will not begin.
	call *Call
}

// A phase is how far a job has come.
type phase uint8

const (
	waits phase = iota
	runs
	over
)

// An Executor runs posted functions on the goroutine that made it, while that
// goroutine is in RunUntil.
type Executor struct {
	gid   int64
	id    uint64        // by which reports know what is pending
	made  uintptr       // where it was made, for reports
	maker *maker        // nil if the goroutine was a thread already
	done  chan struct{} // closed by Close

	Stopped error // what the calls get that it does not run

	shut atomic.Bool // it is closed; set under mu, before its calls are looked for

	mu      sync.Mutex // guards the rest; nests outside Thread.mu
	closed  bool
	pending []*posted // posted while nobody ran it
	last    uint64    // the number of the last of them
	thread  *Thread   // in RunUntil
	scope   *Scope    // in RunUntil
	frame   *Frame    // in RunUntil
	onWake  func()
	woken   bool // onWake has been called since the last run

	failed *Panic // of a posted function; its own goroutine only
}

// posted is the body of a posted function.
type posted struct {
	e  *Executor
	fn func()
	by *Node // the poster

	number uint64 // among those that were pending, 0 for others; guarded by e.mu
}

// A maker is a goroutine of the user's that has made an [Executor]. It is a thread
// while it is adopted. Once a context uses it as its thread, it stays one: see
// [Executor.BecomeThread].
type maker struct {
	gid    int64
	made   uintptr // where the first of its executors was made, for reports
	bubble bool    // it is in a synctest bubble

	// thread is what the goroutine is, nil while it is none. It is set and cleared under
	// mu.
	thread  atomic.Pointer[Thread]
	forGood atomic.Bool // it stays a thread until its executors are closed; set once, under mu

	mu    sync.Mutex  // guards execs; nests outside Executor.mu
	execs []*Executor // that are not closed
}

// A Gate is opened once, and waited for before and after that. A task of a thread
// loop that waits for it is woken without a goroutine that listens to a channel in
// its place. The zero Gate is shut.
type Gate struct {
	mu    sync.Mutex // guards the rest; a leaf lock
	open  bool
	done  chan struct{} // made when somebody asks for it
	first *listener
}

// A listener is the wait of a task.
type listener struct {
	task       *sched.Task
	number     uint64
	prev, next *listener // guarded by the mu of the gate
}

// A Bell is a [Gate] that one goroutine waits for. That goroutine makes the bell, shows it
// to those who may end the wait, and then waits.
type Bell struct {
	gate  Gate
	done  <-chan struct{} // of the gate, for a thread or an ordinary goroutine
	place listener        // for a task that parks
}

// A Lock is held by one owner at a time. Others wait for it, first come first served.
// Those who wait join the owner, as they join the holders of a [Resource]: a thread
// that waits serves the owner's calls. Unlike a token, a lock is given back only by its
// owner, or by code that the owner waits for. So the package can tell a wait that never
// ends, and refuses it. The zero Lock is ready.
//
// If nobody waits, and the owner runs off the threads with its own ctx, locking is one
// compare-and-swap: state says who the owner is, and there is nothing else to know.
// Otherwise state is &crowded, and mu guards what counts. (If all waiters stand aside, the
// lock may be free though its line is not empty.) A goroutine that finds the lock taken
// changes state to &crowded first. So the owner learns of waiters when it unlocks and need
// not look for them earlier.
type Lock struct {
	// state is nil while the lock is free; the node that the owner runs as; &nobody
	// for an owner that runs no function of this module; or &crowded.
	state atomic.Pointer[Node]

	node Node // joined by those who wait
	join Join // of the owner's node, while somebody waits

	mu     sync.Mutex // guards the rest; a leaf lock
	owner  owner      // while state is &crowded
	first  *Turn      // of those who wait
	last   *Turn
	joined *Node // has join; changes only while relations is held as well
}

// An owner has a lock, or wants it.
type owner struct {
	node *Node // what its calls are made below; nil if that is not known

	// The goroutine, if it runs somebody's function: off the threads the node that
	// it runs as. On a thread it is the call with its number, because records of
	// calls are used again. A function whose own goroutine has become the thread is in
	// no call.
	self   *Node
	thread *Thread
	call   *Call
	seq    uint64
}

// A Turn is a place in the line for a lock.
type Turn struct {
	lock *Lock
	bell *Bell           // rung when the lock is its
	ctx  context.Context // of a turn from NewTurn: says who waits, ends never, and has no code of the user's

	// Guarded by the lock's mu.
	owner      owner
	granted    bool
	inLine     bool
	aside      bool // its thread runs something on top of the wait: see stepAside
	prev, next *Turn
}

// A Resource is a number of tokens. Some hold them, and others wait for them, first
// come first served. The calls of its holders are related to the threads that wait
// for it.
//
// # Lending
//
// A function that gives its token back itself, before it ends, is known to keep it.
// While such a function sleeps in a wait of this module nobody uses its token. So the
// token may go to another function, if that
//
//   - has slept itself, and cannot go on because its own token is lent: it is owed
//     one;
//   - or is waited for, directly or not, by a function that keeps a token: it is kin.
//     It must not wait for a token that is held because it has not ended.
//
// Everybody else takes a token that nobody has. So never more functions run than
// there are tokens, and no more are under way than tokens, except for those that are
// waited for.
//
// Nothing records which function has lent a token to which. A function that begins
// with a token that was free begins a [chain]. A function that begins as kin joins the
// chain of the function that waits for it. A chain has one token or more. When fewer
// functions are left in it than it has tokens, the other tokens are free again.
//
// A function that wants a token looks for holders that sleep. A holder that falls asleep
// offers its token to those in line then: see offer. Nobody tells a lender that its token
// was lent later. So a lender that wakes must look before it goes on: it
// takes its wait back, waits for the readers of edges, and then looks whether its token
// is lent (see reclaim). The function that takes the token reads edges, and has seen the
// wait. So at least one of the two knows of the other.
//
// The search for kin goes upwards from the function that wants a token, along the same
// links as the search for frames: see claim.reach. It does not find a stranger that the
// holder only happens to depend on: see closes.
//
// A token that was taken with Acquire is not lent, because its holder may have handed it
// on to a function that runs.
type Resource struct {
	node Node

	mu    sync.Mutex // guards the rest; only the locks of loans and contended, and life.mu, are taken under it
	total int
	used  int // tokens of chains and of loose holders; exceeds total after a SetTotal that lowers it
	busy  int // tokens of holders that may be running; see free for how it relates to used

	// between counts tokens that are taken and have no holder that a search could find:
	// those given to claims whose holds remember has not seen yet, and those on their way
	// back from holders that are in no list any more. Without it a search would take the
	// other holders for all.
	between int

	owed  []*claim      // for tokens that are lent, and that their holders need to go on: served first
	line  claimList     // the others
	kin   []*claim      // those of the line that are kin
	kept  map[any]*Hold // by Hold.key, the newest of each
	loose []*Hold       // that others may give back, the oldest first
	spare []*Hold       // records to use for loose again
	queue bool          // the resource is in contended
	moves uint64        // how often a claim was given its tokens
	still uint64        // moves, when tokens last came back and nobody was given any
	looks bool          // a goroutine is about to look at the line again: see returned

	ready map[*Hold]struct{} // those of kept that have their token
	lent  map[any][]*Hold    // those of kept that have lent it, by what they wait for
}

// An openWait is a wait with a goal, while it lasts. The wait is made in the frame
// f, or by the goroutine that runs as self. self may be nil.
//
// It opens after the join that belongs to it is made, and closes before that join is
// dropped, because without its join the wait would look like one that does not serve
// its target.
type openWait struct {
	f    *Frame
	self *Node
	edge *edge
}

// A claim is what somebody who wants tokens has put in.
type claim struct {
	r    *Resource
	hold *Hold // what it gets
	n    int
	turn chan struct{} // closed when it has them or is refused; nil if it never had to wait
	back bool          // it wants the token back that hold has lent

	// Where it is made.
	node *Node
	run  *Call // on this call's thread
	self any   // the key of its goroutine

	// Guarded by the resource's mu.
	since      time.Time
	under      *Hold // it is kin to this one
	inLine     bool
	done       bool     // it has its tokens, or has given up
	aside      bool     // its thread runs something on top of the wait: see stepAside
	at         openWait // while it waits: how that is visible
	refusal    error    // why it will never have its tokens
	missed     bool     // tokens went by meanwhile
	prev, next *claim
}

// A Hold is one or more tokens that somebody has.
type Hold struct {
	r *Resource

	// The holder. Fixed before the record is shared, except that the mu of the resource
	// guards node, join and gid of a hold in loose or spare.
	node   *Node // joined by those who wait for the resource; nil for nobody
	join   *Join
	self   *Node   // of one that keeps them off the threads: what it runs as
	thread *Thread // of one that keeps them on a thread
	call   *Call   // in which it runs there, nil if in none
	keeps  bool
	plain  *Node // made for a goroutine that was nobody's
	gid    int64

	// Guarded by the resource's mu.
	n      int    // how many
	quick  bool   // only loose has ever seen the record: it can be used again
	joined bool   // node has join, or is about to
	chain  *chain // that it is a member of; nil if it keeps none and was lent none
	part   int    // it counts as so many members
	taken  int    // if it keeps none: how many of its tokens are not of its chain
	has    bool   // it has its tokens: they are not lent
	lent   bool   // they are lent
	known  bool   // it is in kept
	to     any    // while they are lent: what the holder waits for
	outer  *Hold  // the one of the same key that it hides in kept
	below  *Hold  // of the function that has called this one, and has its token used here
}

// A chain is functions under a limiter. Each but the first was waited for by another
// of them when it began. Guarded by the resource's mu.
type chain struct {
	members int
	tokens  int
}

type claimList struct {
	head, tail *claim
	len        int
}

// An interrupt calls a function of the user's, fn, from the end of a call's ctx
// to the end of the call's function.
//
// Once is not enough. What fn does (sqlite3_interrupt, SQLCancel, a signal) hits
// what runs at that moment, and the function may not have begun with it, or may
// begin with the next. So fn is called again and again, after pauses that grow.
//
// The first call is made on a goroutine of its own. The others are made by a
// repeater, which is one goroutine for all interrupts, so that many calls that do
// not heed theirs cost no goroutine each, nor an OS thread where fn calls C.
type interrupt struct {
	fn   func()
	once bool
	ctx  context.Context // of the function
	on   *Thread         // that the function runs on, nil if it is none

	unwatch func() bool
	state   atomic.Uint32 // settles who is first, the end of ctx or that of the function

	// away is fn as a call elsewhere, with what others ask about one, and node
	// what it runs as: a child of the function.
	away FullCall
	node Node

	// Guarded by repeats.mu, and of no interest before state is interrupted.
	over  bool // the function has ended: fn is not called any more
	calls bool // fn runs
	done  chan struct{}
	panic *Panic // fn's own; read by others after done is closed, or when fn does not run
	pause time.Duration
	due   time.Time
	in    *repeater // whose queue it is in
	at    int       // its place there
}

// A repeater calls the functions of interrupts, one after another, each when it
// is due. It is there while there is anything to repeat.
type repeater struct {
	bubble int64

	// Guarded by repeats.mu.
	queue dueQueue
	gen   int           // the number of the goroutine that may go on: see next
	wake  chan struct{} // 1-buffered; of its goroutine
}

// A dueQueue is a heap of interrupts, the one that is due first at its top.
type dueQueue []*interrupt

// Hooks are told of calls. Nil functions are not called.
type Hooks struct {
	Queued    func(CallInfo)
	Started   func(CallInfo)
	Ended     func(CallInfo)
	Abandoned func(CallInfo)
	Panicked  func(CallInfo)

	// Values, if not nil, is asked by the caller, before Queued is told, for a
	// context of which only the values are used: the ctx of the function has them,
	// before its own; so has what is made from that ctx, and the Ctx of all that
	// the hooks are told of the call. nil adds nothing. What the same hooks have
	// given to a call further out is replaced.
	//
	// The context is made from context.Background. One made from Ctx, or that can
	// end, makes the call panic: when a function is cancelled, and why, is no
	// matter of hooks.
	Values func(CallInfo) context.Context
}

// CallInfo is what a hook is told of one call.
type CallInfo struct {
	// ID is the same in all that hooks are told of a call, and no other call of
	// the process has it. It is 0 for a function that is no call, such as one that
	// was posted, and for a call that was made when there were no hooks.
	ID        uint64
	Ctx       context.Context
	Name      string
	Context   string // the name of the ThreadSensitiveContext
	Thread    int    // the OS thread's id, 0 where there is none
	Inline    bool   // the caller was on the thread already
	Lost      bool   // it went to the default thread, and its caller runs in a context, which its ctx knows nothing of
	Begun     bool   // the function has begun; false in the end of what did not run
	Err       error  // what the function returned
	Panic     any    // what it panicked with
	Stack     []byte // where, at the origin
	Goexit    bool
	QueueTime time.Duration
	RunTime   time.Duration
}

// A watch is the hooks that there were when a call was made, and what they are
// told of it: startedAt and endedAt are set by the thread, the rest by the
// submitter.
type watch struct {
	audience
	id     uint64
	values []carried
	lost   bool

	queuedAt, startedAt, endedAt time.Time
}

// An audience is who is told of a call: first the hooks of the process, then
// those of its scope. Either may be nil.
type audience struct{ process, scope *[]*Hooks }

// A carried is what hooks have given.
type carried struct {
	by  *Hooks
	ctx context.Context
}

// Ending and Panic are how a function ended: see package ending.
type (
	Ending = ending.Ending
	Panic  = ending.Panic
)

// A target is what a wait is for. Searches for a cycle, the lending of tokens and
// reports all ask it, so that little else in this package knows the kinds of waits. The
// types are below. The methods of each are in the file of what it is a wait for, except
// those of forNode, forTop and forThread, which are in graph.go.
//
// Each of the types is one pointer, so that an edge holds it without an allocation.
type target interface {
	// kind returns the kind of the wait: see [WaitState]. It is "" for a goroutine
	// that does not wait itself, but runs inside of something else.
	kind() string
	// name returns the name of the target, "" if it has none.
	name() string
	// mayWait reports whether the target may be waiting itself. It may be called with
	// the mutex of a thread held, and takes leaf locks only.
	mayWait() bool
	// next returns the one call that has to end, and the node that it runs as, if it
	// may run off the threads. Both are nil if the target is something else.
	next() (*Call, *Node)
	// needs returns what has to end before the wait does. cycles and relations are
	// held, and no other lock.
	needs(q *query) cycle.Needs
	// reached returns what claim.reach visits for the target: the node that its waiters
	// join, a call, a scope or a thread. It is nil if nothing stands for the target.
	reached() any
	// report adds to w what is known of the target, and to v the functions that it
	// leads to. cycles is held, and no other lock.
	report(v *view, w *WaitState)
}

// forCall is a call on a thread, or on its way there.
type forCall struct{ c *Call }

// forAsync is a call whose function runs elsewhere: see [Away].
type forAsync struct{ c *Call }

// forNode is the function that runs as a node.
type forNode struct{ n *Node }

// forTop is the call on top of a thread, for a function that runs inside of it: see
// Node.runsInside.
type forTop struct{ c *Call }

// forThread is the thread that the goroutine of the waiter has become.
type forThread struct{ t *Thread }

// forTask is the end of a task.
type forTask struct{ t *Task }

// forGroup is the end of all tasks of a group.
type forGroup struct{ g *Group }

// forRegion is the end of all that a portal runs.
type forRegion struct{ forGroup }

// forPlace is a place in a group that has as many members as it may have: the end of
// any one of them.
type forPlace struct {
	g     *Group
	limit int
}

// forTokens is tokens of a resource.
type forTokens struct{ c *claim }

// forLock is a lock that somebody else has.
type forLock struct{ t *Turn }

// forScope is the end of a context.
type forScope struct{ s *Scope }

// forPool is the end of the threads of a pool.
type forPool struct{ p *Pool }

// A goal is what a wait is for, unless that is a call. On a thread the edge of a wait is
// in the frame. Off the threads it is in the goal, or for a call in the call or the
// awayCtx.
type goal struct {
	target
	ctx    context.Context // its end ends the wait
	edge   edge            // of a waiter off the threads
	hidden atomic.Bool     // not visible yet, or taken back; or the waiter was let go

	gate  *Gate // opens when the wait is over, for a task that parks; nil for others
	place listener
}

// How much a graph names.
const (
	graphQueue   = 16   // queued calls of a thread
	graphNodes   = 1024 // functions off the threads
	graphMembers = 64   // of a group, or threads of a pool
)

// A view is a graph in the making.
type view struct {
	g    Graph
	todo []function    // that waits have led to, in order
	seen map[*Node]int // their places, from 1

	pools   map[*Pool]int
	sites   map[uintptr]Site
	numbers map[*Resource]int // of Limiters, from 1
	there   map[int64]bool    // goroutines that g has
}

// A function runs off the threads.
type function struct {
	node *Node
	label
}

// How much is looked at.
const (
	graphTop    = 48  // entries of a stack, from the top
	graphBottom = 16  // and from the bottom, of a stack that is higher than both
	graphSteps  = 256 // up a tree, along a chain of waits, or through a queue
)

// A query asks whether a wait depends on the waiter itself: the goroutine that runs as
// node or waits in frame, or that has queued call.
type query struct {
	cycle.Search
	edge *edge // the wait

	node  *Node
	frame *Frame
	call  *Call
	claim *claim // of the wait, if that is for tokens
	late  bool   // the wait is claim's, and another goroutine than the waiter searches

	// Of one run.
	claims []*claim                   // that were met on the way, but for claim
	stacks map[*Thread][]*stackVertex // from the top
}

// A stackVertex is a frame, and those above it: all must end before the thread is
// back below it.
//
// So each frame of a deep stack is looked at once, however many waits lead to
// something in the stack.
type stackVertex struct {
	q     *query
	f     *Frame
	above *stackVertex // nil for the top
	label label        // of the call that waits
	cause bool         // what keeps it is its own wait
}
