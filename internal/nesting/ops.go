package nesting

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/internal/core"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

type function = func(context.Context) (int, error)

func apply(ctx context.Context, f function) (int, error) { return f(ctx) }

// Wrappers made once, for everybody.
var (
	send        = asyncsync.SyncToAsync(apply)
	sendAway    = asyncsync.SyncToAsync(apply, asyncsync.Insensitive())
	fetch       = asyncsync.AsyncToSync(apply)
	sendOptions = []asyncsync.Option{asyncsync.Named("program")}
)

// open makes the context c in ctx.
func (x *run) open(ctx context.Context, c *Context) *contextState {
	s := &contextState{Context: c}
	if c.Owned {
		x.owner(s)
	}
	s.ctx, s.tsc = asyncsync.NewThreadSensitiveContext(ctx, x.options(s)...)
	return s
}

// owner starts the goroutine that is the thread of s, until s.left is closed.
func (x *run) owner(s *contextState) {
	made := make(chan struct{})
	s.left, s.gone = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(s.gone)
		s.exec = asyncsync.NewCurrentThreadExecutor()
		close(made)
		if err := s.exec.RunUntil(s.left); err != nil {
			x.complain("RunUntil of %v: %v", s.Context, err)
		}
		if err := s.exec.Close(); err != nil {
			x.complain("Close of the executor of %v: %v", s.Context, err)
		}
	}()
	<-made
}

func (x *run) options(c *contextState) []asyncsync.ContextOption {
	opts := append([]asyncsync.ContextOption{asyncsync.WithName(c.String())}, x.ends(c)...)
	if c.Queue > 0 {
		opts = append(opts, asyncsync.QueueLimit(c.Queue))
	}
	if c.Owned {
		return append(opts, asyncsync.WithThread(c.exec))
	}
	opts = append(opts, asyncsync.Serve(c.Policy))
	if c.Spin > 0 {
		opts = append(opts, asyncsync.Spin([]time.Duration{0, 100 * time.Microsecond}[c.Spin-1]))
	}
	switch {
	case c.Unpinned:
		opts = append(opts, asyncsync.Unpinned())
	case c.Pool >= 0:
		opts = append(opts, asyncsync.WithPool(x.pools[c.Pool]))
	default:
		opts = append(opts, asyncsync.WithPool(x.pool))
	}
	return opts
}

// later has c closed at the end.
func (x *run) later(c *contextState) {
	x.complaints.Lock()
	x.atEnd = append(x.atEnd, c)
	x.complaints.Unlock()
}

// function is b as a function for the library to call, as a. head runs before
// the operations, tail after them unless one has ended the body.
func (x *run) function(b *Body, a *activity, head, tail func(context.Context)) function {
	return x.at(b, a, func(ctx context.Context) (int, error) {
		if head != nil {
			head(ctx)
		}
		return x.list(ctx, b, a, tail)
	})
}

// at is f with the checks of a function that runs, as a, where b does.
func (x *run) at(b *Body, a *activity, f function) function {
	return func(ctx context.Context) (int, error) {
		defer x.goesOn()()
		if b.On != nil {
			a.on = x.contexts[b.On.Root.ID]
			a.tid = osThread()
			x.enter(a)
			defer x.leave(a)
		}
		if b.Loop > 0 {
			x.begins(ctx, b)
		}
		return f(ctx)
	}
}

// list runs the operations of b as a part of a.
func (x *run) list(ctx context.Context, b *Body, a *activity, tail func(context.Context)) (int, error) {
	x.runs[b.ID].Add(1)
	x.outs[b.ID] = Outcome{Kind: endGoexit} // unless told otherwise
	x.Bodies[b.ID].Start = values()
	for _, o := range b.Ops {
		x.step(a)
		out := x.one(ctx, o, a)
		if out.Kind == endReturn || o.Catch {
			continue
		}
		x.outs[b.ID] = out
		if out.Kind == endError {
			return 0, out.Err
		}
		panic(out.Panic)
	}
	x.step(a)
	if tail != nil {
		tail(ctx)
	}
	if b.Loop > 0 {
		switch b.End {
		case endPanic:
			x.count(panicOnLoop)
		case endGoexit:
			x.count(goexitOnLoop)
		}
	}
	x.outs[b.ID] = Outcome{Kind: b.End, Val: b.ID, Err: x.ids.errs[b.ID], Panic: x.ids.panics[b.ID]}
	switch b.End {
	case endError:
		return 0, x.ids.errs[b.ID]
	case endPanic:
		panic(x.ids.panics[b.ID])
	case endGoexit:
		runtime.Goexit()
	}
	return b.ID, nil
}

