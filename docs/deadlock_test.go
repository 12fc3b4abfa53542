package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/deadlock"
)

// diagnosis is a page of docs/deadlock, as errors and reports name it: in full,
// or by the constants that its name is put together from.
var diagnosis = regexp.MustCompile(`docs/deadlock/([a-z-]+)\.md|\b[pP]age[A-Z]\w* += "([a-z-]+)"`)

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

// Each page is a constant of package deadlock, so that go doc opens it where the folder is
// not at hand. Its name is the one that texts are made to say, and its comment names the
// page and begins as that does.
func TestPagesAreConstants(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", "deadlock", "pages.go"), nil, parser.ParseComments)
	require.NoError(t, err)
	comments, values := map[string]string{}, map[string]string{}
	for _, d := range file.Decls {
		c, ok := d.(*ast.GenDecl)
		require.True(t, ok && c.Tok == token.CONST && len(c.Specs) == 1, "constants, each by itself: else go doc shows them all")
		spec := c.Specs[0].(*ast.ValueSpec)
		page, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		require.NoError(t, err)
		comments[page], values[page] = c.Doc.Text(), spec.Names[0].Name
	}
	paths, err := filepath.Glob(filepath.Join("deadlock", "*.md"))
	require.NoError(t, err)
	for _, path := range paths {
		page := strings.TrimSuffix(filepath.Base(path), ".md")
		if page == "README" || page == "report" {
			continue
		}
		comment, ok := comments[page]
		require.True(t, ok, "no constant has the page %s", page)
		delete(comments, page)
		require.Equal(t, "deadlock: m (see go doc asyncsync.dev/deadlock "+values[page]+")", (&deadlock.Error{Message: "m", Page: page}).Error())
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		title, _, _ := strings.Cut(strings.TrimPrefix(string(text), "# "), "\n")
		title = strings.ToLower(title[:1]) + title[1:]
		require.True(t, strings.HasPrefix(oneLine(comment), values[page]+" is about "+title+"."), "%s is about %s", values[page], title)
		require.Contains(t, comment, "docs/deadlock/"+page+".md.")
	}
	require.Empty(t, comments, "pages that are not there")
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// What an error says opens the page.
func TestGoDocOpensAPage(t *testing.T) {
	say := (&deadlock.Error{Page: deadlock.PageSelfWait}).Error()
	_, command, ok := strings.Cut(strings.TrimSuffix(say, ")"), "(see go ")
	require.True(t, ok, say)
	out, err := exec.Command("go", strings.Fields(command)...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "a task that waits for itself")
	require.NotContains(t, string(out), "PageMutex")
}
