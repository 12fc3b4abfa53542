package core_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/petermattis/goid"
	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/task"
)

var (
	to   = libkit.To
	from = libkit.From
)

func ok(context.Context) error { return nil }

func spawn(fn func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	return done
}

// thread returns what the graph says of the thread of that name.
func thread(t *testing.T, g core.Graph, name string) core.ThreadState {
	t.Helper()
	for _, s := range g.Threads {
		if s.Name == name {
			return s
		}
	}
	require.Fail(t, "no thread "+name, "%+v", g)
	return core.ThreadState{}
}

// inBubble runs f with a context of the name "a".
func inBubble(t *testing.T, f func(t *testing.T, ctx context.Context, a *asyncsync.ThreadSensitiveContext), opts ...asyncsync.ContextOption) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), append(opts, asyncsync.WithName("a"))...)
		defer tsc.Close()
		f(t, ctx, tsc)
	})
}

// Who waits says for what, on which goroutine, and how long it has slept.
func TestGraphWaits(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		_, b := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("b"))
		defer b.Close()
		gate := make(chan struct{})
		var caller, async, child int64
		done := spawn(func() error {
			caller = goid.Get()
			return to(ctx, func(in context.Context) error {
				// Until the caller sleeps. Else it may be asked to run the async function
				// before that, and never sleep.
				time.Sleep(time.Millisecond)
				return from(in, func(in context.Context) error {
					async = goid.Get()
					_, err := task.Go(in, func(in context.Context) (int, error) {
						child = goid.Get()
						return 0, to(in, func(context.Context) error { <-gate; return nil }, asyncsync.On(b), asyncsync.Named("leaf"))
					}, task.Named("child")).Wait(in)
					return err
				}, asyncsync.Named("async"))
			}, asyncsync.Named("bottom"))
		})
		synctest.Wait()
		time.Sleep(time.Second + time.Millisecond)
		g := core.TakeGraph()
		a := thread(t, g, "a")
		require.Len(t, a.Stack, 1)
		bottom := a.Stack[0]
		require.Equal(t, "bottom", bottom.Name)
		require.Equal(t, caller, bottom.Caller)
		require.Equal(t, time.Second+time.Millisecond, bottom.Waited)
		require.Equal(t, &core.WaitState{Kind: "async", For: "async", Goroutine: async, Age: time.Second, Function: 1}, bottom.Wait)
		tb := thread(t, g, "b")
		require.Len(t, tb.Stack, 1)
		require.Equal(t, child, tb.Stack[0].Caller)
		require.Nil(t, tb.Stack[0].Wait)
		require.Equal(t, []core.GoroutineState{
			{Goroutine: async, Function: 1, Name: "async", Wait: core.WaitState{Kind: "task", For: "child", Goroutine: child, Age: time.Second, Function: 2}},
			{Goroutine: child, Function: 2, Name: "child", Wait: core.WaitState{
				Kind: "call", For: "leaf", Thread: tb.ID, Seq: tb.Stack[0].Seq, Goroutine: tb.Goroutine, Age: time.Second}},
		}, ordered(g.Goroutines, async))
		close(gate)
		require.NoError(t, <-done)
	})
}

// ordered puts the one with the goroutine first in front of two.
func ordered(s []core.GoroutineState, first int64) []core.GoroutineState {
	if len(s) == 2 && s[0].Goroutine != first {
		s[0], s[1] = s[1], s[0]
	}
	return s
}

// A queue is named in order of arrival, with who waits and how long.
func TestGraphQueue(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, tsc *asyncsync.ThreadSensitiveContext) {
		gate := make(chan struct{})
		var all []<-chan error
		all = append(all, spawn(func() error { return to(ctx, func(context.Context) error { <-gate; return nil }) }))
		synctest.Wait()
		for i := range 20 {
			all = append(all, spawn(func() error { return to(ctx, ok, asyncsync.Named(fmt.Sprint(i))) }))
			synctest.Wait()
			time.Sleep(time.Second)
		}
		a := thread(t, core.TakeGraph(), "a")
		require.Equal(t, 20, a.Queued)
		require.Len(t, a.Queue, 16)
		for i, c := range a.Queue {
			require.Equal(t, fmt.Sprint(i), c.Name)
			require.Equal(t, time.Duration(20-i)*time.Second, c.Waited)
			require.NotZero(t, c.Caller)
			require.Equal(t, uint64(i+2), c.Seq)
		}
		close(gate)
		for _, done := range all {
			require.NoError(t, <-done)
		}
	})
}

