package local

import "asyncsync.dev/internal/goroutine"

// Go runs fn on a new goroutine that starts with a fork of the caller's values
// at the moment of the call. [ThreadCritical] variables have no value there.
//
// When fn ends, in whatever way, the exit functions of thread-critical
// variables that it has set run on its goroutine (see [OnThreadExit]), and its
// values are dropped. Otherwise fn runs as under a go statement: nothing waits
// for it, and a panic in it, or in an exit function, ends the program.
//
// If fn is nil, Go panics on the caller's goroutine.
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

// A Snapshot holds the values that the variables of one goroutine had at one
// moment. It is immutable. It may be copied, kept, and used from any goroutine,
// any number of times, concurrently. The zero Snapshot holds no values.
type Snapshot struct {
	values goroutine.Values
}

// Capture returns the values of the calling goroutine, for a function that will
// run later or on a goroutine that somebody else starts. [ThreadCritical]
// variables are not included. It costs a few nanoseconds, however many
// variables are set.
func Capture() Snapshot {
	return Snapshot{values()}
}

// Run calls fn on the calling goroutine, with the values of the snapshot in
// place of the goroutine's own. When fn ends, by returning, by a panic or by
// [runtime.Goexit], the goroutine has its own values again; what fn has set is
// dropped. Each Run starts with the values as captured. ThreadCritical
// variables remain those of the thread.
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

// swap sets the values of the calling goroutine to v and returns the previous
// ones.
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
