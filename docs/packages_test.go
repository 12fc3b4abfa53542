package docs_test

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every package has a comment, every exported name of a public one is
// documented, and every public package has an example whose output is checked.
func TestPackagesAreDocumented(t *testing.T) {
	root := os.DirFS("..")
	var dirs []string
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if name := d.Name(); path != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "tools") {
			return fs.SkipDir
		}
		if path != "." {
			if _, err := fs.Stat(root, filepath.Join(path, "go.mod")); err == nil {
				return fs.SkipDir // another module
			}
		}
		dirs = append(dirs, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, dir := range dirs {
		files := token.NewFileSet()
		var all []*ast.File
		sources, _ := filepath.Glob(filepath.Join("..", dir, "*.go"))
		for _, name := range sources {
			f, err := parser.ParseFile(files, name, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, f)
		}
		if len(all) == 0 {
			continue
		}
		p, err := doc.NewFromFiles(files, all, "asyncsync.dev/"+filepath.ToSlash(dir))
		if err != nil {
			t.Fatalf("%s: %v", dir, err)
		}
		checked++
		if p.Doc == "" {
			t.Errorf("package %s has no comment", dir)
		}
		if strings.HasPrefix(dir, "internal") || dir == "docs" {
			continue
		}
		for _, name := range undocumented(p) {
			t.Errorf("%s.%s is exported without a comment", dir, name)
		}
		if !hasOutput(p) {
			t.Errorf("package %s has no example with output", dir)
		}
	}
	if checked < 8 {
		t.Fatalf("only %d packages were found", checked)
	}
}

func undocumented(p *doc.Package) (names []string) {
	funcs := func(prefix string, fs []*doc.Func) {
		for _, f := range fs {
			if f.Doc == "" {
				names = append(names, prefix+f.Name)
			}
		}
	}
	values := func(vs []*doc.Value) {
		for _, v := range vs {
			for _, spec := range v.Decl.Specs {
				s := spec.(*ast.ValueSpec)
				if v.Doc == "" && s.Doc == nil && s.Comment == nil && s.Names[0].IsExported() {
					names = append(names, s.Names[0].Name)
				}
			}
		}
	}
	funcs("", p.Funcs)
	values(p.Consts)
	values(p.Vars)
	for _, typ := range p.Types {
		if typ.Doc == "" {
			names = append(names, typ.Name)
		}
		funcs("", typ.Funcs)
		funcs(typ.Name+".", typ.Methods)
		values(typ.Consts)
		values(typ.Vars)
	}
	return names
}

func hasOutput(p *doc.Package) bool {
	examples := p.Examples
	for _, f := range p.Funcs {
		examples = append(examples, f.Examples...)
	}
	for _, typ := range p.Types {
		examples = append(examples, typ.Examples...)
		for _, f := range append(typ.Funcs, typ.Methods...) {
			examples = append(examples, f.Examples...)
		}
	}
	for _, e := range examples {
		if e.Output != "" {
			return true
		}
	}
	return false
}
