package asyncsync_test

// The scenarios of asgiref 3.12.1's tests/test_sync.py, rows 1 to 58 of
// docs/conformance.md. Each test opens with what asgiref promised and what we
// expect. "S2A" is SyncToAsync or ToThread, "A2S" is AsyncToSync or FromThread,
// T is the thread of the scenario.

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/petermattis/goid"
	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/task"
)

// asgiref: S2A gives back the function's value and waits for the function; a
// pool of one worker serialises two calls.
//
// Here: the same. The clock of a synctest bubble makes "waits" and "one after
// the other" exact numbers instead of lower bounds.
func TestRow1_SyncToAsync(t *testing.T) {
	guard(t)
	const nap = 50 * time.Millisecond
	sleepy := func(context.Context, int) (int, error) {
		time.Sleep(nap)
		return 42, nil
	}

	t.Run("returns the value and waits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
			start := time.Now()
			got, err := asyncsync.SyncToAsync(sleepy)(ctx, 0)
			require.NoError(t, err)
			require.Equal(t, 42, got)
			require.Equal(t, nap, time.Since(start))
			require.NoError(t, tsc.Close())
		})
	})

	for _, workers := range []int{1, 2} {
		t.Run(fmt.Sprintf("two calls on an executor with %d", workers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				team := newCrew(workers)
				defer team.dismiss()
				var inside, most atomic.Int32
				call := asyncsync.SyncToAsync(func(ctx context.Context, _ int) (int, error) {
					now := inside.Add(1)
					for seen := most.Load(); now > seen && !most.CompareAndSwap(seen, now); seen = most.Load() {
					}
					defer inside.Add(-1)
					return sleepy(ctx, 0)
				}, asyncsync.Insensitive(), asyncsync.WithExecutor(team))

				start := time.Now()
				first := spawn(func() (int, error) { return call(t.Context(), 0) })
				second := spawn(func() (int, error) { return call(t.Context(), 0) })
				for _, p := range []*pending[int]{first, second} {
					got, err := p.Wait()
					require.NoError(t, err)
					require.Equal(t, 42, got)
				}
				require.Equal(t, time.Duration(2/workers)*nap, time.Since(start))
				require.EqualValues(t, workers, most.Load(), "most calls at once")
			})
		})
	}
}

// asgiref: a monitoring agent may reach into the object that crosses to the
// thread, take away an argument it had put there, and nothing else changes.
//
// Here: agents get hooks instead of a hole. They see each hop's name, the
// caller's context, how long it was queued and how long it ran; argument and
// result are the very same objects with and without them, and after restore
// the hooks hear nothing more.
func TestRow2_SyncToAsyncThreadHandlerChildIsPartial(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		type traceKey struct{}
		type event struct {
			kind, name, trace string
			queue, run        time.Duration
			err               error
		}
		ctx, tsc := asyncsync.NewThreadSensitiveContext(
			context.WithValue(t.Context(), traceKey{}, "trace-2"))

		var mu sync.Mutex
		var events []event
		note := func(kind string) func(asyncsync.CallInfo) {
			return func(info asyncsync.CallInfo) {
				if info.Name != "busy" && info.Name != "traced" {
					return
				}
				mu.Lock()
				defer mu.Unlock()
				trace, _ := info.Ctx.Value(traceKey{}).(string)
				events = append(events, event{kind, info.Name, trace, info.QueueTime, info.RunTime, info.Err})
			}
		}
		restore := asyncsync.SetHooks(asyncsync.Hooks{
			Queued: note("queued"), Started: note("started"), Ended: note("ended"),
		})

		argument, result, failure := new(int), new(int), errors.New("with a result")
		var received []*int // only T writes it
		traced := asyncsync.SyncToAsync(func(_ context.Context, arg *int) (*int, error) {
			received = append(received, arg)
			time.Sleep(20 * time.Millisecond)
			return result, failure
		}, asyncsync.Named("traced"))

		// T is busy for 30 ms, so the traced call is queued for just as long.
		release := make(chan struct{})
		busy := spawn(func() (int, error) {
			return asyncsync.ToThread(ctx, func(context.Context) (int, error) {
				<-release
				return 0, nil
			}, asyncsync.Named("busy"))
		})
		synctest.Wait()
		withHooks := spawn(func() (*int, error) { return traced(ctx, argument) })
		synctest.Wait()
		time.Sleep(30 * time.Millisecond)
		close(release)
		_, err := busy.Wait()
		require.NoError(t, err)
		got, err := withHooks.Wait()
		require.Same(t, result, got)
		require.Same(t, failure, err)
		synctest.Wait() // hooks may run after the caller has gone on

		restore()
		got, err = traced(ctx, argument)
		require.Same(t, result, got)
		require.Same(t, failure, err)
		synctest.Wait()

		require.Len(t, received, 2)
		require.Same(t, argument, received[0])
		require.Same(t, argument, received[1])

		mu.Lock()
		defer mu.Unlock()
		var ofTraced []string
		for _, e := range events {
			require.Equal(t, "trace-2", e.trace, "the hook of %+v sees the caller's context", e)
			if e.name == "traced" {
				ofTraced = append(ofTraced, e.kind)
			}
			if e.kind == "ended" && e.name == "busy" {
				require.Equal(t, 30*time.Millisecond, e.run)
				require.NoError(t, e.err)
			}
			if e.kind == "ended" && e.name == "traced" {
				require.Equal(t, 30*time.Millisecond, e.queue)
				require.Equal(t, 20*time.Millisecond, e.run)
				require.Same(t, failure, e.err)
			}
		}
		require.Equal(t, []string{"queued", "started", "ended"}, ofTraced)
		require.NoError(t, tsc.Close())
	})
}

// asgiref: wrapping what cannot be called is a TypeError when it is wrapped.
//
// Here: the compiler refuses all of that but nil, and nil panics at
// construction, naming the package.
func TestRow3_SyncToAsyncFailNonFunction(t *testing.T) {
	requireMisusePanic(t, func() { asyncsync.SyncToAsync[int, int](nil) })
}

// asgiref: S2A can decorate a function.
//
// Here: a wrapper is an ordinary Func made once; it can be called again and
// from any number of goroutines, each gets the answer to its own argument, and
// T runs them one at a time.
func TestRow7_SyncToAsyncDecorator(t *testing.T) {
	guard(t)
	var only exclusion
	next := asyncsync.SyncToAsync(func(_ context.Context, n int) (int, error) {
		only.run(nil)
		return n + 1, nil
	})
	got, err := next(t.Context(), 42)
	require.NoError(t, err)
	require.Equal(t, 43, got)

	const callers = 64
	var calls []*pending[int]
	for n := range callers {
		calls = append(calls, spawn(func() (int, error) { return next(context.Background(), n) }))
	}
	for n, call := range calls {
		got, err := call.Wait()
		require.NoError(t, err)
		require.Equal(t, n+1, got)
	}
	require.Equal(t, 1+callers, only.times)
	require.Equal(t, 1, only.most)
}

func row8Wrapped(context.Context, int) (int, error) { return 8, nil }

// asgiref: a wrapper keeps the name and the attributes of what it wraps.
//
// Here: a trace shows the runtime name of the wrapped function, unless Named
// says otherwise.
func TestRow8_NestedSyncToAsyncRetainsWrappedFunctionAttributes(t *testing.T) {
	guard(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
	defer tsc.Close()
	var mu sync.Mutex
	var names []string
	defer asyncsync.SetHooks(asyncsync.Hooks{
		Started: func(info asyncsync.CallInfo) {
			mu.Lock()
			defer mu.Unlock()
			names = append(names, info.Name)
		},
	})()

	_, err := asyncsync.SyncToAsync(row8Wrapped)(ctx, 0)
	require.NoError(t, err)
	_, err = asyncsync.SyncToAsync(row8Wrapped, asyncsync.Named("eight"))(ctx, 0)
	require.NoError(t, err)

	own := runtime.FuncForPC(reflect.ValueOf(row8Wrapped).Pointer()).Name()
	require.True(t, strings.HasSuffix(own, ".row8Wrapped"), own)
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, []string{own, "eight"}, names)
}

