package nesting

// A counter counts what programs with portals, and on loops, really come to.
type counter int

const (
	uncounted counter = iota
	portalFromGoroutine
	portalFromThread
	portalFromOwnLoop
	portalFromOtherLoop
	portalFromPosted
	portalSoon
	portalStartTask
	portalWrap
	portalRefused
	portalServed
	portalProvided
	portalTold
	raceRan
	raceRefused
	raceNotBegun
	portalCancelled
	parkedCancelled
	timedOut
	looseOnLoop
	panicOnLoop
	goexitOnLoop
	counters
)

func (c counter) String() string {
	return [...]string{"nothing", "portal calls from goroutines", "portal calls from threads", "portal calls from tasks of the portal's loop",
		"portal calls from tasks of other loops", "portal calls from posted functions", "tasks of StartSoon", "tasks of StartTask",
		"resources of Wrap", "refused after a stop", "functions on a thread that waits for a portal call", "leases of providers",
		"errors that Close told", "accepted before a stop", "refused by a racing stop", "cancelled by a racing stop",
		"cancelled functions of portals", "cancelled waits of parked tasks", "timeouts on loops", "loose functions on loops",
		"panics on loops", "Goexits on loops"}[c]
}
