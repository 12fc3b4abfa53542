package deadlock

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/task"

	"github.com/stretchr/testify/require"
)

// rawly waits on a channel, on the thread of ctx, for a goroutine that calls
// that thread, until give is closed. It returns what that call came to, nil if
// it did not wait for it.
func rawly(ctx context.Context, give <-chan struct{}) (called error) {
	_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		result := make(chan error, 1)
		go func() {
			_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 1, nil }, asyncsync.Named("second"))
			result <- err
		}()
		select {
		case called = <-result:
		case <-give:
		}
		return 0, nil
	}, asyncsync.Named("first"))
	return errors.Join(called, err)
}

// A probable deadlock of real threads, which ends after all.
func TestProbableRealThreads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context(), asyncsync.WithName("real"))
		give, got, done := make(chan struct{}), &verdicts{}, make(chan error, 1)
		stop := Watch(Config{OnVerdict: got.add})
		time.Sleep(time.Second / 2)
		go func() { done <- rawly(ctx, give) }()
		pass(1)
		require.Empty(t, got.take())
		pass(1)
		vs := got.take()
		require.Len(t, vs, 1)
		v := vs[0]
		require.Equal(t, []any{Probable, "real", "first", "second", "select"}, []any{v.Kind, v.Name, v.Running, v.Call, v.Parked})
		require.NotNil(t, v.Site)
		require.True(t, strings.HasSuffix(v.Site.File, "real_test.go"), v.Site)
		require.Equal(t, 1500*time.Millisecond, v.Age)
		pass(3)
		close(give)
		require.NoError(t, <-done)
		pass(1)
		vs = got.take()
		require.Len(t, vs, 1)
		require.Equal(t, Retracted, vs[0].Kind)
		require.Equal(t, 5*time.Second, vs[0].Age, "when it moved, not when that was noticed")
		stop()
		require.NoError(t, tsc.Close())
	})
}

// Strict ends a wait of real threads that would not have ended.
func TestStrictEndsRealHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := newRecorder(t)
		Strict(tb)
		ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context(), asyncsync.WithName("real"))
		err := rawly(ctx, nil)
		require.ErrorIs(t, err, ErrDeadlock)
		require.Contains(t, err.Error(), "see go doc asyncsync.dev/deadlock PageRawWait")
		require.NoError(t, tsc.Close())
		errs := tb.end()
		require.Len(t, errs, 1)
		require.Contains(t, errs[0], "deadlock: Strict: call second, called from asyncsync.dev/deadlock.rawly")
	})
}

// Under Strict a thread with the policy All does not serve strangers, so that a
// wait which needs one served does not end.
func TestStrictShowsWhatAllHides(t *testing.T) {
	hidden := func(t *testing.T) error {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context(), asyncsync.Serve(asyncsync.All), asyncsync.WithName("real"))
		defer tsc.Close()
		work, worked := make(chan struct{}), make(chan error, 1)
		go func() { // a worker that was there before, and belongs to nobody
			<-work
			_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 1, nil }, asyncsync.Named("stranger"))
			worked <- err
		}()
		_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
			return asyncsync.FromThread(ctx, func(context.Context) (int, error) {
				close(work)
				return 0, <-worked
			})
		}, asyncsync.Named("first"))
		return err
	}
	synctest.Test(t, func(t *testing.T) { require.NoError(t, hidden(t)) })
	synctest.Test(t, func(t *testing.T) {
		tb := newRecorder(t)
		Strict(tb)
		require.ErrorIs(t, hidden(t), ErrDeadlock)
		errs := tb.end()
		require.Len(t, errs, 1)
		require.Contains(t, errs[0], "blocked in async and does not serve it")
	})
}

