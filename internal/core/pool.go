package core

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"asyncsync.dev/internal/cycle"
	"asyncsync.dev/internal/goroutine"
)

// bubble returns the synctest bubble of the caller, 0 for none.
func bubble() int64 { return goroutine.Bubble() }

// surplusDelay is how long idle workers beyond MaxIdle are kept.
const surplusDelay = 10 * time.Millisecond

// Defaults for a pool's configuration, and for the default pool.
const (
	DefaultMaxThreads  = 128
	DefaultMaxIdle     = 16
	DefaultIdleTimeout = 10 * time.Second
)

// DefaultPool serves contexts that name no other.
var DefaultPool = NewPool(DefaultMaxThreads, DefaultMaxThreads, DefaultMaxIdle, DefaultIdleTimeout)

// NewPool returns a pool without workers.
func NewPool(max, maxOverflow, maxIdle int, timeout time.Duration) *Pool {
	return &Pool{
		max: max, maxOverflow: maxOverflow, maxIdle: maxIdle, timeout: timeout,
		bubble: bubble(), ended: make(chan struct{}),
	}
}

// get gives t a worker, or a place in the line. It reports false when the pool
// is closed.
func (p *Pool) get(t *Thread) bool {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return false
	}
	if n := len(p.idle); n > 0 {
		w := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		w.take(t)
		return true
	}
	if p.alive >= p.max {
		p.waiting = append(p.waiting, t)
		p.lineChanged()
		p.watchLine()
		p.mu.Unlock()
		return true
	}
	p.grow()
	p.mu.Unlock()
	startWorker(p, true, t)
	return true
}

// overflow gives t, which a thread of the pool is blocked for, a worker beyond max
// if it stands in line. If there are maxOverflow such workers already, it reports
// false: t stays in line, but may have a worker beyond max as soon as one ends.
func (p *Pool) overflow(t *Thread) bool {
	p.mu.Lock()
	i := slices.Index(p.waiting, t)
	switch {
	case i < 0: // it has a worker by now, or is about to
	case p.alive < p.max+p.maxOverflow:
		p.unline(i)
		p.grow()
	default:
		if p.urgent == nil {
			p.urgent = make(map[*Thread]struct{})
		}
		p.urgent[t] = struct{}{}
		p.mu.Unlock()
		return false
	}
	p.mu.Unlock()
	if i >= 0 {
		startWorker(p, true, t)
	}
	return true
}

// overflow keeps the thread of c from waiting in line if that wait could last for
// ever. The thread had no worker when c was queued. The wait could last for ever
// if a function on a thread of the same pool is blocked for one of the calls
// queued on it. The same holds if ctx carries a context that has a thread of that
// pool, because that context stays open until c's caller has ended. overflow
// reports whether the thread has a worker or is about to get one.
func (c *Call) overflow(ctx context.Context) bool {
	t := c.thread.Load()
	p := t.pool
	if p.lined.Load() == 0 {
		return true // a thread that joins the line after this look calls overflow itself
	}
	near := ScopeOf(ctx)
	if near != nil && near.kind == contextScope && near.root.thread.Load().holds(p) || p.blockedForCallOf(t) {
		return p.overflow(t)
	}
	return false
}

// standsInLine reports whether the thread of c stands in the line of its
// pool.
func (c *Call) standsInLine() bool {
	t := c.thread.Load()
	if t.pool == nil || t.pool.lined.Load() == 0 {
		return false
	}
	t.pool.mu.Lock()
	defer t.pool.mu.Unlock()
	return slices.Contains(t.pool.waiting, t)
}

// holds reports whether t, which may be nil, is a thread of p and has a goroutine.
func (t *Thread) holds(p *Pool) bool {
	return t != nil && t.pool == p && t.gid.Load() != 0
}

// blockedForCallOf reports whether a thread of the pool is blocked in a wait for a call
// that is queued on t, directly or not. t has no frames.
func (p *Pool) blockedForCallOf(t *Thread) bool {
	t.mu.Lock()
	var nodes []*Node
	for c := t.main.head; c != nil; c = c.next {
		nodes = append(nodes, c.node)
	}
	t.mu.Unlock()
	return slices.ContainsFunc(nodes, p.blockedFor)
}

// blockedFor reports whether a thread of the pool is blocked in a wait for n, directly or
// not.
func (p *Pool) blockedFor(n *Node) bool {
	var frames []*Frame
	n.waiters(func(f *Frame) bool {
		if f.thread.pool == p {
			frames = append(frames, f)
		}
		return true
	})
	return slices.ContainsFunc(frames, func(f *Frame) bool {
		f.thread.mu.Lock()
		defer f.thread.mu.Unlock()
		return f.live
	})
}

