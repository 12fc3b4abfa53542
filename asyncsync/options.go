package asyncsync

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"time"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// An Executor is where an insensitive call can be sent: see [WithExecutor].
type Executor = loop.Poster

// An Option changes how a call is made. Options that contradict each other, or
// that the wrapper they are given to has no use for, panic at construction.
type Option func(*settings)

// settings is what the options of one wrapper say.
type settings struct {
	core.Options
	on          *ThreadSensitiveContext
	insensitive bool
	executor    Executor
	limiter     *task.Limiter
	loop        loop.Loop
	sameThread  bool
	value       any // func(T), of InterruptValue
}

// On sends the call to the thread of tsc, whatever ctx says.
func On(tsc *ThreadSensitiveContext) Option {
	tsc.check("On")
	return func(s *settings) { s.on = tsc }
}

// Insensitive says that the function may run on any thread: it runs on an
// ordinary goroutine, that of the caller unless the caller is a thread.
func Insensitive() Option {
	return func(s *settings) { s.insensitive = true }
}

// WithExecutor has an insensitive call posted to e instead of run on a
// goroutine of this module's choice. If e is a [loop.Loop] that stops before
// the function has begun, the call returns [loop.ErrStopped]. On the goroutine
// of a [CurrentThreadExecutor] a call to it runs inline.
func WithExecutor(e Executor) Option {
	if e == nil {
		panic("asyncsync: WithExecutor: nil Executor")
	}
	return func(s *settings) { s.executor = e }
}

// WithLimiter has an insensitive call hold a token of l while its function
// runs. A call that is abandoned holds it until its function ends. Below the
// function no second one is taken: while it waits its token is lent to what it
// waits for. See [task.Limiter].
func WithLimiter(l *task.Limiter) Option {
	if l == nil {
		panic("asyncsync: WithLimiter: nil Limiter")
	}
	return func(s *settings) { s.limiter = l }
}

// WithLoop has AsyncToSync run its function on l: as a task if l is a
// [loop.Backend], as a posted function otherwise. If l stops before the function
// has begun the call returns [loop.ErrStopped]. On the goroutine of a
// [CurrentThreadExecutor] a call to it runs inline.
func WithLoop(l loop.Loop) Option {
	if l == nil {
		panic("asyncsync: WithLoop: nil Loop")
	}
	return func(s *settings) { s.loop = l }
}

// SameThread has AsyncToSync run its function on the calling thread itself
// instead of on a goroutine: no switch at all, and calls to the thread made
// below are inline. For that the function must wait through this module:
// [task.Task.Wait], [task.Group.Wait], nested calls, a [task.Limiter]. Those
// waits serve; while the function waits in any other way, the thread serves
// nobody, and if it waits so for something that needs the thread, that is a
// deadlock. The function sees the thread's thread-critical variables.
//
// A caller that is no thread, and whose ctx carries no context, becomes one for
// the duration and runs the function itself.
func SameThread() Option {
	return func(s *settings) { s.sameThread = true }
}

// Abandon makes the call return as soon as its ctx ends, with an error that
// matches [ErrAbandoned] and wraps the ctx's cause, even if the function runs.
// The function goes on: its thread stays busy until it ends, and what it comes
// to only the Abandoned hook hears. Local variables that it sets from then on
// reach nobody. The name of the thing is anyio's abandon_on_cancel.
//
// A call that runs inline, because its caller is on the thread, cannot be
// abandoned.
//
// A function that never ends keeps its thread, or, of an async or insensitive
// call, a goroutine, and nothing bounds how many there come to be:
// [Stats].AbandonedRunning counts them. Have such a call hold a token, so that
// there are no more than its limiter has.
func Abandon() Option {
	return func(s *settings) { s.Options.Abandon = true }
}

