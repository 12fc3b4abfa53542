package deadlock

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/core"

	"github.com/stretchr/testify/require"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// Masks of what differs from run to run.
var masks = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ][0-9:.]+ ?[A-Z0-9+:]*`), "TIME"},
	{regexp.MustCompile(`(goroutines?) \d+(?:, \d+)*`), "$1 N"},
	{regexp.MustCompile(`OS thread \d+`), "OS thread N"},
	{regexp.MustCompile(`\b\d+(\.\d+)?(ns|µs|ms|s|m\d+s)\b`), "AGE"},
	{regexp.MustCompile(`(?:[A-Za-z]:)?[\w./@-]*/([\w.-]+\.go):\d+`), "PATH/$1:N"},
	{regexp.MustCompile(`, ([\w.-]+\.go):\d+\)`), ", $1:N)"},
	{regexp.MustCompile(`, \d+ minutes?`), ""},
	// Who is about to sleep has no age yet.
	{regexp.MustCompile(`(waits for [^\n]*, in goroutine N), for AGE`), "$1"},
}

func masked(s string) string {
	for _, m := range masks {
		s = m.pattern.ReplaceAllString(s, m.with)
	}
	return s
}

// golden compares text with a file of testdata.
func golden(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *rewrite {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o666))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, strings.ReplaceAll(string(want), "\r\n", "\n"), text, "go test -run '%s' -rewrite writes %s anew", t.Name(), file)
}

// tangle is a graph with everything in it that a report has a form for.
func tangle() *fake {
	f := rawWait()
	f.graph.Threads = append([]core.ThreadState{
		{ID: 1, Name: "", Goroutine: 30, Adopted: true, OSThread: 100,
			Stack: []core.CallState{
				{Seq: 2, Name: "draw", Caller: 31, Waited: 1500 * time.Microsecond, Wait: &core.WaitState{Kind: "call", Thread: 3, Seq: 9, Age: time.Millisecond}},
				{Name: "", Waited: -1, Wait: &core.WaitState{Kind: "async", For: "render", Goroutine: 31, Age: 90 * time.Second}},
			}},
		{ID: 2, Name: `a "quoted\name` + "\nof two lines", Policy: core.All, Unpinned: true, Goroutine: 40},
	}, f.graph.Threads...)
	f.graph.Pools = []core.PoolState{{Number: 1, Default: true, MaxThreads: 4, MaxOverflow: 2,
		PoolStats: core.PoolStats{Threads: 4, Waiting: 1, Peak: 5, Started: 9}}}
	f.graph.Limiters = []core.ResourceState{{Total: 2, Used: 3, Holders: 2, Waiters: 70,
		Holding: []core.ResourceParty{{Goroutine: 8, Tokens: 2}, {Goroutine: 60, Name: "loader", Tokens: 1, Lent: true}},
		Waiting: []core.ResourceParty{{Goroutine: 60, Name: "loader", Tokens: 1, Age: 5 * time.Second}, {Goroutine: 7, Tokens: 2, Age: time.Second}},
	}}
	f.graph.Loops = []core.LoopState{
		{ID: 1, Name: "ui", OSThread: 102, Goroutine: 70, Running: &core.LoopTask{Goroutine: 71, Name: "app.redraw"}, Ready: 3, Tasks: 19,
			Waiting: []core.LoopTask{{Goroutine: 72, Name: "app.load", Wait: &core.WaitState{Kind: "task", For: "loader", Goroutine: 60, Age: time.Second}}, {Goroutine: 73, Name: "app.tick"}}},
		{ID: 2, Name: "idle", OSThread: 103, Goroutine: 74, Tasks: 1, Waiting: []core.LoopTask{{Goroutine: 75, Name: "app.main"}}},
	}
	f.goroutines[71] = `[chan receive]:
app.redraw(0x1)
	/src/app/draw.go:12 +0x1
asyncsync.dev/internal/core.(*Solo).Run(0x1)
	/lib/internal/core/job.go:300 +0x1
created by iter.Pull[...] in goroutine 70
	/go/src/iter/iter.go:271 +0x1`
	made := core.Site{Func: "app.handle", File: "/src/app/handle.go", Line: 41}
	f.graph.Threads = append(f.graph.Threads,
		core.ThreadState{ID: 4, Made: made, Pool: 1, Lined: true, Queue: []core.CallState{{Seq: 1, Name: "query", Waited: time.Second}}},
		core.ThreadState{ID: 5, Made: made, Pool: 1, Goroutine: 61},
		core.ThreadState{ID: 6, Made: made, Pool: 1, Goroutine: 62},
		core.ThreadState{ID: 7, Name: "cache", Pool: 1, Goroutine: 63},
		core.ThreadState{ID: 8, Name: "busy", Pool: 1, Goroutine: 64, Exiting: true},
		core.ThreadState{ID: 9, Name: "of another pool", Pool: 2, Goroutine: 65})
	l := &f.graph.Threads[2]
	l.Queue = append(l.Queue, core.CallState{Seq: 9, Name: "store", Caller: 30, Waited: time.Millisecond, Stranger: true})
	l.Queued = 20
	l.Stack = append(l.Stack, core.CallState{Seq: 4, Name: "open", Caller: 50, Waited: -1,
		Wait: &core.WaitState{Kind: "task", For: "loader", Goroutine: 60, Age: -1}})
	f.graph.Goroutines = []core.GoroutineState{{Goroutine: 60, Name: "loader", Wait: core.WaitState{Kind: "limiter", Age: 5 * time.Second}},
		{Goroutine: 31, Name: "render", Wait: core.WaitState{Kind: "call", Thread: 1, Seq: 2, Age: -1}}}
	f.goroutines[30] = `[sync.Cond.Wait, locked to thread]:
sync.runtime_notifyListWait(0xc000012345, 0x1)
	/go/src/runtime/sema.go:617 +0x159
sync.(*Cond).Wait(0x1?)
	/go/src/sync/cond.go:71 +0x85
asyncsync.dev/internal/core.(*sleeper).serve(0x1)
	/lib/internal/core/thread.go:400 +0x1
asyncsync.dev/asyncsync.ToThread[...]({0x1, 0x2}, 0x3)
	/lib/asyncsync/synctoasync.go:50 +0x2e
app.draw()
	/src/app/draw.go:12 +0x1
asyncsync.dev/asyncsync.FromThread[...]({0x1, 0x2}, 0x3)
	/lib/asyncsync/asynctosync.go:52 +0x2e
main.main()
	/src/app/main.go:9 +0x1d`
	f.goroutines[31] = strings.ReplaceAll(callerIn, "audit", "render")
	f.goroutines[8] = strings.ReplaceAll(callerIn, "audit", "accept")
	f.goroutines[50] = f.goroutines[8] // made where the other was
	f.goroutines[77] = "[running]:\napp.bystander()\n\t/src/app/x.go:1 +0x1"
	return f
}