// till is an object with methods to wrap.
type till struct {
	sum    int
	script func(context.Context, int) (int, error)
}

func (c *till) add(_ context.Context, n int) (int, error) {
	c.sum += n
	return c.sum, nil
}

// asgiref: S2A can decorate a method, the object stays bound.
//
// Here: a method value is a Func; the call works on its object's state.
func TestRow9_SyncToAsyncMethodDecorator(t *testing.T) {
	guard(t)
	object := &till{sum: 40}
	add := asyncsync.SyncToAsync(object.add)
	got, err := add(t.Context(), 4)
	require.NoError(t, err)
	require.Equal(t, 44, got)
	require.Equal(t, 44, object.sum)
}

// asgiref: async code that calls sync code that calls async code again: the
// inner coroutine runs on the outer event loop, no second one is started.
//
// Here: the inner function runs on a goroutine that is not T's, T is T before
// and after, and levels that are all open at once do not cost a thread each.
func TestRow11_AsyncToSyncToAsync(t *testing.T) {
	guard(t)
	needThreads(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
	defer tsc.Close()

	var before, inside, after place
	got, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		before = here()
		v, err := asyncsync.FromThread(ctx, func(context.Context) (int, error) {
			inside = here()
			return 65, nil
		})
		after = here()
		return v, err
	})
	require.NoError(t, err)
	require.Equal(t, 65, got)
	require.Equal(t, before, after)
	require.NotEqual(t, before.tid, inside.tid)
	require.NotEqual(t, before.gid, inside.gid)

	const levels = 60
	threads := osThreads()
	deepest, err := through(ctx, levels, func(context.Context) (int, error) { return osThreads(), nil })
	require.NoError(t, err)
	require.Less(t, deepest, threads+levels/4, "levels open at once: %d", levels)
}

// Both wrappers exist before anything else does.
var (
	row12Outer = asyncsync.SyncToAsync(func(ctx context.Context, meet func()) ([3]place, error) {
		before := here()
		meet()
		inner, err := row12Inner(ctx, 12)
		return [3]place{before, inner[0], inner[1]}, err
	})
	row12Inner = asyncsync.AsyncToSync(func(ctx context.Context, _ int) ([2]place, error) {
		onThread, err := asyncsync.ToThread(ctx, whereabouts)
		return [2]place{here(), onThread}, err
	})
)

// asgiref: the same with wrappers that were built before any loop ran.
//
// Here: a wrapper knows no context. Each call finds the thread of the context
// it is called with, also for two contexts at the same time.
func TestRow12_AsyncToSyncToAsyncDecorator(t *testing.T) {
	guard(t)
	needThreads(t)
	type visit struct {
		own  place
		call *pending[[3]place]
	}
	var visits []visit
	both := newMeeting(2)
	for range 2 {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
		defer tsc.Close()
		own, err := asyncsync.ToThread(ctx, whereabouts)
		require.NoError(t, err)
		visits = append(visits, visit{own, spawn(func() ([3]place, error) {
			return row12Outer(ctx, both.attend)
		})})
	}
	require.NotEqual(t, visits[0].own.tid, visits[1].own.tid)
	for _, v := range visits {
		ran, err := v.call.Wait()
		require.NoError(t, err)
		require.Equal(t, v.own, ran[0], "the outer sync part")
		require.NotEqual(t, v.own.tid, ran[1].tid, "the async part")
		require.Equal(t, v.own, ran[2], "the inner sync part")
	}
}

// asgiref: A2S works in a thread that asgiref did not make, with a loop of its
// own.
//
// Here: a plain goroutine that calls A2S with a bare context becomes a thread
// for that long: the sync parts below come back to it, not to the thread of
// whatever context happens to be open elsewhere.
func TestRow13_AsyncToSyncToThreadDecorator(t *testing.T) {
	guard(t)
	elsewhere, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
	defer tsc.Close()
	foreign, err := asyncsync.ToThread(elsewhere, whereabouts)
	require.NoError(t, err)

	type report struct {
		value           int
		caller          int64
		async           place
		first, and, too place
	}
	r, err := spawn(func() (r report, err error) {
		r.caller = goid.Get()
		r.value, err = asyncsync.FromThread(context.Background(), func(ctx context.Context) (int, error) {
			r.async = here()
			var errs [3]error
			r.first, errs[0] = asyncsync.ToThread(ctx, whereabouts)
			r.and, errs[1] = asyncsync.ToThread(ctx, whereabouts)
			r.too, errs[2] = asyncsync.ToThread(ctx, whereabouts)
			return 42, errors.Join(errs[:]...)
		})
		return r, err
	}).Wait()
	require.NoError(t, err)
	require.Equal(t, 42, r.value)
	require.Equal(t, r.caller, r.first.gid, "sync code runs on the goroutine that called A2S")
	require.Equal(t, r.first, r.and, "which keeps its thread meanwhile")
	require.Equal(t, r.first, r.too)
	require.NotEqual(t, r.caller, r.async.gid, "async code runs on another")
	require.NotEqual(t, foreign.gid, r.first.gid)
	if tid() != 0 {
		require.NotEqual(t, foreign.tid, r.first.tid)
		// Were the caller not locked, what it waits for would start right there.
		require.NotEqual(t, r.first.tid, r.async.tid)
	}
}

// asgiref: A2S of something that cannot be called only warns.
//
// Here: stricter, as in row 3.
func TestRow14_AsyncToSyncFailNonFunction(t *testing.T) {
	requireMisusePanic(t, func() { asyncsync.AsyncToSync[int, int](nil) })
}

// asgiref: A2S works where there is no event loop at all.
//
// Here: it needs no context of ours. The function runs on another goroutine
// while the caller waits, and what it wrote is there when A2S returns.
func TestRow16_AsyncToSync(t *testing.T) {
	guard(t)
	var ranOn int64 // plain: A2S orders it
	got, err := asyncsync.FromThread(context.Background(), func(context.Context) (int, error) {
		ranOn = goid.Get()
		return 84, nil
	})
	require.NoError(t, err)
	require.Equal(t, 84, got)
	require.NotZero(t, ranOn)
	require.NotEqual(t, goid.Get(), ranOn)
}

var row17Double = asyncsync.AsyncToSync(func(_ context.Context, n int) (int, error) { return 2 * n, nil })

// asgiref: the same as a decorator.
//
// Here: through a wrapper made at package level, called again and again.
func TestRow17_AsyncToSyncDecorator(t *testing.T) {
	guard(t)
	for _, n := range []int{42, 0, -1} {
		got, err := row17Double(context.Background(), n)
		require.NoError(t, err)
		require.Equal(t, 2*n, got)
	}
}

// asgiref: the same on a method.
//
// Here: a method value, which works on its object's state.
func TestRow18_AsyncToSyncMethodDecorator(t *testing.T) {
	guard(t)
	object := &till{sum: 42}
	got, err := asyncsync.AsyncToSync(object.add)(context.Background(), 42)
	require.NoError(t, err)
	require.Equal(t, 84, got)
	require.Equal(t, 84, object.sum)
}

