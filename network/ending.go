package network

import (
	"context"

	"asyncsync.dev/internal/core"
)

// An ending is how a function ended on a goroutine of this package, for its
// waiter.
type ending struct{ core.Ending }

// of runs fn and records how it ends. A Goexit continues, to the functions
// deferred above.
func (e *ending) of(fn func()) {
	returned := false
	defer func() {
		if !returned {
			e.Ending = core.Recover(recover())
		}
	}()
	fn()
	returned = true
}

func (e *ending) ended() bool { return !e.Returned() }

// raise ends the caller in the same way, unless that is a return.
func (e *ending) raise() {
	core.Raise(e.Ending)
}

// dropUnheard calls drop, which closes what nobody gets, and tells the hooks of an ending
// other than a return. What drop calls is the user's: a panic there would hit whoever
// happens to drop.
func dropUnheard(ctx context.Context, what string, drop func()) {
	var e ending
	defer func() { e.unheard(ctx, what) }()
	e.of(drop)
}

// unheard tells the hooks of the ending of what, because nothing waits.
func (e *ending) unheard(ctx context.Context, what string) {
	if e.ended() {
		core.TellUnheard(ctx, e.Ending, what)
	}
}
