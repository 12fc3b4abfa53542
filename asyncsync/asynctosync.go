package asyncsync

import (
	"cmp"
	"context"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/loop"
)

// AsyncToSync wraps async function fn for sync code. The result, called on a
// thread, runs fn on another goroutine and waits for it. While it waits, the
// thread serves: it runs the thread-sensitive calls made below fn on top of the
// blocked function, to any depth. The thread's [Policy] says which other calls
// it serves.
//
// Where fn runs depends on the caller:
//
//   - A goroutine that is no thread, with a ctx that belongs to no context,
//     task, group or call, becomes a thread for the duration of the call. It is
//     locked to its OS thread, and the thread-sensitive calls below come back
//     to it. If main calls it so, after [runtime.LockOSThread] in an init
//     function, the program's main thread becomes available to everything
//     below. GUIs need that.
//   - Async code calls fn directly, or with [Abandon] on a goroutine of its
//     own. The same holds for a task of a loop.
//   - A function posted to a loop of [loop.NewThread] or [loop.FromPost] would
//     block that loop. There the call returns [loop.ErrOnLoop]. A function
//     posted to a [CurrentThreadExecutor] or a [PoolExecutor] is sync code on a
//     thread, and its thread serves.
//   - Sync code called by a task of a loop runs fn as a task of that loop: see
//     [loop.Host]. Below an [AsyncSingleThreadContext], fn becomes a task on
//     that context's thread.
//
// The ctx of fn is derived from ctx. When ctx ends, fn sees it. The call still
// waits until fn ends, and the thread serves meanwhile. Endings, local
// variables and synchronization are as for [SyncToAsync]. A call that is still
// queued on the thread when the wait ends is not lost: it runs in a wait
// further down the stack that depends on it, or when the thread is free again.
//
// The idea that a blocked thread lends itself to what it waits for comes from
// asgiref.
func AsyncToSync[A, R any](fn Func[A, R], opts ...Option) Func[A, R] {
	if fn == nil {
		panic("asyncsync: AsyncToSync: nil function")
	}
	s := apply("AsyncToSync", opts)
	s.checkFromThread("AsyncToSync")
	w := &fromThread[A, R]{settings: &s, fn: fn, pc: core.FuncPC(fn)}
	return w.call
}

// FromThread is [AsyncToSync] for a function that is called once.
func FromThread[R any](ctx context.Context, fn func(context.Context) (R, error), opts ...Option) (R, error) {
	if fn == nil {
		panic("asyncsync: FromThread: nil function")
	}
	w := fromThread[func(context.Context) (R, error), R]{settings: asyncSettings("FromThread", opts), fn: callArg[R], pc: core.FuncPC(fn)}
	result, err := w.call(ctx, fn)
	w.free()
	return result, err
}

// DoAsync is [FromThread] for a function without a result.
func DoAsync(ctx context.Context, fn func(context.Context) error, opts ...Option) error {
	if fn == nil {
		panic("asyncsync: DoAsync: nil function")
	}
	w := fromThread[func(context.Context) error, struct{}]{settings: asyncSettings("DoAsync", opts), fn: oneDo.fn, pc: core.FuncPC(fn)}
	_, err := w.call(ctx, fn)
	w.free()
	return err
}

// noSettings are the settings of all calls without options. They must not be
// changed.
var noSettings settings

// asyncSettings returns the settings of an async function that is called once. They are
// not on the stack, because the caller's frame is there once for each level of a
// nesting and would be half as large again. Give them back with free.
func asyncSettings(what string, opts []Option) *settings {
	if len(opts) == 0 {
		return &noSettings
	}
	s := applied(what, opts)
	s.checkFromThread(what)
	return s
}

// record returns the record of a call.
func (w *fromThread[A, R]) record(arg A) *record[A, R] {
	r := &record[A, R]{fn: w.fn, arg: arg}
	r.SetPC(w.pc)
	return r
}

// fromThread is a wrapped async function.
type fromThread[A, R any] struct {
	*settings
	fn Func[A, R]
	pc uintptr // of the user's function
}

// call handles a caller that is a thread, the most frequent case. Its frame is on the
// thread's stack once for each level of a nesting, so all other cases are in elsewhere.
func (w *fromThread[A, R]) call(ctx context.Context, arg A) (R, error) {
	checkCtx(ctx, "call of an AsyncToSync function")
	ctx = core.Afterlife(ctx)
	if core.Here() == nil || w.loop != nil || w.sameThread {
		return w.elsewhere(ctx, arg)
	}
	home := core.Host(ctx)
	if home != nil && home.Loop == nil {
		return w.elsewhere(ctx, arg)
	}
	r := w.record(arg)
	if err := core.Away(ctx, &r.FullCall, r, &w.Options, core.OnHome(home)); err != nil {
		return zero[R](), err
	}
	return r.outcome()
}

// elsewhere is call for callers that are no thread, and for options that say where the
// function runs.
func (w *fromThread[A, R]) elsewhere(ctx context.Context, arg A) (R, error) {
	parks, blocks := core.OnLoop()
	switch {
	case blocks:
		return zero[R](), cmp.Or(core.Ended(ctx), loop.ErrOnLoop)
	case w.sameThread:
		return w.here(ctx, arg)
	}
	if own, ok := w.loop.(*CurrentThreadExecutor); ok {
		// A posted function would wait for a RunUntil that may be further down on the
		// stack, or may never come.
		switch here, err := own.here(); {
		case err != nil:
			return zero[R](), cmp.Or(core.Ended(ctx), err)
		case here:
			return w.here(ctx, arg)
		}
	}
	var home *core.Home
	bare := core.Bare(ctx)
	switch {
	case w.loop != nil:
		home = core.HomeOf(w.loop)
	case bare && !parks && core.Here() == nil:
		// No task has called the caller, which is about to become sync code. It may
		// still have entered an AsyncSingleThreadContext.
		if h := core.LoopOf(ctx); h != nil && h.Loop == nil {
			home = h
		}
	default:
		home = core.Host(ctx)
	}
	if home != nil && home.Loop == nil {
		single := home.Owner.(*AsyncSingleThreadContext)
		h, err := single.enter()
		if err != nil {
			return zero[R](), cmp.Or(core.Ended(ctx), err)
		}
		defer single.thread.leave()
		home = h
	}
	r := w.record(arg)
	var err error
	switch {
	case core.Here() != nil || w.loop == nil && home != nil && !bare || w.loop != nil && (parks || !bare):
		err = core.Away(ctx, &r.FullCall, r, &w.Options, core.OnHome(home))
	case bare && !parks:
		err = core.Adopt(ctx, &r.FullCall, r, &w.Options, core.OnHome(home))
	case w.Options.Abandon:
		err = core.Away(ctx, &r.FullCall, r, &w.Options, core.OnHome(home))
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
	return r.outcome()
}

// here runs the function on the calling goroutine.
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
	r := w.record(arg)
	r.RunInline(ctx, scope, r, &w.Options)
	return r.result, r.err
}
