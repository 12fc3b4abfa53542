package core

import (
	"container/heap"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"asyncsync.dev/internal/cycle"
	"asyncsync.dev/internal/ending"
	"asyncsync.dev/internal/goroutine"
)

// interruptName is what fn is called in reports.
const interruptName = "Interrupt function"

const (
	interruptWaits = iota // for the end of ctx
	interrupted           // ctx has ended first
	interruptOver         // the function has
)

// The pauses between calls of fn double, from the first to the longest. If the
// function begins something at a time T after the end of its ctx, fn is called again
// within about T, or within the longest pause, whichever is less.
const (
	firstPause   = time.Millisecond
	longestPause = time.Second

	// In a bubble nothing bounds the pauses, and there are no more of them beyond
	// this one: a clock that runs whenever everybody waits would run for ever, and
	// hide that they do.
	bubblePause = 1000 * time.Hour
)

// repeats holds the repeaters: one outside of the synctest bubbles, and one for
// each bubble that has something to repeat. A timer and a channel belong to one
// side, and so do their users.
var repeats struct {
	mu   sync.Mutex // a leaf lock
	all  map[int64]*repeater
	fns  map[*Node]*interrupt // whose fn runs
	busy atomic.Int32         // len(fns), for a look without mu
}

// callPatience is how long one fn may keep the others waiting. Then another
// goroutine goes on with them.
const callPatience = 10 * time.Millisecond

func newInterrupt(o *Options) *interrupt {
	return &interrupt{fn: o.Interrupt, once: o.Once, at: -1}
}

// arm starts to watch ctx. It is called on the goroutine of the function, right
// before the function begins. t is that goroutine's thread, or nil.
func (i *interrupt) arm(ctx context.Context, t *Thread) {
	i.ctx, i.on = ctx, t
	i.unwatch = context.AfterFunc(ctx, i.begin)
}

// begin is called when ctx has ended.
func (i *interrupt) begin() {
	if !i.state.CompareAndSwap(interruptWaits, interrupted) {
		return
	}
	i.node.setParent(NodeOf(i.ctx))
	i.away.whole()
	i.away.node, i.away.name = &i.node, interruptName
	i.call()
}

// call calls fn, unless the function has ended, and puts i in the queue for the
// next time.
func (i *interrupt) call() {
	repeats.mu.Lock()
	if i.over {
		repeats.mu.Unlock()
		return
	}
	i.calls = true
	if repeats.fns == nil {
		repeats.fns = make(map[*Node]*interrupt)
	}
	repeats.fns[&i.node] = i
	repeats.busy.Add(1)
	repeats.mu.Unlock()

	// fn's calls are known by its goroutine to be its own. What it sets of local
	// variables is seen by nobody.
	rec := goroutine.Ensure()
	values, node, raised := rec.Values, rec.Node, rec.Raised
	rec.Values, rec.Node, rec.Raised = goroutine.Values{}, &i.node, nil
	i.away.edge.gid.Store(rec.ID)
	i.node.Start()
	returned := false
	defer func() {
		var e Ending
		if !returned {
			e = ending.Of(recover(), rec.Raised)
		}
		rec.EndCritical(func(v any, goexit bool, stack []byte) {
			if e.Returned() && !goexit {
				e.Panic = &Panic{Value: v, Stack: stack}
			}
		})
		i.node.End()
		rec.Values, rec.Node, rec.Raised = values, node, raised
		rec.ReleaseIfEmpty()
		i.called(e)
	}()
	i.fn()
	returned = true
}

// called says that fn has ended.
func (i *interrupt) called(e Ending) {
	b := bubble()
	repeats.mu.Lock()
	defer repeats.mu.Unlock()
	delete(repeats.fns, &i.node)
	repeats.busy.Add(-1)
	i.calls = false
	i.panic = e.Panic
	switch {
	case i.over:
		close(i.done)
	case i.once || !e.Returned():
	default:
		i.again(b)
	}
}

// again puts i in the queue of the repeater of bubble b, where the caller is.
// repeats.mu is held.
func (i *interrupt) again(b int64) {
	i.pause = max(firstPause, 2*i.pause)
	if b == 0 {
		i.pause = min(i.pause, longestPause)
	} else if i.pause > bubblePause {
		return
	}
	i.due = time.Now().Add(i.pause)
	r := repeats.all[b]
	if r == nil {
		r = &repeater{bubble: b, wake: make(chan struct{}, 1)}
		if repeats.all == nil {
			repeats.all = make(map[int64]*repeater)
		}
		repeats.all[b] = r
		go r.run(0)
	}
	i.in = r
	heap.Push(&r.queue, i)
	if i.at == 0 {
		r.rouse()
	}
}

// rouse has r's goroutine look at the queue again. The caller is in its bubble.
func (r *repeater) rouse() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// end has fn not called again, and waits for a call of fn that is under way, unless that
// wait closes a cycle: see outlast. A panic of fn becomes the ending of the function if
// that has returned.
func (i *interrupt) end(e *Ending) {
	if i.unwatch == nil {
		return
	}
	i.unwatch()
	if i.state.CompareAndSwap(interruptWaits, interruptOver) {
		return
	}
	repeats.mu.Lock()
	i.over = true
	if r := i.in; r != nil && i.at >= 0 {
		heap.Remove(&r.queue, i.at)
		if len(r.queue) == 0 {
			repeats.mu.Unlock()
			if bubble() == r.bubble { // else it ends when it next looks
				r.rouse()
			}
			repeats.mu.Lock()
		}
	}
	if i.calls {
		i.done = make(chan struct{})
		repeats.mu.Unlock()
		if !i.outlast() {
			return
		}
	} else {
		repeats.mu.Unlock()
	}
	if i.panic != nil && e.Returned() {
		e.Panic = i.panic
	}
}

