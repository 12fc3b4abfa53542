package vet

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/passes/ctrlflow"
	"golang.org/x/tools/go/analysis/passes/inspect"
	"golang.org/x/tools/go/ast/inspector"
	"golang.org/x/tools/go/cfg"

	"asyncsync.dev/vet/internal/sites"
)

var lostClose = newAnalyzer("lostclose", `find contexts, handles and pools that are not closed

What asyncsync.NewThreadSensitiveContext, Open and NewThreadPool return is to be
closed on every path. A context that is not keeps its thread until it is
collected, and a handle its value; a pool keeps idle threads.`, runLostClose, ctrlflow.Analyzer)

// opened says what the functions of the library return that is to be closed.
var opened = map[sites.Name]opening{
	{Pkg: "asyncsync", Name: "NewThreadSensitiveContext"}: {"context", 1, -1},
	{Pkg: "asyncsync", Name: "Open"}:                      {"handle", 0, 1},
	{Pkg: "asyncsync", Name: "NewThreadPool"}:             {"pool", 0, -1},
}

// An opening is what a function returns that is to be given back: what it is called,
// which of the results it is, and which the error is, -1 if none.
type opening struct {
	what        string
	result, err int
}

// A losing looks for what is opened and not given back.
type losing struct {
	*pass
	opened map[sites.Name]opening
	gives  []string // the methods that give it back
	given  string   // what it is then
}

func runLostClose(p *pass) {
	(&losing{p, opened, []string{"Close", "Shutdown"}, "closed"}).run()
}

func (p *losing) run() {
	in := p.ResultOf[inspect.Analyzer].(*inspector.Inspector)
	in.Preorder([]ast.Node{(*ast.CallExpr)(nil)}, func(n ast.Node) {
		call := n.(*ast.CallExpr)
		name, _ := sites.NameOf(sites.Callee(p.TypesInfo, call))
		o, ok := p.opened[name]
		if !ok {
			return
		}
		by := name.Pkg + "." + name.Name
		if name.Recv != "" {
			by = name.Recv + "." + name.Name
		}
		var lhs, errVar ast.Expr
		switch stmt := p.sites.Parent(call).(type) {
		case *ast.ExprStmt:
			p.reportf(call, "the %s that %s returns is dropped, and never %s", o.what, by, p.given)
			return
		case *ast.AssignStmt:
			if len(stmt.Rhs) != 1 || len(stmt.Lhs) <= max(o.result, o.err) {
				return
			}
			lhs = stmt.Lhs[o.result]
			if o.err >= 0 {
				errVar = stmt.Lhs[o.err]
			}
		case *ast.ValueSpec:
			if len(stmt.Values) != 1 || len(stmt.Names) <= max(o.result, o.err) {
				return
			}
			lhs = stmt.Names[o.result]
			if o.err >= 0 {
				errVar = stmt.Names[o.err]
			}
		default:
			return
		}
		id, ok := lhs.(*ast.Ident)
		if !ok {
			return
		}
		if id.Name == "_" {
			p.reportf(id, "the %s that %s returns is dropped, and never %s", o.what, by, p.given)
			return
		}
		v, ok := p.TypesInfo.ObjectOf(id).(*types.Var)
		fn := p.sites.Func(call)
		if !ok || fn == nil || v.Parent() == p.Pkg.Scope() || v.Pos() < fn.Pos() || v.Pos() >= fn.End() {
			return // it lives on elsewhere
		}
		if t := sites.Type(fn); t.Results != nil && v.Pos() >= t.Results.Pos() && v.Pos() < t.Results.End() {
			return // it is a result
		}
		p.lost(call, id, v, o.what, fn, errVar)
	})
}

