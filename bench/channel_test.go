package bench

import (
	"runtime"
	"testing"

	"github.com/petermattis/goid"
	"github.com/stretchr/testify/require"
)

func TestDescendTakesAGoroutineALevel(t *testing.T) {
	c := NewChannel()
	defer c.Close()
	before := runtime.NumGoroutine()
	visits, there := 0, 0
	for _, depth := range []int{1, 2, 20} {
		c.Descend(depth, func() {
			visits++
			there = runtime.NumGoroutine()
		})
		c.Descend(depth, nil)
	}
	require.Equal(t, 3, visits)
	require.GreaterOrEqual(t, there-before, 20)
}

// The sync half stays on one goroutine: it is written for that.
func TestServeRunsSyncCodeOnOneGoroutine(t *testing.T) {
	f := &frame{calls: make(chan call), done: make(chan struct{})}
	ids := map[int64]int{}
	go func() {
		defer close(f.done)
		for range 3 {
			hand(f.calls, func() { ids[goid.Get()]++ })
		}
	}()
	f.serve()
	require.Equal(t, map[int64]int{goid.Get(): 3}, ids)
}
