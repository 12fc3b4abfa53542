package nesting

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/core"
)

// Contexts and handles that are made in the middle of a program, for what is below.

const (
	opScope  kind = "scope"  // NewThreadSensitiveContext, Body, Close in some way
	opHandle kind = "handle" // Open, Body, Handle.Close
)

var scopeOps = []operation{
	{kind: opScope, run: (*run).scope, expect: (*model).inline, print: printScope},
	{kind: opHandle, run: (*run).handle, expect: (*model).inline, print: printOn},
}

func printScope(o *Op) string {
	s := fmt.Sprintf(" %v, closed: %v", o.On, o.Close)
	if o.Foreign {
		s += ", foreign"
	}
	return s
}

// scope is a context made in the middle.
func (g *generator) scope(s *state) *Op {
	f := *s
	// A small pool, if the rules allow one: else a context like others.
	pool, within := -1, false
	if n := len(g.p.Pools); n > 0 && !g.coin(4) {
		i := g.IntN(n)
		switch {
		case g.p.Pools[i].Wide && s.inPool&(1<<i) != 0:
			pool = i // it is a context like others then
			within = true
		case !g.p.Pools[i].Wide && s.sync != nil && s.sync.Pool == i && s.pools&(1<<(16+i)) == 0:
			pool = i
			f = f.sequential()
			f.pools |= 1 << (16 + i)
		case s.pools&(1<<i) == 0 && g.poolRank[i]-epsilon >= s.top() && !s.topped():
			pool = i
			s.touch(g.poolRank[i] - epsilon)
		}
	}
	o := g.newOp(opScope)
	natural := s.scope == nil || s.scope.Kind == adopted || s.scope.Kind == defaultThread
	o.Foreign = !natural && (pool >= 0 || g.coin(2)) || natural && pool < 0 && g.coin(4)
	lent := pool >= 0 && !within && s.pools&(1<<pool) != 0
	if lent {
		o.Foreign = true
	}
	switch {
	case !natural && !o.Foreign:
		o.On = g.context(nested, 0, s.scope)
		o.On.Policy, o.On.Unpinned, o.On.Pool = o.On.Root.Policy, o.On.Root.Unpinned, o.On.Root.Pool
	case pool >= 0 && !within:
		rank := g.poolRank[pool]
		if lent {
			rank = max(s.top(), rank)
		}
		o.On = g.context(private, rank, nil)
		o.On.Pool = pool
		f.pools |= 1 << pool
		if !lent {
			f.chain = append(slices.Clip(f.chain), o.On) // the capacity is held throughout
			if f.cb >= 0 && !slices.Contains(s.chain, o.On) {
				// Capacity is no function that could be called back.
				f.cb = len(f.chain)
			}
		}
	default:
		o.On = g.context(private, g.rank(s), nil)
		g.flavour(o.On)
		if within {
			o.On.Pool, o.On.Unpinned = pool, false
		}
	}
	o.Close = closing(g.IntN(int(closeWith) + 1))
	if pool >= 0 && o.Close == closeAtEnd {
		o.Close = closeBelow
	}
	if o.Foreign && o.Close == closeWith {
		o.Close = closeBelow
	}
	if s.loose && (o.Close == closeAtEnd || o.Close == closeInside) {
		o.Close = closeBelow
	}
	if o.Close == closeInside && (s.sync == o.On.Root || !s.may(o.On)) {
		o.Close = closeBelow
	}
	if o.Close == closeInside {
		s.on(o.On)
	}
	if o.Close != closeAtEnd {
		f.mustJoin = true
	}
	if !o.Foreign {
		f.scope, f.bare = o.On, false
	}
	f.reach = append(slices.Clip(f.reach), o.On)
	o.Body = g.body(f)
	return o
}

// handle is a handle for those below.
func (g *generator) handle(s *state) *Op {
	o := g.newOp(opHandle)
	o.On = g.context(handle, g.rank(s), nil)
	g.flavour(o.On)
	if o.On.Policy == asyncsync.None {
		o.On.Policy = asyncsync.Related
	}
	s.touch(o.On.rank)
	f := *s
	f.mustJoin = true
	f.reach = append(slices.Clip(f.reach), o.On)
	o.Body = g.body(f)
	return o
}

