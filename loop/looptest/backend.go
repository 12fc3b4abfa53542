package looptest

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"asyncsync.dev/loop"
)

// TestBackend tests a Backend. It calls make in each subtest to get a running
// backend. make must arrange, with [testing.T.Cleanup], that the backend stops,
// by letting the main function of its Run return.
//
// C7 is tested if tasks turn out to run one at a time.
//
// TestBackend counts what the hooks of the process are told (AddHooks of
// package asyncsync), so it cannot run in parallel with tests that these hooks
// are told of too.
func TestBackend(t *testing.T, make func(t *testing.T) loop.Backend) {
	testLoop(t, make)
	on := func(name string, test func(t *testing.T, b loop.Backend)) {
		t.Run(name, func(t *testing.T) { test(t, make(t)) })
	}
	across := func(name string, test func(t *testing.T, make func(t *testing.T) loop.Backend)) {
		t.Run(name, func(t *testing.T) { test(t, make) })
	}
	on("C2/a task runs once", taskRunsOnce)
	on("C2/tasks start tasks", tasksStartTasks)
	across("C2/tasks that run when the backend stops", tasksAtTheEnd)
	across("C2/waits in Call when the backend stops", waitsAtTheEnd)
	across("C3/Spawn after Done", spawnAfterDone)
	on("C4/wake before the task has suspended", wakeBeforeSuspending)
	on("C4/wake from everywhere at once", wakeFromEverywhere)
	on("C4/wake that races with suspending", wakeRaces)
	on("C4/a late wake does not end the next wait", lateWake)
	on("C4/many tasks wait", manyWait)
	on("C5/Park returns nil when woken", parkWoken)
	on("C5/Park returns the cause of its ctx", parkCancelled)
	on("C5/Park with a ctx that has ended", parkEnded)
	on("C5/wake and the end of ctx at once", parkBoth)
	on("C5/the ctx of a task ends with that of Spawn", spawnCtx)
	on("C5/a task whose ctx has ended does not begin", spawnCancelled)
	on("C6/a panic goes to who waits", panicOfCall)
	on("C6/a Goexit goes to who waits", goexitOfCall)
	on("C6/a panic of a task that nobody waits for", panicOfTask)
	on("C6/a Goexit of a task that nobody waits for", goexitOfTask)
	on("C6/a panic of a posted function", panicOfPosted)
	on("C6/a Goexit of a posted function", goexitOfPosted)
	on("C6/a panic of arm", panicOfArm)
	one := true
	t.Run("C7/one at a time or not", func(t *testing.T) {
		one = oneAtATime(t, make(t))
		t.Logf("tasks run one at a time: %v", one)
	})
	if !one {
		return
	}
	on("C7/tasks and functions exclude each other", exclusive)
	on("C7/one OS thread", oneThread)
	on("C7/who is ready first runs first", firstComeFirstServed)
	on("C7/tasks do not starve functions", tasksDoNotStarve)
	on("C7/functions do not starve tasks", functionsDoNotStarve)
}

// spawn starts a task and requires that it is accepted.
func spawn(t *testing.T, ctx context.Context, b loop.Backend, fn func(context.Context)) {
	t.Helper()
	if err := b.Spawn(ctx, fn); err != nil {
		complain(t, "Spawn on a backend that runs: %v", err)
	}
}

// spawns is spawn for the test's own goroutine.
func spawns(t *testing.T, ctx context.Context, b loop.Backend, fn func(context.Context)) {
	t.Helper()
	promptly(t, "Spawn does not return", func() { spawn(t, ctx, b, fn) })
}

// inTask runs fn in a task and waits for it.
func inTask(t *testing.T, b loop.Backend, what string, fn func(ctx context.Context)) {
	t.Helper()
	done := make(chan struct{})
	spawns(t, context.Background(), b, func(ctx context.Context) {
		defer close(done)
		fn(ctx)
	})
	await(t, done, what)
}

// yield lets others run.
func yield(ctx context.Context, b loop.Backend) error {
	return b.Park(ctx, func(wake func()) { wake() })
}

