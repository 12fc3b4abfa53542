package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"time"
)

// childCommand makes the command a child of itself. It is not for users.
const childCommand = "child"

// childTimeout is far beyond what a child takes: one that hangs is killed.
const childTimeout = 90 * time.Second

// A reading is one figure, as children print it, a line each.
type reading struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
}

// child has the figures of p taken for one round by a fresh process.
func (l *lab) child(ctx context.Context, r round, p place, number int) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{childCommand, "-time", l.each.String(), "-quick=" + strconv.FormatBool(l.quick), "-loops=" + strconv.FormatBool(l.loops),
		"-place", p.name, "-round", strconv.Itoa(number)}
	return l.collect(ctx, r, p, p.title, exec.Command(self, args...))
}

// collect runs a command in p and puts the readings that it prints into r.
func (l *lab) collect(ctx context.Context, r round, p place, what string, cmd *exec.Cmd) error {
	ctx, stop := context.WithTimeout(ctx, childTimeout)
	defer stop()
	var out, trouble bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &trouble
	cmd.Env = append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(p.procs))
	if err := startOn(cmd, l.bound(p)); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer context.AfterFunc(ctx, func() { cmd.Process.Kill() })()
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("%s: %w\n%s", what, err, trouble.Bytes())
	}
	return read(&out, func(x reading) { r[p.name+":"+x.Name] = x.Value })
}

func read(from io.Reader, each func(reading)) error {
	for lines := bufio.NewScanner(from); ; {
		if !lines.Scan() {
			return lines.Err()
		}
		var x reading
		if err := json.Unmarshal(lines.Bytes(), &x); err != nil {
			return fmt.Errorf("not a figure: %q: %w", lines.Bytes(), err)
		}
		each(x)
	}
}

// beChild takes the figures of one place for one round, and prints them.
func beChild(_ context.Context, args []string, stdout, stderr io.Writer) error {
	var c config
	var at string
	var number int
	f := c.flags(stderr)
	f.StringVar(&at, "place", oneCore.name, "where this process has been put")
	f.IntVar(&number, "round", 0, "which of the rounds this is")
	if err := f.Parse(args); err != nil {
		return errUsage
	}
	lines := json.NewEncoder(stdout)
	var failed error
	b := &bencher{scale: sizes(c.quick), each: c.each, put: func(name string, value float64) {
		if err := lines.Encode(reading{name, value}); err != nil {
			failed = err
		}
	}}
	all := figuresAt(at, c.loops)
	for i := range all {
		// Whatever the figure before leaves behind is not always the same.
		one := all[(i+number*len(all)/leastRounds)%len(all)]
		runtime.GC()
		if err := one.take(b); err != nil {
			return fmt.Errorf("%s: %w", one.name, err)
		}
	}
	return failed
}

// A chore is something that a child does: it takes a figure, or some that
// belong together.
type chore struct {
	name string
	take func(*bencher) error
}

// figuresAt returns all that is done at a place, or what is done for loops alone.
func figuresAt(at string, loops bool) []chore {
	if loops {
		return loopChores(at)
	}
	var all []chore
	switch at {
	case oneCoreTwoProcs.name, twoCoresOneProc.name:
		return []chore{{"spinning", spinning}}
	case twoCores.name:
		all = append(all, chore{"spin", wordBySpinning}, chore{"burners", burners},
			chore{forced.name, func(b *bencher) error { return b.call(forced) }})
	case oneCore.name:
		// Memory is the same everywhere.
		for _, e := range engines {
			all = append(all, chore{"memory of " + e.name, func(b *bencher) error { return b.memory(e) }})
		}
		all = append(all, chore{"locals", locals})
	}
	for _, c := range calls {
		all = append(all, chore{c.name, func(b *bencher) error { return b.call(c) }})
	}
	for _, e := range engines {
		all = append(all, chore{"depth of " + e.name, func(b *bencher) error { return b.depth(e) }})
	}
	all = append(all, chore{"callers", callers}, chore{"pipeline", pipeline}, chore{"panics", panics},
		chore{"contexts", contexts}, chore{"many contexts", manyContexts})
	return append(all, loopChores(at)...)
}
