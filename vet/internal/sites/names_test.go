package sites_test

import (
	"go/types"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/tools/go/packages"

	// What the names are compared with, so that the result is not taken from the
	// cache when it changes.
	_ "asyncsync.dev/asyncsync"
	_ "asyncsync.dev/loop"
	_ "asyncsync.dev/task"

	"asyncsync.dev/vet/internal/sites"
)

// Every function of the library that is given a function with a ctx is known,
// and every one that is known is there: a new one is not forgotten, nor a
// renamed one.
func TestGivers(t *testing.T) {
	pkgs, err := packages.Load(&packages.Config{Mode: packages.NeedTypes | packages.NeedImports | packages.NeedDeps | packages.NeedSyntax | packages.NeedTypesInfo | packages.NeedName},
		"asyncsync.dev/asyncsync", "asyncsync.dev/task", "asyncsync.dev/loop")
	require.NoError(t, err)
	require.Len(t, pkgs, 3)
	got := make(map[sites.Name]int)
	look := func(f *types.Func) {
		name, ok := sites.NameOf(f)
		if !ok || !f.Exported() {
			return
		}
		if known, ok := sites.Givers()[name]; ok && name.Name == "Post" {
			got[name] = known // of functions without a ctx these alone are followed
		}
		params := f.Signature().Params()
		for i := range params.Len() {
			typ := params.At(i).Type()
			if rest, ok := typ.(*types.Slice); ok && f.Signature().Variadic() {
				typ = rest.Elem()
			}
			fn, ok := typ.Underlying().(*types.Signature)
			if ok && fn.Params().Len() > 0 && sites.IsContext(fn.Params().At(0).Type()) {
				got[name] = i
			}
		}
	}
	for _, p := range pkgs {
		require.Empty(t, p.Errors)
		for _, name := range p.Types.Scope().Names() {
			switch obj := p.Types.Scope().Lookup(name).(type) {
			case *types.Func:
				look(obj)
			case *types.TypeName:
				if !obj.Exported() {
					continue
				}
				for m := range types.NewMethodSet(types.NewPointer(obj.Type())).Methods() {
					look(m.Obj().(*types.Func))
				}
				for m := range types.NewMethodSet(obj.Type()).Methods() {
					look(m.Obj().(*types.Func))
				}
			}
		}
	}
	require.Equal(t, sites.Givers(), got)
}
