package portal_test

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/loop"
	"asyncsync.dev/portal"
	"asyncsync.dev/task"
)

// goexitOn has the thread of the function that waits for the caller run a function that
// calls Goexit.
func goexitOn(ctx context.Context) testkit.Outcome {
	return testkit.OutcomeOf(func() error {
		return libkit.To(ctx, func(context.Context) error { runtime.Goexit(); return nil })
	})
}

// leftBehind has a thread call p with ctx, and makes it leave the function while that
// runs. fn is the rest of the function. gone says that the caller has ended.
func leftBehind(ctx context.Context, p *portal.Portal, fn func(ctx context.Context) error) (gone <-chan struct{}) {
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = libkit.To(context.Background(), func(context.Context) error {
			return call(ctx, p, func(ctx context.Context) error {
				for range 2 {
					served := make(chan struct{})
					go func() {
						defer close(served)
						goexitOn(ctx)
					}()
					_ = receive(context.Background(), served)
				}
				_ = receive(context.Background(), over)
				return fn(ctx)
			})
		})
	}()
	return over
}

// Two Goexits of calls that the caller's thread serves make the caller of a Call leave
// while the function runs. The portal has accepted the function, and counts it until it
// ends, however it ends: a plain Stop does not cancel it, and Close waits for it.
func TestCallerThatLeaves(t *testing.T) {
	for name, outside := range callers(t) {
		for _, end := range testkit.Ends {
			t.Run(name+"/"+end.How, func(t *testing.T) {
				onBothBare(t, func(t *testing.T, kind string) {
					libkit.Listen(t)
					p := started(t, kind)
					stopped := make(chan struct{})
					var cause, loopErr error
					ended := false
					gone := leftBehind(outside, p, func(ctx context.Context) error {
						defer func() { ended = true }()
						p.Stop(false)
						close(stopped)
						cause = context.Cause(ctx)
						loopErr = libkit.Call(ctx, p.Loop(), func(context.Context) error { return nil })
						return end.Do()
					})
					<-gone
					<-stopped
					require.NoError(t, p.Close(nil))
					require.True(t, ended, "Close has not waited")
					require.NoError(t, cause)
					require.NoError(t, loopErr)
				})
			})
		}
	}
}

// The task that has opened a portal waits in Close for a function whose caller has left.
// A Stop that cancels reaches that function.
func TestCallerThatLeavesAnOpenedPortal(t *testing.T) {
	for name, outside := range callers(t) {
		t.Run(name, func(t *testing.T) {
			onBothBare(t, func(t *testing.T, kind string) {
				require.NoError(t, libkit.Run(context.Background(), libkit.NewBackend(t, kind), func(ctx context.Context) error {
					p, err := portal.Open(ctx)
					if err != nil {
						return err
					}
					begins := make(chan struct{})
					var cause error
					ended := false
					leftBehind(outside, p, func(ctx context.Context) error {
						close(begins)
						err := forever(ctx)
						cause = context.Cause(ctx)
						ended = true
						return err
					})
					if err := receive(ctx, begins); err != nil {
						return err
					}
					if err := p.Close(testkit.ErrEnd); err != nil {
						return err
					}
					require.True(t, ended, "Close has not waited")
					require.Equal(t, testkit.ErrEnd, cause)
					return nil
				}))
			})
		})
	}
}

// A function counts until its end, and no longer: a thread that serves all calls may run
// a Close on top of the wait for the function.
func TestCloseOnTopOfACall(t *testing.T) {
	for _, end := range testkit.Ends {
		t.Run(end.How, func(t *testing.T) {
			onBothBare(t, func(t *testing.T, kind string) {
				p := started(t, kind)
				_, tsc := libkit.NewContext(t, asyncsync.Serve(asyncsync.All))
				began, goOn := make(chan struct{}), make(chan struct{})
				caller := testkit.Start(func() error {
					return libkit.To(context.Background(), func(context.Context) error {
						return call(context.Background(), p, func(context.Context) error {
							close(began)
							_ = receive(context.Background(), goOn)
							return end.Do()
						})
					}, asyncsync.On(tsc))
				})
				<-began
				require.NoError(t, libkit.To(context.Background(), func(context.Context) error {
					close(goOn)
					return p.Close(nil)
				}, asyncsync.On(tsc)))
				end.Check(t, caller.Wait())
			})
		})
	}
}

