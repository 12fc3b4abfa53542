package loop_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/loop"
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
