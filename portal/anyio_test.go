package portal_test

import (
	"context"
	"errors"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/loop"
	"asyncsync.dev/portal"
	"asyncsync.dev/task"
)

// The tests here are named after those of anyio's tests/test_from_thread.py and
// tests/test_to_thread.py: see docs/conformance-anyio.md. A worker is sync code on a
// thread that a task has called.

// inWorker has a task of each kind of loop call work on a thread.
func inWorker(t *testing.T, work func(t *testing.T, ctx context.Context, l loop.Backend) error) {
	onBothBare(t, func(t *testing.T, kind string) {
		_, tsc := libkit.NewContext(t)
		b := libkit.NewBackend(t, kind)
		require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
			return libkit.To(ctx, func(ctx context.Context) error { return work(t, ctx, b) }, asyncsync.On(tsc))
		}))
	})
}

// whileItRuns calls outside, on a plain goroutine, while a loop runs that has nothing
// else to do.
func whileItRuns(t *testing.T, outside func(t *testing.T, l loop.Backend)) {
	onBothBare(t, func(t *testing.T, kind string) {
		b := libkit.NewBackend(t, kind)
		over := make(chan struct{})
		main := background(func() error {
			return libkit.Run(context.Background(), b, func(ctx context.Context) error { return receive(ctx, over) })
		})
		outside(t, b)
		close(over)
		require.NoError(t, main.wait())
	})
}

func TestFromThread_ThreadCancelled(t *testing.T) {
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		_, tsc := libkit.NewContext(t)
		finished := false
		began, release := make(chan struct{}), make(chan struct{})
		tk, err := portal.StartSoon(p, func(ctx context.Context) (int, error) {
			return 0, libkit.To(ctx, func(ctx context.Context) error {
				close(began)
				<-release
				if err := ctx.Err(); err != nil {
					return err
				}
				finished = true
				return nil
			}, asyncsync.On(tsc))
		})
		require.NoError(t, err)
		<-began
		require.True(t, tk.Cancel(nil))
		close(release)
		_, err = tk.Wait(context.Background())
		require.ErrorIs(t, err, context.Canceled)
		require.True(t, tk.Cancelled())
		require.False(t, finished)
		require.NoError(t, p.Close(nil))
	})
}

func TestFromThread_ThreadCancelledAndAbandoned(t *testing.T) {
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		_, tsc := libkit.NewContext(t)
		began, release, seen := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		tk, err := portal.StartSoon(p, func(ctx context.Context) (int, error) {
			return 0, libkit.To(ctx, func(ctx context.Context) error {
				close(began)
				<-release
				seen <- ctx.Err()
				return nil
			}, asyncsync.On(tsc), asyncsync.Abandon())
		})
		require.NoError(t, err)
		<-began
		require.True(t, tk.Cancel(nil))
		_, err = tk.Wait(context.Background())
		require.ErrorIs(t, err, asyncsync.ErrAbandoned)
		require.ErrorIs(t, err, context.Canceled)
		close(release)
		require.ErrorIs(t, <-seen, context.Canceled)
	})
}

func TestFromThread_CancelscopePropagation(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		_, tsc := libkit.NewContext(t)
		require.NoError(t, libkit.Run(context.Background(), libkit.NewBackend(t, kind), func(ctx context.Context) error {
			inner, scope := task.OpenScope(ctx)
			err := libkit.To(inner, func(ctx context.Context) error {
				return libkit.Call(ctx, nil, func(ctx context.Context) error {
					scope.Cancel(nil)
					return task.SleepForever(ctx)
				})
			}, asyncsync.On(tsc))
			require.ErrorIs(t, err, context.Canceled)
			require.NoError(t, scope.Close(err))
			require.True(t, scope.CancelledCaught())
			return ctx.Err()
		}))
	})
}

func TestFromThread_CancelscopePropagationWhenAbandoned(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		_, tsc := libkit.NewContext(t)
		require.NoError(t, libkit.Run(context.Background(), libkit.NewBackend(t, kind), func(ctx context.Context) error {
			inner, scope := task.OpenScope(ctx)
			began, left, over := make(chan struct{}), make(chan struct{}), make(chan struct{})
			var shielded, exposed error
			abandoned := background(func() error {
				<-began
				scope.Cancel(nil)
				return nil
			})
			err := libkit.To(inner, func(ctx context.Context) error {
				defer close(over)
				return libkit.Call(ctx, nil, func(ctx context.Context) error {
					_, shielded = task.Shield(ctx, func(ctx context.Context) (int, error) {
						close(began)
						return 0, receive(ctx, left) // what the host does when it has left
					})
					exposed = receive(ctx, nil)
					return exposed
				})
			}, asyncsync.On(tsc), asyncsync.Abandon())
			require.ErrorIs(t, err, asyncsync.ErrAbandoned)
			require.NoError(t, scope.Close(err))
			close(left)
			require.NoError(t, receive(ctx, over))
			require.NoError(t, shielded)
			require.ErrorIs(t, exposed, context.Canceled)
			return abandoned.wait()
		}))
	})
}

func TestRunAsyncFromThread_RunCorofuncFromThread(t *testing.T) {
	inWorker(t, func(t *testing.T, ctx context.Context, l loop.Backend) error {
		n, err := loop.Call(ctx, nil, func(ctx context.Context) (int, error) {
			require.Nil(t, core.Here(), "not on the worker")
			on, ok := loop.Current(ctx)
			require.True(t, ok)
			require.Same(t, l, on)
			return 1 + 2, nil
		})
		require.Equal(t, 3, n)
		return err
	})
}

