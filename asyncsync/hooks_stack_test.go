package asyncsync_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/local"
	"asyncsync.dev/task"
)

// A roll notes who was told, in order.
type roll struct {
	mu    sync.Mutex
	names []string
}

func (r *roll) hooks(name string) asyncsync.Hooks {
	return asyncsync.Hooks{Queued: func(asyncsync.CallInfo) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.names = append(r.names, name)
	}}
}

// take returns who was told since it was last called.
func (r *roll) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := r.names
	r.names = nil
	return names
}

// Hooks that are added stand beside each other, and are removed in any order,
// each once.
func TestHooksAreAdded(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t)
	var r roll
	told := func() []string { threadOf(t, ctx); return r.take() }
	a := asyncsync.AddHooks(r.hooks("a"))
	require.Equal(t, []string{"a"}, told())
	b := asyncsync.AddHooks(r.hooks("b"))
	c := asyncsync.AddHooks(r.hooks("c"))
	again := asyncsync.AddHooks(r.hooks("a"))
	require.Equal(t, []string{"a", "b", "c", "a"}, told())
	b()
	require.Equal(t, []string{"a", "c", "a"}, told())
	a()
	require.Equal(t, []string{"c", "a"}, told())
	a()
	b()
	require.Equal(t, []string{"c", "a"}, told(), "a second removal takes no other")
	again()
	c()
	require.Empty(t, told())
	require.NotPanics(t, func() { a(); b(); c(); again() })
}

// Those of SetHooks replace each other, in whatever order they are restored, and
// never those that were added: what was restored does not come back.
func TestHooksRestoredOutOfOrder(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t)
	var r roll
	told := func() []string { threadOf(t, ctx); return r.take() }
	first := asyncsync.SetHooks(r.hooks("first"))
	remove := asyncsync.AddHooks(r.hooks("added"))
	second := asyncsync.SetHooks(r.hooks("second"))
	third := asyncsync.SetHooks(r.hooks("third"))
	require.Equal(t, []string{"added", "third"}, told())
	second()
	require.Equal(t, []string{"added", "third"}, told())
	third()
	require.Equal(t, []string{"first", "added"}, told(), "not the second, which was restored before")
	first()
	require.Equal(t, []string{"added"}, told())
	first()
	third()
	second()
	require.Equal(t, []string{"added"}, told())
	quiet := asyncsync.SetHooks(asyncsync.Hooks{})
	require.Equal(t, []string{"added"}, told())
	remove()
	quiet()
	require.Empty(t, told())
}

// Any order, against a slow model.
func TestHooksInAnyOrder(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t)
	var r roll
	type entry struct {
		name string
		set  bool
		undo func()
	}
	var entries, gone []entry
	for i := range 300 {
		switch {
		case rand.IntN(2) == 0 && len(entries) > 0:
			at := rand.IntN(len(entries))
			entries[at].undo()
			gone = append(gone, entries[at])
			entries = slices.Delete(entries, at, at+1)
		case rand.IntN(4) == 0 && len(gone) > 0:
			gone[rand.IntN(len(gone))].undo()
		default:
			e := entry{name: fmt.Sprint(i), set: rand.IntN(2) == 0}
			if e.set {
				e.undo = asyncsync.SetHooks(r.hooks(e.name))
			} else {
				e.undo = asyncsync.AddHooks(r.hooks(e.name))
			}
			entries = append(entries, e)
		}
		last := -1
		for at, e := range entries {
			if e.set {
				last = at
			}
		}
		var want []string
		for at, e := range entries {
			if !e.set || at == last {
				want = append(want, e.name)
			}
		}
		threadOf(t, ctx)
		require.Equal(t, want, r.take())
	}
	for _, e := range entries {
		e.undo()
	}
	threadOf(t, ctx)
	require.Empty(t, r.take())
}

// Libraries add and remove theirs while others call: each call is told to the
// hooks that there were when it was made, or to none of a pair.
func TestHooksAreAddedMeanwhile(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 200 {
				var queued, ended atomic.Int32
				remove := asyncsync.AddHooks(asyncsync.Hooks{
					Queued: func(asyncsync.CallInfo) { queued.Add(1) },
					Ended:  func(asyncsync.CallInfo) { ended.Add(1) },
				})
				if err := to(ctx, on(nil0)); err != nil {
					t.Error(err)
				}
				remove()
				if queued.Load() == 0 {
					t.Error("added, and not told")
				}
			}
		})
	}
	all.Wait()
}

