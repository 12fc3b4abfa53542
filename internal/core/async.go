package core

import (
	"context"

	"asyncsync.dev/internal/cycle"
	"asyncsync.dev/internal/goroutine"
)

// Host returns the loop of the task that has called the sync code in which Host is
// called, or nil if there is none. The goroutine decides, not ctx alone: with the ctx
// of a task Host returns nil in the task itself, and on a goroutine that was only
// given the ctx.
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
	// The goroutine may have been started to run the very call that ctx belongs
	// to.
	if n := NodeOf(ctx); n != nil && rec.Node == any(n) {
		return h
	}
	return nil
}

// Away runs body elsewhere and waits for it. A calling thread waits in a
// frame and serves meanwhile; an ordinary goroutine sleeps. If Away returns
// nil, the caller must look at f.Ending.
//
// The frames of these functions stand on the stack of a nesting once for each level. So
// code that only threads, only goroutines or only loops need is in a function of its
// own.
func Away(ctx context.Context, f *FullCall, body Body, o *Options, e *Elsewhere) error {
	ctx = Afterlife(ctx)
	if err := Ended(ctx); err != nil {
		return err
	}
	own, rec := current()
	w := f.waiting(ctx, own, rec)
	c := w.call
	c.leaving(w, body, o)
	var err error
	switch {
	case e.Home != nil:
		err = c.toLoop(w, e)
	case w.own != nil:
		err = c.awayFromThread(w, foreign(ctx), homeOf(ctx), e)
	default:
		err = c.awayFromGoroutine(w, &awayCtx{}, foreign(ctx), homeOf(ctx), e)
	}
	if err != nil && c.watched != nil {
		c.tellRefused(ctx, err)
	}
	return err
}

