package task

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"asyncsync.dev/internal/core"
)

// ErrScopeClosed is returned by [Scope.Close] of a Scope that was closed before.
var ErrScopeClosed = errors.New("task: the scope was closed before")

// errClosed is the cause of the end of a Scope's ctx by Close.
var errClosed error = closedError{}

type closedError struct{}

func (closedError) Error() string        { return "task: the scope has been closed" }
func (closedError) Is(target error) bool { return target == context.Canceled }

// ErrTimeout is matched by the errors of [Timeout] and [TimeoutAt] whose own time
// was over. They match [context.DeadlineExceeded] and [os.ErrDeadlineExceeded] as
// well, and so does ErrTimeout.
var ErrTimeout error = &timeoutError{}

// A timeoutError is the error of one Timeout.
type timeoutError struct{ _ byte } // a size, so that each has an address of its own

func (*timeoutError) Error() string { return "task: timed out" }

// Timeout says that it is one, as package net asks.
func (*timeoutError) Timeout() bool { return true }

func (*timeoutError) Is(target error) bool {
	return target == ErrTimeout || target == context.DeadlineExceeded || target == os.ErrDeadlineExceeded
}

// A Scope is a stretch of code that can be cancelled by itself. [OpenScope] opens
// it, with a ctx for that code; [Scope.Cancel] or a deadline end the ctx; and
// [Scope.Close], which is told what the code came to, forgives it what was the
// Scope's own doing.
//
// # Whose cancellation
//
// Scopes nest, and each may end what is inside of it. Who has done it is told by
// the identity of an error: each Scope wraps the cause that it is cancelled with in
// an error of its own, which matches what the cause matches, and is the cause of its
// ctx. Close looks for that very error in what it is given, also within joined and
// wrapped errors, and takes no notice of why anybody else's ctx has ended.
//
// Other packages return [context.Canceled], and not the cause, for a ctx that has
// ended. That one counts as the Scope's own if the Scope has ended its ctx, and the
// ctx above has not ended too.
//
// A Scope that is cancelled after its code has done what it had to do has nothing to
// forgive: then CancelCalled is true and CancelledCaught is not.
//
// Its methods may be called from anywhere. It is anyio's CancelScope, and
// EasyNetwork's.
type Scope struct {
	ctx    context.Context // foreign, ended by cancel
	up     context.Context // what that hangs from
	cancel context.CancelCauseFunc

	mu       sync.Mutex  // guards the rest; a leaf lock, but for that of a timer
	own      *scopeError // that ctx was ended with; nil before
	caught   bool
	closed   bool
	deadline time.Time // zero for none
	timer    *time.Timer
	set      int // how often the deadline was set: a timer of an earlier one is late
}

// A scopeError is the cancellation of one Scope.
type scopeError struct {
	cause   error
	expired bool // it was the deadline
}

func (e *scopeError) Error() string { return "task: scope cancelled: " + e.cause.Error() }
func (e *scopeError) Unwrap() error { return e.cause }

// A ScopeOption changes what a Scope is.
type ScopeOption func(*scopeOptions)

type scopeOptions struct {
	deadline time.Time
	shielded bool
}

// Deadline has the Scope cancelled at the time t, with
// [context.DeadlineExceeded]. It is not told by ctx.Deadline, because it can be
// moved: see [Scope.Reschedule]. A zero t is no deadline.
func Deadline(t time.Time) ScopeOption { return func(o *scopeOptions) { o.deadline = t } }

// Shielded has the end of the ctx above not end that of the Scope. The Scope itself
// can be cancelled all the same. See also [Shield].
func Shielded() ScopeOption { return func(o *scopeOptions) { o.shielded = true } }

// OpenScope opens a Scope below ctx and returns it, with the ctx of what runs
// inside. Close must be called, or resources are kept until ctx ends. A deadline
// that is past cancels it at once: what runs inside is told at its first wait.
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

