package cycle

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A graph is what the tests search: vertices by name.
type graph map[string]*vertex

type vertex struct {
	g      graph
	name   string
	any    bool
	whole  bool
	varies bool
	of     []string
	until  context.Context
	facts  func() []any
	looked int // how often it was expanded
}

func (v *vertex) Key() any { return v.name }

func (v *vertex) Expand() Needs {
	v.looked++
	n := Needs{Any: v.any, Whole: v.whole, Varies: v.varies, Until: v.until}
	for _, name := range v.of {
		n.Of = append(n.Of, v.g.get(name))
	}
	if v.facts != nil {
		n.Facts = v.facts()
	}
	return n
}

func (v *vertex) Links(via Vertex) []Step {
	return []Step{{Link: Link{Who: v.name, For: via.Key().(string), Kind: "task"}}}
}

func (g graph) get(name string) *vertex {
	if g[name] == nil {
		g[name] = &vertex{g: g, name: name}
	}
	return g[name]
}

// parse makes the graph of "a: b c; b: c | d": a needs both of b and c, b any one
// of c and d. What has no needs is free.
func parse(text string) graph {
	g := graph{}
	for _, part := range strings.Split(text, ";") {
		name, needs, _ := strings.Cut(strings.TrimSpace(part), ":")
		v := g.get(name)
		v.any = strings.Contains(needs, "|")
		v.of = strings.Fields(strings.ReplaceAll(needs, "|", " "))
	}
	return g
}

// chain is who waits for whom, from the one who asks on.
func chain(s *Search) string {
	var b strings.Builder
	for i := len(s.Chain) - 1; i >= 0; i-- {
		fmt.Fprintf(&b, "%s>", s.Chain[i].Who)
	}
	return b.String()
}

// What is found of "ask", which is the target as well.
func TestSearch(t *testing.T) {
	for _, c := range []struct {
		graph string
		want  Finding
		chain string
	}{
		{"ask: ask", Stuck, "ask>"},
		{"ask: a; a: ask", Stuck, "ask>a>"},
		{"ask: a; a: b; b: ask", Stuck, "ask>a>b>"},
		{"ask:", Free, ""},
		{"ask: a; a:", Free, ""},
		{"ask: a b; a:; b: ask", Stuck, "ask>b>"},                   // one that is stuck is enough
		{"ask: a; a: b | c; b: ask; c:", Free, ""},                  // one that is free is enough
		{"ask: a; a: b | c; b:; c: ask", Free, ""},                  // in any order
		{"ask: a; a: b | c; b: ask; c: ask", Stuck, "ask>a>b>"},     // the first is told
		{"ask: a; a: b | c; b: a; c: ask", Stuck, "ask>a>c>"},       // b is what a is
		{"ask: a; a: b | c; b: c; c: b", Looped, ""},                // they never end, and not because of ask
		{"ask: a; a: a", Looped, ""},                                //
		{"ask: a b; a: a; b: ask", Stuck, "ask>b>"},                 // looped, then stuck
		{"ask: a | b; a: a; b: ask", Stuck, "ask>b>"},               //
		{"ask: a | b; a: a; b:", Free, ""},                          //
		{"ask: a b; a: c | d; c: a; d:; b: c", Free, ""},            // what c rested on was free after all
		{"ask: a b; a: c | d; c: ask; d:; b: c", Stuck, "ask>b>c>"}, // c is stuck, though a is free
		{"ask: a; a: b c; b: c | d; c: b; d: a", Looped, ""},        //
		{"ask: a | b; a: c; b: c; c: d | e; d: ask; e: b", Stuck, "ask>a>c>d>"},
	} {
		g := parse(c.graph)
		s := &Search{Targets: []any{"ask"}}
		require.Equal(t, c.want, s.Run(g["ask"]), c.graph)
		require.Equal(t, c.want == Stuck, s.Certain(g["ask"]), c.graph)
		require.Equal(t, c.chain, chain(s), c.graph)
		if c.want == Free {
			require.Empty(t, s.Facts, c.graph)
		}
	}
}

// The ctxs are those of the waits that the finding rests on, and of no others.
func TestSearchContexts(t *testing.T) {
	g := parse("ask: a b; a: c | d; b: ask; c: ask; d:")
	type key int
	a, b, c := context.WithValue(t.Context(), key(1), 1), context.WithValue(t.Context(), key(2), 2), context.WithValue(t.Context(), key(3), 3)
	g["a"].until, g["b"].until, g["c"].until = a, b, c
	s := &Search{Targets: []any{"ask"}}
	require.Equal(t, Stuck, s.Run(g["ask"]))
	require.Equal(t, []Until{{"b", b}}, s.Waits)
}

