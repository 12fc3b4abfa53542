package nesting

// omit leaves out shapes of programs that are known to fail. A switch goes when
// what it hides has been mended.
var omit = struct {
	// afterEnd: a call with the ctx of a task that has just ended. For a moment
	// it is cancelled with the task.
	afterEnd bool

	// hooksGoexit: hooks while functions end what is blocked below them. Of
	// calls that are taken back then the Ended hook is not told.
	hooksGoexit bool

	// siblings: what RunUntil serves may have been started by another function
	// that was called with the same ctx.
	siblings bool
}{
	afterEnd:    true,
	hooksGoexit: true,
	siblings:    true,
}
