package portal_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/loop"
	"asyncsync.dev/portal"
	"asyncsync.dev/task"
)

// Who calls × in which state × what: a value, ErrStopped or ErrOnLoop, and never a
// hang.
func TestCallersAndStates(t *testing.T) {
	answer := func(context.Context) (int, error) { return 7, nil }
	ops := []struct {
		name  string
		waits bool
		do    func(ctx context.Context, p *portal.Portal) (int, error)
	}{
		{"Call", true, func(ctx context.Context, p *portal.Portal) (int, error) {
			return portal.Call(ctx, p, answer)
		}},
		{"StartSoon", false, func(ctx context.Context, p *portal.Portal) (int, error) {
			_, err := portal.StartSoon(p, answer)
			return 7, err
		}},
		{"StartTask", true, func(ctx context.Context, p *portal.Portal) (int, error) {
			_, n, err := portal.StartTask(ctx, p, func(ctx context.Context, started func(int) error) (int, error) {
				return 0, started(7)
			})
			return n, err
		}},
		{"Wrap", true, func(ctx context.Context, p *portal.Portal) (int, error) {
			n, closeIt, err := portal.Wrap(ctx, p, func(context.Context) (int, func(context.Context, error) error, error) {
				return 7, func(context.Context, error) error { return nil }, nil
			})
			if err == nil {
				err = closeIt(nil)
			}
			return n, err
		}},
	}
	onBothBare(t, func(t *testing.T, kind string) {
		for _, state := range []string{"open", "stopping", "closed"} {
			t.Run(state, func(t *testing.T) {
				other := started(t, "thread")
				foreign, quit := foreignLoop()
				p := started(t, kind)
				_, tsc := libkit.NewContext(t)
				type op = func(ctx context.Context) (int, error)
				callers := []struct {
					name    string
					refused bool // it is a function posted to a loop with one thread
					gone    bool // with the loop
					call    func(do op) (int, error)
				}{
					{"goroutine", false, false, func(do op) (int, error) { return do(context.Background()) }},
					{"thread", false, false, func(do op) (int, error) {
						return asyncsync.ToThread(context.Background(), do, asyncsync.On(tsc))
					}},
					{"task of this loop", false, true, func(do op) (int, error) {
						return loop.Call(context.Background(), p.Loop(), do)
					}},
					{"task of another loop", false, false, func(do op) (int, error) {
						return loop.Call(context.Background(), other.Loop(), do)
					}},
					{"thread called by a task of this loop", false, true, func(do op) (int, error) {
						return loop.Call(context.Background(), p.Loop(), func(ctx context.Context) (int, error) {
							return asyncsync.ToThread(ctx, do, asyncsync.On(tsc))
						})
					}},
					{"posted to this loop", kind == "thread", true, func(do op) (n int, err error) {
						err = posted(p.Loop(), func() (err error) { n, err = do(context.Background()); return err })
						return n, err
					}},
					{"posted to another loop", true, false, func(do op) (n int, err error) {
						err = posted(other.Loop(), func() (err error) { n, err = do(context.Background()); return err })
						return n, err
					}},
					{"posted to a foreign loop", true, false, func(do op) (n int, err error) {
						err = posted(foreign, func() (err error) { n, err = do(context.Background()); return err })
						return n, err
					}},
				}
				hold := make(chan struct{})
				if state == "stopping" {
					_, err := portal.StartSoon(p, func(ctx context.Context) (int, error) { return 0, receive(ctx, hold) })
					require.NoError(t, err)
				}
				if state != "open" {
					p.Stop(false)
				}
				if state == "closed" {
					require.NoError(t, p.Close(nil))
				}
				for _, c := range callers {
					for _, op := range ops {
						n, err := c.call(func(ctx context.Context) (int, error) { return op.do(ctx, p) })
						what := fmt.Sprintf("%s by a %s", op.name, c.name)
						switch {
						case state == "closed" && c.gone:
							require.ErrorIs(t, err, loop.ErrStopped, what)
						case c.refused && op.waits:
							require.ErrorIs(t, err, loop.ErrOnLoop, what)
						case state == "open":
							require.NoError(t, err, what)
							require.Equal(t, 7, n, what)
						default:
							require.ErrorIs(t, err, loop.ErrStopped, what)
						}
					}
				}
				close(hold)
				require.NoError(t, p.Close(nil))
				require.NoError(t, other.Close(nil))
				quit()
			})
		}
	})
}

// foreignLoop is somebody else's loop on a goroutine.
func foreignLoop() (l loop.Loop, quit func()) {
	queue, done := make(chan func(), 16), make(chan struct{})
	go func() {
		defer close(done)
		for fn := range queue {
			fn()
		}
	}()
	l = loop.FromPost(func(fn func()) error { queue <- fn; return nil }, done)
	return l, func() { close(queue); <-done }
}

