package asyncsync_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/task"
)

// collects gives the collector the time to tell of what is lost.
func collects() {
	for range 20 {
		runtime.GC()
		time.Sleep(5 * time.Millisecond) // nobody tells when cleanups have run
	}
}

// What a process that a panic ends says of it, and what one says that goes on.
func TestPanicsAreSeen(t *testing.T) {
	guard(t)
	ctx := context.Background()
	panics := func(context.Context) (int, error) { culprit(); return 0, nil }
	run := children(t, map[string]func(t *testing.T){
		"hop": func(*testing.T) {
			go asyncsync.ToThread(ctx, panics) // off the test's goroutine, which recovers
			select {}
		},
		"deep": func(*testing.T) {
			go asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
				return asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) {
					return task.Go(ctx, func(ctx context.Context) (int, error) {
						return asyncsync.ToThread(ctx, panics)
					}).Wait(ctx)
				})
			})
			select {}
		},
		"recovered": func(t *testing.T) {
			for range 100 {
				func() {
					defer func() {
						if v := recover(); v != http.ErrAbortHandler {
							t.Errorf("recovered %v", v)
						}
					}()
					asyncsync.ToThread(ctx, panics)
				}()
			}
			collects()
		},
		"own error": func(*testing.T) {
			go asyncsync.ToThread(ctx, func(context.Context) (int, error) { panic(errors.New("of my own")) })
			select {}
		},
		"lost": func(*testing.T) {
			task.Go(ctx, panics, task.Named("forgotten"))
			collects()
		},
		"lost on a thread": func(*testing.T) {
			asyncsync.Go(ctx, panics, asyncsync.Named("forgotten"))
			collects()
		},
		"lost, but a hook hears": func(*testing.T) {
			defer asyncsync.AddHooks(asyncsync.Hooks{Panicked: func(asyncsync.CallInfo) {}})()
			task.Go(ctx, panics)
			collects()
		},
		"waited for": func(t *testing.T) {
			func() {
				defer func() { recover() }()
				task.Go(ctx, panics).Wait(ctx)
			}()
			collects()
		},
		"abandoned": func(t *testing.T) {
			ctx, cancel := context.WithCancel(ctx)
			gate := make(chan struct{})
			_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) {
				cancel()
				<-gate
				culprit()
				return 0, nil
			}, asyncsync.Abandon(), asyncsync.Named("forgotten"))
			if !errors.Is(err, asyncsync.ErrAbandoned) {
				t.Error(err)
			}
			close(gate)
			for asyncsync.ReadStats().Panicked == 0 {
				runtime.Gosched()
			}
			asyncsync.ToThread(context.Background(), func(context.Context) (int, error) { return 0, nil }) // behind it
			os.Stderr.Sync()
		},
	})
	const here, origin = "asyncsync_test.culprit()", "it began at:"
	for _, name := range []string{"hop", "deep"} {
		out, err := run(name)
		require.Error(t, err, name)
		require.Equal(t, 1, strings.Count(out, origin), "%s: %s", name, out)
		require.Contains(t, out, here, name)
		require.Contains(t, out, "panic: net/http: abort Handler", name)
	}
	out, err := run("own error")
	require.Error(t, err)
	require.Contains(t, out, "panic: of my own")
	for _, name := range []string{"recovered", "lost, but a hook hears", "waited for"} {
		out, err := run(name)
		require.NoError(t, err, "%s: %s", name, out)
		require.NotContains(t, out, "culprit", name)
	}
	for name, says := range map[string]string{
		"lost":             "asyncsync: task forgotten, which nobody has waited for, panicked: net/http: abort Handler",
		"lost on a thread": "asyncsync: task forgotten, which nobody has waited for, panicked: net/http: abort Handler",
		"abandoned":        "asyncsync: forgotten, which was abandoned, panicked: net/http: abort Handler",
	} {
		out, err := run(name)
		require.NoError(t, err, "%s: %s", name, out)
		require.Equal(t, 1, strings.Count(out, says), "%s: %s", name, out)
		require.Contains(t, out, here, name)
	}
}
