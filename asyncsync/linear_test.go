package asyncsync_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/core"
	"asyncsync.dev/local"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// The tests here hold that a level of nesting costs the same at any depth.
// They count, what is allocated and what is asked of contexts and errors, for
// the time of a level says little on a machine that others use too.

// linearDepths are the depths compared; the last two must cost the same.
var linearDepths = []int{16, 256, 4096}

func init() {
	if raceDetector { // which multiplies time
		linearDepths[len(linearDepths)-1] = 1024
	}
}

// A nesting is a way to nest: all are to be linear.
type nesting struct {
	name    string
	context []asyncsync.ContextOption
	async   []asyncsync.Option
}

var nestings = []nesting{
	{name: "pinned"},
	{name: "unpinned", context: []asyncsync.ContextOption{asyncsync.Unpinned()}},
	{name: "same thread", async: []asyncsync.Option{asyncsync.SameThread()}},
}

// A level is what the function on the thread does on its way down, next being
// the rest of the descent.
type level func(ctx context.Context, next func(context.Context) error) error

// descent returns a function that goes down a number of levels, each a call to
// the thread and one from there, and runs bottom, which is async code.
func (n nesting) descent(each level, bottom func(context.Context) error) func(context.Context, int) error {
	type none = struct{}
	var up, down asyncsync.Func[int, none]
	up = asyncsync.AsyncToSync(func(ctx context.Context, left int) (none, error) {
		if left > 0 {
			return down(ctx, left)
		}
		return none{}, bottom(ctx)
	}, n.async...)
	down = asyncsync.SyncToAsync(func(ctx context.Context, left int) (none, error) {
		if each == nil {
			return up(ctx, left-1)
		}
		return none{}, each(ctx, func(ctx context.Context) error {
			_, err := up(ctx, left-1)
			return err
		})
	})
	return func(ctx context.Context, depth int) error {
		_, err := down(ctx, depth)
		return err
	}
}

// atBottom is a bottom where nothing is done.
func atBottom(context.Context) error { return nil }

// everyNesting runs check for each of them, in a context over root.
func everyNesting(t *testing.T, root context.Context, check func(t *testing.T, n nesting, ctx context.Context)) {
	for _, n := range nestings {
		t.Run(n.name, func(t *testing.T) {
			guard(t)
			ctx, tsc := asyncsync.NewThreadSensitiveContext(root, n.context...)
			defer tsc.Close()
			check(t, n, ctx)
		})
	}
}

// A budget is what a level may cost, and what may come once.
type budget struct{ level, once float64 }

// requireLinear requires that of, which returns some cost of a descent to a
// depth, stays within the budget, and that a level costs no more at the
// greatest depth than a fifth, and extra, above what it costs at the one
// before.
func requireLinear(t *testing.T, what string, b budget, extra float64, of func(depth int) float64) {
	t.Helper()
	per := make([]float64, len(linearDepths))
	for i, depth := range linearDepths {
		per[i] = of(depth) / float64(depth)
		t.Logf("%s at depth %d: %.2f a level", what, depth, per[i])
	}
	for i, depth := range linearDepths {
		require.LessOrEqual(t, per[i], b.level+b.once/float64(depth), "%s a level, at depth %d", what, depth)
	}
	last := len(per) - 1
	require.LessOrEqual(t, per[last], 1.2*per[last-1]+extra+0.01, "%s a level, at depth %d and at %d: %v",
		what, linearDepths[last], linearDepths[last-1], per)
}

// An allocation is a number of objects and their bytes.
type allocation struct{ objects, bytes float64 }

// allocated returns what f allocates, the least of a few runs: what others
// allocate meanwhile only adds.
func allocated(f func()) allocation {
	// A collection would empty the pools that records are taken from.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	f() // fills them
	var least allocation
	for i := range 3 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		got := allocation{float64(after.Mallocs - before.Mallocs), float64(after.TotalAlloc - before.TotalAlloc)}
		if i == 0 || got.bytes < least.bytes {
			least = got
		}
	}
	return least
}

