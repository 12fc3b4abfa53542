package deadlock

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"asyncsync.dev/internal/core"
)

// A Kind says what a [Verdict] is about. Later versions may add kinds.
type Kind string

const (
	// Probable says that a function on a thread seems to wait, in a way that this
	// module does not see, for something that waits for the function. Both of these
	// were found:
	//
	//   - A call in the thread's queue, or a wait for the end of its context or
	//     pool, was made from below the function.
	//   - The function, or what it waits for through this module, was parked in the
	//     same place, twice, on a channel, a select, a pipe, or something of
	//     package sync.
	//
	// Code is below the function if it runs with the function's ctx, or with one
	// derived from it, or on a goroutine that the function has started, as far as
	// the stacks show that. Code with a detached ctx is not.
	//
	// A Probable can also be about a token of a limiter: somebody waits for one,
	// and all holders of its tokens were found twice to wait for it too, or to be
	// parked as above.
	//
	// Or it is about a thread loop: a task of the loop, or a function posted to it,
	// was found twice to be parked as above in one and the same turn, while others
	// were ready to run there. Then a wait that this module does not see blocks the
	// whole loop.
	Probable Kind = "probable"
	// Slow says that the first call in a queue has waited longer than
	// [Config.Slow]: in the queue of a thread, or of a context that waits for a
	// thread of its pool. Or the first caller in line for a token of a limiter has.
	Slow Kind = "slow"
	// Retracted takes back a Probable or a Slow: the call has left the queue.
	Retracted Kind = "retracted"
)

// A Verdict is a finding of a watcher.
type Verdict struct {
	Kind Kind
	// Thread is the ID of the thread in the report, and Name its name.
	Thread uint64
	Name   string
	// Seq is the number of the call on that thread, and Call its name.
	Seq  uint64
	Call string
	// Age is how long the caller has waited. In a Retracted it is how long the
	// caller had waited when the call left the queue.
	Age time.Duration
	// Site is where the call was made, or nil if that is not known.
	Site *Frame
	// Lined says that the context has no thread yet: it waits in line for one of
	// its pool.
	Lined bool
	// Running is the name of the function that runs on the thread, or "" if there
	// is none. In a Probable, Behind is the name of what that function waits for in
	// the end, through waits of this module, or "" if it waits for nothing; and
	// Parked says what the goroutine at that end is parked on.
	Running string
	Behind  string
	Parked  string
	// Wait is set if a Probable is not about a call: it is the wait for the end of
	// a context or a pool, or for a token. Then Seq is 0 and Call is "".
	Wait *Wait
	// Loop is the ID of the loop if a Probable is about a loop, and Name is the
	// loop's name. Then Running is what runs on the loop, and Thread and Seq are 0.
	Loop uint64
	// Report is what all threads did when the verdict was reached. It is never nil;
	// a Retracted has the report of the earlier verdict.
	Report *Report
	// Since is the report of the previous verdict, as long as there are verdicts
	// that have not been retracted. String leaves out what is the same in both
	// reports. Otherwise Since is nil.
	Since *Report
	// Retracts is the verdict that a Retracted takes back. It is nil for others.
	Retracts *Verdict
}

