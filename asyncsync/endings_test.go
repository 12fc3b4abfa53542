package asyncsync_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/local"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// A route is a way for a function to get from a plain goroutine to where it
// runs, and for its ending to get back. ctx carries a context.
type route struct {
	name string
	take func(ctx context.Context, fn func() error) error
}

// on hides the ctx that a function is not interested in.
func on(fn func() error) func(context.Context) error {
	return func(context.Context) error { return fn() }
}

// goEach is an executor that starts a goroutine for each function.
var goEach = loop.PosterFunc(func(fn func()) error { go fn(); return nil })

var limiter = task.NewLimiter(1)

var routes = []route{
	{"ToThread", func(ctx context.Context, fn func() error) error {
		return to(ctx, on(fn))
	}},
	{"wrapper", func(ctx context.Context, fn func() error) error {
		call := asyncsync.SyncToAsync(func(_ context.Context, n int) (int, error) {
			if n == 0 {
				return 0, nil
			}
			return n, fn()
		})
		for range 3 { // the record is used again, for the ending too
			if _, err := call(ctx, 0); err != nil {
				return err
			}
		}
		_, err := call(ctx, 1)
		return err
	}},
	{"On", func(ctx context.Context, fn func() error) error {
		_, other := asyncsync.NewThreadSensitiveContext(context.Background())
		defer other.Close()
		return to(ctx, on(fn), asyncsync.On(other))
	}},
	{"inline", func(ctx context.Context, fn func() error) error {
		return to(ctx, func(ctx context.Context) error { return to(ctx, on(fn)) })
	}},
	{"inline with Interrupt", func(ctx context.Context, fn func() error) error {
		return to(ctx, func(ctx context.Context) error {
			return to(ctx, on(fn), asyncsync.Interrupt(func() {}))
		})
	}},
	{"with Interrupt", func(ctx context.Context, fn func() error) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		return to(ctx, on(fn), asyncsync.Interrupt(func() {}))
	}},
	{"with Abandon", func(ctx context.Context, fn func() error) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		return to(ctx, on(fn), asyncsync.Abandon())
	}},
	{"S2A A2S", func(ctx context.Context, fn func() error) error {
		return to(ctx, func(ctx context.Context) error { return from(ctx, on(fn)) })
	}},
	{"S2A A2S S2A", func(ctx context.Context, fn func() error) error {
		return to(ctx, func(ctx context.Context) error {
			return from(ctx, func(ctx context.Context) error { return to(ctx, on(fn)) })
		})
	}},
	{"twenty levels", func(ctx context.Context, fn func() error) error {
		_, err := through(ctx, 20, func(context.Context) (struct{}, error) { return struct{}{}, fn() })
		return err
	}},
	{"twenty-one levels", func(ctx context.Context, fn func() error) error {
		_, err := through(ctx, 21, func(ctx context.Context) (struct{}, error) { return struct{}{}, to(ctx, on(fn)) })
		return err
	}},
	{"A2S adopted", func(_ context.Context, fn func() error) error {
		return from(context.Background(), on(fn))
	}},
	{"A2S adopted S2A", func(_ context.Context, fn func() error) error {
		return from(context.Background(), func(ctx context.Context) error { return to(ctx, on(fn)) })
	}},
	{"A2S from async code", func(ctx context.Context, fn func() error) error {
		return from(ctx, on(fn))
	}},
	{"A2S from async code with Abandon", func(ctx context.Context, fn func() error) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		return from(ctx, on(fn), asyncsync.Abandon())
	}},
	{"task", func(ctx context.Context, fn func() error) error {
		_, err := task.Go(ctx, func(context.Context) (int, error) { return 0, fn() }).Wait(ctx)
		return err
	}},
	{"task S2A", func(ctx context.Context, fn func() error) error {
		_, err := task.Go(ctx, func(ctx context.Context) (int, error) { return 0, to(ctx, on(fn)) }).Wait(ctx)
		return err
	}},
	{"S2A task S2A", func(ctx context.Context, fn func() error) error {
		return to(ctx, func(ctx context.Context) error {
			_, err := task.Go(ctx, func(ctx context.Context) (int, error) { return 0, to(ctx, on(fn)) }).Wait(ctx)
			return err
		})
	}},
	{"S2A group S2A", func(ctx context.Context, fn func() error) error {
		return to(ctx, func(ctx context.Context) error {
			tctx, g := task.NewGroup(ctx)
			g.Go(func(context.Context) error { return to(tctx, on(fn)) })
			return g.Wait(ctx)
		})
	}},
	{"another context's thread", func(ctx context.Context, fn func() error) error {
		otherCtx, other := asyncsync.NewThreadSensitiveContext(context.Background())
		defer other.Close()
		return to(ctx, func(context.Context) error { return to(otherCtx, on(fn)) })
	}},
	{"there and back", func(ctx context.Context, fn func() error) error {
		_, other := asyncsync.NewThreadSensitiveContext(context.Background())
		defer other.Close()
		return to(ctx, func(inner context.Context) error {
			return to(inner, func(inner context.Context) error {
				return from(inner, func(inner context.Context) error {
					_, tsc := asyncsync.NewThreadSensitiveContext(ctx)
					defer tsc.Close()
					return to(inner, on(fn), asyncsync.On(tsc))
				})
			}, asyncsync.On(other))
		})
	}},
	{"unpinned", func(_ context.Context, fn func() error) error {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.Unpinned())
		defer tsc.Close()
		return to(ctx, on(fn))
	}},
	{"nested context", func(ctx context.Context, fn func() error) error {
		return asyncsync.WithThreadSensitiveContext(ctx, func(ctx context.Context) error { return to(ctx, on(fn)) })
	}},
	{"context body", func(ctx context.Context, fn func() error) error {
		return asyncsync.WithThreadSensitiveContext(ctx, on(fn))
	}},
	{"insensitive", func(ctx context.Context, fn func() error) error {
		return to(ctx, on(fn), asyncsync.Insensitive())
	}},
	{"insensitive, then S2A", func(ctx context.Context, fn func() error) error {
		return to(ctx, func(ctx context.Context) error { return to(ctx, on(fn)) }, asyncsync.Insensitive())
	}},
	{"insensitive from a thread", func(ctx context.Context, fn func() error) error {
		return to(ctx, func(ctx context.Context) error { return to(ctx, on(fn), asyncsync.Insensitive()) })
	}},
	{"insensitive on an executor", func(ctx context.Context, fn func() error) error {
		return to(ctx, on(fn), asyncsync.Insensitive(), asyncsync.WithExecutor(goEach))
	}},
	{"insensitive on an executor from a thread", func(ctx context.Context, fn func() error) error {
		return to(ctx, func(ctx context.Context) error {
			return to(ctx, on(fn), asyncsync.Insensitive(), asyncsync.WithExecutor(goEach))
		})
	}},
	{"insensitive with a limiter", func(ctx context.Context, fn func() error) error {
		return to(ctx, on(fn), asyncsync.Insensitive(), asyncsync.WithLimiter(limiter))
	}},
	{"insensitive with a limiter from a thread", func(ctx context.Context, fn func() error) error {
		return to(ctx, func(ctx context.Context) error {
			return to(ctx, on(fn), asyncsync.Insensitive(), asyncsync.WithLimiter(limiter))
		})
	}},
	{"insensitive with everything", func(ctx context.Context, fn func() error) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		return to(ctx, on(fn), asyncsync.Insensitive(), asyncsync.WithLimiter(limiter),
			asyncsync.WithExecutor(goEach), asyncsync.Abandon(), asyncsync.Interrupt(func() {}))
	}},
	{"handle", func(ctx context.Context, fn func() error) error {
		return withHandle(ctx, func(h *asyncsync.Handle[int]) error {
			return h.Do(ctx, func(context.Context, int) error { return fn() })
		})
	}},
	{"handle with result", func(ctx context.Context, fn func() error) error {
		return withHandle(ctx, func(h *asyncsync.Handle[int]) error {
			_, err := asyncsync.Get(ctx, h, func(_ context.Context, v int) (int, error) { return v, fn() })
			return err
		})
	}},
	{"handle inline", func(ctx context.Context, fn func() error) error {
		return withHandle(ctx, func(h *asyncsync.Handle[int]) error {
			return h.Do(ctx, func(ctx context.Context, _ int) error {
				return h.Do(ctx, func(context.Context, int) error { return fn() })
			})
		})
	}},
	{"opening a handle", func(ctx context.Context, fn func() error) error {
		_, err := asyncsync.Open(ctx, func(context.Context) (int, error) { return 0, fn() }, nil)
		return err
	}},
	{"OnThreadStart", func(_ context.Context, fn func() error) error {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(),
			asyncsync.OnThreadStart(func() {
				if err := fn(); err != nil {
					panic(err) // it cannot return one
				}
			}))
		defer tsc.Close()
		return recoverEnd(func() error { return to(ctx, func(context.Context) error { return nil }) })
	}},
}