func (p *losing) lost(call *ast.CallExpr, id *ast.Ident, v *types.Var, what string, fn ast.Node, errVar ast.Expr) {
	closing := make(map[*ast.Ident]bool)
	for _, use := range p.sites.Uses(v) {
		if use != id && !p.keeps(use) {
			closing[use] = true
		}
	}
	if len(closing) == 0 {
		p.report(analysis.Diagnostic{
			Pos: id.Pos(), End: id.End(),
			Message:        fmt.Sprintf("the %s %s is never %s", what, v.Name(), p.given),
			SuggestedFixes: p.deferClose(call, v),
		})
		return
	}
	// What main opens ends with the process, unless somebody gives it back earlier.
	if decl, ok := fn.(*ast.FuncDecl); ok && decl.Name.Name == "main" && decl.Recv == nil && p.Pkg.Name() == "main" {
		return
	}
	var g *cfg.CFG
	cfgs := p.ResultOf[ctrlflow.Analyzer].(*ctrlflow.CFGs)
	switch fn := fn.(type) {
	case *ast.FuncDecl:
		g = cfgs.FuncDecl(fn)
	case *ast.FuncLit:
		g = cfgs.FuncLit(fn)
	}
	if ret := p.leaks(g, call, v, closing, errVar); ret != nil {
		p.report(analysis.Diagnostic{
			Pos: id.Pos(), End: id.End(),
			Message: fmt.Sprintf("the %s %s is not %s on every path: see the return in line %d", what, v.Name(), p.given, p.Fset.Position(ret.Pos()).Line),
			Related: []analysis.RelatedInformation{{Pos: ret.Pos(), End: ret.End(), Message: "this return is reached, and it is not"}},
		})
	}
}

// keeps reports whether a use of what is to be given back neither does so nor
// gives it to somebody who may.
func (p *losing) keeps(id *ast.Ident) bool {
	switch up := p.sites.Parent(id).(type) {
	case *ast.SelectorExpr:
		if up.X != ast.Expr(id) {
			return false
		}
		call, ok := p.sites.Parent(up).(*ast.CallExpr)
		return ok && call.Fun == ast.Expr(up) && !slices.Contains(p.gives, up.Sel.Name)
	case *ast.CallExpr:
		name, ok := sites.Library(p.TypesInfo, up)
		return ok && name.Name != "Func"
	case *ast.BinaryExpr:
		return true
	case *ast.AssignStmt:
		// Given another value, or to nobody.
		for _, l := range up.Lhs {
			if l == ast.Expr(id) {
				return true
			}
		}
		return len(up.Lhs) == 1 && len(up.Rhs) == 1 && isBlank(up.Lhs[0])
	}
	return false
}

func isBlank(e ast.Expr) bool {
	id := identOf(e)
	return id != nil && id.Name == "_"
}

// deferClose is the fix for a context that only this function uses: a deferred
// Close on the next line. For a handle it belongs below the check of the error,
// and the contexts of a pool may outlive the function.
func (p *pass) deferClose(call *ast.CallExpr, v *types.Var) []analysis.SuggestedFix {
	stmt, ok := p.sites.Parent(call).(*ast.AssignStmt)
	if !ok || len(stmt.Lhs) != 2 {
		return nil
	}
	name, _ := sites.NameOf(sites.Callee(p.TypesInfo, call))
	if fn := p.sites.Func(call); name.Name != "NewThreadSensitiveContext" || p.sites.Parent(stmt) != ast.Node(sites.Body(fn)) {
		return nil
	}
	ctx := p.sites.Var(stmt.Lhs[0])
	if ctx == nil {
		return nil
	}
	for _, id := range p.sites.Uses(ctx) {
		if id.Pos() < stmt.End() {
			continue
		}
		if up, ok := p.sites.Parent(id).(*ast.CallExpr); !ok || p.sites.Func(up) != p.sites.Func(call) {
			return nil // it may get about
		}
	}
	return []analysis.SuggestedFix{{
		Message:   "Defer its Close",
		TextEdits: []analysis.TextEdit{{Pos: stmt.End(), End: stmt.End(), NewText: []byte("\ndefer " + v.Name() + ".Close()")}},
	}}
}

