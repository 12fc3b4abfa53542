package task

import (
	"context"

	"asyncsync.dev/internal/core"
)

// Shield calls fn with a ctx that does not end when ctx does, and returns what fn
// returns. That ctx has the values of ctx, and says the same of who calls: fn runs
// in the same task. A fn that has to be done although ctx has ended, such as the
// undoing of something, is called through Shield.
//
// Shield itself does not look at ctx. If that ends meanwhile, or has ended before,
// the next wait with ctx tells it.
//
// It is EasyNetwork's ignore_cancellation.
func Shield[R any](ctx context.Context, fn func(context.Context) (R, error)) (R, error) {
	checkCtx(ctx, "Shield")
	if fn == nil {
		panic("task: Shield: nil function")
	}
	return fn(core.Shield(ctx))
}

// Await calls fn, which blocks in a way that this module does not see (in I/O, in a
// system call, in C), and returns what fn returns. A task of a thread loop is
// parked meanwhile, so that the loop runs others, and a thread serves the calls of
// fn and of what the calling function has started, under the policy All
// everybody's; then fn runs on a goroutine of its own. On an ordinary goroutine it
// is called directly.
//
// If ctx has ended before, fn is not called, and Await returns the cause. If it
// ends later, fn's ctx ends, and Await waits for fn all the same: fn's own result
// counts. A panic of fn reaches the caller with the same value, and so does a
// [runtime.Goexit]. Both see the same goroutine-local variables, both ways. What fn
// did synchronizes before the return of Await.
//
// It is anyio's to_thread.run_sync, where asyncsync.ToThread with
// asyncsync.Insensitive has the options.
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
	c.call.Raise()
	return c.result, c.err
}

// awaited is one call of Await.
type awaited[R any] struct {
	call   core.Call
	fn     func(context.Context) (R, error)
	result R
	err    error
}

// awaitBody is what the call runs.
type awaitBody[R any] struct{ c *awaited[R] }

func (b awaitBody[R]) Run(ctx context.Context) { b.c.result, b.c.err = b.c.fn(ctx) }
func (b awaitBody[R]) Err() error              { return b.c.err }

// Recv receives from ch, as `v, ok := <-ch` does, but as a wait that this module
// sees: a task of a thread loop is parked meanwhile, and a thread serves what the
// calling function has started. ok is false if ch is closed.
//
// When ctx ends first Recv returns its cause, and has received nothing; a value
// that comes at the same moment may be received instead, and is never lost. A ctx
// that has ended before receives nothing. A nil ch delivers nothing.
//
// Where the value is there already it costs about what the receive does. To wait
// for one costs a goroutine, save on an ordinary one.
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

// recv is apart, so that what it shares with a goroutine is allocated here only.
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

// Send sends v to ch, as `ch <- v` does, but as a wait that this module sees: see
// [Recv]. When ctx ends first it returns its cause, and has sent nothing; at the same
// moment it may have sent v, and then returns nil. A ctx that has ended before sends
// nothing. Nobody receives from a nil ch. A closed one panics, as a plain send does.
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

// send is apart for the reason that recv is.
func send[T any](ctx context.Context, ch chan<- T, v T) error {
	var closed any // what the send has panicked with, which may be on another goroutine
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
