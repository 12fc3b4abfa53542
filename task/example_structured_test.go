package task_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// Three look-ups at the same time, and their results in order.
func ExampleGather() {
	lookUp := func(name string, d time.Duration) func(context.Context) (string, error) {
		return func(ctx context.Context) (string, error) { return "address of " + name, task.Sleep(ctx, d) }
	}
	addresses, err := task.Gather(context.Background(),
		lookUp("a", 20*time.Millisecond), lookUp("b", 0), lookUp("c", 10*time.Millisecond))
	for _, a := range addresses {
		fmt.Println(a)
	}
	fmt.Println(err)
	// Output:
	// address of a
	// address of b
	// address of c
	// <nil>
}

// A server is started, and used when it is ready.
func ExampleStart() {
	ctx := context.Background()
	server, port, err := task.Start(ctx, func(ctx context.Context, started func(int) error) (string, error) {
		if err := started(8080); err != nil { // it listens now
			return "", err
		}
		<-ctx.Done()
		return "served", nil
	})
	fmt.Println(port, err)
	server.Cancel(nil)
	fmt.Println(server.Wait(ctx))
	// Output:
	// 8080 <nil>
	// served <nil>
}

// What takes too long is given up on, and that is no error.
func ExampleMoveOn() {
	moved, err := task.MoveOn(context.Background(), time.Millisecond, func(ctx context.Context) error {
		return task.Sleep(ctx, time.Hour)
	})
	fmt.Println(moved, err)
	// Output: true <nil>
}

// Here it is an error, and one can tell whose time was over.
func ExampleTimeout() {
	err := task.Timeout(context.Background(), time.Millisecond, func(ctx context.Context) error {
		inner := task.Timeout(ctx, time.Hour, task.SleepForever)
		fmt.Println("inner:", errors.Is(inner, task.ErrTimeout))
		return inner
	})
	fmt.Println("outer:", errors.Is(err, task.ErrTimeout), errors.Is(err, context.DeadlineExceeded))
	// Output:
	// inner: false
	// outer: true true
}

// Anybody who has a scope may cancel it. Its Close forgives the errors that come of that.
func ExampleOpenScope() {
	ctx, scope := task.OpenScope(context.Background())
	worker := task.Go(ctx, func(ctx context.Context) (int, error) {
		return 0, task.SleepForever(ctx)
	})
	scope.Cancel(errors.New("enough"))
	_, err := worker.Wait(context.Background())
	fmt.Println("worker:", err)
	fmt.Println("scope:", scope.Close(err), scope.CancelledCaught())
	// Output:
	// worker: task: scope cancelled: enough
	// scope: <nil> true
}

// Clean-up runs to its end although ctx has ended.
func ExampleShield() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	how, err := task.Shield(ctx, func(ctx context.Context) (string, error) {
		return "said goodbye", task.Sleep(ctx, time.Millisecond)
	})
	fmt.Println(how, err)
	fmt.Println(task.Yield(ctx))
	// Output:
	// said goodbye <nil>
	// context canceled
}

// On a thread loop what blocks goes to a goroutine, and the other tasks go on.
func ExampleAwait() {
	b := loop.NewThread()
	text, err := loop.Run(context.Background(), b, func(ctx context.Context) (string, error) {
		asked := make(chan struct{})
		if err := b.Spawn(ctx, func(context.Context) { close(asked) }); err != nil {
			return "", err
		}
		return task.Await(ctx, func(context.Context) (string, error) {
			<-asked // blocks its goroutine, not the loop
			return "read", nil
		})
	})
	fmt.Println(text, err)
	// Output: read <nil>
}

// A task of a thread loop receives from a goroutine.
func ExampleRecv() {
	lines := make(chan string)
	go func() {
		defer close(lines)
		lines <- "one"
		lines <- "two"
	}()
	_, err := loop.Run(context.Background(), loop.NewThread(), func(ctx context.Context) (int, error) {
		for {
			line, ok, err := task.Recv(ctx, lines)
			if err != nil || !ok {
				return 0, err
			}
			fmt.Println(line)
		}
	})
	fmt.Println(err)
	// Output:
	// one
	// two
	// <nil>
}

// Tasks take turns, and a wait has a ctx.
func ExampleMutex() {
	ctx := context.Background()
	var m task.Mutex
	balance := 0
	gctx, g := task.NewGroup(ctx)
	for range 10 {
		g.Go(func(ctx context.Context) error {
			if err := m.Lock(ctx); err != nil {
				return err
			}
			defer m.Unlock()
			before := balance
			if err := task.Yield(ctx); err != nil { // others run, but not here
				return err
			}
			balance = before + 1
			return nil
		})
	}
	fmt.Println(g.Wait(gctx), balance)
	// Output: <nil> 10
}

// A queue: who takes waits until there is something.
func ExampleCond() {
	ctx := context.Background()
	var m task.Mutex
	filled := task.NewCond(&m)
	var queue []int

	taker := task.Go(ctx, func(ctx context.Context) (int, error) {
		if err := m.Lock(ctx); err != nil {
			return 0, err
		}
		defer m.Unlock()
		for len(queue) == 0 {
			if err := filled.Wait(ctx); err != nil {
				return 0, err // and the mutex is locked
			}
		}
		return queue[0], nil
	})

	if err := m.Lock(ctx); err == nil {
		queue = append(queue, 7)
		filled.Signal(1)
		m.Unlock()
	}
	fmt.Println(taker.Wait(ctx))
	// Output: 7 <nil>
}

// Anybody may wait, and anybody may set it.
func ExampleEvent() {
	ctx := context.Background()
	var ready task.Event
	t := task.Go(ctx, func(ctx context.Context) (string, error) {
		return "went on", ready.Wait(ctx)
	})
	ready.Set()
	fmt.Println(t.Wait(ctx))
	fmt.Println(ready.IsSet(), ready.Wait(ctx))
	// Output:
	// went on <nil>
	// true <nil>
}

// A task knows who it is.
func ExampleCurrent() {
	name, err := task.Go(context.Background(), func(ctx context.Context) (string, error) {
		return task.Current(ctx).Name, nil
	}, task.Named("indexer")).Wait(context.Background())
	fmt.Println(name, err)
	// Output: indexer <nil>
}
