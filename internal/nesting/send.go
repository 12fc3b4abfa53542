package nesting

import (
	"context"
	"sync"
	"sync/atomic"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/loop"
	"asyncsync.dev/portal"
	"asyncsync.dev/task"
)

// The ways in which a function gets to where it is to run.

func apply(ctx context.Context, f function) (int, error) { return f(ctx) }

// Wrappers made once, for everybody.
var (
	send        = asyncsync.SyncToAsync(apply)
	sendAway    = asyncsync.SyncToAsync(apply, asyncsync.Insensitive())
	fetch       = asyncsync.AsyncToSync(apply)
	sendOptions = []asyncsync.Option{asyncsync.Named("program")}
)

// call sends f where o says.
func (x *run) call(ctx context.Context, o *Op, f function, opts ...asyncsync.Option) (int, error) {
	opts = append(opts, x.callOptions(o)...)
	switch o.Target {
	case insensitive:
		if o.Wrapper {
			return sendAway(ctx, f)
		}
		if o.Place == placeLoop {
			opts = append(opts, asyncsync.WithExecutor(x.loop))
		}
		return asyncsync.ToThread(ctx, f, append(opts, asyncsync.Insensitive())...)
	case throughDo:
		c := x.contexts[o.On.ID]
		v := 0
		err := c.handle.Do(ctx, func(ctx context.Context, got *contextState) (err error) {
			if got != c {
				x.complain("#%d: Do has %v, should be %v", o.ID, got.Context, c.Context)
			}
			v, err = f(ctx)
			return err
		}, opts...)
		return v, err
	case throughGet:
		return asyncsync.Get(ctx, x.contexts[o.On.ID].handle, func(ctx context.Context, _ *contextState) (int, error) {
			return f(ctx)
		}, opts...)
	case named:
		opts = append(opts, asyncsync.On(x.contexts[o.On.ID].tsc))
		if o.Wrapper {
			return asyncsync.SyncToAsync(apply, opts...)(ctx, f)
		}
	case nearest:
		if o.Wrapper && len(opts) == 0 {
			return send(ctx, f)
		}
	}
	return asyncsync.ToThread(ctx, f, append(opts, sendOptions...)...)
}

// from is FromThread in either form.
func (x *run) from(ctx context.Context, o *Op, a *activity, f function, opts ...asyncsync.Option) (int, error) {
	if o.Wrapper {
		return fetch(ctx, f)
	}
	opts = append(opts, x.callOptions(o)...)
	switch o.Place {
	case placeLoop:
		opts = append(opts, asyncsync.WithLoop(x.loop))
	case placeSame:
		opts = append(opts, asyncsync.SameThread())
	case placeBackend:
		opts = append(opts, asyncsync.WithLoop(x.loops[o.Loop-1].Backend))
	case placeCall:
		return loop.Call(ctx, x.loops[o.Loop-1].Backend, f)
	case placePortal:
		return x.portalCall(ctx, o, a, f)
	}
	return asyncsync.FromThread(ctx, f, opts...)
}

// portalCall is portal.Call as o says, by a.
func (x *run) portalCall(ctx context.Context, o *Op, a *activity, f function) (int, error) {
	switch {
	case a.on != nil:
		x.count(portalFromThread)
	case a.body == nil || a.body.Loop == 0:
		x.count(portalFromGoroutine)
	case a.body.Loop == o.Portal.Loop:
		x.count(portalFromOwnLoop)
	default:
		x.count(portalFromOtherLoop)
	}
	defer func(outer counter) { a.onTop = outer }(a.onTop)
	a.onTop = portalServed
	return portal.Call(ctx, x.portals[o.Portal.ID].it, f)
}

// goTask is task.Go as o says.
func (x *run) goTask(ctx context.Context, o *Op, f function) *task.Task[int] {
	if o.Portal != nil {
		return x.soon(o, f)
	}
	if o.Loop > 0 {
		return task.Go(ctx, f, task.On(x.loops[o.Loop-1].Backend))
	}
	return task.Go(ctx, f)
}

// soon is portal.StartSoon as o says.
func (x *run) soon(o *Op, f function) *task.Task[int] {
	x.count(portalSoon)
	t, err := portal.StartSoon(x.portals[o.Portal.ID].it, f)
	if err != nil {
		if !x.excused(o, err, nil) {
			x.complain("#%d: StartSoon: %v", o.ID, err)
		}
		return task.Go(context.Background(), func(context.Context) (int, error) { return 0, err })
	}
	return t
}

// queue is asyncsync.Go for f, as o says.
func (x *run) queue(ctx context.Context, o *Op, f function, opts ...asyncsync.Option) *task.Task[int] {
	if o.Detached {
		ctx = asyncsync.Detach(ctx)
	}
	opts = append(opts, x.callOptions(o)...)
	if o.Target == named {
		opts = append(opts, asyncsync.On(x.contexts[o.On.ID].tsc))
	}
	return asyncsync.Go(ctx, f, opts...)
}

// busy has a function occupy the thread of o.On until release is closed, and
// then run f. It returns when the function runs.
func (x *run) busy(ctx context.Context, o *Op, a *activity, release <-chan struct{}, f func(context.Context, *activity)) (ended *sync.WaitGroup) {
	started := make(chan struct{})
	ended = new(sync.WaitGroup)
	ended.Add(1)
	var self *activity
	g, self := x.probe(o, a, func(ctx context.Context) (int, error) {
		close(started)
		<-release
		if f != nil {
			f(ctx, self)
		}
		return 0, nil
	})
	go func() {
		defer ended.Done()
		if _, err := x.call(ctx, o, g); err != nil {
			x.complain("#%d: the busy function: %v", o.ID, err)
			close(started)
		}
	}()
	x.rest(ctx, started)
	return ended
}

// callOptions returns those that o has. The functions of calls that nobody
// cancels are not to be interrupted.
func (x *run) callOptions(o *Op) (opts []asyncsync.Option) {
	if o.Options&optNamed != 0 {
		opts = append(opts, asyncsync.Named("call"))
	}
	if o.Options&optLong != 0 {
		opts = append(opts, asyncsync.LongRunning())
	}
	if o.Options&optInterrupt != 0 && !o.cancels() {
		opts = append(opts, asyncsync.Interrupt(func() {
			x.complain("#%d: interrupted, but its ctx has not ended", o.ID)
		}))
	}
	return opts
}

// An interruption checks when the function of asyncsync.Interrupt is called.
type interruption struct {
	x            *run
	o            *Op
	began, ended atomic.Bool
	once         sync.Once
	fired        chan struct{}
}

// interruption returns the check, and the option, for a call that is cancelled
// while its function runs.
func (x *run) interruption(o *Op) (*interruption, asyncsync.Option) {
	i := &interruption{x: x, o: o, fired: make(chan struct{})}
	return i, asyncsync.Interrupt(func() {
		if !i.began.Load() {
			x.complain("#%d: interrupted before its function has begun", o.ID)
		}
		if i.ended.Load() {
			x.complain("#%d: interrupted after the call has ended", o.ID)
		}
		i.once.Do(func() { close(i.fired) })
	})
}

// over is called when the call has returned, or the task's outcome is known.
func (i *interruption) over() { i.ended.Store(true) }
