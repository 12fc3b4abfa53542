package nesting

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/local"
)

// What belongs to a context's thread: functions that fail at its ends, taint, the value
// of a handle.

const (
	opTaint      kind = "taint"       // Taint
	opCritical   kind = "critical"    // a thread-critical variable is read and set
	opValue      kind = "value"       // Handle.Value
	opOpen       kind = "open"        // a Handle whose open or close function fails
	opStartFails kind = "start-fails" // calls to a context whose OnThreadStart fails at first
)

var threadEndOps = []operation{
	{kind: opTaint, run: (*run).taint, print: printOn},
	{kind: opCritical, run: (*run).setCritical, print: printOn},
	{kind: opValue, run: (*run).value, print: printOn},
	{kind: opOpen, run: (*run).openFails, expect: (*model).openFails, print: func(o *Op) string { return fmt.Sprintf(" %v, closing: %d", o.On, o.N) }},
	{kind: opStartFails, run: (*run).startFails, print: printOn},
}

var thread = local.New[*critical](local.ThreadCritical(), local.OnThreadExit(func(v *critical) {
	v.exited++
	if c := v.c; v != c.critical || v.exited > 1 || c.exits > 0 || !c.Unpinned && osThread() != c.tid {
		v.x.complain("the exit function of a value of %v runs for the %d. time, after OnThreadExit's: %v, on OS thread %d; should be on %d",
			c.Context, v.exited, c.exits > 0, osThread(), c.tid)
	}
}))

// leased reports whether c has a thread for as long as it is open, and no longer.
func (c *Context) leased() bool {
	return c.Kind == private || c.Kind == shared && !c.Owned || c.Kind == handle
}

// taint is something that is done to the thread itself.
func (g *generator) taint(s *state) *Op {
	k := opTaint
	if s.sync != nil && s.sync.leased() && g.coin(2) {
		k = opCritical
	}
	o := g.newOp(k)
	o.On = s.scope
	return o
}

// setCritical checks that the thread-critical variable has the value that was
// set last on the thread, and sets another.
func (x *run) setCritical(_ context.Context, o *Op, a *activity) (int, error) {
	c := a.on
	if got, _ := thread.Get(); got != c.critical {
		x.complain("#%d: the thread-critical variable is %p, should be %p", o.ID, got, c.critical)
	}
	c.critical = &critical{x: x, c: c}
	thread.Set(c.critical)
	return 0, nil
}

// taint has the thread of ctx's context destroyed, which nobody may get then.
func (x *run) taint(ctx context.Context, o *Op, _ *activity) (int, error) {
	asyncsync.Taint(ctx)
	if o.On == nil || o.On.Root.Unpinned {
		return 0, nil
	}
	// A context that may have been closed may have given the thread back before.
	if c := x.contexts[o.On.Root.ID]; o.On.Root.leased() && !c.early.Load() {
		c.tainted.Store(true)
	}
	return 0, nil
}

// value asks for the value of a handle that s can name.
func (g *generator) value(s *state) *Op {
	for _, c := range slices.Backward(s.reach) {
		if c.Kind == handle {
			o := g.newOp(opValue)
			o.On = c
			return o
		}
	}
	return nil
}

// value asks for a handle's value.
func (x *run) value(_ context.Context, o *Op, a *activity) (int, error) {
	c := x.contexts[o.On.ID]
	v, err := c.handle.Value()
	switch {
	case a.on == c && v == c && err == nil:
	case a.on != c && v == nil && errors.Is(err, asyncsync.ErrWrongThread):
	default:
		x.complain("#%d: the value is %p, %v; is %p, and asked for on its thread: %v", o.ID, v, err, c, a.on == c)
	}
	return 0, nil
}

// open is a handle whose open or close function may fail.
func (g *generator) open(s *state) *Op {
	o := g.newOp(opOpen)
	o.On = g.context(handle, g.rank(s), nil)
	g.flavour(o.On)
	s.touch(o.On.rank - epsilon)
	f := s.on(o.On)
	f.goexit = false
	o.Body = g.leaf(f)
	o.N = g.IntN(int(endGoexit))
	return o
}

