package nesting

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// Executors and loops of the program's own, to which functions are posted.

const (
	opExecutor kind = "executor" // a task posts Body to a CurrentThreadExecutor of its starter's
	opPosts    kind = "posts"    // functions that are posted to an executor of one's own
	opStopped  kind = "stopped"  // a function for a loop that stops
)

var executorOps = []operation{
	{kind: opExecutor, run: (*run).executor, expect: (*model).apart, print: printAdopted, calls: true},
	{kind: opPosts, run: (*run).posts, print: func(o *Op) string { return fmt.Sprintf(" %d of %d panics", o.Cancel, o.N) }},
	{kind: opStopped, run: (*run).stopped, print: printTargetAndN},
}

// executor is a function that a joined task posts to its starter.
func (g *generator) executor(s *state) *Op {
	if s.cb >= 0 || s.fragile || s.sync == nil && s.loop > 0 {
		return nil
	}
	o := g.newOp(opExecutor)
	f := *s
	f.root, f.goexit, f.quiet = false, false, false
	f.mustJoin = f.mustJoin || s.alone
	tasks := slices.Clone(*s.tasks)
	f.tasks = &tasks
	if s.sync == nil {
		o.On = g.context(adopted, s.top()+epsilon, nil)
		f = f.on(o.On)
		f.scope = s.scope
		f.mustJoin = true
	}
	f.bare = false
	o.Body = g.body(f)
	return o
}

// executor runs what a task of its own posts to it.
func (x *run) executor(ctx context.Context, o *Op, a *activity) (int, error) {
	if o.On != nil {
		defer x.adopt(o, a)()
	}
	e := asyncsync.NewCurrentThreadExecutor()
	child := x.child(a, nil)
	inner := x.child(child, o.Body)
	inner.posted = true
	f := x.function(o.Body, inner, nil, nil)
	t := task.Go(ctx, func(ctx context.Context) (int, error) {
		return asyncsync.ToThread(ctx, f, asyncsync.Insensitive(), asyncsync.WithExecutor(e))
	})
	// What is started by the function that calls RunUntil is served as well.
	x.during(a, a.outermost(), func() {
		if err := e.RunUntil(t.Done()); err != nil {
			x.complain("#%d: RunUntil: %v", o.ID, err)
		}
	})
	var v int
	var err error
	x.during(a, child, func() { v, err = t.WaitOrCancel(ctx) })
	return v, err
}

// posts is functions that are posted to an executor where it runs.
func (g *generator) posts(s *state) *Op {
	if s.cb >= 0 || s.fragile || s.sync == nil && s.loop > 0 {
		return nil
	}
	o := g.newOp(opPosts)
	if s.sync == nil {
		o.On = g.context(adopted, s.top()+epsilon, nil)
	}
	o.N = 1 + g.IntN(4)
	if g.coin(2) {
		o.Cancel = g.IntN(o.N)
	}
	return o
}

// posts runs the posted functions. One may panic: those that come later, and
// what the others have posted, are left for the next RunUntil.
func (x *run) posts(_ context.Context, o *Op, a *activity) (int, error) {
	if o.On != nil {
		defer x.adopt(o, a)()
	}
	e := asyncsync.NewCurrentThreadExecutor()
	var order []int
	for i := range o.N {
		e.Post(func() {
			order = append(order, i)
			if i == o.Cancel {
				panic(x.ids.causes[o.ID])
			}
			e.Post(func() { order = append(order, o.N+i) })
		})
	}
	now := make(chan struct{})
	close(now)
	serve := func() (out Outcome) {
		x.during(a, a.outermost(), func() {
			capture(&out, func() (int, error) { return 0, e.RunUntil(now) })
		})
		return out
	}
	var want []int
	round := func(first, n int) {
		for i := first; i < n; i++ {
			want = append(want, i)
			if i == o.Cancel {
				if out := serve(); out.Kind != endPanic || out.Panic != any(x.ids.causes[o.ID]) {
					x.complain("#%d: RunUntil: %v, should be the panic of %d", o.ID, out, i)
				}
			}
		}
	}
	round(0, o.N)
	if o.Cancel < 0 {
		if out := serve(); out.Kind != endReturn {
			x.complain("#%d: RunUntil: %v", o.ID, out)
		}
	}
	for len(order) < 2*o.N && order != nil {
		before := len(order)
		if out := serve(); out.Kind != endReturn {
			x.complain("#%d: RunUntil: %v", o.ID, out)
		}
		if len(order) == before {
			break
		}
	}
	slices.Sort(want)
	for i := range o.N {
		if i != o.Cancel {
			want = append(want, o.N+i)
		}
	}
	// What comes before the panic has posted before what comes after it ran.
	if got := slices.Clone(order); !slices.Equal(order, want) {
		slices.Sort(got)
		if o.Cancel < 0 || !slices.Equal(got, want) {
			x.complain("#%d: ran %v, should be %v", o.ID, order, want)
		}
	}
	return 0, nil
}

// stopping takes functions and stops, at once or after a while.
type stopping struct {
	looper
	later int // how late, 0 for at once
	used  atomic.Bool
	mu    sync.Mutex
	fns   []func()
}

func (l *stopping) Post(fn func()) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used.Store(true)
	l.fns = append(l.fns, fn)
	go l.stop()
	return nil
}

// stop stops the loop. A loop that stops late may have run the function before.
func (l *stopping) stop() {
	l.mu.Lock()
	fns := l.fns
	l.fns = nil
	l.mu.Unlock()
	if l.later == 0 {
		close(l.done)
		return
	}
	go func() {
		for range l.later {
			runtime.Gosched()
		}
		close(l.done)
	}()
	for _, fn := range fns {
		fn()
	}
}

// stopped is a function for a loop that stops.
func (g *generator) stopped(s *state) *Op {
	if s.bare {
		return nil
	}
	o := g.newOp(opStopped)
	o.Target = targeting(g.IntN(int(insensitive) + 1))
	o.N = g.IntN(20)
	return o
}

func (x *run) stopped(ctx context.Context, o *Op, a *activity) (int, error) {
	l := &stopping{looper: looper{make(chan struct{})}, later: o.N}
	ran := false
	c := x.child(a, nil)
	f := func(context.Context) (int, error) {
		ran = true
		return -1, nil
	}
	x.during(a, c, func() {
		var v int
		var err error
		if o.Target == insensitive {
			v, err = asyncsync.ToThread(ctx, f, asyncsync.Insensitive(), asyncsync.WithExecutor(l))
		} else {
			v, err = asyncsync.FromThread(ctx, f, asyncsync.WithLoop(l))
		}
		switch {
		case err == nil && v == -1 && ran && o.N > 0:
		case (errors.Is(err, loop.ErrStopped) || o.Loose && err != nil && x.p.excuse(err)) && !ran:
		default:
			x.complain("#%d: a function for a loop that stops returns %d, %v; ran: %v", o.ID, v, err, ran)
		}
	})
	if l.used.Load() {
		<-l.done
	}
	return 0, nil
}
