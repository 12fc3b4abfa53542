package deadlock

import (
	"bytes"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// maxDump bounds the memory that the stacks of all goroutines are read into.
const maxDump = 16 << 20

// dump returns the stacks of all goroutines as the runtime writes them. cut
// says that there were more than limit bytes. Each try stops the world, so the
// first buffer is one that most likely suffices.
func dump(limit int) (text []byte, cut bool) {
	size := min(max(64<<10, runtime.NumGoroutine()*2<<10), limit)
	for {
		buf := make([]byte, size)
		n := runtime.Stack(buf, true)
		if n < size {
			return buf[:n], false
		}
		if size == limit {
			return buf[:bytes.LastIndexByte(buf, '\n')+1], true
		}
		size = min(2*size, limit)
	}
}

// A stack is one goroutine in a dump.
type stack struct {
	Goroutine
	bubble int     // of synctest, 0 if there is none
	all    []Frame // Frames before they were cut
	body   string  // what the runtime wrote below the header
}

// maxFrames bounds the frames that a report shows of a goroutine.
const maxFrames = 32

// parse reads those goroutines of a dump for which want reports true. It skips
// what it does not understand.
func parse(dump []byte, want func(id int64) bool) map[int64]*stack {
	found := map[int64]*stack{}
	var (
		at   *stack
		from int // of at's body in dump
	)
	end := func(to int) {
		if at != nil {
			at.read(string(dump[from:to]))
			found[at.ID] = at
		}
	}
	for pos := 0; pos < len(dump); {
		line, next := dump[pos:], len(dump)
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			line, next = line[:i], pos+i+1
		}
		if bytes.HasPrefix(line, []byte("goroutine ")) {
			if g, ok := header(string(line)); ok {
				end(pos)
				at, from = nil, next
				if want(g.ID) {
					at = &g
				}
			}
		}
		pos = next
	}
	end(len(dump))
	return found
}

// header reads the first line of a goroutine:
//
//	goroutine 12 [chan receive (durable), 3 minutes, locked to thread, synctest bubble 1]:
//
// There may be addresses before the bracket, and pprof labels at the end of it.
func header(line string) (g stack, ok bool) {
	line, ok = strings.CutPrefix(line, "goroutine ")
	if !ok {
		return g, false
	}
	id, line, _ := strings.Cut(line, " ")
	var err error
	if g.ID, err = strconv.ParseInt(id, 10, 64); err != nil || g.ID <= 0 {
		return g, false
	}
	if _, line, ok = strings.Cut(line, "["); !ok {
		return g, false
	}
	if line, ok = strings.CutSuffix(line, "]:"); !ok {
		return g, false
	}
	line, _, _ = strings.Cut(line, " labels:{")
	for i, part := range strings.Split(line, ", ") {
		switch {
		case i == 0:
			for _, note := range []string{" (durable)", " (scan)", " (leaked)"} {
				part = strings.ReplaceAll(part, note, "")
			}
			g.State = clean(part)
		case part == "locked to thread":
			g.Locked = true
		case strings.HasSuffix(part, " minutes"):
			n, _ := strconv.Atoi(strings.TrimSuffix(part, " minutes"))
			g.Minutes = max(n, 0)
		case strings.HasPrefix(part, "synctest bubble "):
			g.bubble, _ = strconv.Atoi(strings.TrimPrefix(part, "synctest bubble "))
		}
	}
	return g, true
}

// read reads the lines below a header, two for each function:
//
//	example.org/app.save({0x1, 0x2}, ...)
//		/src/app/save.go:12 +0x1d
func (g *stack) read(body string) {
	g.body = strings.TrimSpace(body)
	var at *Frame
	for line := range strings.Lines(g.body) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(line, "\t"):
			if at != nil {
				at.File, at.Line = place(line)
				at = nil
			}
		case strings.HasPrefix(line, "[originating from goroutine "):
			g.cut()
			return // the rest is how its creator came to be
		case strings.HasPrefix(line, "created by "):
			name, id, _ := strings.Cut(strings.TrimPrefix(line, "created by "), " in goroutine ")
			g.Creator, _ = strconv.ParseInt(id, 10, 64)
			g.CreatedBy = &Frame{Func: clean(name)}
			at = g.CreatedBy
		case strings.HasPrefix(line, "...") && strings.HasSuffix(line, " frames elided..."):
			n, _ := strconv.Atoi(strings.TrimSuffix(line[len("..."):], " frames elided..."))
			g.Elided += max(n, 0)
		case strings.HasSuffix(line, ")"):
			if i := strings.LastIndexByte(line, '('); i > 0 {
				g.all = append(g.all, Frame{Func: clean(line[:i])})
				at = &g.all[len(g.all)-1]
			}
		}
	}
	g.cut()
}

func (g *stack) cut() {
	g.Frames = g.all
	if g.Frames == nil {
		g.Frames = []Frame{}
	}
	if n := len(g.all); n > maxFrames {
		g.Frames = g.all[:maxFrames:maxFrames]
		g.Elided += n - maxFrames
	}
}

