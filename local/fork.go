package local

import "asyncsync.dev/internal/goroutine"

// Go runs fn on a new goroutine that starts with a fork of the caller's values: those of
// the moment of the call. [ThreadCritical] variables have no value there.
//
// When fn ends, the exit functions of thread-critical variables that it has set run on
// its goroutine (see [OnThreadExit]), and its values are dropped. This happens however fn
// ends. In all else fn ends as under a go statement: nobody waits for it, and a panic in
// it, or in an exit function, ends the program.
//
// It panics if fn is nil, on the caller's goroutine.
func Go(fn func()) {
	if fn == nil {
		panic("local: Go with a nil function")
	}
	go run(values(), fn)
}

func run(v goroutine.Values, fn func()) {
	if v != (goroutine.Values{}) {
		goroutine.Ensure().Values = v
	}
	// The record is looked up again at the end: fn may have made or replaced it.
	defer func() {
		if r := goroutine.Current(); r != nil {
			defer r.Release()
			r.EndCritical(nil)
		}
	}()
	fn()
}

// A Snapshot holds the values that the variables of one goroutine had at one moment. It
// is immutable and may be copied, kept, and used from any goroutine, any number of times,
// also at the same time. The zero Snapshot holds no values.
type Snapshot struct {
	values goroutine.Values
}

// Capture returns the values of the calling goroutine, for a function that will run later
// or on a goroutine that somebody else starts. [ThreadCritical] variables are not in it.
// It costs the same, a few nanoseconds, however many variables are set.
func Capture() Snapshot {
	return Snapshot{values()}
}

// Run calls fn on the calling goroutine, with the values of the snapshot in place of the
// goroutine's own. When fn ends, by returning, by a panic or by [runtime.Goexit], the
// goroutine has its own values again, as they were before; what fn has set is dropped.
// Each Run starts with the snapshot's values as captured. ThreadCritical variables are as
// ever those of the thread.
//
// It panics if fn is nil.
func (s Snapshot) Run(fn func()) {
	if fn == nil {
		panic("local: Run with a nil function")
	}
	before := swap(s.values)
	defer swap(before)
	fn()
}

// values returns the values of the calling goroutine.
func values() goroutine.Values {
	if r := goroutine.Current(); r != nil {
		return r.Values
	}
	return goroutine.Values{}
}

// swap gives the calling goroutine the values v, and returns those it had.
func swap(v goroutine.Values) (before goroutine.Values) {
	r := goroutine.Current()
	if r == nil {
		if v == (goroutine.Values{}) {
			return v
		}
		r = goroutine.Ensure()
	}
	before, r.Values = r.Values, v
	r.ReleaseIfEmpty()
	return before
}
