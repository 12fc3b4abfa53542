// Package sites finds the functions that a package passes to the library, and
// determines where they will run. The analyzers check what such functions do.
package sites

import (
	"go/ast"
	"go/token"
	"go/types"
	"reflect"
	"slices"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/passes/inspect"
	"golang.org/x/tools/go/ast/inspector"
)

// A Role is where a function runs.
type Role int

// The roles.
const (
	// Unknown means that an option or a caller is not known.
	Unknown Role = iota
	// Thread is sync code: it runs on a thread.
	Thread
	// Async is async code: it runs on a goroutine.
	Async
	// Loop is a task of a loop, or a function that is posted to one.
	Loop
	// Inline is the goroutine of the caller, with a ctx of its own.
	Inline
	// Plain is a goroutine of the program's own.
	Plain
)

// A LoopKind is what is known of the loop of a task.
type LoopKind int

// The kinds of loops.
const (
	AnyLoop    LoopKind = iota
	ThreadLoop          // loop.NewThread
	Goroutines          // loop.Goroutines: nobody is blocked by anybody
)

// A Site is one function that is passed to the library, directly or through
// functions that pass it on.
type Site struct {
	Call  *ast.CallExpr // that it is an argument of
	Fn    ast.Node      // a *ast.FuncLit, a *ast.FuncDecl of the package, or nil
	Role  Role
	Ctx   ast.Expr   // the ctx that the call is given, nil if none
	Own   bool       // whether the function gets a ctx of its own
	Name  Name       // of the function of the library; zero if it is handed on
	Kind  LoopKind   // of a task
	Long  bool       // asyncsync.LongRunning
	param *types.Var // of the enclosing function, if that is what is given
}

// Param returns the ctx parameter of the site's function, or nil if it has no
// name there.
func (r *Result) Param(s *Site) *types.Var { return r.CtxParam(s.Fn) }

// A Result is what is known of one package. It is empty if the package does not
// import the library, directly or indirectly.
type Result struct {
	Active bool // whether the library can be reached at all
	Sites  []*Site

	info    *types.Info
	byFn    map[ast.Node][]*Site
	parents map[ast.Node]ast.Node
	defs    map[types.Object][]Def
	uses    map[types.Object][]*ast.Ident
	decls   map[*types.Func]*ast.FuncDecl
	reaches func(*types.Func) bool
}

// A Def is one value that a variable is assigned: expression X, or its result
// number Index.
type Def struct {
	X     ast.Expr
	Index int // -1 if X has one value
	Of    int // how many it has
}

// A fact is what other packages learn about a function.
type fact struct {
	Params  []handed // functions that it hands on to the library
	Reaches bool     // it calls a thread with its ctx
}

type handed struct {
	Index, Ctx int // among the parameters; Ctx is -1 if there is none
	Role       Role
	Own        bool
	Kind       LoopKind
	Long       bool
}

func (*fact) AFact() {}

// Everywhere makes the analyzers also look at packages that cannot reach the
// library. It is for a test, which sets it before any analysis: nothing should
// be found.
var Everywhere bool

// Analyzer computes a *Result.
var Analyzer = &analysis.Analyzer{
	Name:       "asyncsyncsites",
	Doc:        "find the functions that are given to asyncsync",
	Requires:   []*analysis.Analyzer{inspect.Analyzer},
	Run:        run,
	ResultType: reflect.TypeFor[*Result](),
	FactTypes:  []analysis.Fact{new(fact)},
}

func run(pass *analysis.Pass) (any, error) {
	r := &Result{info: pass.TypesInfo}
	if !Everywhere && !below(pass.Pkg, make(map[*types.Package]bool)) {
		return r, nil
	}
	r.Active = true
	r.index(pass)
	facts := make(map[*types.Func]*fact)
	lookup := func(f *types.Func) *fact {
		if f == nil {
			return nil
		}
		if f.Pkg() == pass.Pkg {
			return facts[f]
		}
		var imported fact
		if !pass.ImportObjectFact(f, &imported) {
			return nil
		}
		return &imported
	}
	r.reaches = func(f *types.Func) bool { x := lookup(f); return x != nil && x.Reaches }
	// A function that hands a parameter on makes sites of its callers'
	// arguments, which may be parameters in turn: until nothing is new. Every
	// round but the last adds a parameter of some function to the facts.
	for {
		r.find(pass, lookup)
		if !r.learn(pass, facts) {
			break
		}
	}
	for f, x := range facts {
		slices.SortFunc(x.Params, func(a, b handed) int { return a.Index - b.Index })
		pass.ExportObjectFact(f, x)
	}
	return r, nil
}

