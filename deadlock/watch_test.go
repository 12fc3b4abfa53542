package deadlock

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/core"

	"github.com/stretchr/testify/require"
)

// verdicts collects what a watcher says.
type verdicts struct {
	mu  sync.Mutex
	all []Verdict
}

func (v *verdicts) add(x Verdict) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.all = append(v.all, x)
}

// take returns what has come since the last time.
func (v *verdicts) take() []Verdict {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := v.all
	v.all = nil
	return all
}

// pass lets n seconds go by, and what is due then be done.
func pass(n int) {
	time.Sleep(time.Duration(n) * time.Second)
	synctest.Wait()
}

func titles(vs []Verdict) (ts []string) {
	for _, v := range vs {
		ts = append(ts, v.Title())
	}
	return ts
}

// A function parked on a raw channel, with a call from below it first in the
// queue, is told once, when seen the second time, and taken back when the call
// has moved, with the time that the runtime has measured.
func TestProbable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, got := rawWait(), &verdicts{}
		stop := watch(f.source(), Config{OnVerdict: got.add})
		pass(1)
		require.Empty(t, got.take(), "once is not enough")
		pass(1)
		vs := got.take()
		require.Len(t, vs, 1)
		v := vs[0]
		require.Equal(t, Probable, v.Kind)
		require.EqualValues(t, 3, v.Thread)
		require.Equal(t, "ledger", v.Name)
		require.EqualValues(t, 7, v.Seq)
		require.Equal(t, "audit", v.Call)
		require.Equal(t, 2*time.Second, v.Age)
		require.Equal(t, "post", v.Running)
		require.Equal(t, "chan receive", v.Parked)
		require.Equal(t, "/src/app/audit.go:33", fmt.Sprintf("%s:%d", v.Site.File, v.Site.Line))
		require.NotNil(t, v.Report.goroutine(onThread))
		require.NotNil(t, v.Report.goroutine(caller))
		require.True(t, strings.HasSuffix(v.String(), "\nsee go doc asyncsync.dev/deadlock PageRawWait\n"))
		require.Equal(t, "probable deadlock: thread ledger runs post, which is parked in chan receive, while call audit, made from below it, has waited 2s for that thread", v.Title())

		dumps := get(f, func() int { return f.dumps })
		pass(10)
		require.Empty(t, got.take(), "once for each call")
		require.Equal(t, dumps, get(f, func() int { return f.dumps }), "no stacks are read for what has been told")

		f.set(func() {
			m := f.marks[callID{3, 7}]
			m.left, m.after = true, 9500*time.Millisecond
			f.graph.Threads[0].Queue, f.graph.Threads[0].Queued, f.graph.Threads[0].Below = nil, 0, false
		})
		pass(1)
		vs = got.take()
		require.Len(t, vs, 1)
		require.Equal(t, Retracted, vs[0].Kind)
		require.Equal(t, 9500*time.Millisecond, vs[0].Age)
		require.Equal(t, Probable, vs[0].Retracts.Kind)
		require.Equal(t, 2*time.Second, vs[0].Retracts.Age)
		require.NotNil(t, vs[0].Report)
		require.Equal(t, "no longer a probable deadlock: call audit has left the queue of thread ledger after 9.5s", vs[0].Title())
		require.True(t, get(f, func() bool { return f.marks[callID{3, 7}].dropped }))
		stop()
	})
}

// Of what cannot be marked the watcher tells the time that it has seen.
func TestRetractedWithoutMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, got := rawWait(), &verdicts{}
		f.noMarks = true
		f.graph.Threads[0].Queue[0].Waited = -1
		defer watch(f.source(), Config{OnVerdict: got.add})()
		pass(2)
		vs := got.take()
		require.Len(t, vs, 1)
		require.Equal(t, time.Second, vs[0].Age, "since it was first seen")
		pass(4)
		f.set(func() { f.graph.Threads[0].Queue = nil })
		pass(1)
		vs = got.take()
		require.Len(t, vs, 1)
		require.Equal(t, Retracted, vs[0].Kind)
		require.Equal(t, 6*time.Second, vs[0].Age)
	})
}

