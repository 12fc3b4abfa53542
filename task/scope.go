package task

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"asyncsync.dev/internal/core"
)

// ErrScopeClosed is returned by [Scope.Close] for a Scope that is already
// closed.
var ErrScopeClosed = errors.New("task: the scope is already closed")

// errClosed is the cause of a Scope's ctx after Close.
var errClosed error = closedError{}

type closedError struct{}

func (closedError) Error() string        { return "task: the scope has been closed" }
func (closedError) Is(target error) bool { return target == context.Canceled }

// ErrTimeout is matched by the errors of [Timeout] and [TimeoutAt] after their
// own time has expired. These errors, and ErrTimeout itself, also match
// [context.DeadlineExceeded] and [os.ErrDeadlineExceeded].
var ErrTimeout error = &timeoutError{}

// A timeoutError is the error of one Timeout.
type timeoutError struct{ _ byte } // not empty, so that each has its own address

func (*timeoutError) Error() string { return "task: timed out" }

// Timeout makes it a timeout for package net.
func (*timeoutError) Timeout() bool { return true }

func (*timeoutError) Is(target error) bool {
	return target == ErrTimeout || target == context.DeadlineExceeded || target == os.ErrDeadlineExceeded
}

// A Scope is a section of code that can be cancelled by itself. [OpenScope]
// opens it and returns a ctx for the code. [Scope.Cancel] or a deadline ends
// that ctx. [Scope.Close] takes the error of the code and removes the part that
// is the Scope's own cancellation.
//
// # Whose cancellation
//
// Scopes nest, and each can end what is inside it. Errors are told apart by
// identity. Each Scope wraps the cause of its cancellation in an error of its
// own, which matches what the cause matches and is the cause of its ctx. Close
// looks for that very error in its argument, also within joined and wrapped
// errors. It ignores why any other ctx has ended.
//
// Other packages return [context.Canceled] for a ctx that has ended, not the
// cause. Close treats that as the Scope's own if the Scope has ended its ctx
// and the ctx above has not ended too.
//
// If a Scope is cancelled after its code has finished, there is nothing to
// remove: then CancelCalled is true and CancelledCaught is false.
//
// Its methods may be called from anywhere. It is the CancelScope of anyio and
// EasyNetwork.
type Scope struct {
	ctx    context.Context // a foreign ctx, ended by cancel
	up     context.Context // the parent of ctx
	cancel context.CancelCauseFunc

	mu       sync.Mutex  // guards the rest; a leaf lock, except for the lock of a timer
	own      *scopeError // the cause of the end of ctx; nil before
	caught   bool
	closed   bool
	deadline time.Time // zero for none
	timer    *time.Timer
	set      int // counts settings of the deadline, to ignore timers of earlier ones
}

// A scopeError is the cancellation of one Scope.
type scopeError struct {
	cause   error
	expired bool // it was the deadline
}

func (e *scopeError) Error() string { return "task: scope cancelled: " + e.cause.Error() }
func (e *scopeError) Unwrap() error { return e.cause }

// A ScopeOption configures a Scope.
type ScopeOption func(*scopeOptions)

type scopeOptions struct {
	deadline time.Time
	shielded bool
}

// Deadline cancels the Scope at the time t with [context.DeadlineExceeded].
// ctx.Deadline does not report it, because it can be moved: see
// [Scope.Reschedule]. A zero t means no deadline.
func Deadline(t time.Time) ScopeOption { return func(o *scopeOptions) { o.deadline = t } }

// Shielded keeps the end of the ctx above from ending the ctx of the Scope. The
// Scope itself can still be cancelled. See also [Shield].
func Shielded() ScopeOption { return func(o *scopeOptions) { o.shielded = true } }

// OpenScope opens a Scope below ctx and returns it with the ctx for the code
// inside. Close must be called; without it, resources are kept until ctx ends.
// A deadline in the past cancels the Scope at once: the code inside learns of
// it at its first wait. A nil ctx panics.
func OpenScope(ctx context.Context, opts ...ScopeOption) (context.Context, *Scope) {
	checkCtx(ctx, "OpenScope")
	var o scopeOptions
	for _, opt := range opts {
		if opt == nil {
			panic("task: OpenScope: nil ScopeOption")
		}
		opt(&o)
	}
	return openScope(ctx, o)
}

