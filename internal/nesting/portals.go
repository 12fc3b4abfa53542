package nesting

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/core"
	"asyncsync.dev/loop"
	"asyncsync.dev/portal"
	"asyncsync.dev/task"
)

// Portals. Like loops they have no rank: a function of a portal is a task of its loop.
//
//   - portal.Call is opFrom with a place of its own: caller and function are one line
//     of execution, whoever calls.
//   - portal.StartSoon is opSpawn or opJoined. The task belongs to the portal, and not to
//     who has started it: who waits for it is related to it by the wait alone.
//   - portal.StartTask and portal.Wrap are joined tasks in two parts. Somebody waits for
//     the first one as for a call, and later for the second one as for a task.
//   - Close waits for what StartSoon has started and nobody has waited for. Its functions
//     so have the chain of who closes.
//
// Where a portal stops while it is in use the model knows two outcomes for what comes
// at that moment: see portalstops.go. All else is known: a portal is stopped when what uses
// it has ended, and what comes later is refused.

const (
	opPortal       kind = "portal"        // a portal that is opened, Body, Close in some way while Bodies run
	opProvider     kind = "provider"      // Acquire, Body, release
	opStartTask    kind = "start-task"    // StartTask with Body and then Bodies[0], Between, Wait
	opWrap         kind = "wrap"          // Wrap, opened by Body, Between, closed by Bodies[0]
	opPosted       kind = "posted"        // a portal is called from a function that is posted to its loop
	opPortalCancel kind = "portal-cancel" // a function of a portal that is cancelled at any time
)

var portalOps = []operation{
	{kind: opPortal, run: (*run).portal, expect: (*model).portal,
		print: func(o *Op) string { return fmt.Sprintf(", closed: %v", o.Close) }},
	{kind: opProvider, run: (*run).inProvided, expect: (*model).inline},
	{kind: opStartTask, run: (*run).inTwoParts, expect: (*model).inTwoParts, goexits: eitherPartGoexits},
	{kind: opWrap, run: (*run).inTwoParts, expect: (*model).inTwoParts, goexits: eitherPartGoexits},
	{kind: opPosted, run: (*run).onPosted},
	{kind: opPortalCancel, run: (*run).portalCancel, print: func(o *Op) string { return fmt.Sprintf(" %v", way(o.Mask)) }},
}

func eitherPartGoexits(o *Op) bool { return o.Body.goexits || o.Bodies[0].goexits }

// portals makes those that are there from the start.
func (g *generator) portals(s *state) {
	for range g.cfg.Portals {
		p := g.newPortal(openedAtStart)
		p.Loop = 1 + g.IntN(g.cfg.Loops)
		s.portals = append(s.portals, p)
	}
	if g.cfg.Portals > 0 {
		g.provider = g.newPortal(provided)
		g.provider.Side = g.coin(3)
		g.sides[g.provider.Loop] = g.provider.Side
	}
}

// newPortal returns a portal, on a loop of its own if it needs one.
func (g *generator) newPortal(k portalKind) *Portal {
	p := &Portal{ID: len(g.p.Portals), Kind: k}
	if k == startedBelow || k == provided {
		g.p.Loops++
		p.Loop = g.p.Loops
	}
	g.p.Portals = append(g.p.Portals, p)
	return p
}

// throughPortal is an operation with a portal that s can name.
func (g *generator) throughPortal(s *state) *Op {
	inner := s.inner()
	if len(s.portals) == 0 {
		return nil
	}
	p := s.portals[g.IntN(len(s.portals))]
	switch g.IntN(8) {
	case 0:
		o := g.newOp(opPosted)
		o.Portal = p
		return o
	case 1, 2:
		return g.inTwoParts(s, p)
	case 3:
		if !g.cfg.Ends || s.cb >= 0 {
			return nil
		}
		o := g.newOp(opPortalCancel)
		o.Portal = p
		o.Mask = uint(g.IntN(3))
		o.N = g.IntN(200)
		return o
	}
	o := g.newOp(opFrom)
	o.Place, o.Portal, o.Loop = placePortal, p, p.Loop
	if s.sync != nil {
		inner = inner.away()
	}
	inner.loop, inner.bare, inner.off, inner.derived, inner.known = p.Loop, false, false, true, true
	inner = inner.lead("portal").lead("loop %d", p.Loop)
	// Without an end of its own what is left behind ends with the portal.
	inner.mustJoin = inner.mustJoin || p.Kind != openedAtStart
	o.Body = g.body(inner)
	return o
}

