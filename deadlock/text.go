package deadlock

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"asyncsync.dev/internal/core"
)

// String returns the report as text for people: the threads and loops, the
// waits between them, and the stacks of the goroutines involved. It can be
// pasted into an issue as it is: it contains names, functions and paths of the
// program, but no arguments or values. Of this module's own functions the
// stacks show only those that were called from outside.
func (r *Report) String() string {
	if r == nil {
		return "no report\n"
	}
	var b strings.Builder
	n := len(r.Threads) + r.MoreThreads
	fmt.Fprintf(&b, "%s at %s\n", count(n, "thread"), r.Time.Format("2006-01-02 15:04:05.000 MST"))
	for i := range r.Threads {
		b.WriteByte('\n')
		r.writeThread(&b, &r.Threads[i])
	}
	if r.MoreThreads > 0 {
		fmt.Fprintf(&b, "\nand %s\n", count(r.MoreThreads, "more thread"))
	}
	for i := range r.Loops {
		r.Loops[i].write(&b, r, true)
	}
	if r.MoreLoops > 0 {
		fmt.Fprintf(&b, "\nand %s\n", count(r.MoreLoops, "more loop"))
	}
	r.writeIdle(&b)
	for i := range r.Limiters {
		r.Limiters[i].write(&b, true)
	}
	if len(r.Waits) > 0 {
		b.WriteString("\nwho waits for whom\n")
		for _, w := range r.Waits {
			fmt.Fprintf(&b, "  %s\n", w.line(true))
		}
	}
	r.writeStacks(&b)
	return b.String()
}

// write writes who holds the limiter and who waits for it. Without aged it
// omits ages.
func (l *Limiter) write(b *strings.Builder, aged bool) {
	fmt.Fprintf(b, "\nlimiter of %s, %d taken\n", count(l.Total, "token"), l.Used)
	one := func(what string, t Token) {
		fmt.Fprintf(b, "  %s %s", what, t.Who)
		if t.Tokens != 1 {
			fmt.Fprintf(b, ", %d of them", t.Tokens)
		}
		if t.Lent && what == "held by" {
			b.WriteString(", lent")
		} else if t.Lent {
			b.WriteString(", back")
		}
		if aged {
			b.WriteString(since(", for ", t.Age))
		}
		b.WriteByte('\n')
	}
	for _, t := range l.Held {
		one("held by", t)
	}
	if more := l.Holders - len(l.Held); more > 0 {
		fmt.Fprintf(b, "  and by %d more\n", more)
	}
	for _, t := range l.Queue {
		one("waited for by", t)
	}
	if more := l.Queued - len(l.Queue); more > 0 {
		fmt.Fprintf(b, "  and by %d more\n", more)
	}
}

// writeIdle writes which contexts keep others from a thread.
func (r *Report) writeIdle(b *strings.Builder) {
	for i, c := range r.Idle {
		if i == 0 || r.Idle[i-1].Pool != c.Pool {
			n := 0
			for _, o := range r.Idle {
				if o.Pool == c.Pool {
					n += o.Contexts
				}
			}
			who := count(c.Waiting, "context") + " in line for a thread"
			if c.Closing && c.Waiting > 0 {
				who += " and a Close"
			} else if c.Closing {
				who = "a Close"
			}
			fmt.Fprintf(b, "\n%s of a pool: of its contexts %d are open and idle\n", who, n)
		}
		fmt.Fprintf(b, "  %d", c.Contexts)
		if c.Name != "" {
			fmt.Fprintf(b, " called %s", c.Name)
		}
		if c.Made != nil {
			fmt.Fprintf(b, " made in %s", c.Made)
		}
		b.WriteByte('\n')
	}
}