func TestRunAsyncFromThread_RunSyncFromThread(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		if kind == "goroutines" {
			return // tasks there run side by side
		}
		b := libkit.NewBackend(t, kind)
		_, tsc := libkit.NewContext(t)
		require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
			steps, over := 0, false
			other := background(func() error {
				return libkit.Call(context.Background(), b, func(ctx context.Context) error {
					for !over {
						steps++
						if err := libkit.Call(ctx, b, func(context.Context) error { return nil }); err != nil {
							return err
						}
					}
					return nil
				})
			})
			err := libkit.To(ctx, func(ctx context.Context) error {
				return libkit.Call(ctx, nil, func(context.Context) error {
					for before, i := steps, 0; i < 1000; i++ {
						runtime.Gosched()
						require.Equal(t, before, steps)
					}
					over = true
					return nil
				})
			}, asyncsync.On(tsc))
			return errors.Join(err, other.wait())
		}))
	})
}

func TestRunAsyncFromThread_RunAsyncFromUnclaimedThread(t *testing.T) {
	whileItRuns(t, func(t *testing.T, l loop.Backend) {
		n, err := loop.Call(context.Background(), l, func(context.Context) (int, error) { return 7, nil })
		require.NoError(t, err)
		require.Equal(t, 7, n)
	})
}

func TestRunAsyncFromThread_RunSyncFromThreadPooling(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{})
		threads := map[int64]bool{}
		require.NoError(t, libkit.Run(context.Background(), libkit.NewBackend(t, kind), func(ctx context.Context) error {
			for range 5 {
				err := asyncsync.WithThreadSensitiveContext(ctx, func(ctx context.Context) error {
					return libkit.To(ctx, func(ctx context.Context) error {
						threads[who()] = true
						return libkit.Call(ctx, nil, func(context.Context) error { return nil })
					})
				}, asyncsync.WithPool(pool))
				if err != nil {
					return err
				}
			}
			return nil
		}))
		require.Len(t, threads, 1)
		pool.Close()
		require.Zero(t, pool.Stats().Threads)
	})
}

func TestRunAsyncFromThread_RunAsyncFromThreadException(t *testing.T) {
	inWorker(t, func(t *testing.T, ctx context.Context, l loop.Backend) error {
		for _, end := range testkit.Ends {
			if end.How == "goexit" {
				continue // it ends this worker as well: TestEndings has it
			}
			how, got := "return", any(nil)
			err := func() (err error) {
				defer func() {
					if got = recover(); got != nil {
						how = "panic"
					}
				}()
				return libkit.Call(ctx, nil, func(context.Context) error { return end.Do() })
			}()
			require.Equal(t, end.Want.How, how)
			require.Equal(t, end.Want.Value, got)
			require.True(t, err == end.Want.Err, "the very error")
		}
		return nil
	})
}

func TestRunAsyncFromThread_RunAnyioAsyncFuncFromThread(t *testing.T) {
	inWorker(t, func(t *testing.T, ctx context.Context, l loop.Backend) error {
		return libkit.Call(ctx, nil, func(ctx context.Context) error {
			return l.Park(ctx, func(wake func()) { go wake() })
		})
	})
}

func TestRunAsyncFromThread_RunAsyncNoEventLoop(t *testing.T) {
	testkit.Guard(t)
	ran := false
	fn := func(context.Context) error { ran = true; return nil }
	require.ErrorIs(t, libkit.Call(context.Background(), nil, fn), loop.ErrNoLoop)
	require.ErrorIs(t, libkit.To(context.Background(), func(ctx context.Context) error {
		return libkit.Call(ctx, nil, fn)
	}), loop.ErrNoLoop)
	require.False(t, ran)
}

func TestRunAsyncFromThread_RunAsyncClosedEventLoop(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		b := libkit.NewBackend(t, kind)
		require.NoError(t, libkit.Run(context.Background(), b, func(context.Context) error { return nil }))
		ran := false
		require.ErrorIs(t, libkit.Call(context.Background(), b, func(context.Context) error { ran = true; return nil }), loop.ErrStopped)
		require.False(t, ran)
	})
}

// D1: nobody hangs, whatever the loop does meanwhile. D13: a caller that is a worker of
// another loop is told in time that its function has ended.
func TestTokenHammer(t *testing.T) {
	rounds := 300
	if testing.Short() || runtime.GOMAXPROCS(0) == 1 {
		rounds = 30
	}
	onBothBare(t, func(t *testing.T, kind string) {
		_, tsc := libkit.NewContext(t)
		other := started(t, "thread")
		for range rounds {
			b := libkit.NewBackend(t, kind)
			var callers sync.WaitGroup
			results := make(chan error, 6)
			var answered atomic.Int32
			for who := range 6 {
				callers.Go(func() {
					once := func(ctx context.Context) error {
						return libkit.Call(ctx, b, func(context.Context) error { return nil })
					}
					for {
						var err error
						switch {
						case who < 3:
							err = once(context.Background())
						case who < 5:
							err = libkit.To(context.Background(), once, asyncsync.On(tsc))
						default:
							err = call(context.Background(), other, func(ctx context.Context) error {
								return libkit.To(ctx, once, asyncsync.On(tsc))
							})
						}
						if err != nil {
							results <- err
							return
						}
						answered.Add(1)
					}
				})
			}
			require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
				for answered.Load() < 3 {
					if err := b.Park(ctx, func(wake func()) { wake() }); err != nil {
						return err
					}
					runtime.Gosched()
				}
				return nil
			}))
			callers.Wait()
			close(results)
			for err := range results {
				require.ErrorIs(t, err, loop.ErrStopped)
			}
		}
		require.NoError(t, other.Close(nil))
	})
}