// Interrupt has f called when ctx ends while the function runs, to make it
// return sooner: sqlite3_interrupt and its kind. These hit only what runs at
// that moment, and the function may not have begun with it, or begin with
// something else. So f is called again and again until the function has ended,
// after pauses that grow from a millisecond to a second. [InterruptOnce] is for
// an f that must not be called twice.
//
// f runs on a goroutine other than the function's, never twice at once, not
// before the call has been given to its thread, which may be right before the
// function's first statement, and never after the function has ended: a call
// waits for an f that still runs. If f panics or calls [runtime.Goexit] it is not called
// again; its panic is raised in the caller if the function itself returned. A
// call that is abandoned is interrupted until its function ends.
//
// f is not to call the thread that the function runs on. Such a call is refused
// with an error that matches deadlock.ErrDeadlock, for it would wait for the
// function and the function's end for f. What f waits for, a task say, may call
// the thread: that is run when the function has returned.
func Interrupt(f func()) Option {
	if f == nil {
		panic("asyncsync: Interrupt: nil function")
	}
	return func(s *settings) { s.interrupt(f, false, nil) }
}

// InterruptOnce is [Interrupt] for an f that lasts, so that one call is enough:
// it closes a channel or sets a flag that the function looks at. It is also for
// functions that go on to clean up after they have been interrupted, with calls
// that f would hit.
func InterruptOnce(f func()) Option {
	if f == nil {
		panic("asyncsync: InterruptOnce: nil function")
	}
	return func(s *settings) { s.interrupt(f, true, nil) }
}

// InterruptValue is [Interrupt] for functions of a [Handle] or a [HandlePool]: f gets
// the value that the function has. Of a pool that is the only way to know which.
//
//	pool.Do(ctx, query, asyncsync.InterruptValue((*sqlite.Conn).Interrupt))
//
// f runs on another goroutine than the value's thread, while a function uses the value
// there: it may do with the value only what is allowed at any time, from anywhere. T
// must be the type of the values, else the call panics, and so does any other call
// with the option.
func InterruptValue[T any](f func(T)) Option {
	if f == nil {
		panic("asyncsync: InterruptValue: nil function")
	}
	return func(s *settings) { s.interrupt(nil, false, f) }
}

// interrupt sets what the last of the options for it says.
func (s *settings) interrupt(f func(), once bool, value any) {
	s.Options.Interrupt, s.Options.Once, s.value = f, once, value
}

// bindInterrupt gives the function of an InterruptValue its value.
func bindInterrupt[T any](s *settings, what string, value func() T) {
	if s.value == nil {
		return
	}
	f, ok := s.value.(func(T))
	if !ok {
		panic(fmt.Sprintf("asyncsync: %s: InterruptValue with a %T, but values are of type %v", what, s.value, reflect.TypeFor[T]()))
	}
	s.Options.Interrupt = func() { f(value()) }
}

// IfFree makes the call only if it need not wait for others, as [sync.Mutex.TryLock]
// does: if the thread runs or is blocked in a function, has calls queued, or
// would have to wait in line for its pool, the call returns at once with an error
// that matches [ErrQueueFull]. Of several that are made at once on a thread that
// is free one runs. A caller on the thread runs the function inline, and a nested
// call that the blocked function of the thread depends on is run there, as
// without the option.
func IfFree() Option {
	return func(s *settings) { s.Options.Try = true }
}

// Named gives calls a name for hooks, traces, reports and errors. The default
// is the name of the function.
func Named(name string) Option {
	return func(s *settings) { s.Name = name }
}

// LongRunning says that the function is meant to take long: a server's loop, a
// GUI's main loop, a listener that waits for its next event. While it runs on a
// thread, or something on a thread waits for it, what is queued there is not
// reported as slow: see the slow verdict of package deadlock. It changes
// nothing about how the call is made, and other verdicts are given as ever.
func LongRunning() Option {
	return func(s *settings) { s.Long = true }
}

func apply(what string, opts []Option) (s settings) {
	t := applied(what, opts)
	s = *t
	t.free()
	return s
}

// spare holds settings for calls that are made once: options write through a
// pointer, so that what they write to cannot be on the stack.
var spare = sync.Pool{New: func() any { return new(settings) }}

// applied returns what opts say. It is to be given back with free.
func applied(what string, opts []Option) *settings {
	s := spare.Get().(*settings)
	for _, o := range opts {
		if o == nil {
			panic("asyncsync: " + what + ": nil Option")
		}
		o(s)
	}
	return s
}

// free gives back s.
func (s *settings) free() {
	*s = settings{}
	spare.Put(s)
}

// plain reports whether no option changes where or how a call runs that its caller
// makes on the thread which it is to run on.
func (s *settings) plain() bool {
	return !s.insensitive && s.Options.Interrupt == nil && s.value == nil
}

