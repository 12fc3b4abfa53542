package debugpage

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"asyncsync.dev/deadlock"
)

// A picture is the layout of who waits for whom: boxes in columns, so that
// arrows point to the right unless they close a cycle.
type picture struct {
	Width, Height int
	Boxes         []*box
	Arrows        []arrow
	Left          int // boxes that were left out
	Cycle         []string
}

// A box is a thread or a goroutine.
type box struct {
	ID        string // t7, g12
	Link      string // what tells more about it on the page
	Lines     [3]string
	Goroutine bool
	Cycle     bool
	X, Y      int

	column int
	scc    int
	in     int
}

// An arrow is a wait.
type arrow struct {
	from, to *box
	Path     string
	X, Y     int // of the label
	Label    string
	Title    string
	Queued   bool // for a call that has not begun
	Guess    bool // the wait is none of this module: see suspicion
	Cycle    bool
	Unknown  bool // nobody knows for whom
}

// The measures of a picture, in its units.
const (
	boxWidth, boxHeight = 190, 62
	gapX, gapY          = 150, 26
	boxText, arrowText  = 30, 22 // characters
	margin              = 16
	maxBoxes            = 40
)

func partyID(thread uint64, goroutine int64) string {
	switch {
	case thread != 0:
		return fmt.Sprintf("t%d", thread)
	case goroutine != 0:
		return fmt.Sprintf("g%d", goroutine)
	}
	return ""
}

// draw returns the picture of a report, or nil if there are no waits.
func draw(r *deadlock.Report) *picture {
	p := &picture{}
	boxes := map[string]*box{}
	threads := map[uint64]*deadlock.Thread{}
	for i := range r.Threads {
		threads[r.Threads[i].ID] = &r.Threads[i]
	}
	add := func(q deadlock.Party) *box {
		id := partyID(q.Thread, q.Goroutine)
		if id == "" {
			return nil
		}
		if b := boxes[id]; b != nil {
			return b
		}
		if len(p.Boxes) >= maxBoxes {
			p.Left++
			return nil
		}
		b := &box{ID: id, Link: "#" + id}
		if t := threads[q.Thread]; t != nil {
			b.Lines = linesOf(t)
		} else if q.Thread != 0 {
			b.Lines = [3]string{cmp.Or(q.Name, fmt.Sprintf("thread %d", q.Thread)), "thread", ""}
		} else {
			b.Goroutine = true
			b.Lines = [3]string{fmt.Sprintf("goroutine %d", q.Goroutine), short(q.Name), ""}
			if i := slices.IndexFunc(r.Goroutines, func(g deadlock.Goroutine) bool { return g.ID == q.Goroutine }); i >= 0 {
				b.Lines[2] = r.Goroutines[i].State
				b.Lines[1] = cmp.Or(b.Lines[1], functionOf(&r.Goroutines[i]))
			}
		}
		for i, l := range b.Lines {
			b.Lines[i] = cut(l, boxText)
		}
		boxes[id] = b
		p.Boxes = append(p.Boxes, b)
		return b
	}
	join := func(from, to deadlock.Party, a arrow) {
		a.Title += ": " + a.Label
		a.Label = cut(a.Label, arrowText)
		if a.from, a.to = add(from), add(to); a.from != nil && (a.to != nil || to == (deadlock.Party{})) {
			a.Unknown = a.to == nil
			p.Arrows = append(p.Arrows, a)
		}
	}
	for _, w := range r.Waits {
		if w.Under {
			continue
		}
		a := arrow{Label: w.Kind, Queued: w.Queued, Title: w.From.String() + " waits for " + w.To.String()}
		if w.Queued {
			a.Label = "queued " + w.Kind
		}
		if w.For != "" {
			a.Label += " of " + short(w.For)
		}
		join(w.From, w.To, a)
	}
	for _, t := range r.Threads {
		if by, parked, ok := suspicion(r, &t); ok {
			self := deadlock.Party{Thread: t.ID, Goroutine: t.Goroutine, Name: t.Name}
			join(self, by, arrow{
				Label: parked + "?", Guess: true,
				Title: fmt.Sprintf("what runs on %s is parked in %s, and may be waiting for what has called it from below", nameOf(&t), parked),
			})
		}
	}
	if len(p.Boxes) == 0 {
		return nil
	}
	p.cycles()
	p.layOut()
	return p
}

