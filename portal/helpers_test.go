package portal_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/goroutine"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/loop"
	"asyncsync.dev/portal"
)

// After the whole suite no goroutine is left but the default thread of the process.
func TestMain(m *testing.M) {
	os.Exit(testkit.Main(m, 1, func() { core.DefaultPool.Close() }))
}

// onBoth runs a test with a portal of each kind, that the test need not close.
func onBoth(t *testing.T, test func(t *testing.T, p *portal.Portal)) {
	onBothBare(t, func(t *testing.T, kind string) {
		p := started(t, kind)
		test(t, p)
		p.Stop(true)
		_ = p.Close(nil)
	})
}

// onBothBare runs a test for each kind of backend.
func onBothBare(t *testing.T, test func(t *testing.T, kind string)) {
	for _, kind := range libkit.Backends {
		t.Run(kind, func(t *testing.T) {
			testkit.Guard(t)
			libkit.NoLeaks(t)
			test(t, kind)
		})
	}
}

func started(t *testing.T, kind string) *portal.Portal {
	t.Helper()
	p, err := portal.Start(portal.WithBackend(libkit.NewBackend(t, kind)))
	require.NoError(t, err)
	return p
}

// call is Call of a function that has no result.
func call(ctx context.Context, p *portal.Portal, fn func(ctx context.Context) error) error {
	_, err := portal.Call(ctx, p, func(ctx context.Context) (struct{}, error) { return struct{}{}, fn(ctx) })
	return err
}

// receive waits for ch, in the way of its caller's kind, or until ctx ends, and then
// returns the cause.
func receive(ctx context.Context, ch <-chan struct{}) error {
	return core.Park(ctx, ch, "test")
}

// forever waits until ctx ends, and returns the cause.
func forever(ctx context.Context) error { return receive(ctx, nil) }

// sleep waits for d in the same way.
func sleep(ctx context.Context, d time.Duration) error {
	done := make(chan struct{})
	timer := time.AfterFunc(d, func() { close(done) })
	defer timer.Stop()
	return receive(ctx, done)
}

// who identifies the calling goroutine; a task is one.
func who() int64 { return goroutine.ID() }

// A running is a function that runs on a goroutine of its own.
type running struct {
	done chan struct{}
	err  error
}

func background(fn func() error) *running {
	r := &running{done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.err = fn()
	}()
	return r
}

// wait waits for it in the same way.
func (r *running) wait() error {
	if err := receive(context.Background(), r.done); err != nil {
		return err
	}
	return r.err
}

// posted runs fn as a function that is posted to l.
func posted(l loop.Loop, fn func() error) error {
	done := make(chan error, 1)
	if err := l.Post(func() { done <- fn() }); err != nil {
		return err
	}
	return <-done
}

var noCtx context.Context
