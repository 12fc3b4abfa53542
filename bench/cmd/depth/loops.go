package main

import (
	"context"
	"errors"
	"iter"
	"math"
	"runtime"
	"sync"
	"time"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/spin"
	"asyncsync.dev/loop"
	"asyncsync.dev/portal"
	"asyncsync.dev/task"
)

// loopChores returns what is done for loops and portals at a place.
func loopChores(at string) []chore {
	all := []chore{
		{"switches", switches}, {"tasks of a loop", joins}, {"calls to a loop", aways},
		{"a busy loop", busy}, {"calls from a loop", backs}, {"locks", locks},
	}
	if at == oneCore.name {
		// Memory is the same everywhere, and so is what it costs to look at it.
		all = append(all, chore{"parked tasks", parked})
	}
	return all
}

// withLoop runs do while a thread loop with a portal runs on a goroutine of its own.
func withLoop(do func(p *portal.Portal) error) error {
	p, err := portal.Start()
	if err != nil {
		return err
	}
	return errors.Join(do(p), p.Close(nil))
}

// inLoop returns a batch that f does in a task of l. The call to the loop is part of it,
// and must be little beside the n times.
func inLoop(l loop.Loop, f func(ctx context.Context, n int) error) batch {
	return func(n int) error {
		_, err := loop.Call(context.Background(), l, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, f(ctx, n)
		})
		return err
	}
}

// putAll prices some that are to be compared, in turns, and puts what they cost.
func (b *bencher) putAll(each []priced) error {
	fs := make([]batch, len(each))
	for i, p := range each {
		fs[i] = p.batch
	}
	cs, err := priceAll(2*b.each, fs...)
	if err != nil {
		return err
	}
	for i, p := range each {
		per := float64(max(p.times, 1))
		b.put(p.name, cs[i].ns/per)
		b.put(p.name+"-allocs", math.Round(100*cs[i].allocs/per)/100) // others have some too
	}
	return nil
}

// A priced is one of them: a batch that does it times as often as it is told, once if
// times is 0.
type priced struct {
	name  string
	batch batch
	times int
}

// switches lets one of two tasks run after the other. Of iter.Pull one is a coroutine
// and what it yields to: a pair.
func switches(b *bencher) error {
	return withLoop(func(p *portal.Portal) error {
		among := func(yield func(context.Context) error) batch {
			return inLoop(p.Loop(), func(ctx context.Context, n int) (err error) {
				over, gone := false, false
				err = p.Loop().Spawn(ctx, func(ctx context.Context) {
					for !over {
						err = errors.Join(err, yield(ctx))
					}
					gone = true
				})
				for i := 0; i < n && err == nil; i += 2 {
					err = yield(ctx)
				}
				for over = true; !gone && err == nil; {
					err = yield(ctx)
				}
				return err
			})
		}
		return b.putAll([]priced{
			{name: "switch/pull", batch: pulls},
			{name: "switch/pull-locked", batch: func(n int) error {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				return pulls(n)
			}},
			{name: "switch/yield", batch: among(task.Yield)},
			{name: "switch/park", batch: among(func(ctx context.Context) error {
				return p.Loop().Park(ctx, func(wake func()) { wake() })
			})},
		})
	})
}

// pulls goes to a coroutine and back.
func pulls(n int) error {
	next, stop := iter.Pull(func(yield func(int) bool) {
		for yield(0) {
		}
	})
	defer stop()
	for range n {
		next()
	}
	return nil
}

// joins starts a task on the loop that the caller is on, and waits for it; and counts
// the goroutines that this adds while the loop runs, and that are left after it.
func joins(b *bencher) error {
	before := runtime.NumGoroutine()
	err := withLoop(func(p *portal.Portal) error {
		spawns := func(ctx context.Context, n int) (err error) {
			for range n {
				err = errors.Join(err, p.Loop().Park(ctx, func(wake func()) {
					err = p.Loop().Spawn(ctx, func(context.Context) { wake() })
				}))
			}
			return err
		}
		tasks := func(ctx context.Context, n int) error {
			for range n {
				if _, err := task.Go(ctx, idle).Wait(ctx); err != nil {
					return err
				}
			}
			return nil
		}
		err := inLoop(p.Loop(), func(ctx context.Context, _ int) error {
			err := errors.Join(spawns(ctx, 1), tasks(ctx, 1))
			running := runtime.NumGoroutine()
			err = errors.Join(err, spawns(ctx, 1000), tasks(ctx, 1000))
			b.put("join/grown", float64(max(0, runtime.NumGoroutine()-running)))
			return err
		})(1)
		if err != nil {
			return err
		}
		return b.putAll([]priced{
			{name: "join/pull", batch: func(n int) error {
				for range n {
					next, stop := iter.Pull(func(yield func(int) bool) { yield(0) })
					next()
					stop()
				}
				return nil
			}},
			{name: "join/spawn", batch: inLoop(p.Loop(), spawns)},
			{name: "join/go", batch: inLoop(p.Loop(), tasks)},
			{name: "join/goroutine", batch: func(n int) error {
				for range n {
					done := make(chan struct{})
					go close(done)
					<-done
				}
				return nil
			}},
		})
	})
	// The last of them end after Close has returned.
	for end := time.Now().Add(time.Second); runtime.NumGoroutine() > before && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	b.put("join/left", float64(max(0, runtime.NumGoroutine()-before)))
	return err
}

