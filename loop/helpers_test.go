package loop_test

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

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/goroutine"
	"asyncsync.dev/loop"
)

// guard ends the whole test binary, with the stacks of all goroutines, when the
// test is still running after half a minute.
func guard(t *testing.T) {
	t.Helper()
	name := t.Name()
	dog := time.AfterFunc(30*time.Second, func() {
		stacks := make([]byte, 1<<22)
		stacks = stacks[:runtime.Stack(stacks, true)]
		fmt.Fprintf(os.Stderr, "%s hangs; all goroutines:\n\n%s\n", name, stacks)
		panic(name + " hangs (stacks above)")
	})
	t.Cleanup(func() { dog.Stop() })
}

// leavesNothing fails the test if goroutines, or records of goroutines, are left
// at its end.
func leavesNothing(t *testing.T) {
	t.Helper()
	goroutines, records := runtime.NumGoroutine(), goroutine.Live()
	t.Cleanup(func() {
		var g, r int
		for range 500 {
			if g, r = runtime.NumGoroutine(), goroutine.Live(); g <= goroutines && r <= records {
				return
			}
			time.Sleep(time.Millisecond) // a bounded poll: nobody tells when a goroutine has ended
		}
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		t.Errorf("%d goroutines and %d records, there were %d and %d\n%s", g, r, goroutines, records, stacks)
	})
}

// kinds are the backends of this package.
var kinds = []string{"goroutines", "thread"}

func newBackend(t *testing.T, kind string) loop.Backend {
	t.Helper()
	b, err := loop.Builtin(kind)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// onBoth runs a test with a new backend of each kind, which the test runs.
func onBoth(t *testing.T, test func(t *testing.T, b loop.Backend)) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			guard(t)
			leavesNothing(t)
			test(t, newBackend(t, kind))
		})
	}
}

// running starts b on a goroutine of its own, and stops it when the test ends.
func running(t *testing.T, b loop.Backend) loop.Backend {
	t.Helper()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		_, err := loop.Run(context.Background(), b, func(ctx context.Context) (int, error) {
			return 0, receive(ctx, b, stop)
		})
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-stopped
	})
	return b
}

// receive has the task wait for ch.
func receive(ctx context.Context, b loop.Backend, ch <-chan struct{}) error {
	return b.Park(ctx, func(wake func()) {
		go func() {
			select {
			case <-ch:
				wake()
			case <-ctx.Done():
			}
		}()
	})
}

// yield lets others run.
func yield(ctx context.Context, b loop.Backend) error {
	return b.Park(ctx, func(wake func()) { wake() })
}

// run is Run of a main function that has no result.
func run(ctx context.Context, b loop.Backend, main func(ctx context.Context) error) error {
	_, err := loop.Run(ctx, b, func(ctx context.Context) (struct{}, error) { return struct{}{}, main(ctx) })
	return err
}

// call is Call of a function that has no result.
func call(ctx context.Context, l loop.Loop, fn func(ctx context.Context) error) error {
	_, err := loop.Call(ctx, l, func(ctx context.Context) (struct{}, error) { return struct{}{}, fn(ctx) })
	return err
}

// newContext returns a context whose thread ends with the test.
func newContext(t *testing.T) *asyncsync.ThreadSensitiveContext {
	t.Helper()
	pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{})
	_, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
	t.Cleanup(func() {
		tsc.Close()
		pool.Close()
	})
	return tsc
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
	t.Cleanup(core.SetHooks(core.Hooks{
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
