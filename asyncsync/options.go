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

// An Executor runs insensitive calls that are sent to it: see [WithExecutor].
type Executor = loop.Poster

// An Option changes how a call is made. An option that contradicts another, or
// that does not apply to the wrapper it is given to, panics when the wrapper is
// made.
//
// [Named], [LongRunning], [Abandon], [Interrupt] and [InterruptOnce] are
// for all calls. [On], [IfFree] and [Insensitive] are for [SyncToAsync],
// [ToThread] and [Do]; [WithExecutor] and [WithLimiter] are too, and need
// Insensitive. [WithLoop] and [SameThread] are for [AsyncToSync], [FromThread]
// and [DoAsync]. Calls of a [Handle] or a [HandlePool] take neither On nor
// Insensitive, and only they take [InterruptValue]. [Go] lists its own.
type Option func(*settings)

// settings holds what the options of one wrapper say.
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

// Insensitive says that the function may run on any thread. It runs on the
// caller's goroutine. If the caller is a thread or a task of a thread loop, or
// the call has [Abandon], it runs on another ordinary goroutine: see
// [DefaultLimiter].
func Insensitive() Option {
	return func(s *settings) { s.insensitive = true }
}

// WithExecutor posts an insensitive call to e instead of running it on a
// goroutine that this module chooses. If e is a [loop.Loop] that stops before
// the function has begun, the call returns [loop.ErrStopped]. On the goroutine
// of a [CurrentThreadExecutor], a call to that executor runs inline.
func WithExecutor(e Executor) Option {
	if e == nil {
		panic("asyncsync: WithExecutor: nil Executor")
	}
	return func(s *settings) { s.executor = e }
}

// WithLimiter makes an insensitive call hold a token of l while its function
// runs. An abandoned call holds its token until its function ends. Calls below
// the function take no second token: while the function waits, its token is
// lent to what it waits for. See [task.Limiter].
func WithLimiter(l *task.Limiter) Option {
	if l == nil {
		panic("asyncsync: WithLimiter: nil Limiter")
	}
	return func(s *settings) { s.limiter = l }
}

// WithLoop makes AsyncToSync run its function on l: as a task if l is a
// [loop.Backend], otherwise as a posted function. If l stops before the
// function has begun, the call returns [loop.ErrStopped]. On the goroutine of a
// [CurrentThreadExecutor], a call to that executor runs inline.
func WithLoop(l loop.Loop) Option {
	if l == nil {
		panic("asyncsync: WithLoop: nil Loop")
	}
	return func(s *settings) { s.loop = l }
}

// SameThread makes AsyncToSync run its function on the calling thread itself
// instead of on another goroutine. There is no thread switch, and calls to the
// thread below it are inline.
//
// The function must wait through this module: [task.Task.Wait],
// [task.Group.Wait], nested calls, a [task.Limiter]. The thread serves during
// these waits and during no others. Any other wait for something that needs the
// thread is a deadlock. The function sees the thread's thread-critical
// variables.
//
// A caller that is no thread, and whose ctx belongs to no context, task, group
// or call, becomes a thread for the duration and runs the function itself.
func SameThread() Option {
	return func(s *settings) { s.sameThread = true }
}

// Abandon makes the call return as soon as its ctx ends, even if the function
// runs. The error matches [ErrAbandoned] and wraps the cause of the ctx. The
// function goes on: its thread stays busy until it ends, only the Abandoned
// hook learns how it ends, and local variables that it sets from then on reach
// nobody. The name is that of anyio's abandon_on_cancel.
//
// A call that runs inline, because its caller is on the thread, cannot be
// abandoned.
//
// A function that never ends keeps its thread; an async or insensitive call
// keeps a goroutine. Nothing bounds how many of these there are;
// [Stats].AbandonedRunning counts them. For insensitive calls [WithLimiter]
// bounds them, because an abandoned call holds its token until its function
// ends.
func Abandon() Option {
	return func(s *settings) { s.Options.Abandon = true }
}

