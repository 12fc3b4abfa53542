package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestJudge(t *testing.T) {
	a := value(oneCore, "a")
	rs := results{{"one:a": 5}, {"one:a": 20}, {"one:a": 10}}
	ps := []promise{
		{number: 1, what: "just", limit: 10, pick: a},
		{number: 2, what: "not quite", limit: 9.99, pick: a},
		{number: 3, what: "enough", limit: 10, atLeast: true, pick: a},
		{number: 4, what: "too little", limit: 11, atLeast: true, pick: a},
		{number: 5, what: "absent", limit: 1, pick: value(twoCores, "a"), needs: needTwo},
	}
	var got []string
	for _, v := range judge(rs, ps) {
		got = append(got, v.String())
	}
	assert.Equal(t, []string{"met", "NOT MET", "met", "NOT MET", needTwo}, got)

	table := targetTable(rs, ps)
	assert.Contains(t, table, "10 (5–20)")
	assert.Contains(t, table, "2 of 4 met, 1 not measured.")
}

func TestBounds(t *testing.T) {
	for want, p := range map[string]promise{
		"≤ 10 ns": {limit: 10, unit: inTime},
		"≤ 2 µs":  {limit: 2000, unit: inTime},
		"≤ 2 KB":  {limit: 2048, unit: inBytes},
		"≥ 60×":   {limit: 60, unit: asRatio, atLeast: true},
		"≤ 1.15×": {limit: 1.15, unit: asRatio},
		"≤ 100":   {limit: 100},
	} {
		assert.Equal(t, want, p.bound())
	}
}

func TestPromisesCoverEveryFigureOfAFullRun(t *testing.T) {
	full := sizes(false)
	places := []place{oneCore, twoCores, oneCoreTwoProcs, twoCoresOneProc}
	rs := results{everything(full)}
	numbers := map[int]bool{}
	for _, v := range judge(rs, promises(full, places)) {
		numbers[v.number] = true
		assert.True(t, v.measured, "%d %s", v.number, v.what)
		assert.NotEmpty(t, v.needs, v.what)
	}
	assert.Len(t, numbers, 16)
}

func TestPromisesOfOneProcessor(t *testing.T) {
	full := sizes(false)
	places := []place{oneCore, oneCoreTwoProcs}
	r := everything(full)
	for name := range r {
		if name[:4] == "two:" || name[:4] == "two-" {
			delete(r, name)
		}
	}
	for _, v := range judge(results{r}, promises(full, places)) {
		if !v.measured {
			assert.Contains(t, []string{needTwo, needPython}, v.needs, "%d %s", v.number, v.what)
		}
		if v.number == 11 {
			assert.True(t, v.measured)
		}
	}
}

func TestDoublingFindsTheWorst(t *testing.T) {
	full := sizes(false)
	r := everything(full)
	r["one:level/default/256"] = 1.5 * r["one:level/default/128"]
	for _, v := range judge(results{r}, promises(full, []place{oneCore})) {
		if v.number == 9 && v.what[:5] == "twice" {
			require.True(t, v.measured)
			assert.InDelta(t, 3, v.median, 1e-9)
			assert.False(t, v.met())
		}
	}
}

func TestPromisesOfLoops(t *testing.T) {
	r := round{}
	for _, p := range []place{oneCore, twoCores} {
		for _, row := range loopRows {
			r[p.name+":"+row.name], r[p.name+":"+row.name+"-allocs"] = 10, 0.01
		}
		for _, name := range []string{"join/grown", "join/left"} {
			r[p.name+":"+name] = 0
		}
	}
	r["one:parked/heap"], r["one:parked/stack"] = 2000, 2096
	r["two:join/left"] = 1
	r["one:lock/limiter/task"] = 41
	r["one:away/portal"] = 14
	numbers, missed := map[int]bool{}, []string{}
	for _, v := range judge(results{r}, loopPromises(sizes(false))) {
		numbers[v.number] = true
		assert.True(t, v.measured, "%d %s", v.number, v.what)
		if !v.met() && v.needs != needAnyio {
			missed = append(missed, v.what)
		}
	}
	assert.Len(t, numbers, 8)
	assert.Equal(t, []string{
		"goroutines that a loop leaves, two cores", "portal.Call, to loop.Call, one core",
		"Mutex, Event, Limiter: the worst, one core",
	}, missed)
}

func TestWithoutTwoProcessorsOrPythonPromisesOfLoopsSayWhy(t *testing.T) {
	for _, v := range judge(results{{}}, loopPromises(sizes(false))) {
		assert.False(t, v.measured)
		assert.Contains(t, []string{needNothing, needTwo, needAnyio}, v.needs)
	}
}
