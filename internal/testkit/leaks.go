package testkit

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"asyncsync.dev/internal/goroutine"
)

// A Count is a number that must not have grown in the end.
type Count struct {
	What string
	Now  func() int
	Kept int // that many more are no leak
}

// OSThreads are the OS threads of the process, on Linux. The Go runtime starts some for
// itself, which it keeps.
var OSThreads = Count{"OS threads", CountOSThreads, 8}

// NoLeaks fails the test if more goroutines, or records of goroutines, are left at its
// end than there are now, or if more is. It waits for what is on its way out. What stays
// for later tests, like the default thread, has to be there before.
func NoLeaks(t testing.TB, more ...Count) {
	t.Helper()
	left := watch(0, more)
	t.Cleanup(func() {
		if complaint := poll(polls, left); complaint != "" {
			t.Errorf("the test has left something behind: %s\n%s", complaint, Stacks())
		}
	})
}

// SameRecords fails the test if it ends with more or fewer records of goroutines than
// there are now. It does not wait: the test has waited for whatever it has started.
func SameRecords(t testing.TB) {
	t.Helper()
	before := goroutine.Live()
	t.Cleanup(func() {
		if now := goroutine.Live(); now != before {
			t.Errorf("%d records of goroutines, there were %d", now, before)
		}
	})
}

// Main runs the tests of a package and returns the code to exit with. If they pass it
// looks for what all of them have left behind, as NoLeaks does. As many as kept
// goroutines may stay, which is 1 where tests use the default thread. Main calls tidy
// before each look, if it is not nil.
func Main(m interface{ Run() int }, kept int, tidy func(), more ...Count) (code int) {
	left := watch(kept, more)
	if code = m.Run(); code != 0 {
		return code
	}
	complaint := poll(polls, func() string {
		if tidy != nil {
			tidy()
		}
		return left()
	})
	if complaint != "" {
		fmt.Fprintf(os.Stderr, "the tests have left something behind: %s\n%s", complaint, Stacks())
		return 1
	}
	return 0
}

// watch returns a function that says what there is more of than now.
func watch(kept int, more []Count) (left func() string) {
	counts := append([]Count{
		{"goroutines", runtime.NumGoroutine, kept},
		{"records of goroutines", goroutine.Live, kept},
	}, more...)
	before := make([]int, len(counts))
	for i, c := range counts {
		before[i] = c.Now()
	}
	return func() string {
		for i, c := range counts {
			if now := c.Now(); now > before[i]+c.Kept {
				return fmt.Sprintf("%d %s, there were %d", now, c.What, before[i])
			}
		}
		return ""
	}
}
