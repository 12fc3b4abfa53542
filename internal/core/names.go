package core

import (
	"fmt"
	"reflect"
)

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
func (s *Scope) Describe() string { return contextCalled(s.Name(), s.pc) }

func (s *Scope) describe() string { return contextCalled(s.Name(), 0) }

// contextCalled is what errors call a context with that name, which was made at the
// address pc, 0 if that does not matter.
func contextCalled(name string, pc uintptr) string {
	switch {
	case name != "":
		return fmt.Sprintf("context %q", name)
	case pc != 0:
		return "context made at " + siteOf(pc).String()
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
