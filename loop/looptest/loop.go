package looptest

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"asyncsync.dev/loop"
)

// TestLoop tests a Loop. It calls make in each subtest to get a running loop.
// make must arrange, with [testing.T.Cleanup], that the loop stops.
func TestLoop(t *testing.T, make func(t *testing.T) loop.Loop) {
	testLoop(t, make)
}

func testLoop[L loop.Loop](t *testing.T, make func(t *testing.T) L) {
	on := func(name string, test func(t *testing.T, l loop.Loop)) {
		t.Run(name, func(t *testing.T) { test(t, make(t)) })
	}
	across := func(name string, test func(t *testing.T, make func(t *testing.T) L)) {
		t.Run(name, func(t *testing.T) { test(t, make) })
	}
	on("C1/Post does not wait for the loop", postDoesNotWait)
	on("C1/Post from the loop's own functions", postFromTheLoop)
	on("C1/the order of each caller", orderOfEachCaller)
	on("C2/an accepted function runs once", acceptedRunsOnce)
	across("C2/functions that are posted while the loop stops", postWhileStopping[L])
	across("C2/calls that are made while the loop stops", callWhileStopping[L])
	across("C3/Post after Done", postAfterDone[L])
}

func postDoesNotWait(t *testing.T, l loop.Loop) {
	const n = 1000
	busy, release := make(chan struct{}), make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	defer free()
	posts(t, l, func() {
		close(busy)
		<-release
	})
	await(t, busy, "a posted function does not run")
	posted := make(chan struct{})
	var ran atomic.Int64
	go func() {
		defer close(posted)
		for range n {
			post(t, l, func() { ran.Add(1) })
		}
	}()
	await(t, posted, "Post waits while the loop is busy")
	free()
	settle(t, l, "functions that were posted while the loop was busy")
	if got := ran.Load(); got != n {
		complain(t, "%d functions were posted while the loop was busy, and %d have run", n, got)
	}
}

func postFromTheLoop(t *testing.T, l loop.Loop) {
	const n = 100
	var order []int // of the loop's functions alone
	last, inside := make(chan struct{}), make(chan struct{})
	posts(t, l, func() {
		defer close(inside)
		for i := range n {
			post(t, l, func() {
				order = append(order, i)
				if i == n-1 {
					close(last)
				}
			})
		}
	})
	await(t, inside, "Post does not return in a function that runs on the loop")
	await(t, last, "what a function of the loop has posted does not run")
	for i, got := range order {
		if got != i {
			t.Fatalf("functions that were posted by one on the loop have run in the order %v", order)
		}
	}
}

func orderOfEachCaller(t *testing.T, l loop.Loop) {
	const callers, each = 4, 500
	var (
		mu   sync.Mutex
		seen [callers][]int
		all  sync.WaitGroup
	)
	all.Add(callers * each)
	for c := range callers {
		go func() {
			for i := range each {
				post(t, l, func() {
					mu.Lock()
					seen[c] = append(seen[c], i)
					mu.Unlock()
					all.Done()
				})
			}
		}()
	}
	awaitAll(t, &all, "not all functions of several callers have run")
	for _, order := range seen {
		for i, got := range order {
			if got != i {
				t.Fatalf("function %d of a caller has run as number %d of his", got, i)
			}
		}
	}
}

func acceptedRunsOnce(t *testing.T, l loop.Loop) {
	const callers, each = 8, 200
	var (
		ran [callers][each]atomic.Int64
		all sync.WaitGroup
	)
	for c := range callers {
		all.Go(func() {
			for i := range each {
				post(t, l, func() { ran[c][i].Add(1) })
			}
		})
	}
	awaitAll(t, &all, "Post does not return")
	settle(t, l, "functions of several callers")
	for c := range ran {
		for i := range ran[c] {
			if got := ran[c][i].Load(); got != 1 {
				t.Fatalf("an accepted function has run %d times", got)
			}
		}
	}
}

// rounds is how often a test stops a loop while others use it.
const rounds = 20

