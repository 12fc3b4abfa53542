package xsync_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"asyncsync.dev/task"
)

// A weighted is what both limiters are.
type weighted interface {
	AcquireN(ctx context.Context, n int) error
	TryAcquireN(n int) bool
	ReleaseN(n int)
}

type theirs struct{ *semaphore.Weighted }

func (s theirs) AcquireN(ctx context.Context, n int) error { return s.Acquire(ctx, int64(n)) }
func (s theirs) TryAcquireN(n int) bool                    { return s.TryAcquire(int64(n)) }
func (s theirs) ReleaseN(n int)                            { s.Release(int64(n)) }

// A story is what happened, step by step.
type story struct {
	mu    sync.Mutex
	steps [][]string
}

func (s *story) add(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := len(s.steps) - 1
	s.steps[last] = append(s.steps[last], fmt.Sprintf(format, args...))
}

func (s *story) step(format string, args ...any) {
	s.mu.Lock()
	s.steps = append(s.steps, nil)
	s.mu.Unlock()
	s.add(format, args...)
}

// told returns the story, with what happened in one step in no order.
func (s *story) told() [][]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, step := range s.steps {
		slices.Sort(step)
	}
	return s.steps
}

// playSemaphore runs one random program of calls: all that can happen has
// happened before the next.
func playSemaphore(seed uint64, w weighted, size int) [][]string {
	r := rand.New(rand.NewPCG(seed, 1))
	s := &story{}
	taken := 0
	var mu sync.Mutex
	var cancels []context.CancelFunc
	for i := range 200 {
		n := 1 + r.IntN(size)
		switch r.IntN(8) {
		case 0, 1, 2:
			ctx, cancel := context.WithCancel(context.Background())
			cancels = append(cancels, cancel)
			if r.IntN(8) == 0 {
				cancel()
			}
			s.step("%d acquires %d", i, n)
			go func() {
				err := w.AcquireN(ctx, n)
				mu.Lock()
				defer mu.Unlock()
				s.add("%d has got %d: %v", i, n, err)
				if err == nil {
					taken += n
				}
			}()
		case 3:
			ok := w.TryAcquireN(n)
			s.step("%d tries %d: %v", i, n, ok)
			if ok {
				taken += n
			}
		case 4, 5, 6:
			if taken == 0 {
				continue
			}
			n = 1 + r.IntN(taken)
			s.step("%d releases %d", i, n)
			mu.Lock()
			taken -= n
			mu.Unlock()
			w.ReleaseN(n)
		case 7:
			if len(cancels) == 0 {
				continue
			}
			k := r.IntN(len(cancels))
			s.step("%d cancels %d", i, k)
			cancels[k]()
		}
		synctest.Wait()
	}
	for i, cancel := range cancels { // one by one: which is first makes a difference
		s.step("%d is cancelled", i)
		cancel()
		synctest.Wait()
	}
	return s.told()
}

func requireSame(t *testing.T, want, got [][]string, seed uint64) {
	t.Helper()
	for i := range min(len(want), len(got)) {
		require.Equal(t, want[i], got[i], "seed %d, step %d", seed, i)
	}
	require.Len(t, got, len(want), "seed %d", seed)
}

// A Limiter does what a semaphore does: who gets how many tokens at which
// moment, in which order, who is refused, and why.
func TestLimiterAgainstSemaphore(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			size := 1 + int(seed%5)
			want := playSemaphore(seed, theirs{semaphore.NewWeighted(int64(size))}, size)
			got := playSemaphore(seed, task.NewLimiter(size), size)
			requireSame(t, want, got, seed)
		})
	}
}

// Releasing more than was taken panics in both, and takes nothing.
func TestReleaseTooMany(t *testing.T) {
	for name, w := range map[string]weighted{"semaphore": theirs{semaphore.NewWeighted(2)}, "limiter": task.NewLimiter(2)} {
		require.NoError(t, w.AcquireN(t.Context(), 1), name)
		require.Panics(t, func() { w.ReleaseN(2) }, name)
	}
}

// What a semaphore waits for in vain, for as long as ctx lasts, a Limiter says
// at once: the one difference.
func TestMoreThanThereAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		err := make(chan error, 1)
		go func() { err <- theirs{semaphore.NewWeighted(2)}.AcquireN(ctx, 3) }()
		require.ErrorIs(t, task.NewLimiter(2).AcquireN(ctx, 3), task.ErrTooMany)
		synctest.Wait()
		require.Empty(t, err)
		cancel()
		require.ErrorIs(t, <-err, context.Canceled)
	})
}