// Title describes the verdict in one line.
func (v Verdict) Title() string {
	thread, unserved := cmp.Or(v.Name, "(unnamed)"), false
	if v.Report != nil {
		for i := range v.Report.Threads {
			if t := &v.Report.Threads[i]; t.ID == v.Thread {
				thread, unserved = t.name(), t.unserved()
			}
		}
	}
	waits := ""
	if v.Wait != nil {
		waits = fmt.Sprintf("%s, which waits for %s", v.Wait.From, v.Wait.what())
	}
	switch v.Kind {
	case Retracted:
		was := "slow"
		if v.Retracts != nil && v.Retracts.Kind == Probable {
			was = "a probable deadlock"
		}
		if v.Loop != 0 {
			return fmt.Sprintf("no longer %s: loop %s goes on after %v", was, v.Name, round(v.Age))
		}
		if waits != "" {
			return fmt.Sprintf("no longer %s: %s, after %v", was, waits, round(v.Age))
		}
		return fmt.Sprintf("no longer %s: call %s has left the queue of thread %s after %v", was, v.Call, thread, round(v.Age))
	case Slow:
		if waits != "" {
			return fmt.Sprintf("slow: %s has waited %v for %s", v.Wait.From, round(v.Age), v.Wait.what())
		}
		runs := ""
		if v.Lined {
			runs = ", which waits for one of its pool"
		} else if v.Running != "" {
			runs = ", which runs " + v.Running
		} else if unserved {
			runs = ", whose goroutine is not in RunUntil"
		}
		return fmt.Sprintf("slow: call %s has waited %v for thread %s%s", v.Call, round(v.Age), thread, runs)
	}
	if v.Loop != 0 {
		ready := 0
		for _, l := range v.Report.Loops {
			if l.ID == v.Loop {
				ready = l.Ready
			}
		}
		return fmt.Sprintf("probable deadlock: loop %s runs %s, which has been parked in %s for %v and keeps %s from running",
			cmp.Or(v.Name, "(unnamed)"), v.Running, v.Parked, round(v.Age), count(ready, "other"))
	}
	runs := v.Running
	if v.Behind != "" {
		runs += ", which waits for " + v.Behind
	}
	if v.Wait != nil && v.Wait.Kind == "limiter" {
		return fmt.Sprintf("probable deadlock: %s has waited %v for a limiter, and all holders of its tokens wait for it or are parked", v.Wait.From, round(v.Age))
	}
	if waits != "" {
		return fmt.Sprintf("probable deadlock: thread %s runs %s, which is parked in %s, while %s from below it, has waited %v",
			thread, runs, v.Parked, strings.Replace(waits, ", which waits", ", waiting", 1), round(v.Age))
	}
	return fmt.Sprintf("probable deadlock: thread %s runs %s, which is parked in %s, while call %s, made from below it, has waited %v for that thread",
		thread, runs, v.Parked, v.Call, round(v.Age))
}

// String returns the verdict as text for people. Unless it is a Retracted, the
// text includes the report: all of it, or what has changed since the previous
// one.
func (v Verdict) String() string {
	if v.Kind == Retracted {
		return v.Title() + "\n"
	}
	return v.Title() + "\n\n" + v.text() + "\n" + see(v.page()) + "\n"
}

// text returns what String says of the report.
func (v Verdict) text() string {
	if v.Since != nil {
		return v.Report.since(v.Since)
	}
	return v.Report.String()
}

// Page returns the name of the page that explains the verdict and the remedy, like
// [Error].Page: one of [PageRawWait] and the other constants. A Retracted has the page
// of the verdict that it takes back.
func (v Verdict) Page() string {
	if v.Retracts != nil {
		return v.Retracts.page()
	}
	return v.page()
}

func (v Verdict) page() string {
	switch {
	case v.Wait != nil && v.Wait.Kind == "limiter":
		return PageLimiter
	case v.Loop != 0:
		return PageBlockedLoop
	case v.Lined:
		return PageFullPool
	case v.Kind == Slow:
		return PageSlow
	}
	return PageRawWait
}

// Config says what [Watch] looks for.
type Config struct {
	// Slow is how long a call may be the first in a queue before it is reported. 0
	// means never. A thread is exempt if its function is marked as long-running, or
	// waits for one that is.
	Slow time.Duration
	// Interval is the time from one look at the threads to the next; if nothing
	// moves there is an additional look in between. A verdict comes at most one
	// interval late. A Probable comes at most two late, and one more each time that the
	// collector moves the stack of a parked goroutine that it is about. 0 means one
	// second, or Slow if that is shorter, but not less than 10 ms.
	Interval time.Duration
	// OnVerdict is called for each verdict. It must not be nil. Verdicts come one
	// by one, in order, on a goroutine of their own. The function may take its
	// time, block, and call this module like any other code. While it has not
	// returned, up to 16 verdicts are kept for it and no further ones are reached;
	// retractions are always delivered.
	//
	// If it panics or calls [runtime.Goexit], the watcher logs that with the stack
	// to the default logger of log/slog and goes on.
	OnVerdict func(Verdict)
}