// What is no probable deadlock, and what makes one of it.
func TestProbableOrNot(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(f *fake, t *core.ThreadState)
		want   bool
	}{
		{"as it is", func(*fake, *core.ThreadState) {}, true},
		{"behind a stranger's", func(_ *fake, t *core.ThreadState) {
			t.Queue, t.BelowAt = append([]core.CallState{{Seq: 6, Name: "stranger", Stranger: true}}, t.Queue...), 1
		}, true},
		{"not from below", func(f *fake, t *core.ThreadState) { t.Below = false; f.goroutines[caller] = callerElsewhere }, false},
		{"not from below, but started there", func(_ *fake, t *core.ThreadState) { t.Below = false }, true},
		{"started there by a literal", func(f *fake, t *core.ThreadState) {
			t.Below = false
			f.goroutines[caller] = strings.Replace(strings.Replace(callerIn, "app.audit(", "app.post.func1(", 1), "created by app.post", "created by sync.(*WaitGroup).Go", 1)
		}, true},
		{"started there by something that has ended", func(f *fake, t *core.ThreadState) {
			t.Below = false
			f.goroutines[caller] = strings.Replace(callerIn, "created by app.post", "created by app.before", 1)
		}, false},
		{"started there, and detached", func(_ *fake, t *core.ThreadState) { t.Below = false; t.Queue[0].Detached = true }, false},
		{"started by one that was started there", func(f *fake, t *core.ThreadState) {
			t.Below = false
			f.goroutines[caller] = strings.Replace(callerIn, "goroutine 7", "goroutine 12", 1)
			f.goroutines[12] = strings.Replace(callerIn, "app.audit", "app.between", 1)
		}, true},
		{"served", func(_ *fake, t *core.ThreadState) { t.Below = false; t.Queue[0].Served = true }, false},
		{"in the lock of this module", func(f *fake, _ *core.ThreadState) {
			f.goroutines[onThread] = strings.Replace(onThreadIn("sync.Mutex.Lock"), "app.post", "asyncsync.dev/internal/core.(*Thread).lock(0x1)\n\t/lib/core/thread.go:9 +0x1\napp.post", 1)
		}, false},
		{"in a wait of this module, that has just begun", func(f *fake, _ *core.ThreadState) {
			f.goroutines[onThread] = strings.Replace(onThreadIn("select"), "app.post", "asyncsync.dev/internal/core.(*sleeper).serve(0x1)\n\t/lib/core/thread.go:9 +0x1\napp.post", 1)
		}, false},
		{"a collection that it waits for", func(f *fake, _ *core.ThreadState) {
			f.goroutines[onThread] = strings.Replace(onThreadIn("semacquire"), "app.post", "runtime.GC()\n\t/go/mgc.go:9 +0x1\napp.post", 1)
		}, false},
		{"a wait group of an old runtime", func(f *fake, _ *core.ThreadState) {
			f.goroutines[onThread] = strings.Replace(onThreadIn("semacquire"), "app.post", "sync.runtime_Semacquire(0x1)\n\t/go/sema.go:9 +0x1\nsync.(*WaitGroup).Wait(0x1)\n\t/go/waitgroup.go:9 +0x1\napp.post", 1)
		}, true},
		{"a pipe", func(f *fake, _ *core.ThreadState) {
			f.goroutines[onThread] = strings.Replace(onThreadIn("IO wait"), "app.post", "internal/poll.runtime_pollWait(0x1)\n\t/go/netpoll.go:9 +0x1\nos.(*File).Read(0x1)\n\t/go/file.go:9 +0x1\napp.post", 1)
		}, true},
		{"the network", func(f *fake, _ *core.ThreadState) {
			f.goroutines[onThread] = strings.Replace(onThreadIn("IO wait"), "app.post", "internal/poll.runtime_pollWait(0x1)\n\t/go/netpoll.go:9 +0x1\nnet.(*conn).Read(0x1)\n\t/go/net.go:9 +0x1\napp.post", 1)
		}, false},
		{"an async function that it waits for is parked", func(f *fake, t *core.ThreadState) {
			waitsFor(t, &core.WaitState{Kind: "async", For: "fetch", Goroutine: 40})
			f.goroutines[40] = strings.Replace(onThreadIn("select"), "app.post", "app.fetch", 1)
		}, true},
		{"a goroutine that it waits for runs another function on top of one that waits for it", func(f *fake, t *core.ThreadState) {
			waitsFor(t, &core.WaitState{Kind: "async", For: "upper", Goroutine: 40, Function: 2})
			f.graph.Goroutines = []core.GoroutineState{{Goroutine: 40, Function: 1, Name: "lower", Wait: core.WaitState{Kind: "call", Thread: 3, Seq: 6}}}
			f.goroutines[40] = strings.Replace(onThreadIn("running"), "app.post", "app.upper", 1)
		}, false},
		{"an async function that it waits for runs", func(f *fake, t *core.ThreadState) {
			waitsFor(t, &core.WaitState{Kind: "async", For: "fetch", Goroutine: 40})
			f.goroutines[40] = strings.Replace(onThreadIn("running"), "app.post", "app.fetch", 1)
		}, false},
		{"so is the second member of a group", func(f *fake, t *core.ThreadState) {
			waitsFor(t, &core.WaitState{Kind: "group", Goroutines: []int64{40, 41}})
			f.goroutines[40] = strings.Replace(onThreadIn("running"), "app.post", "app.fetch", 1)
			f.goroutines[41] = strings.Replace(onThreadIn("select"), "app.post", "app.fetch", 1)
		}, true},
		{"so is a function of a portal that it closes", func(f *fake, t *core.ThreadState) {
			waitsFor(t, &core.WaitState{Kind: "portal close", Goroutines: []int64{40, 41}})
			f.goroutines[40] = strings.Replace(onThreadIn("running"), "app.post", "app.fetch", 1)
			f.goroutines[41] = strings.Replace(onThreadIn("select"), "app.post", "app.fetch", 1)
		}, true},
		{"a task that it waits for waits for the thread", cycleOf("select", "select"), true},
		{"so it does, and has not run since the call ended", cycleOf("select", "runnable"), false},
		{"the thread has not run since the task ended", cycleOf("runnable", "select"), false},
		{"in a wait of the library", func(_ *fake, t *core.ThreadState) { t.Stack[0].Wait = &core.WaitState{Kind: "async"} }, false},
		{"nothing runs", func(_ *fake, t *core.ThreadState) { t.Stack = nil }, false},
		{"no goroutine", func(_ *fake, t *core.ThreadState) { t.Goroutine = 0 }, false},
		{"its stack is missing", func(f *fake, t *core.ThreadState) { delete(f.goroutines, onThread) }, false},
		{"marked as long", func(_ *fake, t *core.ThreadState) { t.Long = true }, true},
		{"an iterator that it pulls calls", func(f *fake, t *core.ThreadState) {
			f.goroutines[onThread] = onThreadIn("coroutine")
			f.goroutines[caller] = strings.Replace(callerIn, "created by app.post", "created by iter.Pull[...]", 1)
		}, true},
		{"a coroutine on it is parked", func(f *fake, t *core.ThreadState) {
			f.goroutines[onThread] = onThreadIn("coroutine")
			f.goroutines[20] = coroutineOf(onThread, "select")
		}, true},
		{"one that has another is", func(f *fake, t *core.ThreadState) {
			f.goroutines[onThread] = onThreadIn("coroutine")
			f.goroutines[20] = coroutineOf(onThread, "coroutine")
			f.goroutines[21] = coroutineOf(onThread, "coroutine")
			f.goroutines[22] = coroutineOf(21, "select")
			f.goroutines[23] = coroutineOf(onThread, "coroutine")
		}, true},
		{"a coroutine on it runs", func(f *fake, t *core.ThreadState) {
			f.goroutines[onThread] = onThreadIn("coroutine")
			f.goroutines[20] = coroutineOf(onThread, "running")
			f.goroutines[21] = coroutineOf(20, "select")
		}, false},
		{"a coroutine of somebody else is parked", func(f *fake, t *core.ThreadState) {
			f.goroutines[onThread] = onThreadIn("coroutine")
			f.goroutines[20] = coroutineOf(30, "select")
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) { probable(t, c.change, c.want) })
	}
	for _, state := range []string{"chan receive", "chan receive, 3 minutes", "chan receive (durable)", "chan receive (nil chan)", "chan send", "select",
		"select (no cases)", "sync.Mutex.Lock", "sync.RWMutex.Lock", "sync.RWMutex.RLock", "sync.WaitGroup.Wait", "sync.Cond.Wait"} {
		t.Run(state, func(t *testing.T) {
			probable(t, func(f *fake, _ *core.ThreadState) { f.goroutines[onThread] = onThreadIn(state) }, true)
		})
	}
	for _, state := range []string{"running", "runnable", "syscall", "semacquire", "IO wait", "sleep", "sleep (durable)", "GC assist wait", "preempted", "something new"} {
		t.Run(state, func(t *testing.T) {
			probable(t, func(f *fake, _ *core.ThreadState) { f.goroutines[onThread] = onThreadIn(state) }, false)
		})
	}
}

