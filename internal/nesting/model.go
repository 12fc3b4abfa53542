package nesting

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"asyncsync.dev/asyncsync"
)

// vars is the number of local variables that programs use.
const vars = 3

// Values are those of the local variables at one moment, 0 for none.
type Values [vars]int

// An Outcome is how a function ended.
type Outcome struct {
	Kind  ending
	Val   int
	Err   error // what must match, by identity or errors.Is
	Panic any
}

// String returns the outcome as the reports show it.
func (o Outcome) String() string {
	switch o.Kind {
	case endError:
		return fmt.Sprintf("error %v", o.Err)
	case endPanic:
		return fmt.Sprintf("panic %v", o.Panic)
	case endGoexit:
		return "goexit"
	}
	return fmt.Sprint(o.Val)
}

// bodyError and bodyPanic are what a body fails with: each is one object, to
// be compared by identity.
type bodyError struct{ body int }

func (e *bodyError) Error() string { return fmt.Sprintf("error of b%d", e.body) }

type bodyPanic struct{ body int }

func (e *bodyPanic) String() string { return fmt.Sprintf("panic of b%d", e.body) }

// opCause is the cause of an operation's cancellation.
type opCause struct{ op int }

func (e *opCause) Error() string { return fmt.Sprintf("cause of #%d", e.op) }

// values made once per program, so that the model and the run mean the same.
type identities struct {
	errs   []*bodyError
	panics []*bodyPanic
	causes []*opCause
}

func identify(p *Program) *identities {
	id := &identities{}
	for i := range p.Bodies {
		id.errs = append(id.errs, &bodyError{i})
		id.panics = append(id.panics, &bodyPanic{i})
	}
	for i := range p.Ops {
		id.causes = append(id.causes, &opCause{i})
	}
	return id
}

// A BodyResult is what was seen of one body.
type BodyResult struct {
	Runs  int // how often it began
	Start Values
}

// An OpResult is what was seen of one operation.
type OpResult struct {
	Ended bool // it began, and ended in whatever way
	Outcome
	After Values // of the variables
}

// A Result is what was seen of a program, or what should be.
type Result struct {
	Bodies []BodyResult
	Ops    []OpResult
	Tasks  map[int]Outcome // of the tasks that were started, by operation
	Roots  []Outcome

	Complaints []string // what was judged on the spot

	Abandoned atomic.Int32 // calls

	Counts [counters]atomic.Int32

	Reached bool  // the planted wait was
	Told    int32 // operations that were told of a certain deadlock

	ids *identities
}

func newResult(p *Program, ids *identities) *Result {
	return &Result{
		Bodies: make([]BodyResult, p.Bodies),
		Ops:    make([]OpResult, p.Ops),
		Tasks:  map[int]Outcome{},
		Roots:  make([]Outcome, len(p.Roots)),
		ids:    ids,
	}
}

// Expect interprets p one operation after the other, on the calling goroutine.
// like is the result to be compared, for the identities of errors and panics.
func Expect(p *Program, like *Result) *Result {
	m := &model{newResult(p, like.ids)}
	for i, r := range p.Roots {
		m.Roots[i] = m.body(r.Body, &Values{})
	}
	return m.Result
}

type model struct{ *Result }

func (m *model) body(b *Body, v *Values) Outcome {
	m.Bodies[b.ID].Runs++
	m.Bodies[b.ID].Start = *v
	for _, o := range b.Ops {
		out := m.op(o, v)
		m.Ops[o.ID] = OpResult{true, out, *v}
		if out.Kind == endGoexit || out.Kind != endReturn && !o.Catch {
			return out
		}
	}
	switch b.End {
	case endError:
		return Outcome{Kind: endError, Err: m.ids.errs[b.ID]}
	case endPanic:
		return Outcome{Kind: endPanic, Panic: m.ids.panics[b.ID]}
	case endGoexit:
		return Outcome{Kind: endGoexit}
	}
	return Outcome{Val: b.ID}
}

