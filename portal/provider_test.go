package portal_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/loop"
	"asyncsync.dev/portal"
)

// D5: there is one portal at a time, also while the last one ends.
func TestProviderOneAtATime(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		v := portal.NewProvider(portal.WithBackend(libkit.NewBackend(t, kind)))
		var (
			mu    sync.Mutex
			lent  = map[*portal.Portal]bool{}
			users sync.WaitGroup
		)
		for range 8 {
			users.Go(func() {
				for range 20 {
					p, release, err := v.Acquire(context.Background())
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					for other := range lent {
						if other == p {
							continue
						}
						select {
						case <-other.Loop().Done():
							delete(lent, other)
						default:
							t.Error("two portals live")
						}
					}
					lent[p] = true
					mu.Unlock()
					_, err = portal.StartSoon(p, func(context.Context) (int, error) { return 0, nil })
					if err != nil {
						t.Errorf("a portal that was lent has stopped: %v", err)
					}
					if err := release(); err != nil {
						t.Error(err)
					}
				}
			})
		}
		users.Wait()
	})
}

// An Acquire during a drain waits for it, and starts another portal then.
func TestProviderAcquireDuringDrain(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		v := portal.NewProvider(portal.WithBackend(libkit.NewBackend(t, kind)))
		p, release, err := v.Acquire(context.Background())
		require.NoError(t, err)
		hold := make(chan struct{})
		var inside error
		_, err = portal.StartSoon(p, func(ctx context.Context) (int, error) {
			defer func() { _ = receive(ctx, hold) }()
			if err := receive(ctx, p.Stopping()); err != nil {
				return 0, err
			}
			// It would wait for its own end.
			_, _, inside = v.Acquire(ctx)
			return 0, nil
		})
		require.NoError(t, err)
		released := background(release)
		<-p.Stopping()

		short, cancel := context.WithCancelCause(context.Background())
		cancel(testkit.ErrEnd)
		_, _, err = v.Acquire(short)
		require.ErrorIs(t, err, testkit.ErrEnd)
		acquired := make(chan *portal.Portal)
		other := background(func() error {
			p, release, err := v.Acquire(context.Background())
			if err != nil {
				return err
			}
			acquired <- p
			return release()
		})
		select {
		case <-acquired:
			t.Fatal("two portals at a time")
		default:
		}
		close(hold)
		second := <-acquired
		require.NotSame(t, p, second)
		select {
		case <-p.Loop().Done():
		default:
			t.Error("the first portal has not ended when there is a second one")
		}
		require.NoError(t, released.wait())
		require.NoError(t, other.wait())
		require.ErrorIs(t, inside, loop.ErrStopped)
	})
}

// D6: the last release by the portal's own loop returns at once; the end goes on behind
// it, and the next user waits for that.
func TestProviderReleasedInside(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		v := portal.NewProvider(portal.WithBackend(libkit.NewBackend(t, kind)))
		p, release, err := v.Acquire(context.Background())
		require.NoError(t, err)
		failed := errors.New("failed behind")
		require.NoError(t, call(context.Background(), p, func(ctx context.Context) error {
			_, err := portal.StartSoon(p, func(ctx context.Context) (int, error) {
				_ = receive(ctx, p.Stopping())
				return 0, failed
			})
			if err != nil {
				return err
			}
			return release()
		}))
		second, release, err := v.Acquire(context.Background())
		require.NoError(t, err)
		require.NotSame(t, p, second)
		<-p.Loop().Done()
		require.ErrorIs(t, release(), failed, "the next release tells")
		require.NoError(t, release(), "once")
	})
}

// The last release returns what tasks came to that nobody waited for.
func TestProviderReleaseTells(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		v := portal.NewProvider(portal.WithBackend(libkit.NewBackend(t, kind)))
		p, first, err := v.Acquire(context.Background())
		require.NoError(t, err)
		_, last, err := v.Acquire(context.Background())
		require.NoError(t, err)
		_, err = portal.StartSoon(p, func(context.Context) (int, error) { return 0, testkit.ErrEnd })
		require.NoError(t, err)
		require.NoError(t, first())
		require.NoError(t, first())
		require.ErrorIs(t, last(), testkit.ErrEnd)
	})
}