// A wait that is about to end does not hide another that keeps the vertex stuck.
func TestDropEnded(t *testing.T) {
	g := parse("ask: a b c; a: ask; b: ask; c: d; d:")
	ctxs := map[string]context.CancelFunc{}
	for _, name := range []string{"a", "b", "c"} {
		g[name].until, ctxs[name] = context.WithCancel(t.Context())
	}
	s := &Search{Targets: []any{"ask"}}
	require.Equal(t, Stuck, s.Run(g["ask"]))
	require.False(t, s.DropEnded())
	ctxs["a"]()
	require.True(t, s.DropEnded())
	require.True(t, s.Certain(g["ask"]), "b is left")
	require.Equal(t, []any{"b", "ask"}, s.Facts)
	require.False(t, s.DropEnded(), "a is dropped already")
	ctxs["c"]() // nothing rests on it
	require.False(t, s.DropEnded())
	ctxs["b"]()
	require.True(t, s.DropEnded())
	require.Equal(t, Free, s.Run(g["ask"]))
	require.False(t, s.DropEnded())
}

// What changes between two runs is not certain, unless it stays as it is then.
func TestSearchRunsTwice(t *testing.T) {
	for _, c := range []struct {
		changes int // how often the fact is another one
		want    bool
	}{{0, true}, {1, true}, {5, true}, {maxRuns, false}} {
		g := parse("ask: a; a: ask")
		runs := 0
		g["a"].facts = func() []any {
			runs++
			return []any{min(runs, c.changes+1)}
		}
		s := &Search{Targets: []any{"ask"}}
		require.Equal(t, c.want, s.Certain(g["ask"]), c.changes)
		require.LessOrEqual(t, runs, maxRuns)
		if c.want {
			require.Equal(t, c.changes+2, runs)
		}
	}
	// One that has come free meanwhile.
	g := parse("ask: a; a: ask")
	s := &Search{Targets: []any{"ask"}, Begin: func() {
		if g["a"].looked == 1 {
			g["a"].of = nil
		}
	}}
	require.False(t, s.Certain(g["ask"]))
}

// What would take more steps than there may be counts as free.
func TestSearchLimit(t *testing.T) {
	var b strings.Builder
	b.WriteString("ask: 0")
	for i := range 100 {
		fmt.Fprintf(&b, "; %d: %d", i, i+1)
	}
	b.WriteString("; 100: ask")
	g := parse(b.String())
	for limit, want := range map[int]Finding{101: Free, 102: Stuck, 0: Stuck} {
		s := &Search{Targets: []any{"ask"}, Limit: limit}
		require.Equal(t, want, s.Run(g["ask"]), limit)
	}
}

// A deep stack whose levels all lead to those above costs a step for each, also
// where nothing of it is free.
func TestSearchIsLinear(t *testing.T) {
	for _, top := range []string{"", "0", "ask"} {
		var b strings.Builder
		b.WriteString("ask: 0")
		for i := range 1000 {
			fmt.Fprintf(&b, "; %d: %d w%d; w%d: %d", i, i+1, i, i, i+1)
		}
		fmt.Fprintf(&b, "; 1000: %s", top)
		s := &Search{Targets: []any{"ask"}}
		s.Run(parse(b.String())["ask"])
		require.Less(t, s.Steps, 5000, "%q", top)
	}
}

// Users see all needs of a vertex that is stuck, and of one that asks for it.
func TestSearchLooksAtAll(t *testing.T) {
	g := parse("ask: a b; a: ask; b: c | d; c:; d:")
	s := &Search{Targets: []any{"ask"}}
	require.Equal(t, Stuck, s.Run(g["ask"]))
	require.Equal(t, 1, g["c"].looked)
	require.Zero(t, g["d"].looked)
	require.Equal(t, "ask>a>", chain(s))

	g["b"].whole = true
	require.Equal(t, Stuck, s.Run(g["ask"]))
	require.Equal(t, 1, g["d"].looked)
}

// What was found of a vertex that varies holds while it is being looked at, and no
// longer.
func TestSearchVaries(t *testing.T) {
	for _, varies := range []bool{false, true} {
		g := parse("ask: a b; a: b; b:")
		g["b"].varies = varies
		s := &Search{Targets: []any{"ask"}}
		require.Equal(t, Free, s.Run(g["ask"]))
		require.Equal(t, map[bool]int{false: 1, true: 2}[varies], g["b"].looked)
	}
}

