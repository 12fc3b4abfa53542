package cycle

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func wait(kind string) Step { return Step{Link: Link{Who: "f", Kind: kind, For: "g"}} }

// Every kind of wait has its words, and a name where there is one.
func TestLinkString(t *testing.T) {
	for kind, want := range map[string]string{
		"call":        "f waits for the call of g",
		"parked":      "f waits for the call of g",
		"async":       "f waits for the async function g",
		"run":         "f waits for the end of g",
		"task":        "f waits for the task g",
		"group":       "f waits for a group",
		"group place": "f waits for a place in a group",
		"limiter":     "f waits for a limiter",
		"mutex":       "f waits for a mutex",
		"close":       "f waits for the end of context g",
		"pool close":  "f waits for the end of a pool",
		"stack":       "f cannot end before g, which is served on top of it",
		"":            "f waits for g",
	} {
		require.Equal(t, want, wait(kind).String(), kind)
	}
	require.Equal(t, "f on t waits for the call of 100%s", Link{Who: "f", Thread: "t", Kind: "call", For: "100%s"}.String())
}

// The page is about what is easiest to do without.
func TestErrorPage(t *testing.T) {
	blocked := func(b Block) Step {
		s := wait("call")
		s.Block = b
		return s
	}
	for _, c := range []struct {
		page  string
		cycle []Step
	}{
		{PageSelfWait, []Step{wait("task")}},
		{PageTasks, []Step{wait("task"), wait("task")}},
		{PageGroup, []Step{wait("group"), wait("task")}},
		{PageGroup, []Step{wait("group place")}},
		{PageBlocked, []Step{wait("call"), wait("async")}},
		{PageBlocked, []Step{blocked(Stranger), wait("group")}},
		{PageMutex, []Step{blocked(Stranger), wait("mutex")}},
		{PageLimiter, []Step{wait("limiter"), wait("mutex")}},
		{PageServeNone, []Step{blocked(Unserved), wait("limiter")}},
		{PageFullPool, []Step{blocked(InLine), blocked(Unserved)}},
		{PageShutdown, []Step{wait("close"), blocked(InLine)}},
		{PageShutdown, []Step{wait("pool close")}},
		{PageAll, []Step{wait("stack"), wait("close")}},
	} {
		require.Equal(t, c.page, New(c.cycle).Page)
	}
}

// The message is short for what happens most, and lists all waits else.
func TestErrorMessage(t *testing.T) {
	for want, cycle := range map[string][]Step{
		"a task waits for itself: f":                                             {wait("task")},
		"tasks wait for each other: f, f":                                        {wait("task"), wait("task")},
		"a task waits for the end of the group that it belongs to: f":            {wait("group")},
		"a task waits for a place in the full group that it belongs to: f":       {wait("group place")},
		"a function waits for a mutex that it holds itself: f":                   {wait("mutex")},
		"f waits for a limiter":                                                  {wait("limiter")},
		"f waits for the task g, f waits for the call of g, f waits for a mutex": {wait("task"), wait("call"), wait("mutex")},
	} {
		require.Equal(t, want, New(cycle).Message)
	}
}

func TestErrorText(t *testing.T) {
	first, second := wait("call"), wait("async")
	first.Age, first.Site = -1, "app.go:7"
	second.Goroutine, second.Age, second.Thread = 8, time.Second, "t"
	e := New([]Step{first, second})
	require.ErrorIs(t, e, ErrDeadlock)
	require.False(t, errors.Is(e, errors.ErrUnsupported))
	text := "deadlock: f waits for the call of g, f on t waits for the async function g (see go doc asyncsync.dev/deadlock PageCallToBlockedThread)"
	require.Equal(t, text, e.Error())
	require.Equal(t, text+"\n  f waits for the call of g, at app.go:7\n  f on t waits for the async function g, in goroutine 8, for 1s", e.Details())
	require.Equal(t, "deadlock: why", (&Error{Message: "why"}).Error())
}
