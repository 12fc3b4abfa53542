package task_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
)

// guardPatience is how long a test may take before guard calls it hung. It
// bounds a hang, it is no part of any assertion.
const guardPatience = 30 * time.Second

// guard ends the test binary, with the stacks of all goroutines, when the test
// still runs after guardPatience. It must be called outside of any synctest
// bubble: inside one the clock is not real.
func guard(t *testing.T) {
	t.Helper()
	name := t.Name()
	dog := time.AfterFunc(guardPatience, func() {
		stacks := make([]byte, 1<<22)
		stacks = stacks[:runtime.Stack(stacks, true)]
		fmt.Fprintf(os.Stderr, "%s hangs; all goroutines:\n\n%s\n", name, stacks)
		panic(name + " hangs (stacks above)")
	})
	t.Cleanup(func() { dog.Stop() })
}

// noCtx is the nil ctx that functions must refuse.
var noCtx context.Context

// inBubble runs fn in a synctest bubble with a ThreadSensitiveContext made
// there, which ctx carries. The thread of that context is "the thread" in the
// comments of these tests. A hang ends the bubble with a report.
//
// In a bubble synctest.Wait is what makes "has not run" a fact: whoever could
// have moved has moved. It synchronizes, too, so that plain variables may be
// read after it.
func inBubble(t *testing.T, fn func(t *testing.T, ctx context.Context, tsc *asyncsync.ThreadSensitiveContext), opts ...asyncsync.ContextOption) {
	t.Helper()
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context(), opts...)
		fn(t, ctx, tsc)
		require.NoError(t, tsc.Close())
	})
}

// toThread runs fn on the thread of ctx.
func toThread(ctx context.Context, fn func(context.Context)) error {
	_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (struct{}, error) {
		fn(ctx)
		return struct{}{}, nil
	})
	return err
}

// fromThread runs fn as async code, for which the calling thread blocks.
func fromThread(ctx context.Context, fn func(context.Context)) error {
	_, err := asyncsync.FromThread(ctx, func(ctx context.Context) (struct{}, error) {
		fn(ctx)
		return struct{}{}, nil
	})
	return err
}

// An ending is how a function ended: it returned (the zero value), panicked,
// or called runtime.Goexit.
type ending struct {
	panic  any
	goexit bool
}

// endingOf runs fn on a plain goroutine and says how it ended.
func endingOf(fn func()) ending {
	var e ending
	done := make(chan struct{})
	go func() {
		defer close(done)
		returned := false
		defer func() {
			if !returned {
				e.panic = recover()
				e.goexit = e.panic == nil
			}
		}()
		fn()
		returned = true
	}()
	<-done
	return e
}

// requireMisusePanic requires that fn panics with a message of this package.
func requireMisusePanic(t *testing.T, fn func()) {
	t.Helper()
	e := endingOf(fn)
	require.NotNil(t, e.panic, "misuse must panic")
	require.True(t, strings.HasPrefix(fmt.Sprint(e.panic), "task: "),
		"the panic must name the package: %v", e.panic)
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
