package deadlock

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"asyncsync.dev/internal/core"
)

// TB is the part of [testing.TB] that [Strict] uses.
type TB interface {
	Helper()
	Cleanup(func())
	Errorf(format string, args ...any)
}

// What is left of a test that hangs is patience: a function must be seen parked
// in the same place so often, at this interval, before Strict ends its wait.
const (
	strictInterval  = 100 * time.Millisecond
	strictSightings = 11
)

// How long a context may take to close after a test.
const (
	leakInterval = 10 * time.Millisecond
	leakLooks    = 100
)

// Strict makes a test fail where the program could hang. Call it first in the
// test, so that it ends last.
//
// Until the test ends, all threads serve as little as possible: on top of a
// blocked function they run only what its wait is known to depend on. A thread
// with the policy All serves as if it had Related. A wait for something unknown
// serves no call. So a dependency that works only because a call happens to be
// served shows up as a deadlock.
//
// When it does, or when a function on a thread waits as described at
// [Probable], Strict waits a second. Then it makes the call that cannot begin
// fail with an [*Error], and reports the failure with a [Report] to t. So the
// test ends instead of hanging. A function that is blocked for a second, by a
// timer for example, while such a call is queued counts as a deadlock too, also
// if that second is one of testing/synctest.
//
// After the test, each context that got a thread during the test and is not
// closed is a failure as well, after a second of grace. The default thread is
// exempt, and so are contexts that were never called.
//
// Strict affects the whole process: a test that calls it must not run in
// parallel with others. A test in a testing/synctest bubble must call it in the
// bubble. Calls made in another bubble than Strict are reported but not ended.
func Strict(t TB) {
	t.Helper()
	strict(runtimeSource, t)
}

// strictTests counts the strict tests.
var strictTests struct {
	sync.Mutex
	n int
}

// strictly adds n to the number of strict tests.
func (src *source) strictly(n int) {
	strictTests.Lock()
	defer strictTests.Unlock()
	before := strictTests.n
	strictTests.n += n
	if (before > 0) != (strictTests.n > 0) {
		src.strict(strictTests.n > 0)
	}
}

func strict(src *source, t TB) {
	before := map[uint64]bool{}
	for _, th := range src.graph().Threads {
		if !th.Lined {
			before[th.ID] = true
		}
	}
	src.strictly(1)
	w := &strictWatcher{src: src, t: t}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		w.bubble = src.bubble()
		every(strictInterval, quit, w.look)
	}()
	t.Cleanup(func() {
		t.Helper()
		close(quit)
		<-done
		src.strictly(-1)
		if leaked := src.leaked(before); len(leaked) > 0 {
			n := count(len(leaked), "context")
			if more := len(leaked) - maxCalls; more > 0 {
				leaked = append(leaked[:maxCalls], fmt.Sprintf("and %d more", more))
			}
			t.Errorf("deadlock: Strict: %s not closed: %s; %s", n, strings.Join(leaked, ", "), see(PageStrict))
		}
	})
}

// bubble returns the number of the caller's synctest bubble, or 0 outside of
// one.
func bubble() int {
	buf := make([]byte, 1<<10)
	n := runtime.Stack(buf, false)
	for _, g := range parse(buf[:n], func(int64) bool { return true }) {
		return g.bubble
	}
	return 0
}

// leaked returns the names of the threads that are not in before and do not go
// away.
func (src *source) leaked(before map[uint64]bool) []string {
	for look := 1; ; look++ {
		var names []string
		for _, t := range src.graph().Threads {
			if !before[t.ID] && !t.Lined && !t.Adopted && t.Name != "default" {
				names = append(names, cmp.Or(title(clean(t.Name), made(&t)), "(unnamed)"))
			}
		}
		if len(names) == 0 || look == leakLooks {
			return names
		}
		time.Sleep(leakInterval)
	}
}

