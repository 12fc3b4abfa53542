//go:build !linux

package asyncsync_test

// Other systems do not tell us about their threads without cgo: see
// needThreads, which skips the tests that cannot do without.

func threadExists(int) bool { return false }
func setThreadName(string)  {}
func threadName() string    { return "" }
