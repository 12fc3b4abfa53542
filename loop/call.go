package loop

import (
	"context"
	"sync/atomic"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/goroutine"
	"asyncsync.dev/internal/sched"
)

// Call runs fn on a loop and waits for it. On a [Backend] fn is a task, on another
// Loop a posted function, which must not wait for anything that takes long. If l is
// nil the loop is [Host]'s; where there is none Call returns [ErrNoLoop].
//
// How fn ends reaches the caller: what it returns, a panic with the same value, a
// [runtime.Goexit]. Both see the same goroutine-local variables, both ways.
//
// The ctx that fn is given ends with ctx, and on a Backend with [ErrStopped] when
// that stops. If either happens before fn has begun it does not begin, and Call
// returns the cause. Once fn runs Call waits for it, and fn's own result counts.
//
// Call may be called from any goroutine. A task of a thread loop parks meanwhile,
// also if the loop is its own. Sync code on a thread serves, as it does in
// asyncsync.FromThread. Inside a posted function of a loop that has one thread Call
// returns [ErrOnLoop], whatever loop it is given.
//
// It panics if fn is nil.
func Call[R any](ctx context.Context, l Loop, fn func(context.Context) (R, error)) (R, error) {
	checkCtx(ctx, "Call")
	if fn == nil {
		panic("loop: Call with a nil function")
	}
	var none R
	t, blocks := here()
	switch {
	case blocks:
		return none, ErrOnLoop
	case l == nil:
		host, ok := Host(ctx)
		if !ok {
			return none, ErrNoLoop
		}
		l = host
	}
	if err := core.Ended(ctx); err != nil {
		return none, err
	}
	if t != nil {
		c := &parkedCall[R]{fn: fn}
		if err := c.callOn(ctx, t, l, c); err != nil {
			return none, err
		}
		c.ending.Raise()
		return c.result, c.err
	}
	// core serves where the caller is a thread, knows who waits for whom, and
	// tells the hooks.
	c := &awayCall[R]{fn: fn}
	c.place.init(ctx, l)
	c.place.job.waited = core.Here() == nil
	err := core.Away(&c.place.job.ctx, &c.Call, c, &callOptions, core.Elsewhere{
		Post:    c.place.post,
		Stopped: l.Done(),
		Err:     ErrStopped,
	})
	c.place.job.release()
	if err != nil {
		return none, err
	}
	c.Raise()
	return c.result, c.err
}

// callOptions are none; core does not change them.
var callOptions core.Options

// An awayCall is one that core waits for: its caller is no task of a thread loop.
type awayCall[R any] struct {
	core.Call
	place  place
	fn     func(context.Context) (R, error)
	result R
	err    error
}

// Run implements [core.Body].
func (c *awayCall[R]) Run(ctx context.Context) { c.result, c.err = c.fn(ctx) }

// Err tells the hooks what the function returned.
func (c *awayCall[R]) Err() error { return c.err }

// A parkedCall is one of a task that parks.
type parkedCall[R any] struct {
	waiting
	fn     func(context.Context) (R, error)
	result R
	err    error
}

// Run implements [core.Body].
func (c *parkedCall[R]) Run(ctx context.Context) { c.result, c.err = c.fn(ctx) }

// A place is where a function is to run, and with which ctx.
type place struct {
	loop Loop
	job  job // that the function runs as: on backends of this package whole, else ctx and cancel alone
}

func (p *place) init(ctx context.Context, l Loop) {
	p.loop = l
	switch b := l.(type) {
	case builtin:
		p.job.init(b, ctx)
	case Backend:
		p.job.cancel = p.job.ctx.init(ctx, l, nil)
	default:
		p.job.ctx.Context, p.job.ctx.above, p.job.ctx.loop = ctx, ctx, l
	}
}

