package asyncsync_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
)

// to and from are ToThread and FromThread for functions without a result.
func to(ctx context.Context, fn func(context.Context) error, opts ...asyncsync.Option) error {
	_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, fn(ctx)
	}, opts...)
	return err
}

func from(ctx context.Context, fn func(context.Context) error, opts ...asyncsync.Option) error {
	_, err := asyncsync.FromThread(ctx, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, fn(ctx)
	}, opts...)
	return err
}

// newContext returns a context that the test closes at its end.
func newContext(t testing.TB, opts ...asyncsync.ContextOption) (context.Context, *asyncsync.ThreadSensitiveContext) {
	t.Helper()
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), opts...)
	t.Cleanup(func() { tsc.Close() })
	return ctx, tsc
}

// newPool returns a pool that the test closes at its end, after its contexts.
func newPool(t testing.TB, c asyncsync.ThreadPoolConfig) *asyncsync.ThreadPool {
	t.Helper()
	p := asyncsync.NewThreadPool(c)
	t.Cleanup(func() { p.Close() })
	return p
}

// An outcome is how a function ended, as its caller saw it.
type outcome struct {
	how   string // "return", "panic" or "goexit"
	err   error
	value any
}

// outcomeOf runs fn on a goroutine of its own, since that may end.
func outcomeOf(fn func() error) outcome { return start(fn).wait() }

// A runningFunc is a function on its own goroutine, whose outcome is awaited.
type runningFunc struct {
	done chan struct{}
	o    outcome
}

func start(fn func() error) *runningFunc {
	r := &runningFunc{done: make(chan struct{})}
	go func() {
		defer close(r.done)
		returned := false
		defer func() {
			if returned {
				return
			}
			if v := recover(); v != nil {
				r.o = outcome{how: "panic", value: v}
			} else {
				r.o = outcome{how: "goexit"}
			}
		}()
		err := fn()
		r.o = outcome{how: "return", err: err}
		returned = true
	}()
	return r
}

func (r *runningFunc) wait() outcome {
	<-r.done
	return r.o
}

func (r *runningFunc) over() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// An end is one of the three ways to end a function.
type end struct {
	how string
	do  func() error
}

var errEnd = errors.New("the error that was returned")

// culprit's name is looked for in stacks.
//
//go:noinline
func culprit() { panic(http.ErrAbortHandler) }

// ends are all three. The panic is with a value that callers compare by
// identity, as net/http does.
var ends = []end{
	{"return", func() error { return errEnd }},
	{"panic", func() error { culprit(); return nil }},
	{"goexit", func() error { runtime.Goexit(); return nil }},
}

// requireEnd requires that o is what e comes to.
func requireEnd(t *testing.T, e end, o outcome) {
	t.Helper()
	require.Equal(t, e.how, o.how, "%+v", o)
	switch e.how {
	case "return":
		require.ErrorIs(t, o.err, errEnd)
	case "panic":
		require.Same(t, http.ErrAbortHandler, o.value)
	}
}

// A hookLog is a set of hooks that remember what they were told.
type hookLog struct {
	mu    sync.Mutex
	infos map[string][]asyncsync.CallInfo
}

// listen sets hooks for the rest of the test.
func listen(t *testing.T) *hookLog {
	t.Helper()
	l := &hookLog{infos: map[string][]asyncsync.CallInfo{}}
	note := func(what string) func(asyncsync.CallInfo) {
		return func(i asyncsync.CallInfo) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.infos[what] = append(l.infos[what], i)
		}
	}
	t.Cleanup(asyncsync.SetHooks(asyncsync.Hooks{
		Queued:    note("queued"),
		Started:   note("started"),
		Ended:     note("ended"),
		Abandoned: note("abandoned"),
		Panicked:  note("panicked"),
	}))
	return l
}

func (l *hookLog) told(what string) []asyncsync.CallInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]asyncsync.CallInfo(nil), l.infos[what]...)
}

func (l *hookLog) count(what string) int { return len(l.told(what)) }

// named returns what was told of calls of that name.
func (l *hookLog) named(what, name string) (infos []asyncsync.CallInfo) {
	for _, i := range l.told(what) {
		if i.Name == name {
			infos = append(infos, i)
		}
	}
	return infos
}

// occupy has the thread of ctx run a function until release is called. It
// returns when the function runs; ended delivers how its caller fared.
func occupy(ctx context.Context, opts ...asyncsync.Option) (release func(), ended *runningFunc) {
	begun, leave := make(chan struct{}), make(chan struct{})
	ended = start(func() error {
		return to(ctx, func(context.Context) error {
			close(begun)
			<-leave
			return nil
		}, opts...)
	})
	<-begun
	return sync.OnceFunc(func() { close(leave) }), ended
}

// awaitQueued waits until n calls are queued on tsc's thread.
func awaitQueued(t *testing.T, tsc *asyncsync.ThreadSensitiveContext, n int) {
	t.Helper()
	poll(t, func() string {
		if q := tsc.Stats().Queued; q != n {
			return fmt.Sprintf("%d calls are queued, not %d", q, n)
		}
		return ""
	})
}

// threadOf is where the calls of ctx run.
func threadOf(t *testing.T, ctx context.Context) place {
	t.Helper()
	p, err := asyncsync.ToThread(ctx, whereabouts)
	require.NoError(t, err)
	return p
}

// requireWrapsAll requires that err matches all of targets.
func requireWrapsAll(t *testing.T, err error, targets ...error) {
	t.Helper()
	for _, target := range targets {
		require.ErrorIs(t, err, target)
	}
}

// settles waits for r like wait, but fails the test where that would hang: for
// waits that nobody would end, so that the tests after this one still run.
func settles(t *testing.T, r *runningFunc) outcome {
	t.Helper()
	poll(t, func() string {
		if !r.over() {
			return "the function does not come back"
		}
		return ""
	})
	return r.wait()
}
