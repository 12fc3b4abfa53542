package goroutine_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/goroutine"
	"asyncsync.dev/internal/testkit"
)

func TestRecordLife(t *testing.T) {
	testkit.SameRecords(t)
	require.Nil(t, goroutine.Current())
	live := goroutine.Live()

	r := goroutine.Ensure()
	assert.Equal(t, goroutine.ID(), r.ID)
	assert.Same(t, r, goroutine.Current())
	assert.Same(t, r, goroutine.Ensure())
	assert.Equal(t, live+1, goroutine.Live())

	atOnce(1, func(int) { assert.Nil(t, goroutine.Current(), "a new goroutine has none") })

	r.Release()
	assert.Nil(t, goroutine.Current())
	assert.Equal(t, live, goroutine.Live())

	next := goroutine.Ensure()
	assert.NotSame(t, r, next)
	r.Release()
	assert.Same(t, next, goroutine.Current(), "a second Release does not touch the new record")
	next.Release()
	next.Release()
	assert.Equal(t, live, goroutine.Live())
}

func TestRecordEmpty(t *testing.T) {
	testkit.SameRecords(t)
	r := goroutine.Ensure()
	defer r.Release()
	require.True(t, r.Empty())

	check := func(what string, set, reset func()) {
		set()
		assert.False(t, r.Empty(), what)
		r.ReleaseIfEmpty()
		assert.Same(t, r, goroutine.Current(), what)
		reset()
		assert.True(t, r.Empty(), what)
	}
	check("value",
		func() { r.Values = r.Values.Set(1, "x") },
		func() { r.Values = r.Values.Delete(1) })
	check("owner", func() { r.Owner = 1 }, func() { r.Owner = nil })
	check("node", func() { r.Node = 1 }, func() { r.Node = nil })
	check("task", func() { r.Task = 1 }, func() { r.Task = nil })
	check("critical value",
		func() { r.SetCritical(1, "x", nil) },
		func() { r.DeleteCritical(1) })

	r.ReleaseIfEmpty()
	assert.Nil(t, goroutine.Current())
}

func TestTenThousandGoroutinesHaveTheirOwnRecords(t *testing.T) {
	testkit.SameRecords(t)
	const n = 10_000
	before := goroutine.Live()
	var set, checked sync.WaitGroup
	set.Add(n)
	checked.Add(1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		atOnce(n, func(i int) {
			r := goroutine.Ensure()
			defer r.Release()
			r.Values = r.Values.Set(1, i)
			set.Done()
			checked.Wait()
			assert.Same(t, r, goroutine.Current())
			x, ok := goroutine.Current().Values.Get(1)
			assert.True(t, ok)
			assert.Equal(t, i, x)
		})
	}()
	set.Wait()
	assert.Equal(t, before+n, goroutine.Live())
	checked.Done()
	<-done
	assert.Less(t, goroutine.Cells(), n, "the table shrinks again")
}

