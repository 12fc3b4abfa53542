package vet

import (
	"go/ast"
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

// waitOf returns the name of the library function in which call waits.
func (p *pass) waitOf(call *ast.CallExpr) (sites.Name, bool) {
	n, ok := sites.Library(p.TypesInfo, call)
	return n, ok && waits[n]
}

// A hold is something that is taken and given back: a mutex, or a lock on the
// thread.
type hold struct {
	key  any // comparable
	name string
	at   token.Pos
}

// heldAt goes through the control flow of fn. It calls at for each call, with
// what is held there on every path that leads to it. change says what a call
// takes or gives back. Function literals and deferred calls are left out.
func (p *pass) heldAt(fn ast.Node, change func(*ast.CallExpr) (h hold, takes, gives bool), at func(*ast.CallExpr, []hold)) {
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
	type state map[any]hold
	step := func(b *cfg.Block, s state, at func(*ast.CallExpr, []hold)) state {
		s = maps.Clone(s)
		for _, n := range b.Nodes {
			for _, call := range callsIn(n) {
				if at != nil {
					hs := slices.SortedFunc(maps.Values(s), func(a, b hold) int { return int(a.at - b.at) })
					at(call, hs)
				}
				switch h, takes, gives := change(call); {
				case takes:
					s[h.key] = h
				case gives:
					delete(s, h.key)
				}
			}
		}
		return s
	}
	// What is held at the beginning of a block is what all its predecessors leave
	// held. It only ever shrinks.
	in := map[*cfg.Block]state{g.Blocks[0]: {}}
	work := []*cfg.Block{g.Blocks[0]}
	for len(work) > 0 {
		b := work[0]
		work = work[1:]
		out := step(b, in[b], nil)
		for _, succ := range b.Succs {
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
			step(b, s, at)
		}
	}
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

// functions calls f for every function of the package with a body.
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
