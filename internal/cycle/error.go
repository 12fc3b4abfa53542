package cycle

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrDeadlock is matched by every [Error].
var ErrDeadlock = errors.New("deadlock")

// An Error says that a wait would never have ended.
type Error struct {
	// Message says which wait it was.
	Message string
	// Cycle is who waits for whom: each link for the next, the last for the
	// first, which is the wait that was refused.
	Cycle []Link
	// Page names the page of the documentation that says why it is so and what to do,
	// as the constants of package deadlock do (PageSelfWait and others); "" if there is
	// none. In docs/deadlock it is the file with ".md" behind it.
	Page string
}

// A Link is one wait in a cycle.
type Link struct {
	Who       string        // the function that waits
	Goroutine int64         // that it runs on, 0 if that is not known
	Thread    string        // and the name of the thread, if that is one
	Kind      string        // of wait, as in a report; stack for one that stands below the other
	For       string        // the name of what is waited for
	Age       time.Duration // of the wait, -1 if it does not sleep yet
	Site      string        // file:line of the wait in the user's code, "" if that is not known
}

// A Step is a link, and what only the choice of the page needs.
type Step struct {
	Link
	Block Block
}

// A Block is what keeps a call that is waited for from beginning.
type Block int

const (
	Unblocked Block = iota // nothing does, or it is no call
	Stranger               // its thread is blocked, and serves others
	Unserved               // its thread is blocked, and serves nobody
	InLine                 // its context waits for a thread of a full pool
)

// New returns the error of a cycle, given from its first wait on.
func New(cycle []Step) *Error {
	e := &Error{Page: page(cycle)}
	for _, s := range cycle {
		e.Cycle = append(e.Cycle, s.Link)
	}
	e.Message = message(e.Cycle)
	return e
}

// Error says in one line which wait it was, and where to read on.
func (e *Error) Error() string {
	if e.Page == "" {
		return "deadlock: " + e.Message
	}
	return fmt.Sprintf("deadlock: %s (%s)", e.Message, SeePage(e.Page))
}

// SeePage returns how a text refers to a page: by the constant that go doc shows.
func SeePage(page string) string {
	name := ""
	for word := range strings.SplitSeq(page, "-") {
		if word != "" {
			name += strings.ToUpper(word[:1]) + word[1:]
		}
	}
	return "see go doc asyncsync.dev/deadlock Page" + name
}

// Details returns what Error does, and a line for each wait in the cycle.
func (e *Error) Details() string {
	var b strings.Builder
	b.WriteString(e.Error())
	for _, l := range e.Cycle {
		fmt.Fprintf(&b, "\n  %s", l)
		if l.Goroutine != 0 {
			fmt.Fprintf(&b, ", in goroutine %d", l.Goroutine)
		}
		if l.Age >= 0 {
			fmt.Fprintf(&b, ", for %v", l.Age)
		}
		if l.Site != "" {
			fmt.Fprintf(&b, ", at %s", l.Site)
		}
	}
	return b.String()
}

// Is reports whether target is ErrDeadlock.
func (e *Error) Is(target error) bool { return target == ErrDeadlock }

// phrases say by the kind of a wait what is waited for; %s is its name.
var phrases = map[string]string{
	"call":         "the call of %s",
	"parked":       "the call of %s",
	"async":        "the async function %s",
	"run":          "the end of %s",
	"task":         "the task %s",
	"group":        "a group",
	"group place":  "a place in a group",
	"limiter":      "a limiter",
	"mutex":        "a mutex",
	"close":        "the end of context %s",
	"pool close":   "the threads of a pool",
	"portal close": "what a portal runs",
}

// String says who waits for whom.
func (l Link) String() string {
	who, what := l.Who, l.For
	if l.Thread != "" {
		who += " on " + l.Thread
	}
	if l.Kind == "stack" {
		return who + " cannot end before " + what + ", which is served on top of it"
	}
	if phrase := phrases[l.Kind]; phrase != "" {
		what = strings.Replace(phrase, "%s", what, 1)
	}
	return who + " waits for " + what
}

// message says which wait it was, and whose.
func message(cycle []Link) string {
	tasks := true
	for _, l := range cycle {
		tasks = tasks && l.Kind == "task"
	}
	what := ""
	switch {
	case tasks && len(cycle) == 1:
		what = "a task waits for itself"
	case tasks:
		what = "tasks wait for each other"
	case len(cycle) == 1 && cycle[0].Kind == "group":
		what = "a task waits for the end of the group that it belongs to"
	case len(cycle) == 1 && cycle[0].Kind == "group place":
		what = "a task waits for a place in the full group that it belongs to"
	case len(cycle) == 1 && cycle[0].Kind == "mutex":
		what = "a function waits for a mutex that it holds itself"
	}
	if what != "" {
		names := make([]string, len(cycle))
		for i, l := range cycle {
			names[i] = l.Who
		}
		return what + ": " + strings.Join(names, ", ")
	}
	waits := make([]string, len(cycle))
	for i, l := range cycle {
		waits[i] = l.String()
	}
	return strings.Join(waits, ", ")
}

// The pages of docs/deadlock that errors name.
const (
	PageSelfWait  = "self-wait"
	PageTasks     = "cycle-of-tasks"
	PageGroup     = "group-member"
	PageShutdown  = "shutdown-inside"
	PageBlocked   = "call-to-blocked-thread"
	PageServeNone = "serve-none"
	PageFullPool  = "full-pool"
	PageLimiter   = "limiter"
	PageMutex     = "mutex"
	PageAll       = "serve-all"
)

// page returns the page about such a cycle: what it has that is easiest to do
// without comes first.
func page(cycle []Step) string {
	kinds, blocks := map[string]int{}, map[Block]bool{}
	for _, s := range cycle {
		kinds[s.Kind]++
		blocks[s.Block] = true
	}
	switch {
	case kinds["stack"] > 0:
		return PageAll
	case kinds["close"] > 0 || kinds["pool close"] > 0 || kinds["portal close"] > 0:
		return PageShutdown
	case blocks[InLine]:
		return PageFullPool
	case blocks[Unserved]:
		return PageServeNone
	case kinds["limiter"] > 0:
		return PageLimiter
	case kinds["mutex"] > 0:
		return PageMutex
	case blocks[Stranger]:
		return PageBlocked
	case kinds["group"] > 0, kinds["group place"] > 0:
		return PageGroup
	case kinds["task"] == 1:
		return PageSelfWait
	case kinds["task"] > 1:
		return PageTasks
	}
	return PageBlocked
}
