package nesting

import (
	"sync"
	"sync/atomic"

	"asyncsync.dev/asyncsync"
)

// Options of calls.

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
	if o.Options&optInterrupt != 0 && !o.cancels() {
		opts = append(opts, asyncsync.Interrupt(func() {
			x.complain("#%d: interrupted, but its ctx has not ended", o.ID)
		}))
	}
	return opts
}

// cancels reports whether o may end the ctx of a call of its own.
func (o *Op) cancels() bool {
	switch o.Kind {
	case opCancelBefore, opCancelQueued, opCancelRunning, opCancelFrom, opCancelRace, opAbandon, opAbandonFrom,
		opTaskCancel, opQueuedCancel, opLoose:
		return true
	}
	return o.Loose
}

// An interruption checks when the function of asyncsync.Interrupt is called.
type interruption struct {
	x            *run
	o            *Op
	began, ended atomic.Bool
	once         sync.Once
	fired        chan struct{}
}

// interruption returns the check, and the option, for a call that is cancelled
// while its function runs.
func (x *run) interruption(o *Op) (*interruption, asyncsync.Option) {
	i := &interruption{x: x, o: o, fired: make(chan struct{})}
	return i, asyncsync.Interrupt(func() {
		if !i.began.Load() {
			x.complain("#%d: interrupted before its function has begun", o.ID)
		}
		if i.ended.Load() {
			x.complain("#%d: interrupted after the call has ended", o.ID)
		}
		i.once.Do(func() { close(i.fired) })
	})
}

// over is called when the call has returned, or the task's outcome is known.
func (i *interruption) over() { i.ended.Store(true) }
