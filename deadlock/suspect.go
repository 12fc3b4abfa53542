package deadlock

import (
	"fmt"
	"slices"
	"strings"

	"asyncsync.dev/internal/core"
)

// A subject is a waiter: a queued call; or a goroutine that waits for a token,
// or for the end of a pool or of the context that owns the thread; or all that
// are ready on a loop, while something has its turn.
type subject struct {
	callID
	goroutine int64
	turn      turn
}

// A suspect is a waiter that seems to wait for itself.
type suspect struct {
	subject
	thread *core.ThreadState    // that it waits for, nil for a pool
	call   core.CallState       // that waits
	waits  *core.GoroutineState // what the goroutine waits for, nil for a call
	parked *stack               // where the waiting ends
	behind string               // the name of what runs there, "" for what runs on the thread
	loop   *core.LoopState      // that is blocked, nil if it is about something else
}

// An inquiry follows waits, through the graph and the stacks, to where they end.
type inquiry struct {
	graph     *core.Graph
	stacks    map[int64]*stack
	threads   map[uint64]*core.ThreadState
	ofThread  map[int64]*core.ThreadState  // by goroutine
	functions map[int]*core.GoroutineState // off the threads, by number
	callers   map[int64][]callRef          // by goroutine
}

// A callRef is a call that a goroutine waits for.
type callRef struct {
	core.CallState
	thread *core.ThreadState
	queued bool
}

func inquire(g *core.Graph, stacks map[int64]*stack) *inquiry {
	q := &inquiry{
		graph: g, stacks: stacks, threads: map[uint64]*core.ThreadState{}, ofThread: map[int64]*core.ThreadState{},
		functions: map[int]*core.GoroutineState{}, callers: map[int64][]callRef{},
	}
	for i := range g.Threads {
		t := &g.Threads[i]
		q.threads[t.ID] = t
		if t.Goroutine != 0 {
			q.ofThread[t.Goroutine] = t
		}
		for _, c := range t.Stack {
			q.callers[c.Caller] = append(q.callers[c.Caller], callRef{c, t, false})
		}
		for _, c := range t.Queue {
			q.callers[c.Caller] = append(q.callers[c.Caller], callRef{c, t, true})
		}
	}
	delete(q.callers, 0)
	for i := range g.Goroutines {
		if f := &g.Goroutines[i]; f.Function != 0 {
			q.functions[f.Function] = f
		}
	}
	return q
}

// A trail is one path along the waits, from one waiter to what it waits for in
// the end.
type trail struct {
	goroutines []int64 // in order
	been       []any   // the IDs of threads, and the numbers of functions, on the trail so far
	looped     bool    // it has come back to where it was
	where      strings.Builder

	first  *core.ThreadState // the first thread
	behind string            // what runs where the trail ends, "" if it is what runs on that thread
}

func (r *trail) has(id int64) bool { return slices.Contains(r.goroutines, id) }

// loops adds there, the ID of a thread or the number of a function, to the
// trail. It reports whether there was on the trail already. A goroutine may be
// on a trail more than once: the goroutine of a caller runs functions on top of
// its wait.
func (r *trail) loops(there any) bool {
	r.looped = r.looped || slices.Contains(r.been, there)
	r.been = append(r.been, there)
	return r.looped
}

// last returns the last goroutine on the trail.
func (r *trail) last() int64 {
	if len(r.goroutines) == 0 {
		return 0
	}
	return r.goroutines[len(r.goroutines)-1]
}

// maxTrail bounds the length of a trail, and how many members of a group or
// threads of a pool are tried.
const maxTrail = 64

// thread reports whether what runs on t is stuck: parked outside this module,
// or waiting for something that is. r is the trail so far, and becomes longer.
func (q *inquiry) thread(t *core.ThreadState, r *trail) bool {
	if t == nil || t.Goroutine == 0 || len(t.Stack) == 0 && !t.Exiting {
		return false
	}
	if r.loops(t.ID) {
		return true
	}
	if len(t.Stack) > 0 {
		fmt.Fprintf(&r.where, "thread %d call %d\n", t.ID, t.Stack[0].Seq)
		r.at(t, t.Stack[0].Name)
		if w := t.Stack[0].Wait; w != nil {
			r.goroutines = append(r.goroutines, t.Goroutine)
			return !q.moves(t.Goroutine) && q.wait(w, r)
		}
	}
	r.at(t, "")
	return q.parked(t.Goroutine, false, r)
}

// moves reports whether the goroutine id goes on by itself, though the graph has it in a
// wait: what it waits for has come. Under load it may not get to run for long.
func (q *inquiry) moves(id int64) bool {
	g := q.stacks[id]
	return g != nil && (g.State == "runnable" || g.State == "running")
}

