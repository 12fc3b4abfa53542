package vet

import (
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"maps"
	"slices"

	"golang.org/x/tools/go/analysis/passes/ctrlflow"
	"golang.org/x/tools/go/cfg"

	"asyncsync.dev/vet/internal/sites"
)

// waits are the functions of the library that wait, apart from calls of values
// of type asyncsync.Func.
var waits = map[sites.Name]bool{
	{Pkg: "asyncsync", Name: "ToThread"}:                                  true,
	{Pkg: "asyncsync", Name: "FromThread"}:                                true,
	{Pkg: "asyncsync", Name: "Get"}:                                       true,
	{Pkg: "asyncsync", Name: "Func"}:                                      true,
	{Pkg: "asyncsync", Name: "Do"}:                                        true,
	{Pkg: "asyncsync", Name: "DoAsync"}:                                   true,
	{Pkg: "asyncsync", Name: "GetFrom"}:                                   true,
	{Pkg: "asyncsync", Recv: "HandlePool", Name: "Do"}:                    true,
	{Pkg: "asyncsync", Recv: "HandlePool", Name: "Acquire"}:               true,
	{Pkg: "asyncsync", Recv: "Lease", Name: "Do"}:                         true,
	{Pkg: "asyncsync", Name: "Open"}:                                      true,
	{Pkg: "asyncsync", Recv: "Handle", Name: "Do"}:                        true,
	{Pkg: "asyncsync", Recv: "Handle", Name: "Close"}:                     true,
	{Pkg: "asyncsync", Recv: "Handle", Name: "Shutdown"}:                  true,
	{Pkg: "asyncsync", Recv: "ThreadSensitiveContext", Name: "Close"}:     true,
	{Pkg: "asyncsync", Recv: "ThreadSensitiveContext", Name: "Shutdown"}:  true,
	{Pkg: "asyncsync", Recv: "ThreadPool", Name: "Close"}:                 true,
	{Pkg: "asyncsync", Recv: "ThreadPool", Name: "Shutdown"}:              true,
	{Pkg: "asyncsync", Recv: "CurrentThreadExecutor", Name: "RunUntil"}:   true,
	{Pkg: "asyncsync", Recv: "CurrentThreadExecutor", Name: "RunPending"}: true,
	{Pkg: "asyncsync", Recv: "PoolExecutor", Name: "Close"}:               true,
	{Pkg: "asyncsync", Recv: "PoolExecutor", Name: "Shutdown"}:            true,
	{Pkg: "asyncsync", Recv: "HandlePool", Name: "Close"}:                 true,
	{Pkg: "asyncsync", Recv: "HandlePool", Name: "Shutdown"}:              true,
	{Pkg: "task", Recv: "Task", Name: "Wait"}:                             true,
	{Pkg: "task", Recv: "Task", Name: "WaitOrCancel"}:                     true,
	{Pkg: "task", Name: "Await"}:                                          true,
	{Pkg: "task", Name: "Gather"}:                                         true,
	{Pkg: "task", Name: "Start"}:                                          true,
	{Pkg: "task", Name: "Recv"}:                                           true,
	{Pkg: "task", Name: "Send"}:                                           true,
	{Pkg: "task", Name: "Sleep"}:                                          true,
	{Pkg: "task", Name: "SleepUntil"}:                                     true,
	{Pkg: "task", Name: "SleepForever"}:                                   true,
	{Pkg: "task", Name: "Yield"}:                                          true,
	{Pkg: "task", Name: "YieldShielded"}:                                  true,
	{Pkg: "task", Recv: "Mutex", Name: "Lock"}:                            true,
	{Pkg: "task", Recv: "Event", Name: "Wait"}:                            true,
	{Pkg: "task", Recv: "Cond", Name: "Wait"}:                             true,
	{Pkg: "task", Recv: "Group", Name: "Wait"}:                            true,
	{Pkg: "task", Recv: "Limiter", Name: "Acquire"}:                       true,
	{Pkg: "task", Recv: "Limiter", Name: "AcquireN"}:                      true,
	{Pkg: "loop", Name: "Call"}:                                           true,
	{Pkg: "loop", Recv: "Backend", Name: "Park"}:                          true,
}

