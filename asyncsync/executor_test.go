package asyncsync_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/local"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

var _ loop.Poster = (*asyncsync.CurrentThreadExecutor)(nil)

func closedChan() chan struct{} { c := make(chan struct{}); close(c); return c }

// What was posted before, in order, on the goroutine that made the executor.
func TestExecutorRunsWhatWasPosted(t *testing.T) {
	guard(t)
	exec := asyncsync.NewCurrentThreadExecutor()
	home := here().gid
	var got []int
	for i := range 5 {
		require.NoError(t, exec.Post(func() {
			require.Equal(t, home, here().gid)
			got = append(got, i)
		}))
	}
	require.Empty(t, got)
	require.NoError(t, exec.RunUntil(closedChan()))
	require.Equal(t, []int{0, 1, 2, 3, 4}, got)
	require.NoError(t, exec.RunUntil(closedChan()))
	require.Len(t, got, 5, "each once")
}

// From many goroutines while it runs: all of them, one at a time, each
// poster's in order; a value delivered on done ends it like a close.
func TestExecutorRunsWhatIsPosted(t *testing.T) {
	guard(t)
	exec := asyncsync.NewCurrentThreadExecutor()
	const posters, each = 4, 250
	var alone exclusion
	last := make([]int, posters)
	done := make(chan struct{}, 1)
	var all sync.WaitGroup
	for p := range posters {
		all.Go(func() {
			for i := range each {
				exec.Post(func() {
					alone.run(func() {
						if last[p] != i {
							t.Errorf("poster %d: %d after %d", p, i, last[p])
						}
						last[p]++
					})
				})
			}
		})
	}
	go func() { all.Wait(); done <- struct{}{} }()
	require.NoError(t, exec.RunUntil(done))
	require.Equal(t, posters*each, alone.times)
	require.Equal(t, 1, alone.most)
}

// What was posted before a RunUntil begins, or while it does, runs in the order in which
// it was posted.
func TestExecutorKeepsOrderWhileItBegins(t *testing.T) {
	guard(t)
	exec := asyncsync.NewCurrentThreadExecutor()
	const posts = 20_000
	ran := 0
	over := make(chan struct{})
	go func() {
		defer close(over)
		for i := range posts {
			exec.Post(func() {
				if ran != i {
					t.Errorf("%d after %d", i, ran)
				}
				ran++
			})
		}
	}()
	for posted := false; !posted; {
		select {
		case <-over:
			posted = true
		default:
		}
		require.NoError(t, exec.RunUntil(closedChan()))
	}
	require.Equal(t, posts, ran)
}

// A posted function may post. What it posts after done has come is left for
// the next RunUntil: it could go on for ever.
func TestExecutorPostedFunctionPosts(t *testing.T) {
	guard(t)
	exec := asyncsync.NewCurrentThreadExecutor()
	var got []string
	exec.Post(func() {
		got = append(got, "one")
		exec.Post(func() { got = append(got, "two") })
	})
	require.NoError(t, exec.RunUntil(closedChan()))
	require.Equal(t, []string{"one"}, got)
	require.NoError(t, exec.RunUntil(closedChan()))
	require.Equal(t, []string{"one", "two"}, got)
}

// An exit function of a thread may run an executor.
func TestExecutorInExitFunction(t *testing.T) {
	guard(t)
	var got []string
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.OnThreadExit(func() {
		exec := asyncsync.NewCurrentThreadExecutor()
		done := make(chan struct{})
		exec.Post(func() { got = append(got, "posted"); close(done) })
		if err := exec.RunUntil(done); err != nil {
			t.Error(err)
		}
		got = append(got, "exit")
	}))
	_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 0, nil })
	require.NoError(t, err)
	require.NoError(t, tsc.Close())
	require.Equal(t, []string{"posted", "exit"}, got)
}

// Insensitive calls go there, and their results come back.
func TestExecutorTakesCalls(t *testing.T) {
	guard(t)
	exec := asyncsync.NewCurrentThreadExecutor()
	home := here()
	done := make(chan struct{})
	r := start(func() error {
		defer close(done)
		for range 10 {
			p, err := asyncsync.ToThread(context.Background(), whereabouts, asyncsync.Insensitive(), asyncsync.WithExecutor(exec))
			if err != nil || p.gid != home.gid {
				return errors.Join(err, errors.New("elsewhere"))
			}
		}
		return nil
	})
	require.NoError(t, exec.RunUntil(done))
	require.NoError(t, r.Wait().Err)
}

