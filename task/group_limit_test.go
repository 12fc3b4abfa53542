package task_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/task"
)

// The cause of a group's ctx matches context.Canceled, unless it is the error of a member.
// So do the errors of what is done with the ctx.
func TestGroup_CausesAreCancellations(t *testing.T) {
	guard(t)
	for name, end := range map[string]func() error{
		"a good end": func() error { return nil },
		"a panic":    func() error { panic("boom") },
		"a Goexit":   func() error { runtime.Goexit(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
			defer tsc.Close()
			gctx, g := task.NewGroup(ctx)
			g.Go(func(context.Context) error { return end() })
			endingOf(func() { g.Wait(ctx) })
			require.ErrorIs(t, gctx.Err(), context.Canceled)
			require.ErrorIs(t, context.Cause(gctx), context.Canceled)
			require.NotEqual(t, context.Canceled, context.Cause(gctx), "it says why")
			require.ErrorIs(t, toThread(gctx, func(context.Context) {}), context.Canceled)
			require.ErrorIs(t, task.NewLimiter(1).Acquire(gctx), context.Canceled)
			_, err := asyncsync.Go(gctx, func(context.Context) (int, error) { return 0, nil }).Wait(ctx)
			require.ErrorIs(t, err, context.Canceled)
		})
	}
}

// The zero Group is ready, and cancels nothing but for the ctx of its Wait.
func TestGroup_Zero(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		var g task.Group
		a, b := errors.New("a"), errors.New("b")
		gate := make(chan struct{})
		var saved context.Context
		g.Go(func(ctx context.Context) error {
			saved = ctx
			return a
		})
		g.Go(func(ctx context.Context) error {
			<-gate
			require.NoError(t, ctx.Err(), "a failure cancels nothing")
			return b
		})
		synctest.Wait()
		close(gate)
		require.EqualError(t, g.Wait(t.Context()), "a\nb")
		require.NoError(t, toThread(saved, func(context.Context) {}), "nor does the end")
		require.NoError(t, new(task.Group).Wait(t.Context()))

		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		var h task.Group
		h.Go(func(ctx context.Context) error {
			<-ctx.Done()
			return context.Cause(ctx)
		})
		cancel(cause)
		require.Equal(t, "enough", h.Wait(ctx).Error())
	})
}

// Options say what a failure does and what Wait tells.
func TestGroup_Options(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		a, b := errors.New("a"), errors.New("b")
		play := func(opts ...task.GroupOption) (cancelled bool, err error) {
			gctx, g := task.NewGroup(t.Context(), opts...)
			gate := make(chan struct{})
			g.Go(func(context.Context) error { return a })
			g.Go(func(context.Context) error { <-gate; return b })
			synctest.Wait()
			cancelled = gctx.Err() != nil
			close(gate)
			err = g.Wait(t.Context())
			require.Error(t, gctx.Err())
			return
		}
		cancelled, err := play()
		require.True(t, cancelled)
		require.EqualError(t, err, "a\nb")
		cancelled, err = play(task.FirstError())
		require.True(t, cancelled)
		require.True(t, err == a, "the very error")
		cancelled, err = play(task.NoCancel())
		require.False(t, cancelled)
		require.EqualError(t, err, "a\nb")
		cancelled, err = play(task.NoCancel(), task.FirstError())
		require.False(t, cancelled)
		require.True(t, err == a)
		requireMisusePanic(t, func() { task.NewGroup(t.Context(), nil) })

		for name, end := range map[string]func(){"panic": func() { panic("boom") }, "Goexit": runtime.Goexit} {
			gctx, g := task.NewGroup(t.Context(), task.NoCancel())
			gate := make(chan struct{})
			g.Go(func(context.Context) error { end(); return nil })
			g.Go(func(context.Context) error { <-gate; return nil })
			synctest.Wait()
			require.NoError(t, gctx.Err(), name)
			close(gate)
			require.NotEqual(t, testkit.Outcome{How: "return"}, endingOf(func() { g.Wait(t.Context()) }), name)
		}
	})
}