func reportOf(f *fake) *Report {
	s := f.source().sample()
	s.at = time.Date(2001, 2, 3, 4, 5, 6, 7e6, time.UTC)
	return s.report(0, 0)
}

// The forms of a report, as they are.
func TestReportForms(t *testing.T) {
	r := reportOf(tangle())
	golden(t, "report.txt", r.String())
	var dot bytes.Buffer
	require.NoError(t, r.WriteDOT(&dot))
	golden(t, "report.dot", dot.String())
	text, err := json.MarshalIndent(r, "", "\t")
	require.NoError(t, err)
	golden(t, "report.json", string(text)+"\n")
}

// A report has no goroutine that is not involved.
func TestReportHasOnlyTheInvolved(t *testing.T) {
	r := reportOf(tangle())
	require.Nil(t, r.goroutine(77))
	require.NotContains(t, r.String(), "bystander")
	idle := &fake{graph: core.Graph{Threads: []core.ThreadState{{ID: 1, Goroutine: 5}}}}
	reportOf(idle)
	require.Zero(t, idle.dumps, "stacks of idle threads are not read")
}

// The fields of the JSON form are those that the documentation lists, with
// their types, and nothing else.
func TestJSONSchema(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "deadlock", "report.md"))
	require.NoError(t, err)
	documented := map[string]string{}
	row := regexp.MustCompile("(?m)^\\| `([a-z_.\\[\\]]+)` \\| ([a-z ]+) \\|")
	for _, m := range row.FindAllStringSubmatch(string(page), -1) {
		documented[m[1]] = m[2]
	}
	text, err := json.Marshal(reportOf(tangle()))
	require.NoError(t, err)
	var decoded map[string]any
	require.NoError(t, json.Unmarshal(text, &decoded))
	require.EqualValues(t, 1, decoded["schema"])
	require.Contains(t, string(page), "The value of `schema` is 1.")

	found := map[string]bool{}
	kinds := map[reflect.Kind]string{reflect.Float64: "number", reflect.String: "string", reflect.Bool: "boolean", reflect.Map: "object", reflect.Slice: "array"}
	// Objects that occur in several places are documented once.
	shared := map[string]string{".from": "party", ".to": "party", ".site": "frame", ".created_by": "frame", ".frames[]": "frame",
		".wait": "wait", "waits[]": "wait", ".stack[]": "call", ".queue[]": "call", "threads[]": "thread", "goroutines[]": "goroutine", "idle[]": "idle", "limiters[]": "limiter", "pools[]": "pool", "loops[]": "loop", ".running": "task", "loop.waiting[]": "task", ".held[]": "token", "limiter.queue[]": "token", ".who": "party", ".made": "frame"}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		for _, suffix := range slices.SortedFunc(maps.Keys(shared), func(a, b string) int { return len(b) - len(a) }) {
			name := shared[suffix]
			if strings.HasSuffix(path, suffix) {
				path = name
				break
			}
		}
		switch v := v.(type) {
		case map[string]any:
			for k, e := range v {
				p := strings.TrimPrefix(path+"."+k, ".")
				want, ok := documented[p]
				require.True(t, ok, "%s is not documented", p)
				found[p] = true
				if e == nil {
					require.Contains(t, want, "or null", p)
				} else {
					require.Contains(t, want, kinds[reflect.TypeOf(e).Kind()], p)
				}
				walk(p, e)
			}
		case []any:
			for _, e := range v {
				walk(path+"[]", e)
			}
		}
	}
	walk("", decoded)
	for p := range documented {
		require.True(t, found[p], "%s is documented, and not in the report", p)
	}
	at, err := time.Parse(time.RFC3339Nano, decoded["time"].(string))
	require.NoError(t, err)
	require.Equal(t, 2001, at.Year())
}

