package core

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// What a bubble had of this package goes with it, whether its default thread has
// been used or not.
func TestBubblesLeaveNothing(t *testing.T) {
	kept := func() int {
		bubbles.Lock()
		defer bubbles.Unlock()
		return len(bubbles.scopes)
	}
	for range 50 {
		synctest.Test(t, func(t *testing.T) { Default() })
		require.LessOrEqual(t, kept(), 1, "only the last")
	}
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			ran := false
			run := bodyFunc(func(context.Context) { ran = true })
			require.NoError(t, Default().Do(t.Context(), &FullCall{}, run, &Options{}))
			require.True(t, ran)
		})
		require.LessOrEqual(t, kept(), 1)
	}
	synctest.Test(t, func(t *testing.T) {
		run := bodyFunc(func(context.Context) {})
		require.NoError(t, Default().Do(t.Context(), &FullCall{}, run, &Options{}))
		synctest.Wait()
		require.Zero(t, kept(), "and not even that, if it was used")
	})
}

// The default scope of a bubble goes when it has nothing to do, and another takes its
// place when it is used again. Code that has kept the first, in a ctx say, gets the new
// one.
func TestDefaultScopeOfABubbleThatWasKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := Default()
		var kept context.Context
		run := bodyFunc(func(ctx context.Context) { kept = ctx })
		require.NoError(t, old.Do(t.Context(), &FullCall{}, run, &Options{}))
		synctest.Wait()
		for range 100 {
			busy := make(chan struct{})
			one := make(chan error)
			go func() {
				one <- Default().Do(t.Context(), &FullCall{}, bodyFunc(func(context.Context) { close(busy) }), &Options{})
			}()
			<-busy
			ran := false
			require.NoError(t, old.Do(kept, &FullCall{}, bodyFunc(func(context.Context) { ran = true }), &Options{}))
			require.NoError(t, <-one)
			require.True(t, ran)
			scope, err := Resolve(kept, nil)
			require.NoError(t, err)
			require.Same(t, Default(), scope)
		}
	})
}
