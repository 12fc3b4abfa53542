package sched

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/goroutine"
	"asyncsync.dev/internal/testkit"
)

// body is a task made of functions.
type body struct {
	Task
	run              func(t *Task)
	refused, stopped bool
	onStop           func()
}

func (b *body) Begin() bool { return true }
func (b *body) Run()        { b.run(&b.Task) }
func (b *body) Refused()    { b.refused = true }
func (b *body) Over(v any, _ bool) {
	if v != nil {
		panic(v)
	}
}
func (b *body) Stop() {
	b.stopped = true
	if b.onStop != nil {
		b.onStop()
	}
}

func newBody(run func(t *Task)) *body {
	b := &body{run: run}
	b.Body = b
	return b
}

var errStopped = errors.New("stopped")

func newLoop() *Loop { return New(nil, func(fn func()) { fn() }, nil, errStopped) }

// onLoop runs main on a new loop, on a goroutine of its own.
func onLoop(main func(l *Loop, t *Task)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		l := newLoop()
		l.Run(&newBody(func(t *Task) { main(l, t) }).Task, nil)
	}()
	<-done
}

// join starts a task and waits for it to be woken.
func join(l *Loop, t *Task, run func(child *Task, wake func())) {
	n := t.Prepare()
	l.Start(&newBody(func(child *Task) { run(child, func() { t.Wake(n) }) }).Task)
	t.Suspend(context.Background())
}

func TestAGoexitEndsItsCoroutineAlone(t *testing.T) {
	testkit.Guard(t)
	testkit.NoLeaks(t)
	ran := 0
	onLoop(func(l *Loop, main *Task) {
		for range 100 {
			join(l, main, func(_ *Task, wake func()) {
				ran++
				defer wake()
				runtime.Goexit()
			})
			n := main.Prepare()
			l.Post(func() {
				ran++
				defer main.Wake(n)
				runtime.Goexit()
			})
			main.Suspend(context.Background())
		}
		defer func() { ran++ }()
		runtime.Goexit()
	})
	assert.Equal(t, 201, ran)
}

// A task that waits in a deferred function while a Goexit or a panic unwinds it.
func TestATaskMayWaitWhileItUnwinds(t *testing.T) {
	testkit.Guard(t)
	testkit.NoLeaks(t)
	waited := 0
	onLoop(func(l *Loop, main *Task) {
		for _, end := range []func(){func() { panic("boom") }, runtime.Goexit} {
			join(l, main, func(child *Task, wake func()) {
				defer wake()
				defer func() { _ = recover() }()
				defer func() {
					for range 3 {
						child.Yield()
						waited++
					}
				}()
				end()
			})
		}
	})
	assert.Equal(t, 6, waited)
}

func TestCoroutinesAreUsedAgain(t *testing.T) {
	testkit.Guard(t)
	seen := map[int64]bool{}
	onLoop(func(l *Loop, main *Task) {
		for range 100 {
			join(l, main, func(_ *Task, wake func()) {
				seen[goroutine.ID()] = true
				wake()
			})
		}
	})
	assert.Len(t, seen, 1)
}

func TestABurstOfTasksLeavesFewCoroutines(t *testing.T) {
	testkit.Guard(t)
	testkit.NoLeaks(t)
	var before, after int
	onLoop(func(l *Loop, main *Task) {
		before = runtime.NumGoroutine()
		const n = 4 * maxIdle
		left := n
		k := main.Prepare()
		for range n {
			l.Start(&newBody(func(t *Task) {
				t.Yield()
				if left--; left == 0 {
					main.Wake(k)
				}
			}).Task)
		}
		main.Suspend(context.Background())
		main.Yield()
		after = runtime.NumGoroutine()
	})
	assert.LessOrEqual(t, after-before, maxIdle+8)
}

