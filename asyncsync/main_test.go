package asyncsync_test

import (
	"flag"
	"os"
	"runtime"
	"testing"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/spin"
	"asyncsync.dev/internal/testkit"
)

// After the whole suite no goroutine is left but the default thread of the
// process, and no OS thread in the default pool once that is closed.
func TestMain(m *testing.M) {
	mode := flag.Int("spin", 0, "1 has threads and callers always spin before they sleep, -1 never")
	flag.Parse()
	spin.Set(*mode)
	os.Exit(testkit.Main(m, 1,
		func() {
			core.DefaultPool.Close()
			runtime.GC() // contexts that tests have dropped
		},
		testkit.Count{What: "threads of the default pool", Now: func() int { return core.DefaultPool.Stats().Threads }},
		testkit.Count{What: "threads with a context", Now: func() int { return asyncsync.ReadStats().Threads }, Kept: 1}))
}
