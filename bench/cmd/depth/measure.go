package main

import (
	"runtime"
	"runtime/metrics"
	"time"
)

// A scale says how much is measured.
type scale struct {
	depths     []int
	panicDepth int
	contexts   int // many of them
	threads    int // for these
	values     int // goroutines that hold one
	parked     int // tasks that wait
}

func sizes(quick bool) scale {
	if quick {
		return scale{depths: powers(16), panicDepth: 16, contexts: 200, threads: 10, values: 100, parked: 1000}
	}
	return scale{depths: powers(4096), panicDepth: 1000, contexts: 10_000, threads: 100, values: 10_000, parked: 100_000}
}

// powers returns the powers of two up to n.
func powers(n int) []int {
	var all []int
	for d := 1; d <= n; d *= 2 {
		all = append(all, d)
	}
	return all
}

// A bencher takes the figures of one child process.
type bencher struct {
	scale
	each time.Duration // for one figure
	put  func(name string, value float64)
}

// A batch does something n times.
type batch func(n int) error

// A cost is that of doing it once.
type cost struct{ ns, bytes, allocs float64 }

// price finds what doing it once costs, spending about d on it, after half of
// that to get going: spinning is learned. f is called with so small an n that a
// change for the worse in the midst of it cannot keep it for long.
func price(d time.Duration, f batch) (cost, error) {
	allocated() // the first time allocates a lot itself
	n := 1
	if err := f(n); err != nil {
		return cost{}, err
	}
	for first := time.Now(); ; {
		start := time.Now()
		if err := f(n); err != nil {
			return cost{}, err
		}
		took := time.Since(start)
		if took >= d/16 {
			if time.Since(first) >= d/2 {
				break
			}
			continue
		}
		// Not by more than tenfold: the first calls tell little of the rest.
		n = min(10*n, int(float64(n)*float64(d/16)/float64(max(took, 1))*1.2)+1)
	}
	var done int
	var took time.Duration
	before := allocated()
	for start := time.Now(); took < d; took = time.Since(start) {
		if err := f(n); err != nil {
			return cost{}, err
		}
		done += n
	}
	after := allocated()
	per := func(x float64) float64 { return x / float64(done) }
	return cost{per(float64(took.Nanoseconds())), per(after.bytes - before.bytes), per(after.allocs - before.allocs)}, nil
}

// priceAll prices some that are to be compared, in turns.
func priceAll(d time.Duration, fs ...batch) ([]cost, error) {
	const turns = 5
	ns, bytes, allocs := make([][]float64, len(fs)), make([][]float64, len(fs)), make([][]float64, len(fs))
	for range turns {
		for i, f := range fs {
			c, err := price(d/turns, f)
			if err != nil {
				return nil, err
			}
			ns[i], bytes[i], allocs[i] = append(ns[i], c.ns), append(bytes[i], c.bytes), append(allocs[i], c.allocs)
		}
	}
	all := make([]cost, len(fs))
	for i := range fs {
		all[i] = cost{summarize(ns[i]).median, summarize(bytes[i]).median, summarize(allocs[i]).median}
	}
	return all, nil
}

// priceBoth prices two.
func priceBoth(d time.Duration, f, g batch) (x, y float64, err error) {
	cs, err := priceAll(d, f, g)
	if err != nil {
		return 0, 0, err
	}
	return cs[0].ns, cs[1].ns, nil
}

// allocated returns what has been allocated since the start of the process.
func allocated() (c cost) {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/allocs:objects"}}
	metrics.Read(s)
	return cost{bytes: float64(s[0].Value.Uint64()), allocs: float64(s[1].Value.Uint64())}
}

// usage is the memory and the goroutines that are in use.
type usage struct{ heap, stack, goroutines float64 }

func inUse() usage {
	// Twice: what is kept for reuse survives one collection.
	runtime.GC()
	runtime.GC()
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(s)
	return usage{float64(s[0].Value.Uint64()), float64(s[1].Value.Uint64()), float64(runtime.NumGoroutine())}
}
