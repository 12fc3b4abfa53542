package nesting

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/task"
)

// Planted cycles. One wait of the program is for something that waits for it, in a chain
// of waits of the library alone: somebody in the chain is told, and all the others go on.

const (
	opPlant        kind = "plant"         // a wait for Task or On, which waits for it
	opPlantLimited kind = "plant-limited" // a cycle through a limiter
	opLocked       kind = "locked"        // Body with a mutex of its own
)

var plantOps = []operation{
	{kind: opPlant, run: (*run).plant, print: func(o *Op) string {
		if o.Task != nil {
			return printTask(o)
		}
		return fmt.Sprintf(" for %v", o.On)
	}},
	{kind: opPlantLimited, run: (*run).plantLimited},
	{kind: opLocked, run: (*run).locked, expect: (*model).inline},
}

// kinds returns what the cycle goes through, once for each.
func (t trail) kinds() (kinds []string) {
	loops := map[string]bool{}
	for _, step := range t {
		kind := step
		if strings.HasPrefix(step, "loop ") {
			loops[step] = true
			kind = "loop"
		}
		if !slices.Contains(kinds, kind) {
			kinds = append(kinds, kind)
		}
	}
	if len(loops) > 1 {
		kinds = append(kinds, "two loops")
	}
	return kinds
}

// goFar has the cycle of some programs go through two loops.
func (g *generator) goFar(*state) { g.far = g.cfg.Plant && g.cfg.Loops > 1 && g.coin(2) }

// cycle is the wait that closes the cycle of the program, now and then where there is
// none yet.
func (g *generator) cycle(s *state) *Op {
	if !g.cfg.Plant || g.p.Planted != nil || !g.coin(3) {
		return nil
	}
	if o := g.plant(s); o != nil {
		return o
	}
	if g.cfg.Loops > 0 && !g.far && s.onLoop() && !s.loose && !s.raw && g.coin(12) {
		return g.plantLimited()
	}
	return nil
}

// plant is a wait for something that waits for it: for a task that this is
// below of and that is joined where it was made; for a mutex that a function has which
// waits for this; or, with a ctx that says nothing of where it comes from, for a thread
// whose function waits for this. What is between the two are waits of the library alone.
func (g *generator) plant(s *state) *Op {
	if s.raw || s.loose {
		return nil
	}
	var o *Op
	var blocked []*Context
	for _, c := range s.chain[s.sure:] {
		if c.Kind == shared && c != s.sync && c.Policy != asyncsync.All {
			blocked = append(blocked, c)
		}
	}
	all := append(slices.Clip(s.joins), s.locks...)
	if g.cfg.Loops > 0 {
		// Through a loop, most of the time.
		all = slices.DeleteFunc(slices.Clone(all), func(h hold) bool { return len(s.trail) == h.at && !g.coin(4) })
		if g.far {
			all = slices.DeleteFunc(all, func(h hold) bool { return !slices.Contains(s.trail[h.at:].kinds(), "two loops") })
		}
		if g.far || !g.coin(4) {
			blocked = nil
		}
	}
	switch {
	case len(all) > 0 && (len(blocked) == 0 || g.coin(2)):
		h := all[g.IntN(len(all))]
		o = g.newOp(opPlant)
		o.Task = h.op
		g.p.Trail = s.trail[h.at:]
		if h.op.Kind == opLocked {
			g.p.Trail = append(trail{"mutex"}, g.p.Trail...)
		}
	case len(blocked) > 0:
		o = g.newOp(opPlant)
		o.On = blocked[g.IntN(len(blocked))]
	default:
		return nil
	}
	g.p.Planted = o
	return o
}

// plantLimited is a limited function that takes the only token of its limiter once more.
func (g *generator) plantLimited() *Op {
	o := g.newOp(opPlantLimited)
	g.p.Planted = o
	g.p.Trail = trail{"limiter"}
	return o
}

// locked is a mutex that is held for Body.
func (g *generator) locked(s *state) *Op {
	if !s.known || s.raw || s.loose || s.bare {
		return nil
	}
	o := g.newOp(opLocked)
	f := *s
	f.locks = append(slices.Clip(f.locks), f.holds(o))
	o.Body = g.body(f)
	return o
}

// locked runs it.
func (x *run) locked(ctx context.Context, o *Op, a *activity) (int, error) {
	m := &task.Mutex{}
	if err := m.Lock(ctx); err != nil {
		return 0, err
	}
	defer m.Unlock()
	x.complaints.Lock()
	x.mutexes[o.ID] = m
	x.complaints.Unlock()
	return x.list(ctx, o.Body, a, nil)
}

// plant closes a cycle.
func (x *run) plant(ctx context.Context, o *Op, _ *activity) (int, error) {
	x.Reached = true
	if o.Task == nil {
		c := x.contexts[o.On.ID]
		return asyncsync.ToThread(c.ctx, nil2)
	}
	if o.Task.Kind == opLocked {
		x.complaints.Lock()
		m := x.mutexes[o.Task.ID]
		x.complaints.Unlock()
		err := m.Lock(ctx)
		if err == nil {
			m.Unlock() // its holder was told, or cancelled
		}
		return 0, err
	}
	var t *task.Task[int]
	known := make(chan struct{})
	go func() {
		defer close(known)
		x.until(func() bool {
			x.complaints.Lock()
			defer x.complaints.Unlock()
			t = x.tasks[o.Task.ID]
			return t != nil
		})
	}()
	x.rest(ctx, known)
	return t.Wait(ctx)
}

// plantLimited closes a cycle of one.
func (x *run) plantLimited(ctx context.Context, _ *Op, _ *activity) (int, error) {
	x.Reached = true
	l := task.NewLimiter(1)
	return asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		err := l.Acquire(ctx)
		if err == nil {
			l.Release()
		}
		return 0, err
	}, asyncsync.Insensitive(), asyncsync.WithLimiter(l))
}
