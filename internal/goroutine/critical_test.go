package goroutine_test

import (
	"errors"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/goroutine"
	"asyncsync.dev/internal/testkit"
)

// ending tells how fn ends, on a goroutine of its own that has a record.
// deferred, if not nil, runs in a deferred function after fn.
func ending(fn func(r *goroutine.Record), deferred func(r *goroutine.Record)) (how string, panicked any) {
	how = "goexit"
	done := make(chan struct{})
	go func() {
		defer close(done)
		r := goroutine.Ensure()
		defer r.Release()
		defer func() {
			if p := recover(); p != nil {
				how, panicked = "panic", p
			}
		}()
		if deferred != nil {
			defer deferred(r)
		}
		fn(r)
		how = "return"
	}()
	<-done
	return how, panicked
}

func must(t *testing.T, want, how string, p any) {
	t.Helper()
	require.Equal(t, want, how, "panic value: %v", p)
}

func TestCriticalValues(t *testing.T) {
	testkit.SameRecords(t)
	how, p := ending(func(r *goroutine.Record) {
		x, ok := r.Critical(1)
		assert.Nil(t, x)
		assert.False(t, ok)
		assert.False(t, r.HasCritical())
		assert.False(t, r.NeedsExit())
		r.DeleteCritical(1)
		r.EndCritical(nil)

		r.SetCritical(1, "a", nil)
		x, ok = r.Critical(1)
		assert.Equal(t, "a", x)
		assert.True(t, ok)
		assert.True(t, r.HasCritical())
		assert.False(t, r.NeedsExit())
		_, ok = r.Critical(2)
		assert.False(t, ok)

		r.SetCritical(2, nil, func(any) { t.Error("deleted values have no exit") })
		x, ok = r.Critical(2)
		assert.Nil(t, x)
		assert.True(t, ok)
		assert.True(t, r.NeedsExit())
		r.SetCritical(2, "c", func(any) { t.Error("deleted values have no exit") })
		r.DeleteCritical(2)
		assert.False(t, r.NeedsExit(), "replacing counts once")
		assert.True(t, r.HasCritical())
		r.DeleteCritical(1)
		assert.False(t, r.HasCritical())
	}, nil)
	must(t, "return", how, p)
}

func TestExitFunctionsRunOnceLastSetFirst(t *testing.T) {
	var ran []any
	exit := func(x any) { ran = append(ran, x) }
	how, p := ending(func(r *goroutine.Record) {
		id := goroutine.ID()
		r.SetCritical(1, "replaced", exit)
		r.SetCritical(2, "two", exit)
		r.SetCritical(3, "three", nil)
		r.SetCritical(4, "four", func(x any) {
			exit(x)
			assert.Equal(t, id, goroutine.ID())
			_, ok := r.Critical(4)
			assert.False(t, ok, "its own value is deleted before")
			y, _ := r.Critical(2)
			assert.Equal(t, "two", y, "values still to come can be read")
			y, _ = r.Critical(3)
			assert.Equal(t, "three", y, "values without exit function too")
			_, ok = r.Critical(1)
			assert.False(t, ok, "values already ended are gone")
		})
		r.SetCritical(1, "one", exit)
		r.EndCritical(func(any, bool, []byte) { t.Error("nothing failed") })
		assert.Equal(t, []any{"one", "four", "two"}, ran)
		assert.False(t, r.HasCritical())
		r.EndCritical(nil)
		assert.Len(t, ran, 3)

		r.SetCritical(1, "next lease", exit)
		r.EndCritical(nil)
		assert.Equal(t, "next lease", ran[3])
	}, nil)
	must(t, "return", how, p)
}

func TestExitFunctionsMayDeleteAndReplaceOthers(t *testing.T) {
	var ran []any
	exit := func(x any) { ran = append(ran, x) }
	how, p := ending(func(r *goroutine.Record) {
		r.SetCritical(1, "deleted", exit)
		r.SetCritical(2, "old", exit)
		r.SetCritical(3, "kept", exit)
		r.SetCritical(4, "first", func(x any) {
			exit(x)
			r.DeleteCritical(1)
			r.SetCritical(2, "new", exit)
			r.SetCritical(5, "added", exit)
		})
		r.EndCritical(nil)
	}, nil)
	must(t, "return", how, p)
	assert.Equal(t, []any{"first", "kept", "added", "new"}, ran)
}

