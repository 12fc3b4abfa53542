package deadlock

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"asyncsync.dev/internal/core"
)

// A Report is what all threads did when it was taken: who waits for whom, and
// where. Each thread is consistent in itself; the threads are read one after
// the other.
//
// A report is bounded, whatever the program does. It has at most 64 threads,
// each with the topmost 16 calls of its stack and the first 16 of its queue; at
// most 16 loops with 16 tasks each; and at most 64 goroutines with 32 functions
// each. Threads with a queue come before busy ones, and those before idle ones.
// Counts say what was left out. Names are cut after 200 bytes.
type Report struct {
	Time           time.Time   `json:"time"`
	Threads        []Thread    `json:"threads"`         // by ID
	MoreThreads    int         `json:"more_threads"`    // that were left out
	Waits          []Wait      `json:"waits"`           // who waits for whom
	Idle           []Idle      `json:"idle"`            // open contexts that keep others from a thread
	Limiters       []Limiter   `json:"limiters"`        // that somebody waits for
	Pools          []Pool      `json:"pools"`           // of the threads, also of those that were left out
	Loops          []Loop      `json:"loops"`           // thread loops that run, by ID
	MoreLoops      int         `json:"more_loops"`      // that were left out
	Goroutines     []Goroutine `json:"goroutines"`      // that are involved, by ID
	MoreGoroutines int         `json:"more_goroutines"` // that were left out, or not found
	// StacksCut says that the stacks of all goroutines exceeded the 16 MB that are
	// read, so that some may be missing.
	StacksCut bool `json:"stacks_cut"`
}

// A Thread is one thread in a Report.
type Thread struct {
	ID        uint64 `json:"id"`        // never used again in the process
	Name      string `json:"name"`      // of its context, "" if it has none
	Made      *Frame `json:"made"`      // where that, or the executor, was made; nil if that is not known
	Policy    string `json:"policy"`    // Related, All or None
	OSThread  int64  `json:"os_thread"` // 0 if it has none, or it is not known
	Goroutine int64  `json:"goroutine"`
	Adopted   bool   `json:"adopted"`  // a goroutine that is in AsyncToSync, and a thread for that long
	Executor  bool   `json:"executor"` // a goroutine that has made a CurrentThreadExecutor
	Unpinned  bool   `json:"unpinned"` // not bound to an OS thread
	Lined     bool   `json:"lined"`    // it waits for a thread of its pool, and has no goroutine yet
	Exiting   bool   `json:"exiting"`  // it runs exit functions
	Calls     uint64 `json:"calls"`    // that have ended
	Pool      int    `json:"pool"`     // the Number of its pool, 0 if it is of none
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
	// Context is the name of its context, if that is not the thread's: of a context that
	// has the thread of an executor.
	Context string `json:"context"`
	// Waited is how long the caller has slept for it, or -1 if that is not known.
	Waited time.Duration `json:"waited_ns"`
	// Site is where the call was made: the function that called this module. It is
	// read from the caller's stack, and nil if the stack does not show it.
	Site *Frame `json:"site"`
	// Stranger says of a queued call that nothing that blocks the thread is known
	// to wait for it.
	Stranger bool `json:"stranger"`
	// Below says that it is the first queued call that was submitted from below the
	// function on top of the stack.
	Below bool `json:"below"`
	Long  bool `json:"long"` // it is meant to take long
	// Wait is the wait of this module that its function is in, or nil if none is
	// known.
	Wait *Wait `json:"wait"`
}

// A Wait is one edge of the graph: who waits for whom.
type Wait struct {
	From Party  `json:"from"`
	To   Party  `json:"to"`
	Kind string `json:"kind"` // call, async, run, task, group, group place, limiter, mutex, close, executor, pool close, portal close; or the function that waits: sleep, event, cond
	For  string `json:"for"`  // the name of what is waited for, "" if it has none
	// Queued says that the target of the wait is a call that has not begun.
	Queued bool `json:"queued"`
	// Under says that From does something else on top of this wait meanwhile.
	Under bool          `json:"under"`
	Age   time.Duration `json:"age_ns"` // how long it has slept, -1 if that is not known
}

