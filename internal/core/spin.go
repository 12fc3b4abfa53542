package core

import (
	"runtime"
	"sync/atomic"
	"time"
)

// A spin is the learned decision of one thread and its callers to look for
// each other's word for a few microseconds before they sleep.
//
// Two kernel switches are what a call to a sleeping thread costs, and spinning
// is the one way around them for threads that are called in quick succession.
// But it pays only while both sides do it, on processors that nobody else
// wants: once one side has gone to sleep, waking it takes longer than the other
// is willing to spin, and every call then costs its switches and the spinning.
// So it is off at first, tried now and then, kept while it hits, and given up
// for longer and longer while it misses.
//
// A caller who has woken the thread does not spin: the woken goroutine sits in
// the waker's own run queue, and is stolen from there only after a sleep longer
// than the budget. The thread does, for longer, to get back into step. Nobody
// yields on a locked goroutine, which costs two switches itself.
type spin struct {
	// on is what both sides go by; written by the thread's goroutine.
	on atomic.Bool
	// missed counts callers that spun in vain.
	missed atomic.Uint32
	// limit is how long to look, in nanoseconds, 0 for spinBudget. Set before
	// the thread is shared.
	limit int64

	_ [40]byte // callers read on and limit; the rest is the thread's

	// never is set before the thread is shared, for those in synctest bubbles:
	// their clock stands still while a goroutine runs, so no spin would end.
	never bool

	// Of the thread's goroutine only.
	seen    uint32 // of missed
	misses  int
	hits    int
	skip    int // calls until the next trial
	backoff int
}

// How long, in nanoseconds, and how often.
const (
	spinBudget     = 20_000  // must exceed the time it takes to wake a thread
	spinTrial      = 160_000 // while the peer has to be stolen from our run queue
	spinMisses     = 12
	spinHits       = 256 // after which the back-off begins anew
	spinMinBackoff = 64
	spinMaxBackoff = 1 << 16
)

// spinners counts who spins now in the whole process, beyond the first moment.
// More than there are processors would take turns on them. It has a cache line
// of its own: what lies around it is read at every call.
var spinners struct {
	_ [64]byte
	atomic.Int32
	_ [60]byte
}

// spinMode forces the decision, for tests: 0 learns, 1 always, -1 never.
var spinMode atomic.Int32

// SetSpin forces spinning on, off, or leaves it to be learned (0). It is for
// tests and benchmarks.
func SetSpin(mode int) { spinMode.Store(int32(mode)) }

func processors() int { return min(runtime.GOMAXPROCS(0), runtime.NumCPU()) }

// ended counts one call that was run.
func (s *spin) ended() {
	if !s.on.Load() {
		s.skip--
	}
}

// budget returns how long the thread, which has nothing to do, may look for
// something. woke says that its last caller slept, and so sits in the run queue
// of this thread's processor: then it takes long to come back, or for ever.
func (s *spin) budget(woke bool) int64 {
	if s.never {
		return 0
	}
	switch spinMode.Load() {
	case 1:
		s.on.Store(true)
		if woke {
			return s.trial()
		}
		return s.patience()
	case -1:
		s.on.Store(false)
		return 0
	}
	if !s.on.Load() {
		if s.skip > 0 {
			return 0
		}
		if s.backoff == 0 {
			s.backoff = spinMinBackoff
			s.skip = s.backoff
			return 0
		}
		n := processors()
		procs.Store(int32(n))
		if n < 2 {
			s.skip = spinMaxBackoff
			return 0
		}
		s.seen = s.missed.Load()
		s.misses = 0
		s.on.Store(true)
		return s.trial()
	}
	if m := s.missed.Load(); m != s.seen {
		s.misses += int(m - s.seen)
		s.seen = m
	}
	if s.misses >= spinMisses {
		s.stop()
		return 0
	}
	if woke {
		return s.trial()
	}
	return s.patience()
}

// patience is how long either side looks.
func (s *spin) patience() int64 {
	if s.limit != 0 {
		return s.limit
	}
	return spinBudget
}

// trial is how long the thread looks while its peer is not in step yet.
func (s *spin) trial() int64 { return s.patience() * (spinTrial / spinBudget) }

// hit and miss tell how a spin of the thread ended.
func (s *spin) hit() {
	s.hits++
	if s.misses > 0 && s.hits&3 == 0 {
		s.misses--
	}
	if s.hits >= spinHits {
		s.hits, s.backoff = 0, spinMinBackoff
	}
}

func (s *spin) miss() {
	s.misses += 2
	if s.misses >= spinMisses && spinMode.Load() == 0 {
		s.stop()
	}
}

func (s *spin) stop() {
	s.on.Store(false)
	s.misses, s.hits = 0, 0
	s.skip = s.backoff
	s.backoff = min(2*s.backoff, spinMaxBackoff)
}

// lookout spins until word is no longer old, or the budget, in nanoseconds, is
// spent. It reports false for the last.
//
// Where both sides are in step the first round sees it, and touches nothing
// that others write.
func lookout(word *atomic.Uint32, old uint32, budget int64) bool {
	if changed(word, old, spinFirst) {
		return true
	}
	if int(spinners.Add(1)) > processorsNow() {
		spinners.Add(-1)
		return false
	}
	defer spinners.Add(-1)
	spins.Add(1)
	start := time.Now()
	for {
		if changed(word, old, spinRound) {
			return true
		}
		if int64(time.Since(start)) > budget {
			return false
		}
	}
}

// How often a spin looks before it counts as one, and between two looks at the
// clock.
const (
	spinFirst = 2048
	spinRound = 512
)

// changed reports whether word becomes different from old, looking so many
// times.
func changed(word *atomic.Uint32, old uint32, times int) bool {
	for range times {
		if word.Load() != old {
			return true
		}
	}
	return false
}

// Spins counts the spins that did not end in their first moment, for tests.
func Spins() uint64 { return spins.Load() }

var spins atomic.Uint64

// processorsNow is processors, remembered: GOMAXPROCS takes a lock.
func processorsNow() int {
	if n := procs.Load(); n != 0 {
		return int(n)
	}
	n := processors()
	procs.Store(int32(n))
	return n
}

var procs atomic.Int32
