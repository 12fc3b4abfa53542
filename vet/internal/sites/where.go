package sites

import (
	"go/ast"
	"go/token"
	"go/types"
)

// Parent returns the node around n.
func (r *Result) Parent(n ast.Node) ast.Node { return r.parents[n] }

// Info returns the types of the package.
func (r *Result) Info() *types.Info { return r.info }

// Defs returns the values that the package assigns to the variable.
func (r *Result) Defs(v types.Object) []Def { return r.defs[v] }

// Uses returns where the package names the object, except for its declaration.
func (r *Result) Uses(v types.Object) []*ast.Ident { return r.uses[v] }

// Decl returns the declaration of f in the package, or nil.
func (r *Result) Decl(f *types.Func) *ast.FuncDecl { return r.decls[f] }

// SitesOf returns the sites of a function literal or declaration.
func (r *Result) SitesOf(fn ast.Node) []*Site { return r.byFn[fn] }

// Func returns the innermost function around n, not counting n itself.
func (r *Result) Func(n ast.Node) ast.Node {
	for n = r.parents[n]; n != nil; n = r.parents[n] {
		switch n.(type) {
		case *ast.FuncLit, *ast.FuncDecl:
			return n
		}
	}
	return nil
}

// Body returns the body of a function.
func Body(fn ast.Node) *ast.BlockStmt {
	switch fn := fn.(type) {
	case *ast.FuncLit:
		return fn.Body
	case *ast.FuncDecl:
		return fn.Body
	}
	return nil
}

// Type returns the type of a function.
func Type(fn ast.Node) *ast.FuncType {
	switch fn := fn.(type) {
	case *ast.FuncLit:
		return fn.Type
	case *ast.FuncDecl:
		return fn.Type
	}
	return nil
}

// CtxParam returns the parameter of fn that is a context.Context and has a
// name, or nil.
func (r *Result) CtxParam(fn ast.Node) *types.Var {
	t := Type(fn)
	if t == nil {
		return nil
	}
	for _, field := range t.Params.List {
		if !IsContext(r.info.TypeOf(field.Type)) {
			continue
		}
		for _, name := range field.Names {
			if v, ok := r.info.Defs[name].(*types.Var); ok && name.Name != "_" {
				return v
			}
		}
		return nil
	}
	return nil
}

// Takes reports whether fn has a parameter that is a context.Context.
func (r *Result) Takes(fn ast.Node) bool {
	if t := Type(fn); t != nil {
		for _, field := range t.Params.List {
			if IsContext(r.info.TypeOf(field.Type)) {
				return true
			}
		}
	}
	return false
}

// A Place is where a piece of code runs.
type Place struct {
	Role Role
	Fn   ast.Node // the function that is given away, or started, or declared
	Site *Site    // nil if it is not given away
}

// Where returns where n runs: in the function of a site, on a plain goroutine,
// or in a function of which nothing is known. A function literal that is called
// on the spot, deferred, or kept in a variable that is only called runs where
// it is.
func (r *Result) Where(n ast.Node) Place {
	for fn := r.Func(n); fn != nil; fn = r.Func(fn) {
		if ss := r.byFn[fn]; len(ss) > 0 {
			s := ss[0]
			for _, o := range ss[1:] {
				if o.Role != s.Role || o.Kind != s.Kind {
					return Place{Unknown, fn, nil}
				}
				if o.Long {
					s = o
				}
			}
			if s.Role == Inline {
				continue
			}
			return Place{s.Role, fn, s}
		}
		lit, ok := fn.(*ast.FuncLit)
		if !ok {
			return Place{Unknown, fn, nil}
		}
		switch r.use(lit, 0) {
		case Plain:
			return Place{Plain, fn, nil}
		case Unknown:
			return Place{Unknown, fn, nil}
		}
	}
	return Place{}
}

// use returns how a literal that is no site is run: Inline, Plain or Unknown.
func (r *Result) use(e ast.Expr, depth int) Role {
	p := r.parents[e]
	if paren, ok := p.(*ast.ParenExpr); ok {
		return r.use(paren, depth)
	}
	switch p := p.(type) {
	case *ast.CallExpr:
		if p.Fun == e {
			if _, ok := r.parents[p].(*ast.GoStmt); ok {
				return Plain
			}
			return Inline
		}
		if Starts(r.info, p) {
			return Plain
		}
		// The library's functions without a ctx of their own: options and the
		// like, which run elsewhere.
	case *ast.AssignStmt, *ast.ValueSpec:
		if depth > 0 {
			return Unknown
		}
		var v *types.Var
		switch p := p.(type) {
		case *ast.AssignStmt:
			if len(p.Lhs) == 1 && len(p.Rhs) == 1 && p.Tok == token.DEFINE {
				v = r.Var(p.Lhs[0])
			}
		case *ast.ValueSpec:
			if len(p.Names) == 1 && len(p.Values) == 1 {
				v = r.Var(p.Names[0])
			}
		}
		if v == nil || len(r.defs[v]) != 1 {
			return Unknown
		}
		for _, id := range r.uses[v] {
			if r.use(id, depth+1) != Inline {
				return Unknown
			}
		}
		return Inline
	}
	return Unknown
}

// Starts reports whether call starts its argument on a plain goroutine:
// sync.WaitGroup.Go, errgroup.Group.Go and TryGo.
func Starts(info *types.Info, call *ast.CallExpr) bool {
	f := Callee(info, call)
	if f == nil || f.Name() != "Go" && f.Name() != "TryGo" {
		return false
	}
	recv := f.Signature().Recv()
	return recv != nil && (IsType(recv.Type(), "sync", "WaitGroup") || IsType(recv.Type(), "golang.org/x/sync/errgroup", "Group"))
}