// A Party is one end of a Wait. It is the zero value if it is not known.
type Party struct {
	Thread    uint64 `json:"thread"`    // its ID, 0 for a goroutine that is none
	Goroutine int64  `json:"goroutine"` // 0 if it is not known
	Name      string `json:"name"`      // of the thread, or the function
	Function  string `json:"function"`  // that runs on the thread and waits, or is waited for; "" if it is not known
}

// An Idle is a set of contexts that were made in the same place, are open, have
// a thread, and do nothing with it, while others wait for a thread of that
// pool, or for its end.
type Idle struct {
	Pool     int    `json:"pool"`     // the same for all of one pool in this report
	Waiting  int    `json:"waiting"`  // contexts that stand in line there
	Closing  bool   `json:"closing"`  // the pool is being closed
	Contexts int    `json:"contexts"` // that are open and idle
	Name     string `json:"name"`     // of all of them, "" if they differ
	Made     *Frame `json:"made"`     // where, nil if that is not known
}

// A Limiter is a limiter that somebody waits for.
type Limiter struct {
	Total   int     `json:"total"`   // tokens there are
	Used    int     `json:"used"`    // tokens taken
	Held    []Token `json:"held"`    // by whom, the first of them
	Holders int     `json:"holders"` // how many hold tokens, also those that are not in Held
	Queue   []Token `json:"queue"`   // who waits, the next one first
	Queued  int     `json:"queued"`  // how many wait, also those that are not in Queue
}

// A Pool is a pool that the threads of a report come from, or wait for a thread
// of.
type Pool struct {
	Number      int    `json:"number"`       // the same for all of one pool in this report
	Default     bool   `json:"default"`      // it is the one of contexts that name none
	MaxThreads  int    `json:"max_threads"`  // it may have
	MaxOverflow int    `json:"max_overflow"` // beyond these
	Threads     int    `json:"threads"`      // it has
	Overflow    int    `json:"overflow"`     // of these, beyond MaxThreads
	Idle        int    `json:"idle"`         // lent to nobody
	Waiting     int    `json:"waiting"`      // contexts in line
	Peak        int    `json:"peak"`         // most it had at one time
	Started     uint64 `json:"started"`      // ever
}

// A Token says which tokens of a limiter one function holds, or waits for.
type Token struct {
	Who    Party         `json:"who"` // of one who holds tokens, the one that has taken them
	Tokens int           `json:"tokens"`
	Lent   bool          `json:"lent"`   // it has lent them to what it waits for; or waits to have them back
	Age    time.Duration `json:"age_ns"` // of a wait, -1 for who holds them
}

