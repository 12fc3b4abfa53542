package task

import (
	"context"
	"errors"
	"sync"

	"asyncsync.dev/internal/core"
)

// ErrNotStarted is returned by [Start] if the function has returned nil without
// calling started.
var ErrNotStarted = errors.New("task: the function has ended without calling started")

// ErrStartedTwice is returned by the started function of [Start] from its
// second call on.
var ErrStartedTwice = errors.New("task: started was called twice")

// Start starts fn like [Go] and waits until fn says that it is ready by calling
// started, from any goroutine. Start then returns the task, which goes on, and
// the value given to started. A nil ctx or fn panics.
//
// If fn ends first, Start returns the task and the error of fn, or
// [ErrNotStarted] if that is nil. A panic or [runtime.Goexit] of fn is raised
// in the caller. After started was called, only the task's Wait reports the
// outcome of fn.
//
// If ctx ends first, the ctx of the task ends too, with the same cause. Start
// waits until the task has ended and returns the error of fn, or the cause if
// that is nil. So Start leaves no task behind that nobody knows of. If ctx has
// ended before started is called, started returns the cause.
//
// While Start waits, the task is joined as in [Task.Wait]: a thread serves its
// calls, and a thread loop runs other tasks. started never blocks. What was
// done before started synchronizes before the return of Start.
//
// It is anyio's TaskGroup.start, with a function in place of task_status.
func Start[S, R any](ctx context.Context, fn func(ctx context.Context, started func(S) error) (R, error), opts ...Option) (*Task[R], S, error) {
	checkCtx(ctx, "Start")
	if fn == nil {
		panic("task: Start: nil function")
	}
	s := &starting[S]{ctx: core.Afterlife(ctx), done: make(chan struct{})}
	t := &Task[R]{}
	t.fn = func(ctx context.Context) (R, error) { return fn(ctx, s.started) }
	o := options("Start", core.FuncPC(fn), opts)
	o.OnEnd = s.end
	core.StartTask(ctx, &t.task, body[R]{t}, o)

	returned := false
	defer func() {
		defer s.forget()
		if !returned { // a call that this wait served called Goexit
			s.giveUp(context.Canceled)
			t.Cancel(nil)
		}
	}()
	var zero S
	cause := t.task.WaitOr(ctx, s.done)
	if v, ok := s.value(cause); ok {
		returned = true
		return t, v, nil
	}
	if cause != nil {
		t.Cancel(cause)
	}
	_, err := t.outcomeAfter(ctx)
	returned = true
	if err == nil {
		err = s.why
	}
	return t, zero, err
}

// outcomeAfter waits for the end of the task even if ctx ends, and ends the
// caller as the task has ended.
func (t *Task[R]) outcomeAfter(ctx context.Context) (R, error) {
	if err := t.task.WaitOr(core.Shield(ctx), t.Done()); err != nil {
		var zero R
		return zero, err
	}
	return t.outcome()
}

// starting is one call of Start. It lives as long as the function, which has started.
type starting[S any] struct {
	done chan struct{} // closed when state is no longer notStarted

	mu    sync.Mutex // guards the rest; a leaf lock
	state startState
	ctx   context.Context // of Start; nil when that has returned, as is v
	v     S
	why   error
}

type startState int

const (
	notStarted startState = iota
	hasStarted
	startFailed // fn has ended, or Start does not wait for started any more
)

// started is the function that fn gets.
func (s *starting[S]) started(v S) error {
	s.mu.Lock()
	ctx := s.ctx
	s.mu.Unlock()
	if ctx != nil {
		if err := core.Ended(ctx); err != nil {
			s.giveUp(err) // Start may not have noticed
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.state == hasStarted:
		return ErrStartedTwice
	case s.state == startFailed:
		return s.why
	}
	s.state, s.v = hasStarted, v
	close(s.done)
	return nil
}

// end is called when the function has ended.
func (s *starting[S]) end() { s.giveUp(ErrNotStarted) }

// giveUp makes later calls of started return why.
func (s *starting[S]) giveUp(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == notStarted {
		s.state, s.why = startFailed, why
		close(s.done)
	}
}

// forget lets go of what Start alone needed. It is decided whether fn has started.
func (s *starting[S]) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var none S
	s.ctx, s.v = nil, none
}

// value returns the value that was given to started. If started was not called
// and cause is not nil, later calls of started return cause.
func (s *starting[S]) value(cause error) (v S, ok bool) {
	if cause != nil {
		s.giveUp(cause)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.v, s.state == hasStarted
}
