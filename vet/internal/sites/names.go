package sites

import (
	"go/ast"
	"go/types"

	"golang.org/x/tools/go/types/typeutil"
)

// module is the path of the library's module. Other packages below it, such as
// the examples, are programs like any other.
const module = "asyncsync.dev"

// packages are the packages of the library that the analyzers know.
var packages = map[string]bool{
	module + "/asyncsync": true,
	module + "/task":      true,
	module + "/loop":      true,
}

// A Name is a function or method of the library: the last element of its
// package's path, the receiver's type or "", and its own name.
type Name struct{ Pkg, Recv, Name string }

// A giver describes a function of the library that takes functions.
type giver struct {
	ctx, fn int // where they are among the arguments; ctx is -1 if there is none
	role    Role
	loop    int  // where the loop is among the arguments, -1 if nowhere
	options bool // of package asyncsync, which may change the role
	rest    bool // all arguments from fn on are functions
}

// givers are the functions that take functions which get a ctx of their own. A
// test compares them with the library.
var givers = map[Name]giver{
	{"asyncsync", "", "ToThread"}:                   {0, 1, Thread, -1, true, false},
	{"asyncsync", "", "SyncToAsync"}:                {-1, 0, Thread, -1, true, false},
	{"asyncsync", "", "FromThread"}:                 {0, 1, Async, -1, true, false},
	{"asyncsync", "", "AsyncToSync"}:                {-1, 0, Async, -1, true, false},
	{"asyncsync", "", "Go"}:                         {0, 1, Thread, -1, true, false},
	{"asyncsync", "", "Get"}:                        {0, 2, Thread, -1, true, false},
	{"asyncsync", "Handle", "Do"}:                   {0, 1, Thread, -1, true, false},
	{"asyncsync", "", "Open"}:                       {0, 1, Thread, -1, false, false},
	{"asyncsync", "", "Do"}:                         {0, 1, Thread, -1, true, false},
	{"asyncsync", "", "DoAsync"}:                    {0, 1, Async, -1, true, false},
	{"asyncsync", "", "GetFrom"}:                    {0, 2, Thread, -1, true, false},
	{"asyncsync", "HandlePool", "Do"}:               {0, 1, Thread, -1, true, false},
	{"asyncsync", "Lease", "Do"}:                    {0, 1, Thread, -1, true, false},
	{"task", "", "Map"}:                             {0, 1, Async, -1, false, false},
	{"asyncsync", "", "WithThreadSensitiveContext"}: {0, 1, Inline, -1, false, false},
	{"task", "", "Go"}:                              {0, 1, Async, -1, false, false},
	{"task", "", "Start"}:                           {0, 1, Async, -1, false, false},
	{"task", "", "Await"}:                           {0, 1, Async, -1, false, false},
	{"task", "", "Gather"}:                          {0, 1, Async, -1, false, true},
	{"task", "", "Shield"}:                          {0, 1, Inline, -1, false, false},
	{"task", "", "MoveOn"}:                          {0, 2, Inline, -1, false, false},
	{"task", "", "MoveOnAt"}:                        {0, 2, Inline, -1, false, false},
	{"task", "", "Timeout"}:                         {0, 2, Inline, -1, false, false},
	{"task", "", "TimeoutAt"}:                       {0, 2, Inline, -1, false, false},
	{"task", "Group", "Go"}:                         {-1, 0, Async, -1, false, false},
	{"task", "Group", "TryGo"}:                      {-1, 0, Async, -1, false, false},
	{"loop", "", "Call"}:                            {0, 2, Loop, 1, false, false},
	{"loop", "", "Run"}:                             {0, 2, Loop, 1, false, false},
	{"loop", "Backend", "Spawn"}:                    {0, 1, Loop, -2, false, false},
	{"loop", "Poster", "Post"}:                      {-1, 0, Loop, -2, false, false},
	{"loop", "PosterFunc", "Post"}:                  {-1, 0, Loop, -2, false, false},
}

// Givers returns the names of the library's functions that take functions, and
// the index of that argument.
func Givers() map[Name]int {
	m := make(map[Name]int)
	for n, g := range givers {
		m[n] = g.fn
	}
	return m
}

// CallsHere reports whether the function of the library calls the function that
// it is given before it returns, on the goroutine of its caller. fn is the index
// of that argument.
func CallsHere(n Name) (fn int, ok bool) {
	g, ok := givers[n]
	return g.fn, ok && g.role == Inline
}

// NameOf returns the name of f, if it belongs to the library.
func NameOf(f *types.Func) (Name, bool) {
	if f == nil || f.Pkg() == nil {
		return Name{}, false
	}
	if !packages[f.Pkg().Path()] {
		return Name{}, false
	}
	n := Name{Pkg: f.Pkg().Name(), Name: f.Name()}
	if recv := f.Signature().Recv(); recv != nil {
		if named := named(recv.Type()); named != nil {
			n.Recv = named.Obj().Name()
		}
	}
	return n, true
}

// Callee returns the function that call calls, or nil if it is only known at
// run time. For a generic function it is the generic one.
func Callee(info *types.Info, call *ast.CallExpr) *types.Func {
	f, _ := typeutil.Callee(info, call).(*types.Func)
	if f == nil {
		return nil
	}
	return f.Origin()
}

// Library returns the function of the library that call calls. The call of a
// value of type asyncsync.Func is called "Func".
func Library(info *types.Info, call *ast.CallExpr) (Name, bool) {
	if n, ok := NameOf(Callee(info, call)); ok {
		return n, true
	}
	if IsType(info.TypeOf(call.Fun), module+"/asyncsync", "Func") && !info.Types[call.Fun].IsType() {
		return Name{Pkg: "asyncsync", Name: "Func"}, true
	}
	return Name{}, false
}

// OfLibrary reports whether t is a type of the library, or a pointer to one.
func OfLibrary(t types.Type) bool {
	n := named(t)
	return n != nil && n.Obj().Pkg() != nil && packages[n.Obj().Pkg().Path()]
}

// IsType reports whether t is the named type of that package, or a pointer to
// it, with any type arguments.
func IsType(t types.Type, pkg, name string) bool {
	n := named(t)
	return n != nil && n.Obj().Name() == name && n.Obj().Pkg() != nil && n.Obj().Pkg().Path() == pkg
}

// IsContext reports whether t is context.Context.
func IsContext(t types.Type) bool {
	if t == nil {
		return false
	}
	if _, ok := types.Unalias(t).(*types.Pointer); ok {
		return false
	}
	return IsType(t, "context", "Context")
}

func named(t types.Type) *types.Named {
	if t == nil {
		return nil
	}
	t = types.Unalias(t)
	if p, ok := t.(*types.Pointer); ok {
		t = types.Unalias(p.Elem())
	}
	n, _ := t.(*types.Named)
	return n
}
