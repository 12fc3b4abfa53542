package goroutine_test

import (
	"context"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/petermattis/goid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/goroutine"
)

// atOnce runs fn on n goroutines that are all alive at the same time, and waits for them.
func atOnce(n int, fn func(i int)) {
	var ready, done sync.WaitGroup
	ready.Add(n)
	for i := range n {
		done.Go(func() {
			ready.Done()
			ready.Wait()
			fn(i)
		})
	}
	done.Wait()
}

func TestIDIsTheOneInStackTraces(t *testing.T) {
	const n = 500
	ids := make([]int64, n)
	atOnce(n, func(i int) {
		ids[i] = goroutine.ID()
		assert.Equal(t, goroutine.HeaderID(), ids[i])
		runtime.Gosched() // perhaps to another thread
		assert.Equal(t, ids[i], goroutine.ID())
	})
	seen := make(map[int64]bool)
	for _, id := range ids {
		assert.Positive(t, id)
		assert.False(t, seen[id], "id %d twice", id)
		seen[id] = true
	}
	assert.False(t, goroutine.Slow(), "goid knows this Go release")
}

// A logHandler counts warnings. It calls ID, as a user's handler that logs a request id would.
type logHandler struct {
	slog.Handler
	warnings atomic.Int32
	id       atomic.Int64
}

func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	if r.Level == slog.LevelWarn {
		h.warnings.Add(1)
	}
	h.id.Store(goroutine.ID())
	return nil
}

func captureLog(t *testing.T) *logHandler {
	h := &logHandler{Handler: slog.DiscardHandler}
	h2 := slog.Default()
	slog.SetDefault(slog.New(enabled{h}))
	t.Cleanup(func() { slog.SetDefault(h2) })
	return h
}

type enabled struct{ *logHandler }

func (enabled) Enabled(context.Context, slog.Level) bool { return true }

func unsettled(t *testing.T) {
	goroutine.Unsettle()
	t.Cleanup(func() {
		goroutine.Unsettle()
		goroutine.ID()
		require.False(t, goroutine.Slow())
	})
}

func TestIDFallsBackWhenTheFastSourceIsWrong(t *testing.T) {
	constant := goid.Get()
	for name, fast := range map[string]func() int64{
		"zero":     func() int64 { return 0 },
		"negative": func() int64 { return -goid.Get() },
		"next":     func() int64 { return goid.Get() + 1 },
		"constant": func() int64 { return constant }, // may be right here, and only here
	} {
		t.Run(name, func(t *testing.T) {
			unsettled(t)
			log := captureLog(t)
			goroutine.Settle(fast)
			require.True(t, goroutine.Slow())
			assert.EqualValues(t, 1, log.warnings.Load())

			atOnce(50, func(int) {
				assert.Equal(t, goid.Get(), goroutine.ID())
				r := goroutine.Ensure()
				assert.Same(t, r, goroutine.Current())
				r.Release()
			})
			assert.EqualValues(t, 1, log.warnings.Load(), "said once")
		})
	}
}

func TestIDSettlesOnceForManyFirstCallers(t *testing.T) {
	t.Run("wrong", func(t *testing.T) {
		unsettled(t)
		log := captureLog(t)
		atOnce(20, func(int) { goroutine.Settle(func() int64 { return 7 }) })
		assert.True(t, goroutine.Slow())
		assert.EqualValues(t, 1, log.warnings.Load())
		assert.Positive(t, log.id.Load(), "the handler may ask for the id")
	})
	t.Run("right", func(t *testing.T) {
		unsettled(t)
		log := captureLog(t)
		atOnce(20, func(int) { assert.Equal(t, goid.Get(), goroutine.ID()) })
		assert.False(t, goroutine.Slow())
		assert.Zero(t, log.warnings.Load())
	})
	t.Run("in a bubble", func(t *testing.T) {
		unsettled(t)
		synctest.Test(t, func(t *testing.T) {
			assert.Equal(t, goid.Get(), goroutine.ID())
		})
		assert.False(t, goroutine.Slow())
	})
}

