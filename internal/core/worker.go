package core

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/pprof"
	"sync/atomic"

	"asyncsync.dev/internal/goroutine"
)

// A worker is a goroutine that runs one Thread after another. Pinned ones are
// locked to their OS thread from birth to death.
type worker struct {
	pool   *Pool // nil for a private one, which ends with its first lease
	pinned bool

	// wake carries at most one token: for a worker that has set its thread's
	// parked sign, from whoever cleared it; for one without a thread, from the
	// pool that gives it one or sends it home.
	wake   chan struct{}
	thread atomic.Pointer[Thread]
	quit   atomic.Bool

	gid     int64
	tid     int64
	record  *goroutine.Record
	unwound int // Goexits that the stack carries: see run

	since int64 // pool.mu: when it became idle
}

// maxUnwound is the number of Goexits after which a worker is not used for
// another lease, so that its stack does not grow without bound.
const maxUnwound = 16

func startWorker(p *Pool, pinned bool, t *Thread) {
	w := &worker{pool: p, pinned: pinned, wake: make(chan struct{}, 1)}
	w.thread.Store(t)
	go w.main()
}

func (w *worker) main() {
	if w.pinned {
		// Never unlocked: the OS thread ends with the goroutine.
		runtime.LockOSThread()
	}
	// A goroutine inherits the labels of the one that started it, who has
	// nothing to do with what will run here.
	pprof.SetGoroutineLabels(context.Background())
	w.record = goroutine.Ensure()
	w.gid = w.record.ID
	if w.pinned {
		w.tid = osThread()
	}
	defer func() {
		w.record.Release()
		if w.pool != nil {
			w.pool.exited()
		}
	}()
	w.run()
}

// run works until the worker is sent home.
//
// A Goexit cannot be stopped, but it runs deferred functions for as long as
// they like: so after a call that ended in Goexit the work goes on inside the
// deferred function, on the same goroutine and OS thread.
func (w *worker) run() {
	done := false
	defer func() {
		if done {
			return
		}
		if r := recover(); r != nil {
			panic(r) // ours: no panic of a call gets here
		}
		w.unwound++
		w.run()
	}()
	for {
		if t := w.thread.Load(); t != nil {
			w.turn(t)
		}
		<-w.wake
		if w.quit.Load() {
			done = true
			return
		}
	}
}

// turn runs what t has to do, and returns when it sleeps or is over.
func (w *worker) turn(t *Thread) {
	t.mu.Lock()
	if t.worker == nil {
		t.attach(w)
	}
	for {
		if c := t.next(); c != nil {
			t.mu.Unlock()
			t.exec(c)
			t.mu.Lock()
			continue
		}
		if !t.ending {
			if t.look() {
				t.mu.Lock()
				continue
			}
			t.parked = true
			t.mu.Unlock()
			return
		}
		t.mu.Unlock()
		t.exits()
		t.mu.Lock()
		if t.next0() {
			continue
		}
		t.detach(w)
		return
	}
}

// next0 reports whether an exit function has left work behind.
func (t *Thread) next0() bool { return t.main.head != nil }

// attach makes w the goroutine of t. t.mu is held, by w.
func (t *Thread) attach(w *worker) {
	t.worker = w
	t.wake = w.wake
	t.record = w.record
	t.gid.Store(w.gid)
	t.tid.Store(w.tid)
	w.record.Owner = t
	if t.name != "" {
		pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels("asyncsync.context", t.name)))
	}
	enlist(t)
}

// detach ends the lease and gives w back. t.mu is held, and released. The
// worker runs nothing: it calls this itself, or sleeps at the bottom of its
// stack.
func (t *Thread) detach(w *worker) {
	t.over = true
	t.worker = nil
	t.gid.Store(0)
	w.thread.Store(nil)
	dones := t.dones
	t.dones = nil
	t.mu.Unlock()
	delist(t)
	w.giveBack(t.taint.Load())
	for _, ch := range dones {
		close(ch)
	}
}

// giveBack returns w to its pool, or ends it.
func (w *worker) giveBack(tainted bool) {
	if w.pool != nil && !tainted && w.unwound < maxUnwound {
		w.pool.put(w)
		return
	}
	w.sendHome()
}

func (w *worker) sendHome() {
	w.quit.Store(true)
	w.wake <- struct{}{}
}

func newThread(cfg *Config) *Thread {
	t := &Thread{
		name:    cfg.Name,
		policy:  cfg.Policy,
		onStart: cfg.OnStart,
		onExit:  cfg.OnExit,
		scopes:  1,
	}
	if cfg.Unpinned {
		t.unpinned = true
		return t
	}
	t.pool = cfg.Pool
	return t
}

// lease gets a goroutine for t. Threads of a synctest bubble have one of their
// own, started in it: a bubble must not share channels with the outside.
func (t *Thread) lease() {
	if t.pool == nil || t.pool.bubble != bubble() {
		startWorker(nil, !t.unpinned, t)
		return
	}
	if !t.pool.get(t) {
		t.fail(ErrClosed)
	}
}

