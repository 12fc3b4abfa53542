package deadlock

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"asyncsync.dev/asyncsync"

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
		require.Contains(t, err.Error(), "see docs/deadlock/raw-wait.md")
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
