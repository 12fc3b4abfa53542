package asyncsync_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/petermattis/goid"
	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/internal/goroutine"
	"asyncsync.dev/local"
	"asyncsync.dev/task"
)

// The tests here are of unpinned contexts whose caller runs the function itself,
// and of the ways from there to a worker and back.

// gidOf is the goroutine that calls of ctx run on.
func gidOf(t *testing.T, ctx context.Context, opts ...asyncsync.Option) int64 {
	t.Helper()
	p, err := asyncsync.ToThread(ctx, whereabouts, opts...)
	require.NoError(t, err)
	return p.gid
}

// throughWorker has the worker of an unpinned context run fn, and waits until it
// sleeps again: who may abandon a call does not run it.
func throughWorker(t *testing.T, ctx context.Context, fn func(context.Context) error) {
	t.Helper()
	require.NoError(t, to(ctx, fn, asyncsync.Abandon()))
	poll(t, func() string {
		if gidOf(t, ctx) != goid.Get() {
			return "the worker does not sleep"
		}
		return ""
	})
}

// The caller runs the function itself where nobody is in the way: the first
// time, after a worker had to do it, and after every ending.
func TestUnpinnedCallerRunsIt(t *testing.T) {
	guard(t)
	ctx, tsc := newContext(t, asyncsync.Unpinned())
	require.Equal(t, goid.Get(), gidOf(t, ctx))
	worker := int64(0)
	throughWorker(t, ctx, func(context.Context) error { worker = goid.Get(); return nil })
	require.NotEqual(t, goid.Get(), worker, "a call that may be abandoned is not the caller's")
	for _, e := range ends {
		var ran, caller int64
		e.CheckIs(t, outcomeOf(func() error {
			caller = goid.Get()
			return to(ctx, func(context.Context) error { ran = goid.Get(); return e.Do() })
		}))
		require.Equal(t, caller, ran, e.How)
	}
	require.Equal(t, goid.Get(), gidOf(t, ctx))

	// Who finds it busy has the worker run his.
	release, r := occupy(ctx)
	queued := start(func() error {
		if me := goid.Get(); me == gidOf(t, ctx) {
			return errOwn
		}
		return nil
	})
	awaitQueued(t, tsc, 1)
	release()
	require.NoError(t, r.Wait().Err)
	require.NoError(t, queued.Wait().Err)
	poll(t, func() string {
		if goid.Get() != gidOf(t, ctx) {
			return "the worker goes on"
		}
		return ""
	})
	require.False(t, tsc.Stats().Running)
}

// One call at a time, for callers of every kind. The counter is plain, for the race
// detector.
func TestUnpinnedIsExclusive(t *testing.T) {
	for _, procs := range []int{0, 1} {
		for _, callers := range []int{1, 2, 8, 64} {
			t.Run(fmt.Sprintf("%d callers on %d processors", callers, procs), func(t *testing.T) {
				guard(t)
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
				records := goroutine.Live()
				ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.Unpinned())
				onIt := asyncsync.On(tsc)
				v := local.New[int]()
				var alone exclusion
				step := func(context.Context) error { alone.run(nil); return nil }
				nested := func(ctx context.Context) error {
					alone.run(nil)
					if err := from(ctx, func(ctx context.Context) error { return to(ctx, step) }); err != nil {
						return err
					}
					return to(ctx, step) // inline
				}
				ways := []func(i int) error{
					func(int) error { return to(ctx, step) },
					func(int) error { return to(ctx, nested) },
					func(i int) error { // with local variables
						defer v.Set(i)()
						return to(ctx, func(context.Context) error {
							alone.run(nil)
							if got, _ := v.Get(); got != i {
								return fmt.Errorf("the value is %d, should be %d", got, i)
							}
							return nil
						})
					},
					func(int) error { // inside a task
						_, err := task.Go(ctx, func(ctx context.Context) (none, error) { return none{}, to(ctx, nested) }).Wait(ctx)
						return err
					},
					func(int) error { return waitFor(goTo(ctx, nested)) },
					func(int) error { return to(ctx, step, asyncsync.Abandon()) },
					func(int) error { // on another thread
						return to(context.Background(), func(ctx context.Context) error {
							return to(ctx, nested, onIt)
						})
					},
				}
				rounds := 200 / callers * 2
				if testing.Short() {
					rounds = max(rounds/4, 4)
				}
				var all sync.WaitGroup
				for me := range callers {
					all.Go(func() {
						for i := range rounds * len(ways) {
							if err := ways[(me+i)%len(ways)](i); err != nil {
								t.Error(err)
							}
						}
					})
				}
				all.Wait()
				require.NoError(t, tsc.Close())
				require.Equal(t, 1, alone.most)
				each := 1 + 3 + 1 + 3 + 3 + 1 + 3
				require.Equal(t, callers*rounds*each, alone.times)
				threadOf(t, context.Background())
				poll(t, func() string {
					if n := goroutine.Live(); n > records+1 { // the default thread's
						return fmt.Sprintf("%d records, there were %d", n, records)
					}
					return ""
				})
			})
		}
	}
}

