package portal_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/goroutine"
	"asyncsync.dev/loop"
	"asyncsync.dev/portal"
)

// After the whole suite no goroutine is left but the default thread of the process.
func TestMain(m *testing.M) {
	before := runtime.NumGoroutine()
	code := m.Run()
	if code == 0 {
		core.DefaultPool.Close()
		const defaultThread = 1
		if n := settled(before + defaultThread); n > before+defaultThread {
			fmt.Fprintf(os.Stderr, "%d goroutines, %d before:\n%s", n, before, stacks())
			code = 1
		}
	}
	os.Exit(code)
}

// settled waits for goroutines on their way out and returns how many there are.
func settled(most int) (n int) {
	for range 1000 {
		if n = runtime.NumGoroutine(); n <= most {
			break
		}
		time.Sleep(time.Millisecond) // a bounded poll: nobody tells when a goroutine has ended
	}
	return n
}

func stacks() []byte {
	stacks := make([]byte, 1<<22)
	return stacks[:runtime.Stack(stacks, true)]
}

// guard ends the whole test binary, with the stacks of all goroutines, when the test
// is still running after a minute. It is called outside of any bubble.
func guard(t *testing.T) {
	t.Helper()
	name := t.Name()
	dog := time.AfterFunc(time.Minute, func() {
		fmt.Fprintf(os.Stderr, "%s hangs; all goroutines:\n\n%s\n", name, stacks())
		panic(name + " hangs (stacks above)")
	})
	t.Cleanup(func() { dog.Stop() })
}

// leavesNothing fails the test if goroutines, or records of goroutines, are left at its
// end. The default thread is there already.
func leavesNothing(t *testing.T) {
	t.Helper()
	require.NoError(t, onThread(context.Background(), func(context.Context) error { return nil }))
	goroutines, records := runtime.NumGoroutine(), goroutine.Live()
	t.Cleanup(func() {
		g := settled(goroutines)
		r := goroutine.Live()
		if g > goroutines || r > records {
			t.Errorf("%d goroutines and %d records, there were %d and %d\n%s", g, r, goroutines, records, stacks())
		}
	})
}

// newContext returns a context whose thread ends with the test.
func newContext(t *testing.T) (context.Context, *asyncsync.ThreadSensitiveContext) {
	t.Helper()
	pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{})
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
	t.Cleanup(func() {
		require.NoError(t, tsc.Close())
		pool.Close()
	})
	return ctx, tsc
}

var kinds = []string{"goroutines", "thread"}

func newBackend(t *testing.T, kind string) loop.Backend {
	t.Helper()
	b, err := loop.Builtin(kind)
	require.NoError(t, err)
	return b
}

// onBoth runs a test with a portal of each kind, that the test need not close.
func onBoth(t *testing.T, test func(t *testing.T, p *portal.Portal)) {
	onBothBare(t, func(t *testing.T, kind string) {
		p := started(t, kind)
		test(t, p)
		p.Stop(true)
		_ = p.Close(nil)
	})
}

// onBothBare runs a test for each kind of backend.
func onBothBare(t *testing.T, test func(t *testing.T, kind string)) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			guard(t)
			leavesNothing(t)
			test(t, kind)
		})
	}
}

func started(t *testing.T, kind string) *portal.Portal {
	t.Helper()
	p, err := portal.Start(portal.WithBackend(newBackend(t, kind)))
	require.NoError(t, err)
	return p
}

// onThread runs fn as sync code.
func onThread(ctx context.Context, fn func(context.Context) error, opts ...asyncsync.Option) error {
	_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, fn(ctx) }, opts...)
	return err
}

// call is Call of a function that has no result.
func call(ctx context.Context, p *portal.Portal, fn func(ctx context.Context) error) error {
	_, err := portal.Call(ctx, p, func(ctx context.Context) (struct{}, error) { return struct{}{}, fn(ctx) })
	return err
}

// loopCall is loop.Call of a function that has no result.
func loopCall(ctx context.Context, l loop.Loop, fn func(ctx context.Context) error) error {
	_, err := loop.Call(ctx, l, func(ctx context.Context) (struct{}, error) { return struct{}{}, fn(ctx) })
	return err
}

// run is loop.Run of a main function that has no result.
func run(ctx context.Context, b loop.Backend, main func(ctx context.Context) error) error {
	_, err := loop.Run(ctx, b, func(ctx context.Context) (struct{}, error) { return struct{}{}, main(ctx) })
	return err
}

// receive waits for ch, whoever waits, or until ctx ends, whose cause it returns.
func receive(ctx context.Context, ch <-chan struct{}) error {
	return core.Park(ctx, ch, "test")
}

// forever waits until ctx ends, and returns the cause.
func forever(ctx context.Context) error { return receive(ctx, nil) }

// sleep waits for d, whoever waits, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	done := make(chan struct{})
	timer := time.AfterFunc(d, func() { close(done) })
	defer timer.Stop()
	return receive(ctx, done)
}

// who identifies the calling goroutine; a task is one.
func who() int64 { return goroutine.ID() }

// A running is a function that runs on a goroutine of its own.
type running struct {
	done chan struct{}
	err  error
}

func background(fn func() error) *running {
	r := &running{done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.err = fn()
	}()
	return r
}

// wait waits for it, whoever waits.
func (r *running) wait() error {
	if err := receive(context.Background(), r.done); err != nil {
		return err
	}
	return r.err
}

// posted runs fn as a function that is posted to l.
func posted(l loop.Loop, fn func() error) error {
	done := make(chan error, 1)
	if err := l.Post(func() { done <- fn() }); err != nil {
		return err
	}
	return <-done
}

// An outcome is how a function ended, as its caller saw it.
type outcome struct {
	how   string // "return", "panic" or "goexit"
	err   error
	value any
}

// outcomeOf runs fn on a goroutine of its own, since that may end.
func outcomeOf(fn func() error) (o outcome) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		o.how = "goexit"
		defer func() {
			if o.how == "return" {
				return
			}
			if v := recover(); v != nil {
				o = outcome{how: "panic", value: v}
			}
		}()
		o.err = fn()
		o.how = "return"
	}()
	<-done
	return o
}

var errEnd = errors.New("the error that was returned")

// ends are all three ways to end a function.
var ends = []struct {
	how  string
	want outcome
	do   func() error
}{
	{"return", outcome{how: "return", err: errEnd}, func() error { return errEnd }},
	{"panic", outcome{how: "panic", value: http.ErrAbortHandler}, func() error { panic(http.ErrAbortHandler) }},
	{"goexit", outcome{how: "goexit"}, func() error { runtime.Goexit(); return nil }},
}

// hookLog is what the hooks were told.
type hookLog struct {
	mu      sync.Mutex
	panics  []any
	goexits int
}

func listen(t *testing.T) *hookLog {
	l := &hookLog{}
	t.Cleanup(core.AddHooks(core.Hooks{
		Panicked: func(i core.CallInfo) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.panics = append(l.panics, i.Panic)
		},
		Ended: func(i core.CallInfo) {
			l.mu.Lock()
			defer l.mu.Unlock()
			if i.Goexit {
				l.goexits++
			}
		},
	}))
	return l
}

func (l *hookLog) told() (panics []any, goexits int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]any(nil), l.panics...), l.goexits
}

// requirePanics requires that fn panics with a message of this package.
func requirePanics(t *testing.T, fn func()) {
	t.Helper()
	o := outcomeOf(func() error { fn(); return nil })
	require.Equal(t, "panic", o.how)
	require.Regexp(t, "^portal: ", fmt.Sprint(o.value))
}

var noCtx context.Context
