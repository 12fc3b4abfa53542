package vet

import (
	"go/ast"

	"golang.org/x/tools/go/analysis/passes/ctrlflow"

	"asyncsync.dev/vet/internal/sites"
)

var lockedTask = newAnalyzer("lockedtask", `find tasks that wait with their thread locked

A task of a thread loop is a coroutine. If it calls runtime.LockOSThread, and
waits before it has undone that, the Go runtime ends the process. All tasks of
such a loop are on one OS thread as it is.`, runLockedTask, ctrlflow.Analyzer)

func runLockedTask(p *pass) {
	p.functions(func(fn ast.Node) {
		if w := p.sites.Where(first(fn)); w.Role != sites.Loop || w.Site.Kind == sites.Goroutines {
			return
		}
		p.heldAt(fn, changes{of: p.threadLock}, func(w wait, held []hold) {
			p.reportf(w.at, "the task waits here with its thread locked, in line %d: on a thread loop that ends the process", p.Fset.Position(held[0].at).Line)
		})
	})
}

// first returns a node that is in fn itself.
func first(fn ast.Node) ast.Node { return sites.Body(fn) }

// threadLock says whether call locks the goroutine to its thread, or undoes it.
func (p *pass) threadLock(call *ast.CallExpr) (h hold, locks, unlocks bool) {
	f := sites.Callee(p.TypesInfo, call)
	if f == nil {
		return h, false, false
	}
	name := f.FullName()
	h = hold{key: "runtime", at: call.Pos()}
	return h, name == "runtime.LockOSThread", name == "runtime.UnlockOSThread"
}
