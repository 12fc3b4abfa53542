package asyncsync_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// callKey is what the hooks of these tests give a call: its name.
type callKey struct{}

// givingNames are hooks that give each call its name.
func givingNames() asyncsync.Hooks {
	return asyncsync.Hooks{Values: func(i asyncsync.CallInfo) context.Context {
		return context.WithValue(context.Background(), callKey{}, i.Name)
	}}
}

func given(ctx context.Context) any { return ctx.Value(callKey{}) }

// The function has the values, whatever way it takes, and so has all that hooks
// are told of the call.
func TestHooksGiveValues(t *testing.T) {
	type way func(ctx context.Context, fn func(context.Context) error) error
	named := asyncsync.Named("this")
	onThread := func(w way) way {
		return func(ctx context.Context, fn func(context.Context) error) error {
			return to(ctx, func(ctx context.Context) error { return w(ctx, fn) })
		}
	}
	direct := way(func(ctx context.Context, fn func(context.Context) error) error { return to(ctx, fn, named) })
	ways := map[string]way{
		"queued": direct,
		"inline": onThread(direct),
		"default thread": func(_ context.Context, fn func(context.Context) error) error {
			return to(context.Background(), fn, named)
		},
		"foreign ctx": func(ctx context.Context, fn func(context.Context) error) error {
			type other struct{}
			return to(context.WithValue(ctx, other{}, 1), fn, named)
		},
		"another thread": onThread(func(ctx context.Context, fn func(context.Context) error) error {
			_, other := asyncsync.NewThreadSensitiveContext(ctx)
			defer other.Close()
			return to(ctx, fn, named, asyncsync.On(other))
		}),
		"async": onThread(func(ctx context.Context, fn func(context.Context) error) error { return from(ctx, fn, named) }),
		"async on the thread": onThread(func(ctx context.Context, fn func(context.Context) error) error {
			return from(ctx, fn, named, asyncsync.SameThread())
		}),
		"async from async": func(ctx context.Context, fn func(context.Context) error) error { return from(ctx, fn, named) },
		"adopted": func(_ context.Context, fn func(context.Context) error) error {
			return from(context.Background(), fn, named)
		},
		"insensitive": func(ctx context.Context, fn func(context.Context) error) error {
			return to(ctx, fn, named, asyncsync.Insensitive())
		},
		"insensitive from a thread": onThread(func(ctx context.Context, fn func(context.Context) error) error {
			return to(ctx, fn, named, asyncsync.Insensitive())
		}),
		"task": func(ctx context.Context, fn func(context.Context) error) error {
			_, err := task.Go(ctx, func(ctx context.Context) (int, error) { return 0, fn(ctx) }, task.Named("this")).Wait(ctx)
			return err
		},
		"task on a thread": func(ctx context.Context, fn func(context.Context) error) error {
			_, err := asyncsync.Go(ctx, func(ctx context.Context) (int, error) { return 0, fn(ctx) }, named).Wait(ctx)
			return err
		},
		"loop": func(ctx context.Context, fn func(context.Context) error) error {
			return onThreadLoop(ctx, func(ctx context.Context, l loop.Backend) error {
				return to(ctx, func(ctx context.Context) error { return from(ctx, fn, named, asyncsync.WithLoop(l)) })
			})
		},
		"task of a loop": func(ctx context.Context, fn func(context.Context) error) error {
			return onThreadLoop(ctx, func(ctx context.Context, l loop.Backend) error {
				_, err := task.Go(ctx, func(ctx context.Context) (int, error) { return 0, fn(ctx) }, task.On(l), task.Named("this")).Wait(ctx)
				return err
			})
		},
	}
	for _, unpinned := range []bool{false, true} {
		for name, w := range ways {
			if unpinned {
				name += ", unpinned"
			}
			t.Run(name, func(t *testing.T) {
				guard(t)
				var opts []asyncsync.ContextOption
				if unpinned {
					opts = append(opts, asyncsync.Unpinned())
				}
				ctx, tsc := newContext(t, opts...)
				defer asyncsync.AddHooks(givingNames())()
				log := listen(t)
				require.NoError(t, w(ctx, func(fctx context.Context) error {
					require.Equal(t, "this", given(fctx))
					// What is below has its own, and what is below a layer of the user's.
					type other struct{}
					for _, fctx := range []context.Context{fctx, context.WithValue(fctx, other{}, 1)} {
						below := to(fctx, func(ctx context.Context) error {
							require.Equal(t, "below", given(ctx))
							return nil
						}, asyncsync.On(tsc), asyncsync.Named("below"))
						require.NoError(t, below)
					}
					require.Equal(t, "this", given(fctx))
					return nil
				}))
				id := log.Named("queued", "this")[0].ID
				require.NotZero(t, id)
				for _, what := range []string{"queued", "started", "ended"} {
					told := log.Named(what, "this")
					require.Len(t, told, 1, what)
					require.Equal(t, "this", given(told[0].Ctx), what)
					require.Equal(t, id, told[0].ID, what)
				}
				ids := map[uint64]bool{}
				for _, i := range log.Told("queued") {
					require.False(t, ids[i.ID], "an id of two calls")
					ids[i.ID] = true
				}
			})
		}
	}
}

