package nesting

import (
	"context"
	"fmt"

	"asyncsync.dev/loop"
)

// Thread loops. Tasks of a loop hold nothing while they wait, so a loop has no rank:
// a caller gets its turn, as long as no task blocks the loop. So what is below a
// task of a loop waits through the library alone.
//
// Async code below such a task is a task of the same loop, whatever lies between,
// until it goes to another: that is checked wherever a function begins.

// toLoop is a call of an async function on a loop.
func (g *generator) toLoop(s *state) *Op {
	inner := s.inner()
	o := g.newOp(opFrom)
	o.Loop = 1 + g.IntN(g.cfg.Loops)
	o.Place = placeBackend
	switch {
	case s.bare:
		o.On = g.context(adopted, s.top()+epsilon, nil)
		inner = inner.on(o.On)
		inner.syncScope, inner.sync = nil, nil
		inner.mustJoin = true
	case g.coin(2):
		o.Place = placeCall
		fallthrough
	default:
		inner = inner.async()
	}
	inner.loop, inner.known = o.Loop, true
	inner = inner.lead("loop %d", o.Loop)
	o.Body = g.body(inner)
	return o
}

// callOnLoop is call for what is below a task of a loop.
func (g *generator) callOnLoop(s *state) *Op {
	inner := s.inner()
	o := &Op{}
	if !g.target(s, o) {
		return nil
	}
	o = g.with(opCall, o)
	o.Wrapper = o.Target < throughDo && g.coin(2)
	o.Body = g.body(inner.on(o.On))
	return o
}

// fromOnLoop is from for what is below a task of a loop.
func (g *generator) fromOnLoop(s *state) *Op {
	inner := s.inner()
	o := g.newOp(opFrom)
	o.Wrapper = g.coin(2)
	o.Body = g.body(inner.async())
	return o
}

// groupOnLoop is group for what is below a task of a loop.
func (g *generator) groupOnLoop(s *state) *Op {
	if s.cb >= 0 {
		return nil
	}
	o := g.newOp(opGroup)
	for range 1 + g.IntN(3) {
		f := s.fork()
		f.alone, f.quiet = true, false
		o.Bodies = append(o.Bodies, g.body(f.silent()))
	}
	o.Between = g.between(s)
	return o
}

// startLoops runs the loops of the program until end is called.
func (x *run) startLoops() (end func()) {
	if x.p.Config.Loops == 0 {
		return func() {}
	}
	quit := make(chan struct{})
	ended := make(chan error, x.p.Config.Loops)
	x.loops = make([]*loopState, x.p.Loops)
	for i := range x.p.Config.Loops {
		b := loop.NewThread(loop.Named(fmt.Sprint("nesting-", i+1)))
		x.loops[i] = &loopState{Backend: b}
		started := make(chan struct{})
		go func() {
			_, err := loop.Run(context.Background(), b, func(ctx context.Context) (int, error) {
				x.loops[i].tid = osThread()
				defer x.portalsOn(ctx, i+1)()
				close(started)
				x.rest(ctx, quit)
				return 0, nil
			})
			ended <- err
		}()
		<-started
	}
	return func() {
		close(quit)
		for range x.p.Config.Loops {
			if err := <-ended; err != nil {
				x.complain("Run: %v", err)
			}
		}
	}
}

// tasksOnLoops returns how many functions of the program are tasks of loops.
func (p *Program) tasksOnLoops() (n int) {
	var count func(b *Body)
	count = func(b *Body) {
		if b == nil {
			return
		}
		if b.Loop > 0 {
			n++
		}
		for _, o := range b.Ops {
			count(o.Body)
			count(o.Between)
			for _, b := range o.Bodies {
				count(b)
			}
		}
	}
	for _, r := range p.Roots {
		count(r.Body)
	}
	return n
}