// The holder serves what it waits for, on its own goroutine, to any depth, and
// keeps nothing of that.
func TestUnpinnedHolderServes(t *testing.T) {
	guard(t)
	records := goroutine.Live()
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.Unpinned())
	for _, depth := range []int{0, 1, 2, 50} {
		me := goid.Get()
		require.NoError(t, to(ctx, func(ctx context.Context) error {
			_, err := through(ctx, 2*depth+1, func(ctx context.Context) (none, error) {
				if goid.Get() == me {
					t.Error("async code on the holder's goroutine")
				}
				p, err := asyncsync.ToThread(ctx, whereabouts)
				if p.gid != me {
					t.Errorf("it runs on goroutine %d, should be %d", p.gid, me)
				}
				return none{}, err
			})
			return err
		}))
	}
	require.NoError(t, tsc.Close())
	poll(t, func() string {
		if n := goroutine.Live(); n > records {
			return fmt.Sprintf("%d records, there were %d", n, records)
		}
		return ""
	})
}

// A function that ends in whatever way ends its caller, and leaves the token to
// the next, with what it was on top of.
func TestUnpinnedEndings(t *testing.T) {
	for _, e := range ends {
		for name, deep := range map[string]bool{"plain": false, "nested": true} {
			t.Run(e.How+"/"+name, func(t *testing.T) {
				guard(t)
				log := listen(t)
				ctx, tsc := newContext(t, asyncsync.Unpinned())
				records := goroutine.Live()
				e.CheckIs(t, outcomeOf(func() error {
					if !deep {
						return to(ctx, on(e.Do), asyncsync.Named("subject"))
					}
					return to(ctx, func(ctx context.Context) error {
						return from(ctx, func(ctx context.Context) error {
							return to(ctx, on(e.Do), asyncsync.Named("subject"))
						})
					})
				}))
				require.Equal(t, goid.Get(), gidOf(t, ctx))
				s := tsc.Stats()
				require.False(t, s.Running)
				require.Zero(t, s.Queued)
				told := log.Named("ended", "subject")
				require.Len(t, told, 1)
				require.Equal(t, e.How == "goexit", told[0].Goexit)
				require.Equal(t, e.How == "panic", told[0].Panic != nil)
				if e.How == "panic" {
					require.Contains(t, string(told[0].Stack), "testkit.Culprit")
					require.Equal(t, 1, log.Count("panicked"))
				}
				poll(t, func() string {
					if n := goroutine.Live(); n > records {
						return fmt.Sprintf("%d records, there were %d", n, records)
					}
					return ""
				})
			})
		}
	}
}

