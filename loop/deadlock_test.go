package loop_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// started runs a task of b whose function gets the task itself, when that is known.
func started(ctx context.Context, b loop.Backend, fn func(ctx context.Context, self *task.Task[int]) error) *task.Task[int] {
	self := make(chan struct{})
	var tk *task.Task[int]
	tk = task.Go(ctx, func(ctx context.Context) (int, error) {
		if err := libkit.Receive(ctx, b, self); err != nil {
			return 0, err
		}
		return 0, fn(ctx, tk)
	}, task.On(b), task.Named("the task"))
	close(self)
	return tk
}

// Each of these closes a cycle of waits through tasks that are parked, which can
// never end: the wait that closes it is refused.
func TestCyclesThroughParkedTasks(t *testing.T) {
	thread := func(ctx context.Context, fn func(ctx context.Context) error, opts ...asyncsync.Option) error {
		_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) { return 0, fn(ctx) }, opts...)
		return err
	}
	back := func(ctx context.Context, fn func(ctx context.Context) error) error {
		_, err := asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) { return 0, fn(ctx) })
		return err
	}
	waits := func(self *task.Task[int]) func(ctx context.Context) error {
		return func(ctx context.Context) error {
			_, err := self.Wait(ctx)
			return err
		}
	}
	for name, wait := range map[string]func(ctx context.Context, b, other loop.Backend, self *task.Task[int]) error{
		"itself": func(ctx context.Context, _, _ loop.Backend, self *task.Task[int]) error { return waits(self)(ctx) },
		"a call to its loop": func(ctx context.Context, b, _ loop.Backend, self *task.Task[int]) error {
			return libkit.Call(ctx, b, waits(self))
		},
		"a call to another loop": func(ctx context.Context, _, other loop.Backend, self *task.Task[int]) error {
			return libkit.Call(ctx, other, waits(self))
		},
		"calls there and back": func(ctx context.Context, b, other loop.Backend, self *task.Task[int]) error {
			return libkit.Call(ctx, other, func(ctx context.Context) error { return libkit.Call(ctx, b, waits(self)) })
		},
		"a call to a thread": func(ctx context.Context, _, _ loop.Backend, self *task.Task[int]) error {
			return thread(ctx, waits(self))
		},
		"insensitive code": func(ctx context.Context, _, _ loop.Backend, self *task.Task[int]) error {
			return thread(ctx, waits(self), asyncsync.Insensitive())
		},
		"a call to a thread and back": func(ctx context.Context, _, _ loop.Backend, self *task.Task[int]) error {
			return thread(ctx, func(ctx context.Context) error { return back(ctx, waits(self)) })
		},
		"a call to a thread that calls a loop": func(ctx context.Context, _, other loop.Backend, self *task.Task[int]) error {
			return thread(ctx, func(ctx context.Context) error { return libkit.Call(ctx, other, waits(self)) })
		},
		"a task of another loop": func(ctx context.Context, _, other loop.Backend, self *task.Task[int]) error {
			_, err := task.Go(ctx, func(ctx context.Context) (int, error) { return self.Wait(ctx) }, task.On(other)).Wait(ctx)
			return err
		},
		"a goroutine's task": func(ctx context.Context, _, _ loop.Backend, self *task.Task[int]) error {
			_, err := task.Go(context.Background(), func(ctx context.Context) (int, error) { return self.Wait(ctx) }).Wait(ctx)
			return err
		},
		"a group": func(ctx context.Context, _, _ loop.Backend, self *task.Task[int]) error {
			_, g := task.NewGroup(ctx)
			g.Go(waits(self))
			g.Go(func(context.Context) error { return nil })
			return g.Wait(ctx)
		},
		"a place in a group": func(ctx context.Context, _, _ loop.Backend, self *task.Task[int]) error {
			_, g := task.NewGroup(ctx, task.NoCancel())
			g.SetLimit(1)
			g.Go(waits(self))
			g.Go(func(context.Context) error { return nil })
			return g.Wait(ctx)
		},
		"a call of Run": func(ctx context.Context, _, _ loop.Backend, self *task.Task[int]) error {
			_, err := task.Go(context.Background(), func(ctx context.Context) (int, error) {
				return loop.Run(ctx, loop.NewThread(), func(ctx context.Context) (int, error) { return self.Wait(ctx) })
			}).Wait(ctx)
			return err
		},
	} {
		for _, kind := range libkit.Backends {
			t.Run(name+"/"+kind, func(t *testing.T) {
				testkit.Guard(t)
				b, other := libkit.Running(t, libkit.NewBackend(t, kind)), libkit.Running(t, libkit.NewBackend(t, kind))
				tk := started(context.Background(), b, func(ctx context.Context, self *task.Task[int]) error { return wait(ctx, b, other, self) })
				_, err := tk.Wait(context.Background())
				require.ErrorIs(t, err, deadlock.ErrDeadlock)
				var d *deadlock.Error
				require.ErrorAs(t, err, &d)
				require.Contains(t, d.Details(), "the task")
				require.Contains(t, d.Details(), "deadlock_test.go:", "where in the program, not in the library")
			})
		}
	}
}

