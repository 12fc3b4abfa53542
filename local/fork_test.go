package local_test

import (
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/local"
)

// bubble runs fn in a synctest bubble, which ends when all goroutines in it have ended,
// deferred functions included. So all records must be gone then.
func bubble(t *testing.T, fn func(t *testing.T)) {
	t.Helper()
	testkit.SameRecords(t)
	synctest.Test(t, fn)
}

func TestGoForks(t *testing.T) {
	v, w := local.New[string](), local.New[string]()
	bubble(t, func(t *testing.T) {
		defer v.Set("parent")()
		started, changed := make(chan struct{}), make(chan struct{})
		local.Go(func() {
			is(t, "parent", v)
			isUnset(t, w)
			close(started)
			<-changed
			is(t, "parent", v)
			v.Set("child")
			w.Set("child")
			grandchild := make(chan struct{})
			local.Go(func() {
				defer close(grandchild)
				is(t, "child", v)
				is(t, "child", w)
				v.Delete()
			})
			<-grandchild
			is(t, "child", v)
		})
		<-started
		v.Set("changed") // the fork is of the moment of the call
		close(changed)
		synctest.Wait()
		is(t, "changed", v)
		isUnset(t, w)
	})
}

func TestGoForksAtTheCall(t *testing.T) {
	v := local.New[int]()
	bubble(t, func(t *testing.T) {
		for i := range 100 {
			v.Set(i)
			local.Go(func() { is(t, i, v) })
		}
		v.Delete()
	})
}

func TestGoWithoutValues(t *testing.T) {
	v := local.New[int]()
	bubble(t, func(t *testing.T) {
		local.Go(func() { isUnset(t, v) })
		local.Go(func() { v.Set(1) })
		local.Go(func() { v.Set(1); v.Delete(); v.Set(2) })
	})
}

func TestGoexitInGo(t *testing.T) {
	v := local.New[int]()
	var ran []int
	c := local.New[int](local.ThreadCritical(), local.OnThreadExit(func(x int) { ran = append(ran, x) }))
	bubble(t, func(t *testing.T) {
		defer v.Set(1)()
		local.Go(func() {
			v.Set(2)
			c.Set(3)
			runtime.Goexit()
		})
	})
	assert.Equal(t, []int{3}, ran)
}

// crash runs a function in a process of its own, which it must end as a panic does, and
// returns what that has written.
func crash(t *testing.T, body func()) (output string) {
	t.Helper()
	output, err := testkit.Child(t, func(*testing.T) { body() }, "GOTRACEBACK=single")
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit, "the child process must crash; it said:\n%s", output)
	assert.Equal(t, 2, exit.ExitCode(), "%s", output)
	return output
}

func panicsHere() { panic("a panic in Go") }

func TestPanicInGoCrashesAsInAGoStatement(t *testing.T) {
	out := crash(t, func() {
		c := local.New[int](local.ThreadCritical(), local.OnThreadExit(func(int) { println("exit function") }))
		local.Go(func() {
			c.Set(1)
			panicsHere()
		})
		select {}
	})
	assert.Contains(t, out, "panic: a panic in Go\n")
	assert.NotContains(t, out, "recovered")
	assert.Contains(t, out, "panicsHere", "the stack is that of the panic")
	assert.Contains(t, out, "exit function", "which has run")
}

func TestPanicInAnExitFunctionOfGoCrashes(t *testing.T) {
	out := crash(t, func() {
		first := local.New[int](local.ThreadCritical(), local.OnThreadExit(func(int) { println("the other one") }))
		second := local.New[int](local.ThreadCritical(), local.OnThreadExit(func(int) { panicsHere() }))
		local.Go(func() {
			first.Set(1)
			second.Set(1)
		})
		select {}
	})
	assert.Contains(t, out, "panic: a panic in Go\n")
	assert.Contains(t, out, "panicsHere")
	assert.Equal(t, 1, strings.Count(out, "the other one"))
}

func TestCapture(t *testing.T) {
	testkit.SameRecords(t)
	v, w := local.New[string](), local.New[string]()
	none := local.Capture()
	undo := v.Set("captured")
	s := local.Capture()
	v.Set("later")
	w.Set("later")

	s.Run(func() {
		is(t, "captured", v)
		isUnset(t, w)
		v.Set("dropped")
		none.Run(func() { isUnset(t, v) })
		local.Snapshot{}.Run(func() { isUnset(t, v) })
		is(t, "dropped", v)
	})
	is(t, "later", v)
	is(t, "later", w)

	s.Run(func() { is(t, "captured", v) }) // unchanged by the first run

	on(func() {
		s.Run(func() { is(t, "captured", v) })
		isUnset(t, v)
	})

	undo()
	w.Delete()
	isUnset(t, v)
}

func TestSnapshotRunsOnManyGoroutinesAtOnce(t *testing.T) {
	v := local.New[int]()
	testkit.SameRecords(t)
	defer v.Set(1)()
	s := local.Capture()
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			s.Run(func() {
				is(t, 1, v)
				v.Set(i)
				is(t, i, v)
			})
			isUnset(t, v)
		})
	}
	wg.Wait()
	is(t, 1, v)
}

func TestRunRestoresInAllThreeEndings(t *testing.T) {
	v, w := local.New[string](), local.New[string]()
	for _, own := range []bool{false, true} {
		for _, captured := range []bool{false, true} {
			for want, fn := range map[string]func(){
				"return": func() {},
				"panic":  func() { panic("boom") },
				"goexit": runtime.Goexit,
			} {
				testkit.SameRecords(t)
				var s local.Snapshot
				on(func() {
					if captured {
						defer v.Set("captured")()
					}
					s = local.Capture()
				})
				restored := false
				how, p := on(func() {
					if own {
						defer v.Set("own")()
					}
					defer func() {
						restored = true
						isUnset(t, w)
						if own {
							is(t, "own", v)
						} else {
							isUnset(t, v)
						}
					}()
					s.Run(func() {
						if captured {
							is(t, "captured", v)
						} else {
							isUnset(t, v)
						}
						w.Set("x")
						v.Delete()
						w.Delete() // the record goes now, unless somebody needs it
						w.Set("y")
						fn()
					})
				})
				assert.Equal(t, want, how)
				if want == "panic" {
					assert.Equal(t, "boom", p)
				}
				assert.True(t, restored)
			}
		}
	}
}

func TestUndoAcrossRun(t *testing.T) {
	testkit.SameRecords(t)
	v := local.New[int]()
	defer v.Set(1)()
	undo := v.Set(2)
	var inner func()
	local.Capture().Run(func() {
		undo() // acts on the values of the run
		is(t, 1, v)
		inner = v.Set(3)
	})
	is(t, 2, v)
	inner() // what its Set replaced was 1
	is(t, 1, v)
}
