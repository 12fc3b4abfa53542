package bench_test

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"sync"
	"testing"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/sched"
	"asyncsync.dev/loop"
	"asyncsync.dev/portal"
	"asyncsync.dev/task"
)

// onThread runs main on a thread loop, on the benchmark's goroutine, and reports how
// many goroutines the loop has left.
func onThread(b *testing.B, main func(ctx context.Context, l loop.Backend)) {
	b.Helper()
	before := runtime.NumGoroutine()
	defer func() { b.ReportMetric(float64(runtime.NumGoroutine()-before), "goroutines-left") }()
	l := loop.NewThread()
	_, err := loop.Run(context.Background(), l, func(ctx context.Context) (int, error) {
		main(ctx, l)
		return 0, nil
	})
	must(b, err)
}

// idlePortal starts a thread loop with a portal, which ends with the benchmark.
func idlePortal(b *testing.B) *portal.Portal {
	b.Helper()
	p, err := portal.Start()
	must(b, err)
	b.Cleanup(func() { must(b, p.Close(nil)) })
	return p
}

// idleThread starts a thread loop that has nothing to do until the benchmark ends.
func idleThread(b *testing.B) loop.Backend {
	b.Helper()
	l := loop.NewThread()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		_, err := loop.Run(context.Background(), l, func(ctx context.Context) (int, error) {
			return 0, l.Park(ctx, func(wake func()) {
				go func() {
					<-stop
					wake()
				}()
			})
		})
		must(b, err)
	}()
	b.Cleanup(func() {
		close(stop)
		<-stopped
	})
	return l
}

// BenchmarkLoopSwitch is what it takes to let another task run. An operation is one
// switch from one of two tasks to the other; of pull it is one switch to a
// coroutine and back.
func BenchmarkLoopSwitch(b *testing.B) {
	b.Run("engine=pull", func(b *testing.B) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		next, stop := iter.Pull(func(yield func(int) bool) {
			for yield(0) {
			}
		})
		defer stop()
		b.ReportAllocs()
		for b.Loop() {
			next()
		}
	})
	tasks := func(b *testing.B, yield func(ctx context.Context, l loop.Backend)) {
		onThread(b, func(ctx context.Context, l loop.Backend) {
			over := false
			must(b, l.Spawn(ctx, func(ctx context.Context) {
				for !over {
					yield(ctx, l)
				}
			}))
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; i += 2 {
				yield(ctx, l)
			}
			b.StopTimer()
			over = true
		})
	}
	b.Run("engine=yield", func(b *testing.B) {
		tasks(b, func(ctx context.Context, _ loop.Backend) { _ = task.Yield(ctx) }) // the other one is told that the loop stops
	})
	b.Run("engine=sched", func(b *testing.B) {
		tasks(b, func(context.Context, loop.Backend) { sched.Here().Yield() })
	})
	b.Run("engine=park", func(b *testing.B) {
		tasks(b, func(ctx context.Context, l loop.Backend) {
			must(b, l.Park(ctx, func(wake func()) { wake() }))
		})
	})
}

// BenchmarkLoopTask starts a task on the loop that it is on, and waits for it.
func BenchmarkLoopTask(b *testing.B) {
	b.Run("engine=pull", func(b *testing.B) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		b.ReportAllocs()
		for b.Loop() {
			next, stop := iter.Pull(func(yield func(int) bool) { yield(0) })
			next()
			stop()
		}
	})
	b.Run("engine=spawn", func(b *testing.B) {
		onThread(b, func(ctx context.Context, l loop.Backend) {
			b.ReportAllocs()
			for b.Loop() {
				must(b, l.Park(ctx, func(wake func()) {
					must(b, l.Spawn(ctx, func(context.Context) { wake() }))
				}))
			}
		})
	})
	b.Run("engine=call", func(b *testing.B) {
		onThread(b, func(ctx context.Context, l loop.Backend) {
			b.ReportAllocs()
			for b.Loop() {
				_, err := loop.Call(ctx, l, func(context.Context) (int, error) { return 0, nil })
				must(b, err)
			}
		})
	})
	b.Run("engine=go", func(b *testing.B) {
		onThread(b, func(ctx context.Context, l loop.Backend) {
			b.ReportAllocs()
			for b.Loop() {
				_, err := task.Go(ctx, func(context.Context) (int, error) { return 0, nil }).Wait(ctx)
				must(b, err)
			}
		})
	})
	b.Run("engine=goroutine", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			done := make(chan struct{})
			go func() { close(done) }()
			<-done
		}
	})
}