// An accused is a thread and the goroutine that its function is parked on: that
// of the thread, or a coroutine on it.
type accused struct {
	*core.ThreadState
	parked *stack
}

// raw reports whether the function on top of t may wait, unknown to this
// module, for a call of the queue: see suspected.
func raw(t *core.ThreadState) bool {
	return t.Below && len(t.Queue) > 0 && len(t.Stack) > 0 && t.Stack[0].Wait == nil && t.Goroutine != 0
}

// suspected returns the queued call that the function on top of t may wait for,
// or else the first one. The queue must not be empty.
func suspected(t *core.ThreadState) core.CallState {
	if raw(t) {
		return t.Queue[t.BelowAt]
	}
	return t.Queue[0]
}

// parkedIn returns the goroutine that the function on top of t is parked on,
// and the stack in which it is parked.
func parkedIn(t *core.ThreadState, stacks map[int64]*stack) (g *stack, body string, ok bool) {
	g = stacks[t.Goroutine]
	pulls := false
	for g != nil && g.State == coroutine {
		pulls = true
		body += g.body
		g = running(g.ID, stacks)
	}
	if g == nil || !g.raw() && !(pulls && parked[g.State]) {
		return nil, "", false
	}
	return g, body + g.body, true
}

// A strictWatcher looks for calls that cannot begin.
type strictWatcher struct {
	src      *source
	t        TB
	bubble   int
	parked   map[uint64]sighting // by thread
	told     map[callID]bool     // those that could not be ended
	failures int
}

func (w *strictWatcher) look() {
	s := w.src.sample()
	var candidates []*core.ThreadState
	for i := range s.graph.Threads {
		if t := &s.graph.Threads[i]; raw(t) || unserved(t) {
			candidates = append(candidates, t)
		}
	}
	if len(candidates) == 0 {
		w.parked = nil
		return
	}
	// The chain of creators may lead through any of them.
	stacks := s.parse(func(int64) bool { return true })
	parked := map[uint64]sighting{}
	for _, t := range candidates {
		g, body, ok := stuckIn(t, &s.graph, stacks)
		if !ok {
			continue
		}
		seen := again(w.parked[t.ID], sighting{fmt.Sprint(suspected(t).Seq, t.Stack[0].Seq, body), 1, s.at})
		parked[t.ID] = seen
		if seen.times >= strictSightings {
			w.end(s, accused{t, g}, stacks)
		}
	}
	w.parked = parked
}

// unserved reports whether the function on top of t is in a wait of this module
// that does not serve the first call of the queue.
func unserved(t *core.ThreadState) bool {
	return len(t.Queue) > 0 && t.Queue[0].Stranger && len(t.Stack) > 0 && t.Stack[0].Wait != nil && t.Goroutine != 0
}

// stuckIn follows what the suspected call of t waits for. If all of it is
// parked and may be waiting for that call, it returns the last stack and the
// text of all stacks.
func stuckIn(t *core.ThreadState, g *core.Graph, stacks map[int64]*stack) (last *stack, body string, ok bool) {
	if raw(t) {
		return parkedIn(t, stacks)
	}
	chain := waitChain(t, g)
	if t.Policy != core.All && !(t.Below && t.BelowAt == 0) && !descends(t.Queue[0].Caller, chain, stacks) {
		return nil, "", false // a stranger that waits for its turn
	}
	last = stacks[chain[len(chain)-1]]
	if last == nil || !parked[last.State] {
		return nil, "", false
	}
	var b strings.Builder
	for _, id := range chain {
		if g := stacks[id]; g != nil {
			b.WriteString(g.body)
		}
	}
	return last, b.String(), true
}

