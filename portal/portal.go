package portal

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// A Portal accepts functions from anywhere and runs them as tasks of its loop, until
// it is stopped. It is made by [Open] or [Start]. Its methods may be called from any
// goroutine, thread or task.
type Portal struct {
	// Fixed at birth.
	backend  loop.Backend
	home     *core.Home              // of backend
	region   core.Region             // what StartSoon starts is below it
	ctx      context.Context         // of the region
	cancel   context.CancelCauseFunc // of ctx
	alive    context.Context         // ends when what remains is cancelled, or the backend stops; no values
	endLife  context.CancelCauseFunc // of alive
	own      bool                    // the loop is the portal's, made by Start
	stopping chan struct{}           // closed by the first Stop
	ended    core.Gate               // opened when all is over: that of the loop too, if it is own

	mu       sync.Mutex // guards the rest; a leaf lock
	unwatch  func()     // lets go of what ends the portal; nil if nothing else does
	stopped  bool       // nothing more is accepted
	cause    error      // what remains was cancelled with this, nil if it was not
	running  int        // calls and tasks that were accepted and have not ended
	visits   *visit
	over     bool      // stopped, and nothing runs
	wake     func()    // ends the wait of the loop's main task, if it is own
	outcomes []outcome // failures that nobody may have been told of
}

// A visit is something that runs in a portal with the ctx of who has sent it.
type visit struct {
	region  core.Region
	cancel  context.CancelCauseFunc // nil: it ends with the portal's alive
	stopped func(cause error)       // told when the portal stops; may be nil

	taken         bool // into the portal's region; under the portal's mu
	before, after *visit
}

// An outcome is the error of a task.
type outcome struct {
	task *core.Task
	err  error
}

func newPortal(ctx context.Context, b loop.Backend) *Portal {
	p := &Portal{backend: b, home: core.HomeOf(b), stopping: make(chan struct{})}
	p.ctx, p.cancel = p.region.Begin(ctx)
	life := context.Background()
	if p.home.Backend != nil {
		life = p.home.Backend.Life()
	}
	p.alive, p.endLife = context.WithCancelCause(life)
	return p
}

// Open opens a portal on the loop of the calling task. In any other code, also in sync
// code that a task has called, it returns [loop.ErrNoLoop].
//
// The functions of StartSoon get a ctx below ctx. When ctx ends, which that of a task
// may do with the task and does when the loop stops, the portal stops, and cancels what
// runs with the cause. If it has ended Open returns the cause. The task must call
// [Portal.Close] in the end, which waits for what runs.
func Open(ctx context.Context) (*Portal, error) {
	checkCtx(ctx, "Open")
	b, ok := loop.Current(ctx)
	if !ok {
		return nil, loop.ErrNoLoop
	}
	if err := core.Ended(ctx); err != nil {
		return nil, err
	}
	p := newPortal(ctx, b)
	unwatch := p.watch(ctx)
	p.mu.Lock()
	p.unwatch = unwatch
	over := p.over
	p.mu.Unlock()
	if over {
		unwatch()
	}
	return p, nil
}

// watch has the portal stop with ctx, and with the backend: ctx need not end with that,
// and what [Call] runs has no other way to learn that the backend stops.
func (p *Portal) watch(ctx context.Context) (unwatch func()) {
	stopWith := func(ctx context.Context) func() bool {
		return context.AfterFunc(ctx, func() { p.stop(core.Cause(ctx)) })
	}
	first := stopWith(ctx)
	if p.home.Backend == nil {
		return func() { first() }
	}
	second := stopWith(p.home.Backend.Life())
	return func() {
		first()
		second()
	}
}

// Start starts a new loop with a portal, on a goroutine of its own, and returns when it
// runs. [Portal.Close] ends both.
//
// It returns [loop.ErrStopped] if the backend of WithBackend was run before, and
// panics if that is not one of package loop. Functions of StartSoon get a ctx that
// ends with the portal and has no values.
func Start(opts ...Option) (*Portal, error) {
	c := configured(opts)
	if c.lingering {
		panic("portal: Start with Linger, which is for NewProvider")
	}
	return start(&c)
}

func start(c *config) (*Portal, error) {
	p := newPortal(context.Background(), c.newBackend())
	p.own = true
	began := make(chan struct{}) // closed when the loop runs, or will not
	var refused error            // both are written before began is closed
	var broken any
	go func() {
		defer p.ended.Open()
		runs := false
		var err error
		defer func() {
			if !runs {
				broken, refused = recover(), err
				close(began)
			}
		}()
		_, err = loop.Run(context.Background(), p.backend, func(context.Context) (struct{}, error) {
			runs = true
			close(began)
			p.host()
			return struct{}{}, nil
		})
	}()
	_ = core.Park(context.Background(), began, "portal start")
	if broken != nil {
		panic(broken)
	}
	if refused != nil {
		p.region.End()
		return nil, refused
	}
	return p, nil
}

