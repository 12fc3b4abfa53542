package sched

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"

	"asyncsync.dev/internal/goroutine"
)

// A Loop runs functions and tasks on the thread of the caller of Run.
type Loop struct {
	// Fixed by New.
	home    any             // what the loop is to its user
	call    func(func())    // runs a posted function; no panic comes out of it
	failed  exitFailed      // is told of exit functions that fail
	stopped error           // the cause of what ends with the loop
	life    context.Context // ends, with that cause, when the loop stops
	endLife context.CancelCauseFunc
	done    chan struct{}
	posted  Task // what a posted function runs as: nothing that may wait

	mu       sync.Mutex // guards what follows; a leaf, but for what see locks in Look
	queue    []entry    // what comes after batch
	begun    bool       // Run has been called
	refusing bool       // nothing new is accepted
	sleeping bool       // the loop waits for a token in wake, and nobody is about to send it
	crowd    crowd
	wake     chan struct{}
	took     int  // how many were taken from queue last
	tasks    List // that have begun and not ended; the loop's goroutine alone changes it, and reads it without mu

	// Written only by the loop's goroutine, read by others.
	at  atomic.Int64         // the first of batch that has not been run
	now atomic.Pointer[Task] // what runs, or has run last

	// Used only by the loop's goroutine and its coroutines.
	batch     []entry // taken from queue, and run from at on
	record    *goroutine.Record
	idle      []*co // without a task, the one used last at the end
	functions *co   // that posted functions run on; made when needed
	main      *Task
	guard     guard
}

// An entry of the queue: a function, or a task that begins or goes on.
type entry struct {
	fn   func()
	task *Task
}

// maxIdle is how many coroutines without a task a loop keeps. A burst of tasks
// makes as many as it needs; the surplus ends with the burst.
const maxIdle = 256

// exitFailed is called for failures of exit functions of thread-critical
// values: see [goroutine.Record.EndCritical].
type exitFailed = func(v any, goexit bool, stack []byte)

// New returns a loop. The Home method returns home. call runs each posted
// function, and must recover its panics. failed is called for failures of exit
// functions of the thread's critical values. stopped is the cause with which
// the end of the loop cancels what runs.
func New(home any, call func(func()), failed exitFailed, stopped error) *Loop {
	l := &Loop{home: home, call: call, failed: failed, stopped: stopped, done: make(chan struct{})}
	l.life, l.endLife = context.WithCancelCause(context.Background())
	l.posted.loop = l
	return l
}

// Home returns what the loop was made with.
func (l *Loop) Home() any { return l.home }

// Life returns a context that ends when the loop stops.
func (l *Loop) Life() context.Context { return l.life }

// Done is closed when everything has ended, just before Run returns.
func (l *Loop) Done() <-chan struct{} { return l.done }

// Post runs fn on the loop. It reports false if the loop is stopping: then fn
// does not run.
func (l *Loop) Post(fn func()) bool { return l.accept(entry{fn: fn}, false) }

// Start begins t on the loop. It reports false if the loop is stopping: then
// nothing of t is called.
func (l *Loop) Start(t *Task) bool {
	t.loop = l
	return l.accept(entry{task: t}, false)
}

// StartAndWait is Start for an ordinary goroutine that will wait for t.
func (l *Loop) StartAndWait(t *Task) bool {
	t.loop = l
	return l.accept(entry{task: t}, true)
}

func (l *Loop) accept(e entry, waits bool) bool {
	l.mu.Lock()
	if l.refusing {
		l.mu.Unlock()
		return false
	}
	l.put(e, waits)
	return true
}

// resume puts t, which has begun, at the end of the queue.
func (l *Loop) resume(t *Task) {
	l.mu.Lock()
	l.put(entry{task: t}, false)
}

// put needs l.mu, and unlocks it. waits says that the caller will have to wait.
func (l *Loop) put(e entry, waits bool) {
	l.queue = append(l.queue, e)
	wake := l.sleeping
	l.sleeping = false
	gather := wake && waits && l.crowd.expected()
	l.mu.Unlock()
	if gather {
		l.gather()
	}
	if wake {
		l.wake <- struct{}{} // has room: only one token is sent for each sleep
	}
}

// Run makes the calling goroutine the loop's goroutine, and runs main as a
// task. When main has ended the loop accepts nothing more. It runs the
// functions that it had accepted, does not begin tasks that had not begun,
// cancels running tasks and waits for them. Run reports false, and does
// nothing, if it was called before.
//
// If enlist is not nil, Run calls it when the goroutine is locked, and calls
// its result at the end.
func (l *Loop) Run(main *Task, enlist func() (over func())) bool {
	l.mu.Lock()
	if l.begun {
		l.mu.Unlock()
		return false
	}
	l.begun = true
	// A channel belongs to the synctest bubble in which it was made, so make it in
	// the bubble of the goroutine that sleeps on it.
	l.wake = make(chan struct{}, 1)
	main.loop, l.main = l, main
	l.put(entry{task: main}, false)

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r := goroutine.Ensure()
	was, aside := r.Task, r.SetAside()
	l.record, r.Task = r, &l.posted
	l.guard.start()
	if enlist != nil {
		defer enlist()()
	}
	defer func() {
		defer close(l.done)
		defer func() {
			r.PutBack(aside)
			r.Task = was
			r.ReleaseIfEmpty()
			l.record = nil
			l.now.Store(nil) // one who keeps the loop does not keep what it has run
		}()
		r.EndCritical(l.failed)
	}()
	for {
		e, ok := l.next()
		switch {
		case !ok:
			l.disband()
			return true
		case e.fn != nil:
			l.runFunctions(e.fn)
		case e.task.begun:
			if e.task.due() {
				l.advance(e.task.co)
			}
		case l.stopping():
			l.runFunctions(e.task.Body.Refused)
		default:
			l.begin(e.task)
		}
	}
}

