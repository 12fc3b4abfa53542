package asyncsync_test

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"runtime/pprof"
	"runtime/trace"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/task"
)

// Every call is told of three times, in order, whatever way it takes.
func TestHooksCount(t *testing.T) {
	ways := map[string]struct {
		call  func(ctx context.Context) error
		calls int
	}{
		"queued": {func(ctx context.Context) error { return to(ctx, on(nil0)) }, 1},
		"inline": {func(ctx context.Context) error {
			return to(ctx, func(ctx context.Context) error { return to(ctx, on(nil0)) })
		}, 2},
		"nested": {func(ctx context.Context) error {
			return to(ctx, func(ctx context.Context) error {
				return from(ctx, func(ctx context.Context) error { return to(ctx, on(nil0)) })
			})
		}, 3},
		"async from async": {func(ctx context.Context) error { return from(ctx, on(nil0)) }, 1},
		"insensitive":      {func(ctx context.Context) error { return to(ctx, on(nil0), asyncsync.Insensitive()) }, 1},
		"executor": {func(ctx context.Context) error {
			return to(ctx, on(nil0), asyncsync.Insensitive(), asyncsync.WithExecutor(goEach))
		}, 1},
		"task": {func(ctx context.Context) error {
			_, err := task.Go(ctx, func(ctx context.Context) (int, error) { return 0, to(ctx, on(nil0)) }).Wait(ctx)
			return err
		}, 2},
		"handle": {func(ctx context.Context) error {
			return withHandle(ctx, func(h *asyncsync.Handle[int]) error {
				return h.Do(ctx, func(context.Context, int) error { return nil })
			})
		}, 2},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			guard(t)
			ctx, _ := newContext(t)
			log := listen(t)
			require.NoError(t, way.call(ctx))
			require.Equal(t, way.calls, log.Count("queued"))
			require.Equal(t, way.calls, log.Count("started"))
			require.Equal(t, way.calls, log.Count("ended"))
			require.Zero(t, log.Count("panicked"))
			require.Zero(t, log.Count("abandoned"))
		})
	}
}

func nil0() error { return nil }

// Without hooks nothing is remembered, so that hooks which are set later are
// not told half of a call.
func TestHooksSetMeanwhile(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t)
	release, r := occupy(ctx)
	log := listen(t)
	release()
	require.NoError(t, r.Wait().Err)
	require.Zero(t, log.Count("ended"))

	// And the other way round: a call is told to the hooks it was made under.
	release, r = occupy(ctx)
	restore := asyncsync.SetHooks(asyncsync.Hooks{Ended: func(asyncsync.CallInfo) { t.Error("told to the wrong hooks") }})
	release()
	require.NoError(t, r.Wait().Err)
	restore()
	require.Equal(t, 1, log.Count("ended"))
}

// restore puts back what was there, once.
func TestHooksRestore(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t)
	var told []string
	hook := func(name string) asyncsync.Hooks {
		return asyncsync.Hooks{Queued: func(asyncsync.CallInfo) { told = append(told, name) }}
	}
	first := asyncsync.SetHooks(hook("first"))
	threadOf(t, ctx)
	second := asyncsync.SetHooks(hook("second"))
	threadOf(t, ctx)
	second()
	threadOf(t, ctx)
	first()
	second()
	threadOf(t, ctx)
	require.Equal(t, []string{"first", "second", "first"}, told)
}

// Names: of the function, or as given; of the context; the OS thread.
func namedForHooks(context.Context) (int, error) { return 0, nil }

func TestHooksNames(t *testing.T) {
	guard(t)
	ctx, tsc := newContext(t, asyncsync.WithName("the context"))
	home := threadOf(t, ctx)
	log := listen(t)
	asyncsync.ToThread(ctx, namedForHooks)
	asyncsync.ToThread(ctx, namedForHooks, asyncsync.Named("given"))
	asyncsync.ToThread(ctx, namedForHooks, asyncsync.Insensitive(), asyncsync.Named("anywhere"))
	withHandle(ctx, func(h *asyncsync.Handle[int]) error {
		return h.Do(ctx, doForHooks, asyncsync.Named(""))
	})
	started := log.Told("started")
	require.Equal(t, 5, len(started))
	require.True(t, strings.HasSuffix(started[0].Name, ".namedForHooks"), started[0].Name)
	require.Equal(t, "the context", started[0].Context)
	require.Equal(t, home.tid, started[0].Thread)
	require.Equal(t, tsc.Stats().Thread, started[0].Thread)
	require.Equal(t, "given", started[1].Name)
	require.Equal(t, "anywhere", started[2].Name)
	require.Zero(t, started[2].Thread)
	require.Contains(t, started[3].Name, "withHandle")
	require.True(t, strings.HasSuffix(started[4].Name, ".doForHooks"), started[4].Name)
}

