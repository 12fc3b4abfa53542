package asyncsync_test

import (
	"context"
	"runtime"
	"testing"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/task"

	"github.com/stretchr/testify/require"
)

// The function runs on the calling thread, nested calls are inline, and the
// nesting goes as deep as memory.
func TestSameThreadRunsOnTheThread(t *testing.T) {
	guard(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
	defer tsc.Close()
	home, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) { return tid(), nil })
	require.NoError(t, err)

	var up, down asyncsync.Func[int, int]
	up = asyncsync.AsyncToSync(func(ctx context.Context, level int) (int, error) {
		if tid() != home {
			t.Errorf("level %d runs on %d, not on %d", level, tid(), home)
		}
		if level == 0 {
			return 0, nil
		}
		n, err := down(ctx, level)
		return n + 1, err
	}, asyncsync.SameThread())
	down = asyncsync.SyncToAsync(func(ctx context.Context, level int) (int, error) { return up(ctx, level-1) })
	n, err := down(ctx, 10_000)
	require.NoError(t, err)
	require.Equal(t, 9_999, n)
}

// Waits through the library serve: the function waits for tasks that need the
// thread it is on.
func TestSameThreadWaitServes(t *testing.T) {
	guard(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
	defer tsc.Close()
	sum, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		return asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) {
			sum := 0 // plain: every writer is on the thread
			ctx, g := task.NewGroup(ctx)
			for i := range 10 {
				g.Go(func(ctx context.Context) error {
					_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) {
						sum += i
						return 0, nil
					})
					return err
				})
			}
			err := g.Wait(ctx)
			return sum, err
		}, asyncsync.SameThread())
	})
	require.NoError(t, err)
	require.Equal(t, 45, sum)
}

// The three endings, seen by the caller of the call, and the thread survives.
func TestSameThreadEndings(t *testing.T) {
	guard(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
	defer tsc.Close()
	home, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) { return tid(), nil })
	require.NoError(t, err)
	value := new(int)
	run := func(fn func()) (recovered any, returned bool) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer func() { recovered = recover() }()
			asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
				return asyncsync.FromThread(ctx, func(context.Context) (int, error) {
					fn()
					return 0, nil
				}, asyncsync.SameThread())
			})
			returned = true
		}()
		<-done
		return recovered, returned
	}
	r, returned := run(func() {})
	require.Nil(t, r)
	require.True(t, returned)
	r, returned = run(func() { panic(value) })
	require.Same(t, value, r)
	require.False(t, returned)
	r, returned = run(runtime.Goexit)
	require.Nil(t, r)
	require.False(t, returned)
	after, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) { return tid(), nil })
	require.NoError(t, err)
	require.Equal(t, home, after)
}

// A bare caller becomes the thread, and is released.
func TestSameThreadAdopts(t *testing.T) {
	guard(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	mine := tid()
	got, err := asyncsync.FromThread(context.Background(), func(ctx context.Context) (int, error) {
		return task.Go(ctx, func(ctx context.Context) (int, error) {
			return asyncsync.ToThread(ctx, func(context.Context) (int, error) { return tid(), nil })
		}).Wait(ctx)
	}, asyncsync.SameThread())
	require.NoError(t, err)
	require.Equal(t, mine, got)
}

// Options that contradict it are refused.
func TestSameThreadConflicts(t *testing.T) {
	fn := func(context.Context, int) (int, error) { return 0, nil }
	require.PanicsWithValue(t,
		"asyncsync: AsyncToSync: SameThread contradicts WithLoop and Abandon: the caller runs the function itself",
		func() { asyncsync.AsyncToSync(fn, asyncsync.SameThread(), asyncsync.Abandon()) })
	require.PanicsWithValue(t,
		"asyncsync: SyncToAsync: WithLoop and SameThread are options of AsyncToSync",
		func() { asyncsync.SyncToAsync(fn, asyncsync.SameThread()) })
}