// A report says when it is not complete.
func TestReportOfCutStacks(t *testing.T) {
	f := rawWait()
	f.cut = true
	r := reportOf(f)
	require.True(t, r.StacksCut)
	require.Contains(t, r.String(), "\nThe stacks of all goroutines exceed 16 MB: some are missing.\n")
	require.False(t, Take().StacksCut, "a small program")
}

// An empty report has lists too.
func TestJSONOfNothing(t *testing.T) {
	text, err := json.Marshal(reportOf(&fake{}))
	require.NoError(t, err)
	require.NotContains(t, string(text), "null")
	require.Equal(t, "0 threads at 2001-02-03 04:05:06.007 UTC\n", reportOf(&fake{}).String())
}

// Graphviz accepts the DOT form, whatever the names are.
func TestDOTIsAccepted(t *testing.T) {
	dot, err := exec.LookPath("dot")
	if err != nil {
		t.Skip("needs graphviz:", err)
	}
	f := tangle()
	f.graph.Threads[0].Stack[0].Name = "\"; } <b>&amp; \\N \\\" \x00 \xff ü 漢字 --> {|} \\"
	var text bytes.Buffer
	require.NoError(t, reportOf(f).WriteDOT(&text))
	cmd := exec.Command(dot, "-Tsvg")
	cmd.Stdin = &text
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	require.NoError(t, cmd.Run(), errs.String())
	require.Empty(t, errs.String())
	require.Contains(t, out.String(), "</svg>")
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, os.ErrClosed }

// What is not there is written as an empty graph.
func TestWriteDOTOfNoReport(t *testing.T) {
	var none, empty strings.Builder
	require.NoError(t, (*Report)(nil).WriteDOT(&none))
	require.NoError(t, new(Report).WriteDOT(&empty))
	require.Equal(t, empty.String(), none.String())
}

