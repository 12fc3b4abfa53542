package nesting

import "context"

// What the generator, the run and the model know of operations. They know none of
// them by name: features.go has the list.

// An operation is what there is to know of a kind, but for how it is made.
type operation struct {
	kind kind

	// run does it, as a part of a, and returns what it ends with.
	run func(x *run, ctx context.Context, o *Op, a *activity) (int, error)

	// expect does to the model what run does to the world. Nil is for what returns 0
	// and leaves the variables alone.
	expect func(m *model, o *Op, v *Values) Outcome

	// print returns what a printed program says of it besides what that says of all
	// operations. Nil is for nothing.
	print func(o *Op) string

	// goexits reports whether it may end its caller by Goexit. Nil is for what does if
	// Body does.
	goexits func(o *Op) bool

	calls   bool // it ends as Body does, or says why that has not run
	cancels bool // it may end the ctx of a call of its own
}

// A maker makes an operation where the state allows it, and returns nil elsewhere.
type maker func(g *generator, s *state) *Op

// A menu has makers to choose from at random. They are chosen in proportion to their
// weights.
type menu []choice

type choice struct {
	weight int
	make   maker
}

// pick is a maker. It draws one random number to choose another.
func (m menu) pick(g *generator, s *state) *Op {
	total := 0
	for _, c := range m {
		total += c.weight
	}
	n := g.IntN(total)
	for _, c := range m {
		if n -= c.weight; n < 0 {
			return c.make(g, s)
		}
	}
	panic("unreachable")
}

// oneIn makes a one time in n, and else b.
func oneIn(n int, a, b maker) maker {
	return func(g *generator, s *state) *Op {
		if g.IntN(n) == 0 {
			return a(g, s)
		}
		return b(g, s)
	}
}

// whereLoose makes a in loose parts, and else b.
func whereLoose(a, b maker) maker {
	return func(g *generator, s *state) *Op {
		if s.loose {
			return a(g, s)
		}
		return b(g, s)
	}
}

// An offer is a maker for where when is true.
type offer struct {
	when func(g *generator, s *state) bool
	make maker
}

// features is what programs consist of. features.go fills it in.
var features struct {
	operations map[kind]operation

	// prepare makes what a program has besides roots. Roots begin with the state s.
	prepare []func(g *generator, s *state)

	// An operation is made by the first of first that makes one, else by the first of
	// offers whose when is true.
	first  []maker
	offers []offer

	// filler makes one that may stand anywhere.
	filler maker

	// provide makes what a run has before its roots start. The functions that they
	// return are called when all roots and tasks have ended, the last one first.
	provide []func(x *run) (end func())
}

// enter fills in the operations of features.
func enter(all ...[]operation) {
	features.operations = map[kind]operation{}
	for _, some := range all {
		for _, it := range some {
			if _, ok := features.operations[it.kind]; ok {
				panic("nesting: two operations " + string(it.kind))
			}
			features.operations[it.kind] = it
		}
	}
}

// operation returns what there is to know of o's kind.
func (o *Op) operation() operation { return features.operations[o.Kind] }

// goexits reports whether o may end its caller by Goexit.
func (o *Op) goexits() bool {
	if f := o.operation().goexits; f != nil {
		return f(o)
	}
	return o.Body != nil && o.Body.goexits
}

// cancels reports whether o may end the ctx of a call of its own.
func (o *Op) cancels() bool { return o.Loose || o.operation().cancels }