// host is the main task of the portal's own loop.
func (p *Portal) host() {
	for over := false; !over; {
		_ = p.backend.Park(context.Background(), func(wake func()) {
			p.mu.Lock()
			p.wake = wake
			over := p.over
			p.mu.Unlock()
			if over {
				wake()
			}
		})
		p.mu.Lock()
		over = p.over
		p.mu.Unlock()
	}
}

// Loop returns the loop. It is not stopped by the end of a portal that Open has
// opened. What is posted to the loop of a Start, or spawned there, past the portal
// does not keep it running.
func (p *Portal) Loop() loop.Backend {
	p.check("Loop")
	return p.backend
}

// String returns the name of the loop.
func (p *Portal) String() string {
	p.check("String")
	return fmt.Sprint(p.backend)
}

// admit accepts one more call or task, v if it has a ctx of its own.
func (p *Portal) admit(v *visit) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped || p.ctx.Err() != nil {
		return loop.ErrStopped
	}
	p.running++
	if v != nil {
		if v.after = p.visits; v.after != nil {
			v.after.before = v
		}
		p.visits = v
	}
	return nil
}

// leave says that what was admitted has ended.
func (p *Portal) leave(v *visit) {
	p.mu.Lock()
	if v != nil {
		if v.before != nil {
			v.before.after = v.after
		} else {
			p.visits = v.after
		}
		if v.after != nil {
			v.after.before = v.before
		}
		v.before, v.after = nil, nil
	}
	p.running--
	finish := p.finishLocked()
	p.mu.Unlock()
	finish()
}

// finishLocked looks whether the portal is over and returns what is to be done
// without the lock.
func (p *Portal) finishLocked() func() {
	if !p.stopped || p.running > 0 || p.over {
		return func() {}
	}
	p.over = true
	wake, unwatch := p.wake, p.unwatch
	return func() {
		if unwatch != nil {
			unwatch()
		}
		p.region.End()
		p.cancel(loop.ErrStopped) // lets go of Open's ctx
		p.endLife(loop.ErrStopped)
		switch {
		case wake != nil:
			wake()
		case !p.own:
			p.ended.Open()
		}
	}
}

// stop stops the portal, and cancels what runs if cause is not nil.
func (p *Portal) stop(cause error) {
	p.mu.Lock()
	first := !p.stopped
	p.stopped = true
	cancels := cause != nil && p.cause == nil
	var visits []*visit
	if first || cancels {
		visits = p.visitsLocked()
	}
	if cancels {
		p.cause = cause
	}
	finish := p.finishLocked()
	p.mu.Unlock()
	if first {
		close(p.stopping)
	}
	if cancels {
		p.cancel(cause)
		p.endLife(cause)
	} else {
		cause = loop.ErrStopped
	}
	for _, v := range visits {
		if cancels && v.cancel != nil {
			v.cancel(cause) // first: who is told of the stop sees it
		}
		if first && v.stopped != nil {
			v.stopped(cause)
		}
	}
	finish()
}

// visitsLocked returns a copy of the list.
func (p *Portal) visitsLocked() (all []*visit) {
	for v := p.visits; v != nil; v = v.after {
		all = append(all, v)
	}
	return all
}

// Stop has the portal accept nothing more, and does not wait: calls and tasks that
// come later get [loop.ErrStopped]. What was accepted before runs to its end, also if
// it has not begun; cancelRemaining cancels it, with ErrStopped, and what has not
// begun does not. Resources of [Wrap] are closed.
//
// It may be called from anywhere, posted functions and the portal's own tasks
// included, and any number of times. Only the first call stops; a later one with
// cancelRemaining still cancels what remains.
func (p *Portal) Stop(cancelRemaining bool) {
	p.check("Stop")
	if cancelRemaining {
		p.stop(loop.ErrStopped)
	} else {
		p.stop(nil)
	}
}

// Stopping returns a channel that is closed when the portal is stopped. Tasks and
// calls may run still.
func (p *Portal) Stopping() <-chan struct{} {
	p.check("Stopping")
	return p.stopping
}