// Cancel ends the ctx of the Scope with the cause, nil meaning
// [context.Canceled], and does not wait. Only the first cancellation of a Scope
// counts, and none after Close.
func (s *Scope) Cancel(cause error) {
	s.check("Cancel")
	if cause == nil {
		cause = context.Canceled
	}
	s.end(&scopeError{cause: cause}, 0)
}

// end cancels the scope with own, if the deadline was set times often; 0 for any.
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

// stopTimer forgets the timer. s.mu is held.
func (s *Scope) stopTimer() {
	s.set++
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
}

// CancelCalled reports whether the Scope was cancelled, by Cancel or by its
// deadline. The end of the ctx above is no such thing.
func (s *Scope) CancelCalled() bool {
	s.check("CancelCalled")
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.own != nil
}

// CancelledCaught reports whether Close was given the Scope's own cancellation. It
// is false before Close.
func (s *Scope) CancelledCaught() bool {
	s.check("CancelledCaught")
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.caught
}

// When returns the deadline, or false if there is none. It goes on telling one that
// has passed.
func (s *Scope) When() (time.Time, bool) {
	s.check("When")
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deadline, !s.deadline.IsZero()
}

// Reschedule moves the deadline to t, which may be past: then the Scope is cancelled
// now. A zero t is none. It has no effect on a Scope that was cancelled or closed.
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

// ClearDeadline takes the deadline away.
func (s *Scope) ClearDeadline() {
	s.check("ClearDeadline")
	s.Reschedule(time.Time{})
}

// Close ends the Scope, and its ctx. err is what the code inside has come to; Close
// returns it without what is the Scope's own cancellation: nil if nothing else is
// left, and the other errors of joined ones. An error that has nothing of it is
// returned as it is.
//
// It is mostly called as
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
		// The ctx has ended for this reason alone.
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

// expired reports whether the scope's own deadline was given to Close.
func (s *Scope) expired() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.caught && s.own.expired
}

// forgiven is what is taken out of errors: own, and, if bare, context.Canceled,
// which is what code says that does not look at causes.
type forgiven struct {
	own  error
	bare bool
}

// strip returns err without that, and whether there was any. What was not touched is
// returned as it is.
func (f forgiven) strip(err error) (rest error, found bool) {
	if err == nil {
		return nil, false
	}
	if same(err, f.own) || f.bare && same(err, context.Canceled) {
		return nil, true
	}
	switch x := err.(type) {
	case *scopeError, *gatherError:
		// Somebody else's cancellation, whatever the cause of that was.
	case interface{ Unwrap() error }:
		if inner, found := f.strip(x.Unwrap()); found {
			return inner, true // what it said was about the cancellation
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

// MoveOn calls fn with a ctx that ends after d, and gives up on it then: if fn
// returns because of that MoveOn returns true and no error. Otherwise it returns
// false and what fn returned; a real error that comes together with the end of the
// time is returned, with true. The time counts from the call of MoveOn. With a d that
// is not positive it is over at once, and fn learns of it at its first wait.
//
// MoveOn does not leave fn running: it returns when fn does. A fn that does not look
// at its ctx, or finishes in spite of it, was not given up on.
//
// It is anyio's move_on_after, and EasyNetwork's.
func MoveOn(ctx context.Context, d time.Duration, fn func(context.Context) error) (moved bool, err error) {
	checkCtx(ctx, "MoveOn")
	return moveOn(ctx, "MoveOn", time.Now().Add(d), fn)
}

// MoveOnAt is [MoveOn] with the time at which it is over. A zero t is none.
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

// Timeout is [MoveOn] for which the end of the time is an error: one of its own,
// which matches [ErrTimeout]. A fn that returns nil in spite of it has not timed
// out, and a real error of fn is returned instead. The cancellation of ctx, or of an
// outer Timeout, passes through unchanged.
//
// It is anyio's fail_after, asyncio's and EasyNetwork's timeout.
func Timeout(ctx context.Context, d time.Duration, fn func(context.Context) error) error {
	checkCtx(ctx, "Timeout")
	return timeout(ctx, "Timeout", time.Now().Add(d), fn)
}

// TimeoutAt is [Timeout] with the time at which it is over. A zero t is none.
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
