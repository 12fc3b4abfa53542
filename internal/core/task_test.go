package core

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// A pcTask is the body of a task that is called after its function.
type pcTask struct {
	bareTask
	fn func()
}

func (b *pcTask) Run(context.Context) { b.fn() }
func (b *pcTask) PC() uintptr         { return FuncPC(b.fn) }
func (b *pcTask) Drop()               { b.fn = nil }

// A task is called after its function also when it has let go of that, begun or not, and
// while it does: a report may ask at any time, which is for the race detector.
func TestTaskIsCalledTheSameAfterItsEnd(t *testing.T) {
	for _, begins := range []bool{true, false} {
		task := &Task{}
		body := &pcTask{bareTask{task}, func() {}}
		l := &life{}
		l.own.life = l
		c := &task.call
		c.body, c.task, c.node = body, true, &l.own
		l.begin(context.Background())
		was := c.Name()
		require.Contains(t, was, "TestTaskIsCalledTheSameAfterItsEnd")
		if begins {
			l.openLate(task)
		}
		asked := make(chan string)
		go func() { asked <- c.Name() }()
		c.finish()
		require.Nil(t, body.fn)
		require.Equal(t, was, <-asked)
		require.Equal(t, was, c.Name())
	}
}

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
