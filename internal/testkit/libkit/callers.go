package libkit

import (
	"context"
	"testing"
	"testing/synctest"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// A Caller is one kind of those who wait: each of them does it in a way of its own.
type Caller struct {
	Name string

	// Run calls fn as this kind of caller, and returns what fn returns.
	Run func(ctx context.Context, fn func(ctx context.Context) error) error

	// Beside is called by the caller. What it returns has fn called where that can
	// only run if the caller waits as it should: on its very thread, or on its loop.
	// It belongs to what the ctx belongs to.
	Beside func(ctx context.Context) func(ctx context.Context, fn func(ctx context.Context))
}

// Callers are a goroutine, threads, and a task of a thread loop.
var Callers = []Caller{
	{
		Name:   "goroutine",
		Run:    func(ctx context.Context, fn func(context.Context) error) error { return fn(ctx) },
		Beside: besideGoroutine,
	},
	{
		Name: "thread",
		Run: func(ctx context.Context, fn func(context.Context) error) (err error) {
			pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{})
			defer mustClose(pool.Close)
			ctx, tsc := asyncsync.NewThreadSensitiveContext(ctx, asyncsync.WithPool(pool))
			defer mustClose(tsc.Close)
			return To(ctx, fn)
		},
		Beside: besideThread,
	},
	{
		Name: "unpinned thread",
		Run: func(ctx context.Context, fn func(context.Context) error) error {
			ctx, tsc := asyncsync.NewThreadSensitiveContext(ctx, asyncsync.Unpinned())
			defer mustClose(tsc.Close)
			return To(ctx, fn)
		},
		Beside: besideThread,
	},
	{
		Name: "task of a thread loop",
		Run: func(ctx context.Context, fn func(context.Context) error) error {
			return Run(ctx, loop.NewThread(), fn)
		},
		Beside: besideTask,
	},
}

func mustClose(fn func() error) {
	if err := fn(); err != nil {
		panic(err)
	}
}

func besideGoroutine(context.Context) func(context.Context, func(context.Context)) {
	return func(ctx context.Context, fn func(context.Context)) { go fn(ctx) }
}

func besideThread(context.Context) func(context.Context, func(context.Context)) {
	here := core.Here()
	return func(ctx context.Context, fn func(context.Context)) {
		task.Go(context.WithoutCancel(ctx), func(ctx context.Context) (struct{}, error) {
			return struct{}{}, To(ctx, func(ctx context.Context) error {
				if core.Here() != here {
					panic("not on the thread that waits")
				}
				fn(ctx)
				return nil
			})
		})
	}
}

func besideTask(ctx context.Context) func(context.Context, func(context.Context)) {
	b, ok := loop.Current(ctx)
	if !ok {
		panic("not on a loop")
	}
	return func(ctx context.Context, fn func(context.Context)) {
		if err := b.Spawn(context.WithoutCancel(ctx), fn); err != nil {
			panic(err)
		}
	}
}

// OnEach runs a test as each kind of caller. It must leave nothing.
func OnEach(t *testing.T, test func(t *testing.T, ctx context.Context, c Caller) error) {
	t.Helper()
	onEach(t, func(t *testing.T, run func(t *testing.T)) {
		NoLeaks(t)
		run(t)
	}, test)
}

// OnEachInBubble runs a test as each kind of caller, in a bubble. The time passes when
// nobody can do anything but wait for it.
func OnEachInBubble(t *testing.T, test func(t *testing.T, ctx context.Context, c Caller) error) {
	t.Helper()
	onEach(t, synctest.Test, test)
}

func onEach(t *testing.T, around func(*testing.T, func(*testing.T)), test func(t *testing.T, ctx context.Context, c Caller) error) {
	t.Helper()
	for _, c := range Callers {
		t.Run(c.Name, func(t *testing.T) {
			testkit.Guard(t)
			around(t, func(t *testing.T) {
				if err := c.Run(context.Background(), func(ctx context.Context) error { return test(t, ctx, c) }); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
