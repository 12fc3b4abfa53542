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
