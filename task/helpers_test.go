package task_test

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/task"
)

// The helpers of package testkit that are called everywhere, and their words.
var (
	guard          = testkit.Guard
	leavesNothing  = libkit.NoLeaks
	onEach         = libkit.OnEach
	onEachInBubble = libkit.OnEachInBubble
	running        = libkit.Running
)

type kindOfCaller = libkit.Caller

// toThread runs fn on the thread of ctx.
func toThread(ctx context.Context, fn func(context.Context)) error {
	return libkit.To(ctx, func(ctx context.Context) error { fn(ctx); return nil })
}

// toThreadErr runs fn on the thread of ctx.
func toThreadErr(ctx context.Context, fn func(context.Context) error) error {
	return libkit.To(ctx, fn)
}

// fromThread runs fn as async code, for which the calling thread blocks.
func fromThread(ctx context.Context, fn func(context.Context)) error {
	return libkit.From(ctx, func(ctx context.Context) error { fn(ctx); return nil })
}

// noCtx is the nil ctx that functions must refuse.
var noCtx context.Context

// inBubble runs fn in a synctest bubble with a ThreadSensitiveContext made
// there, which ctx carries. The thread of that context is "the thread" in the
// comments of these tests. A hang ends the bubble with a report.
//
// In a bubble synctest.Wait makes "has not run" a fact: every goroutine that could move
// has moved. It synchronizes, too, so that plain variables may be read after it.
func inBubble(t *testing.T, fn func(t *testing.T, ctx context.Context, tsc *asyncsync.ThreadSensitiveContext), opts ...asyncsync.ContextOption) {
	t.Helper()
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context(), opts...)
		fn(t, ctx, tsc)
		require.NoError(t, tsc.Close())
	})
}

// endingOf says how fn ends, on a goroutine of its own.
func endingOf(fn func()) testkit.Outcome {
	return testkit.OutcomeOf(func() error { fn(); return nil })
}

// requireMisusePanic requires that fn panics with a message of this package.
func requireMisusePanic(t *testing.T, fn func()) {
	t.Helper()
	testkit.RequireMisuse(t, "task", fn)
}

// overCtx returns the ctx of a task that has ended, and what ends the ctx above that.
func overCtx(t *testing.T) (over context.Context, cancel context.CancelCauseFunc) {
	t.Helper()
	up, cancel := context.WithCancelCause(t.Context())
	over, err := task.Go(up, func(ctx context.Context) (context.Context, error) { return ctx, nil }).Wait(up)
	require.NoError(t, err)
	require.Error(t, over.Err())
	return over, cancel
}

// An unsureCtx may panic when it is asked whether it has ended.
type unsureCtx struct {
	context.Context
	panics atomic.Bool
}

func newUnsureCtx(t *testing.T) *unsureCtx {
	ctx, cancel := context.WithCancel(t.Context()) // so that there is a Done
	t.Cleanup(cancel)
	return &unsureCtx{Context: ctx}
}

func (c *unsureCtx) Err() error {
	if c.panics.Load() {
		panic("unsure")
	}
	return c.Context.Err()
}

// A journal is a list of what happened, in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

func (j *journal) read() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]string(nil), j.lines...)
}

// A countingCtx is a context that can be cancelled and knows how many contexts
// hang from it, which the context package does not tell of its own.
type countingCtx struct {
	context.Context
	done chan struct{}

	mu     sync.Mutex
	hung   int // ever
	hang   map[int]func()
	reason error
}

func newCountingCtx(up context.Context) *countingCtx {
	return &countingCtx{Context: up, done: make(chan struct{}), hang: map[int]func(){}}
}

func (c *countingCtx) Done() <-chan struct{} { return c.done }

func (c *countingCtx) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reason
}

// AfterFunc is what the context package registers children with.
func (c *countingCtx) AfterFunc(f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := c.hung
	c.hung++
	c.hang[id] = f
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, was := c.hang[id]
		delete(c.hang, id)
		return was
	}
}

// Value hides the cancellable contexts above, so that children register here.
func (c *countingCtx) Value(key any) any { return nil }

func (c *countingCtx) cancel() {
	c.mu.Lock()
	c.reason = context.Canceled
	all := c.hang
	c.hang = map[int]func(){}
	c.mu.Unlock()
	close(c.done)
	for _, f := range all {
		f()
	}
}

// counts returns how many contexts hang from c, and how many ever have.
func (c *countingCtx) counts() (now, ever int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.hang), c.hung
}

// heap returns the bytes in use on the heap, garbage collected.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
