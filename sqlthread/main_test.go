package sqlthread

import (
	"os"
	"testing"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
)

// After the suite no thread has a context, and no goroutine is left. The default pool
// keeps idle threads for 10 s.
func TestMain(m *testing.M) {
	os.Exit(testkit.Main(m, 0, nil,
		testkit.Count{What: "threads with a context", Now: func() int { return asyncsync.ReadStats().Threads }}))
}