// Interrupt calls f when ctx ends while the function runs, to make the function
// return sooner. It is for sqlite3_interrupt and similar functions. Such an f
// affects only what runs at that moment, and the function may be between two
// operations then. So f is called repeatedly until the function has ended,
// after pauses that grow from one millisecond to one second. If f must not be
// called twice, use [InterruptOnce].
//
// f runs on a goroutine other than the function's, and never twice at once. It
// is not called before the call has been given to its thread, which may be
// right before the function's first statement. It is never called after the
// function has ended: a call waits for an f that still runs. If f panics or
// calls [runtime.Goexit], it is not called again; the caller gets its panic if
// the function itself returned. An abandoned call is interrupted until its
// function ends.
//
// f must not call the thread that the function runs on. Such a call would wait
// for the function while the function's end waits for f, so it is refused with
// an error that matches deadlock.ErrDeadlock. What f waits for, a task for
// example, may call the thread: that call runs when the function has returned.
func Interrupt(f func()) Option {
	if f == nil {
		panic("asyncsync: Interrupt: nil function")
	}
	return func(s *settings) { s.interrupt(f, false, nil) }
}

// InterruptOnce is [Interrupt] for an f that has a lasting effect, so that one
// call is enough: it closes a channel, or sets a flag that the function looks
// at. It is also for functions that clean up after they have been interrupted,
// with operations that another call of f would interrupt.
func InterruptOnce(f func()) Option {
	if f == nil {
		panic("asyncsync: InterruptOnce: nil function")
	}
	return func(s *settings) { s.interrupt(f, true, nil) }
}

// InterruptValue is [Interrupt] for functions of a [Handle] or a [HandlePool]:
// f gets the value that the function uses. With a pool there is no other way to
// know which value that is.
//
//	pool.Do(ctx, query, asyncsync.InterruptValue((*sqlite.Conn).Interrupt))
//
// f runs on another goroutine than the value's thread, while a function uses
// the value there. So f may use the value only in ways that are safe at any
// time and from any goroutine. T must be the type of the values, else the call
// panics. Any other call with the option panics too.
func InterruptValue[T any](f func(T)) Option {
	if f == nil {
		panic("asyncsync: InterruptValue: nil function")
	}
	return func(s *settings) { s.interrupt(nil, false, f) }
}

// interrupt sets the interrupt function. The last such option wins.
func (s *settings) interrupt(f func(), once bool, value any) {
	s.Options.Interrupt, s.Options.Once, s.value = f, once, value
}

// bindInterrupt passes the value to the function of an InterruptValue.
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

// IfFree makes the call only if it need not wait for others, like
// [sync.Mutex.TryLock]. If the thread runs a function or is blocked in one, has
// calls queued, or would have to wait for a thread of its pool, the call
// returns at once with an error that matches [ErrQueueFull]. If several such
// calls are made at once on a free thread, one of them runs. A caller on the
// thread runs the function inline, and the thread serves a nested call that its
// blocked function depends on, both as without the option.
func IfFree() Option {
	return func(s *settings) { s.Options.Try = true }
}

// ifFree is IfFree if only is set.
func ifFree(only bool) Option {
	return func(s *settings) { s.Options.Try = only }
}

// Named names calls in hooks, traces, reports and errors. The default is the
// name of the function. [WithName] names a context or a [Handle].
func Named(name string) Option {
	return func(s *settings) { s.Name = name }
}

// LongRunning says that the function is meant to take long: a server's loop, a
// GUI's main loop, a listener that waits for its next event. While it runs on a
// thread, or something on a thread waits for it, package deadlock does not
// report the calls queued there as slow. Other verdicts are unaffected, and so
// is the call itself.
func LongRunning() Option {
	return func(s *settings) { s.Long = true }
}

func apply(what string, opts []Option) (s settings) {
	t := applied(what, opts)
	s = *t
	t.free()
	return s
}

// spare holds settings for calls that are made once. Options write through a
// pointer, so the settings cannot be on the stack.
var spare = sync.Pool{New: func() any { return new(settings) }}

// applied returns the settings that opts make. Give them back with free.
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

// free gives s back to the pool.
func (s *settings) free() {
	if s != &noSettings {
		*s = settings{}
		spare.Put(s)
	}
}