const (
	defaultInterval = time.Second
	minInterval     = 10 * time.Millisecond
	maxMail         = 16 // verdicts on their way to a handler
)

// Watch looks at all threads periodically and calls cfg.OnVerdict for what
// seems stuck and for what has waited long: once for each such call, and once
// more, as [Retracted], when the call has left the queue. The text of a verdict
// does not repeat what the report of the previous one says: see
// [Verdict.Since]. Watch panics if OnVerdict is nil or a duration is negative.
//
// Verdicts are suspicions: Watch refuses and cancels nothing.
//
// stop ends the watcher and drops verdicts that have not been delivered. After
// stop has returned, no call of OnVerdict begins; one that has begun may go on.
// So stop may be called from anywhere, including OnVerdict, and any number of
// times. There may be several watchers, which are independent. In a
// testing/synctest bubble a watcher uses the bubble's clock, and must be
// stopped in the bubble.
//
// A watcher has one goroutine, and a second one while verdicts are being
// delivered. Each look locks every thread in turn, briefly. It reads the stacks
// of all goroutines, as in [Take], only for the report of a verdict, and while
// some call may be waiting for itself in the sense of [Probable]: once each
// interval while a function has queued calls from below itself, and otherwise,
// where nothing has moved for half an interval, for at most a tenth of the
// time.
func Watch(cfg Config) (stop func()) {
	switch {
	case cfg.OnVerdict == nil:
		panic("deadlock: Watch: nil OnVerdict")
	case cfg.Slow < 0:
		panic("deadlock: Watch: negative Slow")
	case cfg.Interval < 0:
		panic("deadlock: Watch: negative Interval")
	}
	return watch(runtimeSource, cfg)
}

func watch(src *source, cfg Config) (stop func()) {
	if cfg.Interval == 0 {
		cfg.Interval = defaultInterval
		if cfg.Slow > 0 {
			cfg.Interval = max(min(cfg.Interval, cfg.Slow), minInterval)
		}
	}
	m := &mail{tell: cfg.OnVerdict}
	w := &watcher{src: src, slow: cfg.Slow, mail: m}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		halves(cfg.Interval, quit, w.look, w.glance)
		w.drop()
	}()
	var once sync.Once
	return func() {
		once.Do(func() { close(quit) })
		<-done
		m.clear() // nobody adds to it any more
	}
}

// every calls f at each interval until quit is closed.
func every(interval time.Duration, quit <-chan struct{}, f func()) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-quit:
			return
		case <-tick.C:
			f()
		}
	}
}

// halves calls f at each interval until quit is closed. If f returns true, it
// calls half half an interval later.
func halves(interval time.Duration, quit <-chan struct{}, f func() bool, half func()) {
	tick, late := time.NewTicker(interval), time.NewTimer(interval)
	defer tick.Stop()
	defer late.Stop()
	late.Stop()
	for {
		select {
		case <-quit:
			return
		case <-tick.C:
			late.Stop()
			if f() {
				late.Reset(interval / 2)
			}
		case <-late.C:
			half()
		}
	}
}

// mail delivers verdicts to a handler, one by one, on a goroutine that exists
// while there are any.
type mail struct {
	tell func(Verdict)

	mu      sync.Mutex
	waiting []Verdict
	running bool
}

// full reports whether the handler is so far behind that no verdict should be
// added. Retractions of verdicts that the handler has got or will get are not
// counted: there are no more of them than verdicts.
func (m *mail) full() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.waiting) >= maxMail
}

