package task

import (
	"container/list"
	"context"
	"fmt"
	"slices"
	"sync"

	"asyncsync.dev/internal/core"
)

// A Limiter bounds how many do something at a time: it has a number of tokens,
// taken by Acquire and given back by Release. Who finds none waits in line,
// first come first served. It is made by [NewLimiter] and safe for concurrent
// use.
//
// Its model is anyio's CapacityLimiter; unlike there, one goroutine may hold
// several tokens and another may release them.
type Limiter struct {
	resource core.Resource

	mu    sync.Mutex // guards the rest; a leaf lock
	total int
	used  int        // may exceed total after SetTotal
	line  *list.List // of chan struct{}, one for each who waits; closed when it has a token
	holds []core.Hold
}

// NewLimiter returns a limiter with n tokens. n must not be negative.
func NewLimiter(n int) *Limiter {
	checkTotal("NewLimiter", n)
	l := &Limiter{total: n, line: list.New()}
	l.resource.SetTokens(l.tokens)
	return l
}

func (l *Limiter) tokens() (used, total int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.used, l.total
}

func init() {
	core.EnterLimiter = func(limiter any, ctx context.Context) (leave func(), err error) {
		l := limiter.(*Limiter)
		l.check("Acquire")
		if err := l.take(ctx); err != nil {
			return nil, err
		}
		h := l.hold(ctx, true)
		return func() {
			defer h.Leave()
			l.release(func(o core.Hold) bool { return o == h })
		}, nil
	}
}

// check panics if l was not made by NewLimiter.
func (l *Limiter) check(what string) {
	if l == nil || l.line == nil {
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
// Where all tokens are held by functions of asyncsync.WithLimiter that wait for
// the caller, it returns an error matching deadlock.ErrDeadlock. A token taken
// with Acquire may be given back by anybody, and so never counts as lost.
func (l *Limiter) Acquire(ctx context.Context) error {
	l.check("Acquire")
	if ctx == nil {
		panic("task: Limiter.Acquire: nil ctx")
	}
	if err := l.take(ctx); err != nil {
		return err
	}
	l.hold(ctx, false)
	return nil
}

// take takes a token. Who has it must be remembered by hold.
func (l *Limiter) take(ctx context.Context) error {
	ctx = core.Afterlife(ctx)
	if err := core.Ended(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	if l.used < l.total && l.line.Len() == 0 {
		l.used++
		l.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	place := l.line.PushBack(turn)
	l.mu.Unlock()

	taken := false
	defer func() {
		// Also when a call served meanwhile takes this wait with it in a Goexit.
		if !taken {
			l.giveUp(place, turn)
		}
	}()
	if err := l.resource.Wait(ctx, turn, "limiter"); err != nil {
		return err
	}
	taken = true
	return nil
}

// hold remembers who has taken a token. kept says that it is given back by the
// one who took it, and by nobody else.
func (l *Limiter) hold(ctx context.Context, kept bool) core.Hold {
	h := l.resource.Hold(core.Afterlife(ctx), kept)
	l.mu.Lock()
	l.holds = append(l.holds, h)
	l.mu.Unlock()
	return h
}

// drop forgets the one who gives a token back: the first that one of the
// questions, asked in turn, says yes to.
func (l *Limiter) drop(questions ...func(core.Hold) bool) {
	l.mu.Lock()
	var h core.Hold
	for _, is := range questions {
		if i := slices.IndexFunc(l.holds, is); i >= 0 {
			h = l.holds[i]
			l.holds = slices.Delete(l.holds, i, i+1)
			break
		}
	}
	l.mu.Unlock()
	l.resource.Drop(h)
}

// giveUp leaves the line. A token that came at the same moment goes to the
// next.
func (l *Limiter) giveUp(place *list.Element, turn chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-turn:
		l.used--
	default:
		l.line.Remove(place)
	}
	l.grant()
}

// grant gives free tokens to the first in line. l.mu is held; closing a
// channel runs nobody's code.
func (l *Limiter) grant() {
	for l.used < l.total && l.line.Len() > 0 {
		turn := l.line.Remove(l.line.Front()).(chan struct{})
		l.used++
		close(turn)
	}
}

// TryAcquire takes a token if one is free and nobody waits for it.
func (l *Limiter) TryAcquire() bool {
	l.check("TryAcquire")
	l.mu.Lock()
	if l.used >= l.total || l.line.Len() > 0 {
		l.mu.Unlock()
		return false
	}
	l.used++
	l.mu.Unlock()
	l.hold(context.Background(), false)
	return true
}

// Release gives a token back. Without one taken it panics.
func (l *Limiter) Release() {
	l.check("Release")
	// It is the caller's if it has one, else that of whoever has had one
	// longest. The latter is a guess, and matters only to whose calls a thread
	// runs that waits for a token. One that its holder keeps is the last resort:
	// somebody gives back what is not his.
	l.release(
		func(h core.Hold) bool { return !h.Kept() && h.By() },
		func(h core.Hold) bool { return !h.Kept() },
		func(core.Hold) bool { return true },
	)
}

// release gives back the token of the one that drop finds.
func (l *Limiter) release(questions ...func(core.Hold) bool) {
	l.mu.Lock()
	if l.used == 0 {
		l.mu.Unlock()
		panic("task: Limiter.Release without Acquire")
	}
	l.used--
	l.mu.Unlock()
	l.drop(questions...) // before somebody else gets the token and is remembered
	l.mu.Lock()
	l.grant()
	l.mu.Unlock()
}

// SetTotal changes the number of tokens. Those taken stay taken: after a
// reduction nobody gets one until enough have been released.
func (l *Limiter) SetTotal(n int) {
	l.check("SetTotal")
	checkTotal("Limiter.SetTotal", n)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total = n
	l.grant()
}

// LimiterStats is the state of a limiter at one moment.
type LimiterStats struct {
	Total   int // tokens there are
	Used    int // tokens taken; more than Total after a reduction
	Waiting int // callers in line
}

// Stats returns the state of the limiter.
func (l *Limiter) Stats() LimiterStats {
	l.check("Stats")
	l.mu.Lock()
	defer l.mu.Unlock()
	return LimiterStats{Total: l.total, Used: l.used, Waiting: l.line.Len()}
}
