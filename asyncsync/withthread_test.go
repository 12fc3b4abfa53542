package asyncsync_test

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// A mainThread is a goroutine that plays a program's main thread: it is in RunUntil
// until the test ends.
type mainThread struct {
	*asyncsync.CurrentThreadExecutor
	place
	quit chan struct{}
	over chan error
}

func startMain(t *testing.T) *mainThread {
	t.Helper()
	m := &mainThread{quit: make(chan struct{}), over: make(chan error, 1)}
	ready := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		m.CurrentThreadExecutor = asyncsync.NewCurrentThreadExecutor()
		defer m.Close()
		m.place = here()
		close(ready)
		m.over <- m.RunUntil(m.quit)
	}()
	<-ready
	t.Cleanup(func() {
		close(m.quit)
		<-m.over
	})
	return m
}

// Calls to a context with the thread of an executor run there, also nested ones, which
// the thread serves while it is blocked.
func TestWithThreadRunsThere(t *testing.T) {
	guard(t)
	m := startMain(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithThread(m.CurrentThreadExecutor))
	var inner place
	got, err := asyncsync.ToThread(ctx, func(ctx context.Context) (place, error) {
		err := from(ctx, func(ctx context.Context) (err error) {
			inner, err = asyncsync.ToThread(ctx, whereabouts)
			return err
		})
		return here(), err
	})
	require.NoError(t, err)
	require.Equal(t, m.place, got)
	require.Equal(t, m.place, inner)
	require.NoError(t, tsc.Close())
	require.ErrorIs(t, to(ctx, func(context.Context) error { return nil }), asyncsync.ErrClosed)
}

// Two contexts share the thread: one call at a time, and a stranger does not run on top of
// a function that is blocked.
func TestWithThreadOneAtATime(t *testing.T) {
	guard(t)
	m := startMain(t)
	one, _ := newContext(t, asyncsync.WithThread(m.CurrentThreadExecutor))
	two, tsc := newContext(t, asyncsync.WithThread(m.CurrentThreadExecutor))
	release, first := occupy(one)
	var ran atomic.Bool
	second := start(func() error {
		return to(two, func(context.Context) error { ran.Store(true); return nil })
	})
	awaitQueued(t, tsc, 1)
	require.False(t, ran.Load())
	release()
	require.NoError(t, first.Wait().Err)
	require.NoError(t, second.Wait().Err)
	require.True(t, ran.Load())

	err := to(one, func(ctx context.Context) error {
		late := start(func() error { return to(two, func(context.Context) error { ran.Store(false); return nil }) })
		awaitQueued(t, tsc, 1)
		err := from(ctx, func(ctx context.Context) error { return to(ctx, func(context.Context) error { return nil }) })
		require.True(t, ran.Load(), "a stranger has run on top")
		t.Cleanup(func() { late.Wait() })
		return err
	})
	require.NoError(t, err)
}

// A handle has its value made, used and closed on the thread.
func TestWithThreadHandle(t *testing.T) {
	guard(t)
	m := startMain(t)
	var closedAt, started, exited place
	h, err := asyncsync.Open(context.Background(), whereabouts, func(place) error { closedAt = here(); return errors.New("closing") },
		asyncsync.WithThread(m.CurrentThreadExecutor),
		asyncsync.OnThreadStart(func() { started = here() }), asyncsync.OnThreadExit(func() { exited = here() }))
	require.NoError(t, err)
	got, err := asyncsync.Get(context.Background(), h, func(_ context.Context, opened place) (place, error) {
		v, err := h.Value()
		require.Equal(t, opened, v)
		return opened, err
	})
	require.NoError(t, err)
	require.Equal(t, m.place, got)
	_, err = h.Value()
	require.ErrorIs(t, err, asyncsync.ErrWrongThread)
	require.ErrorContains(t, h.Close(), "closing")
	require.Equal(t, []place{m.place, m.place, m.place}, []place{started, closedAt, exited})
	require.NoError(t, h.Close())
	require.ErrorIs(t, h.Do(context.Background(), func(context.Context, place) error { return nil }), asyncsync.ErrClosed)
}