// What StartSoon has accepted before a plain Stop runs, though the loop had no time to
// begin it.
func TestStopRunsWhatWasAccepted(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		p := started(t, kind)
		var ran atomic.Int32
		var tasks []*task.Task[int]
		err := posted(p.Loop(), func() error { // the loop of one thread is busy with this
			for range 100 {
				tk, err := portal.StartSoon(p, func(context.Context) (int, error) { return int(ran.Add(1)), nil })
				if err != nil {
					return err
				}
				tasks = append(tasks, tk)
			}
			p.Stop(false)
			_, err := portal.StartSoon(p, func(context.Context) (int, error) { return int(ran.Add(1)), nil })
			return err
		})
		require.ErrorIs(t, err, loop.ErrStopped)
		require.NoError(t, p.Close(nil))
		require.EqualValues(t, 100, ran.Load())
		for _, tk := range tasks {
			_, err := tk.Wait(context.Background())
			require.NoError(t, err)
		}
		<-p.Loop().Done()
	})
}

// Stop(true) ends what runs, with ErrStopped as the cause, and what has not begun does
// not begin.
func TestStopCancels(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		p := started(t, kind)
		began := make(chan struct{})
		runs, err := portal.StartSoon(p, func(ctx context.Context) (int, error) {
			close(began)
			return 0, forever(ctx)
		})
		require.NoError(t, err)
		<-began
		var late atomic.Bool
		var waits *task.Task[int]
		require.NoError(t, posted(p.Loop(), func() (err error) {
			if kind == "thread" { // only there it cannot begin at once
				waits, err = portal.StartSoon(p, func(context.Context) (int, error) { late.Store(true); return 0, nil })
			}
			p.Stop(true)
			return err
		}))
		_, err = runs.Wait(context.Background())
		require.ErrorIs(t, err, loop.ErrStopped)
		if waits != nil {
			_, err = waits.Wait(context.Background())
			require.ErrorIs(t, err, loop.ErrStopped)
		}
		require.NoError(t, p.Close(nil), "cancellations are no errors of their own")
		require.False(t, late.Load())
	})
}

// A plain Stop, and then one that cancels.
func TestStopThenCancel(t *testing.T) {
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		tk, err := portal.StartSoon(p, func(ctx context.Context) (int, error) { return 0, forever(ctx) })
		require.NoError(t, err)
		p.Stop(false)
		<-p.Stopping()
		select {
		case <-tk.Done():
			t.Fatal("a plain Stop has ended the task")
		default:
		}
		p.Stop(true)
		_, err = tk.Wait(context.Background())
		require.ErrorIs(t, err, loop.ErrStopped)
		p.Stop(true)
		p.Stop(false)
	})
}

// D1, D12, D13: eight callers of five kinds over a thousand stops. Each gets a value or
// ErrStopped, and nobody hangs.
func TestStopHammer(t *testing.T) {
	rounds := 500                                      // of each kind
	if testing.Short() || runtime.GOMAXPROCS(0) == 1 { // there callers are slow to take turns
		rounds = 50
	}
	onBothBare(t, func(t *testing.T, kind string) {
		other := started(t, "thread")
		_, tsc := libkit.NewContext(t)
		for round := range rounds {
			p := started(t, kind)
			answer := func(context.Context) (int, error) { return 7, nil }
			var answered atomic.Int32
			go4 := make(chan struct{})
			var callers sync.WaitGroup
			results := make(chan error, 8)
			for who := range 8 {
				callers.Go(func() {
					<-go4
					for {
						n, err := 0, error(nil)
						one := func(ctx context.Context) (int, error) { return portal.Call(ctx, p, answer) }
						switch who % 8 {
						case 0, 1:
							n, err = one(context.Background())
						case 2:
							n, err = asyncsync.ToThread(context.Background(), one, asyncsync.On(tsc))
						case 3:
							n, err = loop.Call(context.Background(), other.Loop(), one)
						case 4: // past the portal
							n, err = loop.Call(context.Background(), p.Loop(), answer)
						case 5:
							n, err = loop.Call(context.Background(), p.Loop(), one)
						case 6:
							var tk *task.Task[int]
							if tk, err = portal.StartSoon(p, answer); err == nil {
								n, err = tk.Wait(context.Background())
							}
						case 7:
							_, n, err = portal.StartTask(context.Background(), p, func(ctx context.Context, started func(int) error) (int, error) {
								return 0, started(7)
							})
						}
						if err != nil {
							results <- err
							return
						}
						if n != 7 {
							results <- fmt.Errorf("caller %d got %d", who, n)
							return
						}
						answered.Add(1)
					}
				})
			}
			close(go4)
			if round%2 == 0 {
				for answered.Load() < 4 {
					_ = call(context.Background(), p, func(context.Context) error { return nil })
				}
			}
			p.Stop(round%3 == 0)
			require.NoError(t, p.Close(nil))
			callers.Wait()
			close(results)
			for err := range results {
				require.ErrorIs(t, err, loop.ErrStopped)
			}
		}
		require.NoError(t, other.Close(nil))
	})
}