// own says that on a thread a call of this function goes to that thread and
// does not wait, unless it names another thread.
var own = map[sites.Name]bool{
	{Pkg: "asyncsync", Name: "ToThread"}: true,
	{Pkg: "asyncsync", Name: "Do"}:       true,
	{Pkg: "asyncsync", Name: "Func"}:     true,
}

// These wait in some of their uses only: see waitOf.
var (
	taskMap       = sites.Name{Pkg: "task", Name: "Map"}
	groupGo       = sites.Name{Pkg: "task", Recv: "Group", Name: "Go"}
	groupTryGo    = sites.Name{Pkg: "task", Recv: "Group", Name: "TryGo"}
	groupSetLimit = sites.Name{Pkg: "task", Recv: "Group", Name: "SetLimit"}
)

// A wait is a place where code waits in the library.
type wait struct {
	name sites.Name // of the function that waits
	call *ast.CallExpr
	at   ast.Node // the call, or what a loop ranges over
}

// waitOf returns the wait that call is. A call of task.Map is one if a loop
// ranges over it, and a call of Group.Go if the limit of the group may be
// reached. A function that calls a function with another ctx, such as
// task.Shield, waits if it is given a function that does.
func (p *pass) waitOf(call *ast.CallExpr) (wait, bool) {
	n, ok := sites.Library(p.TypesInfo, call)
	if !ok {
		return wait{}, false
	}
	w := wait{n, call, call}
	switch {
	case waits[n]:
		return w, true
	case n == taskMap:
		return w, p.ranged(call)
	case n == groupGo:
		return w, p.limited(call)
	}
	if i, ok := sites.CallsHere(n); ok && i < len(call.Args) {
		if sel, ok := ast.Unparen(call.Args[i]).(*ast.SelectorExpr); ok {
			if f, ok := p.TypesInfo.Uses[sel.Sel].(*types.Func); ok {
				w.name, _ = sites.NameOf(f)
				return w, waits[w.name]
			}
		}
	}
	return wait{}, false
}

// ranged reports whether a loop ranges over e.
func (p *pass) ranged(e ast.Expr) bool {
	up := p.sites.Parent(e)
	if paren, ok := up.(*ast.ParenExpr); ok {
		return p.ranged(paren)
	}
	loop, ok := up.(*ast.RangeStmt)
	return ok && loop.X == e
}

// rangedMap returns the wait of a loop that ranges over n, if n is a variable
// that has the results of task.Map and nothing else.
func (p *pass) rangedMap(n ast.Node) (wait, bool) {
	id, ok := n.(*ast.Ident)
	if !ok || !p.ranged(id) {
		return wait{}, false
	}
	v := p.sites.Var(id)
	if v == nil {
		return wait{}, false
	}
	defs := p.sites.Defs(v)
	if len(defs) != 1 || defs[0].Of != 1 {
		return wait{}, false
	}
	call, ok := ast.Unparen(defs[0].X).(*ast.CallExpr)
	if !ok {
		return wait{}, false
	}
	name, _ := sites.Library(p.TypesInfo, call)
	return wait{name, call, id}, name == taskMap
}

// limited reports whether call, of Group.Go, may find the limit of its group
// reached: the function sets the limit once, before, and then calls Go in a
// loop, or more often in one block than the limit allows.
func (p *pass) limited(call *ast.CallExpr) bool {
	sel, ok := ast.Unparen(call.Fun).(*ast.SelectorExpr)
	if !ok {
		return false
	}
	group, root, fn := p.sites.Var(sel.X), p.sites.Root(sel.X), p.sites.Func(call)
	if group == nil || root == nil {
		return false
	}
	block := func(call *ast.CallExpr) ast.Node { return p.sites.Parent(p.sites.Parent(call)) }
	var set *ast.CallExpr
	started := 0 // in the block of call, with call itself
	for _, id := range p.sites.Uses(group) {
		other, x := p.methodCall(id)
		if other == nil || other.Pos() > call.Pos() || p.sites.Func(other) != fn || p.sites.Root(x) != root {
			continue
		}
		switch n, _ := sites.Library(p.TypesInfo, other); n {
		case groupSetLimit:
			if set != nil {
				return false
			}
			set = other
		case groupGo, groupTryGo:
			if block(other) == block(call) {
				started++
			}
		}
	}
	if set == nil || len(set.Args) != 1 {
		return false
	}
	limit := p.TypesInfo.Types[set.Args[0]].Value
	if limit != nil && constant.Sign(limit) < 0 {
		return false
	}
	for n := p.sites.Parent(call); n != fn && n != nil; n = p.sites.Parent(n) {
		switch n.(type) {
		case *ast.ForStmt, *ast.RangeStmt:
			if set.Pos() < n.Pos() {
				return true
			}
		}
	}
	return limit != nil && constant.Compare(constant.MakeInt64(int64(started)), token.GTR, limit)
}

