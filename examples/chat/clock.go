package main

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"asyncsync.dev/portal"
)

// A ticker stands for a foreign library that calls back on a thread of its own:
// a message bus, a device, a GUI. It knows nothing of loops.
type ticker struct {
	quit, ended chan struct{}
	threads     map[int]int // written until ended is closed
}

// startTicker calls event on its thread, every so often, until event returns an error
// or stop is called.
func startTicker(every time.Duration, event func(n int) error) *ticker {
	t := &ticker{quit: make(chan struct{}), ended: make(chan struct{}), threads: map[int]int{}}
	go func() {
		defer close(t.ended)
		runtime.LockOSThread() // and the thread ends with the goroutine
		next := time.NewTicker(every)
		defer next.Stop()
		for n := 1; ; n++ {
			select {
			case <-t.quit:
				return
			case <-next.C:
			}
			t.threads[threadID()]++
			if event(n) != nil {
				return
			}
		}
	}()
	return t
}

// stop does not wait; ended is for that.
func (t *ticker) stop() { close(t.quit) }

// clockName is used by no other client.
const clockName = "clock"

// A clock says the time when a ticker calls it. Its callback runs on the
// ticker's thread, and must not touch the room: it sends a function there,
// through the portal.
type clock struct {
	ticker   *ticker
	accepted int // strikes that the portal has accepted; read when the ticker has ended
}

func startClock(p *portal.Portal, r *room, every time.Duration) *clock {
	c := &clock{}
	c.ticker = startTicker(every, func(n int) error {
		// To ask, one waits for the answer.
		here, err := portal.Call(context.Background(), p, func(context.Context) (int, error) {
			return len(r.names) - 1, nil
		})
		if err != nil {
			return err // the portal has stopped
		}
		// To tell, one does not. If what was accepted fails after all, nobody waits
		// to be told, and the portal's Close tells it.
		_, err = portal.StartSoon(p, func(ctx context.Context) (message, error) {
			return r.say(ctx, clockName, fmt.Sprintf("strike %d, %d are here over TCP", n, here))
		})
		if err == nil {
			c.accepted++
		}
		return err
	})
	return c
}
