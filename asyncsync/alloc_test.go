package asyncsync_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
)

// What a call may allocate.
func TestAllocs(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates, and drops pooled records at random")
	}
	guard(t)
	ctx, _ := newContext(t)
	cancelled, cancel := context.WithCancel(ctx)
	defer cancel()
	cancellable, tsc := asyncsync.NewThreadSensitiveContext(cancelled)
	defer tsc.Close()
	wrapped := asyncsync.SyncToAsync(func(_ context.Context, n int) (int, error) { return n + 1, nil })
	named := asyncsync.SyncToAsync(func(_ context.Context, n int) (int, error) { return n + 1, nil }, asyncsync.Named("named"), asyncsync.Abandon())
	one := func(context.Context) (int, error) { return 1, nil }
	check := func(ctx context.Context, call asyncsync.Func[int, int]) func() {
		return func() {
			if n, err := call(ctx, 1); n != 2 || err != nil {
				panic(err)
			}
		}
	}
	for _, c := range []struct {
		name   string
		budget float64
		inline bool
		run    func(ctx context.Context) func()
	}{
		{"wrapper, queued", 0, false, func(ctx context.Context) func() { return check(ctx, wrapped) }},
		{"wrapper with options, queued", 0, false, func(ctx context.Context) func() { return check(ctx, named) }},
		{"wrapper, inline", 0, true, func(ctx context.Context) func() { return check(ctx, wrapped) }},
		// At most its closure.
		{"ToThread, inline", 1, true, func(ctx context.Context) func() {
			return func() { asyncsync.ToThread(ctx, one) }
		}},
		{"ToThread, queued", 1, false, func(ctx context.Context) func() {
			return func() { asyncsync.ToThread(ctx, one) }
		}},
	} {
		for name, ctx := range map[string]context.Context{"": ctx, ", cancellable": cancellable} {
			t.Run(c.name+name, func(t *testing.T) {
				guard(t)
				var got float64
				measure := func(ctx context.Context) {
					run := c.run(ctx)
					for range 10 {
						run()
					}
					got = testing.AllocsPerRun(200, run)
				}
				if c.inline {
					require.NoError(t, to(ctx, func(ctx context.Context) error { measure(ctx); return nil }))
				} else {
					measure(ctx)
				}
				require.LessOrEqual(t, got, c.budget)
			})
		}
	}
}