// Calls that queue behind a holder whose function ends by Goexit run all the
// same, not on its goroutine.
func TestUnpinnedGoexitHandsOver(t *testing.T) {
	guard(t)
	ctx, tsc := newContext(t, asyncsync.Unpinned())
	begun, leave := make(chan struct{}), make(chan struct{})
	holder := start(func() error {
		return to(ctx, func(context.Context) error { close(begun); <-leave; runtime.Goexit(); return nil })
	})
	<-begun
	n := 0
	var queued []*runningFunc
	for range 10 {
		queued = append(queued, start(func() error {
			return to(ctx, func(context.Context) error { n++; return nil })
		}))
	}
	awaitQueued(t, tsc, 10)
	close(leave)
	require.Equal(t, "goexit", holder.Wait().How)
	for _, r := range queued {
		require.NoError(t, r.Wait().Err)
	}
	require.Equal(t, 10, n)
}

// Close and Shutdown, from the holder, from others while it holds, and of a
// context that nobody keeps.
func TestUnpinnedClose(t *testing.T) {
	guard(t)
	leakCheck(t)
	open := func() (context.Context, *asyncsync.ThreadSensitiveContext) {
		return asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.Unpinned())
	}
	threads := asyncsync.ReadStats().Threads

	ctx, tsc := open() // from the holder
	require.NoError(t, to(ctx, func(ctx context.Context) error {
		require.ErrorIs(t, tsc.Shutdown(context.Background()), deadlock.ErrDeadlock)
		require.NoError(t, tsc.Close())
		require.ErrorIs(t, to(context.Background(), on(nil0), asyncsync.On(func() *asyncsync.ThreadSensitiveContext {
			_, other := open()
			require.NoError(t, other.Close())
			return other
		}())), asyncsync.ErrClosed)
		return to(ctx, on(nil0)) // inline
	}))
	require.ErrorIs(t, to(ctx, neverRuns(t)), asyncsync.ErrClosed)
	require.NoError(t, tsc.Close())

	ctx, tsc = open() // from others: what is queued runs
	release, r := occupy(ctx)
	queued := start(func() error { return to(ctx, on(nil0)) })
	awaitQueued(t, tsc, 1)
	closed := start(tsc.Close)
	poll(t, func() string {
		if !tsc.Stats().Closed {
			return "is not closed"
		}
		return ""
	})
	require.ErrorIs(t, to(ctx, neverRuns(t)), asyncsync.ErrClosed)
	require.False(t, closed.Over())
	release()
	for _, r := range []*runningFunc{r, queued, closed} {
		require.NoError(t, r.Wait().Err)
	}

	ctx, tsc = open() // a Shutdown that gives up
	release, r = occupy(ctx, asyncsync.Named("held"))
	queued = start(func() error { return to(ctx, neverRuns(t)) })
	awaitQueued(t, tsc, 1)
	ended, cancel := context.WithCancelCause(context.Background())
	cancel(errCause)
	err := tsc.Shutdown(ended)
	require.ErrorIs(t, err, errCause)
	require.ErrorContains(t, err, "held still runs")
	require.ErrorIs(t, queued.Wait().Err, asyncsync.ErrClosed)
	release()
	require.NoError(t, r.Wait().Err)
	require.NoError(t, tsc.Close())

	for _, contended := range []bool{false, true} { // dropped
		func() {
			ctx, _ := open()
			require.Equal(t, goid.Get(), gidOf(t, ctx))
			if contended {
				throughWorker(t, ctx, on(nil0))
			}
		}()
	}
	collect(t, func() string {
		if n := asyncsync.ReadStats().Threads; n > threads {
			return fmt.Sprintf("%d threads, there were %d", n, threads)
		}
		return ""
	})
}

