package core

import (
	"context"
	"sync/atomic"
)

// Await runs body on a goroutine of its own and waits for it, on a thread, or in a
// task that parks; elsewhere it reports false, and the caller may run body itself.
// A thread serves the calls of body, and those of what the function that waits has
// started: body may depend on these in a way that is not known. After a nil error
// the caller must look at c.Ending.
func Await(ctx context.Context, c *Call, body Body, o *Options) (ran bool, err error) {
	own, rec := current()
	if own == nil && parkable(rec) == nil {
		return false, nil
	}
	// Not on the goroutine of whoever waits for the thread: that may be a task of
	// a thread loop, and body blocks it.
	return true, Away(ctx, c, body, o, Elsewhere{Post: onNewGoroutine, kin: true})
}

func onNewGoroutine(run func()) error {
	go run()
	return nil
}

// WaitOr waits until done is closed, which is at the end of the task at the
// latest, or ctx ends, whose cause it returns. Meanwhile the task is joined, as it
// is in Wait. The wait is never refused: somebody else than the task may close done.
func (t *Task) WaitOr(ctx context.Context, done <-chan struct{}) error {
	ctx = Afterlife(ctx)
	own, rec := current()
	return wait(ctx, own, rec, nil, t.Node(), done, "start")
}

var lastTask atomic.Uint64

// TaskOf returns the number and the name of the task that ctx belongs to, or, if
// ctx says nothing, the calling goroutine; 0 if there is none.
func TaskOf(ctx context.Context) (id uint64, name string) {
	n := submitter(ctx, record())
	if n == nil || n.life == nil {
		return 0, ""
	}
	l := n.life
	if id = l.id.Load(); id == 0 {
		l.id.CompareAndSwap(0, lastTask.Add(1))
		id = l.id.Load()
	}
	return id, l.called()
}
