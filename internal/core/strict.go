package core

import "sync/atomic"

// strict is what SetStrict has set.
var strict atomic.Bool

// SetStrict has all threads serve nothing in a blocked function but what is
// related to it through waits that this module knows: [All] counts as
// [Related], and waits for something unknown that begin from now on serve
// nobody.
func SetStrict(on bool) {
	relations.Lock()
	if strict.Swap(on) == on {
		relations.Unlock()
		return
	}
	var wake []waking
	var left []*Mark
	for _, t := range liveThreads() {
		t.mu.Lock()
		if t.policy == All && t.top != nil {
			left = append(left, t.resortAll()...)
			if t.due() {
				wake = append(wake, waking{t, t.rouse()})
			}
		}
		t.mu.Unlock()
	}
	relations.Unlock()
	for _, w := range wake {
		w.thread.tell(w.sleeps)
	}
	for _, m := range left {
		m.recheck()
	}
}

// related reports whether t, blocked, serves those that the wait may depend on.
func (t *Thread) related() bool {
	return t.policy == Related || t.policy == All && strict.Load()
}

// all reports whether t serves everybody.
func (t *Thread) all() bool { return t.policy == All && !strict.Load() }

// everybody reports whether t, in the frame where it is now, serves everybody: by its
// policy, or because the frame is the bottom of an executor's thread. There is a frame,
// and t.mu is held.
func (t *Thread) everybody() bool { return t.all() || t.top.open && t.own.lasts.Load() }
