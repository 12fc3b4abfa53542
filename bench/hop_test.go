package bench_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/bench"
	"asyncsync.dev/task"
)

// BenchmarkInline calls from the thread to the thread, by each way of making a call.
func BenchmarkInline(b *testing.B) {
	wrapped := asyncsync.SyncToAsync(nothing)
	value := func(context.Context, int) (int, error) { return 0, nil }
	one := func(context.Context) (int, error) { return 0, nil }
	do := func(context.Context, int) error { return nil }
	h, err := asyncsync.Open(context.Background(), one, nil)
	must(b, err)
	defer h.Close()
	p := asyncsync.NewHandlePool(asyncsync.HandlePoolConfig[int]{Open: one})
	defer p.Close()
	for _, c := range []struct {
		call string
		run  func(ctx context.Context) error
	}{
		{"wrapper", func(ctx context.Context) error { _, err := wrapped(ctx, 0); return err }},
		{"ToThread", func(ctx context.Context) error { _, err := asyncsync.ToThread(ctx, one); return err }},
		{"ToThread-Named", func(ctx context.Context) error {
			_, err := asyncsync.ToThread(ctx, one, asyncsync.Named("named"))
			return err
		}},
		{"Do", func(ctx context.Context) error {
			return asyncsync.Do(ctx, func(context.Context) error { return nil })
		}},
		{"Handle.Do", func(ctx context.Context) error { return h.Do(ctx, do) }},
		{"Handle.Do-Named", func(ctx context.Context) error { return h.Do(ctx, do, asyncsync.Named("named")) }},
		{"Get", func(ctx context.Context) error { _, err := asyncsync.Get(ctx, h, value); return err }},
		{"Get-Named", func(ctx context.Context) error {
			_, err := asyncsync.Get(ctx, h, value, asyncsync.Named("named"))
			return err
		}},
		{"HandlePool.Do", func(ctx context.Context) error { return p.Do(ctx, do) }},
	} {
		b.Run("call="+c.call, func(b *testing.B) {
			b.ReportAllocs()
			on := h.Do
			if c.call == "HandlePool.Do" {
				on = p.Do
			}
			must(b, on(context.Background(), func(ctx context.Context, _ int) error {
				for b.Loop() {
					if err := c.run(ctx); err != nil {
						return err
					}
				}
				return nil
			}))
		})
	}
}