// suspicion returns who a function may be waiting for that is parked outside
// this module while a call made from below it is queued: the caller of that
// call, or what the function has started in between.
func suspicion(r *deadlock.Report, t *deadlock.Thread) (by deadlock.Party, parked string, ok bool) {
	if !t.Below || len(t.Stack) == 0 || t.Stack[0].Wait != nil {
		return by, "", false
	}
	i := slices.IndexFunc(t.Queue, func(c deadlock.Call) bool { return c.Below && c.Caller != 0 })
	g := slices.IndexFunc(r.Goroutines, func(g deadlock.Goroutine) bool { return g.ID == t.Goroutine })
	if i < 0 || g < 0 {
		return by, "", false
	}
	switch s := r.Goroutines[g].State; s {
	case "running", "runnable", "syscall":
		return by, "", false
	default:
		parked = s
	}
	caller := t.Queue[i].Caller
	for _, w := range r.Waits { // by the name that the picture knows it under
		if w.From.Goroutine == caller {
			return w.From, parked, true
		}
	}
	return deadlock.Party{Goroutine: caller}, parked, true
}

// functionOf returns the user's function that a goroutine is in.
func functionOf(g *deadlock.Goroutine) string {
	for _, f := range g.Frames {
		if !library(f.Func) {
			return short(f.Func)
		}
	}
	return ""
}

func linesOf(t *deadlock.Thread) [3]string {
	lines := [3]string{nameOf(t), "idle", ""}
	switch {
	case t.Lined:
		lines[1] = "in line for a thread"
	case t.Exiting && len(t.Stack) == 0:
		lines[1] = "runs exit functions"
	case len(t.Stack) > 0:
		lines[1] = "runs " + cmp.Or(short(t.Stack[0].Name), "its caller")
	}
	if t.Queued > 0 {
		lines[2] = fmt.Sprintf("%d queued", t.Queued)
	}
	if t.Depth > 1 {
		lines[2] = strings.TrimPrefix(fmt.Sprintf("%s, on top of %d", lines[2], t.Depth-1), ", ")
	}
	return lines
}

// cycles marks the members of cycles: the strongly connected components of the
// graph. It uses Tarjan's algorithm, recursively, because pictures are small.
func (p *picture) cycles() {
	index, low, on := map[*box]int{}, map[*box]int{}, map[*box]bool{}
	var stack []*box
	next, components := 0, 0
	var visit func(b *box)
	visit = func(b *box) {
		next++
		index[b], low[b] = next, next
		stack = append(stack, b)
		on[b] = true
		for _, a := range p.Arrows {
			if a.from != b || a.to == nil {
				continue
			}
			if index[a.to] == 0 {
				visit(a.to)
				low[b] = min(low[b], low[a.to])
			} else if on[a.to] {
				low[b] = min(low[b], index[a.to])
			}
		}
		if low[b] != index[b] {
			return
		}
		components++
		size := 0
		for i := len(stack) - 1; ; i-- {
			c := stack[i]
			c.scc = components
			on[c] = false
			size++
			if c == b {
				for _, c := range stack[i:] {
					c.Cycle = size > 1
				}
				stack = stack[:i]
				return
			}
		}
	}
	for _, b := range p.Boxes {
		if index[b] == 0 {
			visit(b)
		}
	}
	for i := range p.Arrows {
		a := &p.Arrows[i]
		a.Cycle = a.to != nil && (a.from == a.to || a.from.scc == a.to.scc)
		if a.from == a.to {
			a.from.Cycle = true
		}
	}
	for _, b := range p.Boxes {
		if b.Cycle {
			p.Cycle = append(p.Cycle, b.Lines[0])
		}
	}
}

func (p *picture) inCycle(id string) bool {
	return p != nil && slices.ContainsFunc(p.Boxes, func(b *box) bool { return b.ID == id && b.Cycle })
}

