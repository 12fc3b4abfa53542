package core

import (
	"errors"
	"fmt"
	"sync"
)

// A part is what one context has in a thread that it may share with others:
// functions to run on it first and last.
type part struct {
	onStart []func()

	// Of the thread's goroutine only.
	started bool     // onStart have returned
	onExit  []func() // that have not run yet

	mu      sync.Mutex    // guards the rest; a leaf lock
	over    bool          // the context needs the thread no more
	done    chan struct{} // closed then; nil while nobody waits
	err     error         // of the exit functions
	failure Ending        // of the first that failed
}

// close says that the context of p, which may be nil, needs the thread no more.
func (p *part) close() {
	if p == nil {
		return
	}
	p.mu.Lock()
	p.over = true
	done := p.done
	p.mu.Unlock()
	if done != nil {
		close(done)
	}
}

// tell has done closed when the context needs the thread no more.
func (p *part) tell(done chan struct{}) {
	p.mu.Lock()
	over := p.over
	p.done = done
	p.mu.Unlock()
	if over {
		close(done)
	}
}

func (p *part) isOver() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.over
}

// newPart returns nil where there is nothing to run.
func newPart(cfg *Config) *part {
	if len(cfg.OnStart) == 0 && len(cfg.OnExit) == 0 {
		return nil
	}
	return &part{onStart: cfg.OnStart, onExit: cfg.OnExit}
}

func (p *part) takeError() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.err
	p.err = nil
	return err
}

// start runs the start functions. One that does not return is run again.
func (p *part) start() {
	for _, f := range p.onStart {
		f()
	}
	p.started = true
}

// needsExit reports whether the part has something to run when it leaves. t.mu
// is held, and t runs nothing.
func (p *part) needsExit() bool { return p.started && len(p.onExit) > 0 }

// exit runs the exit functions, each once: where one calls Goexit the worker
// comes back here for the rest.
func (p *part) exit(t *Thread) {
	for p.started && len(p.onExit) > 0 {
		f := p.onExit[0]
		p.onExit = p.onExit[1:]
		Observe(f, func(e Ending) { t.exitFailed(p, "OnThreadExit function", e) })
	}
}

// exitFailed keeps a failure for Close and tells the hook. The thread is not
// used again: what the function was to undo may not be undone.
func (t *Thread) exitFailed(p *part, what string, e Ending) {
	var err error
	switch {
	case e.Panic != nil:
		err = fmt.Errorf("asyncsync: %s of %s panicked: %v", what, t.label(), e.Panic.Value)
	case e.Goexit:
		err = fmt.Errorf("asyncsync: %s of %s called runtime.Goexit", what, t.label())
	default:
		return
	}
	t.taint.Store(true)
	e.count()
	p.mu.Lock()
	p.err = errors.Join(p.err, err)
	if p.failure.Returned() {
		p.failure = e
	}
	p.mu.Unlock()
	if e.Panic != nil {
		e.Panic.tell(CallInfo{Name: what, Context: t.name, Thread: int(t.tid.Load())})
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
