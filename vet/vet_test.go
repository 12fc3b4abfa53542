package vet_test

import (
	"testing"

	"golang.org/x/tools/go/analysis/analysistest"

	// What the test data is compiled against, so that the result of these tests
	// is not taken from the cache when it changes.
	_ "asyncsync.dev/asyncsync"
	_ "asyncsync.dev/deadlock"
	_ "asyncsync.dev/loop"
	_ "asyncsync.dev/task"

	"asyncsync.dev/vet"
	_ "golang.org/x/sync/errgroup"
)

// Each analyzer has a package of test data, in which comments say what is to be
// reported, and where. What has no comment is not to be.
func TestAnalyzers(t *testing.T) {
	for _, a := range vet.Analyzers() {
		t.Run(a.Name, func(t *testing.T) {
			t.Parallel()
			analysistest.RunWithSuggestedFixes(t, ".", a, "./testdata/"+a.Name+"/...")
		})
	}
}
