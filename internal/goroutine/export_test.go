package goroutine

import "time"

// Unsettle makes the next ID choose its source again.
func Unsettle() { source.Store(sourceUnsettled) }

// Settle lets ID choose its source with fast in the role of goid.Get. Call Unsettle before and after.
func Settle(fast func() int64) { settle(fast) }

// Slow reports whether ID reads stack headers.
func Slow() bool { return source.Load() == sourceSlow }

func HeaderID() int64 { return headerID() }

func ParseID(header string) int64 { return parseID([]byte(header)) }

func ParseBubble(header string) int64 { return parseBubble([]byte(header)) }

func MaybeBubbled(now time.Time) bool { return maybeBubbled(now) }

// Lookup, Insert and Remove work on the table with any id.
func Lookup(id int64) *Record { return lookup(id) }

func Insert(r *Record) { insert(r) }

func Remove(r *Record) { remove(r) }

// Cells returns the size of the table, in cells.
func Cells() int {
	n := 0
	for i := range shards {
		s := &shards[i]
		s.mu.Lock()
		if c := s.cells.Load(); c != nil {
			n += len(c.cell)
		}
		s.mu.Unlock()
	}
	return n
}

const (
	Shards   = len(shards)
	MinCells = minCells
)
