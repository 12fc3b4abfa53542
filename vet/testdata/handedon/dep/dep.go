// Package dep hands functions on to the library.
package dep

import (
	"context"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/loop"
)

// Do runs fn on a thread.
func Do[R any](ctx context.Context, name string, fn func(context.Context) (R, error)) (R, error) {
	return asyncsync.ToThread(ctx, fn, asyncsync.Named(name))
}

// Locked runs fn on a thread, through another function.
func Locked(ctx context.Context, fn func(ctx context.Context) error) error {
	_, err := Do(ctx, "locked", func(ctx context.Context) (int, error) { return 0, fn(ctx) })
	return err
}

// Events has fn called for a long time.
func Events(ctx context.Context, fn func(context.Context) error) error {
	_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		return 0, fn(ctx)
	}, asyncsync.LongRunning())
	return err
}

// Either runs fn on a thread, or a loop.
func Either(ctx context.Context, l loop.Loop, fn func(context.Context) (int, error)) (int, error) {
	if l != nil {
		return loop.Call(ctx, l, fn)
	}
	return asyncsync.ToThread(ctx, fn)
}

// Save calls a thread.
func Save(ctx context.Context) error { return Locked(ctx, func(context.Context) error { return nil }) }

// A Store has a method that hands on.
type Store struct{ h *asyncsync.Handle[*Store] }

// Do runs fn on the store's thread.
func (s *Store) Do(ctx context.Context, fn func(*Store) error) error {
	return s.h.Do(ctx, func(_ context.Context, s *Store) error { return fn(s) })
}
