package asyncsync_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/task"
)

// busy has the thread of ctx run a function until end is called.
func busy(ctx context.Context) (end func()) {
	running, gate := make(chan struct{}), make(chan struct{})
	holder := asyncsync.Go(ctx, func(context.Context) (int, error) { close(running); <-gate; return 0, nil })
	<-running
	return func() { close(gate); holder.Wait(context.Background()) }
}

// Tasks in a queue whose ctx ends leave it in the order in which they came, with
// the cause; those with another ctx stay, also if they came in between.
func TestQueuedTasksLeaveWithTheirCtx(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
		end := busy(ctx)
		cause := errors.New("enough")
		a, cancelA := context.WithCancelCause(ctx)
		b, cancelB := context.WithCancelCause(ctx)
		const n = 300
		ran := 0
		var as, bs []*task.Task[int]
		for range n {
			as = append(as, asyncsync.Go(a, func(context.Context) (int, error) { t.Error("it runs"); return 0, nil }))
			bs = append(bs, asyncsync.Go(b, func(context.Context) (int, error) { ran++; return ran, nil }))
		}
		require.Equal(t, 2*n, tsc.Stats().Queued)
		require.True(t, as[7].Cancel(nil))
		require.False(t, as[7].Cancel(nil))
		require.Equal(t, 2*n-1, tsc.Stats().Queued)
		cancelA(cause)
		synctest.Wait()
		require.Equal(t, n, tsc.Stats().Queued)
		for i, tk := range as {
			<-tk.Done()
			_, err := tk.Wait(t.Context())
			if i == 7 {
				require.Equal(t, context.Canceled, err)
			} else {
				require.True(t, err == cause)
			}
			require.False(t, tk.Cancel(nil))
		}
		late, err := asyncsync.Go(a, func(context.Context) (int, error) { return 1, nil }).Wait(t.Context())
		require.True(t, err == cause)
		require.Zero(t, late)
		end()
		for i, tk := range bs {
			got, err := tk.Wait(t.Context())
			require.NoError(t, err)
			require.Equal(t, i+1, got)
		}
		cancelB(nil)
		require.NoError(t, tsc.Close())
	})
}

// A hook that is told of one of them and does not return keeps none of the
// others.
func TestQueuedTasksLeaveWhateverAHookDoes(t *testing.T) {
	for name, end := range map[string]func(gate chan struct{}){
		"panics":       func(chan struct{}) { panic("hook") },
		"calls Goexit": func(chan struct{}) { runtime.Goexit() },
		"waits":        func(gate chan struct{}) { <-gate },
	} {
		t.Run(name, func(t *testing.T) {
			guard(t)
			synctest.Test(t, func(t *testing.T) {
				ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
				idle := busy(ctx)
				gate, first := make(chan struct{}), make(chan struct{}, 1)
				restore := asyncsync.SetHooks(asyncsync.Hooks{Ended: func(asyncsync.CallInfo) {
					select {
					case first <- struct{}{}:
						end(gate)
					default:
					}
				}})
				defer restore()
				c, cancel := context.WithCancel(ctx)
				var tasks []*task.Task[int]
				for range 20 {
					tasks = append(tasks, asyncsync.Go(c, func(context.Context) (int, error) { return 0, nil }))
				}
				cancel()
				ended := func() (n int) {
					synctest.Wait()
					for _, tk := range tasks {
						select {
						case <-tk.Done():
							n++
						default:
						}
					}
					return n
				}
				if name == "waits" {
					require.Equal(t, len(tasks)-1, ended())
				}
				close(gate)
				require.Equal(t, len(tasks), ended())
				require.Zero(t, tsc.Stats().Queued)
				idle()
				require.NoError(t, tsc.Close())
			})
		})
	}
}

// What a task in a queue holds does not grow again.
func TestQueuedTaskIsSmall(t *testing.T) {
	guard(t)
	for _, cancellable := range []bool{false, true} {
		t.Run(fmt.Sprint(cancellable), func(t *testing.T) {
			ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
			end := busy(ctx)
			if cancellable {
				c, cancel := context.WithCancel(ctx)
				defer cancel()
				ctx = c
			}
			const n = 20000
			tasks := make([]*task.Task[int], n)
			fn := func(context.Context) (int, error) { return 0, nil }
			before := inUse()
			for i := range tasks {
				tasks[i] = asyncsync.Go(ctx, fn)
			}
			each := (inUse() - before) / n
			t.Logf("%d bytes each", each)
			require.Less(t, each, int64(720))
			end()
			for _, tk := range tasks {
				_, err := tk.Wait(context.Background())
				require.NoError(t, err)
			}
			require.NoError(t, tsc.Close())
		})
	}
}

func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
