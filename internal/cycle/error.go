package cycle

import (
	"cmp"
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
	// Cycle has the waits in order: each waits for the next, and the last for the
	// first, which is the wait that was refused. It is empty where a function would wait
	// for its own end, as a Shutdown inside its context does: Message says that.
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

// kinds has the kinds of waits that can be in a cycle. The phrase says what such a wait
// is for; %s is the name of that. The page is about cycles that have such a wait, and ""
// where only the rest of the cycle says which page it is.
var kinds = map[string]struct{ phrase, page string }{
	"call":         {phrase: "the call of %s"},
	"parked":       {phrase: "the call of %s"},
	"async":        {phrase: "the async function %s"},
	"run":          {phrase: "the end of %s"},
	"task":         {"the task %s", PageTasks},
	"group":        {"a group", PageGroup},
	"group place":  {"a place in a group", PageGroup},
	"limiter":      {"a limiter", PageLimiter},
	"mutex":        {"a mutex", PageMutex},
	"close":        {"the end of context %s", PageShutdown},
	"pool close":   {"the end of a pool", PageShutdown},
	"portal close": {"the end of a portal", PageShutdown},
	"stack":        {page: PageAll}, // a call cannot end before one on top of it: see Link.String
}

// Phrase says what a wait of the kind is for; name is the name of that. It returns "" for
// a kind that is in no cycle.
func Phrase(kind, name string) string {
	return strings.Replace(kinds[kind].phrase, "%s", name, 1)
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
	return who + " waits for " + cmp.Or(Phrase(l.Kind, what), what)
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

// pages has the pages that a cycle may be about. The cause that is easiest to do without
// comes first.
var pages = []string{
	PageAll,
	PageShutdown,
	PageFullPool,
	PageServeNone,
	PageLimiter,
	PageMutex,
	PageBlocked,
	PageGroup,
	PageTasks,
}

// page returns the page about such a cycle: the first of pages that a step names, by its
// kind or by what keeps its call from beginning.
func page(cycle []Step) string {
	named := map[string]int{}
	for _, s := range cycle {
		named[kinds[s.Kind].page]++
		named[s.Block.page()]++
	}
	for _, p := range pages {
		switch n := named[p]; {
		case p == PageTasks && n == 1:
			return PageSelfWait
		case n > 0:
			return p
		}
	}
	return PageBlocked
}

// page returns the page about calls that b keeps from beginning.
func (b Block) page() string {
	switch b {
	case InLine:
		return PageFullPool
	case Unserved:
		return PageServeNone
	case Stranger:
		return PageBlocked
	}
	return ""
}
