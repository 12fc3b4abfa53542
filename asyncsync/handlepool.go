package asyncsync

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/goroutine"
)

// Defaults of a HandlePoolConfig.
const (
	defaultHandles    = 16
	defaultHandleIdle = time.Minute
)

// HandlePoolConfig says how the values of a pool are made, and how many there
// may be. Zero fields mean the defaults.
type HandlePoolConfig[T any] struct {
	// Open makes a value on the new thread that the value will own. It is required.
	// Its ctx is that of the call that needs the value, so do not tie anything to
	// it that must last. If Open fails or panics, the call does the same.
	Open func(context.Context) (T, error)
	// Close, if not nil, ends a value on its thread, before the thread is given
	// back.
	Close func(T) error
	// Check, if not nil, says whether a value is still good. It is called on the
	// value's thread, before each use of the value by a new user; not for a value
	// that has just been opened. If it returns an error, the value is closed and
	// the call gets another one. If it panics or calls [runtime.Goexit], the call
	// ends in the same way and the value is closed. Check costs no extra hop,
	// except when a lease is acquired.
	Check func(context.Context, T) error
	// Max is the maximum number of open values, each on its OS thread. The default
	// is 16. The threads come from a [ThreadPool], which must allow as many.
	Max int
	// IdleTimeout is how long an unused value stays open. The default is a minute.
	// If it is negative, values stay open until the pool is closed.
	IdleTimeout time.Duration
	// MaxWaiting is how many callers may wait for a value. Beyond it, a caller gets
	// an error that matches [ErrPoolFull] at once. 0 means any number, a negative
	// number none.
	MaxWaiting int
	// MaxWait is how long a caller waits for a value. After that it gets an error
	// that matches [ErrPoolFull], and its function does not run. 0 means until its
	// ctx ends. MaxWait does not bound Open.
	MaxWait time.Duration
}

// A HandlePool is a set of values of one kind, each of which only its own
// thread may touch: database connections, interpreters. A value is opened on
// its thread when it is first needed, used by one request after another, and
// closed there when it has been unused for a while. So a value outlives the
// requests that use it. In contrast, the thread-critical variables of a
// [ThreadSensitiveContext], and what [OnThreadStart] has made, end with the
// context.
//
// [HandlePool.Do] and [GetFrom] use a value for one function. A [Lease] keeps
// it for several functions of one request. The most recently used value is used
// next. If all are in use, callers wait in line, first come first served. A
// thread that waits in line serves the calls of those who hold the values.
//
// # Nested use
//
// A call below a holder of a value of the pool gets that same value and does
// not wait. Below means in the call tree: the function that uses the value,
// functions that it calls on whichever thread, tasks that it starts, and
// everything with the ctx of a lease. So a request never waits for itself, and
// everything done within a transaction sees it.
//
// It follows that a function of the pool can run on top of another one that is
// blocked, on the same value. Calls of a task that nobody waits for run when
// the function on the thread has ended. To give a task a value of its own,
// start it with a ctx from [Detach].
//
// The methods may be called from anywhere. The model is the connection pool of
// package database/sql, which knows nothing of threads. Module sqlthread
// combines the two.
type HandlePool[T any] struct {
	cfg    HandlePoolConfig[T]
	opts   []ContextOption
	name   string
	tokens core.Resource // one for each value that is in use, being opened or being closed

	mu      sync.Mutex // guards the rest, and nests outside pooled.mu
	all     []*pooled[T]
	idle    []*pooled[T] // unused; the most recently used is last
	closed  bool
	refuses bool          // closed for good, or a Shutdown gave up: not even callers in line get a value
	line    []*waiting[T] // in order
	timer   *time.Timer   // nil while no value can become idle for too long
	errs    error         // of closing values, not yet returned to a caller
	stats   HandlePoolStats
}

// waiting is a caller in line. A caller that the call tree knows also waits in
// the line of tokens, which knows what that wait means to others; cancel tells
// it that it will get no token. An unknown caller, which is the usual case,
// gets its token from the previous holder, often together with the value.
type waiting[T any] struct {
	cancel context.CancelCauseFunc // nil for one who is not known

	turn chan struct{} // 1-buffered; for an unknown caller

	// For an unknown caller: set under the mu of the pool before turn is sent.
	given bool
	e     *pooled[T] // with its token
	gid   int64      // of the token, if e is nil
	err   error
}