// Calls, counts, a close and the first worker, all at the same time: nothing
// hangs, and no thread is counted that is none.
func TestUnpinnedRaces(t *testing.T) {
	guard(t)
	threads := asyncsync.ReadStats().Threads
	stop := make(chan struct{})
	var counters sync.WaitGroup
	counters.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				asyncsync.ReadStats()
				deadlock.Take()
			}
		}
	})
	rounds := 1000
	if testing.Short() {
		rounds = 200
	}
	for round := range rounds {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.Unpinned())
		var ran, said atomic.Int64
		var all sync.WaitGroup
		for i := range 3 {
			all.Go(func() {
				var opts []asyncsync.Option
				if i == 0 {
					opts = append(opts, asyncsync.Abandon()) // asks for the worker
				}
				for range 3 {
					if err := to(ctx, func(context.Context) error { ran.Add(1); return nil }, opts...); err == nil {
						said.Add(1)
					}
				}
			})
		}
		if round%2 == 0 {
			all.Go(func() { tsc.Close() })
		}
		all.Wait()
		require.NoError(t, tsc.Close())
		require.Equal(t, said.Load(), ran.Load())
	}
	close(stop)
	counters.Wait()
	poll(t, func() string {
		if n := asyncsync.ReadStats().Threads; n > threads {
			return fmt.Sprintf("%d threads, there were %d", n, threads)
		}
		return ""
	})
}

// Thread-critical values belong to the context, whether its callers or a worker run the
// calls, or both in turn. They end once, with the context.
func TestUnpinnedCritical(t *testing.T) {
	for _, first := range []string{"caller", "worker"} {
		t.Run(first+" first", func(t *testing.T) {
			guard(t)
			var ended []string
			note := func(s string) { ended = append(ended, s) }
			v := local.New[string](local.ThreadCritical(), local.OnThreadExit(note))
			w := local.New[string](local.ThreadCritical(), local.OnThreadExit(note))
			ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.Unpinned())
			call := func(fn func()) {
				require.NoError(t, to(ctx, func(context.Context) error { fn(); return nil }))
			}
			worker := func(fn func()) {
				require.NoError(t, to(ctx, func(context.Context) error { fn(); return nil }, asyncsync.Abandon()))
			}
			anyone := func(fn func()) { // some other goroutine
				require.NoError(t, start(func() error { call(fn); return nil }).Wait().Err)
			}
			want := func(x *local.Var[string], value string) func() {
				return func() {
					got, ok := x.Get()
					require.Equal(t, value != "", ok)
					require.Equal(t, value, got)
				}
			}
			setV := func() { v.Set("v") }
			call(want(v, ""))
			if first == "caller" {
				call(setV)
			} else {
				worker(setV)
			}
			want(v, "")() // the caller's own goroutine has none of it
			call(want(v, "v"))
			anyone(want(v, "v"))
			worker(want(v, "v"))
			anyone(func() { w.Set("w") })
			call(want(v, "v"))
			call(want(w, "w"))
			worker(want(w, "w"))
			want(w, "")()
			require.Empty(t, ended)
			require.NoError(t, tsc.Close())
			require.Equal(t, []string{"w", "v"}, ended)
			want(v, "")()
		})
	}
}

// The values of the caller's own goroutine are kept apart.
func TestUnpinnedCriticalOfTheCaller(t *testing.T) {
	guard(t)
	var ended atomic.Int64
	v := local.New[int](local.ThreadCritical(), local.OnThreadExit(func(int) { ended.Add(1) }))
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.Unpinned())
	done := make(chan struct{})
	local.Go(func() {
		defer close(done)
		v.Set(1)
		get := func() (n int) {
			to(ctx, func(context.Context) error { n, _ = v.Get(); return nil })
			return n
		}
		if got := get(); got != 0 {
			t.Errorf("the context sees the caller's %d", got)
		}
		to(ctx, func(context.Context) error { v.Set(2); return nil })
		if got, _ := v.Get(); got != 1 {
			t.Errorf("the caller sees the context's %d", got)
		}
		if got := get(); got != 2 {
			t.Errorf("the context sees %d, should be 2", got)
		}
	})
	<-done
	require.NoError(t, tsc.Close())
	poll(t, func() string { // that of a goroutine that ends is its own affair
		if n := ended.Load(); n != 2 {
			return fmt.Sprintf("%d values have ended", n)
		}
		return ""
	})
}

