package nesting

import (
	"context"
	"errors"

	"asyncsync.dev/asyncsync"
)

// What belongs to a context's thread: functions at its ends, taint, the value of
// a handle.

// ends returns options that check when functions at the ends of c's thread run.
func (x *run) ends(c *contextState) []asyncsync.ContextOption {
	if !c.Ends {
		return nil
	}
	at := func(what string) {
		if tid := osThread(); !c.Unpinned && c.Pool < 0 && c.tid != 0 && tid != c.tid {
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

// over is called when c has been closed and nothing is left of it.
func (x *run) over(c *contextState) {
	if c.Kind == nested || c.Pool >= 0 {
		return // others may have the thread still
	}
	if c.starts != c.exits {
		x.complain("%v: OnThreadStart ran %d times, OnThreadExit %d times", c.Context, c.starts, c.exits)
	}
}

// taint has the thread of ctx's context destroyed, which nobody may get then.
func (x *run) taint(ctx context.Context, o *Op) {
	asyncsync.Taint(ctx)
	if o.On == nil || o.On.Root.Pool >= 0 || o.On.Root.Unpinned {
		return
	}
	switch o.On.Root.Kind {
	case private, shared, handle:
		x.contexts[o.On.Root.ID].tainted.Store(true)
	}
}

// value asks for a handle's value.
func (x *run) value(o *Op, a *activity) {
	c := x.contexts[o.On.ID]
	v, err := c.handle.Value()
	switch {
	case a.on == c && v == c && err == nil:
	case a.on != c && v == nil && errors.Is(err, asyncsync.ErrWrongThread):
	default:
		x.complain("#%d: the value is %p, %v; is %p, and asked for on its thread: %v", o.ID, v, err, c, a.on == c)
	}
}

// handleIn returns a handle that s can name, or nil.
func (g *generator) handleIn(s *state) *Context {
	for i := len(s.reach) - 1; i >= 0; i-- {
		if s.reach[i].Kind == handle {
			return s.reach[i]
		}
	}
	return nil
}
