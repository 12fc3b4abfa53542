package core

import (
	"context"

	"asyncsync.dev/internal/cycle"
	"asyncsync.dev/internal/goroutine"
)

// Values of Lock.state that stand for no owner's node.
var nobody, crowded Node

func ownerOf(ctx context.Context, own *Thread, rec *goroutine.Record) owner {
	o := owner{node: submitter(ctx, rec)}
	switch {
	case own == nil:
		o.self = waiter(rec)
	case own.run != nil: // only own's goroutine changes run
		o.thread, o.call, o.seq = own, own.run, own.run.seq
	default:
		o.thread = own // it is the function whose goroutine has become the thread
	}
	return o
}

// quick returns the value of state for a lock that the caller has and nobody waits for.
// It returns nil if no such value can describe the caller.
func quick(ctx context.Context, own *Thread, rec *goroutine.Record) *Node {
	if own != nil {
		return nil
	}
	self := waiter(rec)
	switch n := NodeOf(ctx); {
	case n == self && n != nil:
		return n
	case n == nil && self == nil:
		return &nobody
	}
	return nil
}

// Lock takes the lock. It returns the cause of ctx if ctx ends first, and a
// DeadlockError if the wait could never end.
func (l *Lock) Lock(ctx context.Context) error {
	ctx = Afterlife(ctx)
	if err := Ended(ctx); err != nil {
		return err
	}
	own, rec := current()
	if k := quick(ctx, own, rec); k != nil && l.state.CompareAndSwap(nil, k) {
		return nil
	}
	if l.take(ctx, own, rec) {
		return nil
	}
	t := l.turn(ctx, own, rec)
	if l.enter(t) {
		return nil
	}
	if err := l.await(ctx, own, rec, t); err != nil {
		return err
	}
	return l.keep(ctx)
}

// keep is called when the caller has just been given the lock. If ctx has ended, keep
// hands the lock on and returns the cause, so that a caller that was cancelled at the
// moment of the hand-over does not have it. keep also hands the lock on if the code of
// ctx panics or calls Goexit.
func (l *Lock) keep(ctx context.Context) (err error) {
	keeps := false
	defer func() {
		if !keeps {
			l.Unlock()
		}
	}()
	err = Ended(ctx)
	keeps = err == nil
	return err
}

// TryLock takes the lock if it is free, which it is not during a hand-over.
func (l *Lock) TryLock() bool {
	if l.state.Load() != nil {
		return false
	}
	own, rec := current()
	ctx := context.Background()
	if own == nil {
		k := waiter(rec)
		if k == nil {
			k = &nobody
		}
		return l.state.CompareAndSwap(nil, k)
	}
	return l.take(ctx, own, rec)
}

// take takes the lock if it is free, for an owner that no simple value of
// state describes.
func (l *Lock) take(ctx context.Context, own *Thread, rec *goroutine.Record) bool {
	if l.state.Load() != nil {
		return false
	}
	o := ownerOf(ctx, own, rec) // asks ctx, which may have code of its user's
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.state.CompareAndSwap(nil, &crowded) {
		return false
	}
	l.owner = o
	return true
}

// Locked reports whether somebody has the lock, or is about to be given it.
func (l *Lock) Locked() bool { return l.state.Load() != nil }

// Unlock gives the lock to the first in line, or frees it. It reports false if
// nobody has it.
func (l *Lock) Unlock() bool {
	p := l.state.Load()
	if p == nil {
		return false
	}
	if p != &crowded && l.state.CompareAndSwap(p, nil) {
		return true
	}
	return l.handOver()
}

func (l *Lock) handOver() bool {
	l.mu.Lock()
	if l.state.Load() != &crowded { // two of them unlock
		l.mu.Unlock()
		return l.Unlock()
	}
	t := l.next()
	if t != nil {
		l.grant(t)
	} else {
		l.owner = owner{}
		l.state.Store(nil)
	}
	joined := l.first != nil || l.joined != nil
	l.mu.Unlock()
	if joined {
		// This must come before either owner goes on. From now on calls of the new
		// owner must be served on top of waits for the lock, and calls of the old
		// owner must not.
		l.rejoin()
	}
	if t != nil {
		t.bell.Ring()
	}
	return true
}

