package task_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// The rows of docs/conformance-easynetwork.md whose names begin with E. Each test is
// named after its row and opens with what EasyNetwork promises.

// Cancellations during shielded yields are not seen, and are at the next yield, with
// their message.
func TestE2_CancelShieldedCoroYield(t *testing.T) {
	onEach(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
		ctx, cancel := context.WithCancelCause(ctx)
		var list []string
		list = append(list, "a")
		cancel(errCause)
		task.YieldShielded(ctx)
		list = append(list, "b")
		cancel(errOther)
		task.YieldShielded(ctx)
		list = append(list, "c")
		err := task.Yield(ctx)
		require.Equal(t, errCause, err)
		require.Equal(t, []string{"a", "b", "c"}, list)
		return nil
	})
}

// ignore_cancellation runs its function in the same task, to the end, whatever is
// cancelled; what the function comes to is returned as it is, its own cancellation
// included; and the outer cancellation is seen at the next wait.
func TestE3_IgnoreCancellation(t *testing.T) {
	onEachInBubble(t, func(t *testing.T, ctx context.Context, c kindOfCaller) error {
		ctx, cancel := context.WithCancelCause(ctx)
		type key struct{}
		ctx = context.WithValue(ctx, key{}, 5)
		outer := task.Current(ctx)
		c.Beside(ctx)(ctx, func(context.Context) {
			for range 9 {
				cancel(errCause)
			}
		})
		began := time.Now()
		v, err := task.Shield(ctx, func(inner context.Context) (int, error) {
			require.Equal(t, outer, task.Current(inner))
			require.Equal(t, 5, inner.Value(key{}))
			if err := task.Sleep(inner, time.Second); err != nil {
				return 0, err
			}
			require.Error(t, ctx.Err())
			require.NoError(t, inner.Err())
			_, has := inner.Deadline()
			require.False(t, has)
			return 7, errReal
		})
		require.Equal(t, time.Second, time.Since(began))
		require.Equal(t, 7, v)
		require.Equal(t, errReal, err)
		require.Equal(t, errCause, task.Yield(ctx))

		// It runs also if ctx has ended before; that is for cleaning up.
		_, err = task.Shield(ctx, func(inner context.Context) (int, error) {
			inner, cancel := context.WithCancel(inner)
			cancel()
			return 0, task.Yield(inner)
		})
		require.Equal(t, context.Canceled, err)
		return nil
	})
}