// A high stack is cut in the middle.
func TestGraphStackIsCut(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		var down func(ctx context.Context, level int) error
		down = func(ctx context.Context, level int) error {
			if level == 100 {
				a := thread(t, core.TakeGraph(), "a")
				require.Len(t, a.Stack, 64)
				require.Equal(t, 36, a.Cut)
				require.Equal(t, "99", a.Stack[0].Name)
				require.Equal(t, "52", a.Stack[47].Name)
				require.Equal(t, "15", a.Stack[48].Name)
				require.Equal(t, "0", a.Stack[63].Name)
				return nil
			}
			return to(ctx, func(ctx context.Context) error {
				return from(ctx, func(ctx context.Context) error { return down(ctx, level+1) })
			}, asyncsync.Named(fmt.Sprint(level)))
		}
		require.NoError(t, down(ctx, 0))
	})
}

// Below is what was submitted from below the function that runs, and from this
// run of it: not what a stranger submits, nor what an earlier run of the same
// node has left behind.
func TestGraphBelow(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		below := func() bool {
			synctest.Wait()
			a := thread(t, core.TakeGraph(), "a")
			require.NotZero(t, a.Queued)
			return a.Below
		}
		gate := make(chan struct{})
		busy := func(f func(ctx context.Context)) <-chan error {
			done := spawn(func() error {
				return to(ctx, func(ctx context.Context) error {
					if f != nil {
						f(ctx)
					}
					<-gate
					return nil
				})
			})
			synctest.Wait()
			return done
		}
		var own <-chan error
		first := busy(func(ctx context.Context) { own = spawn(func() error { return to(ctx, ok) }) })
		require.True(t, below(), "with the function's ctx")
		close(gate)
		require.NoError(t, <-first)
		require.NoError(t, <-own)

		gate = make(chan struct{})
		first = busy(func(ctx context.Context) {
			task.Go(ctx, func(ctx context.Context) (int, error) {
				_, err := task.Go(ctx, func(ctx context.Context) (int, error) { return 0, to(ctx, ok) }).Wait(ctx)
				return 0, err
			})
		})
		require.True(t, below(), "two tasks below")
		close(gate)
		require.NoError(t, <-first)

		gate = make(chan struct{})
		first = busy(nil)
		own = spawn(func() error { return to(ctx, ok) })
		require.False(t, below(), "a stranger")
		close(gate)
		require.NoError(t, <-first)
		require.NoError(t, <-own)

		// The node of calls made with ctx is one and the same.
		gate = make(chan struct{})
		late := make(chan struct{})
		var left *task.Task[int]
		require.NoError(t, to(ctx, func(ctx context.Context) error {
			left = task.Go(ctx, func(ctx context.Context) (int, error) { <-late; return 0, to(ctx, ok) })
			return nil
		}))
		first = busy(nil)
		close(late)
		require.False(t, below(), "of an earlier run")
		close(gate)
		require.NoError(t, <-first)
		_, err := left.Wait(ctx)
		require.NoError(t, err)
	})
}

// The first call from below is in the graph however many are queued before it.
func TestGraphBelowIsHidden(t *testing.T) {
	for _, strangers := range []int{0, 1, 15, 16, 40} {
		inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
			gate, begun := make(chan struct{}), make(chan context.Context, 1)
			calls := []<-chan error{spawn(func() error {
				return to(ctx, func(in context.Context) error {
					begun <- in
					<-gate
					return nil
				})
			})}
			in := <-begun
			for range strangers {
				calls = append(calls, spawn(func() error { return to(ctx, ok) }))
			}
			synctest.Wait()
			for _, name := range []string{"below", "later"} {
				calls = append(calls, spawn(func() error { return to(in, ok, asyncsync.Named(name)) }))
				synctest.Wait()
			}
			a := thread(t, core.TakeGraph(), "a")
			require.True(t, a.Below)
			require.Equal(t, strangers+2, a.Queued)
			require.Len(t, a.Queue, min(16, strangers+2))
			require.Equal(t, min(15, strangers), a.BelowAt)
			require.Equal(t, "below", a.Queue[a.BelowAt].Name)
			close(gate)
			for _, c := range calls {
				require.NoError(t, <-c)
			}
		})
	}
}

