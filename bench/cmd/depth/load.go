package main

import (
	"context"
	"errors"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/spin"
	"asyncsync.dev/local"
	"asyncsync.dev/task"
)

// What spin.Set takes.
const (
	spinLearned = 0
	spinOff     = -1
	spinForced  = 1
)

// spinning compares the round trip as it is with one that never spins.
func spinning(b *bencher) error {
	call := asyncsync.SyncToAsync(nothing)
	defer spin.Set(spinLearned)
	bg := context.Background()
	return asyncsync.WithThreadSensitiveContext(bg, func(learned context.Context) error {
		return asyncsync.WithThreadSensitiveContext(bg, func(off context.Context) error {
			x, y, err := priceBoth(4*b.each, func(n int) error {
				spin.Set(spinLearned)
				return repeat(learned, call)(n)
			}, func(n int) error {
				spin.Set(spinOff)
				return repeat(off, call)(n)
			})
			b.put("spinning/learned", x)
			b.put("spinning/off", y)
			return err
		})
	})
}

// burners compares the same where every processor has other work, and counts
// how much of that gets done.
func burners(b *bencher) error {
	call := asyncsync.SyncToAsync(nothing)
	defer spin.Set(spinLearned)

	work := make([]word, runtime.GOMAXPROCS(0))
	var stop atomic.Bool
	var gone sync.WaitGroup
	for i := range work {
		gone.Go(func() {
			for !stop.Load() {
				work[i].Add(1)
			}
		})
	}
	defer func() {
		stop.Store(true)
		gone.Wait()
	}()
	worked := func() (sum float64) {
		for i := range work {
			sum += float64(work[i].Load())
		}
		return sum
	}

	names := []string{"learned", "off"}
	var took, burnt, done [2]float64
	const turns = 3
	for range turns {
		for i, mode := range []int{spinLearned, spinOff} {
			spin.Set(mode)
			err := asyncsync.WithThreadSensitiveContext(context.Background(), func(ctx context.Context) error {
				before, start := worked(), time.Now()
				for time.Since(start) < 2*b.each {
					if _, err := call(ctx, 0); err != nil {
						return err
					}
					done[i]++
				}
				took[i] += float64(time.Since(start).Nanoseconds())
				burnt[i] += worked() - before
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	for mode, name := range names {
		b.put("burners/"+name, took[mode]/done[mode])
		b.put("burners/work-"+name, burnt[mode]/took[mode])
	}
	return nil
}

// callers has a hundred goroutines call one thread that does not spin.
func callers(b *bencher) error {
	const callers = 100
	call := asyncsync.SyncToAsync(nothing)
	spin.Set(spinOff)
	defer spin.Set(spinLearned)
	return asyncsync.WithThreadSensitiveContext(context.Background(), func(ctx context.Context) error {
		c, err := price(b.each, func(n int) error {
			return crowd(callers, func(int) error { return repeat(ctx, call)(n) })
		})
		b.put("many/callers", c.ns/callers)
		return err
	})
}

// pipeline has one goroutine start many calls before it waits for them.
func pipeline(b *bencher) error {
	const ahead = 64
	spin.Set(spinOff)
	defer spin.Set(spinLearned)
	return asyncsync.WithThreadSensitiveContext(context.Background(), func(ctx context.Context) error {
		var tasks [ahead]*task.Task[int]
		one := func(ctx context.Context) (int, error) { return nothing(ctx, 0) }
		c, err := price(b.each, func(n int) error {
			for range n {
				for i := range tasks {
					tasks[i] = asyncsync.Go(ctx, one)
				}
				for _, t := range tasks {
					if _, err := t.Wait(ctx); err != nil {
						return err
					}
				}
			}
			return nil
		})
		b.put("many/pipelined", c.ns/ahead)
		return err
	})
}

// crowd runs f on n goroutines and waits for them.
func crowd(n int, f func(i int) error) error {
	var all sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		all.Go(func() { errs[i] = f(i) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// contexts takes what a context costs that is not used, and one that is used
// for one call on a thread of the pool.
func contexts(b *bencher) error {
	call := asyncsync.SyncToAsync(nothing)
	bg := context.Background()
	c, err := price(b.each, func(n int) error {
		for range n {
			_, tsc := asyncsync.NewThreadSensitiveContext(bg)
			if err := tsc.Close(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	b.put("context/unused", c.ns)
	b.put("context/unused-allocs", math.Round(100*c.allocs)/100) // the collector has some too

	request := func(n int) error {
		for range n {
			ctx, tsc := asyncsync.NewThreadSensitiveContext(bg)
			_, err := call(ctx, 0)
			if err := errors.Join(err, tsc.Close()); err != nil {
				return err
			}
		}
		return nil
	}
	return asyncsync.WithThreadSensitiveContext(bg, func(ctx context.Context) error {
		x, y, err := priceBoth(4*b.each, request, repeat(ctx, call))
		b.put("context/request", x)
		b.put("context/call", y)
		return err
	})
}

// manyContexts has many requests at a time, each with a context of its own and
// three calls, share a pool of threads; and, for comparison, as many contexts
// as there are threads, used without end.
func manyContexts(b *bencher) (err error) {
	const callsEach = 3
	call := asyncsync.SyncToAsync(nothing)
	bg := context.Background()
	pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: b.threads, MaxIdle: b.threads})
	defer func() { err = errors.Join(err, pool.Close()) }()
	pooled := asyncsync.WithPool(pool)

	ctxs := make([]context.Context, b.threads)
	scopes := make([]*asyncsync.ThreadSensitiveContext, b.threads)
	for i := range ctxs {
		ctxs[i], scopes[i] = asyncsync.NewThreadSensitiveContext(bg, pooled)
	}
	contended, err := price(4*b.each, func(n int) error {
		return crowd(b.threads, func(i int) error { return repeat(ctxs[i], call)(n) })
	})
	for _, s := range scopes {
		err = errors.Join(err, s.Close())
	}
	if err != nil {
		return err
	}

	start := time.Now()
	err = crowd(b.contexts, func(int) error {
		return asyncsync.WithThreadSensitiveContext(bg, func(ctx context.Context) error {
			return repeat(ctx, call)(callsEach)
		}, pooled)
	})
	took := time.Since(start)
	if err != nil {
		return err
	}
	b.put("crowd/request", float64(took.Nanoseconds())/float64(b.contexts))
	b.put("crowd/calls", callsEach*contended.ns/float64(b.threads))
	b.put("crowd/threads", float64(pool.Stats().Peak))
	return nil
}

// locals reads a variable of which many other goroutines hold a value too.
func locals(b *bencher) error {
	v := local.New[int]()
	end := make(chan struct{})
	var holding, gone sync.WaitGroup
	for i := range b.values {
		holding.Add(1)
		gone.Add(1)
		local.Go(func() {
			defer gone.Done()
			v.Set(i)
			holding.Done()
			<-end
		})
	}
	holding.Wait()
	defer gone.Wait()
	defer close(end)
	defer v.Set(42)()
	c, err := price(b.each, func(n int) error {
		for range n {
			if x, ok := v.Get(); !ok || x != 42 {
				return errors.New("a local variable has lost its value")
			}
		}
		return nil
	})
	b.put("local/get", c.ns)
	return err
}
