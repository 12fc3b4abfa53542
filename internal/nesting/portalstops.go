package nesting

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"asyncsync.dev/loop"
	"asyncsync.dev/portal"
	"asyncsync.dev/task"
)

// A portal that is stopped while it is in use.

const opStopRace kind = "stop-race" // a portal that is stopped while it is used

var portalStopOps = []operation{
	{kind: opStopRace, run: (*run).stopRace, print: func(o *Op) string {
		return fmt.Sprintf(", closed: %v, %d senders, cancels: %d", o.Close, o.N, o.Cancel)
	}},
}

// stopRace is a portal of its own that is stopped while it is in use.
func (g *generator) stopRace(s *state) *Op {
	if s.sync != nil || s.cb >= 0 || s.loose || g.cfg.Plant {
		return nil
	}
	o := g.newOp(opStopRace)
	kind := startedBelow
	if s.loop > 0 && !s.off && g.coin(2) {
		kind = openedBelow
	}
	o.Portal = g.newPortal(kind)
	if kind == openedBelow {
		o.Portal.Loop, o.Portal.Side = s.loop, g.sides[s.loop]
	} else if o.Portal.Side = g.coin(3); o.Portal.Side {
		g.sides[o.Portal.Loop] = true
	}
	o.N = 1 + g.IntN(4)
	o.Val = g.IntN(300)
	o.Mask = uint(g.Uint32())
	o.Close = closing(g.IntN(int(closeWith) + 1))
	o.Cancel = g.IntN(2)
	return o
}

// stopRace stops a portal while many use it: who comes before it runs, who comes later
// does not, and everybody is told which it was.
func (x *run) stopRace(ctx context.Context, o *Op, a *activity) (int, error) {
	ps, err := x.openPortal(ctx, o, a)
	if err != nil {
		return 0, nil
	}
	const each = 4
	p, cause := ps.it, x.ids.causes[o.ID]
	cancels := o.Cancel == 1
	var order [][]int // by sender, touched on the loop only
	var ran = make([]atomic.Int32, o.N*each)
	var mine = make([]*bodyError, o.N*each) // unheard errors
	var mu sync.Mutex
	var senders sync.WaitGroup
	stopped := make(chan struct{})
	order = make([][]int, o.N)
	for s := range o.N {
		senders.Add(1)
		go func() {
			defer senders.Done()
			defer forget()
			for j := range each {
				i := s*each + j
				kind := way(o.Mask >> (2 * ((i * 7) % 16)) & 3)
				unheard := kind == waySoon && o.Mask>>(i%32)&1 != 0
				failure := &bodyError{-i - 1}
				f := func(ctx context.Context) (int, error) {
					ran[i].Add(1)
					if !ps.Side && kind == waySoon {
						order[s] = append(order[s], i)
					}
					task.YieldShielded(ctx)
					if unheard {
						return 0, failure
					}
					return -1, nil
				}
				v, err, accepted := -1, error(nil), false
				switch kind {
				case wayCall:
					v, err = portal.Call(ctx, p, f)
				case waySoon:
					var t *task.Task[int]
					if t, err = portal.StartSoon(p, f); err != nil {
						break
					}
					accepted = true
					if unheard {
						mu.Lock()
						mine[i] = failure
						mu.Unlock()
						continue
					}
					v, err = t.Wait(context.Background())
				case wayStartTask:
					var t *task.Task[int]
					t, _, err = portal.StartTask(ctx, p, func(ctx context.Context, started func(int) error) (int, error) {
						started(0)
						return f(ctx)
					})
					if err == nil {
						v, err = t.Wait(context.Background())
					}
				case wayWrap:
					var closing func(error) error
					_, closing, err = portal.Wrap(ctx, p, func(ctx context.Context) (int, func(context.Context, error) error, error) {
						return 0, func(ctx context.Context, _ error) error {
							_, err := f(ctx)
							return err
						}, nil
					})
					if err == nil {
						err = closing(nil)
					}
				}
				n := ran[i].Load()
				switch {
				case err == nil && v == -1 && n == 1:
					x.count(raceRan)
				case n == 0 && err == loop.ErrStopped && !accepted:
					x.count(raceRefused)
				case n == 0 && cancels && (err == loop.ErrStopped || err == error(cause)):
					x.count(raceNotBegun)
				default:
					x.complain("#%d: %v, which races with a stop: %d, %v; ran %d times, accepted: %v", o.ID, kind, v, err, n, accepted)
				}
			}
		}()
	}
	if o.Mask&1 != 0 && !ps.Side && (o.Close == shutBelow || o.Close == closeAtEnd) {
		// Most of what comes before the stop is to have come, and not begun.
		p.Loop().Post(func() { <-stopped })
	}
	waited := make(chan struct{})
	go func() {
		defer close(waited)
		if err := p.Wait(ctx); err != nil {
			x.complain("#%d: Wait for the stop: %v", o.ID, err)
		}
	}()
	var why error
	if cancels {
		why = cause
	}
	go func() {
		defer close(stopped)
		for range o.Val {
			runtime.Gosched()
		}
		switch o.Close {
		case closeBelow:
			// By the Close below.
		case closeInside:
			portal.Call(context.Background(), p, func(context.Context) (int, error) {
				if err := p.Close(why); err != loop.ErrOnLoop {
					x.complain("#%d: Close from inside: %v", o.ID, err)
				}
				return 0, nil
			})
		case closeWith:
			p.Loop().Post(func() { p.Stop(cancels) })
		default:
			p.Stop(cancels)
		}
	}()
	x.rest(ctx, stopped)
	var errs error
	x.during(a, &ps.region, func() { errs = p.Close(why) })
	x.restFor(ctx, &senders)
	x.rest(ctx, waited)
	var want []error
	for i, e := range mine {
		switch n := ran[i].Load(); {
		case e == nil:
		case n == 1:
			want = append(want, e)
			x.count(raceRan)
		case n == 0 && cancels:
			x.count(raceNotBegun)
		default:
			x.complain("#%d: what StartSoon has accepted ran %d times", o.ID, n)
		}
	}
	x.tells(o, errs, want)
	for s, is := range order {
		for k := 1; k < len(is); k++ {
			if is[k] < is[k-1] {
				x.complain("#%d: sender %d: began in the order %v", o.ID, s, is)
			}
		}
	}
	x.refusedPortal(ctx, o, p)
	return 0, nil
}
