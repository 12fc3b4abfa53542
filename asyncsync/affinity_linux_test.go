package asyncsync_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/task"
)

// The kernel is the witness: the other calls find the name that one call gives its
// thread, and so does a look at that thread's entry in /proc.

func nameOf(tid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/comm", tid))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSuffix(string(text), "\n")
}

func rename(ctx context.Context, name string) error {
	return to(ctx, func(context.Context) error { setThreadName(name); return nil })
}

func currentName(context.Context) (string, error) { return threadName(), nil }

// tainted makes the renamed thread end with its context.
func tainted(t *testing.T) (context.Context, *asyncsync.ThreadSensitiveContext) {
	ctx, tsc := newContext(t)
	require.NoError(t, to(ctx, func(ctx context.Context) error { asyncsync.Taint(ctx); return nil }))
	return ctx, tsc
}

func TestAffinity(t *testing.T) {
	guard(t)
	a, ta := tainted(t)
	b, tb := tainted(t)
	require.NoError(t, rename(a, "thread-a"))
	require.NoError(t, rename(b, "thread-b"))
	for range 50 {
		for ctx, want := range map[context.Context]string{a: "thread-a", b: "thread-b"} {
			got, err := asyncsync.ToThread(ctx, currentName)
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
	}
	require.NotEqual(t, ta.Stats().Thread, tb.Stats().Thread)
	require.Equal(t, "thread-a", nameOf(ta.Stats().Thread), "Stats knows the kernel's id")
	require.Equal(t, "thread-b", nameOf(tb.Stats().Thread))
}

// To fifty levels of nesting every sync function is on the one thread, and no
// async function is.
func TestAffinityNested(t *testing.T) {
	guard(t)
	const depth = 50
	ctx, tsc := tainted(t)
	require.NoError(t, rename(ctx, "deep"))
	home := threadOf(t, ctx)
	var names, asyncNames []string
	var down func(ctx context.Context, n int) error
	down = func(ctx context.Context, n int) error {
		return to(ctx, func(ctx context.Context) error {
			names = append(names, threadName())
			if here() != home || n == 0 {
				return nil
			}
			return from(ctx, func(ctx context.Context) error {
				if here().gid == home.gid {
					return fmt.Errorf("async code on the thread, at %d", n)
				}
				asyncNames = append(asyncNames, threadName())
				return down(ctx, n-1)
			})
		})
	}
	require.NoError(t, down(ctx, depth))
	require.Len(t, names, depth+1)
	for _, n := range names {
		require.Equal(t, "deep", n)
	}
	require.NotContains(t, asyncNames, "deep")
	require.Equal(t, "deep", nameOf(tsc.Stats().Thread))
}

// From everywhere below, concurrently.
func TestAffinityOfTasks(t *testing.T) {
	guard(t)
	ctx, _ := tainted(t)
	require.NoError(t, rename(ctx, "tasks"))
	require.NoError(t, to(ctx, func(ctx context.Context) error {
		gctx, g := task.NewGroup(ctx)
		for range 20 {
			g.Go(func(context.Context) error {
				got, err := asyncsync.ToThread(gctx, currentName)
				if err == nil && got != "tasks" {
					err = fmt.Errorf("a task's call ran on %q", got)
				}
				return err
			})
		}
		return g.Wait(ctx)
	}))
}

// A Goexit does not cost the OS thread.
func TestAffinityAfterGoexit(t *testing.T) {
	guard(t)
	ctx, tsc := tainted(t)
	require.NoError(t, rename(ctx, "survivor"))
	id := tsc.Stats().Thread
	for range 5 {
		outcomeOf(func() error { return to(ctx, func(context.Context) error { runtime.Goexit(); return nil }) })
		got, err := asyncsync.ToThread(ctx, currentName)
		require.NoError(t, err)
		require.Equal(t, "survivor", got)
		require.Equal(t, id, tsc.Stats().Thread)
	}
}

// A caller that is adopted, as main would be, is the thread of what is below.
func TestAffinityAdopted(t *testing.T) {
	guard(t)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		home := lockToNamedThread(t, "adopted-main")
		for range 3 {
			err := from(context.Background(), func(ctx context.Context) error {
				for range 10 {
					var got place
					var name string
					err := to(ctx, func(context.Context) error { got, name = here(), threadName(); return nil })
					if err != nil || got != home || name != "adopted-main" {
						return fmt.Errorf("ran on %v %q: %v", got, name, err)
					}
				}
				_, err := through(ctx, 9, func(ctx context.Context) (int, error) {
					return 0, to(ctx, func(context.Context) error {
						if here() != home {
							return fmt.Errorf("not at home below")
						}
						return nil
					})
				})
				return err
			})
			if err != nil {
				t.Error(err)
			}
			if threadName() != "adopted-main" {
				t.Error("the lock that the caller had is gone")
			}
		}
	}()
	<-ended
}

// A caller that was not locked is not locked afterwards: its thread lives on
// without it. (A goroutine that ends while locked takes its thread along.)
func TestAdoptionIsUndone(t *testing.T) {
	guard(t)
	leakCheck(t)
	ids := map[int]bool{}
	for range 20 {
		start(func() error {
			return from(context.Background(), func(ctx context.Context) error {
				return to(ctx, func(context.Context) error { ids[tid()] = true; return nil })
			})
		}).Wait()
	}
	for id := range ids {
		_, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", id))
		require.NoError(t, err, "thread %d is gone", id)
	}
}

// A Handle's value is made, used and closed on one thread.
func TestAffinityOfHandle(t *testing.T) {
	guard(t)
	var ids []int
	note := func() { ids = append(ids, tid()) }
	h, err := asyncsync.Open(context.Background(),
		func(context.Context) (int, error) { note(); return 1, nil },
		func(int) error { note(); return nil },
		asyncsync.OnThreadStart(note), asyncsync.OnThreadExit(note))
	require.NoError(t, err)
	for range 3 {
		require.NoError(t, h.Do(context.Background(), func(context.Context, int) error { note(); return nil }))
	}
	require.NoError(t, h.Close())
	require.Len(t, ids, 7)
	for _, id := range ids {
		require.Equal(t, ids[0], id)
	}
}
