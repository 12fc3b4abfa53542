package loop

import (
	"context"
	"runtime/pprof"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/goroutine"
	"asyncsync.dev/internal/sched"
)

// thread is the Backend with coroutines on one thread.
type thread struct {
	name string
	loop *sched.Loop
	home core.Home
}

// NewThread returns a backend whose tasks and posted functions all run on one
// OS thread: that of the goroutine that calls [Run] for it. Nothing starts
// before Run.
//
// One task or function runs at a time. The next one runs when that one ends or,
// if it is a task, waits through this module. Tasks and posted functions run in
// the order in which they became ready.
//
// A task is a coroutine like those of [iter.Pull], and costs about as much;
// coroutines are reused. It has its own goroutine id, stack and goroutine-local
// variables, but its thread-critical variables are those of the loop's thread.
// These end, and their exit functions run, before Done is closed.
//
// A task must not hold a [runtime.LockOSThread] of its own while it waits: the
// Go runtime ends the process. A wait below a C callback panics.
func NewThread(opts ...Option) Backend {
	b := &thread{name: named("thread", opts)}
	b.loop = sched.New(b, runPosted, exitFailed, ErrStopped)
	b.home = core.Home{Loop: b, Backend: threadTasks{b.loop}, Stopped: ErrStopped, Serial: true}
	return b
}

// String returns the name of the loop.
func (b *thread) String() string { return b.name }

// Post implements [Poster].
func (b *thread) Post(fn func()) error {
	checkPost(fn)
	if !b.loop.Post(fn) {
		return ErrStopped
	}
	return nil
}

// Done implements [Loop].
func (b *thread) Done() <-chan struct{} { return b.loop.Done() }

// Spawn implements [Backend].
func (b *thread) Spawn(ctx context.Context, fn func(context.Context)) error {
	return spawn(b, ctx, fn)
}

// Park implements [Backend].
func (b *thread) Park(ctx context.Context, arm func(wake func())) error {
	return park(ctx, arm)
}

func (b *thread) at() *core.Home { return &b.home }

// threadTasks is the core.Backend of a thread loop.
type threadTasks struct{ loop *sched.Loop }

// Life implements [core.Backend].
func (t threadTasks) Life() context.Context { return t.loop.Life() }

// Start implements [core.Backend].
func (t threadTasks) Start(j *core.Job) error {
	accepted := false
	if j.Waited {
		accepted = t.loop.StartAndWait(&j.Task)
	} else {
		accepted = t.loop.Start(&j.Task)
	}
	if !accepted {
		return ErrStopped
	}
	return nil
}

// run runs the loop with s as its main task.
func (b *thread) run(ctx context.Context, s *core.Solo) (end core.Ending, refusal error) {
	var values goroutine.Values
	s.Ended = func(e core.Ending) {
		end = e
		if r := goroutine.Current(); r != nil {
			values = r.Values
		}
	}
	s.NotRun = func(err error) { refusal, values = err, s.Values }
	defer s.Awaited()()
	ran := false
	pprof.Do(ctx, pprof.Labels("asyncsync.loop", b.name), func(context.Context) {
		ran = b.loop.Run(&s.Task, func() (over func()) { return core.EnlistLoop(b.name, b.loop) })
	})
	if !ran {
		s.Drop()
		return end, ErrStopped
	}
	setValues(values)
	return end, refusal
}

// setValues sets the goroutine-local values of the calling goroutine.
func setValues(v goroutine.Values) {
	r := goroutine.Current()
	if r == nil {
		if v == (goroutine.Values{}) {
			return
		}
		r = goroutine.Ensure()
	}
	r.Values = v
	r.ReleaseIfEmpty()
}

func checkPost(fn func()) {
	if fn == nil {
		panic("loop: Post with a nil function")
	}
}