// one runs o and notes what came of it.
func (x *run) one(ctx context.Context, o *Op, a *activity) (out Outcome) {
	defer func() { x.Ops[o.ID] = OpResult{true, out, values()} }()
	a.op = o.ID
	capture(&out, func() (int, error) { return x.op(ctx, o, a) })
	x.same(o, out)
	if errors.Is(out.Err, core.ErrDeadlock) {
		x.told.Add(1)
	}
	return out
}

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

// probe is a function that calls nothing, on the thread that o names.
func (x *run) probe(o *Op, by *activity, f func(context.Context) (int, error)) (function, *activity) {
	a := x.child(by, &Body{ID: -o.ID, On: o.On})
	return x.at(a.body, a, f), a
}

type ctxKey struct{}

// A foreignCtx is a ctx of somebody else's type.
type foreignCtx struct{ context.Context }

func (x *run) op(ctx context.Context, o *Op, a *activity) (v int, err error) {
	cause := x.ids.causes[o.ID]
	switch o.Kind {
	case opSet:
		variables[o.Var].Set(o.Val)
	case opDelete:
		variables[o.Var].Delete()
	case opUndo:
		defer variables[o.Var].Set(o.Val)()
		switch o.N {
		case 1:
			ctx = context.WithValue(ctx, ctxKey{}, o)
		case 2:
			ctx = foreignCtx{ctx}
		}
		return x.list(ctx, o.Body, a, nil)
	case opCall:
		c := x.child(a, o.Body)
		x.during(a, c, func() {
			if o.Again {
				v, err = x.underAgain(ctx, o, c)
			} else if o.Limiter != nil {
				v, err = x.underLimiter(ctx, o, c)
			} else {
				f := x.function(o.Body, c, nil, nil)
				if !o.Loose || o.Options&optInterrupt == 0 {
					v, err = x.call(ctx, o, f)
					return
				}
				i, opt := x.interruption(o)
				defer i.over()
				i.began.Store(true) // its first statement may come a moment later
				v, err = x.call(ctx, o, f, opt)
			}
		})
	case opFrom:
		return x.fromThread(ctx, o, a)
	case opDetach:
		c := x.child(nil, o.Body)
		x.during(a, c, func() {
			v, err = asyncsync.ToThread(asyncsync.Detach(ctx), x.function(o.Body, c, nil, nil))
		})
	case opSpawn:
		x.spawn(ctx, o, a)
	case opWait:
		if x.tasks[o.Task.ID] != nil {
			return x.wait(ctx, o.Task, a, false)
		}
	case opJoined:
		x.spawn(ctx, o, a)
		x.list(ctx, o.Between, a, nil)
		return x.wait(ctx, o, a, o.Loose)
	case opGroup:
		return 0, x.group(ctx, o, a)
	case opShared:
		var all sync.WaitGroup
		for _, b := range o.Bodies {
			c := x.child(a, b)
			c.borrows = true
			all.Add(1)
			ended := x.goesOn()
			go func() {
				defer ended()
				defer all.Done()
				defer forget()
				var out Outcome
				capture(&out, func() (int, error) { return x.list(ctx, b, c, nil) })
			}()
		}
		all.Wait()
	case opScope:
		return x.scope(ctx, o, a)
	case opHandle:
		return x.handle(ctx, o, a)
	case opCancelBefore:
		ctx = cancelled(ctx, cause)
		f, c := x.probe(o, a, func(context.Context) (int, error) {
			x.complain("#%d: runs with an ended ctx", o.ID)
			return 0, nil
		})
		x.during(a, c, func() { v, err = x.call(ctx, o, f) })
	case opCancelQueued:
		return x.cancelQueued(ctx, o, a)
	case opCancelRunning, opCancelFrom:
		return x.cancelRunning(ctx, o, a)
	case opCancelRace:
		return 0, x.cancelRace(ctx, o, a)
	case opAbandon, opAbandonFrom:
		return x.abandon(ctx, o, a)
	case opTaskCancel:
		return x.taskCancel(ctx, o, a)
	case opQueuedCancel:
		return 0, x.queuedCancel(ctx, o, a)
	case opExecutor:
		return x.executor(ctx, o, a)
	case opPosts:
		x.posts(o, a)
	case opOpen:
		return x.openFails(ctx, o, a)
	case opStopped:
		return 0, x.stopped(ctx, o, a)
	case opTokens:
		x.resize(o)
	case opTokensCancel:
		return 0, x.tokensCancel(ctx, o, a)
	case opLoose:
		x.cancelAll(ctx, o, a)
	case opCancelTask:
		if t := x.tasks[o.Task.ID]; t != nil {
			t.Cancel(cause)
		}
	case opLeave:
		return x.leaveCall(ctx, o, a)
	case opStartFails:
		x.startFails(ctx, o, a)
	case opCloseEarly:
		x.closeEarly(o, a)
	case opLook:
		x.look()
	case opCritical:
		x.setCritical(o, a)
	case opAfter:
		x.after(ctx, o, a)
	case opTaint:
		x.taint(ctx, o)
	case opValue:
		x.value(o, a)
	case opBurst:
		x.burst(ctx, o, a)
	case opPlant:
		return x.plant(ctx, o)
	case opPlantLimited:
		return x.plantLimited(ctx)
	case opLocked:
		return x.locked(ctx, o, a)
	case opPortal:
		return x.portal(ctx, o, a)
	case opProvider:
		return x.inProvided(ctx, o, a)
	case opStartTask, opWrap:
		return x.inTwoParts(ctx, o, a)
	case opPosted:
		x.onPosted(ctx, o, a)
	case opStopRace:
		x.stopRace(ctx, o, a)
	case opPortalCancel:
		x.portalCancel(ctx, o, a)
	case opTimeout:
		return x.timeout(ctx, o, a)
	}
	return v, err
}

