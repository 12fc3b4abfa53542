package nesting

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/core"
	"asyncsync.dev/task"
)

// Programs, or parts of them, whose outcome depends on timing: a task is
// cancelled at any moment, whatever is under way below it. Contexts that are
// made there may be full, and may be closed while they are in use. On some of
// them functions end by Goexit, and so end what is blocked below them there;
// only code that may end so itself calls these. What must hold all the same:
//
//   - no body runs twice;
//   - an operation that calls a body ends as the body did, or the body has not
//     run and the operation says why;
//   - the reason is one of those that there are: see excuse.go;
//   - nothing is left behind, and what is judged on the spot.
//
// Ops and bodies of these parts have the mark Loose. Wherever others wait there
// for what could be left behind, these wait for it to end.

const (
	opLoose      kind = "loose"       // a task of Body that is cancelled at any moment
	opLeave      kind = "leave"       // a call that is abandoned if it is cancelled
	opCloseEarly kind = "close-early" // Close or Shutdown of On while it is in use
)

var looseOps = []operation{
	{kind: opLoose, run: (*run).cancelAll, print: printQueued, cancels: true},
	{kind: opLeave, run: (*run).leaveCall, print: printTarget},
	{kind: opCloseEarly, run: (*run).closeEarly, print: func(o *Op) string { return fmt.Sprintf(" %v, %v", o.On, o.Close) }},
}

// looseRoots has roots do nothing else, where all of a program is to be loose.
func (g *generator) looseRoots(*state) {
	if g.cfg.Loose {
		g.root = g.looseBody
	}
}

// looseBody is some of them, one after the other.
func (g *generator) looseBody(s state) *Body {
	b := g.newBody(s)
	for range 1 + g.IntN(3) {
		if o := g.loose(&s); o != nil {
			o.Catch = true
			b.Ops = append(b.Ops, o)
		}
	}
	return b
}

// loose is a part that is cancelled at any moment.
func (g *generator) loose(s *state) *Op {
	if s.cb >= 0 || s.loose {
		return nil
	}
	f := s.fork()
	f.quiet, f.goexit, f.loose = false, true, true
	f.root = false
	f.mustJoin = f.mustJoin || s.alone
	to := &Op{}
	if g.coin(4) {
		if to = g.queue(&f); to == nil {
			return nil
		}
		f = f.on(to.On)
	}
	o := g.with(opLoose, to)
	o.N = g.IntN(400)
	o.Cancel = g.IntN(2)
	g.loosen = true
	o.Body = g.body(f)
	g.loosen = false
	return o
}

// closeEarly closes a context that is in use.
func (g *generator) closeEarly(s *state) *Op {
	if !s.loose || s.raw || s.cb >= 0 {
		return nil
	}
	var loose []*Context
	for _, c := range s.reach {
		if c.Loose {
			loose = append(loose, c)
		}
	}
	if len(loose) == 0 {
		return nil
	}
	c := loose[g.IntN(len(loose))]
	if i := slices.Index(s.chain, c.Root); i >= 0 {
		for _, between := range s.chain[i:] {
			if s.detached || between != c.Root && between.Kind != limiter {
				return nil // a wait that begins later would be refused
			}
		}
	} else if c.Root.rank <= s.top() {
		return nil
	}
	s.touch(c.Root.rank - epsilon)
	o := g.newOp(opCloseEarly)
	o.On = c
	o.N = g.IntN(100)
	o.Close = []closing{closeBelow, shutBelow}[g.IntN(2)]
	return o
}

// leave is a call that returns when it is cancelled, whatever its function does.
func (g *generator) leave(s *state) *Op {
	if s.cb >= 0 {
		return nil
	}
	o := &Op{}
	if g.coin(2) {
		o.Target = insensitive
		o = g.with(opLeave, o)
		if s.sync != nil {
			if o.Limiter = g.limiter(s); o.Limiter != nil {
				s.touch(o.Limiter.rank - epsilon)
			}
		}
	} else {
		if !g.target(s, o) || o.On.Root.Exits {
			return nil
		}
		s.on(o.On) // for the touch
		o = g.with(opLeave, o)
		if o.Target == throughDo {
			o.Target = throughGet // whose result goes with the call
		}
	}
	o.N = g.IntN(200)
	return o
}

