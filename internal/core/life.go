package core

import (
	"context"

	"asyncsync.dev/internal/expiry"
)

// This file has the ctx of a task: its layer, its cancellation, and how long the layer
// stays.

// whole makes f a life that has its rest, of a task with the ctx of h.
func (f *fullLife) whole(h *Home) *life {
	f.life.lifeRest = &f.rest
	f.rest.home = h
	return &f.life
}

// called returns what the task is called in reports.
func (l *life) called() string {
	l.mu.Lock()
	rest, c := l.lifeRest, l.queued
	l.mu.Unlock()
	switch {
	case c != nil: // the rest may be there only to say that the task is cancelled
		return c.Name()
	case rest != nil:
		return rest.label.String()
	}
	return label{}.String()
}

// queue makes l take c, which has been submitted, out of its queue when base ends.
// l watches base and not the ctx that the task was started with, because that ctx
// may be of a task whose end cancels nothing.
func (l *life) queue(c *Call) {
	done := l.base.Done()
	l.mu.Lock()
	if l.over || l.begun {
		l.mu.Unlock()
		return
	}
	l.queued = c
	cause := l.causeNow()
	l.mu.Unlock()
	switch {
	case cause != nil:
		l.withdraw(cause) // l was cancelled before l.queued was set
		return
	case done == nil:
		return // only stop can cancel the task
	}
	link := watches.Add(l.base, done, l)
	if err := Ended(l.base); err != nil {
		l.withdraw(err)
	}
	l.mu.Lock()
	left := l.over || l.begun
	if !left {
		c.promise().watch = link
	}
	l.mu.Unlock()
	if left {
		watches.Remove(link)
	}
}

// causeNow returns the cause with which stop has cancelled l, or nil if it has not.
// l.mu is held.
func (l *life) causeNow() error {
	if !l.ended {
		return nil
	}
	return l.cause
}

// open makes the layer, makes ctx the ctx of the task, and returns it. l has its rest.
func (l *life) open(ctx *Ctx, scope *Scope) *Ctx {
	l.makeLayer()
	ctx.wrap(l.layer)
	ctx.scope, ctx.node, ctx.home = scope, &l.own, l.home
	return ctx
}

// openLate is open for a task on a thread. It is called when the function is about to
// begin, or before the task is queued if hooks are told of it or it is refused. The ctx and the rest are separate allocations. After a Goexit the record of the call
// may stay on the stack of its thread and keep the life alive, and the life must not
// keep the scope alive.
func (l *life) openLate(t *Task) *Ctx {
	rest := &lifeRest{label: t.call.title(), home: t.home}
	l.mu.Lock()
	if early := l.lifeRest; early != nil { // it was cancelled
		rest.cause = early.cause
	}
	l.lifeRest = rest
	l.mu.Unlock()
	return l.open(&Ctx{}, t.call.scope)
}

// isOpen reports whether there is a layer. l.mu is held.
func (l *life) isOpen() bool { return l.lifeRest != nil && l.layer != nil }

// makeLayer makes the layer.
func (l *life) makeLayer() {
	layer, cancel := layerOver(l.base)
	l.mu.Lock()
	l.layer, l.cancel = layer, cancel
	cause := l.causeNow()
	l.mu.Unlock()
	if cause != nil {
		cancel(cause)
	}
}

// layerOver is context.WithCancelCause for any base. WithCancelCause panics if a
// base of a foreign type contradicts itself: Done is closed and Err returns nil.
// layerOver treats such a base as ended, because on a thread no caller could get
// the panic.
func layerOver(base context.Context) (layer context.Context, cancel context.CancelCauseFunc) {
	defer func() {
		if recover() != nil {
			layer, cancel = context.WithCancelCause(context.WithoutCancel(base))
			cancel(context.Canceled)
		}
	}()
	return context.WithCancelCause(base)
}

// taken notes that the task has left its queue because its function is about to
// begin.
func (l *life) taken() {
	l.mu.Lock()
	l.begun = true
	link := l.unqueue()
	l.mu.Unlock()
	watches.Remove(link)
}

// unqueue notes that the task is not queued any more, and returns its link, or nil.
// l.mu is held.
func (l *life) unqueue() (link *expiry.Link[*life]) {
	if c := l.queued; c != nil {
		t := c.promise()
		link, t.watch = t.watch, nil
	}
	l.queued = nil
	return link
}

// withdraw takes the task out of its queue.
func (l *life) withdraw(cause error) {
	l.mu.Lock()
	c := l.queued
	l.mu.Unlock()
	switch {
	case c == nil:
	case c.thread.Load() == nil: // it is for a loop
		if c.turnDown(cause) {
			c.turnAway()
		}
	case c.revoke(cause):
		c.turnAway()
	}
}

// withdrawApart is withdraw for a caller who has other tasks to withdraw as well. A hook
// that is told may wait for one of those, or end its goroutine, so it gets its own.
func (l *life) withdrawApart(cause error) {
	l.mu.Lock()
	c := l.queued
	l.mu.Unlock()
	if c != nil && c.isWatched() {
		go l.withdraw(cause)
		return
	}
	l.withdraw(cause)
}

// isWatched reports whether hooks are told of c, a task.
func (c *Call) isWatched() bool {
	if t := c.thread.Load(); t != nil {
		t.mu.Lock() // under which c gets its rest
		defer t.mu.Unlock()
	}
	return c.callRest != nil && c.watched != nil
}

