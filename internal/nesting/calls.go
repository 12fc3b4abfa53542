package nesting

import (
	"context"
	"slices"

	"asyncsync.dev/asyncsync"
)

// Calls of functions on the threads of contexts, of async ones, and of those that any
// thread may run.

const (
	opCall   kind = "call"   // ToThread
	opFrom   kind = "from"   // FromThread
	opDetach kind = "detach" // ToThread with a detached ctx
)

var callOps = []operation{
	{kind: opCall, run: (*run).toThread, expect: (*model).inline, print: printTarget, calls: true},
	{kind: opFrom, run: (*run).fromThread, expect: (*model).inline, print: printAdopted, calls: true},
	{kind: opDetach, run: (*run).detach, expect: (*model).inline, calls: true},
}

// call is a call of a function on the thread of a context.
func (g *generator) call(s *state) *Op {
	inner := s.inner()
	o := &Op{}
	if !g.target(s, o) {
		return nil
	}
	o = g.with(opCall, o)
	o.Wrapper = o.Target < throughDo && g.coin(2)
	g.options(o)
	o.Body = g.body(inner.on(o.On))
	return o
}

// insensitive is a call that any thread may run.
func (g *generator) insensitive(s *state) *Op {
	inner := s.inner()
	where := placeUsual
	var l *Context
	again := false
	switch g.IntN(5) {
	case 4:
		if l = g.again(s); l != nil {
			again = true
			if g.coin(2) {
				where = placeLoop
				inner.bare = false
			}
		}
	case 0:
		where = placeLoop
		inner.bare = false // a call of its own
	case 1:
		if l = g.limiter(s); l != nil {
			inner = inner.holding(l)
			inner.kept = append(slices.Clip(inner.kept), l)
			if s.sync == nil {
				where = placeLoop // else its holder would be the caller
				inner.bare = false
			}
		}
	}
	o := g.newOp(opCall)
	o.Target, o.Place, o.Limiter, o.Again = insensitive, where, l, again
	g.options(o)
	inner = inner.async()
	inner.off = inner.loop > 0
	o.Body = g.body(inner)
	return o
}

// from is a call of an async function.
func (g *generator) from(s *state) *Op {
	inner := s.inner()
	o := g.newOp(opFrom)
	switch g.IntN(6) {
	case 0:
		o.Place = placeLoop
	case 1:
		o.Place = placeSame
	default:
		o.Wrapper = g.coin(2)
	}
	if !o.Wrapper {
		g.options(o)
	}
	switch {
	case s.bare:
		o.On = g.context(adopted, s.top()+epsilon, nil)
		inner = inner.on(o.On)
		inner.known = o.Place != placeSame
		if o.Place != placeSame {
			inner.syncScope, inner.sync = nil, nil
		}
		inner.mustJoin = true
	case s.sync != nil && o.Place == placeSame:
		inner.scope = inner.nearest()
	case o.Place != placeSame:
		inner = inner.async()
	}
	if o.Place == placeLoop {
		inner.loop = 0
	}
	o.Body = g.body(inner)
	return o
}

// detach is a call to the default thread by nobody's relative.
func (g *generator) detach(s *state) *Op {
	inner := s.inner()
	d := g.p.Contexts[0]
	if s.sync != d && d.rank-epsilon < s.top() {
		return nil
	}
	o := g.newOp(opDetach)
	o.On = d
	if s.sync != d {
		s.touch(d.rank - epsilon)
	}
	if inner.cb >= 0 {
		inner.cb = len(inner.chain)
	}
	inner.inPool = 0
	inner.detached = true
	inner.kept = nil                             // a stranger is lent nothing
	inner.mustJoin = inner.mustJoin || s.derived // it would end with a task above
	o.Body = g.body(inner.on(d))
	return o
}

func (x *run) toThread(ctx context.Context, o *Op, a *activity) (v int, err error) {
	c := x.child(a, o.Body)
	x.during(a, c, func() {
		switch {
		case o.Again:
			v, err = x.underAgain(ctx, o, c)
		case o.Limiter != nil:
			v, err = x.underLimiter(ctx, o, c)
		case o.Loose && o.Options&optInterrupt != 0:
			i, opt := x.interruption(o)
			defer i.over()
			i.began.Store(true) // its first statement may come a moment later
			v, err = x.call(ctx, o, x.function(o.Body, c, nil, nil), opt)
		default:
			v, err = x.call(ctx, o, x.function(o.Body, c, nil, nil))
		}
	})
	return v, err
}

func (x *run) fromThread(ctx context.Context, o *Op, a *activity) (v int, err error) {
	if o.Place == placeSame && o.On == nil {
		return x.from(ctx, o, a, func(ctx context.Context) (int, error) { return x.list(ctx, o.Body, a, nil) })
	}
	c := x.child(a, o.Body)
	var head func(context.Context)
	if o.On != nil {
		defer x.adopt(o, a)()
	}
	here := osThread()
	switch {
	case o.Place == placeSame:
	case o.On != nil, a.on != nil && !a.on.Unpinned:
		head = func(context.Context) {
			if tid := osThread(); tid != 0 && tid == here {
				x.complain("#%d: async code runs on the thread that it was called from", o.ID)
			}
		}
	}
	begins := func(got context.Context) {
		c.borrows = got == ctx // off the threads it is called where a is
		if head != nil {
			head(got)
		}
	}
	x.during(a, c, func() { v, err = x.from(ctx, o, a, x.function(o.Body, c, begins, nil)) })
	return v, err
}

func (x *run) detach(ctx context.Context, o *Op, a *activity) (v int, err error) {
	c := x.child(nil, o.Body)
	x.during(a, c, func() {
		v, err = asyncsync.ToThread(asyncsync.Detach(ctx), x.function(o.Body, c, nil, nil))
	})
	return v, err
}