// next returns the turn that gets the lock next, or nil. Turns that stand aside are
// passed over, and keep their place. mu is held.
func (l *Lock) next() *Turn {
	t := l.first
	for t != nil && t.aside {
		t = t.next
	}
	return t
}

// grant gives t the lock. mu is held, and state is &crowded.
func (l *Lock) grant(t *Turn) {
	if t.inLine {
		l.remove(t)
	}
	t.granted = true
	l.owner = t.owner
}

// turn returns a turn for the caller that is not in the line yet.
func (l *Lock) turn(ctx context.Context, own *Thread, rec *goroutine.Record) *Turn {
	t := &Turn{lock: l, bell: &Bell{}, owner: ownerOf(ctx, own, rec)}
	t.bell.init(own, rec)
	return t
}

// NewTurn returns a turn for the caller, to be put in line by another goroutine: see
// [Turn.Enter]. What of a wait can fail fails here, while the caller still has the lock:
// code of ctx may panic, and a task may not be able to park where it is.
func (l *Lock) NewTurn(ctx context.Context) *Turn {
	own, rec := current()
	checkPark(rec)
	t := l.turn(ctx, own, rec)
	t.ctx = context.Background()
	if c := From(ctx); c != nil {
		t.ctx = newCtx(t.ctx, c.scope, c.node, c.home)
	}
	return t
}

// Enter takes the lock for t, or puts t at the end of the line. It is called once.
func (t *Turn) Enter() {
	if t.lock.enter(t) {
		t.bell.Ring()
	}
}

// Await waits until t, which is in line, has the lock. Nothing else ends the wait. It
// is for the goroutine that has made t.
func (t *Turn) Await() {
	own, rec := current()
	got := false
	defer func() {
		switch {
		case got:
		case own != nil:
			// A call that was served meanwhile has called Goexit. The thread goes
			// on unwinding, through functions that think they have the lock.
			t.Await()
		default:
			t.lock.giveUp(t) // a task that can park no more: it is below a C callback now
		}
	}()
	// The wait must not be refused, so it has no goal. Only the join tells what it
	// waits for, so that the thread serves.
	t.stepBack() // a Goexit may have passed through while it stood aside
	s := t.bell.sign()
	s.kin, s.turn = true, t
	_ = waitUntil(t.ctx, own, rec, nil, &t.lock.node, s, "mutex")
	got = true
}

// enter takes the lock for t, or puts t in line. It reports whether t has it.
func (l *Lock) enter(t *Turn) (has bool) {
	l.mu.Lock()
	// A turn that stands aside is not given the lock, free or not.
	if !t.aside && l.crowd() {
		l.grant(t)
		l.mu.Unlock()
		return true
	}
	t.inLine, t.prev = true, l.last
	if l.last != nil {
		l.last.next = t
	} else {
		l.first = t
	}
	l.last = t
	l.mu.Unlock()
	l.rejoin()
	return false
}

// crowd makes state &crowded. mu is held. free says that nobody has the lock: then the
// caller must give it to a turn.
func (l *Lock) crowd() (free bool) {
	for {
		p := l.state.Load()
		if p == &crowded {
			return false
		}
		if !l.state.CompareAndSwap(p, &crowded) {
			continue
		}
		l.owner = ownerIn(p)
		return p == nil
	}
}

// ownerIn returns the owner that a state other than &crowded stands for.
func ownerIn(p *Node) owner {
	if p == nil || p == &nobody {
		return owner{}
	}
	return owner{node: p, self: p}
}

// stepAside notes that the thread of t is about to run something on top of the wait.
// What runs there may need the lock too, and t could not release it before that has
// ended. stepAside reports false if t has the lock already.
func (t *Turn) stepAside() bool {
	t.lock.mu.Lock()
	defer t.lock.mu.Unlock()
	t.aside = !t.granted
	return t.aside
}

// stepBack notes that the thread is back in the wait of t. No lock is held.
func (t *Turn) stepBack() {
	l := t.lock
	l.mu.Lock()
	t.aside = false
	if !t.inLine {
		l.mu.Unlock()
		return
	}
	// The lock may have been taken meanwhile by an owner that did not see t,
	// because t stood aside.
	var next *Turn
	if l.crowd() {
		next = l.next()
		l.grant(next)
	}
	joined := next == nil && l.joined == l.owner.node
	l.mu.Unlock()
	if !joined {
		l.rejoin()
	}
	if next != nil {
		next.bell.Ring()
	}
}

