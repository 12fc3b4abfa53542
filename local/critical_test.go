package local_test

import (
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"

	"asyncsync.dev/internal/goroutine"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/local"
)

func TestThreadCriticalIsNeitherForkedNorCaptured(t *testing.T) {
	c := local.New[int](local.ThreadCritical())
	bubble(t, func(t *testing.T) {
		defer c.Set(1)()
		s := local.Capture()
		local.Go(func() {
			isUnset(t, c)
			s.Run(func() { isUnset(t, c) })
			c.Set(2)
			s.Run(func() {
				is(t, 2, c)
				c.Set(3)
			})
			is(t, 3, c) // Run does not touch it
		})
		local.Capture().Run(func() { is(t, 1, c) })
		is(t, 1, c)
	})
}

func TestExitFunctionsRunAtTheEndOfGo(t *testing.T) {
	for name, end := range map[string]func(){
		"return": func() {},
		"goexit": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			type exit struct {
				name string
				id   int64
			}
			var (
				ran []exit
				id  int64
				v   = local.New[string]()
			)
			onExit := local.OnThreadExit(func(name string) {
				is(t, "forked", v)
				ran = append(ran, exit{name, goroutine.ID()})
			})
			a := local.New[string](local.ThreadCritical(), onExit)
			b := local.New[string](local.ThreadCritical(), onExit)
			c := local.New[string](local.ThreadCritical(), onExit)
			again := local.New[bool](local.ThreadCritical(), local.OnThreadExit(func(bool) { a.Set("a again") }))
			bubble(t, func(t *testing.T) {
				defer v.Set("forked")()
				local.Go(func() {
					id = goroutine.ID()
					a.Set("a replaced")
					again.Set(true)
					b.Set("b")
					a.Set("a")
					c.Set("c")
					c.Delete()
					end()
				})
			})
			assert.Equal(t, []exit{{"a", id}, {"b", id}, {"a again", id}}, ran)
		})
	}
}

func TestExitFunctionGetsANilInterface(t *testing.T) {
	ran := 0
	c := local.New[error](local.ThreadCritical(), local.OnThreadExit(func(err error) {
		assert.NoError(t, err)
		ran++
	}))
	bubble(t, func(t *testing.T) { local.Go(func() { c.Set(nil) }) })
	assert.Equal(t, 1, ran)
}

func TestGoexitInAnExitFunctionOfGoKeepsNothingFromRunning(t *testing.T) {
	ran := 0
	good := local.New[int](local.ThreadCritical(), local.OnThreadExit(func(int) { ran++ }))
	bad := local.New[int](local.ThreadCritical(), local.OnThreadExit(func(int) { runtime.Goexit() }))
	bubble(t, func(t *testing.T) {
		local.Go(func() {
			good.Set(1)
			bad.Set(1)
		})
	})
	assert.Equal(t, 1, ran)
}

func TestUndoOfAThreadCriticalVariable(t *testing.T) {
	testkit.SameRecords(t)
	c := local.New[int](local.ThreadCritical())

	u1 := c.Set(1)
	u2 := c.Set(2)
	u1() // out of order; the record goes
	isUnset(t, c)
	u2()
	is(t, 1, c)
	c.Delete()

	defer c.Set(1)()
	undo := c.Set(2)
	how, p := on(undo)
	assert.Equal(t, "panic", how)
	assert.Equal(t, "local: undo of a thread-critical variable called on another thread or goroutine than its Set", p)
	is(t, 2, c)
	undo() // not used up
	is(t, 1, c)
}

func TestUndoAfterTheThreadsValuesHaveEnded(t *testing.T) {
	c := local.New[int](local.ThreadCritical())
	bubble(t, func(t *testing.T) {
		var undo func()
		local.Go(func() {
			c.Set(1)
			undo = c.Set(2)
		})
		synctest.Wait() // until that goroutine has ended, and with it its values
		undo()
		isUnset(t, c)
		undo()
		isUnset(t, c)
	})
}