// leaks returns a return statement that can be reached from the call without
// one of the closing uses, or nil. If the error of the call is not nil there is
// nothing to close. A path ends where the error is looked at in a way that is not
// understood: what comes after it may be reached with the error alone.
func (p *pass) leaks(g *cfg.CFG, call *ast.CallExpr, v *types.Var, closing map[*ast.Ident]bool, errVar ast.Expr) *ast.ReturnStmt {
	if g == nil {
		return nil
	}
	closes := func(n ast.Node) (found bool) {
		ast.Inspect(n, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok && closing[id] {
				found = true
			}
			return !found
		})
		return found
	}
	var start *cfg.Block
	var rest []ast.Node
	for _, b := range g.Blocks {
		for i, n := range b.Nodes {
			if n.Pos() <= call.Pos() && call.End() <= n.End() && start == nil {
				start, rest = b, b.Nodes[i+1:]
			}
		}
	}
	if start == nil {
		return nil
	}
	var errs []*types.Var // the variables that have the error of the call, in the order of the text
	if errVar != nil && !isBlank(errVar) {
		if e := p.sites.Var(errVar); e != nil {
			errs = append(errs, e)
		}
	}
	// Paths that come to a block with the same errs go on alike.
	type place struct {
		block *cfg.Block
		errs  string
	}
	seen := make(map[place]bool)
	var search func(b *cfg.Block, nodes []ast.Node, errs []*types.Var) *ast.ReturnStmt
	search = func(b *cfg.Block, nodes []ast.Node, errs []*types.Var) *ast.ReturnStmt {
		cond := condition(b)
		for _, n := range nodes {
			if closes(n) {
				return nil
			}
			if ret, ok := n.(*ast.ReturnStmt); ok {
				return ret
			}
			var ok bool
			if errs, ok = p.assigned(n, errs, v); !ok {
				return nil
			}
		}
		succs := b.Succs
		if cond != nil {
			switch p.withoutError(cond, errs, v) {
			case yes:
				succs = succs[:1]
			case no:
				succs = succs[1:]
			case unclear:
				return nil
			}
		}
		for _, s := range succs {
			at := place{s, positions(errs)}
			if seen[at] {
				continue
			}
			seen[at] = true
			if ret := search(s, s.Nodes, errs); ret != nil {
				return ret
			}
		}
		return nil
	}
	return search(start, rest, errs)
}

// assigned returns which variables have the error after n, if errs have it
// before. ok is false if n keeps what it finds out about the error, or about v, in a
// form that is not followed.
func (p *pass) assigned(n ast.Node, errs []*types.Var, v *types.Var) (after []*types.Var, ok bool) {
	var lhs, rhs []ast.Expr
	switch n := n.(type) {
	case *ast.AssignStmt:
		lhs, rhs = n.Lhs, n.Rhs
	case *ast.ValueSpec:
		for _, name := range n.Names {
			lhs = append(lhs, name)
		}
		rhs = n.Values
	case *ast.ExprStmt: // the x.(type) of a switch
		if x, ok := n.X.(*ast.TypeAssertExpr); ok && x.Type == nil {
			return errs, !p.asks(x.X, errs, v)
		}
		return errs, true
	default:
		return errs, true
	}
	after = slices.Clone(errs)
	for _, l := range lhs {
		if w := p.sites.Var(l); w != nil {
			after = slices.DeleteFunc(after, func(e *types.Var) bool { return e == w }) // another error from here on
		}
	}
	for i, r := range rhs {
		switch {
		case len(lhs) == len(rhs) && p.has(errs, r):
			if w := p.sites.Var(lhs[i]); w != nil && !slices.Contains(after, w) {
				after = append(after, w)
			}
		case p.asks(r, errs, v):
			return nil, false
		}
	}
	slices.SortFunc(after, func(a, b *types.Var) int { return int(a.Pos() - b.Pos()) })
	return after, true
}