func idle(context.Context) (int, error) { return 0, nil }

// aways calls, from an ordinary goroutine, a loop that sleeps: the loop itself, and
// through its portal. What it is compared with is a thread that sleeps as well.
func aways(b *bencher) error {
	spin.Set(spinOff)
	defer spin.Set(spinLearned)
	can, cancel := context.WithCancel(context.Background())
	defer cancel()
	return asyncsync.WithThreadSensitiveContext(context.Background(), func(ctx context.Context) error {
		return withLoop(func(p *portal.Portal) error {
			bg := context.Background()
			calls := func(call func() (int, error)) batch {
				return func(n int) error {
					for range n {
						if _, err := call(); err != nil {
							return err
						}
					}
					return nil
				}
			}
			const ahead = 64
			var tasks [ahead]*task.Task[int]
			return b.putAll([]priced{
				{name: "away/thread", batch: calls(func() (int, error) { return asyncsync.ToThread(ctx, idle) })},
				{name: "away/post", batch: calls(func() (int, error) {
					done := make(chan struct{})
					err := p.Loop().Post(func() { close(done) })
					if err == nil {
						<-done
					}
					return 0, err
				})},
				{name: "away/call", batch: calls(func() (int, error) { return loop.Call(bg, p.Loop(), idle) })},
				{name: "away/portal", batch: calls(func() (int, error) { return portal.Call(bg, p, idle) })},
				{name: "away/call-ctx", batch: calls(func() (int, error) { return loop.Call(can, p.Loop(), idle) })},
				{name: "away/portal-ctx", batch: calls(func() (int, error) { return portal.Call(can, p, idle) })},
				{name: "away/soon", batch: calls(func() (int, error) {
					t, err := portal.StartSoon(p, idle)
					if err != nil {
						return 0, err
					}
					return t.Wait(bg)
				})},
				{name: "away/soon-ahead", times: ahead, batch: calls(func() (_ int, err error) {
					for i := range tasks {
						if tasks[i], err = portal.StartSoon(p, idle); err != nil {
							return 0, err
						}
					}
					for _, t := range tasks {
						if _, err = t.Wait(bg); err != nil {
							return 0, err
						}
					}
					return 0, nil
				})},
			})
		})
	})
}

// busyCallers is how many goroutines call a loop at a time.
const busyCallers = 64

// busy has many goroutines call one loop, which is busy for it.
func busy(b *bencher) error {
	spin.Set(spinOff)
	defer spin.Set(spinLearned)
	return asyncsync.WithThreadSensitiveContext(context.Background(), func(ctx context.Context) error {
		return withLoop(func(p *portal.Portal) error {
			bg := context.Background()
			all := func(call func() (int, error)) batch {
				return func(n int) error {
					return crowd(busyCallers, func(int) error {
						for range n {
							if _, err := call(); err != nil {
								return err
							}
						}
						return nil
					})
				}
			}
			return b.putAll([]priced{
				{"busy/thread", all(func() (int, error) { return asyncsync.ToThread(ctx, idle) }), busyCallers},
				{"busy/call", all(func() (int, error) { return loop.Call(bg, p.Loop(), idle) }), busyCallers},
				{"busy/portal", all(func() (int, error) { return portal.Call(bg, p, idle) }), busyCallers},
			})
		})
	})
}

// backs calls a thread, from an ordinary goroutine and from a task of a thread loop.
func backs(b *bencher) error {
	spin.Set(spinOff)
	defer spin.Set(spinLearned)
	call := asyncsync.SyncToAsync(nothing)
	there := func(ctx context.Context, n int) error {
		return asyncsync.WithThreadSensitiveContext(ctx, func(ctx context.Context) error {
			return repeat(ctx, call)(n)
		})
	}
	return withLoop(func(p *portal.Portal) error {
		return b.putAll([]priced{
			{name: "back/goroutine", batch: func(n int) error { return there(context.Background(), n) }},
			{name: "back/task", batch: inLoop(p.Loop(), there)},
		})
	})
}

// sleepers are tasks that wait, of one loop.
type sleepers struct {
	p      *portal.Portal
	wakes  []func()
	resume func() // wakes the task that has woken one
	over   bool
	left   int
}