// D1 for portals that a task has opened: the loop ends under the callers.
func TestOpenHammer(t *testing.T) {
	rounds := 200
	if testing.Short() || runtime.GOMAXPROCS(0) == 1 {
		rounds = 20
	}
	onBothBare(t, func(t *testing.T, kind string) {
		for range rounds {
			b := libkit.NewBackend(t, kind)
			var callers sync.WaitGroup
			results := make(chan error, 4)
			err := libkit.Run(context.Background(), b, func(ctx context.Context) error {
				p, err := portal.Open(ctx)
				if err != nil {
					return err
				}
				some := make(chan struct{})
				var once sync.Once
				for who := range 4 {
					callers.Go(func() {
						for {
							var err error
							if who%2 == 0 {
								err = call(context.Background(), p, func(context.Context) error { return nil })
							} else {
								var tk *task.Task[int]
								if tk, err = portal.StartSoon(p, func(context.Context) (int, error) { return 0, nil }); err == nil {
									_, err = tk.Wait(context.Background())
								}
							}
							if err != nil {
								results <- err
								return
							}
							once.Do(func() { close(some) })
						}
					})
				}
				return receive(ctx, some) // and the portal stays open
			})
			require.NoError(t, err)
			callers.Wait()
			close(results)
			for err := range results {
				require.ErrorIs(t, err, loop.ErrStopped)
			}
		}
	})
}

// Close waits for what runs, joins what nobody was told, and leaves out what somebody
// was.
func TestCloseTells(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		errs := []error{errors.New("one"), errors.New("two"), errors.New("three")}
		p := started(t, kind)
		var tasks []*task.Task[int]
		for _, err := range errs {
			tk, refused := portal.StartSoon(p, func(context.Context) (int, error) { return 0, err })
			require.NoError(t, refused)
			tasks = append(tasks, tk)
		}
		_, err := tasks[1].Wait(context.Background())
		require.ErrorIs(t, err, errs[1])
		err = p.Close(nil)
		require.ErrorIs(t, err, errs[0])
		require.NotErrorIs(t, err, errs[1])
		require.ErrorIs(t, err, errs[2])
		require.NoError(t, p.Close(nil), "they have been told")
	})
}

// Close with a cause ends what runs with it, and does not return it; what a task makes
// of its end beside that is returned.
func TestCloseWithCause(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		cause, real := errors.New("the cause"), errors.New("a real error")
		p := started(t, kind)
		var began sync.WaitGroup
		for _, err := range []error{nil, real} {
			began.Add(1)
			_, refused := portal.StartSoon(p, func(ctx context.Context) (int, error) {
				began.Done()
				return 0, errors.Join(forever(ctx), err)
			})
			require.NoError(t, refused)
		}
		called := make(chan error, 1)
		began.Add(1)
		go func() {
			called <- call(context.Background(), p, func(ctx context.Context) error {
				began.Done()
				return forever(ctx)
			})
		}()
		began.Wait()
		err := p.Close(cause)
		require.ErrorIs(t, err, real)
		require.NotErrorIs(t, err, cause)
		require.ErrorIs(t, <-called, cause)
	})
}

// A several is an error with parts and a text of its own.
type several []error

func (s several) Error() string   { return fmt.Sprint("several: ", []error(s)) }
func (s several) Unwrap() []error { return s }

// Close leaves out the cancellations of its cause, wherever they are in an error, and
// loses nothing else.
func TestCloseLeavesOutCancellations(t *testing.T) {
	lost := errors.New("data lost")
	worker := func(err error) error { return fmt.Errorf("worker 1: %w", err) }
	causes := map[string]error{
		"an error": errors.New("the cause"),
		"a join":   errors.Join(errors.New("the cause"), errors.New("another")),
	}
	for name, failure := range map[string]struct {
		of   func(cause error) error
		want func(err error) error // of what the function has returned; nil if nothing is left
	}{
		"the cause":                   {func(c error) error { return c }, nil},
		"it, wrapped":                 {worker, nil},
		"a cancellation":              {func(error) error { return worker(context.Canceled) }, nil},
		"a stop":                      {func(error) error { return worker(loop.ErrStopped) }, nil},
		"a join of those":             {func(c error) error { return errors.Join(c, context.Canceled) }, nil},
		"that, wrapped":               {func(c error) error { return worker(errors.Join(c, worker(context.Canceled))) }, nil},
		"several of those":            {func(c error) error { return several{c, loop.ErrStopped} }, nil},
		"a failure":                   {func(error) error { return worker(lost) }, func(err error) error { return err }},
		"a join with a failure":       {func(c error) error { return errors.Join(c, lost) }, func(error) error { return lost }},
		"that, wrapped, with failure": {func(c error) error { return worker(errors.Join(c, lost)) }, func(err error) error { return err }},
		"that, wrapped twice":         {func(c error) error { return worker(worker(errors.Join(c, lost))) }, func(err error) error { return err }},
		"that, in a join": {func(c error) error { return errors.Join(c, worker(errors.Join(c, lost))) }, func(err error) error {
			return err.(interface{ Unwrap() []error }).Unwrap()[1]
		}},
		"two wrapped at once": {func(c error) error { return fmt.Errorf("%w after %w", lost, c) }, func(err error) error { return err }},
		"several":             {func(c error) error { return worker(several{c, lost}) }, func(err error) error { return err }},
		"several of none":     {func(error) error { return several{} }, func(err error) error { return err }},
	} {
		for kind, cause := range causes {
			t.Run(name+"/"+kind, func(t *testing.T) {
				onBothBare(t, func(t *testing.T, kind string) {
					p := started(t, kind)
					began := make(chan struct{})
					_, err := portal.StartSoon(p, func(ctx context.Context) (int, error) {
						close(began)
						_ = forever(ctx)
						return 0, failure.of(context.Cause(ctx))
					})
					require.NoError(t, err)
					<-began
					err = p.Close(cause)
					if failure.want == nil {
						require.NoError(t, err)
						return
					}
					want := failure.want(failure.of(cause))
					require.EqualError(t, err, want.Error())
				})
			})
		}
	}
}

