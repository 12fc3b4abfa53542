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
)

// Close ends as the close function does, whatever other exit functions have done before.
func TestHandleClosesAsItsCloseFunctionDoes(t *testing.T) {
	before := local.New[int](local.ThreadCritical(), local.OnThreadExit(func(int) { panic("before") }))
	for _, e := range ends[1:] {
		t.Run(e.How, func(t *testing.T) {
			guard(t)
			h, err := asyncsync.Open(context.Background(), func(context.Context) (int, error) { before.Set(1); return 1, nil },
				func(int) error { return e.Do() }, asyncsync.OnThreadExit(func() { panic("after") }))
			require.NoError(t, err)
			e.Check(t, outcomeOf(h.Close))
		})
	}
}

// A value that only its thread may touch, and that knows it: its fields are
// plain, so that the race detector is a witness too.
type touchy struct {
	home  int64
	uses  int
	close int
}

func openTouchy(context.Context) (*touchy, error) { return &touchy{home: here().gid}, nil }

func (v *touchy) use() error {
	if here().gid != v.home {
		return errors.New("touched on another thread")
	}
	if v.close > 0 {
		return errors.New("touched after close")
	}
	v.uses++
	return nil
}

func TestHandle(t *testing.T) {
	guard(t)
	var value *touchy
	h, err := asyncsync.Open(context.Background(), openTouchy, func(v *touchy) error {
		err := v.use()
		v.close++
		value = v
		return err
	})
	require.NoError(t, err)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 50 {
				err := h.Do(context.Background(), func(ctx context.Context, v *touchy) error {
					return from(ctx, func(ctx context.Context) error {
						return h.Do(ctx, func(_ context.Context, v *touchy) error { return v.use() })
					})
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	uses, err := asyncsync.Get(context.Background(), h, func(_ context.Context, v *touchy) (int, error) { return v.uses, nil })
	require.NoError(t, err)
	require.Equal(t, 200, uses)
	require.NoError(t, h.Close())
	require.Equal(t, 1, value.close)
	require.NoError(t, h.Close())
	require.Equal(t, 1, value.close, "once")
	require.ErrorIs(t, h.Do(context.Background(), func(context.Context, *touchy) error { return nil }), asyncsync.ErrClosed)
}

// Value, for code that is on the thread already.
func TestHandleValue(t *testing.T) {
	guard(t)
	h, err := asyncsync.Open(context.Background(), openTouchy, nil)
	require.NoError(t, err)
	require.NoError(t, h.Do(context.Background(), func(_ context.Context, v *touchy) error {
		got, err := h.Value()
		require.Same(t, v, got)
		return errors.Join(err, got.use())
	}))
	_, err = h.Value()
	require.ErrorIs(t, err, asyncsync.ErrWrongThread)
	require.NoError(t, h.Close())
}

// The handle's thread is its own, in whatever context it is opened and used.
func TestHandleHasItsOwnThread(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t)
	home := threadOf(t, ctx)
	var h *asyncsync.Handle[place]
	require.NoError(t, to(ctx, func(ctx context.Context) (err error) {
		h, err = asyncsync.Open(ctx, whereabouts, nil)
		return err
	}))
	var back, value place
	require.NoError(t, h.Do(ctx, func(_ context.Context, v place) error {
		value = v
		var err error
		// The ctx from outside still knows its own thread, free meanwhile.
		back, err = asyncsync.ToThread(ctx, whereabouts)
		return err
	}))
	require.NotEqual(t, home.gid, value.gid)
	require.Equal(t, home, back)
	require.NoError(t, h.Close())
}

// Two handles that call into each other.
func TestHandlesCallEachOther(t *testing.T) {
	guard(t)
	a, err := asyncsync.Open(context.Background(), openTouchy, nil)
	require.NoError(t, err)
	b, err := asyncsync.Open(context.Background(), openTouchy, nil)
	require.NoError(t, err)
	require.NoError(t, a.Do(context.Background(), func(ctx context.Context, v *touchy) error {
		return b.Do(ctx, func(ctx context.Context, w *touchy) error {
			return a.Do(ctx, func(_ context.Context, again *touchy) error {
				require.Same(t, v, again)
				return errors.Join(again.use(), w.useElsewhere())
			})
		})
	}))
	require.NoError(t, a.Close())
	require.NoError(t, b.Close())
}

func (v *touchy) useElsewhere() error {
	if v.use() == nil {
		return errors.New("on two threads at once")
	}
	return nil
}

// Open that fails, and ctx that ends first.
func TestOpenFails(t *testing.T) {
	guard(t)
	h, err := asyncsync.Open(context.Background(), func(context.Context) (int, error) { return 7, errOwn }, nil)
	require.Same(t, errOwn, err)
	require.Nil(t, h)

	pool := newPool(t, asyncsync.ThreadPoolConfig{MaxThreads: 1})
	holder, _ := newContext(t, asyncsync.WithPool(pool))
	release, first := occupy(holder)
	ctx, cancel := context.WithCancelCause(context.Background())
	r := start(func() error {
		_, err := asyncsync.Open(ctx, func(context.Context) (int, error) { return 0, neverRuns(t)(nil) }, nil, asyncsync.WithPool(pool))
		return err
	})
	poll(t, func() string {
		if pool.Stats().Waiting != 1 {
			return "not in line"
		}
		return ""
	})
	cancel(errCause)
	require.Same(t, errCause, r.Wait().Err)
	require.Zero(t, pool.Stats().Waiting)
	release()
	require.NoError(t, first.Wait().Err)
}

// The handle outlives the ctx it was opened with.
func TestHandleOutlivesOpensCtx(t *testing.T) {
	guard(t)
	ctx, cancel := context.WithCancel(context.Background())
	h, err := asyncsync.Open(ctx, openTouchy, nil)
	require.NoError(t, err)
	cancel()
	require.NoError(t, h.Do(context.Background(), func(_ context.Context, v *touchy) error { return v.use() }))
	require.NoError(t, h.Close())
}

// Close order: accepted calls, then the value, then exit functions; critical
// values go first of the exit functions.
func TestHandleCloseOrder(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		var events []string
		say := func(s string) { events = append(events, s) }
		critical := local.New[string](local.ThreadCritical(), local.OnThreadExit(func(v string) { say(v) }))
		h, err := asyncsync.Open(context.Background(),
			func(context.Context) (int, error) { say("open"); return 1, nil },
			func(int) error { say("close"); return errOwn },
			asyncsync.OnThreadStart(func() { say("start") }), asyncsync.OnThreadExit(func() { say("exit") }))
		require.NoError(t, err)
		gate := make(chan struct{})
		first := start(func() error {
			return h.Do(context.Background(), func(context.Context, int) error { critical.Set("critical"); <-gate; say("first"); return nil })
		})
		synctest.Wait()
		second := start(func() error {
			return h.Do(context.Background(), func(context.Context, int) error { say("second"); return nil })
		})
		synctest.Wait()
		closer := start(h.Close)
		synctest.Wait()
		require.False(t, closer.Over())
		require.ErrorIs(t, h.Do(context.Background(), func(context.Context, int) error { say("late"); return nil }), asyncsync.ErrClosed)
		close(gate)
		require.ErrorIs(t, closer.Wait().Err, errOwn)
		require.NoError(t, first.Wait().Err)
		require.NoError(t, second.Wait().Err)
		require.Equal(t, []string{"start", "open", "first", "second", "critical", "close", "exit"}, events)
	})
}

