package core

// LinedPools returns how many pools somebody waits in line for.
func LinedPools() int {
	lines.Lock()
	defer lines.Unlock()
	return len(lines.pools)
}