// A value that a call sets and deletes again, or undoes, binds the context to
// nothing; an undo does not reach past the call.
func TestUnpinnedCriticalUndone(t *testing.T) {
	guard(t)
	v := local.New[int](local.ThreadCritical())
	ctx, _ := newContext(t, asyncsync.Unpinned())
	require.NoError(t, to(ctx, func(context.Context) error { v.Set(1)(); return nil }))
	require.NoError(t, to(ctx, func(context.Context) error { v.Set(1); v.Delete(); return nil }))
	require.Equal(t, goid.Get(), gidOf(t, ctx), "there is nothing to be kept")
}

// An undo of a value that stays acts on the context that Set was called in, as
// with any thread, not on the goroutine that was the thread at that time.
func TestUnpinnedCriticalUndoneLater(t *testing.T) {
	guard(t)
	v := local.New[int](local.ThreadCritical())
	ctx, _ := newContext(t, asyncsync.Unpinned())
	var undo func()
	get := func() (n int) {
		require.NoError(t, to(ctx, func(context.Context) error { n, _ = v.Get(); return nil }))
		return n
	}
	require.NoError(t, to(ctx, func(context.Context) error {
		v.Set(1)
		undo = v.Set(2)
		return nil
	}))
	for range 2 {
		require.NotNil(t, panicOf(undo), "it is not called on the thread")
		_, ok := v.Get()
		require.False(t, ok, "the goroutine has no value of its own")
		require.Equal(t, 2, get())
	}
	require.NoError(t, to(ctx, func(context.Context) error { undo(); return nil }))
	require.Equal(t, 1, get())
}

// Functions for the start and the end of the thread need one goroutine, which
// runs everything.
func TestUnpinnedStartAndExit(t *testing.T) {
	guard(t)
	var gids []int64
	note := func() { gids = append(gids, goid.Get()) }
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.Unpinned(),
		asyncsync.OnThreadStart(note), asyncsync.OnThreadExit(note))
	for range 3 {
		require.NoError(t, to(ctx, func(context.Context) error { note(); return nil }))
	}
	require.NoError(t, tsc.Close())
	require.Len(t, gids, 5)
	for _, g := range gids {
		require.Equal(t, gids[0], g)
		require.NotEqual(t, goid.Get(), g)
	}
}

// Local variables are one and the same for function and caller, whatever else
// the goroutine is at that moment.
func TestUnpinnedLocals(t *testing.T) {
	guard(t)
	v, w := local.New[int](), local.New[int]()
	ctx, _ := newContext(t, asyncsync.Unpinned())
	check := func(ctx context.Context) {
		undo := v.Set(1)
		to(ctx, func(ctx context.Context) error {
			got, _ := v.Get()
			require.Equal(t, 1, got)
			v.Set(2)
			w.Set(3)
			from(ctx, func(ctx context.Context) error {
				got, _ := v.Get()
				require.Equal(t, 2, got)
				v.Set(4)
				return to(ctx, func(context.Context) error { v.Set(5); return nil })
			})
			got, _ = v.Get()
			require.Equal(t, 5, got)
			return nil
		})
		got, _ := v.Get()
		require.Equal(t, 5, got)
		got, _ = w.Get()
		require.Equal(t, 3, got)
		w.Delete()
		undo()
		_, ok := v.Get()
		require.False(t, ok)
		// The last value goes while the function runs.
		v.Set(1)
		to(ctx, func(ctx context.Context) error {
			v.Delete()
			return to(ctx, func(ctx context.Context) error { // still on the thread
				return from(ctx, func(ctx context.Context) error { return to(ctx, on(nil0)) })
			})
		})
		_, ok = v.Get()
		require.False(t, ok)
	}
	records := goroutine.Live()
	check(ctx)
	require.LessOrEqual(t, goroutine.Live(), records)
	waitFor(goTo(context.Background(), func(context.Context) error { check(ctx); return nil }))
	task.Go(ctx, func(ctx context.Context) (none, error) { check(ctx); return none{}, nil }).Wait(ctx)
}

