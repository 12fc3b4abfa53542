package looptest_test

import (
	"context"
	"fmt"
	"testing"

	"asyncsync.dev/loop"
	"asyncsync.dev/loop/looptest"
)

// engine is a loop that somebody has written: a channel, and a goroutine that
// drains it.
type engine struct {
	queue      chan func()
	quit, done chan struct{}
}

func newEngine() *engine {
	e := &engine{queue: make(chan func(), 1<<16), quit: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(e.done)
		for {
			select {
			case fn := <-e.queue:
				fn()
			case <-e.quit:
				return
			}
		}
	}()
	return e
}

func (e *engine) loop() loop.Loop {
	return loop.FromPost(func(fn func()) error {
		select {
		case <-e.quit:
			return loop.ErrStopped
		case e.queue <- fn:
			return nil
		}
	}, e.done)
}

// TestEngine is the test: one line, and a function that makes a running loop.
func TestEngine(t *testing.T) {
	looptest.TestLoop(t, func(t *testing.T) loop.Loop {
		e := newEngine()
		t.Cleanup(func() {
			close(e.quit)
			<-e.done
		})
		return e.loop()
	})
}

// A loop under test. In a test of its own it is one line:
//
//	func TestEngine(t *testing.T) {
//		looptest.TestLoop(t, startEngine)
//	}
//
// where startEngine starts it, and has t.Cleanup stop it.
func Example() {
	e := newEngine()
	n, err := loop.Call(context.Background(), e.loop(), func(context.Context) (int, error) { return 7, nil })
	fmt.Println(n, err)
	close(e.quit)
	// Output: 7 <nil>
}
