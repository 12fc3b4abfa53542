package looptest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"asyncsync.dev/loop"
)

// running starts b on a goroutine of its own, and stops it when the test ends.
func running(t *testing.T, b loop.Backend) loop.Backend {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		_, err := loop.Run(context.Background(), b, func(ctx context.Context) (int, error) {
			return 0, b.Park(ctx, func(wake func()) {
				go func() {
					<-stop
					wake()
				}()
			})
		})
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-stopped
	})
	return b
}

func TestTheSuitePassesOnBothBackends(t *testing.T) {
	for _, name := range []string{"goroutines", "thread"} {
		t.Run(name, func(t *testing.T) {
			TestBackend(t, func(t *testing.T) loop.Backend {
				b, err := loop.Builtin(name)
				if err != nil {
					t.Fatal(err)
				}
				return running(t, b)
			})
		})
	}
}

// A hand-written loop that keeps the contract of a Loop, and no more.
func TestTheSuitePassesOnALoopByHand(t *testing.T) {
	TestLoop(t, func(t *testing.T) loop.Loop { return byHand(t) })
}

func byHand(t *testing.T) loop.Loop {
	l := newHandLoop()
	go l.run()
	t.Cleanup(l.stop)
	return loop.FromPost(l.post, l.done)
}

// handLoop is what a foreign loop may look like: a queue and a goroutine.
type handLoop struct {
	mu      sync.Mutex
	some    *sync.Cond
	queue   []func()
	stopped bool
	done    chan struct{}
}

func newHandLoop() *handLoop {
	l := &handLoop{done: make(chan struct{})}
	l.some = sync.NewCond(&l.mu)
	return l
}

func (l *handLoop) run() {
	defer close(l.done)
	for {
		l.mu.Lock()
		for len(l.queue) == 0 && !l.stopped {
			l.some.Wait()
		}
		if l.stopped {
			l.mu.Unlock()
			return
		}
		fn := l.queue[0]
		l.queue = l.queue[1:]
		l.mu.Unlock()
		fn()
	}
}

func (l *handLoop) post(fn func()) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return loop.ErrStopped
	}
	l.queue = append(l.queue, fn)
	l.some.Signal()
	return nil
}

func (l *handLoop) stop() {
	l.mu.Lock()
	l.stopped = true
	l.some.Signal()
	l.mu.Unlock()
	<-l.done
}

// broken is a backend of which single methods can be replaced.
type broken struct {
	loop.Backend
	post  func(fn func()) error
	done  func() <-chan struct{}
	spawn func(ctx context.Context, fn func(context.Context)) error
	park  func(ctx context.Context, arm func(func())) error
}

func (b *broken) Post(fn func()) error {
	if b.post != nil {
		return b.post(fn)
	}
	return b.Backend.Post(fn)
}

func (b *broken) Done() <-chan struct{} {
	if b.done != nil {
		return b.done()
	}
	return b.Backend.Done()
}

func (b *broken) Spawn(ctx context.Context, fn func(context.Context)) error {
	if b.spawn != nil {
		return b.spawn(ctx, fn)
	}
	return b.Backend.Spawn(ctx, fn)
}

func (b *broken) Park(ctx context.Context, arm func(func())) error {
	if b.park != nil {
		return b.park(ctx, arm)
	}
	return b.Backend.Park(ctx, arm)
}

