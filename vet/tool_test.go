package vet_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/vet"
)

// patience bounds a go command, so that one that hangs is reported as such. It
// is no part of any assertion.
const patience = 10 * time.Minute

var built struct {
	sync.Once
	dir, out string
	err      error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// tool builds the command and returns its path.
func tool(t *testing.T) string {
	t.Helper()
	built.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "asyncsyncvet"); built.err != nil {
			return
		}
		out, err := exec.Command("go", "build", "-o", built.dir, "./cmd/asyncsyncvet").CombinedOutput()
		built.out, built.err = string(out), err
	})
	require.NoError(t, built.err, built.out)
	return filepath.Join(built.dir, "asyncsyncvet")
}

// A finding is one report of an analyzer.
type finding struct {
	analyzer string
	file     string // without its folder
	line     string
	message  string
}

// find runs the command, or go vet with it, in dir, and returns what it reports,
// each report once: files belong to a package and to its test.
func find(t *testing.T, dir string, args ...string) []finding {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	require.NoError(t, cmd.Run(), "%s%s", &stdout, &stderr)
	var fs []finding
	// go vet has its JSON among lines that begin with a #, and writes it to
	// either side, depending on its version.
	text := regexp.MustCompile(`(?m)^(#|go: ).*$`).ReplaceAllString(stdout.String()+stderr.String(), "")
	for d := json.NewDecoder(strings.NewReader(text)); d.More(); {
		var packages map[string]map[string]json.RawMessage
		require.NoError(t, d.Decode(&packages), text)
		for _, analyzers := range packages {
			for analyzer, raw := range analyzers {
				var ds []struct{ Posn, Message string }
				require.NoError(t, json.Unmarshal(raw, &ds), "%s", raw)
				for _, d := range ds {
					parts := strings.Split(filepath.Base(d.Posn), ":")
					f := finding{analyzer, parts[0], parts[1], d.Message}
					if !slices.Contains(fs, f) {
						fs = append(fs, f)
					}
				}
			}
		}
	}
	return fs
}

// wanted is what the comments of the files say that is to be found.
func wanted(t *testing.T, files ...string) (w []string) {
	t.Helper()
	comment := regexp.MustCompile(`// want (\w+):`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		n := 0
		for line := range strings.Lines(string(text)) {
			n++
			for _, m := range comment.FindAllStringSubmatch(line, -1) {
				w = append(w, fmt.Sprintf("%s:%d %s", filepath.Base(file), n, m[1]))
			}
		}
	}
	require.NotEmpty(t, w)
	return w
}

func found(fs []finding) (w []string) {
	for _, f := range fs {
		w = append(w, f.file+":"+f.line+" "+f.analyzer)
	}
	return w
}

// The command finds the same by itself and below go vet, where what one package
// knows of its functions reaches the others through files.
func TestCommand(t *testing.T) {
	want := wanted(t, "testdata/handedon/use/use.go")
	t.Run("alone", func(t *testing.T) {
		require.ElementsMatch(t, want, found(find(t, ".", tool(t), "-json", "./testdata/handedon/...")))
	})
	t.Run("go vet", func(t *testing.T) {
		require.ElementsMatch(t, want, found(find(t, ".", "go", "vet", "-json", "-vettool="+tool(t), "./testdata/handedon/...")))
	})
}

// A plant is a mistake: old, which is in the file once, is replaced by new, the
// line of which that ends with "// here" is to be reported.
type plant struct {
	analyzer, file, old, new string
}