// D13: a worker of one loop calls another one. The function there belongs to that loop,
// and to the caller's ctx: the end of that wakes it, and nothing of the first loop is
// touched.
func TestWorkerCallsAnotherLoop(t *testing.T) {
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		_, tsc := libkit.NewContext(t)
		other := started(t, "thread")
		began := make(chan struct{})
		tk, err := portal.StartSoon(p, func(ctx context.Context) (int, error) {
			return 0, libkit.To(ctx, func(ctx context.Context) error {
				return libkit.Call(ctx, other.Loop(), func(ctx context.Context) error {
					on, _ := loop.Current(ctx)
					if on != other.Loop() {
						t.Error("not on the loop that was named")
					}
					close(began)
					return forever(ctx)
				})
			}, asyncsync.On(tsc))
		})
		require.NoError(t, err)
		<-began
		tk.Cancel(testkit.ErrEnd)
		_, err = tk.Wait(context.Background())
		require.ErrorIs(t, err, testkit.ErrEnd)
		require.NoError(t, call(context.Background(), p, func(ctx context.Context) error { return ctx.Err() }))
		require.NoError(t, other.Close(nil))
	})
}

func TestRunAsyncFromThread_ContextvarPropagation(t *testing.T) {
	type key struct{}
	inWorker(t, func(t *testing.T, ctx context.Context, l loop.Backend) error {
		v, err := loop.Call(context.WithValue(ctx, key{}, 6), nil, func(ctx context.Context) (any, error) {
			if err := l.Park(ctx, func(wake func()) { wake() }); err != nil {
				return nil, err
			}
			return ctx.Value(key{}), nil
		})
		require.Equal(t, 6, v)
		return err
	})
}

func TestRunAsyncFromThread_Sniffio(t *testing.T) {
	inWorker(t, func(t *testing.T, ctx context.Context, l loop.Backend) error {
		other := started(t, "thread")
		// A ctx that another loop has marked.
		marked, err := portal.Call(ctx, other, func(ctx context.Context) (context.Context, error) {
			return context.WithoutCancel(ctx), nil
		})
		if err != nil {
			return err
		}
		_, ok := loop.Current(ctx)
		require.False(t, ok, "a worker is no task")
		return errors.Join(libkit.Call(marked, l, func(ctx context.Context) error {
			on, ok := loop.Current(ctx)
			require.True(t, ok)
			require.Same(t, l, on)
			return nil
		}), other.Close(nil))
	})
}

func TestRunSyncFromThread_RunSyncFromUnclaimedThread(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		b := libkit.NewBackend(t, kind)
		event := make(chan struct{})
		set := background(func() error {
			return libkit.Call(context.Background(), b, func(context.Context) error { close(event); return nil })
		})
		require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
			return errors.Join(receive(ctx, event), set.wait())
		}))
	})
}

func TestBlockingPortal_CallCorofunc(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		_, tsc := libkit.NewContext(t)
		b := libkit.NewBackend(t, kind)
		require.NoError(t, libkit.Run(context.Background(), b, func(ctx context.Context) error {
			p, err := portal.Open(ctx)
			if err != nil {
				return err
			}
			return errors.Join(libkit.To(ctx, func(ctx context.Context) error {
				n, err := portal.Call(ctx, p, func(ctx context.Context) (int, error) {
					on, _ := loop.Current(ctx)
					require.Same(t, b, on)
					return 1 + 2, nil
				})
				require.Equal(t, 3, n)
				return err
			}, asyncsync.On(tsc)), p.Close(nil))
		}))
	})
}

func TestBlockingPortal_AexitWithException(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		cause := errors.New("the body has failed")
		var callers []*running
		require.NoError(t, libkit.Run(context.Background(), libkit.NewBackend(t, kind), func(ctx context.Context) error {
			p, err := portal.Open(ctx)
			require.NoError(t, err)
			began := make(chan struct{}, 2)
			for range 2 {
				callers = append(callers, background(func() error {
					return call(context.Background(), p, func(ctx context.Context) error {
						began <- struct{}{}
						return forever(ctx)
					})
				}))
			}
			for range 2 {
				require.NoError(t, receive(ctx, began))
			}
			return p.Close(cause)
		}))
		for _, c := range callers {
			require.ErrorIs(t, c.wait(), cause)
		}
	})
}

func TestBlockingPortal_AexitWithoutException(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		require.NoError(t, libkit.Run(context.Background(), libkit.NewBackend(t, kind), func(ctx context.Context) error {
			p, err := portal.Open(ctx)
			require.NoError(t, err)
			var ended atomic.Int32
			began := make(chan struct{}, 2)
			var callers []*running
			for range 2 {
				callers = append(callers, background(func() error {
					return call(context.Background(), p, func(ctx context.Context) error {
						began <- struct{}{}
						defer ended.Add(1)
						return receive(ctx, p.Stopping())
					})
				}))
			}
			for range 2 {
				require.NoError(t, receive(ctx, began))
			}
			require.NoError(t, p.Close(nil))
			require.EqualValues(t, 2, ended.Load())
			for _, c := range callers {
				require.NoError(t, c.wait())
			}
			return nil
		}))
	})
}