// faults are backends that each break one clause, at the test that is to notice.
var faults = []struct {
	name, test string
	kind       string
	fault      func(t *testing.T, b *broken)
}{
	{"Post waits for the function", "C1/Post_does_not_wait_for_the_loop", "thread", func(t *testing.T, b *broken) {
		b.post = func(fn func()) error {
			ran := make(chan struct{})
			err := b.Backend.Post(func() {
				defer close(ran)
				fn()
			})
			if err == nil {
				select {
				case <-ran:
				case <-b.Backend.Done():
				}
			}
			return err
		}
	}},
	{"Post on the loop waits for the loop", "C1/Post_from_the_loop's_own_functions", "thread", func(t *testing.T, b *broken) {
		var running atomic.Bool
		b.post = func(fn func()) error {
			for running.Load() {
				select {
				case <-b.Backend.Done():
					return loop.ErrStopped
				case <-time.After(time.Millisecond):
				}
				if t.Failed() {
					return loop.ErrStopped
				}
			}
			return b.Backend.Post(func() {
				running.Store(true)
				defer running.Store(false)
				fn()
			})
		}
	}},
	{"functions of one caller overtake", "C1/the_order_of_each_caller", "thread", func(t *testing.T, b *broken) {
		var n atomic.Int64
		b.post = func(fn func()) error {
			if n.Add(1)%5 != 0 {
				return b.Backend.Post(fn)
			}
			return b.Backend.Post(func() { _ = b.Backend.Post(fn) })
		}
	}},
	{"a function runs twice", "C2/an_accepted_function_runs_once", "thread", func(t *testing.T, b *broken) {
		b.post = func(fn func()) error {
			err := b.Backend.Post(fn)
			if err == nil {
				_ = b.Backend.Post(func() {
					defer func() { _ = recover() }() // the suite closes channels
					fn()
				})
			}
			return err
		}
	}},
	{"a function is lost", "C2/an_accepted_function_runs_once", "thread", func(t *testing.T, b *broken) {
		var n atomic.Int64
		b.post = func(fn func()) error {
			if n.Add(1) == 100 {
				return nil
			}
			return b.Backend.Post(fn)
		}
	}},
	{"a refused function runs", "C2/functions_that_are_posted_while_the_loop_stops", "thread", func(t *testing.T, b *broken) {
		b.post = func(fn func()) error {
			err := b.Backend.Post(fn)
			if err != nil {
				fn()
			}
			return err
		}
	}},
	{"Done is never closed", "C2/functions_that_are_posted_while_the_loop_stops", "thread", func(t *testing.T, b *broken) {
		b.done = func() <-chan struct{} { return nil }
	}},
	{"a call at the end has another error", "C2/calls_that_are_made_while_the_loop_stops", "goroutines", func(t *testing.T, b *broken) {
		b.spawn = func(ctx context.Context, fn func(context.Context)) error {
			if err := b.Backend.Spawn(ctx, fn); err != nil {
				return errors.New("gone")
			}
			return nil
		}
	}},
	{"a task is lost", "C2/a_task_runs_once", "thread", func(t *testing.T, b *broken) {
		var n atomic.Int64
		b.spawn = func(ctx context.Context, fn func(context.Context)) error {
			if n.Add(1) == 100 {
				return nil
			}
			return b.Backend.Spawn(ctx, fn)
		}
	}},
	{"tasks are not cancelled at the end", "C2/tasks_that_run_when_the_backend_stops", "thread", func(t *testing.T, b *broken) {
		b.spawn = func(ctx context.Context, fn func(context.Context)) error {
			return b.Backend.Spawn(ctx, func(context.Context) { fn(ctx) })
		}
		b.done = func() <-chan struct{} {
			done := make(chan struct{})
			close(done)
			return done
		}
		b.park = func(ctx context.Context, arm func(func())) error {
			return b.Backend.Park(ctx, func(wake func()) {
				arm(wake)
				go func() { // so that the backend comes to its end
					<-time.After(2 * patience)
					wake()
				}()
			})
		}
	}},
	{"Post after Done is accepted", "C3/Post_after_Done", "thread", func(t *testing.T, b *broken) {
		b.post = func(fn func()) error {
			_ = b.Backend.Post(fn)
			return nil
		}
	}},
	{"Spawn after Done has another error", "C3/Spawn_after_Done", "thread", func(t *testing.T, b *broken) {
		b.spawn = func(ctx context.Context, fn func(context.Context)) error {
			if b.Backend.Spawn(ctx, fn) != nil {
				return errors.New("too late")
			}
			return nil
		}
	}},
	{"a wake before the task suspends is lost", "C4/wake_before_the_task_has_suspended", "thread", func(t *testing.T, b *broken) {
		b.park = func(ctx context.Context, arm func(func())) error {
			return b.Backend.Park(ctx, func(wake func()) {
				suspended := false
				arm(func() {
					if suspended {
						wake()
					}
				})
				suspended = true
			})
		}
	}},
	{"a wake counts for the next wait", "C4/a_late_wake_does_not_end_the_next_wait", "thread", func(t *testing.T, b *broken) {
		var now atomic.Pointer[func()]
		b.park = func(ctx context.Context, arm func(func())) error {
			return b.Backend.Park(ctx, func(wake func()) {
				now.Store(&wake)
				arm(func() { (*now.Load())() })
			})
		}
	}},
	{"wake may be called once", "C4/wake_from_everywhere_at_once", "thread", func(t *testing.T, b *broken) {
		b.park = func(ctx context.Context, arm func(func())) error {
			return b.Backend.Park(ctx, func(wake func()) {
				var n atomic.Int64
				arm(func() {
					for n.Add(1) > 1 && !t.Failed() {
						time.Sleep(time.Millisecond) // for ever, as far as the suite can tell
					}
					wake()
				})
			})
		}
	}},
	{"Park does not look at ctx", "C5/Park_returns_the_cause_of_its_ctx", "thread", func(t *testing.T, b *broken) {
		b.park = func(ctx context.Context, arm func(func())) error {
			return b.Backend.Park(context.Background(), func(wake func()) {
				arm(wake)
				go func() { // so that the backend comes to its end
					<-time.After(2 * patience)
					wake()
				}()
			})
		}
	}},
	{"Park returns ctx.Err", "C5/Park_returns_the_cause_of_its_ctx", "thread", func(t *testing.T, b *broken) {
		b.park = func(ctx context.Context, arm func(func())) error {
			if err := b.Backend.Park(ctx, arm); err != nil {
				return ctx.Err()
			}
			return nil
		}
	}},
	{"Park always fails", "C5/Park_returns_nil_when_woken", "goroutines", func(t *testing.T, b *broken) {
		b.park = func(ctx context.Context, arm func(func())) error {
			_ = b.Backend.Park(ctx, arm)
			return errors.New("woken")
		}
	}},
	{"a cancelled task begins", "C5/a_task_whose_ctx_has_ended_does_not_begin", "thread", func(t *testing.T, b *broken) {
		b.spawn = func(ctx context.Context, fn func(context.Context)) error {
			return b.Backend.Spawn(context.WithoutCancel(ctx), func(context.Context) { fn(ctx) })
		}
	}},
	{"a task has a ctx of its own", "C5/the_ctx_of_a_task_ends_with_that_of_Spawn", "goroutines", func(t *testing.T, b *broken) {
		b.spawn = func(ctx context.Context, fn func(context.Context)) error {
			return b.Backend.Spawn(context.WithoutCancel(ctx), fn)
		}
	}},
	{"a panic is swallowed", "C6/a_panic_of_a_task_that_nobody_waits_for", "thread", func(t *testing.T, b *broken) {
		b.spawn = func(ctx context.Context, fn func(context.Context)) error {
			return b.Backend.Spawn(ctx, func(ctx context.Context) {
				defer func() { _ = recover() }()
				fn(ctx)
			})
		}
	}},
	{"a panic of a posted function is swallowed", "C6/a_panic_of_a_posted_function", "goroutines", func(t *testing.T, b *broken) {
		b.post = func(fn func()) error {
			return b.Backend.Post(func() {
				defer func() { _ = recover() }()
				fn()
			})
		}
	}},
	{"a Goexit ends the loop", "C6/a_Goexit_of_a_posted_function", "thread", func(t *testing.T, b *broken) {
		l := newHandLoop()
		go l.run()
		b.post = l.post
	}},
	{"functions run beside tasks", "C7/tasks_and_functions_exclude_each_other", "thread", func(t *testing.T, b *broken) {
		b.post = running(t, loop.NewThread()).Post
	}},
	{"functions run on another thread", "C7/one_OS_thread", "thread", func(t *testing.T, b *broken) {
		b.post = running(t, loop.NewThread()).Post
	}},
	{"tasks overtake", "C7/who_is_ready_first_runs_first", "thread", func(t *testing.T, b *broken) {
		var n atomic.Int64
		b.spawn = func(ctx context.Context, fn func(context.Context)) error {
			return b.Backend.Spawn(ctx, func(ctx context.Context) {
				if i := n.Add(1); i > 20 && i%5 == 0 { // not while the suite looks whether tasks run side by side
					_ = b.Backend.Park(ctx, func(wake func()) { wake() })
				}
				fn(ctx)
			})
		}
	}},
	{"a task that was woken goes on at once", "C7/tasks_do_not_starve_functions", "thread", func(t *testing.T, b *broken) {
		b.park = func(ctx context.Context, arm func(func())) error {
			woken := false
			arm(func() { woken = true })
			if woken {
				return ctx.Err()
			}
			return b.Backend.Park(ctx, arm)
		}
	}},
	{"functions come first", "C7/functions_do_not_starve_tasks", "thread", func(t *testing.T, b *broken) {
		b.post = func(fn func()) error {
			return b.Backend.Post(func() {
				// One that posts itself runs on, until nobody can be waiting.
				for start := time.Now(); time.Since(start) < 2*patience && !t.Failed(); {
					fn()
				}
			})
		}
	}},
}

