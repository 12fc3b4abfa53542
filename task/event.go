package task

import (
	"context"
	"sync"
	"sync/atomic"

	"asyncsync.dev/internal/core"
)

// An Event happens once. Set wakes those that wait for it; later calls of Wait
// return at once. The zero Event has not happened and is ready to use. It must
// not be copied after its first use. Its methods may be called from anywhere:
// ordinary goroutines, threads, tasks, and functions posted to a loop.
//
// Its model is asyncio's Event, without clear.
type Event struct {
	set atomic.Bool // written under mu

	mu   sync.Mutex // guards the rest; a leaf lock
	done chan struct{}
	line bells
}

// closed is returned by Done of an Event that was set before the first call of
// Done.
var closed = func() chan struct{} {
	done := make(chan struct{})
	close(done)
	return done
}()

// Set makes the event happen and wakes all waiters, in the order in which they
// came. A further Set does nothing. What was done before Set synchronizes
// before the return of Wait and the close of Done.
func (e *Event) Set() {
	e.mu.Lock()
	if e.set.Load() {
		e.mu.Unlock()
		return
	}
	e.set.Store(true)
	done, first := e.done, e.line.first
	for p := first; p != nil; p = p.next {
		p.inLine = false // from here on Set owns next
	}
	e.line = bells{}
	e.mu.Unlock()
	if done != nil {
		close(done)
	}
	for p := first; p != nil; p = p.next {
		p.bell.Ring()
	}
}

// IsSet reports whether Set was called.
func (e *Event) IsSet() bool { return e.set.Load() }

// Wait waits until Set is called or ctx ends. It returns nil if the event has
// happened by the time it returns, even if ctx has ended, and otherwise the
// cause of ctx.
//
// It parks a task of a thread loop. A thread serves the calls of code that the
// calling function has started; with the policy All, every call.
//
// If the event has happened, Wait costs about as much as a function call.
func (e *Event) Wait(ctx context.Context) error {
	checkCtx(ctx, "Event.Wait")
	if e.set.Load() {
		return nil
	}
	return e.wait(ctx)
}

func (e *Event) wait(ctx context.Context) error {
	ctx = core.Afterlife(ctx)
	if err := core.Ended(ctx); err != nil {
		if e.set.Load() { // before ctx ended, perhaps
			return nil
		}
		return err
	}
	p := &bellPlace{bell: core.NewBell()}
	e.mu.Lock()
	if e.set.Load() {
		e.mu.Unlock()
		return nil
	}
	e.line.push(p)
	e.mu.Unlock()
	defer func() { // also after a Goexit
		e.mu.Lock()
		e.line.remove(p)
		e.mu.Unlock()
	}()
	err := p.bell.Wait(ctx, "event")
	if e.set.Load() {
		return nil
	}
	return err
}

// Done returns a channel that is closed when the event happens, for a select in
// async code. The module does not see a wait on that channel.
func (e *Event) Done() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.done != nil:
	case e.set.Load():
		return closed
	default:
		e.done = make(chan struct{})
	}
	return e.done
}

// bells is a line of waiters. The zero value is empty.
type bells struct{ first, last *bellPlace }

// A bellPlace is one place in the line.
type bellPlace struct {
	bell       *core.Bell
	turn       *core.Turn // in the line of a Cond
	inLine     bool
	chosen     bool // by a signal of a Cond; of the waiter, which looks when it has left the line
	prev, next *bellPlace
}

func (l *bells) push(p *bellPlace) {
	p.inLine, p.prev = true, l.last
	if l.last != nil {
		l.last.next = p
	} else {
		l.first = p
	}
	l.last = p
}

// remove takes p out of the line. It reports whether p was in it.
func (l *bells) remove(p *bellPlace) bool {
	if !p.inLine {
		return false
	}
	if p.prev != nil {
		p.prev.next = p.next
	} else {
		l.first = p.next
	}
	if p.next != nil {
		p.next.prev = p.prev
	} else {
		l.last = p.prev
	}
	p.inLine, p.prev, p.next = false, nil, nil
	return true
}
