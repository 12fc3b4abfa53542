package core

import (
	"fmt"
	"reflect"
	"runtime"
)

// Name returns what the call is called in reports: the name it was given, or
// that of its function.
func (c *Call) Name() string { return c.title().String() }

// title returns what c is called.
func (c *Call) title() label {
	if !c.task {
		return c.label
	}
	if l := c.promise().label; l != nil {
		return *l
	}
	return label{pc: c.body.(interface{ PC() uintptr }).PC()}
}

// knowsPC reports whether the body of c knows that it is to be called after the function
// with the entry pc.
func (c *Call) knowsPC(pc uintptr) bool {
	b, ok := c.body.(interface{ PC() uintptr })
	return ok && b.PC() == pc
}

// String returns the name, or else that of the function.
func (l label) String() string {
	if l.name != "" {
		return l.name
	}
	if l.pc != 0 {
		if f := runtime.FuncForPC(l.pc); f != nil {
			return f.Name()
		}
	}
	return "call"
}

// called is what errors call t: its name, or where its context was made.
func (t *Thread) called() string {
	switch {
	case t.name != "":
		return t.name
	case t.made != 0:
		return fmt.Sprintf("thread (made in %s)", siteOf(t.made))
	}
	return "thread"
}

// Name returns what the scope was named.
func (s *Scope) Name() string {
	if s.cfg.Name != "" {
		return s.cfg.Name
	}
	return s.root.cfg.Name
}

// Describe returns what errors call the scope: its name, or else where it was made.
func (s *Scope) Describe() string {
	if s.Name() != "" || s.pc == 0 {
		return s.describe()
	}
	return "context made at " + siteOf(s.pc).String()
}

func (s *Scope) describe() string {
	if n := s.Name(); n != "" {
		return fmt.Sprintf("context %q", n)
	}
	return "context"
}

// label is what reports call t; a nil t is no thread.
func (t *Thread) label() string {
	if t == nil {
		return "goroutine"
	}
	if t.name != "" {
		return t.name
	}
	return "thread"
}

// FuncPC returns the entry of the function value fn, which it is named by in
// reports.
func FuncPC(fn any) uintptr { return reflect.ValueOf(fn).Pointer() }
