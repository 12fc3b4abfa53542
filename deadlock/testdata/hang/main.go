//go:build cgo

// Command hang is a process that hangs in the way that its argument says, and is
// watched. With cgo and a ticker the runtime of Go does not notice.
//
// It exits with status 3, and on standard error the verdict of the watcher, or
// the error of the wait that was refused. If there is neither, it hangs.
package main

// static int one(void) { return 1; }
import "C"

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/task"
)

var cases = map[string]func(context.Context, *asyncsync.ThreadSensitiveContext) error{
	"rawchannel":   rawChannel,
	"waitgroup":    waitGroup,
	"mutex":        mutex,
	"nested-raw":   nestedRaw,
	"slow":         slow,
	"wrong-ctx":    wrongCtx,
	"two-threads":  twoThreads,
	"serve-none":   serveNone,
	"full-pool":    fullPool,
	"limiter":      limiter,
	"self-wait":    selfWait,
	"group-member": groupMember,
	"shutdown":     shutdown,

	"nested-async":       nestedAsync,
	"outer-ctx":          outerCtx,
	"shutdown-goroutine": shutdownGoroutine,
	"pool-close":         poolClose,
	"serve-all":          serveAll,
	"open-and-idle":      openAndIdle,
	"tokens":             tokens,
}

func main() {
	hang := cases[os.Args[1]]
	if hang == nil || C.one() != 1 {
		fmt.Fprintf(os.Stderr, "hang: no case %q\n", os.Args[1])
		os.Exit(2)
	}
	go func() {
		for range time.NewTicker(100 * time.Millisecond).C {
		}
	}()
	cfg := deadlock.Config{
		Interval: 100 * time.Millisecond,
		OnVerdict: func(v deadlock.Verdict) {
			fmt.Fprint(os.Stderr, v)
			os.Exit(3)
		},
	}
	if os.Args[1] == "slow" || os.Args[1] == "open-and-idle" {
		cfg.Slow = 200 * time.Millisecond
	}
	deadlock.Watch(cfg)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("worker"))
	err := hang(ctx, tsc)
	if e := (*deadlock.Error)(nil); errors.As(err, &e) {
		fmt.Fprintln(os.Stderr, e.Details())
		os.Exit(3)
	}
	fmt.Fprintln(os.Stderr, "hang: it has ended:", err)
	os.Exit(1)
}

// on calls fn, which is called name, on the thread.
func on(ctx context.Context, name string, fn func(context.Context) error, opts ...asyncsync.Option) error {
	settle()
	_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) { return 0, fn(ctx) }, append(opts, asyncsync.Named(name))...)
	return err
}

// off calls the async function fn, which is called name.
func off(ctx context.Context, name string, fn func(context.Context) error) error {
	settle()
	_, err := asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) { return 0, fn(ctx) }, asyncsync.Named(name))
	return err
}

func nothing(context.Context) error { return nil }

// settle waits until all who wait for functions that run on threads sleep, and the threads
// that wait, too. One that finds something to do before it has slept has no age, and a
// report says less of it.
func settle() {
	for slices.ContainsFunc(deadlock.Take().Threads, func(t deadlock.Thread) bool {
		if len(t.Stack) == 0 {
			return false
		}
		top := t.Stack[0]
		return top.Caller != 0 && top.Waited < 0 || top.Wait != nil && top.Wait.Age < 0
	}) {
		runtime.Gosched()
	}
}

// await waits until a call is queued behind what runs on a thread.
func await(tsc *asyncsync.ThreadSensitiveContext) {
	for tsc.Stats().Queued == 0 {
		runtime.Gosched()
	}
}

// rawChannel waits on a channel, on the thread, for a goroutine that calls the
// thread.
func rawChannel(ctx context.Context, _ *asyncsync.ThreadSensitiveContext) error {
	_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		result := make(chan int)
		go send(ctx, result)
		return <-result, nil
	}, asyncsync.Named("first"))
	return err
}

func send(ctx context.Context, result chan<- int) {
	v, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 1, nil }, asyncsync.Named("second"))
	if err != nil {
		panic(err)
	}
	result <- v
}