// requireLinearAllocs is requireLinear for what descend allocates. The race
// detector allocates too, and has pools drop what they are given at random.
func requireLinearAllocs(t *testing.T, objects, bytes budget, descend func(depth int)) {
	t.Helper()
	if raceDetector {
		objects.level, objects.once = 2*objects.level+4, 2*objects.once+100
		bytes.level, bytes.once = 2*bytes.level+1024, 2*bytes.once+32_000
	}
	got := map[int]allocation{}
	of := func(depth int) allocation {
		if _, ok := got[depth]; !ok {
			got[depth] = allocated(func() { descend(depth) })
		}
		return got[depth]
	}
	// A thread keeps channels for its callers to sleep on, but not thousands:
	// below some depth each level makes one.
	const channel = 1
	objects.level += channel
	requireLinear(t, "allocations", objects, channel, func(depth int) float64 { return of(depth).objects })
	// What the runtime allocates meanwhile is not the descent's.
	const meanwhile = 2
	requireLinear(t, "bytes", bytes, meanwhile, func(depth int) float64 { return of(depth).bytes })
}

// A nested level is a frame, a record and two contexts with their nodes.
func TestLinearReturn(t *testing.T) {
	everyNesting(t, context.Background(), func(t *testing.T, n nesting, ctx context.Context) {
		descend := n.descent(nil, atBottom)
		requireLinearAllocs(t, budget{4, 4}, budget{950, 500}, func(depth int) { require.NoError(t, descend(ctx, depth)) })
	})
}

// A countingCtx is a foreign context that counts what it is asked. Several may
// have one count.
type countingCtx struct {
	context.Context
	asked *asked
}

type asked struct{ value, done, err, deadline, frames atomic.Int64 }

func (a *asked) sum() float64 {
	return float64(a.value.Load() + a.done.Load() + a.err.Load() + a.deadline.Load())
}

func (c *countingCtx) Value(key any) any {
	c.asked.value.Add(1)
	if key == (framesKey{}) {
		c.asked.frames.Store(int64(frames()))
	}
	return c.Context.Value(key)
}

func (c *countingCtx) Done() <-chan struct{} {
	c.asked.done.Add(1)
	return c.Context.Done()
}

func (c *countingCtx) Err() error {
	c.asked.err.Add(1)
	return c.Context.Err()
}

func (c *countingCtx) Deadline() (time.Time, bool) {
	c.asked.deadline.Add(1)
	return c.Context.Deadline()
}

// framesKey has a countingCtx say how deep in the stack it is asked.
type framesKey struct{}

// frames returns the number of functions on the caller's stack.
func frames() int {
	pcs := make([]uintptr, 1<<17)
	return runtime.Callers(0, pcs)
}

// layers returns how many contexts of this module's own lie on each other on
// top of the nearest foreign one.
func layers(ctx context.Context) int {
	n := 0
	for c, ok := ctx.(*core.Ctx); ok; c, ok = ctx.(*core.Ctx) {
		n, ctx = n+1, c.Context
	}
	return n
}

// The context of a level is one layer over the foreign one, at any depth: who
// asks it asks that. And a level asks the foreign one the same few questions,
// whatever contexts are entered on the way.
func TestLinearContexts(t *testing.T) {
	plain := func(ctx context.Context, next func(context.Context) error) error { return next(ctx) }
	entered := func(ctx context.Context, next func(context.Context) error) error {
		return asyncsync.WithThreadSensitiveContext(ctx, next)
	}
	detached := func(ctx context.Context, next func(context.Context) error) error {
		return next(asyncsync.Detach(ctx))
	}
	for _, c := range []struct {
		name           string
		each           level
		asked          float64
		objects, bytes float64
	}{
		{"as they are", plain, 10, 6, 1200},
		{"another context at each", entered, 10, 7, 1500},
		{"detached at each", detached, 10, 7, 1300},
	} {
		t.Run(c.name, func(t *testing.T) {
			// One that can end: of others much is not asked.
			above, cancel := context.WithCancel(context.WithValue(context.Background(), framesKey{}, "found"))
			defer cancel()
			root := &countingCtx{above, &asked{}}
			everyNesting(t, root, func(t *testing.T, n nesting, ctx context.Context) {
				hops := 0
				descend := n.descent(func(ctx context.Context, next func(context.Context) error) error {
					require.LessOrEqual(t, layers(ctx), 1)
					return c.each(ctx, next)
				}, func(ctx context.Context) error {
					require.LessOrEqual(t, layers(ctx), 1)
					here := frames()
					require.Equal(t, "found", ctx.Value(framesKey{}))
					hops = int(root.asked.frames.Load()) - here
					return nil
				})
				requireLinear(t, "questions", budget{c.asked, 16}, 0, func(depth int) float64 {
					before := root.asked.sum()
					require.NoError(t, descend(ctx, depth))
					require.LessOrEqual(t, hops, 3, "functions between a look-up and the root")
					return root.asked.sum() - before
				})
				descend = n.descent(c.each, atBottom)
				requireLinearAllocs(t, budget{c.objects, 20}, budget{c.bytes, 2000}, func(depth int) { require.NoError(t, descend(ctx, depth)) })
			})
		})
	}
}

