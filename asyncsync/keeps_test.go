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
	"asyncsync.dev/loop"
	"asyncsync.dev/portal"
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

// The ctx of an async function leads to its call. One who keeps it keeps neither what the
// function was, nor what it has come to.
func TestCtxKeepsNoAsyncCall(t *testing.T) {
	type big = [1 << 20]byte
	p, err := portal.Start()
	require.NoError(t, err)
	own, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
	for name, run := range map[string]func(fn func(context.Context) (*big, error)) (*big, error){
		"FromThread": func(fn func(context.Context) (*big, error)) (*big, error) {
			return asyncsync.FromThread(context.Background(), fn)
		},
		"on a thread": func(fn func(context.Context) (*big, error)) (*big, error) {
			return asyncsync.ToThread(own, func(ctx context.Context) (*big, error) { return asyncsync.FromThread(ctx, fn) })
		},
		"insensitive": func(fn func(context.Context) (*big, error)) (*big, error) {
			return asyncsync.ToThread(own, func(ctx context.Context) (*big, error) {
				return asyncsync.ToThread(ctx, fn, asyncsync.Insensitive())
			})
		},
		"Await": func(fn func(context.Context) (*big, error)) (*big, error) {
			return asyncsync.ToThread(own, func(ctx context.Context) (*big, error) { return task.Await(ctx, fn) })
		},
		"loop.Call": func(fn func(context.Context) (*big, error)) (*big, error) {
			return loop.Call(context.Background(), p.Loop(), fn)
		},
		"portal.Call": func(fn func(context.Context) (*big, error)) (*big, error) {
			return portal.Call(context.Background(), p, fn)
		},
	} {
		for _, end := range []string{"result", "panic", "function"} {
			t.Run(name+"/"+end, func(t *testing.T) {
				guard(t)
				var kept context.Context
				var gone atomic.Bool
				testkit.OutcomeOf(func() error {
					value := new(big)
					runtime.AddCleanup(value, func(int) { gone.Store(true) }, 0)
					_, err := run(func(ctx context.Context) (*big, error) {
						kept = ctx
						switch end {
						case "panic":
							panic(value)
						case "function":
							value[0]++
							return nil, nil
						}
						return value, nil
					})
					return err
				})
				collected(t, "the "+end, gone.Load)
				runtime.KeepAlive(kept)
			})
		}
	}
	require.NoError(t, tsc.Close())
	require.NoError(t, p.Close(nil))
}

// A loop that has ended keeps nothing of what it has run.
func TestEndedLoopKeepsNothing(t *testing.T) {
	for name, backend := range map[string]func(...loop.Option) loop.Backend{"thread": loop.NewThread, "goroutines": loop.Goroutines} {
		t.Run(name, func(t *testing.T) {
			guard(t)
			l := backend()
			var gone atomic.Bool
			func() {
				value := new([1 << 20]byte)
				runtime.AddCleanup(value, func(int) { gone.Store(true) }, 0)
				_, err := loop.Run(context.Background(), l, func(ctx context.Context) (int, error) {
					_, err := task.Go(ctx, func(context.Context) (int, error) { return int(value[0]), nil }).Wait(ctx)
					return int(value[1]), err
				})
				require.NoError(t, err)
			}()
			collected(t, "main", gone.Load)
			runtime.KeepAlive(l)
		})
	}
}
