package asyncsync_test

import (
	"context"
	"fmt"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
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
	run := children(t, map[string]func(t *testing.T){
		"threads": func(t *testing.T) {
			debug.SetMaxThreads(threads)
			occupyAll(t, 2*threads)
		},
		"threads in bounds": func(t *testing.T) {
			debug.SetMaxThreads(threads)
			occupyAll(t, threads/4)
		},
		"depth": func(t *testing.T) {
			debug.SetMaxStack(1 << 21)
			depths(t, 10_000)
		},
		"depth in bounds": func(t *testing.T) {
			debug.SetMaxStack(1 << 21)
			depths(t, 50)
		},
	})
	for name, want := range map[string][]string{
		"threads": {fmt.Sprintf("program exceeds %d-thread limit", threads), "fatal error: thread exhaustion"},
		"depth":   {"goroutine stack exceeds", "fatal error: stack overflow"},
	} {
		stderr, err := run(name)
		require.Error(t, err, name)
		for _, text := range want {
			require.Contains(t, stderr, text, name)
		}
		stderr, err = run(name + " in bounds")
		require.NoError(t, err, "%s in bounds: %s", name, stderr)
	}
}
