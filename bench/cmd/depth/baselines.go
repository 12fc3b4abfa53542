package main

import (
	"runtime"
	"sync/atomic"

	"asyncsync.dev/bench"
)

// startByHand starts a thread that nests in the way that one would write it
// without this module.
func startByHand() (*nest, error) {
	c := bench.NewChannel()
	return &nest{
		descend: func(depth int, bottom func()) error {
			c.Descend(depth, bottom)
			return nil
		},
		from: func(f func() error) error { return f() },
		stop: func() error { c.Close(); return nil },
	}, nil
}

// channelCalls is what programs do that need a thread and do not nest.
func channelCalls(take func(batch) error) error {
	c := bench.NewChannel()
	defer c.Close()
	return take(func(n int) error {
		for range n {
			c.Call(func() {})
		}
		return nil
	})
}

// goroutineHops hands a word from one ordinary goroutine to another and back.
func goroutineHops(take func(batch) error) error {
	there, back := make(chan int), make(chan int)
	defer close(there)
	go func() {
		for x := range there {
			back <- x
		}
	}()
	return take(func(n int) error {
		for i := range n {
			there <- i
			<-back
		}
		return nil
	})
}

// A word has a cache line, and its neighbour, for itself.
type word struct {
	_ [128]byte
	atomic.Uint64
	_ [120]byte
}

// wordBySpinning has two threads hand a word to each other and do nothing else:
// no call from one to another can be faster.
func wordBySpinning(b *bencher) error {
	const end = ^uint64(0)
	var there, back word
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for last := uint64(0); ; {
			x := there.Load()
			if x == end {
				return
			}
			if x != last {
				last = x
				back.Store(x)
			}
		}
	}()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	x := uint64(0)
	c, err := price(b.each, func(n int) error {
		for range n {
			x++
			there.Store(x)
			for back.Load() != x {
			}
		}
		return nil
	})
	there.Store(end)
	<-gone
	b.put("call/spin", c.ns)
	return err
}