// provided is what runs with the portal of the Provider.
func (g *generator) provided(s *state) *Op {
	if !s.serves() {
		return nil
	}
	o := g.newOp(opProvider)
	o.Portal = g.provider
	f := *s
	f.mustJoin = true
	f.portals = append(slices.Clip(f.portals), g.provider)
	o.Body = g.body(f)
	return o
}

// privatePortal is a portal made in the middle, for those below.
func (g *generator) privatePortal(s *state) *Op {
	if !s.serves() {
		return nil
	}
	o := g.newOp(opPortal)
	if s.loop > 0 && s.sync == nil && !s.off && g.coin(2) {
		o.Portal = g.newPortal(openedBelow)
		o.Portal.Loop, o.Portal.scope = s.loop, s.scope
		o.Portal.Side = g.sides[s.loop]
		g.p.stops = g.p.stops || s.loose
	} else {
		o.Portal = g.newPortal(startedBelow)
		o.Portal.Side = g.coin(4)
		if o.Portal.Side {
			g.sides[o.Portal.Loop] = true
		}
	}
	f := *s
	f.mustJoin = true
	f.portals = append(slices.Clip(f.portals), o.Portal)
	o.Body = g.body(f)
	o.Close = closing(g.IntN(int(closeWith) + 1))
	// Close has no ctx: on a goroutine of its own nobody's wait is known to be for it.
	if s.cb < 0 && o.Close != closeAtEnd && !s.loose && !s.raw {
		for range g.IntN(3) {
			// Close waits for these.
			f := s.fork().silent().soon(o.Portal)
			f.alone = true
			b := g.body(f.lead("portal").lead("loop %d", f.loop))
			if g.coin(2) {
				b.End = endError
			}
			o.Bodies = append(o.Bodies, b)
		}
	}
	return o
}

// inTwoParts is a function of StartTask, or a resource of Wrap.
func (g *generator) inTwoParts(s *state, p *Portal) *Op {
	if s.cb >= 0 {
		return nil
	}
	o := g.newOp(opStartTask)
	if g.coin(2) {
		o.Kind = opWrap
	}
	o.Portal = p
	f := s.fork()
	f.quiet, f.derived = false, true
	f.mustJoin = f.mustJoin || s.alone || p.Kind != openedAtStart
	f.loop, f.bare, f.off = p.Loop, false, false
	f = f.lead("portal").lead("loop %d", p.Loop)
	first := f
	// Anybody may say that it has started: what it is waited for then is not certain.
	first.joins, first.locks, first.sure = nil, nil, len(f.chain)
	o.Body = g.body(first)
	b := *s
	b.fragile = b.fragile || o.Body.goexits
	o.Bodies = []*Body{g.body(f)}
	b.fragile = b.fragile || o.Bodies[0].goexits
	o.Between = g.between(&b)
	return o
}

// startPortals makes the Provider of the program, and places for the portals.
func (x *run) startPortals() (end func()) {
	x.portals = make([]*portalState, len(x.p.Portals))
	x.provider = &providerState{Provider: portal.NewProvider(x.providerOptions()...)}
	return func() {}
}

