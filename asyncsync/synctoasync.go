package asyncsync

import (
	"cmp"
	"context"
	"reflect"
	"sync"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// Func is a function that can be sent across threads.
type Func[A, R any] func(ctx context.Context, arg A) (R, error)

// SyncToAsync wraps thread-sensitive function fn. The result, called from
// anywhere, runs fn on the right thread and waits for it. The wrapper may be
// made at any time, kept, and used by many goroutines at once.
//
// Each call looks the thread up. It is, in this order:
//
//   - the thread of the context named with [On];
//   - the thread of whichever ctx met last: a [ThreadSensitiveContext], or a
//     sync caller that is blocked above;
//   - the default thread of the process. [RequireContext] turns that off: then
//     the call fails with [ErrNoContext].
//
// A caller that is already on that thread runs fn inline, at the cost of a
// plain call. A caller on another thread keeps serving that thread while it
// waits.
//
// The ctx of fn carries the thread: calls made with it come back to the thread.
// fn sees the local variables of the caller, and the caller sees what fn has
// set.
//
// What happens before the call synchronizes before fn begins, and the end of fn
// synchronizes before the call returns. The caller ends as fn did: it returns
// what fn returned, panics with the same value, or calls [runtime.Goexit]. The
// thread survives all three.
//
// If ctx ends before fn has begun, fn does not run and the call returns the
// cause. If ctx ends while fn runs, fn sees that in its own ctx, and the call
// returns what fn returns. [Abandon] and [Interrupt] change that.
//
// The call fails with [ErrClosed] if the context is closed, and with
// [ErrQueueFull] if its queue is full. If fn could never run, because the
// thread is blocked in a wait for the caller and does not serve the call, the
// error matches deadlock.ErrDeadlock.
//
// SyncToAsync and the order of the look-up come from asgiref. In asgiref the
// sync caller above wins over any context entered below it.
func SyncToAsync[A, R any](fn Func[A, R], opts ...Option) Func[A, R] {
	if fn == nil {
		panic("asyncsync: SyncToAsync: nil function")
	}
	w := &toThread[A, R]{fn: fn, settings: apply("SyncToAsync", opts)}
	w.checkToThread("SyncToAsync")
	w.PC = core.FuncPC(fn)
	w.plain = w.settings.plain()
	return w.call
}

// ToThread is [SyncToAsync] for a function that is called once.
func ToThread[R any](ctx context.Context, fn func(context.Context) (R, error), opts ...Option) (R, error) {
	if fn == nil {
		panic("asyncsync: ToThread: nil function")
	}
	if len(opts) == 0 {
		if core.Inline(ctx, nil) {
			return fn(ctx)
		}
		return oneShot[R]().call(ctx, fn)
	}
	s := applied("ToThread", opts)
	s.checkToThread("ToThread")
	if s.plain() && core.Inline(ctx, s.on.core()) {
		s.free()
		return fn(ctx)
	}
	w := &toThread[func(context.Context) (R, error), R]{fn: callArg[R], settings: *s, pc: argPC[R]}
	s.free()
	return w.call(ctx, fn)
}

// Do is [ToThread] for a function without a result. [Handle.Do] and
// [HandlePool.Do] do the same for a function that takes a value. [DoAsync] is
// the opposite direction.
func Do(ctx context.Context, fn func(context.Context) error, opts ...Option) error {
	if fn == nil {
		panic("asyncsync: Do: nil function")
	}
	if len(opts) == 0 {
		if core.Inline(ctx, nil) {
			return fn(ctx)
		}
		_, err := oneDo.call(ctx, fn)
		return err
	}
	s := applied("Do", opts)
	s.checkToThread("Do")
	if s.plain() && core.Inline(ctx, s.on.core()) {
		s.free()
		return fn(ctx)
	}
	w := &toThread[func(context.Context) error, struct{}]{fn: oneDo.fn, pc: oneDo.pc, settings: *s}
	s.free()
	_, err := w.call(ctx, fn)
	return err
}

// oneDo is the wrapper that all calls of Do without options share.
var oneDo = &toThread[func(context.Context) error, struct{}]{
	fn: func(ctx context.Context, fn func(context.Context) error) (struct{}, error) {
		return struct{}{}, fn(ctx)
	},
	pc:    func(fn func(context.Context) error) uintptr { return core.FuncPC(fn) },
	plain: true,
}

// callArg is the function of a wrapper for functions that are called once: the
// argument is the user's function.
func callArg[R any](ctx context.Context, fn func(context.Context) (R, error)) (R, error) {
	return fn(ctx)
}

// argPC returns the entry of the function that such a call is named after.
func argPC[R any](fn func(context.Context) (R, error)) uintptr { return core.FuncPC(fn) }

// oneShot returns the wrapper that all calls of [ToThread] with results of type R
// and without options share. So these calls share its records too.
func oneShot[R any]() *toThread[func(context.Context) (R, error), R] {
	key := reflect.TypeFor[R]()
	w, ok := oneShots.Load(key)
	if !ok {
		w, _ = oneShots.LoadOrStore(key, &toThread[func(context.Context) (R, error), R]{fn: callArg[R], plain: true, pc: argPC[R]})
	}
	return w.(*toThread[func(context.Context) (R, error), R])
}

var oneShots sync.Map // reflect.Type of the result, or the argument -> *toThread

// toThread is a wrapped thread-sensitive function.
type toThread[A, R any] struct {
	settings
	fn      Func[A, R]
	plain   bool            // no option changes where or how an inline call runs
	pc      func(A) uintptr // returns the function in the argument that a call is named after; or nil
	records sync.Pool       // of *record[A, R]
}

func (w *toThread[A, R]) call(ctx context.Context, arg A) (R, error) {
	if w.plain && core.Inline(ctx, w.on.core()) {
		return w.fn(ctx, arg)
	}
	checkCtx(ctx, "call of a SyncToAsync function")
	if w.insensitive {
		return w.anywhere(ctx, arg)
	}
	scope, err := core.Resolve(ctx, w.on.core())
	if err != nil {
		return zero[R](), err
	}
	// The rest is that of in. Calling in would put one more frame on the stack of a
	// nesting for each level.
	if scope.Here() {
		return w.inline(ctx, scope, arg)
	}
	r := w.record(arg)
	if err := scope.Do(ctx, &r.FullCall, r, &w.Options); err != nil {
		return zero[R](), err
	}
	return w.result(r)
}

// in runs the function on the thread of scope.
func (w *toThread[A, R]) in(ctx context.Context, scope *core.Scope, arg A) (R, error) {
	if scope.Here() {
		return w.inline(ctx, scope, arg)
	}
	r := w.record(arg)
	if err := scope.Do(ctx, &r.FullCall, r, &w.Options); err != nil {
		return zero[R](), err
	}
	return w.result(r)
}

// result ends the caller as the function has ended, and recycles r.
func (w *toThread[A, R]) result(r *record[A, R]) (R, error) {
	e := r.Ending()
	if e.Goexit {
		r.Raise() // the stack of the thread may still refer to r
	}
	result, err := r.result, r.err
	w.free(r)
	if e.Panic != nil {
		core.Raise(e)
	}
	return result, err
}

// inline runs the function where it is called: on the thread.
func (w *toThread[A, R]) inline(ctx context.Context, scope *core.Scope, arg A) (result R, err error) {
	ctx = core.Afterlife(ctx)
	if err := core.Ended(ctx); err != nil {
		return zero[R](), err
	}
	scope.CountInline()
	entered, err := scope.EnterInline()
	if err != nil {
		return zero[R](), scope.Named(err, w.Name)
	}
	if entered {
		defer scope.LeaveInline()
	}
	ctx = scope.Context(ctx)
	if core.Plain(&w.Options, scope) {
		return w.fn(ctx, arg)
	}
	r := &record[A, R]{fn: w.fn, arg: arg}
	w.name(r)
	r.RunInline(ctx, scope, r, &w.Options)
	return r.result, r.err
}

// anywhere runs a function that is not thread-sensitive. It uses the executor,
// if there is one. Otherwise it uses a goroutine of its own if the caller is a
// thread or may abandon the call, and the caller's goroutine if not.
func (w *toThread[A, R]) anywhere(ctx context.Context, arg A) (R, error) {
	ctx = core.Afterlife(ctx)
	r := &record[A, R]{fn: w.fn, arg: arg}
	w.name(r)
	own, _ := w.executor.(*CurrentThreadExecutor)
	here, stopped := own.here()
	parks, _ := core.OnLoop()
	limiter := w.limiter
	if limiter == nil && w.executor == nil && parks {
		limiter = DefaultLimiter(ctx)
	}
	if limiter != nil {
		r.fn = func(ctx context.Context, arg A) (R, error) { return limited(ctx, limiter, w.fn, arg) }
	}
	if w.executor == nil && !w.Options.Abandon && !parks && core.Here() == nil || here {
		if err := cmp.Or(core.Ended(ctx), stopped); err != nil {
			return zero[R](), err
		}
		r.RunInline(ctx, core.ScopeOf(ctx), r, &w.Options)
		return r.result, r.err
	}
	e := core.OnGoroutine
	if w.executor != nil {
		e = &core.Elsewhere{Post: w.executor.Post}
		if l, ok := w.executor.(loop.Loop); ok {
			e.Stopped, e.Err = l.Done(), loop.ErrStopped
		}
	}
	if err := core.Away(ctx, &r.FullCall, r, &w.Options, e); err != nil {
		return zero[R](), err
	}
	return r.outcome()
}

// limited calls fn under l.
func limited[A, R any](ctx context.Context, l *task.Limiter, fn Func[A, R], arg A) (R, error) {
	leave, err := core.EnterLimiter(l, ctx)
	if err != nil {
		return zero[R](), err
	}
	defer leave()
	return fn(ctx, arg)
}

// defaultTokens is how many tokens a default limiter has. It is anyio's number.
const defaultTokens = 40

// DefaultLimiter returns the limiter for insensitive calls that tasks of a
// thread loop make without [WithLimiter] or [WithExecutor]. Each such call runs
// on a goroutine of its own, so without a limiter a loop with many tasks would
// start as many goroutines. The limiter has 40 tokens, which SetTotal changes,
// and lasts as long as the loop.
//
// ctx must be the ctx of code that runs on the loop or was called from there.
// For any other ctx DefaultLimiter returns nil: elsewhere insensitive calls are
// not limited. A nil ctx panics.
//
// It is anyio's current_default_thread_limiter.
func DefaultLimiter(ctx context.Context) *task.Limiter {
	checkCtx(ctx, "DefaultLimiter")
	h := core.LoopOf(ctx)
	if h == nil || !h.Serial {
		return nil
	}
	if l, ok := h.Limiter.Load().(*task.Limiter); ok {
		return l
	}
	h.Limiter.CompareAndSwap(nil, task.NewLimiter(defaultTokens))
	return h.Limiter.Load().(*task.Limiter)
}

// A record is one call: the part that all calls have in common, and the typed
// part.
type record[A, R any] struct {
	core.FullCall
	fn     Func[A, R]
	arg    A
	result R
	err    error
}

// Run runs the function. Package core calls it once.
func (r *record[A, R]) Run(ctx context.Context) { r.result, r.err = r.fn(ctx, r.arg) }

// Forget drops the references to the function and its argument: see core.
func (r *record[A, R]) Forget() {
	var arg A
	r.fn, r.arg = nil, arg
}

// Err tells hooks what the function returned.
func (r *record[A, R]) Err() error { return r.err }

// outcome ends the caller as the function has ended. The ctx of the function leads to the
// record, and may be kept: so the record lets go of all that is the user's.
func (r *record[A, R]) outcome() (R, error) {
	result, err, e := r.result, r.err, r.Take()
	r.Forget()
	r.result, r.err = zero[R](), nil
	core.Raise(e)
	return result, err
}

func (w *toThread[A, R]) record(arg A) *record[A, R] {
	r, _ := w.records.Get().(*record[A, R])
	if r == nil {
		r = new(record[A, R])
	}
	r.fn, r.arg = w.fn, arg
	w.name(r)
	return r
}

// name names the call after the user's function.
func (w *toThread[A, R]) name(r *record[A, R]) {
	if w.pc != nil && w.PC == 0 {
		r.SetPC(w.pc(r.arg))
	}
}

// free recycles a record that nothing else refers to: the function has returned
// or panicked, and the caller has been told. Other records are left to the
// garbage collector. After a Goexit the thread's stack may hold one for a long
// time.
func (w *toThread[A, R]) free(r *record[A, R]) {
	if !r.Reset() {
		return
	}
	var arg A
	r.fn, r.arg, r.result, r.err = nil, arg, zero[R](), nil
	w.records.Put(r)
}

func zero[R any]() (r R) { return }