// Posted functions may go down to async code and back: the goroutine is a
// thread while RunUntil runs, and serves.
func TestExecutorServes(t *testing.T) {
	guard(t)
	exec := asyncsync.NewCurrentThreadExecutor()
	home := here().gid
	var got place
	exec.Post(func() {
		require.NoError(t, from(context.Background(), func(ctx context.Context) (err error) {
			got, err = asyncsync.ToThread(ctx, whereabouts)
			return err
		}))
	})
	require.NoError(t, exec.RunUntil(closedChan()))
	require.Equal(t, home, got.gid)
}

// On a thread of ours RunUntil is a wait like others: relatives are served.
func TestExecutorOnThread(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t)
	home := threadOf(t, ctx)
	require.NoError(t, to(ctx, func(ctx context.Context) error {
		exec := asyncsync.NewCurrentThreadExecutor()
		done := make(chan struct{})
		var posted place
		go func() { exec.Post(func() { posted = here(); close(done) }) }()
		err := exec.RunUntil(done)
		require.Equal(t, home, posted)
		return err
	}))
}

// RunUntil in RunUntil: the inner one takes over until it ends, with what was
// posted and has not begun.
func TestExecutorNested(t *testing.T) {
	guard(t)
	var got []string
	r := start(func() error {
		exec := asyncsync.NewCurrentThreadExecutor()
		exec.Post(func() {
			got = append(got, "outer begins")
			inner := make(chan struct{})
			exec.Post(func() { got = append(got, "inner"); close(inner) })
			if err := exec.RunUntil(inner); err != nil {
				t.Error(err)
			}
			got = append(got, "outer ends")
		})
		return exec.RunUntil(closedChan())
	})
	require.NoError(t, r.Settle(t).Err)
	require.Equal(t, []string{"outer begins", "inner", "outer ends"}, got)
}

// RunUntil may be called again and again, each time on the goroutine it was
// made on, and leaves nothing behind.
func TestExecutorAgain(t *testing.T) {
	guard(t)
	leakCheck(t)
	exec := asyncsync.NewCurrentThreadExecutor()
	n := 0
	for range 100 {
		done := make(chan struct{})
		go func() {
			exec.Post(func() { n++ })
			close(done)
		}()
		require.NoError(t, exec.RunUntil(done))
	}
	require.Equal(t, 100, n)
}

// An executor that refuses: the caller gets its error, nothing runs, and the
// thread that asked is none the worse.
func TestExecutorRefuses(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t)
	refuse := loop.PosterFunc(func(func()) error { return errOwn })
	opts := []asyncsync.Option{asyncsync.Insensitive(), asyncsync.WithExecutor(refuse)}
	require.Same(t, errOwn, to(ctx, neverRuns(t), opts...))
	require.NoError(t, to(ctx, func(ctx context.Context) error {
		require.Same(t, errOwn, to(ctx, neverRuns(t), opts...))
		return from(ctx, func(ctx context.Context) error { return to(ctx, func(context.Context) error { return nil }) })
	}))
}

// One that runs the function before Post returns, or calls it twice.
func TestExecutorOddities(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t)
	ran := 0
	for name, e := range map[string]loop.PosterFunc{
		"at once": func(fn func()) error { fn(); return nil },
		"twice":   func(fn func()) error { go func() { fn(); fn() }(); return nil },
	} {
		ran = 0
		call := func(ctx context.Context) error {
			return to(ctx, func(context.Context) error { ran++; return errOwn }, asyncsync.Insensitive(), asyncsync.WithExecutor(e))
		}
		require.Same(t, errOwn, call(ctx), name)
		require.Same(t, errOwn, to(ctx, call), name)
		require.Equal(t, 2, ran, name)
	}
}