// portalsOn opens the portals that are on a loop from the start, in a task of that.
func (x *run) portalsOn(ctx context.Context, on int) (end func()) {
	var ours []*portalState
	for _, p := range x.p.Portals {
		if p.Kind != openedAtStart || p.Loop != on {
			continue
		}
		it, err := portal.Open(ctx)
		if err != nil {
			x.complain("Open: %v", err)
		}
		x.portals[p.ID] = &portalState{Portal: p, it: it}
		ours = append(ours, x.portals[p.ID])
	}
	return func() {
		for _, p := range ours {
			if err := p.it.Close(nil); err != nil {
				x.complain("Close of %v: %v", p.Portal, err)
			}
		}
	}
}

// providerOptions are those of the program's Provider.
func (x *run) providerOptions() (opts []portal.Option) {
	for _, p := range x.p.Portals {
		if p.Kind == provided && p.Side {
			opts = append(opts, portal.WithBackend(loop.Goroutines(loop.Named("nesting-provider"))))
		}
	}
	return append(opts, portal.Named("nesting-provider"))
}

// open makes the portal of o, and has its loop known.
func (x *run) openPortal(ctx context.Context, o *Op, a *activity) (ps *portalState, err error) {
	ps = &portalState{Portal: o.Portal}
	// What the caller's function has started is served.
	x.during(a, a.outermost(), func() {
		switch {
		case o.Portal.Kind == openedBelow:
			ps.region.parent = a
			ps.it, err = portal.Open(ctx)
		case o.Portal.Side:
			ps.it, err = portal.Start(portal.WithBackend(loop.Goroutines(loop.Named("nesting"))))
		default:
			ps.it, err = portal.Start(portal.Named(fmt.Sprint("nesting-", o.Portal.Loop)))
		}
	})
	if err != nil {
		if !o.Loose {
			x.complain("#%d: opening %v: %v", o.ID, o.Portal, err)
		}
		return nil, err
	}
	if o.Portal.Kind != openedBelow {
		x.loops[o.Portal.Loop-1] = &loopState{Backend: ps.it.Loop(), side: o.Portal.Side}
	}
	x.portals[o.Portal.ID] = ps
	return ps, nil
}

// portal runs o.Body with a portal of its own.
func (x *run) portal(ctx context.Context, o *Op, a *activity) (v int, err error) {
	ps, err := x.openPortal(ctx, o, a)
	if err != nil {
		return 0, err
	}
	defer x.closePortal(ctx, o, a, ps)
	return x.list(ctx, o.Body, a, nil)
}

func (m *model) portal(o *Op, v *Values) Outcome {
	out := m.body(o.Body, v)
	for _, b := range o.Bodies {
		fork := *v
		m.body(b, &fork)
	}
	return out
}

// closePortal ends it in one of its ways, and checks what comes later.
func (x *run) closePortal(ctx context.Context, o *Op, a *activity, ps *portalState) {
	p := ps.it
	for _, b := range o.Bodies {
		f := x.function(b, x.child(&ps.region, b), nil, nil)
		if _, err := portal.StartSoon(p, f); err != nil {
			x.complain("#%d: StartSoon: %v", o.ID, err)
		}
		x.count(portalSoon)
	}
	inside := func() {
		if err := p.Close(nil); err != loop.ErrOnLoop {
			x.complain("#%d: Close from inside: %v", o.ID, err)
		}
		x.refusedPortal(ctx, o, p)
	}
	switch o.Close {
	case shutBelow:
		p.Stop(false)
		x.refusedPortal(ctx, o, p)
	case closeAtEnd:
		p.Stop(true)
		x.refusedPortal(ctx, o, p)
	case closeInside:
		f, c := x.probe(o, a, func(context.Context) (int, error) {
			inside()
			return -1, nil
		})
		var err error
		x.during(a, c, func() { _, err = portal.Call(ctx, p, f) })
		if err != nil && !x.excused(o, err, nil) {
			x.complain("#%d: the call that closes: %v", o.ID, err)
		}
	case closeWith:
		done := make(chan struct{})
		if err := p.Loop().Post(func() {
			defer close(done)
			if ps.Side {
				p.Stop(false)
			} else {
				inside()
			}
		}); err != nil {
			if !o.Loose {
				x.complain("#%d: Post: %v", o.ID, err)
			}
			close(done)
		}
		x.rest(ctx, done)
	}
	var err error
	x.during(a, &ps.region, func() { err = p.Close(nil) })
	if x.p.Planted != nil && errors.Is(err, core.ErrDeadlock) {
		x.told.Add(1)
		return // it ends when whoever closes goes on
	}
	if o.Loose {
		return
	}
	select {
	case <-p.Stopping():
	default:
		x.complain("#%d: Stopping is open after Close", o.ID)
	}
	var want []error
	for _, b := range o.Bodies {
		if out := x.outs[b.ID]; out.Kind == endError {
			want = append(want, out.Err)
		}
	}
	x.tells(o, err, want)
	x.refusedPortal(ctx, o, p)
}