// below reports whether p is a package of the library or imports one.
func below(p *types.Package, seen map[*types.Package]bool) bool {
	if p == nil || seen[p] {
		return false
	}
	seen[p] = true
	if packages[p.Path()] {
		return true
	}
	for _, q := range p.Imports() {
		if below(q, seen) {
			return true
		}
	}
	return false
}

// index records parents, definitions and uses.
func (r *Result) index(pass *analysis.Pass) {
	r.parents = make(map[ast.Node]ast.Node)
	r.defs = make(map[types.Object][]Def)
	r.uses = make(map[types.Object][]*ast.Ident)
	r.decls = make(map[*types.Func]*ast.FuncDecl)
	for _, f := range pass.Files {
		var stack []ast.Node
		ast.Inspect(f, func(n ast.Node) bool {
			if n == nil {
				stack = stack[:len(stack)-1]
				return true
			}
			if len(stack) > 0 {
				r.parents[n] = stack[len(stack)-1]
			}
			stack = append(stack, n)
			switch n := n.(type) {
			case *ast.FuncDecl:
				if f, ok := r.info.Defs[n.Name].(*types.Func); ok {
					r.decls[f] = n
				}
			case *ast.AssignStmt:
				r.assign(n.Lhs, n.Rhs)
			case *ast.ValueSpec:
				lhs := make([]ast.Expr, len(n.Names))
				for i, name := range n.Names {
					lhs[i] = name
				}
				r.assign(lhs, n.Values)
			case *ast.RangeStmt:
				r.assign([]ast.Expr{n.Key, n.Value}, []ast.Expr{n.X})
			case *ast.KeyValueExpr:
				if id, ok := n.Key.(*ast.Ident); ok {
					if v, ok := r.info.Uses[id].(*types.Var); ok && v.IsField() {
						r.defs[v] = append(r.defs[v], Def{n.Value, -1, 1})
					}
				}
			case *ast.UnaryExpr:
				// What has its address taken may be set anywhere.
				if n.Op == token.AND {
					if v := r.Var(n.X); v != nil {
						r.defs[v] = append(r.defs[v], Def{})
					}
				}
			case *ast.Ident:
				if obj := r.info.Uses[n]; obj != nil {
					r.uses[obj] = append(r.uses[obj], n)
				}
			}
			return true
		})
	}
}

func (r *Result) assign(lhs, rhs []ast.Expr) {
	for i, l := range lhs {
		v := r.Var(l)
		if v == nil {
			continue
		}
		var d Def
		switch {
		case len(rhs) == len(lhs):
			d = Def{rhs[i], -1, 1}
		case len(rhs) == 1:
			d = Def{rhs[0], i, len(lhs)}
		default: // var x T
			continue
		}
		r.defs[v] = append(r.defs[v], d)
	}
}

// Var returns the variable or field that e names, or nil if it is anything
// else.
func (r *Result) Var(e ast.Expr) *types.Var {
	switch e := e.(type) {
	case *ast.Ident:
		v, _ := r.info.ObjectOf(e).(*types.Var)
		return v
	case *ast.SelectorExpr:
		v, _ := r.info.Uses[e.Sel].(*types.Var)
		return v
	case *ast.ParenExpr:
		return r.Var(e.X)
	}
	return nil
}