const childVariable = "LOOPTEST_FAULT"

// TestFault is run in a child process, where it is meant to fail.
func TestFault(t *testing.T) {
	name := os.Getenv(childVariable)
	if name == "" {
		t.Skip("only as a child of TestTheSuiteCatchesEachFault")
	}
	patience = time.Second
	for _, f := range faults {
		if f.name == name {
			TestBackend(t, func(t *testing.T) loop.Backend {
				good, err := loop.Builtin(f.kind)
				if err != nil {
					t.Fatal(err)
				}
				b := &broken{Backend: running(t, good)}
				f.fault(t, b)
				return b
			})
		}
	}
}

func TestTheSuiteCatchesEachFault(t *testing.T) {
	covered := map[string]bool{}
	for _, f := range faults {
		covered[f.test[:2]] = true
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
			defer cancel()
			// The test looked for has to be run, and C7's need the first of theirs.
			clause, test, _ := strings.Cut(f.test, "/")
			cmd := exec.CommandContext(ctx, os.Args[0], "-test.v", "-test.timeout", "50s",
				"-test.run", "^TestFault$/^"+clause+"$/^("+test+"|one_at_a_time_or_not)$")
			cmd.Env = append(os.Environ(), childVariable+"="+f.name)
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Fatalf("the suite passes:\n%s", out)
			}
			if !strings.Contains(string(out), "--- FAIL: TestFault/"+f.test) {
				t.Fatalf("the suite fails, but not in %s:\n%s", f.test, out)
			}
		})
	}
	for _, clause := range []string{"C1", "C2", "C3", "C4", "C5", "C6", "C7"} {
		if !covered[clause] {
			t.Errorf("no fault is against %s", clause)
		}
	}
}
