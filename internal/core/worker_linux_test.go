package core

import (
	"bytes"
	"context"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/testkit"
)

// A function that unlocks its goroutine from the thread, more often than it has
// locked it, does not move what comes after it: the reserve takes it, or else the
// worker is ended and that is told.
func TestUnbalancedUnlock(t *testing.T) {
	testkit.Guard(t)
	for name, c := range map[string]struct {
		reserve int
		unlocks int
		told    bool // it leaves its thread, and that is told
	}{"within the reserve": {lockReserve, 3, false}, "beyond it": {0, 1000, true}} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			before, logger := lockReserve, slog.Default()
			lockReserve = c.reserve
			slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
			defer func() {
				lockReserve = before
				slog.SetDefault(logger)
			}()
			p := NewPool(1, 0, 1, DefaultIdleTimeout)
			scope := func() *Scope {
				s := &Scope{}
				s.Init(context.Background(), &Config{Pool: p})
				return s
			}
			run := func(s *Scope, f func()) {
				// From a thread of its own: else the worker, once it is not
				// locked, most likely runs where its caller does.
				err := make(chan error)
				go func() {
					runtime.LockOSThread()
					defer runtime.UnlockOSThread()
					err <- s.Do(context.Background(), &FullCall{}, bodyFunc(func(context.Context) { f() }), &Options{})
				}()
				require.NoError(t, <-err)
			}
			moved := 0
			for range 100 {
				s := scope()
				run(s, runtime.UnlockOSThread)
				require.NoError(t, s.Close())
				// Others take the threads that are not locked.
				busy, stop := make(chan struct{}, 4), make(chan struct{})
				for range 4 {
					go func() {
						busy <- struct{}{}
						for {
							select {
							case <-stop:
								return
							default:
								runtime.Gosched()
							}
						}
					}()
				}
				for range 4 {
					<-busy
				}
				s = scope()
				var first int64
				run(s, func() { first = osThread() })
				for range 5 {
					run(s, func() {
						if osThread() != first {
							moved++
						}
					})
				}
				close(stop)
				require.NoError(t, s.Close())
			}
			require.Zero(t, moved, "calls of one context on another thread than its first")
			strayed := 0
			for range 100 {
				s := scope()
				var at, changes int64
				run(s, func() {
					at = osThread()
					for range c.unlocks {
						runtime.UnlockOSThread()
					}
				})
				release := func() {}
				if c.told {
					// It is found where the worker wakes, so it moves while it sleeps.
					testkit.Poll(t, func() string { return stillRuns(s.thread.Load()) })
					release = occupyThread(at)
				}
				for range 20 {
					run(s, func() {
						if at != osThread() {
							changes++
						}
						at = osThread()
					})
				}
				require.NoError(t, s.Close())
				require.LessOrEqual(t, changes, int64(1), "it stays on the thread where it is found")
				release()
				strayed += int(changes)
			}
			require.NoError(t, p.Close())
			if !c.told {
				require.Zero(t, strayed)
				require.Empty(t, log.String())
				require.EqualValues(t, 1, p.Stats().Started)
			} else {
				require.Equal(t, 100, strayed)
				require.Contains(t, log.String(), "UnlockOSThread")
				require.Greater(t, p.Stats().Started, uint64(1), "the worker is not used again")
			}
		})
	}
}

// occupyThread returns once a goroutine has locked the OS thread id, whose own one
// sleeps and is not locked. It locks all threads that are idle until then. The
// function that it returns lets them go.
func occupyThread(id int64) (release func()) {
	stop := make(chan struct{})
	got := make(chan int64)
	for {
		// The idle thread that waits for the next timer can be had only once there
		// is an earlier one.
		time.AfterFunc(0, func() {})
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			got <- osThread()
			<-stop
		}()
		if <-got == id {
			return func() { close(stop) }
		}
	}
}

func stillRuns(t *Thread) (complaint string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.parked {
		return "the thread does not sleep"
	}
	return ""
}
