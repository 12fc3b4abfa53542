package vet

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"

	"golang.org/x/tools/go/analysis"

	"asyncsync.dev/vet/internal/sites"
)

var outerCtx = newAnalyzer("outerctx", `find a ctx from outside in a function that was given its own

A function that is given to the library gets a ctx, which says who calls. Calls
that it makes with a ctx from around it belong to somebody else: a thread that is
blocked for the function takes them for a stranger's, and does not serve them.
Cancelling the function does not reach them either.`, runOuterCtx)

// runOuterCtx looks at literals only: a declared function has no ctx around it.
func runOuterCtx(p *pass) {
	seen := make(map[ast.Node]bool)
	for _, s := range p.sites.Sites {
		lit, ok := s.Fn.(*ast.FuncLit)
		if !ok || !s.Own || seen[lit] {
			continue
		}
		seen[lit] = true
		p.outerCtx(s, lit)
	}
}

func (p *pass) outerCtx(s *sites.Site, lit *ast.FuncLit) {
	own := p.sites.CtxParam(lit)
	from, detached := p.sites.Handed(s)
	known := from != nil || detached
	type use struct {
		id    *ast.Ident
		v     *types.Var
		exact bool // the function's own ctx was made of this one
	}
	var found []use
	others := make(map[*types.Var]bool) // outer ones used in ways that are no mistake
	ast.Inspect(lit.Body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			// Who calls it with which ctx is its own business.
			return !p.sites.Takes(n)
		case *ast.Ident:
			v, ok := p.TypesInfo.Uses[n].(*types.Var)
			if !ok || v.IsField() || !sites.IsContext(v.Type()) || v.Parent() == v.Pkg().Scope() || lit.Pos() <= v.Pos() && v.Pos() < lit.End() {
				return true
			}
			if !p.handsOn(n) {
				others[v] = true
				return true
			}
			exact := p.isAbove(v, from)
			if !p.sites.KnowsNothing(v) && (exact || !p.patience(n) && p.related(v, from, known)) {
				found = append(found, use{n, v, exact})
			} else {
				others[v] = true
			}
		}
		return true
	})
	renamed := false
	for _, u := range found {
		d := analysis.Diagnostic{Pos: u.id.Pos(), End: u.id.End()}
		if own != nil {
			d.Message = fmt.Sprintf("%s is from outside: use %s, which this function was given", u.id.Name, own.Name())
		} else {
			d.Message = fmt.Sprintf("%s is from outside: use the ctx that this function is given", u.id.Name)
		}
		switch {
		case !u.exact:
			// Which other properties it has, a deadline say, is not known.
		case own != nil:
			if p.sees(u.id.Pos(), own) {
				d.SuggestedFixes = []analysis.SuggestedFix{{
					Message:   "Use " + own.Name(),
					TextEdits: []analysis.TextEdit{{Pos: u.id.Pos(), End: u.id.End(), NewText: []byte(own.Name())}},
				}}
			}
		case !renamed && !others[u.v]:
			// The name of the outer one for its own has all uses mean that. One
			// fix is enough: a second would make the same change.
			renamed = true
			for _, o := range found {
				if o.v.Name() == u.v.Name() && (o.v != u.v || !o.exact) {
					renamed = false
				}
			}
			if edits := nameCtx(p.sites, lit.Type, u.v.Name()); renamed && edits != nil {
				d.SuggestedFixes = []analysis.SuggestedFix{{Message: "Name the function's own ctx " + u.v.Name(), TextEdits: edits}}
			}
		}
		p.report(d)
	}
}

