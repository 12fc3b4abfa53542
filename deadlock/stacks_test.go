package deadlock

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/testkit"
)

func every1(int64) bool { return true }

// The header has more forms than the usual one.
func TestParseHeader(t *testing.T) {
	for _, c := range []struct {
		line string
		want stack
	}{
		{"goroutine 1 [running]:", stack{Goroutine: Goroutine{ID: 1, State: "running"}}},
		{"goroutine 12 [chan receive, 3 minutes, locked to thread]:",
			stack{Goroutine: Goroutine{ID: 12, State: "chan receive", Minutes: 3, Locked: true}}},
		{"goroutine 15 [coroutine (durable), synctest bubble 1]:",
			stack{Goroutine: Goroutine{ID: 15, State: "coroutine"}, bubble: 1}},
		{"goroutine 12 [sync.Mutex.Lock, 1 minutes, locked to thread, synctest bubble 22]:",
			stack{Goroutine: Goroutine{ID: 12, State: "sync.Mutex.Lock", Minutes: 1, Locked: true}, bubble: 22}},
		{`goroutine 8 [select (no cases) labels:{"a": "b, locked to thread]:"}]:`,
			stack{Goroutine: Goroutine{ID: 8, State: "select (no cases)"}}},
		{"goroutine 19 gp=0x2ebf6c8003c0 m=3 mp=0x2ebf6c79d008 [chan send (nil chan)]:",
			stack{Goroutine: Goroutine{ID: 19, State: "chan send (nil chan)"}}},
		{"goroutine 5 [chan receive (leaked) (scan)]:", stack{Goroutine: Goroutine{ID: 5, State: "chan receive"}}},
	} {
		got, ok := header(c.line)
		require.True(t, ok, c.line)
		require.Equal(t, c.want, got, c.line)
	}
	for _, line := range []string{"", "goroutine", "goroutine x [running]:", "goroutine 1 running:", "goroutine 1 [running]",
		"goroutine -1 [running]:", "goroutine 0 [idle]:", "created by x in goroutine 1", "goroutine 99999999999999999999 [running]:"} {
		_, ok := header(line)
		require.False(t, ok, line)
	}
}

// A dump as Go writes it, with all that may be in one.
func TestParseDump(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "dump.txt"))
	require.NoError(t, err)
	gs := parse(text, every1)
	require.Len(t, gs, 5)

	g := gs[12]
	require.Equal(t, "sync.Mutex.Lock", g.State)
	require.Equal(t, []Frame{
		{"internal/sync.runtime_SemacquireMutex", "/go/src/runtime/sema.go", 95},
		{"sync.(*Mutex).Lock", "/go/src/sync/mutex.go", 46},
		{"example.org/app.(*db).save", "/src/a b/db.go", 10},
		{"example.org/app.run[...].func1.2", "C:/src/app/run.go", 7},
	}, g.Frames)
	require.Equal(t, &Frame{"example.org/app.run[...]", "/src/app/run.go", 5}, g.CreatedBy)
	require.EqualValues(t, 10, g.Creator)

	require.Equal(t, "running", gs[13].State)
	require.Empty(t, gs[13].Frames, "its stack was not available")
	require.Nil(t, gs[1].CreatedBy)
	require.Equal(t, 23, gs[14].Elided)
	require.Len(t, gs[14].Frames, 2)
	require.Len(t, gs[15].Frames, 1, "the stacks of ancestors are not its own")
	require.Nil(t, gs[15].CreatedBy)

	only := parse(text, func(id int64) bool { return id == 14 })
	require.Len(t, only, 1)
	require.Equal(t, gs[14], only[14])
}

func deep(n int, f func()) {
	if n == 0 {
		f()
		return
	}
	deep(n-1, f)
}

// What the runtime writes today is understood; long stacks are cut.
func TestParseRuntime(t *testing.T) {
	deep(60, func() {
		text, cut := dump(maxDump)
		require.False(t, cut)
		gs := parse(text, every1)
		for _, g := range gs {
			if g.State == "running" && strings.Contains(g.body, "TestParseRuntime") {
				require.Equal(t, "asyncsync.dev/deadlock.dump", g.Frames[0].Func)
				require.Equal(t, "stacks.go", filepath.Base(g.Frames[0].File))
				require.NotZero(t, g.Frames[0].Line)
				require.Len(t, g.Frames, maxFrames)
				require.Positive(t, g.Elided)
				require.Equal(t, "testing.(*T).Run", g.CreatedBy.Func)
				require.NotZero(t, g.Creator)
				return
			}
		}
		t.Errorf("the test's own goroutine is not among\n%s", text)
	})
}