// start has n of them wait, and returns what one has in use.
func (s *sleepers) start(n int) (per usage, err error) {
	s.wakes, s.left = make([]func(), n), n
	arms := make([]func(func()), n)
	for i := range arms {
		arms[i] = func(wake func()) { s.wakes[i] = wake }
	}
	var before, after usage
	err = inLoop(s.p.Loop(), func(ctx context.Context, _ int) error {
		before = inUse()
		for i := range n {
			err := s.p.Loop().Spawn(ctx, func(ctx context.Context) {
				for !s.over {
					_ = s.p.Loop().Park(ctx, arms[i])
					if !s.over {
						s.resume()
					}
				}
				if s.left--; s.left == 0 {
					s.resume()
				}
			})
			if err != nil {
				return err
			}
		}
		for s.wakes[n-1] == nil {
			if err := task.Yield(ctx); err != nil {
				return err
			}
		}
		after = inUse()
		return nil
	})(1)
	of := func(a, b float64) float64 { return (b - a) / float64(n) }
	return usage{heap: of(before.heap, after.heap), stack: of(before.stack, after.stack)}, err
}

// wake wakes one, which waits again, n times: each in turn of the first of.
func (s *sleepers) wake(of int) batch {
	at := 0
	return inLoop(s.p.Loop(), func(ctx context.Context, n int) error {
		for range n {
			at = (at + 1) % of
			err := s.p.Loop().Park(ctx, func(wake func()) {
				s.resume = wake
				s.wakes[at]()
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// end ends them.
func (s *sleepers) end() error {
	return inLoop(s.p.Loop(), func(ctx context.Context, _ int) error {
		return s.p.Loop().Park(ctx, func(wake func()) {
			s.over, s.resume = true, wake
			for _, wake := range s.wakes {
				wake()
			}
		})
	})(1)
}

// parked has many tasks wait: what one takes, and what it costs to wake one, among few
// and among many.
func parked(b *bencher) error {
	const few = 10
	return withLoop(func(p *portal.Portal) error {
		return withLoop(func(q *portal.Portal) error {
			many, ten := &sleepers{p: p}, &sleepers{p: q}
			per, err := many.start(b.parked)
			if err != nil {
				return err
			}
			b.put("parked/heap", per.heap)
			b.put("parked/stack", per.stack)
			if _, err := ten.start(few); err != nil {
				return err
			}
			err = b.putAll([]priced{
				{name: "parked/few", batch: ten.wake(few)},
				{name: "parked/same", batch: many.wake(few)},
				{name: "parked/turn", batch: many.wake(b.parked)},
			})
			return errors.Join(err, many.end(), ten.end())
		})
	})
}

// lockCallers are the callers of what everybody on a loop uses.
var lockCallers = []string{"goroutine", "task", "thread"}

// lockOps are what they do with it, when nobody else wants it.
var lockOps = []struct{ name, what string }{
	{"mutex", "Mutex: Lock and Unlock"},
	{"event", "Event: Wait, when it has happened"},
	{"set", "Event: Set, nobody waiting"},
	{"limiter", "Limiter: Acquire and Release"},
}

// locks takes and gives back what nobody else wants.
func locks(b *bencher) error {
	var m task.Mutex
	held := 0
	var happened task.Event
	happened.Set()
	limiter := task.NewLimiter(4)
	ops := map[string]func(ctx context.Context, n int) error{
		"mutex": func(ctx context.Context, n int) error {
			for range n {
				if err := m.Lock(ctx); err != nil {
					return err
				}
				held++
				m.Unlock()
			}
			return nil
		},
		"event": func(ctx context.Context, n int) error {
			for range n {
				if err := happened.Wait(ctx); err != nil {
					return err
				}
			}
			return nil
		},
		"set": func(_ context.Context, n int) error {
			// Each is set once. To make many at a time is little beside it.
			for n > 0 {
				events := make([]task.Event, min(n, 1000))
				for i := range events {
					events[i].Set()
				}
				n -= len(events)
			}
			return nil
		},
		"limiter": func(ctx context.Context, n int) error {
			for range n {
				if err := limiter.Acquire(ctx); err != nil {
					return err
				}
				limiter.Release()
			}
			return nil
		},
	}
	return asyncsync.WithThreadSensitiveContext(context.Background(), func(thread context.Context) error {
		return withLoop(func(p *portal.Portal) error {
			var bare sync.Mutex
			all := []priced{{name: "lock/sync", batch: func(n int) error {
				for range n {
					bare.Lock()
					held++
					bare.Unlock()
				}
				return nil
			}}}
			for _, op := range lockOps {
				f := ops[op.name]
				all = append(all,
					priced{name: "lock/" + op.name + "/goroutine", batch: func(n int) error { return f(context.Background(), n) }},
					priced{name: "lock/" + op.name + "/task", batch: inLoop(p.Loop(), f)},
					priced{name: "lock/" + op.name + "/thread", batch: func(n int) error {
						_, err := asyncsync.ToThread(thread, func(ctx context.Context) (int, error) { return 0, f(ctx, n) })
						return err
					}})
			}
			return b.putAll(all)
		})
	})
}
