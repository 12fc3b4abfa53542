package nesting

import (
	"fmt"
	"sync/atomic"
	"time"

	"asyncsync.dev/asyncsync"
)

// A Ledger counts what the hooks of the process are told while it is open.
type Ledger struct {
	restore                        func()
	queued, inline, started, ended atomic.Int64
	abandoned                      atomic.Int64
}

// OpenLedger sets the hooks. No call may be under way.
func OpenLedger() *Ledger {
	l := &Ledger{}
	l.restore = asyncsync.SetHooks(asyncsync.Hooks{
		Queued: func(i asyncsync.CallInfo) {
			l.queued.Add(1)
			if i.Inline {
				l.inline.Add(1)
			}
		},
		Started:   func(asyncsync.CallInfo) { l.started.Add(1) },
		Ended:     func(asyncsync.CallInfo) { l.ended.Add(1) },
		Abandoned: func(asyncsync.CallInfo) { l.abandoned.Add(1) },
	})
	return l
}

// Close takes the hooks away, and says what does not add up. All calls have
// ended, those that were abandoned too, but the hook may be told of these a
// moment later, and be told of one of a program before.
func (l *Ledger) Close(got *Result) error {
	for i := 0; got != nil && l.abandoned.Load() < int64(got.Abandoned.Load()) && i < 2000; i++ {
		time.Sleep(time.Millisecond)
	}
	l.restore()
	q, s, e := l.queued.Load(), l.started.Load(), l.ended.Load()
	if q != e || s > e {
		return fmt.Errorf("hooks: %d calls were queued, %d have started, %d have ended", q, s, e)
	}
	if got == nil {
		return nil
	}
	if a, want := l.abandoned.Load(), int64(got.Abandoned.Load()); a < want {
		return fmt.Errorf("hooks: told of %d abandoned calls, there were %d", a, want)
	}
	return nil
}
