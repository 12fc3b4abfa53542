package deadlock

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"asyncsync.dev/internal/core"
)

// A fake is a source whose threads and goroutines the test makes up.
type fake struct {
	mu         sync.Mutex
	graph      core.Graph
	goroutines map[int64]string // header in brackets and body, by id
	marks      map[callID]*fakeMark
	noMarks    bool
	dumps      int
	cut        bool // by dump
	looks      int
	refused    []callID
	errs       []error
	gone       bool // Refuse finds nothing
	strict     []bool
	onGraph    func(g *core.Graph) // may change what is returned
}

type fakeMark struct {
	f       *fake
	after   time.Duration
	left    bool
	dropped bool
}

func (m *fakeMark) Left() (time.Duration, bool) {
	m.f.mu.Lock()
	defer m.f.mu.Unlock()
	return m.after, m.left
}

func (m *fakeMark) Drop() {
	m.f.mu.Lock()
	defer m.f.mu.Unlock()
	m.dropped = true
}

// set changes the fake while watchers may look.
func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func get[T any](f *fake, read func() T) T {
	f.mu.Lock()
	defer f.mu.Unlock()
	return read()
}

func (f *fake) source() *source {
	return &source{
		graph: func() core.Graph {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.looks++
			g := core.Graph{Threads: slices.Clone(f.graph.Threads), Goroutines: slices.Clone(f.graph.Goroutines), Limiters: slices.Clone(f.graph.Limiters), Pools: f.graph.Pools, Loops: slices.Clone(f.graph.Loops)}
			for i := range g.Threads { // tests change them in place
				t := &g.Threads[i]
				t.Stack, t.Queue = slices.Clone(t.Stack), slices.Clone(t.Queue)
			}
			if f.onGraph != nil {
				f.onGraph(&g)
			}
			return g
		},
		dump: func() ([]byte, bool) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.dumps++
			var b strings.Builder
			for _, id := range slices.Sorted(maps.Keys(f.goroutines)) {
				fmt.Fprintf(&b, "goroutine %d %s\n\n", id, f.goroutines[id])
			}
			return []byte(b.String()), f.cut
		},
		mark: func(thread, seq uint64, _ time.Duration) (mark, bool) {
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.noMarks {
				return nil, false
			}
			m := &fakeMark{f: f}
			if f.marks == nil {
				f.marks = map[callID]*fakeMark{}
			}
			f.marks[callID{thread, seq}] = m
			return m, true
		},
		refuse: func(thread, seq uint64, err error) bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.gone {
				return false
			}
			f.refused = append(f.refused, callID{thread, seq})
			f.errs = append(f.errs, err)
			for i := range f.graph.Threads {
				if t := &f.graph.Threads[i]; t.ID == thread {
					t.Queue = slices.DeleteFunc(slices.Clone(t.Queue), func(c core.CallState) bool { return c.Seq == seq })
					t.Queued = len(t.Queue)
				}
			}
			return true
		},
		strict: func(on bool) { f.set(func() { f.strict = append(f.strict, on) }) },
		bubble: func() int { return 0 },
	}
}

// The goroutines of rawWait.
const (
	onThread = 7
	caller   = 9
)

func onThreadIn(state string) string {
	return "[" + state + `, locked to thread]:
app.post({0xc000012345, 0x1})
	/src/app/post.go:20 +0x1d
asyncsync.dev/asyncsync.callArg[...](0x1)
	/lib/asyncsync/synctoasync.go:72 +0x2e
asyncsync.dev/internal/core.(*Thread).exec(0xc000012345)
	/lib/internal/core/thread.go:372 +0x44
created by asyncsync.dev/internal/core.startWorker in goroutine 1
	/lib/internal/core/worker.go:40 +0x1b`
}

const callerIn = `[chan receive]:
asyncsync.dev/internal/core.(*Call).await(0xc000012345)
	/lib/internal/core/wait.go:143 +0x1d
asyncsync.dev/asyncsync.ToThread[...]({0x1, 0x2}, 0x3)
	/lib/asyncsync/synctoasync.go:50 +0x2e
app.audit({0x1, 0x2})
	/src/app/audit.go:33 +0x44
created by app.post in goroutine 7
	/src/app/post.go:18 +0x1b`

// callerElsewhere is callerIn of a goroutine that nothing on the thread has
// started.
var callerElsewhere = strings.Replace(callerIn, "created by app.post in goroutine 7", "created by app.main in goroutine 1", 1)

// rawWait is a thread whose function waits on a channel for a goroutine that
// it has started, which calls the thread.
func rawWait() *fake {
	return &fake{
		graph: core.Graph{Threads: []core.ThreadState{{
			ID: 3, Name: "ledger", OSThread: 4711, Goroutine: onThread, Calls: 5,
			Stack:  []core.CallState{{Seq: 6, Name: "post", Caller: 8, Waited: 3 * time.Second}},
			Queue:  []core.CallState{{Seq: 7, Name: "audit", Caller: caller, Waited: 2 * time.Second, Stranger: true}},
			Queued: 1, Below: true,
		}}},
		goroutines: map[int64]string{onThread: onThreadIn("chan receive"), caller: callerIn},
	}
}
