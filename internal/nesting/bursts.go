package nesting

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/task"
)

// Many calls at once.

const opBurst kind = "burst" // calls queued behind a busy function: see burst

var burstOps = []operation{
	{kind: opBurst, run: (*run).burst, print: func(o *Op) string {
		return fmt.Sprintf(" %v %v of %d, tasks %b, cancel %d", o.On, o.Burst, o.N, o.Mask, o.Cancel)
	}},
}

func (g *generator) burst(s *state) *Op {
	// A burst counts on its ctx, which may have ended where a wait for the
	// tasks around it was refused.
	if s.sync != nil || s.cb >= 0 || g.cfg.Plant || s.loose || s.loop > 0 {
		return nil
	}
	o := g.newOp(opBurst)
	o.On = g.context(private, g.rank(s), nil)
	o.On.Unpinned = g.coin(4)
	o.Burst = burst(g.IntN(int(bursts)))
	if o.Burst == burstAll {
		o.On.Policy = asyncsync.All
	}
	o.N = 1 + g.IntN(4)
	o.Mask = uint(g.IntN(16))
	if g.coin(2) {
		o.Cancel = g.IntN(o.N)
	}
	s.touch(o.On.rank)
	return o
}

// burst queues calls of one submitter one after the other, on a context of its
// own, behind a busy function, and checks in which order they run.
func (x *run) burst(ctx context.Context, o *Op, a *activity) (int, error) {
	c := &contextState{Context: o.On}
	opts := x.options(c)
	if o.Burst == burstFull {
		opts = append(opts, asyncsync.QueueLimit(o.N))
	}
	c.ctx, c.tsc = asyncsync.NewThreadSensitiveContext(asyncsync.Detach(ctx), opts...)
	x.contexts[o.On.ID] = c
	o = &Op{ID: o.ID, Target: named, On: o.On, Bursting: o.Bursting}

	if o.Burst == burstLeft {
		x.burstLeft(ctx, o, a, c)
		return 0, nil
	}

	var order []int // touched on the context's thread only
	var refused atomic.Int32
	release, submitted, served := make(chan struct{}), make(chan struct{}), make(chan struct{})

	submit := func(ctx context.Context, a *activity) {
		defer close(served)
		var all sync.WaitGroup
		cause := x.ids.causes[o.ID]
		toCancel, cancel := context.WithCancelCause(ctx)
		cancelledOne := make(chan struct{})
		for i := range o.N {
			ctx := ctx
			if i == o.Cancel {
				ctx = toCancel
			}
			f, _ := x.probe(o, a, func(context.Context) (int, error) {
				order = append(order, i)
				return 0, nil
			})
			all.Add(1)
			send := func() (int, error) { return x.call(ctx, o, f) }
			if o.Mask>>i&1 != 0 {
				t := x.queue(ctx, o, f)
				send = func() (int, error) { return t.Wait(context.Background()) }
			}
			go func() {
				defer all.Done()
				_, err := send()
				if i == o.Cancel {
					defer close(cancelledOne)
				}
				switch {
				case err == nil && i != o.Cancel:
				case i == o.Cancel && err == error(cause):
				case o.Burst == burstShutdown && errors.Is(err, asyncsync.ErrClosed):
					refused.Add(1)
				default:
					x.complain("#%d: call %d of the burst: %v", o.ID, i, err)
				}
			}()
			x.until(func() bool { return c.tsc.Stats().Queued == i+1 })
		}
		if o.Burst == burstFull {
			x.refusedFull(ctx, o, c)
		}
		cancel(cause)
		if o.Cancel >= 0 {
			<-cancelledOne
		}
		close(submitted)
		all.Wait()
	}

	var t *task.Task[int]
	var child *activity
	if o.Burst == burstJoined {
		child = x.child(a, nil)
		begin := make(chan struct{})
		t = task.Go(ctx, func(ctx context.Context) (int, error) {
			<-begin
			submit(ctx, child)
			return 0, nil
		})
		ended := x.busy(ctx, o, a, release, func(ctx context.Context, self *activity) {
			x.during(self, child, func() { t.Wait(ctx) })
		})
		close(begin)
		<-submitted
		close(release)
		ended.Wait()
	} else {
		ended := x.busy(ctx, o, a, release, func(ctx context.Context, self *activity) {
			if o.Burst == burstAll {
				x.during(self, x.child(self, nil), func() {
					asyncsync.FromThread(ctx, func(context.Context) (int, error) {
						<-served
						return 0, nil
					})
				})
			}
		})
		go submit(ctx, a)
		<-submitted
		x.closed(c)
		switch o.Burst {
		case burstShutdown:
			cause := errors.New("impatience")
			if err := c.tsc.Shutdown(cancelled(context.Background(), cause)); !errors.Is(err, cause) {
				x.complain("#%d: Shutdown gives up with %v", o.ID, err)
			}
			<-served
		case burstClose:
			done := make(chan struct{})
			go func() {
				defer close(done)
				if err := c.tsc.Close(); err != nil {
					x.complain("#%d: Close: %v", o.ID, err)
				}
			}()
			x.until(func() bool { return c.tsc.Stats().Closed })
			x.refused(ctx, o, a)
			defer func() { <-done }()
		}
		close(release)
		ended.Wait()
	}
	<-served
	x.closed(c)
	if err := c.tsc.Close(); err != nil {
		x.complain("#%d: Close: %v", o.ID, err)
	}
	var want []int
	for i := range o.N {
		if i != o.Cancel && o.Burst != burstShutdown {
			want = append(want, i)
		}
	}
	if len(order) != len(want) {
		x.complain("#%d: %v ran, should be %v", o.ID, order, want)
		return 0, nil
	}
	for i := range want {
		if order[i] != want[i] {
			x.complain("#%d: ran in order %v, should be %v", o.ID, order, want)
			return 0, nil
		}
	}
	return 0, nil
}