// methodCall returns the call of a method of the variable or field that id
// names, and the expression that the method is called of.
func (p *pass) methodCall(id *ast.Ident) (*ast.CallExpr, ast.Expr) {
	var x ast.Expr = id
	if sel, ok := p.sites.Parent(id).(*ast.SelectorExpr); ok && sel.Sel == id {
		x = sel
	}
	sel, ok := p.sites.Parent(x).(*ast.SelectorExpr)
	if !ok || sel.X != x {
		return nil, nil
	}
	call, ok := p.sites.Parent(sel).(*ast.CallExpr)
	if !ok || call.Fun != ast.Expr(sel) {
		return nil, nil
	}
	return call, x
}

// A hold is something that is taken and given back: a mutex, or a lock on the
// thread.
type hold struct {
	key  any // comparable
	name string
	at   token.Pos
}

// A heldState is what is held at some place, by the keys of the holds.
type heldState map[any]hold

// A changes says what code takes and gives back.
type changes struct {
	of func(*ast.CallExpr) (h hold, takes, gives bool)
	// tries says what a call takes if it returns true. It may be nil.
	tries func(*ast.CallExpr) (hold, bool)
}

// heldAt goes through the control flow of fn. It calls at for each wait of the
// library, with what is held there on every path that leads to it. Deferred
// calls are left out, and so are function literals, apart from those that run
// where they stand: the caller comes to them later, and what is held there is
// kept until then.
func (p *pass) heldAt(fn ast.Node, change changes, at func(wait, []hold)) {
	cfgs := p.ResultOf[ctrlflow.Analyzer].(*ctrlflow.CFGs)
	var g *cfg.CFG
	switch fn := fn.(type) {
	case *ast.FuncDecl:
		g = cfgs.FuncDecl(fn)
	case *ast.FuncLit:
		g = cfgs.FuncLit(fn)
	}
	if g == nil || len(g.Blocks) == 0 {
		return
	}
	step := func(b *cfg.Block, s heldState, report bool) heldState {
		s = maps.Clone(s)
		see := func(w wait) {
			if report && len(s) > 0 {
				at(w, slices.SortedFunc(maps.Values(s), func(a, b hold) int { return int(a.at - b.at) }))
			}
		}
		for _, n := range b.Nodes {
			for _, call := range callsIn(n) {
				if w, ok := p.waitOf(call); ok {
					see(w)
				}
				if lit := p.runsHere(call); lit != nil && report {
					p.entered[lit] = maps.Clone(s)
				}
				switch h, takes, gives := change.of(call); {
				case takes:
					s[h.key] = h
				case gives:
					delete(s, h.key)
				}
			}
			if w, ok := p.rangedMap(n); ok {
				see(w)
			}
		}
		return s
	}
	if p.entered == nil {
		p.entered = make(map[ast.Node]heldState)
	}
	first := p.entered[fn]
	if first == nil {
		first = heldState{}
	}
	// What is held at the beginning of a block is what all its predecessors leave
	// held. It only ever shrinks.
	in := map[*cfg.Block]heldState{g.Blocks[0]: first}
	work := []*cfg.Block{g.Blocks[0]}
	for len(work) > 0 {
		b := work[0]
		work = work[1:]
		out := step(b, in[b], false)
		for i, succ := range b.Succs {
			out := out
			if cond := condition(b); cond != nil && change.tries != nil {
				out = maps.Clone(out)
				for _, h := range p.tried(cond, i == 0, change.tries) {
					out[h.key] = h
				}
			}
			old, seen := in[succ]
			if !seen {
				in[succ] = out
				work = append(work, succ)
				continue
			}
			less := maps.Clone(old)
			maps.DeleteFunc(less, func(k any, _ hold) bool { _, ok := out[k]; return !ok })
			if len(less) < len(old) {
				in[succ] = less
				work = append(work, succ)
			}
		}
	}
	for _, b := range g.Blocks {
		if s, ok := in[b]; ok {
			step(b, s, true)
		}
	}
}

