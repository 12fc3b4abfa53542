// Asyncsyncvet reports mistakes in programs that use asyncsync.dev.
//
//	asyncsyncvet ./...
//	asyncsyncvet -fix ./...
//	go vet -vettool=$(which asyncsyncvet) ./...
//
// With the name of an analyzer as a flag it runs only that one, or with
// -name=false all others; "asyncsyncvet help" lists them. See package
// asyncsync.dev/vet.
package main

import (
	"golang.org/x/tools/go/analysis/multichecker"

	"asyncsync.dev/vet"
)

func main() { multichecker.Main(vet.Analyzers()...) }