func taskRunsOnce(t *testing.T, b loop.Backend) {
	const callers, each = 4, 200
	var (
		ran [callers][each]atomic.Int64
		all sync.WaitGroup
	)
	all.Add(callers * each)
	for c := range callers {
		go func() {
			for i := range each {
				spawn(t, context.Background(), b, func(ctx context.Context) {
					defer all.Done()
					ran[c][i].Add(1)
					if err := yield(ctx, b); err != nil {
						complain(t, "Park: %v", err)
					}
				})
			}
		}()
	}
	awaitAll(t, &all, "not all tasks have ended")
	for c := range ran {
		for i := range ran[c] {
			if n := ran[c][i].Load(); n != 1 {
				t.Fatalf("a task has run %d times", n)
			}
		}
	}
}

func tasksStartTasks(t *testing.T, b loop.Backend) {
	var (
		all sync.WaitGroup
		ran atomic.Int64
	)
	const depth = 6
	var start func(ctx context.Context, depth int)
	start = func(ctx context.Context, depth int) {
		all.Add(1)
		spawn(t, ctx, b, func(ctx context.Context) {
			defer all.Done()
			ran.Add(1)
			if depth > 1 {
				start(ctx, depth-1)
				start(ctx, depth-1)
			}
		})
	}
	promptly(t, "Spawn does not return", func() { start(context.Background(), depth) })
	awaitAll(t, &all, "not all tasks that tasks have started have ended")
	if got := ran.Load(); got != 1<<depth-1 {
		complain(t, "%d tasks have run, not %d", got, 1<<depth-1)
	}
}

func tasksAtTheEnd(t *testing.T, make func(*testing.T) loop.Backend) {
	var (
		ends  sync.Map // of errors
		all   sync.WaitGroup
		ended atomic.Int64
	)
	const n = 50
	parent, cancel := context.WithCancel(context.Background())
	defer cancel()
	untilStopped(t, make, func(st *testing.T, b loop.Backend) {
		parked := newLatch(2 * n)
		never := func(func()) { parked.one() }
		for i := range 2 * n {
			ctx := context.Background()
			if i%2 == 1 {
				ctx = parent // one that could end otherwise, too
			}
			all.Add(1)
			spawns(st, ctx, b, func(ctx context.Context) {
				defer all.Done()
				ends.Store(i, b.Park(ctx, never))
				ended.Add(1)
			})
		}
		await(st, parked.open, "tasks do not begin")
	})
	if got := ended.Load(); got != 2*n {
		t.Fatalf("Done is closed, and %d of %d tasks have ended", got, 2*n)
	}
	ends.Range(func(_, err any) bool {
		if e, _ := err.(error); !errors.Is(e, loop.ErrStopped) {
			complain(t, "Park in a task of a backend that stops: %v, not ErrStopped", err)
			return false
		}
		return true
	})
}

func waitsAtTheEnd(t *testing.T, make func(*testing.T) loop.Backend) {
	const n = 20
	var callers sync.WaitGroup
	untilStopped(t, make, func(st *testing.T, b loop.Backend) {
		parked := newLatch(n)
		for range n {
			callers.Go(func() {
				_, err := loop.Call(context.Background(), b, func(ctx context.Context) (int, error) {
					return 0, b.Park(ctx, func(func()) { parked.one() })
				})
				if !errors.Is(err, loop.ErrStopped) {
					complain(t, "Call of a task that waits when the backend stops: %v, not ErrStopped", err)
				}
			})
		}
		await(st, parked.open, "called tasks do not begin")
	})
	awaitAll(t, &callers, "Call does not return when the backend has stopped")
}

func spawnAfterDone(t *testing.T, make func(*testing.T) loop.Backend) {
	b := untilStopped(t, make, func(*testing.T, loop.Backend) {})
	for range 100 {
		f := newPosted()
		var err error
		promptly(t, "Spawn after Done does not return", func() {
			err = b.Spawn(context.Background(), func(context.Context) { f.run() })
		})
		if !errors.Is(err, loop.ErrStopped) {
			t.Fatalf("Spawn after Done: %v, not ErrStopped", err)
		}
		if f.times.Load() != 0 {
			t.Fatal("a task has run that was refused")
		}
	}
}

func wakeBeforeSuspending(t *testing.T, b loop.Backend) {
	inTask(t, b, "a task that was woken before it suspended does not go on", func(ctx context.Context) {
		for range 100 {
			if err := b.Park(ctx, func(wake func()) { wake() }); err != nil {
				complain(t, "Park: %v", err)
			}
		}
	})
}

