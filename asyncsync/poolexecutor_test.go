package asyncsync_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// No more run at a time than there are threads, each on one of these, and they
// begin in the order in which they were posted.
func TestPoolExecutor(t *testing.T) {
	guard(t)
	const n = 3
	e := asyncsync.NewPoolExecutor(n, asyncsync.WithName("workers"))
	var now, most atomic.Int64
	var mu sync.Mutex
	var order []int
	threads := map[int64]bool{}
	gate := make(chan struct{})
	for i := range 50 {
		require.NoError(t, e.Post(func() {
			if k := now.Add(1); k > most.Load() {
				most.Store(k)
			}
			mu.Lock()
			order = append(order, i)
			threads[here().gid] = true
			mu.Unlock()
			if i < n {
				<-gate // until all threads have one
			}
			now.Add(-1)
		}))
	}
	for busy := false; !busy; runtime.Gosched() {
		mu.Lock()
		busy = len(order) == n
		mu.Unlock()
	}
	close(gate)
	require.NoError(t, e.Close())
	<-e.Done()
	require.Len(t, order, 50)
	require.Len(t, threads, n)
	require.EqualValues(t, n, most.Load())
	require.ErrorIs(t, e.Post(func() { t.Error("it has run") }), loop.ErrStopped)
	require.NoError(t, e.Close(), "a second time")
}

// One thread keeps the order.
func TestPoolExecutor_Order(t *testing.T) {
	guard(t)
	e := asyncsync.NewPoolExecutor(1)
	var order []int // a race, if two ran
	for i := range 200 {
		require.NoError(t, e.Post(func() { order = append(order, i) }))
	}
	require.NoError(t, e.Close())
	for i, got := range order {
		require.Equal(t, i, got)
	}
	require.Len(t, order, 200)
}

// It takes insensitive calls, tasks and many at once; what they call back runs on
// the thread that waits.
func TestPoolExecutor_Calls(t *testing.T) {
	guard(t)
	e := asyncsync.NewPoolExecutor(2)
	ctx := context.Background()
	nested := func(ctx context.Context, n int) (int, error) {
		me := here().gid
		return asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) {
			return asyncsync.ToThread(ctx, func(context.Context) (int, error) {
				if here().gid != me {
					return 0, fmt.Errorf("on thread %d, not %d", here().gid, me)
				}
				return n, nil
			})
		})
	}
	n, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) { return nested(ctx, 1) },
		asyncsync.Insensitive(), asyncsync.WithExecutor(e))
	require.NoError(t, err)
	require.Equal(t, 1, n)
	n, err = task.Go(ctx, func(ctx context.Context) (int, error) { return nested(ctx, 2) }, task.On(e)).Wait(ctx)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	want := 0
	for n, err := range task.Map(ctx, nested, []int{0, 1, 2, 3, 4, 5}, task.On(e)) {
		require.NoError(t, err)
		require.Equal(t, want, n)
		want++
	}
	require.Equal(t, 6, want)
	require.NoError(t, e.Close())
}

// All three endings of a posted function leave the thread to the others.
func TestPoolExecutor_Endings(t *testing.T) {
	for name, end := range map[string]func(){"return": func() {}, "panic": func() { panic("boom") }, "Goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			guard(t)
			e := asyncsync.NewPoolExecutor(1)
			ran := 0
			for range 3 {
				require.NoError(t, e.Post(func() { ran++; end() }))
			}
			require.NoError(t, e.Close())
			require.Equal(t, 3, ran)
			<-e.Done()
		})
	}
}

