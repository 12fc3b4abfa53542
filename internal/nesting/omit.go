package nesting

// omit leaves out shapes of programs that are known to fail. A switch goes when
// what it hides has been mended.
var omit = struct {
	// enteredOnAdopted: a context that is entered on a goroutine which is a
	// thread because of SameThread. An async function called there finds that
	// context nearest, not its caller.
	enteredOnAdopted bool

	// afterEnd: a call with the ctx of a task that has just ended. For a moment
	// it is cancelled with the task.
	afterEnd bool

	// criticalPosted: thread-critical values on a thread that has run a function
	// which was sent with WithExecutor. That function does not see them.
	criticalPosted bool

	// hooksGoexit: hooks while functions end what is blocked below them. Of
	// calls that are taken back then the Ended hook is not told.
	hooksGoexit bool

	// siblings: what RunUntil serves may have been started by another function
	// that was called with the same ctx.
	siblings bool
}{
	enteredOnAdopted: true,
	afterEnd:         true,
	criticalPosted:   true,
	hooksGoexit:      true,
	siblings:         true,
}
