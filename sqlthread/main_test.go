package sqlthread

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"asyncsync.dev/asyncsync"
)

// After the suite no thread has a context, and no goroutine is left but those of
// idle threads, of which the default pool keeps a few for a while.
func TestMain(m *testing.M) {
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

func leaks(before int) error {
	for range 3000 {
		if runtime.NumGoroutine() <= before && asyncsync.ReadStats().Threads == 0 {
			return nil
		}
		time.Sleep(10 * time.Millisecond) // a bounded poll: nobody tells when a goroutine has ended
	}
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return fmt.Errorf("%d goroutines, %d before, and threads %+v:\n%s",
		runtime.NumGoroutine(), before, asyncsync.ReadStats(), stacks)
}