// A context's hooks are told of its calls, in whatever way they are made, of
// those of contexts inside, and of nobody else's.
func TestHooksOfContext(t *testing.T) {
	guard(t)
	var r roll
	outer, _ := newContext(t, asyncsync.WithHooks(r.hooks("outer")), asyncsync.WithHooks(r.hooks("outer too")))
	inner, tsc := asyncsync.NewThreadSensitiveContext(outer, asyncsync.WithHooks(r.hooks("inner")))
	defer tsc.Close()
	plain, ptsc := asyncsync.NewThreadSensitiveContext(inner)
	defer ptsc.Close()
	other, _ := newContext(t)
	unpinned, _ := newContext(t, asyncsync.Unpinned(), asyncsync.WithHooks(r.hooks("unpinned")))
	ways := map[string]func(ctx context.Context) error{
		"queued": func(ctx context.Context) error { return to(ctx, on(nil0)) },
		"inline": func(ctx context.Context) error {
			return to(ctx, func(ctx context.Context) error { r.take(); return to(ctx, on(nil0)) })
		},
		"wrapper inline": func(ctx context.Context) error {
			w := asyncsync.SyncToAsync(func(context.Context, int) (int, error) { return 0, nil })
			return to(ctx, func(ctx context.Context) error { r.take(); _, err := w(ctx, 0); return err })
		},
		"async": func(ctx context.Context) error {
			return to(ctx, func(ctx context.Context) error { r.take(); return from(ctx, on(nil0)) })
		},
		"same thread": func(ctx context.Context) error {
			return to(ctx, func(ctx context.Context) error { r.take(); return from(ctx, on(nil0), asyncsync.SameThread()) })
		},
		"insensitive": func(ctx context.Context) error { return to(ctx, on(nil0), asyncsync.Insensitive()) },
		"task": func(ctx context.Context) error {
			_, err := task.Go(ctx, func(context.Context) (int, error) { return 0, nil }).Wait(ctx)
			return err
		},
		"Go": func(ctx context.Context) error { return waitFor(goTo(ctx, on(nil0))) },
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			for _, c := range []struct {
				ctx  context.Context
				want []string
			}{
				{outer, []string{"outer", "outer too"}},
				{inner, []string{"outer", "outer too", "inner"}},
				{plain, []string{"outer", "outer too", "inner"}},
				{other, nil},
				{context.Background(), nil},
				{unpinned, []string{"unpinned"}},
				{asyncsync.Detach(outer), nil},
			} {
				r.take()
				require.NoError(t, way(c.ctx))
				require.Equal(t, c.want, r.take())
			}
		})
	}
	r.take()
	remove := asyncsync.AddHooks(r.hooks("process"))
	defer remove()
	require.NoError(t, to(outer, on(nil0)))
	require.Equal(t, []string{"process", "outer", "outer too"}, r.take())
	require.NoError(t, to(outer, on(nil0), asyncsync.On(tsc)))
	require.Equal(t, []string{"process", "outer", "outer too", "inner"}, r.take())
}

// All functions of a context's hooks, with a Handle: that calls were refused, have
// panicked, and come to their end though they were abandoned; its failing exit
// functions too.
func TestHooksOfHandle(t *testing.T) {
	guard(t)
	var log libkit.HookLog
	hooks, heard := log.Hooks(), make(chan struct{}, 1)
	abandoned := hooks.Abandoned
	hooks.Abandoned = func(i asyncsync.CallInfo) {
		abandoned(i)
		heard <- struct{}{}
	}
	h, err := asyncsync.Open(context.Background(), openTouchy, func(*touchy) error { panic("closing") },
		asyncsync.WithName("hooked"), asyncsync.QueueLimit(1), asyncsync.WithHooks(hooks))
	require.NoError(t, err)
	require.Equal(t, "hooked", log.Told("started")[0].Context)
	outcomeOf(func() error {
		return h.Do(context.Background(), func(context.Context, *touchy) error { panic("oh") }, asyncsync.Named("panics"))
	})
	require.Equal(t, "oh", log.Named("panicked", "panics")[0].Panic)
	require.Equal(t, "oh", log.Named("ended", "panics")[0].Panic)

	ctx, cancel := context.WithCancelCause(context.Background())
	leave := make(chan struct{})
	err = h.Do(ctx, func(context.Context, *touchy) error { cancel(errCause); <-leave; return errOwn }, asyncsync.Abandon(), asyncsync.Named("abandoned"))
	require.ErrorIs(t, err, asyncsync.ErrAbandoned)
	queued := start(func() error { return h.Do(context.Background(), func(context.Context, *touchy) error { return nil }) })
	poll(t, func() string {
		if log.Count("queued") != 4 || asyncsync.ReadStats().Queued == 0 {
			return "not queued"
		}
		return ""
	})
	require.ErrorIs(t, h.Do(context.Background(), func(context.Context, *touchy) error { return nil }, asyncsync.Named("refused")), asyncsync.ErrQueueFull)
	require.ErrorIs(t, log.Named("ended", "refused")[0].Err, asyncsync.ErrQueueFull)
	close(leave)
	<-heard
	require.Same(t, errOwn, log.Named("abandoned", "abandoned")[0].Err)
	require.NoError(t, queued.Wait().Err)
	require.Equal(t, "panic", outcomeOf(h.Close).How)
	require.Len(t, log.Told("panicked"), 2)
	require.Equal(t, "closing", log.Told("panicked")[1].Panic)
}

