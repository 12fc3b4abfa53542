package asyncsync

import (
	"context"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/task"
)

// Go is [ToThread] for a caller that does not wait: it queues fn on the thread
// and returns a task, which is fn's promise. A thread runs what is queued in one
// go, so that many calls started with Go before the first is waited for share
// the cost of waking it.
//
// The thread is the one that ToThread would choose. Called from that thread Go
// queues as well; fn runs when the function that called has ended, or waits
// through this module for the task. fn's ctx, local variables, and what
// [task.Task.Cancel] does are those of a task: see [task.Go]. A task that is
// cancelled, or whose ctx ends, before fn has begun does not run; its Wait
// returns the cause. So does that of a task that could not be queued, with
// [ErrClosed], [ErrQueueFull], [ErrPoolFull] or [ErrNoContext].
//
// Of the options, [On], [Named], [LongRunning], [Interrupt] and [InterruptOnce]
// make sense here; others panic. A nil ctx or fn panics, too.
//
// Futures for a thread are what concurrent.futures gives Python's executors.
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
			panic("asyncsync: Go: Insensitive and Abandon have no use here: task.Go starts what needs no thread, and nobody waits who could leave")
		}
	}
	scope, err := core.Resolve(ctx, s.on.core())
	return task.Go(ctx, fn, func(o *core.Options) {
		s.Options.PC = o.PC
		*o = s.Options
		o.Scope, o.Refusal = scope, err
	})
}
