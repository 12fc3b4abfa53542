package bench_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"asyncsync.dev/asyncsync"
)

// BenchmarkHandlePool has many goroutines use 16 values, each on its thread: those
// of a HandlePool, and handles that go around in a channel, as one would write it by
// hand. The figure is per use.
func BenchmarkHandlePool(b *testing.B) {
	const max = 16
	ctx := context.Background()
	open := func(context.Context) (*int, error) { return new(int), nil }
	work := func(_ context.Context, v *int) error { *v++; return nil }
	for _, engine := range []struct {
		name string
		make func(b *testing.B) func() error
	}{
		{"channel", func(b *testing.B) func() error {
			handles := make(chan *asyncsync.Handle[*int], max)
			for range max {
				h, err := asyncsync.Open(ctx, open, nil)
				must(b, err)
				b.Cleanup(func() { must(b, h.Close()) })
				handles <- h
			}
			return func() error {
				h := <-handles
				defer func() { handles <- h }()
				return h.Do(ctx, work)
			}
		}},
		{"asyncsync", func(b *testing.B) func() error {
			p := asyncsync.NewHandlePool(asyncsync.HandlePoolConfig[*int]{Open: open, Max: max})
			b.Cleanup(func() { must(b, p.Close()) })
			return func() error { return p.Do(ctx, work) }
		}},
	} {
		for _, n := range []int{1, 8, 64} {
			b.Run(fmt.Sprintf("engine=%s/n=%d", engine.name, n), func(b *testing.B) {
				use := engine.make(b)
				b.ReportAllocs()
				b.ResetTimer()
				var all sync.WaitGroup
				for i := range n {
					all.Go(func() {
						for range (b.N + i) / n {
							if err := use(); err != nil {
								b.Error(err)
							}
						}
					})
				}
				all.Wait()
			})
		}
	}
}
