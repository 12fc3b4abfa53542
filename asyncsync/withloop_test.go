package asyncsync_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/local"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// comesTo waits in a task of a loop for ch.
func comesTo(ctx context.Context, ch <-chan struct{}) error {
	b, _ := loop.Current(ctx)
	return libkit.Receive(ctx, b, ch)
}

// With WithLoop the function is a task of the backend, for every kind of caller. It may
// wait there, it has the local variables of its caller, and its ending reaches the caller.
func TestWithLoop_ABackendGetsATask(t *testing.T) {
	v := local.New[int]()
	for _, kind := range []string{"goroutines", "thread"} {
		for _, e := range ends {
			t.Run(kind+"/"+e.How, func(t *testing.T) {
				guard(t)
				b, err := loop.Builtin(kind)
				require.NoError(t, err)
				libkit.Running(t, b)
				other := libkit.Running(t, loop.NewThread())
				base, _ := newContext(t)
				called := func(ctx context.Context) error {
					defer v.Set(1)()
					return from(ctx, func(ctx context.Context) error {
						got, ok := loop.Current(ctx)
						require.True(t, ok)
						require.Same(t, b, got)
						n, _ := v.Get()
						require.Equal(t, 1, n)
						if err := b.Park(ctx, func(wake func()) { go wake() }); err != nil {
							return err
						}
						// It has a node: what it calls is related to the thread that waits.
						return to(ctx, func(context.Context) error { return e.Do() })
					}, asyncsync.WithLoop(b))
				}
				for from, call := range map[string]func() error{
					"a goroutine":         func() error { return called(context.Background()) },
					"async code":          func() error { return called(base) },
					"a thread":            func() error { return to(base, called) },
					"async code for sync": func() error { return to(base, func(ctx context.Context) error { return from(ctx, called) }) },
					"a task of another":   func() error { return libkit.Call(context.Background(), other, called) },
					"a task of its own":   func() error { return libkit.Call(context.Background(), b, called) },
					"sync code of a task's": func() error {
						return libkit.Call(context.Background(), other, func(ctx context.Context) error { return to(ctx, called) })
					},
				} {
					t.Log(from)
					e.CheckIs(t, outcomeOf(call))
				}
			})
		}
	}
}

// What is called on a thread, or is not sensitive and has a goroutine of its own,
// comes back to the loop of the task that has called it, as task.Go does.
func TestFromThread_OfInsensitiveCodeComesBackToTheLoop(t *testing.T) {
	onLoop(t, func(ctx context.Context, b loop.Backend, _ func() int) error {
		home := here().tid
		return to(ctx, func(ctx context.Context) error {
			require.NotEqual(t, home, here().tid)
			onIt := func(ctx context.Context) error {
				require.Equal(t, home, here().tid)
				got, ok := loop.Current(ctx)
				require.True(t, ok)
				require.Same(t, b, got)
				return nil
			}
			require.NoError(t, from(ctx, onIt))
			_, err := task.Go(ctx, func(ctx context.Context) (none, error) { return none{}, onIt(ctx) }).Wait(ctx)
			return err
		}, asyncsync.Insensitive())
	})
}

// A cycle through a function that FromThread has made a task of the loop is certain.
func TestFromThread_OnALoopIsInTheSearchForCycles(t *testing.T) {
	onLoop(t, func(ctx context.Context, b loop.Backend, _ func() int) error {
		var tk *task.Task[none]
		ready := make(chan struct{})
		tk = task.Go(ctx, func(ctx context.Context) (none, error) {
			require.NoError(t, comesTo(ctx, ready))
			return none{}, to(ctx, func(ctx context.Context) error {
				return from(ctx, func(ctx context.Context) error {
					_, err := tk.Wait(ctx)
					return err
				})
			})
		})
		close(ready)
		_, err := tk.Wait(ctx)
		require.ErrorIs(t, err, deadlock.ErrDeadlock)
		return nil
	})
}
