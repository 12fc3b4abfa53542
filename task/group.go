package task

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"asyncsync.dev/internal/core"
)

// A Group runs tasks that belong together. The first one to fail cancels the
// others, and Wait reports how all of them ended. Its methods may be called
// from any goroutine or thread, including the group's own tasks.
//
// Make one with [NewGroup]. The zero Group is also ready to use. Its tasks are
// below no ctx: they call the default thread, and a failure cancels nothing.
// Only a Wait with a ctx that ends cancels them.
//
// It combines errgroup's Group, conc's pool and anyio's TaskGroup. Errors are
// joined instead of dropped after the first, and panics and Goexits reach the
// waiter.
type Group struct {
	core   core.Group
	cancel context.CancelCauseFunc // nil before it is made; under mu, for the zero Group

	first   bool // Wait returns only the first error; this and carryOn are fixed by NewGroup
	carryOn bool // a failure cancels nothing
	zero    bool // it was not made by NewGroup; under mu

	mu      sync.Mutex // guards the rest; a leaf lock
	running int        // tasks, and places given to those waiting in line
	idle    *core.Gate // opened when running is 0; nil while nothing waits for that
	limited bool
	limit   int
	line    *list.List // of *entrant: calls of Go that wait for a place; nil before the first
	over    bool       // Wait has returned
	errs    []error
	unbegun error       // why a task did not begin, of the first that did not; not in errs
	panic   *core.Panic // the first
	goexit  bool
}

// An entrant is a call of Go that waits for a place.
type entrant struct {
	turn chan struct{} // closed when the wait is over
	may  bool          // it has a place
}

// Causes of a group's ctx. All of them match context.Canceled.
var (
	errEnded    = fmt.Errorf("task: the group has ended: %w", context.Canceled)
	errPanicked = fmt.Errorf("task: a task of the group panicked: %w", context.Canceled)
	errGoexit   = fmt.Errorf("task: a task of the group called runtime.Goexit: %w", context.Canceled)
)

// A GroupOption changes what a group does.
type GroupOption func(*Group)

// FirstError makes Wait return only the error of the task that failed first, as
// errgroup does, instead of all errors joined.
func FirstError() GroupOption { return func(g *Group) { g.first = true } }

// NoCancel lets the other tasks of the group go on when one fails. Their ctx
// still ends when Wait returns, and a Wait with a ctx that ends still cancels
// them.
func NoCancel() GroupOption { return func(g *Group) { g.carryOn = true } }

// NewGroup returns a group and the ctx of its tasks. That ctx ends when a task
// returns an error, panics or calls Goexit, when Wait returns, when the ctx of
// Wait ends, and when ctx ends. Its cause is the error of the task, or the
// cause of the ctx that has ended. After a panic, a Goexit or the return of
// Wait it matches [context.Canceled]. A nil ctx panics.
func NewGroup(ctx context.Context, opts ...GroupOption) (context.Context, *Group) {
	if ctx == nil {
		panic("task: NewGroup: nil ctx")
	}
	g := &Group{}
	for _, opt := range opts {
		if opt == nil {
			panic("task: NewGroup: nil GroupOption")
		}
		opt(g)
	}
	ctx, g.cancel = g.core.Init(ctx)
	return ctx, g
}

// lock locks mu. It initializes a zero Group.
func (g *Group) lock(what string) {
	if g == nil {
		panic("task: Group." + what + ": nil Group")
	}
	g.mu.Lock()
	if g.cancel == nil {
		g.carryOn, g.zero = true, true
		_, g.cancel = g.core.Init(context.Background())
	}
}

// Go starts fn as a task of the group. It may be called until Wait has
// returned, also by the group's own tasks; after that it panics. The task runs
// on the backend of the ctx of NewGroup, as described at [Go]. On a backend it
// does not begin if the group has already been cancelled; Wait returns that
// cancellation if there is no other error.
//
// If the limit of SetLimit is reached, Go waits until a task has ended, first
// come first served. A thread serves meanwhile, including the calls of the
// group's tasks. No ctx ends that wait. If it could never end, because every
// task of the group waits for the caller or is the caller, fn does not run. It
// then counts as a task that has returned an error which matches
// deadlock.ErrDeadlock.
func (g *Group) Go(fn func(ctx context.Context) error, opts ...Option) {
	g.start("Go", fn, opts, true)
}

