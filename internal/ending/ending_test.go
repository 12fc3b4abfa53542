package ending_test

import (
	"bufio"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/ending"
	"asyncsync.dev/internal/testkit"
)

// record runs fn on a goroutine of its own and returns how it has ended. raised is what
// the goroutine has raised last, as a *ending.Panic, or nil.
func record(fn func(raised *any)) (e ending.Ending) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		var raised any
		returned := false
		defer func() {
			if !returned {
				e = ending.Of(recover(), raised)
			}
		}()
		fn(&raised)
		returned = true
	}()
	<-done
	return e
}

// A function that raises an ending ends as the first one did.
func TestRaise(t *testing.T) {
	for _, end := range testkit.Ends {
		t.Run(end.How, func(t *testing.T) {
			testkit.Guard(t)
			var err error
			e := record(func(*any) { err = end.Do() })
			o := testkit.OutcomeOf(func() error {
				e.Raise(nil)
				return err
			})
			end.Check(t, o)
			require.Equal(t, end.How == "return", e.Returned())
			require.Equal(t, end.How == "goexit", e.Goexit)
		})
	}
}

// However often a panic is raised again, it is the same one, with the stack of the place
// where it began.
func TestStackOfTheOrigin(t *testing.T) {
	testkit.Guard(t)
	first := record(func(*any) { testkit.Culprit() })
	e := first
	for range 5 {
		e = record(func(raised *any) { e.Raise(raised) })
		require.Same(t, first.Panic, e.Panic)
	}
	lines := strings.Split(string(e.Panic.Stack), "\n")
	require.Contains(t, lines[0]+lines[2], "testkit.Culprit")
	require.NotContains(t, string(e.Panic.Stack), "Raise")
}

// A value that was raised before, and with which somebody panics anew, is a new panic.
func TestSameValueAgain(t *testing.T) {
	testkit.Guard(t)
	first := record(func(*any) { testkit.Culprit() })
	recovers := func(raised *any) {
		defer func() { recover() }()
		first.Raise(raised)
	}
	e := record(func(raised *any) {
		recovers(raised)
		testkit.Culprit()
	})
	require.NotSame(t, first.Panic, e.Panic)
	require.Equal(t, first.Panic.Value, e.Panic.Value)

	// Nor is another value that a deferred function panics with on top of it.
	e = record(func(raised *any) {
		defer func() { panic("another") }()
		first.Raise(raised)
	})
	require.NotSame(t, first.Panic, e.Panic)
	require.Equal(t, "another", e.Panic.Value)
}

// Any value can be panicked with: values that cannot be compared, and nil.
func TestValues(t *testing.T) {
	testkit.Guard(t)
	for _, v := range []any{[]int{1}, map[string]int{}, func() {}, struct{ f []int }{}, nil} {
		e := record(func(*any) { panic(v) })
		again := record(func(raised *any) { e.Raise(raised) })
		require.Same(t, e.Panic, again.Panic)
	}
	e := record(func(*any) { panic(nil) })
	require.IsType(t, &runtime.PanicNilError{}, e.Panic.Value)
}

// The stack of a panic far down is cut, and says so.
func TestStackIsBounded(t *testing.T) {
	testkit.Guard(t)
	var down func(n int)
	down = func(n int) {
		if n == 0 {
			panic("deep")
		}
		down(n - 1)
	}
	e := record(func(*any) { down(10_000) })
	require.Less(t, strings.Count(string(e.Panic.Stack), "\n"), 200)
	require.True(t, strings.HasSuffix(string(e.Panic.Stack), "\n...\n"))
}

// One who is told first tells the others.
func TestFirst(t *testing.T) {
	p := ending.New("x")
	require.True(t, p.First())
	require.False(t, p.First())
}

// A panic that nobody recovers ends the process with the stack of its origin.
func TestCrashShowsTheOrigin(t *testing.T) {
	testkit.Guard(t)
	out, err := testkit.Child(t, func(*testing.T) {
		e := record(func(*any) { testkit.Culprit() })
		func() { e.Raise(nil) }()
	})
	require.Error(t, err)
	require.Contains(t, out, "the panic below began elsewhere")
	require.Contains(t, out, "testkit.Culprit()")
	require.Contains(t, out, "net/http: abort Handler")
}

// What nobody hears of is written to standard error once nobody can; what somebody has
// heard of is not.
func TestMayBeLost(t *testing.T) {
	testkit.Guard(t)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	before := os.Stderr
	os.Stderr = w
	defer func() { os.Stderr = before }()
	for n := range 101 {
		p := ending.New("the value")
		if n == 100 {
			p.MayBeLost("unheard")
			p.MayBeLost("of another name")
		} else {
			p.MayBeLost("heard")
			p.Heard()
		}
	}
	end := make(chan struct{})
	go func() {
		defer close(end)
		for r.SetReadDeadline(time.Time{}) == nil { // until r is closed
			runtime.GC()
		}
	}()
	line, err := bufio.NewReader(r).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "asyncsync: task unheard, which nobody has waited for, panicked: the value\n", line)
	require.NoError(t, r.Close())
	<-end
	require.NoError(t, w.Close())
}
