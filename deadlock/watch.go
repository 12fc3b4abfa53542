package deadlock

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"asyncsync.dev/internal/core"
)

// A Kind says what a [Verdict] is about. There may be more of them one day.
type Kind string

const (
	// Probable says that a function on a thread seems to wait, in a way that
	// this module does not see, for a call that waits for the function: a call
	// in the thread's queue was made from below the function, and the
	// function's goroutine was found parked in the same place, twice, on a
	// channel, a select, or something of package sync.
	Probable Kind = "probable"
	// Slow says that the first call in a thread's queue, or in that of a context
	// which waits in line for a thread of its pool, has waited longer than
	// [Config.Slow].
	Slow Kind = "slow"
	// Retracted takes back a Probable or a Slow: the call has left the queue.
	Retracted Kind = "retracted"
)

// A Verdict is what a watcher has found.
type Verdict struct {
	Kind Kind
	// Thread is the ID of the thread in the report, and Name its name.
	Thread uint64
	Name   string
	// Seq is the number of the call on that thread, and Call its name.
	Seq  uint64
	Call string
	// Age is how long the caller has waited. In a Retracted it is how long it
	// had waited when the call left the queue.
	Age time.Duration
	// Site is where the call was made, nil if that is not known.
	Site *Frame
	// Lined says that the thread is none yet: its context waits in line for one
	// of its pool.
	Lined bool
	// Running is the name of the function that runs on the thread, "" if none
	// does; in a Probable, Parked is what its goroutine is parked on.
	Running string
	Parked  string
	// Report is what all threads did when the verdict was reached. It is never
	// nil; that of a Retracted is the earlier verdict's.
	Report *Report
	// Retracts is the verdict that a Retracted takes back, nil for others.
	Retracts *Verdict
}

// Title says in one line what the verdict is.
func (v Verdict) Title() string {
	thread := cmp.Or(v.Name, "(unnamed)")
	switch v.Kind {
	case Retracted:
		was := "slow"
		if v.Retracts != nil && v.Retracts.Kind == Probable {
			was = "a probable deadlock"
		}
		return fmt.Sprintf("no longer %s: call %s has left the queue of thread %s after %v", was, v.Call, thread, round(v.Age))
	case Slow:
		runs := ""
		if v.Lined {
			runs = ", which waits for one of its pool"
		} else if v.Running != "" {
			runs = ", which runs " + v.Running
		}
		return fmt.Sprintf("slow: call %s has waited %v for thread %s%s", v.Call, round(v.Age), thread, runs)
	}
	return fmt.Sprintf("probable deadlock: thread %s runs %s, which is parked in %s, while call %s, made from below it, has waited %v for that thread",
		thread, v.Running, v.Parked, v.Call, round(v.Age))
}

// String returns the verdict for people, with its report unless it is a
// Retracted.
func (v Verdict) String() string {
	switch v.Kind {
	case Retracted:
		return v.Title() + "\n"
	case Slow:
		page := pageSlow
		if v.Lined {
			page = pageFullPool
		}
		return v.Title() + "\n\n" + v.Report.String() + "\n" + see(page) + "\n"
	}
	return v.Title() + "\n\n" + v.Report.String() + "\n" + see(pageRawWait) + "\n"
}

// Config says what to watch for.
type Config struct {
	// Slow is how long a call may be first in a queue until that is reported. 0
	// means that it is not. A thread whose function is marked as long-running,
	// or waits for one that is, is exempt.
	Slow time.Duration
	// Interval is the time from one look at the threads to the next. A verdict
	// comes at most one interval late, a Probable two. 0 means one second, or
	// Slow if that is shorter, but not below 10 ms.
	Interval time.Duration
	// OnVerdict is told of each verdict, and must not be nil. Verdicts come one
	// by one, in order, on a goroutine that is for nothing else. The function
	// may take its time, block, and call this module like any other. While it
	// has not returned, 16 verdicts are kept for it and no further ones
	// reached; what is retracted is always told.
	//
	// If it panics or ends its goroutine, that goes to the default logger of
	// log/slog, with the stack, and the watcher goes on.
	OnVerdict func(Verdict)
}

const (
	defaultInterval = time.Second
	minInterval     = 10 * time.Millisecond
	maxMail         = 16 // verdicts on their way to a handler
)