// waitsFor has the function on t wait for w, so that it does not serve its queue.
func waitsFor(t *core.ThreadState, w *core.WaitState) {
	t.Stack = []core.CallState{t.Stack[0]}
	t.Stack[0].Wait = w
}

// cycleOf has the function on the thread wait for a task that waits for a call to the
// thread. The goroutines of both are in these states.
func cycleOf(ofThread, ofTask string) func(*fake, *core.ThreadState) {
	return func(f *fake, t *core.ThreadState) {
		waitsFor(t, &core.WaitState{Kind: "task", For: "fetch", Goroutine: 40, Function: 1})
		f.graph.Goroutines = []core.GoroutineState{{Goroutine: 40, Function: 1, Name: "fetch", Wait: core.WaitState{Kind: "call", Thread: 3, Seq: 6}}}
		f.goroutines[40] = strings.Replace(onThreadIn(ofTask), "app.post", "app.fetch", 1)
		f.goroutines[onThread] = onThreadIn(ofThread)
	}
}

func coroutineOf(id int64, state string) string {
	return fmt.Sprintf("[%s]:\napp.body()\n\t/src/app/body.go:5 +0x1\ncreated by iter.Pull[...] in goroutine %d\n\t/go/iter.go:5 +0x1", state, id)
}

func probable(t *testing.T, change func(*fake, *core.ThreadState), want bool) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f, got := rawWait(), &verdicts{}
		change(f, &f.graph.Threads[0])
		defer watch(f.source(), Config{OnVerdict: got.add})()
		pass(10)
		if want {
			vs := got.take()
			require.Len(t, vs, 1)
			require.Equal(t, "audit", vs[0].Call)
		} else {
			require.Empty(t, got.take())
		}
	})
}

