package task_test

import (
	"context"
	"errors"
	"fmt"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// A task runs beside its starter and is waited for when its result is needed.
func ExampleGo() {
	ctx := context.Background()

	sum := task.Go(ctx, func(context.Context) (int, error) {
		total := 0
		for i := range 101 {
			total += i
		}
		return total, nil
	})

	fmt.Println(sum.Wait(ctx))
	// Output: 5050 <nil>
}

// Sync code on a thread may wait for a task that needs the same thread: Wait
// goes on serving. A receive from Done would hang here.
func ExampleTask_Wait() {
	ctx, thread := asyncsync.NewThreadSensitiveContext(context.Background())
	defer thread.Close()

	opened := 0 // belongs to the thread, and needs no lock
	open := asyncsync.SyncToAsync(func(_ context.Context, name string) (string, error) {
		opened++
		return fmt.Sprintf("%s is handle %d", name, opened), nil
	})

	answer, err := asyncsync.ToThread(ctx, func(ctx context.Context) (string, error) {
		// On the thread.
		t := task.Go(ctx, func(ctx context.Context) (string, error) {
			// On another goroutine, and back to the thread from there.
			return open(ctx, "notes.db")
		})
		return t.Wait(ctx)
	})
	fmt.Println(answer, err)
	// Output: notes.db is handle 1 <nil>
}

// WaitOrCancel leaves nothing running: when its ctx ends it cancels the task
// and waits for what the task makes of that.
func ExampleTask_WaitOrCancel() {
	ctx, cancel := context.WithCancelCause(context.Background())

	download := task.Go(context.WithoutCancel(ctx), func(ctx context.Context) (string, error) {
		<-ctx.Done()
		return "half a file", context.Cause(ctx)
	})

	cancel(errors.New("the user has left"))
	fmt.Println(download.WaitOrCancel(ctx))
	fmt.Println(download.Cancelled())
	// Output:
	// half a file the user has left
	// true
}

// The first member to fail cancels the others; Wait waits for all of them and
// returns all their errors.
func ExampleGroup() {
	ctx, group := task.NewGroup(context.Background())

	group.Go(func(context.Context) error {
		return errors.New("disk full")
	})
	group.Go(func(ctx context.Context) error {
		<-ctx.Done()
		return fmt.Errorf("upload stopped: %w", context.Cause(ctx))
	})

	fmt.Println(group.Wait(context.Background()))
	fmt.Println(context.Cause(ctx))
	// Output:
	// disk full
	// upload stopped: disk full
	// disk full
}

// Members may start further members: here a walk over a tree, which is over
// when nobody has anything left to visit.
func ExampleGroup_Go() {
	tree := map[string][]string{"/": {"/etc", "/usr"}, "/usr": {"/usr/bin", "/usr/lib"}}
	ctx, group := task.NewGroup(context.Background())

	visited := make(chan string, 16)
	var visit func(dir string)
	visit = func(dir string) {
		group.Go(func(context.Context) error {
			visited <- dir
			for _, sub := range tree[dir] {
				visit(sub)
			}
			return nil
		})
	}
	visit("/")
	err := group.Wait(ctx)
	close(visited)
	for dir := range visited {
		fmt.Println(dir)
	}
	fmt.Println(err)
	// Unordered output:
	// /
	// /etc
	// /usr
	// /usr/bin
	// /usr/lib
	// <nil>
}

// Many tasks, of which two at a time do the expensive part.
func ExampleLimiter() {
	limiter := task.NewLimiter(2)
	ctx, group := task.NewGroup(context.Background())

	atATime := make(chan struct{}, 2) // room for two
	for range 20 {
		group.Go(func(ctx context.Context) error {
			if err := limiter.Acquire(ctx); err != nil {
				return err
			}
			defer limiter.Release()
			select {
			case atATime <- struct{}{}:
				<-atATime
				return nil
			default:
				return errors.New("more than two")
			}
		})
	}

	fmt.Println(group.Wait(ctx))
	stats := limiter.Stats()
	fmt.Println(stats.Total, stats.Used, stats.Waiting)
	// Output:
	// <nil>
	// 2 0 0
}

// TryAcquire is for those who have something better to do than wait.
func ExampleLimiter_TryAcquire() {
	limiter := task.NewLimiter(1)

	for range 2 {
		if limiter.TryAcquire() {
			fmt.Println("go ahead")
		} else {
			fmt.Println("busy, try later")
		}
	}
	// Output:
	// go ahead
	// busy, try later
}

// Tasks of a thread loop share data without a lock. On starts one from outside.
func ExampleOn() {
	b := loop.NewThread()
	total := 0
	task.Go(context.Background(), func(context.Context) (int, error) {
		total += 1
		return total, nil
	}, task.On(b)) // it waits for Run
	_, err := loop.Run(context.Background(), b, func(ctx context.Context) (int, error) {
		_, g := task.NewGroup(ctx)
		for n := range 5 {
			g.Go(func(context.Context) error { // a task of b, as ctx says
				total += n
				return nil
			})
		}
		return 0, g.Wait(ctx)
	})
	fmt.Println(total, err)
	// Output: 11 <nil>
}