// asgiref: A2S on the thread of a running event loop is refused, it would stop
// the loop.
//
// Here: no error by nature. Async code may block its goroutine, so A2S called
// from async code is a direct call: same goroutine, the function's own result,
// and no thread is taken for it.
func TestRow19_AsyncToSyncInAsync(t *testing.T) {
	guard(t)
	failure := errors.New("the function's own")
	direct := func(ctx context.Context) error {
		caller := goid.Get()
		ranOn, err := asyncsync.FromThread(ctx, func(context.Context) (int64, error) { return goid.Get(), failure })
		if !errors.Is(err, failure) {
			return fmt.Errorf("got error %w", err)
		}
		if ranOn != caller {
			return fmt.Errorf("called on goroutine %d, ran on %d", caller, ranOn)
		}
		return nil
	}

	t.Run("in a context", func(t *testing.T) {
		started := 0
		ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context(), asyncsync.OnThreadStart(func() { started++ }))
		require.NoError(t, direct(ctx))
		require.Zero(t, tsc.Stats().Thread)
		require.NoError(t, tsc.Close())
		require.Zero(t, started)
	})
	t.Run("below a blocked thread", func(t *testing.T) {
		_, err := asyncsync.FromThread(context.Background(), func(ctx context.Context) (int, error) {
			return 0, direct(ctx)
		})
		require.NoError(t, err)
	})
	t.Run("in a task", func(t *testing.T) {
		_, err := task.Go(t.Context(), func(ctx context.Context) (int, error) { return 0, direct(ctx) }).Wait(t.Context())
		require.NoError(t, err)
	})
}

// asgiref: A2S works in a thread fresh from the threading module.
//
// Here: in any plain goroutine. Two of them are two threads that know nothing
// of each other: their sync parts run truly side by side. Afterwards they are
// plain goroutines again; had the lock stayed, their threads would die with
// them.
func TestRow20_AsyncToSyncInThread(t *testing.T) {
	guard(t)
	together := newMeeting(2)
	var calls []*pending[place]
	for range 2 {
		calls = append(calls, spawn(func() (place, error) {
			return asyncsync.FromThread(context.Background(), func(ctx context.Context) (place, error) {
				return asyncsync.ToThread(ctx, func(context.Context) (place, error) {
					together.attend() // hangs if one thread has to run both
					return here(), nil
				})
			})
		}))
	}
	one, err := calls[0].Wait()
	require.NoError(t, err)
	other, err := calls[1].Wait()
	require.NoError(t, err)
	require.NotEqual(t, one.gid, other.gid)
	if tid() == 0 {
		return
	}
	require.NotEqual(t, one.tid, other.tid)

	const goroutines = 64
	used := map[int]bool{}
	for range goroutines {
		at, err := spawn(func() (place, error) {
			return asyncsync.FromThread(context.Background(), func(ctx context.Context) (place, error) {
				return asyncsync.ToThread(ctx, whereabouts)
			})
		}).Wait()
		require.NoError(t, err)
		used[at.tid] = true
	}
	dead := 0
	for tid := range used {
		if !threadExists(tid) {
			dead++
		}
	}
	require.Less(t, dead, goroutines/4)
}

// asgiref: A2S may be called while an exception is being handled, and does not
// raise that one again.
//
// Here: A2S in a deferred function, in the middle of a panic and after it was
// recovered. It returns its value, and the panic stays what and where it was.
func TestRow21_AsyncToSyncInExcept(t *testing.T) {
	guard(t)
	call := func() (int, error) {
		return asyncsync.FromThread(context.Background(), func(ctx context.Context) (int, error) {
			return asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 42, nil })
		})
	}
	boom := errors.New("boom")
	var during, after int
	var errDuring, errAfter error
	var recovered any
	require.NotPanics(t, func() {
		defer func() {
			during, errDuring = call() // still panicking
			recovered = recover()
			after, errAfter = call()
		}()
		panic(boom)
	})
	require.NoError(t, errDuring)
	require.Equal(t, 42, during)
	require.Same(t, boom, recovered, "the panic was still there to recover")
	require.NoError(t, errAfter)
	require.Equal(t, 42, after)
}

// asgiref: A2S of a partial application passes the bound arguments first, then
// those of the call.
//
// Here: a closure and the typed argument.
func TestRow22_AsyncToSyncPartial(t *testing.T) {
	guard(t)
	bound := 42
	both := asyncsync.AsyncToSync(func(_ context.Context, n int) ([]int, error) { return []int{bound, n}, nil })
	got, err := both(context.Background(), 84)
	require.NoError(t, err)
	require.Equal(t, []int{42, 84}, got)
}

// asgiref: an object whose call method is async is accepted, with no warning.
//
// Here: anything of the right shape is a Func: a field that holds a function,
// a method value, a named function type.
func TestRow23_AsyncToSyncOnCallableObject(t *testing.T) {
	guard(t)
	object := &till{sum: 20, script: func(_ context.Context, n int) (int, error) { return n - 1, nil }}
	got, err := asyncsync.AsyncToSync(object.script)(context.Background(), 43)
	require.NoError(t, err)
	require.Equal(t, 42, got)
	got, err = asyncsync.AsyncToSync(object.add)(context.Background(), 22)
	require.NoError(t, err)
	require.Equal(t, 42, got)
	named := asyncsync.Func[int, int](object.script)
	got, err = asyncsync.AsyncToSync(named)(context.Background(), 43)
	require.NoError(t, err)
	require.Equal(t, 42, got)
}

// asgiref: when sync code is outermost, sync code below async code comes back
// to the calling thread, whether awaited directly or inside a task.
//
// Here: the same for a goroutine locked to a thread, like a GUI's main. The
// kernel's own name for the thread is the proof.
func TestRow25_ThreadSensitiveOutsideSync(t *testing.T) {
	guard(t)
	main := lockToNamedThread(t, "row25 main")

	var async, direct, inTask place
	var names []string // plain: only sync code on the main thread appends
	onMain := func(context.Context) (place, error) {
		names = append(names, threadName())
		return here(), nil
	}
	_, err := asyncsync.FromThread(context.Background(), func(ctx context.Context) (_ int, err error) {
		async = here()
		if direct, err = asyncsync.ToThread(ctx, onMain); err != nil {
			return 0, err
		}
		tk := task.Go(ctx, func(ctx context.Context) (place, error) { return asyncsync.ToThread(ctx, onMain) })
		inTask, err = tk.Wait(ctx)
		return 0, err
	})
	require.NoError(t, err)
	require.Equal(t, main, direct)
	require.Equal(t, main, inTask)
	require.Equal(t, []string{"row25 main", "row25 main"}, names)
	require.NotEqual(t, main.tid, async.tid)
	require.NotEqual(t, main.gid, async.gid)
	require.Equal(t, main, here(), "and our own lock still holds")
	require.Equal(t, "row25 main", threadName())
}

