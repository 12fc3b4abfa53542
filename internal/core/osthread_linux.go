package core

import "syscall"

// osThread returns the id of the OS thread that the caller runs on.
func osThread() int64 { return int64(syscall.Gettid()) }
