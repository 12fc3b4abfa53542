package testkit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/goroutine"
)

// A fake is a testing.TB that remembers how the test under it went.
type fake struct {
	testing.TB
	said     []string
	cleanups []func()
}

func (f *fake) Helper()                        {}
func (f *fake) Name() string                   { return "TestFake" }
func (f *fake) Cleanup(fn func())              { f.cleanups = append(f.cleanups, fn) }
func (f *fake) Errorf(format string, a ...any) { f.said = append(f.said, fmt.Sprintf(format, a...)) }
func (f *fake) Fatalf(format string, a ...any) { f.Errorf(format, a...); runtime.Goexit() }

// play runs test with a fake, and returns what that was told.
func play(test func(t *fake)) (said []string) {
	f := &fake{}
	OutcomeOf(func() error {
		defer func() {
			for _, fn := range f.cleanups {
				fn()
			}
		}()
		test(f)
		return nil
	})
	return f.said
}

// A test that hangs ends the process, and the output has the stack where it hangs. In a
// bubble time passes when all goroutines hang.
func TestGuardEndsATestThatHangs(t *testing.T) {
	Guard(t)
	out, err := Child(t, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			Guard(t)
			hangsHere()
		})
	})
	require.Error(t, err)
	require.Contains(t, out, "TestGuardEndsATestThatHangs hangs; all goroutines:")
	require.Contains(t, out, "testkit.hangsHere")
	require.Contains(t, out, "panic: TestGuardEndsATestThatHangs hangs (stacks above)")
}

//go:noinline
func hangsHere() { select {} }

// A test that has ended is not guarded.
func TestGuardEndsWithTheTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		require.Empty(t, play(func(t *fake) { Guard(t) }))
		time.Sleep(2 * patience)
	})
}

func TestPoll(t *testing.T) {
	looks := 0
	require.Empty(t, play(func(t *fake) {
		Poll(t, func() string {
			if looks++; looks < 3 {
				return "not yet"
			}
			return ""
		})
	}))
	require.Equal(t, 3, looks)
	require.Equal(t, "never", poll(3, func() string { return "never" }))
}

// shorten has checks give up early for the rest of the test.
func shorten(t *testing.T) {
	polls = 3
	t.Cleanup(func() { polls = manyPolls })
}

func TestNoLeaksFindsWhatIsLeft(t *testing.T) {
	number := 0
	for name, c := range map[string]struct {
		leak func()
		want string
	}{
		"nothing":   {func() {}, ""},
		"goroutine": {manyStay(t), " goroutines, there were "},
		"record": {func() {
			done := make(chan struct{})
			go func() { // it ends, and does not give up its record
				defer close(done)
				goroutine.Ensure()
			}()
			<-done
		}, " records of goroutines, there were "},
		"more":            {func() { number += 3 }, "3 numbers, there were 0"},
		"as much as kept": {func() { number += 2 }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			shorten(t)
			number = 0
			said := play(func(t *fake) {
				NoLeaks(t, Count{"numbers", func() int { return number }, 2})
				c.leak()
			})
			if c.want == "" {
				require.Empty(t, said)
				return
			}
			require.Len(t, said, 1)
			require.Contains(t, said[0], c.want)
			require.Contains(t, said[0], "goroutine ", "the stacks")
		})
	}
}

//go:noinline
func stays(stay <-chan struct{}) { <-stay }

// manyStay returns a function that starts goroutines that stay as long as the test: enough
// of them to be seen even if some that earlier tests have started, and that were counted
// before, are gone at the second look. The test waits for them at its end, so that they
// are not among those.
func manyStay(t *testing.T) (start func()) {
	before := runtime.NumGoroutine()
	stay := make(chan struct{})
	t.Cleanup(func() {
		close(stay)
		Poll(t, func() string {
			if runtime.NumGoroutine() > before {
				return "goroutines stay"
			}
			return ""
		})
	})
	return func() {
		for range 20 {
			go stays(stay)
		}
	}
}

// What is on its way out is waited for.
func TestNoLeaksWaits(t *testing.T) {
	looks := 0
	require.Empty(t, play(func(t *fake) {
		NoLeaks(t, Count{"numbers", func() int { looks++; return looks % 5 }, 0})
	}))
	require.Equal(t, 5, looks)
}

func TestSameRecords(t *testing.T) {
	require.Empty(t, play(func(t *fake) { SameRecords(t) }))
	require.Len(t, play(func(t *fake) {
		SameRecords(t)
		t.Cleanup(func() { goroutine.Current().Release() })
		goroutine.Ensure()
	}), 1)
}

// tests are a suite.
type tests func() int

func (f tests) Run() int { return f() }

