package task

import (
	"context"

	"asyncsync.dev/internal/core"
)

// An Info identifies a task. Two Infos are equal if they are of the same task.
type Info struct {
	ID   uint64 // unique in the process; not in the order of starts
	Name string // from [Named], else the name of the task's function
}

// Current returns the task that ctx belongs to: the one whose function was
// given ctx, or an ancestor of ctx. A call that a task makes belongs to that
// task. If ctx knows nothing of this module, Current returns the task that the
// calling goroutine runs. It returns the zero Info if there is no task. A nil
// ctx panics.
//
// Current is about ctx and meant for logs and traces. It does not say whether
// the caller runs on a loop at the moment: loop.Current does.
//
// It is EasyNetwork's get_current_task, which also returns a TaskInfo compared
// by id.
func Current(ctx context.Context) Info {
	checkCtx(ctx, "Current")
	id, name := core.TaskOf(ctx)
	return Info{ID: id, Name: name}
}
