package core

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/trace"
	"slices"
	"sync"
	"sync/atomic"

	"asyncsync.dev/internal/cycle"
)

// Init makes s a scope entered from ctx and returns the context that carries
// it. Inside another scope it shares that one's thread, unless cfg.Fresh.
func (s *Scope) Init(ctx context.Context, cfg *Config) context.Context {
	s.cfg = cfg
	s.root = s
	up := From(ctx)
	s.ctx.wrap(foreign(ctx))
	s.ctx.scope = s
	if up != nil {
		s.ctx.node, s.ctx.home = up.node, up.home
		if out := up.scope; out != nil && out.kind == contextScope && !cfg.Fresh {
			s.root, s.up = out.root, out
			s.hooks, s.tasks = out.hooks, out.tasks
		}
	}
	if cfg.Tasks != nil {
		cfg.Tasks.up = s.tasks
		s.tasks = cfg.Tasks
	}
	if len(cfg.Hooks) > 0 {
		list := cfg.Hooks
		if s.hooks != nil {
			list = slices.Concat(*s.hooks, list)
		}
		s.hooks = &list
		if hooking.Load()&ofScopes == 0 {
			hooking.Or(ofScopes)
		}
	}
	return &s.ctx
}

// MadeAt notes for reports where the scope is made: where the caller was called,
// or skip-1 callers above. It keeps only an address, which a report turns into
// a place: even that takes most of the time that making a scope takes.
func (s *Scope) MadeAt(skip int) {
	var pcs [1]uintptr
	runtime.Callers(skip+2, pcs[:])
	s.pc = pcs[0]
}

// DefaultConfig is the configuration of scopes that are made without one. It
// must not be changed.
var DefaultConfig = &Config{}

// Made reports whether Init has been called.
func (s *Scope) Made() bool { return s.root != nil }

// enter opens an account for one call. If related is true, the call comes from a
// function that still runs, and is accepted even after Close. The mu of the thread is
// held, except by EnterInline. If an outer scope refuses the call and s was closed in
// between, settle closes the done channel of s under that mu. To enter the outer scope
// first would be worse: settle could then end the lease of the thread under it.
func (s *Scope) enter(related bool) error {
	for {
		v := s.account.Load()
		if v&1 != 0 && (v == 1 || !related) {
			return ErrClosed
		}
		if s.account.CompareAndSwap(v, v+2) {
			break
		}
	}
	if s.up == nil {
		return nil
	}
	err := s.up.enter(related)
	if err != nil {
		s.settle(s.account.Add(-2))
	}
	return err
}

// leave ends what enter began.
func (s *Scope) leave() {
	for ; s != nil; s = s.up {
		if left := s.account.Add(-2); left == 1 || left == 0 && s.kind == bubbleScope {
			s.settle(left)
		}
	}
}

// within reports whether o is s or a scope that s is nested in.
func (s *Scope) within(o *Scope) bool {
	for ; s != nil; s = s.up {
		if s == o {
			return true
		}
	}
	return false
}

// settle is called when a call has left the account, in which left remains.
func (s *Scope) settle(left int64) {
	switch {
	case left == 1:
		s.finish()
	case left == 0 && s.kind == bubbleScope:
		s.retireBubble()
	}
}

// Closed reports whether the scope takes no more work from outside.
func (s *Scope) Closed() bool {
	return s.account.Load()&1 != 0 || s.up != nil && s.up.Closed()
}

// shut marks the scope closed.
func (s *Scope) shut() {
	for {
		v := s.account.Load()
		if v&1 != 0 {
			return
		}
		if s.account.CompareAndSwap(v, v|1) {
			if v == 0 {
				s.finish()
			}
			return
		}
	}
}

// finish runs once, when the scope is closed and its last call has ended.
func (s *Scope) finish() {
	t := s.thread.Load()
	if s.root != s || t == nil {
		// A waiter sets awaited first, and then looks for isOver.
		s.marks.Or(isOver)
		if s.marks.Load()&awaited != 0 {
			s.mu.Lock()
			if s.done != nil {
				close(s.done)
			}
			s.mu.Unlock()
		}
		return
	}
	s.mu.Lock()
	s.lease().done = s.done // nobody has closed it yet
	s.marks.Or(leaves)
	if s.stay != nil {
		s.stay.cleanup.Stop()
	} else {
		t.cleanup.Stop()
	}
	s.mu.Unlock()
	if s.stay != nil {
		s.stay.leave()
		return
	}
	t.unuse()
}

