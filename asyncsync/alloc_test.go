package asyncsync_test

import (
	"context"
	"flag"
	"math"
	"runtime"
	"runtime/debug"
	"strconv"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/spin"
)

// allocsPerRun is testing.AllocsPerRun with as many processors as there are:
// with one, no thread finds its caller awake.
func allocsPerRun(run func()) float64 {
	const runs = 200
	return math.Floor(allocated(func() {
		for range runs {
			run()
		}
	}).objects / runs)
}

// forceSpin has threads and callers always spin (1), or never (-1), until the
// test ends. Where they could not find each other awake, the test is skipped.
func forceSpin(t *testing.T, mode int) {
	t.Helper()
	if mode == 1 && min(runtime.GOMAXPROCS(0), runtime.NumCPU()) < 2 {
		t.Skip("there is one processor")
	}
	before, err := strconv.Atoi(flag.Lookup("spin").Value.String())
	require.NoError(t, err)
	spin.Set(mode)
	t.Cleanup(func() { spin.Set(before) })
}

// What a call may allocate, in every situation: the caller and the thread sleep,
// or find each other awake; the call is queued, or runs where it is made.
func TestAllocs(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates, and drops pooled records at random")
	}
	add := func(_ context.Context, n int) (int, error) { return n + 1, nil }
	wrapped := asyncsync.SyncToAsync(add)
	named := asyncsync.SyncToAsync(add, asyncsync.Named("named"), asyncsync.Abandon())
	wide := asyncsync.SyncToAsync(func(_ context.Context, x [6]int) ([6]int, error) { return x, nil })
	one := func(context.Context) (int, error) { return 1, nil }
	through := func(call asyncsync.Func[int, int]) func(context.Context) {
		return func(ctx context.Context) {
			if n, err := call(ctx, 1); n != 2 || err != nil {
				panic(err)
			}
		}
	}
	for _, c := range []struct {
		name   string
		budget float64
		run    func(context.Context)
	}{
		{"wrapper", 0, through(wrapped)},
		{"wrapper with options", 0, through(named)},
		{"wrapper of a large argument and result", 0, func(ctx context.Context) { wide(ctx, [6]int{}) }},
		{"ToThread, capturing nothing", 0, func(ctx context.Context) { asyncsync.ToThread(ctx, one) }},
		{"ToThread, capturing", 1, func(ctx context.Context) {
			asyncsync.ToThread(ctx, func(context.Context) (context.Context, error) { return ctx, nil })
		}},
	} {
		for spinning, mode := range map[string]int{"cold": -1, "hot": 1} {
			for _, engine := range nestings[:2] {
				t.Run(c.name+"/"+spinning+"/"+engine.name, func(t *testing.T) {
					guard(t)
					forceSpin(t, mode)
					above, cancel := context.WithCancel(context.Background())
					defer cancel()
					for name, root := range map[string]context.Context{"plain": context.Background(), "cancellable": above} {
						ctx, tsc := asyncsync.NewThreadSensitiveContext(root, engine.context...)
						require.LessOrEqual(t, allocsPerRun(func() { c.run(ctx) }), c.budget, "%s ctx, queued", name)
						require.NoError(t, to(ctx, func(ctx context.Context) error {
							require.LessOrEqual(t, allocsPerRun(func() { c.run(ctx) }), c.budget, "%s ctx, inline", name)
							return nil
						}))
						require.NoError(t, tsc.Close())
					}
				})
			}
		}
	}
}