// onThreadLoop calls fn with a loop on a thread, which it stops.
func onThreadLoop(ctx context.Context, fn func(context.Context, loop.Backend) error) error {
	l := loop.NewThread()
	stopped := make(chan error, 1)
	run, stop := context.WithCancel(context.Background())
	up := make(chan struct{})
	go func() {
		_, err := loop.Run(run, l, func(ctx context.Context) (int, error) {
			close(up)
			return 0, task.Sleep(ctx, 1<<62)
		})
		stopped <- err
	}()
	<-up
	err := fn(ctx, l)
	stop()
	<-stopped
	return err
}

// So it is however the function ends, and if it does not run.
func TestHooksGiveValuesToTheEnd(t *testing.T) {
	for _, e := range ends {
		t.Run(e.How, func(t *testing.T) {
			guard(t)
			ctx, _ := newContext(t)
			defer asyncsync.AddHooks(givingNames())()
			log := listen(t)
			e.CheckIs(t, outcomeOf(func() error { return to(ctx, on(e.Do), asyncsync.Named("this")) }))
			told := log.Named("ended", "this")
			told = append(told, log.Told("panicked")...)
			for _, i := range told {
				require.Equal(t, "this", given(i.Ctx))
				require.Equal(t, log.Named("queued", "this")[0].ID, i.ID)
				require.True(t, i.Begun)
			}
		})
	}
	for name, fn := range map[string]func(ctx context.Context) error{
		"a call": func(ctx context.Context) error { return to(ctx, neverRuns(t), asyncsync.Named("this")) },
		"a task": func(ctx context.Context) error {
			_, err := asyncsync.Go(ctx, func(context.Context) (int, error) { return 0, errors.New("ran") }, asyncsync.Named("this")).Wait(context.Background())
			return err
		},
	} {
		t.Run(name+" that is taken out", func(t *testing.T) {
			guard(t)
			ctx, tsc := newContext(t)
			defer asyncsync.AddHooks(givingNames())()
			log := listen(t)
			release, held := occupy(ctx)
			cctx, cancel := context.WithCancelCause(ctx)
			r := start(func() error { return fn(cctx) })
			awaitQueued(t, tsc, 1)
			cancel(errCause)
			require.ErrorIs(t, r.Wait().Err, errCause)
			release()
			require.NoError(t, held.Wait().Err)
			i := log.Named("ended", "this")[0]
			require.False(t, i.Begun)
			require.Equal(t, "this", given(i.Ctx))
			require.Equal(t, log.Named("queued", "this")[0].ID, i.ID)
		})
	}
	t.Run("abandoned", func(t *testing.T) {
		guard(t)
		ctx, _ := newContext(t)
		told := make(chan asyncsync.CallInfo, 1)
		h := givingNames()
		h.Abandoned = func(i asyncsync.CallInfo) { told <- i }
		defer asyncsync.AddHooks(h)()
		log := listen(t)
		cctx, cancel := context.WithCancel(ctx)
		leave := make(chan struct{})
		err := to(cctx, func(context.Context) error { cancel(); <-leave; return nil }, asyncsync.Abandon(), asyncsync.Named("this"))
		require.ErrorIs(t, err, asyncsync.ErrAbandoned)
		close(leave)
		i := <-told
		require.Equal(t, "this", given(i.Ctx))
		require.Equal(t, log.Named("queued", "this")[0].ID, i.ID)
	})
}