// All three endings of a call and of a task. One that nobody waited for is told to the
// hooks, not by Close, and the portal goes on.
func TestEndings(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		for _, end := range testkit.Ends {
			t.Run(end.How, func(t *testing.T) {
				log := libkit.Listen(t)
				p := started(t, kind)
				end.Check(t, testkit.OutcomeOf(func() error {
					return call(context.Background(), p, func(context.Context) error { return end.Do() })
				}))
				tk, err := portal.StartSoon(p, func(context.Context) (int, error) { return 0, end.Do() })
				require.NoError(t, err)
				for range 2 {
					end.Check(t, testkit.OutcomeOf(func() error {
						_, err := tk.Wait(context.Background())
						return err
					}))
				}
				end.Check(t, testkit.OutcomeOf(func() error {
					_, _, err := portal.StartTask(context.Background(), p, func(context.Context, func(int) error) (int, error) {
						return 0, end.Do()
					})
					return err
				}))
				end.Check(t, testkit.OutcomeOf(func() error {
					_, _, err := portal.Wrap(context.Background(), p, func(context.Context) (int, func(context.Context, error) error, error) {
						return 0, nil, end.Do()
					})
					return err
				}))
				panics, goexits := log.Unheard()
				_, err = portal.StartSoon(p, func(context.Context) (int, error) { return 0, end.Do() })
				require.NoError(t, err)
				err = p.Close(nil)
				panicsThen, goexitsThen := log.Unheard()
				switch end.How {
				case "return":
					require.ErrorIs(t, err, testkit.ErrEnd)
				case "panic":
					require.NoError(t, err)
					require.Len(t, panicsThen, len(panics)+1)
				case "goexit":
					require.NoError(t, err)
					require.Greater(t, goexitsThen, goexits)
				}
			})
		}
	})
}

// Close from where it would wait for itself: it stops, and says so.
func TestCloseInside(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		_, tsc := libkit.NewContext(t)
		other := started(t, "thread")
		for name, how := range map[string]func(p *portal.Portal) error{
			"call": func(p *portal.Portal) error {
				return call(context.Background(), p, func(context.Context) error { return p.Close(nil) })
			},
			"call by a task": func(p *portal.Portal) error {
				return libkit.Call(context.Background(), other.Loop(), func(ctx context.Context) error {
					return call(ctx, p, func(context.Context) error { return p.Close(nil) })
				})
			},
			"task": func(p *portal.Portal) error {
				tk, err := portal.StartSoon(p, func(context.Context) (int, error) { return 0, p.Close(testkit.ErrEnd) })
				if err != nil {
					return err
				}
				_, err = tk.Wait(context.Background())
				return err
			},
			"thread that a task calls": func(p *portal.Portal) error {
				return call(context.Background(), p, func(ctx context.Context) error {
					return libkit.To(ctx, func(context.Context) error { return p.Close(nil) }, asyncsync.On(tsc))
				})
			},
			"posted elsewhere": func(p *portal.Portal) error {
				return posted(other.Loop(), func() error { return p.Close(nil) })
			},
			"posted": func(p *portal.Portal) error {
				return posted(p.Loop(), func() error { return p.Close(nil) })
			},
			"loop that a posted function runs": func(p *portal.Portal) error {
				return posted(p.Loop(), func() error {
					defer p.Stop(false) // where Run is refused
					return libkit.Run(context.Background(), loop.Goroutines(), func(context.Context) error { return p.Close(nil) })
				})
			},
			"spawned": func(p *portal.Portal) error {
				return spawned(p.Loop(), func(context.Context) error { return p.Close(nil) })
			},
			"thread that a spawned task calls": func(p *portal.Portal) error {
				return spawned(p.Loop(), func(ctx context.Context) error {
					return libkit.To(ctx, func(context.Context) error { return p.Close(nil) }, asyncsync.On(tsc))
				})
			},
			"insensitive call of a spawned task": func(p *portal.Portal) error {
				return spawned(p.Loop(), func(ctx context.Context) error {
					return libkit.To(ctx, func(context.Context) error { return p.Close(nil) }, asyncsync.Insensitive())
				})
			},
			"thread that a function of loop.Call calls": func(p *portal.Portal) error {
				return libkit.Call(context.Background(), p.Loop(), func(ctx context.Context) error {
					return libkit.To(ctx, func(context.Context) error { return p.Close(nil) }, asyncsync.On(tsc))
				})
			},
			"loop that a spawned task calls": func(p *portal.Portal) error {
				return spawned(p.Loop(), func(ctx context.Context) error {
					return libkit.Call(ctx, other.Loop(), func(context.Context) error { return p.Close(nil) })
				})
			},
		} {
			t.Run(name, func(t *testing.T) {
				p := started(t, kind)
				require.ErrorIs(t, how(p), loop.ErrOnLoop)
				<-p.Stopping()
				require.NoError(t, p.Close(nil))
				<-p.Loop().Done()
			})
		}
		require.NoError(t, other.Close(nil))
	})
}

