package bench_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/task"
)

// BenchmarkQueued queues tasks on a thread that is busy, and then either has
// them run or ends their ctx. ns/op is what it takes to queue one, live-B/task
// what the heap holds for it while it waits (the pointer that the benchmark
// keeps included), end-ns/task what it takes until the last has ended. With
// ctx=plain nothing but Task.Cancel could end the ctx of the tasks.
//
// A million at a time are what -benchtime 1000000x gives.
func BenchmarkQueued(b *testing.B) {
	for _, how := range []struct {
		ctx, end string
	}{{"plain", "run"}, {"cancellable", "run"}, {"cancellable", "cancel"}} {
		b.Run(fmt.Sprintf("ctx=%s/end=%s", how.ctx, how.end), func(b *testing.B) {
			ctx, _ := inContext(b)
			running, end := make(chan struct{}), make(chan struct{})
			holder := asyncsync.Go(ctx, func(context.Context) (int, error) {
				close(running)
				<-end
				return 0, nil
			})
			<-running
			cancel := func() {}
			if how.ctx == "cancellable" {
				ctx, cancel = context.WithCancel(ctx)
			}
			fn := func(context.Context) (int, error) { return 0, nil }
			tasks := make([]*task.Task[int], b.N)
			before := liveHeap()
			b.ReportAllocs()
			b.ResetTimer()
			for i := range tasks {
				tasks[i] = asyncsync.Go(ctx, fn)
			}
			b.StopTimer()
			b.ReportMetric(float64(liveHeap()-before)/float64(b.N)+8, "live-B/task")
			queued := b.Elapsed()
			b.StartTimer()
			var want error
			if how.end == "cancel" {
				want = context.Canceled
				cancel()
			} else {
				close(end)
			}
			for _, t := range tasks {
				if _, err := t.Wait(context.Background()); !errors.Is(err, want) {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(b.Elapsed()-queued)/float64(b.N), "end-ns/task")
			b.ReportMetric(float64(queued)/float64(b.N), "queue-ns/task")
			if how.end == "cancel" {
				close(end)
			}
			cancel()
			_, err := holder.Wait(context.Background())
			must(b, err)
		})
	}
}

// liveHeap returns the bytes in use after a collection.
func liveHeap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