func TestBubble(t *testing.T) {
	assert.Zero(t, goroutine.Bubble())

	var first, second int64
	synctest.Test(t, func(t *testing.T) {
		first = goroutine.Bubble()
		assert.Positive(t, first)

		var wg sync.WaitGroup
		wg.Go(func() {
			assert.Equal(t, first, goroutine.Bubble(), "goroutines belong to their starter's bubble")
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			assert.Equal(t, first, goroutine.Bubble(), "on a locked thread")
		})
		wg.Wait()

		<-time.After(50 * 365 * 24 * time.Hour)
		assert.Equal(t, first, goroutine.Bubble(), "decades later on the bubble's clock")
	})
	synctest.Test(t, func(t *testing.T) { second = goroutine.Bubble() })
	assert.Positive(t, second)
	assert.NotEqual(t, first, second)
	assert.Zero(t, goroutine.Bubble())
}

func TestBubbleIsNotTakenInByLabels(t *testing.T) {
	pprof.Do(t.Context(), pprof.Labels("synctest bubble 9", "synctest bubble 9"), func(context.Context) {
		assert.Zero(t, goroutine.Bubble())
	})
}

func TestHeadersInAllTracebackModes(t *testing.T) {
	t.Cleanup(func() { debug.SetTraceback("single") }) // never goes below GOTRACEBACK
	for _, mode := range []string{"none", "single", "all", "system"} {
		debug.SetTraceback(mode)
		assert.Equal(t, goid.Get(), goroutine.HeaderID(), mode)
		synctest.Test(t, func(t *testing.T) {
			assert.Equal(t, goid.Get(), goroutine.HeaderID(), mode)
			assert.Positive(t, goroutine.Bubble(), mode)
		})
	}
	require.NotEqual(t, "crash", os.Getenv("GOTRACEBACK"))
}

func TestParseHeader(t *testing.T) {
	for _, c := range []struct {
		header     string
		id, bubble int64
	}{
		{"goroutine 1 [running]:\nmain.main()\n", 1, 0},
		{"goroutine 21 [running, synctest bubble 1]:\nx", 21, 1},
		{"goroutine 21 [chan receive (durable), 5 minutes, locked to thread, synctest bubble 34]:\n", 21, 34},
		{"goroutine 9223372036854775807 [running]:\n", 9223372036854775807, 0},
		{"goroutine 5 gp=0xc000182380 m=4 mp=0xc000080008 [running, synctest bubble 2]:\n", 5, 2},
		{`goroutine 5 [running labels:{"a": "synctest bubble 3"}]:` + "\n", 5, 0},
		{`goroutine 5 [running, synctest bubble 2 labels:{"a": "synctest bubble 3"}]:` + "\n", 5, 2},
		{"goroutine 5 [running]:\nsynctest bubble 3", 5, 0},
		{"goroutine 5 [running, synctest bubble 2", 5, 2}, // cut off
		{"goroutine ", 0, 0},
		{"goroutine x", 0, 0},
		{"thread 5", 0, 0},
		{"", 0, 0},
	} {
		assert.Equal(t, c.id, goroutine.ParseID(c.header), "%q", c.header)
		assert.Equal(t, c.bubble, goroutine.ParseBubble(c.header), "%q", c.header)
	}
}

func TestMaybeBubbledLooksAtYearAndMonotonicPart(t *testing.T) {
	now := time.Now()
	assert.False(t, goroutine.MaybeBubbled(now))
	assert.True(t, goroutine.MaybeBubbled(now.Round(0)), "no monotonic part")
	assert.True(t, goroutine.MaybeBubbled(now.Add(-time.Duration(now.Year()-2000)*366*24*time.Hour)), "early year")
	synctest.Test(t, func(t *testing.T) { assert.True(t, goroutine.MaybeBubbled(time.Now())) })
}

func TestIDAndBubbleAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	goroutine.ID()
	assert.Zero(t, testing.AllocsPerRun(100, func() { goroutine.ID() }))
	assert.Zero(t, testing.AllocsPerRun(100, func() { goroutine.Bubble() }))
}

func BenchmarkID(b *testing.B) {
	for b.Loop() {
		goroutine.ID()
	}
}

func BenchmarkHeaderID(b *testing.B) {
	for b.Loop() {
		goroutine.HeaderID()
	}
}

func BenchmarkBubble(b *testing.B) {
	for b.Loop() {
		goroutine.Bubble()
	}
}
