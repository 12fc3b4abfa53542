// Chat is a chat server over TCP and HTTP. All its state is on one OS thread and has no
// lock.
//
//   - [loop.Run] runs the server on the main goroutine, as tasks of one
//     [loop.NewThread]: the room, and two tasks for each connection (room.go,
//     member.go). [network.ListenAll] and [network.Serve] bring the connections.
//   - net/http runs handlers on goroutines of its own. They reach the loop through a
//     [portal.Portal] (web.go).
//   - So does a library that calls back on a thread of its own (clock.go).
//   - The journal blocks until its data is on disk. It has a thread of its own, and is
//     called through [asyncsync.ToThread] (journal.go). Messages that arrive meanwhile
//     are all written by the next call.
//   - SIGTERM and Ctrl-C stop the server in an order in which nothing that was accepted
//     is lost (server.go).
//
// A message is accepted when its sender gets its number: over TCP by the line that all
// clients get, over HTTP by the answer. By then it is on disk.
//
//	go run ./examples/chat
//
// prints where it listens. With -demo it drives itself with clients of both kinds,
// stops while they speak, checks that all of the above held, and exits.
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
	"path/filepath"
	"strings"
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
		fmt.Fprintln(os.Stderr, "chat:", err)
		os.Exit(1)
	}
}

// options are the command line's.
type options struct {
	demo     bool
	messages int
	hosts    []string
	tcp      int
	http     int
	journal  string
	members  int
	strike   time.Duration
	patience time.Duration
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("chat", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.BoolVar(&o.demo, "demo", false, "drive the server with clients, stop it while they speak, check the outcome, and exit")
	flags.IntVar(&o.messages, "messages", 400, "messages after which the demo stops the server")
	hosts := flags.String("hosts", "127.0.0.1", "`hosts` to listen on, separated by commas; nothing between two is every interface")
	flags.IntVar(&o.tcp, "tcp", 0, "`port` for TCP; 0 takes a free one")
	flags.IntVar(&o.http, "http", 0, "`port` for HTTP; 0 takes a free one")
	flags.StringVar(&o.journal, "journal", "", "`file` that messages are kept in; without it, one in a temporary folder, removed at the end")
	flags.IntVar(&o.members, "members", 1000, "connections over TCP at a time")
	flags.DurationVar(&o.strike, "strike", time.Minute, "how often the clock strikes")
	flags.DurationVar(&o.patience, "patience", 5*time.Second, "how long to wait for a client that does not read")
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	o.hosts = strings.Split(*hosts, ",")
	switch {
	case flags.NArg() > 0:
		return options{}, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.messages < 1 || o.members < 1:
		return options{}, fmt.Errorf("-messages %d -members %d: want at least 1", o.messages, o.members)
	case o.strike <= 0 || o.patience <= 0:
		return options{}, fmt.Errorf("-strike %v -patience %v: want more than nothing", o.strike, o.patience)
	}
	return o, nil
}

// run is the whole program. It returns when ctx has ended and the server has stopped,
// when the demo is over, or when the server cannot go on.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	if o.journal == "" {
		folder, err := os.MkdirTemp("", "chat-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(folder)
		o.journal = filepath.Join(folder, "journal")
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	defer asyncsync.AddHooks(asyncsync.Log(log))()

	if o.demo {
		return runDemo(ctx, o, log, stdout)
	}
	_, err = runServer(ctx, o, log, func(a addresses) {
		for _, t := range a.tcp {
			fmt.Fprintln(stdout, "tcp:", t)
		}
		for _, h := range a.http {
			fmt.Fprintf(stdout, "http: http://%s/\n", h)
		}
		fmt.Fprintln(stdout, "ready (stop with Ctrl-C)")
	})
	return err
}

// runServer runs a server on the calling goroutine, until ctx ends, and calls ready when
// it listens.
func runServer(ctx context.Context, o options, log *slog.Logger, ready func(addresses)) (*account, error) {
	// The end of ctx is a wish, not a cancellation: the server stops in its own order.
	stop := ctx.Done()
	return loop.Run(context.WithoutCancel(ctx), loop.NewThread(loop.Named("chat")), func(ctx context.Context) (*account, error) {
		return serve(ctx, o, log, stop, ready)
	})
}