func (x *run) refusedFull(ctx context.Context, o *Op, c *contextState) {
	f := func(context.Context) (int, error) {
		x.complain("#%d: a call beyond the QueueLimit runs", o.ID)
		return 0, nil
	}
	if _, err := asyncsync.Go(ctx, f, asyncsync.On(c.tsc)).Wait(context.Background()); !errors.Is(err, asyncsync.ErrQueueFull) {
		x.complain("#%d: a task beyond the QueueLimit: %v", o.ID, err)
	}
	_, err := asyncsync.ToThread(ctx, f, asyncsync.On(c.tsc))
	if !errors.Is(err, asyncsync.ErrQueueFull) {
		x.complain("#%d: a call beyond the QueueLimit: %v", o.ID, err)
	}
}

// burstLeft has a function block in FromThread, and another run on top of it
// while calls are queued for both the wait and the thread. The wait ends, so
// that the former are handed down.
func (x *run) burstLeft(ctx context.Context, o *Op, a *activity, c *contextState) {
	var order []int // touched on the context's thread only
	var all sync.WaitGroup
	self := x.child(a, &Body{ID: -o.ID, On: o.On})
	below := x.child(self, nil)
	async := func(inner context.Context) (int, error) {
		release := make(chan struct{})
		busy := x.busy(inner, o, below, release, nil)
		for i := range o.N {
			by, from := below, inner
			if i%2 == 1 {
				by, from = a, ctx // a stranger to the wait
			}
			g, _ := x.probe(o, by, func(context.Context) (int, error) {
				order = append(order, i)
				return 0, nil
			})
			all.Add(1)
			send := func() (int, error) { return x.call(from, o, g) }
			if o.Mask>>i&1 != 0 {
				t := x.queue(from, o, g)
				send = func() (int, error) { return t.Wait(context.Background()) }
			}
			go func() {
				defer all.Done()
				if _, err := send(); err != nil {
					x.complain("#%d: call %d of the burst: %v", o.ID, i, err)
				}
			}()
			x.until(func() bool { return c.tsc.Stats().Queued == i+1 })
		}
		all.Add(1)
		go func() {
			defer all.Done()
			time.Sleep(100 * time.Microsecond) // for the wait to end, most of the time
			close(release)
			busy.Wait()
		}()
		return 0, nil
	}
	f := x.at(self.body, self, func(ctx context.Context) (v int, err error) {
		x.during(self, below, func() { v, err = asyncsync.FromThread(ctx, async) })
		return v, err
	})
	if _, err := x.call(ctx, o, f); err != nil {
		x.complain("#%d: the function that waits: %v", o.ID, err)
	}
	all.Wait()
	x.closed(c)
	if err := c.tsc.Close(); err != nil {
		x.complain("#%d: Close: %v", o.ID, err)
	}
	last := [2]int{-1, -1}
	for _, i := range order {
		if i < last[i%2] {
			x.complain("#%d: ran in order %v", o.ID, order)
		}
		last[i%2] = i
	}
	if len(order) != o.N {
		x.complain("#%d: %v ran, should be %d", o.ID, order, o.N)
	}
}