// asgiref: when async code is outermost, all sync code of the process shares
// one other thread.
//
// Here: without a context there is the one default thread. A call that waits
// in A2S there is not interrupted by a stranger, only by what is below it.
func TestRow26_ThreadSensitiveOutsideAsync(t *testing.T) {
	guard(t)
	queued := whenQueued(t, "row26 stranger")
	parked := make(chan struct{})
	var order []string // plain: only the default thread appends
	var only exclusion
	var outerAt, innerAt, asyncAt place

	first := spawn(func() (int, error) {
		return asyncsync.ToThread(context.Background(), func(ctx context.Context) (int, error) {
			order = append(order, "outer begins")
			outerAt = here()
			_, err := asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) {
				asyncAt = here()
				close(parked)
				<-queued
				return asyncsync.ToThread(ctx, func(context.Context) (int, error) {
					only.run(func() { order = append(order, "inner") })
					innerAt = here()
					return 0, nil
				})
			})
			order = append(order, "outer ends")
			return 0, err
		})
	})
	<-parked
	second := spawn(func() (place, error) {
		return asyncsync.ToThread(context.Background(), func(context.Context) (place, error) {
			only.run(func() { order = append(order, "stranger") })
			return here(), nil
		}, asyncsync.Named("row26 stranger"))
	})
	_, err := first.Wait()
	require.NoError(t, err)
	strangerAt, err := second.Wait()
	require.NoError(t, err)

	require.Equal(t, outerAt, innerAt)
	require.Equal(t, outerAt, strangerAt)
	require.NotEqual(t, outerAt.gid, asyncAt.gid)
	if tid() != 0 {
		require.NotEqual(t, outerAt.tid, asyncAt.tid)
	}
	require.Equal(t, []string{"outer begins", "inner", "outer ends", "stranger"}, order)
	require.Equal(t, exclusion{most: 1, times: 2}, only)
}

// asgiref: calls made side by side in one ThreadSensitiveContext run on one
// thread.
//
// Here: 2 to 1000 of them, on one thread by the kernel's account, never two at
// once, none lost.
func TestRow32_ThreadSensitiveWithContextMatches(t *testing.T) {
	guard(t)
	needThreads(t)
	for _, callers := range []int{2, 50, 1000} {
		t.Run(fmt.Sprint(callers), func(t *testing.T) {
			ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
			defer tsc.Close()
			name := fmt.Sprintf("row32 %d", callers)
			_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
				asyncsync.Taint(ctx) // the name must not live on in a pool
				setThreadName(name)
				return 0, nil
			})
			require.NoError(t, err)

			var only exclusion
			type seen struct {
				place
				name string
			}
			var calls []*pending[seen]
			for range callers {
				calls = append(calls, spawn(func() (seen, error) {
					return asyncsync.ToThread(ctx, func(context.Context) (s seen, err error) {
						only.run(func() { s = seen{here(), threadName()} })
						return s, nil
					})
				}))
			}
			distinct := map[seen]int{}
			for _, call := range calls {
				s, err := call.Wait()
				require.NoError(t, err)
				distinct[s]++
			}
			require.Len(t, distinct, 1)
			for s, times := range distinct {
				require.Equal(t, callers, times)
				require.Equal(t, name, s.name)
				require.Equal(t, tsc.Stats().Thread, s.tid)
			}
			require.Equal(t, exclusion{most: 1, times: callers}, only)
		})
	}
}

// asgiref: a context inside a context shares the outer one's thread, and
// leaving the inner one changes nothing.
//
// Here: the same; the thread starts once and stays until the outer context is
// closed. After that the outer, the inner and any later inner context refuse.
func TestRow33_ThreadSensitiveNestedContext(t *testing.T) {
	guard(t)
	started, exited := 0, 0 // plain: only the thread writes, and Close waits for it
	outerCtx, outer := asyncsync.NewThreadSensitiveContext(t.Context(),
		asyncsync.OnThreadStart(func() { started++ }), asyncsync.OnThreadExit(func() { exited++ }))
	innerCtx, inner := asyncsync.NewThreadSensitiveContext(outerCtx)
	stillOpen, _ := asyncsync.NewThreadSensitiveContext(outerCtx)

	first, err := asyncsync.ToThread(innerCtx, whereabouts)
	require.NoError(t, err)
	again, err := asyncsync.ToThread(outerCtx, whereabouts)
	require.NoError(t, err)
	require.Equal(t, first, again)

	require.NoError(t, inner.Close())
	again, err = asyncsync.ToThread(outerCtx, whereabouts)
	require.NoError(t, err)
	require.Equal(t, first, again)
	err = asyncsync.WithThreadSensitiveContext(outerCtx, func(ctx context.Context) error {
		again, err = asyncsync.ToThread(ctx, whereabouts)
		return err
	})
	require.NoError(t, err)
	require.Equal(t, first, again)
	startedBefore, exitedBefore := 0, 0
	again, err = asyncsync.ToThread(stillOpen, func(context.Context) (place, error) {
		startedBefore, exitedBefore = started, exited
		return here(), nil
	})
	require.NoError(t, err)
	require.Equal(t, first, again)
	require.Equal(t, 1, startedBefore)
	require.Zero(t, exitedBefore)

	require.NoError(t, outer.Close())
	require.NoError(t, outer.Close(), "a second Close has nothing to do")
	require.Equal(t, 1, started)
	require.Equal(t, 1, exited)
	late, _ := asyncsync.NewThreadSensitiveContext(outerCtx)
	for name, ctx := range map[string]context.Context{
		"outer": outerCtx, "inner, closed": innerCtx, "inner, never closed": stillOpen, "inner, made after": late,
	} {
		_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) { panic("runs in a closed context") })
		require.ErrorIs(t, err, asyncsync.ErrClosed, name)
	}
}

// asgiref: a context in which no sync code runs is fine.
//
// Here: and it costs no thread, however many are open.
func TestRow34_ThreadSensitiveContextWithoutSyncWork(t *testing.T) {
	guard(t)
	const contexts = 500
	started := 0
	threads := osThreads()
	var open []*asyncsync.ThreadSensitiveContext
	for range contexts {
		_, tsc := asyncsync.NewThreadSensitiveContext(t.Context(), asyncsync.OnThreadStart(func() { started++ }))
		require.Zero(t, tsc.Stats().Thread)
		open = append(open, tsc)
	}
	require.Less(t, osThreads(), threads+contexts/10)
	for _, tsc := range open {
		require.NoError(t, tsc.Close())
	}
	require.Zero(t, started)

	ran := false
	err := asyncsync.WithThreadSensitiveContext(t.Context(), func(context.Context) error {
		ran = true
		return nil
	})
	require.NoError(t, err)
	require.True(t, ran)
}

// asgiref: leaving a context whose thread is parked in A2S, its task being
// cancelled, does not stop the event loop.
//
// Here: Close waits for that call and for nothing else, and nobody waits with
// it: new work here is refused at once, other contexts serve, timers fire. Who
// does not want to wait uses Shutdown, which says what still runs.
func TestRow35_ThreadSensitiveContextExitDoesNotBlockEventLoop(t *testing.T) {
	guard(t)
	gone := errors.New("client has gone")

	// park leaves the thread of ctx blocked in A2S, cancelled but not done.
	park := func(ctx context.Context, release <-chan struct{}) *pending[int] {
		callCtx, cancel := context.WithCancelCause(ctx)
		cancelled := make(chan struct{})
		call := spawn(func() (int, error) {
			return asyncsync.ToThread(callCtx, func(ctx context.Context) (int, error) {
				return asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) {
					cancel(gone)
					<-ctx.Done()
					close(cancelled)
					<-release
					return 35, nil
				})
			}, asyncsync.Named("row35 parked"))
		})
		<-cancelled
		return call
	}

	t.Run("Close", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
			release := make(chan struct{})
			parked := park(ctx, release)
			closing := spawn(func() (int, error) { return 0, tsc.Close() })
			synctest.Wait()
			require.True(t, closing.running(), "Close waits for what runs")

			start := time.Now()
			_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) { panic("runs in a closed context") })
			require.ErrorIs(t, err, asyncsync.ErrClosed)
			require.Zero(t, time.Since(start), "refused at once")

			otherCtx, other := asyncsync.NewThreadSensitiveContext(t.Context())
			got, err := asyncsync.ToThread(otherCtx, func(context.Context) (int, error) { return 1, nil })
			require.NoError(t, err)
			require.Equal(t, 1, got)
			require.NoError(t, other.Close())

			ticker := time.NewTicker(time.Millisecond)
			for range 3 {
				<-ticker.C
			}
			ticker.Stop()
			synctest.Wait()
			require.True(t, closing.running())
			require.True(t, parked.running())

			close(release)
			got, err = parked.Wait()
			require.NoError(t, err, "what it returned wins over the cancellation")
			require.Equal(t, 35, got)
			_, err = closing.Wait()
			require.NoError(t, err)
		})
	})

	t.Run("Shutdown", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context(), asyncsync.WithName("row35 context"))
			release := make(chan struct{})
			parked := park(ctx, release)

			start := time.Now()
			patience, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			err := tsc.Shutdown(patience)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorContains(t, err, "row35 parked")
			require.ErrorContains(t, err, "row35 context")
			require.Equal(t, time.Second, time.Since(start))
			synctest.Wait()
			require.True(t, parked.running(), "giving up does not stop it")

			close(release)
			got, err := parked.Wait()
			require.NoError(t, err)
			require.Equal(t, 35, got)
			require.NoError(t, tsc.Close())
		})
	})
}

