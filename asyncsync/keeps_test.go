package asyncsync_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/local"
	"asyncsync.dev/task"
)

// These tests are about what is kept longer than it is needed.

// collected waits until the collector has found what gone tells of.
func collected(t *testing.T, what string, gone func() bool) {
	t.Helper()
	testkit.Poll(t, func() string {
		runtime.GC()
		if !gone() {
			return what + " is kept"
		}
		return ""
	})
}

// dropped returns a pool of one thread, and reports when no context has that.
func dropped() (pool *asyncsync.ThreadPool, gone func() bool) {
	pool = asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 1})
	return pool, func() bool {
		s := pool.Stats()
		return s.Idle == s.Threads
	}
}

// A Goexit leaves the record of its call on the stack of the thread. That must not keep
// the context, or one that is dropped without Close would keep the thread for ever.
func TestGoexitKeepsNoContext(t *testing.T) {
	guard(t)
	pool, gone := dropped()
	func() {
		ctx, _ := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
		tk := asyncsync.Go(ctx, func(context.Context) (int, error) { runtime.Goexit(); return 0, nil })
		<-tk.Done()
	}()
	collected(t, "the context", gone)
	require.NoError(t, pool.Close())
}

// One watch over a ctx serves all tasks in queues that were started with it. It must not
// keep those that have left their queue.
func TestWatchKeepsNoTask(t *testing.T) {
	guard(t)
	root, cancel := context.WithCancel(context.Background())
	defer cancel()
	other, o := asyncsync.NewThreadSensitiveContext(root)
	release, holder := occupy(other)
	pool, gone := dropped()
	var last *task.Task[int]
	func() {
		ctx, _ := asyncsync.NewThreadSensitiveContext(root, asyncsync.WithPool(pool))
		release, holder := occupy(ctx)
		first := asyncsync.Go(ctx, func(context.Context) (int, error) { return 0, nil })
		last = asyncsync.Go(other, func(context.Context) (int, error) { return 0, nil })
		release()
		require.NoError(t, holder.Wait().Err)
		_, err := first.Wait(context.Background())
		require.NoError(t, err)
	}()
	collected(t, "the context of the first task", gone)
	release()
	require.NoError(t, holder.Wait().Err)
	_, err := last.Wait(context.Background())
	require.NoError(t, err)
	require.NoError(t, o.Close())
	require.NoError(t, pool.Close())
}

// A task must not keep the ctx of one that has given up waiting for it.
func TestTaskKeepsNoWaiter(t *testing.T) {
	guard(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
	release, holder := occupy(ctx)
	tk := asyncsync.Go(ctx, func(context.Context) (int, error) { return 1, nil })
	var gone atomic.Bool
	func() {
		type key struct{}
		big := new([1 << 20]byte)
		runtime.AddCleanup(big, func(int) { gone.Store(true) }, 0)
		with, cancel := context.WithCancel(context.WithValue(context.Background(), key{}, big))
		time.AfterFunc(time.Millisecond, cancel)
		_, err := tk.Wait(with)
		require.ErrorIs(t, err, context.Canceled)
	}()
	collected(t, "the ctx of a waiter", gone.Load)
	release()
	require.NoError(t, holder.Wait().Err)
	n, err := tk.Wait(context.Background())
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.NoError(t, tsc.Close())
}

// A goroutine that has recovered from a panic of a call must not keep it, whatever else
// keeps its record.
func TestRecoveredPanicIsNotKept(t *testing.T) {
	guard(t)
	number := local.New[int]()
	limiter := task.NewLimiter(1)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
	var gone atomic.Bool
	panics := func(context.Context) error { panic(new([1 << 20]byte)) }
	ended, leave := make(chan struct{}), make(chan struct{})
	over := testkit.Start(func() error {
		number.Set(1)
		defer number.Delete()
		err := asyncsync.Do(ctx, func(ctx context.Context) error {
			defer func() {
				runtime.AddCleanup(recover().(*[1 << 20]byte), func(int) { gone.Store(true) }, 0)
			}()
			return asyncsync.Do(ctx, panics, asyncsync.On(tsc))
		}, asyncsync.Insensitive(), asyncsync.WithLimiter(limiter))
		close(ended)
		<-leave
		return err
	})
	<-ended
	collected(t, "the panic", gone.Load)
	close(leave)
	require.NoError(t, over.Wait().Err)
	require.NoError(t, tsc.Close())
}

// The end of a queued task by Goexit, and the watch over how long it has been queued, may
// meet: with the race detector they did.
func TestGoexitMeetsQueueWait(t *testing.T) {
	guard(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.QueueWait(time.Hour))
	for range 300 {
		var last *task.Task[int]
		for range 8 {
			last = asyncsync.Go(ctx, func(context.Context) (int, error) { runtime.Goexit(); return 0, nil })
		}
		<-last.Done()
	}
	require.NoError(t, tsc.Close())
}
