package core

import (
	"context"
	"runtime"
	"sync/atomic"

	"asyncsync.dev/internal/goroutine"
	"asyncsync.dev/internal/sched"
	"asyncsync.dev/internal/spin"
)

// A sleeper is one who waits through this module, for as long as that lasts. All
// waits go through [sleeper.wait], whatever they are for: so there is one place
// that decides how to sleep, how to give up, and what a Goexit that passes through
// leaves behind.
//
//	who waits                 how it sleeps
//	a thread                  it serves, in a frame of its own
//	a task of a thread loop   it parks, and the loop runs others
//	an ordinary goroutine     it blocks
//
// The last two run errands if they wait for a call. A new way to sleep is a new
// case of [sleeper.sleep].
type sleeper struct {
	// Who waits: the thread own, in frame, or, if own is nil, the calling
	// goroutine, with the record rec, which may be nil. edge is how the wait is
	// known to those who follow waits.
	own   *Thread
	frame *Frame
	rec   *goroutine.Record
	edge  *edge

	// What for: the end of call, or done, which is closed or delivers, or, in a task
	// that parks, gate. A sleeper with none waits for the end of its frame.
	call  *Call
	done  <-chan struct{}
	gate  *Gate
	place *listener                            // at gate, which keeps it for as long as the sleep lasts
	take  func(quit <-chan struct{}) (ok bool) // instead of done, on an ordinary goroutine: see Receive
	once  bool                                 // on a thread: serve what is queued, and no longer
	kin   bool                                 // on a thread: serve what its function has started, besides
	turn  *Turn                                // of a lock that done is, or leads to

	// Until when. ctx is the one that cancel is Done of; when stopped is closed
	// the wait ends with stopErr. Both channels may be nil. abandon says that
	// the caller need not wait for a call that has begun when ctx ends.
	ctx     context.Context
	cancel  <-chan struct{}
	stopped <-chan struct{}
	stopErr error
	abandon bool

	// parked says that a goroutine has announced that it sleeps, and has not
	// been woken: a token may be under way, and must be taken.
	parked bool
}

// A wakeup says why a sleep has ended.
type wakeup int

const (
	came      wakeup = iota // what was waited for
	cancelled               // ctx has ended
	halted                  // stopped was closed
)

// wait returns nil when what is waited for has come, and an error if it never
// will: the call was refused, or taken back because ctx has ended or the loop
// stopped, or left running.
//
// A Goexit may pass through, of a call that the thread serves or of an errand.
// The functions above must not be left before what they wait for has ended.
func (w *sleeper) wait() error {
	finished := false
	defer func() {
		if !finished {
			w.unwind()
		}
	}()
	for {
		var why error
		abandon := false
		switch w.sleep() {
		case came:
			finished = true
			if w.call == nil {
				return nil
			}
			return w.told(w.call.refusal)
		case cancelled:
			why, abandon = Cause(w.ctx), w.abandon
			w.cancel = nil
		case halted:
			why = w.stopErr
			w.stopped = nil
		}
		if err := w.giveUp(why, abandon); err != nil {
			finished = true
			return w.told(err)
		}
	}
}

// sleep waits until something happens that wait must know of.
func (w *sleeper) sleep() wakeup {
	if w.own != nil {
		return w.serve()
	}
	task := parkable(w.rec)
	switch {
	case task != nil && w.call != nil:
		return w.park(task)
	case task != nil && w.gate != nil:
		return w.parkAt(task)
	case task != nil:
		return w.parkFor(task)
	case w.call != nil:
		return w.block()
	default:
		return w.receive()
	}
}

// serve is sleep on a thread: it runs calls meanwhile.
func (w *sleeper) serve() wakeup {
	if w.once {
		w.own.serveOnce()
		return came
	}
	until := w.done
	if w.stopped != nil {
		until = w.stopped
	}
	switch {
	case w.own.serve(w.frame, w.turn, until, w.cancel):
		return cancelled
	case w.stopped != nil && w.call.wait.Load() != callEnded:
		return halted
	default:
		return came
	}
}

// block is sleep on an ordinary goroutine that waits for a call. It runs the
// errands of the call's function meanwhile.
func (w *sleeper) block() wakeup {
	c := w.call
	woke := c.woke
	for {
		c.spin(woke)
		if w.parked || c.park() {
			w.parked = true
			w.edge.slept()
			if w.cancel == nil && w.stopped == nil {
				<-c.parker // much cheaper than a select
			} else {
				select {
				case <-c.parker:
				case <-w.cancel:
					return cancelled
				case <-w.stopped:
					return halted
				}
			}
			w.parked = false
		}
		var ran bool
		if ran, woke = c.runErrand(); !ran {
			return came
		}
	}
}

