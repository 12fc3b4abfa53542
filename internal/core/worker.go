package core

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/pprof"
	"sync/atomic"

	"asyncsync.dev/internal/ending"
	"asyncsync.dev/internal/goroutine"
)

// This file has the goroutines of threads: workers, the begin and end of leases, and
// callers that hold a thread.

// After maxUnwound Goexits a worker is not used for another lease, so that its
// stack does not grow without bound. Nor is it after maxLeases leases: each locks
// the goroutine once more than it unlocks it, and Go's counter of locks has 32
// bits.
const (
	maxUnwound = 16
	maxLeases  = 1 << 30
)

func startWorker(p *Pool, pinned bool, t *Thread) {
	w := &worker{pool: p, pinned: pinned, wake: make(chan struct{}, 1)}
	if t.pool != nil {
		w.onStart, w.onExit = t.pool.OnStart, t.pool.OnExit
	}
	w.thread.Store(t)
	go w.main(nil)
}

// lockReserve is how often a worker locks its goroutine to the thread. A function
// that unlocks more often than it locks only uses up the reserve, and the goroutine
// stays on its thread. It is a variable for tests.
var lockReserve = 1024

// main works until the worker is sent home. locked, if not nil, is closed when
// the goroutine is locked to its thread.
func (w *worker) main(locked chan<- struct{}) {
	if w.pinned {
		// Never unlocked: the OS thread ends with the goroutine.
		runtime.LockOSThread()
		if onFirstThread() {
			// Go never ends the first thread of the process, and tools that
			// look at the process see its state. So functions that change their
			// thread for good must not run there. While this goroutine occupies
			// that thread, the new goroutine gets a different one.
			locked := make(chan struct{})
			go w.main(locked)
			<-locked
			runtime.UnlockOSThread()
			return
		}
		w.keep()
	}
	if locked != nil {
		close(locked)
	}
	// A goroutine inherits the pprof labels of its creator, which have
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
	defer w.exit() // deferred, because a function that exit runs may call Goexit
	w.run()
}

// keep locks the goroutine to its thread as often as functions may unlock it by
// mistake.
func (w *worker) keep() {
	for range lockReserve {
		runtime.LockOSThread()
	}
}

// strayed is called if the goroutine has left its OS thread, because a function has
// unlocked it more often than the reserve allows. The state that t's context had in the
// old thread is lost. strayed locks the goroutine to the thread that it is on now, and
// marks t so that the goroutine ends with the lease, and that thread with it.
func (w *worker) strayed(t *Thread) {
	tid := osThread()
	slog.Error("asyncsync: a function called runtime.UnlockOSThread more often than runtime.LockOSThread, and its goroutine has left the OS thread",
		"context", t.label(), "thread", w.tid, "now", tid)
	w.tid = tid
	t.tid.Store(tid)
	t.taint.Store(true)
	runtime.LockOSThread()
	w.keep()
}

// start runs onStart, once for the OS thread. If onStart does not return, the
// next call runs it again.
func (w *worker) start() {
	if !w.started && w.onStart != nil {
		w.onStart()
	}
	w.started = true
}

// exit runs the last function of the OS thread.
func (w *worker) exit() {
	if !w.started || w.onExit == nil {
		return
	}
	Observe(w.onExit, func(e Ending) {
		if e.Returned() {
			return
		}
		countEnding(e)
		if w.pool != nil {
			w.pool.exitFailed(e)
		}
		if e.Panic != nil {
			tellPanic(e.Panic, CallInfo{Name: "ThreadExit function", Thread: int(w.tid)}, audienceOf(nil))
		}
	})
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
	if w.pinned && osThread() != w.tid {
		w.strayed(t)
	}
	t.lock()
	if t.worker == nil {
		if w.pinned {
			runtime.LockOSThread() // a function of the last lease may have unlocked it once too often
			w.leases++
		}
		t.attach(w)
	}
	if t.critical != (goroutine.Aside{}) { // what a holder has left
		t.record.Adopt(t.critical)
		t.critical = goroutine.Aside{}
	}
	for {
		switch c := t.next(); {
		case c != nil:
			t.mu.Unlock()
			t.exec(c)
			if t.spin.On() {
				t.spinInStep()
			}
			t.lock()
		case t.ending:
			t.mu.Unlock()
			t.endValues()
			t.lease.exit(t)
			t.endValues()
			t.lock()
			if t.main.head != nil {
				continue // left behind by an exit function
			}
			if w.pinned && osThread() != w.tid {
				w.strayed(t)
			}
			t.detach(w)
			return
		default:
			if t.spinFirst() {
				t.lock()
				continue
			}
			t.parked = true
			t.slept()
			t.mu.Unlock()
			return
		}
	}
}