// pooled is a value of a pool.
type pooled[T any] struct {
	h *Handle[T]

	// Guarded by the mu of the pool.
	token token     // of its user
	users int       // functions and leases that hold it
	since time.Time // when it became unused
	sick  bool      // it must not be used again

	mu    sync.Mutex   // a leaf lock
	nodes []*core.Node // of functions that run with it, and of leases
}

// A token is the right to use a value or to open one.
type token struct {
	gid    int64 // the goroutine that took it
	nobody bool  // taken for an unknown caller
}

// HandlePoolStats is the state of a HandlePool at one moment, with totals since
// it was made.
type HandlePoolStats struct {
	Open    int // values, including those being closed
	Idle    int // of these, unused
	Waiting int // callers in line

	Opened    uint64        // values
	Unhealthy uint64        // of these, closed because Check failed or panicked, or because of Taint
	Expired   uint64        // of these, closed because they were unused
	Waited    uint64        // callers that had to wait in line
	WaitTime  time.Duration // total time that they waited
	Refused   uint64        // callers, waiting or not, that got [ErrPoolFull]
}

// NewHandlePool returns a pool. It opens no value. The options apply to the
// contexts of the values, as for [Open]; [WithName] names the pool too. It
// panics if c has no Open function, or a negative Max or MaxWait.
func NewHandlePool[T any](c HandlePoolConfig[T], opts ...ContextOption) *HandlePool[T] {
	if c.Open == nil {
		panic("asyncsync: NewHandlePool: nil Open function")
	}
	if c.Max < 0 || c.MaxWait < 0 {
		panic("asyncsync: NewHandlePool: negative Max or MaxWait")
	}
	if c.Max == 0 {
		c.Max = defaultHandles
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = defaultHandleIdle
	}
	p := &HandlePool[T]{cfg: c, opts: slices.Clone(opts), name: "handle pool"}
	checkOwnThreads("NewHandlePool", opts)
	if n := contextConfig("NewHandlePool", opts).Name; n != "" {
		p.name = fmt.Sprintf("handle pool %q", n)
	}
	p.tokens.Init(c.Max)
	return p
}

// Do runs fn with a value of the pool, on the value's thread, as [Handle.Do]
// does. If all values are in use, it first waits for one. If ctx ends during
// that wait, Do returns the cause. After Close it returns an error that matches
// [ErrClosed].
//
// With [Abandon] the value stays in use until fn has ended. With [IfFree] Do does not
// wait for a value either: if all are in use, it returns an error that matches
// [ErrQueueFull] and [ErrPoolFull].
func (p *HandlePool[T]) Do(ctx context.Context, fn func(context.Context, T) error, opts ...Option) error {
	p.check("HandlePool.Do")
	if fn == nil {
		panic("asyncsync: HandlePool.Do: nil function")
	}
	_, err := getFrom(ctx, p, nil, "HandlePool.Do", poolCall[T, struct{}]{do: fn}, opts)
	return err
}

// GetFrom is [HandlePool.Do] for a function with a result.
func GetFrom[T, R any](ctx context.Context, p *HandlePool[T], fn func(context.Context, T) (R, error), opts ...Option) (R, error) {
	p.check("GetFrom")
	if fn == nil {
		panic("asyncsync: GetFrom: nil function")
	}
	return getFrom(ctx, p, nil, "GetFrom", poolCall[T, R]{get: fn}, opts)
}

// A poolCall is a function that runs with a value. One of do and get is set.
type poolCall[T, R any] struct {
	u   *use[T]
	do  func(context.Context, T) error
	get func(context.Context, T) (R, error)
	v   T // for here
}

// run runs the function on the thread of the value that has been found for it.
func (a poolCall[T, R]) run(ctx context.Context) (r R, err error) {
	a.v = a.u.e.h.in.value
	node := a.u.enter(ctx)
	defer a.u.leave(node)
	if a.u.checks && !a.u.healthy(ctx, a.v) {
		return zero[R](), nil
	}
	return a.here(ctx)
}

// here runs the function.
func (a *poolCall[T, R]) here(ctx context.Context) (R, error) {
	if a.do != nil {
		return zero[R](), a.do(ctx, a.v)
	}
	return a.get(ctx, a.v)
}

func (a poolCall[T, R]) pc() uintptr {
	if a.do != nil {
		return core.FuncPC(a.do)
	}
	return core.FuncPC(a.get)
}

func runPoolCall[T, R any](ctx context.Context, a poolCall[T, R]) (R, error) { return a.run(ctx) }