// The owner itself opens, uses and closes a handle where it runs nothing else, before it
// is in RunUntil and after.
func TestWithThreadOfTheCaller(t *testing.T) {
	guard(t)
	exec := asyncsync.NewCurrentThreadExecutor()
	defer exec.Close()
	self := here()
	closes := 0
	h, err := asyncsync.Open(context.Background(), whereabouts, func(place) error { closes++; return nil }, asyncsync.WithThread(exec))
	require.NoError(t, err)
	self.tid = here().tid // it is locked from now on
	require.NoError(t, h.Do(context.Background(), func(ctx context.Context, opened place) error {
		require.Equal(t, self, opened)
		require.Equal(t, self, here())
		return h.Do(ctx, func(context.Context, place) error { return nil })
	}))
	// What main waits for runs there, whatever kind of wait it is.
	other, _ := newContext(t)
	require.NoError(t, to(other, func(ctx context.Context) error {
		return h.Do(ctx, func(context.Context, place) error {
			require.Equal(t, self, here())
			return nil
		})
	}))
	_, err = task.Go(context.Background(), func(ctx context.Context) (place, error) {
		return asyncsync.Get(ctx, h, whereIs)
	}).Wait(context.Background())
	require.NoError(t, err)
	queued := asyncsync.Go(context.Background(), whereabouts, asyncsync.On(contextOn(t, exec)))
	require.NoError(t, h.Close())
	require.Equal(t, 1, closes)
	ran, err := exec.RunPending()
	require.NoError(t, err)
	require.LessOrEqual(t, ran, 1)
	got, err := queued.Wait(context.Background())
	require.NoError(t, err)
	require.Equal(t, self, got)
}

func whereIs(context.Context, place) (place, error) { return here(), nil }

func contextOn(t *testing.T, exec *asyncsync.CurrentThreadExecutor) *asyncsync.ThreadSensitiveContext {
	_, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithThread(exec))
	t.Cleanup(func() { tsc.Close() })
	return tsc
}

// The three endings of a function reach its caller. The thread survives the first two;
// a Goexit ends the goroutine, and what its deferred Close drops is told so.
func TestWithThreadEndings(t *testing.T) {
	guard(t)
	m := startMain(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithThread(m.CurrentThreadExecutor))
	boom := errors.New("boom")
	require.ErrorIs(t, to(ctx, func(context.Context) error { return boom }), boom)
	require.Same(t, boom, panicOf(func() { _ = to(ctx, func(context.Context) error { panic(boom) }) }))
	require.NoError(t, to(ctx, func(context.Context) error { return nil }))

	release, busy := occupy(ctx)
	gone := start(func() error { return to(ctx, func(context.Context) error { runtime.Goexit(); return nil }) })
	awaitQueued(t, tsc, 1)
	late := start(func() error { return to(ctx, func(context.Context) error { return nil }) })
	awaitQueued(t, tsc, 2)
	release()
	require.NoError(t, busy.Wait().Err)
	require.Equal(t, "goexit", gone.Wait().How)
	requireWrapsAll(t, late.Wait().Err, asyncsync.ErrClosed, loop.ErrStopped)
	m.over <- nil // the goroutine has ended without a word
	requireWrapsAll(t, to(ctx, func(context.Context) error { return nil }), asyncsync.ErrClosed, loop.ErrStopped)
	require.NoError(t, tsc.Close())
}

