package debugpage

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/deadlock"
)

// waiting makes a report of who waits for whom: from and to in turn.
func waiting(pairs ...uint64) *deadlock.Report {
	r := &deadlock.Report{}
	seen := map[uint64]bool{}
	party := func(id uint64) deadlock.Party {
		if id != 0 && !seen[id] {
			seen[id] = true
			r.Threads = append(r.Threads, deadlock.Thread{ID: id, Name: fmt.Sprintf("n%d", id), Goroutine: int64(100 + id)})
		}
		return deadlock.Party{Thread: id}
	}
	for i := 0; i < len(pairs); i += 2 {
		r.Waits = append(r.Waits, deadlock.Wait{From: party(pairs[i]), To: party(pairs[i+1]), Kind: "call"})
	}
	return r
}

// What is in a cycle is marked, and nothing else.
func TestCycles(t *testing.T) {
	for _, c := range []struct {
		waits []uint64
		cycle []string
	}{
		{[]uint64{1, 2}, nil},
		{[]uint64{1, 2, 2, 3, 1, 3}, nil},
		{[]uint64{1, 2, 2, 1}, []string{"n1", "n2"}},
		{[]uint64{1, 2, 2, 3, 3, 2, 3, 4, 5, 4}, []string{"n2", "n3"}},
		{[]uint64{1, 1}, []string{"n1"}},
		{[]uint64{1, 2, 2, 3, 3, 1, 4, 5, 5, 4}, []string{"n1", "n2", "n3", "n4", "n5"}},
		{[]uint64{1, 0}, nil}, // for nobody knows whom
	} {
		p := draw(waiting(c.waits...))
		require.Equal(t, c.cycle, p.Cycle, c.waits)
		for _, a := range p.Arrows {
			require.Equal(t, a.to != nil && (a.from == a.to || a.from.Cycle && a.to.Cycle && a.from.scc == a.to.scc), a.Cycle)
		}
	}
	require.Nil(t, draw(&deadlock.Report{}))
	require.False(t, draw(&deadlock.Report{}).inCycle("t1"))
}

// Arrows lead to the right, but for the one that closes a cycle; no box lies on
// another; all is within the picture.
func TestLayout(t *testing.T) {
	p := draw(waiting(1, 2, 2, 3, 3, 1, 4, 2, 5, 6, 6, 3, 7, 3, 8, 3))
	back := 0
	for _, a := range p.Arrows {
		if a.to.X <= a.from.X {
			back++
		}
		require.NotEmpty(t, a.Path)
	}
	require.Equal(t, 1, back)
	at := map[[2]int]bool{}
	for _, b := range p.Boxes {
		require.False(t, at[[2]int{b.X, b.Y}])
		at[[2]int{b.X, b.Y}] = true
		require.LessOrEqual(t, b.X+boxWidth, p.Width)
		require.LessOrEqual(t, b.Y+boxHeight, p.Height)
	}
}

// However much waits, the picture is bounded, and says what it leaves out.
func TestPictureIsBounded(t *testing.T) {
	var pairs []uint64
	for i := range uint64(200) {
		pairs = append(pairs, i+2, 1)
	}
	p := draw(waiting(pairs...))
	require.Len(t, p.Boxes, maxBoxes)
	require.Positive(t, p.Left)
}

// A function that is parked outside of this module is drawn as waiting for who has
// called its thread from below it: a guess, and marked as one.
func TestSuspicion(t *testing.T) {
	r := &deadlock.Report{
		Threads: []deadlock.Thread{{ID: 1, Name: "ledger", Goroutine: 7, Below: true, Queued: 1, Depth: 1,
			Stack: []deadlock.Call{{Name: "post"}}, Queue: []deadlock.Call{{Name: "audit", Caller: 9, Below: true}}}},
		Waits:      []deadlock.Wait{{From: deadlock.Party{Goroutine: 9}, To: deadlock.Party{Thread: 1, Goroutine: 7}, Kind: "call", For: "audit", Queued: true}},
		Goroutines: []deadlock.Goroutine{{ID: 7, State: "chan receive"}, {ID: 9, State: "select"}},
	}
	p := draw(r)
	require.Equal(t, []string{"goroutine 9", "ledger"}, p.Cycle)
	require.Len(t, p.Arrows, 2)
	require.True(t, p.Arrows[1].Guess)
	require.Equal(t, "chan receive?", p.Arrows[1].Label)
	r.Goroutines[0].State = "running"
	require.Empty(t, draw(r).Cycle)
}

func TestShort(t *testing.T) {
	for name, want := range map[string]string{
		"example.org/a/b.Func": "b.Func", "main.main": "main.main", "GET /reports/{year}": "GET /reports/{year}",
		"a/b": "a/b", "": "", "asyncsync.dev/integration/browser.plant.func6.1.1": "browser.plant.func6.1.1",
	} {
		require.Equal(t, want, short(name))
	}
	require.Equal(t, "äb…", cut("äbcd", 3))
}