// On a goroutine that is a thread because of SameThread, no call of ours runs:
// what a wait there calls comes back to it all the same, past a context that was
// entered above the wait, and so does what a function posted to it calls.
func TestWaitOnAnAdoptedThreadWithoutACall(t *testing.T) {
	guard(t)
	err := from(context.Background(), func(ctx context.Context) error {
		home := here()
		inner, tsc := asyncsync.NewThreadSensitiveContext(ctx)
		defer tsc.Close()
		require.NoError(t, from(inner, func(ctx context.Context) error {
			require.Equal(t, home, threadOf(t, ctx), "the sync caller was met last")
			return nil
		}))
		e := asyncsync.NewCurrentThreadExecutor()
		done := make(chan struct{})
		var got place
		require.NoError(t, e.Post(func() {
			got = threadOf(t, ctx)
			close(done)
		}))
		require.NoError(t, e.RunUntil(done))
		require.Equal(t, home, got)
		return nil
	}, asyncsync.SameThread())
	require.NoError(t, err)
}

// What is sent to an executor on a thread runs on that thread, and sees the
// thread-critical values there.
func TestExecutorOnAThreadSeesItsCriticalValues(t *testing.T) {
	guard(t)
	exits := 0 // of the thread
	v := local.New[int](local.ThreadCritical(), local.OnThreadExit(func(int) { exits++ }))
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
	require.NoError(t, to(ctx, func(ctx context.Context) error {
		v.Set(1)
		e := asyncsync.NewCurrentThreadExecutor()
		done := make(chan struct{})
		sends := task.Go(ctx, func(ctx context.Context) (none, error) {
			defer close(done)
			return none{}, to(ctx, func(context.Context) error {
				got, _ := v.Get()
				require.Equal(t, 1, got)
				v.Set(2)
				return nil
			}, asyncsync.Insensitive(), asyncsync.WithExecutor(e))
		})
		require.NoError(t, e.RunUntil(done))
		_, err := sends.Wait(ctx)
		got, _ := v.Get()
		require.Equal(t, 2, got)
		require.Zero(t, exits, "they end with the lease")
		return err
	}))
	require.NoError(t, tsc.Close())
	require.Equal(t, 1, exits)
}

var _ loop.Loop = (*asyncsync.CurrentThreadExecutor)(nil)

// A closed executor takes nothing, in any way, and says so. Close again changes
// nothing.
func TestExecutorClosed(t *testing.T) {
	guard(t)
	base, _ := newContext(t)
	exec := asyncsync.NewCurrentThreadExecutor()
	select {
	case <-exec.Done():
		t.Fatal("it is open")
	default:
	}
	ways := map[string]func() error{
		"Post":     func() error { return exec.Post(func() { t.Error("it runs") }) },
		"RunUntil": func() error { return exec.RunUntil(make(chan struct{})) },
		"a call": func() error {
			return to(context.Background(), neverRuns(t), asyncsync.Insensitive(), asyncsync.WithExecutor(exec))
		},
		"a call from elsewhere": func() error {
			return outcomeOf(func() error {
				return to(context.Background(), neverRuns(t), asyncsync.Insensitive(), asyncsync.WithExecutor(exec))
			}).Err
		},
		"a call from a thread": func() error {
			return to(base, func(ctx context.Context) error {
				return to(ctx, neverRuns(t), asyncsync.Insensitive(), asyncsync.WithExecutor(exec))
			})
		},
		"an async function": func() error { return from(context.Background(), neverRuns(t), asyncsync.WithLoop(exec)) },
		"an async function from elsewhere": func() error {
			return outcomeOf(func() error { return from(base, neverRuns(t), asyncsync.WithLoop(exec)) }).Err
		},
		"an async function from a thread": func() error {
			return to(base, func(ctx context.Context) error { return from(ctx, neverRuns(t), asyncsync.WithLoop(exec)) })
		},
	}
	for range 2 {
		require.NoError(t, exec.Close())
		<-exec.Done()
		for name, way := range ways {
			require.ErrorIs(t, way(), loop.ErrStopped, name)
		}
	}
	ended, cancel := context.WithCancelCause(context.Background())
	cancel(errCause)
	require.Same(t, errCause, to(ended, neverRuns(t), asyncsync.Insensitive(), asyncsync.WithExecutor(exec)), "the end of ctx came first")
}