// A second call of a release returns at once, also while the first one waits for the end
// of the portal, and so in a function that this end waits for.
func TestProviderReleasedTwice(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		v := portal.NewProvider(portal.WithBackend(libkit.NewBackend(t, kind)))
		p, release, err := v.Acquire(context.Background())
		require.NoError(t, err)
		again := errors.New("no second call")
		_, err = portal.StartSoon(p, func(ctx context.Context) (int, error) {
			_ = receive(ctx, p.Stopping())
			again = release()
			return 0, nil
		})
		require.NoError(t, err)
		require.NoError(t, release())
		require.NoError(t, again)
	})
}

// A portal that lingers is found by who comes in time, and ends after.
func TestProviderLingers(t *testing.T) {
	testkit.Guard(t)
	for _, kind := range libkit.Backends {
		synctest.Test(t, func(t *testing.T) {
			v := portal.NewProvider(portal.WithBackend(libkit.NewBackend(t, kind)), portal.Linger(time.Minute))
			p, release, err := v.Acquire(context.Background())
			require.NoError(t, err)
			require.NoError(t, release())
			time.Sleep(59 * time.Second)
			again, release, err := v.Acquire(context.Background())
			require.NoError(t, err)
			require.Same(t, p, again)
			time.Sleep(2 * time.Minute) // in use
			_, err = portal.StartSoon(p, func(context.Context) (int, error) { return 0, testkit.ErrEnd })
			require.NoError(t, err)
			require.NoError(t, release())
			time.Sleep(time.Minute)
			synctest.Wait()
			<-p.Loop().Done()
			third, release, err := v.Acquire(context.Background())
			require.NoError(t, err)
			require.NotSame(t, p, third)
			require.ErrorIs(t, release(), testkit.ErrEnd, "of the end that nobody waited for")

			// One that was stopped while it lingers is not lent again.
			third.Stop(false)
			fourth, release, err := v.Acquire(context.Background())
			require.NoError(t, err)
			require.NotSame(t, third, fourth)
			require.NoError(t, release())
			time.Sleep(time.Minute)
			synctest.Wait()
		})
	}
}

// A start that fails leaves no lease: the next Acquire starts anew. One that panics
// does so too.
func TestProviderStartFails(t *testing.T) {
	testkit.Guard(t)
	b := loop.Goroutines()
	require.NoError(t, libkit.Run(context.Background(), b, func(context.Context) error { return nil }))
	v := portal.NewProvider(portal.WithBackend(b))
	for range 2 {
		_, _, err := v.Acquire(context.Background())
		require.ErrorIs(t, err, loop.ErrStopped)
	}
	v = portal.NewProvider(portal.WithBackend(strange{}))
	for range 2 {
		require.Equal(t, "panic", testkit.OutcomeOf(func() error {
			_, _, err := v.Acquire(context.Background())
			return err
		}).How)
	}
}

// strange is a backend that is not of package loop.
type strange struct{ loop.Backend }

// Tasks share as well, and park where they wait.
func TestProviderInTask(t *testing.T) {
	onBoth(t, func(t *testing.T, p *portal.Portal) {
		v := portal.NewProvider()
		require.NoError(t, call(context.Background(), p, func(ctx context.Context) error {
			other, release, err := v.Acquire(ctx)
			if err != nil {
				return err
			}
			if err := call(ctx, other, func(context.Context) error { return nil }); err != nil {
				return err
			}
			return release()
		}))
		if p.Loop().(interface{ String() string }).String()[0] == 't' {
			require.ErrorIs(t, posted(p.Loop(), func() error {
				_, _, err := v.Acquire(context.Background())
				return err
			}), loop.ErrOnLoop)
		}
	})
}

