package task

import (
	"context"
	"fmt"
	"sync"

	"asyncsync.dev/internal/core"
)

// A Cond is a condition variable: holders of a [Mutex] wait on it until another
// one has changed what the Mutex guards and says so. Make one with [NewCond].
// Its methods may be called from anywhere.
//
// It is asyncio's Condition, and [sync.Cond] with a ctx.
type Cond struct {
	m *Mutex

	mu   sync.Mutex // guards line; a leaf lock
	line bells
}

// NewCond returns a Cond of m. A Mutex may have several Conds. A nil m panics.
func NewCond(m *Mutex) *Cond {
	if m == nil {
		panic("task: NewCond: nil Mutex")
	}
	return &Cond{m: m}
}

func (c *Cond) check(what string) {
	if c == nil || c.m == nil {
		panic("task: Cond." + what + ": nil Cond, or one not made by NewCond")
	}
}

// Wait unlocks the Mutex, waits until Signal or Broadcast chooses the caller,
// and locks the Mutex again. The caller must hold the Mutex; if the Mutex is
// not locked, Wait panics. When Wait returns, the caller holds the Mutex in
// every case: also when ctx has ended, where Wait returns the cause, and when a
// [runtime.Goexit] or a panic passes through.
//
// Another waiter that was woken first may have changed things again. So call
// Wait in a loop that checks the condition:
//
//	for !ready {
//		if err := c.Wait(ctx); err != nil {
//			return err
//		}
//	}
//
// Woken callers get the Mutex in the order in which they called Wait, before
// any later call of Lock. If ctx ends after the caller was chosen and before it
// has the Mutex again, Wait returns the cause and another waiter is chosen
// instead, as it is when a Goexit or a panic ends Wait then: no Signal is lost.
//
// The library does not know who will signal. So Wait parks a task of a thread
// loop, and a thread serves the calls of code that the calling function has
// started; with the policy All, every call. While Wait waits for the Mutex
// again, a thread also serves the calls of the Mutex's holder. That part is
// never refused as a deadlock.
func (c *Cond) Wait(ctx context.Context) error {
	c.check("Wait")
	checkCtx(ctx, "Cond.Wait")
	if !c.m.Locked() {
		panic("task: Cond.Wait with a Mutex that is not locked: lock it first")
	}
	ctx = core.Afterlife(ctx)
	if err := core.Ended(ctx); err != nil {
		return err
	}
	p := &bellPlace{bell: core.NewBell(), turn: c.m.lock.NewTurn(ctx)}
	c.mu.Lock()
	c.line.push(p)
	c.mu.Unlock()
	c.m.Unlock()

	woken, relocks := false, false
	defer func() {
		// Whatever keeps this from returning nil: an error, or a Goexit or a panic in any
		// of the steps, also in that of locking again.
		if !woken && p.chosen {
			c.signal(1)
		}
	}()
	defer func() {
		if !relocks { // a Goexit or a panic passes through the wait
			c.relock(p)
		}
	}()
	err := p.bell.WaitBefore(ctx, p.turn, "cond")
	relocks = true
	c.relock(p)
	if err == nil {
		err = core.Ended(ctx)
	}
	woken = err == nil
	return err
}

// relock locks the Mutex again for p, in the place that Signal has reserved, or
// otherwise at the end of the line.
func (c *Cond) relock(p *bellPlace) {
	c.mu.Lock()
	p.chosen = !c.line.remove(p) // though the signal may not have rung the bell yet
	c.mu.Unlock()
	if !p.chosen {
		p.turn.Enter()
	}
	p.turn.Await()
}

// Signal wakes the n callers that have waited longest, or all if there are
// fewer. The caller usually holds the Mutex, but need not. A negative n panics.
func (c *Cond) Signal(n int) {
	c.check("Signal")
	if n < 0 {
		panic(fmt.Sprintf("task: Cond.Signal: negative number of waiters %d", n))
	}
	c.signal(n)
}

// Broadcast wakes all callers of Wait.
func (c *Cond) Broadcast() {
	c.check("Broadcast")
	c.signal(-1)
}

// signal wakes n callers, or all if n is negative.
func (c *Cond) signal(n int) {
	for ; n != 0; n-- {
		c.mu.Lock()
		p := c.line.first
		if p == nil {
			c.mu.Unlock()
			return
		}
		c.line.remove(p)
		c.mu.Unlock()
		// Enter the line for the Mutex first, so that the place is reserved.
		p.turn.Enter()
		p.bell.Ring()
	}
}