// spawned runs fn as a task of b that is no portal's.
func spawned(b loop.Backend, fn func(context.Context) error) error {
	done := make(chan error, 1)
	if err := b.Spawn(context.Background(), func(ctx context.Context) { done <- fn(ctx) }); err != nil {
		return err
	}
	return <-done
}

// The same for a portal that a task has opened: that task may close it, what it runs may
// not wait.
func TestCloseInsideOpened(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		other := started(t, "thread")
		require.NoError(t, libkit.Run(context.Background(), libkit.NewBackend(t, kind), func(ctx context.Context) error {
			for _, how := range []func(p *portal.Portal) error{
				func(p *portal.Portal) error { // in a call of a task of another loop
					return libkit.Call(ctx, other.Loop(), func(ctx context.Context) error {
						return call(ctx, p, func(context.Context) error { return p.Close(nil) })
					})
				},
				func(p *portal.Portal) error { // of a task of its own
					return call(ctx, p, func(context.Context) error { return p.Close(nil) })
				},
				func(p *portal.Portal) error { // in a task
					tk, err := portal.StartSoon(p, func(context.Context) (int, error) { return 0, p.Close(nil) })
					require.NoError(t, err)
					_, err = tk.Wait(ctx)
					return err
				},
				func(p *portal.Portal) error { // in what a call of a goroutine has called
					return background(func() error {
						return call(context.Background(), p, func(ctx context.Context) error {
							return libkit.To(ctx, func(context.Context) error { return p.Close(nil) })
						})
					}).wait()
				},
			} {
				p, err := portal.Open(ctx)
				require.NoError(t, err)
				require.ErrorIs(t, how(p), loop.ErrOnLoop)
				require.NoError(t, p.Close(nil))
			}
			return nil
		}))
		require.NoError(t, other.Close(nil))
	})
}

// Close waits for what runs in the portal. If that waits for who closes, one of the two
// is told, in either order.
func TestCloseInACycle(t *testing.T) {
	members := map[string]func(p *portal.Portal, fn func(context.Context) error) error{
		"StartSoon": func(p *portal.Portal, fn func(context.Context) error) error {
			soon, err := portal.StartSoon(p, func(ctx context.Context) (int, error) { return 0, fn(ctx) })
			if err == nil {
				_, err = soon.Wait(context.Background())
			}
			return err
		},
		"StartTask": func(p *portal.Portal, fn func(context.Context) error) error {
			soon, _, err := portal.StartTask(context.Background(), p, func(ctx context.Context, started func(int) error) (int, error) {
				if err := started(0); err != nil {
					return 0, err
				}
				return 0, fn(ctx)
			})
			if err == nil {
				_, err = soon.Wait(context.Background())
			}
			return err
		},
		"Call": func(p *portal.Portal, fn func(context.Context) error) error {
			return call(context.Background(), p, fn)
		},
	}
	closers := map[string]func(t *testing.T, fn func(context.Context) error) error{
		"thread": func(t *testing.T, fn func(context.Context) error) error {
			_, tsc := libkit.NewContext(t)
			return asyncsync.Do(context.Background(), fn, asyncsync.On(tsc))
		},
		"task": func(t *testing.T, fn func(context.Context) error) error {
			other := started(t, "thread")
			defer func() { require.NoError(t, other.Close(nil)) }()
			return call(context.Background(), other, fn)
		},
	}
	onBothBare(t, func(t *testing.T, kind string) {
		for member, start := range members {
			for closer, run := range closers {
				t.Run(member+"/"+closer, func(t *testing.T) {
					testkit.Guard(t)
					p := started(t, kind)
					var inside, again error
					err := run(t, func(ctx context.Context) error {
						var m task.Mutex
						if err := m.Lock(ctx); err != nil {
							return err
						}
						begun := make(chan struct{})
						wants := background(func() error {
							return start(p, func(ctx context.Context) error {
								close(begun)
								if err := m.Lock(ctx); err != nil {
									return err
								}
								m.Unlock()
								return nil
							})
						})
						if err := receive(ctx, begun); err != nil {
							return err
						}
						told := p.Close(nil)
						m.Unlock()
						inside = wants.wait()
						again = p.Close(nil)
						return told
					})
					require.NoError(t, again)
					if inside == nil {
						require.ErrorIs(t, err, deadlock.ErrDeadlock)
						require.ErrorContains(t, err, "waits for the end of a portal")
						require.ErrorContains(t, err, "PageShutdownInside")
						return
					}
					require.ErrorIs(t, inside, deadlock.ErrDeadlock)
					if err != nil {
						// Close came before the waiter, and tells what the task has returned.
						_, own := err.(*deadlock.Error)
						require.False(t, own, "%v", err)
						require.ErrorIs(t, err, inside)
					}
				})
			}
		}
	})
}