// BenchmarkHop calls from one ordinary goroutine to the thread and back.
func BenchmarkHop(b *testing.B) {
	hop := func(b *testing.B, opts ...asyncsync.ContextOption) {
		call := asyncsync.SyncToAsync(nothing)
		ctx, _ := inContext(b, opts...)
		b.ReportAllocs()
		for b.Loop() {
			_, err := call(ctx, 0)
			must(b, err)
		}
	}
	modes := []struct {
		name string
		spin int
	}{{"cold", spinNever}, {"hot", spinAlways}, {"learned", spinLearned}}

	b.Run("engine=channel", func(b *testing.B) {
		c := bench.NewChannel()
		defer c.Close()
		b.ReportAllocs()
		for b.Loop() {
			c.Call(func() {})
		}
	})
	b.Run("engine=goroutine", func(b *testing.B) {
		there, back := make(chan int), make(chan int)
		defer close(there)
		go func() {
			for x := range there {
				back <- x
			}
		}()
		for b.Loop() {
			there <- 0
			<-back
		}
	})
	b.Run("engine=unpinned", func(b *testing.B) { hop(b, asyncsync.Unpinned()) })
	for _, m := range modes {
		b.Run("mode="+m.name, func(b *testing.B) {
			setSpin(b, m.spin)
			hop(b)
		})
	}
	for _, load := range []struct {
		name string
		burn func(*testing.B) (worked func() float64)
	}{{"goroutines", burnGoroutines}, {"processes", burnProcesses}} {
		for _, m := range []int{0, 2} { // always would be foolish
			b.Run("load="+load.name+"/mode="+modes[m].name, func(b *testing.B) {
				setSpin(b, modes[m].spin)
				worked := load.burn(b)
				if worked == nil {
					hop(b)
					return
				}
				before := worked()
				hop(b)
				b.ReportMetric((worked()-before)/float64(b.Elapsed().Microseconds()), "burnt/us")
			})
		}
	}
	for _, on := range []bool{false, true} {
		b.Run("detector="+onOff(on), func(b *testing.B) {
			withDetector(b, on)
			hop(b)
		})
	}
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// BenchmarkPaced calls with a gap between one return and the next call, in
// which the caller is busy or sleeps. The percentiles are those of one call;
// the time of an operation has the gap in it.
func BenchmarkPaced(b *testing.B) {
	busy := func(d time.Duration) {
		for start := time.Now(); time.Since(start) < d; {
		}
	}
	spins := []struct {
		name string
		mode int
	}{{"learned", spinLearned}, {"never", spinNever}}
	for _, p := range []struct {
		gap  time.Duration
		name string
		wait func(time.Duration)
	}{
		{2 * time.Microsecond, "2us-busy", busy},
		{10 * time.Microsecond, "10us-busy", busy},
		{50 * time.Microsecond, "50us-busy", busy},
		{500 * time.Microsecond, "500us-asleep", time.Sleep},
	} {
		for _, s := range spins {
			b.Run("gap="+p.name+"/spin="+s.name, func(b *testing.B) {
				setSpin(b, s.mode)
				call := asyncsync.SyncToAsync(nothing)
				ctx, _ := inContext(b)
				var took []time.Duration
				for b.Loop() {
					p.wait(p.gap)
					start := time.Now()
					_, err := call(ctx, 0)
					took = append(took, time.Since(start))
					must(b, err)
				}
				slices.Sort(took)
				for _, percent := range []int{50, 99} {
					b.ReportMetric(float64(took[len(took)*percent/100].Nanoseconds()), fmt.Sprintf("p%d-ns", percent))
				}
			})
		}
	}
}

// BenchmarkCallers has many goroutines call one thread; the figure is per call.
func BenchmarkCallers(b *testing.B) {
	for _, n := range []int{1, 2, 8, 100} {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			call := asyncsync.SyncToAsync(nothing)
			ctx, _ := inContext(b)
			b.ReportAllocs()
			_, g := task.NewGroup(ctx)
			b.ResetTimer()
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

// BenchmarkPipelined has one goroutine start calls before it waits for the
// first, as tasks of the thread or as goroutines that call it; the figure is per
// call.
func BenchmarkPipelined(b *testing.B) {
	fn := func(ctx context.Context) (int, error) { return nothing(ctx, 0) }
	call := asyncsync.SyncToAsync(nothing)
	for _, by := range []struct {
		name  string
		start func(context.Context) *task.Task[int]
	}{
		{"thread", func(ctx context.Context) *task.Task[int] { return asyncsync.Go(ctx, fn) }},
		{"goroutine", func(ctx context.Context) *task.Task[int] {
			return task.Go(ctx, func(ctx context.Context) (int, error) { return call(ctx, 0) })
		}},
	} {
		for _, ahead := range []int{1, 8, 64} {
			b.Run(fmt.Sprintf("task=%s/ahead=%d", by.name, ahead), func(b *testing.B) {
				ctx, _ := inContext(b)
				tasks := make([]*task.Task[int], ahead)
				b.ReportAllocs()
				b.ResetTimer()
				for left := b.N; left > 0; left -= ahead {
					some := tasks[:min(left, ahead)]
					for i := range some {
						some[i] = by.start(ctx)
					}
					for _, t := range some {
						_, err := t.Wait(ctx)
						must(b, err)
					}
				}
			})
		}
	}
}

// BenchmarkCancel has calls queued behind a function that runs, and their ctx
// end; the figure is per call, its goroutine included.
func BenchmarkCancel(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("queued=%d", n), func(b *testing.B) {
			call := asyncsync.SyncToAsync(nothing)
			ctx, tsc := inContext(b)
			running, end := make(chan struct{}), make(chan struct{})
			holder := task.Go(ctx, func(ctx context.Context) (int, error) {
				return asyncsync.ToThread(ctx, func(context.Context) (int, error) {
					close(running)
					<-end
					return 0, nil
				})
			})
			<-running
			b.ReportAllocs()
			b.ResetTimer()
			for left := b.N; left > 0; left -= n {
				cancelled, cancel := context.WithCancel(ctx)
				var gone sync.WaitGroup
				some := min(left, n)
				for range some {
					gone.Go(func() {
						if _, err := call(cancelled, 0); !errors.Is(err, context.Canceled) {
							b.Error(err)
						}
					})
				}
				untilQueued(tsc, some)
				cancel()
				gone.Wait()
			}
			b.StopTimer()
			close(end)
			_, err := holder.Wait(ctx)
			must(b, err)
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
