package core

import (
	"context"
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
	t.lock()
	if t.worker == nil {
		if t.moved != nil || t.over {
			// Another thread was lent while this worker was under way.
			t.mu.Unlock()
			w.thread.Store(nil)
			w.giveBack(false)
			return
		}
		t.attach(w)
	}
	t.adoptCritical()
	for {
		switch c := t.next(); {
		case c != nil:
			t.mu.Unlock()
			t.exec(c)
			t.glance()
			t.lock()
		case len(t.leaving) > 0:
			p := t.leaving[0]
			last := t.ending && len(t.leaving) == 1
			t.mu.Unlock()
			if last {
				t.endValues(p)
			}
			p.exit(t)
			if last {
				t.endValues(p)
			}
			t.lock()
			if t.main.head != nil {
				continue // left behind by an exit function
			}
			t.leaving = t.leaving[1:]
			if last {
				t.detach(w, p)
				return
			}
			t.mu.Unlock()
			p.close()
			t.lock()
		case t.ending:
			t.detach(w, nil)
			return
		default:
			if t.look() {
				t.lock()
				continue
			}
			t.parked = true
			t.crowd.slept()
			t.mu.Unlock()
			return
		}
	}
}

// endValues runs the exit functions of thread-critical values, last set first.
// It is called before the last context's own, and after, for what those set.
func (t *Thread) endValues(p *part) {
	if t.record.HasCritical() {
		t.record.EndCritical(func(v any, goexit bool, stack []byte) {
			e := Ending{Goexit: goexit}
			if !goexit {
				e.Panic = &Panic{Value: v, Stack: stack}
			}
			t.exitFailed(p, "exit function of a thread-critical value", e)
		})
	}
	t.record.Values = goroutine.Values{}
}

// attach makes w the goroutine of t. t.mu is held, by w.
func (t *Thread) attach(w *worker) {
	t.worker = w
	t.wake = w.wake
	t.record = w.record
	t.gid.Store(w.gid)
	t.tid.Store(w.tid)
	w.record.Owner = t
	labels := context.Background()
	if t.name != "" {
		labels = pprof.WithLabels(labels, pprof.Labels("asyncsync.context", t.name))
	}
	pprof.SetGoroutineLabels(labels)
	if !t.listed { // else it must not be done under mu: see ReadStats
		t.listed = true
		enlist(t)
	}
}

// detach ends the lease, gives w back, and closes p, the last part. t.mu is
// held, and released. The worker runs nothing: it calls this itself, or sleeps
// at the bottom of its stack.
func (t *Thread) detach(w *worker, p *part) {
	t.over = true
	t.worker = nil
	t.leaving = nil
	t.gid.Store(0)
	w.record.Owner = nil
	w.thread.Store(nil)
	t.mu.Unlock()
	delist(t)
	w.giveBack(t.taint.Load())
	p.close()
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

var threadIDs atomic.Uint64

func newThread(cfg *Config) *Thread {
	t := &Thread{
		id:     threadIDs.Add(1),
		name:   cfg.Name,
		policy: cfg.Policy,
		parts:  1,
	}
	t.spin.limit, t.spin.never = cfg.Spin, cfg.NoSpin
	if cfg.Unpinned {
		t.unpinned = true
		// A goroutine is woken faster than two processors come to an agreement;
		// and who holds the thread may be in a bubble.
		t.spin.never = true
		return t
	}
	t.pool = cfg.Pool
	return t
}

// lease gets a goroutine for t, and reports whether t must stand in line for
// it. Threads of a synctest bubble have one of their own, started in it: a
// bubble must not share channels with the outside.
func (t *Thread) lease() (lined bool) {
	b := bubble()
	t.spin.never = t.spin.never || b != 0
	if t.pool == nil || t.pool.bubble != b {
		startWorker(nil, !t.unpinned, t)
		return false
	}
	ok, lined := t.pool.get(t)
	if !ok {
		t.fail(ErrClosed)
	}
	return lined
}

// fail refuses all calls of a thread that cannot have a goroutine.
func (t *Thread) fail(why error) {
	t.mu.Lock()
	var out []*Call
	for c := t.main.head; c != nil; c = t.main.head {
		t.main.remove(c)
		t.waiting--
		if t.marks != nil {
			t.unmark(c)
		}
		c.state, c.refusal = revoked, why
		out = append(out, c)
	}
	t.asked = false
	if t.ending && t.moved == nil && !t.over {
		t.close()
	} else {
		t.mu.Unlock()
	}
	turnAway(out)
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

// unuse says that the context of p needs the thread no more.
func (t *Thread) unuse(p *part) {
	t.mu.Lock()
	for t.moved != nil {
		to := t.moved
		t.mu.Unlock()
		t = to
		t.mu.Lock()
	}
	t.parts--
	switch {
	case t.parts == 0:
		t.ending = true
		t.leave(p)
		t.mu.Unlock()
		t.nudge()
	case p.started && len(p.onExit) > 0:
		t.leave(p)
		wake := t.top == nil && t.rouse()
		t.mu.Unlock()
		t.tell(wake)
	default:
		t.mu.Unlock()
		p.close()
	}
}

// leave puts p among those that leave. t.mu is held.
func (t *Thread) leave(p *part) {
	if t.leaving == nil {
		t.leaving = t.first[:0]
	}
	t.leaving = append(t.leaving, p)
}

// A drop is what is left of a context that was collected without Close.
// Nothing of it is queued or runs, for a call holds its scope.
type drop struct {
	thread *Thread
	part   *part
}

func dropped(d drop) {
	if d.part == nil {
		d.part = &d.thread.end
	}
	d.thread.unuse(d.part)
}

// nudge brings a thread that is ending to its end, if it sleeps or has not
// begun. One that works gets there by itself.
func (t *Thread) nudge() {
	t.signal.Add(1)
	t.mu.Lock()
	switch {
	case t.over || t.moved != nil:
		t.mu.Unlock()
	case t.held:
		t.mu.Unlock() // it is put down before its account is closed
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
		var last *part
		for _, p := range t.leaving {
			last.close()
			last = p
		}
		t.detach(t.worker, last)
	}
}

// close ends a lease that never had a goroutine. t.mu is held, and released.
func (t *Thread) close() {
	t.over = true
	leaving, listed := t.leaving, t.listed
	t.leaving = nil
	t.mu.Unlock()
	if listed {
		delist(t)
	}
	for _, p := range leaving {
		p.close()
	}
}

// needsExit reports whether there is something to run before the lease ends.
// t.mu is held, and t runs nothing.
func (t *Thread) needsExit() bool {
	for _, p := range t.leaving {
		if p.needsExit() {
			return true
		}
	}
	return t.worker.record.NeedsExit()
}

func (t *Thread) isOver() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.over
}
