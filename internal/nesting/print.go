package nesting

import (
	"fmt"
	"strings"
)

// Programs in print.

// String returns the program as an indented tree.
func (p *Program) String() string {
	var b strings.Builder
	for i, n := range p.Pools {
		fmt.Fprintf(&b, "pool%d: %+v\n", i, n)
	}
	for _, c := range p.Contexts {
		fmt.Fprintf(&b, "%v rank %.4g\n", c, c.rank)
	}
	for _, q := range p.Portals {
		fmt.Fprintf(&b, "%v\n", q)
	}
	for i, r := range p.Roots {
		fmt.Fprintf(&b, "root %d, ctx of %v:\n", i, r.Context)
		r.Body.write(&b, "  ")
	}
	return b.String()
}

func (b *Body) write(w *strings.Builder, indent string) {
	where := "async"
	if b.On != nil {
		where = "on " + b.On.String()
	}
	fmt.Fprintf(w, "%sb%d %s {\n", indent, b.ID, where)
	for _, o := range b.Ops {
		o.write(w, indent+"  ")
	}
	fmt.Fprintf(w, "%s} %v\n", indent, b.End)
}

func (o *Op) write(w *strings.Builder, indent string) {
	fmt.Fprintf(w, "%s#%d %v", indent, o.ID, o.Kind)
	if o.Portal != nil {
		fmt.Fprintf(w, " %v", o.Portal)
	}
	if f := o.operation().print; f != nil {
		w.WriteString(f(o))
	}
	if o.Wrapper {
		w.WriteString(" wrapper")
	}
	if o.Place != placeUsual {
		fmt.Fprintf(w, ", %v", o.Place)
	}
	if o.Loop > 0 {
		fmt.Fprintf(w, " loop %d", o.Loop)
	}
	if o.Limiter != nil {
		fmt.Fprintf(w, ", %v", o.Limiter)
		if o.Again {
			fmt.Fprint(w, " again")
		}
	}
	if o.Options != 0 {
		fmt.Fprintf(w, " options %b", o.Options)
	}
	if o.Catch {
		w.WriteString(" catch")
	}
	w.WriteString("\n")
	if o.Body != nil {
		o.Body.write(w, indent+"  ")
	}
	for _, b := range o.Bodies {
		b.write(w, indent+"  ")
	}
	if o.Between != nil {
		fmt.Fprintf(w, "%s between:\n", indent)
		o.Between.write(w, indent+"  ")
	}
}

// For operation.print.

func printOn(o *Op) string { return fmt.Sprintf(" %v", o.On) }

func printTarget(o *Op) string { return fmt.Sprintf(" %v %v", o.Target, o.On) }

func printTargetAndN(o *Op) string { return fmt.Sprintf(" %v %d", o.Target, o.N) }

func printAdopted(o *Op) string {
	if o.On == nil {
		return ""
	}
	return fmt.Sprintf(" adopts %v", o.On)
}

func printTask(o *Op) string { return fmt.Sprintf(" for #%d", o.Task.ID) }

func printQueued(o *Op) (s string) {
	if o.Queued {
		s = fmt.Sprintf(" queued %v %v", o.Target, o.On)
	}
	if o.Detached {
		s += " detached"
	}
	return s
}
