package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestSummarize(t *testing.T) {
	xs := []float64{5, 1, 3}
	assert.Equal(t, figure{3, 1, 5}, summarize(xs))
	assert.Equal(t, []float64{5, 1, 3}, xs, "the rounds stay in order")
	assert.Equal(t, figure{2.5, 1, 4}, summarize([]float64{4, 2, 3, 1}))
	assert.Equal(t, figure{7, 7, 7}, summarize([]float64{7}))
}

func TestFigureIsWrittenInOneUnit(t *testing.T) {
	for want, got := range map[string]string{
		"4.21 ns (3.90–12.5)":      figure{4.21, 3.9, 12.5}.in(inTime),
		"12.3 µs (0.50–1500)":      figure{12_300, 500, 1_500_000}.in(inTime),
		"1.50 ms (1–2)":            figure{1_500_000, 1_000_000, 2_000_000}.in(inTime),
		"1.71 KB (1–2)":            figure{1750, 1024, 2048}.in(inBytes),
		"0.87× (0.81–1)":           figure{0.87, 0.81, 1}.in(asRatio),
		"0 (0–4096)":               figure{0, 0, 4096}.in(asCount),
		"-2.50 µs (-3.00–1.00)":    figure{-2500, -2999, 999}.in(inTime),
		"5.07 ms (118 ns–7.12 ms)": figure{5_070_000, 118, 7_120_000}.in(inTime),
		"0.050× (0.005–181)":       figure{0.05, 0.005, 181}.in(asRatio),
	} {
		assert.Equal(t, want, got)
	}
}

func TestPicks(t *testing.T) {
	r := round{"one:call/hop": 6, "one:call/channel": 3, "two:level/default/16": 5}
	hop, channel := value(oneCore, "call", "hop"), value(oneCore, "call", "channel")
	level := value(twoCores, "level", "default", 16)
	missing := value(twoCores, "call", "hop")
	for name, c := range map[string]struct {
		pick pick
		want float64
	}{
		"value": {level, 5}, "over": {over(hop, channel), 2}, "minus": {minus(channel, hop), -3},
		"plus": {plus(hop, channel), 9}, "greatest": {greatest(channel, hop, level), 6},
		"whole": {whole(over(level, channel)), 1},
	} {
		got, ok := c.pick(r)
		assert.True(t, ok, name)
		assert.Equal(t, c.want, got, name)
	}
	for _, p := range []pick{missing, over(hop, missing), over(missing, hop), greatest(hop, missing), greatest()} {
		_, ok := p(r)
		assert.False(t, ok)
	}
}

func TestResultsPassOverRoundsThatLackAFigure(t *testing.T) {
	rs := results{{"one:call/hop": 1}, {}, {"one:call/hop": 3}}
	f, ok := rs.of(value(oneCore, "call", "hop"))
	assert.True(t, ok)
	assert.Equal(t, figure{2, 1, 3}, f)
	_, ok = rs.of(value(oneCore, "call", "spin"))
	assert.False(t, ok)
}

func TestRatioIsTakenInEachRound(t *testing.T) {
	rs := results{{"one:a": 10, "one:b": 1}, {"one:a": 20, "one:b": 20}, {"one:a": 30, "one:b": 10}}
	f, _ := rs.of(over(value(oneCore, "a"), value(oneCore, "b")))
	assert.Equal(t, figure{3, 1, 10}, f)
}

func TestGridAlignsRunes(t *testing.T) {
	g := grid{left: 1}
	g.add("name", "µs", "")
	g.add("é", "12.5 µs", "x")
	assert.Equal(t, "name       µs\né     12.5 µs  x\n", g.String())
}
