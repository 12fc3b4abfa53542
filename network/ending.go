package network

import (
	"context"

	"asyncsync.dev/internal/core"
)

// An ending is how a function has ended on a goroutine of ours, for the one that waits.
type ending struct{ core.Ending }

// of runs fn and notes how it ends. A Goexit goes on, to the functions deferred above.
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
	if e.ended() {
		e.Raise()
	}
}

// unheard tells the hooks, for nobody waits.
func (e *ending) unheard(ctx context.Context) {
	if e.ended() {
		e.Unheard(ctx, "network.DialStaggered")
	}
}
