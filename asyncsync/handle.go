package asyncsync

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync/atomic"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/goroutine"
)

// A Handle is a value that only its thread may touch: a database connection, a
// GL context, an interpreter. The thread is the handle's own. Open makes the
// value there, [Handle.Do] and [Get] run functions on it there, and it is
// closed there. Its methods may be called from anywhere.
//
// A handle that is collected without Close has its value closed on the thread,
// some time later, and the error of that is lost.
type Handle[T any] struct {
	tsc *ThreadSensitiveContext
	in  *handle[T]
	do  *toThread[doArg[T], struct{}] // the wrapper of calls by Do without options
}

// handle is what the thread keeps, to close the value on its way out. It must
// not refer to the context: that would keep a dropped Handle alive.
//
// Its fields belong to the thread; err and failed can be read by others once
// the context has closed.
type handle[T any] struct {
	value  T
	opened bool
	close  func(T) error
	err    error
	failed bool        // close has not returned
	told   atomic.Bool // somebody has been told of err and failed
}

// Open runs open on a new thread and returns a handle to the value it made.
// close, which may be nil, is run there at the end: after the last call, and
// before the functions of [OnThreadExit].
//
// If open returns an error so does Open; if it panics or calls Goexit so does
// Open; if ctx ends first its cause is returned. In all of these the thread is
// given back, and close is not called. The ctx that open gets ends with ctx:
// what is to last, open must not tie to it.
func Open[T any](ctx context.Context, open func(context.Context) (T, error), close func(T) error, opts ...ContextOption) (*Handle[T], error) {
	checkCtx(ctx, "Open")
	if open == nil {
		panic("asyncsync: Open: nil open function")
	}
	in := &handle[T]{close: close}
	cfg := *contextConfig("Open", opts)
	cfg.Fresh = true
	cfg.OnExit = append([]func(){in.exit}, cfg.OnExit...)
	h := &Handle[T]{tsc: &ThreadSensitiveContext{}, in: in, do: newDo[T]()}
	h.tsc.scope.MadeAt(1)
	h.tsc.scope.Init(context.Background(), &cfg)
	opened := false
	defer func() {
		if !opened {
			h.tsc.Close()
		}
	}()
	_, err := ToThread(ctx, func(ctx context.Context) (_ struct{}, err error) {
		in.value, err = open(ctx)
		in.opened = err == nil
		return struct{}{}, err
	}, On(h.tsc), pc(open))
	if err != nil {
		return nil, err
	}
	opened = true
	return h, nil
}

// Do runs fn with the value on the handle's thread, as [ToThread] does, and
// inline where the caller is on that thread already. After Close it fails with
// [ErrClosed].
func (h *Handle[T]) Do(ctx context.Context, fn func(context.Context, T) error, opts ...Option) error {
	h.check("Handle.Do")
	if fn == nil {
		panic("asyncsync: Handle.Do: nil function")
	}
	if len(opts) == 0 {
		if core.Inline(ctx, &h.tsc.scope) {
			return fn(ctx, h.in.value)
		}
		checkCtx(ctx, "Handle.Do")
		_, err := h.do.in(ctx, &h.tsc.scope, doArg[T]{h, fn})
		return err
	}
	s := applied("Handle.Do", opts)
	s.checkHandle("Handle.Do")
	if s.plain() && core.Inline(ctx, &h.tsc.scope) {
		s.free()
		return fn(ctx, h.in.value)
	}
	checkCtx(ctx, "Handle.Do")
	bindInterrupt(s, "Handle.Do", h.get)
	w := &toThread[doArg[T], struct{}]{fn: h.do.fn, pc: h.do.pc, settings: *s}
	s.free()
	_, err := w.in(ctx, &h.tsc.scope, doArg[T]{h, fn})
	return err
}

// get returns the value, for what runs while a function uses it.
func (h *Handle[T]) get() T { return h.in.value }

// doArg is the argument of a call by Do. It holds the handle, for as long as the call
// lasts.
type doArg[T any] struct {
	h  *Handle[T]
	fn func(context.Context, T) error
}

func newDo[T any]() *toThread[doArg[T], struct{}] {
	return &toThread[doArg[T], struct{}]{
		fn: func(ctx context.Context, a doArg[T]) (struct{}, error) { return struct{}{}, a.fn(ctx, a.h.in.value) },
		pc: func(a doArg[T]) uintptr { return core.FuncPC(a.fn) },
	}
}

