package task

import (
	"context"

	"asyncsync.dev/internal/core"
)

// A Mutex is a lock for code that waits: one holder at a time, first come first
// served. The zero Mutex is unlocked and ready to use. It must not be copied
// after its first use. Its methods may be called from anywhere.
//
// Unlike [sync.Mutex], it has a Lock that takes a ctx, that parks a task of a
// thread loop, and that makes a thread serve: the calls of code that the
// calling function has started, and those of the holder. The holder is joined
// like a task that is waited for. So a thread that waits for the Mutex does not
// keep the holder from reaching Unlock.
//
// If a waiting thread runs a call on top of its wait at the moment of an
// Unlock, it is passed over and keeps its place: the call may lock the Mutex
// itself.
//
// # Who holds it
//
// The Mutex belongs to the task, call or function that locked it. That one
// unlocks it, or something that it waits for does. If the holder is the caller,
// or waits for the caller through any waits of this module, Lock is refused at
// once with an error that matches deadlock.ErrDeadlock.
//
// The holder is known by the ctx of Lock, or after TryLock by what the
// goroutine runs. If neither belongs to this module, as on a plain goroutine,
// the holder is unknown: nothing is joined and nothing is refused because of
// it. On a plain goroutine with the ctx of a task, the holder is joined as that
// task, and nothing is refused, since the task may be doing something else.
//
// # Cost
//
// If the Mutex is free, Lock and Unlock are one compare-and-swap each and
// allocate nothing. On a thread, and with a ctx that belongs to another
// function than the goroutine runs, each also locks a [sync.Mutex] briefly. A
// Lock that waits allocates.
//
// Its model is the Lock of asyncio and anyio. It is both create_lock and
// create_fair_lock of EasyNetwork.
type Mutex struct{ lock core.Lock }

// Lock locks m. If m is in use, Lock waits until m is handed over or ctx ends.
// If ctx ends first it returns the cause and has not locked m. A ctx that has
// already ended never locks m: not even if m is free, or handed over at that
// moment. In the latter case m goes to the next in line.
//
// What was done before an Unlock synchronizes before the return of the next
// Lock.
func (m *Mutex) Lock(ctx context.Context) error {
	checkCtx(ctx, "Mutex.Lock")
	return m.lock.Lock(ctx)
}

// TryLock locks m if nobody holds it, and reports whether it did. While m is
// being handed over to a waiter it is not free.
func (m *Mutex) TryLock() bool { return m.lock.TryLock() }

// Unlock hands m over to the caller that has waited longest, or frees it. It
// panics if m is not locked.
func (m *Mutex) Unlock() {
	if !m.lock.Unlock() {
		panic("task: Mutex.Unlock of a Mutex that is not locked: call Unlock once for each Lock that returned nil")
	}
}

// Locked reports whether m is locked. The answer may be out of date at once.
// While m is being handed over it is locked.
func (m *Mutex) Locked() bool { return m.lock.Locked() }