// asgiref: nor do the threads that wait for such exits use up the shared pool
// that the parked work needs to get on.
//
// Here: Close takes no slot of a limiter and no thread. Contexts that close all
// at once while their parked work still needs a slot all get done.
func TestRow36_ThreadSensitiveContextExitDoesNotStarveDefaultExecutor(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		const contexts, slots = 40, 2
		limiter := task.NewLimiter(slots)
		release := make(chan struct{})
		var parked, closing []*pending[int]
		var open []*asyncsync.ThreadSensitiveContext
		for range contexts {
			ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
			open = append(open, tsc)
			callCtx, cancel := context.WithCancel(ctx)
			parked = append(parked, spawn(func() (int, error) {
				return asyncsync.ToThread(callCtx, func(ctx context.Context) (int, error) {
					return asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) {
						cancel()
						<-release
						return asyncsync.ToThread(context.WithoutCancel(ctx), func(context.Context) (int, error) {
							return 36, nil
						}, asyncsync.Insensitive(), asyncsync.WithLimiter(limiter))
					})
				})
			}))
		}
		synctest.Wait() // all threads parked
		threads := osThreads()
		for _, tsc := range open {
			closing = append(closing, spawn(func() (int, error) { return 0, tsc.Close() }))
		}
		synctest.Wait() // all of them closing
		require.Less(t, osThreads(), threads+contexts/4, "Close needs no thread")
		for _, c := range closing {
			require.True(t, c.running())
		}
		for range slots {
			require.True(t, limiter.TryAcquire(), "Close needs no slot")
		}
		for range slots {
			limiter.Release()
		}

		close(release)
		for i := range contexts {
			got, err := parked[i].Wait()
			require.NoError(t, err)
			require.Equal(t, 36, got)
			_, err = closing[i].Wait()
			require.NoError(t, err)
		}
	})
}

// asgiref: A2S, S2A, A2S, S2A with sync code outermost: all sync parts run on
// the calling thread.
//
// Here: at every depth from 1 to 50, by the kernel's name of the thread.
func TestRow37_ThreadSensitiveDoubleNestedSync(t *testing.T) {
	guard(t)
	main := lockToNamedThread(t, "row37 main")

	var syncAt, asyncAt []place // plain: one call at a time, each ordered by its hop
	var names []string
	var descend func(ctx context.Context, depth int) (int, error)
	descend = func(ctx context.Context, depth int) (int, error) {
		return asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) {
			asyncAt = append(asyncAt, here())
			return asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
				syncAt = append(syncAt, here())
				names = append(names, threadName())
				if depth == 1 {
					return 37, nil
				}
				return descend(ctx, depth-1)
			})
		})
	}
	for depth := 1; depth <= 50; depth++ {
		syncAt, asyncAt, names = nil, nil, nil
		got, err := descend(context.Background(), depth)
		require.NoError(t, err)
		require.Equal(t, 37, got)
		require.Len(t, syncAt, depth)
		require.Len(t, asyncAt, depth)
		for level := range depth {
			require.Equal(t, main, syncAt[level], "sync part %d of %d", level, depth)
			require.Equal(t, "row37 main", names[level])
			require.NotEqual(t, main.tid, asyncAt[level].tid, "async part %d of %d", level, depth)
			require.NotEqual(t, main.gid, asyncAt[level].gid)
		}
	}
}

// asgiref: S2A, A2S, S2A, A2S with async code outermost: the async parts run
// on the outer loop.
//
// Here: all sync parts on T, no async part ever on T, depths 4 to 20.
func TestRow38_ThreadSensitiveDoubleNestedAsync(t *testing.T) {
	guard(t)
	needThreads(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
	defer tsc.Close()
	own, err := asyncsync.ToThread(ctx, whereabouts)
	require.NoError(t, err)

	var parts []place // sync and async in turn
	var descend func(ctx context.Context, depth int, onThread bool) (int, error)
	descend = func(ctx context.Context, depth int, onThread bool) (int, error) {
		if depth == 0 {
			return 38, nil
		}
		next := func(ctx context.Context) (int, error) {
			parts = append(parts, here())
			return descend(ctx, depth-1, !onThread)
		}
		if onThread {
			return asyncsync.FromThread(ctx, next)
		}
		return asyncsync.ToThread(ctx, next)
	}
	for depth := 4; depth <= 20; depth += 4 {
		parts = nil
		got, err := descend(ctx, depth, false)
		require.NoError(t, err)
		require.Equal(t, 38, got)
		require.Len(t, parts, depth)
		for i, part := range parts {
			if i%2 == 0 {
				require.Equal(t, own, part, "sync part at level %d of %d", i, depth)
			} else {
				require.NotEqual(t, own.tid, part.tid, "async part at level %d of %d", i, depth)
				require.NotEqual(t, own.gid, part.gid)
			}
		}
	}
}

// asgiref: sync code that is not thread-sensitive does not run on the calling
// thread.
//
// Here: nor does it wait for it: called from async code it runs while that
// thread runs something else; called from sync code it leaves the thread, which
// serves meanwhile.
func TestRow39_ThreadSensitiveDisabled(t *testing.T) {
	guard(t)
	main := lockToNamedThread(t, "row39 main")

	var sensitive, insensitive place
	together := newMeeting(2)
	_, err := asyncsync.FromThread(context.Background(), func(ctx context.Context) (_ int, err error) {
		busy := task.Go(ctx, func(ctx context.Context) (place, error) {
			return asyncsync.ToThread(ctx, func(context.Context) (place, error) {
				together.attend()
				return here(), nil
			})
		})
		insensitive, err = asyncsync.ToThread(ctx, func(context.Context) (place, error) {
			together.attend()
			return here(), nil
		}, asyncsync.Insensitive())
		if err != nil {
			return 0, err
		}
		sensitive, err = busy.Wait(ctx)
		return 0, err
	})
	require.NoError(t, err)
	require.Equal(t, main, sensitive)
	require.NotEqual(t, main.tid, insensitive.tid)
	require.NotEqual(t, main.gid, insensitive.gid)

	ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
	defer tsc.Close()
	var caller, back place
	_, err = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		caller = here()
		return asyncsync.ToThread(ctx, func(ctx context.Context) (_ int, err error) {
			insensitive = here()
			back, err = asyncsync.ToThread(ctx, whereabouts)
			return 0, err
		}, asyncsync.Insensitive())
	})
	require.NoError(t, err)
	require.NotEqual(t, caller.tid, insensitive.tid)
	require.NotEqual(t, caller.gid, insensitive.gid)
	require.Equal(t, caller, back)
}