// Twelve cases of timeouts: in time, too late, and cancelled from outside, for each
// of the four functions.
func TestE4_TimeoutAndMoveOn(t *testing.T) {
	type result struct {
		moved bool
		err   error
	}
	four := map[string]func(ctx context.Context, d time.Duration, fn func(context.Context) error) result{
		"Timeout": func(ctx context.Context, d time.Duration, fn func(context.Context) error) result {
			return result{false, task.Timeout(ctx, d, fn)}
		},
		"TimeoutAt": func(ctx context.Context, d time.Duration, fn func(context.Context) error) result {
			return result{false, task.TimeoutAt(ctx, time.Now().Add(d), fn)}
		},
		"MoveOn": func(ctx context.Context, d time.Duration, fn func(context.Context) error) result {
			moved, err := task.MoveOn(ctx, d, fn)
			return result{moved, err}
		},
		"MoveOnAt": func(ctx context.Context, d time.Duration, fn func(context.Context) error) result {
			moved, err := task.MoveOnAt(ctx, time.Now().Add(d), fn)
			return result{moved, err}
		},
	}
	for name, limited := range four {
		fails := name[:4] == "Time"
		t.Run(name, func(t *testing.T) {
			onEachInBubble(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
				sleeps := func(d time.Duration) func(context.Context) error {
					return func(ctx context.Context) error { return task.Sleep(ctx, d) }
				}
				// In time.
				began := time.Now()
				r := limited(ctx, 2*time.Second, sleeps(time.Second))
				require.Equal(t, result{}, r)
				require.Equal(t, time.Second, time.Since(began))
				// Too late.
				began = time.Now()
				r = limited(ctx, time.Second, sleeps(time.Hour))
				require.Equal(t, time.Second, time.Since(began))
				require.Equal(t, !fails, r.moved)
				if fails {
					require.ErrorIs(t, r.err, task.ErrTimeout)
					require.ErrorIs(t, r.err, context.DeadlineExceeded)
					require.ErrorIs(t, r.err, os.ErrDeadlineExceeded)
					require.NotErrorIs(t, r.err, context.Canceled)
					require.NotSame(t, r.err, task.ErrTimeout)
				} else {
					require.NoError(t, r.err)
				}
				// Cancelled from outside: that is no timeout.
				over, cancel := context.WithCancelCause(ctx)
				timer := time.AfterFunc(time.Second, func() { cancel(errCause) })
				defer timer.Stop()
				r = limited(over, time.Hour, sleeps(2*time.Hour))
				require.Equal(t, result{false, errCause}, r)
				// An outer one of the same kind.
				var inner result
				r = limited(ctx, time.Second, func(ctx context.Context) error {
					inner = limited(ctx, time.Hour, sleeps(2*time.Hour))
					return inner.err
				})
				require.False(t, inner.moved)
				require.Error(t, inner.err)
				require.NotErrorIs(t, inner.err, task.ErrTimeout, "it is not its own")
				require.Equal(t, !fails, r.moved)
				require.Equal(t, fails, errors.Is(r.err, task.ErrTimeout))
				// A function that shields past the end and returns nil is in time;
				// a real error wins.
				r = limited(ctx, time.Second, func(ctx context.Context) error {
					_, err := task.Shield(ctx, func(ctx context.Context) (int, error) { return 0, task.Sleep(ctx, time.Minute) })
					return err
				})
				require.Equal(t, result{}, r)
				r = limited(ctx, time.Second, func(ctx context.Context) error {
					_ = task.Sleep(ctx, time.Minute)
					return errReal
				})
				require.Equal(t, result{false, errReal}, r)
				// It is over before it begins, and the function learns of it.
				r = limited(ctx, 0, func(ctx context.Context) error { return task.Yield(ctx) })
				require.Equal(t, !fails, r.moved)
				require.Equal(t, fails, errors.Is(r.err, task.ErrTimeout))
				return nil
			})
		})
	}
}

// sleep_forever ends by cancellation alone.
func TestE5_SleepForever(t *testing.T) {
	onEachInBubble(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
		began := time.Now()
		moved, err := task.MoveOn(ctx, 1000*time.Hour, task.SleepForever)
		require.True(t, moved)
		require.Equal(t, 1000*time.Hour, time.Since(began))
		return err
	})
}