// remove takes t out of the line. mu is held.
func (l *Lock) remove(t *Turn) {
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		l.first = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	} else {
		l.last = t.prev
	}
	t.inLine, t.prev, t.next = false, nil, nil
}

// await waits until t has the lock, and gives t up if that does not come.
func (l *Lock) await(ctx context.Context, own *Thread, rec *goroutine.Record, t *Turn) error {
	got := false
	defer func() {
		// Also when a call served meanwhile takes this wait with it in a Goexit.
		if !got {
			l.giveUp(t)
		}
	}()
	s := t.bell.sign()
	// kin is set because the owner may depend on code that this function has started,
	// in a way that is not known.
	s.kin, s.turn = true, t
	if err := waitUntil(ctx, own, rec, &goal{target: forLock{t}, ctx: ctx}, &l.node, s, "mutex"); err != nil {
		return err
	}
	got = true
	return nil
}

// giveUp takes t out of the line. A lock that came at the same moment goes to the
// next.
func (l *Lock) giveUp(t *Turn) {
	l.mu.Lock()
	granted := t.granted
	if t.inLine {
		l.remove(t)
	}
	l.mu.Unlock()
	if granted {
		l.Unlock()
	} else {
		l.rejoin()
	}
}

// rejoin makes l.join a join of the owner's node if somebody waits, and of none
// otherwise. An owner that takes a free lock does not call it. All turns in line stand
// aside then, and stepBack calls it.
func (l *Lock) rejoin() {
	relate(nil, &l.node, func() {
		l.mu.Lock()
		was := l.joined
		var now *Node
		if l.first != nil {
			now = l.owner.node
		}
		l.joined = now
		l.mu.Unlock()
		if was == now {
			return
		}
		if was != nil {
			was.dropJoin(&l.join)
		}
		if now != nil {
			l.join.by = &l.node
			now.addJoin(&l.join)
		}
	})
}

// holder returns the owner, for t, which waits. held is false if there is none, or if
// it is t itself.
func (l *Lock) holder(t *Turn) (o owner, held bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.state.Load()
	if p == &crowded {
		return l.owner, !t.granted
	}
	return ownerIn(p), p != nil
}

// Shield returns ctx without its end: what it says of the surroundings stays.
func Shield(ctx context.Context) context.Context {
	if ctx.Done() == nil {
		return ctx
	}
	return Over(ctx, context.WithoutCancel(foreign(ctx)))
}

// Over returns base, which was derived from ctx, or from what is foreign in it, as
// a context that belongs where ctx does.
func Over(ctx, base context.Context) context.Context {
	c := From(ctx)
	if c == nil {
		return base
	}
	return newCtx(base, c.scope, c.node, c.home)
}

// Foreign returns what Over's base may be derived from.
func Foreign(ctx context.Context) context.Context { return foreign(ctx) }

func (f forLock) kind() string { return "mutex" }

func (f forLock) name() string { return "" }

func (f forLock) next() (*Call, *Node) { return nil, nil }

func (f forLock) reached() any { return &f.t.lock.node }

func (f forLock) mayWait() bool {
	o, held := f.t.lock.holder(f.t)
	if held && o.self != nil {
		return o.self.waits.Load() != nil
	}
	return held && o.thread != nil
}

func (f forLock) needs(q *query) (n cycle.Needs) {
	if o, held := f.t.lock.holder(f.t); held {
		n.Of, n.Facts = q.function(o.self, o.thread, o.call, o.seq), []any{f.t, o}
	}
	return n
}

func (f forLock) report(v *view, w *WaitState) {
	o, _ := f.t.lock.holder(f.t)
	switch {
	case o.thread != nil:
		w.Thread = o.thread.id
	case o.self != nil:
		w.Function = v.found(o.self, label{name: o.self.name()})
		if e := o.self.waits.Load(); e != nil {
			w.Goroutine = e.gid.Load()
		}
	}
}
