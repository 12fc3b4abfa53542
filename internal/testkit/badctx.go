package testkit

import (
	"context"
	"sync/atomic"
)

// A BadCtx ends whoever asks it for its Done as the function does that Set was given, and
// with All whoever asks it for its error or a value, too. The ctxs of some web frameworks
// are like that when their request is over.
type BadCtx struct {
	context.Context
	All bool

	end atomic.Pointer[func()]
}

// Set makes the ctx bad, or good again if end is nil.
func (c *BadCtx) Set(end func()) {
	if end == nil {
		c.end.Store(nil)
	} else {
		c.end.Store(&end)
	}
}

func (c *BadCtx) ask() {
	if end := c.end.Load(); end != nil {
		(*end)()
	}
}

func (c *BadCtx) Done() <-chan struct{} {
	c.ask()
	return c.Context.Done()
}

func (c *BadCtx) Err() error {
	if c.All {
		c.ask()
	}
	return c.Context.Err()
}

func (c *BadCtx) Value(key any) any {
	if c.All {
		c.ask()
	}
	return c.Context.Value(key)
}
