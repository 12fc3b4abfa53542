package nesting

import (
	"context"
	"errors"
	"strings"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/core"
	"asyncsync.dev/loop"
)

// What a loose operation may end with. The model does not know which it is.

// excuse reports whether err is one that an operation of a loose part may end
// with.
func (p *Program) excuse(err error) bool {
	var cause *opCause
	var body *bodyError
	switch {
	case errors.Is(err, core.ErrDeadlock):
		return false
	case errors.As(err, &cause), errors.As(err, &body),
		errors.Is(err, context.Canceled), errors.Is(err, asyncsync.ErrClosed), errors.Is(err, asyncsync.ErrQueueFull),
		errors.Is(err, asyncsync.ErrAbandoned), p.stops && errors.Is(err, loop.ErrStopped):
		return true
	}
	// What ended a group's ctx.
	return strings.HasPrefix(err.Error(), "task: ")
}

// excused reports whether err is cause, or may stand in its place where o is.
func (x *run) excused(o *Op, err error, cause error) bool {
	return cause != nil && errors.Is(err, cause) || o.Loose && err != nil && x.p.excuse(err)
}

// checkLoose compares what was seen of loose operations with what may be.
func (r *Result) checkLoose(p *Program, complain func(string, ...any)) {
	for i := range p.looseBodies {
		if n := r.Bodies[i].Runs; n > 1 {
			complain("b%d: ran %d times", i, n)
		}
	}
	for i := range p.looseOps {
		if g := r.Ops[i]; g.Ended && g.Kind == endError && !p.excuse(g.Err) {
			complain("#%d: %v, for which there is no reason", i, g.Err)
		}
	}
}

// same checks that o has ended as its body did, if that is what it does.
func (x *run) same(o *Op, out Outcome) {
	if !o.operation().calls {
		return
	}
	if n := x.runs[o.Body.ID].Load(); n == 0 {
		if out.Kind != endError {
			x.complain("#%d: ends with %v, but b%d has not run", o.ID, out, o.Body.ID)
		}
		return
	}
	if why := differ(out, x.outs[o.Body.ID]); why != "" {
		x.complain("#%d: %s, as b%d", o.ID, why, o.Body.ID)
	}
}
