package task

import (
	"context"
	"fmt"

	"asyncsync.dev/internal/core"
)

// A Limiter bounds how many do something at a time: it has a number of tokens,
// taken by Acquire and given back by Release. Who finds none waits in line,
// first come first served. It is made by [NewLimiter] and safe for concurrent
// use.
//
// # Nested work
//
// A function that is called with asyncsync.WithLimiter holds one token while it
// runs, however deep what it calls is limited by the same limiter again. While it
// waits, through this module, nobody uses its token, and what it waits for may: a
// function that it calls, a task, a member of a group, and so on down. So never
// more than there are tokens run at once, and nobody waits for a token that is held
// for his own sake. If the wait ends while another has the token, because its ctx
// has ended, it returns when the token is back or another is not used.
//
// Tokens taken with Acquire are not lent: they may have been handed on.
//
// Its model is anyio's CapacityLimiter; unlike there, one goroutine may hold
// several tokens and another may release them. With AcquireN it is x/sync's
// semaphore.
type Limiter struct{ resource core.Resource }

// ErrTooMany is matched by the error of [Limiter.AcquireN] for more tokens than
// the limiter has.
var ErrTooMany = core.ErrTooMany

// NewLimiter returns a limiter with n tokens. n must not be negative.
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

// Acquire takes a token, waiting for one if need be. When ctx ends first it
// returns its cause and has taken none. A ctx that has ended already takes no
// token.
//
// From sync code the thread serves while Acquire waits. Who holds a token is
// joined meanwhile, as a task that is waited for: its calls to the thread are
// run, so that it can come to its Release.
//
// If no token is free, one is lent by a function of asyncsync.WithLimiter that
// waits for the caller. Where all tokens are held by such functions, and these
// wait for the caller without lending theirs, because they are the caller or it
// is a stranger to them, it returns an error matching deadlock.ErrDeadlock. A
// token taken with Acquire may be given back by anybody, and so never counts as
// lost.
func (l *Limiter) Acquire(ctx context.Context) error { return l.acquire("Acquire", ctx, 1) }

// AcquireN takes n tokens at once, or none. It waits like Acquire, in the same
// line: while many are waited for at its head nobody behind gets one. If the
// limiter has fewer than n it returns an error that matches [ErrTooMany], at
// once. A total that SetTotal lowers later makes it wait, and so does a total of
// 0, for as long as it lasts.
func (l *Limiter) AcquireN(ctx context.Context, n int) error { return l.acquire("AcquireN", ctx, n) }

func (l *Limiter) acquire(what string, ctx context.Context, n int) error {
	l.check(what)
	if ctx == nil {
		panic("task: Limiter." + what + ": nil ctx")
	}
	if n < 0 { // or the name would be put together each time
		checkTotal("Limiter."+what, n)
	}
	if n == 0 {
		return core.Ended(core.Afterlife(ctx))
	}
	_, err := l.resource.Acquire(ctx, n, false)
	return err
}

// TryAcquire takes a token if one is free and nobody waits for it.
func (l *Limiter) TryAcquire() bool {
	l.check("TryAcquire")
	return l.resource.TryAcquire(1)
}

// TryAcquireN takes n tokens if they are free and nobody waits, or none.
func (l *Limiter) TryAcquireN(n int) bool {
	l.check("TryAcquireN")
	checkTotal("Limiter.TryAcquireN", n)
	return n == 0 || l.resource.TryAcquire(n)
}

// Release gives a token back. Without one taken it panics.
func (l *Limiter) Release() {
	l.check("Release")
	if !l.resource.Release(1) {
		panic("task: Limiter.Release without Acquire")
	}
}

// ReleaseN gives n tokens back, taken at once or one by one. If fewer are taken
// it panics, and has given none back.
func (l *Limiter) ReleaseN(n int) {
	l.check("ReleaseN")
	checkTotal("Limiter.ReleaseN", n)
	if n > 0 && !l.resource.Release(n) {
		panic(fmt.Sprintf("task: Limiter.ReleaseN(%d) of more tokens than are taken", n))
	}
}

// SetTotal changes the number of tokens. Those taken stay taken: after a
// reduction nobody gets one until enough have been released.
func (l *Limiter) SetTotal(n int) {
	l.check("SetTotal")
	checkTotal("Limiter.SetTotal", n)
	l.resource.SetTotal(n)
}

// LimiterStats is the state of a limiter at one moment.
type LimiterStats struct {
	Total   int // tokens there are
	Used    int // tokens taken; more than Total after a reduction
	Waiting int // callers in line
	Lent    int // functions that have no token now: another has it while they wait
}

// Stats returns the state of the limiter.
func (l *Limiter) Stats() LimiterStats {
	l.check("Stats")
	total, used, lent, waiting := l.resource.Counts()
	return LimiterStats{Total: total, Used: used, Waiting: waiting, Lent: lent}
}
