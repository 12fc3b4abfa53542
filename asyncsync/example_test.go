package asyncsync_test

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/task"
)

// A request handler is async code; the database may only be touched by one
// thread, one call at a time. Its transaction calls back into async code, which
// needs the database again: the thread that waits serves.
func Example() {
	balance := map[string]int{"ann": 10} // belongs to the thread

	read := asyncsync.SyncToAsync(func(_ context.Context, name string) (int, error) {
		return balance[name], nil
	})
	notify := asyncsync.AsyncToSync(func(ctx context.Context, name string) (string, error) {
		n, err := read(ctx, name) // back on the thread, on top of deposit
		return fmt.Sprintf("%s has %d", name, n), err
	})
	deposit := asyncsync.SyncToAsync(func(ctx context.Context, name string) (string, error) {
		balance[name] += 5
		return notify(ctx, name)
	})

	err := asyncsync.WithThreadSensitiveContext(context.Background(), func(ctx context.Context) error {
		message, err := deposit(ctx, "ann")
		fmt.Println(message)
		return err
	})
	fmt.Println(err)
	// Output:
	// ann has 15
	// <nil>
}

// Many calls ahead of the first wait: the thread is woken once for all.
func ExampleGo() {
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
	defer tsc.Close()
	sum := 0 // of the thread
	var adds []*task.Task[int]
	for n := range 5 {
		adds = append(adds, asyncsync.Go(ctx, func(context.Context) (int, error) {
			sum += n
			return sum, nil
		}))
	}
	for _, add := range adds {
		fmt.Println(add.Wait(ctx))
	}
	// Output:
	// 0 <nil>
	// 1 <nil>
	// 3 <nil>
	// 6 <nil>
	// 10 <nil>
}

// Many goroutines, one thread: counter needs no lock.
func ExampleSyncToAsync() {
	counter := 0
	add := asyncsync.SyncToAsync(func(_ context.Context, n int) (int, error) {
		counter += n
		return counter, nil
	})

	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
	defer tsc.Close()
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() { add(ctx, 1) })
	}
	all.Wait()
	fmt.Println(add(ctx, 0))
	// Output: 10 <nil>
}

// A function that ends by itself and one whose ctx ended before it began.
func ExampleToThread() {
	ctx, cancel := context.WithCancelCause(context.Background())
	v, err := asyncsync.ToThread(ctx, func(context.Context) (string, error) { return "on the thread", nil })
	fmt.Println(v, err)

	cancel(errors.New("never mind"))
	_, err = asyncsync.ToThread(ctx, func(context.Context) (string, error) { return "not run", nil })
	fmt.Println(err)
	// Output:
	// on the thread <nil>
	// never mind
}

// The goroutine that calls becomes the thread for everything below, to any
// depth.
func ExampleAsyncToSync() {
	var trail []string // only touched on the thread: the caller's goroutine

	var visit asyncsync.Func[int, string]
	step := asyncsync.SyncToAsync(func(ctx context.Context, depth int) (string, error) {
		trail = append(trail, fmt.Sprint("sync ", depth))
		if depth == 0 {
			return "bottom", nil
		}
		return visit(ctx, depth-1)
	})
	visit = asyncsync.AsyncToSync(func(ctx context.Context, depth int) (string, error) {
		return step(ctx, depth)
	})

	got, err := visit(context.Background(), 2)
	fmt.Println(got, err)
	fmt.Println(trail)
	// Output:
	// bottom <nil>
	// [sync 2 sync 1 sync 0]
}

// Two requests, each with a thread of its own.
func ExampleWithThreadSensitiveContext() {
	request := func(name string) error {
		return asyncsync.WithThreadSensitiveContext(context.Background(), func(ctx context.Context) error {
			open := 0 // this request's own
			for range 3 {
				if _, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) { open++; return open, nil }); err != nil {
					return err
				}
			}
			fmt.Println(name, open)
			return nil
		}, asyncsync.WithName(name))
	}
	fmt.Println(request("first"), request("second"))
	// Output:
	// first 3
	// second 3
	// <nil> <nil>
}

// A connection that only the thread which opened it may use.
func ExampleHandle() {
	type conn struct{ queries int }

	h, err := asyncsync.Open(context.Background(),
		func(context.Context) (*conn, error) { return &conn{}, nil },
		func(c *conn) error { fmt.Println("closed after", c.queries, "queries"); return nil })
	if err != nil {
		panic(err)
	}
	for range 2 {
		err := h.Do(context.Background(), func(_ context.Context, c *conn) error { c.queries++; return nil })
		if err != nil {
			panic(err)
		}
	}
	n, err := asyncsync.Get(context.Background(), h, func(_ context.Context, c *conn) (int, error) { return c.queries, nil })
	fmt.Println(n, err)

	_, err = h.Value()
	fmt.Println(errors.Is(err, asyncsync.ErrWrongThread))
	fmt.Println(h.Close())
	// Output:
	// 2 <nil>
	// true
	// closed after 2 queries
	// <nil>
}

