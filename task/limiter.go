package task

import (
	"context"
	"fmt"

	"asyncsync.dev/internal/core"
)

// A Limiter bounds how many do something at a time. It has a number of tokens:
// Acquire takes one, Release gives it back. Callers that find no token wait in
// line, first come first served. Make one with [NewLimiter]. It is safe for
// concurrent use.
//
// # Nested work
//
// A function called with asyncsync.WithLimiter holds one token while it runs,
// however often the calls below it use the same limiter. While the function
// waits through this module, it does not need its token. The token is lent to
// what it waits for: a function that it calls, a task, a member of a group, and
// so on down. So no more functions run at once than there are tokens, and no
// caller waits for a token that is held by a function waiting for that caller.
// If the wait ends early, because its ctx has ended, while the token is lent,
// the function waits for the token to come back, or for another free one,
// before it returns.
//
// Tokens taken with Acquire are not lent, because they may have been handed on.
//
// Its model is anyio's CapacityLimiter. Unlike there, one goroutine may hold
// several tokens, and another may release them. With AcquireN it is x/sync's
// semaphore.
type Limiter struct{ resource core.Resource }

// ErrTooMany is matched by the error of [Limiter.AcquireN] for more tokens than
// the limiter has.
var ErrTooMany = core.ErrTooMany

// NewLimiter returns a limiter with n tokens. A negative n panics.
func NewLimiter(n int) *Limiter {
	checkTotal("NewLimiter", n)
	l := &Limiter{}
	l.resource.Init(n)
	return l
}

func init() {
	core.EnterLimiter = func(limiter any, ctx context.Context) (leave func(), err error) {
		l := limiter.(*Limiter)
		l.check("Acquire")
		h, err := l.resource.Acquire(ctx, 1, true)
		if err != nil {
			return nil, err
		}
		return h.Leave, nil
	}
}

// check panics if l was not made by NewLimiter.
func (l *Limiter) check(what string) {
	if l == nil || !l.resource.Made() {
		panic("task: Limiter." + what + ": nil Limiter, or one not made by NewLimiter")
	}
}

func checkTotal(what string, n int) {
	if n < 0 {
		panic(fmt.Sprintf("task: %s: negative number of tokens %d", what, n))
	}
}

// Acquire takes a token. If none is free it waits for one. If ctx ends first,
// or has already ended, Acquire returns its cause and has taken no token.
//
// On a thread, Acquire serves while it waits. The holders of tokens are joined
// like a task that is waited for: the thread runs their calls, so that they can
// reach Release.
//
// If no token is free, a function of asyncsync.WithLimiter that waits for the
// caller lends its own. If all tokens are held by such functions, and these
// wait for the caller but cannot lend, because the caller is one of them or is
// a stranger to them, Acquire returns an error that matches
// deadlock.ErrDeadlock. A token taken with Acquire may be released by anybody,
// so it never counts as lost.
func (l *Limiter) Acquire(ctx context.Context) error { return l.acquire("Acquire", ctx, 1) }

// AcquireN takes n tokens at once, or none. It waits like Acquire, in the same
// line: while a large request waits at the head of the line, nobody behind it
// gets a token. If the limiter has fewer than n tokens, AcquireN returns an
// error that matches [ErrTooMany] at once. If SetTotal lowers the total later,
// AcquireN waits; it also waits while the total is 0. A negative n panics.
func (l *Limiter) AcquireN(ctx context.Context, n int) error { return l.acquire("AcquireN", ctx, n) }

func (l *Limiter) acquire(what string, ctx context.Context, n int) error {
	l.check(what)
	if ctx == nil {
		panic("task: Limiter." + what + ": nil ctx")
	}
	if n < 0 { // checked here first, to build the name only for the panic
		checkTotal("Limiter."+what, n)
	}
	if n == 0 {
		return core.Ended(core.Afterlife(ctx))
	}
	_, err := l.resource.Acquire(ctx, n, false)
	return err
}

// TryAcquire takes a token if one is free and nobody waits for it. It reports
// whether it did.
func (l *Limiter) TryAcquire() bool {
	l.check("TryAcquire")
	return l.resource.TryAcquire(1)
}

// TryAcquireN takes n tokens, or none, if they are free and nobody waits. It
// reports whether it did. A negative n panics.
func (l *Limiter) TryAcquireN(n int) bool {
	l.check("TryAcquireN")
	checkTotal("Limiter.TryAcquireN", n)
	return n == 0 || l.resource.TryAcquire(n)
}

// Release gives a token back. It panics if no token is taken.
func (l *Limiter) Release() {
	l.check("Release")
	if !l.resource.Release(1) {
		panic("task: Limiter.Release without Acquire")
	}
}

// ReleaseN gives n tokens back, taken together or one by one. If fewer are
// taken, or n is negative, it panics and gives none back.
func (l *Limiter) ReleaseN(n int) {
	l.check("ReleaseN")
	checkTotal("Limiter.ReleaseN", n)
	if n > 0 && !l.resource.Release(n) {
		panic(fmt.Sprintf("task: Limiter.ReleaseN(%d) of more tokens than are taken", n))
	}
}

// SetTotal changes the number of tokens. Taken tokens stay taken: after a
// reduction nobody gets a token until enough have been released. A negative n
// panics.
func (l *Limiter) SetTotal(n int) {
	l.check("SetTotal")
	checkTotal("Limiter.SetTotal", n)
	l.resource.SetTotal(n)
}

// LimiterStats is the state of a limiter at one moment.
type LimiterStats struct {
	Total   int // tokens in all
	Used    int // tokens taken; more than Total after a reduction
	Waiting int // callers in line
	Lent    int // functions whose token is lent while they wait
}

// Stats returns the state of the limiter.
func (l *Limiter) Stats() LimiterStats {
	l.check("Stats")
	total, used, lent, waiting := l.resource.Counts()
	return LimiterStats{Total: total, Used: used, Waiting: waiting, Lent: lent}
}
