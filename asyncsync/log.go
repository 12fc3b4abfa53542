package asyncsync

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/loop"
)

// Log returns hooks that write records to l, for [AddHooks] or [WithHooks].
// deadlock.Log does the same for verdicts. Log panics if l is nil.
//
//	level | message                        | when
//	Error | a function panicked            | with the panic and its stack, once
//	Warn  | a call was refused             | it did not run: the queue or the pool is full, the context closed, the loop or executor stopped, or it was a deadlock
//	Warn  | an abandoned call has ended    |
//	Warn  | a call has lost its context    | the first of each name: it goes to the default thread, for its ctx has no context, and its caller runs in one
//	Debug | a call was taken out           | it was queued and did not run: its ctx has ended
//	Debug | a call has ended               | with the error that its function returned, which its caller handles
//
// Each record has the attributes call and context, the names; thread, the id of
// the OS thread if there is one; queued and ran, the durations; and err, panic,
// stack, goexit, inline and hint where they apply. If err is a deadlock.Error,
// there are also cycle, with a line for each wait, and page, the name of the page
// that says what to do, such as self-wait. Records are made with the ctx of the
// call, so that handlers find their values there.
//
// A call that leaves its context on purpose says so with [Detach], and is not reported
// as lost. No analyzer reports lost contexts, because context.Background is often right.
//
// A record below the level of l costs one call of Enabled. The handler of l
// runs where hooks run: on the thread of the call, for Debug and Error. There l
// must not make a record wait for that thread.
func Log(l *slog.Logger) Hooks {
	if l == nil {
		panic("asyncsync: Log: nil Logger")
	}
	// The names that were reported as lost. A program may have any number of them.
	var strays sync.Map
	var told atomic.Int32
	return Hooks{
		Queued: func(i CallInfo) {
			if i.Lost {
				if _, again := strays.Load(i.Name); again || told.Load() >= maxStrays {
					return
				}
				if _, again := strays.LoadOrStore(i.Name, true); !again {
					told.Add(1)
					logCall(l, slog.LevelWarn, "a call has lost its context", &i, slog.String("hint", "hand on the ctx that the function was given; RequireContext(true) makes it an error"))
				}
			}
		},
		Ended: func(i CallInfo) {
			level, text := slog.LevelDebug, "a call has ended"
			if !i.Begun {
				text = "a call was taken out"
				if refused(&i) {
					level, text = slog.LevelWarn, "a call was refused"
				}
			}
			logCall(l, level, text, &i)
		},
		Abandoned: func(i CallInfo) { logCall(l, slog.LevelWarn, "an abandoned call has ended", &i) },
		Panicked: func(i CallInfo) {
			logCall(l, slog.LevelError, "a function panicked", &i, slog.String("stack", string(i.Stack)))
		},
	}
}

// maxStrays is how many names Log reports as lost. After that it reports none.
const maxStrays = 100

// refused reports whether the call that i is about, which has not begun, was refused.
func refused(i *CallInfo) bool {
	// The ctx of a task ends when its loop stops, which is a refusal.
	if core.Cancelled(i) && i.Err != loop.ErrStopped {
		return false
	}
	for _, refusal := range []error{ErrQueueFull, ErrPoolFull, ErrClosed, ErrNoContext, core.ErrDeadlock, loop.ErrStopped} {
		if errors.Is(i.Err, refusal) {
			return true
		}
	}
	return false
}

func logCall(l *slog.Logger, level slog.Level, text string, i *CallInfo, more ...slog.Attr) {
	ctx := i.Ctx
	if ctx == nil {
		ctx = context.Background()
	}
	if !l.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 12)
	attrs = append(attrs, slog.String("call", i.Name), slog.String("context", i.Context))
	if i.Thread != 0 {
		attrs = append(attrs, slog.Int("thread", i.Thread))
	}
	attrs = append(attrs, slog.Duration("queued", i.QueueTime), slog.Duration("ran", i.RunTime))
	if i.Inline {
		attrs = append(attrs, slog.Bool("inline", true))
	}
	if i.Err != nil {
		attrs = append(attrs, slog.Any("err", i.Err))
		var d *core.DeadlockError
		if errors.As(i.Err, &d) {
			if d.Page != "" {
				attrs = append(attrs, slog.String("page", d.Page))
			}
			if len(d.Cycle) > 0 {
				// The first line is the text of d, which err has.
				lines := strings.TrimPrefix(d.Details(), d.Error()+"\n")
				attrs = append(attrs, slog.String("cycle", lines))
			}
		}
	}
	if i.Panic != nil {
		attrs = append(attrs, slog.Any("panic", i.Panic))
	}
	if i.Goexit {
		attrs = append(attrs, slog.Bool("goexit", true))
	}
	l.LogAttrs(ctx, level, text, append(attrs, more...)...)
}
