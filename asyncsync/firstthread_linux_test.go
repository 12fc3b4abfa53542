package asyncsync_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
)

// withOneProcessor runs body in a process of its own that has one.
func withOneProcessor(t *testing.T, body func(t *testing.T)) {
	t.Helper()
	guard(t)
	out, err := testkit.Child(t, body, "GOMAXPROCS=1")
	require.NoError(t, err, out)
}

// Go never ends the first thread of the process, so that Taint could not keep
// its promise there. With one processor, and a first goroutine that sleeps, new
// goroutines begin on it: half of the contexts got it.
func TestNoContextGetsTheFirstThread(t *testing.T) {
	withOneProcessor(t, func(t *testing.T) {
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
	})
}

// A caller that has become a thread keeps its OS thread when it has tainted it,
// and is told if that cannot be ended.
func TestTaintOfACallerThatIsAThread(t *testing.T) {
	withOneProcessor(t, func(t *testing.T) {
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
	})
}