// tells checks that err, of a Close, is all of want and nothing else.
func (x *run) tells(o *Op, err error, want []error) {
	var got []error
	if err != nil {
		got = []error{err}
		if all, ok := err.(interface{ Unwrap() []error }); ok {
			got = all.Unwrap()
		}
	}
	for _, w := range want {
		if !errors.Is(err, w) {
			x.complain("#%d: Close does not tell of %v, but: %v", o.ID, w, err)
		}
		x.count(portalTold)
	}
	if len(got) != len(want) {
		x.complain("#%d: Close tells of %d errors, should be %d: %v", o.ID, len(got), len(want), err)
	}
}

// refusedPortal checks that p, which has stopped, accepts nothing.
func (x *run) refusedPortal(ctx context.Context, o *Op, p *portal.Portal) {
	if o.Loose {
		return
	}
	f := func(context.Context) (int, error) {
		x.complain("#%d: a function runs in a portal that has stopped before", o.ID)
		return 0, nil
	}
	want := loop.ErrStopped
	for i, err := range x.everyWay(ctx, p, f) {
		if err == loop.ErrOnLoop && way(i) != waySoon && x.posted(ctx) {
			continue
		}
		if err != want {
			x.complain("#%d: %v of a portal that has stopped: %v", o.ID, way(i), err)
		}
		x.count(portalRefused)
	}
}

// posted reports whether the caller is a function that was posted to a thread loop.
func (x *run) posted(ctx context.Context) bool {
	_, err := loop.Run(ctx, loop.NewThread(), nil2)
	_, task := loop.Current(ctx)
	return err == loop.ErrOnLoop && !task
}

type way int

const (
	wayCall way = iota
	waySoon
	wayStartTask
	wayWrap
)

func (w way) String() string { return [...]string{"Call", "StartSoon", "StartTask", "Wrap"}[w] }

// everyWay sends f to p in every way, and returns what becomes of it.
func (x *run) everyWay(ctx context.Context, p *portal.Portal, f function) (errs [4]error) {
	_, errs[wayCall] = portal.Call(ctx, p, f)
	t, err := portal.StartSoon(p, f)
	if err == nil {
		_, err = t.Wait(context.Background())
	}
	errs[waySoon] = err
	_, _, errs[wayStartTask] = portal.StartTask(ctx, p, func(ctx context.Context, started func(int) error) (int, error) {
		started(0)
		return f(ctx)
	})
	_, _, errs[wayWrap] = portal.Wrap(ctx, p, func(ctx context.Context) (int, func(context.Context, error) error, error) {
		_, err := f(ctx)
		return 0, func(_ context.Context, err error) error { return err }, err
	})
	return errs
}