func place(line string) (file string, number int) {
	file = strings.TrimSpace(line)
	if i := strings.LastIndex(file, " +0x"); i >= 0 {
		file = file[:i]
	}
	if i := strings.LastIndexByte(file, ':'); i >= 0 {
		if n, err := strconv.Atoi(file[i+1:]); err == nil && n >= 0 {
			return cleanPath(file[:i]), n
		}
	}
	return cleanPath(file), 0
}

// parked has the states of a goroutine that only another goroutine, or a timer,
// can end: see raw. A goroutine that sleeps, waits for the network or is in a
// system call will go on by itself.
var parked = map[string]bool{
	"chan receive":            true,
	"chan receive (nil chan)": true,
	"chan send":               true,
	"chan send (nil chan)":    true,
	"select":                  true,
	"select (no cases)":       true,
	"semacquire":              true,
	"sync.Cond.Wait":          true,
	"sync.Mutex.Lock":         true,
	"sync.RWMutex.Lock":       true,
	"sync.RWMutex.RLock":      true,
	"sync.WaitGroup.Wait":     true,
}

// raw reports whether g is parked in a wait that this module does not see.
// Waits inside this module, for its locks for example, do not count. Waits of
// the runtime for itself do not count either: for a garbage collection to
// begin, for the world to stop. Of the waits for I/O only the one for a file
// counts: that is a pipe, and its other end may be in this process.
func (g *stack) raw() bool {
	below, file := false, false
	for _, f := range g.all {
		if plumbing(f.Func) {
			below = below || strings.HasPrefix(f.Func, "sync.")
			continue
		}
		if library(f.Func) {
			return false
		}
		file = strings.HasPrefix(f.Func, "os.(*File).")
		break
	}
	switch g.State {
	case "IO wait":
		return file
	case "semacquire":
		return below
	}
	return parked[g.State]
}

// inside reports whether g is in a function of this module.
func (g *stack) inside() bool {
	for _, f := range g.all {
		if !plumbing(f.Func) {
			return library(f.Func)
		}
	}
	return false
}

// runners are the functions of this module that run users' functions.
var runners = []string{
	"asyncsync.dev/internal/core.(*Thread).exec",
	"asyncsync.dev/internal/core.(*Thread).execHeld",
	"asyncsync.dev/internal/core.(*Call).runAsync",
	"asyncsync.dev/internal/core.(*Job).Run",
	"asyncsync.dev/internal/core.(*Solo).Run",
}

// started reports whether the function that g runs for this module has started
// o, as far as can be seen: see inquiry.startedBelow.
func (g *stack) started(o *stack) bool {
	end := len(g.all)
	for i, f := range g.all {
		if slices.Contains(runners, f.Func) {
			end = i
		}
	}
	for _, f := range g.all[:end] {
		if library(f.Func) || plumbing(f.Func) {
			continue
		}
		if o.CreatedBy.Func == f.Func {
			return true
		}
		for _, run := range o.all {
			if strings.HasPrefix(run.Func, f.Func+".") { // app.run.func1, or app.run.helper.func1
				return true
			}
		}
	}
	return false
}

// coroutine is the state of a goroutine that stands still for another: the body
// of a pulled iterator, or the goroutine that pulls it.
const coroutine = "coroutine"

// pulledBy reports whether g is the body of an iterator that the goroutine id
// pulls.
func (g *stack) pulledBy(id int64) bool {
	return g.CreatedBy != nil && g.Creator == id && strings.HasPrefix(g.CreatedBy.Func, "iter.Pull")
}

// library reports whether fn is a function of this module that users' calls
// pass through.
func library(fn string) bool {
	fn, ok := strings.CutPrefix(fn, "asyncsync.dev/")
	if !ok {
		return false
	}
	for _, p := range []string{"asyncsync.", "task.", "loop.", "local.", "portal.", "internal/core.", "internal/goroutine.", "internal/sched."} {
		if strings.HasPrefix(fn, p) {
			return true
		}
	}
	return false
}

// plumbing reports whether fn is one of the functions that Go itself puts on a
// stack.
func plumbing(fn string) bool {
	for _, p := range []string{"runtime.", "internal/", "sync.", "sync/atomic.", "context.", "iter.", "reflect.", "time."} {
		if strings.HasPrefix(fn, p) {
			return true
		}
	}
	return false
}

// sites returns where the stack enters this module from outside, from the top.
// blocked says that the stack is still inside the first of these.
func (g *stack) sites() (sites []Frame, blocked bool) {
	inside, seen := false, false
	for _, f := range g.all {
		switch {
		case plumbing(f.Func):
		case library(f.Func):
			blocked = blocked || !seen
			inside, seen = true, true
		default:
			if inside {
				sites = append(sites, f)
			}
			inside, seen = false, true
		}
	}
	return sites, blocked && len(sites) > 0
}