// A function that is parked somewhere else each time goes on, and so does one
// that another call has taken the place of, or whose queue moves.
func TestProbableNeedsTheSamePlace(t *testing.T) {
	for name, change := range map[string]func(f *fake, n int){
		"another line": func(f *fake, n int) {
			f.goroutines[onThread] = strings.Replace(onThreadIn("select"), "post.go:20", fmt.Sprintf("post.go:%d", 20+n), 1)
		},
		"another first call": func(f *fake, n int) {
			f.graph.Threads[0].Queue = []core.CallState{{Seq: uint64(10 + n), Caller: caller}}
		},
		"another call runs":  func(f *fake, n int) { f.graph.Threads[0].Stack = []core.CallState{{Seq: uint64(10 + n)}} },
		"not parked between": func(f *fake, n int) { f.goroutines[onThread] = onThreadIn([]string{"select", "running"}[n%2]) },
		"in a wait between": func(f *fake, n int) {
			f.graph.Threads[0].Stack = []core.CallState{{Seq: 6, Wait: []*core.WaitState{nil, {Kind: "call"}}[n%2]}}
		},
		"gone when looked at again": func(f *fake, n int) {
			looks := 0
			f.onGraph = func(g *core.Graph) {
				if looks++; looks > 1 {
					g.Threads[0].Queue = nil
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, got := rawWait(), &verdicts{}
				defer watch(f.source(), Config{OnVerdict: got.add})()
				time.Sleep(time.Second / 2)
				for n := range 10 {
					f.set(func() { change(f, n) })
					pass(1)
				}
				require.Empty(t, got.take())
			})
		})
	}
}

// The stacks, for which the program is stopped, are read while somebody may be
// stuck, and not otherwise.
func TestWatchingIsCheap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := slowThread()
		defer watch(f.source(), Config{OnVerdict: func(Verdict) {}})()
		for n := range uint64(250) { // nobody waits for half an interval
			f.set(func() { f.graph.Threads[0].Queue[0].Seq = 7 + n })
			time.Sleep(400 * time.Millisecond)
		}
		require.Zero(t, get(f, func() int { return f.dumps }))
		looks := get(f, func() int { return f.looks })
		pass(100)
		require.Equal(t, 1, get(f, func() int { return f.dumps }), "who has made a call stays as it is")
		require.LessOrEqual(t, get(f, func() int { return f.looks })-looks, 201)
	})
}

// slowThread is a thread whose first call waits.
func slowThread() *fake {
	f := rawWait()
	f.graph.Threads[0].Below = false
	f.graph.Threads[0].Queue[0].Waited = -1
	f.goroutines[caller] = callerElsewhere
	return f
}

