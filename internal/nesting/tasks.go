package nesting

import (
	"context"
	"math"
	"runtime"
	"slices"
	"sync/atomic"

	"asyncsync.dev/task"
)

// Tasks: on goroutines of their own, queued on threads, on loops and in portals.

const (
	opSpawn        kind = "spawn"         // task.Go, or asyncsync.Go if Queued
	opWait         kind = "wait"          // Task.Wait for Task
	opJoined       kind = "joined"        // opSpawn of Body, then Between, then Wait whatever happens
	opCancelTask   kind = "cancel-task"   // Task.Cancel of Task
	opQueuedCancel kind = "queued-cancel" // a task queued on a thread that is cancelled at any time
	opAfter        kind = "after"         // calls with the ctx of a task that has ended
)

var taskOps = []operation{
	{kind: opSpawn, run: (*run).spawn, expect: (*model).spawn, print: printQueued, goexits: func(*Op) bool { return false }},
	{kind: opWait, run: (*run).await, expect: (*model).await, print: printTask, goexits: func(o *Op) bool { return o.Task.Body.goexits }},
	{kind: opJoined, run: (*run).joined, expect: (*model).joined, print: printQueued, calls: true},
	{kind: opCancelTask, run: (*run).cancelTask, print: printTask},
	{kind: opQueuedCancel, run: (*run).queuedCancel, print: printQueued, cancels: true},
	{kind: opAfter, run: (*run).after, print: printTarget},
}

// queue picks the thread that a task of asyncsync.Go is queued on. s is the
// state of the task before that.
func (g *generator) queue(s *state) *Op {
	o := &Op{}
	if !g.target(s, o) || o.Target >= throughDo {
		return nil
	}
	o.Queued = true
	g.options(o)
	return o
}

// onPortal picks a portal for what s starts, nil for none.
func (g *generator) onPortal(s *state) *Portal {
	if len(s.portals) == 0 || !g.coin(3) {
		return nil
	}
	return s.portals[g.IntN(len(s.portals))]
}

// onLoop picks a loop for what s starts, 0 for none.
func (g *generator) onLoop(s *state) int {
	if g.cfg.Loops == 0 || s.loose && !g.cfg.Ends || !g.coin(3) {
		return 0
	}
	return 1 + g.IntN(g.cfg.Loops)
}

// spawn is a task that any later code may wait for.
func (g *generator) spawn(s *state) *Op {
	if s.alone || s.mustJoin {
		return nil
	}
	f := s.fork()
	f.chain, f.sure, f.joins, f.locks, f.inPool, f.detached = nil, 0, nil, nil, 0, false
	f.floor = 0
	if !g.coin(3) {
		f.floor = s.top()
	}
	f.floor = max(f.floor, f.spawnFloor)
	f.goexit = true
	f.quiet = false
	f.min = new(float64)
	*f.min = math.Inf(1)
	to := &Op{}
	if g.coin(2) {
		if to = g.queue(&f); to == nil {
			return nil
		}
		to.Detached = g.coin(4) && !s.derived // else it may end with a task above
		if to.Detached && to.Target == nearest {
			to.On = g.p.Contexts[0]
			if !f.may(to.On) {
				return nil
			}
		}
		f = f.on(to.On)
	} else if to.Portal = g.onPortal(s); to.Portal != nil {
		f = f.soon(to.Portal)
	} else if to.Loop = g.onLoop(s); to.Loop > 0 {
		f.loop, f.bare = to.Loop, false
	}
	o := g.with(opSpawn, to)
	o.Body = g.body(f)
	o.rank = *f.min
	*s.tasks = append(*s.tasks, o)
	return o
}