// onPosted calls the portal from a function that is posted to its loop.
func (x *run) onPosted(ctx context.Context, o *Op, a *activity) (int, error) {
	ps := x.portals[o.Portal.ID]
	done := make(chan struct{})
	var t *task.Task[int]
	ran := false
	c := x.child(&ps.region, nil)
	err := ps.it.Loop().Post(func() {
		defer close(done)
		var err error
		if t, err = portal.StartSoon(ps.it, func(context.Context) (int, error) { return -1, nil }); err != nil && !x.excused(o, err, nil) {
			x.complain("#%d: StartSoon in a posted function: %v", o.ID, err)
		}
		x.count(portalFromPosted)
		if ps.Side {
			return // it is a goroutine like others
		}
		f := func(context.Context) (int, error) {
			ran = true
			return 0, nil
		}
		_, e1 := portal.Call(ctx, ps.it, f)
		_, _, e2 := portal.StartTask(ctx, ps.it, func(ctx context.Context, _ func(int) error) (int, error) { return f(ctx) })
		_, _, e3 := portal.Wrap(ctx, ps.it, func(ctx context.Context) (int, func(context.Context, error) error, error) {
			ran = true
			return 0, nil, errNone
		})
		e4 := ps.it.Wait(ctx)
		_, e5 := asyncsync.FromThread(ctx, f)
		_, e6 := loop.Call(ctx, ps.it.Loop(), f)
		for i, err := range []error{e1, e2, e3, e4, e5, e6} {
			if err != loop.ErrOnLoop && !x.excused(o, err, nil) && !(o.Loose && err == nil && i == 3) {
				x.complain("#%d: in a posted function, wait %d: %v", o.ID, i, err)
			}
		}
	})
	if err != nil {
		x.complain("#%d: Post: %v", o.ID, err)
		return 0, nil
	}
	x.rest(ctx, done)
	if t == nil {
		return 0, nil
	}
	x.during(a, c, func() {
		if v, err := t.Wait(ctx); (v != -1 || err != nil) && !x.excused(o, err, nil) {
			x.complain("#%d: the task that a posted function has started: %d, %v", o.ID, v, err)
		}
	})
	if ran {
		x.complain("#%d: what a posted function waits for runs", o.ID)
	}
	return 0, nil
}

// inTwoParts runs a task of StartTask or a resource of Wrap.
func (x *run) inTwoParts(ctx context.Context, o *Op, a *activity) (v int, err error) {
	p := x.portals[o.Portal.ID].it
	c := x.child(a, o.Body)
	first := x.function(o.Body, c, nil, nil)
	second := func(ctx context.Context) (int, error) {
		defer x.goesOn()()
		c.body = o.Bodies[0]
		x.begins(ctx, o.Bodies[0])
		return x.list(ctx, o.Bodies[0], c, nil)
	}
	var t *task.Task[int]
	var closing func(error) error
	got := 0
	cause := x.ids.causes[o.ID]
	x.during(a, c, func() {
		if o.Kind == opStartTask {
			x.count(portalStartTask)
			t, got, err = portal.StartTask(ctx, p, func(ctx context.Context, started func(int) error) (int, error) {
				v, err := first(ctx)
				if err == nil {
					err = started(v)
					if err != nil && !x.excused(o, err, nil) {
						x.complain("#%d: started: %v", o.ID, err)
					}
				}
				if err != nil {
					return 0, err
				}
				if err := started(v); err != task.ErrStartedTwice {
					x.complain("#%d: started a second time: %v", o.ID, err)
				}
				return second(ctx)
			})
			return
		}
		x.count(portalWrap)
		got, closing, err = portal.Wrap(ctx, p, func(ctx context.Context) (int, func(context.Context, error) error, error) {
			v, err := first(ctx)
			return v, func(ctx context.Context, why error) error {
				if why != error(cause) && !x.excused(o, why, nil) {
					x.complain("#%d: closed with %v, should be %v", o.ID, why, cause)
				}
				_, err := second(ctx)
				return err
			}, err
		})
	})
	if err != nil {
		return 0, err
	}
	if got != o.Body.ID {
		x.complain("#%d: has started with %d, should be %d", o.ID, got, o.Body.ID)
	}
	x.list(ctx, o.Between, a, nil)
	x.during(a, c, func() {
		switch {
		case closing != nil:
			if err = closing(cause); err == nil {
				v = o.Bodies[0].ID
			}
		case o.Loose:
			v, err = t.WaitOrCancel(ctx)
		default:
			v, err = t.Wait(ctx)
		}
	})
	return v, err
}