func (x *run) scope(ctx context.Context, o *Op, a *activity) (v int, err error) {
	if o.Close == closeWith {
		c := &contextState{Context: o.On}
		x.contexts[o.On.ID] = c
		err = asyncsync.WithThreadSensitiveContext(ctx, func(ctx context.Context) (err error) {
			// The context that With has made cannot be named from outside; one
			// more, nested in it, can.
			c.ctx, c.tsc = asyncsync.NewThreadSensitiveContext(ctx, x.options(c)...)
			defer x.closed(c)
			v, err = x.list(c.ctx, o.Body, a, nil)
			return err
		}, x.options(c)...)
		x.over(c)
		return v, err
	}
	from := ctx
	if o.Foreign {
		from = asyncsync.Detach(ctx)
	}
	c := x.open(from, o.On)
	x.contexts[o.On.ID] = c
	if !o.Foreign {
		ctx = c.ctx
	}
	if o.Close == closeAtEnd {
		x.later(c)
		return x.list(ctx, o.Body, a, nil)
	}
	defer func() {
		x.closed(c)
		x.during(a, &activity{}, func() {
			if o.Close == shutBelow {
				if err := c.tsc.Shutdown(context.Background()); err != nil && !errors.Is(err, x.inside(a, c)) {
					x.complain("Shutdown of %v: %v", c.Context, err)
				}
			} else if err := c.tsc.Close(); err != nil {
				x.complain("Close of %v: %v", c.Context, err)
			}
			x.over(c)
			x.refused(ctx, o, a)
		})
	}()
	v, err = x.list(ctx, o.Body, a, nil)
	if o.Close == closeInside {
		f, w := x.probe(o, a, func(ctx context.Context) (int, error) {
			x.closed(c)
			if err := c.tsc.Close(); err != nil {
				x.complain("Close of %v from inside: %v", c.Context, err)
			}
			return 0, nil
		})
		x.during(a, w, func() {
			if _, err := asyncsync.ToThread(ctx, f, asyncsync.On(c.tsc)); err != nil {
				x.complain("#%d: the call that closes: %v", o.ID, err)
			}
		})
	}
	return v, err
}

// inside is what Shutdown may say where it would wait for its own caller.
func (x *run) inside(a *activity, c *contextState) error {
	if c.Kind == nested {
		return core.ErrDeadlock // c shares a thread, which may be the caller's
	}
	return errNone
}

func (x *run) handle(ctx context.Context, o *Op, a *activity) (v int, err error) {
	c := &contextState{Context: o.On}
	x.contexts[o.On.ID] = c
	open, w := x.probe(o, a, nil2)
	closes := 0
	x.during(a, w, func() {
		c.handle, err = asyncsync.Open(ctx, func(ctx context.Context) (*contextState, error) {
			_, err := open(ctx)
			return c, err
		}, func(got *contextState) error {
			closes++
			x.disclaim(c) // a Goexit on top of Open has it give the thread back
			if tid := osThread(); got != c || !c.Unpinned && tid != c.tid {
				x.complain("#%d: closes %v on OS thread %d, should be %v on %d", o.ID, got.Context, tid, c.Context, c.tid)
			}
			return nil
		}, x.options(c)...)
	})
	if err != nil {
		if !o.Loose {
			x.complain("#%d: Open: %v", o.ID, err)
		}
		return 0, err
	}
	defer func() {
		x.closed(c)
		x.during(a, &activity{}, func() {
			if err := c.handle.Close(); err != nil {
				x.complain("#%d: Close: %v", o.ID, err)
			}
			if closes != 1 {
				x.complain("#%d: the value was closed %d times", o.ID, closes)
			}
			x.over(c)
			if o.Loose {
				return
			}
			err := c.handle.Do(ctx, func(context.Context, *contextState) error {
				x.complain("#%d: Do runs after Close", o.ID)
				return nil
			})
			if !errors.Is(err, asyncsync.ErrClosed) {
				x.complain("#%d: Do after Close: %v", o.ID, err)
			}
		})
	}()
	return x.list(ctx, o.Body, a, nil)
}
