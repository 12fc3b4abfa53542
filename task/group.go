package task

import (
	"context"
	"errors"
	"runtime"
	"sync"

	"asyncsync.dev/internal/core"
)

// A Group runs tasks that belong together: the first to fail cancels the
// others, and Wait tells how all of them ended. It is made by [NewGroup]; its
// methods may be called from any goroutine, its own tasks' included.
//
// It is errgroup's Group and anyio's TaskGroup in one: errors are joined, not
// dropped but for the first, and panics and Goexits reach the waiter.
type Group struct {
	core   core.Group
	cancel context.CancelCauseFunc

	mu      sync.Mutex // guards the rest; a leaf lock
	running int
	idle    chan struct{} // closed while running is 0
	errs    []error
	panic   *core.Panic // the first
	goexit  bool
}

// errEnded is the cause of a group's ctx after Wait.
var errEnded = errors.New("task: the group has ended")

// NewGroup returns a group and the ctx of its tasks, which ends when one of
// them returns an error, panics or calls Goexit, and when Wait returns.
func NewGroup(ctx context.Context) (context.Context, *Group) {
	if ctx == nil {
		panic("task: NewGroup: nil ctx")
	}
	g := &Group{idle: make(chan struct{})}
	close(g.idle)
	ctx, g.cancel = g.core.Init(ctx)
	return ctx, g
}

// Go starts fn as a task of the group. It may be called from the group's own
// tasks, and until Wait has returned.
func (g *Group) Go(fn func(ctx context.Context) error, opts ...Option) {
	g.check("Go")
	if fn == nil {
		panic("task: Group.Go: nil function")
	}
	o := options("Group.Go", core.FuncPC(fn), opts)
	g.mu.Lock()
	if g.running == 0 {
		g.idle = make(chan struct{})
	}
	g.running++
	g.mu.Unlock()
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
}

// check panics if g was not made by NewGroup.
func (g *Group) check(what string) {
	if g == nil || g.cancel == nil {
		panic("task: Group." + what + ": nil Group, or one not made by NewGroup")
	}
}

// leave counts one task less.
func (g *Group) leave() {
	g.mu.Lock()
	g.running--
	var idle chan struct{}
	if g.running == 0 {
		idle = g.idle
	}
	g.mu.Unlock()
	if idle != nil {
		close(idle)
	}
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
	g.mu.Lock()
	var cause error
	switch {
	case e.Panic != nil:
		if g.panic == nil {
			g.panic = e.Panic
		}
		cause = errors.New("task: a task of the group panicked")
	case e.Goexit:
		g.goexit = true
		cause = errors.New("task: a task of the group called runtime.Goexit")
	case m.err != nil:
		g.errs = append(g.errs, m.err)
		cause = m.err
	}
	g.mu.Unlock()
	if cause != nil {
		g.cancel(cause)
	}
	g.leave()
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
func (g *Group) Wait(ctx context.Context) error {
	g.check("Wait")
	if ctx == nil {
		panic("task: Group.Wait: nil ctx")
	}
	done := false
	defer func() {
		// Also when a call served meanwhile takes this wait with it in a Goexit.
		if !done {
			g.cancel(errEnded)
		}
	}()
	for {
		g.mu.Lock()
		idle := g.idle
		g.mu.Unlock()
		if err := g.core.Wait(ctx, idle); err != nil {
			if errors.Is(err, core.ErrDeadlock) {
				done = true // the group goes on without this wait
				return err
			}
			g.cancel(context.Cause(ctx))
			ctx = context.WithoutCancel(ctx)
			continue
		}
		g.mu.Lock()
		if g.running > 0 {
			g.mu.Unlock()
			continue
		}
		break
	}
	p, goexit, err := g.panic, g.goexit, errors.Join(g.errs...)
	g.mu.Unlock()
	done = true
	g.cancel(errEnded)
	switch {
	case p != nil:
		core.Ending{Panic: p}.Raise()
	case goexit:
		runtime.Goexit()
	}
	return err
}
