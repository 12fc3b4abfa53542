package vet

import (
	"go/ast"
	"go/token"
	"go/types"
	"path/filepath"

	"golang.org/x/tools/go/analysis/passes/ctrlflow"

	"asyncsync.dev/vet/internal/sites"
)

var heldMutex = newAnalyzer("heldmutex", `find mutexes that are held across a wait of the library

While sync code waits, its thread runs other functions on top of it, and while a
task of a thread loop waits, the loop runs others: if one of them locks the mutex
that the first one holds, that is a deadlock. In other code a mutex may be held
while a thread is called, unless functions on a thread lock it as well.`, runHeldMutex, ctrlflow.Analyzer)

func runHeldMutex(p *pass) {
	onThread := p.lockedOnThread()
	p.functions(func(fn ast.Node) {
		p.heldAt(fn, changes{of: p.mutex, tries: p.tryMutex}, func(w wait, held []hold) {
			h := held[0]
			call := w.call
			where := p.sites.Where(w.at)
			switch {
			case where.Role == sites.Thread:
				if own[w.name] && !p.sites.HasOption(call, "On") {
					if !p.servesInside(call) {
						return
					}
				}
				if p.sameHandle(call, where.Site) {
					return // inline
				}
				p.reportf(w.at, "%s is held while the thread waits here, and serves: who it serves may lock it, too", h.name)
			case where.Role == sites.Loop && where.Site.Kind == sites.ThreadLoop:
				p.reportf(w.at, "%s is held while the task waits here: a task that locks it meanwhile blocks the loop", h.name)
			default:
				if !p.sites.CallsThread(call) || p.sites.HasOption(call, "On") {
					return
				}
				for _, h := range held {
					for _, l := range onThread[h.key.(mutexKey).v] {
						if l.known && l.handle != p.handle(call) {
							continue // another thread
						}
						at := p.Fset.Position(l.at)
						p.reportf(w.at, "%s is held while a thread is waited for here, and is locked on a thread in line %d of %s", h.name, at.Line, filepath.Base(at.Filename))
						return
					}
				}
			}
		})
	})
}

// servesInside reports whether call is known to be a call of one of
// AsyncToSync's functions, which waits on a thread.
func (p *pass) servesInside(call *ast.CallExpr) bool {
	v := p.sites.Var(call.Fun)
	if v == nil {
		return false
	}
	defs := p.sites.Defs(v)
	if len(defs) != 1 {
		return false
	}
	made, ok := defs[0].X.(*ast.CallExpr)
	if !ok {
		return false
	}
	n, ok := sites.NameOf(sites.Callee(p.TypesInfo, made))
	return ok && n.Name == "AsyncToSync"
}

// sameHandle reports whether call goes to the handle on whose thread it is
// made.
func (p *pass) sameHandle(call *ast.CallExpr, s *sites.Site) bool {
	h := p.handle(call)
	return h != nil && h == p.handle(s.Call)
}

// A mutexKey is one mutex: a variable or field, and its name in the code.
type mutexKey struct {
	v    *types.Var
	root *types.Var
	name string
	read bool
}

// mutex says whether call locks or unlocks a mutex.
func (p *pass) mutex(call *ast.CallExpr) (h hold, locks, unlocks bool) {
	h, name := p.mutexCall(call)
	return h, name == "Lock" || name == "RLock", name == "Unlock" || name == "RUnlock"
}

// tryMutex says whether call locks a mutex if it returns true.
func (p *pass) tryMutex(call *ast.CallExpr) (h hold, ok bool) {
	h, name := p.mutexCall(call)
	return h, name == "TryLock" || name == "TryRLock"
}

// mutexCall returns the mutex that call calls a method of, and the name of the
// method, "" if there is none.
func (p *pass) mutexCall(call *ast.CallExpr) (h hold, method string) {
	f := sites.Callee(p.TypesInfo, call)
	if !isMethod(f, "sync", "Mutex") && !isMethod(f, "sync", "RWMutex") {
		return h, ""
	}
	sel, ok := ast.Unparen(call.Fun).(*ast.SelectorExpr)
	if !ok {
		return h, ""
	}
	v := p.sites.Var(sel.X)
	if v == nil {
		return h, ""
	}
	key := mutexKey{v: v, root: p.sites.Root(sel.X), name: types.ExprString(sel.X)}
	switch f.Name() {
	case "RLock", "RUnlock", "TryRLock":
		key.read = true
	}
	return hold{key: key, name: key.name, at: call.Pos()}, f.Name()
}

// A mutexLock is a place where sync code locks a mutex. If the thread is known,
// handle is the variable of its handle, or nil for the thread of a ctx.
type mutexLock struct {
	at     token.Pos
	known  bool
	handle *types.Var
}

// lockedOnThread returns the mutexes that functions on a thread lock, and
// where: in their own text, or in that of functions of the package that they
// call.
func (p *pass) lockedOnThread() map[*types.Var][]mutexLock {
	locked := make(map[*types.Var][]mutexLock)
	for _, s := range p.sites.Sites {
		if s.Role != sites.Thread || s.Fn == nil || s.Name.Name == "Open" { // a new thread of its own
			continue
		}
		known := s.Name != (sites.Name{}) && !p.sites.HasOption(s.Call, "On")
		seen := make(map[ast.Node]bool)
		var visit func(fn ast.Node)
		visit = func(fn ast.Node) {
			if seen[fn] || sites.Body(fn) == nil {
				return
			}
			seen[fn] = true
			ast.Inspect(sites.Body(fn), func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok || p.sites.Where(call).Fn != fn {
					return true
				}
				if h, locks, _ := p.mutex(call); locks {
					v := h.key.(mutexKey).v
					locked[v] = append(locked[v], mutexLock{call.Pos(), known, p.handle(s.Call)})
				}
				if f := sites.Callee(p.TypesInfo, call); f != nil {
					if d := p.sites.Decl(f); d != nil && len(p.sites.SitesOf(d)) == 0 {
						if _, started := p.sites.Parent(call).(*ast.GoStmt); !started {
							visit(d)
						}
					}
				}
				return true
			})
		}
		visit(s.Fn)
	}
	return locked
}