// at records that the trail leads to a function called name, on t unless that
// is nil.
func (r *trail) at(t *core.ThreadState, name string) {
	switch {
	case t == r.first && t != nil:
	case t != nil && r.first == nil:
		r.first = t
	case name != "":
		r.behind = clean(name)
	}
}

// wait is thread for the target of a wait.
func (q *inquiry) wait(w *core.WaitState, r *trail) bool {
	if len(r.goroutines) > maxTrail {
		return false
	}
	switch {
	case len(w.Threads) > 0:
		return slices.ContainsFunc(w.Threads, func(id uint64) bool { return q.branch(r, func(r *trail) bool { return q.thread(q.threads[id], r) }) })
	case len(w.Goroutines) > 0:
		return slices.ContainsFunc(w.Goroutines, func(id int64) bool {
			n := 0
			if i := slices.Index(w.Goroutines, id); i < len(w.Functions) {
				n = w.Functions[i]
			}
			return q.branch(r, func(r *trail) bool { return q.goroutine(id, n, "", r) })
		})
	case w.Limiter != 0:
		return q.limiter(w.Limiter, r)
	case w.Thread != 0:
		return q.thread(q.threads[w.Thread], r)
	}
	return w.Goroutine != 0 && q.goroutine(w.Goroutine, w.Function, w.For, r)
}

// limiter reports whether all holders of the limiter's tokens are stuck: they
// wait for it themselves, are parked outside this module, or wait for something
// that is.
func (q *inquiry) limiter(n int, r *trail) bool {
	l := &q.graph.Limiters[n-1]
	tokens := 0
	for _, h := range l.Holding {
		if !h.Lent {
			tokens += h.Tokens
		}
	}
	if l.Used < l.Total && (len(l.Waiting) == 0 || l.Total-l.Used >= l.Waiting[0].Tokens) || tokens < l.Used || len(l.Holding) < l.Holders || tokens == 0 {
		return false // the holders are not known, or a waiter is about to get a token
	}
	if r.loops(limiterID(n)) {
		return true
	}
	fmt.Fprintf(&r.where, "limiter %d of %d\n", l.Used, l.Total)
	var end *trail
	looped := false
	for _, h := range l.Holding {
		if h.Lent {
			continue
		}
		one := &trail{goroutines: slices.Clone(r.goroutines), been: slices.Clone(r.been), first: r.first}
		if !q.holder(l, h, one) {
			return false
		}
		fmt.Fprintf(&r.where, "held by goroutine %d\n%s", h.Goroutine, one.where.String())
		end, looped = one, looped || one.looped
	}
	r.goroutines, r.behind, r.looped = end.goroutines, end.behind, looped
	return true
}

type limiterID int

func (q *inquiry) holder(l *core.ResourceState, h core.ResourceParty, r *trail) bool {
	for _, w := range l.Waiting {
		if w.Goroutine == h.Goroutine {
			r.goroutines, r.looped = append(r.goroutines, h.Goroutine), true
			return true
		}
	}
	if h.Thread != 0 {
		return q.thread(q.threads[h.Thread], r)
	}
	if t := q.ofThread[h.Goroutine]; t != nil {
		return q.thread(t, r)
	}
	for _, f := range q.functions {
		if f.Goroutine == h.Goroutine {
			return q.goroutine(h.Goroutine, f.Function, h.Name, r)
		}
	}
	r.at(nil, h.Name)
	if q.parked(h.Goroutine, false, r) {
		return !q.inputs(h.Goroutine)
	}
	// A goroutine that is nobody's may wait, through this module, for something
	// that the graph does not know: for one in the line, if it has started that.
	g := q.stacks[h.Goroutine]
	if g == nil || !parked[g.State] || !g.inside() || len(q.callers[h.Goroutine]) > 0 {
		return false
	}
	r.where.WriteString(g.body)
	return slices.ContainsFunc(l.Waiting, func(w core.ResourceParty) bool { return q.descends(w.Goroutine, h.Goroutine) })
}

// inputs reports whether the goroutine id is parked inside a standard package
// that waits for the outside world: a request, a process, a database.
func (q *inquiry) inputs(id int64) bool {
	for _, f := range q.stacks[id].all {
		if plumbing(f.Func) {
			continue
		}
		for _, p := range []string{"net.", "net/", "os.", "os/", "database/sql", "crypto/tls", "vendor/golang.org/x/net/", "golang.org/x/net/"} {
			if strings.HasPrefix(f.Func, p) {
				return true
			}
		}
		return false
	}
	return false
}

