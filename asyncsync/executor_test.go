package asyncsync_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/local"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

var _ loop.Poster = (*asyncsync.CurrentThreadExecutor)(nil)

func closedChan() chan struct{} { c := make(chan struct{}); close(c); return c }

// What was posted before, in order, on the goroutine that made the executor.
func TestExecutorRunsWhatWasPosted(t *testing.T) {
	guard(t)
	exec := asyncsync.NewCurrentThreadExecutor()
	home := here().gid
	var got []int
	for i := range 5 {
		require.NoError(t, exec.Post(func() {
			require.Equal(t, home, here().gid)
			got = append(got, i)
		}))
	}
	require.Empty(t, got)
	require.NoError(t, exec.RunUntil(closedChan()))
	require.Equal(t, []int{0, 1, 2, 3, 4}, got)
	require.NoError(t, exec.RunUntil(closedChan()))
	require.Len(t, got, 5, "each once")
}

// From many goroutines while it runs: all of them, one at a time, each
// poster's in order; a value delivered on done ends it like a close.
func TestExecutorRunsWhatIsPosted(t *testing.T) {
	guard(t)
	exec := asyncsync.NewCurrentThreadExecutor()
	const posters, each = 4, 250
	var alone exclusion
	last := make([]int, posters)
	done := make(chan struct{}, 1)
	var all sync.WaitGroup
	for p := range posters {
		all.Go(func() {
			for i := range each {
				exec.Post(func() {
					alone.run(func() {
						if last[p] != i {
							t.Errorf("poster %d: %d after %d", p, i, last[p])
						}
						last[p]++
					})
				})
			}
		})
	}
	go func() { all.Wait(); done <- struct{}{} }()
	require.NoError(t, exec.RunUntil(done))
	require.Equal(t, posters*each, alone.times)
	require.Equal(t, 1, alone.most)
}

// A posted function may post. What it posts after done has come is left for
// the next RunUntil: it could go on for ever.
func TestExecutorPostedFunctionPosts(t *testing.T) {
	guard(t)
	exec := asyncsync.NewCurrentThreadExecutor()
	var got []string
	exec.Post(func() {
		got = append(got, "one")
		exec.Post(func() { got = append(got, "two") })
	})
	require.NoError(t, exec.RunUntil(closedChan()))
	require.Equal(t, []string{"one"}, got)
	require.NoError(t, exec.RunUntil(closedChan()))
	require.Equal(t, []string{"one", "two"}, got)
}

// An exit function of a thread may run an executor.
func TestExecutorInExitFunction(t *testing.T) {
	guard(t)
	var got []string
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.OnThreadExit(func() {
		exec := asyncsync.NewCurrentThreadExecutor()
		done := make(chan struct{})
		exec.Post(func() { got = append(got, "posted"); close(done) })
		if err := exec.RunUntil(done); err != nil {
			t.Error(err)
		}
		got = append(got, "exit")
	}))
	_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 0, nil })
	require.NoError(t, err)
	require.NoError(t, tsc.Close())
	require.Equal(t, []string{"posted", "exit"}, got)
}

// Insensitive calls go there, and their results come back.
func TestExecutorTakesCalls(t *testing.T) {
	guard(t)
	exec := asyncsync.NewCurrentThreadExecutor()
	home := here()
	done := make(chan struct{})
	r := start(func() error {
		defer close(done)
		for range 10 {
			p, err := asyncsync.ToThread(context.Background(), whereabouts, asyncsync.Insensitive(), asyncsync.WithExecutor(exec))
			if err != nil || p.gid != home.gid {
				return errors.Join(err, errors.New("elsewhere"))
			}
		}
		return nil
	})
	require.NoError(t, exec.RunUntil(done))
	require.NoError(t, r.wait().err)
}

// Posted functions may go down to async code and back: the goroutine is a
// thread while RunUntil runs, and serves.
func TestExecutorServes(t *testing.T) {
	guard(t)
	exec := asyncsync.NewCurrentThreadExecutor()
	home := here().gid
	var got place
	exec.Post(func() {
		require.NoError(t, from(context.Background(), func(ctx context.Context) (err error) {
			got, err = asyncsync.ToThread(ctx, whereabouts)
			return err
		}))
	})
	require.NoError(t, exec.RunUntil(closedChan()))
	require.Equal(t, home, got.gid)
}

// On a thread of ours RunUntil is a wait like others: relatives are served.
func TestExecutorOnThread(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t)
	home := threadOf(t, ctx)
	require.NoError(t, to(ctx, func(ctx context.Context) error {
		exec := asyncsync.NewCurrentThreadExecutor()
		done := make(chan struct{})
		var posted place
		go func() { exec.Post(func() { posted = here(); close(done) }) }()
		err := exec.RunUntil(done)
		require.Equal(t, home, posted)
		return err
	}))
}

