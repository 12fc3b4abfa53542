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

// run runs the function, and tells.
func (c call) run() {
	c.fn()
	close(c.done)
}

// NewChannel starts the goroutine.
func NewChannel() *Channel {
	c := &Channel{calls: make(chan call), gone: make(chan struct{})}
	go func() {
		defer close(c.gone)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for call := range c.calls {
			call.run()
		}
	}()
	return c
}

// Call runs fn on the goroutine and waits for it. Called from fn it would
// wait for ever.
func (c *Channel) Call(fn func()) { hand(c.calls, fn) }

// hand sends fn to the goroutine that takes calls, and waits for it.
func hand(calls chan<- call, fn func()) {
	done := make(chan struct{})
	calls <- call{fn, done}
	<-done
}

// Close ends the goroutine.
func (c *Channel) Close() {
	close(c.calls)
	<-c.gone
}

// Descend nests by hand: sync code on the goroutine waits for async code, which
// calls the goroutine again, down to a depth, where bottom runs, if it is not
// nil. Each level has a fresh goroutine for the async code, and the sync code
// that waits takes the calls made below it from a channel of its own, until
// that goroutine is done.
func (c *Channel) Descend(depth int, bottom func()) {
	c.Call(func() { await(depth, bottom) })
}

// A frame is a function on the goroutine that is blocked.
type frame struct {
	calls chan call
	done  chan struct{}
}

// await is sync code that runs async code and waits for it.
func await(level int, bottom func()) {
	f := &frame{calls: make(chan call), done: make(chan struct{})}
	go func() {
		defer close(f.done)
		f.descend(level-1, bottom)
	}()
	f.serve()
}

// serve takes calls until the goroutine is done.
func (f *frame) serve() {
	for {
		select {
		case c := <-f.calls:
			c.run()
		case <-f.done:
			return
		}
	}
}

// descend is async code that runs sync code on the goroutine and waits for it.
func (f *frame) descend(level int, bottom func()) {
	switch {
	case level > 0:
		hand(f.calls, func() { await(level, bottom) })
	case bottom != nil:
		bottom()
	}
}