// Two limiters, each held by sync code of a task that wants the other. Each waits for
// the other through a task that is parked, and so lends its token to it.
func TestLimitersCrosswiseThroughTasks(t *testing.T) {
	for _, kind := range libkit.Backends {
		t.Run(kind, func(t *testing.T) {
			testkit.Guard(t)
			b := libkit.NewBackend(t, kind)
			require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
				one, two := task.NewLimiter(1), task.NewLimiter(1)
				var both [2]chan struct{}
				both[0], both[1] = make(chan struct{}), make(chan struct{})
				crosswise := func(i int, mine, theirs *task.Limiter) *task.Task[int] {
					return task.Go(ctx, func(ctx context.Context) (int, error) {
						return asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
							return asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) {
								close(both[i])
								if err := libkit.Receive(ctx, b, both[1-i]); err != nil {
									return 0, err
								}
								return asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 0, nil },
									asyncsync.Insensitive(), asyncsync.WithLimiter(theirs))
							})
						}, asyncsync.Insensitive(), asyncsync.WithLimiter(mine))
					})
				}
				t1, t2 := crosswise(0, one, two), crosswise(1, two, one)
				_, err1 := t1.Wait(ctx)
				_, err2 := t2.Wait(ctx)
				return errors.Join(err1, err2)
			}))
		})
	}
}

// Nobody waits for a task made with Spawn, but it may wait for one that waits for
// what its loop does: its name is in the cycle.
func TestSpawnedTasksHaveNames(t *testing.T) {
	testkit.Guard(t)
	b := libkit.NewBackend(t, "thread")
	require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
		var err error
		ended := make(chan struct{})
		assert.NoError(t, b.Spawn(ctx, func(ctx context.Context) {
			defer close(ended)
			_, g := task.NewGroup(ctx)
			g.Go(func(ctx context.Context) error {
				return g.Wait(ctx)
			}, task.Named("member"))
			err = g.Wait(ctx)
		}))
		assert.NoError(t, libkit.Receive(ctx, b, ended))
		assert.ErrorIs(t, err, deadlock.ErrDeadlock)
		assert.True(t, strings.Contains(err.Error(), "group"), "%v", err)
		return nil
	}))
}

// Tasks that wait for each other in a line are no cycle.
func TestNoCycle(t *testing.T) {
	for _, kind := range libkit.Backends {
		t.Run(kind, func(t *testing.T) {
			testkit.Guard(t)
			testkit.NoLeaks(t)
			b, other := libkit.Running(t, libkit.NewBackend(t, kind)), libkit.Running(t, libkit.NewBackend(t, kind))
			var last *task.Task[int]
			for i := range 100 {
				on, before := b, last
				if i%2 == 0 {
					on = other
				}
				last = task.Go(context.Background(), func(ctx context.Context) (int, error) {
					if before == nil {
						return 1, libkit.Yield(ctx, on)
					}
					return before.Wait(ctx)
				}, task.On(on))
			}
			n, err := last.Wait(context.Background())
			require.NoError(t, err)
			require.Equal(t, 1, n)
		})
	}
}
