package asyncsync_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"unsafe"
)

// threadExists reports whether this process has a thread of that id.
func threadExists(tid int) bool {
	_, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", tid))
	return err == nil
}

// setThreadName names the calling thread in the kernel (15 bytes at most). Only
// for a goroutine that is locked to its thread.
func setThreadName(name string) {
	const prSetName = 15
	text := append([]byte(name), 0)
	if len(text) > 16 {
		panic("thread name too long: " + name)
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prSetName, uintptr(unsafe.Pointer(&text[0])), 0); errno != 0 {
		panic(errno)
	}
}

// threadName asks the kernel for the calling thread's name.
func threadName() string {
	text, err := os.ReadFile("/proc/thread-self/comm")
	if err != nil {
		panic(err)
	}
	return strings.TrimSuffix(string(text), "\n")
}