// begin makes l the life of a task that is started with ctx.
func (l *life) begin(ctx context.Context) {
	l.held = 1
	l.base = foreign(ctx)
	var parent *life
	if n := NodeOf(ctx); n != nil {
		parent = n.life
	}
	if parent == nil {
		return
	}
	parent.mu.Lock()
	switch {
	case parent.over && parent.held == 0:
		// Its layer is gone; foreign has looked past it.
	case below(l.base) != parent.layer:
		parent.held++
		l.up = parent
	case !parent.over:
		l.base = carry(parent.base, valuesOf(l.base))
		parent.adopt(l)
		l.parent = parent
		// parent.up is above l as well, so it must outlast l.
		l.up = parent.up.hold()
	default:
		l.base = carry(parent.base, valuesOf(l.base))
		l.up = parent.up.hold()
	}
	if l.parent != nil && parent.ended {
		l.cancelled(parent.cause)
	}
	parent.mu.Unlock()
}

// cancelled notes that l is cancelled. l.mu is held, if others know of l.
func (l *life) cancelled(cause error) {
	l.ended = true
	if l.lifeRest == nil {
		l.lifeRest = &lifeRest{}
	}
	l.cause = cause
}

// adopt puts c among the children. l.mu is held.
func (l *life) adopt(c *life) {
	c.listed = true
	if c.after = l.children; c.after != nil {
		c.after.before = c
	}
	l.children = c
}

// disown takes c out of the children of l, if it is there. l.mu is held.
func (l *life) disown(c *life) {
	if !c.listed {
		return
	}
	if c.before != nil {
		c.before.after = c.after
	} else {
		l.children = c.after
	}
	if c.after != nil {
		c.after.before = c.before
	}
	c.listed, c.before, c.after = false, nil, nil
}

func (l *life) hold() *life {
	if l != nil {
		l.mu.Lock()
		l.held++
		l.mu.Unlock()
	}
	return l
}

// stop cancels the task, and those of its children whose layers hang from the
// context above it.
func (l *life) stop(cause error) {
	if cause == nil {
		cause = context.Canceled
	}
	l.stopWith(cause, l.withdraw)
}

// stopWith is stop. withdraw is called to take the task itself out of its queue.
func (l *life) stopWith(cause error, withdraw func(error)) {
	l.mu.Lock()
	if l.over || l.ended {
		l.mu.Unlock()
		return
	}
	l.cancelled(cause)
	var children []*life
	for c := l.firstChild(); c != nil; c = c.after {
		children = append(children, c)
	}
	cancel := l.cancel
	l.mu.Unlock()
	if cancel != nil {
		cancel(cause)
	}
	withdraw(cause)
	for _, c := range children {
		c.stopWith(cause, c.withdrawApart)
	}
}

// isEnded reports whether the task is cancelled, by stop or from above.
func (l *life) isEnded() bool {
	l.mu.Lock()
	ended, layer := l.ended, l.base
	if l.isOpen() {
		layer = l.layer
	}
	l.mu.Unlock()
	return ended || Ended(layer) != nil
}

// end says that the function has ended, or will not begin.
func (l *life) end() {
	l.mu.Lock()
	l.over = true
	parent, link := l.parent, l.unqueue()
	l.parent = nil
	l.mu.Unlock()
	watches.Remove(link)
	if parent != nil {
		parent.mu.Lock()
		parent.disown(l)
		parent.mu.Unlock()
	}
	for {
		l.mu.Lock()
		c := l.firstChild()
		if c == nil {
			l.mu.Unlock()
			break
		}
		l.disown(c)
		l.mu.Unlock()
		c.mu.Lock()
		c.parent = nil
		c.mu.Unlock()
	}
	l.release()
}

// drop lets go of the function, which has ended or will not begin. It sets the label
// first, because somebody may be asking for the name just now.
func (t *Task) drop() {
	b := t.call.body.(TaskBody)
	if t.label.Load() != nil {
		b.Drop()
		return
	}
	l := t.call.life()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isOpen() {
		t.label.Store(&l.label)
	} else {
		t.label.Store(&label{pc: b.(interface{ PC() uintptr }).PC()})
	}
	b.Drop()
}

// firstChild returns one of the children, or nil. l.mu is held.
func (l *life) firstChild() *life {
	if l.lifeRest == nil {
		return nil
	}
	return l.children
}

// release gives up one hold on the layer. Code of the user's may run: a ctx above
// the layer is asked where it has the layer in its list. If that code panics or
// calls Goexit, so does release, when it has released the rest.
func (l *life) release() {
	defer func() {
		if l != nil {
			l.release()
		}
	}()
	for l != nil {
		this := l
		this.mu.Lock()
		this.held--
		l = nil
		last := this.held == 0
		if last {
			l, this.up = this.up, nil
		}
		this.mu.Unlock()
		if last && this.lifeRest != nil {
			this.gone.Store(true) // before the cancel: see Afterlife
			if this.cancel != nil {
				this.cancel(nil)
			}
		}
	}
}

// watches holds the tasks that wait in queues, by the channel whose end cancels
// them.
var watches expiry.Table[*life]

// Expire implements [expiry.Waiter].
//
// Code of base may panic or call Goexit here, on a goroutine of package context's. base
// has ended all the same.
func (l *life) Expire(base context.Context) {
	cause := context.Canceled
	defer func() {
		_ = recover()
		l.withdrawApart(cause)
	}()
	cause = Cause(base)
}
