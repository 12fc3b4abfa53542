package local_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/goroutine"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/local"
)

// is fails the test unless v has the value want on this goroutine.
func is[T any](t *testing.T, want T, v *local.Var[T]) {
	t.Helper()
	x, ok := v.Get()
	assert.True(t, ok, "no value; want %v", want)
	assert.Equal(t, want, x)
}

// isUnset fails the test if v has a value on this goroutine.
func isUnset[T any](t *testing.T, v *local.Var[T]) {
	t.Helper()
	x, ok := v.Get()
	assert.False(t, ok, "value %v", x)
	assert.Zero(t, x)
}

// on runs fn on a new plain goroutine and waits until it has ended, and tells how it
// ended.
func on(fn func()) (how string, panicked any) {
	o := testkit.OutcomeOf(func() error { fn(); return nil })
	return o.How, o.Value
}

func TestVarBelongsToItsGoroutine(t *testing.T) {
	testkit.SameRecords(t)
	v := local.New[string]()
	isUnset(t, v)
	undo := v.Set("a")
	is(t, "a", v)
	on(func() {
		isUnset(t, v)
		defer v.Set("b")()
		is(t, "b", v)
	})
	is(t, "a", v)
	v.Set("c")
	is(t, "c", v)
	v.Delete()
	isUnset(t, v)
	v.Delete()
	undo()
	isUnset(t, v)
}

func TestVarsAreIndependent(t *testing.T) {
	testkit.SameRecords(t)
	a, b := local.New[int](), local.New[int]()
	undoA := a.Set(1)
	undoB := b.Set(2)
	undoA()
	isUnset(t, a)
	is(t, 2, b)
	a.Set(3)
	undoB()
	is(t, 3, a)
	isUnset(t, b)
	a.Delete()
}

func TestVarOfAnyType(t *testing.T) {
	testkit.SameRecords(t)
	boom := errors.New("boom")

	e := local.New[error]()
	defer e.Set(nil)()
	is[error](t, nil, e) // nil is a value
	defer e.Set(boom)()
	is(t, boom, e)

	a := local.New[any]()
	defer a.Set(nil)()
	is[any](t, nil, a)

	p := local.New[*int]()
	defer p.Set(nil)()
	is(t, nil, p)

	type pair struct {
		a, b string
	}
	s := local.New[pair]()
	defer s.Set(pair{"a", "b"})()
	is(t, pair{"a", "b"}, s)

	f := local.New[func() int]()
	defer f.Set(func() int { return 7 })()
	got, ok := f.Get()
	require.True(t, ok)
	assert.Equal(t, 7, got())
}

func TestUndoInOrder(t *testing.T) {
	testkit.SameRecords(t)
	v := local.New[int]()
	u1 := v.Set(1)
	u2 := v.Set(2)
	u3 := v.Set(3)
	u3()
	is(t, 2, v)
	u2()
	is(t, 1, v)
	u1()
	isUnset(t, v)
}

func TestUndoOutOfOrderPutsBackWhatItsSetReplaced(t *testing.T) {
	testkit.SameRecords(t)
	v := local.New[int]()
	u1 := v.Set(1)
	u2 := v.Set(2)
	u3 := v.Set(3)
	u1()
	isUnset(t, v)
	u3()
	is(t, 2, v)
	v.Delete()
	u2()
	is(t, 1, v)
	v.Delete()
}

func TestUndoTwiceDoesNothing(t *testing.T) {
	testkit.SameRecords(t)
	for _, opts := range [][]local.Option{nil, {local.ThreadCritical()}} {
		v := local.New[int](opts...)
		defer v.Delete()
		undo := v.Set(1)
		undo()
		undo()
		isUnset(t, v)
		v.Set(2)
		undo()
		is(t, 2, v)
	}
}

func TestUndoActsOnTheGoroutineThatCallsIt(t *testing.T) {
	testkit.SameRecords(t)
	v := local.New[int]()
	defer v.Set(1)()
	undo := v.Set(2)
	on(func() {
		undo()
		is(t, 1, v)
		v.Delete()
	})
	is(t, 2, v)
	undo()
	is(t, 2, v) // used up
}

func TestUndoWorksOnceForManyCallersAtOnce(t *testing.T) {
	testkit.SameRecords(t)
	v := local.New[int]()
	for range 100 {
		v.Set(1)
		undo := v.Set(2)
		var worked atomic.Int32
		var wg sync.WaitGroup
		start := make(chan struct{})
		for range 8 {
			wg.Go(func() {
				<-start
				undo()
				if _, ok := v.Get(); ok {
					worked.Add(1)
					v.Delete()
				}
			})
		}
		close(start)
		wg.Wait()
		require.EqualValues(t, 1, worked.Load())
	}
	v.Delete()
}

