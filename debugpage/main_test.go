package debugpage_test

import (
	"net/http"
	"os"
	"testing"

	"asyncsync.dev/internal/testkit"
)

// After the whole suite no goroutine is left. The default pool keeps idle threads for
// 10 s.
func TestMain(m *testing.M) {
	os.Exit(testkit.Main(m, 0, http.DefaultClient.CloseIdleConnections))
}