// What one gives does not hide what others give; what the same ones have given
// further out it replaces, and without it stays. The user's own, in between, wins.
func TestHooksGiveValuesBesideOthers(t *testing.T) {
	guard(t)
	type key int
	giving := func(k key, not string) asyncsync.Hooks {
		return asyncsync.Hooks{Values: func(i asyncsync.CallInfo) context.Context {
			if i.Name == not {
				return nil
			}
			return context.WithValue(context.Background(), k, i.Name)
		}}
	}
	ctx, _ := newContext(t, asyncsync.WithHooks(giving(2, "quiet for 2")))
	defer asyncsync.AddHooks(giving(1, "quiet for 1"))()
	values := func(ctx context.Context) [2]any { return [2]any{ctx.Value(key(1)), ctx.Value(key(2))} }
	call := func(ctx context.Context, name string, fn func(context.Context)) {
		require.NoError(t, to(ctx, func(ctx context.Context) error { fn(ctx); return nil }, asyncsync.Named(name)))
	}
	call(ctx, "a", func(ctx context.Context) {
		require.Equal(t, [2]any{"a", "a"}, values(ctx))
		call(ctx, "quiet for 1", func(ctx context.Context) {
			require.Equal(t, [2]any{"a", "quiet for 1"}, values(ctx))
			call(context.WithValue(ctx, key(1), "mine"), "quiet for 1", func(ctx context.Context) {
				require.Equal(t, [2]any{"mine", "quiet for 1"}, values(ctx))
			})
		})
		call(ctx, "quiet for 2", func(ctx context.Context) {
			require.Equal(t, [2]any{"quiet for 2", "a"}, values(ctx))
		})
	})
}

// A counting ctx counts how often it is asked.
type counting struct {
	context.Context
	asked *atomic.Int64
}

func (c counting) Value(key any) any {
	c.asked.Add(1)
	return c.Context.Value(key)
}

// However deep the nesting, a value is looked for among those of the innermost call
// only: the contexts that hooks give do not pile up.
func TestHooksValuesDoNotPileUp(t *testing.T) {
	guard(t)
	var asked atomic.Int64
	defer asyncsync.AddHooks(asyncsync.Hooks{Values: func(asyncsync.CallInfo) context.Context {
		return counting{context.Background(), &asked}
	}})()
	ctx, _ := newContext(t)
	type none struct{}
	for _, depth := range []int{1, 50} {
		_, err := through(ctx, depth, func(ctx context.Context) (int, error) {
			asked.Store(0)
			ctx.Value(none{})
			return 0, nil
		})
		require.NoError(t, err)
		require.EqualValues(t, 1, asked.Load(), "depth %d", depth)
	}
}