// reconsider calls overflow for threads in line that a thread of the pool is
// blocked for by now. p may be nil. No lock is held.
func (p *Pool) reconsider() {
	if p == nil || p.lined.Load() == 0 {
		return
	}
	p.mu.Lock()
	waiting := slices.Clone(p.waiting)
	p.mu.Unlock()
	for _, t := range waiting {
		if p.blockedForCallOf(t) {
			p.overflow(t)
		}
	}
}

// grow accounts for one more worker. p.mu is held.
func (p *Pool) grow() {
	p.alive++
	p.started++
	p.peak = max(p.peak, p.alive)
}

// take makes the sleeping w work for t.
func (w *worker) take(t *Thread) {
	w.thread.Store(t)
	w.wake <- struct{}{}
}

// withdraw takes t out of the line. It reports false if it is not there.
func (p *Pool) withdraw(t *Thread) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.waiting, t)
	if i < 0 {
		return false
	}
	p.unline(i)
	return true
}

// unline takes the thread at place i out of the line. p.mu is held.
func (p *Pool) unline(i int) *Thread {
	t := p.waiting[i]
	if i == 0 {
		p.waiting[0] = nil
		p.waiting = p.waiting[1:] // the cost must not depend on the length of the line
	} else {
		p.waiting = slices.Delete(p.waiting, i, i+1)
	}
	delete(p.urgent, t)
	p.stall.moved = true
	p.lineChanged()
	return t
}

// How long a line stands still before it asks for the first collection, and the
// longest time from one to the next.
const (
	stallFirst = 100 * time.Millisecond
	stallMost  = time.Minute
)

// watchLine sets the timer of the stall unless it is set already. p.mu is held.
// It does nothing in a synctest bubble, where no context is collected.
func (p *Pool) watchLine() {
	if p.stall.timer != nil || p.bubble != 0 {
		return
	}
	p.stall.moved, p.stall.delay = false, stallFirst
	p.stall.timer = time.AfterFunc(stallFirst, p.stalled)
}

// stalled collects garbage if the line has not moved since the timer was set. It
// is called by the timer, on a goroutine of its own.
func (p *Pool) stalled() {
	p.mu.Lock()
	still := len(p.waiting) > 0 && !p.stall.moved
	p.mu.Unlock()
	if still {
		runtime.GC()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) == 0 {
		p.stall.timer = nil
		return
	}
	if p.stall.moved {
		p.stall.delay = stallFirst
	} else {
		p.stall.delay = min(2*p.stall.delay, stallMost)
	}
	p.stall.moved = false
	p.stall.timer.Reset(p.stall.delay)
}

// put takes back a worker that has nothing to do.
func (p *Pool) put(w *worker) {
	p.mu.Lock()
	if t := p.dequeue(p.alive); t != nil {
		p.mu.Unlock()
		w.take(t)
		return
	}
	if p.closed || p.alive > p.max {
		p.mu.Unlock()
		w.sendHome()
		return
	}
	w.since = time.Now().UnixNano()
	p.idle = append(p.idle, w)
	// The timer is already set for the worker that has been idle longest. Only
	// a worker beyond maxIdle needs it earlier.
	if p.due == 0 || len(p.idle) > p.maxIdle {
		p.arm()
	}
	p.mu.Unlock()
}

// dequeue takes the thread that is to get the next worker out of the line and
// returns it, or nil. alive is the number of workers including that one: up to
// max it is the first thread in line, beyond max the first that may overflow.
// p.mu is held.
func (p *Pool) dequeue(alive int) *Thread {
	switch {
	case len(p.waiting) == 0:
	case alive <= p.max:
		return p.unline(0)
	case len(p.urgent) > 0:
		return p.unline(slices.IndexFunc(p.waiting, func(t *Thread) bool {
			_, ok := p.urgent[t]
			return ok
		}))
	}
	return nil
}

// exited notes that a worker has ended, and starts a new one if a thread in
// line may have it.
func (p *Pool) exited() {
	p.mu.Lock()
	p.alive--
	t := p.dequeue(p.alive + 1)
	if t != nil {
		p.grow()
	}
	if p.closed && p.alive == 0 {
		close(p.ended)
	}
	p.mu.Unlock()
	if t != nil {
		startWorker(p, true, t)
	}
}

// arm sets the timer for the next worker that has been idle long enough. p.mu
// is held. In a foreign bubble arm does nothing, because the timer would belong
// to that bubble and its clock. The next put outside sets the timer.
func (p *Pool) arm() {
	if len(p.idle) == 0 || bubble() != p.bubble {
		return
	}
	now := time.Now().UnixNano()
	due := p.idle[0].since + int64(p.timeout)
	if len(p.idle) > p.maxIdle {
		due = min(due, now+int64(surplusDelay))
	}
	if p.due != 0 && p.due <= due {
		return
	}
	p.due = due
	wait := time.Duration(due - now)
	if p.timer == nil {
		p.timer = time.AfterFunc(wait, p.reap)
	} else {
		p.timer.Reset(wait)
	}
}

