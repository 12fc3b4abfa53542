package nesting

import (
	"errors"
	"fmt"
)

// Expect interprets p one operation after the other, on the calling goroutine.
// like is the result to be compared, for the identities of errors and panics.
func Expect(p *Program, like *Result) *Result {
	m := &model{newResult(p, like.ids)}
	for i, r := range p.Roots {
		m.Roots[i] = m.body(r.Body, &Values{})
	}
	return m.Result
}

func (m *model) body(b *Body, v *Values) Outcome {
	m.Bodies[b.ID].Runs++
	m.Bodies[b.ID].Start = *v
	for _, o := range b.Ops {
		out := Outcome{}
		if expect := o.operation().expect; expect != nil {
			out = expect(m, o, v)
		}
		m.Ops[o.ID] = OpResult{true, out, *v}
		if out.Kind == endGoexit || out.Kind != endReturn && !o.Catch {
			return out
		}
	}
	switch b.End {
	case endError:
		return Outcome{Kind: endError, Err: m.ids.errs[b.ID]}
	case endPanic:
		return Outcome{Kind: endPanic, Panic: m.ids.panics[b.ID]}
	case endGoexit:
		return Outcome{Kind: endGoexit}
	}
	return Outcome{Val: b.ID}
}

// inline is what is expected where a caller and what it calls are one line of
// execution.
func (m *model) inline(o *Op, v *Values) Outcome { return m.body(o.Body, v) }

// apart is inline for code that has variables of its own.
func (m *model) apart(o *Op, v *Values) Outcome {
	fork := *v
	return m.body(o.Body, &fork)
}

// cancelled is what is expected where nothing is done but o's cause returned.
func (m *model) cancelled(o *Op, _ *Values) Outcome {
	return Outcome{Kind: endError, Err: m.ids.causes[o.ID]}
}

// Check compares what was seen with what should have been.
func Check(p *Program, got *Result) error {
	want := Expect(p, got)
	var errs []error
	complain := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, c := range got.Complaints {
		complain("%s", c)
	}
	got.checkLoose(p, complain)
	for i, w := range want.Bodies {
		if p.looseBodies[i] {
			continue
		}
		if g := got.Bodies[i]; g != w {
			complain("b%d: ran %d times, starting with %v; should be %d times, with %v", i, g.Runs, g.Start, w.Runs, w.Start)
		}
	}
	for i, w := range want.Ops {
		if p.looseOps[i] {
			continue
		}
		g := got.Ops[i]
		if g.Ended != w.Ended {
			complain("#%d: ended: %v; should be %v", i, g.Ended, w.Ended)
			continue
		}
		if why := differ(g.Outcome, w.Outcome); why != "" {
			complain("#%d: %s", i, why)
		}
		if g.After != w.After {
			complain("#%d: leaves the variables %v; should be %v", i, g.After, w.After)
		}
	}
	for i, w := range want.Tasks {
		g, ok := got.Tasks[i]
		if why := differ(g, w); !ok || why != "" {
			complain("task of #%d: %s (started: %v)", i, why, ok)
		}
	}
	for i := range got.Tasks {
		if _, ok := want.Tasks[i]; !ok && !p.looseOps[i] {
			complain("task of #%d: should not have been started", i)
		}
	}
	for i, w := range want.Roots {
		if why := differ(got.Roots[i], w); why != "" {
			complain("root %d: %s", i, why)
		}
	}
	return errors.Join(errs...)
}
