package web

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"sync"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/core"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// A Background is the work that requests leave behind. The zero value is ready
// to use. It must not be copied. Its methods may be called from anywhere.
type Background struct {
	group core.Group // has the running functions as members

	mu      sync.Mutex // guards the rest; a leaf lock
	closed  bool
	running map[*work]struct{}
	idle    *core.Gate // opened when nothing runs; made when somebody waits
}

// work is one running function. Its fields never change, but for place, which is the
// group's.
type work struct {
	cancel context.CancelCauseFunc
	place  core.Member
}

// Go runs fn as a task that outlives the request. The ctx of fn has the values
// of ctx. It does not end with the request or the client, only when fn has
// ended or a Shutdown has given up. It carries a context of its own with a
// thread from the pool of the request, named like the request's with
// "(background)" appended. Outside of a [Middleware] the thread comes from the
// default pool. A nil ctx or fn panics.
//
// The calls of fn stand in the same line of the pool as requests. Under overload they
// fail with [asyncsync.ErrPoolFull], perhaps after the client was told that the work
// is accepted. Where that matters, fn enters a context of its own with a pool of its
// own:
//
//	err := asyncsync.WithThreadSensitiveContext(asyncsync.Detach(ctx), work, asyncsync.WithPool(pool))
//
// Without Detach that context would share the thread of the one around it.
//
// fn always runs on a goroutine of its own, and so do its tasks. It has nothing
// to do with a loop that ctx may have, like that of a server whose BaseContext
// is the ctx of a task there: such a loop may end, or wait for fn.
//
// A panic of fn goes to the ErrorLog of the server, with the stack, and to the
// Panicked hook of package asyncsync; the process goes on. After Shutdown, Go
// returns [asyncsync.ErrClosed], and fn does not run.
func (b *Background) Go(ctx context.Context, fn func(ctx context.Context)) error {
	if ctx == nil {
		panic("web: Background.Go: nil ctx")
	}
	if fn == nil {
		panic("web: Background.Go: nil function")
	}
	ctx, cancel := context.WithCancelCause(b.group.Place(context.WithoutCancel(ctx)))
	w := &work{cancel: cancel}
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		cancel(nil)
		return asyncsync.ErrClosed
	}
	if b.running == nil {
		b.running = map[*work]struct{}{}
	}
	b.running[w] = struct{}{}
	b.group.Add(&w.place)
	b.mu.Unlock()

	started := false
	defer func() {
		if !started { // a hook, or code of ctx, has panicked
			b.done(w)
		}
	}()
	name, m := "background", &middleware{}
	if q := requestOf(ctx); q != nil {
		name, m = q.name+" (background)", q.middleware
	}
	task.Go(ctx, func(ctx context.Context) (struct{}, error) {
		defer func() {
			if v := recover(); v != nil {
				if v != http.ErrAbortHandler {
					logf(ctx, "web: panic in %s: %v\n%s", name, v, debug.Stack())
				}
				panic(v)
			}
		}()
		m.within(ctx, name, fn)
		return struct{}{}, nil
	}, task.Named(name), func(o *core.Options) {
		// The end comes also if the task never came to run.
		o.Member, o.OnEnd = &w.place, func() { b.done(w) }
	})
	started = true
	return nil
}

// done says that w has ended, or has not come to run. Only the first call counts.
func (b *Background) done(w *work) {
	b.mu.Lock()
	_, runs := b.running[w]
	delete(b.running, w)
	var idle *core.Gate
	if len(b.running) == 0 {
		idle, b.idle = b.idle, nil
	}
	b.mu.Unlock()
	if !runs {
		return
	}
	b.group.Done(&w.place)
	w.cancel(nil)
	if idle != nil {
		idle.Open()
	}
}

// Shutdown refuses new work and waits until the running functions have ended.
// If ctx ends first, the ctx of these functions ends with the same cause, and
// Shutdown returns an error that wraps the cause and says how many functions
// still run. Call it after [http.Server.Shutdown] has returned, because until
// then handlers may start more work. Any further Shutdown waits as well. What
// the functions did synchronizes before a return of nil. A nil ctx panics.
//
// In sync code the thread serves meanwhile, and a task of a thread loop is
// parked. Where a function waits for the caller, and in the functions
// themselves, Shutdown returns an error at once that matches
// [asyncsync.dev/deadlock.ErrDeadlock]. Inside a function that was posted to a loop
// of [loop.NewThread] or [loop.FromPost] it returns [loop.ErrOnLoop] if anything
// runs. In both cases new work is refused, and what runs goes on.
func (b *Background) Shutdown(ctx context.Context) error {
	if ctx == nil {
		panic("web: Background.Shutdown: nil ctx")
	}
	b.mu.Lock()
	b.closed = true
	if len(b.running) == 0 {
		b.mu.Unlock()
		return nil
	}
	if b.idle == nil {
		b.idle = &core.Gate{}
	}
	idle := b.idle
	b.mu.Unlock()
	if _, blocks := core.OnLoop(); blocks {
		return loop.ErrOnLoop
	}
	cause := b.group.Wait(ctx, idle)
	if cause == nil || core.Refused(ctx, cause) {
		return cause
	}
	b.mu.Lock()
	left := make([]*work, 0, len(b.running))
	for w := range b.running {
		left = append(left, w)
	}
	b.mu.Unlock()
	if len(left) == 0 {
		return nil // they have ended at the same moment
	}
	for _, w := range left {
		w.cancel(cause)
	}
	return fmt.Errorf("web: shutdown gave up, %d background functions still run: %w", len(left), cause)
}