func TestBlockingPortal_CallPortalFromEventLoopThread(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		p := started(t, kind)
		answer := func(context.Context) (int, error) { return 7, nil }
		n, err := loop.Call(context.Background(), p.Loop(), func(ctx context.Context) (int, error) {
			return portal.Call(ctx, p, answer) // a task parks
		})
		require.NoError(t, err)
		require.Equal(t, 7, n)
		err = posted(p.Loop(), func() error {
			_, err := portal.Call(context.Background(), p, answer)
			return err
		})
		if kind == "thread" {
			require.ErrorIs(t, err, loop.ErrOnLoop)
		} else {
			require.NoError(t, err)
		}
		require.NoError(t, p.Close(nil))
	})
}

func TestBlockingPortal_StartWithNewEventLoop(t *testing.T) {
	testkit.Guard(t)
	libkit.NoLeaks(t)
	p, err := portal.Start()
	require.NoError(t, err)
	var shared int // by two tasks that are never side by side
	for range 2 {
		require.NoError(t, call(context.Background(), p, func(ctx context.Context) error {
			on, ok := loop.Current(ctx)
			require.True(t, ok)
			require.Same(t, p.Loop(), on)
			shared++
			return nil
		}))
	}
	require.Equal(t, 2, shared)
	require.NoError(t, p.Close(nil))
	<-p.Loop().Done()
}

// labelled reports whether a goroutine has that value of the label asyncsync.loop.
func labelled(name string) bool {
	var profile strings.Builder
	_ = pprof.Lookup("goroutine").WriteTo(&profile, 1)
	return strings.Contains(profile.String(), `"asyncsync.loop":"`+name+`"`)
}

func TestBlockingPortal_StartWithThreadName(t *testing.T) {
	testkit.Guard(t)
	p, err := portal.Start(portal.Named("foo"))
	require.NoError(t, err)
	require.Equal(t, "foo", p.String())
	require.NoError(t, call(context.Background(), p, func(context.Context) error {
		require.True(t, labelled("foo"))
		return nil
	}))
	require.NoError(t, p.Close(nil))
}

func TestBlockingPortal_StartWithoutThreadName(t *testing.T) {
	testkit.Guard(t)
	names := map[string]bool{}
	for range 2 {
		p, err := portal.Start()
		require.NoError(t, err)
		require.NotEmpty(t, p.String())
		names[p.String()] = true
		require.NoError(t, p.Close(nil))
	}
	require.Len(t, names, 2)
}

func TestBlockingPortal_StartWithNonexistentBackend(t *testing.T) {
	testkit.Guard(t)
	libkit.NoLeaks(t)
	b := loop.NewThread()
	require.NoError(t, libkit.Run(context.Background(), b, func(context.Context) error { return nil }))
	_, err := portal.Start(portal.WithBackend(b))
	require.ErrorIs(t, err, loop.ErrStopped)
	o := testkit.OutcomeOf(func() error {
		_, err := portal.Start(portal.WithBackend(strange{}))
		return err
	})
	require.Equal(t, "panic", o.How, "the caller ends as the start does")
}

func TestBlockingPortal_CallStoppedPortal(t *testing.T) {
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		require.NoError(t, p.Close(nil))
		require.ErrorIs(t, call(context.Background(), p, func(context.Context) error { return nil }), loop.ErrStopped)
	})
}

func TestBlockingPortal_StartTaskSoon(t *testing.T) {
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		one, two := make(chan struct{}), make(chan struct{})
		tk, err := portal.StartSoon(p, func(ctx context.Context) (string, error) {
			if err := receive(ctx, one); err != nil {
				return "", err
			}
			close(two)
			return "test", nil
		})
		require.NoError(t, err)
		require.NoError(t, call(context.Background(), p, func(context.Context) error { close(one); return nil }))
		require.NoError(t, call(context.Background(), p, func(ctx context.Context) error { return receive(ctx, two) }))
		v, err := tk.Wait(context.Background())
		require.NoError(t, err)
		require.Equal(t, "test", v)
	})
}

func TestBlockingPortal_StartTaskSoonCancelLater(t *testing.T) {
	testkit.Guard(t)
	for _, kind := range libkit.Backends {
		synctest.Test(t, func(t *testing.T) {
			before := time.Now()
			p := started(t, kind)
			tk, err := portal.StartSoon(p, func(ctx context.Context) (int, error) { return 0, sleep(ctx, 2*time.Second) })
			require.NoError(t, err)
			synctest.Wait()
			require.True(t, tk.Cancel(nil))
			require.NoError(t, p.Close(nil))
			require.True(t, tk.Cancelled())
			require.Zero(t, time.Since(before))
		})
	}
}