// onePoolCall returns the wrapper for all calls of these types without options,
// like oneShot.
func onePoolCall[T, R any]() *toThread[poolCall[T, R], R] {
	key := reflect.TypeFor[poolCall[T, R]]()
	w, ok := oneShots.Load(key)
	if !ok {
		w, _ = oneShots.LoadOrStore(key, &toThread[poolCall[T, R], R]{fn: runPoolCall[T, R], pc: (poolCall[T, R]).pc})
	}
	return w.(*toThread[poolCall[T, R], R])
}

// getFrom runs a function with the value of l, or with one of p if l is nil.
func getFrom[T, R any](ctx context.Context, p *HandlePool[T], l *Lease[T], what string, call poolCall[T, R], opts []Option) (R, error) {
	checkCtx(ctx, what)
	var w *toThread[poolCall[T, R], R]
	var u *use[T]
	if len(opts) > 0 {
		s := applied(what, opts)
		s.checkHandle(what)
		if s.plain() && p.inline(ctx, l, &call.v) {
			s.free()
			return call.here(ctx)
		}
		u = &use[T]{p: p, left: true}
		bindInterrupt(s, what, u.value)
		w = &toThread[poolCall[T, R], R]{fn: runPoolCall[T, R], pc: (poolCall[T, R]).pc, settings: *s}
		s.free()
	} else {
		if p.inline(ctx, l, &call.v) {
			return call.here(ctx)
		}
		u = &use[T]{p: p, left: true}
		w = onePoolCall[T, R]()
	}
	call.u, u.try = u, w.Options.Try
	defer u.end()
	if l != nil {
		if err := l.join(u); err != nil {
			return zero[R](), err
		}
	} else if err := p.take(ctx, u); err != nil {
		return zero[R](), err
	}
	if w.Options.Abandon {
		u.share()
	}
	for {
		r, err := w.in(ctx, &u.e.h.tsc.scope, call)
		switch {
		case err != nil:
			u.abandoned = w.Options.Abandon && errors.Is(err, ErrAbandoned)
			return r, err
		case !u.checks || !u.ill:
			return r, nil
		}
		if err := u.another(ctx); err != nil {
			return zero[R](), err
		}
	}
}

// A use is one function or lease, together with its value.
type use[T any] struct {
	p      *HandlePool[T]
	e      *pooled[T]
	left   bool // nothing is held
	checks bool // the value has to be checked
	try    bool // it is not to wait in line
	leased bool // a lease: who ends it does not wait

	// Owned by the thread until the function has ended.
	ill bool // the value is not

	begun     atomic.Bool
	shared    bool // the function holds the value too
	abandoned bool
}

// value returns the value, while the function runs.
func (u *use[T]) value() T { return u.e.h.in.value }

// share makes the function hold the value too, so that its caller may leave.
func (u *use[T]) share() {
	u.shared = true
	u.p.mu.Lock()
	u.e.users++
	u.p.mu.Unlock()
}

// enter marks the beginning of the function on the value's thread. It returns
// the node that the function runs as.
func (u *use[T]) enter(ctx context.Context) *core.Node {
	u.begun.Store(true)
	node := core.Holding(ctx)
	if node != nil {
		u.e.enter(node)
	}
	return node
}

// leave marks the end of the function.
func (u *use[T]) leave(node *core.Node) {
	if node != nil {
		u.e.leave(node)
	}
	if u.shared {
		u.p.release(u.e, true)
	}
}

// healthy checks the value. If Check does not return, the value counts as bad.
func (u *use[T]) healthy(ctx context.Context, v T) (good bool) {
	defer func() {
		if u.ill = !good; u.ill {
			u.p.condemn(u.e)
		}
	}()
	return u.p.cfg.Check(ctx, v) == nil
}

// end gives back what the caller holds, however the caller ends.
func (u *use[T]) end() {
	if u.left {
		return
	}
	u.left = true
	if u.shared && !u.begun.Load() && !u.abandoned {
		u.p.release(u.e, true) // the function will not
	}
	u.p.release(u.e, !u.leased)
}

// another gets a value in place of a bad one whose function has returned. The
// use keeps its token, and so its place, unless something else still uses the
// old value.
func (u *use[T]) another(ctx context.Context) error {
	p, e := u.p, u.e
	u.left = true
	u.begun.Store(false)
	p.mu.Lock()
	e.users--
	last := e.users == 0
	p.mu.Unlock()
	var err error
	if last {
		err = p.pick(ctx, u, p.replace(e))
	} else {
		err = p.take(ctx, u)
	}
	if err == nil && u.shared {
		u.share()
	}
	return err
}

