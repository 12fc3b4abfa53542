package core

import (
	"context"
	"sync/atomic"

	"asyncsync.dev/internal/cycle"
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

	// Member, if not nil, is its place in a region, which it leaves in the end.
	Member *Member
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
//
// The frames of these functions stand on the stack of a nesting once for each level. So
// what one of the two kinds of callers needs, or a loop, is in a function of its own.
func Away(ctx context.Context, f *FullCall, body Body, o *Options, e *Elsewhere) error {
	ctx = Afterlife(ctx)
	if err := Ended(ctx); err != nil {
		return err
	}
	t, rec := current()
	s := ScopeOf(ctx)
	if t != nil {
		s = t.scopeNow(ctx)
	}
	c := f.whole()
	c.leaving(ctx, t, rec, s, body, o)
	var err error
	switch {
	case e.Home != nil:
		err = c.toLoop(ctx, t, rec, e)
	case t != nil:
		err = c.awayFromThread(ctx, foreign(ctx), homeOf(ctx), t, e)
	default:
		err = c.awayFromGoroutine(ctx, &awayCtx{}, foreign(ctx), homeOf(ctx), rec, e)
	}
	if err != nil && c.watched != nil {
		c.tellRefused(ctx, err)
	}
	return err
}

// leaving notes in c what is known of it before it is known where it goes. The caller
// is the thread t, or, if that is nil, the goroutine with the record rec.
func (c *Call) leaving(ctx context.Context, t *Thread, rec *goroutine.Record, s *Scope, body Body, o *Options) {
	if t == nil {
		checkPark(rec)
	}
	c.body, c.scope, c.name, c.by = body, s, o.Name, submitter(ctx, rec)
	if c.pc == 0 {
		c.pc = o.PC
	}
	c.note(o)
	if rec != nil {
		c.values = rec.Values
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
func (c *Call) toLoop(ctx context.Context, t *Thread, rec *goroutine.Record, e *Elsewhere) error {
	var ac *awayCtx
	if t == nil {
		ac = &awayCtx{}
	}
	if e.Job == nil {
		e.Job = &Job{}
	}
	base := foreign(ctx)
	if !e.Ends {
		base, e.Job.life = e.Home.layer(ctx, ac)
		if e.Job.life != nil {
			defer e.Job.life.end()
		}
	}
	e.Job.Waited, e.Job.Short = t == nil && parkable(rec) == nil, true
	if e.Home.Backend == nil { // which tells by itself that it stops
		e.Stopped, e.Err = e.Home.Loop.Done(), e.Home.Stopped
	}
	if t != nil {
		return c.awayFromThread(ctx, base, e.Home, t, e)
	}
	return c.awayFromGoroutine(ctx, ac, base, e.Home, rec, e)
}

// depart makes c complete and lists it, and returns the ctx whose end ends the wait: it
// may end with the loop, where ctx, the caller's, does not. leave must follow.
func (c *Call) depart(ctx context.Context, e *Elsewhere) context.Context {
	if e.Job != nil && e.Job.life != nil {
		c.node.life = e.Job.life
	}
	c.tellQueued(ctx)
	ctx = c.ctx
	c.ctx = c.watched.carryOwn(c.ctx)
	c.node.Start()
	if e.Member != nil {
		e.Member.list(c)
	}
	return ctx
}

// leave is the end of what depart has begun.
func (e *Elsewhere) leave() {
	if e.Member != nil {
		e.Member.Leave()
	}
}

// awayFromGoroutine is Away for an ordinary goroutine or a task. base is what the
// function's ctx wraps, and ac is to have that ctx.
func (c *Call) awayFromGoroutine(ctx context.Context, ac *awayCtx, base context.Context, home *Home, rec *goroutine.Record, e *Elsewhere) error {
	ac.init(base, c.scope, c.by, home.callsBackTo(homeOf(ctx)))
	c.ctx, c.node = &ac.Ctx, ac.node
	ctx = c.depart(ctx, e)
	defer e.leave()
	if parkable(rec) == nil {
		c.parker = make(chan struct{}, 1)
	}
	ac.wait.to = forAsync{c}
	p := newEdge(rec, &ac.wait)
	defer p.close()
	if err := c.post(e); err != nil {
		return err
	}
	w := sleeper{rec: rec, edge: p.edge, call: c, ctx: ctx, cancel: ctx.Done(), stopped: e.Stopped, stopErr: e.Err, abandon: c.abandon}
	if err := w.wait(nil); err != nil {
		return err
	}
	restore(rec, c.values)
	return nil
}

// awayFromThread is Away for the thread t.
func (c *Call) awayFromThread(ctx, base context.Context, home *Home, t *Thread, e *Elsewhere) error {
	fc := newFrameCtx(base, c.scope, c.by, home.callsBackTo(homeOf(ctx)))
	f := &fc.wait
	c.ctx, c.node, c.frame = &fc.Ctx, fc.node, f
	ctx = c.depart(ctx, e)
	defer e.leave()
	f.edge.to = forAsync{c}
	t.push(f, "async")
	defer t.pop(f)
	if e.kin && c.by != nil && !strict.Load() {
		defer t.servesKin(f, c.by)()
	}
	// The goroutine that waits for the function which calls from here has
	// nothing to do until c ends. One that may go away has.
	lent := false
	if e.Post == nil && e.Home == nil && !c.abandon && t.run != nil {
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
		ctx: ctx, cancel: ctx.Done(), stopped: e.Stopped, stopErr: e.Err, abandon: c.abandon,
	}
	if err := w.wait(nil); err != nil {
		return err
	}
	t.record.Values = c.values
	return nil
}

func (c *Call) post(e *Elsewhere) error {
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

// OnGoroutine is where functions run for which nothing says where: on the goroutine that
// waits for their caller, or one of their own. Nobody changes it.
var OnGoroutine = &Elsewhere{}

// OnHome returns the place for functions of the loop h, or OnGoroutine if that is nil.
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
	values, node, raised := rec.Values, rec.Node, rec.Raised
	t, _ := rec.Owner.(*Thread)
	// Thread-critical values of a goroutine that is lent are none of c's. Those
	// of a thread are, for c was posted to an executor there; and those of a
	// coroutine, which are its thread's. Both stay when c has ended.
	lent := t == nil && !rec.SharesCritical()
	var critical goroutine.Aside
	if lent {
		critical = rec.SetAside()
	}
	rec.Values, rec.Node, rec.Raised = c.values, c.node, nil
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
		rec.Values, rec.Node, rec.Raised = values, node, raised
		if lent {
			rec.PutBack(critical)
		}
		rec.ReleaseIfEmpty()
		c.node.End()
		c.ending.count()
		rec.Told = c.ending.Goexit
		if c.task {
			return // its goroutine ends the task, further down its stack
		}
		woke = c.finish()
	}()
	if lent {
		c.run(nil, &rec.Raised, rec, nil)
	} else {
		c.run(nil, &rec.Raised, nil, nil)
	}
	told = true
	return
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
	c := f.whole()
	c.leaving(ctx, t, t.record, s, body, o)
	if e.Home != nil {
		return c.toLoop(ctx, t, t.record, e)
	}
	return c.awayFromThread(ctx, foreign(ctx), homeOf(ctx), t, e)
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

// Await runs body on a goroutine of its own and waits for it, on a thread, or in a
// task that parks; elsewhere it reports false, and the caller may run body itself.
// A thread serves the calls of body, and those of what the function that waits has
// started: body may depend on these in a way that is not known. After a nil error
// the caller must look at c.Ending.
func Await(ctx context.Context, c *FullCall, body Body, o *Options) (ran bool, err error) {
	own, rec := current()
	if own == nil && parkable(rec) == nil {
		return false, nil
	}
	// Not on the goroutine that waits for the thread: that may be a task of a thread
	// loop, and body would block it.
	return true, Away(ctx, c, body, o, &Elsewhere{Post: onNewGoroutine, kin: true})
}

func onNewGoroutine(run func()) error {
	go run()
	return nil
}

// WaitOr waits until done is closed, which is at the end of the task at the
// latest, or ctx ends, whose cause it returns. Meanwhile the task is joined, as it
// is in Wait. The wait is never refused: somebody else than the task may close done.
func (t *Task) WaitOr(ctx context.Context, done <-chan struct{}) error {
	ctx = Afterlife(ctx)
	own, rec := current()
	return wait(ctx, own, rec, nil, t.Node(), done, "start")
}

var lastTask atomic.Uint64

// TaskOf returns the number and the name of the task that ctx belongs to, or, if
// ctx says nothing, the calling goroutine; 0 if there is none.
func TaskOf(ctx context.Context) (id uint64, name string) {
	n := submitter(ctx, record())
	if n == nil || n.life == nil {
		return 0, ""
	}
	l := n.life
	if id = l.id.Load(); id == 0 {
		l.id.CompareAndSwap(0, lastTask.Add(1))
		id = l.id.Load()
	}
	return id, l.called()
}

// callsBackTo returns the loop that the contexts of what h runs name, for a caller
// whose own is up.
func (h *Home) callsBackTo(up *Home) *Home {
	if h != nil && h.Threads {
		return up
	}
	return h
}

// HomeOf returns the Home of a loop.Loop. Package loop sets it.
var HomeOf func(loop any) *Home

// WithHome returns ctx with another loop.
func WithHome(ctx context.Context, h *Home) context.Context {
	var s *Scope
	var n *Node
	if c := From(ctx); c != nil {
		s, n = c.scope, c.node
	}
	return newCtx(foreign(ctx), s, n, h)
}

// Tasks returns h, or, if that is no loop, what is above it.
func (h *Home) Tasks() *Home {
	if h != nil && h.Loop == nil {
		return h.Outer
	}
	return h
}

// BelowLoop reports whether the caller is a task of h, or a function on a thread that
// one waits for.
func BelowLoop(h *Home) bool {
	own, rec := current()
	switch {
	case own != nil:
		return own.run != nil && homeOf(own.run.context()) == h
	case rec != nil:
		t := parkable(rec)
		return t != nil && t.Loop().Home() == any(h.Loop)
	}
	return false
}

// tasks reports whether h, which may be nil, runs tasks.
func (h *Home) tasks() bool { return h != nil && (h.Backend != nil || h.Spawn != nil) }

// life returns what ends when h stops, nil if that is not known.
func (h *Home) life() context.Context {
	if h.Backend == nil {
		return nil
	}
	return h.Backend.Life()
}

// Done implements [context.Context].
func (c *lifeCtx) Done() <-chan struct{} { return c.life.Done() }

// Err implements [context.Context].
func (c *lifeCtx) Err() error { return c.life.Err() }

// Value implements [context.Context]. What ends, and why, is asked of life first:
// that knows nothing else.
func (c *lifeCtx) Value(key any) any {
	if v := c.life.Value(key); v != nil {
		return v
	}
	return c.Context.Value(key)
}

// layer returns a foreign context over that of ctx, for a function that h runs: it
// ends with h as well. If it does not by itself there is a life to end it with, and
// to be ended when the function has.
//
// The life is that of a task, so that layers do not pile up: however deep calls are
// nested, each hangs from what is above the outermost. The layer is in ac, if that is
// not nil and there is nothing but the home to end it.
func (h *Home) layer(ctx context.Context, ac *awayCtx) (context.Context, *life) {
	base := foreign(ctx)
	if !h.tasks() {
		return base, nil
	}
	if end := h.life(); end != nil {
		switch base.Done() {
		case end.Done():
			return base, nil
		case nil:
			if ac == nil {
				return &lifeCtx{base, end}, nil
			}
			ac.alone = lifeCtx{base, end}
			return &ac.alone, nil
		}
	}
	l := new(fullLife).whole(h)
	l.begin(ctx)
	l.makeLayer()
	return l.layer, l
}

// send has the function of c run on h, as j, which is empty.
func (c *Call) send(h *Home, j *Job) error {
	UseLoops()
	switch {
	case h.Backend != nil:
		j.Home, j.call, j.node, j.Body, j.Values = h, c, c.node, j, c.values
		return h.Backend.Start(j)
	case h.Spawn != nil:
		return h.Spawn(c.ctx, func(theirs context.Context) {
			// Theirs ends with c's ctx, and for reasons of the backend's own.
			unwatch := context.AfterFunc(theirs, func() { j.end(context.Cause(theirs)) })
			defer unwatch()
			c.posted()
		})
	}
	return h.Loop.Post(c.posted)
}

// end ends the ctx of the function.
func (j *Job) end(cause error) {
	if j.life != nil {
		j.life.stop(cause)
	}
}

// posted runs c's function on the goroutine that it was posted to.
func (c *Call) posted() {
	if !c.task {
		c.runElsewhere()
		return
	}
	switch why := c.mayBegin(); {
	case why == nil:
		defer c.finish()
		c.runAsync()
	case why != errGivenUp:
		c.turnAway()
	}
}

// Begin implements [sched.Body].
func (j *Job) Begin() bool {
	c := j.call
	if why := c.mayBegin(); why != nil {
		j.forget()
		if why != errGivenUp {
			c.turnAway()
		}
		return false
	}
	j.phase = runs
	rec := j.record()
	rec.Node = c.node
	c.edge.gid.Store(rec.ID)
	c.tellStarted(nil)
	if c.stop != nil {
		c.stop.arm(c.ctx, nil)
	}
	return true
}

// Run implements [sched.Body].
func (j *Job) Run() { j.call.body.Run(j.call.ctx) }

// Over implements [sched.Body]. It is what runAsync does when the function has
// ended: see there.
func (j *Job) Over(v any, goexit bool) {
	if j.phase != runs {
		return
	}
	j.phase = over
	c, rec := j.call, j.record()
	if v != nil || goexit {
		c.ending = recovered(v, rec.Raised)
	}
	told := false
	defer func() {
		if !told {
			c.ending = recovered(recover(), nil)
		}
		c.values = rec.Values
		rec.Node, rec.Raised = nil, nil
		c.node.End()
		c.ending.count()
		j.forget()
		c.finish()
	}()
	if c.stop != nil {
		c.stop.end(&c.ending)
	}
	if j.Own {
		endCritical(rec, &c.ending)
	}
	c.tellEnded(nil)
	told = true
}

// Refused implements [sched.Body].
func (j *Job) Refused() {
	c := j.call
	j.forget()
	if c.turnDown(j.Home.Stopped) {
		c.turnAway()
	}
}

// Stop implements [sched.Body].
func (j *Job) Stop() { j.end(j.Home.Stopped) }

// forget lets go of a task, which contexts that lead to j must not keep.
func (j *Job) forget() {
	if j.call.task {
		j.call = nil
	}
}

// record returns that of the goroutine that j runs on.
func (j *Job) record() *goroutine.Record {
	if j.Own {
		return goroutine.Ensure()
	}
	return j.Task.Record()
}

// RunOwn runs j on the calling goroutine, which is for nothing else.
func (j *Job) RunOwn() {
	j.Own = true
	rec := goroutine.Ensure()
	rec.Task, rec.Values = j, j.Values
	defer func() {
		rec.Task = nil
		rec.Release()
	}()
	returned := false
	defer func() {
		if !returned {
			v := recover()
			j.Body.Over(v, v == nil)
		}
	}()
	if j.Body.Begin() {
		j.Body.Run()
	}
	j.Body.Over(nil, false)
	returned = true
}

// A Solo is a task of a backend that is nobody's promise: that of Spawn, or the
// main function of Run.
type Solo struct {
	Job
	tc    taskCtx
	alone lifeCtx // its layer, if it ends with the backend alone
	fn    func(context.Context)

	// Ended is told, on the task's goroutine, how it has ended; NotRun, that it
	// has not begun, and why. Without Ended the hooks are told of what does not
	// return.
	Ended   func(Ending)
	NotRun  func(error)
	refusal error
}

// NewSolo makes a task that is to run fn on h, a backend of package loop, as a child
// of ctx's node and with a fork of the caller's values.
func NewSolo(ctx context.Context, h *Home, fn func(context.Context)) *Solo {
	UseLoops()
	s := &Solo{fn: fn}
	s.Home, s.Body = h, s
	s.node, s.life = &s.tc.life.own, &s.tc.life
	if _, rec := current(); rec != nil {
		s.Values = rec.Values
	}
	l := s.tc.whole(h)
	l.label.pc = FuncPC(fn)
	l.own.setParent(NodeOf(ctx))
	l.own.life = l
	l.begin(ctx)
	unowned := l.parent == nil || l.parent.alone && l.parent.home == h
	switch end := h.life(); {
	case unowned && l.base.Done() == nil:
		// Nobody ends it but the backend.
		s.alone = lifeCtx{l.base, end}
		l.layer, l.alone = &s.alone, true
	case unowned && l.base.Done() == end.Done():
		l.layer, l.alone = l.base, true
	default:
		l.makeLayer()
	}
	c := &s.tc.Ctx
	c.over(l.layer)
	c.scope, c.node, c.home = ScopeOf(ctx), &l.own, h
	l.own.Start()
	return s
}

// Ctx returns the ctx of the task.
func (s *Solo) Ctx() context.Context { return &s.tc.Ctx }

// Begin implements [sched.Body].
func (s *Solo) Begin() bool {
	if s.refusal = Ended(&s.tc.Ctx); s.refusal != nil {
		return false
	}
	s.record().Node = &s.tc.life.own
	return true
}

// Run implements [sched.Body].
func (s *Solo) Run() { s.fn(&s.tc.Ctx) }

// Over implements [sched.Body].
func (s *Solo) Over(v any, goexit bool) {
	if s.phase == over {
		return
	}
	s.phase = over
	var e Ending
	if v != nil || goexit {
		e = recovered(v, s.record().Raised)
	}
	rec := s.record()
	if s.Own {
		endCritical(rec, &e)
	}
	told := rec.Told
	rec.Node, rec.Raised, rec.Told = nil, nil, false
	s.release()
	switch {
	case s.refusal != nil:
		if s.NotRun != nil {
			s.NotRun(s.refusal)
		}
	case s.Ended != nil:
		s.Ended(e)
	case !e.Returned() && !told:
		TellUnheard(s.tc.life.base, e, s.tc.life.label.String())
	}
}

func (s *Solo) release() {
	s.tc.life.own.End()
	s.tc.life.end()
}

// Drop says that the task will not begin, without telling anybody.
func (s *Solo) Drop() { s.release() }

// Refused implements [sched.Body].
func (s *Solo) Refused() {
	s.phase = over
	s.release()
	if s.NotRun != nil {
		s.NotRun(s.Home.Stopped)
	}
}

// Stop implements [sched.Body].
func (s *Solo) Stop() { s.tc.life.stop(s.Home.Stopped) }

// RunHere runs the task on the calling goroutine, which goes on after it.
func (s *Solo) RunHere() {
	rec := goroutine.Ensure()
	was, node := rec.Task, rec.Node
	awaited := s.Awaited()
	rec.Task, rec.Node = &s.Job, &s.tc.life.own
	defer func() {
		rec.Task, rec.Node = was, node
		awaited()
		rec.ReleaseIfEmpty()
		s.release()
	}()
	s.fn(&s.tc.Ctx)
}

// Awaited makes known that the calling goroutine waits for the task, until over is
// called there.
func (s *Solo) Awaited() (over func()) {
	rec := goroutine.Current()
	if rec == nil || rec.Owner != nil {
		return func() {}
	}
	self := waiter(rec)
	self.publish(&edge{to: forNode{&s.tc.life.own}})
	return self.unpublish
}

// TellUnheard tells the hooks how something has ended that nobody waits for. A hook
// that panics ends the program, not the loop.
func TellUnheard(ctx context.Context, e Ending, name string) {
	defer func() {
		if v := recover(); v != nil {
			go func() { panic(v) }()
		}
	}()
	e.Unheard(ctx, name)
}

func (f forAsync) kind() string { return "async" }

func (f forAsync) name() string { return f.c.Name() }

func (f forAsync) mayWait() bool { return f.c.node.waits.Load() != nil }

func (f forAsync) next() (*Call, *Node) { return f.c, f.c.node }

func (f forAsync) reached() any { return f.c.node }

func (f forAsync) needs(q *query) cycle.Needs {
	n := q.one(q.elsewhere(f.c))
	if f.c.abandon {
		n.Until = f.c.ctx
	}
	return n
}

func (f forAsync) report(v *view, w *WaitState) {
	w.Function = v.found(f.c.node, f.c.title())
	w.Goroutine = f.c.edge.gid.Load()
}
