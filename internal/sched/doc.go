// Package sched runs tasks as coroutines on one OS thread.
//
// A [Loop] belongs to the goroutine that calls [Loop.Run], which is locked to its
// OS thread for that long. Its tasks, and the functions posted to it, run on
// coroutines that this goroutine makes and resumes, so all of them are on its
// thread, one at a time. They switch where a task waits with [Task.Suspend], and
// nowhere else.
//
// # The queue
//
// Functions, new tasks and tasks that were woken stand in one queue, first come
// first served. So neither kind can starve the other, and what one caller does to
// a loop happens in the order in which he did it.
//
// # Coroutines
//
// A coroutine is [iter.Pull]'s. It runs one task after another, and is kept for
// the next one. The runtime binds it to the thread, and to the number of thread
// locks, that it was made with, and throws if it is resumed with others. So only
// the loop's own goroutine makes, resumes and stops coroutines, and it does
// nothing else: a user's function that ran there could change the locks, or end
// the goroutine.
//
// A panic or a Goexit of a task ends its coroutine; the task's [Body] is told, and
// nobody else. A Goexit would go on from there through the loop's goroutine, because
// that is what iter.Pull does:
// see newCo for what it does instead.
//
// # Waits
//
// A wait has a number, and is over when its number is marked in [Task.state]. Who
// marks it puts the task into the queue, once. That may happen before the task has
// suspended: nobody takes it out of the queue before, for the loop's goroutine
// does that, and it runs again only when the task has let go. A task may give up a
// wait that it has begun, so it can stand there without being due.
//
// # Who is on the loop
//
// The record of a goroutine says what it runs: [Here] finds the task in it. Code
// above that is about to wait asks Here, and parks if there is a task that
// [Task.MayWait].
package sched