// recoverEnd makes a return of a panic with testkit.ErrEnd.
func recoverEnd(fn func() error) (err error) {
	defer func() {
		if r := recover(); r == any(testkit.ErrEnd) {
			err = testkit.ErrEnd
		} else if r != nil {
			panic(r)
		}
	}()
	return fn()
}

func withHandle(ctx context.Context, fn func(*asyncsync.Handle[int]) error) error {
	h, err := asyncsync.Open(ctx, func(context.Context) (int, error) { return 7, nil }, nil)
	if err != nil {
		return err
	}
	defer h.Close()
	return fn(h)
}

// Every ending reaches the caller on every way, and the thread lives on.
func TestEndings(t *testing.T) {
	for _, r := range routes {
		for _, e := range ends {
			t.Run(r.name+"/"+e.How, func(t *testing.T) {
				guard(t)
				ctx, tsc := newContext(t)
				home := threadOf(t, ctx)
				e.CheckIs(t, outcomeOf(func() error { return r.take(ctx, e.Do) }))
				require.Equal(t, home, threadOf(t, ctx), "the thread goes on")
				require.False(t, tsc.Stats().Running)
				require.Zero(t, tsc.Stats().Queued)
				require.Zero(t, limiter.Stats().Used, "the token is given back")
			})
		}
	}
}

