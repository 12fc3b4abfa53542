// Package sched runs tasks as coroutines on one OS thread.
//
// A [Loop] belongs to the goroutine that calls [Loop.Run], which is locked to
// its OS thread meanwhile. Its tasks, and the functions posted to it, run on
// coroutines that this goroutine makes and resumes. So all of them are on its
// thread, one at a time. They switch only where a task waits with
// [Task.Suspend].
//
// # The queue
//
// Functions, new tasks and woken tasks share one queue, first come first
// served. So neither kind can starve the other, and the operations of one
// caller take effect in the caller's order.
//
// # Coroutines
//
// A coroutine is one of [iter.Pull]. It runs one task after another. The
// runtime binds it to the thread that it was made on and to the number of
// thread locks at that time, and throws if these differ when it is resumed. So
// only the loop's own goroutine makes, resumes and stops coroutines, and it
// does nothing else: a user's function that ran on it could change the locks,
// or end the goroutine.
//
// A panic or a Goexit of a task ends its coroutine; only the task's [Body] is
// told. Without precautions, iter.Pull would pass a Goexit on to the loop's
// goroutine: see newCo.
//
// # Waits
//
// A wait has a number, and is over when its number is marked in [Task.state].
// The marker puts the task into the queue, once. That may happen before the
// task has suspended. It is not taken out of the queue too early, because only
// the loop's goroutine does that, and the loop's goroutine runs only after the
// task has suspended. A task may abandon a wait that it has begun, so a task in
// the queue need not be due.
//
// # Who is on the loop
//
// The record of a goroutine says what it runs: [Here] finds the task in it.
// Code in higher packages calls Here before it waits, and parks if there is a
// task that [Task.MayWait].
package sched
