package asyncsync_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/task"
)

// rounds is how often a race is run.
func rounds(t *testing.T) int {
	if testing.Short() {
		return 100
	}
	return 1000
}

// Of all who close a ring at the same moment exactly one is told, each time,
// and the others go on.
func TestDeadlockBothEndsAtOnce(t *testing.T) {
	guard(t)
	const most = 4
	var ctxs [most]context.Context
	var tscs [most]*asyncsync.ThreadSensitiveContext
	for i := range most {
		ctxs[i], tscs[i] = newContext(t, asyncsync.WithName(fmt.Sprint("ring", i)))
	}
	for round := range rounds(t) {
		n := 2 + round%(most-1)
		all := newMeeting(n)
		var rs []*runningFunc
		for i := range n {
			rs = append(rs, start(func() error {
				return to(ctxs[i], func(ctx context.Context) error {
					all.attend()
					switch (round / 3) % 3 {
					case 1:
						return from(ctx, func(ctx context.Context) error {
							return to(ctx, ok, asyncsync.On(tscs[(i+1)%n]))
						})
					case 2:
						_, err := task.Go(ctx, func(ctx context.Context) (int, error) {
							return 0, to(ctx, ok, asyncsync.On(tscs[(i+1)%n]))
						}).Wait(ctx)
						return err
					}
					return to(ctx, ok, asyncsync.On(tscs[(i+1)%n]))
				})
			}))
		}
		told := 0
		for _, r := range rs {
			switch o := r.Wait(); {
			case errors.Is(o.Err, deadlock.ErrDeadlock):
				told++
			default:
				require.NoError(t, o.Err)
			}
		}
		require.Equal(t, 1, told, "round %d, %d threads", round, n)
	}
}

// The same with tasks that wait for each other.
func TestDeadlockTasksAtOnce(t *testing.T) {
	guard(t)
	ctx := context.Background()
	for round := range rounds(t) {
		n := 2 + round%3
		all := newMeeting(n + 1)
		tasks := make([]*task.Task[int], n)
		for i := range n {
			tasks[i] = task.Go(ctx, func(ctx context.Context) (int, error) {
				all.attend()
				_, err := tasks[(i+1)%n].Wait(ctx)
				if errors.Is(err, deadlock.ErrDeadlock) {
					return 1, nil
				}
				return 0, err
			})
		}
		all.attend()
		told := 0
		for _, tk := range tasks {
			v, err := tk.Wait(ctx)
			require.NoError(t, err)
			told += v
		}
		require.Equal(t, 1, told)
	}
}

// Goroutines that share a ctx wait for each other's calls in every direction,
// and are no cycle: who waits is not who the ctx says.
func TestDeadlockSharedContextIsNoCycle(t *testing.T) {
	guard(t)
	ctx, tsc := newContext(t)
	for range rounds(t) / 10 {
		tk := task.Go(ctx, func(ctx context.Context) (int, error) {
			var all sync.WaitGroup
			errs := make(chan error, 32)
			for i := range 8 {
				all.Go(func() {
					// On the thread, below the same submitter, in any order.
					errs <- to(ctx, func(ctx context.Context) error {
						if i%2 == 0 {
							return from(ctx, func(ctx context.Context) error { return to(ctx, ok) })
						}
						return nil
					})
				})
				all.Go(func() {
					sub := task.Go(ctx, func(ctx context.Context) (int, error) { return 0, to(ctx, ok) })
					_, err := sub.Wait(ctx)
					errs <- err
				})
			}
			all.Wait()
			close(errs)
			var err error
			for e := range errs {
				err = errors.Join(err, e)
			}
			return 0, err
		})
		_, err := tk.Wait(ctx)
		require.NoError(t, err)
	}
	require.Zero(t, tsc.Stats().Queued)
}

// A cycle that one of its waits has been told to leave, by the end of its ctx,
// is none, even if that one has not come to it.
func TestDeadlockCancelBeforeTheCheck(t *testing.T) {
	guard(t)
	outer, tsc := newContext(t)
	_, otherTsc := newContext(t)
	// Each begins a wait for tk that the end of ctx ends.
	waits := map[string]func(ctx context.Context, tk *task.Task[int]) error{
		"task": func(ctx context.Context, tk *task.Task[int]) error {
			_, err := tk.Wait(ctx)
			return err
		},
		"queued call": func(ctx context.Context, tk *task.Task[int]) error {
			release, ended := occupyWaiting(otherTsc, tk)
			defer func() { release(); ended.Wait() }()
			return to(ctx, neverRunsQuietly, asyncsync.On(otherTsc))
		},
		"on another thread": func(ctx context.Context, tk *task.Task[int]) error {
			return to(context.WithoutCancel(ctx), func(context.Context) error {
				_, err := tk.Wait(ctx)
				return err
			}, asyncsync.On(otherTsc))
		},
	}
	for name, wait := range waits {
		t.Run(name, func(t *testing.T) {
			for round := range rounds(t) {
				leave, cancel := context.WithCancelCause(context.Background())
				waiting := make(chan struct{})
				tk := task.Go(outer, func(ctx context.Context) (int, error) {
					<-waiting
					for range round % 64 {
						runtime.Gosched()
					}
					cancel(errCause)
					return 0, to(outer, ok) // a stranger to the thread that waits for us
				})
				err := to(outer, func(in context.Context) error {
					return from(in, func(context.Context) error {
						close(waiting)
						return wait(leave, tk)
					})
				})
				if err != nil {
					require.ErrorIs(t, err, errCause)
				}
				_, err = tk.Wait(context.Background())
				require.NoError(t, err, "round %d", round)
			}
		})
	}
	require.Zero(t, tsc.Stats().Queued)
}

