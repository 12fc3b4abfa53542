package loop

import (
	"context"

	"asyncsync.dev/internal/core"
)

// A taskCtx is the ctx of a task: it ends with the ctx that the task was started
// with, and with the backend.
type taskCtx struct {
	context.Context // ends with the backend too, unless it never ends by itself

	life  context.Context // of the backend; nil if Context ends with that
	above context.Context // what the task was started with
	loop  Loop
}

type ctxKey struct{}

// init makes c a ctx below above. The caller must call cancel, if it is not nil,
// when the task has ended, and with ErrStopped when the backend stops.
//
// Most tasks of most programs are started with a ctx that never ends, and then
// the backend's own life is all there is to watch.
func (c *taskCtx) init(above context.Context, l Loop, life context.Context) (cancel context.CancelCauseFunc) {
	core.UseLoops()
	c.above, c.loop = above, l
	if p, ok := above.(*taskCtx); ok && p.life != nil && p.life == life {
		c.Context, c.life = p.Context, life // a call below a task of the same backend
		return nil
	}
	if above.Done() == nil && life != nil {
		c.Context, c.life = above, life
		return nil
	}
	c.Context, cancel = context.WithCancelCause(above)
	return cancel
}

// from returns the nearest taskCtx in ctx, or nil.
func from(ctx context.Context) *taskCtx {
	if c, ok := ctx.(*taskCtx); ok {
		return c
	}
	c, _ := ctx.Value(ctxKey{}).(*taskCtx)
	return c
}

// outlive returns ctx, or what is above it if it is a task's very own: a task
// that is started with that does not end because the other one does.
func outlive(ctx context.Context) context.Context {
	if c, ok := ctx.(*taskCtx); ok {
		return c.above
	}
	return ctx
}

// Done implements [context.Context].
func (c *taskCtx) Done() <-chan struct{} {
	if c.life != nil {
		return c.life.Done()
	}
	return c.Context.Done()
}

// Err implements [context.Context].
func (c *taskCtx) Err() error {
	if c.life != nil {
		return c.life.Err()
	}
	return c.Context.Err()
}

// Value implements [context.Context]. What ends, and why, is asked of life first:
// that knows nothing else.
func (c *taskCtx) Value(key any) any {
	if key == (ctxKey{}) {
		return c
	}
	if c.life != nil {
		if v := c.life.Value(key); v != nil {
			return v
		}
	}
	return c.Context.Value(key)
}

func checkCtx(ctx context.Context, what string) {
	if ctx == nil {
		panic("loop: " + what + " with a nil ctx")
	}
}
