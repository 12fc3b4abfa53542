package asyncsync_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/task"
)

// A ctx of a foreign type may break the contract of context.Context. Each wait with it
// ends with the error of a ctx that has ended, and nothing hangs.

// mute has closed Done, and says nothing else of it.
type mute struct {
	context.Context
	done chan struct{}
}

func (c mute) Done() <-chan struct{} { return c.done }
func (c mute) Err() error            { return nil }
func (c mute) Value(any) any         { return nil }

// fickle has another Done each time that it is asked, which is closed from the
// second on, and never says that it has ended.
type fickle struct {
	context.Context
	asked chan struct{} // closed when it was asked
}

func (c fickle) Done() <-chan struct{} {
	done := make(chan struct{})
	select {
	case <-c.asked:
		close(done)
	default:
		close(c.asked)
	}
	return done
}
func (c fickle) Err() error    { return nil }
func (c fickle) Value(any) any { return nil }

func TestCtxThatBreaksItsContract(t *testing.T) {
	over := make(chan struct{})
	close(over)
	ctxs := map[string]func(base context.Context) context.Context{
		"mute":   func(base context.Context) context.Context { return mute{base, over} },
		"fickle": func(base context.Context) context.Context { return fickle{base, make(chan struct{})} },
	}
	for name, broken := range ctxs {
		t.Run(name, func(t *testing.T) {
			guard(t)
			ctx, tsc := newContext(t)
			// told requires that a call has run, or its caller was told why not.
			told := func(t *testing.T, ran bool, err error) {
				t.Helper()
				if !ran {
					require.ErrorIs(t, err, context.Canceled)
				}
			}
			t.Run("ToThread", func(t *testing.T) {
				for _, busy := range []bool{false, true} {
					release := func() {}
					if busy {
						release, _ = occupy(ctx)
					}
					ran := false
					o := start(func() error {
						return to(broken(context.Background()), func(context.Context) error { ran = true; return nil }, asyncsync.On(tsc))
					})
					if busy && name == "mute" {
						require.ErrorIs(t, o.Wait().Err, context.Canceled, "it waits for nobody")
					}
					release()
					told(t, ran, o.Wait().Err)
				}
			})
			t.Run("FromThread", func(t *testing.T) {
				require.NoError(t, to(ctx, func(ctx context.Context) error {
					for range 100 {
						ran := false
						err := from(broken(ctx), func(context.Context) error { ran = true; return nil })
						told(t, ran, err)
					}
					return nil
				}))
			})
			if name == "mute" { // the end of the other is not known to anybody
				t.Run("Go", func(t *testing.T) {
					for _, busy := range []bool{false, true} {
						release := func() {}
						if busy {
							release, _ = occupy(ctx)
						}
						_, err := asyncsync.Go(broken(context.Background()), func(context.Context) (int, error) {
							t.Error("it has run")
							return 0, nil
						}, asyncsync.On(tsc)).Wait(context.Background())
						require.ErrorIs(t, err, context.Canceled)
						release()
					}
				})
			}
			t.Run("Insensitive", func(t *testing.T) {
				ran := false
				err := to(broken(context.Background()), func(context.Context) error { ran = true; return nil }, asyncsync.Insensitive())
				told(t, ran, err)
			})
			t.Run("Acquire", func(t *testing.T) {
				l := task.NewLimiter(1)
				require.NoError(t, l.Acquire(context.Background()))
				ended := broken(context.Background())
				ended.Done()
				require.ErrorIs(t, l.Acquire(ended), context.Canceled)
				require.Equal(t, task.LimiterStats{Total: 1, Used: 1}, l.Stats())
			})
			t.Run("Wait", func(t *testing.T) {
				release := make(chan none)
				tk := task.Go(context.Background(), func(context.Context) (none, error) { <-release; return none{}, nil })
				ended := broken(context.Background())
				ended.Done()
				_, err := tk.Wait(ended)
				require.ErrorIs(t, err, context.Canceled)
				close(release)
			})
			t.Run("Shutdown", func(t *testing.T) {
				ctx, tsc := newContext(t)
				release, held := occupy(ctx)
				ended := broken(context.Background())
				ended.Done() // from now on it is closed
				err := tsc.Shutdown(ended)
				require.ErrorIs(t, err, context.Canceled)
				require.NotContains(t, err.Error(), "%!w")
				release()
				require.NoError(t, held.Wait().Err)
			})
			require.NoError(t, tsc.Close())
		})
	}
}
