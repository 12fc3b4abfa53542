package nesting

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// Calls and tasks that are cancelled or abandoned at some stage.

const (
	opCancelBefore  kind = "cancel-before"  // a call with an ended ctx
	opCancelQueued  kind = "cancel-queued"  // a call that is cancelled behind a busy function
	opCancelRunning kind = "cancel-running" // a ToThread call cancelled at the end of Body
	opCancelFrom    kind = "cancel-from"    // a FromThread call cancelled at the end of Body
	opCancelRace    kind = "cancel-race"    // a call that is cancelled at any time
	opAbandon       kind = "abandon"        // a ToThread call that is abandoned while it runs
	opAbandonFrom   kind = "abandon-from"   // a FromThread call that is
	opTaskCancel    kind = "task-cancel"    // a task that is cancelled while it runs
)

var cancelOps = []operation{
	{kind: opCancelBefore, run: (*run).cancelBefore, expect: (*model).cancelled, print: printTarget, cancels: true},
	{kind: opCancelQueued, run: (*run).cancelQueued, expect: (*model).cancelled, print: printTarget, cancels: true},
	{kind: opCancelRunning, run: (*run).cancelRunning, expect: (*model).inline, print: printTarget, cancels: true},
	{kind: opCancelFrom, run: (*run).cancelRunning, expect: (*model).inline, cancels: true},
	{kind: opCancelRace, run: (*run).cancelRace, print: printTarget, cancels: true},
	{kind: opAbandon, run: (*run).abandon, expect: (*model).abandon, print: printTarget, cancels: true},
	{kind: opAbandonFrom, run: (*run).abandon, expect: (*model).abandon, cancels: true},
	{kind: opTaskCancel, run: (*run).taskCancel, expect: (*model).cancelled, print: printQueued, cancels: true},
}

// cancellations are calls that are cancelled or abandoned while they are under way.
var cancellations = menu{
	{1, (*generator).cancelQueued},
	{1, (*generator).cancelRunning},
	{1, (*generator).cancelFrom},
	{1, (*generator).cancelRace},
	{1, (*generator).abandon},
	{1, (*generator).abandonFrom},
}

func (g *generator) cancelBefore(s *state) *Op {
	o := &Op{}
	if !g.target(s, o) {
		return nil
	}
	return g.with(opCancelBefore, o)
}

func (g *generator) cancelQueued(s *state) *Op {
	o := &Op{}
	if s.sync != nil || s.cb >= 0 || !g.target(s, o) {
		return nil
	}
	s.on(o.On) // for the touch
	o = g.with(opCancelQueued, o)
	o.N = g.IntN(50)
	return o
}

// cancellable is the state of a function whose call is cancelled or abandoned.
func (s state) cancellable() state {
	s = s.sequential()
	s.goexit = false
	return s
}

func (g *generator) cancelRunning(s *state) *Op {
	o := &Op{}
	if !g.target(s, o) {
		return nil
	}
	o = g.with(opCancelRunning, o)
	g.options(o)
	o.Body = g.body(s.cancellable().on(o.On))
	return o
}

func (g *generator) cancelFrom(s *state) *Op {
	if s.bare {
		return nil // that would be an adoption; there are enough
	}
	o := g.newOp(opCancelFrom)
	g.options(o)
	inner := s.cancellable().async()
	if g.coin(3) {
		o.Place = placeLoop
		inner.loop = 0
	}
	o.Body = g.body(inner)
	return o
}

func (g *generator) cancelRace(s *state) *Op {
	o := &Op{}
	if !g.target(s, o) {
		return nil
	}
	s.on(o.On) // for the touch
	o = g.with(opCancelRace, o)
	o.N = g.IntN(200)
	return o
}

func (g *generator) abandon(s *state) *Op {
	o := &Op{}
	if s.sync != nil || !g.target(s, o) {
		return nil
	}
	o = g.with(opAbandon, o)
	o.Body = g.leaf(s.cancellable().on(o.On))
	return o
}

func (g *generator) abandonFrom(s *state) *Op {
	if s.bare {
		return nil
	}
	o := g.newOp(opAbandonFrom)
	inner := s.cancellable().async()
	if g.coin(3) {
		o.Place = placeLoop
		inner.loop = 0
	} else {
		inner.off = s.onLoop() // a goroutine of its own
	}
	o.Body = g.leaf(inner)
	return o
}

func (g *generator) taskCancel(s *state) *Op {
	to := &Op{}
	if s.sync == nil && s.cb < 0 && g.coin(2) {
		f := s.fork()
		if to = g.queue(&f); to == nil {
			return nil
		}
		f.on(to.On) // for the touch
	}
	o := g.with(opTaskCancel, to)
	o.N = g.IntN(2)
	return o
}

func (x *run) cancelBefore(ctx context.Context, o *Op, a *activity) (v int, err error) {
	ctx = cancelled(ctx, x.ids.causes[o.ID])
	f, c := x.probe(o, a, func(context.Context) (int, error) {
		x.complain("#%d: runs with an ended ctx", o.ID)
		return 0, nil
	})
	x.during(a, c, func() { v, err = x.call(ctx, o, f) })
	return v, err
}

func (x *run) cancelQueued(ctx context.Context, o *Op, a *activity) (int, error) {
	release := make(chan struct{})
	ended := x.busy(ctx, o, a, release, nil)
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		for range o.N {
			runtime.Gosched()
		}
		cancel(x.ids.causes[o.ID])
	}()
	f, _ := x.probe(o, a, func(context.Context) (int, error) {
		x.complain("#%d: runs after it was cancelled in the queue", o.ID)
		return 0, nil
	})
	var opts []asyncsync.Option
	if o.N%2 == 0 {
		opts = append(opts, asyncsync.Abandon())
	}
	_, err := x.call(ctx, o, f, opts...)
	close(release)
	x.restFor(ctx, ended)
	return 0, err
}

