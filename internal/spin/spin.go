// Package spin lets two sides that hand work to each other look for each other's word
// for a few microseconds before they sleep, and learns when that pays.
//
// It knows nothing of threads and calls: a side looks at a word that the other side
// changes, with [Until]. A [Spin] says whether, and for how long.
package spin

import (
	"runtime"
	"sync/atomic"
	"time"
)

// A Spin is what one thread and its callers have learned about spinning. Its zero value
// is ready to use.
//
// Two kernel switches are what a call to a sleeping thread costs, and spinning is the
// one way around them for threads that are called in quick succession. But it pays only
// while both sides do it, on processors that nobody else wants: once one side has gone
// to sleep, waking it takes longer than the other is willing to spin, and every call
// then costs its switches and the spinning. So it is off at first, tried now and then,
// kept while it hits, and given up for longer and longer while it misses.
//
// A caller that has woken the thread does not spin: the woken goroutine sits in the
// waker's own run queue, and is stolen from there only after a sleep longer than the
// budget. The thread does, for longer, to get back into step. Neither side yields on a
// locked goroutine, which costs two switches itself.
type Spin struct {
	// on is what both sides go by; written by the thread's goroutine.
	on atomic.Bool
	// missed counts callers that spun in vain.
	missed atomic.Uint32
	// Limit is how long to look, in nanoseconds, 0 for the default. Set before the
	// thread is shared.
	Limit int64

	_ [48]byte // callers read the cache line above; the rest is the thread's

	// Never turns spinning off. Set before the thread has a goroutine: by configuration,
	// for unpinned threads, and in synctest bubbles, whose clock stands still while a
	// goroutine runs, so that no spin would end.
	Never bool

	// Of the thread's goroutine only.
	seen    uint32 // of missed
	misses  int
	hits    int
	skip    int // calls until the next trial
	backoff int
}

// How long, in nanoseconds, and how often.
const (
	patience   = 20_000  // how long either side looks in step
	trial      = 160_000 // while the peer has to be stolen from our run queue
	maxMisses  = 12
	manyHits   = 256 // after which the back-off begins anew
	minBackoff = 64
	maxBackoff = 1 << 16
)

// spinners counts the goroutines that spin now in the whole process, beyond the first
// moment. More than there are processors would take turns on them. It has a cache line
// of its own: what lies around it is read at every call.
var spinners struct {
	_ [64]byte
	atomic.Int32
	_ [60]byte
}

// mode forces the decision, for tests: 0 learns, 1 always, -1 never.
var mode atomic.Int32

// Set forces spinning on, off, or leaves it to be learned (0). It is for
// tests and benchmarks.
func Set(to int) { mode.Store(int32(to)) }

// Processors returns how many goroutines can run at once. It remembers the answer for
// Until, because asking takes a lock.
func Processors() int {
	n := min(runtime.GOMAXPROCS(0), runtime.NumCPU())
	procs.Store(int32(n))
	return n
}

// On reports whether both sides spin now.
func (s *Spin) On() bool { return s.on.Load() }

// CallerMissed says that a caller has spun in vain.
func (s *Spin) CallerMissed() { s.missed.Add(1) }

// Ended counts one call that was run.
func (s *Spin) Ended() {
	if !s.on.Load() {
		s.skip--
	}
}

// Budget returns how long the thread, which has nothing to do, may look for
// something. woke says that its last caller slept, and so sits in the run queue
// of this thread's processor: then it takes long to come back, or for ever.
func (s *Spin) Budget(woke bool) int64 {
	if s.Never {
		return 0
	}
	switch mode.Load() {
	case 1:
		s.on.Store(true)
		if woke {
			return s.trial()
		}
		return s.Patience()
	case -1:
		s.on.Store(false)
		return 0
	}
	if !s.on.Load() {
		if s.skip > 0 {
			return 0
		}
		if s.backoff == 0 {
			s.backoff = minBackoff
			s.skip = s.backoff
			return 0
		}
		if Processors() < 2 {
			s.skip = maxBackoff
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
	if s.misses >= maxMisses {
		s.stop()
		return 0
	}
	if woke {
		return s.trial()
	}
	return s.Patience()
}

// Patience is how long, in nanoseconds, either side looks.
func (s *Spin) Patience() int64 {
	if s.Limit != 0 {
		return s.Limit
	}
	return patience
}

// trial is how long the thread looks while its peer is not in step yet.
func (s *Spin) trial() int64 { return s.Patience() * (trial / patience) }

// Hit says that a spin of the thread has seen the word change.
func (s *Spin) Hit() {
	s.hits++
	if s.misses > 0 && s.hits&3 == 0 {
		s.misses--
	}
	if s.hits >= manyHits {
		s.hits, s.backoff = 0, minBackoff
	}
}

// Miss says that a spin of the thread has ended in vain.
func (s *Spin) Miss() {
	s.misses += 2
	if s.misses >= maxMisses && mode.Load() == 0 {
		s.stop()
	}
}

func (s *Spin) stop() {
	s.on.Store(false)
	s.misses, s.hits = 0, 0
	s.skip = s.backoff
	s.backoff = min(2*s.backoff, maxBackoff)
}

// Until spins until word is no longer old, and returns true, or until the budget, in
// nanoseconds, is spent. It returns false early if more goroutines spin than can run at
// once.
//
// Where both sides are in step the first round sees it, and touches nothing
// that others write.
func Until(word *atomic.Uint32, old uint32, budget int64) bool {
	if changed(word, old, firstLooks) {
		return true
	}
	if int(spinners.Add(1)) > remembered() {
		spinners.Add(-1)
		return false
	}
	defer spinners.Add(-1)
	spins.Add(1)
	start := time.Now()
	for {
		if changed(word, old, looksPerRound) {
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
	firstLooks    = 2048
	looksPerRound = 512
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

// Count returns the number of spins that did not end in their first moment, for tests.
func Count() uint64 { return spins.Load() }

var spins atomic.Uint64

// remembered is what Processors has returned last.
func remembered() int {
	if n := procs.Load(); n != 0 {
		return int(n)
	}
	return Processors()
}

var procs atomic.Int32
