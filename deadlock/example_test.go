package deadlock_test

import (
	"context"
	"fmt"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
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