func (m *model) op(o *Op, v *Values) Outcome {
	cause := Outcome{Kind: endError, Err: m.ids.causes[o.ID]}
	switch o.Kind {
	case opSet:
		v[o.Var] = o.Val
	case opDelete:
		v[o.Var] = 0
	case opUndo:
		before := v[o.Var]
		v[o.Var] = o.Val
		out := m.body(o.Body, v)
		v[o.Var] = before
		return out
	case opCall, opFrom, opScope, opHandle, opDetach, opCancelRunning, opCancelFrom, opProvider, opLocked:
		// A caller and what it calls are one line of execution.
		return m.body(o.Body, v)
	case opExecutor:
		fork := *v
		return m.body(o.Body, &fork)
	case opSpawn, opJoined:
		fork := *v
		m.Tasks[o.ID] = m.body(o.Body, &fork)
		if o.Kind == opJoined {
			m.body(o.Between, v)
			return m.Tasks[o.ID]
		}
	case opPortal:
		out := m.body(o.Body, v)
		for _, b := range o.Bodies {
			fork := *v
			m.body(b, &fork)
		}
		return out
	case opStartTask, opWrap:
		fork := *v
		if out := m.body(o.Body, &fork); out.Kind != endReturn {
			return out
		}
		m.body(o.Between, v)
		return m.body(o.Bodies[0], &fork)
	case opTimeout:
		if o.Body != nil {
			return m.body(o.Body, v)
		}
	case opWait:
		return m.Tasks[o.Task.ID] // the zero outcome if it was not started
	case opGroup:
		out := Outcome{}
		for i, b := range o.Bodies {
			fork := *v
			member := m.body(b, &fork)
			if i == o.Fail && member.Kind != endReturn {
				out = member
			}
		}
		m.body(o.Between, v)
		return out
	case opShared:
		for _, b := range o.Bodies {
			m.body(b, &Values{})
		}
	case opOpen:
		if out := m.body(o.Body, v); out.Kind != endReturn {
			return out
		}
		switch ending(o.N) {
		case endError:
			return cause
		case endPanic:
			return Outcome{Kind: endPanic, Panic: m.ids.causes[o.ID]}
		}
	case opCancelBefore, opCancelQueued:
		return cause
	case opAbandon, opAbandonFrom:
		fork := *v
		m.body(o.Body, &fork)
		return Outcome{Kind: endError, Err: asyncsync.ErrAbandoned}
	case opTaskCancel:
		return cause
	}
	return Outcome{}
}

// Check compares what was seen with what should have been.
func Check(p *Program, got *Result) error {
	want := Expect(p, got)
	var errs []error
	complain := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, c := range got.Complaints {
		complain("%s", c)
	}
	got.checkLoose(p, complain)
	for i, w := range want.Bodies {
		if p.looseBodies[i] {
			continue
		}
		if g := got.Bodies[i]; g != w {
			complain("b%d: ran %d times, starting with %v; should be %d times, with %v", i, g.Runs, g.Start, w.Runs, w.Start)
		}
	}
	for i, w := range want.Ops {
		if p.looseOps[i] {
			continue
		}
		g := got.Ops[i]
		if g.Ended != w.Ended {
			complain("#%d: ended: %v; should be %v", i, g.Ended, w.Ended)
			continue
		}
		if why := differ(g.Outcome, w.Outcome); why != "" {
			complain("#%d: %s", i, why)
		}
		if g.After != w.After {
			complain("#%d: leaves the variables %v; should be %v", i, g.After, w.After)
		}
	}
	for i, w := range want.Tasks {
		g, ok := got.Tasks[i]
		if why := differ(g, w); !ok || why != "" {
			complain("task of #%d: %s (started: %v)", i, why, ok)
		}
	}
	for i := range got.Tasks {
		if _, ok := want.Tasks[i]; !ok && !p.looseOps[i] {
			complain("task of #%d: should not have been started", i)
		}
	}
	for i, w := range want.Roots {
		if why := differ(got.Roots[i], w); why != "" {
			complain("root %d: %s", i, why)
		}
	}
	return errors.Join(errs...)
}

func differ(got, want Outcome) string {
	same := got.Kind == want.Kind
	switch {
	case !same:
	case want.Kind == endReturn:
		same = got.Val == want.Val
	case want.Kind == endError:
		same = errors.Is(got.Err, want.Err)
	case want.Kind == endPanic:
		same = got.Panic == want.Panic
	}
	if same {
		return ""
	}
	return fmt.Sprintf("%v; should be %v", got, want)
}

// cancelled returns a ctx that has ended with cause.
func cancelled(ctx context.Context, cause error) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	cancel(cause)
	return ctx
}
