package loop

import (
	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/sched"
)

// foreign is somebody else's loop.
type foreign struct {
	post func(func()) error
	done <-chan struct{}
	home core.Home
}

// FromPost makes a Loop of somebody else's. post hands a function to it: it must
// be safe to call from any goroutine, return at once, and keep the order of each
// caller; if it returns an error the function must not run. done is closed when the
// loop has stopped; a loop that never does may give nil. After that post is not
// called any more: Post returns [ErrStopped].
//
// What is posted runs on the loop's thread, on a coroutine of its own, which costs
// less than a microsecond: so a [runtime.Goexit] in it ends the function, not the
// loop. A function that waits inside, for something else than the loop itself,
// blocks the loop. Park and Call there, and [Run], are refused with [ErrOnLoop].
//
// It panics if post is nil.
func FromPost(post func(fn func()) error, done <-chan struct{}) Loop {
	if post == nil {
		panic("loop: FromPost with a nil function")
	}
	f := &foreign{post: post, done: done}
	f.home = core.Home{Loop: f, Stopped: ErrStopped}
	return f
}

// Post implements [Poster].
func (f *foreign) Post(fn func()) error {
	checkPost(fn)
	select {
	case <-f.done:
		return ErrStopped
	default:
	}
	core.UseLoops()
	return f.post(func() {
		sched.Fence(func() { runAlone(f, fn) })
	})
}

// BlocksLoop says to internal/core that what runs here does.
func (f *foreign) BlocksLoop() {}

// Done implements [Loop].
func (f *foreign) Done() <-chan struct{} { return f.done }