// Scopes: what was cancelled before it was entered, deadlines that move, closing
// twice, and the outer one first.
func TestE6_OpenCancelScope(t *testing.T) {
	onEachInBubble(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
		// Cancelled before anything runs in it.
		in, s := task.OpenScope(ctx)
		require.False(t, s.CancelCalled())
		s.Cancel(errCause)
		s.Cancel(errOther)
		require.True(t, s.CancelCalled())
		require.False(t, s.CancelledCaught())
		err := task.Yield(in)
		require.ErrorIs(t, err, errCause)
		require.NotEqual(t, errCause, err, "it is wrapped in the scope's own")
		require.NoError(t, s.Close(err))
		require.True(t, s.CancelledCaught())

		// A deadline that is past when it opens.
		in, s = task.OpenScope(ctx, task.Deadline(time.Now().Add(-time.Second)))
		require.True(t, s.CancelCalled())
		require.NoError(t, s.Close(task.Sleep(in, time.Hour)))
		require.True(t, s.CancelledCaught())

		// One that is moved twice, and taken away.
		now := time.Now()
		in, s = task.OpenScope(ctx, task.Deadline(now.Add(time.Second)))
		when, ok := s.When()
		require.True(t, ok)
		require.Equal(t, now.Add(time.Second), when)
		s.Reschedule(now.Add(2 * time.Second))
		require.NoError(t, task.Sleep(in, 1500*time.Millisecond))
		s.Reschedule(now.Add(3 * time.Second))
		require.NoError(t, task.Sleep(in, time.Second))
		_, told := in.Deadline()
		require.False(t, told)
		s.ClearDeadline()
		_, ok = s.When()
		require.False(t, ok)
		require.NoError(t, task.Sleep(in, time.Hour))
		s.Reschedule(time.Now().Add(time.Second))
		began := time.Now()
		err = task.Sleep(in, time.Hour)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(began))
		s.Reschedule(time.Now().Add(time.Hour)) // too late
		require.Error(t, task.Yield(in))
		require.NoError(t, s.Close(err))

		// A second Close, and what comes after the first.
		require.Equal(t, task.ErrScopeClosed, s.Close(nil))
		err = s.Close(errReal)
		require.ErrorIs(t, err, task.ErrScopeClosed)
		require.ErrorIs(t, err, errReal)
		in, s = task.OpenScope(ctx, task.Deadline(time.Now().Add(time.Second)))
		require.NoError(t, s.Close(nil))
		s.Cancel(errCause)
		s.Reschedule(time.Now().Add(-time.Second))
		require.False(t, s.CancelCalled())
		require.ErrorIs(t, context.Cause(in), context.Canceled)

		// The outer one closed first cancels what is inside, and the inner one has
		// nothing to do with it.
		in, s = task.OpenScope(ctx)
		inin, inner := task.OpenScope(in)
		require.NoError(t, s.Close(nil))
		err = task.Yield(inin)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, err, inner.Close(err))
		require.False(t, inner.CancelledCaught())
		return nil
	})
}

// gather: nothing; order and concurrency; all errors; and all start, though the
// first fails at once (which EasyNetwork's does not keep).
func TestE7_Gather(t *testing.T) {
	onEachInBubble(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
		r, err := task.Gather[int](ctx)
		require.NoError(t, err)
		require.Equal(t, []int{}, r)

		began := time.Now()
		slow := func(d time.Duration, n int) func(context.Context) (int, error) {
			return func(ctx context.Context) (int, error) { return n, task.Sleep(ctx, d) }
		}
		r, err = task.Gather(ctx, slow(500*time.Millisecond, 1), slow(200*time.Millisecond, 2), slow(0, 3))
		require.NoError(t, err)
		require.Equal(t, []int{1, 2, 3}, r)
		require.Equal(t, 500*time.Millisecond, time.Since(began))

		// Two errors, in order, though the second came first, and not the
		// cancellation of the third; the results of the others.
		shielded := func(d time.Duration, err error) func(context.Context) (int, error) {
			return func(ctx context.Context) (int, error) {
				return task.Shield(ctx, func(ctx context.Context) (int, error) {
					if err := task.Sleep(ctx, d); err != nil {
						return 0, err
					}
					return 4, err
				})
			}
		}
		raw := func(ctx context.Context) (int, error) { // as most packages do
			_ = task.SleepForever(ctx)
			return 0, fmt.Errorf("reading: %w", ctx.Err())
		}
		r, err = task.Gather(ctx, shielded(time.Second, errReal), shielded(0, errOther), slow(time.Hour, 3), raw, shielded(time.Second, nil))
		require.Equal(t, errors.Join(errReal, errOther), err)
		require.Equal(t, []int{0, 0, 0, 0, 4}, r)

		// The first fails at once: all have been started.
		ran := make([]bool, 4)
		_, err = task.Gather(ctx,
			func(context.Context) (int, error) { ran[0] = true; return 0, errReal },
			func(ctx context.Context) (int, error) { ran[1] = true; return 0, task.SleepForever(ctx) },
			func(ctx context.Context) (int, error) { ran[2] = true; return 0, task.SleepForever(ctx) },
			func(ctx context.Context) (int, error) { ran[3] = true; return 0, task.SleepForever(ctx) })
		require.Equal(t, errReal, err)
		require.Equal(t, []bool{true, true, true, true}, ran)

		// A failure that is a cancellation of its own is one.
		_, err = task.Gather(ctx,
			func(context.Context) (int, error) { return 0, context.Canceled },
			slow(time.Hour, 1))
		require.Equal(t, context.Canceled, err)

		// From outside.
		over, cancel := context.WithCancelCause(ctx)
		time.AfterFunc(time.Second, func() { cancel(errCause) })
		_, err = task.Gather(over, slow(time.Hour, 1), shielded(time.Minute, nil))
		require.Equal(t, errCause, err)
		return nil
	})
}