// Below a task of a thread loop each async level is a task of that, on a coroutine.
// A loop keeps some hundreds of these, so that only greater depths cost the same.
func TestLinearOnALoop(t *testing.T) {
	defer func(depths []int) { linearDepths = depths }(linearDepths)
	last := linearDepths[len(linearDepths)-1]
	linearDepths = []int{last / 2, last}
	for _, ends := range []bool{false, true} {
		t.Run(fmt.Sprint("a ctx that can end: ", ends), func(t *testing.T) {
			guard(t)
			// Of one that cannot end the loop is what ends it.
			above, objects, bytes := context.WithValue(context.Background(), framesKey{}, "found"), 15.0, 2500.0
			if ends {
				var cancel context.CancelFunc
				above, cancel = context.WithCancel(above)
				defer cancel()
				objects, bytes = 24, 3500
			}
			root := &countingCtx{above, &asked{}}
			_, err := loop.Run(root, loop.NewThread(), func(ctx context.Context) (none, error) {
				ctx, tsc := asyncsync.NewThreadSensitiveContext(ctx)
				defer tsc.Close()
				home, hops := here(), 0
				descend := nesting{}.descent(func(ctx context.Context, next func(context.Context) error) error {
					require.LessOrEqual(t, layers(ctx), 1)
					return next(ctx)
				}, func(ctx context.Context) error {
					require.Equal(t, home.tid, here().tid, "on the loop")
					require.LessOrEqual(t, layers(ctx), 1)
					below := frames()
					require.Equal(t, "found", ctx.Value(framesKey{}))
					hops = int(root.asked.frames.Load()) - below
					return nil
				})
				requireLinear(t, "questions", budget{20, 16}, 0, func(depth int) float64 {
					before := root.asked.sum()
					require.NoError(t, descend(ctx, depth))
					require.LessOrEqual(t, hops, 6, "functions between a look-up and the root")
					return root.asked.sum() - before
				})
				descend = nesting{}.descent(nil, atBottom)
				requireLinearAllocs(t, budget{objects, 20}, budget{bytes, 2000}, func(depth int) { require.NoError(t, descend(ctx, depth)) })
				return none{}, nil
			})
			require.NoError(t, err)
		})
	}
}

// A context that a level derives is no burden to the levels below it: a
// deadline, or cancellation, at each.
func TestLinearDerivedContexts(t *testing.T) {
	everyNesting(t, context.Background(), func(t *testing.T, n nesting, ctx context.Context) {
		descend := n.descent(func(ctx context.Context, next func(context.Context) error) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			return next(ctx)
		}, atBottom)
		requireLinearAllocs(t, budget{11, 8}, budget{1450, 1000}, func(depth int) { require.NoError(t, descend(ctx, depth)) })
	})
}

// Nor is a foreign context at each level, such as one with a value, asked by
// every level below. Calls on the same thread are inline, and put no layer of
// ours between those of their user, which then ask each other.
func TestLinearForeignContexts(t *testing.T) {
	everyNesting(t, context.Background(), func(t *testing.T, n nesting, ctx context.Context) {
		if n.async != nil {
			return
		}
		all := &asked{}
		descend := n.descent(func(ctx context.Context, next func(context.Context) error) error {
			return next(&countingCtx{ctx, all})
		}, atBottom)
		requireLinear(t, "questions", budget{30, 16}, 0, func(depth int) float64 {
			before := all.sum()
			require.NoError(t, descend(ctx, depth))
			return all.sum() - before
		})
	})
}