// checkToThread panics on options that SyncToAsync and its kind cannot honour
// together.
func (s *settings) checkToThread(what string) {
	s.checkNoValue(what)
	s.checkCall(what)
}

// checkNoValue panics on an InterruptValue where there is no value.
func (s *settings) checkNoValue(what string) {
	if s.value != nil {
		panic("asyncsync: " + what + ": InterruptValue is for functions of a Handle or a HandlePool; Interrupt is for others")
	}
}

func (s *settings) checkCall(what string) {
	var why string
	switch {
	case s.loop != nil || s.sameThread:
		why = "WithLoop and SameThread are options of AsyncToSync"
	case s.executor != nil && !s.insensitive:
		why = "WithExecutor needs Insensitive: a thread-sensitive call runs on its context's thread"
	case s.limiter != nil && !s.insensitive:
		why = "WithLimiter needs Insensitive: a thread runs one call at a time as it is"
	case s.on != nil && s.insensitive:
		why = "On and Insensitive contradict each other"
	case s.Try && s.insensitive:
		why = "IfFree and Insensitive contradict each other: there is no thread to be free"
	default:
		return
	}
	panic("asyncsync: " + what + ": " + why)
}

// checkHandle is the same for functions that run on the thread of a value.
func (s *settings) checkHandle(what string) {
	if s.on != nil || s.insensitive {
		panic("asyncsync: " + what + ": a value's functions run on its own thread: no On, no Insensitive")
	}
	s.checkCall(what)
}

// checkFromThread is the same for AsyncToSync.
func (s *settings) checkFromThread(what string) {
	s.checkNoValue(what)
	if s.on != nil || s.insensitive || s.executor != nil || s.limiter != nil || s.Try {
		panic("asyncsync: " + what + ": On, Insensitive, IfFree, WithExecutor and WithLimiter are options of SyncToAsync")
	}
	if s.sameThread && (s.loop != nil || s.Options.Abandon) {
		panic("asyncsync: " + what + ": SameThread contradicts WithLoop and Abandon: the caller runs the function itself")
	}
}

func checkCtx(ctx context.Context, what string) {
	if ctx == nil {
		panic("asyncsync: " + what + ": nil ctx")
	}
}

// A Policy says which calls a thread runs while the function on it is blocked
// in a wait of this library.
type Policy = core.Policy

// The policies.
const (
	// Related runs the calls that the wait may depend on: those of what the
	// function waits for, of everything started below that, and of what these
	// wait for in turn. It is the default.
	Related = core.Related
	// All runs every call, in the order of arrival: for threads whose
	// functions expect to be re-entered by strangers, as a GUI's do.
	All = core.All
	// None runs no call. A function that waits for a call to its own thread is
	// then a deadlock, and refused as one.
	None = core.None
)

// A ContextOption changes a ThreadSensitiveContext. In a context nested in
// another only [WithName] and [WithHooks] have an effect.
type ContextOption func(*core.Config)

// WithName names the context, for reports, traces, pprof labels and the error
// of a Shutdown that gave up.
func WithName(name string) ContextOption {
	return func(c *core.Config) { c.Name = name }
}

// WithPool takes the context's thread from p.
func WithPool(p *ThreadPool) ContextOption {
	p.check("WithPool")
	return func(c *core.Config) { c.Pool = p.pool }
}

// Serve sets the policy of the context's thread.
func Serve(p Policy) ContextOption {
	if p > None {
		panic("asyncsync: Serve: invalid Policy")
	}
	return func(c *core.Config) { c.Policy = p }
}

// Unpinned makes the context exclusive without binding it to an OS thread: one
// call at a time, on a goroutine that Go may move. It takes no thread from a
// pool, so that WithPool together with it panics.
func Unpinned() ContextOption {
	return func(c *core.Config) { c.Unpinned = true }
}

// QueueLimit bounds the calls that wait for the context's thread, not counting
// the one that runs; beyond it calls fail with [ErrQueueFull]. Nested calls
// that a blocked function of the thread depends on are exempt. n must be
// positive; [IfFree] is for calls that are not to wait at all.
func QueueLimit(n int) ContextOption {
	if n <= 0 {
		panic("asyncsync: QueueLimit: the limit must be positive")
	}
	return func(c *core.Config) { c.Limit = n }
}

