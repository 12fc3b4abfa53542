package core

import (
	"context"
	"errors"
	"fmt"

	"asyncsync.dev/internal/cycle"
)

// Errors of calls that do not run. The public packages give them their names.
var (
	ErrClosed    = errors.New("asyncsync: the context is closed")
	ErrQueueFull = errors.New("asyncsync: the queue is full")
	ErrPoolFull  = errors.New("asyncsync: the pool is full")
	ErrNoContext = errors.New("asyncsync: no ThreadSensitiveContext in ctx, and RequireContext turns the default thread off")
)

// errNotFree is ErrQueueFull for a call that is not to wait at all.
var errNotFree error = notFreeError{}

type notFreeError struct{}

func (notFreeError) Error() string { return "asyncsync: the thread is not free" }

func (notFreeError) Is(target error) bool { return target == ErrQueueFull }

// A closedError is ErrClosed, and says what is closed.
type closedError struct{ what string }

func (e *closedError) Error() string { return "asyncsync: " + e.what }

func (e *closedError) Is(target error) bool { return target == ErrClosed }

// An overloadError is one of the errors of overload, and says which call to what context
// was refused. It is made where calls are refused by the thousand, so its text is made when
// somebody asks. It does not refer to the scope, which would keep the thread.
type overloadError struct {
	error
	context string
	made    uintptr // where the context was made
	call    label
}

func (e *overloadError) Error() string {
	return fmt.Sprintf("%v: call of %s to %s", e.error, e.call, contextCalled(e.context, e.made))
}

func (e *overloadError) Unwrap() error { return e.error }

// errPoolClosed is ErrClosed for a call whose scope can get no thread because its
// pool is closed.
var errPoolClosed error = &closedError{"the pool that the context takes its thread from is closed"}

// A DeadlockError says that a wait would never have ended.
type DeadlockError = cycle.Error

// A Link is one wait in a cycle.
type Link = cycle.Link

// SeePage returns how a text refers to a page.
func SeePage(page string) string { return cycle.SeePage(page) }

// Phrase says what a wait of the kind is for: see [cycle.Phrase].
func Phrase(kind, name string) string { return cycle.Phrase(kind, name) }

// ErrDeadlock is matched by every DeadlockError.
var ErrDeadlock = cycle.ErrDeadlock

// Refused reports whether err, which a wait with ctx has returned, means that the wait
// was refused. Comparing err with ErrDeadlock is not enough, because the cause of ctx
// may match ErrDeadlock too.
func Refused(ctx context.Context, err error) bool {
	d, ok := err.(*DeadlockError)
	if !ok {
		return false
	}
	cause, _ := Ended(Afterlife(ctx)).(*DeadlockError)
	return d != cause
}

// Cancelled reports whether the call that i is about did not run because its ctx has
// ended. The cause may match an error of refused calls.
func Cancelled(i *CallInfo) bool {
	if i.Begun || i.Err == nil {
		return false
	}
	cause := Ended(i.Ctx)
	return cause != nil && errors.Is(i.Err, cause)
}

// ErrAbandoned is matched by the error of a call that its caller left running.
var ErrAbandoned = errors.New("asyncsync: call abandoned")

type abandonedError struct{ cause error }

func (e *abandonedError) Error() string {
	return "asyncsync: call abandoned: " + e.cause.Error()
}

func (e *abandonedError) Is(target error) bool { return target == ErrAbandoned }

func (e *abandonedError) Unwrap() error { return e.cause }
