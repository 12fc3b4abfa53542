package core

import (
	"context"

	"asyncsync.dev/internal/goroutine"
)

// An Elsewhere is a place for functions that are not thread-sensitive.
type Elsewhere struct {
	// Post has run called, soon, on a goroutine of its choice; nil is a go
	// statement. An error means that run will not be called.
	Post func(run func()) error
	// Stopped, if not nil, is closed when what has not begun never will.
	Stopped <-chan struct{}
	// Err is what calls get that had not begun then.
	Err error

	// kin has a thread that waits also serve what its function has started.
	kin bool
	// Home, if not nil, is the loop that runs it; then there is none of the
	// above. Job is what it is to run as, if somebody has one to give.
	Home *Home
	Job  *Job
	// Ends says that the caller's ctx ends when Home stops, by itself or by whoever
	// has made it: the function needs no layer of its own for that.
	Ends bool
}

// Host returns the loop of the task that has called the sync code which asks, nil if
// there is none. Identity is the goroutine's: the ctx of a task is no answer in the
// task itself, nor on a goroutine that has merely come by it.
func Host(ctx context.Context) *Home {
	if !loops.Load() {
		return nil
	}
	h := homeOf(ctx)
	if h == nil {
		return nil
	}
	own, rec := current()
	switch {
	case own != nil:
		return h
	case rec == nil || rec.Task != nil:
		return nil
	}
	// Somebody has started the goroutine for the very call that ctx belongs to.
	if n := NodeOf(ctx); n != nil && rec.Node == any(n) {
		return h
	}
	return nil
}

// Away runs body elsewhere and waits for it. A calling thread serves
// meanwhile, for this is a wait in a frame; an ordinary goroutine sleeps.
// After nil the caller must look at c.Ending.
func Away(ctx context.Context, c *Call, body Body, o *Options, e Elsewhere) error {
	ctx = Afterlife(ctx)
	if err := Ended(ctx); err != nil {
		return err
	}
	t, rec := current()
	s := ScopeOf(ctx)
	if t != nil {
		s = t.scopeNow(ctx)
	}
	err := away(ctx, t, rec, s, c, body, o, e)
	if err != nil && c.watched != nil {
		c.tellRefused(ctx, err)
	}
	return err
}

// scopeNow returns the scope of what runs on t: a function called from here
// finds this thread nearest.
func (t *Thread) scopeNow(ctx context.Context) *Scope {
	if s := ScopeOf(ctx); s != nil && s.root.thread.Load() == t {
		return s
	}
	if t.run != nil { // only t's own goroutine changes run
		return t.run.scope
	}
	if t.home != nil {
		return t.home
	}
	return ScopeOf(ctx)
}

// Context returns ctx as what runs on t, the calling thread, sees it.
func (t *Thread) Context(ctx context.Context) context.Context {
	if s := t.scopeNow(ctx); s != nil {
		return s.Context(ctx)
	}
	return ctx
}

func away(ctx context.Context, t *Thread, rec *goroutine.Record, s *Scope, c *Call, body Body, o *Options, e Elsewhere) error {
	if t == nil {
		checkPark(rec)
	}
	by := submitter(ctx, rec)
	c.body, c.scope, c.name, c.by = body, s, o.Name, by
	if c.pc == 0 {
		c.pc = o.PC
	}
	var ac *awayCtx
	if t == nil {
		ac = &awayCtx{}
	}
	base, home := foreign(ctx), homeOf(ctx)
	if e.Home != nil {
		home = e.Home
		if e.Job == nil {
			e.Job = &Job{}
		}
		if !e.Ends {
			base, e.Job.life = home.layer(ctx, ac)
			if e.Job.life != nil {
				defer e.Job.life.end()
			}
		}
		e.Job.Waited, e.Job.Short = t == nil && parkable(rec) == nil, true
		if home.Backend == nil { // which tells by itself that it stops
			e.Stopped, e.Err = home.Loop.Done(), home.Stopped
		}
	}
	home = home.callsBackTo(homeOf(ctx))
	if t == nil {
		ac.init(base, s, by, home)
		c.ctx, c.node = &ac.Ctx, ac.node
	} else {
		fc := newFrameCtx(base, s, by, home)
		c.ctx, c.node, c.frame = &fc.Ctx, fc.node, &fc.wait
	}
	if e.Job != nil && e.Job.life != nil {
		c.node.life = e.Job.life
	}
	c.note(o)
	if rec != nil {
		c.values = rec.Values
	}
	if o.Interrupt != nil {
		c.stop = newInterrupt(o)
	}
	c.tellQueued(ctx)
	ctx = c.ctx // ends with the loop as well
	c.ctx = c.watched.carry(c.ctx)
	c.node.Start()
	if t == nil {
		if parkable(rec) == nil {
			c.parker = make(chan struct{}, 1)
		}
		ac.wait.to = forAsync{c}
		p := newEdge(rec, &ac.wait)
		defer p.close()
		if err := c.post(e); err != nil {
			return err
		}
		w := sleeper{rec: rec, edge: p.edge, call: c, ctx: ctx, cancel: ctx.Done(), stopped: e.Stopped, stopErr: e.Err, abandon: o.Abandon}
		if err := w.wait(); err != nil {
			return err
		}
		restore(rec, c.values)
		return nil
	}
	f := c.frame
	f.edge.to = forAsync{c}
	t.push(f, "async")
	defer t.pop(f)
	if e.kin && by != nil && !strict.Load() {
		defer t.servesKin(f, by)()
	}
	// The goroutine that waits for the function which calls from here has
	// nothing to do until c ends. One that may go away has.
	lent := false
	if e.Post == nil && e.Home == nil && !o.Abandon && t.run != nil {
		lent, t.woke = t.run.lend(c)
	}
	if !lent {
		t.woke = true // what go starts sits in our run queue as well
		if err := c.post(e); err != nil {
			return err
		}
	}
	w := sleeper{
		own: t, frame: f, edge: &f.edge, call: c,
		ctx: ctx, cancel: ctx.Done(), stopped: e.Stopped, stopErr: e.Err, abandon: o.Abandon,
	}
	if err := w.wait(); err != nil {
		return err
	}
	rec.Values = c.values
	return nil
}

