package asyncsync_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/loop"
	"asyncsync.dev/portal"
	"asyncsync.dev/task"
)

// These tests are about one ending that meets another.

// A deferred function panics while a Goexit is under way. The caller gets the panic, of
// which the hooks have been told, whatever way the function has gone but one.
func TestPanicUnderGoexitArrives(t *testing.T) {
	both := func(context.Context) error {
		defer testkit.Culprit()
		runtime.Goexit()
		return nil
	}
	ctx, _ := libkit.NewContext(t)
	unpinned, held := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.Unpinned())
	defer held.Close()
	p, err := portal.Start()
	require.NoError(t, err)
	wait := func(tk *task.Task[none]) error { return waitFor(tk) }
	asTask := func(ctx context.Context) (none, error) { return none{}, both(ctx) }
	for name, run := range map[string]func() error{
		"thread":   func() error { return libkit.To(ctx, both) },
		"unpinned": func() error { return libkit.To(unpinned, both) },
		"inline": func() error {
			return libkit.To(ctx, func(ctx context.Context) error { return libkit.To(ctx, both) })
		},
		"async":       func() error { return libkit.To(ctx, func(ctx context.Context) error { return libkit.From(ctx, both) }) },
		"adopted":     func() error { return libkit.From(context.Background(), both) },
		"insensitive": func() error { return libkit.To(ctx, both, asyncsync.Insensitive()) },
		"Go":          func() error { return wait(asyncsync.Go(ctx, asTask)) },
		"task":        func() error { return wait(task.Go(context.Background(), asTask)) },
		"group": func() error {
			ctx, g := task.NewGroup(context.Background())
			g.Go(both)
			return g.Wait(ctx)
		},
		"loop": func() error {
			_, err := loop.Run(context.Background(), loop.NewThread(), asTask)
			return err
		},
		"goroutines": func() error {
			_, err := loop.Run(context.Background(), loop.Goroutines(), asTask)
			return err
		},
		"portal": func() error {
			_, err := portal.Call(context.Background(), p, asTask)
			return err
		},
	} {
		for _, hooks := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/hooks=%v", name, hooks), func(t *testing.T) {
				guard(t)
				var log *libkit.HookLog
				if hooks {
					log = libkit.Listen(t)
				}
				end := testkit.Ends[1]
				if name == "async" {
					end = testkit.Ends[2] // it ran on the goroutine of the caller, which is lost
				}
				end.Check(t, testkit.OutcomeOf(run), name)
				if hooks && name != "loop" && name != "goroutines" { // that of main is its caller's
					require.Equal(t, 1, log.Count("panicked"))
				}
			})
		}
	}
	require.NoError(t, p.Close(nil))
}

// The hooks are told of a panic once, also where it passes through a goroutine that is
// an executor's, or through the end of a Handle.
func TestPanicIsToldOncePerOrigin(t *testing.T) {
	guard(t)
	ctx, _ := libkit.NewContext(t)
	boom := func(context.Context) error {
		return libkit.To(ctx, func(context.Context) error { testkit.Culprit(); return nil })
	}
	pool := asyncsync.NewPoolExecutor(1)
	for name, run := range map[string]func() error{
		"pool": func() error {
			_, err := loop.Call(context.Background(), pool, func(ctx context.Context) (none, error) { return none{}, boom(ctx) })
			return err
		},
		"executor": func() error {
			return libkit.To(context.Background(), boom, asyncsync.Insensitive(), asyncsync.WithExecutor(pool))
		},
		"handle": func() error {
			h, err := asyncsync.Open(context.Background(), func(context.Context) (int, error) { return 1, nil },
				func(int) error { return boom(context.Background()) })
			require.NoError(t, err)
			return h.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			log := libkit.Listen(t)
			testkit.Ends[1].Check(t, testkit.OutcomeOf(run), name)
			require.Equal(t, 1, log.Count("panicked"))
		})
	}
	require.NoError(t, pool.Close())
}

// A hook fails when it is told of the first call of an executor. The executor goes on.
func TestPoolExecutor_OutlivesAHook(t *testing.T) {
	guard(t)
	pool := asyncsync.NewPoolExecutor(1)
	first := true
	remove := asyncsync.AddHooks(asyncsync.Hooks{Started: func(asyncsync.CallInfo) {
		if first {
			first = false
			panic("hook")
		}
	}})
	one := func(context.Context) (int, error) { return 1, nil }
	o := testkit.OutcomeOf(func() error {
		_, err := loop.Call(context.Background(), pool, one)
		return err
	})
	remove()
	require.Equal(t, testkit.Outcome{How: "panic", Value: "hook"}, o)
	n, err := loop.Call(context.Background(), pool, one)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.NoError(t, pool.Close())
}

