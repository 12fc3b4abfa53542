package nesting

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/task"
)

// Limiters. Each has a rank, as contexts do, and is in the chain of who holds a
// token of it. A thread that waits for a token is joined with those who hold
// one, so that, where ranks are equal, what they call there is run. The rules:
//
//   - It is taken up only, and never twice in one chain, unless who holds its token
//     lends it: a function of WithLimiter; strictly up by who holds
//     a context that may not serve. And never in the chain of a context with
//     policy All: a stranger on top of who holds a token could want one.
//   - Tokens are taken by tasks, and by functions that a thread waits for, alone:
//     nothing that was started before is below the holder then.
//   - What is started below a holder, and by itself, goes strictly up. It might
//     else be run on top of a function that waits for a token and is given one:
//     that would have it without knowing.

const (
	opTokens       kind = "tokens"        // Limiter.SetTotal, or TryAcquire
	opTokensCancel kind = "tokens-cancel" // an Acquire that is cancelled at any time
)

var limiterOps = []operation{
	{kind: opTokens, run: (*run).resize, print: printTargetAndN},
	{kind: opTokensCancel, run: (*run).tokensCancel, print: printTargetAndN},
}

// maxTokens is the most tokens that a limiter ever has.
const maxTokens = 4

// limiter picks one that s may take.
func (g *generator) limiter(s *state) *Context {
	if len(g.p.Limiters) == 0 || s.cb >= 0 {
		return nil
	}
	l := g.p.Limiters[g.IntN(len(g.p.Limiters))]
	if l.rank < s.top() || s.topped() || slices.Contains(s.chain, l) {
		return nil
	}
	for _, c := range s.chain {
		if c.Root.Policy != asyncsync.Related && c.rank >= l.rank {
			return nil
		}
	}
	s.touch(l.rank - epsilon)
	return l
}

// again picks one of which somebody in the chain holds a token that is lent to s.
func (g *generator) again(s *state) *Context {
	if len(s.kept) == 0 {
		return nil
	}
	l := s.kept[g.IntN(len(s.kept))]
	if !slices.Contains(s.chain, l) {
		return nil // its holder does not wait for s
	}
	s.touch(l.rank - epsilon)
	return l
}

// limiters makes those of a program.
func (g *generator) limiters(*state) {
	for range g.IntN(3) {
		l := g.context(limiter, float64(1+g.IntN(g.ranks+1)), nil)
		if g.coin(4) {
			l.rank = g.Float64() * float64(g.ranks+1)
		}
		l.Tokens = 1 + g.IntN(3)
		g.p.Limiters = append(g.p.Limiters, l)
	}
}

// tokens is something that is done to a limiter without holding it for long.
func (g *generator) tokens(s *state) *Op {
	if len(g.p.Limiters) == 0 {
		return nil
	}
	if g.coin(2) {
		o := g.newOp(opTokens)
		o.Limiter = g.p.Limiters[g.IntN(len(g.p.Limiters))]
		o.N = g.IntN(1 + maxTokens) // 0 for TryAcquire
		return o
	}
	l := g.limiter(s)
	if l == nil {
		return nil
	}
	o := g.newOp(opTokensCancel)
	o.Limiter = l
	o.N = g.IntN(200)
	return o
}

// startLimiters makes the limiters; end checks that all tokens are back.
func (x *run) startLimiters() (end func()) {
	for _, l := range x.p.Limiters {
		x.limiters[l.ID] = &limiterState{Limiter: task.NewLimiter(l.Tokens)}
	}
	return x.free
}

// limited is o's body, as a, under a token that it takes itself.
func (x *run) limited(o *Op, a *activity) function {
	l := x.limiters[o.Limiter.ID]
	return x.at(o.Body, a, func(ctx context.Context) (v int, err error) {
		x.during(a, &l.who, func() { err = l.Acquire(ctx) })
		if err != nil {
			return 0, err
		}
		defer x.waits(&l.who, a)()
		defer l.Release()
		defer x.hold(o, l)()
		return x.list(ctx, o.Body, a, nil)
	})
}

// underLimiter is an insensitive call whose function, as c, holds a token.
func (x *run) underLimiter(ctx context.Context, o *Op, c *activity) (int, error) {
	l := x.limiters[o.Limiter.ID]
	waited, released := x.waits(c, &l.who), func() {}
	defer func() {
		waited()
		released()
	}()
	f := x.function(o.Body, c, nil, nil)
	return x.call(ctx, o, func(ctx context.Context) (int, error) {
		released = x.waits(&l.who, c)
		defer x.hold(o, l)()
		return f(ctx)
	}, asyncsync.WithLimiter(l.Limiter))
}

// underAgain is an insensitive call whose function, as c, is lent a token. Whoever has
// that may not have come to sleep yet: until then the call waits for the token, and its
// thread serves those who hold one.
func (x *run) underAgain(ctx context.Context, o *Op, c *activity) (int, error) {
	l := x.limiters[o.Limiter.ID]
	waited := sync.OnceFunc(x.waits(c, &l.who))
	defer waited()
	f := x.function(o.Body, c, nil, nil)
	return x.call(ctx, o, func(ctx context.Context) (int, error) {
		waited()
		return f(ctx)
	}, asyncsync.WithLimiter(l.Limiter))
}

// hold counts who holds a token.
func (x *run) hold(o *Op, l *limiterState) (release func()) {
	if n := l.held.Add(1); n > maxTokens {
		x.complain("#%d: %d hold a token at once, but there were never more than %d", o.ID, n, maxTokens)
	}
	return func() { l.held.Add(-1) }
}

// resize changes the number of tokens, or tries to take one.
func (x *run) resize(_ context.Context, o *Op, _ *activity) (int, error) {
	l := x.limiters[o.Limiter.ID]
	if o.N > 0 {
		l.SetTotal(o.N)
		return 0, nil
	}
	done := make(chan struct{})
	go func() { // on a goroutine of its own nobody takes the holder for somebody else
		defer close(done)
		if l.TryAcquire() {
			runtime.Gosched()
			l.Release()
		}
	}()
	<-done
	return 0, nil
}

// tokensCancel is an Acquire that is cancelled at any time.
func (x *run) tokensCancel(ctx context.Context, o *Op, a *activity) (int, error) {
	cause := x.ids.causes[o.ID]
	l := x.limiters[o.Limiter.ID]
	inner, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range o.N {
			runtime.Gosched()
		}
		cancel(cause)
	}()
	c := x.child(a, nil)
	defer x.waits(c, &l.who)()
	t := task.Go(ctx, func(ctx context.Context) (int, error) {
		ctx, stop := context.WithCancelCause(ctx)
		defer stop(nil)
		defer context.AfterFunc(inner, func() { stop(cause) })()
		err := l.Acquire(ctx)
		if err == nil {
			l.Release()
		}
		return 0, err
	})
	x.during(a, c, func() {
		if _, err := t.WaitOrCancel(ctx); err != nil && !x.excused(o, err, cause) {
			x.complain("#%d: Acquire: %v", o.ID, err)
		}
	})
	<-done
	return 0, nil
}

// free checks that all tokens are back.
func (x *run) free() {
	for _, l := range x.p.Limiters {
		// The end of an abandoned function is seen before its token is back.
		for i := 0; x.limiters[l.ID].Stats().Used != 0 && i < 2000; i++ {
			time.Sleep(time.Millisecond)
		}
		if st := x.limiters[l.ID].Stats(); st.Used != 0 || st.Waiting != 0 {
			x.complain("%v at the end: %+v", l, st)
		}
	}
}
