package core

import (
	"context"

	"asyncsync.dev/internal/ending"
	"asyncsync.dev/internal/goroutine"
	"asyncsync.dev/internal/sched"
)

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

// callsBackTo returns the loop that the contexts of functions on h name. up is the
// loop of their caller.
func (h *Home) callsBackTo(up *Home) *Home {
	if h != nil && h.Threads {
		return up
	}
	return h
}

// Tasks returns h. If h has no Loop, it returns the home above h instead.
func (h *Home) Tasks() *Home {
	if h != nil && h.Loop == nil {
		return h.Outer
	}
	return h
}

// A Posting is the Task of a goroutine that runs functions posted to a loop of goroutines.
type Posting struct{ Home *Home }

// BelowLoop reports whether h cannot end before the caller: whether the caller is a task
// of h or a function posted to it, or a function that such a task has called or started.
func BelowLoop(h *Home) bool {
	own, rec := current()
	if own != nil && own.run != nil && homeOf(own.run.context()) == h {
		return true
	}
	if rec == nil {
		return false
	}
	for task := rec.Task; task != nil; {
		on := any(nil)
		switch x := task.(type) {
		case *Posting:
			on, task = x.Home.Loop, nil
		case *sched.Task:
			on, task = x.Loop().Home(), nil
		case *Job:
			on, task = x.Home.Loop, nil
			if s, ok := x.Body.(*Solo); ok {
				task = s.outer
			}
		default:
			task = nil
		}
		if on == any(h.Loop) {
			return true
		}
	}
	for n := waiter(rec); n != nil; n = n.parent.Load() {
		if n.life.names(h) {
			return true
		}
	}
	return false
}

// names reports whether the ctx of l, which may be nil, names h.
func (l *life) names(h *Home) bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lifeRest != nil && l.home == h
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

// Value implements [context.Context]. It asks life first, so that package context
// finds the end and the cause there. life has no other values.
func (c *lifeCtx) Value(key any) any {
	if v := c.life.Value(key); v != nil {
		return v
	}
	return c.Context.Value(key)
}

// layer returns a foreign context over that of ctx, for a function that h runs. It
// ends with ctx and with h. If layer also returns a life, the caller must end the
// context through that life when h stops, and end the life when the function has
// ended.
//
// The life works like that of a task, so that layers do not pile up: in a nesting of
// any depth each layer hangs from the context above the outermost one. If ac is not nil
// and only the home can end the layer, the layer is in ac.
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

// send has the function of c run on h, as j, which has c's values and nothing else yet.
func (c *Call) send(h *Home, j *Job) error {
	UseLoops()
	switch {
	case h.Backend != nil:
		j.Home, j.call, j.node, j.Body = h, c, c.node, j
		return h.Backend.Start(j)
	case h.Spawn != nil:
		return h.Spawn(c.ctx, func(theirs context.Context) {
			// theirs ends with c's ctx, or when the backend ends it.
			unwatch := context.AfterFunc(theirs, func() { j.end(Cause(theirs)) })
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
		c.ending = ending.Of(v, rec.Raised)
	}
	told := false
	defer func() {
		if !told {
			c.ending = ending.Of(recover(), nil)
		}
		c.values = rec.Values
		rec.Node, rec.Raised = nil, nil
		c.node.End()
		countEnding(c.ending)
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

// forget drops the reference to the call of a task, because contexts refer to
// j and must not keep the task alive.
func (j *Job) forget() {
	if j.call.task {
		j.call = nil
	}
}

// record returns the record of the goroutine that j runs on.
func (j *Job) record() *goroutine.Record {
	if j.Own {
		return goroutine.Ensure()
	}
	return j.Task.Record()
}

// RunOwn runs j on the calling goroutine, which was started for j.
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

// A Solo is a task of a backend that no [Task] stands for: a function of Spawn, or the
// main function of Run.
type Solo struct {
	Job
	tc    taskCtx
	alone lifeCtx               // its layer, if it ends with the backend alone
	fn    func(context.Context) // nil when it has ended
	outer any                   // what the goroutine of RunHere runs besides, of a loop

	// Ended is told, on the task's goroutine, how it has ended; NotRun, that it
	// has not begun, and why. Without Ended the hooks are told of what does not
	// return.
	Ended   func(Ending)
	NotRun  func(error)
	refusal error
}

// NewSolo makes a task that is to run fn on h, a backend of package loop, as a child
// of ctx's node and with a fork of the caller's values. Reports call it after the function
// with the entry pc.
func NewSolo(ctx context.Context, h *Home, pc uintptr, fn func(context.Context)) *Solo {
	UseLoops()
	s := &Solo{fn: fn}
	s.Home, s.Body = h, s
	s.node, s.life = &s.tc.life.own, &s.tc.life
	if _, rec := current(); rec != nil {
		s.Values = rec.Values
	}
	l := s.tc.whole(h)
	l.label.pc = pc
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
	c.wrap(l.layer)
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
		e = ending.Of(v, s.record().Raised)
	}
	rec := s.record()
	if s.Own {
		endCritical(rec, &e)
	}
	told := rec.Told
	rec.Node, rec.Raised, rec.Told = nil, nil, false
	s.releaseInto(&e)
	switch {
	case s.refusal != nil:
		if s.NotRun != nil {
			s.NotRun(s.refusal)
		}
	case s.Ended != nil:
		s.Ended(e)
	case !e.Returned() && !told:
		TellUnheardOfLoop(s.tc.life.base, e, s.tc.life.label.String())
	}
}

func (s *Solo) release() {
	s.fn = nil // what the function has left behind leads to s
	s.tc.life.own.End()
	s.tc.life.end()
}

// releaseInto is release for a task that has ended as e says. If it returned, and code
// of its ctx panics now, that is how it has ended.
func (s *Solo) releaseInto(e *Ending) {
	defer func() {
		if v := recover(); v != nil && e.Returned() {
			*e = ending.Of(v, nil)
		}
	}()
	s.release()
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
	was, node, raised := rec.Task, rec.Node, rec.Raised
	awaited := s.Awaited()
	s.outer, rec.Task, rec.Node = was, &s.Job, &s.tc.life.own
	defer func() {
		s.outer = nil
		rec.Task, rec.Node, rec.Raised = was, node, raised
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