// QueueWait bounds how long a call may wait to begin: one that has been queued for
// d, behind others or while its context stands in line for a thread of its pool, is
// taken out, and fails with an error that matches [ErrQueueFull], or [ErrPoolFull]
// if there is no thread yet. It never ran. That is another matter than the deadline
// of the caller's ctx: it says that there is too much to do, not that this took too
// long, and it does not match [context.DeadlineExceeded].
//
// A call that has begun may take its time. Nested calls that a blocked function
// of the thread depends on are exempt, as with [QueueLimit], and so are calls that
// find the thread at rest. d must be positive. A call that waits costs a timer.
func QueueWait(d time.Duration) ContextOption {
	if d <= 0 {
		panic("asyncsync: QueueWait: the time must be positive; IfFree is for calls that are not to wait")
	}
	return func(c *core.Config) { c.Wait = int64(d) }
}

// Spin changes how long the context's thread, and who calls it, look for each
// other's next word before they sleep, when calls follow each other closely; 0
// turns that off. The default is 20 µs, learned: it is tried now and then, kept
// while it hits and given up while it misses, and never done with one processor
// or by more goroutines than there are processors. Where both sides spin a call
// takes about a microsecond or less instead of two kernel switches, and each
// side uses a processor meanwhile.
//
// The budget should exceed the time that it takes to wake a thread on another
// processor, which is 2 to 5 µs on bare metal and 30 to 50 µs in many virtual
// machines. A shorter one does no harm but seldom gets going. A negative budget
// panics.
func Spin(budget time.Duration) ContextOption {
	if budget < 0 {
		panic("asyncsync: Spin: negative budget; 0 turns spinning off")
	}
	return func(c *core.Config) { c.Spin, c.NoSpin = int64(budget), budget == 0 }
}

// OnThreadStart has f called on the context's thread before its first call: once
// for each context. What is to happen once for each OS thread belongs into
// [ThreadPoolConfig]. If f panics or calls Goexit that call ends so, and the next
// one tries again.
func OnThreadStart(f func()) ContextOption {
	if f == nil {
		panic("asyncsync: OnThreadStart: nil function")
	}
	return func(c *core.Config) { c.OnStart = append(c.OnStart, f) }
}

// OnThreadExit has f called on the context's thread when the context gives it
// back, after the exit functions of its thread-critical variables, if the thread
// has run anything. A failure of f is returned by Close.
func OnThreadExit(f func()) ContextOption {
	if f == nil {
		panic("asyncsync: OnThreadExit: nil function")
	}
	return func(c *core.Config) { c.OnExit = append(c.OnExit, f) }
}

func contextConfig(what string, opts []ContextOption) *core.Config {
	if len(opts) == 0 {
		return core.DefaultConfig
	}
	c := &core.Config{}
	for _, o := range opts {
		if o == nil {
			panic("asyncsync: " + what + ": nil ContextOption")
		}
		o(c)
	}
	if c.Unpinned && c.Pool != nil {
		panic("asyncsync: " + what + ": an Unpinned context takes no thread from a pool")
	}
	return c
}

// ThreadPoolConfig says how large a pool may get. Zero fields mean the
// defaults; negative ones panic.
type ThreadPoolConfig struct {
	// MaxThreads is the most OS threads that the pool has at a time, not
	// counting those of MaxOverflow. The default is 128. Each costs about
	// 35 KB.
	//
	// Go ends the process if it cannot start a thread: the sum of all pools,
	// MaxOverflow included, must be less than [runtime/debug.SetMaxThreads]
	// allows, 10,000 by default, and than the system does (ulimit -u, and with cgo
	// ulimit -v).
	MaxThreads int
	// MaxOverflow is the most OS threads that the pool has beyond MaxThreads,
	// for calls that one of its threads is blocked for: see [ThreadPool]. 0
	// means as many as MaxThreads. A negative number means none: then such a
	// call waits in line, and is refused if nobody could ever free a thread.
	MaxOverflow int
	// MaxWaiting is how many contexts may stand in line for a thread. A call that
	// finds so many there fails with an error that matches [ErrPoolFull], at once.
	// 0 means any number, a negative number none. Contexts that a thread of the
	// pool is blocked for, which may go beyond MaxThreads, are exempt.
	MaxWaiting int
	// MaxWait is how long a call may stand in line with its context. After that it
	// fails with an error that matches [ErrPoolFull], without having run. 0 means
	// for ever. The same contexts are exempt. [QueueWait] bounds the wait for a
	// thread that the context has.
	MaxWait time.Duration
	// MaxIdle is how many threads that no context uses are kept; more end soon
	// after. The default is 16.
	MaxIdle int
	// IdleTimeout is how long a thread that no context uses is kept. The
	// default is 10 s.
	IdleTimeout time.Duration
	// ThreadStart, if not nil, is called on each OS thread of the pool before
	// its first call, once, however many contexts use the thread: to attach it
	// to a virtual machine, say. If it panics or calls [runtime.Goexit] the
	// call ends so, and the next one tries again.
	ThreadStart func()
	// ThreadExit, if not nil, is called on each OS thread on which ThreadStart
	// has returned, before the thread ends. Its failure is returned by Close,
	// and a panic told to the hook.
	ThreadExit func()
}