// Wait waits until the portal is stopped, or ctx ends, whose cause it returns. It is
// for the task that has opened the portal: others stop it. Inside a function posted to
// a loop with one thread it returns [loop.ErrOnLoop].
//
// It is anyio's sleep_until_stopped.
func (p *Portal) Wait(ctx context.Context) error {
	p.check("Wait")
	checkCtx(ctx, "Wait")
	select {
	case <-p.stopping:
		return nil
	default:
	}
	if _, blocks := core.OnLoop(); blocks {
		return loop.ErrOnLoop
	}
	err := core.Ended(ctx)
	if err == nil {
		err = core.Park(ctx, p.stopping, "portal")
	}
	select {
	case <-p.stopping:
		return nil
	default:
		return err
	}
}

// Close stops the portal and waits for what runs, and for the loop if [Start] has made
// it. With a cause what remains is cancelled with that; with nil it is waited for.
//
// It returns, joined, the errors of the tasks whose outcome nobody was told by a Wait;
// the cancellations that the portal has caused, and the cause itself, are none. A
// further Close waits as well, and returns what has come since. A panic or Goexit
// that nobody waited for is not raised: the hooks have heard of it (AddHooks of package
// asyncsync).
//
// On a thread it serves meanwhile whatever the portal runs. Where it would wait for
// itself it stops the portal and returns [loop.ErrOnLoop]; what is open goes on ending,
// and another Close tells the rest. That is so in the portal's own calls and tasks and
// what they call or have started, in any task of a loop that Start has made, and inside
// a function posted to a loop with one thread.
func (p *Portal) Close(cause error) error {
	p.check("Close")
	_, blocks := core.OnLoop()
	inside := blocks || p.inside()
	p.stop(cause)
	if inside {
		return loop.ErrOnLoop
	}
	p.mu.Lock()
	var strays []*visit
	for v := p.visits; v != nil; v = v.after {
		if !v.taken {
			v.taken = true
			strays = append(strays, v)
		}
	}
	p.mu.Unlock()
	for _, v := range strays {
		p.region.TakeIn(&v.region)
	}
	if err := p.region.Wait(context.Background(), &p.ended); err != nil {
		return err
	}
	p.mu.Lock()
	outcomes := p.outcomes
	p.outcomes = nil
	p.mu.Unlock()
	var errs []error
	for _, o := range outcomes {
		if !o.task.Heard() {
			errs = append(errs, o.err)
		}
	}
	return errors.Join(errs...)
}

// inside reports whether the end of the portal waits for the caller.
func (p *Portal) inside() bool {
	if p.own {
		if b, ok := loop.Current(context.Background()); ok && b == p.backend {
			return true
		}
	}
	if p.region.Inside() {
		return true
	}
	p.mu.Lock()
	visits := p.visitsLocked()
	p.mu.Unlock()
	for _, v := range visits {
		if v.region.Inside() {
			return true
		}
	}
	return false
}

// Call runs fn as a task of the portal's loop and waits for it. It is [loop.Call],
// which says how fn's ending, its ctx and its local variables relate to the caller's,
// for as long as the portal accepts: after that it returns [loop.ErrStopped].
//
// fn's ctx also ends when the portal cancels what remains, with the cause of that. If
// fn has not begun then, it does not, and Call returns the cause.
//
// Inside a function posted to a loop with one thread it returns [loop.ErrOnLoop],
// also if the portal has stopped. It panics if fn is nil.
func Call[R any](ctx context.Context, p *Portal, fn func(context.Context) (R, error)) (R, error) {
	p.check("Call")
	checkCtx(ctx, "Call")
	if fn == nil {
		panic("portal: Call with a nil function")
	}
	var none R
	if _, blocks := core.OnLoop(); blocks {
		return none, loop.ErrOnLoop
	}
	if err := core.Ended(ctx); err != nil {
		return none, err
	}
	v := &visit{}
	ctx, err := p.receive(ctx, v)
	if err != nil {
		return none, err
	}
	defer p.see(v)
	c := &call[R]{fn: fn}
	where := core.Elsewhere{Home: p.home, Job: &c.job, Ends: p.home.Backend != nil}
	if err := core.Away(ctx, &c.Call, c, &callOptions, where); err != nil {
		return none, err
	}
	c.Raise()
	return c.result, c.err
}

// callOptions are none; core does not change them.
var callOptions core.Options

// A call is one of [Call], as package loop has it. The visit is apart: a ctx that outlives
// the call keeps that, and must not keep the function and its result.
type call[R any] struct {
	core.Call
	job    core.Job
	fn     func(context.Context) (R, error)
	result R
	err    error
}

// Run implements [core.Body].
func (c *call[R]) Run(ctx context.Context) { c.result, c.err = c.fn(ctx) }

