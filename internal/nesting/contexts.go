package nesting

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"time"

	"asyncsync.dev/asyncsync"
)

// Contexts, and the pools that they get threads from: those that are there from the
// start, and how all of them are made and closed.

// contexts makes the shared ones.
func (g *generator) contexts(s *state) {
	g.loosen = g.cfg.Loose
	for i := range g.ranks {
		c := g.context(shared, float64(i+1), nil)
		g.flavour(c)
		// Its functions run on a goroutine of the program's own, which a Goexit ends.
		if c.Owned = c.Policy == asyncsync.Related && !c.Exits && g.coin(3); c.Owned {
			c.Unpinned, c.Spin = false, 0
		}
		s.reach = append(s.reach, c)
	}
	g.loosen = false
}

// pools makes the small ones.
func (g *generator) pools(*state) {
	pools := g.cfg.Pools
	if pools == 0 {
		pools = g.IntN(3)
	}
	for range pools {
		g.p.Pools = append(g.p.Pools, Pool{Max: 1 + g.IntN(3), Wide: g.coin(2)})
		g.poolRank = append(g.poolRank, g.Float64()*float64(g.ranks+1))
	}
}

// startPools makes the pools; end closes and checks them.
func (x *run) startPools() (end func()) {
	x.pool = asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 1000})
	for _, n := range x.p.Pools {
		cfg := asyncsync.ThreadPoolConfig{MaxThreads: n.Max}
		if n.Wide {
			cfg.MaxOverflow = 1000
		}
		cfg.ThreadStart = func() { x.threads.Add(1) }
		cfg.ThreadExit = func() { x.threads.Add(-1) }
		x.pools = append(x.pools, asyncsync.NewThreadPool(cfg))
	}
	return func() {
		for _, p := range append(x.pools, x.pool) {
			if err := p.Close(); err != nil {
				x.complain("Close of a pool: %v", err)
			}
			if st := p.Stats(); st.Threads != 0 || st.Overflow != 0 || st.Idle != 0 || st.Waiting != 0 {
				x.complain("a closed pool: %+v", st)
			}
		}
		if n := x.threads.Load(); n != 0 {
			x.complain("of %d threads of the small pools ThreadStart or ThreadExit has not run", n)
		}
		for i, p := range x.pools {
			if st, n := p.Stats(), x.p.Pools[i]; !n.Wide && st.Peak > 2*n.Max {
				x.complain("pool%d: %+v, but MaxThreads and MaxOverflow are %d", i, st, n.Max)
			}
		}
	}
}

// startContexts makes the shared contexts; end closes these, and what else is to be
// closed at the end.
func (x *run) startContexts() (end func()) {
	for _, c := range x.p.Contexts {
		switch c.Kind {
		case defaultThread:
			x.contexts[c.ID] = &contextState{Context: c}
		case shared:
			x.contexts[c.ID] = x.open(context.Background(), c)
			x.later(x.contexts[c.ID])
			x.atTheStart = append(x.atTheStart, x.contexts[c.ID])
		}
	}
	return func() {
		x.complaints.Lock() // for a group that goes on after a planted cycle was told
		atEnd := slices.Clone(x.atEnd)
		x.complaints.Unlock()
		for _, c := range slices.Backward(atEnd) {
			x.disclaim(c)
			if err := c.tsc.Close(); err != nil {
				x.complain("Close of %v: %v", c.Context, err)
			}
			// A thread that outlasts the context may run something else by now.
			lasts := c.Kind == nested || c.Owned
			if st := c.tsc.Stats(); !st.Closed || !lasts && (st.Queued != 0 || st.Running) {
				x.complain("%v after Close: %+v", c.Context, st)
			}
			x.over(c)
			if c.exec != nil {
				close(c.left)
				<-c.gone
			}
		}
	}
}

// open makes the context c in ctx.
func (x *run) open(ctx context.Context, c *Context) *contextState {
	s := &contextState{Context: c}
	if c.Owned {
		x.owner(s)
	}
	s.ctx, s.tsc = asyncsync.NewThreadSensitiveContext(ctx, x.options(s)...)
	return s
}

// owner starts the goroutine that is the thread of s, until s.left is closed.
func (x *run) owner(s *contextState) {
	made := make(chan struct{})
	s.left, s.gone = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(s.gone)
		s.exec = asyncsync.NewCurrentThreadExecutor()
		close(made)
		if err := s.exec.RunUntil(s.left); err != nil {
			x.complain("RunUntil of %v: %v", s.Context, err)
		}
		if err := s.exec.Close(); err != nil {
			x.complain("Close of the executor of %v: %v", s.Context, err)
		}
	}()
	<-made
}