func (m *model) inTwoParts(o *Op, v *Values) Outcome {
	fork := *v
	if out := m.body(o.Body, &fork); out.Kind != endReturn {
		return out
	}
	m.body(o.Between, v)
	return m.body(o.Bodies[0], &fork)
}

// inProvided runs o.Body with the Provider's portal.
func (x *run) inProvided(ctx context.Context, o *Op, a *activity) (v int, err error) {
	prov := x.provider
	var p *portal.Portal
	var release func() error
	x.during(a, a.outermost(), func() { p, release, err = prov.Acquire(ctx) })
	if err != nil {
		if !o.Loose {
			x.complain("#%d: Acquire: %v", o.ID, err)
		}
		return 0, err
	}
	x.count(portalProvided)
	prov.mu.Lock()
	if prov.leases++; prov.leases == 1 {
		// Nobody runs anything there who could see this.
		prov.now = p
		x.loops[o.Portal.Loop-1] = &loopState{Backend: p.Loop(), side: o.Portal.Side}
		x.portals[o.Portal.ID] = &portalState{Portal: o.Portal, it: p}
	} else if prov.now != p {
		x.complain("#%d: two portals of one Provider are in use", o.ID)
	}
	prov.mu.Unlock()
	defer func() {
		prov.mu.Lock()
		prov.leases--
		prov.mu.Unlock()
		x.during(a, &activity{}, func() {
			if err := release(); err != nil {
				x.complain("#%d: release: %v", o.ID, err)
			}
		})
	}()
	return x.list(ctx, o.Body, a, nil)
}

// portalCancel is a function of a portal that is cancelled at any time.
func (x *run) portalCancel(ctx context.Context, o *Op, a *activity) (int, error) {
	cause := x.ids.causes[o.ID]
	ps := x.portals[o.Portal.ID]
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var ran atomic.Int32
	began := make(chan struct{})
	f := func(ctx context.Context) (int, error) {
		ran.Add(1)
		close(began)
		return 0, x.parked(ctx, o)
	}
	var t *task.Task[int]
	done := make(chan struct{})
	late := func(f func()) {
		go func() {
			defer close(done)
			if o.N%2 == 0 {
				select {
				case <-began:
				case <-inner.Done():
				}
			}
			for range o.N {
				runtime.Gosched()
			}
			f()
		}()
	}
	var err error
	c := x.child(a, nil)
	switch way(o.Mask) {
	case wayCall:
		late(func() { cancel(cause) })
		x.during(a, c, func() { _, err = portal.Call(inner, ps.it, f) })
	case waySoon:
		if t, err = portal.StartSoon(ps.it, f); err != nil {
			if !x.excused(o, err, nil) {
				x.complain("#%d: StartSoon: %v", o.ID, err)
			}
			return 0, nil
		}
		late(func() { t.Cancel(cause) })
		x.during(a, c, func() { _, err = t.Wait(context.WithoutCancel(ctx)) })
	default:
		late(func() { cancel(cause) })
		x.during(a, c, func() {
			_, _, err = portal.StartTask(inner, ps.it, func(ctx context.Context, _ func(int) error) (int, error) { return f(ctx) })
		})
	}
	cancel(cause)
	x.rest(ctx, done)
	if n := ran.Load(); n > 1 || !x.excused(o, err, cause) {
		x.complain("#%d: a cancelled %v comes to %v and ran %d times", o.ID, way(o.Mask), err, n)
	}
	x.count(portalCancelled)
	return 0, nil
}
