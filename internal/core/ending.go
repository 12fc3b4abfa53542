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

// Recover turns what recover returned in a deferred function into an Ending: for
// functions that others than this package run. One that neither returned nor
// panicked has called Goexit. The deferred function must be the caller, or have
// called it, or the stack is cut short.
func Recover(r any) Ending { return ending.Of(r, raisedHere()) }

// raisedHere returns the panic that the calling goroutine has raised again last, nil if
// that is not known: see [ending.Of].
func raisedHere() any {
	if slot := raisedSlot(); slot != nil {
		return *slot
	}
	return nil
}

// raisedSlot returns where the calling goroutine keeps the panic that it is
// about to raise again, nil where nobody of ours would catch it.
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
// ended. If that fails it is how the function has ended.
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