// Whoever closes a portal is known to wait for the tasks that run, and for none that has
// ended, however that was.
func TestCloseWaitsForWhatRuns(t *testing.T) {
	starts := map[string]func(p *portal.Portal, fn func(context.Context) error) (*task.Task[int], error){
		"StartSoon": func(p *portal.Portal, fn func(context.Context) error) (*task.Task[int], error) {
			return portal.StartSoon(p, func(ctx context.Context) (int, error) { return 0, fn(ctx) })
		},
		"StartTask": func(p *portal.Portal, fn func(context.Context) error) (*task.Task[int], error) {
			tk, _, err := portal.StartTask(context.Background(), p, func(ctx context.Context, started func(int) error) (int, error) {
				if err := started(0); err != nil {
					return 0, err
				}
				return 0, fn(ctx)
			})
			return tk, err
		},
	}
	wait := func(tk *task.Task[int]) error {
		_, err := tk.Wait(context.Background())
		return err
	}
	onBothBare(t, func(t *testing.T, kind string) {
		for how, start := range starts {
			t.Run(how, func(t *testing.T) {
				p := started(t, kind)
				for _, end := range testkit.Ends {
					tk, err := start(p, func(context.Context) error { return end.Do() })
					require.NoError(t, err)
					end.Check(t, testkit.OutcomeOf(func() error { return wait(tk) }), end.How)
				}
				quit := make(chan struct{})
				runs, err := start(p, func(ctx context.Context) error { return receive(ctx, quit) })
				require.NoError(t, err)
				_, tsc := libkit.NewContext(t)
				closing := background(func() error {
					return libkit.To(context.Background(), func(context.Context) error { return p.Close(nil) }, asyncsync.On(tsc))
				})
				var members []int64 // the goroutines of what Close waits for
				testkit.Poll(t, func() string {
					for _, th := range core.TakeGraph().Threads {
						for _, c := range th.Stack {
							if w := c.Wait; w != nil && w.Kind == "portal close" {
								members = w.Goroutines
							}
						}
					}
					if members == nil {
						return "nobody waits for the portal to close"
					}
					return ""
				})
				close(quit)
				require.NoError(t, wait(runs))
				require.NoError(t, closing.wait()) // all were waited for
				require.Len(t, members, 1)
			})
		}
	})
}

// A thread that closes a portal serves what the portal runs, also what others have sent
// there.
func TestCloseOnThreadServes(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		p := started(t, kind)
		_, tsc := libkit.NewContext(t)
		onIt := func(ctx context.Context) error { // waits for the stop, and calls the thread
			if err := receive(ctx, p.Stopping()); err != nil {
				return err
			}
			return libkit.To(ctx, func(context.Context) error { return nil }, asyncsync.On(tsc))
		}
		began := make(chan struct{})
		called := make(chan error, 1)
		go func() {
			called <- call(context.Background(), p, func(ctx context.Context) error {
				close(began)
				return onIt(ctx)
			})
		}()
		<-began
		tk, err := portal.StartSoon(p, func(ctx context.Context) (int, error) { return 0, onIt(ctx) })
		require.NoError(t, err)
		started, _, err := portal.StartTask(context.Background(), p, func(ctx context.Context, started func(int) error) (int, error) {
			if err := started(1); err != nil {
				return 0, err
			}
			return 0, onIt(ctx)
		})
		require.NoError(t, err)
		require.NoError(t, libkit.To(context.Background(), func(context.Context) error { return p.Close(nil) }, asyncsync.On(tsc)))
		require.NoError(t, <-called)
		for _, tk := range []*task.Task[int]{tk, started} {
			_, err = tk.Wait(context.Background())
			require.NoError(t, err)
		}
	})
}

