package asyncsync_test

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/local"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// onLoop runs fn as the main task of a thread loop, while another task counts how
// often it gets its turn: a wait that blocks the loop stops the count.
func onLoop(t *testing.T, fn func(ctx context.Context, b loop.Backend, turns func() int) error) {
	t.Helper()
	guard(t)
	b := loop.NewThread()
	_, err := loop.Run(context.Background(), b, func(ctx context.Context) (none, error) {
		turns := 0 // of the loop
		spin, cancel := context.WithCancel(ctx)
		defer cancel()
		require.NoError(t, b.Spawn(spin, func(ctx context.Context) {
			for ctx.Err() == nil {
				turns++
				if b.Park(ctx, func(wake func()) { wake() }) != nil {
					return
				}
			}
		}))
		return none{}, fn(ctx, b, func() int { return turns })
	})
	require.NoError(t, err)
}

// parks requires that others on the loop run while wait waits for what only they,
// or somebody whom they let go, can bring about.
func parks(t *testing.T, b loop.Backend, turns func() int, wait func(release <-chan struct{}) error) error {
	t.Helper()
	release := make(chan struct{})
	before := turns()
	require.NoError(t, b.Spawn(context.Background(), func(ctx context.Context) {
		for turns() < before+3 {
			if b.Park(ctx, func(wake func()) { wake() }) != nil {
				return
			}
		}
		close(release)
	}))
	return wait(release)
}

// comes waits in a task of a loop for ch, and returns errOwn.
func comes(ctx context.Context, ch <-chan struct{}) error {
	b, ok := loop.Current(ctx)
	if !ok {
		return errors.New("not a task of a loop")
	}
	return cmp.Or(libkit.Receive(ctx, b, ch), errOwn)
}

// Every wait of the library parks the task that makes it, and nobody else.
func TestWaitsOnAThreadLoopPark(t *testing.T) {
	waits := map[string]func(ctx context.Context, t *testing.T, release <-chan struct{}) error{
		"a call to the default thread": func(ctx context.Context, t *testing.T, release <-chan struct{}) error {
			return to(ctx, func(context.Context) error { <-release; return errOwn })
		},
		"a call to a context's thread": func(ctx context.Context, t *testing.T, release <-chan struct{}) error {
			_, tsc := newContext(t)
			return to(ctx, func(context.Context) error { <-release; return errOwn }, asyncsync.On(tsc))
		},
		"a call to an unpinned context": func(ctx context.Context, t *testing.T, release <-chan struct{}) error {
			_, tsc := newContext(t, asyncsync.Unpinned())
			return to(ctx, func(context.Context) error { <-release; return errOwn }, asyncsync.On(tsc))
		},
		"an insensitive call": func(ctx context.Context, t *testing.T, release <-chan struct{}) error {
			return to(ctx, func(context.Context) error { <-release; return errOwn }, asyncsync.Insensitive())
		},
		"a task": func(ctx context.Context, t *testing.T, release <-chan struct{}) error {
			// Off the loop: the wait of its own would block that.
			_, err := task.Go(context.Background(), func(context.Context) (int, error) { <-release; return 0, errOwn }).Wait(ctx)
			return err
		},
		"a task of the loop": func(ctx context.Context, t *testing.T, release <-chan struct{}) error {
			_, err := task.Go(ctx, func(ctx context.Context) (int, error) { return 0, comes(ctx, release) }).Wait(ctx)
			return err
		},
		"a task on a thread": func(ctx context.Context, t *testing.T, release <-chan struct{}) error {
			_, err := goTo(ctx, func(context.Context) error { <-release; return errOwn }).Wait(ctx)
			return err
		},
		"a group": func(ctx context.Context, t *testing.T, release <-chan struct{}) error {
			gctx, g := task.NewGroup(context.Background())
			g.Go(func(context.Context) error { <-release; return errOwn })
			return g.Wait(gctx)
		},
		"a group of the loop": func(ctx context.Context, t *testing.T, release <-chan struct{}) error {
			gctx, g := task.NewGroup(ctx)
			g.Go(func(ctx context.Context) error { return comes(ctx, release) })
			g.Go(func(ctx context.Context) error { return comes(ctx, release) })
			return g.Wait(gctx)
		},
		"a limiter": func(ctx context.Context, t *testing.T, release <-chan struct{}) error {
			l := task.NewLimiter(1)
			require.True(t, l.TryAcquire())
			go func() { <-release; l.Release() }()
			if err := l.Acquire(ctx); err != nil {
				return err
			}
			return errOwn
		},
		"the close of a context": func(ctx context.Context, t *testing.T, release <-chan struct{}) error {
			inner, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
			begun := make(chan none)
			go to(inner, func(context.Context) error { close(begun); <-release; return nil })
			<-begun
			return errors.Join(tsc.Close(), errOwn)
		},
		"another loop": func(ctx context.Context, t *testing.T, release <-chan struct{}) error {
			e := newCrew(1)
			defer e.dismiss()
			done := make(chan struct{})
			_, err := asyncsync.FromThread(ctx, func(context.Context) (int, error) { <-release; return 0, errOwn },
				asyncsync.WithLoop(loop.FromPost(e.Post, done)))
			return err
		},
	}
	for name, wait := range waits {
		t.Run(name, func(t *testing.T) {
			onLoop(t, func(ctx context.Context, b loop.Backend, turns func() int) error {
				for range 3 {
					err := parks(t, b, turns, func(release <-chan struct{}) error { return wait(ctx, t, release) })
					require.ErrorIs(t, err, errOwn)
				}
				// The end of a ctx, which another task brings about, reaches it.
				over, cancel := context.WithCancelCause(ctx)
				require.NoError(t, b.Spawn(ctx, func(context.Context) { cancel(errCause) }))
				err := wait(over, t, over.Done())
				require.True(t, errors.Is(err, errCause) || errors.Is(err, errOwn), "%v", err)
				return nil
			})
		})
	}
}

