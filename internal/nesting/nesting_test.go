package nesting

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/internal/spin"
)

// patience is how long a program may take. It bounds a hang, it is no part of
// any assertion.
const patience = 30 * time.Second

// warm starts what stays: the default thread.
func warm(t testing.TB) {
	t.Helper()
	if _, err := asyncsync.ToThread(context.Background(), func(context.Context) (int, error) { return 0, nil }); err != nil {
		t.Fatal(err)
	}
}

// settled waits until there are no more than n goroutines: those that have
// done their work take a moment to go.
func settled(n int) bool {
	for i := 0; runtime.NumGoroutine() > n; i++ {
		if i > 2000 {
			return false
		}
		runtime.Gosched()
		if i > 20 {
			time.Sleep(time.Millisecond)
		}
	}
	return true
}

// die reports a hang and ends the process: what hangs may hold locks that any
// more orderly end of the test would wait for.
func die(name string, err error, p *Program) {
	fmt.Fprintf(os.Stderr, "--- FAIL: %s: %v\n\n%v\n", name, err, p)
	os.Exit(1)
}

// try runs one program and compares.
func try(t testing.TB, p *Program, mode Mode, name string) *Result {
	t.Helper()
	goroutines := runtime.NumGoroutine()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var ledger *Ledger

	if p.Ops%8 == 3 {
		ledger = OpenLedger()
	}
	got, err := Run(ctx, p, mode)
	cancel()
	if errors.Is(err, ErrHung) {
		die(name, err, p)
	}
	if err == nil {
		err = Check(p, got)
	}
	if err == nil && !settled(goroutines) {
		stacks := make([]byte, 1<<20)
		err = errors.New("goroutines are left:\n" + string(stacks[:runtime.Stack(stacks, true)]))
	}
	if ledger != nil {
		if more := ledger.Close(got); err == nil {
			err = more
		}
	}
	if err != nil {
		t.Fatalf("%s: %v\n\n%v", name, err, p)
	}
	return got
}

// watched watches for as long as the test lasts. No program hangs, and so none may look
// as if it did: suspected returns what does. What is on its way for a moment only is
// not seen twice.
func watched(t testing.TB) (suspected func() *deadlock.Verdict) {
	var verdict atomic.Pointer[deadlock.Verdict]
	interval := 500 * time.Millisecond
	if s := os.Getenv("NESTING_INTERVAL"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatal(err)
		}
		interval = d
	}
	t.Cleanup(deadlock.Watch(deadlock.Config{Interval: interval, OnVerdict: func(v deadlock.Verdict) {
		if v.Kind == deadlock.Probable {
			verdict.Store(&v)
		}
	}}))
	return verdict.Load
}

// seeds are those of n programs, or of short ones where time is, and how many they are.
// A long run logs how far it is.
func seeds(t testing.TB, n, short uint64) (all iter.Seq[uint64], count uint64) {
	t.Helper()
	if testing.Short() || raceEnabled {
		n = short
	}
	if s := os.Getenv("NESTING_COUNT"); s != "" {
		n = number(t, s)
	}
	first := uint64(0)
	if s := os.Getenv("NESTING_FIRST"); s != "" {
		first = number(t, s)
	}
	return func(yield func(uint64) bool) {
		for i := range n {
			if i > 0 && i%10_000 == 0 {
				t.Logf("%d programs of %d", i, n)
			}
			if !yield(first + i) {
				return
			}
		}
	}, n
}

// seen fails the test if the programs have not come to each of these.
func seen(t *testing.T, total *[counters]int, programs uint64, all ...counter) {
	t.Helper()
	for _, c := range all {
		t.Logf("%6d %v", total[c], c)
		if programs >= 300 && total[c] == 0 {
			t.Errorf("no %v in %d programs", c, programs)
		}
	}
}

// TestNestings runs random programs. NESTING_SEED=n runs that of one seed,
// again and again with -count; NESTING_COUNT says how many instead of the
// default, NESTING_FIRST with which to begin. NESTING_INTERVAL is that of the
// watcher: longer where other processes keep the processors busy, for a program
// that does not get to run looks as if it were stuck.
func TestNestings(t *testing.T) {
	warm(t)
	if s := os.Getenv("NESTING_SEED"); s != "" {
		seed := number(t, s)
		p := program(seed)
		t.Logf("seed %d:\n%v", seed, p)
		for _, mode := range []Mode{Watched, Unwatched} {
			try(t, p, mode, "NESTING_SEED="+s)
		}
		return
	}
	all, _ := seeds(t, 4000, 800)
	defer spin.Set(0)
	suspected := watched(t)
	for seed := range all {
		// Programs are too short for a thread to learn that spinning pays.
		spin.Set(int(seed % 4 / 3))
		name := "NESTING_SEED=" + strconv.FormatUint(seed, 10)
		try(t, program(seed), Mode(seed%2), name)
		if v := suspected(); v != nil {
			t.Fatalf("%s, or one before it: %v\n\n%v", name, *v, program(seed))
		}
	}
}

