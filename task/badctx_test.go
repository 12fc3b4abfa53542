package task_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/task"
)

// badEnds are the ways in which a BadCtx ends its callers.
var badEnds = []struct {
	how  string
	want testkit.Outcome
	do   func()
}{
	{"panics", testkit.Outcome{How: "panic", Value: "bad ctx"}, func() { panic("bad ctx") }},
	{"calls Goexit", testkit.Outcome{How: "goexit"}, runtime.Goexit},
}

// If the ctx of a task panics, or calls Goexit, when the task gives it back, the task ends
// so, and its waiters, its group and its loop hear of its end. What the function
// has ended with, other than a return, comes first.
func TestCtxThatFailsAtTheEndOfATask(t *testing.T) {
	ways := map[string]func(t *testing.T, ctx context.Context, fn func(context.Context) (int, error)) *task.Task[int]{
		"goroutine": func(t *testing.T, ctx context.Context, fn func(context.Context) (int, error)) *task.Task[int] {
			return task.Go(ctx, fn)
		},
		"thread": func(t *testing.T, ctx context.Context, fn func(context.Context) (int, error)) *task.Task[int] {
			return asyncsync.Go(ctx, fn)
		},
	}
	for _, kind := range libkit.Backends {
		ways["loop of "+kind] = func(t *testing.T, ctx context.Context, fn func(context.Context) (int, error)) *task.Task[int] {
			return task.Go(ctx, fn, task.On(running(t, libkit.NewBackend(t, kind))))
		}
	}
	for way, start := range ways {
		for _, b := range badEnds {
			for _, e := range testkit.Ends {
				t.Run(way+"/"+b.how+"/after "+e.How, func(t *testing.T) {
					guard(t)
					leavesNothing(t)
					up, cancel := context.WithCancel(context.Background())
					defer cancel()
					pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{})
					home, tsc := asyncsync.NewThreadSensitiveContext(up, asyncsync.WithPool(pool))
					ctx := &testkit.BadCtx{Context: home}
					want := e.Want
					if e.How == "return" {
						want = b.want
					}
					started := make(chan struct{})
					tk := start(t, ctx, func(context.Context) (int, error) {
						<-started // who starts a task on a thread asks ctx to the end
						ctx.Set(b.do)
						return 0, e.Do()
					})
					close(started)
					got := testkit.Start(func() error {
						_, err := tk.Wait(context.Background())
						return err
					})
					require.Equal(t, want, got.Settle(t))
					ctx.Set(nil)
					require.NoError(t, tsc.Close())
					require.NoError(t, pool.Close())
				})
			}
		}
	}
}

// A task that was queued gets its ctx when its function is about to begin. If the ctx
// that it was started with panics then, it counts as ended. If that calls Goexit, so
// does the task, and the function that was blocked below it, as with any Goexit.
func TestCtxThatFailsWhenAQueuedTaskBegins(t *testing.T) {
	for _, nested := range []bool{false, true} {
		for _, b := range []struct {
			how string
			do  func()
		}{{"goexit", runtime.Goexit}, {"return", func() { panic("bad ctx") }}} {
			t.Run(fmt.Sprintf("%s/nested %v", b.how, nested), func(t *testing.T) {
				inBubble(t, func(t *testing.T, home context.Context, tsc *asyncsync.ThreadSensitiveContext) {
					ctx := &testkit.BadCtx{Context: home}
					var tk *task.Task[int]
					// The thread is busy until the ctx is bad.
					behind := func(up context.Context) {
						goOn := make(chan struct{})
						first := asyncsync.Go(up, func(context.Context) (int, error) { <-goOn; return 0, nil })
						ctx.Context = up
						tk = asyncsync.Go(ctx, func(ctx context.Context) (int, error) { return 0, context.Cause(ctx) })
						ctx.Set(b.do)
						close(goOn)
						<-tk.Done()
						ctx.Set(nil)
						_, err := first.Wait(context.Background())
						require.NoError(t, err)
					}
					below := testkit.Outcome{How: b.how}
					if nested {
						below = testkit.OutcomeOf(func() error {
							return toThread(home, func(ctx context.Context) { _ = fromThread(ctx, behind) })
						})
					} else {
						behind(home)
					}
					require.Equal(t, b.how, below.How)
					got := testkit.OutcomeOf(func() error { _, err := tk.Wait(context.Background()); return err })
					require.Equal(t, b.how, got.How)
					if b.how == "return" {
						require.ErrorIs(t, got.Err, context.Canceled)
					}
					require.NoError(t, toThread(home, func(context.Context) {}), "the thread goes on")
				})
			})
		}
	}
}