func openScope(ctx context.Context, o scopeOptions) (context.Context, *Scope) {
	s := &Scope{up: core.Foreign(core.Afterlife(ctx))}
	if o.shielded {
		s.up = context.WithoutCancel(s.up)
	}
	s.ctx, s.cancel = context.WithCancelCause(s.up)
	if !o.deadline.IsZero() {
		s.Reschedule(o.deadline)
	}
	return core.Over(ctx, s.ctx), s
}

func (s *Scope) check(what string) {
	if s == nil || s.cancel == nil {
		panic("task: Scope." + what + ": nil Scope, or one not made by OpenScope")
	}
}

// Cancel ends the ctx of the Scope with the given cause; nil means
// [context.Canceled]. It does not wait. Only the first cancellation of a Scope
// counts. After Close it has no effect.
func (s *Scope) Cancel(cause error) {
	s.check("Cancel")
	if cause == nil {
		cause = context.Canceled
	}
	s.end(&scopeError{cause: cause}, 0)
}

// end cancels the scope with own. If times is not 0, it does so only if the
// deadline has been set exactly times times.
func (s *Scope) end(own *scopeError, times int) {
	s.mu.Lock()
	if s.closed || s.own != nil || times != 0 && times != s.set {
		s.mu.Unlock()
		return
	}
	s.own = own
	s.stopTimer()
	s.mu.Unlock()
	s.cancel(own)
}

// stopTimer stops the timer. s.mu is held.
func (s *Scope) stopTimer() {
	s.set++
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
}

// CancelCalled reports whether the Scope was cancelled, by Cancel or by its
// deadline. The end of the ctx above does not count.
func (s *Scope) CancelCalled() bool {
	s.check("CancelCalled")
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.own != nil
}

// CancelledCaught reports whether Close found and removed the Scope's own
// cancellation. It is false before Close.
func (s *Scope) CancelledCaught() bool {
	s.check("CancelledCaught")
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.caught
}

// When returns the deadline, or false if there is none. A deadline in the past
// is still reported.
func (s *Scope) When() (time.Time, bool) {
	s.check("When")
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deadline, !s.deadline.IsZero()
}

// Reschedule moves the deadline to t. If t is in the past, the Scope is
// cancelled now. A zero t removes the deadline. Reschedule has no effect on a
// Scope that was cancelled or closed.
func (s *Scope) Reschedule(t time.Time) {
	s.check("Reschedule")
	s.mu.Lock()
	if s.closed || s.own != nil {
		s.mu.Unlock()
		return
	}
	s.stopTimer()
	s.deadline = t
	if t.IsZero() {
		s.mu.Unlock()
		return
	}
	set := s.set
	expired := func() { s.end(&scopeError{cause: context.DeadlineExceeded, expired: true}, set) }
	d := time.Until(t)
	if d > 0 {
		s.timer = time.AfterFunc(d, expired)
	}
	s.mu.Unlock()
	if d <= 0 {
		expired()
	}
}

// ClearDeadline removes the deadline.
func (s *Scope) ClearDeadline() {
	s.check("ClearDeadline")
	s.Reschedule(time.Time{})
}

// Close ends the Scope and its ctx. err is the error of the code inside. Close
// returns err without the Scope's own cancellation: nil if nothing else is
// left, and the other errors if several were joined. An err without that
// cancellation is returned unchanged.
//
// It is usually called as
//
//	ctx, s := task.OpenScope(ctx)
//	err := s.Close(inside(ctx))
//
// A further Close returns [ErrScopeClosed], joined with err if that is not nil.
func (s *Scope) Close(err error) error {
	s.check("Close")
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		if err != nil {
			return errors.Join(err, ErrScopeClosed)
		}
		return ErrScopeClosed
	}
	s.closed = true
	s.stopTimer()
	own := s.own
	s.mu.Unlock()

	if own != nil {
		f := forgiven{own: own}
		// The ctx has ended only because of the Scope.
		f.bare = context.Cause(s.ctx) == error(own) && s.up.Err() == nil
		rest, caught := f.strip(err)
		err = rest
		s.mu.Lock()
		s.caught = caught
		s.mu.Unlock()
	}
	s.cancel(errClosed)
	return err
}

// expired reports whether the error given to Close contained the scope's own
// deadline.
func (s *Scope) expired() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.caught && s.own.expired
}

