package portal

import (
	"context"
	"sync"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// StartTask starts fn as a task of the portal's loop and waits until fn calls
// started. It returns the task and the value given to started.
//
// The ctx of fn has the values of ctx and, as with StartSoon, lives as long as
// the portal. Only until fn has called started does the end of ctx end it too:
// then StartTask waits for the end of fn and returns the error of fn, or else
// the cause of ctx.
//
// If fn ends without calling started, StartTask ends in the same way: with its
// error, panic or [runtime.Goexit], or with [task.ErrNotStarted] if fn returned
// nil. It then also returns the task, which has ended. After the start, waiters
// for the task get its outcome; [Portal.Close] returns an error that nobody has
// waited for.
//
// started may be called from anywhere. A second call returns
// [task.ErrStartedTwice]. If StartTask no longer waits, started returns the
// cause of that.
//
// After a stop StartTask returns [loop.ErrStopped]; inside a function posted to
// a loop of [loop.NewThread] or [loop.FromPost] it returns [loop.ErrOnLoop]. It
// panics if ctx or fn is nil.
//
// It is the start_task of anyio's portal.
func StartTask[S, R any](ctx context.Context, p *Portal, fn func(ctx context.Context, started func(S) error) (R, error), opts ...task.Option) (*task.Task[R], S, error) {
	p.check("StartTask")
	if fn == nil {
		panic("portal: StartTask with a nil function")
	}
	return startTask(ctx, p, &visit{}, "StartTask", core.FuncPC(fn), fn, opts)
}

// startTask starts fn as the visit v.
func startTask[S, R any](ctx context.Context, p *Portal, v *visit, what string, pc uintptr, fn func(context.Context, func(S) error) (R, error), opts []task.Option) (*task.Task[R], S, error) {
	checkCtx(ctx, what)
	var none S
	if _, blocks := core.OnLoop(); blocks {
		return nil, none, loop.ErrOnLoop
	}
	if err := core.Ended(ctx); err != nil {
		return nil, none, err
	}
	inside, err := p.receive(context.WithoutCancel(ctx), v, nil)
	if err != nil {
		return nil, none, err
	}
	s := &starting[S]{settled: make(chan struct{})}
	m := &member{portal: p, visit: v, pc: pc, ended: func() { s.settle(task.ErrNotStarted) }}
	t := launch(inside, m, func(ctx context.Context) (R, error) { return fn(ctx, s.started) }, opts)

	settled := false
	defer func() {
		if !settled { // a call that this wait served called Goexit
			s.settle(context.Canceled)
			t.Cancel(nil)
		}
	}()
	gaveUp := m.task.WaitOr(ctx, s.settled)
	settled = true
	if gaveUp != nil {
		if s.settle(gaveUp) {
			t.Cancel(gaveUp)
		} else {
			gaveUp = nil // started was called at the same moment
		}
	}
	if s.err == nil {
		return t, s.value, nil
	}
	// The task has ended or is about to.
	if _, err := t.Wait(context.WithoutCancel(ctx)); err != nil {
		return t, none, err
	}
	return t, none, s.err
}

// A starting is one wait for a start.
type starting[S any] struct {
	settled chan struct{} // closed when the rest is set

	mu    sync.Mutex // a leaf
	over  bool
	value S
	err   error // why started will not be called
}

func (s *starting[S]) started(v S) error {
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		if s.err != nil {
			return s.err
		}
		return task.ErrStartedTwice
	}
	s.over, s.value = true, v
	s.mu.Unlock()
	close(s.settled)
	return nil
}

// settle ends the wait with err, unless started has been called. It reports
// whether it did.
func (s *starting[S]) settle(err error) bool {
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return false
	}
	s.over, s.err = true, err
	s.mu.Unlock()
	close(s.settled)
	return true
}