func wakeFromEverywhere(t *testing.T, b loop.Backend) {
	var wakers sync.WaitGroup
	inTask(t, b, "a task that several have woken does not go on", func(ctx context.Context) {
		for range 50 {
			err := b.Park(ctx, func(wake func()) {
				wakers.Go(wake)
				wakers.Go(wake)
				post(t, b, wake)
				spawn(t, ctx, b, func(context.Context) { wake() })
				wake()
			})
			if err != nil {
				complain(t, "Park: %v", err)
			}
		}
	})
	awaitAll(t, &wakers, "wake does not return")
}

func wakeRaces(t *testing.T, b loop.Backend) {
	wakes := make(chan func())
	defer close(wakes)
	go func() {
		for wake := range wakes {
			wake()
		}
	}()
	inTask(t, b, "a wake was lost", func(ctx context.Context) {
		for range 2000 {
			if err := b.Park(ctx, func(wake func()) { wakes <- wake }); err != nil {
				complain(t, "Park: %v", err)
			}
		}
	})
}

func lateWake(t *testing.T, b loop.Backend) {
	inTask(t, b, "a task does not go on", func(ctx context.Context) {
		for range 20 {
			var old func()
			if err := b.Park(ctx, func(wake func()) {
				old = wake
				wake()
			}); err != nil {
				complain(t, "Park: %v", err)
			}
			old() // between two waits
			var due atomic.Bool
			err := b.Park(ctx, func(wake func()) {
				old() // before it has suspended
				done := make(chan struct{})
				go func() {
					defer close(done)
					old()
				}()
				<-done
				spawn(t, ctx, b, func(ctx context.Context) {
					old() // after it has suspended
					for range 3 {
						if err := yield(ctx, b); err != nil {
							complain(t, "Park: %v", err)
						}
					}
					due.Store(true)
					wake()
				})
			})
			if err != nil {
				complain(t, "Park: %v", err)
			}
			if !due.Load() {
				complain(t, "a wait has ended because an earlier one was woken again")
				return
			}
		}
	})
}

func manyWait(t *testing.T, b loop.Backend) {
	const n = 1000
	var (
		mu    sync.Mutex
		wakes []func()
		all   sync.WaitGroup
	)
	parked := newLatch(n)
	all.Add(n)
	for range n {
		spawns(t, context.Background(), b, func(ctx context.Context) {
			defer all.Done()
			err := b.Park(ctx, func(wake func()) {
				mu.Lock()
				wakes = append(wakes, wake)
				mu.Unlock()
				parked.one()
			})
			if err != nil {
				complain(t, "Park: %v", err)
			}
		})
	}
	await(t, parked.open, "not all tasks come to wait")
	for i, wake := range wakes {
		if i%2 == 0 {
			promptly(t, "wake does not return", wake)
		} else {
			posts(t, b, wake)
		}
	}
	awaitAll(t, &all, "not all tasks that were woken go on")
}

func parkWoken(t *testing.T, b loop.Backend) {
	inTask(t, b, "a woken task does not go on", func(ctx context.Context) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		for _, ctx := range []context.Context{ctx, context.Background()} {
			if err := b.Park(ctx, func(wake func()) { go wake() }); err != nil {
				complain(t, "Park of a task that was woken: %v", err)
			}
		}
	})
}

var errCause = errors.New("the cause")

func parkCancelled(t *testing.T, b loop.Backend) {
	inTask(t, b, "a task does not go on when the ctx of Park has ended", func(ctx context.Context) {
		for range 20 {
			var late func()
			waits, cancel := context.WithCancelCause(ctx)
			err := b.Park(waits, func(wake func()) {
				late = wake
				go cancel(errCause)
			})
			if err != errCause {
				complain(t, "Park when ctx has ended: %v, not the cause", err)
				return
			}
			late()
			if err := yield(ctx, b); err != nil {
				complain(t, "Park after one whose ctx has ended: %v", err)
			}
		}
	})
}

