package core

import (
	"sync/atomic"
)

// count holds what is too rare to be kept by thread.
var count struct {
	cancelled, abandoned, panics, goexits atomic.Uint64
	retired                               atomic.Uint64 // calls of threads that are over
	retiredInline                         atomic.Uint64
	left                                  atomic.Int64 // functions that run though their caller has gone
}

func (e Ending) count() {
	switch {
	case e.Goexit:
		count.goexits.Add(1)
	case e.Panic != nil:
		count.panics.Add(1)
	}
}

// Stats counts since the start of the process.
type Stats struct {
	Threads   int    // that have a goroutine now, adopted ones included
	Queued    int    // calls waiting now
	Calls     uint64 // that ended on a thread they were sent to
	Inline    uint64 // that ran where they were made
	Cancelled uint64 // taken out before they ran
	Abandoned uint64
	Panicked  uint64
	Goexits   uint64

	// AbandonedRunning are the functions, of those that were abandoned, that have
	// not ended yet. Each has a goroutine, or a thread, and nothing bounds them.
	AbandonedRunning int
}

// ReadStats returns the counts.
func ReadStats() Stats {
	s := Stats{
		Cancelled: count.cancelled.Load(),
		Abandoned: count.abandoned.Load(),
		Panicked:  count.panics.Load(),
		Goexits:   count.goexits.Load(),

		AbandonedRunning: int(count.left.Load()),
	}
	live.Lock()
	defer live.Unlock()
	s.Calls = count.retired.Load()
	s.Inline = count.retiredInline.Load()
	for t := range live.threads {
		if t.gid.Load() != 0 { // not an unpinned one that nobody holds
			s.Threads++
		}
		t.mu.Lock()
		s.Calls += t.calls
		s.Queued += t.waiting
		t.mu.Unlock()
		s.Inline += t.inline.Load()
	}
	return s
}
