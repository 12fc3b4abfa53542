package testkit

import (
	"os"
	"syscall"
)

// ThreadID is the id of the calling OS thread, 0 on systems that do not tell.
func ThreadID() int { return syscall.Gettid() }

// CountOSThreads counts the threads that the kernel runs for this process; it returns 0
// on systems that do not tell.
func CountOSThreads() int {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		panic(err)
	}
	return len(threads)
}
