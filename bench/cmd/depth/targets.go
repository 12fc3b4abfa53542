package main

import (
	"fmt"
	"slices"
)

// A promise is a bound that this module is to keep on any machine: a ratio to
// what was measured beside it or, where nothing else can be expected, a figure.
type promise struct {
	number  int
	what    string
	limit   float64
	atLeast bool // a lower bound, not an upper one
	unit    string
	pick    pick
	needs   string // what is missing where it was not measured
}

// kept reports whether x keeps p.
func (p promise) kept(x float64) bool {
	if p.atLeast {
		return x >= p.limit
	}
	return x <= p.limit
}

func (p promise) bound() string {
	sign := "≤ "
	if p.atLeast {
		sign = "≥ "
	}
	return sign + quantity(p.limit, p.unit)
}

// What a figure may need.
const (
	needTwo     = "needs two processors"
	needFutex   = "needs a C compiler, and Linux"
	needPython  = "needs -python, asgiref"
	needAnyio   = "needs -python, anyio"
	needDeep    = "needs more depth"
	needNothing = "was not measured"
)

// promises returns those of calls and nesting, for what is measured at some places.
func promises(s scale, places []place) []promise {
	one := func(name ...any) pick { return value(oneCore, name...) }
	two := func(name ...any) pick { return value(twoCores, name...) }
	spins := func(at place) pick { return over(value(at, "spinning", "learned"), value(at, "spinning", "off")) }
	// The total at twice the depth to the total, at its worst.
	doubled := func(at func(...any) pick) pick {
		var all []pick
		for i, d := range s.depths[1:] {
			half := at("level", "default", s.depths[i])
			all = append(all, over(plus(at("level", "default", d), at("level", "default", d)), half))
		}
		return greatest(all...)
	}
	deepOnTwo := needDeep
	if !slices.Contains(places, twoCores) {
		deepOnTwo = needTwo
	}
	var same, memory []pick
	for _, d := range s.depths {
		same = append(same, one("level", "samethread", d))
		if slices.Contains(places, twoCores) {
			same = append(same, two("level", "samethread", d))
		}
		if d >= 256 {
			memory = append(memory, plus(one("heap", "default", d), one("stack", "default", d)))
		}
	}
	deepest := s.depths[len(s.depths)-1]
	crowded := func(at func(...any) pick) pick { return over(at("crowd", "request"), at("crowd", "calls")) }

	return []promise{
		{1, "call on its own thread", 10, false, inTime, one("call", "inline"), needNothing},
		{1, "call on its own thread, to a plain call", 6, false, asRatio, over(one("call", "inline"), one("call", "plain")), needNothing},
		{2, "round trip, asleep, to a channel's", 1.15, false, asRatio, over(one("call", "hop"), one("call", "channel")), needNothing},
		{2, "round trip, asleep, to a futex's", 2, false, asRatio, over(one("call", "hop"), one("call", "futex")), needFutex},
		{3, "round trip, one core, GOMAXPROCS=2, to one that never spins", 1.2, false, asRatio, spins(oneCoreTwoProcs), needNothing},
		{3, "round trip, two cores, GOMAXPROCS=1, to one that never spins", 1.2, false, asRatio, spins(twoCoresOneProc), needTwo},
		{4, "a channel's round trip, to this module's, awake", 60, true, asRatio, over(two("call", "channel"), two("call", "hop")), needTwo},
		{4, "round trip, awake, to that of two threads that spin", 3, false, asRatio, over(two("call", "hop"), two("call", "spin")), needTwo},
		{5, "round trip, busy processors, to one that never spins", 1.3, false, asRatio, over(two("burners", "learned"), two("burners", "off")), needTwo},
		{5, "work of others meanwhile, to that without spinning", 0.9, true, asRatio, over(two("burners", "work-learned"), two("burners", "work-off")), needTwo},
		{6, "call, 64 pipelined, one core", 1000, false, inTime, one("many", "pipelined"), needNothing},
		{6, "call, 64 pipelined, two cores, spinning off", 1000, false, inTime, two("many", "pipelined"), needTwo},
		{6, "call, 100 callers, one core", 1000, false, inTime, one("many", "callers"), needNothing},
		{6, "call, 100 callers, two cores, spinning off", 1000, false, inTime, two("many", "callers"), needTwo},
		{7, "round trip, unpinned", 60, false, inTime, one("call", "unpinned"), needNothing},
		{8, "level at depth 16, awake, to a round trip", 4, false, asRatio, over(two("level", "default", 16), two("call", "hop")), needTwo},
		{8, "level at depth 16, asleep, to a round trip", 2.2, false, asRatio, over(one("level", "default", 16), one("call", "hop")), needNothing},
		{8, "level at depth 16 by hand, to this module's, awake", 40, true, asRatio, over(two("level", "fresh", 16), two("level", "default", 16)), needTwo},
		{9, "level at depth 1024, to one at 16, one core", 1.2, false, asRatio, over(one("level", "default", 1024), one("level", "default", 16)), needDeep},
		{9, "level at depth 1024, to one at 16, two cores", 1.2, false, asRatio, over(two("level", "default", 1024), two("level", "default", 16)), deepOnTwo},
		{9, "total at twice a depth, to that at it, worst, one core", 2.2, false, asRatio, doubled(one), needNothing},
		{9, "total at twice a depth, to that at it, worst, two cores", 2.2, false, asRatio, doubled(two), needTwo},
		{10, "memory in use a level, worst from depth 256 on", 2048, false, inBytes, greatest(memory...), needDeep},
		{10, "goroutines at the greatest depth, beyond those at 1", 0, false, asCount,
			minus(one("goroutines", "default", deepest), one("goroutines", "default", 1)), needNothing},
		{11, "level, SameThread, worst of all depths and places", 250, false, inTime, greatest(same...), needNothing},
		{12, "descent to 1000 and panic up, a level, awake", 2000, false, inTime, two("panic", "panicked"), needTwo},
		{12, "panic up from 1000, beyond a return, a level, one core", 2000, false, inTime, minus(one("panic", "panicked"), one("panic", "returned")), needNothing},
		{13, "context, unused", 50, false, inTime, one("context", "unused"), needNothing},
		{13, "context, unused: allocations", 1, false, asCount, one("context", "unused-allocs"), needNothing},
		{13, "context with one call, to a round trip, one core", 1.2, false, asRatio, over(one("context", "request"), one("context", "call")), needNothing},
		{14, fmt.Sprintf("threads for %d contexts at a time", s.contexts), float64(s.threads), false, asCount, one("crowd", "threads"), needNothing},
		{14, "each, with three calls, to three contended ones, one core", 1.5, false, asRatio, crowded(one), needNothing},
		{14, "each, with three calls, to three contended ones, two cores", 1.5, false, asRatio, crowded(two), needTwo},
		{15, fmt.Sprintf("local variable of %d goroutines", s.values), 25, false, inTime, one("local", "get"), needNothing},
		{16, "asgiref's round trip, to this module's, one core", 5, true, asRatio, over(one("call", "asgiref"), one("call", "hop")), needPython},
		{16, "asgiref's level at depth 16, to this module's, one core", 8, true, asRatio, over(one("level", "asgiref", 16), one("level", "default", 16)), needPython},
		{16, "asgiref's context with one call, to this module's, one core", 10, true, asRatio, over(one("context", "asgiref"), one("context", "request")), needPython},
		{16, "asgiref's level at depth 16, to this module's, awake", 100, true, asRatio, over(two("level", "asgiref", 16), two("level", "default", 16)), needPython},
	}
}

// A verdict is what the rounds say of a promise.
type verdict struct {
	promise
	figure
	measured bool
}

func judge(rs results, ps []promise) []verdict {
	var all []verdict
	for _, p := range ps {
		f, ok := rs.of(p.pick)
		all = append(all, verdict{p, f, ok})
	}
	return all
}

// met reports whether the median keeps the promise.
func (v verdict) met() bool { return v.measured && v.kept(v.median) }

func (v verdict) String() string {
	switch {
	case !v.measured:
		return v.needs
	case v.met():
		return "met"
	default:
		return "NOT MET"
	}
}

// targetTable is the table of promises.
func targetTable(rs results, ps []promise) string {
	g := grid{left: 3}
	g.add("", "promise", "", "bound", "measured")
	met, measured := 0, 0
	for _, v := range judge(rs, ps) {
		if v.measured {
			measured++
		}
		if v.met() {
			met++
		}
		g.add(fmt.Sprintf("%2d", v.number), v.what, v.String(), v.bound(), cell(v.figure, v.measured, v.unit))
	}
	return g.String() + fmt.Sprintf("\n%d of %d met, %d not measured.\n", met, measured, len(ps)-measured)
}