// A local variable is set and read at each level; and one more variable at each
// level, which makes the versions deeper by one node for 16 times as many.
func TestLinearLocals(t *testing.T) {
	t.Run("one", func(t *testing.T) {
		v := local.New[*int]()
		x := new(int)
		everyNesting(t, context.Background(), func(t *testing.T, n nesting, ctx context.Context) {
			descend := n.descent(func(ctx context.Context, next func(context.Context) error) error {
				defer v.Set(x)()
				err := next(ctx)
				if got, ok := v.Get(); !ok || got != x {
					t.Error("the value is gone")
				}
				return err
			}, atBottom)
			defer v.Set(x)()
			requireLinearAllocs(t, budget{11, 8}, budget{1200, 1000}, func(depth int) { require.NoError(t, descend(ctx, depth)) })
		})
	})
	t.Run("one more at each level", func(t *testing.T) {
		vars := make([]*local.Var[*int], linearDepths[len(linearDepths)-1])
		for i := range vars {
			vars[i] = local.New[*int]()
		}
		x := new(int)
		everyNesting(t, context.Background(), func(t *testing.T, n nesting, ctx context.Context) {
			at := 0
			descend := n.descent(func(ctx context.Context, next func(context.Context) error) error {
				v := vars[at]
				at++
				undo := v.Set(x)
				err := next(ctx)
				if got, ok := v.Get(); !ok || got != x {
					t.Error("the value is gone")
				}
				undo()
				at--
				return err
			}, atBottom)
			// One node of up to 16 slots for each of up to three steps, to
			// set and to undo.
			const nodes = 3 * 2 * 16 * 24
			bytes := 1700.0 + nodes
			for _, depth := range linearDepths {
				got := allocated(func() { require.NoError(t, descend(ctx, depth)) }).bytes / float64(depth)
				t.Logf("bytes at depth %d: %.2f a level", depth, got)
				if raceDetector {
					got -= 2048
				}
				require.LessOrEqual(t, got, bytes, "depth %d", depth)
			}
		})
	})
}

// A panic has its stack taken once, where it began, and costs a level no more
// than a return does.
func TestLinearPanics(t *testing.T) {
	value := new(int)
	everyNesting(t, context.Background(), func(t *testing.T, n nesting, ctx context.Context) {
		descend := n.descent(nil, func(context.Context) error { panic(value) })
		// The stack, as text, is what comes once.
		requireLinearAllocs(t, budget{8, 250}, budget{1400, 32_000}, func(depth int) {
			require.Same(t, value, panicOf(func() { descend(ctx, depth) }))
		})
	})
}

// A countingError counts what it is asked.
type countingError struct{ asked atomic.Int64 }

func (e *countingError) Error() string   { e.asked.Add(1); return "counted" }
func (e *countingError) Unwrap() error   { e.asked.Add(1); return nil }
func (e *countingError) Is(error) bool   { e.asked.Add(1); return false }
func (e *countingError) As(any) bool     { e.asked.Add(1); return false }
func (e *countingError) Timeout() bool   { e.asked.Add(1); return false }
func (e *countingError) Temporary() bool { e.asked.Add(1); return false }

// An error is handed up as it is: nobody wraps it, nobody asks it anything.
func TestLinearErrors(t *testing.T) {
	everyNesting(t, context.Background(), func(t *testing.T, n nesting, ctx context.Context) {
		failure := &countingError{}
		descend := n.descent(nil, func(context.Context) error { return failure })
		requireLinearAllocs(t, budget{4, 4}, budget{950, 500}, func(depth int) {
			if err := descend(ctx, depth); err != failure {
				t.Error("the error is another")
			}
		})
		require.Zero(t, failure.asked.Load(), "questions to the error")
	})
}

