package core

import (
	"context"
	"runtime"
	"sync"

	"asyncsync.dev/internal/goroutine"
)

// A Bell is a [Gate] that one goroutine waits for: the one that has made it. Whoever is
// going to wait makes it, shows it to those who may end the wait, and then waits.
type Bell struct {
	gate  Gate
	done  <-chan struct{} // of the gate, for a thread or an ordinary goroutine
	place listener        // for a task that parks
}

// NewBell returns a bell that the calling goroutine can wait for.
func NewBell() *Bell {
	b := &Bell{}
	b.init(current())
	return b
}

// init makes b a bell of the calling goroutine.
func (b *Bell) init(own *Thread, rec *goroutine.Record) {
	if own != nil || parkable(rec) == nil {
		b.done = b.gate.Done()
	}
}

// Ring ends the wait, also if that has not begun. It may be called from anywhere,
// any number of times, and runs nobody's code.
func (b *Bell) Ring() { b.gate.Open() }

// Rung reports whether Ring was called.
func (b *Bell) Rung() bool { return b.gate.IsOpen() }

// Wait waits until the bell is rung, or ctx ends, whose cause it returns; if both
// happened it may return either. Like [Park] it does not know what it waits for.
// It is for the goroutine that has made the bell. what names the wait in reports.
func (b *Bell) Wait(ctx context.Context, what string) error {
	if b.Rung() {
		return nil
	}
	own, rec := current()
	return waitUntil(ctx, own, rec, nil, nil, b.sleeper(), what)
}

// WaitBefore is Wait for one who is going to have t after that, which may be put in
// line meanwhile.
func (b *Bell) WaitBefore(ctx context.Context, t *Turn, what string) error {
	if b.Rung() {
		return nil
	}
	own, rec := current()
	s := b.sleeper()
	s.turn = t
	return waitUntil(ctx, own, rec, nil, nil, s, what)
}

// sleeper returns one that waits for b, to be completed by waitUntil.
func (b *Bell) sleeper() sleeper { return sleeper{done: b.done, gate: &b.gate, place: &b.place} }

// Receive waits until take, which receives from a channel, has got something, or
// ctx ends, whose cause it returns: then nothing was taken. take must return soon
// after quit is closed, and report whether it got something.
//
// On an ordinary goroutine take is called there; else on another one, while the
// thread serves or the task is parked.
func Receive(ctx context.Context, take func(quit <-chan struct{}) bool, what string) error {
	own, rec := current()
	if own == nil && parkable(rec) == nil {
		return waitUntil(ctx, own, rec, nil, nil, sleeper{take: take}, what)
	}
	b := &Bell{}
	b.init(own, rec)
	quit, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		if take(quit) {
			b.Ring()
		}
	}()
	stop := sync.OnceFunc(func() {
		close(quit)
		<-over // at once
	})
	defer stop() // also when a Goexit passes through
	err := waitUntil(ctx, own, rec, nil, nil, b.sleeper(), what)
	if stop(); b.Rung() {
		return nil // it may have come together with the end of ctx
	}
	return err
}

// Yield lets others run: in a task of a thread loop all who are ready there, on a
// thread what is queued for it and may run on top of the caller, on an ordinary
// goroutine whom the Go scheduler chooses.
func Yield(ctx context.Context) {
	own, rec := current()
	if own != nil {
		// Nothing but the serving can end this wait.
		_ = waitUntil(context.WithoutCancel(ctx), own, rec, nil, nil, sleeper{once: true}, "yield")
		return
	}
	if task := parkable(rec); task != nil {
		task.Yield()
		return
	}
	runtime.Gosched()
}

// serveOnce runs the calls that are queued already and that the frame on top
// serves.
func (t *Thread) serveOnce() {
	t.lock()
	last := t.seq
	for t.due() && t.dueSeq() <= last {
		c := t.next()
		t.mu.Unlock()
		t.exec(c)
		t.lock()
	}
	t.mu.Unlock()
}

// dueSeq returns the number of the call that next would take, of which there is
// one. t.mu is held.
func (t *Thread) dueSeq() uint64 {
	box, main := t.top.box.head, t.main.head
	switch {
	case box == nil:
		return main.seq
	case t.everybody() && main != nil:
		return min(box.seq, main.seq)
	}
	return box.seq
}