// use acquires the portal, calls it and releases it, where it is called.
func use(ctx context.Context, v *portal.Provider) error {
	p, release, err := v.Acquire(ctx)
	if err != nil {
		return err
	}
	return errors.Join(call(ctx, p, func(context.Context) error { return nil }), release())
}

// The thread that starts the portal runs nothing on top of that which would wait for the
// start: it could not end before.
func TestProviderAcquireWhereItStarts(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		_, tsc := libkit.NewContext(t)
		for range 50 {
			v := portal.NewProvider(portal.WithBackend(libkit.NewBackend(t, kind)))
			require.NoError(t, libkit.To(context.Background(), func(ctx context.Context) error {
				queued := asyncsync.Go(ctx, func(ctx context.Context) (int, error) { return 0, use(ctx, v) })
				err := use(ctx, v)
				_, more := queued.Wait(ctx)
				return errors.Join(err, more)
			}, asyncsync.On(tsc)))
		}
	})
}

// A function that the thread of the last release runs, on top of that, gets a portal when
// the last one has ended: it waits for the end, and not for the release below it.
func TestProviderAcquireOnTopOfRelease(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		_, tsc := libkit.NewContext(t, asyncsync.Serve(asyncsync.All))
		v := portal.NewProvider(portal.WithBackend(libkit.NewBackend(t, kind)))
		onTop := make(chan struct{})
		failure := errors.New("what nobody has waited for")
		require.ErrorIs(t, libkit.To(context.Background(), func(ctx context.Context) error {
			p, release, err := v.Acquire(ctx)
			if err != nil {
				return err
			}
			if _, err := portal.StartSoon(p, func(ctx context.Context) (int, error) {
				return 0, errors.Join(failure, receive(ctx, onTop))
			}); err != nil {
				return err
			}
			queued := asyncsync.Go(context.Background(), func(ctx context.Context) (int, error) {
				close(onTop) // now the portal may end
				return 0, use(ctx, v)
			}, asyncsync.On(tsc))
			err = release() // runs it
			_, more := queued.Wait(ctx)
			return errors.Join(err, more)
		}, asyncsync.On(tsc)), failure)
	})
}

// A Goexit of what the thread of a release serves ends that release. What it had to tell
// is told by the next one.
func TestProviderReleaseThatIsCutShort(t *testing.T) {
	for _, end := range testkit.Ends {
		t.Run(end.How, func(t *testing.T) {
			onBothBare(t, func(t *testing.T, kind string) {
				_, tsc := libkit.NewContext(t)
				v := portal.NewProvider(portal.WithBackend(libkit.NewBackend(t, kind)))
				first, second := errors.New("of the first portal"), errors.New("of the second portal")
				fails := func(p *portal.Portal, err error) {
					_, refused := portal.StartSoon(p, func(context.Context) (int, error) { return 0, err })
					require.NoError(t, refused)
				}
				p, release, err := v.Acquire(context.Background())
				require.NoError(t, err)
				fails(p, first)
				require.NoError(t, call(context.Background(), p, func(context.Context) error { return release() }))

				p, release, err = v.Acquire(context.Background())
				require.NoError(t, err)
				fails(p, second)
				_, err = portal.StartSoon(p, func(ctx context.Context) (int, error) {
					_ = receive(context.Background(), p.Stopping())
					served := testkit.OutcomeOf(func() error {
						return libkit.To(ctx, func(context.Context) error { return end.Do() }, asyncsync.On(tsc))
					})
					end.Check(t, served)
					return 0, nil
				})
				require.NoError(t, err)
				o := testkit.OutcomeOf(func() error {
					return libkit.To(context.Background(), func(context.Context) error { return release() }, asyncsync.On(tsc))
				})
				if end.How == "goexit" {
					end.Check(t, o)
					_, release, err = v.Acquire(context.Background())
					require.NoError(t, err)
					o.Err = release()
				}
				require.ErrorIs(t, o.Err, first)
				require.ErrorIs(t, o.Err, second)
			})
		})
	}
}