// options returns those that c is made with.
func (x *run) options(c *contextState) []asyncsync.ContextOption {
	opts := append([]asyncsync.ContextOption{asyncsync.WithName(c.String())}, x.ends(c)...)
	if c.Queue > 0 {
		opts = append(opts, asyncsync.QueueLimit(c.Queue))
	}
	if c.Owned {
		return append(opts, asyncsync.WithThread(c.exec))
	}
	opts = append(opts, asyncsync.Serve(c.Policy))
	if c.Spin > 0 {
		opts = append(opts, asyncsync.Spin([]time.Duration{0, 100 * time.Microsecond}[c.Spin-1]))
	}
	switch {
	case c.Unpinned:
		opts = append(opts, asyncsync.Unpinned())
	case c.Pool >= 0:
		opts = append(opts, asyncsync.WithPool(x.pools[c.Pool]))
	default:
		opts = append(opts, asyncsync.WithPool(x.pool))
	}
	return opts
}

// ends returns options that check when functions at the ends of c's thread run.
func (x *run) ends(c *contextState) []asyncsync.ContextOption {
	if !c.Ends {
		return nil
	}
	at := func(what string) {
		if tid := osThread(); !c.Unpinned && c.tid != 0 && tid != c.tid {
			x.complain("%s of %v runs on OS thread %d, should be %d", what, c.Context, tid, c.tid)
		}
	}
	return []asyncsync.ContextOption{
		asyncsync.OnThreadStart(func() {
			at("OnThreadStart")
			c.starts++
			if c.steps > 0 || c.starts > 1 {
				x.complain("OnThreadStart of %v runs for the %d. time, after %d steps", c.Context, c.starts, c.steps)
			}
		}),
		asyncsync.OnThreadExit(func() {
			at("OnThreadExit")
			c.exits++
			if len(c.stack) > 0 || c.exits > 1 {
				x.complain("OnThreadExit of %v runs for the %d. time, below %d functions", c.Context, c.exits, len(c.stack))
			}
		}),
	}
}

// adopt says that the calling goroutine, which runs a, is about to become the
// thread of o.On.
func (x *run) adopt(o *Op, a *activity) (release func()) {
	s := &contextState{Context: o.On, stack: []*activity{a}}
	x.contexts[o.On.ID] = s
	runtime.LockOSThread() // so that the id means something
	s.tid = osThread()
	a.tid = s.tid
	x.claim(s, s.tid)
	return func() {
		x.disclaim(s)
		runtime.UnlockOSThread()
	}
}

// later has c closed at the end.
func (x *run) later(c *contextState) {
	x.complaints.Lock()
	x.atEnd = append(x.atEnd, c)
	x.complaints.Unlock()
}

// closed is called before c is closed: its thread may be another's then.
func (x *run) closed(c *contextState) {
	if c.Kind != nested {
		x.disclaim(c)
	}
}

// over is called when c has been closed and nothing is left of it.
func (x *run) over(c *contextState) {
	if c.Kind == nested {
		return // it has none of its own
	}
	if v := c.critical; v != nil && v.exited != 1 {
		x.complain("%v: its thread-critical value has met its exit function %d times", c.Context, v.exited)
	}
	if c.starts != c.exits {
		x.complain("%v: OnThreadStart ran %d times, OnThreadExit %d times", c.Context, c.starts, c.exits)
	}
}

// refused checks that the context that o has made, and closed, takes no call.
func (x *run) refused(ctx context.Context, o *Op, a *activity) {
	c := x.contexts[o.On.ID]
	if o.Loose {
		return
	}
	if a.on != nil && a.on.Context == o.On.Root {
		return // there the call would run inline
	}
	for up := a; up != nil; up = up.parent {
		if up.on != nil && up.on.Context == o.On.Root {
			return // related to a function that still runs: it may be let in
		}
	}
	f := func(context.Context) (int, error) {
		x.complain("#%d: a call to %v runs after it was closed", o.ID, c.Context)
		return 0, nil
	}
	if _, err := asyncsync.Go(ctx, f, asyncsync.On(c.tsc)).Wait(context.Background()); !errors.Is(err, asyncsync.ErrClosed) {
		x.complain("#%d: a task on the closed %v: %v", o.ID, c.Context, err)
	}
	_, err := asyncsync.ToThread(ctx, f, asyncsync.On(c.tsc))
	if !errors.Is(err, asyncsync.ErrClosed) {
		x.complain("#%d: a call to the closed %v: %v", o.ID, c.Context, err)
	}
}