// A hook panics when it is told that a close function has panicked. The worker has no
// caller: so Close ends as the hook did.
func TestHookOfClosePanics(t *testing.T) {
	guard(t)
	h, err := asyncsync.Open(context.Background(), func(context.Context) (int, error) { return 1, nil }, func(int) error { panic("close") })
	require.NoError(t, err)
	remove := asyncsync.AddHooks(asyncsync.Hooks{Panicked: func(asyncsync.CallInfo) { panic("hook") }})
	o := testkit.OutcomeOf(h.Close)
	remove()
	require.Equal(t, testkit.Outcome{How: "panic", Value: "hook"}, o)
}

// A hook panics when it is told that a posted function has panicked: the RunPending that
// runs the function ends as the hook did, and one that finds it run already, too.
func TestHookOfAPostedFunctionPanics(t *testing.T) {
	guard(t)
	for _, nested := range []bool{false, true} {
		ui := asyncsync.NewCurrentThreadExecutor()
		remove := asyncsync.AddHooks(asyncsync.Hooks{Panicked: func(asyncsync.CallInfo) { panic("hook") }})
		run := func() { _, _ = ui.RunPending() }
		if nested {
			require.NoError(t, ui.Post(run))
		}
		require.NoError(t, ui.Post(func() { panic("posted") }))
		require.PanicsWithValue(t, "hook", run)
		remove()
		ran, err := ui.RunPending()
		require.NoError(t, err)
		require.Zero(t, ran)
		require.NoError(t, ui.Close())
	}
}

// The end of a ctx may have a cause that matches ErrDeadlock. That is no refusal.
func TestThreadPool_ShutdownWithDeadlockAsCause(t *testing.T) {
	guard(t)
	pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 1})
	one, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
	release, holder := occupy(one)
	two, _ := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
	lined := goTo(two, func(context.Context) error { return nil })
	ctx, cancel := context.WithCancelCause(context.Background())
	cause := fmt.Errorf("gave up: %w", deadlock.ErrDeadlock)
	cancel(cause)
	require.ErrorIs(t, pool.Shutdown(ctx), cause)
	require.ErrorIs(t, waitFor(lined), asyncsync.ErrClosed)
	release()
	require.NoError(t, holder.Wait().Err)
	require.NoError(t, tsc.Close())
}

// A thread loop runs in a function on a thread, and a task of it calls that thread, which
// serves nobody before the loop has ended.
func TestLoopOnAThreadCallsTheThread(t *testing.T) {
	for kind, opts := range kinds {
		t.Run(kind, func(t *testing.T) {
			guard(t)
			ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), opts...)
			err := libkit.To(ctx, func(ctx context.Context) error {
				_, err := loop.Run(ctx, loop.NewThread(), func(ctx context.Context) (int, error) {
					return 0, libkit.To(ctx, func(context.Context) error { return nil })
				})
				return err
			})
			require.ErrorIs(t, err, deadlock.ErrDeadlock)
			require.ErrorContains(t, err, "serves nobody before the loop has ended")
			require.ErrorContains(t, err, "PageSelfWait")
			require.NoError(t, libkit.To(ctx, func(context.Context) error { return nil }), "the thread is free again")
			require.NoError(t, tsc.Close())
		})
	}
}

// A known limit: a wait of such a task for an asyncsync.Go on the thread is not refused.
func TestLoopOnAThreadWaitsForATaskThere(t *testing.T) {
	guard(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
	var queued *task.Task[none]
	err := libkit.To(ctx, func(ctx context.Context) error {
		_, err := loop.Run(ctx, loop.NewThread(), func(ctx context.Context) (none, error) {
			queued = goTo(ctx, func(context.Context) error { return nil })
			waits, cancel := context.WithCancel(ctx)
			task.Go(ctx, func(context.Context) (none, error) { // runs when this task is parked
				cancel()
				return none{}, nil
			})
			return queued.Wait(waits)
		})
		return err
	})
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, deadlock.ErrDeadlock)
	<-queued.Done()
	require.NoError(t, tsc.Close())
}