// A call that waits longer than Slow is told once, and taken back.
func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, got := slowThread(), &verdicts{}
		defer watch(f.source(), Config{Slow: 5 * time.Second, OnVerdict: got.add})()
		pass(5)
		require.Empty(t, got.take())
		pass(1)
		vs := got.take()
		require.Len(t, vs, 1)
		require.Equal(t, Slow, vs[0].Kind)
		require.Equal(t, 5*time.Second, vs[0].Age)
		require.Equal(t, "slow: call audit has waited 5s for thread ledger, which runs post", vs[0].Title())
		require.True(t, strings.HasSuffix(vs[0].String(), "\nsee go doc asyncsync.dev/deadlock PageSlow\n"))
		require.Equal(t, "app.audit", vs[0].Site.Func)
		pass(20)
		require.Empty(t, got.take())

		// Another call is first now, and the time it has waited is known.
		f.set(func() {
			f.marks[callID{3, 7}].left, f.marks[callID{3, 7}].after = true, 26*time.Second
			f.graph.Threads[0].Queue = []core.CallState{{Seq: 8, Name: "next", Waited: 30 * time.Second}}
		})
		pass(1)
		require.Equal(t, []string{
			"no longer slow: call audit has left the queue of thread ledger after 26s",
			"slow: call next has waited 30s for thread ledger, which runs post",
		}, titles(got.take()))
	})
}

// A call of a context that waits in line for a thread is slow as well.
func TestSlowInLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, got := slowThread(), &verdicts{}
		th := &f.graph.Threads[0]
		th.Goroutine, th.OSThread, th.Stack, th.Lined = 0, 0, nil, true
		defer watch(f.source(), Config{Slow: 5 * time.Second, OnVerdict: got.add})()
		pass(6)
		vs := got.take()
		require.Len(t, vs, 1)
		require.True(t, vs[0].Lined)
		require.Equal(t, "slow: call audit has waited 5s for thread ledger, which waits for one of its pool", vs[0].Title())
		text := vs[0].String()
		require.Contains(t, text, "\nthread ledger: waits for a thread of its pool\n  1 queued\n")
		require.True(t, strings.HasSuffix(text, "\nsee go doc asyncsync.dev/deadlock PageFullPool\n"))
		var dot strings.Builder
		require.NoError(t, vs[0].Report.WriteDOT(&dot))
		require.Contains(t, dot.String(), `[shape=box, label="thread ledger\nwaits for a thread of its pool\n1 queued"]`)
	})
}

// What is not slow.
func TestNotSlow(t *testing.T) {
	for name, change := range map[string]func(t *core.ThreadState, cfg *Config){
		"meant to take long": func(t *core.ThreadState, _ *Config) { t.Long = true },
		"nothing waits":      func(t *core.ThreadState, _ *Config) { t.Queue = nil },
		"not asked for":      func(_ *core.ThreadState, cfg *Config) { cfg.Slow = 0 },
		"not yet":            func(t *core.ThreadState, _ *Config) { t.Queue[0].Waited = time.Second },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, got := slowThread(), &verdicts{}
				cfg := Config{Slow: 5 * time.Second, OnVerdict: got.add}
				change(&f.graph.Threads[0], &cfg)
				defer watch(f.source(), cfg)()
				pass(60)
				require.Empty(t, got.take())
			})
		})
	}
}

// A queue that moves is not slow, however long it is.
func TestMovingIsNotSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, got := slowThread(), &verdicts{}
		defer watch(f.source(), Config{Slow: 5 * time.Second, OnVerdict: got.add})()
		for n := range uint64(60) {
			f.set(func() { f.graph.Threads[0].Queue = []core.CallState{{Seq: 10 + n/3, Waited: -1}} })
			pass(1)
		}
		require.Empty(t, got.take())
	})
}

// Without an interval it is a second, or Slow if that is shorter.
func TestInterval(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want int // looks in a minute
	}{
		{Config{}, 60},
		{Config{Slow: time.Minute}, 60},
		{Config{Slow: 100 * time.Millisecond}, 600},
		{Config{Slow: 1}, 6000},
		{Config{Slow: 1, Interval: 30 * time.Second}, 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &fake{}
			c.cfg.OnVerdict = func(Verdict) {}
			defer watch(f.source(), c.cfg)()
			pass(60)
			require.Equal(t, c.want, get(f, func() int { return f.looks }), "%+v", c.cfg)
		})
	}
}

func TestWatchMisuse(t *testing.T) {
	handler := func(Verdict) {}
	require.PanicsWithValue(t, "deadlock: Watch: nil OnVerdict", func() { Watch(Config{}) })
	require.PanicsWithValue(t, "deadlock: Watch: negative Slow", func() { Watch(Config{Slow: -1, OnVerdict: handler}) })
	require.PanicsWithValue(t, "deadlock: Watch: negative Interval", func() { Watch(Config{Interval: -1, OnVerdict: handler}) })
	require.PanicsWithValue(t, "deadlock: Log: nil Logger", func() { Log(nil) })
}