// The endings of the functions that run when a context ends.
func TestWithThreadExitEndings(t *testing.T) {
	guard(t)
	m := startMain(t)
	var ran []string
	_, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithThread(m.CurrentThreadExecutor),
		asyncsync.OnThreadExit(func() { ran = append(ran, "one"); panic("exit one") }),
		asyncsync.OnThreadExit(func() { ran = append(ran, "two") }))
	require.NoError(t, to(context.Background(), func(context.Context) error { return nil }, asyncsync.On(tsc)))
	require.ErrorContains(t, tsc.Close(), "exit one")
	require.Equal(t, []string{"one", "two"}, ran)

	other, _ := newContext(t, asyncsync.WithThread(m.CurrentThreadExecutor))
	require.NoError(t, to(other, func(context.Context) error { return nil }), "the thread goes on")

	_, tsc = asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithThread(m.CurrentThreadExecutor),
		asyncsync.OnThreadExit(func() { ran = append(ran, "three"); runtime.Goexit() }),
		asyncsync.OnThreadExit(func() { ran = append(ran, "four") }))
	require.NoError(t, to(context.Background(), func(context.Context) error { return nil }, asyncsync.On(tsc)))
	require.ErrorContains(t, tsc.Close(), "called runtime.Goexit")
	require.Equal(t, []string{"one", "two", "three", "four"}, ran)
	m.over <- nil
}

// Close of the executor tells those who are queued, and who waits for the end of a context
// whose close function has nowhere to run.
func TestWithThreadClosedWhileQueued(t *testing.T) {
	guard(t)
	exec := asyncsync.NewCurrentThreadExecutor()
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithThread(exec))
	closes := 0
	h, err := asyncsync.Open(context.Background(), whereabouts, func(place) error { closes++; return nil }, asyncsync.WithThread(exec))
	require.NoError(t, err)
	queued := start(func() error { return to(ctx, func(context.Context) error { return nil }) })
	awaitQueued(t, tsc, 1)
	closing := start(h.Close)
	awaitQueued(t, tsc, 2)
	require.NoError(t, exec.Close())
	requireWrapsAll(t, queued.Wait().Err, asyncsync.ErrClosed, loop.ErrStopped)
	err = closing.Wait().Err
	requireWrapsAll(t, err, asyncsync.ErrClosed, loop.ErrStopped)
	require.ErrorContains(t, err, "have not run; close the context or the Handle before the executor")
	require.Zero(t, closes)
	require.NoError(t, tsc.Close())
	_, err = exec.RunPending()
	require.ErrorIs(t, err, loop.ErrStopped)

	// One that is made after that has no thread.
	_, err = asyncsync.Open(context.Background(), whereabouts, nil, asyncsync.WithThread(exec))
	requireWrapsAll(t, err, asyncsync.ErrClosed, loop.ErrStopped)
}

// One goroutine may have several executors. Those that are closed take their contexts
// with them, and no others.
func TestWithThreadOfTwoExecutors(t *testing.T) {
	guard(t)
	exec, other := asyncsync.NewCurrentThreadExecutor(), asyncsync.NewCurrentThreadExecutor()
	defer other.Close()
	a, b := contextOn(t, exec), contextOn(t, other)
	nothing := func(context.Context) error { return nil }
	require.NoError(t, to(context.Background(), nothing, asyncsync.On(a)))
	require.NoError(t, exec.Close())
	requireWrapsAll(t, to(context.Background(), nothing, asyncsync.On(a)), asyncsync.ErrClosed, loop.ErrStopped)
	requireWrapsAll(t, start(func() error { return to(context.Background(), nothing, asyncsync.On(a)) }).Wait().Err, asyncsync.ErrClosed, loop.ErrStopped)
	require.NoError(t, to(context.Background(), nothing, asyncsync.On(b)))
}

// A function on the thread closes its own handle: the rest happens when it has ended.
func TestWithThreadCloseFromBelow(t *testing.T) {
	guard(t)
	m := startMain(t)
	var closes atomic.Int32
	h, err := asyncsync.Open(context.Background(), whereabouts, func(place) error { closes.Add(1); return nil }, asyncsync.WithThread(m.CurrentThreadExecutor))
	require.NoError(t, err)
	require.NoError(t, h.Do(context.Background(), func(context.Context, place) error {
		defer func() { require.Zero(t, closes.Load()) }()
		return h.Close()
	}))
	require.NoError(t, h.Close())
	require.EqualValues(t, 1, closes.Load())

	// The same of a function that the owner itself calls, where it runs nothing else.
	exec := asyncsync.NewCurrentThreadExecutor()
	defer exec.Close()
	h, err = asyncsync.Open(context.Background(), whereabouts, func(place) error { closes.Add(1); return nil }, asyncsync.WithThread(exec))
	require.NoError(t, err)
	require.NoError(t, h.Do(context.Background(), func(context.Context, place) error {
		err := h.Close()
		require.EqualValues(t, 1, closes.Load(), "closed while it is used")
		return err
	}))
	require.NoError(t, h.Close())
	require.EqualValues(t, 2, closes.Load())
}

