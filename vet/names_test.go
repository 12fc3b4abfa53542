package vet

import (
	"go/types"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/tools/go/packages"

	"asyncsync.dev/vet/internal/sites"
)

// The functions that the analyzers know as waits, and as opening something, are
// there.
func TestNames(t *testing.T) {
	pkgs, err := packages.Load(&packages.Config{Mode: packages.LoadTypes}, "asyncsync.dev/asyncsync", "asyncsync.dev/task", "asyncsync.dev/loop")
	require.NoError(t, err)
	scopes := make(map[string]*types.Scope)
	for _, p := range pkgs {
		require.Empty(t, p.Errors)
		scopes[p.Name] = p.Types.Scope()
	}
	exists := func(n sites.Name) {
		t.Helper()
		require.NotNil(t, scopes[n.Pkg], "%v", n)
		if n.Recv == "" {
			require.NotNil(t, scopes[n.Pkg].Lookup(n.Name), "%v", n)
			return
		}
		typ := scopes[n.Pkg].Lookup(n.Recv)
		require.NotNil(t, typ, "%v", n)
		obj, _, _ := types.LookupFieldOrMethod(typ.Type(), true, typ.Pkg(), n.Name)
		require.NotNil(t, obj, "%v", n)
	}
	for n := range waits {
		exists(n)
	}
	for _, n := range []sites.Name{taskMap, groupGo, groupTryGo, groupSetLimit} {
		exists(n)
	}
	for n := range own {
		exists(n)
	}
	for n := range forNobody {
		require.True(t, waits[n], "%v", n)
	}
	for n := range lends {
		exists(n)
	}
	for _, table := range []map[sites.Name]opening{opened, leased} {
		for name, o := range table {
			exists(name)
			f := scopes[name.Pkg].Lookup(name.Name)
			if name.Recv != "" {
				typ := scopes[name.Pkg].Lookup(name.Recv)
				f, _, _ = types.LookupFieldOrMethod(typ.Type(), true, typ.Pkg(), name.Name)
			}
			results := f.(*types.Func).Signature().Results()
			require.Greater(t, results.Len(), max(o.result, o.err), name)
		}
	}
	for _, option := range []string{"On", "Insensitive", "WithExecutor", "SameThread", "WithLoop", "LongRunning"} {
		exists(sites.Name{Pkg: "asyncsync", Name: option})
	}
	exists(sites.Name{Pkg: "asyncsync", Name: "Detach"})
	exists(sites.Name{Pkg: "task", Name: "NewGroup"})
	exists(sites.Name{Pkg: "task", Recv: "Task", Name: "Done"})
	exists(sites.Name{Pkg: "loop", Name: "NewThread"})
	exists(sites.Name{Pkg: "loop", Name: "Goroutines"})
}
