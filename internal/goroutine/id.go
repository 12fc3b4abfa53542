// Package goroutine answers the question "which goroutine is this?" and keeps
// one [Record] for each goroutine that the library remembers something about:
// its goroutine-local values, the thread that it is, and the call-tree node that it
// runs.
//
// # Who may use a record
//
// A record belongs to its goroutine. Elsewhere only its ID, which never changes, may be
// read, except by code that keeps the goroutine asleep. So it needs no lock. The only shared structure is the table from
// id to record (table.go), and its readers take no lock either.
//
// # How long a record lives
//
// Go does not tell when a goroutine ends. The code that starts a goroutine that
// may get a record must call [Record.Release] at its end, in a deferred
// function. A goroutine started by other code keeps its record until the record
// is [Record.Empty] and is released. Goroutine ids are never reused, so a
// record left behind costs memory but can never be mistaken for another
// goroutine's.
//
// # Where it comes from
//
// The values are Python's contextvars (one immutable map, swapped as a whole,
// so that a fork copies a pointer). The critical values are asgiref's
// Local(thread_critical=True) with the exit functions of POSIX thread keys.
package goroutine

import (
	"bytes"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/petermattis/goid"
)

// How ID gets its answer. The source is settled at the first call and, tests aside, never
// changes afterwards.
const (
	sourceUnsettled uint32 = iota
	sourceFast             // goid.Get, found to agree with the stack header
	sourceSlow             // the stack header itself
)

var source atomic.Uint32

// ID returns the id of the calling goroutine: the number that stack traces print, unique
// for the life of the process.
//
// It reads the id from the runtime's own goroutine descriptor, at an offset that package
// goid knows for each Go release: about a nanosecond. The first call compares that answer
// with the header of [runtime.Stack] on several goroutines. If they disagree, as they
// might under a Go release that moved the field, every call from then on parses the
// header (about a microsecond, and exact), and one warning is logged.
func ID() int64 {
	if source.Load() == sourceFast {
		return goid.Get()
	}
	return slowID()
}

// slowID is kept out of ID so that ID can be inlined.
//
//go:noinline
func slowID() int64 {
	if source.Load() == sourceUnsettled {
		settle(goid.Get)
		if source.Load() == sourceFast {
			return goid.Get()
		}
	}
	return headerID()
}

// settle chooses the source. Several goroutines may get here at once: each does the whole
// check, the first to finish decides and logs. A sync.Once would be the obvious tool and
// the wrong one: the log handler may call ID, and a goroutine in a synctest bubble should
// not wait on a lock for one outside.
func settle(fast func() int64) {
	choice := sourceSlow
	if agrees(fast) {
		choice = sourceFast
	}
	if source.CompareAndSwap(sourceUnsettled, choice) && choice == sourceSlow {
		slog.Warn("asyncsync: goroutine ids do not match the runtime's stack headers; using the slower, exact source",
			"go", runtime.Version(), "arch", runtime.GOARCH)
	}
}

// agrees reports whether fast gives the right id on the calling goroutine and on a few
// others, all alive at the same time.
func agrees(fast func() int64) bool {
	var (
		wrong atomic.Bool
		wg    sync.WaitGroup
	)
	check := func() {
		if id := fast(); id <= 0 || id != headerID() {
			wrong.Store(true)
		}
	}
	alive := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			check()
			<-alive
			check()
		})
	}
	check()
	close(alive)
	wg.Wait()
	return !wrong.Load()
}

// headerSize has room for the longest header up to where its labels begin:
//
//	goroutine 21 gp=0xc000182380 m=4 mp=0xc000080008 [running, locked to thread, synctest bubble 1]:
const headerSize = 256

// headerID returns the id in the header of the caller's stack trace.
func headerID() int64 {
	var buf [headerSize]byte
	return parseID(buf[:runtime.Stack(buf[:], false)])
}

// Bubble returns the number of the [testing/synctest] bubble that the calling goroutine
// belongs to, 0 outside of bubbles. Two goroutines are in the same bubble when their
// numbers are equal.
//
// Outside of a bubble it costs one reading of the clock.
func Bubble() int64 {
	if !maybeBubbled(time.Now()) {
		return 0
	}
	var buf [headerSize]byte
	return parseBubble(buf[:runtime.Stack(buf[:], false)])
}

// A bubble's clock starts at the beginning of the year 2000, and its readings have no
// monotonic part. The second sign finds a bubble that has slept for decades, the first
// one would outlive a Go release that changed the second. Either may be true outside (a
// computer without a clock battery; a year in which Time has no room for a monotonic
// part), so they only call for a closer look.
func maybeBubbled(now time.Time) bool {
	const year2020 = 1577836800
	return now.Unix() < year2020 || now == now.Round(0)
}

var (
	idPrefix     = []byte("goroutine ")
	labelsPrefix = []byte(" labels:{")
	bubblePrefix = []byte("synctest bubble ")
)

// parseID returns the id in a stack header, 0 if there is none.
func parseID(header []byte) int64 {
	rest, ok := bytes.CutPrefix(header, idPrefix)
	if !ok {
		return 0
	}
	return leadingInt(rest)
}

// parseBubble returns the bubble's number in a stack header, 0 if there is none. Labels
// are chosen by the program and may say anything, so they are cut off.
func parseBubble(header []byte) int64 {
	header, _, _ = bytes.Cut(header, []byte{'\n'})
	header, _, _ = bytes.Cut(header, labelsPrefix)
	_, rest, ok := bytes.Cut(header, bubblePrefix)
	if !ok {
		return 0
	}
	return leadingInt(rest)
}

func leadingInt(s []byte) int64 {
	var n int64
	for _, c := range s {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + int64(c-'0')
	}
	return n
}
