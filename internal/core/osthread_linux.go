package core

import "syscall"

// osThread returns the id of the OS thread that the caller runs on.
func osThread() int64 { return int64(syscall.Gettid()) }

// onFirstThread reports whether the caller runs on the first thread of the
// process.
func onFirstThread() bool { return syscall.Gettid() == syscall.Getpid() }