func (e *pooled[T]) enter(n *core.Node) {
	e.mu.Lock()
	e.nodes = append(e.nodes, n)
	e.mu.Unlock()
}

func (e *pooled[T]) leave(n *core.Node) {
	e.mu.Lock()
	i := slices.Index(e.nodes, n)
	e.nodes = slices.Delete(e.nodes, i, i+1)
	e.mu.Unlock()
}

// has reports whether n runs with the value.
func (e *pooled[T]) has(n *core.Node) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Contains(e.nodes, n)
}

// above returns the value that a function above the caller holds, or nil. If
// joins is set, it counts one more user of the value.
func (p *HandlePool[T]) above(ctx context.Context, joins bool) (found *pooled[T]) {
	core.Above(ctx, func(n *core.Node) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, e := range p.all {
			// A holder of the value removes its nodes before it gives the value
			// back.
			if e.users > 0 && e.has(n) {
				if found = e; joins {
					e.users++
				}
				return true
			}
		}
		return false
	})
	return found
}

// inline reports whether the caller runs on the thread of a value of the pool
// (that of l, if l is not nil), so that the value can be used in place. It sets
// v to the value. Code that runs there holds the value until it ends, so there
// is nothing to count.
func (p *HandlePool[T]) inline(ctx context.Context, l *Lease[T], v *T) bool {
	s := core.ScopeOf(ctx)
	if s == nil {
		return false
	}
	var on *Handle[T]
	p.mu.Lock()
	for _, e := range p.all {
		if &e.h.tsc.scope == s && (l == nil || l.use.e == e && !l.over) {
			on = e.h
			break
		}
	}
	p.mu.Unlock()
	if on == nil || !core.Inline(ctx, s) {
		return false
	}
	*v = on.in.value
	return true
}

// take gives u a value.
func (p *HandlePool[T]) take(ctx context.Context, u *use[T]) error {
	if e := p.above(ctx, true); e != nil {
		u.e, u.left, u.checks = e, false, false
		return nil
	}
	e, tok, err := p.wait(ctx, u.try)
	switch {
	case err != nil:
		return err
	case e != nil:
		u.e, u.left, u.checks = e, false, p.cfg.Check != nil
		return nil
	}
	return p.pick(ctx, u, tok)
}

// pick gives u an unused value, or a new one, in exchange for a token.
func (p *HandlePool[T]) pick(ctx context.Context, u *use[T], tok token) error {
	p.mu.Lock()
	if p.refuses {
		p.mu.Unlock()
		p.free(tok)
		return p.closedError()
	}
	if n := len(p.idle); n > 0 {
		e := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		e.users, e.token = 1, tok
		u.e, u.left, u.checks = e, false, p.cfg.Check != nil
		p.mu.Unlock()
		return nil
	}
	p.mu.Unlock()
	e, err := p.open(ctx, tok, u.try)
	if err != nil {
		return err
	}
	u.e, u.left, u.checks = e, false, false
	return nil
}

// open opens a value for the owner of a token. If that fails, it gives the
// token back. With try the value gets a thread only if one is free.
func (p *HandlePool[T]) open(ctx context.Context, tok token, try bool) (*pooled[T], error) {
	opened := false
	defer func() {
		if !opened {
			p.free(tok)
		}
	}()
	h, err := openHandle(ctx, p.cfg.Open, p.cfg.Close, p.opts, try)
	if err != nil {
		return nil, err
	}
	opened = true
	e := &pooled[T]{h: h, token: tok, users: 1}
	p.mu.Lock()
	p.all = append(p.all, e)
	p.stats.Opened++
	p.mu.Unlock()
	return e, nil
}

