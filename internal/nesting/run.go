package nesting

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/local"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// ErrHung is matched by the error of a Run that gave up.
var ErrHung = errors.New("the program hangs")

// A HungError has the stacks of all goroutines.
type HungError struct{ Stacks string }

// Error returns all stacks.
func (e *HungError) Error() string { return "the program hangs; all goroutines:\n\n" + e.Stacks }

// Is reports whether target is ErrHung.
func (e *HungError) Is(target error) bool { return target == ErrHung }

// The variables of all programs. Roots start without values, so that programs
// do not see each other's.
var variables = func() (vs [vars]*local.Var[int]) {
	for i := range vs {
		vs[i] = local.New[int]()
	}
	return
}()

func values() (v Values) {
	for i := range variables {
		v[i], _ = variables[i].Get()
	}
	return v
}

func forget() {
	for _, v := range variables {
		v.Delete()
	}
}

// Run interprets p and returns what it saw. When ctx ends first it gives up,
// leaves everything as it is, and returns a [HungError]; the program itself
// does not see ctx.
func Run(ctx context.Context, p *Program, mode Mode) (*Result, error) {
	ids := identify(p)
	x := &run{
		p:      p,
		mode:   mode,
		Result: newResult(p, ids),
		things: things{
			limiters: make([]*limiterState, len(p.Contexts)),
			contexts: make([]*contextState, len(p.Contexts)),
			tasks:    make([]*task.Task[int], p.Ops),
			mutexes:  map[int]*task.Mutex{},
			loop:     looper{make(chan struct{})},
		},
		runs:  make([]atomic.Int32, p.Bodies),
		outs:  make([]Outcome, p.Bodies),
		acts:  make([]*activity, p.Ops),
		hung:  make(chan struct{}),
		exits: p.exits(),
		tids:  map[int]*contextState{},
		dead:  map[int]*contextState{},
	}
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		x.all()
	}()
	select {
	case <-finished:
		for i := range x.runs {
			x.Bodies[i].Runs = int(x.runs[i].Load())
		}
		x.Told = x.told.Load()
		if p.Planted != nil {
			// The wait that was told may have been that for a group, whose
			// tasks go on and find what they count on closed.
			close(x.hung)
		}
		return x.Result, nil
	case <-ctx.Done():
		stacks := make([]byte, 1<<22)
		stacks = stacks[:runtime.Stack(stacks, true)]
		close(x.hung)
		return nil, &HungError{string(stacks)}
	}
}

// all runs the whole program.
func (x *run) all() {
	var ends []func()
	for _, provide := range features.provide {
		ends = append(ends, provide(x))
	}
	var roots sync.WaitGroup
	for i, r := range x.p.Roots {
		ctx := context.Background()
		if r.Context != nil {
			ctx = x.contexts[r.Context.ID].ctx
		}
		roots.Add(1)
		go func() {
			defer roots.Done()
			defer forget()
			a := x.child(nil, r.Body)
			if omit.siblings && r.Context != nil {
				a.parent, a.borrows = &x.contexts[r.Context.ID].callers, true
			}
			capture(&x.Roots[i], func() (int, error) { return x.list(ctx, r.Body, a, nil) })
		}()
	}
	roots.Wait()
	for n := -1; n != x.begun(); {
		n = x.begun()
		x.drain()
		x.drainLoose()
	}
	if x.p.Planted == nil {
		// After a planted cycle was told a group's tasks may go on by themselves,
		// and abandon functions while this waits.
		x.strays.Wait()
	}
	for _, end := range slices.Backward(ends) {
		end()
	}
}

// list runs the operations of b as a part of a.
func (x *run) list(ctx context.Context, b *Body, a *activity, tail func(context.Context)) (int, error) {
	x.runs[b.ID].Add(1)
	x.outs[b.ID] = Outcome{Kind: endGoexit} // unless told otherwise
	x.Bodies[b.ID].Start = values()
	for _, o := range b.Ops {
		x.step(a)
		out := x.one(ctx, o, a)
		if out.Kind == endReturn || o.Catch {
			continue
		}
		x.outs[b.ID] = out
		if out.Kind == endError {
			return 0, out.Err
		}
		panic(out.Panic)
	}
	x.step(a)
	if tail != nil {
		tail(ctx)
	}
	if b.Loop > 0 {
		switch b.End {
		case endPanic:
			x.count(panicOnLoop)
		case endGoexit:
			x.count(goexitOnLoop)
		}
	}
	x.outs[b.ID] = Outcome{Kind: b.End, Val: b.ID, Err: x.ids.errs[b.ID], Panic: x.ids.panics[b.ID]}
	switch b.End {
	case endError:
		return 0, x.ids.errs[b.ID]
	case endPanic:
		panic(x.ids.panics[b.ID])
	case endGoexit:
		runtime.Goexit()
	}
	return b.ID, nil
}