// A group is what both groups are.
type group interface {
	Go(fn func() error)
	TryGo(fn func() error) bool
	SetLimit(n int)
	Wait() error
}

type ours struct{ *task.Group }

func (g ours) Go(fn func() error) { g.Group.Go(func(context.Context) error { return fn() }) }
func (g ours) TryGo(fn func() error) bool {
	return g.Group.TryGo(func(context.Context) error { return fn() })
}
func (g ours) Wait() error { return g.Group.Wait(context.Background()) }

// playGroup runs one random program of tasks that end when they are told to.
func playGroup(seed uint64, ctx context.Context, g group) [][]string {
	r := rand.New(rand.NewPCG(seed, 2))
	s := &story{}
	if limit := r.IntN(6) - 1; limit != 0 {
		g.SetLimit(limit)
	}
	var gates []chan error
	var open []int
	for i := range 40 {
		if r.IntN(2) == 0 || len(open) == 0 {
			gate := make(chan error, 1)
			gates = append(gates, gate)
			open = append(open, i)
			fn := func() error {
				s.add("%d begins", i)
				err := <-gate
				s.add("%d ends", i)
				return err
			}
			if r.IntN(3) == 0 {
				s.step("%d is tried", i)
				s.add("%d: %v", i, g.TryGo(fn))
			} else {
				s.step("%d is started", i)
				go func() {
					g.Go(fn)
					s.add("%d was started", i)
				}()
			}
		} else {
			k := r.IntN(len(gates))
			var err error
			if r.IntN(4) == 0 {
				err = fmt.Errorf("error %d", i)
			}
			s.step("gate %d opens: %v", k, err)
			select {
			case gates[k] <- err:
			default:
			}
		}
		synctest.Wait()
		if ctx != nil {
			s.add("cancelled: %v, %v", ctx.Err(), context.Cause(ctx))
		}
	}
	for k, gate := range gates { // one by one: who fails first makes a difference
		s.step("gate %d opens for the rest", k)
		select {
		case gate <- nil:
		default:
		}
		synctest.Wait()
	}
	s.step("wait")
	s.add("%v", g.Wait())
	if ctx != nil {
		cause := context.Cause(ctx)
		if errors.Is(cause, context.Canceled) {
			cause = context.Canceled // ours says more
		}
		s.add("cancelled: %v, %v", ctx.Err(), cause)
	}
	return s.told()
}

// A Group that tells the first error does what an errgroup does: which tasks run
// at which moment, who has to wait for a place, what cancels the ctx and why, and
// what Wait returns; and a zero one does what a zero one does.
func TestGroupAgainstErrgroup(t *testing.T) {
	for seed := range uint64(300) {
		synctest.Test(t, func(t *testing.T) {
			theirs, ctx := errgroup.WithContext(t.Context())
			want := playGroup(seed, ctx, theirs)
			ctx, g := task.NewGroup(t.Context(), task.FirstError())
			requireSame(t, want, playGroup(seed, ctx, ours{g}), seed)
		})
		synctest.Test(t, func(t *testing.T) {
			want := playGroup(seed, nil, &errgroup.Group{})
			got := playGroup(seed, nil, ours{&task.Group{}})
			// Theirs tells the first error, ours all of them, in order.
			requireFirst(t, want, got)
		})
	}
}

func requireFirst(t *testing.T, want, got [][]string) {
	t.Helper()
	last := len(want) - 1
	require.Equal(t, want[:last], got[:last])
	require.Len(t, got, len(want))
	require.Contains(t, fmt.Sprint(got[last]), want[last][0])
}

// SetLimit while tasks run panics in both.
func TestSetLimitWhileTasksRun(t *testing.T) {
	for name, g := range map[string]group{"errgroup": &errgroup.Group{}, "group": ours{&task.Group{}}} {
		gate := make(chan struct{})
		g.SetLimit(1)
		g.Go(func() error { <-gate; return nil })
		require.Panics(t, func() { g.SetLimit(2) }, name)
		close(gate)
		require.NoError(t, g.Wait())
	}
}
