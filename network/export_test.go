package network

// Lines returns how many directions are in use.
func Lines() int {
	lines.Lock()
	defer lines.Unlock()
	return len(lines.of)
}

// Operations returns how many operations are under way, or wait for their turn.
func Operations() (n int) {
	lines.Lock()
	defer lines.Unlock()
	for _, l := range lines.of {
		n += l.users
	}
	return n
}