// find sets the sites, using what is known so far of functions that pass
// functions on.
func (r *Result) find(pass *analysis.Pass, lookup func(*types.Func) *fact) {
	r.Sites, r.byFn = nil, make(map[ast.Node][]*Site)
	add := func(s *Site, arg ast.Expr) {
		s.Fn, s.param = r.function(arg)
		r.Sites = append(r.Sites, s)
		if s.Fn != nil {
			r.byFn[s.Fn] = append(r.byFn[s.Fn], s)
		}
	}
	at := func(call *ast.CallExpr, i int) ast.Expr {
		if i < 0 || i >= len(call.Args) {
			return nil
		}
		return call.Args[i]
	}
	in := pass.ResultOf[inspect.Analyzer].(*inspector.Inspector)
	in.Preorder([]ast.Node{(*ast.CallExpr)(nil)}, func(n ast.Node) {
		call := n.(*ast.CallExpr)
		callee := Callee(r.info, call)
		name, _ := NameOf(callee)
		if g, ok := givers[name]; ok && g.fn < len(call.Args) {
			s := &Site{Call: call, Role: g.role, Ctx: at(call, g.ctx), Name: name}
			switch g.loop {
			case -2:
				if sel, ok := ast.Unparen(call.Fun).(*ast.SelectorExpr); ok {
					s.Kind = r.loopKind(sel.X, 0)
				}
			case -1:
			default:
				s.Kind = r.loopKind(at(call, g.loop), 0)
			}
			if g.options {
				r.options(s, call, g.fn+1)
			}
			if t, ok := r.info.TypeOf(call.Args[g.fn]).(*types.Signature); ok {
				s.Own = t.Params().Len() > 0 && IsContext(t.Params().At(0).Type())
			} else if f, ok := types.Unalias(r.info.TypeOf(call.Args[g.fn])).Underlying().(*types.Signature); ok {
				s.Own = f.Params().Len() > 0 && IsContext(f.Params().At(0).Type())
			}
			add(s, call.Args[g.fn])
			for _, arg := range call.Args[g.fn+1:] {
				if g.rest && !call.Ellipsis.IsValid() {
					other := *s
					add(&other, arg)
				}
			}
			if name == (Name{"asyncsync", "", "Open"}) && len(call.Args) > 2 {
				add(&Site{Call: call, Role: Thread, Name: name}, call.Args[2])
			}
			return
		}
		if x := lookup(callee); x != nil && !call.Ellipsis.IsValid() {
			for _, h := range x.Params {
				if arg := at(call, h.Index); arg != nil {
					add(&Site{Call: call, Role: h.Role, Ctx: at(call, h.Ctx), Own: h.Own, Kind: h.Kind, Long: h.Long}, arg)
				}
			}
		}
	})
}

// options changes s by the options of the call, which begin at argument i.
func (r *Result) options(s *Site, call *ast.CallExpr, i int) {
	for ; i < len(call.Args); i++ {
		opt, _ := ast.Unparen(call.Args[i]).(*ast.CallExpr)
		var name Name
		if opt != nil && !call.Ellipsis.IsValid() {
			name, _ = NameOf(Callee(r.info, opt))
		}
		switch name.Name {
		case "":
			// Whatever it is cannot make a handle's function insensitive.
			if s.Name.Recv == "" && s.Name.Name != "Get" && s.Name.Name != "GetFrom" && s.Name.Name != "Go" {
				s.Role = Unknown
			}
			s.Long = s.Long || s.Role == Thread
		case "Insensitive", "WithExecutor":
			s.Role = Async
		case "SameThread":
			s.Role = Thread
		case "WithLoop":
			s.Role = Loop
			if len(opt.Args) == 1 {
				s.Kind = r.loopKind(opt.Args[0], 0)
			}
		case "LongRunning":
			s.Long = true
		}
	}
}

// function returns the function that e is, if the package has its text.
// Otherwise it returns the parameter of the enclosing function that e is.
func (r *Result) function(e ast.Expr) (ast.Node, *types.Var) {
	switch e := ast.Unparen(e).(type) {
	case *ast.FuncLit:
		return e, nil
	case *ast.Ident:
		switch obj := r.info.Uses[e].(type) {
		case *types.Func:
			if d := r.decls[obj.Origin()]; d != nil {
				return d, nil
			}
		case *types.Var:
			if defs := r.defs[obj]; len(defs) == 1 && defs[0].Of == 1 {
				if lit, ok := ast.Unparen(defs[0].X).(*ast.FuncLit); ok {
					return lit, nil
				}
			} else if len(defs) == 0 {
				return nil, obj
			}
		}
	case *ast.SelectorExpr:
		if f, ok := r.info.Uses[e.Sel].(*types.Func); ok {
			if d := r.decls[f.Origin()]; d != nil {
				return d, nil
			}
		}
	case *ast.IndexExpr:
		return r.function(e.X)
	case *ast.CallExpr: // a conversion, to asyncsync.Func say
		if r.info.Types[e.Fun].IsType() && len(e.Args) == 1 {
			return r.function(e.Args[0])
		}
	}
	return nil, nil
}

// loopKind returns the kind of the loop that e is. It follows variables.
func (r *Result) loopKind(e ast.Expr, depth int) LoopKind {
	if e == nil || depth > 4 {
		return AnyLoop
	}
	if call, ok := ast.Unparen(e).(*ast.CallExpr); ok {
		switch name, _ := NameOf(Callee(r.info, call)); name {
		case Name{"loop", "", "NewThread"}:
			return ThreadLoop
		case Name{"loop", "", "Goroutines"}:
			return Goroutines
		}
		return AnyLoop
	}
	v := r.Var(e)
	if v == nil || len(r.defs[v]) == 0 {
		return AnyLoop
	}
	kind := AnyLoop
	for i, d := range r.defs[v] {
		if d.Of != 1 {
			return AnyLoop
		}
		k := r.loopKind(d.X, depth+1)
		if i > 0 && k != kind {
			return AnyLoop
		}
		kind = k
	}
	return kind
}

