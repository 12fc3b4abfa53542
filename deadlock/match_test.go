package deadlock

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/core"
)

// A report of few threads among many has those that match, by whatever they are
// called, and counts the rest of them.
func TestTakeMatching(t *testing.T) {
	f := &fake{}
	for i := range 1000 {
		f.graph.Threads = append(f.graph.Threads, core.ThreadState{ID: uint64(i + 1), Goroutine: int64(i + 1), Name: fmt.Sprintf("Session %d", i)})
	}
	f.graph.Threads[500].Stack = []core.CallState{{Name: "app.Render", Waited: -1}}
	f.graph.Threads[600].Queue = []core.CallState{{Name: "app.render", Waited: -1}}
	f.graph.Threads[700].Made = core.Site{Func: "app.rendering", File: "/src/app.go", Line: 7}
	report := func(text string) (ids []uint64, more int) {
		s := f.source().sample()
		s.match = text
		r := s.report(0, 0)
		for _, th := range r.Threads {
			ids = append(ids, th.ID)
		}
		return ids, r.MoreThreads
	}
	ids, more := report("render")
	require.Equal(t, []uint64{501, 601, 701}, ids)
	require.Zero(t, more)
	ids, _ = report("session 77")
	require.Len(t, ids, 11) // 77, 770 to 779
	ids, more = report("session")
	require.Len(t, ids, maxThreads)
	require.Equal(t, 1000-maxThreads, more)
	ids, _ = report("nothing of that name")
	require.Empty(t, ids)
}

// The pools that threads are of are in a report.
func TestPoolsOfAReport(t *testing.T) {
	pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 3, MaxOverflow: 2})
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("pooled one"), asyncsync.WithPool(pool))
	_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 0, nil })
	require.NoError(t, err)
	r := TakeMatching("POOLED one")
	require.Len(t, r.Threads, 1)
	found := false
	for _, p := range r.Pools {
		if p.Number == r.Threads[0].Pool {
			found = true
			require.Equal(t, Pool{Number: p.Number, MaxThreads: 3, MaxOverflow: 2, Threads: 1, Peak: 1, Started: 1}, p)
		}
	}
	require.True(t, found)
	require.NoError(t, tsc.Close())
	require.NoError(t, pool.Close())
}

func TestPageOfAVerdict(t *testing.T) {
	slow := Verdict{Kind: Slow}
	require.Equal(t, "slow", slow.Page())
	require.Equal(t, "raw-wait", Verdict{Kind: Probable}.Page())
	require.Equal(t, "full-pool", Verdict{Kind: Slow, Lined: true}.Page())
	require.Equal(t, "slow", Verdict{Kind: Retracted, Retracts: &slow}.Page())
}