// Task groups, clause by clause.
func TestE8_TaskGroup(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		// Names and identity.
		infos := map[task.Info]bool{{}: true}
		for _, name := range []string{"one", "two"} {
			got, err := task.Go(ctx, func(ctx context.Context) (task.Info, error) { return task.Current(ctx), nil }, task.Named(name)).Wait(ctx)
			require.NoError(t, err)
			require.Equal(t, name, got.Name)
			require.False(t, infos[got])
			infos[got] = true
		}
		// A closed group starts nothing.
		gctx, g := task.NewGroup(ctx)
		require.NoError(t, g.Wait(gctx))
		requireMisusePanic(t, func() { g.Go(func(context.Context) error { return nil }) })
		// Joining again tells the same; cancelling one leaves the sibling alone, and
		// the second Cancel does nothing.
		stay := goTask(ctx, func(ctx context.Context) error { return task.Sleep(ctx, time.Second) })
		go1 := goTask(ctx, func(ctx context.Context) error { return task.SleepForever(ctx) })
		synctest.Wait()
		require.True(t, go1.Cancel(errCause))
		require.False(t, go1.Cancel(errOther))
		for range 3 {
			_, err := go1.Wait(ctx)
			require.Equal(t, errCause, err)
		}
		require.True(t, go1.Cancelled())
		_, err := stay.Wait(ctx)
		require.NoError(t, err)
		require.False(t, stay.Cancel(nil))
		// To wait does not cancel; to join or cancel does, and a task that swallows
		// it wins: the scope outside has not been cancelled for that.
		stubborn := task.Go(ctx, func(ctx context.Context) (int, error) {
			_ = task.SleepForever(ctx)
			return 42, nil
		})
		in, s := task.OpenScope(ctx, task.Deadline(time.Now().Add(time.Second)))
		_, err = stubborn.Wait(in)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.False(t, stubborn.Cancelled())
		v, err := stubborn.WaitOrCancel(in)
		require.NoError(t, err)
		require.Equal(t, 42, v)
		require.NoError(t, s.Close(nil))
		require.True(t, s.CancelCalled())
		require.False(t, s.CancelledCaught())
		// One that has ended is not waited for.
		require.NoError(t, task.Timeout(ctx, 0, func(ctx context.Context) error {
			_, err := stubborn.Wait(ctx)
			return err
		}))
		// A lone error, and a lone cancellation, are told as such.
		gctx, g = task.NewGroup(ctx)
		g.Go(func(ctx context.Context) error { return errReal })
		require.ErrorIs(t, g.Wait(gctx), errReal)
		moved, err := task.MoveOn(ctx, time.Second, func(ctx context.Context) error {
			gctx, g := task.NewGroup(ctx)
			g.Go(task.SleepForever)
			g.Go(task.SleepForever)
			return g.Wait(gctx)
		})
		require.True(t, moved)
		require.NoError(t, err)
	})
}

// run_in_thread goes on whatever is cancelled, and its value is delivered; with
// abandon it is left behind. Inside there is no loop.
func TestE9_RunInThread(t *testing.T) {
	onEachInBubble(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
		in, s := task.OpenScope(ctx)
		timer := time.AfterFunc(time.Second, func() {
			for range 4 {
				s.Cancel(errCause)
			}
		})
		defer timer.Stop()
		v, err := task.Await(in, func(ctx context.Context) (int, error) {
			time.Sleep(time.Minute)
			require.Error(t, ctx.Err())
			return 7, nil
		})
		require.NoError(t, err)
		require.Equal(t, 7, v)
		require.NoError(t, s.Close(nil))
		require.True(t, s.CancelCalled())
		require.False(t, s.CancelledCaught())

		release := make(chan struct{})
		defer close(release)
		moved, err := task.MoveOn(ctx, time.Second, func(ctx context.Context) error {
			_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
				_, on := loop.Current(ctx)
				require.False(t, on)
				<-release
				return 0, nil
			}, asyncsync.Insensitive(), asyncsync.Abandon())
			return err
		})
		require.True(t, moved)
		return err
	})
}

