package asyncsync_test

// The scenarios of asgiref 3.12.1's tests/test_sync_contextvars.py, rows 75 to
// 80 of docs/conformance.md, and of tests/test_garbage_collection.py, row 81.

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"weak"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/local"
	"asyncsync.dev/task"
)

// asgiref: two ThreadSensitiveContexts open at once use different threads, and
// neither is the event loop's.
//
// Here: the two functions meet while they run, so they truly overlap, and the
// kernel says that they are on two threads. The callers are on neither.
func TestRow75_ThreadSensitiveWithContextDifferent(t *testing.T) {
	guard(t)
	needThreads(t)
	type visit struct{ sync, async place }
	var calls []*pending[visit]
	together := newMeeting(2)
	for range 2 {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
		defer tsc.Close()
		calls = append(calls, spawn(func() (v visit, err error) {
			v.sync, err = asyncsync.ToThread(ctx, func(context.Context) (place, error) {
				together.attend()
				return here(), nil
			})
			v.async = here()
			return v, err
		}))
	}
	one, err := calls[0].Wait()
	require.NoError(t, err)
	other, err := calls[1].Wait()
	require.NoError(t, err)
	require.NotEqual(t, one.sync.tid, other.sync.tid)
	for _, v := range []visit{one, other} {
		require.NotEqual(t, one.sync.tid, v.async.tid)
		require.NotEqual(t, other.sync.tid, v.async.tid)
	}
}

// asgiref: a context variable goes down through S2A, and what it was changed
// to comes back.
//
// Here: what must come back is a local.Var; what only goes down may as well be
// a value in the ctx. Both arrive, also when the default thread is used and the
// call is insensitive.
func TestRow76_SyncToAsyncContextvars(t *testing.T) {
	guard(t)
	type key struct{}
	v := local.New[string]()
	defer v.Delete()
	for name, opts := range map[string][]asyncsync.Option{
		"sensitive":   nil,
		"insensitive": {asyncsync.Insensitive()},
	} {
		v.Set("bar")
		ctx := context.WithValue(t.Context(), key{}, "in the ctx")
		var below reading[string]
		inCtx, err := asyncsync.ToThread(ctx, func(ctx context.Context) (any, error) {
			below = read(v)
			v.Set("baz")
			return ctx.Value(key{}), nil
		}, opts...)
		require.NoError(t, err, name)
		require.Equal(t, is("bar"), below, name)
		require.Equal(t, is("baz"), read(v), name)
		require.Equal(t, "in the ctx", inCtx, name)
	}
}