// Watch looks at all threads every interval, and has cfg.OnVerdict told of what
// seems stuck and of what has waited long: once for each such call, and once
// more, as [Retracted], when that call has left the queue.
//
// It has one goroutine, and a second one while there are verdicts to be told.
// Nothing is refused or cancelled: verdicts are suspicions. A look takes a lock
// of each thread in turn, for a moment. Only while some call might be waiting
// for itself in the way of a [Probable], and for the report of a verdict, the
// stacks of all goroutines are read as in [Take].
//
// stop ends the watcher and drops verdicts that have not been told. After it
// has returned no call of OnVerdict begins; one that has begun may go on. So it
// may be called from anywhere, OnVerdict included, and any number of times.
// There may be any number of watchers; they know nothing of each other. In a
// testing/synctest bubble a watcher goes by the time of the bubble, and must be
// stopped there.
//
// Watch panics if OnVerdict is nil or a duration negative.
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
		every(cfg.Interval, quit, w.look)
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

// mail hands verdicts to a handler, one by one, on a goroutine that exists
// while there are any.
type mail struct {
	tell func(Verdict)

	mu      sync.Mutex
	waiting []Verdict
	running bool
}

// full reports whether the handler is so far behind that no verdict should be
// added. The retractions of verdicts that it has got or will get are not
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

// A watcher knows what it has seen and told. Only its goroutine uses it.
type watcher struct {
	src  *source
	slow time.Duration
	mail *mail

	heads   map[uint64]head     // by thread
	parked  map[uint64]sighting // by thread
	charges map[charge]*open
}

// A head is the first call of a queue, since it was first seen there.
type head struct {
	seq   uint64
	since time.Time
}

// A sighting is a function on top of a thread that was seen parked while the
// queued call waited for it.
type sighting struct {
	queued, top uint64
	body        string
	times       int
	since       time.Time // of the first
}

// A suspect is a thread and the goroutine that its function is parked on: that
// of the thread, or a coroutine on it.
type suspect struct {
	*core.ThreadState
	parked *stack
}

// A charge is what a verdict says of one call.
type charge struct {
	kind Kind
	callID
}

// open is a verdict that was told and not retracted.
type open struct {
	verdict Verdict
	mark    mark // nil if there is none
}