// With hooks too; and the Panicked hook hears of a panic once, however many
// callers it passes through, with the stack of its origin.
func TestEndingsWithHooks(t *testing.T) {
	for _, r := range routes {
		for _, e := range ends {
			t.Run(r.name+"/"+e.How, func(t *testing.T) {
				guard(t)
				ctx, _ := newContext(t)
				home := threadOf(t, ctx)
				log := listen(t)
				e.CheckIs(t, outcomeOf(func() error { return r.take(ctx, e.Do) }))
				require.Equal(t, home, threadOf(t, ctx), "the thread goes on")
				told := log.Told("panicked")
				if e.How != "panic" {
					if r.name != "OnThreadStart" { // there an error is a panic
						require.Zero(t, len(told))
					}
					return
				}
				if r.name == "context body" {
					require.Zero(t, len(told), "it is called directly: no call")
					return
				}
				require.Equal(t, 1, len(told))
				require.Same(t, http.ErrAbortHandler, told[0].Panic)
				require.Contains(t, string(told[0].Stack), "testkit.Culprit")
			})
		}
	}
}

// The Goexit of a function on a thread is known to hooks as such.
func TestEndingsAreToldApart(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t)
	log := listen(t)
	for _, e := range ends {
		outcomeOf(func() error { return to(ctx, on(e.Do), asyncsync.Named(e.How)) })
	}
	for _, e := range ends {
		infos := log.Named("ended", e.How)
		require.Equal(t, 1, len(infos))
		require.Equal(t, e.How == "goexit", infos[0].Goexit)
		require.Equal(t, e.How == "panic", infos[0].Panic != nil)
		require.Equal(t, e.How == "return", infos[0].Err == testkit.ErrEnd)
	}
}

// A panic value that == cannot compare keeps its identity and is told once.
func TestPanicWithIncomparableValue(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t)
	log := listen(t)
	value := []string{"not comparable"}
	o := outcomeOf(func() error {
		_, err := through(ctx, 6, func(context.Context) (int, error) { panic(value) })
		return err
	})
	require.Equal(t, "panic", o.How)
	require.Same(t, &value[0], &o.Value.([]string)[0])
	require.Equal(t, 1, len(log.Told("panicked")), "once, however many callers it passes through")
}

// A panic that was recovered by a caller and another one later with the same
// value are two.
func TestTwoPanicsWithTheSameValue(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t)
	log := listen(t)
	o := outcomeOf(func() error {
		return to(ctx, func(ctx context.Context) error {
			require.Equal(t, "twice", panicOf(func() {
				from(ctx, func(ctx context.Context) error {
					return to(ctx, func(context.Context) error { panic("twice") })
				})
			}))
			secondCulprit()
			return nil
		})
	})
	require.Equal(t, outcome{How: "panic", Value: "twice"}, o)
	told := log.Told("panicked")
	require.Equal(t, 2, len(told))
	require.Contains(t, string(told[1].Stack), "secondCulprit")
}

//go:noinline
func secondCulprit() { panic("twice") }

// The callers between the culprit and the top may do something about it.
func TestPanicIsRecoveredOnTheWay(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t)
	err := to(ctx, func(ctx context.Context) (err error) {
		defer func() { err = fmt.Errorf("recovered %v", recover()) }()
		return from(ctx, func(ctx context.Context) error {
			return to(ctx, func(context.Context) error { culprit(); return nil })
		})
	})
	require.EqualError(t, err, "recovered net/http: abort Handler")
}

// What a function does on its way out synchronizes before its caller goes on,
// at every level, however it ends: plain variables are the probe.
func TestEndingSynchronizesAllLevels(t *testing.T) {
	for _, e := range ends {
		t.Run(e.How, func(t *testing.T) {
			guard(t)
			ctx, _ := newContext(t)
			for range 200 {
				var order []string
				o := outcomeOf(func() error {
					return to(ctx, func(ctx context.Context) error {
						defer func() { order = append(order, "outer") }()
						return from(ctx, func(ctx context.Context) error {
							defer func() {
								runtime.Gosched()
								order = append(order, "async")
							}()
							return to(ctx, func(context.Context) error {
								defer func() { order = append(order, "inner") }()
								return e.Do()
							})
						})
					})
				})
				e.CheckIs(t, o)
				require.Equal(t, []string{"inner", "async", "outer"}, order)
			}
		})
	}
}