// Err tells the hooks what the function returned.
func (c *call[R]) Err() error { return c.err }

// receive admits v and returns the ctx for it, below ctx.
func (p *Portal) receive(ctx context.Context, v *visit) (context.Context, error) {
	ctx, v.cancel = v.region.BeginIn(ctx, p.alive)
	if err := p.admit(v); err != nil {
		v.over()
		return nil, err
	}
	return ctx, nil
}

// see sees v off.
func (p *Portal) see(v *visit) {
	v.over()
	p.leave(v)
}

func (v *visit) over() {
	v.region.End()
	if v.cancel != nil {
		v.cancel(nil)
	}
}

// StartSoon starts fn as a task of the portal's loop and does not wait, not even for
// the loop. After a stop it returns [loop.ErrStopped], and fn does not run; what was
// accepted before a plain Stop runs. What one goroutine sends to a loop with one thread
// begins there in the order in which it was sent.
//
// fn's ctx is the portal's, and [task.Task.Cancel] ends it. fn starts with a fork of
// the caller's local variables. How it ends, who waits for the task is told; of an
// error that nobody waits for [Portal.Close] tells. An [task.On] among opts has no
// effect. It panics if fn is nil.
//
// It is anyio's start_task_soon.
func StartSoon[R any](p *Portal, fn func(context.Context) (R, error), opts ...task.Option) (*task.Task[R], error) {
	p.check("StartSoon")
	if fn == nil {
		panic("portal: StartSoon with a nil function")
	}
	if err := p.admit(nil); err != nil {
		return nil, err
	}
	return launch(p.ctx, &member{portal: p, pc: core.FuncPC(fn)}, fn, opts), nil
}

// A member is a task of a portal.
type member struct {
	portal *Portal
	visit  *visit // nil: it has the portal's own ctx
	pc     uintptr
	ended  func() // told when the task has; may be nil

	task  *core.Task
	ran   bool
	cause error // of the end of its ctx, seen when the function had returned
}

// launch starts fn as the task m, which was admitted.
func launch[R any](ctx context.Context, m *member, fn func(context.Context) (R, error), opts []task.Option) *task.Task[R] {
	launched := false
	defer func() {
		if !launched { // an Option or a hook has panicked
			m.leave()
		}
	}()
	opts = append(opts[:len(opts):len(opts)], m.option)
	t := task.Go(ctx, func(ctx context.Context) (R, error) {
		m.ran = true
		r, err := fn(ctx)
		if err != nil {
			m.cause = core.Ended(ctx)
		}
		return r, err
	}, opts...)
	launched = true
	return t
}

// option makes m known to its task, and has it run on the portal's loop.
func (m *member) option(o *core.Options) {
	o.PC, o.Home, o.Into, o.OnEnd = m.pc, m.portal.home, &m.task, m.over
}

// over is called when the task has ended, before anybody is woken.
func (m *member) over() {
	if err := without(m.task.Err(), m.cause); err != nil && m.ran {
		m.portal.failed(outcome{m.task, err})
	}
	if m.ended != nil {
		m.ended()
	}
	m.leave()
}

func (m *member) leave() {
	if m.visit != nil {
		m.portal.see(m.visit)
	} else {
		m.portal.leave(nil)
	}
}

// failed keeps o for Close.
func (p *Portal) failed(o outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.outcomes); n == cap(p.outcomes) {
		// Make room: a portal that lives long must not keep what others were told.
		kept := p.outcomes[:0]
		for _, o := range p.outcomes {
			if !o.task.Heard() {
				kept = append(kept, o)
			}
		}
		clear(p.outcomes[len(kept):])
		p.outcomes = kept
	}
	p.outcomes = append(p.outcomes, o)
}

// without returns err without what only tells of a cancellation with cause.
func without(err, cause error) error {
	if err == nil || cause == nil {
		return err
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var kept []error
		for _, e := range joined.Unwrap() {
			if e := without(e, cause); e != nil {
				kept = append(kept, e)
			}
		}
		return errors.Join(kept...)
	}
	if errors.Is(err, cause) || errors.Is(err, context.Canceled) || errors.Is(err, loop.ErrStopped) {
		return nil
	}
	return err
}

func (p *Portal) check(what string) {
	if p == nil || p.backend == nil {
		panic("portal: " + what + " of a nil Portal, or of one that neither Open nor Start has made")
	}
}

func checkCtx(ctx context.Context, what string) {
	if ctx == nil {
		panic("portal: " + what + " with a nil ctx")
	}
}