// A thread that waits for a task of the portal, in whatever way, serves it.
func TestWaitsOnThreadServe(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		p := started(t, kind)
		ctx, tsc := libkit.NewContext(t)
		onIt := func(ctx context.Context) error {
			return libkit.To(ctx, func(context.Context) error { return nil }, asyncsync.On(tsc))
		}
		require.NoError(t, libkit.To(ctx, func(ctx context.Context) error {
			if err := call(context.Background(), p, onIt); err != nil { // a ctx that knows nothing
				return err
			}
			if err := call(ctx, p, onIt); err != nil {
				return err
			}
			tk, err := portal.StartSoon(p, func(ctx context.Context) (int, error) { return 0, onIt(ctx) })
			if err != nil {
				return err
			}
			if _, err = tk.Wait(ctx); err != nil {
				return err
			}
			for _, ctx := range []context.Context{ctx, context.Background()} {
				_, _, err = portal.StartTask(ctx, p, func(ctx context.Context, started func(int) error) (int, error) {
					if err := onIt(ctx); err != nil {
						return 0, err
					}
					return 0, started(0)
				})
				if err != nil {
					return err
				}
				_, closeIt, err := portal.Wrap(ctx, p, func(ctx context.Context) (int, func(context.Context, error) error, error) {
					return 0, func(ctx context.Context, _ error) error { return onIt(ctx) }, onIt(ctx)
				})
				if err != nil {
					return err
				}
				if err := closeIt(nil); err != nil {
					return err
				}
			}
			return nil
		}))
		require.NoError(t, p.Close(nil))
	})
}

// All functions of a portal are on its loop, for callers of every kind, and so are the
// tasks that they start. On a loop with one thread all of them begin in order.
func TestEverythingIsOnTheLoop(t *testing.T) {
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		other := started(t, "thread")
		on := func(ctx context.Context) error {
			for range 2 {
				if b, ok := loop.Current(ctx); !ok || b != p.Loop() {
					return fmt.Errorf("on %v", b)
				}
				if _, err := task.Go(ctx, func(ctx context.Context) (int, error) {
					if b, ok := loop.Current(ctx); !ok || b != p.Loop() {
						return 0, fmt.Errorf("a task on %v", b)
					}
					return 0, nil
				}).Wait(ctx); err != nil {
					return err
				}
			}
			return nil
		}
		send := func(ctx context.Context) error {
			tk, err := portal.StartSoon(p, func(ctx context.Context) (int, error) { return 0, on(ctx) }, task.On(other.Loop()))
			if err != nil {
				return err
			}
			_, err = tk.Wait(ctx)
			_, _, err2 := portal.StartTask(ctx, p, func(ctx context.Context, started func(int) error) (int, error) {
				return 0, errors.Join(on(ctx), started(1))
			})
			return errors.Join(err, err2, call(ctx, p, on))
		}
		require.NoError(t, send(context.Background()))
		require.NoError(t, call(context.Background(), other, send))
		require.NoError(t, libkit.To(context.Background(), send))
		require.NoError(t, call(context.Background(), p, send))
		require.NoError(t, other.Close(nil))

		if p.Loop().(fmt.Stringer).String()[0] == 't' {
			var order []int
			for i := range 100 {
				_, err := portal.StartSoon(p, func(context.Context) (int, error) { order = append(order, i); return 0, nil })
				require.NoError(t, err)
			}
			require.NoError(t, call(context.Background(), p, func(context.Context) error {
				require.Len(t, order, 100)
				require.IsIncreasing(t, order)
				return nil
			}))
		}
	})
}

// The portal that a task has opened stops when the ctx ends that it was opened with.
func TestOpenEndsWithCtx(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		cause := errors.New("enough")
		require.NoError(t, libkit.Run(context.Background(), libkit.NewBackend(t, kind), func(ctx context.Context) error {
			inner, cancel := context.WithCancelCause(ctx)
			p, err := portal.Open(inner)
			require.NoError(t, err)
			tk, err := portal.StartSoon(p, func(ctx context.Context) (int, error) { return 0, forever(ctx) })
			require.NoError(t, err)
			began := make(chan struct{})
			called := background(func() error {
				return call(context.Background(), p, func(ctx context.Context) error {
					close(began)
					return forever(ctx)
				})
			})
			require.NoError(t, receive(ctx, began))
			cancel(cause)
			_, err = tk.Wait(ctx)
			require.ErrorIs(t, err, cause)
			require.ErrorIs(t, called.wait(), cause)
			require.NoError(t, p.Wait(ctx))
			require.ErrorIs(t, call(ctx, p, func(context.Context) error { return nil }), loop.ErrStopped)
			require.NoError(t, p.Close(nil))
			_, err = portal.Open(inner)
			require.ErrorIs(t, err, cause)
			return nil
		}))
	})
}

// Open is for tasks alone.
func TestOpenElsewhere(t *testing.T) {
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		open := func(ctx context.Context) error {
			_, err := portal.Open(ctx)
			return err
		}
		require.ErrorIs(t, open(context.Background()), loop.ErrNoLoop)
		require.ErrorIs(t, libkit.To(context.Background(), open), loop.ErrNoLoop)
		require.ErrorIs(t, posted(p.Loop(), func() error { return open(context.Background()) }), loop.ErrNoLoop)
		require.NoError(t, call(context.Background(), p, func(ctx context.Context) error {
			require.ErrorIs(t, libkit.To(ctx, open), loop.ErrNoLoop)
			leaked := make(chan error, 1)
			go func() { leaked <- open(ctx) }()
			require.ErrorIs(t, <-leaked, loop.ErrNoLoop)
			return nil
		}))
	})
}