// Long are a thread on which something long runs, and one that waits for that,
// over however many steps.
func TestGraphLong(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		bctx, b := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("b"))
		defer b.Close()
		cctx, c := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("c"))
		defer c.Close()
		gate := make(chan struct{})
		wait := func(context.Context) error { <-gate; return nil }
		all := []<-chan error{
			spawn(func() error {
				return to(ctx, func(in context.Context) error {
					tk := task.Go(in, func(in context.Context) (int, error) {
						return 0, from(in, func(in context.Context) error { return to(in, wait, asyncsync.On(b), asyncsync.LongRunning()) })
					})
					_, err := tk.Wait(in)
					return err
				})
			}),
			spawn(func() error { return to(cctx, wait) }),
		}
		synctest.Wait()
		g := core.TakeGraph()
		require.True(t, thread(t, g, "b").Long, "runs it")
		require.True(t, thread(t, g, "b").Stack[0].Long)
		require.True(t, thread(t, g, "a").Long, "waits for it")
		require.False(t, thread(t, g, "a").Stack[0].Long)
		require.False(t, thread(t, g, "c").Long, "has nothing to do with it")
		close(gate)
		for _, done := range all {
			require.NoError(t, <-done)
		}

		gate = make(chan struct{})
		done := spawn(func() error {
			return to(bctx, func(in context.Context) error { return from(in, wait, asyncsync.LongRunning()) })
		})
		synctest.Wait()
		require.True(t, thread(t, core.TakeGraph(), "b").Long, "an async function")
		close(gate)
		require.NoError(t, <-done)
	})
}

// Refuse takes a queued call out, once, and its caller is told.
func TestRefuse(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, tsc *asyncsync.ThreadSensitiveContext) {
		refusal := errors.New("the refusal")
		gate := make(chan struct{})
		first := spawn(func() error { return to(ctx, func(context.Context) error { <-gate; return nil }) })
		synctest.Wait()
		second := spawn(func() error { return to(ctx, func(context.Context) error { return errors.New("ran") }) })
		_, b := asyncsync.NewThreadSensitiveContext(context.Background())
		third := spawn(func() error {
			// From a thread, which waits in a frame.
			return to(context.Background(), func(in context.Context) error { return to(in, ok, asyncsync.On(tsc)) }, asyncsync.On(b))
		})
		synctest.Wait()
		a := thread(t, core.TakeGraph(), "a")
		require.Len(t, a.Queue, 2)
		for _, c := range a.Queue {
			require.True(t, core.Refuse(a.ID, c.Seq, refusal))
			require.False(t, core.Refuse(a.ID, c.Seq, refusal))
		}
		require.False(t, core.Refuse(a.ID, a.Stack[0].Seq, refusal), "it runs")
		require.False(t, core.Refuse(0, 1, refusal))
		require.Same(t, refusal, <-second)
		require.Same(t, refusal, <-third)
		require.Zero(t, tsc.Stats().Queued)
		close(gate)
		require.NoError(t, <-first)
		require.NoError(t, tsc.Close())
		require.NoError(t, b.Close())
	})
}

// A caller does not get its record back while a search may read it, also a caller that runs
// no function of this module.
func TestReadersHoldRecords(t *testing.T) {
	testkit.Guard(t)
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
	gate, began := make(chan struct{}), make(chan struct{})
	first := spawn(func() error { return to(ctx, func(context.Context) error { close(began); <-gate; return nil }) })
	<-began
	second := spawn(func() error { return to(ctx, ok) })
	testkit.Poll(t, func() string {
		if n := tsc.Stats().Queued; n != 1 {
			return fmt.Sprintf("%d queued", n)
		}
		return ""
	})
	core.ReadEdges(func() {
		close(gate)
		testkit.Poll(t, func() string {
			if n := tsc.Stats().Calls; n != 2 {
				return fmt.Sprintf("%d calls have ended", n)
			}
			return ""
		})
		for range 1000 {
			runtime.Gosched()
		}
		require.Empty(t, second, "the caller has gone on while its record was read")
	})
	require.NoError(t, <-first)
	require.NoError(t, <-second)
	require.NoError(t, tsc.Close())
}