// fail refuses all calls of a thread that cannot have a goroutine.
func (t *Thread) fail(why error) {
	t.mu.Lock()
	var out []*Call
	for c := t.main.head; c != nil; c = t.main.head {
		t.main.remove(c)
		t.waiting--
		c.state, c.refusal = revoked, why
		out = append(out, c)
	}
	t.asked = false
	t.mu.Unlock()
	for _, c := range out {
		c.scope.leave()
		c.finish()
	}
}

// withdraw takes back the question for a worker.
func (t *Thread) withdraw() {
	if t.pool == nil || !t.pool.withdraw(t) {
		return
	}
	t.mu.Lock()
	t.asked = false
	again := t.main.len > 0 && t.moved == nil && !t.over
	if again {
		t.asked = true
	}
	t.mu.Unlock()
	if again {
		t.lease()
	}
}

// unuse says that a scope needs the thread no more. done is closed when the
// scope's part in the lease is over.
func (t *Thread) unuse(done chan struct{}) {
	t.mu.Lock()
	for t.moved != nil {
		to := t.moved
		t.mu.Unlock()
		t = to
		t.mu.Lock()
	}
	t.scopes--
	if t.scopes > 0 {
		t.mu.Unlock()
		if done != nil {
			close(done)
		}
		return
	}
	t.ending = true
	if done != nil {
		t.dones = append(t.dones, done)
	}
	t.mu.Unlock()
	t.nudge()
}

// dropped is the cleanup of a scope that was collected without Close. Nothing
// of it is queued or runs, for a call holds its scope.
func (t *Thread) dropped() { t.unuse(nil) }

// nudge brings a thread that is ending to its end, if it sleeps or has not
// begun. One that works gets there by itself.
func (t *Thread) nudge() {
	t.mu.Lock()
	switch {
	case t.over || t.moved != nil:
		t.mu.Unlock()
	case t.worker == nil && t.asked:
		t.mu.Unlock()
		if t.pool == nil || !t.pool.withdraw(t) {
			return // the worker under way finds t ending
		}
		t.mu.Lock()
		t.asked = false
		t.close()
	case t.worker == nil:
		t.close()
	case !t.parked || t.top != nil:
		t.mu.Unlock()
	case t.needsExit():
		t.rouse()
		t.mu.Unlock()
		t.wake <- struct{}{}
	default:
		// The worker sleeps and has nothing to do on its way out, so it need
		// not wake for it. Its record is ours meanwhile, by t.mu now and by the
		// token that wakes it later.
		t.parked = false
		t.worker.record.EndCritical(nil)
		t.detach(t.worker)
	}
}

// close ends a lease that never had a goroutine. t.mu is held, and released.
func (t *Thread) close() {
	t.over = true
	dones := t.dones
	t.dones = nil
	t.mu.Unlock()
	for _, ch := range dones {
		close(ch)
	}
}

func (t *Thread) needsExit() bool {
	return t.started && len(t.onExit) > 0 || t.worker.record.NeedsExit()
}

func (t *Thread) isOver() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.over
}

// exits runs the exit functions of thread-critical values, last set first, and
// then the thread's own. Each runs once: where one calls Goexit the worker
// comes back here for the rest.
func (t *Thread) exits() {
	if !t.exitedValues {
		t.exitedValues = true
		t.record.EndCritical(func(v any, goexit bool, stack []byte) {
			t.exitFailed("exit function of a thread-critical value", v, goexit, stack)
		})
	}
	for t.started && len(t.onExit) > 0 {
		f := t.onExit[0]
		t.onExit = t.onExit[1:]
		Observe(f, func(e Ending) {
			switch {
			case e.Goexit:
				t.exitFailed("OnThreadExit function", nil, true, nil)
			case e.Panic != nil:
				t.exitFailed("OnThreadExit function", e.Panic.Value, false, e.Panic.Stack)
			}
		})
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

// exitFailed keeps a failure for Close and tells the hook. The thread is not
// used again: what the function was to undo may not be undone.
func (t *Thread) exitFailed(what string, v any, goexit bool, stack []byte) {
	t.taint.Store(true)
	err := fmt.Errorf("asyncsync: %s of %s panicked: %v", what, t.label(), v)
	if goexit {
		err = fmt.Errorf("asyncsync: %s of %s called runtime.Goexit", what, t.label())
	}
	t.mu.Lock()
	t.exitErr = errors.Join(t.exitErr, err)
	t.mu.Unlock()
	if goexit {
		count.goexits.Add(1)
		return
	}
	count.panics.Add(1)
	if h := hooks.Load(); h != nil && h.Panicked != nil {
		h.Panicked(CallInfo{Ctx: context.Background(), Name: what, Panic: v, Stack: stack})
	}
}

func (t *Thread) takeExitError() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.exitErr
	t.exitErr = nil
	return err
}
