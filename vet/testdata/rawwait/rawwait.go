// Package rawwait has waits that the library cannot see.
package rawwait

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

func channels(ctx context.Context, in <-chan int, out chan<- int) {
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		out <- 1       // want `the thread does not serve during a send on a channel: use task.Await, or wait in async code`
		for range in { // want `the thread does not serve during a range over a channel`
		}
		select { // want `the thread does not serve during a select`
		case <-in:
		case out <- 1:
		}
		select {
		case <-in:
		default:
		}
		return <-in, nil // want `the thread does not serve during a receive from a channel: use task.Recv, or wait in async code`
	})
}

func done(ctx context.Context, t *task.Task[int]) {
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		<-t.Done() // want `the thread does not serve during a receive from Task.Done: call Task.Wait`
		select {   // want `a select: call Task.Wait`
		case <-t.Done():
		case <-ctx.Done():
		}
		return t.Wait(ctx)
	})
}

func groups(ctx context.Context) {
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		var wg sync.WaitGroup
		wg.Go(func() { helper(ctx) })
		wg.Wait() // want `during the Wait of a sync.WaitGroup: start a task.Group instead`
		g, gctx := errgroup.WithContext(ctx)
		g.Go(func() error { return helper(gctx) })
		return 0, g.Wait() // want `during the Wait of an errgroup.Group: start a task.Group instead`
	})
}

func helper(ctx context.Context) error {
	_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 1, nil })
	return err
}

// What has no ctx and nothing of the library cannot come to need the thread.
func harmless(ctx context.Context, parts []string) {
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		var wg sync.WaitGroup
		sums := make([]int, len(parts))
		for i, part := range parts {
			wg.Go(func() { sums[i] = sum(part) })
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			sum("")
		}()
		wg.Wait()
		n := make(chan int)
		go func() { n <- sum("x") }()
		total := <-n
		results := make(chan int)
		go produce(results)
		for m := range results {
			total += m
		}
		var g errgroup.Group
		g.Go(func() error { sum("x"); return nil })
		return total, g.Wait()
	})
}

// With a callback that came from elsewhere that is not known.
func callback(ctx context.Context, f func() int) {
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		n := make(chan int)
		go func() { n <- f() }()
		return <-n, nil // want `a receive from a channel`
	})
}

// A ctx may come from anywhere.
func background(ctx context.Context) {
	_, _ = asyncsync.ToThread(ctx, func(context.Context) (int, error) {
		n := make(chan error)
		go func() { n <- helper(context.Background()) }()
		return 0, <-n // want `a receive from a channel`
	})
}

// Nor where the channel gets about.
func about(ctx context.Context, keep func(chan int)) {
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		n := make(chan int)
		go func() { n <- 1 }()
		keep(n)
		return <-n, nil // want `a receive from a channel`
	})
}

func sum(s string) int       { return len(s) }
func produce(out chan<- int) { close(out) }

// Timers end by themselves, a ctx is ended by others: the thread is not needed.
func timers(ctx context.Context, tick *time.Ticker) {
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		time.Sleep(time.Millisecond)
		<-time.After(time.Millisecond)
		<-tick.C
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
		<-ctx.Done()
		return 0, nil
	})
}

// A buffer is for not waiting.
func buffered(ctx context.Context) {
	n := make(chan int, 1)
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		n <- 1
		return 0, nil
	})
	<-n
}

// Such functions are meant to keep their thread.
func longRunning(ctx context.Context, events <-chan int) {
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		for {
			select {
			case <-events:
			case <-ctx.Done():
				return 0, nil
			}
		}
	}, asyncsync.LongRunning())
}

// Async code waits as it likes, and so do goroutines.
func async(ctx context.Context, in <-chan int) {
	<-in
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		go func() { <-in }()
		return asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) {
			return <-in, nil
		})
	})
	task.Go(ctx, func(context.Context) (int, error) { return <-in, nil })
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		return <-in, nil
	}, asyncsync.Insensitive())
}