// cancelRunning cancels a function that has done all it has to.
func (x *run) cancelRunning(ctx context.Context, o *Op, a *activity) (v int, err error) {
	cause := x.ids.causes[o.ID]
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c := x.child(a, o.Body)
	var opts []asyncsync.Option
	var i *interruption
	if o.Options&optInterrupt != 0 {
		var opt asyncsync.Option
		i, opt = x.interruption(o)
		opts = append(opts, opt)
		defer i.over()
	}
	f := x.function(o.Body, c, nil, func(ctx context.Context) {
		if i != nil {
			i.began.Store(true)
		}
		go cancel(cause)
		if _, ok := loop.Current(ctx); ok {
			if err := x.parked(ctx, o); err != error(cause) {
				x.complain("#%d: a wait of a task that is cancelled: %v, should be %v", o.ID, err, cause)
			}
		}
		<-ctx.Done()
		if i != nil {
			<-i.fired
		}
		if got := context.Cause(ctx); got != error(cause) {
			x.complain("#%d: the function's ctx has cause %v, should be %v", o.ID, got, cause)
		}
		_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) {
			x.complain("#%d: a call below runs with an ended ctx", o.ID)
			return 0, nil
		})
		if err != error(cause) {
			x.complain("#%d: a call with an ended ctx: %v, should be %v", o.ID, err, cause)
		}
	})
	x.during(a, c, func() {
		if o.Kind == opCancelFrom {
			v, err = x.from(ctx, o, a, f, opts...)
		} else {
			v, err = x.call(ctx, o, f, opts...)
		}
	})
	return v, err
}

func (x *run) cancelRace(ctx context.Context, o *Op, a *activity) (int, error) {
	cause := x.ids.causes[o.ID]
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range o.N {
			runtime.Gosched()
		}
		cancel(cause)
	}()
	var ran atomic.Int32
	f, c := x.probe(o, a, func(context.Context) (int, error) {
		ran.Add(1)
		return -1, nil
	})
	x.during(a, c, func() {
		v, err := x.call(ctx, o, f)
		switch {
		case err == nil && v == -1 && ran.Load() == 1:
		case err == error(cause) && ran.Load() == 0:
		default:
			x.complain("#%d: returns %d, %v and ran %d times", o.ID, v, err, ran.Load())
		}
	})
	<-done
	return 0, nil
}

func (x *run) abandon(ctx context.Context, o *Op, a *activity) (v int, err error) {
	cause := x.ids.causes[o.ID]
	ctx, cancel := context.WithCancelCause(ctx)
	release := make(chan struct{})
	c := x.child(a, o.Body)
	x.strays.Add(1)
	f := x.function(o.Body, c, func(ctx context.Context) {
		go cancel(cause)
		x.rest(ctx, release)
	}, nil)
	g := func(ctx context.Context) (int, error) {
		defer x.strays.Done()
		return f(ctx)
	}
	x.during(a, c, func() {
		if o.Kind == opAbandonFrom {
			opts := []asyncsync.Option{asyncsync.Abandon()}
			if o.Place == placeLoop {
				opts = append(opts, asyncsync.WithLoop(x.loop))
			}
			v, err = asyncsync.FromThread(ctx, g, opts...)
		} else {
			v, err = x.call(ctx, o, g, asyncsync.Abandon())
		}
	})
	if errors.Is(err, asyncsync.ErrAbandoned) {
		x.Abandoned.Add(1)
	}
	if !errors.Is(err, cause) {
		x.complain("#%d: %v does not wrap %v", o.ID, err, cause)
	}
	if x.p.Planted != nil && !errors.Is(err, asyncsync.ErrAbandoned) {
		x.strays.Done() // refused, or its ctx has ended with a group: it has not run
	}
	close(release)
	return v, err
}

func (m *model) abandon(o *Op, v *Values) Outcome {
	m.apart(o, v)
	return Outcome{Kind: endError, Err: asyncsync.ErrAbandoned}
}

func (x *run) taskCancel(ctx context.Context, o *Op, a *activity) (v int, err error) {
	cause := x.ids.causes[o.ID]
	started := make(chan struct{})
	var i *interruption
	f := func(ctx context.Context) (int, error) {
		if i != nil {
			i.began.Store(true)
		}
		close(started)
		if _, ok := loop.Current(ctx); ok {
			if err := x.parked(ctx, o); err != error(cause) {
				x.complain("#%d: a wait of a task that is cancelled: %v, should be %v", o.ID, err, cause)
			}
		}
		<-ctx.Done()
		if i != nil {
			<-i.fired
		}
		return 0, context.Cause(ctx)
	}
	var t *task.Task[int]
	c := x.child(a, nil)
	if o.Queued {
		var opts []asyncsync.Option
		if o.Options&optInterrupt != 0 {
			var opt asyncsync.Option
			i, opt = x.interruption(o)
			opts = append(opts, opt)
			defer i.over()
		}
		f, c = x.probe(o, a, f)
		c.queued = true
		t = x.queue(ctx, o, f, opts...)
	} else {
		t = task.Go(ctx, f)
	}
	x.rest(ctx, started)
	x.during(a, c, func() {
		if o.N == 0 {
			if !t.Cancel(cause) {
				x.complain("#%d: Cancel says no", o.ID)
			}
			v, err = t.Wait(ctx)
		} else {
			v, err = t.WaitOrCancel(cancelled(ctx, cause))
		}
	})
	if !t.Cancelled() {
		x.complain("#%d: Cancelled says no", o.ID)
	}
	return v, err
}