// one runs o and notes what came of it.
func (x *run) one(ctx context.Context, o *Op, a *activity) (out Outcome) {
	defer func() { x.Ops[o.ID] = OpResult{true, out, values()} }()
	a.op = o.ID
	capture(&out, func() (int, error) { return o.operation().run(x, ctx, o, a) })
	x.same(o, out)
	if errors.Is(out.Err, core.ErrDeadlock) {
		x.told.Add(1)
	}
	return out
}

// function is b as a function for the library to call, as a. head runs before
// the operations, tail after them unless one has ended the body.
func (x *run) function(b *Body, a *activity, head, tail func(context.Context)) function {
	return x.at(b, a, func(ctx context.Context) (int, error) {
		if head != nil {
			head(ctx)
		}
		return x.list(ctx, b, a, tail)
	})
}

// at is f with the checks of a function that runs, as a, where b does.
func (x *run) at(b *Body, a *activity, f function) function {
	return func(ctx context.Context) (int, error) {
		defer x.goesOn()()
		if b.On != nil {
			a.on = x.contexts[b.On.Root.ID]
			a.tid = osThread()
			x.enter(a)
			defer x.leave(a)
		}
		if b.Loop > 0 {
			x.begins(ctx, b)
		}
		return f(ctx)
	}
}

// probe is a function that calls nothing, on the thread that o names.
func (x *run) probe(o *Op, by *activity, f func(context.Context) (int, error)) (function, *activity) {
	a := x.child(by, &Body{ID: -o.ID, On: o.On})
	return x.at(a.body, a, f), a
}

func nil2(context.Context) (int, error) { return 0, nil }

// errNone matches nothing.
var errNone = errors.New("none")

// capture runs f and stores how it ended. A panic ends here; a Goexit goes on.
func capture(out *Outcome, f func() (int, error)) {
	returned := false
	defer func() {
		if returned {
			return
		}
		*out = Outcome{Kind: endGoexit}
		if v := recover(); v != nil {
			*out = Outcome{Kind: endPanic, Panic: v}
		}
	}()
	v, err := f()
	returned = true
	*out = Outcome{Val: v}
	if err != nil {
		*out = Outcome{Kind: endError, Err: err}
	}
}

// drain waits for all tasks. One that runs may start others, but has done so
// when it ends.
func (x *run) drain() {
	for i := 0; ; i++ {
		x.complaints.Lock()
		if i == len(x.spawned) {
			x.complaints.Unlock()
			return
		}
		o := x.spawned[i]
		t := x.tasks[o]
		x.complaints.Unlock()
		done := make(chan Outcome)
		go func() {
			var out Outcome
			defer func() {
				forget()
				done <- out
			}()
			capture(&out, func() (int, error) { return t.Wait(context.Background()) })
		}()
		x.Tasks[o] = <-done
	}
}

// goesOn says that something begins which a Goexit of those who wait for it
// leaves running. ended is called at its end.
func (x *run) goesOn() (ended func()) {
	if !x.exits {
		return func() {}
	}
	done := make(chan struct{})
	x.complaints.Lock()
	defer x.complaints.Unlock()
	x.loose = append(x.loose, done)
	return func() { close(done) }
}

// exits reports whether functions of p may end by Goexit at any time.
func (p *Program) exits() bool {
	return slices.ContainsFunc(p.Contexts, func(c *Context) bool { return c.Exits })
}

// begun counts what must be drained.
func (x *run) begun() int {
	x.complaints.Lock()
	defer x.complaints.Unlock()
	return len(x.spawned) + len(x.loose)
}

// drainLoose waits for all of these. One that runs may begin others, but has
// done so when it ends.
func (x *run) drainLoose() {
	for i := 0; ; i++ {
		x.complaints.Lock()
		if i == len(x.loose) {
			x.complaints.Unlock()
			return
		}
		done := x.loose[i]
		x.complaints.Unlock()
		<-done
	}
}

// rest waits for ch, and blocks no loop meanwhile.
func (x *run) rest(ctx context.Context, ch <-chan struct{}) {
	if _, ok := loop.Current(ctx); !ok {
		<-ch
		return
	}
	if _, _, err := task.Recv(context.WithoutCancel(ctx), ch); err != nil {
		x.complain("a wait that nobody cancels: %v", err)
		<-ch
	}
}

// restFor is rest until all are done.
func (x *run) restFor(ctx context.Context, all *sync.WaitGroup) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		all.Wait()
	}()
	x.rest(ctx, done)
}

// until polls: for what has no signal to wait for.
func (x *run) until(f func() bool) {
	for !f() {
		select {
		case <-x.hung:
			runtime.Goexit()
		default:
		}
		runtime.Gosched()
		time.Sleep(time.Microsecond)
	}
}

// cancelled returns a ctx that has ended with cause.
func cancelled(ctx context.Context, cause error) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	cancel(cause)
	return ctx
}