func init() {
	core.HostOf = func(ctx context.Context) any {
		l, ok := Host(ctx)
		if !ok {
			return nil
		}
		return l
	}
	core.OnLoopOf = func(ctx context.Context, l any) (context.Context, core.Elsewhere, func()) {
		p := &place{}
		p.init(ctx, l.(Loop))
		return &p.job.ctx, core.Elsewhere{Post: p.post, Stopped: p.loop.Done(), Err: ErrStopped}, p.job.release
	}
}

// post has run called there.
func (p *place) post(run func()) error {
	switch b := p.loop.(type) {
	case builtin:
		p.job.run, p.job.Short = run, true
		p.job.ended = heard
		return b.start(&p.job)
	case Backend:
		return b.Spawn(&p.job.ctx, func(theirs context.Context) {
			unwatch := context.AfterFunc(theirs, func() { p.job.cancel(context.Cause(theirs)) })
			defer unwatch()
			run()
		})
	default:
		return b.Post(run)
	}
}

// heard is the end of a task whose function's own end has been told to the one who
// waits for it: a panic is that of an exit function.
func heard(e core.Ending) {
	if e.Panic != nil {
		unheard(context.Background(), e)
	}
}

// A waiting is a call of a task that parks until it has ended.
type waiting struct {
	place  place
	body   core.Body
	task   *sched.Task
	number atomic.Uint64 // of the task's wait
	claim  atomic.Uint32 // who is first to say whether the function begins
	over   atomic.Bool   // all below is set

	refusal error
	ending  core.Ending
	values  goroutine.Values
}

const (
	unclaimed = iota
	claimedByRunner
	claimedByCaller
)

// callOn runs body on l and has the task t wait.
func (w *waiting) callOn(ctx context.Context, t *sched.Task, l Loop, body core.Body) error {
	w.task, w.body = t, body
	w.place.init(ctx, l)
	defer w.place.job.release()
	if r := goroutine.Current(); r != nil {
		w.values = r.Values
	}
	w.number.Store(t.Prepare())
	w.place.job.refused = w.refuse
	if err := w.place.post(w.run); err != nil {
		return err
	}
	if _, ok := l.(builtin); !ok { // which tells refused
		gone := make(chan struct{})
		defer close(gone)
		go func() {
			select {
			case <-l.Done():
				w.refuse(ErrStopped)
			case <-gone:
			}
		}()
	}
	for wait := context.Context(&w.place.job.ctx); ; {
		if t.Suspend(wait) && w.claim.CompareAndSwap(unclaimed, claimedByCaller) {
			return context.Cause(&w.place.job.ctx)
		}
		if w.over.Load() {
			break
		}
		// The function runs. Its ctx has ended, but it is what counts.
		wait = context.Background()
		w.number.Store(t.Prepare())
		if w.over.Load() {
			t.Wake(w.number.Load())
		}
	}
	if w.refusal != nil {
		return w.refusal
	}
	setValues(w.values)
	return nil
}

// run runs the function where it was posted.
func (w *waiting) run() {
	if !w.claim.CompareAndSwap(unclaimed, claimedByRunner) {
		return
	}
	if err := core.Ended(&w.place.job.ctx); err != nil {
		w.refusal = err
		w.end()
		return
	}
	r := goroutine.Ensure()
	before := r.Values
	r.Values = w.values
	r.Hold()
	returned := false
	defer func() {
		if !returned {
			w.ending = core.Recover(recover())
		}
		w.values = r.Values
		r.Values = before
		r.Told = w.ending.Goexit
		r.Unhold()
		r.ReleaseIfEmpty()
		w.end()
	}()
	w.body.Run(&w.place.job.ctx)
	returned = true
}

// refuse says that the function will not begin.
func (w *waiting) refuse(err error) {
	if w.claim.CompareAndSwap(unclaimed, claimedByRunner) {
		w.refusal = err
		w.end()
	}
}

func (w *waiting) end() {
	w.over.Store(true)
	w.task.Wake(w.number.Load())
}