// A dump that exceeds the limit ends with a whole line.
func TestDumpIsCut(t *testing.T) {
	release, n := make(chan struct{}), 200
	ready := make(chan struct{}, n)
	for range n {
		go func() {
			ready <- struct{}{}
			<-release
		}()
	}
	defer close(release)
	for range n {
		<-ready
	}
	text, cut := dump(8 << 10)
	require.True(t, cut)
	require.LessOrEqual(t, len(text), 8<<10)
	require.True(t, bytes.HasSuffix(text, []byte("\n")))
	text, cut = dump(maxDump)
	require.False(t, cut)
	require.GreaterOrEqual(t, len(parse(text, every1)), n)
}

// Sites are where users' code calls this module, and nowhere else.
func TestSites(t *testing.T) {
	for _, c := range []struct {
		name    string
		funcs   []string
		sites   []string
		blocked bool
	}{
		{"a caller", []string{"sync.runtime_notifyListWait", "asyncsync.dev/internal/core.(*Call).await", "asyncsync.dev/asyncsync.ToThread[...]", "app.f"}, []string{"app.f"}, true},
		{"an errand", []string{"app.g", "asyncsync.dev/internal/core.run", "asyncsync.dev/asyncsync.ToThread[...]", "app.f"}, []string{"app.f"}, false},
		{"nested", []string{"asyncsync.dev/task.(*Task[...]).Wait", "app.g", "asyncsync.dev/asyncsync.ToThread[...]", "app.f", "app.main"}, []string{"app.g", "app.f"}, true},
		{"not at all", []string{"runtime.gopark", "app.f"}, nil, false},
		{"the bottom", []string{"asyncsync.dev/asyncsync.ToThread[...]", "asyncsync.dev/task.run"}, nil, false},
		{"a test of this module", []string{"asyncsync.dev/asyncsync.ToThread[...]", "asyncsync.dev/asyncsync_test.TestX"}, []string{"asyncsync.dev/asyncsync_test.TestX"}, true},
		{"through a once", []string{"asyncsync.dev/asyncsync.ToThread[...]", "sync.(*Once).doSlow", "app.f"}, []string{"app.f"}, true},
	} {
		g := &stack{}
		for _, f := range c.funcs {
			g.all = append(g.all, Frame{Func: f})
		}
		sites, blocked := g.sites()
		var got []string
		for _, f := range sites {
			got = append(got, f.Func)
		}
		require.Equal(t, c.sites, got, c.name)
		require.Equal(t, c.blocked, blocked, c.name)
	}
}

// Whatever is parsed, the result is bounded by it and fits on lines.
func FuzzParse(f *testing.F) {
	text, err := os.ReadFile(filepath.Join("testdata", "dump.txt"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("goroutine 1 [running]:\n"))
	f.Add([]byte("goroutine 1 [chan receive (durable), 3 minutes labels:{\"\": \"\"}]:\nf(\n\t:\ncreated by \n\t:-1 +0x\n...9 frames elided..."))
	buf := make([]byte, 8<<10)
	f.Add(buf[:runtime.Stack(buf, true)])
	f.Fuzz(func(t *testing.T, text []byte) {
		for id, g := range parse(text, every1) {
			if id <= 0 || g.ID != id || len(g.Frames) > maxFrames || g.Elided < 0 || g.Minutes < 0 {
				t.Fatalf("%+v", g)
			}
			g.sites()
			head, body := g.text()
			if strings.ContainsAny(head, "\n\r") || len(body) > (maxFrames+2)*3*(maxName+20) {
				t.Fatalf("%q %q", head, body)
			}
		}
	})
}

// A known limit: a goroutine whose stack the collector moves looks as if it had moved, since
// its stack is compared with the arguments, of which some are addresses on it.
func TestACollectionMovesAStack(t *testing.T) {
	testkit.Guard(t)
	grown, end := make(chan struct{}), make(chan struct{})
	go func() {
		var at [64]byte
		deep(2000, func() {})
		grown <- struct{}{}
		parkedAt(&at, end)
	}()
	<-grown
	defer close(end)
	stack := func() string {
		text, _ := dump(maxDump)
		for _, g := range parse(text, every1) {
			if strings.Contains(g.body, "parkedAt") && g.State == "chan receive" {
				return g.body
			}
		}
		return ""
	}
	before := stack()
	for ; before == ""; before = stack() {
		runtime.Gosched()
	}
	for range 10 {
		if stack() != before {
			return
		}
		runtime.GC() // it halves the stack
	}
	t.Error("no collection has moved the stack: a limit is lifted, see Config.Interval")
}

//go:noinline
func parkedAt(at *[64]byte, end chan struct{}) byte {
	<-end
	return at[0]
}