// positions tells sets of variables apart.
func positions(vs []*types.Var) string {
	var b strings.Builder
	for _, v := range vs {
		fmt.Fprintf(&b, "%d ", v.Pos())
	}
	return b.String()
}

// asks reports whether the value of e may depend on the error, or on whether v
// is nil.
func (p *pass) asks(e ast.Expr, errs []*types.Var, v *types.Var) (found bool) {
	ast.Inspect(e, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Ident:
			found = found || p.has(errs, n)
		case *ast.SelectorExpr:
			found = found || p.has(errs, n)
		case *ast.BinaryExpr:
			found = found || p.sites.Var(n.X) == v || p.sites.Var(n.Y) == v
		}
		return !found
	})
	return found
}

// has reports whether e is one of errs.
func (p *pass) has(errs []*types.Var, e ast.Expr) bool {
	v := p.sites.Var(e)
	return v != nil && slices.Contains(errs, v)
}

// A holding says whether a condition holds if the call has returned no error.
type holding int

const (
	either  holding = iota // it does not depend on the error
	yes                    // it holds
	no                     // it does not
	unclear                // it may depend on the error, in a way that is not understood
)

func (h holding) not() holding {
	switch h {
	case yes:
		return no
	case no:
		return yes
	}
	return h
}

func (h holding) and(g holding) holding {
	switch {
	case h == no || g == no:
		return no
	case h == unclear || g == unclear:
		return unclear
	case h == yes:
		return g
	case g == yes:
		return h
	}
	return either
}

// withoutError says whether cond holds if errs are nil, so that v is what the
// call has opened.
func (p *pass) withoutError(cond ast.Expr, errs []*types.Var, v *types.Var) holding {
	if c, ok := p.sites.Parent(cond).(*ast.CaseClause); ok {
		if s, ok := p.sites.Parent(p.sites.Parent(c)).(*ast.SwitchStmt); ok && s.Tag != nil {
			switch {
			case p.has(errs, s.Tag) && !p.asks(cond, errs, v):
				return holds(isNil(p.TypesInfo, cond))
			case p.asks(s.Tag, errs, v), p.asks(cond, errs, v), p.sites.Var(s.Tag) == v:
				return unclear
			}
			return either
		}
	}
	switch cond := ast.Unparen(cond).(type) {
	case *ast.UnaryExpr:
		if cond.Op == token.NOT {
			return p.withoutError(cond.X, errs, v).not()
		}
	case *ast.BinaryExpr:
		x, y := cond.X, cond.Y
		switch cond.Op {
		case token.LAND:
			return p.withoutError(x, errs, v).and(p.withoutError(y, errs, v))
		case token.LOR:
			return p.withoutError(x, errs, v).not().and(p.withoutError(y, errs, v).not()).not()
		case token.EQL, token.NEQ:
			if p.has(errs, y) || isNil(p.TypesInfo, x) {
				x, y = y, x
			}
			other := p.sites.Var(y)
			switch {
			case p.has(errs, x) && isNil(p.TypesInfo, y):
				return holds(cond.Op == token.EQL)
			case p.has(errs, x) && other != nil && other.Pkg() != nil && other.Parent() == other.Pkg().Scope():
				return holds(cond.Op == token.NEQ) // a variable such as io.EOF is not nil
			case p.sites.Var(x) == v && isNil(p.TypesInfo, y):
				return holds(cond.Op == token.NEQ)
			}
		}
	case *ast.CallExpr:
		if f := sites.Callee(p.TypesInfo, cond); f != nil && len(cond.Args) == 2 {
			if name := f.FullName(); name == "errors.Is" || name == "errors.As" {
				if p.has(errs, cond.Args[0]) && !isNil(p.TypesInfo, cond.Args[1]) {
					return no
				}
			}
		}
	}
	if p.asks(cond, errs, v) {
		return unclear
	}
	return either
}

func holds(is bool) holding {
	if is {
		return yes
	}
	return no
}

func isNil(info *types.Info, e ast.Expr) bool { return info.Types[e].IsNil() }