func parkEnded(t *testing.T, b loop.Backend) {
	inTask(t, b, "Park with a ctx that has ended does not return", func(ctx context.Context) {
		ended, cancel := context.WithCancelCause(ctx)
		cancel(errCause)
		if err := b.Park(ended, func(func()) {}); err != errCause {
			complain(t, "Park with a ctx that has ended: %v, not the cause", err)
		}
		if err := yield(ctx, b); err != nil {
			complain(t, "Park after one whose ctx had ended: %v", err)
		}
	})
}

func parkBoth(t *testing.T, b loop.Backend) {
	inTask(t, b, "a task that was woken when its ctx ended does not go on", func(ctx context.Context) {
		for range 200 {
			both, cancel := context.WithCancelCause(ctx)
			err := b.Park(both, func(wake func()) {
				go cancel(errCause)
				go wake()
			})
			if err != nil && err != errCause {
				complain(t, "Park: %v, neither nil nor the cause", err)
			}
			cancel(nil)
		}
	})
}

func spawnCtx(t *testing.T, b loop.Backend) {
	type key struct{}
	ctx, cancel := context.WithCancelCause(context.WithValue(context.Background(), key{}, 1))
	defer cancel(nil)
	parked := make(chan struct{})
	done := make(chan struct{})
	spawns(t, ctx, b, func(ctx context.Context) {
		defer close(done)
		if ctx.Value(key{}) != 1 {
			complain(t, "the ctx of a task does not have the values of Spawn's")
		}
		if err := ctx.Err(); err != nil {
			complain(t, "the ctx of a task that runs: %v", err)
		}
		err := b.Park(ctx, func(func()) { close(parked) })
		if err != errCause || ctx.Err() == nil || context.Cause(ctx) != errCause {
			complain(t, "Park with the task's ctx: %v, and the cause of that is %v", err, context.Cause(ctx))
		}
	})
	await(t, parked, "a task does not begin")
	cancel(errCause)
	await(t, done, "a task does not go on when the ctx of Spawn has ended")
}

func spawnCancelled(t *testing.T, b loop.Backend) {
	var began atomic.Bool
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	promptly(t, "Spawn does not return", func() {
		_ = b.Spawn(ended, func(context.Context) { began.Store(true) })
	})
	settle(t, b, "after a task whose ctx had ended")
	inTask(t, b, "a task does not run after one whose ctx had ended", func(ctx context.Context) {
		if err := yield(ctx, b); err != nil {
			complain(t, "Park: %v", err)
		}
	})
	if began.Load() {
		complain(t, "a task has begun whose ctx had ended before")
	}
	var err error
	promptly(t, "Call does not return", func() {
		_, err = loop.Call(ended, b, func(context.Context) (int, error) {
			began.Store(true)
			return 0, nil
		})
	})
	if !errors.Is(err, context.Canceled) || began.Load() {
		complain(t, "Call with a ctx that has ended: %v", err)
	}
}

func panicOfCall(t *testing.T, b loop.Backend) {
	for range 3 {
		value := errors.New("a panic")
		how, got, err := ending(t, "Call of a function that panics does not return", func() error {
			_, err := loop.Call(context.Background(), b, func(context.Context) (int, error) { panic(value) })
			return err
		})
		if how != "panic" || got != value {
			complain(t, "Call of a function that panics: %s, %v, %v", how, err, got)
		}
	}
	settle(t, b, "after a panic")
}

func goexitOfCall(t *testing.T, b loop.Backend) {
	for range 3 {
		how, got, err := ending(t, "Call of a function that calls Goexit does not return", func() error {
			_, err := loop.Call(context.Background(), b, func(context.Context) (int, error) {
				runtime.Goexit()
				return 0, nil
			})
			return err
		})
		if how != "goexit" {
			complain(t, "Call of a function that calls Goexit: %s, %v, %v", how, err, got)
		}
	}
	settle(t, b, "after a Goexit")
}

func panicOfTask(t *testing.T, b loop.Backend) {
	unheardPanic(t, b, func(fn func()) { spawns(t, context.Background(), b, func(context.Context) { fn() }) })
}

func goexitOfTask(t *testing.T, b loop.Backend) {
	unheardGoexit(t, b, func(fn func()) { spawns(t, context.Background(), b, func(context.Context) { fn() }) })
}

