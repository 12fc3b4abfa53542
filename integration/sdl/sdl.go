// Package sdl makes a loop of SDL2's event queue: what a game that is written with
// SDL sits on. It shows how a foreign loop is made a [loop.Loop], and its test runs
// the contract of loops against it.
package sdl

import (
	"fmt"
	"runtime"
	"sync"

	"github.com/veandco/go-sdl2/sdl"

	"asyncsync.dev/loop"
)

// A Loop handles SDL's events on a thread of its own. SDL has one queue, so there
// can be one Loop at a time.
//
// A real program would call its main loop from main, locked to the main thread,
// and handle its other events where this one drops them.
type Loop struct {
	loop.Loop
	event uint32 // the type of user event that says: take a function

	mu      sync.Mutex // guards what follows; held for PushEvent, so that it fits
	fns     []func()   // one for each event that is in SDL's queue
	stopped bool
}

// Start starts SDL and the loop.
func Start() (*Loop, error) {
	l := &Loop{}
	done, started := make(chan struct{}), make(chan error)
	l.Loop = loop.FromPost(l.post, done)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		defer close(done)
		if err := sdl.Init(sdl.INIT_VIDEO); err != nil {
			started <- err
			return
		}
		defer sdl.Quit()
		l.event = sdl.RegisterEvents(1)
		started <- nil
		l.run()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.stopped = true
		l.fns = nil
	}()
	return l, <-started
}

func (l *Loop) run() {
	for {
		switch e := sdl.WaitEvent().(type) {
		case *sdl.QuitEvent:
			return
		case *sdl.UserEvent:
			if e.Type != l.event {
				continue
			}
			l.mu.Lock()
			fn := l.fns[0]
			l.fns[0] = nil
			l.fns = l.fns[1:]
			l.mu.Unlock()
			fn()
		}
	}
}

// Quit ends the loop, and waits for that.
func (l *Loop) Quit() error {
	quit := &struct {
		sdl.QuitEvent
		rest
	}{QuitEvent: sdl.QuitEvent{Type: sdl.QUIT}}
	if _, err := sdl.PushEvent(&quit.QuitEvent); err != nil {
		return err
	}
	<-l.Done()
	return nil
}

// rest lies behind an event: SDL reads a whole SDL_Event, which is larger than
// each kind of it.
type rest [64]byte

// post is what FromPost makes a Loop of. An event cannot carry a Go function: those
// stand in a list beside the queue, in the same order.
func (l *Loop) post(fn func()) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return loop.ErrStopped
	}
	// SDL's queue has a limit, of 65535 events.
	event := &struct {
		sdl.UserEvent
		rest
	}{UserEvent: sdl.UserEvent{Type: l.event}}
	if filtered, err := sdl.PushEvent(&event.UserEvent); err != nil {
		return fmt.Errorf("sdl: %w", err)
	} else if filtered {
		return fmt.Errorf("sdl: an event filter drops user events")
	}
	l.fns = append(l.fns, fn)
	return nil
}
