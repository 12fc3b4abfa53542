package core

import (
	"errors"
	"fmt"
	"sync"
)

// A lease is what a context has in its thread: functions to run there first and
// last, and those who wait for the end.
type lease struct {
	onStart []func()
	hooks   *[]*Hooks // of the context

	// Of the thread's goroutine only.
	started bool     // onStart have returned
	onExit  []func() // that have not run yet

	mu      sync.Mutex    // guards the rest; a leaf lock
	exiting string        // the exit function that runs
	over    bool          // the context needs the thread no more
	done    chan struct{} // closed then; nil while nobody waits
	err     error         // of the exit functions
	failure Ending        // of the first that failed
}

// close says that the context needs the thread no more.
func (l *lease) close() {
	l.mu.Lock()
	l.over = true
	done := l.done
	l.mu.Unlock()
	if done != nil {
		close(done)
	}
}

// tell has done closed when the context needs the thread no more.
func (l *lease) tell(done chan struct{}) {
	l.mu.Lock()
	over := l.over
	l.done = done
	l.mu.Unlock()
	if over {
		close(done)
	}
}

func (l *lease) isOver() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.over
}

func (l *lease) takeError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.err
	l.err = nil
	return err
}

// start runs the start functions of t, the OS thread's first. One that does not
// return is run again.
func (l *lease) start(t *Thread) {
	if t.worker != nil { // only t's own goroutine changes it now
		t.worker.start()
	}
	for _, f := range l.onStart {
		f()
	}
	l.started = true
}

// unstarted returns l if its start functions have not returned, else nil.
func (l *lease) unstarted() *lease {
	if l.started {
		return nil
	}
	return l
}

// needsExit reports whether there is something to run when the thread leaves.
// t runs nothing, and whoever asks has seen the end of what it has run.
func (l *lease) needsExit() bool { return l.started && len(l.onExit) > 0 }

// exit runs the exit functions, each once: where one calls Goexit the worker
// comes back here for the rest.
func (l *lease) exit(t *Thread) {
	for l.needsExit() {
		f := l.onExit[0]
		l.onExit = l.onExit[1:]
		l.runs(callName("", FuncPC(f)))
		Observe(f, func(e Ending) {
			l.runs("")
			t.exitFailed(l, "OnThreadExit function", e)
		})
	}
}

// runs says which exit function runs now, "" for none.
func (l *lease) runs(name string) {
	l.mu.Lock()
	l.exiting = name
	l.mu.Unlock()
}

// exits returns the name of the exit function that runs, "" for none.
func (l *lease) exits() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.exiting
}

// exitFailed keeps a failure for Close and tells the hook. The thread is not
// used again: what the function was to undo may not be undone.
func (t *Thread) exitFailed(l *lease, what string, e Ending) {
	var err error
	switch {
	case e.Panic != nil:
		err = fmt.Errorf("asyncsync: %s of %s panicked: %v", what, t.label(), e.Panic.Value)
	case e.Goexit:
		err = fmt.Errorf("asyncsync: %s of %s called runtime.Goexit", what, t.label())
	default:
		return
	}
	if t.own == nil {
		t.taint.Store(true)
	}
	e.count()
	l.mu.Lock()
	l.err = errors.Join(l.err, err)
	if l.failure.Returned() {
		l.failure = e
	}
	l.mu.Unlock()
	if e.Panic != nil {
		e.Panic.tellAll(CallInfo{Name: what, Context: t.name, Thread: int(t.tid.Load())}, audience{hooks.Load(), l.hooks})
	}
}

// Observe runs f and tells end how it ended. A panic goes no further; a Goexit
// does, after end.
func Observe(f func(), end func(Ending)) {
	returned := false
	defer func() {
		if returned {
			end(Ending{})
			return
		}
		end(recovered(recover(), nil))
	}()
	f()
	returned = true
}
