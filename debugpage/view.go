package debugpage

import (
	"cmp"
	"fmt"
	"html/template"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/docs"
)

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"age":     age,
	"short":   short,
	"library": library,
	"counted": counted,
	"clock":   func(t time.Time) string { return t.Format("15:04:05") },
}).ParseFS(assets, "assets/*.html"))

// A view is what the page shows.
type view struct {
	*deadlock.Report
	Program  string
	Runtime  string
	PID      int
	Up       time.Duration
	Query    string
	Stats    asyncsync.Stats
	Counts   map[deadlock.Kind]int
	Verdicts []verdict
	Threads  []thread
	Quiet    []deadlock.Thread // idle ones, which need little room
	Picture  *picture
	Pages    []string // of the documentation
}

// A thread is a thread that does something.
type thread struct {
	deadlock.Thread
	State  string // stuck, busy, lined
	Title  string
	Parked string // what its goroutine is parked in, outside of this module
}

func (p *Page) view(r *deadlock.Report, q string) *view {
	v := &view{
		Report: r, Query: q, Program: filepath.Base(os.Args[0]), PID: os.Getpid(),
		Runtime: runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH,
		Up:      time.Since(p.started), Stats: asyncsync.ReadStats(), Pages: pages(),
	}
	p.mu.Lock()
	v.Verdicts, v.Counts = slices.Clone(p.verdicts), maps.Clone(p.counts)
	p.mu.Unlock()
	v.Picture = draw(r)
	for _, t := range r.Threads {
		if len(t.Stack) == 0 && t.Queued == 0 && !t.Exiting && !t.Lined {
			v.Quiet = append(v.Quiet, t)
			continue
		}
		one := thread{Thread: t, State: "busy", Title: nameOf(&t)}
		if t.Lined {
			one.State = "lined"
		}
		if len(t.Stack) > 0 && t.Stack[0].Wait == nil {
			if i := slices.IndexFunc(r.Goroutines, func(g deadlock.Goroutine) bool { return g.ID == t.Goroutine }); i >= 0 {
				if s := r.Goroutines[i].State; s != "running" && s != "runnable" && s != "syscall" {
					one.Parked = s
				}
			}
		}
		if v.Picture.inCycle(partyID(t.ID, t.Goroutine)) {
			one.State = "stuck"
		}
		v.Threads = append(v.Threads, one)
	}
	rank := func(t thread) int { return slices.Index([]string{"stuck", "lined", "busy"}, t.State) }
	slices.SortStableFunc(v.Threads, func(a, b thread) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(b.Queued, a.Queued))
	})
	return v
}

// nameOf returns what a thread is called. Without a name, that is where it was
// made.
func nameOf(t *deadlock.Thread) string {
	switch {
	case t.Name != "":
		return t.Name
	case t.Made != nil:
		return "made in " + short(t.Made.Func)
	}
	return fmt.Sprintf("thread %d", t.ID)
}

// short returns the name of a function without the directories of its package,
// and any other name unchanged.
func short(name string) string {
	at := strings.LastIndexByte(name, '/')
	if at < 0 || strings.ContainsAny(name, " {") || !strings.Contains(name[at:], ".") {
		return name
	}
	return name[at+1:]
}

// cut returns the first n characters of a text.
func cut(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// library reports whether a function belongs to this module or to Go itself;
// these are rarely of interest.
func library(name string) bool {
	for _, p := range []string{"asyncsync.dev/asyncsync.", "asyncsync.dev/task.", "asyncsync.dev/internal/", "asyncsync.dev/loop.",
		"runtime.", "sync.", "internal/", "net/http.", "testing."} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// counted returns n things in words.
func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// age returns a duration that grows while the page is live, or nothing if it is
// not known.
func age(d time.Duration) template.HTML {
	if d < 0 {
		return ""
	}
	return template.HTML(fmt.Sprintf(`<span class="age" data-ns="%d">%s</span>`, d.Nanoseconds(), rounded(d)))
}

// rounded keeps what can be read at a glance. The script of the page rounds in
// the same way.
func rounded(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return "<1 ms"
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
}

// pages returns the names of the pages of the documentation.
func pages() (names []string) {
	paths, err := fs.Glob(docs.Deadlock, "deadlock/*.md")
	if err != nil {
		panic(err) // the pattern is wrong
	}
	for _, p := range paths {
		if name := strings.TrimSuffix(filepath.Base(p), ".md"); name != "README" {
			names = append(names, name)
		}
	}
	return names
}
