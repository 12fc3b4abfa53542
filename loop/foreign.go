package loop

import (
	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/sched"
)

// foreign is a loop that FromPost has made.
type foreign struct {
	post func(func()) error
	done <-chan struct{}
	home core.Home
}

// FromPost makes a Loop of a foreign loop. post hands a function to that loop.
// It must be safe to call from any goroutine, return at once, and keep the
// order of each caller. If it returns an error, the function must not run. done
// is closed when the loop has stopped; it may be nil for a loop that never
// stops. After that post is not called any more: Post returns [ErrStopped].
//
// Posted functions run on the loop's thread, each on a coroutine of its own,
// which costs less than a microsecond. So a [runtime.Goexit] ends the function,
// not the loop. A function that waits for anything but the loop itself blocks
// the loop. Park, Call and [Run] return [ErrOnLoop] there.
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

// BlocksLoop tells internal/core that a wait here blocks the loop.
func (f *foreign) BlocksLoop() {}

// Done implements [Loop].
func (f *foreign) Done() <-chan struct{} { return f.done }