// A mark tells when its call has left the queue, by whatever way, and after how
// long since the caller began to wait.
func TestMarks(t *testing.T) {
	ways := map[string]func(gate chan struct{}, cancel func(), thread, seq uint64){
		"runs":     func(gate chan struct{}, _ func(), _, _ uint64) { close(gate) },
		"revoked":  func(_ chan struct{}, cancel func(), _, _ uint64) { cancel() },
		"refused":  func(_ chan struct{}, _ func(), thread, seq uint64) { core.Refuse(thread, seq, errors.New("refused")) },
		"shutdown": nil,
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context, tsc *asyncsync.ThreadSensitiveContext) {
				gate := make(chan struct{})
				first := spawn(func() error { return to(ctx, func(context.Context) error { <-gate; return nil }) })
				synctest.Wait()
				cctx, cancel := context.WithCancel(ctx)
				second := spawn(func() error { return to(cctx, ok) })
				synctest.Wait()
				a := thread(t, core.TakeGraph(), "a")
				m, found := core.MarkQueued(a.ID, a.Queue[0].Seq, 0)
				require.True(t, found)
				dropped, found := core.MarkQueued(a.ID, a.Queue[0].Seq, 0)
				require.True(t, found)
				dropped.Drop()
				time.Sleep(time.Minute)
				_, left := m.Left()
				require.False(t, left)
				if way == nil {
					over, end := context.WithCancel(context.Background())
					end()
					require.Error(t, tsc.Shutdown(over))
				} else {
					way(gate, cancel, a.ID, a.Queue[0].Seq)
				}
				synctest.Wait()
				after, left := m.Left()
				require.True(t, left)
				require.Equal(t, time.Minute, after)
				_, left = dropped.Left()
				require.False(t, left)
				m.Drop()
				_, found = core.MarkQueued(a.ID, a.Queue[0].Seq, 0)
				require.False(t, found)
				cancel()
				if name != "runs" {
					require.Error(t, <-second)
					close(gate)
				} else {
					require.NoError(t, <-second)
				}
				require.NoError(t, <-first)
			})
		})
	}
}

// A context that waits in line for a thread of its pool is in the graph, with
// what it has queued, until it gets one, the pool starts one for a wait, or it gives up. A mark knows
// when that was.
func TestGraphLine(t *testing.T) {
	ways := map[string]func(cancel, join, release func()){
		"gives up":  func(cancel, _, _ func()) { cancel() },
		"overflows": func(_, join, _ func()) { join() },
		"gets one":  func(_, _, release func()) { release() },
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 1})
				a, tsca := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("a"), asyncsync.WithPool(p))
				_, tscb := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("b"), asyncsync.WithPool(p))
				threads := asyncsync.ReadStats().Threads
				cctx, cancel := context.WithCancel(context.Background())
				joined, end := make(chan struct{}), make(chan struct{})
				var call *task.Task[int]
				holder := spawn(func() error {
					return to(a, func(in context.Context) error {
						return from(in, func(ctx context.Context) error {
							select {
							case <-joined:
								_, err := call.Wait(ctx)
								return err
							case <-end:
								return nil
							}
						})
					})
				})
				synctest.Wait()
				call = task.Go(cctx, func(ctx context.Context) (int, error) {
					return 0, to(ctx, ok, asyncsync.On(tscb), asyncsync.Named("call"))
				})
				synctest.Wait()
				call2 := spawn(func() error { return to(cctx, ok, asyncsync.On(tscb)) })
				synctest.Wait()

				g := core.TakeGraph()
				require.Equal(t, threads+1, asyncsync.ReadStats().Threads, "it is no thread yet")
				b := thread(t, g, "b")
				require.True(t, b.Lined)
				require.Zero(t, b.Goroutine)
				require.Zero(t, b.OSThread)
				require.Empty(t, b.Stack)
				require.Equal(t, 2, b.Queued)
				require.Len(t, b.Queue, 2)
				require.Equal(t, "call", b.Queue[0].Name)
				require.False(t, b.Queue[0].Stranger)
				require.False(t, b.Below)
				require.False(t, thread(t, g, "a").Lined)
				require.False(t, core.Refuse(b.ID, b.Queue[0].Seq, errors.New("refused")))
				var marks []*core.Mark
				for _, c := range b.Queue {
					m, found := core.MarkQueued(b.ID, c.Seq, 0)
					require.True(t, found)
					marks = append(marks, m)
				}
				time.Sleep(time.Minute)

				way(cancel, func() { close(joined) }, func() {
					close(end)
					require.NoError(t, tsca.Close())
				})
				synctest.Wait()
				for _, m := range marks {
					after, left := m.Left()
					require.True(t, left)
					require.Equal(t, time.Minute, after)
					m.Drop()
				}
				for _, s := range core.TakeGraph().Threads {
					require.False(t, s.Lined, "%+v", s)
				}
				require.Zero(t, core.LinedPools())
				if name == "gives up" {
					close(end)
					require.Error(t, <-call2)
				} else {
					require.NoError(t, <-call2)
				}
				require.NoError(t, <-holder)
				require.NoError(t, tsca.Close())
				require.NoError(t, tscb.Close())
				require.NoError(t, p.Close())
				cancel()
			})
		})
	}
}

