package nesting

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"asyncsync.dev/asyncsync"
)

// A Ledger counts the calls of the process hooks while it is open.
type Ledger struct {
	restore func()

	mu        sync.Mutex // guards the rest
	calls     map[string]*tally
	abandoned int
}

// A tally counts the calls with one name.
type tally struct{ queued, started, ended int }

// OpenLedger sets the hooks. No call may be under way.
func OpenLedger() *Ledger {
	l := &Ledger{calls: map[string]*tally{}}
	count := func(f func(*tally)) func(asyncsync.CallInfo) {
		return func(i asyncsync.CallInfo) {
			l.mu.Lock()
			defer l.mu.Unlock()
			t := l.calls[i.Name]
			if t == nil {
				t = &tally{}
				l.calls[i.Name] = t
			}
			f(t)
		}
	}
	l.restore = asyncsync.SetHooks(asyncsync.Hooks{
		Queued:    count(func(t *tally) { t.queued++ }),
		Started:   count(func(t *tally) { t.started++ }),
		Ended:     count(func(t *tally) { t.ended++ }),
		Abandoned: count(func(*tally) { l.abandoned++ }),
	})
	return l
}

func (l *Ledger) told() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.abandoned
}

// Close removes the hooks, and reports inconsistent counts. All calls must have
// ended, including abandoned ones. The hook may be told of the latter a moment
// later, also of those of an earlier program.
func (l *Ledger) Close(got *Result) error {
	want := 0
	if got != nil {
		want = int(got.Abandoned.Load())
	}
	for i := 0; l.told() < want && i < 2000; i++ {
		time.Sleep(time.Millisecond)
	}
	l.restore()
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for name, t := range l.calls {
		if t.queued != t.ended || t.started > t.ended {
			errs = append(errs, fmt.Errorf("hooks: of calls of %s, %d were queued, %d have started, %d have ended", name, t.queued, t.started, t.ended))
		}
	}
	if l.abandoned < want {
		errs = append(errs, fmt.Errorf("hooks: told of %d abandoned calls, there were %d", l.abandoned, want))
	}
	return errors.Join(errs...)
}
