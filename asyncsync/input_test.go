package asyncsync_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/loop"
)

// Every mistake that only a program can make panics at once, with a message
// that begins with the package's name and says what is wrong.
func TestMisusePanics(t *testing.T) {
	ctx, tsc := newContext(t)
	var nilCtx context.Context
	nothing := func(context.Context) (int, error) { return 0, nil }
	wrapped := func(context.Context, int) (int, error) { return 0, nil }
	a2s, s2a := asyncsync.AsyncToSync[int, int], asyncsync.SyncToAsync[int, int]
	h, err := asyncsync.Open(context.Background(), nothing, nil)
	require.NoError(t, err)
	defer h.Close()
	value := func(context.Context, int) (int, error) { return 0, nil }
	on := asyncsync.On(tsc)
	insensitive := asyncsync.Insensitive()
	executor := asyncsync.WithExecutor(goEach)
	limited := asyncsync.WithLimiter(limiter)
	l := asyncsync.WithLoop(&stoppable{done: make(chan struct{})})
	var nilLoop loop.Loop

	cases := []struct {
		name string
		do   func()
		says []string
	}{
		{"SyncToAsync nil function", func() { s2a(nil) }, []string{"SyncToAsync", "nil function"}},
		{"AsyncToSync nil function", func() { a2s(nil) }, []string{"AsyncToSync", "nil function"}},
		{"ToThread nil function", func() { asyncsync.ToThread[int](ctx, nil) }, []string{"ToThread", "nil function"}},
		{"FromThread nil function", func() { asyncsync.FromThread[int](ctx, nil) }, []string{"FromThread", "nil function"}},
		{"SyncToAsync nil option", func() { s2a(wrapped, nil) }, []string{"SyncToAsync", "nil Option"}},
		{"AsyncToSync nil option", func() { a2s(wrapped, nil) }, []string{"AsyncToSync", "nil Option"}},
		{"ToThread nil option", func() { asyncsync.ToThread(ctx, nothing, nil) }, []string{"ToThread", "nil Option"}},
		{"FromThread nil option", func() { asyncsync.FromThread(ctx, nothing, nil) }, []string{"FromThread", "nil Option"}},
		{"ToThread nil ctx", func() { asyncsync.ToThread(nilCtx, nothing) }, []string{"nil ctx"}},
		{"FromThread nil ctx", func() { asyncsync.FromThread(nilCtx, nothing) }, []string{"nil ctx"}},
		{"wrapper nil ctx", func() { s2a(wrapped)(nilCtx, 1) }, []string{"SyncToAsync", "nil ctx"}},
		{"async wrapper nil ctx", func() { a2s(wrapped)(nilCtx, 1) }, []string{"AsyncToSync", "nil ctx"}},
		{"insensitive wrapper nil ctx", func() { s2a(wrapped, insensitive)(nilCtx, 1) }, []string{"nil ctx"}},

		{"On nil", func() { asyncsync.On(nil) }, []string{"On", "nil ThreadSensitiveContext"}},
		{"WithExecutor nil", func() { asyncsync.WithExecutor(nil) }, []string{"WithExecutor", "nil Executor"}},
		{"WithLimiter nil", func() { asyncsync.WithLimiter(nil) }, []string{"WithLimiter", "nil Limiter"}},
		{"WithLoop nil", func() { asyncsync.WithLoop(nilLoop) }, []string{"WithLoop", "nil Loop"}},
		{"Interrupt nil", func() { asyncsync.Interrupt(nil) }, []string{"Interrupt", "nil function"}},
		{"InterruptOnce nil", func() { asyncsync.InterruptOnce(nil) }, []string{"InterruptOnce", "nil function"}},
		{"WithPool nil", func() { asyncsync.WithPool(nil) }, []string{"WithPool", "nil ThreadPool"}},
		{"Serve invalid", func() { asyncsync.Serve(asyncsync.None + 1) }, []string{"Serve", "invalid Policy"}},
		{"QueueLimit zero", func() { asyncsync.QueueLimit(0) }, []string{"QueueLimit", "positive"}},
		{"QueueLimit negative", func() { asyncsync.QueueLimit(-1) }, []string{"QueueLimit", "positive"}},
		{"OnThreadStart nil", func() { asyncsync.OnThreadStart(nil) }, []string{"OnThreadStart", "nil function"}},
		{"OnThreadExit nil", func() { asyncsync.OnThreadExit(nil) }, []string{"OnThreadExit", "nil function"}},

		{"executor without Insensitive", func() { s2a(wrapped, executor) }, []string{"WithExecutor needs Insensitive"}},
		{"limiter without Insensitive", func() { s2a(wrapped, limited) }, []string{"WithLimiter needs Insensitive"}},
		{"On and Insensitive", func() { s2a(wrapped, on, insensitive) }, []string{"On and Insensitive"}},
		{"Insensitive and On", func() { s2a(wrapped, insensitive, on) }, []string{"On and Insensitive"}},
		{"loop for SyncToAsync", func() { s2a(wrapped, l) }, []string{"WithLoop", "AsyncToSync"}},
		{"ToThread executor", func() { asyncsync.ToThread(ctx, nothing, executor) }, []string{"ToThread", "Insensitive"}},
		{"On for AsyncToSync", func() { a2s(wrapped, on) }, []string{"AsyncToSync", "options of SyncToAsync"}},
		{"Insensitive for AsyncToSync", func() { a2s(wrapped, insensitive) }, []string{"options of SyncToAsync"}},
		{"executor for AsyncToSync", func() { a2s(wrapped, executor) }, []string{"options of SyncToAsync"}},
		{"limiter for FromThread", func() { asyncsync.FromThread(ctx, nothing, limited) }, []string{"FromThread", "options of SyncToAsync"}},

		{"context nil ctx", func() { asyncsync.NewThreadSensitiveContext(nilCtx) }, []string{"NewThreadSensitiveContext", "nil ctx"}},
		{"context nil option", func() { asyncsync.NewThreadSensitiveContext(ctx, nil) }, []string{"NewThreadSensitiveContext", "nil ContextOption"}},
		{"context unpinned with pool", func() {
			asyncsync.NewThreadSensitiveContext(ctx, asyncsync.Unpinned(), asyncsync.WithPool(asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{})))
		}, []string{"Unpinned", "pool"}},
		{"With nil ctx", func() { asyncsync.WithThreadSensitiveContext(nilCtx, func(context.Context) error { return nil }) }, []string{"WithThreadSensitiveContext", "nil ctx"}},
		{"With nil function", func() { asyncsync.WithThreadSensitiveContext(ctx, nil) }, []string{"WithThreadSensitiveContext", "nil function"}},
		{"With nil option", func() {
			asyncsync.WithThreadSensitiveContext(ctx, func(context.Context) error { return nil }, nil)
		}, []string{"nil ContextOption"}},
		{"Shutdown nil ctx", func() { tsc.Shutdown(nilCtx) }, []string{"Shutdown", "nil ctx"}},
		{"Taint nil ctx", func() { asyncsync.Taint(nilCtx) }, []string{"Taint", "nil ctx"}},
		{"Detach nil ctx", func() { asyncsync.Detach(nilCtx) }, []string{"Detach", "nil ctx"}},

		{"pool negative threads", func() { asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: -1}) }, []string{"NewThreadPool", "negative"}},
		{"pool negative idle", func() { asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxIdle: -1}) }, []string{"NewThreadPool", "negative"}},
		{"pool negative timeout", func() { asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{IdleTimeout: -time.Second}) }, []string{"NewThreadPool", "negative"}},

		{"Open nil ctx", func() { asyncsync.Open(nilCtx, nothing, nil) }, []string{"Open", "nil ctx"}},
		{"Open nil function", func() { asyncsync.Open[int](ctx, nil, nil) }, []string{"Open", "nil open function"}},
		{"Open nil option", func() { asyncsync.Open(ctx, nothing, nil, nil) }, []string{"Open", "nil ContextOption"}},
		{"Do nil function", func() { h.Do(ctx, nil) }, []string{"Do", "nil function"}},
		{"Do nil ctx", func() { h.Do(nilCtx, func(context.Context, int) error { return nil }) }, []string{"nil ctx"}},
		{"Get nil function", func() { asyncsync.Get[int, int](ctx, h, nil) }, []string{"Get", "nil function"}},
		{"Get nil handle", func() { asyncsync.Get(ctx, nil, value) }, []string{"Get", "nil Handle"}},
		{"Get zero handle", func() { asyncsync.Get(ctx, &asyncsync.Handle[int]{}, value) }, []string{"Open"}},
		{"Get nil option", func() { asyncsync.Get(ctx, h, value, nil) }, []string{"nil Option"}},
		{"Get On", func() { asyncsync.Get(ctx, h, value, on) }, []string{"Get", "leave out On"}},
		{"Get Insensitive", func() { asyncsync.Get(ctx, h, value, insensitive) }, []string{"Get", "leave out On and Insensitive"}},
		{"Do WithLoop", func() { h.Do(ctx, func(context.Context, int) error { return nil }, l) }, []string{"WithLoop"}},

		{"Post nil", func() { asyncsync.NewCurrentThreadExecutor().Post(nil) }, []string{"Post", "nil function"}},
		{"RunUntil nil", func() { asyncsync.NewCurrentThreadExecutor().RunUntil(nil) }, []string{"RunUntil", "nil channel"}},

		// Zero values of types that have a constructor.
		{"zero context On", func() {
			asyncsync.ToThread(ctx, nothing, asyncsync.On(&asyncsync.ThreadSensitiveContext{}))
		}, []string{"NewThreadSensitiveContext"}},
		{"zero context Close", func() { new(asyncsync.ThreadSensitiveContext).Close() }, []string{"NewThreadSensitiveContext"}},
		{"zero context Stats", func() { new(asyncsync.ThreadSensitiveContext).Stats() }, []string{"NewThreadSensitiveContext"}},
		{"nil context Close", func() { (*asyncsync.ThreadSensitiveContext)(nil).Close() }, []string{"NewThreadSensitiveContext"}},
		{"zero pool", func() { asyncsync.WithPool(&asyncsync.ThreadPool{}) }, []string{"NewThreadPool"}},
		{"zero pool Stats", func() { new(asyncsync.ThreadPool).Stats() }, []string{"NewThreadPool"}},
		{"zero handle Close", func() { new(asyncsync.Handle[int]).Close() }, []string{"Open"}},
		{"zero handle Value", func() { new(asyncsync.Handle[int]).Value() }, []string{"Open"}},
		{"nil handle Close", func() { (*asyncsync.Handle[int])(nil).Close() }, []string{"Open"}},
		{"nil handle Do", func() { (*asyncsync.Handle[int])(nil).Do(ctx, func(context.Context, int) error { return nil }) }, []string{"Open"}},
		{"zero executor", func() { new(asyncsync.CurrentThreadExecutor).Post(func() {}) }, []string{"NewCurrentThreadExecutor"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			guard(t)
			v := panicOf(c.do)
			require.NotNil(t, v, "misuse panics")
			text := fmt.Sprint(v)
			require.True(t, strings.HasPrefix(text, "asyncsync: "), "begins with the package's name: %s", text)
			for _, part := range c.says {
				require.Contains(t, text, part)
			}
		})
	}
}

