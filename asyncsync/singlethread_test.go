package asyncsync_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/local"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// asgiref: below an AsyncSingleThreadContext two async_to_sync calls run their
// coroutines on one thread.
//
// Here: as tasks of one thread loop; on another thread than the caller's.
func TestRow27_AsyncSingleThreadContextMatches(t *testing.T) {
	guard(t)
	needThreads(t)
	ctx, a := asyncsync.NewAsyncSingleThreadContext(context.Background())
	outer := here()
	one, err := asyncsync.FromThread(ctx, whereabouts)
	require.NoError(t, err)
	two, err := asyncsync.FromThread(ctx, whereabouts)
	require.NoError(t, err)
	require.Equal(t, one.tid, two.tid)
	require.NotEqual(t, outer.tid, one.tid)

	// From any sync code below it, and side by side.
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			scoped, tsc := asyncsync.NewThreadSensitiveContext(ctx)
			defer tsc.Close()
			_, err := asyncsync.ToThread(scoped, func(ctx context.Context) (none, error) {
				at, err := asyncsync.FromThread(ctx, func(ctx context.Context) (place, error) {
					b, _ := loop.Current(ctx)
					// It may wait, and the others run.
					return here(), b.Park(ctx, func(wake func()) { go wake() })
				})
				require.Equal(t, one.tid, at.tid)
				return none{}, err
			})
			require.NoError(t, err)
		})
	}
	all.Wait()
	require.NoError(t, a.Close())
}

// asgiref: a context entered inside another one is that one.
//
// Here: it shares the thread. Its own Close refuses its own calls, and leaves the
// thread alone.
func TestRow28_AsyncSingleThreadNestedContext(t *testing.T) {
	guard(t)
	needThreads(t)
	outer, a := asyncsync.NewAsyncSingleThreadContext(context.Background())
	inner, b := asyncsync.NewAsyncSingleThreadContext(outer)
	one, err := asyncsync.FromThread(outer, whereabouts)
	require.NoError(t, err)
	two, err := asyncsync.FromThread(inner, whereabouts)
	require.NoError(t, err)
	require.Equal(t, one.tid, two.tid)

	// One that is made below a function on the thread shares it as well.
	require.NoError(t, from(outer, func(ctx context.Context) error {
		return to(ctx, func(ctx context.Context) error {
			ctx, c := asyncsync.NewAsyncSingleThreadContext(ctx)
			at, err := asyncsync.FromThread(ctx, whereabouts)
			require.Equal(t, one.tid, at.tid)
			require.NoError(t, c.Close())
			return err
		})
	}))

	require.NoError(t, b.Close())
	require.ErrorIs(t, from(inner, neverRuns(t)), asyncsync.ErrClosed)
	three, err := asyncsync.FromThread(outer, whereabouts)
	require.NoError(t, err)
	require.Equal(t, one.tid, three.tid)
	require.NoError(t, a.Close())
	require.ErrorIs(t, from(outer, neverRuns(t)), asyncsync.ErrClosed)
}

// asgiref: a context that nothing is done in does no harm.
//
// Here: no thread is started, and no goroutine.
func TestRow29_AsyncSingleThreadContextWithoutAsyncWork(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) { // which fails if a goroutine is left
		ctx, a := asyncsync.NewAsyncSingleThreadContext(context.Background())
		threads := osThreads()
		for range 100 {
			_, b := asyncsync.NewAsyncSingleThreadContext(ctx)
			require.NoError(t, b.Close())
			_, c := asyncsync.NewAsyncSingleThreadContext(context.Background())
			require.NoError(t, c.Close())
			require.NoError(t, c.Close())
		}
		require.Less(t, osThreads(), threads+10)
		require.NoError(t, a.Close())
		require.ErrorIs(t, from(ctx, neverRuns(t)), asyncsync.ErrClosed)
	})
}

// asgiref: what successive calls write to context variables adds up in the caller.
//
// Here: in local variables.
func TestRow30_AsyncSingleThreadContextSuccessShareContext(t *testing.T) {
	guard(t)
	v := local.New[int]()
	ctx, a := asyncsync.NewAsyncSingleThreadContext(context.Background())
	defer v.Set(0)()
	inc := func(context.Context) error {
		n, _ := v.Get()
		v.Set(n + 1)
		return nil
	}
	require.NoError(t, from(ctx, inc))
	require.NoError(t, from(ctx, inc))
	n, _ := v.Get()
	require.Equal(t, 2, n)
	require.NoError(t, a.Close())
}

