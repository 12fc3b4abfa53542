package core

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Hooks are told of calls. Nil functions are not called.
type Hooks struct {
	Queued    func(CallInfo)
	Started   func(CallInfo)
	Ended     func(CallInfo)
	Abandoned func(CallInfo)
	Panicked  func(CallInfo)
}

// CallInfo is what a hook is told of one call.
type CallInfo struct {
	Ctx       context.Context
	Name      string
	Context   string // the name of the ThreadSensitiveContext
	Thread    int    // the OS thread's id, 0 where there is none
	Inline    bool   // the caller was on the thread already
	Err       error  // what the function returned
	Panic     any    // what it panicked with
	Stack     []byte // where, at the origin
	Goexit    bool
	QueueTime time.Duration
	RunTime   time.Duration
}

var hooks atomic.Pointer[Hooks]

// hooksMu serializes SetHooks and its restores.
var hooksMu sync.Mutex

// SetHooks replaces the hooks and returns what puts the old ones back.
func SetHooks(h Hooks) (restore func()) {
	hooksMu.Lock()
	defer hooksMu.Unlock()
	old := hooks.Swap(&h)
	var once sync.Once
	return func() {
		once.Do(func() { hooks.Store(old) })
	}
}

// Failing is a Body that knows the error its function returned.
type Failing interface{ Err() error }

func (c *Call) info(t *Thread) CallInfo {
	i := CallInfo{Ctx: c.ctx, Name: c.Name(), Inline: c.inline}
	if i.Ctx == nil {
		i.Ctx = context.Background()
	}
	if c.scope != nil {
		i.Context = c.scope.Name()
	}
	if t != nil {
		i.Thread = int(t.tid.Load())
	}
	if w := c.watched; w != nil && !w.startedAt.IsZero() {
		i.QueueTime = w.startedAt.Sub(w.queuedAt)
		if !w.endedAt.IsZero() {
			i.RunTime = w.endedAt.Sub(w.startedAt)
		}
	}
	return i
}

// A watch is the hooks that were set when a call was made, and what they are
// told of it: queuedAt is set by the submitter, the rest by the thread.
type watch struct {
	*Hooks
	queuedAt, startedAt, endedAt time.Time
}

// begin tells the hooks that a call was made.
func (c *Call) begin(ctx context.Context) {
	h := hooks.Load()
	if h == nil {
		return
	}
	c.watched = &watch{Hooks: h, queuedAt: time.Now()}
	if h.Queued != nil {
		i := c.info(nil)
		i.Ctx = ctx
		h.Queued(i)
	}
}

// started tells them that its function begins.
func (c *Call) started(t *Thread) {
	if c.watched == nil {
		return
	}
	c.watched.startedAt = time.Now()
	if c.watched.Started != nil {
		c.watched.Started(c.info(t))
	}
}

// over tells them how it ended.
func (c *Call) over(t *Thread) {
	if c.watched == nil {
		if c.ending.Panic == nil || hooks.Load() == nil {
			return
		}
	} else {
		c.watched.endedAt = time.Now()
	}
	i := c.outcome(t)
	if p := c.ending.Panic; p != nil {
		p.tell(i)
	}
	if w := c.watched; w != nil && w.Ended != nil {
		w.Ended(i)
	}
}

// refused tells them that a call did not run, and why. It is told by the
// caller; an abandoned call has run.
func (c *Call) refused(ctx context.Context, err error) {
	if c.watched.Ended == nil || errors.Is(err, ErrAbandoned) {
		return
	}
	i := c.info(nil)
	i.Ctx, i.Err, i.QueueTime = ctx, err, time.Since(c.watched.queuedAt)
	c.watched.Ended(i)
}

// tell gives a panic to the hook, unless it has heard of it.
func (p *Panic) tell(i CallInfo) {
	h := hooks.Load()
	if h == nil || h.Panicked == nil || !p.first() {
		return
	}
	if i.Ctx == nil {
		i.Ctx = context.Background()
	}
	i.Panic, i.Stack = p.Value, p.Stack
	h.Panicked(i)
}

func (c *Call) outcome(t *Thread) CallInfo {
	i := c.info(t)
	i.Goexit = c.ending.Goexit
	if p := c.ending.Panic; p != nil {
		i.Panic, i.Stack = p.Value, p.Stack
	} else if f, ok := c.body.(Failing); ok {
		i.Err = f.Err()
	}
	return i
}

// abandoned gives the outcome of a call whose caller has gone to the hook, on
// a goroutine of its own: what the hook does, the thread need not survive.
func (c *Call) abandoned() {
	h := hooks.Load()
	if h == nil || h.Abandoned == nil {
		return
	}
	go h.Abandoned(c.outcome(c.thread.Load()))
}