// Abandon gives the call to a worker; Interrupt and the end of ctx reach a
// function that its caller runs.
func TestUnpinnedCancellation(t *testing.T) {
	guard(t)
	base, tsc := newContext(t, asyncsync.Unpinned())
	ctx, cancel := context.WithCancelCause(base)
	stop := make(chan struct{})
	began := make(chan struct{})
	caller := int64(0)
	r := start(func() error {
		caller = goid.Get()
		return to(ctx, func(ctx context.Context) error {
			if goid.Get() != caller {
				t.Error("not on the caller's goroutine")
			}
			close(began)
			<-ctx.Done()
			<-stop
			return errOwn
		}, asyncsync.InterruptOnce(func() { close(stop) }))
	})
	<-began
	cancel(errCause)
	require.Same(t, errOwn, r.Wait().Err)
	require.Same(t, errCause, to(ctx, neverRuns(t)))

	ctx, cancel = context.WithCancelCause(base)
	began, leave := make(chan struct{}), make(chan struct{})
	r = start(func() error {
		return to(ctx, func(context.Context) error { close(began); <-leave; return nil }, asyncsync.Abandon())
	})
	<-began
	cancel(errCause)
	requireWrapsAll(t, r.Wait().Err, asyncsync.ErrAbandoned, errCause)
	require.True(t, tsc.Stats().Running)
	queued := start(func() error { return to(base, on(nil0)) })
	awaitQueued(t, tsc, 1)
	close(leave)
	require.NoError(t, queued.Wait().Err)

	// Behind a holder a call is taken out like any other.
	release, holder := occupy(base)
	ctx, cancel = context.WithCancelCause(base)
	r = start(func() error { return to(ctx, neverRuns(t)) })
	awaitQueued(t, tsc, 1)
	cancel(errCause)
	require.Same(t, errCause, r.Wait().Err)
	require.Zero(t, tsc.Stats().Queued)
	release()
	require.NoError(t, holder.Wait().Err)
}

// Counts and reports of a context that is held.
func TestUnpinnedStats(t *testing.T) {
	guard(t)
	ctx, tsc := newContext(t, asyncsync.Unpinned(), asyncsync.WithName("held one"))
	before := asyncsync.ReadStats()
	for i := range 5 {
		require.NoError(t, to(ctx, on(nil0)))
		require.EqualValues(t, i+1, tsc.Stats().Calls)
	}
	begun, leave := make(chan struct{}), make(chan struct{})
	gid := int64(0)
	r := start(func() error {
		return to(ctx, func(ctx context.Context) error {
			return from(ctx, func(ctx context.Context) error {
				return to(ctx, func(context.Context) error {
					gid = goid.Get()
					close(begun)
					<-leave
					return nil
				}, asyncsync.Named("inner"))
			})
		}, asyncsync.Named("outer"))
	})
	<-begun
	queued := start(func() error { return to(ctx, on(nil0), asyncsync.Named("queued")) })
	awaitQueued(t, tsc, 1)
	s := tsc.Stats()
	require.True(t, s.Running)
	require.Zero(t, s.Thread)
	report := deadlock.Take()
	found := false
	for _, th := range report.Threads {
		if th.Name != "held one" {
			continue
		}
		found = true
		require.Equal(t, gid, th.Goroutine)
		require.Len(t, th.Stack, 2)
		require.Equal(t, "inner", th.Stack[0].Name)
		require.Equal(t, "outer", th.Stack[1].Name)
		require.Len(t, th.Queue, 1)
		require.Equal(t, "queued", th.Queue[0].Name)
	}
	require.True(t, found, "%v", report)
	close(leave)
	require.NoError(t, r.Wait().Err)
	require.NoError(t, queued.Wait().Err)
	require.EqualValues(t, 8, tsc.Stats().Calls)
	require.NoError(t, tsc.Close())
	require.Equal(t, before.Calls+8, asyncsync.ReadStats().Calls)
}