func doForHooks(context.Context, int) error { return nil }

func TestHooksInline(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t)
	log := listen(t)
	require.NoError(t, to(ctx, func(ctx context.Context) error {
		return to(ctx, on(nil0), asyncsync.Named("inner"))
	}, asyncsync.Named("outer")))
	require.True(t, log.Named("ended", "inner")[0].Inline)
	require.False(t, log.Named("ended", "outer")[0].Inline)
}

// The ctx that hooks get has the caller's values.
func TestHooksCtx(t *testing.T) {
	guard(t)
	type key struct{}
	base, _ := newContext(t)
	ctx := context.WithValue(base, key{}, "value")
	log := listen(t)
	threadOf(t, ctx)
	for _, what := range []string{"queued", "started", "ended"} {
		require.Equal(t, "value", log.Told(what)[0].Ctx.Value(key{}), what)
	}
}

// Queue and run times, exactly, by the bubble's clock.
func TestHooksTimes(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		log := listen(t)
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
		first := start(func() error {
			return to(ctx, func(context.Context) error { time.Sleep(3 * time.Second); return nil }, asyncsync.Named("first"))
		})
		synctest.Wait()
		second := start(func() error {
			return to(ctx, func(context.Context) error { time.Sleep(5 * time.Second); return errOwn }, asyncsync.Named("second"))
		})
		require.NoError(t, first.Wait().Err)
		require.Same(t, errOwn, second.Wait().Err)
		require.NoError(t, tsc.Close())
		i := log.Named("ended", "first")[0]
		require.Equal(t, 0*time.Second, i.QueueTime)
		require.Equal(t, 3*time.Second, i.RunTime)
		i = log.Named("started", "second")[0]
		require.Equal(t, 3*time.Second, i.QueueTime)
		require.Zero(t, i.RunTime)
		i = log.Named("ended", "second")[0]
		require.Equal(t, 3*time.Second, i.QueueTime)
		require.Equal(t, 5*time.Second, i.RunTime)
		require.Same(t, errOwn, i.Err)
	})
}

// Hooks may call the library: their own calls, on the same thread too.
func TestHooksCallBack(t *testing.T) {
	guard(t)
	ctx, tsc := newContext(t)
	other, _ := newContext(t)
	home := threadOf(t, ctx)
	calls := 0
	var places []place
	back := func(i asyncsync.CallInfo) {
		if i.Name != "outer" {
			return
		}
		calls++
		asyncsync.ReadStats()
		tsc.Stats()
		p, err := asyncsync.ToThread(ctx, whereabouts)
		if err != nil {
			t.Error(err)
		}
		places = append(places, p)
		if err := to(other, on(nil0)); err != nil {
			t.Error(err)
		}
		asyncsync.SetHooks(asyncsync.Hooks{})()
	}
	t.Cleanup(asyncsync.SetHooks(asyncsync.Hooks{Queued: back, Started: back, Ended: back}))
	require.NoError(t, to(ctx, on(nil0), asyncsync.Named("outer")))
	require.Equal(t, 3, calls)
	require.Equal(t, []place{home, home, home}, places)
}

