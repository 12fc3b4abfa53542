package main

import (
	"fmt"
	"slices"
)

// loopRows are the rows of the table of loops and portals: a figure and what it is.
// One without a figure is a heading.
var loopRows = slices.Concat([]struct{ name, what string }{
	{"", "One of two tasks lets the other run"},
	{"switch/pull", "iter.Pull, there and back"},
	{"switch/pull-locked", "iter.Pull, there and back, on a locked thread"},
	{"switch/yield", "task.Yield"},
	{"switch/park", "Backend.Park, woken at once"},
	{"switch/asyncio", "Python: asyncio.sleep(0)"},
	{"", "A task that one on the same loop starts and waits for"},
	{"join/pull", "iter.Pull, made and ended"},
	{"join/goroutine", "a goroutine and a channel"},
	{"join/spawn", "Backend.Spawn and Park"},
	{"join/go", "task.Go and Wait"},
	{"join/asyncio", "Python: asyncio.create_task and await"},
	{"", "From a goroutine to a loop that sleeps, nobody looking out"},
	{"away/thread", "asyncsync.ToThread, to a thread that sleeps"},
	{"away/post", "Loop.Post and a channel"},
	{"away/call", "loop.Call"},
	{"away/portal", "portal.Call"},
	{"away/call-ctx", "loop.Call, ctx can end"},
	{"away/portal-ctx", "portal.Call, ctx can end"},
	{"away/soon", "portal.StartSoon and Wait"},
	{"away/soon-ahead", "portal.StartSoon, 64 before the first Wait, each"},
	{"away/anyio-run", "Python: anyio.from_thread.run"},
	{"away/anyio-call", "Python: anyio's portal.call"},
	{"away/anyio-soon", "Python: anyio's portal.start_task_soon, result"},
	{"", "64 callers, each call"},
	{"busy/thread", "asyncsync.ToThread, to a busy thread"},
	{"busy/call", "loop.Call"},
	{"busy/portal", "portal.Call"},
	{"busy/anyio", "Python: anyio's portal.call"},
	{"", "asyncsync.ToThread and back, nobody looking out"},
	{"back/goroutine", "from a goroutine"},
	{"back/task", "from a task of a thread loop"},
	{"back/anyio", "Python: anyio.to_thread.run_sync"},
	{"", "A task that waits is woken, and waits again"},
	{"parked/few", "ten wait"},
	{"parked/same", "100,000 wait, one of always the same ten"},
	{"parked/turn", "100,000 wait, each in turn"},
	{"", "What nobody else wants"},
	{"lock/sync", "sync.Mutex"},
}, lockRows())

func lockRows() (rows []struct{ name, what string }) {
	for _, op := range lockOps {
		for _, c := range lockCallers {
			rows = append(rows, struct{ name, what string }{"lock/" + op.name + "/" + c, op.what + ", in a " + c})
		}
		rows = append(rows, struct{ name, what string }{"lock/" + op.name + "/anyio", "Python: anyio's"})
	}
	return rows
}

// loopTable is the table of loops and portals.
func loopTable(rs results, ps []place) string {
	ps = mainPlaces(ps)
	g := grid{left: 1}
	head := []string{"loop"}
	for _, p := range ps {
		head = append(head, p.title)
	}
	g.add(append(head, "objects")...)
	for _, row := range loopRows {
		if row.name == "" {
			g.add(row.what)
			continue
		}
		cells, any := []string{"  " + row.what}, false
		for _, p := range ps {
			f, ok := rs.of(value(p, row.name))
			cells = append(cells, cell(f, ok, inTime))
			any = any || ok
		}
		if any {
			f, ok := rs.of(value(oneCore, row.name+"-allocs"))
			g.add(append(cells, middle(f, ok, asCount))...)
		}
	}
	s := g.String()
	heap, ok := rs.of(value(oneCore, "parked/heap"))
	stack, ok2 := rs.of(value(oneCore, "parked/stack"))
	if ok && ok2 {
		s += "\nA task that waits takes " + heap.in(inBytes) + " of heap and " + stack.in(inBytes) + " of stack"
		if theirs, ok := rs.of(value(oneCore, "parked/asyncio")); ok {
			s += "; one of\nasyncio takes " + theirs.in(inBytes) + " of the process"
		}
		s += ".\n"
	}
	return s
}

