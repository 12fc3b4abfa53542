package nesting

// omit leaves out shapes of programs that are known to fail. A switch goes when
// what it hides has been mended.
var omit = struct {
	// afterEnd: a call with the ctx of a task that has just ended. For a moment
	// it is cancelled with the task.
	afterEnd bool

	// siblings: what RunUntil serves may have been started by another function
	// that was called with the same ctx.
	siblings bool

	// closers: a context that is closed by code which a function on it waits
	// for, or comes to wait for. For a moment what the context has accepted is
	// related to that function.
	closers bool
}{
	afterEnd: false,
	siblings: true,
	closers:  false,
}
