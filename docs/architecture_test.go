package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/cycle"
)

func architecture(t *testing.T) page {
	t.Helper()
	text, err := os.ReadFile("architecture.md")
	require.NoError(t, err)
	return page{"docs/architecture.md", string(text)}
}

// sources returns the files of a package but its tests, parsed.
func sources(t *testing.T, dir string, mode parser.Mode) []*ast.File {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("..", filepath.FromSlash(dir), "*.go"))
	require.NoError(t, err)
	var files []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, mode)
		require.NoError(t, err)
		files = append(files, f)
	}
	require.NotEmpty(t, files, dir)
	return files
}

var (
	importsRow = regexp.MustCompile("(?m)^\\| `([a-z/]+)` \\| .* \\|([^|]*)\\|$")
	floorLine  = regexp.MustCompile(`(?m)^floor (\d)   (.*)$`)
	spanned    = regexp.MustCompile("`([^`]+)`")
)

// The table of imports is what the packages import, and the floors are theirs: a
// package imports those of lower floors only.
func TestArchitectureHasTheImports(t *testing.T) {
	text := architecture(t).text
	floors := map[string]string{}
	for _, m := range floorLine.FindAllStringSubmatch(text, -1) {
		for _, pkg := range strings.Fields(m[2]) {
			floors[pkg] = m[1]
		}
	}
	rows := 0
	for _, m := range importsRow.FindAllStringSubmatch(text, -1) {
		pkg := m[1]
		if floors[pkg] == "" {
			continue // of another table
		}
		rows++
		listed := []string{}
		for _, span := range spanned.FindAllStringSubmatch(m[2], -1) {
			listed = append(listed, span[1])
		}
		imported := []string{}
		for _, f := range sources(t, pkg, parser.ImportsOnly) {
			for _, spec := range f.Imports {
				path, err := strconv.Unquote(spec.Path.Value)
				require.NoError(t, err)
				if own, ok := strings.CutPrefix(path, "asyncsync.dev/"); ok {
					imported = append(imported, own)
					require.Less(t, floors[own], floors[pkg], "%s imports %s", pkg, own)
				}
			}
		}
		slices.Sort(imported)
		require.Equal(t, slices.Compact(imported), listed, pkg)
	}
	require.Equal(t, len(floors), rows, "a package has a floor and no row")
}

// declared returns what the packages that the page is about declare: functions,
// types, variables and constants by name, and methods and fields by Type.name.
func declared(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, dir := range []string{"internal/core", "internal/cycle", "internal/sched", "internal/spin", "asyncsync", "task", "deadlock"} {
		for _, f := range sources(t, dir, parser.SkipObjectResolution) {
			for _, d := range f.Decls {
				switch d := d.(type) {
				case *ast.FuncDecl:
					name := d.Name.Name
					if d.Recv != nil {
						name = receiver(d.Recv.List[0].Type) + "." + name
					}
					names[name] = true
				case *ast.GenDecl:
					for _, spec := range d.Specs {
						switch s := spec.(type) {
						case *ast.ValueSpec:
							for _, n := range s.Names {
								names[n.Name] = true
								fields(names, n.Name, s.Type)
							}
						case *ast.TypeSpec:
							names[s.Name.Name] = true
							fields(names, s.Name.Name, s.Type)
						}
					}
				}
			}
		}
	}
	promote(names)
	return names
}

func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	}
	return e.(*ast.Ident).Name
}

// fields adds the fields of a struct, and the methods of an interface.
func fields(names map[string]bool, of string, e ast.Expr) {
	var list *ast.FieldList
	switch e := e.(type) {
	case *ast.StructType:
		list = e.Fields
	case *ast.InterfaceType:
		list = e.Methods
	default:
		return
	}
	for _, f := range list.List {
		for _, n := range f.Names {
			names[of+"."+n.Name] = true
		}
		if id, ok := f.Type.(*ast.Ident); ok && len(f.Names) == 0 {
			embedded[of] = append(embedded[of], id.Name)
		}
	}
}

// embedded has the names of the types that a struct embeds, of its own package.
var embedded = map[string][]string{}

// promote adds the fields and methods that structs have from what they embed.
func promote(names map[string]bool) {
	for of, parts := range embedded {
		for _, part := range parts {
			for name := range maps.Clone(names) {
				if rest, ok := strings.CutPrefix(name, part+"."); ok {
					names[of+"."+rest] = true
				}
			}
		}
	}
}

