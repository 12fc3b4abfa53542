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
	// ErrQueueFull is returned for calls beyond [QueueLimit]. It is also matched by
	// the errors of calls with [IfFree] that would have to wait, and of calls that
	// have waited for longer than [QueueWait] allows.
	ErrQueueFull = core.ErrQueueFull
	// ErrPoolFull is matched by the errors of calls that find as many waiting for
	// their pool as [ThreadPoolConfig] allows, or that have waited for a thread for
	// longer than ThreadPoolConfig or [QueueWait] allows.
	ErrPoolFull = core.ErrPoolFull
	// ErrNoContext is returned when no thread is known and [RequireContext] forbids
	// the default one.
	ErrNoContext = core.ErrNoContext
	// ErrWrongThread is returned when something is used on a thread or goroutine
	// that it does not belong to.
	ErrWrongThread = errors.New("asyncsync: wrong thread")
	// ErrFirstThread is returned by [Taint] for a thread that never ends.
	ErrFirstThread = errors.New("asyncsync: the first OS thread of the process cannot be ended")
)

// A ThreadSensitiveContext is a scope in which all thread-sensitive calls run
// on one thread, one at a time: a request, a session, a database. Make one with
// [NewThreadSensitiveContext]; it travels in the ctx returned there. Its
// methods may be called from anywhere.
//
// It takes a thread from a pool at its first call and keeps it until it is
// closed. A context that is garbage collected without having been closed gives
// its thread back some time later.
//
// The name and the idea are asgiref's.
type ThreadSensitiveContext struct{ scope core.Scope }

// core returns the scope of tsc, or nil if tsc is nil.
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

// NewThreadSensitiveContext returns a context, and a ctx that carries it. It
// costs an allocation or two. It starts no thread; the first call does.
//
// If ctx already carries a context, the new one shares its thread. Then all
// options but [WithName] and [WithHooks] are those of the outermost context. A
// nested context can be closed by itself. Closing a context also closes those
// inside it. To get an independent context, [Detach] the ctx first. A nil ctx
// panics.
func NewThreadSensitiveContext(ctx context.Context, opts ...ContextOption) (context.Context, *ThreadSensitiveContext) {
	checkCtx(ctx, "NewThreadSensitiveContext")
	tsc := &ThreadSensitiveContext{}
	tsc.scope.MadeAt(1)
	return tsc.scope.Init(ctx, contextConfig("NewThreadSensitiveContext", opts)), tsc
}

// WithThreadSensitiveContext calls fn on the calling goroutine with a ctx that
// carries a new context. It closes the context when fn returns, panics or calls
// [runtime.Goexit]. It joins the errors of fn and of Close.
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

// Close closes the context: new calls are refused with [ErrClosed], calls that
// were accepted run, and the thread goes back to its pool. Close waits for all
// that. Calls nested in a function that still runs are served until it ends.
// Close cancels no ctx.
//
// Close does not wait if the thread waits for its caller. That is the case on
// the context's own thread, and in a function or task that the thread is
// blocked for, or becomes blocked for while Close waits, also by way of other
// waits. Then Close refuses new calls and returns; the rest happens when the
// function on the thread ends. The library cannot see that a goroutine started
// with a plain go statement is below a function: Close waits there, even for a
// function that waits for that goroutine. Called on another thread, Close
// serves that thread while it waits.
//
// Close returns the failures of [OnThreadExit] functions. Only the first Close
// that has waited for the end returns them; any other Close returns nil.
func (tsc *ThreadSensitiveContext) Close() error {
	tsc.check("Close")
	return tsc.scope.Close()
}

// Shutdown is Close with a limit on the wait. If ctx ends first, calls that
// have not begun fail with [ErrClosed]. Shutdown then returns an error that
// wraps the cause of ctx and says what still runs. The thread goes back to its
// pool when that has ended.
//
// If Shutdown would have to wait for a function that waits for it, directly or
// through other waits of this module, it returns an error that matches
// deadlock.ErrDeadlock. The context still closes when that function ends.
func (tsc *ThreadSensitiveContext) Shutdown(ctx context.Context) error {
	tsc.check("Shutdown")
	checkCtx(ctx, "Shutdown")
	return tsc.scope.Shutdown(ctx)
}

// ContextStats is the state of a context at one moment. Contexts that share a
// thread share the figures. Its fields are Name, Thread (the id of the OS
// thread, 0 while there is none), Queued, Running, Calls and Closed.
type ContextStats = core.ScopeStats

// Stats returns the state of the context. All but Name and Closed are those of its
// thread, which other contexts may share: those nested in it, and with [WithThread] all
// that use the executor.
func (tsc *ThreadSensitiveContext) Stats() ContextStats {
	tsc.check("Stats")
	return tsc.scope.Stats()
}

// Taint marks the OS thread of ctx's context as unusable: when the context
// gives it back, the thread is destroyed instead of used again. It is for code
// that has changed the thread for good: its namespace, its credentials, its
// signal mask.
//
// A caller that became a thread for the duration of an [AsyncToSync] stays
// locked to its OS thread, which ends with the goroutine. Go never ends the
// first thread of the process. If the caller runs on that one, as a main
// goroutine does after [runtime.LockOSThread] in an init function, Taint
// returns [ErrFirstThread]. Then no other goroutine will run on that thread,
// but the process as a whole shows its state (/proc/self, credentials). On
// Linux, where the first thread can be told apart, threads of pools and the
// default thread are never the first.
//
// If ctx has no context, which the ctx of a function on the default thread has not
// either, Taint returns an error that matches [ErrNoContext]: the default thread
// is never given back, and keeps the change.
func Taint(ctx context.Context) error {
	checkCtx(ctx, "Taint")
	s := core.ScopeOf(ctx)
	switch {
	case s == nil || s.IsDefault():
		return errTaintsNothing
	case !s.Taint():
		return ErrFirstThread
	}
	return nil
}

// errTaintsNothing is ErrNoContext for Taint.
var errTaintsNothing error = taintsNothingError{}

type taintsNothingError struct{}

func (taintsNothingError) Error() string {
	return "asyncsync: Taint: ctx has no ThreadSensitiveContext, and the default thread is never given back: run the function in a context"
}

func (taintsNothingError) Is(target error) bool { return target == ErrNoContext }

// Detach returns ctx without its context and without its place among callers,
// for work in the background. What runs with the result is related to no
// caller. Blocked threads do not serve its calls, which go to the default
// thread unless [On] says otherwise.
//
// The result keeps the values, the deadline and the cancellation of ctx, except
// the cancellation of the task in which Detach is called.
// [context.WithoutCancel] drops the rest. The result also keeps the loop of
// ctx, if any: a task started with it runs on that loop.
func Detach(ctx context.Context) context.Context {
	checkCtx(ctx, "Detach")
	return core.Detach(ctx)
}

// RequireContext turns the default thread of the process off (true) or on
// (false). While it is off, calls that find no context fail with
// [ErrNoContext]. This is for programs that embed code by others, and for
// tests.
func RequireContext(on bool) { core.Require(on) }
