package task

import (
	"context"
	"iter"

	"asyncsync.dev/internal/core"
)

// Map calls fn with each of args and returns the results in the same order, as
// pairs of a result and its error. Each call is a task. All tasks are started,
// in order, before Map returns. A pair is available when its task and all tasks
// before it have ended.
//
// Ranging over the results waits like [Task.WaitOrCancel] with ctx. An error
// does not end the loop. If the loop ends early, the remaining tasks are
// cancelled and waited for. A panic or Goexit of fn ends the loop in that way
// at its place in the order. Without a loop the tasks still run. A second loop
// panics. If a hook ends Map before it has started all tasks, those that it has
// started are cancelled and waited for too.
//
// opts are those of [Go]. With [On] and an asyncsync.PoolExecutor, fn runs on
// the executor's threads, as many calls at a time as there are threads. A nil
// ctx or fn panics.
//
// It is the map of concurrent.futures and of EasyNetwork's AsyncExecutor.
func Map[A, R any](ctx context.Context, fn func(context.Context, A) (R, error), args []A, opts ...Option) iter.Seq2[R, error] {
	checkCtx(ctx, "Map")
	if fn == nil {
		panic("task: Map: nil function")
	}
	pc := core.FuncPC(fn)
	tasks := make([]*Task[R], 0, len(args))
	started := false
	defer func() {
		if !started {
			giveUp(ctx, tasks)
		}
	}()
	for _, arg := range args {
		tasks = append(tasks, Go(ctx, func(ctx context.Context) (R, error) { return fn(ctx, arg) },
			append([]Option{func(o *core.Options) { o.PC = pc }}, opts...)...))
	}
	started = true
	ranged := false
	return func(yield func(R, error) bool) {
		if ranged {
			panic("task: Map: a second loop over the results of one call")
		}
		ranged = true
		left := tasks
		tasks = nil // so that results are not kept longer than the loop
		defer func() { giveUp(ctx, left) }()
		for len(left) > 0 {
			result, err := left[0].WaitOrCancel(ctx) // a Goexit may pass through
			left[0], left = nil, left[1:]
			if !yield(result, err) {
				return
			}
		}
	}
}

// giveUp cancels the tasks and waits for them. Nobody asks for their outcomes. A wait
// that is refused as a deadlock would never have ended.
func giveUp[R any](ctx context.Context, tasks []*Task[R]) {
	ctx = context.WithoutCancel(ctx)
	defer each(tasks, func(t *Task[R]) { _ = t.task.Wait(ctx) })
	each(tasks, func(t *Task[R]) { t.Cancel(nil) })
}

// each calls fn with each of the tasks, also if it does not return from some: Cancel
// runs the hooks of a task that has not begun, and a wait serves calls.
func each[R any](tasks []*Task[R], fn func(*Task[R])) {
	defer func() {
		if len(tasks) > 0 {
			each(tasks, fn)
		}
	}()
	for len(tasks) > 0 {
		t := tasks[0]
		tasks = tasks[1:]
		fn(t)
	}
}
