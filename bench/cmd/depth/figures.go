package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// A round is what was read in one round, by place and name: "one:call/hop".
type round map[string]float64

// results are the rounds of a run.
type results []round

// A pick is what is computed from one round; false if the round does not have
// what it takes.
type pick func(round) (float64, bool)

// value picks one reading.
func value(at place, name ...any) pick {
	parts := make([]string, len(name))
	for i, n := range name {
		parts[i] = fmt.Sprint(n)
	}
	key := at.name + ":" + strings.Join(parts, "/")
	return func(r round) (float64, bool) {
		v, ok := r[key]
		return v, ok
	}
}

func both(a, b pick, f func(x, y float64) float64) pick {
	return func(r round) (float64, bool) {
		x, ok := a(r)
		y, ok2 := b(r)
		return f(x, y), ok && ok2
	}
}

func over(a, b pick) pick {
	return both(a, b, func(x, y float64) float64 { return x / y })
}

func minus(a, b pick) pick {
	return both(a, b, func(x, y float64) float64 { return x - y })
}

func plus(a, b pick) pick {
	return both(a, b, func(x, y float64) float64 { return x + y })
}

// whole picks the whole part of p: of what is allocated each time there is no other.
func whole(p pick) pick {
	return func(r round) (float64, bool) {
		x, ok := p(r)
		return math.Floor(x), ok
	}
}

// greatest picks the greatest of all of ps.
func greatest(ps ...pick) pick {
	return func(r round) (float64, bool) {
		m := math.Inf(-1)
		for _, p := range ps {
			x, ok := p(r)
			if !ok {
				return 0, false
			}
			m = max(m, x)
		}
		return m, len(ps) > 0
	}
}

// of summarizes p over the rounds that have it.
func (rs results) of(p pick) (figure, bool) {
	var xs []float64
	for _, r := range rs {
		if x, ok := p(r); ok {
			xs = append(xs, x)
		}
	}
	if len(xs) == 0 {
		return figure{}, false
	}
	return summarize(xs), true
}

// A figure is what the rounds come to.
type figure struct{ median, min, max float64 }

func summarize(xs []float64) figure {
	xs = slices.Clone(xs)
	slices.Sort(xs)
	n := len(xs)
	return figure{(xs[(n-1)/2] + xs[n/2]) / 2, xs[0], xs[n-1]}
}

// Units of figures.
const (
	inTime  = "ns"
	inBytes = "B"
	asRatio = "×"
	asCount = ""
)

// multiple returns the multiple of a unit that suits x, and how much it is.
func multiple(x float64, unit string) (string, float64) {
	switch {
	case unit == inTime && math.Abs(x) >= 1e6:
		return "ms", 1e6
	case unit == inTime && math.Abs(x) >= 1e3:
		return "µs", 1e3
	case unit == inBytes && math.Abs(x) >= 1024:
		return "KB", 1024
	}
	return unit, 1
}

// quantity writes x in a multiple of a unit that suits it.
func quantity(x float64, unit string) string {
	unit, by := multiple(x, unit)
	return digits(x/by) + suffix(unit)
}

func suffix(unit string) string {
	if unit == asRatio || unit == asCount {
		return unit
	}
	return " " + unit
}

// in writes f in a multiple of a unit that suits the median; where the extremes
// of a time are far from it they have units of their own.
func (f figure) in(unit string) string {
	least, most := quantity(f.min, unit), quantity(f.max, unit)
	own, by := multiple(f.median, unit)
	if unit != inTime || f.min == 0 || math.Abs(f.min/by) >= 0.01 {
		least, most = digits(f.min/by), digits(f.max/by)
	}
	return digits(f.median/by) + suffix(own) + " (" + least + "–" + most + ")"
}

// digits writes x with three of them, or more where there are more before the
// point, and none after it for integers.
func digits(x float64) string {
	decimals := 0
	switch a := math.Abs(x); {
	case x == math.Trunc(x):
	case a < 0.1:
		decimals = 3
	case a < 10:
		decimals = 2
	case a < 100:
		decimals = 1
	}
	return fmt.Sprintf("%.*f", decimals, x)
}

// A grid is a table of text. Its first left columns are aligned to the left,
// the others to the right.
type grid struct {
	left int
	rows [][]string
}

func (g *grid) add(cells ...string) { g.rows = append(g.rows, cells) }

func (g *grid) String() string {
	var widths []int
	for _, row := range g.rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, row := range g.rows {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i > 0 {
				line.WriteString("  ")
			}
			if i < g.left {
				line.WriteString(cell + pad)
			} else {
				line.WriteString(pad + cell)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}