// TryGo is Go without the wait: if the limit is reached, or others wait for a
// place, it starts nothing and returns false.
func (g *Group) TryGo(fn func(ctx context.Context) error, opts ...Option) bool {
	return g.start("TryGo", fn, opts, false)
}

func (g *Group) start(what string, fn func(context.Context) error, opts []Option, wait bool) bool {
	g.lock(what)
	g.mu.Unlock()
	if fn == nil {
		panic("task: Group." + what + ": nil function")
	}
	o := options("Group."+what, core.FuncPC(fn), opts)
	if !g.enter(what, wait, o.Until) {
		return false
	}
	m := &member{group: g, fn: fn}
	o.Member = &m.place
	g.core.Add(&m.place)
	started := false
	defer func() {
		// A Queued hook panicked, or an Ended hook of a task that was turned away: that
		// one has been counted out.
		if !started && m.out.CompareAndSwap(false, true) {
			g.core.Done(&m.place)
			g.leave()
		}
	}()
	end := m.ended
	if then := o.OnEnd; then != nil { // of package network
		end = func() {
			then()
			m.ended()
		}
	}
	o.OnEnd, o.Rest = end, &m.rest
	core.StartTask(g.core.Context(), &m.task, m, o)
	started = true
	return true
}

// enter gets a place for one more task. The end of until, which may be nil, ends the wait
// for one. Then there is no task, and none has failed.
func (g *Group) enter(what string, wait bool, until context.Context) bool {
	g.mu.Lock()
	if g.over {
		g.mu.Unlock()
		panic("task: Group." + what + " after Wait")
	}
	if !g.full() {
		g.running++
		g.mu.Unlock()
		return true
	}
	if !wait {
		g.mu.Unlock()
		return false
	}
	if g.line == nil {
		g.line = list.New()
	}
	e := &entrant{turn: make(chan struct{})}
	place := g.line.PushBack(e)
	limit := g.limit
	g.mu.Unlock()

	ended := false
	defer func() {
		// Also if the Goexit of a call that this wait served ends it.
		if !ended {
			g.giveUp(e, place)
		}
	}()
	if until == nil {
		until = context.Background()
	}
	if err := g.core.WaitForPlace(until, e.turn, limit); err != nil {
		if core.Refused(until, err) {
			g.failed(err)
		}
		return false
	}
	ended = true
	if !e.may {
		panic("task: Group." + what + " after Wait")
	}
	return true
}

// full reports whether one more task has to wait. g.mu is held.
func (g *Group) full() bool {
	return g.limited && (g.running >= g.limit || g.line != nil && g.line.Len() > 0)
}

// giveUp leaves the line. A place that was given at the same moment goes to the
// next.
func (g *Group) giveUp(e *entrant, place *list.Element) {
	g.mu.Lock()
	may := e.may
	if !may {
		g.line.Remove(place)
	}
	g.mu.Unlock()
	if may {
		g.leave()
	}
}

// admit gives free places to the first in line. g.mu is held; closing a channel
// runs no user code.
func (g *Group) admit() {
	for g.line != nil && g.line.Len() > 0 && (!g.limited || g.running < g.limit) {
		e := g.line.Remove(g.line.Front()).(*entrant)
		e.may = true
		g.running++
		close(e.turn)
	}
}

// leave counts one task less.
func (g *Group) leave() {
	g.mu.Lock()
	g.running--
	g.admit()
	var idle *core.Gate
	if g.running == 0 {
		idle, g.idle = g.idle, nil
	}
	g.mu.Unlock()
	if idle != nil {
		idle.Open()
	}
}

// SetLimit bounds how many tasks of the group run at a time. A negative n means
// no limit; with 0 no task starts. It panics while a task of the group runs.
func (g *Group) SetLimit(n int) {
	g.lock("SetLimit")
	if running := g.running; running > 0 {
		g.mu.Unlock()
		panic(fmt.Sprintf("task: Group.SetLimit while %d tasks of the group run", running))
	}
	g.limited, g.limit = n >= 0, n
	g.admit()
	g.mu.Unlock()
}

// member is one task of a group.
type member struct {
	task  core.Task
	rest  core.TaskRest
	place core.Member
	group *Group
	fn    func(context.Context) error
	err   error
	out   atomic.Bool // it is counted no more, or about to be
}

// These make a member the body of its task.
func (m *member) Run(ctx context.Context) { m.err = m.fn(ctx) }
func (m *member) Err() error              { return m.err }
func (m *member) Task() *core.Task        { return &m.task }
func (m *member) Drop()                   { m.fn = nil }

