package docs_test

import (
	"context"
	"fmt"
	"go/ast"
	"go/format"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	// What the pages are about, so that the result of these tests is not taken
	// from the cache when it changes.
	_ "asyncsync.dev/asyncsync"
	_ "asyncsync.dev/deadlock"
	_ "asyncsync.dev/debugpage"
	_ "asyncsync.dev/local"
	_ "asyncsync.dev/loop"
	_ "asyncsync.dev/loop/looptest"
	_ "asyncsync.dev/network"
	_ "asyncsync.dev/portal"
	_ "asyncsync.dev/task"
	_ "asyncsync.dev/web"
)

// goPatience bounds a go command, so that a program on a page that hangs is
// reported as such. It is no part of any assertion.
const goPatience = 5 * time.Minute

// A page is one Markdown file, its path relative to the module's root.
type page struct {
	path, text string
}

func pages(t *testing.T) []page {
	t.Helper()
	paths, err := filepath.Glob("*.md")
	require.NoError(t, err)
	for _, folder := range []string{"deadlock", "porting", "rules", "vet"} {
		more, err := filepath.Glob(filepath.Join(folder, "*.md"))
		require.NoError(t, err)
		require.NotEmpty(t, more, folder)
		paths = append(paths, more...)
	}
	paths = append(paths, filepath.Join("..", "README.md"), filepath.Join("..", "CONTRIBUTING.md"), filepath.Join("..", "CHANGELOG.md"))
	var ps []page
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		ps = append(ps, page{filepath.ToSlash(filepath.Join("docs", path)), string(text)})
	}
	return ps
}

// A block is one fenced block of a page.
type block struct {
	where  string // file:line
	lang   string
	code   string
	output string // of the text block right below it, if there is one
}

// blocks returns the fenced blocks of the page.
func (p page) blocks(t *testing.T) []block {
	t.Helper()
	var (
		bs    []block
		open  bool
		blank = true // only blank lines since the last block
	)
	for i, line := range strings.SplitAfter(p.text, "\n") {
		info, fence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case fence && !open:
			open = true
			bs = append(bs, block{where: fmt.Sprintf("%s:%d", p.path, i+1), lang: info})
		case fence:
			open = false
			if n := len(bs); n > 1 && blank && bs[n-1].lang == "text" && bs[n-2].lang == "go" {
				bs[n-2].output = bs[n-1].code
			}
			blank = true
		case open:
			bs[len(bs)-1].code += line
		case strings.TrimSpace(line) != "":
			blank = false
		}
	}
	require.False(t, open, "%s ends inside a block", p.path)
	return bs
}

func goBlocks(t *testing.T) []block {
	t.Helper()
	var bs []block
	for _, p := range pages(t) {
		for _, b := range p.blocks(t) {
			if b.lang == "go" {
				bs = append(bs, b)
			}
		}
	}
	require.NotEmpty(t, bs)
	return bs
}

// imports are the packages that a fragment may use without saying so.
var imports = map[string]string{
	"asyncsync": "asyncsync.dev/asyncsync",
	"context":   "context",
	"deadlock":  "asyncsync.dev/deadlock",
	"debugpage": "asyncsync.dev/debugpage",
	"http":      "net/http",
	"web":       "asyncsync.dev/web",
	"errors":    "errors",
	"fmt":       "fmt",
	"local":     "asyncsync.dev/local",
	"loop":      "asyncsync.dev/loop",
	"net":       "net",
	"network":   "asyncsync.dev/network",
	"portal":    "asyncsync.dev/portal",
	"slog":      "log/slog",
	"sync":      "sync",
	"task":      "asyncsync.dev/task",
	"time":      "time",
}

// file returns the block as a complete file. A block without a package clause
// is a list of declarations, and gets one, and the imports that it needs.
func (b block) file(t *testing.T) (name, text string) {
	t.Helper()
	fset := token.NewFileSet()
	if _, err := parser.ParseFile(fset, "", b.code, parser.PackageClauseOnly); err == nil {
		f, err := parser.ParseFile(fset, b.where, b.code, 0)
		require.NoError(t, err)
		if strings.HasSuffix(f.Name.Name, "_test") {
			return "snippet_test.go", b.code
		}
		return "snippet.go", b.code
	}
	f, err := parser.ParseFile(fset, b.where, "package fragment; "+b.code, 0)
	require.NoError(t, err)
	var text0 strings.Builder
	text0.WriteString("package fragment\n\n")
	seen := map[string]bool{}
	for _, id := range f.Unresolved {
		if path := imports[id.Name]; path != "" && !seen[path] {
			seen[path] = true
			fmt.Fprintf(&text0, "import %q\n", path)
		}
	}
	// A fragment shows functions without calling them.
	text0.WriteString("\nvar (\n")
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
			fmt.Fprintf(&text0, "\t_ = %s\n", fn.Name.Name)
		}
	}
	text0.WriteString(")\n\n")
	return "snippet.go", text0.String() + b.code
}