// Shields and scopes that are in each other, in all ways. Two rules give all of
// them: a scope looks at the error that it is given and at nothing else, and whose
// the cancellation is says its identity.
func TestE13_ShieldAndScopes(t *testing.T) {
	shields := map[string]func(ctx context.Context) error{
		"YieldShielded": func(ctx context.Context) error {
			time.Sleep(2 * time.Second) // blocks whatever it blocks
			task.YieldShielded(ctx)
			return nil
		},
		"Shield of Sleep": func(ctx context.Context) error {
			_, err := task.Shield(ctx, func(ctx context.Context) (int, error) { return 0, task.Sleep(ctx, 2*time.Second) })
			return err
		},
		"Shield of Yield": func(ctx context.Context) error {
			_, err := task.Shield(ctx, func(ctx context.Context) (int, error) {
				time.Sleep(2 * time.Second)
				return 0, task.Yield(ctx)
			})
			return err
		},
		"Await": func(ctx context.Context) error {
			_, err := task.Await(ctx, func(context.Context) (int, error) { time.Sleep(2 * time.Second); return 0, nil })
			return err
		},
	}
	in := func(d time.Duration) task.ScopeOption { return task.Deadline(time.Now().Add(d)) }
	for name, shield := range shields {
		cases := map[string]func(t *testing.T, ctx context.Context){
			"expiry meanwhile, and no wait after it": func(t *testing.T, ctx context.Context) {
				in, s := task.OpenScope(ctx, in(time.Second))
				require.NoError(t, s.Close(shield(in)))
				require.True(t, s.CancelCalled())
				require.False(t, s.CancelledCaught())
				require.NoError(t, task.Timeout(ctx, time.Second, shield))
			},
			"expiry meanwhile, and a wait after it": func(t *testing.T, ctx context.Context) {
				ctx, s := task.OpenScope(ctx, in(time.Second))
				require.NoError(t, shield(ctx))
				require.NoError(t, s.Close(task.Yield(ctx)))
				require.True(t, s.CancelledCaught())
			},
			"a timeout, and a wait after it": func(t *testing.T, ctx context.Context) {
				require.ErrorIs(t, task.Timeout(ctx, time.Second, func(ctx context.Context) error {
					require.NoError(t, shield(ctx))
					return task.Yield(ctx)
				}), task.ErrTimeout)
			},
			"both expire, the outer one first": func(t *testing.T, ctx context.Context) {
				octx, outer := task.OpenScope(ctx, in(500*time.Millisecond))
				ictx, inner := task.OpenScope(octx, in(time.Second))
				require.NoError(t, shield(ictx))
				err := inner.Close(task.Yield(ictx))
				require.Error(t, err)
				require.False(t, inner.CancelledCaught())
				require.NoError(t, outer.Close(err))
				require.True(t, outer.CancelledCaught())
			},
			"both expire, the inner one first": func(t *testing.T, ctx context.Context) {
				octx, outer := task.OpenScope(ctx, in(time.Second))
				ictx, inner := task.OpenScope(octx, in(500*time.Millisecond))
				require.NoError(t, shield(ictx))
				require.NoError(t, inner.Close(task.Yield(ictx)))
				require.True(t, inner.CancelledCaught())
				require.NoError(t, outer.Close(task.Yield(octx)), "the outer one's comes at the next wait")
				require.True(t, outer.CancelledCaught())
			},
			"the outer one is cancelled, the inner one is not": func(t *testing.T, ctx context.Context) {
				octx, outer := task.OpenScope(ctx)
				ictx, inner := task.OpenScope(octx)
				outer.Cancel(nil)
				require.NoError(t, task.Timeout(context.WithoutCancel(ctx), time.Hour, func(context.Context) error {
					_, err := task.Shield(ictx, func(ctx context.Context) (int, error) { return 0, task.Yield(ctx) })
					return err
				}))
				err := inner.Close(task.Yield(ictx))
				require.False(t, inner.CancelCalled())
				require.False(t, inner.CancelledCaught())
				require.NoError(t, outer.Close(err))
				require.True(t, outer.CancelledCaught())
			},
			"cancelled from outside after the inner scopes": func(t *testing.T, ctx context.Context) {
				octx, cancel := context.WithCancelCause(ctx)
				ictx, inner := task.OpenScope(octx, in(time.Second))
				require.NoError(t, shield(ictx))
				require.NoError(t, inner.Close(task.Yield(ictx)))
				cancel(errCause)
				require.Equal(t, errCause, task.Yield(octx))
			},
			"a shielded scope": func(t *testing.T, ctx context.Context) {
				octx, outer := task.OpenScope(ctx)
				ictx, inner := task.OpenScope(octx, task.Shielded())
				outer.Cancel(nil)
				require.NoError(t, shield(ictx))
				require.NoError(t, task.Sleep(ictx, time.Second))
				inner.Cancel(errCause)
				require.NoError(t, inner.Close(task.Sleep(ictx, time.Second)))
				require.True(t, inner.CancelledCaught())
				require.NoError(t, outer.Close(task.Yield(octx)))
				require.True(t, outer.CancelledCaught())
			},
			"caught in the body, and gone": func(t *testing.T, ctx context.Context) {
				ctx, s := task.OpenScope(ctx, in(time.Second))
				require.NoError(t, shield(ctx))
				require.Error(t, task.Yield(ctx))
				require.NoError(t, s.Close(nil))
				require.True(t, s.CancelCalled())
				require.False(t, s.CancelledCaught())
			},
			"caught in the body, and told in other words": func(t *testing.T, ctx context.Context) {
				ctx, s := task.OpenScope(ctx, in(time.Second))
				require.NoError(t, shield(ctx))
				require.NoError(t, s.Close(fmt.Errorf("in the body: %w", task.Yield(ctx))))
				require.True(t, s.CancelledCaught())
			},
			"together with real errors": func(t *testing.T, ctx context.Context) {
				ctx, s := task.OpenScope(ctx, in(time.Second))
				require.NoError(t, shield(ctx))
				own := task.Yield(ctx)
				err := s.Close(errors.Join(errReal, fmt.Errorf("again: %w", errors.Join(own, errOther))))
				require.True(t, s.CancelledCaught())
				require.ErrorIs(t, err, errReal)
				require.ErrorIs(t, err, errOther)
				require.NotErrorIs(t, err, context.DeadlineExceeded)
			},
			"a group inside": func(t *testing.T, ctx context.Context) {
				moved, err := task.MoveOn(ctx, time.Second, func(ctx context.Context) error {
					gctx, g := task.NewGroup(ctx)
					g.Go(shield)
					g.Go(task.SleepForever)
					return g.Wait(gctx)
				})
				require.True(t, moved)
				require.NoError(t, err)
			},
			"a scope inside of a task of a group": func(t *testing.T, ctx context.Context) {
				gctx, g := task.NewGroup(ctx)
				g.Go(func(ctx context.Context) error {
					moved, err := task.MoveOn(ctx, time.Second, func(ctx context.Context) error {
						if err := shield(ctx); err != nil {
							return err
						}
						return task.SleepForever(ctx)
					})
					require.True(t, moved)
					return err
				})
				require.NoError(t, g.Wait(gctx))
				require.NoError(t, task.Yield(ctx))
			},
			"two scopes with one cause": func(t *testing.T, ctx context.Context) {
				octx, outer := task.OpenScope(ctx)
				ictx, inner := task.OpenScope(octx)
				inner.Cancel(errCause)
				err := task.Yield(ictx)
				outer.Cancel(errCause)
				require.Equal(t, err, outer.Close(err), "it is not the outer one's")
				require.False(t, outer.CancelledCaught())
				require.NoError(t, inner.Close(err))
			},
			"what says context.Canceled": func(t *testing.T, ctx context.Context) {
				ctx, s := task.OpenScope(ctx)
				s.Cancel(errCause)
				require.NoError(t, s.Close(fmt.Errorf("net: %w", ctx.Err())))
				require.True(t, s.CancelledCaught())
			},
			"what says context.Canceled, of nobody knows which": func(t *testing.T, ctx context.Context) {
				octx, outer := task.OpenScope(ctx)
				ictx, inner := task.OpenScope(octx)
				inner.Cancel(nil)
				outer.Cancel(nil)
				err := inner.Close(ictx.Err())
				require.Equal(t, context.Canceled, err)
				require.NoError(t, outer.Close(err))
				// Not of a scope that was not cancelled.
				ictx, inner = task.OpenScope(ctx)
				require.Equal(t, context.Canceled, inner.Close(context.Canceled))
				require.False(t, inner.CancelledCaught())
				require.Error(t, ictx.Err())
			},
			"a cancellation of another scope, which says context.Canceled": func(t *testing.T, ctx context.Context) {
				other, s := task.OpenScope(ctx)
				s.Cancel(nil)
				foreign := task.Yield(other)
				require.ErrorIs(t, foreign, context.Canceled)
				mine, m := task.OpenScope(ctx)
				m.Cancel(nil)
				require.Error(t, task.Yield(mine))
				require.Equal(t, foreign, m.Close(foreign))
				require.False(t, m.CancelledCaught())
				require.NoError(t, s.Close(foreign))
			},
		}
		for what, scenario := range cases {
			t.Run(name+"/"+what, func(t *testing.T) {
				onEachInBubble(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
					scenario(t, ctx)
					return nil
				})
			})
		}
	}
}