// Given returns the innermost site whose function n is in. It returns nil if
// there is none, or if a function of which nothing is known comes first.
func (r *Result) Given(n ast.Node) *Site {
	for fn := r.Func(n); fn != nil; fn = r.Func(fn) {
		if ss := r.byFn[fn]; len(ss) > 0 {
			return ss[0]
		}
		lit, ok := fn.(*ast.FuncLit)
		if !ok || r.use(lit, 0) != Inline {
			return nil
		}
	}
	return nil
}

// Parents of a ctx.

// Above returns the ctx from which v was made: the ctx that the call was given
// whose function has v as its own, or the ctx that v was derived from. It
// returns nil if that is not known, and if v is detached: made from
// context.Background or by asyncsync.Detach.
func (r *Result) Above(v *types.Var) (from *types.Var, detached bool) {
	if defs := r.defs[v]; len(defs) > 0 {
		for _, d := range defs {
			u, det := r.source(d.X)
			if det {
				return nil, true
			}
			if u != nil && u != v {
				return u, false
			}
		}
		return nil, false
	}
	for _, s := range r.Sites {
		if s.Fn == nil || !s.Own || r.CtxParam(s.Fn) != v {
			continue
		}
		return r.Handed(s)
	}
	return nil, false
}

// KnowsNothing reports whether v was made from context.Background or TODO
// alone. Such a ctx does not tell the library who calls: the goroutine does.
func (r *Result) KnowsNothing(v *types.Var) bool {
	for range 32 {
		defs := r.defs[v]
		if len(defs) != 1 {
			return false
		}
		e := defs[0].X
		for {
			call, ok := ast.Unparen(e).(*ast.CallExpr)
			if !ok {
				break
			}
			f := Callee(r.info, call)
			if f == nil || f.Pkg() == nil || f.Pkg().Path() != "context" {
				return false
			}
			if len(call.Args) == 0 {
				return f.Name() == "Background" || f.Name() == "TODO"
			}
			e = call.Args[0]
		}
		id, ok := ast.Unparen(e).(*ast.Ident)
		if !ok {
			return false
		}
		if v, _ = r.info.ObjectOf(id).(*types.Var); v == nil {
			return false
		}
	}
	return false
}

// Handed returns the ctx that the call of s was given. For a function of a
// group that is the ctx that NewGroup returned or, if that is not known, was
// given.
func (r *Result) Handed(s *Site) (from *types.Var, detached bool) {
	if s.Ctx != nil {
		return r.source(s.Ctx)
	}
	sel, ok := ast.Unparen(s.Call.Fun).(*ast.SelectorExpr)
	if !ok {
		return nil, false
	}
	g := r.Var(sel.X)
	if g == nil {
		return nil, false
	}
	defs := r.defs[g]
	if len(defs) != 1 || defs[0].Index != 1 {
		return nil, false
	}
	call, ok := defs[0].X.(*ast.CallExpr)
	if !ok {
		return nil, false
	}
	if as, ok := r.parents[call].(*ast.AssignStmt); ok && len(as.Lhs) == 2 {
		if v := r.Var(as.Lhs[0]); v != nil && v.Name() != "_" {
			return v, false
		}
	}
	return r.source(call)
}

// source returns the variable that a ctx expression was derived from. detached
// reports that there is none on purpose: the ctx was detached, or made from
// nothing.
func (r *Result) source(e ast.Expr) (from *types.Var, detached bool) {
	for range 8 {
		switch x := ast.Unparen(e).(type) {
		case *ast.Ident:
			v, _ := r.info.ObjectOf(x).(*types.Var)
			if v == nil || v.IsField() || !IsContext(v.Type()) {
				return nil, false
			}
			if r.KnowsNothing(v) {
				return nil, true
			}
			return v, false
		case *ast.CallExpr:
			f := Callee(r.info, x)
			if n, ok := NameOf(f); ok && n.Name == "Detach" {
				return nil, true
			}
			if f != nil && (f.FullName() == "context.Background" || f.FullName() == "context.TODO") {
				return nil, true
			}
			e = nil
			for _, a := range x.Args {
				if IsContext(r.info.TypeOf(a)) {
					e = a
					break
				}
			}
			if e == nil {
				return nil, false
			}
		default:
			return nil, false
		}
	}
	return nil, false
}

// DerivedFrom reports whether ctx expression e is v or was derived from it
// through contexts and functions that were given one, without being detached.
func (r *Result) DerivedFrom(e ast.Expr, v *types.Var) bool {
	if v == nil || e == nil || !IsContext(r.info.TypeOf(e)) {
		return false
	}
	u, _ := r.source(e)
	for range 32 {
		if u == nil {
			return false
		}
		if u == v {
			return true
		}
		u, _ = r.Above(u)
	}
	return false
}

// Root returns the variable at the root of a chain of selections, or nil if the
// root is something else.
func (r *Result) Root(e ast.Expr) *types.Var {
	for {
		switch x := ast.Unparen(e).(type) {
		case *ast.Ident:
			v, _ := r.info.ObjectOf(x).(*types.Var)
			return v
		case *ast.SelectorExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.UnaryExpr:
			if x.Op != token.AND {
				return nil
			}
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		default:
			return nil
		}
	}
}