// There are more holders at a time than the table of holders has places, and each of
// them looks itself up.
func TestUnpinnedManyHolders(t *testing.T) {
	guard(t)
	records := goroutine.Live()
	const holders = 600
	everybody := newMeeting(holders)
	var all sync.WaitGroup
	for range holders {
		all.Go(func() {
			ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.Unpinned())
			me := goid.Get()
			err := to(ctx, func(ctx context.Context) error {
				everybody.attend() // all hold now
				for range 2 {
					if p, err := asyncsync.ToThread(ctx, whereabouts); err != nil || p.gid != me {
						t.Error("an inline call runs elsewhere", p, err)
					}
				}
				return from(ctx, func(ctx context.Context) error {
					if goid.Get() == me {
						t.Error("async code on the holder's goroutine")
					}
					p, err := asyncsync.ToThread(ctx, whereabouts)
					if p.gid != me {
						t.Error("a call back runs elsewhere")
					}
					return err
				})
			})
			if err != nil {
				t.Error(err)
			}
			if err := tsc.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	poll(t, func() string {
		if n := goroutine.Live(); n > records {
			return fmt.Sprintf("%d records, there were %d", n, records)
		}
		return ""
	})
}

// One goroutine that holds one context and calls another, and that calls back.
func TestUnpinnedTwo(t *testing.T) {
	guard(t)
	ctx, a := newContext(t, asyncsync.Unpinned())
	_, b := newContext(t, asyncsync.Unpinned())
	for range 50 {
		require.NoError(t, to(ctx, func(ctx context.Context) error {
			me := goid.Get()
			return to(ctx, func(ctx context.Context) error {
				return to(ctx, func(ctx context.Context) error {
					if goid.Get() != me {
						t.Error("a is elsewhere")
					}
					return to(ctx, on(nil0), asyncsync.On(b))
				}, asyncsync.On(a))
			}, asyncsync.On(b))
		}))
	}
	// Both ways at the same time would be a deadlock; one after the other is none.
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 50 {
				err := to(ctx, func(ctx context.Context) error { return to(ctx, on(nil0), asyncsync.On(b)) })
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// A holder in a bubble sleeps durably where it waits, however its thread was
// told to look for calls.
func TestUnpinnedBubble(t *testing.T) {
	for name, mode := range map[string]int{"cold": -1, "learning": 0, "hot": 1} {
		t.Run(name, func(t *testing.T) {
			guard(t)
			forceSpin(t, mode)
			synctest.Test(t, func(t *testing.T) {
				ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.Unpinned())
				begin := time.Now()
				for range 100 { // enough for a trial
					require.NoError(t, to(ctx, func(ctx context.Context) error {
						return from(ctx, func(ctx context.Context) error {
							time.Sleep(time.Second)
							return to(ctx, on(nil0))
						})
					}))
				}
				require.Equal(t, 100*time.Second, time.Since(begin))
				release, r := occupy(ctx)
				queued := start(func() error { return to(ctx, on(nil0)) })
				synctest.Wait()
				require.False(t, queued.Over())
				release()
				require.NoError(t, r.Wait().Err)
				require.NoError(t, queued.Wait().Err)
				require.NoError(t, tsc.Close())
			})
		})
	}
}

// What a call may allocate, the caller running it: nothing.
func TestUnpinnedAllocs(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	guard(t)
	ctx, _ := newContext(t, asyncsync.Unpinned())
	call := asyncsync.SyncToAsync(func(_ context.Context, n int) (int, error) { return n, nil })
	check := func(what string) {
		require.Zero(t, allocsPerRun(func() {
			if _, err := call(ctx, 1); err != nil {
				panic(err)
			}
		}), what)
	}
	check("without a worker")
	throughWorker(t, ctx, on(nil0))
	check("with a worker that sleeps")
}
