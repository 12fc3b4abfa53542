package asyncsync

import "asyncsync.dev/internal/core"

// Hooks are functions that are told of calls, tasks included. [AddHooks] and
// [SetHooks] tell them of every call of the process, [WithHooks] of the calls of
// a context. All take a [CallInfo], and Values returns a [context.Context]. Nil
// functions are not called. Without hooks, calls cost nothing extra.
//
//   - Queued is called by the caller.
//   - Started and Ended are called on the thread, right before and after the
//     function. For a call that did not run after all, the caller calls Ended,
//     with the reason as Err, and there is no Started before it.
//   - Panicked is called where a panic began, once however many callers the
//     panic passes through.
//   - Abandoned is called on a goroutine of its own when the function of an
//     abandoned call has ended.
//   - Values is asked by the caller, before Queued is told. It returns a
//     context of which only the values are used, the span of a trace for
//     example: the function finds them in its ctx, and the hooks in
//     [CallInfo].Ctx. Make that context from context.Background, not from
//     CallInfo.Ctx; one that was made from the ctx of a call, or that can end,
//     makes the call panic. A nil context adds nothing. A hook that keeps a
//     table of calls uses [CallInfo].ID as the key.
//
// No lock is held: hooks may call into this library.
//
// Without a Panicked hook, panics that nobody else can learn of are written to
// standard error: those of tasks that were garbage collected without having
// been waited for, and those of abandoned or posted functions.
//
// A call is told to the hooks that were installed when it was made, one after
// another: first those of the process in the order in which they were added,
// then those of the contexts, the outermost first. If a hook panics or calls
// [runtime.Goexit], the remaining hooks are told, and then the call ends in the
// same way; if several hooks do so, the last one counts. A call that ends so
// before it was queued, in Values or Queued, is not told to Ended. If a Started
// hook ends a call so, the function does not run.
//
// A panic in a hook ends the process if nobody is left whom it could reach. That is so
// in an Abandoned hook, and in a Panicked hook that is told of a function which was
// posted to a loop of package loop. A Panicked hook that is told of a ctx that failed
// at the end of a task runs on a goroutine of its own too, and its panic ends the
// process as well.
type Hooks = core.Hooks

// CallInfo is what a hook is told of one call. Its fields are ID, Ctx, Name,
// Context, Thread, Inline, Lost, Begun, Err, Panic, Stack, Goexit, QueueTime
// and RunTime. Fields that are not known yet, or do not apply, are zero.
type CallInfo = core.CallInfo

// AddHooks adds h to the hooks of the process. They are told of all calls from
// now on, until remove is called, except calls that are refused before they are
// made: those whose ctx has already ended, and those, other than of [Go], that
// fail with [ErrNoContext]. Hooks can be removed in any order. A second remove
// has no effect. Libraries use AddHooks; a program may also use [SetHooks].
func AddHooks(h Hooks) (remove func()) { return core.AddHooks(h) }

// SetHooks is AddHooks for the program that owns the process: h replaces the
// hooks of the previous SetHooks. restore removes h; then the most recently set
// hooks that have not been restored are told again. Hooks from AddHooks stay.
func SetHooks(h Hooks) (restore func()) { return core.SetHooks(h) }

// WithHooks tells h of the calls of the context (those whose [CallInfo].Context
// it is) and of the contexts nested in it. In a nested context, h is told in
// addition to the hooks of the outer contexts.
func WithHooks(h Hooks) ContextOption {
	return func(c *core.Config) { c.Hooks = append(c.Hooks, &h) }
}

// Stats counts calls since the start of the process. Its fields are Threads,
// Queued, Calls, Inline, Cancelled, Abandoned, Panicked, Goexits and
// AbandonedRunning.
type Stats = core.Stats

// ReadStats returns the counts. It locks every thread in turn, briefly.
func ReadStats() Stats { return core.ReadStats() }
