package task

import (
	"context"

	"asyncsync.dev/internal/core"
)

// Shield calls fn with a ctx that does not end when ctx does, and returns what
// fn returns. The new ctx has the values of ctx, and fn runs in the same task.
// Use it for work that must be done although ctx has ended, such as cleaning
// up.
//
// Shield itself does not look at ctx. If ctx has ended, or ends meanwhile, the
// next wait with ctx returns its cause. A nil ctx or fn panics.
//
// It is EasyNetwork's ignore_cancellation.
func Shield[R any](ctx context.Context, fn func(context.Context) (R, error)) (R, error) {
	checkCtx(ctx, "Shield")
	if fn == nil {
		panic("task: Shield: nil function")
	}
	return fn(core.Shield(ctx))
}

// Await calls fn, which blocks in a way that this module does not see (in I/O,
// in a system call, in C), and returns what fn returns. How Await waits depends
// on the caller:
//
//   - A task of a thread loop is parked, so that the loop runs other tasks.
//   - A thread serves the calls of fn and of code that the calling function has
//     started; with the policy All, every call.
//   - An ordinary goroutine calls fn directly.
//
// In the first two cases fn runs on a goroutine of its own.
//
// If ctx has already ended, Await returns the cause and does not call fn. If
// ctx ends later, the ctx of fn ends too; Await still waits for fn and returns
// what fn returns. A panic of fn reaches the caller with the same value, and so
// does a [runtime.Goexit]. fn and the caller see the same goroutine-local
// variables, in both directions. What fn did synchronizes before the return of
// Await. A nil ctx or fn panics.
//
// It is anyio's to_thread.run_sync. asyncsync.ToThread with
// asyncsync.Insensitive does the same, takes options, and is limited on a
// thread loop (asyncsync.DefaultLimiter). Nothing limits how many goroutines
// Await starts.
func Await[R any](ctx context.Context, fn func(context.Context) (R, error)) (R, error) {
	checkCtx(ctx, "Await")
	if fn == nil {
		panic("task: Await: nil function")
	}
	ctx = core.Afterlife(ctx)
	if err := core.Ended(ctx); err != nil {
		var zero R
		return zero, err
	}
	c := &awaited[R]{fn: fn}
	ran, err := core.Await(ctx, &c.call, awaitBody[R]{c}, &core.Options{PC: core.FuncPC(fn)})
	switch {
	case !ran:
		return fn(ctx)
	case err != nil:
		var zero R
		return zero, err
	}
	var none R
	result, err, e := c.result, c.err, c.call.Take()
	c.fn, c.result, c.err = nil, none, nil // the ctx of fn leads to c
	core.Raise(e)
	return result, err
}

// awaited is one call of Await.
type awaited[R any] struct {
	call   core.FullCall
	fn     func(context.Context) (R, error)
	result R
	err    error
}

// awaitBody is what the call runs.
type awaitBody[R any] struct{ c *awaited[R] }

func (b awaitBody[R]) Run(ctx context.Context) { b.c.result, b.c.err = b.c.fn(ctx) }
func (b awaitBody[R]) Err() error              { return b.c.err }

// Recv receives from ch like `v, ok := <-ch`, in a wait that this module sees:
// a task of a thread loop is parked meanwhile, and a thread serves the calls of
// code that the calling function has started. ok is false if ch is closed. A
// nil ch never delivers.
//
// If ctx ends first, Recv returns its cause and has received nothing. A value
// that arrives at that moment may be received instead; it is never lost. If ctx
// has already ended, Recv receives nothing.
//
// If a value is ready, Recv costs about as much as a plain receive. Otherwise
// it costs a goroutine, except on an ordinary goroutine.
func Recv[T any](ctx context.Context, ch <-chan T) (v T, ok bool, err error) {
	checkCtx(ctx, "Recv")
	ctx = core.Afterlife(ctx)
	if err := core.Ended(ctx); err != nil {
		return v, false, err
	}
	select {
	case v, ok = <-ch:
		return v, ok, nil
	default:
	}
	return recv(ctx, ch)
}

// recv is separate so that variables shared with a goroutine are allocated only
// here.
func recv[T any](ctx context.Context, ch <-chan T) (v T, ok bool, err error) {
	err = core.Receive(ctx, func(quit <-chan struct{}) bool {
		select {
		case v, ok = <-ch:
			return true
		case <-quit:
			return false
		}
	}, "receive")
	return v, ok, err
}

// Send sends v to ch like `ch <- v`, in a wait that this module sees: see
// [Recv]. A nil ch never takes a value. A closed one panics, as a plain send
// does.
//
// If ctx ends first, Send returns its cause and has sent nothing. If ch takes v
// at that moment, Send may return nil instead. If ctx has already ended, Send
// sends nothing.
func Send[T any](ctx context.Context, ch chan<- T, v T) error {
	checkCtx(ctx, "Send")
	ctx = core.Afterlife(ctx)
	if err := core.Ended(ctx); err != nil {
		return err
	}
	select {
	case ch <- v:
		return nil
	default:
	}
	return send(ctx, ch, v)
}

// send is separate for the same reason as recv.
func send[T any](ctx context.Context, ch chan<- T, v T) error {
	var closed any // the panic value of the send, which may run on another goroutine
	err := core.Receive(ctx, func(quit <-chan struct{}) (over bool) {
		defer func() {
			if closed = recover(); closed != nil {
				over = true
			}
		}()
		select {
		case ch <- v:
			return true
		case <-quit:
			return false
		}
	}, "send")
	if closed != nil {
		panic(closed)
	}
	return err
}