func (c *Call) post(e Elsewhere) error {
	var err error
	switch {
	case e.Home != nil:
		err = c.send(e.Home, e.Job)
	case e.Post != nil:
		err = e.Post(func() { c.runElsewhere() })
	default:
		go c.runElsewhere()
	}
	if err != nil {
		c.node.End()
	}
	return err
}

// runElsewhere runs c's function on the calling goroutine, unless its ctx has ended
// or its caller has given up. It reports whether that has woken somebody.
func (c *Call) runElsewhere() (woke bool) {
	switch why := c.mayBegin(); why {
	case nil:
		return c.runAsync()
	case errGivenUp:
		return false
	}
	return c.finish()
}

// runAsync runs c's function on the calling goroutine, which is nobody's
// thread or serves as the executor's. It reports whether the end of it has
// woken somebody.
func (c *Call) runAsync() (woke bool) {
	rec := goroutine.Ensure()
	values, node := rec.Values, rec.Node
	t, _ := rec.Owner.(*Thread)
	// Thread-critical values of a goroutine that is lent are none of c's. Those
	// of a thread are, for c was posted to an executor there; and those of a
	// coroutine, which are its thread's. Both stay when c has ended.
	lent := t == nil && !rec.SharesCritical()
	var critical goroutine.Aside
	if lent {
		critical = rec.SetAside()
	}
	rec.Values, rec.Node = c.values, c.node
	c.edge.gid.Store(rec.ID)
	if t != nil {
		defer c.node.runsInside(t)()
	}
	told := false
	defer func() {
		if !told {
			c.ending = recovered(recover(), nil)
		}
		c.values = rec.Values
		rec.Values, rec.Node = values, node
		if lent {
			rec.PutBack(critical)
		}
		rec.ReleaseIfEmpty()
		c.node.End()
		c.ending.count()
		rec.Told = c.ending.Goexit
		if c.life != nil {
			return // its goroutine ends the task, further down its stack
		}
		woke = c.finish()
	}()
	if lent {
		c.run(nil, &c.node.raised, rec, nil)
	} else {
		c.run(nil, &c.node.raised, nil, nil)
	}
	told = true
	return
}

// Adopt makes the calling goroutine a thread for the length of one [Away]:
// locked to its OS thread, with a scope of its own that everything below finds
// nearest.
func Adopt(ctx context.Context, c *Call, body Body, o *Options, e Elsewhere) error {
	if err := Ended(ctx); err != nil {
		return err
	}
	t, s := adopt(o.Name)
	defer t.release()
	return away(ctx, t, t.record, s, c, body, o, e)
}

// adopt makes the calling goroutine a thread.
func adopt(name string) (*Thread, *Scope) {
	gid := goroutine.ID()
	if o := makerOf(gid); o != nil {
		t := o.enter(name)
		return t, t.home
	}
	t := newAdopted(name, gid, nil)
	t.spin.Never = bubble() != 0
	t.settle()
	return t, t.home
}

// Become makes the calling goroutine a thread until release is called, and
// returns ctx as seen there.
func Become(ctx context.Context, name string) (_ context.Context, release func()) {
	t, s := adopt(name)
	return newCtx(foreign(ctx), s, nil, homeOf(ctx)), t.release
}

// release ends an adoption. The last frame has gone; what it has left in the
// queue has no other place to run.
func (t *Thread) release() {
	if t.own != nil && !t.own.leave() {
		return // it is a thread for good
	}
	defer t.unsettle()
	if t.own != nil {
		defer t.own.takeBack(t)
	}
	t.drain()
}

// Here returns the thread that the caller is, or nil.
func Here() *Thread {
	t, _ := current()
	return t
}
