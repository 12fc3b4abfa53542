package loop_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"asyncsync.dev/loop"
)

// A channel and a goroutine that drains it make a Poster.
func ExamplePosterFunc() {
	queue := make(chan func(), 8)
	p := loop.PosterFunc(func(fn func()) error {
		queue <- fn
		return nil
	})

	for i := range 3 {
		if err := p.Post(func() { fmt.Println("posted", i) }); err != nil {
			fmt.Println(err)
		}
	}
	close(queue)
	for fn := range queue {
		fn()
	}
	// Output:
	// posted 0
	// posted 1
	// posted 2
}

// Tasks of a thread loop share a map without a lock: one runs at a time, and they
// take turns only where one of them waits.
func ExampleNewThread() {
	b := loop.NewThread()
	total, err := loop.Run(context.Background(), b, func(ctx context.Context) (int, error) {
		counts := map[string]int{}
		for _, name := range []string{"a", "b", "a", "c", "a"} {
			// Each Call is a task; main parks until it has ended.
			_, err := loop.Call(ctx, b, func(context.Context) (int, error) {
				counts[name]++
				return 0, nil
			})
			if err != nil {
				return 0, err
			}
		}
		return counts["a"], nil
	})
	fmt.Println(total, err)
	// Output: 3 <nil>
}

// Park is what every wait of a task is made of: here one for a timer. The loop runs
// others meanwhile.
func ExampleBackend_park() {
	b := loop.NewThread()
	sleep := func(ctx context.Context, d time.Duration) error {
		var timer *time.Timer
		defer func() { timer.Stop() }()
		return b.Park(ctx, func(wake func()) { timer = time.AfterFunc(d, wake) })
	}
	_, err := loop.Run(context.Background(), b, func(ctx context.Context) (int, error) {
		err := b.Spawn(ctx, func(context.Context) { fmt.Println("meanwhile") })
		if err != nil {
			return 0, err
		}
		return 0, sleep(ctx, 10*time.Millisecond)
	})
	fmt.Println("slept", err)
	// Output:
	// meanwhile
	// slept <nil>
}

// When main returns the tasks that run are cancelled, and waited for.
func ExampleRun() {
	b := loop.Goroutines()
	n, err := loop.Run(context.Background(), b, func(ctx context.Context) (int, error) {
		begun := make(chan struct{})
		err := b.Spawn(ctx, func(ctx context.Context) {
			close(begun)
			<-ctx.Done()
			fmt.Println("task:", context.Cause(ctx))
		})
		<-begun
		return 7, err
	})
	fmt.Println("main:", n, err)
	fmt.Println("later:", b.Post(func() {}))
	// Output:
	// task: loop: stopped
	// main: 7 <nil>
	// later: loop: stopped
}

// Any goroutine can call a loop. What the function does to its caller is what it
// would do if it were called directly.
func ExampleCall() {
	b := loop.NewThread(loop.Named("owner"))
	var callers sync.WaitGroup
	callers.Go(func() {
		n, err := loop.Call(context.Background(), b, func(ctx context.Context) (int, error) {
			on, _ := loop.Current(ctx)
			fmt.Println("on", on)
			return 7, nil
		})
		fmt.Println(n, err)
	})
	// The calls wait for Run.
	_, err := loop.Run(context.Background(), b, func(ctx context.Context) (int, error) {
		return 0, b.Park(ctx, func(wake func()) {
			go func() {
				callers.Wait()
				wake()
			}()
		})
	})
	fmt.Println(err)
	// Output:
	// on owner
	// 7 <nil>
	// <nil>
}

// A toolkit has a function that hands others to its main loop.
func ExampleFromPost() {
	queue, done := make(chan func(), 8), make(chan struct{})
	go func() { // the toolkit
		defer close(done)
		for fn := range queue {
			if fn == nil {
				return
			}
			fn()
		}
	}()
	post := func(fn func()) error {
		queue <- fn
		return nil
	}

	l := loop.FromPost(post, done)
	title, err := loop.Call(context.Background(), l, func(context.Context) (string, error) {
		return "on the toolkit's thread", nil
	})
	fmt.Println(title, err)

	queue <- nil // it quits
	<-l.Done()
	_, err = loop.Call(context.Background(), l, func(context.Context) (string, error) { return "", nil })
	fmt.Println(errors.Is(err, loop.ErrStopped))
	// Output:
	// on the toolkit's thread <nil>
	// true
}
