// Package testkit has what tests of this module share: a guard against hangs, checks
// that nothing is left behind, the three endings of a function, and processes for what
// ends a process. Only tests import it.
//
// Of the module it imports internal/goroutine alone, so that the tests inside every
// other package can use it. Helpers that use the library are in package libkit below,
// which tests inside internal/core and what that imports cannot import.
package testkit

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
)

// patience is how long a test may take before it counts as hung. It bounds a hang, it
// is no part of any assertion.
const patience = 2 * time.Minute

// Guard ends the test binary, with the stacks of all goroutines, if the test hangs.
// Every test that can hang calls it, outside of any synctest bubble: inside one the
// clock is not real.
func Guard(t testing.TB) {
	t.Helper()
	name := t.Name()
	dog := time.AfterFunc(patience, func() {
		fmt.Fprintf(os.Stderr, "%s hangs; all goroutines:\n\n%s\n", name, Stacks())
		panic(name + " hangs (stacks above)")
	})
	t.Cleanup(func() { dog.Stop() })
}

// Stacks returns the stacks of all goroutines.
func Stacks() []byte {
	stacks := make([]byte, 1<<22)
	return stacks[:runtime.Stack(stacks, true)]
}

// polls is how often Poll and the checks for leaks look before they give up, after
// 20 seconds.
var polls = manyPolls

const (
	manyPolls = 4000
	pause     = 5 * time.Millisecond
)

// Poll calls check until it returns "", and fails the test with what it complains of
// if it does not stop. It is for what has no signal to wait for: ended goroutines and
// threads, the garbage collector, the state of others.
func Poll(t testing.TB, check func() string) {
	t.Helper()
	if complaint := poll(polls, check); complaint != "" {
		t.Fatalf("does not settle: %s", complaint)
	}
}

func poll(times int, check func() string) (complaint string) {
	for i := range times {
		if complaint = check(); complaint == "" {
			break
		}
		if runtime.Gosched(); i > 0 {
			time.Sleep(pause)
		}
	}
	return complaint
}
