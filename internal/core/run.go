package core

import (
	"runtime/trace"

	"asyncsync.dev/internal/goroutine"
)

// run calls c's function on the calling goroutine, with all that belongs to it: its
// hooks, the trace, the interrupt function. It returns when the function has ended,
// however, and has noted that in c.ending. A hook that panics, or calls Goexit, passes
// through, and the caller must see to that.
//
// own is the thread that it runs on, nil off the threads. raised is where this
// goroutine notes what panic it raises again, nil if nowhere. critical, if not nil,
// has thread-critical values that end with the function. starts, if not nil, is a lease
// that begins with the function.
//
// Tasks of a thread loop are the exception: their coroutine calls the function itself,
// and a deferred function of ours would lie on the stack of each that waits. See
// [Job.Begin] and [Job.Over].
func (c *Call) run(own *Thread, raised **Panic, critical *goroutine.Record, starts *lease) {
	returned := false
	defer func() {
		if !returned {
			// After a Goexit the goroutine goes on unwinding from here.
			var p *Panic
			if raised != nil {
				p = *raised
			}
			c.ending = recovered(recover(), p)
		}
		if c.stop != nil {
			c.stop.end(&c.ending)
		}
		if critical != nil {
			endCritical(critical, &c.ending)
		}
		c.tellEnded(own)
	}()
	if starts != nil {
		starts.start(own)
	}
	c.tellStarted(own)
	if c.stop != nil {
		c.stop.arm(c.ctx, own)
	}
	if trace.IsEnabled() && (own != nil || c.inline) {
		c.traced(own)
	} else {
		c.body.Run(c.ctx)
	}
	returned = true
}

func (c *Call) traced(t *Thread) {
	ctx, task := trace.NewTask(c.ctx, c.Name())
	defer task.End()
	defer trace.StartRegion(ctx, t.label()).End()
	c.body.Run(c.ctx)
}