// Random Sets, Deletes and undos of several variables against a plain map.
func TestVarModel(t *testing.T) {
	testkit.SameRecords(t)
	for _, opts := range [][]local.Option{nil, {local.ThreadCritical()}} {
		type set struct {
			undo   func()
			v      int
			before int // 0: none
		}
		var (
			rnd   = rand.New(rand.NewPCG(6, 7))
			vars  [20]*local.Var[int]
			model [20]int // 0: none
			sets  []set
		)
		for i := range vars {
			vars[i] = local.New[int](opts...)
		}
		for n := 1; n < 5000; n++ {
			i := rnd.IntN(len(vars))
			switch rnd.IntN(5) {
			case 0:
				vars[i].Delete()
				model[i] = 0
			case 1, 2:
				if len(sets) > 0 {
					k := rnd.IntN(len(sets))
					s := sets[k]
					s.undo()
					model[s.v] = s.before
					sets[k] = sets[len(sets)-1]
					sets = sets[:len(sets)-1]
				}
			default:
				sets = append(sets, set{vars[i].Set(n), i, model[i]})
				model[i] = n
			}
			got, ok := vars[i].Get()
			require.Equal(t, model[i], got)
			require.Equal(t, model[i] != 0, ok)
		}
		for i := range vars {
			got, _ := vars[i].Get()
			require.Equal(t, model[i], got)
			vars[i].Delete()
		}
	}
}

func TestNothingIsLeftOnPlainGoroutines(t *testing.T) {
	v, w := local.New[int](), local.New[int]()
	c := local.New[int](local.ThreadCritical())
	live := goroutine.Live()
	for name, fn := range map[string]func(){
		"undo":             func() { defer v.Set(1)() },
		"delete":           func() { v.Set(1); v.Delete() },
		"two variables":    func() { defer v.Set(1)(); defer w.Set(1)() },
		"undo by panic":    func() { defer v.Set(1)(); panic("x") },
		"undo by goexit":   func() { defer v.Set(1)(); runtime.Goexit() },
		"critical undo":    func() { defer c.Set(1)() },
		"critical delete":  func() { c.Set(1); c.Delete() },
		"both":             func() { defer c.Set(1)(); defer v.Set(1)() },
		"get":              func() { v.Get(); c.Get(); v.Delete(); c.Delete() },
		"capture and run":  func() { local.Capture().Run(func() {}) },
		"run that deletes": func() { u := v.Set(1); local.Capture().Run(v.Delete); is(t, 1, v); u() },
		"run that leaves":  func() { local.Capture().Run(func() { v.Set(1) }) },
	} {
		on(fn)
		assert.Equal(t, live, goroutine.Live(), name)
	}
}

func TestValuesStayOnPlainGoroutinesButReachNobody(t *testing.T) {
	testkit.SameRecords(t)
	v := local.New[int]()
	var left *goroutine.Record
	on(func() {
		v.Set(1)
		left = goroutine.Current()
	})
	for range 100 {
		on(func() { isUnset(t, v) })
	}
	left.Release() // what nobody can do from outside this module
}

func TestTenThousandGoroutinesWithValues(t *testing.T) {
	testkit.SameRecords(t)
	const n = 10_000
	v, w := local.New[int](), local.New[string]()
	var ready, done sync.WaitGroup
	ready.Add(n)
	for i := range n {
		done.Go(func() {
			defer v.Set(i)()
			defer w.Set(fmt.Sprint(i))()
			ready.Done()
			ready.Wait()
			if x, ok := v.Get(); !ok || x != i {
				t.Errorf("goroutine %d has %d, %t", i, x, ok)
			}
			if x, ok := w.Get(); !ok || x != fmt.Sprint(i) {
				t.Errorf("goroutine %d has %q, %t", i, x, ok)
			}
		})
	}
	done.Wait()
}

func TestMisusePanics(t *testing.T) {
	var (
		zero   local.Var[int]
		none   *local.Var[int]
		misuse = "local: use of a nil or zero Var; make it with New"
	)
	for _, v := range []*local.Var[int]{&zero, none} {
		assert.PanicsWithValue(t, misuse, func() { v.Get() })
		assert.PanicsWithValue(t, misuse, func() { v.Set(1) })
		assert.PanicsWithValue(t, misuse, func() { v.Delete() })
	}
	assert.PanicsWithValue(t, "local: Go with a nil function", func() { local.Go(nil) })
	assert.PanicsWithValue(t, "local: Run with a nil function", func() { local.Capture().Run(nil) })
	assert.PanicsWithValue(t, "local: Run with a nil function", func() { local.Snapshot{}.Run(nil) })

	assert.PanicsWithValue(t, "local: OnThreadExit without ThreadCritical", func() {
		local.New[int](local.OnThreadExit(func(int) {}))
	})
	assert.PanicsWithValue(t, "local: OnThreadExit takes a func(string), but the variable needs a func(int)", func() {
		local.New[int](local.ThreadCritical(), local.OnThreadExit(func(string) {}))
	})
	assert.PanicsWithValue(t, "local: OnThreadExit takes a func(int), but the variable needs a func(interface {})", func() {
		local.New[any](local.ThreadCritical(), local.OnThreadExit(func(int) {}))
	})
	assert.PanicsWithValue(t, "local: OnThreadExit with a nil function", func() {
		local.OnThreadExit[int](nil)
	})
	assert.PanicsWithValue(t, "local: OnThreadExit given twice", func() {
		exit := local.OnThreadExit(func(int) {})
		local.New[int](local.ThreadCritical(), exit, exit)
	})
}

