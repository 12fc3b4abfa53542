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
	"asyncsync.dev/internal/testkit"
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
	const origin = "testkit.Culprit()"
	for name, c := range map[string]struct {
		body   func(t *testing.T)
		fails  bool
		silent bool // of the panic
		once   string
		has    []string
	}{
		"hop": {fails: true, once: "it began at:", has: []string{origin, "panic: net/http: abort Handler"}, body: func(*testing.T) {
			go asyncsync.ToThread(ctx, panics) // off the test's goroutine, which recovers
			select {}
		}},
		"deep": {fails: true, once: "it began at:", has: []string{origin, "panic: net/http: abort Handler"}, body: func(*testing.T) {
			go asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
				return asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) {
					return task.Go(ctx, func(ctx context.Context) (int, error) {
						return asyncsync.ToThread(ctx, panics)
					}).Wait(ctx)
				})
			})
			select {}
		}},
		"own error": {fails: true, has: []string{"panic: of my own"}, body: func(*testing.T) {
			go asyncsync.ToThread(ctx, func(context.Context) (int, error) { panic(errors.New("of my own")) })
			select {}
		}},
		"recovered": {silent: true, body: func(t *testing.T) {
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
		}},
		"lost, but a hook hears": {silent: true, body: func(*testing.T) {
			defer asyncsync.AddHooks(asyncsync.Hooks{Panicked: func(asyncsync.CallInfo) {}})()
			task.Go(ctx, panics)
			collects()
		}},
		"waited for": {silent: true, body: func(t *testing.T) {
			func() {
				defer func() { recover() }()
				task.Go(ctx, panics).Wait(ctx)
			}()
			collects()
		}},
		"lost": {once: "asyncsync: task forgotten, which nobody has waited for, panicked: net/http: abort Handler", has: []string{origin}, body: func(*testing.T) {
			task.Go(ctx, panics, task.Named("forgotten"))
			collects()
		}},
		"lost on a thread": {once: "asyncsync: task forgotten, which nobody has waited for, panicked: net/http: abort Handler", has: []string{origin}, body: func(*testing.T) {
			asyncsync.Go(ctx, panics, asyncsync.Named("forgotten"))
			collects()
		}},
		"abandoned": {once: "asyncsync: forgotten, which was abandoned, panicked: net/http: abort Handler", has: []string{origin}, body: func(t *testing.T) {
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
		}},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := testkit.Child(t, c.body)
			require.Equal(t, c.fails, err != nil, "%v: %s", err, out)
			if c.once != "" {
				require.Equal(t, 1, strings.Count(out, c.once), out)
			}
			for _, text := range c.has {
				require.Contains(t, out, text)
			}
			if c.silent {
				require.NotContains(t, out, "Culprit")
			}
		})
	}
}