// A ctx that carries no context, or hides it below a foreign one, does not
// remember the context that the function gets: that is made for each call.
func TestAllocsOfForeignCtx(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	call := asyncsync.SyncToAsync(func(_ context.Context, n int) (int, error) { return n, nil })
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
	defer tsc.Close()
	type key struct{}
	on := asyncsync.SyncToAsync(func(_ context.Context, n int) (int, error) { return n, nil }, asyncsync.On(tsc))
	for _, c := range []struct {
		name string
		ctx  context.Context
		call asyncsync.Func[int, int]
	}{
		{"default thread", context.Background(), call},
		{"named context", context.Background(), on},
		{"value over the context", context.WithValue(ctx, key{}, 1), call},
	} {
		guard(t)
		got := allocsPerRun(func() {
			if _, err := c.call(c.ctx, 1); err != nil {
				panic(err)
			}
		})
		require.LessOrEqual(t, got, 1.0, c.name)
	}
}

// What a level of nesting may allocate, with wrappers made beforehand: both
// functions' contexts with their nodes, the record and the frame of the wait.
// On the same thread there is nothing to remember.
func TestAllocsOfNesting(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates, and drops pooled records at random")
	}
	for _, n := range nestings {
		for spinning, mode := range map[string]int{"cold": -1, "hot": 1} {
			t.Run(n.name+"/"+spinning, func(t *testing.T) {
				guard(t)
				forceSpin(t, mode)
				ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), n.context...)
				defer tsc.Close()
				budget := 4.0
				if n.name == "same thread" {
					budget = 0
				}
				descend := n.descent(nil, atBottom)
				const depth = 64
				got := allocated(func() { descend(ctx, depth) }).objects / depth
				require.LessOrEqual(t, math.Floor(got), budget)
			})
		}
	}
}

// An AsyncToSync function that calls nothing, and a call from one thread to
// another, whose caller waits in a frame.
func TestAllocsOfAsyncToSync(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	fn := func(_ context.Context, n int) (int, error) { return n, nil }
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
	defer tsc.Close()
	same := asyncsync.AsyncToSync(fn, asyncsync.SameThread())
	away := asyncsync.AsyncToSync(fn)
	guard(t)
	require.NoError(t, to(ctx, func(ctx context.Context) error {
		require.Zero(t, allocsPerRun(func() { same(ctx, 1) }), "SameThread")
		require.LessOrEqual(t, allocsPerRun(func() { away(ctx, 1) }), 4.0)
		return nil
	}))
	_, other := asyncsync.NewThreadSensitiveContext(context.Background())
	defer other.Close()
	there := asyncsync.SyncToAsync(fn, asyncsync.On(other))
	require.NoError(t, to(ctx, func(ctx context.Context) error {
		require.LessOrEqual(t, allocsPerRun(func() { there(ctx, 1) }), 2.0, "to another thread")
		return nil
	}))
}

// A context that is not used costs itself, and no thread.
func TestAllocsOfContexts(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	guard(t)
	pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{})
	defer pool.Close()
	bg := context.Background()
	pooled := asyncsync.WithPool(pool)
	require.LessOrEqual(t, allocsPerRun(func() {
		_, tsc := asyncsync.NewThreadSensitiveContext(bg)
		tsc.Close()
	}), 1.0, "unused")
	require.LessOrEqual(t, allocsPerRun(func() {
		_, tsc := asyncsync.NewThreadSensitiveContext(bg, pooled)
		tsc.Close()
	}), 2.0, "unused, with an option")
	require.Zero(t, pool.Stats().Started, "threads")
	call := asyncsync.SyncToAsync(func(_ context.Context, n int) (int, error) { return n, nil })
	once := func(calls int) float64 {
		return allocsPerRun(func() {
			ctx, tsc := asyncsync.NewThreadSensitiveContext(bg, pooled)
			for range calls {
				call(ctx, 1)
			}
			tsc.Close()
		})
	}
	// 7, if the thread and its callers sleep. If they find each other awake, what
	// one of them gives back is often at the other's processor, where it is not
	// found: up to 12. Nine calls more may add none, so they have the same budget.
	const budget = 14.0
	require.LessOrEqual(t, once(1), budget, "used for one call")
	require.LessOrEqual(t, once(10), budget, "used for ten calls")
}