func TestOptionsInAnyOrder(t *testing.T) {
	testkit.SameRecords(t)
	exit := local.OnThreadExit(func(int) {})
	a := local.New[int](exit, local.ThreadCritical(), local.Option{})
	b := local.New[int](local.ThreadCritical(), local.ThreadCritical(), exit)
	defer a.Set(1)()
	defer b.Set(2)()
	is(t, 1, a)
	is(t, 2, b)
}

func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	testkit.SameRecords(t)
	v, w := local.New[int](), local.New[error]()
	c := local.New[string](local.ThreadCritical())
	unset := local.New[int]()
	defer v.Set(1000)()
	defer w.Set(errors.New("x"))()
	defer c.Set("x")()
	assert.Zero(t, testing.AllocsPerRun(100, func() { v.Get() }))
	assert.Zero(t, testing.AllocsPerRun(100, func() { w.Get() }))
	assert.Zero(t, testing.AllocsPerRun(100, func() { c.Get() }))
	assert.Zero(t, testing.AllocsPerRun(100, func() { unset.Get() }))
	assert.Zero(t, testing.AllocsPerRun(100, func() { unset.Delete() }))
	assert.Zero(t, testing.AllocsPerRun(100, func() { local.Capture() }))
	s, fn := local.Capture(), func() {}
	assert.Zero(t, testing.AllocsPerRun(100, func() { s.Run(fn) }))
	assert.LessOrEqual(t, testing.AllocsPerRun(100, func() { v.Set(1000) }), 5.0)
}

// crowd keeps n goroutines with values of v alive until the benchmark ends.
func crowd(b *testing.B, v *local.Var[int], n int) {
	var ready, done sync.WaitGroup
	end := make(chan struct{})
	ready.Add(n)
	for i := range n {
		done.Go(func() {
			defer v.Set(i)()
			ready.Done()
			<-end
		})
	}
	ready.Wait()
	b.Cleanup(func() {
		close(end)
		done.Wait()
	})
}

func BenchmarkGet(b *testing.B) {
	v := local.New[int]()
	for _, n := range []int{1, 10_000} {
		b.Run(fmt.Sprintf("goroutines=%d", n), func(b *testing.B) {
			crowd(b, v, n-1)
			defer v.Set(1)()
			b.ReportAllocs()
			for b.Loop() {
				v.Get()
			}
		})
	}
	b.Run("goroutines=10000/unset", func(b *testing.B) {
		crowd(b, v, 10_000)
		for b.Loop() {
			v.Get()
		}
	})
	b.Run("goroutines=10000/parallel", func(b *testing.B) {
		crowd(b, v, 10_000)
		b.RunParallel(func(pb *testing.PB) {
			defer v.Set(1)()
			for pb.Next() {
				v.Get()
			}
		})
	})
	b.Run("type=error", func(b *testing.B) {
		w := local.New[error]()
		defer w.Set(errors.New("x"))()
		for b.Loop() {
			w.Get()
		}
	})
	b.Run("type=struct", func(b *testing.B) {
		w := local.New[struct{ a, b, c string }]()
		defer w.Set(struct{ a, b, c string }{"a", "b", "c"})()
		for b.Loop() {
			w.Get()
		}
	})
	b.Run("critical", func(b *testing.B) {
		c := local.New[int](local.ThreadCritical())
		defer c.Set(1)()
		for b.Loop() {
			c.Get()
		}
	})
}

func BenchmarkSet(b *testing.B) {
	for _, n := range []int{1, 10, 1000} {
		b.Run(fmt.Sprintf("variables=%d", n), func(b *testing.B) {
			vars := make([]*local.Var[int], n)
			for i := range vars {
				vars[i] = local.New[int]()
				defer vars[i].Set(i)()
			}
			b.ReportAllocs()
			for b.Loop() {
				vars[0].Set(1)
			}
		})
	}
}

func BenchmarkSetUndo(b *testing.B) {
	v := local.New[int]()
	b.ReportAllocs()
	for b.Loop() {
		v.Set(1)()
	}
}

func BenchmarkRun(b *testing.B) {
	v := local.New[int]()
	defer v.Set(1)()
	s := local.Capture()
	fn := func() {}
	b.ReportAllocs()
	for b.Loop() {
		s.Run(fn)
	}
}

func BenchmarkGo(b *testing.B) {
	v := local.New[int]()
	defer v.Set(1)()
	for _, how := range []struct {
		name  string
		start func(func())
	}{
		{"local.Go", local.Go},
		{"go", func(fn func()) { go fn() }},
	} {
		b.Run("how="+how.name, func(b *testing.B) {
			done := make(chan struct{})
			fn := func() { done <- struct{}{} }
			b.ReportAllocs()
			for b.Loop() {
				how.start(fn)
				<-done
			}
		})
	}
}
