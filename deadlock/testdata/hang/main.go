//go:build cgo

// Command hang is a process that hangs in the way that its argument says, and is
// watched. With cgo and a ticker the runtime of Go does not notice.
//
// It exits with status 3 and the verdict on standard error when the watcher has
// reached one. If no watcher ever does, it hangs.
package main

// static int one(void) { return 1; }
import "C"

import (
	"context"
	"fmt"
	"os"
	"time"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
)

var cases = map[string]func(context.Context) error{
	"rawchannel": rawChannel,
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
	deadlock.Watch(deadlock.Config{
		Interval: 100 * time.Millisecond,
		OnVerdict: func(v deadlock.Verdict) {
			fmt.Fprint(os.Stderr, v)
			os.Exit(3)
		},
	})
	ctx, _ := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("worker"))
	fmt.Fprintln(os.Stderr, "hang: it has ended:", hang(ctx))
	os.Exit(1)
}

// rawChannel waits on a channel, on the thread, for a goroutine that calls the
// thread.
func rawChannel(ctx context.Context) error {
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