// Nobody has abandoned anything when a nested function calls Goexit.
func TestNestedGoexitAbandonsNothing(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t)
	log := listen(t)
	before := asyncsync.ReadStats().Abandoned
	for range 50 {
		o := outcomeOf(func() error {
			_, err := through(ctx, 6, func(context.Context) (int, error) { runtime.Goexit(); return 0, nil })
			return err
		})
		require.Equal(t, "goexit", o.How)
	}
	threadOf(t, ctx)
	require.Equal(t, before, asyncsync.ReadStats().Abandoned)
	require.Zero(t, log.Count("abandoned"))
}

// A thread outlives many Goexits, more than a pool would put up with.
func TestThreadSurvivesManyGoexits(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t)
	home := threadOf(t, ctx)
	for i := range 100 {
		o := outcomeOf(func() error { return to(ctx, func(context.Context) error { runtime.Goexit(); return nil }) })
		require.Equal(t, "goexit", o.How)
		if i%10 == 0 {
			require.Equal(t, home, threadOf(t, ctx))
		}
	}
	require.Equal(t, home, threadOf(t, ctx))
}

// What an abandoned function comes to, the Abandoned hook hears and nobody
// else, and the thread lives on.
func TestEndingsOfAbandoned(t *testing.T) {
	kinds := map[string][]asyncsync.Option{
		"sensitive":   {asyncsync.Abandon()},
		"insensitive": {asyncsync.Abandon(), asyncsync.Insensitive(), asyncsync.WithLimiter(limiter)},
	}
	for kind, opts := range kinds {
		for _, fromThread := range []bool{false, true} {
			for _, e := range ends {
				t.Run(fmt.Sprintf("%s, from a thread %t/%s", kind, fromThread, e.How), func(t *testing.T) {
					guard(t)
					base, _ := newContext(t)
					other, _ := newContext(t)
					home := threadOf(t, base)
					heard := make(chan asyncsync.CallInfo, 10)
					t.Cleanup(asyncsync.SetHooks(asyncsync.Hooks{
						Abandoned: func(i asyncsync.CallInfo) { heard <- i },
					}))
					cause := errors.New("enough")
					ctx, cancel := context.WithCancelCause(base)
					leave := make(chan struct{})
					call := func(ctx context.Context) error {
						return to(ctx, func(context.Context) error {
							cancel(cause)
							<-leave
							return e.Do()
						}, append(opts, asyncsync.Named("abandoned"))...)
					}
					var err error
					if fromThread {
						err = to(other, func(context.Context) error { return call(ctx) })
					} else {
						err = call(ctx)
					}
					requireWrapsAll(t, err, asyncsync.ErrAbandoned, cause)
					require.Empty(t, heard, "the function still runs")
					if kind == "insensitive" {
						require.Equal(t, 1, limiter.Stats().Used, "it keeps its token")
					}
					close(leave)
					info := <-heard
					require.Equal(t, "abandoned", info.Name)
					require.Equal(t, e.How == "goexit", info.Goexit)
					require.Equal(t, e.How == "panic", info.Panic != nil)
					require.Equal(t, e.How == "return", info.Err == testkit.ErrEnd)
					if e.How == "panic" {
						require.Same(t, http.ErrAbortHandler, info.Panic)
						require.Contains(t, string(info.Stack), "testkit.Culprit")
					}
					require.Equal(t, home, threadOf(t, base))
					require.Zero(t, limiter.Stats().Used)
					require.Empty(t, heard, "once")
				})
			}
		}
	}
}

