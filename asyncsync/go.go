package asyncsync

import (
	"context"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/task"
)

// Go is [ToThread] for a caller that does not wait. It queues fn on the thread
// and returns a task, which is a promise for the result of fn. A thread runs
// its queue in one go, so several calls started before the first is waited for
// share the cost of waking the thread.
//
// The thread is the one that ToThread would choose. Called on that thread, Go
// queues as well: fn runs when the calling function has ended, or when it waits
// for the task through this module.
//
// The ctx of fn, its local variables, and the effect of [task.Task.Cancel] are
// those of a task: see [task.Go]. If the task is cancelled, or ctx ends, before
// fn has begun, fn does not run and Wait returns the cause. If the task could
// not be queued, Wait returns [ErrClosed], [ErrQueueFull], [ErrPoolFull] or
// [ErrNoContext].
//
// The options [On], [Named], [LongRunning], [Interrupt] and [InterruptOnce]
// apply here; others panic. A nil ctx or fn panics too.
//
// Python's executors return such promises as concurrent.futures.
func Go[R any](ctx context.Context, fn func(context.Context) (R, error), opts ...Option) *task.Task[R] {
	checkCtx(ctx, "Go")
	if fn == nil {
		panic("asyncsync: Go: nil function")
	}
	var s settings
	if len(opts) > 0 {
		s = apply("Go", opts)
		s.checkToThread("Go")
		if s.Options.Try {
			panic("asyncsync: Go: IfFree has no use here: Go queues always")
		}
		if s.insensitive || s.Options.Abandon {
			panic("asyncsync: Go: Insensitive and Abandon have no use here: task.Go starts functions that need no thread, and a call that does not wait cannot be abandoned")
		}
	}
	scope, err := core.Resolve(ctx, s.on.core())
	return task.Go(ctx, fn, func(o *core.Options) {
		s.Options.PC = o.PC
		*o = s.Options
		o.Scope, o.Refusal = scope, err
	})
}