func (w *watcher) look() {
	s := w.src.sample()
	w.retract(s)
	w.meet(s)
	if w.mail.full() {
		return
	}
	for _, x := range w.suspects(s) {
		w.charge(s, x.ThreadState, Probable, age(s, suspected(x.ThreadState), w.parked[x.ID].since), x.parked)
	}
	if w.slow == 0 {
		return
	}
	for i := range s.graph.Threads {
		t := &s.graph.Threads[i]
		if len(t.Queue) == 0 || t.Long {
			continue
		}
		if age := age(s, t.Queue[0], w.heads[t.ID].since); age >= w.slow {
			w.charge(s, t, Slow, age, nil)
		}
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

// meet notes which call is first in each queue.
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

// age returns how long a queued call has waited: what its thread says, else
// since when it was seen to.
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

// suspects returns the threads whose function has been seen parked often
// enough while a call from below it is in the queue. The stacks are read
// only if there is a thread with such a call, and no verdict on it yet.
func (w *watcher) suspects(s *sample) []suspect {
	var candidates []*core.ThreadState
	ids := map[int64]bool{}
	for i := range s.graph.Threads {
		t := &s.graph.Threads[i]
		if !raw(t) || w.charges[charge{Probable, callID{t.ID, suspected(t).Seq}}] != nil {
			continue
		}
		candidates = append(candidates, t)
		ids[t.Goroutine] = true
	}
	stacks := s.stacks(ids)
	parked := map[uint64]sighting{}
	var suspects []suspect
	for _, t := range candidates {
		if g := stacks[t.Goroutine]; g != nil && g.State == coroutine {
			stacks = s.parse(func(int64) bool { return true }) // it may be any of them that runs
		}
		g, body, ok := parkedIn(t, stacks)
		if !ok {
			continue
		}
		seen := again(w.parked[t.ID], sighting{suspected(t).Seq, t.Stack[0].Seq, body, 1, s.at})
		parked[t.ID] = seen
		if seen.times >= sightings {
			suspects = append(suspects, suspect{t, g})
		}
	}
	w.parked = parked
	return suspects
}

// again counts a sighting that is like the one before.
func again(before, now sighting) sighting {
	if before.queued == now.queued && before.top == now.top && before.body == now.body {
		now.times += before.times
		now.since = before.since
	}
	return now
}

// raw reports whether the function on top of t may wait, unknown to this
// module, for a call of the queue: see suspected.
func raw(t *core.ThreadState) bool {
	return t.Below && len(t.Queue) > 0 && len(t.Stack) > 0 && t.Stack[0].Wait == nil && t.Goroutine != 0
}

// suspected returns the queued call that the function on top of t may wait for,
// or else the first one. There is one.
func suspected(t *core.ThreadState) core.CallState {
	if raw(t) {
		return t.Queue[t.BelowAt]
	}
	return t.Queue[0]
}

// parkedIn returns the goroutine that the function on top of t is parked on,
// and the stack that it is parked in.
func parkedIn(t *core.ThreadState, stacks map[int64]*stack) (g *stack, body string, ok bool) {
	g = stacks[t.Goroutine]
	for g != nil && g.State == coroutine {
		body += g.body
		g = running(g.ID, stacks)
	}
	if g == nil || !parked[g.State] {
		return nil, "", false
	}
	return g, body + g.body, true
}

// running returns the coroutine that runs while the goroutine id stands still
// for it, nil if that is not found. Those that stand still themselves are
// looked at last: one of them may do so for another.
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

// charge reaches a verdict on a call of t's queue that has waited for so long,
// the suspected or the first one, unless it has been reached before or the call
// has moved meanwhile.
func (w *watcher) charge(s *sample, t *core.ThreadState, kind Kind, age time.Duration, parked *stack) {
	call := t.Queue[0]
	if kind == Probable {
		call = suspected(t)
	}
	c := charge{kind, callID{t.ID, call.Seq}}
	if w.charges[c] != nil || w.mail.full() {
		return
	}
	v := s.verdict(t, call, kind, age, parked)
	m, marked := w.src.mark(t.ID, call.Seq, age)
	if !marked {
		m = nil
	}
	if !s.still(t, call, kind) {
		if m != nil {
			m.Drop()
		}
		return
	}
	if w.charges == nil {
		w.charges = map[charge]*open{}
	}
	w.charges[c] = &open{v, m}
	w.mail.post(v)
}

// verdict describes a verdict on a call of t's queue. parked is the goroutine
// that t's function is parked on, nil if it is not.
func (s *sample) verdict(t *core.ThreadState, call core.CallState, kind Kind, age time.Duration, parked *stack) Verdict {
	var also int64
	if parked != nil {
		also = parked.ID
	}
	v := Verdict{
		Kind: kind, Thread: t.ID, Name: clean(t.Name), Seq: call.Seq, Call: clean(call.Name), Age: age, Lined: t.Lined,
		Report: s.report(t.ID, also),
	}
	if len(t.Stack) > 0 {
		v.Running = cmp.Or(clean(t.Stack[0].Name), "its caller")
	}
	for _, r := range v.Report.Threads {
		for _, c := range r.Queue {
			if r.ID == t.ID && c.Seq == call.Seq {
				v.Site = c.Site
			}
		}
	}
	if parked != nil {
		v.Parked = parked.State
	}
	return v
}

// still reports whether the call is still in t's queue, and what runs on t is
// what has run there, if that is what the verdict is about.
func (s *sample) still(t *core.ThreadState, call core.CallState, kind Kind) bool {
	for _, now := range s.src.graph().Threads {
		if now.ID != t.ID {
			continue
		}
		queued := slices.ContainsFunc(now.Queue, func(c core.CallState) bool { return c.Seq == call.Seq })
		if kind == Slow {
			return queued
		}
		return queued && len(now.Stack) > 0 && now.Stack[0].Seq == t.Stack[0].Seq && (now.Stack[0].Wait == nil) == (t.Stack[0].Wait == nil)
	}
	return false
}

// Log returns a function for [Config.OnVerdict] that writes verdicts to l: a
// warning with the report, and one line at level Info for what is retracted.
// It panics if l is nil.
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
			attrs = append(attrs, slog.String("report", v.Report.String()))
		}
		l.LogAttrs(context.Background(), level, v.Title(), attrs...)
	}
}