// Fair locks: first come first served; no yield where nobody waits; a waiter that
// is cancelled as it gets the lock hands it on; misuse.
func TestE14_FairLock(t *testing.T) {
	guard(t)
	leavesNothing(t)
	_, err := loop.Run(context.Background(), loop.NewThread(), func(ctx context.Context) (int, error) {
		b, _ := loop.Current(ctx)
		var m task.Mutex
		others := 0
		require.NoError(t, b.Spawn(ctx, func(context.Context) { others++ }))
		require.NoError(t, m.Lock(ctx))
		m.Unlock()
		require.NoError(t, m.Lock(ctx))
		require.Zero(t, others, "nobody else has run")
		var order []int
		var ended task.Event
		left := 4
		cancels := make([]context.CancelCauseFunc, 4)
		for i := range 4 {
			inner, cancel := context.WithCancelCause(ctx)
			cancels[i] = cancel
			require.NoError(t, b.Spawn(ctx, func(context.Context) {
				if err := m.Lock(inner); err == nil {
					order = append(order, i)
					assert.False(t, m.TryLock())
					m.Unlock()
				} else {
					assert.ErrorIs(t, err, errCause)
				}
				if left--; left == 0 {
					ended.Set()
				}
			}))
		}
		require.NoError(t, task.Yield(ctx))
		cancels[1](errCause)
		m.Unlock()
		require.NoError(t, ended.Wait(ctx))
		require.Equal(t, []int{0, 2, 3}, order)
		require.False(t, m.Locked())
		requireMisusePanic(t, m.Unlock)
		return 0, nil
	})
	require.NoError(t, err)
}