func (m *mail) post(v Verdict) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiting = append(m.waiting, v)
	if !m.running {
		m.running = true
		go m.run()
	}
}

func (m *mail) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiting = nil
}

func (m *mail) next() (v Verdict, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.waiting) == 0 {
		m.running, m.waiting = false, nil
		return v, false
	}
	v = m.waiting[0]
	m.waiting = slices.Delete(m.waiting, 0, 1)
	return v, true
}

func (m *mail) run() {
	ended := false
	defer func() {
		if !ended {
			go m.run() // the handler has ended this goroutine
		}
	}()
	for {
		v, ok := m.next()
		if !ok {
			ended = true
			return
		}
		m.deliver(v)
	}
}

func (m *mail) deliver(v Verdict) {
	returned := false
	defer func() {
		if returned {
			return
		}
		if p := recover(); p != nil {
			slog.Error("deadlock: OnVerdict panicked", "panic", p, "stack", string(debug.Stack()))
		} else {
			slog.Error("deadlock: OnVerdict ended its goroutine", "stack", string(debug.Stack()))
		}
	}()
	m.tell(v)
	returned = true
}

// sightings is how many looks in a row must find a function parked in the same
// place.
const sightings = 2

// A watcher records what it has seen and told. Only its goroutine uses it.
type watcher struct {
	src  *source
	slow time.Duration
	mail *mail

	heads    map[uint64]head      // by thread
	before   map[subject]standing // of those who may be suspects, at the look before
	parked   map[subject]sighting
	innocent map[callID]string // calls that no wait was found for, and behind what
	charges  map[charge]*open
	last     *Report // of the last charge

	// Reading stacks while no call was known to wait for itself: when it was last
	// done, and how long it took.
	read time.Time
	cost time.Duration
}

// A head is the first call of a queue, and when it was first seen there.
type head struct {
	seq   uint64
	since time.Time
}

// A sighting is a suspect that was seen. where contains everything that must be
// the same when it is seen again.
type sighting struct {
	where string
	times int
	since time.Time // when what was seen at first was first there
}

// A standing is what a waiter stands behind, and since when.
type standing struct {
	what  string
	since time.Time
}

// A charge is what a verdict says of a suspect.
type charge struct {
	kind Kind
	subject
}

// open is a verdict that was delivered and not retracted.
type open struct {
	verdict Verdict
	mark    mark // nil if there is none
}

// look looks at the threads. It reports whether there is reason for a glance in
// half an interval.
func (w *watcher) look() (again bool) {
	s := w.src.sample()
	w.retract(s)
	w.meet(s)
	if w.mail.full() {
		return false
	}
	again = w.suspects(s, true)
	if w.slow == 0 {
		return again
	}
	for i := range s.graph.Limiters {
		l := &s.graph.Limiters[i]
		if g := claimant(l, i); g.Wait.Age >= w.slow {
			w.charge(s, suspect{subject: claims(l), thread: s.threadOf(g.Goroutine), waits: g}, Slow, g.Wait.Age)
		}
	}
	for i := range s.graph.Threads {
		t := &s.graph.Threads[i]
		if len(t.Queue) == 0 || t.Long {
			continue
		}
		c := t.Queue[0]
		if age := age(s, c, w.heads[t.ID].since); age >= w.slow {
			w.charge(s, suspect{subject: subject{callID: callID{t.ID, c.Seq}}, thread: t, call: c}, Slow, age)
		}
	}
	return again
}

// claims returns the first waiter in line for a token. There must be one.
func claims(l *core.ResourceState) subject { return subject{goroutine: l.Waiting[0].Goroutine} }

// claimant returns that waiter as a goroutine that waits. i is the index of l
// in the graph.
func claimant(l *core.ResourceState, i int) *core.GoroutineState {
	p := l.Waiting[0]
	return &core.GoroutineState{Goroutine: p.Goroutine, Name: p.Name, Wait: core.WaitState{Kind: "limiter", Age: p.Age, Limiter: i + 1}}
}