// leaving sets the fields of c that do not depend on where its function will run.
func (c *Call) leaving(w *sleeper, body Body, o *Options) {
	if w.own != nil {
		c.scope = w.own.scopeNow(w.ctx)
	} else {
		checkPark(w.rec)
		c.scope = ScopeOf(w.ctx)
	}
	c.body, c.name, c.by = body, o.Name, submitter(w.ctx, w.rec)
	if c.pc == 0 {
		c.pc = o.PC
	}
	c.note(o)
	if w.rec != nil {
		c.values = w.rec.Values
	}
	if o.Interrupt != nil {
		c.stop = newInterrupt(o)
	}
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

// toLoop is Away to the loop e.Home.
func (c *Call) toLoop(w *sleeper, e *Elsewhere) error {
	var ac *awayCtx
	if w.own == nil {
		ac = &awayCtx{}
	}
	if e.Job == nil {
		e.Job = &Job{}
	}
	base := foreign(w.ctx)
	if !e.Ends {
		base, e.Job.life = e.Home.layer(w.ctx, ac)
		if e.Job.life != nil {
			defer e.Job.life.end()
		}
	}
	e.Job.Waited, e.Job.Short = w.own == nil && parkable(w.rec) == nil, true
	if e.Home.Backend == nil { // a Backend tells its jobs itself that it stops
		e.Stopped, e.Err = e.Home.Loop.Done(), e.Home.Stopped
	}
	if w.own != nil {
		return c.awayFromThread(w, base, e.Home, e)
	}
	return c.awayFromGoroutine(w, ac, base, e.Home, e)
}

// depart completes c and lists it. From then on the wait ends with what may end with the
// loop, even if the caller's ctx does not.
func (c *Call) depart(w *sleeper, e *Elsewhere) {
	if e.Job != nil && e.Job.life != nil {
		c.node.life = e.Job.life
	}
	c.tellQueued(w.ctx)
	w.ctx, w.cancel, w.place = c.ctx, c.ctx.Done(), e
	c.ctx = c.watched.carryOwn(c.ctx)
	c.node.Start()
	if e.Member != nil {
		c.guest = true
		e.Member.list(c)
	}
}

// awayFromGoroutine is Away for an ordinary goroutine or a task. base is what the
// function's ctx wraps, and ac is to have that ctx.
func (c *Call) awayFromGoroutine(w *sleeper, ac *awayCtx, base context.Context, home *Home, e *Elsewhere) error {
	defer w.close()
	ac.init(base, c.scope, c.by, home.callsBackTo(homeOf(w.ctx)))
	c.ctx, c.node = &ac.Ctx, ac.node
	c.depart(w, e)
	if parkable(w.rec) == nil {
		c.parker = make(chan struct{}, 1)
	}
	ac.wait.to = forAsync{c}
	w.edge = newEdge(w.rec, &ac.wait).edge
	err := c.post(e)
	if err == nil {
		err = w.wait(nil)
	}
	if err == nil {
		restore(w.rec, c.values)
	}
	return err
}

// awayFromThread is Away for the thread w.own.
func (c *Call) awayFromThread(w *sleeper, base context.Context, home *Home, e *Elsewhere) error {
	defer w.close()
	err := c.departFromThread(w, base, home, e)
	if err == nil {
		err = w.wait(nil)
	}
	if err == nil {
		w.own.record.Values = c.values
	}
	return err
}

// departFromThread begins the wait of the thread w.own in a frame, and finds a goroutine
// for the function.
func (c *Call) departFromThread(w *sleeper, base context.Context, home *Home, e *Elsewhere) error {
	t := w.own
	fc := newFrameCtx(base, c.scope, c.by, home.callsBackTo(homeOf(w.ctx)))
	c.ctx, c.node, c.frame = &fc.Ctx, fc.node, &fc.wait
	c.depart(w, e)
	fc.wait.edge.to = forAsync{c}
	w.push(&fc.wait, "async")
	if e.kin && c.by != nil && !strict.Load() {
		w.undo = t.servesKin(w.frame, c.by)
	}
	// The goroutine that waits for the calling function has nothing to do
	// until c ends, so it can run c. Not if c may be abandoned: c might then
	// keep that goroutine after the function has ended.
	lent := false
	if e.Post == nil && e.Home == nil && !c.abandon && t.run != nil {
		lent, t.woke = t.run.lend(c)
	}
	if lent {
		return nil
	}
	t.woke = true // what go starts sits in our run queue as well
	return c.post(e)
}

func (c *Call) post(e *Elsewhere) error {
	var err error
	switch {
	case e.Home != nil:
		e.Job.Values = c.values
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

// OnGoroutine is the place of functions that no option or loop sends elsewhere. They
// run on the goroutine that waits for their caller, or on a new one. It must not be
// changed.
var OnGoroutine = &Elsewhere{}

// OnHome returns the place for functions of the loop h, or OnGoroutine if h is nil.
func OnHome(h *Home) *Elsewhere {
	if h == nil {
		return OnGoroutine
	}
	e := &struct {
		Elsewhere
		job Job
	}{}
	e.Home, e.Job = h, &e.job
	return &e.Elsewhere
}

// Adopt makes the calling goroutine a thread for the length of one [Away]:
// locked to its OS thread, with a scope of its own that everything below finds
// nearest.
func Adopt(ctx context.Context, f *FullCall, body Body, o *Options, e *Elsewhere) error {
	if err := Ended(ctx); err != nil {
		return err
	}
	t, s := adopt(o.Name)
	defer t.release()
	w := f.waiting(ctx, t, t.record)
	c := w.call
	c.leaving(w, body, o)
	c.scope = s // whatever ctx says
	if e.Home != nil {
		return c.toLoop(w, e)
	}
	return c.awayFromThread(w, foreign(ctx), homeOf(ctx), e)
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
	t.moveIn()
	return t, t.home
}

// Become makes the calling goroutine a thread until release is called, and
// returns ctx as seen there.
func Become(ctx context.Context, name string) (_ context.Context, release func()) {
	t, s := adopt(name)
	return newCtx(foreign(ctx), s, nil, homeOf(ctx)), t.release
}

// release ends an adoption. The last frame is gone, and calls that it has left
// in the queue run here, because no other thread could run them.
func (t *Thread) release() {
	if t.own != nil && !t.own.leave() {
		return // the goroutine stays a thread
	}
	defer t.moveOut()
	if t.own != nil {
		defer t.own.takeBack(t)
	}
	t.drain()
}

// Await runs body on a new goroutine and waits for it, if the caller is a thread or
// a task that can park. For other callers it reports false, and the caller may run
// body itself. A thread serves the calls of body. It also serves the calls of code
// that the waiting function has started, because body may depend on them in a way
// that is not known. If err is nil and ran is true, the caller must look at
// c.Ending.
func Await(ctx context.Context, c *FullCall, body Body, o *Options) (ran bool, err error) {
	own, rec := current()
	if own == nil && parkable(rec) == nil {
		return false, nil
	}
	// body must not run on the goroutine that waits for the thread. That goroutine may
	// be a task of a thread loop, and body would block the loop.
	return true, Away(ctx, c, body, o, onAnother)
}

// onAnother is the place of the bodies of Await. It must not be changed.
var onAnother = &Elsewhere{Post: onNewGoroutine, kin: true}

func onNewGoroutine(run func()) error {
	go run()
	return nil
}

func (f forAsync) kind() string { return "async" }

func (f forAsync) name() string { return f.c.Name() }

func (f forAsync) mayWait() bool { return f.c.node.waits.Load() != nil }

func (f forAsync) next() (*Call, *Node) { return f.c, f.c.node }

func (f forAsync) reached() any { return f.c.node }

func (f forAsync) needs(q *query) cycle.Needs {
	n := q.one(q.elsewhere(f.c))
	if f.c.abandon {
		n.Until = f.c.context()
	}
	return n
}

func (f forAsync) report(v *view, w *WaitState) {
	w.Function = v.found(f.c.node, f.c.title())
	w.Goroutine = f.c.edge.gid.Load()
}
