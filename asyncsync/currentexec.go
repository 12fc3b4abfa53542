package asyncsync

import (
	"fmt"
	"runtime"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/goroutine"
	"asyncsync.dev/loop"
)

// A CurrentThreadExecutor runs functions on the goroutine that made it, its owner. It
// is a [loop.Loop] for a thread that somebody else owns, such as a GUI's main thread
// or a test's.
//
// The owner runs posted functions by calling [CurrentThreadExecutor.RunUntil] or, from
// a loop of its own, [CurrentThreadExecutor.RunPending]. Others post functions, or
// send it insensitive calls with [WithExecutor] and async functions with [WithLoop]. A
// context or a [Handle] uses the thread with [WithThread]. The owner closes the
// executor after the last RunUntil, so that no caller waits for a further RunUntil.
//
// Posted functions run only while the owner is in RunUntil or RunPending, or in a
// FromThread that waits for the poster. During any other wait of the owner
// (Task.Wait, Group.Wait, Sleep) they stay queued: an owner that waits for a task that
// posts a function and waits for it waits for ever. Once a context has the thread
// ([WithThread]), every wait of the owner through this module runs what is posted by
// the code that it waits for. What others post stays for the next RunUntil.
//
// Functions that nobody runs are no error. Reports of deadlock.Take and deadlock.Watch
// show them queued on a thread, with the words "its goroutine is not in RunUntil,
// RunPending or a wait that serves". With Config.Slow, Watch reports them as slow.
//
// It is asgiref's class of the same name, available by itself.
type CurrentThreadExecutor struct {
	onThreads
	exec *core.Executor
}

// NewCurrentThreadExecutor returns an executor of the calling goroutine.
func NewCurrentThreadExecutor() *CurrentThreadExecutor {
	e := &CurrentThreadExecutor{exec: core.NewExecutor(loop.ErrStopped)}
	// The cleanup removes a dropped executor from its goroutine. It does not close the
	// executor, because the cleanup runs outside of synctest bubbles and the executor's
	// channel may belong to one.
	runtime.AddCleanup(e, (*core.Executor).Disown, e.exec)
	return e
}

// Post hands fn to the RunUntil that is under way or, if there is none, to the
// next one, or to a FromThread of the owner that waits for the code that posts.
// It may be called from anywhere, including the executor's own goroutine, and
// returns at once. Functions run in the order in which they were posted. After
// Close, Post returns [loop.ErrStopped], and fn does not run.
func (e *CurrentThreadExecutor) Post(fn func()) error {
	e.check("Post")
	if fn == nil {
		panic("asyncsync: CurrentThreadExecutor.Post: nil function")
	}
	if !e.exec.Post(fn) {
		return loop.ErrStopped
	}
	return nil
}

// RunUntil runs what is queued until done is closed or delivers a value: posted
// functions, and the calls of contexts that have the thread ([WithThread]). Then
// it runs what is still queued at that moment. What these functions queue in turn
// is left for the next RunUntil.
//
// It must be called on the goroutine that made the executor. Elsewhere it
// returns [ErrWrongThread]. If that goroutine is not yet a thread of this
// library, RunUntil locks it to its OS thread and makes it one for the
// duration. If it is a thread, RunUntil also serves the calls of code started
// by the function that calls it. Below a function of a context RunUntil runs
// posted functions, but not the calls of strangers, which would disturb that
// function.
//
// RunUntil does not know what closes done: with the Done of a task it does not join
// the task. In a function of a context or a [Handle] wait for a task with
// [task.Task.Wait]. If the task was started elsewhere, its calls to the thread are
// those of a stranger to RunUntil, and the function would wait for ever.
//
// If a posted function panics, so does RunUntil; functions that have not begun
// stay for the next RunUntil. If a function calls [runtime.Goexit], the
// goroutine ends, since the function runs on it; a deferred Close tells those
// who wait. After Close, RunUntil returns [loop.ErrStopped], also if Close ended
// it. A nil done panics.
func (e *CurrentThreadExecutor) RunUntil(done <-chan struct{}) error {
	e.check("RunUntil")
	if done == nil {
		panic("asyncsync: RunUntil: nil channel: RunUntil would never end")
	}
	_, err := e.run("RunUntil", done)
	return err
}

// RunPending runs what is queued and returns. It is for a thread with another loop,
// which waits for events of the operating system. It does what RunUntil does with a
// done that is closed already, and returns the number of functions that it has run.
// What these functions queue is left for the next RunPending, and the function of
// [CurrentThreadExecutor.OnWake] is called for it.
func (e *CurrentThreadExecutor) RunPending() (ran int, err error) {
	e.check("RunPending")
	return e.run("RunPending", over)
}

// over is what RunPending runs until.
var over = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func (e *CurrentThreadExecutor) run(what string, done <-chan struct{}) (int, error) {
	defer runtime.KeepAlive(e)
	if !e.exec.Mine() {
		return 0, fmt.Errorf("%w: %s was called on goroutine %d, but must be called on goroutine %d, which made the executor", ErrWrongThread, what, goroutine.ID(), e.exec.Goroutine())
	}
	ran, ok := e.exec.RunUntil(done)
	if !ok {
		return ran, loop.ErrStopped
	}
	return ran, nil
}

// OnWake sets the function that is called when something is queued and nobody runs it.
// f wakes a loop that waits for events of the operating system, so that the loop calls
// RunPending: it pushes an event of its own (SDL_PushEvent, glfw.PostEmptyEvent,
// PostMessage). It must not wait for the loop.
//
// f is called once, and not again before the next RunPending or RunUntil. It is also
// called for what these leave behind, by Close, and by OnWake if something is queued
// already. f runs on a goroutine of its own, without any lock, and may be called once
// more after it has been replaced. If f panics, hooks are told ([AddHooks]). A nil f
// removes the function.
func (e *CurrentThreadExecutor) OnWake(f func()) {
	e.check("OnWake")
	e.exec.OnWake(f)
}

// Close ends the executor. Posted functions that have not begun do not run.
// Calls that wait for such a function, and later calls, return an error that
// matches [loop.ErrStopped]. A RunUntil under way ends when its current
// function has ended. If a posted function has called RunUntil in turn, all of
// these end.
//
// Close may be called from anywhere, including posted functions, and more than
// once. It does not wait, and returns nil.
func (e *CurrentThreadExecutor) Close() error {
	e.check("Close")
	e.exec.Close()
	return nil
}

// Done returns a channel that is closed by Close.
func (e *CurrentThreadExecutor) Done() <-chan struct{} {
	e.check("Done")
	return e.exec.Done()
}

// here reports whether the caller is on the executor's goroutine, where calls
// to the executor run inline. If the executor is closed, it also returns the
// error that these calls get. e may be nil.
func (e *CurrentThreadExecutor) here() (bool, error) {
	if e == nil || !e.exec.Mine() {
		return false, nil
	}
	if e.exec.Closed() {
		return true, loop.ErrStopped
	}
	return true, nil
}

func (e *CurrentThreadExecutor) check(what string) {
	if e == nil || e.exec == nil {
		panic("asyncsync: " + what + ": nil CurrentThreadExecutor, or one not made by NewCurrentThreadExecutor")
	}
}