func TestBlockingPortal_StartTaskSoonCancelImmediately(t *testing.T) {
	rounds := 10_000
	if testing.Short() {
		rounds = 1000
	}
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		for range rounds {
			tk, err := portal.StartSoon(p, func(ctx context.Context) (int, error) { return 1, forever(ctx) })
			require.NoError(t, err)
			tk.Cancel(testkit.ErrEnd)
			_, err = tk.Wait(context.Background()) // hangs if the cancellation is lost
			require.ErrorIs(t, err, testkit.ErrEnd)
		}
	})
}

func TestBlockingPortal_StartTaskSoonCancelAfterStop(t *testing.T) {
	testkit.Guard(t)
	for _, kind := range libkit.Backends {
		synctest.Test(t, func(t *testing.T) {
			before := time.Now()
			p := started(t, kind)
			var saw error
			tk, err := portal.StartSoon(p, func(ctx context.Context) (int, error) {
				saw = sleep(ctx, 10*time.Second)
				return 0, saw
			})
			require.NoError(t, err)
			synctest.Wait()
			p.Stop(false)
			require.True(t, tk.Cancel(nil))
			require.NoError(t, p.Close(nil))
			require.ErrorIs(t, saw, context.Canceled)
			require.Zero(t, time.Since(before))
		})
	}
}

func TestBlockingPortal_StartTaskSoonWithName(t *testing.T) {
	names := make(chan string, 64)
	t.Cleanup(core.AddHooks(core.Hooks{Started: func(i core.CallInfo) {
		select {
		case names <- i.Name:
		default:
		}
	}}))
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		tk, err := portal.StartSoon(p, func(ctx context.Context) (string, error) {
			return task.Current(ctx).Name, nil
		}, task.Named("testname"))
		require.NoError(t, err)
		name, err := tk.Wait(context.Background())
		require.NoError(t, err)
		require.Equal(t, "testname", name)
		_, _, err = portal.StartTask(context.Background(), p, func(ctx context.Context, started func(int) error) (int, error) {
			return 0, started(0)
		}, task.Named("testname"))
		require.NoError(t, err)
		for seen := 0; seen < 2; {
			if <-names == "testname" {
				seen++
			}
		}
	})
}

func TestBlockingPortal_AsyncContextManagerSuccess(t *testing.T) {
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		var opener, closer any
		r := &resource{}
		v, closeIt, err := portal.Wrap(context.Background(), p, func(ctx context.Context) (string, func(context.Context, error) error, error) {
			opener = who()
			s, closing, err := r.open(ctx)
			return s, func(ctx context.Context, err error) error {
				closer = who()
				return closing(ctx, err)
			}, err
		})
		require.NoError(t, err)
		require.Equal(t, "test", v)
		require.NoError(t, closeIt(nil))
		require.Equal(t, opener, closer, "one task")
		require.EqualValues(t, 1, r.opened.Load())
		require.EqualValues(t, 1, r.closed.Load())
	})
}

func TestBlockingPortal_AsyncContextManagerError(t *testing.T) {
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		r := &resource{}
		r.finish = func() error { return r.got }
		_, closeIt, err := portal.Wrap(context.Background(), p, r.open)
		require.NoError(t, err)
		require.True(t, closeIt(testkit.ErrEnd) == testkit.ErrEnd, "the very error")
		require.True(t, r.got == testkit.ErrEnd)
	})
}

func TestBlockingPortal_AsyncContextManagerErrorIgnore(t *testing.T) {
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		r := &resource{}
		_, closeIt, err := portal.Wrap(context.Background(), p, r.open)
		require.NoError(t, err)
		require.NoError(t, closeIt(testkit.ErrEnd))
		require.True(t, r.got == testkit.ErrEnd)
	})
}

func TestBlockingPortal_AsyncContextManagerExceptionInTaskGroup(t *testing.T) {
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		failed := errors.New("a child has failed")
		_, closeIt, err := portal.Wrap(context.Background(), p, func(ctx context.Context) (int, func(context.Context, error) error, error) {
			_, g := task.NewGroup(ctx)
			g.Go(func(context.Context) error { return failed })
			return 0, func(ctx context.Context, err error) error { return errors.Join(err, g.Wait(ctx)) }, nil
		})
		require.NoError(t, err)
		require.ErrorIs(t, closeIt(nil), failed)
	})
}

func TestBlockingPortal_StartNoValue(t *testing.T) {
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		tk, _, err := portal.StartTask(context.Background(), p, func(ctx context.Context, started func(struct{}) error) (any, error) {
			return nil, started(struct{}{})
		})
		require.NoError(t, err)
		v, err := tk.Wait(context.Background())
		require.NoError(t, err)
		require.Nil(t, v)
	})
}

func TestBlockingPortal_StartWithValue(t *testing.T) {
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		_, v, err := portal.StartTask(context.Background(), p, func(ctx context.Context, started func(string) error) (any, error) {
			return nil, started("foo")
		})
		require.NoError(t, err)
		require.Equal(t, "foo", v)
	})
}

func TestBlockingPortal_StartCrashBeforeStartedCall(t *testing.T) {
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		tk, _, err := portal.StartTask(context.Background(), p, func(context.Context, func(int) error) (int, error) {
			return 0, testkit.ErrEnd
		})
		require.True(t, err == testkit.ErrEnd, "the very error")
		<-tk.Done()
		_, err = tk.Wait(context.Background())
		require.True(t, err == testkit.ErrEnd)
		require.NoError(t, p.Close(nil), "the starter was told")
	})
}

