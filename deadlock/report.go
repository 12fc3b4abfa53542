package deadlock

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"asyncsync.dev/internal/core"
)

// A Report is what all threads did when it was taken, who waits for whom, and
// where. Each thread is consistent in itself; between them time has passed.
//
// A report is bounded, whatever the program does: it has at most 64 threads, of
// each the topmost 16 calls of its stack and the first 16 of its queue, and at
// most 64 goroutines with 32 functions each. Threads with a queue come before
// busy ones, and those before idle ones. Counts say what was left out. Names are
// cut after 200 bytes.
type Report struct {
	Time           time.Time   `json:"time"`
	Threads        []Thread    `json:"threads"`         // by ID
	MoreThreads    int         `json:"more_threads"`    // that were left out
	Waits          []Wait      `json:"waits"`           // who waits for whom
	Goroutines     []Goroutine `json:"goroutines"`      // that are involved, by ID
	MoreGoroutines int         `json:"more_goroutines"` // that were left out, or not found
	// StacksCut says that the stacks of all goroutines were more than the 16 MB
	// that are read, so that some may be missing.
	StacksCut bool `json:"stacks_cut"`
}

// A Thread is one thread in a Report.
type Thread struct {
	ID        uint64 `json:"id"`        // never used again in the process
	Name      string `json:"name"`      // of its context, "" if it has none
	Policy    string `json:"policy"`    // Related, All or None
	OSThread  int64  `json:"os_thread"` // 0 if it has none, or it is not known
	Goroutine int64  `json:"goroutine"`
	Adopted   bool   `json:"adopted"`  // a goroutine that is in AsyncToSync, and a thread for that long
	Unpinned  bool   `json:"unpinned"` // not bound to an OS thread
	Lined     bool   `json:"lined"`    // it waits for a thread of its pool, and has no goroutine yet
	Calls     uint64 `json:"calls"`    // that have ended
	Stack     []Call `json:"stack"`    // what runs, from the top; below the first, what is blocked
	Depth     int    `json:"depth"`    // of the stack, also of what is not in Stack
	Queue     []Call `json:"queue"`    // what waits, the next one first
	Queued    int    `json:"queued"`   // how many wait, also those that are not in Queue
	// Below says that one of the queue was submitted from below the function on
	// top of the stack, which therefore may be waiting for it.
	Below bool `json:"below"`
	// Long says that what runs is meant to take long, or waits for what is.
	Long bool `json:"long"`
}

// A Call is one call on a thread, running or queued.
type Call struct {
	Seq    uint64 `json:"seq"`    // its number on its thread, 0 for what is no call
	Name   string `json:"name"`   // "" for the caller of AsyncToSync that has become the thread
	Caller int64  `json:"caller"` // the goroutine that waits for it, 0 if there is none, or it is not known
	// Waited is how long the caller has slept for it, -1 if that is not known.
	Waited time.Duration `json:"waited_ns"`
	// Site is where the call was made: the function that called this module.
	// It is read from the caller's stack; nil if that does not show it.
	Site *Frame `json:"site"`
	// Stranger says of a queued call that nothing that blocks the thread is
	// known to wait for it.
	Stranger bool `json:"stranger"`
	// Below says that it is the first of the queue that was submitted from below
	// the function on top of the stack.
	Below bool `json:"below"`
	Long  bool `json:"long"` // it is meant to take long
	// Wait is the wait of this module that its function is in; nil if it is in
	// none, as far as is known.
	Wait *Wait `json:"wait"`
}

// A Wait is one edge of the graph: who waits for whom.
type Wait struct {
	From Party  `json:"from"`
	To   Party  `json:"to"`
	Kind string `json:"kind"` // call, async, task, group, group place, limiter, close, executor, pool close
	For  string `json:"for"`  // the name of what is waited for, "" if it has none
	// Queued says that what is waited for is a call that has not begun.
	Queued bool          `json:"queued"`
	Age    time.Duration `json:"age_ns"` // how long it has slept, -1 if that is not known
}

// A Party is one end of a Wait. It is the zero value if it is not known.
type Party struct {
	Thread    uint64 `json:"thread"`    // its ID, 0 for a goroutine that is none
	Goroutine int64  `json:"goroutine"` // 0 if it is not known
	Name      string `json:"name"`      // of the thread, or the function
}

