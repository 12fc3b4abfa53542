package deadlock

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/core"

	"github.com/stretchr/testify/require"
)

var _ TB = testing.TB(nil)

// recorder is a TB that a test looks at.
type recorder struct {
	mu       sync.Mutex
	cleanups []func()
	errors   []string
}

// newRecorder returns a TB that ends with t at the latest.
func newRecorder(t *testing.T) *recorder {
	r := &recorder{}
	t.Cleanup(func() { r.end() })
	return r
}

func (r *recorder) Helper() {}
func (r *recorder) Cleanup(f func()) {
	r.cleanups = append(r.cleanups, f)
}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	errs := r.errors
	r.errors = nil
	return errs
}

// end ends the test that it is of.
func (r *recorder) end() []string {
	for i := len(r.cleanups) - 1; i >= 0; i-- {
		r.cleanups[i]()
	}
	r.cleanups = nil
	return r.take()
}

// patience is how long a wait must look like a deadlock to Strict.
const patience = strictSightings * strictInterval

// A call that cannot begin fails, with an error that says why, and the test
// with it.
func TestStrictEndsARawWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, tb := rawWait(), newRecorder(t)
		strict(f.source(), tb)
		require.Equal(t, []bool{true}, f.strict)
		time.Sleep(patience - 1)
		synctest.Wait()
		require.Empty(t, tb.take())
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		errs := tb.take()
		require.Len(t, errs, 1)
		golden(t, "strict.txt", masked(errs[0]))
		require.Equal(t, []callID{{3, 7}}, f.refused)
		require.ErrorIs(t, f.errs[0], ErrDeadlock)
		var e *Error
		require.True(t, errors.As(f.errs[0], &e))
		require.Equal(t, "deadlock: call audit, called from app.audit /src/app/audit.go:33, waits for thread ledger, whose function post "+
			"is parked in chan receive (see go doc asyncsync.dev/deadlock PageRawWait)", e.Error())
		require.Equal(t, []Link{
			{Who: "post", Goroutine: onThread, Thread: "ledger", Kind: "parked", For: "audit", Age: -1, Site: "/src/app/post.go:20"},
			{Who: "app.audit", Goroutine: caller, Kind: "call", For: "audit", Age: 2 * time.Second, Site: "/src/app/audit.go:33"},
		}, e.Cycle)

		// The next one gets a line, the report being much the same.
		f.set(func() {
			f.graph.Threads[0].Queue = []core.CallState{{Seq: 8, Name: "next", Caller: caller, Waited: -1}}
		})
		time.Sleep(patience)
		synctest.Wait()
		errs = tb.take()
		require.Len(t, errs, 1)
		require.NotContains(t, errs[0], "\n")

		f.set(func() { f.graph.Threads = nil })
		require.Empty(t, tb.end())
		require.Equal(t, []bool{true, false}, f.strict)
		time.Sleep(time.Hour)
		require.Empty(t, tb.take())
	})
}

// unservedWait is a thread whose function waits, through the library, for
// goroutine 20, while a stranger's call is first in the queue.
func unservedWait() *fake {
	f := rawWait()
	th := &f.graph.Threads[0]
	th.Below = false
	th.Stack[0].Wait = &core.WaitState{Kind: "async", For: "fetch", Goroutine: 20, Age: time.Second}
	f.goroutines[20] = "[chan receive]:\napp.fetch()\n\t/src/app/fetch.go:5 +0x1\ncreated by app.main in goroutine 1\n\t/src/app/main.go:5 +0x1"
	f.goroutines[caller] = strings.Replace(callerIn, "app.post in goroutine 7", "app.main in goroutine 1", 1)
	return f
}