// A handle that nobody keeps is closed on the thread.
func TestWithThreadCollected(t *testing.T) {
	guard(t)
	m := startMain(t)
	closedAt := make(chan place, 1)
	func() {
		_, err := asyncsync.Open(context.Background(), whereabouts, func(place) error { closedAt <- here(); return nil }, asyncsync.WithThread(m.CurrentThreadExecutor))
		require.NoError(t, err)
	}()
	poll(t, func() string {
		runtime.GC()
		select {
		case at := <-closedAt:
			require.Equal(t, m.place, at)
			return ""
		default:
			return "it has not been closed"
		}
	})
}

// The first context comes while RunUntil is under way already, and while the owner is
// blocked in FromThread.
func TestWithThreadFromElsewhere(t *testing.T) {
	guard(t)
	exec := asyncsync.NewCurrentThreadExecutor()
	defer exec.Close()
	self := here()
	require.NoError(t, from(context.Background(), func(ctx context.Context) error {
		h, err := asyncsync.Open(ctx, whereabouts, nil, asyncsync.WithThread(exec))
		if err != nil {
			return err
		}
		at, err := asyncsync.Get(ctx, h, whereIs)
		require.Equal(t, self.gid, at.gid)
		return errors.Join(err, h.Close())
	}))
	require.Equal(t, self.gid, here().gid)
}

// A modal loop: RunUntil in a function of a context runs what is posted, and no functions
// of strangers. In a posted function it runs both.
func TestWithThreadNestedRunUntil(t *testing.T) {
	guard(t)
	m := startMain(t)
	ctx, tsc := newContext(t, asyncsync.WithThread(m.CurrentThreadExecutor))
	other, _ := newContext(t, asyncsync.WithThread(m.CurrentThreadExecutor))
	var ran atomic.Bool
	var stranger *runningFunc
	require.NoError(t, to(ctx, func(context.Context) error {
		stranger = start(func() error { return to(other, func(context.Context) error { ran.Store(true); return nil }) })
		awaitQueued(t, tsc, 1)
		done := make(chan struct{})
		if err := m.Post(func() { close(done) }); err != nil {
			return err
		}
		err := m.RunUntil(done)
		require.False(t, ran.Load())
		return err
	}))
	require.NoError(t, stranger.Wait().Err)
	require.True(t, ran.Load())

	result := make(chan error, 1)
	require.NoError(t, m.Post(func() {
		done := make(chan struct{})
		r := start(func() error {
			defer close(done)
			return to(other, func(context.Context) error { return nil })
		})
		result <- errors.Join(m.RunUntil(done), r.Wait().Err)
	}))
	require.NoError(t, <-result)
}

// Misuse says so at once.
func TestWithThreadMisuse(t *testing.T) {
	guard(t)
	exec := asyncsync.NewCurrentThreadExecutor()
	defer exec.Close()
	requireMisusePanic(t, func() { asyncsync.WithThread(nil) })
	ctx := context.Background()
	for _, o := range []asyncsync.ContextOption{
		asyncsync.Unpinned(), asyncsync.Serve(asyncsync.All), asyncsync.Spin(0), asyncsync.Spin(time.Second),
		asyncsync.WithPool(newPool(t, asyncsync.ThreadPoolConfig{})),
	} {
		requireMisusePanic(t, func() { asyncsync.NewThreadSensitiveContext(ctx, asyncsync.WithThread(exec), o) })
	}
	requireMisusePanic(t, func() { asyncsync.NewPoolExecutor(1, asyncsync.WithThread(exec)) })
	requireMisusePanic(t, func() {
		asyncsync.NewHandlePool(asyncsync.HandlePoolConfig[place]{Open: whereabouts}, asyncsync.WithThread(exec))
	})
	require.NoError(t, to(ctx, func(context.Context) error {
		inner := asyncsync.NewCurrentThreadExecutor()
		defer inner.Close()
		requireMisusePanic(t, func() { asyncsync.NewThreadSensitiveContext(ctx, asyncsync.WithThread(inner)) })
		return nil
	}))
	requireMisusePanic(t, func() { _, _ = (*asyncsync.CurrentThreadExecutor)(nil).RunPending() })
	requireMisusePanic(t, func() { (*asyncsync.CurrentThreadExecutor)(nil).OnWake(nil) })
	_, err := spawn(exec.RunPending).Wait()
	require.ErrorIs(t, err, asyncsync.ErrWrongThread)
}