// A foreign future: one that has not begun is cancelled with its waiter, one that
// runs is waited for, and its own outcome wins.
func TestE16_UnwrapFuture(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		var open task.Event
		running := goTo(ctx, func(ctx context.Context) (int, error) {
			<-open.Done()
			return 7, nil
		})
		pending := goTo(ctx, func(context.Context) (int, error) { t.Error("it has run"); return 0, nil })
		synctest.Wait()
		over, cancel := context.WithCancelCause(ctx)
		cancel(errCause)
		_, err := pending.WaitOrCancel(over)
		require.Equal(t, errCause, err)
		open.Set()
		v, err := running.WaitOrCancel(over)
		require.NoError(t, err)
		require.Equal(t, 7, v)
	})
}

func goTo(ctx context.Context, fn func(context.Context) (int, error)) *task.Task[int] {
	return asyncsync.Go(ctx, fn)
}

// Tasks compare by identity, and a time that is past is a yield.
func TestE18_TaskInfoAndPastDeadlines(t *testing.T) {
	onEachInBubble(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
		began := time.Now()
		require.NoError(t, task.SleepUntil(ctx, began.Add(-time.Hour)))
		require.Zero(t, time.Since(began))
		var inside, again, child task.Info
		require.NoError(t, inTask(ctx, func(ctx context.Context) error {
			inside, again = task.Current(ctx), task.Current(context.WithValue(ctx, t, 1))
			return inTask(ctx, func(ctx context.Context) error { child = task.Current(ctx); return nil })
		}))
		require.Equal(t, inside, again)
		require.NotZero(t, inside.ID)
		require.NotEqual(t, inside, child)
		require.NotEqual(t, inside.ID, child.ID)
		return nil
	})
	require.Zero(t, task.Current(context.Background()))
	require.Zero(t, task.Current(asyncsync.Detach(context.Background())))
}

