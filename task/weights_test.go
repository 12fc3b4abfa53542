package task_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/core"
	"asyncsync.dev/task"
)

// Several tokens are taken at once or not at all, in the one line: a big request
// at its head is not starved by small ones, and one that gives up lets those
// behind it pass.
func TestLimiter_Weights(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		l := task.NewLimiter(3)
		require.NoError(t, l.AcquireN(t.Context(), 2))
		require.False(t, l.TryAcquireN(2))
		var j journal
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { j.add(fmt.Sprint("big ", l.AcquireN(ctx, 3))) }()
		synctest.Wait()
		require.False(t, l.TryAcquire(), "overtakes")
		for range 2 {
			go func() { j.add(fmt.Sprint("small ", l.Acquire(t.Context()))) }()
			synctest.Wait()
		}
		require.Equal(t, task.LimiterStats{Total: 3, Used: 2, Waiting: 3}, l.Stats())
		require.Empty(t, j.read())
		l.Release()
		synctest.Wait()
		require.Empty(t, j.read(), "two are free, and three are waited for")
		cause := errors.New("enough")
		cancel(cause)
		synctest.Wait()
		require.ElementsMatch(t, []string{"big enough", "small <nil>", "small <nil>"}, j.read())
		require.Equal(t, task.LimiterStats{Total: 3, Used: 3}, l.Stats())
		require.PanicsWithValue(t, "task: Limiter.ReleaseN(4) of more tokens than are taken", func() { l.ReleaseN(4) })
		l.ReleaseN(3)
		require.Equal(t, task.LimiterStats{Total: 3}, l.Stats())
		require.NoError(t, l.AcquireN(t.Context(), 0))
		require.ErrorIs(t, l.AcquireN(ctx, 0), cause)
		for _, misuse := range []func(){
			func() { l.AcquireN(t.Context(), -1) }, func() { l.TryAcquireN(-1) }, func() { l.ReleaseN(-1) }, func() { l.AcquireN(noCtx, 1) },
		} {
			requireMisusePanic(t, misuse)
		}
	})
}

// More than there are is refused at once, and says what to do; a total that is
// lowered later makes it wait, and so does one of 0.
func TestLimiter_MoreThanThereAre(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		l := task.NewLimiter(2)
		err := l.AcquireN(t.Context(), 3)
		require.ErrorIs(t, err, task.ErrTooMany)
		require.ErrorContains(t, err, "3 of 2")
		require.ErrorContains(t, err, "SetTotal")
		require.False(t, l.TryAcquireN(3))

		require.NoError(t, l.Acquire(t.Context()))
		got := make(chan error, 1)
		go func() { got <- l.AcquireN(t.Context(), 2) }()
		synctest.Wait()
		l.SetTotal(1)
		l.Release()
		synctest.Wait()
		require.Equal(t, task.LimiterStats{Total: 1, Waiting: 1}, l.Stats())
		l.SetTotal(0)
		synctest.Wait()
		require.Empty(t, got)
		l.SetTotal(2)
		require.NoError(t, <-got)
	})
}

// One that waits for several is lent what it lacks, and what is free is taken.
func TestLimiter_WeightsAreLent(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		s := newTurnstile(3)
		require.NoError(t, s.AcquireN(t.Context(), 2))
		go func() {
			synctest.Wait()
			require.Equal(t, 1, s.Stats().Waiting)
			s.Release()
		}()
		require.NoError(t, s.limited(t.Context(), func(ctx context.Context) error {
			return s.wait(func() error {
				_, err := task.Go(ctx, func(ctx context.Context) (int, error) {
					err := s.AcquireN(ctx, 2)
					require.Equal(t, task.LimiterStats{Total: 3, Used: 3, Lent: 1}, s.Stats())
					s.ReleaseN(2)
					return 0, err
				}).Wait(ctx)
				return err
			})
		}))
		s.Release()
		s.requireDone(t)
	})
}

// Who waits for a limiter and who holds it is known, plain goroutines included.
func TestLimiter_Parties(t *testing.T) {
	guard(t)
	synctest.Test(t, func(t *testing.T) {
		l := task.NewLimiter(2)
		require.NoError(t, l.Acquire(t.Context()))
		ctx, cancel := context.WithCancel(t.Context())
		gate := make(chan struct{})
		go asyncsync.ToThread(t.Context(), func(context.Context) (int, error) { <-gate; return 0, nil },
			asyncsync.Insensitive(), asyncsync.WithLimiter(l))
		synctest.Wait()
		go l.AcquireN(ctx, 2)
		synctest.Wait()
		waits := task.Go(ctx, func(ctx context.Context) (int, error) { return 0, l.Acquire(ctx) }, task.Named("waits"))
		synctest.Wait()
		all := core.TakeGraph().Limiters
		require.Len(t, all, 1)
		r := all[0]
		require.Equal(t, []int{2, 2}, []int{r.Total, r.Used})
		require.Len(t, r.Holding, 2)
		require.ElementsMatch(t, []bool{false, true}, []bool{r.Holding[0].Keeps, r.Holding[1].Keeps})
		require.Len(t, r.Waiting, 2)
		require.Equal(t, []int{2, 1}, []int{r.Waiting[0].Tokens, r.Waiting[1].Tokens})
		require.Equal(t, "waits", r.Waiting[1].Name)
		for _, p := range append(r.Holding, r.Waiting...) {
			require.NotZero(t, p.Goroutine)
		}
		cancel()
		waits.Wait(t.Context())
		close(gate)
		synctest.Wait()
		require.Empty(t, core.TakeGraph().Limiters)
	})
}
