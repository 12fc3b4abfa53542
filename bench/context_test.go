package bench_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/local"
)

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

// BenchmarkHopLocals makes a call with a number of local variables set, which
// the function and its caller share.
func BenchmarkHopLocals(b *testing.B) {
	for _, n := range []int{0, 1, 100} {
		b.Run(fmt.Sprintf("vars=%d", n), func(b *testing.B) {
			vars := make([]*local.Var[int], n)
			for i := range vars {
				vars[i] = local.New[int]()
				defer vars[i].Set(i)()
			}
			call := asyncsync.SyncToAsync(nothing)
			ctx, _ := inContext(b, asyncsync.Unpinned())
			b.ReportAllocs()
			for b.Loop() {
				_, err := call(ctx, 0)
				must(b, err)
			}
		})
	}
}

// BenchmarkLocal gets and sets a variable of which many goroutines hold a value
// of their own.
func BenchmarkLocal(b *testing.B) {
	for _, goroutines := range []int{1, 10_000} {
		for _, op := range []string{"get", "set"} {
			b.Run(fmt.Sprintf("op=%s/goroutines=%d", op, goroutines), func(b *testing.B) {
				v := local.New[int]()
				defer holdValues(v, goroutines-1)()
				defer v.Set(42)()
				b.ReportAllocs()
				if op == "set" {
					for b.Loop() {
						v.Set(42)
					}
					return
				}
				for b.Loop() {
					if x, ok := v.Get(); !ok || x != 42 {
						b.Fatal("the value is gone")
					}
				}
			})
		}
	}
}

// holdValues has n goroutines hold a value until release is called.
func holdValues(v *local.Var[int], n int) (release func()) {
	end := make(chan struct{})
	var holding, gone sync.WaitGroup
	holding.Add(n)
	gone.Add(n)
	for i := range n {
		local.Go(func() {
			defer gone.Done()
			v.Set(i)
			holding.Done()
			<-end
		})
	}
	holding.Wait()
	return func() {
		close(end)
		gone.Wait()
	}
}
