// Package vet has analyzers for programs that use asyncsync.dev. They find
// mistakes that can end in a hang.
//
//   - outerctx: a ctx from outside in a function that was given its own
//   - rawwait: a wait on a thread, or a loop's thread, that the library cannot
//     see
//   - plaingo: a go statement whose calls wait for the function that made it
//   - lostclose: a context, handle or pool that is not closed
//   - lostlease: a lease of a pool that is not released
//   - handleescape: a handle's value that leaves its thread
//   - heldmutex: a mutex held across a wait of the library
//   - lockedtask: a task that waits with its thread locked
//
// The command asyncsync.dev/vet/cmd/asyncsyncvet runs them, by itself or under
// go vet. docs/vet has a page for each. Analyzers returns them for other
// drivers.
//
// The analyzers recognize the library by its types. They follow a function that
// is given to the library through variables, and through functions of any
// package that pass it on. If they cannot tell what runs where, they report
// nothing. They skip packages that do not import the library, directly or
// indirectly.
//
// A comment silences one of them on its own line, or on the line below if it
// stands alone:
//
//	//asyncsync:ignore rawwait nobody who sends here needs the thread
//
// The words after the name are the reason. Without a reason the comment has no
// effect, and the report says so.
//
// The form is that of Visual Studio's threading analyzers, which also have a
// page for each diagnostic. lostclose is go vet's lostcancel, for things to be
// closed.
package vet

import (
	"fmt"
	"go/ast"
	"go/token"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/passes/inspect"

	"asyncsync.dev/vet/internal/sites"
)

// Analyzers returns the analyzers in alphabetical order, in a new slice. Any
// driver of golang.org/x/tools/go/analysis may run all or some of them, also
// concurrently.
func Analyzers() []*analysis.Analyzer {
	return []*analysis.Analyzer{
		handleEscape,
		heldMutex,
		lockedTask,
		lostClose,
		lostLease,
		outerCtx,
		plainGo,
		rawWait,
	}
}

// newAnalyzer returns an analyzer whose run function is called for packages that
// can reach the library.
func newAnalyzer(name, doc string, run func(*pass), requires ...*analysis.Analyzer) *analysis.Analyzer {
	return &analysis.Analyzer{
		Name:     name,
		Doc:      doc + "\n\nThe page is docs/vet/" + name + ".md.",
		Requires: append([]*analysis.Analyzer{inspect.Analyzer, sites.Analyzer}, requires...),
		Run: func(p *analysis.Pass) (any, error) {
			r := p.ResultOf[sites.Analyzer].(*sites.Result)
			if r.Active {
				run(&pass{Pass: p, sites: r})
			}
			return nil, nil
		},
	}
}

// A pass is one run of one analyzer over one package.
type pass struct {
	*analysis.Pass
	sites *sites.Result

	ignored map[line]bool // whether there is a reason; nil before the first report

	// entered is what is held where function literals run that run where they
	// stand. heldAt sets it for those inside the function that it looks at.
	entered map[ast.Node]heldState
}

type line struct {
	file *token.File
	n    int
}

// report reports d unless a comment silences it.
func (p *pass) report(d analysis.Diagnostic) {
	if p.ignored == nil {
		p.readIgnored()
	}
	f := p.Fset.File(d.Pos)
	reason, ignored := p.ignored[line{f, f.Line(d.Pos)}]
	switch {
	case reason:
		return
	case ignored:
		d.Message += " (an asyncsync:ignore without a reason is none)"
	}
	p.Report(d)
}

func (p *pass) reportf(at ast.Node, format string, args ...any) {
	p.report(analysis.Diagnostic{Pos: at.Pos(), End: at.End(), Message: fmt.Sprintf(format, args...)})
}

// readIgnored collects the lines that comments silence for this analyzer: the
// comment's own line and, if nothing else is on it, the next line.
func (p *pass) readIgnored() {
	p.ignored = make(map[line]bool)
	for _, f := range p.Files {
		var code map[int]bool // lines on which something begins or ends
		for _, group := range f.Comments {
			for _, c := range group.List {
				rest, ok := strings.CutPrefix(c.Text, "//asyncsync:ignore")
				if !ok {
					continue
				}
				words := strings.Fields(rest)
				if len(words) == 0 || words[0] != p.Analyzer.Name {
					continue
				}
				file := p.Fset.File(c.Pos())
				if code == nil {
					code = make(map[int]bool)
					ast.Inspect(f, func(n ast.Node) bool {
						switch n.(type) {
						case nil, *ast.Comment, *ast.CommentGroup:
							return false
						}
						code[file.Line(n.Pos())], code[file.Line(n.End()-1)] = true, true
						return true
					})
				}
				n := file.Line(c.Pos())
				if !code[n] {
					n++
					// Comments may follow each other, one for each analyzer.
					for l := n; l < file.LineCount() && !code[l] && l < n+8; l++ {
						p.ignored[line{file, l + 1}] = len(words) > 1
					}
				}
				p.ignored[line{file, n}] = len(words) > 1
			}
		}
	}
}

// inTest reports whether n is in a test file.
func (p *pass) inTest(n ast.Node) bool {
	return strings.HasSuffix(p.Fset.File(n.Pos()).Name(), "_test.go")
}
