package task

import (
	"context"
	"fmt"
	"sync"

	"asyncsync.dev/internal/core"
)

// A Cond is where those who hold a [Mutex] wait until somebody has changed what it
// guards, and says so. It is made by [NewCond]. Its methods may be called from
// anywhere.
//
// It is asyncio's Condition, and [sync.Cond] with a ctx.
type Cond struct {
	m *Mutex

	mu   sync.Mutex // guards line; a leaf lock
	line bells
}

// NewCond returns a Cond of m. Several may belong to one Mutex. A nil m panics.
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

// Wait unlocks the Mutex, which the caller must hold, waits until it is chosen by
// Signal or Broadcast, and locks the Mutex again. When it returns the caller holds
// the Mutex in any case, also when ctx has ended first and Wait returns the cause,
// and when a [runtime.Goexit] or a panic passes through.
//
// Other than the first who is woken may have changed things again, so Wait belongs
// into a loop that looks:
//
//	for !ready {
//		if err := c.Wait(ctx); err != nil {
//			return err
//		}
//	}
//
// Those who are woken get the Mutex in the order in which they have come to Wait,
// before those who call Lock later. If ctx ends after the caller was chosen and
// before it has the Mutex again, Wait returns the cause, and another waiter is
// chosen in its place: no Signal is lost.
//
// Nothing is known of who will signal: in a task of a thread loop Wait parks the
// task, and on a thread it serves the calls of what the calling function has
// started, under the policy All everybody's; while it waits for the Mutex again,
// those of who holds that as well. That part is never refused as a deadlock.
//
// If the Mutex is not locked Wait panics.
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

	returned := false
	defer func() {
		if !returned { // a Goexit or a panic passes through
			c.relock(ctx, p)
			c.passOn(p)
		}
	}()
	err := p.bell.WaitBefore(ctx, p.turn, "cond")
	returned = true
	c.relock(ctx, p)
	if err == nil {
		err = core.Ended(ctx)
	}
	if err != nil {
		c.passOn(p)
	}
	return err
}

// relock locks the Mutex again for p, in the place that Signal has put it in, or
// else at the end of the line.
func (c *Cond) relock(ctx context.Context, p *bellPlace) {
	c.mu.Lock()
	left := c.line.remove(p)
	c.mu.Unlock()
	if left {
		p.turn.Enter()
	}
	p.turn.Await(ctx)
}

// passOn signals another in the place of p, if p was signalled.
func (c *Cond) passOn(p *bellPlace) {
	if p.bell.Rung() {
		c.signal(1)
	}
}

// Signal wakes the n who have waited longest, or all if there are fewer. The caller
// may hold the Mutex, and mostly does. A negative n panics.
func (c *Cond) Signal(n int) {
	c.check("Signal")
	if n < 0 {
		panic(fmt.Sprintf("task: Cond.Signal: negative number of waiters %d", n))
	}
	c.signal(n)
}

// Broadcast wakes all who wait.
func (c *Cond) Broadcast() {
	c.check("Broadcast")
	c.signal(-1)
}

// signal wakes n, or all if n is negative.
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
		// In line for the Mutex first: the place is kept for it.
		p.turn.Enter()
		p.bell.Ring()
	}
}