// A GUI that has quit: what waits for the next RunUntil is told that there is
// none, and nothing of it runs.
func TestExecutorCloseTellsWhoWaits(t *testing.T) {
	for _, during := range []bool{false, true} {
		t.Run(fmt.Sprintf("during RunUntil %t", during), func(t *testing.T) {
			guard(t)
			synctest.Test(t, func(t *testing.T) {
				base, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
				exec := asyncsync.NewCurrentThreadExecutor()
				opts := []asyncsync.Option{asyncsync.Insensitive(), asyncsync.WithExecutor(exec)}
				var waiters []*runningFunc
				queue := func() {
					require.NoError(t, exec.Post(func() { t.Error("it runs") }))
					for _, call := range []func() error{
						func() error { return to(context.Background(), neverRuns(t), opts...) },
						func() error {
							return to(base, func(ctx context.Context) error { return to(ctx, neverRuns(t), opts...) })
						},
						func() error { return to(context.Background(), neverRuns(t), append(opts, asyncsync.Abandon())...) },
						func() error { return from(context.Background(), neverRuns(t), asyncsync.WithLoop(exec)) },
					} {
						waiters = append(waiters, start(call))
					}
					synctest.Wait()
					for _, w := range waiters {
						require.False(t, w.Over())
					}
				}
				if during {
					ran := false
					exec.Post(func() {
						queue()
						require.NoError(t, exec.Close())
						synctest.Wait()
						ran = true
					})
					require.ErrorIs(t, exec.RunUntil(make(chan struct{})), loop.ErrStopped)
					require.True(t, ran)
				} else {
					require.NoError(t, exec.RunUntil(closedChan()))
					queue()
					require.NoError(t, exec.Close())
				}
				for _, w := range waiters {
					require.ErrorIs(t, w.Wait().Err, loop.ErrStopped)
				}
				require.NoError(t, to(base, on(nil0)))
				require.NoError(t, tsc.Close())
			})
		})
	}
}

// From elsewhere Close ends a RunUntil that sleeps, and one that runs a function
// when that has ended; the caller of the function gets its result.
func TestExecutorCloseFromElsewhere(t *testing.T) {
	for _, asleep := range []bool{true, false} {
		t.Run(fmt.Sprintf("asleep %t", asleep), func(t *testing.T) {
			guard(t)
			synctest.Test(t, func(t *testing.T) {
				execs := make(chan *asyncsync.CurrentThreadExecutor, 1)
				run := start(func() error {
					exec := asyncsync.NewCurrentThreadExecutor()
					execs <- exec
					return exec.RunUntil(make(chan struct{}))
				})
				exec, leave := <-execs, make(chan struct{})
				call := start(func() error {
					if asleep {
						return errOwn
					}
					return to(context.Background(), func(context.Context) error { <-leave; return errOwn },
						asyncsync.Insensitive(), asyncsync.WithExecutor(exec))
				})
				synctest.Wait()
				require.NoError(t, exec.Close())
				synctest.Wait()
				require.Equal(t, asleep, run.Over(), "not before the function has ended")
				close(leave)
				require.ErrorIs(t, run.Wait().Err, loop.ErrStopped)
				require.Same(t, errOwn, call.Wait().Err)
			})
		})
	}
}

// RunUntil inside of a posted function, and one that is blocked in a wait of the
// library: all of them end, innermost first, and nothing posted runs any more.
func TestExecutorCloseEndsEveryRunUntil(t *testing.T) {
	guard(t)
	r := start(func() error {
		exec := asyncsync.NewCurrentThreadExecutor()
		var got []string
		never := make(chan struct{})
		exec.Post(func() {
			err := from(context.Background(), func(ctx context.Context) error {
				_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) {
					exec.Post(func() {
						got = append(got, "innermost")
						if err := exec.Close(); err != nil {
							t.Error(err)
						}
						if err := exec.Post(func() {}); !errors.Is(err, loop.ErrStopped) {
							t.Error(err)
						}
					})
					exec.Post(func() { t.Error("it runs") })
					err := exec.RunUntil(never)
					got = append(got, "inner")
					return 0, err
				})
				return err
			})
			if !errors.Is(err, loop.ErrStopped) {
				t.Error(err)
			}
			got = append(got, "outer")
		})
		exec.Post(func() { t.Error("it runs") })
		err := exec.RunUntil(never)
		require.Equal(t, []string{"innermost", "inner", "outer"}, got)
		return err
	})
	require.ErrorIs(t, r.Settle(t).Err, loop.ErrStopped)
}