func TestExitFunctionsThatSetThemselvesAgainAreStopped(t *testing.T) {
	test := func(t *testing.T, failed func(any, bool, []byte)) {
		runs, once := 0, 0
		how, p := ending(func(r *goroutine.Record) {
			var again func(any)
			again = func(any) {
				runs++
				r.SetCritical(1, runs, again)
			}
			r.SetCritical(1, 0, again)
			r.SetCritical(2, 0, func(any) { once++ })
			r.EndCritical(failed)
			assert.False(t, r.HasCritical(), "nothing is kept")
			assert.False(t, r.NeedsExit())
		}, nil)
		must(t, "return", how, p)
		assert.Equal(t, 4, runs)
		assert.Equal(t, 1, once)
	}
	t.Run("reported", func(t *testing.T) {
		var failures []any
		test(t, func(p any, goexit bool, _ []byte) {
			assert.False(t, goexit)
			failures = append(failures, p)
		})
		require.Len(t, failures, 1)
		assert.ErrorIs(t, failures[0].(error), goroutine.ErrExitLoop)
	})
	t.Run("logged", func(t *testing.T) {
		log := captureLog(t)
		test(t, nil)
		assert.EqualValues(t, 1, log.warnings.Load())
	})
}

type failure struct {
	value  any
	goexit bool
}

func TestExitFunctionsEndInThreeWays(t *testing.T) {
	boom := errors.New("boom")
	panics := func(any) { panic(boom) }
	exits := func(any) { runtime.Goexit() }

	for _, c := range []struct {
		name string
		bad  []func(any) // values 10, 11, …, each between two good ones
		fail []failure
		want string
	}{
		{"panic", []func(any){panics}, []failure{{boom, false}}, "return"},
		{"goexit", []func(any){exits}, []failure{{nil, true}}, "goexit"},
		{"two panics", []func(any){panics, panics}, []failure{{boom, false}, {boom, false}}, "return"},
		{"two goexits", []func(any){exits, exits}, []failure{{nil, true}, {nil, true}}, "goexit"},
		{"goexit, then panic", []func(any){panics, exits}, []failure{{nil, true}, {boom, false}}, "goexit"},
		{"panic, then goexit", []func(any){exits, panics}, []failure{{boom, false}, {nil, true}}, "goexit"},
	} {
		for _, start := range []string{"called", "deferred by return", "deferred by goexit"} {
			t.Run(c.name+"/"+start, func(t *testing.T) {
				testkit.SameRecords(t)
				var (
					ran      []any
					failures []failure
					rec      *goroutine.Record
				)
				setup := func(r *goroutine.Record) {
					rec = r
					good := func(x any) {
						ran = append(ran, x)
						if x == 0 { // the last one: a further pass, also while unwinding
							r.SetCritical(0, "again", func(x any) { ran = append(ran, x) })
						}
					}
					r.SetCritical(0, 0, good)
					for i, bad := range c.bad {
						r.SetCritical(uint64(10+i), nil, bad)
						r.SetCritical(uint64(1+i), 1+i, good)
					}
				}
				end := func(r *goroutine.Record) {
					r.EndCritical(func(p any, goexit bool, stack []byte) {
						failures = append(failures, failure{p, goexit})
						assert.Contains(t, string(stack), "TestExitFunctionsEndInThreeWays", "the stack is the exit function's")
					})
				}
				var (
					how string
					p   any
				)
				want := c.want
				switch start {
				case "called":
					how, p = ending(func(r *goroutine.Record) { setup(r); end(r) }, nil)
				case "deferred by return":
					// ending notes the return before the deferred EndCritical runs
					how, p = ending(setup, end)
					want = "return"
				case "deferred by goexit":
					how, p = ending(func(r *goroutine.Record) { setup(r); runtime.Goexit() }, end)
					want = "goexit"
				}
				must(t, want, how, p)
				assert.Equal(t, c.fail, failures)
				wantRan := []any{0, "again"}
				for i := range c.bad {
					wantRan = append([]any{1 + i}, wantRan...)
				}
				assert.Equal(t, wantRan, ran)
				assert.False(t, rec.HasCritical())
			})
		}
	}
}

// While a panic is under way the exit functions run and the panic goes on.
func TestEndCriticalDuringAPanic(t *testing.T) {
	ran := 0
	var failures []failure
	how, p := ending(func(r *goroutine.Record) {
		r.SetCritical(1, nil, func(any) { ran++ })
		r.SetCritical(2, nil, func(any) { panic("inner") })
		panic("outer")
	}, func(r *goroutine.Record) {
		r.EndCritical(func(p any, goexit bool, _ []byte) { failures = append(failures, failure{p, goexit}) })
	})
	assert.Equal(t, "panic", how)
	assert.Equal(t, "outer", p)
	assert.Equal(t, 1, ran)
	assert.Equal(t, []failure{{"inner", false}}, failures)
}