// Owner returns the Owner of the record of the goroutine that the loop runs on. Only that
// goroutine, and its coroutines, may ask.
func (l *Loop) Owner() any { return l.record.Owner }

// next takes the first entry of the queue, and sleeps while there is none. It
// reports false when no more will come.
func (l *Loop) next() (entry, bool) {
	for int(l.at.Load()) == len(l.batch) {
		if !l.fill() {
			return entry{}, false
		}
	}
	return l.take(), true
}

func (l *Loop) take() entry {
	at := l.at.Load()
	e := l.batch[at]
	l.batch[at] = entry{}
	l.at.Store(at + 1)
	return e
}

// keepCap is the largest unused array that the queue keeps.
const keepCap = 4096

// fill makes the entries that have come meanwhile the new batch, or sleeps.
func (l *Loop) fill() bool {
	used := l.batch[:0]
	if cap(used) > keepCap && l.at.Load() < keepCap {
		used = nil
	}
	l.mu.Lock()
	l.batch, l.queue = l.queue, used
	l.took = len(l.batch)
	l.at.Store(0)
	if len(l.batch) > 0 {
		l.crowd.ran += len(l.batch)
		l.mu.Unlock()
		return true
	}
	if l.refusing && l.tasks.len == 0 {
		l.mu.Unlock()
		return false
	}
	l.sleeping = true
	l.now.Store(nil) // a loop that sleeps keeps nothing of what it has run
	l.crowd.slept()
	l.mu.Unlock()
	<-l.wake
	return true
}

// nextFunction takes the first entry if it is a function. It does not sleep.
func (l *Loop) nextFunction() func() {
	if at := l.at.Load(); int(at) == len(l.batch) || l.batch[at].fn == nil {
		return nil
	}
	return l.take().fn
}

// runFunctions runs fn, and the functions right behind it in the queue.
func (l *Loop) runFunctions(fn func()) {
	if l.functions == nil {
		l.functions = newCo(l)
	}
	l.functions.fn = fn
	l.now.Store(&l.posted)
	if !l.functions.resume() {
		l.functions = nil // a Goexit; the functions behind it stand in the queue
	}
}

// begin starts t on a coroutine.
func (l *Loop) begin(t *Task) {
	var c *co
	if n := len(l.idle); n > 0 {
		c, l.idle[n-1] = l.idle[n-1], nil
		l.idle = l.idle[:n-1]
	} else {
		c = newCo(l)
	}
	c.task, t.co, t.begun = t, c, true
	l.mu.Lock()
	l.tasks.Add(t)
	l.mu.Unlock()
	l.advance(c)
}

// advance lets the task of c run until it waits or ends.
func (l *Loop) advance(c *co) {
	t := c.task
	if t.spare == nil && !t.Short {
		t.makeSpare()
	}
	l.now.Store(t)
	alive := c.resume()
	if alive && c.task != nil {
		if t.watch != nil {
			l.runFunctions(t.watchOver)
		}
		return
	}
	l.mu.Lock()
	l.tasks.Remove(t)
	l.mu.Unlock()
	t.co = nil
	if alive {
		if len(l.idle) < maxIdle {
			l.idle = append(l.idle, c)
		} else {
			c.stop()
		}
	}
	if t == l.main {
		l.stop()
	}
}

// stopping reports whether main has ended.
func (l *Loop) stopping() bool { return l.main == nil }

// stop refuses new entries, and cancels what runs.
func (l *Loop) stop() {
	l.main = nil
	l.mu.Lock()
	l.refusing = true
	l.mu.Unlock()
	l.endLife(l.stopped)
	// Nothing else changes the list: no task runs meanwhile.
	l.tasks.All(func(t *Task) bool {
		t.Body.Stop()
		if t.onLife {
			t.wake(t.number(), endedByCtx)
		}
		return true
	})
}

// A Look is the state of a loop at one moment.
type Look struct {
	Now     *Task   // that runs, nil if the loop sleeps
	Posted  bool    // that is a posted function, and the same for all of them
	Turn    uint64  // another one for each time that Now gets to run
	Ready   int     // how many have to wait for Now to let others run
	Waiting []*Task // that wait for something, the first of them
	Tasks   int     // how many have begun and not ended
}

// Look calls see with the state of the loop. It may be called from anywhere.
// The tasks exist while see runs; see must not call the loop. most bounds
// Waiting.
func (l *Loop) Look(most int, see func(Look)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := Look{Tasks: l.tasks.len, Ready: len(l.queue) + max(0, l.took-int(l.at.Load()))}
	if now := l.now.Load(); now != nil && !l.sleeping && l.begun {
		k.Now, k.Posted, k.Turn = now, now == &l.posted, now.number()
	}
	l.tasks.All(func(t *Task) bool {
		if t != k.Now && t.state.Load()%ways == waiting {
			k.Waiting = append(k.Waiting, t)
		}
		return len(k.Waiting) < most
	})
	see(k)
}

// disband ends the coroutines.
func (l *Loop) disband() {
	for _, c := range l.idle {
		c.stop()
	}
	l.idle = nil
	if l.functions != nil {
		l.functions.stop()
		l.functions = nil
	}
}
