package vet

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/token"
	"go/types"

	"golang.org/x/tools/go/analysis/passes/inspect"
	"golang.org/x/tools/go/ast/inspector"

	"asyncsync.dev/vet/internal/sites"
)

var rawWait = newAnalyzer("rawwait", `find waits on a thread that the library cannot see

While a function on a thread waits on a channel or a sync.WaitGroup, its thread
does not serve: if what it waits for needs the thread, that is a deadlock. In a
task of a thread loop such a wait blocks the loop.

Waits for goroutines that the function has started, and that have no ctx and
nothing of the library, are fine, and so are timers, and functions called with
asyncsync.LongRunning. Test files are not looked at: there functions wait on
channels on purpose, to hold a thread.`, runRawWait)

func runRawWait(p *pass) {
	in := p.ResultOf[inspect.Analyzer].(*inspector.Inspector)
	kinds := []ast.Node{
		(*ast.UnaryExpr)(nil), (*ast.SendStmt)(nil), (*ast.SelectStmt)(nil),
		(*ast.RangeStmt)(nil), (*ast.CallExpr)(nil),
	}
	in.Preorder(kinds, func(n ast.Node) {
		if p.inTest(n) {
			return
		}
		w, ok := p.rawWait(n)
		if !ok {
			return
		}
		where := p.sites.Where(n)
		switch {
		case where.Role == sites.Thread && !where.Site.Long:
			if w.timer || w.on != nil && p.harmless(w.on, where.Fn, n) {
				return
			}
			p.reportf(n, "the thread does not serve during %s: %s, or wait in async code", w.what, cmp.Or(w.cure, "use task.Await"))
		case where.Role == sites.Loop && where.Site.Kind == sites.ThreadLoop:
			p.reportf(n, "%s blocks the loop and all its tasks: %s, or wait through the library", w.what, cmp.Or(w.cure, "use task.Await"))
		}
	})
}

// A raw is a wait that the library does not see.
type raw struct {
	what  string // a noun
	cure  string // if there is a particular one
	on    ast.Expr
	timer bool // it ends by itself: nobody is waited for
}

// rawWait says whether n is one.
func (p *pass) rawWait(n ast.Node) (raw, bool) {
	switch n := n.(type) {
	case *ast.UnaryExpr:
		if n.Op == token.ARROW && !p.inSelect(n) {
			return p.receive(n.X), true
		}
	case *ast.SendStmt:
		if !p.inSelect(n) {
			return raw{what: "a send on a channel", on: n.Chan, timer: p.buffered(n.Chan)}, true
		}
	case *ast.RangeStmt:
		if _, ok := p.TypesInfo.TypeOf(n.X).Underlying().(*types.Chan); ok {
			w := p.receive(n.X)
			w.what, w.cure = "a range over a channel", "use task.Recv"
			return w, true
		}
	case *ast.SelectStmt:
		w := raw{what: "a select", timer: true}
		waits := 0 // cases that others have to end
		for _, c := range n.Body.List {
			var r raw
			switch c := c.(*ast.CommClause).Comm.(type) {
			case nil: // default
				return raw{}, false
			case *ast.SendStmt:
				r = raw{on: c.Chan}
			case *ast.ExprStmt:
				r = p.receive(ast.Unparen(c.X).(*ast.UnaryExpr).X)
			case *ast.AssignStmt:
				r = p.receive(ast.Unparen(c.Rhs[0]).(*ast.UnaryExpr).X)
			}
			if r.timer {
				continue
			}
			w.timer = false
			waits++
			if r.cure != "use task.Recv" { // it takes one channel
				w.cure = r.cure
			}
			// Of several channels none is looked into.
			if w.on = r.on; waits > 1 {
				w.on = nil
			}
		}
		return w, true
	case *ast.CallExpr:
		f := sites.Callee(p.TypesInfo, n)
		if f == nil || f.Pkg() == nil {
			return raw{}, false
		}
		sel, _ := ast.Unparen(n.Fun).(*ast.SelectorExpr)
		if recv := f.Signature().Recv(); recv != nil && f.Name() == "Wait" && sel != nil {
			switch {
			case sites.IsType(recv.Type(), "sync", "WaitGroup"):
				return raw{what: "the Wait of a sync.WaitGroup", cure: "start a task.Group instead", on: sel.X}, true
			case sites.IsType(recv.Type(), "golang.org/x/sync/errgroup", "Group"):
				return raw{what: "the Wait of an errgroup.Group", cure: "start a task.Group instead", on: sel.X}, true
			case sites.IsType(recv.Type(), "sync", "Cond"):
				return raw{what: "the Wait of a sync.Cond"}, true
			}
		}
		if f.FullName() == "time.Sleep" {
			return raw{what: "time.Sleep", cure: "use task.Sleep", timer: true}, true
		}
	}
	return raw{}, false
}