// The owner is in an event loop of its own, which sleeps, and is woken by the hook.
func TestOnWakeWakesALoop(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		const events = 100
		ready := make(chan *asyncsync.CurrentThreadExecutor)
		quit, over := make(chan struct{}), make(chan int)
		go func() {
			exec := asyncsync.NewCurrentThreadExecutor()
			wakes := make(chan struct{}, 4*events)
			exec.OnWake(func() { wakes <- struct{}{} })
			ready <- exec
			total := 0
			for {
				select {
				case <-wakes:
					n, err := exec.RunPending()
					require.NoError(t, err)
					total += n
				case <-quit:
					require.NoError(t, exec.Close())
					over <- total
					return
				}
			}
		}()
		exec := <-ready
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithThread(exec))
		for range events {
			require.NoError(t, to(ctx, func(ctx context.Context) error {
				return from(ctx, func(ctx context.Context) error {
					return to(ctx, func(context.Context) error { return nil })
				})
			}))
			require.NoError(t, to(ctx, func(context.Context) error { return exec.Post(func() {}) }))
		}
		require.NoError(t, tsc.Close())
		synctest.Wait() // what was posted last has run
		close(quit)
		require.Equal(t, 3*events, <-over)
	})
}

// The hook is called once for what comes before the next run, for what a run leaves
// behind, for what there is already, and by Close.
func TestOnWakeIsCalledOnce(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		exec := asyncsync.NewCurrentThreadExecutor()
		var wakes atomic.Int32
		woken := func() int { synctest.Wait(); return int(wakes.Swap(0)) }
		exec.OnWake(func() { wakes.Add(1) })
		require.Zero(t, woken())
		for range 3 {
			require.NoError(t, exec.Post(func() {}))
		}
		require.Equal(t, 1, woken())
		ran, err := exec.RunPending()
		require.NoError(t, err)
		require.Equal(t, 3, ran)
		require.Zero(t, woken())

		require.NoError(t, exec.Post(func() { require.NoError(t, exec.Post(func() {})) }))
		require.Equal(t, 1, woken())
		ran, err = exec.RunPending()
		require.NoError(t, err)
		require.Equal(t, 1, ran)
		require.Equal(t, 1, woken(), "for what was left behind")

		exec.OnWake(nil)
		exec.OnWake(func() { wakes.Add(1) })
		require.Equal(t, 1, woken(), "for what there is")
		_, err = exec.RunPending()
		require.NoError(t, err)

		tsc := contextOn(t, exec)
		queued := asyncsync.Go(context.Background(), whereabouts, asyncsync.On(tsc))
		require.Equal(t, 1, woken(), "for a call")
		_, err = exec.RunPending()
		require.NoError(t, err)
		_, err = queued.Wait(context.Background())
		require.NoError(t, err)
		require.NoError(t, tsc.Close())
		require.Zero(t, woken())
		require.NoError(t, exec.Close())
		require.Equal(t, 1, woken(), "by Close")
	})
}

