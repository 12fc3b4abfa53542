package task

import (
	"context"
	"errors"
	"sync"

	"asyncsync.dev/internal/core"
)

// ErrNotStarted is returned by [Start] if the function has ended, without an error,
// and not called started.
var ErrNotStarted = errors.New("task: the function has ended without calling started")

// ErrStartedTwice is returned by the started function of [Start] when it is called
// again.
var ErrStartedTwice = errors.New("task: started was called twice")

// Start starts fn as [Go] does and waits until it says that it is ready, by calling
// started, from any goroutine. Then it returns the task, which goes on, and what
// was given to started.
//
// If fn ends before, so does Start: it returns the task and fn's error, or
// [ErrNotStarted] if that is nil, and a panic or a [runtime.Goexit] of fn is raised
// in the caller. What fn comes to after started, only the task's Wait tells.
//
// When ctx ends before, the task is cancelled with its cause, as its ctx is derived
// from ctx, and Start waits until it has ended: then it returns fn's error, or the
// cause if that is nil. So Start leaves nothing behind that nobody knows of. A call
// of started when ctx has ended is too late, and returns the cause.
//
// While Start waits the task is joined, as in [Task.Wait]. A thread serves its
// calls; in a task of a thread loop the loop runs others. started never blocks. What
// was done before it synchronizes before the return of Start.
//
// It is anyio's TaskGroup.start, with its task_status as a function.
func Start[S, R any](ctx context.Context, fn func(ctx context.Context, started func(S) error) (R, error), opts ...Option) (*Task[R], S, error) {
	checkCtx(ctx, "Start")
	if fn == nil {
		panic("task: Start: nil function")
	}
	s := &starting[S]{ctx: core.Afterlife(ctx), done: make(chan struct{})}
	t := &Task[R]{}
	t.fn = func(ctx context.Context) (R, error) { return fn(ctx, s.started) }
	t.task.OnEnd(s.end)
	core.StartTask(ctx, &t.task, body[R]{t}, options("Start", core.FuncPC(fn), opts))

	returned := false
	defer func() {
		if !returned { // a call that was served meanwhile has called Goexit
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

// outcomeAfter waits for the end of the task, whatever happens to ctx, and ends the
// caller as the task has ended.
func (t *Task[R]) outcomeAfter(ctx context.Context) (R, error) {
	if err := t.task.WaitOr(core.Shield(ctx), t.Done()); err != nil {
		var zero R
		return zero, err
	}
	return t.outcome()
}

// starting is one call of Start.
type starting[S any] struct {
	ctx  context.Context // of Start
	done chan struct{}   // closed when state is not waiting any more

	mu    sync.Mutex // guards the rest; a leaf lock
	state startState
	v     S
	why   error
}

type startState int

const (
	notStarted startState = iota
	hasStarted
	startFailed // fn has ended, or Start does not wait for started any more
)

// started is what the function calls.
func (s *starting[S]) started(v S) error {
	if err := core.Ended(s.ctx); err != nil {
		s.giveUp(err) // Start may not have noticed
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

// giveUp has later calls of started return why.
func (s *starting[S]) giveUp(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == notStarted {
		s.state, s.why = startFailed, why
		close(s.done)
	}
}

// value returns what was given to started. If that was not called, it is too late
// for it now, because of cause, if that is not nil.
func (s *starting[S]) value(cause error) (v S, ok bool) {
	if cause != nil {
		s.giveUp(cause)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.v, s.state == hasStarted
}