// Strict makes All serve what Related serves, also what is queued already, and
// takes it back.
func TestStrict(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, tsc *asyncsync.ThreadSensitiveContext) {
		core.SetStrict(true)
		defer core.SetStrict(false)
		gate := make(chan struct{})
		var inner context.Context
		first := spawn(func() error {
			return to(ctx, func(in context.Context) error {
				return from(in, func(in context.Context) error { inner = in; <-gate; return nil })
			})
		})
		synctest.Wait()
		stranger := spawn(func() error { return to(ctx, ok) })
		synctest.Wait()
		require.NoError(t, to(inner, ok), "related")
		require.Equal(t, 1, tsc.Stats().Queued)
		core.SetStrict(false)
		require.NoError(t, <-stranger, "served at once")
		close(gate)
		require.NoError(t, <-first)
	}, asyncsync.Serve(asyncsync.All))
}

// In a wait for something unknown a thread serves what the blocked function
// has started, and strictly nothing.
func TestStrictUnknownWait(t *testing.T) {
	for _, strict := range []bool{false, true} {
		inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
			core.SetStrict(strict)
			defer core.SetStrict(false)
			over := make(chan struct{})
			var own <-chan error
			served := false
			require.NoError(t, to(ctx, func(in context.Context) error {
				own = spawn(func() error { return to(in, func(context.Context) error { served = true; return nil }) })
				go func() {
					time.Sleep(time.Second)
					close(over)
				}()
				err := core.Park(in, over, "pool close")
				require.Equal(t, !strict, served)
				return err
			}))
			require.NoError(t, <-own)
		})
	}
}

// Graphs may be taken at any time: the race detector looks on.
func TestGraphRace(t *testing.T) {
	ctx, a := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("race a"))
	defer a.Close()
	_, b := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("race b"))
	defer b.Close()
	l := task.NewLimiter(2)
	stop := make(chan struct{})
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				gctx, g := task.NewGroup(ctx)
				for j := range 3 {
					g.Go(func(ctx context.Context) error {
						cctx, cancel := context.WithTimeout(ctx, time.Duration(50+i*50)*time.Microsecond)
						defer cancel()
						err := to(cctx, func(ctx context.Context) error {
							return from(ctx, func(ctx context.Context) error {
								return to(ctx, func(ctx context.Context) error {
									return to(ctx, ok, asyncsync.Insensitive(), asyncsync.WithLimiter(l))
								}, asyncsync.On(b))
							})
						}, asyncsync.Named(strings.Repeat("x", j+1)))
						if errors.Is(err, core.ErrDeadlock) {
							return err
						}
						return nil
					})
				}
				if err := g.Wait(gctx); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 300 {
		for _, s := range core.TakeGraph().Threads {
			for _, c := range s.Queue {
				if m, ok := core.MarkQueued(s.ID, c.Seq, 0); ok {
					defer m.Drop()
					m.Left()
				}
			}
		}
		runtime.Gosched()
	}
	close(stop)
	all.Wait()
}