// Counted per process; of what has ended too.
func TestReadStats(t *testing.T) {
	guard(t)
	before := asyncsync.ReadStats()
	base, tsc := newContext(t)
	for range 3 {
		require.NoError(t, to(base, on(nil0)))
	}
	require.NoError(t, to(base, func(ctx context.Context) error { return to(ctx, on(nil0)) }))
	outcomeOf(func() error { return to(base, on(ends[1].Do)) })
	outcomeOf(func() error { return to(base, on(ends[2].Do)) })
	release, r := occupy(base)
	ctx, cancel := context.WithCancel(base)
	gone := start(func() error { return to(ctx, neverRuns(t)) })
	awaitQueued(t, tsc, 1)
	require.Equal(t, before.Queued+1, asyncsync.ReadStats().Queued)
	require.Equal(t, before.Threads+1, asyncsync.ReadStats().Threads)
	cancel()
	gone.Wait()
	release()
	require.NoError(t, r.Wait().Err)
	for range 2 { // open, then closed
		now := asyncsync.ReadStats()
		require.Equal(t, before.Calls+7, now.Calls)
		require.Equal(t, before.Inline+1, now.Inline)
		require.Equal(t, before.Cancelled+1, now.Cancelled)
		require.Equal(t, before.Panicked+1, now.Panicked)
		require.Equal(t, before.Goexits+1, now.Goexits)
		require.Equal(t, before.Abandoned, now.Abandoned)
		require.Equal(t, before.Queued, now.Queued)
		require.NoError(t, tsc.Close())
	}
	require.Equal(t, before.Threads, asyncsync.ReadStats().Threads)
}

func TestContextStats(t *testing.T) {
	guard(t)
	ctx, tsc := newContext(t, asyncsync.WithName("named"))
	require.Equal(t, asyncsync.ContextStats{Name: "named"}, tsc.Stats())
	home := threadOf(t, ctx)
	require.Equal(t, asyncsync.ContextStats{Name: "named", Thread: home.tid, Calls: 1}, tsc.Stats())
	release, r := occupy(ctx)
	queued := start(func() error { return to(ctx, on(nil0)) })
	awaitQueued(t, tsc, 1)
	require.Equal(t, asyncsync.ContextStats{Name: "named", Thread: home.tid, Calls: 1, Queued: 1, Running: true}, tsc.Stats())
	release()
	r.Wait()
	queued.Wait()
	require.NoError(t, tsc.Close())
	require.Equal(t, asyncsync.ContextStats{Name: "named", Calls: 3, Closed: true}, tsc.Stats())
}

// runtime/trace shows each call as a task of its name, and the thread as a
// region.
func TestTrace(t *testing.T) {
	if trace.IsEnabled() {
		t.Skip("somebody traces already")
	}
	guard(t)
	ctx, _ := newContext(t, asyncsync.WithName("traced context"))
	var buf bytes.Buffer
	require.NoError(t, trace.Start(&buf))
	require.NoError(t, to(ctx, func(ctx context.Context) error {
		return from(ctx, func(ctx context.Context) error { return to(ctx, on(nil0), asyncsync.Named("traced inner")) })
	}, asyncsync.Named("traced outer")))
	trace.Stop()
	require.Contains(t, buf.String(), "traced outer")
	require.Contains(t, buf.String(), "traced inner")
	require.Contains(t, buf.String(), "traced context")
}

func goroutineLabels(t *testing.T) string {
	t.Helper()
	var buf bytes.Buffer
	require.NoError(t, pprof.Lookup("goroutine").WriteTo(&buf, 1))
	return buf.String()
}

// The context's name labels the thread's goroutine in profiles, as long as the
// thread is the context's.
func TestPprofLabel(t *testing.T) {
	guard(t)
	pool := newPool(t, asyncsync.ThreadPoolConfig{MaxThreads: 1})
	ctx, tsc := newContext(t, asyncsync.WithName("labelled"), asyncsync.WithPool(pool))
	const label = `"asyncsync.context":"labelled"`
	home := threadOf(t, ctx)
	require.Contains(t, goroutineLabels(t), label)
	require.NoError(t, tsc.Close())
	next, _ := newContext(t, asyncsync.WithPool(pool))
	require.Equal(t, home, threadOf(t, next))
	require.NotContains(t, goroutineLabels(t), label, "the thread works for another context now")
}

