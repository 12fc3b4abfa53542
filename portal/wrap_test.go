package portal_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/loop"
	"asyncsync.dev/portal"
	"asyncsync.dev/task"
)

// A resource notes what is done with it.
type resource struct {
	opened, closed atomic.Int32
	got            error // by close
	ended          error // the cause of the end of open's ctx, seen by close
	alive          error // of the end of close's own
	result         error // of close
	finish         func() error
}

func (r *resource) open(ctx context.Context) (string, func(context.Context, error) error, error) {
	r.opened.Add(1)
	return "test", func(inner context.Context, err error) error {
		r.closed.Add(1)
		r.got, r.ended, r.alive = err, context.Cause(ctx), context.Cause(inner)
		if r.finish != nil {
			return r.finish()
		}
		return r.result
	}, nil
}

// D2: the portal stops while a resource is open. It is closed once, with the reason;
// its ctx lives; and the later close function returns what that came to.
func TestWrapUnderStop(t *testing.T) {
	cause := errors.New("the cause")
	for name, c := range map[string]struct {
		stop       func(p *portal.Portal) error
		got, ended error
	}{
		"Stop":       {func(p *portal.Portal) error { p.Stop(false); return nil }, loop.ErrStopped, nil},
		"Stop(true)": {func(p *portal.Portal) error { p.Stop(true); return nil }, loop.ErrStopped, loop.ErrStopped},
		"Close":      {func(p *portal.Portal) error { return p.Close(nil) }, loop.ErrStopped, nil},
		"Close(err)": {func(p *portal.Portal) error { return p.Close(cause) }, cause, cause},
	} {
		t.Run(name, func(t *testing.T) {
			onBothBare(t, func(t *testing.T, kind string) {
				p := started(t, kind)
				real := errors.New("closing has failed")
				r := &resource{result: real}
				s, closeIt, err := portal.Wrap(context.Background(), p, r.open)
				require.NoError(t, err)
				require.Equal(t, "test", s)
				err = c.stop(p)
				if name == "Close" || name == "Close(err)" {
					require.ErrorIs(t, err, real, "nobody else has been told")
				}
				for range 2 {
					require.ErrorIs(t, closeIt(errors.New("too late")), real)
				}
				require.NoError(t, p.Close(nil), "the close function has told")
				require.EqualValues(t, 1, r.closed.Load())
				require.ErrorIs(t, r.got, c.got)
				require.ErrorIs(t, r.ended, c.ended)
				require.NoError(t, r.alive)
			})
		})
	}
}

// A stop that comes while open runs closes the resource as soon as it is open.
func TestWrapStoppedWhileOpening(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		p := started(t, kind)
		r := &resource{}
		_, closeIt, err := portal.Wrap(context.Background(), p, func(ctx context.Context) (string, func(context.Context, error) error, error) {
			p.Stop(false)
			return r.open(ctx)
		})
		require.NoError(t, err)
		require.NoError(t, closeIt(nil))
		require.ErrorIs(t, r.got, loop.ErrStopped)
		require.NoError(t, p.Close(nil))
	})
}

// All three endings of closing reach who calls the close function, each time.
func TestWrapEndings(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		p := started(t, kind)
		for _, end := range testkit.Ends {
			r := &resource{finish: end.Do}
			_, closeIt, err := portal.Wrap(context.Background(), p, r.open)
			require.NoError(t, err)
			for range 2 {
				end.Check(t, testkit.OutcomeOf(func() error { return closeIt(nil) }))
			}
		}
		require.NoError(t, p.Close(nil))
	})
}

// A ctx that ends while open runs ends open's, and Wrap waits for that; what has been
// opened nonetheless is closed.
func TestWrapGivesUp(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		p := started(t, kind)
		for _, stubborn := range []bool{false, true} {
			ctx, cancel := context.WithCancelCause(context.Background())
			r := &resource{}
			_, _, err := portal.Wrap(ctx, p, func(ctx context.Context) (string, func(context.Context, error) error, error) {
				cancel(testkit.ErrEnd)
				if err := forever(ctx); !stubborn {
					return "", nil, err
				}
				return r.open(ctx)
			})
			require.ErrorIs(t, err, testkit.ErrEnd)
			if stubborn {
				require.EqualValues(t, 1, r.closed.Load())
				require.ErrorIs(t, r.got, testkit.ErrEnd)
			}
		}
		// Once it is open ctx does not matter.
		ctx, cancel := context.WithCancel(context.Background())
		r := &resource{}
		_, closeIt, err := portal.Wrap(ctx, p, r.open)
		require.NoError(t, err)
		cancel()
		require.NoError(t, closeIt(nil))
		require.NoError(t, r.ended)
		require.NoError(t, r.got)
		require.NoError(t, p.Close(nil))
	})
}

