package asyncsync_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/petermattis/goid"
	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
)

// A place is where code runs: on which OS thread, in which goroutine. On
// systems where tid cannot tell threads apart only the goroutine counts.
type place struct {
	tid int
	gid int64
}

func here() place { return place{tid: tid(), gid: goid.Get()} }

// whereabouts is the function to hand to a hop that should report where it ran.
func whereabouts(context.Context) (place, error) { return here(), nil }

// needThreads skips the test where tid, osThreads and threadName know nothing.
func needThreads(t *testing.T) {
	t.Helper()
	if tid() == 0 {
		t.Skipf("needs OS thread ids, which the tests can only read on linux, not on %s", runtime.GOOS)
	}
}

// lockToNamedThread makes the test's goroutine the only one on its OS thread
// and gives that thread a name of its own in the kernel. The lock is never
// undone: the thread, name and all, ends with the test's goroutine.
func lockToNamedThread(t *testing.T, name string) place {
	t.Helper()
	needThreads(t)
	runtime.LockOSThread()
	setThreadName(name)
	require.Equal(t, name, threadName(), "the kernel took the name")
	return here()
}

// A pending is a function running on a plain goroutine of its own.
type pending[R any] struct {
	done   chan struct{}
	result R
	err    error
	ended  bool // false after done when the goroutine ended by Goexit
}

// spawn starts fn with a plain go statement.
func spawn[R any](fn func() (R, error)) *pending[R] {
	p := &pending[R]{done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.result, p.err = fn()
		p.ended = true
	}()
	return p
}

// Wait waits for the function and returns what it returned.
func (p *pending[R]) Wait() (R, error) {
	<-p.done
	if !p.ended {
		return p.result, fmt.Errorf("the goroutine ended by runtime.Goexit")
	}
	return p.result, p.err
}

// running reports that the function has not ended. It proves something only
// right after synctest.Wait, when everybody who can move has moved.
func (p *pending[R]) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// A meeting lets n parties go on only when all of them are there.
type meeting struct {
	mu   sync.Mutex
	left int
	all  chan struct{}
}

func newMeeting(n int) *meeting { return &meeting{left: n, all: make(chan struct{})} }

func (m *meeting) attend() {
	m.mu.Lock()
	m.left--
	if m.left == 0 {
		close(m.all)
	}
	m.mu.Unlock()
	<-m.all
}

// An exclusion is a race probe for code that must never run twice at once. Its
// fields are plain on purpose: the race detector reports what the count misses.
type exclusion struct {
	inside int
	most   int
	times  int
}

func (e *exclusion) run(fn func()) {
	e.inside++
	e.most = max(e.most, e.inside)
	e.times++
	if fn != nil {
		fn()
	}
	e.inside--
}

// A crew is an executor: n goroutines that run what is posted, in order.
type crew struct {
	jobs chan func()

	mu      sync.Mutex
	posts   int
	members map[int64]bool // goroutine ids
	left    sync.WaitGroup
}

func newCrew(n int) *crew {
	c := &crew{jobs: make(chan func(), 64), members: map[int64]bool{}}
	for range n {
		c.left.Add(1)
		go func() {
			defer c.left.Done()
			c.mu.Lock()
			c.members[goid.Get()] = true
			c.mu.Unlock()
			for job := range c.jobs {
				job()
			}
		}()
	}
	return c
}

// Post implements loop.Poster.
func (c *crew) Post(fn func()) error {
	c.mu.Lock()
	c.posts++
	c.mu.Unlock()
	c.jobs <- fn
	return nil
}

func (c *crew) posted() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.posts
}

func (c *crew) isMember(gid int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.members[gid]
}

// dismiss ends the goroutines and waits for them.
func (c *crew) dismiss() {
	close(c.jobs)
	c.left.Wait()
}

// whenQueued returns a channel that closes when a call of that name is queued.
// It owns the process's hooks until the test ends.
func whenQueued(t *testing.T, name string) <-chan struct{} {
	t.Helper()
	queued := make(chan struct{})
	var once sync.Once
	restore := asyncsync.SetHooks(asyncsync.Hooks{
		Queued: func(info asyncsync.CallInfo) {
			if info.Name == name {
				once.Do(func() { close(queued) })
			}
		},
	})
	t.Cleanup(restore)
	return queued
}

// panicOf runs fn and returns the value it panicked with, nil if it did not.
func panicOf(fn func()) (value any) {
	defer func() { value = recover() }()
	fn()
	return nil
}

// requireMisusePanic requires that fn panics with a message of ours.
func requireMisusePanic(t *testing.T, fn func()) {
	t.Helper()
	testkit.RequireMisuse(t, "asyncsync", fn)
}

// through calls view, which is async code, below n layers of middleware that
// alternate between sync and async, the outermost being sync. With n == 0 that
// is a plain call.
func through[R any](ctx context.Context, n int, view func(context.Context) (R, error)) (R, error) {
	return layer(ctx, n, false, view)
}

// layer goes down one layer; onThread tells whether the caller is sync code.
func layer[R any](ctx context.Context, n int, onThread bool, view func(context.Context) (R, error)) (R, error) {
	switch {
	case n == 0 && onThread:
		return asyncsync.FromThread(ctx, view)
	case n == 0:
		return view(ctx)
	case onThread:
		return asyncsync.FromThread(ctx, func(ctx context.Context) (R, error) {
			return layer(ctx, n-1, false, view)
		})
	default:
		return asyncsync.ToThread(ctx, func(ctx context.Context) (R, error) {
			return layer(ctx, n-1, true, view)
		})
	}
}
