package task_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/task"
)

// A settingCtx has ended, which shows only after the event has happened.
type settingCtx struct {
	context.Context
	e *task.Event
}

func (c settingCtx) Err() error {
	c.e.Set()
	return context.Canceled
}

// An event that has happened by the time that Wait returns is told, whatever Wait has
// found of its ctx before.
func TestEvent_HappensWhileItsCtxIsAsked(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e := &task.Event{}
	require.NoError(t, e.Wait(settingCtx{ctx, e}))
	require.Equal(t, context.Canceled, new(task.Event).Wait(ctx))
}
