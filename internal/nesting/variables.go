package nesting

import (
	"context"
	"fmt"
)

// Local variables.

const (
	opSet    kind = "set"    // Var.Set
	opDelete kind = "delete" // Var.Delete
	opUndo   kind = "undo"   // Var.Set, Body, undo
)

var variableOps = []operation{
	{kind: opSet, run: (*run).set, expect: (*model).set, print: printSet},
	{kind: opDelete, run: (*run).unset, expect: (*model).unset, print: func(o *Op) string { return fmt.Sprintf(" v%d", o.Var) }},
	{kind: opUndo, run: (*run).undo, expect: (*model).undo, print: printSet},
}

func printSet(o *Op) string {
	s := fmt.Sprintf(" v%d=%d", o.Var, o.Val)
	if o.N > 0 {
		s += fmt.Sprintf(" ctx of kind %d", o.N)
	}
	return s
}

// variable sets a variable, or deletes it.
func (g *generator) variable(*state) *Op {
	o := g.newOp(opSet)
	if g.coin(3) {
		o.Kind = opDelete
	}
	o.Var, o.Val = g.IntN(vars), 1+g.IntN(1000)
	return o
}

// undo sets a variable for Body.
func (g *generator) undo(s *state) *Op {
	o := g.newOp(opUndo)
	o.Var, o.Val = g.IntN(vars), 1+g.IntN(1000)
	o.N = g.IntN(3)
	f := *s
	f.derived = f.derived || o.N > 0
	o.Body = g.body(f)
	return o
}

func (x *run) set(_ context.Context, o *Op, _ *activity) (int, error) {
	variables[o.Var].Set(o.Val)
	return 0, nil
}

func (m *model) set(o *Op, v *Values) Outcome {
	v[o.Var] = o.Val
	return Outcome{}
}

func (x *run) unset(_ context.Context, o *Op, _ *activity) (int, error) {
	variables[o.Var].Delete()
	return 0, nil
}

func (m *model) unset(o *Op, v *Values) Outcome {
	v[o.Var] = 0
	return Outcome{}
}

type ctxKey struct{}

// A foreignCtx is a ctx of somebody else's type.
type foreignCtx struct{ context.Context }

func (x *run) undo(ctx context.Context, o *Op, a *activity) (int, error) {
	defer variables[o.Var].Set(o.Val)()
	switch o.N {
	case 1:
		ctx = context.WithValue(ctx, ctxKey{}, o)
	case 2:
		ctx = foreignCtx{ctx}
	}
	return x.list(ctx, o.Body, a, nil)
}

func (m *model) undo(o *Op, v *Values) Outcome {
	before := v[o.Var]
	v[o.Var] = o.Val
	out := m.body(o.Body, v)
	v[o.Var] = before
	return out
}