// A Goroutine is the stack of one goroutine.
type Goroutine struct {
	ID      int64   `json:"id"`
	State   string  `json:"state"`   // as the runtime calls it: running, chan receive, sync.Mutex.Lock, …
	Minutes int     `json:"minutes"` // how long it has been in that state, if the runtime says so
	Locked  bool    `json:"locked"`  // to an OS thread
	Frames  []Frame `json:"frames"`  // the functions, from the top
	Elided  int     `json:"elided"`  // how many functions were left out
	// CreatedBy is the go statement that started it, nil for the first of the
	// process, and Creator the goroutine that executed that.
	CreatedBy *Frame `json:"created_by"`
	Creator   int64  `json:"creator"`
}

// A Frame is one function on a stack.
type Frame struct {
	Func string `json:"func"`
	File string `json:"file"`
	Line int    `json:"line"`
}

// What bounds a report.
const (
	maxThreads    = 64
	maxCalls      = 16 // of a stack, and of a queue
	maxGoroutines = 64
	maxName       = 200
)

// schema is the version of the JSON form. It changes when a field changes its
// meaning or goes, not when one is added.
const schema = 1

// MarshalJSON returns the report as JSON, the form that docs/deadlock/report.md
// describes field by field.
func (r *Report) MarshalJSON() ([]byte, error) {
	type fields Report
	return json.Marshal(struct {
		Schema int `json:"schema"`
		*fields
	}{schema, (*fields)(r)})
}

// A source is where reports and watchers get what they know.
type source struct {
	graph  func() core.Graph
	dump   func() (text []byte, cut bool)
	mark   func(thread, seq uint64, seen time.Duration) (mark, bool)
	refuse func(thread, seq uint64, err error) bool
	strict func(on bool)
	bubble func() int // that the caller is in
}

// A mark is a [core.Mark].
type mark interface {
	Left() (after time.Duration, left bool)
	Drop()
}

var runtimeSource = &source{
	graph: core.TakeGraph,
	dump:  func() ([]byte, bool) { return dump(maxDump) },
	mark: func(thread, seq uint64, seen time.Duration) (mark, bool) {
		m, ok := core.MarkQueued(thread, seq, seen)
		return m, ok
	},
	refuse: core.Refuse,
	strict: core.SetStrict,
	bubble: bubble,
}

// Take returns a report. Contexts that wait in line for a thread of their pool
// are threads in it, too. It may be called from anywhere at any time, also from
// a function on a thread, a hook, or the goroutine that handles a signal. It
// waits for nobody: it takes a lock of each thread in turn, for a moment. If
// anything runs or waits it also reads the stacks of all goroutines, for which
// the runtime stops the program: about 10 ms for each thousand of them.
func Take() *Report { return runtimeSource.sample().report(0, 0) }

// A sample is one look at the threads, and at the stacks if somebody asks.
type sample struct {
	src    *source
	at     time.Time
	graph  core.Graph
	text   []byte
	cut    bool
	dumped bool
}

func (src *source) sample() *sample {
	return &sample{src: src, at: time.Now(), graph: src.graph()}
}

// stacks returns the goroutines with the given ids that there are. The stacks
// are read once for a sample, after the graph.
func (s *sample) stacks(ids map[int64]bool) map[int64]*stack {
	if len(ids) == 0 {
		return nil
	}
	return s.parse(func(id int64) bool { return ids[id] })
}

func (s *sample) parse(want func(id int64) bool) map[int64]*stack {
	if !s.dumped {
		s.text, s.cut = s.src.dump()
		s.dumped = true
	}
	return parse(s.text, want)
}

// A callID names a call in the process.
type callID struct{ thread, seq uint64 }

// queued returns the calls that a graph has in queues.
func queued(g core.Graph) map[callID]bool {
	calls := map[callID]bool{}
	for _, t := range g.Threads {
		for _, c := range t.Queue {
			calls[callID{t.ID, c.Seq}] = true
		}
	}
	return calls
}

