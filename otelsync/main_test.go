package otelsync

import (
	"os"
	"testing"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/testkit"
)

// After the suite no thread has a context, and no goroutine is left.
func TestMain(m *testing.M) {
	os.Exit(testkit.Main(m, 0, func() { core.DefaultPool.Close() },
		testkit.Count{What: "threads with a context", Now: func() int { return asyncsync.ReadStats().Threads }}))
}