func TestBlockingPortal_StartCrashAfterStartedCall(t *testing.T) {
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		tk, v, err := portal.StartTask(context.Background(), p, func(ctx context.Context, started func(int) error) (int, error) {
			return 0, errors.Join(started(2), testkit.ErrEnd)
		})
		require.NoError(t, err)
		require.Equal(t, 2, v)
		_, err = tk.Wait(context.Background())
		require.ErrorIs(t, err, testkit.ErrEnd)
		require.NoError(t, call(context.Background(), p, func(context.Context) error { return nil }))
	})
}

func TestBlockingPortal_StartNoStartedCall(t *testing.T) {
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		_, _, err := portal.StartTask(context.Background(), p, func(context.Context, func(int) error) (int, error) {
			return 0, nil
		})
		require.ErrorIs(t, err, task.ErrNotStarted)
	})
}

func TestBlockingPortal_ContextvarPropagation(t *testing.T) {
	type key struct{}
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		ctx := context.WithValue(context.Background(), key{}, 6)
		v, err := portal.Call(ctx, p, func(ctx context.Context) (any, error) {
			before := ctx.Value(key{})
			err := p.Loop().Park(ctx, func(wake func()) { wake() })
			require.Equal(t, before, ctx.Value(key{}))
			return before, err
		})
		require.NoError(t, err)
		require.Equal(t, 6, v)
	})
}

func TestBlockingPortal_AsyncioRunSyncCalled(t *testing.T) {
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		log := libkit.Listen(t)
		tk, err := portal.StartSoon(p, func(context.Context) (int, error) { return 0, context.Canceled })
		require.NoError(t, err)
		_, err = tk.Wait(context.Background())
		require.ErrorIs(t, err, context.Canceled)
		require.False(t, tk.Cancelled())
		panics, goexits := log.Unheard()
		require.Empty(t, panics)
		require.Zero(t, goexits)
		require.NoError(t, call(context.Background(), p, func(context.Context) error { return nil }))
	})
}

func TestBlockingPortal_RaiseBaseexceptionFromTask(t *testing.T) {
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		for _, end := range testkit.Ends {
			for range 2 {
				end.Check(t, testkit.OutcomeOf(func() error {
					return call(context.Background(), p, func(context.Context) error { return end.Do() })
				}))
			}
		}
		require.NoError(t, p.Close(nil))
	})
}

func TestBlockingPortal_FromAsync(t *testing.T) {
	for _, outer := range libkit.Backends {
		t.Run("from "+outer, func(t *testing.T) {
			onBothBare(t, func(t *testing.T, kind string) {
				require.NoError(t, libkit.Run(context.Background(), libkit.NewBackend(t, outer), func(ctx context.Context) error {
					p, err := portal.Start(portal.WithBackend(libkit.NewBackend(t, kind)))
					if err != nil {
						return err
					}
					back, err := portal.Open(ctx)
					if err != nil {
						return err
					}
					// There, back here, and there again: each parks.
					n, err := portal.Call(ctx, p, func(ctx context.Context) (int, error) {
						return portal.Call(ctx, back, func(ctx context.Context) (int, error) {
							return portal.Call(ctx, p, func(context.Context) (int, error) { return 7, nil })
						})
					})
					require.Equal(t, 7, n)
					return errors.Join(err, back.Close(nil), p.Close(nil))
				}))
			})
		})
	}
}

func TestBlockingPortal_CancelPortalFuture(t *testing.T) {
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		tk, err := portal.StartSoon(p, func(ctx context.Context) (int, error) { return 0, forever(ctx) })
		require.NoError(t, err)
		p.Stop(true)
		<-tk.Done()
		_, err = tk.Wait(context.Background())
		require.ErrorIs(t, err, loop.ErrStopped)
	})
}

func TestToThread_RunInThreadCancelled(t *testing.T) {
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		ran := false
		for _, options := range [][]asyncsync.Option{nil, {asyncsync.Insensitive()}} {
			ctx, cancel := context.WithCancel(context.Background())
			err := call(ctx, p, func(ctx context.Context) error {
				cancel()
				return libkit.To(ctx, func(context.Context) error { ran = true; return nil }, options...)
			})
			require.ErrorIs(t, err, context.Canceled)
		}
		require.False(t, ran)
	})
}

func TestToThread_RunInThreadException(t *testing.T) {
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		require.NoError(t, call(context.Background(), p, func(ctx context.Context) error {
			require.True(t, libkit.To(ctx, func(context.Context) error { return testkit.ErrEnd }) == testkit.ErrEnd, "the very error")
			return nil
		}))
	})
}

func TestToThread_RunInCustomLimiter(t *testing.T) {
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		limiter := task.NewLimiter(3)
		var (
			mu        sync.Mutex
			now, most int
			once      sync.Once
		)
		reached := make(chan struct{}) // closed when three run at a time
		var tasks []*task.Task[int]
		for range 4 {
			tk, err := portal.StartSoon(p, func(ctx context.Context) (int, error) {
				return asyncsync.ToThread(ctx, func(context.Context) (int, error) {
					mu.Lock()
					now++
					most = max(most, now)
					if now == 3 {
						once.Do(func() { close(reached) })
					}
					mu.Unlock()
					<-reached
					mu.Lock()
					now--
					mu.Unlock()
					return 0, nil
				}, asyncsync.Insensitive(), asyncsync.WithLimiter(limiter))
			})
			require.NoError(t, err)
			tasks = append(tasks, tk)
		}
		for _, tk := range tasks {
			_, err := tk.Wait(context.Background())
			require.NoError(t, err)
		}
		require.Equal(t, 3, most)
		require.Zero(t, limiter.Stats().Used)
	})
}