// The frames of a task that waits leave its stack at the size that it began with,
// which is that of any new goroutine, and the rest of it is small.
func TestAParkedTaskIsSmall(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector takes memory for each goroutine")
	}
	testkit.Guard(t)
	const n, limit = 10_000, 2048
	a, b, c := new(runtime.MemStats), new(runtime.MemStats), new(runtime.MemStats)
	onLoop(func(l *Loop, main *Task) {
		ctx, cancel := context.WithCancel(context.Background())
		runtime.GC()
		runtime.ReadMemStats(a)
		left := n
		var k uint64
		for range n {
			l.Start(&newBody(func(t *Task) {
				t.Prepare()
				t.Suspend(ctx)
				if left--; left == 0 {
					main.Wake(k)
				}
			}).Task)
		}
		main.Yield()
		main.Yield()
		runtime.ReadMemStats(b)
		release := make(chan struct{})
		var bare sync.WaitGroup
		for range n {
			bare.Go(func() { <-release })
		}
		runtime.ReadMemStats(c)
		close(release)
		bare.Wait()
		k = main.Prepare()
		cancel()
		main.Suspend(context.Background())
	})
	stack, bare, heap := (b.StackInuse-a.StackInuse)/n, (c.StackInuse-b.StackInuse)/n, (b.HeapAlloc-a.HeapAlloc)/n
	t.Logf("%d bytes of heap and %d of stack each; that of a goroutine is %d", heap, stack, bare)
	assert.LessOrEqual(t, stack, bare+bare/8)
	assert.LessOrEqual(t, heap, uint64(limit))
}

func TestWakeNumbers(t *testing.T) {
	testkit.Guard(t)
	var order []string
	onLoop(func(l *Loop, main *Task) {
		first := main.Prepare()
		main.Wake(first)
		main.Wake(first)
		main.Suspend(context.Background())
		main.Wake(first)
		second := main.Prepare()
		main.Wake(first)
		main.Wake(second + 1)
		l.Post(func() {
			order = append(order, "posted")
			main.Wake(second)
			main.Wake(second)
		})
		main.Suspend(context.Background())
		order = append(order, "woken")
	})
	assert.Equal(t, []string{"posted", "woken"}, order)
}

// A wait that was begun and not waited for leaves nothing that ends another.
func TestAWaitThatIsGivenUp(t *testing.T) {
	testkit.Guard(t)
	testkit.NoLeaks(t)
	var order []string
	late := make(chan func(), 1)
	onLoop(func(l *Loop, main *Task) {
		for _, early := range []bool{true, false} {
			join(l, main, func(child *Task, wake func()) {
				first := child.Prepare()
				if early {
					child.Wake(first)
				} else {
					l.Post(func() { child.Wake(first) })
				}
				second := child.Prepare()
				for range 3 {
					l.Post(func() { l.Post(func() { order = append(order, "others") }) })
				}
				l.Post(func() { l.Post(func() { l.Post(func() { child.Wake(second) }) }) })
				child.Suspend(context.Background())
				order = append(order, "woken")
				last := child.Prepare()
				late <- func() { child.Wake(last) }
				wake()
			})
			(<-late)() // it has ended, or another one runs in its place
			main.Yield()
		}
	})
	want := []string{"others", "others", "others", "woken"}
	assert.Equal(t, append(want, want...), order)
}

func TestStopping(t *testing.T) {
	testkit.Guard(t)
	testkit.NoLeaks(t)
	l := newLoop()
	var (
		posted   int
		early    = newBody(func(*Task) { t.Error("has begun when the loop had stopped") })
		unending *body
		ended    bool
	)
	unending = newBody(func(task *Task) {
		task.Prepare()
		assert.True(t, task.Suspend(l.Life()))
		ended = true
		assert.False(t, l.Post(func() {}))
		assert.False(t, l.Start(&newBody(func(*Task) {}).Task))
		task.Prepare()
		assert.True(t, task.Suspend(l.Life()), "the life is over")
	})
	main := newBody(func(main *Task) {
		l.Start(&unending.Task)
		main.Yield()
		l.Post(func() { posted++ })
		l.Start(&early.Task)
		l.Post(func() { posted++ })
	})
	require.True(t, l.Run(&main.Task, nil))
	select {
	case <-l.Done():
	default:
		t.Error("Done is not closed")
	}
	assert.False(t, l.Run(&newBody(func(*Task) {}).Task, nil))
	assert.Equal(t, 2, posted)
	assert.True(t, early.refused)
	assert.True(t, unending.stopped)
	assert.True(t, ended)
	assert.Equal(t, errStopped, context.Cause(l.Life()))
}

// badCtx is a ctx whose method ends the caller in some way.
type badCtx struct {
	context.Context
	end func()
}

func (c *badCtx) Value(any) any {
	c.end()
	return nil
}