func neverRunsQuietly(context.Context) error { return nil }

// occupyWaiting has a function on tsc's thread wait for tk, until it is
// released.
func occupyWaiting(tsc *asyncsync.ThreadSensitiveContext, tk *task.Task[int]) (release func(), ended *runningFunc) {
	begun := make(chan struct{})
	leave, cancel := context.WithCancel(context.Background())
	ended = start(func() error {
		return to(context.Background(), func(context.Context) error {
			close(begun)
			tk.Wait(leave)
			return nil
		}, asyncsync.On(tsc))
	})
	<-begun
	return cancel, ended
}

// A function that ends, in whatever way, ends its wait and those of the
// functions that a Goexit takes with it: who is told of that first, and then
// calls the thread, closes nothing.
func TestDeadlockEndingBeforeTheCheck(t *testing.T) {
	guard(t)
	outer, _ := newContext(t)
	for _, e := range ends {
		t.Run(e.How, func(t *testing.T) {
			for range rounds(t) {
				told := make(chan struct{})
				late := task.Go(context.Background(), func(ctx context.Context) (int, error) {
					<-told
					return 0, to(outer, ok)
				})
				start(func() error {
					return to(outer, func(in context.Context) error {
						// The task has a call served on top of this function.
						waitsFor := task.Go(in, func(ctx context.Context) (int, error) {
							outcomeOf(func() error {
								return to(ctx, func(context.Context) error { return e.Do() })
							})
							close(told)
							if e.How != "goexit" {
								// The function waits on, and so must nobody for us.
								return 0, nil
							}
							return late.Wait(context.Background())
						})
						_, err := waitsFor.Wait(in)
						return err
					})
				}).Wait()
				_, err := late.Wait(context.Background())
				require.NoError(t, err)
			}
		})
	}
}

// Threads that are busy, on a machine that is, are not taken for stuck ones: a
// function that waits for a lock of this module, for a collection, or has just
// begun a wait, is none that waits unseen. WATCH_LOAD says how long, instead of a
// second.
func TestNoVerdictsUnderLoad(t *testing.T) {
	long := time.Second
	if s := os.Getenv("WATCH_LOAD"); s != "" {
		var err error
		long, err = time.ParseDuration(s)
		require.NoError(t, err)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	var told atomic.Pointer[deadlock.Verdict]
	stop := deadlock.Watch(deadlock.Config{Interval: 50 * time.Millisecond, OnVerdict: func(v deadlock.Verdict) { told.CompareAndSwap(nil, &v) }})
	defer stop()
	const threads = 8
	var ctxs [threads]context.Context
	var tscs [threads]*asyncsync.ThreadSensitiveContext
	for i := range threads {
		ctxs[i], tscs[i] = newContext(t)
	}
	busy := func(ctx context.Context, next *asyncsync.ThreadSensitiveContext, collect bool) error {
		var tasks []*task.Task[int]
		for range 6 {
			tasks = append(tasks,
				task.Go(ctx, func(ctx context.Context) (int, error) {
					return 0, errors.Join(to(ctx, ok), to(ctx, ok, asyncsync.On(next)))
				}),
				asyncsync.Go(ctx, func(context.Context) (int, error) { return 0, nil }))
			for n := 0; n < 100_000; n++ { // with calls from below in the queue
				_ = n
			}
			if collect {
				runtime.GC()
			}
		}
		var errs error
		for _, tk := range tasks {
			_, err := tk.Wait(ctx)
			errs = errors.Join(errs, err)
		}
		return errs
	}
	end := time.Now().Add(long)
	var all sync.WaitGroup
	for i := range threads {
		for k := range 8 {
			all.Go(func() {
				// A thread that calls the next one, and not the other way round.
				next := tscs[min(i+1, threads-1)]
				for time.Now().Before(end) && told.Load() == nil {
					if err := to(ctxs[i], func(ctx context.Context) error { return busy(ctx, next, k == 0) }); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	all.Wait()
	if v := told.Load(); v != nil {
		t.Fatal(*v)
	}
}

// An endingCtx has ended, and its Done is closed a little later: as other goroutines see
// a context of the standard library for a moment.
type endingCtx struct {
	context.Context
	done  chan struct{}
	ended atomic.Bool
}

func (c *endingCtx) Done() <-chan struct{} { return c.done }

func (c *endingCtx) Err() error {
	if c.ended.Load() {
		return context.Canceled
	}
	return nil
}

// Two members of a group wait for the task that waits for the group. The wait of one is
// about to end, for its ctx has. The other closes a cycle all the same, whichever the
// search meets first.
func TestDeadlockBesideAWaitThatEnds(t *testing.T) {
	for _, ends := range []int{0, 1} {
		t.Run(fmt.Sprint(ends), func(t *testing.T) {
			guard(t)
			synctest.Test(t, func(t *testing.T) {
				ending := &endingCtx{Context: context.Background(), done: make(chan struct{})}
				self, wait := make(chan *task.Task[int], 1), make(chan struct{})
				var others [2]error
				tk := task.Go(context.Background(), func(ctx context.Context) (int, error) {
					me := <-self
					_, g := task.NewGroup(ctx, task.NoCancel())
					for i := range others {
						g.Go(func(context.Context) error {
							ctx := context.Context(ending)
							if i != ends {
								ctx = context.Background()
							}
							_, others[i] = me.Wait(ctx)
							return nil
						})
					}
					<-wait
					return 0, g.Wait(context.Background())
				})
				self <- tk
				synctest.Wait() // both members wait
				ending.ended.Store(true)
				close(wait)
				_, err := tk.Wait(context.Background())
				require.ErrorIs(t, err, deadlock.ErrDeadlock)
				close(ending.done)
			})
		})
	}
}