// A hook that does not return ends the call that it was told of, and no more.
func TestEndingsOfHooks(t *testing.T) {
	sets := map[string]func(func(asyncsync.CallInfo)) asyncsync.Hooks{
		"Queued":  func(f func(asyncsync.CallInfo)) asyncsync.Hooks { return asyncsync.Hooks{Queued: f} },
		"Started": func(f func(asyncsync.CallInfo)) asyncsync.Hooks { return asyncsync.Hooks{Started: f} },
		"Ended":   func(f func(asyncsync.CallInfo)) asyncsync.Hooks { return asyncsync.Hooks{Ended: f} },
		"Panicked": func(f func(asyncsync.CallInfo)) asyncsync.Hooks {
			return asyncsync.Hooks{Panicked: f}
		},
	}
	ways := map[string]func(context.Context, func(context.Context) error) error{
		"queued": func(ctx context.Context, fn func(context.Context) error) error {
			return to(ctx, fn, asyncsync.Named("victim"))
		},
		"inline": func(ctx context.Context, fn func(context.Context) error) error {
			return to(ctx, func(ctx context.Context) error { return to(ctx, fn, asyncsync.Named("victim")) })
		},
		"nested": func(ctx context.Context, fn func(context.Context) error) error {
			return to(ctx, func(ctx context.Context) error {
				return from(ctx, func(ctx context.Context) error { return to(ctx, fn, asyncsync.Named("victim")) })
			})
		},
		"async": func(ctx context.Context, fn func(context.Context) error) error {
			return to(ctx, func(ctx context.Context) error { return from(ctx, fn, asyncsync.Named("victim")) })
		},
		"insensitive": func(ctx context.Context, fn func(context.Context) error) error {
			return to(ctx, fn, asyncsync.Insensitive(), asyncsync.Named("victim"))
		},
		"task": func(ctx context.Context, fn func(context.Context) error) error {
			_, err := task.Go(ctx, func(ctx context.Context) (int, error) { return 0, fn(ctx) }, task.Named("victim")).Wait(ctx)
			return err
		},
		"group": func(ctx context.Context, fn func(context.Context) error) error {
			_, g := task.NewGroup(ctx)
			defer g.Wait(ctx)
			g.Go(fn, task.Named("victim"))
			return g.Wait(ctx)
		},
	}
	for hook, set := range sets {
		for way, call := range ways {
			for _, e := range ends[1:] {
				if hook == "Queued" && way == "group" {
					continue // see TestGroupSurvivesQueuedHook
				}
				t.Run(hook+"/"+way+"/"+e.How, func(t *testing.T) {
					guard(t)
					ctx, tsc := newContext(t)
					home := threadOf(t, ctx)
					times := 0
					restore := asyncsync.SetHooks(set(func(i asyncsync.CallInfo) {
						if i.Name == "victim" {
							times++
							e.Do()
						}
					}))
					defer restore()
					ran := false
					o := outcomeOf(func() error {
						return call(ctx, func(context.Context) error {
							ran = true
							if hook == "Panicked" {
								panic("the call's own")
							}
							return nil
						})
					})
					e.CheckIs(t, o)
					require.Equal(t, hook == "Ended" || hook == "Panicked", ran)
					require.Equal(t, 1, times)
					require.Equal(t, home, threadOf(t, ctx))
					require.False(t, tsc.Stats().Running)
				})
			}
		}
	}
}

// A task that was refused by a hook is none that the group waits for.
func TestGroupSurvivesQueuedHook(t *testing.T) {
	for _, e := range ends[1:] {
		t.Run(e.How, func(t *testing.T) {
			guard(t)
			t.Cleanup(asyncsync.SetHooks(asyncsync.Hooks{Queued: func(asyncsync.CallInfo) { e.Do() }}))
			ctx, g := task.NewGroup(context.Background())
			e.CheckIs(t, outcomeOf(func() error {
				g.Go(func(context.Context) error { t.Error("runs"); return nil })
				return nil
			}))
			require.NoError(t, start(func() error { return g.Wait(ctx) }).Settle(t).Err)
		})
	}
}

// An Abandoned hook cannot hurt the thread: it has a goroutine of its own. (A
// panic there ends the process, as in any goroutine.)
func TestAbandonedHookGoexit(t *testing.T) {
	guard(t)
	base, _ := newContext(t)
	home := threadOf(t, base)
	heard := make(chan struct{})
	t.Cleanup(asyncsync.SetHooks(asyncsync.Hooks{Abandoned: func(asyncsync.CallInfo) {
		defer close(heard)
		runtime.Goexit()
	}}))
	ctx, cancel := context.WithCancel(base)
	leave := make(chan struct{})
	err := to(ctx, func(context.Context) error { cancel(); <-leave; return nil }, asyncsync.Abandon())
	require.ErrorIs(t, err, asyncsync.ErrAbandoned)
	close(leave)
	<-heard
	require.Equal(t, home, threadOf(t, base))
}

// OnThreadStart that fails ends the first call; the next one tries again.
func TestEndingsOfOnThreadStart(t *testing.T) {
	for _, e := range ends[1:] {
		t.Run(e.How, func(t *testing.T) {
			guard(t)
			times := 0
			ctx, _ := newContext(t, asyncsync.OnThreadStart(func() {
				if times++; times < 3 {
					e.Do()
				}
			}))
			for range 2 {
				e.CheckIs(t, outcomeOf(func() error { return to(ctx, func(context.Context) error { t.Error("runs"); return nil }) }))
			}
			require.NoError(t, to(ctx, func(context.Context) error { return nil }))
			require.NoError(t, to(ctx, func(context.Context) error { return nil }))
			require.Equal(t, 3, times)
		})
	}
}