func panicOfPosted(t *testing.T, b loop.Backend) {
	unheardPanic(t, b, func(fn func()) { posts(t, b, fn) })
}

func goexitOfPosted(t *testing.T, b loop.Backend) {
	unheardGoexit(t, b, func(fn func()) { posts(t, b, fn) })
}

func unheardPanic(t *testing.T, b loop.Backend, run func(func())) {
	hooks := listen(t)
	value := errors.New("a panic that nobody waits for")
	run(func() { panic(value) })
	await(t, hooks.told, "the hooks are not told of a panic")
	if n, _ := hooks.counts(value); n != 1 {
		complain(t, "the hooks were told %d times of one panic", n)
	}
	goesOn(t, b, "after a panic")
}

func unheardGoexit(t *testing.T, b loop.Backend, run func(func())) {
	hooks := listen(t)
	run(runtime.Goexit)
	await(t, hooks.told, "the hooks are not told of a Goexit")
	if _, n := hooks.counts(nil); n != 1 {
		complain(t, "the hooks were told %d times of one Goexit", n)
	}
	goesOn(t, b, "after a Goexit")
}

// goesOn requires that tasks and functions still run.
func goesOn(t *testing.T, b loop.Backend, when string) {
	t.Helper()
	settle(t, b, when)
	inTask(t, b, when+" a task does not run", func(ctx context.Context) {
		if err := yield(ctx, b); err != nil {
			complain(t, "%s: Park: %v", when, err)
		}
	})
}

func panicOfArm(t *testing.T, b loop.Backend) {
	value := errors.New("a panic of arm")
	inTask(t, b, "a task whose arm function panics does not go on", func(ctx context.Context) {
		for _, woken := range []bool{false, true} {
			got := func() (v any) {
				defer func() { v = recover() }()
				_ = b.Park(ctx, func(wake func()) {
					if woken {
						wake()
					}
					panic(value)
				})
				return nil
			}()
			if got != value {
				complain(t, "a panic of arm arrives as %v", got)
			}
			for range 3 {
				if err := yield(ctx, b); err != nil {
					complain(t, "Park after a panic of arm: %v", err)
				}
			}
		}
	})
	goesOn(t, b, "after a panic of arm")
}

// oneAtATime finds out whether a task runs while another one blocks. It takes a
// moment to see that none does. If the moment is too short for a slow machine,
// the next one is longer.
func oneAtATime(t *testing.T, b loop.Backend) bool {
	for moment := 20 * time.Millisecond; moment < 500*time.Millisecond; moment *= 2 {
		met, side := make(chan struct{}), make(chan bool, 1)
		var both sync.WaitGroup
		both.Add(2)
		spawns(t, context.Background(), b, func(context.Context) {
			defer both.Done()
			select {
			case <-met:
				side <- true
			case <-time.After(moment):
				side <- false
			}
		})
		spawns(t, context.Background(), b, func(context.Context) {
			defer both.Done()
			close(met)
		})
		awaitAll(t, &both, "tasks do not end")
		if <-side {
			return false
		}
	}
	return true
}

func exclusive(t *testing.T, b loop.Backend) {
	var (
		all    sync.WaitGroup
		inside atomic.Int64
		plain  int // the race detector's
		most   atomic.Int64
	)
	goIn := func() {
		if n := inside.Add(1); n > most.Load() {
			most.Store(n)
		}
	}
	enter := func() {
		goIn()
		plain++
		for range 10 {
			runtime.Gosched()
		}
		inside.Add(-1)
	}
	// One that stays inside for a while keeps the other out.
	stay := func(start func(enter func())) {
		defer all.Done()
		goIn()
		defer inside.Add(-1)
		entered := make(chan struct{})
		start(func() {
			defer all.Done()
			enter()
			close(entered)
		})
		select {
		case <-entered:
		case <-time.After(min(patience/10, 100*time.Millisecond)): // of a good backend
		}
	}
	all.Add(4)
	spawn(t, context.Background(), b, func(context.Context) {
		stay(func(enter func()) { post(t, b, enter) })
	})
	post(t, b, func() {
		stay(func(enter func()) { spawn(t, context.Background(), b, func(context.Context) { enter() }) })
	})
	const n = 50
	for range n {
		all.Add(2)
		go func() {
			post(t, b, func() {
				defer all.Done()
				enter()
			})
			spawn(t, context.Background(), b, func(ctx context.Context) {
				defer all.Done()
				for range 5 {
					enter()
					if err := b.Park(ctx, func(wake func()) { go wake() }); err != nil {
						complain(t, "Park: %v", err)
					}
				}
				enter()
			})
		}()
	}
	awaitAll(t, &all, "not all have run")
	if n := most.Load(); n > 1 {
		complain(t, "%d tasks or functions have run at a time", n)
	}
	if plain != n*7+2 {
		complain(t, "%d visits were counted, not %d", plain, n*7+2)
	}
}