// module writes the blocks as a module of its own that uses this one, a package
// each, and returns its folder and the patterns of the packages. Being foreign
// it cannot use what a reader could not.
func module(t *testing.T, bs []block) (dir string, pkgs []string) {
	t.Helper()
	dir = t.TempDir()
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	write := func(text string, path ...string) {
		file := filepath.Join(append([]string{dir}, path...)...)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o777))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o666))
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	require.NoError(t, err)
	_, requirements, found := strings.Cut(string(mod), "module asyncsync.dev\n")
	require.True(t, found, "go.mod")
	write(fmt.Sprintf("module pages.test\n%s\nrequire asyncsync.dev v0.0.0\n\nreplace asyncsync.dev => %q\n",
		requirements, filepath.ToSlash(root)), "go.mod")
	sum, err := os.ReadFile(filepath.Join(root, "go.sum"))
	require.NoError(t, err)
	write(string(sum), "go.sum")
	for i, b := range bs {
		name, text := b.file(t)
		pkg := fmt.Sprintf("s%02d", i)
		write(text, pkg, name)
		pkgs = append(pkgs, "./"+pkg)
	}
	return dir, pkgs
}

// goTool runs the go command in dir, without a workspace and without a network.
func goTool(t *testing.T, dir string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), goPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod", "GOPROXY=off")
	cmd.WaitDelay = time.Second
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// where adds to the output of the go command where its packages come from.
func where(bs []block, output string) string {
	for i, b := range bs {
		if pkg := fmt.Sprintf("s%02d", i); strings.Contains(output, pkg) {
			output += fmt.Sprintf("%s is %s\n", pkg, b.where)
		}
	}
	return output
}

func needGo(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("needs the go command:", err)
	}
}

// The code on the pages is formatted, compiles, and go vet finds nothing.
func TestCodeCompiles(t *testing.T) {
	needGo(t)
	bs := goBlocks(t)
	for _, b := range bs {
		formatted, err := format.Source([]byte(b.code))
		require.NoError(t, err, b.where)
		require.Equal(t, string(formatted), b.code, "gofmt would change %s", b.where)
	}
	dir, _ := module(t, bs)
	_, stderr, err := goTool(t, dir, "vet", "./...")
	require.NoError(t, err, where(bs, stderr))
}

// Code that needs what this module does not depend on is an excerpt from a file
// of another module, which its block names: there it is compiled and run.
func TestExcerptsAreThere(t *testing.T) {
	excerpts := 0
	for _, p := range pages(t) {
		for _, b := range p.blocks(t) {
			path, named := strings.CutPrefix(b.lang, "go ")
			if !named {
				continue
			}
			excerpts++
			text, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(path)))
			require.NoError(t, err, b.where)
			require.Contains(t, string(text), b.code, b.where)
		}
	}
	require.NotZero(t, excerpts)
}

// The programs that are followed by their output print it, and the tests pass.
func TestProgramsRun(t *testing.T) {
	needGo(t)
	if testing.Short() {
		t.Skip("builds a binary for each program")
	}
	bs := goBlocks(t)
	dir, pkgs := module(t, bs)
	bin := t.TempDir()
	programs := map[int]string{}
	build := []string{"build", "-o", bin + string(filepath.Separator)}
	for i, b := range bs {
		switch name, text := b.file(t); {
		case name == "snippet_test.go":
			stdout, stderr, err := goTool(t, dir, "test", "-count=1", pkgs[i])
			require.NoError(t, err, "%s\n%s%s", b.where, stdout, stderr)
		case b.output != "":
			require.True(t, strings.HasPrefix(text, "package main\n"), "%s is followed by output but is no program", b.where)
			exe := filepath.Base(pkgs[i])
			if runtime.GOOS == "windows" {
				exe += ".exe"
			}
			programs[i] = filepath.Join(bin, exe)
			build = append(build, pkgs[i])
		}
	}
	require.NotEmpty(t, programs)
	_, stderr, err := goTool(t, dir, build...)
	require.NoError(t, err, where(bs, stderr))
	for i, exe := range programs {
		ctx, cancel := context.WithTimeout(t.Context(), goPatience)
		cmd := exec.CommandContext(ctx, exe)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		cancel()
		require.NoError(t, err, "%s\n%s%s", bs[i].where, out, &stderr)
		require.Equal(t, bs[i].output, strings.ReplaceAll(string(out), "\r\n", "\n"), bs[i].where)
	}
}

// prose returns the page without its blocks.
func (p page) prose() string {
	var b strings.Builder
	open := false
	for line := range strings.Lines(p.text) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			open = !open
			continue
		}
		if !open {
			b.WriteString(line)
		}
	}
	return b.String()
}