// A hook that panics, or calls Goexit, harms nobody.
func TestOnWakeEndings(t *testing.T) {
	guard(t)
	log := listen(t)
	synctest.Test(t, func(t *testing.T) {
		for _, f := range []func(){func() { panic("wake") }, runtime.Goexit, func() {}} {
			exec := asyncsync.NewCurrentThreadExecutor()
			exec.OnWake(f)
			require.NoError(t, exec.Post(func() {}))
			synctest.Wait()
			ran, err := exec.RunPending()
			require.NoError(t, err)
			require.Equal(t, 1, ran)
			exec.OnWake(nil)
			require.NoError(t, exec.Close())
		}
	})
	require.Len(t, log.Named("panicked", "OnWake function"), 1)
}

// What the owner waits for in FromThread runs there: functions that are posted from below,
// and insensitive calls; not those of others, which wait for the next run.
func TestFromThreadRunsWhatIsPostedBelow(t *testing.T) {
	guard(t)
	exec := asyncsync.NewCurrentThreadExecutor()
	defer exec.Close()
	self := here().gid
	var strangers, posted atomic.Int32
	require.NoError(t, exec.Post(func() { strangers.Add(1) }))
	require.NoError(t, from(context.Background(), func(ctx context.Context) error {
		at, err := asyncsync.ToThread(ctx, whereabouts, asyncsync.Insensitive(), asyncsync.WithExecutor(exec))
		require.Equal(t, self, at.gid)
		done := make(chan struct{})
		if err := exec.Post(func() { posted.Add(1); close(done) }); err != nil {
			return err
		}
		<-done
		_, terr := task.Go(ctx, func(ctx context.Context) (place, error) {
			return asyncsync.ToThread(ctx, whereabouts, asyncsync.Insensitive(), asyncsync.WithExecutor(exec))
		}).Wait(ctx)
		return errors.Join(err, terr)
	}))
	require.EqualValues(t, 1, posted.Load())
	require.Zero(t, strangers.Load())
	ran, err := exec.RunPending()
	require.NoError(t, err)
	require.Equal(t, 1, ran)
	require.EqualValues(t, 1, strangers.Load())
}

// A task that was started before, and has posted already, is waited for below FromThread.
func TestFromThreadRunsWhatItComesToWaitFor(t *testing.T) {
	guard(t)
	exec := asyncsync.NewCurrentThreadExecutor()
	defer exec.Close()
	posted := whenQueued(t, "early")
	early := task.Go(context.Background(), func(ctx context.Context) (place, error) {
		return asyncsync.ToThread(ctx, whereabouts, asyncsync.Insensitive(), asyncsync.WithExecutor(exec), asyncsync.Named("early"))
	})
	<-posted
	require.NoError(t, from(context.Background(), func(ctx context.Context) error {
		_, err := early.Wait(ctx)
		return err
	}))
}

// A posted function that panics below FromThread has no caller but the next run.
func TestPostedPanicBelowFromThread(t *testing.T) {
	guard(t)
	exec := asyncsync.NewCurrentThreadExecutor()
	defer exec.Close()
	boom := errors.New("boom")
	require.NoError(t, from(context.Background(), func(ctx context.Context) error {
		done := make(chan struct{})
		if err := exec.Post(func() { defer close(done); panic(boom) }); err != nil {
			return err
		}
		<-done
		return nil
	}))
	require.Same(t, boom, panicOf(func() { _, _ = exec.RunPending() }))
	ran, err := exec.RunPending()
	require.NoError(t, err)
	require.Zero(t, ran)
}

// Where FromThread cannot know that it waits for who posts, the report shows what is
// posted, as it shows other calls that a blocked thread does not serve.
func TestReportShowsWhatIsPostedToABlockedOwner(t *testing.T) {
	guard(t)
	exec := asyncsync.NewCurrentThreadExecutor()
	defer exec.Close()
	var queue []string
	require.NoError(t, from(context.Background(), func(ctx context.Context) error {
		if err := spawnErr(func() error { return exec.Post(func() {}) }); err != nil {
			return err
		}
		for _, th := range deadlock.Take().Threads {
			for _, c := range th.Queue {
				queue = append(queue, c.Name)
			}
		}
		return nil
	}))
	require.Contains(t, queue, "posted function")
}

func spawnErr(fn func() error) error {
	_, err := spawn(func() (struct{}, error) { return struct{}{}, fn() }).Wait()
	return err
}