// Values do not change when a function is cancelled, and why: what starts with the
// ctx of a task that is over goes on, detached or not, and keeps the values; what
// starts below one that is cancelled is cancelled, with the cause.
func TestHooksValuesAndCancellation(t *testing.T) {
	for _, hooked := range []bool{false, true} {
		t.Run(map[bool]string{false: "without", true: "with"}[hooked], func(t *testing.T) {
			guard(t)
			ctx, _ := newContext(t)
			if hooked {
				h := givingNames()
				gives := h.Values
				h.Values = func(i asyncsync.CallInfo) context.Context {
					if i.Name == "child" {
						return nil
					}
					return gives(i)
				}
				defer asyncsync.AddHooks(h)()
			}
			var left, below, detached context.Context
			var running *task.Task[int]
			release := make(chan struct{})
			tk := task.Go(ctx, func(ctx context.Context) (int, error) {
				left, detached = ctx, asyncsync.Detach(ctx)
				// A task that outlives its parent is not cancelled by its end.
				running = task.Go(ctx, func(ctx context.Context) (int, error) {
					<-release
					if hooked && given(ctx) != "this" {
						return 0, errors.New("the values have not reached the child")
					}
					return 0, ctx.Err()
				}, task.Named("child"))
				return 0, to(ctx, func(ctx context.Context) error { below = ctx; return nil }, asyncsync.Named("below"))
			}, task.Named("this"))
			_, err := tk.Wait(ctx)
			require.NoError(t, err)
			require.ErrorIs(t, left.Err(), context.Canceled, "the child does not keep what is above it")
			close(release)
			_, err = running.Wait(ctx)
			require.NoError(t, err)
			for _, c := range []struct {
				ctx  context.Context
				name string
			}{{left, "this"}, {below, "below"}, {asyncsync.Detach(left), "this"}, {asyncsync.Detach(below), "below"}, {detached, "this"}} {
				require.NoError(t, to(c.ctx, func(ctx context.Context) error { return ctx.Err() }))
				_, err = task.Go(c.ctx, func(ctx context.Context) (int, error) { return 0, ctx.Err() }).Wait(ctx)
				require.NoError(t, err)
				if hooked {
					require.Equal(t, c.name, given(c.ctx))
				}
			}

			for _, derive := range []bool{false, true} {
				started := make(chan struct{})
				parent := task.Go(ctx, func(ctx context.Context) (int, error) {
					if derive {
						type other struct{}
						ctx = context.WithValue(ctx, other{}, 1)
					}
					child := task.Go(ctx, func(ctx context.Context) (int, error) {
						close(started)
						<-ctx.Done()
						return 0, context.Cause(ctx)
					})
					return child.Wait(context.Background())
				})
				<-started
				parent.Cancel(errCause)
				_, err = parent.Wait(ctx)
				require.ErrorIs(t, err, errCause)
			}
		})
	}
}

// After a parent has ended, and its layer has gone, what hangs from above it ends
// with that, and for its cause.
func TestHooksValuesAndTheCauseFromAbove(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t)
	defer asyncsync.AddHooks(givingNames())()
	above, cancel := context.WithCancelCause(ctx)
	var left context.Context
	_, err := task.Go(above, func(ctx context.Context) (int, error) { left = ctx; return 0, nil }).Wait(ctx)
	require.NoError(t, err)
	started := make(chan struct{})
	late := task.Go(left, func(ctx context.Context) (int, error) {
		close(started)
		<-ctx.Done()
		return 0, context.Cause(ctx)
	})
	<-started
	cancel(errCause)
	_, err = late.Wait(ctx)
	require.ErrorIs(t, err, errCause)
}

// A ctx made from that of the call, or one that can end, is a mistake.
func TestHooksValuesFromTheCallPanic(t *testing.T) {
	ending, cancel := context.WithCancel(context.Background())
	defer cancel()
	for name, values := range map[string]func(asyncsync.CallInfo) context.Context{
		"of the call": func(i asyncsync.CallInfo) context.Context { return context.WithValue(i.Ctx, callKey{}, 1) },
		"that ends":   func(asyncsync.CallInfo) context.Context { return ending },
	} {
		t.Run(name, func(t *testing.T) {
			guard(t)
			ctx, _ := newContext(t, asyncsync.WithHooks(asyncsync.Hooks{Values: values}))
			require.Contains(t, panicOf(func() { to(ctx, neverRuns(t)) }), "context.Background()")
			require.NoError(t, to(context.Background(), on(nil0)), "others are not concerned")
		})
	}
}

// A hook that does not return ends the call that it was asked for, and the rest are
// asked.
func TestHooksValuesEnd(t *testing.T) {
	for _, e := range ends[1:] {
		t.Run(e.How, func(t *testing.T) {
			guard(t)
			ctx, _ := newContext(t)
			var mu sync.Mutex
			asked := 0
			fails := asyncsync.AddHooks(asyncsync.Hooks{Values: func(asyncsync.CallInfo) context.Context { e.Do(); return nil }})
			counts := asyncsync.AddHooks(asyncsync.Hooks{Values: func(asyncsync.CallInfo) context.Context {
				mu.Lock()
				defer mu.Unlock()
				asked++
				return nil
			}})
			e.CheckIs(t, outcomeOf(func() error { return to(ctx, neverRuns(t)) }))
			fails()
			counts()
			require.Equal(t, 1, asked)
			require.NoError(t, to(ctx, on(nil0)), "the thread is as it was")
		})
	}
}