func postWhileStopping[L loop.Loop](t *testing.T, make func(*testing.T) L) {
	for range rounds {
		var (
			accepted, refused sync.Map // of *posted
			posters           sync.WaitGroup
			stop              atomic.Bool // for a loop that does not stop
		)
		t.Cleanup(func() { stop.Store(true) })
		untilStopped(t, make, func(st *testing.T, l L) {
			started := newLatch(4)
			for range 4 {
				posters.Go(func() {
					// The last one is posted when Done is closed.
					for i, over := 0, false; !over && !stop.Load(); i++ {
						select {
						case <-l.Done():
							over = true
						default:
						}
						f := newPosted()
						switch err := l.Post(f.run); {
						case err == nil:
							accepted.Store(f, nil)
						case errors.Is(err, loop.ErrStopped):
							refused.Store(f, nil)
							return
						default:
							complain(t, "Post on a loop that stops: %v, not ErrStopped", err)
							return
						}
						if i == 10 {
							started.one()
						}
						runtime.Gosched()
					}
				})
			}
			await(st, started.open, "Post does not return")
		})
		awaitAll(t, &posters, "Post does not return when the loop has stopped")
		accepted.Range(func(f, _ any) bool {
			if n := f.(*posted).times.Load(); n > 1 {
				complain(t, "an accepted function has run %d times", n)
			}
			return true
		})
		refused.Range(func(f, _ any) bool {
			if n := f.(*posted).times.Load(); n != 0 {
				complain(t, "a function has run that was refused")
			}
			return true
		})
		if t.Failed() {
			return
		}
	}
}

// posted is a function that counts its runs.
type posted struct{ times atomic.Int64 }

func newPosted() *posted { return &posted{} }
func (p *posted) run()   { p.times.Add(1) }

// A latch opens when n parties have been there.
type latch struct {
	left atomic.Int64
	open chan struct{}
}

func newLatch(n int64) *latch {
	l := &latch{open: make(chan struct{})}
	l.left.Store(n)
	return l
}

func (l *latch) one() {
	if l.left.Add(-1) == 0 {
		close(l.open)
	}
}

func callWhileStopping[L loop.Loop](t *testing.T, make func(*testing.T) L) {
	for range rounds {
		var callers sync.WaitGroup
		untilStopped(t, make, func(st *testing.T, l L) {
			started := newLatch(4)
			for range 4 {
				callers.Go(func() {
					for i := 0; ; i++ {
						got, err := loop.Call(context.Background(), l, func(context.Context) (int, error) { return i, nil })
						switch {
						case errors.Is(err, loop.ErrStopped):
							return
						case err != nil || got != i:
							complain(t, "Call on a loop that stops: %d, %v, not %d or ErrStopped", got, err, i)
							return
						}
						if i == 3 {
							started.one()
						}
					}
				})
			}
			await(st, started.open, "Call does not return")
		})
		awaitAll(t, &callers, "Call does not return when the loop has stopped")
		if t.Failed() {
			return
		}
	}
}

func postAfterDone[L loop.Loop](t *testing.T, make func(*testing.T) L) {
	l := untilStopped(t, make, func(t *testing.T, l L) {
		select {
		case <-l.Done():
			complain(t, "Done is closed while the loop runs")
		default:
		}
		settle(t, l, "a loop that was just made")
	})
	for range 100 {
		f := newPosted()
		var err error
		promptly(t, "Post after Done does not return", func() { err = l.Post(f.run) })
		if !errors.Is(err, loop.ErrStopped) {
			t.Fatalf("Post after Done: %v, not ErrStopped", err)
		}
		if f.times.Load() != 0 {
			t.Fatal("a function has run that was refused")
		}
	}
	var err error
	promptly(t, "Call after Done does not return", func() {
		_, err = loop.Call(context.Background(), loop.Loop(l), func(context.Context) (int, error) {
			complain(t, "the function of a Call has run after Done")
			return 0, nil
		})
	})
	if !errors.Is(err, loop.ErrStopped) {
		complain(t, "Call after Done: %v, not ErrStopped", err)
	}
}
