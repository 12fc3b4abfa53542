package expiry_test

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/expiry"
	"asyncsync.dev/internal/testkit"
)

type waiter struct {
	told  atomic.Int32
	ctx   context.Context
	after func()
}

func (w *waiter) Expire(ctx context.Context) {
	w.told.Add(1)
	w.ctx = ctx
	if w.after != nil {
		w.after()
	}
}

// Those who wait for one channel share a watcher, are told in their order, and not if
// they have been removed.
func TestOneWatcherForEachChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var table expiry.Table[*waiter]
		a, endA := context.WithCancel(context.Background())
		b, endB := context.WithCancel(context.Background())
		defer endB()
		above := context.WithValue(a, new(int), 1) // another ctx with a's channel
		var order []int
		var links []*expiry.Link[*waiter]
		ws := make([]*waiter, 7)
		for n := range ws {
			ws[n] = &waiter{after: func() { order = append(order, n) }}
			ctx := a
			switch n {
			case 3:
				ctx = b
			case 4:
				ctx = above
			}
			links = append(links, table.Add(ctx, ctx.Done(), ws[n]))
		}
		require.Equal(t, 2, table.Len())
		for _, n := range []int{0, 2, 6} { // the first, one between, and the last
			table.Remove(links[n])
			table.Remove(links[n])
		}
		table.Remove(nil)
		endA()
		synctest.Wait()
		require.Equal(t, []int{1, 4, 5}, order)
		require.Equal(t, a, ws[4].ctx, "that of the first with the channel")
		require.Equal(t, 1, table.Len())
		table.Remove(links[1]) // told
		table.Remove(links[3])
		require.Zero(t, table.Len())
		endB()
		synctest.Wait()
		require.Zero(t, ws[3].told.Load())
	})
}

// Nothing is left of a watcher that nobody waits with, and the next one is a new one.
func TestTheLastTakesTheWatcherAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var table expiry.Table[*waiter]
		ctx, end := context.WithCancel(context.Background())
		defer end()
		for range 3 {
			w := &waiter{}
			k := table.Add(ctx, ctx.Done(), w)
			require.Equal(t, 1, table.Len())
			table.Remove(k)
			require.Zero(t, table.Len())
		}
		w := &waiter{}
		table.Add(ctx, ctx.Done(), w)
		end()
		synctest.Wait()
		require.EqualValues(t, 1, w.told.Load())
		late := &waiter{}
		table.Add(ctx, ctx.Done(), late)
		synctest.Wait()
		require.EqualValues(t, 1, late.told.Load(), "added after the end")
		require.Zero(t, table.Len())
	})
}

// One that ends the goroutine does not keep the others from being told.
func TestGoexit(t *testing.T) {
	testkit.Guard(t)
	var table expiry.Table[*waiter]
	ctx, end := context.WithCancel(context.Background())
	last := make(chan struct{})
	ws := make([]*waiter, 5)
	for n := range ws {
		ws[n] = &waiter{after: runtime.Goexit}
		if n == len(ws)-1 {
			ws[n].after = func() { close(last) }
		}
		table.Add(ctx, ctx.Done(), ws[n])
	}
	end()
	<-last
	for _, w := range ws {
		require.EqualValues(t, 1, w.told.Load())
	}
}

// broken is a ctx that has ended and says that it has not.
type broken struct {
	context.Context
	done chan struct{}
}

func (b broken) Done() <-chan struct{} { return b.done }
func (b broken) Err() error            { return nil }

func TestACtxThatBreaksItsContract(t *testing.T) {
	testkit.Guard(t)
	var table expiry.Table[*waiter]
	ctx := broken{context.Background(), make(chan struct{})}
	close(ctx.done)
	told := make(chan struct{})
	table.Add(ctx, ctx.done, &waiter{after: func() { close(told) }})
	<-told
	require.Zero(t, table.Len())
}

// A panic of the ctx is not that of the one who removes the last waiter.
func TestACtxThatPanicsAtTheEndOfTheWatch(t *testing.T) {
	var table expiry.Table[*waiter]
	up, end := context.WithCancel(context.Background())
	defer end()
	ctx := &testkit.BadCtx{Context: up}
	k := table.Add(ctx, ctx.Done(), &waiter{})
	ctx.Set(func() { panic("bad ctx") })
	require.NotPanics(t, func() { table.Remove(k) })
	require.Zero(t, table.Len())
}

// Whoever is not removed in time is told, and nobody twice, whatever else happens
// meanwhile.
func TestRaces(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			var table expiry.Table[*waiter]
			ctx, end := context.WithCancel(context.Background())
			var all sync.WaitGroup
			var ws [8][200]waiter
			for i := range ws {
				all.Go(func() {
					for n := range ws[i] {
						k := table.Add(ctx, ctx.Done(), &ws[i][n])
						if n%3 == 0 {
							table.Remove(k)
						}
						runtime.Gosched()
					}
				})
			}
			all.Go(end)
			all.Wait()
			synctest.Wait()
			for i := range ws {
				for n := range ws[i] {
					told := ws[i][n].told.Load()
					if n%3 == 0 {
						require.LessOrEqual(t, told, int32(1))
					} else {
						require.EqualValues(t, 1, told)
					}
				}
			}
			require.Zero(t, table.Len())
		})
	}
}
