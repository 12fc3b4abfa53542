package nesting

import (
	"context"
	"fmt"
	"sync"

	"asyncsync.dev/loop"
	"asyncsync.dev/portal"
	"asyncsync.dev/task"
)

// Thread loops. Tasks of a loop hold nothing while they wait, so a loop has no rank:
// a caller gets its turn, as long as no task blocks the loop. So what is below a
// task of a loop waits through the library alone.
//
// Async code below such a task is a task of the same loop, whatever lies between,
// until it goes to another: that is checked wherever a function begins.

// onLoop picks a loop for what s starts, 0 for none.
func (g *generator) onLoop(s *state) int {
	if g.cfg.Loops == 0 || s.loose && !g.cfg.Ends || !g.coin(3) {
		return 0
	}
	return 1 + g.IntN(g.cfg.Loops)
}

// call is a call of an async function on a loop.
func (g *generator) toLoop(s *state, inner state) *Op {
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

// tryOnLoop is try for what is below a task of a loop.
func (g *generator) tryOnLoop(s *state, inner state) *Op {
	switch g.IntN(24) {
	case 0:
		return g.variable()
	case 1:
		o := g.newOp(opUndo)
		o.Var, o.Val, o.N = g.IntN(vars), 1+g.IntN(1000), g.IntN(3)
		f := *s
		f.derived = f.derived || o.N > 0
		o.Body = g.body(f)
		return o
	case 2, 3, 4, 5, 6, 7:
		o := &Op{}
		if !g.target(s, o) {
			return nil
		}
		*o = *g.with(opCall, o)
		o.Wrapper = o.Target < throughDo && g.coin(2)
		o.Body = g.body(inner.on(o.On))
		return o
	case 8, 9, 10, 11:
		o := g.newOp(opFrom)
		o.Wrapper = g.coin(2)
		o.Body = g.body(inner.async())
		return o
	case 12, 13:
		return g.toLoop(s, inner)
	case 14, 15:
		return g.spawn(s)
	case 16, 17:
		return g.wait(s)
	case 18, 19:
		return g.joined(s)
	case 20:
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
	case 21:
		return g.scope(s)
	case 22:
		o := &Op{}
		if !g.target(s, o) {
			return nil
		}
		return g.with(opCancelBefore, o)
	default:
		return g.newOp(opLook)
	}
}

// startLoops runs the loops of the program, until stop is called.
func (x *run) startLoops() (stop func()) {
	if x.p.Config.Loops == 0 {
		return func() {}
	}
	quit := make(chan struct{})
	ended := make(chan error, x.p.Config.Loops)
	x.loops = make([]*loopState, x.p.Loops)
	x.portals = make([]*portalState, len(x.p.Portals))
	x.provider = &providerState{Provider: portal.NewProvider(x.providerOptions()...)}
	for i := range x.p.Config.Loops {
		b := loop.NewThread(loop.Named(fmt.Sprint("nesting-", i+1)))
		x.loops[i] = &loopState{Backend: b}
		started := make(chan struct{})
		go func() {
			_, err := loop.Run(context.Background(), b, func(ctx context.Context) (int, error) {
				x.loops[i].tid = osThread()
				var ours []*portalState
				for _, p := range x.p.Portals {
					if p.Kind != openedAtStart || p.Loop != i+1 {
						continue
					}
					it, err := portal.Open(ctx)
					if err != nil {
						x.complain("Open: %v", err)
					}
					x.portals[p.ID] = &portalState{Portal: p, it: it}
					ours = append(ours, x.portals[p.ID])
				}
				close(started)
				x.rest(ctx, quit)
				for _, p := range ours {
					if err := p.it.Close(nil); err != nil {
						x.complain("Close of %v: %v", p.Portal, err)
					}
				}
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

// A loopState is a loop. What its tasks touch is plain, for one of them runs at a
// time: a probe.
type loopState struct {
	loop.Backend
	side  bool // a loop of goroutines
	tid   int  // of a loop on a thread, when it is known
	steps int
}

// begins checks that the function of b, which begins with ctx, is a task of its
// loop.
func (x *run) begins(ctx context.Context, b *Body) {
	l := x.loops[b.Loop-1]
	got, ok := loop.Current(ctx)
	switch {
	case !ok:
		x.complain("b%d: is no task, should be one of loop %d", b.ID, b.Loop)
		return
	case got != l.Backend:
		x.complain("b%d: is a task of %v, should be one of loop %d", b.ID, got, b.Loop)
		return
	case l.side:
		return
	case l.tid == 0:
		l.tid = osThread()
	case osThread() != l.tid:
		x.complain("b%d: runs on OS thread %d, loop %d has %d", b.ID, osThread(), b.Loop, l.tid)
	}
	l.steps++
	if x.p.looseBodies[b.ID] {
		x.count(looseOnLoop)
	}
}

// rest waits for ch, and blocks no loop meanwhile.
func (x *run) rest(ctx context.Context, ch <-chan struct{}) {
	if _, ok := loop.Current(ctx); !ok {
		<-ch
		return
	}
	if _, _, err := task.Recv(context.WithoutCancel(ctx), ch); err != nil {
		x.complain("a wait that nobody cancels: %v", err)
		<-ch
	}
}

// restFor is rest until all are done.
func (x *run) restFor(ctx context.Context, all *sync.WaitGroup) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		all.Wait()
	}()
	x.rest(ctx, done)
}

// start is task.Go as o says.
func (x *run) start(ctx context.Context, o *Op, f function) *task.Task[int] {
	if o.Portal != nil {
		return x.soon(o, f)
	}
	if o.Loop > 0 {
		return task.Go(ctx, f, task.On(x.loops[o.Loop-1].Backend))
	}
	return task.Go(ctx, f)
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