// reap ends workers that were idle too long, and those beyond maxIdle, oldest
// first.
func (p *Pool) reap() {
	p.mu.Lock()
	p.due = 0
	now := time.Now().UnixNano()
	n := max(0, len(p.idle)-p.maxIdle)
	for n < len(p.idle) && now-p.idle[n].since >= int64(p.timeout) {
		n++
	}
	home := p.cut(n)
	p.arm()
	p.mu.Unlock()
	for _, w := range home {
		w.sendHome()
	}
}

// cut removes the n oldest idle workers. p.mu is held.
func (p *Pool) cut(n int) []*worker {
	home := append([]*worker(nil), p.idle[:n]...)
	rest := copy(p.idle, p.idle[n:])
	clear(p.idle[rest:])
	p.idle = p.idle[:rest]
	return home
}

// exitFailed keeps the failure of OnExit for Close.
func (p *Pool) exitFailed(e Ending) {
	err := errors.New("asyncsync: ThreadExit function called runtime.Goexit")
	if e.Panic != nil {
		err = fmt.Errorf("asyncsync: ThreadExit function panicked: %v", e.Panic.Value)
	}
	p.mu.Lock()
	p.err = errors.Join(p.err, err)
	p.mu.Unlock()
}

// Close ends idle workers now and the others as they are given back, and waits for
// all, unless the caller is one of them or one is blocked for the caller. Threads
// already in line get theirs first; new ones are refused. It returns the failures of
// OnExit that no earlier Close or Shutdown has returned.
func (p *Pool) Close() error {
	p.shut()
	if p.inside() {
		return nil
	}
	if p.await(context.Background()) != nil {
		return nil // a thread of the pool waits for the caller, through others
	}
	return p.takeError()
}

// await waits until no worker is left, or ctx ends, whose cause it returns.
func (p *Pool) await(ctx context.Context) error {
	own, rec := current()
	return wait(ctx, own, rec, &goal{target: forPool{p}, ctx: ctx}, nil, p.ended, "pool close")
}

func (p *Pool) takeError() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.err
	p.err = nil
	return err
}

// Shutdown is Close until ctx ends; then the calls of threads in line are refused,
// and the error says how many workers have not been given back.
func (p *Pool) Shutdown(ctx context.Context) error {
	p.shut()
	select {
	case <-p.ended:
		return p.takeError()
	default:
	}
	if p.inside() {
		return &DeadlockError{Message: "Shutdown of a pool waits for a function on one of its threads that waits for it", Page: cycle.PageShutdown}
	}
	switch err := p.await(ctx); {
	case err == nil:
		return p.takeError()
	case Refused(ctx, err):
		return err
	}
	p.mu.Lock()
	lent := p.alive - len(p.idle)
	lined := p.waiting
	p.waiting, p.urgent = nil, nil
	p.lineChanged()
	p.mu.Unlock()
	for _, t := range lined {
		t.fail(errPoolClosed)
	}
	return fmt.Errorf("asyncsync: shutdown of a pool gave up, %d of its threads are not given back: %w", lent, Cause(ctx))
}

// inside reports whether the caller is a thread of the pool, or runs for a
// function that blocks one.
func (p *Pool) inside() bool {
	own, rec := current()
	if own.holds(p) {
		return true
	}
	n := waiter(rec)
	return n != nil && p.blockedFor(n)
}

// shut refuses new threads, and ends idle workers.
func (p *Pool) shut() {
	p.mu.Lock()
	first := !p.closed
	p.closed = true
	home := p.cut(len(p.idle))
	if first && p.alive == 0 {
		close(p.ended)
	}
	if p.timer != nil {
		p.timer.Stop()
	}
	p.mu.Unlock()
	for _, w := range home {
		w.sendHome()
	}
}

// Stats returns the state of the pool.
func (p *Pool) Stats() PoolStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return PoolStats{Threads: p.alive, Overflow: max(0, p.alive-p.max), Idle: len(p.idle), Waiting: len(p.waiting), Peak: p.peak, Started: p.started}
}

func (f forPool) kind() string { return "pool close" }

func (f forPool) name() string { return "" }

func (f forPool) mayWait() bool { return true }

func (f forPool) next() (*Call, *Node) { return nil, nil }

func (f forPool) reached() any { return nil }

func (f forPool) needs(q *query) (n cycle.Needs) {
	for _, t := range f.p.lent() {
		n.Of = append(n.Of, q.stack(t, 0)...)
	}
	return n
}

func (f forPool) report(_ *view, w *WaitState) {
	for _, t := range f.p.lent() {
		w.Threads = append(w.Threads, t.id)
	}
	w.Threads = w.Threads[:min(len(w.Threads), graphMembers)]
}
