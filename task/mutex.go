package task

import (
	"context"

	"asyncsync.dev/internal/core"
)

// A Mutex is a lock for code that waits: one holder at a time, first come first
// served. The zero Mutex is unlocked and ready. It must not be copied after its
// first use. Its methods may be called from anywhere.
//
// Unlike with a [sync.Mutex], who waits for it in a task of a thread loop is
// parked, and on a thread serves: the calls of what the calling function has
// started, and those of the holder, who is joined meanwhile, as a task is that is
// waited for. So a thread that waits for the Mutex does not keep the holder from
// coming to its Unlock. And the wait has a ctx.
//
// A thread that waits and runs a call on top of that, at the moment of an Unlock, is
// passed over, and keeps its place: what runs there may lock the Mutex itself.
//
// # Who holds it
//
// The Mutex belongs to the task, call or function that locked it. That one unlocks
// it, or something that it waits for. A wait for a Mutex whose holder waits,
// through whatever waits of this module, for the one who would wait, or is that
// one, is refused at once, with an error matching deadlock.ErrDeadlock.
//
// The holder is joined as whoever the ctx of Lock belongs to; for TryLock, as what
// the goroutine runs. A holder on a plain goroutine with a ctx that knows nothing
// of this module is unknown: nothing is joined, and nothing refused for it. One on a
// plain goroutine with the ctx of a task is joined with that, and nothing is
// refused: the task may do otherwise.
//
// # Cost
//
// Where nobody else has it, Lock and Unlock are one compare-and-swap each and
// allocate nothing; on a thread, and with a ctx that belongs to another function
// than the goroutine runs, they take a [sync.Mutex] for a moment as well. Who waits allocates. Its
// model is asyncio's Lock, and anyio's; EasyNetwork's create_lock and
// create_fair_lock are both this.
type Mutex struct{ lock core.Lock }

// Lock locks m, and waits for it if need be, until ctx ends: then it returns the
// cause, and m is not locked by it. A ctx that has ended does not lock, not even a
// free Mutex, nor one that is handed over at that very moment: that goes to the
// next in line.
//
// What was done before an Unlock synchronizes before the return of the Lock that
// comes after it.
func (m *Mutex) Lock(ctx context.Context) error {
	checkCtx(ctx, "Mutex.Lock")
	return m.lock.Lock(ctx)
}

// TryLock locks m if nobody has it, and reports whether it did. While m is handed
// over to somebody who has waited it is not free.
func (m *Mutex) TryLock() bool { return m.lock.TryLock() }

// Unlock hands m over to the one who has waited longest, or frees it. It panics if
// m is not locked.
func (m *Mutex) Unlock() {
	if !m.lock.Unlock() {
		panic("task: Mutex.Unlock of a Mutex that is not locked: call Unlock once for each Lock that returned nil")
	}
}

// Locked reports whether m was locked a moment ago. During a hand-over it is.
func (m *Mutex) Locked() bool { return m.lock.Locked() }