// forgiven is what strip removes from errors: own and, if bare is set,
// context.Canceled, which code returns that does not look at causes.
type forgiven struct {
	own  error
	bare bool
}

// strip returns err without what is forgiven, and whether there was any. An
// error that contains none of it is returned unchanged.
func (f forgiven) strip(err error) (rest error, found bool) {
	if err == nil {
		return nil, false
	}
	if same(err, f.own) || f.bare && same(err, context.Canceled) {
		return nil, true
	}
	switch x := err.(type) {
	case *scopeError, *gatherError:
		// Another cancellation, whatever its cause.
	case interface{ Unwrap() error }:
		if inner, found := f.strip(x.Unwrap()); found {
			return inner, true // the wrapper described the cancellation
		}
	case interface{ Unwrap() []error }:
		var left []error
		for _, e := range x.Unwrap() {
			one, hit := f.strip(e)
			found = found || hit
			if one != nil {
				left = append(left, one)
			}
		}
		switch {
		case !found:
		case len(left) == 1:
			return left[0], true
		default:
			return errors.Join(left...), true
		}
	}
	return err, false
}

// same reports whether a is b, for errors that may not be comparable.
func same(a, b error) (yes bool) {
	defer func() { _ = recover() }()
	return a == b
}

// MoveOn calls fn with a ctx that ends after d. If fn returns because of that,
// MoveOn returns true and no error. Otherwise it returns false and the error of
// fn. If fn returns another error together with the expiry, MoveOn returns that
// error and true.
//
// The time counts from the call of MoveOn. If d is not positive, the ctx ends
// at once, and fn learns of it at its first wait. MoveOn does not leave fn
// running: it returns when fn does. If fn ignores its ctx, or finishes in spite
// of its end, MoveOn returns false.
//
// It is the move_on_after of anyio and EasyNetwork.
func MoveOn(ctx context.Context, d time.Duration, fn func(context.Context) error) (moved bool, err error) {
	checkCtx(ctx, "MoveOn")
	return moveOn(ctx, "MoveOn", time.Now().Add(d), fn)
}

// MoveOnAt is [MoveOn] with a point in time instead of a duration. A zero t
// means no limit.
func MoveOnAt(ctx context.Context, t time.Time, fn func(context.Context) error) (moved bool, err error) {
	checkCtx(ctx, "MoveOnAt")
	return moveOn(ctx, "MoveOnAt", t, fn)
}

func moveOn(ctx context.Context, what string, t time.Time, fn func(context.Context) error) (moved bool, err error) {
	s, err := within(ctx, what, t, fn)
	return s.CancelledCaught(), err
}

// within calls fn in a Scope.
func within(ctx context.Context, what string, t time.Time, fn func(context.Context) error) (*Scope, error) {
	if fn == nil {
		panic("task: " + what + ": nil function")
	}
	inner, s := openScope(ctx, scopeOptions{deadline: t})
	returned := false
	defer func() {
		if !returned { // a Goexit or a panic: nothing to forgive
			_ = s.Close(nil)
		}
	}()
	err := fn(inner)
	returned = true
	return s, s.Close(err)
}

// Timeout is [MoveOn] that turns the expiry into an error of its own, which
// matches [ErrTimeout]. If fn returns nil after the expiry, so does Timeout,
// and any other error of fn is returned instead. The cancellation of ctx, or of
// an outer Timeout, passes through unchanged.
//
// It is anyio's fail_after, and the timeout of asyncio and EasyNetwork.
func Timeout(ctx context.Context, d time.Duration, fn func(context.Context) error) error {
	checkCtx(ctx, "Timeout")
	return timeout(ctx, "Timeout", time.Now().Add(d), fn)
}

// TimeoutAt is [Timeout] with a point in time instead of a duration. A zero t
// means no limit.
func TimeoutAt(ctx context.Context, t time.Time, fn func(context.Context) error) error {
	checkCtx(ctx, "TimeoutAt")
	return timeout(ctx, "TimeoutAt", t, fn)
}

func timeout(ctx context.Context, what string, t time.Time, fn func(context.Context) error) error {
	s, err := within(ctx, what, t, fn)
	if err == nil && s.expired() {
		return &timeoutError{}
	}
	return err
}