// A failing exit function of a thread-critical value is told to the hooks of the
// context whose thread it is.
func TestHooksOfContextHearOfItsThreadsExit(t *testing.T) {
	guard(t)
	critical := local.New[int](local.ThreadCritical(), local.OnThreadExit(func(int) { panic("exit") }))
	var heard atomic.Int32
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithHooks(asyncsync.Hooks{Panicked: func(asyncsync.CallInfo) { heard.Add(1) }}))
	require.NoError(t, to(ctx, func(context.Context) error { critical.Set(1); return nil }))
	require.Error(t, tsc.Close())
	require.Equal(t, int32(1), heard.Load())
}

// Of several hooks each is told, in order, also after one that does not return.
// The call ends as the last of these has.
func TestEndingsOfSeveralHooks(t *testing.T) {
	when := map[string]func(func(asyncsync.CallInfo)) asyncsync.Hooks{
		"queued":  func(f func(asyncsync.CallInfo)) asyncsync.Hooks { return asyncsync.Hooks{Queued: f} },
		"started": func(f func(asyncsync.CallInfo)) asyncsync.Hooks { return asyncsync.Hooks{Started: f} },
		"ended":   func(f func(asyncsync.CallInfo)) asyncsync.Hooks { return asyncsync.Hooks{Ended: f} },
	}
	where := map[string]func(ctx context.Context) error{
		"queued": func(ctx context.Context) error { return to(ctx, on(nil0), asyncsync.Named("victim")) },
		"inline": func(ctx context.Context) error {
			return to(ctx, func(ctx context.Context) error { return to(ctx, on(nil0), asyncsync.Named("victim")) })
		},
		"async": func(ctx context.Context) error {
			return to(ctx, func(ctx context.Context) error { return from(ctx, on(nil0), asyncsync.Named("victim")) })
		},
		"insensitive": func(ctx context.Context) error {
			return to(ctx, on(nil0), asyncsync.Insensitive(), asyncsync.Named("victim"))
		},
		"Go": func(ctx context.Context) error { return waitFor(goTo(ctx, on(nil0), asyncsync.Named("victim"))) },
	}
	for w, hooks := range when {
		for p, call := range where {
			for _, first := range ends {
				for _, second := range ends {
					t.Run(fmt.Sprintf("%s/%s/%s and %s", w, p, first.How, second.How), func(t *testing.T) {
						guard(t)
						var told []string
						hook := func(name string, e testkit.End) asyncsync.Hooks {
							return hooks(func(i asyncsync.CallInfo) {
								if i.Name == "victim" {
									told = append(told, name)
									e.Do()
								}
							})
						}
						defer asyncsync.AddHooks(hook("first", first))()
						defer asyncsync.AddHooks(hook("second", second))()
						ctx, _ := newContext(t, asyncsync.WithHooks(hook("context's", ends[0])))
						home := threadOf(t, ctx)
						o := outcomeOf(func() error { return call(ctx) })
						require.Equal(t, []string{"first", "second", "context's"}, told)
						want := second
						if want.How == "return" {
							want = first
						}
						if want.How == "return" {
							require.Equal(t, outcome{How: "return"}, o)
						} else if first.How != "goexit" {
							want.CheckIs(t, o)
						} else {
							require.NotEqual(t, "return", o.How)
						}
						if w != "queued" || first.How == "return" && second.How == "return" {
							require.Equal(t, home, threadOf(t, ctx), "the thread is there")
						}
					})
				}
			}
		}
	}
}

// Without hooks an inline call of a wrapper allocates nothing; with the hooks of
// another context neither.
func TestHooksOfOthersCostNothing(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	guard(t)
	var r roll
	hooked, _ := newContext(t, asyncsync.WithHooks(r.hooks("x")))
	threadOf(t, hooked)
	ctx, _ := newContext(t)
	w := asyncsync.SyncToAsync(func(context.Context, int) (int, error) { return 0, nil })
	require.NoError(t, to(ctx, func(ctx context.Context) error {
		require.Zero(t, testing.AllocsPerRun(100, func() { w(ctx, 0) }))
		return nil
	}))
	require.Zero(t, testing.AllocsPerRun(100, func() { w(ctx, 0) }))
}