// plain reports whether no option changes where or how a call runs when its
// caller is already on the right thread.
func (s *settings) plain() bool {
	return !s.insensitive && s.Options.Interrupt == nil && s.value == nil
}

// checkToThread panics if SyncToAsync and similar functions cannot honour the
// options.
func (s *settings) checkToThread(what string) {
	s.checkNoValue(what)
	s.checkCall(what)
}

// checkNoValue panics if InterruptValue is used where there is no value.
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

// checkHandle is checkToThread for functions that run on the thread of a value.
func (s *settings) checkHandle(what string) {
	if s.on != nil || s.insensitive {
		panic("asyncsync: " + what + ": a value's functions run on its own thread: leave out On and Insensitive")
	}
	s.checkCall(what)
}

// checkFromThread is checkToThread for AsyncToSync.
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

// A Policy says which calls a thread runs while its function is blocked in a
// wait of this library.
type Policy = core.Policy

// The policies.
const (
	// Related runs the calls that the wait may depend on: those of what the
	// function waits for, of everything started below that, and of what these wait
	// for in turn. It is the default.
	Related = core.Related
	// All runs every call, in the order of arrival. It is for threads whose
	// functions expect unrelated calls to run in between, such as an actor with a
	// state that is consistent whenever it waits. The thread of an executor
	// ([WithThread]) takes no policy: there [CurrentThreadExecutor.RunUntil] in a
	// posted function runs every call.
	All = core.All
	// None runs no call. A function that waits for a call to its own thread is then
	// a deadlock, and refused as one.
	None = core.None
)

// A ContextOption changes a ThreadSensitiveContext. In a nested context only
// [WithName] and [WithHooks] have an effect.
type ContextOption func(*core.Config)

// WithName names the context, or the [Handle], in reports, traces, pprof labels and
// the error of a Shutdown that gave up. [Named] names a call.
func WithName(name string) ContextOption {
	return func(c *core.Config) { c.Name = name }
}

// WithPool takes the context's thread from p.
func WithPool(p *ThreadPool) ContextOption {
	p.check("WithPool")
	return func(c *core.Config) { c.Pool = p.pool }
}

// WithThread makes the context use the thread of e, such as a program's main thread
// that a GUI or OpenGL needs. Its functions run there one at a time: while the owner of
// e is in [CurrentThreadExecutor.RunUntil] or RunPending, and while the owner waits,
// through this module, for the code that calls them. Start and exit functions run there
// too, and the open and close functions of a [Handle]. Any number of contexts may use
// the thread.
//
// The first such context makes the owner's goroutine a thread, locked to its OS thread
// also outside of RunUntil, until its executors are closed. If the owner itself calls
// the context and runs nothing else, the function runs at once. If the owner closes the
// context and runs nothing else, Close runs what is queued and the exit functions.
//
// Close the context before the executor. After the executor is closed, calls fail with
// an error that matches [ErrClosed] and [loop.ErrStopped]. Closing the context then
// returns that error, too, if there are exit functions, which do not run.
// Thread-critical variables belong to the goroutine and outlast the context.
//
// WithThread panics together with WithPool, Unpinned, Serve or Spin, and for a
// [HandlePool] or [PoolExecutor], which have threads of their own. It also panics if e
// was made on a thread of this library: [On] names the context of such a thread. A nil e
// panics.
func WithThread(e *CurrentThreadExecutor) ContextOption {
	e.check("WithThread")
	return func(c *core.Config) { c.Own, c.Keep = e.exec, e }
}

// Serve sets the policy of the context's thread.
func Serve(p Policy) ContextOption {
	if p > None {
		panic("asyncsync: Serve: invalid Policy")
	}
	return func(c *core.Config) { c.Policy = p }
}

// Unpinned makes the context exclusive without binding it to an OS thread: it
// runs one call at a time, on a goroutine that Go may move between threads. It
// takes no thread from a pool, so Unpinned together with [WithPool] panics.
func Unpinned() ContextOption {
	return func(c *core.Config) { c.Unpinned = true }
}