// RunUntil in RunUntil: the inner one takes over until it ends, with what was
// posted and has not begun.
func TestExecutorNested(t *testing.T) {
	guard(t)
	var got []string
	r := start(func() error {
		exec := asyncsync.NewCurrentThreadExecutor()
		exec.Post(func() {
			got = append(got, "outer begins")
			inner := make(chan struct{})
			exec.Post(func() { got = append(got, "inner"); close(inner) })
			if err := exec.RunUntil(inner); err != nil {
				t.Error(err)
			}
			got = append(got, "outer ends")
		})
		return exec.RunUntil(closedChan())
	})
	require.NoError(t, settles(t, r).err)
	require.Equal(t, []string{"outer begins", "inner", "outer ends"}, got)
}

// RunUntil may be called again and again, each time on the goroutine it was
// made on, and leaves nothing behind.
func TestExecutorAgain(t *testing.T) {
	guard(t)
	leakCheck(t)
	exec := asyncsync.NewCurrentThreadExecutor()
	n := 0
	for range 100 {
		done := make(chan struct{})
		go func() {
			exec.Post(func() { n++ })
			close(done)
		}()
		require.NoError(t, exec.RunUntil(done))
	}
	require.Equal(t, 100, n)
}

// An executor that refuses: the caller gets its error, nothing runs, and the
// thread that asked is none the worse.
func TestExecutorRefuses(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t)
	refuse := loop.PosterFunc(func(func()) error { return errOwn })
	opts := []asyncsync.Option{asyncsync.Insensitive(), asyncsync.WithExecutor(refuse)}
	require.Same(t, errOwn, to(ctx, neverRuns(t), opts...))
	require.NoError(t, to(ctx, func(ctx context.Context) error {
		require.Same(t, errOwn, to(ctx, neverRuns(t), opts...))
		return from(ctx, func(ctx context.Context) error { return to(ctx, func(context.Context) error { return nil }) })
	}))
}

// One that runs the function before Post returns, or calls it twice.
func TestExecutorOddities(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t)
	ran := 0
	for name, e := range map[string]loop.PosterFunc{
		"at once": func(fn func()) error { fn(); return nil },
		"twice":   func(fn func()) error { go func() { fn(); fn() }(); return nil },
	} {
		ran = 0
		call := func(ctx context.Context) error {
			return to(ctx, func(context.Context) error { ran++; return errOwn }, asyncsync.Insensitive(), asyncsync.WithExecutor(e))
		}
		require.Same(t, errOwn, call(ctx), name)
		require.Same(t, errOwn, to(ctx, call), name)
		require.Equal(t, 2, ran, name)
	}
}

// On a goroutine that is a thread because of SameThread, no call of ours runs:
// what a wait there calls comes back to it all the same, past a context that was
// entered above the wait, and so does what a function posted to it calls.
func TestWaitOnAnAdoptedThreadWithoutACall(t *testing.T) {
	guard(t)
	err := from(context.Background(), func(ctx context.Context) error {
		home := here()
		inner, tsc := asyncsync.NewThreadSensitiveContext(ctx)
		defer tsc.Close()
		require.NoError(t, from(inner, func(ctx context.Context) error {
			require.Equal(t, home, threadOf(t, ctx), "the sync caller was met last")
			return nil
		}))
		e := asyncsync.NewCurrentThreadExecutor()
		done := make(chan struct{})
		var got place
		require.NoError(t, e.Post(func() {
			got = threadOf(t, ctx)
			close(done)
		}))
		require.NoError(t, e.RunUntil(done))
		require.Equal(t, home, got)
		return nil
	}, asyncsync.SameThread())
	require.NoError(t, err)
}

// What is sent to an executor on a thread runs on that thread, and sees the
// thread-critical values there.
func TestExecutorOnAThreadSeesItsCriticalValues(t *testing.T) {
	guard(t)
	exits := 0 // of the thread
	v := local.New[int](local.ThreadCritical(), local.OnThreadExit(func(int) { exits++ }))
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
	require.NoError(t, to(ctx, func(ctx context.Context) error {
		v.Set(1)
		e := asyncsync.NewCurrentThreadExecutor()
		done := make(chan struct{})
		sends := task.Go(ctx, func(ctx context.Context) (none, error) {
			defer close(done)
			return none{}, to(ctx, func(context.Context) error {
				got, _ := v.Get()
				require.Equal(t, 1, got)
				v.Set(2)
				return nil
			}, asyncsync.Insensitive(), asyncsync.WithExecutor(e))
		})
		require.NoError(t, e.RunUntil(done))
		_, err := sends.Wait(ctx)
		got, _ := v.Get()
		require.Equal(t, 2, got)
		require.Zero(t, exits, "they end with the lease")
		return err
	}))
	require.NoError(t, tsc.Close())
	require.Equal(t, 1, exits)
}
