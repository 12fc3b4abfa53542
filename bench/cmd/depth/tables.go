package main

import (
	"slices"
	"strconv"
)

// A line is a line of the chart, and a group of rows of the second table.
type line struct{ name, what string }

// lines returns the engines and what they are compared with.
func lines() []line {
	var all []line
	for _, e := range engines {
		all = append(all, line{e.name, e.what})
	}
	for _, s := range snakes {
		all = append(all, line{s.module, "Python: " + s.module})
	}
	return all
}

// shallow is where what is in use is too little to be divided: stacks grow by
// doubling.
const shallow = 64

// mainPlaces returns those of ps that have columns.
func mainPlaces(ps []place) []place {
	var some []place
	for _, p := range ps {
		if p == oneCore || p == twoCores {
			some = append(some, p)
		}
	}
	return some
}

// callTable is the table of single calls.
func callTable(rs results, ps []place) string {
	ps = mainPlaces(ps)
	g := grid{left: 1}
	head := []string{"call"}
	for _, p := range ps {
		head = append(head, p.title)
	}
	g.add(head...)
	rows := slices.Concat(calls, []kind{forced}, floors)
	for _, s := range snakes {
		rows = append(rows, kind{name: s.module, what: "Python: " + s.module})
	}
	for _, k := range rows {
		row, any := []string{k.what}, false
		for _, p := range ps {
			f, ok := rs.of(value(p, "call", k.name))
			row = append(row, cell(f, ok, inTime))
			any = any || ok
		}
		if any {
			g.add(row...)
		}
	}
	return g.String()
}

// depthTable is the table of nested calls.
func depthTable(rs results, ps []place, depths []int) string {
	ps = mainPlaces(ps)
	g := grid{left: 1}
	head := []string{"engine", "depth"}
	for _, p := range ps {
		head = append(head, "a level, "+p.title)
	}
	g.add(append(head, "allocated a level", "in use: heap", "stack", "goroutines")...)
	for _, l := range lines() {
		for _, d := range depths {
			row, any := []string{l.name, strconv.Itoa(d)}, false
			for _, p := range ps {
				f, ok := rs.of(value(p, "level", l.name, d))
				row = append(row, cell(f, ok, inTime))
				any = any || ok
			}
			if !any {
				continue
			}
			for _, m := range []string{"allocated", "heap", "stack"} {
				f, ok := rs.of(value(oneCore, m, l.name, d))
				ok = ok && (m == "allocated" || d >= shallow)
				row = append(row, middle(f, ok, inBytes))
			}
			f, ok := rs.of(value(oneCore, "goroutines", l.name, d))
			g.add(append(row, middle(f, ok, asCount))...)
		}
	}
	return g.String() + `
default is a ThreadSensitiveContext, unpinned one with Unpinned(), samethread one
whose AsyncToSync functions have SameThread() and whose descents begin on the
thread, and fresh what one would write by hand: a locked goroutine, a goroutine
and a channel for each level, a channel for each call. Allocated is all that a
level allocates; in use is what a level has at the bottom, where goroutines is
the number that the descent has added.
`
}

func cell(f figure, ok bool, unit string) string {
	if !ok {
		return "–"
	}
	return f.in(unit)
}

// middle writes the median only.
func middle(f figure, ok bool, unit string) string {
	switch {
	case !ok:
		return "–"
	case unit == inBytes:
		return strconv.FormatFloat(f.median, 'f', 0, 64) + " B"
	default:
		return digits(f.median)
	}
}