func TestWriteDOTReturnsTheError(t *testing.T) {
	require.ErrorIs(t, reportOf(tangle()).WriteDOT(full{}), os.ErrClosed)
}

// maxText is what no report exceeds, in any form.
const maxText = 6 << 20

func requireBounded(t *testing.T, r *Report, limit int) {
	t.Helper()
	require.LessOrEqual(t, len(r.Threads), maxThreads)
	require.LessOrEqual(t, len(r.Goroutines), maxGoroutines)
	for _, th := range r.Threads {
		require.LessOrEqual(t, len(th.Stack), maxCalls)
		require.LessOrEqual(t, len(th.Queue), maxCalls)
	}
	var dot bytes.Buffer
	require.NoError(t, r.WriteDOT(&dot))
	text, err := json.Marshal(r)
	require.NoError(t, err)
	require.Less(t, len(r.String()), limit)
	require.Less(t, dot.Len(), limit)
	require.Less(t, len(text), limit)
}

// A report of very much is no longer than one of much.
func TestReportIsBounded(t *testing.T) {
	f := &fake{goroutines: map[int64]string{}}
	long := strings.Repeat("ü", 1000)
	for i := range uint64(1000) {
		th := core.ThreadState{ID: i + 1, Name: long, Goroutine: int64(i + 1), Queued: 10_000}
		for j := range uint64(200) {
			c := core.CallState{Seq: j + 1, Name: long, Caller: int64(1000 + 200*i + j), Wait: &core.WaitState{Kind: "task", For: long, Goroutine: int64(j)}}
			th.Stack = append(th.Stack, c)
			th.Queue = append(th.Queue, c)
		}
		f.graph.Threads = append(f.graph.Threads, th)
		f.graph.Goroutines = append(f.graph.Goroutines, core.GoroutineState{Goroutine: int64(i + 5000), Name: long, Wait: core.WaitState{Kind: "task", For: long, Goroutine: 1}})
		f.goroutines[int64(1000+200*i)] = "[select]:"
		if i < maxThreads || i == 76 {
			f.goroutines[int64(i+1)] = "[select]:\n" + strings.Repeat(long+"(...)\n\t/"+long+".go:1 +0x1\n", 100)
		}
	}
	f.graph.Threads[990].ID = 100_000
	r := f.source().sample().report(100_000, 77)
	requireBounded(t, r, maxText)
	require.NotNil(t, r.goroutine(77), "nor is the goroutine")
	require.Equal(t, 1000-maxThreads, r.MoreThreads)
	require.Positive(t, r.MoreGoroutines)
	require.EqualValues(t, 100_000, r.Threads[len(r.Threads)-1].ID, "the threads that a verdict is about are never left out")
	text := r.String()
	for _, want := range []string{"and 936 more threads", "and 184 more calls below", "and 9984 more", "and 68 more functions"} {
		require.True(t, strings.Contains(text, want), want)
	}
}

// Busy threads are shown before idle ones.
func TestReportPrefersTheBusy(t *testing.T) {
	f := &fake{}
	for i := range uint64(maxThreads + 10) {
		f.graph.Threads = append(f.graph.Threads, core.ThreadState{ID: i + 1, Goroutine: int64(i + 1)})
	}
	last := &f.graph.Threads[len(f.graph.Threads)-1]
	last.Queued, last.Queue = 1, []core.CallState{{Seq: 1, Name: "x"}}
	f.graph.Threads[len(f.graph.Threads)-2].Stack = []core.CallState{{Seq: 1, Name: "y"}}
	r := reportOf(f)
	require.Equal(t, 10, r.MoreThreads)
	require.Equal(t, last.ID, r.Threads[maxThreads-1].ID)
	require.Equal(t, last.ID-1, r.Threads[maxThreads-2].ID)
	require.EqualValues(t, 1, r.Threads[0].ID)
}

