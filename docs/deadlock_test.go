package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// diagnosis is a page of docs/deadlock, as errors and reports name it: in full,
// or by the constants that its name is put together from.
var diagnosis = regexp.MustCompile(`docs/deadlock/([a-z-]+)\.md|\bpage[A-Z]\w* +?= "([a-z-]+)"`)

// The pages that texts of the program name exist, have the same parts, and are
// listed.
func TestDiagnoses(t *testing.T) {
	named := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != ".." && strings.HasPrefix(d.Name(), "."):
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".go":
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range diagnosis.FindAllStringSubmatch(string(text), -1) {
			page := m[1] + m[2]
			named[page] = true
			if _, err := os.Stat(filepath.Join("deadlock", page+".md")); err != nil {
				t.Errorf("%s names docs/deadlock/%s.md: %v", path, page, err)
			}
		}
		return nil
	})
	require.NoError(t, err)
	for _, page := range []string{
		"raw-wait", "blocked-loop", "slow", "strict", "call-to-blocked-thread",
		"self-wait", "cycle-of-tasks", "group-member", "shutdown-inside", "serve-none", "full-pool", "limiter", "mutex",
	} {
		require.True(t, named[page], "nothing names %s any more", page)
	}

	index, err := os.ReadFile(filepath.Join("deadlock", "README.md"))
	require.NoError(t, err)
	paths, err := filepath.Glob(filepath.Join("deadlock", "*.md"))
	require.NoError(t, err)
	for _, path := range paths {
		name := filepath.Base(path)
		if name == "README.md" {
			continue
		}
		require.Contains(t, string(index), "]("+name+")", "the index does not list it")
		if name == "report.md" {
			continue
		}
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, part := range []string{"**What you see.**", "**Why.**", "**The cure.**", "**If it is meant.**", "```go"} {
			require.Contains(t, string(text), part, name)
		}
	}
}
