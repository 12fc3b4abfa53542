package main

import (
	"context"
	"fmt"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/spin"
)

// A kind is a kind of call, a row of the first table.
type kind struct {
	name string
	what string
	// run calls take with what is to be measured, on the goroutine that it is
	// to be measured on.
	run func(take func(batch) error) error
}

var calls = []kind{
	{"plain", "plain call", plainCalls},
	{"inline", "library, on the thread already", inlineCalls},
	{"unpinned", "library, unpinned context", hops(spinLearned, asyncsync.Unpinned())},
	{"goroutine", "goroutine to goroutine, channels", goroutineHops},
	{"hop", "library, to a thread", hops(spinLearned)},
	{"nospin", "library, to a thread, spinning off", hops(spinOff)},
	{"channel", "locked goroutine behind a channel", channelCalls},
}

// forced is a call that spins whether that pays or not: where it is much faster
// than the one that learns, learning has failed. It is not done on one core,
// where each side would keep the other from running.
var forced = kind{"forced", "library, to a thread, spinning forced", hops(spinForced)}

// floors are rows of the first table that are not of this process, or not
// everywhere.
var floors = []kind{
	{name: "spin", what: "floor: two threads that spin on a word"},
	{name: "futex", what: "floor: two threads and a futex, in C"},
}

func (b *bencher) call(k kind) error {
	return k.run(func(f batch) error {
		c, err := price(b.each, f)
		b.put("call/"+k.name, c.ns)
		return err
	})
}

//go:noinline
func nothing(context.Context, int) (int, error) { return 0, nil }

// repeat calls f n times.
func repeat(ctx context.Context, f asyncsync.Func[int, int]) batch {
	return func(n int) error {
		for i := range n {
			if _, err := f(ctx, i); err != nil {
				return err
			}
		}
		return nil
	}
}

func plainCalls(take func(batch) error) error {
	return take(repeat(context.Background(), nothing))
}

func inlineCalls(take func(batch) error) error {
	call := asyncsync.SyncToAsync(nothing)
	return asyncsync.WithThreadSensitiveContext(context.Background(), func(ctx context.Context) error {
		_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
			return 0, take(repeat(ctx, call))
		})
		return err
	})
}

// hops calls a context from an ordinary goroutine, with spinning forced on or
// off, or learned.
func hops(mode int, opts ...asyncsync.ContextOption) func(func(batch) error) error {
	return func(take func(batch) error) error {
		call := asyncsync.SyncToAsync(nothing)
		spin.Set(mode)
		defer spin.Set(0)
		return asyncsync.WithThreadSensitiveContext(context.Background(), func(ctx context.Context) error {
			return take(repeat(ctx, call))
		}, opts...)
	}
}

// An engine is a way to nest, a line of the chart.
type engine struct {
	name  string
	what  string
	start func() (*nest, error)
}

// A nest can be descended into, by one goroutine at a time.
type nest struct {
	// descend goes down through depth levels, runs bottom if it is not nil, and
	// comes back.
	descend func(depth int, bottom func()) error
	// from runs f where descents are to begin.
	from func(f func() error) error
	stop func() error

	ctx context.Context // of the library's
}

// engines are all there are.
var engines = []engine{
	{"default", "this module", pinned},
	{"samethread", "this module, SameThread", sameThread},
	{"unpinned", "this module, unpinned", unpinned},
	{"fresh", "by hand: goroutines, channels", startByHand},
}

// pinned nests in a context with a thread that nobody has used before, whose
// stack is small.
func pinned() (*nest, error) { return onFreshThread() }

func onFreshThread(opts ...asyncsync.Option) (*nest, error) {
	pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 1})
	n := library(asyncsync.WithPool(pool), opts...)
	end := n.stop
	n.stop = func() error {
		if err := end(); err != nil {
			return err
		}
		return pool.Close()
	}
	return n, nil
}

func unpinned() (*nest, error) { return library(asyncsync.Unpinned()), nil }

