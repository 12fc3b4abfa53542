package deadlock

import (
	"slices"
	"strings"

	"asyncsync.dev/internal/core"
)

// TakeMatching is [Take] for the threads alone that text is found in, in either
// case: in the name of the context, in where it was made, or in the name of a call
// that runs or is queued there. The report has as many of these as any has, however
// many threads there are beside them; MoreThreads counts those that match too.
// Waits, limiters, pools and loops are not left out for this.
func TakeMatching(text string) *Report {
	s := runtimeSource.sample()
	s.match = strings.ToLower(text)
	return s.report(0, 0)
}

// matching returns the threads of a sample that a report is to choose from.
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
