package portal

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// A Portal accepts functions from anywhere and runs them as tasks of its loop,
// until it is stopped. Make one with [Open] or [Start]. Its methods may be
// called from any goroutine, thread or task.
type Portal struct {
	// Fixed by newPortal.
	backend  loop.Backend
	home     *core.Home              // of backend
	region   core.Region             // tasks of StartSoon are below it
	ctx      context.Context         // of the region
	cancel   context.CancelCauseFunc // of ctx
	alive    context.Context         // ends when the remaining functions are cancelled, or the backend stops; has no values
	endLife  context.CancelCauseFunc // of alive
	own      bool                    // the loop belongs to the portal: Start made it
	stopping chan struct{}           // closed by the first Stop
	ended    core.Gate               // opened when everything has ended, including the loop if own is set

	mu       sync.Mutex // guards the rest; a leaf lock
	unwatch  func()     // stops watching the ctx that ends the portal; may be nil
	stopped  bool       // nothing more is accepted
	cause    error      // the cause with which the remaining functions were cancelled, or nil
	running  int        // accepted calls and tasks that have not ended
	visits   *visit
	over     bool      // stopped, and nothing runs
	wake     func()    // ends the wait of the loop's main task, if own is set
	outcomes []outcome // failures that may be unreported
}

// A visit is something that runs in a portal with the ctx of its caller.
type visit struct {
	portal  *Portal
	region  core.Region
	out     atomic.Bool       // it has ended, or is about to
	stopped func(cause error) // called when the portal stops; may be nil

	taken         bool // added to the portal's region; under the portal's mu
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

// Open opens a portal on the loop of the calling task. In any other code,
// including sync code that a task has called, it returns [loop.ErrNoLoop].
//
// The functions of StartSoon get a ctx below ctx. When ctx ends, the portal
// stops and cancels the running functions with the cause. (The ctx of a task
// ends when the loop stops, and may end with the task.) If ctx has already
// ended, Open returns the cause. The task must finally call [Portal.Close],
// which waits for the running functions.
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

// watch makes the portal stop with ctx and with the backend. ctx need not end
// when the backend stops, and functions of [Call] have no other way to learn of
// that.
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
		defer second() // also if code of ctx panics
		first()
	}
}

