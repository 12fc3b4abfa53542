package goroutine

import (
	"errors"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync/atomic"
)

// criticals holds the thread-critical values of one thread, or of one ordinary goroutine,
// from when they are first set, saved or shared until EndCritical. It belongs to that thread like the record
// does; home and ended alone may be read by others.
type criticals struct {
	home   atomic.Int64 // the goroutine whose EndCritical ends this; 0 between GiveAway and Adopt
	ended  atomic.Bool  // set once, by EndCritical
	values map[uint64]*criticalValue
	exits  int    // values with an exit function
	seq    uint64 // of the latest Set
}

type criticalValue struct {
	x    any
	exit func(any) // may be nil
	seq  uint64    // grows with every Set: the exit functions run from high to low
}

// criticals returns r's, and makes them if there are none.
func (r *Record) criticals() *criticals {
	if r.critical == nil {
		r.critical = &criticals{values: make(map[uint64]*criticalValue)}
		r.critical.home.Store(r.ID)
	}
	return r.critical
}

// Critical returns the thread-critical value of id and whether there is one.
func (r *Record) Critical(id uint64) (any, bool) {
	if r.critical == nil {
		return nil, false
	}
	v := r.critical.values[id]
	if v == nil {
		return nil, false
	}
	return v.x, true
}

// SetCritical sets the thread-critical value of id. The exit function, if not nil, gets
// the value when EndCritical ends the thread's critical values; it is not run for a value
// that is replaced or deleted before.
func (r *Record) SetCritical(id uint64, x any, exit func(any)) {
	c := r.criticals()
	c.seq++
	c.put(id, criticalValue{x: x, exit: exit, seq: c.seq})
}

// DeleteCritical deletes the thread-critical value of id. Its exit function is not run.
func (r *Record) DeleteCritical(id uint64) {
	if r.critical != nil {
		r.critical.del(id)
	}
}

// HasCritical reports whether there is a thread-critical value.
func (r *Record) HasCritical() bool {
	return r.critical != nil && len(r.critical.values) > 0
}

// NeedsExit reports whether there is a thread-critical value with an exit function, so
// that EndCritical has something to run.
func (r *Record) NeedsExit() bool {
	return r.critical != nil && r.critical.exits > 0
}

// ShareCritical gives r, the record of a coroutine that runs on from's thread, the
// thread-critical values of from: both see and set the same ones from now on. Only from
// may EndCritical, after the coroutine has ended.
func (r *Record) ShareCritical(from *Record) {
	r.critical = from.criticals()
}

// SharesCritical reports whether r's thread-critical values are another record's:
// see ShareCritical.
func (r *Record) SharesCritical() bool {
	return r.critical != nil && r.critical.home.Load() != r.ID
}

func (c *criticals) put(id uint64, v criticalValue) {
	c.del(id)
	c.values[id] = &v
	if v.exit != nil {
		c.exits++
	}
}

func (c *criticals) del(id uint64) {
	v := c.values[id]
	if v == nil {
		return
	}
	if v.exit != nil {
		c.exits--
	}
	delete(c.values, id)
}

// A SavedCritical is what one thread-critical variable was at some moment: a value or
// none.
type SavedCritical struct {
	id  uint64
	of  *criticals
	had bool
	v   criticalValue // if had
}

// SaveCritical returns the current state of the thread-critical variable id.
func (r *Record) SaveCritical(id uint64) SavedCritical {
	s := SavedCritical{id: id, of: r.criticals()}
	if v := s.of.values[id]; v != nil {
		s.had, s.v = true, *v
	}
	return s
}

// Ended reports whether the thread's critical values were ended since s was saved, so
// that there is nothing to restore any more. Any goroutine may call it.
func (s SavedCritical) Ended() bool { return s.of.ended.Load() }

// Here reports whether the caller runs on the thread, or goroutine, that s was saved on.
func (s SavedCritical) Here() bool {
	if r := Current(); r != nil && r.critical != nil {
		return r.critical.home.Load() == s.of.home.Load()
	}
	// The record may have been released because its last value was deleted; it is still
	// the same goroutine.
	return ID() == s.of.home.Load()
}

// Restore makes the variable what it was when s was saved. It must be called where Here
// is true. A restored value has its old place in the order of exit functions.
func (s SavedCritical) Restore() {
	if !s.had {
		if r := Current(); r != nil {
			r.DeleteCritical(s.id)
		}
		return
	}
	c := Ensure().criticals()
	v := s.v
	if c != s.of {
		c.seq++ // another count: the old number means nothing in it
		v.seq = c.seq
	}
	c.put(s.id, v)
}

// ErrExitLoop is given to the failed function of EndCritical when exit functions kept
// setting values with exit functions, pass after pass. The last ones are forgotten
// without having their exit functions run.
var ErrExitLoop = errors.New("goroutine: exit functions kept setting thread-critical values; the last were dropped")