// A ThreadPool lends OS threads to contexts, each at its first call, and takes
// them back when the context is closed or collected. A context that finds none
// free waits in line.
//
// A call does not wait for a thread that is blocked for it. When a function on a
// thread of a full pool waits for a call into a context that has no thread yet,
// that context gets a thread beyond MaxThreads. So MaxThreads bounds the threads
// whose functions are not blocked for such a call. The same happens when the
// function comes to wait for a task whose call stands in line already, and for
// calls made with a ctx that carries another context of the pool which has a
// thread.
type ThreadPool struct{ pool *core.Pool }

// NewThreadPool returns a pool. It starts no thread.
func NewThreadPool(c ThreadPoolConfig) *ThreadPool {
	if c.MaxThreads < 0 || c.MaxIdle < 0 || c.IdleTimeout < 0 || c.MaxWait < 0 {
		panic("asyncsync: NewThreadPool: negative MaxThreads, MaxWait, MaxIdle or IdleTimeout")
	}
	if c.MaxThreads == 0 {
		c.MaxThreads = core.DefaultMaxThreads
	}
	switch {
	case c.MaxOverflow == 0:
		c.MaxOverflow = c.MaxThreads
	case c.MaxOverflow < 0:
		c.MaxOverflow = 0
	}
	if c.MaxIdle == 0 {
		c.MaxIdle = core.DefaultMaxIdle
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = core.DefaultIdleTimeout
	}
	p := core.NewPool(c.MaxThreads, c.MaxOverflow, c.MaxIdle, c.IdleTimeout)
	p.OnStart, p.OnExit = c.ThreadStart, c.ThreadExit
	p.MaxWaiting, p.MaxWait = max(c.MaxWaiting, -1), c.MaxWait
	return &ThreadPool{p}
}

// ThreadPoolStats is the state of a pool at one moment.
type ThreadPoolStats = core.PoolStats

// Stats returns the state of the pool.
func (p *ThreadPool) Stats() ThreadPoolStats {
	p.check("ThreadPool.Stats")
	return p.pool.Stats()
}

func (p *ThreadPool) check(what string) {
	if p == nil || p.pool == nil {
		panic("asyncsync: " + what + ": nil ThreadPool, or one not made by NewThreadPool")
	}
}

// Close ends the pool's threads: idle ones at once, the others when their
// contexts give them back, which Close waits for. Contexts already in line for
// a thread get one first; calls of contexts that come later fail with
// [ErrClosed]. A second Close waits as well. It returns the failures of ThreadExit
// functions.
//
// Called from a thread of the pool, or from a function or task that one is
// blocked for at that moment, Close does not wait, and returns nil. Where a thread
// of the pool waits for the caller in a longer way it returns as well.
func (p *ThreadPool) Close() error {
	p.check("ThreadPool.Close")
	return p.pool.Close()
}

// Shutdown is [ThreadPool.Close] with an end to its patience: when ctx ends first,
// the calls of contexts that are still in line for a thread fail with [ErrClosed], and the
// error, which wraps ctx's cause, says how many threads have not been given back.
// They end when their contexts are closed. From where Close would not wait
// Shutdown returns an error that matches deadlock.ErrDeadlock.
func (p *ThreadPool) Shutdown(ctx context.Context) error {
	p.check("ThreadPool.Shutdown")
	checkCtx(ctx, "ThreadPool.Shutdown")
	return p.pool.Shutdown(ctx)
}
