package vet

import (
	"golang.org/x/tools/go/analysis/passes/ctrlflow"

	"asyncsync.dev/vet/internal/sites"
)

var lostLease = newAnalyzer("lostlease", `find leases of a pool that are not released

What HandlePool.Acquire returns is to be released on every path. The value of a lease
that is not stays taken for ever: nobody else gets it, also when the lease has been
collected, and Close of the pool waits for it.`, runLostLease, ctrlflow.Analyzer)

// leased says the same for what is to be released.
var leased = map[sites.Name]opening{
	{Pkg: "asyncsync", Recv: "HandlePool", Name: "Acquire"}: {"lease", 0, 1},
}

func runLostLease(p *pass) {
	(&losing{p, leased, []string{"Release"}, "released"}).run()
}