// coro_yield lets others run, and tells of a cancellation.
func TestE19_CoroYield(t *testing.T) {
	onEach(t, func(t *testing.T, ctx context.Context, c kindOfCaller) error {
		if c.Name == "goroutine" {
			return task.Yield(ctx)
		}
		var ran task.Event
		c.Beside(ctx)(ctx, func(context.Context) { ran.Set() })
		for !ran.IsSet() { // the call has to be queued first
			if err := task.Yield(ctx); err != nil {
				return err
			}
		}
		over, cancel := context.WithCancelCause(ctx)
		c.Beside(ctx)(ctx, func(context.Context) { cancel(errCause) })
		for task.Yield(over) == nil {
			runtime.Gosched()
		}
		require.Equal(t, errCause, task.Yield(over))
		return nil
	})
}

// sleep of nothing is a yield, and so is one of less: it looks at the ctx.
func TestE20_Sleep(t *testing.T) {
	onEachInBubble(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
		began := time.Now()
		require.NoError(t, task.Sleep(ctx, 0))
		require.NoError(t, task.Sleep(ctx, -time.Hour))
		require.Zero(t, time.Since(began))
		require.NoError(t, task.Sleep(ctx, time.Second))
		require.Equal(t, time.Second, time.Since(began))
		over, cancel := context.WithCancelCause(ctx)
		cancel(errCause)
		for _, d := range []time.Duration{-1, 0, time.Hour} {
			require.Equal(t, errCause, task.Sleep(over, d))
		}
		require.Equal(t, time.Second, time.Since(began))
		return nil
	})
}

// A task on another backend waits as the tasks of that backend do: it parks there,
// however its own waiter waits here.
func TestE21_TaskOn(t *testing.T) {
	onEach(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
		other := loop.NewThread()
		var stop, m task.Event
		ended := make(chan error, 1)
		go func() {
			_, err := loop.Run(context.Background(), other, func(ctx context.Context) (int, error) { return 0, stop.Wait(ctx) })
			ended <- err
		}()
		first := task.Go(ctx, func(ctx context.Context) (int, error) {
			b, on := loop.Current(ctx)
			require.True(t, on)
			require.Equal(t, other, b)
			return 1, m.Wait(ctx)
		}, task.On(other))
		second := task.Go(ctx, func(context.Context) (int, error) { m.Set(); return 2, nil }, task.On(other))
		_, err := first.Wait(ctx)
		require.NoError(t, err)
		_, err = second.Wait(ctx)
		require.NoError(t, err)
		started, v, err := task.Start(ctx, func(ctx context.Context, started func(bool) error) (int, error) {
			_, on := loop.Current(ctx)
			if err := task.Yield(ctx); err != nil {
				return 0, err
			}
			return 3, started(on)
		}, task.On(other))
		require.NoError(t, err)
		require.True(t, v)
		_, err = started.Wait(ctx)
		require.NoError(t, err)
		stop.Set()
		return <-ended
	})
}