// loopPromises returns what this module promises of loops and portals.
func loopPromises(s scale) []promise {
	var all []promise
	for _, at := range []place{oneCore, twoCores} {
		needs := needNothing
		if at == twoCores {
			needs = needTwo
		}
		of := func(name string) pick { return value(at, name) }
		add := func(p promise) {
			p.what += ", " + at.title
			if p.needs == "" {
				p.needs = needs
			}
			all = append(all, p)
		}
		most := func(number int, what string, limit float64, name, base string) {
			add(promise{number: number, what: what, limit: limit, unit: asRatio, pick: over(of(name), of(base))})
		}
		// Python's are compared where nothing depends on what wakes which processor.
		python := func(number int, what string, limit float64, name, base string) {
			if at == oneCore {
				add(promise{number: number, what: what, limit: limit, atLeast: true, unit: asRatio,
					pick: over(of(name), of(base)), needs: needAnyio})
			}
		}
		none := func(number int, what, name string) {
			add(promise{number: number, what: what, limit: 0, unit: asCount, pick: of(name)})
		}
		most(17, "task.Yield, to an iter.Pull pair", 3, "switch/yield", "switch/pull")
		python(17, "asyncio.sleep(0), to task.Yield", 15, "switch/asyncio", "switch/yield")
		most(18, "Spawn and Park, to iter.Pull made and ended", 3, "join/spawn", "join/pull")
		most(18, "task.Go and Wait, to iter.Pull made and ended", 3, "join/go", "join/pull")
		none(18, "goroutines that 2000 tasks add to a loop", "join/grown")
		none(18, "goroutines that a loop leaves", "join/left")
		most(19, "Post, to ToThread, both asleep", 1.15, "away/post", "away/thread")
		most(19, "loop.Call, to ToThread, both asleep", 1.15, "away/call", "away/thread")
		add(promise{number: 20, what: "a call to a busy loop, 64 callers", limit: 1000, unit: inTime, pick: of("busy/call")})
		most(21, "portal.Call, to loop.Call", 1.3, "away/portal", "away/call")
		most(21, "portal.Call, to loop.Call, ctx can end", 1.3, "away/portal-ctx", "away/call-ctx")
		most(21, "StartSoon and Wait, to loop.Call", 1.3, "away/soon", "away/call")
		python(21, "anyio's portal.call, to portal.Call", 20, "away/anyio-call", "away/portal")
		python(21, "anyio's start_task_soon, to StartSoon and Wait", 20, "away/anyio-soon", "away/soon")
		most(22, "ToThread from a task, to one from a goroutine", 1.3, "back/task", "back/goroutine")
		if at == oneCore {
			add(promise{number: 23, what: fmt.Sprintf("bytes of each of %d tasks that wait", s.parked), limit: 4096,
				unit: inBytes, pick: plus(of("parked/heap"), of("parked/stack"))})
			most(23, "a wake among these, to one among ten", 1.1, "parked/same", "parked/few")
			most(23, "a wake of each of them in turn, to one among ten", 1.1, "parked/turn", "parked/few")
		}
		var times, objects []pick
		for _, op := range lockOps {
			for _, c := range lockCallers {
				times = append(times, of("lock/"+op.name+"/"+c))
				objects = append(objects, of("lock/"+op.name+"/"+c+"-allocs"))
			}
		}
		add(promise{number: 24, what: "Mutex, Event, Limiter: the worst", limit: 40, unit: inTime, pick: greatest(times...)})
		add(promise{number: 24, what: "their allocations: the worst", limit: 0, unit: asCount, pick: whole(greatest(objects...))})
	}
	slices.SortStableFunc(all, func(a, b promise) int { return a.number - b.number })
	return all
}