// The hooks are told of such a panic, and get a ctx that works.
func TestCtxThatFailsAtTheEndIsToldToHooks(t *testing.T) {
	guard(t)
	leavesNothing(t)
	told := make(chan asyncsync.CallInfo, 1)
	t.Cleanup(asyncsync.SetHooks(asyncsync.Hooks{Panicked: func(i asyncsync.CallInfo) { told <- i }}))
	up, cancel := context.WithCancel(context.Background())
	defer cancel()
	ctx := &testkit.BadCtx{Context: up}
	tk := task.Go(ctx, func(context.Context) (int, error) {
		ctx.Set(func() { panic("bad ctx") })
		return 0, nil
	}, task.Named("request"))
	require.Panics(t, func() { _, _ = tk.Wait(context.Background()) })
	i := <-told
	require.Equal(t, "bad ctx", i.Panic)
	require.Equal(t, "request", i.Name)
	require.Equal(t, context.Background(), i.Ctx)
}

// A group hears of the end of such a task, too.
func TestCtxThatFailsAtTheEndOfAGroupsTask(t *testing.T) {
	guard(t)
	leavesNothing(t)
	up, cancel := context.WithCancel(context.Background())
	defer cancel()
	ctx := &testkit.BadCtx{Context: up}
	_, g := task.NewGroup(ctx)
	started := make(chan struct{})
	g.Go(func(context.Context) error {
		<-started
		ctx.Set(func() { panic("bad ctx") })
		return nil
	})
	close(started)
	got := testkit.Start(func() error { return g.Wait(context.Background()) })
	require.Equal(t, testkit.Outcome{How: "panic", Value: "bad ctx"}, got.Settle(t))
}

// A task that waits in the queue of a thread is taken out when its ctx ends, whatever the
// ctx does then.
func TestCtxThatFailsAsItEndsAQueuedTask(t *testing.T) {
	for _, b := range badEnds {
		t.Run(b.how, func(t *testing.T) {
			inBubble(t, func(t *testing.T, home context.Context, _ *asyncsync.ThreadSensitiveContext) {
				up, cancel := context.WithCancel(home)
				ctx := &testkit.BadCtx{Context: up, All: true}
				release := make(chan struct{})
				busy := asyncsync.Go(home, func(context.Context) (int, error) { <-release; return 0, nil })
				tk := asyncsync.Go(ctx, func(context.Context) (int, error) { t.Error("runs"); return 0, nil })
				synctest.Wait()
				ctx.Set(b.do)
				cancel()
				<-tk.Done()
				ctx.Set(nil)
				_, err := tk.Wait(home)
				require.ErrorIs(t, err, context.Canceled)
				close(release)
				_, err = busy.Wait(home)
				require.NoError(t, err)
			})
		})
	}
}

// The caller of Cond.Wait has the Mutex in every case, also if its ctx fails.
func TestCondOfACtxThatFails(t *testing.T) {
	for _, where := range []string{"goroutine", "thread", "loop"} {
		for _, b := range badEnds {
			t.Run(where+"/"+b.how, func(t *testing.T) {
				inBubble(t, func(t *testing.T, home context.Context, _ *asyncsync.ThreadSensitiveContext) {
					var m task.Mutex
					c := task.NewCond(&m)
					up, cancel := context.WithCancel(context.Background())
					ctx := &testkit.BadCtx{Context: up, All: true}
					var o testkit.Outcome
					waits := func(context.Context) error {
						require.NoError(t, m.Lock(ctx))
						defer func() {
							require.True(t, m.Locked())
							m.Unlock()
						}()
						o.Record(func() error { return c.Wait(ctx) })
						return nil
					}
					done := testkit.Start(func() error {
						switch where {
						case "thread":
							return toThreadErr(home, waits)
						case "loop":
							return libkit.Run(context.Background(), libkit.NewBackend(t, "thread"), waits)
						}
						return waits(nil)
					})
					synctest.Wait()
					ctx.Set(b.do)
					cancel()
					c.Broadcast()
					done.Wait()
					ctx.Set(nil)
					require.Equal(t, b.want, o)
					require.False(t, m.Locked())
				})
			})
		}
	}
}

// Nor does it lose the Mutex where a task cannot park.
func TestCondWhereATaskCannotPark(t *testing.T) {
	guard(t)
	b := libkit.NewBackend(t, "thread")
	require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
		var m task.Mutex
		c := task.NewCond(&m)
		require.NoError(t, m.Lock(ctx))
		require.NoError(t, b.Park(ctx, func(wake func()) {
			defer wake()
			require.Panics(t, func() { _ = c.Wait(ctx) })
		}))
		require.True(t, m.Locked())
		m.Unlock()
		return nil
	}))
}