// Which waits of the library Strict takes for deadlocks.
func TestStrictAndWaitsOfTheLibrary(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(f *fake, t *core.ThreadState)
		want   bool
	}{
		{"a stranger that waits for its turn", func(*fake, *core.ThreadState) {}, false},
		{"one that All would serve", func(_ *fake, t *core.ThreadState) { t.Policy = core.All }, true},
		{"one from below", func(_ *fake, t *core.ThreadState) { t.Below = true }, true},
		{"one that is served", func(_ *fake, t *core.ThreadState) { t.Policy, t.Queue[0].Stranger = core.All, false }, false},
		{"one that was started by what is waited for", func(f *fake, _ *core.ThreadState) {
			f.goroutines[caller] = strings.Replace(callerIn, "goroutine 7", "goroutine 20", 1)
		}, true},
		{"and by that one's goroutines", func(f *fake, _ *core.ThreadState) {
			f.goroutines[caller] = strings.Replace(callerIn, "goroutine 7", "goroutine 21", 1)
			f.goroutines[21] = "[IO wait]:\napp.helper()\n\t/src/app/h.go:5 +0x1\ncreated by app.fetch in goroutine 20\n\t/src/app/h.go:5 +0x1"
		}, true},
		{"but what is waited for runs", func(f *fake, t *core.ThreadState) {
			t.Policy = core.All
			f.goroutines[20] = strings.Replace(f.goroutines[20], "chan receive", "IO wait", 1)
		}, false},
		{"what is waited for waits for one that runs", func(f *fake, t *core.ThreadState) {
			t.Policy = core.All
			f.graph.Goroutines = []core.GoroutineState{{Goroutine: 20, Wait: core.WaitState{Kind: "task", Goroutine: 22}}}
			f.goroutines[22] = "[running]:\napp.f()\n\t/src/app/f.go:5 +0x1"
		}, false},
		{"what is waited for waits for a call on a thread that runs", func(f *fake, t *core.ThreadState) {
			t.Policy = core.All
			f.graph.Goroutines = []core.GoroutineState{{Goroutine: 20, Wait: core.WaitState{Kind: "call", Thread: 4, Seq: 1}}}
			f.graph.Threads = append(f.graph.Threads, core.ThreadState{ID: 4, Goroutine: 23, Stack: []core.CallState{{Seq: 1}}})
			f.goroutines[23] = "[syscall]:\napp.f()\n\t/src/app/f.go:5 +0x1"
		}, false},
		{"what is waited for is not known", func(_ *fake, t *core.ThreadState) {
			t.Policy = core.All
			t.Stack[0].Wait = &core.WaitState{Kind: "executor"}
		}, true},
		{"waits in a circle", func(f *fake, t *core.ThreadState) {
			t.Policy = core.All
			f.graph.Goroutines = []core.GoroutineState{{Goroutine: 20, Wait: core.WaitState{Kind: "task", Goroutine: onThread}}}
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, tb := unservedWait(), newRecorder(t)
				c.change(f, &f.graph.Threads[0])
				strict(f.source(), tb)
				time.Sleep(3 * patience)
				synctest.Wait()
				errs := tb.take()
				if c.want {
					require.Len(t, errs, 1)
					require.Contains(t, errs[0], "and does not serve it; the call was ended")
					require.Contains(t, f.errs[0].Error(), "see go doc asyncsync.dev/deadlock PageCallToBlockedThread")
				} else {
					require.Empty(t, errs)
					require.Empty(t, f.refused)
				}
				tb.end()
			})
		})
	}
}

// A call that has left the queue at the last moment is no failure.
func TestStrictDoesNotAccuseTheLucky(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, tb := rawWait(), newRecorder(t)
		f.gone = true
		strict(f.source(), tb)
		time.Sleep(10 * patience)
		synctest.Wait()
		f.set(func() { f.graph.Threads = nil })
		require.Empty(t, tb.end())
	})
}

// A call of another bubble is told of once, and left alone: waking its caller
// from here would end the process.
func TestStrictLeavesOtherBubblesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, tb := rawWait(), newRecorder(t)
		f.goroutines[caller] = strings.Replace(callerIn, "[chan receive]", "[chan receive (durable), synctest bubble 1000000]", 1)
		strict(f.source(), tb)
		time.Sleep(10 * patience)
		synctest.Wait()
		errs := tb.take()
		require.Len(t, errs, 1)
		require.Contains(t, errs[0], "the call was not ended")
		require.Empty(t, f.refused)
		tb.end()
	})
}

