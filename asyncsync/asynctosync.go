package asyncsync

import (
	"cmp"
	"context"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/loop"
)

// AsyncToSync wraps async fn for sync code: the result, called on a thread,
// runs fn on a goroutine that is not the thread and waits for it. While it
// waits the thread serves: it runs the thread-sensitive calls made below fn,
// on top of the function that is blocked, to any depth. Which calls else it
// serves is the thread's [Policy].
//
// Called from a goroutine that is no thread and whose ctx carries no context,
// the goroutine becomes a thread for the duration, locked to its OS thread:
// what is called below comes back to it. Called so from main, after
// [runtime.LockOSThread] in an init function, it makes the program's main
// thread available to everything below: what a GUI needs.
//
// Called from async code, fn is called directly, or with [Abandon] on a
// goroutine of its own. So it is in a task of a loop; in a function posted to a
// loop, which would block it for its own sake, the call returns
// [loop.ErrOnLoop].
//
// Called from sync code that a task of a loop has called, fn becomes a task of that
// loop (see [loop.Host]). Below an [AsyncSingleThreadContext] it becomes a task on the
// one thread of that.
//
// fn's ctx is derived from ctx. When ctx ends fn sees it, and the call waits
// for what fn makes of it, serving meanwhile. Endings, local variables and
// what synchronizes with what are as for [SyncToAsync]. A call that is queued
// on the thread when the wait ends is not lost: it is run by a wait below that
// depends on it, or when the thread is free again.
//
// The idea, and the rule that a blocked thread lends itself to what it waits
// for, are asgiref's.
func AsyncToSync[A, R any](fn Func[A, R], opts ...Option) Func[A, R] {
	if fn == nil {
		panic("asyncsync: AsyncToSync: nil function")
	}
	w := &fromThread[A, R]{fn: fn, settings: apply("AsyncToSync", opts)}
	w.checkFromThread("AsyncToSync")
	w.PC = core.FuncPC(fn)
	return w.call
}

// FromThread is [AsyncToSync] for a function that is called once.
func FromThread[R any](ctx context.Context, fn func(context.Context) (R, error), opts ...Option) (R, error) {
	if fn == nil {
		panic("asyncsync: FromThread: nil function")
	}
	w := fromThread[struct{}, R]{settings: apply("FromThread", opts)}
	w.checkFromThread("FromThread")
	w.PC = core.FuncPC(fn)
	w.fn = func(ctx context.Context, _ struct{}) (R, error) { return fn(ctx) }
	return w.call(ctx, struct{}{})
}

// DoAsync is [FromThread] for a function without a result.
func DoAsync(ctx context.Context, fn func(context.Context) error, opts ...Option) error {
	if fn == nil {
		panic("asyncsync: DoAsync: nil function")
	}
	w := fromThread[func(context.Context) error, struct{}]{settings: apply("DoAsync", opts), fn: oneDo.fn}
	w.checkFromThread("DoAsync")
	w.PC = core.FuncPC(fn)
	_, err := w.call(ctx, fn)
	return err
}

// fromThread is a wrapped async function.
type fromThread[A, R any] struct {
	settings
	fn Func[A, R]
}

func (w *fromThread[A, R]) call(ctx context.Context, arg A) (R, error) {
	checkCtx(ctx, "call of an AsyncToSync function")
	ctx = core.Afterlife(ctx)
	parks, blocks := core.OnLoop()
	switch {
	case blocks:
		return zero[R](), cmp.Or(core.Ended(ctx), loop.ErrOnLoop)
	case w.sameThread:
		return w.here(ctx, arg)
	}
	if own, ok := w.loop.(*CurrentThreadExecutor); ok {
		// Posted, it would wait for a RunUntil that may be below, or not be at all.
		switch here, err := own.here(); {
		case err != nil:
			return zero[R](), cmp.Or(core.Ended(ctx), err)
		case here:
			return w.here(ctx, arg)
		}
	}
	r := &record[A, R]{fn: w.fn, arg: arg}
	var e core.Elsewhere
	bare := core.Bare(ctx)
	switch {
	case w.loop != nil:
		e.Home = core.HomeOf(w.loop)
	case bare && !parks && core.Here() == nil:
		// The caller is going to be sync code: no task has called it, but it may
		// have entered a context.
		if h := core.LoopOf(ctx); h != nil && h.Loop == nil {
			e.Home = h
		}
	default:
		e.Home = core.Host(ctx)
	}
	if e.Home != nil && e.Home.Loop == nil {
		single := e.Home.Owner.(*AsyncSingleThreadContext)
		h, err := single.enter()
		if err != nil {
			return zero[R](), cmp.Or(core.Ended(ctx), err)
		}
		defer single.thread.leave()
		e.Home = h
	}
	var err error
	switch {
	case core.Here() != nil || w.loop == nil && e.Home != nil && !bare || w.loop != nil && (parks || !bare):
		err = core.Away(ctx, &r.Call, r, &w.Options, e)
	case bare && !parks:
		err = core.Adopt(ctx, &r.Call, r, &w.Options, e)
	case w.Options.Abandon:
		err = core.Away(ctx, &r.Call, r, &w.Options, e)
	default:
		if err := core.Ended(ctx); err != nil {
			return zero[R](), err
		}
		r.RunInline(ctx, core.ScopeOf(ctx), r, &w.Options)
		return r.result, r.err
	}
	if err != nil {
		return zero[R](), err
	}
	r.Raise()
	return r.result, r.err
}

// here runs the function on the goroutine that calls.
func (w *fromThread[A, R]) here(ctx context.Context, arg A) (R, error) {
	if err := core.Ended(ctx); err != nil {
		return zero[R](), err
	}
	if t := core.Here(); t != nil {
		ctx = t.Context(ctx)
	} else if parks, _ := core.OnLoop(); core.Bare(ctx) && !parks {
		var release func()
		ctx, release = core.Become(ctx, w.Name)
		defer release()
	}
	scope := core.ScopeOf(ctx)
	if core.Plain(&w.Options, scope) {
		return w.fn(ctx, arg)
	}
	r := &record[A, R]{fn: w.fn, arg: arg}
	r.RunInline(ctx, scope, r, &w.Options)
	return r.result, r.err
}