// handsOn reports whether id is an argument that is used as a ctx. Reading the
// values, the end or the cause of a ctx is no mistake, nor is detaching it.
func (p *pass) handsOn(id *ast.Ident) bool {
	var arg ast.Expr = id
	for {
		paren, ok := p.sites.Parent(arg).(*ast.ParenExpr)
		if !ok {
			break
		}
		arg = paren
	}
	call, ok := p.sites.Parent(arg).(*ast.CallExpr)
	if !ok || call.Fun == arg {
		return false
	}
	sig, ok := p.TypesInfo.TypeOf(call.Fun).Underlying().(*types.Signature)
	if !ok {
		return false
	}
	for i, a := range call.Args {
		if a == arg && (i >= sig.Params().Len() || !sites.IsContext(sig.Params().At(i).Type())) {
			return false
		}
	}
	f := sites.Callee(p.TypesInfo, call)
	if f == nil || f.Pkg() == nil {
		return true
	}
	switch f.Pkg().Path() {
	case "context":
		return f.Name() != "Cause" && f.Name() != "AfterFunc"
	case "log/slog":
		return false
	}
	n, _ := sites.NameOf(f)
	return n.Name != "Detach"
}

// patience reports whether the ctx id only says how long something waits. There
// the goroutine says who calls.
func (p *pass) patience(id *ast.Ident) bool {
	call, ok := p.sites.Parent(id).(*ast.CallExpr)
	if !ok {
		return false
	}
	n, _ := sites.Library(p.TypesInfo, call)
	switch n.Name {
	case "Wait", "WaitOrCancel", "Shutdown":
		return true
	}
	return false
}

// isAbove reports whether v is from, or from was derived from it.
func (p *pass) isAbove(v, from *types.Var) bool {
	for range 32 {
		if from == nil {
			return false
		}
		if from == v {
			return true
		}
		from, _ = p.sites.Above(from)
	}
	return false
}

// related reports whether v stands for a caller around the function: it was
// derived from what the function's own ctx was derived from, or a surrounding
// function was given it; and no new context or detached ctx came in between.
func (p *pass) related(v, from *types.Var, known bool) bool {
	for range 32 {
		if from != nil && p.isAbove(v, from) {
			return true
		}
		for _, d := range p.sites.Defs(v) {
			call, ok := d.X.(*ast.CallExpr)
			if !ok {
				continue
			}
			n, ok := sites.NameOf(sites.Callee(p.TypesInfo, call))
			if ok && n.Name == "NewThreadSensitiveContext" {
				return false // asks for another thread
			}
			f := sites.Callee(p.TypesInfo, call)
			if f != nil && f.Pkg() != nil && f.Pkg().Path() == "context" && f.Name() == "WithoutCancel" {
				return false // says that it is to last
			}
		}
		for _, s := range p.sites.Sites {
			if s.Role == sites.Inline && s.Fn != nil && p.sites.CtxParam(s.Fn) == v {
				return false // so does WithThreadSensitiveContext
			}
		}
		up, detached := p.sites.Above(v)
		if detached {
			return false
		}
		if up == nil {
			// A function around has it as its parameter. If what is given the
			// function says no ctx it will be another one.
			return !known && len(p.sites.Defs(v)) == 0
		}
		v = up
	}
	return false
}

// sees reports whether the name of v refers to v at pos.
func (p *pass) sees(pos token.Pos, v *types.Var) bool {
	scope := p.Pkg.Scope().Innermost(pos)
	if scope == nil {
		return false
	}
	_, obj := scope.LookupParent(v.Name(), pos)
	return obj == v
}

// nameCtx returns the edits that give the ctx parameter, which has no name, that
// one.
func nameCtx(r *sites.Result, t *ast.FuncType, name string) (edits []analysis.TextEdit) {
	done := false
	for _, field := range t.Params.List {
		ctx := sites.IsContext(r.Info().TypeOf(field.Type)) && !done
		switch {
		case len(field.Names) == 0 && ctx:
			edits = append(edits, analysis.TextEdit{Pos: field.Type.Pos(), End: field.Type.Pos(), NewText: []byte(name + " ")})
			done = true
		case len(field.Names) == 0:
			edits = append(edits, analysis.TextEdit{Pos: field.Type.Pos(), End: field.Type.Pos(), NewText: []byte("_ ")})
		case ctx:
			for _, id := range field.Names {
				if id.Name == "_" && !done {
					edits = append(edits, analysis.TextEdit{Pos: id.Pos(), End: id.End(), NewText: []byte(name)})
					done = true
				}
			}
		}
		for _, id := range field.Names {
			if id.Name == name {
				return nil
			}
		}
	}
	if !done {
		return nil
	}
	return edits
}