func oneThread(t *testing.T, b loop.Backend) {
	if threadID() == 0 {
		t.Skip("there is no telling OS threads apart here")
	}
	var (
		all  sync.WaitGroup
		seen sync.Map
	)
	for range 20 {
		all.Add(3)
		go post(t, b, func() {
			defer all.Done()
			seen.Store(threadID(), nil)
		})
		go spawn(t, context.Background(), b, func(ctx context.Context) {
			defer all.Done()
			for range 3 {
				seen.Store(threadID(), nil)
				_ = b.Park(ctx, func(wake func()) { go wake() })
			}
			seen.Store(threadID(), nil)
		})
		go func() {
			defer all.Done()
			id, err := loop.Call(context.Background(), b, func(context.Context) (int, error) { return threadID(), nil })
			if err != nil {
				complain(t, "Call: %v", err)
			}
			seen.Store(id, nil)
		}()
	}
	awaitAll(t, &all, "not all have run")
	n := 0
	seen.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		complain(t, "tasks and functions have run on %d OS threads", n)
	}
}

func firstComeFirstServed(t *testing.T, b loop.Backend) {
	const n = 50
	var (
		wakes    [n]func()
		began    []int
		went, to []int
		all      sync.WaitGroup
	)
	all.Add(n)
	parked := newLatch(n)
	// All of it from one function, so that there is an order to keep.
	posts(t, b, func() {
		for i := range n {
			spawn(t, context.Background(), b, func(ctx context.Context) {
				defer all.Done()
				began = append(began, i)
				if err := b.Park(ctx, func(wake func()) {
					wakes[i] = wake
					parked.one()
				}); err != nil {
					complain(t, "Park: %v", err)
				}
				went = append(went, i)
			})
		}
	})
	await(t, parked.open, "tasks do not begin")
	posts(t, b, func() {
		for i := range n {
			i = (i * 7) % n
			to = append(to, i)
			wakes[i]()
		}
	})
	awaitAll(t, &all, "tasks that were woken do not go on")
	settle(t, b, "after tasks that have ended")
	for i := range n {
		if began[i] != i {
			t.Fatalf("tasks have begun in the order %v", began)
		}
		if went[i] != to[i] {
			t.Fatalf("tasks were woken in the order %v, and went on in the order %v", to, went)
		}
	}
}

func tasksDoNotStarve(t *testing.T, b loop.Backend) {
	var stop atomic.Bool
	var all sync.WaitGroup
	for range 2 {
		all.Add(1)
		spawns(t, context.Background(), b, func(ctx context.Context) {
			defer all.Done()
			for !stop.Load() {
				if err := yield(ctx, b); err != nil {
					return
				}
			}
		})
	}
	defer stop.Store(true)
	settle(t, b, "while tasks do not stop to yield")
	inTask(t, b, "while tasks do not stop to yield another one does not run", func(context.Context) {})
	stop.Store(true)
	awaitAll(t, &all, "tasks do not end")
}

func functionsDoNotStarve(t *testing.T, b loop.Backend) {
	var stop atomic.Bool
	over := make(chan struct{})
	var again func()
	again = func() {
		if stop.Load() || b.Post(again) != nil {
			close(over)
		}
	}
	posts(t, b, again)
	defer stop.Store(true)
	inTask(t, b, "while functions do not stop to post themselves a task does not run", func(ctx context.Context) {
		for range 100 {
			if err := yield(ctx, b); err != nil {
				complain(t, "Park: %v", err)
			}
		}
	})
	stop.Store(true)
	await(t, over, "a function that was posted does not run")
}
