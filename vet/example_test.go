package vet_test

import (
	"fmt"

	"asyncsync.dev/vet"
)

// A driver of its own, or a list of analyzers that a project has already, takes
// them like any.
func ExampleAnalyzers() {
	for _, a := range vet.Analyzers() {
		fmt.Println(a.Name)
	}
	// Output:
	// handleescape
	// heldmutex
	// lockedtask
	// lostclose
	// lostlease
	// outerctx
	// plaingo
	// rawwait
}
