package asyncsync_test

import (
	"context"
	"fmt"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
)

// What ends the whole process, so that no caller can be told: more OS threads than
// the runtime may have, and a nesting whose stacks are higher than they may be.
// Known limits; a pool whose MaxThreads is less than what the process may have,
// and a bound for the depth, are what a program can do.
func TestLimitsOfTheRuntime(t *testing.T) {
	guard(t)
	const threads = 40
	occupyAll := func(t *testing.T, n int) {
		pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: n})
		for range n {
			ctx, _ := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
			occupy(ctx)
		}
	}
	depths := func(t *testing.T, n int) {
		ctx, _ := newContext(t)
		depth, err := through(ctx, 2*n, func(context.Context) (int, error) { return n, nil })
		require.NoError(t, err)
		require.Equal(t, n, depth)
	}
	for name, c := range map[string]struct {
		body func(t *testing.T)
		want []string // of what it says before it ends, if it does not survive
	}{
		"threads": {func(t *testing.T) {
			debug.SetMaxThreads(threads)
			occupyAll(t, 2*threads)
		}, []string{fmt.Sprintf("program exceeds %d-thread limit", threads), "fatal error: thread exhaustion"}},
		"threads in bounds": {func(t *testing.T) {
			debug.SetMaxThreads(threads)
			occupyAll(t, threads/4)
		}, nil},
		"depth": {func(t *testing.T) {
			debug.SetMaxStack(1 << 21)
			depths(t, 10_000)
		}, []string{"goroutine stack exceeds", "fatal error: stack overflow"}},
		"depth in bounds": {func(t *testing.T) {
			debug.SetMaxStack(1 << 21)
			depths(t, 50)
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := testkit.Child(t, c.body)
			require.Equal(t, c.want != nil, err != nil, "%v: %s", err, out)
			for _, text := range c.want {
				require.Contains(t, out, text)
			}
		})
	}
}