// asgiref: an executor given at construction is used, once per call; together
// with thread_sensitive it is a TypeError.
//
// Here: the same; the error is a panic at construction, and an executor that
// refuses is an error of the call, which then never runs.
func TestRow43_SyncToAsyncUsesExecutor(t *testing.T) {
	guard(t)
	team := newCrew(1)
	defer team.dismiss()
	ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
	defer tsc.Close()
	ranOn := asyncsync.SyncToAsync(func(context.Context, int) (int64, error) { return goid.Get(), nil },
		asyncsync.Insensitive(), asyncsync.WithExecutor(team))
	for calls := 1; calls <= 3; calls++ {
		gid, err := ranOn(ctx, 0)
		require.NoError(t, err)
		require.True(t, team.isMember(gid), "ran on the executor")
		require.Equal(t, calls, team.posted())
	}
	require.Zero(t, tsc.Stats().Thread)

	requireMisusePanic(t, func() { asyncsync.SyncToAsync(row8Wrapped, asyncsync.WithExecutor(team)) })
	require.Equal(t, 3, team.posted())

	refusal := errors.New("no more work")
	refused := asyncsync.SyncToAsync(func(context.Context, int) (int, error) { panic("was refused") },
		asyncsync.Insensitive(), asyncsync.WithExecutor(refuser{refusal}))
	_, err := refused(ctx, 0)
	require.ErrorIs(t, err, refusal)
}

type refuser struct{ err error }

func (r refuser) Post(func()) error { return r.err }

// asgiref: the deadlock detector's memory is wiped when sync code raises; the
// next call in the same context is no false alarm.
//
// Here: errors and panics come back as they were thrown, as often as you like,
// and leave nothing behind: the same context then still nests.
func TestRow44_SyncToAsyncDeadlockIgnoredWithException(t *testing.T) {
	guard(t)
	scenario := func(t *testing.T, ctx context.Context) {
		failure, bomb := errors.New("failure"), errors.New("bomb")
		for range 2 {
			_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 0, failure })
			require.Same(t, failure, err)
		}
		for range 2 {
			value := panicOf(func() {
				asyncsync.ToThread(ctx, func(context.Context) (int, error) { panic(bomb) })
			})
			require.Same(t, bomb, value)
		}
		for range 2 {
			value := panicOf(func() {
				through(ctx, 4, func(context.Context) (int, error) { panic(bomb) })
			})
			require.Same(t, bomb, value)
		}
		got, err := through(ctx, 4, func(ctx context.Context) (int, error) {
			return task.Go(ctx, func(ctx context.Context) (int, error) {
				return asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 44, nil })
			}).Wait(ctx)
		})
		require.NoError(t, err)
		require.Equal(t, 44, got)
	}
	t.Run("default thread", func(t *testing.T) { scenario(t, t.Context()) })
	t.Run("context", func(t *testing.T) {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
		defer tsc.Close()
		scenario(t, ctx)
	})
}

// asgiref: a known failure. Sync code that waits for an event blocks the one
// thread on which the event would be set.
//
// Here: the same as long as the wait is Go's own, nobody can run two functions
// on one thread. But the second call stays a queued call that can be seen and
// cancelled. When the wait is the library's, the thread serves what it waits
// for, also what was queued before.
func TestRow45_SyncToAsyncWithBlockerThreadSensitive(t *testing.T) {
	guard(t)

	t.Run("known limit: a raw channel", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
			event := make(chan struct{})
			waiter := spawn(func() (int, error) {
				return asyncsync.ToThread(ctx, func(context.Context) (int, error) {
					<-event
					return 45, nil
				})
			})
			synctest.Wait()
			setterCtx, cancel := context.WithCancel(ctx)
			ran := false
			setter := spawn(func() (int, error) {
				return asyncsync.ToThread(setterCtx, func(context.Context) (int, error) {
					ran = true
					return 0, nil
				})
			})
			synctest.Wait()
			require.True(t, waiter.running())
			require.True(t, setter.running(), "if this now works, the limit is gone: say so in the table")
			stats := tsc.Stats()
			require.True(t, stats.Running)
			require.Equal(t, 1, stats.Queued)

			cancel()
			_, err := setter.Wait()
			require.ErrorIs(t, err, context.Canceled)
			synctest.Wait()
			require.True(t, waiter.running(), "the waiter is nobody's victim")
			require.Zero(t, tsc.Stats().Queued)

			close(event)
			got, err := waiter.Wait()
			require.NoError(t, err)
			require.Equal(t, 45, got)
			require.NoError(t, tsc.Close())
			require.False(t, ran, "a call cancelled in the queue never runs")
		})
	})

	for _, queuedFirst := range []bool{false, true} {
		t.Run(fmt.Sprintf("the library's wait, call queued before it %v", queuedFirst), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
				waiting := make(chan struct{})
				set := false // plain: T alone
				setter := task.Go(ctx, func(ctx context.Context) (place, error) {
					<-waiting
					return asyncsync.ToThread(ctx, func(context.Context) (place, error) {
						set = true
						return here(), nil
					})
				})
				var before, after bool
				var own, setAt place
				_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (_ int, err error) {
					own, before = here(), set
					close(waiting)
					if queuedFirst {
						synctest.Wait() // everybody else is blocked: the setter's call is queued
					}
					setAt, err = setter.Wait(ctx)
					after = set
					return 0, err
				})
				require.NoError(t, err)
				require.False(t, before)
				require.True(t, after)
				require.Equal(t, own, setAt)
				require.NoError(t, tsc.Close())
			})
		})
	}
	t.Run("the library's wait, a frame below", func(t *testing.T) { row45Joins(t, false) })
	t.Run("the library's wait, a frame below and a task between", func(t *testing.T) { row45Joins(t, true) })
}

// row45Joins is the library's wait again, where what is waited for is also below a frame
// further down, and where it is waited for by way of another task: it is the
// frame on top that has to serve it.
func row45Joins(t *testing.T, throughAnother bool) {
	synctest.Test(t, func(t *testing.T) {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
		set := false // plain: T alone
		var after bool
		_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
			return asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) {
				waiting := make(chan struct{})
				setter := task.Go(ctx, func(ctx context.Context) (int, error) {
					<-waiting
					return asyncsync.ToThread(ctx, func(context.Context) (int, error) {
						set = true
						return 45, nil
					})
				})
				waitFor := setter
				if throughAnother {
					waitFor = task.Go(ctx, func(ctx context.Context) (int, error) { return setter.Wait(ctx) })
				}
				return asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
					close(waiting)
					synctest.Wait() // the setter's call is queued, on the frame below
					got, err := waitFor.Wait(ctx)
					after = set
					return got, err
				})
			})
		})
		require.NoError(t, err)
		require.True(t, after)
		require.NoError(t, tsc.Close())
	})
}

