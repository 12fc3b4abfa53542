package vet

import (
	"go/ast"
	"go/token"
	"go/types"

	"asyncsync.dev/vet/internal/sites"
)

var handleEscape = newAnalyzer("handleescape", `find a handle's value that leaves its thread

The value of an asyncsync.Handle, or of an asyncsync.HandlePool, may be touched on
its thread alone. A function of Handle.Do, asyncsync.Get, HandlePool.Do,
asyncsync.GetFrom or Lease.Do must not return it, keep it in a variable from
outside, send it away, or use it on another goroutine: in a go statement, a task,
or async code that it calls.`, runHandleEscape)

// A lending is a function of the library that calls its function with a value
// of a handle or a pool.
type lending struct {
	of      string // whose the value is
	returns bool   // whether the caller gets what the function returns
}

var lends = map[sites.Name]lending{
	{Pkg: "asyncsync", Recv: "Handle", Name: "Do"}:     {"a handle", false},
	{Pkg: "asyncsync", Name: "Get"}:                    {"a handle", true},
	{Pkg: "asyncsync", Recv: "HandlePool", Name: "Do"}: {"a pool", false},
	{Pkg: "asyncsync", Name: "GetFrom"}:                {"a pool", true},
	{Pkg: "asyncsync", Recv: "Lease", Name: "Do"}:      {"a pool", false},
}

func runHandleEscape(p *pass) {
	seen := make(map[ast.Node]bool)
	for _, s := range p.sites.Sites {
		l, ok := lends[s.Name]
		if !ok || s.Fn == nil || seen[s.Fn] {
			continue
		}
		seen[s.Fn] = true
		v := p.secondParam(s.Fn)
		if v == nil || !refers(v.Type(), 0) {
			continue
		}
		p.escape(s, v, l)
	}
}

// secondParam returns the second parameter of fn, or nil if it has no name.
func (p *pass) secondParam(fn ast.Node) *types.Var {
	i := 0
	for _, field := range sites.Type(fn).Params.List {
		if len(field.Names) == 0 {
			i++
		}
		for _, name := range field.Names {
			if i++; i == 2 {
				v, _ := p.TypesInfo.Defs[name].(*types.Var)
				return v
			}
		}
	}
	return nil
}

// refers reports whether a copy of a value of type t leads to what the original
// leads to. A number is an independent copy, although it may be a C handle.
func refers(t types.Type, depth int) bool {
	switch u := t.Underlying().(type) {
	case *types.Basic:
		return u.Kind() == types.UnsafePointer
	case *types.Struct:
		for i := range u.NumFields() {
			if depth < 4 && refers(u.Field(i).Type(), depth+1) {
				return true
			}
		}
		return false
	case *types.Array:
		return refers(u.Elem(), depth+1)
	}
	return true
}

func (p *pass) escape(s *sites.Site, v *types.Var, l lending) {
	fn := s.Fn
	// The value has the names of the variables that it was assigned to inside.
	same := map[*types.Var]bool{v: true}
	names := []*types.Var{v}
	for len(names) > 0 {
		v := names[0]
		names = names[1:]
		for _, id := range p.sites.Uses(v) {
			if id.Pos() < fn.Pos() || id.Pos() >= fn.End() {
				continue
			}
			if w := p.escapes(s, id, l); w != nil && !same[w] {
				same[w] = true
				names = append(names, w)
			}
		}
	}
}

// escapes reports a use of the value that makes it leave its thread. If the
// value is assigned to a variable of the function there, escapes returns that
// variable.
func (p *pass) escapes(s *sites.Site, id *ast.Ident, lent lending) *types.Var {
	fn := s.Fn
	if what := p.elsewhere(id, s); what != "" {
		p.reportf(id, "%s, the value of %s, is used %s: only its thread may touch it", id.Name, lent.of, what)
		return nil
	}
	// The value itself, or where it stands in parentheses, a conversion, a
	// literal.
	var e ast.Expr = id
	for {
		switch up := p.sites.Parent(e).(type) {
		case *ast.ParenExpr:
			e = up
			continue
		case *ast.CompositeLit:
			e = up
			continue
		case *ast.KeyValueExpr:
			if up.Value == e {
				e = up
				continue
			}
		case *ast.UnaryExpr:
			if up.Op == token.AND {
				e = up
				continue
			}
		case *ast.CallExpr:
			if p.TypesInfo.Types[up.Fun].IsType() {
				e = up
				continue
			}
			if b, ok := p.TypesInfo.Uses[identOf(up.Fun)].(*types.Builtin); ok && b.Name() == "append" && up.Args[0] != e {
				e = up
				continue
			}
		case *ast.ReturnStmt:
			if lent.returns && p.sites.Func(up) == fn {
				p.reportf(id, "%s, the value of %s, is returned to another thread: return what is needed of it", id.Name, lent.of)
			}
		case *ast.SendStmt:
			if up.Value == e {
				p.reportf(id, "%s, the value of %s, is sent away: only its thread may touch it", id.Name, lent.of)
			}
		case *ast.AssignStmt:
			for i, r := range up.Rhs {
				if r != e || i >= len(up.Lhs) {
					continue
				}
				l := ast.Unparen(up.Lhs[i])
				root := p.sites.Root(l)
				if root == nil || root.Name() == "_" {
					return nil
				}
				inside := fn.Pos() <= root.Pos() && root.Pos() < fn.End()
				switch {
				case !inside:
					p.reportf(id, "%s, the value of %s, is kept in %s, which is there outside its thread", id.Name, lent.of, types.ExprString(l))
				case identOf(l) != nil && root != p.TypesInfo.Uses[id]:
					return root
				}
			}
		case *ast.ValueSpec:
			for i, r := range up.Values {
				if r == e && i < len(up.Names) {
					w, _ := p.TypesInfo.Defs[up.Names[i]].(*types.Var)
					return w
				}
			}
		}
		return nil
	}
}

// elsewhere says where a use of the value is, if it is not on the handle's
// thread.
func (p *pass) elsewhere(id *ast.Ident, s *sites.Site) string {
	// The arguments of a go statement are evaluated here, and go there.
	var e ast.Expr = id
	if sel, ok := p.sites.Parent(e).(*ast.SelectorExpr); ok && sel.X == e {
		if call, ok := p.sites.Parent(sel).(*ast.CallExpr); ok && call.Fun == ast.Expr(sel) {
			e = sel // its method is called
		}
	}
	if call, ok := p.sites.Parent(e).(*ast.CallExpr); ok {
		if _, ok := p.sites.Parent(call).(*ast.GoStmt); ok && p.sites.Where(call).Fn == s.Fn {
			return "by another goroutine"
		}
	}
	switch w := p.sites.Where(id); {
	case w.Fn == nil || w.Fn == s.Fn || w.Fn.Pos() <= s.Fn.Pos():
	case w.Role == sites.Plain:
		return "by another goroutine"
	case w.Role == sites.Async:
		return "in async code"
	case w.Role == sites.Loop:
		return "by a loop"
	}
	return ""
}