// sameThread begins its descents on the thread: nothing leaves that from there
// on, and the hop to it is not what is to be seen.
func sameThread() (*nest, error) {
	n, err := onFreshThread(asyncsync.SameThread())
	if err != nil {
		return nil, err
	}
	n.from = func(f func() error) error {
		_, err := asyncsync.ToThread(n.ctx, func(ctx context.Context) (int, error) {
			old := n.ctx
			n.ctx = ctx
			defer func() { n.ctx = old }()
			return 0, f()
		})
		return err
	}
	return n, nil
}

// library nests in a context; opts are AsyncToSync's.
func library(kind asyncsync.ContextOption, opts ...asyncsync.Option) *nest {
	var bottom func()
	var up, down asyncsync.Func[int, int]
	up = asyncsync.AsyncToSync(func(ctx context.Context, level int) (int, error) {
		if level > 0 {
			return down(ctx, level)
		}
		if bottom != nil {
			bottom()
		}
		return 0, nil
	}, opts...)
	down = asyncsync.SyncToAsync(func(ctx context.Context, level int) (int, error) {
		return up(ctx, level-1)
	})
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), kind)
	n := &nest{ctx: ctx, stop: tsc.Close}
	n.descend = func(depth int, b func()) error {
		bottom = b
		_, err := down(n.ctx, depth)
		return err
	}
	n.from = func(f func() error) error { return f() }
	return n
}

// depth takes the cost of a level at all depths.
func (b *bencher) depth(e engine) error {
	for _, d := range b.depths {
		n, err := e.start()
		if err != nil {
			return err
		}
		var c cost
		err = n.from(func() (err error) {
			c, err = price(b.each, func(times int) error {
				for range times {
					if err := n.descend(d, nil); err != nil {
						return err
					}
				}
				return nil
			})
			return err
		})
		if err != nil {
			return err
		}
		if err := n.stop(); err != nil {
			return err
		}
		levels := float64(d)
		b.put(fmt.Sprintf("level/%s/%d", e.name, d), c.ns/levels)
		b.put(fmt.Sprintf("allocated/%s/%d", e.name, d), c.bytes/levels)
	}
	return nil
}

// memory takes what is in use at the bottom beyond what was before the descent.
func (b *bencher) memory(e engine) error {
	for _, d := range b.depths {
		// On a goroutine whose stack has not grown: the caller's may be part
		// of the nest.
		failed := make(chan error)
		go func() {
			failed <- func() error {
				n, err := e.start()
				if err != nil {
					return err
				}
				var before, now usage
				err = n.from(func() error {
					if err := n.descend(1, nil); err != nil {
						return err
					}
					before = inUse()
					return n.descend(d, func() { now = inUse() })
				})
				if err != nil {
					return err
				}
				levels := float64(d)
				b.put(fmt.Sprintf("heap/%s/%d", e.name, d), (now.heap-before.heap)/levels)
				b.put(fmt.Sprintf("stack/%s/%d", e.name, d), (now.stack-before.stack)/levels)
				b.put(fmt.Sprintf("goroutines/%s/%d", e.name, d), now.goroutines-before.goroutines)
				return n.stop()
			}()
		}()
		if err := <-failed; err != nil {
			return err
		}
	}
	return nil
}

// panics takes the cost of a level when a panic passes through all of them,
// from the bottom to the first caller, and when all return.
func panics(b *bencher) error {
	n, err := pinned()
	if err != nil {
		return err
	}
	var bottom error = errBottom
	panicked := func(times int) (err error) {
		for range times {
			func() {
				defer func() {
					if v := recover(); v != bottom {
						err = fmt.Errorf("recovered %v", v)
					}
				}()
				err = n.descend(b.panicDepth, func() { panic(bottom) })
			}()
			if err != nil {
				return err
			}
		}
		return nil
	}
	returned := func(times int) error {
		for range times {
			if err := n.descend(b.panicDepth, nil); err != nil {
				return err
			}
		}
		return nil
	}
	p, r, err := priceBoth(5*b.each, panicked, returned)
	if err != nil {
		return err
	}
	b.put("panic/panicked", p/float64(b.panicDepth))
	b.put("panic/returned", r/float64(b.panicDepth))
	return n.stop()
}

var errBottom = fmt.Errorf("the bottom")
