package sched

import (
	"runtime"
	"time"
)

// A crowd is many callers of one loop who are ready to run on this processor. The
// first of them would wake the loop, which goes before them in the run queue, finds
// one task, and sleeps again: two kernel switches for each. Where that is likely the
// first lets the others call before it wakes the loop, and all share one wake.
// Guarded by the mu of the loop.
type crowd struct {
	ran    int  // entries of the queue since the loop has slept
	likely bool // the last time it was awake it ran several
	wakes  int  // since it was not likely any more
	spare  int  // wakes that are not to be put off, because that has taken long
	fine   int  // how many the next time
}

// A crowd that has dispersed by chance does not come together by itself, since each
// of its callers is served alone: one wake of crowdTry is put off to see.
//
// A wake is not put off for some wakes after it has taken crowdLong to come back to
// it: there are others in the run queue who do not call. If it takes long again, it
// is for longer.
const (
	crowdTry   = 32
	crowdLong  = 500 * time.Microsecond
	crowdSpare = 64
	crowdMost  = 4096
)

// expected reports whether a wake is to be put off.
func (c *crowd) expected() bool {
	if c.spare > 0 {
		c.spare--
		return false
	}
	c.wakes++
	return c.likely || c.wakes%crowdTry == 0
}

// slept says that the loop has nothing to do.
func (c *crowd) slept() {
	c.likely = c.ran > 1
	c.ran = 0
}

// took says how long it took to come back to a wake that was put off.
func (c *crowd) took(d time.Duration) {
	if d <= crowdLong {
		c.fine = 0
		return
	}
	c.fine = min(max(2*c.fine, crowdSpare), crowdMost)
	c.spare = c.fine
}

// gather lets the other callers run. mu is not held, and the caller is no thread.
func (l *Loop) gather() {
	start := time.Now()
	runtime.Gosched()
	d := time.Since(start)
	l.mu.Lock()
	l.crowd.took(d)
	l.mu.Unlock()
}
