package network

// Lines returns how many directions are in use.
func Lines() int {
	lines.Lock()
	defer lines.Unlock()
	return len(lines.of)
}