// layOut assigns columns to boxes: each box is to the right of those that wait
// for it, except for arrows that lead back. To find these, layOut follows the
// arrows from boxes that nobody waits for, and then from the remaining boxes in
// order.
func (p *picture) layOut() {
	for _, a := range p.Arrows {
		if a.to != nil && a.from != a.to {
			a.to.in++
		}
	}
	roots := slices.Clone(p.Boxes)
	slices.SortStableFunc(roots, func(a, b *box) int { return cmp.Compare(a.in, b.in) })
	state := map[*box]int{} // 1 on the way, 2 done
	var order []*box        // those that are waited for first
	back := map[int]bool{}
	var visit func(b *box)
	visit = func(b *box) {
		state[b] = 1
		for i, a := range p.Arrows {
			switch {
			case a.from != b || a.to == nil:
			case state[a.to] == 1:
				back[i] = true
			case state[a.to] == 0:
				visit(a.to)
			}
		}
		state[b] = 2
		order = append(order, b)
	}
	for _, b := range roots {
		if state[b] == 0 {
			visit(b)
		}
	}
	slices.Reverse(order)
	for _, b := range order {
		for i, a := range p.Arrows {
			if a.from == b && a.to != nil && !back[i] {
				a.to.column = max(a.to.column, b.column+1)
			}
		}
	}
	for _, b := range order { // who waits, and is not waited for, stands beside
		near := -1
		for i, a := range p.Arrows {
			if a.from == b && a.to != nil && !back[i] && (near < 0 || a.to.column < near) {
				near = a.to.column
			}
		}
		if b.in == 0 && near > 0 {
			b.column = near - 1
		}
	}
	// Boxes in cycles come first, and then those that lead to what is high up
	// already, so that few arrows cross.
	slices.SortStableFunc(order, func(a, b *box) int { return cmp.Compare(a.column, b.column) })
	row := map[*box]int{}
	height := func(b *box, forward bool) int {
		sum, n := 0, 0
		for _, a := range p.Arrows {
			one, other := a.to, a.from
			if !forward {
				one, other = a.from, a.to
			}
			if at, ok := row[other]; ok && one == b && other != b {
				sum, n = sum+8*at, n+1
			}
		}
		switch {
		case b.Cycle:
			return -1
		case n == 0:
			return 8 * row[b]
		}
		return sum / n
	}
	var columns [][]*box
	for rest := order; len(rest) > 0; {
		n := 0
		for n < len(rest) && rest[n].column == rest[0].column {
			n++
		}
		columns = append(columns, rest[:n])
		rest = rest[n:]
	}
	sweep := func(c []*box, forward bool) {
		at := make(map[*box]int, len(c))
		for _, b := range c {
			at[b] = height(b, forward)
		}
		slices.SortStableFunc(c, func(a, b *box) int { return cmp.Compare(at[a], at[b]) })
		for i, b := range c {
			row[b] = i
		}
	}
	for _, c := range columns {
		sweep(c, true)
	}
	for _, c := range slices.Backward(columns) {
		sweep(c, false)
	}
	top, bottom := margin, margin // room for arrows that lead back
	for i, a := range p.Arrows {
		switch {
		case !back[i]:
		case row[a.from] == 0 && row[a.to] == 0:
			top = margin + 44
		default:
			bottom = margin + 44
		}
	}
	most := 0
	for i, c := range columns {
		for j, b := range c {
			b.X = margin + i*(boxWidth+gapX)
			b.Y = top + j*(boxHeight+gapY)
		}
		most = max(most, len(c))
	}
	p.Width = 2*margin + len(columns)*boxWidth + (len(columns)-1)*gapX
	p.Height = top + most*(boxHeight+gapY) - gapY + bottom
	for i := range p.Arrows {
		a := &p.Arrows[i]
		x1, y1 := a.from.X+boxWidth, a.from.Y+boxHeight/2
		switch {
		case a.Unknown:
			a.Path = fmt.Sprintf("M%d %d h56", x1, y1)
			a.X, a.Y = x1+28, y1-8
			p.Width = max(p.Width, x1+120)
		case back[i]:
			// Go out of the box and around the others: above them if nothing is
			// there, otherwise below.
			x1, x2 := a.from.X+boxWidth/2, a.to.X+boxWidth/2
			if a.from == a.to {
				x1, x2 = x1+30, x2-30
			}
			y1, y2, far := a.from.Y, a.to.Y-3, top-58
			if row[a.from] > 0 || row[a.to] > 0 {
				y1, y2 = a.from.Y+boxHeight, a.to.Y+boxHeight+3
				far = max(y1, y2) + 56
			}
			a.Path = fmt.Sprintf("M%d %d C%d %d %d %d %d %d", x1, y1, x1, far, x2, far, x2, y2)
			a.X, a.Y = (x1+x2)/2, (y1+y2+6*far)/8-5
		default:
			x2, y2 := a.to.X, a.to.Y+boxHeight/2
			bend := min(gapX/2, (x2-x1)/2)
			a.Path = fmt.Sprintf("M%d %d C%d %d %d %d %d %d", x1, y1, x1+bend, y1, x2-bend, y2, x2-3, y2)
			a.X, a.Y = (x1+x2)/2, (y1+y2)/2-7
		}
	}
}