// threadOf returns the thread that runs on the goroutine id, or nil.
func (s *sample) threadOf(id int64) *core.ThreadState {
	for i := range s.graph.Threads {
		if t := &s.graph.Threads[i]; t.Goroutine == id {
			return t
		}
	}
	return nil
}

// glance looks only at the waiters of the last look.
func (w *watcher) glance() {
	if !w.mail.full() {
		w.suspects(w.src.sample(), false)
	}
}

// drop forgets all marks.
func (w *watcher) drop() {
	for _, o := range w.charges {
		if o.mark != nil {
			o.mark.Drop()
		}
	}
}

// meet records which call is first in each queue.
func (w *watcher) meet(s *sample) {
	heads := map[uint64]head{}
	for _, t := range s.graph.Threads {
		if len(t.Queue) == 0 {
			continue
		}
		h := head{t.Queue[0].Seq, s.at}
		if old, ok := w.heads[t.ID]; ok && old.seq == h.seq {
			h = old
		}
		heads[t.ID] = h
	}
	w.heads = heads
}

// age returns how long a queued call has waited: according to its thread, or
// else since it was first seen.
func age(s *sample, c core.CallState, since time.Time) time.Duration {
	if c.Waited >= 0 {
		return c.Waited
	}
	return s.at.Sub(since)
}

// retract takes back the verdicts on calls that have left their queues.
func (w *watcher) retract(s *sample) {
	if len(w.charges) == 0 {
		return
	}
	there := queued(s.graph)
	var gone []*open
	for c, o := range w.charges {
		age, left := time.Duration(0), false
		if o.mark != nil {
			age, left = o.mark.Left()
		} else if c.turn.loop != 0 {
			if left = !blocking(s.graph, c.turn); left {
				age = o.verdict.Age + s.at.Sub(o.verdict.Report.Time)
			}
		} else if c.goroutine != 0 {
			if left = !closes(s.graph, c.subject); left {
				age = o.verdict.Age + s.at.Sub(o.verdict.Report.Time)
			}
		} else if left = !there[c.callID]; left {
			age = o.verdict.Age + s.at.Sub(o.verdict.Report.Time)
		}
		if !left {
			continue
		}
		if o.mark != nil {
			o.mark.Drop()
		}
		delete(w.charges, c)
		earlier := o.verdict
		o.verdict.Kind, o.verdict.Age, o.verdict.Retracts = Retracted, age, &earlier
		gone = append(gone, o)
	}
	slices.SortFunc(gone, func(a, b *open) int {
		return cmp.Or(cmp.Compare(a.verdict.Thread, b.verdict.Thread), cmp.Compare(a.verdict.Seq, b.verdict.Seq),
			cmp.Compare(a.verdict.Retracts.Kind, b.verdict.Retracts.Kind))
	})
	for _, o := range gone {
		w.mail.post(o.verdict)
	}
}