// A handler that blocks blinds nobody and piles nothing up: what there is room
// for is kept, what there is no room for comes later, and retractions always.
func TestHandlerThatBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const threads = 3 * maxMail
		f, got := &fake{}, &verdicts{}
		for i := range uint64(threads) {
			f.graph.Threads = append(f.graph.Threads, core.ThreadState{ID: i + 1, Goroutine: int64(i + 1), Queue: []core.CallState{{Seq: 1, Waited: time.Hour}}})
		}
		entered, release := make(chan struct{}, 1), make(chan struct{})
		handler := func(v Verdict) {
			select {
			case entered <- struct{}{}:
				<-release
			default:
			}
			got.add(v)
		}
		before := runtime.NumGoroutine()
		defer watch(f.source(), Config{Slow: time.Second, OnVerdict: handler})()
		pass(1000)
		require.LessOrEqual(t, runtime.NumGoroutine(), before+2)
		require.LessOrEqual(t, get(f, func() int { return len(f.marks) }), maxMail+1)
		f.set(func() {
			for _, m := range f.marks {
				m.left = true
			}
			f.graph.Threads[0].Queue, f.graph.Threads[1].Queue = nil, nil
		})
		pass(1) // some of what it has not got yet is over
		close(release)
		pass(1000)
		seen := map[callID]int{}
		for _, v := range got.take() {
			id := callID{v.Thread, v.Seq}
			if v.Kind == Retracted {
				require.Positive(t, seen[id], "a verdict comes before its retraction")
				seen[id]--
			} else {
				require.LessOrEqual(t, seen[id], 0)
				seen[id]++
			}
		}
		require.Len(t, seen, threads)
		require.Zero(t, seen[callID{1, 1}])
		require.Equal(t, 1, seen[callID{threads, 1}])
	})
}

// A handler that panics, or ends its goroutine, is logged, and harms nobody.
func TestHandlerThatFails(t *testing.T) {
	old := slog.Default()
	defer slog.SetDefault(old)
	for name, fail := range map[string]func(){"panicked": func() { panic("oh dear") }, "ended its goroutine": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
			synctest.Test(t, func(t *testing.T) {
				f, got := rawWait(), &verdicts{}
				f.noMarks = true
				defer watch(f.source(), Config{OnVerdict: func(v Verdict) {
					got.add(v)
					fail()
				}})()
				pass(2)
				f.set(func() { f.graph.Threads[0].Queue = nil })
				pass(1)
				require.Len(t, got.take(), 2, "the second verdict comes as well")
			})
			require.Equal(t, 2, strings.Count(log.String(), "OnVerdict "+name))
			require.Contains(t, log.String(), "TestHandlerThatFails")
		})
	}
}

// A handler may call the library, and stop the watcher that calls it.
func TestHandlerThatCallsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context(), asyncsync.WithName("own"))
		defer tsc.Close()
		f, got := rawWait(), &verdicts{}
		var stop func()
		ready := make(chan struct{})
		stop = watch(f.source(), Config{OnVerdict: func(v Verdict) {
			<-ready
			_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) {
				_ = Take().String()
				stop()
				stop()
				return 0, nil
			})
			if err != nil {
				t.Error(err)
			}
			got.add(v)
		}})
		close(ready)
		pass(10)
		require.Len(t, got.take(), 1)
		f.set(func() { f.graph.Threads[0].Queue = nil })
		pass(10)
		require.Empty(t, got.take(), "it has been stopped")
	})
}

// After stop nothing is told any more, marks are dropped, and the goroutine of
// the watcher has ended, also while a handler is blocked.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, got := rawWait(), &verdicts{}
		second := f.graph.Threads[0]
		second.ID = 4
		f.graph.Threads = append(f.graph.Threads, second)
		release := make(chan struct{})
		stop := watch(f.source(), Config{OnVerdict: func(v Verdict) {
			got.add(v)
			<-release
		}})
		pass(2)
		require.Len(t, got.take(), 1, "the other one waits")
		var stops sync.WaitGroup
		for range 4 {
			stops.Go(stop)
		}
		stops.Wait()
		looks := get(f, func() int { return f.looks })
		require.True(t, get(f, func() bool { return f.marks[callID{3, 7}].dropped && f.marks[callID{4, 7}].dropped }))
		close(release)
		pass(10)
		require.Empty(t, got.take())
		require.Equal(t, looks, get(f, func() int { return f.looks }))
		stop()
	})
}