// condition returns what decides which of its two successors follows b, or
// nil. The first one follows if it is true.
func condition(b *cfg.Block) ast.Expr {
	if len(b.Succs) != 2 || len(b.Nodes) == 0 {
		return nil
	}
	cond, _ := b.Nodes[len(b.Nodes)-1].(ast.Expr)
	return cond
}

// tried returns what has been taken if cond has that value. It follows a
// variable that has the result of one call and is used in cond alone, so that
// nothing is given back between the two.
func (p *pass) tried(cond ast.Expr, value bool, tries func(*ast.CallExpr) (hold, bool)) []hold {
	if c, ok := p.sites.Parent(cond).(*ast.CaseClause); ok {
		if s, ok := p.sites.Parent(p.sites.Parent(c)).(*ast.SwitchStmt); ok && s.Tag != nil {
			return nil
		}
	}
	switch cond := ast.Unparen(cond).(type) {
	case *ast.UnaryExpr:
		if cond.Op == token.NOT {
			return p.tried(cond.X, !value, tries)
		}
	case *ast.BinaryExpr:
		if cond.Op == token.LAND && value || cond.Op == token.LOR && !value {
			return append(p.tried(cond.X, value, tries), p.tried(cond.Y, value, tries)...)
		}
	case *ast.CallExpr:
		if h, ok := tries(cond); ok && value {
			return []hold{h}
		}
	case *ast.Ident:
		v := p.sites.Var(cond)
		if v == nil || len(p.sites.Uses(v)) != 1 {
			return nil
		}
		if defs := p.sites.Defs(v); len(defs) == 1 && defs[0].Of == 1 {
			if call, ok := ast.Unparen(defs[0].X).(*ast.CallExpr); ok && p.sites.Func(call) == p.sites.Func(cond) {
				return p.tried(call, value, tries)
			}
		}
	}
	return nil
}

// runsHere returns the function literal that call runs before it returns, on
// the same goroutine: the one that it calls, or that task.Shield, say, is
// given.
func (p *pass) runsHere(call *ast.CallExpr) *ast.FuncLit {
	if lit, ok := ast.Unparen(call.Fun).(*ast.FuncLit); ok {
		return lit
	}
	n, ok := sites.Library(p.TypesInfo, call)
	if !ok {
		return nil
	}
	i, ok := sites.CallsHere(n)
	if !ok || i >= len(call.Args) {
		return nil
	}
	lit, _ := ast.Unparen(call.Args[i]).(*ast.FuncLit)
	return lit
}

// callsIn returns the calls that n makes itself, arguments before the calls
// that they are for.
func callsIn(n ast.Node) (calls []*ast.CallExpr) {
	switch n := n.(type) {
	case *ast.DeferStmt, *ast.GoStmt:
		return nil
	case *ast.RangeStmt:
		return callsIn(n.X)
	}
	var visit func(ast.Node) bool
	visit = func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return false
		case *ast.CallExpr:
			ast.Inspect(n.Fun, visit)
			for _, a := range n.Args {
				ast.Inspect(a, visit)
			}
			calls = append(calls, n)
			return false
		}
		return true
	}
	ast.Inspect(n, visit)
	return calls
}

// functions calls f for every function of the package with a body, for outer
// ones before those inside.
func (p *pass) functions(f func(fn ast.Node)) {
	for _, file := range p.Files {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Body != nil {
					f(n)
				}
			case *ast.FuncLit:
				f(n)
			}
			return true
		})
	}
}

// isMethod reports whether f is a method of that type of that package.
func isMethod(f *types.Func, pkg, typ string) bool {
	if f == nil {
		return false
	}
	recv := f.Signature().Recv()
	return recv != nil && sites.IsType(recv.Type(), pkg, typ)
}
