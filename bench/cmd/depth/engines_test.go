package main

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"asyncsync.dev/loop"
	"asyncsync.dev/portal"
)

// Whatever is compared must do the same: one visit to the bottom for each
// descent, with the deepest goroutines there while it lasts.
func TestEnginesDescend(t *testing.T) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			n, err := e.start()
			require.NoError(t, err)
			for _, depth := range []int{1, 2, 3, 50} {
				visits := 0
				require.NoError(t, n.descend(depth, func() { visits++ }))
				assert.Equal(t, 1, visits, "depth %d", depth)
				require.NoError(t, n.descend(depth, nil))
			}
			require.NoError(t, n.stop())
		})
	}
}

func TestByHandTakesAGoroutineALevelAndLeavesNone(t *testing.T) {
	n, err := startByHand()
	require.NoError(t, err)
	before := runtime.NumGoroutine()
	var there int
	require.NoError(t, n.descend(20, func() { there = runtime.NumGoroutine() }))
	assert.GreaterOrEqual(t, there-before, 20)
	require.NoError(t, n.stop())
	assert.Eventually(t, func() bool { return runtime.NumGoroutine() <= before }, 10*time.Second, time.Millisecond)
}

func TestCallsAreMade(t *testing.T) {
	for _, k := range calls {
		t.Run(k.name, func(t *testing.T) {
			ran := false
			require.NoError(t, k.run(func(f batch) error {
				ran = true
				return f(3)
			}))
			assert.True(t, ran)
		})
	}
}

func TestPrice(t *testing.T) {
	total := 0
	c, err := price(4*time.Millisecond, func(n int) error {
		total += n
		time.Sleep(time.Duration(n) * 100 * time.Microsecond)
		return nil
	})
	require.NoError(t, err)
	assert.GreaterOrEqual(t, c.ns, 100_000.0)
	assert.Greater(t, total, 3)

	_, err = price(time.Millisecond, func(int) error { return context.Canceled })
	assert.ErrorIs(t, err, context.Canceled)
	_, _, err = priceBoth(time.Millisecond, func(int) error { return nil }, func(int) error { return context.Canceled })
	assert.ErrorIs(t, err, context.Canceled)
}

func TestPriceCountsAllocations(t *testing.T) {
	var keep *[4096]byte
	c, err := price(20*time.Millisecond, func(n int) error {
		for range n {
			keep = new([4096]byte)
		}
		return nil
	})
	require.NoError(t, err)
	runtime.KeepAlive(keep)
	assert.InDelta(t, 1, c.allocs, 0.2)
	assert.InDelta(t, 4096, c.bytes, 500)
}

func TestPriceAllTakesTurns(t *testing.T) {
	var order []int
	note := func(i int) batch {
		return func(int) error {
			if n := len(order); n == 0 || order[n-1] != i {
				order = append(order, i)
			}
			return nil
		}
	}
	cs, err := priceAll(time.Millisecond, note(0), note(1), note(2))
	require.NoError(t, err)
	assert.Len(t, cs, 3)
	assert.Equal(t, []int{0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2}, order)
}

// What is compared must be done: as often as it is said.
func TestInLoopRunsInATaskOfTheLoop(t *testing.T) {
	require.NoError(t, withLoop(func(p *portal.Portal) error {
		times := 0
		err := inLoop(p.Loop(), func(ctx context.Context, n int) error {
			on, ok := loop.Current(ctx)
			assert.True(t, ok)
			assert.Equal(t, p.Loop(), on)
			times += n
			return nil
		})(7)
		assert.Equal(t, 7, times)
		return err
	}))
}

func TestSleepersSleepAndAreWoken(t *testing.T) {
	require.NoError(t, withLoop(func(p *portal.Portal) error {
		s := &sleepers{p: p}
		per, err := s.start(100)
		require.NoError(t, err)
		assert.Positive(t, per.heap)
		// Stacks may be there already, from tests before.
		require.NoError(t, s.wake(100)(250))
		require.NoError(t, s.end())
		assert.Zero(t, s.left)
		return nil
	}))
}

func TestPowers(t *testing.T) {
	assert.Equal(t, []int{1, 2, 4, 8}, powers(8))
	assert.Equal(t, []int{1, 2, 4, 8}, powers(15))
}
