package deadlock_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/task"
)

// A function on a thread looks at its own thread.
func ExampleTake() {
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("ledger"))
	defer tsc.Close()

	_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) {
		for _, t := range deadlock.Take().Threads {
			if t.Name == "ledger" {
				fmt.Println(t.Name, "runs", t.Stack[0].Name, "with", t.Queued, "queued")
			}
		}
		return 0, nil
	}, asyncsync.Named("posting"))
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// ledger runs posting with 0 queued
}

// A function keeps its thread until the watcher has noticed that somebody else
// waits for that.
func ExampleWatch() {
	verdicts := make(chan deadlock.Verdict)
	stop := deadlock.Watch(deadlock.Config{
		Slow:      50 * time.Millisecond,
		OnVerdict: func(v deadlock.Verdict) { verdicts <- v },
	})
	defer stop()

	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("ledger"))
	defer tsc.Close()
	begun, end := make(chan struct{}), make(chan struct{})
	post := task.Go(ctx, func(ctx context.Context) (int, error) {
		return asyncsync.ToThread(ctx, func(context.Context) (int, error) {
			close(begun)
			<-end
			return 1, nil
		}, asyncsync.Named("post"))
	})
	<-begun
	audit := task.Go(ctx, func(ctx context.Context) (int, error) {
		return asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 2, nil }, asyncsync.Named("audit"))
	})

	v := <-verdicts
	fmt.Printf("%s: %s waits for %s, which runs %s\n", v.Kind, v.Call, v.Name, v.Running)
	close(end)
	v = <-verdicts
	fmt.Printf("%s: %s\n", v.Kind, v.Call)

	p, _ := post.Wait(ctx)
	a, _ := audit.Wait(ctx)
	fmt.Println(p, a)
	// Output:
	// slow: audit waits for ledger, which runs post
	// retracted: audit
	// 1 2
}

// A fakeT stands for a *testing.T.
type fakeT struct {
	cleanup func()
}

func (*fakeT) Helper()            {}
func (t *fakeT) Cleanup(f func()) { t.cleanup = f }
func (*fakeT) Errorf(format string, args ...any) {
	first, _, _ := strings.Cut(fmt.Sprintf(format, args...), ";")
	fmt.Println(first)
}

// A test that forgets to close a context fails. In a real test t is its
// *testing.T.
func ExampleStrict() {
	t := &fakeT{}
	deadlock.Strict(t)

	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("ledger"))
	v, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 1, nil })
	fmt.Println(v, err)

	t.cleanup() // the test ends
	tsc.Close()
	// Output:
	// 1 <nil>
	// deadlock: Strict: 1 context not closed: ledger
}