// stop waits for a look at the threads that is under way, and for its marks to
// be dropped.
func TestStopDuringALook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := slowThread()
		f.graph.Threads[0].Queue[0].Waited = time.Hour
		src, looking, release := f.source(), make(chan struct{}), make(chan struct{})
		take := src.mark
		src.mark = func(thread, seq uint64, seen time.Duration) (mark, bool) {
			close(looking)
			<-release
			return take(thread, seq, seen)
		}
		stop := watch(src, Config{Slow: time.Second, OnVerdict: func(Verdict) {}})
		<-looking
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			stop()
		}()
		synctest.Wait()
		select {
		case <-stopped:
			t.Error("stop has not waited")
		default:
		}
		close(release)
		<-stopped
		require.True(t, f.marks[callID{3, 7}].dropped)
	})
}

// Watchers know nothing of each other.
func TestSeveralWatchers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, one, two := rawWait(), &verdicts{}, &verdicts{}
		stop := watch(f.source(), Config{OnVerdict: one.add})
		defer watch(f.source(), Config{Slow: 2 * time.Second, Interval: 3 * time.Second, OnVerdict: two.add})()
		pass(7)
		require.Len(t, one.take(), 1)
		require.Len(t, two.take(), 2)
		stop()
		f.set(func() { f.graph.Threads[0].Queue[0].Seq = 8 })
		pass(7)
		require.Empty(t, one.take())
		require.Len(t, two.take(), 2, "both kinds, of another call")
	})
}

// Log writes a warning with the report, and a line for what is taken back.
func TestLog(t *testing.T) {
	var out bytes.Buffer
	log := Log(slog.New(slog.NewTextHandler(&out, nil)))
	v := Verdict{Kind: Probable, Name: "ledger", Call: "audit", Seq: 7, Age: time.Second, Running: "post", Parked: "select",
		Site: &Frame{"app.audit", "/src/audit.go", 3}, Report: reportOf(rawWait())}
	log(v)
	for _, want := range []string{"level=WARN", `msg="probable deadlock: thread ledger`, "kind=probable", "thread=ledger", "call=audit", "seq=7", "age=1s", "audit.go:3", "who waits for whom"} {
		require.Contains(t, out.String(), want)
	}
	out.Reset()
	earlier := v
	v.Kind, v.Retracts = Retracted, &earlier
	log(v)
	require.Contains(t, out.String(), "level=INFO")
	require.NotContains(t, out.String(), "report=")
	require.Equal(t, 1, strings.Count(out.String(), "\n"))
}

// The verdict's form for people.
func TestVerdictText(t *testing.T) {
	s := rawWait().source().sample()
	g, _, _ := parkedIn(&s.graph.Threads[0], s.parse(every1))
	th := &s.graph.Threads[0]
	v := s.verdict(suspect{subject: subject{callID: callID{3, 7}}, thread: th, call: th.Queue[0], parked: g}, Probable, 2*time.Second)
	golden(t, "verdict.txt", masked(v.String()))
}

// A watcher looks at real threads, and Watch leaves nothing behind.
func TestWatchRealThreads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := &verdicts{}
		stop := Watch(Config{Slow: 3 * time.Second, OnVerdict: got.add})
		ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context(), asyncsync.WithName("real"))
		release := make(chan struct{})
		var calls sync.WaitGroup
		call := func(name string, fn func(context.Context) (int, error)) {
			calls.Go(func() {
				if _, err := asyncsync.ToThread(ctx, fn, asyncsync.Named(name)); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		call("first", func(context.Context) (int, error) { <-release; return 0, nil })
		call("second", func(context.Context) (int, error) { return 0, nil })
		pass(10)
		vs := got.take()
		require.Len(t, vs, 1)
		require.Equal(t, Slow, vs[0].Kind)
		require.Equal(t, "real", vs[0].Name)
		require.Equal(t, "second", vs[0].Call)
		require.Equal(t, "first", vs[0].Running)
		close(release)
		pass(2)
		vs = got.take()
		require.Len(t, vs, 1)
		require.Equal(t, Retracted, vs[0].Kind)
		calls.Wait()
		stop()
		require.NoError(t, tsc.Close())
	})
}

