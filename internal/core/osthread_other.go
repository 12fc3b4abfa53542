//go:build !linux

package core

// osThread returns 0: this system's thread ids are not asked for.
func osThread() int64 { return 0 }

// onFirstThread says no: on this system it is not known.
func onFirstThread() bool { return false }
