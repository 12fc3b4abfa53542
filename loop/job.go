package loop

import (
	"context"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/goroutine"
)

// builtin is what the backends of this package have in addition to Backend.
type builtin interface {
	Backend
	at() *core.Home
	run(ctx context.Context, s *core.Solo) (core.Ending, error)
}

func init() {
	core.HomeOf = func(l any) *core.Home { return homeOf(l.(Loop)) }
}

// homeOf returns the Home by which contexts know l.
func homeOf(l Loop) *core.Home {
	switch b := l.(type) {
	case builtin:
		return b.at()
	case *foreign:
		return &b.home
	}
	h := &core.Home{Loop: l, Stopped: ErrStopped}
	if b, ok := l.(Backend); ok {
		h.Spawn = b.Spawn
	}
	_, h.Threads = l.(interface{ RunsOnThreads() })
	return h
}

// spawn is the Spawn method of the backends of this package.
func spawn(b builtin, ctx context.Context, fn func(context.Context)) error {
	checkCtx(ctx, "Spawn")
	if fn == nil {
		panic("loop: Spawn with a nil function")
	}
	if err := core.Ended(core.Afterlife(ctx)); err != nil {
		return err
	}
	s := core.NewSolo(ctx, b.at(), core.FuncPC(fn), fn)
	err := b.at().Backend.Start(&s.Job)
	if err != nil {
		s.Drop()
	}
	return err
}

// runPosted runs a posted function. Only a Goexit comes out of it. The
// goroutine's record must have a Task.
func runPosted(fn func()) {
	returned := false
	defer func() {
		if returned {
			return
		}
		v := recover()
		if r := goroutine.Current(); v == nil && r != nil && r.Told {
			r.Told = false // it was a call whose waiter has been told
			return
		}
		unheard(core.Recover(v))
	}()
	fn()
	returned = true
}

// runAlone runs a posted function on a goroutine whose record names task, and
// leaves no local values behind.
func runAlone(task any, fn func()) {
	r := goroutine.Ensure()
	r.Task = task
	defer func() {
		defer r.Release()
		r.Task = nil
		r.EndCritical(exitFailed)
	}()
	runPosted(fn)
}

// exitFailed is called when an exit function of a thread-critical variable
// fails and nothing waits for it.
func exitFailed(v any, goexit bool, stack []byte) {
	e := core.Ending{Goexit: goexit}
	if !goexit {
		e.Panic = &core.Panic{Value: v, Stack: stack}
	}
	unheard(e)
}

// unheard tells the hooks how something has ended that nothing waits for.
func unheard(e core.Ending) { core.TellUnheardOfLoop(context.Background(), e, "") }