// What sync code called by a task calls in turn through FromThread runs as a task
// on the task's own loop: on its thread, among its tasks, with its local variables.
func TestFromThreadComesBackToTheLoop(t *testing.T) {
	v := local.New[int]()
	onLoop(t, func(ctx context.Context, b loop.Backend, turns func() int) error {
		home := here().tid
		v.Set(1)
		defer v.Delete() // the goroutine is the test's, and keeps it
		for range 20 {
			err := to(ctx, func(ctx context.Context) error {
				require.NotEqual(t, home, here().tid)
				return from(ctx, func(ctx context.Context) error {
					require.Equal(t, home, here().tid)
					got, ok := loop.Current(ctx)
					require.True(t, ok)
					require.Equal(t, b, got)
					n, _ := v.Get()
					require.Equal(t, 1, n)
					// And again: the thread below is blocked, and serves.
					return to(ctx, func(ctx context.Context) error {
						return from(ctx, func(ctx context.Context) error {
							require.Equal(t, home, here().tid)
							before := turns()
							for turns() == before {
								require.NoError(t, b.Park(ctx, func(wake func()) { wake() }))
							}
							return nil
						})
					})
				})
			})
			require.NoError(t, err)
		}
		return nil
	})
}

// A task calls async code directly. A posted function is refused: it would block the loop
// that the async code needs.
func TestAsyncToSyncOnALoop(t *testing.T) {
	onLoop(t, func(ctx context.Context, b loop.Backend, _ func() int) error {
		me := here()
		require.NoError(t, from(ctx, func(ctx context.Context) error {
			require.Equal(t, me, here(), "directly")
			return nil
		}))
		require.NoError(t, from(ctx, func(context.Context) error {
			require.Equal(t, me, here(), "directly")
			return nil
		}, asyncsync.SameThread()))
		require.NoError(t, b.Park(ctx, func(wake func()) {
			require.NoError(t, b.Post(func() {
				defer wake()
				require.ErrorIs(t, from(ctx, neverRuns(t)), loop.ErrOnLoop)
				require.ErrorIs(t, from(context.Background(), neverRuns(t)), loop.ErrOnLoop)
			}))
		}))
		return nil
	})
}

// All three endings reach the task that waits, whatever it waits for.
func TestEndingsReachATaskThatParks(t *testing.T) {
	for _, e := range ends {
		for name, wait := range map[string]func(ctx context.Context) error{
			"a call":              func(ctx context.Context) error { return to(ctx, on(e.Do)) },
			"an insensitive call": func(ctx context.Context) error { return to(ctx, on(e.Do), asyncsync.Insensitive()) },
			"a task":              func(ctx context.Context) error { return waitFor(goTo(ctx, on(e.Do))) },
			"there and back": func(ctx context.Context) error {
				return to(ctx, func(ctx context.Context) error { return from(ctx, on(e.Do)) })
			},
		} {
			t.Run(e.How+"/"+name, func(t *testing.T) {
				guard(t)
				b := loop.NewThread()
				o := outcomeOf(func() error {
					_, err := loop.Run(context.Background(), b, func(ctx context.Context) (none, error) { return none{}, wait(ctx) })
					return err
				})
				e.CheckIs(t, o)
				<-b.Done()
			})
		}
	}
}