// plants has for each analyzer a mistake in the example, as somebody might make
// it there.
var plants = []plant{
	{
		"outerctx", "server.go",
		`		page.Notes, err = s.renderNotes(ctx, on, page.Filter)`,
		`		page.Notes, err = s.renderNotes(r.Context(), on, page.Filter)
		outer := r.Context()
		_ = s.store.db.Do(outer, func(ctx context.Context, _ *sqlite.Conn) error {
			_, err := s.renderTags(outer, on) // here
			return err
		})`,
	},
	{
		"outerctx", "store.go",
		`		return fn(s.enter(ctx), conn)`,
		`		_, _ = s.tags(outer, 1) // here
		return fn(s.enter(ctx), conn)`,
	},
	{
		"rawwait", "store.go",
		`		s.usage.record(0)
		return openConn(path)`,
		`		s.usage.record(0)
		opened := make(chan *sqlite.Conn)
		go func() {
			conn, err := openConn(path)
			_, _ = s.tags(context.Background(), 1)
			if err == nil {
				opened <- conn
			}
		}()
		return <-opened, nil // here`,
	},
	{
		"plaingo", "store.go",
		`		s.enter(ctx)
		defer conn`,
		`		s.enter(ctx)
		go query(ctx, s, name, fn) // here
		defer conn`,
	},
	{
		"handleescape", "store.go",
		`		return fn(conn)`,
		`		s.last = conn // here
		return fn(conn)`,
	},
	{
		"lostclose", "server.go",
		`func (s *server) handler() http.Handler {`,
		`func warm(ctx context.Context) error {
	_, tsc := asyncsync.NewThreadSensitiveContext(ctx) // here
	_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 1, nil }, asyncsync.On(tsc))
	return err
}

func (s *server) handler() http.Handler {`,
	},
	{
		"lostlease", "server.go",
		`func (s *server) handler() http.Handler {`,
		`func borrow(ctx context.Context, p *asyncsync.HandlePool[int]) error {
	l, err := p.Acquire(ctx) // here
	if err != nil {
		return err
	}
	return l.Do(ctx, func(context.Context, int) error { return nil })
}

func (s *server) handler() http.Handler {`,
	},
	{
		"heldmutex", "store.go",
		`func (s *store) close() error {`,
		`func (s *store) exclusive(ctx context.Context, fetch func(context.Context) (int, error)) error {
	return s.do(ctx, "exclusive", func(ctx context.Context, _ *sqlite.Conn) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		_, err := asyncsync.FromThread(ctx, fetch) // here
		return err
	})
}

func (s *store) close() error {`,
	},
	{
		"lockedtask", "server.go",
		`func (s *server) renderNotes(`,
		`func pause(ctx context.Context, b loop.Backend) error {
	return b.Spawn(ctx, func(ctx context.Context) {
		runtime.LockOSThread()
		_ = b.Park(ctx, func(wake func()) { wake() }) // here
		runtime.UnlockOSThread()
	})
}

func (s *server) renderNotes(`,
	},
}

// changes are what the planted mistakes need around them to compile.
var changes = []plant{
	{"", "server.go", `	"asyncsync.dev/task"`, `	"asyncsync.dev/loop"
	"asyncsync.dev/task"

	"zombiezen.com/go/sqlite"`},
	{"", "server.go", `	"net/http"
`, `	"net/http"
	"runtime"
`},
	{"", "store.go", `	"fmt"
`, `	"fmt"
	"sync"
`},
	{"", "store.go", `	usage   usageLog`, `	usage   usageLog
	last    *sqlite.Conn
	mu      sync.Mutex`},
	{"", "store.go", `	return s.db.Do(ctx, func(ctx context.Context, conn`, `	outer := ctx
	return s.db.Do(ctx, func(ctx context.Context, conn`},
}

// In the example the mistakes that are planted are found, and nothing else: not
// before, and not with them.
func TestPlanted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "notes")
	require.NoError(t, os.CopyFS(dir, os.DirFS("../examples/notes")))
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	edit := func(file, old, new string) {
		path := filepath.Join(dir, file)
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, 1, strings.Count(string(text), old), "%s has not once:\n%s", file, old)
		require.NoError(t, os.WriteFile(path, []byte(strings.Replace(string(text), old, new, 1)), 0o666))
	}
	edit("go.mod", "asyncsync.dev => ../..", fmt.Sprintf("asyncsync.dev => %q", filepath.ToSlash(root)))
	run := func() []finding {
		// Below go vet, which remembers what it has found out of packages that
		// do not change. Tests of the example make mistakes of their own.
		return slices.DeleteFunc(find(t, dir, "go", "vet", "-json", "-vettool="+tool(t), "."), func(f finding) bool {
			return strings.HasSuffix(f.file, "_test.go")
		})
	}
	require.Empty(t, run(), "before")
	seen := make(map[string]bool)
	for _, p := range append(changes, plants...) {
		edit(p.file, p.old, p.new)
		seen[p.analyzer] = true
	}
	for _, a := range vet.Analyzers() {
		require.True(t, seen[a.Name], "nothing is planted for %s", a.Name)
	}
	var want []string
	for _, file := range []string{"server.go", "store.go"} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		require.NoError(t, err)
		n := 0
		for line := range strings.Lines(string(text)) {
			n++
			if !strings.HasSuffix(line, "// here\n") {
				continue
			}
			for _, p := range plants {
				for l := range strings.Lines(p.new) {
					if p.file == file && strings.TrimRight(l, "\n") == strings.TrimRight(line, "\n") {
						want = append(want, fmt.Sprintf("%s:%d %s", file, n, p.analyzer))
					}
				}
			}
		}
	}
	require.Len(t, want, len(plants))
	require.ElementsMatch(t, want, found(run()))
}

