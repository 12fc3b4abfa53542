package web_test

import (
	"fmt"
	"net/http"
	"os"
	"runtime"
	"testing"
	"time"
)

// After the whole suite no goroutine is left.
func TestMain(m *testing.M) {
	before := runtime.NumGoroutine()
	code := m.Run()
	if code == 0 && !settles(before) {
		stacks := make([]byte, 1<<20)
		fmt.Fprintf(os.Stderr, "%d goroutines, %d before:\n%s\n", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		code = 1
	}
	os.Exit(code)
}

// settles waits for goroutines on their way out. The default pool keeps idle
// threads for 10 s.
func settles(before int) bool {
	for range 1500 {
		http.DefaultClient.CloseIdleConnections()
		if runtime.NumGoroutine() <= before {
			return true
		}
		time.Sleep(10 * time.Millisecond) // a bounded poll: nobody tells when a goroutine has ended
	}
	return false
}

// guard ends the test binary with the stacks of all goroutines when the test
// hangs.
func guard(t *testing.T) {
	t.Helper()
	name := t.Name()
	dog := time.AfterFunc(30*time.Second, func() {
		stacks := make([]byte, 1<<22)
		fmt.Fprintf(os.Stderr, "%s hangs; all goroutines:\n\n%s\n", name, stacks[:runtime.Stack(stacks, true)])
		panic(name + " hangs (stacks above)")
	})
	t.Cleanup(func() { dog.Stop() })
}

// poll calls check until it has nothing more to complain about.
func poll(t *testing.T, check func() string) {
	t.Helper()
	var complaint string
	for range 1000 {
		if complaint = check(); complaint == "" {
			return
		}
		time.Sleep(5 * time.Millisecond) // a bounded poll
	}
	t.Fatalf("does not settle: %s", complaint)
}
