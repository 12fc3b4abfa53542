package core

import (
	"context"
	"runtime"

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
}

// Host returns the loop, a loop.Loop, of the task that has called the sync code
// which asks, nil if there is none.
func Host(ctx context.Context) (loop any) {
	if !loops.Load() {
		return nil
	}
	return HostOf(ctx)
}

// HostOf is Host where there are loops. OnLoopOf makes a loop.Loop a place for
// functions, with the ctx that they get and what is to be called when they have
// ended. Package loop sets both.
var (
	HostOf   func(ctx context.Context) (loop any)
	OnLoopOf func(ctx context.Context, loop any) (_ context.Context, e Elsewhere, release func())
)

// A claim settles whether a function begins, between whoever is to run it and a
// caller who gives it up or abandons it.
const (
	unclaimed = iota
	claimedByRunner
	claimedByCaller
)

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
		c.refused(ctx, err)
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
	by := submitter(ctx, rec)
	c.body, c.scope, c.name, c.by = body, s, o.Name, by
	if c.pc == 0 {
		c.pc = o.PC
	}
	if t == nil {
		nc := newNodeCtx(ctx, s, by)
		c.ctx, c.node = &nc.Ctx, nc.node
	} else {
		fc := newFrameCtx(ctx, s, by)
		c.ctx, c.node, c.frame = &fc.Ctx, fc.node, &fc.wait
	}
	c.note(o)
	if rec != nil {
		c.values = rec.Values
	}
	if o.Interrupt != nil {
		c.stop = newInterrupt(o)
	}
	c.begin(ctx)
	c.node.Start()
	if t == nil {
		c.parker = make(chan struct{}, 1)
		p := newEdge(rec, &edge{to: (*awayCall)(c)})
		defer p.over()
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
	f.edge.to = (*awayCall)(c)
	t.push(f, "async")
	defer t.pop(f)
	if e.kin && by != nil && !strict.Load() {
		defer t.servesKin(f, by)()
	}
	// The goroutine that waits for the function which calls from here has
	// nothing to do until c ends. One that may go away has.
	lent := false
	if e.Post == nil && !o.Abandon && t.run != nil {
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
	if e.Post == nil {
		go c.begun()
		return nil
	}
	err := e.Post(func() { c.begun() })
	if err != nil {
		c.node.End()
	}
	return err
}

// begun runs c's function on the calling goroutine, unless its ctx has ended
// or its caller has given up. It reports whether that has woken somebody.
func (c *Call) begun() (woke bool) {
	if err := Ended(c.ctx); err != nil {
		// As if its caller had been faster: one who may abandon what has begun
		// must not be told that this has.
		if !c.claim.CompareAndSwap(unclaimed, claimedByCaller) {
			return false
		}
		c.refusal = err
		c.node.End()
		count.cancelled.Add(1)
		return c.finish()
	}
	if !c.claim.CompareAndSwap(unclaimed, claimedByRunner) {
		return false
	}
	return c.runAsync()
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
		defer c.node.ride(t)()
	}
	returned, told := false, false
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
	defer func() {
		if !returned {
			c.ending = recovered(recover(), c.node.raised)
		}
		if c.stop != nil {
			c.stop.end(&c.ending)
		}
		if lent {
			rec.EndCritical(func(v any, goexit bool, stack []byte) {
				if c.ending.Returned() {
					c.ending = Ending{Goexit: goexit}
					if !goexit {
						c.ending.Panic = &Panic{Value: v, Stack: stack}
					}
				}
			})
		}
		c.over(nil)
		told = true
	}()
	c.started(nil)
	if c.stop != nil {
		c.stop.arm(c.ctx, nil)
	}
	c.body.Run(c.ctx)
	returned = true
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
	runtime.LockOSThread()
	rec := goroutine.Ensure()
	s := &Scope{kind: adoptedScope, cfg: &Config{Name: name}}
	s.root = s
	t := &Thread{id: threadIDs.Add(1), adopted: true, name: name, record: rec, wake: make(chan struct{}, 1)}
	t.spin.never = bubble() != 0
	t.first = onFirstThread()
	t.gid.Store(rec.ID)
	t.tid.Store(osThread())
	s.thread.Store(t)
	t.home = s
	rec.Owner = t
	enlist(t)
	waiter(rec).publish(&edge{to: t}) // for whom it ran before, it waits for t now
	return t, s
}

// Become makes the calling goroutine a thread until release is called, and
// returns ctx as seen there.
func Become(ctx context.Context, name string) (_ context.Context, release func()) {
	t, s := adopt(name)
	return newCtx(foreign(ctx), s, nil), t.release
}

// release ends an adoption. The last frame has gone; what it has left in the
// queue has no other place to run.
func (t *Thread) release() {
	defer func() {
		t.record.Owner = nil
		waiter(t.record).unpublish()
		if t.record.Empty() {
			t.record.Release()
		}
		delist(t)
		if !t.taint.Load() { // else the OS thread ends with the goroutine
			runtime.UnlockOSThread()
		}
	}()
	t.drain()
}

// Here returns the thread that the caller is, or nil.
func Here() *Thread {
	t, _ := current()
	return t
}