// maxPasses is how many passes EndCritical makes, the first included. It is
// PTHREAD_DESTRUCTOR_ITERATIONS, and for the same reason.
const maxPasses = 4

// EndCritical ends the thread's critical values: it runs the exit functions, the one of
// the value set last first, each once, on the calling goroutine, and then forgets all
// values. It must be called on r's goroutine; only where NeedsExit is false, so that there
// is nothing to run, may another goroutine call it that has r to itself meanwhile.
//
// A value is deleted right before its exit function gets it. Those not yet reached, and
// those without an exit function, can still be read by exit functions. A value that an
// exit function sets is ended in a further pass, after all values of this one; after four
// passes what is left is forgotten, and reported with [ErrExitLoop].
//
// No exit function keeps the others from running:
//
//   - A panic is recovered, and given to failed with its value and stack.
//   - A [runtime.Goexit] is given to failed with goexit true. It cannot be stopped: the
//     remaining exit functions run in a function deferred on the unwinding stack, and
//     EndCritical does not return. The caller's deferred functions run next, then the
//     goroutine ends, and with it an OS thread it is locked to. So a caller that has
//     anything to do after EndCritical must do it in a deferred function, and one that
//     needs to know learns of it there: through failed, or because EndCritical has not
//     returned.
//
// If failed is nil nothing is recovered: a panic goes on to the caller, as it would from
// one of several deferred functions, after the remaining exit functions have run. If
// failed itself panics the same happens.
//
// EndCritical may be called in a deferred function while the goroutine panics or exits,
// which it then goes on to do. As with every deferred function, a Goexit in an exit
// function replaces a panic that is under way.
func (r *Record) EndCritical(failed func(panicValue any, goexit bool, stack []byte)) {
	c := r.critical
	if c == nil {
		return
	}
	defer func() {
		c.ended.Store(true)
		clear(c.values)
		c.exits = 0
		r.critical = nil
	}()
	e := ending{c: c, failed: failed}
	e.run()
}

// ending is one EndCritical under way.
type ending struct {
	c      *criticals
	failed func(panicValue any, goexit bool, stack []byte)
	passes int
	limit  uint64   // values set after this one belong to the next pass
	pass   []uint64 // ids left in this pass, in order
}

func (e *ending) run() {
	for {
		v, ok := e.next()
		if !ok {
			return
		}
		e.call(v)
	}
}

// next takes out the value whose exit function runs next.
func (e *ending) next() (v criticalValue, ok bool) {
	for {
		for len(e.pass) > 0 {
			id := e.pass[0]
			e.pass = e.pass[1:]
			// By now it may have been deleted, or set again.
			v := e.c.values[id]
			if v == nil || v.exit == nil || v.seq > e.limit {
				continue
			}
			e.c.del(id)
			return *v, true
		}
		if e.c.exits == 0 {
			return v, false
		}
		if e.passes == maxPasses {
			e.giveUp()
			return v, false
		}
		e.passes++
		e.limit = e.c.seq
		e.pass = e.c.inExitOrder()
	}
}

func (c *criticals) inExitOrder() []uint64 {
	ids := make([]uint64, 0, c.exits)
	for id, v := range c.values {
		if v.exit != nil {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b uint64) int {
		if c.values[a].seq > c.values[b].seq {
			return -1
		}
		return 1
	})
	return ids
}

// giveUp drops what is left, and then reports it, because failed may panic.
func (e *ending) giveUp() {
	n := e.c.exits
	clear(e.c.values)
	e.c.exits = 0
	if e.failed != nil {
		e.failed(ErrExitLoop, false, nil)
		return
	}
	slog.Warn("asyncsync: "+ErrExitLoop.Error(), "dropped", n)
}

// call runs one exit function. If that does not return, the rest is run from here, at the
// end of the deferred function: after a Goexit there is no other place left, after a
// panic it makes no difference, and it covers a failed function that does not return
// either.
func (e *ending) call(v criticalValue) {
	returned := false
	defer func() {
		if returned {
			return
		}
		defer e.run()
		if e.failed == nil {
			return
		}
		p := recover()
		e.failed(p, p == nil, debug.Stack())
	}()
	v.exit(v.x)
	returned = true
}

// SetAside takes r's thread-critical values away and returns them for PutBack.
// It is for a function that runs on the goroutine without being part of what
// runs there. End the function's own values before PutBack.
func (r *Record) SetAside() Aside {
	a := Aside{r.critical}
	r.critical = nil
	return a
}

// PutBack gives the values that were set aside back to r.
func (r *Record) PutBack(a Aside) { r.critical = a.c }

// GiveAway is SetAside for values that go to another goroutine: they belong to
// none until that goroutine calls Adopt.
func (r *Record) GiveAway() Aside {
	r.critical.home.Store(0)
	return r.SetAside()
}

// Adopt makes the values that were given away r's.
func (r *Record) Adopt(a Aside) {
	a.c.home.Store(r.ID)
	r.critical = a.c
}

// An Aside holds the values that SetAside has taken away.
type Aside struct{ c *criticals }