// A panic of the constructor is no half-made wrapper: nothing was started.
func TestMisuseLeavesNothing(t *testing.T) {
	guard(t)
	leakCheck(t)
	pool := newPool(t, asyncsync.ThreadPoolConfig{})
	panicOf(func() {
		asyncsync.Open(context.Background(), func(context.Context) (int, error) { return 0, nil }, nil, asyncsync.WithPool(pool), nil)
	})
	panicOf(func() {
		asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool), asyncsync.Unpinned())
	})
	require.Zero(t, pool.Stats().Started)
}

// What can happen at run time is an error, and known by errors.Is.
func TestErrorsAreKnown(t *testing.T) {
	guard(t)
	closedCtx, closed := newContext(t)
	require.NoError(t, closed.Close())
	h, err := asyncsync.Open(context.Background(), func(context.Context) (int, error) { return 7, nil }, nil)
	require.NoError(t, err)
	pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{})
	require.NoError(t, pool.Close())
	poolCtx, _ := newContext(t, asyncsync.WithPool(pool))
	fullCtx, _ := newContext(t, asyncsync.QueueLimit(1))
	release, running := occupy(fullCtx)
	_, full := asyncsync.NewThreadSensitiveContext(fullCtx)
	queued := start(func() error { return to(fullCtx, func(context.Context) error { return nil }) })
	awaitQueued(t, full, 1)
	exec := make(chan *asyncsync.CurrentThreadExecutor, 1)
	start(func() error { exec <- asyncsync.NewCurrentThreadExecutor(); return nil }).Wait()
	done := make(chan struct{})
	close(done)
	fn := neverRuns(t)

	cases := []struct {
		name string
		do   func() error
		want error
	}{
		{"closed context", func() error { return to(closedCtx, fn) }, asyncsync.ErrClosed},
		{"closed context On", func() error { return to(context.Background(), fn, asyncsync.On(closed)) }, asyncsync.ErrClosed},
		{"closed pool", func() error { return to(poolCtx, fn) }, asyncsync.ErrClosed},
		{"full queue", func() error { return to(fullCtx, fn) }, asyncsync.ErrQueueFull},
		{"value from elsewhere", func() error { _, err := h.Value(); return err }, asyncsync.ErrWrongThread},
		{"value from another thread", func() error {
			return to(otherContext(t), func(context.Context) error { _, err := h.Value(); return err })
		}, asyncsync.ErrWrongThread},
		{"value from async code below", func() error {
			return h.Do(context.Background(), func(ctx context.Context, _ int) error {
				return from(ctx, func(context.Context) error { _, err := h.Value(); return err })
			})
		}, asyncsync.ErrWrongThread},
		{"RunUntil elsewhere", func() error { e := <-exec; defer func() { exec <- e }(); return e.RunUntil(done) }, asyncsync.ErrWrongThread},
		{"no context", func() error {
			asyncsync.RequireContext(true)
			defer asyncsync.RequireContext(false)
			return to(context.Background(), fn)
		}, asyncsync.ErrNoContext},
		{"no context in the wrapper", func() error {
			asyncsync.RequireContext(true)
			defer asyncsync.RequireContext(false)
			_, err := asyncsync.SyncToAsync(func(context.Context, int) (int, error) { return 0, fn(nil) })(context.Background(), 1)
			return err
		}, asyncsync.ErrNoContext},
		{"no context for detached", func() error {
			asyncsync.RequireContext(true)
			defer asyncsync.RequireContext(false)
			return to(asyncsync.Detach(fullCtx), fn)
		}, asyncsync.ErrNoContext},
		{"closed handle", func() error {
			require.NoError(t, h.Close())
			return h.Do(context.Background(), func(ctx context.Context, _ int) error { return fn(ctx) })
		}, asyncsync.ErrClosed},
		{"value of a closed handle", func() error { _, err := h.Value(); return err }, asyncsync.ErrWrongThread},
	}
	all := []error{asyncsync.ErrClosed, asyncsync.ErrAbandoned, asyncsync.ErrQueueFull, asyncsync.ErrNoContext, asyncsync.ErrWrongThread}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			guard(t)
			err := c.do()
			require.Error(t, err)
			require.True(t, strings.HasPrefix(err.Error(), "asyncsync: "), err.Error())
			for _, known := range all {
				if known == c.want {
					require.ErrorIs(t, err, known)
				} else {
					require.NotErrorIs(t, err, known)
				}
			}
		})
	}
	release()
	require.NoError(t, running.Wait().Err)
	require.NoError(t, queued.Wait().Err)
}

// otherContext is any other context.
func otherContext(t *testing.T) context.Context { ctx, _ := newContext(t); return ctx }

// RequireContext leaves alone what has a thread by other means.
func TestRequireContext(t *testing.T) {
	guard(t)
	asyncsync.RequireContext(true)
	t.Cleanup(func() { asyncsync.RequireContext(false) })
	ctx, tsc := newContext(t)
	threadOf(t, ctx)
	require.NoError(t, to(context.Background(), func(context.Context) error { return nil }, asyncsync.On(tsc)))
	require.NoError(t, to(context.Background(), func(context.Context) error { return nil }, asyncsync.Insensitive()))
	require.NoError(t, from(context.Background(), func(ctx context.Context) error {
		return to(ctx, func(context.Context) error { return nil })
	}), "an adopted caller is a thread")
	asyncsync.RequireContext(false)
	require.NoError(t, to(context.Background(), func(context.Context) error { return nil }))
}
