package asyncsync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/goroutine"
	"asyncsync.dev/loop"
)

// A PoolExecutor runs posted functions on a number of threads, each of which
// runs one function at a time. It is for work that must be on a thread, but not
// on a particular one: calls into a C library that is slow or keeps state in
// the thread.
//
// It is a [loop.Loop]: task.On starts a task there, task.Map starts many, and
// [WithExecutor] sends it an insensitive call. A posted function is sync code.
// It may call [FromThread], and its thread serves meanwhile. Calls below it
// find that thread.
//
// Functions begin in the order in which they were posted, on any free thread.
// The executor takes a thread from its pool when it first needs it (see
// [WithPool]) and keeps it until the executor is closed. While it can get none,
// because the pool is full or a function of [OnThreadStart] fails, what was
// posted waits, and the executor tries again: at the next Post, when it is
// closed, and by itself after a millisecond, two, and so on, up to a second. If
// it can get none any more, because the pool is closed, the executor ends and
// Done is closed.
//
// Make one with [NewPoolExecutor]. Its methods may be called from anywhere. It
// corresponds to Python's ThreadPoolExecutor, on threads that are kept.
type PoolExecutor struct {
	onThreads
	threads []*executorThread
	done    chan struct{}
	over    sync.Once // closes done

	// starting counts the threads that are about to get a call. Close waits for it
	// before it closes threads. It is added to under mu, and never after the section
	// that sets closed: there Close makes the attempt that is due.
	starting sync.WaitGroup

	mu     sync.Mutex // guards the rest; a leaf lock
	queue  []func()
	idle   []*executorThread // have nothing to run
	closed bool
	again  *time.Timer   // calls tryAgain; nil if no attempt is due
	pause  time.Duration // before the next one; 0 after a success
}

// How long the executor waits before it tries again to get a thread.
const (
	minPause = time.Millisecond
	maxPause = time.Second
)

// onThreads tells package loop that posted functions are sync code on a thread.
type onThreads struct{}

// RunsOnThreads is for package loop.
func (onThreads) RunsOnThreads() {}

type executorThread struct {
	ctx context.Context
	tsc *ThreadSensitiveContext
}

// NewPoolExecutor returns an executor with n threads. Each has a context that
// is made with opts. It panics if n is not positive.
func NewPoolExecutor(n int, opts ...ContextOption) *PoolExecutor {
	if n <= 0 {
		panic(fmt.Sprintf("asyncsync: NewPoolExecutor: %d threads, want one or more", n))
	}
	checkOwnThreads("NewPoolExecutor", opts)
	e := &PoolExecutor{done: make(chan struct{})}
	for range n {
		ctx, tsc := NewThreadSensitiveContext(context.Background(), opts...)
		e.threads = append(e.threads, &executorThread{ctx, tsc})
	}
	for i := n - 1; i >= 0; i-- { // always use the first idle thread, so that few are taken
		e.idle = append(e.idle, e.threads[i])
	}
	return e
}

// Post runs fn on one of the threads. It returns at once. After Close, Shutdown
// or Cancel it returns [loop.ErrStopped], and fn does not run.
//
// A panic or Goexit ends fn but not the thread. [Hooks] are told of each. fn
// begins without local variables, and leaves none.
func (e *PoolExecutor) Post(fn func()) error {
	e.check("Post")
	if fn == nil {
		panic("asyncsync: PoolExecutor.Post: nil function")
	}
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return loop.ErrStopped
	}
	e.queue = append(e.queue, fn)
	t := e.takeIdle()
	e.mu.Unlock()
	if t != nil {
		defer e.starting.Done()
		e.start(t)
	}
	return nil
}

// quiet hides a call that is not the user's from hooks. A hook that fails would look
// like a thread that cannot be had.
func quiet(s *settings) { s.Options.Quiet = true }

// start makes t run what is in the queue.
func (e *PoolExecutor) start(t *executorThread) {
	var begun atomic.Bool
	var same *core.Task
	tk := Go(t.ctx, func(context.Context) (struct{}, error) {
		begun.Store(true)
		e.drain(t)
		return struct{}{}, nil
	}, Named("executor"), quiet, func(s *settings) { s.Options.Into = &same })
	go func() {
		if <-tk.Done(); !begun.Load() {
			e.refused(t, errors.Is(same.Refusal(), ErrClosed))
		}
	}()
}

// refused handles a thread that cannot be had, for now or for good. The other
// threads run what is queued. If there are none, the executor tries again later.
// For good, or once the executor is closed, there is no later: the queue will
// never run and the executor ends.
func (e *PoolExecutor) refused(t *executorThread, forGood bool) {
	e.mu.Lock()
	e.idle = slices.Insert(e.idle, 0, t) // behind those that have a thread
	if len(e.idle) == len(e.threads) && len(e.queue) > 0 {
		if forGood || e.closed {
			e.closed, e.queue = true, nil
		} else {
			e.pause = min(max(minPause, 2*e.pause), maxPause)
			e.again = time.AfterFunc(e.pause, e.tryAgain)
		}
	}
	ended := e.ended()
	e.mu.Unlock()
	if ended {
		e.finish()
	}
}

