package core

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

var errStop = errors.New("the cause of a cancellation")

// beginLife returns the life of a task that runs, and was started with ctx, and its ctx.
func beginLife(ctx context.Context) (*life, *Ctx) {
	l := new(fullLife).whole(nil)
	l.own.life = l
	l.begin(ctx)
	own := l.open(&Ctx{}, nil)
	l.taken()
	return l, own
}

func TestStopCancelsTheTasksBelow(t *testing.T) {
	top, ctx := beginLife(context.Background())
	child, childCtx := beginLife(ctx)
	_, grandchildCtx := beginLife(childCtx)
	_, derivedCtx := beginLife(context.WithValue(childCtx, &child, 1))
	other, otherCtx := beginLife(context.Background())
	child.stop(errStop)
	child.stop(context.Canceled)
	require.NoError(t, ctx.Err())
	require.False(t, top.isEnded())
	for _, c := range []context.Context{childCtx, grandchildCtx, derivedCtx} {
		require.ErrorIs(t, c.Err(), context.Canceled)
		require.Same(t, errStop, context.Cause(c), "the first cause")
	}
	_, late := beginLife(childCtx)
	require.Same(t, errStop, context.Cause(late), "what it starts after is cancelled, too")
	require.NoError(t, otherCtx.Err())
	require.False(t, other.isEnded())
}

// The end of a task is no cancellation of those that it leaves behind, but what is
// above it still is one.
func TestEndCancelsNobody(t *testing.T) {
	base, cancel := context.WithCancelCause(context.Background())
	top, ctx := beginLife(base)
	below, belowCtx := beginLife(ctx)
	derived, derivedCtx := beginLife(context.WithValue(ctx, &top, 1))
	top.end()
	require.False(t, top.gone.Load(), "what was derived from its ctx hangs from its layer")
	require.NoError(t, belowCtx.Err())
	require.NoError(t, derivedCtx.Err())
	top.stop(errStop)
	require.NoError(t, derivedCtx.Err(), "it is over")
	require.Nil(t, top.children)
	require.Nil(t, below.parent)

	derived.end()
	require.True(t, derived.gone.Load())
	require.True(t, top.gone.Load(), "the last one has gone")
	_, late := beginLife(ctx)
	require.NoError(t, late.Err(), "a ctx that is kept")
	cancel(errStop)
	require.Same(t, errStop, context.Cause(belowCtx))
	require.Same(t, errStop, context.Cause(late))
	below.end()
}

func TestALifeForgetsChildrenThatHaveEnded(t *testing.T) {
	top, ctx := beginLife(context.Background())
	var children []*life
	for range 5 {
		l, _ := beginLife(ctx)
		children = append(children, l)
	}
	count := func() (n int) {
		for c := top.children; c != nil; c = c.after {
			n++
		}
		return n
	}
	for i, at := range []int{2, 0, 4, 1, 3} {
		require.Equal(t, 5-i, count())
		children[at].end()
		require.False(t, children[at].listed)
	}
	require.Zero(t, count())
	require.EqualValues(t, 1, top.held, "they hung from what is above")
	top.end()
	require.True(t, top.gone.Load())
}

// A bareTask is the body of a task without a function.
type bareTask struct{ t *Task }

func (b bareTask) Run(context.Context) {}
func (b bareTask) Task() *Task         { return b.t }
func (b bareTask) Drop()               {}

// Tasks that wait in queues have one watcher for each channel, and it goes with the
// last of them.
func TestQueuedTasksShareAWatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base, cancel := context.WithCancel(context.Background())
		defer cancel()
		before := watches.Len()
		var lives []*life
		for range 100 {
			l := &life{}
			l.begin(base)
			task := &Task{}
			task.call.body, task.call.task = bareTask{task}, true
			l.queue(&task.call)
			lives = append(lives, l)
			require.Equal(t, before+1, watches.Len())
		}
		for i, l := range lives {
			require.Equal(t, before+1, watches.Len())
			if i%2 == 0 {
				l.taken() // it begins
			}
			l.end()
		}
		require.Equal(t, before, watches.Len())
	})
}