// What one verdict has said of a program, the next does not say again, but what
// has changed; when all have been taken back it is said anew.
func TestVerdictsDoNotRepeatTheReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, got := rawWait(), &verdicts{}
		f.noMarks = true
		defer watch(f.source(), Config{Slow: 5 * time.Second, OnVerdict: got.add})()
		pass(3)
		vs := got.take()
		require.Len(t, vs, 1)
		require.Nil(t, vs[0].Since)
		require.Contains(t, vs[0].String(), "\nthread ledger: goroutine 7")
		first := vs[0].Report

		// The same call is slow now.
		f.set(func() {
			f.graph.Threads[0].Queue[0].Waited, f.graph.Threads[0].Stack[0].Waited = 6*time.Second, 7*time.Second
		})
		pass(1)
		vs = got.take()
		require.Len(t, vs, 1)
		require.Equal(t, Slow, vs[0].Kind)
		require.Same(t, first, vs[0].Since)
		require.Equal(t, "slow: call audit has waited 6s for thread ledger, which runs post\n\n"+
			"nothing has changed since the report of "+first.Time.Format("2006-01-02 15:04:05.000 MST")+"\n\nsee go doc asyncsync.dev/deadlock PageSlow\n", vs[0].String())
		var log bytes.Buffer
		Log(slog.New(slog.NewTextHandler(&log, nil)))(vs[0])
		require.Contains(t, log.String(), "nothing has changed")

		// Another thread is stuck behind the first.
		f.set(func() {
			f.graph.Threads = append(f.graph.Threads, core.ThreadState{
				ID: 4, Name: "other", Goroutine: 30, Stack: []core.CallState{{Seq: 2, Name: "wait", Wait: &core.WaitState{Kind: "call", Thread: 3, Seq: 7, Age: time.Second}}},
				Queue: []core.CallState{{Seq: 3, Name: "late", Waited: time.Minute}}, Queued: 1,
			})
		})
		pass(1)
		vs = got.take()
		require.Len(t, vs, 1)
		text := vs[0].String()
		require.Contains(t, text, "changes since the report of ")
		require.Contains(t, text, "\nthread other: goroutine 30")
		require.Contains(t, text, "wait on thread other -> thread ledger: queued call of audit, 1s")
		require.NotContains(t, text, "\nthread ledger:")
		require.NotContains(t, text, "goroutine 7 [")

		// All is well, and then it is not.
		f.set(func() {
			f.graph.Threads[0].Queue[0].Seq = 8
			f.graph.Threads = f.graph.Threads[:1]
			f.graph.Threads[0].Queue[0].Waited = time.Second
			f.graph.Threads[0].Below = false
			f.goroutines[caller] = callerElsewhere
		})
		pass(1)
		require.Len(t, got.take(), 3)
		f.set(func() { f.graph.Threads[0].Queue[0].Waited = time.Minute })
		pass(1)
		vs = got.take()
		require.Len(t, vs, 1)
		require.Nil(t, vs[0].Since)
		require.Contains(t, vs[0].String(), "\nthread ledger: goroutine 7")
	})
}

// A goroutine that waits for the end of a context which waits for it is told of,
// and what it comes to.
func TestProbableClose(t *testing.T) {
	for name, change := range map[string]func(*fake){
		"below":   func(f *fake) { f.graph.Goroutines[0].Below = true },
		"started": func(f *fake) { f.goroutines[caller] = callerIn },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, got := rawWait(), &verdicts{}
				th := &f.graph.Threads[0]
				th.Queue, th.Queued, th.Below = nil, 0, false
				f.goroutines[caller] = callerElsewhere
				f.graph.Goroutines = []core.GoroutineState{{Goroutine: caller, Wait: core.WaitState{Kind: "close", For: "ledger", Thread: 3, Age: time.Second}}}
				defer watch(f.source(), Config{OnVerdict: got.add})()
				time.Sleep(time.Second / 2)
				pass(10)
				require.Empty(t, got.take(), "a closer who is waited for by nobody")
				f.set(func() { change(f) })
				pass(2)
				vs := got.take()
				require.Len(t, vs, 1)
				require.Equal(t, "probable deadlock: thread ledger runs post, which is parked in chan receive, while goroutine 9, waiting for the end of context ledger from below it, has waited 1s", vs[0].Title())
				require.EqualValues(t, caller, vs[0].Wait.From.Goroutine)
				require.Zero(t, vs[0].Seq)
				pass(10)
				require.Empty(t, got.take())
				f.set(func() { f.graph.Goroutines = nil })
				pass(1)
				vs = got.take()
				require.Len(t, vs, 1)
				require.Equal(t, Retracted, vs[0].Kind)
				require.Equal(t, "no longer a probable deadlock: goroutine 9, which waits for the end of context ledger, after 12.5s", vs[0].Title())
			})
		})
	}
}