// asgiref: given a context of its own to run in, a call leaves its changes
// there, and the caller keeps its values.
//
// Here: the context of its own is a snapshot. The hop is made inside Run: what
// it changes is there for the rest of that Run, the caller has its own values
// again after it, and the snapshot is what it was.
func TestRow77_SyncToAsyncContextvarsWithCustomContext(t *testing.T) {
	guard(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
	defer tsc.Close()
	v := local.New[string]()
	defer v.Delete()
	v.Set("foo")
	custom := local.Capture()
	v.Set("bar")
	hop := func(context.Context) (reading[string], error) {
		r := read(v)
		v.Set("baz")
		return r, nil
	}
	for range 2 {
		var below, inRun reading[string]
		var err error
		custom.Run(func() {
			below, err = asyncsync.ToThread(ctx, hop)
			inRun = read(v)
		})
		require.NoError(t, err)
		require.Equal(t, is("foo"), below)
		require.Equal(t, is("baz"), inRun)
		require.Equal(t, is("bar"), read(v))
	}
}

// asgiref: four calls made side by side on one shared context add up to "1111"
// (and fail with "already entered" if they are not thread-sensitive).
//
// Here: a snapshot may be used by any number at once. Each Run is a fork, so
// four hops on one snapshot see none of each other's writes. What they are
// meant to add up lies behind a pointer in it: sensitive hops need no lock for
// that, the thread is theirs alone; insensitive ones lock, and work as well.
func TestRow78_SyncToAsyncContextvarsWithCustomContextAndParallelTasks(t *testing.T) {
	guard(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
	defer tsc.Close()
	type sum struct {
		mu   sync.Mutex
		text string
	}
	own, shared := local.New[string](), local.New[*sum]()
	defer own.Delete()
	defer shared.Delete()

	for name, opts := range map[string][]asyncsync.Option{
		"sensitive":   nil,
		"insensitive": {asyncsync.Insensitive()},
	} {
		own.Set("")
		total := &sum{}
		shared.Set(total)
		custom := local.Capture()
		own.Set("caller")
		shared.Delete()

		together := newMeeting(4)
		var calls []*pending[reading[string]]
		for range 4 {
			calls = append(calls, spawn(func() (after reading[string], err error) {
				custom.Run(func() {
					together.attend() // four Runs of one snapshot, all at once
					_, err = asyncsync.ToThread(ctx, func(context.Context) (int, error) {
						text, _ := own.Get()
						own.Set(text + "1")
						s, ok := shared.Get()
						if !ok {
							return 0, errors.New("the captured value is not there")
						}
						if len(opts) > 0 {
							s.mu.Lock()
							defer s.mu.Unlock()
						}
						s.text += "1"
						return 0, nil
					}, opts...)
					after = read(own)
				})
				return after, err
			}))
		}
		for _, call := range calls {
			after, err := call.Wait()
			require.NoError(t, err, name)
			require.Equal(t, is("1"), after, name)
		}
		require.Equal(t, "1111", total.text, name)
		require.Equal(t, is("caller"), read(own), name)
		require.Equal(t, unset[*sum](), read(shared), name)
	}
}

// asgiref: a context variable goes down through A2S and comes back.
//
// Here: from a plain goroutine and from T, and whether the function returns, or
// returns an error, or panics.
func TestRow79_AsyncToSyncContextvars(t *testing.T) {
	guard(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
	defer tsc.Close()
	v := local.New[string]()
	defer v.Delete()
	failure := errors.New("failure")

	// hop does one A2S with the ending, and says what each side read.
	hop := func(ctx context.Context, ending string) (below, after reading[string], value any, err error) {
		v.Set("bar")
		value = panicOf(func() {
			_, err = asyncsync.FromThread(ctx, func(context.Context) (int, error) {
				below = read(v)
				v.Set("baz")
				switch ending {
				case "fails":
					return 0, failure
				case "panics":
					panic(failure)
				}
				return 0, nil
			})
		})
		return below, read(v), value, err
	}
	for _, from := range []string{"plain", "T"} {
		for _, ending := range []string{"returns", "fails", "panics"} {
			name := from + " " + ending
			var below, after reading[string]
			var err error
			var value any
			if from == "plain" {
				below, after, value, err = hop(context.Background(), ending)
			} else {
				_, hopErr := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
					below, after, value, err = hop(ctx, ending)
					return 0, nil
				})
				require.NoError(t, hopErr, name)
			}
			require.Equal(t, is("bar"), below, name)
			require.Equal(t, is("baz"), after, name)
			require.Equal(t, is("baz"), read(v), name)
			switch ending {
			case "returns":
				require.NoError(t, err, name)
				require.Nil(t, value, name)
			case "fails":
				require.Same(t, failure, err, name)
				require.Nil(t, value, name)
			case "panics":
				require.Same(t, failure, value, name)
			}
		}
	}
}

// asgiref: reading a missing thread-critical value leaves no reference cycles
// behind.
//
// Here: Go collects cycles, so the claim is about leaks: after very many
// variables, contexts, hops and tasks there are no more goroutines, threads and
// heap than before, and the values that ended with a task, a context or a hop
// can be collected.
func TestRow81_ThreadCriticalLocalRemoveAllReferenceCycles(t *testing.T) {
	guard(t)
	ctx := context.Background()

	// The default thread stays for good: make it before counting.
	_, err := asyncsync.ToThread(ctx, whereabouts)
	require.NoError(t, err)
	leakCheck(t)

	many := 100_000
	if testing.Short() {
		many = 10_000
	}
	pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 16})
	defer pool.Close()
	nothing := func(context.Context) (int, error) { return 0, nil }

	work := func(many int) error {
		_, err := task.Go(ctx, func(context.Context) (int, error) {
			for i := range many {
				missing := local.New[int](local.ThreadCritical())
				if r := read(missing); r != unset[int]() {
					return 0, fmt.Errorf("variable %d has %+v", i, r)
				}
				kept := local.New[int]()
				kept.Set(i)
				kept.Delete()
			}
			return 0, nil
		}).Wait(ctx)
		if err != nil {
			return err
		}
		for range many {
			_, tsc := asyncsync.NewThreadSensitiveContext(ctx, asyncsync.WithPool(pool))
			if err := tsc.Close(); err != nil {
				return err
			}
		}
		for range many / 50 {
			err := asyncsync.WithThreadSensitiveContext(ctx, func(ctx context.Context) error {
				_, err := asyncsync.ToThread(ctx, nothing)
				return err
			}, asyncsync.WithPool(pool))
			if err != nil {
				return err
			}
		}
		return asyncsync.WithThreadSensitiveContext(ctx, func(ctx context.Context) error {
			for range many / 20 {
				if _, err := asyncsync.ToThread(ctx, nothing); err != nil {
					return err
				}
				if _, err := task.Go(ctx, nothing).Wait(ctx); err != nil {
					return err
				}
			}
			_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
				for range many / 20 {
					if _, err := asyncsync.FromThread(ctx, nothing); err != nil {
						return 0, err
					}
				}
				return 0, nil
			})
			return err
		}, asyncsync.WithPool(pool))
	}

	require.NoError(t, work(many/100)) // what is kept for re-use is there now
	before := liveHeap()
	require.NoError(t, work(many))
	poll(t, func() string {
		if now := liveHeap(); now > before+heapNoise {
			return fmt.Sprintf("%d bytes of live heap, there were %d", now, before)
		}
		return ""
	})

	t.Run("values end", func(t *testing.T) {
		type block [1 << 16]byte
		gone := map[string]weak.Pointer[block]{}
		fresh := func(name string) *block {
			b := new(block)
			gone[name] = weak.Make(b)
			return b
		}
		ordinary := local.New[*block]()
		critical := local.New[*block](local.ThreadCritical())

		forked := fresh("forked by a task, set by its parent")
		set := fresh("set in a task")
		ordinary.Set(forked)
		_, err := task.Go(ctx, func(context.Context) (int, error) {
			ordinary.Set(set)
			return 0, nil
		}).Wait(ctx)
		require.NoError(t, err)
		ordinary.Delete()

		var wasThere bool
		func() {
			inScope, tsc := asyncsync.NewThreadSensitiveContext(ctx, asyncsync.WithPool(pool))
			onThread := fresh("thread-critical, of a closed context")
			_, err := asyncsync.ToThread(inScope, func(context.Context) (int, error) {
				critical.Set(onThread)
				return 0, nil
			})
			require.NoError(t, err)
			onThread = nil
			runtime.GC()
			_, err = asyncsync.ToThread(inScope, func(context.Context) (int, error) {
				value, ok := critical.Get()
				wasThere = ok && value != nil
				return 0, nil
			})
			require.NoError(t, err)
			require.NoError(t, tsc.Close())
		}()
		require.True(t, wasThere, "it ends with the context, not before")

		echo := asyncsync.SyncToAsync(func(_ context.Context, b *block) (*block, error) { return b, nil })
		err = asyncsync.WithThreadSensitiveContext(ctx, func(ctx context.Context) error {
			_, err := echo(ctx, fresh("argument and result of a hop"))
			return err
		}, asyncsync.WithPool(pool))
		require.NoError(t, err)

		forked, set = nil, nil
		poll(t, func() string {
			runtime.GC()
			for name, pointer := range gone {
				if pointer.Value() != nil {
					return name + " is still reachable"
				}
			}
			return ""
		})
		runtime.KeepAlive(ordinary)
		runtime.KeepAlive(critical)
	})
}

// heapNoise is how far two readings of liveHeap may be apart when nothing leaks.
// What row 81 makes fewest of, it makes 2000 of.
const heapNoise = 256 << 10

// liveHeap collects and returns the bytes that survived.
func liveHeap() uint64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}
