package asyncsync_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/local"
	"asyncsync.dev/task"
)

// together posts functions that all are in the queue before the first one begins, and
// waits until they have run.
func together(t *testing.T, e *asyncsync.PoolExecutor, fns ...func()) {
	t.Helper()
	release := make(chan struct{})
	require.NoError(t, e.Post(func() { <-release }))
	for _, fn := range fns {
		require.NoError(t, e.Post(fn))
	}
	close(release)
	require.NoError(t, e.Close())
	<-e.Done()
}

// Hooks are told of the ending of each function, whatever the next ones do, and each is
// counted once.
func TestPoolExecutor_EndingsAreTold(t *testing.T) {
	x := func() { panic("x") }
	y := func() { panic("y") }
	for name, c := range map[string]struct {
		fns     []func()
		panics  []any
		goexits int
	}{
		"one panic":           {[]func(){x}, []any{"x"}, 0},
		"two panics":          {[]func(){x, y}, []any{"x", "y"}, 0},
		"one Goexit":          {[]func(){runtime.Goexit}, nil, 1},
		"two Goexits":         {[]func(){runtime.Goexit, runtime.Goexit}, nil, 2},
		"a panic, a Goexit":   {[]func(){x, runtime.Goexit}, []any{"x"}, 1},
		"a Goexit, a panic":   {[]func(){runtime.Goexit, y}, []any{"y"}, 1},
		"all, and the return": {[]func(){x, runtime.Goexit, y, runtime.Goexit, func() {}}, []any{"x", "y"}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			guard(t)
			var log libkit.HookLog
			before := asyncsync.ReadStats()
			together(t, asyncsync.NewPoolExecutor(1, asyncsync.WithName("workers"), asyncsync.WithHooks(log.Hooks())), c.fns...)
			panics, goexits := log.Unheard()
			require.Equal(t, c.panics, panics)
			require.Equal(t, c.goexits, goexits)
			for _, what := range []string{"panicked", "ended"} {
				for _, i := range log.Told(what) {
					require.Equal(t, "workers", i.Context)
				}
			}
			now := asyncsync.ReadStats()
			require.EqualValues(t, len(c.panics), now.Panicked-before.Panicked, "panics are counted")
			require.EqualValues(t, c.goexits, now.Goexits-before.Goexits, "Goexits are counted")
		})
	}
}

// Without hooks, each panic is written to standard error.
func TestPoolExecutor_PanicsAreWritten(t *testing.T) {
	guard(t)
	out, err := testkit.Child(t, func(t *testing.T) {
		together(t, asyncsync.NewPoolExecutor(1), func() { panic("the first") }, func() { panic("the second") }, runtime.Goexit)
	})
	require.NoError(t, err, out)
	require.Contains(t, out, "panicked: the first")
	require.Contains(t, out, "panicked: the second")
}

// The Goexit of a task has a waiter that is told, so that hooks hear of the task alone.
func TestPoolExecutor_GoexitOfTask(t *testing.T) {
	guard(t)
	log := libkit.Listen(t)
	before := asyncsync.ReadStats()
	e := asyncsync.NewPoolExecutor(1)
	tk := task.Go(context.Background(), func(context.Context) (int, error) { runtime.Goexit(); return 0, nil },
		task.On(e), task.Named("exits"))
	<-tk.Done()
	require.NoError(t, e.Close())
	_, goexits := log.Unheard()
	require.Equal(t, 1, goexits)
	require.Len(t, log.Named("ended", "exits"), 1)
	require.EqualValues(t, 1, asyncsync.ReadStats().Goexits-before.Goexits)
}

// A posted function begins without values, whoever has woken its thread and whatever
// ran before it there, and the ones that a task has are those of its caller.
func TestPoolExecutor_Values(t *testing.T) {
	guard(t)
	e := asyncsync.NewPoolExecutor(1)
	v := local.New[string]()
	var seen []string
	look := func() {
		s, ok := v.Get()
		seen = append(seen, fmt.Sprint(s, " ", ok))
	}
	v.Set("of the one who woke the thread")
	defer v.Delete()
	release := make(chan struct{})
	require.NoError(t, e.Post(func() { look(); <-release }))
	for _, end := range []func(){func() {}, func() { panic("boom") }, runtime.Goexit} {
		require.NoError(t, e.Post(func() { look(); v.Set("of another function"); end() }))
	}
	require.NoError(t, e.Post(look))
	tk := task.Go(context.Background(), func(context.Context) (string, error) { s, _ := v.Get(); return s, nil }, task.On(e))
	close(release)
	got, err := tk.Wait(context.Background())
	require.NoError(t, err)
	require.Equal(t, "of the one who woke the thread", got)
	require.NoError(t, e.Close())
	require.Equal(t, []string{" false", " false", " false", " false", " false"}, seen)
}
