package asyncsync

import (
	"context"
	"sync"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/loop"
)

// An AsyncSingleThreadContext has the async functions that sync code calls below it
// run on one thread, as tasks of a thread loop: see [NewAsyncSingleThreadContext].
// Its methods may be called from anywhere.
type AsyncSingleThreadContext struct {
	home   core.Home // what its ctx carries
	thread *asyncThread

	mu     sync.Mutex // guards closed; a leaf
	closed bool
}

// An asyncThread is the loop of an AsyncSingleThreadContext, and of those nested in
// it.
type asyncThread struct {
	loop loop.Backend

	mu     sync.Mutex    // guards the rest; a leaf
	runs   bool          // its thread has been started
	closed bool          // the outermost context is
	calls  int           // that are under way
	quit   chan struct{} // closed when it is closed and there are none
	over   chan struct{} // closed when the thread has ended; or when it is closed and has not been started
}

// NewAsyncSingleThreadContext returns a ctx below which async functions run on one
// thread. Sync code that calls [FromThread], or a function of [AsyncToSync], with it
// waits as ever; the function does not get a goroutine of its own but becomes a task
// of a thread loop (see loop.NewThread), the same for all. It may wait there only
// through this module, or it blocks the others. That is for async code over
// something that is bound to a thread.
//
// The thread is started by the first such call. A context that is made below
// another one, or by what runs on its thread, shares that one's. What is nearest
// counts: a context that is made below a task of a loop has functions run on its own
// thread, and tasks of a loop below it have theirs run on that loop. [WithLoop] names
// another loop. What [task.Go] starts with the ctx is not concerned: it runs where it
// would without the context.
//
// Call Close when done. A nil ctx panics.
//
// It is asgiref's class of the same name. There an outer event loop wins.
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

// enter opens an account for a call, and returns the loop that its function runs on.
// leave must follow.
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

// leave is the end of a call.
func (t *asyncThread) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.calls--; t.calls == 0 && t.closed {
		close(t.quit)
	}
}

// run runs the loop until the end.
func (t *asyncThread) run() {
	defer close(t.over)
	_, _ = loop.Run(context.Background(), t.loop, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, core.Park(ctx, t.quit, "close")
	})
}

// Close ends the context: calls with its ctx that come later return [ErrClosed]. Those
// under way go on. Close of an outermost context waits for them, and for the end of
// the thread; tasks that the functions have left there are cancelled then, with
// [loop.ErrStopped]. Close of one that shares another's thread leaves that alone. A
// further Close waits as well. It returns nil.
//
// In a function that runs on the thread, or in sync code on a thread that such a
// function has called, Close does not wait: the thread ends after the function.
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