// When a context ends, below which levels are nested, each level sees it by
// itself: nothing is registered for a level, and nothing is done for one before
// its turn to return has come.
func TestLinearCancellation(t *testing.T) {
	for _, name := range []string{"seen by all", "of a queued call"} {
		t.Run(name, func(t *testing.T) {
			for _, n := range nestings {
				t.Run(n.name, func(t *testing.T) {
					guard(t)
					cause := errors.New("the cause")
					all := &asked{}
					run := func(depth int) {
						above, cancel := context.WithCancelCause(context.Background())
						defer cancel(nil)
						root := &countingCtx{above, all}
						ctx, tsc := asyncsync.NewThreadSensitiveContext(root, n.context...)
						defer tsc.Close()
						saw, goroutines := 0, runtime.NumGoroutine()
						descend := n.descent(func(ctx context.Context, next func(context.Context) error) error {
							err := next(ctx)
							if context.Cause(ctx) == cause {
								saw++
							}
							return err
						}, func(ctx context.Context) error {
							if now := runtime.NumGoroutine(); now > goroutines+5 {
								t.Errorf("%d goroutines at the bottom, %d before", now, goroutines)
							}
							if name == "seen by all" {
								cancel(cause)
								<-ctx.Done()
								return context.Cause(ctx)
							}
							// A stranger's call can only wait.
							other, end := context.WithCancelCause(asyncsync.Detach(ctx))
							p := spawn(func() (int, error) {
								return asyncsync.ToThread(other, func(context.Context) (int, error) { return 0, nil }, asyncsync.On(tsc))
							})
							for tsc.Stats().Queued == 0 {
								runtime.Gosched()
							}
							end(cause)
							_, err := p.Wait()
							cancel(cause)
							return err
						})
						if err := descend(ctx, depth); err != cause {
							t.Errorf("%v, not the cause", err)
						}
						require.Equal(t, depth, saw, "levels that saw the end")
					}
					// A few more or less, by who is first to see the end.
					requireLinear(t, "questions", budget{17, 16}, 4, func(depth int) float64 {
						before := all.sum()
						run(depth)
						return all.sum() - before
					})
					requireLinearAllocs(t, budget{7, 80}, budget{1450, 8000}, run)
				})
			}
		})
	}
}

// Callers that are queued and cancelled together are each taken out by
// themselves, at the same cost however many there are.
func TestLinearCancelledQueue(t *testing.T) {
	guard(t)
	all := &asked{}
	run := func(callers int) {
		above, cancel := context.WithCancel(context.Background())
		defer cancel()
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
		defer tsc.Close()
		call := asyncsync.SyncToAsync(func(context.Context, int) (int, error) { return 0, nil }, asyncsync.On(tsc))
		busy := make(chan struct{})
		began := make(chan struct{})
		holder := spawn(func() (int, error) {
			return asyncsync.ToThread(ctx, func(context.Context) (int, error) {
				close(began)
				<-busy
				return 0, nil
			})
		})
		<-began
		var gone sync.WaitGroup
		for range callers {
			gone.Go(func() {
				if _, err := call(&countingCtx{above, all}, 0); !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		}
		for tsc.Stats().Queued < callers {
			runtime.Gosched()
		}
		cancel()
		gone.Wait()
		require.Zero(t, tsc.Stats().Queued)
		close(busy)
		_, err := holder.Wait()
		require.NoError(t, err)
	}
	requireLinear(t, "questions", budget{8, 16}, 4, func(callers int) float64 {
		before := all.sum()
		run(callers)
		return all.sum() - before
	})
	requireLinearAllocs(t, budget{10, 200}, budget{1500, 20_000}, run)
}

// Those who wait for one task each add one wait to it.
func TestLinearWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		requireLinearAllocs(t, budget{40, 200}, budget{4000, 20_000}, func(waiters int) {
			end := make(chan struct{})
			one := task.Go(ctx, func(context.Context) (int, error) { <-end; return 1, nil })
			all := make([]*task.Task[int], waiters)
			for i := range all {
				all[i] = task.Go(ctx, func(ctx context.Context) (int, error) { return one.Wait(ctx) })
			}
			synctest.Wait() // until all wait
			close(end)
			for _, w := range all {
				_, err := w.Wait(ctx)
				require.NoError(t, err)
			}
		})
	})
}
