package asyncsync_test

import (
	"context"
	"errors"
	"iter"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
)

// numbers is an iterator without an end.
func numbers(yield func(int) bool) {
	for i := 0; yield(i); i++ {
	}
}

// A known limit, which is Go's: a pulled iterator is bound to the OS thread if the
// goroutine that makes it is, and may be advanced only in the same state. Else the
// process ends, and nobody can catch that.
func TestPullAcrossAThreadBoundary(t *testing.T) {
	guard(t)
	advance := func(next func() (int, bool)) func(context.Context) error {
		return func(context.Context) error { next(); return nil }
	}
	type pulled struct {
		next func() (int, bool)
		stop func()
	}
	pull := func(context.Context) (pulled, error) {
		next, stop := iter.Pull(numbers)
		next()
		return pulled{next, stop}, nil
	}
	for name, body := range map[string]func(t *testing.T){
		"made in async code, advanced on a thread": func(t *testing.T) {
			ctx, _ := newContext(t)
			next, _ := iter.Pull(numbers)
			to(ctx, advance(next))
		},
		"made on a thread, advanced in async code": func(t *testing.T) {
			ctx, _ := newContext(t)
			p, _ := asyncsync.ToThread(ctx, pull)
			p.next()
		},
		"made on a thread, stopped in async code": func(t *testing.T) {
			ctx, _ := newContext(t)
			p, _ := asyncsync.ToThread(ctx, pull)
			p.stop()
		},
		"made on a thread, advanced in what that waits for": func(t *testing.T) {
			ctx, _ := newContext(t)
			to(ctx, func(ctx context.Context) error {
				p, _ := pull(ctx)
				return from(ctx, advance(p.next))
			})
		},
		"made before the goroutine became a thread": func(t *testing.T) {
			p, _ := pull(context.Background())
			from(context.Background(), advance(p.next), asyncsync.SameThread())
		},
		"made before RunUntil": func(t *testing.T) {
			p, _ := pull(context.Background())
			exec := asyncsync.NewCurrentThreadExecutor()
			exec.Post(func() { p.next() })
			exec.RunUntil(closedChan())
		},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := testkit.Child(t, body)
			require.Error(t, err)
			require.Contains(t, out, "fatal error: coro: OS thread locking must match locking at coroutine creation")
		})
	}
}

// The ways round: range over it, wherever the body calls; pull it where it was
// made; use a context that is not bound to an OS thread.
func TestPullOnOneSide(t *testing.T) {
	guard(t)
	ctx, _ := newContext(t)

	sum := 0
	for i := range numbers { // in async code
		n, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) { return i, nil })
		require.NoError(t, err)
		if sum += n; n == 3 {
			break
		}
	}
	require.Equal(t, 6, sum)
	require.NoError(t, to(ctx, func(ctx context.Context) error { // on a thread
		for i := range numbers {
			n, err := asyncsync.FromThread(ctx, func(context.Context) (int, error) { return i, nil })
			if err != nil {
				return err
			}
			if sum += n; n == 3 {
				break
			}
		}
		return nil
	}))
	require.Equal(t, 12, sum)

	type pulled struct {
		next func() (int, bool)
		stop func()
	}
	pull := func(context.Context) (pulled, error) {
		next, stop := iter.Pull(numbers)
		return pulled{next, stop}, nil
	}
	h, err := asyncsync.Open(context.Background(), pull, func(p pulled) error { p.stop(); return nil })
	require.NoError(t, err)
	for i := range 5 {
		n, err := asyncsync.Get(ctx, h, func(_ context.Context, p pulled) (int, error) { n, _ := p.next(); return n, nil })
		require.NoError(t, err)
		require.Equal(t, i, n)
	}
	require.NoError(t, h.Close())

	unpinned, _ := newContext(t, asyncsync.Unpinned())
	p, _ := pull(nil) // here
	for i := range 3 {
		require.NoError(t, to(unpinned, func(context.Context) error { // by its caller, and by a worker
			if n, _ := p.next(); n != 2*i {
				return errors.New("out of step")
			}
			return nil
		}))
		require.NoError(t, waitFor(goTo(unpinned, func(context.Context) error { p.next(); return nil })))
	}
	p.stop()
}
