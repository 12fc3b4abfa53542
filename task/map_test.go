package task_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/task"
)

// Results come in the order of the arguments, whatever order they end in, and all
// have been started before the first is asked for.
func TestMap(t *testing.T) {
	onEachInBubble(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
		var begun atomic.Int64
		results := task.Map(ctx, func(ctx context.Context, n int) (string, error) {
			begun.Add(1)
			if err := task.Sleep(ctx, time.Duration(10-n)*time.Second); err != nil {
				return "", err
			}
			if n == 2 {
				return "", errReal
			}
			return fmt.Sprint(n), nil
		}, []int{1, 2, 3})
		require.NoError(t, task.Sleep(ctx, time.Second))
		require.EqualValues(t, 3, begun.Load())
		var got []string
		for s, err := range results {
			if err != nil {
				require.Equal(t, errReal, err)
				s = "failed"
			}
			got = append(got, s)
		}
		require.Equal(t, []string{"1", "failed", "3"}, got)
		requireMisusePanic(t, func() {
			for range results {
				t.Error("a second loop")
			}
		})
		for range task.Map(ctx, func(context.Context, int) (int, error) { return 0, nil }, nil) {
			t.Error("nothing has a result")
		}
		return nil
	})
}

// A loop that is left, in whichever way, cancels and waits for the tasks that are
// left. So does one whose ctx ends.
func TestMap_Left(t *testing.T) {
	for name, leave := range map[string]func(){
		"break": nil, "panic": func() { panic("boom") }, "Goexit": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			onEachInBubble(t, func(t *testing.T, ctx context.Context, c kindOfCaller) error {
				var over atomic.Int64
				fn := func(ctx context.Context, n int) (int, error) {
					if n == 0 {
						return 0, nil
					}
					err := task.SleepForever(ctx)
					if e := task.Sleep(context.WithoutCancel(ctx), time.Second); e != nil {
						return 0, e
					}
					over.Add(1)
					return 0, err
				}
				left := task.Go(ctx, func(ctx context.Context) (int, error) {
					for _, err := range task.Map(ctx, fn, []int{0, 1, 2}) {
						require.NoError(t, err)
						if leave != nil {
							leave()
						}
						break
					}
					return 0, nil
				})
				e, err := task.Await(ctx, func(ctx context.Context) (testkit.Outcome, error) {
					return endingOf(func() {
						_, err := left.Wait(ctx)
						require.NoError(t, err)
					}), nil
				})
				require.NoError(t, err)
				require.Equal(t, map[string]testkit.Outcome{"break": {How: "return"}, "panic": {How: "panic", Value: "boom"}, "Goexit": {How: "goexit"}}[name], e)
				require.EqualValues(t, 2, over.Load())
				return nil
			})
		})
	}
	t.Run("its ctx ends", func(t *testing.T) {
		onEachInBubble(t, func(t *testing.T, ctx context.Context, _ kindOfCaller) error {
			inner, cancel := context.WithCancelCause(ctx)
			timer := time.AfterFunc(time.Second, func() { cancel(errCause) })
			defer timer.Stop()
			n := 0
			for _, err := range task.Map(inner, func(ctx context.Context, n int) (int, error) {
				return n, task.SleepForever(ctx)
			}, []int{1, 2, 3}) {
				require.Equal(t, errCause, err)
				n++
			}
			require.Equal(t, 3, n)
			return nil
		})
	})
}

// A function that panics, or calls Goexit, ends the loop where its result would
// have come.
func TestMap_Endings(t *testing.T) {
	for name, end := range map[string]func(){"panic": func() { panic("boom") }, "Goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
				before := 0
				e := endingOf(func() {
					for range task.Map(ctx, func(ctx context.Context, n int) (int, error) {
						if n == 1 {
							end()
						}
						if n == 2 {
							return 0, task.SleepForever(ctx)
						}
						return 0, nil
					}, []int{0, 1, 2}) {
						before++
					}
				})
				require.Equal(t, map[string]testkit.Outcome{"panic": {How: "panic", Value: "boom"}, "Goexit": {How: "goexit"}}[name], e)
				require.Equal(t, 1, before)
			})
		})
	}
}

func TestMap_Misuse(t *testing.T) {
	requireMisusePanic(t, func() { task.Map[int, int](context.Background(), nil, []int{1}) })
	requireMisusePanic(t, func() {
		var none context.Context
		task.Map(none, func(context.Context, int) (int, error) { return 0, errors.New("never") }, []int{1})
	})
}

func ExampleMap() {
	length := func(_ context.Context, s string) (int, error) { return len(s), nil }
	for n, err := range task.Map(context.Background(), length, []string{"one", "three"}) {
		fmt.Println(n, err)
	}
	// Output:
	// 3 <nil>
	// 5 <nil>
}

// A loop that a Goexit on top of its wait ends cancels and waits for the task that it
// waited for, too.
func TestMap_GoexitOnTopOfWait(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		over := make([]atomic.Bool, 2)
		e := endingOf(func() {
			toThread(ctx, func(ctx context.Context) {
				for range task.Map(ctx, func(ctx context.Context, i int) (int, error) {
					if i == 0 {
						goTask(ctx, func(ctx context.Context) error {
							return toThread(ctx, func(context.Context) { runtime.Goexit() })
						})
					}
					return 0, cleanUp(ctx, &over[i])
				}, []int{0, 1}) {
					t.Error("has a result")
				}
			})
		})
		require.Equal(t, "goexit", e.How)
		for i := range over {
			require.True(t, over[i].Load(), i)
		}
	})
}

// Whatever a hook does that is told of one of the tasks that are left, the others are
// cancelled as well, and waited for.
func TestMap_EndedHookOfTasksThatAreLeft(t *testing.T) {
	for _, e := range testkit.Ends[1:] {
		t.Run(e.How, func(t *testing.T) {
			told := 0
			hook := asyncsync.Hooks{Ended: func(i asyncsync.CallInfo) {
				if !i.Begun {
					told++
					_ = e.Do()
				}
			}}
			inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
				pool := asyncsync.NewPoolExecutor(1)
				var over atomic.Bool
				endingOf(func() {
					for range task.Map(ctx, func(ctx context.Context, i int) (int, error) {
						if i == 0 {
							return 0, nil
						}
						return 0, cleanUp(ctx, &over) // the only one that the thread comes to
					}, []int{0, 1, 2, 3, 4}, task.On(pool)) {
						synctest.Wait()
						break
					}
				})
				require.Equal(t, 3, told)
				require.True(t, over.Load())
				require.NoError(t, pool.Close())
			}, asyncsync.WithHooks(hook))
		})
	}
}

// A Map that a hook ends before it has started all tasks leaves none running.
func TestMap_QueuedHookEnds(t *testing.T) {
	for _, e := range testkit.Ends[1:] {
		t.Run(e.How, func(t *testing.T) {
			queued := 0
			hook := asyncsync.Hooks{Queued: func(asyncsync.CallInfo) {
				if queued++; queued == 3 {
					_ = e.Do()
				}
			}}
			inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
				over := make([]atomic.Bool, 2)
				e.Check(t, testkit.OutcomeOf(func() error {
					task.Map(ctx, func(ctx context.Context, i int) (int, error) {
						return 0, cleanUp(ctx, &over[i])
					}, []int{0, 1, 2})
					return nil
				}))
				for i := range over {
					require.True(t, over[i].Load(), i)
				}
			}, asyncsync.WithHooks(hook))
		})
	}
}
