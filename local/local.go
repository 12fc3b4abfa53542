// Package local provides variables whose value belongs to the calling
// goroutine, and follows the chain of calls that the goroutine takes part in: a
// request id, a current user or an open transaction, without a parameter on
// every function in between.
//
//	var requestID = local.New[string]()
//
//	func handle(id string) {
//		defer requestID.Set(id)()
//		work() // and whatever it calls, on whatever thread: requestID.Get() is id
//	}
//
// A context.Context does this too, and is the better choice wherever there is
// one to pass. Variables are for code that has none: callbacks from cgo,
// loggers, code behind an interface that you do not own.
//
// # Who sees which value
//
//   - A goroutine started by [Go] starts with a fork of the starter's values:
//     it sees what they were at that moment, and neither sees what the other
//     sets later. The same holds for a task (package task).
//   - A call that hops to another thread through this module, in either
//     direction, and its caller see the same values, both ways. The caller is
//     blocked meanwhile, so the two are one line of execution. Values that the
//     call sets are visible to the caller when the call returns.
//   - A plain go statement starts with no values.
//   - [Capture] takes the caller's values along to a function that runs later,
//     or elsewhere.
//
// Forks, hops and captures copy one pointer, however many variables are set.
//
// A variable made with [ThreadCritical] is different. Its value belongs to the
// thread, or to the goroutine if there is no such thread, and none of the above
// applies to it.
//
// # How long values stay
//
// When a goroutine ends that this module started, with [Go] or in another
// package, its values are dropped. The module does not learn of the end of
// other goroutines. Values set there stay, as garbage of a few hundred bytes,
// until they are deleted: defer the undo function that [Var.Set] returns. When
// the last value is gone nothing is left behind. Ids of goroutines and
// variables are never reused, so a leftover value can never be seen by a later
// goroutine or through another variable.
//
// # Where it comes from
//
// The semantics are those of asgiref's Local, whose values follow sync_to_async
// and async_to_sync. The snapshot and the undo come from Python's contextvars
// (copy_context, Context.run, Token).
package local

import (
	"fmt"
	"reflect"
	"sync/atomic"

	"asyncsync.dev/internal/goroutine"
)

// A Var is a goroutine-local variable of type T. Make it with [New], usually
// once, as a package-level variable. The zero Var and a nil Var panic when
// used.
//
// All methods may be called from any goroutine, concurrently. Each call
// concerns the goroutine that makes it. Goroutines share nothing except what
// the values themselves share: a map or a pointer in a Var is the same in the
// fork as in the original.
type Var[T any] struct {
	id       uint64 // 0 only in the zero Var; never used again, even if the Var is collected
	critical bool
	exit     func(any) // if critical; may be nil
}

var lastID atomic.Uint64

// New returns a new variable, which has no value on any goroutine.
//
// It panics if the options do not fit together: OnThreadExit needs
// ThreadCritical, and a function that takes a T.
func New[T any](opts ...Option) *Var[T] {
	var c config
	for _, o := range opts {
		if o.apply != nil {
			o.apply(&c)
		}
	}
	v := &Var[T]{id: lastID.Add(1), critical: c.critical}
	if c.exit != nil {
		exit, ok := c.exit.(func(T))
		if !ok {
			panic(fmt.Sprintf("local: OnThreadExit takes a %T, but the variable needs a func(%v)", c.exit, reflect.TypeFor[T]()))
		}
		if !c.critical {
			panic("local: OnThreadExit without ThreadCritical")
		}
		v.exit = func(x any) { exit(as[T](x)) }
	}
	return v
}

// An Option configures a variable made with [New]. The zero Option does
// nothing.
type Option struct{ apply func(*config) }

type config struct {
	critical bool
	exit     any // func(T), nil if there is none
}

// ThreadCritical makes a variable whose value belongs to the thread that it is
// set on: for handles that no other thread may touch. It does not follow calls
// to other threads, is not forked and not captured.
//
// A thread, here, is what a ThreadSensitiveContext runs its calls on, with
// everything that runs there. The values end when the context gives the thread
// back. On a goroutine that is no such thread, the value belongs to that
// goroutine alone.
//
// This is asgiref's Local(thread_critical=True).
func ThreadCritical() Option {
	return Option{func(c *config) { c.critical = true }}
}

