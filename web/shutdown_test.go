package web_test

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
	"asyncsync.dev/web"
)

// open returns a handle whose thread the test closes.
func open(t *testing.T) *asyncsync.Handle[int] {
	t.Helper()
	h, err := asyncsync.Open(context.Background(), func(context.Context) (int, error) { return 0, nil }, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, h.Close()) })
	return h
}

// use calls fn on the thread of h.
func use(ctx context.Context, h *asyncsync.Handle[int], fn func(ctx context.Context) error) error {
	return h.Do(ctx, func(ctx context.Context, _ int) error { return fn(ctx) })
}

// A thread that shuts down serves what the functions call, however they end.
func TestShutdownOnAThreadThatIsNeeded(t *testing.T) {
	testkit.Guard(t)
	h := open(t)
	for _, e := range testkit.Ends {
		var b web.Background
		called := make(chan error, 1)
		require.NoError(t, use(context.Background(), h, func(ctx context.Context) error {
			err := b.Go(ctx, func(ctx context.Context) {
				called <- use(ctx, h, func(context.Context) error { return nil })
				e.Do()
			})
			return errors.Join(err, b.Shutdown(ctx))
		}))
		require.NoError(t, <-called, e.How)
	}
}

// A task that shuts down lets its loop run what the functions call.
func TestShutdownOnALoopThatIsNeeded(t *testing.T) {
	testkit.Guard(t)
	l := loop.NewThread()
	called := make(chan error, 1)
	require.NoError(t, libkit.Run(context.Background(), l, func(ctx context.Context) error {
		var b web.Background
		err := b.Go(ctx, func(ctx context.Context) {
			called <- libkit.Call(ctx, l, func(context.Context) error { return nil })
		})
		return errors.Join(err, b.Shutdown(ctx))
	}))
	require.NoError(t, <-called)
}

// A posted function cannot wait. What runs goes on, and nothing more begins.
func TestShutdownInAPostedFunction(t *testing.T) {
	testkit.Guard(t)
	l := libkit.Running(t, loop.NewThread())
	var b web.Background
	shutdown := func() error {
		errs := make(chan error, 1)
		require.NoError(t, l.Post(func() { errs <- b.Shutdown(context.Background()) }))
		return <-errs
	}
	leave, cause := make(chan struct{}), make(chan error, 1)
	require.NoError(t, b.Go(context.Background(), func(ctx context.Context) {
		<-leave
		cause <- context.Cause(ctx)
	}))
	require.ErrorIs(t, shutdown(), loop.ErrOnLoop)
	require.ErrorIs(t, b.Go(context.Background(), func(context.Context) {}), asyncsync.ErrClosed)
	close(leave)
	require.NoError(t, b.Shutdown(context.Background()))
	require.NoError(t, <-cause)
	require.NoError(t, shutdown(), "nothing runs")
}

// A function, and what it waits for, cannot wait for its own end.
func TestShutdownInside(t *testing.T) {
	testkit.Guard(t)
	h := open(t)
	for where, inside := range map[string]func(ctx context.Context, fn func(ctx context.Context) error) error{
		"function": func(ctx context.Context, fn func(context.Context) error) error { return fn(ctx) },
		"thread": func(ctx context.Context, fn func(context.Context) error) error {
			return libkit.To(ctx, fn)
		},
		"handle": func(ctx context.Context, fn func(context.Context) error) error {
			return use(ctx, h, fn)
		},
		"task": func(ctx context.Context, fn func(context.Context) error) error {
			_, err := task.Go(ctx, func(ctx context.Context) (int, error) { return 0, fn(ctx) }).Wait(ctx)
			return err
		},
	} {
		var b web.Background
		errs := make(chan error, 1)
		require.NoError(t, b.Go(context.Background(), func(ctx context.Context) { errs <- inside(ctx, b.Shutdown) }))
		require.ErrorIs(t, <-errs, deadlock.ErrDeadlock, where)
		require.NoError(t, b.Shutdown(context.Background()))
	}
}

// A Goexit of a call that a Shutdown has served ends its caller. The next Shutdown waits
// for the rest.
func TestGoexitInAShutdown(t *testing.T) {
	testkit.Guard(t)
	h := open(t)
	var b web.Background
	leave, cause := make(chan struct{}), make(chan error, 1)
	o := testkit.OutcomeOf(func() error {
		return use(context.Background(), h, func(ctx context.Context) error {
			err := b.Go(ctx, func(ctx context.Context) {
				defer func() {
					<-leave
					cause <- context.Cause(ctx)
				}()
				use(ctx, h, func(context.Context) error { runtime.Goexit(); return nil })
			})
			return errors.Join(err, b.Shutdown(ctx))
		})
	})
	require.Equal(t, testkit.Outcome{How: "goexit"}, o)
	close(leave)
	require.NoError(t, b.Shutdown(context.Background()))
	require.NoError(t, <-cause, "nobody has given up")
}

// Work of a request whose ctx has a loop does not need the loop: neither its turn, nor
// that it runs at all. Its end does not reach the work.
func TestBackgroundOfALoop(t *testing.T) {
	testkit.Guard(t)
	var b web.Background
	h := middleware(t)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := make(chan struct{})
		require.NoError(t, b.Go(r.Context(), func(ctx context.Context) {
			_, on := loop.Current(ctx)
			require.False(t, on)
			task.Go(ctx, func(context.Context) (int, error) { close(began); return 0, nil })
		}))
		<-began // the loop is blocked
	}))
	stopped, causes := make(chan struct{}), make(chan error, 2)
	work := func(ctx context.Context) {
		<-stopped
		causes <- context.Cause(ctx)
	}
	var kept context.Context
	require.NoError(t, libkit.Run(context.Background(), loop.NewThread(), func(ctx context.Context) error {
		kept = ctx
		call(ctx, h)
		return b.Go(ctx, work)
	}))
	require.NoError(t, b.Go(kept, work), "its loop has stopped")
	close(stopped)
	require.NoError(t, b.Shutdown(context.Background()))
	require.NoError(t, <-causes)
	require.NoError(t, <-causes)
}

// Work that was refused by the code of a user is not waited for.
func TestBackgroundThatFailsToStart(t *testing.T) {
	testkit.Guard(t)
	for _, e := range testkit.Ends[1:] {
		var b web.Background
		remove := asyncsync.AddHooks(asyncsync.Hooks{Queued: func(asyncsync.CallInfo) { e.Do() }})
		o := testkit.OutcomeOf(func() error { return b.Go(context.Background(), func(context.Context) {}) })
		remove()
		e.Check(t, o)
		require.NoError(t, b.Shutdown(context.Background()))
	}
}
