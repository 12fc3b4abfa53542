package core

import (
	"asyncsync.dev/internal/ending"
	"asyncsync.dev/internal/goroutine"
)

// Raise ends the calling function as e says, unless that is a return: see
// [ending.Ending.Raise].
func Raise(e Ending) {
	if !e.Returned() {
		e.Raise(raisedSlot())
	}
}

// Recover turns r, which recover has returned in a deferred function, into an
// Ending. Packages above core use it for functions that they run themselves. A
// function that neither returned nor panicked has called Goexit. Call Recover in
// the deferred function or in a function that it calls; otherwise the stack of a
// panic is cut short.
func Recover(r any) Ending { return ending.Of(r, raisedHere()) }

// raisedHere returns the panic that the calling goroutine has most recently raised
// again, or nil if none is known: see [ending.Of].
func raisedHere() any {
	if slot := raisedSlot(); slot != nil {
		return *slot
	}
	return nil
}

// raisedSlot returns where the calling goroutine keeps the panic that it is
// about to raise again. It returns nil if no function of this module would
// catch the panic.
func raisedSlot() *any {
	own, rec := current()
	switch {
	case own != nil:
		return &own.raised
	case rec != nil && rec.Node != nil:
		return &rec.Raised
	}
	return nil
}

// endCritical ends the thread-critical values of a goroutine whose function has
// ended. If an exit function fails and the function has returned, that failure
// becomes the ending of the function.
func endCritical(rec *goroutine.Record, e *Ending) {
	rec.EndCritical(func(v any, goexit bool, stack []byte) {
		if e.Returned() {
			*e = Ending{Goexit: goexit}
			if !goexit {
				e.Panic = &Panic{Value: v, Stack: stack}
			}
		}
	})
}