// isOver reports whether the scope is closed and has given its thread back.
func (s *Scope) isOver() bool {
	m := s.marks.Load()
	return m&isOver != 0 || m&leaves != 0 && s.lease().isOver()
}

// finished returns the channel that is closed when the scope is over. s.mu is
// held.
func (s *Scope) finished() chan struct{} {
	if s.done == nil {
		s.done = make(chan struct{})
		if s.marks.Load()&leaves != 0 {
			s.lease().tell(s.done)
		}
	}
	return s.done
}

// bound returns the thread of the outermost scope, made if there is none. It
// has no goroutine until the first call asks for one.
func (s *Scope) bound() *Thread {
	if t := s.thread.Load(); t != nil {
		return t
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.thread.Load(); t != nil {
		return t
	}
	if e := s.cfg.Own; e != nil {
		return s.boundTo(e)
	}
	t := newThread(s.cfg)
	t.made = s.pc
	t.lease.hooks = s.hooks
	if s.kind == contextScope {
		if t.pool == nil && !t.unpinned {
			t.pool = DefaultPool
		}
		if bubble() == 0 {
			// The cleanup runs outside of all bubbles, and could not wake a
			// thread inside one. Nothing is queued or runs when it does, for a
			// call holds its scope.
			t.cleanup = runtime.AddCleanup(s, (*Thread).unuse, t)
		}
	}
	s.thread.Store(t)
	return t
}

// boundTo is bound for a scope that has the thread of e's goroutine. s.mu is held.
func (s *Scope) boundTo(e *Executor) *Thread {
	t := e.threadNow()
	st := &stay{thread: t, exec: e}
	st.onStart, st.onExit, st.hooks = s.cfg.OnStart, s.cfg.OnExit, s.hooks
	if bubble() == 0 {
		st.cleanup = runtime.AddCleanup(s, (*stay).leave, st)
	}
	s.stay = st
	s.thread.Store(t)
	return t
}

// Here reports whether the calling goroutine is the scope's thread and runs a function
// there, so that a call runs inline.
func (s *Scope) Here() bool {
	t := s.root.thread.Load()
	// The goroutine of an executor is a thread also while it runs nothing. A call then
	// makes it run something: the function, with all that belongs to a call.
	return t != nil && t.mine() && (t.run != nil || t.own == nil || !t.own.forGood.Load())
}

// Mine reports whether the calling goroutine is the scope's thread.
func (s *Scope) Mine() bool {
	t := s.root.thread.Load()
	return t != nil && t.mine()
}

// Default returns the scope of the process-wide thread, or that of the
// caller's synctest bubble.
func Default() *Scope {
	b := bubble()
	if b == 0 {
		return process
	}
	bubbles.Lock()
	defer bubbles.Unlock()
	s := bubbles.scopes[b]
	if s != nil && s.account.Load() != 1 {
		return s
	}
	for other, o := range bubbles.scopes { // whose bubble has ended, perhaps
		if o.account.CompareAndSwap(0, 1) {
			delete(bubbles.scopes, other)
		}
	}
	s = newDefault(bubbleScope)
	s.bubble = b
	if bubbles.scopes == nil {
		bubbles.scopes = make(map[int64]*Scope)
	}
	bubbles.scopes[b] = s
	return s
}

var process = newDefault(defaultScope)

// bubbles has the scopes of the default threads of synctest bubbles. A bubble
// tells nobody when it ends. So a scope goes when it has nothing to do: its last call
// takes it out. Code that has kept the scope asks for Default again.
var bubbles struct {
	sync.Mutex // nests outside everything
	scopes     map[int64]*Scope
}

func newDefault(kind scopeKind) *Scope {
	s := &Scope{kind: kind, cfg: &Config{Name: "default"}}
	s.root = s
	s.ctx.wrap(context.Background())
	s.ctx.scope = s
	return s
}

// retireBubble ends the thread of a bubble's default scope, which has nothing to
// do: a bubble waits for all goroutines in it.
func (s *Scope) retireBubble() {
	if !s.account.CompareAndSwap(0, 1) && s.account.Load() != 1 {
		return // it has something to do again
	}
	bubbles.Lock()
	if bubbles.scopes[s.bubble] == s {
		delete(bubbles.scopes, s.bubble)
	}
	bubbles.Unlock()
	if t := s.thread.Load(); t != nil {
		t.unuse()
	}
}

var required atomic.Bool

// Require turns the default thread off or on.
func Require(on bool) { required.Store(on) }

// Resolve returns the scope that a call with ctx goes to: the one named, the
// nearest in ctx, or the default.
func Resolve(ctx context.Context, on *Scope) (*Scope, error) {
	if on != nil {
		return on, nil
	}
	if c := From(ctx); c != nil && c.scope != nil {
		s := c.scope
		switch {
		case s.kind == bubbleScope:
			return Default(), nil
		case s.kind != adoptedScope:
			return s, nil
		}
		if t := s.thread.Load(); t != nil && !t.isOver() {
			return s, nil
		}
		// What was adopted has gone its own way; the next in line is the
		// default, since only bare callers are adopted.
	}
	if required.Load() {
		return nil, ErrNoContext
	}
	return Default(), nil
}

// Close refuses new work, runs what is queued, waits for what runs, and gives
// the thread back. Called from the scope's own thread or from below a function
// on it, it does not wait: closing completes when that function ends.
func (s *Scope) Close() error {
	s.shut()
	if s.isOver() {
		return s.exitError()
	}
	if s.Inside() {
		return nil
	}
	if how, _ := s.await(context.Background()); how == inside {
		return nil
	}
	return s.exitError()
}

// CloseAndWait is Close, and reports whether it has waited for the end instead
// of leaving it to the function that it was called from.
func (s *Scope) CloseAndWait() bool {
	s.shut()
	if !s.Inside() {
		if how, _ := s.await(context.Background()); how == closed {
			return true
		}
	}
	return s.isOver()
}

// Shutdown is Close until ctx ends; then calls still queued are refused, and
// the error says what still runs.
func (s *Scope) Shutdown(ctx context.Context) error {
	if err := s.ShutdownAndWait(ctx); err != nil {
		return err
	}
	return s.exitError()
}

// ShutdownAndWait is Shutdown, but for the failures at the end of the thread; its
// error says why it has not waited for that.
func (s *Scope) ShutdownAndWait(ctx context.Context) error {
	s.shut()
	if s.isOver() {
		return nil
	}
	if s.Inside() {
		return s.selfShutdown()
	}
	switch how, err := s.await(ctx); how {
	case closed:
		return nil
	case inside:
		if err != nil {
			return err
		}
		return s.selfShutdown()
	}
	still := s.refuse()
	return fmt.Errorf("asyncsync: shutdown of %s gave up, %s: %w", s.describe(), still, Cause(ctx))
}

func (s *Scope) selfShutdown() error {
	return ShutdownInside(s.describe())
}

// Named is named for a call with the name call, which may be empty.
func (s *Scope) Named(err error, call string) error {
	return s.named(err, label{name: call})
}

// named returns err. If err says that s is closed, or has too much to do, and not which
// call was refused, named returns an error instead that matches it and says so.
func (s *Scope) named(err error, call label) error {
	_, waited := err.(admitError)
	switch {
	case err == ErrClosed:
		return &closedError{s.Describe() + " is closed: call of " + call.String()}
	case waited || err == ErrQueueFull || err == errNotFree:
		return &overloadError{err, s.Name(), s.pc, call}
	}
	return err
}

// Inside reports whether the caller is the scope's thread, or runs for a
// function that blocks it.
func (s *Scope) Inside() bool {
	t := s.root.thread.Load()
	if t == nil {
		return false
	}
	own, rec := current()
	if own == t {
		return !t.idleHere()
	}
	if rec == nil {
		return false
	}
	n, _ := rec.Node.(*Node)
	if n == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.frameFor(n) != nil
}

// Outcomes of a wait for the end of a scope.
const (
	closed = iota
	gaveUp // ctx has ended
	inside // the scope's thread waits for the goroutine that closes
)

// await waits until the scope is finished, or ctx ends. On a thread it serves
// meanwhile, and the calls that the scope still runs are joined. If how is
// inside, cycle is the error of the cycle, or nil for the simple one of the
// scope's thread and the caller.
func (s *Scope) await(ctx context.Context) (how int, cycle error) {
	s.mu.Lock()
	s.marks.Or(awaited)
	if s.isOver() {
		s.mu.Unlock()
		return closed, nil
	}
	done := s.finished()
	s.mu.Unlock()
	// What the scope still runs is joined; no other calls come.
	own, rec := current()
	var by *Node
	if rec != nil {
		by, _ = rec.Node.(*Node)
	}
	w := &goal{target: forScope{s}, ctx: ctx}
	under := by // the function that closes, as far as that is known
	if n := NodeOf(ctx); n != nil {
		under = n
	}
	if own != nil {
		f := own.pushWait(w, "close")
		if own.own != nil && s.root.thread.Load() == own {
			own.serveAll(f) // no function is blocked on it, so strangers may run
		}
		defer own.pop(f)
		nodes := s.accepted()
		joins := make([]Join, len(nodes))
		relate(own, by, func() {
			for i, n := range nodes {
				joins[i] = Join{by: by, frame: f}
				n.addJoin(&joins[i])
			}
		})
		defer relate(own, by, func() {
			for i, n := range nodes {
				n.dropJoin(&joins[i])
			}
		})
		p := newWait(f, rec, w)
		defer p.close()
		if err := p.check(); err != nil {
			return inside, err
		}
		z := sleeper{own: own, frame: f, edge: p.edge, ctx: ctx, cancel: ctx.Done()}
		return howEnded(z.wait(&sign{done: done})), nil
	}
	var free chan struct{}
	if t := s.root.thread.Load(); t != nil && by != nil {
		c := &closer{node: by, wait: w, free: make(chan struct{})}
		free = c.free
		t.mu.Lock()
		t.closers = append(t.closers, c)
		t.mu.Unlock()
		nodes := s.accepted()
		relate(nil, by, func() { c.join(nodes) })
		defer relate(nil, by, c.drop)
		defer func() {
			t.mu.Lock()
			t.closers = slices.DeleteFunc(t.closers, func(o *closer) bool { return o == c })
			t.mu.Unlock()
		}()
	}
	if s.Inside() {
		return inside, nil
	}
	// Publish the wait only now: a closer that the thread waits for is let go,
	// and its wait must not be visible then.
	p := newWait(nil, rec, w)
	defer p.close()
	if err := p.check(); err != nil {
		return inside, err
	}
	defer closingBegins(p.edge, under)()
	z := sleeper{rec: rec, edge: p.edge, ctx: ctx, cancel: ctx.Done(), place: &Elsewhere{Stopped: free, Err: errInside}}
	return howEnded(z.wait(&sign{done: done})), nil
}

// errInside ends the wait of a closer that the scope's thread has begun to wait
// for.
var errInside = errors.New("inside")

func howEnded(err error) int {
	switch err {
	case nil:
		return closed
	case errInside:
		return inside
	}
	return gaveUp
}

// accepted returns the nodes of the scope's calls that are queued or run.
func (s *Scope) accepted() (nodes []*Node) {
	t := s.root.thread.Load()
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.eachCall(func(c *Call) {
		if c.scope.within(s) {
			nodes = append(nodes, c.node)
		}
	})
	return nodes
}

// refuse takes the scope's calls out of the thread's queue and says what still
// runs. Calls in the box of a frame stay: they belong to a function that still
// runs, and are served until it ends.
func (s *Scope) refuse() string {
	t := s.root.thread.Load()
	if t == nil {
		return "nothing runs"
	}
	var out []*Call
	runs := s.lease().exits()
	t.mu.Lock()
	for c := t.main.head; c != nil; {
		next := c.next
		if c.scope.within(s) {
			t.remove(c, ErrClosed)
			out = append(out, c)
		}
		c = next
	}
	if t.run != nil && runs == "" {
		bottom := t.run
		for bottom.outer != nil {
			bottom = bottom.outer
		}
		runs = bottom.Name()
	}
	t.mu.Unlock()
	turnAway(out)
	if runs == "" {
		return "nothing runs"
	}
	return runs + " still runs"
}

// HookPanic returns the panic of a hook that was told of the failure of an exit function,
// nil if there is none.
func (s *Scope) HookPanic() *Panic {
	if s.thread.Load() == nil {
		return nil
	}
	l := s.lease()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hook
}

// exitError returns the error of the exit functions, once.
func (s *Scope) exitError() error {
	if t := s.thread.Load(); t != nil {
		return t.leaseOf(s).takeError()
	}
	return nil
}

// ScopeStats is the state of a scope at one moment.
type ScopeStats struct {
	Name    string
	Thread  int // OS thread id, 0 while there is none
	Queued  int
	Running bool
	Calls   uint64
	Closed  bool
}

// Stats returns the state of the scope, and of the thread that it may share.
func (s *Scope) Stats() ScopeStats {
	st := ScopeStats{Name: s.Name(), Closed: s.Closed()}
	t := s.root.thread.Load()
	if t == nil {
		return st
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	st.Queued, st.Calls, st.Running = t.waiting, t.calls, t.run != nil
	if !t.over {
		st.Thread = int(t.tid.Load())
	}
	return st
}

// Taint has the scope's OS thread destroyed when it is given back. It reports
// false if that thread is known never to end.
func (s *Scope) Taint() bool {
	if s.root.account.Load() == 1 {
		return true
	}
	t := s.root.bound()
	t.taint.Store(true)
	return !t.first.Load()
}

// IsDefault reports whether s is the scope of the process-wide thread.
func (s *Scope) IsDefault() bool { return s.kind == defaultScope }

// Tainted reports whether Taint has been called.
func (s *Scope) Tainted() bool {
	t := s.root.thread.Load()
	return t != nil && t.taint.Load()
}

// CountInline counts a call that ran where it was made: on the scope's thread.
func (s *Scope) CountInline() {
	// Only the thread's goroutine writes, so that no locked instruction is
	// needed on the shortest path there is.
	n := &s.root.thread.Load().inline
	n.Store(n.Load() + 1)
}

// Inline reports whether a call with ctx can simply call its function, and counts
// the call if so. That holds if the calling goroutine runs a function of the scope
// that ctx names, that scope is on or on is nil, ctx has not ended, and there are
// neither hooks nor a trace. All other calls take the long way, which has the same
// result.
func Inline(ctx context.Context, on *Scope) bool {
	c, ok := ctx.(*Ctx)
	if !ok || c.scope == nil || on != nil && c.scope != on {
		return false
	}
	t := c.scope.root.thread.Load()
	if t == nil || !t.mine() || t.run == nil || t.run.scope != c.scope {
		return false
	}
	if c.done != nil && c.Err() != nil || hooking.Load() != 0 && hooked(c.scope) || trace.IsEnabled() {
		return false
	}
	t.inline.Store(t.inline.Load() + 1)
	return true
}

// EnterInline opens an account for an inline call, unless the account of the
// function that makes the call covers it. It does not cover a call to a scope
// nested in that function's scope. entered reports whether LeaveInline must
// follow.
func (s *Scope) EnterInline() (entered bool, err error) {
	t := s.root.thread.Load()
	if t.run == nil || t.run.scope.within(s) {
		return false, nil
	}
	if err := s.enter(true); err != nil {
		return false, err
	}
	return true, nil
}

// LeaveInline ends what EnterInline began.
func (s *Scope) LeaveInline() { s.leave() }

// Context returns ctx as a function on the thread of s sees it: with s as its
// nearest scope.
func (s *Scope) Context(ctx context.Context) context.Context {
	c := From(ctx)
	switch {
	case c == nil && s.kind == defaultScope:
		return ctx
	case c == nil:
		return newCtx(ctx, s, nil, nil)
	case c.scope == s:
		return ctx
	}
	return newCtx(foreign(ctx), s, c.node, c.home)
}

func (f forScope) kind() string { return "close" }

func (f forScope) name() string { return f.s.Name() }

func (f forScope) mayWait() bool { return true }

func (f forScope) next() (*Call, *Node) { return nil, nil }

func (f forScope) reached() any { return f.s }

func (f forScope) report(_ *view, w *WaitState) {
	if t := f.s.root.thread.Load(); t != nil {
		w.Thread = t.id
	}
}

// needs returns what keeps the remaining calls of the scope from ending, and its
// exit functions, which run last and are in no call.
func (f forScope) needs(q *query) (n cycle.Needs) {
	t := f.s.root.thread.Load()
	if t == nil {
		return n
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	low, blocked := 0, t.exiting() && t.top != nil
	t.eachCall(func(c *Call) {
		if !c.scope.within(f.s) {
			return
		}
		if c == q.call {
			n.Of = []cycle.Vertex{&callVertex{q, c}}
		} else if l, line, b := t.needs(c); b && !line && (!blocked || l < low) {
			low, blocked = l, true
		}
	})
	if n.Of == nil && blocked {
		n.Of = q.stackLocked(t, low)
	}
	return n
}