func TestWithoutAFailedFunctionPanicsGoOn(t *testing.T) {
	ran := 0
	var rec *goroutine.Record
	how, p := ending(func(r *goroutine.Record) {
		rec = r
		r.SetCritical(1, nil, func(any) { ran++ })
		r.SetCritical(2, nil, func(any) { panic("boom") })
		r.SetCritical(3, nil, func(any) { ran++ })
		r.EndCritical(nil)
	}, nil)
	assert.Equal(t, "panic", how)
	assert.Equal(t, "boom", p)
	assert.Equal(t, 2, ran, "the others have run")
	assert.False(t, rec.HasCritical())

	how, _ = ending(func(r *goroutine.Record) {
		r.SetCritical(1, nil, func(any) { ran++ })
		r.SetCritical(2, nil, func(any) { runtime.Goexit() })
		r.EndCritical(nil)
	}, nil)
	assert.Equal(t, "goexit", how)
	assert.Equal(t, 3, ran)
}

func TestAFailedFunctionThatFailsKeepsNothingFromRunning(t *testing.T) {
	for name, bad := range map[string]func(any){
		"panic":  func(any) { panic("boom") },
		"goexit": func(any) { runtime.Goexit() },
	} {
		t.Run(name, func(t *testing.T) {
			ran := 0
			how, p := ending(func(r *goroutine.Record) {
				r.SetCritical(1, nil, func(any) { ran++ })
				r.SetCritical(2, nil, bad)
				r.EndCritical(func(any, bool, []byte) { panic("failed failed") })
			}, nil)
			assert.Equal(t, "panic", how)
			assert.Equal(t, "failed failed", p)
			assert.Equal(t, 1, ran)
		})
	}
}

func TestSavedCritical(t *testing.T) {
	testkit.SameRecords(t)
	var ran []any
	exit := func(x any) { ran = append(ran, x) }
	how, p := ending(func(r *goroutine.Record) {
		none := r.SaveCritical(1)
		r.SetCritical(1, "one", exit)
		r.SetCritical(2, "two", exit)
		one := r.SaveCritical(1)
		r.SetCritical(1, "other", exit)

		assert.True(t, one.Here())
		atOnce(1, func(int) {
			assert.False(t, one.Here())
			assert.False(t, one.Ended())
		})

		one.Restore()
		x, _ := r.Critical(1)
		assert.Equal(t, "one", x)
		none.Restore()
		_, ok := r.Critical(1)
		assert.False(t, ok)
		one.Restore()
		assert.True(t, r.NeedsExit())
		r.EndCritical(nil)
		assert.Equal(t, []any{"two", "one"}, ran, "a restored value has its old place")
		assert.True(t, one.Ended())
		assert.True(t, none.Ended())
	}, nil)
	must(t, "return", how, p)
}

func TestSavedCriticalSurvivesTheReleaseOfItsRecord(t *testing.T) {
	testkit.SameRecords(t)
	var ran []any
	exit := func(x any) { ran = append(ran, x) }
	how, p := ending(func(r *goroutine.Record) {
		for range 10 {
			r.SetCritical(1, "one", exit)
		}
		one := r.SaveCritical(1)
		r.DeleteCritical(1)
		r.ReleaseIfEmpty()
		require.Nil(t, goroutine.Current())

		assert.False(t, one.Ended())
		assert.True(t, one.Here())
		one.Restore()
		r = goroutine.Current()
		require.NotNil(t, r)
		defer r.Release()
		x, ok := r.Critical(1)
		assert.True(t, ok)
		assert.Equal(t, "one", x)
		r.EndCritical(nil)
		assert.Equal(t, []any{"one"}, ran)
	}, nil)
	must(t, "return", how, p)
}

func TestCoroutineSharesCriticalValues(t *testing.T) {
	testkit.SameRecords(t)
	how, p := ending(func(r *goroutine.Record) {
		var ran []any
		exit := func(x any) { ran = append(ran, x) }
		var before goroutine.SavedCritical
		atOnce(1, func(int) { // stands for a coroutine: r's goroutine is blocked
			co := goroutine.Ensure()
			co.ShareCritical(r)
			assert.False(t, co.Empty(), "the sharing would be lost")
			before = co.SaveCritical(1)
			co.SetCritical(1, "set by the coroutine", exit)
			assert.True(t, before.Here())
			co.Release()
			assert.Empty(t, ran)
		})
		assert.True(t, before.Here())
		x, _ := r.Critical(1)
		assert.Equal(t, "set by the coroutine", x)
		r.EndCritical(nil)
		assert.Equal(t, []any{"set by the coroutine"}, ran)
		assert.True(t, before.Ended())
	}, nil)
	must(t, "return", how, p)
}

func TestCriticalAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	r := goroutine.Ensure()
	defer r.Release()
	r.SetCritical(1, "x", nil)
	assert.Zero(t, testing.AllocsPerRun(100, func() { r.Critical(1) }))
	assert.Zero(t, testing.AllocsPerRun(100, func() { r.NeedsExit() }))
}