// A vertex that is made of others has no key, and is no fact.
func TestAllOf(t *testing.T) {
	g := parse("ask: ; a: ask; b:")
	s := &Search{Targets: []any{"ask"}}
	root := AllOf([]Vertex{AllOf([]Vertex{g["b"]}), AllOf([]Vertex{g["a"]}, "fact")})
	require.Equal(t, Stuck, s.Run(root))
	require.Equal(t, []any{"a", "fact"}, s.Facts)
	require.Equal(t, Free, s.Run(AllOf(nil)))
}

// model returns what is found of root in g by looking at all of it: what can end
// is what some order of ends leads to, and a cycle leads back through things that
// cannot.
func model(g graph, root string) Finding {
	ends := map[string]bool{}
	can := func(v *vertex) bool {
		some, all := false, true
		for _, name := range v.of {
			some, all = some || ends[name], all && ends[name]
		}
		if v.any {
			return some || len(v.of) == 0
		}
		return all
	}
	for changed := true; changed; {
		changed = false
		for name, v := range g {
			if !ends[name] && can(v) {
				ends[name], changed = true, true
			}
		}
	}
	if ends[root] {
		return Free
	}
	seen := map[string]bool{}
	var reaches func(name string) bool
	reaches = func(name string) bool {
		for _, to := range g[name].of {
			if to == root {
				return true
			}
			if !ends[to] && !seen[to] {
				seen[to] = true
				if reaches(to) {
					return true
				}
			}
		}
		return false
	}
	if reaches(root) {
		return Stuck
	}
	return Looped
}

// random returns a graph of n vertices.
func random(r *rand.Rand, n int) graph {
	g := graph{}
	for i := range n {
		v := g.get(fmt.Sprint(i))
		v.any, v.whole = r.IntN(3) == 0, r.IntN(2) == 0
		for range r.IntN(4) {
			v.of = append(v.of, fmt.Sprint(r.IntN(n)))
		}
	}
	return g
}

// check compares a search with the model.
func check(t *testing.T, r *rand.Rand) Finding {
	g := random(r, 1+r.IntN(12))
	want := model(g, "0")
	s := &Search{Targets: []any{"0"}}
	require.Equal(t, want, s.Run(g["0"]), "%v", text(g))
	require.Equal(t, want == Stuck, s.Certain(g["0"]))
	if want != Stuck {
		return want
	}
	// The chain is a way back, each a need of the one before it.
	at := "0"
	for i := len(s.Chain) - 1; i >= 0; i-- {
		l := s.Chain[i]
		require.Equal(t, at, l.Who, "%v", text(g))
		require.Contains(t, g[at].of, l.For)
		at = l.For
	}
	require.Equal(t, "0", at, "%v", text(g))
	// The facts are enough: with nothing else the finding is the same.
	facts := map[string]bool{}
	for _, f := range s.Facts {
		facts[f.(string)] = true
	}
	only := graph{}
	for name, v := range g {
		if w := only.get(name); facts[name] || name == "0" {
			w.any, w.of = v.any, v.of
		}
	}
	require.Equal(t, Stuck, model(only, "0"), "%v, facts %v", text(g), s.Facts)
	return want
}

func text(g graph) string {
	var b strings.Builder
	for i := range len(g) {
		v := g[fmt.Sprint(i)]
		fmt.Fprintf(&b, "%s: %s; ", v.name, strings.Join(v.of, map[bool]string{true: " | ", false: " "}[v.any]))
	}
	return b.String()
}

// Random graphs, compared with the model.
func TestSearchRandom(t *testing.T) {
	count := map[Finding]int{}
	for seed := range uint64(20000) {
		count[check(t, rand.New(rand.NewPCG(seed, 0)))]++
	}
	for _, f := range []Finding{Free, Looped, Stuck} {
		require.Greater(t, count[f], 100, "%v", count)
	}
}

func FuzzSearch(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) { check(t, rand.New(rand.NewPCG(seed, 1))) })
}

// A ctx of somebody else's may fail when a search asks it. It has not ended then, as far
// as the search can tell.
func TestCtxThatPanicsHasNotEnded(t *testing.T) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	s := &Search{Waits: []Until{{1, panicking{ended}}}}
	require.False(t, s.DropEnded())
	s.Waits = append(s.Waits, Until{2, ended})
	require.True(t, s.DropEnded())
}

// A panicking ctx panics when it is asked whether it has ended.
type panicking struct{ context.Context }

func (panicking) Err() error { panic("bad ctx") }