// Many tasks of one loop call threads, wait for tasks, are cancelled: nothing is
// lost, and the loop's own data need no lock.
func TestManyTasksOnALoopPark(t *testing.T) {
	guard(t)
	leakCheck(t)
	b := loop.NewThread()
	var calls atomic.Int64
	sum := 0 // of the loop
	_, err := loop.Run(context.Background(), b, func(ctx context.Context) (none, error) {
		const tasks, rounds = 100, 20
		left := tasks
		err := b.Park(ctx, func(wake func()) {
			for i := range tasks {
				require.NoError(t, b.Spawn(ctx, func(ctx context.Context) {
					for r := range rounds {
						own, cancel := context.WithCancelCause(ctx)
						if (i+r)%5 == 0 {
							go cancel(errCause)
						}
						err := to(own, func(ctx context.Context) error {
							calls.Add(1)
							return from(ctx, func(context.Context) error { sum++; return nil })
						})
						if err != nil && !errors.Is(err, errCause) {
							t.Error(err)
						}
						cancel(nil)
					}
					if left--; left == 0 {
						wake()
					}
				}))
			}
		})
		return none{}, err
	})
	require.NoError(t, err)
	require.LessOrEqual(t, int64(sum), calls.Load())
	require.Positive(t, sum)
}

// A detached task that a function on a loop leaves behind does not end with the
// task that the function was called by.
func TestDetachedTaskOutlivesWhoCallsTheLoop(t *testing.T) {
	guard(t)
	other := loop.FromPost(func(fn func()) error { go fn(); return nil }, nil)
	var left *task.Task[int]
	leave := func(ctx context.Context) (int, error) {
		left = asyncsync.Go(asyncsync.Detach(ctx), func(context.Context) (int, error) { return 7, nil })
		return 0, nil
	}
	for name, call := range map[string]func(ctx context.Context) (int, error){
		"a goroutine": func(ctx context.Context) (int, error) { return asyncsync.FromThread(ctx, leave) },
		"a loop": func(ctx context.Context) (int, error) {
			return asyncsync.FromThread(ctx, leave, asyncsync.WithLoop(other))
		},
	} {
		// It is queued behind the task, and so begins when that has ended.
		_, err := asyncsync.Go(context.Background(), call).Wait(context.Background())
		require.NoError(t, err, name)
		v, err := left.Wait(context.Background())
		require.NoError(t, err, name)
		require.Equal(t, 7, v, name)
	}
}

// Insensitive work of a thread loop's tasks is bounded, and its own nested work is
// not held up by that.
func TestDefaultLimiter(t *testing.T) {
	guard(t)
	require.Nil(t, asyncsync.DefaultLimiter(context.Background()))
	_, err := loop.Run(context.Background(), loop.Goroutines(), func(ctx context.Context) (int, error) {
		require.Nil(t, asyncsync.DefaultLimiter(ctx), "these are goroutines already")
		return 0, nil
	})
	require.NoError(t, err)
	_, err = loop.Run(context.Background(), loop.NewThread(), func(ctx context.Context) (int, error) {
		l := asyncsync.DefaultLimiter(ctx)
		require.Same(t, l, asyncsync.DefaultLimiter(ctx))
		require.Equal(t, task.LimiterStats{Total: 40}, l.Stats())
		l.SetTotal(3)
		var now, most atomic.Int64
		ctx, g := task.NewGroup(ctx)
		for range 20 {
			g.Go(func(ctx context.Context) error {
				_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
					n := now.Add(1)
					for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
					}
					runtime.Gosched()
					now.Add(-1)
					return asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) {
						return asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 0, nil }, asyncsync.Insensitive())
					})
				}, asyncsync.Insensitive())
				return err
			})
		}
		require.NoError(t, g.Wait(ctx))
		require.LessOrEqual(t, most.Load(), int64(3))
		require.Equal(t, task.LimiterStats{Total: 3}, l.Stats())
		return 0, nil
	})
	require.NoError(t, err)
}
