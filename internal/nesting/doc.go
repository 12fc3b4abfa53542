// Package nesting makes random programs out of this module's operations, runs
// them, and compares what happened with what a slow and obvious model says
// should have happened. Only tests may import it.
//
// It does four things:
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
// Parts of a program, or a whole one, may be loose: cancelled at any moment.
// The model does not know the outcome of these; loose.go says what must hold
// nevertheless. A switch in omit.go leaves out shapes that are known to fail.
//
// # Layers
//
// Files use each other one way only, and none uses a file of a layer below its
// own in this list:
//
//   - Data. program.go has what a program consists of, result.go what is seen
//     of one, counters.go what is counted, state.go what the generator knows
//     at one point of a program, world.go what exists while a program runs.
//   - The table. operation.go says what there is to know of a kind of
//     operation: how it is run, what the model expects of it, how it is
//     printed.
//   - Machinery, which knows no operation by name: generate.go, run.go with
//     watch.go, model.go with excuse.go, and print.go. send.go and contexts.go
//     have what operations share: the ways to call a function, and the making
//     and closing of contexts.
//   - Operations: a file for those that belong together, with all there is of
//     each. Such a file may use another one: cancels.go uses tasks.go.
//   - features.go, the list of all operations. It says how often each is made,
//     and where.
//
// hooks.go checks what the process hooks are told. It is for the tests alone.
//
// # How to add an operation
//
// Take the file that it belongs to, or begin one. variables.go has the
// smallest operations.
//
//  1. Declare its kind: a constant such as opUndo, whose value is its name in
//     print. If what it needs to know does not fit into the fields of [Op], add
//     one there.
//  2. Write its maker, a method of generator that returns the operation, or nil
//     where the rules of [Generate] forbid it. A body below it is made by
//     g.body, from the state in which that runs: s.inner() is where to begin,
//     and the methods of state, as on and fork, lead on from there. What waits
//     for something, or holds something, says so in the state; state.go has
//     the fields.
//  3. Write how it is run, a method of run. x.list runs a body where the caller
//     is, x.function makes a function of it for the library. Say with x.during
//     who waits for whom. What is not as it should be goes to x.complain.
//  4. Write what is expected, a method of model: its outcome, and what it does
//     to the variables. Where the outcome may be one of several, let run check
//     it, and return the zero outcome from both.
//  5. Enter it into the table of its file, such as variableOps. A file that is
//     new has its table entered in features.go.
//  6. Give it a place in features.go: a choice of a menu, or an offer for
//     programs whose [Config] asks for it. What it needs before the roots
//     start is prepared in the program and provided in the run there, too.
//
// Seeds are named where something failed: an offer that only a new field of
// Config makes leaves the programs of all seeds as they are, a choice does not.
// TestEveryKind fails for a kind that no program has.
package nesting