// What runs ends, what is queued does not begin, and who waits for it is told.
func TestPoolExecutor_Cancel(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		e := asyncsync.NewPoolExecutor(1)
		gate := make(chan struct{})
		first := task.Go(t.Context(), func(context.Context) (int, error) { <-gate; return 1, nil }, task.On(e))
		var queued []*task.Task[int]
		for range 10 {
			queued = append(queued, task.Go(t.Context(), func(context.Context) (int, error) {
				t.Error("it has run")
				return 0, nil
			}, task.On(e)))
		}
		synctest.Wait()
		e.Cancel()
		e.Cancel()
		close(gate)
		require.NoError(t, e.Close())
		n, err := first.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, n)
		for _, tk := range queued {
			_, err := tk.Wait(t.Context())
			require.ErrorIs(t, err, loop.ErrStopped)
		}
	})
}

// A Shutdown gives up with its ctx; what was posted runs all the same.
func TestPoolExecutor_Shutdown(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		e := asyncsync.NewPoolExecutor(2)
		gate := make(chan struct{})
		ran := make(chan struct{})
		require.NoError(t, e.Post(func() { <-gate }))
		require.NoError(t, e.Post(func() { <-gate }))
		require.NoError(t, e.Post(func() { close(ran) }))
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		go func() { synctest.Wait(); cancel() }()
		require.ErrorIs(t, e.Shutdown(ctx), context.Canceled)
		select {
		case <-e.Done():
			t.Error("done, but something runs")
		default:
		}
		close(gate)
		<-ran
		require.NoError(t, e.Close())
		<-e.Done()
	})
}

// A function of its own may close it. What is done is done when that has ended.
func TestPoolExecutor_CloseInside(t *testing.T) {
	guard(t)
	e := asyncsync.NewPoolExecutor(2)
	ran := false
	require.NoError(t, e.Post(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		select {
		case <-e.Done():
			t.Error("it is done, and this runs")
		default:
		}
		ran = true
	}))
	<-e.Done()
	require.True(t, ran)
	require.NoError(t, e.Close())
}

// An executor that gets no thread ends: nobody waits for ever.
func TestPoolExecutor_NoThread(t *testing.T) {
	guard(t)
	pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 1})
	require.NoError(t, pool.Close())
	e := asyncsync.NewPoolExecutor(2, asyncsync.WithPool(pool))
	_, err := task.Go(context.Background(), func(context.Context) (int, error) { return 0, nil }, task.On(e)).Wait(context.Background())
	require.ErrorIs(t, err, loop.ErrStopped)
	<-e.Done()
	require.ErrorIs(t, e.Post(func() {}), loop.ErrStopped)
	require.NoError(t, e.Close())
}

func TestPoolExecutor_Misuse(t *testing.T) {
	for _, f := range []func(){
		func() { asyncsync.NewPoolExecutor(0) },
		func() { _ = new(asyncsync.PoolExecutor).Post(func() {}) },
		func() { _ = asyncsync.NewPoolExecutor(1).Post(nil) },
		func() { _ = (*asyncsync.PoolExecutor)(nil).Close() },
	} {
		require.Contains(t, fmt.Sprint(panicOf(f)), "asyncsync: ")
	}
}

func ExamplePoolExecutor() {
	e := asyncsync.NewPoolExecutor(4)
	defer e.Close()
	square := func(_ context.Context, n int) (int, error) { return n * n, nil } // on one of four threads
	for n, err := range task.Map(context.Background(), square, []int{1, 2, 3}, task.On(e)) {
		fmt.Println(n, err)
	}
	// Output:
	// 1 <nil>
	// 4 <nil>
	// 9 <nil>
}

// What is posted while the executor is closed runs, or is refused.
func TestPoolExecutor_PostMeetsClose(t *testing.T) {
	guard(t)
	for range 300 {
		e := asyncsync.NewPoolExecutor(2)
		var accepted, ran atomic.Int64
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for e.Post(func() { ran.Add(1) }) == nil {
					accepted.Add(1)
				}
			})
		}
		require.NoError(t, e.Close())
		wg.Wait()
		<-e.Done()
		require.Equal(t, accepted.Load(), ran.Load())
	}
}

