package deadlock

import (
	"slices"
	"strings"

	"asyncsync.dev/internal/core"
)

// TakeMatching is [Take] for those threads only that contain text, ignoring
// case: in the name of the context, in the place where it was made, or in the
// name of a call that runs or is queued there. The report's limits apply to
// these threads alone, and MoreThreads counts only threads that match. Waits,
// limiters, pools and loops are not filtered.
func TakeMatching(text string) *Report {
	s := runtimeSource.sample()
	s.match = strings.ToLower(text)
	return s.report(0, 0)
}

// matching returns the threads of a sample that a report may contain.
func (s *sample) matching() []core.ThreadState {
	if s.match == "" {
		return slices.Clone(s.graph.Threads)
	}
	var kept []core.ThreadState
	has := func(text string) bool { return strings.Contains(strings.ToLower(text), s.match) }
	call := func(c core.CallState) bool { return has(c.Name) }
	for _, t := range s.graph.Threads {
		if has(t.Name) || t.Made.Func != "" && has(t.Made.String()) || slices.ContainsFunc(t.Stack, call) || slices.ContainsFunc(t.Queue, call) {
			kept = append(kept, t)
		}
	}
	return kept
}