// wait waits for a token, or for a value together with its token. With try it takes
// only what is free.
func (p *HandlePool[T]) wait(ctx context.Context, try bool) (*pooled[T], token, error) {
	if err := core.Ended(core.Afterlife(ctx)); err != nil {
		return nil, token{}, err
	}
	nobody := core.Nobody(ctx)
	tok := token{goroutine.ID(), nobody}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, token{}, p.closedError()
	}
	if len(p.line) == 0 && p.quick(ctx, nobody) {
		p.mu.Unlock()
		return nil, tok, nil
	}
	if try {
		p.stats.Refused++
		p.mu.Unlock()
		return nil, token{}, &handlePoolFull{fmt.Sprintf("asyncsync: %s: all %d values are in use", p.name, p.cfg.Max), true}
	}
	if n := len(p.line); p.cfg.MaxWaiting != 0 && n >= max(0, p.cfg.MaxWaiting) {
		p.stats.Refused++
		p.mu.Unlock()
		return nil, token{}, &handlePoolFull{fmt.Sprintf("asyncsync: %s: all %d values are in use, and %d callers wait for one", p.name, p.cfg.Max, n), false}
	}
	w := &waiting[T]{}
	if nobody {
		w.turn = make(chan struct{}, 1)
	} else {
		ctx, w.cancel = context.WithCancelCause(ctx)
	}
	p.line = append(p.line, w)
	p.stats.Waited++
	p.mu.Unlock()
	start := time.Now()
	var err error
	defer func() { // deferred, because the Goexit of a call that this wait serves ends the wait too
		p.mu.Lock()
		p.stats.WaitTime += time.Since(start)
		if _, full := err.(*handlePoolFull); full {
			p.stats.Refused++
		}
		p.mu.Unlock()
	}()
	if nobody {
		err = p.waitForTurn(ctx, w)
		return w.e, token{w.gid, true}, err
	}
	if d := p.cfg.MaxWait; d > 0 {
		timer := time.AfterFunc(d, func() { w.cancel(p.late()) })
		defer timer.Stop()
	}
	defer func() {
		w.cancel(nil)
		p.mu.Lock()
		p.leaveLine(w)
		left := p.closed && len(p.line) == 0 && len(p.idle) > 0
		p.mu.Unlock()
		p.serveLine() // the next in line waited behind this caller
		if left {
			go p.retireIdle() // the values were left for the line, but perhaps nobody takes them
		}
	}()
	_, err = p.tokens.Acquire(ctx, 1, false)
	return nil, tok, err
}

// quick takes a token if one is free.
func (p *HandlePool[T]) quick(ctx context.Context, nobody bool) bool {
	if nobody {
		return p.tokens.QuickForNobody()
	}
	return p.tokens.Quick(ctx)
}

// waitForTurn waits until w is given something.
func (p *HandlePool[T]) waitForTurn(ctx context.Context, w *waiting[T]) error {
	var late <-chan time.Time
	if d := p.cfg.MaxWait; d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		late = timer.C
	}
	var err error
	select {
	case <-w.turn:
		return w.err
	case <-ctx.Done():
		err = core.Cause(ctx)
	case <-late:
		err = p.late()
	}
	p.mu.Lock()
	if !w.given {
		p.leaveLine(w)
		p.mu.Unlock()
		return err
	}
	p.mu.Unlock()
	return w.err // it has come at the same moment
}

// late returns the error of a caller that has waited too long.
func (p *HandlePool[T]) late() error {
	return &handlePoolFull{fmt.Sprintf("asyncsync: %s: all %d values have been in use for %v", p.name, p.cfg.Max, p.cfg.MaxWait), false}
}

// leaveLine removes w from the line, if it is there. p.mu is held.
func (p *HandlePool[T]) leaveLine(w *waiting[T]) {
	if i := slices.Index(p.line, w); i >= 0 {
		p.line = slices.Delete(p.line, i, i+1)
	}
}

// next removes the first caller from the line if it is an unknown one, and
// marks it as given. The caller of next must send on turn. p.mu is held.
func (p *HandlePool[T]) next() *waiting[T] {
	if len(p.line) == 0 || p.line[0].cancel != nil {
		return nil
	}
	w := p.line[0]
	p.line[0] = nil
	p.line = p.line[1:]
	w.given = true
	return w
}

// serveLine gives free tokens to unknown callers at the head of the line. Call
// it whenever such a caller may have become the first while tokens are free:
// nothing else gives it one then.
func (p *HandlePool[T]) serveLine() {
	for {
		p.mu.Lock()
		if len(p.line) == 0 || p.line[0].cancel != nil || !p.tokens.QuickForNobody() {
			p.mu.Unlock()
			return
		}
		w := p.next()
		w.gid = goroutine.ID()
		p.mu.Unlock()
		w.turn <- struct{}{}
	}
}

// free gives a token to the next caller in line, or back.
func (p *HandlePool[T]) free(tok token) {
	p.mu.Lock()
	w := p.handOn(tok, nil)
	p.mu.Unlock()
	if w != nil {
		w.turn <- struct{}{}
	}
}