// endValues runs the exit functions of thread-critical values, last set first.
// It is called before the context's own exit functions, and once more after them
// for values that they have set.
func (t *Thread) endValues() {
	if t.record.HasCritical() {
		t.record.EndCritical(func(v any, goexit bool, stack []byte) {
			e := Ending{Goexit: goexit}
			if !goexit {
				e.Panic = &Panic{Value: v, Stack: stack}
			}
			t.exitFailed(&t.lease, "exit function of a thread-critical value", e)
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
	if !t.listed { // only a thread that is not in live yet may lock live under mu: see ReadStats
		t.listed = true
		enlist(t)
	}
}

// detach ends the lease and gives w back. t.mu is held, and released. The worker
// runs nothing: it calls this itself, or sleeps at the bottom of its stack.
func (t *Thread) detach(w *worker) {
	t.over = true
	t.worker = nil
	t.gid.Store(0)
	w.record.Owner = nil
	w.thread.Store(nil)
	t.mu.Unlock()
	delist(t)
	w.giveBack(t.taint.Load())
	t.lease.close()
}

// giveBack returns w to its pool, or ends it.
func (w *worker) giveBack(tainted bool) {
	if w.pool != nil && !tainted && w.unwound < maxUnwound && w.leases < maxLeases {
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
		identity: identity{id: threadIDs.Add(1), name: cfg.Name, policy: cfg.Policy},
		lease:    lease{onStart: cfg.OnStart, onExit: cfg.OnExit},
	}
	t.spin.Limit, t.spin.Never = cfg.Spin, cfg.NoSpin
	if cfg.Unpinned {
		t.unpinned = true
		// Waking a goroutine is faster than a hand-over between two processors
		// that spin, and the holder of the thread may be in a bubble.
		t.spin.Never = true
		return t
	}
	t.pool = cfg.Pool
	return t
}

// ask gets a worker for t, or a place in the line of its pool. Threads of a
// synctest bubble have one of their own, started in it: a bubble must not share
// channels with the outside.
func (t *Thread) ask() {
	b := bubble()
	t.spin.Never = t.spin.Never || b != 0
	if t.pool == nil || t.pool.bubble != b {
		startWorker(nil, !t.unpinned, t)
		return
	}
	if !t.pool.get(t) {
		t.fail(errPoolClosed)
	}
}

// fail refuses all calls of a thread that cannot have a goroutine.
func (t *Thread) fail(why error) {
	t.mu.Lock()
	var out []*Call
	for c := t.main.head; c != nil; c = t.main.head {
		t.remove(c, why)
		out = append(out, c)
	}
	t.asked = false
	if t.ending && !t.over {
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
	again := t.main.len > 0 && !t.over
	if again {
		t.asked = true
	}
	t.mu.Unlock()
	if again {
		t.ask()
		t.pool.reconsider()
	}
}

// unuse notes that the context no longer needs the thread.
func (t *Thread) unuse() {
	t.mu.Lock()
	t.ending = true
	t.mu.Unlock()
	t.nudge()
}

// nudge brings a thread that is ending to its end, if it sleeps or has not
// begun. One that works gets there by itself.
func (t *Thread) nudge() {
	t.signal.Add(1)
	t.mu.Lock()
	switch {
	case t.over:
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
		t.detach(t.worker)
	}
}

// close ends a lease that never had a goroutine. t.mu is held, and released.
func (t *Thread) close() {
	t.over = true
	listed := t.listed
	t.mu.Unlock()
	if listed {
		delist(t)
	}
	t.lease.close()
}

// needsExit reports whether there is something to run before the lease ends.
// t.mu is held, and t runs nothing.
func (t *Thread) needsExit() bool {
	return t.lease.needsExit() || t.worker.record.NeedsExit()
}

func (t *Thread) isOver() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.over
}

// close notes that the context no longer needs the thread.
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

// start runs the start functions of t, the OS thread's first. The next call begins with
// the one that has not returned.
func (l *lease) start(t *Thread) {
	if t.worker != nil { // only t's own goroutine changes it now
		t.worker.start()
	}
	for len(l.onStart) > 0 {
		l.onStart[0]()
		l.onStart = l.onStart[1:]
	}
	l.started = true
}

// needsExit reports whether there is something to run when the thread leaves.
// t runs nothing, and the caller has seen the end of what t has run.
func (l *lease) needsExit() bool { return l.started && len(l.onExit) > 0 }

// exit runs the exit functions, each once. If one calls Goexit, the worker
// calls exit again for the rest.
func (l *lease) exit(t *Thread) {
	for l.needsExit() {
		f := l.onExit[0]
		l.onExit = l.onExit[1:]
		l.runs(label{pc: FuncPC(f)}.String())
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

// exitFailed keeps a failure for Close and tells the hooks. The OS thread is
// not used again, because the function may not have undone what it should have
// undone.
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
	countEnding(e)
	l.mu.Lock()
	l.err = errors.Join(l.err, err)
	l.mu.Unlock()
	if e.Panic != nil {
		t.tellFailure(l, what, e.Panic)
	}
}

// tellFailure tells the hooks of p. If a hook panics, its panic is kept for Close, because
// the worker has no caller that could get it.
func (t *Thread) tellFailure(l *lease, what string, p *Panic) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		l.mu.Lock()
		l.err = errors.Join(l.err, fmt.Errorf("asyncsync: a hook that was told of it panicked: %v", v))
		l.hook = ending.New(v)
		l.mu.Unlock()
	}()
	tellPanic(p, CallInfo{Name: what, Context: t.name, Thread: int(t.tid.Load())}, audience{hooks.Load(), l.hooks})
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
		end(ending.Of(recover(), raisedHere()))
	}()
	f()
	returned = true
}

// hold runs c on the calling goroutine, whose record is rec, if the thread of s is
// unpinned and free. It reports whether that is so; c has been run then.
func (s *Scope) hold(c *Call, rec *goroutine.Record) bool {
	r := s.root
	if !r.cfg.Unpinned || len(r.cfg.OnStart)+len(r.cfg.OnExit) > 0 || r.account.Load()&1 != 0 {
		return false
	}
	if rec != nil && rec.HasCritical() {
		return false // the goroutine's thread-critical values must not mix with the thread's
	}
	t := r.bound()
	t.lock()
	if !t.free() {
		t.mu.Unlock()
		return false
	}
	if c.scope.enter(false) != nil {
		t.mu.Unlock()
		return false // the long way finds the same reason and returns it
	}
	if !t.listed {
		t.listed = true
		enlist(t)
	}
	t.seq++
	c.seq = t.seq
	c.bound = true // its caller is the thread
	t.parked = false
	t.held = true
	gid := goroutine.ID()
	t.gid.Store(gid)
	t.wake, t.record = nil, rec
	t.take(c)
	t.mu.Unlock()
	if rec == nil && !holders[uint64(gid)%uint64(len(holders))].CompareAndSwap(nil, t) {
		rec = goroutine.Ensure()
		t.record = rec
	}
	// What waited for the goroutine's function waits for c now.
	self := waiter(rec)
	if self != nil {
		c.thread.Store(t)
		c.edge.to = forCall{c}
		self.publish(&c.edge)
		defer self.unpublish()
	}
	if rec != nil {
		rec.Owner = t
	}
	t.execHeld(c)
	return true
}

// free reports whether t, which is unpinned, may be held. t.mu is held.
func (t *Thread) free() bool {
	switch {
	case t.run != nil || t.waiting > 0 || t.over || t.ending || t.workerOnly:
		return false
	case t.worker == nil:
		return !t.asked
	default:
		// While the worker sleeps, no other code uses its record. A thread with
		// thread-critical values is not free, because a holder must not see them.
		return t.parked && !t.worker.record.HasCritical()
	}
}

// execHeld is exec for the call of the holder. Local variables need not be
// carried over, because function and caller are on one goroutine.
func (t *Thread) execHeld(c *Call) {
	var node any
	if t.record != nil {
		node, t.record.Node = t.record.Node, c.node
	}
	t.raised = nil
	c.node.Start()
	r := running{c: c, own: t, slot: &t.raised}
	defer func() {
		unwinds := !r.ran && c.cutShort(recover())
		t.raised = nil
		c.node.End()
		t.putDown(c, node)
		if unwinds && c.ending.Panic != nil {
			Raise(c.ending) // run has recovered it from under the Goexit, which is the caller's, too
		}
	}()
	r.run(nil)
	r.ran = true
}

// putDown ends what hold began. node is what the goroutine's record said before.
func (t *Thread) putDown(c *Call, node any) {
	var critical goroutine.Aside
	has := false
	if rec := goroutine.Current(); rec != nil {
		if has = rec.HasCritical(); has {
			critical = rec.GiveAway()
		}
		if rec.Owner != nil {
			rec.Owner, rec.Node = nil, node
		}
		rec.ReleaseIfEmpty()
	}
	holders[uint64(t.gid.Load())%uint64(len(holders))].CompareAndSwap(t, nil)
	t.lock()
	t.run, c.outer = nil, nil
	t.calls++
	t.batch = 0 // t has not slept, but it was not woken either
	t.held = false
	if has {
		// From now on the values need a goroutine that keeps them.
		t.critical, t.workerOnly = critical, true
	}
	w := t.worker
	if w != nil {
		t.gid.Store(w.gid)
		t.record, t.wake = w.record, w.wake
	} else {
		t.gid.Store(0)
		t.record, t.wake = nil, nil
	}
	work := has || t.main.head != nil || t.ending
	ask := work && w == nil && !t.asked
	if ask {
		t.asked = true
	}
	if w != nil && !work {
		t.parked = true
	}
	t.mu.Unlock()
	countEnding(c.ending)
	switch {
	case ask:
		t.ask()
	case work && w != nil:
		w.wake <- struct{}{}
	}
	c.scope.leave()
}