// An owner of a thread, such as a GUI's main function, runs what others send.
func ExampleCurrentThreadExecutor() {
	executor := asyncsync.NewCurrentThreadExecutor()
	done := make(chan struct{})
	window := "untitled" // the owner's

	go func() {
		defer close(done)
		title, err := asyncsync.ToThread(context.Background(), func(context.Context) (string, error) {
			window = "a title"
			return window, nil
		}, asyncsync.Insensitive(), asyncsync.WithExecutor(executor))
		fmt.Println(title, err)
	}()
	fmt.Println(executor.RunUntil(done))
	fmt.Println(window)
	// Output:
	// a title <nil>
	// <nil>
	// a title
}

// Work that goes on when the request is over, and must not run inside it: it
// gets a context of its own.
func ExampleDetach() {
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
	background, own := asyncsync.NewThreadSensitiveContext(asyncsync.Detach(ctx))
	mail := task.Go(background, func(ctx context.Context) (string, error) {
		return asyncsync.ToThread(ctx, func(context.Context) (string, error) { return "sent", nil })
	})
	fmt.Println(tsc.Close())
	fmt.Println(mail.Wait(context.Background()))
	fmt.Println(own.Close())
	// Output:
	// <nil>
	// sent <nil>
	// <nil>
}

// Counting what fails.
func ExampleSetHooks() {
	var mu sync.Mutex
	failures := map[string]int{}
	restore := asyncsync.SetHooks(asyncsync.Hooks{
		Ended: func(i asyncsync.CallInfo) {
			if i.Err != nil {
				mu.Lock()
				failures[i.Name]++
				mu.Unlock()
			}
		},
	})
	defer restore()

	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
	defer tsc.Close()
	for n := range 5 {
		asyncsync.ToThread(ctx, func(context.Context) (int, error) {
			if n%2 == 0 {
				return 0, errors.New("even")
			}
			return n, nil
		}, asyncsync.Named("odd only"))
	}
	fmt.Println(failures)
	// Output: map[odd only:3]
}

// A call with IfFree is made only if the thread is free, as with TryLock.
func ExampleIfFree() {
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("cache"))
	defer tsc.Close()
	refresh := asyncsync.SyncToAsync(func(context.Context, string) (string, error) {
		return "refreshed", nil
	}, asyncsync.IfFree(), asyncsync.Named("refresh"))

	busy, leave := make(chan struct{}), make(chan struct{})
	t := task.Go(ctx, func(ctx context.Context) (string, error) {
		return asyncsync.ToThread(ctx, func(context.Context) (string, error) {
			close(busy)
			<-leave
			return "done", nil
		})
	})
	<-busy
	_, err := refresh(ctx, "")
	fmt.Println(errors.Is(err, asyncsync.ErrQueueFull), err)
	close(leave)
	fmt.Println(t.Wait(ctx))
	fmt.Println(refresh(ctx, ""))
	// Output:
	// true asyncsync: the thread is not free: call of refresh to context "cache"
	// done <nil>
	// refreshed <nil>
}

// Hooks that are added stand beside those of others.
func ExampleAddHooks() {
	remove := asyncsync.AddHooks(asyncsync.Hooks{
		Ended: func(i asyncsync.CallInfo) { fmt.Println(i.Name, "in", i.Context, i.Err) },
	})
	defer remove()
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("shop"))
	defer tsc.Close()
	asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 1, nil }, asyncsync.Named("order"))
	// Output:
	// order in shop <nil>
}

// Async functions that need one thread, called from sync code. They may wait for
// each other, for each is a task, and need no lock, for all are on one thread.
func ExampleNewAsyncSingleThreadContext() {
	ctx, single := asyncsync.NewAsyncSingleThreadContext(context.Background())
	defer single.Close()
	total := 0
	add := func(n int) {
		_, err := asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) {
			total += n
			return total, nil
		})
		if err != nil {
			fmt.Println(err)
		}
	}
	var all sync.WaitGroup
	for n := range 5 {
		all.Go(func() { add(n) })
	}
	all.Wait()
	fmt.Println(total)
	// Output: 10
}

// Values outlive the requests that use them, each on its thread.
func ExampleHandlePool() {
	type conn struct{ uses int }
	pool := asyncsync.NewHandlePool(asyncsync.HandlePoolConfig[*conn]{
		Open:  func(context.Context) (*conn, error) { fmt.Println("opened"); return &conn{}, nil },
		Close: func(c *conn) error { fmt.Println("closed after", c.uses, "uses"); return nil },
		Max:   4,
	}, asyncsync.WithName("db"))
	request := func(ctx context.Context) error {
		lease, err := pool.Acquire(ctx) // one value for all of the request
		if err != nil {
			return err
		}
		defer lease.Release()
		ctx = lease.Context()
		for range 2 {
			if err := pool.Do(ctx, func(_ context.Context, c *conn) error { c.uses++; return nil }); err != nil {
				return err
			}
		}
		return nil
	}
	fmt.Println(request(context.Background()), request(context.Background()))
	fmt.Println(pool.Close())
	// Output:
	// opened
	// <nil> <nil>
	// closed after 4 uses
	// <nil>
}
