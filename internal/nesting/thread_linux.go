package nesting

import "syscall"

// osThread is the id of the calling OS thread, 0 where we cannot know it.
func osThread() int { return syscall.Gettid() }
