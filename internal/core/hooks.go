package core

import (
	"cmp"
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// kind is which function of Hooks is meant.
type kind int

const (
	kindQueued kind = iota
	kindStarted
	kindEnded
	kindAbandoned
	kindPanicked
)

// of returns the function of h for what, which may be nil.
func (h *Hooks) of(what kind) func(CallInfo) {
	switch what {
	case kindQueued:
		return h.Queued
	case kindStarted:
		return h.Started
	case kindEnded:
		return h.Ended
	case kindAbandoned:
		return h.Abandoned
	default:
		return h.Panicked
	}
}

func (h *Hooks) empty() bool {
	return h.Queued == nil && h.Started == nil && h.Ended == nil && h.Abandoned == nil && h.Panicked == nil && h.Values == nil
}

// hooks are those of the process, in the order in which they are told, nil if
// there are none. What it points to never changes.
var hooks atomic.Pointer[[]*Hooks]

// hooking is 0 if no hooks of any kind exist. Calls look at it first, because
// one look is cheap.
var hooking atomic.Uint32

const (
	ofProcess = 1 << iota // hooks is not nil
	ofScopes              // a scope with hooks was made; it stays so
)

// installed is where hooks comes from.
var installed struct {
	sync.Mutex
	entries []*installation // in the order in which they were made
}

// An installation is one AddHooks or SetHooks that has not been undone.
type installation struct {
	hooks Hooks
	set   bool // by SetHooks: only the last of these is told of calls
}

// AddHooks adds h to the hooks of the process, and returns what removes it.
func AddHooks(h Hooks) (remove func()) { return install(&installation{h, false}) }

// SetHooks replaces the hooks of the previous SetHooks with h, and returns a
// function that removes h. After that the hooks of the most recent SetHooks that
// has not been undone are told again.
func SetHooks(h Hooks) (restore func()) { return install(&installation{h, true}) }

func install(i *installation) (undo func()) {
	installed.Lock()
	defer installed.Unlock()
	installed.entries = append(installed.entries, i)
	publishHooks()
	return func() {
		installed.Lock()
		defer installed.Unlock()
		if at := slices.Index(installed.entries, i); at >= 0 {
			installed.entries = slices.Delete(installed.entries, at, at+1)
			publishHooks()
		}
	}
}

// publishHooks makes hooks what is installed. installed is locked.
func publishHooks() {
	last := -1
	for at, i := range installed.entries {
		if i.set {
			last = at
		}
	}
	var list []*Hooks
	for at, i := range installed.entries {
		if (!i.set || at == last) && !i.hooks.empty() {
			list = append(list, &i.hooks)
		}
	}
	if list == nil {
		hooking.And(^uint32(ofProcess))
		hooks.Store(nil)
	} else {
		hooks.Store(&list)
		hooking.Or(ofProcess)
	}
}

// hooked reports whether anybody is told of calls of s, which may be nil.
func hooked(s *Scope) bool {
	h := hooking.Load()
	return h != 0 && (h&ofProcess != 0 || s != nil && s.hooks != nil)
}

// audienceOf returns who is told, now, of calls of s, which may be nil.
func audienceOf(s *Scope) audience {
	a := audience{process: hooks.Load()}
	if s != nil {
		a.scope = s.hooks
	}
	return a
}

// at returns the nth of the audience, nil if there are not so many.
func (a audience) at(n int) *Hooks {
	if a.process != nil {
		if n < len(*a.process) {
			return (*a.process)[n]
		}
		n -= len(*a.process)
	}
	if a.scope != nil && n < len(*a.scope) {
		return (*a.scope)[n]
	}
	return nil
}

// wants reports whether anybody wants to be told.
func (a audience) wants(what kind) bool {
	for n := 0; ; n++ {
		switch h := a.at(n); {
		case h == nil:
			return false
		case h.of(what) != nil:
			return true
		}
	}
}

// wantsValues reports whether anybody has values to give.
func (a audience) wantsValues() bool {
	for n := 0; ; n++ {
		switch h := a.at(n); {
		case h == nil:
			return false
		case h.Values != nil:
			return true
		}
	}
}

// tell tells all, in order. One that ends in a panic or a Goexit does not keep
// the rest from being told; then tell ends so, with the last such ending.
func (a audience) tell(what kind, i CallInfo) {
	a.each(0, func(h *Hooks) {
		if f := h.of(what); f != nil {
			f(i)
		}
	})
}

// each calls f for all from the nth on.
func (a audience) each(n int, f func(*Hooks)) {
	defer func() {
		if a.at(n) != nil { // the one before has not returned
			a.each(n, f)
		}
	}()
	for h := a.at(n); h != nil; h = a.at(n) {
		n++
		f(h)
	}
}

// values asks all for the values that the call which i is about is to have.
func (a audience) values(i CallInfo) []carried {
	var all []carried
	a.each(0, func(h *Hooks) {
		if h.Values == nil {
			return
		}
		ctx := h.Values(i)
		switch {
		case ctx == nil:
			return
		case ctx.Done() != nil || From(ctx) != nil:
			panic("asyncsync: Hooks.Values returned a ctx that was made from one of a call, or can end: make it from context.Background()")
		}
		all = append(all, carried{h, ctx})
	})
	return all
}

// Failing is a Body that knows the error its function returned.
type Failing interface{ Err() error }

func (c *Call) info(t *Thread) CallInfo {
	i := CallInfo{Ctx: c.context(), Name: c.Name(), Inline: c.inline}
	if i.Ctx == nil {
		i.Ctx = context.Background()
	}
	if c.scope != nil {
		i.Context = c.scope.Name()
	}
	if t != nil {
		i.Thread = int(t.tid.Load())
	}
	if w := c.watched; w != nil {
		i.ID, i.Lost = w.id, w.lost
		if !w.startedAt.IsZero() {
			i.Begun = true
			i.QueueTime = w.startedAt.Sub(w.queuedAt)
			if !w.endedAt.IsZero() {
				i.RunTime = w.endedAt.Sub(w.startedAt)
			}
		}
	}
	return i
}

// callIDs gives calls that hooks are told of their ids.
var callIDs atomic.Uint64

// carry returns ctx with the values that hooks have given the call. w may be nil.
func (w *watch) carry(ctx context.Context) context.Context {
	if w == nil || w.values == nil {
		return ctx
	}
	if c, ok := ctx.(*Ctx); ok {
		return w.carryOwn(c)
	}
	return carry(ctx, w.values)
}

// carryOwn is carry for one of our own.
func (w *watch) carryOwn(ctx *Ctx) *Ctx {
	if w == nil || w.values == nil {
		return ctx
	}
	return newCtx(carry(ctx.Context, w.values), ctx.scope, ctx.node, ctx.home)
}

// tellQueued tells the hooks that a call was made, and collects the values that they
// give. The caller of tellQueued must then make c.ctx carry these values.
func (c *Call) tellQueued(ctx context.Context) {
	if !hooked(c.scope) {
		return
	}
	w := &watch{audience: audienceOf(c.scope), id: callIDs.Add(1), queuedAt: time.Now(), lost: lost(ctx, c.scope)}
	c.watched = w
	values := w.wantsValues()
	if !values && !w.wants(kindQueued) {
		return
	}
	i := c.info(nil)
	i.Ctx = ctx
	if values {
		w.values = w.audience.values(i)
		i.Ctx = w.carry(ctx)
	}
	w.tell(kindQueued, i)
}

// lost reports whether a call with ctx has gone to s, a default thread, although its
// caller runs on the thread of a context, or as async code that such a thread waits
// for. Then some function has not handed its ctx on. A ctx of this module, detached or
// of a task, is never lost: it says where it belongs.
func lost(ctx context.Context, s *Scope) bool {
	if s == nil || s.kind != defaultScope && s.kind != bubbleScope || From(ctx) != nil {
		return false
	}
	own, rec := current()
	if own != nil {
		return own.run.inContext()
	}
	if rec == nil {
		return false
	}
	n, _ := rec.Node.(*Node)
	for ; n != nil; n = n.parent.Load() {
		f := n.frame
		if f == nil || f.thread == nil {
			continue
		}
		f.thread.mu.Lock()
		in := f.live && f.call.inContext()
		f.thread.mu.Unlock()
		return in
	}
	return false
}

// inContext reports whether c, which may be nil, is of a context.
func (c *Call) inContext() bool {
	return c != nil && c.scope != nil && c.scope.kind == contextScope
}

// tellStarted tells the hooks that the function of c begins.
func (c *Call) tellStarted(t *Thread) {
	if c.watched == nil {
		return
	}
	c.watched.startedAt = time.Now()
	if c.watched.wants(kindStarted) {
		c.watched.tell(kindStarted, c.info(t))
	}
}

// tellEnded tells the hooks how the function of c ended.
func (c *Call) tellEnded(t *Thread) {
	if c.ending.Panic != nil && c.task && !audienceOf(c.scope).wants(kindPanicked) {
		c.ending.Panic.MayBeLost(c.Name())
	}
	if c.watched == nil {
		if c.ending.Panic == nil || !hooked(c.scope) {
			return
		}
	} else {
		c.watched.endedAt = time.Now()
	}
	i := c.outcome(t)
	if p := c.ending.Panic; p != nil {
		tellPanic(p, i, audienceOf(c.scope))
	}
	if w := c.watched; w != nil && w.wants(kindEnded) {
		w.tell(kindEnded, i)
	}
}

// tellLate tells the hooks that c, which they may take for ended, has failed after
// all: see conclude. They do not get its ctx, which is what has failed. They run on a new
// goroutine, as those of tellAbandoned do.
func (c *Call) tellLate() {
	countEnding(c.ending)
	switch p, a := c.ending.Panic, audienceOf(c.scope); {
	case p == nil:
	case a.wants(kindPanicked):
		i := c.outcome(c.thread.Load())
		i.Ctx = nil
		go tellPanic(p, i, a)
	default:
		p.MayBeLost(c.Name())
	}
}

// tellRefused tells the hooks that c did not run, and why. The caller of c calls it; for a
// task turnAway does. It ignores abandoned calls, which have begun.
func (c *Call) tellRefused(ctx context.Context, err error) {
	if !c.watched.wants(kindEnded) || errors.Is(err, ErrAbandoned) {
		return
	}
	i := c.info(nil)
	i.Ctx, i.Err, i.QueueTime = c.watched.carry(ctx), err, time.Since(c.watched.queuedAt)
	c.watched.tell(kindEnded, i)
}

// tellPanic gives p to the hooks of a, unless some have heard of it.
func tellPanic(p *Panic, i CallInfo, a audience) {
	if !a.wants(kindPanicked) || !p.First() {
		return
	}
	if i.Ctx == nil {
		i.Ctx = context.Background()
	}
	i.Panic, i.Stack = p.Value, p.Stack
	a.tell(kindPanicked, i)
}

func (c *Call) outcome(t *Thread) CallInfo {
	i := c.info(t)
	i.Begun, i.Goexit = true, c.ending.Goexit
	if p := c.ending.Panic; p != nil {
		i.Panic, i.Stack = p.Value, p.Stack
	} else if f, ok := c.body.(Failing); ok {
		i.Err = f.Err()
	}
	return i
}

// tellAbandoned tells the hooks the outcome of c, whose caller has abandoned it. The
// hooks run on a new goroutine, so that a hook that panics or calls Goexit does not
// end the thread.
func (c *Call) tellAbandoned() {
	a := audienceOf(c.scope)
	if p := c.ending.Panic; p != nil && !a.wants(kindAbandoned) && !a.wants(kindPanicked) {
		os.Stderr.WriteString(p.Report(c.Name() + ", which was abandoned,"))
	}
	if !a.wants(kindAbandoned) {
		return
	}
	go a.tell(kindAbandoned, c.outcome(c.thread.Load()))
}

// TellUnheard tells the hooks of a panic or a Goexit that nobody waits for. A panic that no
// hook hears of is written to standard error.
func TellUnheard(ctx context.Context, e Ending, name string) {
	countEnding(e)
	i := CallInfo{Ctx: ctx, Name: name, Begun: true, Goexit: e.Goexit}
	s := ScopeOf(ctx)
	if s != nil {
		i.Context = s.Name()
	}
	if t := Here(); t != nil {
		i.Thread = int(t.tid.Load())
	}
	a := audienceOf(s)
	switch {
	case e.Panic != nil && !a.wants(kindPanicked):
		os.Stderr.WriteString(e.Panic.Report(cmp.Or(name, "a posted function") + ", for which nobody waits,"))
	case e.Panic != nil:
		tellPanic(e.Panic, i, a)
	case e.Goexit && a.wants(kindEnded):
		a.tell(kindEnded, i)
	}
}

// TellUnheardOfLoop is TellUnheard for what has run on a loop. A hook that panics ends
// the program, not the loop.
func TellUnheardOfLoop(ctx context.Context, e Ending, name string) {
	defer func() {
		if v := recover(); v != nil {
			go func() { panic(v) }()
		}
	}()
	TellUnheard(ctx, e, name)
}