// Start starts a new loop with a portal, on a goroutine of its own, and returns
// when the loop runs. [Portal.Close] ends both.
//
// If the backend of WithBackend was run before, Start returns
// [loop.ErrStopped]. If it is not a backend of package loop, Start panics.
// Functions of StartSoon get a ctx that ends with the portal and has no values.
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
	began := make(chan struct{}) // closed when the loop runs or has failed to start
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
	if parks, _ := core.OnLoop(); parks {
		_ = core.Park(context.Background(), began, "portal start")
	} else {
		// It comes at once and needs nobody. A thread does not serve meanwhile: what it
		// ran could wait for this start, as Provider.Acquire does.
		<-began
	}
	if broken != nil {
		panic(broken)
	}
	if refused != nil {
		p.region.End()
		p.cancel(refused)
		p.endLife(refused)
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

// Loop returns the loop. The end of a portal from Open does not stop the loop.
// Functions that were posted or spawned directly on the loop of a Start, not
// through the portal, do not keep the loop running.
func (p *Portal) Loop() loop.Backend {
	p.check("Loop")
	return p.backend
}

// String returns the name of the loop.
func (p *Portal) String() string {
	p.check("String")
	return fmt.Sprint(p.backend)
}

// admit accepts one more call or task. v is nil unless it has a ctx of its own.
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

// leave records the end of something that was admitted.
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

// finishLocked checks whether the portal is over, and returns what remains to
// be done without the lock.
func (p *Portal) finishLocked() func() {
	if !p.stopped || p.running > 0 || p.over {
		return func() {}
	}
	p.over = true
	wake, unwatch := p.wake, p.unwatch
	return func() {
		// Code of Open's ctx may run. If it panics or calls Goexit, the rest is done all
		// the same.
		defer func() {
			switch {
			case wake != nil:
				wake()
			case !p.own:
				p.ended.Open()
			}
		}()
		defer p.endLife(loop.ErrStopped)
		defer p.cancel(loop.ErrStopped) // releases Open's ctx
		defer p.region.End()
		if unwatch != nil {
			unwatch()
		}
	}
}

// stop stops the portal. If cause is not nil, it also cancels the running
// functions.
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
		if cancels {
			v.region.Cancel(cause) // before stopped, which must see it
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

// Stop makes the portal refuse later calls and tasks with [loop.ErrStopped]. It
// does not wait. What was accepted before runs to its end, even if it has not
// begun. With cancelRemaining, running functions are cancelled with ErrStopped
// instead, and those that have not begun do not begin. Resources of [Wrap] are
// closed.
//
// Stop may be called from anywhere, including posted functions and the portal's
// own tasks, and any number of times. Only the first call stops; a later one
// with cancelRemaining still cancels what remains.
func (p *Portal) Stop(cancelRemaining bool) {
	p.check("Stop")
	if cancelRemaining {
		p.stop(loop.ErrStopped)
	} else {
		p.stop(nil)
	}
}

// Stopping returns a channel that is closed when the portal is stopped. Tasks
// and calls may still run then.
func (p *Portal) Stopping() <-chan struct{} {
	p.check("Stopping")
	return p.stopping
}

// Wait waits until the portal is stopped or ctx ends. It returns nil or the
// cause of ctx. It is for the task that has opened the portal and is stopped by
// others. Inside a function posted to a loop of [loop.NewThread] or
// [loop.FromPost] it returns [loop.ErrOnLoop], or nil if the portal is already
// stopped.
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

// Close stops the portal and waits for the running functions, and for the loop
// if [Start] has made it. If cause is not nil, the functions are cancelled with
// it.
//
// Close returns, joined, the errors of tasks that no Wait has reported. The
// cancellations that the portal has caused, and the cause itself, do not count.
// Close takes them out of an [errors.Join]; another error that wraps one of them
// together with a failure stays whole.
// A further Close waits as well, and returns the errors since the last one.
// Close does not raise a panic or Goexit that nobody waited for: the hooks are
// told of it (AddHooks of package asyncsync).
//
// A thread serves the functions of the portal meanwhile. Where Close would wait
// for itself, it stops the portal and returns [loop.ErrOnLoop]; the end goes
// on, and another Close reports the rest. That is so in the portal's own calls
// and tasks, in any task of a loop that Start has made and any function posted
// to it, in what all these call or have started, and inside a function posted
// to a loop of [loop.NewThread] or [loop.FromPost]. Where a function of the
// portal waits for the caller in some other way, like for a mutex that the
// caller has locked, one of the two waits returns an error that matches
// [asyncsync.dev/deadlock.ErrDeadlock].
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
	if p.own && core.BelowLoop(p.home) || p.region.Inside() {
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

// Call runs fn as a task of the portal's loop and waits for it. It is like
// [loop.Call], which describes how the ending, the ctx and the local variables
// of fn relate to those of the caller. Once the portal is stopped, Call returns
// [loop.ErrStopped].
//
// The ctx of fn also ends when the portal cancels its remaining functions, with
// the cause of that. If fn has not begun then, it does not begin, and Call
// returns the cause.
//
// Inside a function posted to a loop of [loop.NewThread] or [loop.FromPost]
// Call returns [loop.ErrOnLoop], also if the portal has stopped. It panics if
// ctx or fn is nil.
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
	c := &call[R]{fn: fn, visit: &visit{}}
	p.region.Add(&c.place)
	ctx, err := p.receive(ctx, c.visit, &c.job)
	if err != nil {
		return none, err
	}
	defer c.leave()
	c.where = core.Elsewhere{Home: p.home, Job: &c.job, Ends: p.home.Backend != nil, Member: &c.place}
	if err := core.Away(ctx, &c.FullCall, c, &callOptions, &c.where); err != nil {
		return none, err
	}
	return c.outcome()
}

// callOptions is empty; core does not change it.
var callOptions core.Options

// A call is one call of [Call], as in package loop. The visit is separate: a
// ctx that outlives the call keeps the visit, and must not keep the function
// and its result.
type call[R any] struct {
	core.FullCall
	where  core.Elsewhere
	job    core.Job
	visit  *visit
	place  core.Member
	fn     func(context.Context) (R, error)
	result R
	err    error
}

// Run implements [core.Body].
func (c *call[R]) Run(ctx context.Context) { c.result, c.err = c.fn(ctx) }

// Err tells the hooks what the function returned.
func (c *call[R]) Err() error { return c.err }

// Over implements [core.Guest].
func (c *call[R]) Over() {
	c.place.Leave()
	c.visit.end()
}

// leave is called when the caller leaves. Usually the function has ended, or will not
// begin. But a Goexit of what the caller's thread served can make the caller leave a
// function that runs: then its end ends the visit.
func (c *call[R]) leave() {
	if !c.LeaveBehind() {
		c.Over()
	}
}

// outcome ends the caller as the function has ended. The ctx of the function leads to c,
// and may be kept: so c lets go of all that is the user's.
func (c *call[R]) outcome() (R, error) {
	var none R
	result, err, e := c.result, c.err, c.Take()
	c.fn, c.result, c.err = nil, none, nil
	core.Raise(e)
	return result, err
}

// receive admits v and returns the ctx for it, below ctx. Where that can end v is a call,
// which runs as j.
func (p *Portal) receive(ctx context.Context, v *visit, j *core.Job) (context.Context, error) {
	v.portal = p
	ctx = v.region.BeginIn(ctx, p.alive, j)
	if err := p.admit(v); err != nil {
		v.region.End()
		return nil, err
	}
	return ctx, nil
}

// end ends the visit, once. Code of the caller's ctx may run: whatever it does, the
// portal does not count the visit any more.
func (v *visit) end() {
	if v.out.Swap(true) {
		return
	}
	defer v.portal.leave(v)
	v.region.End()
}

// StartSoon starts fn as a task of the portal's loop. It does not wait, not
// even for the loop. After a stop it returns [loop.ErrStopped] and fn does not
// run; tasks accepted before a plain Stop still run. On a loop with one thread,
// tasks from one goroutine begin in the order in which it started them.
//
// The ctx of fn is the portal's, and [task.Task.Cancel] ends it. fn starts with
// a fork of the caller's local variables. Waiters for the task get its outcome;
// an error that nobody waits for is returned by [Portal.Close]. A [task.On]
// among opts has no effect. StartSoon panics if fn is nil.
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
	visit  *visit // nil if it has the portal's own ctx
	pc     uintptr
	ended  func() // called when the task has ended; may be nil

	task  *core.Task
	place core.Member
	out   atomic.Bool // it is counted no more, or about to be
	ran   bool
	cause error // of the end of its ctx, as of when the function returned
}

// launch starts fn as the task m, which must have been admitted.
func launch[R any](ctx context.Context, m *member, fn func(context.Context) (R, error), opts []task.Option) *task.Task[R] {
	m.portal.region.Add(&m.place)
	launched := false
	defer func() {
		if !launched {
			// An Option or a hook panicked, or an Ended hook called Goexit: the task of that
			// one has been counted out.
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

// option makes the task known to m, and makes it run on the portal's loop.
func (m *member) option(o *core.Options) {
	o.PC, o.Home, o.Into, o.OnEnd, o.Member = m.pc, m.portal.home, &m.task, m.over, &m.place
}

// over is called when the task has ended, before any waiter is woken.
func (m *member) over() {
	if err := without(m.task.Err(), m.cause); err != nil && m.ran {
		m.portal.failed(outcome{m.task, err})
	}
	if m.ended != nil {
		m.ended()
	}
	m.leave()
}

// leave counts the task out, once.
func (m *member) leave() {
	if m.out.Swap(true) {
		return
	}
	m.place.Leave()
	if m.visit != nil {
		m.visit.end()
	} else {
		m.portal.leave(nil)
	}
}

// failed keeps o for Close.
func (p *Portal) failed(o outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.outcomes); n == cap(p.outcomes) {
		// Make room: the outcomes that were reported go when the list is full, so that
		// it does not grow with the life of the portal.
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

// without returns err without the parts that only report the cancellation with
// cause. It takes a join of package errors apart. Any other error has something to
// say itself: it stays whole if not all that it wraps is a cancellation.
func without(err, cause error) error {
	if err == nil || cause == nil {
		return err
	}
	parts := partsOf(err, cause)
	if len(parts) == 0 {
		if errors.Is(err, cause) || errors.Is(err, context.Canceled) || errors.Is(err, loop.ErrStopped) {
			return nil
		}
		return err
	}
	var kept []error
	for _, e := range parts {
		if e := without(e, cause); e != nil {
			kept = append(kept, e)
		}
	}
	if len(kept) > 0 && reflect.TypeOf(err) != typeOfJoin {
		return err
	}
	return errors.Join(kept...)
}

var typeOfJoin = reflect.TypeOf(errors.Join(loop.ErrStopped))

// partsOf returns the errors that err, or an error that it wraps, joins. The cause
// has no parts, even if it is a join.
func partsOf(err, cause error) []error {
	for err != nil && !(reflect.TypeOf(cause).Comparable() && err == cause) {
		switch e := err.(type) {
		case interface{ Unwrap() []error }:
			return e.Unwrap()
		case interface{ Unwrap() error }:
			err = e.Unwrap()
		default:
			return nil
		}
	}
	return nil
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
