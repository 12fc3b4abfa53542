package portal

import (
	"context"
	"sync"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// StartTask starts fn as a task of the portal's loop and waits until fn says that it
// has started. It returns the task and what fn has given to started.
//
// The ctx that fn gets has the values of ctx, and lives as long as the portal, as that
// of StartSoon does. Only until fn has started does it end with ctx, too: then StartTask
// waits for fn's end, and returns the error that fn has returned, or else ctx's cause.
//
// If fn ends before it has started StartTask ends as fn has, with the same panic or
// [runtime.Goexit]; where that is a return without an error, with
// [task.ErrNotStarted]. It returns the task then as well, which has ended. What comes
// after the start, who waits for the task is told.
//
// started may be called from anywhere. A second call returns [task.ErrStartedTwice];
// one that comes when StartTask waits no more returns the cause of that.
//
// After a stop StartTask returns [loop.ErrStopped], inside a function posted to a loop
// with one thread [loop.ErrOnLoop]. It panics if fn is nil.
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
	inside, err := p.receive(context.WithoutCancel(ctx), v)
	if err != nil {
		return nil, none, err
	}
	s := &starting[S]{settled: make(chan struct{})}
	m := &member{portal: p, visit: v, pc: pc, ended: func() { s.settle(task.ErrNotStarted) }}
	t := launch(inside, m, func(ctx context.Context) (R, error) { return fn(ctx, s.started) }, opts)

	settled := false
	defer func() {
		if !settled { // a call that was served meanwhile has taken this wait with it
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
			gaveUp = nil // it came at the same moment
		}
	}
	if s.err == nil {
		return t, s.value, nil
	}
	// The task has ended, or is to.
	if _, err := t.Wait(context.WithoutCancel(ctx)); err != nil {
		return t, none, err
	}
	return t, none, s.err
}

// A starting is the wait for one start.
type starting[S any] struct {
	settled chan struct{} // closed when the rest is set

	mu    sync.Mutex // a leaf
	over  bool
	value S
	err   error // why it will not come
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

// settle says that the start will not come, unless it has.
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