// Whatever the moment: a call has run and has its result, or has not and says so;
// a post that was refused does not run; RunUntil ends.
func TestExecutorCloseRace(t *testing.T) {
	guard(t)
	leakCheck(t)
	for i := range 100 {
		exec := asyncsync.NewCurrentThreadExecutor()
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				for {
					began := false
					err := to(context.Background(), func(context.Context) error { began = true; return errOwn },
						asyncsync.Insensitive(), asyncsync.WithExecutor(exec))
					switch {
					case err == errOwn && began:
					case errors.Is(err, loop.ErrStopped) && !began:
						return
					default:
						t.Errorf("the call returned %v, and ran: %t", err, began)
						return
					}
				}
			})
			all.Go(func() {
				for {
					var ran atomic.Bool
					if err := exec.Post(func() { ran.Store(true) }); err != nil {
						if ran.Load() {
							t.Error("refused, and run")
						}
						return
					}
				}
			})
		}
		all.Go(func() {
			for range i % 50 {
				asyncsync.ReadStats()
			}
			exec.Close()
		})
		require.ErrorIs(t, exec.RunUntil(make(chan struct{})), loop.ErrStopped)
		all.Wait()
	}
}

// A function that ends in a panic or a Goexit after it has closed the executor.
func TestExecutorCloseAndEndings(t *testing.T) {
	for _, e := range ends {
		t.Run(e.How, func(t *testing.T) {
			guard(t)
			execs := make(chan *asyncsync.CurrentThreadExecutor, 1)
			o := outcomeOf(func() error {
				exec := asyncsync.NewCurrentThreadExecutor()
				execs <- exec
				exec.Post(func() { exec.Close(); e.Do() })
				return exec.RunUntil(make(chan struct{}))
			})
			if e.How == "return" {
				require.ErrorIs(t, o.Err, loop.ErrStopped)
			} else {
				e.CheckIs(t, o)
			}
			require.ErrorIs(t, (<-execs).Post(func() {}), loop.ErrStopped)
		})
	}
}

// On its own goroutine an async function that is sent to the executor runs where
// it is, in a RunUntil and outside.
func TestExecutorAsLoopOnItsOwnGoroutine(t *testing.T) {
	guard(t)
	r := start(func() error {
		exec := asyncsync.NewCurrentThreadExecutor()
		mine := here().gid
		call := func() error {
			return from(context.Background(), func(ctx context.Context) error {
				require.Equal(t, mine, here().gid)
				p, err := asyncsync.ToThread(ctx, whereabouts)
				require.Equal(t, mine, p.gid)
				return err
			}, asyncsync.WithLoop(exec))
		}
		var inside error
		exec.Post(func() { inside = call() })
		return errors.Join(call(), exec.RunUntil(closedChan()), inside)
	})
	require.NoError(t, r.Settle(t).Err)
}

// A known limit: calls that are made with the very same ctx are taken for one, so
// that RunUntil in the function of one serves what that of another has started.
func TestRunUntilServesThoseWhoShareACtx(t *testing.T) {
	guard(t)
	ctx, tsc := newContext(t)
	running, queued := make(chan none), make(chan none)
	inside, served := false, false // of the thread
	one := start(func() error {
		return to(ctx, func(ctx context.Context) error {
			close(running)
			<-queued
			goTo(ctx, func(context.Context) error { served = inside; return nil })
			return nil
		})
	})
	<-running
	two := start(func() error {
		return to(ctx, func(context.Context) error {
			inside = true
			defer func() { inside = false }()
			e := asyncsync.NewCurrentThreadExecutor()
			done := make(chan struct{})
			require.NoError(t, e.Post(func() { close(done) }))
			return e.RunUntil(done)
		})
	})
	awaitQueued(t, tsc, 1)
	close(queued)
	require.NoError(t, one.Wait().Err)
	require.NoError(t, two.Wait().Err)
	require.NoError(t, tsc.Close())
	require.True(t, served, "if not the limit is gone: say so in the rules")
}
