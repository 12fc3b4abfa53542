package core

// LinedPools returns how many pools somebody waits in line for.
func LinedPools() int {
	lines.Lock()
	defer lines.Unlock()
	return len(lines.pools)
}

// Repeaters returns how many repeaters there are, and for how many functions they
// have something to do.
func Repeaters() (repeaters, queued int) {
	repeats.mu.Lock()
	defer repeats.mu.Unlock()
	for _, r := range repeats.all {
		queued += len(r.queue)
	}
	return len(repeats.all), queued
}

// AfterPart has f called after each part of a graph, until restore is called.
func AfterPart(f func()) (restore func()) {
	afterPart = f
	return func() { afterPart = func() {} }
}

// ReadEdges is readEdges.
func ReadEdges(f func()) { readEdges(f) }