// Get is [Handle.Do] for a function with a result.
func Get[T, R any](ctx context.Context, h *Handle[T], fn func(context.Context, T) (R, error), opts ...Option) (R, error) {
	h.check("Get")
	if fn == nil {
		panic("asyncsync: Get: nil function")
	}
	if len(opts) == 0 {
		if core.Inline(ctx, &h.tsc.scope) {
			return fn(ctx, h.in.value)
		}
		checkCtx(ctx, "Get")
		return oneGet[T, R]().in(ctx, &h.tsc.scope, getArg[T, R]{h, fn})
	}
	s := applied("Get", opts)
	s.checkHandle("Get")
	if s.plain() && core.Inline(ctx, &h.tsc.scope) {
		s.free()
		return fn(ctx, h.in.value)
	}
	checkCtx(ctx, "Get")
	bindInterrupt(s, "Get", h.get)
	w := &toThread[getArg[T, R], R]{fn: callGet[T, R], pc: (getArg[T, R]).pc, settings: *s}
	s.free()
	return w.in(ctx, &h.tsc.scope, getArg[T, R]{h, fn})
}

// getArg is doArg for Get.
type getArg[T, R any] struct {
	h  *Handle[T]
	fn func(context.Context, T) (R, error)
}

func (a getArg[T, R]) pc() uintptr { return core.FuncPC(a.fn) }

// oneGet returns the wrapper of all calls of Get for these types without options, as
// oneShot does.
func oneGet[T, R any]() *toThread[getArg[T, R], R] {
	key := reflect.TypeFor[getArg[T, R]]()
	w, ok := oneShots.Load(key)
	if !ok {
		w, _ = oneShots.LoadOrStore(key, &toThread[getArg[T, R], R]{fn: callGet[T, R], pc: (getArg[T, R]).pc})
	}
	return w.(*toThread[getArg[T, R], R])
}

func callGet[T, R any](ctx context.Context, a getArg[T, R]) (R, error) {
	return a.fn(ctx, a.h.in.value)
}

// Value returns the value to code that runs on the handle's thread, and
// [ErrWrongThread] to any other.
func (h *Handle[T]) Value() (T, error) {
	h.check("Value")
	if !h.tsc.scope.Here() {
		return zero[T](), fmt.Errorf("%w: Value of a Handle of %v, %s, is for functions on its own thread, and was called on goroutine %d", ErrWrongThread, reflect.TypeFor[T](), h.tsc.scope.Describe(), goroutine.ID())
	}
	return h.in.value, nil
}

// Close refuses new calls, runs those that were accepted, closes the value on
// its thread, gives the thread back, and returns the error of the closing. If
// the close function panics or calls Goexit, so does Close.
//
// Called on the handle's own thread, or from async code below a function that
// runs there, it returns at once, and the rest happens when that function
// ends; what the close function comes to then, the next Close from outside
// says. Only one Close is told; any other waits and returns nil.
func (h *Handle[T]) Close() error {
	h.check("Close")
	if !h.tsc.scope.CloseAndWait() {
		return nil
	}
	return h.outcome()
}

// Shutdown is Close with an end to its patience, as for
// [ThreadSensitiveContext.Shutdown]: when ctx ends first, calls that have not
// begun fail with [ErrClosed], and the error, which wraps ctx's cause, says what
// still runs. When that has ended the value is closed and the thread given back;
// what the close function comes to then, the next Close or Shutdown says.
//
// Where it would have to wait for a function that waits for it, it returns an
// error that matches deadlock.ErrDeadlock, and the handle closes all the same when
// that function ends.
func (h *Handle[T]) Shutdown(ctx context.Context) error {
	h.check("Shutdown")
	checkCtx(ctx, "Shutdown")
	if err := h.tsc.scope.ShutdownAndWait(ctx); err != nil {
		return err
	}
	return h.outcome()
}

// outcome says what the close function and those of OnThreadExit have come to, to
// the first who asks.
func (h *Handle[T]) outcome() error {
	if h.in.told.Swap(true) {
		return nil
	}
	err := h.tsc.scope.Close()
	if h.in.failed {
		h.tsc.scope.ExitFailure().Raise()
	}
	return errors.Join(h.in.err, err)
}

// closeQuietly is Close for one who is not to end as the close function does, but to
// be told: by an error.
func (h *Handle[T]) closeQuietly() error {
	if !h.tsc.scope.CloseAndWait() {
		return nil
	}
	h.in.told.Store(true)
	err := h.tsc.scope.Close()
	return errors.Join(h.in.err, err)
}

func (h *Handle[T]) check(what string) {
	if h == nil || h.in == nil {
		panic("asyncsync: " + what + ": nil Handle, or one not made by Open")
	}
}

// exit closes the value. It is the thread's first exit function.
func (in *handle[T]) exit() {
	if !in.opened {
		return
	}
	v := in.value
	in.value, in.opened = zero[T](), false
	if in.close == nil {
		return
	}
	in.failed = true
	if err := in.close(v); err != nil {
		in.err = fmt.Errorf("asyncsync: closing a Handle: %w", err)
	}
	in.failed = false
}

// pc names the call after the user's function instead of the closure around it.
func pc(fn any) Option {
	return func(s *settings) {
		if s.PC == 0 {
			s.PC = core.FuncPC(fn)
		}
	}
}