func TestToThread_CancelWorkerThread(t *testing.T) {
	for _, abandon := range []bool{false, true} {
		name, options := "noabandon", []asyncsync.Option{asyncsync.Insensitive()}
		if abandon {
			name, options = "abandon", append(options, asyncsync.Abandon())
		}
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, p *portal.Portal) {
				began, release, over := make(chan struct{}), make(chan struct{}), make(chan struct{})
				order := make(chan string, 2)
				tk, err := portal.StartSoon(p, func(ctx context.Context) (int, error) {
					err := libkit.To(ctx, func(context.Context) error {
						defer close(over)
						close(began)
						<-release
						order <- "thread"
						return nil
					}, options...)
					order <- "task"
					return 0, err
				})
				require.NoError(t, err)
				<-began
				tk.Cancel(nil)
				first, second := "thread", "task"
				if abandon {
					_, err := tk.Wait(context.Background())
					require.ErrorIs(t, err, asyncsync.ErrAbandoned)
					first, second = second, first
				}
				close(release)
				<-over
				_, _ = tk.Wait(context.Background())
				require.Equal(t, first, <-order)
				require.Equal(t, second, <-order)
			})
		})
	}
}

func TestToThread_CancelWaitOnThread(t *testing.T) {
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		began, send, result := make(chan struct{}), make(chan struct{}), make(chan bool, 1)
		tk, err := portal.StartSoon(p, func(ctx context.Context) (int, error) {
			return 0, libkit.To(ctx, func(context.Context) error {
				close(began)
				<-send
				result <- true
				return nil
			}, asyncsync.Insensitive(), asyncsync.Abandon())
		})
		require.NoError(t, err)
		<-began
		tk.Cancel(nil)
		<-tk.Done()
		close(send)
		require.True(t, <-result)
	})
}

func TestToThread_ContextvarPropagation(t *testing.T) {
	type key struct{}
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		v, err := portal.Call(context.WithValue(context.Background(), key{}, 6), p, func(ctx context.Context) (any, error) {
			return asyncsync.ToThread(ctx, func(ctx context.Context) (any, error) { return ctx.Value(key{}), nil })
		})
		require.NoError(t, err)
		require.Equal(t, 6, v)
	})
}

func TestToThread_AsynclibDetection(t *testing.T) {
	inWorker(t, func(t *testing.T, ctx context.Context, l loop.Backend) error {
		_, ok := loop.Current(ctx)
		require.False(t, ok)
		host, ok := loop.Host(ctx)
		require.True(t, ok)
		require.Same(t, l, host)
		return nil
	})
}

func TestToThread_AsyncioCancelNativeTask(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		began, release, over := make(chan struct{}), make(chan struct{}), make(chan struct{})
		ctx, cancel := context.WithCancelCause(context.Background())
		main := background(func() error {
			return libkit.Run(ctx, libkit.NewBackend(t, kind), func(ctx context.Context) error {
				return libkit.To(ctx, func(context.Context) error {
					defer close(over)
					close(began)
					<-release
					return nil
				}, asyncsync.Insensitive(), asyncsync.Abandon())
			})
		})
		<-began
		cancel(testkit.ErrEnd)
		require.ErrorIs(t, main.wait(), testkit.ErrEnd)
		close(release)
		<-over
	})
}

func TestToThread_AsyncioNoRootTask(t *testing.T) {
	testkit.Guard(t)
	libkit.NoLeaks(t)
	n, err := asyncsync.ToThread(context.Background(), func(context.Context) (int, error) { return 7, nil }, asyncsync.Insensitive())
	require.NoError(t, err)
	require.Equal(t, 7, n)
}

func TestToThread_AsyncioRunSyncMultiple(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		_, tsc := libkit.NewContext(t)
		for range 3 {
			require.NoError(t, libkit.Run(context.Background(), libkit.NewBackend(t, kind), func(ctx context.Context) error {
				return libkit.To(ctx, func(context.Context) error { return nil }, asyncsync.On(tsc))
			}))
		}
	})
}

func TestToThread_Stopiteration(t *testing.T) {
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		for _, end := range testkit.Ends {
			end.Check(t, testkit.OutcomeOf(func() error {
				return call(context.Background(), p, func(ctx context.Context) error {
					return libkit.To(ctx, func(context.Context) error { return end.Do() }, asyncsync.Insensitive())
				})
			}))
		}
	})
}

func TestProvider_SingleThread(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		v := portal.NewProvider(portal.WithBackend(libkit.NewBackend(t, kind)))
		loops := map[loop.Loop]bool{}
		for range 3 {
			p, release, err := v.Acquire(context.Background())
			require.NoError(t, err)
			require.NoError(t, call(context.Background(), p, func(context.Context) error { return nil }))
			loops[p.Loop()] = true
			require.NoError(t, release())
		}
		require.Len(t, loops, 3)
	})
}

