// Package cycle finds cycles of waits, and makes the errors that report them.
//
// It knows nothing of threads, tasks or locks. Its user describes each thing that
// waits as a [Vertex], which says what has to end before it can end itself. A
// [Search] follows these needs from one vertex on, and finds out whether they lead
// back to the one who asks.
//
// # And, or
//
// Most vertices need all that they name: one of these that never ends is enough to
// keep them. Others need any one (a token of a limiter, a thread of a pool): all of
// these must never end.
//
// A search assumes that what it is looking at never ends, until it finds the
// opposite. So a vertex is [Free] only if it truly can end. One that is not free
// rests on vertices that are not free either.
//
// # Seeing is not enough
//
// Waits come and go while a search runs from one to the next. So [Search.Certain]
// runs it twice, and compares the facts that both runs rest on. Equal facts have
// all been true at one moment between the two runs. Waits that only end after each
// other then go on for ever.
package cycle

import (
	"cmp"
	"context"
	"slices"
)

// A Vertex is something that may have to wait before it ends.
type Vertex interface {
	// Key identifies the vertex: vertices with equal keys are one. It is
	// comparable. A vertex with a nil key is looked at each time that it is met.
	Key() any
	// Expand returns what the vertex needs now.
	Expand() Needs
	// Links describes the waits of a vertex in a cycle, where the cycle goes on
	// with the need via. It is called after Expand. The nearest to via comes first.
	Links(via Vertex) []Step
}

// Needs are what has to end before a vertex can.
type Needs struct {
	Of  []Vertex // nothing means that the vertex can end
	Any bool     // one of Of is enough; else all are needed

	// Whole has the search look at all of Of though one of them is free. (Where all
	// are needed it does that anyway when one of them is stuck.)
	Whole bool
	// Varies says that another vertex with this key may need something else. What
	// was found is forgotten when the search has left the vertex.
	Varies bool

	Facts []any           // what else the answer rests on; comparable
	Until context.Context // ends the wait; may be nil, and is for a vertex with a key
}

// A Finding is what a search has found of a vertex.
type Finding int

const (
	Free   Finding = iota // it can end
	Looped                // it cannot end before something that was being looked at
	Stuck                 // it cannot end before a target
)

// MaxSteps is the usual bound of a search.
const MaxSteps = 1 << 20

// A Search looks whether a vertex depends on one of the targets.
type Search struct {
	Targets []any  // the few keys of the one who asks
	Limit   int    // of steps: what would take more counts as free; 0 means MaxSteps
	Begin   func() // is called at the beginning of each run; may be nil

	// What a run has found.
	Facts []any   // all that a finding other than Free rests on
	Waits []Until // of these, the ones that a ctx would end
	Chain []Step  // the waits from the last to the first, if it is stuck
	Steps int     // how many vertices were looked at

	gone  map[any]bool    // by key: vertices that DropEnded has dropped
	known map[any]Finding // by key; Looped while a vertex is being looked at
	keys  []any           // of those in known that rest on others, in the order in which they were found
}

// An Until is a wait that the end of a ctx would end.
type Until struct {
	Key any // of the vertex
	Ctx context.Context
}

// DropEnded drops the waits among s.Waits whose ctx has ended, and reports whether there
// are any: they are about to end, and count as free in all further runs. What was found
// may stand without them, so one must look again. Whatever such a vertex waits for next
// begins after this search, and has one of its own. No lock may be held: Err may be the
// user's own. It may be that of somebody else than the caller, too, so a panic of it
// counts as no end.
func (s *Search) DropEnded() (dropped bool) {
	for _, w := range s.Waits {
		if !ended(w.Ctx) {
			continue
		}
		if s.gone == nil {
			s.gone = map[any]bool{}
		}
		s.gone[w.Key] = true
		dropped = true
	}
	return dropped
}

// ended reports whether ctx has ended and says so.
func ended(ctx context.Context) (is bool) {
	defer func() { _ = recover() }()
	return ctx.Err() != nil
}

