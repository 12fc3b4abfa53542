package portal

import (
	"context"

	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// goOn starts fn as a task of b.
func goOn[R any](ctx context.Context, b loop.Backend, fn func(context.Context) (R, error), opts []task.Option) *task.Task[R] {
	return task.Go(ctx, func(ctx context.Context) (R, error) { return loop.Call(ctx, b, fn) }, opts...)
}
