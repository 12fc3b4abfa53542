package asyncsync

import "asyncsync.dev/internal/core"

// Hooks are functions that are told of calls, tasks included: of every one in the
// process ([AddHooks], [SetHooks]) or of those of a context ([WithHooks]). Nil
// ones are not called; without hooks calls cost nothing extra.
//
// Queued is called by the caller, Started and Ended on the thread right before
// and after the function. A call that did not run after all is told to Ended
// by its caller, with the reason as Err and no Started before. Panicked is
// called where a panic began, once however many callers it passes through, and
// Abandoned on a goroutine of its own when the function of an abandoned call
// has ended. No lock is held: hooks may call into this library.
//
// Panics of which nobody else can hear are written to standard error where there is no
// Panicked hook: of tasks that nobody has waited for, when they have been collected, and
// of functions that were abandoned or posted.
//
// Values lets a hook give a call something that the function finds in its ctx, and
// the hook itself later in [CallInfo].Ctx: the span of a trace, say. A hook that
// keeps its own table of calls goes by [CallInfo].ID.
//
// A call is told to the hooks that there were when it was made, one after
// another: first those of the process, in the order in which they were added,
// then those of the context, of the outermost first. A hook that panics or calls
// [runtime.Goexit] ends the call it was told of in that way, when the rest have
// been told; of several the last one counts. A call that ends so before it was
// queued, in Values or Queued, is not told to Ended.
type Hooks = core.Hooks

// CallInfo is what a hook is told of one call. Fields that are not known yet,
// or do not apply, are zero.
type CallInfo = core.CallInfo

// AddHooks has h told of all calls of the process from now on, beside the hooks
// that there are, until remove is called. Any order of removing will do, and a
// second remove has no effect. Libraries add hooks.
func AddHooks(h Hooks) (remove func()) { return core.AddHooks(h) }

// SetHooks is AddHooks for the one who owns the process: of hooks that were set
// only those are told which were set last. restore takes h away again, so that
// those are told which were set before it and have not been restored. What was
// added stays.
func SetHooks(h Hooks) (restore func()) { return core.SetHooks(h) }

// WithHooks has h told of the calls of the context, those whose
// [CallInfo].Context it is, and of contexts nested in it. In a nested context h is
// told beside the hooks of those around it.
func WithHooks(h Hooks) ContextOption {
	return func(c *core.Config) { c.Hooks = append(c.Hooks, &h) }
}

// Stats counts calls since the start of the process.
type Stats = core.Stats

// ReadStats returns the counts. It takes a lock of every thread in turn.
func ReadStats() Stats { return core.ReadStats() }
