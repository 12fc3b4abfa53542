package task

import (
	"context"

	"asyncsync.dev/internal/core"
)

// An Info says which task it is. Two of them are equal if they are of the same
// task.
type Info struct {
	ID   uint64 // of no other task of the process; not in the order of their starts
	Name string // that of [Named], else that of the task's function
}

// Current returns the task that ctx belongs to: the one whose function was given
// ctx, or something that ctx was derived from. A call that the task makes belongs
// to it too. If ctx knows nothing of this module it is the task that the calling
// goroutine runs. It is the zero Info where there is none.
//
// So it is about ctx, for logs and traces. Whether the caller is on a loop now, a
// ctx cannot know: that is loop.Current.
//
// It is EasyNetwork's get_current_task, whose TaskInfo compares by id as well.
func Current(ctx context.Context) Info {
	checkCtx(ctx, "Current")
	id, name := core.TaskOf(ctx)
	return Info{ID: id, Name: name}
}
