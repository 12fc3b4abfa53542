package core

import "context"

// Begin makes k a part of the call tree below ctx, and returns the context of what it
// counts, which cancel ends. It is called once, by the goroutine that will wait.
//
// If that goroutine runs nothing of this module, nobody can wait for its wait. Then
// k needs no place in the tree, and costs next to nothing.
func (k *Tasks) Begin(ctx context.Context) (_ context.Context, cancel context.CancelCauseFunc) {
	own, rec := current()
	if own == nil && waiter(rec) == nil {
		return context.WithCancelCause(ctx)
	}
	k.group = &Group{}
	ctx, cancel = k.group.Init(Afterlife(ctx))
	k.group.nc.own.Start()
	return ctx, cancel
}

// End says that the caller of Begin waits no more.
func (k *Tasks) End() {
	if k.group != nil {
		k.group.nc.own.End()
	}
}

// counted counts c, a task that is about to start, until it ends or left is called.
// Nobody else knows c yet.
func (k *Tasks) counted(c *Call) (left func()) {
	c.counted = true
	for u := k; u != nil; u = u.up {
		u.mu.Lock()
		u.n++
		u.mu.Unlock()
	}
	rest := c.more() // which reports look at
	places := k.places(c)
	out := func() { k.left(c, places) }
	if before := rest.onEnd; before != nil {
		rest.onEnd = func() {
			before()
			out()
		}
	} else {
		rest.onEnd = out
	}
	return out
}

// A place is what a counted task is to waits in the call tree.
type place struct {
	Member
	up *place
}

// places makes c a member of the groups of k and of those around.
func (k *Tasks) places(c *Call) (first *place) {
	for u := k; u != nil; u = u.up {
		if u.group != nil {
			first = &place{Member: Member{group: u.group}, up: first}
			first.list(c)
		}
	}
	return first
}

// left says that c has ended, or that its start has failed. Only the first call counts.
func (k *Tasks) left(c *Call, places *place) {
	k.mu.Lock()
	counted := c.counted
	c.counted = false
	k.mu.Unlock()
	if !counted {
		return
	}
	for p := places; p != nil; p = p.up {
		p.Leave()
	}
	for u := k; u != nil; u = u.up {
		u.ended()
	}
}

func (k *Tasks) ended() {
	k.mu.Lock()
	k.n--
	var idle *Gate
	if k.n == 0 {
		idle, k.idle = k.idle, nil
	}
	k.mu.Unlock()
	if idle != nil {
		idle.Open()
	}
}

// Wait waits until no task is left. A task that another one starts is counted
// before that one is over. The end of each counted task synchronizes before the
// return of Wait.
//
// A thread serves meanwhile, and a task parks: see await. No ctx ends the wait. It fails
// only if it could never end, because a task waits for the caller.
func (k *Tasks) Wait() error {
	k.mu.Lock()
	if k.n == 0 {
		k.mu.Unlock()
		return nil
	}
	if k.idle == nil {
		k.idle = &Gate{}
	}
	idle := k.idle
	k.mu.Unlock()
	if k.group == nil {
		return Park(context.Background(), idle.Done(), "tasks")
	}
	return k.group.Wait(context.Background(), idle)
}