// A start function that has returned is not run again because a later one fails. Without
// the later one no exit function runs.
func TestLaterOnThreadStartFails(t *testing.T) {
	for _, e := range ends[1:] {
		for _, heals := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/heals %v", e.How, heals), func(t *testing.T) {
				guard(t)
				first, exits, failures := 0, 0, 0
				ctx, tsc := newContext(t, asyncsync.OnThreadStart(func() { first++ }), asyncsync.OnThreadStart(func() {
					if failures++; failures < 3 || !heals {
						e.Do()
					}
				}), asyncsync.OnThreadExit(func() { exits++ }))
				for range 2 {
					e.CheckIs(t, outcomeOf(func() error { return to(ctx, neverRuns(t)) }))
				}
				want := 0
				if heals {
					want = 1
					require.NoError(t, to(ctx, on(nil0)))
				}
				require.NoError(t, tsc.Close())
				require.Equal(t, 1, first)
				require.Equal(t, want, exits)
			})
		}
	}
}

// Exit functions: each runs once, on the thread, whatever the others do; Close
// returns what went wrong and the thread is not used again.
func TestEndingsOfOnThreadExit(t *testing.T) {
	for _, e := range ends[1:] {
		t.Run(e.How, func(t *testing.T) {
			guard(t)
			pool := newPool(t, asyncsync.ThreadPoolConfig{})
			log := listen(t)
			var ran []string
			var where []place
			step := func(name string) func() {
				return func() {
					ran = append(ran, name)
					where = append(where, here())
					if name != "last" {
						e.Do()
					}
				}
			}
			critical := local.New[string](local.ThreadCritical(), local.OnThreadExit(func(v string) { step(v)() }))
			ctx, tsc := newContext(t, asyncsync.WithPool(pool),
				asyncsync.OnThreadExit(step("first")), asyncsync.OnThreadExit(step("second")), asyncsync.OnThreadExit(step("last")))
			require.NoError(t, to(ctx, func(context.Context) error { critical.Set("value"); return nil }))
			home := threadOf(t, ctx)
			err := tsc.Close()
			require.Error(t, err)
			require.Equal(t, []string{"value", "first", "second", "last"}, ran)
			require.Equal(t, []place{home, home, home, home}, where)
			require.NoError(t, tsc.Close(), "a second Close returns nil")
			if e.How == "panic" {
				require.ErrorContains(t, err, http.ErrAbortHandler.Error())
				require.Equal(t, 3, len(log.Told("panicked")))
				for _, i := range log.Told("panicked") {
					require.Contains(t, string(i.Stack), "testkit.Culprit")
				}
			} else {
				require.ErrorContains(t, err, "Goexit")
			}
			poll(t, func() string {
				if s := pool.Stats(); s.Threads != 0 {
					return fmt.Sprintf("the thread is still there: %+v", s)
				}
				return ""
			})
		})
	}
}

// The close function of a Handle: Close ends as it did.
func TestEndingsOfHandleClose(t *testing.T) {
	for _, e := range ends {
		t.Run(e.How, func(t *testing.T) {
			guard(t)
			exited := false
			log := listen(t)
			h, err := asyncsync.Open(context.Background(),
				func(context.Context) (int, error) { return 7, nil },
				func(int) error { return e.Do() },
				asyncsync.OnThreadExit(func() { exited = true }))
			require.NoError(t, err)
			o := outcomeOf(h.Close)
			if e.How == "return" {
				require.Equal(t, "return", o.How)
				require.ErrorIs(t, o.Err, testkit.ErrEnd)
			} else {
				e.CheckIs(t, o)
			}
			require.True(t, exited, "the thread's own exit functions run all the same")
			require.Equal(t, outcome{How: "return"}, outcomeOf(h.Close), "a second Close")
			require.ErrorIs(t, h.Do(context.Background(), func(context.Context, int) error { return nil }), asyncsync.ErrClosed)
			if e.How == "panic" {
				told := log.Told("panicked")
				require.Equal(t, 1, len(told))
				require.Contains(t, string(told[0].Stack), "testkit.Culprit")
			}
		})
	}
}

// Closed on its own thread, only hooks can hear what the close function comes
// to.
func TestHandleCloseFromInsidePanics(t *testing.T) {
	guard(t)
	heard := make(chan asyncsync.CallInfo, 10)
	t.Cleanup(asyncsync.SetHooks(asyncsync.Hooks{Panicked: func(i asyncsync.CallInfo) { heard <- i }}))
	closed := make(chan struct{})
	h, err := asyncsync.Open(context.Background(),
		func(context.Context) (int, error) { return 7, nil },
		func(int) error { culprit(); return nil },
		asyncsync.OnThreadExit(func() { close(closed) }))
	require.NoError(t, err)
	require.NoError(t, h.Do(context.Background(), func(context.Context, int) error { return h.Close() }))
	<-closed
	poll(t, func() string {
		if len(heard) == 0 {
			return "the Panicked hook has not heard of the panic in the close function"
		}
		return ""
	})
	require.Same(t, http.ErrAbortHandler, (<-heard).Panic)
}

