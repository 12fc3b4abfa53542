package asyncsync

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"asyncsync.dev/loop"
)

// A PoolExecutor runs posted functions on a number of threads, each of which runs
// one at a time. It is for work that must be on a thread, but not on a particular
// one: a C library that is slow, or keeps state in the thread, of which each call
// needs one.
//
// It is a [loop.Loop]: task.On starts a task there, task.Map many, and
// [WithExecutor] sends it an insensitive call. A posted function is sync code. It
// may call [FromThread], and its thread serves meanwhile; calls below it find that
// thread.
//
// Functions begin in the order in which they were posted, on whichever thread is
// free. A thread is taken from its pool when it is needed first (see [WithPool]),
// and kept until the executor is closed.
//
// It is Python's ThreadPoolExecutor, on threads that are kept. Make one with
// [NewPoolExecutor]; its methods may be called from anywhere. If no thread can be had
// any more, because the pool is closed, say, the executor ends, and Done is closed.
type PoolExecutor struct {
	onThreads
	threads []*executorThread
	done    chan struct{}
	over    sync.Once // closes done

	// starting counts the threads that are about to be asked: Close closes none of
	// them before. It is added to under mu, and not when closed is set.
	starting sync.WaitGroup

	mu     sync.Mutex // guards the rest; a leaf lock
	queue  []func()
	idle   []*executorThread // have nothing to run, nor are about to
	closed bool
}

// onThreads says to package loop that what is posted is sync code, on a thread.
type onThreads struct{}

// RunsOnThreads is for package loop.
func (onThreads) RunsOnThreads() {}

type executorThread struct {
	ctx context.Context
	tsc *ThreadSensitiveContext
}

// NewPoolExecutor returns an executor with n threads, each with a context that is
// made with opts. It panics if n is not positive.
func NewPoolExecutor(n int, opts ...ContextOption) *PoolExecutor {
	if n <= 0 {
		panic(fmt.Sprintf("asyncsync: NewPoolExecutor: %d threads, want one or more", n))
	}
	e := &PoolExecutor{done: make(chan struct{})}
	for range n {
		ctx, tsc := NewThreadSensitiveContext(context.Background(), opts...)
		e.threads = append(e.threads, &executorThread{ctx, tsc})
	}
	for i := n - 1; i >= 0; i-- { // the first is used first, so that few are taken
		e.idle = append(e.idle, e.threads[i])
	}
	return e
}

// Post has fn run on one of the threads. It returns at once. After Close, Shutdown
// or Cancel it returns [loop.ErrStopped], and fn does not run.
//
// A panic of fn, or a Goexit, ends fn and not the thread; [Hooks] are told of it
// when what stands in the queue has been run.
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
	n := len(e.idle)
	if n == 0 {
		e.mu.Unlock()
		return nil
	}
	t := e.idle[n-1]
	e.idle = e.idle[:n-1]
	e.starting.Add(1)
	e.mu.Unlock()
	defer e.starting.Done()
	e.start(t)
	return nil
}

// start has t run what is in the queue.
func (e *PoolExecutor) start(t *executorThread) {
	var begun atomic.Bool
	tk := Go(t.ctx, func(context.Context) (struct{}, error) {
		begun.Store(true)
		e.drain(t)
		return struct{}{}, nil
	}, Named("executor"))
	go func() {
		if <-tk.Done(); !begun.Load() {
			e.refused(t)
		}
	}()
}

// refused says that t cannot be had, because its pool is full or closed. The others
// run what is queued. If there are none it will never be run, and the executor ends.
func (e *PoolExecutor) refused(t *executorThread) {
	e.mu.Lock()
	e.idle = append(e.idle, t)
	if len(e.idle) == len(e.threads) && len(e.queue) > 0 {
		e.closed, e.queue = true, nil
	}
	ended := e.ended()
	e.mu.Unlock()
	if ended {
		e.finish()
	}
}

// drain runs on t what is in the queue. A function that does not return takes drain
// with it, when the others have run.
func (e *PoolExecutor) drain(t *executorThread) {
	returned := false
	defer func() {
		if !returned {
			e.drain(t)
		}
	}()
	for fn := e.next(t); fn != nil; fn = e.next(t) {
		fn()
	}
	returned = true
}

// next returns what t is to run, nil if t is idle now.
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
	fn := e.queue[0]
	e.queue[0] = nil
	e.queue = e.queue[1:]
	e.mu.Unlock()
	return fn
}

// Done is closed when the executor has been closed and the last function has ended.
func (e *PoolExecutor) Done() <-chan struct{} {
	e.check("Done")
	return e.done
}

// Cancel closes the executor, and has what is queued not run: who waits for that
// gets [loop.ErrStopped] when those that run have ended, which Cancel does not wait
// for. Call [PoolExecutor.Close] to do so. It may be called at any time.
func (e *PoolExecutor) Cancel() {
	e.check("Cancel")
	e.close(true)
}

// Close closes the executor, waits until what was posted has run, and lets the
// threads go. It returns the errors of their exit functions. A second one waits,
// too. On a thread of the executor itself it does not wait for that one, which is
// let go when the function has ended.
func (e *PoolExecutor) Close() error {
	e.check("Close")
	return e.end(func(t *executorThread) error { return t.tsc.Close() })
}

// Shutdown is [PoolExecutor.Close] for a caller that does not wait for ever: when
// ctx ends it returns an error that matches its cause, and says what runs. Functions
// that were posted run all the same.
func (e *PoolExecutor) Shutdown(ctx context.Context) error {
	checkCtx(ctx, "PoolExecutor.Shutdown")
	e.check("Shutdown")
	return e.end(func(t *executorThread) error { return t.tsc.Shutdown(ctx) })
}

func (e *PoolExecutor) end(close func(*executorThread) error) error {
	e.close(false)
	e.starting.Wait() // for what does not wait itself
	var errs []error
	for _, t := range e.threads {
		errs = append(errs, close(t))
	}
	return errors.Join(errs...)
}

// close refuses what is posted from now on.
func (e *PoolExecutor) close(cancel bool) {
	e.mu.Lock()
	e.closed = true
	if cancel {
		e.queue = nil
	}
	ended := e.ended()
	e.mu.Unlock()
	if ended {
		e.finish()
	}
}

// ended reports whether nothing runs any more, nor will. e.mu is held.
func (e *PoolExecutor) ended() bool {
	return e.closed && len(e.queue) == 0 && len(e.idle) == len(e.threads)
}

func (e *PoolExecutor) finish() { e.over.Do(func() { close(e.done) }) }

func (e *PoolExecutor) check(what string) {
	if e == nil || e.done == nil {
		panic("asyncsync: PoolExecutor." + what + ": nil PoolExecutor, or one not made by NewPoolExecutor")
	}
}
