package deadlock

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"asyncsync.dev/internal/core"
)

// A Loop is a running thread loop (loop.NewThread) in a Report.
type Loop struct {
	ID        uint64     `json:"id"` // never used again in the process
	Name      string     `json:"name"`
	OSThread  int64      `json:"os_thread"` // 0 if it is not known
	Goroutine int64      `json:"goroutine"` // that has called Run
	Running   *LoopTask  `json:"running"`   // nil if it sleeps
	Ready     int        `json:"ready"`     // tasks and functions whose turn comes when Running waits or ends
	Waiting   []LoopTask `json:"waiting"`   // tasks that wait, the first of them
	Tasks     int        `json:"tasks"`     // how many have begun and not ended
}

// A LoopTask is a task of a Loop, or a posted function.
type LoopTask struct {
	Name      string `json:"name"`
	Goroutine int64  `json:"goroutine"` // of its coroutine
	// Wait is what it waits for, or nil if that is not known. A Running with a Wait
	// blocks the loop.
	Wait *Wait `json:"wait"`
}

// maxLoops bounds the loops of a report.
const maxLoops = 16

// loops returns the loops of a report. Loops on which something has to wait for
// what runs come first.
func loops(g *core.Graph) []*core.LoopState {
	all := make([]*core.LoopState, len(g.Loops))
	for i := range g.Loops {
		all[i] = &g.Loops[i]
	}
	rank := func(l *core.LoopState) int {
		switch {
		case l.Running != nil && l.Ready > 0:
			return 0
		case l.Running != nil:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(all, func(a, b *core.LoopState) int { return cmp.Compare(rank(a), rank(b)) })
	all = all[:min(len(all), maxLoops)]
	slices.SortFunc(all, func(a, b *core.LoopState) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

func (b *builder) loop(l *core.LoopState) Loop {
	r := Loop{ID: l.ID, Name: clean(l.Name), OSThread: l.OSThread, Goroutine: l.Goroutine, Ready: l.Ready, Waiting: []LoopTask{}, Tasks: l.Tasks}
	if l.Running != nil {
		t := b.loopTask(l.Running)
		r.Running = &t
	}
	for i := range l.Waiting[:min(len(l.Waiting), maxCalls)] {
		r.Waiting = append(r.Waiting, b.loopTask(&l.Waiting[i]))
	}
	return r
}

func (b *builder) loopTask(t *core.LoopTask) LoopTask {
	r := LoopTask{Name: clean(t.Name), Goroutine: t.Goroutine}
	if t.Wait != nil {
		from := b.party(t.Goroutine)
		if from.Thread == 0 {
			from.Name = r.Name
		}
		w := b.wait(from, t.Wait)
		r.Wait = &w
		b.edge(w, false)
	}
	return r
}

// write writes the loop. Without aged it omits ages.
func (l *Loop) write(b *strings.Builder, r *Report, aged bool) {
	fmt.Fprintf(b, "\nloop %s: goroutine %d", cmp.Or(l.Name, "(unnamed)"), l.Goroutine)
	if l.OSThread != 0 {
		fmt.Fprintf(b, ", OS thread %d", l.OSThread)
	}
	fmt.Fprintf(b, ", %s, %d ready\n", count(l.Tasks, "task"), l.Ready)
	if l.Running == nil {
		b.WriteString("  sleeps\n")
	} else {
		l.Running.write(b, "runs", r, aged)
	}
	for i := range l.Waiting {
		l.Waiting[i].write(b, "waiting", r, aged)
	}
	more := l.Tasks - len(l.Waiting)
	if l.Running != nil {
		more--
	}
	if more > 0 && len(l.Waiting) == maxCalls {
		fmt.Fprintf(b, "  and %s\n", count(more, "more task"))
	}
}

func (t *LoopTask) write(b *strings.Builder, what string, r *Report, aged bool) {
	fmt.Fprintf(b, "  %s %s in goroutine %d", what, t.Name, t.Goroutine)
	switch g := r.goroutine(t.Goroutine); {
	case t.Wait != nil:
		w := *t.Wait
		if !aged {
			w.Age = -1
		}
		fmt.Fprintf(b, ", for %s: %s", w.To, w.label())
	case what == "runs" && g != nil && g.State != coroutine && g.State != "running":
		fmt.Fprintf(b, ", in %s", g.State)
	}
	b.WriteByte('\n')
}

// A turn is one uninterrupted run of a task or function on a loop.
type turn struct {
	loop uint64
	n    [2]uint64
}

func turnOf(l *core.LoopState) turn { return turn{l.ID, l.Turn} }

// blocks reports whether what runs on l makes others wait.
func blocks(l *core.LoopState) bool { return l.Running != nil && l.Ready > 0 }

// blocking reports whether the turn x still goes on.
func blocking(g core.Graph, x turn) bool {
	return slices.ContainsFunc(g.Loops, func(l core.LoopState) bool { return l.Running != nil && turnOf(&l) == x })
}

// blockedLoop reports whether what runs on l is parked, so that the loop is
// blocked. A task that waits through this module is a coroutine that stands
// still.
func (q *inquiry) blockedLoop(l *core.LoopState, r *trail) bool {
	g := q.stacks[l.Running.Goroutine]
	if g == nil || !g.raw() && !(parked[g.State] && g.inside()) {
		return false
	}
	r.goroutines = append(r.goroutines, g.ID)
	r.where.WriteString(g.body)
	return true
}