// A call that runs where it is made allocates nothing, by whichever function it is
// made and whatever options it has.
func TestAllocsInline(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates, and drops pooled records at random")
	}
	guard(t)
	one := func(context.Context) (int, error) { return 1, nil }
	h, err := asyncsync.Open(context.Background(), one, nil)
	require.NoError(t, err)
	defer h.Close()
	p := asyncsync.NewHandlePool(asyncsync.HandlePoolConfig[int]{Open: one})
	defer p.Close()
	do := func(context.Context, int) error { return nil }
	get := func(_ context.Context, n int) (int, error) { return n, nil }
	for name, call := range map[string]func(context.Context){
		"ToThread":              func(ctx context.Context) { asyncsync.ToThread(ctx, one) },
		"ToThread with options": func(ctx context.Context) { asyncsync.ToThread(ctx, one, asyncsync.Named("named"), asyncsync.Abandon()) },
		"Do":                    func(ctx context.Context) { asyncsync.Do(ctx, func(context.Context) error { return nil }) },
		"Do with option": func(ctx context.Context) {
			asyncsync.Do(ctx, func(context.Context) error { return nil }, asyncsync.Named("named"))
		},
		"Handle.Do":             func(ctx context.Context) { h.Do(ctx, do) },
		"Handle.Do with option": func(ctx context.Context) { h.Do(ctx, do, asyncsync.Named("named")) },
		"Get":                   func(ctx context.Context) { asyncsync.Get(ctx, h, get) },
		"Get with option":       func(ctx context.Context) { asyncsync.Get(ctx, h, get, asyncsync.Named("named")) },
		"HandlePool.Do":         func(ctx context.Context) { p.Do(ctx, do) },
		"GetFrom with option":   func(ctx context.Context) { asyncsync.GetFrom(ctx, p, get, asyncsync.Named("named")) },
	} {
		t.Run(name, func(t *testing.T) {
			on := h.Do
			if name == "HandlePool.Do" || name == "GetFrom with option" {
				on = p.Do
			}
			require.NoError(t, on(context.Background(), func(ctx context.Context, _ int) error {
				require.Zero(t, allocsPerRun(func() { call(ctx) }))
				return nil
			}))
		})
	}
}

// A call of a handle from elsewhere makes the function's ctx anew, and nothing else.
func TestAllocsOfHandle(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates, and drops pooled records at random")
	}
	guard(t)
	h, err := asyncsync.Open(context.Background(), func(context.Context) (int, error) { return 1, nil }, nil)
	require.NoError(t, err)
	defer h.Close()
	do := func(context.Context, int) error { return nil }
	get := func(_ context.Context, n int) (int, error) { return n, nil }
	require.LessOrEqual(t, allocsPerRun(func() { h.Do(context.Background(), do) }), 1.0, "Do")
	require.LessOrEqual(t, allocsPerRun(func() { asyncsync.Get(context.Background(), h, get) }), 1.0, "Get")
}