// loops says that there have been loops: else nobody need ask for them.
var loops atomic.Bool

// UseLoops is called before the first function runs on a loop.
func UseLoops() {
	if !loops.Load() {
		loops.Store(true)
	}
}

// OnLoop reports whether the calling goroutine runs a task of a thread loop, which
// parks where it waits, or a function posted to a loop, which blocks it.
func OnLoop() (parks, blocks bool) {
	if !loops.Load() {
		return false, false
	}
	rec := goroutine.Current()
	if rec == nil || rec.Task == nil || rec.Owner != nil {
		return false, false
	}
	if t := sched.Of(rec); t != nil {
		return t.MayWait(), !t.MayWait()
	}
	_, blocks = rec.Task.(interface{ BlocksLoop() })
	return false, blocks
}

// parkable returns the task of a thread loop that the goroutine of rec runs, if it
// can be parked; rec may be nil. A task that has become a thread cannot: its OS
// thread is locked once more than its coroutine was made with.
func parkable(rec *goroutine.Record) *sched.Task {
	if rec == nil || rec.Task == nil || rec.Owner != nil {
		return nil
	}
	if t := sched.Of(rec); t != nil && t.MayWait() {
		return t
	}
	return nil
}

// checkPark panics if the goroutine of rec runs a task that cannot be suspended now.
// It comes before anything is begun that would have to be waited for.
func checkPark(rec *goroutine.Record) {
	if t := parkable(rec); t != nil {
		t.Check()
	}
}

// park is sleep in a task that waits for a call. It runs errands, like block.
func (w *sleeper) park(task *sched.Task) wakeup {
	c := w.call
	for {
		// Who ends the call looks at turn when it has changed wait.
		c.turn.Store(task.Prepare())
		if c.wait.Load() == callerAwake {
			c.task = task
			c.wait.CompareAndSwap(callerAwake, callerParked)
		}
		if c.wait.Load() == callerParked {
			how := w.suspend(task)
			if c.wait.Load() == callerParked {
				if how == came {
					continue // woken for an earlier turn
				}
				return how
			}
		}
		if ran, _ := c.runErrand(); !ran {
			return came
		}
	}
}

// parkAt is sleep in a task that waits for a gate.
func (w *sleeper) parkAt(task *sched.Task) (how wakeup) {
	for {
		if how, ended := w.parkOnce(task); ended {
			return how
		}
	}
}

// parkOnce parks the task, and reports whether that has ended the sleep.
func (w *sleeper) parkOnce(task *sched.Task) (how wakeup, ended bool) {
	w.place.task, w.place.number = task, task.Prepare()
	if !w.gate.listen(w.place) {
		return came, true
	}
	defer func() { // also when the ctx has code that fails
		if w.gate.leave(w.place) {
			how, ended = came, true
		}
	}()
	how = w.suspend(task)
	return how, how != came
}

// parkFor is sleep in a task that waits for something else.
func (w *sleeper) parkFor(task *sched.Task) wakeup {
	task.Prepare()
	return w.suspend(task)
}

// suspend parks the task, which has prepared for it, and says which of the
// channels has ended that; came if none of them has.
func (w *sleeper) suspend(task *sched.Task) wakeup {
	w.edge.slept()
	ctx := w.ctx
	if w.cancel == nil {
		ctx = context.Background()
	}
	if w.done == nil && w.stopped == nil {
		if task.Suspend(ctx) {
			return cancelled
		}
		return came
	}
	// Somebody else listens to the channels.
	heard, quit := make(chan wakeup, 1), make(chan struct{})
	wake := task.Waker()
	done, stopped := w.done, w.stopped // else every sleeper would be allocated
	go func() {
		select {
		case <-done:
			heard <- came
		case <-stopped:
			heard <- halted
		case <-quit:
			return
		}
		wake()
	}()
	defer close(quit)
	ended := task.Suspend(ctx)
	select {
	case how := <-heard:
		return how
	default:
	}
	if ended {
		return cancelled
	}
	return came
}

// receive is sleep on an ordinary goroutine that waits for something else.
func (w *sleeper) receive() wakeup {
	w.edge.slept()
	if w.take != nil {
		if w.take(w.cancel) {
			return came
		}
		return cancelled
	}
	select {
	case <-w.done:
		return came
	case <-w.stopped:
		return halted
	case <-w.cancel:
		return cancelled
	}
}

