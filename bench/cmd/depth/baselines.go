package main

import (
	"runtime"
	"sync/atomic"

	"asyncsync.dev/bench"
)

// A frame is a function on the thread that is blocked, in the way that one
// would write it without this module: it takes the calls made below it from a
// channel of its own until what it waits for is done.
type frame struct {
	calls chan frameCall
	done  chan struct{}
}

type frameCall struct {
	fn   func()
	done chan struct{}
}

// await is sync code that runs async code and waits for it: a fresh goroutine,
// a channel for calls, and one to tell that it is done.
func await(level int, bottom func()) {
	f := &frame{calls: make(chan frameCall), done: make(chan struct{})}
	go func() {
		defer close(f.done)
		f.call(level-1, bottom)
	}()
	for {
		select {
		case c := <-f.calls:
			c.fn()
			close(c.done)
		case <-f.done:
			return
		}
	}
}

// call is async code that runs sync code on the thread and waits for it, with a
// channel for each call to tell that it is done.
func (f *frame) call(level int, bottom func()) {
	if level == 0 {
		if bottom != nil {
			bottom()
		}
		return
	}
	done := make(chan struct{})
	f.calls <- frameCall{func() { await(level, bottom) }, done}
	<-done
}

// startByHand starts a thread that nests in this way.
func startByHand() (*nest, error) {
	c := bench.NewChannel()
	return &nest{
		descend: func(depth int, bottom func()) error {
			c.Call(func() { await(depth, bottom) })
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