// OnThreadExit runs fn with the value of a [ThreadCritical] variable when its
// thread ends or is given back, and at the end of a goroutine started by [Go]:
// for closing a handle on the thread it was opened on. fn runs on that thread.
// Goroutines not started by this module run no exit functions.
//
// The functions of several variables run one after the other, starting with the
// variable that was set last. fn does not get a value that was replaced or
// deleted before. If fn sets a variable that has an exit function, that
// function runs too, after the others; this stops after four rounds. A panic or
// Goexit in one function does not keep the others from running.
//
// It panics if fn is nil. A variable has at most one such function: New panics
// if it is given two.
func OnThreadExit[T any](fn func(T)) Option {
	if fn == nil {
		panic("local: OnThreadExit with a nil function")
	}
	return Option{func(c *config) {
		if c.exit != nil {
			panic("local: OnThreadExit given twice")
		}
		c.exit = fn
	}}
}

// Get returns the variable's value on the calling goroutine, and whether it has one. It
// takes a few nanoseconds, whatever the number of goroutines, and does not allocate.
func (v *Var[T]) Get() (T, bool) {
	v.check()
	var (
		x  any
		ok bool
	)
	if r := goroutine.Current(); r != nil {
		if v.critical {
			x, ok = r.Critical(v.id)
		} else {
			x, ok = r.Values.Get(v.id)
		}
	}
	if !ok {
		var none T
		return none, false
	}
	return as[T](x), true
}

// Set sets the variable's value on the calling goroutine. The value is also
// visible to calls it makes, to callers that wait for it, and to forks it makes
// from now on.
//
// The returned undo function restores what this Set replaced: the earlier value
// of this variable, or none. It touches no other variables and no values set on
// other goroutines. Undo functions may be called in any order, and each one
// restores what its own Set replaced. A second call does nothing. undo may be
// called on any goroutine, and acts on the goroutine that calls it. On another
// hop of the same chain of calls that is the same variable; on an unrelated
// goroutine it is that goroutine's own. undo need not be called at all.
//
// The undo function of a [ThreadCritical] variable acts on the thread that Set
// was called on, and panics when called elsewhere. Once that thread's values
// have ended it does nothing.
func (v *Var[T]) Set(x T) (undo func()) {
	v.check()
	r := goroutine.Ensure()
	if v.critical {
		before := r.SaveCritical(v.id)
		r.SetCritical(v.id, x, v.exit)
		return undoCritical(before)
	}
	before, had := r.Values.Get(v.id)
	r.Values = r.Values.Set(v.id, x)
	return undoValue(v.id, before, had)
}

// Delete removes the variable's value on the calling goroutine. It does not run
// an OnThreadExit function.
func (v *Var[T]) Delete() {
	v.check()
	if v.critical {
		if r := goroutine.Current(); r != nil {
			r.DeleteCritical(v.id)
			r.ReleaseIfEmpty()
		}
		return
	}
	restore(v.id, nil, false)
}

func (v *Var[T]) check() {
	if v == nil || v.id == 0 {
		panic("local: use of a nil or zero Var; make it with New")
	}
}

// as is x.(T), except that it returns nil for a nil interface if T is an
// interface type.
func as[T any](x any) T {
	t, _ := x.(T)
	return t
}

func undoValue(id uint64, before any, had bool) func() {
	var done atomic.Bool
	return func() {
		if !done.Swap(true) {
			restore(id, before, had)
		}
	}
}

func undoCritical(before goroutine.SavedCritical) func() {
	var done atomic.Bool
	return func() {
		if before.Ended() {
			return
		}
		// Checked before done is set: a call from the wrong place must not use up the
		// undo.
		if !before.Here() {
			panic("local: undo of a thread-critical variable called on another thread or goroutine than its Set")
		}
		if !done.Swap(true) {
			before.Restore()
			if r := goroutine.Current(); r != nil {
				r.ReleaseIfEmpty()
			}
		}
	}
}

// restore gives one variable the value x on the calling goroutine, or none.
func restore(id uint64, x any, had bool) {
	if had {
		r := goroutine.Ensure()
		r.Values = r.Values.Set(id, x)
		return
	}
	if r := goroutine.Current(); r != nil {
		r.Values = r.Values.Delete(id)
		r.ReleaseIfEmpty()
	}
}
