// Depth measures what nesting costs: sync code that calls async code that
// calls sync code, to a depth of thousands. It takes the figures of this
// module, of what would be written without it, and of what the machine can do
// at best, all in one run, and compares them.
//
// From the root of the repository:
//
//	go run ./bench/cmd/depth
//
// It prints four tables (calls, nested calls, loops and portals, and the ratios that
// this module promises, met or not) and draws the cost of a level over the depth as
// bench/out/depth.svg and bench/out/depth.png. It takes two to four minutes, a minute
// for loops alone; nothing else should run on the machine meanwhile.
//
// # How it measures
//
// A run has rounds, and a round takes every figure once, so that the extremes
// of a figure show what changed over minutes and a ratio compares neighbours.
// All tables show the median and, in parentheses, the least and the greatest.
// A ratio is taken in each round, and the median of these is what is judged.
//
// A call to a thread costs two switches of the operating system's, unless both
// sides find each other awake. What the switches cost depends on where the
// kernel puts the threads, on one processor or on two that may have gone idle,
// and it changes its mind in the course of a run. So each round is taken by
// child processes that are bound to processors: calls whose caller sleeps are
// compared on one core, with GOMAXPROCS=1, and calls that find both sides awake
// on two. Where the system has no such binding (it is done on Linux only) there
// is GOMAXPROCS alone, and figures of sleeping callers vary. With one processor
// the second half is left out.
//
// One level is one call of a SyncToAsync function and one of an AsyncToSync
// function: two round trips. The figure is the time of a whole descent and
// return, the hop from the outermost caller to the thread included, divided by
// the depth.
//
// Of loops and portals those that are to be compared take turns within a round as
// well, so that what else happens on the machine meets all of them. The loop is one
// of loop.NewThread, and what it is compared with a bare coroutine of iter.Pull, or a
// call to a thread, which looks out for nobody: a loop does not either.
//
// A C compiler, found as cc or gcc, is used to build a small program that shows
// what two threads can do at best with the kernel's futex; without one these
// rows are missing.
//
// # Flags
//
//	-rounds n   rounds, 5 at least (default 5)
//	-out dir    where the charts go (default bench/out)
//	-time d     time spent on one figure in one round (default 30ms)
//	-python     compare with Python's asgiref and anyio, where they are installed:
//	            on Debian, apt-get install python3-asgiref python3-anyio
//	-quick      one short round of small depths: to see that it works
//	-loops      loops and portals alone, and no charts
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the command: it returns its exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	do := measure
	if len(args) > 0 && args[0] == childCommand {
		do, args = beChild, args[1:]
	}
	switch err := do(ctx, args, stdout, stderr); {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		return 2
	default:
		fmt.Fprintln(stderr, "depth:", err)
		return 1
	}
}

// errUsage is returned when the user has been told already.
var errUsage = errors.New("wrong usage")

// leastRounds is how many rounds a median with extremes is worth printing of.
const leastRounds = 5

// config is what the flags say.
type config struct {
	rounds int
	out    string
	python bool
	quick  bool
	loops  bool
	each   time.Duration
}

// flags returns the flags that fill c.
func (c *config) flags(stderr io.Writer) *flag.FlagSet {
	f := flag.NewFlagSet("depth", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&c.rounds, "rounds", leastRounds, "rounds, 5 at least")
	f.StringVar(&c.out, "out", filepath.Join("bench", "out"), "`folder` for the charts")
	f.DurationVar(&c.each, "time", 30*time.Millisecond, "time spent on one figure in one round")
	f.BoolVar(&c.python, "python", false, "compare with asgiref and anyio, where they are installed")
	f.BoolVar(&c.quick, "quick", false, "one short round of small depths")
	f.BoolVar(&c.loops, "loops", false, "loops and portals alone")
	return f
}

func parse(args []string, stderr io.Writer) (config, error) {
	var c config
	f := c.flags(stderr)
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return c, err
		}
		return c, errUsage
	}
	switch {
	case f.NArg() > 0:
		fmt.Fprintf(stderr, "depth: unexpected argument %q\n", f.Arg(0))
		return c, errUsage
	case c.each <= 0:
		fmt.Fprintln(stderr, "depth: -time must be positive")
		return c, errUsage
	case c.quick:
		c.rounds, c.each = 1, min(c.each, time.Millisecond)
	case c.rounds < leastRounds:
		fmt.Fprintf(stderr, "depth: -rounds must be %d at least\n", leastRounds)
		return c, errUsage
	}
	return c, nil
}

// measure takes the rounds and prints what they come to.
func measure(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	c, err := parse(args, stderr)
	if err != nil {
		return err
	}
	began := time.Now()
	l, err := newLab(ctx, c)
	if err != nil {
		return err
	}
	defer l.close()
	fmt.Fprintln(stdout, l.describe())
	for i := range c.rounds {
		if err := l.round(ctx, i); err != nil {
			return err
		}
		fmt.Fprintf(stderr, "round %d of %d, %.0f s\n", i+1, c.rounds, time.Since(began).Seconds())
	}
	s := sizes(c.quick)
	all := loopPromises(s)
	if !c.loops {
		all = append(promises(s, l.places), all...)
		fmt.Fprintf(stdout, "\nCalls: one, and the return to its caller.\n\n%s", callTable(l.results, l.places))
		fmt.Fprintf(stdout, "\nNested calls: one level is a SyncToAsync call and an AsyncToSync call.\n\n%s",
			depthTable(l.results, l.places, s.depths))
	}
	fmt.Fprintf(stdout, "\nLoops and portals.\n\n%s", loopTable(l.results, l.places))
	fmt.Fprintf(stdout, "\nWhat this module promises. \"A, to B\" is A divided by B.\n\n%s", targetTable(l.results, all))
	for _, n := range l.notes {
		fmt.Fprintln(stdout, "\nNote:", n)
	}
	fmt.Fprintln(stdout)
	if !c.loops {
		files, err := drawDepth(c.out, l.results, l.places, s.depths)
		if err != nil {
			return err
		}
		for _, f := range files {
			fmt.Fprintln(stdout, "chart:", f)
		}
	}
	fmt.Fprintf(stdout, "%d rounds in %.0f s\n", c.rounds, time.Since(began).Seconds())
	return nil
}
