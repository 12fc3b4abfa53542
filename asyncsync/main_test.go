package asyncsync_test

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/spin"
)

// After the whole suite no goroutine is left but the default thread of the
// process, and no OS thread in the default pool once that is closed.
func TestMain(m *testing.M) {
	mode := flag.Int("spin", 0, "1 has threads and callers always spin before they sleep, -1 never")
	flag.Parse()
	spin.Set(*mode)
	before := runtime.NumGoroutine()
	code := m.Run()
	if code == 0 {
		if err := leaks(before); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// leaks waits for goroutines on their way out, which is what the suite's last
// tests leave, and tells of those that stay.
func leaks(before int) error {
	core.DefaultPool.Close()
	if n := core.DefaultPool.Stats().Threads; n != 0 {
		return fmt.Errorf("the default pool has %d threads after Close", n)
	}
	const defaultThread = 1
	for range 1000 {
		runtime.GC() // contexts that tests have dropped
		if runtime.NumGoroutine() <= before+defaultThread && asyncsync.ReadStats().Threads <= defaultThread {
			return nil
		}
		time.Sleep(10 * time.Millisecond) // a bounded poll: nobody tells when a goroutine has ended
	}
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return fmt.Errorf("%d goroutines, %d before, and threads %+v:\n%s",
		runtime.NumGoroutine(), before, asyncsync.ReadStats(), stacks)
}
