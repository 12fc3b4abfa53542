package otelsync

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/core"
)

// After the suite no thread has a context, and no goroutine is left.
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
	core.DefaultPool.Close()
	for range 1000 {
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

// patience bounds a test that hangs. It is no part of any assertion.
const patience = 30 * time.Second

// guard ends the test binary, with all stacks, if the test hangs.
func guard(t *testing.T) {
	t.Helper()
	name := t.Name()
	dog := time.AfterFunc(patience, func() {
		stacks := make([]byte, 1<<22)
		stacks = stacks[:runtime.Stack(stacks, true)]
		fmt.Fprintf(os.Stderr, "%s hangs; all goroutines:\n\n%s\n", name, stacks)
		panic(name + " hangs (stacks above)")
	})
	t.Cleanup(func() { dog.Stop() })
}