// Wait returns when somebody stops the portal, or when its ctx ends.
func TestWait(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		require.NoError(t, libkit.Run(context.Background(), libkit.NewBackend(t, kind), func(ctx context.Context) error {
			p, err := portal.Open(ctx)
			require.NoError(t, err)
			short, cancel := context.WithCancelCause(ctx)
			cancel(testkit.ErrEnd)
			require.ErrorIs(t, p.Wait(short), testkit.ErrEnd)
			go p.Stop(false)
			require.NoError(t, p.Wait(ctx))
			require.NoError(t, p.Wait(short), "it has stopped")
			return p.Close(nil)
		}))
		p := started(t, kind)
		err := posted(p.Loop(), func() error {
			if kind == "goroutines" {
				p.Stop(false)
			}
			return p.Wait(context.Background())
		})
		if kind == "thread" {
			require.ErrorIs(t, err, loop.ErrOnLoop)
		} else {
			require.NoError(t, err)
		}
		require.NoError(t, p.Close(nil))
	})
}

// Mistakes panic and name the package.
func TestMisuse(t *testing.T) {
	testkit.Guard(t)
	p, err := portal.Start()
	require.NoError(t, err)
	for _, fn := range []func(){
		func() { _ = call(context.Background(), nil, func(context.Context) error { return nil }) },
		func() { _ = call(noCtx, p, func(context.Context) error { return nil }) },
		func() { _, _ = portal.Call[int](context.Background(), p, nil) },
		func() { _, _ = portal.StartSoon[int](p, nil) },
		func() {
			_, _ = portal.StartSoon(&portal.Portal{}, func(context.Context) (int, error) { return 0, nil })
		},
		func() { _, _, _ = portal.StartTask[int, int](context.Background(), p, nil) },
		func() { _, _, _ = portal.Wrap[int](context.Background(), p, nil) },
		func() {
			_, _, _ = portal.Wrap(context.Background(), p, func(context.Context) (int, func(context.Context, error) error, error) {
				return 0, nil, nil
			})
		},
		func() { _, _ = portal.Open(noCtx) },
		func() { _ = p.Wait(noCtx) },
		func() { portal.WithBackend(nil) },
		func() { _, _ = portal.Start(portal.Linger(1)) },
		func() { _, _, _ = portal.NewProvider().Acquire(noCtx) },
	} {
		testkit.RequireMisuse(t, "portal", fn)
	}
	require.NoError(t, p.Close(nil))
}

// A panic of an option leaves nothing that Close would wait for.
func TestPanicOfOption(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		p := started(t, kind)
		o := testkit.OutcomeOf(func() error {
			_, err := portal.StartSoon(p, func(context.Context) (int, error) { return 0, nil }, nil)
			return err
		})
		require.Equal(t, "panic", o.How)
		require.NoError(t, p.Close(nil))
	})
}

// A Start that is refused leaves nothing with the loop that somebody else runs.
func TestStartRefusedLeavesNothing(t *testing.T) {
	for _, kind := range libkit.Backends {
		t.Run(kind, func(t *testing.T) {
			testkit.Guard(t)
			b := libkit.NewBackend(t, kind)
			release, running := make(chan struct{}), make(chan struct{})
			ran := testkit.Start(func() error {
				_, err := loop.Run(context.Background(), b, func(ctx context.Context) (int, error) {
					close(running)
					return 0, receive(ctx, release)
				})
				return err
			})
			<-running
			refused := func(n int) {
				for range n {
					_, err := portal.Start(portal.WithBackend(b))
					require.ErrorIs(t, err, loop.ErrStopped)
				}
			}
			objects := func() int {
				var m runtime.MemStats
				runtime.GC()
				runtime.GC()
				runtime.ReadMemStats(&m)
				return int(m.HeapObjects)
			}
			const starts = 2000
			refused(starts) // what grows once has grown
			before := objects()
			refused(starts)
			testkit.Poll(t, func() string {
				if more := objects() - before; more >= starts {
					return fmt.Sprintf("%d more objects after %d refused starts", more, starts)
				}
				return ""
			})
			close(release)
			require.NoError(t, ran.Wait().Err)
		})
	}
}

// A portal ends although the ctx of Open panics when the portal gives it back. The last
// task of the portal is told.
func TestCtxOfOpenThatPanicsAtTheEnd(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		require.NoError(t, libkit.Run(context.Background(), libkit.NewBackend(t, kind), func(ctx context.Context) error {
			bad := &testkit.BadCtx{Context: ctx}
			p, err := portal.Open(bad)
			require.NoError(t, err)
			stopped := make(chan struct{})
			tk, err := portal.StartSoon(p, func(context.Context) (int, error) {
				_ = receive(context.Background(), stopped)
				bad.Set(func() { panic("bad ctx") })
				return 0, nil
			})
			require.NoError(t, err)
			p.Stop(false)
			close(stopped)
			require.PanicsWithValue(t, "bad ctx", func() { _, _ = tk.Wait(ctx) })
			require.NoError(t, p.Wait(ctx))
			bad.Set(nil)
			return p.Close(nil)
		}))
	})
}