// What a level of a nesting takes of the two stacks that it stands on, with the frames of
// this test. A stack is a power of two in size: with functions that have smaller frames, a
// level with wrappers takes just less than 1 KB of it, see docs/performance.md.
func TestStackOfALevel(t *testing.T) {
	guard(t)
	if raceDetector {
		t.Skip("the race detector has frames of its own")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // which would shrink the stacks
	one := func(context.Context) (int, error) { return 1, nil }
	h, err := asyncsync.Open(context.Background(), one, nil)
	require.NoError(t, err)
	defer h.Close()
	p := asyncsync.NewHandlePool(asyncsync.HandlePoolConfig[int]{Open: one, Max: 1})
	defer p.Close()
	type level func(ctx context.Context, level int) error
	for name, calls := range map[string]struct {
		down, up func(fn level) level // to the thread, and from it
	}{
		"wrappers": {
			func(fn level) level {
				w := asyncsync.SyncToAsync(func(ctx context.Context, n int) (int, error) { return 0, fn(ctx, n) })
				return func(ctx context.Context, n int) error { _, err := w(ctx, n); return err }
			},
			func(fn level) level {
				w := asyncsync.AsyncToSync(func(ctx context.Context, n int) (int, error) { return 0, fn(ctx, n) })
				return func(ctx context.Context, n int) error { _, err := w(ctx, n); return err }
			},
		},
		"ToThread and FromThread": {
			func(fn level) level {
				return func(ctx context.Context, n int) error {
					_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) { return 0, fn(ctx, n) })
					return err
				}
			},
			func(fn level) level {
				return func(ctx context.Context, n int) error {
					_, err := asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) { return 0, fn(ctx, n) })
					return err
				}
			},
		},
		"Do and DoAsync": {
			func(fn level) level {
				return func(ctx context.Context, n int) error {
					return asyncsync.Do(ctx, func(ctx context.Context) error { return fn(ctx, n) })
				}
			},
			func(fn level) level {
				return func(ctx context.Context, n int) error {
					return asyncsync.DoAsync(ctx, func(ctx context.Context) error { return fn(ctx, n) })
				}
			},
		},
		"with an option": {
			func(fn level) level {
				return func(ctx context.Context, n int) error {
					_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) { return 0, fn(ctx, n) }, asyncsync.Named("down"))
					return err
				}
			},
			func(fn level) level {
				return func(ctx context.Context, n int) error {
					_, err := asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) { return 0, fn(ctx, n) }, asyncsync.Named("up"))
					return err
				}
			},
		},
		"Handle.Do": {
			func(fn level) level {
				return func(ctx context.Context, n int) error {
					return h.Do(ctx, func(ctx context.Context, _ int) error { return fn(ctx, n) })
				}
			},
			func(fn level) level {
				return func(ctx context.Context, n int) error {
					return asyncsync.DoAsync(ctx, func(ctx context.Context) error { return fn(ctx, n) })
				}
			},
		},
		"Get": {
			func(fn level) level {
				return func(ctx context.Context, n int) error {
					_, err := asyncsync.Get(ctx, h, func(ctx context.Context, _ int) (int, error) { return 0, fn(ctx, n) })
					return err
				}
			},
			func(fn level) level {
				return func(ctx context.Context, n int) error {
					return asyncsync.DoAsync(ctx, func(ctx context.Context) error { return fn(ctx, n) })
				}
			},
		},
		"HandlePool.Do": {
			func(fn level) level {
				return func(ctx context.Context, n int) error {
					return p.Do(ctx, func(ctx context.Context, _ int) error { return fn(ctx, n) })
				}
			},
			func(fn level) level {
				return func(ctx context.Context, n int) error {
					return asyncsync.DoAsync(ctx, func(ctx context.Context) error { return fn(ctx, n) })
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, _ := newContext(t)
			const depth = 64
			var on, off [depth + 1]uintptr // where the frames are: on the thread, and off it
			var up, down level
			up = calls.up(func(ctx context.Context, n int) error {
				off[n] = stackAt(&n)
				if n == 0 {
					return nil
				}
				return down(ctx, n)
			})
			down = calls.down(func(ctx context.Context, n int) error {
				on[n] = stackAt(&n)
				return up(ctx, n-1)
			})
			for range 2 { // the first has the stacks grow, and a stack that grows moves
				require.NoError(t, down(ctx, depth))
			}
			for side, at := range map[string][depth + 1]uintptr{"on the thread": on, "off the thread": off} {
				level := (at[depth/2] - at[1]) / (depth/2 - 1)
				t.Logf("%d bytes a level %s", level, side)
				require.LessOrEqual(t, level, uintptr(1536), side)
			}
		})
	}
}

//go:noinline
func stackAt(p *int) uintptr { return uintptr(unsafe.Pointer(p)) }
