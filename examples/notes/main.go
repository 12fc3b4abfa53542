// Notes is a small web application whose database may be used by one thread
// only. It shows the whole of asyncsync in a program of ordinary size:
//
//   - The SQLite connection lives in an [asyncsync.Handle]: every query, from
//     whichever request, runs on one thread, one at a time (store.go).
//   - Every HTTP request has a thread-sensitive context of its own, from package
//     web, and renders its page on the thread of that context (server.go,
//     render.go). With too many of them there is a 503 instead of a hang.
//   - /debug/asyncsync/ shows all of it while it runs (package debugpage).
//   - An import is one transaction that asks the network in its middle. The
//     database's thread waits for the answers, and meanwhile runs the writes
//     of the very tasks it waits for, and nobody else's (import.go).
//
// One import goes through these levels, inwards; "db" is always the same
// thread, blocked in one level while it runs the next:
//
//	handler             POST /import
//	  db                Handle.Do: SAVEPOINT, insert the batch
//	    task per link   GET  title of the link
//	      db            Handle.Do: SAVEPOINT, insert the note
//	        task per tag  GET  description of a tag never seen before
//	          db        Handle.Do: insert the tag
//
// Run it and open the address it prints:
//
//	go run ./examples/notes
//
// With -demo it drives itself with concurrent requests instead, checks that
// everything above held, and exits:
//
//	go run ./examples/notes -demo -requests 500 -clients 8
//
// With -load it puts a load on itself: see the README beside this file.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// patience is how long a stopping server waits for the requests it still
// answers. After that their connections are closed.
const patience = 10 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal kills as usual

	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp): // the usage was asked for, and is printed
	case err != nil:
		fmt.Fprintln(os.Stderr, "notes:", err)
		os.Exit(1)
	}
}

// options are the command line's.
type options struct {
	addr     string
	db       string
	demo     bool
	requests int
	clients  int
	threads  int
	wait     time.Duration
	load     bool
	rate     int
	conns    int
	duration time.Duration
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("notes", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.addr, "addr", "127.0.0.1:0", "`address` to listen on; port 0 takes a free one")
	flags.StringVar(&o.db, "db", "", "database `file`; without it, one in a temporary folder, removed at the end")
	flags.BoolVar(&o.demo, "demo", false, "drive the server with concurrent requests, check the outcome, and exit")
	flags.IntVar(&o.requests, "requests", 500, "requests that the demo makes")
	flags.IntVar(&o.clients, "clients", 8, "clients that make them at the same time")
	flags.IntVar(&o.threads, "threads", 64, "threads that requests may have at a time")
	flags.DurationVar(&o.wait, "wait", 5*time.Second, "how long a request waits for one of them before it is refused")
	flags.BoolVar(&o.load, "load", false, "put a load on the server, check the outcome, and exit")
	flags.IntVar(&o.rate, "rate", 1000, "requests that the load makes in a second")
	flags.IntVar(&o.conns, "conns", 100, "connections that it makes them over")
	flags.DurationVar(&o.duration, "duration", 10*time.Second, "how long the load lasts")
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	switch {
	case flags.NArg() > 0:
		return options{}, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.requests < 1:
		return options{}, fmt.Errorf("-requests %d: want at least 1", o.requests)
	case o.clients < 1:
		return options{}, fmt.Errorf("-clients %d: want at least 1", o.clients)
	case o.threads < 1 || o.wait <= 0:
		return options{}, fmt.Errorf("-threads %d -wait %v: want more than nothing", o.threads, o.wait)
	case o.rate < 1 || o.conns < 1 || o.duration <= 0:
		return options{}, fmt.Errorf("-rate %d -conns %d -duration %v: want more than nothing", o.rate, o.conns, o.duration)
	case o.load && o.demo:
		return options{}, errors.New("-load and -demo: want one of them")
	}
	return o, nil
}

// run is the whole program. It returns when ctx ends, when the demo is over,
// or when the server cannot go on.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))

	a, err := start(ctx, o, log)
	if err != nil {
		return err
	}
	defer func() {
		// ctx has probably ended already, which is why we stop.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		err = errors.Join(err, a.stop(ctx))
	}()

	if o.demo {
		return runDemo(ctx, a, o.requests, o.clients, stdout)
	}
	if o.load {
		return runLoad(ctx, a, o, stdout)
	}
	fmt.Fprintf(stdout, "notes are at %s (stop with Ctrl-C)\n", a.pages.url)
	select {
	case <-ctx.Done():
		return nil
	case <-a.pages.failed:
		return a.pages.err
	}
}
