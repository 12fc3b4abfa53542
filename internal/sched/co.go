package sched

import (
	"errors"
	"iter"

	"asyncsync.dev/internal/goroutine"
)

// A co is a coroutine that runs one task after another, or posted functions.
type co struct {
	loop   *Loop
	next   func() (struct{}, bool)
	stop   func() // ends it; only while it has nothing to run
	yield  func(struct{}) bool
	task   *Task  // that it runs; nil when that has ended
	fn     func() // to run, if it has no task
	ended  bool   // it cannot be used again
	record *goroutine.Record
}

// newCo makes a coroutine.
//
// If a Goexit reached the end of the coroutine, iter.Pull's next would call
// Goexit on the loop's goroutine, which cannot be stopped. A panic of next can
// be recovered there. So the coroutine panics while the Goexit unwinds it: Pull
// recovers the panic and passes it to next, and the Goexit ends only the
// coroutine's goroutine. A panic of a task ends the coroutine too, and in the same
// way: it may have come from a deferred function that a Goexit has called, which
// recover does not tell.
//
// It is one function, and tasks have no deferred function of their own, so that
// the stacks of waiting tasks stay small.
func newCo(l *Loop) *co {
	c := &co{loop: l}
	c.next, c.stop = iter.Pull(func(yield func(struct{}) bool) {
		c.yield = yield
		c.record = goroutine.Ensure()
		c.record.ShareCritical(l.record)
		returned := false
		defer func() {
			if !returned {
				c.failed(recover()) // panics
			}
			c.record.Release()
		}()
		for {
			if c.task == nil {
				c.functions()
			} else {
				if c.begin() {
					c.task.Body.Run()
				}
				c.task.Body.Over(nil, false)
				c.clear()
			}
			if !yield(struct{}{}) {
				returned = true
				return
			}
		}
	})
	return c
}

func (c *co) begin() bool {
	t := c.task
	t.gid.Store(c.record.ID)
	c.record.Task, c.record.Values = t, t.Values
	t.Values = goroutine.Values{}
	return t.Body.Begin()
}

// errGoexit is the panic value of a coroutine that a Goexit has ended, or may have.
var errGoexit = errors.New("sched: a coroutine was ended by Goexit")

// clear marks the coroutine as running nothing.
func (c *co) clear() {
	c.task = nil
	c.record.Task, c.record.Values = nil, goroutine.Values{}
}

// failed ends the coroutine. What it ran has panicked with v or, if v is nil,
// called Goexit.
func (c *co) failed(v any) {
	c.ended = true
	bug := c.task == nil && v != nil // in this module: see New
	defer func() {
		c.clear()
		c.record.Release()
		if !bug {
			panic(errGoexit)
		}
	}()
	switch {
	case bug:
		panic(v)
	case c.task != nil:
		c.task.Body.Over(v, v == nil)
	}
}

func (c *co) functions() {
	r := c.record
	r.Task = &c.loop.posted
	c.loop.posted.gid.Store(r.ID)
	for fn := c.fn; fn != nil; fn = c.loop.nextFunction() {
		c.fn = nil
		c.loop.posted.state.Add(ways) // another turn
		c.loop.call(fn)
		r.Values = goroutine.Values{}
	}
	r.Task = nil
}

// resume runs the coroutine until it yields. It reports false if the coroutine
// has ended.
func (c *co) resume() (alive bool) {
	defer func() {
		if v := recover(); v != nil && v != errGoexit {
			panic(v)
		}
	}()
	c.next()
	return !c.ended
}

// Fence runs fn on a coroutine on the calling goroutine's thread, so that a
// Goexit in fn ends only the coroutine. fn must not panic.
func Fence(fn func()) {
	next, stop := iter.Pull(func(func(struct{}) bool) {
		returned := false
		defer func() {
			if !returned {
				if v := recover(); v != nil {
					panic(v)
				}
				panic(errGoexit)
			}
		}()
		fn()
		returned = true
	})
	defer func() {
		if v := recover(); v != nil && v != errGoexit {
			panic(v)
		}
		stop()
	}()
	next()
}