// QueueLimit bounds how many calls may wait for the context's thread, not
// counting the one that runs. Further calls fail with [ErrQueueFull]. Nested
// calls that a blocked function of the thread depends on are exempt. n must be
// positive. For calls that must not wait at all, use [IfFree].
func QueueLimit(n int) ContextOption {
	if n <= 0 {
		panic("asyncsync: QueueLimit: the limit must be positive")
	}
	return func(c *core.Config) { c.Limit = n }
}

// QueueWait bounds how long a call may wait to begin. A call that has been
// queued for d, behind other calls or while its context waits for a thread of
// its pool, is taken out of the queue and never runs. Its error matches
// [ErrQueueFull], or [ErrPoolFull] if the context has no thread yet. The error
// does not match [context.DeadlineExceeded]: it reports overload, unlike the
// deadline of the caller's ctx, which says that the caller has run out of time.
//
// A call that has begun has no limit. As with [QueueLimit], nested calls that a
// blocked function of the thread depends on are exempt, and so are calls that
// find the thread idle. d must be positive. A call that waits costs a timer.
func QueueWait(d time.Duration) ContextOption {
	if d <= 0 {
		panic("asyncsync: QueueWait: the time must be positive; use IfFree for calls that must not wait")
	}
	return func(c *core.Config) { c.Wait = int64(d) }
}

// Spin sets how long the context's thread and its callers spin before they
// sleep, when calls follow each other closely. Zero turns spinning off. A
// negative budget panics.
//
// The default is 20 µs and adaptive: the thread tries spinning now and then,
// keeps it up while it succeeds, and stops while it fails. With one processor
// it never spins, and no more goroutines spin than there are processors. Where
// both sides spin, a call takes about a microsecond or less instead of two
// thread switches. Each side occupies a processor meanwhile.
//
// The budget should exceed the time that it takes to wake a thread on another
// processor: 2 to 5 µs on bare metal, 30 to 50 µs in many virtual machines. A
// shorter one does no harm but rarely takes effect.
func Spin(budget time.Duration) ContextOption {
	if budget < 0 {
		panic("asyncsync: Spin: negative budget; 0 turns spinning off")
	}
	return func(c *core.Config) { c.Spin, c.NoSpin = int64(budget), budget == 0 }
}

// OnThreadStart calls f on the context's thread before its first call, once for
// each context. For a function to run once for each OS thread, use
// [ThreadPoolConfig]. If f panics or calls Goexit, the call ends in the same
// way, and the next call tries again. Of several such functions, those that have
// returned are not called again. The functions of [OnThreadExit] run only if all
// of them have returned in the end.
func OnThreadStart(f func()) ContextOption {
	if f == nil {
		panic("asyncsync: OnThreadStart: nil function")
	}
	return func(c *core.Config) { c.OnStart = append(c.OnStart, f) }
}

// OnThreadExit calls f on the context's thread when the context gives the
// thread back, provided that the thread has run anything. f runs after the exit
// functions of the thread-critical variables. Close returns the failure of f.
func OnThreadExit(f func()) ContextOption {
	if f == nil {
		panic("asyncsync: OnThreadExit: nil function")
	}
	return func(c *core.Config) { c.OnExit = append(c.OnExit, f) }
}

// checkOwnThreads panics if opts contain WithThread, where each context must have a
// thread of its own.
func checkOwnThreads(what string, opts []ContextOption) {
	if contextConfig(what, opts).Own != nil {
		panic("asyncsync: " + what + ": WithThread is for a context or a Handle: here each has a thread of its own")
	}
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
	if c.Own != nil {
		if c.Pool != nil || c.Unpinned || c.Policy != Related || c.Spin != 0 || c.NoSpin {
			panic("asyncsync: " + what + ": WithThread contradicts WithPool, Unpinned, Serve and Spin: the thread is the executor's")
		}
		if !c.Own.BecomeThread() {
			panic("asyncsync: " + what + ": WithThread with an executor that was made on a thread of a context: use On with that context")
		}
	}
	if c.Unpinned && c.Pool != nil {
		panic("asyncsync: " + what + ": an Unpinned context takes no thread from a pool")
	}
	return c
}

