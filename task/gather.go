package task

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"asyncsync.dev/internal/core"
)

// Gather runs the functions as concurrent tasks, waits for all of them, and
// returns their results in the order of the functions. Without functions it
// returns an empty slice. A nil ctx or function panics. A ctx that has already
// ended does what it does for [Go].
//
// If a function fails, Gather cancels the others, but not before all have
// begun: a function runs even if another one failed before it began. Gather
// joins the errors of the functions that failed, in the order of the functions,
// and returns a single error unchanged. A function that returned because Gather
// had cancelled it did not fail. Results of functions that returned nil are
// valid even if there is an error.
//
// If ctx ends, Gather cancels the tasks with its cause and waits on; it returns
// what they return. If a function panics or calls [runtime.Goexit], Gather
// cancels the others and ends in the same way when they have ended, like
// [Group.Wait]. If a hook ends Gather before all have been started, it cancels
// those that have, and waits for them.
//
// Like [Group.Wait], Gather joins the tasks: a thread serves their calls. If a
// function waits for the caller of Gather, Gather cancels the functions and
// returns no results and an error that matches deadlock.ErrDeadlock, which is
// also the cause of the cancellation. It does not wait then: the functions have
// not ended, and what they return is dropped.
//
// It is asyncio's gather, but waits for all functions, as EasyNetwork's does.
func Gather[R any](ctx context.Context, fns ...func(context.Context) (R, error)) ([]R, error) {
	checkCtx(ctx, "Gather")
	for i, fn := range fns {
		if fn == nil {
			panic(fmt.Sprintf("task: Gather: function %d is nil", i))
		}
	}
	results, errs := make([]R, len(fns)), make([]error, len(fns))
	told := make([]bool, len(fns)) // the function returned after it was cancelled
	if len(fns) == 0 {
		return results, nil
	}
	inner, g := NewGroup(ctx, NoCancel())
	f := &fellow{cancel: g.cancel, left: len(fns)}
	done := false
	defer func() {
		// A hook has ended this, or the Goexit of a call that the wait served.
		if !done {
			g.end()
			_ = g.join(context.WithoutCancel(ctx)) // one that is refused would never have ended
		}
	}()
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
	refused := g.join(ctx)
	done = true
	if refused != nil {
		g.cancel(refused) // from here on the functions alone have results, errs and told
		return nil, refused
	}
	// Its error concerns tasks that have not begun.
	other := g.outcome()
	if own := f.own; own != nil {
		forget := forgiven{own: own, bare: context.Cause(inner) == error(own) && core.Ended(core.Afterlife(ctx)) == nil}
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

// errNotReturned cancels the other functions if one panics or calls Goexit.
var errNotReturned = errors.New("a function of Gather panicked, or called runtime.Goexit")

// A fellow is the state that the functions of one Gather share.
type fellow struct {
	cancel context.CancelCauseFunc

	mu   sync.Mutex   // guards the rest
	left int          // how many have not begun
	own  *gatherError // the first failure; also read when all have ended
}

// begin counts a function that begins.
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

// fail records the failure of a function.
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

// Is makes it match context.Canceled: a cancelled function did not itself fail.
func (e *gatherError) Is(target error) bool { return target == context.Canceled }
