package goroutine

// A Record is what the library keeps for one goroutine. Only that goroutine may use it,
// or code that has it to itself while the goroutine sleeps. Others may read its ID only.
type Record struct {
	ID     int64  // fixed at birth
	Values Values // the goroutine-local values: immutable, swapped whole
	Owner  any    // the thread that the goroutine is, nil otherwise; set by internal/core
	Node   any    // the call-tree node the goroutine runs, nil otherwise; set by internal/core
	Task   any    // what of a loop the goroutine runs, nil otherwise; set by internal/sched and loop
	Raised any    // the panic that was raised again here last, nil if none was; set by internal/core
	Told   bool   // the waiter has been told of the Goexit under way; set by internal/core, for loop

	critical *criticals // made when first needed: see criticals; or shared with the thread's record
}

// Current returns the record of the calling goroutine, nil if it has none. It takes no
// lock and does not allocate; its cost does not depend on the number of records.
func Current() *Record {
	return lookup(ID())
}

// Of is Current for a caller that knows the id of its goroutine.
func Of(id int64) *Record { return lookup(id) }

// Ensure returns the record of the calling goroutine, and makes and registers one if
// there is none.
func Ensure() *Record {
	id := ID()
	if r := lookup(id); r != nil {
		return r
	}
	r := &Record{ID: id}
	insert(r)
	return r
}

// Release forgets the record: Current returns nil afterwards, and Ensure a new one. It
// must be called on the record's goroutine, at the latest as the last act of a goroutine
// of our own, and runs no exit functions: see [Record.EndCritical]. Releasing a record
// again does nothing, even if its goroutine has a new one by then.
func (r *Record) Release() {
	remove(r)
}

// Empty reports whether the record holds nothing and shares nothing, so that releasing it
// loses nothing.
func (r *Record) Empty() bool {
	return r.Values == Values{} && r.Owner == nil && r.Node == nil && r.Task == nil &&
		!r.HasCritical() && !r.SharesCritical()
}

// ReleaseIfEmpty is Release for a record that is Empty, and nothing for others.
func (r *Record) ReleaseIfEmpty() {
	if r.Empty() {
		r.Release()
	}
}

// Live returns the number of registered records, for leak tests. It may be called from
// any goroutine.
func Live() int {
	return liveRecords()
}