// Never do more tasks run than the limit says, whatever they end with, and Go
// gets its turn in order.
func TestGroup_Limit(t *testing.T) {
	for _, limit := range []int{1, 3} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			guard(t)
			_, g := task.NewGroup(t.Context(), task.NoCancel())
			g.SetLimit(limit)
			var now, most, began atomic.Int64
			var all sync.WaitGroup
			for i := range 4 {
				all.Go(func() {
					for j := range 50 {
						g.Go(func(context.Context) error {
							n := now.Add(1)
							for seen := most.Load(); n > seen && !most.CompareAndSwap(seen, n); seen = most.Load() {
							}
							defer now.Add(-1)
							began.Add(1)
							runtime.Gosched()
							switch (i + j) % 3 {
							case 0:
								panic("boom")
							case 1:
								runtime.Goexit()
							}
							return nil
						})
					}
				})
			}
			all.Wait()
			require.Equal(t, "boom", endingOf(func() { g.Wait(t.Context()) }).Value)
			require.EqualValues(t, 200, began.Load())
			require.LessOrEqual(t, most.Load(), int64(limit))
		})
	}
	t.Run("in order", func(t *testing.T) {
		guard(t)
		synctest.Test(t, func(t *testing.T) {
			var g task.Group
			g.SetLimit(1)
			gate := make(chan struct{})
			g.Go(func(context.Context) error { <-gate; return nil })
			var j journal
			for i := range 5 {
				go g.Go(func(context.Context) error { j.add(fmt.Sprint(i)); return nil })
				synctest.Wait()
			}
			require.False(t, g.TryGo(func(context.Context) error { return nil }), "no place")
			close(gate)
			synctest.Wait()
			require.Equal(t, []string{"0", "1", "2", "3", "4"}, j.read())
			require.True(t, g.TryGo(func(context.Context) error { return nil }))
			require.NoError(t, g.Wait(t.Context()))
		})
	})
}

// SetLimit is changed between tasks alone; 0 lets nothing start.
func TestGroup_SetLimit(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		var g task.Group
		one := func(context.Context) error { return nil }
		g.SetLimit(0)
		require.False(t, g.TryGo(one))
		started := make(chan struct{})
		go func() { g.Go(one); close(started) }()
		synctest.Wait()
		select {
		case <-started:
			t.Fatal("it started")
		default:
		}
		g.SetLimit(1)
		<-started
		synctest.Wait()
		gate := make(chan struct{})
		require.True(t, g.TryGo(func(context.Context) error { <-gate; return nil }))
		require.PanicsWithValue(t, "task: Group.SetLimit while 1 tasks of the group run", func() { g.SetLimit(2) })
		close(gate)
		synctest.Wait()
		g.SetLimit(-1)
		for range 100 {
			g.Go(one)
		}
		synctest.Wait()
		g.SetLimit(0)
		e := make(chan testkit.Outcome)
		go func() { e <- endingOf(func() { g.Go(one) }) }()
		synctest.Wait()
		require.NoError(t, g.Wait(t.Context()))
		require.Equal(t, testkit.Outcome{How: "panic", Value: "task: Group.Go after Wait"}, <-e, "who waits for a place when the group ends is told")
	})
}

// On a thread Go serves while it waits for a place: the members that must end
// first need the thread.
func TestGroup_GoServes(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		require.NoError(t, toThread(ctx, func(ctx context.Context) {
			gctx, g := task.NewGroup(ctx)
			g.SetLimit(2)
			calls := 0
			for range 6 {
				g.Go(func(ctx context.Context) error { return toThread(ctx, func(context.Context) { calls++ }) })
			}
			require.NoError(t, g.Wait(gctx))
			require.Equal(t, 6, calls)
		}))
	})
}

// A Goexit on top of a Go that waits takes the wait with it, and leaves the
// place to the next.
func TestGroup_GoexitOnTopOfGo(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		gctx, g := task.NewGroup(ctx)
		g.SetLimit(1)
		gate := make(chan struct{})
		g.Go(func(ctx context.Context) error {
			synctest.Wait() // the thread waits for a place
			endingOf(func() { toThread(ctx, func(context.Context) { runtime.Goexit() }) })
			<-gate
			return nil
		})
		e := endingOf(func() {
			toThread(gctx, func(context.Context) { g.Go(func(context.Context) error { t.Error("it runs"); return nil }) })
		})
		require.Equal(t, "goexit", e.How)
		close(gate)
		synctest.Wait()
		require.True(t, g.TryGo(func(context.Context) error { return nil }), "a place was lost")
		require.NoError(t, g.Wait(ctx))
	})
}

// A Go that could never get a place is told: by the group, for it returns
// nothing.
func TestGroup_GoDeadlock(t *testing.T) {
	for name, run := range map[string]func(context.Context, func(context.Context)) error{
		"on a goroutine": func(ctx context.Context, fn func(context.Context)) error { fn(ctx); return nil },
		"on a thread":    toThread,
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
				_, g := task.NewGroup(ctx, task.NoCancel())
				g.SetLimit(2)
				ran := 0 // a race probe, by turns
				both, first := make(chan struct{}), make(chan struct{})
				for i := range 2 {
					g.Go(func(ctx context.Context) error {
						<-both
						if i == 1 {
							<-first
						}
						return run(ctx, func(context.Context) {
							if i == 0 {
								close(first)
							}
							g.Go(func(ctx context.Context) error { ran++; return nil })
						})
					})
				}
				close(both)
				err := g.Wait(ctx)
				require.ErrorIs(t, err, deadlock.ErrDeadlock)
				var d *deadlock.Error
				require.ErrorAs(t, err, &d)
				require.Equal(t, "group-member", d.Page)
				require.Equal(t, 1, ran, "one of the two is told, and ends, which makes room for the other")
			})
		})
	}
}