// TestNestingsOnLoops runs random programs with tasks on thread loops.
// NESTING_COUNT and NESTING_FIRST are as above.
func TestNestingsOnLoops(t *testing.T) {
	warm(t)
	all, n := seeds(t, 1000, 300)
	suspected := watched(t)
	tasks := 0
	for seed := range all {
		cfg := Config{Loops: 1 + int(seed%3), Ops: 60, Roots: 4}
		if seed%4 == 3 {
			cfg.Ops, cfg.Roots, cfg.Depth = 150, 8, 6
		}
		p := Generate(rand.New(rand.NewPCG(seed, 5)), cfg)
		tasks += p.tasksOnLoops()
		name := fmt.Sprintf("NESTING_FIRST=%d NESTING_COUNT=1", seed)
		try(t, p, Mode(seed%2), name)
		if v := suspected(); v != nil {
			t.Fatalf("%s, or one before it: %v\n\n%v", name, *v, p)
		}
	}
	t.Logf("%d functions on loops", tasks)
	if n >= 100 && tasks < int(n) {
		t.Errorf("only %d functions on loops in %d programs", tasks, n)
	}
}

// count runs random programs that cfg makes of their seeds, n of them, or short, and
// fails if one of the operations in what occurs in none.
func count(t *testing.T, n, short, salt uint64, cfg func(uint64) Config, what ...counter) {
	t.Helper()
	warm(t)
	all, n := seeds(t, n, short)
	suspected := watched(t)
	var total [counters]int
	for seed := range all {
		p := Generate(rand.New(rand.NewPCG(seed, salt)), cfg(seed))
		name := fmt.Sprintf("NESTING_FIRST=%d NESTING_COUNT=1", seed)
		got := try(t, p, Mode(seed%2), name)
		for c := range total {
			total[c] += int(got.Counts[c].Load())
		}
		if v := suspected(); v != nil {
			t.Fatalf("%s, or one before it: %v\n\n%v", name, *v, p)
		}
	}
	seen(t, &total, n, what...)
}

// TestPortals runs random programs with portals. NESTING_COUNT and NESTING_FIRST are as
// above.
func TestPortals(t *testing.T) {
	count(t, 500, 120, 6, portals, portalFromGoroutine, portalFromThread, portalFromOwnLoop, portalFromOtherLoop, portalFromPosted,
		portalSoon, portalStartTask, portalWrap, portalRefused, portalServed, portalProvided, portalTold, raceRan, raceRefused, raceNotBegun)
}

// TestEndsOnLoops runs random programs whose tasks on loops are cancelled, timed out,
// abandoned, and end by panics and Goexits. NESTING_COUNT and NESTING_FIRST are as above.
func TestEndsOnLoops(t *testing.T) {
	count(t, 600, 150, 7, endsOnLoops, parkedCancelled, timedOut, looseOnLoop, panicOnLoop, goexitOnLoop, portalCancelled)
}

func portals(seed uint64) Config {
	cfg := Config{Loops: 1 + int(seed%3), Portals: 1 + int(seed/3%3), Ops: 60, Roots: 4}
	if seed%4 == 3 {
		cfg.Ops, cfg.Roots, cfg.Depth = 150, 8, 6
	}
	return cfg
}

func endsOnLoops(seed uint64) Config {
	cfg := Config{Loops: 1 + int(seed%3), Ends: true, Ops: 60, Roots: 4}
	if seed%2 == 1 {
		cfg.Portals = 1 + int(seed/2%2)
	}
	switch seed % 8 {
	case 3:
		cfg.Ops, cfg.Roots, cfg.Depth = 150, 8, 6
	case 4, 5:
		cfg.Ops, cfg.Roots, cfg.Contexts, cfg.Loose = 150, 6, 3, true
	}
	return cfg
}

func plantedOnLoops(seed uint64) Config {
	cfg := Config{Plant: true, Loops: 1 + int(seed%3), Ops: 60, Roots: 3}
	if seed%2 == 1 {
		cfg.Portals = 2
	}
	return cfg
}

// TestEveryKind makes programs until they have had every kind of operation.
func TestEveryKind(t *testing.T) {
	missing := map[kind]bool{}
	for k := range features.operations {
		missing[k] = true
	}
	var see func(b *Body)
	see = func(b *Body) {
		if b == nil {
			return
		}
		for _, o := range b.Ops {
			delete(missing, o.Kind)
			see(o.Body)
			see(o.Between)
			for _, b := range o.Bodies {
				see(b)
			}
		}
	}
	for seed := uint64(0); len(missing) > 0; seed++ {
		if seed == 2000 {
			t.Fatalf("no program has one of %v", slices.Sorted(maps.Keys(missing)))
		}
		for salt, cfg := range map[uint64]Config{6: portals(seed), 7: endsOnLoops(seed), 8: plantedOnLoops(seed)} {
			for _, r := range Generate(rand.New(rand.NewPCG(seed, salt)), cfg).Roots {
				see(r.Body)
			}
		}
	}
}