// told is the end of a wait with err.
func (w *sleeper) told(err error) error {
	if c := w.call; c != nil && w.own == nil {
		c.unpark()
		if c.yield && err == nil {
			yield()
		}
	}
	return err
}

// giveUp takes back what is waited for, or leaves it running if the caller may,
// and returns what the caller is told. It returns nil if the caller must go on
// waiting.
func (w *sleeper) giveUp(why error, abandon bool) error {
	c := w.call
	if c == nil || c.withdraw(why) {
		return why
	}
	from := uint32(callerAwake)
	if w.own == nil {
		from = callerParked
	}
	if abandon && c.begunOrForbid() && c.walkAway(from) {
		count.abandoned.Add(1)
		return &abandonedError{why}
	}
	return nil
}

// unwind is what a Goexit does that passes through the wait: a call that has not
// begun is taken back, one that has is waited for.
func (w *sleeper) unwind() {
	c := w.call
	if c == nil {
		return
	}
	why := context.Canceled
	if w.giveUp(why, false) == nil {
		w.outlast()
		why = c.refusal
	}
	if why != nil && c.watched != nil {
		c.tellRefused(w.ctx, why)
	}
}

// outlast waits for the call, whatever else may happen. On a thread, if that is
// cut short by one more Goexit, only the hook hears of what the call comes to.
func (w *sleeper) outlast() {
	c := w.call
	ended := false
	defer func() {
		switch {
		case ended:
		case w.own == nil:
			w.outlast() // another Goexit, in another errand
		default:
			c.walkAway(callerAwake)
			if c.lender != nil {
				// Its goroutine is not free for the errands of functions
				// deferred below.
				c.lender.bound = true
			}
		}
	}()
	w.cancel, w.stopped = nil, nil
	w.sleep()
	ended = true
	if w.own != nil {
		w.own.record.Values = c.values
	} else {
		restore(record(), c.values)
	}
}

// withdraw keeps the function of c from beginning, and reports whether it has
// done so. why is what c's caller is told.
func (c *Call) withdraw(why error) bool {
	if c.thread.Load() != nil {
		return c.revoke(why)
	}
	if !c.forbid() {
		return false
	}
	c.node.End()
	count.cancelled.Add(1)
	return true
}

// begunOrForbid reports whether c's function has begun. If it has not, it never will.
func (c *Call) begunOrForbid() bool { return !c.forbid() && c.hasBegun() }

// park says that the caller of c is about to sleep, unless there is something
// for it to do.
func (c *Call) park() bool {
	if c.wait.Load() != callerAwake {
		return false
	}
	if c.parker == nil {
		c.parker = c.thread.Load().parker()
	}
	return c.wait.CompareAndSwap(callerAwake, callerParked)
}

// parker returns a channel for a caller to sleep on.
//
// Channels are pooled within one lease and never beyond: one made inside a
// synctest bubble must not be used outside, and a lease is on one side.
func (t *Thread) parker() chan struct{} {
	t.parkMu.Lock()
	defer t.parkMu.Unlock()
	n := len(t.parkers)
	if n == 0 {
		return make(chan struct{}, 1)
	}
	ch := t.parkers[n-1]
	t.parkers = t.parkers[:n-1]
	return ch
}

// maxParkers bounds what a lease keeps of a burst of callers.
const maxParkers = 256

// unpark gives back what parker has returned. Nobody sends to it any more.
func (c *Call) unpark() {
	t := c.thread.Load()
	if c.parker == nil || t == nil {
		return
	}
	t.parkMu.Lock()
	if t.parkers == nil {
		t.parkers = t.few[:0]
	}
	if len(t.parkers) < maxParkers {
		t.parkers = append(t.parkers, c.parker)
	}
	t.parkMu.Unlock()
}

// spin looks for the word of the thread, if the thread spins for its callers
// too. woke says that the caller has just woken it.
func (c *Call) spin(woke bool) {
	t := c.thread.Load()
	if woke || t == nil || !t.spin.On() {
		return
	}
	if !spin.Until(&c.wait, callerAwake, t.spin.Patience()) {
		t.spin.CallerMissed()
	}
}

// yieldEvery is the number of calls after which a caller lets other goroutines
// run, where there is one processor. A locked goroutine and its caller hand
// that processor to each other directly, past the queue: without this others
// would starve.
const yieldEvery = 128

func yield() {
	if spin.Processors() == 1 {
		runtime.Gosched()
	}
}