// joined is a task that is waited for where it was made.
func (g *generator) joined(s *state) *Op {
	if s.cb >= 0 {
		return nil
	}
	f := s.fork()
	f.quiet = false
	f.mustJoin = f.mustJoin || s.alone // not to be left running below what is alone
	to := &Op{}
	if g.coin(2) {
		if to = g.queue(&f); to == nil {
			return nil
		}
		// Its Goexit may end what is blocked below it: the strand that made it,
		// which ends so anyway.
		f.root = s.root && s.goexit
		f = f.on(to.On)
		f.root = false
	} else if to.Portal = g.onPortal(s); to.Portal != nil {
		f = f.soon(to.Portal)
	} else if to.Loop = g.onLoop(s); to.Loop > 0 {
		f.loop, f.bare = to.Loop, false
	}
	o := g.with(opJoined, to)
	if f.loop == 0 && g.coin(3) {
		if o.Limiter = g.limiter(&f); o.Limiter != nil {
			f = f.holding(o.Limiter)
		}
	}
	f.joins = append(slices.Clip(f.joins), f.holds(o))
	switch {
	case o.Portal != nil:
		f = f.lead("portal").lead("loop %d", f.loop)
	case f.loop > 0 && f.sync == nil:
		f = f.lead("loop %d", f.loop)
	}
	o.Body = g.body(f)
	b := *s
	b.fragile = b.fragile || o.Body.goexits
	o.Between = g.between(&b)
	return o
}

// wait is a wait for a task that was started before.
func (g *generator) wait(s *state) *Op {
	if s.cb >= 0 {
		return nil
	}
	var may []*Op
	for _, t := range *s.tasks {
		if t.rank >= s.top() && (s.goexit || !t.Body.goexits) {
			may = append(may, t)
		}
	}
	if len(may) == 0 {
		return nil
	}
	if t := may[g.IntN(len(may))]; t.Loose && g.coin(3) {
		o := g.newOp(opCancelTask)
		o.Task = t
		return o
	}
	o := g.newOp(opWait)
	o.Task = may[g.IntN(len(may))]
	s.touch(o.Task.rank)
	return o
}

// cancelledTask is a task on a thread that is cancelled at any time.
func (g *generator) cancelledTask(s *state) *Op {
	if s.cb >= 0 {
		return nil
	}
	f := s.fork()
	to := g.queue(&f)
	if to == nil {
		return nil
	}
	f.on(to.On) // for the touch
	o := g.with(opQueuedCancel, to)
	o.N = g.IntN(200)
	o.Cancel = g.IntN(int(cancelWays))
	return o
}

// after is calls with the ctx of a task that has ended.
func (g *generator) after(s *state) *Op {
	o := &Op{}
	if !g.target(s, o) {
		return nil
	}
	s.on(o.On) // for the touch
	o = g.with(opAfter, o)
	o.N = g.IntN(2)
	return o
}

// start starts the task of o.
func (x *run) start(ctx context.Context, o *Op, a *activity) {
	parent := a
	if o.Detached {
		parent = nil
	}
	if o.Portal != nil {
		parent = &x.portals[o.Portal.ID].region
	}
	c := x.child(parent, o.Body)
	x.acts[o.ID] = c
	f := x.function(o.Body, c, nil, nil)
	if o.Limiter != nil {
		f = x.limited(o, c)
	}
	var t *task.Task[int]
	if o.Queued {
		c.queued = true
		t = x.queue(ctx, o, f)
	} else {
		t = x.goTask(ctx, o, f)
	}
	x.complaints.Lock()
	x.tasks[o.ID] = t
	x.spawned = append(x.spawned, o.ID)
	x.complaints.Unlock()
}

func (x *run) spawn(ctx context.Context, o *Op, a *activity) (int, error) {
	x.start(ctx, o, a)
	return 0, nil
}

func (m *model) spawn(o *Op, v *Values) Outcome {
	m.Tasks[o.ID] = m.apart(o, v)
	return Outcome{}
}

// wait waits for the task of o, and may cancel it when ctx ends.
func (x *run) wait(ctx context.Context, o *Op, a *activity, or bool) (v int, err error) {
	x.during(a, x.acts[o.ID], func() {
		if t := x.tasks[o.ID]; or {
			v, err = t.WaitOrCancel(ctx)
		} else {
			v, err = t.Wait(ctx)
		}
	})
	return v, err
}

