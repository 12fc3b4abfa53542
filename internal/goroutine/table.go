package goroutine

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// The table maps goroutine ids to records. It is a hash table in 64 shards, each
// open-addressed with linear probing; writers of a shard lock it, readers take no lock
// and write nothing, so that any number of goroutines on any number of processors look
// themselves up without invalidating one another's cache lines.
//
// That is sound because a goroutine looks up no id but its own. The entry it looks for is
// written and removed by itself alone, so all that others can do to it meanwhile is to
// move it into a new array, and for that these hold:
//
//   - in one array, a cell that has ever been used never becomes unused again, so a probe
//     that is under way never stops short of the entry it looks for;
//   - an array that has been replaced is never written again, so a reader that still
//     holds it finds there what was copied from it.
//
// The obvious alternative, a map under a sync.RWMutex, costs two atomic additions per
// lookup, to a word shared with all goroutines of the shard.
type shard struct {
	cells atomic.Pointer[cells] // nil until the first insertion

	mu   sync.Mutex // guards what follows, and writing to cells
	live int        // entries
	used int        // cells that are or were entries, in the current array

	_ [128 - 8 - 8 - 8 - 8]byte // no two shards on a cache line, nor on a pair of them
}

// cells is an array of a power of two of cells, at most half of them used.
type cells struct {
	shift uint // how far to shift a hash to get an index
	cell  []cell
}

type cell struct {
	id  atomic.Int64 // unusedCell, removedCell, or the id
	rec atomic.Pointer[Record]
}

const (
	unusedCell  = 0
	removedCell = -1

	shardBits = 6
	minCells  = 16
)

var shards [1 << shardBits]shard

// hash spreads ids, which are nearly consecutive numbers, over 64 bits. The top shardBits
// choose the shard, the next ones the cell.
func hash(id int64) uint64 { return uint64(id) * 0x9e3779b97f4a7c15 }

func (c *cells) index(h uint64) uint64 { return h << shardBits >> c.shift }

// lookup returns the record of the calling goroutine, whose id is id.
func lookup(id int64) *Record {
	h := hash(id)
	c := shards[h>>(64-shardBits)].cells.Load()
	if c == nil {
		return nil
	}
	mask := uint64(len(c.cell) - 1)
	for i := c.index(h); ; i++ {
		e := &c.cell[i&mask]
		switch e.id.Load() {
		case id:
			return e.rec.Load()
		case unusedCell:
			return nil
		}
	}
}

// insert adds r, whose id must not be in the table.
func insert(r *Record) {
	h := hash(r.ID)
	s := &shards[h>>(64-shardBits)]
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.cells.Load(); c == nil || 2*(s.used+1) > len(c.cell) {
		s.rebuild()
	}
	if s.cells.Load().put(h, r) {
		s.used++
	}
	s.live++
}

// remove takes r out of the table, if it is there.
func remove(r *Record) {
	h := hash(r.ID)
	s := &shards[h>>(64-shardBits)]
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.cells.Load()
	if c == nil {
		return
	}
	mask := uint64(len(c.cell) - 1)
	for i := c.index(h); ; i++ {
		e := &c.cell[i&mask]
		switch e.id.Load() {
		case unusedCell:
			return
		case r.ID:
			if e.rec.Load() != r {
				return // r was released before, and its goroutine has a new record
			}
			e.id.Store(removedCell)
			e.rec.Store(nil)
			s.live--
			if len(c.cell) > minCells && 16*s.live < len(c.cell) {
				s.rebuild()
			}
			return
		}
	}
}

// rebuild replaces the shard's array by one that suits the live entries and has no
// removed cells. At most a third of it is used then, so the next rebuild is many
// insertions away, whatever the size. The caller holds s.mu.
func (s *shard) rebuild() {
	size := minCells
	if n := 3 * (s.live + 1); n > size {
		size = 1 << bits.Len(uint(n-1))
	}
	next := &cells{shift: uint(64 - bits.Len(uint(size-1))), cell: make([]cell, size)}
	if c := s.cells.Load(); c != nil {
		for i := range c.cell {
			if r := c.cell[i].rec.Load(); r != nil {
				next.put(hash(r.ID), r)
			}
		}
	}
	s.used = s.live
	s.cells.Store(next)
}

// put writes r to the first free cell and reports whether that one was unused before. The
// record goes in before the id: the id makes the entry.
func (c *cells) put(h uint64, r *Record) (wasUnused bool) {
	mask := uint64(len(c.cell) - 1)
	for i := c.index(h); ; i++ {
		e := &c.cell[i&mask]
		if was := e.id.Load(); was == unusedCell || was == removedCell {
			e.rec.Store(r)
			e.id.Store(r.ID)
			return was == unusedCell
		}
	}
}

// liveRecords returns the number of entries.
func liveRecords() int {
	n := 0
	for i := range shards {
		s := &shards[i]
		s.mu.Lock()
		n += s.live
		s.mu.Unlock()
	}
	return n
}
