package core

import (
	"fmt"
	"runtime"
	"strings"
)

// A Site is a place in a program.
type Site struct {
	Func, File string
	Line       int
}

// siteOf returns the place of a return address as [runtime.Callers] gives it.
func siteOf(pc uintptr) Site {
	if pc == 0 {
		return Site{}
	}
	f, _ := runtime.CallersFrames([]uintptr{pc}).Next()
	return Site{f.Function, f.File, f.Line}
}

// String names the place in a few words.
func (s Site) String() string {
	return fmt.Sprintf("%s, %s:%d", s.Func, s.File[strings.LastIndexAny(s.File, `/\\`)+1:], s.Line)
}

// site returns where the caller's user called this module.
func site() string {
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		f, more := frames.Next()
		if !ours(f.Function) && f.Function != "" {
			return fmt.Sprintf("%s:%d", f.File, f.Line)
		}
		if !more {
			return ""
		}
	}
}

// ours reports whether fn is a function of the packages that waits go through.
func ours(fn string) bool {
	for _, p := range []string{"asyncsync.dev/internal/core.", "asyncsync.dev/internal/sched.", "asyncsync.dev/asyncsync.", "asyncsync.dev/task.", "asyncsync.dev/loop.", "runtime.", "sync.", "iter."} {
		if strings.HasPrefix(fn, p) {
			return true
		}
	}
	return false
}