// ThreadPoolConfig sets the limits of a pool. Zero fields mean the defaults.
// Negative MaxThreads, MaxWait, MaxIdle and IdleTimeout panic.
type ThreadPoolConfig struct {
	// MaxThreads is the maximum number of OS threads of the pool, not counting
	// those of MaxOverflow. The default is 128. Each costs about 35 KB.
	//
	// Go ends the process if it cannot start a thread. So the sum over all pools,
	// MaxOverflow included, must stay below the limit of
	// [runtime/debug.SetMaxThreads], 10,000 by default, and below that of the
	// system (ulimit -u, and with cgo ulimit -v).
	MaxThreads int
	// MaxOverflow is how many OS threads the pool may have beyond MaxThreads, for
	// calls that one of its threads is blocked for: see [ThreadPool]. 0 means as
	// many as MaxThreads. A negative number means none: then such a call waits for
	// a thread, and is refused if none could ever become free.
	MaxOverflow int
	// MaxWaiting is how many contexts may wait for a thread. Beyond it, a call
	// fails at once with an error that matches [ErrPoolFull]. 0 means any number, a
	// negative number none. Contexts that a thread of the pool is blocked for,
	// which may go beyond MaxThreads, are exempt.
	MaxWaiting int
	// MaxWait is how long a call may wait for its context to get a thread. After
	// that it fails with an error that matches [ErrPoolFull] and does not run. 0
	// means for ever. The contexts that MaxWaiting exempts are exempt here too.
	// [QueueWait] bounds the wait in the queue of a context that has its thread.
	MaxWait time.Duration
	// MaxIdle is how many threads that no context uses are kept. Surplus threads
	// end soon. The default is 16.
	MaxIdle int
	// IdleTimeout is how long a thread that no context uses is kept. The
	// default is 10 s.
	IdleTimeout time.Duration
	// ThreadStart, if not nil, is called once on each OS thread of the pool before
	// its first call, however many contexts use the thread: to attach it to a
	// virtual machine, for example. If it panics or calls [runtime.Goexit], the
	// call ends in the same way, and the next call tries again.
	ThreadStart func()
	// ThreadExit, if not nil, is called on each OS thread on which ThreadStart has
	// returned, before the thread ends. Close returns its failure, and the Panicked
	// hook learns of a panic.
	ThreadExit func()
}

// A ThreadPool lends OS threads to contexts. A context takes a thread at its
// first call and gives it back when it is closed or garbage collected. A
// context that finds no free thread waits for one.
//
// A call does not wait for a thread that is blocked for that call. When a
// function on a thread of a full pool waits for a call into a context without a
// thread, that context gets a thread beyond MaxThreads. So MaxThreads bounds
// the threads whose functions are not blocked for such a call. The same happens
// when the function starts to wait for a task whose call already waits for a
// thread, and for calls made with a ctx that carries another context of the
// pool which has a thread.
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

// ThreadPoolStats is the state of a pool at one moment. Its fields are Threads,
// Overflow (of these, beyond MaxThreads), Idle, Waiting (contexts in line),
// Peak and Started.
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

// Close closes the pool and waits until its threads have ended: idle threads
// end at once, the others when their contexts give them back. Contexts that
// already wait for a thread still get one. Calls of contexts that come later
// fail with [ErrClosed]. A second Close waits as well. Close returns the
// failures of ThreadExit functions.
//
// Close does not wait, and returns nil, on a thread of the pool, and in a
// function or task that such a thread is blocked for, directly or by way of
// other waits.
func (p *ThreadPool) Close() error {
	p.check("ThreadPool.Close")
	return p.pool.Close()
}

// Shutdown is [ThreadPool.Close] with a limit on the wait. If ctx ends first,
// contexts that still wait for a thread do not get one, and their calls fail
// with [ErrClosed]. Shutdown then returns an error that wraps the cause of ctx
// and says how many threads have not been given back; these end when their
// contexts are closed. Where Close would not wait, Shutdown returns an error
// that matches deadlock.ErrDeadlock.
func (p *ThreadPool) Shutdown(ctx context.Context) error {
	p.check("ThreadPool.Shutdown")
	checkCtx(ctx, "ThreadPool.Shutdown")
	return p.pool.Shutdown(ctx)
}