// waitGroup waits for a group of goroutines that call the thread.
func waitGroup(ctx context.Context, _ *asyncsync.ThreadSensitiveContext) error {
	return on(ctx, "first", func(ctx context.Context) error {
		var wg sync.WaitGroup
		wg.Add(1)
		go func() {
			defer wg.Done()
			on(ctx, "second", nothing)
		}()
		wg.Wait()
		return nil
	})
}

// mutex waits for a lock that somebody holds who calls the thread.
func mutex(ctx context.Context, _ *asyncsync.ThreadSensitiveContext) error {
	return on(ctx, "first", func(ctx context.Context) error {
		var mu sync.Mutex
		mu.Lock()
		go func() {
			defer mu.Unlock()
			on(ctx, "second", nothing)
		}()
		mu.Lock()
		defer mu.Unlock()
		return nil
	})
}

// nestedRaw waits on a channel for a goroutine that calls another thread, from
// where the first one is called.
func nestedRaw(ctx context.Context, worker *asyncsync.ThreadSensitiveContext) error {
	_, other := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("other"))
	return on(ctx, "first", func(ctx context.Context) error {
		result := make(chan error)
		go func() {
			result <- on(ctx, "second", func(ctx context.Context) error {
				return on(ctx, "third", nothing, asyncsync.On(worker))
			}, asyncsync.On(other))
		}()
		return <-result
	})
}

// slow takes long, while others wait.
func slow(ctx context.Context, _ *asyncsync.ThreadSensitiveContext) error {
	begun := make(chan struct{})
	go func() {
		<-begun
		on(ctx, "behind", nothing)
	}()
	return on(ctx, "first", func(context.Context) error {
		close(begun)
		select {}
	})
}

// wrongCtx calls the thread that waits for it with a ctx from outside.
func wrongCtx(outer context.Context, _ *asyncsync.ThreadSensitiveContext) error {
	return on(outer, "first", func(ctx context.Context) error {
		return off(ctx, "fetch", func(context.Context) error { return on(outer, "second", nothing) })
	})
}

// twoThreads call each other.
func twoThreads(ctx context.Context, worker *asyncsync.ThreadSensitiveContext) error {
	ctx2, other := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("other"))
	begun := make(chan struct{})
	go func() {
		<-begun
		on(ctx, "there", func(ctx context.Context) error { return on(ctx, "second", nothing, asyncsync.On(other)) })
	}()
	return on(ctx2, "back", func(ctx context.Context) error {
		close(begun)
		await(other)
		return on(ctx, "first", nothing, asyncsync.On(worker))
	})
}

// serveNone calls a thread that serves nobody from below it.
func serveNone(context.Context, *asyncsync.ThreadSensitiveContext) error {
	ctx, _ := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("alone"), asyncsync.Serve(asyncsync.None))
	return on(ctx, "first", func(ctx context.Context) error {
		return off(ctx, "fetch", func(ctx context.Context) error { return on(ctx, "second", nothing) })
	})
}

// fullPool wants a second thread of a pool that has one.
func fullPool(context.Context, *asyncsync.ThreadSensitiveContext) error {
	p := asyncsync.WithPool(asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 1}))
	ctx, _ := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("holder"), p)
	_, second := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("in line"), p)
	return on(ctx, "first", func(ctx context.Context) error {
		return off(ctx, "fetch", func(ctx context.Context) error {
			return on(asyncsync.Detach(ctx), "second", nothing, asyncsync.On(second))
		})
	})
}

// limiter is a limited function that takes a second token itself, of a limiter
// that has one.
func limiter(ctx context.Context, _ *asyncsync.ThreadSensitiveContext) error {
	l := task.NewLimiter(1)
	_, err := task.Go(ctx, func(ctx context.Context) (int, error) {
		return 0, on(ctx, "first", func(ctx context.Context) error {
			if err := l.Acquire(ctx); err != nil {
				return err
			}
			l.Release()
			return nil
		}, asyncsync.Insensitive(), asyncsync.WithLimiter(l))
	}).Wait(ctx)
	return err
}

// tokens are two tasks that take two of two tokens, one by one.
func tokens(ctx context.Context, _ *asyncsync.ThreadSensitiveContext) error {
	l := task.NewLimiter(2)
	var taken sync.WaitGroup
	taken.Add(2)
	both := func(ctx context.Context) error {
		if err := l.Acquire(ctx); err != nil {
			return err
		}
		taken.Done()
		taken.Wait()
		return l.Acquire(ctx)
	}
	ctx, g := task.NewGroup(ctx)
	g.Go(both, task.Named("taker"))
	g.Go(both, task.Named("taker"))
	return g.Wait(ctx)
}

