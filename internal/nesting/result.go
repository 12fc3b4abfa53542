package nesting

import (
	"errors"
	"fmt"
	"sync/atomic"
)

// What is seen of a program, and what should be.

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

// A model is the result that a program should have, while it is worked out: see
// model.go.
type model struct{ *Result }
