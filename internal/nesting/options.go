package nesting

import "asyncsync.dev/asyncsync"

// Options of calls that change nothing about what they come to.

const (
	optNamed = 1 << iota
	optLong
	optInterrupt
)

// options picks some for o.
func (g *generator) options(o *Op) {
	if g.coin(4) {
		o.Options = g.IntN(8)
	}
}

// callOptions returns those that o has. The functions of calls that nobody
// cancels are not to be interrupted.
func (x *run) callOptions(o *Op) (opts []asyncsync.Option) {
	if o.Options&optNamed != 0 {
		opts = append(opts, asyncsync.Named("call"))
	}
	if o.Options&optLong != 0 {
		opts = append(opts, asyncsync.LongRunning())
	}
	if o.Options&optInterrupt != 0 && o.Kind != opQueuedCancel && o.Kind != opLoose && !o.Loose {
		opts = append(opts, asyncsync.Interrupt(func() {
			x.complain("#%d: interrupted, but its ctx has not ended", o.ID)
		}))
	}
	return opts
}