// outlast waits for fn, on the goroutine of the function that has ended.
// Meanwhile a thread with the policy Related runs only calls of fn, of what fn waits for,
// and of code with the ctx of the function, which fn may use. fn would interrupt any
// other call.
//
// It reports false if fn waits for something that cannot end before the thread
// goes on: a call from below fn that was made with a ctx from outside and so is a
// stranger's. Only this wait can be given up, and the thread must not hang.
func (i *interrupt) outlast() bool {
	own, _ := current()
	if own == nil {
		z := sleeper{edge: &edge{}}
		z.wait(&sign{done: i.done})
		return true
	}
	f := &Frame{}
	f.edge.to = forAsync{&i.away.Call}
	nodes := []*Node{&i.node}
	if n := NodeOf(i.ctx); n != nil {
		nodes = append(nodes, n) // fn may use the ctx of the function
	}
	joins := make([]Join, len(nodes))
	// All at once: a frame without its joins looks like a wait that does not serve
	// what it waits for.
	relate(own, nil, func() {
		own.pushLocked(f, "async")
		for k, n := range nodes {
			joins[k].frame = f
			n.addJoin(&joins[k])
		}
	})
	defer own.pop(f)
	defer relate(own, nil, func() {
		for k, n := range nodes {
			n.dropJoin(&joins[k])
		}
	})
	w := openWait{f: f, edge: &f.edge}
	if w.check() != nil {
		return false
	}
	z := sleeper{own: own, frame: f, edge: &f.edge}
	z.wait(&sign{done: i.done})
	return true
}

// run is the main function of the goroutine of r. If fn keeps that goroutine
// too long, or ends it by a Goexit, r gets a new goroutine.
func (r *repeater) run(gen int) {
	over := false
	defer func() {
		if !over {
			go r.run(gen) // a Goexit of fn ends this goroutine and nothing else
		}
	}()
	var timer *time.Timer
	for {
		i, wait := r.next(gen)
		switch {
		case i == nil && wait < 0:
			over = true
			return
		case i == nil:
			if timer == nil {
				timer = time.NewTimer(wait)
			} else {
				timer.Reset(wait)
			}
			select {
			case <-timer.C:
			case <-r.wake:
			}
		default:
			dog := time.AfterFunc(callPatience, func() { r.takeOver(gen) })
			i.call()
			dog.Stop()
		}
	}
}

// next takes the interrupt that is due, or returns how long to wait for one;
// that is less than 0 if there is nothing left to do.
func (r *repeater) next(gen int) (*interrupt, time.Duration) {
	repeats.mu.Lock()
	defer repeats.mu.Unlock()
	if r.gen != gen {
		return nil, -1
	}
	if len(r.queue) == 0 {
		delete(repeats.all, r.bubble)
		r.gen++
		return nil, -1
	}
	if wait := time.Until(r.queue[0].due); wait > 0 {
		return nil, wait
	}
	return heap.Pop(&r.queue).(*interrupt), 0
}

// takeOver goes on with what is due, while a function keeps the goroutine gen.
func (r *repeater) takeOver(gen int) {
	repeats.mu.Lock()
	defer repeats.mu.Unlock()
	if r.gen != gen {
		return
	}
	r.gen++
	go r.run(r.gen)
}

func (q dueQueue) Len() int { return len(q) }

func (q dueQueue) Less(a, b int) bool { return q[a].due.Before(q[b].due) }

func (q dueQueue) Swap(a, b int) {
	q[a], q[b] = q[b], q[a]
	q[a].at, q[b].at = a, b
}

func (q *dueQueue) Push(x any) {
	i := x.(*interrupt)
	i.at = len(*q)
	*q = append(*q, i)
}

func (q *dueQueue) Pop() any {
	n := len(*q) - 1
	i := (*q)[n]
	(*q)[n] = nil
	*q = (*q)[:n]
	i.at = -1
	return i
}

// refuseInterrupt returns an error if an interrupt function, which runs on the
// goroutine of rec, calls the thread of s while it interrupts a function on that
// thread. Such a call would wait for the interrupted function to end, which
// waits for the interrupt function.
//
// If the thread serves all calls, the call may run while the interrupted function
// waits, and is not refused.
func (s *Scope) refuseInterrupt(rec *goroutine.Record, c *Call) error {
	if rec == nil {
		return nil
	}
	n, _ := rec.Node.(*Node)
	repeats.mu.Lock()
	i := repeats.fns[n]
	repeats.mu.Unlock()
	if i == nil || i.on == nil || i.on.all() || s.root.thread.Load() != i.on {
		return nil
	}
	return &DeadlockError{
		Message: "an " + interruptName + " calls the thread of the function that it interrupts",
		Page:    cycle.PageSelfWait,
		Cycle: []Link{
			{Who: interruptName, Goroutine: rec.ID, Kind: "call", For: c.Name(), Age: -1},
			{Who: "the interrupted function", Thread: i.on.label(), Kind: "async", For: interruptName, Age: -1},
		},
	}
}