// The table against a map, with ids that collide and ids that follow each other.
func TestTableModel(t *testing.T) {
	testkit.SameRecords(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	ids := func(i int) int64 { return 1<<40 + int64(i)*int64(1+i%3*(1<<20)) }
	for _, span := range []int{3, 40, 1000, 20_000} {
		model := make(map[int64]*goroutine.Record)
		for range 30_000 {
			id := ids(rnd.IntN(span))
			want := model[id]
			if got := goroutine.Lookup(id); got != want {
				require.Same(t, want, got)
			}
			switch {
			case want == nil:
				model[id] = &goroutine.Record{ID: id}
				goroutine.Insert(model[id])
			case rnd.IntN(2) == 0:
				goroutine.Remove(&goroutine.Record{ID: id}) // not the one in the table
			default:
				goroutine.Remove(want)
				delete(model, id)
			}
		}
		for id, r := range model {
			require.Same(t, r, goroutine.Lookup(id))
			goroutine.Remove(r)
		}
	}
	assert.LessOrEqual(t, goroutine.Cells(), 64*goroutine.Shards*goroutine.MinCells)
}

// Each goroutine works on ids of its own, as goroutines do; the shards and their arrays
// are common.
func TestTableConcurrently(t *testing.T) {
	testkit.SameRecords(t)
	atOnce(8, func(g int) {
		rnd := rand.New(rand.NewPCG(uint64(g), 3))
		mine := make(map[int64]*goroutine.Record)
		for range 20_000 {
			id := 1<<41 + int64(rnd.IntN(500)*8+g)
			r := mine[id]
			if goroutine.Lookup(id) != r {
				t.Errorf("id %d: wrong record", id)
				return
			}
			if r == nil {
				mine[id] = &goroutine.Record{ID: id}
				goroutine.Insert(mine[id])
			} else {
				goroutine.Remove(r)
				delete(mine, id)
			}
		}
		for _, r := range mine {
			goroutine.Remove(r)
		}
	})
}

// A goroutine that sets and undoes in a loop must not fill the table with removed cells.
func TestTableDoesNotGrowByTurnover(t *testing.T) {
	testkit.SameRecords(t)
	before := goroutine.Cells()
	for range 10_000 {
		goroutine.Ensure().Release()
	}
	assert.LessOrEqual(t, goroutine.Cells(), before+goroutine.MinCells)
	for i := range int64(100_000) {
		r := &goroutine.Record{ID: 1<<42 + i}
		goroutine.Insert(r)
		goroutine.Remove(r)
	}
	assert.LessOrEqual(t, goroutine.Cells(), before+goroutine.Shards*goroutine.MinCells)
}

func TestCurrentAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	assert.Zero(t, testing.AllocsPerRun(100, func() { goroutine.Current() }), "without a record")
	r := goroutine.Ensure()
	defer r.Release()
	assert.Zero(t, testing.AllocsPerRun(100, func() { goroutine.Current() }), "with a record")
	assert.Zero(t, testing.AllocsPerRun(100, func() { goroutine.Ensure() }))
}

// crowd keeps n goroutines with records alive until the benchmark ends.
func crowd(b *testing.B, n int) {
	var ready, done sync.WaitGroup
	end := make(chan struct{})
	ready.Add(n)
	for range n {
		done.Go(func() {
			defer goroutine.Ensure().Release()
			ready.Done()
			<-end
		})
	}
	ready.Wait()
	b.Cleanup(func() {
		close(end)
		done.Wait()
	})
}

func BenchmarkCurrent(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		b.Run(fmt.Sprintf("goroutines=%d", n), func(b *testing.B) {
			crowd(b, n-1)
			defer goroutine.Ensure().Release()
			for b.Loop() {
				goroutine.Current()
			}
		})
	}
	b.Run("none", func(b *testing.B) {
		crowd(b, 10_000)
		for b.Loop() {
			goroutine.Current()
		}
	})
	b.Run("parallel", func(b *testing.B) {
		crowd(b, 10_000)
		b.RunParallel(func(pb *testing.PB) {
			defer goroutine.Ensure().Release()
			for pb.Next() {
				goroutine.Current()
			}
		})
	})
}

// What Current costs a goroutine that has not run for a while, as with 10,000 goroutines
// taking turns: the ids are looked up in random order, and each record is read.
func BenchmarkLookupCold(b *testing.B) {
	const n = 10_000
	records := make([]*goroutine.Record, n)
	for i := range records {
		records[i] = &goroutine.Record{ID: 1<<43 + int64(i)}
		goroutine.Insert(records[i])
	}
	ids := rand.Perm(n)
	i := 0
	for b.Loop() {
		if i++; i == n {
			i = 0
		}
		if goroutine.Lookup(1<<43+int64(ids[i])).Node != nil {
			b.Fatal("no record has a node")
		}
	}
	for _, r := range records {
		goroutine.Remove(r)
	}
}

func BenchmarkEnsureRelease(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		goroutine.Ensure().Release()
	}
}
