//go:build !linux

package nesting

func osThread() int { return 0 }
