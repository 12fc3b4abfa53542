// Package ending has the three ways in which a function ends: it returns, it panics, or
// it calls runtime.Goexit. It records how a function ended on one goroutine, and ends
// another goroutine's function in the same way.
//
// It knows nothing of threads and calls. A deferred function asks [Of] how the function
// ended, and the one who waits calls [Ending.Raise].
package ending

import (
	"bytes"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"sync/atomic"
	"unsafe"
)

// An Ending is how a function ended. The zero value is a return.
type Ending struct {
	Panic  *Panic
	Goexit bool
}

// A Panic is a panic on its way from the goroutine where it happened to the
// one that waits. The stack is taken once, at the origin.
type Panic struct {
	Value any
	Stack []byte

	told atomic.Bool // First was asked

	// loss is what is said if nobody ever hears of it; nil unless that may be. It is
	// set before the ending is shared.
	loss *loss
}

// A loss is a panic of a function that nobody has waited for, yet. It is apart from the
// Panic, because it is told of when that has been collected.
type loss struct {
	told atomic.Bool // somebody has heard of it
	text string
}

// First reports whether this is the first call of First. The first caller tells the
// hooks.
func (p *Panic) First() bool { return !p.told.Swap(true) }

// Returned reports whether the function came back by itself.
func (e Ending) Returned() bool { return e.Panic == nil && !e.Goexit }

// Raise ends the calling function the same way, unless that is a return. slot, if it is
// not nil, is where the goroutine keeps the panic that it has raised last: see Of.
//
// Call Raise from the body of the function that waited, not from a deferred function: a
// panic raised anew while another unwinds keeps all the stacks below it alive, and its
// cost grows with every level. (A panic that was recovered from under a Goexit is the
// exception: nothing but a deferred function is left to raise it.)
//
// A panic that nobody recovers ends the process, and all that is printed then is what
// the runtime knows: the value, and the stack of the goroutine that waited. So the
// value is raised on top of another panic, whose text is the stack of the origin. Code
// that recovers gets the value, and the panic below it is gone. If no code recovers, the
// runtime prints both: it prints all panics that are under way, in the order in which
// they began, and asks none for its text before it is certain that the process ends. A
// value that wraps the other would change what recover returns. Printing the stack here
// would print it for panics that are recovered, too.
func (e Ending) Raise(slot *any) {
	switch {
	case e.Panic != nil:
		if slot != nil {
			*slot = e.Panic
		}
		e.Panic.Heard()
		defer e.Panic.raise()
		panic((*origin)(e.Panic))
	case e.Goexit:
		runtime.Goexit()
	}
}

// raise raises the value.
//
//go:noinline
func (p *Panic) raise() { panic(p.Value) }

// raise is the name of that in a stack.
var raise = runtime.FuncForPC(reflect.ValueOf((*Panic).raise).Pointer()).Name()

// An origin is a Panic that says where it began.
type origin Panic

// Error is called by the runtime, when the process is about to end.
func (o *origin) Error() string {
	return "the panic below began elsewhere, and its caller was told; it began at:\n" + string(o.Stack)
}

// MayBeLost has p told of on standard error when nobody can hear of it any more. name
// is that of the task. The text is made now: the value may refer to whatever keeps p.
func (p *Panic) MayBeLost(name string) {
	if p.loss == nil {
		p.loss = &loss{text: p.Report("task " + name + ", which nobody has waited for,")}
		runtime.AddCleanup(p, (*loss).tell, p.loss)
	}
}

// Heard says that somebody is told.
func (p *Panic) Heard() {
	if p.loss != nil {
		p.loss.told.Store(true)
	}
}

func (l *loss) tell() {
	if !l.told.Load() {
		os.Stderr.WriteString(l.text)
	}
}

// Report returns the text that is written about p if nobody is told of it. what names the
// function that panicked.
func (p *Panic) Report(what string) string {
	return fmt.Sprintf("asyncsync: %s panicked: %v\n\n%s\n", what, p.Value, p.Stack)
}

// Of turns what recover returned in a deferred function, which must be
// the caller, into an Ending. A function that neither returned nor panicked has
// called Goexit.
//
// raised is the panic last raised by Raise on this goroutine, a *Panic, or nil: if it is
// the one that arrives here, the stack of its origin is kept. It is another one if a
// deferred function has raised it, and recovered from it, while this one was under way.
func Of(r, raised any) Ending {
	if r == nil {
		return Ending{Goexit: true}
	}
	if p, ok := raised.(*Panic); ok && same(p.Value, r) && raisedAnew() {
		return Ending{Panic: p}
	}
	return Ending{Panic: New(r)}
}

// New returns a panic with the value v, whose stack is the one of the caller's callers,
// from the one that panicked on.
func New(v any) *Panic { return &Panic{Value: v, Stack: stack()} }

// same reports whether a and b are one value: the same type, and the same data, which need
// not be comparable.
func same(a, b any) bool {
	return *(*[2]unsafe.Pointer)(unsafe.Pointer(&a)) == *(*[2]unsafe.Pointer)(unsafe.Pointer(&b))
}

// stack returns the caller's callers, from the one that panicked on, in the
// form of runtime.Stack. It is bounded: below a function may lie a long
// nesting, or what Goexits have left behind.
func stack() []byte {
	var pcs [64]uintptr
	n := runtime.Callers(4, pcs[:])
	var b bytes.Buffer
	frames := runtime.CallersFrames(pcs[panicked(pcs[:n]):n])
	for {
		f, more := frames.Next()
		fmt.Fprintf(&b, "%s()\n\t%s:%d\n", f.Function, f.File, f.Line)
		if !more {
			break
		}
	}
	if n == len(pcs) {
		b.WriteString("...\n")
	}
	return b.Bytes()
}

// raisedAnew reports whether the panic that is being recovered comes from
// Raise. That a value equals the one last raised would not tell: programs panic
// with the same value twice. The stack does: the function that panicked is
// right below the runtime's part of it.
func raisedAnew() bool {
	var pcs [deferred + 2]uintptr
	n := runtime.Callers(3, pcs[:])
	at := panicked(pcs[:n]) + 1
	// Neither function is inlined, so that the entry of a pc is enough.
	return at < n && runtime.FuncForPC(pcs[at]-1).Name() == raise
}

// deferred is how many functions may lie above the runtime's part of a panic: the
// deferred function, and what that has called to look at the stack.
const deferred = 12

// panicked returns where in a stack the runtime's part of the panic begins; 0 if
// that is not near the top.
func panicked(pcs []uintptr) int {
	for i, pc := range pcs[:min(deferred, len(pcs))] {
		if runtime.FuncForPC(pc-1).Name() == "runtime.gopanic" {
			return i
		}
	}
	return 0
}
