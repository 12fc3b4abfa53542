package asyncsync

import "asyncsync.dev/internal/core"

// Hooks are functions that are told of every call in the process, tasks
// included. Nil ones are not called; without hooks calls cost nothing extra.
//
// Queued is called by the caller, Started and Ended on the thread right before
// and after the function. A call that did not run after all is told to Ended
// by its caller, with the reason as Err and no Started before. Panicked is
// called where a panic began, once however many callers it passes through, and
// Abandoned on a goroutine of its own when the function of an abandoned call
// has ended. No lock is held: hooks may call into this library. A hook that
// panics or calls [runtime.Goexit] ends the call it was told of in that way.
type Hooks = core.Hooks

// CallInfo is what a hook is told of one call. Fields that are not known yet,
// or do not apply, are zero.
type CallInfo = core.CallInfo

// SetHooks replaces the hooks of the process. restore puts back those that
// were set before; a call is told to the hooks that were set when it was made.
func SetHooks(h Hooks) (restore func()) { return core.SetHooks(h) }

// Stats counts calls since the start of the process.
type Stats = core.Stats

// ReadStats returns the counts. It takes a lock of every thread in turn.
func ReadStats() Stats { return core.ReadStats() }
