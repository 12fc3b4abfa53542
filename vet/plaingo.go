package vet

import (
	"go/ast"
	"go/types"

	"golang.org/x/tools/go/analysis/passes/inspect"
	"golang.org/x/tools/go/ast/inspector"

	"asyncsync.dev/vet/internal/sites"
)

var plainGo = newAnalyzer("plaingo", `find goroutines whose calls wait for the function that started them

A goroutine that a function on a thread starts with its own ctx is below that
function, and not below what the function waits for later. So its calls to the
thread are not served while the function waits for a task, an async function, or
a channel of its own. They run in waits that are for nobody in particular, such as
task.Recv, and when the function has ended. A task is served by whoever waits for
it.

Where the function makes no other waits than such ones, nothing is reported.`, runPlainGo)

// forNobody are the waits in which a thread serves all that the blocked
// function has started: the library does not know what they wait for, or, for a
// mutex, what else may have to run.
var forNobody = map[sites.Name]bool{
	{Pkg: "task", Name: "Await"}:               true,
	{Pkg: "task", Name: "Recv"}:                true,
	{Pkg: "task", Name: "Send"}:                true,
	{Pkg: "task", Name: "Sleep"}:               true,
	{Pkg: "task", Name: "SleepUntil"}:          true,
	{Pkg: "task", Name: "SleepForever"}:        true,
	{Pkg: "task", Recv: "Event", Name: "Wait"}: true,
	{Pkg: "task", Recv: "Cond", Name: "Wait"}:  true,
	{Pkg: "task", Recv: "Mutex", Name: "Lock"}: true,
}

func runPlainGo(p *pass) {
	in := p.ResultOf[inspect.Analyzer].(*inspector.Inspector)
	in.Preorder([]ast.Node{(*ast.GoStmt)(nil), (*ast.CallExpr)(nil)}, func(n ast.Node) {
		var started []ast.Node
		switch n := n.(type) {
		case *ast.GoStmt:
			started = []ast.Node{n.Call}
			if lit, ok := ast.Unparen(n.Call.Fun).(*ast.FuncLit); ok {
				started[0] = lit
			}
		case *ast.CallExpr:
			if !sites.Starts(p.TypesInfo, n) {
				return
			}
			for _, a := range n.Args {
				started = append(started, a)
			}
		}
		where := p.sites.Where(n)
		if where.Role != sites.Thread {
			return
		}
		ctx := p.sites.CtxParam(where.Fn)
		if ctx == nil {
			return
		}
		for _, fn := range started {
			if call := p.callsBack(fn, ctx, where.Site); call != nil {
				if p.servesAfter(n, where) {
					return
				}
				p.reportf(call, "a plain goroutine calls the thread with %s: the call is not served while the function that started it waits for something else; use task.Go, or asyncsync.Go if nobody waits for it", ctx.Name())
			}
		}
	})
}

// servesAfter reports whether the function around start, which starts a
// goroutine, waits after it, and all these waits serve the goroutine's calls. If
// start is in a loop, all of the loop comes after it.
func (p *pass) servesAfter(start ast.Node, where sites.Place) bool {
	after := start.End()
	for n := p.sites.Parent(start); n != nil && n != where.Fn; n = p.sites.Parent(n) {
		switch n.(type) {
		case *ast.ForStmt, *ast.RangeStmt:
			after = n.Pos()
		}
	}
	serves, other := false, false
	ast.Inspect(sites.Body(where.Fn), func(n ast.Node) bool {
		if n == nil || n.End() <= after || other {
			return false
		}
		if n.Pos() < after || p.sites.Where(n).Fn != where.Fn {
			return true
		}
		if r, ok := p.rawWait(n); ok {
			other = !r.timer && (r.on == nil || !p.harmless(r.on, where.Fn, n))
			return true
		}
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		w, ok := p.waitOf(call)
		switch {
		case !ok, w.name.Name == "Yield", w.name.Name == "YieldShielded", p.sameHandle(call, where.Site):
		case forNobody[w.name]:
			serves = true
		case own[w.name] && !p.sites.HasOption(call, "On") && !p.sites.HasOption(call, "Insensitive") && !p.servesInside(call):
		default:
			other = true
		}
		return true
	})
	return serves && !other
}

// callsBack returns the first call in n, a goroutine, that goes to the thread
// of the function that was given ctx.
func (p *pass) callsBack(n ast.Node, ctx *types.Var, s *sites.Site) (found *ast.CallExpr) {
	ast.Inspect(n, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			// What is given away in turn runs elsewhere, below somebody else.
			return len(p.sites.SitesOf(n)) == 0
		case *ast.CallExpr:
			if found != nil || !p.sites.CallsThread(n) || len(n.Args) == 0 || p.sites.HasOption(n, "On") {
				return found == nil
			}
			if h := p.handle(n); h != nil && h != p.handle(s.Call) {
				return true // the handle has a thread of its own
			} else if h == nil && p.handle(s.Call) != nil && n.Ellipsis.IsValid() {
				return true
			}
			for _, a := range n.Args {
				if p.sites.DerivedFrom(a, ctx) {
					found = n
				}
			}
		}
		return found == nil
	})
	return found
}

// handle returns the variable of the handle that call goes to, or nil if it
// does not call a handle.
func (p *pass) handle(call *ast.CallExpr) *types.Var {
	switch n, _ := sites.Library(p.TypesInfo, call); {
	case n == sites.Name{Pkg: "asyncsync", Recv: "Handle", Name: "Do"}:
		if sel, ok := ast.Unparen(call.Fun).(*ast.SelectorExpr); ok {
			return p.sites.Var(sel.X)
		}
	case n == sites.Name{Pkg: "asyncsync", Name: "Get"} && len(call.Args) > 1:
		return p.sites.Var(call.Args[1])
	}
	return nil
}
