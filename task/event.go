package task

import (
	"context"
	"sync"
	"sync/atomic"

	"asyncsync.dev/internal/core"
)

// An Event happens once. Those who wait for it are woken then, and whoever comes
// later does not wait. The zero Event has not happened and is ready. It must not be
// copied after its first use. Its methods may be called from anywhere: from
// ordinary goroutines, threads, tasks and functions posted to a loop.
//
// Its model is asyncio's Event, without clear.
type Event struct {
	set atomic.Bool // written under mu

	mu   sync.Mutex // guards the rest; a leaf lock
	done chan struct{}
	line bells
}

// closed is Done of an Event that nobody has asked for Done before it was set.
var closed = func() chan struct{} {
	done := make(chan struct{})
	close(done)
	return done
}()

// Set makes the event happen. It wakes all who wait, those who came first first. A
// further Set does nothing. What was done before Set synchronizes before the return
// of Wait, and the close of Done.
func (e *Event) Set() {
	e.mu.Lock()
	if e.set.Load() {
		e.mu.Unlock()
		return
	}
	e.set.Store(true)
	done, first := e.done, e.line.first
	for p := first; p != nil; p = p.next {
		p.inLine = false // from now on next is ours
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

// Wait waits until Set is called, or ctx ends, whose cause it returns. If the event
// has happened by the time it returns, that is nil, whatever ctx says: so a Wait
// that returns an error was not told of anything.
//
// In a task of a thread loop it parks the task. On a thread it serves the calls of
// what the calling function has started, under the policy All everybody's.
//
// Where the event has happened it costs about as much as a function call.
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
	defer func() { // also when a Goexit passes through
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
// async code. Waiting for it is a wait that this module does not see.
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

// bells is a line of those who wait. The zero value is empty.
type bells struct{ first, last *bellPlace }

// A bellPlace is one place in it.
type bellPlace struct {
	bell       *core.Bell
	turn       *core.Turn // in the line of a Cond
	inLine     bool
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

// remove takes p out, and reports whether it was there.
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