// leaveCall makes it.
func (x *run) leaveCall(ctx context.Context, o *Op, a *activity) (v int, err error) {
	x.strays.Add(1)
	over := sync.OnceFunc(x.strays.Done)
	var ran atomic.Bool
	f := func(context.Context) (int, error) {
		defer over()
		ran.Store(true)
		for range o.N {
			runtime.Gosched()
		}
		return -1, nil
	}
	c := x.child(a, nil)
	if o.On != nil {
		f, c = x.probe(o, a, f)
	}
	opts := []asyncsync.Option{asyncsync.Abandon()}
	if o.Limiter != nil {
		l := x.limiters[o.Limiter.ID]
		opts = append(opts, asyncsync.WithLimiter(l.Limiter))
		defer x.waits(c, &l.who)()
		defer x.waits(&l.who, c)()
	}
	returned := false
	defer func() {
		if !returned && !ran.Load() {
			over() // this ends by Goexit, and has taken the call back
		}
	}()
	x.during(a, c, func() { v, err = x.call(ctx, o, f, opts...) })
	returned = true
	switch {
	case err == nil && v == -1 && ran.Load():
	case errors.Is(err, asyncsync.ErrAbandoned):
		// It has begun; its first statement may be yet to come. Under a limiter
		// it may also have begun to wait for a token, and get none.
		x.Abandoned.Add(1)
		if o.Limiter != nil && !ran.Load() {
			over()
		}
	case err != nil && x.p.excuse(err) && !ran.Load():
		over()
	default:
		x.complain("#%d: a call that may be abandoned returns %d, %v; ran: %v", o.ID, v, err, ran.Load())
	}
	return v, err
}

// cancelAll runs a loose part.
func (x *run) cancelAll(ctx context.Context, o *Op, a *activity) (int, error) {
	cause := x.ids.causes[o.ID]
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c := x.child(a, o.Body)
	f := x.function(o.Body, c, nil, nil)
	var t *task.Task[int]
	if o.Queued {
		c.queued = true
		t = x.queue(inner, o, f)
	} else {
		t = task.Go(inner, f)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range o.N {
			runtime.Gosched()
		}
		if o.Cancel == 0 {
			cancel(cause)
		} else {
			t.Cancel(cause)
		}
	}()
	var out Outcome
	wait := func(ctx context.Context) (int, error) {
		// On a goroutine of its own a Goexit ends here.
		waited := make(chan struct{})
		go func() {
			defer close(waited)
			defer forget()
			capture(&out, func() (int, error) { return t.Wait(ctx) })
		}()
		x.rest(ctx, waited)
		return 0, nil
	}
	x.during(a, c, func() {
		if a.on == nil {
			wait(ctx)
		} else {
			asyncsync.FromThread(ctx, wait)
		}
	})
	if out.Kind == endError && !x.p.excuse(out.Err) {
		x.complain("#%d: %v, for which there is no reason", o.ID, out.Err)
	}
	<-done
	return 0, nil
}

// closeEarly closes a context while it is in use.
func (x *run) closeEarly(_ context.Context, o *Op, a *activity) (int, error) {
	c := x.contexts[o.On.ID]
	c.early.Store(true)
	x.contexts[o.On.Root.ID].early.Store(true)
	x.closed(c)
	cause := x.ids.causes[o.ID]
	all := &activity{}
	defer x.closes(all, x.contexts[o.On.Root.ID])()
	x.during(a, all, func() {
		var err error
		switch {
		case c.handle != nil:
			err = c.handle.Close()
		case o.Close == shutBelow:
			ctx, cancel := context.WithCancelCause(context.Background())
			go func() {
				for range o.N {
					runtime.Gosched()
				}
				cancel(cause)
			}()
			err = c.tsc.Shutdown(ctx)
			if errors.Is(err, cause) || errors.Is(err, core.ErrDeadlock) {
				err = nil // for who closes from inside
			}
		default:
			err = c.tsc.Close()
		}
		if err != nil {
			x.complain("#%d: closing %v: %v", o.ID, c.Context, err)
		}
	})
	return 0, nil
}