// Where the value is being closed, on its thread, the handle is closed: nothing there
// gets a value that is no more.
func TestHandleInItsCloseFunction(t *testing.T) {
	guard(t)
	hooked := false
	for range 2 {
		var h *asyncsync.Handle[*touchy]
		var inside context.Context
		look := func() {
			for _, ctx := range []context.Context{context.Background(), inside} {
				_, err := h.Value()
				require.ErrorIs(t, err, asyncsync.ErrClosed)
				for _, opts := range [][]asyncsync.Option{nil, {asyncsync.Named("late")}} {
					require.ErrorIs(t, h.Do(ctx, func(context.Context, *touchy) error { return errOwn }, opts...), asyncsync.ErrClosed)
					_, err = asyncsync.Get(ctx, h, func(context.Context, *touchy) (int, error) { return 0, errOwn }, opts...)
					require.ErrorIs(t, err, asyncsync.ErrClosed)
				}
			}
		}
		var looked int
		h, err := asyncsync.Open(context.Background(), func(ctx context.Context) (*touchy, error) { inside = ctx; return openTouchy(ctx) },
			func(*touchy) error { look(); looked++; return nil }, asyncsync.OnThreadExit(func() { look(); looked++ }))
		require.NoError(t, err)
		require.NoError(t, h.Close())
		require.Equal(t, 2, looked)
		if !hooked {
			hooked = true
			t.Cleanup(asyncsync.SetHooks(asyncsync.Hooks{Ended: func(asyncsync.CallInfo) {}}))
		}
	}
}

// Closed from inside: when the function has ended.
func TestHandleCloseFromInside(t *testing.T) {
	for _, async := range []bool{false, true} {
		t.Run(fmt.Sprintf("async %t", async), func(t *testing.T) {
			guard(t)
			var closed atomic.Bool
			h, err := asyncsync.Open(context.Background(), openTouchy, func(v *touchy) error { closed.Store(true); return v.use() })
			require.NoError(t, err)
			require.NoError(t, h.Do(context.Background(), func(ctx context.Context, v *touchy) error {
				if async {
					if err := from(ctx, func(context.Context) error { return h.Close() }); err != nil {
						return err
					}
				} else if err := h.Close(); err != nil {
					return err
				}
				require.False(t, closed.Load())
				return v.use()
			}))
			require.NoError(t, h.Close())
			require.True(t, closed.Load())
		})
	}
}

// Many at once: the value is closed once, after the last use.
func TestHandleCloseRace(t *testing.T) {
	guard(t)
	for range 200 {
		h, err := asyncsync.Open(context.Background(), openTouchy, func(v *touchy) error {
			err := v.use()
			v.close++
			return err
		})
		require.NoError(t, err)
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				err := h.Do(context.Background(), func(_ context.Context, v *touchy) error { return v.use() })
				if err != nil && !errors.Is(err, asyncsync.ErrClosed) {
					t.Error(err)
				}
			})
		}
		for range 2 {
			all.Go(func() {
				if err := h.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
}
