package task

import (
	"context"
	"iter"

	"asyncsync.dev/internal/core"
)

// Map calls fn with each of args, as tasks that are all started before Map returns,
// in order, and returns what they return, in the same order: in each pair a result
// and its error. A result is there when it and all before it are.
//
// Who ranges over it waits as [Task.WaitOrCancel] does with ctx. An error does not end
// the loop. When the loop is left early the tasks that are left are cancelled and
// waited for. A panic of fn, or a Goexit, ends the loop like that where its result
// would have come. The tasks run on if nobody ranges over them. A second loop panics.
//
// opts are those of [Go]. With [On] and an asyncsync.PoolExecutor fn is called on its
// threads, as many at a time as there are. A nil ctx or fn panics.
//
// It is the map of concurrent.futures, and of EasyNetwork's AsyncExecutor.
func Map[A, R any](ctx context.Context, fn func(context.Context, A) (R, error), args []A, opts ...Option) iter.Seq2[R, error] {
	checkCtx(ctx, "Map")
	if fn == nil {
		panic("task: Map: nil function")
	}
	pc := core.FuncPC(fn)
	tasks := make([]*Task[R], len(args))
	for i, arg := range args {
		tasks[i] = Go(ctx, func(ctx context.Context) (R, error) { return fn(ctx, arg) },
			append([]Option{func(o *core.Options) { o.PC = pc }}, opts...)...)
	}
	ranged := false
	return func(yield func(R, error) bool) {
		if ranged {
			panic("task: Map: a second loop over the results of one call")
		}
		ranged = true
		left := tasks
		tasks = nil // a result is not kept for longer than its loop
		defer func() {
			for _, t := range left {
				t.Cancel(nil)
			}
			for _, t := range left {
				// Nobody asks what they come to. A wait that is refused as a
				// deadlock would never have ended.
				_ = t.task.Wait(context.WithoutCancel(ctx))
			}
		}()
		for len(left) > 0 {
			t := left[0]
			left[0], left = nil, left[1:]
			if !yield(t.WaitOrCancel(ctx)) {
				return
			}
		}
	}
}