// since returns what has changed since the report old, in the form of String:
// what is new or different, apart from elapsed times.
func (r *Report) since(old *Report) string {
	if r == nil {
		return "no report\n"
	}
	var b strings.Builder
	when := old.Time.Format("2006-01-02 15:04:05.000 MST")
	was := map[string]bool{}
	for i := range old.Threads {
		was[old.still(&old.Threads[i])] = true
	}
	there := map[uint64]bool{}
	for i := range r.Threads {
		t := &r.Threads[i]
		there[t.ID] = true
		if !was[r.still(t)] {
			b.WriteByte('\n')
			r.writeThread(&b, t)
		}
	}
	for i := range old.Threads {
		if t := &old.Threads[i]; !there[t.ID] && r.MoreThreads == 0 {
			fmt.Fprintf(&b, "\nthread %s: not there any more\n", t.name())
		}
	}
	if !slices.EqualFunc(r.Idle, old.Idle, func(a, b Idle) bool {
		return a.Contexts == b.Contexts && a.Waiting == b.Waiting && a.Closing == b.Closing && title(a.Name, a.Made) == title(b.Name, b.Made)
	}) {
		r.writeIdle(&b)
	}
	loop := func(r *Report, l *Loop) string {
		var b strings.Builder
		l.write(&b, r, false)
		return b.String()
	}
	for i := range old.Loops {
		was[loop(old, &old.Loops[i])] = true
	}
	for i := range r.Loops {
		if !was[loop(r, &r.Loops[i])] {
			r.Loops[i].write(&b, r, true)
		}
	}
	limiter := func(l *Limiter) string {
		var b strings.Builder
		l.write(&b, false)
		return b.String()
	}
	for i := range old.Limiters {
		was[limiter(&old.Limiters[i])] = true
	}
	for i := range r.Limiters {
		if !was[limiter(&r.Limiters[i])] {
			r.Limiters[i].write(&b, true)
		}
	}
	before := map[string]bool{}
	for _, w := range old.Waits {
		before[w.line(false)] = true
	}
	head := "\nwho waits for whom\n"
	for _, w := range r.Waits {
		if !before[w.line(false)] {
			fmt.Fprintf(&b, "%s  %s\n", head, w.line(true))
			head = ""
		}
	}
	changed := &Report{MoreGoroutines: 0, StacksCut: r.StacksCut && !old.StacksCut}
	for _, g := range r.Goroutines {
		o := old.goroutine(g.ID)
		if o != nil {
			one, two := *o, g
			one.Minutes, two.Minutes = 0, 0
			h1, b1 := one.text()
			if h2, b2 := two.text(); h1 == h2 && b1 == b2 {
				continue
			}
		}
		changed.Goroutines = append(changed.Goroutines, g)
	}
	changed.writeStacks(&b)
	if b.Len() == 0 {
		return fmt.Sprintf("nothing has changed since the report of %s\n", when)
	}
	return fmt.Sprintf("changes since the report of %s\n%s", when, &b)
}

// still returns the text of a thread without what changes with time alone.
func (r *Report) still(t *Thread) string {
	var b strings.Builder
	one := *t
	calm := func(calls []Call) []Call {
		calls = slices.Clone(calls)
		for i := range calls {
			calls[i].Waited = -1
			if calls[i].Wait != nil {
				w := *calls[i].Wait
				w.Age = -1
				calls[i].Wait = &w
			}
		}
		return calls
	}
	one.Stack, one.Queue = calm(t.Stack), calm(t.Queue)
	fmt.Fprintf(&b, "%d ", t.ID)
	r.writeThread(&b, &one)
	return b.String()
}

