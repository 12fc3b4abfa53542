// Package nesting makes random programs out of this module's operations, runs
// them, and compares what happened with what a slow and obvious model says
// should have happened. It is for tests only: nothing but tests may import it.
//
// It has four parts that know little of each other:
//
//   - [Generate] makes a [Program], a tree of operations, from a source of
//     random numbers. The programs are free of deadlocks by construction; the
//     rules are in generate.go.
//   - [Run] interprets a program with the public packages, and notes what it
//     sees in a [Result]. What can be judged on the spot (which thread, on top
//     of whom, in which order) is judged on the spot.
//   - [Expect] is the model: it interprets the program on one goroutine,
//     without the library, and says what every operation must come to.
//   - [Check] compares the two.
//
// Operations that belong together have a file of their own, with what generates
// them and what runs them: queued.go for tasks, loops.go for tasks of thread loops,
// elsewhere.go for what does not run on a context's thread, limiter.go,
// threadends.go for what belongs to a thread, options.go. The rest is in generate.go
// and ops.go.
//
// Parts of a program, or a whole one, may be loose: cancelled at any moment.
// What these come to the model does not know; loose.go says what must hold all
// the same. Shapes that are known to fail are left out by a switch in omit.go.
package nesting