// A graph says where contexts were made, which threads are of one pool, and who
// waits off the threads for the end of a context or a pool.
func TestGraphClosings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 2})
		ctx, a := asyncsync.NewThreadSensitiveContext(t.Context(), asyncsync.WithPool(p)) // here
		_, _, line, _ := runtime.Caller(0)
		idle, b := asyncsync.NewThreadSensitiveContext(t.Context(), asyncsync.WithPool(p), asyncsync.WithName("b"))
		require.NoError(t, to(idle, ok))
		gate := make(chan struct{})
		var below, above, pool <-chan error
		running := spawn(func() error {
			return to(ctx, func(in context.Context) error {
				below = spawn(func() error { return a.Shutdown(in) })
				<-gate
				return nil
			})
		})
		synctest.Wait()
		above = spawn(a.Close)
		pool = spawn(p.Close)
		synctest.Wait()
		time.Sleep(time.Second)
		g := core.TakeGraph()
		ta, tb := thread(t, g, ""), thread(t, g, "b")
		require.Equal(t, line-1, ta.Made.Line)
		require.Contains(t, ta.Made.Func, "TestGraphClosings")
		require.NotZero(t, ta.Pool)
		require.Equal(t, ta.Pool, tb.Pool)
		require.Len(t, g.Goroutines, 3)
		var kinds, belows int
		for _, w := range g.Goroutines {
			require.Equal(t, time.Second, w.Wait.Age)
			if w.Wait.Kind == "pool close" {
				require.ElementsMatch(t, []uint64{ta.ID, tb.ID}, w.Wait.Threads)
				continue
			}
			require.Equal(t, "close", w.Wait.Kind)
			require.Equal(t, ta.ID, w.Wait.Thread)
			kinds++
			if w.Below {
				belows++
			}
		}
		require.Equal(t, 2, kinds)
		require.Equal(t, 1, belows, "the one that was made with the function's ctx")
		close(gate)
		require.NoError(t, <-running)
		require.NoError(t, <-below)
		require.NoError(t, <-above)
		require.NoError(t, b.Close())
		require.NoError(t, <-pool)
		require.Empty(t, core.TakeGraph().Goroutines)
	})
}

// A wait that ends while a graph is taken is not held up for longer than it takes to
// look at a few: whatever the graph has, waits end between its parts.
func TestGraphHoldsNobodyUp(t *testing.T) {
	testkit.Guard(t)
	const waits, leaves = 10000, 100
	inBubble(t, func(t *testing.T, ctx context.Context, _ *asyncsync.ThreadSensitiveContext) {
		var gates, ended [leaves]chan struct{}
		var leaf [leaves]*task.Task[int]
		for i := range leaves {
			gates[i], ended[i] = make(chan struct{}), make(chan struct{}, waits)
			leaf[i] = task.Go(ctx, func(context.Context) (int, error) { <-gates[i]; return 0, nil })
		}
		done := spawn(func() error {
			return to(ctx, func(in context.Context) error {
				gctx, g := task.NewGroup(in)
				for i := range waits {
					g.Go(func(ctx context.Context) error {
						_, err := leaf[i%leaves].Wait(ctx)
						ended[i%leaves] <- struct{}{}
						return err
					})
				}
				return g.Wait(gctx)
			})
		})
		synctest.Wait()
		parts := 0
		restore := core.AfterPart(func() {
			if parts < leaves {
				close(gates[parts])
				for range waits / leaves {
					<-ended[parts]
				}
			}
			parts++
		})
		g := core.TakeGraph()
		restore()
		require.Equal(t, "group", thread(t, g, "a").Stack[0].Wait.Kind)
		require.GreaterOrEqual(t, parts, 1024/32, "in so many parts")
		for i := min(parts, leaves); i < leaves; i++ {
			close(gates[i])
		}
		require.NoError(t, <-done)
	})
}