// look asks everybody how they are.
func (x *run) look() {
	asyncsync.ReadStats()
	for _, c := range x.atTheStart {
		c.tsc.Stats()
	}
	for i, p := range x.pools {
		if st, n := p.Stats(), x.p.Pools[i]; !n.Wide && st.Threads > 2*n.Max || st.Threads < st.Idle {
			x.complain("pool%d: %+v, but MaxThreads and MaxOverflow are %d", i, st, n.Max)
		}
	}
	if r := deadlock.Take(); r.String() == "" {
		x.complain("an empty report")
	}
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

// adopt says that the calling goroutine, which runs a, is about to become the
// thread of o.On.
func (x *run) adopt(o *Op, a *activity) (release func()) {
	s := &contextState{Context: o.On, stack: []*activity{a}}
	x.contexts[o.On.ID] = s
	runtime.LockOSThread() // so that the id means something
	s.tid = osThread()
	a.tid = s.tid
	x.claim(s, s.tid)
	return func() {
		x.disclaim(s)
		runtime.UnlockOSThread()
	}
}

func (x *run) group(ctx context.Context, o *Op, a *activity) (err error) {
	all := x.child(a, nil)
	_, g := task.NewGroup(ctx)
	var others sync.WaitGroup
	others.Add(len(o.Bodies))
	if o.Fail >= 0 {
		others.Done()
	}
	// On a loop a task that is cancelled before it begins does not begin.
	var begins []func()
	over := false
	defer func() {
		end := func() {
			for _, ended := range begins {
				ended()
			}
		}
		if over || len(begins) == 0 {
			end()
			return
		}
		go func() { // a Goexit has ended the wait
			var out Outcome
			defer end()
			capture(&out, func() (int, error) { return 0, g.Wait(context.WithoutCancel(ctx)) })
		}()
	}()
	for i, b := range o.Bodies {
		c := x.child(all, b)
		f := x.function(b, c, nil, nil)
		if o.Loose {
			ended := sync.OnceFunc(x.goesOn())
			begins = append(begins, ended)
			g.Go(func(ctx context.Context) error {
				defer ended()
				_, err := f(ctx)
				return err
			})
			continue
		}
		if i == o.Fail {
			g.Go(func(ctx context.Context) error {
				defer func() { x.restFor(ctx, &others) }()
				_, err := f(ctx)
				return err
			})
			continue
		}
		g.Go(func(ctx context.Context) error {
			defer others.Done()
			_, err := f(ctx)
			return err
		})
	}
	x.list(ctx, o.Between, a, nil)
	x.during(a, all, func() { err = g.Wait(ctx) })
	over = true
	return err
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

// errNone matches nothing.
var errNone = errors.New("none")

// inside is what Shutdown may say where it would wait for its own caller.
func (x *run) inside(a *activity, c *contextState) error {
	if c.Kind == nested {
		return core.ErrDeadlock // c shares a thread, which may be the caller's
	}
	return errNone
}

func (x *run) closed(c *contextState) {
	if c.Kind != nested {
		x.disclaim(c)
	}
}

// refused checks that the context that o has made, and closed, takes no call.
func (x *run) refused(ctx context.Context, o *Op, a *activity) {
	c := x.contexts[o.On.ID]
	if o.Loose {
		return
	}
	if a.on != nil && a.on.Context == o.On.Root {
		return // there the call would run inline
	}
	for up := a; up != nil; up = up.parent {
		if up.on != nil && up.on.Context == o.On.Root {
			return // related to a function that still runs: it may be let in
		}
	}
	f := func(context.Context) (int, error) {
		x.complain("#%d: a call to %v runs after it was closed", o.ID, c.Context)
		return 0, nil
	}
	if _, err := asyncsync.Go(ctx, f, asyncsync.On(c.tsc)).Wait(context.Background()); !errors.Is(err, asyncsync.ErrClosed) {
		x.complain("#%d: a task on the closed %v: %v", o.ID, c.Context, err)
	}
	_, err := asyncsync.ToThread(ctx, f, asyncsync.On(c.tsc))
	if !errors.Is(err, asyncsync.ErrClosed) {
		x.complain("#%d: a call to the closed %v: %v", o.ID, c.Context, err)
	}
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

func nil2(context.Context) (int, error) { return 0, nil }

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

func (x *run) cancelRace(ctx context.Context, o *Op, a *activity) error {
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
	return nil
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

// until polls: for what has no signal to wait for.
func (x *run) until(f func() bool) {
	for !f() {
		select {
		case <-x.hung:
			runtime.Goexit()
		default:
		}
		runtime.Gosched()
		time.Sleep(time.Microsecond)
	}
}

// burst queues calls of one submitter one after the other, on a context of its
// own, behind a busy function, and checks in which order they run.
func (x *run) burst(ctx context.Context, o *Op, a *activity) {
	c := &contextState{Context: o.On}
	opts := x.options(c)
	if o.Burst == burstFull {
		opts = append(opts, asyncsync.QueueLimit(o.N))
	}
	c.ctx, c.tsc = asyncsync.NewThreadSensitiveContext(asyncsync.Detach(ctx), opts...)
	x.contexts[o.On.ID] = c
	o = &Op{ID: o.ID, Target: named, On: o.On, Bursting: o.Bursting}

	if o.Burst == burstLeft {
		x.burstLeft(ctx, o, a, c)
		return
	}

	var order []int // touched on the context's thread only
	var refused atomic.Int32
	release, submitted, served := make(chan struct{}), make(chan struct{}), make(chan struct{})

	submit := func(ctx context.Context, a *activity) {
		defer close(served)
		var all sync.WaitGroup
		cause := x.ids.causes[o.ID]
		toCancel, cancel := context.WithCancelCause(ctx)
		cancelledOne := make(chan struct{})
		for i := range o.N {
			ctx := ctx
			if i == o.Cancel {
				ctx = toCancel
			}
			f, _ := x.probe(o, a, func(context.Context) (int, error) {
				order = append(order, i)
				return 0, nil
			})
			all.Add(1)
			send := func() (int, error) { return x.call(ctx, o, f) }
			if o.Mask>>i&1 != 0 {
				t := x.queue(ctx, o, f)
				send = func() (int, error) { return t.Wait(context.Background()) }
			}
			go func() {
				defer all.Done()
				_, err := send()
				if i == o.Cancel {
					defer close(cancelledOne)
				}
				switch {
				case err == nil && i != o.Cancel:
				case i == o.Cancel && err == error(cause):
				case o.Burst == burstShutdown && errors.Is(err, asyncsync.ErrClosed):
					refused.Add(1)
				default:
					x.complain("#%d: call %d of the burst: %v", o.ID, i, err)
				}
			}()
			x.until(func() bool { return c.tsc.Stats().Queued == i+1 })
		}
		if o.Burst == burstFull {
			x.refusedFull(ctx, o, c)
		}
		cancel(cause)
		if o.Cancel >= 0 {
			<-cancelledOne
		}
		close(submitted)
		all.Wait()
	}

	var t *task.Task[int]
	var child *activity
	if o.Burst == burstJoined {
		child = x.child(a, nil)
		begin := make(chan struct{})
		t = task.Go(ctx, func(ctx context.Context) (int, error) {
			<-begin
			submit(ctx, child)
			return 0, nil
		})
		ended := x.busy(ctx, o, a, release, func(ctx context.Context, self *activity) {
			x.during(self, child, func() { t.Wait(ctx) })
		})
		close(begin)
		<-submitted
		close(release)
		ended.Wait()
	} else {
		ended := x.busy(ctx, o, a, release, func(ctx context.Context, self *activity) {
			if o.Burst == burstAll {
				x.during(self, x.child(self, nil), func() {
					asyncsync.FromThread(ctx, func(context.Context) (int, error) {
						<-served
						return 0, nil
					})
				})
			}
		})
		go submit(ctx, a)
		<-submitted
		x.closed(c)
		switch o.Burst {
		case burstShutdown:
			cause := errors.New("impatience")
			if err := c.tsc.Shutdown(cancelled(context.Background(), cause)); !errors.Is(err, cause) {
				x.complain("#%d: Shutdown gives up with %v", o.ID, err)
			}
			<-served
		case burstClose:
			done := make(chan struct{})
			go func() {
				defer close(done)
				if err := c.tsc.Close(); err != nil {
					x.complain("#%d: Close: %v", o.ID, err)
				}
			}()
			x.until(func() bool { return c.tsc.Stats().Closed })
			x.refused(ctx, o, a)
			defer func() { <-done }()
		}
		close(release)
		ended.Wait()
	}
	<-served
	x.closed(c)
	if err := c.tsc.Close(); err != nil {
		x.complain("#%d: Close: %v", o.ID, err)
	}
	var want []int
	for i := range o.N {
		if i != o.Cancel && o.Burst != burstShutdown {
			want = append(want, i)
		}
	}
	if len(order) != len(want) {
		x.complain("#%d: %v ran, should be %v", o.ID, order, want)
		return
	}
	for i := range want {
		if order[i] != want[i] {
			x.complain("#%d: ran in order %v, should be %v", o.ID, order, want)
			return
		}
	}
}

func (x *run) refusedFull(ctx context.Context, o *Op, c *contextState) {
	f := func(context.Context) (int, error) {
		x.complain("#%d: a call beyond the QueueLimit runs", o.ID)
		return 0, nil
	}
	if _, err := asyncsync.Go(ctx, f, asyncsync.On(c.tsc)).Wait(context.Background()); !errors.Is(err, asyncsync.ErrQueueFull) {
		x.complain("#%d: a task beyond the QueueLimit: %v", o.ID, err)
	}
	_, err := asyncsync.ToThread(ctx, f, asyncsync.On(c.tsc))
	if !errors.Is(err, asyncsync.ErrQueueFull) {
		x.complain("#%d: a call beyond the QueueLimit: %v", o.ID, err)
	}
}

// burstLeft has a function block in FromThread, and another run on top of it
// while calls are queued for both the wait and the thread. The wait ends, so
// that the former are handed down.
func (x *run) burstLeft(ctx context.Context, o *Op, a *activity, c *contextState) {
	var order []int // touched on the context's thread only
	var all sync.WaitGroup
	self := x.child(a, &Body{ID: -o.ID, On: o.On})
	below := x.child(self, nil)
	async := func(inner context.Context) (int, error) {
		release := make(chan struct{})
		busy := x.busy(inner, o, below, release, nil)
		for i := range o.N {
			by, from := below, inner
			if i%2 == 1 {
				by, from = a, ctx // a stranger to the wait
			}
			g, _ := x.probe(o, by, func(context.Context) (int, error) {
				order = append(order, i)
				return 0, nil
			})
			all.Add(1)
			send := func() (int, error) { return x.call(from, o, g) }
			if o.Mask>>i&1 != 0 {
				t := x.queue(from, o, g)
				send = func() (int, error) { return t.Wait(context.Background()) }
			}
			go func() {
				defer all.Done()
				if _, err := send(); err != nil {
					x.complain("#%d: call %d of the burst: %v", o.ID, i, err)
				}
			}()
			x.until(func() bool { return c.tsc.Stats().Queued == i+1 })
		}
		all.Add(1)
		go func() {
			defer all.Done()
			time.Sleep(100 * time.Microsecond) // for the wait to end, most of the time
			close(release)
			busy.Wait()
		}()
		return 0, nil
	}
	f := x.at(self.body, self, func(ctx context.Context) (v int, err error) {
		x.during(self, below, func() { v, err = asyncsync.FromThread(ctx, async) })
		return v, err
	})
	if _, err := x.call(ctx, o, f); err != nil {
		x.complain("#%d: the function that waits: %v", o.ID, err)
	}
	all.Wait()
	x.closed(c)
	if err := c.tsc.Close(); err != nil {
		x.complain("#%d: Close: %v", o.ID, err)
	}
	last := [2]int{-1, -1}
	for _, i := range order {
		if i < last[i%2] {
			x.complain("#%d: ran in order %v", o.ID, order)
		}
		last[i%2] = i
	}
	if len(order) != o.N {
		x.complain("#%d: %v ran, should be %d", o.ID, order, o.N)
	}
}