// handOn gives a token to the next caller in line, with the value e if e is not
// nil. The caller of handOn must then tell w. If the tokens' own line knows the
// next caller, handOn gives the token back, puts the value among the unused
// ones, and returns nil. p.mu is held, so no caller can join the line in
// between.
func (p *HandlePool[T]) handOn(tok token, e *pooled[T]) (w *waiting[T]) {
	if w = p.next(); w == nil {
		if e != nil {
			p.rest(e)
		}
		p.tokens.ReleaseOf(tok.gid, 1)
		return nil
	}
	if !tok.nobody {
		p.tokens.Disown(tok.gid)
	}
	if w.e, w.gid = e, tok.gid; e != nil {
		e.users, e.token.nobody = 1, true
	}
	return w
}

// handlePoolFull matches ErrPoolFull and, for a call with IfFree, ErrQueueFull.
type handlePoolFull struct {
	text string
	try  bool
}

func (e *handlePoolFull) Error() string { return e.text }

func (e *handlePoolFull) Is(target error) bool {
	return target == ErrPoolFull || e.try && target == ErrQueueFull
}

func (p *HandlePool[T]) closedError() error {
	return fmt.Errorf("%w: %s", ErrClosed, p.name)
}

// condemn marks e to be closed when it is given back.
func (p *HandlePool[T]) condemn(e *pooled[T]) {
	p.mu.Lock()
	if !e.sick {
		e.sick = true
		p.stats.Unhealthy++
	}
	p.mu.Unlock()
}

// release gives back one user's hold of e. The last one gives back the value. If waits
// is set, release waits where it has to close the value.
func (p *HandlePool[T]) release(e *pooled[T], waits bool) {
	tainted := e.h.tsc.scope.Tainted()
	p.mu.Lock()
	e.users--
	if e.users > 0 {
		p.mu.Unlock()
		return
	}
	if tainted && !e.sick {
		e.sick = true
		p.stats.Unhealthy++
	}
	if e.sick || p.closed && (len(p.line) == 0 || p.refuses) {
		p.mu.Unlock()
		if waits && !e.h.tsc.scope.Inside() { // else the thread would wait for itself
			p.retire(e)
			return
		}
		go p.retire(e)
		return
	}
	w := p.handOn(e.token, e)
	p.mu.Unlock()
	if w != nil {
		w.turn <- struct{}{}
	}
}

// rest puts e among the unused values. p.mu is held.
func (p *HandlePool[T]) rest(e *pooled[T]) {
	p.idle = append(p.idle, e)
	if p.cfg.IdleTimeout > 0 && !p.closed {
		e.since = time.Now()
		if p.timer == nil {
			p.timer = time.AfterFunc(p.cfg.IdleTimeout, p.expire)
		}
	}
}

// retire closes e and gives back the token that its user has.
func (p *HandlePool[T]) retire(e *pooled[T]) { p.free(p.replace(e)) }

// replace closes e and returns the token that its user has, which is then for another
// value. On a thread the wait for that may run a call that calls Goexit, which ends the
// wait but not the closing. Then retire goes on with e elsewhere.
func (p *HandlePool[T]) replace(e *pooled[T]) token {
	over := false
	defer func() {
		if !over {
			go p.retire(e)
		}
	}()
	err := e.h.closeQuietly()
	over = true
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget(e, err)
	return e.token
}

// retireIdle closes the unused values of a closed pool. It takes a token for each, so
// that Close waits for it. Where it gets none, those who are in line, or Close itself,
// take the values.
func (p *HandlePool[T]) retireIdle() {
	for p.tokens.TryAcquire(1) {
		tok := token{gid: goroutine.ID()}
		p.mu.Lock()
		if len(p.idle) == 0 {
			p.mu.Unlock()
			p.free(tok)
			return
		}
		e := p.idle[0]
		p.idle = slices.Delete(p.idle, 0, 1)
		e.token = tok
		p.mu.Unlock()
		p.retire(e)
	}
}

// forget takes e, which has been closed, off the list. p.mu is held.
func (p *HandlePool[T]) forget(e *pooled[T], err error) {
	i := slices.Index(p.all, e)
	p.all = slices.Delete(p.all, i, i+1)
	if p.errs == nil { // keep the first only: there may be any number
		p.errs = err
	}
}

// expire closes values that have been unused for too long, each on a goroutine
// of its own, and sets the timer for the next one.
func (p *HandlePool[T]) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = nil
	if p.closed {
		return
	}
	now := time.Now()
	late := 0
	for _, e := range p.idle {
		if left := p.cfg.IdleTimeout - now.Sub(e.since); left > 0 {
			p.timer = time.AfterFunc(left, p.expire)
			break
		}
		late++
	}
	for range late {
		go p.expireOne()
	}
}