func TestMainLooksBehindTheTests(t *testing.T) {
	number, tidied := 0, 0
	numbers := Count{What: "numbers", Now: func() int { return number }}
	require.Equal(t, 2, Main(tests(func() int { return 2 }), 0, nil), "the tests have failed")
	require.Zero(t, Main(tests(func() int { number = 1; return 0 }), 0, func() {
		if tidied++; tidied == 2 {
			number = 0
		}
	}, numbers))
	require.Equal(t, 2, tidied)
	start := manyStay(t)
	shorten(t)
	leak := tests(func() int { start(); return 0 })
	require.Zero(t, Main(leak, 20, nil), "so many may stay")
	require.Equal(t, 1, Main(leak, 0, nil))
	require.Equal(t, 1, Main(tests(func() int { number = 1; return 0 }), 0, nil, numbers))
}

func TestEndsAreWhatTheySay(t *testing.T) {
	require.Len(t, Ends, 3)
	for i, e := range Ends {
		o := OutcomeOf(e.Do)
		require.True(t, o == e.Want, "%+v", o)
		require.Empty(t, play(func(t *fake) { e.Check(t, o) }))
		require.Len(t, play(func(t *fake) { Ends[(i+1)%3].CheckIs(t, o) }), 1)
	}
	other := errors.New(ErrEnd.Error())
	for _, wrong := range []Outcome{
		{How: "return", Err: other}, {How: "return"}, {How: "panic", Err: ErrEnd},
	} {
		require.Len(t, play(func(t *fake) { Ends[0].CheckIs(t, wrong) }), 1)
	}
	require.Len(t, play(func(t *fake) { Ends[1].CheckIs(t, Outcome{How: "panic", Value: other}) }), 1)
	wrapped := Outcome{How: "return", Err: fmt.Errorf("wrapped: %w", ErrEnd)}
	require.Empty(t, play(func(t *fake) { Ends[0].CheckIs(t, wrapped) }))
	require.Len(t, play(func(t *fake) { Ends[0].Check(t, wrapped) }), 1)
}

func TestRequireMisuse(t *testing.T) {
	require.Empty(t, play(func(t *fake) { RequireMisuse(t, "testkit", func() { panic("testkit: no") }) }))
	for _, fn := range []func(){func() {}, runtime.Goexit, func() { panic("test: no") }, func() { panic("no") }} {
		require.Len(t, play(func(t *fake) { RequireMisuse(t, "testkit", fn) }), 1)
	}
}

func TestRunning(t *testing.T) {
	Guard(t)
	leave := make(chan struct{})
	r := Start(func() error { <-leave; return context.Canceled })
	require.False(t, r.Over())
	close(leave)
	require.Equal(t, Outcome{How: "return", Err: context.Canceled}, r.Wait())
	require.True(t, r.Over())
	require.Equal(t, r.Wait(), r.Settle(t))

	shorten(t)
	stay := make(chan struct{})
	r = Start(func() error { <-stay; return nil })
	require.Equal(t, []string{"does not settle: the function does not come back"}, play(func(t *fake) { r.Settle(t) }))
	close(stay)
	r.Wait()
}

func TestChild(t *testing.T) {
	Guard(t)
	for _, c := range []struct {
		name string
		body func(t *testing.T)
		fail bool
		out  string
	}{
		{"ends well (and a/slash)", func(*testing.T) { fmt.Println("hello", os.Getenv("TESTKIT_TEST")) }, false, "hello there"},
		{"fails", func(t *testing.T) { t.Error("wrong") }, true, "wrong"},
		{"fails at once", func(t *testing.T) { t.Fatal("wrong") }, true, "wrong"},
		{"panics", func(*testing.T) { Culprit() }, true, "testkit.Culprit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := Child(t, c.body, "TESTKIT_TEST=there")
			require.Equal(t, c.fail, err != nil, "%v: %s", err, out)
			require.Contains(t, out, c.out)
			require.False(t, strings.HasPrefix(out, "testkit:"))
		})
	}
}

func TestThreads(t *testing.T) {
	if runtime.GOOS != "linux" {
		require.Zero(t, ThreadID())
		require.Zero(t, CountOSThreads())
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	mine := ThreadID()
	require.Equal(t, mine, ThreadID())
	const n = 20
	ids, leave := make(chan int), make(chan struct{})
	for range n {
		go func() {
			runtime.LockOSThread() // the thread ends with the goroutine
			ids <- ThreadID()
			<-leave
		}()
	}
	seen := map[int]bool{mine: true}
	for range n {
		seen[<-ids] = true
	}
	require.Len(t, seen, n+1)
	require.GreaterOrEqual(t, CountOSThreads(), n+1)
	close(leave)
}
