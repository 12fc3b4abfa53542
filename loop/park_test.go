package loop_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// silent is a ctx that has ended and does not say why.
type silent struct{ context.Context }

func (silent) Done() <-chan struct{} {
	ended := make(chan struct{})
	close(ended)
	return ended
}

func (silent) Err() error { return nil }

// A Park that nobody wakes does not return nil, whatever its ctx says of its end.
func TestParkWithACtxThatDoesNotSayWhyItHasEnded(t *testing.T) {
	for name, backend := range map[string]func(...loop.Option) loop.Backend{"thread": loop.NewThread, "goroutines": loop.Goroutines} {
		t.Run(name, func(t *testing.T) {
			testkit.Guard(t)
			_, err := loop.Run(context.Background(), backend(), func(ctx context.Context) (int, error) {
				b, _ := loop.Current(ctx)
				return 0, b.Park(silent{ctx}, func(func()) {})
			})
			require.ErrorIs(t, err, context.Canceled)
		})
	}
}

// The function that a task of a thread loop gives to Park must not wait: that would be
// another wait of the same task. It may do all else, and a task that recovers goes on.
func TestParkWithAFunctionThatWaits(t *testing.T) {
	for name, wait := range map[string]func(ctx context.Context, b loop.Backend){
		"Park":  func(ctx context.Context, b loop.Backend) { _ = b.Park(ctx, func(wake func()) { wake() }) },
		"Yield": func(ctx context.Context, _ loop.Backend) { _ = task.Yield(ctx) },
		"Call": func(ctx context.Context, b loop.Backend) {
			_ = libkit.Call(ctx, b, func(context.Context) error { return nil })
		},
		"Lock": func(ctx context.Context, b loop.Backend) {
			var m task.Mutex
			if m.TryLock() && b.Spawn(ctx, func(context.Context) { m.Unlock() }) == nil {
				_ = m.Lock(ctx)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Guard(t)
			b := loop.NewThread()
			require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
				v := func() (v any) {
					defer func() { v = recover() }()
					_ = b.Park(ctx, func(wake func()) {
						defer wake()
						wait(ctx, b)
					})
					return nil
				}()
				require.Contains(t, v, "loop: a task waits inside the function that it has given to Park")
				if err := libkit.Yield(ctx, b); err != nil {
					return err
				}
				return b.Park(ctx, func(wake func()) {
					if err := b.Spawn(ctx, func(context.Context) { wake() }); err != nil {
						t.Error(err)
					}
				})
			}))
		})
	}
}