func TestProvider_SingleThreadOverlapping(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		v := portal.NewProvider(portal.WithBackend(libkit.NewBackend(t, kind)))
		p, release, err := v.Acquire(context.Background())
		require.NoError(t, err)
		inner, releaseInner, err := v.Acquire(context.Background())
		require.NoError(t, err)
		require.Same(t, p, inner)
		require.NoError(t, releaseInner())
		require.NoError(t, call(context.Background(), p, func(context.Context) error { return nil }))
		require.NoError(t, release())
		require.ErrorIs(t, call(context.Background(), p, func(context.Context) error { return nil }), loop.ErrStopped)
	})
}

func TestProvider_MultipleThreads(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		v := portal.NewProvider(portal.WithBackend(libkit.NewBackend(t, kind)))
		p, release, err := v.Acquire(context.Background())
		require.NoError(t, err)
		var users sync.WaitGroup
		for range 3 {
			users.Go(func() {
				other, release, err := v.Acquire(context.Background())
				if err != nil || other != p {
					t.Errorf("another portal, or %v", err)
					return
				}
				if err := release(); err != nil {
					t.Error(err)
				}
			})
		}
		users.Wait()
		require.NoError(t, release())
	})
}

func TestToThread_RunSyncWorkerCyclicReferences(t *testing.T) {
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		gone := make(chan struct{}, 2)
		func() {
			captured, result := new([1 << 10]byte), new([1 << 10]byte)
			runtime.AddCleanup(captured, func(int) { gone <- struct{}{} }, 0)
			runtime.AddCleanup(result, func(int) { gone <- struct{}{} }, 0)
			got, err := portal.Call(context.Background(), p, func(context.Context) (*[1 << 10]byte, error) {
				captured[0] = 1
				return result, nil
			})
			require.NoError(t, err)
			require.Same(t, result, got)
		}()
		collected := 0
		for range 1000 {
			runtime.GC()
			select {
			case <-gone:
				collected++
			default:
			}
			if collected == 2 {
				return
			}
			time.Sleep(time.Millisecond) // a bounded poll: cleanups run some time after
		}
		t.Error("an idle loop keeps what a call was made of")
	})
}

func TestToThread_AsyncioRunDoesNotLeakEventLoop(t *testing.T) {
	testkit.Guard(t)
	gone := make(chan struct{}, 1)
	func() {
		p, err := portal.Start()
		require.NoError(t, err)
		runtime.AddCleanup(p, func(int) { gone <- struct{}{} }, 0)
		require.NoError(t, call(context.Background(), p, func(context.Context) error { return nil }))
		require.NoError(t, p.Close(nil))
	}()
	for range 1000 {
		runtime.GC()
		select {
		case <-gone:
			return
		default:
		}
		time.Sleep(time.Millisecond) // a bounded poll: cleanups run some time after
	}
	t.Error("a portal that was closed is not collected")
}

func TestToThread_AsyncioNoRecycleStoppingWorker(t *testing.T) {
	rounds := 2000
	if testing.Short() {
		rounds = 200
	}
	testkit.Guard(t)
	libkit.NoLeaks(t)
	// Threads end almost as soon as they are idle, and come and go under the callers.
	pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 4, MaxIdle: 4, IdleTimeout: time.Microsecond})
	var callers sync.WaitGroup
	var ran atomic.Int32
	for range 8 {
		callers.Go(func() {
			for range rounds {
				err := asyncsync.WithThreadSensitiveContext(context.Background(), func(ctx context.Context) error {
					return libkit.To(ctx, func(context.Context) error { ran.Add(1); return nil })
				}, asyncsync.WithPool(pool))
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	callers.Wait()
	require.EqualValues(t, 8*rounds, ran.Load())
	pool.Close()
}

// D3: a limiter whose total is raised while more tokens are taken than there are grants
// none.
func TestLimiterRaisedWhileOverdrawn(t *testing.T) {
	testkit.Guard(t)
	synctest.Test(t, func(t *testing.T) {
		l := task.NewLimiter(2)
		require.True(t, l.TryAcquire())
		require.True(t, l.TryAcquire())
		l.SetTotal(0)
		got := false
		go func() {
			require.NoError(t, l.Acquire(t.Context()))
			got = true
		}()
		synctest.Wait()
		l.SetTotal(1)
		synctest.Wait()
		require.False(t, got)
		require.Equal(t, task.LimiterStats{Total: 1, Used: 2, Waiting: 1}, l.Stats())
		l.Release()
		l.Release()
		synctest.Wait()
		require.True(t, got)
	})
}

// D4: an abandoned function keeps its token until it has ended.
func TestAbandonedKeepsItsToken(t *testing.T) {
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		l := task.NewLimiter(1)
		began, release, over := make(chan struct{}), make(chan struct{}), make(chan struct{})
		tk, err := portal.StartSoon(p, func(ctx context.Context) (int, error) {
			return 0, libkit.To(ctx, func(context.Context) error {
				defer close(over)
				close(began)
				<-release
				return nil
			}, asyncsync.Insensitive(), asyncsync.WithLimiter(l), asyncsync.Abandon())
		})
		require.NoError(t, err)
		<-began
		tk.Cancel(nil)
		_, err = tk.Wait(context.Background())
		require.ErrorIs(t, err, asyncsync.ErrAbandoned)
		require.Equal(t, 1, l.Stats().Used)
		require.False(t, l.TryAcquire())
		close(release)
		<-over
		require.NoError(t, l.Acquire(context.Background()))
		l.Release()
	})
}