// selfWait is a task that waits for itself, on a thread.
func selfWait(ctx context.Context, _ *asyncsync.ThreadSensitiveContext) error {
	self := make(chan *task.Task[int], 1)
	t := task.Go(ctx, func(ctx context.Context) (int, error) {
		return 0, on(ctx, "first", func(ctx context.Context) error {
			_, err := (<-self).Wait(ctx)
			return err
		})
	})
	self <- t
	_, err := t.Wait(ctx)
	return err
}

// groupMember waits for the group that it belongs to.
func groupMember(ctx context.Context, _ *asyncsync.ThreadSensitiveContext) error {
	ctx, g := task.NewGroup(ctx)
	g.Go(func(ctx context.Context) error { return g.Wait(ctx) })
	return g.Wait(ctx)
}

// shutdown waits for the function that it is called from.
func shutdown(ctx context.Context, worker *asyncsync.ThreadSensitiveContext) error {
	return on(ctx, "first", func(ctx context.Context) error { return worker.Shutdown(ctx) })
}

// nestedAsync waits, on top of a nesting, for an async function that waits on a
// channel for a call that nobody serves.
func nestedAsync(ctx context.Context, _ *asyncsync.ThreadSensitiveContext) error {
	return on(ctx, "outer", func(ctx context.Context) error {
		return off(ctx, "between", func(ctx context.Context) error {
			return on(ctx, "first", func(ctx context.Context) error {
				result := make(chan int)
				asyncsync.Go(ctx, func(context.Context) (int, error) { result <- 1; return 0, nil }, asyncsync.Named("second"))
				return off(ctx, "fetch", func(context.Context) error { <-result; return nil })
			})
		})
	})
}

// outerCtx waits for a goroutine that calls the thread with a ctx from outside.
func outerCtx(outer context.Context, _ *asyncsync.ThreadSensitiveContext) error {
	return on(outer, "first", func(context.Context) error {
		var wg sync.WaitGroup
		wg.Go(func() { on(outer, "second", nothing) })
		wg.Wait()
		return nil
	})
}

// shutdownGoroutine waits for a goroutine that waits for the end of the context.
func shutdownGoroutine(ctx context.Context, worker *asyncsync.ThreadSensitiveContext) error {
	return on(ctx, "first", func(ctx context.Context) error {
		done := make(chan error)
		go func() { done <- worker.Shutdown(context.Background()) }()
		return <-done
	})
}

// poolClose shuts down the pool that the thread belongs to.
func poolClose(context.Context, *asyncsync.ThreadSensitiveContext) error {
	p := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{})
	ctx, _ := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("pooled"), asyncsync.WithPool(p))
	return on(ctx, "first", func(ctx context.Context) error {
		return off(ctx, "stop", func(ctx context.Context) error { return p.Shutdown(ctx) })
	})
}

// serveAll waits on top of a function for the task that waits for that.
func serveAll(context.Context, *asyncsync.ThreadSensitiveContext) error {
	ctx, _ := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("gui"), asyncsync.Serve(asyncsync.All))
	begun, end := make(chan struct{}), make(chan struct{})
	load := task.Go(ctx, func(ctx context.Context) (int, error) {
		return 0, on(ctx, "first", func(ctx context.Context) error {
			return off(ctx, "fetch", func(context.Context) error { close(begun); <-end; return nil })
		})
	}, task.Named("load"))
	<-begun
	return on(ctx, "second", func(ctx context.Context) error {
		_, err := load.Wait(ctx)
		return err
	})
}

// openAndIdle wants a third thread of a pool that has two, of contexts that were
// not closed.
func openAndIdle(context.Context, *asyncsync.ThreadSensitiveContext) error {
	p := asyncsync.WithPool(asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 2}))
	var kept []*asyncsync.ThreadSensitiveContext
	for range 3 {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), p)
		kept = append(kept, tsc) // nor dropped
		if err := on(ctx, "query", nothing); err != nil {
			return err
		}
	}
	runtime.KeepAlive(kept)
	return nil
}
