// Package heldmutex has mutexes that are held across waits.
package heldmutex

import (
	"context"
	"sync"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

type cache struct {
	mu   sync.Mutex // locked on a thread
	out  sync.Mutex // not locked on a thread
	rw   sync.RWMutex
	n    int
	conn *asyncsync.Handle[int]
}

func fetch(context.Context) (int, error) { return 1, nil }

func run(context.Context) (int, error) { return 1, nil }

// On a thread.
func onThread(ctx context.Context, c *cache, t *task.Task[int], l *task.Limiter) {
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		c.mu.Lock()
		n, err := asyncsync.FromThread(ctx, fetch) // want `c.mu is held while the thread waits here, and serves: who it serves may lock it, too`
		c.mu.Unlock()
		if err != nil {
			return 0, err
		}
		_, _ = t.Wait(ctx)
		c.rw.RLock()
		defer c.rw.RUnlock()
		_ = l.Acquire(ctx) // want `c.rw is held while the thread waits here`
		defer l.Release()
		_, _ = asyncsync.ToThread(ctx, run) // inline: no wait
		return n, nil
	})
}

// Only on some paths: not told.
func sometimes(ctx context.Context, c *cache, t *task.Task[int], lock bool) {
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		if lock {
			c.mu.Lock()
		}
		n, err := t.Wait(ctx)
		if lock {
			c.mu.Unlock()
		}
		return n, err
	})
}

// In every round of a loop.
func rounds(ctx context.Context, c *cache, ts []*task.Task[int]) {
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		for _, t := range ts {
			c.mu.Lock()
			c.n++
			if c.n > 3 {
				c.mu.Unlock()
				continue
			}
			_, _ = t.Wait(ctx) // want `c.mu is held`
			c.mu.Unlock()
			_, _ = t.Wait(ctx)
		}
		return 0, nil
	})
}

// In async code: only a mutex that is locked on a thread as well.
func (c *cache) load(ctx context.Context) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return asyncsync.ToThread(ctx, run) // want `c.mu is held while a thread is waited for here, and is locked on a thread in line 28 of heldmutex.go`
}

func (c *cache) serial(ctx context.Context) (int, error) {
	c.out.Lock()
	defer c.out.Unlock()
	return asyncsync.ToThread(ctx, run)
}

type below struct{ mu sync.Mutex }

func (b *below) inner() { b.mu.Lock(); b.mu.Unlock() }

func (b *below) outer(ctx context.Context) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, _ = asyncsync.ToThread(ctx, func(context.Context) (int, error) { // want `b.mu is held while a thread is waited for here, and is locked on a thread in line 91 of heldmutex.go`
		b.inner()
		return 0, nil
	})
}

func (c *cache) inline(ctx context.Context) error {
	return c.conn.Do(ctx, func(ctx context.Context, _ int) error {
		c.out.Lock()
		defer c.out.Unlock()
		return c.conn.Do(ctx, func(context.Context, int) error { return nil }) // inline
	})
}

var saveAsync = asyncsync.AsyncToSync(func(ctx context.Context, n int) (int, error) { return n, nil })

func loops(ctx context.Context) {
	var mu sync.Mutex
	b := loop.NewThread()
	_, _ = loop.Run(ctx, b, func(ctx context.Context) (int, error) {
		mu.Lock()
		err := b.Park(ctx, func(wake func()) { wake() }) // want `mu is held while the task waits here: a task that locks it meanwhile blocks the loop`
		mu.Unlock()
		return 0, err
	})
	g := loop.Goroutines()
	_, _ = loop.Run(ctx, g, func(ctx context.Context) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return 0, g.Park(ctx, func(wake func()) { wake() })
	})
}

// Of another loop it is not known whom it would block.
func anyLoop(ctx context.Context, b loop.Backend, mu *sync.Mutex) {
	_ = b.Spawn(ctx, func(ctx context.Context) {
		mu.Lock()
		defer mu.Unlock()
		_ = b.Park(ctx, func(wake func()) { wake() })
	})
}

func wrapped(ctx context.Context, mu *sync.Mutex) {
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return saveAsync(ctx, 1) // want `mu is held while the thread waits here`
	})
}

func silenced(ctx context.Context, mu *sync.Mutex, t *task.Task[int]) {
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return t.Wait(ctx) //asyncsync:ignore heldmutex the task is known
	})
}

func pools(ctx context.Context, mu *sync.Mutex, e *asyncsync.PoolExecutor) {
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		_ = e.Shutdown(ctx) // want `mu is held while the thread waits here`
		return 0, e.Close() // want `mu is held while the thread waits here`
	})
}

// On the branch where TryLock has returned true, the mutex is held.
func tried(ctx context.Context, mu *sync.RWMutex, t *task.Task[int], way int) {
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		switch way {
		case 0:
			if !mu.TryLock() {
				return t.Wait(ctx)
			}
			defer mu.Unlock()
			return t.Wait(ctx) // want `mu is held while the thread waits here`
		case 1:
			if mu.TryRLock() {
				_, _ = t.Wait(ctx) // want `mu is held while the thread waits here`
				mu.RUnlock()
			}
			return t.Wait(ctx)
		case 2:
			for !mu.TryLock() {
				_ = task.Yield(ctx)
			}
			_ = task.Yield(ctx) // want `mu is held while the thread waits here`
			mu.Unlock()
			_ = task.Yield(ctx)
		case 3:
			if ok := mu.TryLock(); way > 2 && ok {
				_, _ = t.Wait(ctx) // want `mu is held while the thread waits here`
			}
			if way > 3 || !mu.TryLock() {
				return t.Wait(ctx)
			}
			return t.Wait(ctx) // want `mu is held while the thread waits here`
		case 4:
			if mu.TryLock() || way > 3 {
				_, _ = t.Wait(ctx) // on one path alone
			}
			ok := mu.TryLock()
			if ok {
				mu.Unlock()
			}
			if ok {
				return t.Wait(ctx)
			}
		case 5:
			switch {
			case mu.TryLock():
				return t.Wait(ctx) // want `mu is held while the thread waits here`
			}
			switch way > 6 {
			case mu.TryLock():
				return t.Wait(ctx)
			}
		}
		return 0, nil
	})
}

// A thread that only tries to lock a mutex does not wait for it.
type polled struct{ mu sync.Mutex }

func (c *polled) load(ctx context.Context) (int, error) {
	if !c.mu.TryLock() {
		return 0, nil
	}
	defer c.mu.Unlock()
	return asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		if c.mu.TryLock() {
			c.mu.Unlock()
		}
		return 0, nil
	})
}

func (c *cache) tryLoad(ctx context.Context) (int, error) {
	if !c.mu.TryLock() {
		return 0, nil
	}
	defer c.mu.Unlock()
	return asyncsync.ToThread(ctx, run) // want `c.mu is held while a thread is waited for here`
}

func shielded(ctx context.Context, mu *sync.Mutex, t *task.Task[int], in []int) {
	_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		task.YieldShielded(ctx) // want `mu is held while the thread waits here`
		_, _ = task.Shield(ctx, func(ctx context.Context) (int, error) {
			return t.Wait(ctx) // want `mu is held while the thread waits here`
		})
		for range task.Map(ctx, func(context.Context, int) (int, error) { return 0, nil }, in) { // want `mu is held while the thread waits here`
		}
		_, g := task.NewGroup(ctx)
		g.SetLimit(1)
		for range in {
			g.Go(func(context.Context) error { return nil }) // want `mu is held while the thread waits here`
		}
		return 0, nil
	})
}