// maxRuns is how often Certain looks, while it finds something else each time.
const maxRuns = 16

// Certain reports whether root, at one moment, was stuck: two runs that follow
// each other have found that, and the same facts.
func (s *Search) Certain(root Vertex) bool {
	var before []any
	for run := range maxRuns {
		if s.Run(root) != Stuck {
			return false
		}
		if run > 0 && slices.Equal(before, s.Facts) {
			return true
		}
		before = s.Facts
	}
	return false
}

// Run looks at root once. A root that is a target itself is looked at all the same:
// it is what it needs that must not lead back to it.
func (s *Search) Run(root Vertex) Finding {
	s.Facts, s.Waits, s.Chain, s.Steps = nil, nil, nil, 0
	s.known, s.keys = map[any]Finding{}, nil
	if s.Begin != nil {
		s.Begin()
	}
	return s.expand(root)
}

// look returns what is found of v.
func (s *Search) look(v Vertex) Finding {
	k := v.Key()
	if k != nil {
		if slices.Contains(s.Targets, k) {
			return Stuck
		}
		if found, ok := s.known[k]; ok {
			return found // what that rests on is among the facts, or is about to be
		}
	}
	return s.expand(v)
}

// expand looks at v, which is not known yet.
func (s *Search) expand(v Vertex) Finding {
	if s.Steps++; s.Steps > cmp.Or(s.Limit, MaxSteps) {
		return Free
	}
	k := v.Key()
	before := s.mark()
	if k != nil {
		if s.gone[k] {
			return Free
		}
		s.known[k] = Looped
	}
	n := v.Expand()
	found, via := s.needs(n)
	if found == Free {
		s.back(before)
	}
	if k != nil {
		if s.known[k] = found; n.Varies {
			delete(s.known, k)
		}
	}
	if found == Free {
		return Free
	}
	if k != nil {
		s.Facts = append(s.Facts, k)
		s.keys = append(s.keys, k)
	}
	s.Facts = append(s.Facts, n.Facts...)
	if n.Until != nil {
		s.Waits = append(s.Waits, Until{k, n.Until})
	}
	if found == Stuck {
		s.Chain = append(s.Chain, v.Links(via)...)
	}
	return found
}

// needs returns what is found of n, and through which need.
func (s *Search) needs(n Needs) (found Finding, via Vertex) {
	for i, v := range n.Of {
		chain := len(s.Chain)
		one := s.look(v)
		rest := n.Of[i+1:]
		switch {
		case n.Any && one == Free:
			if n.Whole {
				s.visit(rest)
			}
			return Free, nil
		case !n.Any && one == Stuck:
			s.visit(rest)
			return Stuck, v
		case found == Stuck:
			s.Chain = s.Chain[:chain] // one is enough to tell
		case one > found:
			found, via = one, v
		}
	}
	return found, via
}

// visit looks at vertices that do not count any more: their users may want to have
// seen them.
func (s *Search) visit(of []Vertex) {
	before := s.mark()
	for _, v := range of {
		s.look(v)
		s.back(before)
	}
}

// A mark is a state of a search that it can go back to.
type mark struct{ facts, waits, chain, keys int }

func (s *Search) mark() mark {
	return mark{len(s.Facts), len(s.Waits), len(s.Chain), len(s.keys)}
}

// back forgets what was found since m, but for what is free: that stays true.
func (s *Search) back(m mark) {
	for _, k := range s.keys[m.keys:] {
		delete(s.known, k)
	}
	s.Facts, s.Waits, s.Chain, s.keys = s.Facts[:m.facts], s.Waits[:m.waits], s.Chain[:m.chain], s.keys[:m.keys]
}

// AllOf returns a vertex without a key that needs all of them.
func AllOf(of []Vertex, facts ...any) Vertex { return all{of, facts} }

type all struct {
	of    []Vertex
	facts []any
}

func (a all) Key() any            { return nil }
func (a all) Expand() Needs       { return Needs{Of: a.of, Facts: a.facts} }
func (a all) Links(Vertex) []Step { return nil }