// A thread that cannot be had is not asked for while another one is idle.
func TestPoolExecutor_OneThreadCannotBeHad(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 1, MaxWait: time.Second})
		e := asyncsync.NewPoolExecutor(2, asyncsync.WithPool(pool))
		release := make(chan struct{})
		ran := 0
		require.NoError(t, e.Post(func() { <-release; ran++ }))
		require.NoError(t, e.Post(func() { ran++ })) // its thread waits in the line of the pool
		synctest.Wait()
		close(release)
		synctest.Wait()
		require.Equal(t, 2, ran, "the first thread has run both")
		time.Sleep(2 * time.Second) // of the bubble: MaxWait ends, and the second thread is refused
		synctest.Wait()
		require.NoError(t, e.Post(func() { ran++ }))
		synctest.Wait()
		require.Equal(t, 3, ran)
		require.NoError(t, e.Close())
		require.NoError(t, pool.Close())
	})
}

// What was posted waits while no thread can be had, however often the attempt fails, and
// whoever makes the attempt that succeeds: the executor itself, a Post, or a Close.
func TestPoolExecutor_TriesAgain(t *testing.T) {
	type scene struct {
		pool  *asyncsync.ThreadPool
		opts  []asyncsync.ContextOption
		allow func() // threads can be had from now on
	}
	scenes := map[string]func() scene{
		"the pool is full": func() scene {
			pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 1, MaxWaiting: -1})
			ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
			require.NoError(t, to(ctx, on(nil0)))
			return scene{pool, nil, func() { require.NoError(t, tsc.Close()) }}
		},
	}
	for _, e := range ends[1:] {
		scenes["a start function: "+e.How] = func() scene {
			var good atomic.Bool
			return scene{
				asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{}),
				[]asyncsync.ContextOption{asyncsync.OnThreadStart(func() {
					if !good.Load() {
						e.Do()
					}
				})},
				func() { good.Store(true) },
			}
		}
	}
	for what, made := range scenes {
		for _, by := range []string{"itself", "Post", "Close"} {
			t.Run(what+"/"+by, func(t *testing.T) {
				guard(t)
				synctest.Test(t, func(t *testing.T) {
					remove := asyncsync.AddHooks(asyncsync.Hooks{Panicked: func(asyncsync.CallInfo) {}}) // of start functions, on purpose
					defer remove()
					s := made()
					e := asyncsync.NewPoolExecutor(2, append(s.opts, asyncsync.WithPool(s.pool))...)
					ran := 0
					require.NoError(t, e.Post(func() { ran++ }))
					time.Sleep(time.Minute) // of the bubble: many attempts
					require.NoError(t, e.Post(func() { ran++ }))
					synctest.Wait()
					require.Zero(t, ran)
					s.allow()
					want := 2
					switch by {
					case "itself":
						time.Sleep(2 * time.Second)
					case "Post":
						require.NoError(t, e.Post(func() { ran++ }))
						want = 3
					case "Close":
						require.NoError(t, e.Close())
					}
					synctest.Wait()
					require.Equal(t, want, ran)
					require.NoError(t, e.Close())
					<-e.Done()
					require.NoError(t, s.pool.Close())
				})
			})
		}
	}
}

// A Close makes the last attempt. What cannot run then is dropped, and its callers are
// told.
func TestPoolExecutor_CloseGivesUp(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 1, MaxWait: time.Second})
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
		require.NoError(t, to(ctx, on(nil0)))
		e := asyncsync.NewPoolExecutor(1, asyncsync.WithPool(pool))
		tk := task.Go(context.Background(), func(context.Context) (int, error) { t.Error("runs"); return 0, nil }, task.On(e))
		time.Sleep(time.Minute)
		require.NoError(t, e.Close())
		_, err := tk.Wait(context.Background())
		require.ErrorIs(t, err, loop.ErrStopped)
		require.NoError(t, tsc.Close())
		require.NoError(t, pool.Close())
	})
}