// report makes the report of a sample. The thread first and the goroutine also
// are in it, unless they are 0, whatever else is left out.
func (s *sample) report(first uint64, also int64) *Report {
	threads := slices.Clone(s.graph.Threads)
	rank := func(t *core.ThreadState) int {
		switch {
		case t.ID == first:
			return 0
		case t.Queued > 0 || len(t.Queue) > 0:
			return 1
		case len(t.Stack) > 0:
			return 2
		}
		return 3
	}
	slices.SortStableFunc(threads, func(a, b core.ThreadState) int {
		return cmp.Or(cmp.Compare(rank(&a), rank(&b)), cmp.Compare(a.ID, b.ID))
	})
	r := &Report{Time: s.at, Threads: []Thread{}, Waits: []Wait{}, Goroutines: []Goroutine{}}
	if n := len(threads); n > maxThreads {
		r.MoreThreads = n - maxThreads
		threads = threads[:maxThreads]
	}
	goroutines := s.graph.Goroutines[:min(len(s.graph.Goroutines), maxGoroutines)]

	ids, more := involved(threads, goroutines, also)
	stacks := s.stacks(ids)
	r.StacksCut = s.cut
	r.MoreGoroutines = more + len(ids) - len(stacks)
	for _, g := range stacks {
		r.Goroutines = append(r.Goroutines, g.Goroutine)
	}
	slices.SortFunc(r.Goroutines, func(a, b Goroutine) int { return cmp.Compare(a.ID, b.ID) })

	// A caller's stack shows where it made a queued call if the call was still
	// queued when the stack had been read.
	var still map[callID]bool
	if len(stacks) > 0 {
		still = queued(s.src.graph())
	}
	b := builder{
		graph: &s.graph, stacks: stacks, still: still,
		byGoroutine: map[int64]*core.ThreadState{}, byID: map[uint64]*core.ThreadState{}, names: map[int64]string{},
	}
	for i := range s.graph.Threads {
		t := &s.graph.Threads[i]
		b.byID[t.ID] = t
		if t.Goroutine != 0 {
			b.byGoroutine[t.Goroutine] = t
		}
	}
	for _, g := range goroutines {
		b.names[g.Goroutine] = clean(g.Name)
	}
	slices.SortFunc(threads, func(a, b core.ThreadState) int { return cmp.Compare(a.ID, b.ID) })
	for i := range threads {
		r.Threads = append(r.Threads, b.thread(&threads[i]))
	}
	for _, g := range goroutines {
		b.edge(b.wait(b.party(g.Goroutine), &g.Wait))
	}
	r.Waits = append(r.Waits, b.waits...)
	return r
}

// involved returns the goroutines that a report of the threads shows, the most
// telling ones first if there are too many, and also.
func involved(threads []core.ThreadState, goroutines []core.GoroutineState, also int64) (ids map[int64]bool, more int) {
	ids = map[int64]bool{}
	left := map[int64]bool{}
	add := func(id int64) {
		switch {
		case id == 0 || ids[id]:
		case len(ids) < maxGoroutines:
			ids[id] = true
		default:
			left[id] = true
		}
	}
	add(also)
	for _, t := range threads {
		if len(t.Stack) == 0 && len(t.Queue) == 0 {
			continue
		}
		add(t.Goroutine)
		if len(t.Queue) > 0 {
			add(t.Queue[0].Caller)
		}
		if t.Below {
			add(t.Queue[t.BelowAt].Caller)
		}
		if len(t.Stack) > 0 && t.Stack[0].Wait != nil {
			add(t.Stack[0].Wait.Goroutine)
		}
	}
	for _, g := range goroutines {
		add(g.Goroutine)
		add(g.Wait.Goroutine)
	}
	for _, t := range threads {
		for _, calls := range [][]core.CallState{t.Stack, t.Queue} {
			for _, c := range calls[:min(len(calls), maxCalls)] {
				add(c.Caller)
				if c.Wait != nil {
					add(c.Wait.Goroutine)
				}
			}
		}
	}
	return ids, len(left)
}

// A builder turns a graph into a report.
type builder struct {
	graph       *core.Graph
	stacks      map[int64]*stack
	still       map[callID]bool
	byGoroutine map[int64]*core.ThreadState
	byID        map[uint64]*core.ThreadState
	names       map[int64]string // of functions, by goroutine
	waits       []Wait
	edges       map[edge]bool
}

type edge struct {
	from, to Party
	kind, of string
}

func (b *builder) party(goroutine int64) Party {
	p := Party{Goroutine: goroutine, Name: b.names[goroutine]}
	if t := b.byGoroutine[goroutine]; t != nil && goroutine != 0 {
		p.Thread, p.Name = t.ID, clean(t.Name)
	}
	return p
}

func (b *builder) threadParty(t *core.ThreadState) Party {
	return Party{Thread: t.ID, Goroutine: t.Goroutine, Name: clean(t.Name)}
}

