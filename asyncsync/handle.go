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
// GL context, an interpreter. The handle owns the thread. [Open] makes the
// value there, [Handle.Do] and [Get] run functions on it there, and
// [Handle.Close] closes it there. The methods may be called from anywhere.
//
// If a handle is garbage collected without Close, its value is closed on the
// thread some time later. The error of that is lost.
type Handle[T any] struct {
	tsc *ThreadSensitiveContext
	in  *handle[T]
	do  *toThread[doArg[T], struct{}] // the wrapper for calls of Do without options
}

// handle is the part that the thread keeps, to close the value when the thread
// ends. It must not refer to the context: that would keep a dropped Handle
// alive.
//
// Its fields belong to the thread. Others may read err and ending once the
// context has closed.
type handle[T any] struct {
	value  T
	opened bool
	close  func(T) error
	err    error
	ending core.Ending // of the close function
	told   atomic.Bool // err and ending have been reported to a caller
}

// Open runs open on a new thread and returns a handle to the value that open
// made. close may be nil. It runs on the thread at the end, after the last call
// and before the functions of [OnThreadExit].
//
// If open returns an error, panics or calls Goexit, Open does the same. If ctx
// ends first, Open returns its cause. In all these cases the thread is given
// back and close is not called. The ctx of open ends with ctx, so do not tie
// anything to it that must last. A nil ctx or open panics.
func Open[T any](ctx context.Context, open func(context.Context) (T, error), close func(T) error, opts ...ContextOption) (*Handle[T], error) {
	checkCtx(ctx, "Open")
	if open == nil {
		panic("asyncsync: Open: nil open function")
	}
	return openHandle(ctx, open, close, opts, false)
}

// openHandle is Open. With try the handle gets a thread only if one is free.
func openHandle[T any](ctx context.Context, open func(context.Context) (T, error), close func(T) error, opts []ContextOption, try bool) (*Handle[T], error) {
	in := &handle[T]{close: close}
	cfg := *contextConfig("Open", opts)
	cfg.Fresh = true
	cfg.OnExit = append([]func(){in.exit}, cfg.OnExit...)
	h := &Handle[T]{tsc: &ThreadSensitiveContext{}, in: in, do: newDo[T]()}
	h.tsc.scope.MadeAt(2)
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
	}, On(h.tsc), pc(open), ifFree(try))
	if err != nil {
		return nil, err
	}
	opened = true
	return h, nil
}

// Do runs fn with the value on the handle's thread, as [ToThread] does. A
// caller that is already on that thread runs fn inline. After Close, Do fails
// with [ErrClosed].
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

// get returns the value to code that runs while a function uses it.
func (h *Handle[T]) get() T { return h.in.value }

// doArg is the argument of a call of Do. It keeps the handle alive during the
// call.
type doArg[T any] struct {
	h  *Handle[T]
	fn func(context.Context, T) error
}

func newDo[T any]() *toThread[doArg[T], struct{}] {
	return &toThread[doArg[T], struct{}]{
		fn: func(ctx context.Context, a doArg[T]) (struct{}, error) {
			if err := a.h.in.gone(); err != nil {
				return struct{}{}, err
			}
			return struct{}{}, a.fn(ctx, a.h.in.value)
		},
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

// oneGet returns the wrapper for all calls of Get with these types and without
// options, like oneShot.
func oneGet[T, R any]() *toThread[getArg[T, R], R] {
	key := reflect.TypeFor[getArg[T, R]]()
	w, ok := oneShots.Load(key)
	if !ok {
		w, _ = oneShots.LoadOrStore(key, &toThread[getArg[T, R], R]{fn: callGet[T, R], pc: (getArg[T, R]).pc})
	}
	return w.(*toThread[getArg[T, R], R])
}

func callGet[T, R any](ctx context.Context, a getArg[T, R]) (R, error) {
	if err := a.h.in.gone(); err != nil {
		return zero[R](), err
	}
	return a.fn(ctx, a.h.in.value)
}

// Value returns the value to code on the handle's thread. Anywhere else it
// returns [ErrWrongThread]. On the thread, from the moment that the close function
// begins, it returns an error that matches [ErrClosed].
func (h *Handle[T]) Value() (T, error) {
	h.check("Value")
	if !h.tsc.scope.Mine() {
		return zero[T](), fmt.Errorf("%w: Value of a Handle of %v, %s, was called on goroutine %d, which does not run on its thread", ErrWrongThread, reflect.TypeFor[T](), h.tsc.scope.Describe(), goroutine.ID())
	}
	return h.in.value, h.in.gone()
}

// Close refuses new calls, runs those that were accepted, closes the value on
// its thread, gives the thread back, and returns the error of the close
// function. If the close function panics or calls Goexit, so does Close.
//
// Called on the handle's own thread, or from async code below a function that
// runs there, Close returns at once. Then the rest happens when that function
// ends, and the next Close from outside reports the outcome of the close
// function. Only one Close reports it; any other waits and returns nil.
func (h *Handle[T]) Close() error {
	h.check("Close")
	if !h.tsc.scope.CloseAndWait() {
		return nil
	}
	return h.outcome()
}

// Shutdown is Close with a limit on the wait, like
// [ThreadSensitiveContext.Shutdown]. If ctx ends first, calls that have not
// begun fail with [ErrClosed]. Shutdown then returns an error that wraps the
// cause of ctx and says what still runs. When that has ended, the value is
// closed and the thread given back, and the next Close or Shutdown reports the
// outcome of the close function.
//
// If Shutdown would have to wait for a function that waits for it, it returns
// an error that matches deadlock.ErrDeadlock. The handle still closes when that
// function ends.
func (h *Handle[T]) Shutdown(ctx context.Context) error {
	h.check("Shutdown")
	checkCtx(ctx, "Shutdown")
	if err := h.tsc.scope.ShutdownAndWait(ctx); err != nil {
		return err
	}
	return h.outcome()
}

// outcome reports the outcome of the close function and of the OnThreadExit
// functions, to the first caller only.
func (h *Handle[T]) outcome() error {
	if h.in.told.Swap(true) {
		return nil
	}
	err := h.tsc.scope.Close()
	e := h.in.ending
	if p := h.tsc.scope.HookPanic(); p != nil && !e.Returned() {
		e = core.Ending{Panic: p}
	}
	core.Raise(e)
	return errors.Join(h.in.err, err)
}

// closeQuietly is Close for a caller that wants an error where Close would
// panic or call Goexit.
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

// gone returns the error of those who want the value on the thread after it was given
// to the close function: that function itself, and what runs on the thread after it.
func (in *handle[T]) gone() error {
	if in.opened {
		return nil
	}
	return fmt.Errorf("%w: the value of a Handle of %v was given to its close function", ErrClosed, reflect.TypeFor[T]())
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
	core.Observe(func() {
		if err := in.close(v); err != nil {
			in.err = fmt.Errorf("asyncsync: closing a Handle: %w", err)
		}
	}, func(e core.Ending) { in.ending = e })
	core.Raise(in.ending) // so that the thread, and its hooks, learn of it
}

// pc names the call after the user's function instead of the closure around it.
func pc(fn any) Option {
	return func(s *settings) {
		if s.PC == 0 {
			s.PC = core.FuncPC(fn)
		}
	}
}