// suspects looks for waiters that seem to wait for themselves, and charges
// those that it has seen often enough. It reports whether there are any
// candidates.
//
// If a function is in no wait of this module, and a call from below it is in
// the queue, suspects looks at it once each interval. Other waiters behind a
// thread mostly wait for their turn. Before it reads stacks for one of these,
// what it waits behind must have been the same for half an interval, and at
// most a tenth of the time is spent on that, unless a suspect has been seen
// once.
func (w *watcher) suspects(s *sample, full bool) (any bool) {
	before, now := w.before, map[subject]standing{}
	stands := func(who subject, what string) (long bool) {
		long = before[who].what == what
		now[who] = standing{what, s.at}
		if long {
			now[who] = before[who]
		}
		return long
	}
	var threads []*core.ThreadState
	var goroutines []*core.GoroutineState
	urgent := false
	for i := range s.graph.Threads {
		t := &s.graph.Threads[i]
		if t.Goroutine == 0 || len(t.Stack) == 0 && !t.Exiting || w.told(t) {
			continue
		}
		first := slices.IndexFunc(t.Queue, func(c core.CallState) bool { return !c.Served })
		if first < 0 {
			continue
		}
		known := raw(t)
		who := subject{callID: callID{thread: t.ID}}
		long := stands(who, fmt.Sprint(t.Queue[first].Seq, t.Below, ahead(t)))
		switch {
		case known && full:
			urgent = true
			threads = append(threads, t)
		case !known && long && w.open(t):
			threads = append(threads, t)
		}
	}
	for i := range s.graph.Goroutines {
		g := &s.graph.Goroutines[i]
		who := subject{callID: callID{thread: g.Wait.Thread}, goroutine: g.Goroutine}
		if g.Wait.Kind != "close" && g.Wait.Kind != "pool close" || w.charges[charge{Probable, who}] != nil {
			continue
		}
		if stands(who, g.Wait.Kind) {
			goroutines = append(goroutines, g)
		}
	}
	for i := range s.graph.Limiters {
		l := &s.graph.Limiters[i]
		if who := claims(l); l.Waiters > 0 && w.charges[charge{Probable, who}] == nil && stands(who, fmt.Sprint(l.Total, l.Used, l.Holding)) {
			goroutines = append(goroutines, claimant(l, i))
		}
	}
	var loops []*core.LoopState
	for i := range s.graph.Loops {
		l := &s.graph.Loops[i]
		if who := (subject{turn: turnOf(l)}); blocks(l) && w.charges[charge{Probable, who}] == nil && stands(who, "turn") {
			loops = append(loops, l)
		}
	}
	w.before = now
	if full && len(w.innocent) > 0 {
		there := queued(s.graph)
		maps.DeleteFunc(w.innocent, func(c callID, _ string) bool { return !there[c] })
	}
	if !urgent && (len(threads) == 0 && len(goroutines) == 0 && len(loops) == 0 || len(w.parked) == 0 && s.at.Sub(w.read) < 10*w.cost) {
		if full && len(threads) == 0 && len(goroutines) == 0 && len(loops) == 0 {
			clear(w.parked)
		}
		return len(now) > 0
	}
	start := time.Now()
	q := inquire(&s.graph, s.parse(func(int64) bool { return true }))
	if !urgent {
		w.read, w.cost = s.at, time.Since(start)
	}
	seen := map[subject]bool{}
	for _, t := range threads {
		r := &trail{}
		if !q.thread(t, r) {
			continue
		}
		c, ok := q.charged(t, r)
		if !ok {
			w.clear(t)
			continue
		}
		x := suspect{subject: subject{callID: callID{t.ID, c.Seq}}, thread: t, call: c, parked: q.stacks[r.last()], behind: r.behind}
		seen[x.subject] = true
		w.see(s, x, r)
	}
	for _, g := range goroutines {
		r := &trail{goroutines: []int64{g.Goroutine}}
		if !q.wait(&g.Wait, r) || g.Wait.Limiter == 0 && !r.looped && !g.Below && !q.startedBelow(g.Goroutine, r.goroutines[1:]) {
			continue
		}
		about := r.first
		if g.Wait.Limiter != 0 {
			about = s.threadOf(g.Goroutine)
		}
		x := suspect{subject: subject{callID: callID{thread: g.Wait.Thread}, goroutine: g.Goroutine}, thread: about, waits: g, parked: q.stacks[r.last()], behind: r.behind}
		seen[x.subject] = true
		w.see(s, x, r)
	}
	for _, l := range loops {
		r := &trail{}
		if !q.blockedLoop(l, r) {
			continue
		}
		x := suspect{subject: subject{turn: turnOf(l)}, call: core.CallState{Waited: -1}, parked: q.stacks[r.last()], loop: l}
		seen[x.subject] = true
		w.see(s, x, r)
	}
	maps.DeleteFunc(w.parked, func(x subject, _ sighting) bool {
		return !seen[x] && (full || slices.ContainsFunc(threads, func(t *core.ThreadState) bool { return t.ID == x.callID.thread }))
	})
	return len(now) > 0
}

