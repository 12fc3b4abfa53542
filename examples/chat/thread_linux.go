package main

import "syscall"

// threadsKnown says whether threadID tells threads apart on this system.
const threadsKnown = true

// threadID is the kernel's number of the thread that calls. The kernel is asked, not
// the library, because the library is what it is here to check.
func threadID() int { return syscall.Gettid() }