// asgiref: with a waiter that is not thread-sensitive the same works.
//
// Here: likewise, the waiter leaves the thread alone.
func TestRow46_SyncToAsyncWithBlockerNonThreadSensitive(t *testing.T) {
	guard(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
	defer tsc.Close()
	event, waiting := make(chan struct{}), make(chan struct{})
	waiter := spawn(func() (place, error) {
		return asyncsync.ToThread(ctx, func(context.Context) (place, error) {
			close(waiting)
			<-event
			return here(), nil
		}, asyncsync.Insensitive())
	})
	<-waiting
	setAt, err := asyncsync.ToThread(ctx, func(context.Context) (place, error) {
		close(event)
		return here(), nil
	})
	require.NoError(t, err)
	waitedAt, err := waiter.Wait()
	require.NoError(t, err)
	require.NotEqual(t, setAt.gid, waitedAt.gid)
}

// asgiref: S2A under wait_for, which makes a task of it, below A2S below S2A
// still comes to the parked thread, and the timeout is not what ends it.
//
// Here: a task with a deadline on a foreign context. The bubble's clock shows
// that nobody had to wait for a timer.
func TestRow47_SyncToAsyncWithinCreateTask(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
		start := time.Now()
		var own place
		inTask, err := asyncsync.ToThread(ctx, func(ctx context.Context) (place, error) {
			own = here()
			return asyncsync.FromThread(ctx, func(ctx context.Context) (place, error) {
				ctx, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				return task.Go(ctx, func(ctx context.Context) (place, error) {
					return asyncsync.ToThread(ctx, whereabouts)
				}).Wait(ctx)
			})
		})
		require.NoError(t, err)
		require.Equal(t, own, inTask)
		require.Zero(t, time.Since(start))
		require.NoError(t, tsc.Close())
	})
}

// absorb is the scenario of rows 48 to 51. Below n layers a view starts sub as
// a task that cancelling cannot reach, hears of the cancellation, lets sub
// finish, and returns its result. The cancellation ends there: the caller gets
// the view's value and no error.
func absorb(t *testing.T, n int, sub func(ctx context.Context, inside chan<- struct{}, release <-chan struct{}) (string, error)) {
	t.Helper()
	base, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
	defer tsc.Close()
	ctx, cancel := context.WithCancelCause(base)
	gone := errors.New("client has gone")

	inside, inView, release := make(chan struct{}), make(chan struct{}), make(chan struct{})
	heard := 0
	var cause error
	subEnded := false // plain: sub.Wait orders it
	view := func(ctx context.Context) (string, error) {
		free := context.WithoutCancel(ctx)
		shielded := task.Go(free, func(ctx context.Context) (string, error) {
			text, err := sub(ctx, inside, release)
			subEnded = true
			return text, errors.Join(err, ctx.Err())
		})
		<-inside
		close(inView)
		select {
		case <-shielded.Done():
			return "", errors.New("the sub task did not wait for its release")
		case <-ctx.Done():
			heard++
			cause = context.Cause(ctx)
		}
		close(release)
		return shielded.Wait(free)
	}
	call := spawn(func() (string, error) { return through(ctx, n, view) })
	<-inView
	cancel(gone)
	text, err := call.Wait()
	require.NoError(t, err, "what was absorbed does not come out above")
	require.Equal(t, "sub is done", text)
	require.True(t, subEnded)
	require.Equal(t, 1, heard, "the view hears of it once")
	require.Same(t, gone, cause)
	require.Same(t, gone, context.Cause(ctx))
}

// plainSub ends when it is released.
func plainSub(_ context.Context, inside chan<- struct{}, release <-chan struct{}) (string, error) {
	close(inside)
	<-release
	return "sub is done", nil
}

// asgiref: cancelling the outer task reaches the coroutine inside S2A and A2S;
// if a shield there takes the blow, it goes no further.
//
// Here: the call's context ends, the view decides, and its value is what S2A
// returns.
func TestRow48_InnerShieldSyncMiddleware(t *testing.T) {
	guard(t)
	absorb(t, 1, plainSub)
}

// asgiref: the baseline, with no bridge in between.
//
// Here: the same function called directly has the same outcome.
func TestRow49_InnerShieldAsyncMiddleware(t *testing.T) {
	guard(t)
	absorb(t, 0, plainSub)
}

// asgiref: the same through five alternating layers.
//
// Here: likewise, and the cancellation is heard once, not once per layer.
func TestRow50_InnerShieldSyncAndAsyncMiddleware(t *testing.T) {
	guard(t)
	absorb(t, 5, plainSub)
}

// asgiref: the same where the shielded task itself goes through S2A and A2S.
//
// Here: its sync part runs on T, on top of five layers whose context has ended;
// its async part elsewhere; neither is cancelled.
func TestRow51_InnerShieldSyncAndAsyncMiddlewareSyncTask(t *testing.T) {
	guard(t)
	var syncAt, asyncAt, layerAt place
	absorb(t, 5, func(ctx context.Context, inside chan<- struct{}, release <-chan struct{}) (text string, err error) {
		layerAt, err = asyncsync.ToThread(ctx, whereabouts)
		if err != nil {
			return "", err
		}
		return asyncsync.ToThread(ctx, func(ctx context.Context) (string, error) {
			syncAt = here()
			return asyncsync.FromThread(ctx, func(ctx context.Context) (string, error) {
				asyncAt = here()
				text, err := plainSub(ctx, inside, release)
				return text, errors.Join(err, ctx.Err())
			})
		})
	})
	require.Equal(t, layerAt, syncAt)
	require.NotEqual(t, syncAt.gid, asyncAt.gid)
	if tid() != 0 {
		require.NotEqual(t, syncAt.tid, asyncAt.tid)
	}
}

// asgiref: sync code outermost; a task made in an inner A2S calls S2A after
// that A2S has returned. The work falls to the frame below.
//
// Here: the task waits until the inner A2S is gone for certain, then comes to
// the main thread all the same.
func TestRow54_NestedTask(t *testing.T) {
	guard(t)
	main := lockToNamedThread(t, "row54 main")
	innerGone := make(chan struct{})
	got, err := asyncsync.FromThread(context.Background(), func(ctx context.Context) (place, error) {
		escaped, err := asyncsync.ToThread(ctx, func(ctx context.Context) (*task.Task[place], error) {
			return asyncsync.FromThread(ctx, func(ctx context.Context) (*task.Task[place], error) {
				return task.Go(ctx, func(ctx context.Context) (place, error) {
					<-innerGone
					return asyncsync.ToThread(ctx, whereabouts)
				}), nil
			})
		})
		if err != nil {
			return place{}, err
		}
		close(innerGone)
		return escaped.Wait(ctx)
	})
	require.NoError(t, err)
	require.Equal(t, main, got)
}

// asgiref: the same where a timer makes the task, when the inner A2S has ended.
//
// Here: time.AfterFunc with the inner context, in a bubble, so that the timer
// fires only when everybody waits. The outer frame still serves.
func TestRow55_NestedTaskLater(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		main := lockToNamedThread(t, "row55 main")
		innerGone := false
		got, err := asyncsync.FromThread(context.Background(), func(ctx context.Context) (place, error) {
			later := make(chan *task.Task[place], 1)
			_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
				_, err := asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) {
					time.AfterFunc(50*time.Millisecond, func() {
						later <- task.Go(ctx, func(ctx context.Context) (place, error) {
							return asyncsync.ToThread(ctx, func(context.Context) (place, error) {
								if !innerGone {
									return place{}, errors.New("served while the inner A2S was there")
								}
								return here(), nil
							})
						})
					})
					return 0, nil
				})
				innerGone = true // plain: this thread alone
				return 0, err
			})
			if err != nil {
				return place{}, err
			}
			escaped := <-later // async code may wait as it likes
			return escaped.Wait(ctx)
		})
		require.NoError(t, err)
		require.Equal(t, main, got)
	})
}

