package looptest

import (
	"runtime"
	"sync"
	"testing"
	"time"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/loop"
)

// patience is how long something may take before the test calls it hung. It
// bounds a hang, and is no part of any assertion.
var patience = 10 * time.Second

// await waits until done is closed, and fails the test if it takes too long.
func await(t *testing.T, done <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-done:
		return
	default:
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		t.Fatalf("%s; all goroutines:\n\n%s", what, stacks)
	}
}

// awaitAll is await for a WaitGroup.
func awaitAll(t *testing.T, all *sync.WaitGroup, what string) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		all.Wait()
	}()
	await(t, done, what)
}

// complain fails the test, also from a function that a broken loop runs after
// the test is over.
func complain(t *testing.T, format string, args ...any) {
	t.Helper()
	defer func() { _ = recover() }() // what testing does then
	t.Errorf(format, args...)
}

// promptly runs fn, and fails the test if it takes too long.
func promptly(t *testing.T, what string, fn func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	await(t, done, what)
}

// posts is post for the test's own goroutine.
func posts(t *testing.T, l loop.Loop, fn func()) {
	t.Helper()
	promptly(t, "Post does not return", func() { post(t, l, fn) })
}

// post posts fn and requires that it is accepted.
func post(t *testing.T, l loop.Loop, fn func()) {
	t.Helper()
	if err := l.Post(fn); err != nil {
		complain(t, "Post on a loop that runs: %v", err)
	}
}

// settle waits until the loop has run everything that was posted before.
func settle(t *testing.T, l loop.Loop, what string) {
	t.Helper()
	done := make(chan struct{})
	posts(t, l, sync.OnceFunc(func() { close(done) }))
	await(t, done, what+": a function that was posted later does not run")
}

// untilStopped runs fn with a loop made by make, and stops the loop when fn has
// returned.
func untilStopped[L loop.Loop](t *testing.T, make func(*testing.T) L, fn func(t *testing.T, l L)) (l L) {
	t.Helper()
	ok := t.Run("while it runs", func(t *testing.T) {
		l = make(t)
		fn(t, l)
	})
	if !ok {
		t.FailNow()
	}
	await(t, l.Done(), "Done is not closed when the loop has stopped")
	return l
}

// A recorder keeps what hooks are told.
type recorder struct {
	mu      sync.Mutex
	panics  []any
	goexits int
	told    chan struct{} // gets one for each
}

// listen adds hooks until the test ends.
func listen(t *testing.T) *recorder {
	r := &recorder{told: make(chan struct{}, 64)}
	note := func(f func()) {
		r.mu.Lock()
		f()
		r.mu.Unlock()
		select {
		case r.told <- struct{}{}:
		default:
		}
	}
	t.Cleanup(core.AddHooks(core.Hooks{
		Panicked: func(i core.CallInfo) { note(func() { r.panics = append(r.panics, i.Panic) }) },
		Ended: func(i core.CallInfo) {
			if i.Goexit {
				note(func() { r.goexits++ })
			}
		},
	}))
	return r
}

// counts returns how many panics with that value, and how many Goexits, the hooks
// have been told of.
func (r *recorder) counts(value any) (panics, goexits int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, v := range r.panics {
		if v == value {
			panics++
		}
	}
	return panics, r.goexits
}

// ending runs fn on a goroutine of its own and tells how it ended.
func ending(t *testing.T, what string, fn func() error) (how string, value any, err error) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		how = "goexit"
		defer func() {
			if v := recover(); v != nil {
				how, value = "panic", v
			}
		}()
		err = fn()
		how = "return"
	}()
	await(t, done, what)
	return how, value, err
}