// identifier is a name of the code, alone or with the type that it belongs to.
var identifier = regexp.MustCompile(`^(?:core\.)?([A-Za-z]\w*(?:\.[A-Za-z]\w*)?)$`)

var benchmark = regexp.MustCompile(`(?m)^func Benchmark(\w+)`)

// What the page calls by a name of the code has that name; files and
// benchmarks are there.
func TestArchitectureNamesTheCode(t *testing.T) {
	names := declared(t)
	for _, word := range []string{"nil", "core.Options", "GOMAXPROCS", "MaxThreads", "TestAllocs"} {
		names[word] = true
	}
	benchmarks := map[string]bool{}
	paths, err := filepath.Glob(filepath.Join("..", "bench", "*_test.go"))
	require.NoError(t, err)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, m := range benchmark.FindAllStringSubmatch(string(text), -1) {
			benchmarks[m[1]] = true
		}
	}
	checked := 0
	for _, m := range spanned.FindAllStringSubmatch(architecture(t).prose(), -1) {
		span := m[1]
		id := identifier.FindStringSubmatch(span)
		pkg, _, ofType := strings.Cut(span, ".")
		switch _, err := os.Stat(filepath.Join("..", filepath.FromSlash(span))); {
		case strings.HasSuffix(span, ".go"):
			if !strings.Contains(span, "/") {
				_, err = os.Stat(filepath.Join("..", "internal", "core", span))
			}
			assert.NoError(t, err)
		case strings.Contains(span, "/engine=") || strings.Contains(span, "/mode=") || strings.HasSuffix(span, " -benchmem"):
			name, _, _ := strings.Cut(strings.TrimSuffix(span, " -benchmem"), "/")
			assert.True(t, benchmarks[name], "there is no benchmark %s", span)
		case err == nil || id == nil || mention.MatchString(span) || ofType && (pkg == "runtime" || pkg == "looptest"):
			continue // a package, a command, or what TestNamesExist looks at
		default:
			assert.True(t, names[span] || names[id[1]] || benchmarks[span], "the code has no %s", span)
		}
		checked++
	}
	require.Greater(t, checked, 100)
}

// Every kind of wait that package core knows has a phrase, and is among the kinds that
// the reports document.
func TestKindsOfWaits(t *testing.T) {
	comment := func(dir, name string) string {
		for _, f := range sources(t, dir, parser.ParseComments) {
			for _, d := range f.Decls {
				if g, ok := d.(*ast.GenDecl); ok {
					for _, s := range g.Specs {
						if ts, ok := s.(*ast.TypeSpec); ok && ts.Name.Name == name {
							for _, field := range ts.Type.(*ast.StructType).Fields.List {
								if field.Names[0].Name == "Kind" {
									return field.Comment.Text()
								}
							}
						}
					}
				}
			}
		}
		require.Fail(t, "no "+name+" in "+dir)
		return ""
	}
	row := ""
	text, err := os.ReadFile("deadlock/report.md")
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "| `wait.kind` |") {
			row = strings.Split(line, "|")[3]
		}
	}
	kinds := 0
	for _, f := range sources(t, "internal/core", 0) {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Name.Name != "kind" || len(fn.Body.List) != 1 {
				continue
			}
			lit, ok := fn.Body.List[0].(*ast.ReturnStmt).Results[0].(*ast.BasicLit)
			if !ok {
				continue
			}
			kind, err := strconv.Unquote(lit.Value)
			require.NoError(t, err)
			if kind == "" {
				continue
			}
			kinds++
			assert.NotEmpty(t, cycle.Phrase(kind, "x"), "kind %q has no phrase in internal/cycle", kind)
			for where, list := range map[string]string{
				"core.WaitState.Kind":     comment("internal/core", "WaitState"),
				"deadlock.Wait.Kind":      comment("deadlock", "Wait"),
				"docs/deadlock/report.md": row,
			} {
				listed := strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ';' })
				assert.True(t, slices.ContainsFunc(listed, func(s string) bool { return strings.TrimSpace(s) == kind }), "%s does not name the kind %q", where, kind)
			}
		}
	}
	require.Greater(t, kinds, 9, "kinds of waits that this test has found")
}