// TestBubbles runs programs in synctest bubbles, each of which sees at once
// whether anything waits for ever, and ends when nothing of it is left.
// NESTING_COUNT and NESTING_FIRST are as above.
func TestBubbles(t *testing.T) {
	all, _ := seeds(t, 400, 400)
	for seed := range all {
		name := fmt.Sprintf("NESTING_FIRST=%d NESTING_COUNT=1", seed)
		p := Generate(rand.New(rand.NewPCG(seed, 4)), Config{})
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			got, err := Run(ctx, p, Bubble|Mode(seed%2))
			if errors.Is(err, ErrHung) {
				die(name, err, p)
			}
			if err == nil {
				err = Check(p, got)
			}
			if err != nil {
				t.Fatalf("%s: %v\n\n%v", name, err, p)
			}
		})
	}
}

// TestPlanted runs programs that have a cycle in them: somebody is told, and
// the program ends. NESTING_COUNT and NESTING_FIRST are as above.
func TestPlanted(t *testing.T) {
	warm(t)
	all, n := seeds(t, 2000, 400)
	reached := 0
	for seed := range all {
		p := Generate(rand.New(rand.NewPCG(seed, 3)), Config{Plant: true})
		if p.Planted == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		got, err := Run(ctx, p, Mode(seed%2))
		cancel()
		if err != nil {
			die(fmt.Sprintf("NESTING_FIRST=%d NESTING_COUNT=1", seed), err, p)
		}
		if !got.Reached {
			continue // something before it has failed
		}
		reached++
		if got.Told == 0 {
			t.Fatalf("NESTING_FIRST=%d NESTING_COUNT=1: nobody was told\n\n%v", seed, p)
		}
	}
	t.Logf("%d of %d programs came to their cycle", reached, n)
}

// TestPlantedOnLoops runs programs that have a cycle in them which goes through tasks of
// loops, portals, mutexes and limiters. NESTING_COUNT and NESTING_FIRST are as above.
func TestPlantedOnLoops(t *testing.T) {
	warm(t)
	all, n := seeds(t, 1000, 300)
	total := map[string]int{}
	for seed := range all {
		p := Generate(rand.New(rand.NewPCG(seed, 8)), plantedOnLoops(seed))
		if p.Planted == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		got, err := Run(ctx, p, Mode(seed%2))
		cancel()
		if err != nil {
			die(fmt.Sprintf("NESTING_FIRST=%d NESTING_COUNT=1", seed), err, p)
		}
		if !got.Reached {
			continue // something before it has failed
		}
		if got.Told == 0 {
			t.Fatalf("NESTING_FIRST=%d NESTING_COUNT=1: nobody was told of a cycle through %v\n\n%v", seed, p.Trail, p)
		}
		for _, through := range p.Trail.kinds() {
			total[through]++
		}
	}
	for _, through := range []string{"thread", "loop", "two loops", "portal", "mutex", "limiter"} {
		t.Logf("%6d cycles through %s", total[through], through)
		if n >= 1000 && total[through] == 0 {
			t.Errorf("no cycle through %s", through)
		}
	}
}

func number(t testing.TB, s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func program(seed uint64) *Program {
	cfg := Config{}
	switch seed % 8 {
	case 4, 5:
		cfg = Config{Ops: 150, Roots: 6, Contexts: 3, Loose: true}
	case 6:
		cfg = Config{Ops: 100, Roots: 6, Contexts: 2, Pools: 2}
	case 7:
		cfg = Config{Ops: 150, Roots: 8, Depth: 5, Contexts: 2} // a crowd
	}
	return Generate(rand.New(rand.NewPCG(seed, 0)), cfg)
}

// bytesSource takes random numbers from bytes: each decides the high bits of
// one number, so that to change a byte changes one choice.
type bytesSource struct {
	data []byte
	rest *rand.PCG
}

func (s *bytesSource) Uint64() uint64 {
	n := s.rest.Uint64()
	if len(s.data) == 0 {
		return n
	}
	b := s.data[0]
	s.data = s.data[1:]
	return uint64(b)<<56 | n>>8
}

func FuzzNesting(f *testing.F) {
	warm(f)
	f.Add([]byte{})
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 1))
		data := make([]byte, 40<<(seed%4))
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg := Config{Loose: len(data)%4 == 3}
		p := Generate(rand.New(&bytesSource{data, rand.NewPCG(uint64(len(data)), 2)}), cfg)
		try(t, p, Mode(len(data)%2), "this input")
	})
}