// ended records the outcome in the group before any waiter is woken.
func (m *member) ended() {
	g, e := m.group, m.task.Ending()
	if m.out.CompareAndSwap(false, true) {
		defer g.leave()
		g.core.Done(&m.place)
	}
	switch {
	case e.Panic != nil:
		g.mu.Lock()
		if g.panic == nil {
			g.panic = e.Panic
		}
		g.mu.Unlock()
		g.fail(errPanicked)
	case e.Goexit:
		g.mu.Lock()
		g.goexit = true
		g.mu.Unlock()
		g.fail(errGoexit)
	case m.task.Refusal() != nil:
		g.refused(m.task.Refusal())
	case m.err != nil:
		g.failed(m.err)
	}
}

// failed records the error of a task.
func (g *Group) failed(err error) {
	g.mu.Lock()
	if !g.first || len(g.errs) == 0 {
		g.errs = append(g.errs, err)
	}
	g.mu.Unlock()
	g.fail(err)
}

// refused records that a task on a loop did not begin, because its ctx had
// ended or the loop had stopped. Wait returns that only if there is no other
// error, whichever came first: a failure is what keeps other tasks from beginning,
// and a task that had begun may fail because of the end of the same ctx.
func (g *Group) refused(why error) {
	g.mu.Lock()
	if g.unbegun == nil {
		g.unbegun = why
	}
	g.mu.Unlock()
	g.fail(why)
}

// fail cancels the other tasks.
func (g *Group) fail(cause error) {
	if !g.carryOn {
		g.cancel(cause)
	}
}

// end ends the ctx that NewGroup has returned.
func (g *Group) end() {
	if !g.zero {
		g.cancel(errEnded)
	}
}

// Wait waits until no task of the group runs. If tasks have panicked, it panics
// with the value of the first panic. Otherwise, if a task has called
// [runtime.Goexit], so does Wait. Otherwise it returns the errors of the tasks,
// joined in the order in which the tasks ended, or nil. If a task did not begin
// because it had been cancelled, Wait returns that cancellation if there is no
// other error.
//
// If ctx ends first, Wait cancels the tasks with its cause and waits on: a
// group leaves no task behind. It returns what the tasks returned.
//
// Wait joins the tasks like [Task.Wait], and may be called from sync code. If a
// task of the group waits for the caller, or is the caller, Wait returns an
// error that matches deadlock.ErrDeadlock, and the group goes on as if Wait had
// not been called.
//
// A further Wait returns the same. The group accepts no further tasks.
func (g *Group) Wait(ctx context.Context) error {
	g.lock("Wait")
	g.mu.Unlock()
	if ctx == nil {
		panic("task: Group.Wait: nil ctx")
	}
	if err := g.join(ctx); err != nil {
		return err // the group goes on without this wait
	}
	return g.outcome()
}

// join waits until no task runs, after which no further one starts. It returns only
// the error of a wait that was refused.
func (g *Group) join(ctx context.Context) error {
	done := false
	defer func() {
		// Also if the Goexit of a call that this wait served ends it.
		if !done {
			g.end()
		}
	}()
	for {
		g.mu.Lock()
		if g.running == 0 {
			break
		}
		if g.idle == nil {
			g.idle = &core.Gate{}
		}
		idle := g.idle
		g.mu.Unlock()
		if err := g.core.Wait(ctx, idle); err != nil {
			if core.Refused(ctx, err) {
				done = true
				return err
			}
			g.cancel(err) // not the cause of ctx itself, which may be of a task that is over
			ctx = context.WithoutCancel(ctx)
		}
	}
	g.over = true
	for g.line != nil && g.line.Len() > 0 { // the limit is 0
		close(g.line.Remove(g.line.Front()).(*entrant).turn)
	}
	g.mu.Unlock()
	done = true
	g.end()
	return nil
}

// outcome ends the caller as the tasks have ended.
func (g *Group) outcome() error {
	g.mu.Lock()
	p, goexit, err := g.panic, g.goexit, errors.Join(g.errs...)
	switch {
	case len(g.errs) == 0:
		err = g.unbegun
	case g.first:
		err = g.errs[0]
	}
	g.mu.Unlock()
	switch {
	case p != nil:
		core.Raise(core.Ending{Panic: p})
	case goexit:
		runtime.Goexit()
	}
	return err
}