func (p *pass) receive(ch ast.Expr) raw {
	w := raw{what: "a receive from a channel", cure: "use task.Recv", on: ch}
	call, ok := ast.Unparen(ch).(*ast.CallExpr)
	if !ok {
		// The channel of a time.Timer or a time.Ticker.
		if sel, ok := ast.Unparen(ch).(*ast.SelectorExpr); ok && sel.Sel.Name == "C" {
			t := p.TypesInfo.TypeOf(sel.X)
			w.timer = sites.IsType(t, "time", "Timer") || sites.IsType(t, "time", "Ticker")
		}
		return w
	}
	f := sites.Callee(p.TypesInfo, call)
	if f == nil {
		return w
	}
	if n, ok := sites.NameOf(f); ok && n == (sites.Name{Pkg: "task", Recv: "Task", Name: "Done"}) {
		return raw{what: "a receive from Task.Done", cure: "call Task.Wait"}
	}
	switch f.FullName() {
	case "time.After", "time.Tick", "(context.Context).Done":
		w.timer = true
	}
	return w
}

// inSelect reports whether n is the operation of a select case: the select is
// checked as a whole.
func (p *pass) inSelect(n ast.Node) bool {
	for child, n := n, p.sites.Parent(n); n != nil; child, n = n, p.sites.Parent(n) {
		switch n := n.(type) {
		case *ast.ParenExpr, *ast.ExprStmt, *ast.AssignStmt:
		case *ast.CommClause:
			return n.Comm == child
		default:
			return false
		}
	}
	return false
}

// buffered reports whether every known definition of the channel makes it with
// a buffer.
func (p *pass) buffered(ch ast.Expr) bool {
	v := p.sites.Var(ch)
	if v == nil {
		return false
	}
	defs := p.sites.Defs(v)
	for _, d := range defs {
		call, ok := d.X.(*ast.CallExpr)
		if !ok || len(call.Args) != 2 || fmt.Sprint(p.TypesInfo.Types[call.Args[1]].Value) == "0" {
			return false
		}
		if b, ok := p.TypesInfo.Uses[identOf(call.Fun)].(*types.Builtin); !ok || b.Name() != "make" {
			return false
		}
	}
	return len(defs) > 0
}

func identOf(e ast.Expr) *ast.Ident {
	id, _ := ast.Unparen(e).(*ast.Ident)
	return id
}

// harmless reports whether the wait on the channel or group e is ended only by
// goroutines that were started in fn and cannot call the library. Apart from
// these goroutines, e may only be waited on.
func (p *pass) harmless(e ast.Expr, fn, wait ast.Node) bool {
	v := p.sites.Root(e)
	if v == nil || v.IsField() || v.Pos() < fn.Pos() || v.Pos() >= fn.End() {
		return false
	}
	peers := 0
	for _, id := range p.sites.Uses(v) {
		where := p.sites.Where(id)
		switch {
		case where.Role == sites.Plain && !p.knowsLibrary(where.Fn):
			peers++
			continue
		case where.Fn != fn:
			return false
		}
		// In fn itself: a wait, a close, a method, or an argument of a go
		// statement.
		switch up := p.sites.Parent(id).(type) {
		case *ast.CallExpr:
			if id, ok := ast.Unparen(up.Fun).(*ast.Ident); ok {
				if b, ok := p.TypesInfo.Uses[id].(*types.Builtin); ok && (b.Name() == "close" || b.Name() == "len" || b.Name() == "cap") {
					continue
				}
			}
			if _, ok := p.sites.Parent(up).(*ast.GoStmt); !ok || p.knowsLibrary(up) {
				return false
			}
			peers++
		case *ast.SelectorExpr:
			call, ok := p.sites.Parent(up).(*ast.CallExpr)
			if !ok || call.Fun != ast.Expr(up) {
				return false
			}
			if sites.Starts(p.TypesInfo, call) {
				if p.knowsLibrary(call) {
					return false
				}
				peers++
			}
		case *ast.UnaryExpr:
			if up.Op == token.AND {
				call, ok := p.sites.Parent(up).(*ast.CallExpr)
				if !ok {
					return false
				}
				if _, ok := p.sites.Parent(call).(*ast.GoStmt); !ok || p.knowsLibrary(call) {
					return false
				}
				peers++
			}
		case *ast.SendStmt:
			if up.Value == ast.Expr(id) {
				return false
			}
		case *ast.RangeStmt:
		default:
			return false
		}
	}
	return peers > 0
}

// knowsLibrary reports whether n contains a ctx or something of the library.
// Without one, nothing in n calls a thread.
func (p *pass) knowsLibrary(n ast.Node) bool {
	knows := false
	ast.Inspect(n, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			_, ok := sites.Library(p.TypesInfo, n)
			knows = knows || ok || sites.IsContext(p.TypesInfo.TypeOf(n))
		case *ast.Ident:
			if v, ok := p.TypesInfo.Uses[n].(*types.Var); ok {
				knows = knows || sites.IsContext(v.Type()) || sites.OfLibrary(v.Type())
				// A function that came from elsewhere may know anything.
				if _, fn := v.Type().Underlying().(*types.Signature); fn && len(p.sites.Defs(v)) != 1 {
					knows = true
				}
			}
		}
		return !knows
	})
	return knows
}