func TestBubble(t *testing.T) {
	require.Zero(t, bubble())
	synctest.Test(t, func(t *testing.T) { require.NotZero(t, bubble()) })
}

// Strict tests inside strict tests are strict until the last has ended.
func TestStrictIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, one, two := &fake{}, newRecorder(t), newRecorder(t)
		strict(f.source(), one)
		strict(f.source(), two)
		require.Empty(t, one.end())
		require.Equal(t, []bool{true}, f.strict)
		require.Empty(t, two.end())
		require.Equal(t, []bool{true, false}, f.strict)
	})
}

// Contexts that the test has left open fail it; those that were there before,
// the default thread, callers that are threads, and contexts on their way out
// do not.
func TestStrictLeaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, tb := &fake{}, newRecorder(t)
		f.graph.Threads = []core.ThreadState{{ID: 1, Name: "before"}}
		strict(f.source(), tb)
		f.set(func() {
			f.graph.Threads = append(f.graph.Threads, core.ThreadState{ID: 2, Name: "default"}, core.ThreadState{ID: 3, Adopted: true}, core.ThreadState{ID: 7, Name: "in line", Lined: true},
				core.ThreadState{ID: 4, Name: "slow to close"}, core.ThreadState{ID: 5, Name: "left", Goroutine: 12}, core.ThreadState{ID: 6, Goroutine: 13})
		})
		looks := 0
		f.onGraph = func(g *core.Graph) {
			if looks++; looks > 10 {
				g.Threads = append(g.Threads[:4:4], g.Threads[5:]...)
			}
		}
		require.Equal(t, []string{"deadlock: Strict: 2 contexts not closed: left, (unnamed); see go doc asyncsync.dev/deadlock PageStrict"}, tb.end())
	})
}

// However many there are, the message is bounded.
func TestStrictLeaksMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, tb := &fake{}, newRecorder(t)
		strict(f.source(), tb)
		f.set(func() {
			for i := range uint64(1000) {
				f.graph.Threads = append(f.graph.Threads, core.ThreadState{ID: i + 1, Name: "left"})
			}
		})
		errs := tb.end()
		require.Len(t, errs, 1)
		require.Contains(t, errs[0], "1000 contexts not closed: left, ")
		require.Contains(t, errs[0], ", and 984 more; see")
	})
}

// A call whose caller cannot be found, to know its bubble, is left alone.
func TestStrictNeedsTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, tb := rawWait(), newRecorder(t)
		delete(f.goroutines, caller)
		strict(f.source(), tb)
		time.Sleep(3 * patience)
		synctest.Wait()
		require.Empty(t, tb.take())
		require.Empty(t, f.refused)
	})
}

// With real threads: a context that is left open is told of by name, one that
// is closed is not, and one without a thread costs nothing.
func TestStrictWithRealContexts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := newRecorder(t)
		Strict(tb)
		use := func(name string) *asyncsync.ThreadSensitiveContext {
			ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context(), asyncsync.WithName(name))
			_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 0, nil })
			require.NoError(t, err)
			return tsc
		}
		require.NoError(t, use("closed").Close())
		asyncsync.NewThreadSensitiveContext(t.Context(), asyncsync.WithName("never called"))
		left := use("left")
		errs := tb.end()
		require.Len(t, errs, 1)
		require.Contains(t, errs[0], "1 context not closed: left; ")
		require.NoError(t, left.Close())
	})
}

// A test that does nothing wrong passes.
func TestStrictPasses(t *testing.T) {
	Strict(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
	defer tsc.Close()
	v, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		return asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) {
			return asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 7, nil })
		})
	})
	require.NoError(t, err)
	require.Equal(t, 7, v)
}