// A block of a page is Go code between fences.
var block = regexp.MustCompile("(?ms)^```go\n(.*?)^```$")

// What a page of docs/vet shows as before is found by the analyzer that has its
// name, and by no other, and nothing is found in the rest: neither in the cure
// nor where a comment silences it.
func TestPages(t *testing.T) {
	pages, err := filepath.Glob("../docs/vet/*.md")
	require.NoError(t, err)
	var names []string
	for _, a := range vet.Analyzers() {
		names = append(names, a.Name)
	}
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o666))
	}
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	mod, err := os.ReadFile("../go.mod")
	require.NoError(t, err)
	write("go.mod", strings.Replace(string(mod), "module asyncsync.dev\n", "module pages.test\n", 1)+
		fmt.Sprintf("\nrequire asyncsync.dev v0.0.0\n\nreplace asyncsync.dev => %q\n", filepath.ToSlash(root)))
	sum, err := os.ReadFile("../go.sum")
	require.NoError(t, err)
	write("go.sum", string(sum))

	want := make(map[string]string) // the file to the analyzer, "" for none
	var paged []string
	for _, page := range pages {
		name := strings.TrimSuffix(filepath.Base(page), ".md")
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		if name != "README" {
			paged = append(paged, name)
			for _, part := range []string{"**What you see.**", "**Why.**", "**The cure.**", "**If it is meant.**", "//asyncsync:ignore " + name + " "} {
				require.Contains(t, string(text), part, page)
			}
		}
		befores := 0
		for i, m := range block.FindAllStringSubmatch(string(text), -1) {
			file := fmt.Sprintf("%s%d.go", name, i)
			write(filepath.Join(strings.TrimSuffix(file, ".go"), file), complete(t, m[1]))
			want[file] = ""
			switch {
			case name == "README" && strings.Contains(m[1], "// outerctx:"):
				want[file] = "outerctx"
			case regexp.MustCompile(`(?i)\bbefore\(`).MatchString(m[1]):
				want[file] = name
				befores++
			}
		}
		require.True(t, befores == 1 || name == "README", "%s shows %d mistakes", page, befores)
	}
	require.ElementsMatch(t, names, paged, "a page for each")

	got := make(map[string]string)
	for file := range want {
		got[file] = ""
	}
	for _, f := range find(t, dir, tool(t), "-json", "./...") {
		if got[f.file] == "" {
			got[f.file] = f.analyzer
		} else if got[f.file] != f.analyzer {
			got[f.file] += " and " + f.analyzer
		}
	}
	require.Equal(t, want, got)
}

// complete makes a file of a fragment: it adds the package clause, and imports.
func complete(t *testing.T, code string) string {
	t.Helper()
	fset := token.NewFileSet()
	if _, err := parser.ParseFile(fset, "", code, parser.PackageClauseOnly); err == nil {
		return code
	}
	f, err := parser.ParseFile(fset, "", "package fragment; "+code, 0)
	require.NoError(t, err)
	imports := map[string]string{"asyncsync": "asyncsync.dev/asyncsync", "loop": "asyncsync.dev/loop", "task": "asyncsync.dev/task"}
	var b strings.Builder
	b.WriteString("package fragment\n\n")
	seen := make(map[string]bool)
	for _, id := range f.Unresolved {
		if seen[id.Name] || ast.IsExported(id.Name) {
			continue
		}
		seen[id.Name] = true
		switch path := imports[id.Name]; {
		case path != "":
			fmt.Fprintf(&b, "import %q\n", path)
		case slices.Contains([]string{"context", "errors", "sync", "time"}, id.Name):
			fmt.Fprintf(&b, "import %q\n", id.Name)
		}
	}
	return b.String() + "\n" + code
}
