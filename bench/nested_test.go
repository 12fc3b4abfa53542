package bench_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/bench"
	"asyncsync.dev/task"
)

// What is between the levels runs on the thread at each of them, next being the
// rest of the descent; what is at the bottom is async code. Both may be nil.
type (
	next    func(context.Context) error
	between func(context.Context, next) error
	bottom  func(context.Context) error
)

// An engine is a way to nest: make returns a function that goes down a number
// of levels, each a call to the thread and one from there, and comes back.
type engine struct {
	name string
	make func(*testing.B, between, bottom) func(depth int) error
}

var unpinned = engine{"unpinned", library([]asyncsync.ContextOption{asyncsync.Unpinned()})}

var engines = []engine{
	{"default", library(nil)},
	{"samethread", library(nil, asyncsync.SameThread())},
	unpinned,
	{"channels", byHand},
}

// library nests in a context with its options, and options for AsyncToSync.
func library(contextOpts []asyncsync.ContextOption, opts ...asyncsync.Option) func(*testing.B, between, bottom) func(int) error {
	return func(b *testing.B, between between, bottom bottom) func(int) error {
		ctx, _ := inContext(b, contextOpts...)
		var up, down asyncsync.Func[int, int]
		up = asyncsync.AsyncToSync(func(ctx context.Context, level int) (int, error) {
			switch {
			case level > 0:
				return down(ctx, level)
			case bottom != nil:
				return 0, bottom(ctx)
			}
			return 0, nil
		}, opts...)
		down = asyncsync.SyncToAsync(func(ctx context.Context, level int) (int, error) {
			if between == nil {
				return up(ctx, level-1)
			}
			return 0, between(ctx, func(ctx context.Context) error {
				_, err := up(ctx, level-1)
				return err
			})
		})
		return func(depth int) error {
			_, err := down(ctx, depth)
			return err
		}
	}
}

// byHand is what one would write without this module: it has no contexts.
func byHand(b *testing.B, _ between, bottom bottom) func(int) error {
	c := bench.NewChannel()
	b.Cleanup(c.Close)
	return func(depth int) (err error) {
		if bottom == nil {
			c.Descend(depth, nil)
		} else {
			c.Descend(depth, func() { err = bottom(context.Background()) })
		}
		return err
	}
}

// BenchmarkNested goes down through depth levels and back; the figure is for
// all of them, and those per level for one, the first caller's hop to the thread
// included. goroutines is how many the descent has added at the bottom.
func BenchmarkNested(b *testing.B) {
	for _, e := range engines {
		for depth := 1; depth <= 4096; depth *= 2 {
			b.Run(fmt.Sprintf("engine=%s/depth=%d", e.name, depth), func(b *testing.B) {
				var there int
				count := e.make(b, nil, func(context.Context) error {
					there = runtime.NumGoroutine()
					return nil
				})
				must(b, count(1)) // which starts the thread
				before := there
				must(b, count(depth))
				descend := e.make(b, nil, nil)
				perLevel(b, depth, func() { must(b, descend(depth)) })
				b.ReportMetric(float64(there-before), "goroutines")
			})
		}
	}
	for _, on := range []bool{false, true} {
		b.Run("detector="+onOff(on)+"/depth=16", func(b *testing.B) {
			withDetector(b, on)
			descend := engines[0].make(b, nil, nil)
			perLevel(b, 16, func() { must(b, descend(16)) })
		})
	}
}

// BenchmarkDeep is nesting whose levels each have something with them that must
// not burden the levels below: a context derived with the standard library, one
// of this module, a task that is waited for on the thread. The engine is the
// unpinned one, where that is most of the cost.
func BenchmarkDeep(b *testing.B) {
	type key struct{}
	for _, with := range []struct {
		name    string
		between between
	}{
		{"cancel", func(ctx context.Context, next next) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			return next(ctx)
		}},
		{"value", func(ctx context.Context, next next) error {
			return next(context.WithValue(ctx, key{}, 0))
		}},
		{"context", func(ctx context.Context, next next) error {
			return asyncsync.WithThreadSensitiveContext(ctx, next)
		}},
		{"task", func(ctx context.Context, next next) error {
			_, err := task.Go(ctx, func(ctx context.Context) (int, error) {
				return asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) { return 0, next(ctx) })
			}).Wait(ctx)
			return err
		}},
	} {
		for _, depth := range []int{16, 256, 1024} {
			b.Run(fmt.Sprintf("with=%s/depth=%d", with.name, depth), func(b *testing.B) {
				descend := unpinned.make(b, with.between, nil)
				perLevel(b, depth, func() { must(b, descend(depth)) })
			})
		}
	}
}

// BenchmarkStranger makes a call, at the bottom of a nesting whose levels wait
// for tasks, to another thread, which is blocked in a wait for something else.
// There the call is nobody's relative and stays in the queue, from which it is
// taken when its ctx ends.
func BenchmarkStranger(b *testing.B) {
	for _, depth := range []int{16, 256, 1024} {
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) {
			elsewhere, other := inContext(b, asyncsync.Unpinned())
			blocked, end := make(chan struct{}), make(chan struct{})
			holder := task.Go(elsewhere, func(ctx context.Context) (int, error) {
				return asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
					return asyncsync.FromThread(ctx, func(context.Context) (int, error) {
						close(blocked)
						<-end
						return 0, nil
					})
				})
			})
			<-blocked
			call := asyncsync.SyncToAsync(nothing, asyncsync.On(other))
			ctx, _ := inContext(b, asyncsync.Unpinned())
			var down asyncsync.Func[int, int]
			down = asyncsync.SyncToAsync(func(ctx context.Context, left int) (int, error) {
				if left > 0 {
					return task.Go(ctx, func(ctx context.Context) (int, error) { return down(ctx, left-1) }).Wait(ctx)
				}
				for b.Loop() {
					t := task.Go(ctx, func(ctx context.Context) (int, error) { return call(ctx, 0) })
					untilQueued(other, 1)
					t.Cancel(nil)
					if _, err := t.Wait(ctx); err != context.Canceled {
						return 0, fmt.Errorf("not cancelled: %w", err)
					}
				}
				return 0, nil
			})
			_, err := down(ctx, depth)
			must(b, err)
			close(end)
			_, err = holder.Wait(elsewhere)
			must(b, err)
		})
	}
}

// BenchmarkEnding is nesting whose bottom returns, fails or panics: the way up
// is what differs.
func BenchmarkEnding(b *testing.B) {
	failure := errors.New("the bottom")
	for _, e := range []struct {
		name   string
		bottom bottom
	}{
		{"return", nil},
		{"error", func(context.Context) error { return failure }},
		{"panic", func(context.Context) error { panic(failure) }},
	} {
		for _, depth := range []int{1, 16, 256, 1000} {
			b.Run(fmt.Sprintf("ending=%s/depth=%d", e.name, depth), func(b *testing.B) {
				descend := engines[0].make(b, nil, e.bottom)
				perLevel(b, depth, func() {
					var err error
					func() {
						defer func() {
							if r := recover(); r != nil && r != any(failure) {
								panic(r)
							}
						}()
						err = descend(depth)
					}()
					if err != nil && err != failure {
						b.Fatal(err)
					}
				})
			})
		}
	}
}
