package core

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// An endsTask is a ctx that has ended, and sees to it that a task has ended when it says
// so: to the moment where nobody has been woken yet.
type endsTask struct {
	context.Context
	task *Task
}

func (c endsTask) Err() error {
	c.task.call.wait.Store(callEnded)
	return context.Canceled
}

// A task that has ended by the time that the wait returns is reported so, though the
// ones who wait are only about to be woken.
func TestWaitForATaskThatWakesNobodyYet(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	task := &Task{}
	l := &life{}
	task.call.body, task.call.task, task.call.node = bareTask{task}, true, &l.own
	require.NoError(t, task.Wait(endsTask{ctx, task}))
}
