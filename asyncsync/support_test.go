package asyncsync_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
)

// The helpers of package testkit that are called everywhere, and their words.
var (
	guard     = testkit.Guard
	poll      = testkit.Poll
	start     = testkit.Start
	outcomeOf = testkit.OutcomeOf
	ends      = testkit.Ends
	culprit   = testkit.Culprit
	listen    = libkit.Listen
	tid       = testkit.ThreadID
	osThreads = testkit.CountOSThreads
)

type (
	outcome     = testkit.Outcome
	runningFunc = testkit.Running
)

// to and from are ToThread and FromThread for functions without a result. They are in
// a test file, since reports name the file of a call.
func to(ctx context.Context, fn func(context.Context) error, opts ...asyncsync.Option) error {
	_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (none, error) { return none{}, fn(ctx) }, opts...)
	return err
}

func from(ctx context.Context, fn func(context.Context) error, opts ...asyncsync.Option) error {
	_, err := asyncsync.FromThread(ctx, func(ctx context.Context) (none, error) { return none{}, fn(ctx) }, opts...)
	return err
}

// leakCheck fails the test if goroutines or OS threads are left at its end.
func leakCheck(t *testing.T) {
	t.Helper()
	testkit.NoLeaks(t, testkit.OSThreads)
}

// newContext returns a context that the test closes at its end.
func newContext(t testing.TB, opts ...asyncsync.ContextOption) (context.Context, *asyncsync.ThreadSensitiveContext) {
	t.Helper()
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), opts...)
	t.Cleanup(func() { tsc.Close() })
	return ctx, tsc
}

// newPool returns a pool that the test closes at its end, after its contexts.
func newPool(t testing.TB, c asyncsync.ThreadPoolConfig) *asyncsync.ThreadPool {
	t.Helper()
	p := asyncsync.NewThreadPool(c)
	t.Cleanup(func() { p.Close() })
	return p
}

// occupy has the thread of ctx run a function until release is called. It
// returns when the function runs; ended delivers how its caller fared.
func occupy(ctx context.Context, opts ...asyncsync.Option) (release func(), ended *runningFunc) {
	begun, leave := make(chan struct{}), make(chan struct{})
	ended = start(func() error {
		return to(ctx, func(context.Context) error {
			close(begun)
			<-leave
			return nil
		}, opts...)
	})
	<-begun
	return sync.OnceFunc(func() { close(leave) }), ended
}

// awaitQueued waits until n calls are queued on tsc's thread.
func awaitQueued(t *testing.T, tsc *asyncsync.ThreadSensitiveContext, n int) {
	t.Helper()
	poll(t, func() string {
		if q := tsc.Stats().Queued; q != n {
			return fmt.Sprintf("%d calls are queued, not %d", q, n)
		}
		return ""
	})
}

// threadOf is where the calls of ctx run.
func threadOf(t *testing.T, ctx context.Context) place {
	t.Helper()
	p, err := asyncsync.ToThread(ctx, whereabouts)
	require.NoError(t, err)
	return p
}

// requireWrapsAll requires that err matches all of targets.
func requireWrapsAll(t *testing.T, err error, targets ...error) {
	t.Helper()
	for _, target := range targets {
		require.ErrorIs(t, err, target)
	}
}