// tryAgain is the attempt that refused has scheduled.
func (e *PoolExecutor) tryAgain() {
	e.mu.Lock()
	t := e.attempt()
	e.mu.Unlock()
	if t != nil {
		defer e.starting.Done()
		e.start(t)
	}
}

// attempt takes a thread for the attempt that is due, nil if none is: it has been
// made meanwhile, or there is nothing to run. The caller starts the thread and
// then calls starting.Done. e.mu is held.
func (e *PoolExecutor) attempt() *executorThread {
	if e.again == nil {
		return nil
	}
	e.again.Stop()
	e.again = nil
	if len(e.queue) == 0 {
		return nil
	}
	return e.takeIdle()
}

// takeIdle takes a thread that has nothing to run, nil if there is none. The
// caller starts it and then calls starting.Done. e.mu is held.
func (e *PoolExecutor) takeIdle() *executorThread {
	n := len(e.idle)
	if n == 0 {
		return nil
	}
	t := e.idle[n-1]
	e.idle = e.idle[:n-1]
	e.starting.Add(1)
	return t
}

// drain runs on t what is in the queue. If a function calls Goexit, drain runs the
// rest of the queue before it ends in the same way.
func (e *PoolExecutor) drain(t *executorThread) {
	returned := false
	defer func() {
		if !returned {
			e.drain(t)
			goroutine.Current().Told = true // of each Goexit by itself
		}
	}()
	for fn := e.next(t); fn != nil; fn = e.next(t) {
		t.run(fn)
	}
	returned = true
}

// run runs a posted function. Only a Goexit comes out of it.
func (t *executorThread) run(fn func()) {
	rec := goroutine.Current() // the thread's: it is always there
	rec.Values, rec.Told = goroutine.Values{}, false
	returned := false
	defer func() {
		rec.Values = goroutine.Values{}
		if returned {
			return
		}
		v := recover()
		if v == nil && rec.Told {
			return // it was a call whose waiter has been told
		}
		core.TellUnheardOfLoop(t.ctx, core.Recover(v), "posted function")
	}()
	fn()
	returned = true
}

// next returns the next function for t, or nil if t is now idle.
func (e *PoolExecutor) next(t *executorThread) func() {
	e.mu.Lock()
	if len(e.queue) == 0 {
		e.idle = append(e.idle, t)
		ended := e.ended()
		e.mu.Unlock()
		if ended {
			e.finish()
		}
		return nil
	}
	e.pause = 0
	fn := e.queue[0]
	e.queue[0] = nil
	e.queue = e.queue[1:]
	e.mu.Unlock()
	return fn
}

// Done returns a channel that is closed when the executor has been closed and
// the last function has ended.
func (e *PoolExecutor) Done() <-chan struct{} {
	e.check("Done")
	return e.done
}

// Cancel closes the executor and drops the queued functions. Callers that wait
// for one of these get [loop.ErrStopped] when the running functions have ended.
// Cancel does not wait; [PoolExecutor.Close] does. It may be called at any
// time.
func (e *PoolExecutor) Cancel() {
	e.check("Cancel")
	e.close(true)
}

// Close closes the executor, waits until the posted functions have run, and
// gives the threads back. It returns the errors of their exit functions. A
// second Close waits as well. Called on a thread of the executor, Close does
// not wait for that thread, which is given back when the function has ended.
func (e *PoolExecutor) Close() error {
	e.check("Close")
	return e.end(func(t *executorThread) error { return t.tsc.Close() })
}

// Shutdown is [PoolExecutor.Close] with a limit on the wait. When ctx ends, it
// returns an error that matches the cause of ctx and says what runs. The posted
// functions still run, unless the executor has no thread yet. Called on a
// thread of the executor, Shutdown returns an error that matches
// deadlock.ErrDeadlock; the thread is given back when the function has ended.
func (e *PoolExecutor) Shutdown(ctx context.Context) error {
	checkCtx(ctx, "PoolExecutor.Shutdown")
	e.check("Shutdown")
	return e.end(func(t *executorThread) error { return t.tsc.Shutdown(ctx) })
}

func (e *PoolExecutor) end(close func(*executorThread) error) error {
	e.close(false)
	e.starting.Wait() // so that no start comes after the closing of its thread
	var errs []error
	for _, t := range e.threads {
		errs = append(errs, close(t))
	}
	return errors.Join(errs...)
}

// close refuses functions that are posted from now on. An attempt that is due is
// made now.
func (e *PoolExecutor) close(cancel bool) {
	e.mu.Lock()
	e.closed = true
	if cancel {
		e.queue = nil
	}
	t := e.attempt()
	ended := e.ended()
	e.mu.Unlock()
	if t != nil {
		defer e.starting.Done()
		e.start(t)
	}
	if ended {
		e.finish()
	}
}

// ended reports whether nothing runs or will run any more. e.mu is held.
func (e *PoolExecutor) ended() bool {
	return e.closed && len(e.queue) == 0 && len(e.idle) == len(e.threads)
}

func (e *PoolExecutor) finish() { e.over.Do(func() { close(e.done) }) }

func (e *PoolExecutor) check(what string) {
	if e == nil || e.done == nil {
		panic("asyncsync: PoolExecutor." + what + ": nil PoolExecutor, or one not made by NewPoolExecutor")
	}
}