// expireOne closes the value that has been unused the longest, if that is still
// long enough. It takes a token first, so that there are never more than Max
// values.
func (p *HandlePool[T]) expireOne() {
	if !p.tokens.TryAcquire(1) {
		// All are in use, or callers wait in line: then the unused values are about to be used.
		p.mu.Lock()
		if p.timer == nil && len(p.idle) > 0 && !p.closed {
			p.timer = time.AfterFunc(p.cfg.IdleTimeout, p.expire)
		}
		p.mu.Unlock()
		return
	}
	p.mu.Lock()
	if len(p.idle) == 0 || time.Since(p.idle[0].since) < p.cfg.IdleTimeout {
		p.mu.Unlock()
		p.free(token{gid: goroutine.ID()})
		return
	}
	e := p.idle[0]
	p.idle = slices.Delete(p.idle, 0, 1)
	e.token = token{gid: goroutine.ID()}
	p.stats.Expired++
	p.mu.Unlock()
	p.retire(e)
}

// Stats returns the state of the pool.
func (p *HandlePool[T]) Stats() HandlePoolStats {
	p.check("HandlePool.Stats")
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Open, s.Idle, s.Waiting = len(p.all), len(p.idle), len(p.line)
	return s
}

// Close refuses new callers with [ErrClosed], lets those in line have a value,
// waits until all values are given back, and closes them, each on its thread.
// It returns the errors of that, and the first unreported error of closing a
// value earlier. A second Close waits as well.
//
// Below a holder of a value of the pool, Close does not wait, and returns nil:
// values in use are closed when they are given back. Close cannot know of a
// lease that its own caller holds but is not below: it would wait for that
// lease for ever. Release the lease first.
func (p *HandlePool[T]) Close() error {
	p.check("HandlePool.Close")
	if p.shut() {
		return nil
	}
	_, err := p.end(context.Background())
	return err
}

// Shutdown is Close with a limit on the wait. If ctx ends first, callers still
// in line fail with [ErrClosed]. Shutdown then returns an error that wraps the
// cause of ctx and says how many values are in use; these are closed when they
// are given back. Where Close would not wait, Shutdown returns an error that
// matches deadlock.ErrDeadlock.
func (p *HandlePool[T]) Shutdown(ctx context.Context) error {
	p.check("HandlePool.Shutdown")
	checkCtx(ctx, "HandlePool.Shutdown")
	if p.shut() {
		return core.ShutdownInside(p.name)
	}
	done, err := p.end(ctx)
	if done || core.Ended(ctx) == nil || !errors.Is(err, core.Cause(ctx)) {
		return err
	}
	p.mu.Lock()
	p.refuses = true
	inUse := len(p.all) - len(p.idle)
	refused := p.line
	p.line = nil
	for _, w := range refused {
		if w.err = p.closedError(); w.cancel == nil {
			w.given = true
		}
	}
	p.mu.Unlock()
	for _, w := range refused {
		if w.cancel != nil {
			w.cancel(w.err)
		} else {
			w.turn <- struct{}{}
		}
	}
	return fmt.Errorf("asyncsync: shutdown of %s gave up, %d of its values are in use: %w", p.name, inUse, errors.Join(p.closeIdle(), core.Cause(ctx)))
}

// shut refuses new callers. It reports whether the caller is below a holder of
// a value, so that Close would wait for it.
func (p *HandlePool[T]) shut() (inside bool) {
	p.mu.Lock()
	p.closed = true
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	p.mu.Unlock()
	if p.above(context.Background(), false) == nil {
		return false
	}
	go p.retireIdle() // closing an idle value must not hold up the holder of another
	return true
}

// end waits until all tokens are back, which means that no value is in use, and
// closes the values that are left. It reports whether it has done so.
func (p *HandlePool[T]) end(ctx context.Context) (done bool, err error) {
	if !p.tokens.TryAcquire(p.cfg.Max) { // if it succeeds, ctx does not matter
		if _, err := p.tokens.Acquire(ctx, p.cfg.Max, false); err != nil {
			return false, err
		}
	}
	defer func() {
		p.tokens.Release(p.cfg.Max)
		p.serveLine()
	}()
	p.mu.Lock()
	p.refuses = true // callers that joined the line behind this one
	p.mu.Unlock()
	err = p.closeIdle()
	p.mu.Lock()
	defer p.mu.Unlock()
	err = errors.Join(p.errs, err)
	p.errs = nil
	return true, err
}