// A Goroutine is the stack of one goroutine.
type Goroutine struct {
	ID      int64   `json:"id"`
	State   string  `json:"state"`   // as the runtime calls it: running, chan receive, sync.Mutex.Lock, …
	Minutes int     `json:"minutes"` // how long it has been in that state, if the runtime says so
	Locked  bool    `json:"locked"`  // to an OS thread
	Frames  []Frame `json:"frames"`  // the functions, from the top
	Elided  int     `json:"elided"`  // how many functions were left out
	// CreatedBy is the go statement that started it, or nil for the first goroutine
	// of the process. Creator is the goroutine that executed that statement.
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
// meaning or is removed, not when one is added.
const schema = 1

// MarshalJSON returns the report as JSON. docs/deadlock/report.md describes
// each field.
func (r *Report) MarshalJSON() ([]byte, error) {
	type fields Report
	return json.Marshal(struct {
		Schema int `json:"schema"`
		*fields
	}{schema, (*fields)(r)})
}

// A source is where reports and watchers get their information.
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
// are in it as threads too. Take may be called from anywhere at any time, also
// from a function on a thread, a hook, or a goroutine that handles a signal.
//
// It waits for nothing and locks each thread in turn, briefly. A wait that ends
// meanwhile goes on after Take has looked at one thread, or at 32 goroutines. If
// anything runs or waits, Take also reads the stacks of all goroutines, for which the
// runtime stops the program: about 10 ms for each thousand goroutines.
func Take() *Report { return runtimeSource.sample().report(0, 0) }

// A sample is one look at the threads, and at the stacks if they are needed.
type sample struct {
	src    *source
	at     time.Time
	graph  core.Graph
	text   []byte
	cut    bool
	dumped bool
	match  string // if not "", what a thread must have to be in a report
}

func (src *source) sample() *sample {
	return &sample{src: src, at: time.Now(), graph: src.graph()}
}

// stacks returns those goroutines with the given ids that exist. The stacks are
// read once for a sample, after the graph.
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

// A callID identifies a call in the process.
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

// report makes the report of a sample. The thread first and the goroutine also,
// unless they are 0, are in it whatever else is left out.
func (s *sample) report(first uint64, also int64) *Report {
	threads := s.matching()
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
	r := &Report{Time: s.at, Threads: []Thread{}, Waits: []Wait{}, Goroutines: []Goroutine{}, Idle: idle(&s.graph), Limiters: []Limiter{}, Pools: []Pool{}, Loops: []Loop{}}
	for _, p := range s.graph.Pools[:min(len(s.graph.Pools), maxCalls)] {
		r.Pools = append(r.Pools, Pool{
			Number: p.Number, Default: p.Default, MaxThreads: p.MaxThreads, MaxOverflow: p.MaxOverflow,
			Threads: p.Threads, Overflow: p.Overflow, Idle: p.Idle, Waiting: p.Waiting, Peak: p.Peak, Started: p.Started,
		})
	}
	if n := len(threads); n > maxThreads {
		r.MoreThreads = n - maxThreads
		threads = threads[:maxThreads]
	}
	goroutines := s.graph.Goroutines[:min(len(s.graph.Goroutines), maxGoroutines)]

	loops := loops(&s.graph)
	r.MoreLoops = len(s.graph.Loops) - len(loops)
	ids, more := involved(threads, goroutines, s.graph.Limiters, loops, also)
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
	for _, l := range loops {
		for _, t := range l.Waiting {
			b.names[t.Goroutine] = cmp.Or(b.names[t.Goroutine], clean(t.Name))
		}
	}
	b.places()
	slices.SortFunc(threads, func(a, b core.ThreadState) int { return cmp.Compare(a.ID, b.ID) })
	for i := range threads {
		r.Threads = append(r.Threads, b.thread(&threads[i]))
	}
	for _, g := range goroutines {
		from := b.party(g.Goroutine)
		if from.Thread == 0 {
			from.Name = clean(g.Name)
		}
		b.edge(b.wait(from, &g.Wait), false)
	}
	for _, l := range loops {
		r.Loops = append(r.Loops, b.loop(l))
	}
	r.Waits = append(r.Waits, b.waits...)
	for _, l := range s.graph.Limiters[:min(len(s.graph.Limiters), maxCalls)] {
		r.Limiters = append(r.Limiters, b.limiter(l))
	}
	return r
}

func (b *builder) limiter(l core.ResourceState) Limiter {
	tokens := func(parties []core.ResourceParty, holds bool) []Token {
		list := []Token{}
		for _, p := range parties[:min(len(parties), maxCalls)] {
			t := Token{Who: b.party(p.Goroutine), Tokens: p.Tokens, Lent: p.Lent, Age: p.Age}
			if t.Who.Thread == 0 {
				t.Who.Name = cmp.Or(clean(p.Name), t.Who.Name)
			}
			if holds {
				t.Age = -1
			}
			list = append(list, t)
		}
		return list
	}
	return Limiter{Total: l.Total, Used: l.Used, Held: tokens(l.Holding, true), Holders: l.Holders, Queue: tokens(l.Waiting, false), Queued: l.Waiters}
}

// involved returns the goroutines that a report of the threads shows, and also.
// If there are too many, it returns the most informative ones.
func involved(threads []core.ThreadState, goroutines []core.GoroutineState, limiters []core.ResourceState, loops []*core.LoopState, also int64) (ids map[int64]bool, more int) {
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
	for _, l := range loops {
		if l.Running != nil {
			add(l.Running.Goroutine)
		}
	}
	for _, l := range limiters[:min(len(limiters), maxCalls)] {
		for _, p := range slices.Concat(l.Holding[:min(len(l.Holding), maxCalls)], l.Waiting[:min(len(l.Waiting), maxCalls)]) {
			add(p.Goroutine)
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
	runs        map[int64][]away
	waits       []Wait
	edges       map[edge]bool
}

// An away is an async function that a thread waits for.
type away struct {
	thread uint64
	entry  int // of its stack, that waits
	name   string
}

// places records which async functions run on each goroutine. The goroutine of
// a caller runs those of the function that it has called.
func (b *builder) places() {
	b.runs = map[int64][]away{}
	for _, t := range b.graph.Threads {
		for i, c := range t.Stack {
			if w := c.Wait; w != nil && w.Goroutine != 0 && w.Thread == 0 {
				b.runs[w.Goroutine] = append(b.runs[w.Goroutine], away{t.ID, i, clean(w.For)})
			}
		}
	}
}

// caller returns the waiter for the call c, which is entry at of the stack of
// t, or queued there if at is -1. under reports whether that waiter runs
// something on top of the wait.
func (b *builder) caller(t *core.ThreadState, c core.CallState, at int) (p Party, under bool) {
	p = b.party(c.Caller)
	if from := b.byGoroutine[c.Caller]; from != nil {
		for i, e := range from.Stack {
			if e.Wait != nil && e.Wait.Thread == t.ID && e.Wait.Seq == c.Seq {
				p.Function = function(e)
				return p, i > 0
			}
		}
		return p, false
	}
	for _, f := range b.runs[c.Caller] {
		switch {
		case f.thread != t.ID:
			p.Name = cmp.Or(p.Name, f.name)
		case f.entry <= at:
			under = true
		default:
			p.Name = f.name
			return p, under // the first one below
		}
	}
	if under && len(b.runs[c.Caller]) > 0 {
		p.Name = "" // what it runs now it does not call from
	}
	return p, under
}

// function returns the name of what runs in an entry of a stack.
func function(c core.CallState) string { return cmp.Or(clean(c.Name), "its caller") }

type edge struct {
	from, to Party
	kind, of string
}

func (b *builder) party(goroutine int64) Party {
	p := Party{Goroutine: goroutine, Name: b.names[goroutine]}
	if t := b.byGoroutine[goroutine]; t != nil && goroutine != 0 {
		p = b.threadParty(t)
	}
	return p
}

func (b *builder) threadParty(t *core.ThreadState) Party {
	return Party{Thread: t.ID, Goroutine: t.Goroutine, Name: title(clean(t.Name), made(t))}
}

// made returns where the context of t was made, or nil if that is not known.
func made(t *core.ThreadState) *Frame {
	if t.Made == (core.Site{}) {
		return nil
	}
	return &Frame{clean(t.Made.Func), cleanPath(t.Made.File), t.Made.Line}
}

// title returns what a context is called. Without a name, that is where it was
// made.
func title(name string, made *Frame) string {
	if name == "" && made != nil {
		return "(made in " + made.short() + ")"
	}
	return name
}

// short is String without the directory of the file.
func (f Frame) short() string {
	return fmt.Sprintf("%s, %s:%d", f.Func, f.File[strings.LastIndexAny(f.File, `/\\`)+1:], f.Line)
}

// idle returns the contexts that keep others from a thread, the largest group
// first.
func idle(g *core.Graph) []Idle {
	waiting, closing := map[int]int{}, map[int]bool{}
	for _, t := range g.Threads {
		if t.Lined && t.Pool != 0 {
			waiting[t.Pool]++
		}
	}
	for _, f := range g.Goroutines {
		if f.Wait.Kind != "pool close" {
			continue
		}
		for _, t := range g.Threads {
			if slices.Contains(f.Wait.Threads, t.ID) {
				closing[t.Pool] = true
			}
		}
	}
	at := map[Idle]int{} // by pool and name alone
	all := []Idle{}
	for i := range g.Threads {
		t := &g.Threads[i]
		if t.Lined || t.Pool == 0 || len(t.Stack) > 0 || len(t.Queue) > 0 || t.Exiting || waiting[t.Pool] == 0 && !closing[t.Pool] {
			continue
		}
		k := Idle{Pool: t.Pool, Name: fmt.Sprint(t.Made)}
		n, ok := at[k]
		if !ok {
			n = len(all)
			at[k] = n
			all = append(all, Idle{Pool: t.Pool, Waiting: waiting[t.Pool], Closing: closing[t.Pool], Name: clean(t.Name), Made: made(t)})
		}
		all[n].Contexts++
		if all[n].Name != clean(t.Name) {
			all[n].Name = ""
		}
	}
	slices.SortStableFunc(all, func(a, b Idle) int { return cmp.Or(cmp.Compare(a.Pool, b.Pool), cmp.Compare(b.Contexts, a.Contexts)) })
	return all[:min(len(all), maxCalls)]
}

func (b *builder) thread(t *core.ThreadState) Thread {
	r := Thread{
		ID: t.ID, Name: clean(t.Name), Made: made(t), Policy: t.Policy.String(), OSThread: t.OSThread, Goroutine: t.Goroutine,
		Adopted: t.Adopted, Executor: t.Executor, Unpinned: t.Unpinned, Lined: t.Lined, Exiting: t.Exiting, Calls: t.Calls, Pool: t.Pool, Depth: len(t.Stack),
		Queued: max(t.Queued, len(t.Queue)), Below: t.Below, Long: t.Long, Stack: []Call{}, Queue: []Call{},
	}
	self := b.threadParty(t)
	for i, c := range t.Stack[:min(len(t.Stack), maxCalls)] {
		e := b.call(c)
		if g := b.stacks[c.Caller]; g != nil {
			// The caller may run other things meanwhile. Its stack is only
			// conclusive if it has entered this module exactly once.
			if sites, _ := g.sites(); len(sites) == 1 && b.byGoroutine[c.Caller] == nil {
				e.Site = &sites[0]
			}
		}
		b.called(t, c, i)
		if c.Wait != nil {
			from := self
			from.Function = function(c)
			w := b.wait(from, c.Wait)
			e.Wait = &w
			b.edge(w, i > 0)
		}
		r.Stack = append(r.Stack, e)
	}
	for i, c := range t.Queue[:min(len(t.Queue), maxCalls)] {
		e := b.call(c)
		e.Below = t.Below && i == t.BelowAt
		if b.still[callID{t.ID, c.Seq}] {
			e.Site = b.site(t.ID, c)
		}
		b.called(t, c, -1)
		r.Queue = append(r.Queue, e)
	}
	return r
}

func (b *builder) call(c core.CallState) Call {
	return Call{Seq: c.Seq, Name: clean(c.Name), Context: clean(c.Context), Caller: c.Caller, Waited: c.Waited, Stranger: c.Stranger, Long: c.Long}
}

// site returns where a queued call was made, or nil if that cannot be seen.
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

// called adds the edge of a call's caller. at is the call's place on the stack
// of t, or -1 if it is queued.
func (b *builder) called(t *core.ThreadState, c core.CallState, at int) {
	if c.Caller == 0 {
		return
	}
	from, under := b.caller(t, c, at)
	w := Wait{From: from, To: b.threadParty(t), Kind: "call", For: clean(c.Name), Queued: at < 0, Age: c.Waited}
	if at >= 0 {
		w.To.Function = function(c)
	}
	b.edge(w, under)
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
		if w.Seq != 0 && slices.ContainsFunc(t.Stack, func(c core.CallState) bool { return c.Seq == w.Seq }) {
			r.To.Function = r.For
		}
	} else if w.Goroutine != 0 {
		r.To = b.party(w.Goroutine)
		if r.To.Thread == 0 {
			r.To.Name = cmp.Or(r.For, r.To.Name)
		}
	}
	return r
}

// edge adds a wait, once. under says that the waiter does something else on top
// of it.
func (b *builder) edge(w Wait, under bool) {
	if w.From == (Party{}) {
		return
	}
	w.Under = under
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

// clean makes a name fit on one line of text, in any form of a report.
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

// cleanPath is clean for a path, of which the end matters most.
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
