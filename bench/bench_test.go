package bench_test

import (
	"context"
	"fmt"
	"testing"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/bench"
	"asyncsync.dev/local"
	"asyncsync.dev/task"
)

func ExampleChannel() {
	c := bench.NewChannel()
	defer c.Close()
	c.Call(func() { fmt.Println("on the thread") })
	// Output:
	// on the thread
}

func nothing(context.Context, int) (int, error) { return 0, nil }

// must ends the benchmark on an error that no benchmark expects.
func must(b *testing.B, err error) {
	if err != nil {
		b.Helper()
		b.Fatal(err)
	}
}

// BenchmarkInline calls from the thread to the thread.
func BenchmarkInline(b *testing.B) {
	call := asyncsync.SyncToAsync(nothing)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
	defer tsc.Close()
	b.ReportAllocs()
	_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		for b.Loop() {
			if _, err := call(ctx, 0); err != nil {
				return 0, err
			}
		}
		return 0, nil
	})
	must(b, err)
}

// BenchmarkHop calls from one ordinary goroutine to the thread and back.
func BenchmarkHop(b *testing.B) {
	b.Run("engine=channel", func(b *testing.B) {
		c := bench.NewChannel()
		defer c.Close()
		b.ReportAllocs()
		for b.Loop() {
			c.Call(func() {})
		}
	})
	for _, engine := range []struct {
		name string
		opts []asyncsync.ContextOption
	}{
		{"engine=default", nil},
		{"engine=unpinned", []asyncsync.ContextOption{asyncsync.Unpinned()}},
	} {
		b.Run(engine.name, func(b *testing.B) {
			call := asyncsync.SyncToAsync(nothing)
			ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), engine.opts...)
			defer tsc.Close()
			b.ReportAllocs()
			for b.Loop() {
				_, err := call(ctx, 0)
				must(b, err)
			}
		})
	}
}

// BenchmarkCallers has many goroutines call one thread; the figure is per call.
func BenchmarkCallers(b *testing.B) {
	for _, n := range []int{1, 8, 100} {
		b.Run(fmt.Sprintf("callers=%d", n), func(b *testing.B) {
			call := asyncsync.SyncToAsync(nothing)
			ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
			defer tsc.Close()
			b.ReportAllocs()
			b.ResetTimer()
			_, g := task.NewGroup(ctx)
			for i := range n {
				g.Go(func(ctx context.Context) error {
					for range (b.N + i) / n {
						if _, err := call(ctx, 0); err != nil {
							return err
						}
					}
					return nil
				})
			}
			must(b, g.Wait(ctx))
		})
	}
}

// BenchmarkNested goes down through depth levels, each a call from async code
// to the thread and from there to async code; the figure is for all of them,
// and ns/level for one.
func BenchmarkNested(b *testing.B) {
	for _, depth := range []int{1, 4, 16, 64, 256, 1024, 4096} {
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) {
			var up, down asyncsync.Func[int, int]
			up = asyncsync.AsyncToSync(func(ctx context.Context, level int) (int, error) {
				if level == 0 {
					return 0, nil
				}
				return down(ctx, level)
			})
			down = asyncsync.SyncToAsync(func(ctx context.Context, level int) (int, error) {
				return up(ctx, level-1)
			})
			ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
			defer tsc.Close()
			b.ReportAllocs()
			for b.Loop() {
				_, err := down(ctx, depth)
				must(b, err)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(depth), "ns/level")
		})
	}
}

// BenchmarkContext makes a context, uses it for a number of calls, and closes it.
func BenchmarkContext(b *testing.B) {
	for _, calls := range []int{0, 1, 10} {
		b.Run(fmt.Sprintf("calls=%d", calls), func(b *testing.B) {
			call := asyncsync.SyncToAsync(nothing)
			b.ReportAllocs()
			for b.Loop() {
				ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
				for range calls {
					_, err := call(ctx, 0)
					must(b, err)
				}
				must(b, tsc.Close())
			}
		})
	}
}

// BenchmarkLocals makes a call with a number of local variables set.
func BenchmarkLocals(b *testing.B) {
	for _, n := range []int{0, 1, 100} {
		b.Run(fmt.Sprintf("vars=%d", n), func(b *testing.B) {
			vars := make([]*local.Var[int], n)
			for i := range vars {
				vars[i] = local.New[int]()
				defer vars[i].Set(i)()
			}
			call := asyncsync.SyncToAsync(nothing)
			ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.Unpinned())
			defer tsc.Close()
			b.ReportAllocs()
			for b.Loop() {
				_, err := call(ctx, 0)
				must(b, err)
			}
		})
	}
}

// BenchmarkTask starts a task and waits for it.
func BenchmarkTask(b *testing.B) {
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		_, err := task.Go(ctx, func(context.Context) (int, error) { return 0, nil }).Wait(ctx)
		must(b, err)
	}
}
