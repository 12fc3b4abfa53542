// Package libkit has what tests of this module share and what uses the library itself:
// the kinds of callers, loops to call, and hooks that remember. What does without is in
// package testkit.
//
// It imports loop, task and asyncsync, and so serves the tests of all packages but those
// that are inside of what these import.
package libkit

import (
	"context"
	"errors"
	"sync"
	"testing"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/testkit"
)

// To is asyncsync.ToThread of a function that has no result.
func To(ctx context.Context, fn func(context.Context) error, opts ...asyncsync.Option) error {
	_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, fn(ctx) }, opts...)
	return err
}

// From is asyncsync.FromThread of a function that has no result.
func From(ctx context.Context, fn func(context.Context) error, opts ...asyncsync.Option) error {
	_, err := asyncsync.FromThread(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, fn(ctx) }, opts...)
	return err
}

// NewContext returns a context with a pool of its own, which the test closes at its end,
// so that the thread ends, too.
func NewContext(t testing.TB, opts ...asyncsync.ContextOption) (context.Context, *asyncsync.ThreadSensitiveContext) {
	t.Helper()
	pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{})
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), append(opts, asyncsync.WithPool(pool))...)
	t.Cleanup(func() {
		if err := errors.Join(tsc.Close(), pool.Close()); err != nil {
			t.Error(err)
		}
	})
	return ctx, tsc
}

// NoLeaks is testkit.NoLeaks in a process that has its default thread.
func NoLeaks(t testing.TB, more ...testkit.Count) {
	t.Helper()
	if err := To(context.Background(), func(context.Context) error { return nil }); err != nil {
		t.Fatal(err)
	}
	testkit.NoLeaks(t, more...)
}

// A HookLog is what hooks were told.
type HookLog struct {
	mu    sync.Mutex
	infos map[string][]core.CallInfo
}

// Listen has a HookLog hear of all calls for the rest of the test.
func Listen(t testing.TB) *HookLog {
	t.Helper()
	l := &HookLog{}
	t.Cleanup(core.AddHooks(l.Hooks()))
	return l
}

// Hooks returns hooks that have l remember what they are told.
func (l *HookLog) Hooks() core.Hooks {
	note := func(what string) func(core.CallInfo) {
		return func(i core.CallInfo) {
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.infos == nil {
				l.infos = map[string][]core.CallInfo{}
			}
			l.infos[what] = append(l.infos[what], i)
		}
	}
	return core.Hooks{
		Queued:    note("queued"),
		Started:   note("started"),
		Ended:     note("ended"),
		Abandoned: note("abandoned"),
		Panicked:  note("panicked"),
	}
}

// Told returns what one hook was told of: "queued", "started", "ended", "abandoned" or
// "panicked".
func (l *HookLog) Told(what string) []core.CallInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]core.CallInfo(nil), l.infos[what]...)
}

// Count returns how often a hook was told.
func (l *HookLog) Count(what string) int { return len(l.Told(what)) }

// Named returns what a hook was told of calls of that name.
func (l *HookLog) Named(what, name string) (infos []core.CallInfo) {
	for _, i := range l.Told(what) {
		if i.Name == name {
			infos = append(infos, i)
		}
	}
	return infos
}

// Unheard returns the values of the panics that Panicked was told of, and how many calls
// Ended was told to have ended by a Goexit.
func (l *HookLog) Unheard() (panics []any, goexits int) {
	for _, i := range l.Told("panicked") {
		panics = append(panics, i.Panic)
	}
	for _, i := range l.Told("ended") {
		if i.Goexit {
			goexits++
		}
	}
	return panics, goexits
}