// A failed Open leaves nothing behind: no thread, and the value is not closed.
func TestEndingsOfOpen(t *testing.T) {
	for _, e := range ends {
		t.Run(e.How, func(t *testing.T) {
			guard(t)
			pool := newPool(t, asyncsync.ThreadPoolConfig{MaxThreads: 1})
			o := outcomeOf(func() error {
				_, err := asyncsync.Open(context.Background(),
					func(context.Context) (int, error) { return 0, e.Do() },
					func(int) error { t.Error("there is nothing to close"); return nil },
					asyncsync.WithPool(pool))
				return err
			})
			e.CheckIs(t, o)
			require.Zero(t, pool.Stats().Threads-pool.Stats().Idle, "the thread is given back")
		})
	}
}

// Posted functions of a CurrentThreadExecutor on a thread of ours.
func TestEndingsOfPosted(t *testing.T) {
	for _, e := range ends[1:] {
		t.Run(e.How, func(t *testing.T) {
			guard(t)
			ctx, _ := newContext(t)
			log := listen(t)
			home := threadOf(t, ctx)
			var exec *asyncsync.CurrentThreadExecutor
			var ran []string
			done := make(chan struct{})
			close(done)
			o := outcomeOf(func() error {
				return to(ctx, func(context.Context) error {
					exec = asyncsync.NewCurrentThreadExecutor()
					exec.Post(func() { ran = append(ran, "one"); e.Do() })
					exec.Post(func() { ran = append(ran, "two") })
					return exec.RunUntil(done)
				})
			})
			e.CheckIs(t, o)
			require.Equal(t, []string{"one"}, ran)
			require.NoError(t, to(ctx, func(context.Context) error { return exec.RunUntil(done) }))
			require.Equal(t, []string{"one", "two"}, ran, "the rest stays for the next RunUntil")
			require.Equal(t, home, threadOf(t, ctx))
			if e.How == "panic" {
				told := log.Told("panicked")
				require.Equal(t, 1, len(told))
				require.Contains(t, string(told[0].Stack), "testkit.Culprit")
			}
		})
	}
}

// On a plain goroutine a posted panic is RunUntil's; the goroutine is usable
// afterwards.
func TestEndingsOfPostedOnPlainGoroutine(t *testing.T) {
	guard(t)
	log := listen(t)
	exec := asyncsync.NewCurrentThreadExecutor()
	done := make(chan struct{})
	close(done)
	ran := false
	exec.Post(func() { culprit() })
	exec.Post(func() { ran = true })
	require.Same(t, http.ErrAbortHandler, panicOf(func() { exec.RunUntil(done) }))
	require.False(t, ran)
	require.NoError(t, exec.RunUntil(done))
	require.True(t, ran)
	told := log.Told("panicked")
	require.Equal(t, 1, len(told), "the panic began in a function that the library ran")
	require.Contains(t, string(told[0].Stack), "testkit.Culprit")
}

// An insensitive call that is sent to a CurrentThreadExecutor ends its caller,
// not the executor's RunUntil, when it panics.
func TestEndingsOnCurrentThreadExecutor(t *testing.T) {
	guard(t)
	exec := asyncsync.NewCurrentThreadExecutor()
	done := make(chan struct{})
	r := start(func() error {
		defer close(done)
		return to(context.Background(), func(context.Context) error { culprit(); return nil },
			asyncsync.Insensitive(), asyncsync.WithExecutor(exec))
	})
	require.NoError(t, exec.RunUntil(done))
	ends[1].CheckIs(t, r.Wait())
}

// Goexit there ends the caller, and the goroutine that ran the function.
func TestGoexitOnCurrentThreadExecutor(t *testing.T) {
	guard(t)
	ready := make(chan *asyncsync.CurrentThreadExecutor)
	owner := start(func() error {
		exec := asyncsync.NewCurrentThreadExecutor()
		ready <- exec
		return exec.RunUntil(make(chan struct{}))
	})
	caller := outcomeOf(func() error {
		return to(context.Background(), func(context.Context) error { runtime.Goexit(); return nil },
			asyncsync.Insensitive(), asyncsync.WithExecutor(<-ready))
	})
	require.Equal(t, "goexit", caller.How)
	require.Equal(t, "goexit", owner.Wait().How)
}

