package sched

import (
	"runtime"
	"time"
)

// A crowd is a number of callers of one loop that are ready to run on this
// processor. The first of them would wake the loop. The loop goes before the
// others in the run queue, finds one task, and sleeps again: two kernel
// switches for each caller. If a crowd is likely, the first caller lets the
// others call before it wakes the loop, so that all share one wake. Guarded by
// the mu of the loop.
type crowd struct {
	ran    int  // entries of the queue since the loop last slept
	likely bool // it ran several entries when it was last awake
	wakes  int  // that could have been delayed, ever
	spare  int  // wakes not to delay, because delaying took long
	fine   int  // the value of spare next time
}

// A crowd that has dispersed by chance does not form again by itself, since
// each of its callers is served alone. So every crowdTry wakes, one wake is
// delayed to see whether there is a crowd.
//
// After a delay that took longer than crowdLong, some wakes are not delayed:
// the run queue has goroutines that do not call. If it happens again, more
// wakes are not delayed.
const (
	crowdTry   = 32
	crowdLong  = 500 * time.Microsecond
	crowdSpare = 64
	crowdMost  = 4096
)

// expected reports whether a wake should be delayed.
func (c *crowd) expected() bool {
	if c.spare > 0 {
		c.spare--
		return false
	}
	c.wakes++
	return c.likely || c.wakes%crowdTry == 0
}

// slept records that the loop has nothing to do.
func (c *crowd) slept() {
	c.likely = c.ran > 1
	c.ran = 0
}

// took records how long a delayed wake took.
func (c *crowd) took(d time.Duration) {
	if d <= crowdLong {
		c.fine = 0
		return
	}
	c.fine = min(max(2*c.fine, crowdSpare), crowdMost)
	c.spare = c.fine
}

// gather lets the other callers run. mu is not held, and the caller is an ordinary
// goroutine.
func (l *Loop) gather() {
	start := time.Now()
	runtime.Gosched()
	d := time.Since(start)
	l.mu.Lock()
	l.crowd.took(d)
	l.mu.Unlock()
}