// A Goexit of a call that the caller's thread serves ends StartTask and Wrap before
// the task has started. The task is cancelled and counts until it has ended. A resource
// that it has opened all the same is closed.
func TestCallerThatLeavesAStart(t *testing.T) {
	for _, end := range testkit.Ends {
		for name, start := range map[string]func(p *portal.Portal, ready func(), fn func(context.Context) error) error{
			"StartTask": func(p *portal.Portal, ready func(), fn func(context.Context) error) error {
				_, _, err := portal.StartTask(context.Background(), p, func(ctx context.Context, started func(int) error) (int, error) {
					ready()
					err := forever(ctx)
					if started(1) == nil {
						err = errors.New("the start was reported to nobody")
					}
					return 0, errors.Join(err, fn(ctx))
				})
				return err
			},
			"Wrap": func(p *portal.Portal, ready func(), fn func(context.Context) error) error {
				_, _, err := portal.Wrap(context.Background(), p, func(ctx context.Context) (int, func(context.Context, error) error, error) {
					ready()
					_ = forever(ctx)
					return 1, func(_ context.Context, err error) error { return errors.Join(err, fn(ctx)) }, nil
				})
				return err
			},
		} {
			t.Run(name+"/"+end.How, func(t *testing.T) {
				onBothBare(t, func(t *testing.T, kind string) {
					libkit.Listen(t)
					p := started(t, kind)
					_, tsc := libkit.NewContext(t, asyncsync.Serve(asyncsync.All))
					var cause error
					caller := testkit.Start(func() error {
						return libkit.To(context.Background(), func(context.Context) error {
							ready := func() {
								asyncsync.Go(context.Background(), func(context.Context) (int, error) {
									runtime.Goexit()
									return 0, nil
								}, asyncsync.On(tsc))
							}
							return start(p, ready, func(ctx context.Context) error {
								cause = context.Cause(ctx)
								return end.Do()
							})
						}, asyncsync.On(tsc))
					})
					require.Equal(t, "goexit", caller.Wait().How)
					err := p.Close(nil)
					if end.How == "return" {
						require.Equal(t, end.Want.Err.Error(), err.Error())
					} else {
						require.NoError(t, err)
					}
					require.ErrorIs(t, cause, context.Canceled)
				})
			})
		}
	}
}

// A task that the loop refuses has been counted out when the Ended hook is told. If that
// hook ends the caller of StartSoon, the task is not counted out again: the portal waits
// for what else runs.
func TestHookThatEndsACallerOfStartSoon(t *testing.T) {
	for _, kind := range libkit.Backends {
		t.Run(kind, func(t *testing.T) {
			testkit.Guard(t)
			synctest.Test(t, func(t *testing.T) {
				opened, stop := make(chan *portal.Portal), make(chan struct{})
				host := testkit.Start(func() error {
					return libkit.Run(context.Background(), libkit.NewBackend(t, kind), func(ctx context.Context) error {
						p, err := portal.Open(ctx)
						if err != nil {
							return err
						}
						opened <- p
						return receive(ctx, stop)
					})
				})
				p := <-opened
				began, goOn := make(chan struct{}), make(chan struct{})
				_, err := portal.StartSoon(p, func(context.Context) (int, error) {
					close(began)
					return 0, receive(context.Background(), goOn)
				})
				require.NoError(t, err)
				<-began
				remove := asyncsync.AddHooks(asyncsync.Hooks{
					Queued: func(i asyncsync.CallInfo) {
						if i.Name == "refused" {
							close(stop)
							synctest.Wait()
						}
					},
					Ended: func(i asyncsync.CallInfo) {
						if i.Name == "refused" {
							runtime.Goexit()
						}
					},
				})
				defer remove()
				require.Equal(t, "goexit", testkit.OutcomeOf(func() error {
					_, err := portal.StartSoon(p, func(context.Context) (int, error) { return 0, nil }, task.Named("refused"))
					return err
				}).How)
				closing := testkit.Start(func() error { return p.Close(nil) })
				synctest.Wait()
				assert.False(t, closing.Over(), "Close has not waited")
				close(goOn)
				require.NoError(t, closing.Wait().Err)
				require.NoError(t, host.Wait().Err)
			})
		})
	}
}

// An endCtx ends whoever asks it for its Done as end does, once that is set.
type endCtx struct {
	context.Context
	end atomic.Pointer[func()]
}

func (c *endCtx) Done() <-chan struct{} {
	if end := c.end.Load(); end != nil {
		(*end)()
	}
	return c.Context.Done()
}

// If the ctx of a Call fails when its function gives it back, the caller is told, and the
// portal does not count the function any more. What the function has ended with, other
// than a return, comes first.
func TestCtxOfCallThatFailsAtTheEnd(t *testing.T) {
	for _, bad := range testkit.Ends[1:] {
		for _, end := range testkit.Ends {
			t.Run(bad.How+"/after "+end.How, func(t *testing.T) {
				onBothBare(t, func(t *testing.T, kind string) {
					p := started(t, kind)
					can, cancel := context.WithCancel(context.Background())
					defer cancel()
					ctx := &endCtx{Context: can}
					fails := func() { _ = bad.Do() }
					want := end
					if end.How == "return" {
						want = bad
					}
					want.Check(t, testkit.OutcomeOf(func() error {
						return call(ctx, p, func(context.Context) error {
							ctx.end.Store(&fails)
							return end.Do()
						})
					}))
					ctx.end.Store(nil)
					require.NoError(t, p.Close(nil))
					require.ErrorIs(t, call(context.Background(), p, func(context.Context) error { return nil }), loop.ErrStopped)
				})
			})
		}
	}
}
