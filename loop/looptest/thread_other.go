//go:build !linux

package looptest

// threadID returns 0: here nothing tells OS threads apart.
func threadID() int { return 0 }
