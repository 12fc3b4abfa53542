package libkit

import (
	"context"
	"testing"

	"asyncsync.dev/loop"
)

// Backends are the kinds of backend that package loop has.
var Backends = []string{"goroutines", "thread"}

// NewBackend returns a backend of a kind.
func NewBackend(t testing.TB, kind string) loop.Backend {
	t.Helper()
	b, err := loop.Builtin(kind)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Running runs b on a goroutine of its own until the test ends.
func Running(t testing.TB, b loop.Backend) loop.Backend {
	t.Helper()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		if err := Run(context.Background(), b, func(ctx context.Context) error { return Receive(ctx, b, stop) }); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-stopped
	})
	return b
}

// Run is loop.Run of a function that has no result.
func Run(ctx context.Context, b loop.Backend, main func(context.Context) error) error {
	_, err := loop.Run(ctx, b, func(ctx context.Context) (struct{}, error) { return struct{}{}, main(ctx) })
	return err
}

// Call is loop.Call of a function that has no result.
func Call(ctx context.Context, l loop.Loop, fn func(context.Context) error) error {
	_, err := loop.Call(ctx, l, func(ctx context.Context) (struct{}, error) { return struct{}{}, fn(ctx) })
	return err
}

// Receive has the task of b that has ctx wait for ch.
func Receive(ctx context.Context, b loop.Backend, ch <-chan struct{}) error {
	return b.Park(ctx, func(wake func()) {
		go func() {
			select {
			case <-ch:
				wake()
			case <-ctx.Done():
			}
		}()
	})
}

// Yield lets the other tasks of b run.
func Yield(ctx context.Context, b loop.Backend) error {
	return b.Park(ctx, func(wake func()) { wake() })
}
