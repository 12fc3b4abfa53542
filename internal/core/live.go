package core

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
)

func enlist(t *Thread) {
	live.Lock()
	if live.threads == nil {
		live.threads = make(map[*Thread]struct{})
	}
	live.threads[t] = struct{}{}
	live.Unlock()
}

func delist(t *Thread) {
	t.mu.Lock()
	calls := t.calls
	t.mu.Unlock()
	live.Lock()
	if _, ok := live.threads[t]; ok {
		delete(live.threads, t)
		count.retired.Add(calls)
		count.retiredInline.Add(t.inline.Load())
	}
	live.Unlock()
}

// liveThreads returns the threads that have a goroutine, and unpinned ones that a caller
// has held and that are not over.
func liveThreads() []*Thread {
	live.Lock()
	defer live.Unlock()
	threads := make([]*Thread, 0, len(live.threads))
	for t := range live.threads {
		threads = append(threads, t)
	}
	return threads
}

// threads returns the threads that have a goroutine, and those in line for one. A
// thread that gets its goroutine meanwhile is among them, once.
func threads() []*Thread {
	lined, all := linedThreads(), liveThreads() // in this order
	if len(lined) == 0 {
		return all
	}
	seen := make(map[*Thread]bool, len(all))
	for _, t := range all {
		seen[t] = true
	}
	for _, t := range lined {
		if !seen[t] {
			all = append(all, t)
		}
	}
	return all
}

// lines holds the pools that somebody waits in line for.
var lines struct {
	sync.Mutex
	pools map[*Pool]struct{}
}

// lineChanged must be called when waiting has changed. p.mu is held.
func (p *Pool) lineChanged() {
	was, is := p.lined.Swap(int32(len(p.waiting))) > 0, len(p.waiting) > 0
	if was == is {
		return
	}
	lines.Lock()
	defer lines.Unlock()
	if !is {
		delete(lines.pools, p)
		return
	}
	if lines.pools == nil {
		lines.pools = make(map[*Pool]struct{})
	}
	lines.pools[p] = struct{}{}
}

// linedThreads returns the threads that wait in line for a worker, of all pools.
func linedThreads() []*Thread {
	lines.Lock()
	pools := make([]*Pool, 0, len(lines.pools))
	for p := range lines.pools {
		pools = append(pools, p)
	}
	lines.Unlock()
	var threads []*Thread
	for _, p := range pools {
		p.mu.Lock()
		threads = append(threads, p.waiting...)
		p.mu.Unlock()
	}
	return threads
}

// lent returns the threads of p that have a goroutine, by id. Those in another bubble
// than p have a worker of their own.
func (p *Pool) lent() []*Thread {
	var lent []*Thread
	for _, t := range liveThreads() {
		if t.pool == p {
			lent = append(lent, t)
		}
	}
	slices.SortFunc(lent, func(a, b *Thread) int { return cmp.Compare(a.id, b.id) })
	return lent
}

// live holds the threads that have a goroutine, and unpinned ones that a caller has held.
var live struct {
	sync.Mutex
	threads map[*Thread]struct{}
}

// count holds what is too rare to be kept by thread.
var count struct {
	cancelled, abandoned, panics, goexits atomic.Uint64
	retired                               atomic.Uint64 // calls of threads that are over
	retiredInline                         atomic.Uint64
	left                                  atomic.Int64 // functions that run though their caller has gone
}

// countEnding counts e in the process-wide counters.
func countEnding(e Ending) {
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
