package task_test

import (
	"testing"

	"asyncsync.dev/task"

	"github.com/stretchr/testify/require"
)

// Zero values but that of Group are not usable, and say so.
func TestZeroValuesPanic(t *testing.T) {
	ctx := t.Context()
	for want, use := range map[string]func(){
		"task: Limiter.Acquire: nil Limiter, or one not made by NewLimiter":    func() { new(task.Limiter).Acquire(ctx) },
		"task: Limiter.TryAcquire: nil Limiter, or one not made by NewLimiter": func() { new(task.Limiter).TryAcquire() },
		"task: Limiter.Release: nil Limiter, or one not made by NewLimiter":    func() { new(task.Limiter).Release() },
		"task: Limiter.SetTotal: nil Limiter, or one not made by NewLimiter":   func() { (*task.Limiter)(nil).SetTotal(1) },
		"task: Limiter.Stats: nil Limiter, or one not made by NewLimiter":      func() { new(task.Limiter).Stats() },
		"task: Group.Go: nil Group":                                            func() { (*task.Group)(nil).Go(nil) },
		"task: Group.Wait: nil Group":                                          func() { (*task.Group)(nil).Wait(ctx) },
		"task: Task.Wait: nil Task, or one not made by Go":                     func() { new(task.Task[int]).Wait(ctx) },
		"task: Task.WaitOrCancel: nil Task, or one not made by Go":             func() { (*task.Task[int])(nil).WaitOrCancel(ctx) },
		"task: Task.Cancel: nil Task, or one not made by Go":                   func() { new(task.Task[int]).Cancel(nil) },
		"task: Task.Cancelled: nil Task, or one not made by Go":                func() { new(task.Task[int]).Cancelled() },
		"task: Task.Done: nil Task, or one not made by Go":                     func() { new(task.Task[int]).Done() },
	} {
		require.PanicsWithValue(t, want, use)
	}
}
