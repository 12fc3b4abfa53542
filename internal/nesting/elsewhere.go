package nesting

// Functions that run elsewhere than on a thread of a context: async ones, and
// those that are not thread-sensitive.

// insensitive is a call that any thread may run.
func (g *generator) insensitive(s *state, inner state) *Op {
	o := g.newOp(opCall)
	o.Target = insensitive
	if s.sync != nil {
		inner = inner.away()
	}
	o.Body = g.body(inner)
	return o
}

// from is a call of an async function.
func (g *generator) from(s *state, inner state) *Op {
	o := g.newOp(opFrom)
	o.Wrapper = g.coin(2)
	switch {
	case s.sync != nil:
		inner = inner.away()
	case s.bare:
		o.On = g.context(adopted, s.top()+epsilon, nil)
		inner = inner.on(o.On)
		inner.syncScope, inner.sync = nil, nil
		inner.mustJoin = true
	}
	o.Body = g.body(inner)
	return o
}