// descends reports whether the goroutine id was started by the goroutine of,
// directly or through others.
func (q *inquiry) descends(id, of int64) bool {
	for range maxTrail {
		g := q.stacks[id]
		if g == nil || g.Creator == 0 {
			return false
		}
		if id = g.Creator; id == of {
			return true
		}
	}
	return false
}

// branch tries one of several ways on from r. It changes r if that is the one.
func (q *inquiry) branch(r *trail, try func(*trail) bool) bool {
	one := &trail{goroutines: slices.Clone(r.goroutines), been: slices.Clone(r.been), first: r.first, behind: r.behind}
	one.where.WriteString(r.where.String())
	if !try(one) {
		return false
	}
	r.goroutines, r.been, r.looped, r.first, r.behind = one.goroutines, one.been, one.looped, one.first, one.behind
	r.where.Reset()
	r.where.WriteString(one.where.String())
	return true
}

// goroutine is thread for a goroutine that runs the function called name, which
// has the number n in the graph.
func (q *inquiry) goroutine(id int64, n int, name string, r *trail) bool {
	if t := q.ofThread[id]; t != nil {
		return q.thread(t, r)
	}
	if f := q.functions[n]; f != nil {
		if r.loops(n) {
			return true
		}
		r.at(nil, f.Name)
		r.goroutines = append(r.goroutines, id)
		fmt.Fprintf(&r.where, "goroutine %d in %s\n", id, f.Wait.Kind)
		return !q.moves(id) && q.wait(&f.Wait, r)
	}
	r.at(nil, name)
	return q.parked(id, false, r)
}

// parked is thread for a goroutine that is in no wait of this module, as far as
// the graph knows. pulled says that it is the body of an iterator: the graph
// does not know what that waits for.
func (q *inquiry) parked(id int64, pulled bool, r *trail) bool {
	if len(r.goroutines) > maxTrail {
		return false
	}
	r.goroutines = append(r.goroutines, id)
	g := q.stacks[id]
	switch {
	case g == nil:
		return false
	case g.State == coroutine:
		r.where.WriteString(g.body)
		body := running(id, q.stacks)
		return body != nil && q.parked(body.ID, true, r)
	case g.raw():
		r.where.WriteString(g.body)
		return true
	case !parked[g.State] || !g.inside():
		return false
	}
	// It is in a wait of this module that is no function's of its own: for the
	// call that it has made last.
	var last *callRef
	for i, c := range q.callers[id] {
		if last == nil || c.Waited < last.Waited {
			last = &q.callers[id][i]
		}
	}
	if last == nil || last.queued && last.Served {
		r.where.WriteString(g.body)
		return last == nil && pulled
	}
	fmt.Fprintf(&r.where, "goroutine %d waits for call %d of thread %d\n", id, last.Seq, last.thread.ID)
	return q.thread(last.thread, r)
}

// startedBelow reports whether the goroutine id was started, as far as that can
// be told, by a function that one of the goroutines runs at the moment; or by
// one that was started so, or is called by one that was. The go statement must
// be in such a function, or the goroutine must run a function literal of one: a
// goroutine that outlives the function that started it belongs to none.
func (q *inquiry) startedBelow(id int64, goroutines []int64) bool {
	todo := []int64{id}
	for i := 0; i < len(todo) && i < maxTrail; i++ {
		g := q.stacks[todo[i]]
		if t := q.ofThread[todo[i]]; t != nil && i > 0 {
			// A thread's goroutine runs calls, no matter what has started it.
			for _, c := range t.Stack {
				if c.Caller != 0 && !slices.Contains(todo, c.Caller) {
					todo = append(todo, c.Caller)
				}
			}
		}
		if g == nil || g.CreatedBy == nil || g.Creator == 0 || slices.Contains(todo, g.Creator) {
			continue
		}
		by, t := q.stacks[g.Creator], q.ofThread[g.Creator]
		switch {
		case slices.Contains(goroutines, g.Creator):
			if by != nil && by.started(g) {
				return true
			}
		case t == nil || by != nil && by.started(g):
			todo = append(todo, g.Creator)
		}
	}
	return false
}

// charged returns the call of t's queue that the functions on the trail seem to
// wait for.
func (q *inquiry) charged(t *core.ThreadState, r *trail) (c core.CallState, ok bool) {
	if t.Below && !t.Queue[t.BelowAt].Served {
		return t.Queue[t.BelowAt], true
	}
	for _, c := range t.Queue {
		if !c.Served && c.Caller != 0 && r.has(c.Caller) {
			return c, true
		}
	}
	for _, c := range t.Queue {
		if !c.Served && !c.Detached && c.Caller != 0 && q.startedBelow(c.Caller, r.goroutines) {
			return c, true
		}
	}
	return c, false
}