// Who has no close function called learns from Close how closing has ended.
func TestWrapForgotten(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		p := started(t, kind)
		r := &resource{result: testkit.ErrEnd}
		_, _, err := portal.Wrap(context.Background(), p, r.open)
		require.NoError(t, err)
		require.ErrorIs(t, p.Close(nil), testkit.ErrEnd)
	})
}

// The close function in a posted function of a loop with one thread closes, and does not
// wait.
func TestWrapClosedByPosted(t *testing.T) {
	testkit.Guard(t)
	p := started(t, "thread")
	r := &resource{}
	_, closeIt, err := portal.Wrap(context.Background(), p, r.open)
	require.NoError(t, err)
	require.ErrorIs(t, posted(p.Loop(), func() error { return closeIt(testkit.ErrEnd) }), loop.ErrOnLoop)
	require.NoError(t, closeIt(nil))
	require.ErrorIs(t, r.got, testkit.ErrEnd)
	require.NoError(t, p.Close(nil))
}

// started when nobody waits any more, and a second time.
func TestStartedTooLate(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		p := started(t, kind)
		ctx, cancel := context.WithCancelCause(context.Background())
		var late error
		tk, _, err := portal.StartTask(ctx, p, func(ctx context.Context, started func(int) error) (int, error) {
			cancel(testkit.ErrEnd)
			_ = forever(ctx)
			late = started(1)
			return 0, nil
		})
		require.ErrorIs(t, err, testkit.ErrEnd, "the function has returned none")
		require.ErrorIs(t, late, testkit.ErrEnd)
		<-tk.Done()

		own := errors.New("its own")
		ctx, cancel = context.WithCancelCause(context.Background())
		_, _, err = portal.StartTask(ctx, p, func(ctx context.Context, started func(int) error) (int, error) {
			cancel(testkit.ErrEnd)
			_ = forever(ctx)
			return 0, own
		})
		require.ErrorIs(t, err, own)

		var twice error
		tk, n, err := portal.StartTask(context.Background(), p, func(ctx context.Context, started func(int) error) (int, error) {
			if err := started(1); err != nil {
				return 0, err
			}
			twice = started(2)
			return 0, nil
		})
		require.NoError(t, err)
		require.Equal(t, 1, n)
		_, err = tk.Wait(context.Background())
		require.NoError(t, err)
		require.ErrorIs(t, twice, task.ErrStartedTwice)
		require.NoError(t, p.Close(nil))
	})
}

// What StartTask has started outlives the ctx it was started with, and has its values.
func TestStartTaskOutlivesCtx(t *testing.T) {
	onBothBare(t, func(t *testing.T, kind string) {
		p := started(t, kind)
		type key struct{}
		ctx, cancel := context.WithCancel(context.WithValue(context.Background(), key{}, 6))
		tk, _, err := portal.StartTask(ctx, p, func(ctx context.Context, started func(int) error) (any, error) {
			if err := started(1); err != nil {
				return nil, err
			}
			_ = receive(ctx, p.Stopping())
			return ctx.Value(key{}), ctx.Err()
		})
		require.NoError(t, err)
		cancel()
		p.Stop(false)
		v, err := tk.Wait(context.Background())
		require.NoError(t, err)
		require.Equal(t, 6, v)
		require.NoError(t, p.Close(nil))
	})
}

// All of it in a bubble, where a goroutine that is left would be found.
func TestInBubble(t *testing.T) {
	testkit.Guard(t)
	for _, kind := range libkit.Backends {
		synctest.Test(t, func(t *testing.T) {
			p := started(t, kind)
			r := &resource{}
			_, closeIt, err := portal.Wrap(context.Background(), p, r.open)
			require.NoError(t, err)
			tk, err := portal.StartSoon(p, func(ctx context.Context) (int, error) { return 0, forever(ctx) })
			require.NoError(t, err)
			synctest.Wait()
			tk.Cancel(testkit.ErrEnd)
			_, err = tk.Wait(context.Background())
			require.ErrorIs(t, err, testkit.ErrEnd)
			require.NoError(t, closeIt(nil))
			require.NoError(t, p.Close(nil))
		})
	}
}