// asgiref: two levels of tasks that outlive the A2S they were made in.
//
// Here: the escaped task's own sync part makes an A2S from which a second task
// escapes. Both run on the main thread.
func TestRow56_DoubleNestedTask(t *testing.T) {
	guard(t)
	main := lockToNamedThread(t, "row56 main")
	type two struct {
		first  place
		second *task.Task[place]
	}
	firstGone, secondGone := make(chan struct{}), make(chan struct{})
	var second place
	first, err := asyncsync.FromThread(context.Background(), func(ctx context.Context) (place, error) {
		escaped, err := asyncsync.ToThread(ctx, func(ctx context.Context) (*task.Task[two], error) {
			return asyncsync.FromThread(ctx, func(ctx context.Context) (*task.Task[two], error) {
				return task.Go(ctx, func(ctx context.Context) (two, error) {
					<-firstGone
					return asyncsync.ToThread(ctx, func(ctx context.Context) (two, error) {
						inner, err := asyncsync.FromThread(ctx, func(ctx context.Context) (*task.Task[place], error) {
							return task.Go(ctx, func(ctx context.Context) (place, error) {
								<-secondGone
								return asyncsync.ToThread(ctx, whereabouts)
							}), nil
						})
						return two{here(), inner}, err
					})
				}), nil
			})
		})
		if err != nil {
			return place{}, err
		}
		close(firstGone)
		got, err := escaped.Wait(ctx)
		if err != nil {
			return place{}, err
		}
		close(secondGone)
		second, err = got.second.Wait(ctx)
		return got.first, err
	})
	require.NoError(t, err)
	require.Equal(t, main, first)
	require.Equal(t, main, second)
}

// asgiref: two tasks escape from an A2S, each blocking T in turn on an event
// that is set later. The frame they were queued on runs what is left in its
// queue before it is gone.
//
// Here: the A2S function returns while T is blocked in the first task's call
// and the second's is still queued on that frame. Nothing is dropped.
func TestRow57_TwoNestedTasksWithAsyncioRun(t *testing.T) {
	guard(t)
	t.Run("handed to the thread's own queue", twoEscapedTasks)
	t.Run("handed to the frame below", twoEscapedTasksBelow)
}

func twoEscapedTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
		event := make(chan struct{})
		var only exclusion
		var own place
		returned := make(chan struct{})
		block := func(ctx context.Context) (place, error) {
			return asyncsync.ToThread(ctx, func(context.Context) (place, error) {
				only.run(func() { <-event })
				return here(), nil
			})
		}
		outer := spawn(func() ([]*task.Task[place], error) {
			return asyncsync.ToThread(ctx, func(ctx context.Context) ([]*task.Task[place], error) {
				own = here()
				return asyncsync.FromThread(ctx, func(ctx context.Context) ([]*task.Task[place], error) {
					first := task.Go(ctx, block)
					synctest.Wait() // T is blocked in its call
					second := task.Go(ctx, block)
					synctest.Wait() // that one is queued
					close(returned)
					return []*task.Task[place]{first, second}, nil
				})
			})
		})
		<-returned
		synctest.Wait()
		require.True(t, outer.running(), "T cannot leave the frame while it runs the first call")
		close(event)
		tasks, err := outer.Wait()
		require.NoError(t, err)
		require.Len(t, tasks, 2)
		for _, tk := range tasks {
			ranAt, err := tk.Wait(t.Context())
			require.NoError(t, err)
			require.Equal(t, own, ranAt)
		}
		require.Equal(t, exclusion{most: 1, times: 2}, only)
		require.NoError(t, tsc.Close())
	})
}

// twoEscapedTasksBelow is the same one level further down: there is a frame
// below the one that ends, and it waits for the two tasks. Were their calls put
// anywhere else than on that frame, all would wait for ever.
func twoEscapedTasksBelow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		main := here() // this goroutine is the thread
		event := make(chan struct{})
		var only exclusion
		block := func(ctx context.Context) (place, error) {
			return asyncsync.ToThread(ctx, func(context.Context) (place, error) {
				only.run(func() { <-event })
				return here(), nil
			})
		}
		returned := make(chan struct{})
		closer := spawn(func() (int, error) {
			<-returned
			synctest.Wait() // the inner function has returned, the thread is still blocked
			close(event)
			return 0, nil
		})
		ranAt, err := asyncsync.FromThread(context.Background(), func(ctx context.Context) (ranAt []place, err error) {
			tasks, err := asyncsync.ToThread(ctx, func(ctx context.Context) ([]*task.Task[place], error) {
				return asyncsync.FromThread(ctx, func(ctx context.Context) ([]*task.Task[place], error) {
					first := task.Go(ctx, block)
					synctest.Wait()
					second := task.Go(ctx, block)
					synctest.Wait()
					close(returned)
					return []*task.Task[place]{first, second}, nil
				})
			})
			for _, tk := range tasks {
				at, waitErr := tk.Wait(ctx)
				ranAt, err = append(ranAt, at), errors.Join(err, waitErr)
			}
			return ranAt, err
		})
		require.NoError(t, err)
		_, _ = closer.Wait()
		require.Len(t, ranAt, 2)
		for _, at := range ranAt {
			require.Equal(t, main.gid, at.gid)
		}
		require.Equal(t, exclusion{most: 1, times: 2}, only)
	})
}

// asgiref: a wrapper made under a loop that was stopped later must not hang.
//
// Here: a wrapper made in a context that was closed later works elsewhere, and
// with the closed context it refuses at once, by whatever way it gets there.
func TestRow58_AsyncToSyncWithStoppedMainLoop(t *testing.T) {
	guard(t)
	type wrappers struct{ up, down asyncsync.Func[int, int] }
	ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
	made, err := asyncsync.ToThread(ctx, func(context.Context) (w wrappers, err error) {
		w.down = asyncsync.SyncToAsync(func(_ context.Context, n int) (int, error) { return n + 1, nil })
		w.up = asyncsync.AsyncToSync(func(ctx context.Context, n int) (int, error) { return w.down(ctx, n) })
		return w, nil
	})
	require.NoError(t, err)
	require.NoError(t, tsc.Close())

	for name, call := range map[string]asyncsync.Func[int, int]{"up": made.up, "down": made.down} {
		got, err := spawn(func() (int, error) { return call(context.Background(), 41) }).Wait()
		require.NoError(t, err, name)
		require.Equal(t, 42, got, name)
		_, err = spawn(func() (int, error) { return call(ctx, 41) }).Wait()
		require.ErrorIs(t, err, asyncsync.ErrClosed, name)
	}
	_, err = asyncsync.ToThread(context.Background(), func(context.Context) (int, error) {
		panic("runs in a closed context")
	}, asyncsync.On(tsc))
	require.ErrorIs(t, err, asyncsync.ErrClosed)
}

// asgiref had a test, test_sync_to_async_deadlock_raises, while it still had to
// refuse this nesting: S2A of a view, which does A2S of a coroutine, which waits
// for a task, which does S2A. Since its version 3.7.2 that works.
//
// Here: it works in a context and without, for one task and for several.
func TestRemoved_SyncToAsyncDeadlockRaises(t *testing.T) {
	guard(t)
	scenario := func(t *testing.T, ctx context.Context, tasks int) {
		var writes exclusion
		write := asyncsync.SyncToAsync(func(context.Context, int) (int, error) {
			writes.run(nil)
			return 0, nil
		})
		_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
			return asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) {
				var all []*task.Task[int]
				for n := range tasks {
					all = append(all, task.Go(ctx, func(ctx context.Context) (int, error) { return write(ctx, n) }))
				}
				for _, tk := range all {
					if _, err := tk.Wait(ctx); err != nil {
						return 0, err
					}
				}
				return 0, nil
			})
		})
		require.NoError(t, err)
		require.Equal(t, exclusion{most: 1, times: tasks}, writes)
	}
	for _, tasks := range []int{1, 8} {
		t.Run(fmt.Sprintf("default thread, %d", tasks), func(t *testing.T) { scenario(t, t.Context(), tasks) })
		t.Run(fmt.Sprintf("context, %d", tasks), func(t *testing.T) {
			ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
			defer tsc.Close()
			scenario(t, ctx, tasks)
		})
	}
}
