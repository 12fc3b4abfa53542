package deadlock_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/task"

	"github.com/stretchr/testify/require"
)

// find returns the thread of the report with the given name.
func find(r *deadlock.Report, name string) (t deadlock.Thread, ok bool) {
	for _, t := range r.Threads {
		if t.Name == name {
			return t, true
		}
	}
	return t, false
}

// A blocked thread shows its stack from the top, with what each call is
// blocked in, and what is queued behind.
func TestTakeShowsStackAndQueue(t *testing.T) {
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("db"))
	defer tsc.Close()
	inner := make(chan struct{})
	release := make(chan struct{})
	outer := task.Go(ctx, func(ctx context.Context) (int, error) {
		return asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
			return asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) {
				return asyncsync.ToThread(ctx, func(context.Context) (int, error) {
					close(inner)
					<-release
					return 1, nil
				}, asyncsync.Named("inner"))
			})
		}, asyncsync.Named("outer"))
	})
	<-inner
	stranger := task.Go(ctx, func(ctx context.Context) (int, error) {
		return asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 2, nil }, asyncsync.Named("stranger"))
	})
	for tsc.Stats().Queued == 0 {
		runtime.Gosched() // the call is on its way; the test's deadline bounds this
	}

	report := deadlock.Take()
	db, ok := find(report, "db")
	require.True(t, ok, "%v", report)
	require.Len(t, db.Stack, 2)
	require.Equal(t, "inner", db.Stack[0].Name)
	require.Nil(t, db.Stack[0].Wait)
	require.Equal(t, "outer", db.Stack[1].Name)
	require.Equal(t, "async", db.Stack[1].Wait.Kind)
	require.Len(t, db.Queue, 1)
	require.Equal(t, "stranger", db.Queue[0].Name)
	require.Equal(t, 1, db.Queued)
	text := report.String()
	for _, want := range []string{"thread db: goroutine ", "runs inner", "below it outer", ", blocked in async", "1 queued\n    stranger"} {
		require.Contains(t, text, want)
	}

	close(release)
	_, err := outer.Wait(ctx)
	require.NoError(t, err)
	_, err = stranger.Wait(ctx)
	require.NoError(t, err)
	require.NoError(t, tsc.Close())
	_, ok = find(deadlock.Take(), "db")
	require.False(t, ok, "a closed context has no thread")
}

// Reports can be taken in hooks, in the functions at the ends of a thread, and
// by what is called when a ctx ends.
func TestTakeInCallbacks(t *testing.T) {
	taken := map[string]bool{}
	var mu sync.Mutex
	take := func(where string) {
		_ = deadlock.Take().String()
		mu.Lock()
		defer mu.Unlock()
		taken[where] = true
	}
	hook := func(where string) func(asyncsync.CallInfo) { return func(asyncsync.CallInfo) { take(where) } }
	defer asyncsync.SetHooks(asyncsync.Hooks{Queued: hook("queued"), Started: hook("started"), Ended: hook("ended"), Panicked: hook("panicked")})()
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(),
		asyncsync.OnThreadStart(func() { take("start") }), asyncsync.OnThreadExit(func() { take("exit") }))
	cctx, cancel := context.WithCancel(ctx)
	interrupted := make(chan struct{})
	require.Panics(t, func() {
		asyncsync.ToThread(cctx, func(ctx context.Context) (int, error) {
			cancel()
			<-interrupted
			panic("oh dear")
		}, asyncsync.InterruptOnce(func() {
			take("interrupt")
			close(interrupted)
		}))
	})
	require.NoError(t, tsc.Close())
	for _, where := range []string{"queued", "started", "ended", "panicked", "start", "exit", "interrupt"} {
		require.True(t, taken[where], where)
	}
}

// An error says in one line what waits for what and where to read on, and in
// its details each wait.
func TestErrorText(t *testing.T) {
	e := &deadlock.Error{Message: "m", Page: "limiter", Cycle: []deadlock.Link{
		{Who: "app.a", Goroutine: 7, Thread: "ledger", Kind: "call", For: "app.b", Age: -1, Site: "/src/a.go:3"},
		{Who: "app.b", Goroutine: 8, Kind: "limiter", Age: 2 * time.Second},
		{Who: "app.c", Kind: "async", For: "app.d", Age: -1},
		{Who: "app.d", Kind: "task", For: "app.e", Age: -1},
		{Who: "app.e", Kind: "group", Age: -1},
		{Who: "app.f", Kind: "close", For: "ledger", Age: -1},
	}}
	require.Equal(t, "deadlock: m (see go doc asyncsync.dev/deadlock PageLimiter)", fmt.Sprint(e))
	require.Equal(t, `deadlock: m (see go doc asyncsync.dev/deadlock PageLimiter)
  app.a on ledger waits for the call of app.b, in goroutine 7, at /src/a.go:3
  app.b waits for a limiter, in goroutine 8, for 2s
  app.c waits for the async function app.d
  app.d waits for the task app.e
  app.e waits for a group
  app.f waits for the end of context ledger`, e.Details())
	require.Equal(t, "deadlock: m", (&deadlock.Error{Message: "m"}).Details())
}

// A task that waits for itself is told so, and goes on.
func TestTaskWaitingForItself(t *testing.T) {
	ctx := context.Background()
	self := make(chan *task.Task[int], 1)
	tk := task.Go(ctx, func(ctx context.Context) (int, error) {
		_, err := (<-self).Wait(ctx)
		var d *deadlock.Error
		if !errors.As(err, &d) || !errors.Is(err, deadlock.ErrDeadlock) {
			t.Errorf("got %v", err)
		}
		return 7, nil
	})
	self <- tk
	v, err := tk.Wait(ctx)
	require.NoError(t, err)
	require.Equal(t, 7, v)
}

// A Shutdown called from the function that it would wait for is refused, and
// the context closes all the same.
func TestShutdownFromInside(t *testing.T) {
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
	_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		err := tsc.Shutdown(ctx)
		require.ErrorIs(t, err, deadlock.ErrDeadlock)
		require.ErrorContains(t, err, "see go doc asyncsync.dev/deadlock PageShutdownInside")
		return 0, nil
	})
	require.NoError(t, err)
	require.NoError(t, tsc.Close())
	_, err = asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 0, nil })
	require.ErrorIs(t, err, asyncsync.ErrClosed)
}
