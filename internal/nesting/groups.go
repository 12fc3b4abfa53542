package nesting

import (
	"context"
	"fmt"
	"sync"

	"asyncsync.dev/task"
)

// Code that runs side by side and that one waits for.

const (
	opGroup  kind = "group"  // NewGroup, a member for each of Bodies, Between, Wait
	opShared kind = "shared" // goroutines for Bodies that share the ctx, awaited
)

var groupOps = []operation{
	{kind: opGroup, run: (*run).group, expect: (*model).group,
		print:   func(o *Op) string { return fmt.Sprintf(" fail %d", o.Fail) },
		goexits: func(o *Op) bool { return o.Fail >= 0 && o.Bodies[o.Fail].goexits }},
	{kind: opShared, run: (*run).shared, expect: (*model).shared, goexits: func(*Op) bool { return false }},
}

// group is a group, at most one member of which fails.
func (g *generator) group(s *state) *Op {
	if s.cb >= 0 {
		return nil
	}
	o := g.newOp(opGroup)
	n := 1 + g.IntN(3)
	if g.coin(2) {
		o.Fail = g.IntN(n)
	}
	for i := range n {
		f := s.fork()
		f.alone = true
		f.quiet = false
		if i != o.Fail {
			f = f.silent()
		}
		o.Bodies = append(o.Bodies, g.body(f))
	}
	o.Between = g.between(s)
	return o
}

// shared is goroutines that the library does not know.
func (g *generator) shared(s *state) *Op {
	if s.cb >= 0 || s.sync != nil || s.loop > 0 {
		return nil
	}
	o := g.newOp(opShared)
	for range 1 + g.IntN(3) {
		f := *s
		f.root, f.goexit, f.quiet, f.alone = false, true, false, true
		f.raw = true
		f.kept = nil // a holder lends its token in a wait of the library, and waits in a raw one
		f.tasks = new([]*Op)
		o.Bodies = append(o.Bodies, g.body(f))
	}
	return o
}

func (x *run) group(ctx context.Context, o *Op, a *activity) (_ int, err error) {
	all := x.child(a, nil)
	_, g := task.NewGroup(ctx)
	var others sync.WaitGroup
	others.Add(len(o.Bodies))
	if o.Fail >= 0 {
		others.Done()
	}
	// On a loop a task that is cancelled before it begins does not begin.
	var begins []func()
	over := false
	defer func() {
		end := func() {
			for _, ended := range begins {
				ended()
			}
		}
		if over || len(begins) == 0 {
			end()
			return
		}
		go func() { // a Goexit has ended the wait
			var out Outcome
			defer end()
			capture(&out, func() (int, error) { return 0, g.Wait(context.WithoutCancel(ctx)) })
		}()
	}()
	for i, b := range o.Bodies {
		c := x.child(all, b)
		f := x.function(b, c, nil, nil)
		if o.Loose {
			ended := sync.OnceFunc(x.goesOn())
			begins = append(begins, ended)
			g.Go(func(ctx context.Context) error {
				defer ended()
				_, err := f(ctx)
				return err
			})
			continue
		}
		if i == o.Fail {
			g.Go(func(ctx context.Context) error {
				defer func() { x.restFor(ctx, &others) }()
				_, err := f(ctx)
				return err
			})
			continue
		}
		g.Go(func(ctx context.Context) error {
			defer others.Done()
			_, err := f(ctx)
			return err
		})
	}
	x.list(ctx, o.Between, a, nil)
	x.during(a, all, func() { err = g.Wait(ctx) })
	over = true
	return 0, err
}

func (m *model) group(o *Op, v *Values) Outcome {
	out := Outcome{}
	for i, b := range o.Bodies {
		fork := *v
		member := m.body(b, &fork)
		if i == o.Fail && member.Kind != endReturn {
			out = member
		}
	}
	m.body(o.Between, v)
	return out
}

func (x *run) shared(ctx context.Context, o *Op, a *activity) (int, error) {
	var all sync.WaitGroup
	for _, b := range o.Bodies {
		c := x.child(a, b)
		c.borrows = true
		all.Add(1)
		ended := x.goesOn()
		go func() {
			defer ended()
			defer all.Done()
			defer forget()
			var out Outcome
			capture(&out, func() (int, error) { return x.list(ctx, b, c, nil) })
		}()
	}
	all.Wait()
	return 0, nil
}

func (m *model) shared(o *Op, _ *Values) Outcome {
	for _, b := range o.Bodies {
		m.body(b, &Values{})
	}
	return Outcome{}
}
