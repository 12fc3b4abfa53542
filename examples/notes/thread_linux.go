package main

import "syscall"

// threadsKnown says whether threadID tells threads apart on this system.
const threadsKnown = true

// threadID is the kernel's number of the thread we are on. It asks the kernel
// rather than the library, which is what it is here to check.
func threadID() int { return syscall.Gettid() }
