package loop

import (
	"context"
	"sync/atomic"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/goroutine"
	"asyncsync.dev/internal/sched"
)

// park is Park of the backends of this package. Who is to wait is the calling
// goroutine, whatever backend it names.
//
// What is done before the task is suspended is in functions of its own, which have
// returned by then, and the stacks of tasks that wait stay small.
func park(ctx context.Context, arm func(wake func())) error {
	t, err := ready(ctx, arm)
	if t == nil {
		return err
	}
	if t.Suspend(ctx) {
		return context.Cause(ctx)
	}
	return nil
}

// ready prepares the wait. It returns the task of a thread loop that is to be
// suspended, or nil if there is none: then it returns how the wait has ended.
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
	arm(t.Waker())
	return t, nil
}

// here returns the task of a thread loop that the caller is, or nil, and whether
// the caller is a function posted to a loop, which a wait would block.
//
// A task may have become a thread, which AsyncToSync does with a goroutine whose ctx
// knows nothing of the library. While that lasts its OS thread is locked once more,
// and what runs on it is sync code: it cannot be suspended.
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

// onLoop reports whether the calling goroutine is that of a loop with one thread.
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
		return context.Cause(ctx)
	}
}
