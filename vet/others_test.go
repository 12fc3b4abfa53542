package vet_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/tools/go/analysis/checker"
	"golang.org/x/tools/go/packages"

	"asyncsync.dev/vet"
	"asyncsync.dev/vet/internal/sites"
)

// others are packages of other people that the module needs anyway, and a good
// deal of the standard library: code with goroutines, channels, contexts and
// mutexes.
var others = []string{
	"golang.org/x/tools/go/...", "golang.org/x/tools/internal/...", "golang.org/x/sync/...", "golang.org/x/mod/...",
	"github.com/stretchr/testify/...", "github.com/petermattis/goid", "go.yaml.in/yaml/v3",
	"net/...", "crypto/tls/...", "database/sql/...", "context", "sync/...", "testing/...", "os/...", "encoding/...", "log/...", "runtime/...",
}

// Of code that does not use the library nothing is reported, and no analyzer
// fails on it, although the test has them look where they would not. It says how
// much that is.
func TestOthers(t *testing.T) {
	if testing.Short() {
		t.Skip("looks at more than a hundred thousand lines")
	}
	sites.Everywhere = true
	defer func() { sites.Everywhere = false }()
	pkgs, err := packages.Load(&packages.Config{Mode: packages.LoadAllSyntax | packages.NeedModule}, others...)
	require.NoError(t, err)
	sound := pkgs[:0]
	lines, files := 0, 0
	for _, p := range pkgs {
		// Some want modules that this one does not need.
		if p.IllTyped || len(p.Errors) > 0 || p.Module != nil && p.Module.Main {
			continue
		}
		sound = append(sound, p)
		for _, file := range p.CompiledGoFiles {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			lines += bytes.Count(text, []byte("\n"))
			files++
		}
	}
	require.Greater(t, lines, 100_000)
	graph, err := checker.Analyze(vet.Analyzers(), sound, nil)
	require.NoError(t, err)
	for action := range graph.All() {
		require.NoError(t, action.Err, "%v", action)
		for _, d := range action.Diagnostics {
			t.Errorf("%s: %s: %s", action.Package.Fset.Position(d.Pos), action.Analyzer, d.Message)
		}
	}
	t.Logf("nothing in %d lines of %d files of %d packages", lines, files, len(sound))
}
