// Actors is a shop in which hundreds of tasks share one OS thread. They wait
// for each other, for time and for the network, and their data needs no lock.
// It is meant to be copied from.
//
//   - [loop.Run] runs everything on the main goroutine, as tasks of one
//     [loop.NewThread]. Tasks switch only where they wait (shop.go).
//   - The SQLite connection belongs to that thread. A [task.Mutex] keeps a
//     transaction exclusive that waits for the network in its middle
//     (store.go).
//   - The till is an actor: one task with a mailbox. Others send to it, and
//     read the answer with [task.Recv] (till.go).
//   - Stock is plain data with a [task.Cond]: an order that finds too little
//     waits for the supplier, who comes after a [task.Sleep] (stock.go).
//   - Prices and customers are looked up over HTTP with an ordinary client,
//     under [task.Await] (lookups.go).
//   - Receipts are made by sync code on a thread of its own, called through
//     [asyncsync.ToThread], which calls back into the shop (receipts.go).
//
// An order goes through all of it:
//
//	go run ./examples/actors
//
// takes an order at intervals until Ctrl-C, finishes those under way, and
// prints a summary. With -demo it takes 300 orders at once and then ends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/loop"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal kills as usual

	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp): // the usage was asked for, and is printed
	case err != nil:
		fmt.Fprintln(os.Stderr, "actors:", err)
		os.Exit(1)
	}
}

// options are the command line's.
type options struct {
	demo   bool
	orders int
	every  time.Duration
	db     string
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("actors", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.BoolVar(&o.demo, "demo", false, "take all orders at once, check the outcome, and exit")
	flags.IntVar(&o.orders, "orders", 300, "orders of the demo; otherwise the most that are under way at a time")
	flags.DurationVar(&o.every, "every", 50*time.Millisecond, "how often an order comes, unless it is the demo")
	flags.StringVar(&o.db, "db", ":memory:", "a new database `file`")
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	switch {
	case flags.NArg() > 0:
		return options{}, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.orders < 1:
		return options{}, fmt.Errorf("-orders %d: want at least 1", o.orders)
	case o.every <= 0:
		return options{}, fmt.Errorf("-every %v: want more than nothing", o.every)
	}
	return o, nil
}

// run is the whole program. When ctx ends the shop takes no further orders, and run
// returns when those under way are finished.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	hold := 1
	if o.demo {
		hold = min(together, o.orders)
	}
	answers, err := serveLookups(hold)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, answers.close()) }()

	// The end of ctx is a wish, not a cancellation: what is under way goes on.
	closing := ctx.Done()
	ctx = context.WithoutCancel(ctx)

	// What asyncsync.ToThread calls below this ctx runs on one thread of its own.
	ctx, receipts := asyncsync.NewThreadSensitiveContext(ctx, asyncsync.WithName("receipts"))
	defer func() { err = errors.Join(err, receipts.Close()) }()

	// From here to its return this goroutine is the shop's thread.
	s, err := loop.Run(ctx, loop.NewThread(loop.Named("shop")), func(ctx context.Context) (*summary, error) {
		return keepShop(ctx, o, answers.url, closing, stdout)
	})
	if err != nil {
		return err
	}
	return report(stdout, s, answers.most())
}