// Who waits for a token is in every report, whatever goroutine that is; slow after
// the threshold; and told of as stuck as soon as all who hold the tokens are seen to
// wait for the limiter too, or to be parked.
func TestLimiterWaits(t *testing.T) {
	acquire := func(ctx context.Context, l *task.Limiter) error {
		if err := l.Acquire(ctx); err != nil {
			return err
		}
		l.Release()
		return nil
	}
	await := func(ctx context.Context, fns ...func(context.Context) error) error {
		ctx, g := task.NewGroup(ctx)
		for _, fn := range fns {
			g.Go(fn)
		}
		return g.Wait(ctx)
	}
	one, two := task.NewLimiter(1), task.NewLimiter(2)
	for _, c := range []struct {
		name string
		want Kind
		play func(ctx context.Context, stop <-chan struct{}) error
	}{
		{"the last token twice", Probable, func(ctx context.Context, _ <-chan struct{}) error {
			require.NoError(t, one.Acquire(ctx))
			defer one.Release()
			return acquire(ctx, one)
		}},
		{"the last token twice, in a task", Probable, func(ctx context.Context, _ <-chan struct{}) error {
			return await(ctx, func(ctx context.Context) error {
				require.NoError(t, one.Acquire(ctx))
				defer one.Release()
				return acquire(ctx, one)
			})
		}},
		{"two of two tokens each, one by one", Probable, func(ctx context.Context, _ <-chan struct{}) error {
			both := func(ctx context.Context) error {
				require.NoError(t, two.Acquire(ctx))
				defer two.Release()
				time.Sleep(time.Millisecond)
				return acquire(ctx, two)
			}
			return await(ctx, both, both)
		}},
		{"a task that wants the token of who waits for it", Probable, func(ctx context.Context, _ <-chan struct{}) error {
			require.NoError(t, one.Acquire(ctx))
			defer one.Release()
			return await(ctx, func(ctx context.Context) error { return acquire(ctx, one) })
		}},
		{"a goroutine that wants it", Probable, func(ctx context.Context, _ <-chan struct{}) error {
			require.NoError(t, one.Acquire(ctx))
			defer one.Release()
			done := make(chan error)
			go func() { done <- acquire(ctx, one) }()
			return <-done
		}},
		{"two limiters, crosswise", Probable, func(ctx context.Context, _ <-chan struct{}) error {
			require.NoError(t, two.Acquire(ctx))
			defer two.Release()
			cross := func(a, b *task.Limiter) func(context.Context) error {
				return func(ctx context.Context) error {
					require.NoError(t, a.Acquire(ctx))
					defer a.Release()
					time.Sleep(time.Millisecond)
					return acquire(ctx, b)
				}
			}
			return await(ctx, cross(one, two), cross(two, one))
		}},
		{"on a thread, below what holds it", Probable, func(ctx context.Context, _ <-chan struct{}) error {
			ctx, tsc := asyncsync.NewThreadSensitiveContext(ctx)
			defer tsc.Close()
			_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
				require.NoError(t, one.Acquire(ctx))
				defer one.Release()
				return asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) { return 0, acquire(ctx, one) })
			})
			return err
		}},
		{"a holder that sleeps", Slow, func(ctx context.Context, stop <-chan struct{}) error {
			return await(ctx, func(ctx context.Context) error {
				require.NoError(t, one.Acquire(ctx))
				defer one.Release()
				for {
					select {
					case <-stop:
						return nil
					default:
						time.Sleep(time.Second)
					}
				}
			}, func(ctx context.Context) error {
				time.Sleep(time.Millisecond)
				return acquire(ctx, one)
			})
		}},
		{"one of two holders sleeps", Slow, func(ctx context.Context, stop <-chan struct{}) error {
			return await(ctx, func(ctx context.Context) error {
				require.NoError(t, two.Acquire(ctx))
				defer two.Release()
				for {
					select {
					case <-stop:
						return nil
					default:
						time.Sleep(time.Second)
					}
				}
			}, func(ctx context.Context) error {
				require.NoError(t, two.Acquire(ctx))
				defer two.Release()
				time.Sleep(time.Millisecond)
				return acquire(ctx, two)
			})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				got, done, free := &verdicts{}, make(chan error, 1), make(chan struct{})
				stop := Watch(Config{Slow: 5 * time.Second, OnVerdict: got.add})
				defer stop()
				time.Sleep(time.Second / 2)
				go func() { done <- c.play(ctx, free) }()
				pass(1)
				require.Empty(t, got.take())
				r := Take()
				require.NotEmpty(t, r.Limiters)
				require.NotEmpty(t, r.Limiters[0].Held)
				require.NotZero(t, r.Limiters[0].Queue[0].Who)
				require.Contains(t, r.String(), "\n  waited for by ")
				pass(1)
				vs := got.take()
				if c.want == Probable {
					require.NotEmpty(t, vs)
					require.Equal(t, Probable, vs[0].Kind)
					require.Equal(t, "limiter", vs[0].Wait.Kind)
					require.Contains(t, vs[0].Title(), "for a limiter, and all holders of its tokens wait for it or are parked")
					require.True(t, strings.HasSuffix(vs[0].String(), "\nsee go doc asyncsync.dev/deadlock PageLimiter\n"))
				} else {
					require.Empty(t, vs)
				}
				pass(10)
				slow := got.take()
				require.NotEmpty(t, slow)
				for _, v := range slow {
					require.Equal(t, Slow, v.Kind)
				}
				close(free)
				cancel()
				<-done
				pass(1)
				require.Len(t, got.take(), len(vs)+len(slow), "each is taken back")
				require.Empty(t, Take().Limiters)
			})
		})
	}
}

// What was posted to an executor whose owner waits elsewhere is in reports, and slow.
// When the owner runs it, the verdict is taken back.
func TestExecutorThatNobodyRuns(t *testing.T) {
	for _, named := range []string{"", "ui"} { // with a context that has the thread, or without
		t.Run(named, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ui := asyncsync.NewCurrentThreadExecutor()
				defer ui.Close()
				got, call := &verdicts{}, "posted function"
				post := func() error { return ui.Post(func() {}) }
				if named != "" {
					call = "draw"
					ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context(), asyncsync.WithThread(ui), asyncsync.WithName(named))
					defer tsc.Close()
					post = func() error {
						go asyncsync.Do(ctx, func(context.Context) error { return nil }, asyncsync.Named("draw"))
						return nil
					}
				}
				stop := Watch(Config{Slow: time.Second, OnVerdict: got.add})
				defer stop()
				require.NoError(t, post())
				synctest.Wait()
				text := Take().String()
				require.Contains(t, text, "its goroutine is not in RunUntil, RunPending or a wait that serves")
				require.Contains(t, text, "thread (made in asyncsync.dev/deadlock.TestExecutorThatNobodyRuns")
				if named != "" {
					require.Contains(t, text, "draw of context ui")
				}
				pass(3)
				vs := got.take()
				require.Len(t, vs, 1)
				require.Equal(t, []any{Slow, call, PageSlow}, []any{vs[0].Kind, vs[0].Call, vs[0].Page()})
				require.Contains(t, vs[0].Title(), "whose goroutine is not in RunUntil")
				ran, err := ui.RunPending()
				require.NoError(t, err)
				require.Equal(t, 1, ran)
				for _, th := range Take().Threads {
					require.Zero(t, th.Queued)
				}
				pass(1)
				vs = got.take()
				require.Len(t, vs, 1)
				require.Equal(t, Retracted, vs[0].Kind)
			})
		})
	}
}