// A call that its caller takes back because it ends by Goexit, on the way to
// another thread or to a loop, is told to Ended as well: what was queued has an
// end.
func TestHooksHearOfCallsThatAGoexitTakesBack(t *testing.T) {
	for _, where := range []string{"a loop", "a thread", "a thread that is shut down"} {
		t.Run(where, func(t *testing.T) {
			guard(t)
			var queued, ended atomic.Int32
			named := func(n *atomic.Int32) func(asyncsync.CallInfo) {
				return func(i asyncsync.CallInfo) {
					if i.Name == "taken back" {
						n.Add(1)
					}
				}
			}
			defer asyncsync.SetHooks(asyncsync.Hooks{Queued: named(&queued), Ended: named(&ended)})()
			ctx, a := newContext(t, asyncsync.Serve(asyncsync.All))
			busy, b := newContext(t)
			release, held := occupy(busy)
			waits := make(chan none)
			unwound := start(func() error {
				return to(ctx, func(ctx context.Context) error {
					close(waits)
					if where == "a loop" {
						return from(ctx, neverRuns(t), asyncsync.WithLoop(neverRunsAnything{}), asyncsync.Named("taken back"))
					}
					return to(ctx, neverRuns(t), asyncsync.On(b), asyncsync.Named("taken back"))
				})
			})
			<-waits
			goexit := func(context.Context) error {
				if where == "a thread that is shut down" {
					over, cancel := context.WithCancel(context.Background())
					cancel()
					b.Shutdown(over)
				}
				runtime.Goexit()
				return nil
			}
			require.Equal(t, "goexit", outcomeOf(func() error { return to(context.Background(), goexit, asyncsync.On(a)) }).How)
			require.Equal(t, "goexit", unwound.Wait().How)
			require.EqualValues(t, 1, queued.Load())
			require.EqualValues(t, 1, ended.Load())
			release()
			require.NoError(t, held.Wait().Err)
		})
	}
}

// neverRunsAnything is a loop that has nothing to do with its functions.
type neverRunsAnything struct{}

func (neverRunsAnything) Post(func()) error     { return nil }
func (neverRunsAnything) Done() <-chan struct{} { return nil }

// Several queued tasks are cancelled at once, by the end of their ctx or with the task that
// has started them. A hook that is told of the first may wait for the others, or end its
// goroutine: the others are cancelled all the same.
func TestHookDoesNotKeepOthersFromBeingCancelled(t *testing.T) {
	ofContext := func(h asyncsync.Hooks) ([]asyncsync.ContextOption, func()) {
		return []asyncsync.ContextOption{asyncsync.WithHooks(h)}, func() {}
	}
	ofProcess := func(h asyncsync.Hooks) ([]asyncsync.ContextOption, func()) { return nil, asyncsync.AddHooks(h) }
	for of, add := range map[string]func(asyncsync.Hooks) ([]asyncsync.ContextOption, func()){"context": ofContext, "process": ofProcess} {
		for _, by := range []string{"ctx", "task"} {
			for _, does := range []string{"wait", "goexit"} {
				t.Run(of+"/"+by+"/"+does, func(t *testing.T) {
					guard(t)
					synctest.Test(t, func(t *testing.T) {
						var queued [3]*task.Task[int]
						var told atomic.Bool
						opts, remove := add(asyncsync.Hooks{Ended: func(i asyncsync.CallInfo) {
							switch {
							case !strings.HasPrefix(i.Name, "queued"):
							case does == "goexit":
								runtime.Goexit()
							case !told.Swap(true): // the first
								for n, q := range queued {
									if i.Name != fmt.Sprint("queued ", n) {
										q.Wait(context.Background())
									}
								}
							}
						}})
						defer remove()
						ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), opts...)
						defer tsc.Close()
						release, busy := occupy(ctx)
						made := make(chan struct{})
						above, cancel := context.WithCancel(ctx)
						if by == "task" {
							above = ctx
						}
						starter := task.Go(above, func(ctx context.Context) (int, error) {
							for i := range queued {
								queued[i] = asyncsync.Go(ctx, func(context.Context) (int, error) { return 0, nil },
									asyncsync.Named(fmt.Sprint("queued ", i)))
							}
							close(made)
							<-ctx.Done()
							return 0, nil
						})
						<-made
						start(func() error { // which a Goexit may end
							if by == "task" {
								starter.Cancel(nil)
							} else {
								cancel()
							}
							return nil
						})
						for _, q := range queued {
							<-q.Done()
						}
						release()
						require.NoError(t, busy.Wait().Err)
						starter.Wait(context.Background())
						cancel()
					})
				})
			}
		}
	}
}