func (b *builder) thread(t *core.ThreadState) Thread {
	r := Thread{
		ID: t.ID, Name: clean(t.Name), Policy: t.Policy.String(), OSThread: t.OSThread, Goroutine: t.Goroutine,
		Adopted: t.Adopted, Unpinned: t.Unpinned, Lined: t.Lined, Calls: t.Calls, Depth: len(t.Stack),
		Queued: max(t.Queued, len(t.Queue)), Below: t.Below, Long: t.Long, Stack: []Call{}, Queue: []Call{},
	}
	self := b.threadParty(t)
	for _, c := range t.Stack[:min(len(t.Stack), maxCalls)] {
		e := b.call(c)
		if g := b.stacks[c.Caller]; g != nil {
			// The caller may run other things meanwhile; what its stack says is
			// certain if it has entered this module once only.
			if sites, _ := g.sites(); len(sites) == 1 && b.byGoroutine[c.Caller] == nil {
				e.Site = &sites[0]
			}
		}
		b.called(self, c, false)
		if c.Wait != nil {
			w := b.wait(self, c.Wait)
			e.Wait = &w
			b.edge(w)
		}
		r.Stack = append(r.Stack, e)
	}
	for i, c := range t.Queue[:min(len(t.Queue), maxCalls)] {
		e := b.call(c)
		e.Below = t.Below && i == t.BelowAt
		if b.still[callID{t.ID, c.Seq}] {
			e.Site = b.site(t.ID, c)
		}
		b.called(self, c, true)
		r.Queue = append(r.Queue, e)
	}
	return r
}

func (b *builder) call(c core.CallState) Call {
	return Call{Seq: c.Seq, Name: clean(c.Name), Caller: c.Caller, Waited: c.Waited, Stranger: c.Stranger, Long: c.Long}
}

// site returns where a queued call was made, nil if that cannot be seen.
func (b *builder) site(thread uint64, c core.CallState) *Frame {
	g := b.stacks[c.Caller]
	if g == nil {
		return nil
	}
	sites, blocked := g.sites()
	if !blocked {
		return nil
	}
	if t := b.byGoroutine[c.Caller]; t != nil {
		// A thread may run other calls on top of the one that made this one.
		if len(t.Stack) == 0 || t.Stack[0].Wait == nil || t.Stack[0].Wait.Thread != thread || t.Stack[0].Wait.Seq != c.Seq {
			return nil
		}
	}
	return &sites[0]
}

// called adds the edge of a call's caller.
func (b *builder) called(thread Party, c core.CallState, queued bool) {
	if c.Caller == 0 {
		return
	}
	b.edge(Wait{From: b.party(c.Caller), To: thread, Kind: "call", For: clean(c.Name), Queued: queued, Age: c.Waited})
}

func (b *builder) wait(from Party, w *core.WaitState) Wait {
	r := Wait{From: from, Kind: w.Kind, For: clean(w.For), Age: w.Age}
	if t := b.byID[w.Thread]; w.Thread != 0 && t != nil {
		r.To = b.threadParty(t)
		r.Queued = slices.ContainsFunc(t.Queue, func(c core.CallState) bool { return c.Seq == w.Seq && w.Seq != 0 })
		for _, c := range slices.Concat(t.Stack, t.Queue) {
			if c.Seq == w.Seq && r.For == "" {
				r.For = clean(c.Name)
			}
		}
	} else if w.Goroutine != 0 {
		r.To = b.party(w.Goroutine)
		r.To.Name = cmp.Or(r.To.Name, r.For)
	}
	return r
}

// edge adds a wait, once.
func (b *builder) edge(w Wait) {
	if w.From == (Party{}) {
		return
	}
	k := edge{w.From, w.To, w.Kind, w.For}
	if b.edges[k] {
		return
	}
	if b.edges == nil {
		b.edges = map[edge]bool{}
	}
	b.edges[k] = true
	b.waits = append(b.waits, w)
}

// clean makes a name fit for one line of text, in any of the forms of a report.
func clean(s string) string {
	if len(s) > maxName {
		n := maxName
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n] + "…"
	}
	return oneLine(s)
}

// cleanPath does the same for a path, of which the end matters.
func cleanPath(s string) string {
	if n := len(s) - maxName; n > 0 {
		for n < len(s) && !utf8.RuneStart(s[n]) {
			n++
		}
		s = "…" + s[n:]
	}
	return oneLine(s)
}

func oneLine(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, s)
}
