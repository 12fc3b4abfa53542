package asyncsync

import (
	"context"
	"errors"

	"asyncsync.dev/internal/core"
)

// Errors of calls. Match them with [errors.Is].
var (
	// ErrClosed is returned for calls to a context, a Handle or a pool that is
	// closed, and for calls that were queued when a Shutdown gave up.
	ErrClosed = core.ErrClosed
	// ErrAbandoned is matched by the error of a call that left its function
	// running: see [Abandon].
	ErrAbandoned = core.ErrAbandoned
	// ErrQueueFull is returned beyond [QueueLimit], and matched by what calls
	// with [IfFree] return that would have to wait, and those that have waited
	// for as long as [QueueWait] says.
	ErrQueueFull = core.ErrQueueFull
	// ErrPoolFull is matched by the errors of calls that find the line of their
	// pool as long as [ThreadPoolConfig] lets it be, or have stood there for as
	// long as that or [QueueWait] says.
	ErrPoolFull = core.ErrPoolFull
	// ErrNoContext is returned when no thread is known and [RequireContext]
	// forbids the default one.
	ErrNoContext = core.ErrNoContext
	// ErrWrongThread is returned where something belongs to another thread or
	// goroutine than the caller's.
	ErrWrongThread = errors.New("asyncsync: wrong thread")
	// ErrFirstThread is returned by [Taint] for a thread that never ends.
	ErrFirstThread = errors.New("asyncsync: the first OS thread of the process cannot be ended")
)

// A ThreadSensitiveContext is the scope in which all thread-sensitive calls
// run on one thread, one at a time: a request, a session, a database. It is
// made by [NewThreadSensitiveContext] and travels in the ctx returned from
// there; its methods may be called from anywhere.
//
// It takes a thread at its first call, from a pool, and keeps it until it is
// closed. One that is collected without having been closed gives its thread
// back too, some time later.
//
// The name and the idea are asgiref's.
type ThreadSensitiveContext struct{ scope core.Scope }

// core returns the scope of tsc, nil for nil.
func (tsc *ThreadSensitiveContext) core() *core.Scope {
	if tsc == nil {
		return nil
	}
	return &tsc.scope
}

func (tsc *ThreadSensitiveContext) check(what string) {
	if tsc == nil || !tsc.scope.Made() {
		panic("asyncsync: " + what + ": nil ThreadSensitiveContext, or one not made by NewThreadSensitiveContext")
	}
}

// NewThreadSensitiveContext returns a context and a ctx that carries it. It
// costs an allocation or two and no thread; the thread comes with the first
// call.
//
// Where ctx carries a context already, the new one shares its thread, and all
// options but [WithName] and [WithHooks] are those of the outermost. It can be closed by
// itself; a context inside a closed one is closed. [Detach] the ctx to get an
// independent context.
func NewThreadSensitiveContext(ctx context.Context, opts ...ContextOption) (context.Context, *ThreadSensitiveContext) {
	checkCtx(ctx, "NewThreadSensitiveContext")
	tsc := &ThreadSensitiveContext{}
	tsc.scope.MadeAt(1)
	return tsc.scope.Init(ctx, contextConfig("NewThreadSensitiveContext", opts)), tsc
}

// WithThreadSensitiveContext calls fn, on the calling goroutine, with a ctx
// that carries a new context, and closes the context when fn ends, in whatever
// way. The errors of fn and of the closing are joined.
func WithThreadSensitiveContext(ctx context.Context, fn func(context.Context) error, opts ...ContextOption) (err error) {
	checkCtx(ctx, "WithThreadSensitiveContext")
	if fn == nil {
		panic("asyncsync: WithThreadSensitiveContext: nil function")
	}
	tsc := &ThreadSensitiveContext{}
	tsc.scope.MadeAt(1)
	ctx = tsc.scope.Init(ctx, contextConfig("WithThreadSensitiveContext", opts))
	defer func() {
		if cerr := tsc.Close(); cerr != nil {
			err = errors.Join(err, cerr)
		}
	}()
	return fn(ctx)
}

// Close refuses new calls with [ErrClosed], runs those that were accepted,
// waits for the one that runs, and gives the thread back. Calls nested in a
// function that still runs are served until it ends. It cancels no ctx.
//
// Called from the context's own thread, or from a function or task that the
// thread is blocked for, or comes to be blocked for meanwhile, Close refuses
// new calls and returns; the rest happens when the function on the thread
// ends. A goroutine started with a plain go statement is not known to be below
// anything: there Close waits. On another thread it serves while it waits. If
// the context waits for the caller in a longer way Close returns as well.
//
// It returns the failures of [OnThreadExit] functions, to the first Close that
// has waited for the end; any other returns nil.
func (tsc *ThreadSensitiveContext) Close() error {
	tsc.check("Close")
	return tsc.scope.Close()
}

// Shutdown is Close with an end to its patience: when ctx ends first, calls
// that have not begun fail with [ErrClosed], and the error, which wraps ctx's
// cause, says what still runs. The thread is given back when that ends.
//
// Where it would have to wait for a function that waits for it, directly or
// through other waits of this module, it returns an error that matches
// deadlock.ErrDeadlock; the context closes all the same
// when that function ends.
func (tsc *ThreadSensitiveContext) Shutdown(ctx context.Context) error {
	tsc.check("Shutdown")
	checkCtx(ctx, "Shutdown")
	return tsc.scope.Shutdown(ctx)
}

// ContextStats is the state of a context at one moment. Contexts that share a
// thread share the figures.
type ContextStats = core.ScopeStats

// Stats returns the state of the context.
func (tsc *ThreadSensitiveContext) Stats() ContextStats {
	tsc.check("Stats")
	return tsc.scope.Stats()
}

// Taint has the OS thread of ctx's context destroyed, instead of used again,
// when the context gives it back: for code that has changed the thread for
// good, its namespace, its credentials, its signal mask.
//
// A caller that has become a thread for the length of an [AsyncToSync] stays
// locked to its OS thread, which ends with the goroutine. If that is the first
// thread of the process, which Go never ends, Taint returns [ErrFirstThread]: no
// other goroutine will run there, but the process as a whole shows its state
// (/proc/self, credentials). A main goroutine that runs on it, after
// [runtime.LockOSThread] in an init function, is such a caller. Threads of pools,
// and the default thread, are never the first, on systems where that can be told:
// Linux.
func Taint(ctx context.Context) error {
	checkCtx(ctx, "Taint")
	if s := core.ScopeOf(ctx); s != nil && !s.Taint() {
		return ErrFirstThread
	}
	return nil
}

// Detach returns ctx without its context and without its place among callers,
// for work that goes on in the background: what runs with it is nobody's
// relative, is not served by threads that are blocked, and, without [On], goes
// to the default thread. Values, deadline and cancellation stay, but for the
// cancellation of the task that it is called in: see [context.WithoutCancel]
// for the rest. So does the loop that ctx is on, if any: a task that is started
// with it is one of that.
func Detach(ctx context.Context) context.Context {
	checkCtx(ctx, "Detach")
	return core.Detach(ctx)
}

// RequireContext turns the default thread of the process off, or on again:
// while it is off, calls that find no context fail with [ErrNoContext]. It is
// meant for programs that embed others' code, and for tests.
func RequireContext(on bool) { core.Require(on) }