// learn adds to facts what the sites say of the functions around them. It
// reports whether anything was new.
func (r *Result) learn(pass *analysis.Pass, facts map[*types.Func]*fact) bool {
	news := false
	get := func(f *types.Func) *fact {
		if facts[f] == nil {
			facts[f] = new(fact)
		}
		return facts[f]
	}
	hand := func(p *types.Var, s *Site, own bool) {
		decl, f := r.owner(p)
		if decl == nil {
			return
		}
		i := index(f, p)
		if i < 0 || i == f.Signature().Params().Len()-1 && f.Signature().Variadic() {
			return
		}
		ctx := -1
		if v := r.Var(s.Ctx); v != nil {
			ctx = index(f, v)
		}
		h := handed{Index: i, Ctx: ctx, Role: s.Role, Own: own, Kind: s.Kind, Long: s.Long}
		x := get(f)
		for j, old := range x.Params {
			if old.Index != i {
				continue
			}
			// Handed on twice: what differs is not known.
			if old.Role != h.Role && old.Role != Unknown {
				x.Params[j].Role, news = Unknown, true
			}
			if old.Own && !h.Own {
				x.Params[j].Own, news = false, true
			}
			return
		}
		x.Params, news = append(x.Params, h), true
	}
	for _, s := range r.Sites {
		if s.param != nil {
			hand(s.param, s, s.Own)
		}
	}
	for decl := range r.declsInOrder() {
		f := r.info.Defs[decl.Name].(*types.Func)
		ctx := r.CtxParam(decl)
		ast.Inspect(decl, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			// A parameter that is called in a function that is given away is as
			// good as given away.
			if id, ok := ast.Unparen(call.Fun).(*ast.Ident); ok {
				if p, ok := r.info.Uses[id].(*types.Var); ok && index(f, p) >= 0 {
					if s := r.Given(call); s != nil && s.Fn != decl {
						own := s.Own && len(call.Args) > 0 && IsContext(r.info.TypeOf(call.Args[0]))
						hand(p, s, own)
					}
				}
			}
			if ctx != nil && !(facts[f] != nil && facts[f].Reaches) && r.CallsThread(call) {
				for _, a := range call.Args {
					if r.DerivedFrom(a, ctx) {
						get(f).Reaches, news = true, true
					}
				}
			}
			return true
		})
	}
	return news
}

func (r *Result) declsInOrder() func(func(*ast.FuncDecl) bool) {
	return func(yield func(*ast.FuncDecl) bool) {
		for _, d := range r.decls {
			if d.Body != nil && !yield(d) {
				return
			}
		}
	}
}

// owner returns the declaration that p is a parameter of.
func (r *Result) owner(p *types.Var) (*ast.FuncDecl, *types.Func) {
	for f, d := range r.decls {
		if d.Pos() <= p.Pos() && p.Pos() < d.End() && index(f, p) >= 0 {
			return d, f
		}
	}
	return nil, nil
}

func index(f *types.Func, p *types.Var) int {
	params := f.Signature().Params()
	for i := range params.Len() {
		if params.At(i) == p {
			return i
		}
	}
	return -1
}

// threadCalls are the functions that run something on the thread of the ctx or
// of a handle.
var threadCalls = map[Name]bool{
	{"asyncsync", "", "ToThread"}:     true,
	{"asyncsync", "", "Go"}:           true,
	{"asyncsync", "", "Get"}:          true,
	{"asyncsync", "", "Func"}:         true,
	{"asyncsync", "Handle", "Do"}:     true,
	{"asyncsync", "", "Do"}:           true,
	{"asyncsync", "", "GetFrom"}:      true,
	{"asyncsync", "HandlePool", "Do"}: true,
	{"asyncsync", "Lease", "Do"}:      true,
}

// CallsThread reports whether call calls a thread, itself or below a function
// to which it passes its ctx.
func (r *Result) CallsThread(call *ast.CallExpr) bool {
	if name, ok := Library(r.info, call); ok && threadCalls[name] {
		return !r.HasOption(call, "Insensitive")
	}
	f := Callee(r.info, call)
	return f != nil && r.reaches(f)
}

// HasOption reports whether an argument of call is a call of that option.
func (r *Result) HasOption(call *ast.CallExpr, option string) bool {
	for _, a := range call.Args {
		if opt, ok := ast.Unparen(a).(*ast.CallExpr); ok {
			if n, _ := NameOf(Callee(r.info, opt)); n == (Name{"asyncsync", "", option}) {
				return true
			}
		}
	}
	return false
}