var (
	codeSpan = regexp.MustCompile("`[^`]+`")
	link     = regexp.MustCompile(`\[[^\]]*\]\(([^)\s]+)\)`)
	anchor   = regexp.MustCompile(`<a id="([^"]+)"></a>`)
	notSlug  = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// anchors returns the anchors of the page: those of its headings, as GitHub makes
// them, and those that its text sets.
func (p page) anchors() map[string]bool {
	as := map[string]bool{}
	for _, m := range anchor.FindAllStringSubmatch(p.prose(), -1) {
		as[m[1]] = true
	}
	for line := range strings.Lines(p.prose()) {
		heading := strings.TrimLeft(line, "#")
		if heading == line || !strings.HasPrefix(heading, " ") {
			continue
		}
		slug := notSlug.ReplaceAllString(strings.ToLower(strings.TrimSpace(heading)), "")
		slug = strings.ReplaceAll(slug, " ", "-")
		for s, i := slug, 1; ; i++ {
			if !as[s] {
				as[s] = true
				break
			}
			s = fmt.Sprintf("%s-%d", slug, i)
		}
	}
	return as
}

// A row of the index of rules has the anchor of the rule that it links to, so that
// links to rules.md#anchor go on to lead somewhere. No rule is left out.
func TestRulesAreIndexed(t *testing.T) {
	var index page
	rules := map[string]string{} // the anchor of each section, and its page
	for _, p := range pages(t) {
		path, isRules := strings.CutPrefix(p.path, "docs/rules/")
		switch {
		case p.path == "docs/rules.md":
			index = p
		case isRules:
			title, sections, _ := strings.Cut(p.text, "\n")
			require.True(t, strings.HasPrefix(title, "# "), p.path)
			for a := range (page{text: sections}).anchors() {
				require.Empty(t, rules[a], "%s: %s is in two pages", p.path, a)
				rules[a] = path
			}
		}
	}
	require.NotEmpty(t, rules)
	for a, path := range rules {
		row := regexp.MustCompile(`(?m)^\| <a id="` + a + `"></a>.*\]\(rules/` + regexp.QuoteMeta(path) + `#` + a + `\) \|$`)
		require.Regexp(t, row, index.text, "the index does not list #%s of %s", a, path)
	}
}

// Relative links lead to files, and their fragments to headings.
func TestLinksResolve(t *testing.T) {
	ps := pages(t)
	byPath := map[string]page{}
	for _, p := range ps {
		byPath[p.path] = p
	}
	for _, p := range ps {
		for _, m := range link.FindAllStringSubmatch(codeSpan.ReplaceAllString(p.prose(), "code"), -1) {
			target, fragment, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, ":") {
				continue // another site
			}
			path := p.path
			if target != "" {
				path = filepath.ToSlash(filepath.Join(filepath.Dir(p.path), target))
				_, err := os.Stat(filepath.Join("..", filepath.FromSlash(path)))
				require.NoError(t, err, "%s links to %s", p.path, m[1])
			}
			if fragment != "" {
				to, known := byPath[path]
				require.True(t, known && to.anchors()[fragment], "%s links to %s: no such heading", p.path, m[1])
			}
		}
	}
}

// mention is a name of one of this module's packages, or of a type in one with
// a method or field, in a code span.
var mention = regexp.MustCompile(`\b(asyncsync|deadlock|debugpage|local|loop|network|portal|task|web)\.([A-Z]\w*)(?:\.([A-Z]\w*))?`)

// What the pages call pkg.Name exists.
func TestNamesExist(t *testing.T) {
	needGo(t)
	dir, _ := module(t, nil)
	stdout, stderr, err := goTool(t, dir, "list", "-export", "-deps", "-f", "{{.ImportPath}}\t{{.Export}}",
		"asyncsync.dev/asyncsync", "asyncsync.dev/deadlock", "asyncsync.dev/debugpage", "asyncsync.dev/local", "asyncsync.dev/loop", "asyncsync.dev/network", "asyncsync.dev/portal", "asyncsync.dev/task", "asyncsync.dev/web")
	require.NoError(t, err, stderr)
	exports := map[string]string{}
	for line := range strings.Lines(stdout) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), "\t")
		exports[path] = file
	}
	imp := importer.ForCompiler(token.NewFileSet(), "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(exports[path])
	})
	mentions := 0
	for _, p := range pages(t) {
		for _, span := range codeSpan.FindAllString(p.prose(), -1) {
			for _, m := range mention.FindAllStringSubmatch(span, -1) {
				if strings.HasPrefix(m[2], "Test") {
					continue // the tables of conformance are looked after where the tests are
				}
				mentions++
				pkg, err := imp.Import("asyncsync.dev/" + m[1])
				require.NoError(t, err)
				obj := pkg.Scope().Lookup(m[2])
				require.NotNil(t, obj, "%s mentions %s", p.path, m[0])
				if m[3] != "" {
					found, _, _ := types.LookupFieldOrMethod(obj.Type(), true, pkg, m[3])
					require.NotNil(t, found, "%s mentions %s", p.path, m[0])
				}
			}
		}
	}
	require.NotZero(t, mentions)
}