// closeIdle closes the unused values. If a Goexit ends it early, as in replace, another
// goroutine closes the rest.
func (p *HandlePool[T]) closeIdle() error {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	return p.closeAll(idle)
}

func (p *HandlePool[T]) closeAll(values []*pooled[T]) error {
	var errs []error
	defer func() {
		if len(values) > 0 {
			go func() {
				err := errors.Join(append(errs, p.closeAll(values))...)
				p.mu.Lock()
				p.errs = errors.Join(p.errs, err)
				p.mu.Unlock()
			}()
		}
	}()
	for len(values) > 0 {
		errs = append(errs, values[0].h.closeQuietly())
		p.mu.Lock()
		p.forget(values[0], nil)
		p.mu.Unlock()
		values = values[1:]
	}
	return errors.Join(errs...)
}

func (p *HandlePool[T]) check(what string) {
	if p == nil || !p.tokens.Made() {
		panic("asyncsync: " + what + ": nil HandlePool, or one not made by NewHandlePool")
	}
}

// A Lease holds a value of a pool for longer than one function: for a request
// or a transaction. Everything done with the lease, or with its ctx, uses that
// value. Get one from [HandlePool.Acquire]. Its methods may be called from
// anywhere.
type Lease[T any] struct {
	use    use[T]
	ctx    context.Context
	holder core.Holder
	over   bool // guarded by the mu of the pool
}

// Acquire returns a lease of a value. It waits for the value as [HandlePool.Do]
// does. Give the lease back with [Lease.Release]; ctx may end before that.
// Called below a holder of a value of the pool, Acquire returns another lease
// of that same value, which becomes free when all have been given back.
func (p *HandlePool[T]) Acquire(ctx context.Context) (*Lease[T], error) {
	p.check("HandlePool.Acquire")
	checkCtx(ctx, "HandlePool.Acquire")
	l := &Lease[T]{use: use[T]{p: p, left: true, leased: true}}
	u := &l.use
	acquired := false
	defer func() {
		if !acquired {
			u.end()
		}
	}()
	if err := p.take(ctx, u); err != nil {
		return nil, err
	}
	for u.checks {
		err := u.e.h.Do(ctx, func(ctx context.Context, v T) error {
			defer u.leave(u.enter(ctx))
			u.healthy(ctx, v)
			return nil
		}, pc(p.cfg.Check))
		if err != nil {
			return nil, err
		}
		if !u.ill {
			break
		}
		if err := u.another(ctx); err != nil {
			return nil, err
		}
	}
	acquired = true
	l.ctx = l.holder.Begin(ctx)
	u.e.enter(l.holder.Node())
	return l, nil
}

// Context returns the ctx that Acquire was given, with the lease in it. Calls
// to the pool with it, or with a ctx derived from it, use the value of the
// lease until the lease is released. Calls with other contexts do not know of
// the lease.
func (l *Lease[T]) Context() context.Context {
	l.check("Context")
	return l.ctx
}

// Do runs fn with the value of the lease, whatever ctx says. Otherwise it is
// like [HandlePool.Do]. After Release it returns an error that matches
// [ErrClosed].
func (l *Lease[T]) Do(ctx context.Context, fn func(context.Context, T) error, opts ...Option) error {
	l.check("Do")
	if fn == nil {
		panic("asyncsync: Lease.Do: nil function")
	}
	_, err := getFrom(ctx, l.use.p, l, "Lease.Do", poolCall[T, struct{}]{do: fn}, opts)
	return err
}

// Release gives the value back and does not wait. If functions still run with
// the value, others get it when these have ended. A second Release has no
// effect.
func (l *Lease[T]) Release() {
	l.check("Release")
	p := l.use.p
	p.mu.Lock()
	over := l.over
	l.over = true
	p.mu.Unlock()
	if over {
		return
	}
	l.use.e.leave(l.holder.Node())
	l.holder.End()
	l.use.end()
}

// join makes u use the value of l.
func (l *Lease[T]) join(u *use[T]) error {
	p := l.use.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.over {
		return fmt.Errorf("%w: a lease of %s, which has been released", ErrClosed, p.name)
	}
	l.use.e.users++
	u.e, u.left = l.use.e, false
	return nil
}

func (l *Lease[T]) check(what string) {
	if l == nil || l.ctx == nil {
		panic("asyncsync: Lease." + what + ": nil Lease, or one not made by Acquire")
	}
}
