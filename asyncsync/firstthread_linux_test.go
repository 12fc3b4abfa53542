package asyncsync_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
)

// inChild runs the test again in a process of its own, with one processor, and
// returns false there.
func inChild(t *testing.T) (parent bool) {
	t.Helper()
	const variable = "ASYNCSYNC_TEST_CHILD"
	if os.Getenv(variable) == t.Name() {
		return false
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
	cmd.Env = append(os.Environ(), variable+"="+t.Name(), "GOMAXPROCS=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "PASS")
	return true
}

// Go never ends the first thread of the process, so that Taint could not keep
// its promise there. With one processor, and a first goroutine that sleeps, new
// goroutines begin on it: half of the contexts got it.
func TestNoContextGetsTheFirstThread(t *testing.T) {
	guard(t)
	if inChild(t) {
		return
	}
	first := os.Getpid()
	onFirst := 0 // goroutines that are no threads of ours: the test has its point
	for range 64 {
		ids := make(chan int)
		go func() { ids <- tid() }()
		if <-ids == first {
			onFirst++
		}
		ctx, tsc := newContext(t)
		p := threadOf(t, ctx)
		require.NotEqual(t, first, p.tid)
		require.Equal(t, p, threadOf(t, ctx))
		require.NoError(t, asyncsync.Taint(ctx))
		require.NoError(t, tsc.Close())
	}
	require.NotEqual(t, first, threadOf(t, context.Background()).tid, "the default thread")
	require.NotZero(t, onFirst)
}

// A caller that has become a thread keeps its OS thread when it has tainted it,
// and is told if that cannot be ended.
func TestTaintOfACallerThatIsAThread(t *testing.T) {
	guard(t)
	if inChild(t) {
		return
	}
	type result struct {
		tid   int
		first bool
		err   error
	}
	told, kept := 0, 0
	for range 64 {
		results := make(chan result)
		go func() {
			var r result
			from(context.Background(), func(ctx context.Context) error {
				return to(ctx, func(ctx context.Context) error {
					r.tid, r.err = tid(), asyncsync.Taint(ctx)
					return nil
				})
			})
			for range 10 { // it would move, were it not locked
				runtime.Gosched()
			}
			if tid() != r.tid {
				r.err = fmt.Errorf("the goroutine has left thread %d", r.tid)
			}
			r.first = r.tid == os.Getpid()
			results <- r
		}()
		r := <-results
		if r.first {
			require.ErrorIs(t, r.err, asyncsync.ErrFirstThread)
			told++
		} else {
			require.NoError(t, r.err)
			kept++
		}
	}
	require.NotZero(t, kept)
	t.Logf("%d on the first thread, %d on others", told, kept)
}
