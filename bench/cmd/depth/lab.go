package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
)

// A place is where a child process takes its figures: how many processors it
// is bound to and how many of them Go is told of.
type place struct {
	name  string // in the names of figures
	title string
	cpus  int
	procs int
}

var (
	oneCore  = place{"one", "one core", 1, 1}
	twoCores = place{"two", "two cores", 2, 2}
	// The other two are for what spinning costs where it cannot pay.
	oneCoreTwoProcs = place{"one-procs2", "one core, GOMAXPROCS=2", 1, 2}
	twoCoresOneProc = place{"two-procs1", "two cores, GOMAXPROCS=1", 2, 1}
)

// A lab is one run: where its figures are taken, with what, and what came out.
type lab struct {
	config
	dir     string // temporary
	cpus    []int  // at most two, empty where threads cannot be bound
	places  []place
	floor   string // the C program, empty if there is none
	snakes  []snake
	notes   []string // for the reader
	results results
}

func newLab(ctx context.Context, c config) (*lab, error) {
	dir, err := os.MkdirTemp("", "depth")
	if err != nil {
		return nil, err
	}
	l := &lab{config: c, dir: dir, places: []place{oneCore, oneCoreTwoProcs}}
	l.cpus, err = freeCPUs()
	if err != nil {
		l.note("threads are not bound to processors here (%v): figures of callers that sleep vary with where the kernel puts them.", err)
	}
	if runtime.NumCPU() >= 2 {
		l.places = []place{oneCore, twoCores, oneCoreTwoProcs, twoCoresOneProc}
	} else {
		l.note("one processor only: there is nothing to show of calls that find both sides awake.")
	}
	if c.loops {
		l.places = mainPlaces(l.places)
	} else if l.floor, err = buildFloor(ctx, dir); err != nil {
		l.note("no futex rows: %v.", err)
	}
	if c.quick {
		l.note("-quick shows that everything works; its figures are too hasty to be judged.")
	}
	if c.python {
		for _, s := range snakes {
			if c.loops && s.module != loopSnake {
				continue
			}
			if s.python = interpreter(ctx, s.module); s.python == "" {
				l.note("no %s rows: no Python that has it was found. On Debian: apt-get install python3-%[1]s", s.module)
				continue
			}
			l.snakes = append(l.snakes, s)
		}
	} else {
		l.note("no rows of Python: for these run it with -python, where asgiref and anyio are installed (on Debian: apt-get install python3-asgiref python3-anyio).")
	}
	return l, nil
}

func (l *lab) close() { os.RemoveAll(l.dir) }

func (l *lab) note(format string, args ...any) {
	l.notes = append(l.notes, fmt.Sprintf(format, args...))
}

func (l *lab) describe() string {
	s := fmt.Sprintf("%s %s/%s, %d processors", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	if len(l.cpus) > 0 {
		s += "; bound to " + strings.Trim(fmt.Sprint(l.cpus), "[]")
	}
	return s + fmt.Sprintf("; %d rounds, %v a figure", l.rounds, l.each)
}

// bound returns the processors of p.
func (l *lab) bound(p place) []int { return l.cpus[:min(len(l.cpus), p.cpus)] }

// round takes every figure once. The order changes from round to round.
func (l *lab) round(ctx context.Context, number int) error {
	r := round{}
	for i := range l.places {
		p := l.places[(i+number)%len(l.places)]
		if err := l.child(ctx, r, p, number); err != nil {
			return err
		}
		if p != oneCore && p != twoCores {
			continue
		}
		if l.floor != "" {
			if err := l.runFloor(ctx, r, p); err != nil {
				return err
			}
		}
		for _, s := range l.snakes {
			if !l.loops {
				if err := l.runSnake(ctx, r, p, s); err != nil {
					return err
				}
			}
			if s.module == loopSnake {
				if err := l.runLoopSnake(ctx, r, p, s); err != nil {
					return err
				}
			}
		}
	}
	l.results = append(l.results, r)
	return nil
}
