package loop

import (
	"context"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/goroutine"
	"asyncsync.dev/internal/sched"
)

// A job is a task of a backend of this package.
type job struct {
	sched.Task // on a thread loop; otherwise only its Values are used

	backend builtin
	ctx     taskCtx
	cancel  context.CancelCauseFunc // of ctx; may be nil

	// run, if not nil, is called instead of Fn.
	run func()

	// ended is told, on the task's goroutine, how it has ended; refused, that it
	// has not begun. If ended is nil nobody waits for the task.
	ended   func(core.Ending)
	refused func(error)

	refusal       error // why fn was not called
	waited        bool  // an ordinary goroutine is going to wait for it
	own           bool  // it has a goroutine of its own
	before, after *job  // in the list of a goroutines backend
}

// builtin is what the backends of this package have beyond a Backend.
type builtin interface {
	Backend
	life() context.Context
	start(j *job) error
	run(j *job) (core.Ending, error)
}

func newJob(b builtin, ctx context.Context, fn func(context.Context)) *job {
	j := &job{}
	j.init(b, ctx)
	j.Fn = fn
	if r := goroutine.Current(); r != nil {
		j.Values = r.Values
	}
	return j
}

func (j *job) init(b builtin, ctx context.Context) {
	j.backend = b
	j.Body, j.Ctx = j, &j.ctx
	j.cancel = j.ctx.init(ctx, b, b.life())
}

// spawn is Spawn of the backends of this package.
func spawn(b builtin, ctx context.Context, fn func(context.Context)) error {
	checkCtx(ctx, "Spawn")
	if fn == nil {
		panic("loop: Spawn with a nil function")
	}
	if err := core.Ended(ctx); err != nil {
		return err
	}
	j := newJob(b, outlive(ctx), fn)
	err := b.start(j)
	if err != nil {
		j.release()
	}
	return err
}

// Begin implements [sched.Body].
func (j *job) Begin() bool {
	j.refusal = core.Ended(&j.ctx)
	if j.run != nil && j.refusal == nil {
		j.run()
		return false
	}
	return j.refusal == nil
}

// Over implements [sched.Body].
func (j *job) Over(v any, goexit bool) {
	var e core.Ending
	if v != nil || goexit {
		e = core.Recover(v)
	}
	if j.own {
		j.endCritical(&e)
	}
	j.release()
	switch {
	case j.refusal != nil:
		j.refuse(j.refusal)
	case j.ended != nil:
		j.ended(e)
	case !e.Returned():
		unheard(j.ctx.above, e)
	}
}

// endCritical ends the thread-critical values of a task with its own goroutine. If
// that fails it is how the task has ended.
func (j *job) endCritical(e *core.Ending) {
	r := goroutine.Current()
	if r == nil {
		return
	}
	r.EndCritical(func(v any, goexit bool, stack []byte) {
		if e.Returned() {
			*e = core.Ending{Goexit: goexit}
			if !goexit {
				e.Panic = &core.Panic{Value: v, Stack: stack}
			}
		}
	})
}

// runOwn runs j on a goroutine of its own.
func (j *job) runOwn() {
	returned := false
	defer func() {
		if !returned {
			v := recover()
			j.Over(v, v == nil)
		}
	}()
	if j.Begin() {
		j.Fn(&j.ctx)
	}
	returned = true
	j.Over(nil, false)
}

// Refused implements [sched.Body].
func (j *job) Refused() {
	j.Stop()
	j.refuse(ErrStopped)
}

// Stop implements [sched.Body].
func (j *job) Stop() {
	if j.cancel != nil {
		j.cancel(ErrStopped)
	}
}

func (j *job) refuse(err error) {
	if j.refused != nil {
		j.refused(err)
	}
}

// release lets go of what the ctx hangs from.
func (j *job) release() {
	if j.cancel != nil {
		j.cancel(nil)
	}
}

// runPosted runs a posted function. Only a Goexit comes out of it. The record of the
// goroutine has a Task.
func runPosted(fn func()) {
	returned := false
	defer func() {
		if returned {
			return
		}
		v := recover()
		if r := goroutine.Current(); v == nil && r != nil && r.Told {
			r.Told = false // it was a call that somebody waits for
			return
		}
		unheard(context.Background(), core.Recover(v))
	}()
	fn()
	returned = true
}

// runAlone runs a posted function that leaves no local values behind, on a goroutine
// whose record says task.
func runAlone(task any, fn func()) {
	r := goroutine.Ensure()
	r.Task = task
	defer func() {
		defer r.Release()
		r.Task = nil
		r.EndCritical(exitFailed)
	}()
	runPosted(fn)
}

// exitFailed is told of exit functions of thread-critical variables that fail where
// nobody waits.
func exitFailed(v any, goexit bool, stack []byte) {
	e := core.Ending{Goexit: goexit}
	if !goexit {
		e.Panic = &core.Panic{Value: v, Stack: stack}
	}
	unheard(context.Background(), e)
}

// unheard tells the hooks how something has ended that nobody waits for. A hook
// that panics ends the program, not the loop.
func unheard(ctx context.Context, e core.Ending) {
	defer func() {
		if v := recover(); v != nil {
			go func() { panic(v) }()
		}
	}()
	e.Unheard(ctx, "")
}