// The Interrupt function: its panic is the caller's if the function returned;
// the function's own ending wins otherwise; its Goexit hurts nobody.
func TestEndingsOfInterrupt(t *testing.T) {
	for _, where := range []string{"queued", "inline", "insensitive", "async"} {
		for _, mine := range ends {
			for _, its := range ends {
				t.Run(where+"/function "+mine.How+"/interrupt "+its.How, func(t *testing.T) {
					guard(t)
					base, _ := newContext(t)
					home := threadOf(t, base)
					ctx, cancel := context.WithCancel(base)
					defer cancel()
					interrupted := make(chan struct{})
					again := sync.OnceFunc(func() { close(interrupted) })
					opt := asyncsync.Interrupt(func() {
						again()
						if its.How == "panic" {
							panic("the interrupt's own")
						}
						its.Do()
					})
					fn := func(context.Context) error {
						cancel()
						<-interrupted
						return mine.Do()
					}
					o := outcomeOf(func() error {
						switch where {
						case "queued":
							return to(ctx, fn, opt)
						case "inline":
							return to(ctx, func(ctx context.Context) error { return to(ctx, fn, opt) })
						case "insensitive":
							return to(ctx, fn, opt, asyncsync.Insensitive())
						default:
							return to(ctx, func(ctx context.Context) error { return from(ctx, fn, opt) })
						}
					})
					if mine.How == "return" && its.How == "panic" {
						require.Equal(t, outcome{How: "panic", Value: "the interrupt's own"}, o)
					} else {
						mine.CheckIs(t, o)
					}
					require.Equal(t, home, threadOf(t, base))
				})
			}
		}
	}
}

// A named limit. Goexit cannot be stopped, so a call that is served on top of a
// blocked function takes that function, and those below it, along; each caller
// is told so, and the thread survives. Here a stranger's call is served because
// the policy is All.
func TestGoexitOnTopOfBlockedFrames(t *testing.T) {
	guard(t)
	ctx, tsc := newContext(t, asyncsync.Serve(asyncsync.All))
	home := threadOf(t, ctx)

	leave := make(chan struct{})
	var lower, upper *runningFunc
	block := func(blocked chan struct{}) func(context.Context) error {
		return func(ctx context.Context) error {
			return from(ctx, func(context.Context) error {
				close(blocked)
				<-leave
				return nil
			})
		}
	}
	lowerBlocked, upperBlocked := make(chan struct{}), make(chan struct{})
	lower = start(func() error { return to(ctx, block(lowerBlocked)) })
	<-lowerBlocked
	upper = start(func() error { return to(ctx, block(upperBlocked)) })
	<-upperBlocked

	stranger := start(func() error { return to(ctx, func(context.Context) error { runtime.Goexit(); return nil }) })
	require.Equal(t, "goexit", stranger.Wait().How)
	close(leave)
	require.Equal(t, "goexit", upper.Wait().How)
	require.Equal(t, "goexit", lower.Wait().How)
	require.Equal(t, home, threadOf(t, ctx))
	require.NoError(t, tsc.Close())
}

// The same where a function below waits for a call to another thread.
func TestGoexitOnTopOfCallToAnotherThread(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t, asyncsync.Serve(asyncsync.All))
	other, _ := newContext(t)
	home, away := threadOf(t, ctx), threadOf(t, other)
	begun, leave := make(chan struct{}), make(chan struct{})
	lower := start(func() error {
		return to(ctx, func(context.Context) error {
			return to(other, func(context.Context) error { close(begun); <-leave; return nil })
		})
	})
	<-begun
	o := outcomeOf(func() error { return to(ctx, func(context.Context) error { runtime.Goexit(); return nil }) })
	require.Equal(t, "goexit", o.How)
	close(leave)
	require.Equal(t, "goexit", lower.Wait().How)
	require.Equal(t, home, threadOf(t, ctx))
	require.Equal(t, away, threadOf(t, other))
}

// Deferred functions of what a Goexit unwinds may use the library.
func TestDeferredCallsDuringGoexit(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t)
	other, _ := newContext(t)
	home := threadOf(t, ctx)
	var got []string
	o := outcomeOf(func() error {
		return to(ctx, func(ctx context.Context) error {
			defer func() {
				from(ctx, func(ctx context.Context) error {
					return to(ctx, func(context.Context) error { got = append(got, "below"); return nil })
				})
				to(other, func(context.Context) error { got = append(got, "other"); return nil })
				to(ctx, func(context.Context) error { got = append(got, "inline"); return nil })
			}()
			runtime.Goexit()
			return nil
		})
	})
	require.Equal(t, "goexit", o.How)
	require.Equal(t, []string{"below", "other", "inline"}, got)
	require.Equal(t, home, threadOf(t, ctx))
}

// t.FailNow is the Goexit that people meet: many at once, from all sides.
func TestEndingsUnderLoad(t *testing.T) {
	guard(t)
	ctx, tsc := newContext(t)
	home := threadOf(t, ctx)
	var inside exclusion
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 30 {
				e := ends[(i+j)%len(ends)]
				o := outcomeOf(func() error {
					_, err := through(ctx, 1+2*(j%2), func(ctx context.Context) (struct{}, error) {
						return struct{}{}, to(ctx, func(context.Context) error {
							inside.run(nil)
							return e.Do()
						})
					})
					return err
				})
				if o.How != e.How {
					t.Errorf("%s became %+v", e.How, o)
				}
			}
		})
	}
	all.Wait()
	require.Equal(t, home, threadOf(t, ctx))
	require.NoError(t, tsc.Close())
	require.Equal(t, 240, inside.times)
	require.Equal(t, 1, inside.most)
}