// waitChain returns the goroutine of t, the goroutine that it waits for, the
// one that this one waits for, and so on as far as that is known.
func waitChain(t *core.ThreadState, g *core.Graph) (chain []int64) {
	at := t.Goroutine
	for at != 0 && !slices.Contains(chain, at) {
		chain = append(chain, at)
		var w *core.WaitState
		for i := range g.Threads {
			if th := &g.Threads[i]; th.Goroutine == at && len(th.Stack) > 0 {
				w = th.Stack[0].Wait
			}
		}
		for i := range g.Goroutines {
			if w == nil && g.Goroutines[i].Goroutine == at {
				w = &g.Goroutines[i].Wait
			}
		}
		if w == nil {
			break
		}
		at = w.Goroutine
		for i := range g.Threads {
			if w.Thread != 0 && g.Threads[i].ID == w.Thread {
				at = g.Threads[i].Goroutine
			}
		}
	}
	return chain
}

// descends reports whether the goroutine id is one of ancestors or was started
// by one of them, directly or through others.
func descends(id int64, ancestors []int64, stacks map[int64]*stack) bool {
	for range len(stacks) + 1 {
		if slices.Contains(ancestors, id) {
			return true
		}
		g := stacks[id]
		if g == nil || g.Creator == 0 {
			return false
		}
		id = g.Creator
	}
	return false
}

// end makes the suspected call of t fail, and the test with it.
func (w *strictWatcher) end(s *sample, t accused, stacks map[int64]*stack) {
	call := suspected(t.ThreadState)
	id := callID{t.ID, call.Seq}
	if w.told[id] {
		return
	}
	kind, page := Probable, PageRawWait
	if t.Stack[0].Wait != nil {
		page = PageCallToBlockedThread
	}
	x := suspect{subject: subject{callID: id}, thread: t.ThreadState, call: call, parked: t.parked}
	v := s.verdict(x, kind, max(call.Waited, -1))
	text, e := w.describe(t, call, &v, page)
	what := "the call was ended"
	g := stacks[call.Caller]
	switch {
	case g == nil && call.Caller != 0:
		return // the bubble of the caller is not known
	case !s.still(x, kind):
		return
	case g != nil && g.bubble != w.bubble:
		what = "the call was not ended, being of another synctest bubble than Strict"
		if w.told == nil {
			w.told = map[callID]bool{}
		}
		w.told[id] = true
	case !w.src.refuse(t.ID, call.Seq, e):
		return // it has left the queue
	}
	w.failures++
	if w.failures > 1 {
		w.t.Errorf("deadlock: Strict: %s; %s", text, what) // the report is much the same
		return
	}
	w.t.Errorf("deadlock: Strict: %s; %s\n\n%s\n%s", text, what, v.Report, see(page))
}

// describe says what a verdict on t's call means, for the test's log and as the
// error of the call.
func (w *strictWatcher) describe(t accused, queued core.CallState, v *Verdict, page string) (text string, e *Error) {
	doing := "parked in " + v.Parked
	wait := core.Link{Who: v.Running, Goroutine: t.Goroutine, Thread: v.Name, Kind: "parked", For: v.Call, Age: -1}
	if of := t.Stack[0].Wait; of != nil {
		doing = "blocked in " + of.Kind + " and does not serve it"
		wait.Kind, wait.Age = of.Kind, of.Age
	} else {
		for _, f := range t.parked.Frames {
			if !plumbing(f.Func) {
				wait.Site = fmt.Sprintf("%s:%d", f.File, f.Line)
				break
			}
		}
	}
	call := core.Link{Who: "its caller", Goroutine: queued.Caller, Kind: "call", For: v.Call, Age: queued.Waited}
	from := ""
	if v.Site != nil {
		call.Who = v.Site.Func
		call.Site = fmt.Sprintf("%s:%d", v.Site.File, v.Site.Line)
		from = ", called from " + v.Site.String() + ","
	}
	text = fmt.Sprintf("call %s%s waits for thread %s, whose function %s is %s",
		v.Call, from, cmp.Or(title(v.Name, made(t.ThreadState)), "(unnamed)"), v.Running, doing)
	return text, &Error{Message: text, Cycle: []Link{wait, call}, Page: page}
}