// see records that x was seen where r has led, and charges it if it was seen
// there before.
func (w *watcher) see(s *sample, x suspect, r *trail) {
	since := s.at
	if stood, ok := w.before[subject{callID: callID{thread: x.callID.thread}}]; ok && x.waits == nil {
		since = stood.since
	}
	if x.loop != nil {
		since = w.before[x.subject].since
	}
	seen := again(w.parked[x.subject], sighting{r.where.String(), 1, since})
	if w.parked == nil {
		w.parked = map[subject]sighting{}
	}
	w.parked[x.subject] = seen
	if seen.times >= sightings {
		w.charge(s, x, Probable, age(s, x.call, seen.since))
	}
}

// ahead describes what keeps the queue of t from being run.
func ahead(t *core.ThreadState) string {
	if len(t.Stack) == 0 {
		return ""
	}
	c := t.Stack[0]
	if c.Wait == nil {
		return fmt.Sprint(c.Seq)
	}
	return fmt.Sprint(c.Seq, c.Wait.Kind, c.Wait.Thread, c.Wait.Seq, c.Wait.Goroutine)
}

// told reports whether an open verdict says that a call in t's queue waits for
// itself.
func (w *watcher) told(t *core.ThreadState) bool {
	return slices.ContainsFunc(t.Queue, func(c core.CallState) bool {
		return w.charges[charge{Probable, subject{callID: callID{t.ID, c.Seq}}}] != nil
	})
}

// clear records that no call in t's queue was made by what t waits for.
func (w *watcher) clear(t *core.ThreadState) {
	if w.innocent == nil {
		w.innocent = map[callID]string{}
	}
	for _, c := range t.Queue {
		w.innocent[callID{t.ID, c.Seq}] = ahead(t)
	}
}

// open reports whether it is undecided that a call in t's queue waits for
// itself.
func (w *watcher) open(t *core.ThreadState) bool {
	return t.Below || slices.ContainsFunc(t.Queue, func(c core.CallState) bool {
		return !c.Served && c.Caller != 0 && w.innocent[callID{t.ID, c.Seq}] != ahead(t)
	})
}

// again counts a sighting that is like the one before.
func again(before, now sighting) sighting {
	if before.where == now.where {
		now.times += before.times
		now.since = before.since
	}
	return now
}

// running returns the coroutine that runs while the goroutine id stands still
// for it, or nil if it is not found. Coroutines that stand still themselves are
// checked last: one of them may do so for another.
func running(id int64, stacks map[int64]*stack) (still *stack) {
	for _, g := range stacks {
		if !g.pulledBy(id) {
			continue
		}
		if g.State != coroutine {
			return g
		}
		if running(g.ID, stacks) != nil {
			still = g
		}
	}
	return still
}

// charge reaches a verdict on x, which has waited for age, unless there is one
// already or x has moved meanwhile.
func (w *watcher) charge(s *sample, x suspect, kind Kind, age time.Duration) {
	c := charge{kind, x.subject}
	if w.charges[c] != nil || w.mail.full() {
		return
	}
	v := s.verdict(x, kind, age)
	if len(w.charges) > 0 {
		v.Since = w.last
	}
	var m mark
	if x.waits == nil && x.loop == nil {
		var marked bool
		if m, marked = w.src.mark(x.callID.thread, x.seq, age); !marked {
			m = nil
		}
	}
	if !s.still(x, kind) {
		if m != nil {
			m.Drop()
		}
		return
	}
	if w.charges == nil {
		w.charges = map[charge]*open{}
	}
	w.charges[c] = &open{v, m}
	w.last = v.Report
	w.mail.post(v)
}

