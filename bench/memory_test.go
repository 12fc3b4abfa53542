package bench_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
)

// BenchmarkMemory goes down through depth levels, and reports what a level has in use at
// the bottom: live-B/level on the heap, for records and contexts, and stack-B/level. A
// stack is a power of two in size. The time is of no interest.
func BenchmarkMemory(b *testing.B) {
	for _, e := range engines {
		for _, depth := range []int{256, 1024, 4096} {
			b.Run(fmt.Sprintf("engine=%s/depth=%d", e.name, depth), func(b *testing.B) {
				var before, after runtime.MemStats
				descend := e.make(b, nil, func(context.Context) error {
					runtime.GC()
					runtime.ReadMemStats(&after)
					return nil
				})
				for b.Loop() {
					runtime.GC()
					runtime.ReadMemStats(&before)
					done := make(chan error)
					go func() { done <- descend(depth) }() // with a stack that has not grown
					must(b, <-done)
				}
				b.ReportMetric(float64(int64(after.HeapAlloc-before.HeapAlloc))/float64(depth), "live-B/level")
				b.ReportMetric(float64(int64(after.StackInuse-before.StackInuse))/float64(depth), "stack-B/level")
			})
		}
	}
}