// Await and Recv are what the cure is.
func cured(ctx context.Context, in <-chan int, b loop.Backend) {
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		if _, _, err := task.Recv(ctx, in); err != nil {
			return 0, err
		}
		return task.Await(ctx, func(context.Context) (int, error) { return <-in, nil })
	})
}

// With SameThread async code is on the thread.
func sameThread(ctx context.Context, in <-chan int) {
	_, _ = asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) {
		return <-in, nil // want `a receive from a channel`
	}, asyncsync.SameThread())
}

// With options that are not known nobody knows.
func options(ctx context.Context, in <-chan int, opts ...asyncsync.Option) {
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		return <-in, nil
	}, opts...)
}

type conn struct{ ready chan struct{} }

// A method that is given away, a handle, and what opens it.
func (c *conn) load(ctx context.Context) (int, error) {
	<-c.ready // want `a receive from a channel`
	return 0, nil
}

func methods(ctx context.Context, c *conn, h *asyncsync.Handle[*conn]) {
	_, _ = asyncsync.ToThread(ctx, c.load)
	_ = h.Do(ctx, func(_ context.Context, c *conn) error {
		func() {
			<-c.ready // want `a receive from a channel`
		}()
		wait := func() { <-c.ready } // want `a receive from a channel`
		wait()
		return nil
	})
	_, _ = asyncsync.Open(ctx, func(context.Context) (*conn, error) { return c, nil }, func(c *conn) error {
		<-c.ready // want `a receive from a channel`
		return nil
	})
}

// In a context the function is where it was.
func inside(ctx context.Context, in <-chan int) {
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		return 0, asyncsync.WithThreadSensitiveContext(ctx, func(ctx context.Context) error {
			<-in // want `a receive from a channel`
			return nil
		})
	})
	_ = asyncsync.WithThreadSensitiveContext(ctx, func(ctx context.Context) error {
		<-in
		return nil
	})
}

func loops(ctx context.Context, in <-chan int, any loop.Backend) {
	b := loop.NewThread()
	_, _ = loop.Run(ctx, b, func(ctx context.Context) (int, error) {
		time.Sleep(time.Second) // want `time.Sleep blocks the loop and all its tasks: use task.Sleep, or wait through the library`
		_ = b.Spawn(ctx, func(ctx context.Context) {
			<-in // want `a receive from a channel blocks the loop`
		})
		return 0, b.Post(func() {
			<-in // want `a receive from a channel blocks the loop`
		})
	})
	g := loop.Goroutines()
	_, _ = loop.Run(ctx, g, func(ctx context.Context) (int, error) {
		_ = any.Spawn(ctx, func(ctx context.Context) { <-in })
		return <-in, nil
	})
}

// hold hands fn on to a thread.
func hold(ctx context.Context, fn func()) {
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		fn()
		return 0, nil
	})
}

func handedOn(ctx context.Context, in <-chan int) {
	hold(ctx, func() {
		<-in // want `a receive from a channel`
	})
	hold(ctx, func() {
		//asyncsync:ignore rawwait whoever sends needs no thread
		<-in
	})
}

// Timers and the end of a ctx add nobody to what a select waits for.
func selects(ctx context.Context, in <-chan int) {
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		n, m := make(chan int), make(chan int)
		go func() { n <- sum("x") }()
		go func() { m <- sum("y") }()
		select {
		case <-n:
		case <-time.After(time.Second):
		}
		select {
		case <-ctx.Done():
		case <-n:
		case <-time.After(time.Second):
		}
		select { // want `during a select`
		case <-n:
		case <-m:
		}
		select { // want `during a select`
		case <-ctx.Done():
		case <-in:
		}
		select { // want `during a select`
		case <-n:
		case <-ctx.Done():
		case <-in:
		}
		c := make(chan error)
		go func() { c <- helper(ctx) }()
		select { // want `during a select`
		case <-c:
		case <-ctx.Done():
		}
		return 0, nil
	})
}