// verdict describes a verdict on x.
func (s *sample) verdict(x suspect, kind Kind, age time.Duration) Verdict {
	also := x.goroutine
	if x.parked != nil {
		also = x.parked.ID
	}
	v := Verdict{Kind: kind, Age: age, Behind: x.behind}
	if x.waits != nil {
		v.Age = x.waits.Wait.Age
	} else {
		v.Seq, v.Call = x.seq, clean(x.call.Name)
	}
	if x.parked != nil {
		v.Parked = x.parked.State
	}
	t := x.thread
	if t != nil {
		v.Thread, v.Name, v.Lined = t.ID, clean(t.Name), t.Lined
		if len(t.Stack) > 0 {
			v.Running = cmp.Or(clean(t.Stack[0].Name), "its caller")
		} else if t.Exiting {
			v.Running = "an exit function"
		}
	}
	if l := x.loop; l != nil {
		v.Seq, v.Call, v.Loop, v.Name, v.Running = 0, "", l.ID, clean(l.Name), clean(l.Running.Name)
	}
	v.Report = s.report(v.Thread, also)
	for _, r := range v.Report.Threads {
		for _, c := range r.Queue {
			if x.waits == nil && r.ID == v.Thread && c.Seq == x.seq {
				v.Site = c.Site
			}
		}
	}
	for i, e := range v.Report.Waits {
		if x.waits != nil && e.From.Goroutine == x.goroutine && e.Kind == x.waits.Wait.Kind {
			v.Wait = &v.Report.Waits[i]
		}
	}
	if x.waits != nil && v.Wait == nil { // it was left out
		v.Wait = &Wait{From: Party{Goroutine: x.goroutine, Name: clean(x.waits.Name)}, Kind: x.waits.Wait.Kind, Age: age}
	}
	return v
}

// still reports whether x still waits, and, if the verdict is about that,
// whether the same function still runs on its thread.
func (s *sample) still(x suspect, kind Kind) bool {
	g := s.src.graph()
	if x.loop != nil {
		return blocking(g, x.turn)
	}
	if x.waits != nil {
		return closes(g, x.subject)
	}
	for _, now := range g.Threads {
		if now.ID != x.callID.thread {
			continue
		}
		queued := slices.ContainsFunc(now.Queue, func(c core.CallState) bool { return c.Seq == x.seq })
		return queued && (kind == Slow || ahead(&now) == ahead(x.thread))
	}
	return false
}

// closes reports whether the goroutine x waits for the end of a context, or is
// the first in line for a token.
func closes(g core.Graph, x subject) bool {
	if slices.ContainsFunc(g.Limiters, func(l core.ResourceState) bool { return claims(&l) == x }) {
		return true
	}
	return slices.ContainsFunc(g.Goroutines, func(f core.GoroutineState) bool {
		return f.Goroutine == x.goroutine && f.Wait.Thread == x.callID.thread && (f.Wait.Kind == "close" || f.Wait.Kind == "pool close")
	})
}

// Log returns a function for [Config.OnVerdict] that writes verdicts to l: a
// warning with the report, and one line at level Info for a retraction. It
// panics if l is nil.
func Log(l *slog.Logger) func(Verdict) {
	if l == nil {
		panic("deadlock: Log: nil Logger")
	}
	return func(v Verdict) {
		attrs := []slog.Attr{
			slog.String("kind", string(v.Kind)), slog.String("thread", v.Name), slog.String("call", v.Call),
			slog.Uint64("seq", v.Seq), slog.Duration("age", v.Age),
		}
		level := slog.LevelWarn
		if v.Kind == Retracted {
			level = slog.LevelInfo
		} else {
			if v.Site != nil {
				attrs = append(attrs, slog.String("site", v.Site.String()))
			}
			attrs = append(attrs, slog.String("report", v.text()), slog.String("page", see(v.page())))
		}
		l.LogAttrs(context.Background(), level, v.Title(), attrs...)
	}
}
