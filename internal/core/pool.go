package core

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"asyncsync.dev/internal/goroutine"
)

// bubble returns the synctest bubble of the caller, 0 for none.
func bubble() int64 { return goroutine.Bubble() }

// A Pool lends pinned workers. At most max exist at a time; who finds none
// free waits in line. Idle ones are used again last in, first out, so that the
// rest can grow old and end.
type Pool struct {
	max, maxIdle int
	timeout      time.Duration
	bubble       int64 // where it was made: its workers belong there

	lined atomic.Int32 // the length of waiting, for a look without the lock

	mu      sync.Mutex // guards the rest; lines alone is locked under it
	alive   int
	idle    []*worker // oldest first
	waiting []*Thread
	closed  bool
	timer   *time.Timer
	due     int64         // when timer fires, 0 for not at all
	ended   chan struct{} // closed when closed and none is alive
	peak    int
	started uint64
}

// surplusDelay is how long workers beyond MaxIdle are kept for the next one
// who asks.
const surplusDelay = 10 * time.Millisecond

// The size of the default pool, and of those that do not say.
const (
	DefaultMaxThreads  = 128
	DefaultMaxIdle     = 16
	DefaultIdleTimeout = 10 * time.Second
)

// DefaultPool serves contexts that name no other.
var DefaultPool = NewPool(DefaultMaxThreads, DefaultMaxIdle, DefaultIdleTimeout)

// NewPool returns a pool without workers.
func NewPool(max, maxIdle int, timeout time.Duration) *Pool {
	return &Pool{max: max, maxIdle: maxIdle, timeout: timeout, bubble: bubble(), ended: make(chan struct{})}
}

// full reports whether a thread that asks now would have to wait.
func (p *Pool) full() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle) == 0 && p.alive >= p.max
}

// get gives t a worker, or a place in the line. ok is false when the pool is
// closed.
func (p *Pool) get(t *Thread) (ok, lined bool) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return false, false
	}
	if n := len(p.idle); n > 0 {
		w := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		w.take(t)
		return true, false
	}
	if p.alive >= p.max {
		p.waiting = append(p.waiting, t)
		p.lineChanged()
		p.mu.Unlock()
		return true, true
	}
	p.grow()
	p.mu.Unlock()
	startWorker(p, true, t)
	return true, false
}

// lines holds the pools that somebody waits in line for.
var lines struct {
	sync.Mutex
	pools map[*Pool]struct{}
}

// lineChanged says that waiting has. p.mu is held.
func (p *Pool) lineChanged() {
	was, is := p.lined.Swap(int32(len(p.waiting))) > 0, len(p.waiting) > 0
	if was == is {
		return
	}
	lines.Lock()
	defer lines.Unlock()
	if !is {
		delete(lines.pools, p)
		return
	}
	if lines.pools == nil {
		lines.pools = make(map[*Pool]struct{})
	}
	lines.pools[p] = struct{}{}
}

// linedThreads returns the threads that wait in line for a worker, of all pools.
func linedThreads() []*Thread {
	lines.Lock()
	pools := make([]*Pool, 0, len(lines.pools))
	for p := range lines.pools {
		pools = append(pools, p)
	}
	lines.Unlock()
	var threads []*Thread
	for _, p := range pools {
		p.mu.Lock()
		threads = append(threads, p.waiting...)
		p.mu.Unlock()
	}
	return threads
}

// relend lends the threads that are blocked, and now wait for calls of contexts
// in line, to these. p may be nil.
func (p *Pool) relend() {
	if p == nil || p.lined.Load() == 0 {
		return
	}
	p.mu.Lock()
	waiting := slices.Clone(p.waiting)
	p.mu.Unlock()
	for _, t := range waiting {
		t.mu.Lock()
		var scopes []*Scope
		var nodes []*Node
		for c := t.main.head; c != nil; c = c.next {
			scopes, nodes = append(scopes, c.scope.root), append(nodes, c.by)
		}
		t.mu.Unlock()
		for i, s := range scopes {
			s.borrow(t, nil, nodes[i])
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
	for i, o := range p.waiting {
		if o == t {
			p.waiting = append(p.waiting[:i], p.waiting[i+1:]...)
			p.lineChanged()
			return true
		}
	}
	return false
}

// put takes back a worker that has nothing to do.
func (p *Pool) put(w *worker) {
	p.mu.Lock()
	if t := p.dequeue(); t != nil {
		p.mu.Unlock()
		w.take(t)
		return
	}
	if p.closed {
		p.mu.Unlock()
		w.sendHome()
		return
	}
	w.since = time.Now().UnixNano()
	p.idle = append(p.idle, w)
	// The timer is set for the one that has been idle longest; only a surplus
	// wants it earlier.
	if p.due == 0 || len(p.idle) > p.maxIdle {
		p.arm()
	}
	p.mu.Unlock()
}

func (p *Pool) dequeue() *Thread {
	if len(p.waiting) == 0 {
		return nil
	}
	t := p.waiting[0]
	p.waiting[0] = nil
	p.waiting = p.waiting[1:]
	p.lineChanged()
	return t
}

// exited says that a worker is gone. Who waits gets a new one.
func (p *Pool) exited() {
	p.mu.Lock()
	p.alive--
	t := p.dequeue()
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
// is held. A timer set in a foreign bubble would belong to it, and to its
// clock: there the next put outside sets it.
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

// Close ends idle workers now and the others as they are given back, and waits
// for all. Threads already in line get theirs first; new ones are refused.
func (p *Pool) Close() {
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
	Park(context.Background(), p.ended, "pool close")
}

// PoolStats is the state of a pool at one moment.
type PoolStats struct {
	Threads int    // alive now
	Idle    int    // of these, lent to nobody
	Waiting int    // contexts in line
	Peak    int    // most alive at one time
	Started uint64 // ever
}

// Stats returns the state of the pool.
func (p *Pool) Stats() PoolStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return PoolStats{Threads: p.alive, Idle: len(p.idle), Waiting: len(p.waiting), Peak: p.peak, Started: p.started}
}