// asgiref: where there is an event loop above, the context is ignored: coroutines
// run on that.
//
// Here: the nearest wins. A context below a task of a loop has its own thread, and
// the task's loop is left alone.
func TestRow31_AsyncSingleThreadContextMatchesFromAsyncThread(t *testing.T) {
	needThreads(t)
	onLoop(t, func(ctx context.Context, b loop.Backend, _ func() int) error {
		home := here()
		return to(ctx, func(ctx context.Context) error {
			single, a := asyncsync.NewAsyncSingleThreadContext(ctx)
			one, err := asyncsync.FromThread(single, whereabouts)
			require.NoError(t, err)
			two, err := asyncsync.FromThread(single, whereabouts)
			require.NoError(t, err)
			require.Equal(t, one.tid, two.tid)
			require.NotEqual(t, home.tid, one.tid)

			// Without its ctx the loop is nearest; and so it is below a task of that.
			at, err := asyncsync.FromThread(ctx, whereabouts)
			require.NoError(t, err)
			require.Equal(t, home.tid, at.tid)
			_, err = task.Go(single, func(ctx context.Context) (none, error) {
				got, ok := loop.Current(ctx)
				require.True(t, ok)
				require.Same(t, b, got)
				return none{}, to(ctx, func(ctx context.Context) error {
					at, err := asyncsync.FromThread(ctx, whereabouts)
					require.Equal(t, home.tid, at.tid)
					return err
				})
			}).Wait(single)
			require.NoError(t, err)
			host, ok := loop.Host(single)
			require.True(t, ok)
			require.Same(t, b, host)

			// And below the thread of the context it is that.
			require.NoError(t, from(single, func(ctx context.Context) error {
				require.NoError(t, from(ctx, func(context.Context) error {
					require.Equal(t, one.tid, here().tid, "directly")
					return nil
				}))
				return to(ctx, func(ctx context.Context) error {
					at, err := asyncsync.FromThread(ctx, whereabouts)
					require.Equal(t, one.tid, at.tid)
					return err
				})
			}))
			require.NoError(t, a.Close())
			require.ErrorIs(t, from(single, neverRuns(t)), asyncsync.ErrClosed)
			return from(ctx, func(context.Context) error { return nil })
		})
	})
}

// All three endings come back, and the thread goes on.
func TestAsyncSingleThreadContextEndings(t *testing.T) {
	for _, e := range ends {
		t.Run(e.How, func(t *testing.T) {
			guard(t)
			leakCheck(t)
			ctx, a := asyncsync.NewAsyncSingleThreadContext(context.Background())
			for range 3 {
				e.CheckIs(t, outcomeOf(func() error { return from(ctx, on(e.Do)) }))
			}
			require.NoError(t, from(ctx, func(context.Context) error { return nil }))
			require.NoError(t, a.Close())
		})
	}
}

// Close waits for calls that are under way, and refuses those that come; tasks that
// they have left are cancelled.
func TestAsyncSingleThreadContextClose(t *testing.T) {
	guard(t)
	leakCheck(t)
	ctx, a := asyncsync.NewAsyncSingleThreadContext(context.Background())
	begun, release := make(chan none), make(chan struct{})
	var left *task.Task[none]
	call := spawn(func() (int, error) {
		return asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) {
			left = task.Go(ctx, func(ctx context.Context) (none, error) { return none{}, comesTo(ctx, nil) })
			close(begun)
			return 7, comesTo(ctx, release)
		})
	})
	<-begun
	closed := spawn(func() (none, error) { return none{}, a.Close() })
	for {
		// Until Close has begun.
		if err := from(ctx, func(context.Context) error { return nil }); err != nil {
			require.ErrorIs(t, err, asyncsync.ErrClosed)
			break
		}
	}
	require.True(t, call.running())
	require.True(t, closed.running())
	close(release)
	n, err := call.Wait()
	require.NoError(t, err)
	require.Equal(t, 7, n)
	_, err = closed.Wait()
	require.NoError(t, err)
	_, err = left.Wait(context.Background())
	require.ErrorIs(t, err, loop.ErrStopped)
}

// Close inside does not wait for itself.
func TestAsyncSingleThreadContextCloseInside(t *testing.T) {
	guard(t)
	leakCheck(t)
	for name, where := range map[string]func(ctx context.Context, fn func(context.Context) error) error{
		"on the thread":         func(ctx context.Context, fn func(context.Context) error) error { return fn(ctx) },
		"in sync code below it": func(ctx context.Context, fn func(context.Context) error) error { return to(ctx, fn) },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, a := asyncsync.NewAsyncSingleThreadContext(context.Background())
			require.NoError(t, from(ctx, func(inside context.Context) error {
				return where(inside, func(inside context.Context) error {
					require.NoError(t, a.Close())
					require.ErrorIs(t, outcomeOf(func() error { return from(ctx, neverRuns(t)) }).Err, asyncsync.ErrClosed)
					return nil
				})
			}))
			require.NoError(t, a.Close())
		})
	}
}

// In a task of a loop Close parks.
func TestAsyncSingleThreadContextCloseInATask(t *testing.T) {
	onLoop(t, func(ctx context.Context, b loop.Backend, turns func() int) error {
		single, a := asyncsync.NewAsyncSingleThreadContext(context.Background())
		begun := make(chan struct{})
		return parks(t, b, turns, func(release <-chan struct{}) error {
			go from(single, func(ctx context.Context) error { close(begun); return comesTo(ctx, release) })
			require.NoError(t, comesTo(ctx, begun))
			return a.Close()
		})
	})
}

func TestAsyncSingleThreadContextMisuse(t *testing.T) {
	require.PanicsWithValue(t, "asyncsync: NewAsyncSingleThreadContext: nil ctx", func() { asyncsync.NewAsyncSingleThreadContext(nil) }) //lint:ignore SA1012 misuse
	require.Panics(t, func() { (*asyncsync.AsyncSingleThreadContext)(nil).Close() })
	require.Panics(t, func() { (&asyncsync.AsyncSingleThreadContext{}).Close() })
}
