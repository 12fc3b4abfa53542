package bench_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// callersOfLocks have a ctx of their own: of nobody, of a task, of one on a thread loop,
// and of a function on a thread.
var callersOfLocks = []struct {
	name string
	run  func(ctx context.Context, fn func(context.Context))
}{
	{"goroutine", func(ctx context.Context, fn func(context.Context)) { fn(ctx) }},
	{"task", func(ctx context.Context, fn func(context.Context)) {
		t := task.Go(ctx, func(ctx context.Context) (struct{}, error) {
			fn(ctx)
			return struct{}{}, nil
		})
		if _, err := t.Wait(ctx); err != nil {
			panic(err)
		}
	}},
	{"loop", func(ctx context.Context, fn func(context.Context)) {
		_, err := loop.Run(ctx, loop.NewThread(), func(ctx context.Context) (struct{}, error) {
			fn(ctx)
			return struct{}{}, nil
		})
		if err != nil {
			panic(err)
		}
	}},
	{"thread", func(ctx context.Context, fn func(context.Context)) {
		_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (struct{}, error) {
			fn(ctx)
			return struct{}{}, nil
		})
		if err != nil {
			panic(err)
		}
	}},
}

// uncontended runs op for b.N times as each kind of caller.
func uncontended(b *testing.B, op func(ctx context.Context) error) {
	for _, c := range callersOfLocks {
		b.Run("caller="+c.name, func(b *testing.B) {
			b.ReportAllocs()
			c.run(context.Background(), func(ctx context.Context) {
				for b.Loop() {
					if err := op(ctx); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkMutex locks and unlocks one that nobody else wants. engine=sync is a
// sync.Mutex.
func BenchmarkMutex(b *testing.B) {
	b.Run("engine=sync", func(b *testing.B) {
		var m sync.Mutex
		n := 0
		uncontended(b, func(context.Context) error {
			m.Lock()
			n++
			m.Unlock()
			return nil
		})
	})
	b.Run("engine=task", func(b *testing.B) {
		var m task.Mutex
		n := 0
		uncontended(b, func(ctx context.Context) error {
			if err := m.Lock(ctx); err != nil {
				return err
			}
			n++
			m.Unlock()
			return nil
		})
	})
}

// BenchmarkMutexWaited hands a Mutex to and fro between goroutines that all want
// it. engine=sync is a sync.Mutex.
func BenchmarkMutexWaited(b *testing.B) {
	for _, n := range []int{2, 16} {
		b.Run(fmt.Sprintf("engine=sync/n=%d", n), func(b *testing.B) {
			var m sync.Mutex
			done := 0
			contended(b, n, func(context.Context) {
				m.Lock()
				done++
				m.Unlock()
			})
		})
		b.Run(fmt.Sprintf("engine=task/n=%d", n), func(b *testing.B) {
			var m task.Mutex
			done := 0
			contended(b, n, func(ctx context.Context) {
				if err := m.Lock(ctx); err != nil {
					panic(err)
				}
				done++
				m.Unlock()
			})
		})
	}
}

// contended has n tasks run op, b.N times together.
func contended(b *testing.B, n int, op func(ctx context.Context)) {
	b.ReportAllocs()
	ctx, g := task.NewGroup(context.Background())
	for i := range n {
		g.Go(func(ctx context.Context) error {
			for range b.N/n + min(1, b.N%n-i) {
				op(ctx)
			}
			return nil
		})
	}
	if err := g.Wait(ctx); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkEvent waits for one that has happened, and has one happen that nobody
// waits for; what that allocates is the Event itself.
func BenchmarkEvent(b *testing.B) {
	b.Run("op=wait", func(b *testing.B) {
		var e task.Event
		e.Set()
		uncontended(b, e.Wait)
	})
	b.Run("op=set", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var e task.Event
			e.Set()
		}
	})
}

// BenchmarkLimiter takes a token that nobody else wants, and gives it back.
func BenchmarkLimiter(b *testing.B) {
	l := task.NewLimiter(4)
	uncontended(b, func(ctx context.Context) error {
		if err := l.Acquire(ctx); err != nil {
			return err
		}
		l.Release()
		return nil
	})
}
