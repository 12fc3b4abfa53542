package asyncsync

import (
	"context"
	"sync"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/loop"
)

// An AsyncSingleThreadContext makes the async functions that sync code calls
// below it run on one thread, as tasks of a thread loop: see
// [NewAsyncSingleThreadContext]. Its methods may be called from anywhere.
type AsyncSingleThreadContext struct {
	home   core.Home // what its ctx carries
	thread *asyncThread

	mu     sync.Mutex // guards closed; a leaf
	closed bool
}

// An asyncThread is the loop of an AsyncSingleThreadContext and of those nested
// in it.
type asyncThread struct {
	loop loop.Backend

	mu     sync.Mutex    // guards the rest; a leaf
	runs   bool          // the loop's thread has been started
	closed bool          // the outermost context is closed
	calls  int           // calls under way
	quit   chan struct{} // closed when closed is set and calls is 0
	over   chan struct{} // closed when the thread has ended, or when closed is set and the thread was never started
}

// NewAsyncSingleThreadContext returns a ctx below which async functions run on
// one thread. It is for async code over something that is bound to a thread.
//
// Sync code that calls [FromThread], or a function of [AsyncToSync], with that
// ctx waits as usual. The async function does not get a goroutine of its own:
// it becomes a task of one thread loop (see loop.NewThread), which all these
// functions share. There it may wait only through this module; any other wait
// blocks the other tasks.
//
// The first such call starts the thread. A context made below another one, or by
// code that runs on the thread of another one, shares that thread. The nearest
// enclosing loop or context wins. Below a task of a loop, a new context runs
// functions on its own thread. Below the context, sync code called by a task of
// another loop runs them on that loop. [WithLoop] names another loop. Tasks
// started with [task.Go] and this ctx run where they would without the context.
//
// Call Close when done. A nil ctx panics.
//
// It is asgiref's class of the same name. In asgiref an outer event loop wins.
func NewAsyncSingleThreadContext(ctx context.Context) (context.Context, *AsyncSingleThreadContext) {
	checkCtx(ctx, "NewAsyncSingleThreadContext")
	a := &AsyncSingleThreadContext{}
	outer := core.LoopOf(ctx)
	if outer != nil {
		switch o := outer.Owner.(type) {
		case *AsyncSingleThreadContext:
			a.thread = o.thread
		case *asyncThread: // it is a task of that
			a.thread = o
		}
	}
	if a.thread == nil {
		a.thread = &asyncThread{
			loop: loop.NewThread(loop.Named("AsyncSingleThreadContext")),
			quit: make(chan struct{}),
			over: make(chan struct{}),
		}
		core.HomeOf(a.thread.loop).Owner = a.thread
		a.home.Outermost = true
	}
	a.home.Owner, a.home.Outer = a, outer.Tasks()
	return core.WithHome(ctx, &a.home), a
}

// enter counts a call, and returns the loop that its function runs on. leave
// must follow.
func (a *AsyncSingleThreadContext) enter() (*core.Home, error) {
	a.mu.Lock()
	closed := a.closed
	a.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	t := a.thread
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, ErrClosed
	}
	t.calls++
	if !t.runs {
		t.runs = true
		go t.run()
	}
	return core.HomeOf(t.loop), nil
}

// leave ends a call.
func (t *asyncThread) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.calls--; t.calls == 0 && t.closed {
		close(t.quit)
	}
}

// run runs the loop until the last call has ended after Close.
func (t *asyncThread) run() {
	defer close(t.over)
	_, _ = loop.Run(context.Background(), t.loop, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, core.Park(ctx, t.quit, "close")
	})
}

// Close ends the context: later calls with its ctx return [ErrClosed], and
// calls under way go on. It always returns nil.
//
// Close of an outermost context waits for the calls under way and for the end
// of the thread. The tasks that the functions have left on the thread are
// cancelled with [loop.ErrStopped]. A further Close waits as well. Close of a
// context that shares another's thread leaves the thread alone and does not
// wait.
//
// In a function that runs on the thread, or in sync code called by such a
// function on another thread, Close does not wait: the thread ends after the
// function. In any other code that such a function waits for, Close waits for
// ever, and the library does not report it: close the context outside.
func (a *AsyncSingleThreadContext) Close() error {
	if a == nil || a.thread == nil {
		panic("asyncsync: AsyncSingleThreadContext.Close: nil AsyncSingleThreadContext, or one not made by NewAsyncSingleThreadContext")
	}
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	if !a.home.Outermost {
		return nil
	}
	t := a.thread
	t.mu.Lock()
	first := !t.closed
	t.closed = true
	switch {
	case !first:
	case !t.runs:
		close(t.over)
	case t.calls == 0:
		close(t.quit)
	}
	t.mu.Unlock()
	if core.BelowLoop(core.HomeOf(t.loop)) {
		return nil
	}
	return core.Park(context.Background(), t.over, "close")
}
