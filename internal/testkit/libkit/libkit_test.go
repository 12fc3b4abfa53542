package libkit_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/goroutine"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

var errOwn = errors.New("the caller's own")

// Each caller is what its name says, waits so that others run beside it, in its place,
// and returns what the function returns.
func TestCallers(t *testing.T) {
	for _, c := range libkit.Callers {
		t.Run(c.Name, func(t *testing.T) {
			testkit.Guard(t)
			libkit.NoLeaks(t)
			require.Same(t, errOwn, c.Run(context.Background(), func(ctx context.Context) error {
				_, onLoop := loop.Current(ctx)
				require.Equal(t, c.Name == "task of a thread loop", onLoop)
				here, tid := goroutine.ID(), testkit.ThreadID()
				var e task.Event
				c.Beside(ctx)(ctx, func(ctx context.Context) {
					switch c.Name {
					case "thread", "unpinned thread":
						require.Equal(t, here, goroutine.ID())
					case "task of a thread loop":
						require.Equal(t, tid, testkit.ThreadID())
					default:
						require.NotEqual(t, here, goroutine.ID())
					}
					e.Set()
				})
				require.NoError(t, e.Wait(ctx))
				return errOwn
			}))
		})
	}
}

func TestOnEach(t *testing.T) {
	for _, onEach := range []func(*testing.T, func(*testing.T, context.Context, libkit.Caller) error){libkit.OnEach, libkit.OnEachInBubble} {
		var names []string
		onEach(t, func(_ *testing.T, _ context.Context, c libkit.Caller) error {
			names = append(names, c.Name)
			return nil
		})
		require.Equal(t, []string{"goroutine", "thread", "unpinned thread", "task of a thread loop"}, names)
	}
}

func TestNewContextEndsWithTheTest(t *testing.T) {
	var kept context.Context
	t.Run("test", func(t *testing.T) {
		libkit.NoLeaks(t)
		kept, _ = libkit.NewContext(t)
		require.NoError(t, libkit.To(kept, func(ctx context.Context) error {
			return libkit.From(ctx, func(context.Context) error { return nil })
		}))
	})
	require.ErrorIs(t, libkit.To(kept, func(context.Context) error { return nil }), asyncsync.ErrClosed)
}

func TestHookLog(t *testing.T) {
	testkit.Guard(t)
	var log *libkit.HookLog
	call := func(name string, fn func() error) {
		testkit.OutcomeOf(func() error {
			return libkit.To(context.Background(), func(context.Context) error { return fn() }, asyncsync.Named(name))
		})
	}
	t.Run("test", func(t *testing.T) {
		log = libkit.Listen(t)
		for _, e := range testkit.Ends {
			call(e.How, e.Do)
		}
	})
	call("after the test", func() error { return nil })
	require.Equal(t, 3, log.Count("queued"))
	require.Equal(t, 3, log.Count("started"))
	require.Len(t, log.Named("ended", "return"), 1)
	require.Same(t, testkit.ErrEnd, log.Named("ended", "return")[0].Err)
	panics, goexits := log.Unheard()
	require.Equal(t, []any{testkit.Ends[1].Want.Value}, panics)
	require.Equal(t, 1, goexits)
}

func TestRunningEndsWithTheTest(t *testing.T) {
	testkit.Guard(t)
	for _, kind := range libkit.Backends {
		var b loop.Backend
		t.Run(kind, func(t *testing.T) {
			testkit.NoLeaks(t)
			b = libkit.Running(t, libkit.NewBackend(t, kind))
			require.Same(t, errOwn, libkit.Call(context.Background(), b, func(ctx context.Context) error {
				came := make(chan struct{})
				require.NoError(t, b.Post(func() { close(came) }))
				require.NoError(t, libkit.Receive(ctx, b, came))
				require.NoError(t, libkit.Yield(ctx, b))
				return errOwn
			}))
		})
		require.ErrorIs(t, libkit.Call(context.Background(), b, func(context.Context) error { return nil }), loop.ErrStopped)
	}
}
