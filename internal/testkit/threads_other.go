//go:build !linux

package testkit

// ThreadID is the id of the calling OS thread, 0 on systems that do not tell.
func ThreadID() int { return 0 }

// CountOSThreads counts the threads that the kernel runs for this process; it returns 0
// on systems that do not tell.
func CountOSThreads() int { return 0 }