// BenchmarkLoopHop calls from an ordinary goroutine to a loop that sleeps. The
// baseline is a call to a thread that sleeps, and never spins.
func BenchmarkLoopHop(b *testing.B) {
	ctx := context.Background()
	b.Run("engine=asyncsync", func(b *testing.B) {
		setSpin(b, spinNever)
		ctx, _ := inContext(b)
		b.ReportAllocs()
		for b.Loop() {
			_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 0, nil })
			must(b, err)
		}
	})
	b.Run("engine=call", func(b *testing.B) {
		l := idleThread(b)
		b.ReportAllocs()
		for b.Loop() {
			_, err := loop.Call(ctx, l, func(context.Context) (int, error) { return 0, nil })
			must(b, err)
		}
	})
	b.Run("engine=portal", func(b *testing.B) {
		p := idlePortal(b)
		b.ReportAllocs()
		for b.Loop() {
			_, err := portal.Call(ctx, p, func(context.Context) (int, error) { return 0, nil })
			must(b, err)
		}
	})
	b.Run("engine=soon", func(b *testing.B) {
		p := idlePortal(b)
		b.ReportAllocs()
		for b.Loop() {
			t, err := portal.StartSoon(p, func(context.Context) (int, error) { return 0, nil })
			must(b, err)
			_, err = t.Wait(ctx)
			must(b, err)
		}
	})
	b.Run("engine=post", func(b *testing.B) {
		l := idleThread(b)
		b.ReportAllocs()
		for b.Loop() {
			done := make(chan struct{})
			must(b, l.Post(func() { close(done) }))
			<-done
		}
	})
}

// BenchmarkLoopCallers has goroutines call one loop, which is busy for it.
func BenchmarkLoopCallers(b *testing.B) {
	for _, n := range []int{1, 64} {
		callers := func(b *testing.B, call func() error) {
			b.ReportAllocs()
			var all sync.WaitGroup
			for i := range n {
				all.Go(func() {
					for j := i; j < b.N; j += n {
						must(b, call())
					}
				})
			}
			all.Wait()
		}
		b.Run(fmt.Sprintf("engine=asyncsync/n=%d", n), func(b *testing.B) {
			ctx, _ := inContext(b)
			callers(b, func() error {
				_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 0, nil })
				return err
			})
		})
		b.Run(fmt.Sprintf("engine=call/n=%d", n), func(b *testing.B) {
			l := idleThread(b)
			callers(b, func() error {
				_, err := loop.Call(context.Background(), l, func(context.Context) (int, error) { return 0, nil })
				return err
			})
		})
		b.Run(fmt.Sprintf("engine=portal/n=%d", n), func(b *testing.B) {
			p := idlePortal(b)
			callers(b, func() error {
				_, err := portal.Call(context.Background(), p, func(context.Context) (int, error) { return 0, nil })
				return err
			})
		})
	}
}

// BenchmarkLoopThread calls a thread that sleeps, and never spins, from a goroutine and
// from a task of a thread loop.
func BenchmarkLoopThread(b *testing.B) {
	calls := func(b *testing.B, ctx context.Context) {
		must(b, asyncsync.WithThreadSensitiveContext(ctx, func(ctx context.Context) error {
			b.ReportAllocs()
			for b.Loop() {
				_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 0, nil })
				must(b, err)
			}
			return nil
		}))
	}
	b.Run("caller=goroutine", func(b *testing.B) {
		setSpin(b, spinNever)
		calls(b, context.Background())
	})
	b.Run("caller=task", func(b *testing.B) {
		setSpin(b, spinNever)
		onThread(b, func(ctx context.Context, l loop.Backend) { calls(b, ctx) })
	})
}

// BenchmarkLoopParked has many tasks wait. It reports the memory of one, and what it
// takes to wake one and let it wait again: with of=10 always one of the same ten,
// so that the others only lie there; with of=all each in turn, so that all of it is
// out of the processor's caches. The stack is what the Go runtime gives a new
// goroutine, which depends on how large others are.
func BenchmarkLoopParked(b *testing.B) {
	for _, n := range []int{10, 100_000} {
		b.Run(fmt.Sprintf("tasks=%d/of=10", n), func(b *testing.B) { parked(b, n, 10) })
	}
	b.Run("tasks=100000/of=all", func(b *testing.B) { parked(b, 100_000, 100_000) })
}

func parked(b *testing.B, n, of int) {
	onThread(b, func(ctx context.Context, l loop.Backend) {
		// Not on the stack: the runtime gives new goroutines the average size.
		before, after := new(runtime.MemStats), new(runtime.MemStats)
		wakes, arms := make([]func(), n), make([]func(func()), n)
		for i := range arms {
			arms[i] = func(wake func()) { wakes[i] = wake }
		}
		runtime.GC()
		runtime.ReadMemStats(before)
		var resume func()
		over, left := false, n
		for i := range n {
			must(b, l.Spawn(ctx, func(ctx context.Context) {
				for !over {
					_ = l.Park(ctx, arms[i])
					if !over {
						resume()
					}
				}
				if left--; left == 0 {
					resume()
				}
			}))
		}
		for wakes[n-1] == nil {
			must(b, l.Park(ctx, func(wake func()) { wake() }))
		}
		runtime.GC()
		runtime.ReadMemStats(after)
		b.ResetTimer()
		for i := range b.N {
			must(b, l.Park(ctx, func(wake func()) {
				resume = wake
				wakes[i%of]()
			}))
		}
		b.StopTimer()
		over = true
		must(b, l.Park(ctx, func(wake func()) {
			resume = wake
			for _, wake := range wakes {
				wake()
			}
		}))
		b.ReportMetric(float64(after.StackInuse-before.StackInuse)/float64(n), "stack-B/task")
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "heap-B/task")
	})
}