func (x *run) await(ctx context.Context, o *Op, a *activity) (int, error) {
	if x.tasks[o.Task.ID] == nil {
		return 0, nil
	}
	return x.wait(ctx, o.Task, a, false)
}

// await is the zero outcome if the task was not started.
func (m *model) await(o *Op, _ *Values) Outcome { return m.Tasks[o.Task.ID] }

func (x *run) joined(ctx context.Context, o *Op, a *activity) (int, error) {
	x.start(ctx, o, a)
	x.list(ctx, o.Between, a, nil)
	return x.wait(ctx, o, a, o.Loose)
}

func (m *model) joined(o *Op, v *Values) Outcome {
	m.spawn(o, v)
	m.body(o.Between, v)
	return m.Tasks[o.ID]
}

func (x *run) cancelTask(_ context.Context, o *Op, _ *activity) (int, error) {
	if t := x.tasks[o.Task.ID]; t != nil {
		t.Cancel(x.ids.causes[o.ID])
	}
	return 0, nil
}

// How a queued task is cancelled.
const (
	cancelAtOnce  = iota // by Task.Cancel, before anybody waits
	cancelCtx            // by its ctx
	cancelWaiting        // by WaitOrCancel
	cancelTask           // by Task.Cancel, from elsewhere
	cancelWays
)

// queuedCancel cancels a queued task at any time: it has run to its end, or has
// not begun and says why.
func (x *run) queuedCancel(ctx context.Context, o *Op, a *activity) (int, error) {
	cause := x.ids.causes[o.ID]
	var ran atomic.Int32
	f, c := x.probe(o, a, func(context.Context) (int, error) {
		ran.Add(1)
		return -1, nil
	})
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	of, waiting := ctx, ctx
	switch o.Cancel {
	case cancelCtx:
		of = inner
	case cancelWaiting:
		waiting = inner
	}
	t := x.queue(of, o, f)
	done := make(chan struct{})
	late := func(f func()) {
		go func() {
			defer close(done)
			for range o.N {
				runtime.Gosched()
			}
			f()
		}()
	}
	switch o.Cancel {
	case cancelAtOnce:
		told := t.Cancel(cause)
		if a.on != nil && a.on.Context == o.On.Root && (!told && !o.Loose || ran.Load() != 0) {
			x.complain("#%d: a task on its starter's thread begins before that waits", o.ID)
		}
		close(done)
	case cancelTask:
		late(func() { t.Cancel(cause) })
	default:
		late(func() { cancel(cause) })
	}
	x.during(a, c, func() {
		var v int
		var err error
		if o.Cancel == cancelWaiting || o.Loose {
			v, err = t.WaitOrCancel(waiting)
		} else {
			v, err = t.Wait(waiting)
		}
		switch {
		case err == nil && v == -1 && ran.Load() == 1:
		case x.excused(o, err, cause) && ran.Load() == 0:
		default:
			x.complain("#%d: the task returns %d, %v and ran %d times", o.ID, v, err, ran.Load())
		}
	})
	<-done
	return 0, nil
}

// after makes the calls: the end of the task is no cancellation.
func (x *run) after(ctx context.Context, o *Op, a *activity) (int, error) {
	var its context.Context
	t := task.Go(ctx, func(ctx context.Context) (int, error) {
		its = ctx
		return 0, nil
	})
	if o.N == 0 {
		x.rest(ctx, t.Done())
	} else {
		c := x.child(a, nil)
		x.during(a, c, func() { t.WaitOrCancel(ctx) })
	}
	for range 3 {
		f, c := x.probe(o, a, func(context.Context) (int, error) { return -1, nil })
		x.during(a, c, func() {
			if v, err := x.call(its, o, f); (v != -1 || err != nil) && !x.excused(o, err, nil) {
				x.complain("#%d: a call with the ctx of a task that has ended: %d, %v", o.ID, v, err)
			}
		})
	}
	return 0, nil
}
