package main

import (
	"context"
	_ "embed"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

//go:embed nest_asgiref.py
var asgirefScript string

//go:embed nest_anyio.py
var anyioScript string

//go:embed loops_anyio.py
var loopsScript string

// A snake is a Python library that nests.
type snake struct {
	module  string
	script  string
	deepest int // that it gets to with its defaults
	python  string
}

var snakes = []snake{
	// asgiref ends at 141 levels with a RecursionError.
	{module: "asgiref", script: asgirefScript, deepest: 128},
	// anyio hangs for ever at 41: each level takes one of its 40 threads.
	{module: "anyio", script: anyioScript, deepest: 32},
}

// interpreter returns a Python that has the module, or "". The system's comes
// first: packages of the system are installed there.
func interpreter(ctx context.Context, module string) string {
	for _, python := range []string{"/usr/bin/python3", "python3"} {
		if exec.CommandContext(ctx, python, "-c", "import "+module).Run() == nil {
			return python
		}
	}
	return ""
}

// runSnake takes the figures of s for one round.
func (l *lab) runSnake(ctx context.Context, r round, p place, s snake) error {
	var depths []string
	for _, d := range sizes(l.quick).depths {
		if d <= s.deepest {
			depths = append(depths, strconv.Itoa(d))
		}
	}
	return l.runScript(ctx, r, p, s, s.script, strings.Join(depths, ","))
}

// loopSnake is the library that loops and portals are compared with; that of asyncio is
// below it.
const loopSnake = "anyio"

// runLoopSnake takes the figures of its loops and portals for one round.
func (l *lab) runLoopSnake(ctx context.Context, r round, p place, s snake) error {
	return l.runScript(ctx, r, p, s, loopsScript, strconv.Itoa(sizes(l.quick).parked))
}

func (l *lab) runScript(ctx context.Context, r round, p place, s snake, script, scale string) error {
	ms := strconv.FormatFloat(float64(l.each)/float64(time.Millisecond), 'f', -1, 64)
	// Not from a file: Python would look for modules beside it.
	cmd := exec.Command(s.python, "-c", script, scale, ms)
	return l.collect(ctx, r, p, fmt.Sprintf("%s, %s", s.module, p.title), cmd)
}
