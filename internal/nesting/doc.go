// Package nesting makes random programs out of this module's operations, runs
// them, and compares what happened with what a slow and obvious model says
// should have happened. Only tests may import it.
//
// It has four parts that are largely independent:
//
//   - [Generate] makes a [Program], a tree of operations, from a source of
//     random numbers. The programs are free of deadlocks by construction; the
//     rules are in generate.go.
//   - [Run] interprets a program with the public packages, and records what it
//     sees in a [Result]. It checks at once what it can (which thread, on top
//     of what, in which order).
//   - [Expect] is the model: it interprets the program on one goroutine,
//     without the library, and says what the outcome of every operation must
//     be.
//   - [Check] compares the two.
//
// Operations that belong together have a file of their own, with their
// generation and their execution: queued.go for tasks, loops.go for tasks of
// thread loops, portals.go, ends.go for waits that are cancelled or timed out,
// elsewhere.go for what does not run on a context's thread, limiter.go,
// threadends.go for what belongs to a thread, options.go, and plants.go for
// planted cycles. The rest is in generate.go and ops.go.
//
// Parts of a program, or a whole one, may be loose: cancelled at any moment.
// The model does not know the outcome of these; loose.go says what must hold
// nevertheless. A switch in omit.go leaves out shapes that are known to fail.
package nesting
