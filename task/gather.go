package task

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"asyncsync.dev/internal/core"
)

// Gather runs the functions as tasks side by side, waits for all of them, and
// returns what they return, in the order of the functions. Without functions it
// returns an empty slice.
//
// When one fails the others are cancelled, but not before all have begun: the first
// may fail as soon as it likes, the last one is run all the same. The errors of those
// that failed are joined, in the order of the functions; a single one is returned as
// it is. Those who returned because Gather has cancelled them did not fail. The
// results of all who returned nil are there beside the error.
//
// When ctx ends the tasks are cancelled with its cause, and Gather waits on: what
// they return is what it returns. If one panics, or calls [runtime.Goexit], the
// others are cancelled, and when they have ended so does Gather, as [Group.Wait]
// does.
//
// Like [Group.Wait] it joins the tasks. On a thread it serves their calls.
//
// It is asyncio's gather, but waits for all, as EasyNetwork's does.
func Gather[R any](ctx context.Context, fns ...func(context.Context) (R, error)) ([]R, error) {
	checkCtx(ctx, "Gather")
	for i, fn := range fns {
		if fn == nil {
			panic(fmt.Sprintf("task: Gather: function %d is nil", i))
		}
	}
	results, errs := make([]R, len(fns)), make([]error, len(fns))
	told := make([]bool, len(fns)) // it returned after it was cancelled
	if len(fns) == 0 {
		return results, nil
	}
	inner, g := NewGroup(ctx, NoCancel())
	f := &fellow{cancel: g.cancel, left: len(fns)}
	for i, fn := range fns {
		g.Go(func(ctx context.Context) error {
			f.begin()
			returned := false
			defer func() {
				if !returned {
					f.fail(errNotReturned)
				}
			}()
			results[i], errs[i] = fn(ctx)
			returned = true
			if errs[i] != nil {
				told[i] = context.Cause(ctx) != nil
				var none R
				results[i] = none
				f.fail(errs[i])
			}
			return nil
		}, func(o *core.Options) { o.PC = core.FuncPC(fn) })
	}
	// What it returns is about those that have not begun.
	other := g.Wait(ctx)
	if own := f.own; own != nil {
		forget := forgiven{own: own, bare: context.Cause(inner) == error(own) && ctx.Err() == nil}
		for i, err := range errs {
			if told[i] {
				errs[i], _ = forget.strip(err)
			}
		}
	}
	var failed []error
	for _, err := range append(errs, other) {
		if err != nil {
			failed = append(failed, err)
		}
	}
	if len(failed) == 1 {
		return results, failed[0]
	}
	return results, errors.Join(failed...)
}

// errNotReturned is why the others are cancelled if one panics or calls Goexit.
var errNotReturned = errors.New("a function of Gather panicked, or called runtime.Goexit")

// A fellow is what the functions of one Gather have in common.
type fellow struct {
	cancel context.CancelCauseFunc

	mu   sync.Mutex   // guards the rest
	left int          // how many have not begun
	own  *gatherError // the first failure; also read when all have ended
}

// begin says that one more has begun.
func (f *fellow) begin() {
	f.mu.Lock()
	f.left--
	own := f.own
	all := f.left == 0
	f.mu.Unlock()
	if all && own != nil {
		f.cancel(own)
	}
}

// fail says that one has failed.
func (f *fellow) fail(err error) {
	f.mu.Lock()
	first := f.own == nil
	if first {
		f.own = &gatherError{err}
	}
	own := f.own
	all := f.left == 0
	f.mu.Unlock()
	if first && all {
		f.cancel(own)
	}
}

// A gatherError is the cause with which one Gather cancels.
type gatherError struct{ err error }

func (e *gatherError) Error() string {
	return "task: another function of Gather failed: " + e.err.Error()
}
func (e *gatherError) Unwrap() error { return e.err }

// Is has it match context.Canceled: to those who are cancelled it is no error of
// theirs.
func (e *gatherError) Is(target error) bool { return target == context.Canceled }
