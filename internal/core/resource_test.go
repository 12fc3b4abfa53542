package core

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/goroutine"
	"asyncsync.dev/internal/testkit"
)

// The record of a holder is not used for another one while ReleaseOf, which has taken
// tokens out of it, has not counted them back yet.
func TestReleaseMeetsRelease(t *testing.T) {
	testkit.Guard(t)
	r := &Resource{}
	r.Init(3)
	ctx, cancel := new(Group).Init(context.Background()) // so that a holder has a join, once somebody waits
	defer cancel(nil)
	_, err := r.Acquire(ctx, 1, false)
	require.NoError(t, err)
	gone, goes := context.WithCancel(context.Background())
	waits := testkit.Start(func() error { _, err := r.Acquire(gone, 3, false); return err })
	testkit.Poll(t, func() string {
		if _, _, _, waiting := r.Counts(); waiting == 0 {
			return "nobody waits"
		}
		return ""
	})
	goes()
	require.ErrorIs(t, waits.Wait().Err, context.Canceled)

	taken, again := make(chan struct{}), make(chan struct{})
	other := testkit.Start(func() error {
		if _, err := r.Acquire(context.Background(), 2, false); err != nil {
			return err
		}
		close(taken)
		<-again
		r.Release(1) // the last of the two: its record is free
		_, err := r.Acquire(context.Background(), 1, false)
		return err
	})
	<-taken
	relations.Lock() // keeps ReleaseOf from coming to its end
	mine := goroutine.ID()
	released := testkit.Start(func() error { r.ReleaseOf(mine, 2); return nil })
	testkit.Poll(t, func() string {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.between == 0 {
			return "ReleaseOf has not begun"
		}
		return ""
	})
	close(again)
	require.NoError(t, other.Wait().Err)
	relations.Unlock()
	require.NoError(t, released.Wait().Err)
	require.True(t, r.Release(1))
	_, used, _, _ := r.Counts()
	require.Zero(t, used)
}
