package testkit

import (
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
)

// An Outcome is how a function ended, as its caller saw it. Outcomes are compared with
// ==: errors and values of panics are the very same.
type Outcome struct {
	How   string // "return", "panic" or "goexit"
	Err   error  // that was returned
	Value any    // of the panic
}

// OutcomeOf runs fn on a goroutine of its own, which may end, and waits for it.
func OutcomeOf(fn func() error) Outcome { return Start(fn).Wait() }

// A Running is a function that runs on a goroutine of its own.
type Running struct {
	done chan struct{}
	o    Outcome
}

// Start runs fn on a new goroutine.
func Start(fn func() error) *Running {
	r := &Running{done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.o.Record(fn)
	}()
	return r
}

// Wait waits until the function has ended, and says how.
func (r *Running) Wait() Outcome {
	<-r.done
	return r.o
}

// Over reports whether the function has ended. In a bubble false is a fact right after
// synctest.Wait.
func (r *Running) Over() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// Settle waits like Wait, but fails the test if the function does not end, so that the
// tests after it still run.
func (r *Running) Settle(t testing.TB) Outcome {
	t.Helper()
	Poll(t, func() string {
		if !r.Over() {
			return "the function does not come back"
		}
		return ""
	})
	return r.o
}

// Record runs fn on the caller's goroutine, recovers a panic, and notes how fn has
// ended. A Goexit ends the goroutine; o has noted it before.
func (o *Outcome) Record(fn func() error) {
	*o = Outcome{How: "goexit"}
	returned := false
	defer func() {
		if returned {
			return
		}
		if v := recover(); v != nil {
			*o = Outcome{How: "panic", Value: v}
		}
	}()
	err := fn()
	returned = true
	*o = Outcome{How: "return", Err: err}
}

// An End is one of the three ways to end a function: Do ends as Want says.
type End struct {
	How  string
	Want Outcome
	Do   func() error
}

// ErrEnd is the error that the first of Ends returns.
var ErrEnd = errors.New("the error that was returned")

// Ends are the three ways to end a function: with ErrEnd, a panic of Culprit, and
// runtime.Goexit, in this order.
var Ends = []End{
	{"return", Outcome{How: "return", Err: ErrEnd}, func() error { return ErrEnd }},
	{"panic", Outcome{How: "panic", Value: http.ErrAbortHandler}, func() error { Culprit(); return nil }},
	{"goexit", Outcome{How: "goexit"}, func() error { runtime.Goexit(); return nil }},
}

// Culprit panics with a value that others compare by identity, as net/http does. Its
// name is looked for in stacks.
//
//go:noinline
func Culprit() { panic(http.ErrAbortHandler) }

// Check fails the test, and does not end it, unless o is what e comes to: the very same
// error or value. What says where that was, if it is given.
func (e End) Check(t testing.TB, o Outcome, what ...any) {
	t.Helper()
	if o != e.Want {
		t.Errorf("%s ended as %+v, not as %+v", fmt.Sprint(what...), o, e.Want)
	}
}

// CheckIs is Check of an outcome whose error may wrap the one that was returned.
func (e End) CheckIs(t testing.TB, o Outcome, what ...any) {
	t.Helper()
	if errors.Is(o.Err, e.Want.Err) {
		o.Err = e.Want.Err
	}
	e.Check(t, o, what...)
}

// RequireMisuse fails the test unless fn panics with a message of the package of that
// name, as it must when a programmer has misused it.
func RequireMisuse(t testing.TB, pkg string, fn func()) {
	t.Helper()
	o := OutcomeOf(func() error { fn(); return nil })
	if o.How != "panic" {
		t.Fatalf("misuse must panic, and has ended as %+v", o)
	}
	if !strings.HasPrefix(fmt.Sprint(o.Value), pkg+": ") {
		t.Fatalf("the panic must name package %s: %v", pkg, o.Value)
	}
}