// openFails opens a handle and closes it.
func (x *run) openFails(ctx context.Context, o *Op, a *activity) (v int, err error) {
	c := &contextState{Context: o.On}
	x.contexts[o.On.ID] = c
	w := x.child(a, o.Body)
	open := x.function(o.Body, w, nil, nil)
	cause := x.ids.causes[o.ID]
	closes, opened, returned := 0, false, false
	defer func() {
		// A Goexit on top of the Close in Open's unwinding cuts that short: the
		// value is closed later then.
		cut := x.exits && !returned
		if !cut && opened != (closes == 1) {
			x.complain("#%d: opened: %v, closed %d times", o.ID, opened, closes)
		}
		if !o.Loose {
			x.over(c)
		}
	}()
	x.during(a, w, func() {
		c.handle, err = asyncsync.Open(ctx, func(ctx context.Context) (*contextState, error) {
			defer func() {
				if !opened {
					x.closed(c) // the thread goes now
				}
			}()
			v, err = open(ctx)
			opened = err == nil
			return c, err
		}, func(*contextState) error {
			closes++
			x.closed(c) // a Goexit on top of Open has it give the thread back
			switch ending(o.N) {
			case endError:
				return cause
			case endPanic:
				panic(cause)
			}
			return nil
		}, x.options(c)...)
	})
	if err == nil {
		x.closed(c)
		x.during(a, &activity{}, func() { err = c.handle.Close() })
	}
	returned = true
	return 0, err
}

func (m *model) openFails(o *Op, v *Values) Outcome {
	if out := m.body(o.Body, v); out.Kind != endReturn {
		return out
	}
	switch ending(o.N) {
	case endError:
		return m.cancelled(o, v)
	case endPanic:
		return Outcome{Kind: endPanic, Panic: m.ids.causes[o.ID]}
	}
	return Outcome{}
}

// startFails is a context whose OnThreadStart panics at first.
func (g *generator) startFails(s *state) *Op {
	o := g.newOp(opStartFails)
	o.On = g.context(private, g.rank(s), nil)
	g.flavour(o.On)
	o.On.Ends, o.On.Exits = false, false
	s.touch(o.On.rank - epsilon)
	o.N = g.IntN(3)
	return o
}

// startFails calls it until it does not fail any more: the first calls end as
// OnThreadStart does, the next are the first.
func (x *run) startFails(ctx context.Context, o *Op, a *activity) (int, error) {
	cause := x.ids.causes[o.ID]
	c := &contextState{Context: o.On}
	x.contexts[o.On.ID] = c
	starts, exits, ran, returned := 0, 0, 0, false
	opts := append(x.options(c), asyncsync.OnThreadStart(func() {
		if starts++; starts <= o.N {
			panic(cause)
		}
	}), asyncsync.OnThreadExit(func() { exits++ }))
	_, c.tsc = asyncsync.NewThreadSensitiveContext(asyncsync.Detach(ctx), opts...)
	defer func() { // also when this ends by Goexit
		if !returned {
			c.early.Store(true) // a task whose wait the Goexit has ended may still begin there
		}
		x.closed(c)
		x.during(a, &activity{}, func() {
			if err := c.tsc.Close(); err != nil {
				x.complain("#%d: Close: %v", o.ID, err)
			}
		})
		if !o.Loose && (starts != o.N+1 || ran != 2 || exits != 1) {
			x.complain("#%d: OnThreadStart ran %d times, should be %d; %d calls ran, should be 2; OnThreadExit ran %d times", o.ID, starts, o.N+1, ran, exits)
		}
	}()
	o = &Op{ID: o.ID, Kind: o.Kind, Target: named, On: o.On, Bursting: Bursting{N: o.N}, Loose: o.Loose}
	for i := range o.N + 2 {
		f, w := x.probe(o, a, func(context.Context) (int, error) {
			ran++
			return -1, nil
		})
		var out Outcome
		x.during(a, w, func() {
			capture(&out, func() (int, error) {
				if i%2 == 1 {
					return x.queue(ctx, o, f).WaitOrCancel(ctx)
				}
				return x.call(ctx, o, f)
			})
		})
		switch {
		case out.Kind == endPanic && out.Panic == any(cause):
		case out.Kind == endReturn && out.Val == -1:
		case out.Kind == endError && x.excused(o, out.Err, nil):
		default:
			x.complain("#%d: call %d: %v", o.ID, i, out)
		}
	}
	returned = true
	return 0, nil
}
