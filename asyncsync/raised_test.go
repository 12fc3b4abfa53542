package asyncsync_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// A deferred function has its thread serve calls while a panic of another call is under
// way. That is one panic still, of which hooks are told once.
func TestPanicIsToldOnce(t *testing.T) {
	for kind, opts := range kinds {
		t.Run(kind, func(t *testing.T) {
			guard(t)
			_, other := asyncsync.NewThreadSensitiveContext(context.Background())
			ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), opts...)
			log := libkit.Listen(t)
			served := false
			o := testkit.OutcomeOf(func() error {
				return asyncsync.Do(ctx, func(ctx context.Context) error {
					defer func() {
						_ = asyncsync.DoAsync(ctx, func(ctx context.Context) error {
							return asyncsync.Do(ctx, func(context.Context) error { served = true; return nil })
						})
					}()
					return asyncsync.Do(ctx, func(context.Context) error { testkit.Culprit(); return nil }, asyncsync.On(other))
				})
			})
			require.Equal(t, "panic", o.How)
			require.True(t, served)
			require.Equal(t, 1, log.Count("panicked"))
			require.NoError(t, tsc.Close())
			require.NoError(t, other.Close())
		})
	}
}

// A deferred function calls something that panics, and recovers, while a panic of a call
// is under way. The one that was under way arrives, not the other.
func TestPanicPassesOthers(t *testing.T) {
	guard(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
	boom := func(ctx context.Context, what string) error {
		return asyncsync.Do(ctx, func(context.Context) error { panic(what) }, asyncsync.On(tsc))
	}
	recovers := func(ctx context.Context) {
		defer func() { recover() }()
		_ = boom(ctx, "second")
	}
	for name, deferred := range map[string]func(ctx context.Context){
		"a call": recovers,
		"a loop": func(ctx context.Context) {
			_, _ = loop.Run(ctx, loop.Goroutines(), func(ctx context.Context) (int, error) {
				recovers(ctx)
				return 0, nil
			})
		},
		"an uncomparable value": func(ctx context.Context) {
			defer func() { recover() }()
			_ = asyncsync.Do(ctx, func(context.Context) error { panic([]string{"second"}) }, asyncsync.On(tsc))
		},
	} {
		t.Run(name, func(t *testing.T) {
			for where, run := range map[string]func(fn func(context.Context) error) error{
				"task": func(fn func(context.Context) error) error {
					_, err := task.Go(ctx, func(ctx context.Context) (int, error) { return 0, fn(ctx) }).Wait(context.Background())
					return err
				},
				"thread": func(fn func(context.Context) error) error {
					own, other := asyncsync.NewThreadSensitiveContext(context.Background())
					defer other.Close()
					return asyncsync.Do(own, fn)
				},
			} {
				t.Run(where, func(t *testing.T) {
					o := testkit.OutcomeOf(func() error {
						return run(func(ctx context.Context) error {
							defer deferred(ctx)
							return boom(ctx, "first")
						})
					})
					require.Equal(t, "panic", o.How)
					require.Equal(t, "first", o.Value)
				})
			}
		})
	}
	require.NoError(t, tsc.Close())
}
