package core

import (
	"cmp"
	"context"
	"os"
)

// Recover turns what recover returned in a deferred function into an Ending: for
// functions that others than this package run. One that neither returned nor
// panicked has called Goexit. The deferred function must be the caller, or have
// called it, or the stack is cut short.
func Recover(r any) Ending {
	if r == nil {
		return Ending{Goexit: true}
	}
	if p, ok := raisedHere().(*Panic); ok && same(p.Value, r) && raisedAnew() {
		return Ending{Panic: p}
	}
	return Ending{Panic: &Panic{Value: r, Stack: stack()}}
}

// Unheard tells the hooks of a panic or a Goexit that nobody waits for. A panic that no
// hook hears of is written to standard error.
func (e Ending) Unheard(ctx context.Context, name string) {
	e.count()
	i := CallInfo{Ctx: ctx, Name: name, Begun: true, Goexit: e.Goexit}
	a := audienceOf(ScopeOf(ctx))
	switch {
	case e.Panic != nil && !a.wants(kindPanicked):
		os.Stderr.WriteString(e.Panic.unheard(cmp.Or(name, "a posted function") + ", for which nobody waits,"))
	case e.Panic != nil:
		e.Panic.tellAll(i, a)
	case e.Goexit && a.wants(kindEnded):
		a.tell(kindEnded, i)
	}
}