func TestACtxWhoseMethodsFailEndsTheTaskThatWaits(t *testing.T) {
	testkit.Guard(t)
	testkit.NoLeaks(t)
	base, cancel := context.WithCancel(context.Background())
	defer cancel()
	var got []any
	onLoop(func(l *Loop, main *Task) {
		for _, end := range []func(){func() { panic("boom") }, runtime.Goexit} {
			join(l, main, func(child *Task, wake func()) {
				defer wake()
				defer func() { got = append(got, recover()) }()
				child.Prepare()
				child.Suspend(&badCtx{base, end})
				t.Error("Suspend has returned")
			})
		}
	})
	assert.Equal(t, []any{"boom", nil}, got)
}

func TestACrowd(t *testing.T) {
	var c crowd
	put := func() (n int) { // of crowdMost wakes, how many are put off
		for range crowdMost {
			if c.expected() {
				n++
			}
		}
		return n
	}
	ran := func(n int) {
		c.ran = n
		c.slept()
	}
	ran(1)
	assert.Equal(t, crowdMost/crowdTry, put(), "one caller: only now and then, to see")
	ran(2)
	assert.Equal(t, crowdMost, put(), "several callers")
	c.took(2 * crowdLong)
	assert.Equal(t, crowdMost-crowdSpare, put(), "that took long")
	c.took(2 * crowdLong)
	assert.Equal(t, crowdMost-2*crowdSpare, put(), "and again")
	for range 20 {
		c.took(2 * crowdLong)
	}
	assert.Equal(t, 0, put(), "it always does")
	c.took(0)
	c.took(2 * crowdLong)
	assert.Equal(t, crowdMost-crowdSpare, put(), "it did not the last time but one")
}

func TestHere(t *testing.T) {
	testkit.Guard(t)
	assert.Nil(t, Here())
	onLoop(func(l *Loop, main *Task) {
		assert.Same(t, main, Here())
		assert.True(t, Here().MayWait())
		var other *Task
		var wg sync.WaitGroup
		wg.Go(func() { other = Here() })
		wg.Wait()
		assert.Nil(t, other)
		n := main.Prepare()
		l.Post(func() {
			assert.False(t, Here().MayWait())
			assert.Same(t, l, Here().Loop())
			main.Wake(n)
		})
		main.Suspend(context.Background())
		assert.Same(t, main, Here())
	})
}

func TestFence(t *testing.T) {
	testkit.Guard(t)
	testkit.NoLeaks(t)
	ran := 0
	id := goroutine.ID()
	for _, end := range []func(){func() {}, runtime.Goexit} {
		Fence(func() {
			ran++
			assert.NotEqual(t, id, goroutine.ID())
			end()
		})
	}
	assert.Equal(t, 2, ran)
}

// Known limits: what ends the process, and what does not.
var limits = []struct {
	name  string
	fatal bool
	run   func(l *Loop, main *Task)
}{
	{"a task holds a lock while it waits", true, func(l *Loop, main *Task) {
		runtime.LockOSThread()
		main.Yield()
	}},
	{"a task gives up the loop's lock", true, func(l *Loop, main *Task) {
		runtime.UnlockOSThread()
		main.Yield()
	}},
	{"a task ends with a lock", true, func(l *Loop, main *Task) {
		runtime.LockOSThread()
	}},
	{"a posted function keeps a lock", true, func(l *Loop, main *Task) {
		n := main.Prepare()
		l.Post(func() {
			runtime.LockOSThread()
			main.Wake(n)
		})
		main.Suspend(context.Background())
	}},
	{"a task locks and unlocks between waits", false, func(l *Loop, main *Task) {
		for range 3 {
			runtime.LockOSThread()
			runtime.UnlockOSThread()
			main.Yield()
		}
	}},
	{"a goroutine that a task has started locks", false, func(l *Loop, main *Task) {
		n := main.Prepare()
		go func() {
			runtime.LockOSThread()
			main.Wake(n)
		}()
		main.Suspend(context.Background())
	}},
}

func TestThreadLocks(t *testing.T) {
	for _, c := range limits {
		t.Run(c.name, func(t *testing.T) {
			testkit.Guard(t)
			out, err := testkit.Child(t, func(*testing.T) { onLoop(c.run) })
			if !c.fatal {
				require.NoError(t, err, "%s", out)
				return
			}
			require.Error(t, err)
			require.Contains(t, out, "OS thread locking must match locking at coroutine creation")
		})
	}
}