// A site is told only of a call that was still queued when the stacks had been
// read: else its caller may be somewhere else by now.
func TestSiteNeedsTheCallToBeQueued(t *testing.T) {
	f := rawWait()
	r := reportOf(f)
	require.Equal(t, "app.audit", r.Threads[0].Queue[0].Site.Func)
	require.Equal(t, "/src/app/audit.go:33", fmt.Sprintf("%s:%d", r.Threads[0].Queue[0].Site.File, r.Threads[0].Queue[0].Site.Line))

	f = rawWait()
	looks := 0
	f.onGraph = func(g *core.Graph) {
		if looks++; looks > 1 {
			g.Threads[0].Queue = nil
		}
	}
	require.Nil(t, reportOf(f).Threads[0].Queue[0].Site)

	// A caller that is a thread may run something on top of the call.
	f = tangle()
	require.NotNil(t, reportOf(f).Threads[2].Queue[1].Site)
	f.graph.Threads[0].Stack[0].Wait = &core.WaitState{Kind: "call", Thread: 2, Seq: 9}
	require.Nil(t, reportOf(f).Threads[2].Queue[1].Site)

	f = rawWait()
	f.goroutines[caller] = "[running]:\napp.elsewhere()\n\t/src/app/else.go:1 +0x1\n" + strings.SplitN(callerIn, "\n", 2)[1]
	require.Nil(t, reportOf(f).Threads[0].Queue[0].Site, "its caller is not blocked in this module")
}

// The caller of what runs may run other things meanwhile: its site is told if
// there can be no doubt.
func TestSiteOfWhatRuns(t *testing.T) {
	f := rawWait()
	f.goroutines[8] = strings.ReplaceAll(callerIn, "audit", "accept")
	require.Equal(t, "app.accept", reportOf(f).Threads[0].Stack[0].Site.Func)
	f.goroutines[8] = "[select]:\nasyncsync.dev/task.(*Group).Wait(...)\n\t/lib/group.go:1 +0x1\napp.errand()\n\t/src/app/errand.go:1 +0x1\n" +
		strings.SplitN(f.goroutines[8], "\n", 2)[1]
	require.Nil(t, reportOf(f).Threads[0].Stack[0].Site)
}

// The DOT form of a report that somebody has made is one too.
func TestDOTOfAnyNames(t *testing.T) {
	var text bytes.Buffer
	r := &Report{Threads: []Thread{{ID: 1, Name: "a\n\x00\"\\b"}}}
	require.NoError(t, r.WriteDOT(&text))
	require.Contains(t, text.String(), `label="thread a  \"\\b\ngoroutine 0\nidle"`)
}

// A process with 10,000 queued calls reports in bounded size.
func TestReportOfManyCalls(t *testing.T) {
	const n = 10_000
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("busy"))
	running, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	call := func(fn func(context.Context) (int, error)) {
		wg.Go(func() {
			if _, err := asyncsync.ToThread(ctx, fn); err != nil {
				t.Error(err)
			}
		})
	}
	call(func(context.Context) (int, error) {
		close(running)
		<-release
		return 0, nil
	})
	<-running
	for range n {
		call(func(context.Context) (int, error) { return 0, nil })
	}
	for tsc.Stats().Queued < n {
		runtime.Gosched() // the calls are on their way; the test's deadline bounds this
	}
	r := Take()
	close(release)
	wg.Wait()
	require.NoError(t, tsc.Close())
	requireBounded(t, r, maxText/8)
	require.True(t, strings.Contains(r.String(), fmt.Sprintf("%d queued\n", n)))
	require.True(t, strings.Contains(r.String(), fmt.Sprintf("and %d more\n", n-maxCalls)))
	// Whether all stacks fit depends on the length of the paths in them, that is on
	// where the sources lie: TestReportOfCutStacks.
}

// Reports are taken from everywhere while contexts open, work and close.
func TestTakeWhileContextsComeAndGo(t *testing.T) {
	rounds := 50
	if testing.Short() {
		rounds = 10
	}
	var workers, takers sync.WaitGroup
	quit := make(chan struct{})
	for range 2 {
		takers.Go(func() {
			for {
				select {
				case <-quit:
					return
				default:
				}
				r := Take()
				_ = r.String()
				if _, err := json.Marshal(r); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 4 {
		workers.Go(func() {
			for range rounds {
				ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
				_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
					return asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) {
						return asyncsync.ToThread(ctx, func(context.Context) (int, error) { return len(Take().Threads), nil })
					})
				})
				if err != nil {
					t.Error(err)
				}
				if err := tsc.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	workers.Wait()
	close(quit)
	takers.Wait()
}
