package nesting

import (
	"context"
	"errors"
	"fmt"
	"time"

	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// Ends of waits in tasks of loops: cancelled, timed out, given up. A task that waits so
// is parked, and its loop runs others.

const opTimeout kind = "timeout" // a deadline or a scope, around Body or a wait

var endOps = []operation{
	{kind: opTimeout, run: (*run).timeout, expect: (*model).timeout, print: func(o *Op) string { return fmt.Sprintf(" of kind %d", o.N) }},
}

// How a task waits for the end of its ctx.
const parkings = 10

// parked waits, as the n-th kind of wait, until ctx ends. It returns what the wait has.
func (x *run) parked(ctx context.Context, o *Op) (err error) {
	b, ok := loop.Current(ctx)
	if ok {
		defer func() {
			if err != nil {
				x.count(parkedCancelled)
			}
		}()
	}
	switch (o.ID + o.N) % parkings {
	case 0:
		return task.SleepForever(ctx)
	case 1:
		return new(task.Event).Wait(ctx)
	case 2:
		_, _, err := task.Recv[int](ctx, nil)
		return err
	case 3:
		return task.Send(ctx, nil, 1)
	case 4:
		m := &task.Mutex{}
		m.TryLock()
		locked := make(chan struct{})
		m.Unlock()
		go func() { // whom the library does not know
			defer close(locked)
			m.TryLock()
		}()
		x.rest(ctx, locked)
		return m.Lock(ctx)
	case 5:
		return task.NewLimiter(0).Acquire(ctx)
	case 6:
		m := &task.Mutex{}
		m.TryLock()
		err := task.NewCond(m).Wait(ctx)
		if !m.Locked() {
			x.complain("#%d: Cond.Wait has not locked again", o.ID)
		}
		return err
	case 7:
		release := &task.Event{}
		t := task.Go(context.WithoutCancel(ctx), func(ctx context.Context) (int, error) { return 0, release.Wait(ctx) })
		_, err := t.Wait(ctx)
		release.Set()
		if _, err := t.Wait(context.WithoutCancel(ctx)); err != nil {
			x.complain("#%d: a task that nobody has cancelled: %v", o.ID, err)
		}
		return err
	case 8:
		_, err := task.Await(ctx, func(ctx context.Context) (int, error) {
			<-ctx.Done()
			return 0, context.Cause(ctx)
		})
		return err
	}
	if ok {
		return b.Park(ctx, func(func()) {})
	}
	return task.Sleep(ctx, time.Hour)
}

// Kinds of opTimeout.
const (
	timeoutBody  = iota // Timeout around Body, long enough
	moveOnBody          // MoveOn
	timeoutWait         // Timeout, over while it waits
	moveOnWait          // MoveOn
	scopeCancels        // a Scope that a task cancels
	timeoutKinds
)

// timeout is a deadline, or a scope.
func (g *generator) timeout(s *state) *Op {
	kinds := timeoutKinds
	if !s.serves() {
		kinds = timeoutWait
	}
	o := g.newOp(opTimeout)
	o.N = g.IntN(kinds)
	o.Val = 1 + g.IntN(1000)
	if o.N <= moveOnBody {
		f := *s
		f.derived, f.mustJoin = true, true
		o.Body = g.body(f)
	}
	return o
}

// timeout runs it.
func (x *run) timeout(ctx context.Context, o *Op, a *activity) (v int, err error) {
	if o.N <= moveOnBody {
		f := func(ctx context.Context) (err error) {
			v, err = x.list(ctx, o.Body, a, nil)
			return err
		}
		if o.N == timeoutBody {
			return v, task.Timeout(ctx, time.Hour, f)
		}
		moved, err := task.MoveOn(ctx, time.Hour, f)
		if moved {
			x.complain("#%d: has moved on after an hour", o.ID)
		}
		return v, err
	}
	if _, ok := loop.Current(ctx); ok {
		x.count(timedOut)
	}
	f := func(ctx context.Context) error { return x.parked(ctx, o) }
	over := time.Duration(o.Val) * time.Microsecond
	x.during(a, a.outermost(), func() {
		switch o.N {
		case timeoutWait:
			if err := task.Timeout(ctx, over, f); !errors.Is(err, task.ErrTimeout) && !x.excused(o, err, nil) {
				x.complain("#%d: Timeout: %v", o.ID, err)
			}
		case moveOnWait:
			if moved, err := task.MoveOn(ctx, over, f); (!moved || err != nil) && !x.excused(o, err, nil) {
				x.complain("#%d: MoveOn: %v, %v", o.ID, moved, err)
			}
		case scopeCancels:
			cause := x.ids.causes[o.ID]
			inner, s := task.OpenScope(ctx)
			t := task.Go(ctx, func(ctx context.Context) (int, error) {
				err := task.Sleep(ctx, over)
				s.Cancel(cause)
				return 0, err
			})
			waited := f(inner)
			if !errors.Is(waited, cause) && !x.excused(o, waited, nil) {
				x.complain("#%d: a wait in a scope that is cancelled: %v", o.ID, waited)
			}
			if err := s.Close(waited); err != nil && !x.excused(o, err, nil) || err == nil && !s.CancelledCaught() {
				x.complain("#%d: Close of a scope: %v, caught: %v", o.ID, err, s.CancelledCaught())
			}
			if _, err := t.Wait(context.WithoutCancel(ctx)); err != nil && !x.excused(o, err, nil) {
				x.complain("#%d: the task that cancels: %v", o.ID, err)
			}
		}
	})
	return 0, nil
}

func (m *model) timeout(o *Op, v *Values) Outcome {
	if o.Body == nil {
		return Outcome{}
	}
	return m.body(o.Body, v)
}
