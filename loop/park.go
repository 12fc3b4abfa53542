package loop

import (
	"context"
	"sync/atomic"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/goroutine"
	"asyncsync.dev/internal/sched"
)

// park is the Park method of the backends of this package. It suspends the
// calling goroutine, whatever backend the method belongs to.
//
// The work before the suspension is in functions that have returned by then, so
// that the stacks of waiting tasks stay small.
func park(ctx context.Context, arm func(wake func())) error {
	t, err := ready(ctx, arm)
	if t == nil {
		return err
	}
	if t.Suspend(ctx) {
		return core.Cause(ctx)
	}
	return nil
}

// ready prepares the wait. It returns the task of a thread loop to suspend. If
// there is none it returns nil, and how the wait has ended.
func ready(ctx context.Context, arm func(wake func())) (*sched.Task, error) {
	checkCtx(ctx, "Park")
	if arm == nil {
		panic("loop: Park with a nil function")
	}
	t, blocks := here()
	if blocks {
		return nil, ErrOnLoop
	}
	if err := core.Ended(ctx); err != nil {
		return nil, err
	}
	if t == nil {
		return nil, block(ctx, arm)
	}
	t.Prepare()
	t.Arm(arm)
	return t, nil
}

// here returns the task of a thread loop that the caller runs as, or nil.
// blocks reports whether the caller is a function posted to a loop, so that a
// wait would block the loop.
//
// A task may have become a thread: AsyncToSync does that with a goroutine whose
// ctx knows nothing of the library. While that lasts, its OS thread is locked
// once more, and its code is sync code that cannot be suspended.
func here() (t *sched.Task, blocks bool) {
	r := goroutine.Current()
	if r == nil {
		return nil, false
	}
	switch x := r.Task.(type) {
	case *sched.Task:
		switch {
		case !x.MayWait():
			return nil, true
		case core.Here() == nil:
			return x, false
		}
	case *foreign:
		return nil, true
	}
	return nil, false
}

// onLoop reports whether the calling goroutine belongs to a loop with one
// thread.
func onLoop() bool {
	r := goroutine.Current()
	if r == nil {
		return false
	}
	switch r.Task.(type) {
	case *sched.Task, *foreign:
		return true
	}
	return false
}

// block waits on an ordinary goroutine.
func block(ctx context.Context, arm func(wake func())) error {
	woken := make(chan struct{}, 1)
	var once atomic.Bool
	arm(func() {
		if once.CompareAndSwap(false, true) {
			woken <- struct{}{}
		}
	})
	select {
	case <-woken:
		return nil
	case <-ctx.Done():
		return core.Cause(ctx)
	}
}