// line returns the wait as a line of text. Without aged it omits the age.
func (w Wait) line(aged bool) string {
	if !aged {
		w.Age = -1
	}
	return fmt.Sprintf("%s -> %s: %s", w.From, w.To, w.label())
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (r *Report) writeThread(b *strings.Builder, t *Thread) {
	fmt.Fprintf(b, "thread %s: ", t.name())
	if t.Lined {
		b.WriteString("waits for a thread of its pool")
	} else {
		fmt.Fprintf(b, "goroutine %d", t.Goroutine)
	}
	switch {
	case t.Unpinned:
		b.WriteString(", not pinned")
	case t.OSThread != 0:
		fmt.Fprintf(b, ", OS thread %d", t.OSThread)
	}
	if t.Adopted {
		b.WriteString(", adopted")
	}
	if t.Policy != "" && t.Policy != "Related" {
		fmt.Fprintf(b, ", serves %s", t.Policy)
	}
	b.WriteByte('\n')
	if t.Exiting && len(t.Stack) == 0 {
		b.WriteString("  runs exit functions\n")
	} else if t.unserved() {
		b.WriteString("  its goroutine is not in RunUntil, RunPending or a wait that serves\n")
	} else if len(t.Stack) == 0 && !t.Lined {
		b.WriteString("  idle\n")
	}
	for i := range t.Stack {
		c := &t.Stack[i]
		what := "runs"
		if i > 0 {
			what = "below it"
		}
		fmt.Fprintf(b, "  %s %s", what, c.describe())
		if w := c.Wait; w != nil {
			fmt.Fprintf(b, ", blocked in %s", w.Kind)
			if w.For != "" {
				fmt.Fprintf(b, " of %s", w.For)
			}
			if w.To != (Party{}) {
				fmt.Fprintf(b, " on %s", w.To)
			}
			b.WriteString(since(" for ", w.Age))
		} else if g := r.goroutine(t.Goroutine); i == 0 && g != nil && parked[g.State] {
			fmt.Fprintf(b, ", parked outside the library in %s", g.State)
		}
		b.WriteByte('\n')
		c.writeSite(b)
	}
	if more := t.Depth - len(t.Stack); more > 0 {
		fmt.Fprintf(b, "  and %s below\n", count(more, "more call"))
	}
	if t.Queued > 0 {
		fmt.Fprintf(b, "  %d queued\n", t.Queued)
		for i := range t.Queue {
			c := &t.Queue[i]
			fmt.Fprintf(b, "    %s", c.describe())
			switch {
			case c.Below:
				b.WriteString(", made from below what runs")
			case c.Stranger && len(t.Stack) > 0:
				b.WriteString(", a stranger")
			}
			b.WriteByte('\n')
			c.writeSite(b)
		}
		if more := t.Queued - len(t.Queue); more > 0 {
			fmt.Fprintf(b, "    and %d more\n", more)
		}
	}
}

// unserved reports whether something waits for the owner of an executor, which runs
// nothing.
func (t *Thread) unserved() bool { return t.Executor && t.Queued > 0 && len(t.Stack) == 0 }

func (t *Thread) name() string {
	return cmp.Or(title(t.Name, t.Made), "(unnamed)")
}

func (c *Call) describe() string {
	s := c.Name
	if s == "" {
		s = "its caller"
	}
	if c.Context != "" {
		s += " of context " + c.Context
	}
	if c.Caller != 0 {
		s += fmt.Sprintf(", called by goroutine %d", c.Caller)
	}
	return s + since(", waited for ", c.Waited)
}

func (c *Call) writeSite(b *strings.Builder) {
	if c.Site != nil {
		fmt.Fprintf(b, "        from %s\n", c.Site)
	}
}

// String returns the function and where in it.
func (f Frame) String() string {
	if f.File == "" {
		return f.Func
	}
	return fmt.Sprintf("%s %s:%d", f.Func, f.File, f.Line)
}

// since returns word and a duration, or "" if the duration is not known.
func since(word string, d time.Duration) string {
	if d < 0 {
		return ""
	}
	return word + round(d).String()
}

// round keeps about three digits.
func round(d time.Duration) time.Duration {
	for unit := time.Second; unit > time.Nanosecond; unit /= 10 {
		if d >= 100*unit {
			return d.Round(unit)
		}
	}
	return d
}

// String names the party.
func (p Party) String() string {
	switch {
	case p == (Party{}):
		return "?"
	case p.Function != "" && p.Thread != 0:
		on := p
		on.Function = ""
		return p.Function + " on " + on.String()
	case p.Thread != 0 && p.Name != "":
		return "thread " + p.Name
	case p.Thread != 0 && p.Goroutine == 0:
		return fmt.Sprintf("thread %d", p.Thread)
	case p.Thread != 0:
		return fmt.Sprintf("thread of goroutine %d", p.Goroutine)
	case p.Name != "":
		return fmt.Sprintf("goroutine %d (%s)", p.Goroutine, p.Name)
	}
	return fmt.Sprintf("goroutine %d", p.Goroutine)
}

// what describes the target of the wait.
func (w *Wait) what() string {
	if phrase := core.Phrase(w.Kind, cmp.Or(w.For, w.To.Name, "(unnamed)")); phrase != "" {
		return phrase
	}
	if w.For == "" {
		return "the end of its " + w.Kind
	}
	return "the " + w.Kind + " of " + w.For
}

func (w *Wait) label() string {
	s := w.Kind
	if w.Queued {
		s = "queued " + s
	}
	if w.For != "" && w.For != w.To.Function && (w.For != w.To.Name || w.To.Thread != 0) {
		s += " of " + w.For
	}
	return s + since(", ", w.Age)
}

func (r *Report) goroutine(id int64) *Goroutine {
	i := slices.IndexFunc(r.Goroutines, func(g Goroutine) bool { return g.ID == id && id != 0 })
	if i < 0 {
		return nil
	}
	return &r.Goroutines[i]
}

// writeStacks writes the goroutines, grouping those with the same stack.
func (r *Report) writeStacks(b *strings.Builder) {
	seen := map[string]int{}
	type group struct {
		head string
		ids  []string
		body string
	}
	var groups []group
	for i := range r.Goroutines {
		g := &r.Goroutines[i]
		head, body := g.text()
		at, ok := seen[head+"\n"+body]
		if !ok {
			at = len(groups)
			seen[head+"\n"+body] = at
			groups = append(groups, group{head: head, body: body})
		}
		groups[at].ids = append(groups[at].ids, fmt.Sprint(g.ID))
	}
	for _, g := range groups {
		noun := "goroutine"
		if len(g.ids) > 1 {
			noun = "goroutines"
		}
		fmt.Fprintf(b, "\n%s %s %s\n%s", noun, strings.Join(g.ids, ", "), g.head, g.body)
	}
	if r.MoreGoroutines > 0 {
		fmt.Fprintf(b, "\nand %s without a stack here\n", count(r.MoreGoroutines, "more goroutine"))
	}
	if r.StacksCut {
		fmt.Fprintf(b, "\nThe stacks of all goroutines exceed %d MB: some are missing.\n", maxDump>>20)
	}
}

func (g *Goroutine) text() (head, body string) {
	head = "[" + g.State
	if g.Minutes > 0 {
		head += fmt.Sprintf(", %s", count(g.Minutes, "minute"))
	}
	if g.Locked {
		head += ", locked to thread"
	}
	head += "]:"
	var b strings.Builder
	frame := func(prefix string, f Frame) {
		fmt.Fprintf(&b, "  %s%s\n      %s:%d\n", prefix, f.Func, f.File, f.Line)
	}
	for _, f := range outside(g.Frames) {
		frame("", f)
	}
	if g.Elided > 0 {
		fmt.Fprintf(&b, "  and %s\n", count(g.Elided, "more function"))
	}
	if g.CreatedBy != nil && !library(g.CreatedBy.Func) {
		frame("created by ", *g.CreatedBy)
	}
	return head, b.String()
}

// outside returns the frames without the internals of this module: of each run
// of its functions only the one that was called from outside.
func outside(frames []Frame) []Frame {
	var kept []Frame
	var entry *Frame // of the run that we are in
	for i, f := range frames {
		switch {
		case library(f.Func):
			if entry == nil && !slices.ContainsFunc(kept, func(k Frame) bool { return !plumbing(k.Func) }) {
				kept = nil // what it is parked in
			}
			entry = &frames[i]
		case entry != nil && plumbing(f.Func):
		default:
			if entry != nil {
				kept = append(kept, *entry)
			}
			entry = nil
			kept = append(kept, f)
		}
	}
	return kept
}

// WriteDOT writes the graph in the language of graphviz. Threads are boxes,
// goroutines are ellipses, and waits are arrows. An arrow is dashed for a call
// that has not begun, and ends in a question mark if its target is not known.
func (r *Report) WriteDOT(w io.Writer) error {
	if r == nil {
		r = &Report{}
	}
	var b strings.Builder
	b.WriteString("digraph waits {\n\trankdir=LR;\n\tnode [fontname=\"monospace\"];\n\tedge [fontname=\"monospace\"];\n")
	nodes := map[string]bool{}
	for i := range r.Threads {
		t := &r.Threads[i]
		id := Party{Thread: t.ID, Goroutine: t.Goroutine}.node()
		nodes[id] = true
		lines := []string{"thread " + t.name(), fmt.Sprintf("goroutine %d", t.Goroutine)}
		if t.Lined {
			lines[1] = "waits for a thread of its pool"
		} else if t.OSThread != 0 {
			lines[1] += fmt.Sprintf(", OS thread %d", t.OSThread)
		}
		if len(t.Stack) > 0 {
			what := t.Stack[0].Name
			if what == "" {
				what = "its caller"
			}
			lines = append(lines, "runs "+what)
			if t.Depth > 1 {
				lines = append(lines, fmt.Sprintf("on top of %d", t.Depth-1))
			}
		} else if !t.Lined {
			lines = append(lines, "idle")
		}
		if t.Queued > 0 {
			lines = append(lines, fmt.Sprintf("%d queued", t.Queued))
		}
		fmt.Fprintf(&b, "\t%s [shape=box, label=%s];\n", id, quote(lines...))
	}
	for _, e := range r.Waits {
		if e.Under {
			continue
		}
		for _, p := range []Party{e.From, e.To} {
			if id := p.node(); p != (Party{}) && !nodes[id] {
				nodes[id] = true
				p.Function = ""
				shape, lines := "ellipse", []string{p.String()}
				if p.Thread != 0 {
					shape = "box"
				} else if g := r.goroutine(p.Goroutine); g != nil {
					lines = append(lines, g.State)
				}
				fmt.Fprintf(&b, "\t%s [shape=%s, label=%s];\n", id, shape, quote(lines...))
			}
		}
	}
	for i, e := range r.Waits {
		if e.Under {
			continue
		}
		style := "solid"
		if e.Queued {
			style = "dashed"
		}
		to := e.To.node()
		if e.To == (Party{}) {
			to = fmt.Sprintf("u%d", i) // each its own: that two are the same is not known either
			fmt.Fprintf(&b, "\t%s [shape=plaintext, label=\"?\"];\n", to)
		}
		fmt.Fprintf(&b, "\t%s -> %s [style=%s, label=%s];\n", e.From.node(), to, style, quote(e.label()))
	}
	b.WriteString("}\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// node returns the name of the party in DOT.
func (p Party) node() string {
	if p.Thread != 0 {
		return fmt.Sprintf("t%d", p.Thread)
	}
	return fmt.Sprintf("g%d", p.Goroutine)
}

// quote returns a label with one line for each of lines.
func quote(lines ...string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i, l := range lines {
		if i > 0 {
			b.WriteString(`\n`)
		}
		b.WriteString(strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(oneLine(l)))
	}
	b.WriteByte('"')
	return b.String()
}
