// Package bench has the benchmarks of this module, and the baselines that
// their figures are compared with in the same run.
//
// Machines differ and are noisy, so a figure says little by itself: compare it
// with that of the baseline beside it. Figures of calls whose caller sleeps are
// best taken on one core (taskset -c 0), where the kernel cannot choose
// between waking a thread here or there:
//
//	go test -run '^$' -bench . -benchmem -count 5 ./bench
//	GOMAXPROCS=1 taskset -c 0 go test -run '^$' -bench 'Hop|Nested' -count 5 ./bench
package bench

import "runtime"

// A Channel is what programs do without this module: a goroutine locked to
// its OS thread that takes functions from a channel, and a channel for each
// call to tell that it is done.
type Channel struct {
	calls chan call
	gone  chan struct{}
}

type call struct {
	fn   func()
	done chan struct{}
}

// NewChannel starts the goroutine.
func NewChannel() *Channel {
	c := &Channel{calls: make(chan call), gone: make(chan struct{})}
	go func() {
		defer close(c.gone)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for call := range c.calls {
			call.fn()
			close(call.done)
		}
	}()
	return c
}

// Call runs fn on the goroutine and waits for it. Called from fn it would
// wait for ever.
func (c *Channel) Call(fn func()) {
	done := make(chan struct{})
	c.calls <- call{fn, done}
	<-done
}

// Close ends the goroutine.
func (c *Channel) Close() {
	close(c.calls)
	<-c.gone
}
