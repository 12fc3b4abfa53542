package task

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"asyncsync.dev/internal/core"
)

// A Group runs tasks that belong together: the first to fail cancels the
// others, and Wait tells how all of them ended. Its methods may be called from
// any goroutine or thread, its own tasks' included.
//
// It is made by [NewGroup]. The zero Group is ready as well: its tasks hang from
// no ctx, so that they call the default thread, and a failure cancels nothing.
// Only a Wait whose ctx ends cancels them.
//
// It is errgroup's Group, conc's pool and anyio's TaskGroup in one: errors are
// joined, not dropped but for the first, and panics and Goexits reach the waiter.
type Group struct {
	core   core.Group
	cancel context.CancelCauseFunc // nil before it is made; under mu, for the zero Group

	first   bool // Wait tells the first error alone; this and carryOn are fixed by NewGroup
	carryOn bool // a failure cancels nothing
	zero    bool // it was not made by NewGroup; under mu

	mu      sync.Mutex // guards the rest; a leaf lock
	running int        // tasks, and places that were given to those who wait in line
	idle    *core.Gate // opened when running is 0; nil while nobody waits for that
	limited bool
	limit   int
	line    *list.List // of *entrant: who waits in Go for a place; nil before the first
	over    bool       // Wait has returned
	errs    []error
	panic   *core.Panic // the first
	goexit  bool
}

// An entrant is a Go that waits for a place.
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

// FirstError has Wait return the error of the task that failed first, as
// errgroup does, instead of all of them joined.
func FirstError() GroupOption { return func(g *Group) { g.first = true } }

// NoCancel has the tasks of the group go on when one of them fails. The end of
// Wait still ends their ctx, and a Wait whose own ctx ends cancels them.
func NoCancel() GroupOption { return func(g *Group) { g.carryOn = true } }

// NewGroup returns a group and the ctx of its tasks, which ends when one of
// them returns an error, panics or calls Goexit, and when Wait returns. Its
// cause is the error; in all other cases it matches [context.Canceled].
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

// lock locks mu, and makes a group of the zero Group.
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

// Go starts fn as a task of the group. It may be called from the group's own
// tasks, and until Wait has returned; after that it panics. The task runs on the
// backend that the ctx of NewGroup is on, as [Go] says. There it does not begin if
// the group has been cancelled before, of which Wait tells if it has no other error
// to tell.
//
// Where SetLimit has set a limit that is reached, Go waits until a task has
// ended, first come first served; on a thread it serves meanwhile, the calls of
// the group's tasks included. No ctx ends that wait. If it could never end,
// because all tasks of the group wait for the caller, or are the caller, fn does
// not run, and counts as a task that has returned an error which matches
// deadlock.ErrDeadlock.
func (g *Group) Go(fn func(ctx context.Context) error, opts ...Option) {
	g.start("Go", fn, opts, true)
}

// TryGo is Go for those who do not wait: where the limit is reached, or others
// wait for a place, it starts nothing and returns false.
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
	if !g.enter(what, wait) {
		return false
	}
	m := &member{group: g, fn: fn}
	g.core.Add(&m.task)
	started := false
	defer func() {
		if !started { // a Queued hook has panicked
			g.core.Done(&m.task)
			g.leave()
		}
	}()
	m.task.OnEnd(m.ended)
	core.StartTask(g.core.Context(), &m.task, m, o)
	started = true
	return true
}

// enter gets a place for one more task.
func (g *Group) enter(what string, wait bool) bool {
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
		// Also when a call served meanwhile takes this wait with it in a Goexit.
		if !ended {
			g.giveUp(e, place)
		}
	}()
	if err := g.core.WaitForPlace(e.turn, limit); err != nil {
		g.failed(err)
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

// giveUp leaves the line. A place that came at the same moment goes to the next.
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
// runs nobody's code.
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

// SetLimit bounds how many tasks of the group run at a time; a negative n is no
// limit, and with 0 nothing starts. It panics while a task of the group runs.
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
	group *Group
	fn    func(context.Context) error
	err   error
}

// Run and Err make a member the body of its task.
func (m *member) Run(ctx context.Context) { m.err = m.fn(ctx) }
func (m *member) Err() error              { return m.err }

// ended takes the outcome into the group before anybody is woken.
func (m *member) ended() {
	g, e := m.group, m.task.Ending()
	g.core.Done(&m.task)
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
	g.leave()
}

// failed takes the error of a task into the group.
func (g *Group) failed(err error) {
	g.mu.Lock()
	if !g.first || len(g.errs) == 0 {
		g.errs = append(g.errs, err)
	}
	g.mu.Unlock()
	g.fail(err)
}

// refused takes into the group that a task did not begin, on a loop, because its ctx
// had ended or the loop stopped. That is told if nothing else is: where one has
// failed, the others do not begin for that reason.
func (g *Group) refused(why error) {
	g.mu.Lock()
	if len(g.errs) == 0 && g.panic == nil && !g.goexit {
		g.errs = append(g.errs, why)
	}
	g.mu.Unlock()
	g.fail(why)
}

// fail cancels the others.
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

// Wait waits until no task of the group runs. If one has panicked it panics
// with the value of the first; else if one has called [runtime.Goexit] so does
// Wait; else it returns the errors of all, joined in the order in which the
// tasks ended, or nil.
//
// When ctx ends first the group's tasks are cancelled with its cause, and Wait
// goes on waiting: a group leaves nothing behind. What the tasks made of the
// cancellation is what Wait returns.
//
// Like [Task.Wait] it joins the tasks and may be called from sync code. Where a
// task of the group waits for the caller, or is the caller, it returns an error
// matching deadlock.ErrDeadlock, and the group goes on without this wait.
//
// A further Wait tells the same. The group takes no further tasks.
func (g *Group) Wait(ctx context.Context) error {
	g.lock("Wait")
	g.mu.Unlock()
	if ctx == nil {
		panic("task: Group.Wait: nil ctx")
	}
	done := false
	defer func() {
		// Also when a call served meanwhile takes this wait with it in a Goexit.
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
			if errors.Is(err, core.ErrDeadlock) {
				done = true // the group goes on without this wait
				return err
			}
			g.cancel(context.Cause(ctx))
			ctx = context.WithoutCancel(ctx)
		}
	}
	g.over = true
	for g.line != nil && g.line.Len() > 0 { // the limit is 0
		close(g.line.Remove(g.line.Front()).(*entrant).turn)
	}
	p, goexit, err := g.panic, g.goexit, errors.Join(g.errs...)
	if g.first && len(g.errs) > 0 {
		err = g.errs[0]
	}
	g.mu.Unlock()
	done = true
	g.end()
	switch {
	case p != nil:
		core.Ending{Panic: p}.Raise()
	case goexit:
		runtime.Goexit()
	}
	return err
}
